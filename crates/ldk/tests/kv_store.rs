//! A Leyden store as LDK's `KVStore`, held to LDK's contract, in memory and on SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use leyden_backends::sqlite::SqliteStore;
use leyden_ldk::{LeydenKvStore, KEYS_PER_PAGE};
use leyden_store::{MemoryMedium, MemoryStore, Namespace, Store};
use lightning::io::ErrorKind;
use lightning::util::persist::{
	migrate_kv_store_data, KVStore, KVStoreSync, MigratableKVStore, MigratableKVStoreSync,
	PageToken, PaginatedKVStore, PaginatedKVStoreSync,
};

struct Thread(std::thread::Thread);

impl Wake for Thread {
	fn wake(self: Arc<Self>) {
		self.0.unpark();
	}
}

/// As small as a runtime can be.
fn block_on<F: Future>(future: F) -> F::Output {
	let waker = Waker::from(Arc::new(Thread(std::thread::current())));
	let mut future = pin!(future);
	loop {
		if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
			return done;
		}
		std::thread::park();
	}
}

/// Runs the test on each kind of store; `open` opens the same one again.
fn on_each(test: impl Fn(&dyn Fn() -> Arc<dyn Store>)) {
	let medium = MemoryMedium::new();
	test(&|| Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap()));
	let dir = tempfile::tempdir().unwrap();
	let path = dir.path().join("node.leyden");
	test(&|| Arc::new(SqliteStore::open(&path, Namespace::default()).unwrap()));
}

fn sorted(mut keys: Vec<String>) -> Vec<String> {
	keys.sort();
	keys
}

#[test]
fn what_is_written_is_read_over_restarts() {
	on_each(|open| {
		{
			let kv = LeydenKvStore::new(open());
			KVStoreSync::write(&kv, "monitors", "", "one", vec![1]).unwrap();
			KVStoreSync::write(&kv, "monitors", "", "two", vec![2; 3_000_000]).unwrap();
			KVStoreSync::write(&kv, "monitors", "", "one", vec![3]).unwrap();
			KVStoreSync::write(&kv, "", "", "manager", vec![]).unwrap();
			KVStoreSync::write(&kv, "monitors", "deep", "one", vec![9]).unwrap();
		}
		let kv = LeydenKvStore::new(open());
		assert_eq!(KVStoreSync::read(&kv, "monitors", "", "one").unwrap(), [3]);
		assert_eq!(KVStoreSync::read(&kv, "monitors", "", "two").unwrap().len(), 3_000_000);
		assert_eq!(KVStoreSync::read(&kv, "", "", "manager").unwrap(), Vec::<u8>::new());
		assert_eq!(sorted(KVStoreSync::list(&kv, "monitors", "").unwrap()), ["one", "two"]);
		assert_eq!(KVStoreSync::list(&kv, "elsewhere", "").unwrap(), [] as [&str; 0]);
		let missing = KVStoreSync::read(&kv, "monitors", "", "three").unwrap_err();
		assert_eq!(missing.kind(), ErrorKind::NotFound);
		for lazy in [false, true] {
			KVStoreSync::remove(&kv, "monitors", "", "one", lazy).unwrap();
		}
		assert!(KVStoreSync::read(&kv, "monitors", "", "one").is_err());
		assert_eq!(KVStoreSync::list(&kv, "monitors", "").unwrap(), ["two"]);
		let all = MigratableKVStoreSync::list_all_keys(&kv).unwrap();
		assert_eq!(all.len(), 3);
		assert!(all.contains(&("monitors".into(), "deep".into(), "one".into())));
	});
}

#[test]
fn the_order_of_writes_is_the_order_of_the_calls() {
	on_each(|open| {
		let kv = LeydenKvStore::new(open());
		let writes: Vec<_> =
			(0..50u8).map(|n| KVStore::write(&kv, "p", "s", "key", vec![n])).collect();
		let removed = KVStore::remove(&kv, "p", "s", "gone", false);
		let last = KVStore::write(&kv, "p", "s", "gone", vec![7]);
		// Polled the other way round.
		block_on(last).unwrap();
		block_on(removed).unwrap();
		for write in writes.into_iter().rev() {
			block_on(write).unwrap();
		}
		assert_eq!(block_on(KVStore::read(&kv, "p", "s", "key")).unwrap(), [49]);
		assert_eq!(block_on(KVStore::read(&kv, "p", "s", "gone")).unwrap(), [7]);
		assert_eq!(sorted(block_on(KVStore::list(&kv, "p", "s")).unwrap()), ["gone", "key"]);
		assert_eq!(block_on(MigratableKVStore::list_all_keys(&kv)).unwrap().len(), 2);
	});
}

#[test]
fn pages_come_newest_first_and_hold_each_key_once() {
	on_each(|open| {
		let kv = LeydenKvStore::new(open());
		let count = KEYS_PER_PAGE * 2 + 5;
		for n in 0..count {
			KVStoreSync::write(&kv, "p", "", &format!("k{n}"), vec![0]).unwrap();
		}
		// Written again is not created again.
		KVStoreSync::write(&kv, "p", "", "k0", vec![1]).unwrap();
		let (mut keys, mut token, mut pages) = (Vec::new(), None, 0);
		loop {
			let page = PaginatedKVStoreSync::list_paginated(&kv, "p", "", token).unwrap();
			keys.extend(page.keys);
			pages += 1;
			token = page.next_page_token;
			if token.is_none() {
				break;
			}
			// A key created meanwhile belongs before the first page.
			KVStoreSync::write(&kv, "p", "", &format!("new{pages}"), vec![0]).unwrap();
		}
		assert_eq!(pages, 3);
		let expected: Vec<_> = (0..count).rev().map(|n| format!("k{n}")).collect();
		assert_eq!(keys, expected);
		let first = block_on(PaginatedKVStore::list_paginated(&kv, "p", "", None)).unwrap();
		assert_eq!(first.keys[0], "new2");
		for bad in ["from elsewhere", "", "+5", "05", "-1"] {
			let token = Some(PageToken::new(bad.to_owned()));
			assert!(PaginatedKVStoreSync::list_paginated(&kv, "p", "", token).is_err(), "{bad}");
		}
	});
}

#[test]
fn names_that_ldk_does_not_allow_are_refused() {
	let kv = LeydenKvStore::new(Arc::new(MemoryStore::new().unwrap()));
	for (p, s, k) in [("", "s", "k"), ("p", "s", ""), ("p/q", "s", "k"), ("p", "s", "ä")] {
		let refused = KVStoreSync::write(&kv, p, s, k, vec![]).unwrap_err();
		assert_eq!(refused.kind(), ErrorKind::InvalidInput);
	}
}

#[test]
fn ldk_migrates_from_one_store_to_another() {
	let from = LeydenKvStore::new(Arc::new(MemoryStore::new().unwrap()));
	for n in 0..10u8 {
		KVStoreSync::write(&from, "p", "s", &format!("k{n}"), vec![n]).unwrap();
	}
	let dir = tempfile::tempdir().unwrap();
	let store = SqliteStore::open(dir.path().join("to.leyden"), Namespace::default()).unwrap();
	let to = LeydenKvStore::new(Arc::new(store));
	migrate_kv_store_data(&mut from.clone(), &mut to.clone()).unwrap();
	assert_eq!(KVStoreSync::read(&to, "p", "s", "k7").unwrap(), [7]);
	assert_eq!(MigratableKVStoreSync::list_all_keys(&to).unwrap().len(), 10);
}
