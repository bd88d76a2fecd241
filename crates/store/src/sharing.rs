// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Handles of a process over one store: [`shared`] by all, or [`claim`]ed by one.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

use crate::key::Key;
use crate::store::Store;

/// Returns the value that is open at `key` of this very store, or opens it.
///
/// A log, a consumer or an outbox keeps in memory what is under way, so that two of them over the
/// same records would do everything twice. `open` therefore runs only if no value of this type is
/// in use at this key: the second handle shares the first one's. The value must keep `store`.
///
/// Handles of *this* store are recognized. Another store around it (one that counts, say) is
/// another one: what must hold then as well has to be expected in each commit.
///
/// # Errors
/// Those of `open`.
pub fn shared<T: Any + Send + Sync, E>(
	store: &Arc<dyn Store>, key: &Key, open: impl FnOnce() -> Result<T, E>,
) -> Result<Arc<T>, E> {
	let place = (Arc::as_ptr(store).cast::<()>() as usize, TypeId::of::<T>(), key.clone());
	let slot = {
		let mut places = PLACES.lock();
		places.retain(|_, slot| {
			let is_used = Arc::strong_count(slot) > 1;
			let is_open = |value: &Weak<_>| value.strong_count() > 0;
			is_used || slot.try_lock().is_none_or(|value| value.as_ref().is_some_and(is_open))
		});
		Arc::clone(places.entry(place).or_default())
	};
	// Only those who want the same wait for each other.
	let mut slot = slot.lock();
	let known = slot.as_ref().and_then(Weak::upgrade).and_then(|known| known.downcast::<T>().ok());
	if let Some(known) = known {
		return Ok(known);
	}
	let opened = Arc::new(open()?);
	let weak: Weak<T> = Arc::downgrade(&opened);
	*slot = Some(weak);
	Ok(opened)
}

/// Runs `f` while no value of this type is in use at `key` of this very store; whoever opens one
/// meanwhile waits. Returns `None`, and runs nothing, if one is in use.
pub fn while_closed<T: Any + Send + Sync, R>(
	store: &Arc<dyn Store>, key: &Key, f: impl FnOnce() -> R,
) -> Option<R> {
	let place = (Arc::as_ptr(store).cast::<()>() as usize, TypeId::of::<T>(), key.clone());
	let slot = Arc::clone(PLACES.lock().entry(place).or_default());
	let slot = slot.lock();
	let is_open = slot.as_ref().is_some_and(|value| value.strong_count() > 0);
	(!is_open).then(f)
}

/// Says that something is open in a store, for as long as it is kept.
pub struct Claim {
	_store: Arc<dyn Store>,
}

/// Claims `key` of this very store for something that cannot be shared, because each handle brings
/// parts of its own. Returns `None` while another claim of it is kept.
pub fn claim(store: &Arc<dyn Store>, key: &Key) -> Option<Arc<Claim>> {
	let mut is_new = false;
	let open = || -> Result<Claim, Infallible> {
		is_new = true;
		Ok(Claim { _store: Arc::clone(store) })
	};
	let Ok(claim) = shared(store, key, open);
	is_new.then_some(claim)
}

impl fmt::Debug for Claim {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Claim")
	}
}

type Place = (usize, TypeId, Key);
type Slot = Arc<Mutex<Option<Weak<dyn Any + Send + Sync>>>>;

static PLACES: LazyLock<Mutex<HashMap<Place, Slot>>> = LazyLock::new(Mutex::default);

#[cfg(test)]
mod tests {
	use std::sync::atomic::{AtomicUsize, Ordering};

	use super::*;
	use crate::{MemoryStore, Table};

	struct Opened(#[allow(dead_code)] Arc<dyn Store>, usize);

	#[test]
	fn a_value_is_opened_once_for_as_long_as_it_is_in_use() {
		let opened = AtomicUsize::new(0);
		let open = |store: &Arc<dyn Store>, key: &[u8]| {
			let key = Key::new(Table::new("t"), key);
			let make = || {
				let number = opened.fetch_add(1, Ordering::SeqCst);
				Ok::<_, Infallible>(Opened(Arc::clone(store), number))
			};
			shared(store, &key, make).unwrap()
		};
		let store: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
		let first = open(&store, b"a");
		assert_eq!(open(&store, b"a").1, first.1);
		assert_ne!(open(&store, b"b").1, first.1, "another key");
		let other: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
		assert_ne!(open(&other, b"a").1, first.1, "another store");
		let number = first.1;
		drop(first);
		assert_ne!(open(&store, b"a").1, number, "nobody uses it");
	}

	#[test]
	fn a_claim_is_given_once_for_as_long_as_it_is_kept() {
		let store: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
		let key = Key::new(Table::new("t"), *b"a");
		let first = claim(&store, &key).unwrap();
		assert!(claim(&store, &key).is_none());
		assert!(claim(&store, &Key::new(Table::new("t"), *b"b")).is_some());
		drop(first);
		assert!(claim(&store, &key).is_some());
	}

	#[test]
	fn what_needs_it_closed_runs_while_nobody_has_it_open() {
		let store: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
		let key = Key::new(Table::new("t"), *b"a");
		let open = || shared(&store, &key, || Ok::<_, ()>(Opened(Arc::clone(&store), 1))).unwrap();
		assert_eq!(while_closed::<Opened, _>(&store, &key, || 7), Some(7));
		let opened = open();
		assert_eq!(while_closed::<Opened, _>(&store, &key, || 7), None);
		drop(opened);
		// Whoever opens it meanwhile waits.
		let order = AtomicUsize::new(0);
		let (begun, begins) = std::sync::mpsc::channel();
		std::thread::scope(|scope| {
			while_closed::<Opened, _>(&store, &key, || {
				let (open, order) = (&open, &order);
				scope.spawn(move || {
					begun.send(()).unwrap();
					drop(open());
					order.fetch_max(2, Ordering::SeqCst)
				});
				begins.recv().unwrap();
				assert_eq!(order.swap(1, Ordering::SeqCst), 0);
			});
		});
		assert_eq!(order.load(Ordering::SeqCst), 2);
	}

	#[test]
	fn an_opening_that_fails_leaves_nothing() {
		let store: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
		let key = Key::new(Table::new("t"), *b"a");
		let failed = shared(&store, &key, || Err::<Opened, _>("no")).map(|_| ());
		assert_eq!(failed, Err("no"));
		let opened = shared(&store, &key, || Ok::<_, ()>(Opened(Arc::clone(&store), 1)));
		assert_eq!(opened.unwrap().1, 1);
	}

	#[test]
	fn threads_that_open_the_same_at_once_get_one() {
		let store: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
		let key = Key::new(Table::new("t"), *b"a");
		let opened = AtomicUsize::new(0);
		let open = || {
			let number = opened.fetch_add(1, Ordering::SeqCst);
			Ok::<_, Infallible>(Opened(Arc::clone(&store), number))
		};
		std::thread::scope(|scope| {
			let thread = |_| scope.spawn(|| shared(&store, &key, open).unwrap());
			let threads: Vec<_> = (0..8).map(thread).collect();
			let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
			assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
		});
		assert_eq!(opened.load(Ordering::SeqCst), 1);
	}
}
