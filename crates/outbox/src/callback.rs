// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is owed.

use std::fmt;
use std::num::NonZeroU64;

use leyden_id::{Domain, EventId, IdBuilder};
use leyden_store::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::OutboxError;
use crate::records::FORGOTTEN;

/// Longest kind, in bytes.
pub const MAX_KIND_CHARS: usize = 64;
/// Longest name of an endpoint, in bytes.
pub const MAX_ENDPOINT_CHARS: usize = 64;
/// Longest order key, in bytes.
pub const MAX_ORDER_KEY_BYTES: usize = 64;
/// Largest payload, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

const CALLBACK: Domain = Domain::new("leyden/callback", 1);

/// The name of a callback: the same for the same kind, key and phase, after any crash.
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct CallbackId(EventId);

impl CallbackId {
	/// The callback of this kind (`payment_sent`) about this (a payment hash), in this phase of it; 0
	/// if it has no phases.
	pub fn new(kind: &str, about: &[u8], phase: u64) -> Self {
		Self(IdBuilder::new(CALLBACK, kind).bytes(about).number(phase).finish())
	}

	/// An id that was made elsewhere, such as that of the event which is the cause.
	pub fn from_event(id: EventId) -> Self {
		Self(id)
	}

	/// Its bytes.
	pub fn as_bytes(&self) -> &[u8; 32] {
		self.0.as_bytes()
	}

	pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
		Self(EventId::from_bytes(bytes))
	}
}

/// The place of a callback in the outbox: from 1 on, without gaps, in the order of commits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Sequence(NonZeroU64);

impl Sequence {
	/// The place of this number; `None` for zero.
	pub fn new(number: u64) -> Option<Self> {
		NonZeroU64::new(number).map(Self)
	}

	/// The number.
	pub fn get(self) -> u64 {
		self.0.get()
	}
}

/// Until when it must have arrived; whichever comes first.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Deadline {
	/// The height of the block with which it is too late.
	pub height: Option<u32>,
	/// The moment at which it is too late.
	pub at: Option<Timestamp>,
}

impl Deadline {
	/// There is none.
	pub const NONE: Self = Self { height: None, at: None };

	/// Too late with the block of this height.
	pub fn at_height(height: u32) -> Self {
		Self { height: Some(height), at: None }
	}

	/// Too late at this moment.
	pub fn at(at: Timestamp) -> Self {
		Self { height: None, at: Some(at) }
	}

	/// Whether it is too late.
	pub fn is_past(&self, height: u32, now: Timestamp) -> bool {
		self.height.is_some_and(|deadline| height >= deadline)
			|| self.at.is_some_and(|deadline| now >= deadline)
	}
}

/// A callback that is to be enqueued. What it says is frozen then.
#[derive(Clone)]
pub struct NewCallback {
	pub(crate) id: CallbackId,
	pub(crate) kind: String,
	pub(crate) endpoint: String,
	pub(crate) order_key: Vec<u8>,
	pub(crate) schema: u16,
	pub(crate) payload: Vec<u8>,
	pub(crate) deadline: Deadline,
}

impl NewCallback {
	/// A callback to an endpoint. Callbacks with the same `order_key` arrive in the order in which they
	/// were enqueued.
	///
	/// # Errors
	/// [`OutboxError::TooLarge`] for a part that is too long, or an empty kind or order key.
	pub fn new(
		id: CallbackId, kind: impl Into<String>, endpoint: impl Into<String>,
		order_key: impl Into<Vec<u8>>, payload: impl Into<Vec<u8>>,
	) -> Result<Self, OutboxError> {
		let (kind, endpoint) = (kind.into(), endpoint.into());
		let (order_key, payload) = (order_key.into(), payload.into());
		OutboxError::length("kind", kind.len(), 1, MAX_KIND_CHARS)?;
		OutboxError::length("endpoint", endpoint.len(), 1, MAX_ENDPOINT_CHARS)?;
		OutboxError::length("order key", order_key.len(), 1, MAX_ORDER_KEY_BYTES)?;
		OutboxError::length("payload", payload.len(), 0, MAX_PAYLOAD_BYTES)?;
		let deadline = Deadline::NONE;
		Ok(Self { id, kind, endpoint, order_key, schema: 1, payload, deadline })
	}

	/// With a deadline.
	#[must_use]
	pub fn with_deadline(mut self, deadline: Deadline) -> Self {
		self.deadline = deadline;
		self
	}

	/// With another schema of its payload than 1. 0 is for what was [forgotten](Callback::is_forgotten),
	/// and is enqueued as 1.
	#[must_use]
	pub fn with_schema(mut self, schema: u16) -> Self {
		self.schema = schema;
		self
	}
}

/// A callback as it was enqueued.
#[derive(Clone, Eq, PartialEq)]
pub struct Callback {
	pub(crate) sequence: Sequence,
	pub(crate) id: CallbackId,
	pub(crate) kind: String,
	pub(crate) endpoint: String,
	pub(crate) order_key: Vec<u8>,
	pub(crate) schema: u16,
	pub(crate) payload: Vec<u8>,
	pub(crate) deadline: Deadline,
	pub(crate) enqueued_at: Timestamp,
}

impl Callback {
	/// A callback as it came from a feed.
	pub fn received(sequence: Sequence, new: NewCallback, enqueued_at: Timestamp) -> Self {
		let NewCallback { id, kind, endpoint, order_key, schema, payload, deadline } = new;
		Self { sequence, id, kind, endpoint, order_key, schema, payload, deadline, enqueued_at }
	}

	/// Its place.
	pub fn sequence(&self) -> Sequence {
		self.sequence
	}

	/// Its id, which is the same in every try.
	pub fn id(&self) -> CallbackId {
		self.id
	}

	/// What kind it is.
	pub fn kind(&self) -> &str {
		&self.kind
	}

	/// Where it is to go.
	pub fn endpoint(&self) -> &str {
		&self.endpoint
	}

	/// What it must stay in order with.
	pub fn order_key(&self) -> &[u8] {
		&self.order_key
	}

	/// The schema of its payload.
	pub fn schema(&self) -> u16 {
		self.schema
	}

	/// What it says. There may be a preimage in it.
	pub fn payload(&self) -> &[u8] {
		&self.payload
	}

	/// Whether what it said is not kept any more: it was taken, and it was a secret.
	pub fn is_forgotten(&self) -> bool {
		self.schema == FORGOTTEN
	}

	/// Until when it must have arrived.
	pub fn deadline(&self) -> Deadline {
		self.deadline
	}

	/// When it was enqueued.
	pub fn enqueued_at(&self) -> Timestamp {
		self.enqueued_at
	}
}

impl std::str::FromStr for CallbackId {
	type Err = leyden_id::ParseError;

	fn from_str(text: &str) -> Result<Self, Self::Err> {
		text.parse().map(Self)
	}
}

impl fmt::Display for CallbackId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}", self.0)
	}
}

impl fmt::Debug for CallbackId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "CallbackId({})", self.0)
	}
}

impl fmt::Display for Sequence {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}", self.0)
	}
}

/// Without what it says.
impl fmt::Debug for NewCallback {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "NewCallback({} to {}, {:?})", self.kind, self.endpoint, self.id)
	}
}

/// Without what it says.
impl fmt::Debug for Callback {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { sequence, kind, endpoint, id, .. } = self;
		write!(f, "Callback({sequence}, {kind} to {endpoint}, {id:?})")
	}
}
