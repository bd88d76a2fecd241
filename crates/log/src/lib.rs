// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! An event log whose entries stay until they are acked.
//!
//! # Until acked
//! [`EventLog::append`] returns once an entry is durable. From then on every [`Consumer`] is given
//! it, again and again if need be and through any number of crashes, until that consumer acks it.
//! Consumers have names and acks of their own; one that is opened again goes on where it was.
//!
//! # Once per event
//! An event has an id, and the same id again is the same entry: [`Appended::AlreadyKnown`]. That
//! holds for entries that were acked and trimmed as well, as long as their ids are kept
//! ([`LogOptions::tombstones`]).
//!
//! # In order, lane by lane
//! Places are given in the order of commits: nobody reads entry n+1 before entry n. Of a
//! [lane](leyden_id::Lane), at most one delivery is in anybody's hands, and the next comes when it
//! is settled. A lane that is held up holds up no other.
//!
//! # With your own records
//! An append, an ack and records of your own can be one commit: [`EventLog::append_plan`],
//! [`Delivery::ack_with`].
//!
//! # Bounded
//! What is in memory does not depend on the backlog ([`ConsumerStats`]), and neither does the cost
//! of an event. Acked entries stay as history for a stated count and age, through whatever call
//! they were acked, and then go in the order of the log. Un-acked ones stay for ever, and so does
//! what lies behind the first of them.
//!
//! # Not promised
//! Deliveries repeat after a crash. An entry that is being handled when one process after another
//! ends is a dead letter after [`ConsumerOptions::max_crashes`]; a process that is killed for another reason while
//! an entry is handled counts as well.

mod administration;
mod consumer;
mod creation;
mod damaged;
mod dead_letters;
mod delivery;
mod error;
mod fold;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod label;
mod lanes;
mod log;
mod lookup;
mod marks;
mod observer;
mod owner;
mod pause;
mod pending;
mod reader;
mod records;
mod removal;
mod renaming;
mod reset;
mod run;
mod search;
mod signal;
mod suspects;
mod tail;
mod tidy;
mod types;
mod verify;

pub use consumer::{Consumer, ConsumerStats};
pub use damaged::DamagedEntry;
pub use delivery::Delivery;
pub use error::LogError;
pub use lanes::{MAX_HELD_LANES, MAX_REMEMBERED_PER_LANE};
pub use log::{EventLog, Occurrence};
pub use observer::LogObserver;
pub use reader::{ConsumerInfo, LogReader, StreamInfo};
pub use run::{Handled, RunStop};
pub use tidy::ACKS_BETWEEN_COMPACTIONS;
pub use types::{
	Appended, ConsumerLag, ConsumerOptions, Cursor, DeadLetter, Entry, LogEpoch, LogIndex,
	LogOptions, NewEvent, OnExhausted, Retention, RetryPolicy, Start, MAX_CONSUMER_CHARS,
	MAX_PAYLOAD_BYTES, MAX_STREAM_CHARS,
};

/// Longest reason of a dead letter, in characters; longer ones are cut.
pub const MAX_REASON_CHARS: usize = 500;
