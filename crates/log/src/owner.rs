// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The right of a handle to settle the deliveries of a consumer.

use std::sync::{Arc, OnceLock};

use leyden_store::{Batch, Durability, Expectation, Key, Store, StoreError, Timestamp, Version};

use crate::records::{self, OwnerV1};
use crate::LogError;

/// The owner's record of a consumer, as one handle knows it. A handle owns its consumer from its
/// first search for a delivery on; one without deliveries owns nothing.
pub(crate) struct Owner {
	key: Key,
	/// The number of handles that had had deliveries when this one was opened.
	before: u64,
	/// The version of the record that this handle has written.
	version: OnceLock<Version>,
}

impl Owner {
	/// Reads the record, before anything that another handle may still settle is read.
	pub(crate) fn open(store: &Arc<dyn Store>, key: &Key) -> Result<Self, LogError> {
		let before = opened(store, key)?;
		Ok(Self { key: key.clone(), before, version: OnceLock::new() })
	}

	/// Returns whether this handle has taken the consumer.
	pub(crate) fn is_taken(&self) -> bool {
		self.version.get().is_some()
	}

	/// Takes the consumer over from whatever handle has it, if the consumer's record is as expected.
	/// Returns `true` if another handle may have settled deliveries since this one was opened.
	///
	/// # Errors
	/// [`Conflict`](StoreError::Conflict) if the consumer's record is another, or another handle was
	/// faster; the store's.
	///
	/// # Failure Behavior and Persistence
	/// A crash that loses the record ends both handles.
	pub(crate) fn take(
		&self, store: &Arc<dyn Store>, consumer: (&Key, Expectation), now: Timestamp,
	) -> Result<bool, LogError> {
		let found = store.get(&self.key).wait()?;
		let before = match &found {
			Some(found) => records::read::<OwnerV1>(&self.key, found)?.opened,
			None => 0,
		};
		let record = OwnerV1 { opened: before.saturating_add(1), opened_at: now };
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		batch.expect(consumer.0.clone(), consumer.1);
		batch.expect(
			self.key.clone(),
			found.map_or(Expectation::Absent, |found| Expectation::Version(found.version)),
		);
		batch.put(self.key.clone(), records::value(&record));
		let version = store.commit(batch).wait()?.version();
		let _ = self.version.set(version);
		Ok(before != self.before)
	}

	/// Has `batch` take the consumer from whatever handle has it, and give it to none.
	///
	/// # Errors
	/// The store's.
	pub(crate) fn pass_on(
		store: &Arc<dyn Store>, key: &Key, batch: &mut Batch,
	) -> Result<(), LogError> {
		let found = match store.get(key).wait() {
			Ok(None) => {
				batch.expect(key.clone(), Expectation::Absent);
				Ok(OwnerV1 { opened: 0, opened_at: Timestamp::default() })
			},
			Ok(Some(found)) => {
				batch.expect(key.clone(), Expectation::Version(found.version));
				records::read::<OwnerV1>(key, &found)
			},
			Err(error) => Err(error),
		};
		let owner = match found {
			Ok(owner) => OwnerV1 { opened: owner.opened.saturating_add(1), ..owner },
			// A damaged one is replaced. Every handle that has it has another version of it.
			Err(StoreError::Corrupt { .. }) => {
				OwnerV1 { opened: 1, opened_at: Timestamp::default() }
			},
			Err(error) => return Err(error.into()),
		};
		batch.put(key.clone(), records::value(&owner));
		Ok(())
	}

	/// Has a batch refused if another handle has taken the consumer over.
	pub(crate) fn guard(&self, batch: &mut Batch) {
		if let Some(version) = self.version.get() {
			batch.expect(self.key.clone(), Expectation::Version(*version));
		}
	}

	/// Returns `true` for the error of a batch that was refused for that reason.
	pub(crate) fn has_lost(&self, error: &StoreError) -> bool {
		matches!(error, StoreError::Conflict { key, .. } if *key == self.key)
	}
}

/// Returns the number of handles that have had deliveries.
fn opened(store: &Arc<dyn Store>, key: &Key) -> Result<u64, LogError> {
	match store.get(key).wait()? {
		Some(record) => Ok(records::read::<OwnerV1>(key, &record)?.opened),
		None => Ok(0),
	}
}
