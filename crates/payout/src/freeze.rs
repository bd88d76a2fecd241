// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The reasons of a freeze, for which nothing is paid. A reason is added to those before it, and goes only by
//! the word of an operator who has seen it.

use std::fmt;

use leyden_store::witness::restorations;
use leyden_store::{
	Batch, Expectation, Plan, Record, Store, StoreClock, StoreError, Timestamp, Version,
};

use crate::error::PayoutError;
use crate::payouts::Payouts;
use crate::records::{self, FreezeV1, SeenV1};
use crate::text::cut;

/// Most reasons of a freeze that are kept; of more, the number is.
pub const MAX_REASONS: usize = 32;
/// Most times that a freeze is tried, while other workers write another one.
const TRIES: usize = 100;

/// The freeze of payouts: nothing is paid until an operator has looked into every reason.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Freeze {
	/// The time of the first reason.
	pub at: Timestamp,
	/// The reasons, the oldest first; up to [`MAX_REASONS`].
	pub reasons: Vec<String>,
	/// The number of reasons that had no room among the others.
	pub more: u32,
}

/// A freeze as it is stored, and what a change of it expects to find.
struct Found {
	freeze: FreezeV1,
	/// The freeze; `None` for a record that is damaged.
	version: Option<Version>,
}

impl Payouts {
	/// Returns the freeze of payouts; `None` if payouts are not frozen.
	///
	/// # Errors
	/// [`Store`](PayoutError::Store). A freeze whose record is damaged is one.
	pub fn frozen(&self) -> Result<Option<Freeze>, PayoutError> {
		let stored = find(&*self.0.store)?.map(|found| found.freeze);
		let restored = self.0.state.lock().restored.clone();
		let freeze = match (stored, restored) {
			(Some(mut freeze), Some(restored)) => {
				for reason in &restored.reasons {
					freeze.add(reason);
				}
				Some(freeze)
			},
			(stored, restored) => stored.or(restored),
		};
		Ok(freeze.map(|FreezeV1 { at, reasons, more }| Freeze { at, reasons, more }))
	}

	/// Lets payouts go on, once an operator has looked into every reason of this freeze.
	///
	/// After a restoration this is the operator's word for every debt, also for one with an attempt under
	/// way: beside a node that forgets payments, what the node has paid and the store does not know is
	/// [resolved](Payouts::resolve_with_proof) before.
	///
	/// # Errors
	/// [`UnseenReason`](PayoutError::UnseenReason) if there is a reason that this freeze does not have;
	/// [`Conflict`](PayoutError::Conflict), and [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn unfreeze(&self, seen: &Freeze) -> Result<(), PayoutError> {
		let store = &*self.0.store;
		let found = find(store)?;
		let restored = self.0.state.lock().restored.clone();
		let known = found.iter().map(|found| &found.freeze).chain(&restored);
		for FreezeV1 { reasons, more, .. } in known {
			let unseen = reasons.iter().find(|reason| !seen.reasons.contains(reason)).cloned();
			let without_room = (*more > seen.more).then(|| "there was no room for it".to_owned());
			if let Some(reason) = unseen.or(without_room) {
				return Err(PayoutError::UnseenReason { reason });
			}
		}
		let key = records::freeze_key();
		let mut batch = Batch::new();
		if let Some(Found { version, .. }) = found {
			// A reason that comes meanwhile makes another version.
			if let Some(version) = version {
				batch.expect(key.clone(), Expectation::Version(version));
			}
			batch.delete(key);
		}
		let restorations = restorations(store)?;
		if restorations > 0 {
			batch.put(records::seen_key(), records::value(&SeenV1 { restorations })?);
		}
		if !batch.is_empty() {
			store.commit(batch).wait()?;
		}
		self.0.state.lock().restored = None;
		Ok(())
	}

	/// Plans to freeze payouts for a reason of the caller's: for what cannot be recorded, such as the
	/// [outcome](Payouts::record_outcome) of a debt that is damaged. The plan is meant to be joined with
	/// the ack.
	///
	/// # Errors
	/// [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// When the plan is committed, nothing is paid, over any restart, until an operator has
	/// [looked](Payouts::unfreeze). The commit is refused if another reason came meanwhile.
	pub fn freeze(&self, reason: &str) -> Result<Plan<()>, PayoutError> {
		let mut batch = Batch::new();
		self.freeze_in(&mut batch, reason)?;
		Ok(Plan::of(batch))
	}

	/// Freezes payouts at once.
	pub(crate) fn freeze_now(&self, reason: &str) -> Result<(), PayoutError> {
		freeze_at_once(&*self.0.store, &self.0.clock, reason)
	}

	/// Adds a reason to the freeze, in this batch.
	pub(crate) fn freeze_in(&self, batch: &mut Batch, reason: &str) -> Result<(), PayoutError> {
		Ok(add_reason(&*self.0.store, &self.0.clock, batch, reason)?)
	}
}

impl FreezeV1 {
	/// Adds a reason. Returns whether it was not there.
	fn add(&mut self, reason: &str) -> bool {
		let reason = cut(reason);
		if self.reasons.contains(&reason) {
			return false;
		}
		match self.reasons.len() < MAX_REASONS {
			true => self.reasons.push(reason),
			false => self.more = self.more.saturating_add(1),
		}
		true
	}
}

/// Freezes payouts over a database that was restored since they were opened last. Returns the freeze if
/// the store does not take it, as one that is read only.
pub(crate) fn distrust_restored(
	store: &dyn Store, clock: &StoreClock, restorations: u32,
) -> Result<Option<FreezeV1>, PayoutError> {
	let key = records::seen_key();
	let seen = match store.get(&key).wait() {
		Ok(record) => record.map(|record| records::read::<SeenV1>(&key, &record)).transpose(),
		Err(error) => Err(error),
	};
	let seen = match seen {
		Ok(seen) => seen.map_or(0, |seen| seen.restorations),
		// What is not known was not seen.
		Err(StoreError::Corrupt { .. }) => u32::MAX,
		Err(error) => return Err(error.into()),
	};
	if seen == restorations {
		return Ok(None);
	}
	// Also without a debt: one that was decided since may come again.
	let reason = format!(
		"the database was restored from an older copy (restoration {restorations}): compare what it \
		 says is owed with what the node has paid"
	);
	for _ in 0..TRIES {
		let mut batch = Batch::new();
		batch.put(key.clone(), records::value(&SeenV1 { restorations })?);
		add_reason(store, clock, &mut batch, &reason)?;
		match store.commit(batch).wait() {
			Ok(_) => return Ok(None),
			Err(StoreError::Conflict { .. }) => {},
			Err(_) => break,
		}
	}
	Ok(Some(FreezeV1 { at: clock.look().wall, reasons: vec![cut(&reason)], more: 0 }))
}

fn freeze_at_once(store: &dyn Store, clock: &StoreClock, reason: &str) -> Result<(), PayoutError> {
	let mut result = Err(PayoutError::Conflict);
	for _ in 0..TRIES {
		let mut batch = Batch::new();
		add_reason(store, clock, &mut batch, reason)?;
		result = store.commit(batch).wait().map(|_| ()).map_err(PayoutError::from);
		if !matches!(result, Err(PayoutError::Conflict)) {
			break;
		}
	}
	result
}

fn add_reason(
	store: &dyn Store, clock: &StoreClock, batch: &mut Batch, reason: &str,
) -> Result<(), StoreError> {
	let key = records::freeze_key();
	let (mut freeze, expected) = match find(store)? {
		Some(Found { freeze, version }) => (freeze, version.map(Expectation::Version)),
		None => {
			let freeze = FreezeV1 { at: clock.look().wall, reasons: Vec::new(), more: 0 };
			(freeze, Some(Expectation::Absent))
		},
	};
	let is_new = freeze.add(reason);
	if let Some(expected) = expected {
		batch.expect(key.clone(), expected);
	}
	// What is said again and again must not keep an operator from lifting it.
	if is_new || expected.is_none() {
		batch.put(key, records::value(&freeze)?);
	}
	Ok(())
}

/// Returns the freeze in the store. A freeze that cannot be read is one.
fn find(store: &dyn Store) -> Result<Option<Found>, StoreError> {
	let key = records::freeze_key();
	let read = |record: Record| {
		let freeze = records::read::<FreezeV1>(&key, &record)?;
		Ok(Found { freeze, version: Some(record.version) })
	};
	match store.get(&key).wait().and_then(|record| record.map(read).transpose()) {
		Err(StoreError::Corrupt { .. }) => {
			let reasons = vec!["the record of why payouts are frozen is damaged".to_owned()];
			let freeze = FreezeV1 { at: Timestamp(0), reasons, more: 0 };
			Ok(Some(Found { freeze, version: None }))
		},
		found => found,
	}
}

impl fmt::Display for Freeze {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(&self.reasons.join("; "))?;
		match self.more {
			0 => Ok(()),
			more => write!(f, "; and {more} more"),
		}
	}
}
