// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Splices that finish.
//!
//! LDK forgets a splice that is not signed when the node stops, and it says nothing of one that it
//! was handed and lost. So what the user asked for is written down before LDK sees it, and
//! [`Splices`] carries it through disconnects, restarts and contributions that have gone stale,
//! until it funds the channel, or is given up for a reason that the user is told.
//!
//! # What is promised
//! - After `Ok`, a splice ends in one of two ways: it funds the channel, or the user is told why
//!   not, once. After `Err` it never runs.
//! - No withdrawal is made twice, and no amount is doubled by being built anew.
//! - Coins are reserved as long as a splice may need them, and no longer.
//!
//! # What a crash does
//! Nothing that is not settled by the next look at LDK: see [`law`].
//!
//! # Not promised
//! When. A peer that stays away holds a splice up until its age limit.
//!
//! [`funding`] keeps the payment records of the transactions that come of it.
//!
//! This crate knows no LDK. It sees a node through a [`SpliceDriver`]; LDK's is in `leyden-ldk`.

mod coins;
mod driver;
mod error;
pub mod funding;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod keeper;
pub mod law;
mod parts;
mod probe;
mod reason;
mod records;
mod splice;

pub use coins::{InputReserver, Reservations};
pub use driver::{BuildError, NotCanceled, SpliceDriver, SubmitError, Want};
pub use error::SpliceError;
pub use keeper::{
	Damaged, SpliceFailed, SpliceOptions, Splices, Tell, DEFAULT_MAX_AGE, DUST_SAT, MAX_LIVE,
	MAX_OUTPUTS, MAX_PAST, MAX_SAT,
};
pub use parts::{ChannelRef, Contribution, FeeBand, Material, SpliceId, SpliceKind};
pub use probe::{
	ChannelView, Fate, InputStatus, NewFunding, OurPart, Probe, Round, Spender, Stage,
};
pub use reason::{FailureReason, Remedy, MAX_MESSAGE_CHARS};
pub use splice::{Bump, Splice, SpliceState, Step, What, MAX_ROUNDS, MAX_STEPS};
