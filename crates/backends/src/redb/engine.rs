// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The database: what is in it, how it is opened, how a group is written.
//!
//! ```text
//! leyden   "format" -> 1
//! records  namespace, zero byte, table, zero byte, key  ->  frame
//! ```

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leyden_store::committer::{Committer, RawRead, RawWrite};
use leyden_store::group::{Beside, Medium, Writer};
use leyden_store::page::PageBuilder;
use leyden_store::{Durability, Key, KeyRange, Namespace, StoreError, Table};
use redb::backends::FileBackend;
use redb::{
	Builder, Database, Error, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase,
	TableDefinition, TableError,
};

use crate::files::{private, resolve, Files};

use super::check::check;
use super::errors::{caught, not_written, opening, while_writing};
use super::file::{Watch, WatchedFile};
use super::RedbOptions;

/// The layout that this version writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("leyden");
const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");
type Records = ReadOnlyTable<&'static [u8], &'static [u8]>;

const FORMAT_KEY: &str = "format";

/// Memory for pages, whatever the size of the database.
pub(super) const CACHE_BYTES: usize = 16 << 20;

/// The medium of a store; nothing of it can be used from outside.
pub struct Engine {
	database: Opened,
	path: PathBuf,
	place: String,
	namespace: Namespace,
	options: RedbOptions,
	watch: Arc<Watch>,
	/// Whether the newest transaction was lazy.
	unflushed: bool,
	/// The file that this handle has opened to write.
	files: Option<Files>,
}

enum Opened {
	ToWrite(Arc<Database>),
	/// A database that another engine of this process has opened, and writes.
	Beside(Arc<Database>),
	ReadOnly(ReadOnlyDatabase),
}

impl Engine {
	pub(super) fn open(
		path: &Path, namespace: Namespace, options: RedbOptions,
	) -> Result<Writer<Self>, StoreError> {
		let path = &resolve(path);
		caught(&path.display().to_string(), || Self::open_to_write(path, namespace, options))
	}

	fn open_to_write(
		path: &Path, namespace: Namespace, options: RedbOptions,
	) -> Result<Writer<Self>, StoreError> {
		let watch = Arc::<Watch>::default();
		// Nobody but us puts an empty file there: it was to become a store, or is one nobody made.
		let is_new = std::fs::metadata(path).map_or(true, |file| file.is_file() && file.len() == 0);
		if is_new {
			create(path, &watch)?;
		}
		let database = open(path, &watch).map_err(|error| opening(path, error))?;
		let place = path.display().to_string();
		let mut engine = Self {
			database: Opened::ToWrite(Arc::new(database)),
			path: path.to_owned(),
			place: place.clone(),
			namespace,
			options,
			watch,
			unflushed: false,
			files: Some(Files::of(&[path])?),
		};
		engine.check_ours()?;
		let (committer, writes) = Committer::open(&mut engine)?;
		engine.write(writes, Durability::Sync)?;
		Ok(Writer::new(engine, committer, place))
	}

	pub(super) fn open_read_only(path: &Path, namespace: Namespace) -> Result<Self, StoreError> {
		caught(&path.display().to_string(), || Self::open_to_read(path, namespace))
	}

	fn open_to_read(path: &Path, namespace: Namespace) -> Result<Self, StoreError> {
		let place = path.display().to_string();
		if !path.is_file() {
			let reason = if path.is_dir() { "it is a directory" } else { "there is no such file" };
			return Err(StoreError::NotAStore { place, reason: reason.to_owned() });
		}
		let database = Builder::new().set_cache_size(CACHE_BYTES).open_read_only(path);
		let database = database.map_err(|error| opening(path, error.into()))?;
		let engine = Self {
			database: Opened::ReadOnly(database),
			path: path.to_owned(),
			place,
			namespace,
			options: RedbOptions::default(),
			watch: Arc::default(),
			unflushed: false,
			files: None,
		};
		engine.check_ours()?;
		Ok(engine)
	}

	pub(super) fn namespaces(&self) -> Result<Vec<Namespace>, StoreError> {
		caught(&self.place, || self.list_namespaces())
	}

	fn list_namespaces(&self) -> Result<Vec<Namespace>, StoreError> {
		let failed = |error| not_written("listing namespaces", &self.place, error);
		let mut names = Vec::new();
		let read = self.reader().map_err(failed)?;
		let Some(records) = table(&read).map_err(failed)? else { return Ok(names) };
		let mut start = Vec::new();
		loop {
			// The first record of the next namespace.
			let mut range = records.range(start.as_slice()..).map_err(|e| failed(e.into()))?;
			let Some(entry) = range.next() else { return Ok(names) };
			let (key, _) = entry.map_err(|e| failed(e.into()))?;
			let name = key.value().split(|byte| *byte == 0).next().unwrap_or_default();
			let next = [name, &[1]].concat();
			if next <= start {
				return Err(self.out_of_order());
			}
			start = next;
			let name = String::from_utf8_lossy(name).into_owned();
			names.push(Namespace::new(&name)?);
		}
	}

	pub(super) fn flushes(&self) -> u64 {
		self.watch.flushes()
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn fail_next_flush(&self) {
		self.watch.fail_next_flush();
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn damage(
		&mut self, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		let Some(mut frame) = self.read(key)? else { return Ok(false) };
		change(&mut frame);
		self.write(vec![(key.clone(), Some(frame))], Durability::Sync)?;
		Ok(true)
	}

	/// Whether it is a store of ours; it is looked at before anything is written.
	fn check_ours(&self) -> Result<(), StoreError> {
		let failed = |error| not_written("opening the database", &self.place, error);
		let read = self.reader().map_err(failed)?;
		let format = match read.open_table(META) {
			Ok(meta) => {
				let format = meta.get(FORMAT_KEY).map_err(|e| failed(e.into()))?;
				format.map(|format| format.value())
			},
			Err(TableError::Storage(error)) => return Err(failed(error.into())),
			Err(_) => None,
		};
		match format {
			Some(FORMAT) => Ok(()),
			Some(found) => {
				let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
				let what = self.place.clone();
				Err(StoreError::Newer { what, found: number(found), known: number(FORMAT) })
			},
			None => {
				let reason = "it is a redb database of something else".to_owned();
				Err(StoreError::NotAStore { place: self.place.clone(), reason })
			},
		}
	}

	fn reader(&self) -> Result<ReadTransaction, Error> {
		match &self.database {
			Opened::ToWrite(database) | Opened::Beside(database) => Ok(database.begin_read()?),
			Opened::ReadOnly(database) => Ok(database.begin_read()?),
		}
	}

	fn write_all(&self, writes: &[RawWrite], durability: Durability) -> Result<(), Error> {
		let Opened::ToWrite(database) = &self.database else {
			return Err(Error::DatabaseClosed);
		};
		let mut transaction = database.begin_write()?;
		transaction.set_durability(match durability {
			Durability::Sync => redb::Durability::Immediate,
			Durability::Lazy => redb::Durability::None,
		})?;
		transaction.set_two_phase_commit(self.options.two_phase);
		{
			let mut records = transaction.open_table(RECORDS)?;
			for (key, frame) in writes {
				let key = self.raw(key);
				match frame {
					Some(frame) => drop(records.insert(key.as_slice(), frame.as_slice())?),
					None => drop(records.remove(key.as_slice())?),
				}
			}
		}
		Ok(transaction.commit()?)
	}

	fn scan_into(&self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError> {
		let failed = |error| not_written("scanning", &self.place, error);
		let read = self.reader().map_err(failed)?;
		let Some(records) = table(&read).map_err(failed)? else { return Ok(()) };
		let prefix = self.start_of(range.table());
		let start = [&prefix, range.start()].concat();
		let end = match range.end() {
			Some(end) => [&prefix, end].concat(),
			// The zero byte behind the table's name, and one more: nothing of the table sorts there.
			None => prefix.iter().rev().skip(1).rev().copied().chain([1]).collect(),
		};
		let mut entries = records
			.range(start.as_slice()..end.as_slice())
			.map_err(|error| failed(error.into()))?;
		while !page.is_full() {
			let next = if range.is_reversed() { entries.next_back() } else { entries.next() };
			let Some(entry) = next else { break };
			let (key, frame) = entry.map_err(|error| failed(error.into()))?;
			let key = key.value().get(prefix.len()..).unwrap_or_default();
			page.push_frame(Key::new(range.table(), key), frame.value())?;
		}
		Ok(())
	}

	fn list_tables(&self) -> Result<Vec<String>, StoreError> {
		let prefix = [self.namespace.name().as_bytes(), &[0]].concat();
		let failed = |error| not_written("listing tables", &self.place, error);
		let read = self.reader().map_err(failed)?;
		let Some(records) = table(&read).map_err(failed)? else { return Ok(Vec::new()) };
		let (mut names, mut start) = (Vec::new(), prefix.clone());
		loop {
			// The first record of the next table.
			let mut range = records.range(start.as_slice()..).map_err(|e| failed(e.into()))?;
			let Some(entry) = range.next() else { return Ok(names) };
			let (key, _) = entry.map_err(|e| failed(e.into()))?;
			let Some(rest) = key.value().strip_prefix(prefix.as_slice()) else { return Ok(names) };
			let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
			let next = [prefix.as_slice(), name, &[1]].concat();
			if next <= start {
				return Err(self.out_of_order());
			}
			start = next;
			names.push(String::from_utf8_lossy(name).into_owned());
		}
	}

	fn copy_into(&self, to: &Path) -> Result<(), StoreError> {
		let copied = || -> Result<(), Error> {
			let file = OpenOptions::new().read(true).write(true).open(to)?;
			let target = database(file, &Arc::default())?;
			let read = self.reader()?;
			let transaction = target.begin_write()?;
			transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
			{
				let mut records = transaction.open_table(RECORDS)?;
				if let Some(source) = table(&read)? {
					for entry in source.range::<&[u8]>(..)? {
						let (key, frame) = entry?;
						records.insert(key.value(), frame.value())?;
					}
				}
			}
			Ok(transaction.commit()?)
		};
		copied().map_err(|error| not_written("copying the database", &self.place, error))
	}

	/// The error of a database that hands out its keys in no order, and would do so for ever.
	fn out_of_order(&self) -> StoreError {
		let reason = "its index is damaged; restore it from a backup".to_owned();
		StoreError::NotAStore { place: self.place.clone(), reason }
	}

	fn raw(&self, key: &Key) -> Vec<u8> {
		[&self.start_of(key.table()), key.bytes()].concat()
	}

	fn start_of(&self, table: Table) -> Vec<u8> {
		[self.namespace.name().as_bytes(), &[0], table.name().as_bytes(), &[0]].concat()
	}
}

impl RawRead for Engine {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		let read = || -> Result<Option<Vec<u8>>, Error> {
			let read = self.reader()?;
			let Some(records) = table(&read)? else { return Ok(None) };
			let frame = records.get(self.raw(key).as_slice())?;
			Ok(frame.map(|frame| frame.value().to_vec()))
		};
		caught(&self.place, || read().map_err(|error| not_written("reading", &self.place, error)))
	}

	fn highest(&mut self, of: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		let read = || -> Result<Option<u64>, Error> {
			let read = self.reader()?;
			let Some(records) = table(&read)? else { return Ok(None) };
			let start = self.start_of(of);
			let number = |n| self.raw(&Key::numbered(of, prefix, n));
			let range = records.range(number(0).as_slice()..=number(u64::MAX).as_slice())?;
			for entry in range.rev() {
				let (key, _) = entry?;
				let key = key.value().get(start.len()..).unwrap_or_default();
				if let Some(number) = Key::new(of, key).number(prefix) {
					return Ok(Some(number));
				}
			}
			Ok(None)
		};
		caught(&self.place, || read().map_err(|error| not_written("reading", &self.place, error)))
	}

	/// The file is locked while it is open.
	fn is_shared(&self) -> bool {
		false
	}
}

impl Medium for Engine {
	fn scan(&mut self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError> {
		caught(&self.place, || self.scan_into(range, page))
	}

	fn check(&mut self) -> Result<Vec<String>, StoreError> {
		check(&self.path)
	}

	fn tables(&mut self) -> Result<Vec<String>, StoreError> {
		caught(&self.place, || self.list_tables())
	}

	fn copy_to(&mut self, to: &Path) -> Result<(), StoreError> {
		caught(&self.place, || self.copy_into(to))
	}

	/// A read transaction of redb sees the newest commit, and no write waits for it.
	fn beside(&self) -> Option<Beside<Self>> {
		let Opened::ToWrite(database) = &self.database else { return None };
		let (database, place) = (Arc::downgrade(database), self.place.clone());
		let path = self.path.clone();
		let (namespace, options) = (self.namespace.clone(), self.options);
		Some(Box::new(move || {
			let closed = || StoreError::invalid("the store is closed");
			let database = Opened::Beside(database.upgrade().ok_or_else(closed)?);
			let (place, namespace, watch) = (place.clone(), namespace.clone(), Arc::default());
			let path = path.clone();
			Ok(Self {
				database,
				path,
				place,
				namespace,
				options,
				watch,
				unflushed: false,
				files: None,
			})
		}))
	}

	fn write(&mut self, writes: Vec<RawWrite>, durability: Durability) -> Result<(), StoreError> {
		self.write_all(&writes, durability).map_err(while_writing)?;
		self.unflushed = durability == Durability::Lazy;
		self.files.as_ref().map_or(Ok(()), Files::check)
	}
}

impl Drop for Engine {
	/// What was lazy is written at last, if that can be done.
	fn drop(&mut self) {
		if self.unflushed {
			let _ = self.write_all(&[], Durability::Sync);
		}
	}
}

/// The records; `None` if there are none yet.
fn table(read: &ReadTransaction) -> Result<Option<Records>, Error> {
	match read.open_table(RECORDS) {
		Ok(table) => Ok(Some(table)),
		Err(TableError::TableDoesNotExist(_)) => Ok(None),
		Err(error) => Err(error.into()),
	}
}

fn open(path: &Path, watch: &Arc<Watch>) -> Result<Database, Error> {
	let file = OpenOptions::new().read(true).write(true).open(path)?;
	database(file, watch)
}

fn database(file: File, watch: &Arc<Watch>) -> Result<Database, Error> {
	let watched = WatchedFile { file: FileBackend::new(file)?, watch: Arc::clone(watch) };
	Ok(Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(watched)?)
}

/// Makes a store with nothing in it. It gets its name when it is one.
fn create(path: &Path, watch: &Arc<Watch>) -> Result<(), StoreError> {
	let mut name = path.file_name().unwrap_or_default().to_owned();
	name.push(format!(".new.{}", std::process::id()));
	let draft = path.with_file_name(name);
	let made = make(&draft, watch).and_then(|()| give_name(&draft, path));
	// It has two names now, or failed.
	let _ = std::fs::remove_file(&draft);
	made.map_err(|error| opening(path, error))
}

fn make(draft: &Path, watch: &Arc<Watch>) -> Result<(), Error> {
	// What is left of a process that had this number and died.
	let _ = std::fs::remove_file(draft);
	let mut options = OpenOptions::new();
	let file = private(options.read(true).write(true).create_new(true)).open(draft)?;
	let database = database(file, watch)?;
	let transaction = database.begin_write()?;
	transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
	transaction.open_table(RECORDS)?;
	transaction.commit()?;
	drop(database);
	File::open(draft)?.sync_all()?;
	Ok(())
}

fn give_name(draft: &Path, path: &Path) -> Result<(), Error> {
	match std::fs::hard_link(draft, path) {
		Ok(()) => {},
		Err(error) if error.kind() == ErrorKind::AlreadyExists => {
			// Another process was faster, and its store is opened; or the file is empty.
			if std::fs::metadata(path)?.len() == 0 {
				std::fs::rename(draft, path)?;
			}
		},
		// Some file systems have no links.
		Err(_) => std::fs::rename(draft, path)?,
	}
	let directory = match path.parent() {
		Some(parent) if !parent.as_os_str().is_empty() => parent,
		_ => Path::new("."),
	};
	Ok(File::open(directory)?.sync_all()?)
}
