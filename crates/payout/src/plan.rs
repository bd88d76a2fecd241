// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Plans of what a step writes, and their commits.

use std::sync::Arc;
use std::time::Duration;

use leyden_store::{Batch, Expectation, Plan, StoreError, Timestamp};

use crate::error::PayoutError;
use crate::ids::DebtId;
use crate::invariants;
use crate::loaded::Loaded;
use crate::machine::{Ask, Facts, HashChange, Step, View};
use crate::notice::Notice;
use crate::payouts::Payouts;
use crate::records::{self, DebtV1, DueV1, HashV1, NoteV1};
use crate::text::cut;

/// Most notes that are kept of a debt.
pub const MAX_NOTES: u32 = 200;
/// The pause before a debt is looked at again of which the node says what cannot be.
const MISMATCH_PAUSE: Duration = Duration::from_secs(60);

impl Payouts {
	/// Writes a step down, if the debt is still as it was; returns whether it was.
	pub(crate) fn apply(
		&self, loaded: &Loaded, step: Step, facts: &Facts,
	) -> Result<bool, PayoutError> {
		{
			let (id, declared) = (loaded.id, loaded.debt.declared);
			let mut memory = self.0.state.lock();
			if step.is_compared {
				memory.compared.insert(id, declared);
			}
			if step.is_listed {
				memory.listed.insert(id, declared);
			}
		}
		if step.writes_nothing() {
			return Ok(true);
		}
		let plan = self.plan(loaded, step, facts)?;
		match plan.run(&*self.0.store) {
			Ok(()) => Ok(true),
			Err(StoreError::Conflict { key, .. }) if records::is_own(key.table()) => Ok(false),
			// The user's own plan expects something that is not so.
			Err(error @ (StoreError::Conflict { .. } | StoreError::Invalid { .. })) => {
				Err(PayoutError::Notice { debt: loaded.id, error })
			},
			Err(error) => Err(error.into()),
		}
	}

	/// Plans what a step writes.
	pub(crate) fn plan(
		&self, loaded: &Loaded, step: Step, facts: &Facts,
	) -> Result<Plan<()>, PayoutError> {
		let Loaded { id, debt, version } = loaded;
		let violated = |what| PayoutError::InvariantViolated { debt: *id, what };
		let owner = match step.hash {
			Some(HashChange::Adopt(hash)) => self.debt_of(&hash)?,
			_ => None,
		};
		let step = match owner.filter(|owner| owner != id) {
			Some(owner) => another_debts(loaded, &owner, facts),
			None => step,
		};
		let mut next = step.debt.unwrap_or_else(|| debt.clone());
		invariants::check(&next).map_err(violated)?;
		invariants::check_change(debt, &next).map_err(violated)?;
		let mut batch = Batch::new();
		if let Some(what) = &step.note {
			note(&mut batch, id, &mut next, facts.times.running, what)?;
		}
		if let Some(change) = &step.attempt {
			let key = records::attempt_key(id, change.number);
			if change.is_new {
				batch.expect(key.clone(), Expectation::Absent);
			}
			batch.put(key, records::value(&change.record)?);
		}
		if let Some(change) = step.hash {
			let (HashChange::Take(hash) | HashChange::Adopt(hash)) = change;
			let key = records::hash_key(&hash);
			// One that is known as this debt's stays so: a hash changes hands never.
			if owner.is_none() {
				batch.expect(key.clone(), Expectation::Absent);
				batch.put(key, records::value(&HashV1 { debt: *id.as_bytes() })?);
			}
		}
		match (&step.freeze, &step.ask) {
			(Some(reason), _) => self.freeze_in(&mut batch, reason)?,
			// What was frozen a moment ago is not paid.
			(None, Some(Ask::Pay(_))) => {
				batch.expect(records::freeze_key(), Expectation::Absent);
			},
			(None, _) => {},
		}
		if debt.is_counted() && !next.is_counted() {
			self.give_share_back(&mut batch, id, &next)?;
		}
		if next.state.is_over() {
			let (memory, id) = (Arc::clone(&self.0.state), *id);
			batch.after_commit(move |_| memory.lock().forget(&id));
		}
		let key = records::debt_key(id);
		batch.expect(key.clone(), Expectation::Version(*version));
		if debt.due != next.due {
			if let Some(due) = debt.due {
				batch.delete(records::due_key(due, id));
			}
			if let Some(due) = next.due {
				batch.put(records::due_key(due, id), records::value(&DueV1 {})?);
			}
		}
		batch.put(key, records::value(&next)?);
		let plan = Plan::of(batch);
		Ok(match (&self.0.options.notices, step.news) {
			(Some(notices), Some(news)) => {
				plan.and(notices(&Notice::new(id, &next, news))).map(|((), ())| ())
			},
			_ => plan,
		})
	}

	/// Applies what a request of an operator or payee comes to.
	pub(crate) fn decide(
		&self, id: &DebtId, decide: impl FnOnce(View<'_>, &Facts) -> Result<Step, PayoutError>,
	) -> Result<(), PayoutError> {
		let loaded = self.find(id)?;
		let attempts = self.all_attempts(id)?;
		let facts = self.facts(&loaded, false);
		let step = decide(View { id, debt: &loaded.debt, attempts: &attempts }, &facts)?;
		match self.apply(&loaded, step, &facts)? {
			true => Ok(()),
			false => Err(PayoutError::Conflict),
		}
	}
}

/// Writes a decision down. Beyond [`MAX_NOTES`], the newest takes the place of the one before.
pub(crate) fn note(
	batch: &mut Batch, id: &DebtId, debt: &mut DebtV1, at: Timestamp, what: &str,
) -> Result<(), PayoutError> {
	debt.notes = (debt.notes + 1).min(MAX_NOTES);
	let note = NoteV1 { at, what: cut(what) };
	batch.put(records::note_key(id, debt.notes), records::value(&note)?);
	Ok(())
}

/// Freezes payouts over a node that lists an attempt of a debt with a payment hash of another debt's: an
/// operator is told, and nothing is written down as paid.
fn another_debts(loaded: &Loaded, owner: &DebtId, facts: &Facts) -> Step {
	let Loaded { id, debt, .. } = loaded;
	let what = "the node gives an attempt of one debt the payment hash of another";
	let due = debt.due.map(|_| facts.times.running.after(MISMATCH_PAUSE));
	let freeze = Some(format!("{what}: {id}, {owner}"));
	Step { freeze, ..Step::debt(DebtV1 { due, ..debt.clone() }) }
}
