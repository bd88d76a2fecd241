// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Reading a stream's records, without changing or remembering anything.

use std::sync::Arc;

use leyden_id::EventId;
use leyden_store::sequence::NumberRecord;
use leyden_store::{block_on, read_around_damage, KeyRange, Page, Store, StoreError};

use crate::damaged::{self, DamagedEntry};
use crate::label::Label;
use crate::records::{self, ConsumerKeys, DeadV1, EntryV1, RetryV1, StreamKeys, StreamV1, TombV1};
use crate::types::{DeadLetter, Entry, LogIndex};
use crate::LogError;

type Result<T> = std::result::Result<T, LogError>;

/// A place of the log: its entry, or what is known of one that cannot be read.
pub(crate) type Place = std::result::Result<Entry, DamagedEntry>;

/// Returns the label of a place, if it can be read.
pub(crate) fn label_of(place: &Place) -> Option<Label> {
	match place {
		Ok(entry) => Some(entry.record.label),
		Err(damaged) => damaged.label(),
	}
}

/// Returns the index of a place.
pub(crate) fn index_of(place: &Place) -> LogIndex {
	match place {
		Ok(entry) => entry.index,
		Err(damaged) => damaged.index,
	}
}

pub(crate) fn stream(store: &Arc<dyn Store>, keys: &StreamKeys) -> Result<Option<StreamV1>> {
	let key = keys.stream();
	let record = store.get(&key).wait()?;
	Ok(record.map(|record| records::read(&key, &record)).transpose()?)
}

/// The highest index there is; zero in an empty stream, and in one whose entries were all trimmed.
pub(crate) fn head(store: &Arc<dyn Store>, keys: &StreamKeys) -> Result<u64> {
	let last = KeyRange::prefix(records::ENTRIES, keys.prefix()).reversed();
	let scanned = store.scan(last.clone(), 1).wait();
	let page = block_on(store, read_around_damage(store, last, 1, scanned))?;
	Ok(page.records.first().and_then(|(key, _)| key.number(keys.prefix())).unwrap_or(0))
}

/// Returns the id of the entry that was at `index` and is trimmed, for as long as that is kept.
pub(crate) fn tomb(
	store: &Arc<dyn Store>, keys: &StreamKeys, index: LogIndex,
) -> Result<Option<EventId>> {
	let key = keys.tomb(index.get());
	let Some(record) = store.get(&key).wait()? else { return Ok(None) };
	let tomb: TombV1 = records::read(&key, &record)?;
	Ok(tomb.id)
}

pub(crate) fn entry(
	store: &Arc<dyn Store>, keys: &StreamKeys, index: LogIndex,
) -> Result<Option<Entry>> {
	let key = keys.entry(index.get());
	let Some(record) = store.get(&key).wait()? else { return Ok(None) };
	let record: EntryV1 = records::read(&key, &record)?;
	Ok(Some(Entry { index, record }))
}

/// Returns the entry at `index`, or what is known of it if it is damaged; `None` if there is none.
pub(crate) fn place(
	store: &Arc<dyn Store>, keys: &StreamKeys, index: LogIndex,
) -> Result<Option<Place>> {
	match entry(store, keys, index) {
		Ok(entry) => Ok(entry.map(Ok)),
		Err(LogError::Store(error @ StoreError::Corrupt { .. })) => {
			let damaged = block_on(store, damaged::examine(store, keys, index, error))?;
			Ok(Some(Err(damaged)))
		},
		Err(error) => Err(error),
	}
}

/// Up to `limit` places from index `first` on. Fewer only if there are no more, or if they are
/// large.
pub(crate) fn places(
	store: &Arc<dyn Store>, keys: &StreamKeys, first: u64, limit: usize,
) -> Result<Vec<Place>> {
	let range = keys.entries_from(first);
	let scanned = store.scan(range.clone(), limit).wait();
	block_on(store, read_places(store, keys, range, limit, scanned))
}

/// Reads what a scan of `range` for up to `limit` entries has answered.
pub(crate) async fn read_places(
	store: &Arc<dyn Store>, keys: &StreamKeys, range: KeyRange, limit: usize,
	scanned: std::result::Result<Page, StoreError>,
) -> Result<Vec<Place>> {
	let page = read_around_damage(store, range, limit, scanned).await?;
	let mut places = Vec::with_capacity(page.records.len());
	for (key, record) in page.records {
		let Some(index) = key.number(keys.prefix()).and_then(LogIndex::new) else {
			return Err(StoreError::corrupt(&key, "it is no key of an entry").into());
		};
		places.push(match record.and_then(|record| records::read::<EntryV1>(&key, &record)) {
			Ok(record) => Ok(Entry { index, record }),
			Err(error @ StoreError::Corrupt { .. }) => {
				Err(damaged::examine(store, keys, index, error).await?)
			},
			Err(error) => return Err(error.into()),
		});
	}
	Ok(places)
}

pub(crate) fn find(
	store: &Arc<dyn Store>, keys: &StreamKeys, id: &EventId,
) -> Result<Option<LogIndex>> {
	let key = keys.id(id);
	let Some(record) = store.get(&key).wait()? else { return Ok(None) };
	Ok(Some(LogIndex(NumberRecord::read(&key, &record)?.0)))
}

pub(crate) fn retry(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, index: LogIndex,
) -> Result<Option<RetryV1>> {
	let key = keys.retry(index.get());
	let record = store.get(&key).wait()?;
	Ok(record.map(|record| records::read(&key, &record)).transpose()?)
}

pub(crate) fn dead(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, index: LogIndex,
) -> Result<Option<DeadV1>> {
	let key = keys.dead(index.get());
	let record = store.get(&key).wait()?;
	Ok(record.map(|record| records::read(&key, &record)).transpose()?)
}

/// Up to `limit` dead letters from index `first` on.
pub(crate) fn dead_letters(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, first: u64, limit: usize,
) -> Result<Vec<DeadLetter>> {
	let page = store.scan(keys.dead_from(first), limit).wait()?;
	let mut letters = Vec::with_capacity(page.records.len());
	for (key, record) in &page.records {
		let Some(index) = keys.index(key).and_then(LogIndex::new) else {
			return Err(
				leyden_store::StoreError::corrupt(key, "it is no key of a dead letter").into()
			);
		};
		let DeadV1 { attempts, parked_at, lane, moved_on, reason } = records::read(key, record)?;
		letters.push(DeadLetter { index, lane, attempts, parked_at, moved_on, reason });
	}
	Ok(letters)
}
