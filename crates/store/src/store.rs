// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The persistence trait.

use std::ops::Deref;
use std::path::Path;

use crate::batch::Batch;
use crate::committed::Committed;
use crate::group::StoreObserver;
use crate::guarantees::Guarantees;
use crate::key::{Key, KeyRange};
use crate::page::Page;
use crate::record::Record;
use crate::ticket::Ticket;

/// Somewhere records survive a crash.
///
/// One opened handle is the only writer of its namespace: opening the namespace again, in this
/// process or another, raises its epoch, and every commit of the old handle is then
/// [`Fenced`](crate::StoreError::Fenced). Inside a process any number of threads and tasks may use
/// one handle. What a backend promises beyond that, and what it cannot, is in its [`Guarantees`];
/// the conformance suite (feature `conformance`) holds it to them.
///
/// The order of two commits is the order in which [`commit`](Store::commit) was *called*, as with
/// LDK's `KVStore`: the work is submitted in the call, and the ticket only tells how it ended. A read
/// may be made as late as when its ticket is waited for or polled.
pub trait Store: Send + Sync {
	/// All of `batch` or nothing; refused with [`Conflict`](crate::StoreError::Conflict) if an
	/// expectation does not hold.
	///
	/// # Failure Behavior and Persistence
	/// When the ticket resolves with `Ok`, the batch is durable (with
	/// [`Durability::Lazy`](crate::Durability::Lazy): it is ordered before every later commit, and
	/// lost only together with them). A crash before that leaves all of it or nothing. Dropping the
	/// ticket does not take the batch back. On `Err` nothing was written, except for
	/// [`Indeterminate`](crate::StoreError::Indeterminate), after which the handle is
	/// [`Poisoned`](crate::StoreError::Poisoned).
	fn commit(&self, batch: Batch) -> Ticket<Committed>;

	/// The record at `key`. Sees every commit whose ticket had resolved when it was called, and
	/// nothing that is not durable.
	fn get(&self, key: &Key) -> Ticket<Option<Record>>;

	/// Up to `limit` records of `range`, in its direction, as of one moment. A page may hold fewer,
	/// and [`Page::rest`] says whether there is more and where.
	///
	/// A damaged record ends the scan with an error that names it; it is never skipped.
	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page>;

	/// Returns the bytes at `key` as the engine has them, unchecked: what is left of a damaged record.
	/// An intact one comes with its [frame](crate::frame).
	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>>;

	/// What this backend promises.
	fn guarantees(&self) -> Guarantees;

	/// Makes a copy of everything in the database, all namespaces of it, as of one moment, in the
	/// file at `to`, which is there and empty. Commits go on meanwhile. The copy is not flushed:
	/// `leyden::backup` is what users call.
	///
	/// # Errors
	/// The backend's; [`StoreError::Invalid`](crate::StoreError::Invalid) for one that cannot.
	fn copy_to(&self, to: &Path) -> Result<(), crate::StoreError> {
		let _ = to;
		Err(crate::StoreError::invalid(
			"this store makes no copies; use its own tools for a backup",
		))
	}

	/// Moves what is in a log beside the database into the database, as far as nobody reads it
	/// there: so that a copy without the log is as old as this call. Does nothing for a store without
	/// such a log.
	///
	/// # Errors
	/// The backend's. Nothing is lost then.
	fn checkpoint(&self) -> Result<(), crate::StoreError> {
		Ok(())
	}

	/// Has `observer` called for every [`StoreEvent`](crate::group::StoreEvent) from now on:
	/// outages, panics of hooks, and the end of the handle. Returns `false` for a store that tells
	/// nothing.
	///
	/// The observer runs on whatever thread commits, a caller's that helps among them: it must be
	/// quick and must not wait for the store.
	fn observe(&self, observer: StoreObserver) -> bool {
		let _ = observer;
		false
	}

	/// Runs `wait`, which blocks this thread until this store, or another thread that waits for
	/// this store, has done something. A store that may need the thread for that (as a worker of an
	/// async runtime) tells the runtime around it, and so does a store that is around such a one.
	fn block(&self, wait: &mut dyn FnMut()) {
		wait();
	}
}

impl<D> Store for D
where
	D: Deref + Send + Sync,
	D::Target: Store,
{
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		(**self).commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		(**self).get(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		(**self).scan(range, limit)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		(**self).get_raw(key)
	}

	fn guarantees(&self) -> Guarantees {
		(**self).guarantees()
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		(**self).observe(observer)
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		(**self).block(wait);
	}

	fn copy_to(&self, to: &Path) -> Result<(), crate::StoreError> {
		(**self).copy_to(to)
	}

	fn checkpoint(&self) -> Result<(), crate::StoreError> {
		(**self).checkpoint()
	}
}
