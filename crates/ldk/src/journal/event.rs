// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The journal's events for logs and metrics.

use std::fmt;

use leyden_id::{EventId, EventKind};
use lightning::util::logger::Level;

/// A diagnostic of the journal. Its `Display` is a line for a log; it holds no secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum JournalEvent {
	/// An event could not be written down; LDK was told to bring it again.
	LogFailed {
		/// The error of the log.
		error: String,
	},
	/// The manager could not be persisted before the end of a payment, or a payment that is held,
	/// counted as handled; LDK was told to bring the event again.
	PersistFailed {
		/// The error of the persister.
		error: String,
	},
	/// An event cannot be written so that it can be read back, and went to the inline handler.
	NotWritable {
		/// The kind of the event.
		kind: EventKind,
	},
	/// LDK asks again for the answer to a request that was acked; the request is delivered again.
	Repeated {
		/// The kind of the event.
		kind: EventKind,
		/// The id of the event.
		id: EventId,
		/// The count of times that LDK had brought the request before.
		repeat: u32,
	},
	/// The answers to requests may have been lost with the last run; the requests are delivered
	/// again.
	AnswersLost {
		/// The number of requests.
		count: usize,
	},
	/// LDK asks again for the answer to a request, and got the one that is kept.
	Answered {
		/// The kind of the event.
		kind: EventKind,
		/// The id of the event.
		id: EventId,
	},
}

impl JournalEvent {
	/// The level at which a node's log should show it.
	pub fn level(&self) -> Level {
		match self {
			Self::LogFailed { .. } | Self::PersistFailed { .. } => Level::Error,
			Self::NotWritable { .. } => Level::Warn,
			Self::Repeated { .. } | Self::AnswersLost { .. } | Self::Answered { .. } => Level::Info,
		}
	}
}

impl fmt::Display for JournalEvent {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::LogFailed { error } => write!(f, "an event was not written down: {error}"),
			Self::PersistFailed { error } => {
				write!(f, "the manager was not persisted before an event of a payment: {error}")
			},
			Self::NotWritable { kind } => write!(f, "{kind} cannot be written down"),
			Self::Repeated { kind, id, repeat } => {
				write!(f, "LDK brings {kind} {id} again, it is delivered as repeat {repeat}")
			},
			Self::AnswersLost { count } => {
				write!(f, "answers to {count} requests may be lost, they are delivered again")
			},
			Self::Answered { kind, id } => {
				write!(f, "LDK brings {kind} {id} again, and got the answer that is kept")
			},
		}
	}
}
