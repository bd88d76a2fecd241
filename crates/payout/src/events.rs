// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Events that an operator should know of.

use std::fmt;
use std::sync::Arc;

use leyden_store::StoreError;

use crate::error::PayoutError;
use crate::freeze::Freeze;
use crate::ids::DebtId;

/// A function that is told of events. The function must not call the payouts that call it.
pub type PayoutObserver = Arc<dyn Fn(&PayoutEvent) + Send + Sync>;

/// An event that an operator should know of. The same event is told once in a process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PayoutEvent {
	/// Payouts are frozen until an operator has looked.
	Frozen {
		/// The reasons.
		freeze: Freeze,
	},
	/// A debt has waited for a day for the end of an attempt, or of a payment that is held.
	Waits {
		/// The debt.
		debt: DebtId,
		/// The attempt; `None` for the payment that is held.
		attempt: Option<u32>,
	},
	/// A debt cannot be looked after; others can.
	Broken {
		/// The debt.
		debt: DebtId,
		/// The error.
		error: PayoutError,
	},
	/// The store cannot be used now; [`run`](crate::Payouts::run) goes on when it can.
	StoreUnavailable {
		/// The error of the store.
		error: StoreError,
	},
}

impl fmt::Display for PayoutEvent {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Frozen { freeze } => {
				write!(f, "payouts are frozen ({freeze}); look into it, and call Payouts::unfreeze")
			},
			Self::Waits { debt, attempt: Some(number) } => {
				write!(f, "debt {debt}: attempt {number} has had no end for a day")
			},
			Self::Waits { debt, attempt: None } => {
				write!(f, "debt {debt}: the payment that is held was not settled for a day")
			},
			Self::Broken { debt, error } => write!(f, "debt {debt} waits: {error}"),
			Self::StoreUnavailable { error } => write!(f, "payouts wait for the store: {error}"),
		}
	}
}
