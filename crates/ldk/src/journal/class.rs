// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which of LDK's events may be written down and handled later.

use leyden_id::{EventClass, EventKind};
use lightning::events::Event;

/// Classifies an event by what LDK does after the event handler answered `Ok`.
///
/// `PaymentClaimable`, `HTLCIntercepted` and `InvoiceReceived` are requests: the answer
/// (`claim_funds`, `forward_intercepted_htlc`, `send_payment_for_bolt12_invoice` and their likes)
/// lives in LDK's memory until the `ChannelManager` and its monitors are durable, and LDK brings
/// the event again after a restart for as long as its durable state has no answer (`read` of
/// `ChannelManager` in `channelmanager.rs` adds `HTLCIntercepted` for every pending intercepted
/// HTLC; claimable HTLCs are found again in the monitors). All other durable events are facts.
///
/// The match has no wildcard on purpose: an event that a newer LDK adds must be looked at before it
/// is written down or answered at once.
pub fn replay_class(event: &Event) -> EventClass {
	match event {
		Event::PaymentClaimable { .. }
		| Event::HTLCIntercepted { .. }
		| Event::InvoiceReceived { .. } => EventClass::Request,
		Event::PaymentClaimed { .. }
		| Event::PaymentSent { .. }
		| Event::PaymentFailed { .. }
		| Event::PaymentPathSuccessful { .. }
		| Event::PaymentPathFailed { .. }
		| Event::ProbeSuccessful { .. }
		| Event::ProbeFailed { .. }
		| Event::SpendableOutputs { .. }
		| Event::PaymentForwarded { .. }
		| Event::ChannelPending { .. }
		| Event::ChannelReady { .. }
		| Event::ChannelClosed { .. }
		| Event::SpliceNegotiated { .. }
		| Event::SpliceNegotiationFailed { .. }
		| Event::DiscardFunding { .. }
		| Event::HTLCHandlingFailed { .. } => EventClass::Durable,
		Event::FundingGenerationReady { .. }
		| Event::OpenChannelRequest { .. }
		| Event::OnionMessageIntercepted { .. }
		| Event::OnionMessagePeerConnected { .. } => EventClass::ReplayedInProcess,
		Event::BumpTransaction(_) | Event::FundingTransactionReadyForSigning { .. } => {
			EventClass::Regenerated
		},
		Event::ConnectionNeeded { .. } => EventClass::Ephemeral,
		Event::FundingTxBroadcastSafe { .. }
		| Event::PersistStaticInvoice { .. }
		| Event::StaticInvoiceRequested { .. } => EventClass::Unstated,
	}
}

/// Returns `true` for the kinds whose class is [`EventClass::Request`].
pub(crate) fn is_request(kind: &EventKind) -> bool {
	matches!(kind.name(), "PaymentClaimable" | "HTLCIntercepted" | "InvoiceReceived")
}

/// Returns the name of the event's variant.
pub fn kind_of(event: &Event) -> EventKind {
	// Checked when this is compiled.
	macro_rules! kind {
		($name:literal) => {
			const { EventKind::from_static($name) }
		};
	}
	match event {
		Event::FundingGenerationReady { .. } => kind!("FundingGenerationReady"),
		Event::FundingTxBroadcastSafe { .. } => kind!("FundingTxBroadcastSafe"),
		Event::PaymentClaimable { .. } => kind!("PaymentClaimable"),
		Event::PaymentClaimed { .. } => kind!("PaymentClaimed"),
		Event::ConnectionNeeded { .. } => kind!("ConnectionNeeded"),
		Event::InvoiceReceived { .. } => kind!("InvoiceReceived"),
		Event::PaymentSent { .. } => kind!("PaymentSent"),
		Event::PaymentFailed { .. } => kind!("PaymentFailed"),
		Event::PaymentPathSuccessful { .. } => kind!("PaymentPathSuccessful"),
		Event::PaymentPathFailed { .. } => kind!("PaymentPathFailed"),
		Event::ProbeSuccessful { .. } => kind!("ProbeSuccessful"),
		Event::ProbeFailed { .. } => kind!("ProbeFailed"),
		Event::HTLCIntercepted { .. } => kind!("HTLCIntercepted"),
		Event::SpendableOutputs { .. } => kind!("SpendableOutputs"),
		Event::PaymentForwarded { .. } => kind!("PaymentForwarded"),
		Event::ChannelPending { .. } => kind!("ChannelPending"),
		Event::ChannelReady { .. } => kind!("ChannelReady"),
		Event::ChannelClosed { .. } => kind!("ChannelClosed"),
		Event::SpliceNegotiated { .. } => kind!("SpliceNegotiated"),
		Event::SpliceNegotiationFailed { .. } => kind!("SpliceNegotiationFailed"),
		Event::DiscardFunding { .. } => kind!("DiscardFunding"),
		Event::OpenChannelRequest { .. } => kind!("OpenChannelRequest"),
		Event::HTLCHandlingFailed { .. } => kind!("HTLCHandlingFailed"),
		Event::BumpTransaction(_) => kind!("BumpTransaction"),
		Event::OnionMessageIntercepted { .. } => kind!("OnionMessageIntercepted"),
		Event::OnionMessagePeerConnected { .. } => kind!("OnionMessagePeerConnected"),
		Event::PersistStaticInvoice { .. } => kind!("PersistStaticInvoice"),
		Event::StaticInvoiceRequested { .. } => kind!("StaticInvoiceRequested"),
		Event::FundingTransactionReadyForSigning { .. } => {
			kind!("FundingTransactionReadyForSigning")
		},
	}
}

/// Returns `true` for events from which only a scorer learns: paths and probes. The journal leaves
/// them to the inline handler unless told otherwise.
pub(crate) fn is_for_the_scorer(event: &Event) -> bool {
	matches!(
		event,
		Event::PaymentPathSuccessful { .. }
			| Event::PaymentPathFailed { .. }
			| Event::ProbeSuccessful { .. }
			| Event::ProbeFailed { .. }
	)
}

/// Returns `true` for events whose rate is set by peers and that ask for nothing:
/// `HTLCHandlingFailed` comes for every HTLC that a routing node fails. The journal leaves them to
/// the inline handler unless told otherwise, since each is a flush and a record that peers would
/// cause at will.
pub(crate) fn is_paced_by_peers(event: &Event) -> bool {
	matches!(event, Event::HTLCHandlingFailed { .. })
}
