// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What makes an event *that* event.
//!
//! Ids are made of the few fields that LDK repeats when it brings an event again, never of the
//! whole encoding: optional fields come and go. Where those fields do not set one event apart from
//! another that may legitimately follow it (a payment that is tried again under its id fails again;
//! two HTLCs fail on the same channel), the identity is [`IdStrength::Weak`], and the journal tells
//! repeats from new events by other means (see [`Journal`](super::Journal)).

use bitcoin::hashes::{sha256, Hash};
use leyden_id::{Domain, EventId, IdBuilder, IdStrength, Lane};
use lightning::events::{Event, FundingInfo};
use lightning::ln::types::ChannelId;
use lightning::util::ser::Writeable;

use super::class::kind_of;

const DOMAIN: Domain = Domain::new("leyden/event", 1);

/// What is known of an event before it is written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
	/// The id of the logical event.
	pub id: EventId,
	/// What the id is worth.
	pub strength: IdStrength,
	/// What it must stay in order with.
	pub lane: Lane,
}

impl Identity {
	/// The identity of `event`.
	pub fn of(event: &Event) -> Self {
		let id = IdBuilder::new(DOMAIN, kind_of(event).name());
		match event {
			Event::PaymentClaimable { payment_id, payment_hash, receiving_channel_ids, .. } => {
				match payment_id {
					Some(payment) => strong(id.bytes(&payment.0), Lane::payment(payment_hash.0)),
					None => {
						let channels = receiving_channel_ids.iter().map(|(channel, _)| channel.0);
						let id = id.bytes(&payment_hash.0).unordered(channels);
						weak(id, Lane::payment(payment_hash.0))
					},
				}
			},
			Event::PaymentClaimed { payment_id, payment_hash, htlcs, .. } => match payment_id {
				Some(payment) => strong(id.bytes(&payment.0), Lane::payment(payment_hash.0)),
				None => {
					let htlcs = htlcs.iter().map(|htlc| htlc.channel_id.0);
					let id = id.bytes(&payment_hash.0).unordered(htlcs);
					weak(id, Lane::payment(payment_hash.0))
				},
			},
			Event::PaymentSent { payment_id, payment_hash, .. } => {
				let lane = Lane::payment(payment_id.map_or(payment_hash.0, |payment| payment.0));
				let hash = payment_hash.0;
				let id = id.optional(payment_id.as_ref().map(|p| p.0.as_slice())).bytes(&hash);
				if payment_id.is_some() {
					strong(id, lane)
				} else {
					weak(id, lane)
				}
			},
			// A payment that failed may be tried again under the same id, and fail again.
			Event::PaymentFailed { payment_id, .. } => {
				weak(id.bytes(&payment_id.0), Lane::payment(payment_id.0))
			},
			Event::PaymentPathSuccessful { payment_id, path, .. } => {
				weak(id.bytes(&payment_id.0).bytes(&digest(path)), Lane::payment(payment_id.0))
			},
			Event::PaymentPathFailed { payment_id, payment_hash, path, .. } => {
				let payment = payment_id.map_or(payment_hash.0, |payment| payment.0);
				weak(id.bytes(&payment).bytes(&digest(path)), Lane::payment(payment))
			},
			Event::ProbeSuccessful { payment_id, .. } | Event::ProbeFailed { payment_id, .. } => {
				strong(id.bytes(&payment_id.0), Lane::payment(payment_id.0))
			},
			Event::InvoiceReceived { payment_id, invoice, .. } => {
				let hash = invoice.payment_hash();
				strong(id.bytes(&payment_id.0).bytes(&hash.0), Lane::payment(payment_id.0))
			},
			Event::HTLCIntercepted { intercept_id, payment_hash, .. } => {
				strong(id.bytes(&intercept_id.0), Lane::payment(payment_hash.0))
			},
			Event::SpendableOutputs { outputs, channel_id, .. } => {
				let outpoints = outputs.iter().map(|output| output.spendable_outpoint().encode());
				strong(id.unordered(outpoints), channel_id.map_or(Lane::GLOBAL, |c| lane(&c)))
			},
			Event::PaymentForwarded { prev_htlcs, .. } => {
				let on = prev_htlcs.first().map_or(Lane::GLOBAL, |htlc| lane(&htlc.channel_id));
				let known = prev_htlcs.iter().all(|htlc| htlc.htlc_id.is_some());
				let id = id.unordered(prev_htlcs.iter().map(|htlc| {
					let number = htlc.htlc_id.unwrap_or(u64::MAX).to_be_bytes();
					[htlc.channel_id.0.as_slice(), number.as_slice()].concat()
				}));
				if known && !prev_htlcs.is_empty() {
					strong(id, on)
				} else {
					weak(id, on)
				}
			},
			Event::ChannelPending { channel_id, funding_txo, .. } => {
				strong(id.bytes(&channel_id.0).bytes(&funding_txo.encode()), lane(channel_id))
			},
			Event::ChannelReady { channel_id, funding_txo, .. } => {
				let funding = funding_txo.map(|outpoint| outpoint.encode());
				strong(id.bytes(&channel_id.0).optional(funding.as_deref()), lane(channel_id))
			},
			Event::ChannelClosed { channel_id, .. } => {
				strong(id.bytes(&channel_id.0), lane(channel_id))
			},
			Event::SpliceNegotiated { channel_id, new_funding_txo, .. } => {
				strong(id.bytes(&channel_id.0).bytes(&new_funding_txo.encode()), lane(channel_id))
			},
			// The same contribution may be tried again and fail again for the same reason.
			Event::SpliceNegotiationFailed { channel_id, reason, contribution, .. } => {
				let contribution = contribution.as_ref().map(|c| digest(c.contribution()));
				let id = id.bytes(&channel_id.0).bytes(&reason.encode());
				weak(id.optional(contribution.as_ref().map(|d| d.as_slice())), lane(channel_id))
			},
			Event::DiscardFunding { channel_id, funding_info } => {
				let id = id.bytes(&channel_id.0).bytes(&funding_info.encode());
				match funding_info {
					FundingInfo::Tx { .. } | FundingInfo::OutPoint { .. } => {
						strong(id, lane(channel_id))
					},
					// The same inputs may be contributed, and given back, more than once.
					FundingInfo::Contribution { .. } => weak(id, lane(channel_id)),
				}
			},
			Event::HTLCHandlingFailed { prev_channel_ids, failure_type, .. } => {
				let on = prev_channel_ids.first().map_or(Lane::GLOBAL, lane);
				let id = id.unordered(prev_channel_ids.iter().map(|channel| channel.0));
				weak(id.bytes(&failure_type.encode()), on)
			},
			// Not written down: they are answered at once, each time they come.
			Event::FundingGenerationReady { .. }
			| Event::FundingTxBroadcastSafe { .. }
			| Event::ConnectionNeeded { .. }
			| Event::OpenChannelRequest { .. }
			| Event::BumpTransaction(_)
			| Event::OnionMessageIntercepted { .. }
			| Event::OnionMessagePeerConnected { .. }
			| Event::PersistStaticInvoice { .. }
			| Event::StaticInvoiceRequested { .. }
			| Event::FundingTransactionReadyForSigning { .. } => {
				weak(id.bytes(&digest(event)), Lane::GLOBAL)
			},
		}
	}
}

fn strong(id: IdBuilder, lane: Lane) -> Identity {
	Identity { id: id.finish(), strength: IdStrength::Strong, lane }
}

fn weak(id: IdBuilder, lane: Lane) -> Identity {
	Identity { id: id.finish(), strength: IdStrength::Weak, lane }
}

fn lane(channel_id: &ChannelId) -> Lane {
	Lane::channel(leyden_id::ChannelId(channel_id.0))
}

fn digest(value: &impl Writeable) -> [u8; 32] {
	sha256::Hash::hash(&value.encode()).to_byte_array()
}
