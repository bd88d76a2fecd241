// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Compares the time that a channel's updates take while the monitor of another channel is being
//! persisted, with Leyden's bus in front of LDK's chain monitor and without. The medium of the other
//! channel's monitor takes 20 ms; all updates are those of real payments between two LDK nodes.

#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use leyden_bench::{is_test, ratios};
use leyden_ldk::NodeWiring;
use leyden_log::{EventLog, LogOptions};
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store, Timestamp};
use leyden_testkit::chain_monitor::ChainMonitorWith;
use leyden_testkit::parts::{Broadcaster, FixedFees, NetLogger, NetPersister};
use leyden_testkit::{Bare, Guard, GuardFactory, LdkNet, MemKv, NodeConfig, NodeDisk};
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BlockLocator, ChannelMonitorUpdateStatus, Watch};
use lightning::ln::types::ChannelId;
use lightning::sign::{InMemorySigner, KeysManager};
use lightning::util::persist::MonitorName;
use lightning::util::ser::{ReadableArgs, Writeable};

type Monitor = ChannelMonitor<InMemorySigner>;
type Update = (ChannelId, ChannelMonitorUpdate);

fn main() {
	/// Far more than are played before the other channel is done.
	const OVER_THE_SLOW_CHANNEL: usize = 20;
	let (rounds, payments) = if is_test() { (1, 2) } else { (11, 40) };
	let recording = Recording::of(payments, OVER_THE_SLOW_CHANNEL);
	for (releases, what) in [(false, "updates"), (true, "updates and releases of events")] {
		let mut leyden = || recording.play(true, releases);
		let mut ldk = || recording.play(false, releases);
		let ratio = ratios(rounds, &mut leyden, &mut ldk);
		ratio.print(&format!("{what} beside a slow monitor: Leyden / LDK"), "at least 0.91x");
	}
}

/// The monitors of a node with two channels, and their updates from then on.
struct Recording {
	keys: Arc<KeysManager>,
	monitors: [Vec<u8>; 2],
	/// The updates of the channel whose monitor is slow, and of the other one.
	updates: [Vec<Update>; 2],
	slow: ChannelId,
}

/// Keeps the updates of a node's monitors.
struct Recorder(Arc<Mutex<Vec<Update>>>);

impl Guard for Recorder {
	fn persister(&self, _: Arc<NodeDisk>) -> NetPersister {
		Arc::new(Self(Arc::clone(&self.0)))
	}
}

impl Persist<InMemorySigner> for Recorder {
	fn persist_new_channel(&self, _: MonitorName, _: &Monitor) -> ChannelMonitorUpdateStatus {
		ChannelMonitorUpdateStatus::Completed
	}

	fn update_persisted_channel(
		&self, _: MonitorName, update: Option<&ChannelMonitorUpdate>, monitor: &Monitor,
	) -> ChannelMonitorUpdateStatus {
		if let Some(update) = update {
			self.0.lock().expect("no panic").push((monitor.channel_id(), update.clone()));
		}
		ChannelMonitorUpdateStatus::Completed
	}

	fn archive_persisted_channel(&self, _: MonitorName) {}
}

impl Recording {
	/// Records so many payments over one channel, and so many over the one that will be slow.
	fn of(payments: usize, over_slow: usize) -> Self {
		let recorded = Arc::<Mutex<Vec<Update>>>::default();
		let keeps = Arc::clone(&recorded);
		let guards: GuardFactory = Arc::new(move |_| Arc::new(Recorder(Arc::clone(&keeps))));
		let mut net = LdkNet::new(1);
		let node = net.add_node_with(NodeConfig::anchors(), Arc::new(MemKv::new()), guards);
		let busy =
			net.add_node_with(NodeConfig::anchors(), Arc::new(MemKv::new()), Bare::factory());
		let peer = net.add_node(NodeConfig::anchors());
		net.connect(node, busy);
		net.connect(node, peer);
		let slow = net.open_channel(node, busy, 10_000_000);
		let other = net.open_channel(node, peer, 10_000_000);
		let chain_monitor = net.node(node).chain_monitor();
		let bytes = |id| chain_monitor.get_monitor(id).expect("an open channel").encode();
		let monitors = [slow, other].map(bytes);
		recorded.lock().expect("no panic").clear();
		for (to, payments) in [(busy, over_slow), (peer, payments)] {
			for _ in 0..payments {
				let sent = net.pay(node, to, 1_000_000);
				net.claim(sent.hash);
			}
		}
		let all = std::mem::take(&mut *recorded.lock().expect("no panic"));
		let (of_slow, others) = all.into_iter().partition(|(id, _)| *id == slow);
		let keys = Arc::clone(net.node(node).keys());
		Self { keys, monitors, updates: [of_slow, others], slow }
	}

	/// Plays the updates of both channels at the same time. Returns the updates per second of the
	/// channel that is not slow.
	fn play(&self, with_leyden: bool, releases: bool) -> f64 {
		let chain = LdkNet::new(1).chain;
		let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
		let medium = Arc::new(Medium { slow: self.slow, sleeps: AtomicBool::new(false) });
		let store: Arc<dyn Store> =
			Arc::new(MemoryStore::open(&MemoryMedium::new(), Namespace::default()).expect("opens"));
		let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
		let log = |stream: &str| {
			let (store, clock) = (Arc::clone(&store), Arc::<ManualClock>::clone(&clock));
			EventLog::open(store, stream, clock, LogOptions::default()).expect("opens")
		};
		let (monitor_log, event_log) = (log("monitor"), log("events"));
		let wiring = NodeWiring::new(monitor_log, event_log, Arc::new(NetLogger::silent()));
		let persister: NetPersister = match with_leyden {
			true => Arc::new(wiring.monitor_persister(Arc::clone(&medium))),
			false => Arc::<Medium>::clone(&medium),
		};
		let chain_monitor = Arc::new(ChainMonitorWith::new(
			None,
			Arc::new(Broadcaster::new(chain, disk)),
			Arc::new(NetLogger::silent()),
			Arc::new(FixedFees),
			persister,
			Arc::clone(&self.keys),
			lightning::sign::NodeSigner::get_peer_storage_key(&*self.keys),
			false,
		));
		for bytes in &self.monitors {
			let keys = (&*self.keys, &*self.keys);
			let read = <(BlockLocator, Monitor)>::read(&mut &bytes[..], keys);
			let monitor = read.expect("the bytes of a monitor").1;
			let id = monitor.channel_id();
			chain_monitor.load_existing_monitor(id, monitor).expect("loaded once");
		}
		medium.sleeps.store(true, Ordering::SeqCst);
		match with_leyden {
			true => {
				let bus = wiring.monitor_bus(Arc::clone(&chain_monitor)).expect("opens");
				self.update(&*bus, releases)
			},
			false => self.update(&*chain_monitor, releases),
		}
	}

	fn update(&self, watch: &(impl Watch<InMemorySigner> + Sync), releases: bool) -> f64 {
		let [of_slow, others] = &self.updates;
		let (begun, done) = (AtomicUsize::new(0), AtomicBool::new(false));
		let apply = |(id, update): &Update| {
			let status = watch.update_channel(*id, update);
			assert_eq!(status, ChannelMonitorUpdateStatus::Completed, "update of {id}");
		};
		thread::scope(|scope| {
			scope.spawn(|| {
				for update in of_slow.iter().take_while(|_| !done.load(Ordering::SeqCst)) {
					begun.fetch_add(1, Ordering::SeqCst);
					apply(update);
				}
			});
			while begun.load(Ordering::SeqCst) == 0 {
				thread::yield_now();
			}
			let start = Instant::now();
			for update in others {
				apply(update);
				if releases {
					black_box(watch.release_pending_monitor_events());
				}
			}
			let took = start.elapsed();
			assert!(
				begun.load(Ordering::SeqCst) < of_slow.len(),
				"the other channel is still busy"
			);
			done.store(true, Ordering::SeqCst);
			others.len() as f64 / took.as_secs_f64()
		})
	}
}

/// A medium on which the monitor of one channel takes long.
struct Medium {
	slow: ChannelId,
	sleeps: AtomicBool,
}

impl Persist<InMemorySigner> for Medium {
	fn persist_new_channel(&self, _: MonitorName, _: &Monitor) -> ChannelMonitorUpdateStatus {
		ChannelMonitorUpdateStatus::Completed
	}

	fn update_persisted_channel(
		&self, _: MonitorName, _: Option<&ChannelMonitorUpdate>, monitor: &Monitor,
	) -> ChannelMonitorUpdateStatus {
		if monitor.channel_id() == self.slow && self.sleeps.load(Ordering::SeqCst) {
			thread::sleep(Duration::from_millis(20));
		}
		black_box(monitor.encode());
		ChannelMonitorUpdateStatus::Completed
	}

	fn archive_persisted_channel(&self, _: MonitorName) {}
}
