// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Debts that are paid once.
//!
//! A node owes money: a share of a bond that was slashed, a prize, a refund. The payee has to give an
//! invoice first, and may be slow; the invoice may not fit, or expire; the node may be down, or not know
//! what became of a payment. The debt is kept through all of that, and paid once.
//!
//! # Durable first
//! The debt is durable before the money that it is paid out of is taken ([`Payouts::add_debt`]); the
//! attempt is durable before the node is told. After a crash the node is asked what it knows.
//!
//! # Attempts
//! Each attempt is a record of its own, with a name for the node ([`AttemptId`]) or a token of the node's
//! ([`Payer::prepare`]). There is a new attempt only when all before it are *known* to be dead. A timeout,
//! a lost connection, or a node that has no record and might have forgotten, prove nothing: unknown is
//! not failed. Only failures of the invoice count against it. One payment hash pays one debt.
//!
//! # What proves what
//! A node says how long it remembers ([`NodeMemory`]). That it has no record of an attempt is proof within
//! that time only. The store's own word that a debt was not paid yet counts if the store is known to be
//! the newest copy of itself: it has a [`witness`](leyden_store::witness), and an operator has looked
//! after each restoration. Otherwise the node has to prove it, or an operator
//! [vouches](Payouts::vouch) for it.
//!
//! # Terms do not change
//! Amount, shares, window, reminders, allowed failures and fee cap are part of the debt. The payee is
//! stored and never derived anew, and the window begins when the money is in and does not move.
//!
//! # The window
//! The window is half-open: its end does not belong to it any more. A debt is forfeited only after at
//! least one reminder was delivered and debts were then looked after without a gap for one reminder
//! interval, and the node has said once in this process which attempts it knows. A first invoice is in time
//! until then. A clock that jumps never shortens the window ([`StoreClock`](leyden_store::StoreClock)). A
//! debt without a share of the payee's closes as [`State::Kept`].
//!
//! # Money
//! What goes out, with its fees, is never more than the amount of the debt, and all debts of one held
//! payment or budget together are never more than that ([`Source`]). Both are checked in every commit and
//! by [`Payouts::audit`]. What does not add up freezes payouts until an operator has looked
//! ([`Payouts::frozen`]).
//!
//! # Bounded
//! A [tick](Payouts::tick) costs what is due, not how many debts there are. Memory depends on the calls
//! of the node that are under way.
//!
//! # Not promised
//! That a debt is paid: an invoice that cannot be paid stays unpaid, and the debt is [`State::Failed`] in
//! the end. Payments are not split over several nodes.

mod added;
mod audit;
mod awake;
mod call;
mod error;
mod events;
mod freeze;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod ids;
mod invariants;
mod invoice;
mod loaded;
mod machine;
mod memory;
mod new_debt;
mod notice;
mod options;
mod outside_proof;
mod payer;
mod payouts;
mod plan;
mod records;
mod reply;
mod run;
mod shares;
mod state;
mod submitted;
mod text;
mod told;
mod view;
mod worker;

pub use added::Added;
pub use audit::AuditIssue;
pub use error::PayoutError;
pub use events::{PayoutEvent, PayoutObserver};
pub use freeze::{Freeze, MAX_REASONS};
pub use ids::{AttemptId, DebtId};
pub use invoice::{InvoiceError, InvoiceRules, MAX_INVOICE_CHARS};
pub use new_debt::{
	NewDebt, Source, Terms, MAX_AMOUNT_SAT, MAX_CAUSE_BYTES, MAX_FAILED_ATTEMPTS, MAX_PAYEE_BYTES,
};
pub use notice::{News, Notice, Notices};
pub use options::PayoutOptions;
pub use outside_proof::{OutsideProof, MAX_PROOF_CHARS};
pub use payer::{
	AttemptStatus, FailureReason, KnownPayment, KnownPayments, NodeMemory, NodeToken, PayOrder,
	PayReply, Payer, SettleReply, MAX_TOKEN_BYTES,
};
pub use payouts::Payouts;
pub use plan::MAX_NOTES;
pub use reply::{Completer, Reply};
pub use state::State;
pub use submitted::Submitted;
pub use view::{Debt, DebtPage, Proof, MAX_PAGE};
pub use worker::{TickSummary, MAX_TICK};

pub use lightning_invoice::Currency;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/payout.md")]
struct Guide;
