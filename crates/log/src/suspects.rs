// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The entries for which processes may have ended, as a state machine that writes nothing.
//!
//! An event can end its process each time that it is handled. Before an entry is delivered that was
//! there when the log was opened, a *mark* is written; it goes with the ack. An entry whose mark is
//! found by the next process has one crash more. From [`ALONE_AFTER_CRASHES`] on it is delivered
//! alone, so that no other entry is taken for it, and at the consumer's limit it is a dead letter.
//!
//! A process that ends because of an entry does so within [`ENDS_WITHIN`]. After that the mark is
//! taken back, and nothing waits for the entry any more: a handler may take hours.

use std::collections::HashMap;
use std::time::Duration;

use leyden_store::{Timestamp, Version};

use crate::records::RetryV1;

/// The time within which a process ends because of an entry that it was given.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// The number of crashes from which on an entry is delivered alone.
const ALONE_AFTER_CRASHES: u32 = 3;

/// The suspects of one consumer. All times are running time.
#[derive(Default)]
pub(crate) struct Suspects {
	/// The last entry that was there when the log was opened. Later entries are of this process.
	there_before: u64,
	/// The number of deliveries that are still marked.
	marks_left: usize,
	/// The marks of deliveries that are in somebody's hands.
	marked: HashMap<u64, Mark>,
	/// The marks of deliveries that were released in order.
	released: HashMap<u64, Mark>,
	/// The time until which one entry is delivered alone, or is to be.
	alone_until: Option<Timestamp>,
	/// The time of the last delivery.
	delivered_at: Timestamp,
}

/// The record of a delivery by which a crash is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mark {
	/// The record that was there before, without its crashes: a process that went on breaks the row.
	pub(crate) before: Option<RetryV1>,
	/// The version of the mark.
	pub(crate) version: Version,
	since: Timestamp,
}

/// The verdict on an entry that may be delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
	/// The entry is delivered.
	Deliver,
	/// The entry waits until others are settled, or were delivered long ago.
	Wait,
	/// The entry is a dead letter.
	Park,
}

impl Suspects {
	/// Returns the suspects of a log that had entries up to `there_before` when it was opened, of
	/// which as many deliveries are marked as `marks` says.
	pub(crate) fn new(there_before: u64, marks: usize) -> Self {
		Self { there_before, marks_left: marks, ..Self::default() }
	}

	/// Returns `true` while nothing may be delivered because one entry is alone.
	pub(crate) fn holds(&mut self, in_flight: usize, now: Timestamp) -> bool {
		let holds = in_flight > 0 && self.alone_until.is_some_and(|until| now < until);
		if !holds {
			self.alone_until = None;
		}
		holds
	}

	/// Judges an entry with this many crashes.
	pub(crate) fn judge(
		&mut self, crashes: u32, max_crashes: Option<u32>, in_flight: usize, now: Timestamp,
	) -> Verdict {
		if crashes > 0 && max_crashes.is_some_and(|most| crashes >= most) {
			return Verdict::Park;
		}
		if crashes < ALONE_AFTER_CRASHES {
			return Verdict::Deliver;
		}
		let others_are_old = now.since(self.delivered_at) >= ENDS_WITHIN;
		if in_flight == 0 || others_are_old {
			self.alone_until = Some(now.after(ENDS_WITHIN));
			return Verdict::Deliver;
		}
		self.alone_until = Some(self.delivered_at.after(ENDS_WITHIN));
		Verdict::Wait
	}

	/// Returns `true` if the delivery of the entry at `index` is to be marked.
	pub(crate) fn counts(&self, index: u64) -> bool {
		index <= self.there_before && self.marks_left > 0
	}

	/// Notes that an entry is delivered.
	pub(crate) fn delivered(&mut self, now: Timestamp) {
		self.delivered_at = now;
	}

	/// Notes that the mark of an entry was written over the record `before`.
	pub(crate) fn marked(
		&mut self, index: u64, before: Option<RetryV1>, version: Version, now: Timestamp,
	) {
		self.marks_left = self.marks_left.saturating_sub(1);
		let before = before.map(|before| RetryV1 { crashes: 0, ..before });
		// Released before, and marked again: what was there at first is put back in the end.
		let before = self.released.remove(&index).map_or(before, |mark| mark.before);
		self.marked.insert(index, Mark { before, version, since: now });
	}

	/// Notes that what became of a delivery is written: its mark is gone.
	pub(crate) fn settled(&mut self, index: u64) {
		self.marked.remove(&index);
		self.released.remove(&index);
	}

	/// Notes that a delivery was dropped. In the middle of a panic its mark stays, since the process
	/// may end of it.
	pub(crate) fn dropped(&mut self, index: u64, in_order: bool) {
		let mark = self.marked.remove(&index).filter(|_| in_order);
		self.released.extend(mark.map(|mark| (index, mark)));
	}

	/// Returns the marks of entries that were delivered long ago, to be taken back.
	pub(crate) fn take_old(&mut self, now: Timestamp) -> Vec<(u64, Mark)> {
		let mut old = Vec::new();
		for marks in [&mut self.marked, &mut self.released] {
			marks.retain(|index, mark| {
				let is_old = now.since(mark.since) >= ENDS_WITHIN;
				if is_old {
					old.push((*index, *mark));
				}
				!is_old
			});
		}
		old
	}

	/// Returns the marks of deliveries that were released in order, to be taken back at the end.
	pub(crate) fn take_released(&mut self) -> Vec<(u64, Mark)> {
		self.released.drain().collect()
	}

	/// Returns the next time at which something changes by itself.
	pub(crate) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
		// At the consumer's limit nobody looks whether it is over.
		let alone = self.alone_until.filter(|until| *until > now);
		let old = self.marked.values().map(|mark| mark.since.after(ENDS_WITHIN)).min();
		alone.into_iter().chain(old).min()
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	const T: fn(u64) -> Timestamp = |seconds| Timestamp(seconds * 1_000);

	/// Every row of the verdicts.
	#[test]
	fn the_verdicts() {
		use Verdict::{Deliver, Park, Wait};
		for (crashes, max_crashes, in_flight, delivered, now, verdict) in [
			(0, Some(0), 9, 100, 100, Deliver),
			(1, Some(1), 9, 100, 100, Park),
			(9, Some(10), 0, 100, 100, Deliver),
			(10, Some(10), 0, 100, 100, Park),
			(11, Some(10), 0, 100, 100, Park),
			(10, None, 0, 100, 100, Deliver),
			(2, Some(10), 9, 100, 100, Deliver),
			(3, Some(10), 1, 100, 100, Wait),
			(3, Some(10), 1, 100, 129, Wait),
			(3, Some(10), 1, 100, 130, Deliver),
		] {
			let mut suspects = Suspects::new(9, 9);
			suspects.delivered(T(delivered));
			let found = suspects.judge(crashes, max_crashes, in_flight, T(now));
			assert_eq!(found, verdict, "{crashes} of {max_crashes:?}, {in_flight}, {now}");
			// Nothing else comes before what is alone is done or old.
			let until = if verdict == Wait { delivered + 30 } else { now + 30 };
			let is_alone = crashes >= ALONE_AFTER_CRASHES && verdict != Park;
			assert_eq!(suspects.next_change(T(now)), is_alone.then_some(T(until)));
			assert_eq!(suspects.holds(1, T(until - 1)), is_alone);
			// At the consumer's limit nobody looks whether it is over.
			assert_eq!(suspects.next_change(T(until)), None);
			assert!(!suspects.holds(1, T(until)));
		}
		let mut suspects = Suspects::new(9, 9);
		suspects.judge(3, None, 0, T(1));
		assert!(!suspects.holds(0, T(2)), "it is settled");
	}
}
