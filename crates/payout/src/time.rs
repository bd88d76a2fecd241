// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Three times: what the clock shows, one that goes on whatever the clock does, and one that does not jump.

use std::time::Duration;

use leyden_store::{Batch, Durability, SteadyTime, Store, Timestamp};

use crate::error::PayoutError;
use crate::payouts::Payouts;
use crate::records::{self, ClockV1};

/// Between two looks at the clock that count as one stretch.
const MAX_GAP: Duration = SteadyTime::STEP;
/// The clock is written down when it has moved on by so much.
const KEEP_CLOCK: Duration = Duration::from_secs(60);

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

/// What is known of time.
pub(crate) struct Time {
	steady: SteadyTime,
	/// Goes on with the clock, and not back with it: else what is due would wait until a clock that was
	/// set back has caught up.
	now: Timestamp,
	/// What the clock showed last.
	clock: Timestamp,
	/// `now`, as it was last written down.
	kept: Option<Timestamp>,
	/// Since when there was no gap between two looks; as `now`.
	awake_since: Timestamp,
}

impl Time {
	/// Goes on where this store left off.
	pub(crate) fn open(store: &dyn Store, clock: Timestamp) -> Result<Self, PayoutError> {
		let key = records::clock_key();
		let known = store.get(&key).wait()?;
		let known = known.map(|record| records::read::<ClockV1>(&key, &record)).transpose()?;
		let steady = SteadyTime::new(known.map(|known| known.steady), clock);
		let now = known.map_or(clock, |known| known.now.max(clock));
		Ok(Self { steady, now, clock, kept: known.map(|known| known.now), awake_since: now })
	}

	fn look(&mut self, clock: Timestamp) -> Now {
		let steady = self.steady.look(clock);
		let gap = clock.since(self.clock);
		self.now = self.now.after(gap).max(clock);
		self.clock = clock;
		if gap > MAX_GAP {
			self.awake_since = self.now;
		}
		Now { clock, now: self.now, steady, awake_since: self.awake_since }
	}
}

impl Payouts {
	/// Looks at the clock.
	pub(crate) fn look(&self) -> Now {
		let clock = self.0.clock.now();
		self.0.state.lock().time.look(clock)
	}

	/// Writes the time down, now and then.
	pub(crate) fn keep_clock(&self, Now { now, steady, .. }: Now) -> Result<(), PayoutError> {
		let mut memory = self.0.state.lock();
		if memory.time.kept.is_some_and(|kept| now.since(kept) < KEEP_CLOCK) {
			return Ok(());
		}
		memory.time.kept = Some(now);
		drop(memory);
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		batch.put(records::clock_key(), records::value(&ClockV1 { steady, now })?);
		self.0.store.commit(batch).wait()?;
		Ok(())
	}
}
