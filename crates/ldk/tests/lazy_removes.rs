//! A removal that LDK calls lazy may wait for the next flush; no other call of a `KVStore` may.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use leyden_ldk::LeydenKvStore;
use leyden_store::{Batch, Committed, Durability, MemoryStore, Store, Ticket};
use lightning::util::persist::{KVStore, KVStoreSync};

/// Remembers how soon each batch had to be on the medium.
struct Watched {
	inner: MemoryStore,
	seen: Mutex<Vec<Durability>>,
}

impl Store for Watched {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.seen.lock().unwrap().push(batch.required_durability());
		self.inner.commit(batch)
	}

	leyden_testkit::forward_store!(inner);
}

/// The memory store answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
	match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
		Poll::Ready(answer) => answer,
		Poll::Pending => panic!("the memory store answers at once"),
	}
}

#[test]
fn only_a_lazy_removal_waits_for_the_next_flush() {
	let inner = MemoryStore::new().unwrap();
	let store = Arc::new(Watched { inner, seen: Mutex::default() });
	let kv = LeydenKvStore::new(Arc::<Watched>::clone(&store));
	let took = || std::mem::take(&mut *store.seen.lock().unwrap());
	for (lazy, expected) in [(false, Durability::Sync), (true, Durability::Lazy)] {
		KVStoreSync::write(&kv, "p", "s", "key", vec![1]).unwrap();
		assert_eq!(took(), [Durability::Sync], "a write is durable when it returns");
		KVStoreSync::remove(&kv, "p", "s", "key", lazy).unwrap();
		assert_eq!(took(), [expected], "lazy: {lazy}");
		now(KVStore::write(&kv, "p", "s", "key", vec![1])).unwrap();
		assert_eq!(took(), [Durability::Sync], "a write is durable when it resolves");
		now(KVStore::remove(&kv, "p", "s", "key", lazy)).unwrap();
		assert_eq!(took(), [expected], "lazy: {lazy}, awaited");
	}
}
