//! What survives a crash: the bytes on the disk and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use leyden_testkit::net::Paid;
use leyden_testkit::{Fate, LdkNet, MemKv, NodeConfig, NodeDisk, WriteKind};

fn configs() -> [NodeConfig; 4] {
	let (anchors, legacy) = (NodeConfig::anchors(), NodeConfig::legacy());
	[anchors.clone(), legacy.clone(), anchors.deferred(), legacy.deferred()]
}

fn pair(seed: u64, config: &NodeConfig) -> (LdkNet, usize, usize) {
	let mut net = LdkNet::new(seed);
	let a = net.add_node(config.clone());
	let b = net.add_node(config.clone());
	net.connect(a, b);
	net.open_channel(a, b, 1_000_000);
	(net, a, b)
}

#[test]
fn pays_on_after_restarts_of_both() {
	for config in configs() {
		let (mut net, a, b) = pair(1, &config);
		let held = net.pay(a, b, 10_000_000);
		for n in [a, b] {
			net.persist_manager(n);
			net.crash(n);
			assert!(!net.is_running(n));
			net.mine(2);
			net.restart(n);
			net.connect(a, b);
		}
		net.claim(held.hash);
		let sent = net.pay(a, b, 20_000_000);
		net.claim(sent.hash);
		assert_eq!(net.told(a, "PaymentSent"), 2);
		assert_eq!(net.life(a), 2);
		assert_eq!(net.channels(a).len(), 1);
	}
}

#[test]
fn an_old_manager_closes_the_channel_that_went_on_without_it() {
	let (mut net, a, b) = pair(2, &NodeConfig::default());
	net.persist_manager(a);
	let sent = net.pay(a, b, 10_000_000);
	net.claim(sent.hash);
	net.crash(a);
	net.restart(a);
	net.settle();
	assert!(net.channels(a).is_empty());
	assert_eq!(net.told_in(a, 2)[0], "ChannelClosed");
}

#[test]
fn snapshots_bring_a_disk_back() {
	let (mut net, a, b) = pair(3, &NodeConfig::default());
	net.persist_manager(a);
	let snapshot = net.disk(a).snapshot();
	let sent = net.pay(a, b, 10_000_000);
	net.fail(sent.hash);
	assert_ne!(net.disk(a).snapshot(), snapshot);
	net.crash(a);
	net.disk(a).restore(snapshot.clone());
	assert_eq!(net.disk(a).snapshot(), snapshot);
	net.restart(a);
	assert_eq!(net.channels(a).len(), 1);
}

#[test]
fn dying_before_and_after_every_write_of_a_payment() {
	for config in [NodeConfig::anchors(), NodeConfig::anchors().deferred()] {
		for fate in [Fate::DieBefore, Fate::DieAfter] {
			let mut died = 0;
			for k in 0.. {
				let (mut net, a, b) = pair(4, &config);
				net.persist_manager(a);
				let first = net.disk(a).writes();
				net.disk(a).on_write(
					move |write| {
						if write.earlier == first + k {
							fate
						} else {
							Fate::Live
						}
					},
				);
				let sent = net.pay(a, b, 10_000_000);
				if net.is_running(a) && net.told(b, "PaymentClaimable") == 1 {
					net.claim(sent.hash);
				}
				net.disk(a).clear_hook();
				if net.is_running(a) {
					break;
				}
				died += 1;
				let writes = net.disk(a).writes();
				assert_eq!(writes, first + k + u64::from(fate == Fate::DieAfter));
				assert!(net.revive(a) && !net.revive(a));
				assert!(net.connected(a, b));
				// LDK may tell it again after a restart, but only once in each.
				for life in [1, 2] {
					let told = net.told_in(a, life);
					assert!(told.iter().filter(|name| *name == "PaymentSent").count() <= 1);
				}
				if net.told(a, "PaymentSent") > 0 {
					assert_eq!(net.told(a, "PaymentFailed"), 0, "{k} {fate:?}");
				}
			}
			assert!(died > 2, "{died}");
		}
	}
}

#[test]
fn the_dead_reach_nobody() {
	let (mut net, a, b) = pair(5, &NodeConfig::default());
	let channel = net.channels(a)[0].channel_id;
	net.disk(a).kill();
	let (told, writes) = (net.ledger(a).len(), net.disk(a).writes());
	net.force_close(a, channel);
	net.node(a).process_events();
	assert!(!net.persist_manager(a));
	assert_eq!((net.ledger(a).len(), net.disk(a).writes()), (told, writes));
	assert!(net.chain.mempool().is_empty());
	assert_eq!(net.channels(b).len(), 1);
}

#[test]
fn writes_are_seen_and_counted() {
	let (mut net, a, b) = pair(6, &NodeConfig::default());
	let (monitors, managers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
	let seen = (Arc::clone(&monitors), Arc::clone(&managers));
	net.disk(a).on_write(move |write| {
		let counter = if write.kind == WriteKind::Manager { &seen.1 } else { &seen.0 };
		counter.fetch_add(1, Ordering::SeqCst);
		Fate::Live
	});
	let before = (net.disk(a).monitor_writes(), net.disk(a).manager_writes());
	let sent = net.pay(a, b, 10_000_000);
	net.claim(sent.hash);
	net.persist_manager(a);
	let after = (net.disk(a).monitor_writes(), net.disk(a).manager_writes());
	assert_eq!(after.0 - before.0, monitors.load(Ordering::SeqCst));
	assert_eq!(after.1 - before.1, managers.load(Ordering::SeqCst));
	assert_eq!(managers.load(Ordering::SeqCst), 1);
	assert_eq!(net.paid(&sent), Paid::Fulfilled);
}

#[test]
fn a_kv_store_copies_and_restores() {
	let kv = Arc::new(MemKv::new());
	let disk = NodeDisk::new(kv.clone());
	assert_eq!(disk.manager(), None);
	disk.write_manager(vec![1]);
	let content = kv.snapshot();
	disk.write_manager(vec![2]);
	kv.restore(content);
	assert_eq!(disk.manager(), Some(vec![1]));
}
