//! What things cost, counted: reads and commits, not seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;

use leyden_outbox::{CallbackId, EndpointOptions, NewCallback, Outbox, OutboxOptions, Verdict};
use leyden_store::{ManualClock, Store, Timestamp};
use leyden_testkit::{CountingStore, Counts};
use rig::*;

fn outbox() -> (Arc<CountingStore>, Outbox) {
	let counting = CountingStore::new(open(&leyden_store::MemoryMedium::new()));
	let counting = Arc::new(counting);
	let store: Arc<dyn Store> = Arc::<CountingStore>::clone(&counting);
	let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
	let outbox = Outbox::open(store, clock, OutboxOptions::default()).unwrap();
	outbox.add_endpoint(LSP, EndpointOptions::default()).unwrap();
	(counting, outbox)
}

fn new(n: u64) -> NewCallback {
	let id = CallbackId::new("k", &n.to_be_bytes(), 0);
	NewCallback::new(id, "k", LSP, n.to_be_bytes(), vec![0; 100]).unwrap()
}

/// The callback is in the commit of its cause.
#[test]
fn enqueueing_costs_no_commit_of_its_own() {
	let (store, outbox) = outbox();
	let cost = store.count(|| {
		let plan = outbox.enqueue(new(1)).unwrap().and(ledger("cause"));
		plan.commit(&**outbox.store()).wait().unwrap();
	});
	assert_eq!(cost, Counts { commits: 1, ..Counts::default() });
}

/// To claim and settle costs the same with a hundred waiting and with many more: 20,000, or as many as
/// `LEYDEN_WAITING` says (`LEYDEN_WAITING=1000000 cargo test --release -p leyden-outbox --test cost`).
#[test]
fn claiming_costs_the_same_whatever_waits() {
	let many = std::env::var("LEYDEN_WAITING").map_or(20_000, |many| many.parse().unwrap());
	let mut costs = Vec::new();
	for waiting in [100, many] {
		let (store, outbox) = outbox();
		for n in 0..waiting {
			outbox.enqueue(new(n)).unwrap().commit(&**outbox.store()).wait().unwrap();
		}
		costs.push(store.count(|| {
			for _ in 0..10 {
				let claim = outbox.claim(HEIGHT).unwrap().unwrap();
				claim.settle(Verdict::Done, "").unwrap();
			}
		}));
	}
	assert_eq!(costs[0], costs[1]);
	let Counts { commits, gets, scans, scanned } = costs[0];
	assert_eq!(commits, 10, "one commit for each that was taken");
	assert!(gets <= 20 && scans <= 50 && scanned <= 700, "{:?}", costs[0]);
}
