// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Looks after debts: asks the law, writes down what follows, and tells the payer.

use std::fmt;
use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use leyden_store::{Batch, Expectation, Plan, StoreError, Timestamp};

use crate::error::PayoutError;
use crate::law::{decide, Decision, Facts};
use crate::money;
use crate::notice::{News, Notice};
use crate::payer::{Held, Lookup, Made, NotSent, PayOrder, Payer, Reply, Sent};
use crate::payouts::{Loaded, Now, Payouts};
use crate::records::{self, AttemptV1, DebtV1, HashV1, LiveV1, StateV1, VerdictV1};
use crate::terms::{AttemptId, DebtId};

/// How often a tick looks at most.
const MAX_PASSES: usize = 8;
/// A debt that has to wait for something that is not known is looked at again so soon.
const LEAST_WAIT: Duration = Duration::from_secs(60);
/// Most debts that one look takes.
pub const MAX_TICK: usize = 1_024;

/// What a look at the debts did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ticked {
	/// Debts that were looked at because they were due.
	pub looked_at: usize,
	/// Calls of the payer that were begun.
	pub calls: usize,
	/// Changes that were written down.
	pub changes: usize,
	/// Debts that could not be looked after, because their records are damaged or do not add up.
	pub broken: usize,
	/// There is more to do now.
	pub more: bool,
}

/// What the payer was asked.
pub(crate) struct Call {
	since: Timestamp,
	what: Asked,
}

enum Asked {
	Settle(Reply<Held>),
	Compare(Reply<Made>),
	/// The node knows payments by hash only: what it has with that of the invoice.
	CompareHash(Reply<Lookup>),
	Pay(u32, Reply<Sent>),
	Look(u32, Reply<Lookup>),
}

/// An answer, or none in time.
enum Answer {
	Settle(Option<Held>),
	Compare(Option<Made>),
	CompareHash(Option<Lookup>),
	Pay(u32, Option<Sent>),
	Look(u32, Option<Lookup>),
}

impl Call {
	fn poll(&self) -> Option<Answer> {
		match &self.what {
			Asked::Settle(reply) => reply.take().map(|a| Answer::Settle(Some(a))),
			Asked::Compare(reply) => reply.take().map(|a| Answer::Compare(Some(a))),
			Asked::CompareHash(reply) => reply.take().map(|a| Answer::CompareHash(Some(a))),
			Asked::Pay(n, reply) => reply.take().map(|a| Answer::Pay(*n, Some(a))),
			Asked::Look(n, reply) => reply.take().map(|a| Answer::Look(*n, Some(a))),
		}
	}

	fn given_up(&self) -> Answer {
		match &self.what {
			Asked::Settle(_) => Answer::Settle(None),
			Asked::Compare(_) => Answer::Compare(None),
			Asked::CompareHash(_) => Answer::CompareHash(None),
			Asked::Pay(n, _) => Answer::Pay(*n, None),
			Asked::Look(n, _) => Answer::Look(*n, None),
		}
	}
}

impl Payouts {
	/// Looks at what the payer has answered, and at the debts that are due, up to `limit`, and does what
	/// is to be done. Call it every few seconds, and when the payer has news. It does not wait for the
	/// payer.
	///
	/// # Errors
	/// The store's. A debt whose record is damaged stops no other: see [`Ticked::broken`] and
	/// [`doctor`](Payouts::doctor).
	///
	/// # Failure Behavior and Persistence
	/// What is about to be done is durable before the payer is told, and what the payer said before
	/// anything follows from it. If the process dies in between, the payer is asked what it knows.
	pub fn tick(&self, payer: &dyn Payer, limit: usize) -> Result<Ticked, PayoutError> {
		let now = self.look();
		self.keep_clock(now)?;
		let mut ticked = Ticked::default();
		// What the payer answers at once is not left for the next time.
		for _ in 0..MAX_PASSES {
			let before = (ticked.calls, ticked.changes);
			self.pass(payer, now, limit.min(MAX_TICK), &mut ticked)?;
			if before == (ticked.calls, ticked.changes) {
				break;
			}
		}
		Ok(ticked)
	}

	fn pass(
		&self, payer: &dyn Payer, now: Now, limit: usize, ticked: &mut Ticked,
	) -> Result<(), PayoutError> {
		let frozen = self.breaker()?.is_some();
		for (id, answer) in self.answers(now.now) {
			match self.answered(payer, &id, answer, now, frozen) {
				Ok(done) => ticked.count(done),
				Err(error) => ticked.failed(error)?,
			}
		}
		let page = self.0.store.scan(records::due(now.now), limit).wait()?;
		ticked.more = page.rest.is_some();
		for (key, _) in &page.records {
			let id = records::due_of(key)?;
			let (has_room, is_asked) = {
				let memory = self.0.state.lock();
				(memory.calls.len() < self.0.options.max_calls, memory.calls.contains_key(&id))
			};
			if is_asked || !has_room {
				continue;
			}
			ticked.looked_at += 1;
			match self.step(payer, &id, now, frozen) {
				Ok(done) => ticked.count(done),
				Err(error) => ticked.failed(error)?,
			}
		}
		Ok(())
	}

	/// A plan that writes down what became of a payment, for a node that says so by itself (an event).
	/// Join it with the ack of what said so. `None` if the payment pays no debt, or it is known.
	///
	/// `attempt` is the name that the node has for the payment, if it has one: that something failed is
	/// only believed of the attempt that is live, since another one of the same payment hash may have
	/// failed long ago. The preimage proves itself.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// If the debt has changed meanwhile, the commit is refused, and the same can be asked again.
	pub fn learn(
		&self, payment_hash: &[u8; 32], attempt: Option<&AttemptId>, outcome: &Lookup,
	) -> Result<Option<Plan<()>>, PayoutError> {
		let now = self.look();
		let key = records::hash_key(payment_hash);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let HashV1 { debt } = records::read(&key, &record)?;
		let id = DebtId::from_bytes(debt);
		let Some(loaded) = self.load(&id)? else { return Ok(None) };
		let Some(live) = loaded.debt.live else { return Ok(None) };
		let is_it = attempt.is_some_and(|attempt| *attempt == id.attempt(live.number));
		let Some(attempt) = self.attempt(&id, live.number)? else { return Ok(None) };
		if attempt.payment_hash != *payment_hash {
			return Ok(None);
		}
		match outcome {
			Lookup::Settled { preimage, fee_msat } => {
				let paid = self.paid(&loaded, live.number, attempt, (*preimage, *fee_msat), now)?;
				Ok(Some(paid))
			},
			Lookup::Failed if is_it => {
				let what = format!("attempt {} failed", live.number);
				let dead = self.dead(&loaded, live.number, attempt, true, &what, now)?;
				Ok(Some(dead))
			},
			_ => Ok(None),
		}
	}

	/// What has been answered, or will not be.
	fn answers(&self, now: Timestamp) -> Vec<(DebtId, Answer)> {
		let mut memory = self.0.state.lock();
		let patience = self.0.options.patience;
		// An answer that is too late is none: somebody else may be at it by now.
		let answered = |(id, call): (&DebtId, &Call)| match now.since(call.since) >= patience {
			true => Some((*id, call.given_up())),
			false => call.poll().map(|answer| (*id, answer)),
		};
		let mut answers: Vec<_> = memory.calls.iter().filter_map(answered).collect();
		for (id, _) in &answers {
			memory.calls.remove(id);
		}
		// The same order in every run.
		answers.sort_by_key(|(id, _)| *id);
		answers
	}

	fn call(&self, id: &DebtId, since: Timestamp, what: Asked) -> Done {
		self.0.state.lock().calls.insert(*id, Call { since, what });
		Done::Called
	}

	/// Does what the law says for a debt that is due.
	fn step(
		&self, payer: &dyn Payer, id: &DebtId, now: Now, frozen: bool,
	) -> Result<Done, PayoutError> {
		let Some(loaded) = self.load(id)? else { return Ok(Done::Nothing) };
		let debt = &loaded.debt;
		if let Err(error) = money::check(debt) {
			// What does not add up is not paid, and neither is anything else until somebody has looked.
			self.freeze(&format!("debt {id}: {error}"))?;
			return Err(error);
		}
		let decision = decide(&self.facts(&loaded, now));
		match decision {
			Decision::SettleHeld if frozen => self.wait(&loaded, now.now.after(LEAST_WAIT), now),
			Decision::SettleHeld => {
				let Some(held) = debt.held else {
					return Err(PayoutError::Unsound { what: "nothing is held for it" });
				};
				Ok(self.call(id, now.now, Asked::Settle(payer.settle_held(&held))))
			},
			Decision::Ask(number) => self.ask(payer, &loaded, number, now),
			Decision::Keep => self.close(&loaded, StateV1::Kept, "nothing is owed", None, now),
			Decision::Forfeit => {
				let notice = Notice::new(&loaded, News::Forfeited);
				let what = "nobody asked for it in time";
				self.close(&loaded, StateV1::Forfeited, what, Some(notice), now)
			},
			Decision::Fail => {
				let notice = Notice::new(&loaded, News::Failed);
				let what = match debt.spent >= debt.budget {
					true => "its budget is used up",
					false => "its invoice is of no use, and the time to give another is over",
				};
				self.close(&loaded, StateV1::Failed, what, Some(notice), now)
			},
			Decision::Nudge => self.nudge(&loaded, now),
			Decision::DropInvoice => {
				let next = DebtV1 {
					invoice: None,
					spent: 0,
					nudged_at: None,
					due: Some(now.now),
					..debt.clone()
				};
				self.write(&loaded, next, Some("its invoice has expired"), None, now)
			},
			Decision::Compare => self.compare(payer, &loaded, now),
			Decision::Pay if frozen => self.wait(&loaded, now.now.after(LEAST_WAIT), now),
			Decision::Pay => self.pay(payer, &loaded, now),
			Decision::Wait(until) => {
				let soonest = now.now.after(LEAST_WAIT.min(Duration::from_millis(debt.cadence_ms)));
				self.wait(&loaded, if until > now.now { until } else { soonest }, now)
			},
			Decision::Nothing => Ok(Done::Nothing),
		}
	}

	fn facts(&self, loaded: &Loaded, now: Now) -> Facts {
		let debt = &loaded.debt;
		let compared = self.0.state.lock().compared.contains(&loaded.id);
		Facts {
			state: loaded.state(),
			share_sat: debt.share_sat(),
			live: debt.live.map(|live| live.number),
			invoice_expires_at: debt.invoice.as_ref().map(|invoice| invoice.expires_at),
			was_invoiced: debt.was_invoiced,
			spent: debt.spent,
			budget: debt.budget,
			nudged_at: debt.nudged_at,
			nudges_sent: debt.nudges_sent,
			cadence: Duration::from_millis(debt.cadence_ms),
			deadline: debt.deadline(),
			clock: now.clock,
			now: now.now,
			steady: now.steady,
			awake_since: now.awake_since,
			compared,
		}
	}

	fn nudge(&self, loaded: &Loaded, now: Now) -> Result<Done, PayoutError> {
		let debt = &loaded.debt;
		let next_nudge = now.now.after(Duration::from_millis(debt.cadence_ms));
		// The end of the window is looked at when it comes.
		let end = Some(debt.deadline()).filter(|end| *end > now.now);
		let next = DebtV1 {
			nudges: debt.nudges.saturating_add(1),
			nudged_at: Some(now.now),
			due: Some(end.map_or(next_nudge, |end| end.min(next_nudge))),
			..debt.clone()
		};
		let notice = Notice::new(loaded, News::InvoiceWanted { number: next.nudges });
		self.write(loaded, next, None, Some(notice), now)
	}

	/// Plans an attempt, durably; and only then tells the payer.
	fn pay(&self, payer: &dyn Payer, loaded: &Loaded, now: Now) -> Result<Done, PayoutError> {
		let (id, debt) = (&loaded.id, &loaded.debt);
		let Some(invoice) = &debt.invoice else {
			return Err(PayoutError::Unsound { what: "there is no invoice to pay" });
		};
		let number = debt.attempts.saturating_add(1);
		let attempt = AttemptV1 {
			invoice: invoice.text.clone(),
			payment_hash: invoice.payment_hash,
			amount_msat: debt.share_msat(),
			fee_cap_msat: debt.fee_cap_msat,
			planned_at: now.now,
			verdict: VerdictV1::Planned,
			ended_at: None,
		};
		let next = DebtV1 {
			attempts: number,
			live: Some(self.live(number, now.now)),
			due: Some(now.now.after(self.0.options.ask_pause)),
			..debt.clone()
		};
		let mut batch = Batch::new();
		let key = records::attempt_key(id, number);
		batch.expect(key.clone(), Expectation::Absent);
		batch.put(key, records::value(&attempt)?);
		let what = format!("attempt {number} planned");
		if !self.change(loaded, next, batch, Some(&what), None, now.now)? {
			return Ok(Done::Nothing);
		}
		let order = order(id, number, &attempt);
		Ok(self.call(id, now.now, Asked::Pay(number, payer.pay(&order))))
	}

	fn live(&self, number: u32, now: Timestamp) -> LiveV1 {
		LiveV1 { number, owner: self.0.owner, lease: now.after(self.0.options.patience * 2) }
	}

	/// Asks what became of an attempt, unless somebody else is at it. Whoever asks has it for longer than
	/// an answer may take: what was true before somebody else told the node is no answer.
	fn ask(
		&self, payer: &dyn Payer, loaded: &Loaded, number: u32, now: Now,
	) -> Result<Done, PayoutError> {
		let Some(live) = loaded.debt.live else { return Ok(Done::Nothing) };
		let is_ours = live.owner == self.0.owner;
		if !is_ours && live.lease > now.now {
			return self.wait(loaded, live.lease, now);
		}
		if !is_ours || live.lease <= now.now.after(self.0.options.patience) {
			let live = Some(self.live(number, now.now));
			let next = DebtV1 { live, ..loaded.debt.clone() };
			return self.write(loaded, next, None, None, now);
		}
		let Some(attempt) = self.attempt(&loaded.id, number)? else {
			return Err(PayoutError::Unsound { what: "the attempt is not there" });
		};
		let order = order(&loaded.id, number, &attempt);
		Ok(self.call(&loaded.id, now.now, Asked::Look(number, payer.lookup(&order))))
	}

	/// What the node has already paid for it: this may be an old copy of the database.
	fn compare(&self, payer: &dyn Payer, loaded: &Loaded, now: Now) -> Result<Done, PayoutError> {
		Ok(self.call(&loaded.id, now.now, Asked::Compare(payer.made(&loaded.id))))
	}

	fn answered(
		&self, payer: &dyn Payer, id: &DebtId, answer: Answer, now: Now, frozen: bool,
	) -> Result<Done, PayoutError> {
		let Some(loaded) = self.load(id)? else { return Ok(Done::Nothing) };
		match answer {
			Answer::Settle(Some(Held::Settled | Held::AlreadySettled)) => {
				if loaded.debt.state != StateV1::Decided {
					return Ok(Done::Nothing);
				}
				let next = DebtV1 {
					state: StateV1::Owed,
					slashed_at: Some(now.beginning()),
					due: Some(now.now),
					..loaded.debt.clone()
				};
				self.write(&loaded, next, Some("the money is in"), None, now)
			},
			Answer::Settle(_) => self.wait(&loaded, now.now.after(self.0.options.ask_pause), now),
			Answer::Compare(Some(Made::Payments(made))) => self.adopt(&loaded, &made, now),
			Answer::Compare(Some(Made::CannotSay)) => {
				let Some(invoice) = &loaded.debt.invoice else { return Ok(Done::Nothing) };
				// As if it were the next attempt: all that such a node looks at is the hash.
				let number = loaded.debt.attempts.saturating_add(1);
				let order = PayOrder {
					debt: *id,
					attempt: id.attempt(number),
					number,
					invoice: invoice.text.clone(),
					payment_hash: invoice.payment_hash,
					amount_msat: loaded.debt.share_msat(),
					fee_cap_msat: loaded.debt.fee_cap_msat,
					planned_at: Timestamp(0),
				};
				Ok(self.call(id, now.now, Asked::CompareHash(payer.lookup(&order))))
			},
			Answer::CompareHash(Some(Lookup::Settled { .. } | Lookup::InFlight)) => {
				let hash = loaded.debt.invoice.as_ref().map(|invoice| invoice.payment_hash);
				let made: Vec<_> =
					hash.map(|hash| (loaded.debt.attempts + 1, hash)).into_iter().collect();
				self.adopt(&loaded, &made, now)
			},
			Answer::CompareHash(Some(Lookup::Failed | Lookup::NoRecord { would_know: true })) => {
				self.adopt(&loaded, &[], now)
			},
			// Not known is not "no": nothing is paid before it is.
			Answer::Compare(None) | Answer::CompareHash(_) => {
				self.wait(&loaded, now.now.after(self.0.options.ask_pause), now)
			},
			Answer::Pay(number, sent) => self.sent(&loaded, number, sent, now),
			Answer::Look(number, found) => self.found(payer, &loaded, number, found, now, frozen),
		}
	}

	/// Takes over what the node has paid and this database does not know.
	fn adopt(
		&self, loaded: &Loaded, made: &[(u32, [u8; 32])], now: Now,
	) -> Result<Done, PayoutError> {
		let known = self.all_attempts(&loaded.id)?;
		let is_known = |n: u32| known.iter().any(|(number, _)| *number == n);
		let unknown = made.iter().find(|(number, _)| !is_known(*number));
		let Some((number, payment_hash)) = unknown else {
			self.0.state.lock().compared.insert(loaded.id);
			return Ok(Done::Nothing);
		};
		let (id, debt) = (&loaded.id, &loaded.debt);
		if debt.live.is_some() || debt.state != StateV1::Owed {
			return Ok(Done::Nothing);
		}
		let attempt = AttemptV1 {
			invoice: String::new(),
			payment_hash: *payment_hash,
			amount_msat: debt.share_msat(),
			fee_cap_msat: debt.fee_cap_msat,
			planned_at: Timestamp(0),
			verdict: VerdictV1::Unknown,
			ended_at: None,
		};
		let next = DebtV1 {
			attempts: debt.attempts.max(*number),
			live: Some(self.live(*number, now.now)),
			due: Some(now.now),
			..debt.clone()
		};
		let mut batch = Batch::new();
		let key = records::attempt_key(id, *number);
		batch.expect(key.clone(), Expectation::Absent);
		batch.put(key, records::value(&attempt)?);
		batch.put(
			records::hash_key(payment_hash),
			records::value(&HashV1 { debt: *id.as_bytes() })?,
		);
		let what = format!("attempt {number} was made, and this database did not know it");
		match self.change(loaded, next, batch, Some(&what), None, now.now)? {
			true => Ok(Done::Changed),
			false => Ok(Done::Nothing),
		}
	}

	/// What came of telling the payer.
	fn sent(
		&self, loaded: &Loaded, number: u32, sent: Option<Sent>, now: Now,
	) -> Result<Done, PayoutError> {
		let Some(attempt) = self.open_attempt(loaded, number)? else { return Ok(Done::Nothing) };
		let counts = |why| why == NotSent::NoRoute;
		match sent {
			Some(Sent::Not(why)) => {
				let what = format!("attempt {number} was not sent: {why:?}");
				let plan = self.dead(loaded, number, attempt, counts(why), &what, now)?;
				self.run(plan)
			},
			Some(Sent::Accepted) => {
				self.verdict(loaded, number, attempt, VerdictV1::Dispatched, now)
			},
			Some(Sent::Unknown) | None => {
				self.verdict(loaded, number, attempt, VerdictV1::Unknown, now)
			},
		}
	}

	/// What the payer knows of an attempt.
	fn found(
		&self, payer: &dyn Payer, loaded: &Loaded, number: u32, found: Option<Lookup>, now: Now,
		frozen: bool,
	) -> Result<Done, PayoutError> {
		let Some(attempt) = self.open_attempt(loaded, number)? else { return Ok(Done::Nothing) };
		let again = now.now.after(self.0.options.ask_pause);
		let expires_at = self.expiry_of(loaded, &attempt);
		let has_expired = expires_at.is_some_and(|expires_at| now.clock >= expires_at);
		match found {
			Some(Lookup::Settled { preimage, .. }) if !attempt.is_paid_by(&preimage) => {
				self.freeze(&wrong_preimage(&loaded.id, number))?;
				// It proves nothing.
				self.verdict(loaded, number, attempt, VerdictV1::Unknown, now)
			},
			Some(Lookup::Settled { preimage, fee_msat }) => {
				let plan = self.paid(loaded, number, attempt, (preimage, fee_msat), now)?;
				self.run(plan)
			},
			Some(Lookup::Failed) => {
				let what = format!("attempt {number} failed");
				let plan = self.dead(loaded, number, attempt, true, &what, now)?;
				self.run(plan)
			},
			// It was never told, and never will be: nobody pays an invoice that has expired.
			Some(Lookup::NoRecord { would_know: true }) if has_expired => {
				let counts = attempt.verdict == VerdictV1::Dispatched;
				let what = format!("attempt {number} was never made, and its invoice has expired");
				let plan = self.dead(loaded, number, attempt, counts, &what, now)?;
				self.run(plan)
			},
			// It was not told yet: the same attempt, under the same name.
			Some(Lookup::NoRecord { would_know: true })
				if attempt.verdict != VerdictV1::Dispatched
					&& !frozen && !attempt.invoice.is_empty() =>
			{
				let next = DebtV1 {
					live: Some(self.live(number, now.now)),
					due: Some(again),
					..loaded.debt.clone()
				};
				if !self.change(loaded, next, Batch::new(), None, None, now.now)? {
					return Ok(Done::Nothing);
				}
				let order = order(&loaded.id, number, &attempt);
				Ok(self.call(&loaded.id, now.now, Asked::Pay(number, payer.pay(&order))))
			},
			Some(Lookup::InFlight | Lookup::NoRecord { .. }) | None => {
				self.wait(loaded, again, now)
			},
		}
	}

	fn expiry_of(&self, loaded: &Loaded, attempt: &AttemptV1) -> Option<Timestamp> {
		let invoice = loaded.debt.invoice.as_ref();
		let is_it = |invoice: &&records::InvoiceV1| invoice.payment_hash == attempt.payment_hash;
		invoice.filter(is_it).map(|invoice| invoice.expires_at)
	}

	/// The attempt that an answer is about, if it is still open and ours.
	fn open_attempt(&self, loaded: &Loaded, number: u32) -> Result<Option<AttemptV1>, PayoutError> {
		let is_ours = |live: records::LiveV1| live.number == number && live.owner == self.0.owner;
		if !loaded.debt.live.is_some_and(is_ours) {
			return Ok(None);
		}
		Ok(self.attempt(&loaded.id, number)?.filter(|attempt| attempt.verdict.is_open()))
	}

	fn verdict(
		&self, loaded: &Loaded, number: u32, attempt: AttemptV1, verdict: VerdictV1, now: Now,
	) -> Result<Done, PayoutError> {
		let next =
			DebtV1 { due: Some(now.now.after(self.0.options.ask_pause)), ..loaded.debt.clone() };
		let mut batch = Batch::new();
		let attempt = AttemptV1 { verdict, ..attempt };
		batch.put(records::attempt_key(&loaded.id, number), records::value(&attempt)?);
		match self.change(loaded, next, batch, None, None, now.now)? {
			true => Ok(Done::Changed),
			false => Ok(Done::Nothing),
		}
	}

	/// It was paid: proof, fee and the end of the debt are one commit.
	fn paid(
		&self, loaded: &Loaded, number: u32, attempt: AttemptV1,
		(preimage, fee_msat): ([u8; 32], u64), now: Now,
	) -> Result<Plan<()>, PayoutError> {
		if !attempt.is_paid_by(&preimage) {
			let reason = wrong_preimage(&loaded.id, number);
			self.freeze(&reason)?;
			return Err(PayoutError::Frozen { reason });
		}
		let mut batch = Batch::new();
		let is_over = fee_msat > attempt.fee_cap_msat;
		let verdict = VerdictV1::Settled { preimage, fee_msat };
		let attempt = AttemptV1 { verdict, ended_at: Some(now.now), ..attempt };
		batch.put(records::attempt_key(&loaded.id, number), records::value(&attempt)?);
		if is_over {
			// The money is gone; the next is not sent before somebody has looked.
			let reason = format!("attempt {number} of debt {} cost more than it may", loaded.id);
			batch.put(records::breaker_key(), records::value(&self.breaker_record(&reason))?);
		}
		let next = DebtV1 {
			state: StateV1::Paid,
			live: None,
			due: None,
			closed_at: Some(now.now),
			..loaded.debt.clone()
		};
		let what = format!("attempt {number} paid it");
		let notice = Notice::paid(loaded, Some(preimage));
		self.plan(loaded, next, batch, Some(&what), Some(notice), now.now)
	}

	/// It was not paid, and never will be.
	fn dead(
		&self, loaded: &Loaded, number: u32, attempt: AttemptV1, counts: bool, what: &str, now: Now,
	) -> Result<Plan<()>, PayoutError> {
		let debt = &loaded.debt;
		let verdict = VerdictV1::Dead { counts };
		let attempt = AttemptV1 { verdict, ended_at: Some(now.now), ..attempt };
		let mut batch = Batch::new();
		batch.put(records::attempt_key(&loaded.id, number), records::value(&attempt)?);
		let next = DebtV1 {
			live: None,
			spent: debt.spent.saturating_add(u32::from(counts)),
			due: Some(now.now.after(self.0.options.retry_pause)),
			..debt.clone()
		};
		self.plan(loaded, next, batch, Some(what), None, now.now)
	}

	fn close(
		&self, loaded: &Loaded, state: StateV1, what: &str, notice: Option<Notice>, now: Now,
	) -> Result<Done, PayoutError> {
		let next = DebtV1 { state, due: None, closed_at: Some(now.now), ..loaded.debt.clone() };
		self.write(loaded, next, Some(what), notice, now)
	}

	fn wait(&self, loaded: &Loaded, until: Timestamp, now: Now) -> Result<Done, PayoutError> {
		if loaded.debt.due == Some(until) {
			return Ok(Done::Nothing);
		}
		let next = DebtV1 { due: Some(until), ..loaded.debt.clone() };
		self.write(loaded, next, None, None, now)
	}

	fn write(
		&self, loaded: &Loaded, next: DebtV1, what: Option<&str>, notice: Option<Notice>, now: Now,
	) -> Result<Done, PayoutError> {
		match self.change(loaded, next, Batch::new(), what, notice, now.now)? {
			true => Ok(Done::Changed),
			false => Ok(Done::Nothing),
		}
	}

	fn run(&self, plan: Plan<()>) -> Result<Done, PayoutError> {
		match plan.run(&*self.0.store) {
			Ok(()) => Ok(Done::Changed),
			Err(StoreError::Conflict { .. }) => Ok(Done::Nothing),
			Err(error) => Err(error.into()),
		}
	}
}

/// What a step came to.
enum Done {
	Nothing,
	Changed,
	Called,
}

impl Ticked {
	fn count(&mut self, done: Done) {
		match done {
			Done::Nothing => {},
			Done::Changed => self.changes += 1,
			Done::Called => self.calls += 1,
		}
	}

	/// One debt's trouble is not another's; a store that fails is everybody's.
	fn failed(&mut self, error: PayoutError) -> Result<(), PayoutError> {
		match error {
			PayoutError::Store(StoreError::Corrupt { .. })
			| PayoutError::Unsound { .. }
			| PayoutError::Frozen { .. } => {
				self.broken += 1;
				Ok(())
			},
			error => Err(error),
		}
	}
}

impl AttemptV1 {
	fn is_paid_by(&self, preimage: &[u8; 32]) -> bool {
		sha256::Hash::hash(preimage).to_byte_array() == self.payment_hash
	}
}

fn wrong_preimage(id: &DebtId, number: u32) -> String {
	format!("the node gives a wrong preimage for attempt {number} of debt {id}")
}

fn order(id: &DebtId, number: u32, attempt: &AttemptV1) -> PayOrder {
	PayOrder {
		debt: *id,
		attempt: id.attempt(number),
		number,
		invoice: attempt.invoice.clone(),
		payment_hash: attempt.payment_hash,
		amount_msat: attempt.amount_msat,
		fee_cap_msat: attempt.fee_cap_msat,
		planned_at: attempt.planned_at,
	}
}

impl fmt::Debug for Call {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Call(since {:?})", self.since)
	}
}
