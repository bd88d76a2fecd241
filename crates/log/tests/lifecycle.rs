//! A consumer is reset, renamed, paused and resumed; whatever moment the process dies at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{deliverable, drain, event, Process, Woken, STREAM};
use leyden_id::EventKind;
use leyden_log::{
	Consumer, ConsumerOptions, EventLog, LogError, LogIndex, LogObserver, LogOptions, LogReader,
	Retention, Start,
};
use leyden_store::ticket::Help;
use leyden_store::verify::Findings;
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, ManualClock, MemoryMedium, MemoryStore, Namespace,
	Page, Record, Store, StoreError, Table, Ticket, Timestamp,
};
use leyden_testkit::{count_records, crash_everywhere, intact, FaultyStore};
use parking_lot::Mutex;

fn index(n: u64) -> LogIndex {
	LogIndex::new(n).unwrap()
}

fn keeps(history: u64) -> LogOptions {
	let retention = |min_count| Retention { min_count, min_age: Duration::ZERO };
	LogOptions { history: retention(history), tombstones: retention(10_000) }
}

fn acks(store: &Arc<dyn Store>, consumer: &Consumer, numbers: impl Iterator<Item = u64>) {
	let acks: Vec<_> = numbers.map(index).collect();
	consumer.ack_plan_many(&acks).run(store).unwrap();
}

fn unacked(process: &Process, name: &str) -> Vec<u64> {
	let reader = LogReader::new(Arc::clone(&process.store));
	let unacked = intact(reader.unacked(STREAM, name, None, 10_000).unwrap());
	unacked.iter().map(|entry| entry.index().get()).collect()
}

fn names(process: &Process) -> Vec<String> {
	let streams = LogReader::new(Arc::clone(&process.store)).streams().unwrap();
	streams[0].consumers.iter().map(|consumer| consumer.name.clone()).collect()
}

fn is_sound(process: &Process) -> bool {
	let mut findings = Findings::new(10);
	LogReader::new(Arc::clone(&process.store)).verify(&mut findings).unwrap();
	findings.is_clean()
}

/// Acks 1 to 3 and 7, parks 4, retries 5.
fn mix(process: &Process, consumer: &Consumer) {
	acks(&process.store, consumer, (1..=3).chain([7]));
	consumer.next_event().unwrap().unwrap().dead_letter("no").unwrap();
	consumer.next_event().unwrap().unwrap().retry_after(Duration::from_secs(9)).unwrap();
}

fn filled(options: LogOptions) -> Process {
	let process = Process::with(&MemoryMedium::new(), options);
	// Each in a lane of its own.
	process.log.append_batch((1..=10).map(|n| event(n, n as u8)).collect()).unwrap();
	process
}

#[test]
fn a_consumer_that_is_reset_is_told_again_and_knows_nothing_of_before() {
	let process = filled(keeps(4));
	let consumer = process.consumer("a");
	mix(&process, &consumer);
	let refused = process.log.reset_consumer("a", Start::Beginning).unwrap_err();
	assert!(matches!(&refused, LogError::InUse { consumer } if consumer == "a"), "{refused}");
	drop(consumer);
	process.log.reset_consumer("a", Start::Beginning).unwrap();
	let consumer = process.consumer("a");
	assert_eq!(drain(&consumer), (1..=10).collect::<Vec<_>>());
	for table in ["log_dead", "log_retries"] {
		assert_eq!(count_records(&*process.store, table), 0, "{table}");
	}
	consumer.tidy().unwrap();
	drop(consumer);
	// What was trimmed does not come again.
	process.log.reset_consumer("a", Start::After(index(2))).unwrap();
	assert_eq!(drain(&process.consumer("a")), (7..=10).collect::<Vec<_>>());
	process.log.reset_consumer("a", Start::After(index(8))).unwrap();
	assert_eq!(deliverable(&process.consumer("a")), [9, 10]);
	process.log.reset_consumer("a", Start::End).unwrap();
	assert!(deliverable(&process.consumer("a")).is_empty());
	assert!(is_sound(&process));
	let refused = process.log.reset_consumer("b", Start::End).unwrap_err();
	assert!(matches!(&refused, LogError::NoConsumer { name } if name == "b"), "{refused}");
	assert!(matches!(process.log.reset_consumer("No", Start::End), Err(LogError::BadName { .. })));
}

/// A delivery of a handle that cannot be seen from here settles nothing of the consumer as it is now.
#[test]
fn a_handle_of_before_a_reset_settles_nothing() {
	let process = filled(keeps(100));
	let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
	let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
	let delivery = hidden.consumer("a").next_event().unwrap().unwrap();
	process.log.reset_consumer("a", Start::Beginning).unwrap();
	assert!(matches!(delivery.ack(), Err(LogError::TakenOver { .. })));
	assert_eq!(deliverable(&process.consumer("a")), (1..=10).collect::<Vec<_>>());
}

/// Damaged records of the consumer itself stop it, and name themselves. A reset is the way out.
#[test]
fn a_reset_is_the_way_out_for_a_consumer_whose_records_are_damaged() {
	let name = b"events\0a".to_vec();
	let of_consumer = |rest: &[u8]| [name.as_slice(), &[0], rest].concat();
	let number = |n: u64| n.to_be_bytes();
	let places: [(&'static str, Vec<u8>); 5] = [
		("log_acks", of_consumer(&[number(7), number(7)].concat())),
		("log_dead", of_consumer(&number(4))),
		("log_retries", of_consumer(&number(5))),
		("log_consumers", name.clone()),
		("log_owners", name.clone()),
	];
	for (table, key) in places {
		let medium = MemoryMedium::new();
		let process = Process::on(&medium);
		process.log.append_batch((1..=10).map(|n| event(n, n as u8)).collect()).unwrap();
		let consumer = process.consumer("a");
		mix(&process, &consumer);
		drop((consumer, process));
		let key = Key::new(Table::interned(table).unwrap(), key);
		let mut is_there = false;
		medium.damage(&Namespace::default(), &key, |frame| {
			is_there = true;
			frame[20] ^= 1;
		});
		assert!(is_there, "{table}");
		let process = Process::on(&medium);
		let options = ConsumerOptions::default();
		let stopped = process.log.consumer("a", options).and_then(|consumer| {
			drop(consumer.next_event()?);
			consumer.dead_letters(None, 10)
		});
		let error = stopped.map(|_| ()).expect_err(table);
		assert!(error.to_string().contains(table), "{error}");
		process.log.reset_consumer("a", Start::After(index(8))).unwrap();
		assert_eq!(drain(&process.consumer("a")), [9, 10], "{table}");
		assert!(is_sound(&process), "{table}");
	}
}

#[test]
fn a_renamed_consumer_goes_on_where_it_was() {
	let process = filled(keeps(100));
	let consumer = process.consumer("old");
	mix(&process, &consumer);
	consumer.pause().unwrap();
	assert!(matches!(process.log.rename_consumer("old", "new"), Err(LogError::InUse { .. })));
	drop(consumer);
	let other = process.consumer("other");
	assert!(matches!(process.log.rename_consumer("old", "other"), Err(LogError::InUse { .. })));
	drop(other);
	let exists = process.log.rename_consumer("old", "other").unwrap_err();
	assert!(matches!(&exists, LogError::ConsumerExists { name } if name == "other"), "{exists}");
	let exists = process.log.rename_consumer("old", "old").unwrap_err();
	assert!(matches!(exists, LogError::ConsumerExists { .. }), "{exists}");
	let none = process.log.rename_consumer("nobody", "new").unwrap_err();
	assert!(matches!(&none, LogError::NoConsumer { name } if name == "nobody"), "{none}");
	process.log.rename_consumer("old", "new").unwrap();
	assert_eq!(names(&process), ["new", "other"]);
	let consumer = process.consumer("new");
	assert!(consumer.is_paused());
	consumer.resume().unwrap();
	assert_eq!(drain(&consumer), [6, 8, 9, 10]);
	process.clock.advance(Duration::from_secs(10));
	let retried = consumer.next_event().unwrap().unwrap();
	assert_eq!((retried.index(), retried.attempt()), (index(5), 2));
	assert_eq!(consumer.dead_letters(None, 9).unwrap()[0].index, index(4));
	assert!(is_sound(&process));
	assert_eq!(
		count_records(&*process.store, "log_consumers"),
		2,
		"nothing is left of the old one"
	);
	// The old name is free.
	assert_eq!(deliverable(&process.consumer("old")), (1..=10).collect::<Vec<_>>());
}

/// A delivery of a handle that cannot be seen from here would be acked under the old name.
#[test]
fn a_handle_of_before_a_renaming_settles_nothing() {
	let process = filled(keeps(100));
	let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
	let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
	let delivery = hidden.consumer("a").next_event().unwrap().unwrap();
	process.log.rename_consumer("a", "b").unwrap();
	assert!(matches!(delivery.ack(), Err(LogError::TakenOver { .. })));
	assert_eq!(deliverable(&process.consumer("b")), (1..=10).collect::<Vec<_>>());
}

/// A store that takes few records in a batch, and gives few in a page.
struct Narrow(Arc<dyn Store>);

impl Store for Narrow {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.0.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.0.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.0.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.0.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		let mut guarantees = self.0.guarantees();
		guarantees.max_writes = 24;
		guarantees
	}
}

/// Acks of other handles are folded, or made, while they are copied in pages.
#[test]
fn acks_that_are_folded_or_made_during_a_renaming_are_not_lost() {
	const ENTRIES: u64 = 120;
	#[derive(Clone, Copy, Debug)]
	enum Meanwhile {
		Folds,
		Acks,
		TakesOverAndAcks,
	}
	for what in [Meanwhile::Folds, Meanwhile::Acks, Meanwhile::TakesOverAndAcks] {
		leyden_testkit::interrupt_everywhere(|at| {
			let process = Arc::new(Process::with(&MemoryMedium::new(), keeps(100_000)));
			let events = (1..=ENTRIES).map(|n| event(n, n as u8)).collect();
			process.log.append_batch(events).unwrap();
			let consumer = process.consumer("a");
			// Each is a record of its own, and the first entry is left.
			(2..=100).for_each(|n| acks(&process.store, &consumer, n..=n));
			let first = consumer.next_event().unwrap().unwrap();
			let inner: Arc<dyn Store> = Arc::new(Narrow(Arc::clone(&process.store)));
			let is_acked = Arc::new(Mutex::new(false));
			let says = Arc::clone(&is_acked);
			let other = Arc::clone(&process);
			let meanwhile = move || match what {
				Meanwhile::Folds => consumer.tidy().unwrap(),
				Meanwhile::Acks => *says.lock() = first.ack().is_ok(),
				Meanwhile::TakesOverAndAcks => {
					let layer: Arc<dyn Store> = Arc::new(Arc::clone(&other.store));
					let clock = Arc::new(ManualClock::new(Timestamp(1)));
					let third = Process::over(layer, clock, keeps(100_000));
					let found = third.consumer("a").next_event();
					// The old name may be a new consumer's already.
					if let Ok(Some(delivery)) = found {
						let was_here = !names(&other).contains(&"b".to_owned());
						*says.lock() = delivery.ack().is_ok() && was_here;
					}
				},
			};
			let store = leyden_testkit::InterruptedStore::new(inner, at, meanwhile);
			let seen: Arc<dyn Store> = Arc::<leyden_testkit::InterruptedStore>::clone(&store);
			let clock = Arc::new(ManualClock::new(Timestamp(1)));
			let hidden = Process::over(seen, clock, keeps(100_000));
			hidden.log.rename_consumer("a", "b").unwrap();
			let first = if *is_acked.lock() { 2 } else { 1 };
			let left: Vec<u64> = (first..2).chain(101..=ENTRIES).collect();
			assert_eq!(unacked(&process, "b"), left, "{what:?}, interrupted at {at}");
			store
		});
	}
}

/// A handle was opened before the consumer was reset, and searches for the first time after that.
#[test]
fn a_handle_of_before_a_reset_begins_at_the_new_place() {
	for (start, expected) in
		[(Start::Beginning, (1..=10).collect::<Vec<u64>>()), (Start::After(index(8)), vec![9, 10])]
	{
		let process = filled(keeps(100));
		let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
		let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
		acks(&process.store, &process.consumer("a"), 1..=5);
		process.consumer("a").tidy().unwrap();
		let old = hidden.consumer("a");
		process.log.reset_consumer("a", start).unwrap();
		assert_eq!(drain(&old), expected);
	}
}

/// A handle was opened before its consumer was removed or renamed, and searches after that.
#[test]
fn a_handle_of_a_consumer_that_is_gone_gets_nothing() {
	for is_renamed in [false, true] {
		let process = filled(keeps(100));
		let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
		let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
		let consumer = process.consumer("a");
		consumer.next_event().unwrap().unwrap().ack().unwrap();
		drop(consumer);
		let old = hidden.consumer("a");
		match is_renamed {
			true => process.log.rename_consumer("a", "b").unwrap(),
			false => assert!(process.log.remove_consumer("a").unwrap()),
		}
		let refused = old.next_event().unwrap_err();
		assert!(matches!(&refused, LogError::NoConsumer { name } if name == "a"), "{refused}");
		assert!(is_sound(&process));
	}
}

/// A removal has begun, and died, while a handle makes the consumer its own.
#[test]
fn a_consumer_that_is_being_removed_is_nobodys() {
	leyden_testkit::interrupt_everywhere(|at| {
		let process = Arc::new(filled(keeps(100)));
		drop(process.consumer("a"));
		let other = Arc::clone(&process);
		let meanwhile = move || {
			let store: Arc<dyn Store> = Arc::new(Arc::clone(&other.store));
			let doom = leyden_testkit::Doom::at(1, leyden_testkit::Side::Before);
			let dying: Arc<dyn Store> = Arc::new(FaultyStore::new(store, doom));
			let clock = Arc::new(ManualClock::new(Timestamp(1)));
			if let Ok(log) = EventLog::open(dying, STREAM, clock, keeps(100)) {
				let _ = log.remove_consumer("a");
			}
		};
		let inner = Arc::clone(&process.store);
		let store = leyden_testkit::InterruptedStore::new(inner, at, meanwhile);
		let seen: Arc<dyn Store> = Arc::<leyden_testkit::InterruptedStore>::clone(&store);
		let hidden = Process::over(seen, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
		match hidden.consumer("a").next_event() {
			Err(LogError::NoConsumer { .. } | LogError::TakenOver { .. }) => {},
			Err(error) => panic!("interrupted at {at}: {error}"),
			Ok(found) => {
				let delivery = found.expect("a consumer that is there has something to do");
				let is_there = delivery.ack().is_ok();
				assert!(!is_there || names(&process) == ["a"], "interrupted at {at}");
			},
		}
		store
	});
}

/// A renaming has marked the new name, and died, when a consumer of that name is created.
#[test]
fn a_consumer_is_not_created_on_a_mark() {
	leyden_testkit::interrupt_everywhere(|at| {
		let process = Arc::new(filled(keeps(100)));
		acks(&process.store, &process.consumer("a"), 1..=3);
		let other = Arc::clone(&process);
		let meanwhile = move || {
			let store: Arc<dyn Store> = Arc::new(Arc::clone(&other.store));
			let doom = leyden_testkit::Doom::at(1, leyden_testkit::Side::Before);
			let dying: Arc<dyn Store> = Arc::new(FaultyStore::new(store, doom));
			let clock = Arc::new(ManualClock::new(Timestamp(1)));
			if let Ok(log) = EventLog::open(dying, STREAM, clock, keeps(100)) {
				let _ = log.rename_consumer("a", "b");
			}
		};
		let inner = Arc::clone(&process.store);
		let store = leyden_testkit::InterruptedStore::new(inner, at, meanwhile);
		let seen: Arc<dyn Store> = Arc::<leyden_testkit::InterruptedStore>::clone(&store);
		let hidden = Process::over(seen, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
		let consumer = hidden.log.consumer("b", ConsumerOptions::default()).unwrap();
		let got = deliverable(&consumer);
		assert!(got == (1..=10).collect::<Vec<u64>>(), "interrupted at {at}: {got:?}");
		store
	});
}

/// A handle that cannot be seen from here acks for a consumer of the new name that was removed.
#[test]
fn acks_of_a_removed_consumer_do_not_count_for_one_that_gets_its_name() {
	let process = filled(keeps(100));
	let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
	let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
	let old = hidden.consumer("b");
	process.log.remove_consumer("b").unwrap();
	acks(&hidden.store, &old, 1..=5);
	drop((old, hidden));
	drop(process.consumer("a"));
	process.log.rename_consumer("a", "b").unwrap();
	assert_eq!(deliverable(&process.consumer("b")), (1..=10).collect::<Vec<_>>());
}

/// Two threads that rename to and fro do not wait for each other.
#[test]
fn renaming_to_and_fro_ends() {
	let process = Arc::new(filled(keeps(100)));
	drop(process.consumer("a"));
	let rename = |from: &'static str, to: &'static str| {
		let process = Arc::clone(&process);
		move || {
			for _ in 0..20_000 {
				match process.log.rename_consumer(from, to) {
					Ok(()) | Err(LogError::NoConsumer { .. } | LogError::ConsumerExists { .. }) => {
					},
					Err(error) => panic!("{error}"),
				}
			}
		}
	};
	let threads = [thread::spawn(rename("a", "b")), thread::spawn(rename("b", "a"))];
	threads.into_iter().for_each(|thread| thread.join().unwrap());
	assert_eq!(names(&process).len(), 1);
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl LogObserver for Heard {
	fn appended(&self, _: LogIndex, _: &EventKind) {}

	fn opened(&self, consumer: &str, watermark: u64) {
		self.0.lock().push(format!("{consumer} is at {watermark}"));
	}

	fn removed(&self, consumer: &str) {
		self.0.lock().push(format!("{consumer} is gone"));
	}

	fn paused(&self, consumer: &str, is_paused: bool) {
		self.0
			.lock()
			.push(format!("{consumer} is {}", if is_paused { "paused" } else { "resumed" }));
	}

	fn acked(&self, _: &str, _: &[LogIndex]) {}
}

#[test]
fn a_paused_consumer_gets_nothing_until_it_is_resumed_in_any_process() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	process.log.append_batch((1..=3).map(|n| event(n, n as u8)).collect()).unwrap();
	let heard = Arc::new(Heard::default());
	let observer: Arc<dyn LogObserver> = Arc::<Heard>::clone(&heard);
	process.log.observe(&observer).unwrap();
	let consumer = process.consumer("a");
	let delivery = consumer.next_event().unwrap().unwrap();
	consumer.pause().unwrap();
	consumer.pause().unwrap();
	assert!(consumer.is_paused() && consumer.next_event().unwrap().is_none());
	// What is in hand is settled, acks are folded, and the pause stays.
	delivery.ack().unwrap();
	consumer.tidy().unwrap();
	assert_eq!(consumer.stats().watermark, 1);
	assert!(consumer.next_event().unwrap().is_none());
	// One that listens later hears of it, too.
	let late = Arc::new(Heard::default());
	let observer_later: Arc<dyn LogObserver> = Arc::<Heard>::clone(&late);
	process.log.observe(&observer_later).unwrap();
	assert_eq!(*late.0.lock(), ["a is at 1", "a is paused"]);
	drop((consumer, process));

	let process = Process::on(&medium);
	process.log.observe(&observer).unwrap();
	let info = LogReader::new(Arc::clone(&process.store)).streams().unwrap().remove(0).consumers;
	assert!(info[0].paused);
	let consumer = process.consumer("a");
	assert!(consumer.next_event().unwrap().is_none());
	// A task that waits is woken.
	let woken = Arc::new(Woken::default());
	let waker = Waker::from(Arc::clone(&woken));
	{
		let mut waits = pin!(consumer.next_event_async(|_| std::future::pending()));
		let mut context = Context::from_waker(&waker);
		assert!(waits.as_mut().poll(&mut context).is_pending());
		assert_eq!(woken.count(), 0);
		consumer.resume().unwrap();
		assert_eq!(woken.count(), 1);
		let Poll::Ready(delivery) = waits.as_mut().poll(&mut context) else { panic!("it waits") };
		assert_eq!(delivery.unwrap().index(), index(2));
	}
	consumer.resume().unwrap();
	drop((consumer, process));
	let process = Process::on(&medium);
	assert!(!process.consumer("a").is_paused());
	let heard = heard.0.lock();
	let told: Vec<&str> = heard.iter().map(String::as_str).collect();
	assert_eq!(
		told,
		[
			"a is at 0",
			"a is paused",
			// When it is listened to, and when the consumer is opened.
			"a is at 1",
			"a is paused",
			"a is at 1",
			"a is paused",
			"a is resumed"
		]
	);
}

/// A handle that another one, which it does not see, has removed the consumer of.
#[test]
fn a_removed_consumer_is_not_paused_into_life() {
	let process = filled(keeps(100));
	let hidden: Arc<dyn Store> = Arc::new(Arc::clone(&process.store));
	let hidden = Process::over(hidden, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
	let consumer = hidden.consumer("a");
	process.log.remove_consumer("a").unwrap();
	assert!(matches!(consumer.pause(), Err(LogError::NoConsumer { .. })));
	assert!(names(&process).is_empty());
}

#[test]
fn lag_is_counted_from_the_acks() {
	let process = filled(keeps(100));
	let consumer = process.consumer("a");
	let lag = consumer.lag().unwrap();
	assert_eq!((lag.unacked, lag.oldest), (10, Some(index(1))));
	assert_eq!(lag.oldest_appended_at, Some(Timestamp(1_000)));
	mix(&process, &consumer);
	let lag = consumer.lag().unwrap();
	assert_eq!((lag.unacked, lag.oldest), (6, Some(index(4))));
	assert_eq!(LogReader::new(Arc::clone(&process.store)).lag(STREAM, "a").unwrap(), lag);
	acks(&process.store, &consumer, 1..=10);
	let lag = consumer.lag().unwrap();
	assert_eq!((lag.unacked, lag.oldest, lag.oldest_appended_at), (0, None, None));
}

/// A life that ends anywhere in the middle of `change`, on a store that holds a consumer "a" in the
/// state of [`mix`]; the next one is looked at by `check`.
fn everywhere(change: impl Fn(&EventLog), check: impl Fn(&Process)) {
	let deaths = crash_everywhere(|doom| {
		let medium = MemoryMedium::new();
		let process = Process::with(&medium, keeps(100));
		process.log.append_batch((1..=10).map(|n| event(n, n as u8)).collect()).unwrap();
		let consumer = process.consumer("a");
		mix(&process, &consumer);
		drop((consumer, process));
		let store = MemoryStore::open(&medium, Namespace::default()).unwrap();
		let store: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::new(store), Arc::clone(doom)));
		let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
		if let Ok(log) = EventLog::open(store, STREAM, clock, keeps(100)) {
			change(&log);
		}
		check(&Process::with(&medium, keeps(100)));
	});
	assert!(deaths > 4, "{deaths}");
}

#[test]
fn a_reset_that_is_cut_short_is_done_or_not() {
	everywhere(
		|log| drop(log.reset_consumer("a", Start::After(index(2)))),
		|process| {
			// As a reader finds it, before anybody has opened the consumer.
			let left: Vec<u64> = unacked(process, "a");
			let reader = LogReader::new(Arc::clone(&process.store));
			let dead = reader.dead_letters(STREAM, "a", None, 9).unwrap().len();
			assert_eq!(reader.unacked_count(STREAM, "a").unwrap(), left.len() as u64);
			let consumer = process.consumer("a");
			assert_eq!(unacked(process, "a"), left);
			assert_eq!(consumer.dead_letters(None, 9).unwrap().len(), dead);
			let before = (vec![4, 5, 6, 8, 9, 10], 1);
			let after = ((3..=10).collect(), 0);
			assert!([before, after].contains(&(left.clone(), dead)), "{left:?} {dead}");
			assert!(is_sound(process));
		},
	);
}

/// The next thing that is done to the consumer is another one.
#[test]
fn a_reset_that_is_cut_short_is_done_before_a_renaming() {
	everywhere(
		|log| drop(log.reset_consumer("a", Start::After(index(2)))),
		|process| {
			process.log.rename_consumer("a", "b").unwrap();
			let left = unacked(process, "b");
			let (before, after) = (vec![4, 5, 6, 8, 9, 10], (3..=10).collect::<Vec<_>>());
			assert!([before, after].contains(&left), "{left:?}");
		},
	);
}

#[test]
fn a_renaming_that_is_cut_short_is_done_or_not() {
	everywhere(
		|log| drop(log.rename_consumer("a", "b")),
		|process| {
			assert!(is_sound(process), "as it was left");
			let there = names(process);
			assert_eq!(there.len(), 1, "{there:?}");
			let consumer = process.consumer(&there[0]);
			assert_eq!(unacked(process, &there[0]), [4, 5, 6, 8, 9, 10]);
			assert_eq!(consumer.dead_letters(None, 9).unwrap().len(), 1);
			// Nothing of it counts for one of the other name.
			let other = if there == ["a"] { "b" } else { "a" };
			assert_eq!(deliverable(&process.consumer(other)), (1..=10).collect::<Vec<_>>());
			assert!(is_sound(process));
		},
	);
}

/// A renaming does not bring the rest of a removed consumer to life.
#[test]
fn a_removal_that_is_cut_short_is_done_before_a_renaming() {
	everywhere(
		|log| drop(log.remove_consumer("a")),
		|process| match process.log.rename_consumer("a", "b") {
			Ok(()) => assert_eq!(unacked(process, "b"), [4, 5, 6, 8, 9, 10]),
			Err(LogError::NoConsumer { .. }) => assert!(names(process).is_empty()),
			Err(error) => panic!("{error}"),
		},
	);
}

/// A pass of another handle trims no entry that a reset is about to bring back.
#[test]
fn nothing_is_trimmed_from_under_a_reset() {
	leyden_testkit::interrupt_everywhere(|at| {
		let process = Arc::new(filled(keeps(0)));
		let other = process.consumer("other");
		let consumer = process.consumer("a");
		acks(&process.store, &consumer, 1..=10);
		consumer.tidy().unwrap();
		drop(consumer);
		acks(&process.store, &other, 1..=10);
		let trims = other.clone();
		let inner = Arc::clone(&process.store);
		let store = leyden_testkit::InterruptedStore::new(inner, at, move || trims.tidy().unwrap());
		let seen: Arc<dyn Store> = Arc::<leyden_testkit::InterruptedStore>::clone(&store);
		let hidden = Process::over(seen, Arc::new(ManualClock::new(Timestamp(1))), keeps(0));
		hidden.log.reset_consumer("a", Start::Beginning).unwrap();
		let kept = count_records(&*process.store, "log_entries") as u64;
		process.append(11, 11);
		assert_eq!(unacked(&process, "a"), (11 - kept..=11).collect::<Vec<_>>());
		assert!(is_sound(&process), "interrupted at {at}");
		store
	});
}

/// Another handle of the consumer, which cannot be seen from here, folds its acks meanwhile.
#[test]
fn no_ack_of_before_a_reset_is_folded_into_the_new_place() {
	leyden_testkit::interrupt_everywhere(|at| {
		let process = filled(keeps(100));
		let consumer = process.consumer("a");
		acks(&process.store, &consumer, (1..=3).chain(5..=10));
		let inner = Arc::clone(&process.store);
		let folds = move || consumer.tidy().unwrap();
		let store = leyden_testkit::InterruptedStore::new(inner, at, folds);
		let seen: Arc<dyn Store> = Arc::<leyden_testkit::InterruptedStore>::clone(&store);
		let hidden = Process::over(seen, Arc::new(ManualClock::new(Timestamp(1))), keeps(100));
		hidden.log.reset_consumer("a", Start::After(index(4))).unwrap();
		assert_eq!(unacked(&process, "a"), (5..=10).collect::<Vec<_>>(), "interrupted at {at}");
		store
	});
}

#[test]
fn what_a_reset_says_of_a_damaged_stream() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	drop(process.consumer("a"));
	let key = Key::new(Table::new("log_streams"), *b"events");
	medium.damage(&Namespace::default(), &key, |frame| frame[20] ^= 1);
	let refused = process.log.reset_consumer("a", Start::Beginning).unwrap_err();
	assert!(matches!(refused, LogError::Store(StoreError::Corrupt { .. })), "{refused}");
}

/// A store whose reads are made when they are asked about: those that are waited for at once, those that
/// are polled one after the other, when the test says so. The engines do that.
struct LateReads {
	inner: Arc<dyn Store>,
	asked: Arc<Mutex<VecDeque<Job>>>,
}

type Job = Box<dyn FnOnce() + Send>;

struct LateRead {
	job: Mutex<Option<Job>>,
	asked: Arc<Mutex<VecDeque<Job>>>,
}

impl Help for LateRead {
	fn help(&self) {
		if let Some(job) = self.job.lock().take() {
			job();
		}
	}

	fn nudge(&self) {
		self.asked.lock().extend(self.job.lock().take());
	}
}

impl LateReads {
	fn read<T: Send + 'static>(
		&self, read: impl FnOnce(&Arc<dyn Store>) -> Ticket<T> + Send + 'static,
	) -> Ticket<T> {
		let asked = Arc::clone(&self.asked);
		let help = Arc::new(LateRead { job: Mutex::new(None), asked });
		let (completer, ticket) = Ticket::pair_with_help(Arc::clone(&help) as Arc<dyn Help>);
		let inner = Arc::clone(&self.inner);
		*help.job.lock() = Some(Box::new(move || completer.complete(read(&inner).wait())));
		ticket
	}

	fn answer_one(&self) -> bool {
		let job = self.asked.lock().pop_front();
		job.map(|job| job()).is_some()
	}
}

impl Store for LateReads {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		let key = key.clone();
		self.read(move |inner| inner.get(&key))
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.read(move |inner| inner.scan(range, limit))
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}
}

/// A pass of housekeeping is under way when a consumer is set back, and has read some of what it goes by.
#[test]
fn a_pass_that_is_under_way_trims_nothing_that_a_reset_brings_back() {
	const ENTRIES: u64 = 300;
	let mut interrupted = 0;
	for at in 0..40 {
		let process = Process::with(&MemoryMedium::new(), keeps(0));
		let events = (1..=ENTRIES).map(|n| event(n, n as u8)).collect();
		process.log.append_batch(events).unwrap();
		drop(process.consumer("other"));
		let consumer = process.consumer("a");
		acks(&process.store, &consumer, 1..=ENTRIES);
		consumer.tidy().unwrap();
		drop(consumer);
		let asked = Arc::default();
		let late = Arc::new(LateReads { inner: Arc::clone(&process.store), asked });
		let seen: Arc<dyn Store> = Arc::<LateReads>::clone(&late);
		let lagging = Process::over(seen, Arc::new(ManualClock::new(Timestamp(1))), keeps(0));
		let other = lagging.consumer("other");
		acks(&lagging.store, &other, 1..=ENTRIES);
		let mut place = None;
		for step in 0..60 {
			if step == at {
				process.log.reset_consumer("a", Start::Beginning).unwrap();
				let streams = LogReader::new(Arc::clone(&process.store)).streams().unwrap();
				place =
					Some(streams[0].consumers.iter().find(|c| c.name == "a").unwrap().watermark);
			}
			// Polls the pass.
			lagging.append(1_000 + step, 1);
			late.answer_one();
		}
		let place = place.unwrap();
		interrupted += usize::from(place < ENTRIES);
		let reader = LogReader::new(Arc::clone(&process.store));
		let kept = reader.entries(STREAM, LogIndex::new(place), 10_000).unwrap();
		assert_eq!(kept.len() as u64, ENTRIES + 60 - place, "interrupted at {at}");
	}
	assert!(interrupted > 3, "{interrupted}");
}
