// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! LDK as the law sees it. Public API only.

use std::ops::Deref;

use bitcoin::{Amount, FeeRate, OutPoint, Transaction, Txid};
use leyden_splice::{
	BuildError, ChannelRef, ChannelView, Contribution, FailureReason, Fate, FeeBand, Material,
	NotCanceled, OurPart, Round, Spender, SpliceDriver, Stage, SubmitError, Want,
};
use lightning::ln::channel_state::{
	ChannelDetails, ChannelShutdownState, SpliceCandidateDetails, SpliceCandidateStatus,
};
use lightning::ln::channelmanager::AChannelManager;
use lightning::ln::funding::{FundingContribution, FundingContributionError};
use lightning::ln::types::ChannelId;
use lightning::util::ser::{Readable, Writeable};
use lightning::util::wallet_utils::{CoinSelectionSourceSync, WalletSync};

use super::fate::FundingMonitors;
use super::own_coins::{OwnCoins, Silent};
use crate::compat;

/// What the driver asks the wallet and the chain.
pub trait SpliceWallet: Send + Sync {
	/// Whether this coin of the wallet can be spent: it is confirmed, or the wallet's own change,
	/// and nothing spends it.
	fn is_unspent(&self, coin: &OutPoint) -> bool;

	/// Returns the transaction that spends this coin of the wallet, confirmed or waiting for a
	/// block, if the wallet knows it.
	///
	/// A splice that is negotiated spends its own coins, and still may replace its transaction by
	/// one with a higher fee. Without an answer, coins that a negotiated transaction of the splice
	/// spends count as spent by that one; a higher fee is then also negotiated over coins that
	/// somebody else has spent, which helps nobody and harms nobody.
	fn spender(&self, coin: &OutPoint) -> Option<Txid> {
		let _ = coin;
		None
	}

	/// A transaction, if the wallet or the chain source has it. Without one, a splice whose
	/// transaction was never seen before it locked ends as `OutcomeUnknown`.
	fn transaction(&self, txid: &Txid) -> Option<Transaction> {
		let _ = txid;
		None
	}
}

impl<T: Deref + Send + Sync> SpliceWallet for T
where
	T::Target: SpliceWallet,
{
	fn is_unspent(&self, coin: &OutPoint) -> bool {
		self.deref().is_unspent(coin)
	}

	fn spender(&self, coin: &OutPoint) -> Option<Txid> {
		self.deref().spender(coin)
	}

	fn transaction(&self, txid: &Txid) -> Option<Transaction> {
		self.deref().transaction(txid)
	}
}

/// A `ChannelManager`, a `ChainMonitor` and a wallet, as a [`SpliceDriver`].
#[derive(Debug)]
pub struct LdkDriver<M, N, C, W> {
	manager: M,
	monitors: N,
	coins: C,
	wallet: W,
}

impl<M, N, C, W> LdkDriver<M, N, C, W> {
	/// `coins` selects the coins of a splice-in, and must leave out those that are
	/// [reserved](leyden_splice::Reservations).
	pub fn new(manager: M, monitors: N, coins: C, wallet: W) -> Self {
		Self { manager, monitors, coins, wallet }
	}
}

impl<M, N, C, W> LdkDriver<M, N, C, W>
where
	M: Deref,
	M::Target: AChannelManager,
{
	fn details(&self, channel: &ChannelRef) -> Option<ChannelDetails> {
		let channels = self.manager.get_cm().list_channels_with_counterparty(&channel.counterparty);
		channels.into_iter().find(|details| details.channel_id.0 == channel.channel_id.0)
	}
}

impl<M, N, C, W> SpliceDriver for LdkDriver<M, N, C, W>
where
	M: Deref + Send + Sync,
	M::Target: AChannelManager,
	N: Deref + Send + Sync,
	N::Target: FundingMonitors,
	C: Deref + Send + Sync,
	C::Target: CoinSelectionSourceSync,
	W: SpliceWallet,
{
	fn view(&self, channel: &ChannelRef) -> Option<ChannelView> {
		let details = self.details(channel)?;
		let splice = details.splice_details.as_ref();
		let decided = splice.is_some_and(|splice| {
			splice.confirmed_candidate.is_some() || splice.received_splice_locked_txid.is_some()
		});
		let rounds = splice.map(|splice| splice.candidates.iter().map(round).collect());
		Some(ChannelView {
			funding: details.funding_txo?.into_bitcoin_outpoint(),
			closing: details
				.channel_shutdown_state
				.is_some_and(|state| state != ChannelShutdownState::NotShuttingDown),
			rounds: rounds.unwrap_or_default(),
			decided,
		})
	}

	fn build(
		&self, channel: &ChannelRef, want: &Want<'_>, band: FeeBand,
	) -> Result<Contribution, BuildError> {
		let (id, peer) = (ChannelId(channel.channel_id.0), channel.counterparty);
		let template = match self.manager.get_cm().splice_channel(&id, &peer) {
			Ok(template) => template,
			Err(error) => {
				let message = FailureReason::message(&format!("{error:?}"));
				return Err(match self.is_busy(channel) {
					true => BuildError::NotNow { message },
					false => BuildError::Impossible(FailureReason::NegotiationError { message }),
				});
			},
		};
		let least = FeeRate::from_sat_per_kwu(band.min_sat_per_kw);
		let most = FeeRate::from_sat_per_kwu(band.max_sat_per_kw);
		let rate = template.min_rbf_feerate().map_or(least, |rbf| rbf.max(least));
		if rate > most {
			return Err(BuildError::Impossible(FailureReason::FeeRateTooLow));
		}
		// Never over what was contributed before, which would add to it: a splice-in that is built
		// anew would put in twice as much.
		let built = match want {
			Want::In { amount_sat, reuse } => {
				let amount = Amount::from_sat(*amount_sat);
				let own = OwnCoins::of(*reuse, &self.wallet).zip(Some(template.clone()));
				let built = template
					.without_prior_contribution(rate, most)
					.with_coin_selection_source_sync(&*self.coins)
					.add_value(amount)
					.and_then(|builder| builder.build());
				match (built, own) {
					(Err(FundingContributionError::CoinSelectionFailed), Some((own, again))) => {
						again
							.without_prior_contribution(rate, most)
							.with_coin_selection_source_sync(WalletSync::new(&own, Silent))
							.add_value(amount)
							.and_then(|builder| builder.build())
					},
					(built, _) => built,
				}
			},
			Want::Out { outputs } => template
				.without_prior_contribution(rate, most)
				.add_outputs(outputs.to_vec())
				.build(),
			Want::Bump => template.rbf_prior_contribution_sync(Some(rate), most, &*self.coins),
		};
		built.map(|built| contribution(&built)).map_err(|error| impossible(&error))
	}

	fn submit(&self, channel: &ChannelRef, contribution: &Contribution) -> Result<(), SubmitError> {
		let mut bytes = contribution.bytes.as_slice();
		let Ok(contribution) = FundingContribution::read(&mut bytes) else {
			// Written by another version of LDK: build it anew.
			return Err(SubmitError::Refused(FailureReason::ContributionInvalid));
		};
		let (id, peer) = (ChannelId(channel.channel_id.0), channel.counterparty);
		compat::hand_over(&*self.manager, &id, &peer, contribution)
	}

	fn cancel(&self, channel: &ChannelRef) -> Result<(), NotCanceled> {
		let (id, peer) = (ChannelId(channel.channel_id.0), channel.counterparty);
		let canceled = self.manager.get_cm().cancel_funding_contributed(&id, &peer);
		canceled.map_err(|_| NotCanceled)
	}

	fn spender(&self, input: &OutPoint) -> Spender {
		if self.wallet.is_unspent(input) {
			return Spender::Nothing;
		}
		self.wallet.spender(input).map_or(Spender::Unknown, Spender::Transaction)
	}

	fn transaction(&self, txid: &Txid) -> Option<Transaction> {
		self.wallet.transaction(txid)
	}

	fn fate(&self, channel: &ChannelRef, txids: &[Txid]) -> Fate {
		self.monitors.fate(&ChannelId(channel.channel_id.0), txids)
	}

	fn last_funding(&self, channel: &ChannelRef) -> Option<Txid> {
		self.monitors.funding(&ChannelId(channel.channel_id.0))
	}
}

impl<M, N, C, W> LdkDriver<M, N, C, W>
where
	M: Deref,
	M::Target: AChannelManager,
{
	/// Whether LDK may give a template later: the channel is not ready, or somebody negotiates.
	fn is_busy(&self, channel: &ChannelRef) -> bool {
		let Some(details) = self.details(channel) else { return false };
		let rounds = details.splice_details.iter().flat_map(|splice| &splice.candidates);
		let negotiating = rounds.map(round).any(|r| !matches!(r.stage, Stage::Negotiated(_)));
		!details.is_channel_ready || negotiating
	}
}

/// What a contribution brings.
pub(super) fn material(contribution: &FundingContribution) -> Material {
	let inputs = contribution.inputs().iter().map(|input| input.outpoint());
	Material::new(inputs, contribution.outputs().iter().cloned())
}

fn contribution(built: &FundingContribution) -> Contribution {
	Contribution {
		bytes: built.encode(),
		material: material(built),
		sat_per_kw: built.feerate().to_sat_per_kwu(),
	}
}

fn round(candidate: &SpliceCandidateDetails) -> Round {
	let ours = candidate.contribution.as_ref().map(|contribution| OurPart {
		material: material(contribution),
		sat_per_kw: contribution.feerate().to_sat_per_kwu(),
	});
	let stage = match candidate.status {
		SpliceCandidateStatus::WaitingOnQuiescence => Stage::Queued,
		SpliceCandidateStatus::WaitingOnLock => Stage::BehindLock,
		SpliceCandidateStatus::AwaitingAck { .. }
		| SpliceCandidateStatus::ConstructingTransaction { .. } => Stage::Negotiating,
		SpliceCandidateStatus::AwaitingSignatures { txid, .. } => Stage::Signing(txid),
		SpliceCandidateStatus::Negotiated { txid, .. } => Stage::Negotiated(txid),
	};
	Round { ours, stage }
}

fn impossible(error: &FundingContributionError) -> BuildError {
	use FundingContributionError as Ldk;
	let message = FailureReason::message(&error.to_string());
	BuildError::Impossible(match error {
		Ldk::FeeRateExceedsMaximum { .. } | Ldk::FeeRateBelowRbfMinimum { .. } => {
			FailureReason::FeeRateTooLow
		},
		Ldk::InvalidSpliceValue
		| Ldk::CoinSelectionFailed
		| Ldk::ManuallySelectedInputsInsufficient => FailureReason::NotEnoughFunds { message },
		Ldk::NotRbfScenario => FailureReason::NothingToBump,
		Ldk::PrevTxTooLarge | Ldk::MissingCoinSelectionSource => {
			FailureReason::NegotiationError { message }
		},
	})
}
