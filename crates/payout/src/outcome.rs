// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What the payer says, and what follows from it.

use bitcoin::hashes::{sha256, Hash};
use leyden_store::{Batch, Expectation, Plan, Timestamp};

use crate::error::PayoutError;
use crate::notice::Notice;
use crate::payer::{Held, Lookup, Made, NotSent, PayOrder, Payer, Sent};
use crate::payouts::{Loaded, Payouts};
use crate::records::{self, AttemptV1, DebtV1, HashV1, StateV1, VerdictV1};
use crate::terms::{AttemptId, DebtId};
use crate::time::Now;
use crate::worker::{order, Answer, Asked, Done};

impl Payouts {
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
		let live = match loaded.debt.live {
			Some(live) => self.attempt(&id, live.number)?.map(|record| (live.number, record)),
			None => None,
		};
		let live = live.filter(|(_, record)| record.payment_hash == *payment_hash);
		match (outcome, live) {
			(Lookup::Settled { preimage, fee_msat }, Some((number, record))) => {
				self.paid(&loaded, number, record, (*preimage, *fee_msat), now).map(Some)
			},
			(Lookup::Settled { preimage, fee_msat }, None) => {
				self.settled_after_all(&loaded, payment_hash, (*preimage, *fee_msat), now)
			},
			(Lookup::Failed, Some((number, record)))
				if attempt.is_some_and(|attempt| *attempt == id.attempt(number)) =>
			{
				let what = format!("attempt {number} failed");
				self.dead(&loaded, number, record, true, &what, now).map(Some)
			},
			_ => Ok(None),
		}
	}

	/// A payment was made that was known to be dead, or the debt was paid by other means meanwhile. It is
	/// written down, the debt is not paid again, and nothing else is before somebody has looked.
	fn settled_after_all(
		&self, loaded: &Loaded, payment_hash: &[u8; 32], (preimage, fee_msat): ([u8; 32], u64),
		now: Now,
	) -> Result<Option<Plan<()>>, PayoutError> {
		let attempts = self.all_attempts(&loaded.id)?;
		let is_it = |attempt: &AttemptV1| attempt.payment_hash == *payment_hash;
		let is_known = |attempt: &AttemptV1| is_it(attempt) && attempt.verdict.settled().is_some();
		let last = attempts.iter().rfind(|(_, attempt)| is_it(attempt));
		let (Some((number, attempt)), false) =
			(last, attempts.iter().any(|(_, attempt)| is_known(attempt)))
		else {
			return Ok(None);
		};
		if !attempt.is_paid_by(&preimage) {
			let reason = wrong_preimage(&loaded.id, *number);
			self.freeze(&reason)?;
			return Err(PayoutError::Frozen { reason });
		}
		let reason = format!("attempt {number} of debt {} was paid after all", loaded.id);
		let verdict = VerdictV1::Settled { preimage, fee_msat };
		let attempt = AttemptV1 { verdict, ended_at: Some(now.now), ..attempt.clone() };
		let mut batch = Batch::new();
		batch.put(records::attempt_key(&loaded.id, *number), records::value(&attempt)?);
		batch.put(records::breaker_key(), records::value(&self.breaker_record(&reason))?);
		// With another attempt under way it ends with that one, whatever comes of it.
		let is_open = loaded.debt.live.is_some();
		let next = match is_open {
			true => loaded.debt.clone(),
			false => self.closed(loaded, StateV1::Paid, now),
		};
		let notice = Notice::paid(loaded, Some(preimage));
		let notice = Some(notice).filter(|_| !is_open && loaded.debt.state != StateV1::Paid);
		self.plan(loaded, next, batch, Some(&reason), notice, now.now).map(Some)
	}

	pub(crate) fn answered(
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
				// It proves nothing, and what was known stays known.
				let verdict = attempt.verdict;
				self.verdict(loaded, number, attempt, verdict, now)
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
		let next = self.closed(loaded, StateV1::Paid, now);
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
		// An earlier one may have been paid after all.
		let attempts = self.all_attempts(&loaded.id)?;
		let settled = attempts.iter().find_map(|(_, attempt)| attempt.verdict.settled());
		let next = match settled {
			Some(_) => self.closed(loaded, StateV1::Paid, now),
			None => DebtV1 {
				live: None,
				spent: debt.spent.saturating_add(u32::from(counts)),
				due: Some(now.now.after(self.0.options.retry_pause)),
				..debt.clone()
			},
		};
		let notice = settled.map(|(preimage, _)| Notice::paid(loaded, Some(preimage)));
		self.plan(loaded, next, batch, Some(what), notice, now.now)
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
