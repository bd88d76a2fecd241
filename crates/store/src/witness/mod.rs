// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is known outside of a database about how far it was.
//!
//! A database that was restored from an older copy looks like any other: nothing in it tells that
//! payments were sent and events acked since. A [`Witness`] is kept outside of it, and remembers how
//! far it was. A database that is behind its witness is not opened.
//!
//! # What is noticed
//! - A database that lacks any commit which the witness knows of. While the store is in use, the
//!   witness is a fifth of a second behind, or less.
//! - Another database in the place of this one, or an empty one.
//! - A copy that was made while the store ran and is opened where no witness is. Such a copy is the
//!   past: a backup, the file without its log, or a store that was moved without its witness after a
//!   crash.
//!
//! # What is not
//! - A copy that is put back together with its witness, as that of a whole disk.
//! - What was lost of the last fifth of a second before a crash.
//!
//! Accepting an older database ([`accept`]) draws a new identity for it, by which logs, outboxes and
//! payouts know that it was restored: cursors of others are refused, and nothing is paid before
//! somebody has looked.

mod file;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use file::FileWitness;
#[cfg(feature = "fuzz")]
pub(crate) use file::{mark_bytes, read_mark};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Durability, MAX_BATCH_BYTES, MAX_BATCH_OPS};
use crate::codec;
use crate::committed::Committed;
use crate::error::StoreError;
use crate::group::{StoreEvent, StoreObserver};
use crate::guarantees::Guarantees;
use crate::key::{Key, KeyRange, Table};
use crate::page::Page;
use crate::record::Record;
use crate::store::Store;
use crate::ticket::Ticket;

const WITNESS: Table = Table::new("_witness");
/// More than a key takes in a batch.
const KEY_BYTES: usize = 256;
/// More than a mark takes in a batch.
const MARK_BYTES: usize = 1024;
/// The pause between two things that a witness is told.
const PAUSE: Duration = Duration::from_millis(100);

/// The progress of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HistoryMark {
	/// The identity of the database, drawn when it was first witnessed and when it was accepted.
	pub history: [u8; 16],
	/// The number of times that it was marked.
	pub number: u64,
}

/// A memory outside of a database: a file beside it, or a better place, such as another disk or
/// machine. It holds one [`HistoryMark`].
pub trait Witness: Send + Sync {
	/// Returns the newest mark; `None` if there is none, or none that can be read.
	///
	/// # Errors
	/// The place's, if it cannot be asked at all.
	fn newest(&self) -> io::Result<Option<HistoryMark>>;

	/// Remembers a mark in place of the last one. It need not survive a loss of power at once.
	///
	/// # Errors
	/// The place's. The store goes on.
	fn remember(&self, mark: &HistoryMark) -> io::Result<()>;

	/// Returns the name of the place, for errors.
	fn place(&self) -> String;
}

/// The answer of a witness when a store was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Witnessed {
	/// The database is as new as its witness knows.
	Confirmed,
	/// The database had no history yet.
	New,
	/// There was no witness, and the database had been closed: it was moved, or its witness is lost.
	Missing,
}

/// The record in the database.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct WitnessV1 {
	history: [u8; 16],
	number: u64,
	/// A flag that the store is in use, or was when its process ended.
	open: bool,
	/// The number of times that an older database was accepted.
	restorations: u32,
}

crate::stored! {
	WitnessV1 = 0x0006,
}

/// Returns how often an older database was accepted in this store's place. What remembers another
/// number is of a database that was restored since.
///
/// # Errors
/// The store's, and [`StoreError::Corrupt`] for a damaged record.
pub fn restorations(store: &dyn Store) -> Result<u32, StoreError> {
	Ok(read(store)?.map_or(0, |record| record.restorations))
}

/// Compares a database with its witness, and changes nothing.
///
/// # Errors
/// [`StoreError::Restored`] if the database is older than its witness knows, another one, or a copy of
/// one that was in use; the store's; [`StoreError::Engine`] if the witness cannot be asked.
pub fn check<S: Store + ?Sized>(store: &S, witness: &dyn Witness) -> Result<Witnessed, StoreError> {
	let known = witness.newest().map_err(|error| failed(witness, error))?;
	compare(read(store)?, known)
		.map_err(|reason| StoreError::Restored { witness: witness.place(), reason })
}

/// Tells a witness of a database that is known to be the newest: it was moved.
///
/// # Errors
/// The store's; [`StoreError::Engine`] if the witness does not take the mark.
pub fn introduce<S: Store + ?Sized>(store: &S, witness: &dyn Witness) -> Result<(), StoreError> {
	let Some(WitnessV1 { history, number, .. }) = read(store)? else { return Ok(()) };
	witness.remember(&HistoryMark { history, number }).map_err(|error| failed(witness, error))
}

/// Accepts a database that is older than its witness, or another one: it gets a new identity, and so
/// do the logs and outboxes in it when they are opened next.
///
/// # Errors
/// The store's; [`StoreError::Engine`] if the witness does not take the mark.
///
/// # Failure Behavior and Persistence
/// When it returns, the store opens. A crash before that leaves it refused as it was.
pub fn accept(store: &dyn Store, witness: &dyn Witness) -> Result<(), StoreError> {
	let found = read(store)?;
	let restorations = found.map_or(0, |found| found.restorations).saturating_add(1);
	// How it was left stays as it is: a copy of a store in use is checked when it is opened.
	let open = found.is_some_and(|found| found.open);
	let record = WitnessV1 { history: draw()?, number: 1, open, restorations };
	write(store, record)?;
	let mark = HistoryMark { history: record.history, number: record.number };
	witness.remember(&mark).map_err(|error| failed(witness, error))
}

/// A store with a witness.
pub struct WitnessedStore {
	inner: Arc<dyn Store>,
	shared: Arc<Shared>,
	said: Witnessed,
	/// A flag that the last process ended without closing the store.
	was_left_open: bool,
	/// What is told to each observer first.
	told_first: Mutex<Vec<StoreEvent>>,
	thread: Option<JoinHandle<()>>,
}

struct Shared {
	store: Arc<dyn Store>,
	witness: Box<dyn Witness>,
	/// A flag that the witness took a mark when the store was opened.
	takes_marks: bool,
	/// The newest record that was submitted.
	newest: Mutex<WitnessV1>,
	/// A flag that the next batch that is flushed takes a mark along.
	due: AtomicBool,
	/// A flag that something was flushed without one.
	missed: AtomicBool,
	told: Mutex<Told>,
	/// A flag that the store is closed as one that is in use.
	stays_open: AtomicBool,
	changed: Condvar,
	/// The number of the newest mark that the witness was told, and its last error.
	remembered: Mutex<(u64, Option<String>)>,
	observers: Mutex<Vec<StoreObserver>>,
}

#[derive(Default)]
struct Told {
	/// The number of a mark that is durable in the database, to be remembered.
	number: Option<u64>,
	closing: bool,
}

impl WitnessedStore {
	/// Opens a store, unless it is older than its witness.
	///
	/// # Errors
	/// [`StoreError::Restored`]; the store's; [`StoreError::Engine`] if the witness cannot be asked.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the database is marked and its witness knows. A crash before that leaves a
	/// store that opens.
	pub fn open(store: Arc<dyn Store>, witness: Box<dyn Witness>) -> Result<Self, StoreError> {
		let said = check(&*store, &*witness)?;
		let found = match read(&*store)? {
			Some(found) => found,
			None => {
				let new = WitnessV1 { history: draw()?, number: 1, open: false, restorations: 0 };
				write(&*store, new)?;
				new
			},
		};
		// The database is ahead of what the witness is told here. If it takes no marks, the store must
		// not be refused after a crash because there is no witness.
		let takes_marks = introduce(&*store, &*witness).is_ok();
		let record =
			WitnessV1 { number: found.number.saturating_add(1), open: takes_marks, ..found };
		write(&*store, record)?;
		// A copy of the database without its log shows then that it is one. If that fails, less is
		// noticed, and nothing is lost.
		let _ = store.checkpoint();
		let shared = Arc::new(Shared {
			store: Arc::clone(&store),
			witness,
			takes_marks,
			newest: Mutex::new(record),
			due: AtomicBool::new(true),
			missed: AtomicBool::new(false),
			told: Mutex::default(),
			stays_open: AtomicBool::new(false),
			changed: Condvar::new(),
			remembered: Mutex::default(),
			observers: Mutex::default(),
		});
		shared.remember(record.number);
		let of_thread = Arc::clone(&shared);
		let thread = std::thread::Builder::new()
			.name("leyden-witness".to_owned())
			.spawn(move || of_thread.run())
			.map_err(|error| StoreError::Engine {
				doing: "starting the witness's thread",
				source: Arc::new(error),
			})?;
		Ok(Self {
			inner: store,
			shared,
			said,
			was_left_open: found.open,
			told_first: Mutex::default(),
			thread: Some(thread),
		})
	}

	/// Returns `true` if the last process ended without closing the store: it died, or lost the store.
	pub fn was_left_open(&self) -> bool {
		self.was_left_open
	}

	/// Has every observer hear of an event before all others. While nobody has heard of damage, the store
	/// is not closed in order: the next opening finds it as after a crash.
	pub fn tell_first(&self, event: StoreEvent) {
		self.told_first.lock().push(event);
	}

	/// Returns what the witness has said at the opening.
	pub fn witnessed(&self) -> Witnessed {
		self.said
	}

	/// Returns the last error of the witness, which is behind since then; `None` if it is well.
	pub fn witness_failure(&self) -> Option<String> {
		self.shared.remembered.lock().1.clone()
	}

	/// Marks the database and tells the witness, without waiting for its turn: before a copy is made
	/// of which the witness is to know.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, a database without any commit from before is known to be older.
	pub fn catch_up(&self) -> Result<(), StoreError> {
		self.shared.catch_up(self.shared.takes_marks)
	}
}

impl Store for WitnessedStore {
	fn commit(&self, mut batch: Batch) -> Ticket<Committed> {
		if batch.required_durability() != Durability::Sync {
			return self.inner.commit(batch);
		}
		let parts = batch.ops().len() + batch.expectations().len();
		// Keys count, too.
		let bytes = batch.bytes().saturating_add(parts * KEY_BYTES + MARK_BYTES);
		let is_full = parts >= MAX_BATCH_OPS || bytes > MAX_BATCH_BYTES;
		if is_full || !self.shared.due.swap(false, Ordering::SeqCst) {
			self.shared.missed.store(true, Ordering::SeqCst);
			return self.inner.commit(batch);
		}
		let Some(mut newest) = self.shared.newest.try_lock() else {
			// Another mark is being made, perhaps by the caller of a hook that commits.
			self.shared.missed.store(true, Ordering::SeqCst);
			self.shared.due.store(true, Ordering::SeqCst);
			return self.inner.commit(batch);
		};
		newest.number = newest.number.saturating_add(1);
		let (shared, number) = (Arc::clone(&self.shared), newest.number);
		let marking = Marking { shared, number, is_done: false };
		match codec::encode(&*newest) {
			Ok(value) => batch.put(key(), value),
			Err(_) => return self.inner.commit(batch),
		};
		batch.after_commit(move |_| marking.done());
		// Under the lock: the order of the numbers is that of the commits.
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.inner.get(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.inner.scan(range, limit)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.inner.get_raw(key)
	}

	fn guarantees(&self) -> Guarantees {
		let inner = self.inner.guarantees();
		// A batch may take a mark along.
		Guarantees { max_writes: inner.max_writes.saturating_sub(1), ..inner }
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		let first = self.told_first.lock().clone();
		first.iter().for_each(|event| observer(event));
		if self.said == Witnessed::Missing {
			observer(&StoreEvent::WitnessMissing { place: self.shared.witness.place() });
		}
		if let Some(error) = self.witness_failure() {
			let place = self.shared.witness.place();
			observer(&StoreEvent::WitnessFailed { place, error });
		}
		self.shared.observers.lock().push(Arc::clone(&observer));
		self.inner.observe(observer);
		true
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		self.inner.block(wait);
	}

	fn copy_to(&self, to: &std::path::Path) -> Result<(), StoreError> {
		self.inner.copy_to(to)
	}

	fn checkpoint(&self) -> Result<(), StoreError> {
		self.inner.checkpoint()
	}
}

impl Drop for WitnessedStore {
	/// Marks the database as closed. What fails here leaves it as after a crash.
	fn drop(&mut self) {
		// Damage that nobody has heard of is found again at the next opening.
		let is_damage = |event: &StoreEvent| matches!(event, StoreEvent::DamageFound { .. });
		let is_heard = !self.told_first.lock().iter().any(is_damage)
			|| !self.shared.observers.lock().is_empty();
		self.shared.stays_open.store(!is_heard, Ordering::SeqCst);
		self.shared.told.lock().closing = true;
		self.shared.changed.notify_all();
		let closed = self.shared.catch_up(false);
		// The hook of a batch may drop the last handle. It must not wait for a thread that waits for
		// the store; the thread ends by itself.
		if matches!(closed, Err(StoreError::Indeterminate { .. })) {
			return;
		}
		let mut thread = self.thread.take();
		self.inner.block(&mut || {
			if let Some(thread) = thread.take() {
				let _ = thread.join();
			}
		});
	}
}

impl Shared {
	fn run(&self) {
		loop {
			let mut told = self.told.lock();
			while told.number.is_none() && !told.closing {
				self.changed.wait(&mut told);
			}
			if told.closing {
				return;
			}
			let number = told.number.take();
			drop(told);
			if let Some(number) = number {
				self.remember(number);
			}
			if self.pause() {
				return;
			}
			self.due.store(true, Ordering::SeqCst);
			// What was flushed meanwhile has no mark. The next batch takes one along; if none comes,
			// it gets one of its own.
			if !self.missed.swap(false, Ordering::SeqCst) {
				continue;
			}
			if self.pause() {
				return;
			}
			if self.due.load(Ordering::SeqCst) {
				let _ = self.catch_up(self.takes_marks);
			}
		}
	}

	/// Waits; `true` if the store closes.
	fn pause(&self) -> bool {
		let mut told = self.told.lock();
		if !told.closing {
			self.changed.wait_for(&mut told, PAUSE);
		}
		told.closing
	}

	fn catch_up(&self, open: bool) -> Result<(), StoreError> {
		let (ticket, number) = {
			let mut newest = self.newest.lock();
			newest.number = newest.number.saturating_add(1);
			newest.open = match self.told.lock().closing {
				true => self.stays_open.load(Ordering::SeqCst),
				false => open,
			};
			let mut batch = Batch::new();
			batch.put(key(), codec::encode(&*newest)?);
			(self.store.commit(batch), newest.number)
		};
		ticket.wait()?;
		self.remember(number);
		Ok(())
	}

	fn remember(&self, number: u64) {
		let history = self.newest.lock().history;
		let mut remembered = self.remembered.lock();
		if number <= remembered.0 {
			return;
		}
		let error = self.witness.remember(&HistoryMark { history, number }).err();
		let was_well = remembered.1.is_none();
		*remembered = (number, error.map(|error| error.to_string()));
		let failed = remembered.1.clone().filter(|_| was_well);
		drop(remembered);
		if let Some(error) = failed {
			let event = StoreEvent::WitnessFailed { place: self.witness.place(), error };
			let observers = self.observers.lock().clone();
			observers.iter().for_each(|observer| observer(&event));
		}
	}
}

/// A batch that takes a mark along. Dropped without being committed, the next one does.
struct Marking {
	shared: Arc<Shared>,
	number: u64,
	is_done: bool,
}

impl Marking {
	fn done(mut self) {
		self.shared.told.lock().number = Some(self.number);
		self.shared.changed.notify_all();
		self.is_done = true;
	}
}

impl Drop for Marking {
	fn drop(&mut self) {
		if !self.is_done {
			self.shared.due.store(true, Ordering::SeqCst);
		}
	}
}

/// Compares a database with its witness.
fn compare(
	found: Option<WitnessV1>, known: Option<HistoryMark>,
) -> Result<Witnessed, &'static str> {
	match (found, known) {
		(None, None) => Ok(Witnessed::New),
		(None, Some(_)) => Err("it has no history, and its witness knows one"),
		(Some(found), None) if found.open => {
			Err("it is a copy that was made while the store ran, or was moved after a crash, and there \
			     is no witness of it")
		},
		(Some(_), None) => Ok(Witnessed::Missing),
		(Some(found), Some(known)) if found.history != known.history => {
			Err("it is another database than the one that the witness knows")
		},
		(Some(found), Some(known)) if found.number < known.number => {
			Err("it lacks what was committed last")
		},
		(Some(_), Some(_)) => Ok(Witnessed::Confirmed),
	}
}

fn key() -> Key {
	Key::new(WITNESS, *b"state")
}

fn read<S: Store + ?Sized>(store: &S) -> Result<Option<WitnessV1>, StoreError> {
	let key = key();
	store.get(&key).wait()?.map(|record| codec::decode(&key, &record)).transpose()
}

fn write(store: &dyn Store, record: WitnessV1) -> Result<(), StoreError> {
	let mut batch = Batch::new();
	batch.put(key(), codec::encode(&record)?);
	store.commit(batch).wait().map(|_| ())
}

fn draw() -> Result<[u8; 16], StoreError> {
	// Seeded by the operating system, and different for every call.
	use std::hash::{BuildHasher, Hasher};
	let half = || std::hash::RandomState::new().build_hasher().finish().to_be_bytes();
	let mut history = [0; 16];
	history.iter_mut().zip([half(), half()].concat()).for_each(|(to, from)| *to = from);
	Ok(history)
}

fn failed(witness: &dyn Witness, error: io::Error) -> StoreError {
	let error = io::Error::new(error.kind(), format!("{}: {error}", witness.place()));
	StoreError::Engine { doing: "asking the witness of the store", source: Arc::new(error) }
}

impl fmt::Debug for WitnessedStore {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("WitnessedStore").field("said", &self.said).finish_non_exhaustive()
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::{MemoryMedium, MemoryStore, Namespace, Value};

	/// A witness in memory, which can be broken.
	#[derive(Clone, Default)]
	struct Known(Arc<Mutex<(Option<HistoryMark>, bool)>>, Arc<Condvar>);

	impl Witness for Known {
		fn newest(&self) -> io::Result<Option<HistoryMark>> {
			Ok(self.0.lock().0)
		}

		fn remember(&self, mark: &HistoryMark) -> io::Result<()> {
			let mut known = self.0.lock();
			if known.1 {
				return Err(io::Error::other("it is broken"));
			}
			known.0 = Some(*mark);
			self.1.notify_all();
			Ok(())
		}

		fn place(&self) -> String {
			"memory".to_owned()
		}
	}

	fn store(medium: &MemoryMedium) -> Arc<dyn Store> {
		Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap())
	}

	fn open(medium: &MemoryMedium, known: &Known) -> Result<WitnessedStore, StoreError> {
		WitnessedStore::open(store(medium), Box::new(known.clone()))
	}

	fn put(store: &dyn Store, number: u64) {
		let mut batch = Batch::new();
		let key = Key::new(Table::new("t"), number.to_be_bytes());
		batch.put(key, Value::new(crate::RecordType(0x8000), 1, vec![1]));
		store.commit(batch).wait().unwrap();
	}

	fn reason(opened: Result<WitnessedStore, StoreError>) -> &'static str {
		match opened {
			Err(StoreError::Restored { reason, .. }) => reason,
			other => panic!("{other:?}"),
		}
	}

	/// Ends a process: what it had open is left as it is.
	fn crash(store: WitnessedStore) {
		store.shared.told.lock().closing = true;
		store.shared.changed.notify_all();
		let mut store = store;
		if let Some(thread) = store.thread.take() {
			thread.join().unwrap();
		}
		std::mem::forget(store);
	}

	#[test]
	fn a_database_that_goes_on_is_opened_whatever_ends_its_process() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		let first = open(&medium, &known).unwrap();
		assert_eq!(first.witnessed(), Witnessed::New);
		for n in 0..100 {
			put(&first, n);
		}
		crash(first);
		let second = open(&medium, &known).unwrap();
		assert_eq!(second.witnessed(), Witnessed::Confirmed);
		drop(second);
		assert_eq!(open(&medium, &known).unwrap().witnessed(), Witnessed::Confirmed);
	}

	#[test]
	fn a_database_that_lacks_a_commit_is_refused_until_it_is_accepted() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		let opened = open(&medium, &known).unwrap();
		put(&opened, 1);
		opened.catch_up().unwrap();
		let older = medium.snapshot();
		put(&opened, 2);
		opened.catch_up().unwrap();
		crash(opened);
		assert_eq!(reason(open(&older, &known)), "it lacks what was committed last");
		// What is refused is left as it is.
		assert_eq!(reason(open(&older, &known)), "it lacks what was committed last");
		accept(&*store(&older), &known).unwrap();
		let accepted = open(&older, &known).unwrap();
		assert_eq!(restorations(&accepted).unwrap(), 1);
		drop(accepted);
		// The newer one is another database now.
		assert!(reason(open(&medium, &known)).starts_with("it is another database"));
		accept(&*store(&medium), &known).unwrap();
		assert_eq!(open(&medium, &known).unwrap().witnessed(), Witnessed::Confirmed);
	}

	/// A copy of before the last closing, however little was done since.
	#[test]
	fn every_opening_and_closing_is_known() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		drop(open(&medium, &known).unwrap());
		let closed = medium.snapshot();
		let opened = open(&medium, &known).unwrap();
		let copied = medium.snapshot();
		assert_eq!(reason(open(&closed, &known)), "it lacks what was committed last");
		drop(opened);
		assert_eq!(reason(open(&copied, &known)), "it lacks what was committed last");
	}

	#[test]
	fn a_copy_of_a_store_in_use_is_no_store_without_its_witness() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		let opened = open(&medium, &known).unwrap();
		let copy = medium.snapshot();
		assert!(reason(open(&copy, &Known::default())).starts_with("it is a copy"));
		drop(opened);
		// Closed in order, it may be moved.
		let moved = open(&medium.snapshot(), &Known::default()).unwrap();
		assert_eq!(moved.witnessed(), Witnessed::Missing);
		let told = Arc::new(Mutex::new(Vec::new()));
		let telling = Arc::clone(&told);
		moved.observe(Arc::new(move |event: &StoreEvent| telling.lock().push(event.to_string())));
		assert!(told.lock()[0].starts_with("there was no witness"), "{:?}", told.lock());
	}

	#[test]
	fn an_empty_database_in_the_place_of_another_is_refused() {
		let known = Known::default();
		drop(open(&MemoryMedium::new(), &known).unwrap());
		assert_eq!(
			reason(open(&MemoryMedium::new(), &known)),
			"it has no history, and its witness knows one"
		);
	}

	/// A commit is known to the witness soon after, also one that took no mark along, and without
	/// another one behind it.
	#[test]
	fn what_is_committed_is_known_soon() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		let opened = open(&medium, &known).unwrap();
		put(&opened, 1);
		put(&opened, 2);
		let of_copy = read(&opened).unwrap().unwrap().number;
		let older = medium.snapshot();
		put(&opened, 3);
		// Until the witness is ahead of the copy.
		let mut newest = known.0.lock();
		while newest.0.unwrap().number <= of_copy {
			let waited = known.1.wait_for(&mut newest, Duration::from_secs(30));
			assert!(!waited.timed_out(), "nobody tells the witness");
		}
		drop(newest);
		crash(opened);
		assert_eq!(reason(open(&older, &known)), "it lacks what was committed last");
	}

	#[test]
	fn a_witness_is_told_of_no_older_mark() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		let opened = open(&medium, &known).unwrap();
		opened.shared.remember(50);
		opened.shared.remember(49);
		assert_eq!(known.0.lock().0.unwrap().number, 50);
	}

	/// A store that crashed must open without a witness where none can be kept.
	#[test]
	fn a_store_whose_witness_cannot_be_kept_is_opened_after_a_crash() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		known.0.lock().1 = true;
		for round in 0..3 {
			let opened = open(&medium, &known).unwrap();
			assert!(opened.witness_failure().is_some());
			put(&opened, 1);
			if round == 1 {
				opened.catch_up().unwrap();
			}
			crash(opened);
		}
		known.0.lock().1 = false;
		crash(open(&medium, &known).unwrap());
		assert_eq!(open(&medium, &known).unwrap().witnessed(), Witnessed::Confirmed);
	}

	#[test]
	fn marks_ride_along_and_are_made_again_if_their_batch_is_refused() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		let opened = open(&medium, &known).unwrap();
		let number = || read(&opened).unwrap().unwrap().number;
		let before = number();
		let mut refused = Batch::new();
		refused.expect(Key::new(Table::new("t"), *b"k"), crate::Expectation::Present);
		refused.put(
			Key::new(Table::new("t"), *b"k"),
			Value::new(crate::RecordType(0x8000), 1, vec![1]),
		);
		assert!(matches!(opened.commit(refused).wait(), Err(StoreError::Conflict { .. })));
		assert_eq!(number(), before);
		put(&opened, 1);
		assert!(number() > before, "the next batch takes a mark along");
	}

	#[test]
	fn a_witness_that_fails_is_told_of_and_stops_nothing() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		let opened = open(&medium, &known).unwrap();
		let told = Arc::new(Mutex::new(Vec::new()));
		let telling = Arc::clone(&told);
		opened.observe(Arc::new(move |event: &StoreEvent| telling.lock().push(event.to_string())));
		known.0.lock().1 = true;
		put(&opened, 1);
		opened.catch_up().unwrap();
		opened.catch_up().unwrap();
		assert_eq!(told.lock().len(), 1, "{:?}", told.lock());
		assert!(opened.witness_failure().unwrap().contains("broken"));
		known.0.lock().1 = false;
		opened.catch_up().unwrap();
		assert_eq!(opened.witness_failure(), None);
	}

	#[test]
	fn a_witness_that_never_took_a_mark_is_told_of_to_who_listens_later() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		known.0.lock().1 = true;
		let opened = open(&medium, &known).unwrap();
		let told = Arc::new(Mutex::new(Vec::new()));
		let telling = Arc::clone(&told);
		opened.observe(Arc::new(move |event: &StoreEvent| telling.lock().push(event.to_string())));
		assert!(told.lock()[0].contains("takes no marks"), "{:?}", told.lock());
	}

	#[test]
	fn a_batch_that_is_full_takes_no_mark_along() {
		let (medium, known) = (MemoryMedium::new(), Known::default());
		let opened = open(&medium, &known).unwrap();
		let mut batch = Batch::new();
		batch.expect(Key::new(Table::new("t"), *b"k"), crate::Expectation::Absent);
		for n in 1..MAX_BATCH_OPS as u64 {
			let key = Key::new(Table::new("t"), n.to_be_bytes());
			batch.put(key, Value::new(crate::RecordType(0x8000), 1, vec![1]));
		}
		opened.commit(batch).wait().unwrap();
	}

	/// The bytes on users' disks.
	#[test]
	fn golden_bytes() {
		let record = WitnessV1 { history: [1; 16], number: 2, open: true, restorations: 3 };
		let body = codec::encode(&record).unwrap().body;
		let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
		assert_eq!(hex, format!("{}00000000000000020100000003", "01".repeat(16)));
	}
}
