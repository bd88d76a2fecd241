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
//! # Outages
//! A store that fails for a while is asked again, with growing pauses, until it is well or the
//! [tolerance](OutagePolicy::tolerance) is used up: the same bytes under the same key, so it does
//! not matter which of the tries counts. Callers wait meanwhile. Past the tolerance a read fails,
//! and a group of which it is not known what became ends the handle.
//!
//! # Stores with futures
//! The thread that commits calls the store and polls its futures, in the context of a runtime of
//! Leyden's own. So a caller may wait for a ticket on any thread, also on a worker of the node's
//! runtime, of which the store's futures are independent. A thread that waits never does the work
//! itself.
//!
//! A store whose clients are bound to the node's runtime can run there ([`KvOptions::runtime`]).
//! Then the store needs that runtime to make progress: a wait on one of its workers gives the
//! worker's tasks to another thread, and a runtime of one thread is refused.
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
//! A store that lets a write of a record land behind a later write of the same key, which LDK's
//! contract forbids, loses the later one. Only the redo is safe from that.
//!
//! # What it costs
//! One write for an append; for a batch of n records one more than n, with everything written
//! twice. Keys are held in memory for tables that are scanned; records are read one by one.

mod kv;
mod medium;
mod names;
mod redo;
mod runtime;

use std::ops::Deref;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Arc;
use std::time::Duration;

use leyden_store::committer::Committer;
use leyden_store::group::{GroupStore, OutagePolicy, Outages, Writer};
use leyden_store::{Fence, Guarantees, Namespace, StoreError};
use lightning::util::persist::{KVStore, KVStoreSync};

#[cfg(feature = "fuzz")]
pub(crate) use names::kv_backend_name_law;
#[cfg(feature = "fuzz")]
pub(crate) use redo::redo_law;

use kv::{Asynchronous, Kv, Synchronous};
use medium::KvMedium;
use runtime::Runtime;

/// The layout that this version writes, and the newest that it reads.
pub use medium::KV_FORMAT;

/// Options for the use of a `KVStore`.
#[derive(Clone, Debug)]
pub struct KvOptions {
	/// The policy for outages of the store. An opening waits for none.
	pub outages: OutagePolicy,
	/// The time to wait for an answer of a store with futures. A write that is not answered in time
	/// ends the handle. [`KvOptions::DEFAULT_ANSWER_TIMEOUT`] unless set otherwise.
	pub answer_timeout: Duration,
	/// The time for which an opening waits for the first answer of a store with futures.
	/// [`KvOptions::DEFAULT_OPENING_TIMEOUT`] unless set otherwise.
	pub opening_timeout: Duration,
	/// The node's runtime, for a store with futures that are bound to it. Unless set otherwise they
	/// run on a runtime of Leyden's own, which is what a node should want.
	pub runtime: Option<tokio::runtime::Handle>,
}

impl KvOptions {
	/// The default of [`answer_timeout`](KvOptions::answer_timeout).
	pub const DEFAULT_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
	/// The default of [`opening_timeout`](KvOptions::opening_timeout).
	pub const DEFAULT_OPENING_TIMEOUT: Duration = Duration::from_secs(20);
}

impl Default for KvOptions {
	fn default() -> Self {
		Self {
			outages: OutagePolicy::default(),
			answer_timeout: Self::DEFAULT_ANSWER_TIMEOUT,
			opening_timeout: Self::DEFAULT_OPENING_TIMEOUT,
			runtime: None,
		}
	}
}

/// A [`Store`](leyden_store::Store) in a `KVStore` or `KVStoreSync` of LDK's.
#[derive(Debug)]
pub struct KvBackedStore(GroupStore<KvMedium>);

impl KvBackedStore {
	/// Opens `namespace` in a `KVStoreSync`, in the primary namespace `leyden_<namespace>`.
	///
	/// # Errors
	/// [`StoreError::NotAStore`] and [`StoreError::Newer`] if what is there is not ours,
	/// [`StoreError::Corrupt`] for a damaged redo: it is left as it is, and nothing is done, since
	/// it may be the only copy of what was acknowledged. [`StoreError::Unavailable`] if the store
	/// fails.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, what a crash left undone is done, and the epoch is raised.
	pub fn open<K>(kv: K, namespace: &Namespace) -> Result<Self, StoreError>
	where
		K: Deref + Send + Sync + 'static,
		K::Target: KVStoreSync,
	{
		Self::open_with(kv, namespace, KvOptions::default())
	}

	/// Opens a store as [`open`](KvBackedStore::open) does, with options.
	///
	/// # Errors
	/// The same as [`open`](KvBackedStore::open).
	///
	/// # Failure Behavior and Persistence
	/// The same as [`open`](KvBackedStore::open).
	pub fn open_with<K>(
		kv: K, namespace: &Namespace, options: KvOptions,
	) -> Result<Self, StoreError>
	where
		K: Deref + Send + Sync + 'static,
		K::Target: KVStoreSync,
	{
		let opened = KvMedium::open(Box::new(Synchronous(kv)), namespace)?;
		Self::start(opened, options.outages)
	}

	/// Opens `namespace` in a `KVStore`, whose futures run on a runtime of Leyden's own. It may be
	/// called, and its tickets may be waited for, on any thread: also on the workers of a runtime,
	/// whether of one thread or of many.
	///
	/// # Errors
	/// The same as [`open`](KvBackedStore::open); [`StoreError::Unavailable`] if the store does not
	/// answer the first read within [`KvOptions::opening_timeout`], with the reason.
	///
	/// # Failure Behavior and Persistence
	/// The same as [`open`](KvBackedStore::open).
	pub fn open_async<K>(kv: K, namespace: &Namespace) -> Result<Self, StoreError>
	where
		K: Deref + Send + Sync + 'static,
		K::Target: KVStore,
	{
		Self::open_async_with(kv, namespace, KvOptions::default())
	}

	/// Opens a store as [`open_async`](KvBackedStore::open_async) does, with options.
	///
	/// # Errors
	/// The same as [`open_async`](KvBackedStore::open_async); [`StoreError::Invalid`] if
	/// [`KvOptions::runtime`] is a runtime of one thread.
	///
	/// # Failure Behavior and Persistence
	/// The same as [`open`](KvBackedStore::open).
	pub fn open_async_with<K>(
		kv: K, namespace: &Namespace, options: KvOptions,
	) -> Result<Self, StoreError>
	where
		K: Deref + Send + Sync + 'static,
		K::Target: KVStore,
	{
		let KvOptions { outages, answer_timeout, opening_timeout, runtime } = options;
		let runtime = match runtime {
			None => Runtime::own(answer_timeout)?,
			Some(handle) => Runtime::of_node(handle, answer_timeout)?,
		};
		let (is_own, blocking) = (runtime.is_own(), runtime.blocking());
		let namespace = namespace.clone();
		let (probed, probe) = mpsc::sync_channel(1);
		let (opened, opening) = mpsc::sync_channel(1);
		// On a thread that is nobody's worker, so that a store that never answers costs a thread and
		// not the caller.
		let thread = std::thread::Builder::new().name("leyden-kvstore-open".to_owned());
		let thread = thread.spawn(move || {
			let kv: Box<dyn Kv> = Box::new(Asynchronous { kv, runtime });
			if probed.send(KvMedium::probe(&*kv, &namespace)).is_ok() {
				let store = KvMedium::open(kv, &namespace);
				let store = store.and_then(|store| Self::start(store, outages));
				// Nobody listens any more if the opening was given up.
				let _ = opened.send(store);
			}
		});
		thread.map_err(|error| StoreError::Unavailable {
			doing: "starting a thread to open the KVStore",
			source: Arc::new(error),
		})?;
		let mut outcome = None;
		let mut wait = || {
			let answered = match probe.recv_timeout(opening_timeout) {
				Ok(answered) => answered,
				Err(RecvTimeoutError::Timeout) => Err(never_answers(opening_timeout, is_own)),
				Err(RecvTimeoutError::Disconnected) => Err(panicked()),
			};
			outcome =
				Some(answered.and_then(|()| opening.recv().unwrap_or_else(|_| Err(panicked()))));
		};
		match blocking {
			Some(blocking) => blocking(&mut wait),
			None => wait(),
		}
		outcome.unwrap_or_else(|| Err(panicked()))
	}

	fn start(
		(mut medium, committer): (KvMedium, Committer), policy: OutagePolicy,
	) -> Result<Self, StoreError> {
		let place = medium.place().to_owned();
		let outages = Outages::new(policy, place.clone());
		medium.wait_for(outages.clone());
		let mut guarantees = Guarantees::embedded("kvstore");
		guarantees.fence = Fence::Process;
		guarantees.group_commit = false;
		let writer = Writer::new(medium, committer, place).with_outages(outages);
		Ok(Self(GroupStore::start(writer, guarantees)?))
	}
}

impl Deref for KvBackedStore {
	type Target = GroupStore<KvMedium>;

	fn deref(&self) -> &GroupStore<KvMedium> {
		&self.0
	}
}

/// Why an opening was given up.
fn never_answers(after: Duration, is_own: bool) -> StoreError {
	let hint = match is_own {
		true => {
			"its futures seem to wait for another runtime, of which a worker waits for this opening: \
			 open it on another thread, or give the store clients of its own"
		},
		false => {
			"the runtime that was given does not run its futures, perhaps because all its workers \
			 wait for something: give none, so that they run on Leyden's own runtime"
		},
	};
	let reason = format!("the KVStore did not answer within {} ms; {hint}", after.as_millis());
	StoreError::Unavailable {
		doing: "opening the KVStore",
		source: Arc::new(std::io::Error::new(std::io::ErrorKind::TimedOut, reason)),
	}
}

fn panicked() -> StoreError {
	let source = Arc::new(std::io::Error::other("the thread that opens it panicked"));
	StoreError::Engine { doing: "opening the KVStore", source }
}
