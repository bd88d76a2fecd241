//! What becomes of a zombie channel (case B) when the peer comes back, with LDK alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use leyden_testkit::net::Paid;
use leyden_testkit::{LdkNet, NodeConfig};

#[test]
fn a_peer_that_comes_back_closes_it_and_one_more_restart_finds_the_payment() {
	let mut net = LdkNet::new(1);
	let a = net.add_node(NodeConfig::legacy().deferred());
	let b = net.add_node(NodeConfig::legacy());
	net.connect(a, b);
	let channel = net.open_channel(a, b, 1_000_000);
	let sent = net.pay(a, b, 30_000_000);
	net.persist_manager(a);
	net.set_auto_persist(a, false);
	net.disconnect(a, b);
	net.pause(a);
	net.claim(sent.hash);
	net.force_close(b, channel);
	net.mine(2);
	net.sync(a);
	net.node(a).drain();
	let writes = net.disk(a).monitor_writes();
	while net.disk(a).monitor_writes() == writes {
		net.mine(1);
		net.sync(a);
	}
	net.crash(a);

	net.restart(a);
	net.resume(a);
	net.set_auto_persist(a, true);
	net.settle();
	assert_eq!((net.channels(a).len(), net.paid(&sent)), (1, Paid::Pending));
	// B knows of no such channel, and A closes it; the payment is not looked for.
	net.connect(a, b);
	net.mine(10);
	// Outputs may have matured before: how many blocks were mined depends on the channel's id.
	let told = |net: &LdkNet, life, event: &str| {
		net.told_in(a, life).iter().filter(|name| *name == event).count()
	};
	assert_eq!((told(&net, 2, "ChannelClosed"), told(&net, 2, "PaymentSent")), (1, 0));
	assert_eq!((net.channels(a).len(), net.paid(&sent)), (0, Paid::Pending));

	net.persist_manager(a);
	net.crash(a);
	net.restart(a);
	net.settle();
	assert_eq!((told(&net, 3, "PaymentSent"), told(&net, 3, "PaymentFailed")), (1, 0));
	assert_eq!(net.paid(&sent), Paid::Fulfilled);
}
