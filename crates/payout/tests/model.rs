//! Random histories of debts, payees, a node that is late about everything, forgets, or lies, clocks that
//! jump, crashes, two workers, and old copies of the store: no debt is ever paid twice.
//!
//! `LEYDEN_HISTORIES=20000 cargo test --release -p leyden-payout --test model` runs as many of each kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use leyden_payout::*;
use leyden_store::{ManualClock, MemoryMedium, Timestamp};
use proptest::prelude::*;
use rig::*;

const DEBTS: u8 = 3;
/// The amount of a held payment that two debts share: enough for one of them and a half.
const HELD_SAT: u64 = 1_500;

#[derive(Clone, Debug)]
enum Op {
	Owe(u8),
	/// A debt, and an invoice for it.
	Submit(u8, u16),
	Tick,
	/// The other worker looks.
	TickOther,
	Pass(u64),
	/// The clock is set to so many minutes from now.
	Jump(i64),
	How(How),
	Down(bool),
	Forgetful(bool),
	Release(bool),
	/// The node says by itself how an attempt ended.
	Hear(u16),
	/// The node says so of every attempt, and forgets them.
	Forget,
	Lies(bool),
	Held(SettleReply),
	Arrived(u8),
	/// An operator looks at the node, and vouches for a debt that was not paid.
	Vouch(u8),
	/// An operator lets payouts go on.
	Unfreeze,
	/// A payee who was paid shows the preimage.
	Prove(u8),
	Restart,
	/// A copy of the store is made.
	Copy,
	/// The copy is started.
	Restore,
}

/// What a node remembers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
	/// Everything, by the names of attempts.
	Names,
	/// Everything, by hash.
	Hashes,
	/// As LDK: it forgets what it has said.
	Forgets,
}

fn how() -> impl Strategy<Value = How> {
	prop_oneof![
		3 => Just(How::Settle),
		2 => Just(How::Hold),
		2 => Just(How::Fail),
		1 => Just(How::Not(FailureReason::NoRoute)),
		1 => Just(How::Not(FailureReason::NoFunds)),
		1 => Just(How::Not(FailureReason::Rejected)),
		1 => Just(How::Not(FailureReason::Expired)),
		1 => Just(How::SettleSilently),
		1 => Just(How::HoldSilently),
		1 => Just(How::Lost),
	]
}

fn op() -> impl Strategy<Value = Op> {
	let debt = 0..DEBTS;
	prop_oneof![
		3 => debt.clone().prop_map(Op::Owe),
		5 => (debt.clone(), 0..12u16).prop_map(|(debt, n)| Op::Submit(debt, n)),
		6 => Just(Op::Tick),
		3 => Just(Op::TickOther),
		5 => (1..3_000u64).prop_map(Op::Pass),
		1 => (-100_000..100_000i64).prop_map(Op::Jump),
		5 => how().prop_map(Op::How),
		1 => any::<bool>().prop_map(Op::Down),
		1 => any::<bool>().prop_map(Op::Forgetful),
		2 => any::<bool>().prop_map(Op::Release),
		2 => (0..12u16).prop_map(Op::Hear),
		2 => Just(Op::Forget),
		2 => debt.clone().prop_map(Op::Arrived),
		2 => Just(Op::Restart),
		1 => prop_oneof![Just(SettleReply::NotYet), Just(SettleReply::Gone)].prop_map(Op::Held),
		2 => debt.clone().prop_map(Op::Vouch),
		1 => debt.prop_map(Op::Prove),
	]
}

/// With old copies of the store, and a node that lies.
fn op_with_copies() -> impl Strategy<Value = Op> {
	prop_oneof![
		12 => op(),
		1 => Just(Op::Copy),
		1 => Just(Op::Restore),
		1 => any::<bool>().prop_map(Op::Lies),
		1 => Just(Op::Unfreeze),
	]
}

fn kind() -> impl Strategy<Value = Kind> {
	prop_oneof![Just(Kind::Names), Just(Kind::Hashes), Just(Kind::Forgets)]
}

struct Model {
	kind: Kind,
	world: World,
	other: Payouts,
	time: Timestamp,
	copy: Option<MemoryMedium>,
	/// An old copy was started, or the node has lied.
	is_doubtful: bool,
}

fn new_debt(n: u8) -> NewDebt {
	// Debts 0 and 1 share a payment that is not enough for both.
	let source = match n {
		2 => Source::InHand,
		_ => Source::Held { payment_hash: [4; 32], amount_sat: HELD_SAT },
	};
	NewDebt { source, ..bond(n) }
}

impl Model {
	/// Without copies, the store is known to be the newest: else most nodes would prove nothing.
	fn new(kind: Kind, with_copies: bool) -> Self {
		let clock = Arc::new(ManualClock::new(START));
		let mut world = World::on(MemoryMedium::new(), clock, FakeNode::default());
		world.node.set_by_hash(kind == Kind::Hashes);
		if kind == Kind::Forgets {
			world.node.set_memory(NodeMemory::WithStore);
		}
		world.trusts = !with_copies;
		world.restart();
		let other = world.another();
		Self { kind, world, other, time: START, copy: None, is_doubtful: false }
	}

	fn restart(&mut self) {
		self.world.restart();
		self.other = self.world.another();
	}

	fn step(&mut self, op: Op) {
		match op {
			Op::Owe(n) => {
				let added = self.world.payouts.add_debt(&new_debt(n));
				if let Ok(plan) = added {
					plan.commit(&*self.world.store).wait().unwrap();
				}
			},
			Op::Submit(n, invoice) => {
				let text = Like::good(invoice, 500, START).text();
				let _ = self.world.submit(&bond(n).id, &text);
			},
			Op::Tick => drop(self.world.tick().calls),
			Op::TickOther => drop(self.other.tick(&self.world.node, 100).unwrap().calls),
			Op::Pass(seconds) => self.world.clock.advance(Duration::from_secs(seconds)),
			Op::Jump(minutes) => {
				let to = self.world.now().0.saturating_add_signed(minutes * 60_000);
				self.world.clock = Arc::new(ManualClock::new(Timestamp(to)));
				self.restart();
			},
			Op::How(how) => self.world.node.then([how]),
			Op::Down(down) => self.world.node.set_down(down),
			Op::Forgetful(forgetful) => self.world.node.set_forgetful(forgetful),
			Op::Release(settled) => self.world.node.release(settled),
			Op::Hear(n) => self.hear(n),
			Op::Forget if self.kind == Kind::Forgets => {
				for (_, attempt, hash, status) in self.world.node.outcomes() {
					self.record(&hash, &attempt, &status);
				}
				self.world.node.forget();
			},
			Op::Forget => {},
			Op::Lies(lies) => {
				self.is_doubtful |= lies;
				self.world.node.set_lies(lies);
			},
			Op::Held(reply) => self.world.node.held([reply]),
			Op::Arrived(n) => {
				if self.world.payouts.debt(&bond(n).id).unwrap().is_some() {
					self.world.arrived(&bond(n).id);
				}
			},
			Op::Vouch(n) => self.vouch(n),
			Op::Unfreeze => self.world.payouts.unfreeze().unwrap(),
			Op::Prove(n) => self.prove(n),
			Op::Restart => self.restart(),
			Op::Copy => self.copy = Some(self.world.medium.snapshot()),
			Op::Restore => {
				if let Some(copy) = &self.copy {
					self.world.medium = copy.snapshot();
					self.is_doubtful = true;
					self.restart();
				}
			},
		}
		self.time = self.time.max(self.world.now());
		self.check();
	}

	fn record(&self, hash: &[u8; 32], attempt: &AttemptId, status: &AttemptStatus) {
		let recorded = self.world.payouts.record_outcome(hash, Some(attempt), status).unwrap();
		if let Some(plan) = recorded {
			let _ = plan.run(&*self.world.store);
		}
	}

	/// What is so, and nothing else.
	fn hear(&self, n: u16) {
		let hash = sha256::Hash::hash(&preimage(n)).to_byte_array();
		for (_, attempt, of, status) in self.world.node.outcomes() {
			if of == hash {
				self.record(&hash, &attempt, &status);
			}
		}
	}

	fn vouch(&self, n: u8) {
		let id = bond(n).id;
		if self.world.node.out(&id) == 0 {
			let _ = self.world.payouts.vouch(&id);
		}
	}

	fn prove(&self, n: u8) {
		let id = bond(n).id;
		for preimage in self.world.node.shown(&id) {
			let _ = self.world.payouts.resolve_with_proof(&id, &OutsideProof::Preimage(preimage));
		}
	}

	fn check(&self) {
		let world = &self.world;
		let mut held_sat = 0;
		for n in 0..DEBTS {
			let id = bond(n).id;
			let (paid, out) = (world.node.paid(&id), world.node.out(&id));
			assert!(out <= 1, "two payments of debt {n} ({:?})", self.kind);
			let Some(debt) = world.payouts.debt(&id).unwrap() else {
				assert!(out == 0 || self.is_doubtful);
				continue;
			};
			held_sat += if n < 2 { debt.amount_sat } else { 0 };
			assert_eq!(debt.share_sat + debt.node_share_sat, debt.amount_sat);
			if debt.state == State::Forfeited {
				assert!(debt.reminders_delivered > 0 && self.time >= debt.deadline.unwrap());
			}
			if debt.state == State::Paid {
				assert_eq!(paid, 1, "{debt:?}");
			}
			if self.is_doubtful {
				continue;
			}
			match debt.state {
				State::Paid | State::Decided => {},
				State::Forfeited | State::Void => assert_eq!(out, 0, "{debt:?}"),
				State::Kept => panic!("{debt:?}"),
				State::Failed => assert_eq!(out, 0, "given up, and it may be paid: {debt:?}"),
				State::Owed => assert!(out == 0 || debt.live.is_some(), "{debt:?}"),
			}
		}
		assert!(held_sat <= HELD_SAT, "{held_sat} sat of what is held");
	}

	/// The node is well again, and payees give invoices: everybody is paid, or was told, or is seen.
	fn finish(mut self) {
		self.step(Op::Restart);
		let node = self.world.node.clone();
		node.set_down(false);
		node.set_forgetful(false);
		node.set_lies(false);
		node.clear();
		node.release(true);
		for round in 0..20 {
			for n in 0..DEBTS {
				let id = bond(n).id;
				if self.world.payouts.debt(&id).unwrap().is_some() {
					let fresh = 100 + round * 10 + u16::from(n);
					let made_at = self.world.now();
					let _ = self.world.submit(&id, &Like::good(fresh, 500, made_at).text());
				}
			}
			self.world.pass(10 * MINUTE);
			self.check();
		}
		for n in 0..DEBTS {
			let Some(debt) = self.world.payouts.debt(&bond(n).id).unwrap() else { continue };
			let late = debt.deadline.is_some_and(|deadline| self.time >= deadline);
			let is_seen = self.is_doubtful
				|| debt.is_unproven
				|| self.world.payouts.frozen().unwrap().is_some();
			let is_over = matches!(debt.state, State::Paid | State::Void);
			assert!(is_over || late || is_seen, "{debt:?}");
		}
		if !self.is_doubtful {
			assert_eq!(self.world.payouts.audit().unwrap(), []);
			assert!(self.world.payouts.frozen().unwrap().is_none());
		}
	}
}

fn cases() -> ProptestConfig {
	let cases = std::env::var("LEYDEN_HISTORIES").map_or(200, |cases| cases.parse().unwrap());
	ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
	#![proptest_config(cases())]

	#[test]
	fn random_histories(kind in kind(), ops in prop::collection::vec(op(), 1..120)) {
		let mut model = Model::new(kind, false);
		ops.into_iter().for_each(|op| model.step(op));
		model.finish();
	}

	#[test]
	fn random_histories_with_old_copies_and_lies(
		kind in kind(), ops in prop::collection::vec(op_with_copies(), 1..120),
	) {
		let mut model = Model::new(kind, true);
		ops.into_iter().for_each(|op| model.step(op));
		model.finish();
	}
}
