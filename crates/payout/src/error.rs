// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What can go wrong with a debt.

use std::fmt;

use leyden_store::StoreError;

use crate::invoice::InvoiceError;

/// Why something was not done. Nothing was changed then.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PayoutError {
	/// The store failed.
	Store(StoreError),
	/// A number or a length is out of its range.
	OutOfRange {
		/// Which.
		what: &'static str,
		/// What it is.
		found: u64,
		/// The least that it may be.
		least: u64,
		/// The most.
		most: u64,
	},
	/// There is no such debt.
	NoSuchDebt,
	/// The debt is there, with other terms.
	OtherTerms,
	/// Only the creditor may do this.
	NotTheCreditor,
	/// The invoice is not good.
	Invoice(InvoiceError),
	/// The invoice was given before, for this or another debt: it can pay only one.
	InvoiceUsed,
	/// It is too late, or the debt is not open for this.
	NotNow {
		/// Why.
		why: &'static str,
	},
	/// An attempt of it is not known to be dead.
	AttemptLive {
		/// Its number.
		number: u32,
	},
	/// The proof is of something else.
	NoProof,
	/// Something is wrong with the money, and nothing is paid until somebody has looked.
	Frozen {
		/// What.
		reason: String,
	},
	/// What is given out does not fit what came in: the record is wrong.
	Unsound {
		/// What does not fit.
		what: &'static str,
	},
	/// Somebody else has changed the debt meanwhile. Look again.
	Changed,
	/// The operating system gives no random numbers.
	NoRandomness,
}

impl PayoutError {
	/// Whether the same may succeed later, with nothing repaired.
	pub fn is_retriable(&self) -> bool {
		match self {
			Self::Store(error) => error.is_retriable(),
			Self::Changed | Self::NoRandomness => true,
			_ => false,
		}
	}

	pub(crate) fn range(what: &'static str, found: u64, least: u64, most: u64) -> Result<(), Self> {
		match (least..=most).contains(&found) {
			true => Ok(()),
			false => Err(Self::OutOfRange { what, found, least, most }),
		}
	}
}

impl fmt::Display for PayoutError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Store(error) => write!(f, "{error}"),
			Self::OutOfRange { what, found, least, most } => {
				write!(f, "{what} is {found}, and may be from {least} to {most}")
			},
			Self::NoSuchDebt => f.write_str("there is no such debt"),
			Self::OtherTerms => {
				f.write_str("this debt is known with other terms, which do not change any more")
			},
			Self::NotTheCreditor => f.write_str("this debt is owed to somebody else"),
			Self::Invoice(error) => write!(f, "{error}"),
			Self::InvoiceUsed => f.write_str(
				"this invoice, or one with its payment hash, was given before: make another",
			),
			Self::NotNow { why } => f.write_str(why),
			Self::AttemptLive { number } => {
				write!(f, "attempt {number} may still pay it: wait until it is known to be dead")
			},
			Self::NoProof => f.write_str("this proves nothing about the debt"),
			Self::Frozen { reason } => {
				write!(f, "payouts are frozen ({reason}): look into it, and reset the breaker")
			},
			Self::Unsound { what } => write!(f, "the debt's record does not add up: {what}"),
			Self::Changed => f.write_str("somebody else has changed the debt: look again"),
			Self::NoRandomness => f.write_str("the operating system gives no random numbers"),
		}
	}
}

impl std::error::Error for PayoutError {
	fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
		match self {
			Self::Store(error) => Some(error),
			Self::Invoice(error) => Some(error),
			_ => None,
		}
	}
}

impl From<StoreError> for PayoutError {
	fn from(error: StoreError) -> Self {
		match error {
			StoreError::Conflict { .. } => Self::Changed,
			error => Self::Store(error),
		}
	}
}

impl From<InvoiceError> for PayoutError {
	fn from(error: InvoiceError) -> Self {
		Self::Invoice(error)
	}
}
