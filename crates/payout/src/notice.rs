// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! News of debts, for payees and operators.

use std::fmt;
use std::sync::Arc;

use leyden_store::{Plan, Timestamp};

use crate::ids::DebtId;
use crate::records::DebtV1;

/// A function that gives the plan which passes a notice on: usually one that enqueues a callback. The
/// plan is one commit with what it is about, so a notice is given once, and not lost. The function may be
/// asked for a plan that is then not committed.
pub type Notices = Arc<dyn Fn(&Notice) -> Plan<()> + Send + Sync>;

/// A notice about a debt.
#[derive(Clone, Eq, PartialEq)]
pub struct Notice {
	/// The debt that it is about.
	pub debt: DebtId,
	/// The payee of the debt.
	pub payee: Vec<u8>,
	/// The amount owed, in satoshi.
	pub share_sat: u64,
	/// The moment when the money was in, by the wall clock.
	pub window_start: Option<Timestamp>,
	/// The news.
	pub news: News,
}

/// The news of a notice.
#[derive(Clone, Copy, Eq, PartialEq)]
#[non_exhaustive]
pub enum News {
	/// The payee is to give an invoice. [`reminder_delivered`](crate::Payouts::reminder_delivered) is
	/// called when this has arrived.
	InvoiceWanted {
		/// The number of the reminder, from 1 on.
		number: u32,
	},
	/// The debt was paid.
	Paid {
		/// The preimage, if this node has paid.
		preimage: Option<[u8; 32]>,
	},
	/// The debt has failed: its invoice could not be paid. A fresh invoice within the window opens it
	/// again. An operator should look.
	Failed,
	/// The payee gave no invoice within the window: the node keeps the money.
	Forfeited,
	/// The payment that was held is gone, and was never the node's: nothing is paid out of it.
	Void,
	/// The node has not enough to pay this debt; the payment is tried again. The news is given once for each
	/// invoice.
	NoFunds,
	/// Five attempts in a row have found no route to the payee with this invoice; the payment is tried again,
	/// and the payee may give another invoice. The news is given once for each invoice.
	NoRoute,
	/// The debt may have been paid before, as far as anything proves: the store may be an old copy, and the
	/// node forgets payments. The debt is not paid until an operator [vouches](crate::Payouts::vouch) for it.
	Unproven,
}

impl Notice {
	pub(crate) fn new(id: &DebtId, debt: &DebtV1, news: News) -> Self {
		Self {
			debt: *id,
			payee: debt.payee.clone(),
			share_sat: debt.share_sat(),
			window_start: debt.window_start.map(|start| start.wall),
			news,
		}
	}
}

/// Shows no preimage.
impl fmt::Debug for News {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::InvoiceWanted { number } => write!(f, "InvoiceWanted({number})"),
			Self::Paid { .. } => f.write_str("Paid"),
			Self::Failed => f.write_str("Failed"),
			Self::Forfeited => f.write_str("Forfeited"),
			Self::Void => f.write_str("Void"),
			Self::NoFunds => f.write_str("NoFunds"),
			Self::NoRoute => f.write_str("NoRoute"),
			Self::Unproven => f.write_str("Unproven"),
		}
	}
}

/// Shows no payee, who may be a person.
impl fmt::Debug for Notice {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { debt, share_sat, news, .. } = self;
		write!(f, "Notice({debt}, {share_sat} sat, {news:?})")
	}
}
