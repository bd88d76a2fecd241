//! The chain monitor of a node: with a persister that answers in the call, or with LDK's
//! asynchronous one.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::secp256k1::PublicKey;
use bitcoin::Txid;
use leyden_ldk::{FundingMonitors, MonitorSet};
use leyden_splice::Fate;
use lightning::chain::chainmonitor::{AsyncPersister, ChainMonitor, LockedChannelMonitor};
use lightning::chain::channelmonitor::{
	Balance, ChannelMonitor, ChannelMonitorUpdate, MonitorEvent,
};
use lightning::chain::transaction::{OutPoint, TransactionData};
use lightning::chain::{BlockLocator, ChannelMonitorUpdateStatus, Filter, Listen, Watch};
use lightning::events::{EventHandler, EventsProvider};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::msgs::{BaseMessageHandler, MessageSendEvent};
use lightning::ln::types::ChannelId;
use lightning::sign::{InMemorySigner, KeysManager};
use lightning::util::persist::MonitorUpdatingPersisterAsync;

use crate::disk::NetMonitorStore;
use crate::parts::{Broadcaster, FixedFees, NetLogger, NetPersister};
use crate::tasks::Tasks;

/// LDK's chain monitor with this persister.
pub type ChainMonitorWith<P> = ChainMonitor<
	InMemorySigner,
	Arc<dyn Filter + Send + Sync>,
	Arc<Broadcaster>,
	Arc<FixedFees>,
	Arc<NetLogger>,
	P,
	Arc<KeysManager>,
>;

/// LDK's chain monitor, made with `ChainMonitor::new_async_beta`.
pub type AsyncChainMonitor = ChainMonitorWith<
	AsyncPersister<
		NetMonitorStore,
		Tasks,
		Arc<NetLogger>,
		Arc<KeysManager>,
		Arc<KeysManager>,
		Arc<Broadcaster>,
		Arc<FixedFees>,
	>,
>;

/// LDK's asynchronous persister of a node.
pub(crate) type NetPersisterAsync = MonitorUpdatingPersisterAsync<
	NetMonitorStore,
	Tasks,
	Arc<NetLogger>,
	Arc<KeysManager>,
	Arc<KeysManager>,
	Arc<Broadcaster>,
	Arc<FixedFees>,
>;

/// The chain monitor of every node.
pub enum NetChainMonitor {
	/// Made with `ChainMonitor::new`.
	Sync(Arc<ChainMonitorWith<NetPersister>>),
	/// Made with `ChainMonitor::new_async_beta`.
	Async(Arc<AsyncChainMonitor>),
}

macro_rules! inner {
	($self: expr, $inner: ident => $call: expr) => {
		match $self {
			NetChainMonitor::Sync($inner) => $call,
			NetChainMonitor::Async($inner) => $call,
		}
	};
}

/// LDK's methods, by their names and with their errors.
#[allow(clippy::result_unit_err)]
impl NetChainMonitor {
	/// Adds a monitor that was read from the disk.
	pub fn load_existing_monitor(
		&self, channel_id: ChannelId, monitor: ChannelMonitor<InMemorySigner>,
	) -> Result<ChannelMonitorUpdateStatus, ()> {
		inner!(self, inner => inner.load_existing_monitor(channel_id, monitor))
	}

	/// Returns a monitor.
	pub fn get_monitor(
		&self, channel_id: ChannelId,
	) -> Result<LockedChannelMonitor<'_, InMemorySigner>, ()> {
		inner!(self, inner => inner.get_monitor(channel_id))
	}

	/// Returns what the monitors may still claim.
	pub fn get_claimable_balances(&self, ignored: &[&ChannelDetails]) -> Vec<Balance> {
		inner!(self, inner => inner.get_claimable_balances(ignored))
	}

	/// Returns how many operations a deferred chain monitor has queued.
	pub fn pending_operation_count(&self) -> usize {
		inner!(self, inner => inner.pending_operation_count())
	}

	/// Does queued operations of a deferred chain monitor.
	pub fn flush(&self, count: usize, logger: &Arc<NetLogger>) {
		inner!(self, inner => inner.flush(count, logger));
	}

	/// Removes monitors that have nothing left to do, past everything that guards them.
	pub fn archive_fully_resolved_channel_monitors(&self) {
		inner!(self, inner => inner.archive_fully_resolved_channel_monitors());
	}

	/// Returns what the monitors have for peers.
	pub fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
		inner!(self, inner => inner.get_and_clear_pending_msg_events())
	}
}

impl EventsProvider for NetChainMonitor {
	fn process_pending_events<H: std::ops::Deref>(&self, handler: H)
	where
		H::Target: EventHandler,
	{
		inner!(self, inner => inner.process_pending_events(handler));
	}
}

impl MonitorSet for NetChainMonitor {
	fn monitors(&self) -> HashMap<ChannelId, bool> {
		inner!(self, inner => inner.monitors())
	}

	fn is_loaded(&self, channel_id: &ChannelId) -> bool {
		inner!(self, inner => inner.is_loaded(channel_id))
	}

	fn archive_fully_resolved_channel_monitors(&self) {
		NetChainMonitor::archive_fully_resolved_channel_monitors(self);
	}
}

impl FundingMonitors for NetChainMonitor {
	fn fate(&self, channel: &ChannelId, txids: &[Txid]) -> Fate {
		inner!(self, inner => inner.fate(channel, txids))
	}

	fn funding(&self, channel: &ChannelId) -> Option<Txid> {
		inner!(self, inner => inner.funding(channel))
	}
}

impl Watch<InMemorySigner> for NetChainMonitor {
	fn watch_channel(
		&self, channel_id: ChannelId, monitor: ChannelMonitor<InMemorySigner>,
	) -> Result<ChannelMonitorUpdateStatus, ()> {
		inner!(self, inner => inner.watch_channel(channel_id, monitor))
	}

	fn update_channel(
		&self, channel_id: ChannelId, update: &ChannelMonitorUpdate,
	) -> ChannelMonitorUpdateStatus {
		inner!(self, inner => inner.update_channel(channel_id, update))
	}

	fn release_pending_monitor_events(
		&self,
	) -> Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)> {
		inner!(self, inner => inner.release_pending_monitor_events())
	}
}

impl Listen for NetChainMonitor {
	fn filtered_block_connected(&self, header: &Header, txdata: &TransactionData, height: u32) {
		inner!(self, inner => inner.filtered_block_connected(header, txdata, height));
	}

	fn blocks_disconnected(&self, fork_point: BlockLocator) {
		inner!(self, inner => inner.blocks_disconnected(fork_point));
	}
}
