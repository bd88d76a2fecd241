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
//! shares the next. One handle has a namespace: a lock on a file of its own (`FILE-lock-NAMESPACE`)
//! keeps others out, and every transaction looks at the epoch, which fences what a file lock does
//! not. Anybody may read while a handle writes: `leyden list`, `sqlite3 -readonly`, Litestream.
//! Namespaces of one file have a handle each, in one process or in several, and commit one after the
//! other.
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

use std::ops::Deref;
use std::path::Path;

use leyden_store::group::{GroupStore, Writer};
use leyden_store::{Guarantees, Namespace, StoreError};

use engine::Engine;

pub use engine::{APPLICATION_ID, FORMAT};

const GUARANTEES: Guarantees = Guarantees::embedded("sqlite");

/// A [`Store`](leyden_store::Store) in a SQLite database.
#[derive(Debug)]
pub struct SqliteStore(GroupStore<Engine>);

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
		let writer = Engine::open(path.as_ref(), namespace)?;
		Ok(Self(GroupStore::start(writer, GUARANTEES)?))
	}

	/// Opens `namespace` to move its records, also if they are moving already.
	///
	/// # Errors
	/// As [`open`](SqliteStore::open).
	///
	/// # Failure Behavior and Persistence
	/// As [`open`](SqliteStore::open).
	pub fn open_to_move(path: impl AsRef<Path>, namespace: Namespace) -> Result<Self, StoreError> {
		let writer = Engine::open(path.as_ref(), namespace)?;
		Ok(Self(GroupStore::start_to_move(writer, GUARANTEES)?))
	}

	/// Opens `namespace` to be read only. Nothing is written, and the epoch stays as it is.
	///
	/// # Errors
	/// As [`open`](SqliteStore::open); [`StoreError::NotAStore`] also if there is no file.
	pub fn open_read_only(
		path: impl AsRef<Path>, namespace: Namespace,
	) -> Result<Self, StoreError> {
		let place = path.as_ref().display().to_string();
		let engine = Engine::open_read_only(path.as_ref(), namespace)?;
		Ok(Self(GroupStore::start(Writer::read_only(engine, place), GUARANTEES)?))
	}

	/// The namespaces in the database at `path`. Nothing is written.
	///
	/// # Errors
	/// As [`open_read_only`](SqliteStore::open_read_only).
	pub fn namespaces(path: impl AsRef<Path>) -> Result<Vec<Namespace>, StoreError> {
		Engine::open_read_only(path.as_ref(), Namespace::default())?.namespaces()
	}

	/// Makes the next flush fail, as a medium does that lost its connection.
	#[cfg(feature = "fault-injection")]
	pub fn fail_next_flush(&self) {
		self.0.with_medium(|engine| engine.fail_next_flush = true);
	}

	/// Runs SQL on the database, to damage it or to limit it.
	///
	/// # Errors
	/// SQLite's.
	#[cfg(feature = "fault-injection")]
	pub fn tamper(&self, sql: &str) -> Result<(), StoreError> {
		self.0.with_medium(|engine| engine.tamper(sql)).unwrap_or(Ok(()))
	}

	/// Changes the bytes of the record at `key`, the way a failing disk does.
	///
	/// # Errors
	/// SQLite's.
	#[cfg(feature = "fault-injection")]
	pub fn damage(
		&self, key: &leyden_store::Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		self.0.with_medium(|engine| engine.damage(key, change)).unwrap_or(Ok(false))
	}
}

impl Deref for SqliteStore {
	type Target = GroupStore<Engine>;

	fn deref(&self) -> &GroupStore<Engine> {
		&self.0
	}
}
