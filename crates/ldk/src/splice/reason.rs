// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! LDK's reasons.

use leyden_splice::FailureReason;
use lightning::events::NegotiationFailureReason;

pub(crate) fn failure_reason(reason: &NegotiationFailureReason) -> FailureReason {
	use NegotiationFailureReason as Ldk;
	match reason {
		Ldk::Unknown => FailureReason::Unknown,
		Ldk::PeerDisconnected => FailureReason::PeerDisconnected,
		Ldk::CounterpartyAborted { msg } => {
			FailureReason::CounterpartyAborted { message: FailureReason::message(&msg.0) }
		},
		Ldk::NegotiationError { msg } => {
			FailureReason::NegotiationError { message: FailureReason::message(msg) }
		},
		Ldk::ContributionInvalid => FailureReason::ContributionInvalid,
		Ldk::LocallyCanceled => FailureReason::LocallyCanceled,
		Ldk::ChannelClosing => FailureReason::ChannelClosing,
		Ldk::FeeRateTooLow => FailureReason::FeeRateTooLow,
		Ldk::CannotInitiateRbf => FailureReason::CannotInitiateRbf,
	}
}

#[cfg(test)]
mod tests {
	use leyden_splice::Remedy;
	use lightning::types::string::UntrustedString;

	use super::*;

	/// If LDK changes its mind about what can be tried again, we hear of it here.
	#[test]
	fn what_ldk_retries_we_retry() {
		use NegotiationFailureReason as Ldk;
		let text = "x".repeat(1000);
		let reasons = [
			Ldk::Unknown,
			Ldk::PeerDisconnected,
			Ldk::CounterpartyAborted { msg: UntrustedString(text.clone()) },
			Ldk::NegotiationError { msg: text },
			Ldk::ContributionInvalid,
			Ldk::LocallyCanceled,
			Ldk::ChannelClosing,
			Ldk::FeeRateTooLow,
			Ldk::CannotInitiateRbf,
		];
		for reason in reasons {
			let ours = failure_reason(&reason);
			assert_eq!(ours.remedy() != Remedy::GiveUp, reason.is_retriable(), "{reason:?}");
			assert!(ours.to_string().len() < 400, "what the peer says is cut");
		}
	}
}
