// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Callbacks that arrive: what a node owes to somebody else's server, kept until it was taken.
//!
//! # With its cause
//! [`Outbox::enqueue`] gives a plan: the event that was handled, the ledger's record, the callback
//! and the ack are one commit. A callback has an id that is the same after a crash, so it is enqueued
//! once however often its cause is handled.
//!
//! # Until it was taken
//! A worker [claims](Outbox::claim) a callback, sends it, and says what came of it ([`Verdict`]). A
//! reply that was lost is no failure and no success: the same callback is sent again, under the same
//! id. [`judge`] is the law for HTTP, row by row.
//!
//! # In order, and nobody waits for another
//! Callbacks with the same order key (a payment hash) go one after the other. One that fails backs
//! off, and in the end is put aside; other keys never wait for it. What is most urgent goes first,
//! whatever else is due.
//!
//! # Before its deadline
//! A deadline is in blocks, in time, or both. The pauses between tries shrink as it comes near
//! ([`Schedule`]). When it has passed, the callback [expires](Outbox::expire), together with what you
//! want done about it, in one commit.
//!
//! # Leases
//! A worker that takes too long loses its claim, and cannot say any more what became of it. A restart
//! frees all claims: by the store's epoch, not by time.
//!
//! # One log
//! Callbacks have numbers without gaps. [`Outbox::feed`] serves them to who missed some, with the
//! epoch of the log; [`Reconciler`] is the other side. Push, pull and repair read the same records.
//!
//! # Not promised
//! Exactly-once delivery: a callback may arrive twice, under one id. Who receives it looks at the id.
//!
//! # Bounded
//! Claiming costs the same with a hundred callbacks waiting and with a million; what is in memory
//! depends on what is being sent.

mod callback;
mod claim;
mod endpoint;
mod error;
mod feed;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod judge;
mod outbox;
mod reconcile;
mod records;
mod schedule;
mod settle;
mod tidy;

pub use callback::{
	Callback, CallbackId, Deadline, NewCallback, Sequence, MAX_ENDPOINT_CHARS, MAX_KIND_CHARS,
	MAX_ORDER_KEY_BYTES, MAX_PAYLOAD_BYTES,
};
pub use claim::{Claim, Returned, Turn};
pub use endpoint::{BreakerOptions, EndpointInfo, EndpointOptions};
pub use error::OutboxError;
pub use feed::{FeedCursor, FeedItem, FeedPage, MAX_FEED_ITEMS};
pub use judge::{judge, Facts, Reply, Verdict};
pub use outbox::{Enqueued, Outbox, OutboxOptions, OutboxStats};
pub use reconcile::{Applied, Reconciled, Reconciler, MAX_PARKED};
pub use schedule::Schedule;
pub use settle::{Settled, Settling};
pub use tidy::{DeadLetter, Why};

/// Longest text that says why something failed, in characters; longer ones are cut.
pub const MAX_REASON_CHARS: usize = 300;
