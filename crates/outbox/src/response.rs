// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The meaning of an answer over HTTP, as a pure function: [`classify_response`].

use std::time::Duration;

use crate::schedule::Schedule;

/// What came back for a callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
	/// An answer with this status. The status line is the answer, whatever becomes of the body.
	Status {
		/// The status.
		code: u16,
		/// The wish of the header `Retry-After`.
		retry_after: Option<Duration>,
		/// The answer says that the deadline has passed, or is too near.
		too_late: bool,
		/// The answer is a refusal because the clocks of both sides differ.
		clock_skew: bool,
	},
	/// No answer in time. What became of the callback is not known.
	Timeout,
	/// No connection: refused, no such host, no route, or TLS failed. Nothing was sent.
	NoConnection,
	/// The connection ended before the status came, or what came is no HTTP. What became of the callback
	/// is not known.
	Broken,
	/// A refusal (4xx) whose body ended too soon: the reason is not known, which may have been that it is
	/// too late.
	Unexplained,
	/// The endpoint is one to which nothing is sent (a private address, plain HTTP).
	Forbidden,
}

/// Whether a callback may have been taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
	/// It was not taken: nothing was sent, or every try was refused for certain.
	No,
	/// It may have been taken: a try has ended without a definite answer, or its process has ended. What
	/// hangs on it must not be given back before the own ledger was asked.
	Maybe,
}

/// What one try says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TryOutcome {
	/// This try was taken, or an earlier one was.
	Taken,
	/// This try was refused, or nothing was sent. It says nothing about earlier tries.
	NotTaken,
	/// It is not known what became of this try.
	Unknown,
}

impl Reply {
	/// Makes an answer with nothing but a status.
	pub fn status(code: u16) -> Self {
		Self::Status { code, retry_after: None, too_late: false, clock_skew: false }
	}

	/// Returns what the reply says about this try.
	///
	/// A 5xx is not definite: a server may fail after it has taken a callback. A 408 and a 409 are not,
	/// either: a proxy may have passed the callback on, and another worker may be at it. A redirect is
	/// definite if it asks for the same request elsewhere (307, 308); others may follow a request that was
	/// carried out.
	pub fn outcome(&self) -> TryOutcome {
		match self {
			Self::Status { code: 200..=299, .. } => TryOutcome::Taken,
			Self::Status { code: 408 | 409, .. } => TryOutcome::Unknown,
			Self::Status { code: 307 | 308 | 400..=499, .. }
			| Self::Unexplained
			| Self::NoConnection
			| Self::Forbidden => TryOutcome::NotTaken,
			Self::Status { .. } | Self::Timeout | Self::Broken => TryOutcome::Unknown,
		}
	}

	/// Returns `true` if the endpoint lets this sender in: it was answered, and not with a refusal of the
	/// sender.
	pub(crate) fn lets_in(&self) -> bool {
		match self {
			Self::Status { code, clock_skew, .. } => {
				!clock_skew && !matches!(code, 401 | 403 | 410 | 500..=599)
			},
			_ => false,
		}
	}
}

/// What is known of a callback when it is classified.
#[derive(Clone, Copy, Debug)]
pub struct CallbackFacts {
	/// The number of its failures, with this one.
	pub failures: u32,
	/// The time since it was first answered that it is not found, or redirected; zero for the first time.
	pub not_found_for: Duration,
	/// The time that is left before its deadline, if it has one.
	pub time_left: Option<Duration>,
	/// The time for which a callback is tried that is not found, or is redirected.
	pub not_found_ttl: Duration,
	/// Any number, for the jitter.
	pub jitter: u64,
}

/// The decision about a callback after a try.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
	/// It was taken.
	Done,
	/// It is tried again, not before this has passed.
	RetryAfter(Duration),
	/// It is tried again, not before this has passed; it was no failure.
	Snooze(Duration),
	/// The endpoint does not let this sender in: it is only probed, slowly, until it does or an operator
	/// resumes it. The callback stays where it is.
	Pause,
	/// It is a dead letter: it will never be taken.
	Dead,
	/// It is too late for it.
	Expired,
}

/// Classifies a reply.
pub fn classify_response(reply: Reply, facts: &CallbackFacts, schedule: &Schedule) -> Verdict {
	let again = |at_least: Duration| {
		let pause = schedule.pause(facts.failures, facts.jitter, facts.time_left);
		// The other side's wish counts up to a limit, and as long as there is a try left afterwards.
		let most = facts.time_left.map_or(Duration::MAX, |left| left / 2).max(schedule.shortest);
		Verdict::RetryAfter(pause.max(at_least.min(schedule.longest_wish).min(most)))
	};
	let if_found_soon = || match facts.not_found_for < facts.not_found_ttl {
		true => again(Duration::ZERO),
		false => Verdict::Dead,
	};
	match reply {
		Reply::Status { code, retry_after, too_late, clock_skew } => match code {
			200..=299 => Verdict::Done,
			// Who is refused because it is too late must get back what was promised.
			400..=499 if too_late => Verdict::Expired,
			// Clocks are set right; nothing is lost by waiting.
			400..=499 if clock_skew => again(Duration::ZERO),
			// A token that is wrong will be put right; nothing is lost by waiting.
			401 | 403 | 410 => Verdict::Pause,
			// It may be early: what it is about is not there yet.
			404 => if_found_soon(),
			408 | 409 | 425 | 429 | 500..=599 => again(retry_after.unwrap_or_default()),
			// Not followed: the body would go to another than the endpoint.
			300..=399 => if_found_soon(),
			400..=499 => Verdict::Dead,
			// No status of HTTP's.
			_ => again(Duration::ZERO),
		},
		Reply::Timeout | Reply::NoConnection | Reply::Broken | Reply::Unexplained => {
			again(Duration::ZERO)
		},
		// What is configured wrongly is put right by an operator.
		Reply::Forbidden => Verdict::Pause,
	}
}

/// Whether this reply says that what the callback is about is not there; `None` without an answer.
pub(crate) fn is_not_found(reply: &Reply) -> Option<bool> {
	let Reply::Status { code, too_late, clock_skew, .. } = reply else { return None };
	Some(matches!(code, 404 | 300..=399) && !too_late && !clock_skew)
}

#[cfg(test)]
mod tests {
	use super::*;

	const HOUR: Duration = Duration::from_secs(3600);

	fn facts() -> CallbackFacts {
		CallbackFacts {
			failures: 1,
			not_found_for: Duration::ZERO,
			time_left: None,
			not_found_ttl: HOUR,
			jitter: 1,
		}
	}

	fn of(reply: Reply, facts: CallbackFacts) -> Verdict {
		classify_response(reply, &facts, &Schedule::default())
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
			let old = CallbackFacts { not_found_for: 1000 * HOUR, failures: 9_999, ..facts() };
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

	/// Early, or wrong for good: tried for a bounded time, from the first such answer on (A8).
	#[test]
	fn not_found_and_redirects_are_tried_for_a_bounded_time() {
		for code in [404, 301, 302, 303, 307, 308] {
			let at =
				|not_found_for| of(Reply::status(code), CallbackFacts { not_found_for, ..facts() });
			assert!(is_retry(&at(HOUR - Duration::from_millis(1))), "{code}");
			assert_eq!(at(HOUR), Verdict::Dead, "{code}");
		}
	}

	/// A refusal because it is too late is no dead letter: somebody's money waits for it.
	#[test]
	fn too_late_expires() {
		for code in [400, 404, 409, 422] {
			let reply =
				Reply::Status { code, retry_after: None, too_late: true, clock_skew: false };
			assert_eq!(of(reply, facts()), Verdict::Expired, "{code}");
		}
		let done =
			Reply::Status { code: 200, retry_after: None, too_late: true, clock_skew: false };
		assert_eq!(of(done, facts()), Verdict::Done);
	}

	#[test]
	fn retry_after_is_honoured_up_to_half_of_what_is_left() {
		for code in [429, 503, 409, 425, 502] {
			let asks = |wait: u64, time_left| {
				let retry_after = Some(Duration::from_secs(wait));
				let reply = Reply::Status { code, retry_after, too_late: false, clock_skew: false };
				match of(reply, CallbackFacts { time_left, ..facts() }) {
					Verdict::RetryAfter(pause) => pause,
					verdict => panic!("{verdict:?}"),
				}
			};
			assert_eq!(asks(1800, None), HOUR / 2);
			// Not 136 years (A6).
			assert_eq!(asks(u32::MAX.into(), None), HOUR);
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
						let reply =
							Reply::Status { code, retry_after: None, too_late, clock_skew: false };
						let not_found_for = age;
						let verdict =
							of(reply, CallbackFacts { not_found_for, time_left, ..facts() });
						let may_end = (300..500).contains(&code);
						let ends = matches!(verdict, Verdict::Dead | Verdict::Expired);
						assert!(may_end || !ends, "{code}: {verdict:?}");
						assert_eq!(verdict == Verdict::Done, (200..300).contains(&code));
					}
				}
			}
		}
	}

	/// A refusal because of clocks is tried again, and neither pauses the endpoint nor ends the callback.
	#[test]
	fn a_clock_that_is_wrong_is_waited_for() {
		for code in [400, 401, 403, 422] {
			let reply =
				Reply::Status { code, retry_after: None, too_late: false, clock_skew: true };
			assert!(is_retry(&of(reply, facts())), "{code}");
		}
	}

	/// Only a definite refusal says that a try was not taken.
	#[test]
	fn what_is_not_definite_leaves_a_doubt() {
		use TryOutcome::{NotTaken, Taken, Unknown};
		for (replies, expected) in [
			(vec![200, 204, 299], Taken),
			(vec![307, 308, 400, 401, 403, 404, 410, 422, 425, 429], NotTaken),
			(vec![100, 301, 302, 303, 408, 409, 500, 502, 503, 504, 599, 600, 999], Unknown),
		] {
			for code in replies {
				assert_eq!(Reply::status(code).outcome(), expected, "{code}");
			}
		}
		assert_eq!(Reply::NoConnection.outcome(), NotTaken);
		assert_eq!(Reply::Forbidden.outcome(), NotTaken);
		assert_eq!(Reply::Unexplained.outcome(), NotTaken);
		assert_eq!(Reply::Timeout.outcome(), Unknown);
		assert_eq!(Reply::Broken.outcome(), Unknown);
	}
}
