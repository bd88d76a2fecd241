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
	/// The rules for leaving it alone when it fails.
	pub breaker: BreakerOptions,
	/// The rules for probing it while it is paused.
	pub probes: ProbeOptions,
}

/// The rules for probing an endpoint that is paused: one callback is sent after a pause that doubles. If
/// the endpoint lets the sender in, it is resumed by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProbeOptions {
	/// The pause before the first probe. A minute unless set otherwise.
	pub first: Duration,
	/// The longest pause. A quarter of an hour unless set otherwise; less before a deadline.
	pub longest: Duration,
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
		let (breaker, probes) = (BreakerOptions::default(), ProbeOptions::default());
		Self { max_in_flight: 8, breaker, probes }
	}
}

impl Default for ProbeOptions {
	fn default() -> Self {
		Self { first: Duration::from_secs(60), longest: Duration::from_secs(15 * 60) }
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
	/// It is only probed since then, for this reason, until it lets the sender in or
	/// [`resume`](crate::Outbox::resume) is called.
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

/// The probes of an endpoint that is paused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Probes {
	failed: u32,
	/// The running time of the next one; `None` before the first was planned.
	next: Option<Timestamp>,
}

impl Probes {
	/// Returns how many callbacks may be on their way.
	pub(crate) fn limit(&mut self, options: &ProbeOptions, now: Timestamp) -> usize {
		let next = *self.next.get_or_insert(now.after(options.first));
		usize::from(now >= next)
	}

	/// Plans the next probe. `most` is the longest pause that a deadline allows.
	pub(crate) fn failed(
		&mut self, options: &ProbeOptions, now: Timestamp, most: Option<Duration>,
	) {
		let doubled = options.first.saturating_mul(1 << self.failed.min(20));
		let pause = doubled.min(options.longest).min(most.unwrap_or(Duration::MAX));
		self.failed = self.failed.saturating_add(1);
		self.next = Some(now.after(pause));
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

	#[test]
	fn probes_become_rare_and_a_deadline_makes_them_more_frequent() {
		let options = ProbeOptions::default();
		let (mut probes, start) = (Probes::default(), Timestamp(1_000));
		assert_eq!(probes.limit(&options, start), 0);
		let mut now = start.after(options.first);
		for minutes in [1, 2, 4, 8, 15, 15] {
			assert_eq!(probes.limit(&options, now), 1);
			probes.failed(&options, now, None);
			let pause = Duration::from_secs(minutes * 60);
			assert_eq!(probes.limit(&options, now.after(pause - Duration::from_millis(1))), 0);
			now = now.after(pause);
		}
		probes.failed(&options, now, Some(Duration::from_secs(7)));
		assert_eq!(probes.limit(&options, now.after(Duration::from_secs(7))), 1);
	}
}
