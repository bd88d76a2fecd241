// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Who pays: a Lightning node, as far as a debt needs one.

use std::fmt;
use std::sync::Arc;

use leyden_store::Timestamp;
use parking_lot::Mutex;

use crate::terms::{AttemptId, DebtId};

/// A node that pays.
///
/// No call may block: what takes time is answered [later](Reply::later), and what is not answered
/// within [`PayoutOptions::patience`](crate::PayoutOptions) counts as not answered at all, which is never
/// taken for a no.
pub trait Payer: Send + Sync {
	/// Takes the money of a payment that is held.
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<Held>;

	/// Pays. Asked twice for the same [attempt](PayOrder::attempt), it must pay once.
	fn pay(&self, order: &PayOrder) -> Reply<Sent>;

	/// What became of this attempt. What became of an earlier one with the same payment hash is no
	/// answer: a node that knows payments by their hash looks whether its record is older than
	/// [`planned_at`](PayOrder::planned_at).
	fn lookup(&self, order: &PayOrder) -> Reply<Lookup>;

	/// What this node has ever paid for a debt, or tried to: asked before the first payment of a debt
	/// after a start, since the debt may have come from an old copy of the database.
	fn made(&self, debt: &DebtId) -> Reply<Made> {
		let _ = debt;
		Reply::now(Made::CannotSay)
	}
}

/// What is to be paid.
#[derive(Clone, Eq, PartialEq)]
pub struct PayOrder {
	/// For which debt.
	pub debt: DebtId,
	/// Which attempt; the name to give the payment.
	pub attempt: AttemptId,
	/// Its number, from 1 on.
	pub number: u32,
	/// The invoice.
	pub invoice: String,
	/// Its payment hash.
	pub payment_hash: [u8; 32],
	/// How much, in millisatoshi.
	pub amount_msat: u64,
	/// The most that routing may cost, in millisatoshi.
	pub fee_cap_msat: u64,
	/// When it was planned.
	pub planned_at: Timestamp,
}

/// What came of taking money that was held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
	/// It is ours.
	Settled,
	/// It was ours before.
	AlreadySettled,
	/// Not yet: try again.
	NotYet,
}

/// What came of telling the node to pay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
	/// It is at it, or was before, and stays so over a crash of its own.
	Accepted,
	/// It has not sent anything, and will not.
	Not(NotSent),
	/// It is not known, or it is at it and might forget.
	Unknown,
}

/// Why a node has not sent anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotSent {
	/// There is no way to the recipient: an attempt that counts.
	NoRoute,
	/// The node has not enough to send: no fault of the invoice.
	NoFunds,
	/// The invoice has expired.
	Expired,
	/// Something else that will not change.
	Refused,
}

/// What became of an attempt.
#[derive(Clone, Eq, PartialEq)]
pub enum Lookup {
	/// It was paid.
	Settled {
		/// Proof of it.
		preimage: [u8; 32],
		/// What routing has cost, in millisatoshi.
		fee_msat: u64,
	},
	/// It is under way.
	InFlight,
	/// It was not paid, and never will be.
	Failed,
	/// The node has no record of it, and would have one if it had ever been told to.
	NoRecord {
		/// Whether it would know.
		would_know: bool,
	},
}

/// What a node has ever paid for a debt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Made {
	/// This: names of attempts, from 1 on, and their payment hashes.
	Payments(Vec<(u32, [u8; 32])>),
	/// It knows payments only by their hash.
	CannotSay,
}

/// An answer, now or later.
pub struct Reply<T>(Arc<Mutex<Option<T>>>);

/// Gives an answer that was promised.
pub struct Promise<T>(Arc<Mutex<Option<T>>>);

impl<T> Reply<T> {
	/// The answer.
	pub fn now(answer: T) -> Self {
		Self(Arc::new(Mutex::new(Some(answer))))
	}

	/// An answer that is given later, or never.
	pub fn later() -> (Promise<T>, Self) {
		let slot = Arc::new(Mutex::new(None));
		(Promise(Arc::clone(&slot)), Self(slot))
	}

	/// The answer, if it is there.
	pub fn take(&self) -> Option<T> {
		self.0.lock().take()
	}
}

impl<T> Promise<T> {
	/// Gives it.
	pub fn give(self, answer: T) {
		*self.0.lock() = Some(answer);
	}
}

/// Without the preimage.
impl fmt::Debug for Lookup {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Settled { fee_msat, .. } => write!(f, "Settled(fee {fee_msat} msat)"),
			Self::InFlight => f.write_str("InFlight"),
			Self::Failed => f.write_str("Failed"),
			Self::NoRecord { would_know } => write!(f, "NoRecord(would know: {would_know})"),
		}
	}
}

impl fmt::Debug for PayOrder {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { debt, number, amount_msat, .. } = self;
		write!(f, "PayOrder({debt}, attempt {number}, {amount_msat} msat)")
	}
}

impl<T> fmt::Debug for Reply<T> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Reply")
	}
}

impl<T> fmt::Debug for Promise<T> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Promise")
	}
}
