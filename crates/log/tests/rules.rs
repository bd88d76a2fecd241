//! The log's rules, one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{deliverable, drain, event, id, Process};
use leyden_id::EventKind;
use leyden_log::{
	Appended, ConsumerOptions, EventLog, LogError, LogIndex, LogOptions, LogReader, OnExhausted,
	Retention, RetryPolicy, Start, MAX_PAYLOAD_BYTES, MAX_REMEMBERED_PER_LANE,
};
use leyden_store::{
	Batch, Expectation, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, RecordType,
	Store, StoreError, Table, Timestamp, Value,
};

const MINE: Table = Table::new("mine");

fn index(n: u64) -> LogIndex {
	LogIndex::new(n).unwrap()
}

#[test]
fn the_same_event_is_one_entry() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	assert_eq!(process.log.append(event(7, 1)).unwrap(), Appended::New(index(1)));
	assert_eq!(process.log.append(event(7, 1)).unwrap(), Appended::AlreadyKnown(index(1)));
	let batch = vec![event(8, 1), event(7, 1), event(8, 1), event(9, 1)];
	let answers = process.log.append_batch(batch).unwrap();
	let expected = [
		Appended::New(index(2)),
		Appended::AlreadyKnown(index(1)),
		Appended::AlreadyKnown(index(2)),
		Appended::New(index(3)),
	];
	assert_eq!(answers, expected);
	drop(process);
	let process = Process::on(&medium);
	drain(&process.consumer("a"));
	assert_eq!(process.log.append(event(9, 1)).unwrap(), Appended::AlreadyKnown(index(3)));
	assert_eq!(process.log.find(&id(8)).unwrap(), Some(index(2)));
	assert_eq!(process.log.find(&id(80)).unwrap(), None);
}

#[test]
fn every_consumer_has_its_own_acks_over_restarts() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=5).for_each(|n| {
		process.append(n, n as u8);
	});
	let (a, b) = (process.consumer("a"), process.consumer("b"));
	assert_eq!(drain(&a), [1, 2, 3, 4, 5]);
	b.next_event().unwrap().unwrap().ack().unwrap();
	drop((a, b, process));
	let process = Process::on(&medium);
	process.append(6, 1);
	assert_eq!(drain(&process.consumer("a")), [6]);
	assert_eq!(drain(&process.consumer("b")), [2, 3, 4, 5, 6]);
}

#[test]
fn a_new_consumer_begins_where_it_says() {
	let process = Process::new();
	(1..=4).for_each(|n| {
		process.append(n, n as u8);
	});
	let open = |name: &str, start| {
		let options = ConsumerOptions { start, ..ConsumerOptions::default() };
		process.log.consumer(name, options).unwrap()
	};
	assert_eq!(drain(&open("a", Start::Beginning)), [1, 2, 3, 4]);
	assert_eq!(drain(&open("b", Start::After(index(2)))), [3, 4]);
	let end = open("c", Start::End);
	assert!(drain(&end).is_empty());
	process.append(5, 1);
	assert_eq!(drain(&end), [5]);
}

#[test]
fn a_delivery_that_is_dropped_comes_again() {
	let process = Process::new();
	process.append(1, 1);
	let consumer = process.consumer("a");
	for attempt in 1..4 {
		let delivery = consumer.next_event().unwrap().unwrap();
		assert_eq!((delivery.index().get(), delivery.attempt()), (1, attempt));
		assert!(consumer.next_event().unwrap().is_none(), "one at a time");
	}
	let plan = consumer.next_event().unwrap().unwrap().ack_plan();
	assert!(consumer.next_event().unwrap().is_none());
	drop(plan);
	let plan = consumer.next_event().unwrap().unwrap().ack_plan();
	plan.run(&process.store).unwrap();
	assert!(consumer.next_event().unwrap().is_none());
	assert!(consumer.is_acked(index(1)).unwrap());
}

#[test]
fn a_lane_is_in_order_and_holds_up_no_other() {
	let process = Process::new();
	for (n, lane) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 3)] {
		process.append(n, lane);
	}
	let consumer = process.consumer("a");
	let first = consumer.next_event().unwrap().unwrap();
	assert_eq!(first.index().get(), 1);
	// Lane 1 is in our hands: the others come, in order.
	assert_eq!(drain(&consumer), [2, 4, 5]);
	first.ack().unwrap();
	assert_eq!(drain(&consumer), [3]);
}

#[test]
fn a_stuck_lane_with_a_long_backlog_holds_up_no_other_and_takes_no_memory() {
	const STUCK: u64 = 20_000;
	let process = Process::new();
	for chunk in 0..STUCK / 1000 {
		let first = chunk * 1000;
		let mut events: Vec<_> = (first..first + 1000).map(|n| event(n, 1)).collect();
		events.push(event(1_000_000 + chunk, 2));
		process.log.append_batch(events).unwrap();
	}
	let consumer = process.consumer("a");
	let stuck = consumer.next_event().unwrap().unwrap();
	let others = drain(&consumer);
	assert_eq!(others.len() as u64, STUCK / 1000);
	let stats = consumer.stats();
	assert!(stats.remembered <= MAX_REMEMBERED_PER_LANE, "{stats:?}");
	assert!(stats.read_ahead <= 256 && stats.held_lanes == 1, "{stats:?}");
	stuck.ack().unwrap();
	let rest = drain(&consumer);
	assert_eq!(rest.len() as u64, STUCK - 1);
	assert!(rest.windows(2).all(|pair| pair[0] < pair[1]), "in order");
	assert_eq!(consumer.stats().held_lanes, 0);
}

#[test]
fn new_entries_of_a_stuck_lane_wait_behind_what_it_passed_over() {
	let process = Process::new();
	let consumer = process.consumer("a");
	process.append(1, 1);
	let held = consumer.next_event().unwrap().unwrap();
	for n in 2..200 {
		process.append(n, 1);
		assert!(consumer.next_event().unwrap().is_none());
	}
	held.ack().unwrap();
	let rest = drain(&consumer);
	assert_eq!(rest, (2..200).collect::<Vec<_>>());
}

#[test]
fn a_failed_delivery_waits_and_is_counted_over_restarts() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	process.append(1, 1);
	process.append(2, 2);
	let consumer = process.consumer("a");
	let wait = Duration::from_secs(10);
	consumer.next_event().unwrap().unwrap().retry_after(wait).unwrap();
	assert_eq!(deliverable(&consumer), [2]);
	let due = consumer.next_retry_at().unwrap();
	process.clock.advance(wait - Duration::from_millis(1));
	assert_eq!(deliverable(&consumer), [2]);
	process.clock.advance(Duration::from_millis(1));
	let again = next_of(&consumer, 1);
	assert_eq!(again.attempt(), 2);
	again.retry_after(wait).unwrap();
	drop((consumer, process));

	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	assert_eq!(deliverable(&consumer), [2], "it waits after a restart as well");
	process.clock.advance(due.since(leyden_store::Timestamp(0)) + wait);
	assert_eq!(next_of(&consumer, 1).attempt(), 3);
}

/// The delivery of this entry, whatever other lanes have.
fn next_of(consumer: &leyden_log::Consumer, index: u64) -> leyden_log::Delivery {
	let mut held = Vec::new();
	while let Some(delivery) = consumer.next_event().unwrap() {
		if delivery.index().get() == index {
			return delivery;
		}
		held.push(delivery);
	}
	panic!("{index} is not delivered");
}

#[test]
fn waits_grow_are_capped_and_differ_by_event() {
	let policy = RetryPolicy {
		first_wait: Duration::from_secs(1),
		max_wait: Duration::from_secs(60),
		max_attempts: None,
	};
	let wait = |attempts, event| policy.wait_after(attempts, &id(event)).as_secs_f64();
	for attempts in 1..100 {
		let full = (2f64.powi(attempts as i32 - 1)).min(60.0);
		assert!(wait(attempts, 1) <= full && wait(attempts, 1) > full * 0.75);
	}
	assert!((1..50).any(|n| wait(3, 1) != wait(3, n << 32)));
}

fn poisoned(on_exhausted: OnExhausted) -> (Process, leyden_log::Consumer) {
	let process = Process::new();
	for (n, lane) in [(1, 1), (2, 1), (3, 2)] {
		process.append(n, lane);
	}
	let retry = RetryPolicy { max_attempts: Some(3), ..RetryPolicy::default() };
	let options = ConsumerOptions { retry, on_exhausted, ..ConsumerOptions::default() };
	let consumer = process.log.consumer("a", options).unwrap();
	for _ in 0..3 {
		let poison = consumer.next_event().unwrap().unwrap();
		assert_eq!(poison.index().get(), 1);
		poison.retry().unwrap();
		process.clock.advance(Duration::from_secs(600));
	}
	let letters = consumer.dead_letters(None, 10).unwrap();
	assert_eq!(letters.len(), 1);
	assert_eq!((letters[0].index.get(), letters[0].attempts), (1, 3));
	assert!(!consumer.is_acked(index(1)).unwrap(), "given up is not handled");
	(process, consumer)
}

#[test]
fn a_poison_entry_holds_its_lane_until_an_operator_decides() {
	let (process, consumer) = poisoned(OnExhausted::HoldLane);
	assert_eq!(drain(&consumer), [3]);
	consumer.requeue(index(1)).unwrap();
	assert!(matches!(consumer.requeue(index(1)), Err(LogError::NoDeadLetter { .. })));
	let again = consumer.next_event().unwrap().unwrap();
	assert_eq!((again.index().get(), again.attempt()), (1, 1));
	again.dead_letter("still no good").unwrap();
	assert!(drain(&consumer).is_empty());
	consumer.discard(index(1)).unwrap();
	assert_eq!(drain(&consumer), [2]);
	assert!(consumer.dead_letters(None, 10).unwrap().is_empty());
	drop(process);
}

#[test]
fn a_lane_moves_on_without_its_poison_entry_if_the_policy_says_so() {
	let (process, consumer) = poisoned(OnExhausted::MoveOn);
	let mut rest = drain(&consumer);
	rest.sort_unstable();
	assert_eq!(rest, [2, 3]);
	consumer.requeue(index(1)).unwrap();
	assert_eq!(drain(&consumer), [1]);
	drop(process);
}

#[test]
fn dead_letters_survive_a_restart_and_hold_their_lane_again() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	for (n, lane) in [(1, 1), (2, 1), (3, 2)] {
		process.append(n, lane);
	}
	let consumer = process.consumer("a");
	consumer.next_event().unwrap().unwrap().dead_letter("no good").unwrap();
	drop((consumer, process));
	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	assert_eq!(drain(&consumer), [3]);
	let letter = &consumer.dead_letters(None, 10).unwrap()[0];
	assert_eq!((letter.reason.as_str(), letter.moved_on), ("no good", false));
	consumer.discard(index(1)).unwrap();
	assert_eq!(drain(&consumer), [2]);
}

#[test]
fn an_ack_and_your_record_are_one_commit() {
	let process = Process::new();
	process.append(1, 1);
	let consumer = process.consumer("a");
	let key = Key::new(MINE, *b"balance");
	let credit = || {
		let mut batch = Batch::new();
		batch.expect(key.clone(), Expectation::Absent);
		batch.put(key.clone(), Value::new(RecordType(0x8000), 1, *b"100"));
		Plan::of(batch)
	};
	consumer.next_event().unwrap().unwrap().ack_with(credit()).unwrap();
	assert!(process.store.get(&key).wait().unwrap().is_some());
	assert!(consumer.is_acked(index(1)).unwrap());

	process.append(2, 1);
	let refused = consumer.next_event().unwrap().unwrap().ack_with(credit());
	assert!(matches!(refused, Err(LogError::Store(StoreError::Conflict { .. }))));
	assert!(!consumer.is_acked(index(2)).unwrap(), "neither or both");
	assert_eq!(consumer.next_event().unwrap().unwrap().index().get(), 2);
}

#[test]
fn acks_in_bulk_and_twice_are_acks() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=9).for_each(|n| {
		process.append(n, n as u8);
	});
	let consumer = process.consumer("a");
	let ack = |indices: &[u64]| {
		let indices: Vec<_> = indices.iter().map(|n| index(*n)).collect();
		consumer.ack_plan_many(&indices).run(&process.store).unwrap();
	};
	ack(&[7, 2, 3, 3]);
	ack(&[3]);
	let unacked = |consumer: &leyden_log::Consumer| {
		let entries = leyden_testkit::intact(consumer.unacked(None, 100).unwrap());
		entries.iter().map(|entry| entry.index().get()).collect::<Vec<_>>()
	};
	assert_eq!(unacked(&consumer), [1, 4, 5, 6, 8, 9]);
	consumer.tidy().unwrap();
	assert_eq!(unacked(&consumer), [1, 4, 5, 6, 8, 9]);
	ack(&[1, 4, 5]);
	consumer.tidy().unwrap();
	assert_eq!(consumer.stats().watermark, 5);
	assert_eq!(unacked(&consumer), [6, 8, 9]);
	assert_eq!(drain(&consumer), [6, 8, 9]);
	assert_eq!(unacked(&Process::on(&medium).consumer("a")), [] as [u64; 0]);
}

#[test]
fn what_was_read_ahead_is_looked_at_again_when_it_changes() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=4).for_each(|n| {
		process.append(n, n as u8);
	});
	let moves_on =
		ConsumerOptions { on_exhausted: OnExhausted::MoveOn, ..ConsumerOptions::default() };
	let consumer = process.log.consumer("a", moves_on).unwrap();
	let all: Vec<_> = (1..=2).map(|_| consumer.next_event().unwrap().unwrap()).collect();
	for delivery in all {
		delivery.dead_letter("no good").unwrap();
	}
	drop((consumer, process));
	// All four are read ahead, two of them as dead letters.
	let process = Process::on(&medium);
	let consumer = process.log.consumer("a", moves_on).unwrap();
	let third = consumer.next_event().unwrap().unwrap();
	assert_eq!(third.index().get(), 3);
	consumer.ack_plan_many(&[index(4)]).run(&process.store).unwrap();
	consumer.requeue(index(1)).unwrap();
	assert_eq!(drain(&consumer), [1], "2 is still a dead letter, 3 is in our hands, 4 is acked");
	third.ack().unwrap();
}

#[test]
fn history_goes_by_count_and_age_and_its_ids_later() {
	let day = Duration::from_secs(24 * 60 * 60);
	let options = LogOptions {
		history: Retention { min_count: 3, min_age: day },
		tombstones: Retention { min_count: 5, min_age: day * 2 },
	};
	let medium = MemoryMedium::new();
	let process = Process::with(&medium, options);
	let (a, b) = (process.consumer("a"), process.consumer("b"));
	(1..=10).for_each(|n| {
		process.append(n, n as u8);
	});
	let there = || {
		let mut there = Vec::new();
		(1..=10).for_each(|n| there.extend(process.log.entry(index(n)).unwrap().map(|_| n)));
		there
	};
	drain(&a);
	process.clock.advance(day);
	a.tidy().unwrap();
	assert_eq!(there().len(), 10, "b has not acked");
	let start = process.log.start().unwrap();
	while let Some(delivery) = b.next_event().unwrap() {
		delivery.ack().unwrap();
		if b.stats().in_flight == 0 && there().len() == 10 && delivery_done(&b, 9) {
			break;
		}
	}
	b.tidy().unwrap();
	// Entry 10 is un-acked, and 8 to 10 are the last three.
	assert_eq!(there(), [8, 9, 10]);
	assert_eq!(process.log.append(event(1, 1)).unwrap(), Appended::AlreadyKnown(index(1)));
	assert!(matches!(process.log.read(start, 10), Err(LogError::TooOld { .. })));
	let (read, next) = process.log.read(process.log.start().unwrap(), 10).unwrap();
	assert_eq!(read.len(), 3);
	assert_eq!(next.after(), Some(index(10)));

	process.clock.advance(day);
	drain(&b);
	b.tidy().unwrap();
	assert_eq!(process.log.append(event(1, 1)).unwrap(), Appended::New(index(11)));
	assert_eq!(process.log.append(event(6, 1)).unwrap(), Appended::AlreadyKnown(index(6)));
}

fn delivery_done(consumer: &leyden_log::Consumer, n: u64) -> bool {
	consumer.is_acked(index(n)).unwrap()
}

#[test]
fn a_cursor_of_another_log_is_refused() {
	let (one, two) = (Process::new(), Process::new());
	one.append(1, 1);
	let cursor = one.log.start().unwrap();
	assert_eq!(cursor.to_string().parse(), Ok(cursor));
	// Each place is written in one way.
	for bad in ["12", "ff.3.1", "+0000000000000ff.3.0000000000000001"] {
		assert!(bad.parse::<leyden_log::Cursor>().is_err(), "{bad}");
	}
	let good = "00000000000000ff.3.0000000000000001";
	assert!(good.parse::<leyden_log::Cursor>().is_ok());
	for bad in [good.replace("ff", "FF"), good.replace(".3", ".+3"), good.replace(".3", ".03")] {
		assert!(bad.parse::<leyden_log::Cursor>().is_err(), "{bad}");
	}
	assert!(matches!(two.log.read(cursor, 10), Err(LogError::WrongEpoch { .. })));
	let (entries, cursor) = one.log.read(cursor, 10).unwrap();
	assert_eq!(entries.len(), 1);
	assert!(one.log.read(cursor, 10).unwrap().0.is_empty());
}

/// The database of a log is restored from yesterday's copy, and grows again. A reader that was further
/// is told, whether the log has grown past it or not.
#[test]
fn a_reader_of_a_log_that_went_back_is_told() {
	let history = |numbers: Vec<u64>| {
		let process = Process::new();
		for n in numbers {
			process.append(n, 1);
		}
		process
	};
	// The log's epoch is in its stream record, and a copy has the same.
	let epoch = |process: &Process| {
		let key = Key::new(Table::new("log_streams"), *b"events");
		process.store.get(&key).wait().unwrap().unwrap().value
	};
	let before = history((1..=10).collect());
	let mut cursors = vec![before.log.start().unwrap()];
	for _ in 0..10 {
		let (_, cursor) = before.log.read(cursors[cursors.len() - 1], 1).unwrap();
		assert_eq!(cursor.to_string().parse(), Ok(cursor));
		cursors.push(cursor);
	}
	// Entries 1 to 5 are the same, and then comes something else.
	for grown in [0, 3, 20] {
		let after = history((1..=5).chain((100..).take(grown)).collect());
		let mut batch = Batch::new();
		batch.put(Key::new(Table::new("log_streams"), *b"events"), epoch(&before));
		after.store.commit(batch).wait().unwrap();
		let after =
			Process::over(Arc::new(Arc::clone(&after.store)), after.clock, LogOptions::default());
		let head = 5 + grown as u64;
		for (read, cursor) in cursors.iter().enumerate() {
			match after.log.read(*cursor, 100) {
				Ok((entries, _)) => {
					assert!(read <= 5, "{read} of {head}");
					assert_eq!(entries.len() as u64, head - read as u64);
				},
				Err(LogError::Ahead { head: found, .. }) => {
					assert!(read as u64 > head, "{read} of {head}");
					assert_eq!(found.map(|found| found.get()), Some(head));
				},
				Err(LogError::AnotherHistory { .. }) => {
					assert!(read > 5 && read as u64 <= head, "{read} of {head}");
				},
				Err(error) => panic!("{error}"),
			}
		}
	}
}

#[test]
fn an_id_that_is_known_with_something_else_is_refused() {
	let process = Process::new();
	let first = process.append(1, 1);
	assert!(matches!(process.log.append(event(1, 1)), Ok(Appended::AlreadyKnown(_))));
	let mut others = vec![event(1, 2), event(1, 1), event(1, 1)];
	others[1].kind = EventKind::from_static("Other");
	others[2].payload.push(0);
	for other in others {
		let refused = process.log.append(other.clone()).unwrap_err();
		assert!(
			matches!(&refused, LogError::OtherEvent { index } if index.get() == first),
			"{refused}"
		);
		let refused = process.log.append_batch(vec![event(2, 1), other]).unwrap_err();
		assert!(matches!(refused, LogError::OtherEvent { .. }), "{refused}");
	}
	// The other one of each batch is there, once.
	assert_eq!(process.log.head().map(|head| head.get()), Some(2));
	assert!(matches!(process.log.append(event(2, 1)), Ok(Appended::AlreadyKnown(_))));
}

#[test]
fn what_is_too_large_or_has_no_name_is_refused() {
	let process = Process::new();
	let mut large = event(1, 1);
	large.payload = vec![0; MAX_PAYLOAD_BYTES + 1];
	assert!(matches!(process.log.append(large), Err(LogError::PayloadTooLarge { .. })));
	for name in ["", "UPPER", "a/b", "-a", "a\0b", "\u{e9}", &"x".repeat(33)] {
		let refused = process.log.consumer(name, ConsumerOptions::default());
		assert!(matches!(refused, Err(LogError::BadName { .. })), "{name}");
	}
}

/// Names are kept apart by a zero byte, so that one which begins like another is not part of it.
#[test]
fn names_with_hyphens_are_names_and_each_has_its_own_records() {
	let medium = MemoryMedium::new();
	let store = MemoryStore::open(&medium, Namespace::default()).unwrap();
	let store: Arc<dyn Store> = Arc::new(store);
	let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
	let streams = ["ldk-node", "ldk", "ldk-", "ldk_node", "ldknode"];
	for (n, stream) in (1u64..).zip(streams) {
		let options = LogOptions::default();
		let log = EventLog::open(Arc::clone(&store), stream, clock.clone(), options).unwrap();
		for number in 0..n {
			log.append(event(number, 1)).unwrap();
		}
		for (acked, name) in (0u64..).zip(streams) {
			let consumer = log.consumer(name, ConsumerOptions::default()).unwrap();
			for _ in 0..acked.min(n) {
				consumer.next_event().unwrap().unwrap().ack().unwrap();
			}
			consumer.tidy().unwrap();
		}
	}
	let reader = LogReader::new(Arc::clone(&store));
	assert_eq!(reader.streams().unwrap().len(), streams.len());
	for (n, stream) in (1..).zip(streams) {
		let info = reader.streams().unwrap().into_iter().find(|info| info.name == stream).unwrap();
		assert_eq!((info.head, info.consumers.len()), (n, streams.len()), "{stream}");
		for (acked, name) in (0..).zip(streams) {
			let left = reader.unacked(stream, name, None, 100).unwrap();
			assert_eq!(left.len() as u64, n.saturating_sub(acked), "{stream}, {name}");
		}
	}
}

#[test]
fn debug_shows_no_payload() {
	let process = Process::new();
	let mut secret = event(1, 1);
	secret.payload = b"preimage".to_vec();
	assert!(!format!("{secret:?}").contains("preimage"));
	let plan = format!("{:?}", process.log.append_plan(secret.clone()));
	assert!(!plan.contains("112, 114"), "{plan}");
	process.log.append(secret).unwrap();
	let consumer = process.consumer("a");
	let delivery = consumer.next_event().unwrap().unwrap();
	let shown = format!("{delivery:?} {:?}", process.log.entry(index(1)).unwrap());
	assert!(!shown.contains("112, 114"), "{shown}");
}
