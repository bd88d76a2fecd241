// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What creditors, and whoever looks after debts, are told.

use std::fmt;
use std::sync::Arc;

use leyden_store::{Plan, Timestamp};

use crate::payouts::Loaded;
use crate::terms::DebtId;

/// Gives the plan that tells somebody: usually to enqueue a callback. It is one commit with what it is
/// about, so it is told once, and not lost. It may be asked for a plan that is then not committed.
pub type Notices = Arc<dyn Fn(&Notice) -> Plan<()> + Send + Sync>;

/// Something to be told.
#[derive(Clone, Eq, PartialEq)]
pub struct Notice {
	/// About which debt.
	pub debt: DebtId,
	/// To whom it is owed.
	pub creditor: Vec<u8>,
	/// How much, in satoshi.
	pub share_sat: u64,
	/// When the money was in. What the end of the window is follows from the terms.
	pub slashed_at: Option<Timestamp>,
	/// What.
	pub what: News,
}

/// What is told.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum News {
	/// The creditor is to give an invoice. Say with [`nudge_sent`](crate::Payouts::nudge_sent) that it
	/// has arrived.
	InvoiceWanted {
		/// Which reminder it is, from 1 on.
		number: u32,
	},
	/// It was paid; with the preimage, if it was paid by us.
	Paid {
		/// The preimage.
		preimage: Option<[u8; 32]>,
	},
	/// Its invoice could not be paid. A fresh one opens it again, in time; somebody should look.
	Failed,
	/// Nobody asked for it in time.
	Forfeited,
}

impl Notice {
	pub(crate) fn new(loaded: &Loaded, what: News) -> Self {
		let debt = &loaded.debt;
		Self {
			debt: loaded.id,
			creditor: debt.creditor.clone(),
			share_sat: debt.share_sat(),
			slashed_at: debt.slashed_at,
			what,
		}
	}

	pub(crate) fn paid(loaded: &Loaded, preimage: Option<[u8; 32]>) -> Self {
		Self::new(loaded, News::Paid { preimage })
	}
}

/// Without the preimage.
impl fmt::Debug for News {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::InvoiceWanted { number } => write!(f, "InvoiceWanted({number})"),
			Self::Paid { .. } => f.write_str("Paid"),
			Self::Failed => f.write_str("Failed"),
			Self::Forfeited => f.write_str("Forfeited"),
		}
	}
}

/// Without the creditor: they may be people.
impl fmt::Debug for Notice {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { debt, share_sat, what, .. } = self;
		write!(f, "Notice({debt}, {share_sat} sat, {what:?})")
	}
}
