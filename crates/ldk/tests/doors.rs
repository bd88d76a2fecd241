//! The background processor reaches the chain monitor past the bus: what that must not do, on a real
//! node, with the flush on one thread and the release on another (L5).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use leyden_store::{
	Batch, Committed, MemoryMedium, MemoryStore, Namespace, Store, StoreError, Ticket,
};
use leyden_testkit::parts::NetLogger;
use leyden_testkit::{
	Guard, GuardFactory, Idx, LdkNet, LeydenGuard, MemKv, NodeConfig, NodeDisk, Wiring,
};

/// A store that can be told to stop at its next commit, until the node is dead.
struct Stoppable {
	inner: MemoryStore,
	stop: Mutex<Option<Stop>>,
}

struct Stop {
	/// Hears that a commit has come.
	came: Sender<()>,
	/// Ends when the node is dead.
	dead: Receiver<()>,
}

impl Store for Stoppable {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		if let Some(stop) = self.stop.lock().unwrap().take() {
			stop.came.send(()).unwrap();
			let _ = stop.dead.recv();
			let because = "the node died".to_owned();
			return Ticket::ready(Err(StoreError::Poisoned { because }));
		}
		self.inner.commit(batch)
	}

	leyden_testkit::forward_store!(inner);
}

struct Case {
	net: LdkNet,
	a: Idx,
	store: Arc<Mutex<Option<Arc<Stoppable>>>>,
}

/// `a` has paid `b`, who went on chain and claimed there; a's monitors have seen it, and a has an
/// update of that monitor queued, which only a flush persists.
fn on_chain(gate: bool, asynchronous: bool) -> Case {
	let medium = MemoryMedium::new();
	let store = Arc::<Mutex<Option<Arc<Stoppable>>>>::default();
	let newest = Arc::clone(&store);
	let guards: GuardFactory = Arc::new(move |_| -> Arc<dyn Guard> {
		let inner = MemoryStore::open(&medium, Namespace::default()).unwrap();
		let store = Arc::new(Stoppable { inner, stop: Mutex::new(None) });
		*newest.lock().unwrap() = Some(Arc::clone(&store));
		Arc::new(LeydenGuard::new(store, Wiring { gate, ..Wiring::default() }))
	});
	let mut net = LdkNet::new(1);
	let config = NodeConfig { asynchronous, ..NodeConfig::legacy().deferred() };
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let a = net.add_node_on(config, disk, guards);
	let b = net.add_node(NodeConfig::legacy());
	net.connect(a, b);
	let channel = net.open_channel(a, b, 1_000_000);
	let sent = net.pay(a, b, 30_000_000);
	assert!(net.persist_manager(a));
	net.set_auto_persist(a, false);
	// Queued, and not sent before it is flushed.
	net.pay(a, b, 10_000_000);
	net.disconnect_all(a);
	net.claim(sent.hash);
	net.pause(a);
	net.force_close(b, channel);
	let mut commitment = net.chain.mempool();
	let funding = commitment[0].input[0].previous_output;
	commitment.retain(|tx| tx.input[0].previous_output == funding);
	net.mine_txs(commitment);
	net.mine(1);
	// The background processor has written the manager, and is about to flush.
	let manager = net.node(a).encode_manager();
	assert!(net.node(a).guard().write_manager(net.disk(a), manager));
	let height = net.chain.height();
	net.node(a).feed_monitors(height);
	assert!(net.node(a).chain_monitor().pending_operation_count() > 0);
	Case { net, a, store }
}

/// A peer's thread takes what the monitors have, the background processor flushes, and the node dies
/// before the log has the events. Answers whether anything was taken.
fn flush_between_taken_and_logged(case: &mut Case) -> bool {
	let ((came, comes), (kill, dead)) = (channel(), channel());
	let store = case.store.lock().unwrap().take().unwrap();
	*store.stop.lock().unwrap() = Some(Stop { came, dead });
	let manager = Arc::clone(case.net.node(case.a).manager());
	let (done, drained) = channel();
	let peer = thread::spawn(move || {
		use lightning::ln::msgs::BaseMessageHandler;
		manager.get_and_clear_pending_msg_events();
		drop(store);
		done.send(()).unwrap();
	});
	// The thread ends if it takes nothing; otherwise it stops in the commit.
	let taken = loop {
		if comes.try_recv().is_ok() {
			break true;
		}
		if drained.try_recv().is_ok() {
			break false;
		}
		thread::yield_now();
	};
	let monitor = Arc::clone(case.net.node(case.a).chain_monitor());
	let logger = Arc::new(NetLogger::silent());
	monitor.flush(monitor.pending_operation_count(), &logger);
	case.net.node(case.a).run_tasks();
	case.net.disk(case.a).kill();
	drop(kill);
	peer.join().unwrap();
	drop(monitor);
	case.net.crash(case.a);
	taken
}

fn recovered(case: &mut Case) -> bool {
	let a = case.a;
	case.net.restart(a);
	for _ in 0..3 {
		case.net.node(a).process_events();
		let height = case.net.chain.height();
		case.net.node(a).feed_monitors(height);
	}
	case.net.channels(a).is_empty() && case.net.told(a, "PaymentSent") == 1
}

/// LDK's `ChainMonitor::new` with `Persist`, and `new_async_beta` with its asynchronous persister.
const SYNCHRONOUS_AND_ASYNCHRONOUS: [bool; 2] = [false, true];

#[test]
fn a_flush_does_not_persist_a_monitor_ahead_of_its_events() {
	for asynchronous in SYNCHRONOUS_AND_ASYNCHRONOUS {
		let mut case = on_chain(true, asynchronous);
		let taken = flush_between_taken_and_logged(&mut case);
		// The asynchronous store holds the write back until the log has what the thread has taken.
		assert_eq!(taken, asynchronous, "with Persist, only the thread that flushes takes");
		assert!(recovered(&mut case), "asynchronous: {asynchronous}");
	}
}

/// The negative control: the same without the guarded persister or store loses the close and the
/// claim.
#[test]
fn without_the_guarded_persister_a_flush_loses_events() {
	for asynchronous in SYNCHRONOUS_AND_ASYNCHRONOUS {
		let mut case = on_chain(false, asynchronous);
		assert!(flush_between_taken_and_logged(&mut case), "asynchronous: {asynchronous}");
		assert!(!recovered(&mut case), "asynchronous: {asynchronous}");
	}
}
