//! Every way to ack leads to the same housekeeping: what a log keeps is bounded by its retention,
//! and opening it costs the same however long it has run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{drain, event, Process};
use leyden_log::{
	Consumer, ConsumerOptions, Delivery, LogError, LogIndex, LogOptions, LogReader, OnExhausted,
	Retention, ACKS_BETWEEN_COMPACTIONS,
};
use leyden_store::{
	Batch, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, RecordType, Store, Table,
	Ticket, Timestamp, Value,
};
use leyden_testkit::{count_records, CountingStore};

const HISTORY: u64 = 10;
const IDS: u64 = 50;
/// The number of records that may wait for the next round of housekeeping.
const SLACK: u64 = 2 * ACKS_BETWEEN_COMPACTIONS;

fn options() -> LogOptions {
	LogOptions {
		history: Retention { min_count: HISTORY, min_age: Duration::ZERO },
		tombstones: Retention { min_count: IDS, min_age: Duration::ZERO },
	}
}

fn process(store: Arc<dyn Store>) -> Process {
	Process::over(store, Arc::new(ManualClock::new(Timestamp(1_000))), options())
}

fn on(medium: &MemoryMedium) -> Process {
	process(Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap()))
}

fn index(n: u64) -> LogIndex {
	LogIndex::new(n).unwrap()
}

fn count(store: &dyn Store, table: &'static str) -> u64 {
	count_records(store, table) as u64
}

/// Asserts that everything the log keeps per entry is bounded by retention, `slack` more at most.
fn assert_bounded(store: &dyn Store, slack: u64) {
	let bounds = [
		("log_entries", HISTORY),
		("log_tombs", IDS),
		("log_ids", IDS),
		("log_acks", 0),
		("log_retries", 0),
		("log_dead", 0),
	];
	for (table, kept) in bounds {
		let found = count(store, table);
		assert!(found <= kept + slack, "{found} records in {table}, {kept} are to be kept");
	}
}

/// Appends many events, one at a time, and lets `door` ack each of them.
fn through(mut door: impl FnMut(&Process, &Consumer, Delivery)) {
	let process = on(&MemoryMedium::new());
	let consumer = process.consumer("a");
	for n in 1..=3_000 {
		process.append(n, (n % 7) as u8);
		let delivery = consumer.next_event().unwrap().unwrap();
		door(&process, &consumer, delivery);
	}
	assert!(consumer.unacked(None, 1).unwrap().is_empty());
	assert_bounded(&*process.store, SLACK);
	assert!(process.log.housekeeping_failure().is_none());
}

/// Returns what a task gets that polls the ticket once; the memory store answers at once.
fn awaited<T>(ticket: Ticket<T>) -> T {
	let mut ticket = pin!(ticket);
	match ticket.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
		Poll::Ready(answer) => answer.unwrap(),
		Poll::Pending => panic!("the memory store answers at once"),
	}
}

fn mine() -> Plan<()> {
	let mut batch = Batch::new();
	let value = Value::new(RecordType(0x8000), 1, *b"1");
	batch.put(Key::new(Table::new("mine"), *b"k"), value);
	Plan::of(batch)
}

#[test]
fn acks_one_by_one_keep_the_log_bounded() {
	through(|_, _, delivery| delivery.ack().unwrap());
}

#[test]
fn lazy_acks_keep_the_log_bounded() {
	through(|_, _, delivery| delivery.ack_lazy().unwrap());
}

#[test]
fn acks_with_the_users_records_keep_the_log_bounded() {
	through(|_, _, delivery| delivery.ack_with(mine()).unwrap());
}

#[test]
fn an_ack_plan_that_is_run_keeps_the_log_bounded() {
	through(|process, _, delivery| delivery.ack_plan().run(&process.store).unwrap());
}

#[test]
fn an_ack_plan_that_is_awaited_keeps_the_log_bounded() {
	through(|process, _, delivery| awaited(delivery.ack_plan().commit(&process.store)));
}

#[test]
fn an_ack_plan_whose_ticket_is_dropped_keeps_the_log_bounded() {
	through(|process, _, delivery| drop(delivery.ack_plan().commit(&process.store)));
}

#[test]
fn an_ack_in_a_joined_plan_keeps_the_log_bounded() {
	through(|process, _, delivery| {
		let plan = mine().and(delivery.ack_plan()).map(|_| ());
		awaited(plan.commit(&process.store));
	});
}

#[test]
fn bulk_acks_keep_the_log_bounded() {
	through(|process, consumer, delivery| {
		let place = delivery.index();
		drop(delivery);
		consumer.ack_plan_many(&[place]).run(&process.store).unwrap();
	});
	through(|process, consumer, delivery| {
		awaited(consumer.ack_plan_many(&[delivery.index()]).commit(&process.store));
	});
	through(|process, consumer, delivery| {
		drop(consumer.ack_plan_many(&[delivery.index()]).commit(&process.store));
	});
}

#[test]
fn discarded_dead_letters_keep_the_log_bounded() {
	through(|_, consumer, delivery| {
		let place = delivery.index();
		delivery.dead_letter("no good").unwrap();
		consumer.discard(place).unwrap();
	});
}

/// Discards are the last calls before a long silence.
#[test]
fn discards_alone_keep_the_log_bounded() {
	const LETTERS: u64 = 2_000;
	let process = on(&MemoryMedium::new());
	let moves_on =
		ConsumerOptions { on_exhausted: OnExhausted::MoveOn, ..ConsumerOptions::default() };
	let consumer = process.log.consumer("a", moves_on).unwrap();
	for n in 1..=LETTERS {
		process.append(n, 1);
		consumer.next_event().unwrap().unwrap().dead_letter("no good").unwrap();
	}
	(1..=LETTERS).for_each(|n| consumer.discard(index(n)).unwrap());
	assert_bounded(&*process.store, SLACK);
}

#[test]
fn dead_letters_and_retries_that_are_acked_in_bulk_leave_nothing() {
	through(|process, consumer, delivery| {
		let place = delivery.index();
		match place.get() % 2 {
			0 => delivery.dead_letter("no good").unwrap(),
			_ => delivery.retry_after(Duration::from_secs(3600)).unwrap(),
		}
		consumer.ack_plan_many(&[place]).run(&process.store).unwrap();
	});
}

#[test]
fn a_lane_whose_head_is_acked_in_bulk_goes_on() {
	for parked in [true, false] {
		let process = on(&MemoryMedium::new());
		process.append(1, 1);
		process.append(2, 1);
		let consumer = process.consumer("a");
		let first = consumer.next_event().unwrap().unwrap();
		match parked {
			true => first.dead_letter("no good").unwrap(),
			false => first.retry_after(Duration::from_secs(3600)).unwrap(),
		}
		assert!(consumer.next_event().unwrap().is_none(), "the lane waits");
		consumer.ack_plan_many(&[index(1)]).run(&process.store).unwrap();
		assert!(
			consumer.dead_letters(None, 10).unwrap().is_empty(),
			"an acked entry is no dead letter"
		);
		let place = index(1);
		assert!(matches!(consumer.requeue(place), Err(LogError::NoDeadLetter { .. })));
		let reader = LogReader::new(Arc::clone(&process.store));
		assert!(reader.dead_letters(common::STREAM, "a", None, 10).unwrap().is_empty());
		assert_eq!(drain(&consumer), [2], "nothing holds the lane any more");
	}
}

#[test]
fn what_was_read_ahead_and_is_acked_in_bulk_is_not_delivered() {
	let process = on(&MemoryMedium::new());
	(1..=4).for_each(|n| {
		process.append(n, n as u8);
	});
	let consumer = process.consumer("a");
	consumer.next_event().unwrap().unwrap().ack().unwrap();
	assert!(consumer.stats().read_ahead > 0, "the others are read ahead");
	consumer.ack_plan_many(&[index(2), index(3)]).run(&process.store).unwrap();
	assert_eq!(drain(&consumer), [4]);
}

/// The ledger of the facade's journal acks in bulk beside a consumer that acks one by one and falls
/// behind.
#[test]
fn consumers_at_different_speeds_keep_the_log_bounded_once_the_slowest_has_acked() {
	let process = on(&MemoryMedium::new());
	let (fast, slow) = (process.consumer("fast"), process.consumer("slow"));
	let mut settled = 0;
	for n in 1..=5_000 {
		process.append(n, (n % 5) as u8);
		if n % 100 == 0 {
			let places: Vec<_> = (settled + 1..=n).map(index).collect();
			awaited(fast.ack_plan_many(&places).commit(&process.store));
			settled = n;
		}
	}
	assert_eq!(count(&*process.store, "log_entries"), 5_000, "one consumer has not acked");
	assert!(count(&*process.store, "log_acks") <= SLACK);
	while let Some(delivery) = slow.next_event().unwrap() {
		awaited(delivery.ack_plan().commit(&process.store));
	}
	assert_bounded(&*process.store, SLACK);
}

/// The slow consumer is one that this process has not opened.
#[test]
fn the_backlog_of_a_consumer_that_is_far_behind_is_not_read_by_each_pass() {
	let counting = Arc::new(CountingStore::new(Arc::new(MemoryStore::new().unwrap())));
	let process = process(Arc::<CountingStore>::clone(&counting) as _);
	drop(process.consumer("behind"));
	let consumer = process.consumer("a");
	let cost = counting.count(|| {
		for round in 0..20 {
			let first = round * ACKS_BETWEEN_COMPACTIONS + 1;
			let numbers = first..first + ACKS_BETWEEN_COMPACTIONS;
			let events = numbers.clone().map(|n| event(n, 1)).collect();
			process.log.append_batch(events).unwrap();
			let places: Vec<_> = numbers.map(index).collect();
			awaited(consumer.ack_plan_many(&places).commit(&process.store));
		}
	});
	assert!(cost.scanned < 2_000, "{cost:?}");
}

#[test]
fn a_consumer_that_acks_out_of_order_keeps_few_acks_and_then_nothing() {
	let process = on(&MemoryMedium::new());
	let consumer = process.consumer("a");
	process.append(1, 1);
	let stuck = consumer.next_event().unwrap().unwrap();
	for n in 2..=4_000 {
		// Every other event is of the stuck lane.
		process.append(n, 1 + (n % 2) as u8);
		if let Some(delivery) = consumer.next_event().unwrap() {
			awaited(delivery.ack_plan().commit(&process.store));
		}
	}
	awaited(stuck.ack_plan().commit(&process.store));
	drain(&consumer);
	assert_bounded(&*process.store, SLACK);
}

/// Each life makes fewer acks than housekeeping waits for.
#[test]
fn short_lives_keep_the_log_bounded() {
	let medium = MemoryMedium::new();
	for life in 0..60 {
		let process = on(&medium);
		let consumer = process.consumer("a");
		for n in 1..ACKS_BETWEEN_COMPACTIONS / 2 {
			process.append(life * 1_000 + n, (n % 5) as u8);
			let delivery = consumer.next_event().unwrap().unwrap();
			awaited(delivery.ack_plan().commit(&process.store));
		}
	}
	assert_bounded(&*on(&medium).store, SLACK);
}

/// Writes acks as a store holds them whose process died again and again before any housekeeping.
fn long_tail(medium: &MemoryMedium, acks: u64) {
	let process = on(medium);
	process.consumer("a");
	for first in (1..=acks).step_by(1_000) {
		let events = (first..first + 1_000).map(|n| event(n, 1)).collect();
		process.log.append_batch(events).unwrap();
		let mut batch = Batch::new();
		for n in first..first + 1_000 {
			let key = [&b"events\0a\0"[..], &n.to_be_bytes(), &n.to_be_bytes()].concat();
			let value = Value::new(RecordType(0x0104), 1, Vec::new());
			batch.put(Key::new(Table::new("log_acks"), key), value);
		}
		process.store.commit(batch).wait().unwrap();
	}
}

#[test]
fn a_long_tail_of_acks_is_caught_up_with_in_bounded_steps() {
	const ACKS: u64 = 20_000;
	let medium = MemoryMedium::new();
	long_tail(&medium, ACKS);
	let counting = Arc::new(CountingStore::new(Arc::new(
		MemoryStore::open(&medium, Namespace::default()).unwrap(),
	)));
	let process = process(Arc::<CountingStore>::clone(&counting) as _);
	let mut consumer = None;
	let opened = counting.count(|| {
		let opening = process.consumer("a");
		assert!(opening.unacked(None, 10).unwrap().is_empty());
		consumer = Some(opening);
	});
	assert!(opened.scans < ACKS / 200, "{opened:?}");
	let consumer = consumer.unwrap();
	// The first call looks for what is un-acked. No call does more than a step or two of the rest, and
	// together the calls of an ordinary life do all.
	for call in 0..50 {
		let cost = counting.count(|| assert!(consumer.next_event().unwrap().is_none()));
		// The first call also makes the consumer this handle's.
		assert!(cost.commits <= 2 + u64::from(call == 0), "{cost:?} in call {call}");
		assert!(cost.scanned <= 10_000 || call == 0, "{cost:?} in call {call}");
	}
	assert_bounded(&*process.store, 0);
	assert_eq!(consumer.stats().watermark, ACKS);
}

/// A consumer acks in bulk only and never asks for a delivery, as the bus and the ledger do it.
#[test]
fn a_hundred_thousand_bulk_acks_leave_no_more_than_a_thousand_do_and_opening_costs_the_same() {
	const AT_A_TIME: u64 = 500;
	let medium = MemoryMedium::new();
	let mut costs = Vec::new();
	let mut appended = 0;
	for until in [1_000, 100_000] {
		let process = on(&medium);
		let consumer = process.consumer("manager");
		while appended < until {
			let events = (appended + 1..=appended + AT_A_TIME).map(|n| event(n, 1)).collect();
			process.log.append_batch(events).unwrap();
			let places: Vec<_> = (appended + 1..=appended + AT_A_TIME).map(index).collect();
			drop(consumer.ack_plan_many(&places).commit(&process.store));
			appended += AT_A_TIME;
		}
		assert_bounded(&*process.store, 2 * AT_A_TIME);
		drop((consumer, process));
		let store = MemoryStore::open(&medium.snapshot(), Namespace::default()).unwrap();
		let counting = Arc::new(CountingStore::new(Arc::new(store)));
		costs.push(counting.count(|| {
			let process = self::process(Arc::<CountingStore>::clone(&counting) as _);
			let consumer = process.consumer("manager");
			assert!(consumer.unacked(None, 1_024).unwrap().is_empty());
			assert!(consumer.next_event().unwrap().is_none());
		}));
	}
	assert_eq!(costs[0], costs[1], "opening after 1,000 and after 100,000");
}

/// A consumer makes one ack at a time, as a node with little traffic persists its manager.
#[test]
fn single_bulk_acks_leave_few_records() {
	let process = on(&MemoryMedium::new());
	let consumer = process.consumer("manager");
	for n in 1..=10_000 {
		process.append(n, 1);
		awaited(consumer.ack_plan_many(&[index(n)]).commit(&process.store));
	}
	assert_bounded(&*process.store, SLACK);
}

#[test]
fn bulk_acks_of_thousands_at_a_time_are_kept_up_with() {
	const AT_A_TIME: u64 = 9_000;
	let process = on(&MemoryMedium::new());
	let consumer = process.consumer("manager");
	for round in 0..10 {
		let numbers = round * AT_A_TIME + 1..=(round + 1) * AT_A_TIME;
		process.log.append_batch(numbers.clone().map(|n| event(n, 1)).collect()).unwrap();
		let places: Vec<_> = numbers.map(index).collect();
		awaited(consumer.ack_plan_many(&places).commit(&process.store));
		assert_bounded(&*process.store, 2 * AT_A_TIME);
	}
}

#[test]
fn acks_that_overlap_are_acks_wherever_one_begins_to_look() {
	let medium = MemoryMedium::new();
	let process = on(&medium);
	(1..=100).for_each(|n| {
		process.append(n, n as u8);
	});
	let consumer = process.consumer("a");
	let held: Vec<_> = (1..=50).map(|_| consumer.next_event().unwrap().unwrap()).collect();
	// All but the first, by one record; then some of them once more, one by one.
	let places: Vec<_> = (2..=100).map(index).collect();
	consumer.ack_plan_many(&places).run(&process.store).unwrap();
	let mut held = held.into_iter();
	let first = held.next().unwrap();
	held.for_each(|delivery| delivery.ack().unwrap());
	for n in 2..=100 {
		assert!(consumer.is_acked(index(n)).unwrap(), "{n} was acked");
	}
	assert!(consumer.unacked(Some(index(60)), 10).unwrap().is_empty());
	drop((first, consumer, process));
	let process = on(&medium);
	let consumer = process.consumer("a");
	for n in 2..=100 {
		assert!(consumer.is_acked(index(n)).unwrap(), "{n} was acked in an earlier life");
	}
	assert!(consumer.unacked(Some(index(60)), 10).unwrap().is_empty());
	assert_eq!(drain(&consumer), [1]);
}

#[test]
fn a_lane_that_moved_on_and_a_discard_later_keep_the_log_bounded() {
	let process = on(&MemoryMedium::new());
	let moves_on =
		ConsumerOptions { on_exhausted: OnExhausted::MoveOn, ..ConsumerOptions::default() };
	let consumer = process.log.consumer("a", moves_on).unwrap();
	process.append(1, 1);
	consumer.next_event().unwrap().unwrap().dead_letter("no good").unwrap();
	for n in 2..=3_000 {
		process.append(n, 1);
		awaited(consumer.next_event().unwrap().unwrap().ack_plan().commit(&process.store));
	}
	assert!(count(&*process.store, "log_acks") <= SLACK);
	consumer.discard(index(1)).unwrap();
	// The entries behind it wait for the next round, and then go however many they are.
	for n in 3_001..=3_300 {
		process.append(n, 1);
		awaited(consumer.next_event().unwrap().unwrap().ack_plan().commit(&process.store));
	}
	assert_bounded(&*process.store, SLACK);
}
