// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Any sequence of operations on a log, held to what must always be true.
//!
//! Two bytes are an operation. What is checked: an entry stays until it is acked, an acked one does
//! not come again, an event is one entry, deliveries of a lane come one at a time and in order, and
//! in the end everything can be delivered and acked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leyden_id::{EventId, EventKind, Lane};
use leyden_log::{
	Appended, Consumer, ConsumerOptions, Delivery, EventLog, LogIndex, LogOptions, NewEvent,
	OnExhausted,
};
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store, Timestamp};

const LANES: u8 = 4;
const CONSUMERS: [(&str, OnExhausted); 2] =
	[("holds", OnExhausted::HoldLane), ("moves", OnExhausted::MoveOn)];
/// So that one input ends soon.
const MAX_OPS: usize = 512;

struct World {
	medium: MemoryMedium,
	clock: Arc<ManualClock>,
	log: EventLog,
	consumers: Vec<Consumer>,
	held: Vec<Vec<Delivery>>,
	/// Places by event.
	places: BTreeMap<u8, u64>,
	acked: Vec<BTreeSet<u64>>,
	dead: Vec<BTreeSet<u64>>,
}

/// The target.
pub fn log_ops(data: &[u8]) {
	let mut world = World::new();
	for op in data.chunks_exact(2).take(MAX_OPS) {
		world.run(op[0], op[1]);
	}
	world.finish();
}

impl World {
	fn new() -> Self {
		let (medium, clock) = (MemoryMedium::new(), Arc::new(ManualClock::new(Timestamp(1_000))));
		let (log, consumers) = open(&medium, &clock);
		Self {
			medium,
			clock,
			log,
			consumers,
			held: vec![Vec::new(), Vec::new()],
			places: BTreeMap::new(),
			acked: vec![BTreeSet::new(), BTreeSet::new()],
			dead: vec![BTreeSet::new(), BTreeSet::new()],
		}
	}

	fn run(&mut self, op: u8, argument: u8) {
		let n = usize::from(argument >> 7);
		match op % 11 {
			0 | 1 => self.append(&[argument]),
			2 => self.append(&[argument, argument.wrapping_add(1), argument]),
			3 | 4 => self.deliver(n),
			5 => {
				if let Some(delivery) = self.take(n, argument) {
					let index = delivery.index().get();
					delivery.ack().unwrap();
					self.acked[n].insert(index);
				}
			},
			6 => drop(self.take(n, argument)),
			7 => {
				if let Some(delivery) = self.take(n, argument) {
					delivery.retry_after(Duration::from_millis(u64::from(argument))).unwrap();
				}
			},
			8 => {
				if let Some(delivery) = self.take(n, argument) {
					self.dead[n].insert(delivery.index().get());
					delivery.dead_letter("fuzzed").unwrap();
				}
			},
			9 => self.decide(n, argument),
			_ => self.pass(n, argument),
		}
	}

	fn append(&mut self, events: &[u8]) {
		let answers = self.log.append_batch(events.iter().map(|e| event(*e)).collect()).unwrap();
		for (event, answer) in events.iter().zip(answers) {
			match answer {
				Appended::New(index) => {
					let last = self.places.values().max().copied().unwrap_or(0);
					assert!(index.get() > last, "places are given in order");
					assert!(self.places.insert(*event, index.get()).is_none(), "twice");
				},
				Appended::AlreadyKnown(index) => {
					assert_eq!(self.places.get(event), Some(&index.get()));
				},
			}
		}
	}

	fn deliver(&mut self, n: usize) {
		let Some(delivery) = self.consumers[n].next_event().unwrap() else { return };
		let index = delivery.index().get();
		assert!(!self.acked[n].contains(&index), "acked, and delivered");
		assert!(!self.dead[n].contains(&index), "given up, and delivered");
		let lane = delivery.lane();
		assert!(self.held[n].iter().all(|held| held.lane() != lane), "two of one lane");
		// Nothing of this lane lies before it, but what the lane moved on without.
		for (event, place) in &self.places {
			if *place < index && lane_of(*event) == lane {
				let done = self.acked[n].contains(place) || self.dead[n].contains(place);
				assert!(done, "{index} overtook {place}");
			}
		}
		self.held[n].push(delivery);
	}

	fn decide(&mut self, n: usize, argument: u8) {
		let Some(index) = self.dead[n].first().copied() else { return };
		let place = LogIndex::new(index).unwrap();
		if argument & 1 == 0 {
			self.consumers[n].requeue(place).unwrap();
		} else {
			self.consumers[n].discard(place).unwrap();
			self.acked[n].insert(index);
		}
		self.dead[n].remove(&index);
	}

	fn pass(&mut self, n: usize, argument: u8) {
		match argument & 3 {
			0 => self.clock.advance(Duration::from_millis(u64::from(argument))),
			1 => self.consumers[n].tidy().unwrap(),
			_ => self.reopen(),
		}
	}

	fn reopen(&mut self) {
		self.held.iter_mut().for_each(Vec::clear);
		(self.log, self.consumers) = open(&self.medium, &self.clock);
		for (n, consumer) in self.consumers.iter().enumerate() {
			let unacked: BTreeSet<u64> = consumer
				.unacked(None, 10_000)
				.unwrap()
				.into_iter()
				.map(|e| e.unwrap().index().get())
				.collect();
			let expected = self.places.values().filter(|place| !self.acked[n].contains(place));
			assert_eq!(unacked, expected.copied().collect());
		}
	}

	fn take(&mut self, n: usize, argument: u8) -> Option<Delivery> {
		let held = &mut self.held[n];
		(!held.is_empty()).then(|| held.remove(usize::from(argument) % held.len()))
	}

	fn finish(mut self) {
		self.reopen();
		self.clock.advance(Duration::from_secs(3600));
		for n in 0..CONSUMERS.len() {
			while !self.dead[n].is_empty() {
				self.decide(n, 0);
			}
			loop {
				self.deliver(n);
				let Some(delivery) = self.held[n].pop() else { break };
				let index = delivery.index().get();
				delivery.ack().unwrap();
				self.acked[n].insert(index);
			}
			assert_eq!(self.acked[n].len(), self.places.len(), "something was never delivered");
		}
	}
}

fn open(medium: &MemoryMedium, clock: &Arc<ManualClock>) -> (EventLog, Vec<Consumer>) {
	let store = MemoryStore::open(medium, Namespace::default()).unwrap();
	let store: Arc<dyn Store> = Arc::new(store);
	let log = EventLog::open(store, "fuzz", Arc::clone(clock) as _, LogOptions::default()).unwrap();
	let consumers = CONSUMERS.map(|(name, on_exhausted)| {
		let options = ConsumerOptions { on_exhausted, ..ConsumerOptions::default() };
		log.consumer(name, options).unwrap()
	});
	(log, consumers.into())
}

fn lane_of(event: u8) -> Lane {
	Lane::payment([event % LANES; 32])
}

fn event(event: u8) -> NewEvent {
	NewEvent {
		id: EventId::from_bytes([event; 32]),
		kind: EventKind::from_static("Fuzz"),
		lane: lane_of(event),
		payload: vec![event],
	}
}
