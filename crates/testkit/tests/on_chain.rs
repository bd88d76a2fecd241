//! Channels that end on chain. Every transaction here passes Bitcoin Core's script interpreter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use leyden_testkit::net::Paid;
use leyden_testkit::{LdkNet, NodeConfig};

fn configs() -> [NodeConfig; 4] {
	let (anchors, legacy) = (NodeConfig::anchors(), NodeConfig::legacy());
	[anchors.clone(), legacy.clone(), anchors.deferred(), legacy.deferred()]
}

fn pair(seed: u64, config: &NodeConfig) -> (LdkNet, usize, usize) {
	let mut net = LdkNet::new(seed);
	let a = net.add_node(config.clone());
	let b = net.add_node(config.clone());
	net.connect(a, b);
	(net, a, b)
}

#[test]
fn forced_from_either_side() {
	for config in configs() {
		for closer in [0, 1] {
			let (mut net, a, b) = pair(1, &config);
			let channel = net.open_channel_pushing(a, b, 1_000_000, 400_000_000);
			let before = [a, b].map(|n| net.node(n).wallet().balance_sats());
			net.force_close(closer, channel);
			assert_eq!(net.told(a, "ChannelClosed"), 1);
			assert_eq!(net.told(b, "ChannelClosed"), 1);
			// The closer's own money waits for the relative lock time of the channel.
			net.mine(7);
			let late = net.node(closer).wallet().balance_sats();
			assert!(late <= before[closer], "{late}");
			net.mine(200);
			for (n, share) in [(a, 600_000), (b, 400_000)] {
				let gained = net.node(n).wallet().balance_sats() as i64 - before[n] as i64;
				// Whoever pays for anchors pays a few thousand satoshis more.
				assert!((share - 20_000..=share).contains(&gained), "{n}: {gained}");
			}
		}
	}
}

#[test]
fn htlc_claimed_on_chain() {
	for config in configs() {
		let (mut net, a, b) = pair(2, &config);
		let channel = net.open_channel(a, b, 1_000_000);
		let sent = net.pay(a, b, 100_000_000);
		net.disconnect(a, b);
		net.claim(sent.hash);
		assert_eq!(net.told(a, "PaymentSent"), 0);
		net.force_close(b, channel);
		net.mine(1);
		// B's HTLC-Success transaction shows A the preimage.
		net.mine(1);
		assert_eq!(net.told(a, "PaymentSent"), 1);
		assert_eq!(net.paid(&sent), Paid::Fulfilled);
		let before = net.node(b).wallet().balance_sats();
		net.mine(200);
		let gained = net.node(b).wallet().balance_sats() - before;
		assert!((80_000..=100_000).contains(&gained), "{gained}");
	}
}

#[test]
fn htlc_timed_out_on_chain() {
	for config in configs() {
		let (mut net, a, b) = pair(3, &config);
		net.open_channel(a, b, 1_000_000);
		let sent = net.pay(a, b, 100_000_000);
		let expiry = net.channels(a)[0].pending_outbound_htlcs[0].cltv_expiry;
		// B is asleep: its own timer would give the payment back in time.
		net.pause(b);
		net.disconnect(a, b);
		while net.chain.height() + 1 < expiry {
			net.mine(1);
			assert_eq!(net.told(a, "ChannelClosed"), 0);
		}
		net.mine_past_expiry();
		assert_eq!(net.told(a, "ChannelClosed"), 1);
		net.mine(3);
		assert_eq!(net.told(a, "PaymentFailed"), 0, "needs six confirmations");
		net.mine(10);
		assert_eq!(net.told(a, "PaymentFailed"), 1);
		assert_eq!(net.paid(&sent), Paid::Unknown);
	}
}

#[test]
fn reorganized_close() {
	for config in configs() {
		let (mut net, a, b) = pair(4, &config);
		let channel = net.open_channel(a, b, 1_000_000);
		let sent = net.pay(a, b, 100_000_000);
		net.disconnect(a, b);
		net.claim(sent.hash);
		net.force_close(b, channel);
		net.mine(2);
		assert_eq!(net.told(a, "PaymentSent"), 1);
		let stale = net.chain.block(net.chain.height()).block_hash();
		let height = net.chain.height();
		// Away with both blocks; everything in them comes again on the longer branch.
		net.reorg(2);
		assert_eq!(net.chain.height(), height + 1);
		assert_ne!(net.chain.block(height).block_hash(), stale);
		net.mine(200);
		assert_eq!(net.told(a, "PaymentSent"), 1);
		assert_eq!(net.told(a, "ChannelClosed"), 1);
		assert_eq!(net.paid(&sent), Paid::Fulfilled);
	}
}

#[test]
fn reorganized_funding_is_mined_again() {
	let (mut net, a, b) = pair(5, &NodeConfig::default());
	let channel = net.open_channel(a, b, 1_000_000);
	net.reorg(3);
	assert!(net.channel(a, channel).unwrap().is_usable);
	let sent = net.pay(a, b, 1_000_000);
	net.claim(sent.hash);
	assert_eq!(net.told(a, "PaymentSent"), 1);
}
