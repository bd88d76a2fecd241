// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The clocks that are passed in: logic that reads the machine's clock cannot be tested.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
	/// Returns the moment `duration` later; the last moment there is, if that is too far.
	#[must_use]
	pub fn after(self, duration: Duration) -> Self {
		let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
		Self(self.0.saturating_add(millis))
	}

	/// Returns how long ago `earlier` was; zero if it is later (clocks are set back).
	pub fn since(self, earlier: Timestamp) -> Duration {
		Duration::from_millis(self.0.saturating_sub(earlier.0))
	}
}

/// A source of time: a wall clock, which can be set, and a stopwatch, which cannot.
///
/// Leyden's crates do not go by a clock alone, but by the [`StoreClock`](crate::StoreClock) that
/// each store makes of it.
pub trait Clock: Send + Sync {
	/// Returns what the wall clock shows. It may be wrong, and it may be set at any time.
	fn now(&self) -> Timestamp;

	/// Returns the time that has passed since some moment which stays the same while the process
	/// runs. Nobody sets it, and it never goes back. It may stand still while the machine is
	/// suspended.
	fn elapsed(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
	fn now(&self) -> Timestamp {
		(**self).now()
	}

	fn elapsed(&self) -> Duration {
		(**self).elapsed()
	}
}

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The clocks of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
	fn now(&self) -> Timestamp {
		Timestamp::default()
			.after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
	}

	fn elapsed(&self) -> Duration {
		STARTED.elapsed()
	}
}

/// A clock that stands still until it is moved; for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock {
	wall: AtomicU64,
	elapsed: AtomicU64,
}

impl ManualClock {
	/// Returns a clock that shows `now`.
	pub fn new(now: Timestamp) -> Self {
		Self { wall: AtomicU64::new(now.0), elapsed: AtomicU64::new(0) }
	}

	/// Lets `duration` pass.
	pub fn advance(&self, duration: Duration) {
		let millis = Timestamp::default().after(duration).0;
		self.wall.store(self.now().after(duration).0, Ordering::SeqCst);
		self.elapsed.fetch_add(millis, Ordering::SeqCst);
	}

	/// Sets the wall clock, forward or back. No time passes. A machine that was suspended, or a
	/// process that starts again, sees the same.
	pub fn set(&self, now: Timestamp) {
		self.wall.store(now.0, Ordering::SeqCst);
	}
}

impl Clock for ManualClock {
	fn now(&self) -> Timestamp {
		Timestamp(self.wall.load(Ordering::SeqCst))
	}

	fn elapsed(&self) -> Duration {
		Duration::from_millis(self.elapsed.load(Ordering::SeqCst))
	}
}
