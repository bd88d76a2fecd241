// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A store that counts what is asked of it, for tests of what things cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use leyden_store::group::StoreObserver;
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, Page, Record, Store, StoreError, Ticket,
};

/// What was asked of a store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
	/// Commits.
	pub commits: u64,
	/// Reads of one record.
	pub gets: u64,
	/// Scans.
	pub scans: u64,
	/// Records that scans gave.
	pub scanned: u64,
}

/// Counts, and asks another store.
pub struct CountingStore {
	inner: Arc<dyn Store>,
	commits: AtomicU64,
	gets: AtomicU64,
	scans: AtomicU64,
	scanned: Arc<AtomicU64>,
}

impl CountingStore {
	/// Around `inner`.
	pub fn new(inner: Arc<dyn Store>) -> Self {
		let zero = || AtomicU64::new(0);
		let scanned = Arc::new(zero());
		Self { inner, commits: zero(), gets: zero(), scans: zero(), scanned }
	}

	/// What is asked while `f` runs.
	pub fn count(&self, f: impl FnOnce()) -> Counts {
		let now = || {
			let read = |n: &AtomicU64| n.load(Ordering::SeqCst);
			[read(&self.commits), read(&self.gets), read(&self.scans), read(&self.scanned)]
		};
		let before = now();
		f();
		let after = now();
		let [commits, gets, scans, scanned] = [0, 1, 2, 3].map(|n| after[n] - before[n]);
		Counts { commits, gets, scans, scanned }
	}
}

impl Store for CountingStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.commits.fetch_add(1, Ordering::SeqCst);
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.gets.fetch_add(1, Ordering::SeqCst);
		self.inner.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.gets.fetch_add(1, Ordering::SeqCst);
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.scans.fetch_add(1, Ordering::SeqCst);
		let scanned = Arc::clone(&self.scanned);
		self.inner.scan(range, limit).then(move |page: Result<Page, StoreError>| {
			page.inspect(|page| {
				scanned.fetch_add(page.records.len() as u64, Ordering::SeqCst);
			})
		})
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		self.inner.observe(observer)
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		self.inner.block(wait);
	}
}
