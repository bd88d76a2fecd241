// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The identity of an event: what its id is made of, and what proves that LDK brings the event
//! again.
//!
//! Ids are made of the few fields that LDK repeats when it brings an event again, never of the
//! whole encoding, since optional fields come and go.
//!
//! # Who chooses the fields
//! An id is [`IdStrength::Strong`] only if its fields are unique for ever and chosen by LDK or by
//! the chain. Fields that a counterparty chooses (a temporary channel id, the funding outpoint that
//! an opener names), and fields that a user may use again (a payment id, a payment hash), make the
//! id [`IdStrength::Weak`]: two different events may have the same fields, and taking the second
//! for a repeat of the first would lose it. `docs/event-ids.md` has the table: each kind, what its
//! id is made of, who chooses that, and since when it is unique.
//!
//! # Weak ids
//! For a weak id the journal asks LDK's durable `ChannelManager` whether LDK can bring the earlier
//! event again (see [`ReplayEvidence`]). If it can, the same fields are the same event; otherwise
//! they are another one. In doubt there are two entries, never none.

use bitcoin::hashes::{sha256, Hash};
use leyden_id::{Domain, EventId, IdBuilder, IdStrength, Lane};
use lightning::events::{Event, FundingInfo};
use lightning::ln::types::ChannelId;
use lightning::util::ser::Writeable;

use super::class::kind_of;
use crate::compat;

const DOMAIN: Domain = Domain::new("leyden/event", 2);

/// The identity of an event before it is written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EventIdentity {
	/// The id of the logical event.
	pub id: EventId,
	/// Strong if the id alone sets the event apart from all others.
	pub strength: IdStrength,
	/// The lane of the event, in which deliveries stay in order.
	pub lane: Lane,
	/// The proof, in the bytes of a manager, that LDK can bring the event again.
	pub(crate) evidence: ReplayEvidence,
}

/// The proof, in the bytes of the durable `ChannelManager`, that LDK can bring a weak event again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ReplayEvidence {
	/// The event itself, which LDK writes into the manager's queue verbatim until it was handled.
	Queued,
	/// The event itself; or, for an event that was handed out after the manager was encoded, the
	/// payment of this id: LDK tells of its end once more.
	QueuedOrPayment([u8; 32]),
	/// The event itself; or, for an event that was handed out after the manager was encoded, the
	/// channel of this id.
	QueuedOrChannel([u8; 32]),
	/// No proof: LDK also writes events into the manager that were never handed out
	/// (`on_restart_splice_failures`), so that the bytes do not prove that it was this one.
	None,
}

impl EventIdentity {
	/// Returns the identity of `event`.
	pub fn of(event: &Event) -> Self {
		let id = IdBuilder::new(DOMAIN, kind_of(event).name());
		match event {
			Event::PaymentClaimable { payment_id, payment_hash, receiving_channel_ids, .. } => {
				let lane = Lane::payment(payment_hash.0);
				match payment_id {
					Some(payment) => strong(id.bytes(&payment.0), lane),
					None => {
						let channels = receiving_channel_ids.iter().map(|(channel, _)| channel.0);
						weak(id.bytes(&payment_hash.0).unordered(channels), lane)
					},
				}
			},
			Event::PaymentClaimed { payment_id, payment_hash, htlcs, .. } => {
				let lane = Lane::payment(payment_hash.0);
				match payment_id {
					Some(payment) => strong(id.bytes(&payment.0), lane),
					None => {
						let htlcs = htlcs.iter().map(|htlc| htlc.channel_id.0);
						weak(id.bytes(&payment_hash.0).unordered(htlcs), lane)
					},
				}
			},
			// LDK forgets a payment some ticks after its end, and takes id and hash again.
			Event::PaymentSent { payment_id, payment_hash, .. } => {
				let payment = payment_id.map_or(payment_hash.0, |payment| payment.0);
				let id = id.optional(payment_id.as_ref().map(|p| p.0.as_slice()));
				of_payment(id.bytes(&payment_hash.0), payment)
			},
			// A payment that failed may be tried again under the same id, and fail again.
			Event::PaymentFailed { payment_id, .. } => {
				of_payment(id.bytes(&payment_id.0), payment_id.0)
			},
			Event::PaymentPathSuccessful { payment_id, path, .. } => {
				weak(id.bytes(&payment_id.0).bytes(&digest(path)), Lane::payment(payment_id.0))
			},
			Event::PaymentPathFailed { payment_id, payment_hash, path, .. } => {
				let payment = payment_id.map_or(payment_hash.0, |payment| payment.0);
				weak(id.bytes(&payment).bytes(&digest(path)), Lane::payment(payment))
			},
			// LDK draws the id of a probe at random.
			Event::ProbeSuccessful { payment_id, .. } | Event::ProbeFailed { payment_id, .. } => {
				strong(id.bytes(&payment_id.0), Lane::payment(payment_id.0))
			},
			// A request: whatever is taken for a repeat is delivered again.
			Event::InvoiceReceived { payment_id, invoice, .. } => {
				let hash = invoice.payment_hash();
				strong(id.bytes(&payment_id.0).bytes(&hash.0), Lane::payment(payment_id.0))
			},
			// Derived by LDK from channel, counterparty and HTLC id. A request, too.
			Event::HTLCIntercepted { intercept_id, payment_hash, .. } => {
				strong(id.bytes(&intercept_id.0), Lane::payment(payment_hash.0))
			},
			// Outpoints of confirmed transactions.
			Event::SpendableOutputs { outputs, channel_id, .. } => {
				let outpoints = outputs.iter().map(|output| output.spendable_outpoint().encode());
				strong(id.unordered(outpoints), channel_id.map_or(Lane::GLOBAL, |c| lane(&c)))
			},
			Event::PaymentForwarded { .. } => {
				let htlcs: Vec<_> = compat::forwarded_htlcs(event).collect();
				let on = htlcs.first().map_or(Lane::GLOBAL, |htlc| lane(&htlc.channel_id));
				let known = htlcs.iter().all(|htlc| htlc.htlc_id.is_some());
				let id = id.unordered(htlcs.iter().map(|htlc| {
					let number = htlc.htlc_id.unwrap_or(u64::MAX).to_be_bytes();
					let node = htlc.node_id.map(|node| node.serialize());
					let node = node.as_ref().map_or(&[][..], |node| node.as_slice());
					[htlc.channel_id.0.as_slice(), number.as_slice(), node].concat()
				}));
				if known && !htlcs.is_empty() {
					strong(id, on)
				} else {
					weak(id, on)
				}
			},
			// The opener names the funding outpoint, and may name one twice.
			Event::ChannelPending {
				channel_id,
				funding_txo,
				user_channel_id,
				counterparty_node_id,
				..
			} => {
				let id = id.bytes(&channel_id.0).bytes(&funding_txo.encode());
				let id = id.bytes(&counterparty_node_id.encode());
				of_channel(id.bytes(&user_channel_id.encode()), channel_id)
			},
			Event::ChannelReady {
				channel_id,
				funding_txo,
				user_channel_id,
				counterparty_node_id,
				..
			} => {
				let funding = funding_txo.map(|outpoint| outpoint.encode());
				let id = id.bytes(&channel_id.0).optional(funding.as_deref());
				let id = id.bytes(&counterparty_node_id.encode());
				of_channel(id.bytes(&user_channel_id.encode()), channel_id)
			},
			// A channel that was never funded has the temporary id that its opener chose, which may
			// be the id of another channel.
			Event::ChannelClosed {
				channel_id,
				user_channel_id,
				counterparty_node_id,
				channel_funding_txo,
				..
			} => {
				let counterparty = counterparty_node_id.map(|node| node.encode());
				let funding = channel_funding_txo.map(|outpoint| outpoint.encode());
				let id = id.bytes(&channel_id.0).bytes(&user_channel_id.encode());
				let id = id.optional(counterparty.as_deref()).optional(funding.as_deref());
				of_channel(id, channel_id)
			},
			Event::SpliceNegotiated { channel_id, new_funding_txo, .. } => {
				weak(id.bytes(&channel_id.0).bytes(&new_funding_txo.encode()), lane(channel_id))
			},
			// The same contribution may be tried again and fail again for the same reason.
			Event::SpliceNegotiationFailed { channel_id, reason, .. } => {
				let contribution = compat::failed_contribution(event).map(digest);
				let id = id.bytes(&channel_id.0).bytes(&reason.encode());
				let id = id.optional(contribution.as_ref().map(|d| d.as_slice()));
				unprovable(id, lane(channel_id))
			},
			Event::DiscardFunding { channel_id, funding_info } => {
				let id = id.bytes(&channel_id.0).bytes(&funding_info.encode());
				match funding_info {
					FundingInfo::Tx { .. } | FundingInfo::OutPoint { .. } => {
						weak(id, lane(channel_id))
					},
					// The same inputs may be contributed, and given back, more than once.
					FundingInfo::Contribution { .. } => unprovable(id, lane(channel_id)),
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

fn strong(id: IdBuilder, lane: Lane) -> EventIdentity {
	let evidence = ReplayEvidence::Queued;
	EventIdentity { id: id.finish(), strength: IdStrength::Strong, lane, evidence }
}

fn weak(id: IdBuilder, lane: Lane) -> EventIdentity {
	let evidence = ReplayEvidence::Queued;
	EventIdentity { id: id.finish(), strength: IdStrength::Weak, lane, evidence }
}

/// The identity of an event that comes again as long as LDK has the payment.
fn of_payment(id: IdBuilder, payment: [u8; 32]) -> EventIdentity {
	let evidence = ReplayEvidence::QueuedOrPayment(payment);
	EventIdentity { evidence, ..weak(id, Lane::payment(payment)) }
}

/// The identity of an event that comes again as long as the manager has the channel.
fn of_channel(id: IdBuilder, channel_id: &ChannelId) -> EventIdentity {
	let evidence = ReplayEvidence::QueuedOrChannel(channel_id.0);
	EventIdentity { evidence, ..weak(id, lane(channel_id)) }
}

fn unprovable(id: IdBuilder, lane: Lane) -> EventIdentity {
	EventIdentity { evidence: ReplayEvidence::None, ..weak(id, lane) }
}

fn lane(channel_id: &ChannelId) -> Lane {
	Lane::channel(leyden_id::ChannelId(channel_id.0))
}

fn digest(value: &impl Writeable) -> [u8; 32] {
	sha256::Hash::hash(&value.encode()).to_byte_array()
}
