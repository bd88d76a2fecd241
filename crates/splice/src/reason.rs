// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Why a splice, or a round of it, came to nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest message of the peer that is kept, in characters.
pub const MAX_MESSAGE_CHARS: usize = 256;

/// LDK's `NegotiationFailureReason`, and the reasons that only a record can know.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum FailureReason {
	/// LDK does not say.
	Unknown,
	/// The peer went away, or we restarted, before anything was signed.
	PeerDisconnected,
	/// The peer gave the round up.
	CounterpartyAborted {
		/// What it said. Not to be trusted.
		message: String,
	},
	/// The peer, or we, broke the protocol.
	NegotiationError {
		/// What LDK says.
		message: String,
	},
	/// The contribution no longer fits the channel.
	ContributionInvalid,
	/// The user canceled it.
	LocallyCanceled,
	/// The channel is being closed.
	ChannelClosing,
	/// A round in progress or a replacement wants a higher fee rate.
	FeeRateTooLow,
	/// It can no longer be replaced: a candidate is confirmed, or the peer has locked one.
	CannotInitiateRbf,
	/// The channel is closed.
	ChannelClosed,
	/// The wallet's coins were spent elsewhere, and no others may be taken.
	InputsSpent,
	/// The channel or the wallet has too little for it.
	NotEnoughFunds {
		/// What LDK or the wallet says.
		message: String,
	},
	/// There is no splice left whose fee could be raised.
	NothingToBump,
	/// The channel has a new funding, or is gone, and nothing tells whether the splice was made. It
	/// is not tried again: it might be paid twice. Look at the chain.
	OutcomeUnknown,
	/// It was not negotiated within its age limit.
	TooOld,
	/// Another transaction was confirmed in its place, too deep to be undone.
	ConflictConfirmed,
}

/// What may be done about a round that failed, once LDK shows that nothing of it is left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remedy {
	/// Hand the same in again. It counts as a failure only if the round had begun: a peer that is
	/// away, or a restart, is nobody's fault.
	Resubmit,
	/// Build it anew from what the user asked for.
	Rebuild,
	/// None.
	GiveUp,
}

impl FailureReason {
	/// What may be done about it. For LDK's reasons, `GiveUp` is where LDK's `is_retriable` says
	/// no.
	pub fn remedy(&self) -> Remedy {
		match self {
			Self::Unknown | Self::PeerDisconnected => Remedy::Resubmit,
			Self::ContributionInvalid | Self::FeeRateTooLow => Remedy::Rebuild,
			_ => Remedy::GiveUp,
		}
	}

	/// Cuts what the peer said to a size that fits a record.
	pub fn message(text: &str) -> String {
		text.chars().take(MAX_MESSAGE_CHARS).collect()
	}
}

impl fmt::Display for FailureReason {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Unknown => f.write_str("LDK gave no reason"),
			Self::PeerDisconnected => f.write_str("the peer went away before it was signed"),
			// Escaped: it comes from somebody else and goes to a terminal.
			Self::CounterpartyAborted { message } => {
				write!(f, "the peer aborted: {}", message.escape_debug())
			},
			Self::NegotiationError { message } => {
				write!(f, "the negotiation failed: {}", message.escape_debug())
			},
			Self::ContributionInvalid => f.write_str("it no longer fits the channel"),
			Self::LocallyCanceled => f.write_str("it was canceled"),
			Self::ChannelClosing => f.write_str("the channel is closing"),
			Self::FeeRateTooLow => f.write_str("its fee rate is too low"),
			Self::CannotInitiateRbf => f.write_str("it can no longer be replaced"),
			Self::ChannelClosed => f.write_str("the channel is closed"),
			Self::InputsSpent => f.write_str("its coins were spent elsewhere"),
			Self::NotEnoughFunds { message } => {
				write!(f, "there is not enough for it: {}", message.escape_debug())
			},
			Self::NothingToBump => f.write_str("there is no splice left to bump"),
			Self::OutcomeUnknown => f.write_str(
				"the channel has a new funding or is gone, and nothing tells whether the splice was \
				 made; it is not tried again, look at the chain",
			),
			Self::TooOld => f.write_str("it was not negotiated within its age limit"),
			Self::ConflictConfirmed => f.write_str("another transaction was confirmed instead"),
		}
	}
}
