// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Callbacks that arrive: a node's words to another's server, kept until they were taken.
//!
//! # With its cause
//! [`Outbox::enqueue`] gives a plan: the event that was handled, the ledger's record, the callback and the
//! ack are one commit. A callback has an id that is the same after a crash, so it is enqueued once for its
//! endpoint, however often its cause is handled.
//!
//! # Until it was taken
//! A worker [claims](Outbox::claim) a callback, sends it, and settles it by the reply. A reply that was
//! lost is no failure and no success: the same callback is sent again, under the same id.
//! [`classify_response`] says what each answer of HTTP means.
//!
//! # What may have been taken
//! Before a callback is handed out, it is durable that it may be sent. A try that ends without a definite
//! answer, or with its process, leaves a doubt, and no later refusal and no deadline takes that back:
//! [`Taken`] is given to the hooks, and shown with dead letters.
//!
//! # In order, and none waits for another
//! Callbacks with the same order key (a payment hash) go one after the other. One that fails backs off, and
//! in the end is a dead letter; other keys never wait for it. Of what is due, the callback with the nearest
//! deadline goes first. A damaged record, a hook whose plan is refused, and a dead letter that nobody reads
//! hold up no other key.
//!
//! # Before its deadline
//! A deadline is in blocks, in time, or both. The pauses between tries shrink as it comes near
//! ([`Schedule`]). When it has passed, the callback [expires](Outbox::expire), together with what the user
//! wants done about it, in one commit.
//!
//! # Leases
//! A worker that takes too long loses its claim, and cannot settle the callback any more. A restart frees
//! all claims: by the store's epoch, not by time.
//!
//! # One log
//! Callbacks have numbers without gaps. [`Outbox::feed`] serves them to a receiver that missed some, with
//! the epoch of the log; [`Reconciler`] is the other side. Push, pull and repair read the same records.
//!
//! # Not promised
//! Exactly-once delivery: a callback may arrive twice, under one id. Its receiver looks at the id.
//!
//! # Bounded
//! Claiming costs the same with a hundred callbacks waiting and with a million; memory depends on the
//! callbacks that are being sent.

mod callback;
mod claim;
mod compaction;
mod dead_letters;
mod endpoint;
mod error;
mod events;
mod expiry;
mod feed;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod outbox;
mod reconcile;
mod records;
mod response;
mod schedule;
mod settle;
mod state_machine;

pub use callback::{
	Callback, CallbackId, Deadline, NewCallback, Sequence, MAX_ENDPOINT_CHARS, MAX_KIND_CHARS,
	MAX_ORDER_KEY_BYTES, MAX_PAYLOAD_BYTES,
};
pub use claim::{Claim, CompletedDelivery, SettleAndClaim};
pub use dead_letters::{DeadLetter, DeadLetterReason};
pub use endpoint::{BreakerOptions, EndpointInfo, EndpointOptions, ProbeOptions};
pub use error::OutboxError;
pub use events::{OutboxEvent, OutboxObserver};
pub use feed::{FeedCursor, FeedItem, FeedPage, MAX_FEED_ITEMS};
pub use outbox::{Enqueued, OnDone, OnOver, Outbox, OutboxOptions, OutboxStats};
pub use reconcile::{Applied, Reconciled, Reconciler, MAX_PARKED};
pub use response::{classify_response, CallbackFacts, Reply, Taken, TryOutcome, Verdict};
pub use schedule::Schedule;
pub use settle::{Settled, Settling};

/// Longest text that says why something failed, in characters; longer ones are cut.
pub const MAX_REASON_CHARS: usize = 300;
