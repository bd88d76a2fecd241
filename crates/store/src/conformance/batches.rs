// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Batches: all or nothing, expectations, versions, limits.

use super::*;
use crate::batch::MAX_BATCH_OPS;
use crate::key::MAX_KEY_BYTES;
use crate::{Expectation, Plan};

/// A batch with an expectation that does not hold writes nothing of what it has.
pub fn a_batch_is_all_or_nothing(backend: &dyn Backend) {
	let store = open(backend);
	put(&store, "old", "1");
	let mut batch = Batch::new();
	batch.put(key("a"), value("1")).delete(key("old")).put(key("b"), value("1"));
	batch.expect(key("missing"), Expectation::Present);
	let refused = store.commit(batch).wait();
	assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
	assert!(get(&store, "a").is_none() && get(&store, "b").is_none());
	assert_eq!(body(&store, "old").as_deref(), Some("1"));

	let mut batch = Batch::new();
	batch.put(key("a"), value("2")).delete(key("old")).put(key("b"), value("2"));
	let committed = store.commit(batch).wait().unwrap();
	assert!(get(&store, "old").is_none());
	for name in ["a", "b"] {
		let record = get(&store, name).unwrap();
		assert_eq!((record.version, record.value), (committed.version(), value("2")));
	}
}

/// Each kind of expectation holds when it should, and the error tells what was found.
pub fn expectations_are_checked_against_the_state_before_the_batch(backend: &dyn Backend) {
	let store = open(backend);
	let first = put(&store, "k", "1").version();
	let second = put(&store, "k", "2").version();
	let attempt = |name: &str, expectation| {
		let mut batch = Batch::new();
		batch.expect(key(name), expectation);
		store.commit(batch).wait().map(|_| ())
	};
	let holds = [
		("k", Expectation::Present),
		("k", Expectation::Version(second)),
		("none", Expectation::Absent),
	];
	for (name, expectation) in holds {
		attempt(name, expectation).unwrap();
	}
	let fails = [
		("k", Expectation::Absent, Some(second)),
		("k", Expectation::Version(first), Some(second)),
		("none", Expectation::Present, None),
		("none", Expectation::Version(second), None),
	];
	for (name, expectation, there) in fails {
		match attempt(name, expectation) {
			Err(StoreError::Conflict { key: at, expected, found }) => {
				assert_eq!((at, expected, found), (key(name), expectation, there));
			},
			other => panic!("{name} {expectation:?}: {other:?}"),
		}
	}
	// A batch may expect a record to be absent and write it.
	let mut batch = Batch::new();
	batch.expect(key("new"), Expectation::Absent).put(key("new"), value("1"));
	store.commit(batch).wait().unwrap();
}

/// Numbers of a refused batch are given to the next one.
pub fn a_refused_batch_gives_no_numbers(backend: &dyn Backend) {
	let store = open(backend);
	let mut refused = Batch::new();
	let _ = refused.append(T, b"s", value("1"));
	refused.expect(key("missing"), Expectation::Present);
	assert!(store.commit(refused).wait().is_err());
	let mut batch = Batch::new();
	let slot = batch.append(T, b"s", value("1"));
	let committed = store.commit(batch).wait().unwrap();
	assert_eq!(committed.appended(slot).unwrap().number().get(), 1);
}

/// A record that was deleted and written again has another version, also after reopening.
pub fn versions_are_never_used_twice(backend: &dyn Backend) {
	let mut seen = std::collections::BTreeSet::new();
	for _ in 0..3 {
		let store = open(backend);
		for _ in 0..5 {
			assert!(seen.insert(put(&store, "k", "same").version()), "a version twice");
			let mut batch = Batch::new();
			batch.delete(key("k"));
			assert!(seen.insert(store.commit(batch).wait().unwrap().version()));
		}
	}
	let order: Vec<_> = seen.iter().collect();
	assert!(order.windows(2).all(|pair| pair[0] < pair[1]));
}

/// Keys, batches and bodies at their limits are taken, and over them are refused.
pub fn what_is_too_large_is_refused_and_what_just_fits_is_not(backend: &dyn Backend) {
	let store = open(backend);
	let commit = |batch: Batch| store.commit(batch).wait().map(|_| ());
	let with_key = |length| {
		let mut batch = Batch::new();
		batch.put(Key::new(T, vec![0xff; length]), value("1"));
		batch
	};
	commit(with_key(1)).unwrap();
	commit(with_key(MAX_KEY_BYTES)).unwrap();
	assert!(store.get(&Key::new(T, vec![0xff; MAX_KEY_BYTES])).wait().unwrap().is_some());
	assert!(matches!(commit(with_key(0)), Err(StoreError::Invalid { .. })));
	assert!(matches!(commit(with_key(MAX_KEY_BYTES + 1)), Err(StoreError::TooLarge { .. })));
	let with_ops = |count: u64| {
		let mut batch = Batch::new();
		(0..count).for_each(|n| {
			batch.put(Key::numbered(T, b"n", n), value("1"));
		});
		batch
	};
	// Two for the store's own.
	let most = MAX_BATCH_OPS.min(store.guarantees().max_writes - 2);
	commit(with_ops(most as u64)).unwrap();
	let over = commit(with_ops(MAX_BATCH_OPS as u64 + 1));
	assert!(matches!(over, Err(StoreError::TooLarge { .. })));
	// Nothing of the refused ones is there.
	assert!(store.get(&Key::numbered(T, b"n", MAX_BATCH_OPS as u64)).wait().unwrap().is_none());
}

/// A body of the largest size comes back as it was; one byte more is refused.
pub fn a_large_record_comes_back_whole(backend: &dyn Backend) {
	let store = open(backend);
	let mut large = vec![0x5a; crate::frame::MAX_BODY_BYTES];
	large[12_345] = 1;
	let mut batch = Batch::new();
	batch.put(key("large"), Value::new(RecordType(0x8000), 1, large.clone()));
	store.commit(batch).wait().unwrap();
	assert!(get(&store, "large").unwrap().value.body == large);
	large.push(0);
	let mut batch = Batch::new();
	batch.put(key("large"), Value::new(RecordType(0x8000), 1, large));
	assert!(matches!(store.commit(batch).wait(), Err(StoreError::TooLarge { .. })));
}

/// Two plans in one commit each get the answer of their own appends, and their hooks too.
pub fn merged_plans_get_their_own_answers(backend: &dyn Backend) {
	let store = open(backend);
	let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
	let plan = |prefix: &'static [u8], count: usize| {
		let mut batch = Batch::new();
		let slots: Vec<_> = (0..count).map(|_| batch.append(T, prefix, value("1"))).collect();
		let heard = Arc::clone(&heard);
		batch.after_commit(move |committed| heard.lock().push(committed.appends().len()));
		Plan::new(batch, move |committed| {
			let number = |slot| committed.appended(slot).unwrap().number().get();
			slots.into_iter().map(number).collect::<Vec<_>>()
		})
	};
	let all = plan(b"a", 2).and(plan(b"b", 1)).and(plan(b"a", 1));
	let ((a, b), again) = all.commit(&store).wait().unwrap();
	assert_eq!((a, b, again), (vec![1, 2], vec![1], vec![3]));
	assert_eq!(*heard.lock(), [2, 1, 1]);
}
