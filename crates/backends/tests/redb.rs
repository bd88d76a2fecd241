//! What a redb file may be, and what may go wrong: an error that says what, where and what to do;
//! nothing overwritten, nothing lost.

#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use leyden_backends::redb::{RedbOptions, RedbStore};
use leyden_store::{
	Batch, Durability, Key, KeyRange, Namespace, RecordType, Store, StoreError, Table, Value,
};
use redb::{Database, ReadableTable, TableDefinition};

const T: Table = Table::new("t");

struct Place(tempfile::TempDir);

impl Place {
	fn new() -> Self {
		Self(tempfile::tempdir().unwrap())
	}

	fn path(&self) -> PathBuf {
		self.0.path().join("node.redb")
	}

	fn open(&self) -> Result<RedbStore, StoreError> {
		RedbStore::open(self.path(), Namespace::default(), RedbOptions::default())
	}

	/// Every file there is.
	fn files(&self) -> Vec<String> {
		let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
		names.map(|name| name.into_string().unwrap()).collect()
	}
}

fn batch(n: u64) -> Batch {
	let mut batch = Batch::new();
	batch.put(Key::numbered(T, b"", n), Value::new(RecordType(0x8000), 1, vec![n as u8; 100]));
	batch
}

fn fill(store: &RedbStore, count: u64) {
	(0..count).for_each(|n| drop(store.commit(batch(n)).wait().unwrap()));
}

fn count(store: &RedbStore) -> usize {
	store.scan(KeyRange::all(T), 10_000).wait().unwrap().records.len()
}

/// The error tells where.
fn refused(path: &Path) -> StoreError {
	let opened = RedbStore::open(path, Namespace::default(), RedbOptions::default());
	let error = opened.map(|_| ()).unwrap_err();
	let name = path.file_name().unwrap().to_string_lossy().into_owned();
	assert!(error.to_string().contains(&name), "{error}");
	error
}

#[test]
fn what_is_not_a_store_is_refused_and_left_alone() {
	let place = Place::new();
	fs::create_dir(place.path()).unwrap();
	assert!(matches!(refused(&place.path()), StoreError::NotAStore { .. }));
	fs::remove_dir(place.path()).unwrap();

	let note = "a note, long enough to be taken for a database ".repeat(200);
	fs::write(place.path(), &note).unwrap();
	let error = refused(&place.path());
	assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
	assert_eq!(fs::read_to_string(place.path()).unwrap(), note);
	fs::remove_file(place.path()).unwrap();

	// A database of somebody else: what is in it stays.
	const THEIRS: TableDefinition<'static, u64, u64> = TableDefinition::new("theirs");
	{
		let theirs = Database::create(place.path()).unwrap();
		let write = theirs.begin_write().unwrap();
		write.open_table(THEIRS).unwrap().insert(1, 2).unwrap();
		write.commit().unwrap();
	}
	let error = refused(&place.path());
	assert!(error.to_string().contains("something else"), "{error}");
	{
		let theirs = Database::open(place.path()).unwrap();
		let write = theirs.begin_write().unwrap();
		assert_eq!(write.open_table(THEIRS).unwrap().get(1).unwrap().unwrap().value(), 2);
		assert_eq!(write.list_tables().unwrap().count(), 1);
	}

	let nowhere = place.0.path().join("no").join("such.redb");
	assert!(refused(&nowhere).to_string().contains("directory exists"));
}

#[test]
fn a_newer_store_is_refused_as_newer() {
	let place = Place::new();
	fill(&place.open().unwrap(), 3);
	const META: TableDefinition<'static, &str, u64> = TableDefinition::new("leyden");
	let set = |format: u64| {
		let database = Database::open(place.path()).unwrap();
		let write = database.begin_write().unwrap();
		write.open_table(META).unwrap().insert("format", format).unwrap();
		write.commit().unwrap();
	};
	set(2);
	let error = refused(&place.path());
	assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
	set(1);
	assert_eq!(count(&place.open().unwrap()), 3);
}

#[test]
fn an_empty_file_becomes_a_store_and_no_draft_is_left() {
	let place = Place::new();
	fs::write(place.path(), "").unwrap();
	fill(&place.open().unwrap(), 1);
	assert_eq!(place.files(), ["node.redb"]);
	// A draft of a process that died.
	let other = Place::new();
	let draft = format!("node.redb.new.{}", std::process::id());
	fs::write(other.0.path().join(draft), "half of something").unwrap();
	fill(&other.open().unwrap(), 1);
	assert_eq!(other.files(), ["node.redb"]);
}

#[test]
fn one_at_a_time_and_reading_disturbs_nobody() {
	let place = Place::new();
	let store = place.open().unwrap();
	fill(&store, 5);
	let locked = refused(&place.path());
	assert!(matches!(locked, StoreError::Locked { .. }) && locked.is_retriable(), "{locked}");
	let read = || RedbStore::open_read_only(place.path(), Namespace::default());
	assert!(matches!(read(), Err(StoreError::Locked { .. })));
	let epoch = store.epoch().unwrap();
	drop(store);
	let reader = read().unwrap();
	assert_eq!(count(&reader), 5);
	assert!(matches!(reader.commit(batch(9)).wait(), Err(StoreError::ReadOnly { .. })));
	drop(reader);
	assert_eq!(RedbStore::namespaces(place.path()).unwrap(), [Namespace::default()]);
	assert_eq!(place.open().unwrap().epoch().unwrap().get(), epoch.get() + 1);
	let nowhere = RedbStore::open_read_only("nowhere.redb", Namespace::default());
	assert!(matches!(nowhere, Err(StoreError::NotAStore { .. })));
}

#[test]
fn a_truncated_database_is_loud() {
	let place = Place::new();
	fill(&place.open().unwrap(), 200);
	let whole = fs::read(place.path()).unwrap();
	for part in [3, 2, 1] {
		fs::write(place.path(), &whole[..whole.len() * part / 4]).unwrap();
		let error = refused(&place.path());
		assert!(!error.is_retriable(), "{error}");
	}
	fs::write(place.path(), &whole).unwrap();
	assert_eq!(count(&place.open().unwrap()), 200);
}

/// One flush per group, two with two phases; lazy commits need none, and closing writes them.
#[test]
fn flushes_are_counted() {
	for (two_phase, flushes) in [(false, 1), (true, 2)] {
		let place = Place::new();
		let open = || {
			let options = RedbOptions { two_phase };
			RedbStore::open(place.path(), Namespace::default(), options).unwrap()
		};
		let store = open();
		fill(&store, 1);
		let before = store.flushes();
		fill(&store, 10);
		assert_eq!(store.flushes() - before, 10 * flushes);
		let before = store.flushes();
		for n in 20..30 {
			let mut lazy = batch(n);
			lazy.durability(Durability::Lazy);
			store.commit(lazy).wait().unwrap();
		}
		assert_eq!(store.flushes(), before);
		drop(store);
		assert_eq!(count(&open()), 20);
	}
}

/// As with SQLite: a thread that waits for a read reads beside the one that writes.
#[test]
fn no_read_waits_for_a_flush() {
	let place = Place::new();
	let store = place.open().unwrap();
	fill(&store, 20);
	let (read, was_read) = std::sync::mpsc::channel();
	std::thread::scope(|scope| {
		store.with_medium(|_| {
			for _ in 0..8 {
				let (store, read) = (&store, read.clone());
				scope.spawn(move || read.send(count(store)).unwrap());
				let found = was_read.recv_timeout(std::time::Duration::from_secs(60));
				assert_eq!(found.expect("the read waits for the engine"), 20);
			}
		});
	});
	assert_eq!(store.stats().reads_beside, 8);
	drop(store);
	assert_eq!(count(&place.open().unwrap()), 20);
}

/// The file is restored under a node that runs, or removed.
#[test]
fn nothing_is_acknowledged_into_a_file_that_was_replaced_or_removed() {
	for replaced in [true, false] {
		let place = Place::new();
		let store = place.open().unwrap();
		fill(&store, 1);
		if replaced {
			let copy = place.0.path().join("copy");
			fs::copy(place.path(), &copy).unwrap();
			fs::rename(&copy, place.path()).unwrap();
		} else {
			fs::remove_file(place.path()).unwrap();
		}
		let answer = store.commit(batch(1)).wait();
		assert!(matches!(answer, Err(StoreError::Indeterminate { .. })), "{answer:?}");
		let next = store.commit(batch(2)).wait();
		assert!(matches!(next, Err(StoreError::Poisoned { .. })), "{next:?}");
	}
}

/// A node reads its own file, for a copy: that drops no lock.
#[test]
fn a_file_that_its_own_node_has_read_is_still_locked() {
	let place = Place::new();
	let store = place.open().unwrap();
	fill(&store, 3);
	assert!(!fs::read(place.path()).unwrap().is_empty());
	let mut child = std::process::Command::new(std::env::current_exe().unwrap());
	child.args(["--exact", "open_in_another_process"]).env("LEYDEN_TEST_REDB", place.path());
	assert!(child.stdout(std::process::Stdio::null()).status().unwrap().success());
	store.commit(batch(3)).wait().unwrap();
}

/// Not a test by itself: the second process of the one before.
#[test]
fn open_in_another_process() {
	let Ok(path) = std::env::var("LEYDEN_TEST_REDB") else { return };
	let opened = RedbStore::open(path, Namespace::default(), RedbOptions::default());
	assert!(matches!(opened, Err(StoreError::Locked { .. })), "{opened:?}");
}

#[cfg(unix)]
#[test]
fn nobody_but_the_owner_reads_the_file() {
	use std::os::unix::fs::PermissionsExt;
	let place = Place::new();
	fill(&place.open().unwrap(), 3);
	let mode = fs::metadata(place.path()).unwrap().permissions().mode();
	assert_eq!(mode & 0o777, 0o600);
}
