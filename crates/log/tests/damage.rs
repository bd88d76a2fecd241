//! Entries that are damaged: each holds up its lane, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{deliverable, drain, event, id, Process};
use leyden_id::{EventKind, Lane};
use leyden_log::{
	Appended, Consumer, ConsumerOptions, LogError, LogIndex, LogObserver, LogOptions, LogReader,
	NewEvent, OnExhausted, Retention,
};
use leyden_store::verify::Findings;
use leyden_store::{Key, MemoryMedium, Namespace, StoreError, Table};
use parking_lot::Mutex;
use proptest::prelude::*;

/// The header of a frame, and behind it the label of an entry: id, repeat, lane, age, checksum.
const HEADER: usize = 24;

fn key(index: u64) -> Key {
	Key::numbered(Table::new("log_entries"), b"events\0", index)
}

fn damage(medium: &MemoryMedium, index: u64, damage: impl FnOnce(&mut Vec<u8>)) {
	medium.damage(&Namespace::default(), &key(index), damage);
}

/// Flips a bit of the payload.
fn damage_payload(medium: &MemoryMedium, index: u64) {
	damage(medium, index, |frame| {
		let at = frame.len() - 45;
		frame[at] ^= 1;
	});
}

/// Flips a bit of the label, and one of the lane at the end.
fn damage_lane(medium: &MemoryMedium, index: u64) {
	damage(medium, index, |frame| {
		frame[HEADER + 40] ^= 1;
		*frame.last_mut().unwrap() ^= 1;
	});
}

fn index(number: u64) -> LogIndex {
	LogIndex::new(number).unwrap()
}

fn dead(consumer: &Consumer) -> Vec<u64> {
	let letters = consumer.dead_letters(None, 10_000).unwrap();
	letters.iter().map(|letter| letter.index.get()).collect()
}

fn keep_nothing() -> LogOptions {
	let none = Retention { min_count: 0, min_age: Duration::ZERO };
	LogOptions { history: none, tombstones: Retention { min_count: 5_000, ..none } }
}

fn findings(process: &Process) -> Vec<StoreError> {
	let mut findings = Findings::new(100);
	LogReader::new(Arc::clone(&process.store)).verify(&mut findings).unwrap();
	findings.errors().to_vec()
}

#[derive(Default)]
struct Told(Mutex<Vec<(u64, String)>>);

impl LogObserver for Told {
	fn appended(&self, _: LogIndex, _: &EventKind) {}

	fn opened(&self, _: &str, _: u64) {}

	fn acked(&self, _: &str, _: &[LogIndex]) {}

	fn parked(&self, _: &str, index: LogIndex, reason: &str) {
		self.0.lock().push((index.get(), reason.to_owned()));
	}
}

/// The case of the fault: entry 10 of 1,000 in 1,000 lanes.
#[test]
fn a_damaged_entry_holds_up_its_lane_and_no_other() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	let mut events: Vec<NewEvent> = (1..=1_001).map(|n| event(n, 0)).collect();
	for event in &mut events {
		// The last one is in the lane of the tenth.
		let n = u64::from_be_bytes(event.payload.clone().try_into().unwrap());
		event.lane = Lane::named(&(if n == 1_001 { 10 } else { n }).to_string());
	}
	process.log.append_batch(events).unwrap();
	drop(process);
	damage_payload(&medium, 10);

	let process = Process::with(&medium, keep_nothing());
	let told = Arc::new(Told::default());
	let observer: Arc<dyn LogObserver> = Arc::<Told>::clone(&told);
	process.log.observe(&observer).unwrap();
	let consumers = ["a", "b"].map(|name| process.consumer(name));
	let others: Vec<u64> = (1..=1_000).filter(|n| *n != 10).collect();
	for consumer in &consumers {
		assert_eq!(drain(consumer), others);
		assert_eq!(dead(consumer), [10]);
		let letter = consumer.dead_letters(None, 1).unwrap().remove(0);
		assert_eq!(letter.lane, Some(Lane::named("10")));
		assert!(!letter.moved_on && letter.reason.contains("checksum"), "{}", letter.reason);
	}
	assert_eq!(told.0.lock().iter().map(|(index, _)| *index).collect::<Vec<_>>(), [10, 10]);
	assert!(process.log.housekeeping_failure().is_none());
	drop((consumers, process));

	// It is the same after a restart. Put aside by one consumer, it holds up the other.
	let process = Process::with(&medium, keep_nothing());
	let [a, b] = ["a", "b"].map(|name| process.consumer(name));
	assert!(drain(&a).is_empty() && drain(&b).is_empty());
	a.discard(index(10)).unwrap();
	assert_eq!(drain(&a), [1_001]);
	assert!(drain(&b).is_empty());
	b.discard(index(10)).unwrap();
	assert_eq!(drain(&b), [1_001]);
	// Acked by all, it is trimmed like any other, and its id is known.
	assert_eq!(findings(&process).len(), 1);
	a.tidy().unwrap();
	b.tidy().unwrap();
	assert_eq!(process.log.start().unwrap().after(), Some(index(1_001)));
	assert!(findings(&process).is_empty());
	assert!(matches!(process.log.append(event(10, 0)), Ok(Appended::AlreadyKnown(_))));
}

#[test]
fn a_lane_that_may_move_on_does_not_move_on_past_damage() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=3).for_each(|n| {
		process.append(n, 1);
	});
	drop(process);
	damage_payload(&medium, 2);
	let process = Process::on(&medium);
	let options =
		ConsumerOptions { on_exhausted: OnExhausted::MoveOn, ..ConsumerOptions::default() };
	let consumer = process.log.consumer("a", options).unwrap();
	assert_eq!(drain(&consumer), [1]);
	assert_eq!(dead(&consumer), [2]);
	drop((consumer, process));
	let process = Process::on(&medium);
	let consumer = process.log.consumer("a", options).unwrap();
	assert!(drain(&consumer).is_empty());
}

/// The lane was read when the entry became a dead letter, and cannot be read any more.
#[test]
fn a_dead_letter_knows_the_lane_of_what_is_damaged_further() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=4).for_each(|n| {
		process.append(n, (n % 2) as u8);
	});
	drop(process);
	damage_payload(&medium, 1);
	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	let first = consumer.next_event().unwrap().unwrap();
	assert_eq!((first.index(), dead(&consumer)), (index(2), vec![1]));
	drop((first, consumer, process));
	damage_lane(&medium, 1);
	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	assert_eq!(drain(&consumer), [2, 4]);
	consumer.discard(index(1)).unwrap();
	assert_eq!(drain(&consumer), [3]);
}

/// A lane remembers a few places. Behind them is a dead letter, which nothing overtakes either.
#[test]
fn a_dead_letter_far_behind_in_its_lane_is_not_overtaken() {
	let medium = MemoryMedium::new();
	let options =
		ConsumerOptions { on_exhausted: OnExhausted::MoveOn, ..ConsumerOptions::default() };
	let process = Process::on(&medium);
	(1..=102).for_each(|n| {
		process.append(n, 1);
	});
	drop(process);
	damage_payload(&medium, 101);
	let process = Process::on(&medium);
	let consumer = process.log.consumer("a", options).unwrap();
	while let Some(delivery) = consumer.next_event().unwrap() {
		delivery.dead_letter("later").unwrap();
	}
	assert_eq!(dead(&consumer).len(), 101);
	(1..=100).for_each(|n| consumer.requeue(index(n)).unwrap());
	drop((consumer, process));
	let process = Process::on(&medium);
	let consumer = process.log.consumer("a", options).unwrap();
	let first = consumer.next_event().unwrap().unwrap();
	assert!(consumer.next_event().unwrap().is_none(), "the rest of the lane is passed over");
	first.ack().unwrap();
	assert_eq!(drain(&consumer), (2..=100).collect::<Vec<_>>());
	assert_eq!(dead(&consumer), [101]);
}

/// Any entry behind it may be of its lane.
#[test]
fn everything_waits_behind_an_entry_whose_lane_is_not_known() {
	let medium = MemoryMedium::new();
	let process = Process::with(&medium, keep_nothing());
	(1..=5).for_each(|n| {
		process.append(n, n as u8);
	});
	drop(process);
	damage_lane(&medium, 3);
	let process = Process::with(&medium, keep_nothing());
	let consumer = process.consumer("a");
	assert_eq!(drain(&consumer), [1, 2]);
	assert_eq!(dead(&consumer), [3]);
	assert_eq!(consumer.dead_letters(None, 1).unwrap()[0].lane, None);
	process.append(6, 6);
	assert!(drain(&consumer).is_empty());
	drop((consumer, process));
	let process = Process::with(&medium, keep_nothing());
	let consumer = process.consumer("a");
	assert!(drain(&consumer).is_empty());
	// It is still damaged, and told again.
	consumer.requeue(index(3)).unwrap();
	assert!(drain(&consumer).is_empty());
	assert_eq!(dead(&consumer), [3]);
	consumer.discard(index(3)).unwrap();
	assert_eq!(drain(&consumer), [4, 5, 6]);
	// Nobody knows its id. It stays known, whatever is trimmed.
	consumer.tidy().unwrap();
	assert_eq!(process.log.start().unwrap().after(), Some(index(6)));
	assert!(findings(&process).is_empty());
	for n in 1..=6 {
		assert!(matches!(process.log.append(event(n, 9)), Ok(Appended::AlreadyKnown(_))), "{n}");
	}
}

/// Ids whose retention is over are forgotten, and the one that nobody knows is not.
#[test]
fn an_id_that_cannot_be_read_is_known_for_ever() {
	let medium = MemoryMedium::new();
	let none = Retention { min_count: 0, min_age: Duration::ZERO };
	let options = LogOptions { history: none, tombstones: none };
	let process = Process::with(&medium, options);
	(1..=3).for_each(|n| {
		process.append(n, n as u8);
	});
	drop(process);
	damage_lane(&medium, 2);
	let process = Process::with(&medium, options);
	let consumer = process.consumer("a");
	drain(&consumer);
	consumer.discard(index(2)).unwrap();
	drain(&consumer);
	consumer.tidy().unwrap();
	assert!(findings(&process).is_empty());
	assert!(matches!(process.log.append(event(1, 1)), Ok(Appended::New(_))));
	assert!(matches!(process.log.append(event(2, 2)), Ok(Appended::AlreadyKnown(_))));
	assert!(matches!(process.log.append(event(3, 3)), Ok(Appended::New(_))));
}

#[test]
fn the_label_and_the_lane_at_the_end_each_do() {
	for at in [HEADER + 40, usize::MAX, 3] {
		let medium = MemoryMedium::new();
		let process = Process::on(&medium);
		(1..=4).for_each(|n| {
			process.append(n, (n % 2) as u8);
		});
		drop(process);
		damage(&medium, 2, |frame| {
			let at = at.min(frame.len() - 1);
			frame[at] ^= 0xff;
		});
		let process = Process::on(&medium);
		let consumer = process.consumer("a");
		assert_eq!(drain(&consumer), [1, 3], "byte {at}");
		consumer.discard(index(2)).unwrap();
		assert_eq!(drain(&consumer), [4]);
	}
}

#[test]
fn an_entry_that_was_repaired_is_delivered_in_its_turn() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=4).for_each(|n| {
		process.append(n, 1);
	});
	drop(process);
	damage_payload(&medium, 2);
	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	assert_eq!(drain(&consumer), [1]);
	damage_payload(&medium, 2);
	assert!(drain(&consumer).is_empty(), "nobody has said that it is repaired");
	consumer.requeue(index(2)).unwrap();
	assert_eq!(drain(&consumer), [2, 3, 4]);
	assert!(dead(&consumer).is_empty());
}

/// The record of another entry: its label is whole, and is not of here.
#[test]
fn a_record_in_the_place_of_another_one_tells_no_lane() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=4).for_each(|n| {
		process.append(n, n as u8);
	});
	drop(process);
	let mut other = Vec::new();
	damage(&medium, 4, |frame| other.clone_from(frame));
	damage(&medium, 2, |frame| *frame = other);
	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	assert_eq!(drain(&consumer), [1]);
	assert_eq!(consumer.dead_letters(None, 1).unwrap()[0].lane, None);
	consumer.discard(index(2)).unwrap();
	assert_eq!(drain(&consumer), [3, 4]);
}

/// The id of another entry is not taken for that of the damaged one: it would be forgotten with it.
#[test]
fn the_id_of_a_misplaced_record_is_not_forgotten_with_it() {
	let none = Retention { min_count: 0, min_age: Duration::ZERO };
	let options = LogOptions { history: none, tombstones: Retention { min_count: 2, ..none } };
	let medium = MemoryMedium::new();
	let process = Process::with(&medium, options);
	(1..=4).for_each(|n| {
		process.append(n, n as u8);
	});
	drop(process);
	let mut other = Vec::new();
	damage(&medium, 4, |frame| other.clone_from(frame));
	damage(&medium, 2, |frame| *frame = other);
	let process = Process::with(&medium, options);
	let consumer = process.consumer("a");
	drain(&consumer);
	consumer.discard(index(2)).unwrap();
	drain(&consumer);
	consumer.tidy().unwrap();
	assert!(findings(&process).is_empty());
	assert!(matches!(process.log.append(event(1, 1)), Ok(Appended::New(_))), "it is forgotten");
	assert!(matches!(process.log.append(event(4, 4)), Ok(Appended::AlreadyKnown(_))));
}

/// The record of an entry that this log has never had.
#[test]
fn a_record_of_another_log_tells_no_lane() {
	let mut other = Vec::new();
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	process.append(77, 77);
	damage(&medium, 1, |frame| other.clone_from(frame));
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=3).for_each(|n| {
		process.append(n, n as u8);
	});
	drop(process);
	damage(&medium, 2, |frame| *frame = other);
	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	assert_eq!(drain(&consumer), [1]);
	assert_eq!(consumer.dead_letters(None, 1).unwrap()[0].lane, None);
}

/// The entry that a cursor has read last is damaged since. The cursor is of this history still.
#[test]
fn a_cursor_at_a_damaged_entry_goes_on() {
	for damages in [damage_payload, damage_lane] {
		let medium = MemoryMedium::new();
		let process = Process::on(&medium);
		(1..=3).for_each(|n| {
			process.append(n, n as u8);
		});
		let (_, cursor) = process.log.read(process.log.start().unwrap(), 2).unwrap();
		drop(process);
		damages(&medium, 2);
		let process = Process::on(&medium);
		let (page, _) = process.log.read(cursor, 10).unwrap();
		assert_eq!(
			page.into_iter().map(|place| place.unwrap().index()).collect::<Vec<_>>(),
			[index(3)]
		);
	}
}

#[test]
fn a_log_whose_newest_entry_is_damaged_opens_and_grows() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=2).for_each(|n| {
		process.append(n, n as u8);
	});
	drop(process);
	damage_payload(&medium, 2);
	let process = Process::on(&medium);
	assert_eq!(process.log.head(), Some(index(2)));
	assert_eq!(process.append(3, 3), 3);
	// What is known and damaged cannot be compared.
	assert!(matches!(process.log.append(event(2, 2)), Ok(Appended::AlreadyKnown(_))));
	assert_eq!(drain(&process.consumer("a")), [1, 3]);
	let end = ConsumerOptions { start: leyden_log::Start::End, ..ConsumerOptions::default() };
	assert!(drain(&process.log.consumer("end", end).unwrap()).is_empty());
	let streams = LogReader::new(Arc::clone(&process.store)).streams().unwrap();
	assert_eq!(streams[0].head, 3);
}

#[test]
fn readers_pass_a_damaged_entry_and_see_it() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=4).for_each(|n| {
		process.append(n, n as u8);
	});
	drop(process);
	damage_payload(&medium, 2);
	damage_lane(&medium, 3);
	let process = Process::on(&medium);
	let log = &process.log;
	for limit in 1..=4 {
		let (mut cursor, mut seen) = (log.start().unwrap(), Vec::new());
		loop {
			let (page, next) = log.read(cursor, limit).unwrap();
			if page.is_empty() {
				break;
			}
			seen.extend(page.into_iter().map(|place| match place {
				Ok(entry) => (entry.index().get(), Some(entry.id()), Some(entry.lane())),
				Err(damaged) => (damaged.index().get(), damaged.id(), damaged.lane()),
			}));
			cursor = next.to_string().parse().unwrap();
		}
		let whole = |n: u64| (n, Some(id(n)), Some(Lane::payment([n as u8; 32])));
		assert_eq!(seen, [whole(1), whole(2), (3, None, None), whole(4)]);
	}
	let consumer = process.consumer("a");
	let unacked = consumer.unacked(Some(index(1)), 10).unwrap();
	assert_eq!(unacked.iter().filter(|place| place.is_err()).count(), 2);
	assert_eq!(unacked.len(), 3);
	let text = unacked[0].as_ref().unwrap_err().to_string();
	assert!(text.contains("entry 2") && text.contains("log_entries"), "{text}");
	assert!(matches!(log.entry(index(2)), Err(LogError::Store(StoreError::Corrupt { .. }))));
	assert_eq!(LogReader::new(Arc::clone(&process.store)).unacked_count("events", "a").unwrap(), 4);
}

/// The lane is in somebody's hands while entries behind are damaged, which the consumer has passed.
#[test]
fn damage_behind_a_delivery_in_hand_is_met_in_its_turn() {
	for damage in [damage_payload, damage_lane] {
		let medium = MemoryMedium::new();
		let process = Process::on(&medium);
		// More of the lane than a lane remembers.
		(1..=200).for_each(|n| {
			process.append(n, 1);
		});
		process.append(201, 2);
		drop(process);
		let process = Process::on(&medium);
		let consumer = process.consumer("a");
		let first = consumer.next_event().unwrap().unwrap();
		assert_eq!(deliverable(&consumer), [201]);
		damage(&medium, 3);
		damage(&medium, 150);
		first.ack().unwrap();
		assert_eq!(drain(&consumer), [201, 2]);
		assert_eq!(dead(&consumer), [3]);
		consumer.discard(index(3)).unwrap();
		assert_eq!(drain(&consumer), (4..150).collect::<Vec<_>>());
		consumer.discard(index(150)).unwrap();
		assert_eq!(drain(&consumer), (151..=200).collect::<Vec<_>>());
		assert!(dead(&consumer).is_empty());
	}
}

/// An operator requeues an entry before another dead letter of its lane. A restart does not let the
/// lane overtake that one.
#[test]
fn a_lane_does_not_overtake_its_second_dead_letter() {
	let medium = MemoryMedium::new();
	let process = Process::on(&medium);
	(1..=3).for_each(|n| {
		process.append(n, 1);
	});
	drop(process);
	damage_payload(&medium, 1);
	damage_payload(&medium, 2);
	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	assert!(drain(&consumer).is_empty());
	// The second one is met while the first is repaired and in hand.
	damage_payload(&medium, 1);
	consumer.requeue(index(1)).unwrap();
	let first = consumer.next_event().unwrap().unwrap();
	first.dead_letter("no").unwrap();
	consumer.discard(index(1)).unwrap();
	assert!(drain(&consumer).is_empty());
	assert_eq!(dead(&consumer), [2]);
	drop((consumer, process));
	let process = Process::on(&medium);
	let consumer = process.consumer("a");
	assert!(drain(&consumer).is_empty());
}

proptest! {
	/// A lane waits from its first damaged entry on, whatever is damaged, and everything from the first
	/// one without a lane on, and nothing else. Discarded one by one, all others come, in order.
	#[test]
	fn any_damage_holds_up_its_lanes_in_order(
		lanes in prop::collection::vec(0u8..4, 1..60),
		damaged in prop::collection::btree_map(1u64..60, prop::option::of(any::<prop::sample::Index>()), 0..8),
		max_in_flight in 1usize..5,
		at_a_time in 1usize..5,
	) {
		let medium = MemoryMedium::new();
		let process = Process::on(&medium);
		for (n, lane) in lanes.iter().enumerate() {
			process.append(n as u64 + 1, *lane);
		}
		drop(process);
		let damaged: BTreeMap<_, _> =
			damaged.into_iter().filter(|(n, _)| *n <= lanes.len() as u64).collect();
		for (n, byte) in &damaged {
			match byte {
				Some(byte) => damage(&medium, *n, |frame| {
					let at = byte.index(frame.len());
					frame[at] ^= 0x41;
				}),
				None => damage_lane(&medium, *n),
			}
		}
		let process = Process::on(&medium);
		let options = ConsumerOptions { max_in_flight, ..ConsumerOptions::default() };
		let consumer = process.log.consumer("a", options).unwrap();
		let lane = |n: u64| lanes[n as usize - 1];
		let mut discarded = BTreeSet::new();
		let mut delivered: Vec<u64> = Vec::new();
		loop {
			loop {
				let next = || consumer.next_event().unwrap();
				let held: Vec<_> = std::iter::from_fn(next).take(at_a_time).collect();
				if held.is_empty() {
					break;
				}
				for delivery in held {
					delivered.push(delivery.index().get());
					delivery.ack().unwrap();
				}
			}
			let stands = |n: &u64| damaged.contains_key(n) && !discarded.contains(n);
			let barrier = (1..=lanes.len() as u64).find(|n| stands(n) && damaged[n].is_none());
			let comes = |n: u64| {
				let of_lane = (1..=n).filter(|m| lane(*m) == lane(n)).any(|m| stands(&m));
				!damaged.contains_key(&n) && !of_lane && barrier.is_none_or(|barrier| n < barrier)
			};
			let expected: BTreeSet<u64> = (1..=lanes.len() as u64).filter(|n| comes(*n)).collect();
			prop_assert_eq!(delivered.iter().copied().collect::<BTreeSet<_>>(), expected);
			let Some(letter) = dead(&consumer).first().copied() else { break };
			consumer.discard(index(letter)).unwrap();
			discarded.insert(letter);
		}
		prop_assert_eq!(discarded.len(), damaged.len());
		for of in 0..4 {
			let order: Vec<u64> = delivered.iter().copied().filter(|n| lane(*n) == of).collect();
			prop_assert!(order.is_sorted(), "{order:?}");
		}
		prop_assert_eq!(delivered.len() + damaged.len(), lanes.len());
	}
}
