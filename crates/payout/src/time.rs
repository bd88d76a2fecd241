// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The times of a [`StoreClock`](leyden_store::StoreClock), and since when somebody has looked at them.

use std::time::Duration;

use leyden_store::{Times, Timestamp};

use crate::payouts::Payouts;

/// The longest time between two looks at debts that count as one stretch.
const MAX_GAP: Duration = Duration::from_secs(15 * 60);

/// What time it is.
#[derive(Clone, Copy)]
pub(crate) struct Now {
	/// What the clock shows, for what others have dated.
	pub(crate) clock: Timestamp,
	/// For what is done again.
	pub(crate) now: Timestamp,
	/// For what cannot be taken back.
	pub(crate) steady: Timestamp,
	pub(crate) awake_since: Timestamp,
}

impl Now {
	/// When something begins that has an end: not before anybody's time.
	pub(crate) fn beginning(&self) -> Timestamp {
		self.clock.max(self.steady)
	}
}

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

	fn look(&mut self, Times { wall, running, steady, .. }: Times) -> Now {
		if running.since(self.last) > MAX_GAP {
			self.since = running;
		}
		self.last = running;
		Now { clock: wall, now: running, steady, awake_since: self.since }
	}
}

impl Payouts {
	/// Looks at the clock.
	pub(crate) fn look(&self) -> Now {
		let times = self.0.clock.look();
		self.0.state.lock().awake.look(times)
	}
}
