// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Records in a redb database: one file, no C.
//!
//! # What is promised
//! As by the SQLite backend: a batch is on the medium when its ticket resolves, everything that
//! waits while one flush is under way shares the next, and one process has the file, by redb's
//! lock.
//!
//! # What a crash does
//! redb goes back to the newest transaction whose checksums hold. With one flush per transaction
//! (the default) that is the last one acknowledged, or one after it. [`RedbOptions::two_phase`]
//! takes a second flush for each, and no checksum has to be trusted.
//!
//! # After an error
//! of the medium, a full one too, the handle is over: redb says so, and so do we. Open it again once
//! there is space; nothing that was acknowledged is lost.
//!
//! # A file that is being created
//! is made under another name, and gets its own only when it is a store: a crash before that leaves
//! nothing that could not be opened.
//!
//! # Which compiler
//! redb 4.4 is the first with the repairs to recovery that we rely on, and wants a newer compiler
//! than the rest of Leyden (1.90).

mod check;
mod engine;
mod errors;
mod file;

use std::ops::Deref;
use std::path::Path;

use leyden_store::group::{GroupStore, Writer};
use leyden_store::{Guarantees, Namespace, StoreError};

use engine::Engine;

pub use engine::FORMAT;

const GUARANTEES: Guarantees = Guarantees::embedded("redb");

/// How a database is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedbOptions {
	/// Flush twice for every group: first what was written, then that it counts. Twice the cost on a
	/// real disk; for those who do not want to rely on a 128-bit checksum that nobody can forge by
	/// chance.
	pub two_phase: bool,
}

/// A [`Store`](leyden_store::Store) in a redb database.
#[derive(Debug)]
pub struct RedbStore(GroupStore<Engine>);

impl RedbStore {
	/// Opens `namespace` in the database at `path`, which is created if there is none.
	///
	/// # Errors
	/// [`StoreError::Locked`] if it is open already, [`StoreError::NotAStore`] and
	/// [`StoreError::Newer`] if it is not ours, [`StoreError::ReadOnly`], [`StoreError::NoSpace`].
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the epoch is raised. A crash before that leaves the database as it was, or
	/// none.
	pub fn open(
		path: impl AsRef<Path>, namespace: Namespace, options: RedbOptions,
	) -> Result<Self, StoreError> {
		let writer = Engine::open(path.as_ref(), namespace, options)?;
		Ok(Self(GroupStore::start(writer, GUARANTEES)?))
	}

	/// Opens `namespace` to move its records, also if they are moving already.
	///
	/// # Errors
	/// As [`open`](RedbStore::open).
	///
	/// # Failure Behavior and Persistence
	/// As [`open`](RedbStore::open).
	pub fn open_to_move(
		path: impl AsRef<Path>, namespace: Namespace, options: RedbOptions,
	) -> Result<Self, StoreError> {
		let writer = Engine::open(path.as_ref(), namespace, options)?;
		Ok(Self(GroupStore::start_to_move(writer, GUARANTEES)?))
	}

	/// Opens `namespace` to be read only. Nothing is written, and the epoch stays as it is.
	///
	/// # Errors
	/// As [`open`](RedbStore::open); [`StoreError::NotAStore`] also if there is no file, and
	/// [`StoreError::Unavailable`] if its node died and has not repaired it since.
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
	/// As [`open_read_only`](RedbStore::open_read_only).
	pub fn namespaces(path: impl AsRef<Path>) -> Result<Vec<Namespace>, StoreError> {
		Engine::open_read_only(path.as_ref(), Namespace::default())?.namespaces()
	}

	/// How often the file was flushed so far, by redb's own doing too.
	pub fn flushes(&self) -> u64 {
		self.0.with_medium(|engine| engine.flushes()).unwrap_or_default()
	}

	/// Makes the next flush fail, as a medium does that lost its connection.
	#[cfg(feature = "fault-injection")]
	pub fn fail_next_flush(&self) {
		self.0.with_medium(|engine| engine.fail_next_flush());
	}

	/// Changes the bytes of the record at `key`, the way a failing disk does.
	///
	/// # Errors
	/// redb's.
	#[cfg(feature = "fault-injection")]
	pub fn damage(
		&self, key: &leyden_store::Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		self.0.with_medium(|engine| engine.damage(key, change)).unwrap_or(Ok(false))
	}
}

impl Deref for RedbStore {
	type Target = GroupStore<Engine>;

	fn deref(&self) -> &GroupStore<Engine> {
		&self.0
	}
}
