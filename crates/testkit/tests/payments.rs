//! Payments that go well, and those that are given back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use leyden_testkit::net::Paid;
use leyden_testkit::{LdkNet, NodeConfig};

fn all_configs() -> [NodeConfig; 4] {
	let (anchors, legacy) = (NodeConfig::anchors(), NodeConfig::legacy());
	[anchors.clone(), legacy.clone(), anchors.deferred(), legacy.deferred()]
}

#[test]
fn one_hop() {
	for config in all_configs() {
		let mut net = LdkNet::new(1);
		let a = net.add_node(config.clone());
		let b = net.add_node(config);
		net.connect(a, b);
		net.open_channel(a, b, 1_000_000);
		let sent = net.pay(a, b, 50_000_000);
		assert_eq!(net.told(b, "PaymentClaimable"), 1);
		assert_eq!(net.paid(&sent), Paid::Pending);
		net.claim(sent.hash);
		assert_eq!(net.told(a, "PaymentSent"), 1);
		assert_eq!(net.told(b, "PaymentClaimed"), 1);
		assert_eq!(net.paid(&sent), Paid::Fulfilled);
		assert_eq!(net.complaints(), &[] as &[String]);
	}
}

#[test]
fn two_hops() {
	for config in all_configs() {
		let mut net = LdkNet::new(2);
		let [a, b, c] = [(); 3].map(|_| net.add_node(config.clone()));
		net.connect(a, b);
		net.connect(b, c);
		net.open_channel(a, b, 1_000_000);
		net.open_channel(b, c, 1_000_000);
		let sent = net.pay(a, c, 50_000_000);
		net.claim(sent.hash);
		assert_eq!(net.told(a, "PaymentSent"), 1);
		assert_eq!(net.told(b, "PaymentForwarded"), 1);
		assert_eq!(net.told(c, "PaymentClaimed"), 1);
	}
}

#[test]
fn in_parts_over_two_channels_and_two_ways() {
	let mut net = LdkNet::new(3);
	let [a, b, c] = [(); 3].map(|_| net.add_node(NodeConfig::default()));
	net.connect(a, b);
	net.connect(b, c);
	net.connect(a, c);
	net.open_channel(a, b, 1_000_000);
	net.open_channel(b, c, 1_000_000);
	net.open_channel(a, c, 1_000_000);
	net.open_channel(a, c, 1_000_000);
	let parts: [(&[usize], u64); 3] =
		[(&[a, c], 300_000_000), (&[a, c], 200_000_000), (&[a, b, c], 100_000_000)];
	let sent = net.pay_parts(&parts);
	assert_eq!(net.told(c, "PaymentClaimable"), 1);
	net.claim(sent.hash);
	assert_eq!(net.told(a, "PaymentSent"), 1);
	assert_eq!(net.told(a, "PaymentPathSuccessful"), 3);
	assert_eq!(sent.amount_msat, 600_000_000);
}

#[test]
fn given_back() {
	let mut net = LdkNet::new(4);
	let [a, b, c] = [(); 3].map(|_| net.add_node(NodeConfig::default()));
	net.connect(a, b);
	net.connect(b, c);
	net.open_channel(a, b, 1_000_000);
	net.open_channel(b, c, 1_000_000);
	let sent = net.pay(a, c, 50_000_000);
	net.fail(sent.hash);
	assert_eq!(net.told(a, "PaymentFailed"), 1);
	assert_eq!(net.told(b, "HTLCHandlingFailed"), 1);
	assert_eq!(net.paid(&sent), Paid::Unknown);
}

#[test]
fn closed_together() {
	for config in [NodeConfig::anchors(), NodeConfig::legacy()] {
		let mut net = LdkNet::new(5);
		let a = net.add_node(config.clone());
		let b = net.add_node(config);
		net.connect(a, b);
		let channel = net.open_channel_pushing(a, b, 1_000_000, 300_000_000);
		let before = net.node(b).wallet().balance_sats();
		net.close(a, channel);
		assert_eq!(net.chain.mempool().len(), 1);
		net.mine(8);
		assert!(net.channels(a).is_empty() && net.channels(b).is_empty());
		// Swept: all of it but the fees.
		let gained = net.node(b).wallet().balance_sats() - before;
		assert!((290_000..=300_000).contains(&gained), "{gained}");
	}
}
