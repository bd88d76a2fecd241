//! A consumer has one owner: handles of one store share it, and a handle that cannot be seen from
//! here takes it over (S1, S2 of the faults that were found).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use common::{event, Process, STREAM};
use leyden_log::{Consumer, ConsumerOptions, Delivery, EventLog, LogError, LogOptions};
use leyden_store::{
	Batch, Committed, KeyRange, ManualClock, Plan, RecordType, Store, StoreError, Table, Ticket,
	Timestamp, Value,
};

const CREDITS: Table = Table::new("credits");

/// An effect: one more record per call.
fn credit() -> Plan<()> {
	let mut batch = Batch::new();
	let _ = batch.append(CREDITS, b"", Value::new(RecordType(0x8000), 1, vec![1]));
	Plan::of(batch)
}

fn credits(store: &Arc<dyn Store>) -> usize {
	store.scan(KeyRange::all(CREDITS), 10_000).wait().unwrap().records.len()
}

/// The same store behind one more layer, so that nobody sees that it is the same.
fn layer(store: &Arc<dyn Store>) -> Arc<dyn Store> {
	Arc::new(Arc::clone(store))
}

fn fill(process: &Process, numbers: RangeInclusive<u64>) {
	for n in numbers {
		process.append(n, (n % 251) as u8);
	}
}

fn open(store: &Arc<dyn Store>) -> EventLog {
	let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
	EventLog::open(Arc::clone(store), STREAM, clock, LogOptions::default()).unwrap()
}

fn take_all(consumer: &Consumer) -> Vec<Delivery> {
	std::iter::from_fn(|| consumer.next_event().unwrap()).collect()
}

#[test]
fn handles_of_one_consumer_in_a_process_share_its_deliveries() {
	let process = Process::new();
	fill(&process, 1..=20);
	let (first, second) = (
		process.consumer("a"),
		open(&process.store).consumer("a", ConsumerOptions::default()).unwrap(),
	);
	let mut seen = Vec::new();
	while let Some(delivery) = first.next_event().unwrap() {
		let other = second.next_event().unwrap();
		for delivery in [Some(delivery), other].into_iter().flatten() {
			seen.push(delivery.index().get());
			delivery.ack_with(credit()).unwrap();
		}
	}
	assert_eq!(seen, (1..=20).collect::<Vec<_>>());
	assert_eq!(credits(&process.store), 20);
}

#[test]
fn a_consumer_that_is_opened_again_does_not_repeat_what_is_in_hand() {
	let process = Process::new();
	process.append(1, 1);
	let held = process.consumer("a").next_event().unwrap().unwrap();
	assert!(process.consumer("a").next_event().unwrap().is_none(), "it is in hand");
	let again = process.consumer("a");
	drop(held);
	assert_eq!(again.next_event().unwrap().unwrap().attempt(), 2);
}

#[test]
fn a_shared_consumer_is_not_opened_with_other_options() {
	let process = Process::new();
	let first = process.consumer("a");
	let other = ConsumerOptions { max_in_flight: 3, ..ConsumerOptions::default() };
	let refused = process.log.consumer("a", other).unwrap_err();
	assert!(matches!(&refused, LogError::OtherOptions { name } if name == "a"), "{refused}");
	let history = LogOptions {
		history: leyden_log::Retention { min_count: 1, ..LogOptions::default().history },
		..LogOptions::default()
	};
	let clock = Arc::<ManualClock>::clone(&process.clock);
	let refused = EventLog::open(Arc::clone(&process.store), STREAM, clock, history).unwrap_err();
	assert!(matches!(&refused, LogError::OtherOptions { name } if name == STREAM), "{refused}");
	drop(first);
	process.log.consumer("a", other).unwrap();
}

/// A consumer of one handle of the log hears what another handle appends.
#[test]
fn handles_of_one_stream_hear_each_other() {
	let process = Process::new();
	let consumer = process.consumer("a");
	let other = open(&process.store);
	let waits = thread::spawn(move || consumer.wait_next_event().unwrap().ack().unwrap());
	other.append(event(1, 1)).unwrap();
	waits.join().unwrap();
	assert_eq!(other.head(), process.log.head());
}

/// Two handles that do not see each other: what the first one has in hand is not acked by it any
/// more, and no effect happens twice, however many acks were folded meanwhile.
#[test]
fn a_handle_that_is_not_seen_takes_the_consumer_over() {
	for count in [20, 600] {
		let process = Process::new();
		fill(&process, 1..=count);
		let first = process.consumer("a");
		let in_hand = take_all(&first);
		let other = layer(&process.store);
		let second = open(&other).consumer("a", ConsumerOptions::default()).unwrap();
		let mut acked = 0;
		loop {
			let deliveries = take_all(&second);
			if deliveries.is_empty() {
				break;
			}
			for delivery in deliveries {
				delivery.ack_with(credit()).unwrap();
				acked += 1;
			}
			second.tidy().unwrap();
		}
		assert_eq!(acked, count);
		for delivery in in_hand {
			let refused = delivery.ack_with(credit()).unwrap_err();
			assert!(matches!(refused, LogError::TakenOver { .. }), "{refused}");
		}
		assert_eq!(credits(&other) as u64, count);
		let late = process.log.consumer("a", ConsumerOptions::default()).unwrap();
		assert!(matches!(
			late.requeue(process.log.head().unwrap()),
			Err(LogError::NoDeadLetter { .. })
		));
	}
}

#[test]
fn a_handle_that_was_taken_over_can_neither_retry_nor_park() {
	let process = Process::new();
	fill(&process, 1..=4);
	let first = process.consumer("a");
	let mut in_hand = take_all(&first).into_iter();
	let second = open(&layer(&process.store)).consumer("a", ConsumerOptions::default()).unwrap();
	drop(second.next_event().unwrap());
	let refused = [
		in_hand.next().unwrap().retry(),
		in_hand.next().unwrap().dead_letter("no"),
		in_hand.next().unwrap().ack(),
		in_hand.next().unwrap().ack_lazy(),
	];
	for refused in refused {
		assert!(matches!(refused, Err(LogError::TakenOver { .. })), "{refused:?}");
	}
	assert!(second.dead_letters(None, 9).unwrap().is_empty());
	assert_eq!(take_all(&second).iter().map(Delivery::attempt).collect::<Vec<_>>(), [2, 1, 1, 1]);
}

/// A store whose commits are done and said to have failed, while it is told so.
struct Unanswered {
	inner: Arc<dyn Store>,
	is_silent: AtomicBool,
}

impl Store for Unanswered {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		if !self.is_silent.load(Ordering::SeqCst) {
			return self.inner.commit(batch);
		}
		let mut batch = batch;
		drop(batch.take_hooks());
		self.inner.commit(batch).wait().unwrap();
		let source = Arc::new(std::io::Error::other("no answer"));
		Ticket::ready(Err(StoreError::Indeterminate { doing: "committing", source }))
	}

	leyden_testkit::forward_store!(inner);
}

/// An ack that landed and was said to have failed: the entry does not come again, and a plan of the
/// same delivery that was kept does not happen again.
#[test]
fn an_effect_happens_once_if_its_commit_was_answered_with_an_error() {
	let inner = Process::new().store;
	let silent = Arc::new(Unanswered { inner, is_silent: AtomicBool::new(false) });
	let store: Arc<dyn Store> = Arc::<Unanswered>::clone(&silent);
	let log = open(&store);
	log.append(event(1, 1)).unwrap();
	log.append(event(2, 1)).unwrap();
	let consumer = log.consumer("a", ConsumerOptions::default()).unwrap();
	let delivery = consumer.next_event().unwrap().unwrap();
	silent.is_silent.store(true, Ordering::SeqCst);
	assert!(delivery.ack_with(credit()).is_err());
	silent.is_silent.store(false, Ordering::SeqCst);
	let next = consumer.next_event().unwrap().unwrap();
	assert_eq!(next.index().get(), 2, "the first is acked");
	next.ack_with(credit()).unwrap();
	assert_eq!(credits(&store), 2);
}

/// An operator acks the entry of a delivery that is in hand.
#[test]
fn an_entry_that_was_acked_meanwhile_is_acked_and_gets_no_effect() {
	let process = Process::new();
	fill(&process, 1..=2);
	let consumer = process.consumer("a");
	let mut in_hand = take_all(&consumer).into_iter();
	for n in 1..=2 {
		let place = leyden_log::LogIndex::new(n).unwrap();
		consumer.ack_plan_many(&[place]).run(&process.store).unwrap();
	}
	let refused = in_hand.next().unwrap().ack_with(credit()).unwrap_err();
	assert!(matches!(refused, LogError::AlreadyAcked { .. }), "{refused}");
	in_hand.next().unwrap().ack().unwrap();
	assert_eq!(credits(&process.store), 0);
	assert!(take_all(&consumer).is_empty());
}

/// A handle does not get what another one has acked since it was opened.
#[test]
fn a_handle_that_takes_over_late_sees_what_was_acked_since_it_was_opened() {
	let process = Process::new();
	fill(&process, 1..=6);
	let late = open(&layer(&process.store)).consumer("a", ConsumerOptions::default()).unwrap();
	for delivery in take_all(&process.consumer("a")).into_iter().take(4) {
		delivery.ack_with(credit()).unwrap();
	}
	let left: Vec<_> = take_all(&late).iter().map(|delivery| delivery.index().get()).collect();
	assert_eq!(left, [5, 6]);
}
