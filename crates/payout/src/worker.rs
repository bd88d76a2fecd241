// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The loop that looks after debts: what the node has answered, and what is due.

use std::time::Duration;

use leyden_store::{Batch, Expectation, Key, StoreError, Timestamp};

use crate::call::Call;
use crate::error::PayoutError;
use crate::ids::DebtId;
use crate::invariants;
use crate::loaded::Loaded;
use crate::machine::{self, Answer, Facts, Step, View};
use crate::payer::Payer;
use crate::payouts::Payouts;
use crate::records::{self, AttemptV1, StateV1};

/// The passes of one tick at most: answers that are there at once are not left for the next tick.
const MAX_PASSES: usize = 8;
/// Most debts that one tick takes.
pub const MAX_TICK: usize = 1_024;
/// Most debts that are passed over in one pass.
const MAX_SCANNED: usize = 16 * MAX_TICK;
/// An operator is told of what has waited for so long.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// A summary of a [tick](Payouts::tick).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct TickSummary {
	/// The debts that were looked at because they were due.
	pub looked_at: usize,
	/// The calls of the node that were begun.
	pub calls: usize,
	/// The changes that were written down.
	pub changes: usize,
	/// The debts that could not be looked after: their records are damaged or do not add up, or the plan
	/// of their notice is refused.
	pub broken: usize,
	/// `true` if more debts are due now.
	pub more: bool,
}

impl Payouts {
	/// Looks at the answers of the node and at the debts that are due, up to `limit`, and does what is to be
	/// done. A tick is called for every few seconds, and when the node has news; and does not wait for the
	/// node.
	///
	/// # Errors
	/// [`Store`](PayoutError::Store). A debt whose record is damaged stops no other: see
	/// [`TickSummary::broken`] and [`audit`](Payouts::audit).
	///
	/// # Failure Behavior and Persistence
	/// What is about to be done is durable before the node is told, and what the node said before anything
	/// follows from it. If the process dies in between, the node is asked what it knows.
	pub fn tick(&self, payer: &dyn Payer, limit: usize) -> Result<TickSummary, PayoutError> {
		let mut summary = TickSummary::default();
		for _ in 0..MAX_PASSES {
			let before = (summary.calls, summary.changes);
			self.pass(payer, limit.min(MAX_TICK), &mut summary)?;
			if before == (summary.calls, summary.changes) {
				break;
			}
		}
		Ok(summary)
	}

	fn pass(
		&self, payer: &dyn Payer, limit: usize, summary: &mut TickSummary,
	) -> Result<(), PayoutError> {
		let frozen = self.frozen()?;
		let is_frozen = frozen.is_some();
		self.tell_frozen(frozen);
		let now = self.looked();
		for (id, answer) in self.answers(now) {
			match self.answered(payer, &id, answer, is_frozen) {
				Ok(done) => summary.count(&done),
				Err(error) => self.failed(&id, error, summary)?,
			}
		}
		// Debts that the node was asked about, or cannot be asked about now, do not count: what is behind
		// them may need no node.
		let (mut worked, mut scanned) = (0, 0);
		let mut rest = Some(records::due(now));
		while let Some(range) = rest.take() {
			// The key says it all: a damaged record there holds up no debt.
			let page = self.scan_around_damage(range, limit.max(1))?;
			scanned += page.records.len();
			for (key, _) in &page.records {
				let Ok(id) = records::due_of(key) else {
					summary.broken += 1;
					continue;
				};
				if worked >= limit || self.0.state.lock().calls.contains_key(&id) {
					continue;
				}
				// Nor does one that cannot be looked after: what is behind it has its turn.
				match self.step(payer, &id, key, is_frozen) {
					Ok(Done::NoRoom | Done::Dropped) => {},
					Ok(done) => {
						summary.count(&done);
						worked += 1;
					},
					Err(error) => self.failed(&id, error, summary)?,
				}
			}
			summary.more = page.rest.is_some() && worked >= limit;
			rest = page.rest.filter(|_| worked < limit && scanned < MAX_SCANNED);
		}
		summary.looked_at += worked;
		Ok(())
	}

	/// Reports the error of one debt, which stops no other; the error of a store that fails stops all.
	fn failed(
		&self, id: &DebtId, error: PayoutError, summary: &mut TickSummary,
	) -> Result<(), PayoutError> {
		let is_its_own = matches!(
			error,
			PayoutError::Store(StoreError::Corrupt { .. })
				| PayoutError::InvariantViolated { .. }
				| PayoutError::Notice { .. }
		);
		if !is_its_own {
			return Err(error);
		}
		summary.broken += 1;
		self.tell_broken(id, &error);
		Ok(())
	}

	/// Takes the answers that are there, and those that will not come.
	fn answers(&self, now: Timestamp) -> Vec<(DebtId, Answer)> {
		let mut memory = self.0.state.lock();
		let call_timeout = self.0.options.call_timeout;
		// An answer that is late is one, unless another worker looks after the attempt by now: the state
		// machine sees that.
		let answered = |(id, call): (&DebtId, &Call)| {
			let is_late = now.since(call.since) >= call_timeout;
			let answer = call.poll().or_else(|| is_late.then(|| call.given_up()));
			answer.map(|answer| (*id, answer))
		};
		let mut answers: Vec<_> = memory.calls.iter().filter_map(answered).collect();
		for (id, _) in &answers {
			memory.calls.remove(id);
		}
		// The same order in every run.
		answers.sort_by_key(|(id, _)| *id);
		answers
	}

	/// Does what follows from an answer.
	fn answered(
		&self, payer: &dyn Payer, id: &DebtId, answer: Answer, is_frozen: bool,
	) -> Result<Done, PayoutError> {
		let Some(loaded) = self.load(id)? else { return Ok(Done::Nothing) };
		let attempts = self.all_attempts(id)?;
		let facts = self.facts(&loaded, is_frozen);
		let view = View { id, debt: &loaded.debt, attempts: &attempts };
		let step = machine::on_answer(view, answer, &facts);
		self.perform(payer, &loaded, step, &facts)
	}

	/// Does what is to be done with a debt that is due by this key.
	fn step(
		&self, payer: &dyn Payer, id: &DebtId, key: &Key, is_frozen: bool,
	) -> Result<Done, PayoutError> {
		let loaded = self.load(id)?;
		let due = loaded.as_ref().and_then(|loaded| loaded.debt.due);
		let is_its = due.is_some_and(|due| records::due_key(due, id) == *key);
		let Some(loaded) = loaded.as_ref().filter(|_| is_its) else {
			return self.drop_due(id, key, loaded.as_ref());
		};
		if let Err(what) = invariants::check(&loaded.debt) {
			// What does not add up is not paid, and neither is anything else until an operator has looked.
			let error = PayoutError::InvariantViolated { debt: *id, what };
			self.freeze_now(&error.to_string())?;
			return Err(error);
		}
		let live = loaded.debt.live.map(|live| live.number);
		let mut attempts = Vec::new();
		for number in live.into_iter().chain(loaded.debt.paid_by) {
			attempts.extend(self.attempt(id, number)?.map(|attempt| (number, attempt)));
		}
		let facts = self.facts(loaded, is_frozen);
		self.tell_long(loaded, &attempts, &facts);
		let view = View { id, debt: &loaded.debt, attempts: &attempts };
		let mut step = machine::on_due(view, &facts)?;
		let (calls, most) = (self.0.state.lock().calls.len(), self.0.options.max_calls);
		// What needs no call goes on. What is asked besides leaves room for payments.
		if step.ask.is_some() && step.is_besides && calls >= most.div_ceil(2) {
			step.ask = None;
		}
		if step.ask.is_some() && calls >= most {
			return Ok(Done::NoRoom);
		}
		self.perform(payer, loaded, step, &facts)
	}

	/// Deletes a key by which a debt is due at another time than its record says, or at none.
	fn drop_due(
		&self, id: &DebtId, key: &Key, loaded: Option<&Loaded>,
	) -> Result<Done, PayoutError> {
		let expected = loaded.map_or(Expectation::Absent, |l| Expectation::Version(l.version));
		let mut batch = Batch::new();
		batch.expect(records::debt_key(id), expected);
		batch.delete(key.clone());
		match self.0.store.commit(batch).wait() {
			// The debt has changed meanwhile: the key may be right now.
			Ok(_) | Err(StoreError::Conflict { .. }) => Ok(Done::Dropped),
			Err(error) => Err(error.into()),
		}
	}

	/// Tells an operator of what has waited for long.
	fn tell_long(&self, loaded: &Loaded, attempts: &[(u32, AttemptV1)], facts: &Facts) {
		let Loaded { id, debt, .. } = loaded;
		let is_long = |began| facts.times.age(began) >= LONG;
		if debt.state == StateV1::Decided && is_long(debt.decided) {
			self.tell_waits(id, None);
		}
		let live = attempts.iter().find(|(number, _)| Some(*number) == debt.live.map(|l| l.number));
		if let Some((number, _)) = live.filter(|(_, attempt)| is_long(attempt.planned)) {
			self.tell_waits(id, Some(*number));
		}
	}

	/// Writes a step down, and then asks the node what the step asks.
	fn perform(
		&self, payer: &dyn Payer, loaded: &Loaded, step: Step, facts: &Facts,
	) -> Result<Done, PayoutError> {
		let writes = !step.writes_nothing();
		let (ask, tell) = (step.ask.clone(), step.tell.clone());
		if !self.apply(loaded, step, facts)? {
			// Another worker was faster: that is no error.
			return Ok(Done::Nothing);
		}
		if let Some(error) = tell {
			self.tell_broken(&loaded.id, &error);
		}
		let Some(ask) = ask else {
			return Ok(if writes { Done::Changed } else { Done::Nothing });
		};
		let since = facts.times.running;
		let call = Call::new(payer, &loaded.id, &ask, since);
		self.0.state.lock().calls.insert(loaded.id, call);
		Ok(Done::Called { changed: writes })
	}
}

/// The outcome of a step.
enum Done {
	Nothing,
	Changed,
	Called {
		changed: bool,
	},
	/// The node is asked as much as it may be.
	NoRoom,
	/// The debt was not due: only its key said so.
	Dropped,
}

impl TickSummary {
	fn count(&mut self, done: &Done) {
		match done {
			Done::Nothing | Done::NoRoom | Done::Dropped => {},
			Done::Changed => self.changes += 1,
			Done::Called { changed } => {
				self.calls += 1;
				self.changes += usize::from(*changed);
			},
		}
	}
}
