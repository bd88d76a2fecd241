// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Group commit over a [`Medium`], for backends.
//!
//! A backend says how bytes are read and how many writes become durable at once; a [`GroupStore`]
//! does the rest: it queues requests, decides batches with a [`Committer`](crate::committer),
//! writes all that is waiting in one transaction, and ends the handle when it is not known what is
//! durable. An engine that is away for a while is waited for, if the backend asks for that
//! ([`Writer::with_outages`]).

mod index;
mod outage;
mod portable;
mod queue;
mod reads;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::batch::{Batch, Durability, Op};
use crate::committed::Committed;
use crate::committer::{RawRead, RawWrite};
use crate::error::StoreError;
use crate::guarantees::Guarantees;
use crate::key::{Key, KeyRange, Table};
use crate::page::{Page, PageBuilder};
use crate::record::{Epoch, Record};
use crate::store::Store;
use crate::sync::thread::{self, JoinHandle};
use crate::ticket::{Help, Ticket};

pub use index::KeyIndex;
pub use outage::{
	Asked, Closing, OutagePolicy, Outages, Pauser, StoreEvent, StoreObserver, SystemPauser,
	DEFAULT_OUTAGE_TOLERANCE, FIRST_PAUSE, LONGEST_PAUSE, TRY_COUNTS_AT_MOST,
};
#[cfg(feature = "fuzz")]
pub(crate) use portable::STORED as PORTABLE_STORED;
pub use portable::{MoveMark, Portable};
use queue::{Job, Shared};
pub use queue::{Stats, MAX_WAITING};
use reads::Read;
pub use writer::Writer;

/// Runs a wait of a thread that may be a worker of an async runtime; see [`Medium::blocking`].
pub type Blocking = Arc<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

/// Opens another medium for the same records, which is only read; see [`Medium::beside`].
pub type Beside<M> = Box<dyn Fn() -> Result<M, StoreError> + Send + Sync>;

/// An engine below: reads bytes, and writes many at once. Only one thread uses it at a time.
pub trait Medium: RawRead + Send + 'static {
	/// How many writes it takes at once. A batch that is more is refused; batches that are more
	/// together go one after the other.
	const MAX_WRITES: usize = usize::MAX;

	/// Adds records to `page` in the direction of `range`, until the page is full or the range ends.
	///
	/// # Errors
	/// The engine's, and those of [`PageBuilder::push_frame`].
	fn scan(&mut self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError>;

	/// Writes all of these or none, each key at most once.
	///
	/// # Errors
	/// [`StoreError::Indeterminate`] if it is not known which of the two happened: that ends the
	/// handle. On any other error nothing was written.
	///
	/// # Failure Behavior and Persistence
	/// With [`Durability::Sync`], the writes are durable when it returns `Ok`. With
	/// [`Durability::Lazy`] they are lost only together with everything that is written later.
	fn write(&mut self, writes: Vec<RawWrite>, durability: Durability) -> Result<(), StoreError>;

	/// The names of the tables that have records, in order.
	///
	/// # Errors
	/// The engine's; [`StoreError::Invalid`] for one that cannot tell.
	fn tables(&mut self) -> Result<Vec<String>, StoreError> {
		Err(StoreError::invalid("this engine cannot list its tables"))
	}

	/// Told before a group is decided what its batches are, so that an engine that is far away can
	/// fetch at once what will be asked for; and with no batches when it is decided.
	///
	/// # Errors
	/// The engine's.
	fn foresee(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
		let _ = batches;
		Ok(())
	}

	/// Told when a group is over that [`foresee`](Medium::foresee) has begun, whether it was written
	/// or not: an engine that decides and writes in one transaction ends it here, if
	/// [`write`](Medium::write) has not.
	///
	/// # Errors
	/// [`StoreError::Indeterminate`] if that fails.
	fn group_over(&mut self) -> Result<(), StoreError> {
		Ok(())
	}

	/// Checks what is below the records: pages, their order, their links. Returns what is wrong, in
	/// the engine's words; nothing for an engine that cannot tell.
	///
	/// # Errors
	/// The engine's.
	fn check(&mut self) -> Result<Vec<String>, StoreError> {
		Ok(Vec::new())
	}

	/// Makes a copy of everything in the database, all namespaces of it, as of one moment, in the
	/// file at `to`, which is there and empty. The copy is not flushed.
	///
	/// # Errors
	/// The engine's; [`StoreError::Invalid`] for one that cannot.
	fn copy_to(&mut self, to: &Path) -> Result<(), StoreError> {
		let _ = to;
		Err(StoreError::invalid("this engine makes no copies; use its own tools for a backup"))
	}

	/// Moves what is in a log beside the database into the database; see
	/// [`Store::checkpoint`].
	///
	/// # Errors
	/// The engine's.
	fn checkpoint(&mut self) -> Result<(), StoreError> {
		Ok(())
	}

	/// Returns the function that opens further media for reads while this one is written, so that no
	/// read waits behind a flush; `None` for an engine that cannot read beside a write. Such a
	/// medium sees all that is durable and nothing else, and fails without doing harm.
	fn beside(&self) -> Option<Beside<Self>>
	where
		Self: Sized,
	{
		None
	}

	/// Returns whether a thread that waits for its ticket may use the medium itself. `false` for a
	/// medium that runs futures: the waiting thread may be a worker of an async runtime. The commit
	/// thread does everything then.
	fn takes_help(&self) -> bool {
		true
	}

	/// Returns the function in which every wait of a caller runs, for a medium whose progress
	/// depends on a runtime of which the caller may be a worker.
	fn blocking(&self) -> Option<Blocking> {
		None
	}
}

/// The records that deciding these batches will ask for, as far as that is known before; for
/// [`Medium::foresee`].
pub fn foreseen(batches: &[Batch]) -> impl Iterator<Item = &Key> {
	let ops = batches.iter().flat_map(Batch::ops).filter_map(|op| match op {
		Op::Append { once, .. } => once.as_ref(),
		Op::DeleteOnce { once, .. } => Some(once),
		_ => None,
	});
	ops.chain(batches.iter().flat_map(Batch::expectations).map(|(key, _)| key))
}

/// A medium with a queue in front of it: a [`Store`]. A backend's own type holds one and derefs to
/// it.
pub struct GroupStore<M: Medium> {
	shared: Arc<Shared<M>>,
	guarantees: Guarantees,
	epoch: Option<Epoch>,
	thread: Option<JoinHandle<()>>,
}

impl<M: Medium> GroupStore<M> {
	/// Starts the commit thread, which is named after the engine, of which the guarantees are.
	///
	/// # Errors
	/// [`StoreError::Moved`] if the records of the namespace are moving or have moved;
	/// [`StoreError::Unavailable`] if the system has no thread; the engine's.
	pub fn start(mut writer: Writer<M>, guarantees: Guarantees) -> Result<Self, StoreError> {
		if let (Some(_), Some(mark)) = (writer.epoch(), MoveMark::read(writer.medium())?) {
			return Err(StoreError::Moved { mark, place: writer.place().to_owned() });
		}
		Self::start_to_move(writer, guarantees)
	}

	/// As [`start`](GroupStore::start), for who moves the records.
	///
	/// # Errors
	/// As there, without `Moved`.
	pub fn start_to_move(writer: Writer<M>, guarantees: Guarantees) -> Result<Self, StoreError> {
		let epoch = writer.epoch();
		let shared = Arc::new(Shared::new(writer));
		let worker = Arc::clone(&shared);
		let thread = thread::Builder::new().name(format!("leyden-{}", guarantees.name));
		let thread = thread.spawn(move || worker.work()).map_err(|error| {
			StoreError::Unavailable { doing: "starting the commit thread", source: Arc::new(error) }
		})?;
		Ok(Self { shared, guarantees, epoch, thread: Some(thread) })
	}

	/// The epoch of this handle; `None` if it only reads.
	pub fn epoch(&self) -> Option<Epoch> {
		self.epoch
	}

	/// What was done so far.
	pub fn stats(&self) -> Stats {
		self.shared.stats()
	}

	/// Uses the medium between two groups; `None` once the store is closed. For tests that do what
	/// a medium does by itself.
	pub fn with_medium<T>(&self, f: impl FnOnce(&mut M) -> T) -> Option<T> {
		self.shared.with_writer(|writer| f(writer.medium()))
	}

	/// Uses a medium that is open beside this one, so that commits go on meanwhile, or this one.
	fn with_reader<T>(
		&self, f: impl FnOnce(&mut M) -> Result<T, StoreError>,
	) -> Result<T, StoreError> {
		self.shared.readers.check_ended()?;
		match self.with_medium(|medium| medium.beside()).flatten() {
			Some(beside) => f(&mut beside()?),
			None => self.with_medium(f).unwrap_or_else(|| Err(StoreError::invalid("it is closed"))),
		}
	}
}

impl<M: Medium> Store for GroupStore<M> {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		match batch.check() {
			Ok(()) => self.shared.submit(|completer| Job::Commit(batch, completer)),
			Err(error) => Ticket::ready(Err(error)),
		}
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		let key = key.clone();
		self.shared.read(|completer| Read::Get(key, completer))
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.shared.read(|completer| Read::Scan(range, limit, completer))
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		let key = key.clone();
		self.shared.read(|completer| Read::Raw(key, completer))
	}

	fn guarantees(&self) -> Guarantees {
		self.guarantees
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		self.shared.add_observer(observer);
		true
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		Help::block(&*self.shared, wait);
	}

	fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
		self.with_reader(|medium| medium.copy_to(to))
	}

	fn checkpoint(&self) -> Result<(), StoreError> {
		self.with_medium(M::checkpoint).unwrap_or(Ok(()))
	}
}

impl<M: Medium> Portable for GroupStore<M> {
	fn tables(&self) -> Result<Vec<Table>, StoreError> {
		let names = self.with_medium(M::tables).unwrap_or_else(|| Ok(Vec::new()))?;
		names.iter().map(|name| Table::interned(name)).collect()
	}

	fn check(&self) -> Result<Vec<String>, StoreError> {
		self.with_reader(M::check)
	}

	fn import(&self, writes: Vec<RawWrite>) -> Result<(), StoreError> {
		let written = self.with_medium(|medium| medium.write(writes, Durability::Sync));
		written.unwrap_or_else(|| Err(StoreError::invalid("the store is closed")))
	}
}

impl<M: Medium> Drop for GroupStore<M> {
	/// Finishes what was submitted first; then the medium is free for others. A hook that drops the
	/// last handle does not wait for that.
	fn drop(&mut self) {
		if !self.shared.close() {
			return;
		}
		let mut thread = self.thread.take();
		self.shared.block(&mut || {
			if let Some(thread) = thread.take() {
				// It does not panic; if it did, there would be nothing left to do here.
				let _ = thread.join();
			}
		});
		self.shared.release();
	}
}

impl<M: Medium> fmt::Debug for GroupStore<M> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("GroupStore").field("epoch", &self.epoch).finish_non_exhaustive()
	}
}
