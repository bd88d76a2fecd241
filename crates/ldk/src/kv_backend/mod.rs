// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Leyden's records in any `KVStore` of LDK's: no new database for a node that has one.
//!
//! # How a batch becomes one
//! An LDK store writes one key at a time. A batch that writes one record is that write. Any other
//! is first written down whole, under one key (the *redo*), which is the moment it is committed;
//! then its records are written and deleted. The next redo takes its place.
//!
//! # What a crash does
//! The next opening reads the redo and does what is left of it, before anything else is done: a
//! record that is newer is left alone. Nothing is deleted outside of a redo, so a record that is
//! missing was not written yet.
//!
//! # What is promised
//! What LDK asks of a store: a write that returned is durable, writes of one key are in order. Of
//! writes to different keys nothing is asked; each step waits for the one before.
//!
//! # What is not promised
//! There is no fence across processes: nothing in LDK's contract could carry one. Every group looks
//! at the epoch, so that two handles by accident end soon; two nodes at the same moment would
//! destroy each other's records, as they would everything else in that store.
//!
//! # What it costs
//! One write for an append; for a batch of n records one more than n, with everything written
//! twice. Keys are held in memory for tables that are scanned; records are read one by one.

mod kv;
mod medium;
mod names;
mod redo;

use std::ops::Deref;

use leyden_store::group::{GroupStore, Writer};
use leyden_store::{Fence, Guarantees, Namespace, StoreError};
use lightning::util::native_async::FutureSpawner;
use lightning::util::persist::{KVStore, KVStoreSync};

use kv::{Asynchronous, Kv, Synchronous};
use medium::KvMedium;

/// The layout that this version writes, and the newest that it reads.
pub use medium::KV_FORMAT;

/// A [`Store`](leyden_store::Store) in a `KVStore` or `KVStoreSync` of LDK's.
#[derive(Debug)]
pub struct KvBackedStore(GroupStore<KvMedium>);

impl KvBackedStore {
	/// Opens `namespace` in a `KVStoreSync`, in the primary namespace `leyden_<namespace>`.
	///
	/// # Errors
	/// [`StoreError::NotAStore`] and [`StoreError::Newer`] if what is there is not ours,
	/// [`StoreError::Corrupt`] for a damaged redo: it is left as it is, and nothing is done, since
	/// it may be the only copy of what was acknowledged.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, what a crash left undone is done, and the epoch is raised.
	pub fn open<K>(kv: K, namespace: &Namespace) -> Result<Self, StoreError>
	where
		K: Deref + Send + Sync + 'static,
		K::Target: KVStoreSync,
	{
		Self::over(Box::new(Synchronous(kv)), namespace)
	}

	/// Opens `namespace` in a `KVStore`. Its futures are given to `spawner`, and the thread that
	/// commits waits for them: with a runtime of one thread, `.await` tickets rather than `wait`
	/// for them there.
	///
	/// # Errors
	/// As [`open`](KvBackedStore::open).
	///
	/// # Failure Behavior and Persistence
	/// As [`open`](KvBackedStore::open).
	pub fn open_async<K, S>(kv: K, spawner: S, namespace: &Namespace) -> Result<Self, StoreError>
	where
		K: Deref + Send + Sync + 'static,
		K::Target: KVStore,
		S: FutureSpawner,
	{
		Self::over(Box::new(Asynchronous { kv, spawner }), namespace)
	}

	fn over(kv: Box<dyn Kv>, namespace: &Namespace) -> Result<Self, StoreError> {
		let (medium, committer) = KvMedium::open(kv, namespace)?;
		let place = medium.place().to_owned();
		let mut guarantees = Guarantees::embedded("kvstore");
		guarantees.fence = Fence::Process;
		guarantees.group_commit = false;
		Ok(Self(GroupStore::start(Writer::new(medium, committer, place), guarantees)?))
	}
}

impl Deref for KvBackedStore {
	type Target = GroupStore<KvMedium>;

	fn deref(&self) -> &GroupStore<KvMedium> {
		&self.0
	}
}
