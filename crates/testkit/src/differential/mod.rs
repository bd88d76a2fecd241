//! The differential run: one scenario with the same deaths, with LDK alone and with Leyden.
//!
//! The promise is that nothing is ever worse than with LDK alone. So each [`Scenario`] runs with
//! the same [`Schedule`] of deaths with LDK alone and with Leyden, and in further runs with Leyden
//! whose log's store is full, away or slow for a while. What the user was told, the fate of each
//! payment, HTLC and channel, and who has the money is an [`Outcome`]; [`compare()`] says in which
//! ways Leyden's is worse, and [`Report::assert_never_worse`] fails on any.
//!
//! # What is compared
//! - What the user was told: never, where LDK alone tells, is worse; under more ids than LDK alone
//!   tells times is worse; again under the same id is not.
//! - Payments: an answer that is wrong is the worst, then none for ever, then none without money
//!   gone, then failed, then sent.
//! - HTLCs that hang when nothing moves any more; channels that are closed by force; the money of
//!   the node under test, on chain and in channels; panics.
//!
//! A node with Leyden stops when its log's store has failed for longer than is waited for. Then it
//! is compared with LDK alone that dies at the same place, too ([`Report::stopped`] counts these
//! runs); a stop for any other reason is worse.
//!
//! One event under several ids is counted apart ([`Report::assert_one_id_per_event`]): LDK alone
//! tells it several times, too, and so it is not worse, but it is not what Leyden promises.
//!
//! # To plug in another wiring
//! A [`Wire`] makes the guard for one life; the guard calls [`Actor::told`] with each event that is
//! the user's, its id, and whether it is a repeat. Nothing else is asked of it.

pub mod actor;
pub mod cases;
pub mod compare;
pub mod deaths;
pub mod journal_806b3b3;
pub mod outcome;
pub mod scenario;
pub mod stage;
pub mod wirings;

pub use crate::background::Processor;
pub use actor::{Actor, Claim, Intercept, Policy, Telling};
pub use cases::{run_case, worse_case};
pub use compare::{compare, compare_one, Extent, Finding, Report};
pub use deaths::{Death, Moment, Schedule, Spell, Trouble, What, When};
pub use journal_806b3b3::leyden_806b3b3;
pub use outcome::{ChannelEnd, Outcome, PaymentEnd, Worse};
pub use stage::{run, Mode, Run, Scenario, Stage, Step};
pub use wirings::{ldk_alone, leyden, Life, Wire};
