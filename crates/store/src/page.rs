// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a scan answers.

use crate::error::StoreError;
use crate::frame;
use crate::key::{Key, KeyRange};
use crate::record::Record;

/// Most bytes of bodies in one page (8 MiB), so that a scan over large records needs no more memory
/// than one over small ones. A page always holds at least one record if there is one.
pub const MAX_PAGE_BYTES: usize = 8 << 20;

/// Some records, in the order of their range.
#[derive(Clone, Debug)]
pub struct Page {
	/// The records.
	pub records: Vec<(Key, Record)>,
	/// What to scan for more; `None` at the end. It begins behind the last record of this page, so
	/// it neither misses nor repeats a record that was there all the while, whatever others write
	/// meanwhile.
	pub rest: Option<KeyRange>,
}

/// For backends: fills a page record by record until it is full.
#[derive(Debug)]
pub struct PageBuilder {
	range: KeyRange,
	limit: usize,
	bytes: usize,
	records: Vec<(Key, Record)>,
}

impl PageBuilder {
	/// An empty page of at most `limit` records of `range`.
	pub fn new(range: KeyRange, limit: usize) -> Self {
		Self { range, limit: limit.max(1), bytes: 0, records: Vec::new() }
	}

	/// Whether nothing more fits. A backend stops reading then.
	pub fn is_full(&self) -> bool {
		self.records.len() >= self.limit || self.bytes >= MAX_PAGE_BYTES
	}

	/// Adds the next record.
	pub fn push(&mut self, key: Key, record: Record) {
		self.bytes += record.value.body.len();
		self.records.push((key, record));
	}

	/// Adds the next record, from its frame.
	///
	/// # Errors
	/// [`StoreError::Corrupt`] or [`StoreError::Newer`]; the record is not skipped. `Corrupt` also for
	/// a key that is not in the range, or not behind the last one: an engine whose index is damaged
	/// may hand out the same records for ever.
	pub fn push_frame(&mut self, key: Key, frame: &[u8]) -> Result<(), StoreError> {
		let last = self.records.last().map(|(last, _)| last.bytes());
		let in_order = match (last, self.range.is_reversed()) {
			(None, _) => true,
			(Some(last), false) => last < key.bytes(),
			(Some(last), true) => last > key.bytes(),
		};
		if !in_order || !self.range.contains(key.bytes()) {
			let reason = "it is not where it belongs: the engine's index is damaged";
			return Err(StoreError::corrupt(&key, reason));
		}
		let record = frame::decode(&key, frame)?;
		self.push(key, record);
		Ok(())
	}

	/// The page. If it is full there may be more behind it.
	pub fn build(self) -> Page {
		let full = self.is_full();
		let rest = match self.records.last() {
			Some((last, _)) if full => Some(self.range.after(last.bytes())),
			_ => None,
		};
		Page { records: self.records, rest: rest.filter(|range| !range.is_empty()) }
	}
}
