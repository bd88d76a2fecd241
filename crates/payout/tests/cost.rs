//! Costs, counted: reads, commits and memory, not seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;

use leyden_payout::*;
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store};
use leyden_testkit::CountingStore;
use rig::*;

/// A look at the debts costs what is due, with a thousand at rest and with many more: 20,000, or as many
/// as `LEYDEN_WAITING` says
/// (`LEYDEN_WAITING=1000000 cargo test --release -p leyden-payout --test cost`).
#[test]
fn a_look_costs_what_is_due() {
	const DUE: u32 = 100;
	let many = std::env::var("LEYDEN_WAITING").map_or(20_000, |many| many.parse().unwrap());
	let mut costs = Vec::new();
	for at_rest in [1_000_u32, many] {
		let memory = MemoryStore::open(&MemoryMedium::new(), Namespace::default()).unwrap();
		let store = Arc::new(CountingStore::new(Arc::new(memory)));
		let shared: Arc<dyn Store> = Arc::<CountingStore>::clone(&store);
		let clock = Arc::new(ManualClock::new(START));
		let payouts = open(&shared, &clock);
		let node = FakeNode::default();
		let owe = |n: u32| {
			let id = DebtId::new("bond", &n.to_be_bytes());
			let new = NewDebt { id, ..bond(0) };
			payouts.add_debt(&new).unwrap().commit(&*shared).wait().unwrap();
		};
		(0..at_rest).for_each(owe);
		// Everybody was reminded, and rests until the next time.
		while payouts.tick(&node, 1_000).unwrap().changes > 0 {}
		(at_rest..at_rest + DUE).for_each(owe);
		let mut ticked = TickSummary::default();
		costs.push(store.count(|| ticked = payouts.tick(&node, 1_000).unwrap()));
		assert_eq!((ticked.looked_at, ticked.changes), (DUE as usize, DUE as usize));
	}
	assert_eq!(costs[0], costs[1]);
	assert!(costs[0].commits <= u64::from(DUE) + 1 && costs[0].gets <= 2 * u64::from(DUE));
}

/// The memory of debts that are closed holds nothing.
#[test]
fn closed_debts_are_forgotten() {
	let (world, id) = owed();
	for n in 2..=20 {
		world.owe(&bond(n));
	}
	world.settle();
	let remembered = || format!("{:?}", world.payouts);
	assert!(remembered().contains("remembered: 20"), "{}", remembered());
	for n in 1..=20 {
		world.payouts.vouch(&bond(n).id).unwrap();
		world.submit(&bond(n).id, &world.good(n.into())).unwrap();
	}
	world.pass(2 * MINUTE);
	assert_eq!(world.state(&id), State::Paid);
	assert!(remembered().contains("remembered: 0"), "{}", remembered());
}
