// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a node decides about an HTLC, and LDK's calls for it.

use std::fmt;
use std::ops::Deref;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::InboundHTLCStateDetails;
use lightning::ln::channelmanager::{AChannelManager, InterceptId};
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning::util::errors::APIError;

use super::record::Subject;

/// The resolution of an HTLC, or of the HTLCs of a payment.
#[derive(Clone, Copy, Eq, PartialEq)]
#[non_exhaustive]
pub enum HtlcResolution {
	/// `ChannelManager::claim_funds`, in answer to `PaymentClaimable`.
	Claim {
		/// The preimage of the payment.
		preimage: PaymentPreimage,
		/// The height at which LDK fails the payment back, as `PaymentClaimable` said.
		claim_deadline: Option<u32>,
	},
	/// `ChannelManager::fail_htlc_backwards`, in answer to `PaymentClaimable`.
	FailBackwards {
		/// The payment.
		payment_hash: PaymentHash,
	},
	/// `ChannelManager::forward_intercepted_htlc`, in answer to `HTLCIntercepted`.
	Forward {
		/// The HTLC.
		intercept_id: InterceptId,
		/// The channel to forward over. It may still be opening: LDK refuses until it is usable,
		/// and the HTLC is forwarded by a later [`apply`](crate::HtlcResolutions::apply).
		next_hop_channel_id: ChannelId,
		/// The node at the other end of that channel.
		next_node_id: PublicKey,
		/// The amount to forward, in millisatoshi.
		amt_to_forward_msat: u64,
	},
	/// `ChannelManager::fail_intercepted_htlc`, in answer to `HTLCIntercepted`.
	FailIntercepted {
		/// The HTLC.
		intercept_id: InterceptId,
	},
}

/// LDK's calls that resolve HTLCs. Every `ChannelManager` has them.
pub trait HtlcResolver {
	/// Gives the resolution to LDK.
	///
	/// # Errors
	/// LDK's, for a forward or a failure of an intercepted HTLC: `APIMisuseError` if LDK does not
	/// hold the HTLC any more, another if the channel to forward over is not usable.
	fn resolve(&self, resolution: &HtlcResolution) -> Result<(), APIError>;

	/// Returns `true` if LDK has an inbound HTLC of the payment that is neither being claimed nor
	/// being failed: LDK may bring `PaymentClaimable` for it.
	fn holds_payment(&self, payment_hash: &PaymentHash) -> bool;

	/// The height of the best block that LDK knows.
	fn best_height(&self) -> u32;
}

impl<M: Deref> HtlcResolver for M
where
	M::Target: AChannelManager,
{
	fn resolve(&self, resolution: &HtlcResolution) -> Result<(), APIError> {
		let manager = self.get_cm();
		match resolution {
			HtlcResolution::Claim { preimage, .. } => manager.claim_funds(*preimage),
			HtlcResolution::FailBackwards { payment_hash } => {
				manager.fail_htlc_backwards(payment_hash);
			},
			HtlcResolution::Forward {
				intercept_id,
				next_hop_channel_id,
				next_node_id,
				amt_to_forward_msat,
			} => {
				// LDK asks for the manager to be persisted even if it refuses: asked after every
				// write of the manager, it would never be done with writing.
				let channels = manager.list_channels_with_counterparty(next_node_id);
				let mut usable = channels.iter().filter(|channel| channel.is_usable);
				if !usable.any(|channel| channel.channel_id == *next_hop_channel_id) {
					let err = format!("channel {next_hop_channel_id} is not usable yet");
					return Err(APIError::ChannelUnavailable { err });
				}
				manager.forward_intercepted_htlc(
					*intercept_id,
					next_hop_channel_id,
					*next_node_id,
					*amt_to_forward_msat,
				)?;
			},
			HtlcResolution::FailIntercepted { intercept_id } => {
				manager.fail_intercepted_htlc(*intercept_id)?;
			},
		}
		Ok(())
	}

	fn holds_payment(&self, payment_hash: &PaymentHash) -> bool {
		use InboundHTLCStateDetails::{
			AwaitingRemoteRevokeToRemoveFail as Failing,
			AwaitingRemoteRevokeToRemoveFulfill as Claiming,
		};
		let channels = self.get_cm().list_channels();
		let mut htlcs = channels.iter().flat_map(|channel| &channel.pending_inbound_htlcs);
		htlcs.any(|htlc| {
			let is_being_removed = matches!(htlc.state, Some(Failing | Claiming));
			htlc.payment_hash == *payment_hash && !is_being_removed
		})
	}

	fn best_height(&self) -> u32 {
		self.get_cm().current_best_block().height
	}
}

impl HtlcResolution {
	/// This resolution, in the place of an earlier one of the same HTLC: a claim whose caller does not
	/// know the deadline does not lose the one that is known.
	pub(super) fn in_place_of(self, earlier: &Self) -> Self {
		match (self, earlier) {
			(
				Self::Claim { preimage, claim_deadline: None },
				Self::Claim { claim_deadline, .. },
			) => Self::Claim { preimage, claim_deadline: *claim_deadline },
			(resolution, _) => resolution,
		}
	}

	pub(super) fn subject(&self) -> Subject {
		match self {
			Self::Claim { preimage, .. } => {
				Subject::Payment(sha256::Hash::hash(&preimage.0).to_byte_array())
			},
			Self::FailBackwards { payment_hash } => Subject::Payment(payment_hash.0),
			Self::Forward { intercept_id, .. } | Self::FailIntercepted { intercept_id } => {
				Subject::Intercepted(intercept_id.0)
			},
		}
	}
}

/// Leaves the preimage out.
impl fmt::Debug for HtlcResolution {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Claim { claim_deadline, .. } => {
				let Subject::Payment(hash) = self.subject() else { return Ok(()) };
				let hash = PaymentHash(hash);
				write!(f, "Claim {{ {hash}, deadline {claim_deadline:?} }}")
			},
			Self::FailBackwards { payment_hash } => write!(f, "FailBackwards {{ {payment_hash} }}"),
			Self::Forward { intercept_id, next_hop_channel_id, amt_to_forward_msat, .. } => write!(
				f,
				"Forward {{ {intercept_id} over {next_hop_channel_id}, {amt_to_forward_msat} msat }}"
			),
			Self::FailIntercepted { intercept_id } => {
				write!(f, "FailIntercepted {{ {intercept_id} }}")
			},
		}
	}
}
