// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The database: what is in it, how it is opened, how a group is written.
//!
//! ```text
//! spaces   id INTEGER PRIMARY KEY, ns TEXT, tbl TEXT        a table of a namespace, by number
//! records  space INTEGER, key BLOB, frame BLOB              PRIMARY KEY (space, key), WITHOUT ROWID
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leyden_store::committer::{epoch_key, read_epoch, Committer, RawRead, RawWrite};
use leyden_store::group::{Beside, Medium, Writer};
use leyden_store::page::PageBuilder;
use leyden_store::{Batch, Durability, Epoch, Key, KeyRange, Namespace, StoreError, Table};
use rusqlite::config::DbConfig;
use rusqlite::{params, Connection, Error, OpenFlags, OptionalExtension};

use crate::file_lock::{create_private, FileLock};
use crate::files::{resolve, Files};

use super::errors::{not_written, opening, while_writing};

/// SQLite's `application_id` of our databases: "Lydn".
pub const APPLICATION_ID: i32 = 0x4c79_646e;
/// SQLite's `user_version` of the layout that this version writes, and the newest that it reads.
pub const FORMAT: i32 = 1;

/// The time for which an opening waits for another one of the same file.
const OPENING_WAITS: Duration = Duration::from_secs(2);
/// The time for which a commit waits for one of another namespace of the same file, or for a program that
/// writes to it.
const COMMIT_WAITS: Duration = Duration::from_secs(5);

/// Pages of the log (16 MiB of them) after which they go into the database. Ids are scattered, so
/// the same pages are written again and again; the more of that happens in the log, the less is
/// written in the end. A log of this size costs an opening a few milliseconds.
const PAGES_BETWEEN_CHECKPOINTS: i64 = 4000;
/// Memory for pages, in KiB, whatever the size of the database.
const CACHE_KIB: i64 = 16 << 10;

const SCHEMA: &str = "
	CREATE TABLE spaces (
		id INTEGER PRIMARY KEY, ns TEXT NOT NULL, tbl TEXT NOT NULL, UNIQUE (ns, tbl)
	);
	CREATE TABLE records (
		space INTEGER NOT NULL, key BLOB NOT NULL, frame BLOB NOT NULL, PRIMARY KEY (space, key)
	) WITHOUT ROWID;
";

/// The medium of a store; nothing of it can be used from outside.
pub struct Engine {
	connection: Connection,
	path: PathBuf,
	place: String,
	namespace: Namespace,
	spaces: HashMap<Table, i64>,
	/// Whether `synchronous` is `FULL` now.
	syncing: bool,
	/// The epoch's record as this handle has written it; `None` for one that only reads.
	epoch: Option<Vec<u8>>,
	/// The files that this handle has opened; `None` for one that only reads.
	files: Option<Arc<Files>>,
	/// Held for as long as the handle lives.
	lock: Option<FileLock>,
	#[cfg(feature = "fault-injection")]
	pub(super) fail_next_flush: bool,
}

impl Engine {
	pub(super) fn open(path: &Path, namespace: Namespace) -> Result<Writer<Self>, StoreError> {
		let path = &resolve(path);
		let lock = FileLock::take(path, &format!("lock-{namespace}"), OPENING_WAITS)?;
		// Two namespaces of a new file are not made at the same time.
		let _opening = FileLock::take(path, "lock", OPENING_WAITS)?;
		if !path.exists() {
			// SQLite would create one that everybody can read.
			create_private(path).map_err(|_| opening(path, cannot_open()))?;
		}
		let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
			| OpenFlags::SQLITE_OPEN_CREATE
			| OpenFlags::SQLITE_OPEN_NO_MUTEX;
		let connection = Connection::open_with_flags(path, flags).map_err(|e| opening(path, e))?;
		let mut engine = Self::new(connection, path, namespace);
		engine.lock = Some(lock);
		let committer = engine.begin().map_err(|error| match error {
			// Not even its first page could be read.
			Failed::Sqlite(error) => opening(path, error),
			Failed::Store(error) => error,
		})?;
		let mut log = path.as_os_str().to_owned();
		log.push("-wal");
		engine.files = Some(Arc::new(Files::of(&[path, Path::new(&log)])?));
		let place = engine.place.clone();
		Ok(Writer::new(engine, committer, place))
	}

	pub(super) fn open_read_only(path: &Path, namespace: Namespace) -> Result<Self, StoreError> {
		let place = path.display().to_string();
		if !path.is_file() {
			let reason = if path.is_dir() { "it is a directory" } else { "there is no such file" };
			return Err(StoreError::NotAStore { place, reason: reason.to_owned() });
		}
		let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
		let connection = Connection::open_with_flags(path, flags).map_err(|e| opening(path, e))?;
		connection.busy_timeout(OPENING_WAITS).map_err(|e| opening(path, e))?;
		let engine = Self::new(connection, path, namespace);
		let ours = engine.is_ours().map_err(|error| match error {
			Failed::Sqlite(error) => opening(path, error),
			Failed::Store(error) => error,
		})?;
		if !ours {
			return Err(StoreError::NotAStore { place, reason: "it is empty".to_owned() });
		}
		Ok(engine)
	}

	pub(super) fn namespaces(&self) -> Result<Vec<Namespace>, StoreError> {
		let failed = |error| not_written("listing namespaces", &self.place, error);
		let mut query = self
			.connection
			.prepare("SELECT DISTINCT ns FROM spaces ORDER BY ns")
			.map_err(failed)?;
		let names = query.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
		names.map(|name| Namespace::new(&name.map_err(failed)?)).collect()
	}

	/// Begins a transaction in which nobody else writes.
	fn begin_transaction(&mut self) -> Result<(), StoreError> {
		self.execute("BEGIN IMMEDIATE")
			.map_err(|error| not_written("beginning a transaction", &self.place, error))?;
		self.check_epoch()
	}

	/// Writes all of these in the transaction that the group has begun, or in one of their own.
	fn write_all(&mut self, writes: Vec<RawWrite>) -> Result<(), StoreError> {
		if self.connection.is_autocommit() {
			self.begin_transaction()?;
		}
		self.write_each(writes)?;
		self.flush().map_err(|error| while_writing(&self.place, error))?;
		let Some(Err(moved)) = self.files.as_ref().map(|files| files.check()) else {
			return Ok(());
		};
		// What is in a file without a name must not get into a database that others use meanwhile.
		let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
		let _ = self.connection.set_db_config(keep, true);
		Err(moved)
	}

	/// Looks whether another writer has opened the namespace since: one that got past the lock.
	fn check_epoch(&mut self) -> Result<(), StoreError> {
		let found = self.read(&epoch_key())?;
		if found == self.epoch {
			return Ok(());
		}
		let (ours, found) = (epoch_in(self.epoch.take()), epoch_in(found));
		Err(StoreError::Fenced { ours: ours?, found: found? })
	}

	fn write_each(&mut self, writes: Vec<RawWrite>) -> Result<(), StoreError> {
		for (key, frame) in writes {
			let written = self.write_one(&key, frame);
			written.map_err(|error| while_writing(&self.place, error))?;
		}
		Ok(())
	}

	fn write_one(&mut self, key: &Key, frame: Option<Vec<u8>>) -> Result<(), Error> {
		match frame {
			Some(frame) => {
				let space = self.space_for_writing(key.table())?;
				let mut put = self.connection.prepare_cached(PUT)?;
				put.execute(params![space, key.bytes(), frame])?;
			},
			None => {
				if let Some(space) = self.space(key.table())? {
					let mut delete = self.connection.prepare_cached(DELETE)?;
					delete.execute(params![space, key.bytes()])?;
				}
			},
		}
		Ok(())
	}

	fn flush(&mut self) -> Result<(), Error> {
		self.inject_failure()?;
		self.execute("COMMIT")
	}

	#[cfg_attr(
		not(feature = "fault-injection"),
		allow(clippy::unused_self, clippy::unnecessary_wraps)
	)]
	fn inject_failure(&mut self) -> Result<(), Error> {
		#[cfg(feature = "fault-injection")]
		if std::mem::take(&mut self.fail_next_flush) {
			let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
			return Err(Error::SqliteFailure(failure, Some("injected".to_owned())));
		}
		Ok(())
	}

	/// Takes the transaction back. A transaction that cannot be taken back ends the handle.
	fn roll_back(&mut self, spaces: usize) -> Result<(), StoreError> {
		if self.spaces.len() > spaces {
			// Numbers that this transaction gave are void.
			self.spaces.clear();
		}
		if self.connection.is_autocommit() {
			// SQLite did it by itself.
			return Ok(());
		}
		self.execute("ROLLBACK").map_err(|error| {
			let source = std::sync::Arc::new(error);
			StoreError::Indeterminate { doing: "taking a transaction back", source }
		})
	}

	fn set_syncing(&mut self, sync: bool) -> Result<(), StoreError> {
		if self.syncing != sync {
			let level = if sync { "FULL" } else { "NORMAL" };
			let set = self.connection.pragma_update(None, "synchronous", level);
			set.map_err(|error| not_written("setting synchronous", &self.place, error))?;
			self.syncing = sync;
		}
		Ok(())
	}

	fn space(&mut self, table: Table) -> Result<Option<i64>, Error> {
		if let Some(space) = self.spaces.get(&table) {
			return Ok(Some(*space));
		}
		let mut query = self.connection.prepare_cached(SPACE)?;
		let found = query
			.query_row(params![self.namespace.name(), table.name()], |row| row.get(0))
			.optional()?;
		if let Some(space) = found {
			self.spaces.insert(table, space);
		}
		Ok(found)
	}

	fn space_for_writing(&mut self, table: Table) -> Result<i64, Error> {
		if let Some(space) = self.space(table)? {
			return Ok(space);
		}
		let name = params![self.namespace.name(), table.name()];
		self.connection.execute("INSERT INTO spaces (ns, tbl) VALUES (?1, ?2)", name)?;
		let space = self.connection.last_insert_rowid();
		self.spaces.insert(table, space);
		Ok(space)
	}

	fn execute(&self, sql: &'static str) -> Result<(), Error> {
		self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
	}

	fn new(connection: Connection, path: &Path, namespace: Namespace) -> Self {
		Self {
			connection,
			path: path.to_owned(),
			place: path.display().to_string(),
			namespace,
			spaces: HashMap::new(),
			syncing: false,
			epoch: None,
			files: None,
			lock: None,
			#[cfg(feature = "fault-injection")]
			fail_next_flush: false,
		}
	}

	/// Makes sure that the database is ours, or makes it so, and raises the epoch.
	fn begin(&mut self) -> Result<Committer, Failed> {
		self.connection.busy_timeout(OPENING_WAITS)?;
		let ours = self.is_ours()?;
		self.pragma("journal_mode", "wal")?;
		self.connection.pragma_update(None, "wal_autocheckpoint", PAGES_BETWEEN_CHECKPOINTS)?;
		self.connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
		self.connection.busy_timeout(COMMIT_WAITS)?;
		self.set_syncing(true)?;
		self.execute("BEGIN IMMEDIATE")?;
		match self.create_and_raise(ours) {
			Ok(committer) => {
				self.epoch = self.read(&epoch_key())?;
				self.execute("COMMIT")?;
				Ok(committer)
			},
			Err(error) => {
				self.roll_back(0)?;
				Err(error)
			},
		}
	}

	fn create_and_raise(&mut self, ours: bool) -> Result<Committer, Failed> {
		if !ours {
			self.connection.execute_batch(SCHEMA)?;
			self.connection.pragma_update(None, "application_id", APPLICATION_ID)?;
			self.connection.pragma_update(None, "user_version", FORMAT)?;
		}
		let (committer, writes) = Committer::open(self)?;
		self.write_each(writes)?;
		Ok(committer)
	}

	/// Whether it is a store; `false` if it is nothing yet.
	fn is_ours(&self) -> Result<bool, Failed> {
		let number =
			|name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
		let (id, version) = (number("application_id")?, number("user_version")?);
		let tables =
			self.connection
				.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0))?;
		if id == 0 && version == 0 && tables == 0 {
			return Ok(false);
		}
		let place = self.place.clone();
		if id != APPLICATION_ID {
			let reason = "it is a SQLite database of something else".to_owned();
			return Err(Failed::Store(StoreError::NotAStore { place, reason }));
		}
		if version != FORMAT {
			let number = |n: i32| u32::try_from(n).unwrap_or_default();
			let (found, known) = (number(version), number(FORMAT));
			return Err(Failed::Store(StoreError::Newer { what: place, found, known }));
		}
		Ok(true)
	}

	/// Sets what SQLite may silently refuse, and makes sure that it did not: without either of
	/// these the promises of this module do not hold.
	fn pragma(&self, name: &str, value: &str) -> Result<(), Failed> {
		let mut pragma = self.connection.prepare(&format!("PRAGMA {name} = {value}"))?;
		let mut rows = pragma.query([])?;
		let set: String = rows.next()?.ok_or(Error::QueryReturnedNoRows)?.get(0)?;
		// SQLite answers with a row and writes after it: what goes wrong then comes with the next step.
		while rows.next()?.is_some() {}
		if set.eq_ignore_ascii_case(value) {
			return Ok(());
		}
		let reason = format!("SQLite cannot set {name} to {value} there (it stays {set})");
		Err(Failed::Store(StoreError::NotAStore { place: self.place.clone(), reason }))
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn tamper(&mut self, sql: &str) -> Result<(), StoreError> {
		let done = self.connection.execute_batch(sql);
		done.map_err(|error| not_written("tampering", &self.place, error))
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn damage(
		&mut self, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		let Some(mut frame) = self.read(key)? else { return Ok(false) };
		change(&mut frame);
		let written = self.write_one(key, Some(frame));
		written.map_err(|error| not_written("damaging", &self.place, error))?;
		Ok(true)
	}
}

impl Medium for Engine {
	fn scan(&mut self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError> {
		let space = self.space(range.table());
		let failed = |error| not_written("scanning", &self.place, error);
		let Some(space) = space.map_err(failed)? else { return Ok(()) };
		let sql = match (range.end().is_some(), range.is_reversed()) {
			(true, false) => SCAN_UP_TO,
			(true, true) => SCAN_DOWN_FROM,
			(false, false) => SCAN_UP,
			(false, true) => SCAN_DOWN,
		};
		let mut query = self.connection.prepare_cached(sql).map_err(failed)?;
		let mut rows = match range.end() {
			Some(end) => query.query(params![space, range.start(), end]),
			None => query.query(params![space, range.start()]),
		}
		.map_err(failed)?;
		while !page.is_full() {
			let Some(row) = rows.next().map_err(failed)? else { break };
			let key: Vec<u8> = row.get(0).map_err(failed)?;
			let frame = row.get_ref(1).map_err(failed)?;
			let frame = frame.as_blob().map_err(|e| failed(e.into()))?;
			page.push_frame(Key::new(range.table(), key), frame)?;
		}
		Ok(())
	}

	/// Begins the transaction in which the group is decided and written: one lock for all of it, and
	/// no epoch but ours in it.
	fn foresee(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
		if batches.is_empty() {
			return Ok(());
		}
		// Not to be changed inside of a transaction.
		let sync = batches.iter().any(|batch| batch.required_durability() == Durability::Sync);
		self.set_syncing(sync)?;
		self.begin_transaction()
	}

	fn check(&mut self) -> Result<Vec<String>, StoreError> {
		let failed = |error| not_written("checking the database", &self.place, error);
		let mut query = self.connection.prepare("PRAGMA integrity_check(100)").map_err(failed)?;
		let lines = query.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
		let lines: Result<Vec<_>, _> = lines.collect();
		Ok(lines.map_err(failed)?.into_iter().filter(|line| line != "ok").collect())
	}

	fn copy_to(&mut self, to: &Path) -> Result<(), StoreError> {
		let failed = |error| not_written("copying the database", &self.place, error);
		let to = to.to_str().ok_or_else(|| StoreError::invalid("the path is not UTF-8"))?;
		self.connection.execute("VACUUM INTO ?1", [to]).map_err(failed)?;
		Ok(())
	}

	fn checkpoint(&mut self) -> Result<(), StoreError> {
		// Readers that are in the log keep the rest of it there.
		let checkpointed =
			self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
		checkpointed
			.map_err(|error| not_written("moving the log into the database", &self.place, error))
	}

	/// A connection of its own: in WAL mode it sees the newest commit that is on the medium.
	fn beside(&self) -> Option<Beside<Self>> {
		let (path, namespace) = (self.path.clone(), self.namespace.clone());
		let files = self.files.clone();
		Some(Box::new(move || {
			let beside = Self::open_read_only(&path, namespace.clone())?;
			// It was opened by name: another database may have that name by now.
			files.as_ref().map_or(Ok(()), |files| files.check())?;
			Ok(beside)
		}))
	}

	fn group_over(&mut self) -> Result<(), StoreError> {
		match self.connection.is_autocommit() {
			true => Ok(()),
			false => self.roll_back(self.spaces.len()),
		}
	}

	fn tables(&mut self) -> Result<Vec<String>, StoreError> {
		let failed = |error| not_written("listing tables", &self.place, error);
		let mut query = self
			.connection
			.prepare("SELECT tbl FROM spaces WHERE ns = ?1 ORDER BY tbl")
			.map_err(failed)?;
		let names = query.query_map([self.namespace.name()], |row| row.get(0)).map_err(failed)?;
		names.map(|name| name.map_err(failed)).collect()
	}

	fn write(&mut self, writes: Vec<RawWrite>, durability: Durability) -> Result<(), StoreError> {
		if self.connection.is_autocommit() {
			self.set_syncing(durability == Durability::Sync)?;
		}
		let spaces = self.spaces.len();
		self.write_all(writes).or_else(|error| {
			// Taken back as far as it can be. Whether the medium has it is another question.
			self.roll_back(spaces)?;
			Err(error)
		})
	}
}

impl RawRead for Engine {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		let mut read = || {
			let Some(space) = self.space(key.table())? else { return Ok(None) };
			let mut get = self.connection.prepare_cached(GET)?;
			get.query_row(params![space, key.bytes()], |row| row.get(0)).optional()
		};
		read().map_err(|error| not_written("reading", &self.place, error))
	}

	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		let mut read = || {
			let Some(space) = self.space(table)? else { return Ok(None) };
			let lowest = Key::numbered(table, prefix, 0);
			let highest = Key::numbered(table, prefix, u64::MAX);
			let length = i64::try_from(lowest.bytes().len()).unwrap_or(i64::MAX);
			let mut query = self.connection.prepare_cached(HIGHEST)?;
			let key = query
				.query_row(params![space, lowest.bytes(), highest.bytes(), length], |row| {
					row.get::<_, Vec<u8>>(0)
				})
				.optional()?;
			Ok(key.and_then(|key| Key::new(table, key).number(prefix)))
		};
		read().map_err(|error| not_written("reading", &self.place, error))
	}

	/// Each transaction looks at the epoch itself.
	fn is_shared(&self) -> bool {
		false
	}
}

const GET: &str = "SELECT frame FROM records WHERE space = ?1 AND key = ?2";
const HIGHEST: &str = "SELECT key FROM records
	WHERE space = ?1 AND key >= ?2 AND key <= ?3 AND length(key) = ?4 ORDER BY key DESC LIMIT 1";
const PUT: &str = "INSERT INTO records (space, key, frame) VALUES (?1, ?2, ?3)
	ON CONFLICT (space, key) DO UPDATE SET frame = excluded.frame";
const DELETE: &str = "DELETE FROM records WHERE space = ?1 AND key = ?2";
const SPACE: &str = "SELECT id FROM spaces WHERE ns = ?1 AND tbl = ?2";
const SCAN_UP: &str = "SELECT key, frame FROM records WHERE space = ?1 AND key >= ?2 ORDER BY key";
const SCAN_UP_TO: &str =
	"SELECT key, frame FROM records WHERE space = ?1 AND key >= ?2 AND key < ?3 ORDER BY key";
const SCAN_DOWN: &str =
	"SELECT key, frame FROM records WHERE space = ?1 AND key >= ?2 ORDER BY key DESC";
const SCAN_DOWN_FROM: &str =
	"SELECT key, frame FROM records WHERE space = ?1 AND key >= ?2 AND key < ?3 ORDER BY key DESC";

/// The epoch that a record of one says; that of a namespace that was never opened without one.
fn epoch_in(frame: Option<Vec<u8>>) -> Result<Epoch, StoreError> {
	struct One(Option<Vec<u8>>);
	impl RawRead for One {
		fn read(&mut self, _: &Key) -> Result<Option<Vec<u8>>, StoreError> {
			Ok(self.0.clone())
		}

		fn highest(&mut self, _: Table, _: &[u8]) -> Result<Option<u64>, StoreError> {
			Ok(None)
		}
	}
	read_epoch(&mut One(frame))
}

fn cannot_open() -> Error {
	Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN), None)
}

/// Why a database could not be opened.
enum Failed {
	Sqlite(Error),
	Store(StoreError),
}

impl From<Error> for Failed {
	fn from(error: Error) -> Self {
		Self::Sqlite(error)
	}
}

impl From<StoreError> for Failed {
	fn from(error: StoreError) -> Self {
		Self::Store(error)
	}
}
