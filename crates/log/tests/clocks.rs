//! Retries and retention under random clock histories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{event, Process};
use leyden_log::{Appended, Consumer, ConsumerOptions, EventLog, LogOptions, Retention};
use leyden_store::{MemoryMedium, MemoryStore, Namespace, Timestamp};
use leyden_testkit::{ClockHistory, ClockTurn};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const KNOWN_FOR: Duration = Duration::from_secs(60 * 24 * 3600);
const WAIT: Duration = Duration::from_secs(300);
/// The id of the event that fails again and again.
const FAILS: u64 = 1;

/// One process with two streams: one with an event that fails, which trims nothing, and one whose
/// events are acked and trimmed.
struct Node {
	process: Process,
	failing: Consumer,
	ids: EventLog,
	acking: Consumer,
}

impl Node {
	fn open(medium: &MemoryMedium, history: &ClockHistory) -> Self {
		let options = LogOptions {
			history: Retention { min_count: 0, min_age: DAY },
			tombstones: Retention { min_count: 0, min_age: KNOWN_FOR },
		};
		let store = Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap());
		let process = Process::over(store, history.clock(), options);
		let store = Arc::clone(&process.store);
		let ids = EventLog::open(store, "ids", history.clock(), options).unwrap();
		let acking = ids.consumer("a", ConsumerOptions::default()).unwrap();
		Self { failing: process.consumer("a"), process, ids, acking }
	}

	/// Has the event fail if it comes, and returns whether it does.
	fn retries(&self) -> bool {
		let delivery = self.failing.next_event().unwrap();
		delivery.map(|delivery| delivery.retry_after(WAIT).unwrap()).is_some()
	}

	fn append_and_ack(&self, id: u64) {
		self.ids.append(event(id, 2)).unwrap();
		while let Some(delivery) = self.acking.next_event().unwrap() {
			delivery.ack().unwrap();
		}
		self.acking.tidy().unwrap();
	}
}

/// One history. A retry waits for as long as it was told to, in time in which a process runs, and
/// not until a clock that was wrong is right again; an id is known for as long as it is to be; and
/// both end.
fn history(seed: u64) {
	let mut clock = ClockHistory::new(seed);
	let medium = MemoryMedium::new();
	let mut node = Some(Node::open(&medium, &clock));
	node.as_ref().unwrap().process.append(FAILS, 1);
	let mut known: Vec<(u64, Timestamp)> = Vec::new();
	let (mut due, mut restarts, mut retried) = (Duration::ZERO, 0, 0);
	for turn in 0..400 {
		if clock.turn() == ClockTurn::Restart {
			drop(node.take());
			restarts += 1;
		}
		let node = node.get_or_insert_with(|| Node::open(&medium, &clock));
		let at = format!("seed {seed}, turn {turn}");
		if node.retries() {
			assert!(!node.retries(), "{at}: a retry does not wait");
			(due, restarts, retried) = (clock.awake() + WAIT, 0, retried + 1);
		} else {
			// A restart may lose a minute of what was seen to pass.
			assert!(clock.awake() < due + MINUTE * restarts, "{at}: a retry does not come");
		}
		node.append_and_ack(turn);
		known.push((turn, clock.truth()));
		let (id, appended) = known[usize::try_from(clock.draw(turn + 1)).unwrap()];
		if clock.truth().since(appended) < KNOWN_FOR {
			let again = node.ids.append(event(id, 2)).unwrap();
			assert!(matches!(again, Appended::AlreadyKnown(_)), "{at}: id {id} was forgotten");
		}
	}
	assert!(retried > 20, "seed {seed}: only {retried} retries");
	let node = node.unwrap();
	for day in 0..70 {
		clock.pass_rightly(DAY);
		node.append_and_ack(1_000 + day);
	}
	let again = node.ids.append(event(399, 2)).unwrap();
	assert!(matches!(again, Appended::New(_)), "seed {seed}: an id is kept for ever");
}

/// Fifty histories; `LEYDEN_CLOCK_HISTORIES` says how many else.
#[test]
fn clocks_that_jump_forget_nothing_and_keep_nothing_waiting() {
	let histories = std::env::var("LEYDEN_CLOCK_HISTORIES").map_or(50, |n| n.parse().unwrap());
	(0..histories).for_each(history);
}
