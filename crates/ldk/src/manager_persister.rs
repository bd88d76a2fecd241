// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The one place where the `ChannelManager` is written.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use leyden_store::{block_on, Store, Ticket};
use lightning::io;
use lightning::util::persist::{
	KVStore, KVStoreSync, MigratableKVStore, MigratableKVStoreSync, PageToken, PaginatedKVStore,
	PaginatedKVStoreSync, PaginatedListResponse, CHANNEL_MANAGER_PERSISTENCE_KEY,
	CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
};
use parking_lot::Mutex;

use crate::error::to_io;
use crate::manager_record::{JournaledV1, ManagersV1};
use crate::monitor::gate::Gate;
use crate::pending_appends::PendingAppends;
use crate::persist_tracker::{ManagerPersistTracker, Marks};
use crate::turns::{Turn, Turns};

/// A `KVStore` (or `KVStoreSync`) around the node's own, through which the `ChannelManager` is
/// written: by the background processor, which is given the persister in place of the store, and by
/// Leyden, where the manager must be durable before an event counts as handled.
///
/// # What is promised
/// - The manager in the store never goes back: bytes that were encoded before another write began
///   are encoded again, so that older bytes never land after newer ones.
/// - The manager is not written before everything that the journal was handed is durable: bytes
///   from which an event is gone never precede the event's entry.
/// - Once it is written, the tracker's listeners hear of it.
///
/// Everything else that is read or written goes straight to the node's store.
///
/// # The background processor's writes lag by one
/// The background processor encodes the manager and then calls `write`; what is handed out between
/// the two is not in the bytes. So when such a write is done, only what was handed out before the
/// *previous* write was called is settled. What stays un-acked for one write longer is replayed
/// after a crash, into a manager that has it, and does no harm.
pub struct ManagerPersister<K> {
	kv: K,
	shared: Arc<Shared>,
}

pub(crate) struct Shared {
	store: Arc<dyn Store>,
	tracker: OnceLock<ManagerPersistTracker>,
	appends: PendingAppends,
	encode: OnceLock<Encode>,
	written: OnceLock<Written>,
	gate: OnceLock<Arc<Gate>>,
	state: Mutex<State>,
	turns: Turns,
}

type Encode = Box<dyn Fn() -> Vec<u8> + Send + Sync>;
/// Called after each write of the manager.
type Written = Box<dyn Fn() + Send + Sync>;

struct State {
	managers: ManagersV1,
	/// The marks when the background processor last called `write`.
	called: Marks,
	/// Leyden has written the manager since.
	has_written: bool,
	/// The manager that the node starts from.
	loaded: Option<Vec<u8>>,
}

/// A manager that is to be written, in its turn.
struct Writing {
	bytes: Vec<u8>,
	settles: Marks,
}

impl<K> ManagerPersister<K> {
	fn new(
		kv: K, store: Arc<dyn Store>, appends: PendingAppends, loaded: Option<Vec<u8>>,
	) -> Result<Self, io::Error> {
		let managers = ManagersV1::read(&*store).map_err(to_io)?;
		let called = Marks::default();
		let state = Mutex::new(State { managers, called, has_written: false, loaded });
		let (tracker, encode, written) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
		let (gate, turns) = (OnceLock::new(), Turns::default());
		let shared = Shared { store, tracker, appends, encode, written, gate, state, turns };
		Ok(Self { kv, shared: Arc::new(shared) })
	}

	/// The node's own store.
	pub fn inner(&self) -> &K {
		&self.kv
	}

	pub(crate) fn shared(&self) -> &Arc<Shared> {
		&self.shared
	}
}

impl<K: Deref> ManagerPersister<K>
where
	K::Target: KVStoreSync,
{
	/// Reads the manager that the node starts from.
	pub(crate) fn open(
		kv: K, store: Arc<dyn Store>, appends: PendingAppends,
	) -> Result<Self, io::Error> {
		let (primary, secondary, key) = MANAGER;
		let loaded = found(KVStoreSync::read(&*kv, primary, secondary, key))?;
		Self::new(kv, store, appends, loaded)
	}

	/// Encodes the manager and writes it.
	///
	/// # Errors
	/// An `io::Error` if the manager cannot be written, or the journal cannot.
	///
	/// # Failure Behavior and Persistence
	/// When it returns `Ok`, a manager that was encoded after the call is durable. If the process
	/// dies before that, the old manager is, or the new one.
	pub fn persist(&self) -> Result<(), io::Error> {
		let _turn = block_on(&*self.shared.store, self.shared.turns.take());
		self.shared.appends.wait().map_err(log_to_io)?;
		let writing = self.shared.encode()?;
		self.write_in_turn(writing)
	}

	fn write_in_turn(&self, writing: Writing) -> Result<(), io::Error> {
		// And what was handled since, which a manager that was encoded anew has let go of.
		self.shared.appends.wait().map_err(log_to_io)?;
		// Without a record an event that LDK brings again may be a second entry. That is no reason
		// to leave the manager unwritten.
		let _ = self.shared.record(&writing).wait();
		let (primary, secondary, key) = MANAGER;
		KVStoreSync::write(&*self.kv, primary, secondary, key, writing.bytes)?;
		// The manager is durable, whatever becomes of the acks: to answer an error would make LDK
		// believe that it is not.
		let _ = self.shared.settle(&writing.settles).wait();
		Ok(())
	}
}

impl<K: Deref> ManagerPersister<K>
where
	K::Target: KVStore,
{
	/// Opens a persister as [`open`](ManagerPersister::open) does, for a store with futures.
	pub(crate) async fn open_async(
		kv: K, store: Arc<dyn Store>, appends: PendingAppends,
	) -> Result<Self, io::Error> {
		let (primary, secondary, key) = MANAGER;
		let loaded = found(KVStore::read(&*kv, primary, secondary, key).await)?;
		Self::new(kv, store, appends, loaded)
	}
}

impl<K: Deref + Clone + Send + Sync + 'static> ManagerPersister<K>
where
	K::Target: KVStore,
{
	/// Persists the manager as [`persist`](ManagerPersister::persist) does, in a store with
	/// futures.
	///
	/// # Errors
	/// The same as [`persist`](ManagerPersister::persist).
	///
	/// # Failure Behavior and Persistence
	/// The same as [`persist`](ManagerPersister::persist).
	pub fn persist_async(
		&self,
	) -> impl Future<Output = Result<(), io::Error>> + Send + 'static + use<K> {
		let turn = self.shared.turns.take();
		let (kv, shared) = (self.kv.clone(), Arc::clone(&self.shared));
		async move {
			let turn = turn.await;
			shared.appends.durable().await.map_err(log_to_io)?;
			let writing = shared.encode()?;
			write_in_turn(kv, shared, writing, turn).await
		}
	}
}

async fn write_in_turn<K: Deref>(
	kv: K, shared: Arc<Shared>, writing: Writing, _turn: Turn,
) -> Result<(), io::Error>
where
	K::Target: KVStore,
{
	shared.appends.durable().await.map_err(log_to_io)?;
	// As above.
	let _ = shared.record(&writing).await;
	let (primary, secondary, key) = MANAGER;
	KVStore::write(&*kv, primary, secondary, key, writing.bytes).await?;
	// As above.
	let _ = shared.settle(&writing.settles).await;
	Ok(())
}

impl Shared {
	/// Gives the persister what exists only once the manager was read.
	pub(crate) fn attach(
		&self, tracker: ManagerPersistTracker, encode: Encode, written: Written, gate: Arc<Gate>,
	) {
		self.state.lock().called = tracker.marks();
		let _ = self.tracker.set(tracker);
		let _ = self.encode.set(encode);
		let _ = self.written.set(written);
		let _ = self.gate.set(gate);
	}

	/// The manager that the node starts from, and what the journal held when it was written.
	pub(crate) fn take_loaded(&self) -> Option<(Vec<u8>, Option<JournaledV1>)> {
		let mut state = self.state.lock();
		let bytes = state.loaded.take()?;
		let journaled = state.managers.journaled(&bytes);
		Some((bytes, journaled))
	}

	fn marks(&self) -> Marks {
		self.tracker.get().map_or_else(Marks::default, ManagerPersistTracker::marks)
	}

	/// Encodes the manager, for Leyden.
	fn encode(&self) -> Result<Writing, io::Error> {
		let Some(encode) = self.encode.get() else {
			let why = "the manager is not attached yet: call `start` first";
			return Err(io::Error::new(io::ErrorKind::Other, why));
		};
		self.state.lock().has_written = true;
		let settles = self.marks();
		Ok(Writing { bytes: encode(), settles })
	}

	/// Takes bytes that the background processor has encoded, or encodes anew: if Leyden has
	/// written the manager since, or if requests were acked, whose answers the bytes may lack.
	fn take_bytes(&self, bytes: Vec<u8>) -> Writing {
		let has_news = self.tracker.get().is_some_and(ManagerPersistTracker::wants_newer_bytes);
		let marks = self.marks();
		let mut state = self.state.lock();
		let lagging = std::mem::replace(&mut state.called, marks.clone());
		let is_old = std::mem::take(&mut state.has_written) || has_news;
		match (is_old, self.encode.get()) {
			(true, Some(encode)) => {
				drop(state);
				Writing { bytes: encode(), settles: marks }
			},
			_ => Writing { bytes, settles: lagging },
		}
	}

	/// Remembers what the journal holds before the manager is written.
	fn record(&self, writing: &Writing) -> Ticket<()> {
		// Read first: what is journaled meanwhile may be in the bytes.
		let newest = self.appends.newest();
		let tracker = self.tracker.get();
		let expected = tracker.map_or_else(Vec::new, ManagerPersistTracker::expected);
		let gone_below = tracker.map_or(0, |tracker| tracker.gone_below(&writing.settles));
		let gone_below = gone_below.min(newest.saturating_add(1));
		let journaled = JournaledV1 { newest, gone_below, expected };
		match self.state.lock().managers.writing(&writing.bytes, journaled) {
			Ok(plan) => plan.commit(&self.store),
			Err(error) => Ticket::ready(Err(error)),
		}
	}

	/// The background processor has written the manager: what has waited for LDK is tried again.
	fn after_write(&self) {
		if let Some(written) = self.written.get() {
			written();
		}
	}

	fn settle(&self, settles: &Marks) -> Ticket<()> {
		match self.tracker.get() {
			Some(tracker) => tracker.settle(settles),
			None => Ticket::ready(Ok(())),
		}
	}
}

const MANAGER: (&str, &str, &str) = (
	CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
	CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
	CHANNEL_MANAGER_PERSISTENCE_KEY,
);

fn found(read: Result<Vec<u8>, io::Error>) -> Result<Option<Vec<u8>>, io::Error> {
	match read {
		Ok(bytes) => Ok(Some(bytes)),
		Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
		Err(error) => Err(error),
	}
}

fn log_to_io(error: leyden_log::LogError) -> io::Error {
	io::Error::new(io::ErrorKind::Other, error.to_string())
}

impl<K: Deref> KVStoreSync for ManagerPersister<K>
where
	K::Target: KVStoreSync,
{
	fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
		self.kv.read(primary, secondary, key)
	}

	/// # Failure Behavior and Persistence
	/// That of the store below. If the manager was written and what that settles was not, this is
	/// `Ok`: a later write settles it. An error of the journal is an error of the write, and then
	/// the manager was not written: the background processor ends with it, and the node stops.
	fn write(
		&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>,
	) -> Result<(), io::Error> {
		if (primary, secondary, key) != MANAGER {
			return self.kv.write(primary, secondary, key, buf);
		}
		// The background processor flushes the monitors on this thread once this returns.
		if let Some(gate) = self.shared.gate.get() {
			gate.manager_written();
		}
		let turn = block_on(&*self.shared.store, self.shared.turns.take());
		// What was handled before is settled by this write, or by the next.
		self.shared.appends.wait().map_err(log_to_io)?;
		let writing = self.shared.take_bytes(buf);
		self.write_in_turn(writing)?;
		drop(turn);
		self.shared.after_write();
		Ok(())
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> Result<(), io::Error> {
		self.kv.remove(primary, secondary, key, lazy)
	}

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		self.kv.list(primary, secondary)
	}
}

impl<K: Deref> PaginatedKVStoreSync for ManagerPersister<K>
where
	K::Target: PaginatedKVStoreSync,
{
	fn list_paginated(
		&self, primary: &str, secondary: &str, page_token: Option<PageToken>,
	) -> Result<PaginatedListResponse, io::Error> {
		self.kv.list_paginated(primary, secondary, page_token)
	}
}

impl<K: Deref> MigratableKVStoreSync for ManagerPersister<K>
where
	K::Target: MigratableKVStoreSync,
{
	fn list_all_keys(&self) -> Result<Vec<(String, String, String)>, io::Error> {
		self.kv.list_all_keys()
	}
}

/// A node whose store has futures wants the persister in an `Arc`, as any other store.
impl<K: Deref + Clone + Send + Sync + 'static> KVStore for ManagerPersister<K>
where
	K::Target: KVStore,
{
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		self.kv.read(primary, secondary, key)
	}

	/// # Failure Behavior and Persistence
	/// As for the synchronous one.
	fn write(
		&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		// Both in the call, as LDK's contract has it: the order of writes is the order of the
		// calls.
		let work = if (primary, secondary, key) == MANAGER {
			Err((self.shared.turns.take(), self.kv.clone(), Arc::clone(&self.shared), buf))
		} else {
			Ok(self.kv.write(primary, secondary, key, buf))
		};
		async move {
			match work {
				Ok(write) => write.await,
				Err((turn, kv, shared, buf)) => {
					let turn = turn.await;
					shared.appends.durable().await.map_err(log_to_io)?;
					let writing = shared.take_bytes(buf);
					write_in_turn(kv, Arc::clone(&shared), writing, turn).await?;
					shared.after_write();
					Ok(())
				},
			}
		}
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		self.kv.remove(primary, secondary, key, lazy)
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		self.kv.list(primary, secondary)
	}
}

impl<K: Deref + Clone + Send + Sync + 'static> PaginatedKVStore for ManagerPersister<K>
where
	K::Target: PaginatedKVStore,
{
	fn list_paginated(
		&self, primary: &str, secondary: &str, page_token: Option<PageToken>,
	) -> impl Future<Output = Result<PaginatedListResponse, io::Error>> + 'static + Send {
		self.kv.list_paginated(primary, secondary, page_token)
	}
}

impl<K: Deref + Clone + Send + Sync + 'static> MigratableKVStore for ManagerPersister<K>
where
	K::Target: MigratableKVStore,
{
	fn list_all_keys(
		&self,
	) -> impl Future<Output = Result<Vec<(String, String, String)>, io::Error>> + 'static + Send {
		self.kv.list_all_keys()
	}
}

impl<K> fmt::Debug for ManagerPersister<K> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("ManagerPersister")
	}
}

#[cfg(test)]
mod tests {
	use std::sync::atomic::{AtomicU64, Ordering};

	use leyden_log::{EventLog, LogOptions};
	use leyden_store::{ManualClock, MemoryStore, Plan};
	use leyden_testkit::MemKv;

	use super::*;
	use crate::persist_tracker::ManagerPersistListener;

	/// A part that hands something to the manager now and then.
	#[derive(Default)]
	struct Part {
		handed_out: AtomicU64,
		settled: AtomicU64,
	}

	impl ManagerPersistListener for Part {
		fn mark(&self) -> u64 {
			self.handed_out.load(Ordering::SeqCst)
		}

		fn settle_plan(&self, _: u64) -> Option<Plan<()>> {
			Some(Plan::of(leyden_store::Batch::new()))
		}

		fn settled(&self, mark: u64) {
			self.settled.store(mark, Ordering::SeqCst);
		}
	}

	/// The background processor encodes the manager and then writes it; what is handed out between
	/// the two is not in the bytes.
	#[test]
	fn a_write_settles_what_was_handed_out_before_the_last_one_was_called() {
		let store: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
		let clock = Arc::new(ManualClock::default());
		let log = EventLog::open(Arc::clone(&store), "events", clock, LogOptions::default());
		let appends = PendingAppends::new(log.unwrap());
		let kv = Arc::new(MemKv::new());
		let persister = ManagerPersister::open(kv, Arc::clone(&store), appends).unwrap();
		let part = Arc::new(Part::default());
		let tracker = ManagerPersistTracker::new(store, [Arc::<Part>::clone(&part) as _]);
		let encode = Box::new(|| vec![7]);
		persister.shared().attach(tracker, encode, Box::new(|| ()), Arc::default());
		let settled_after = |key: &str| {
			KVStoreSync::write(&persister, "", "", key, vec![1]).unwrap();
			part.settled.load(Ordering::SeqCst)
		};
		part.handed_out.store(3, Ordering::SeqCst);
		assert_eq!(settled_after(CHANNEL_MANAGER_PERSISTENCE_KEY), 0, "may have come after encode");
		assert_eq!(settled_after("something_else"), 0);
		part.handed_out.store(5, Ordering::SeqCst);
		assert_eq!(settled_after(CHANNEL_MANAGER_PERSISTENCE_KEY), 3);
		assert_eq!(settled_after(CHANNEL_MANAGER_PERSISTENCE_KEY), 5);
		// Leyden's own writes encode after the marks were taken.
		part.handed_out.store(8, Ordering::SeqCst);
		persister.persist().unwrap();
		assert_eq!(part.settled.load(Ordering::SeqCst), 8);
		assert_eq!(KVStoreSync::read(&persister, "", "", "something_else").unwrap(), [1]);
	}
}
