//! One life of one node: from its disk's bytes to the moment it is dropped.

mod core;
mod start;

use std::sync::{Arc, Mutex, OnceLock};

use bitcoin::secp256k1::PublicKey;
use bitcoin::Transaction;
use lightning::chain::chaininterface::TransactionType;
use lightning::events::{Event, EventsProvider, ReplayEvent};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::RecentPaymentDetails;
use lightning::ln::msgs::{BaseMessageHandler, MessageSendEvent};
use lightning::sign::KeysManager;
use lightning::util::config::UserConfig;
use lightning::util::ser::Writeable;

use crate::background::{Background, Processor};
use crate::disk::NodeDisk;
use crate::guard::{Guard, NodeHandle};
use crate::onion_messages::NetMessenger;
use crate::parts::{NetBumper, NetChainMonitor, NetManager, NetWallet};
use crate::wallet::Wallet;

pub(crate) use self::core::NodeCore;
pub(crate) use start::wallet_key;
pub use start::NodeStart;

/// How a node is set up. The default has anchor channels, a classic chain monitor and 10 BTC.
#[derive(Clone)]
pub struct NodeConfig {
	/// LDK's own settings.
	pub user_config: UserConfig,
	/// Whether the chain monitor's operations wait for the manager's next persist.
	pub deferred: bool,
	/// Whether the chain monitor is made with `ChainMonitor::new_async_beta`: monitors are persisted
	/// by tasks, which run when the net settles.
	pub asynchronous: bool,
	/// The code that handles events, writes the manager, and processes forwards.
	pub processor: Processor,
	/// Whether outputs that channels leave behind are sent to the wallet.
	pub sweep: bool,
	/// Whether LDK's log is kept; see [`Node::log`].
	pub keep_log: bool,
	/// Whether inbound channels may be used before they are confirmed.
	pub zero_conf: bool,
	/// Paid to its wallet by the chain, in ten coins.
	pub funds_sats: u64,
}

impl Default for NodeConfig {
	fn default() -> Self {
		Self::anchors()
	}
}

impl NodeConfig {
	/// Channels whose commitments leave the fee to anchors.
	pub fn anchors() -> Self {
		let mut user_config = UserConfig::default();
		let handshake = &mut user_config.channel_handshake_config;
		handshake.negotiate_anchors_zero_fee_htlc_tx = true;
		handshake.announced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
		handshake.unannounced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
		user_config.accept_forwards_to_priv_channels = true;
		user_config.reject_inbound_splices = false;
		NodeConfig {
			user_config,
			deferred: false,
			asynchronous: false,
			processor: Processor::Net,
			sweep: true,
			keep_log: false,
			zero_conf: false,
			funds_sats: 1_000_000_000,
		}
	}

	/// Channels that pay their fees themselves (`static_remote_key`).
	pub fn legacy() -> Self {
		let mut config = Self::anchors();
		let handshake = &mut config.user_config.channel_handshake_config;
		handshake.negotiate_anchors_zero_fee_htlc_tx = false;
		config
	}

	/// The same for a node that trusts its peers to confirm what they fund.
	pub fn zero_conf(mut self) -> Self {
		self.zero_conf = true;
		self
	}

	/// The same with an asynchronous chain monitor.
	pub fn asynchronous(mut self) -> Self {
		self.asynchronous = true;
		self
	}

	/// The same with LDK's own background processor.
	pub fn with_processor(mut self, processor: Processor) -> Self {
		self.processor = processor;
		self
	}

	/// The same with a deferred chain monitor.
	pub fn deferred(mut self) -> Self {
		self.deferred = true;
		self
	}
}

/// An event that the user was told of. What the user knows survives the node.
#[derive(Clone, Debug)]
pub struct Told {
	/// The node's life in which it was told; the first is 1.
	pub life: u32,
	/// What was told.
	pub event: Event,
}

impl Told {
	/// The event's name, such as `PaymentSent`.
	pub fn name(&self) -> String {
		event_name(&self.event)
	}
}

/// What a user remembers, over all lives.
pub type Ledger = Arc<Mutex<Vec<Told>>>;

/// The name of an event's variant, such as `PaymentSent`.
pub fn event_name(event: &Event) -> String {
	let debug = format!("{event:?}");
	debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// A running node. Dropping it is a crash: only its disk is left.
pub struct Node {
	pub(crate) core: Arc<NodeCore>,
	/// LDK's background processor, once it runs.
	background: OnceLock<Background>,
}

impl Drop for Node {
	fn drop(&mut self) {
		drop(self.background.take());
		// A task that waits keeps the persister, and the persister keeps the tasks.
		self.core.tasks.clear();
	}
}

impl Node {
	/// The node's public key.
	pub fn id(&self) -> PublicKey {
		self.core.manager.get_our_node_id()
	}

	/// Which life this is; the first is 1.
	pub fn life(&self) -> u32 {
		self.core.life
	}

	/// What guards hold of it.
	pub fn handle(&self) -> NodeHandle {
		NodeHandle(Arc::downgrade(&self.core))
	}

	/// LDK's manager.
	pub fn manager(&self) -> &Arc<NetManager> {
		&self.core.manager
	}

	/// The keys.
	pub fn keys(&self) -> &Arc<KeysManager> {
		&self.core.keys
	}

	/// LDK's onion messenger.
	pub fn messenger(&self) -> &NetMessenger {
		&self.core.messenger
	}

	/// LDK's chain monitor, without what a guard put around it.
	pub fn chain_monitor(&self) -> &Arc<NetChainMonitor> {
		&self.core.chain_monitor
	}

	/// The disk.
	pub fn disk(&self) -> &Arc<NodeDisk> {
		&self.core.disk
	}

	/// The wallet.
	pub fn wallet(&self) -> &Arc<Wallet> {
		&self.core.wallet
	}

	/// The wallet as LDK's coin selection takes it, for splices.
	pub fn coin_selection(&self) -> &Arc<NetWallet> {
		&self.core.coin_selection
	}

	/// The guard of this life.
	pub fn guard(&self) -> &Arc<dyn Guard> {
		&self.core.guard
	}

	/// Everything broadcast in this life, oldest first, repeats included.
	pub fn broadcasts(&self) -> Vec<Transaction> {
		self.core.broadcaster.sent()
	}

	/// Broadcasts a transaction of the test's own.
	pub fn broadcast(&self, tx: Transaction) {
		self.core.broadcaster.broadcast(tx);
	}

	/// The last lines that LDK logged; empty unless [`NodeConfig::keep_log`].
	pub fn log(&self) -> Vec<String> {
		self.core.logger.lines()
	}

	/// What LDK broadcast in this life, and as what.
	pub fn broadcast_kinds(&self) -> Vec<(Transaction, TransactionType)> {
		self.core.broadcaster.kinds()
	}

	/// The channels which the manager considers open.
	pub fn channels(&self) -> Vec<ChannelDetails> {
		self.core.manager.list_channels()
	}

	/// Outbound payments as the manager knows them.
	pub fn payments(&self) -> Vec<RecentPaymentDetails> {
		self.core.manager.list_recent_payments()
	}

	/// See [`NodeHandle::persist_manager`].
	pub fn persist_manager(&self) -> bool {
		self.core.persist_manager()
	}

	/// The manager's bytes as of now.
	pub fn encode_manager(&self) -> Vec<u8> {
		self.core.manager.encode()
	}

	/// Hands the events of the manager and of the chain monitor to the guard's handler. This also
	/// makes the manager take what the monitors have for it.
	pub fn process_events(&self) {
		self.core.process_events();
	}

	/// Makes the manager take what the monitors have for it, as a peer handler that looks for
	/// messages does, *without* handling any user event. Messages to peers are returned.
	pub fn drain(&self) -> Vec<MessageSendEvent> {
		let mut messages = self.core.manager.get_and_clear_pending_msg_events();
		messages.extend(self.core.chain_monitor.get_and_clear_pending_msg_events());
		messages
	}

	/// Lets tasks of an asynchronous persister run until none can go on.
	pub fn run_tasks(&self) {
		while self.core.tasks.run() {}
	}

	/// Lets tasks of the persister run, and LDK's background processor make one pass of its loop.
	/// Returns `true` if anything has come of it.
	pub(crate) fn turn(&self) -> bool {
		let before = self.progress();
		let has_run = self.core.tasks.run();
		let processor = self.core.config.processor;
		if processor.is_real() && !self.core.disk.is_dead() {
			let new = || Background::new(&self.core, processor);
			if self.background.get_or_init(new).turn(&self.core) {
				// It ends with an error, and the node with it.
				self.core.disk.kill();
			}
			if self.core.guard.is_stopped() {
				self.core.disk.kill();
			}
		}
		let has_run = has_run || self.core.tasks.has_running();
		has_run || self.progress() != before || self.manager().needs_pending_htlc_processing()
	}

	fn progress(&self) -> (usize, u64, usize) {
		let disk = &self.core.disk;
		let writes = match self.core.config.processor {
			// Its thread is woken by a call after which LDK writes the manager.
			Processor::Thread => disk.monitor_writes(),
			_ => disk.writes(),
		};
		let waiting = self.core.chain_monitor.pending_operation_count();
		(self.core.told.lock().unwrap().len(), writes, waiting)
	}

	/// Feeds the chain monitor, through the guard, up to `height`.
	pub fn feed_monitors(&self, height: u32) {
		self.core.feed_monitors(height);
	}

	/// Feeds the manager up to `height`.
	pub fn feed_manager(&self, height: u32) {
		self.core.feed_manager(height);
	}

	/// Up to which height the monitors were fed.
	pub fn monitors_height(&self) -> u32 {
		self.core.monitors_height()
	}
}
