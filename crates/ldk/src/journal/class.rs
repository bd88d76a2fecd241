// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which of LDK's events may be written down and handled later.

use leyden_id::{EventClass, EventKind};
use lightning::events::Event;

/// What LDK's documentation of the variant says about bringing the event again.
///
/// The match has no wildcard on purpose: an event that a newer LDK adds must be looked at before it
/// is written down or answered at once.
pub fn class_of(event: &Event) -> EventClass {
	match event {
		Event::PaymentClaimable { .. }
		| Event::PaymentClaimed { .. }
		| Event::PaymentSent { .. }
		| Event::PaymentFailed { .. }
		| Event::PaymentPathSuccessful { .. }
		| Event::PaymentPathFailed { .. }
		| Event::ProbeSuccessful { .. }
		| Event::ProbeFailed { .. }
		| Event::InvoiceReceived { .. }
		| Event::HTLCIntercepted { .. }
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

/// The variant's name.
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

/// Whether only routing learns from it: paths and probes. Not journaled unless asked for; they go
/// to the inline handler.
pub(crate) fn is_scorer_food(event: &Event) -> bool {
	matches!(
		event,
		Event::PaymentPathSuccessful { .. }
			| Event::PaymentPathFailed { .. }
			| Event::ProbeSuccessful { .. }
			| Event::ProbeFailed { .. }
	)
}
