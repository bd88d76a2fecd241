// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Keeping a log small: acks are folded together, and history that is past its time goes.
//!
//! Acks are written without looking, so they pile up. Every so many of them, one thread folds
//! neighbours into one record and moves the watermark, below which everything is acked and no
//! record is needed. What all consumers have acked, and what is past its retention, is trimmed:
//! first the entry, much later its id. All of it is committed lazily: lost in a crash, it is done
//! again.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use leyden_store::{Batch, Clock, Durability, KeyRange, Plan, Store};

use crate::consumer::Inner;
use crate::log::Shared;
use crate::pending::interval;
use crate::records::{self, AckV1, ConsumerV1, StreamV1, TombV1, ENTRIES, TOMBS};
use crate::types::Retention;
use crate::{lookup, LogError};

/// Acks after which they are folded together.
pub const ACKS_BETWEEN_COMPACTIONS: u64 = 256;
/// Records folded together in one go.
const COMPACT_AT_A_TIME: usize = 2048;
/// Entries, and ids, trimmed in one go.
const TRIM_AT_A_TIME: usize = 512;

impl Inner {
	/// Tidies up if it is time to, and nobody else is at it.
	pub(crate) fn tidy(&self) -> Result<(), LogError> {
		if self.acks.load(Ordering::SeqCst) < ACKS_BETWEEN_COMPACTIONS {
			return Ok(());
		}
		match self.tidying.try_lock() {
			Some(mut from) => self.tidy_from(&mut from),
			None => Ok(()),
		}
	}

	pub(crate) fn tidy_now(&self) -> Result<(), LogError> {
		self.tidy_from(&mut self.tidying.lock())
	}

	fn tidy_from(&self, from: &mut Option<KeyRange>) -> Result<(), LogError> {
		self.acks.store(0, Ordering::SeqCst);
		let before = self.bounds.watermark.load(Ordering::SeqCst);
		self.compact(from)?;
		if self.bounds.watermark.load(Ordering::SeqCst) > before {
			self.log.shared.trim()?;
		}
		Ok(())
	}

	/// Folds acks into the watermark and into each other. `from` is where the last time ended, if
	/// it did not come to the end; the beginning is looked at each time, since that is where the
	/// watermark moves.
	fn compact(&self, from: &mut Option<KeyRange>) -> Result<(), LogError> {
		let range = from.take().unwrap_or_else(|| self.keys.acks());
		let watermark = self.bounds.watermark.load(Ordering::SeqCst);
		let at_a_time = COMPACT_AT_A_TIME.min(most_pairs(self.log.store()));
		let page = self.log.store().scan(range, at_a_time).wait()?;
		let mut fold = Fold { watermark, run: None, merged: Vec::new(), folded: Vec::new() };
		for (key, _) in &page.records {
			let (first, last) = interval(&self.keys, key)?;
			fold.add(first, last);
		}
		fold.end_run();
		*from = page.rest;
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		for (first, last) in &fold.folded {
			batch.delete(self.keys.ack(*first, *last));
		}
		for (first, last) in &fold.merged {
			batch.put(self.keys.ack(*first, *last), records::value(&AckV1));
		}
		if fold.watermark > watermark {
			let record = ConsumerV1 { watermark: fold.watermark };
			batch.put(self.keys.consumer.clone(), records::value(&record));
		}
		if batch.is_empty() {
			return Ok(());
		}
		Plan::of(batch).run(self.log.store())?;
		self.bounds.watermark.store(fold.watermark, Ordering::SeqCst);
		Ok(())
	}
}

/// First and last index of an ack.
type Span = (u64, u64);

/// Acks, folded. They come in order of their first index, and may overlap if something was acked
/// twice.
struct Fold {
	watermark: u64,
	/// Neighbours so far, and the records that they are.
	run: Option<(Span, Vec<Span>)>,
	/// What is to be written.
	merged: Vec<Span>,
	/// What is to be removed.
	folded: Vec<Span>,
}

impl Fold {
	fn add(&mut self, first: u64, last: u64) {
		if first <= self.watermark.saturating_add(1) {
			self.watermark = self.watermark.max(last);
			self.folded.push((first, last));
			return;
		}
		match &mut self.run {
			Some(((_, end), records)) if first <= end.saturating_add(1) => {
				*end = last.max(*end);
				records.push((first, last));
			},
			_ => {
				self.end_run();
				self.run = Some(((first, last), vec![(first, last)]));
			},
		}
	}

	fn end_run(&mut self) {
		let Some((whole, records)) = self.run.take() else { return };
		if records.len() > 1 {
			// The merged record may be one of those it is made of.
			self.folded.extend(records.into_iter().filter(|record| *record != whole));
			self.merged.push(whole);
		}
	}
}

impl Shared {
	/// Trims entries that everyone has acked and that are past their retention, and ids past
	/// theirs.
	fn trim(&self) -> Result<(), LogError> {
		let Some(stream) = lookup::stream(&self.store, &self.keys)? else { return Ok(()) };
		let acked_by_all = self.lowest_watermark()?;
		let head = self.head.load(Ordering::SeqCst);
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);

		let mut trimmed = stream.trimmed;
		let oldest = KeyRange::prefix(ENTRIES, self.keys.prefix());
		let at_a_time = TRIM_AT_A_TIME.min(most_pairs(&self.store));
		if past(&self.options.history, head, stream.trimmed.saturating_add(1)) {
			for (key, record) in &self.store.scan(oldest, at_a_time).wait()?.records {
				let Some(index) = key.number(self.keys.prefix()) else { break };
				let entry: records::EntryV1 = records::read(key, record)?;
				let age = self.clock.now().since(entry.appended_at);
				let keep = index > acked_by_all || age < self.options.history.min_age;
				if keep || !past(&self.options.history, head, index) {
					break;
				}
				let tomb = TombV1 { id: entry.occurrence(), appended_at: entry.appended_at };
				batch.delete(key.clone());
				batch.put(self.keys.tomb(index), records::value(&tomb));
				trimmed = index;
			}
		}
		if trimmed > stream.trimmed {
			let record = StreamV1 { trimmed, ..stream };
			batch.put(self.keys.stream(), records::value(&record));
		}
		self.run(batch)?;
		self.trim_ids(head, at_a_time)
	}

	fn trim_ids(&self, head: u64, at_a_time: usize) -> Result<(), LogError> {
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		let keep = &self.options.tombstones;
		let oldest = KeyRange::prefix(TOMBS, self.keys.prefix());
		for (key, record) in &self.store.scan(oldest, at_a_time).wait()?.records {
			let Some(index) = key.number(self.keys.prefix()) else { break };
			let tomb: TombV1 = records::read(key, record)?;
			let age = self.clock.now().since(tomb.appended_at);
			if age < keep.min_age || !past(keep, head, index) {
				break;
			}
			batch.delete(key.clone());
			batch.delete(self.keys.id(&tomb.id));
		}
		self.run(batch)
	}

	fn run(&self, batch: Batch) -> Result<(), LogError> {
		match batch.is_empty() {
			true => Ok(()),
			false => Ok(Plan::of(batch).run(&self.store)?),
		}
	}

	fn lowest_watermark(&self) -> Result<u64, LogError> {
		let (mut lowest, mut rest) = (u64::MAX, Some(self.keys.consumers()));
		while let Some(range) = rest.take() {
			let page = self.store.scan(range, TRIM_AT_A_TIME).wait()?;
			for (key, record) in &page.records {
				lowest = lowest.min(records::read::<ConsumerV1>(key, record)?.watermark);
			}
			rest = page.rest;
		}
		Ok(lowest)
	}
}

/// How often two records, and one more, can be written in one batch.
fn most_pairs(store: &Arc<dyn Store>) -> usize {
	(store.guarantees().max_writes.saturating_sub(1) / 2).max(1)
}

/// Whether enough newer entries are there.
fn past(retention: &Retention, head: u64, index: u64) -> bool {
	head.saturating_sub(index) >= retention.min_count
}

#[cfg(test)]
mod tests {
	use super::*;

	fn fold(watermark: u64, acks: &[(u64, u64)]) -> Fold {
		let mut fold = Fold { watermark, run: None, merged: Vec::new(), folded: Vec::new() };
		acks.iter().for_each(|(first, last)| fold.add(*first, *last));
		fold.end_run();
		fold
	}

	#[test]
	fn neighbours_become_one_and_the_watermark_moves_over_what_joins_it() {
		let done = fold(3, &[(4, 4), (5, 9), (11, 11), (12, 12), (14, 14)]);
		assert_eq!(done.watermark, 9);
		assert_eq!(done.merged, [(11, 12)]);
		assert_eq!(done.folded, [(4, 4), (5, 9), (11, 11), (12, 12)]);
	}

	#[test]
	fn what_was_acked_twice_folds_without_losing_anything() {
		let done = fold(0, &[(2, 2), (5, 9), (6, 6), (7, 12)]);
		assert_eq!(done.watermark, 0);
		assert_eq!(done.merged, [(5, 12)]);
		assert_eq!(done.folded, [(5, 9), (6, 6), (7, 12)]);
		// A record that already is the whole stays.
		let done = fold(0, &[(5, 9), (6, 6)]);
		assert_eq!(
			(done.merged.as_slice(), done.folded.as_slice()),
			(&[(5, 9)][..], &[(6, 6)][..])
		);
	}
}
