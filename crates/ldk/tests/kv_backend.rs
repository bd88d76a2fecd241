//! Leyden's records in LDK's stores: the conformance suite, crashes everywhere, stores that fail,
//! delay and reorder as LDK's contract allows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod kv_rig;

use std::sync::Arc;

use kv_rig::{impatient, Disk, FileKv, Trouble, Unruly};
use leyden_ldk::{KvBackedStore, KV_FORMAT};
use leyden_store::{Batch, Key, KeyRange, Namespace, RecordType, Store, StoreError, Table, Value};

mod sync {
	leyden_store::conformance_tests!(crate::kv_rig::Backing::unruly_sync());
}

mod asynchronous {
	leyden_store::conformance_tests!(crate::kv_rig::Backing::unruly_async());
}

mod filesystem {
	leyden_store::conformance_tests!(crate::kv_rig::Backing::filesystem());
}

const T: Table = Table::new("t");

fn value(text: &str) -> Value {
	Value::new(RecordType(0x8000), 1, text.as_bytes())
}

fn key(text: &str) -> Key {
	Key::new(T, text.as_bytes())
}

fn open(disk: &Disk) -> Result<KvBackedStore, StoreError> {
	KvBackedStore::open_with(Arc::new(Unruly::on(disk)), &Namespace::default(), impatient())
}

/// Batches that put, change and delete the same keys, alone and together.
fn batches() -> Vec<Batch> {
	let mut batches = Vec::new();
	let mut add = |f: &dyn Fn(&mut Batch)| {
		let mut batch = Batch::new();
		f(&mut batch);
		batches.push(batch);
	};
	add(&|b| {
		let _ = b.put(key("a"), value("1"));
	});
	add(&|b| {
		let _ = b.put(key("a"), value("2")).put(key("b"), value("2")).put(key("c"), value("2"));
	});
	add(&|b| {
		let _ = b.put(key("b"), value("3"));
	});
	add(&|b| {
		let _ = b.delete(key("a"));
	});
	add(&|b| {
		let _ = b.delete(key("b")).put(key("a"), value("5")).put(key("d"), value("5"));
	});
	add(&|b| {
		let _ = b.delete(key("a"));
	});
	add(&|b| {
		let _ = b.delete(key("c")).delete(key("d"));
	});
	add(&|b| {
		let _ = b.append(T, b"n", value("8"));
	});
	add(&|b| {
		let _ = b.put(key("a"), value("9")).put(key("b"), value("9"));
	});
	batches
}

fn all(store: &KvBackedStore) -> Vec<(Key, String)> {
	let page = store.scan(KeyRange::all(T), 100).wait().unwrap();
	let text = |value: Value| String::from_utf8(value.body).unwrap();
	page.records.into_iter().map(|(key, record)| (key, text(record.value))).collect()
}

/// Dies before and after each write that LDK's store is asked for, with what was asked for at the
/// same time done or not in every combination of first and rest; then everything acknowledged is
/// there, and of the batch under way all or nothing.
#[test]
fn a_batch_is_one_wherever_it_dies() {
	// What it looks like after each batch.
	let disk = Disk::new();
	let store = open(&disk).unwrap();
	let mut states = vec![all(&store)];
	for batch in batches() {
		store.commit(batch).wait().unwrap();
		states.push(all(&store));
	}
	drop(store);
	let (opening, total) = (Disk::changes_of_an_opening(), disk.changes());
	let mut deaths = 0;
	for at in opening..total {
		for trouble in [Trouble::DieBefore(at), Trouble::DieAfter(at), Trouble::DieReordered(at)] {
			let disk = Disk::new();
			disk.plan(trouble);
			let Ok(store) = open(&disk) else { panic!("{trouble:?}") };
			let committed = batches().into_iter().map(|batch| store.commit(batch).wait());
			let acknowledged = committed.take_while(Result::is_ok).count();
			drop(store);
			disk.plan(Trouble::None);
			deaths += 1;
			// The next life may die as well, in the middle of making good.
			for again in 0..4 {
				disk.plan(Trouble::DieAfter(disk.changes() + again));
				drop(open(&disk));
			}
			disk.plan(Trouble::None);
			let store = open(&disk).unwrap();
			let found = all(&store);
			let right = [Some(&states[acknowledged]), states.get(acknowledged + 1)];
			assert!(right.contains(&Some(&found)), "{trouble:?} {acknowledged}: {found:?}");
			store.commit(batches().remove(1)).wait().unwrap();
		}
	}
	eprintln!("{deaths} deaths");
	assert!(deaths > 60, "{deaths}");
}

/// A write that fails now and then is asked for again; one that fails for good ends the handle, and
/// what was acknowledged is there.
#[test]
fn a_store_that_fails_now_and_then_costs_nothing() {
	let disk = Disk::new();
	let store = open(&disk).unwrap();
	disk.plan(Trouble::FailEvery(3));
	for batch in batches() {
		store.commit(batch).wait().unwrap();
	}
	disk.plan(Trouble::FailAll);
	let error = store.commit(batches().remove(1)).wait().unwrap_err();
	assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
	drop(store);
	disk.plan(Trouble::None);
	assert_eq!(all(&open(&disk).unwrap()).len(), 3);
}

#[test]
fn a_full_store_says_so_and_goes_on_when_there_is_space() {
	let disk = Disk::new();
	let store = open(&disk).unwrap();
	for batch in batches() {
		store.commit(batch).wait().unwrap();
	}
	let before = all(&store);
	disk.plan(Trouble::Full);
	for batch in batches() {
		let error = store.commit(batch).wait().unwrap_err();
		assert!(matches!(error, StoreError::NoSpace { .. }) && error.is_retriable(), "{error}");
	}
	assert_eq!(all(&store), before);
	disk.plan(Trouble::None);
	store.commit(batches().remove(0)).wait().unwrap();
}

/// A redo that cannot be read may be the only copy of what was acknowledged: nothing is done.
#[test]
fn a_damaged_redo_stops_everything_and_is_left_alone() {
	let disk = Disk::new();
	let store = open(&disk).unwrap();
	store.commit(batches().remove(1)).wait().unwrap();
	drop(store);
	let redo = disk.find("_redo");
	let whole = disk.get(&redo);
	for at in 0..whole.len() {
		let mut bad = whole.clone();
		bad[at] ^= 0x40;
		disk.set(&redo, bad.clone());
		let error = open(&disk).unwrap_err();
		assert!(matches!(error, StoreError::Corrupt { .. } | StoreError::Newer { .. }), "{error}");
		assert!(error.to_string().contains("redo") || at == 2, "{error}");
		assert_eq!(disk.get(&redo), bad);
	}
	disk.set(&redo, whole);
	assert_eq!(all(&open(&disk).unwrap()).len(), 3);
}

#[test]
fn what_is_not_ours_or_newer_is_refused() {
	let disk = Disk::new();
	drop(open(&disk).unwrap());
	let about = disk.find("_about");
	disk.set(&about, b"leyden 3".to_vec());
	assert!(matches!(open(&disk), Err(StoreError::Newer { found: 3, known: 2, .. })));
	disk.set(&about, b"something else".to_vec());
	let error = open(&disk).unwrap_err();
	assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
}

/// One write for an append, and n + 1 for a batch of n records.
#[test]
fn an_append_is_one_write() {
	let disk = Disk::new();
	let store = open(&disk).unwrap();
	let append = || {
		let mut batch = Batch::new();
		let _ = batch.append(T, b"", value("x"));
		batch
	};
	// The first one begins the sequence.
	store.commit(append()).wait().unwrap();
	let before = disk.changes();
	store.commit(append()).wait().unwrap();
	assert_eq!(disk.changes() - before, 1);
	let mut three = append();
	three.put(key("a"), value("1")).put(key("b"), value("1"));
	let before = disk.changes();
	store.commit(three).wait().unwrap();
	assert_eq!(disk.changes() - before, 4);
}

/// A batch larger than a value is written down in parts, and is still one.
#[test]
fn a_batch_of_many_large_records_is_one() {
	let disk = Disk::new();
	let large = |n: usize| {
		let mut batch = Batch::new();
		for record in 0..3 {
			let value = Value::new(RecordType(0x8000), 1, vec![n as u8; 30 << 20]);
			batch.put(key(&format!("large{record}")), value);
		}
		batch
	};
	let store = open(&disk).unwrap();
	store.commit(large(1)).wait().unwrap();
	let done = disk.changes();
	drop(store);
	let first = |disk: &Disk| {
		let store = open(disk).unwrap();
		let bodies: Vec<u8> = (0..3)
			.map(|n| store.get(&key(&format!("large{n}"))).wait().unwrap().unwrap().value.body[0])
			.collect();
		bodies
	};
	assert_eq!(first(&disk), [1; 3]);
	// Three parts, the head, three records; dying anywhere among them.
	let disk = disk.snapshot();
	let opened = {
		// The first one removes the redo in parts, the next its head.
		drop(open(&disk).unwrap());
		let before = disk.changes();
		drop(open(&disk).unwrap());
		disk.changes() - before
	};
	let base = disk.snapshot();
	assert!(done > 7);
	for write in 0..7 {
		let disk = base.snapshot();
		disk.plan(Trouble::DieAfter(disk.changes() + opened + 7 + write));
		let store = open(&disk).unwrap();
		// The parts of its redo are in the way of the next.
		store.commit(large(3)).wait().unwrap();
		let acknowledged = store.commit(large(2)).wait().is_ok();
		drop(store);
		disk.plan(Trouble::None);
		let found = first(&disk);
		let expected = if acknowledged || write >= 3 { [2; 3] } else { [3; 3] };
		assert_eq!(found, expected, "{write}");
	}
}

/// What LDK's own store has on disk when a process dies without a word is what was acknowledged.
#[test]
fn ldks_filesystem_store_carries_it() {
	let dir = tempfile::tempdir().unwrap();
	let open = || KvBackedStore::open(FileKv::in_dir(dir.path()), &Namespace::default()).unwrap();
	let store = open();
	for batch in batches() {
		store.commit(batch).wait().unwrap();
	}
	let found = all(&store);
	std::mem::forget(store);
	assert_eq!(all(&open()), found);
}

/// A store that an older version wrote, with a redo that is not done, opens in this one. Each file
/// is made once, by its own version, and never again: the newest by `LEYDEN_WRITE_FIXTURES=1 cargo
/// test -p leyden-ldk --test kv_backend`.
#[test]
fn what_earlier_versions_wrote_opens() {
	let path =
		|version: u32| format!("{}/tests/kv_rig/v{version}.kvstore", env!("CARGO_MANIFEST_DIR"));
	if std::env::var_os("LEYDEN_WRITE_FIXTURES").is_some() {
		let disk = Disk::new();
		let store = open(&disk).unwrap();
		for batch in batches() {
			store.commit(batch).wait().unwrap();
		}
		// It dies behind the redo of the next batch.
		disk.plan(Trouble::DieAfter(disk.changes()));
		assert!(store.commit(batches().remove(4)).wait().is_err());
		std::fs::write(path(KV_FORMAT), disk.dump()).unwrap();
	}
	for version in 1..=KV_FORMAT {
		let disk = Disk::load(&std::fs::read_to_string(path(version)).unwrap());
		let store = open(&disk).unwrap();
		let numbered = Key::numbered(T, b"n", 1);
		let found: Vec<(Key, String)> = all(&store);
		let expected = [(key("a"), "5"), (key("d"), "5"), (numbered, "8")];
		assert_eq!(found, expected.map(|(key, text)| (key, text.to_owned())), "{version}");
		assert_eq!(store.epoch().unwrap().get(), 2);
		// An older version does not overlook what this one writes.
		assert_eq!(disk.get(&disk.find("_about")), format!("leyden {KV_FORMAT}").into_bytes());
	}
}

/// Negative control: a store that answers before it has written loses what was acknowledged, and
/// the harness sees it.
#[test]
fn a_store_that_lies_is_caught() {
	let disk = Disk::new();
	disk.plan(Trouble::Lies);
	let store = open(&disk).unwrap();
	for batch in batches() {
		store.commit(batch).wait().unwrap();
	}
	let acknowledged = all(&store);
	drop(store);
	let disk = disk.after_power_loss();
	assert_ne!(all(&open(&disk).unwrap()), acknowledged);
}
