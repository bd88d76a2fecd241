// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The time for which debts were looked after without a gap.

use std::time::Duration;

use leyden_store::{Times, Timestamp};

/// The longest time between two looks at debts that count as one stretch.
const MAX_GAP: Duration = Duration::from_secs(15 * 60);

/// The looks at debts, in running time.
pub(crate) struct Awake {
	last: Timestamp,
	/// The time since which there was no gap between two looks.
	since: Timestamp,
}

impl Awake {
	pub(crate) fn new(Times { running, .. }: Times) -> Self {
		Self { last: running, since: running }
	}

	/// Counts a look. Returns the time since which there was no gap.
	pub(crate) fn look(&mut self, Times { running, .. }: Times) -> Timestamp {
		if running.since(self.last) > MAX_GAP {
			self.since = running;
		}
		self.last = running;
		self.since
	}
}
