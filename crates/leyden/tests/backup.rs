//! A copy of a running store is consistent, checked and private; what is damaged or missing in a store
//! is found and named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use leyden::id::{Domain, EventKind, IdBuilder, Lane};
use leyden::log::{LogError, LogReader, NewEvent, Start};
use leyden::store::{Batch, KeyRange, Namespace, StoreError, Table};
use leyden::{Leyden, StoreUrl};

fn event(n: u64) -> NewEvent {
	let id = IdBuilder::new(Domain::new("test/backup", 1), "n").number(n).finish();
	let kind = EventKind::new("kind").unwrap();
	NewEvent { id, kind, lane: Lane::named(&n.to_string()), payload: vec![n as u8; 100] }
}

fn urls(dir: &Path) -> Vec<StoreUrl> {
	let mut urls = vec![StoreUrl::Sqlite(dir.join("node.leyden"))];
	if cfg!(feature = "storage-redb") {
		urls.push(StoreUrl::Redb(dir.join("node.redb")));
	}
	urls
}

fn append_and_ack(leyden: &Leyden, numbers: std::ops::RangeInclusive<u64>) {
	let consumer = leyden.consumer("app", Start::Beginning).unwrap();
	for n in numbers {
		leyden.events().append(event(n)).unwrap();
		if n % 10 != 0 {
			let mut held = Vec::new();
			while let Some(delivery) = consumer.next_event().unwrap() {
				match delivery.index().get() % 10 {
					0 => held.push(delivery),
					_ => delivery.ack().unwrap(),
				}
			}
		}
	}
}

/// Has the thread beside the test end with it.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
	fn drop(&mut self) {
		self.0.store(true, Ordering::SeqCst);
	}
}

/// Copies are made while a thread appends and acks: each is one moment of the store.
#[test]
fn a_copy_of_a_store_that_is_written_is_one_moment_of_it() {
	let dir = tempfile::tempdir().unwrap();
	for (number, url) in urls(dir.path()).into_iter().enumerate() {
		let leyden = Leyden::builder().url(url.clone()).open().unwrap();
		append_and_ack(&leyden, 1..=100);
		let stop = AtomicBool::new(false);
		std::thread::scope(|scope| {
			// Also if an assertion fails.
			let _stops = Stops(&stop);
			scope.spawn(|| {
				for n in (100..).step_by(10).take_while(|_| !stop.load(Ordering::SeqCst)) {
					append_and_ack(&leyden, n + 1..=n + 10);
				}
			});
			let mut newest = 0;
			for copy in 0..5 {
				let to = dir.path().join(format!("copy-{number}-{copy}"));
				let backup = leyden.backup(&to).unwrap();
				assert!(backup.verified.is_clean() && backup.verified.records > 200);
				assert_eq!(backup.bytes, fs::metadata(&to).unwrap().len());
				let of = |stream: &str| {
					let told = backup.told_again.iter();
					told.filter(|t| t.stream == stream).collect::<Vec<_>>()
				};
				let told = of("events")[0];
				assert_eq!(
					(told.consumer.as_str(), &told.namespace),
					("app", &Namespace::default())
				);
				assert!(told.newest >= newest.max(100), "{told:?}");
				newest = told.newest;
				// Accepted as what it is, it opens, and goes on from there.
				backup.place.accept(&Namespace::default()).unwrap();
				let copied = Leyden::builder().url(backup.place.clone()).open().unwrap();
				assert_eq!(copied.events().head().unwrap().get(), newest);
				let consumer = copied.consumer("app", Start::Beginning).unwrap();
				let unacked = leyden_testkit::intact(consumer.unacked(None, 10_000).unwrap());
				assert_eq!(unacked.len() as u64, told.unacked);
				let late = unacked.iter().filter(|entry| entry.index().get() % 10 != 0);
				assert!(late.count() <= 1, "at most the one whose ack was under way");
			}
		});
	}
}

#[test]
fn a_copy_replaces_nothing_and_belongs_to_its_owner() {
	let dir = tempfile::tempdir().unwrap();
	for (number, url) in urls(dir.path()).into_iter().enumerate() {
		let leyden = Leyden::builder().url(url.clone()).open().unwrap();
		append_and_ack(&leyden, 1..=20);
		let to = dir.path().join(format!("copy-{number}"));
		// A log that an older file of this name has left would be applied to the copy.
		let log = dir.path().join(format!("copy-{number}-wal"));
		fs::write(&log, "old").unwrap();
		let refused = leyden.backup(&to).unwrap_err();
		assert!(refused.to_string().contains("-wal is there already"), "{refused}");
		fs::remove_file(log).unwrap();
		leyden.backup(&to).unwrap();
		#[cfg(unix)]
		{
			use std::os::unix::fs::PermissionsExt;
			assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
		}
		let before = fs::read(&to).unwrap();
		let refused = leyden.backup(&to).unwrap_err();
		assert!(matches!(&refused, LogError::Store(StoreError::Invalid { .. })), "{refused}");
		assert!(refused.to_string().contains("is there already"), "{refused}");
		assert_eq!(fs::read(&to).unwrap(), before);
		let parts = fs::read_dir(dir.path()).unwrap();
		let parts = parts.map(|file| file.unwrap().file_name().into_string().unwrap());
		assert!(parts.filter(|name| name.ends_with(".part")).count() == 0);
		let nowhere = leyden.backup(dir.path().join("no/such/directory")).unwrap_err();
		assert!(nowhere.to_string().contains("copy"), "{nowhere}");
	}
	let memory = Leyden::builder().url(StoreUrl::Memory).open().unwrap();
	let refused = memory.backup(dir.path().join("memory")).unwrap_err();
	assert!(refused.to_string().contains("no copies"), "{refused}");
	assert!(!dir.path().join("memory").exists());
}

/// All namespaces of the file are in it, and another process may ask for it.
#[test]
fn a_copy_has_every_namespace() {
	let dir = tempfile::tempdir().unwrap();
	let url = StoreUrl::Sqlite(dir.path().join("node.leyden"));
	let open = |name: &str| {
		let namespace = Namespace::new(name).unwrap();
		Leyden::builder().url(url.clone()).namespace(namespace).open().unwrap()
	};
	let (one, two) = (open("one"), open("two"));
	append_and_ack(&one, 1..=20);
	append_and_ack(&two, 1..=40);
	let backup = url.backup(dir.path().join("copy")).unwrap();
	let mut newest: Vec<_> = backup
		.told_again
		.iter()
		.filter(|told| told.stream == "events")
		.map(|told| (told.namespace.to_string(), told.newest, told.unacked))
		.collect();
	newest.sort();
	assert_eq!(newest, [("one".to_owned(), 20, 2), ("two".to_owned(), 40, 4)]);
	drop((one, two));
	let copied = backup.place.open_read_only(Namespace::new("two").unwrap()).unwrap();
	assert_eq!(LogReader::new(copied).streams().unwrap().len(), 2);
}

/// A store with a record missing makes no copy, and `verify` names what is missing.
#[test]
fn what_is_missing_is_named_and_is_not_copied() {
	let dir = tempfile::tempdir().unwrap();
	for (number, url) in urls(dir.path()).into_iter().enumerate() {
		let leyden = Leyden::builder().url(url.clone()).open().unwrap();
		append_and_ack(&leyden, 1..=20);
		let ids = KeyRange::all(Table::new("log_ids"));
		let page = leyden.store().scan(ids, 1).wait().unwrap();
		let mut batch = Batch::new();
		batch.delete(page.records[0].0.clone());
		leyden.store().commit(batch).wait().unwrap();
		let to = dir.path().join(format!("copy-{number}"));
		let refused = leyden.backup(&to).unwrap_err();
		assert!(matches!(&refused, LogError::Store(StoreError::Corrupt { .. })), "{refused}");
		assert!(!to.exists());
		drop(leyden);
		let verified = url.verify().unwrap();
		assert_eq!(verified.problems.len(), 1, "{:?}", verified.problems);
		let text = verified.problems[0].error.to_string();
		assert!(text.contains("the id of entry") && text.contains("is missing"), "{text}");
		assert_eq!(verified.problems[0].namespace, Some(Namespace::default()));
	}
}

/// SQLite's own structure is checked, too.
#[test]
fn damage_below_the_records_is_found() {
	let dir = tempfile::tempdir().unwrap();
	let path = dir.path().join("node.leyden");
	let url = StoreUrl::Sqlite(path.clone());
	let leyden = Leyden::builder().url(url.clone()).open().unwrap();
	append_and_ack(&leyden, 1..=300);
	drop(leyden);
	assert!(url.verify().unwrap().is_clean());
	let mut bytes = fs::read(&path).unwrap();
	// The number of cells of a page in the middle, one less.
	let free = free_pages(&bytes);
	let in_use = |page: &usize| !free.contains(&(page + 1));
	let pages: Vec<_> = (4..bytes.len() / 4096).filter(in_use).step_by(3).collect();
	let mut found = 0;
	for page in &pages {
		let cells = page * 4096 + 4;
		let whole = bytes.clone();
		bytes[cells] = bytes[cells].wrapping_sub(1);
		fs::write(&path, &bytes).unwrap();
		let verified = url.verify();
		found += usize::from(!verified.is_ok_and(|verified| verified.is_clean()));
		bytes = whole;
	}
	assert!(pages.len() > 3 && found == pages.len(), "{found} of {pages:?}");
	fs::write(&path, &bytes).unwrap();
	assert!(url.verify().unwrap().is_clean());
}

/// The numbers of the pages of a SQLite file that hold nothing, from 1 on.
fn free_pages(file: &[u8]) -> Vec<usize> {
	let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
	let (mut free, mut trunk) = (Vec::new(), number(32));
	while trunk != 0 {
		let at = (trunk - 1) * 4096;
		free.push(trunk);
		free.extend((0..number(at + 4)).map(|leaf| number(at + 8 + 4 * leaf)));
		trunk = number(at);
	}
	free
}
