//! The guard's hooks, with the smallest guards that change anything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use leyden_testkit::cases::{run, Case, CaseSetup, Verdict};
use leyden_testkit::parts::{NetChainMonitor, NetWatch};
use leyden_testkit::{Guard, GuardFactory, LdkNet, MemKv, NodeConfig, NodeDisk, NodeHandle};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent};
use lightning::chain::transaction::OutPoint;
use lightning::chain::{ChannelMonitorUpdateStatus, Watch};
use lightning::events::{Event, ReplayEvent};
use lightning::ln::types::ChannelId;
use lightning::sign::InMemorySigner;

/// Tells the manager that a channel is closed before it tells it anything else about it.
struct CloseFirst;

struct CloseFirstWatch(Arc<NetChainMonitor>);

impl Guard for CloseFirst {
	fn watch(&self, inner: Arc<NetChainMonitor>) -> NetWatch {
		Arc::new(CloseFirstWatch(inner))
	}
}

impl Watch<InMemorySigner> for CloseFirstWatch {
	fn watch_channel(
		&self, id: ChannelId, monitor: ChannelMonitor<InMemorySigner>,
	) -> Result<ChannelMonitorUpdateStatus, ()> {
		self.0.watch_channel(id, monitor)
	}

	fn update_channel(
		&self, id: ChannelId, update: &ChannelMonitorUpdate,
	) -> ChannelMonitorUpdateStatus {
		self.0.update_channel(id, update)
	}

	fn release_pending_monitor_events(
		&self,
	) -> Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)> {
		let mut released = self.0.release_pending_monitor_events();
		for (_, _, events, _) in &mut released {
			if matches!(events.first(), Some(MonitorEvent::HTLCEvent(_))) {
				events.insert(0, MonitorEvent::CommitmentTxConfirmed(()));
			}
		}
		released
	}
}

#[test]
fn a_decorated_watch_changes_the_outcome() {
	let guards: GuardFactory = Arc::new(|_| Arc::new(CloseFirst));
	for case in [Case::G1, Case::N] {
		let outcome = run(case, &CaseSetup::guarded(1, guards.clone()), &mut |_| {});
		assert_eq!((outcome.panics(), outcome.verdict()), (0, Verdict::Recovered), "{case}");
	}
	// Without a memory it cannot give back what is gone.
	let outcome = run(Case::G3, &CaseSetup::guarded(1, guards), &mut |_| {});
	assert_eq!(outcome.verdict(), Verdict::Stuck);
}

/// Writes the manager before the user's handler of a success returns.
#[derive(Default)]
struct Barrier(Mutex<Option<NodeHandle>>);

impl Guard for Barrier {
	fn started(&self, node: &NodeHandle) {
		assert!(node.is_alive());
		*self.0.lock().unwrap() = Some(node.clone());
	}

	fn handle_event(
		&self, event: Event, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		let node = self.0.lock().unwrap().clone().expect("started");
		let sent = matches!(event, Event::PaymentSent { .. });
		handle(event)?;
		match !sent || node.persist_manager() {
			true => Ok(()),
			false => Err(ReplayEvent()),
		}
	}
}

#[test]
fn a_barrier_in_the_handler_changes_the_outcome() {
	let guards: GuardFactory = Arc::new(|_| Arc::new(Barrier::default()));
	let outcome = run(Case::K, &CaseSetup::guarded(1, guards), &mut |_| {});
	assert_eq!(outcome.verdict(), Verdict::Recovered);
	assert_eq!(outcome.told("PaymentFailed"), 0);
}

/// Writes down what it is asked.
#[derive(Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Guard for Recorder {
	fn started(&self, _: &NodeHandle) {
		self.0.lock().unwrap().push("started".to_owned());
	}

	fn write_manager(&self, disk: &Arc<NodeDisk>, bytes: Vec<u8>) -> bool {
		self.0.lock().unwrap().push("write".to_owned());
		disk.write_manager(bytes)
	}
}

#[test]
fn hooks_come_in_order_and_only_from_the_living() {
	let asked = Arc::new(Mutex::new(Vec::new()));
	let shared = Arc::clone(&asked);
	let guards: GuardFactory = Arc::new(move |_| Arc::new(Recorder(Arc::clone(&shared))));
	let mut net = LdkNet::new(1);
	let a = net.add_node_with(NodeConfig::default(), Arc::new(MemKv::new()), guards);
	net.persist_manager(a);
	net.disk(a).on_write(|_| leyden_testkit::Fate::DieAfter);
	assert!(!net.persist_manager(a));
	net.disk(a).clear_hook();
	let handle = net.node(a).handle();
	net.crash(a);
	assert!(!handle.is_alive() && handle.manager().is_none());
	net.restart(a);
	assert_eq!(*asked.lock().unwrap(), ["started", "write", "write", "started"]);
}
