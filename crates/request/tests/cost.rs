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
