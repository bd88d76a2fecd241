// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A debt before it is added: its payee and amount, the money that it is paid out of, and its terms.

use std::fmt;
use std::time::Duration;

use crate::error::PayoutError;
use crate::ids::DebtId;

/// Longest name of a payee, in bytes.
pub const MAX_PAYEE_BYTES: usize = 255;
/// Longest cause, in bytes.
pub const MAX_CAUSE_BYTES: usize = 300;
/// The most that there will ever be, in satoshi.
pub const MAX_AMOUNT_SAT: u64 = 21_000_000 * 100_000_000;
/// Most failed attempts that the terms of a debt may allow.
pub const MAX_FAILED_ATTEMPTS: u32 = 1_000;

/// The terms of a debt, which are stored with it: neither a restart nor another configuration changes them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terms {
	/// The time for which the payee may give an invoice, from the moment that the money is in. The window is
	/// half-open: its end does not belong to it any more.
	pub invoice_window: Duration,
	/// The time between two reminders of the payee.
	pub reminder_interval: Duration,
	/// The number of failed attempts with one invoice after which the debt fails; 1 to
	/// [`MAX_FAILED_ATTEMPTS`]. A missing route, and a node without funds, do not count.
	pub max_failed_attempts: u32,
	/// The most that routing may cost each time, in millisatoshi. Together with what is owed it must
	/// not be more than the amount.
	pub fee_cap_msat: u64,
}

/// The money that a debt is paid out of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
	/// Money that is the node's already, shared with no other debt.
	InHand,
	/// A payment that the node holds, and that is settled once the debt is durable; all debts of one payment
	/// together are never more than its amount.
	Held {
		/// The hash of the payment.
		payment_hash: [u8; 32],
		/// The amount of the payment, in satoshi.
		amount_sat: u64,
	},
	/// Money that is the node's already, and that several debts share: all of them together are never
	/// more than its amount.
	Budget {
		/// The name of the budget.
		id: [u8; 32],
		/// The amount of the budget, in satoshi.
		amount_sat: u64,
	},
}

/// A debt that is to be added.
#[derive(Clone, Eq, PartialEq)]
pub struct NewDebt {
	/// The name of the debt.
	pub id: DebtId,
	/// The name of the payee, in bytes of the caller's; stored, and never derived anew.
	pub payee: Vec<u8>,
	/// The cause of the debt, in words.
	pub cause: String,
	/// The part of the source that this debt is about, in satoshi.
	pub amount_sat: u64,
	/// The part of that which the node keeps, in satoshi; the rest is owed.
	pub node_share_sat: u64,
	/// The money that the debt is paid out of.
	pub source: Source,
	/// The terms of the debt.
	pub terms: Terms,
}

impl NewDebt {
	/// Returns the node's share, from so many millionths: rounded down, so that the rest is the payee's.
	///
	/// # Errors
	/// [`PayoutError::OutOfRange`] for more than a million, or an amount above [`MAX_AMOUNT_SAT`].
	pub fn node_share_sat(amount_sat: u64, millionths: u32) -> Result<u64, PayoutError> {
		PayoutError::range("node share in millionths", millionths.into(), 0, 1_000_000)?;
		PayoutError::range("amount", amount_sat, 0, MAX_AMOUNT_SAT)?;
		let share = u128::from(amount_sat) * u128::from(millionths) / 1_000_000;
		Ok(u64::try_from(share).unwrap_or(amount_sat))
	}

	pub(crate) fn check(&self) -> Result<(), PayoutError> {
		let Self { payee, cause, amount_sat, node_share_sat, source, terms, .. } = self;
		let length = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
		PayoutError::range("payee", length(payee.len()), 1, length(MAX_PAYEE_BYTES))?;
		PayoutError::range("cause", length(cause.len()), 0, length(MAX_CAUSE_BYTES))?;
		PayoutError::range("amount", *amount_sat, 1, MAX_AMOUNT_SAT)?;
		PayoutError::range("node share", *node_share_sat, 0, *amount_sat)?;
		let most = MAX_FAILED_ATTEMPTS.into();
		PayoutError::range("failed attempts", terms.max_failed_attempts.into(), 1, most)?;
		for (what, duration) in [
			("invoice window", terms.invoice_window),
			("reminder interval", terms.reminder_interval),
		] {
			let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
			PayoutError::range(what, millis, 1, u64::MAX / 4)?;
		}
		if let Source::Held { amount_sat, .. } | Source::Budget { amount_sat, .. } = source {
			PayoutError::range("amount of the source", *amount_sat, 1, MAX_AMOUNT_SAT)?;
		}
		if amount_sat > node_share_sat {
			// Out is never more than in.
			PayoutError::range("fee cap", terms.fee_cap_msat, 0, node_share_sat * 1000)?;
		}
		Ok(())
	}
}

/// Shows no payee, who may be a person.
impl fmt::Debug for NewDebt {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { id, amount_sat, node_share_sat, .. } = self;
		write!(f, "NewDebt({id}, {amount_sat} sat of which the node keeps {node_share_sat})")
	}
}
