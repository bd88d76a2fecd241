// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What LDK shows of a channel, as far as the law needs it.

use bitcoin::{OutPoint, Txid};

use crate::parts::Material;

/// A channel as LDK lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChannelView {
	/// What it is funded by now.
	pub funding: OutPoint,
	/// Whether a close was begun.
	pub closing: bool,
	/// The rounds of the splice that is pending, oldest first.
	pub rounds: Vec<Round>,
	/// Whether one of them is confirmed, or the peer has locked one: no more can be begun.
	pub decided: bool,
}

/// A round of negotiation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Round {
	/// What we put in; `None` in a round of the peer's alone.
	pub ours: Option<OurPart>,
	/// How far it is.
	pub stage: Stage,
}

/// What we put into a round.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OurPart {
	/// What it is.
	pub material: Material,
	/// What it pays, in satoshi per 1000 weight units.
	pub sat_per_kw: u64,
}

/// How far a round is. Only the last two survive a restart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stage {
	/// Waits for the channel to become quiet, or for the peer to be there.
	Queued,
	/// Waits for an earlier splice to lock.
	BehindLock,
	/// The peer has been told.
	Negotiating,
	/// The transaction is complete, and not signed by both.
	Signing(Txid),
	/// Signed by both, and broadcast.
	Negotiated(Txid),
}

impl Stage {
	/// The transaction, if there is one.
	pub fn txid(self) -> Option<Txid> {
		match self {
			Self::Signing(txid) | Self::Negotiated(txid) => Some(txid),
			_ => None,
		}
	}
}

/// The state of a contribution's inputs: whether another transaction of its splice can spend them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum InputStatus {
	/// The inputs are not spent, or only by candidates of the same splice: all candidates spend the
	/// funding, so no more than one of them can be confirmed.
	Unspent,
	/// At least one input is spent by another transaction, or is the output of a candidate.
	Spent,
}

/// The transaction that spends an output of the wallet, confirmed or waiting for a block.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Spender {
	/// The output can be spent.
	Nothing,
	/// This transaction spends the output.
	Transaction(Txid),
	/// The output cannot be spent, and the wallet does not know which transaction spends it.
	Unknown,
}

/// What is known of the transaction that spent the funding which the splice was to spend, if the
/// channel has another funding now. There may be more than one between the two.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum NewFunding {
	/// It is this one, and the splice is in it.
	IsTheSplice(Txid),
	/// The splice is not in it.
	IsNot,
	/// It was not found.
	Unknown,
}

/// What the chain has made of the transactions of a splice whose channel is gone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fate {
	/// This one is confirmed, too deep to be undone.
	Funded(Txid),
	/// What the splice was to spend is spent otherwise, too deep to be undone.
	Lost,
	/// Neither, so far; or nobody has asked.
	Open,
	/// There is nobody left to ask.
	Unknown,
}

/// Everything that is decided by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
	/// The channel; `None` if LDK has it no more.
	pub channel: Option<ChannelView>,
	/// The inputs of the contribution that would be handed to LDK next: the higher fee's, if one
	/// is wanted.
	pub coins: InputStatus,
	/// The new funding, if there is one.
	pub new_funding: NewFunding,
	/// What became of its transactions, if the channel is gone.
	pub fate: Fate,
	/// Whether no earlier splice of this channel is still going on.
	pub its_turn: bool,
}
