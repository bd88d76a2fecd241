// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Reading a stream's records, without changing or remembering anything.

use std::sync::Arc;

use leyden_id::EventId;
use leyden_store::sequence::NumberRecord;
use leyden_store::{KeyRange, Store};

use crate::records::{self, ConsumerKeys, DeadV1, EntryV1, RetryV1, StreamKeys, StreamV1, TombV1};
use crate::types::{DeadLetter, Entry, LogIndex};
use crate::LogError;

type Result<T> = std::result::Result<T, LogError>;

pub(crate) fn stream(store: &Arc<dyn Store>, keys: &StreamKeys) -> Result<Option<StreamV1>> {
	let key = keys.stream();
	let record = store.get(&key).wait()?;
	Ok(record.map(|record| records::read(&key, &record)).transpose()?)
}

/// The highest index there is; zero in an empty stream, and in one whose entries were all trimmed.
pub(crate) fn head(store: &Arc<dyn Store>, keys: &StreamKeys) -> Result<u64> {
	let last = KeyRange::prefix(records::ENTRIES, keys.prefix()).reversed();
	let page = store.scan(last, 1).wait()?;
	Ok(page.records.first().and_then(|(key, _)| key.number(keys.prefix())).unwrap_or(0))
}

/// Returns the id of the entry that was at `index` and is trimmed, for as long as that is kept.
pub(crate) fn tomb(
	store: &Arc<dyn Store>, keys: &StreamKeys, index: LogIndex,
) -> Result<Option<EventId>> {
	let key = keys.tomb(index.get());
	let Some(record) = store.get(&key).wait()? else { return Ok(None) };
	let tomb: TombV1 = records::read(&key, &record)?;
	Ok(Some(tomb.id))
}

pub(crate) fn entry(
	store: &Arc<dyn Store>, keys: &StreamKeys, index: LogIndex,
) -> Result<Option<Entry>> {
	let key = keys.entry(index.get());
	let Some(record) = store.get(&key).wait()? else { return Ok(None) };
	let record: EntryV1 = records::read(&key, &record)?;
	Ok(Some(Entry { index, record }))
}

/// Up to `limit` entries from index `first` on. Fewer only if there are no more, or if they are
/// large.
pub(crate) fn entries(
	store: &Arc<dyn Store>, keys: &StreamKeys, first: u64, limit: usize,
) -> Result<Vec<Entry>> {
	let page = store.scan(keys.entries_from(first), limit).wait()?;
	let mut entries = Vec::with_capacity(page.records.len());
	for (key, record) in &page.records {
		let Some(index) = key.number(keys.prefix()).and_then(LogIndex::new) else {
			return Err(leyden_store::StoreError::corrupt(key, "it is no key of an entry").into());
		};
		entries.push(Entry { index, record: records::read(key, record)? });
	}
	Ok(entries)
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
