//! An outbox against a model that says which callbacks may be claimed next, over random histories with
//! restarts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leyden_outbox::{
	CallbackId, Claim, CompletedDelivery, DeadLetterReason, Deadline, EndpointOptions, NewCallback,
	OutboxError, Reply, SettleAndClaim, Settled, Settling, Taken, TryOutcome, Verdict,
};
use leyden_store::{Clock, Timestamp};
use proptest::prelude::*;
use rig::*;

const IN_FLIGHT: usize = 3;

#[derive(Clone, Debug)]
enum Op {
	/// An order key, and a deadline in blocks and in minutes, if it has one.
	Enqueue(u8, Option<u32>, Option<u64>),
	Claim,
	/// One of the claims, and what becomes of it.
	Settle(usize, u8),
	Drop(usize),
	/// Everything that is held was taken, and so many more are claimed, in one turn.
	Turn(usize),
	Pass(u64),
	Block(u32),
	Expire(usize),
	Requeue,
	Restart,
}

fn op() -> impl Strategy<Value = Op> {
	let deadline = prop::option::weighted(0.4, 1..20u32);
	let minutes = prop::option::weighted(0.2, 1..60u64);
	prop_oneof![
		6 => (0..4u8, deadline, minutes).prop_map(|(key, d, m)| Op::Enqueue(key, d, m)),
		8 => Just(Op::Claim),
		8 => (0..4usize, 0..10u8).prop_map(|(n, how)| Op::Settle(n, how)),
		1 => (0..4usize).prop_map(Op::Drop),
		4 => (0..5usize).prop_map(Op::Turn),
		3 => (1..100u64).prop_map(Op::Pass),
		2 => (1..4u32).prop_map(Op::Block),
		2 => (1..5usize).prop_map(Op::Expire),
		1 => Just(Op::Requeue),
		1 => Just(Op::Restart),
	]
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
	Open,
	Done,
	Dead,
}

#[derive(Clone, Copy, Debug)]
struct Item {
	key: u8,
	deadline: Deadline,
	due: Timestamp,
	failures: u32,
	state: State,
	/// Held until then.
	held: Option<Timestamp>,
	doubt: Doubt,
}

/// Whether it may have been taken: what a restart, a lost lease and a dropped claim leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Doubt {
	None,
	Sent,
	Lasting,
}

struct Model {
	node: Node,
	items: BTreeMap<u64, Item>,
	claims: Vec<Claim>,
	height: u32,
}

impl Model {
	fn new() -> Self {
		let node = Node::new();
		let mut model = Self { node, items: BTreeMap::new(), claims: Vec::new(), height: HEIGHT };
		model.limit();
		model
	}

	fn limit(&mut self) {
		let options = EndpointOptions { max_in_flight: IN_FLIGHT, ..EndpointOptions::default() };
		self.node.outbox.add_endpoint(LSP, options).unwrap();
	}

	fn now(&self) -> Timestamp {
		self.node.clock.now()
	}

	/// What may be claimed, and how urgent it is. What has landed makes room, and still holds its key.
	fn candidates(&self, landed: &BTreeSet<u64>) -> BTreeMap<u64, Duration> {
		let now = self.now();
		let schedule = self.node.options.schedule;
		let open = || self.items.iter().filter(|(_, item)| item.state == State::Open);
		let is_held = |item: &Item| item.held.is_some_and(|until| until > now);
		let on_the_way = |(n, item): &(&u64, &Item)| is_held(item) && !landed.contains(n);
		if open().filter(on_the_way).count() >= IN_FLIGHT {
			return BTreeMap::new();
		}
		let mut found = BTreeMap::new();
		for (number, item) in open() {
			let first = open().find(|(_, other)| other.key == item.key).unwrap().0;
			let is_taken = |n: &u64, other: &Item| is_held(other) || landed.contains(n);
			let is_busy = open().any(|(n, other)| other.key == item.key && is_taken(n, other));
			let is_late = item.deadline.is_past(self.height, now);
			if first == number && !is_busy && item.due <= now && !is_late {
				let left = schedule.time_left(item.deadline, self.height, now);
				found.insert(*number, left.unwrap_or(Duration::MAX));
			}
		}
		found
	}

	fn claim(&mut self) {
		match self.node.outbox.claim(self.height).unwrap() {
			Some(claim) => self.claimed(claim, &BTreeSet::new()),
			None => self.nothing_more(&BTreeSet::new()),
		}
	}

	fn nothing_more(&self, landed: &BTreeSet<u64>) {
		let candidates = self.candidates(landed);
		assert!(candidates.is_empty(), "nothing is claimed, and might be: {candidates:?}");
	}

	fn turn(&mut self, limit: usize) {
		let now = self.now();
		let back = std::mem::take(&mut self.claims);
		let back: Vec<_> = back
			.into_iter()
			.map(|claim| (claim.callback().sequence().get(), claim.until(), claim))
			.collect();
		let who: Vec<(u64, Timestamp)> = back.iter().map(|(n, until, _)| (*n, *until)).collect();
		let ours = |model: &Self, (n, until): (u64, Timestamp)| model.items[&n].held == Some(until);
		let returned = back
			.into_iter()
			.map(|(_, _, claim)| CompletedDelivery {
				claim,
				reply: Reply::status(200),
				detail: String::new(),
			})
			.collect();
		let SettleAndClaim { settling, claims } =
			self.node.outbox.settle_and_claim(returned, self.height, limit);
		let settled: Vec<_> =
			settling.into_iter().map(|settling| settling.and_then(Settling::wait)).collect();
		let mut landed = BTreeSet::new();
		for (who, settled) in who.iter().zip(&settled) {
			match settled {
				Ok(settled) => {
					assert!(ours(self, *who) && *settled == Settled::Done);
					landed.insert(who.0);
				},
				Err(OutboxError::LeaseLost) => assert!(who.1 <= now, "lost before its time"),
				Err(error) => panic!("{error}"),
			}
		}
		let claims = claims.unwrap();
		let enough = claims.len() == limit;
		assert!(claims.len() <= limit);
		claims.into_iter().for_each(|claim| self.claimed(claim, &landed));
		if !enough {
			self.nothing_more(&landed);
		}
		for number in landed {
			let item = self.items.get_mut(&number).unwrap();
			(item.state, item.held) = (State::Done, None);
		}
	}

	fn claimed(&mut self, claim: Claim, landed: &BTreeSet<u64>) {
		let candidates = self.candidates(landed);
		let now = self.now();
		let number = claim.callback().sequence().get();
		let left = candidates.get(&number).expect("what is claimed may be claimed");
		let most_urgent = candidates.values().min().unwrap();
		assert_eq!(left, most_urgent, "something else is more urgent");
		let lease = self.node.options.lease;
		let item = self.items.get_mut(&number).unwrap();
		assert_eq!(claim.failures(), item.failures);
		item.held = Some(now.after(lease));
		item.doubt = if item.doubt == Doubt::None { Doubt::Sent } else { Doubt::Lasting };
		let expected = if item.doubt == Doubt::Lasting { Taken::Maybe } else { Taken::No };
		assert_eq!(claim.taken_before(), expected);
		self.claims.push(claim);
	}

	fn settle(&mut self, place: usize, how: u8) {
		if self.claims.is_empty() {
			return;
		}
		let claim = self.claims.remove(place % self.claims.len());
		let number = claim.callback().sequence().get();
		let until = claim.until();
		let pause = Duration::from_secs(u64::from(how) * 17);
		let verdict = match how {
			0..=3 => Verdict::Done,
			4..=6 => Verdict::RetryAfter(pause),
			7 => Verdict::Snooze(pause),
			8 => Verdict::Dead,
			_ => Verdict::Expired,
		};
		let outcome = match (&verdict, how % 2) {
			(Verdict::Done, _) => TryOutcome::Taken,
			(_, 0) => TryOutcome::NotTaken,
			_ => TryOutcome::Unknown,
		};
		let settled = claim.settle(verdict, outcome, "said");
		let now = self.now();
		let item = self.items.get_mut(&number).unwrap();
		// A lease that was given on is lost; one that was not may be late.
		let is_ours = item.held == Some(until);
		match settled {
			Err(OutboxError::LeaseLost) => {
				assert!(until <= now, "lost before its time");
				return;
			},
			settled => match settled.unwrap() {
				Settled::Done => item.state = State::Done,
				Settled::RetryAt(due) => {
					item.due = due;
					item.failures += u32::from(how != 7);
				},
				Settled::Dead | Settled::Expired => item.state = State::Dead,
				Settled::Paused => unreachable!(),
			},
		}
		assert!(is_ours, "settled by one who had lost it");
		item.held = None;
		item.doubt = match (item.doubt, outcome) {
			(Doubt::Lasting, _) | (_, TryOutcome::Unknown) => Doubt::Lasting,
			_ => Doubt::None,
		};
	}

	fn expire(&mut self, limit: usize) {
		let now = self.now();
		let expired = self.node.outbox.expire(self.height, limit).unwrap();
		for callback in &expired {
			let item = self.items.get_mut(&callback.sequence().get()).unwrap();
			assert!(item.state == State::Open && item.deadline.is_past(self.height, now));
			item.state = State::Dead;
			item.held = None;
		}
		if expired.len() < limit {
			let left = self.items.values().find(|item| {
				item.state == State::Open
					&& item.deadline.is_past(self.height, now)
					&& item.held.is_none()
			});
			assert!(left.is_none(), "{left:?} is too late and was not said to be");
		}
	}

	fn step(&mut self, op: Op) {
		match op {
			Op::Enqueue(key, blocks, minutes) => {
				let number = self.items.len() as u64 + 1;
				let at = minutes.map(|minutes| self.now().after(Duration::from_secs(60 * minutes)));
				let height = blocks.map(|blocks| self.height + blocks);
				let deadline = Deadline { height, at };
				let id = CallbackId::new("k", &[key], number);
				let new = NewCallback::new(id, "k", LSP, vec![key], vec![]).unwrap();
				let enqueued = self.node.enqueue_new(new.with_deadline(deadline));
				assert_eq!(enqueued.sequence().get(), number);
				let (due, state) = (self.now(), State::Open);
				let doubt = Doubt::None;
				let item = Item { key, deadline, due, failures: 0, state, held: None, doubt };
				self.items.insert(number, item);
			},
			Op::Claim => self.claim(),
			Op::Settle(place, how) => self.settle(place, how),
			Op::Drop(place) if !self.claims.is_empty() => {
				let claim = self.claims.remove(place % self.claims.len());
				let item = self.items.get_mut(&claim.callback().sequence().get()).unwrap();
				if item.held == Some(claim.until()) {
					item.held = None;
				}
			},
			Op::Drop(_) => {},
			Op::Turn(limit) => self.turn(limit),
			Op::Pass(seconds) => self.node.clock.advance(Duration::from_secs(seconds)),
			Op::Block(blocks) => self.height += blocks,
			Op::Expire(limit) => self.expire(limit),
			Op::Requeue => {
				let Some(letter) = self.node.outbox.dead_letters(1).unwrap().pop() else { return };
				let number = letter.callback.sequence();
				if letter.why == DeadLetterReason::Expired {
					let refused = self.node.outbox.requeue(number);
					assert!(matches!(refused, Err(OutboxError::Expired)));
					self.node.outbox.discard(number).unwrap();
					self.items.get_mut(&number.get()).unwrap().state = State::Done;
					return;
				}
				self.node.outbox.requeue(number).unwrap();
				let due = self.now();
				let item = self.items.get_mut(&number.get()).unwrap();
				assert_eq!(item.state, State::Dead);
				let expected = if item.doubt == Doubt::None { Taken::No } else { Taken::Maybe };
				assert_eq!(letter.taken, expected, "{item:?}");
				if letter.taken == Taken::Maybe {
					item.doubt = Doubt::Lasting;
				}
				(item.state, item.due, item.failures) = (State::Open, due, 0);
			},
			Op::Restart => {
				self.claims.drain(..).for_each(std::mem::forget);
				self.node.restart();
				self.limit();
				self.items.values_mut().for_each(|item| item.held = None);
			},
		}
	}

	/// Everything is sent in the end, in order, and nothing is left in any index.
	fn finish(mut self) {
		self.step(Op::Restart);
		for _ in 0..1_000 {
			self.expire(1_000);
			self.node.clock.advance(Duration::from_secs(60));
			self.claim();
			if self.claims.is_empty() {
				continue;
			}
			self.settle(0, 0);
		}
		assert!(self.items.values().all(|item| item.state != State::Open));
		for table in ["out_open", "out_due", "out_lanes", "out_urgent"] {
			assert_eq!(self.node.count(table), 0, "{table}");
		}
		let dead = self.items.values().filter(|item| item.state == State::Dead).count();
		assert_eq!(self.node.count("out_dead"), dead);
		assert_eq!(self.node.count("out_items"), self.items.len());
	}
}

/// 256 histories, or as many as `LEYDEN_HISTORIES` says.
fn cases() -> ProptestConfig {
	let cases = std::env::var("LEYDEN_HISTORIES").map_or(256, |cases| cases.parse().unwrap());
	ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
	#![proptest_config(cases())]

	#[test]
	fn random_histories(ops in prop::collection::vec(op(), 1..80)) {
		let mut model = Model::new();
		ops.into_iter().for_each(|op| model.step(op));
		model.finish();
	}
}
