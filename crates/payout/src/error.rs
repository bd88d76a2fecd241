// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Errors of payouts.

use std::fmt;

use leyden_store::StoreError;

use crate::ids::DebtId;
use crate::invoice::InvoiceError;
use crate::state::State;

/// An error of a debt or of all payouts. Nothing was changed then, unless a variant says so.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PayoutError {
	/// The store failed.
	Store(StoreError),
	/// A number or a length is out of its range.
	OutOfRange {
		/// The name of the number.
		what: &'static str,
		/// The number.
		found: u64,
		/// The least that it may be.
		least: u64,
		/// The most that it may be.
		most: u64,
	},
	/// The debt does not exist.
	NoSuchDebt {
		/// The name that was asked for.
		debt: DebtId,
	},
	/// The debt is known with other terms, shares, payee or source, which do not change any more.
	TermsMismatch {
		/// The debt.
		debt: DebtId,
	},
	/// The held payment or budget is known with another amount.
	SourceMismatch {
		/// The debt that was to be added.
		debt: DebtId,
		/// The amount that is known, in satoshi.
		known_sat: u64,
	},
	/// The held payment or budget is used up by other debts.
	SourceExceeded {
		/// The debt that was to be added.
		debt: DebtId,
		/// The rest that is free, in satoshi.
		left_sat: u64,
	},
	/// The invoice is of another person than the payee of the debt.
	NotThePayee {
		/// The debt.
		debt: DebtId,
	},
	/// The invoice does not fit the debt.
	Invoice(InvoiceError),
	/// The invoice, or one with its payment hash, was given before, for this or another debt.
	InvoiceUsed {
		/// The debt that it was given for now.
		debt: DebtId,
	},
	/// The debt has an invoice that is being paid.
	HasInvoice {
		/// The debt.
		debt: DebtId,
	},
	/// The debt is in a state that does not allow this.
	InvalidState {
		/// The debt.
		debt: DebtId,
		/// The state of the debt.
		state: State,
	},
	/// The time to give an invoice is over.
	WindowClosed {
		/// The debt.
		debt: DebtId,
	},
	/// The payee is owed nothing.
	NothingOwed {
		/// The debt.
		debt: DebtId,
	},
	/// An attempt is not known to be dead, and may still pay the debt.
	AttemptLive {
		/// The debt.
		debt: DebtId,
		/// The number of the attempt.
		number: u32,
	},
	/// The debt has no attempt of this number that is not over.
	NoSuchAttempt {
		/// The debt.
		debt: DebtId,
		/// The number that was asked for.
		number: u32,
	},
	/// The proof is of something else.
	NoProof {
		/// The debt.
		debt: DebtId,
	},
	/// The record of a debt does not add up.
	InvariantViolated {
		/// The debt.
		debt: DebtId,
		/// The rule that it breaks.
		what: &'static str,
	},
	/// The debt was changed by another worker meanwhile. The same may be tried again.
	Conflict,
	/// A record of the debt is damaged, so that nothing more can be written down for it.
	Damaged {
		/// The debt.
		debt: DebtId,
		/// The error of the record.
		error: StoreError,
	},
	/// The payment that is held for the debt is not settled by this [`Payer`](crate::Payer).
	CannotSettle {
		/// The debt.
		debt: DebtId,
	},
	/// Payouts are frozen for a reason that the operator has not seen. Payouts stay frozen.
	UnseenReason {
		/// The reason.
		reason: String,
	},
	/// The plan of [`notices`](crate::PayoutOptions::notices) could not be committed. The debt stays as
	/// it is, and is tried again.
	Notice {
		/// The debt.
		debt: DebtId,
		/// The error of the commit.
		error: StoreError,
	},
	/// The operating system gives no random numbers.
	NoRandomness,
}

impl PayoutError {
	/// Returns `true` if the same may succeed later, with nothing repaired.
	pub fn is_retriable(&self) -> bool {
		match self {
			Self::Store(error) => error.is_retriable(),
			Self::Conflict | Self::NoRandomness => true,
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
			Self::NoSuchDebt { debt } => write!(f, "there is no debt {debt}"),
			Self::TermsMismatch { debt } => {
				write!(f, "debt {debt} is known with other terms, which do not change any more")
			},
			Self::SourceMismatch { debt, known_sat } => {
				write!(f, "debt {debt}: its source is known with an amount of {known_sat} sat")
			},
			Self::SourceExceeded { debt, left_sat } => {
				write!(f, "debt {debt}: other debts leave {left_sat} sat of its source")
			},
			Self::NotThePayee { debt } => write!(f, "debt {debt} is owed to another payee"),
			Self::Invoice(error) => write!(f, "{error}"),
			Self::InvoiceUsed { debt } => write!(
				f,
				"debt {debt}: this invoice, or one with its payment hash, was given before: make \
				 another"
			),
			Self::HasInvoice { debt } => {
				write!(f, "debt {debt} has an invoice that is being paid")
			},
			Self::InvalidState { debt, state } => write!(f, "debt {debt} is {state}"),
			Self::WindowClosed { debt } => {
				write!(f, "debt {debt}: the time to give an invoice is over")
			},
			Self::NothingOwed { debt } => write!(f, "debt {debt}: nothing is owed to the payee"),
			Self::AttemptLive { debt, number } => write!(
				f,
				"debt {debt}: attempt {number} may still pay it; wait until it is known to be dead"
			),
			Self::NoSuchAttempt { debt, number } => {
				write!(f, "debt {debt} has no open attempt {number}")
			},
			Self::NoProof { debt } => write!(f, "this proves nothing about debt {debt}"),
			Self::InvariantViolated { debt, what } => {
				write!(f, "the record of debt {debt} does not add up: {what}")
			},
			Self::Conflict => {
				f.write_str("another worker has changed the debt meanwhile: try again")
			},
			Self::Damaged { debt, error } => write!(f, "debt {debt} is damaged: {error}"),
			Self::CannotSettle { debt } => write!(
				f,
				"the payment that is held for debt {debt} is not settled: its payer settles none"
			),
			Self::UnseenReason { reason } => {
				write!(f, "payouts stay frozen for another reason: {reason}")
			},
			Self::Notice { debt, error } => {
				write!(f, "debt {debt}: the plan of its notice cannot be committed: {error}")
			},
			Self::NoRandomness => f.write_str("the operating system gives no random numbers"),
		}
	}
}

impl std::error::Error for PayoutError {
	fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
		match self {
			Self::Store(error) | Self::Notice { error, .. } | Self::Damaged { error, .. } => {
				Some(error)
			},
			Self::Invoice(error) => Some(error),
			_ => None,
		}
	}
}

impl From<StoreError> for PayoutError {
	fn from(error: StoreError) -> Self {
		match error {
			StoreError::Conflict { .. } => Self::Conflict,
			error => Self::Store(error),
		}
	}
}

impl From<InvoiceError> for PayoutError {
	fn from(error: InvoiceError) -> Self {
		Self::Invoice(error)
	}
}
