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
//! an operator has looked.

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
	/// The events that each observer is told first.
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
		let max_writes = inner.max_writes.saturating_sub(1);
		// A database that its witness did not know may be an old copy; and one whose witness takes no marks
		// is not noticed when it is.
		let is_known = matches!(self.said, Witnessed::Confirmed | Witnessed::New);
		let notices_old_copies = is_known && self.shared.takes_marks;
		Guarantees { max_writes, notices_old_copies, ..inner }
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
mod tests;
