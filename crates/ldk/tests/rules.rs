//! The bus's rules on real nodes: what each prevents, and what happens without it. The letters are
//! those of the crash cases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use leyden_ldk::MONITOR_STREAM;
use leyden_log::LogReader;
use leyden_store::{MemoryMedium, MemoryStore, Namespace, Store};
use leyden_testkit::cases::{run, Case, CaseSetup, Outcome, Verdict};
use leyden_testkit::leyden_guard::NetBus;
use leyden_testkit::parts::{NetChainMonitor, NetPersister, NetWatch};
use leyden_testkit::{
	Guard, GuardFactory, Idx, LdkNet, LeydenGuard, MemKv, NodeConfig, NodeDisk, NodeHandle, Wiring,
};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent};
use lightning::chain::transaction::OutPoint;
use lightning::chain::{ChannelMonitorUpdateStatus, Listen, Watch};
use lightning::events::{Event, ReplayEvent};
use lightning::ln::types::ChannelId;
use lightning::sign::InMemorySigner;

/// What is done differently from what Leyden does.
#[derive(Clone, Copy, Default)]
struct Tweak {
	/// Ack as soon as an event is handed out (upstream's points, done from outside).
	ack_all_at_once: bool,
	/// Ack closes as soon as they are handed out, and nothing else.
	ack_closes_at_once: bool,
	/// In later lives, take the closes out that the manager is to hear of first.
	drop_closes: bool,
	/// Do not tell of durable managers, so that nothing is acked.
	never_settle: bool,
	/// Without the barrier, which would write the manager in the very moment that is looked at.
	no_barrier: bool,
}

struct Tweaked {
	guard: LeydenGuard,
	tweak: Tweak,
	life: u32,
}

struct TweakedWatch {
	watch: NetWatch,
	bus: Arc<NetBus>,
	tweak: Tweak,
	life: u32,
}

impl Watch<InMemorySigner> for TweakedWatch {
	fn watch_channel(
		&self, id: ChannelId, monitor: ChannelMonitor<InMemorySigner>,
	) -> Result<ChannelMonitorUpdateStatus, ()> {
		self.watch.watch_channel(id, monitor)
	}

	fn update_channel(
		&self, id: ChannelId, update: &ChannelMonitorUpdate,
	) -> ChannelMonitorUpdateStatus {
		self.watch.update_channel(id, update)
	}

	fn release_pending_monitor_events(
		&self,
	) -> Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)> {
		let mut released = self.watch.release_pending_monitor_events();
		for entry in self.bus.unacked(None, 1000).unwrap() {
			let close = entry.kind.is_some_and(|kind| kind.name() == "CommitmentTxConfirmed");
			if self.tweak.ack_all_at_once || (self.tweak.ack_closes_at_once && close) {
				self.bus.ack_monitor_event(entry.source).unwrap();
			}
		}
		if self.tweak.drop_closes && self.life > 1 {
			for (_, _, events, _) in &mut released {
				events.retain(|event| !matches!(event, MonitorEvent::CommitmentTxConfirmed(())));
			}
		}
		released
	}
}

impl Guard for Tweaked {
	fn persister(&self, disk: Arc<NodeDisk>) -> NetPersister {
		self.guard.persister(disk)
	}

	fn watch(&self, inner: Arc<NetChainMonitor>) -> NetWatch {
		let watch = self.guard.watch(inner);
		let bus = Arc::clone(self.guard.bus());
		Arc::new(TweakedWatch { watch, bus, tweak: self.tweak, life: self.life })
	}

	fn listen(&self, inner: Arc<NetChainMonitor>) -> Arc<dyn Listen + Send + Sync> {
		self.guard.listen(inner)
	}

	fn started(&self, node: &NodeHandle) {
		self.guard.started(node);
	}

	fn handle_event(
		&self, event: Event, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		self.guard.handle_event(event, handle)
	}

	fn write_manager(&self, disk: &Arc<NodeDisk>, bytes: Vec<u8>) -> bool {
		match self.tweak.never_settle {
			true => disk.write_manager(bytes),
			false => self.guard.write_manager(disk, bytes),
		}
	}
}

/// Guards on one medium.
struct Rig {
	medium: MemoryMedium,
	guards: GuardFactory,
}

fn rig(tweak: Tweak) -> Rig {
	let medium = MemoryMedium::new();
	let on = medium.clone();
	let wiring = Wiring { barrier: !tweak.no_barrier, ..Wiring::default() };
	let guards: GuardFactory = Arc::new(move |life| -> Arc<dyn Guard> {
		let store = MemoryStore::open(&on, Namespace::default()).unwrap();
		let guard = LeydenGuard::new(Arc::new(store) as Arc<dyn Store>, wiring);
		Arc::new(Tweaked { guard, tweak, life })
	});
	Rig { medium, guards }
}

fn with(case: Case, tweak: Tweak) -> Outcome {
	run(case, &CaseSetup::guarded(1, rig(tweak).guards), &mut |_| ())
}

/// O: acking at upstream's points loses everything; with Leyden's rule nothing is lost.
#[test]
fn o_acking_before_the_manager_is_durable_loses() {
	let ours = Tweak { no_barrier: true, ..Tweak::default() };
	let early = Tweak { ack_all_at_once: true, ..ours };
	for case in [Case::B, Case::G3] {
		let outcome = with(case, early);
		assert_eq!(outcome.verdict(), Verdict::Stuck, "{outcome:?}");
		assert_eq!(with(case, ours).verdict(), Verdict::Recovered);
	}
}

/// D: a claim that is replayed into an open channel makes LDK panic at every start; that the
/// manager hears of the close first prevents it, even if the close itself was acked.
#[test]
fn d_a_claim_replayed_into_an_open_channel() {
	let acked = Tweak { ack_closes_at_once: true, no_barrier: true, ..Tweak::default() };
	let outcome = with(Case::G3, acked);
	assert_eq!(outcome.verdict(), Verdict::Recovered, "{outcome:?}");
	let without = Tweak { drop_closes: true, ..acked };
	let outcome = with(Case::G3, without);
	assert_eq!(outcome.verdict(), Verdict::CrashLoop, "{outcome:?}");
}

/// A net in which `a` has paid `b`, who went on chain and claimed there; `a` has not looked yet.
struct OnChain {
	net: LdkNet,
	a: Idx,
	rig: Rig,
	disk: Arc<NodeDisk>,
}

fn on_chain(tweak: Tweak, deferred: bool) -> OnChain {
	let rig = rig(tweak);
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let mut net = LdkNet::new(1);
	let config = if deferred { NodeConfig::legacy().deferred() } else { NodeConfig::legacy() };
	let a = net.add_node_on(config, Arc::clone(&disk), rig.guards.clone());
	let b = net.add_node(NodeConfig::legacy());
	net.connect(a, b);
	let channel = net.open_channel(a, b, 1_000_000);
	let sent = net.pay(a, b, 30_000_000);
	assert!(net.persist_manager(a));
	net.set_auto_persist(a, false);
	net.disconnect_all(a);
	net.claim(sent.hash);
	net.pause(a);
	net.force_close(b, channel);
	// The commitment first, alone; then the claim.
	let mut commitment = net.chain.mempool();
	let funding = commitment[0].input[0].previous_output;
	commitment.retain(|tx| tx.input[0].previous_output == funding);
	net.mine_txs(commitment);
	net.mine(1);
	OnChain { net, a, rig, disk }
}

impl OnChain {
	fn log(&self) -> LogReader {
		let store = MemoryStore::open(&self.rig.medium.snapshot(), Namespace::default()).unwrap();
		LogReader::new(Arc::new(store))
	}

	fn entries(&self) -> usize {
		self.log().entries(MONITOR_STREAM, None, 100).unwrap().len()
	}

	fn unacked(&self) -> usize {
		self.log().unacked(MONITOR_STREAM, leyden_ldk::MANAGER_CONSUMER, None, 100).unwrap().len()
	}
}

/// E: a claim whose monitor is gone makes LDK panic if it is replayed. It is quarantined, and kept.
#[test]
fn e_an_entry_of_an_archived_channel_is_quarantined() {
	let tweak = Tweak { never_settle: true, no_barrier: true, ..Tweak::default() };
	let mut case = on_chain(tweak, false);
	let a = case.a;
	case.net.sync(a);
	case.net.node(a).process_events();
	assert!(case.net.persist_manager(a));
	assert_eq!(case.unacked(), 2, "nobody told of the durable manager");
	case.net.crash(a);
	// Somebody archives the monitor behind the bus's back.
	let kv = case.disk.kv();
	for name in case.disk.monitors().into_keys() {
		kv.remove("monitors", "", &name, false).unwrap();
	}
	case.net.restart(a);
	case.net.node(a).process_events();
	assert_eq!(case.unacked(), 2, "not replayed, and not lost");
	assert!(case.net.channels(a).is_empty());
}

/// F: a monitor's older copy on disk still holds the events, or derives them again from the blocks.
/// Either way each is one entry, and the user hears of it once.
#[test]
fn f_an_event_that_is_derived_again_is_one_entry() {
	let mut case = on_chain(Tweak::default(), true);
	let a = case.a;
	let before = case.disk.snapshot();
	case.net.sync(a);
	case.net.node(a).drain();
	assert_eq!((case.entries(), case.unacked()), (2, 2));
	case.net.crash(a);
	// As old as before the blocks: everything comes from the log and from the blocks.
	case.disk.restore(before);
	case.net.restart(a);
	case.net.node(a).process_events();
	case.net.sync(a);
	case.net.node(a).process_events();
	assert_eq!(case.entries(), 2);
	assert_eq!(case.net.told(a, "PaymentSent"), 1);
	assert_eq!(case.net.told(a, "ChannelClosed"), 1);
}

/// The ack rule has one half and not two: a snapshot that holds the hand-out holds the user's event
/// as well, and LDK brings it until it is handled. This is also what the rule rests on: bytes that
/// were encoded after a hand-out hold all that was made of it.
#[test]
fn a_snapshot_with_an_unhandled_event_loses_nothing() {
	let mut case = on_chain(Tweak::default(), false);
	let a = case.a;
	case.net.sync(a);
	case.net.node(a).drain();
	assert_eq!(case.net.told(a, "PaymentSent"), 0);
	assert_eq!(case.unacked(), 2);
	// The background processor's writes lag by one.
	assert!(case.net.persist_manager(a));
	assert_eq!(case.unacked(), 2);
	assert!(case.net.persist_manager(a));
	assert_eq!(case.unacked(), 0, "acked, though the user knows nothing yet");
	case.net.crash(a);
	case.net.restart(a);
	case.net.node(a).process_events();
	assert_eq!(case.net.told(a, "PaymentSent"), 1);
	assert!(case.net.channels(a).is_empty());
}
