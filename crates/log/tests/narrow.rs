//! A log on a store that takes only so many writes in one batch.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{drain, Process};
use leyden_log::{LogOptions, Retention};
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, ManualClock, MemoryStore, Page, Record, Store,
	StoreError, Ticket, Timestamp,
};

const MAX_WRITES: usize = 20;

struct Narrow(MemoryStore);

impl Store for Narrow {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		// No batch of the log appends many: what it tidies up are puts and deletions.
		let found = batch.ops().len();
		match found > MAX_WRITES {
			true => {
				let what = "writes in one batch";
				Ticket::ready(Err(StoreError::TooLarge { what, limit: MAX_WRITES, found }))
			},
			false => self.0.commit(batch),
		}
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.0.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.0.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.0.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		let mut guarantees = self.0.guarantees();
		guarantees.max_writes = MAX_WRITES;
		guarantees
	}
}

/// Acks are folded, entries and ids trimmed, in as many batches as it takes.
#[test]
fn tidying_keeps_to_what_the_store_takes() {
	const HOUR: Duration = Duration::from_secs(3600);
	const ROUNDS: u64 = 60;
	let hour = Retention { min_count: 1, min_age: HOUR };
	let options = LogOptions { history: hour, tombstones: hour };
	let store: Arc<dyn Store> = Arc::new(Narrow(MemoryStore::new().unwrap()));
	let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
	let process = Process::over(Arc::clone(&store), clock, options);
	let consumer = process.consumer("a");
	for n in 1..=200 {
		process.append(n, n as u8);
	}
	assert_eq!(drain(&consumer).len(), 200);
	(0..40).for_each(|_| consumer.tidy().unwrap());
	let count = |table| leyden_testkit::count_records(&*store, table);
	assert!(count("log_acks") <= 1 && count("log_entries") == 200);
	// All of them are past their time at once.
	process.clock.advance(HOUR);
	for n in 0..ROUNDS {
		process.append(1_000 + n, 1);
		assert_eq!(drain(&consumer).len(), 1);
		consumer.tidy().unwrap();
	}
	let left = ["log_entries", "log_ids", "log_tombs"].map(|table| count(table) as u64);
	assert_eq!(left, [ROUNDS, ROUNDS, 0]);
}
