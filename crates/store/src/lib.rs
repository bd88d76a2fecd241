// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where Leyden's records survive a crash.
//!
//! # All or nothing
//! Everything is changed through a [`Batch`]: it is durable as a whole when its [`Ticket`]
//! resolves, or nothing of it ever is. A batch can require things of other records, and is refused
//! with [`StoreError::Conflict`] if they do not hold. Operations of the protocol crates are
//! [`Plan`]s, so that two of them, of different protocols, can be one commit.
//!
//! # One order
//! The order of two commits is the order of the two calls. Numbers of a sequence are given by the
//! committer in that order: nobody ever sees number n+1 before number n.
//!
//! # One writer
//! A namespace has one writer. Opening it raises its [`Epoch`], and what an older handle commits
//! after that is refused with [`StoreError::Fenced`].
//!
//! # Loud on damage
//! Every value is in a [`frame`] with a checksum over its key and its body. Damaged, misplaced or
//! newer records are errors that name table and key; nothing is skipped or overwritten in their
//! stead.
//!
//! # Not promised
//! Which medium survives what is the backend's to say, in its [`Guarantees`]. There are no
//! transactions over several calls, and no reads of what is not durable yet.
//!
//! Backends live in `leyden-backends`; [`MemoryStore`] is here. To write one, say how
//! bytes are read and written in a [`group::Medium`], or implement [`Store`] with the help of
//! [`committer`], and run the `conformance` suite against it.

pub mod batch;
mod blocking;
pub mod clock;
pub mod codec;
pub mod committed;
pub mod committer;
#[cfg(feature = "conformance")]
pub mod conformance;
mod damage;
pub mod error;
pub mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod group;
pub mod guarantees;
pub mod key;
pub mod memory;
pub mod page;
pub mod plan;
pub mod record;
pub mod sequence;
pub mod sharing;
mod stop;
pub mod store;
mod store_clock;
mod sync;
pub mod ticket;
pub mod verify;
pub mod witness;

pub use batch::{Batch, Durability, Expectation, Slot};
pub use blocking::block_on;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use codec::Stored;
pub use committed::{Appended, Committed};
pub use damage::{read_around_damage, DamagedPage};
pub use error::StoreError;
pub use guarantees::{Fence, Guarantees};
pub use key::{Key, KeyRange, Namespace, Table};
pub use memory::{MemoryMedium, MemoryStore};
pub use page::Page;
pub use plan::Plan;
pub use record::{Epoch, Record, RecordType, Value, Version};
pub use stop::Stop;
pub use store::Store;
pub use store_clock::{Stamp, StoreClock, Times};
pub use ticket::Ticket;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/write-a-backend.md")]
struct WriteABackend;
