// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What an answer over HTTP means, as a pure function: the law.

use std::time::Duration;

use crate::schedule::Schedule;

/// What came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
	/// An answer with this status.
	Status {
		/// It.
		code: u16,
		/// What the header `Retry-After` says.
		retry_after: Option<Duration>,
		/// The answer says that the deadline has passed, or is too near.
		too_late: bool,
	},
	/// None in time. What became of the callback is not known.
	Timeout,
	/// No connection: refused, no such host, no route, or TLS failed.
	NoConnection,
	/// The connection ended before the answer did, or the answer is none. What became of the callback
	/// is not known.
	Broken,
	/// The endpoint is one to which nothing is sent (a private address, plain HTTP).
	Forbidden,
}

impl Reply {
	/// An answer with nothing but a status.
	pub fn status(code: u16) -> Self {
		Self::Status { code, retry_after: None, too_late: false }
	}
}

/// What is known of the callback.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
	/// How often it has failed, this time included.
	pub failures: u32,
	/// How long ago it was enqueued.
	pub age: Duration,
	/// What is left before its deadline, if it has one.
	pub time_left: Option<Duration>,
	/// How long something that may pass is tried that need not: an answer 404, or a redirect.
	pub horizon: Duration,
	/// For the jitter: any number.
	pub jitter: u64,
}

/// What is to be done with a callback.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
	/// It was taken.
	Done,
	/// Try again, not before this has passed.
	RetryAfter(Duration),
	/// Try again, not before this has passed; it was no failure.
	Snooze(Duration),
	/// Send nothing to the endpoint any more, until somebody says so; the callback stays where it is.
	Pause,
	/// Put it aside: it will never be taken.
	Dead,
	/// It is too late for it.
	Expired,
}

/// The law.
pub fn judge(reply: Reply, facts: &Facts, schedule: &Schedule) -> Verdict {
	let again = |at_least: Duration| {
		let pause = schedule.pause(facts.failures, facts.jitter, facts.time_left);
		// The other side's wish counts, as long as there is a try left afterwards.
		let most = facts.time_left.map_or(Duration::MAX, |left| left / 2).max(schedule.shortest);
		Verdict::RetryAfter(pause.max(at_least.min(most)))
	};
	let within_horizon = |facts: &Facts| match facts.age < facts.horizon {
		true => again(Duration::ZERO),
		false => Verdict::Dead,
	};
	match reply {
		Reply::Status { code, retry_after, too_late } => match code {
			200..=299 => Verdict::Done,
			// Whoever is refused because it is too late must get back what was promised.
			400..=499 if too_late => Verdict::Expired,
			// A token that is wrong will be put right; nothing is lost by waiting.
			401 | 403 | 410 => Verdict::Pause,
			// It may be early: what it is about is not there yet.
			404 => within_horizon(facts),
			408 | 409 | 425 | 429 | 500..=599 => again(retry_after.unwrap_or_default()),
			// Not followed: the body would go to somebody who is not the endpoint.
			300..=399 => within_horizon(facts),
			400..=499 => Verdict::Dead,
			// What is no answer of HTTP's.
			_ => again(Duration::ZERO),
		},
		Reply::Timeout | Reply::NoConnection | Reply::Broken => again(Duration::ZERO),
		// What is configured wrongly is put right by somebody.
		Reply::Forbidden => Verdict::Pause,
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	const HOUR: Duration = Duration::from_secs(3600);

	fn facts() -> Facts {
		let age = Duration::from_secs(60);
		Facts { failures: 1, age, time_left: None, horizon: HOUR, jitter: 1 }
	}

	fn of(reply: Reply, facts: Facts) -> Verdict {
		judge(reply, &facts, &Schedule::default())
	}

	fn is_retry(verdict: &Verdict) -> bool {
		matches!(verdict, Verdict::RetryAfter(_))
	}

	/// Every row of the failure matrix that is about an answer.
	#[test]
	fn the_matrix() {
		for code in 200..300 {
			assert_eq!(of(Reply::status(code), facts()), Verdict::Done);
		}
		for code in [400, 422, 402, 405, 406, 411, 413, 415, 451] {
			assert_eq!(of(Reply::status(code), facts()), Verdict::Dead, "{code}");
		}
		for code in [401, 403, 410] {
			assert_eq!(of(Reply::status(code), facts()), Verdict::Pause, "{code}");
		}
		for code in [408, 409, 425, 429, 500, 502, 503, 504, 599] {
			assert!(is_retry(&of(Reply::status(code), facts())), "{code}");
			// However long it goes on: that the other side is down is no reason to give up.
			let old = Facts { age: 1000 * HOUR, failures: 9_999, ..facts() };
			assert!(is_retry(&of(Reply::status(code), old)), "{code}");
		}
		for reply in [Reply::Timeout, Reply::NoConnection, Reply::Broken] {
			assert!(is_retry(&of(reply, facts())), "{reply:?}");
		}
		assert_eq!(of(Reply::Forbidden, facts()), Verdict::Pause);
		for code in [0, 100, 101, 199, 600, 999] {
			assert!(is_retry(&of(Reply::status(code), facts())), "{code}");
		}
	}

	/// Early, or wrong for good: tried for a bounded time.
	#[test]
	fn not_found_and_redirects_are_tried_up_to_the_horizon() {
		for code in [404, 301, 302, 303, 307, 308] {
			let at = |age| of(Reply::status(code), Facts { age, ..facts() });
			assert!(is_retry(&at(HOUR - Duration::from_millis(1))), "{code}");
			assert_eq!(at(HOUR), Verdict::Dead, "{code}");
		}
	}

	/// A refusal because it is too late is no dead letter: somebody's money waits for it.
	#[test]
	fn too_late_expires() {
		for code in [400, 404, 409, 422] {
			let reply = Reply::Status { code, retry_after: None, too_late: true };
			assert_eq!(of(reply, facts()), Verdict::Expired, "{code}");
		}
		let done = Reply::Status { code: 200, retry_after: None, too_late: true };
		assert_eq!(of(done, facts()), Verdict::Done);
	}

	#[test]
	fn retry_after_is_honoured_up_to_half_of_what_is_left() {
		for code in [429, 503, 409, 425, 502] {
			let asks = |wait: u64, time_left| {
				let retry_after = Some(Duration::from_secs(wait));
				let reply = Reply::Status { code, retry_after, too_late: false };
				match of(reply, Facts { time_left, ..facts() }) {
					Verdict::RetryAfter(pause) => pause,
					verdict => panic!("{verdict:?}"),
				}
			};
			assert_eq!(asks(7200, None), 2 * HOUR);
			assert!(asks(0, None) <= Duration::from_secs(5));
			assert_eq!(asks(7200, Some(HOUR)), HOUR / 2);
			assert!(asks(u64::MAX, Some(Duration::ZERO)) <= Duration::from_secs(1));
		}
	}

	/// No answer, age or deadline falls through, and only what says so ends a callback.
	#[test]
	fn every_answer_has_a_verdict() {
		for code in 0..=1000 {
			for too_late in [false, true] {
				for age in [Duration::ZERO, HOUR, 100 * HOUR] {
					for time_left in [None, Some(Duration::ZERO), Some(HOUR)] {
						let reply = Reply::Status { code, retry_after: None, too_late };
						let verdict = of(reply, Facts { age, time_left, ..facts() });
						let may_end = (300..500).contains(&code);
						let ends = matches!(verdict, Verdict::Dead | Verdict::Expired);
						assert!(may_end || !ends, "{code}: {verdict:?}");
						assert_eq!(verdict == Verdict::Done, (200..300).contains(&code));
					}
				}
			}
		}
	}
}
