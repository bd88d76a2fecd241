//! A store that dies on purpose, and the harness that lets it die everywhere.
//!
//! A scenario that makes N commits is run 2N times, dying before and after each of them. [`Doom`]
//! says when, and is shared by everything of one process that must die together: the store, and a
//! node's [`NodeDisk`](crate::NodeDisk). The proof is only worth something if the harness can fail,
//! so there is a [`LossyMedium`] that acknowledges before it keeps, and on which the same scenario
//! must report losses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use leyden_store::group::StoreObserver;
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, MemoryMedium, MemoryStore, Namespace, Page,
	Record, Store, StoreError, Table, Ticket,
};

use crate::disk::{DiskWrite, Fate};

/// On which side of a write the process dies.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
	/// The write is lost.
	Before,
	/// The write is there, but nobody learns.
	After,
}

/// When a process dies, over all its lives; it dies once.
#[derive(Debug)]
pub struct Doom {
	at: Option<(u64, Side)>,
	armed: AtomicBool,
	writes: AtomicU64,
	struck: AtomicBool,
}

impl Doom {
	/// Never: to count the writes.
	pub fn never() -> Arc<Self> {
		Self::new(None)
	}

	/// At this write, counted from zero.
	pub fn at(write: u64, side: Side) -> Arc<Self> {
		Self::new(Some((write, side)))
	}

	fn new(at: Option<(u64, Side)>) -> Arc<Self> {
		let (armed, struck) = (AtomicBool::new(true), AtomicBool::new(false));
		Arc::new(Self { at, armed, writes: AtomicU64::new(0), struck })
	}

	/// Counts, and strikes, only from [`arm`](Doom::arm) on.
	pub fn disarm(&self) {
		self.armed.store(false, Ordering::SeqCst);
	}

	/// Counts from now on.
	pub fn arm(&self) {
		self.armed.store(true, Ordering::SeqCst);
	}

	/// How many writes were counted.
	pub fn writes(&self) -> u64 {
		self.writes.load(Ordering::SeqCst)
	}

	/// Whether the process has died.
	pub fn has_struck(&self) -> bool {
		self.struck.load(Ordering::SeqCst)
	}

	/// A write is about to happen: what becomes of it?
	pub fn next(&self) -> Option<Side> {
		if !self.armed.load(Ordering::SeqCst) {
			return None;
		}
		let write = self.writes.fetch_add(1, Ordering::SeqCst);
		let (at, side) = self.at?;
		if write != at || self.struck.swap(true, Ordering::SeqCst) {
			return None;
		}
		Some(side)
	}

	/// The same, as a [`NodeDisk`](crate::NodeDisk) asks it.
	pub fn fate(&self, _: &DiskWrite) -> Fate {
		match self.next() {
			None => Fate::Live,
			Some(Side::Before) => Fate::DieBefore,
			Some(Side::After) => Fate::DieAfter,
		}
	}
}

/// What is done with the store after a commit.
type Look = Box<dyn Fn(&Arc<dyn Store>) + Send + Sync>;

/// A store that dies when its [`Doom`] says so. What is asked of it after that answers an error and
/// runs no hook.
pub struct FaultyStore {
	/// `None` once it is dead: a dead process holds no files.
	inner: Mutex<Option<Arc<dyn Store>>>,
	guarantees: Guarantees,
	doom: Arc<Doom>,
	dead: AtomicBool,
	on_death: Box<dyn Fn() + Send + Sync>,
	/// Commits are one at a time, so that a death falls between two of them and nowhere else.
	one_at_a_time: Mutex<()>,
	after_each: Look,
}

/// The reason that a dead store gives.
pub(crate) const DEAD_STORE: &str = "the process died";

impl FaultyStore {
	/// Around `inner`, which must not answer later than in the call (a memory store, or one that is
	/// waited for).
	pub fn new(inner: Arc<dyn Store>, doom: Arc<Doom>) -> Self {
		Self {
			guarantees: inner.guarantees(),
			inner: Mutex::new(Some(inner)),
			doom,
			dead: AtomicBool::new(false),
			on_death: Box::new(|| ()),
			one_at_a_time: Mutex::new(()),
			after_each: Box::new(|_| ()),
		}
	}

	/// Calls `f` at its death, so that what belongs to the same process dies with it.
	pub fn on_death(mut self, f: impl Fn() + Send + Sync + 'static) -> Self {
		self.on_death = Box::new(f);
		self
	}

	/// Calls `f` with the store after each commit that was applied; for media that keep late, and
	/// for who looks.
	pub fn after_each(mut self, f: impl Fn(&Arc<dyn Store>) + Send + Sync + 'static) -> Self {
		self.after_each = Box::new(f);
		self
	}

	fn alive(&self) -> Option<Arc<dyn Store>> {
		self.inner.lock().unwrap().clone()
	}

	/// Whether it has died.
	pub fn is_dead(&self) -> bool {
		self.dead.load(Ordering::SeqCst)
	}

	/// Its process dies, for another reason than a write.
	pub fn kill(&self) {
		if !self.is_dead() {
			self.die();
		}
	}

	fn die(&self) {
		self.dead.store(true, Ordering::SeqCst);
		drop(self.inner.lock().unwrap().take());
		(self.on_death)();
	}
}

fn dead<T>() -> Ticket<T> {
	Ticket::ready(Err(StoreError::Poisoned { because: DEAD_STORE.to_owned() }))
}

impl Store for FaultyStore {
	fn commit(&self, mut batch: Batch) -> Ticket<Committed> {
		let _one = self.one_at_a_time.lock().unwrap();
		let Some(inner) = self.alive() else { return dead() };
		match self.doom.next() {
			None => {
				let answer = inner.commit(batch).wait();
				if answer.is_ok() {
					(self.after_each)(&inner);
				}
				Ticket::ready(answer)
			},
			Some(Side::Before) => {
				drop(inner);
				self.die();
				dead()
			},
			Some(Side::After) => {
				// A dead process runs no hooks.
				drop(batch.take_hooks());
				let _ = inner.commit(batch).wait();
				drop(inner);
				self.die();
				dead()
			},
		}
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.alive().map_or_else(dead, |inner| inner.get(key))
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.alive().map_or_else(dead, |inner| inner.get_raw(key))
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.alive().map_or_else(dead, |inner| inner.scan(range, limit))
	}

	fn guarantees(&self) -> Guarantees {
		self.guarantees
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		self.alive().is_some_and(|inner| inner.observe(observer))
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		match self.alive() {
			Some(inner) => inner.block(wait),
			None => wait(),
		}
	}
}

/// What processes leave their records on, one after the other.
pub trait Media: Send + Sync {
	/// Opens the store, in a new process.
	fn open(&self) -> Arc<dyn Store>;

	/// A commit was applied.
	fn committed(&self) {}

	/// The process died.
	fn crash(&self) {}
}

/// What a process leaves behind: everything, or (as a negative control) not the last that it was
/// promised.
#[derive(Clone)]
pub struct LossyMedium {
	live: Arc<Mutex<MemoryMedium>>,
	kept: Arc<Mutex<MemoryMedium>>,
	every: u64,
	commits: Arc<AtomicU64>,
}

impl Media for LossyMedium {
	fn open(&self) -> Arc<dyn Store> {
		let medium = self.live();
		Arc::new(MemoryStore::open(&medium, Namespace::default()).expect("memory opens"))
	}

	fn committed(&self) {
		LossyMedium::committed(self);
	}

	fn crash(&self) {
		LossyMedium::crash(self);
	}
}

impl LossyMedium {
	/// Keeps only every `every`-th commit, with all before it. 1 is an honest medium.
	pub fn keeping_every(every: u64) -> Self {
		Self { every, ..Self::on(MemoryMedium::new()) }
	}

	/// An honest medium with what is on this one.
	pub fn on(live: MemoryMedium) -> Self {
		let kept = Arc::new(Mutex::new(live.snapshot()));
		Self { live: Arc::new(Mutex::new(live)), kept, every: 1, commits: Arc::default() }
	}

	/// What the running process writes to.
	pub fn live(&self) -> MemoryMedium {
		self.live.lock().unwrap().clone()
	}

	/// Puts an older copy in the place of what is there, while no process runs.
	pub fn put_back(&self, copy: &MemoryMedium) {
		*self.live.lock().unwrap() = copy.snapshot();
	}

	/// A commit was applied.
	pub fn committed(&self) {
		if self.commits.fetch_add(1, Ordering::SeqCst) % self.every == self.every - 1 {
			*self.kept.lock().unwrap() = self.live.lock().unwrap().snapshot();
		}
	}

	/// The process died: only what was kept is left.
	pub fn crash(&self) {
		if self.every > 1 {
			*self.live.lock().unwrap() = self.kept.lock().unwrap().snapshot();
		}
	}
}

/// Runs `live` until it ends without its store having died, each time in a new process: at most
/// twice, since there is one death.
pub fn live_through<E: std::fmt::Debug>(
	doom: &Arc<Doom>, media: &Arc<dyn Media>, mut live: impl FnMut(Arc<dyn Store>) -> Result<(), E>,
) {
	for life in 1..=2 {
		let keeps = Arc::clone(media);
		let store = FaultyStore::new(media.open(), Arc::clone(doom));
		let store = Arc::new(store.after_each(move |_| keeps.committed()));
		let ended = live(Arc::<FaultyStore>::clone(&store));
		if !store.is_dead() {
			ended.expect("who does not die gets to the end");
			return;
		}
		assert!(life < 2, "one death, two lives");
		drop(store);
		media.crash();
	}
}

/// How many records a table has.
pub fn count_records(store: &dyn Store, table: &'static str) -> usize {
	let (mut count, mut rest) = (0, Some(KeyRange::all(Table::new(table))));
	while let Some(range) = rest.take() {
		let page = store.scan(range, 1_000).wait().expect("the store scans");
		count += page.records.len();
		rest = page.rest;
	}
	count
}

/// Runs `scenario` once to count its writes, and then twice for each of them, dying before and
/// after it. The scenario must restart what died and run to its end, and check what must hold.
///
/// Answers how many deaths were tried.
pub fn crash_everywhere(mut scenario: impl FnMut(&Arc<Doom>)) -> u64 {
	let never = Doom::never();
	scenario(&never);
	let writes = never.writes();
	assert!(writes > 0, "a scenario that writes nothing proves nothing");
	for write in 0..writes {
		for side in [Side::Before, Side::After] {
			let doom = Doom::at(write, side);
			scenario(&doom);
			assert!(doom.has_struck(), "write {write} of {writes} did not come: not deterministic");
		}
	}
	2 * writes
}
