//! A store in which something else happens between two requests of the code under test: what
//! another thread, or another process, does there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use leyden_store::{Batch, Committed, Guarantees, Key, KeyRange, Page, Record, Store, Ticket};

/// A store that runs an interruption right before its `at`-th request. What the interruption itself
/// asks for must go past this store.
pub struct InterruptedStore {
	inner: Arc<dyn Store>,
	at: u64,
	requests: AtomicU64,
	interruption: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl InterruptedStore {
	/// Interrupts the requests to `inner` before number `at`, which begins at 0.
	pub fn new(
		inner: Arc<dyn Store>, at: u64, interruption: impl FnOnce() + Send + 'static,
	) -> Arc<Self> {
		let interruption = Mutex::new(Some(Box::new(interruption) as Box<dyn FnOnce() + Send>));
		Arc::new(Self { inner, at, requests: AtomicU64::new(0), interruption })
	}

	/// Returns `true` if there were enough requests for the interruption.
	pub fn was_interrupted(&self) -> bool {
		self.interruption.lock().unwrap().is_none()
	}

	fn request(&self) {
		if self.requests.fetch_add(1, Ordering::SeqCst) == self.at {
			let interruption = self.interruption.lock().unwrap().take();
			if let Some(interruption) = interruption {
				interruption();
			}
		}
	}
}

impl Store for InterruptedStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.request();
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.request();
		self.inner.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.request();
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.request();
		self.inner.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}
}

/// Has `live` work on a store that is interrupted before each of its requests in turn. `live` is
/// given the number of the request, and returns the store; it ends with the first number that
/// nothing came to.
///
/// # Panics
///
/// If nothing was interrupted at all: then nothing was tried.
pub fn interrupt_everywhere(mut live: impl FnMut(u64) -> Arc<InterruptedStore>) {
	for at in 0.. {
		if !live(at).was_interrupted() {
			assert!(at > 0, "nothing was interrupted");
			return;
		}
	}
}
