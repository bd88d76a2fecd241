// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What can go wrong with an outbox.

use std::fmt;

use leyden_store::StoreError;

use crate::callback::CallbackId;

/// Why an outbox did not do what it was asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OutboxError {
	/// The store failed.
	Store(StoreError),
	/// Something is empty or too long.
	TooLarge {
		/// What.
		what: &'static str,
		/// The limit.
		limit: usize,
		/// What it is.
		found: usize,
	},
	/// No such endpoint was added.
	UnknownEndpoint {
		/// Its name.
		name: String,
	},
	/// There are too many endpoints.
	TooManyEndpoints {
		/// The limit.
		limit: usize,
	},
	/// A callback of this id says something else to this endpoint.
	IdConflict {
		/// The id.
		id: CallbackId,
		/// The name of the endpoint.
		endpoint: String,
	},
	/// The claim took too long, and is not ours any more. Somebody else may be at the callback.
	LeaseLost,
	/// The callback has expired, and is not sent any more.
	Expired,
	/// There is no such callback, or it is not a dead letter.
	NoSuchCallback,
	/// The cursor is of another outbox: a copy of an earlier time, or one that was created anew.
	WrongEpoch {
		/// What the cursor says.
		ours: u64,
		/// What the outbox is.
		found: u64,
	},
	/// What the cursor asks for is not kept any more.
	TooOld {
		/// The first that is.
		first: u64,
	},
	/// The callback at the cursor's place is not the one that was taken: the source was restored from
	/// an older copy.
	AnotherHistory {
		/// Its number.
		after: u64,
	},
	/// The cursor is ahead of the outbox, which was set back.
	Ahead {
		/// The last one that there is.
		last: u64,
	},
	/// A page of a feed has a gap, or is not in order. Nothing of it was applied.
	Gap {
		/// What should have come.
		expected: u64,
		/// What came.
		found: u64,
	},
	/// Too many callbacks of a source wait for something else to come first.
	TooManyParked {
		/// The limit.
		limit: usize,
	},
	/// The operating system gives no random numbers.
	NoRandomness,
}

impl OutboxError {
	/// Whether the same may succeed later, with nothing repaired.
	pub fn is_retriable(&self) -> bool {
		match self {
			Self::Store(error) => error.is_retriable(),
			Self::NoRandomness => true,
			_ => false,
		}
	}

	pub(crate) fn length(
		what: &'static str, found: usize, least: usize, limit: usize,
	) -> Result<(), Self> {
		match (least..=limit).contains(&found) {
			true => Ok(()),
			false => Err(Self::TooLarge { what, limit, found }),
		}
	}
}

impl fmt::Display for OutboxError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Store(error) => write!(f, "{error}"),
			Self::TooLarge { what, limit, found } => {
				write!(
					f,
					"{what} has {found} bytes, and may have up to {limit}; it may not be empty"
				)
			},
			Self::UnknownEndpoint { name } => {
				write!(f, "there is no endpoint {name}: add it before anything is sent there")
			},
			Self::TooManyEndpoints { limit } => write!(f, "there are {limit} endpoints already"),
			Self::IdConflict { id, endpoint } => write!(
				f,
				"callback {id} was enqueued for {endpoint} with another kind, order key or payload: \
				 derive the id from the event"
			),
			Self::LeaseLost => {
				f.write_str("the claim took too long, and somebody else may be at it")
			},
			Self::Expired => f.write_str(
				"the callback has expired, and what follows from that is done: enqueue another one",
			),
			Self::NoSuchCallback => f.write_str("there is no such callback"),
			Self::WrongEpoch { ours, found } => write!(
				f,
				"the cursor is of epoch {ours}, and the outbox of {found}: begin anew, from 0"
			),
			Self::TooOld { first } => {
				write!(f, "what was before {first} is not kept any more: ask the ledger for it")
			},
			Self::AnotherHistory { after } => write!(
				f,
				"callback {after} is another one than the one that was taken: the source was restored \
				 from an older copy, and what came since then is lost to it. Compare what was taken \
				 with what there is, and begin anew"
			),
			Self::Ahead { last } => write!(
				f,
				"the outbox ends at {last}, before the cursor: it was set back; begin anew, from 0"
			),
			Self::Gap { expected, found } => {
				write!(f, "the feed goes on with {found} instead of {expected}")
			},
			Self::TooManyParked { limit } => write!(
				f,
				"{limit} callbacks wait for something else to come first: retry them, and see what \
				 they wait for"
			),
			Self::NoRandomness => f.write_str("the operating system gives no random numbers"),
		}
	}
}

impl std::error::Error for OutboxError {
	fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
		match self {
			Self::Store(error) => Some(error),
			_ => None,
		}
	}
}

impl From<StoreError> for OutboxError {
	fn from(error: StoreError) -> Self {
		Self::Store(error)
	}
}
