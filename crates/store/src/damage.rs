// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Reads that go on behind damaged records.

use crate::error::StoreError;
use crate::key::{Key, KeyRange};
use crate::page::Page;
use crate::record::Record;
use crate::store::Store;
use crate::verify::damaged_key;

/// A page in which damaged records have their place.
#[derive(Clone, Debug, Default)]
pub struct DamagedPage {
	/// The records, and for each damaged one the error that names it.
	pub records: Vec<(Key, Result<Record, StoreError>)>,
	/// The range of what comes next; `None` at the end.
	pub rest: Option<KeyRange>,
}

impl DamagedPage {
	/// Adds what a scan has answered.
	fn extend(&mut self, page: Page) {
		self.records.extend(page.records.into_iter().map(|(key, record)| (key, Ok(record))));
		self.rest = page.rest;
	}
}

/// Takes the answer of a scan of `range` for up to `limit` records. If a damaged record has ended the
/// scan, reads what is before and behind that record, so that one record stops nothing else.
///
/// # Errors
/// The store's. [`Corrupt`](StoreError::Corrupt) only if no single record is damaged: the index of the
/// engine is.
pub async fn read_around_damage(
	store: &dyn Store, range: KeyRange, limit: usize, scanned: Result<Page, StoreError>,
) -> Result<DamagedPage, StoreError> {
	let (mut left, mut found) = (range, DamagedPage::default());
	let (mut scanned, mut met) = (scanned, None);
	loop {
		let error = match scanned {
			Ok(page) => {
				found.extend(page);
				return Ok(found);
			},
			Err(error) => error,
		};
		let Some(key) = damaged_record(&error, &left) else { return Err(error) };
		if !matches!(store.get(&key).await, Err(StoreError::Corrupt { .. })) {
			// It was removed or replaced meanwhile. If it is met again, it is where it does not belong: the
			// index of the engine is damaged.
			if met.replace(key.clone()) == Some(key) {
				return Err(error);
			}
			scanned = store.scan(left.clone(), limit.saturating_sub(found.records.len())).await;
			continue;
		}
		let before = left.clone().before(key.bytes());
		if !before.is_empty() {
			// No damaged record can be in there: a scan ends with the first.
			found.extend(store.scan(before, limit.saturating_sub(found.records.len())).await?);
			if found.rest.is_some() {
				// They are large, or as many as were asked for.
				found.rest = found.records.last().map(|(last, _)| left.after(last.bytes()));
				return Ok(found);
			}
		}
		if found.records.len() < limit {
			left = left.after(key.bytes());
			found.records.push((key, Err(error)));
		}
		found.rest = Some(left.clone()).filter(|left| !left.is_empty());
		if found.records.len() >= limit || found.rest.is_none() {
			return Ok(found);
		}
		scanned = store.scan(left.clone(), limit - found.records.len()).await;
	}
}

/// Returns the key of the record in `range` that the error calls damaged.
fn damaged_record(error: &StoreError, range: &KeyRange) -> Option<Key> {
	let StoreError::Corrupt { table, .. } = error else { return None };
	let key = damaged_key(error).filter(|key| *table == range.table() && range.contains(key))?;
	Some(Key::new(range.table(), key))
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::{block_on, Batch, MemoryMedium, MemoryStore, Namespace, RecordType, Table, Value};

	const T: Table = Table::new("t");

	fn key(n: u64) -> Key {
		Key::numbered(T, b"x", n)
	}

	/// Returns a store with records 0 to 9, of which these are damaged.
	fn store(damaged: &[u64]) -> MemoryStore {
		let medium = MemoryMedium::new();
		let store = MemoryStore::open(&medium, Namespace::default()).unwrap();
		let mut batch = Batch::new();
		for n in 0..10 {
			batch.put(key(n), Value::new(RecordType(0x8000), 1, n.to_be_bytes()));
		}
		store.commit(batch).wait().unwrap();
		for n in damaged {
			medium.damage(&Namespace::default(), &key(*n), |frame| frame[25] ^= 1);
		}
		store
	}

	/// Reads a range page by page; damaged records as negative numbers less one.
	fn read(store: &MemoryStore, range: KeyRange, limit: usize) -> Vec<i64> {
		let (mut rest, mut read) = (Some(range), Vec::new());
		while let Some(range) = rest.take() {
			let scanned = store.scan(range.clone(), limit).wait();
			let page = read_around_damage(store, range, limit, scanned);
			let page = block_on(store, page).unwrap();
			assert!(page.records.len() <= limit);
			for (key, record) in page.records {
				let n = key.number(b"x").unwrap() as i64;
				read.push(if record.is_ok() { n } else { -n - 1 });
			}
			rest = page.rest;
		}
		read
	}

	#[test]
	fn damaged_records_have_their_place_in_both_directions_and_any_page() {
		for damaged in
			[&[][..], &[0], &[9], &[4, 5], &[0, 1, 2, 8, 9], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
		{
			let store = store(damaged);
			let expected: Vec<i64> =
				(0..10).map(|n| if damaged.contains(&(n as u64)) { -n - 1 } else { n }).collect();
			let reversed: Vec<i64> = expected.iter().rev().copied().collect();
			for limit in 1..=11 {
				assert_eq!(read(&store, KeyRange::all(T), limit), expected, "{damaged:?} {limit}");
				assert_eq!(read(&store, KeyRange::all(T).reversed(), limit), reversed);
				let part = KeyRange::all(T).from(key(3).bytes()).below(key(8).bytes());
				assert_eq!(read(&store, part, limit), expected[3..8]);
			}
		}
	}

	/// A store may answer less than it was asked for. What is between that and the damaged record is read
	/// next.
	#[test]
	fn nothing_is_left_out_before_a_damaged_record() {
		let store = store(&[4]);
		let range = KeyRange::all(T);
		let scanned = store.scan(range.clone(), 10).wait();
		let few = Scans(store, |store, range| store.scan(range, 1));
		let page = block_on(&few, read_around_damage(&few, range, 10, scanned)).unwrap();
		assert_eq!(page.records.len(), 1);
		let rest = page.rest.unwrap();
		assert_eq!(rest.start(), KeyRange::all(T).after(key(0).bytes()).start());
	}

	/// A store whose scans answer otherwise.
	struct Scans(MemoryStore, fn(&MemoryStore, KeyRange) -> crate::Ticket<Page>);

	impl Store for Scans {
		fn commit(&self, batch: Batch) -> crate::Ticket<crate::Committed> {
			self.0.commit(batch)
		}

		fn get(&self, key: &Key) -> crate::Ticket<Option<Record>> {
			self.0.get(key)
		}

		fn get_raw(&self, key: &Key) -> crate::Ticket<Option<Vec<u8>>> {
			self.0.get_raw(key)
		}

		fn scan(&self, range: KeyRange, _: usize) -> crate::Ticket<Page> {
			(self.1)(&self.0, range)
		}

		fn guarantees(&self) -> crate::Guarantees {
			self.0.guarantees()
		}
	}

	#[test]
	fn a_damaged_index_is_an_error() {
		let store = store(&[]);
		// An error that names no record of the range.
		let named = Key::new(Table::new("other"), *b"x");
		let scanned = Err(StoreError::corrupt(&named, "it is not where it belongs"));
		let page = read_around_damage(&store, KeyRange::all(T), 5, scanned);
		assert!(matches!(block_on(&store, page), Err(StoreError::Corrupt { .. })));
		// The engine calls a record damaged which is not, again and again.
		let misplaced = |_: &MemoryStore, _| {
			crate::Ticket::ready(Err(StoreError::corrupt(&key(4), "it is not where it belongs")))
		};
		let store = Scans(store, misplaced);
		let scanned = store.scan(KeyRange::all(T), 5).wait();
		let page = read_around_damage(&store, KeyRange::all(T), 5, scanned);
		assert!(matches!(block_on(&store, page), Err(StoreError::Corrupt { .. })));
	}

	/// A damaged record was removed after it was met: nothing is wrong any more.
	#[test]
	fn a_record_that_is_gone_is_no_damage() {
		let store = store(&[]);
		let scanned = Err(StoreError::corrupt(&key(4), "its checksum does not match"));
		let page = read_around_damage(&store, KeyRange::all(T), 20, scanned);
		let page = block_on(&store, page).unwrap();
		assert_eq!(page.records.len(), 10);
		assert!(page.records.iter().all(|(_, record)| record.is_ok()));
	}
}
