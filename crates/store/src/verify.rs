// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The findings of a check of a store.

use std::collections::BTreeSet;

use crate::error::StoreError;
use crate::key::{Key, KeyRange, Table};
use crate::record::Record;
use crate::store::Store;

/// The number of records that are read in one go.
const PAGE: usize = 1_000;

/// The damaged and missing records that a check has found, each once.
#[derive(Clone, Debug)]
pub struct Findings {
	told: Vec<StoreError>,
	known: BTreeSet<(Table, String)>,
	most: usize,
	left_out: u64,
	records: u64,
	/// The most records that are read.
	up_to: u64,
	/// The number of records, weighted by size, that were read.
	read: u64,
	cut_short: bool,
}

impl Findings {
	/// Makes room for `most` findings. Those that come later are counted.
	pub fn new(most: usize) -> Self {
		Self {
			told: Vec::new(),
			known: BTreeSet::new(),
			most,
			left_out: 0,
			records: 0,
			up_to: u64::MAX,
			read: 0,
			cut_short: false,
		}
	}

	/// Ends the check after about so many records: after the page in which the last of them is. A large
	/// record counts as one for each 4 KiB that it begins, and so does a damaged one as one.
	#[must_use]
	pub fn up_to(mut self, records: u64) -> Self {
		self.up_to = records;
		self
	}

	/// Returns `true` if the check has ended early, so that not all that is missing was found.
	pub fn is_cut_short(&self) -> bool {
		self.cut_short
	}

	/// Returns what is wrong, as [`StoreError::Corrupt`] and [`StoreError::Newer`].
	pub fn errors(&self) -> &[StoreError] {
		&self.told
	}

	/// Returns the number of findings for which there was no room.
	pub fn left_out(&self) -> u64 {
		self.left_out
	}

	/// Returns the number of records that were read and are in order.
	pub fn records(&self) -> u64 {
		self.records
	}

	/// Returns `true` if nothing was found.
	pub fn is_clean(&self) -> bool {
		self.told.is_empty() && self.left_out == 0
	}

	/// Adds a finding, unless it was found before.
	pub fn add(&mut self, error: StoreError) {
		if let StoreError::Corrupt { table, key, .. } = &error {
			if self.known.contains(&(*table, key.clone())) {
				return;
			}
			if self.told.len() < self.most {
				self.known.insert((*table, key.clone()));
			}
		}
		if self.told.len() < self.most {
			self.told.push(error);
		} else {
			self.left_out += 1;
		}
	}

	/// Takes what was read, or makes a finding of the error if it is one.
	///
	/// # Errors
	/// The error, if it says nothing about the record.
	pub fn take<T>(&mut self, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
		match read {
			Ok(read) => Ok(Some(read)),
			Err(error) if is_finding(&error) => {
				self.add(error);
				Ok(None)
			},
			Err(error) => Err(error),
		}
	}

	/// Reads every record of `range` and counts it. A damaged one is a finding and is passed over.
	///
	/// # Errors
	/// The store's, and those of `f`.
	pub fn each<E: From<StoreError>>(
		&mut self, store: &dyn Store, range: KeyRange,
		mut f: impl FnMut(&Key, &Record, &mut Self) -> Result<(), E>,
	) -> Result<(), E> {
		// What comes next is at the end.
		let mut left = vec![range];
		while let Some(range) = left.pop() {
			if self.read >= self.up_to {
				self.cut_short = true;
				return Ok(());
			}
			let page = match store.scan(range.clone(), PAGE).wait() {
				Ok(page) => page,
				Err(error) => {
					let damaged = damaged_key(&error).filter(|key| range.contains(key));
					let is_finding = is_finding(&error);
					if !is_finding {
						return Err(error.into());
					}
					self.read += 1;
					self.add(error);
					// Without a place in the range there is no way on: the engine's index is damaged.
					if let Some(key) = damaged {
						left.push(range.clone().after(&key));
						// Those before it were not handed out.
						left.push(range.below(&key));
					}
					continue;
				},
			};
			left.extend(page.rest);
			for (key, record) in &page.records {
				self.records += 1;
				self.read += 1 + record.value.body.len() as u64 / 4096;
				f(key, record, self)?;
			}
		}
		Ok(())
	}
}

/// Returns `true` if the error says something about what is in the store, and not about the way there.
pub fn is_finding(error: &StoreError) -> bool {
	use StoreError::{Corrupt, Newer, NotAStore};
	matches!(error, Corrupt { .. } | Newer { .. } | NotAStore { .. })
}

/// Returns the key that the error calls damaged.
pub fn damaged_key(error: &StoreError) -> Option<Vec<u8>> {
	let StoreError::Corrupt { key, .. } = error else { return None };
	let two = |at: usize| key.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
	(0..key.len()).step_by(2).map(two).collect()
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::{Batch, MemoryStore, RecordType, Value};

	const T: Table = Table::new("t");

	#[test]
	fn the_key_of_a_damaged_record_reads_back() {
		let key = Key::new(T, vec![0, 1, 0xab, 0xff]);
		let error = StoreError::corrupt(&key, "no");
		assert_eq!(damaged_key(&error).as_deref(), Some(key.bytes()));
		assert_eq!(damaged_key(&StoreError::invalid("no")), None);
	}

	#[test]
	fn a_finding_is_told_once_and_too_many_are_counted() {
		let mut findings = Findings::new(2);
		for n in [1_u8, 1, 2, 2, 3, 4] {
			findings.add(StoreError::corrupt(&Key::new(T, vec![n]), "no"));
		}
		assert_eq!((findings.errors().len(), findings.left_out()), (2, 2));
		assert!(!findings.is_clean() && Findings::new(1).is_clean());
	}

	#[test]
	fn every_record_is_read_once_over_many_pages() {
		let store = MemoryStore::new().unwrap();
		let mut batch = Batch::new();
		for n in 0..2_500 {
			batch.put(Key::numbered(T, b"", n), Value::new(RecordType(0x8000), 1, vec![1]));
		}
		store.commit(batch).wait().unwrap();
		let mut findings = Findings::new(9);
		let mut seen = Vec::new();
		findings
			.each::<StoreError>(&store, KeyRange::all(T), |key, _, _| {
				seen.push(key.number(b"").unwrap());
				Ok(())
			})
			.unwrap();
		assert_eq!(seen, (0..2_500).collect::<Vec<_>>());
		assert_eq!(findings.records(), 2_500);
	}
}
