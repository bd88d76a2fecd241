// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! When to try again: before the deadline, and more often as it comes near.

use std::time::Duration;

use leyden_store::Timestamp;

/// Pauses between tries.
///
/// They double from `first` to `longest`, with full jitter, so that callbacks which failed together
/// do not come together again. With a deadline, a pause is at most the time that is left divided by
/// `tries_left`, and never less than `shortest`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Schedule {
	/// The longest pause after the first failure.
	pub first: Duration,
	/// The longest pause there is.
	pub longest: Duration,
	/// The shortest pause there is.
	pub shortest: Duration,
	/// How many tries should still fit in before the deadline.
	pub tries_left: u32,
	/// How long a block is taken to last, for deadlines in blocks. Blocks come faster at times, so
	/// this is less than ten minutes.
	pub block: Duration,
	/// The longest wish of the other side (`Retry-After`) that is granted.
	pub longest_wish: Duration,
}

impl Default for Schedule {
	/// 5 seconds, doubling to 5 minutes; never under a second; 10 tries before the deadline; blocks
	/// of 5 minutes; wishes of up to an hour.
	fn default() -> Self {
		Self {
			first: Duration::from_secs(5),
			longest: Duration::from_secs(300),
			shortest: Duration::from_secs(1),
			tries_left: 10,
			block: Duration::from_secs(300),
			longest_wish: Duration::from_secs(3600),
		}
	}
}

impl Schedule {
	/// How long to wait after so many failures (1 after the first). `jitter` is any number, and the
	/// same number gives the same pause. `time_left` is what is left before the deadline.
	pub fn pause(&self, failures: u32, jitter: u64, time_left: Option<Duration>) -> Duration {
		let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
		let mut longest = doubled.min(self.longest);
		if let Some(left) = time_left {
			longest = longest.min(left / self.tries_left.max(1));
		}
		let longest = longest.max(self.shortest);
		// Full jitter, of a thousand steps.
		let spread = longest - self.shortest;
		let step = u32::try_from(mixed(jitter) % 1001).unwrap_or_default();
		self.shortest + spread / 1000 * step
	}

	/// What is left before a deadline at `height` or `at`; `None` if there is none.
	pub fn time_left(
		&self, deadline: crate::Deadline, height: u32, now: Timestamp,
	) -> Option<Duration> {
		let blocks = deadline
			.height
			.map(|deadline| self.block.saturating_mul(deadline.saturating_sub(height)));
		let time = deadline.at.map(|at| at.since(now));
		match (blocks, time) {
			(Some(blocks), Some(time)) => Some(blocks.min(time)),
			(left, None) | (None, left) => left,
		}
	}
}

/// Neighbours become strangers (the finalizer of MurmurHash3).
fn mixed(mut n: u64) -> u64 {
	n ^= n >> 33;
	n = n.wrapping_mul(0xff51_afd7_ed55_8ccd);
	n ^= n >> 33;
	n = n.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
	n ^ (n >> 33)
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::Deadline;

	const S: fn(u64) -> Duration = Duration::from_secs;

	#[test]
	fn pauses_double_up_to_the_longest() {
		let schedule = Schedule::default();
		let longest = |failures| {
			(0..2_000).map(|jitter| schedule.pause(failures, jitter, None)).max().unwrap()
		};
		for (failures, at_most) in [(1, 5), (2, 10), (3, 20), (7, 300), (99, 300), (u32::MAX, 300)]
		{
			assert!(longest(failures) <= S(at_most), "{failures}");
			assert!(longest(failures) > S(at_most) * 9 / 10, "{failures}");
		}
		let shortest = (0..2_000).map(|jitter| schedule.pause(9, jitter, None)).min().unwrap();
		assert!(shortest >= S(1) && shortest < S(10));
		assert_eq!(schedule.pause(3, 7, None), schedule.pause(3, 7, None));
	}

	#[test]
	fn ten_tries_fit_in_before_the_deadline() {
		let schedule = Schedule::default();
		for left in [S(3_600), S(600), S(60), S(11)] {
			for jitter in 0..200 {
				assert!(schedule.pause(50, jitter, Some(left)) <= (left / 10).max(S(1)));
			}
		}
		// At the end it never spins.
		assert_eq!(schedule.pause(50, 3, Some(Duration::ZERO)), S(1));
	}

	#[test]
	fn blocks_and_time_count_both() {
		let schedule = Schedule::default();
		let now = Timestamp(1_000_000);
		let left = |deadline| schedule.time_left(deadline, 100, now);
		assert_eq!(left(Deadline::NONE), None);
		assert_eq!(left(Deadline::at_height(112)), Some(S(3_600)));
		assert_eq!(left(Deadline::at_height(90)), Some(Duration::ZERO));
		assert_eq!(left(Deadline::at(now.after(S(60)))), Some(S(60)));
		let both = Deadline { height: Some(112), at: Some(now.after(S(60))) };
		assert_eq!(left(both), Some(S(60)));
		assert!(Deadline::at_height(100).is_past(100, now));
		assert!(!Deadline::at_height(101).is_past(100, now));
		assert!(Deadline::at(now).is_past(0, now));
		assert!(!Deadline::at(now.after(Duration::from_millis(1))).is_past(0, now));
	}
}
