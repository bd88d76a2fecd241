//! Entries that end their process each time that they are delivered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use common::{id, Process};
use leyden_id::EventKind;
use leyden_log::{Consumer, ConsumerOptions, Delivery, LogIndex, LogObserver, OnExhausted};
use leyden_store::{
	Batch, Committed, Durability, MemoryMedium, MemoryStore, Namespace, Store, Ticket,
};
use leyden_testkit::{count_records, CountingStore};
use parking_lot::Mutex;

const KILLER: u64 = 3;

fn options() -> ConsumerOptions {
	ConsumerOptions { max_crashes: Some(5), ..ConsumerOptions::default() }
}

/// One life: everything is delivered and acked, up to the entry that ends the process. Whatever is
/// in somebody's hands then is neither acked nor dropped. Returns whether the process ended.
fn live(medium: &MemoryMedium, options: ConsumerOptions, at_a_time: usize) -> bool {
	let process = Process::on(medium);
	let consumer = process.log.consumer("app", options).unwrap();
	loop {
		let next = || consumer.next_event().unwrap();
		let held: Vec<Delivery> = std::iter::from_fn(next).take(at_a_time).collect();
		if held.is_empty() {
			return false;
		}
		if held.iter().any(|delivery| delivery.id() == id(KILLER)) {
			// The process ends here: nothing of it is dropped.
			std::mem::forget((held, consumer, process));
			return true;
		}
		held.into_iter().for_each(|delivery| delivery.ack().unwrap());
	}
}

fn fill(medium: &MemoryMedium) {
	let process = Process::on(medium);
	// Each in a lane of its own.
	(1..=6).for_each(|n| {
		process.append(n, n as u8);
	});
}

fn dead(consumer: &Consumer) -> Vec<u64> {
	let letters = consumer.dead_letters(None, 10).unwrap();
	letters.iter().map(|letter| letter.index.get()).collect()
}

/// After so many crashes it is a dead letter, with the reason, and the node starts. Others that were in
/// somebody's hands at the same time are not taken for it.
#[test]
fn an_entry_that_ends_every_process_is_parked_and_no_other_is() {
	for at_a_time in [1, 2, 6] {
		let medium = MemoryMedium::new();
		fill(&medium);
		let mut crashes = 0;
		while live(&medium, options(), at_a_time) {
			crashes += 1;
			assert!(crashes <= 5, "{at_a_time} at a time: it goes on for ever");
		}
		assert_eq!(crashes, 5, "{at_a_time} at a time");
		let process = Process::on(&medium);
		let consumer = process.log.consumer("app", options()).unwrap();
		assert_eq!(dead(&consumer), [KILLER], "{at_a_time} at a time");
		let letter = consumer.dead_letters(None, 1).unwrap().remove(0);
		assert_eq!(letter.reason, "5 processes in a row ended while it was handled");
		assert!(consumer.next_event().unwrap().is_none());
		// An operator lets it try again, with its crashes forgotten.
		consumer.requeue(LogIndex::new(KILLER).unwrap()).unwrap();
		let delivery = consumer.next_event().unwrap().unwrap();
		assert_eq!(delivery.attempt(), 1);
		delivery.ack().unwrap();
		assert!(consumer.unacked(None, 10).unwrap().is_empty());
	}
}

/// Its lane waits, or goes on without it, as for any other dead letter; and it is told.
#[test]
fn what_is_parked_for_its_crashes_is_told_and_holds_its_lane_or_not() {
	#[derive(Default)]
	struct Hears(Mutex<Vec<String>>);
	impl LogObserver for Hears {
		fn appended(&self, _: LogIndex, _: &EventKind) {}
		fn opened(&self, _: &str, _: u64) {}
		fn acked(&self, _: &str, _: &[LogIndex]) {}
		fn parked(&self, consumer: &str, index: LogIndex, reason: &str) {
			self.0.lock().push(format!("{consumer} {index}: {reason}"));
		}
	}
	for on_exhausted in [OnExhausted::HoldLane, OnExhausted::MoveOn] {
		let medium = MemoryMedium::new();
		let process = Process::on(&medium);
		process.append(KILLER, 1);
		process.append(4, 1);
		drop(process);
		let options = ConsumerOptions { on_exhausted, ..options() };
		for _ in 0..5 {
			assert!(live(&medium, options, 1));
		}
		let process = Process::on(&medium);
		let hears = Arc::new(Hears::default());
		let observer: Arc<dyn LogObserver> = Arc::<Hears>::clone(&hears);
		process.log.observe(&observer).unwrap();
		let consumer = process.log.consumer("app", options).unwrap();
		let next = consumer.next_event().unwrap().map(|delivery| delivery.index().get());
		assert_eq!(next, (on_exhausted == OnExhausted::MoveOn).then_some(2));
		assert_eq!(*hears.0.lock(), ["app 1: 5 processes in a row ended while it was handled"]);
	}
}

/// A process that ends in order while an entry is in somebody's hands is no crash, and neither is a
/// failure that the handler has told.
#[test]
fn what_ends_in_order_is_no_crash() {
	let medium = MemoryMedium::new();
	fill(&medium);
	for life in 0..20 {
		let process = Process::on(&medium);
		let consumer = process.log.consumer("app", options()).unwrap();
		let delivery = consumer.next_event().unwrap().expect("it is not parked");
		assert_eq!((delivery.index().get(), delivery.attempt()), (1, 1), "life {life}");
		drop((delivery, consumer));
	}
	for life in 0..20 {
		let process = Process::on(&medium);
		process.clock.advance(std::time::Duration::from_secs(100_000 * (life + 1)));
		let consumer = process.log.consumer("app", options()).unwrap();
		let delivery = consumer.next_event().unwrap().expect("it is not parked");
		assert_eq!(u64::from(delivery.attempt()), life + 1);
		delivery.retry().unwrap();
		std::mem::forget(consumer);
	}
}

/// A handler that panics takes its delivery with it, and may end its process.
#[test]
fn a_panic_is_a_crash() {
	let medium = MemoryMedium::new();
	fill(&medium);
	for _ in 0..5 {
		let process = Process::on(&medium);
		let consumer = process.log.consumer("app", options()).unwrap();
		let handled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
			let _delivery = consumer.next_event().unwrap().unwrap();
			panic!("the handler");
		}));
		assert!(handled.is_err());
	}
	let process = Process::on(&medium);
	let consumer = process.log.consumer("app", options()).unwrap();
	assert_eq!(consumer.next_event().unwrap().unwrap().index().get(), 2);
	assert_eq!(dead(&consumer), [1]);
}

/// Counting costs one commit without a flush for each of the first deliveries of a life, of
/// entries that were there before, and nothing for others.
#[test]
fn counting_costs_a_lazy_commit_of_what_was_there_before() {
	let cost = |options| {
		let medium = MemoryMedium::new();
		fill(&medium);
		let store = MemoryStore::open(&medium, Namespace::default()).unwrap();
		let store = Arc::new(CountingStore::new(Arc::new(store)));
		let process = Process::over(
			Arc::<CountingStore>::clone(&store) as _,
			Arc::default(),
			Default::default(),
		);
		let consumer = process.log.consumer("app", options).unwrap();
		drop(consumer.next_event().unwrap());
		process.append(100, 100);
		let mut held = Vec::new();
		let before = store.count(|| {
			held.extend(std::iter::from_fn(|| consumer.next_event().unwrap()).take(6));
		});
		let new = store.count(|| held.extend(consumer.next_event().unwrap()));
		assert_eq!(held.len(), 7);
		(before.commits, new.commits)
	};
	let few = ConsumerOptions { max_in_flight: 8, ..options() };
	assert_eq!(cost(few), (6, 0));
	assert_eq!(cost(ConsumerOptions { max_crashes: None, ..few }), (0, 0));
}

/// An entry that is suspected is alone: nothing else is handed out before it and until it is done.
#[test]
fn an_entry_that_is_suspected_is_delivered_alone() {
	let medium = MemoryMedium::new();
	fill(&medium);
	for _ in 0..3 {
		assert!(live(&medium, options(), 6));
	}
	let process = Process::on(&medium);
	let consumer = process.log.consumer("app", options()).unwrap();
	let mut handled = Vec::new();
	while let Some(delivery) = consumer.next_event().unwrap() {
		assert!(consumer.next_event().unwrap().is_none(), "{delivery:?} is not alone");
		handled.push(delivery.index().get());
		delivery.ack().unwrap();
	}
	assert_eq!(handled, [1, 2, 3, 4, 5, 6]);
	// Others that nobody suspects wait for it as well, and then come together.
	let medium = MemoryMedium::new();
	fill(&medium);
	for _ in 0..3 {
		assert!(live(&medium, options(), 1));
	}
	let process = Process::on(&medium);
	let consumer = process.log.consumer("app", options()).unwrap();
	let alone = consumer.next_event().unwrap().unwrap();
	assert_eq!(alone.index().get(), KILLER);
	assert!(consumer.next_event().unwrap().is_none());
	alone.ack().unwrap();
	let others: Vec<_> = std::iter::from_fn(|| consumer.next_event().unwrap()).collect();
	assert_eq!(others.len(), 3);
}

/// A store that counts commits that are to be flushed.
struct Flushes {
	inner: MemoryStore,
	flushed: AtomicUsize,
}

impl Store for Flushes {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		let is_flushed = batch.required_durability() == Durability::Sync;
		self.flushed.fetch_add(usize::from(is_flushed), Ordering::SeqCst);
		self.inner.commit(batch)
	}

	leyden_testkit::forward_store!(inner);
}

/// No flush is for the marks, no more of them are made than can be in somebody's hands, and none is
/// left.
#[test]
fn marks_are_few_are_not_flushed_and_go_with_the_ack() {
	let medium = MemoryMedium::new();
	fill(&medium);
	let inner = MemoryStore::open(&medium, Namespace::default()).unwrap();
	let store = Arc::new(Flushes { inner, flushed: AtomicUsize::new(0) });
	let process =
		Process::over(Arc::<Flushes>::clone(&store) as _, Arc::default(), Default::default());
	let few = ConsumerOptions { max_in_flight: 2, ..options() };
	let consumer = process.log.consumer("app", few).unwrap();
	let marks = || count_records(&*store, "log_retries");
	let before = store.flushed.load(Ordering::SeqCst);
	for n in 1..=6 {
		let delivery = consumer.next_event().unwrap().unwrap();
		assert_eq!(marks(), usize::from(n <= 2), "delivery {n}");
		delivery.ack().unwrap();
		assert_eq!(marks(), 0, "delivery {n}");
	}
	assert_eq!(store.flushed.load(Ordering::SeqCst) - before, 6, "one flush for each ack");
}

/// However often it is released and delivered again in one life.
#[test]
fn what_is_released_twice_is_as_it_was_before() {
	let medium = MemoryMedium::new();
	fill(&medium);
	for life in 0..2 {
		let process = Process::on(&medium);
		let consumer = process.log.consumer("app", options()).unwrap();
		for attempt in 1..=3 {
			let delivery = consumer.next_event().unwrap().unwrap();
			assert_eq!((delivery.index().get(), delivery.attempt()), (1, attempt), "life {life}");
		}
		drop(consumer);
		assert_eq!(count_records(&*process.store, "log_retries"), 0);
	}
}

/// An entry that is in hand for half a minute has ended no process: others come meanwhile, and a kill
/// after that does not count.
#[test]
fn what_is_in_hand_for_long_holds_nothing_up_and_is_no_crash() {
	let half_a_minute = std::time::Duration::from_secs(30);
	let medium = MemoryMedium::new();
	fill(&medium);
	for _ in 0..3 {
		assert!(live(&medium, options(), 1));
	}
	for life in 0..10 {
		let process = Process::on(&medium);
		let consumer = process.log.consumer("app", options()).unwrap();
		let alone = consumer.next_event().unwrap().unwrap();
		assert_eq!((alone.index().get(), alone.attempt()), (KILLER, 4), "life {life}");
		// A life in which it was in hand for so long has broken the row: it is not alone after that.
		process.append(200 + life, 200 + life as u8);
		if life == 0 {
			process.clock.advance(half_a_minute - std::time::Duration::from_millis(1));
			assert!(consumer.next_event().unwrap().is_none());
		} else {
			consumer.next_event().unwrap().expect("others come at once").ack().unwrap();
		}
		process.clock.advance(half_a_minute);
		process.append(100 + life, 100 + life as u8);
		let others: Vec<_> = std::iter::from_fn(|| consumer.next_event().unwrap()).collect();
		assert!(!others.is_empty(), "life {life}");
		others.into_iter().for_each(|other| other.ack().unwrap());
		std::mem::forget((alone, consumer, process));
	}
}

/// A retry that is durable is not written over when the consumer is closed.
#[test]
fn a_retry_outlives_the_end_of_its_consumer() {
	let medium = MemoryMedium::new();
	fill(&medium);
	let one = ConsumerOptions { max_in_flight: 1, ..options() };
	let wait = std::time::Duration::from_secs(1_000);
	let process = Process::on(&medium);
	let consumer = process.log.consumer("app", one).unwrap();
	// Marked and released, then delivered without a mark, and told to wait.
	drop(consumer.next_event().unwrap().unwrap());
	consumer.next_event().unwrap().unwrap().retry_after(wait).unwrap();
	drop((consumer, process));
	let process = Process::on(&medium);
	let consumer = process.log.consumer("app", one).unwrap();
	assert_eq!(consumer.next_event().unwrap().unwrap().index().get(), 2);
}

/// A suspect waits for what was delivered in the last half minute, and not for what is in hand for hours.
#[test]
fn a_suspect_does_not_wait_for_what_is_held_for_long() {
	let half_a_minute = std::time::Duration::from_secs(30);
	let medium = MemoryMedium::new();
	fill(&medium);
	for life in 0..4 {
		let process = Process::on(&medium);
		let consumer = process.log.consumer("app", options()).unwrap();
		let held = consumer.next_event().unwrap().unwrap();
		assert_eq!(held.index().get(), 1, "life {life}");
		if life == 3 {
			assert!(consumer.next_event().unwrap().is_none(), "it is suspected");
		}
		process.clock.advance(half_a_minute);
		let mut next = consumer.next_event().unwrap().unwrap();
		if next.index().get() == 2 {
			next.ack().unwrap();
			next = consumer.next_event().unwrap().unwrap();
		}
		assert_eq!(next.index().get(), KILLER, "life {life}");
		std::mem::forget((held, next, consumer, process));
	}
}

/// A caller that waits for a delivery sleeps until something can come: not again and again for no time, while a
/// retry is due for which there is no room.
#[test]
fn nobody_waits_for_no_time() {
	let process = Process::new();
	(1..=2).for_each(|n| {
		process.append(n, n as u8);
	});
	let consumer = process.log.consumer("app", ConsumerOptions { max_in_flight: 1, ..options() });
	let consumer = consumer.unwrap();
	let soon = std::time::Duration::from_secs(10);
	consumer.next_event().unwrap().unwrap().retry_after(soon).unwrap();
	let _held = consumer.next_event().unwrap().unwrap();
	process.clock.advance(soon * 6);
	let slept = Mutex::new(Vec::new());
	let next = consumer.next_event_async(|time| {
		slept.lock().push(time);
		std::future::pending()
	});
	let mut next = std::pin::pin!(next);
	let mut context = std::task::Context::from_waker(std::task::Waker::noop());
	assert!(std::future::Future::poll(next.as_mut(), &mut context).is_pending());
	assert!(!slept.lock().contains(&std::time::Duration::ZERO), "{:?}", slept.lock());
}
