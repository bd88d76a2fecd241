//! What SQLite's files may be, and what may go wrong: every time an error that says what, where and
//! what to do, nothing overwritten, nothing lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use leyden_backends::sqlite::SqliteStore;
use leyden_store::group::MAX_WAITING;
use leyden_store::{
	Batch, Durability, Key, KeyRange, Namespace, RecordType, Store, StoreError, Table, Value,
};
use tempfile::TempDir;

const T: Table = Table::new("t");

struct Place {
	dir: TempDir,
}

impl Place {
	fn new() -> Self {
		Self { dir: tempfile::tempdir().unwrap() }
	}

	fn path(&self) -> PathBuf {
		self.dir.path().join("node.leyden")
	}

	fn open(&self) -> Result<SqliteStore, StoreError> {
		SqliteStore::open(self.path(), Namespace::default())
	}
}

fn batch(n: u64, bytes: usize) -> Batch {
	let mut batch = Batch::new();
	batch.put(Key::numbered(T, b"", n), Value::new(RecordType(0x8000), 1, vec![n as u8; bytes]));
	batch
}

fn fill(store: &SqliteStore, count: u64) {
	(0..count).for_each(|n| drop(store.commit(batch(n, 100)).wait().unwrap()));
}

fn count(store: &SqliteStore) -> usize {
	store.scan(KeyRange::all(T), 100_000).wait().unwrap().records.len()
}

/// The error tells where; and the file is as it was.
fn refused(path: &Path) -> StoreError {
	let before = fs::read(path).ok();
	let error = SqliteStore::open(path, Namespace::default()).unwrap_err();
	let name = path.file_name().unwrap().to_string_lossy().into_owned();
	assert!(error.to_string().contains(&name), "{error}");
	assert_eq!(fs::read(path).ok(), before, "it was changed");
	error
}

#[test]
fn what_is_not_a_store_is_refused_and_left_alone() {
	let place = Place::new();
	fs::create_dir(place.path()).unwrap();
	assert!(matches!(refused(&place.path()), StoreError::NotAStore { .. }));
	fs::remove_dir(place.path()).unwrap();

	fs::write(
		place.path(),
		"a note, long enough to be taken for a database by those who look away ",
	)
	.unwrap();
	assert!(matches!(refused(&place.path()), StoreError::NotAStore { .. }));
	fs::remove_file(place.path()).unwrap();

	rusqlite_database(&place.path(), "CREATE TABLE theirs (x)");
	assert!(matches!(refused(&place.path()), StoreError::NotAStore { .. }));
	fs::remove_file(place.path()).unwrap();

	let nowhere = place.dir.path().join("no").join("such.leyden");
	let error = SqliteStore::open(&nowhere, Namespace::default()).unwrap_err().to_string();
	assert!(error.contains("such.leyden") && error.contains("directory exists"), "{error}");
}

/// Makes a database of something else, through a store of ours that gives up what makes it ours.
fn rusqlite_database(path: &Path, sql: &str) {
	let store = SqliteStore::open(path, Namespace::default()).unwrap();
	store.tamper(&format!("PRAGMA application_id = 7; {sql}")).unwrap();
}

#[test]
fn a_newer_store_is_refused_as_newer() {
	let place = Place::new();
	place.open().unwrap().tamper("PRAGMA user_version = 2").unwrap();
	let error = refused(&place.path());
	assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
	assert!(error.to_string().contains("newer version"));
}

#[test]
fn an_empty_file_and_a_half_created_database_open() {
	let place = Place::new();
	fs::write(place.path(), "").unwrap();
	fill(&place.open().unwrap(), 1);

	// A crash while the database was created leaves some of its first bytes, or some of its log.
	let made = Place::new();
	let store = made.open().unwrap();
	let (database, wal) = (made.path(), made.dir.path().join("node.leyden-wal"));
	let (database, wal) = (fs::read(database).unwrap(), fs::read(wal).unwrap());
	drop(store);
	let mut opened = 0;
	for length in (0..=wal.len()).step_by(512) {
		let half = Place::new();
		fs::write(half.path(), &database).unwrap();
		fs::write(half.dir.path().join("node.leyden-wal"), &wal[..length]).unwrap();
		// A database without its log, or with a torn one, is one that was never created.
		let store = half.open().unwrap_or_else(|error| panic!("{length} bytes: {error}"));
		fill(&store, 3);
		opened += 1;
	}
	assert!(opened > 3);
}

#[test]
fn a_truncated_database_is_loud() {
	let place = Place::new();
	fill(&place.open().unwrap(), 300);
	let whole = fs::read(place.path()).unwrap();
	for length in [100, 1000, 4096, whole.len() / 2, whole.len() - 4096] {
		let cut = Place::new();
		fs::write(cut.path(), &whole[..length]).unwrap();
		let found = cut.open().and_then(|store| {
			let page = store.scan(KeyRange::all(T), 1000).wait()?;
			Ok(page.records.len())
		});
		assert!(found.is_err(), "{length} of {} bytes read as whole: {found:?}", whole.len());
	}
}

#[test]
fn a_flipped_byte_is_never_read_as_something_else() {
	let place = Place::new();
	fill(&place.open().unwrap(), 50);
	let whole = fs::read(place.path()).unwrap();
	let (mut loud, mut harmless) = (0, 0);
	for at in (0..whole.len()).step_by(97) {
		let bad = Place::new();
		let mut bytes = whole.clone();
		bytes[at] ^= 0x5a;
		fs::write(bad.path(), &bytes).unwrap();
		let read = bad.open().and_then(|store| store.scan(KeyRange::all(T), 1000).wait());
		match read {
			Err(_) => loud += 1,
			Ok(page) => {
				// In a page that holds none of it, or in one that makes records unfindable: what is
				// read is what was written.
				for (key, record) in page.records {
					let n = key.number(b"").unwrap();
					assert_eq!(record.value.body, vec![n as u8; 100], "byte {at}");
				}
				harmless += 1;
			},
		}
	}
	assert!(loud > 10, "{loud} loud, {harmless} harmless");
}

#[test]
fn a_full_disk_loses_nothing_and_is_not_for_ever() {
	let place = Place::new();
	let store = place.open().unwrap();
	fill(&store, 10);
	store.tamper("PRAGMA max_page_count = 40").unwrap();
	let mut full = None;
	let mut written = 10;
	for n in 10..1000 {
		match store.commit(batch(n, 4000)).wait() {
			Ok(_) => written += 1,
			Err(error) => {
				full = Some(error);
				break;
			},
		}
	}
	let error = full.expect("it is full");
	assert!(matches!(error, StoreError::NoSpace { .. }) && error.is_retriable(), "{error}");
	assert!(error.to_string().contains("node.leyden") && error.to_string().contains("free some"));
	assert_eq!(count(&store), written, "nothing of what was refused");
	store.tamper("PRAGMA max_page_count = 100000").unwrap();
	store.commit(batch(5000, 4000)).wait().unwrap();
	drop(store);
	assert_eq!(count(&place.open().unwrap()), written + 1);
}

#[test]
fn read_only_writes_nothing() {
	let place = Place::new();
	fill(&place.open().unwrap(), 5);
	let before = fs::read(place.path()).unwrap();
	let store = SqliteStore::open_read_only(place.path(), Namespace::default()).unwrap();
	assert_eq!(count(&store), 5);
	assert!(matches!(store.commit(batch(9, 1)).wait(), Err(StoreError::ReadOnly { .. })));
	assert_eq!(count(&store), 5, "reading goes on");
	drop(store);
	assert_eq!(fs::read(place.path()).unwrap(), before);
	assert_eq!(SqliteStore::namespaces(place.path()).unwrap(), [Namespace::default()]);
	// The epoch was not raised: the next writer's is the second.
	assert_eq!(place.open().unwrap().epoch().unwrap().get(), 2);
}

/// A file system that the kernel remounts read-only after an error, while the store is open.
#[test]
fn a_disk_that_turns_read_only_loses_nothing() {
	let place = Place::new();
	let store = place.open().unwrap();
	fill(&store, 5);
	store.tamper("PRAGMA query_only = ON").unwrap();
	let refused = store.commit(batch(9, 1)).wait().unwrap_err();
	assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused}");
	assert!(refused.to_string().contains(&place.path().display().to_string()), "{refused}");
	assert_eq!(count(&store), 5, "reading goes on");
	store.tamper("PRAGMA query_only = OFF").unwrap();
	fill(&store, 6);
	drop(store);
	assert_eq!(count(&place.open().unwrap()), 6);
}

/// Nobody can create a file there, not even root.
#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_is_named() {
	let error = refused(Path::new("/proc/node.leyden"));
	let text = error.to_string();
	assert!(text.contains("/proc/node.leyden") && text.contains("cannot be created"), "{text}");
}

const CHILD: &str = "LEYDEN_TEST_HOLD";
const CHILD_NAMESPACE: &str = "LEYDEN_TEST_HOLD_NAMESPACE";

/// Another process that has a store open.
struct Holder(std::process::Child);

impl Holder {
	fn of(place: &Place, namespace: &str) -> Self {
		let mut child = Command::new(std::env::current_exe().unwrap())
			.args(["--exact", "hold_a_store_open", "--nocapture"])
			.env(CHILD, place.path())
			.env(CHILD_NAMESPACE, namespace)
			.stdin(Stdio::piped())
			.stdout(Stdio::null())
			.stderr(Stdio::piped())
			.spawn()
			.unwrap();
		let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
		assert!(said.any(|line| line.unwrap() == "held"));
		Self(child)
	}

	fn kill(mut self) {
		self.0.kill().unwrap();
		self.0.wait().unwrap();
	}
}

/// Not a test by itself: the second process of the next one.
#[test]
fn hold_a_store_open() {
	let Ok(path) = std::env::var(CHILD) else { return };
	let namespace = std::env::var(CHILD_NAMESPACE).unwrap_or("default".to_owned());
	let store = SqliteStore::open(&path, Namespace::new(&namespace).unwrap()).unwrap();
	fill(&store, 20);
	// To open and close a file drops every POSIX lock that the process has on it.
	let copied = fs::read(&path).unwrap();
	assert!(!copied.is_empty());
	eprintln!("held");
	// Until we are killed.
	let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_second_process_is_kept_out_until_the_first_is_dead() {
	let place = Place::new();
	let child = Holder::of(&place, "default");
	let error = place.open().unwrap_err();
	assert!(matches!(error, StoreError::Locked { .. }), "{error}");
	let text = error.to_string();
	assert!(text.contains("node.leyden") && text.contains("another process"), "{text}");
	child.kill();
	assert_eq!(count(&place.open().unwrap()), 20, "killed, and nothing acknowledged is lost");
}

/// Reading needs no lock: a running store is no black box.
#[test]
fn a_store_is_read_while_another_process_writes_it() {
	let place = Place::new();
	let child = Holder::of(&place, "default");
	let look = SqliteStore::open_read_only(place.path(), Namespace::default()).unwrap();
	assert_eq!(count(&look), 20);
	assert_eq!(SqliteStore::namespaces(place.path()).unwrap(), [Namespace::default()]);
	child.kill();
}

#[test]
fn a_reader_sees_what_is_committed_while_it_looks() {
	let place = Place::new();
	let store = place.open().unwrap();
	let look = SqliteStore::open_read_only(place.path(), Namespace::default());
	let look = look.unwrap();
	for n in 0..20 {
		store.commit(batch(n, 300)).wait().unwrap();
		assert_eq!(count(&look) as u64, n + 1);
	}
	// And it holds nobody up, whatever it looks at.
	drop(store);
	assert_eq!(count(&place.open().unwrap()), 20);
	drop(look);
}

/// A link leads to the same database, and to the same lock.
#[cfg(unix)]
#[test]
fn a_store_behind_a_link_is_the_same_store() {
	let place = Place::new();
	let store = place.open().unwrap();
	fill(&store, 3);
	let link = place.dir.path().join("link");
	std::os::unix::fs::symlink(place.path(), &link).unwrap();
	let open = || SqliteStore::open(&link, Namespace::default());
	assert!(matches!(open(), Err(StoreError::Locked { .. })));
	drop(store);
	let linked = open().unwrap();
	linked.commit(batch(3, 300)).wait().unwrap();
	assert!(matches!(place.open(), Err(StoreError::Locked { .. })));
	drop(linked);
	assert_eq!(count(&place.open().unwrap()), 4);
	let beside: Vec<_> = fs::read_dir(place.dir.path())
		.unwrap()
		.map(|file| file.unwrap().file_name().into_string().unwrap())
		.filter(|name| name.starts_with("link"))
		.collect();
	assert_eq!(beside, ["link"], "nothing is beside the link");
}

const PASSER_BY: &str = "LEYDEN_TEST_PASS_BY";

/// Not a test by itself: another program, which opens the database for writing and closes it.
#[test]
fn pass_by() {
	let Ok(path) = std::env::var(PASSER_BY) else { return };
	let connection = rusqlite::Connection::open(path).unwrap();
	let read = "SELECT count(*) FROM records";
	connection.query_row(read, [], |row| row.get::<_, i64>(0)).unwrap();
}

fn another_program_opens_and_closes(place: &Place) {
	let mut child = Command::new(std::env::current_exe().unwrap());
	child.args(["--exact", "pass_by"]).env(PASSER_BY, place.path()).stdout(Stdio::null());
	assert!(child.status().unwrap().success());
}

/// A node copies its own database, which drops every POSIX lock of the process on it, and then
/// another program takes itself for the last user and removes the log.
#[test]
fn nothing_is_acknowledged_into_a_log_that_another_program_removed() {
	for copies in [false, true] {
		let place = Place::new();
		let store = place.open().unwrap();
		store.commit(batch(0, 300)).wait().unwrap();
		if copies {
			for file in fs::read_dir(place.dir.path()).unwrap() {
				fs::read(file.unwrap().path()).unwrap();
			}
		}
		another_program_opens_and_closes(&place);
		let answer = store.commit(batch(1, 300)).wait();
		assert_eq!(answer.is_err(), copies, "{answer:?}");
		if let Err(error) = &answer {
			assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
			assert!(error.to_string().contains("start the node again"), "{error}");
			let next = store.commit(batch(2, 300)).wait();
			assert!(matches!(next, Err(StoreError::Poisoned { .. })), "{next:?}");
		}
		drop(store);
		let expected = if copies { 1 } else { 2 };
		assert_eq!(count(&place.open().unwrap()), expected);
	}
}

/// The database is restored under a node that runs.
#[test]
fn nothing_is_acknowledged_into_a_database_that_was_replaced() {
	let place = Place::new();
	let store = place.open().unwrap();
	store.commit(batch(0, 300)).wait().unwrap();
	let copy = place.dir.path().join("copy");
	fs::copy(place.path(), &copy).unwrap();
	fs::rename(&copy, place.path()).unwrap();
	let answer = store.commit(batch(1, 300)).wait();
	assert!(matches!(answer, Err(StoreError::Indeterminate { .. })), "{answer:?}");
}

/// A medium beside is opened by name, and another database may have that name by now: it is not read,
/// and neither is anything by a handle that has ended.
#[test]
fn nothing_is_read_from_a_database_that_was_replaced() {
	let place = Place::new();
	let store = place.open().unwrap();
	store.commit(batch(0, 300)).wait().unwrap();
	let (older, copy) = (place.dir.path().join("older"), place.dir.path().join("copy"));
	for path in [&older, &copy] {
		fs::write(path, "").unwrap();
	}
	store.copy_to(&older).unwrap();
	fs::rename(&older, place.path()).unwrap();
	let refused = store.copy_to(&copy);
	assert!(matches!(refused, Err(StoreError::Indeterminate { .. })), "{refused:?}");
	assert!(store.commit(batch(1, 300)).wait().is_err());
	let refused = store.copy_to(&copy);
	assert!(matches!(refused, Err(StoreError::Poisoned { .. })), "{refused:?}");
	assert_eq!(fs::metadata(&copy).unwrap().len(), 0);
}

/// A thread that waits for a read while another one writes and flushes reads beside it.
#[test]
fn no_read_waits_for_a_flush() {
	let place = Place::new();
	let store = place.open().unwrap();
	fill(&store, 20);
	let (read, was_read) = std::sync::mpsc::channel();
	std::thread::scope(|scope| {
		// Whatever has the engine here has it for as long as the reads take.
		store.with_medium(|_| {
			for _ in 0..8 {
				let (store, read) = (&store, read.clone());
				scope.spawn(move || {
					let one = store.get(&Key::numbered(T, b"", 7)).wait().unwrap();
					read.send((one.is_some(), count(store))).unwrap();
				});
				let found = was_read.recv_timeout(std::time::Duration::from_secs(60));
				assert_eq!(found.expect("the read waits for the engine"), (true, 20));
			}
		});
	});
	assert_eq!(store.stats().reads_beside, 16);
	// What was committed is seen at once, whoever reads.
	store.commit(batch(20, 300)).wait().unwrap();
	let seen = std::thread::scope(|scope| {
		store.with_medium(|_| scope.spawn(|| count(&store)).join().unwrap())
	});
	assert_eq!(seen, Some(21));
	// The media are closed with the store, and its files are tidied up.
	drop(store);
	assert!(!place.dir.path().join("node.leyden-wal").exists());
}

/// The lock's file was removed, or the file system has no locks: the epoch fences all the same.
#[test]
fn an_older_handle_is_fenced_in_its_next_transaction() {
	for count_of_writes in [1u64, 2] {
		let place = Place::new();
		let older = place.open().unwrap();
		older.commit(batch(0, 10)).wait().unwrap();
		fs::remove_file(place.dir.path().join("node.leyden-lock-default")).unwrap();
		let newer = place.open().unwrap();
		let mut writes = Batch::new();
		for n in 0..count_of_writes {
			writes.put(Key::numbered(T, b"", n), Value::new(RecordType(0x8000), 1, *b"late"));
		}
		let refused = older.commit(writes).wait();
		assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
		let mut deletes = Batch::new();
		deletes.delete(Key::numbered(T, b"", 0));
		let refused = older.commit(deletes).wait();
		assert!(
			matches!(refused, Err(StoreError::Fenced { .. } | StoreError::Poisoned { .. })),
			"{refused:?}"
		);
		newer.commit(batch(1, 10)).wait().unwrap();
		assert_eq!(count(&newer), 2);
	}
}

#[test]
fn namespaces_of_one_file_work_side_by_side() {
	let place = Place::new();
	let child = Holder::of(&place, "other");
	let here = place.open().unwrap();
	let third = SqliteStore::open(place.path(), Namespace::new("third").unwrap()).unwrap();
	std::thread::scope(|scope| {
		for store in [&here, &third] {
			scope.spawn(move || {
				for n in 0..100 {
					store.commit(batch(n, 50)).wait().unwrap();
				}
			});
		}
	});
	assert_eq!((count(&here), count(&third)), (100, 100));
	let twice = SqliteStore::open(place.path(), Namespace::new("third").unwrap());
	assert!(matches!(twice, Err(StoreError::Locked { .. })));
	child.kill();
	let other = SqliteStore::open(place.path(), Namespace::new("other").unwrap()).unwrap();
	assert_eq!(count(&other), 20);
	let three = SqliteStore::namespaces(place.path()).unwrap();
	assert_eq!(three.len(), 3);
}

#[cfg(unix)]
#[test]
fn nobody_but_the_owner_reads_the_files() {
	use std::os::unix::fs::PermissionsExt;
	let place = Place::new();
	let store = place.open().unwrap();
	fill(&store, 3);
	for file in fs::read_dir(place.dir.path()).unwrap() {
		let file = file.unwrap();
		let mode = file.metadata().unwrap().permissions().mode();
		assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
	}
}

/// Copies of the files, made after each acknowledged commit, hold all that was acknowledged.
#[test]
fn a_copy_of_the_files_holds_what_was_acknowledged() {
	let place = Place::new();
	let store = place.open().unwrap();
	for n in 0..40 {
		store.commit(batch(n, 300)).wait().unwrap();
		let copy = Place::new();
		fs::copy(place.path(), copy.path()).unwrap();
		let wal = |place: &Place| place.dir.path().join("node.leyden-wal");
		fs::copy(wal(&place), wal(&copy)).unwrap();
		let copied = copy.open().unwrap();
		assert_eq!(count(&copied) as u64, n + 1);
	}
}

#[test]
fn threads_share_flushes_and_lazy_commits_need_none() {
	let place = Place::new();
	let store = place.open().unwrap();
	std::thread::scope(|scope| {
		for thread in 0..64u64 {
			let store = &store;
			scope.spawn(move || {
				for n in 0..20 {
					store.commit(batch(thread * 100 + n, 100)).wait().unwrap();
				}
			});
		}
	});
	let stats = store.stats();
	assert_eq!(stats.batches, 64 * 20);
	assert!(stats.flushes <= stats.groups && stats.groups < stats.batches, "{stats:?}");
	for n in 0..10 {
		let mut lazy = batch(n, 1);
		lazy.durability(Durability::Lazy);
		store.commit(lazy).wait().unwrap();
	}
	assert_eq!(store.stats().flushes, stats.flushes);
}

#[test]
fn a_full_queue_makes_callers_work_and_dropping_the_store_finishes_it() {
	let place = Place::new();
	let store = place.open().unwrap();
	let tickets: Vec<_> =
		(0..MAX_WAITING as u64 + 500).map(|n| store.commit(batch(n, 1))).collect();
	drop(store);
	let done = tickets.len();
	tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
	assert_eq!(done, MAX_WAITING + 500);
	assert_eq!(count(&place.open().unwrap()), done);
}
