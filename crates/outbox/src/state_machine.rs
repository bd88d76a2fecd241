// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The state machine of a callback: from its record, what a try came to, and the time, to what becomes of
//! it. [`Outbox`](crate::Outbox) writes that down.

use std::time::Duration;

use leyden_store::Times;

use crate::records::{DoubtV1, OpenV1};
use crate::response::{Taken, TryOutcome, Verdict};

/// A try that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Try<'a> {
	pub(crate) verdict: &'a Verdict,
	pub(crate) outcome: TryOutcome,
	/// Whether the answer was that what the callback is about is not found; `None` without an answer.
	pub(crate) is_not_found: Option<bool>,
}

/// What becomes of a callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
	/// It was taken.
	Done,
	/// It is still to be sent.
	Open(OpenV1),
	/// It is still to be sent, and its endpoint is only probed.
	Paused(OpenV1),
	/// It is a dead letter.
	Dead(Taken),
	/// It is too late for it.
	Expired(Taken),
}

/// Decides what becomes of a callback after a try.
pub(crate) fn after_try(open: &OpenV1, ended: Try<'_>, now: &Times) -> Next {
	let doubt = match (open.doubt, ended.outcome) {
		// A refusal of this try says nothing about an earlier one.
		(DoubtV1::InDoubt, _) | (_, TryOutcome::Unknown | TryOutcome::Taken) => DoubtV1::InDoubt,
		(_, TryOutcome::NotTaken) => DoubtV1::None,
	};
	let not_found_ms = match ended.is_not_found {
		Some(true) => Some(open.not_found_ms.unwrap_or(now.lived_ms)),
		// It was there, or nothing is known of it any more.
		Some(false) => None,
		None => open.not_found_ms,
	};
	let again = |pause: Duration, failures: u32| OpenV1 {
		due: now.running.after(pause),
		failures: open.failures.saturating_add(failures),
		doubt,
		not_found_ms,
	};
	match ended.verdict {
		Verdict::Done => Next::Done,
		Verdict::RetryAfter(pause) => Next::Open(again(*pause, 1)),
		Verdict::Snooze(pause) => Next::Open(again(*pause, 0)),
		Verdict::Pause => Next::Paused(OpenV1 { doubt, not_found_ms, ..*open }),
		Verdict::Dead => Next::Dead(taken(doubt)),
		Verdict::Expired => Next::Expired(taken(doubt)),
	}
}

/// What the record of a callback says that is about to be sent.
pub(crate) fn before_try(open: &OpenV1) -> OpenV1 {
	let doubt = match open.doubt {
		DoubtV1::None => DoubtV1::Sent,
		// The process of the last try has ended, or the try took too long.
		DoubtV1::Sent | DoubtV1::InDoubt => DoubtV1::InDoubt,
	};
	OpenV1 { doubt, ..*open }
}

/// Whether a callback with this record may have been taken.
pub(crate) fn taken(doubt: DoubtV1) -> Taken {
	match doubt {
		DoubtV1::None => Taken::No,
		DoubtV1::Sent | DoubtV1::InDoubt => Taken::Maybe,
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use leyden_store::Timestamp;

	const NOW: Times = Times {
		wall: Timestamp(100),
		running: Timestamp(100),
		steady: Timestamp(100),
		followed_ms: 0,
		lived_ms: 50,
		latest: Timestamp(100),
	};

	fn open(doubt: DoubtV1) -> OpenV1 {
		OpenV1 { due: Timestamp(10), failures: 2, doubt, not_found_ms: None }
	}

	/// Every verdict, for every outcome and every doubt: once a try was not definite, no later refusal
	/// takes the doubt away (A4).
	#[test]
	fn the_table() {
		use DoubtV1::{InDoubt, None, Sent};
		use TryOutcome::{NotTaken, Taken as WasTaken, Unknown};
		let pause = Duration::from_millis(7);
		for (before, outcome, after) in [
			(None, NotTaken, None),
			(Sent, NotTaken, None),
			(InDoubt, NotTaken, InDoubt),
			(None, Unknown, InDoubt),
			(Sent, Unknown, InDoubt),
			(InDoubt, Unknown, InDoubt),
			// Taken, and looked at again: it has been taken.
			(None, WasTaken, InDoubt),
			(Sent, WasTaken, InDoubt),
			(InDoubt, WasTaken, InDoubt),
		] {
			let next = |verdict: Verdict| {
				let ended = Try { verdict: &verdict, outcome, is_not_found: Option::None };
				after_try(&open(before), ended, &NOW)
			};
			let again = OpenV1 { due: Timestamp(107), failures: 3, ..open(after) };
			assert_eq!(next(Verdict::RetryAfter(pause)), Next::Open(again));
			let snoozed = OpenV1 { failures: 2, ..again };
			assert_eq!(next(Verdict::Snooze(pause)), Next::Open(snoozed));
			assert_eq!(next(Verdict::Pause), Next::Paused(open(after)));
			assert_eq!(next(Verdict::Done), Next::Done);
			let expected = if after == None { Taken::No } else { Taken::Maybe };
			assert_eq!(next(Verdict::Dead), Next::Dead(expected), "{before:?}, {outcome:?}");
			assert_eq!(next(Verdict::Expired), Next::Expired(expected), "{before:?}, {outcome:?}");
		}
	}

	#[test]
	fn a_try_is_marked_before_it_is_sent() {
		for (before, marked) in [
			(DoubtV1::None, DoubtV1::Sent),
			(DoubtV1::Sent, DoubtV1::InDoubt),
			(DoubtV1::InDoubt, DoubtV1::InDoubt),
		] {
			assert_eq!(before_try(&open(before)), open(marked));
			assert_eq!(taken(marked), Taken::Maybe);
		}
		assert_eq!(taken(DoubtV1::None), Taken::No);
	}

	/// The time of an answer "not found" is that of the first one in a row.
	#[test]
	fn the_first_time_that_it_was_not_found_stays_until_another_answer() {
		let verdict = Verdict::RetryAfter(Duration::ZERO);
		let ended =
			|is_not_found| Try { verdict: &verdict, outcome: TryOutcome::NotTaken, is_not_found };
		let next = |open: &OpenV1, is_not_found: Option<bool>| match after_try(
			open,
			ended(is_not_found),
			&NOW,
		) {
			Next::Open(open) => open.not_found_ms,
			next => panic!("{next:?}"),
		};
		let fresh = open(DoubtV1::None);
		assert_eq!(next(&fresh, Some(true)), Some(50));
		assert_eq!(next(&fresh, Some(false)), None);
		let known = OpenV1 { not_found_ms: Some(20), ..fresh };
		assert_eq!((next(&known, Some(true)), next(&known, None)), (Some(20), Some(20)));
		// Two that are hours apart are two.
		assert_eq!(next(&known, Some(false)), None);
	}
}
