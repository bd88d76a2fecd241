// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The record of what the journal held when a manager was written.
//!
//! LDK's key-value stores write one key at a time, so an ack cannot be one commit with the manager.
//! Instead the newest entry of the journal is recorded under the hash of the manager's bytes
//! *before* they are written. Whichever manager turns out to be durable after a crash, its record
//! tells which events had been handed out before it was encoded.
//!
//! The record is committed lazily: if a loss of power undoes it, the manager that was written has
//! no record. Then nothing proves that an event of LDK's is a replay, and it becomes a second entry:
//! in doubt an event is told twice, never not at all.

use bitcoin::hashes::{sha256, Hash};
use leyden_store::codec;
use leyden_store::{Batch, Key, Plan, Store, StoreError, Table};
use serde::{Deserialize, Serialize};

const MANAGERS: Table = Table::new("ldk_managers");
/// Managers that are remembered: the one that is durable, and those whose writes may have failed or
/// may still land.
const MAX_MANAGERS: usize = 8;

/// The managers that may be durable, oldest first.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ManagersV1 {
	managers: Vec<ManagerV1>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct ManagerV1 {
	digest: [u8; 32],
	journaled: JournaledV1,
}

/// The journal at the time when a manager was written.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct JournaledV1 {
	/// The newest entry.
	pub(crate) newest: u64,
	/// Every un-acked entry below was out of LDK's queue when the manager was encoded, but for
	/// those that are expected.
	pub(crate) gone_below: u64,
	/// Entries of earlier runs that LDK had not brought again yet.
	pub(crate) expected: Vec<u64>,
}

impl JournaledV1 {
	/// Returns `true` if the manager was written before LDK handed the event of this entry out, as
	/// far as LDK's own state goes.
	pub(crate) fn precedes(&self, index: u64) -> bool {
		index > self.newest || self.expected.contains(&index)
	}
}

impl JournaledV1 {
	/// Returns `true` if LDK had let go of the event of this entry before the manager was encoded:
	/// bytes like it in the manager are of another event.
	pub(crate) fn has_let_go_of(&self, index: u64) -> bool {
		index < self.gone_below && !self.expected.contains(&index)
	}
}

leyden_store::stored! {
	ManagersV1 = 0x0204,
}

impl ManagersV1 {
	pub(crate) fn read(store: &dyn Store) -> Result<Self, StoreError> {
		let key = key();
		match store.get(&key).wait()? {
			Some(record) => codec::decode(&key, &record),
			None => Ok(Self::default()),
		}
	}

	/// Remembers a manager that is about to be written.
	pub(crate) fn writing(
		&mut self, bytes: &[u8], journaled: JournaledV1,
	) -> Result<Plan<()>, StoreError> {
		let digest = digest(bytes);
		self.managers.retain(|manager| manager.digest != digest);
		if self.managers.len() >= MAX_MANAGERS {
			self.managers.remove(0);
		}
		self.managers.push(ManagerV1 { digest, journaled });
		let mut batch = Batch::new();
		batch.put(key(), codec::encode(self)?);
		Ok(Plan::of(batch).lazily())
	}

	/// Returns the journal at the time when the manager of these bytes was written.
	pub(crate) fn journaled(&self, bytes: &[u8]) -> Option<JournaledV1> {
		let digest = digest(bytes);
		let found = self.managers.iter().find(|manager| manager.digest == digest);
		found.map(|manager| manager.journaled.clone())
	}
}

fn key() -> Key {
	Key::new(MANAGERS, *b"written")
}

fn digest(bytes: &[u8]) -> [u8; 32] {
	sha256::Hash::hash(bytes).to_byte_array()
}

#[cfg(test)]
mod tests {
	use super::*;
	use leyden_store::MemoryStore;

	#[test]
	fn a_manager_is_found_by_its_bytes_until_others_push_it_out() {
		let store = MemoryStore::new().unwrap();
		let mut managers = ManagersV1::read(&store).unwrap();
		for n in 0..=MAX_MANAGERS as u64 {
			let journaled = JournaledV1 { newest: 10 + n, gone_below: 5, expected: vec![n] };
			managers.writing(&n.to_be_bytes(), journaled).unwrap().run(&store).unwrap();
		}
		let read = ManagersV1::read(&store).unwrap();
		assert_eq!(read, managers);
		let journaled = read.journaled(&1u64.to_be_bytes()).unwrap();
		assert!(journaled.precedes(12) && journaled.precedes(1) && !journaled.precedes(11));
		assert!(journaled.has_let_go_of(4) && !journaled.has_let_go_of(5), "in the queue");
		assert!(!journaled.has_let_go_of(1), "expected");
		assert_eq!(read.journaled(&0u64.to_be_bytes()), None, "pushed out");
		assert_eq!(read.journaled(b"another"), None);
	}

	#[test]
	fn golden_bytes() {
		let journaled = JournaledV1 { newest: 9, gone_below: 3, expected: vec![4] };
		let managers = ManagersV1 { managers: vec![ManagerV1 { digest: [7; 32], journaled }] };
		let body = codec::encode(&managers).unwrap().body;
		let number = |n: u64| n.to_be_bytes();
		let counts = [number(9), number(3), number(1), number(4)].concat();
		let expected = [&number(1)[..], &[7; 32], &counts].concat();
		assert_eq!(body, expected);
	}
}
