// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Looks after debts: asks the law, writes down what follows, and tells the payer.

use std::fmt;
use std::time::Duration;

use leyden_store::{Batch, Expectation, Plan, StoreError, Timestamp};

use crate::error::PayoutError;
use crate::law::{decide, Decision, Facts};
use crate::money;
use crate::notice::{News, Notice};
use crate::payer::{Held, Lookup, Made, PayOrder, Payer, Reply, Sent};
use crate::payouts::{Loaded, Payouts};
use crate::records::{self, AttemptV1, DebtV1, LiveV1, StateV1, VerdictV1};
use crate::terms::DebtId;
use crate::time::Now;

/// How often a tick looks at most.
const MAX_PASSES: usize = 8;
/// A debt that has to wait for something that is not known is looked at again so soon.
const LEAST_WAIT: Duration = Duration::from_secs(60);
/// Most debts that one look takes.
pub const MAX_TICK: usize = 1_024;
/// Most debts that are passed over in one look.
const MAX_SCANNED: usize = 16 * MAX_TICK;

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

pub(crate) enum Asked {
	Settle(Reply<Held>),
	Compare(Reply<Made>),
	/// The node knows payments by hash only: what it has with that of the invoice.
	CompareHash(Reply<Lookup>),
	Pay(u32, Reply<Sent>),
	Look(u32, Reply<Lookup>),
}

/// An answer, or none in time.
pub(crate) enum Answer {
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
		// Those that the payer was asked about, or cannot be asked about now, do not count: what is behind
		// them may need nobody.
		let (mut worked, mut scanned) = (0, 0);
		let mut rest = Some(records::due(now.now));
		while let Some(range) = rest.take() {
			let page = self.0.store.scan(range, limit.max(1)).wait()?;
			scanned += page.records.len();
			for (key, _) in &page.records {
				let id = records::due_of(key)?;
				if worked >= limit || self.0.state.lock().calls.contains_key(&id) {
					continue;
				}
				match self.step(payer, &id, now, frozen) {
					Ok(Done::NoRoom) => continue,
					Ok(done) => ticked.count(done),
					Err(error) => ticked.failed(error)?,
				}
				worked += 1;
			}
			ticked.more = page.rest.is_some();
			rest = page.rest.filter(|_| worked < limit && scanned < MAX_SCANNED);
		}
		ticked.looked_at += worked;
		Ok(())
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

	pub(crate) fn call(&self, id: &DebtId, since: Timestamp, what: Asked) -> Done {
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
		let has_room = self.0.state.lock().calls.len() < self.0.options.max_calls;
		match decision {
			// What needs no call goes on.
			Decision::SettleHeld | Decision::Ask(_) | Decision::Compare | Decision::Pay
				if !has_room =>
			{
				Ok(Done::NoRoom)
			},
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

	pub(crate) fn live(&self, number: u32, now: Timestamp) -> LiveV1 {
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

	pub(crate) fn close(
		&self, loaded: &Loaded, state: StateV1, what: &str, notice: Option<Notice>, now: Now,
	) -> Result<Done, PayoutError> {
		let next = self.closed(loaded, state, now);
		self.write(loaded, next, Some(what), notice, now)
	}

	/// The debt, when it is over.
	pub(crate) fn closed(&self, loaded: &Loaded, state: StateV1, now: Now) -> DebtV1 {
		let closed_at = Some(now.now);
		DebtV1 { state, live: None, due: None, closed_at, ..loaded.debt.clone() }
	}

	pub(crate) fn wait(
		&self, loaded: &Loaded, until: Timestamp, now: Now,
	) -> Result<Done, PayoutError> {
		if loaded.debt.due == Some(until) {
			return Ok(Done::Nothing);
		}
		let next = DebtV1 { due: Some(until), ..loaded.debt.clone() };
		self.write(loaded, next, None, None, now)
	}

	pub(crate) fn write(
		&self, loaded: &Loaded, next: DebtV1, what: Option<&str>, notice: Option<Notice>, now: Now,
	) -> Result<Done, PayoutError> {
		match self.change(loaded, next, Batch::new(), what, notice, now.now)? {
			true => Ok(Done::Changed),
			false => Ok(Done::Nothing),
		}
	}

	pub(crate) fn run(&self, plan: Plan<()>) -> Result<Done, PayoutError> {
		match plan.run(&*self.0.store) {
			Ok(()) => Ok(Done::Changed),
			Err(StoreError::Conflict { .. }) => Ok(Done::Nothing),
			Err(error) => Err(error.into()),
		}
	}
}

/// What a step came to.
pub(crate) enum Done {
	Nothing,
	Changed,
	Called,
	/// The payer is asked as much as it may be.
	NoRoom,
}

impl Ticked {
	fn count(&mut self, done: Done) {
		match done {
			Done::Nothing | Done::NoRoom => {},
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

pub(crate) fn order(id: &DebtId, number: u32, attempt: &AttemptV1) -> PayOrder {
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
