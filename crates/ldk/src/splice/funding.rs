// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! What LDK broadcasts, for the payment records of splices.

use leyden_splice::funding::{Candidate, Share};
use lightning::chain::chaininterface::TransactionType;
use lightning::ln::funding::FundingContribution;
use lightning::ln::types::ChannelId;

/// The channel and the candidates of a splice that is broadcast, for
/// [`Fundings::broadcast`](leyden_splice::funding::Fundings::broadcast); `None` for any other
/// transaction. LDK broadcasts a zero-conf splice again as a plain
/// [`Funding`](TransactionType::Funding): that adds nothing, and the wallet finds it by its txid.
pub fn splice_candidates(kind: &TransactionType) -> Option<(ChannelId, Vec<Candidate>)> {
	let TransactionType::InteractiveFunding { candidates } = kind else { return None };
	let channel = candidates.last()?.channels.first()?.channel_id;
	let candidates = candidates.iter().map(|candidate| {
		let ours = candidate.channels.iter().find(|c| c.channel_id == channel);
		let contribution = ours.and_then(|funding| funding.contribution.as_ref());
		Candidate { txid: candidate.txid, share: contribution.map(share) }
	});
	Some((channel, candidates.collect()))
}

fn share(contribution: &FundingContribution) -> Share {
	Share {
		net_sat: contribution.net_value().to_sat(),
		fee_sat: contribution.estimated_fee().to_sat(),
	}
}
