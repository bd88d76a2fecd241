// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The node that pays, as far as a debt needs one: [`Payer`], what it is asked, and what it answers.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::PayoutError;
use crate::ids::{AttemptId, DebtId};
use crate::reply::Reply;

/// Longest token of a node, in bytes.
pub const MAX_TOKEN_BYTES: usize = 255;

/// A node that pays.
///
/// No call may block: an answer that takes time is a [`Reply::pair`]. A call that is not answered within
/// [`PayoutOptions::call_timeout`](crate::PayoutOptions) counts as not answered at all, which never
/// means no.
pub trait Payer: Send + Sync {
	/// Settles a payment that is held. The payer is asked until the answer is definite.
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<SettleReply>;

	/// Gives the token that the attempt is stored with before anything is sent, and by which it is
	/// [looked up](Payer::lookup) ever after.
	///
	/// A node that knows payments by their hash alone needs one: several attempts may have the same
	/// hash. LND's is the index of its newest payment (`payment_index`), so that a payment with a higher
	/// index is of this attempt or of a later one. A node that takes a name of its caller's for a
	/// payment needs none, which is the default.
	fn prepare(&self, order: &PayOrder) -> Reply<NodeToken> {
		let _ = order;
		Reply::ready(NodeToken::default())
	}

	/// Pays. Asked twice for the same [attempt](PayOrder::attempt), it must pay once.
	fn pay(&self, order: &PayOrder) -> Reply<PayReply>;

	/// Returns the status of an attempt. The status of an earlier attempt with the same payment hash is no
	/// answer: see [`token`](PayOrder::token). Without a token, when debts are compared with the node, it is
	/// asked for any payment with this hash, however old.
	fn lookup(&self, order: &PayOrder) -> Reply<AttemptStatus>;

	/// Lists the attempts to pay a debt that this node knows of. The payer is asked when an open debt is
	/// looked at for the first time after a start, since the store may be an old copy, and again when an
	/// operator has declared an attempt dead.
	fn list_attempts(&self, debt: &DebtId) -> Reply<KnownPayments> {
		let _ = debt;
		Reply::ready(KnownPayments::ByHashOnly)
	}
}

/// The opaque name of a moment or of a payment, as a node has it; up to [`MAX_TOKEN_BYTES`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeToken(Vec<u8>);

impl NodeToken {
	/// Wraps the bytes of a node's token.
	///
	/// # Errors
	/// [`PayoutError::OutOfRange`] for more than [`MAX_TOKEN_BYTES`].
	pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PayoutError> {
		let bytes = bytes.into();
		let length = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
		PayoutError::range("token", length(bytes.len()), 0, length(MAX_TOKEN_BYTES))?;
		Ok(Self(bytes))
	}

	/// Returns the bytes of the token; none for the default.
	pub fn as_bytes(&self) -> &[u8] {
		&self.0
	}
}

/// An order to pay, or to look up a payment.
#[derive(Clone, Eq, PartialEq)]
pub struct PayOrder {
	/// The debt that it is for.
	pub debt: DebtId,
	/// The attempt: the name to give the payment, if the node takes one.
	pub attempt: AttemptId,
	/// The number of the attempt, from 1 on.
	pub number: u32,
	/// The invoice; empty for an attempt that the node knew and the store did not.
	pub invoice: String,
	/// The payment hash of the invoice.
	pub payment_hash: [u8; 32],
	/// The amount to pay, in millisatoshi. An invoice without an amount is paid with this one.
	pub amount_msat: u64,
	/// The most that routing may cost, in millisatoshi.
	pub fee_cap_msat: u64,
	/// The token that the node [gave](Payer::prepare); empty when debts are compared with the node.
	pub token: NodeToken,
}

/// The answer to [`Payer::settle_held`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SettleReply {
	/// The money is the node's, now or since before.
	Settled,
	/// The payment is not settled yet: the payer is asked again.
	NotYet,
	/// The payment is gone for good: it was failed back, or has timed out, and was not claimed. The debt
	/// ends as [`State::Void`](crate::State).
	Gone,
	/// The payer settles no payments that are held, and never will: an operator is told.
	Unable,
}

/// The answer to [`Payer::pay`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PayReply {
	/// The node has durably accepted the payment: it is in flight or finished, and stays so if the node
	/// restarts.
	Accepted,
	/// The node has sent nothing for this attempt, and will not.
	NotSent(FailureReason),
	/// The node may or may not have started the payment, or has started it without persisting it.
	Unknown,
}

/// The reason why an attempt has failed, or was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureReason {
	/// A route, or a peer, was missing. The failure does not count as a failed attempt: the next one is made
	/// after a pause that grows.
	NoRoute,
	/// The node has not enough to send. The failure does not count; the pause grows, and an operator is told.
	NoFunds,
	/// The invoice has expired. The failure does not count; the payee is asked for another invoice.
	Expired,
	/// The recipient, or the node, does not take this invoice and never will. The failure counts, and the
	/// payee is asked for another invoice.
	Rejected,
	/// Another reason, or an unknown one. The failure counts.
	Other,
}

/// The status of an attempt.
#[derive(Clone, Eq, PartialEq)]
pub enum AttemptStatus {
	/// The attempt has paid.
	Settled {
		/// The preimage, which proves it.
		preimage: [u8; 32],
		/// The cost of routing, in millisatoshi; `None` if it is not known.
		fee_msat: Option<u64>,
	},
	/// The attempt is under way.
	InFlight,
	/// The attempt has not paid, and never will.
	Failed(FailureReason),
	/// The node has no record of it.
	NoRecord(NodeMemory),
}

/// The time for which a node remembers payments, which says what it proves that it has no record of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodeMemory {
	/// The node never forgets a payment. No record of one is proof that there was none.
	Forever,
	/// The node remembers a payment for at least this time from its beginning. No record of an attempt
	/// is proof within this time, and proves nothing after it.
	AtLeast(Duration),
	/// The node forgets, and everything that it has said is in the store: no record is proof, unless the
	/// store is an old copy.
	WithStore,
	/// The node may forget at any time. No record proves nothing.
	Unknown,
}

/// A payment of a debt that a node has a record of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownPayment {
	/// The number of the attempt, from 1 on.
	pub number: u32,
	/// The payment hash.
	pub payment_hash: [u8; 32],
	/// `true` if the payment may still pay, or has paid; `false` if it has failed for good.
	pub may_pay: bool,
}

/// The payments of a debt that a node knows of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KnownPayments {
	/// The attempts that the node has a record of.
	Listed {
		/// The attempts.
		payments: Vec<KnownPayment>,
		/// The memory of the node.
		memory: NodeMemory,
	},
	/// The node knows payments by their hash alone.
	ByHashOnly,
}

/// Shows no preimage.
impl fmt::Debug for AttemptStatus {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Settled { fee_msat: Some(fee_msat), .. } => {
				write!(f, "Settled(fee {fee_msat} msat)")
			},
			Self::Settled { fee_msat: None, .. } => f.write_str("Settled"),
			Self::InFlight => f.write_str("InFlight"),
			Self::Failed(reason) => write!(f, "Failed({reason:?})"),
			Self::NoRecord(memory) => write!(f, "NoRecord({memory:?})"),
		}
	}
}

impl fmt::Debug for PayOrder {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { debt, number, amount_msat, .. } = self;
		write!(f, "PayOrder({debt}, attempt {number}, {amount_msat} msat)")
	}
}
