//! Splices, signed by the wallets and checked by the chain.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use leyden_testkit::{LdkNet, NodeConfig};

#[test]
fn in_and_out() {
	for config in [NodeConfig::anchors(), NodeConfig::legacy(), NodeConfig::anchors().deferred()] {
		let mut net = LdkNet::new(1);
		let a = net.add_node(config.clone());
		let b = net.add_node(config);
		net.connect(a, b);
		let channel = net.open_channel(a, b, 1_000_000);
		let funding = net.channel(a, channel).unwrap().funding_txo;

		net.splice_in(a, channel, 500_000);
		assert_eq!(net.told(a, "SpliceNegotiated"), 1);
		assert_eq!(net.chain.mempool().len(), 1);
		net.mine(8);
		let spliced = net.channel(a, channel).unwrap();
		// LDK may add what its fee estimate has left over.
		let value = spliced.channel_value_satoshis;
		assert!((1_500_000..=1_500_010).contains(&value), "{value}");
		assert_ne!(spliced.funding_txo, funding);

		net.splice_out(a, channel, 200_000);
		net.mine(8);
		let value = net.channel(b, channel).unwrap().channel_value_satoshis;
		assert!((1_299_000..=1_300_010).contains(&value), "{value}");

		let sent = net.pay(a, b, 700_000_000);
		net.claim(sent.hash);
		assert_eq!(net.told(a, "PaymentSent"), 1);
		net.force_close(b, channel);
		net.mine(200);
		assert!(net.chain.mempool().is_empty());
	}
}
