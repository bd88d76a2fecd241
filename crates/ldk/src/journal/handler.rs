// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A journal as LDK's event handler.

use std::fmt;
use std::sync::Arc;

use lightning::events::{Event, EventHandler, ReplayEvent};

use super::Journal;

/// An `EventHandler` that gives events to a journal, and those that LDK wants answered at once to
/// an inline handler.
pub struct JournalHandler<H> {
	journal: Arc<Journal>,
	inline: H,
}

impl<H> JournalHandler<H> {
	/// A handler that writes to `journal` and leaves to `inline` what must be answered at once.
	pub fn new(journal: Arc<Journal>, inline: H) -> Self {
		Self { journal, inline }
	}
}

impl<H: EventHandler> EventHandler for JournalHandler<H> {
	/// # Failure Behavior and Persistence
	/// As [`Journal::handle`].
	fn handle_event(&self, event: Event) -> Result<(), ReplayEvent> {
		self.journal.handle(event, |event| self.inline.handle_event(event))
	}
}

impl<H> fmt::Debug for JournalHandler<H> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "JournalHandler of {:?}", self.journal)
	}
}
