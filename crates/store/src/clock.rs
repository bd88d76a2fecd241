// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Time, as something that is passed in: logic that reads the wall clock cannot be tested.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in milliseconds since the Unix epoch.
#[derive(
	Clone,
	Copy,
	Debug,
	Default,
	Eq,
	Hash,
	Ord,
	PartialEq,
	PartialOrd,
	serde::Deserialize,
	serde::Serialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
	/// This long after it; the last moment there is, if that is too far.
	#[must_use]
	pub fn after(self, duration: Duration) -> Self {
		let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
		Self(self.0.saturating_add(millis))
	}

	/// How long ago `earlier` was; zero if it is later (clocks are set back).
	pub fn since(self, earlier: Timestamp) -> Duration {
		Duration::from_millis(self.0.saturating_sub(earlier.0))
	}
}

/// What time it is.
pub trait Clock: Send + Sync {
	/// Now.
	fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
	fn now(&self) -> Timestamp {
		(**self).now()
	}
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
	fn now(&self) -> Timestamp {
		Timestamp::default()
			.after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
	}
}

/// A clock that stands still until it is moved; for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
	/// A clock that shows `now`.
	pub fn new(now: Timestamp) -> Self {
		Self(AtomicU64::new(now.0))
	}

	/// Lets `duration` pass.
	pub fn advance(&self, duration: Duration) {
		self.0.store(self.now().after(duration).0, Ordering::SeqCst);
	}
}

impl Clock for ManualClock {
	fn now(&self) -> Timestamp {
		Timestamp(self.0.load(Ordering::SeqCst))
	}
}

/// Time that does not go back and does not jump ahead, for what cannot be taken back: forgetting a
/// record, giving up a claim.
///
/// A clock that is set back changes nothing. One that is suddenly ahead, by more than [`STEP`], is
/// not believed before it has gone on from there for [`GRACE`]: it may have been set wrong, or the
/// process may have been away. A gap between two looks counts for at most [`STEP`], so look from
/// time to time.
///
/// [`STEP`]: SteadyTime::STEP
/// [`GRACE`]: SteadyTime::GRACE
#[derive(Clone, Copy, Debug)]
pub struct SteadyTime {
	now: Timestamp,
	ahead: Option<Ahead>,
}

/// A clock that is ahead.
#[derive(Clone, Copy, Debug)]
struct Ahead {
	/// What it showed first.
	since: Timestamp,
	/// What it showed last.
	last: Timestamp,
	/// For how long it has gone on.
	seen: Duration,
}

impl SteadyTime {
	/// How far a clock may be ahead of the last look to be believed at once.
	pub const STEP: Duration = Duration::from_secs(15 * 60);
	/// How long a clock that jumped must go on before it is believed.
	pub const GRACE: Duration = Duration::from_secs(60 * 60);

	/// Goes on from the latest time that is known; the first time, from what the clock shows.
	pub fn new(known: Option<Timestamp>, clock: Timestamp) -> Self {
		let mut time = Self { now: known.unwrap_or(clock), ahead: None };
		time.look(clock);
		time
	}

	/// The time, after a look at the clock.
	pub fn look(&mut self, clock: Timestamp) -> Timestamp {
		if let Some(Ahead { since, last, seen }) = self.ahead.filter(|a| clock >= a.last) {
			let seen = seen + clock.since(last).min(Self::STEP);
			if seen < Self::GRACE {
				self.ahead = Some(Ahead { since, last: clock, seen });
				return self.now;
			}
			// So much is sure. If it jumped again meanwhile, that begins anew.
			self.now = since.after(seen).min(clock);
		}
		self.ahead = None;
		if clock.since(self.now) > Self::STEP {
			self.ahead = Some(Ahead { since: clock, last: clock, seen: Duration::ZERO });
		} else {
			self.now = self.now.max(clock);
		}
		self.now
	}

	/// The time, as of the last look.
	pub fn now(&self) -> Timestamp {
		self.now
	}

	/// Whether the clock is ahead of it, and not believed yet.
	pub fn is_doubtful(&self) -> bool {
		self.ahead.is_some()
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	const HOUR: u64 = 3_600_000;
	const MINUTE: u64 = 60_000;

	fn at(millis: u64) -> Timestamp {
		Timestamp(1_000 * HOUR + millis)
	}

	#[test]
	fn steady_time_follows_and_never_goes_back() {
		let mut time = SteadyTime::new(None, at(0));
		assert_eq!(time.look(at(MINUTE)), at(MINUTE));
		assert_eq!(time.look(at(0)), at(MINUTE));
		assert_eq!(time.look(at(16 * MINUTE)), at(16 * MINUTE));
		assert_eq!(SteadyTime::new(Some(at(MINUTE)), at(0)).now(), at(MINUTE));
		assert!(!time.is_doubtful());
	}

	#[test]
	fn a_jump_that_is_taken_back_never_was() {
		let mut time = SteadyTime::new(None, at(0));
		assert_eq!(time.look(at(9_000 * HOUR)), at(0));
		assert!(time.is_doubtful());
		// Far ahead, and ahead again: gaps count for little.
		assert_eq!(time.look(at(18_000 * HOUR)), at(0));
		assert_eq!(time.look(at(MINUTE)), at(MINUTE));
		assert!(!time.is_doubtful());
		// It begins anew.
		assert_eq!(time.look(at(9_000 * HOUR)), at(MINUTE));
	}

	/// A jump while an earlier one is not believed yet is not believed with it.
	#[test]
	fn a_jump_in_doubt_is_a_jump() {
		let mut time = SteadyTime::new(Some(at(0)), at(20 * MINUTE));
		for minute in (30..=70).step_by(10) {
			assert_eq!(time.look(at(minute * MINUTE)), at(0));
		}
		assert!(time.look(at(9_000 * HOUR)) <= at(85 * MINUTE));
		assert!(time.is_doubtful());
		assert!(time.look(at(80 * MINUTE)) <= at(85 * MINUTE));
	}

	#[test]
	fn after_an_outage_time_goes_on_an_hour_later() {
		let mut time = SteadyTime::new(Some(at(0)), at(48 * HOUR));
		for minute in 1..60 {
			assert_eq!(time.look(at(48 * HOUR + minute * MINUTE)), at(0), "{minute}");
		}
		assert_eq!(time.look(at(49 * HOUR)), at(49 * HOUR));
		// Without a look for long, it is believed late, and only as far as it was seen to go.
		let mut time = SteadyTime::new(Some(at(0)), at(48 * HOUR));
		let looks = [72, 96, 120, 144].map(|hour| time.look(at(hour * HOUR)));
		assert_eq!(looks, [at(0), at(0), at(0), at(49 * HOUR)]);
	}
}
