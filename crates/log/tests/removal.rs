//! A consumer is removed: it keeps nothing any more, and nothing of it counts for the next one of its
//! name, whatever moment the process dies at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{deliverable, event, Process, STREAM};
use leyden_id::EventKind;
use leyden_log::{
	Consumer, ConsumerOptions, EventLog, LogError, LogIndex, LogObserver, LogOptions, LogReader,
	Retention, Start,
};
use leyden_store::verify::Findings;
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store, Timestamp};
use leyden_testkit::intact;
use leyden_testkit::{count_records, crash_everywhere, FaultyStore};

fn options() -> LogOptions {
	let retention = |min_count| Retention { min_count, min_age: Duration::ZERO };
	LogOptions { history: retention(10), tombstones: retention(10_000) }
}

fn index(n: u64) -> LogIndex {
	LogIndex::new(n).unwrap()
}

fn acks(store: &Arc<dyn Store>, consumer: &Consumer, numbers: impl Iterator<Item = u64>) {
	let acks: Vec<_> = numbers.map(index).collect();
	consumer.ack_plan_many(&acks).run(store).unwrap();
}

#[test]
fn what_a_removed_consumer_kept_is_trimmed() {
	let process = Process::with(&MemoryMedium::new(), options());
	process.log.append_batch((1..=500).map(|n| event(n, n as u8)).collect()).unwrap();
	let (one, stale) = (process.consumer("one"), process.consumer("stale"));
	acks(&process.store, &one, 1..=500);
	acks(&process.store, &stale, (1..=100).map(|n| 2 * n));
	stale.next_event().unwrap().unwrap().dead_letter("no").unwrap();
	stale.next_event().unwrap().unwrap().retry_after(Duration::from_secs(9)).unwrap();
	one.tidy().unwrap();
	assert_eq!(count_records(&*process.store, "log_entries"), 500, "kept for the other one");

	let refused = process.log.remove_consumer("stale").unwrap_err();
	assert!(matches!(&refused, LogError::InUse { consumer } if consumer == "stale"), "{refused}");
	let delivery = stale.next_event().unwrap().unwrap();
	drop(stale);
	assert!(process.log.remove_consumer("stale").is_err(), "a delivery is kept");
	drop(delivery);
	assert!(process.log.remove_consumer("stale").unwrap());
	assert!(!process.log.remove_consumer("stale").unwrap(), "there is none any more");
	assert!(!process.log.remove_consumer("nobody").unwrap());
	assert!(matches!(process.log.remove_consumer("No"), Err(LogError::BadName { .. })));

	assert_eq!(count_records(&*process.store, "log_entries"), 10);
	for table in ["log_dead", "log_retries", "log_acks"] {
		assert_eq!(count_records(&*process.store, table), 0, "{table}");
	}
	let streams = LogReader::new(Arc::clone(&process.store)).streams().unwrap();
	let names: Vec<_> = streams[0].consumers.iter().map(|c| c.name.as_str()).collect();
	assert_eq!(names, ["one"]);
	// The next one of its name begins with what is there.
	let next = process.consumer("stale");
	assert_eq!(deliverable(&next), (491..=500).collect::<Vec<_>>());
	assert!(deliverable(&one).is_empty());
}

/// A handle that cannot be seen, behind another layer around the store, settles nothing any more.
#[test]
fn a_handle_of_a_removed_consumer_settles_nothing() {
	let process = Process::new();
	process.append(1, 1);
	let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
	let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), options());
	let consumer = hidden.consumer("a");
	let delivery = consumer.next_event().unwrap().unwrap();
	assert!(process.log.remove_consumer("a").unwrap());
	assert!(matches!(delivery.ack(), Err(LogError::TakenOver { .. })));
	assert_eq!(deliverable(&process.consumer("a")), [1]);
}

/// A handle behind another layer was opened before the consumer was removed and made again. It takes
/// the new one over like any other handle, and knows nothing of its own.
#[test]
fn a_handle_of_a_removed_consumer_does_not_take_the_next_one_for_its_own() {
	let process = Process::new();
	process.append(1, 1);
	process.append(2, 2);
	drop(process.consumer("a").next_event().unwrap());
	let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
	let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), options());
	let old = hidden.consumer("a");
	assert!(process.log.remove_consumer("a").unwrap());
	let new = process.consumer("a");
	new.next_event().unwrap().unwrap().ack().unwrap();
	assert_eq!(deliverable(&old), [2]);
}

/// An ack in bulk that such a handle makes after the removal does not count for the next consumer.
#[test]
fn acks_that_come_after_the_removal_do_not_count() {
	let process = Process::new();
	(1..=5).for_each(|n| {
		process.append(n, n as u8);
	});
	let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
	let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), options());
	let old = hidden.consumer("a");
	assert!(process.log.remove_consumer("a").unwrap());
	acks(&hidden.store, &old, 1..=5);
	drop((old, hidden));
	assert_eq!(deliverable(&process.consumer("a")), [1, 2, 3, 4, 5]);
}

/// Another handle finishes the removal first, and makes a consumer of the same name.
#[test]
fn a_removal_that_another_handle_has_finished_touches_no_new_consumer() {
	leyden_testkit::interrupt_everywhere(|at| {
		let process = Process::new();
		(1..=5).for_each(|n| {
			process.append(n, n as u8);
		});
		acks(&process.store, &process.consumer("a"), 1..=2);
		let inner = Arc::clone(&process.store);
		let made = Arc::new(Mutex::new(None));
		let keeps = Arc::clone(&made);
		let process = Arc::new(process);
		let other = Arc::clone(&process);
		let store = leyden_testkit::InterruptedStore::new(inner, at, move || {
			let consumer = other.consumer("a");
			acks(&other.store, &consumer, 4..=4);
			*keeps.lock().unwrap() = Some(consumer);
		});
		let seen: Arc<dyn Store> = Arc::<leyden_testkit::InterruptedStore>::clone(&store);
		let hidden = Process::over(seen, Arc::new(ManualClock::new(Timestamp(1))), options());
		let removed = hidden.log.remove_consumer("a").unwrap();
		if let Some(consumer) = made.lock().unwrap().take() {
			// Either it was removed after that, or it is a new one and has all that it acked.
			let streams = LogReader::new(Arc::clone(&process.store)).streams().unwrap();
			if streams[0].consumers.iter().any(|consumer| consumer.name == "a") {
				let unacked = intact(consumer.unacked(None, 10).unwrap());
				let unacked: Vec<_> = unacked.iter().map(|entry| entry.index().get()).collect();
				assert_eq!(unacked, [1, 2, 3, 5], "before request {at}");
			}
		}
		assert!(removed);
		store
	});
}

#[derive(Default)]
struct Hears(Mutex<Vec<String>>);

impl LogObserver for Hears {
	fn appended(&self, _: LogIndex, _: &EventKind) {}

	fn opened(&self, consumer: &str, _: u64) {
		self.0.lock().unwrap().push(format!("opened {consumer}"));
	}

	fn acked(&self, _: &str, _: &[LogIndex]) {}

	fn removed(&self, consumer: &str) {
		self.0.lock().unwrap().push(format!("removed {consumer}"));
	}
}

#[test]
fn observers_hear_that_a_consumer_is_gone() {
	let process = Process::new();
	drop(process.consumer("a"));
	let hears = Arc::new(Hears::default());
	process.log.observe(&(Arc::<Hears>::clone(&hears) as Arc<dyn LogObserver>)).unwrap();
	process.log.remove_consumer("a").unwrap();
	assert_eq!(*hears.0.lock().unwrap(), ["opened a", "removed a"]);
}

/// The process dies before and after each commit. Then the consumer is the one that it was, or a new
/// one: there is nothing in between.
#[test]
fn a_consumer_is_removed_whole_or_not_at_all() {
	let deaths = crash_everywhere(|doom| {
		let medium = MemoryMedium::new();
		let open = || -> Arc<dyn Store> {
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap())
		};
		let log = |store: &Arc<dyn Store>| {
			let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
			EventLog::open(Arc::clone(store), STREAM, clock, options()).unwrap()
		};
		// Every second entry is acked, so that many acks are left after the first batch of them.
		{
			let store = open();
			let log = log(&store);
			log.append_batch((1..=2_500).map(|n| event(n, n as u8)).collect()).unwrap();
			let stale = log.consumer("stale", ConsumerOptions::default()).unwrap();
			acks(&store, &stale, (1..=1_200).map(|n| 2 * n));
			let other = log.consumer("other", ConsumerOptions::default()).unwrap();
			acks(&store, &other, 1..=2_500);
		}
		let faulty = Arc::new(FaultyStore::new(open(), Arc::clone(doom)));
		let died = {
			let store: Arc<dyn Store> = Arc::<FaultyStore>::clone(&faulty);
			let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
			let log = EventLog::open(Arc::clone(&store), STREAM, clock, options());
			log.and_then(|log| log.remove_consumer("stale")).is_err()
		};
		assert!(!died || faulty.is_dead());
		drop(faulty);
		let store = open();
		let is_listed = {
			let streams = LogReader::new(Arc::clone(&store)).streams().unwrap();
			streams[0].consumers.iter().any(|consumer| consumer.name == "stale")
		};
		let mut findings = Findings::new(5);
		LogReader::new(Arc::clone(&store)).verify(&mut findings).unwrap();
		assert!(findings.is_clean(), "{:?}", findings.errors());
		let log = log(&store);
		let options = ConsumerOptions { start: Start::Beginning, ..ConsumerOptions::default() };
		let consumer = log.consumer("stale", options).unwrap();
		let unacked = intact(consumer.unacked(None, 5_000).unwrap());
		let unacked: Vec<_> = unacked.iter().map(|entry| entry.index().get()).collect();
		if is_listed {
			let odd = (1..=2_400).filter(|n| n % 2 == 1).chain(2_401..=2_500);
			assert_eq!(unacked.len(), odd.clone().count());
			assert!(odd.eq(unacked), "the one that it was");
		} else {
			let first = unacked[0];
			assert!((first..=2_500).eq(unacked), "a new one, from {first} on");
		}
	});
	assert!(deaths > 8, "{deaths}");
}
