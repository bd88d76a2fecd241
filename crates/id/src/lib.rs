// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Names for Lightning events that are the same after a crash.
//!
//! # One logical event, one id
//! LDK hands an event out again after a restart; a monitor derives it a second time from the same
//! blocks; a replay brings it from a log. All of these must be recognized as one event, so its
//! [`EventId`] is a hash of what makes it *that* event, under a tag with a version, and never of
//! its whole encoding: optional fields come and go between the first time and the second.
//!
//! # Never from a payment hash alone
//! Two HTLCs may carry the same payment hash and the same amount: the parts of one payment do, and
//! so does anybody who probes for the confusion. An id takes in what tells HTLCs apart (channel and
//! HTLC id, or the HTLC's source). Where LDK does not say enough, the id is marked
//! [`IdStrength::Weak`].
//!
//! # Not promised
//! An id says nothing about order: that is the log's index. It is no secret, and holds none: ids
//! are never made from preimages.

mod channel;
mod class;
mod event_id;
mod kind;
mod lane;
mod source;
mod tagged;

pub use channel::ChannelId;
pub use class::EventClass;
pub use event_id::{EventId, IdStrength};
pub use kind::{EventKind, MAX_KIND_CHARS};
pub use lane::Lane;
pub use source::MonitorEventSource;
pub use tagged::{Domain, IdBuilder};

/// A text that is not what it was read as.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ParseError {
	/// It should be this many hex digits.
	NotHex {
		/// How many digits there should be.
		digits: usize,
	},
	/// It does not have the form of the thing; the text says which form that is.
	Form(&'static str),
}

impl ParseError {
	/// Always `false`: the same text will not read better the next time.
	pub fn is_retriable(&self) -> bool {
		false
	}
}

impl std::fmt::Display for ParseError {
	fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
		match self {
			Self::NotHex { digits } => write!(f, "expected {digits} hex digits"),
			Self::Form(form) => write!(f, "expected {form}"),
		}
	}
}

impl std::error::Error for ParseError {}
