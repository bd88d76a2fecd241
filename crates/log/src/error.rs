// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What can go wrong with a log, apart from what can go wrong with its store.

use std::fmt;

use leyden_store::StoreError;

use crate::{Cursor, LogEpoch, LogIndex};

/// Why the log did not do what it was asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LogError {
	/// The store failed.
	Store(StoreError),
	/// The payload is over [`MAX_PAYLOAD_BYTES`](crate::MAX_PAYLOAD_BYTES). Nothing was appended.
	PayloadTooLarge {
		/// Its size in bytes.
		bytes: usize,
	},
	/// The name is not made of 1 to so many of a-z, 0-9, `_` and `-`, or begins with `-`.
	BadName {
		/// The name.
		name: String,
		/// Most characters.
		max: usize,
	},
	/// The cursor is from another log, or from this one before it was made anew.
	WrongEpoch {
		/// The cursor's.
		cursor: LogEpoch,
		/// The log's.
		log: LogEpoch,
	},
	/// Entries behind the cursor were trimmed. What was missed is gone; begin at the
	/// [start](crate::EventLog::start) of the log to read what is left.
	TooOld {
		/// The cursor.
		cursor: Cursor,
		/// The oldest entry that may still be there.
		oldest: LogIndex,
	},
	/// The log ends before the cursor: its database is older than what was read from it, most likely
	/// restored from a copy. Entries that the reader has read are not there, and others will take
	/// their indexes; begin at the [start](crate::EventLog::start) of the log.
	Ahead {
		/// The cursor.
		cursor: Cursor,
		/// The newest entry; `None` if there is none.
		head: Option<LogIndex>,
	},
	/// Another entry is where the cursor has read last: the database was restored from an older copy
	/// and has grown since. Begin at the [start](crate::EventLog::start) of the log.
	AnotherHistory {
		/// The cursor.
		cursor: Cursor,
	},
	/// The consumer is in use: a handle of it, or a delivery, is kept somewhere in this process.
	InUse {
		/// The consumer.
		consumer: String,
	},
	/// The event of this id is in the log with another kind, lane or payload. Nothing was appended:
	/// one of the two has the wrong id.
	OtherEvent {
		/// The place of the entry that has the id.
		index: LogIndex,
	},
	/// Another handle has opened the consumer since, in this process or elsewhere: this one settles
	/// nothing any more, and nothing was written. Its deliveries come to the other handle.
	TakenOver {
		/// The consumer.
		consumer: String,
	},
	/// The entry of a delivery is acked already: in bulk, or by a commit that was answered with an
	/// error. Nothing was written.
	AlreadyAcked {
		/// The place of the entry.
		index: LogIndex,
	},
	/// The stream or the consumer is open with other options. Use those, or drop every handle of it
	/// first.
	OtherOptions {
		/// The name of the stream or the consumer.
		name: String,
	},
	/// No consumer has this name.
	NoConsumer {
		/// The name.
		name: String,
	},
	/// Another consumer has this name already.
	ConsumerExists {
		/// The name.
		name: String,
	},
	/// There is no dead letter at this index.
	NoDeadLetter {
		/// The index.
		index: LogIndex,
	},
	/// Several ids begin like this.
	AmbiguousId {
		/// What was given.
		prefix: String,
	},
}

impl LogError {
	/// Whether the same call may succeed later, with nothing repaired.
	pub fn is_retriable(&self) -> bool {
		matches!(self, Self::Store(error) if error.is_retriable())
	}
}

impl From<StoreError> for LogError {
	fn from(error: StoreError) -> Self {
		Self::Store(error)
	}
}

impl fmt::Display for LogError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Store(error) => error.fmt(f),
			Self::PayloadTooLarge { bytes } => {
				write!(
					f,
					"a payload of {bytes} bytes is over the limit of {}",
					crate::MAX_PAYLOAD_BYTES
				)
			},
			Self::BadName { name, max } => {
				write!(f, "{name:?} is no name: use 1 to {max} of a-z, 0-9, _ and -, not - first")
			},
			Self::WrongEpoch { cursor, log } => {
				write!(f, "the cursor is from log {cursor}, this is log {log}: begin at its start")
			},
			Self::Ahead { cursor, head } => {
				let head =
					head.map_or("it is empty".to_owned(), |head| format!("it ends with {head}"));
				write!(
					f,
					"the log ends before {cursor} ({head}): its database was restored from an older \
					 copy, begin at its start"
				)
			},
			Self::AnotherHistory { cursor } => write!(
				f,
				"another entry is where {cursor} has read last: the database was restored from an \
				 older copy and has grown since, begin at its start"
			),
			Self::InUse { consumer } => {
				write!(f, "consumer {consumer} is in use: drop its handles and deliveries first")
			},
			Self::OtherEvent { index } => write!(
				f,
				"entry {index} has this id and another kind, lane or payload: nothing was appended"
			),
			Self::TooOld { cursor, oldest } => write!(
				f,
				"entries behind {cursor} were trimmed, the oldest left is {oldest}: what was missed is gone"
			),
			Self::TakenOver { consumer } => write!(
				f,
				"consumer {consumer} was opened by another handle since: settle deliveries of that one"
			),
			Self::AlreadyAcked { index } => {
				write!(f, "entry {index} is acked already: nothing was written")
			},
			Self::OtherOptions { name } => write!(
				f,
				"{name} is open with other options: use those, or drop every handle of it first"
			),
			Self::NoConsumer { name } => write!(f, "there is no consumer {name}"),
			Self::ConsumerExists { name } => write!(f, "there is a consumer {name} already"),
			Self::NoDeadLetter { index } => write!(f, "there is no dead letter at {index}"),
			Self::AmbiguousId { prefix } => {
				write!(f, "several ids begin with {prefix}: give more digits")
			},
		}
	}
}

impl std::error::Error for LogError {
	fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
		match self {
			Self::Store(error) => Some(error),
			_ => None,
		}
	}
}
