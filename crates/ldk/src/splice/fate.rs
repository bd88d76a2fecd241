// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! What became of a splice whose channel is gone: the channel's monitor knows.

use std::ops::Deref;

use bitcoin::Txid;
use leyden_splice::Fate;
use lightning::chain::chaininterface::{BroadcasterInterface, FeeEstimator};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ANTI_REORG_DELAY};
use lightning::chain::Filter;
use lightning::ln::types::ChannelId;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::EntropySource;
use lightning::util::logger::Logger;

/// Channel monitors that can be asked which transaction funded a channel in the end; LDK's
/// `ChainMonitor` is one.
pub trait FundingMonitors {
	/// What the chain has made of these transactions, which were to fund a channel that is gone.
	fn fate(&self, channel: &ChannelId, txids: &[Txid]) -> Fate;

	/// The transaction that funds a channel, as its monitor has it.
	fn funding(&self, channel: &ChannelId) -> Option<Txid>;
}

impl<S, C, T, F, L, P, ES> FundingMonitors for ChainMonitor<S, C, T, F, L, P, ES>
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
	fn fate(&self, channel: &ChannelId, txids: &[Txid]) -> Fate {
		self.get_monitor(*channel).map_or(Fate::Unknown, |monitor| fate(&monitor, txids))
	}

	fn funding(&self, channel: &ChannelId) -> Option<Txid> {
		self.get_monitor(*channel).ok().map(|monitor| monitor.get_funding_txo().txid)
	}
}

/// As one monitor sees it.
fn fate<S: EcdsaChannelSigner>(monitor: &ChannelMonitor<S>, txids: &[Txid]) -> Fate {
	let funding = monitor.get_funding_txo().txid;
	if txids.contains(&funding) {
		return Fate::Funded(funding);
	}
	// Of what was confirmed before the channel closed, LDK keeps the height and never makes it the
	// funding (lightning 0.3).
	let deep = (monitor.current_best_block().height + 1).saturating_sub(ANTI_REORG_DELAY);
	let confirmed = monitor.get_relevant_txids();
	let ours = confirmed.iter().find(|(txid, ..)| txids.contains(txid));
	match ours {
		Some((txid, height, _)) if *height <= deep => return Fate::Funded(*txid),
		Some(_) => return Fate::Open,
		None => {},
	}
	// It watches what may still fund the channel, until a commitment of the old funding is deep.
	let watched = monitor.get_outputs_to_watch();
	match watched.iter().any(|(txid, _)| txids.contains(txid)) {
		true => Fate::Open,
		false => Fate::Lost,
	}
}
