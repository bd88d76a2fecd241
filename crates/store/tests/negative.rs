//! Stores that break a promise, and the check that must notice.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use leyden_store::batch::Op;
use leyden_store::conformance::{self, Backend};
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, MemoryMedium, MemoryStore, Namespace, Page,
	Record, Store, StoreError, Ticket,
};
use parking_lot::Mutex;

#[derive(Clone, Copy, PartialEq)]
enum Lie {
	/// One operation after the other.
	NotAtomic,
	NoExpectations,
	/// What is on the medium is older than what was acknowledged.
	Forgets,
	SkipsDamage,
	NeverFenced,
	HooksAtOnce,
	/// A scan does not say that there is more.
	OnePage,
}

struct Liar {
	medium: MemoryMedium,
	kept: Mutex<Option<MemoryMedium>>,
	lie: Lie,
}

struct LyingStore {
	inner: Mutex<MemoryStore>,
	medium: MemoryMedium,
	lie: Lie,
}

impl Backend for Liar {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		let mut medium = self.medium.clone();
		if self.lie == Lie::Forgets {
			// Each opening finds what the one before found.
			medium = self.kept.lock().get_or_insert_with(|| self.medium.snapshot()).snapshot();
		}
		let inner = Mutex::new(MemoryStore::open(&medium, namespace.clone())?);
		Ok(Arc::new(LyingStore { inner, medium, lie: self.lie }))
	}

	fn damage(
		&self, _: &Arc<dyn Store>, namespace: &Namespace, key: &Key,
		change: &mut dyn FnMut(&mut Vec<u8>),
	) -> bool {
		self.medium.damage(namespace, key, change);
		true
	}

	fn fail_next_flush(&self, _: &Arc<dyn Store>) -> bool {
		false
	}
}

impl Store for LyingStore {
	fn commit(&self, mut batch: Batch) -> Ticket<Committed> {
		let mut inner = self.inner.lock();
		match self.lie {
			Lie::NotAtomic | Lie::NoExpectations => {
				let mut last = Batch::new();
				for op in batch.ops() {
					let mut one = Batch::new();
					match op {
						Op::Put(key, value) => one.put(key.clone(), value.clone()),
						Op::Delete(key) => one.delete(key.clone()),
						_ => return inner.commit(batch),
					};
					last = one;
					if self.lie == Lie::NotAtomic {
						inner.commit(last).wait().unwrap();
						last = Batch::new();
					}
				}
				if self.lie == Lie::NotAtomic {
					for (key, expectation) in batch.expectations() {
						last.expect(key.clone(), *expectation);
					}
				}
				inner.commit(last)
			},
			Lie::NeverFenced => {
				*inner = MemoryStore::open(&self.medium, Namespace::default()).unwrap();
				inner.commit(batch)
			},
			Lie::HooksAtOnce => {
				let hooks = batch.take_hooks();
				let mut nothing = Batch::new();
				let _ = nothing.append(leyden_store::Table::new("lies"), b"", lie());
				let answer = inner.commit(nothing).wait().unwrap();
				hooks.into_iter().for_each(|hook| hook(&answer));
				inner.commit(batch)
			},
			_ => inner.commit(batch),
		}
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		let found = self.inner.lock().get(key);
		if self.lie == Lie::SkipsDamage {
			return found.then(|record| Ok(record.unwrap_or(None)));
		}
		found
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.inner.lock().get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		let page = self.inner.lock().scan(range, limit);
		if self.lie == Lie::OnePage {
			return page.then(|page| Ok(Page { rest: None, ..page? }));
		}
		page
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.lock().guarantees()
	}
}

fn lie() -> leyden_store::Value {
	leyden_store::Value::new(leyden_store::RecordType(0x8000), 1, *b"x")
}

/// What is checked, the lie, and who must notice.
type Check = (&'static str, Lie, fn(&dyn Backend));

#[test]
fn each_broken_promise_is_noticed_by_its_check() {
	let checks: [Check; 7] = [
		("atomicity", Lie::NotAtomic, conformance::a_batch_is_all_or_nothing),
		(
			"expectations",
			Lie::NoExpectations,
			conformance::expectations_are_checked_against_the_state_before_the_batch,
		),
		("durability", Lie::Forgets, conformance::what_was_acknowledged_is_there_after_reopening),
		(
			"damage",
			Lie::SkipsDamage,
			conformance::every_damaged_byte_is_loud_and_nothing_is_skipped,
		),
		("fencing", Lie::NeverFenced, conformance::an_older_writer_is_kept_out),
		("hooks", Lie::HooksAtOnce, conformance::hooks_run_in_order_even_if_nobody_waits),
		("scans", Lie::OnePage, conformance::scans_come_in_order_and_within_their_range),
	];
	for (what, lie, check) in checks {
		let medium = MemoryMedium::new();
		let liar = Liar { medium, kept: Mutex::new(None), lie };
		// The panic that is wanted prints its message; the test's output is only shown if it fails.
		let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&liar)));
		assert!(noticed.is_err(), "nobody noticed: {what}");
	}
}
