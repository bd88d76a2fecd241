// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Events that an operator should know of.

use std::fmt;
use std::sync::Arc;

use leyden_store::StoreError;

use crate::callback::Sequence;
use crate::response::Taken;

/// A function that is told of events. It must not call the outbox that calls it.
pub type OutboxObserver = Arc<dyn Fn(&OutboxEvent) + Send + Sync>;

/// An event that an operator should know of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OutboxEvent {
	/// An endpoint does not let this sender in, and is only probed.
	Paused {
		/// The name of the endpoint.
		endpoint: String,
		/// The refusal.
		reason: String,
	},
	/// A paused endpoint lets this sender in again.
	Resumed {
		/// The name of the endpoint.
		endpoint: String,
	},
	/// The clocks of both sides differ: the endpoint refuses callbacks for their time.
	ClockSkew {
		/// The name of the endpoint.
		endpoint: String,
		/// The refusal.
		reason: String,
	},
	/// A callback became a dead letter.
	DeadLetter {
		/// The place of the callback.
		sequence: Sequence,
		/// Whether it may have been taken all the same.
		taken: Taken,
		/// The reason.
		reason: String,
	},
	/// The deadline of a callback has passed.
	Expired {
		/// The place of the callback.
		sequence: Sequence,
		/// Whether it may have been taken all the same.
		taken: Taken,
	},
	/// A record is damaged: its callback is not sent, and holds up those with its order key. Told once in
	/// a process.
	Damaged {
		/// The place of the callback.
		sequence: Sequence,
		/// The error that names the record.
		error: StoreError,
	},
	/// The plan of a hook cannot be committed: what it is about stays as it is, and is tried again. Told
	/// once in a process.
	HookRefused {
		/// The place of the callback.
		sequence: Sequence,
		/// The error of the commit.
		error: StoreError,
	},
	/// The store cannot be used now; a run loop goes on when it can.
	StoreUnavailable {
		/// The error of the store.
		error: StoreError,
	},
	/// Callbacks are sent, and this was not called for a day: callbacks do not expire, or nothing is
	/// dropped.
	Neglected {
		/// The name of the method.
		method: &'static str,
	},
}

impl fmt::Display for OutboxEvent {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Paused { endpoint, reason } => write!(
				f,
				"endpoint {endpoint} does not let this sender in ({reason}), and is only probed"
			),
			Self::Resumed { endpoint } => {
				write!(f, "endpoint {endpoint} lets this sender in again")
			},
			Self::ClockSkew { endpoint, reason } => write!(
				f,
				"endpoint {endpoint} refuses callbacks for their time ({reason}): set the clocks right"
			),
			Self::DeadLetter { sequence, taken: Taken::No, reason } => {
				write!(f, "callback {sequence} is a dead letter: {reason}")
			},
			Self::DeadLetter { sequence, taken: Taken::Maybe, reason } => {
				write!(f, "callback {sequence} is a dead letter, and may have been taken: {reason}")
			},
			Self::Expired { sequence, taken: Taken::No } => {
				write!(f, "the deadline of callback {sequence} has passed")
			},
			Self::Expired { sequence, taken: Taken::Maybe } => write!(
				f,
				"the deadline of callback {sequence} has passed, and it may have been taken"
			),
			Self::Damaged { sequence, error } => {
				write!(f, "callback {sequence} cannot be sent: {error}")
			},
			Self::HookRefused { sequence, error } => {
				write!(f, "the plan of a hook for callback {sequence} cannot be committed: {error}")
			},
			Self::StoreUnavailable { error } => write!(f, "callbacks wait for the store: {error}"),
			Self::Neglected { method } => {
				write!(f, "Outbox::{method} was not called for a day: call it, or use a run loop")
			},
		}
	}
}
