// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What the bus asks of the chain monitor below it, and what it passes on to it.

use std::collections::HashMap;
use std::ops::Deref;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Txid};
use lightning::chain::chaininterface::{BroadcasterInterface, FeeEstimator};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Confirm, Filter, Listen};
use lightning::ln::types::ChannelId;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::EntropySource;
use lightning::util::logger::Logger;

use super::gate::Call;
use super::MonitorBus;

/// A set of channel monitors; LDK's `ChainMonitor` is one.
pub trait MonitorSet {
	/// Every loaded monitor, and whether updates of it are not persisted yet.
	fn monitors(&self) -> HashMap<ChannelId, bool>;

	/// Returns `true` if the monitor of this channel is loaded.
	fn is_loaded(&self, channel_id: &ChannelId) -> bool;

	/// Removes monitors that have nothing left to do.
	fn archive_fully_resolved_channel_monitors(&self);
}

impl<S, C, T, F, L, P, ES> MonitorSet for ChainMonitor<S, C, T, F, L, P, ES>
where
	S: EcdsaChannelSigner,
	C: Filter,
	T: BroadcasterInterface,
	F: FeeEstimator,
	L: Logger,
	P: Deref,
	P::Target: Persist<S>,
	ES: EntropySource,
{
	fn monitors(&self) -> HashMap<ChannelId, bool> {
		let pending = self.list_pending_monitor_updates();
		pending.into_iter().map(|(id, updates)| (id, !updates.is_empty())).collect()
	}

	fn is_loaded(&self, channel_id: &ChannelId) -> bool {
		self.get_monitor(*channel_id).is_ok()
	}

	fn archive_fully_resolved_channel_monitors(&self) {
		ChainMonitor::archive_fully_resolved_channel_monitors(self);
	}
}

/// Feed blocks to the bus and not to the chain monitor below it: a block may make the monitor
/// persist itself, which must not happen between taking its events and logging them.
impl<W: Deref> Listen for MonitorBus<W>
where
	W::Target: Listen,
{
	fn filtered_block_connected(&self, header: &Header, txdata: &TransactionData, height: u32) {
		self.pass_on(Call::Block, (), |inner, _| {
			inner.filtered_block_connected(header, txdata, height)
		});
	}

	fn block_connected(&self, block: &Block, height: u32) {
		self.pass_on(Call::Block, (), |inner, _| inner.block_connected(block, height));
	}

	fn blocks_disconnected(&self, fork_point_block: BlockLocator) {
		self.pass_on(Call::Block, (), |inner, _| inner.blocks_disconnected(fork_point_block));
	}
}

/// As for `Listen`.
impl<W: Deref> Confirm for MonitorBus<W>
where
	W::Target: Confirm,
{
	fn transactions_confirmed(&self, header: &Header, txdata: &TransactionData, height: u32) {
		self.pass_on(Call::Block, (), |inner, _| {
			inner.transactions_confirmed(header, txdata, height)
		});
	}

	fn transaction_unconfirmed(&self, txid: &Txid) {
		self.pass_on(Call::Block, (), |inner, _| inner.transaction_unconfirmed(txid));
	}

	fn best_block_updated(&self, header: &Header, height: u32) {
		self.pass_on(Call::Block, (), |inner, _| inner.best_block_updated(header, height));
	}

	fn get_relevant_txids(&self) -> Vec<(Txid, u32, Option<BlockHash>)> {
		// Reads only: nothing to keep apart.
		self.inner().get_relevant_txids()
	}
}
