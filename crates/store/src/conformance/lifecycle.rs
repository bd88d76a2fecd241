// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Tickets, hooks, reopening, fencing.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use super::*;
use crate::{Durability, Expectation};

/// Hooks run once, in the order of commits, whether or not anybody waits; those of a refused batch
/// never.
pub fn hooks_run_in_order_even_if_nobody_waits(backend: &dyn Backend) {
	let store = open(backend);
	let heard: Arc<Mutex<Vec<u64>>> = Arc::default();
	let hooked = |n: u64, refused: bool| {
		let mut batch = Batch::new();
		batch.put(key(&format!("h{n}")), value("v"));
		if refused {
			batch.expect(key("missing"), Expectation::Present);
		}
		let heard = Arc::clone(&heard);
		batch.after_commit(move |_| heard.lock().push(n));
		batch
	};
	let last = (0..30u64).map(|n| {
		let ticket = store.commit(hooked(n, n % 5 == 4));
		// Most are dropped.
		(n % 7 == 0).then_some(ticket)
	});
	let kept: Vec<_> = last.flatten().collect();
	kept.into_iter().for_each(|ticket| drop(ticket.wait()));
	store.commit(hooked(99, false)).wait().unwrap();
	let expected: Vec<u64> = (0..30).filter(|n| n % 5 != 4).chain([99]).collect();
	assert_eq!(*heard.lock(), expected);
}

/// A commit whose ticket is dropped at once is a commit.
pub fn a_dropped_ticket_takes_nothing_back(backend: &dyn Backend) {
	let store = open(backend);
	for n in 0..50 {
		let mut batch = Batch::new();
		batch.put(key(&format!("d{n:02}")), value("v"));
		drop(store.commit(batch));
	}
	drop(store);
	let store = open(backend);
	let page = store.scan(crate::KeyRange::prefix(T, b"d"), 100).wait().unwrap();
	assert_eq!(page.records.len(), 50);
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
	fn wake(self: Arc<Self>) {
		self.0.unpark();
	}
}

/// Polled, a ticket resolves and wakes its task.
pub fn a_ticket_is_a_future(backend: &dyn Backend) {
	let store = open(backend);
	let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
	for n in 0..20 {
		let mut batch = Batch::new();
		batch.put(key("f"), value(&n.to_string()));
		let mut ticket = pin!(store.commit(batch));
		loop {
			match ticket.as_mut().poll(&mut Context::from_waker(&waker)) {
				Poll::Ready(committed) => break drop(committed.unwrap()),
				Poll::Pending => std::thread::park(),
			}
		}
	}
	assert_eq!(body(&store, "f").as_deref(), Some("19"));
}

/// A read sees every commit that had resolved before it was called, from any thread.
pub fn a_read_sees_what_was_resolved(backend: &dyn Backend) {
	let store = open(backend);
	std::thread::scope(|scope| {
		for thread in 0..8 {
			let store = &store;
			scope.spawn(move || {
				for n in 0..30 {
					let name = format!("r{thread}");
					put(store, &name, &n.to_string());
					assert_eq!(body(store, &name), Some(n.to_string()));
				}
			});
		}
	});
}

/// A lazy commit is seen by reads, and is there if a later one that is not lazy is there.
pub fn lazy_commits_keep_their_order(backend: &dyn Backend) {
	let store = open(backend);
	let lazy = |name: &str| {
		let mut batch = Batch::new();
		batch.put(key(name), value("lazy")).durability(Durability::Lazy);
		batch
	};
	let first = store.commit(lazy("l1")).wait().unwrap().version();
	assert_eq!(body(&store, "l1").as_deref(), Some("lazy"));
	let second = put(&store, "l2", "sync").version();
	let third = store.commit(lazy("l3")).wait().unwrap().version();
	assert!(first < second && second < third);
	drop(store);
	let store = open(backend);
	assert!(get(&store, "l1").is_some() && get(&store, "l2").is_some());
}

/// What was acknowledged is there, with its version, after any number of reopenings.
pub fn what_was_acknowledged_is_there_after_reopening(backend: &dyn Backend) {
	let mut written: Vec<(String, crate::Version)> = Vec::new();
	for life in 0..4 {
		let store = open(backend);
		for (name, version) in &written {
			assert_eq!(get(&store, name).unwrap().version, *version, "{name}");
		}
		for n in 0..5 {
			let name = format!("w{life}{n}");
			written.push((name.clone(), put(&store, &name, "v").version()));
		}
	}
}

/// Two namespaces hold the same keys and sequences apart.
pub fn namespaces_do_not_see_each_other(backend: &dyn Backend) {
	let other = Namespace::new("other").unwrap();
	{
		let store = open(backend);
		put(&store, "k", "mine");
	}
	{
		let store = backend.open(&other).unwrap();
		assert!(get(&store, "k").is_none());
		put(&store, "k", "theirs");
	}
	let store = open(backend);
	assert_eq!(body(&store, "k").as_deref(), Some("mine"));
}

/// While a namespace is open, a second opening is refused, or fences the first one off; never do
/// both write.
pub fn an_older_writer_is_kept_out(backend: &dyn Backend) {
	let older = open(backend);
	put(&older, "k", "1");
	match backend.open(&default()) {
		Err(StoreError::Locked { .. }) => {
			put(&older, "k", "2");
		},
		Err(error) => panic!("{error}"),
		Ok(newer) => {
			put(&newer, "k", "2");
			let mut batch = Batch::new();
			batch.put(key("k"), value("3"));
			let refused = older.commit(batch).wait();
			assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
			assert_eq!(body(&newer, "k").as_deref(), Some("2"));
		},
	}
}

/// After a flush that failed nothing is known, and nothing more is done; after reopening everything
/// that was acknowledged before is there.
pub fn a_failed_flush_ends_the_handle(backend: &dyn Backend) {
	let store = open(backend);
	put(&store, "before", "1");
	if !backend.fail_next_flush(&store) {
		return;
	}
	let attempt = |name: &str| {
		let mut batch = Batch::new();
		batch.put(key(name), value("x"));
		let heard = Arc::new(Mutex::new(false));
		let hook = Arc::clone(&heard);
		batch.after_commit(move |_| *hook.lock() = true);
		let ended = store.commit(batch).wait();
		assert!(!*heard.lock(), "no hook of what is not durable");
		ended.unwrap_err()
	};
	assert!(matches!(attempt("lost"), StoreError::Indeterminate { .. }));
	for _ in 0..2 {
		let error = attempt("later");
		assert!(matches!(error, StoreError::Poisoned { .. }) && !error.is_retriable());
	}
	assert!(store.get(&key("before")).wait().is_err());
	assert!(store.scan(crate::KeyRange::all(T), 1).wait().is_err());
	drop(store);
	let store = open(backend);
	assert_eq!(body(&store, "before").as_deref(), Some("1"));
	assert!(get(&store, "later").is_none());
	put(&store, "after", "1");
}
