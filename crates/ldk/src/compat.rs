// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The places where revisions of LDK differ, so that building against another one changes this
//! file alone.
//!
//! Written for the published 0.3.0-rc3, which is newer than both others. `main` is revision
//! cfee4b7; 0.3.0-beta1 is revision 9174965.
//!
//! | place | 0.3.0-rc3 | `main` | 0.3.0-beta1 | here |
//! |---|---|---|---|---|
//! | error of `funding_contributed` | `SpliceContributionError` | `APIError`, the cause in words | as `main` | [`hand_over`] |
//! | `SpliceNegotiationFailed.contribution` | `FailedSpliceContribution` | `FundingContribution` | as `main` | [`failed_contribution`] |
//! | HTLCs of `PaymentForwarded` | `InboundHTLCLocator` with an HTLC id | `HTLCLocator` with an HTLC id | `HTLCLocator` without one | [`forwarded_htlcs`] |
//! | `Route.route_params` | `Option` | no `Option` | `Option` | `leyden-testkit`, `net/payments.rs` |
//!
//! Differences that the compiler does not show:
//! - A contribution that LDK refuses is answered with an error alone in 0.3.0-rc3. `main` and
//!   0.3.0-beta1 send `DiscardFunding` and `SpliceNegotiationFailed` later as well. `leyden-splice`
//!   counts the refusal once on all of them.
//! - `ChannelMonitor::get_relevant_txids` lists an alternative funding that is confirmed since the
//!   release candidates only. On the others a splice that locked while the node was away, and whose
//!   channel has closed since, ends by its age limit.
//! - A splice with a peer that stays away over restarts: 0.3.0-rc3 tells of it by
//!   `SpliceNegotiationFailed`, `main` tells nothing. Leyden hands it in again on both.
//! - Before the release candidates a higher fee that is queued begins a round of its own when the
//!   candidate before it locks. `SpliceKeeper` does not sign that round; still, offer no higher fee
//!   on anything older than 0.3.0-rc1.
//! - LDK 0.3.0-rc3 attaches an `EventCompletionAction` to `PaymentSent`, `PaymentFailed` and
//!   `PaymentClaimed` only ([`releases_monitor_update`]); look at its uses again in any other.

use bitcoin::secp256k1::PublicKey;
use leyden_splice::SubmitError;
use lightning::events::Event;
use lightning::ln::channelmanager::{AChannelManager, SpliceContributionError};
use lightning::ln::funding::FundingContribution;
use lightning::ln::types::ChannelId;

use crate::splice::failure_reason;

/// Hands a contribution to LDK, and tells why LDK does not take it.
///
/// Revisions with an `APIError`: `ChannelUnavailable` is [`SubmitError::ChannelGone`].
/// `APIMisuseError` tells by its text alone whether something is pending already; take any other
/// for [`SubmitError::Refused`] with `ContributionInvalid`, so that the contribution is built anew.
pub(crate) fn hand_over<M: AChannelManager + ?Sized>(
	manager: &M, channel: &ChannelId, counterparty: &PublicKey, contribution: FundingContribution,
) -> Result<(), SubmitError> {
	let taken = manager.get_cm().funding_contributed(channel, counterparty, contribution, None);
	taken.map_err(|error| match error {
		SpliceContributionError::ChannelUnavailable => SubmitError::ChannelGone,
		SpliceContributionError::ContributionPending => SubmitError::AlreadyPending,
		SpliceContributionError::NegotiationFailed { reason } => {
			SubmitError::Refused(failure_reason(&reason))
		},
	})
}

/// Returns the contribution that a `SpliceNegotiationFailed` is about; `None` if the event has none
/// or is another one.
///
/// Revisions in which the field is a `FundingContribution` return that field.
pub(crate) fn failed_contribution(event: &Event) -> Option<&FundingContribution> {
	let Event::SpliceNegotiationFailed { contribution, .. } = event else { return None };
	contribution.as_ref().map(|failed| failed.contribution())
}

/// Returns `true` for events for which LDK holds updates of monitors back until they were handled
/// (`EventCompletionAction` in `channelmanager.rs`). Such an update makes LDK forget what the event
/// was made from.
pub(crate) fn releases_monitor_update(event: &Event) -> bool {
	matches!(
		event,
		Event::PaymentSent { .. } | Event::PaymentFailed { .. } | Event::PaymentClaimed { .. }
	)
}

/// An HTLC that a `PaymentForwarded` is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ForwardedHtlc {
	/// The channel on which the HTLC was received.
	pub(crate) channel_id: ChannelId,
	/// The number of the HTLC in that channel; `None` if LDK does not say.
	pub(crate) htlc_id: Option<u64>,
	/// The node that the HTLC was received from; `None` if LDK does not say.
	pub(crate) node_id: Option<PublicKey>,
}

/// Returns the HTLCs on which the payment of a `PaymentForwarded` was received; none of any other
/// event.
///
/// The number is `None` where a locator has no `htlc_id`, and an identity made of it is weak.
pub(crate) fn forwarded_htlcs(event: &Event) -> impl Iterator<Item = ForwardedHtlc> + '_ {
	let htlcs = match event {
		Event::PaymentForwarded { prev_htlcs, .. } => prev_htlcs.as_slice(),
		_ => &[],
	};
	let htlc = |htlc: &lightning::events::InboundHTLCLocator| ForwardedHtlc {
		channel_id: htlc.channel_id,
		htlc_id: htlc.htlc_id,
		node_id: htlc.node_id,
	};
	htlcs.iter().map(htlc)
}

#[cfg(test)]
mod tests {
	use lightning::events::InboundHTLCLocator;

	use super::*;

	#[test]
	fn the_htlcs_of_a_forward_are_found_in_order() {
		let locator = |n: u8, htlc_id| InboundHTLCLocator {
			channel_id: ChannelId([n; 32]),
			htlc_id,
			amount_msat: None,
			user_channel_id: None,
			node_id: None,
		};
		let event = Event::PaymentForwarded {
			prev_htlcs: vec![locator(1, Some(7)), locator(2, None)],
			next_htlcs: Vec::new(),
			total_fee_earned_msat: None,
			skimmed_fee_msat: None,
			claim_from_onchain_tx: false,
			outbound_amount_forwarded_msat: 1,
		};
		let found: Vec<_> = forwarded_htlcs(&event).map(|h| (h.channel_id.0, h.htlc_id)).collect();
		assert_eq!(found, [([1; 32], Some(7)), ([2; 32], None)]);
		assert!(failed_contribution(&event).is_none());
	}
}
