// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! The node below: what the keeper asks of it and hands to it.

use bitcoin::{OutPoint, Transaction, TxOut, Txid};

use crate::parts::{ChannelRef, Contribution, FeeBand};
use crate::probe::{ChannelView, Fate, Spender};
use crate::reason::FailureReason;

/// A node with its wallet. For LDK that is `leyden_ldk::LdkDriver`.
///
/// No method is called twice at a time by one keeper, except [`view`](SpliceDriver::view),
/// [`fate`](SpliceDriver::fate), [`last_funding`](SpliceDriver::last_funding) and
/// [`transaction`](SpliceDriver::transaction). [`build`](SpliceDriver::build) is called under no
/// lock of the keeper's, and while others are called: coins may take a while to be selected.
pub trait SpliceDriver: Send + Sync {
	/// The channel as the node lists it; `None` if it has it no more.
	fn view(&self, channel: &ChannelRef) -> Option<ChannelView>;

	/// A contribution for all of `want`, over nothing that was contributed before; for a bump, over
	/// what is negotiated.
	///
	/// # Errors
	/// Whether it makes sense to try again.
	fn build(
		&self, channel: &ChannelRef, want: &Want<'_>, band: FeeBand,
	) -> Result<Contribution, BuildError>;

	/// Hands a contribution to the node. It keeps nothing on disk of it before it is signed.
	///
	/// # Errors
	/// Why it was not taken.
	fn submit(&self, channel: &ChannelRef, contribution: &Contribution) -> Result<(), SubmitError>;

	/// Takes back what was handed in and is not signed yet.
	///
	/// # Errors
	/// If it is too late, or there is nothing.
	fn cancel(&self, channel: &ChannelRef) -> Result<(), NotCanceled>;

	/// Returns the transaction that spends an output of the wallet. A candidate of a splice spends
	/// the inputs of that splice, so the answer must not be "spent" alone.
	fn spender(&self, input: &OutPoint) -> Spender;

	/// A transaction of the wallet or of the chain, if it can be looked up. It tells whether a new
	/// funding is the splice; without it, a splice whose transaction was not known before it
	/// locked ends as [`OutcomeUnknown`](FailureReason::OutcomeUnknown).
	fn transaction(&self, txid: &Txid) -> Option<Transaction>;

	/// What the chain has made of these transactions, which were to fund a channel that is gone.
	/// Unlike the other methods, called by several threads at a time, and under no lock of the
	/// keeper's.
	fn fate(&self, channel: &ChannelRef, txids: &[Txid]) -> Fate;

	/// The transaction that funded a channel that is gone, if anybody knows. Called as
	/// [`fate`](SpliceDriver::fate) is, and [`transaction`](SpliceDriver::transaction) with it.
	fn last_funding(&self, channel: &ChannelRef) -> Option<Txid>;
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
	/// A splice-in of this much.
	In {
		/// In satoshi.
		amount_sat: u64,
		/// The contribution that is built anew, if its inputs can be spent. They are reserved, so
		/// the wallet's coin selection leaves them out; use them if it finds no others.
		reuse: Option<&'a [u8]>,
	},
	/// A splice-out of these.
	Out {
		/// What is paid.
		outputs: &'a [TxOut],
	},
	/// What is negotiated, at a higher fee.
	Bump,
}

/// Why there is no contribution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BuildError {
	/// There may be one later: the channel is busy, or is not ready.
	NotNow {
		/// What LDK says.
		message: String,
	},
	/// There will be none.
	Impossible(FailureReason),
}

/// Why a contribution was not taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SubmitError {
	/// The node has one already.
	AlreadyPending,
	/// There is no such channel, or it cannot be used.
	ChannelGone,
	/// It was refused. No event follows.
	Refused(FailureReason),
}

/// It is too late, or there was nothing to take back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotCanceled;
