// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Debts that are paid once.
//!
//! Somebody is owed money: a share of a bond that was taken, a prize, a refund. They have to give an
//! invoice first, and may be slow; the invoice may be bad, or expire; the node may be down, or not know
//! what became of a payment. The debt is kept through all of that, and paid once.
//!
//! # Written down first
//! That somebody is owed is durable before the money is taken ([`Payouts::owe`]); that an attempt is
//! made is durable before the node is told. After a crash the node is asked what it knows.
//!
//! # Attempts
//! Each is a record of its own, with a name for the node ([`AttemptId`]). There is a new one only when
//! all before it are *known* to be dead: a timeout, a lost connection, a node that has no record and
//! might have lost it, prove nothing ("unknown is not failed"). Only dispatches that failed use the
//! budget. One payment hash pays one debt.
//!
//! # Terms do not change
//! Amount, shares, window, reminders, budget and fee cap are part of the debt. The creditor is stored and
//! never worked out anew, and the window begins when the money is in and does not move.
//!
//! # The window
//! Its end is past. Nothing is forfeited before the creditor was told at least once, and somebody has
//! listened for the time between two reminders; a clock that jumps forfeits nothing
//! ([`StoreClock`](leyden_store::StoreClock)). What nobody is owed is never forfeited, it is kept.
//!
//! # Money
//! What goes out, with its fees, is never more than what came in; checked before every commit and by
//! [`Payouts::doctor`]. What does not add up freezes payouts until somebody has looked
//! ([`Payouts::breaker`]).
//!
//! # An old copy of the database
//! Before the first payment of a debt after a start, the node is asked what it has ever paid for it
//! ([`Payer::made`]), and what it has is taken over.
//!
//! # Bounded
//! A [tick](Payouts::tick) costs what is due, not what there is. What is in memory depends on the calls
//! that are under way.
//!
//! # Not promised
//! That a debt is paid: an invoice that nobody can pay stays unpaid, and is [`State::Failed`] in the
//! end, for somebody to look at. Splitting a payment over several nodes.

mod creditor;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod invoice;
mod law;
mod money;
mod notice;
mod outcome;
mod payer;
mod payouts;
mod records;
mod terms;
mod time;
mod view;
mod worker;

pub use creditor::{OutsideProof, Submitted, MAX_PROOF_CHARS};
pub use error::PayoutError;
pub use invoice::{InvoiceError, InvoiceRules, MAX_INVOICE_CHARS};
pub use law::{decide, Decision, Facts, State};
pub use notice::{News, Notice, Notices};
pub use payer::{Held, Lookup, Made, NotSent, PayOrder, Payer, Promise, Reply, Sent};
pub use payouts::{PayoutOptions, Payouts, Written, MAX_NOTES};
pub use terms::{
	AttemptId, DebtId, NewDebt, Terms, MAX_AMOUNT_SAT, MAX_BUDGET, MAX_CAUSE_BYTES,
	MAX_CREDITOR_BYTES,
};
pub use view::{Debt, Finding, Proof, MAX_PAGE};
pub use worker::{Ticked, MAX_TICK};

pub use lightning_invoice::Currency;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/payout.md")]
struct Guide;
