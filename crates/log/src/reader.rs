// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Looking at logs without being part of them: nothing is created, written or acked, so this works
//! on a store that was opened read-only.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use leyden_id::EventId;
use leyden_store::verify::Findings;
use leyden_store::{block_on, read_around_damage, KeyRange, Store};

use crate::pending::{self, Bounds};
use crate::records::{self, ConsumerV1, StreamKeys, IDS, STREAMS};
use crate::removal::REMOVED;
use crate::types::{ConsumerLag, DeadLetter, Entry, LogEpoch, LogIndex};
use crate::verify::verify;
use crate::{lookup, DamagedEntry, LogError};

const PAGE: usize = 256;

/// Looks at the logs in a store.
#[derive(Clone)]
pub struct LogReader {
	store: Arc<dyn Store>,
}

/// A stream, as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamInfo {
	/// Its name.
	pub name: String,
	/// Which log it is.
	pub epoch: LogEpoch,
	/// The highest index there is; zero if there is none.
	pub head: u64,
	/// Everything up to this index may have been trimmed.
	pub trimmed: u64,
	/// Its consumers.
	pub consumers: Vec<ConsumerInfo>,
}

/// A consumer, as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsumerInfo {
	/// Its name.
	pub name: String,
	/// Everything up to this index is acked.
	pub watermark: u64,
	/// A flag that nothing is delivered to the consumer until it is resumed.
	pub paused: bool,
}

impl LogReader {
	/// For the logs in `store`.
	pub fn new(store: Arc<dyn Store>) -> Self {
		Self { store }
	}

	/// Every stream.
	///
	/// # Errors
	/// The store's.
	pub fn streams(&self) -> Result<Vec<StreamInfo>, LogError> {
		let mut streams = Vec::new();
		let mut rest = Some(KeyRange::all(STREAMS));
		while let Some(range) = rest.take() {
			let page = self.store.scan(range, PAGE).wait()?;
			for (key, record) in &page.records {
				let stream: records::StreamV1 = records::read(key, record)?;
				let name = String::from_utf8_lossy(key.bytes()).into_owned();
				let keys = StreamKeys::new(&name);
				streams.push(StreamInfo {
					epoch: LogEpoch(stream.epoch),
					head: lookup::head(&self.store, &keys)?.max(stream.trimmed),
					trimmed: stream.trimmed,
					consumers: self.consumers(&keys)?,
					name,
				});
			}
			rest = page.rest;
		}
		Ok(streams)
	}

	/// Returns the names of the consumers of `stream`, also of those whose records are damaged; `None` if
	/// there is no such stream.
	///
	/// # Errors
	/// The store's.
	pub fn consumer_names(&self, stream: &str) -> Result<Option<BTreeSet<String>>, LogError> {
		let keys = StreamKeys::new(stream);
		if lookup::stream(&self.store, &keys)?.is_none() {
			return Ok(None);
		}
		let mut names = BTreeSet::new();
		let mut rest = Some(keys.consumers());
		while let Some(range) = rest.take() {
			let scanned = self.store.scan(range.clone(), PAGE).wait();
			let page = read_around_damage(&self.store, range, PAGE, scanned);
			let page = block_on(&self.store, page)?;
			for (key, record) in &page.records {
				let consumer = record.as_ref().ok().map(|record| records::read(key, record));
				if !matches!(consumer, Some(Ok(ConsumerV1 { watermark: REMOVED, .. }))) {
					names.extend(keys.consumer_name(key));
				}
			}
			rest = page.rest;
		}
		Ok(Some(names))
	}

	/// Up to `limit` entries of `stream` behind `after`. A damaged one is an error in its place.
	///
	/// # Errors
	/// The store's.
	pub fn entries(
		&self, stream: &str, after: Option<LogIndex>, limit: usize,
	) -> Result<Vec<Result<Entry, DamagedEntry>>, LogError> {
		let first = after.map_or(0, LogIndex::get).saturating_add(1);
		lookup::places(&self.store, &StreamKeys::new(stream), first, limit)
	}

	/// Up to `limit` entries of `stream` behind `after` that `consumer` has not acked. A damaged one is
	/// an error in its place.
	///
	/// # Errors
	/// The store's.
	pub fn unacked(
		&self, stream: &str, consumer: &str, after: Option<LogIndex>, limit: usize,
	) -> Result<Vec<Result<Entry, DamagedEntry>>, LogError> {
		let (keys, consumer_keys, bounds) = self.consumer(stream, consumer)?;
		let (mut entries, mut after) = (Vec::new(), after.map_or(0, LogIndex::get));
		while entries.len() < limit {
			let want = limit - entries.len();
			let page =
				pending::pending(&self.store, &keys, None, &consumer_keys, &bounds, after, want)?;
			if page.at_end {
				break;
			}
			after = page.scanned_to;
			entries.extend(page.entries.into_iter().map(|(entry, _)| entry));
		}
		Ok(entries)
	}

	/// Returns the number of entries of `stream` that `consumer` has not acked. It is counted from
	/// the acks, and exact if indexes have no gap ([`verify`](LogReader::verify)); the entries are not
	/// read.
	///
	/// # Errors
	/// The store's.
	pub fn unacked_count(&self, stream: &str, consumer: &str) -> Result<u64, LogError> {
		let keys = StreamKeys::new(stream);
		let consumer = keys.consumer(consumer);
		pending::unacked_count(&self.store, &keys, &consumer)
	}

	/// Returns how far `consumer` of `stream` is behind. The acks are read, and one entry.
	///
	/// # Errors
	/// The store's.
	pub fn lag(&self, stream: &str, consumer: &str) -> Result<ConsumerLag, LogError> {
		let (stream, keys, bounds) = self.consumer(stream, consumer)?;
		pending::lag(&self.store, &stream, &keys, &bounds)
	}

	/// Whether `consumer` has acked `index`.
	///
	/// # Errors
	/// The store's.
	pub fn is_acked(
		&self, stream: &str, consumer: &str, index: LogIndex,
	) -> Result<bool, LogError> {
		let (_, keys, bounds) = self.consumer(stream, consumer)?;
		pending::is_acked(&self.store, &keys, &bounds, index)
	}

	/// Failed attempts of `consumer` at `index`.
	///
	/// # Errors
	/// The store's.
	pub fn failed_attempts(
		&self, stream: &str, consumer: &str, index: LogIndex,
	) -> Result<u32, LogError> {
		let (_, keys, bounds) = self.consumer(stream, consumer)?;
		if index.get() > bounds.last_dead.load(Ordering::SeqCst) {
			return Ok(0);
		}
		Ok(lookup::retry(&self.store, &keys, index)?.map_or(0, |retry| retry.attempts))
	}

	/// Up to `limit` dead letters of `consumer` behind `after`.
	///
	/// # Errors
	/// The store's.
	pub fn dead_letters(
		&self, stream: &str, consumer: &str, after: Option<LogIndex>, limit: usize,
	) -> Result<Vec<DeadLetter>, LogError> {
		let (_, keys, bounds) = self.consumer(stream, consumer)?;
		let first = after.map_or(0, LogIndex::get).saturating_add(1);
		// What is left of before a reset counts no more.
		if first > bounds.last_dead.load(Ordering::SeqCst) {
			return Ok(Vec::new());
		}
		pending::dead_letters(&self.store, &keys, &bounds, first, limit)
	}

	/// Checks every log in the store, which may be written meanwhile, and adds what is wrong to
	/// `findings`: damaged records, gaps in indexes, entries without their id and ids without their
	/// entry, streams and consumers without their record, acks of what was never appended.
	///
	/// An ack that is missing cannot be told from one that was never made: its entry is delivered
	/// again.
	///
	/// # Errors
	/// The store's, but for [`Corrupt`](leyden_store::StoreError::Corrupt), which is a finding.
	pub fn verify(&self, findings: &mut Findings) -> Result<(), LogError> {
		verify(&self.store, findings)
	}

	/// The entry at `index`. A damaged one is an error in its place.
	///
	/// # Errors
	/// The store's.
	pub fn entry(
		&self, stream: &str, index: LogIndex,
	) -> Result<Option<Result<Entry, DamagedEntry>>, LogError> {
		lookup::place(&self.store, &StreamKeys::new(stream), index)
	}

	/// The one event of `stream` whose id begins with these hex digits, and its place.
	///
	/// # Errors
	/// [`LogError::AmbiguousId`] if there are several; the store's.
	pub fn find_by_prefix(
		&self, stream: &str, prefix: &str,
	) -> Result<Option<(EventId, LogIndex)>, LogError> {
		let keys = StreamKeys::new(stream);
		let digits = prefix.to_ascii_lowercase();
		if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit())
		{
			return Ok(None);
		}
		let lowest = format!("{digits:0<64}");
		let Ok(lowest) = lowest.parse::<EventId>() else { return Ok(None) };
		let mut range = KeyRange::prefix(IDS, keys.prefix());
		// The range that begins with the lowest id of that prefix.
		range = range.from(keys.id(&lowest).bytes());
		let page = self.store.scan(range, 2).wait()?;
		let mut found = Vec::new();
		for (key, _) in &page.records {
			let id = key.bytes().strip_prefix(keys.prefix()).and_then(|id| id.try_into().ok());
			let Some(id) = id.map(EventId::from_bytes) else { continue };
			if id.to_string().starts_with(&digits) {
				found.push(id);
			}
		}
		match found.as_slice() {
			[] => Ok(None),
			[id] => Ok(lookup::find(&self.store, &keys, id)?.map(|index| (*id, index))),
			_ => Err(LogError::AmbiguousId { prefix: prefix.to_owned() }),
		}
	}

	fn consumers(&self, keys: &StreamKeys) -> Result<Vec<ConsumerInfo>, LogError> {
		let mut consumers = Vec::new();
		let mut rest = Some(keys.consumers());
		while let Some(range) = rest.take() {
			let page = self.store.scan(range, PAGE).wait()?;
			for (key, record) in &page.records {
				let ConsumerV1 { watermark, paused, resetting } = records::read(key, record)?;
				let Some(name) = keys.consumer_name(key).filter(|_| watermark != REMOVED) else {
					continue;
				};
				let keys = keys.consumer(&name);
				let watermark = match resetting {
					true => watermark,
					false => pending::acked_to(&self.store, &keys, watermark)?,
				};
				if watermark == REMOVED {
					continue;
				}
				consumers.push(ConsumerInfo { name, watermark, paused });
			}
			rest = page.rest;
		}
		Ok(consumers)
	}

	fn consumer(
		&self, stream: &str, consumer: &str,
	) -> Result<(StreamKeys, records::ConsumerKeys, Bounds), LogError> {
		let keys = StreamKeys::new(stream);
		let consumer = keys.consumer(consumer);
		let bounds = Bounds::unknown(&self.store, &consumer)?;
		Ok((keys, consumer, bounds))
	}
}

impl fmt::Debug for LogReader {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("LogReader")
	}
}
