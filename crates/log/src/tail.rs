// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The newest entries, kept in memory: who keeps up with the log is not made to read what was
//! written a moment ago, nor to wait for a flush that is under way.
//!
//! Entries do not change, and come here when they are durable. Its lock is a leaf: it is taken by
//! hooks on the committing thread.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::types::Entry;

/// Entries kept.
const MAX_ENTRIES: usize = 256;
/// Bytes of their payloads.
const MAX_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(crate) struct Tail(Mutex<Kept>);

#[derive(Default)]
struct Kept {
	/// Without a gap.
	entries: VecDeque<Entry>,
	bytes: usize,
}

impl Tail {
	/// Takes an entry that is durable, after those before it.
	pub(crate) fn push(&self, entry: Entry) {
		let mut kept = self.0.lock();
		let Kept { entries, bytes } = &mut *kept;
		let follows = entries.back().is_some_and(|last| last.index.get() + 1 == entry.index.get());
		if !follows {
			// Somebody else appended in between.
			entries.clear();
			*bytes = 0;
		}
		*bytes += entry.payload().len();
		entries.push_back(entry);
		while entries.len() > MAX_ENTRIES || *bytes > MAX_BYTES {
			let Some(oldest) = entries.pop_front() else { break };
			*bytes -= oldest.payload().len();
		}
	}

	/// Up to `limit` entries from index `first` on; none if that one is not kept.
	pub(crate) fn from(&self, first: u64, limit: usize) -> Vec<Entry> {
		let kept = self.0.lock();
		let oldest = kept.entries.front().map_or(u64::MAX, |entry| entry.index.get());
		let Some(skip) = first.checked_sub(oldest).and_then(|n| usize::try_from(n).ok()) else {
			return Vec::new();
		};
		kept.entries.iter().skip(skip).take(limit).cloned().collect()
	}
}

#[cfg(test)]
mod tests {
	use leyden_id::{EventId, EventKind, Lane};
	use leyden_store::Timestamp;

	use super::*;
	use crate::label::Label;
	use crate::records::EntryV1;
	use crate::types::LogIndex;

	fn entry(index: u64, bytes: usize) -> Entry {
		let label = Label::new(EventId::from_bytes([1; 32]), 0, Lane::payment([2; 32]), 0);
		let kind = EventKind::from_static("Kind");
		let record = EntryV1::new(label, kind, Timestamp(0), vec![0; bytes]);
		Entry { index: LogIndex::new(index).unwrap(), record }
	}

	fn indices(tail: &Tail, first: u64, limit: usize) -> Vec<u64> {
		tail.from(first, limit).iter().map(|entry| entry.index.get()).collect()
	}

	#[test]
	fn it_answers_only_for_what_it_has_without_a_gap() {
		let tail = Tail::default();
		assert!(indices(&tail, 1, 9).is_empty());
		(3..=6).for_each(|n| tail.push(entry(n, 1)));
		assert!(indices(&tail, 2, 9).is_empty(), "2 is in the store");
		assert_eq!(indices(&tail, 3, 2), [3, 4]);
		assert_eq!(indices(&tail, 6, 9), [6]);
		assert!(indices(&tail, 7, 9).is_empty());
		tail.push(entry(8, 1));
		assert!(indices(&tail, 6, 9).is_empty(), "7 would be skipped");
		assert_eq!(indices(&tail, 8, 9), [8]);
	}

	#[test]
	fn it_is_bounded_in_entries_and_in_bytes() {
		let tail = Tail::default();
		(1..=1000).for_each(|n| tail.push(entry(n, 1)));
		assert_eq!(tail.from(1001 - MAX_ENTRIES as u64, usize::MAX).len(), MAX_ENTRIES);
		tail.push(entry(1001, MAX_BYTES - 10));
		assert_eq!(indices(&tail, 992, usize::MAX).len(), 10);
		tail.push(entry(1002, MAX_BYTES + 1));
		assert!(indices(&tail, 1002, 1).is_empty(), "one that is too large is not kept");
		tail.push(entry(1003, 1));
		assert_eq!(indices(&tail, 1003, 1), [1003]);
	}
}
