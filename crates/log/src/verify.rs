// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The check of all logs in a store: every record reads, and none is missing.
//!
//! # The rules
//! - Behind the mark of what was trimmed, indexes have no gap.
//! - Each entry and each tombstone has its id, and each id its entry or tombstone.
//! - A stream with entries, ids or consumers has its record, and so has a consumer with acks,
//!   retries, dead letters or an owner.
//! - No consumer has acked what was never appended.
//!
//! An ack that is missing cannot be told from one that was never made: its entry is delivered again.
//!
//! # The memory
//! A log may be larger than memory. Entries and ids are not looked up in each other one by one: both
//! are summed up under a random key, and only if the sums differ is each looked up, to name those
//! that are missing. What looks wrong is looked at again before it is told, since the log may be
//! written meanwhile.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use leyden_id::EventId;
use leyden_store::sequence::NumberRecord;
use leyden_store::verify::{damaged_key, Findings};
use leyden_store::{Key, KeyRange, Record, Store, StoreError, Table};

use crate::records::{
	self, AckV1, ConsumerV1, DeadV1, EntryV1, OwnerV1, RetryV1, StreamKeys, StreamV1, TombV1, ACKS,
	CONSUMERS, DEAD, ENTRIES, IDS, RETRIES, STREAMS, TOMBS,
};
use crate::removal::REMOVED;
use crate::types::LogIndex;
use crate::{lookup, LogError};

/// The longest gap in which each entry is looked up again.
const MOST_LOOKED_UP: u64 = 10_000;

/// Checks every log in `store`, which may be written meanwhile, and adds what is wrong to
/// `findings`. Damaged records are among it, each once.
///
/// # Errors
/// The store's, but for [`Corrupt`](StoreError::Corrupt), which is a finding.
pub(crate) fn verify(store: &Arc<dyn Store>, findings: &mut Findings) -> Result<(), LogError> {
	let names = Names::collect(store, findings)?;
	for name in &names.streams {
		Stream { store, keys: StreamKeys::new(name), name }.verify(findings)?;
	}
	for (stream, consumer) in &names.consumers {
		verify_consumer(store, stream, consumer, findings)?;
	}
	Ok(())
}

/// The streams and consumers of which any record is there.
#[derive(Default)]
struct Names {
	streams: BTreeSet<String>,
	consumers: BTreeSet<(String, String)>,
}

impl Names {
	fn collect(store: &Arc<dyn Store>, findings: &mut Findings) -> Result<Self, LogError> {
		let mut names = Self::default();
		// The owner's record stays when a consumer is removed.
		for (table, parts) in [(STREAMS, 1), (CONSUMERS, 2)] {
			findings.each::<LogError>(&**store, KeyRange::all(table), |key, _, _| {
				names.add(key.bytes(), parts);
				Ok(())
			})?;
		}
		// Of large tables only the first record of each stream or consumer is read.
		for (table, parts) in
			[(ENTRIES, 1), (IDS, 1), (TOMBS, 1), (ACKS, 2), (RETRIES, 2), (DEAD, 2)]
		{
			let mut next = KeyRange::all(table);
			loop {
				let first = match store.scan(next.clone(), 1).wait() {
					Ok(page) => page.records.first().map(|(key, _)| key.bytes().to_vec()),
					Err(error) => {
						let key = damaged_key(&error);
						findings.take(Err::<(), _>(error))?;
						key
					},
				};
				// One that is elsewhere is of a damaged index, and told by those who read all of it.
				let Some(key) = first.filter(|key| next.contains(key)) else { break };
				let name = names.add(&key, parts);
				// A zero byte follows the name, or nothing does: this is behind the key that was found.
				next = KeyRange::all(table).from(&[key.get(..name).unwrap_or(&key), &[1]].concat());
			}
		}
		Ok(names)
	}

	/// Takes in the owner of a record. Returns the length of its name within the key, without the
	/// zero byte behind it.
	fn add(&mut self, key: &[u8], parts: usize) -> usize {
		let mut pieces = key.splitn(parts + 1, |byte| *byte == 0);
		let text = |piece: &[u8]| String::from_utf8_lossy(piece).into_owned();
		let stream = pieces.next().unwrap_or_default();
		let mut length = stream.len();
		self.streams.insert(text(stream));
		if parts == 2 {
			let consumer = pieces.next().unwrap_or_default();
			length += 1 + consumer.len();
			self.consumers.insert((text(stream), text(consumer)));
		}
		length.min(key.len())
	}
}

/// One stream.
struct Stream<'a> {
	store: &'a Arc<dyn Store>,
	keys: StreamKeys,
	name: &'a str,
}

/// The sum of pairs of an id and an index, in any order. Sums under a random key are equal if the
/// pairs are, and else only by chance.
#[derive(Default, Eq, PartialEq)]
struct Sum(u64, u64);

impl Sum {
	fn add(&mut self, hashers: &[RandomState; 2], id: &EventId, index: u64) {
		let of = |hasher: &RandomState| hasher.hash_one((id.as_bytes(), index));
		self.0 = self.0.wrapping_add(of(&hashers[0]));
		self.1 = self.1.wrapping_add(of(&hashers[1]));
	}
}

impl Stream<'_> {
	fn verify(&self, findings: &mut Findings) -> Result<(), LogError> {
		let key = self.keys.stream();
		let record = match self.store.get(&key).wait() {
			Ok(Some(record)) => findings.take(records::read::<StreamV1>(&key, &record))?,
			Ok(None) => {
				let reason = format!("the record of stream {:?} is missing", self.name);
				findings.add(StoreError::corrupt(&key, reason));
				None
			},
			// Told already.
			Err(StoreError::Corrupt { .. }) => None,
			Err(error) => return Err(error.into()),
		};
		let hashers = [RandomState::new(), RandomState::new()];
		let (mut by_index, mut by_id) = (Sum::default(), Sum::default());
		// Without the mark, the first entry there is may be the first.
		let mut expected = record.map(|stream| stream.trimmed.saturating_add(1));
		let mut gaps = Vec::new();
		let entries = self.range(ENTRIES);
		findings.each::<LogError>(&**self.store, entries, |key, record, findings| {
			let Some(index) = self.index(key, findings) else { return Ok(()) };
			match expected {
				Some(expected) if index > expected => gaps.push((expected, index - 1)),
				_ => {},
			}
			expected = expected.max(Some(index.saturating_add(1)));
			if let Some(entry) = read::<EntryV1>(key, record, findings) {
				by_index.add(&hashers, &entry.label.occurrence(), index);
			}
			Ok(())
		})?;
		let tombs = self.range(TOMBS);
		findings.each::<LogError>(&**self.store, tombs, |key, record, findings| {
			let Some(index) = self.index(key, findings) else { return Ok(()) };
			if let Some(TombV1 { id: Some(id), .. }) = read(key, record, findings) {
				by_index.add(&hashers, &id, index);
			}
			Ok(())
		})?;
		findings.each::<LogError>(&**self.store, self.range(IDS), |key, record, findings| {
			if let Some((id, index)) = self.id(key, record, findings) {
				by_id.add(&hashers, &id, index);
			}
			Ok(())
		})?;
		for (first, last) in gaps {
			self.gap(first, last, findings)?;
		}
		// What was not read is not missing, and to look it up would be to read it.
		if by_index != by_id && !findings.is_cut_short() {
			self.name_differences(findings)?;
		}
		Ok(())
	}

	/// Tells of entries that are missing, unless they were trimmed meanwhile.
	fn gap(&self, first: u64, last: u64, findings: &mut Findings) -> Result<(), LogError> {
		let trimmed = match lookup::stream(self.store, &self.keys) {
			Ok(stream) => stream.map_or(0, |stream| stream.trimmed),
			Err(LogError::Store(StoreError::Corrupt { .. })) => 0,
			Err(error) => return Err(error),
		};
		let first = first.max(trimmed.saturating_add(1));
		if last.saturating_sub(first) > MOST_LOOKED_UP {
			let reason = format!("entries {first} to {last} of stream {:?} are missing", self.name);
			findings.add(StoreError::corrupt(&self.keys.entry(first), reason));
			return Ok(());
		}
		// A damaged entry is told of as such; it is there.
		for index in first..=last {
			let Some(place) = LogIndex::new(index) else { continue };
			match lookup::entry(self.store, &self.keys, place) {
				Ok(Some(_)) | Err(LogError::Store(StoreError::Corrupt { .. })) => {},
				Ok(None) => {
					let reason = format!("entry {index} of stream {:?} is missing", self.name);
					findings.add(StoreError::corrupt(&self.keys.entry(index), reason));
				},
				Err(error) => return Err(error),
			}
		}
		Ok(())
	}

	/// Looks up each entry and each id in the other.
	fn name_differences(&self, findings: &mut Findings) -> Result<(), LogError> {
		let mut again = Findings::new(0);
		again.each::<LogError>(&**self.store, self.range(ENTRIES), |key, record, _| {
			let (entry, index) = (records::read::<EntryV1>(key, record), self.number(key));
			match (entry, index) {
				(Ok(entry), Some(index)) => {
					self.look_up(&entry.label.occurrence(), index, findings)
				},
				_ => Ok(()),
			}
		})?;
		again.each::<LogError>(&**self.store, self.range(TOMBS), |key, record, _| {
			let (tomb, index) = (records::read::<TombV1>(key, record), self.number(key));
			match (tomb, index) {
				(Ok(TombV1 { id: Some(id), .. }), Some(index)) => {
					self.look_up(&id, index, findings)
				},
				_ => Ok(()),
			}
		})?;
		again.each::<LogError>(&**self.store, self.range(IDS), |key, record, again| {
			match self.id(key, record, again) {
				Some((id, index)) => self.look_up(&id, index, findings),
				None => Ok(()),
			}
		})
	}

	/// Tells of an id and an index that do not belong together in the store as it is now.
	fn look_up(&self, id: &EventId, index: u64, findings: &mut Findings) -> Result<(), LogError> {
		let id_key = self.keys.id(id);
		let known = match self.store.get(&id_key).wait() {
			Ok(Some(record)) => NumberRecord::read(&id_key, &record).ok().map(|n| n.0.get()),
			Ok(None) => None,
			Err(StoreError::Corrupt { .. }) => return Ok(()),
			Err(error) => return Err(error.into()),
		};
		let (entry_key, tomb_key) = (self.keys.entry(index), self.keys.tomb(index));
		let mut found = None;
		for key in [&entry_key, &tomb_key] {
			match self.store.get(key).wait() {
				Ok(Some(record)) if key.table() == ENTRIES => {
					found =
						records::read::<EntryV1>(key, &record).ok().map(|e| e.label.occurrence());
				},
				Ok(Some(record)) => match records::read::<TombV1>(key, &record) {
					// The entry was damaged so far that nobody knows its id. This may be it.
					Ok(TombV1 { id: None, .. }) => return Ok(()),
					tomb => found = tomb.ok().and_then(|tomb| tomb.id),
				},
				Ok(None) => continue,
				Err(StoreError::Corrupt { .. }) => return Ok(()),
				Err(error) => return Err(error.into()),
			}
			break;
		}
		if found == Some(*id) && known != Some(index) {
			let reason = format!("the id of entry {index} of stream {:?} is missing", self.name);
			findings.add(StoreError::corrupt(&id_key, reason));
		} else if found != Some(*id) && known == Some(index) {
			// Entry, tombstone and id may have been trimmed meanwhile.
			if self.store.get(&id_key).wait().is_ok_and(|record| record.is_none()) {
				return Ok(());
			}
			let reason = format!("the id's entry {index} of stream {:?} is missing", self.name);
			findings.add(StoreError::corrupt(&entry_key, reason));
		}
		Ok(())
	}

	fn range(&self, table: Table) -> KeyRange {
		KeyRange::prefix(table, self.keys.prefix())
	}

	fn number(&self, key: &Key) -> Option<u64> {
		key.number(self.keys.prefix())
	}

	fn index(&self, key: &Key, findings: &mut Findings) -> Option<u64> {
		let index = key.number(self.keys.prefix());
		if index.is_none() {
			findings.add(StoreError::corrupt(key, "it is no key of an entry"));
		}
		index
	}

	fn id(&self, key: &Key, record: &Record, findings: &mut Findings) -> Option<(EventId, u64)> {
		let id = key.bytes().strip_prefix(self.keys.prefix()).and_then(|id| id.try_into().ok());
		let Some(id) = id else {
			findings.add(StoreError::corrupt(key, "it is no key of an id"));
			return None;
		};
		match NumberRecord::read(key, record) {
			Ok(number) => Some((EventId::from_bytes(id), number.0.get())),
			Err(error) => {
				findings.add(error);
				None
			},
		}
	}
}

fn verify_consumer(
	store: &Arc<dyn Store>, stream: &str, name: &str, findings: &mut Findings,
) -> Result<(), LogError> {
	let stream_keys = StreamKeys::new(stream);
	let keys = stream_keys.consumer(name);
	let mut furthest = 0;
	findings.each::<LogError>(&**store, keys.acks(), |key, record, findings| {
		match keys.acked(key).filter(|(first, last)| first <= last) {
			Some((_, last)) => furthest = furthest.max(last),
			None => {
				findings.add(StoreError::corrupt(key, "it is no key of an ack"));
			},
		}
		let _ = read::<AckV1>(key, record, findings);
		Ok(())
	})?;
	findings.each::<LogError>(&**store, keys.retries(), |key, record, findings| {
		let _ = read::<RetryV1>(key, record, findings);
		Ok(())
	})?;
	findings.each::<LogError>(&**store, keys.dead_from(0), |key, record, findings| {
		let _ = read::<DeadV1>(key, record, findings);
		Ok(())
	})?;
	match store.get(&keys.owner).wait() {
		Ok(Some(record)) => drop(read::<OwnerV1>(&keys.owner, &record, findings)),
		Ok(None) | Err(StoreError::Corrupt { .. }) => {},
		Err(error) => return Err(error.into()),
	}
	match store.get(&keys.consumer).wait() {
		Ok(Some(record)) => {
			if let Some(consumer) = read::<ConsumerV1>(&keys.consumer, &record, findings) {
				if consumer.watermark == REMOVED {
					return Ok(());
				}
				furthest = furthest.max(consumer.watermark);
			}
		},
		Ok(None) => {
			// It may have been removed meanwhile, with all that it had.
			let mut left = false;
			for range in [keys.acks(), keys.retries(), keys.dead_from(0)] {
				left |= match store.scan(range, 1).wait() {
					Ok(page) => !page.records.is_empty(),
					Err(StoreError::Corrupt { .. }) => true,
					Err(error) => return Err(error.into()),
				};
			}
			if left && store.get(&keys.consumer).wait()?.is_none() {
				let reason =
					format!("the record of consumer {name:?} of stream {stream:?} is missing");
				findings.add(StoreError::corrupt(&keys.consumer, reason));
			}
		},
		Err(StoreError::Corrupt { .. }) => {},
		Err(error) => return Err(error.into()),
	}
	// Read after the acks: more may have been appended meanwhile, and never less.
	let head = match last_index(store, &stream_keys)? {
		Some(head) => head,
		None => return Ok(()),
	};
	if furthest > head {
		let reason = format!(
			"consumer {name:?} has acked {furthest}, and stream {stream:?} ends with {head}: its \
			 last entries are missing, or the database is older than the acks"
		);
		findings.add(StoreError::corrupt(&keys.consumer, reason));
	}
	Ok(())
}

/// Returns the highest index that was ever given, as far as is known; `None` if that cannot be read.
fn last_index(store: &Arc<dyn Store>, keys: &StreamKeys) -> Result<Option<u64>, LogError> {
	let damaged = |error: &LogError| matches!(error, LogError::Store(StoreError::Corrupt { .. }));
	let last = KeyRange::prefix(ENTRIES, keys.prefix()).reversed();
	let newest = match store.scan(last, 1).wait() {
		Ok(page) => page.records.first().and_then(|(key, _)| key.number(keys.prefix())),
		Err(StoreError::Corrupt { .. }) => return Ok(None),
		Err(error) => return Err(error.into()),
	};
	match lookup::stream(store, keys) {
		Ok(stream) => Ok(Some(newest.unwrap_or(0).max(stream.map_or(0, |s| s.trimmed)))),
		Err(error) if damaged(&error) => Ok(None),
		Err(error) => Err(error),
	}
}

/// Reads a record, or makes a finding of it.
fn read<T: leyden_store::codec::Stored>(
	key: &Key, record: &Record, findings: &mut Findings,
) -> Option<T> {
	match records::read(key, record) {
		Ok(read) => Some(read),
		Err(error) => {
			findings.add(error);
			None
		},
	}
}
