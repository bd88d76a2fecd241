//! A store around another one, in a test.

/// Passes everything but `commit` on to the store in a field: for a store that does something else
/// with commits. What it leaves out, such as [`Store::block`](leyden_store::Store::block), would
/// change what is tested.
///
/// ```
/// use leyden_store::{Batch, Committed, MemoryStore, Store, Ticket};
///
/// struct Refuses {
///     inner: MemoryStore,
/// }
///
/// impl Store for Refuses {
///     fn commit(&self, _: Batch) -> Ticket<Committed> {
///         let place = "here".to_owned();
///         Ticket::ready(Err(leyden_store::StoreError::NoSpace { place }))
///     }
///
///     leyden_testkit::forward_store!(inner);
/// }
/// let store = Refuses { inner: MemoryStore::new().unwrap() };
/// assert!(store.commit(Batch::new()).wait().is_err());
/// ```
#[macro_export]
macro_rules! forward_store {
	($inner: ident) => {
		fn get(
			&self, key: &$crate::leyden_store::Key,
		) -> $crate::leyden_store::Ticket<Option<$crate::leyden_store::Record>> {
			$crate::leyden_store::Store::get(&self.$inner, key)
		}

		fn scan(
			&self, range: $crate::leyden_store::KeyRange, limit: usize,
		) -> $crate::leyden_store::Ticket<$crate::leyden_store::Page> {
			$crate::leyden_store::Store::scan(&self.$inner, range, limit)
		}

		fn get_raw(
			&self, key: &$crate::leyden_store::Key,
		) -> $crate::leyden_store::Ticket<Option<Vec<u8>>> {
			$crate::leyden_store::Store::get_raw(&self.$inner, key)
		}

		fn guarantees(&self) -> $crate::leyden_store::Guarantees {
			$crate::leyden_store::Store::guarantees(&self.$inner)
		}

		fn observe(&self, observer: $crate::leyden_store::group::StoreObserver) -> bool {
			$crate::leyden_store::Store::observe(&self.$inner, observer)
		}

		fn block(&self, wait: &mut dyn FnMut()) {
			$crate::leyden_store::Store::block(&self.$inner, wait);
		}
	};
}
