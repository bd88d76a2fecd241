//! What things cost, counted: reads and commits, not seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;

use leyden_outbox::{
	CallbackId, EndpointOptions, NewCallback, Outbox, OutboxOptions, Reply, TryOutcome, Verdict,
};
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

/// The callback is in the commit of its cause; one read looks whether its id is known.
#[test]
fn enqueueing_costs_no_commit_of_its_own() {
	let (store, outbox) = outbox();
	let cost = store.count(|| {
		let plan = outbox.enqueue(new(1)).unwrap().and(ledger("cause"));
		plan.commit(&**outbox.store()).wait().unwrap();
	});
	assert_eq!(cost, Counts { commits: 1, gets: 1, ..Counts::default() });
}

/// What is sent in one go is marked in one commit, before it is handed out.
#[test]
fn what_is_sent_together_is_marked_together() {
	let (store, outbox) = outbox();
	for n in 0..20 {
		outbox.enqueue(new(n)).unwrap().commit(&**outbox.store()).wait().unwrap();
	}
	let options = EndpointOptions { max_in_flight: 20, ..EndpointOptions::default() };
	outbox.add_endpoint(LSP, options).unwrap();
	let mut claims = Vec::new();
	let cost = store.count(|| claims = outbox.claim_up_to(HEIGHT, 20).unwrap());
	assert_eq!((claims.len(), cost.commits), (20, 1));
	// A try that failed for certain is marked again; one in doubt is not.
	for (n, claim) in claims.into_iter().enumerate() {
		let reply = if n < 10 { Reply::status(429) } else { Reply::status(503) };
		claim.reply(reply, HEIGHT, "").unwrap();
	}
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
				claim.settle(Verdict::Done, TryOutcome::Taken, "").unwrap();
			}
		}));
	}
	assert_eq!(costs[0], costs[1]);
	let Counts { commits, gets, scans, scanned } = costs[0];
	assert_eq!(commits, 20, "one commit before each is sent, and one when it was taken");
	assert!(gets <= 20 && scans <= 50 && scanned <= 700, "{:?}", costs[0]);
}
