// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where callbacks go: how many at once, and whether at all.

use std::time::Duration;

use leyden_store::Timestamp;

/// How an endpoint is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndpointOptions {
	/// How many callbacks are on their way at once. 8 unless set otherwise.
	pub max_in_flight: usize,
	/// When it is left alone.
	pub breaker: BreakerOptions,
}

/// When an endpoint that fails is left alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BreakerOptions {
	/// After so many failures in a row. 5 unless set otherwise.
	pub failures: u32,
	/// For so long; then one callback is tried. 15 seconds unless set otherwise: longer would eat up
	/// deadlines.
	pub pause: Duration,
}

impl Default for EndpointOptions {
	fn default() -> Self {
		Self { max_in_flight: 8, breaker: BreakerOptions::default() }
	}
}

impl Default for BreakerOptions {
	fn default() -> Self {
		Self { failures: 5, pause: Duration::from_secs(15) }
	}
}

/// An endpoint, to look at.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EndpointInfo {
	/// Its name.
	pub name: String,
	/// Callbacks that are on their way.
	pub in_flight: usize,
	/// Nothing is sent since then, for this reason, until [`resume`](crate::Outbox::resume) is called.
	pub paused: Option<(Timestamp, String)>,
	/// It failed so often that it is left alone until then.
	pub resting_until: Option<Timestamp>,
}

/// A circuit breaker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breaker {
	failures: u32,
	/// Left alone until then; after that, one at a time.
	open_until: Option<Timestamp>,
}

impl Breaker {
	/// How many may be on their way.
	pub(crate) fn limit(&self, options: &EndpointOptions, now: Timestamp) -> usize {
		match self.open_until {
			None => options.max_in_flight,
			Some(until) if now < until => 0,
			Some(_) => 1,
		}
	}

	pub(crate) fn open_until(&self) -> Option<Timestamp> {
		self.open_until
	}

	pub(crate) fn answered(&mut self) {
		*self = Self::default();
	}

	pub(crate) fn failed(&mut self, options: &BreakerOptions, now: Timestamp) {
		self.failures = self.failures.saturating_add(1);
		if self.failures >= options.failures {
			self.open_until = Some(now.after(options.pause));
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn a_breaker_opens_probes_and_closes() {
		let options = EndpointOptions::default();
		let (mut breaker, mut now) = (Breaker::default(), Timestamp(1_000));
		for _ in 0..4 {
			breaker.failed(&options.breaker, now);
			assert_eq!(breaker.limit(&options, now), 8);
		}
		breaker.failed(&options.breaker, now);
		assert_eq!(breaker.limit(&options, now), 0);
		now = now.after(options.breaker.pause);
		assert_eq!(breaker.limit(&options, now), 1);
		// The probe failed: another rest.
		breaker.failed(&options.breaker, now);
		assert_eq!(breaker.limit(&options, now), 0);
		breaker.answered();
		assert_eq!(breaker.limit(&options, now), 8);
		// Failures that are not in a row do not open it.
		for _ in 0..20 {
			breaker.failed(&options.breaker, now);
			breaker.answered();
		}
		assert_eq!(breaker.limit(&options, now), 8);
	}
}
