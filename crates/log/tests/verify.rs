//! What is missing is damage, too: each way in which a record can be gone is found and named, and a
//! log in order has no findings, whatever was done with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{event, Process, STREAM};
use leyden_log::{LogIndex, LogOptions, LogReader, Retention};
use leyden_store::verify::Findings;
use leyden_store::{
	Batch, Key, KeyRange, MemoryMedium, MemoryStore, Namespace, RecordType, Store, StoreError,
	Table, Value,
};
use leyden_testkit::{interrupt_everywhere, InterruptedStore};

/// A log with everything in it: trimmed entries and tombstones, two consumers with a watermark and
/// acks above it, a retry, a dead letter.
fn used(medium: &MemoryMedium) -> Process {
	let retention = |min_count| Retention { min_count, min_age: Duration::ZERO };
	let options = LogOptions { history: retention(10), tombstones: retention(1_000) };
	let process = Process::with(medium, options);
	process.log.append_batch((1..=100).map(|n| event(n, n as u8)).collect()).unwrap();
	let (one, two) = (process.consumer("one"), process.consumer("two"));
	let index = |n| LogIndex::new(n).unwrap();
	for consumer in [&one, &two] {
		let acks: Vec<_> = (1..=50).chain(60..=70).map(index).collect();
		consumer.ack_plan_many(&acks).run(&process.store).unwrap();
		consumer.tidy().unwrap();
	}
	one.next_event().unwrap().unwrap().dead_letter("no").unwrap();
	one.next_event().unwrap().unwrap().retry_after(Duration::from_secs(60)).unwrap();
	process
}

fn findings(store: &Arc<dyn Store>) -> Findings {
	let mut findings = Findings::new(50);
	LogReader::new(Arc::clone(store)).verify(&mut findings).unwrap();
	findings
}

fn texts(store: &Arc<dyn Store>) -> Vec<String> {
	findings(store).errors().iter().map(ToString::to_string).collect()
}

fn keys(store: &Arc<dyn Store>, table: &'static str) -> Vec<Key> {
	let page = store.scan(KeyRange::all(Table::new(table)), 10_000).wait().unwrap();
	page.records.into_iter().map(|(key, _)| key).collect()
}

fn remove(store: &Arc<dyn Store>, keys: impl IntoIterator<Item = Key>) {
	let mut batch = Batch::new();
	keys.into_iter().for_each(|key| {
		batch.delete(key);
	});
	store.commit(batch).wait().unwrap();
}

#[test]
fn a_log_in_order_has_no_findings() {
	let process = used(&MemoryMedium::new());
	let found = findings(&process.store);
	assert!(found.is_clean(), "{:?}", found.errors());
	assert!(found.records() > 200, "{}", found.records());
	// An empty store, and one with an empty log.
	let empty: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
	assert!(findings(&empty).is_clean());
	assert!(findings(&Process::new().store).is_clean());
}

/// Every record but those of which nothing else speaks is missed.
#[test]
fn every_record_that_is_missing_is_named() {
	/// Acks, retries and dead letters: nothing else speaks of them. The owner is made anew.
	const ALONE: [&str; 4] = ["log_acks", "log_retries", "log_dead", "log_owners"];
	let all = used(&MemoryMedium::new());
	let tables = ["log_streams", "log_consumers", "log_entries", "log_ids", "log_tombs"];
	for table in tables {
		let count = keys(&all.store, table).len();
		assert!(count > 0, "{table}");
		for n in 0..count {
			let process = used(&MemoryMedium::new());
			let key = keys(&process.store, table)[n].clone();
			remove(&process.store, [key.clone()]);
			let found = texts(&process.store);
			assert!(found.iter().any(|text| text.contains("missing")), "{key}: {found:?}");
		}
	}
	for table in ALONE {
		assert!(!keys(&all.store, table).is_empty(), "{table}");
	}
}

#[test]
fn what_is_missing_is_named() {
	let named = |table, take: fn(&Vec<Key>) -> Vec<Key>, words: &[&str]| {
		let process = used(&MemoryMedium::new());
		let gone = take(&keys(&process.store, table));
		remove(&process.store, gone);
		let found = texts(&process.store);
		for word in words {
			assert!(found.iter().any(|text| text.contains(word)), "{word}: {found:?}");
		}
	};
	named("log_streams", Vec::clone, &["the record of stream \"events\" is missing"]);
	named("log_consumers", |k| vec![k[1].clone()], &["the record of consumer \"two\" of stream"]);
	named("log_entries", |k| vec![k[20].clone()], &["entry 71 of stream \"events\" is missing"]);
	named("log_entries", |k| k[20..23].to_vec(), &["entry 71", "entry 72", "entry 73"]);
	named(
		"log_ids",
		|k| vec![k[80].clone()],
		&["the id of entry 81 of stream \"events\" is missing"],
	);
	// All of them from some time on.
	named("log_entries", |k| k[10..].to_vec(), &["the id's entry 100"]);
}

/// The last entries and their ids are gone, as in a database that is older than its acks.
#[test]
fn acks_of_what_was_never_appended_are_found() {
	let process = used(&MemoryMedium::new());
	let consumer = process.consumer("two");
	let last = LogIndex::new(100).unwrap();
	consumer.ack_plan_many(&[last]).run(&process.store).unwrap();
	let entry = keys(&process.store, "log_entries").pop().unwrap();
	let id = keys(&process.store, "log_ids").pop().unwrap();
	remove(&process.store, [entry, id]);
	let found = texts(&process.store);
	assert!(
		found.iter().any(|t| t.contains("has acked 100, and stream \"events\" ends with 99")),
		"{found:?}"
	);
}

/// Each damaged record is named once, and none hides another.
#[test]
fn every_damaged_record_is_named_once() {
	let medium = MemoryMedium::new();
	let process = used(&medium);
	let mut damaged = Vec::new();
	for table in ["log_streams", "log_consumers", "log_entries", "log_ids", "log_tombs", "log_acks"]
	{
		for key in keys(&process.store, table).into_iter().step_by(3) {
			medium.damage(&Namespace::default(), &key, |frame| *frame.last_mut().unwrap() ^= 1);
			damaged.push(StoreError::corrupt(&key, ""));
		}
	}
	let place = |error: &StoreError| match error {
		StoreError::Corrupt { table, key, .. } => (table.to_string(), key.clone()),
		error => panic!("{error}"),
	};
	let mut expected: Vec<_> = damaged.iter().map(place).collect();
	expected.sort();
	let mut found = Findings::new(10_000);
	LogReader::new(Arc::clone(&process.store)).verify(&mut found).unwrap();
	let mut found: Vec<_> = found.errors().iter().map(place).collect();
	found.sort();
	let odd: Vec<_> = found.iter().filter(|place| !expected.contains(place)).take(5).collect();
	assert!(found == expected, "{} for {}: {odd:?}", found.len(), expected.len());
}

/// A node that goes on meanwhile, and trims, makes no findings.
#[test]
fn a_log_that_is_written_while_it_is_checked_has_no_findings() {
	interrupt_everywhere(|at| {
		let process = used(&MemoryMedium::new());
		let inner = Arc::clone(&process.store);
		let store = InterruptedStore::new(inner, at, move || {
			let next = 101..=130;
			process.log.append_batch(next.map(|n| event(n, n as u8)).collect()).unwrap();
			for name in ["one", "two", "three"] {
				let consumer = process.consumer(name);
				let acks: Vec<_> = (1..=120).map(|n| LogIndex::new(n).unwrap()).collect();
				consumer.ack_plan_many(&acks).run(&process.store).unwrap();
				consumer.tidy().unwrap();
			}
		});
		let seen: Arc<dyn Store> = Arc::<InterruptedStore>::clone(&store);
		let found = texts(&seen);
		assert!(found.is_empty(), "before request {at}: {found:?}");
		store
	});
}

/// A record of another type, or a key of another form, where a record of the log belongs.
#[test]
fn what_does_not_belong_there_is_found() {
	for (table, key) in [
		("log_entries", &b"events\0x"[..]),
		("log_ids", b"events\0x"),
		("log_acks", b"events\0one\0x"),
		("log_consumers", b"events\0one"),
	] {
		let process = used(&MemoryMedium::new());
		let mut batch = Batch::new();
		let key = Key::new(Table::new(table), key);
		batch.put(key.clone(), Value::new(RecordType(0x8000), 1, *b"?"));
		process.store.commit(batch).wait().unwrap();
		let found = texts(&process.store);
		assert!(!found.is_empty(), "{key}");
	}
}

/// A name that is no text any more is found, and ends.
#[test]
fn a_damaged_name_ends() {
	for (table, key) in [
		("log_ids", &b"\xecdk\0\x02\x03\x04\x05"[..]),
		("log_acks", b"\xec\xff\xee\0\xfe\xdd\0\x01\x02"),
		("log_entries", b"\xff\xff\xff"),
	] {
		let process = used(&MemoryMedium::new());
		let mut batch = Batch::new();
		let key = Key::new(Table::new(table), key);
		batch.put(key.clone(), Value::new(RecordType(0x8000), 1, *b"?"));
		process.store.commit(batch).wait().unwrap();
		assert!(!texts(&process.store).is_empty(), "{key}");
	}
}

/// A consumer that begins behind what there is.
#[test]
fn a_consumer_that_begins_in_the_future_has_acked_nothing_that_is_not_there() {
	let process = used(&MemoryMedium::new());
	let start = leyden_log::Start::After(LogIndex::new(5_000).unwrap());
	let options = leyden_log::ConsumerOptions { start, ..Default::default() };
	drop(process.log.consumer("future", options).unwrap());
	assert!(texts(&process.store).is_empty());
}

/// The counts of an operator are exact, and true while acks are folded.
#[test]
fn counts_and_watermarks_are_exact() {
	let process = used(&MemoryMedium::new());
	let reader = LogReader::new(Arc::clone(&process.store));
	for name in ["one", "two"] {
		assert_eq!(reader.unacked_count(STREAM, name).unwrap(), 39, "{name}");
		let unacked = reader.unacked(STREAM, name, None, 1_000).unwrap();
		assert_eq!(unacked.len(), 39, "{name}");
	}
	let process = Process::new();
	process.log.append_batch((1..=9).map(|n| event(n, 1)).collect()).unwrap();
	let consumer = process.consumer("a");
	let acks: Vec<_> = [1, 2, 3, 4, 5, 7].map(|n| LogIndex::new(n).unwrap()).to_vec();
	consumer.ack_plan_many(&acks).run(&process.store).unwrap();
	let reader = LogReader::new(Arc::clone(&process.store));
	let info = &reader.streams().unwrap()[0].consumers[0];
	assert_eq!(info.watermark, 5, "acks that are not folded count");
	assert_eq!(reader.unacked_count(STREAM, "a").unwrap(), 3);
}
