//! What a task does with a delivery, and what follows from one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{deliverable, event, Process};
use leyden_id::EventKind;
use leyden_log::{
	Appended, ConsumerOptions, EventLog, LogError, LogOptions, NewEvent, RetryPolicy,
};
use leyden_store::{block_on, Batch, Key, Plan, RecordType, Table, Value};
use leyden_testkit::count_records;

const MINE: &str = "mine";

fn credit(n: u64) -> Plan<()> {
	let mut batch = Batch::new();
	let key = Key::new(Table::new(MINE), n.to_be_bytes());
	batch.put(key, Value::new(RecordType(0x8000), 1, vec![1]));
	Plan::of(batch)
}

#[test]
fn a_task_settles_a_delivery_as_a_thread_does() {
	let process = Process::new();
	(1..=5).for_each(|n| {
		process.append(n, n as u8);
	});
	let retry = RetryPolicy { max_attempts: Some(1), ..RetryPolicy::default() };
	let options = ConsumerOptions { retry, ..ConsumerOptions::default() };
	let consumer = process.log.consumer("a", options).unwrap();
	let next = || consumer.next_event().unwrap().unwrap();
	block_on(&*process.store, async {
		next().ack_async().await.unwrap();
		next().ack_with_async(credit(2)).await.unwrap();
		next().retry_after_async(Duration::from_secs(9)).await.unwrap();
		next().dead_letter_async("no").await.unwrap();
		// The only attempt.
		next().retry_async().await.unwrap();
	});
	assert_eq!(count_records(&*process.store, MINE), 1);
	let dead: Vec<_> = consumer.dead_letters(None, 9).unwrap();
	let reasons: Vec<_> = dead.iter().map(|dead| dead.reason.as_str()).collect();
	assert_eq!(reasons, ["no", "all attempts used up"]);
	assert!(deliverable(&consumer).is_empty());
	process.clock.advance(Duration::from_secs(9));
	assert_eq!(deliverable(&consumer), [3]);
}

#[test]
fn a_task_hears_that_an_entry_is_acked_already_and_that_its_consumer_was_taken_over() {
	let process = Process::new();
	(1..=3).for_each(|n| {
		process.append(n, n as u8);
	});
	let consumer = process.consumer("a");
	let (first, second) =
		(consumer.next_event().unwrap().unwrap(), consumer.next_event().unwrap().unwrap());
	consumer.ack_plan_many(&[first.index()]).commit(&*process.store).wait().unwrap();
	let told = block_on(&*process.store, first.ack_with_async(credit(1)));
	assert!(matches!(told, Err(LogError::AlreadyAcked { .. })), "{told:?}");
	// For an ack alone that is what it is for.
	let third = consumer.next_event().unwrap().unwrap();
	consumer.ack_plan_many(&[third.index()]).commit(&*process.store).wait().unwrap();
	block_on(&*process.store, third.ack_async()).unwrap();
	// Another layer around the store has a consumer of its own.
	let layer: std::sync::Arc<dyn leyden_store::Store> = std::sync::Arc::new(process.store.clone());
	let other = Process::over(layer, process.clock.clone(), LogOptions::default());
	drop(other.consumer("a").next_event().unwrap());
	let told = block_on(&*process.store, second.ack_async());
	assert!(matches!(told, Err(LogError::TakenOver { .. })), "{told:?}");
	assert_eq!(count_records(&*process.store, MINE), 0);
}

/// A second stream that is fed from the deliveries of a first one has one entry for each, however
/// often a delivery comes.
#[test]
fn what_follows_from_a_delivery_is_one_event() {
	let process = Process::new();
	process.append(1, 1);
	process.append(2, 1);
	let clock = process.clock.clone();
	let second =
		EventLog::open(process.store.clone(), "second", clock, LogOptions::default()).unwrap();
	let consumer = process.consumer("a");
	let kind = || EventKind::from_static("Followed");
	let feed = |part| {
		let delivery = consumer.next_event().unwrap().unwrap();
		let follows = NewEvent::caused_by(&delivery, kind(), part, vec![7]);
		assert_eq!(follows.lane, delivery.lane());
		second.append(follows).unwrap()
	};
	let first = feed(0);
	assert!(matches!(first, Appended::New(_)));
	// The delivery was dropped, and comes again.
	assert_eq!(feed(0).index(), first.index());
	assert!(matches!(feed(0), Appended::AlreadyKnown(_)));
	// Another part, another kind and another delivery are other events.
	assert!(matches!(feed(1), Appended::New(_)));
	let delivery = consumer.next_event().unwrap().unwrap();
	let other = NewEvent::caused_by(&delivery, EventKind::from_static("Other"), 0, vec![7]);
	assert!(matches!(second.append(other).unwrap(), Appended::New(_)));
	delivery.ack().unwrap();
	assert!(matches!(feed(0), Appended::New(_)));
	// It is not the event that it follows from.
	assert!(matches!(second.append(event(1, 1)).unwrap(), Appended::New(_)));
}
