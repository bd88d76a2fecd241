// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! How many requests each scope has.

use std::collections::HashMap;

use leyden_store::{Batch, Committed, Key, Store, StoreError, Ticket};
use parking_lot::Mutex;

use crate::error::RequestError;
use crate::records::{self, ScopeV1};

/// Scopes whose count is in memory, besides those that are written to just now.
const MAX_SCOPES: usize = 1024;

/// Counts, which are on disk with the requests that they count.
#[derive(Default)]
pub(crate) struct Quotas(Mutex<HashMap<[u8; 32], Count>>);

struct Count {
	requests: u64,
	/// Commits that are under way. Until they are done, the disk may not know.
	pending: usize,
}

/// One request more or less.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
	More,
	Less,
}

impl Quotas {
	/// Commits `batch` together with the new count. The order of the commits is that of the counts.
	pub(crate) fn commit(
		&self, store: &dyn Store, scope: [u8; 32], change: Change, limit: u64, mut batch: Batch,
	) -> Result<Ticket<Committed>, RequestError> {
		let mut counts = self.0.lock();
		if counts.len() >= MAX_SCOPES {
			counts.retain(|_, count| count.pending > 0);
		}
		let count = match counts.entry(scope) {
			std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
			std::collections::hash_map::Entry::Vacant(entry) => {
				let requests = read(store, &records::scope_key(scope))?;
				entry.insert(Count { requests, pending: 0 })
			},
		};
		match change {
			Change::More if count.requests >= limit => return Err(RequestError::Quota { limit }),
			Change::More => count.requests += 1,
			Change::Less => count.requests = count.requests.saturating_sub(1),
		}
		match count.requests {
			0 => batch.delete(records::scope_key(scope)),
			requests => {
				batch.put(records::scope_key(scope), records::value(&ScopeV1 { requests })?)
			},
		};
		count.pending += 1;
		Ok(store.commit(batch))
	}

	/// What became of a commit.
	pub(crate) fn ended(&self, scope: &[u8; 32], change: Change, is_ok: bool) {
		let mut counts = self.0.lock();
		let Some(count) = counts.get_mut(scope) else { return };
		count.pending = count.pending.saturating_sub(1);
		if !is_ok {
			count.requests = match change {
				Change::More => count.requests.saturating_sub(1),
				Change::Less => count.requests.saturating_add(1),
			};
		}
	}
}

fn read(store: &dyn Store, key: &Key) -> Result<u64, StoreError> {
	let record = store.get(key).wait()?;
	record.map_or(Ok(0), |record| Ok(records::read::<ScopeV1>(key, &record)?.requests))
}

#[cfg(test)]
mod tests {
	use super::*;
	use leyden_store::{Expectation, MemoryMedium, MemoryStore, Namespace, Table};

	const T: Table = Table::new("t");

	fn change(
		quotas: &Quotas, store: &dyn Store, scope: u32, change: Change, batch: Batch,
	) -> bool {
		let mut hash = [0; 32];
		hash[..4].copy_from_slice(&scope.to_be_bytes());
		let ticket = quotas.commit(store, hash, change, 2, batch).unwrap();
		let is_ok = ticket.wait().is_ok();
		quotas.ended(&hash, change, is_ok);
		is_ok
	}

	#[test]
	fn what_is_in_memory_is_bounded() {
		let store = MemoryStore::open(&MemoryMedium::new(), Namespace::default()).unwrap();
		let quotas = Quotas::default();
		for scope in 0..3_000 {
			assert!(change(&quotas, &store, scope, Change::More, Batch::new()));
		}
		assert!(quotas.0.lock().len() <= MAX_SCOPES);
		// What was let go is on disk.
		assert!(change(&quotas, &store, 0, Change::More, Batch::new()));
		let full = quotas.commit(&store, [0; 32], Change::More, 2, Batch::new());
		assert!(matches!(full, Err(RequestError::Quota { limit: 2 })));
	}

	#[test]
	fn a_commit_that_was_refused_counts_for_nothing() {
		let store = MemoryStore::open(&MemoryMedium::new(), Namespace::default()).unwrap();
		let quotas = Quotas::default();
		let refused = || {
			let mut batch = Batch::new();
			batch.expect(Key::new(T, *b"k"), Expectation::Present);
			batch
		};
		for _ in 0..5 {
			assert!(!change(&quotas, &store, 1, Change::More, refused()));
		}
		assert!(change(&quotas, &store, 1, Change::More, Batch::new()));
		assert!(!change(&quotas, &store, 1, Change::Less, refused()));
		assert!(change(&quotas, &store, 1, Change::More, Batch::new()));
	}
}
