// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What LDK promises about bringing an event again.

/// Whether and when LDK hands an event out again, from the documentation of each variant; it
/// decides whether the event may be written down and answered later.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum EventClass {
	/// A fact that LDK persists and replays until it was handled. It is written down, then handled
	/// in one's own time; a replay is the same event.
	Durable,
	/// A request that LDK persists or makes anew until LDK's *own durable state* has the answer
	/// (claim, forward, fail, pay). It is written down, then answered in one's own time; it is
	/// delivered again, as a repeat, whenever LDK brings it again after it was acked.
	Request,
	/// Replayed until handled, but not across restarts. Handled at once; never the same as an event
	/// of an earlier run.
	ReplayedInProcess,
	/// Made anew whenever it is needed. Handled at once, every time: repeats are the point.
	Regenerated,
	/// Handed out once.
	Ephemeral,
	/// LDK does not say. Handled at once, until it does.
	Unstated,
}

impl EventClass {
	/// Whether an event of this class is written down and handled from the log.
	pub fn is_journaled(self) -> bool {
		matches!(self, Self::Durable | Self::Request)
	}
}
