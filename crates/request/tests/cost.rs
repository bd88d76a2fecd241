//! What things cost, counted: reads and commits, not seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;

use leyden_request::{RequestOptions, Requests};
use leyden_store::Store;
use leyden_testkit::{CountingStore, Counts};
use rig::*;

/// A replay reads one record and writes nothing; a first time writes twice: begun, and answered with
/// what the effect writes.
#[test]
fn a_replay_costs_one_read() {
	let node = Node::new(RequestOptions::default());
	let world = World::default();
	let store = Arc::new(CountingStore::new(Arc::clone(&node.store)));
	let shared: Arc<dyn Store> = Arc::<CountingStore>::clone(&store);
	let clock = Arc::<leyden_store::ManualClock>::clone(&node.clock);
	let requests = Requests::open(shared, clock, RequestOptions::default()).unwrap();
	let ask = Ask::new("aa");
	let cost = || {
		store.count(|| {
			ask.with(|request| requests.handle(request, &mut Invoices::new(&world))).unwrap();
		})
	};
	assert_eq!(cost().commits, 2);
	for _ in 0..3 {
		assert_eq!(cost(), Counts { gets: 1, ..Counts::default() });
	}
}

/// A sweep looks at so many as it is told to, with a hundred that are over and with many more: 20,000, or
/// as many as `LEYDEN_WAITING` says
/// (`LEYDEN_WAITING=1000000 cargo test --release -p leyden-request --test cost`).
#[test]
fn a_sweep_is_done_in_bounded_steps() {
	const STEP: usize = 50;
	let many = std::env::var("LEYDEN_WAITING").map_or(20_000, |many| many.parse().unwrap());
	let mut costs = Vec::new();
	for expired in [100_u32, many] {
		let options = RequestOptions { max_per_scope: u64::MAX, ..RequestOptions::default() };
		let node = Node::new(options.clone());
		let store = Arc::new(CountingStore::new(Arc::clone(&node.store)));
		let shared: Arc<dyn Store> = Arc::<CountingStore>::clone(&store);
		let clock = Arc::<leyden_store::ManualClock>::clone(&node.clock);
		let requests = Requests::open(shared, clock, options).unwrap();
		let world = World::default();
		for n in 0..expired {
			let ask = Ask::new(&format!("{n:08x}"));
			ask.with(|request| requests.handle(request, &mut Invoices::new(&world))).unwrap();
		}
		// Time passes in steps, and is looked at.
		for _ in 0..200 {
			node.clock.advance(std::time::Duration::from_secs(600));
			requests.sweep(0).unwrap();
		}
		let mut swept = leyden_request::Swept::default();
		let cost = store.count(|| swept = requests.sweep(STEP).unwrap());
		assert_eq!((swept.expired, swept.more), (STEP, true));
		costs.push(cost);
		let mut total = STEP;
		while swept.more {
			swept = requests.sweep(1_000).unwrap();
			total += swept.expired;
		}
		assert_eq!(total, expired as usize);
	}
	assert_eq!(costs[0], costs[1]);
	assert!(costs[0].commits <= STEP as u64 + 1 && costs[0].gets <= 2 * STEP as u64, "{costs:?}");
}
