//! Random histories of debts, payees, a node that is late about everything, forgets, lies, or changes its
//! mind, clocks that jump, crashes, two workers, operators, payments by hand, and old copies of the store,
//! with a witness and without: no debt is ever paid twice.
//!
//! `LEYDEN_HISTORIES=20000 cargo test --release -p leyden-payout --test model` runs as many of each kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_payout::*;
use leyden_store::witness::{accept, HistoryMark, Witness, WitnessedStore};
use leyden_store::{
	ManualClock, MemoryMedium, MemoryStore, Namespace, Store, StoreError, Timestamp,
};
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
	/// An operator declares the attempt that is under way dead.
	Declare(u8),
	/// An operator pays an invoice by hand.
	ByHand(u16),
	/// A payment that had failed has paid after all, and the node says so.
	Revive(u8),
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
		1 => debt.clone().prop_map(Op::Declare),
		1 => debt.prop_map(Op::Prove),
	]
}

/// Without copies: an operator who pays by hand reads the store.
fn op_by_hand() -> impl Strategy<Value = Op> {
	prop_oneof![
		24 => op(),
		1 => (0..12u16).prop_map(Op::ByHand),
	]
}

/// With old copies of the store, and a node that lies.
fn op_with_copies() -> impl Strategy<Value = Op> {
	prop_oneof![
		12 => op(),
		1 => Just(Op::Copy),
		1 => Just(Op::Restore),
		1 => any::<bool>().prop_map(Op::Lies),
		1 => (0..DEBTS).prop_map(Op::Revive),
		1 => Just(Op::Unfreeze),
	]
}

/// A node that changes its mind, while an order to it may have been lost.
fn op_of_changed_minds() -> impl Strategy<Value = Op> {
	let how = prop_oneof![
		3 => Just(How::Fail),
		3 => Just(How::Lost),
		1 => Just(How::Hold),
		1 => Just(How::Settle),
	];
	prop_oneof![
		2 => (0..12u16).prop_map(|n| Op::Submit(2, n)),
		6 => Just(Op::Tick),
		6 => (10..200u64).prop_map(Op::Pass),
		6 => how.prop_map(Op::How),
		3 => Just(Op::Revive(2)),
		3 => Just(Op::Unfreeze),
		1 => Just(Op::Declare(2)),
		1 => any::<bool>().prop_map(Op::Release),
		1 => Just(Op::Restart),
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
	/// The store is watched by this.
	witness: Option<Known>,
	/// The payments of each debt that there may be: one, or as many as the node has made by itself.
	allowed: [usize; DEBTS as usize],
	/// An old copy was started, the node has lied or changed its mind, or an operator has paid by hand.
	is_doubtful: bool,
}

#[derive(Clone, Default)]
struct Known(Arc<Mutex<Option<HistoryMark>>>);

impl Witness for Known {
	fn place(&self) -> String {
		"the model".to_owned()
	}

	fn newest(&self) -> Result<Option<HistoryMark>, std::io::Error> {
		Ok(*self.0.lock().unwrap())
	}

	fn remember(&self, mark: &HistoryMark) -> Result<(), std::io::Error> {
		*self.0.lock().unwrap() = Some(*mark);
		Ok(())
	}
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
	fn new(kind: Kind, with_copies: bool, witness: Option<Known>) -> Self {
		let clock = Arc::new(ManualClock::new(START));
		let mut world = World::on(MemoryMedium::new(), clock, FakeNode::default());
		world.node.set_by_hash(kind == Kind::Hashes);
		if kind == Kind::Forgets {
			world.node.set_memory(NodeMemory::WithStore);
		}
		world.trusts = !with_copies;
		world.restart();
		let other = world.another();
		let allowed = [1; DEBTS as usize];
		let (time, copy, is_doubtful) = (START, None, false);
		let mut model = Self { kind, world, other, time, copy, witness, allowed, is_doubtful };
		model.restart();
		model
	}

	fn restart(&mut self) {
		let Some(witness) = self.witness.clone() else {
			self.world.restart();
			self.other = self.world.another();
			return;
		};
		// A store is closed before it is opened again.
		let nothing = World::new();
		(self.world.store, self.world.payouts) = (Arc::clone(&nothing.store), nothing.another());
		self.other = nothing.another();
		let raw = || {
			let store = MemoryStore::open(&self.world.medium, Namespace::default()).unwrap();
			let store: Arc<dyn Store> = Arc::new(store);
			store
		};
		let open = || WitnessedStore::open(raw(), Box::new(witness.clone()));
		let store = match open() {
			Err(StoreError::Restored { .. }) => {
				accept(&*raw(), &witness).unwrap();
				open().unwrap()
			},
			opened => opened.unwrap(),
		};
		self.world.store = Arc::new(store);
		self.world.payouts = self.world.another();
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
			Op::Declare(n) => self.declare(n),
			Op::ByHand(n) => self.pay_by_hand(n),
			Op::Revive(n) => self.revive(n),
			Op::Unfreeze => self.unfreeze(),
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
		let hash = hash(n);
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

	/// An operator is right, unless the node remembers every payment by its name.
	fn declare(&mut self, n: u8) {
		let id = bond(n).id;
		let is_right = self.world.node.out(&id) == 0;
		let live = self.world.payouts.debt(&id).unwrap().and_then(|debt| debt.live);
		let Some(number) = live.filter(|_| is_right || self.kind == Kind::Names) else { return };
		self.is_doubtful |= !is_right;
		let _ = self.world.payouts.declare_failed(&id, number);
	}

	/// An operator pays an invoice of a debt for which nothing is under way, and the node says so.
	fn pay_by_hand(&mut self, n: u16) {
		let hash = hash(n);
		let settled = settled(n);
		let name = AttemptId::from_bytes(foreign(&hash));
		let is_idle = |debt: &u8| {
			let id = bond(*debt).id;
			let found = self.world.payouts.debt(&id).unwrap();
			let is_idle = found.is_some_and(|found| found.live.is_none());
			is_idle && self.world.node.out(&id) == 0
		};
		// The debt whose attempts grow is the one that owns the invoice.
		let attempts = |n: u8| self.world.payouts.debt(&bond(n).id).unwrap().map(|d| d.attempts);
		let before: Vec<_> = (0..DEBTS).map(attempts).collect();
		if !(0..DEBTS).all(|n| before[usize::from(n)].is_none() || is_idle(&n)) {
			return;
		}
		let recorded = self.world.payouts.record_outcome(&hash, Some(&name), &settled).unwrap();
		let Some(plan) = recorded else { return };
		if plan.run(&*self.world.store).is_err() {
			return;
		}
		self.is_doubtful = true;
		let grown = (0..DEBTS).find(|n| attempts(*n) != before[usize::from(*n)]);
		if let Some(n) = grown {
			self.world.node.pay_by_hand(&bond(n).id, hash);
		}
	}

	/// The node changes its mind, and says so before anything else happens.
	fn revive(&mut self, n: u8) {
		let id = bond(n).id;
		if self.world.payouts.debt(&id).unwrap().is_none() {
			return;
		}
		let Some((attempt, hash, status)) = self.world.node.revive(&id) else { return };
		self.is_doubtful = true;
		self.allowed[usize::from(n)] = self.world.node.out(&id);
		self.record(&hash, &attempt, &status);
	}

	/// An operator looks into why nothing is paid. After a restoration, what the node has paid and the store
	/// does not know is resolved first.
	fn unfreeze(&self) {
		if self.witness.is_some() {
			for n in 0..DEBTS {
				let (id, node) = (bond(n).id, &self.world.node);
				if node.out(&id) == 0 {
					continue;
				}
				let Some(found) = self.world.payouts.debt(&id).unwrap() else { return };
				if found.state != State::Paid {
					self.prove(n);
					let proof = OutsideProof::Reference("the node has paid".to_owned());
					if node.paid(&id) > 0 {
						let _ = self.world.payouts.resolve_with_proof(&id, &proof);
					}
				}
				let found = self.world.debt(&id);
				let is_under_way = node.paid(&id) == 0 && found.live.is_some();
				if found.state != State::Paid && !is_under_way {
					return;
				}
			}
		}
		self.world.unfreeze();
	}

	fn prove(&self, n: u8) {
		let id = bond(n).id;
		for preimage in self.world.node.shown(&id) {
			let _ = self.world.payouts.resolve_with_proof(&id, &OutsideProof::Preimage(preimage));
		}
	}

	fn check(&mut self) {
		let world = &self.world;
		let mut held_sat = 0;
		for n in 0..DEBTS {
			let id = bond(n).id;
			let (paid, out) = (world.node.paid(&id), world.node.out(&id));
			let allowed = &mut self.allowed[usize::from(n)];
			assert!(out <= *allowed, "{out} payments of debt {n} ({:?})", self.kind);
			*allowed = (*allowed).min(out.max(1));
			let Some(debt) = world.payouts.debt(&id).unwrap() else {
				assert!(out == 0 || self.is_doubtful);
				continue;
			};
			// A debt whose payment is gone has given its part back.
			let is_in = debt.window_start.is_some() || debt.state == State::Decided;
			let is_counted = n < 2 && is_in;
			held_sat += if is_counted { debt.amount_sat } else { 0 };
			assert_eq!(debt.share_sat + debt.node_share_sat, debt.amount_sat);
			if debt.state == State::Forfeited {
				assert!(debt.reminders_delivered > 0 && self.time >= debt.deadline.unwrap());
			}
			// A node that knows payments by hash does not know of which debt one is: a payee may give an
			// invoice of one for another to an old copy.
			let is_told_apart = self.kind != Kind::Hashes || !self.is_doubtful;
			if debt.state == State::Paid && is_told_apart {
				assert!(paid >= 1, "{debt:?}");
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

/// A history that was found: a copy is accepted, an operator looks, and only then a payment that the copy never
/// knew has an end. It is found by its name.
#[test]
fn a_payment_that_an_accepted_copy_never_knew_is_found() {
	let mut model = Model::new(Kind::Hashes, true, Some(Known::default()));
	let no_route = How::Not(FailureReason::NoRoute);
	let before = [Op::Owe(1), Op::How(no_route), Op::Tick, Op::Copy, Op::How(How::Fail)];
	let lost = [Op::Submit(1, 0), Op::Tick, Op::Pass(60), Op::Tick];
	let after = [Op::Restore, Op::Unfreeze, Op::Revive(1)];
	before.into_iter().chain(lost).chain(after).for_each(|op| model.step(op));
	model.finish();
}

/// A history that was found: an old copy is about to order an attempt that was given up since, and the next
/// one has paid.
#[test]
fn an_old_copy_orders_nothing_before_it_has_asked() {
	let mut model = Model::new(Kind::Names, false, None);
	let no_route = How::Not(FailureReason::NoRoute);
	let before = [Op::How(How::Lost), Op::How(no_route), Op::How(How::Settle), Op::Owe(2)];
	let copied = [Op::Submit(2, 0), Op::TickOther, Op::Copy];
	let after = [Op::Pass(60), Op::Tick, Op::Pass(60), Op::Tick, Op::Restore];
	before.into_iter().chain(copied).chain(after).for_each(|op| model.step(op));
	model.finish();
}

/// A history that was found: a debt is added after the wall clock moved on by a month, and the clock then goes
/// back. What steady time catches up with later makes its window no older.
#[test]
fn a_window_does_not_end_early_when_the_clock_goes_back() {
	let mut model = Model::new(Kind::Names, false, None);
	let before = [Op::Jump(43_395), Op::Owe(2), Op::Pass(1_639), Op::Jump(-97_292)];
	let invoiced = [Op::Pass(3_360), Op::Submit(2, 0), Op::Pass(2_601), Op::Jump(96_647)];
	before.into_iter().chain(invoiced).for_each(|op| model.step(op));
	(0..15).for_each(|_| model.step(Op::Pass(1_500)));
	model.finish();
}

fn cases() -> ProptestConfig {
	let cases = std::env::var("LEYDEN_HISTORIES").map_or(200, |cases| cases.parse().unwrap());
	ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
	#![proptest_config(cases())]

	#[test]
	fn random_histories(kind in kind(), ops in prop::collection::vec(op_by_hand(), 1..120)) {
		let mut model = Model::new(kind, false, None);
		ops.into_iter().for_each(|op| model.step(op));
		model.finish();
	}

	#[test]
	fn random_histories_of_a_node_that_changes_its_mind(
		ops in prop::collection::vec(op_of_changed_minds(), 1..80),
	) {
		let mut model = Model::new(Kind::Names, false, None);
		model.step(Op::Owe(2));
		ops.into_iter().for_each(|op| model.step(op));
		model.finish();
	}

	#[test]
	fn random_histories_with_old_copies_and_lies(
		kind in kind(), ops in prop::collection::vec(op_with_copies(), 1..120),
	) {
		let mut model = Model::new(kind, true, None);
		ops.into_iter().for_each(|op| model.step(op));
		model.finish();
	}

	#[test]
	fn random_histories_with_old_copies_and_a_witness(
		kind in kind(), ops in prop::collection::vec(op_with_copies(), 1..120),
	) {
		let mut model = Model::new(kind, true, Some(Known::default()));
		ops.into_iter().for_each(|op| model.step(op));
		model.finish();
	}
}
