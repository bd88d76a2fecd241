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
