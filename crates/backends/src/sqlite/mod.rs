// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Records in a SQLite database.
//!
//! # What is promised
//! A batch is on the medium when its ticket resolves: `journal_mode=WAL` and `synchronous=FULL`, so
//! every group of commits ends with a flush. Everything that waits while one flush is under way
//! shares the next. One process has the database: `locking_mode=EXCLUSIVE` keeps a second one out,
//! and the epoch fences what a file lock does not.
//!
//! # What a crash does
//! SQLite recovers the database at the next opening: every acknowledged batch is there, and of one
//! that was under way all or nothing.
//!
//! # What is not promised
//! Nothing that the medium does not keep. After a flush that failed the handle is poisoned, since
//! the kernel may have dropped the pages: a second flush would succeed and mean nothing.
//!
//! # A database that is not ours
//! is left as it is: another application id, tables without one, or a newer version is an error. A
//! file that is empty, or was being created when the process died, becomes a store.

mod engine;
mod errors;
mod queue;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use leyden_store::{
	Batch, Committed, Epoch, Guarantees, Key, KeyRange, Namespace, Page, Record, Store, StoreError,
	Ticket,
};

use engine::Engine;
use queue::Shared;

pub use engine::{APPLICATION_ID, FORMAT};
pub use queue::{Stats, MAX_WAITING};

/// A [`Store`] in a SQLite database.
pub struct SqliteStore {
	shared: Arc<Shared>,
	epoch: Option<Epoch>,
	thread: Option<JoinHandle<()>>,
}

impl SqliteStore {
	/// Opens `namespace` in the database at `path`, which is created if there is none.
	///
	/// # Errors
	/// [`StoreError::Locked`] if another process has it, [`StoreError::NotAStore`] and
	/// [`StoreError::Newer`] if it is not ours, [`StoreError::ReadOnly`], [`StoreError::NoSpace`].
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the epoch is raised: nothing that an older handle commits from then on is
	/// written. A crash before that leaves the database as it was, or one that opens.
	pub fn open(path: impl AsRef<Path>, namespace: Namespace) -> Result<Self, StoreError> {
		let (engine, epoch) = Engine::open(path.as_ref(), namespace)?;
		Self::start(engine, Some(epoch))
	}

	/// Opens `namespace` to be read only. Nothing is written, and the epoch stays as it is.
	///
	/// # Errors
	/// As [`open`](SqliteStore::open); [`StoreError::NotAStore`] also if there is no file.
	pub fn open_read_only(
		path: impl AsRef<Path>, namespace: Namespace,
	) -> Result<Self, StoreError> {
		Self::start(Engine::open_read_only(path.as_ref(), namespace)?, None)
	}

	/// The namespaces in the database at `path`. Nothing is written.
	///
	/// # Errors
	/// As [`open_read_only`](SqliteStore::open_read_only).
	pub fn namespaces(path: impl AsRef<Path>) -> Result<Vec<Namespace>, StoreError> {
		Engine::open_read_only(path.as_ref(), Namespace::default())?.namespaces()
	}

	/// The epoch of this handle; `None` if it only reads.
	pub fn epoch(&self) -> Option<Epoch> {
		self.epoch
	}

	/// What was done so far.
	pub fn stats(&self) -> Stats {
		self.shared.stats()
	}

	/// Makes the next flush fail, as a medium does that lost its connection.
	#[cfg(feature = "fault-injection")]
	pub fn fail_next_flush(&self) {
		self.shared.with_engine(|engine| engine.fail_next_flush = true);
	}

	/// Runs SQL on the database, to damage it or to limit it.
	///
	/// # Errors
	/// SQLite's.
	#[cfg(feature = "fault-injection")]
	pub fn tamper(&self, sql: &str) -> Result<(), StoreError> {
		self.shared.with_engine(|engine| engine.tamper(sql)).unwrap_or(Ok(()))
	}

	/// Changes the bytes of the record at `key`, the way a failing disk does.
	///
	/// # Errors
	/// SQLite's.
	#[cfg(feature = "fault-injection")]
	pub fn damage(
		&self, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		self.shared.with_engine(|engine| engine.damage(key, change)).unwrap_or(Ok(false))
	}

	fn start(engine: Engine, epoch: Option<Epoch>) -> Result<Self, StoreError> {
		let shared = Arc::new(Shared::new(engine));
		let worker = Arc::clone(&shared);
		let thread = std::thread::Builder::new().name("leyden-sqlite".to_owned());
		let thread = thread.spawn(move || worker.work()).map_err(|error| {
			StoreError::Unavailable { doing: "starting the commit thread", source: Arc::new(error) }
		})?;
		Ok(Self { shared, epoch, thread: Some(thread) })
	}
}

impl Store for SqliteStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		match batch.check() {
			Ok(()) => self.shared.submit(|completer| queue::Job::Commit(batch, completer)),
			Err(error) => Ticket::ready(Err(error)),
		}
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		let key = key.clone();
		self.shared.submit(|completer| queue::Job::Get(key, completer))
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.shared.submit(|completer| queue::Job::Scan(range, limit, completer))
	}

	fn guarantees(&self) -> Guarantees {
		Guarantees::embedded("sqlite")
	}
}

impl Drop for SqliteStore {
	/// What was submitted is finished first; then the database is free for others.
	fn drop(&mut self) {
		self.shared.close();
		if let Some(thread) = self.thread.take() {
			// It does not panic; if it did, there would be nothing left to do here.
			let _ = thread.join();
		}
		self.shared.release();
	}
}

impl fmt::Debug for SqliteStore {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("SqliteStore").field("epoch", &self.epoch).finish_non_exhaustive()
	}
}
