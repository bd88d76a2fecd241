//! What stands between LDK and the node's disk and user, and what it gets to hold of the node.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use bitcoin::ScriptBuf;
use lightning::chain::Listen;
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channel_state::ChannelDetails;
use lightning::util::ser::Writeable;

use crate::disk::{MonitorDisk, NetMonitorStore, NodeDisk};
use crate::node::NodeCore;
use crate::parts::{NetChainMonitor, NetManager, NetPersister, NetWallet, NetWatch};
use crate::wallet::Wallet;

/// Makes the guard for each life of a node (the first is 1). What it keeps in memory must not
/// outlive the node; what it keeps on disk is its own affair.
pub type GuardFactory = Arc<dyn Fn(u32) -> Arc<dyn Guard> + Send + Sync>;

/// The layer between LDK and the node's disk and user: nothing ([`Bare`]), or the code under test.
///
/// One guard serves one life of one node. In order: [`persister`](Self::persister),
/// [`watch`](Self::watch) and [`listen`](Self::listen) before the manager is made or read,
/// [`started`](Self::started) once the monitors are loaded, and then the others as the node runs.
pub trait Guard: Send + Sync {
	/// Wraps the disk, for monitors; the chain monitor is given what this returns.
	fn persister(&self, disk: Arc<NodeDisk>) -> NetPersister {
		disk
	}

	/// Wraps the chain monitor; the manager is given what this returns.
	fn watch(&self, inner: Arc<NetChainMonitor>) -> NetWatch {
		inner
	}

	/// What blocks are fed to instead of the bare chain monitor. Blocks that a monitor missed while
	/// the node was down do not come this way: it gets them before it is loaded, as LDK asks for.
	fn listen(&self, inner: Arc<NetChainMonitor>) -> Arc<dyn Listen + Send + Sync> {
		inner
	}

	/// Called once, after the manager was read and the monitors were loaded, before anything runs.
	/// The handle may be kept; it does not keep the node alive.
	fn started(&self, node: &NodeHandle) {
		let _ = node;
	}

	/// The user's event handler. `handle` is the node's own handling: record that the user was
	/// told, then fund, sign, sweep. A guard that hands events out later can use
	/// [`NodeHandle::handle`].
	fn handle_event(
		&self, event: Event, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		handle(event)
	}

	/// Asks for a splice through what keeps splices; `None` if nothing does.
	fn splice(&self, channel: &ChannelDetails, asked: &Asked) -> Option<Result<(), String>> {
		let _ = (channel, asked);
		None
	}

	/// Returns `true` if the node is asked to stop, as its main task finds out by
	/// [`MonitorBus::stopped`](leyden_ldk::MonitorBus::stopped).
	fn is_stopped(&self) -> bool {
		false
	}

	/// A peer may be back, or a minute has passed: what waits for that is tried again.
	fn peer_connected(&self) {}

	/// Writes the manager's bytes, as the background processor does. Returns whether they are
	/// durable and the node lives to know it. In deferred mode the monitor operations that waited
	/// for it are flushed after this returns.
	fn write_manager(&self, disk: &Arc<NodeDisk>, bytes: Vec<u8>) -> bool {
		disk.write_manager(bytes)
	}

	/// Wraps the disk, for monitors of LDK's asynchronous persister; called in place of
	/// [`persister`](Self::persister).
	fn monitor_store(&self, disk: Arc<NodeDisk>) -> NetMonitorStore {
		NetMonitorStore::Bare(Arc::new(MonitorDisk::new(disk)))
	}

	/// Handles an event as [`handle_event`](Self::handle_event) does, for LDK's
	/// `process_events_async`.
	fn handle_event_async<'a>(
		&'a self, event: Event, node: &'a NodeHandle,
	) -> Pin<Box<dyn Future<Output = Result<(), ReplayEvent>> + Send + 'a>> {
		Box::pin(async move { self.handle_event(event, &mut |event| node.handle(event)) })
	}

	/// Writes the manager's bytes as [`write_manager`](Self::write_manager) does, for LDK's
	/// `process_events_async`.
	fn write_manager_async<'a>(
		&'a self, disk: &'a Arc<NodeDisk>, bytes: Vec<u8>,
	) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
		Box::pin(async move { self.write_manager(disk, bytes) })
	}
}

/// What a user asks of a channel.
#[derive(Clone, Debug)]
pub enum Asked {
	/// Pay this from it.
	Out {
		/// How much.
		sats: u64,
		/// Whom.
		script: ScriptBuf,
	},
	/// Put this into it.
	In {
		/// How much.
		sats: u64,
	},
	/// Raise the fee of the splice that is negotiated.
	Bump {
		/// To what, in satoshi per 1000 weight units.
		sat_per_kw: u64,
	},
}

/// LDK alone.
pub struct Bare;

impl Bare {
	/// A factory of nothing.
	pub fn factory() -> GuardFactory {
		Arc::new(|_| Arc::new(Bare))
	}
}

impl Guard for Bare {}

/// A node as its guard sees it. It does not keep the node alive: after a crash there is nothing
/// behind it, and every method says so.
#[derive(Clone)]
pub struct NodeHandle(pub(crate) Weak<NodeCore>);

impl NodeHandle {
	/// Whether the node runs: it exists and its disk has not died.
	pub fn is_alive(&self) -> bool {
		self.0.upgrade().is_some_and(|core| !core.disk.is_dead())
	}

	/// The manager.
	pub fn manager(&self) -> Option<Arc<NetManager>> {
		self.0.upgrade().map(|core| Arc::clone(&core.manager))
	}

	/// The bare chain monitor.
	pub fn chain_monitor(&self) -> Option<Arc<NetChainMonitor>> {
		self.0.upgrade().map(|core| Arc::clone(&core.chain_monitor))
	}

	/// The disk.
	pub fn disk(&self) -> Option<Arc<NodeDisk>> {
		self.0.upgrade().map(|core| Arc::clone(&core.disk))
	}

	/// The wallet.
	pub fn wallet(&self) -> Option<Arc<Wallet>> {
		self.0.upgrade().map(|core| Arc::clone(&core.wallet))
	}

	/// What selects coins of the wallet for LDK.
	pub fn coin_selection(&self) -> Option<Arc<NetWallet>> {
		self.0.upgrade().map(|core| Arc::clone(&core.coin_selection))
	}

	/// Has the node handle what events LDK has for it.
	pub fn process_events(&self) {
		if let Some(core) = self.0.upgrade() {
			core.process_events();
		}
	}

	/// The manager's bytes as of now. Writes nothing.
	pub fn encode_manager(&self) -> Option<Vec<u8>> {
		self.0.upgrade().map(|core| core.manager.encode())
	}

	/// Encodes the manager, has the guard write it, and in deferred mode flushes the monitor
	/// operations that waited. May be called from within an event handler, but not from
	/// what [`Guard::watch`] returned: the manager calls that with a lock held which encoding
	/// needs.
	///
	/// # Failure Behavior and Persistence
	///
	/// Returns whether the write is durable and the node lives to know it; if not, nothing was
	/// flushed.
	pub fn persist_manager(&self) -> bool {
		self.0.upgrade().is_some_and(|core| core.persist_manager())
	}

	/// The channels which the manager considers open.
	pub fn channels(&self) -> Vec<ChannelDetails> {
		self.0.upgrade().map_or_else(Vec::new, |core| core.manager.list_channels())
	}

	/// The node's own handling of an event, for guards that hand events out later than LDK did.
	pub fn handle(&self, event: Event) -> Result<(), ReplayEvent> {
		self.0.upgrade().map_or(Err(ReplayEvent()), |core| core.handle(event))
	}
}
