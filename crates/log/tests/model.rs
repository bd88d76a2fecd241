//! The log against a reference model, over random operations with crashes and restarts.
//!
//! The model says which entries *may* be delivered next: of each lane the first that is not
//! settled, unless something holds the lane up. A delivery must be one of those, and there must be
//! one if the model has one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{event, Process};
use leyden_log::{
	Appended, Consumer, ConsumerOptions, Delivery, LogIndex, LogOptions, OnExhausted, RetryPolicy,
	Start,
};
use leyden_store::{Clock, ManualClock, MemoryMedium, MemoryStore, Namespace, Store, Timestamp};
use leyden_testkit::{Doom, FaultyStore, Side};
use proptest::prelude::*;

const LANES: u8 = 3;
/// One that holds its lanes, one that moves on.
const CONSUMERS: [(&str, OnExhausted); 2] =
	[("holds", OnExhausted::HoldLane), ("moves", OnExhausted::MoveOn)];

#[derive(Clone, Debug)]
enum Op {
	Append(u64),
	AppendMany(Vec<u64>),
	Deliver(usize),
	/// Settles one of the held deliveries of a consumer.
	Ack(usize, usize),
	AckLazy(usize, usize),
	/// Acks, in one plan, every entry whose place is a multiple and whose delivery is not held.
	AckMany(usize, u64),
	Drop(usize, usize),
	Retry(usize, usize, u64),
	DeadLetter(usize, usize),
	Requeue(usize),
	Discard(usize),
	Tidy(usize),
	Pass(u64),
	Reopen,
	/// Dies at one of the next commits.
	Doom(u64, bool),
}

fn op() -> impl Strategy<Value = Op> {
	let consumer = 0..CONSUMERS.len();
	prop_oneof![
		6 => (0..200u64).prop_map(Op::Append),
		2 => proptest::collection::vec(0..200u64, 0..12).prop_map(Op::AppendMany),
		8 => consumer.clone().prop_map(Op::Deliver),
		6 => (consumer.clone(), 0..4usize).prop_map(|(c, n)| Op::Ack(c, n)),
		1 => (consumer.clone(), 0..4usize).prop_map(|(c, n)| Op::AckLazy(c, n)),
		1 => (consumer.clone(), 2..9u64).prop_map(|(c, n)| Op::AckMany(c, n)),
		1 => (consumer.clone(), 0..4usize).prop_map(|(c, n)| Op::Drop(c, n)),
		2 => (consumer.clone(), 0..4usize, 0..50u64).prop_map(|(c, n, t)| Op::Retry(c, n, t)),
		1 => (consumer.clone(), 0..4usize).prop_map(|(c, n)| Op::DeadLetter(c, n)),
		1 => consumer.clone().prop_map(Op::Requeue),
		1 => consumer.clone().prop_map(Op::Discard),
		1 => consumer.prop_map(Op::Tidy),
		2 => (1..60u64).prop_map(Op::Pass),
		1 => Just(Op::Reopen),
		1 => (0..6u64, any::<bool>()).prop_map(|(n, after)| Op::Doom(n, after)),
	]
}

/// What a consumer's entries are, as far as the model can know. A crash makes some of it uncertain.
#[derive(Clone, Default)]
struct Model {
	acked: BTreeSet<u64>,
	dead: BTreeSet<u64>,
	waiting: BTreeMap<u64, Timestamp>,
	held: BTreeSet<u64>,
}

struct World {
	medium: MemoryMedium,
	clock: Arc<ManualClock>,
	doom: Arc<Doom>,
	store: Arc<FaultyStore>,
	process: Process,
	consumers: Vec<Consumer>,
	held: Vec<Vec<Delivery>>,
	/// Events by place.
	entries: BTreeMap<u64, u64>,
	known: BTreeSet<u64>,
	models: Vec<Model>,
}

impl World {
	fn new() -> Self {
		let medium = MemoryMedium::new();
		let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
		let doom = Doom::never();
		let (store, process, consumers) = open(&medium, &clock, &doom);
		Self {
			medium,
			clock,
			doom,
			store,
			process,
			consumers,
			held: vec![Vec::new(), Vec::new()],
			entries: BTreeMap::new(),
			known: BTreeSet::new(),
			models: vec![Model::default(), Model::default()],
		}
	}

	/// Opens everything again and asks the log what it holds: the model must agree, except for the
	/// one operation that the death may have cut off.
	fn reopen(&mut self, cut_off: Option<&Op>) {
		self.held.iter_mut().for_each(Vec::clear);
		self.doom = Doom::never();
		let (store, process, consumers) = open(&self.medium, &self.clock, &self.doom);
		(self.store, self.process, self.consumers) = (store, process, consumers);
		let (entries, _) =
			self.process.log.read(self.process.log.start().unwrap(), 100_000).unwrap();
		let found: BTreeMap<u64, u64> = leyden_testkit::intact(entries)
			.iter()
			.map(|e| (e.index().get(), u64::from_be_bytes(e.payload().try_into().unwrap())))
			.collect();
		for (index, number) in &self.entries {
			assert_eq!(found.get(index), Some(number), "an entry was lost or changed");
		}
		let more = found.len() - self.entries.len();
		let may_be_more = match cut_off {
			Some(Op::Append(_)) => 1,
			Some(Op::AppendMany(numbers)) => numbers.len(),
			_ => 0,
		};
		assert!(more <= may_be_more, "{more} entries from nowhere");
		self.known = found.values().copied().collect();
		assert_eq!(self.known.len(), found.len(), "an event is two entries");
		self.entries = found;
		for (n, consumer) in self.consumers.iter().enumerate() {
			let model = &mut self.models[n];
			model.held.clear();
			let mut changed = 0;
			for index in self.entries.keys() {
				let acked = consumer.is_acked(LogIndex::new(*index).unwrap()).unwrap();
				assert!(acked || !model.acked.contains(index), "{index} was acked and is not");
				if acked && model.acked.insert(*index) {
					changed += 1;
					model.waiting.remove(index);
					model.dead.remove(index);
				}
			}
			let letters = consumer.dead_letters(None, 1000).unwrap();
			let dead: BTreeSet<u64> = letters.iter().map(|letter| letter.index.get()).collect();
			changed += dead.symmetric_difference(&model.dead).count();
			let may_change = match cut_off {
				Some(Op::AckMany(of, _)) if *of == n => usize::MAX,
				Some(_) => 1,
				None => 0,
			};
			assert!(changed <= may_change, "{changed} changes from nowhere");
			if dead != model.dead {
				model.waiting.retain(|index, _| !dead.contains(index));
			}
			model.dead = dead;
		}
	}

	/// The places that may be delivered to consumer `n` now.
	fn due(&self, n: usize) -> BTreeSet<u64> {
		let (model, now) = (&self.models[n], self.clock.now());
		let moves_on = CONSUMERS[n].1 == OnExhausted::MoveOn;
		let mut due = BTreeMap::new();
		let mut busy = BTreeSet::new();
		for index in &model.held {
			busy.insert(lane(self.entries[index]));
		}
		for (index, number) in &self.entries {
			let lane = lane(*number);
			let settled = model.acked.contains(index) || (moves_on && model.dead.contains(index));
			if settled || busy.contains(&lane) || due.contains_key(&lane) {
				continue;
			}
			let waits = model.waiting.get(index).is_some_and(|until| *until > now);
			if model.dead.contains(index) || waits {
				busy.insert(lane);
			} else {
				due.insert(lane, *index);
			}
		}
		due.into_values().collect()
	}

	fn run(&mut self, op: &Op) {
		let result = self.try_run(op);
		if self.store.is_dead() {
			self.reopen(Some(op));
		} else {
			result.unwrap();
		}
	}

	fn try_run(&mut self, op: &Op) -> Result<(), leyden_log::LogError> {
		match op {
			Op::Append(number) => {
				let appended = self.process.log.append(event(*number, lane(*number)))?;
				self.note_append(*number, appended);
			},
			Op::AppendMany(numbers) => {
				let events = numbers.iter().map(|n| event(*n, lane(*n))).collect();
				let answers = self.process.log.append_batch(events)?;
				for (number, appended) in numbers.iter().zip(answers) {
					self.note_append(*number, appended);
				}
			},
			Op::Deliver(n) => {
				let due = self.due(*n);
				match self.consumers[*n].next_event()? {
					Some(delivery) => {
						let index = delivery.index().get();
						assert!(due.contains(&index), "{index} was delivered, due are {due:?}");
						self.models[*n].held.insert(index);
						self.models[*n].waiting.remove(&index);
						self.held[*n].push(delivery);
					},
					None => assert!(due.is_empty(), "nothing was delivered, due are {due:?}"),
				}
			},
			Op::Ack(n, which) | Op::AckLazy(n, which) => {
				if let Some((delivery, index)) = self.take(*n, *which) {
					match op {
						Op::Ack(..) => delivery.ack()?,
						_ => delivery.ack_lazy()?,
					}
					self.models[*n].acked.insert(index);
				}
			},
			Op::AckMany(n, multiple) => {
				let model = &self.models[*n];
				let free = |index: &u64| index % multiple == 0 && !model.held.contains(index);
				let many: Vec<u64> = self.entries.keys().copied().filter(free).collect();
				let places: Vec<_> = many.iter().filter_map(|n| LogIndex::new(*n)).collect();
				self.consumers[*n].ack_plan_many(&places).run(&self.process.store)?;
				let model = &mut self.models[*n];
				for index in many {
					model.acked.insert(index);
					model.dead.remove(&index);
					model.waiting.remove(&index);
				}
			},
			Op::Drop(n, which) => drop(self.take(*n, *which)),
			Op::Retry(n, which, wait) => {
				if let Some((delivery, index)) = self.take(*n, *which) {
					let wait = Duration::from_millis(*wait);
					// Durable or not, it waits for no longer than this.
					self.models[*n].waiting.insert(index, self.clock.now().after(wait));
					if let Err(error) = delivery.retry_after(wait) {
						self.models[*n].waiting.remove(&index);
						self.uncertain_wait(*n, index);
						return Err(error);
					}
				}
			},
			Op::DeadLetter(n, which) => {
				if let Some((delivery, index)) = self.take(*n, *which) {
					delivery.dead_letter("no good")?;
					self.models[*n].dead.insert(index);
				}
			},
			Op::Requeue(n) => {
				if let Some(index) = self.models[*n].dead.first().copied() {
					self.consumers[*n].requeue(LogIndex::new(index).unwrap())?;
					self.models[*n].dead.remove(&index);
				}
			},
			Op::Discard(n) => {
				if let Some(index) = self.models[*n].dead.first().copied() {
					self.consumers[*n].discard(LogIndex::new(index).unwrap())?;
					self.models[*n].dead.remove(&index);
					self.models[*n].acked.insert(index);
				}
			},
			Op::Tidy(n) => self.consumers[*n].tidy()?,
			Op::Pass(millis) => self.clock.advance(Duration::from_millis(*millis)),
			Op::Reopen => self.reopen(None),
			Op::Doom(write, after) => {
				self.held.iter_mut().for_each(Vec::clear);
				self.models.iter_mut().for_each(|model| model.held.clear());
				let side = if *after { Side::After } else { Side::Before };
				self.doom = Doom::at(*write, side);
				let (store, process, consumers) = open(&self.medium, &self.clock, &self.doom);
				(self.store, self.process, self.consumers) = (store, process, consumers);
			},
		}
		Ok(())
	}

	/// A wait that may or may not be durable: let it pass, so that the model need not know.
	fn uncertain_wait(&mut self, _: usize, _: u64) {
		self.clock.advance(Duration::from_secs(1));
	}

	fn take(&mut self, n: usize, which: usize) -> Option<(Delivery, u64)> {
		if self.held[n].is_empty() {
			return None;
		}
		let which = which % self.held[n].len();
		let delivery = self.held[n].remove(which);
		let index = delivery.index().get();
		self.models[n].held.remove(&index);
		Some((delivery, index))
	}

	fn note_append(&mut self, number: u64, appended: Appended) {
		match appended {
			Appended::New(index) => {
				assert!(self.known.insert(number), "{number} is in the log already");
				let last = self.entries.last_key_value().map_or(0, |(index, _)| *index);
				assert!(index.get() > last, "places are given in order");
				self.entries.insert(index.get(), number);
			},
			Appended::AlreadyKnown(index) => {
				assert_eq!(self.entries.get(&index.get()), Some(&number));
			},
		}
	}
}

fn lane(number: u64) -> u8 {
	(number % u64::from(LANES)) as u8
}

fn open(
	medium: &MemoryMedium, clock: &Arc<ManualClock>, doom: &Arc<Doom>,
) -> (Arc<FaultyStore>, Process, Vec<Consumer>) {
	doom.disarm();
	let inner = MemoryStore::open(medium, Namespace::default()).unwrap();
	let store = Arc::new(FaultyStore::new(Arc::new(inner), Arc::clone(doom)));
	let process = Process::over(
		Arc::<FaultyStore>::clone(&store) as Arc<dyn Store>,
		Arc::clone(clock),
		LogOptions::default(),
	);
	let consumers = CONSUMERS
		.iter()
		.map(|(name, on_exhausted)| {
			let options = ConsumerOptions {
				start: Start::Beginning,
				retry: RetryPolicy::default(),
				on_exhausted: *on_exhausted,
				max_in_flight: 1024,
				max_crashes: None,
			};
			process.log.consumer(name, options).unwrap()
		})
		.collect();
	doom.arm();
	(store, process, consumers)
}

/// `PROPTEST_CASES=20000 cargo test -p leyden-log --test model` runs more of them.
fn config() -> ProptestConfig {
	let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
	ProptestConfig { cases: cases.unwrap_or(300), ..ProptestConfig::default() }
}

proptest! {
	#![proptest_config(config())]

	#[test]
	fn the_log_does_what_the_model_says(ops in proptest::collection::vec(op(), 1..120)) {
		let mut world = World::new();
		for op in &ops {
			world.run(op);
		}
		// Everything comes to an end: what is left is delivered and acked, lane by lane.
		world.reopen(None);
		world.clock.advance(Duration::from_secs(3600));
		for n in 0..CONSUMERS.len() {
			while let Some(index) = world.models[n].dead.first().copied() {
				world.run(&Op::Requeue(n));
				prop_assert!(!world.models[n].dead.contains(&index));
			}
			while !world.due(n).is_empty() {
				world.run(&Op::Deliver(n));
				world.run(&Op::Ack(n, 0));
			}
			let left = world.consumers[n].unacked(None, 10).unwrap();
			prop_assert!(left.is_empty(), "left: {:?}", left);
		}
	}
}
