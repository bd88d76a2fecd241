//! Random histories of debts, creditors, a node that is late about everything and lies about nothing,
//! clocks that jump, crashes, and two workers: no debt is ever paid twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use leyden_payout::*;
use leyden_store::{ManualClock, MemoryMedium, Timestamp};
use proptest::prelude::*;
use rig::*;

const DEBTS: u8 = 3;

#[derive(Clone, Debug)]
enum Op {
	Owe(u8),
	/// Which debt, and which invoice.
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
	/// What the node says by itself of an invoice.
	Hear(u16),
	Arrived(u8),
	Restart,
}

fn how() -> impl Strategy<Value = How> {
	prop_oneof![
		3 => Just(How::Settle),
		2 => Just(How::Hold),
		2 => Just(How::Fail),
		1 => Just(How::Not(NotSent::NoRoute)),
		1 => Just(How::Not(NotSent::NoFunds)),
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
		2 => debt.prop_map(Op::Arrived),
		2 => Just(Op::Restart),
	]
}

struct Model {
	world: World,
	other: Payouts,
	time: Timestamp,
}

impl Model {
	fn new() -> Self {
		let world =
			World::on(MemoryMedium::new(), Arc::new(ManualClock::new(START)), FakeNode::default());
		let other = open(&world.store, &world.clock);
		Self { world, other, time: START }
	}

	fn step(&mut self, op: Op) {
		let world = &mut self.world;
		match op {
			Op::Owe(n) => {
				let _ = world.owe(&bond(n));
			},
			Op::Submit(n, invoice) => {
				let text = Like::good(invoice, 500, START).text();
				let _ = world.submit(&bond(n).id, &text);
			},
			Op::Tick => drop(world.tick().calls),
			Op::TickOther => drop(self.other.tick(&world.node, 100).unwrap().calls),
			Op::Pass(seconds) => world.clock.advance(Duration::from_secs(seconds)),
			Op::Jump(minutes) => {
				let to = world.now().0.saturating_add_signed(minutes * 60_000);
				world.clock = Arc::new(ManualClock::new(Timestamp(to)));
				world.restart();
				self.other = open(&world.store, &world.clock);
			},
			Op::How(how) => world.node.then([how]),
			Op::Down(down) => world.node.set_down(down),
			Op::Forgetful(forgetful) => world.node.set_forgetful(forgetful),
			Op::Release(settled) => world.node.release(settled),
			Op::Hear(n) => {
				// What is so, and nothing else.
				use bitcoin::hashes::{sha256, Hash};
				let hash = sha256::Hash::hash(&preimage(n)).to_byte_array();
				let heard = (0..DEBTS).find_map(|debt| {
					let id = bond(debt).id;
					let number = world.payouts.debt(&id).unwrap()?.live?;
					Some((id.attempt(number), world.node.heard(&id, number, &hash)?))
				});
				if let Some((attempt, heard)) = heard {
					let learned = world.payouts.learn(&hash, Some(&attempt), &heard);
					if let Some(plan) = learned.unwrap() {
						let _ = plan.run(&*world.store);
					}
				}
			},
			Op::Arrived(n) => {
				if world.payouts.debt(&bond(n).id).unwrap().is_some() {
					world.arrived(&bond(n).id);
				}
			},
			Op::Restart => {
				world.restart();
				self.other = open(&world.store, &world.clock);
			},
		}
		self.time = self.time.max(self.world.now());
		self.check();
	}

	fn check(&self) {
		let world = &self.world;
		for n in 0..DEBTS {
			let id = bond(n).id;
			let Some(debt) = world.payouts.debt(&id).unwrap() else {
				assert_eq!(world.node.out(&id), 0);
				continue;
			};
			let (paid, out) = (world.node.paid(&id), world.node.out(&id));
			assert!(out <= 1, "two payments of one debt: {debt:?}");
			match debt.state {
				State::Paid => assert_eq!(paid, 1, "{debt:?}"),
				State::Forfeited => {
					assert!(out == 0 && debt.nudges_sent > 0, "{debt:?}");
					assert!(self.time >= debt.deadline.unwrap(), "{debt:?}");
				},
				State::Kept | State::Decided => panic!("{debt:?}"),
				State::Failed => assert_eq!(out, 0, "given up, and it may be paid: {debt:?}"),
				State::Owed => assert!(out == 0 || debt.live.is_some(), "{debt:?}"),
			}
			assert_eq!(debt.share_sat + debt.node_share_sat, debt.amount_sat);
		}
	}

	/// The node is well again, and whoever is owed gives an invoice: everybody is paid, or was told.
	fn finish(mut self) {
		self.step(Op::Restart);
		let world = &self.world;
		world.node.set_down(false);
		world.node.set_forgetful(false);
		world.node.clear();
		world.node.release(true);
		for round in 0..20 {
			for n in 0..DEBTS {
				let id = bond(n).id;
				if world.payouts.debt(&id).unwrap().is_some() {
					let fresh = 100 + round * 10 + u16::from(n);
					let made_at = world.now();
					let _ = world.submit(&id, &Like::good(fresh, 500, made_at).text());
				}
			}
			world.pass(10 * MINUTE);
			self.check();
		}
		for n in 0..DEBTS {
			let Some(debt) = world.payouts.debt(&bond(n).id).unwrap() else { continue };
			let late = debt.deadline.is_some_and(|deadline| self.time >= deadline);
			assert!(debt.state == State::Paid || late, "{debt:?}");
		}
		assert!(world.payouts.doctor().unwrap().is_empty());
		assert!(world.payouts.breaker().unwrap().is_none());
	}
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

	#[test]
	fn random_histories(ops in prop::collection::vec(op(), 1..120)) {
		let mut model = Model::new();
		ops.into_iter().for_each(|op| model.step(op));
		model.finish();
	}
}
