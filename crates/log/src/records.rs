// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What the log keeps in its store: every table, key and record.
//!
//! ```text
//! table          key                              record
//! log_streams    stream                           0x0101 StreamV1
//! log_consumers  stream 0 consumer                0x0102 ConsumerV1
//! log_entries    stream 0 index                   0x0103 EntryV1
//! log_ids        stream 0 event id                0x0001 the index
//! log_acks       stream 0 consumer 0 first last   0x0104 AckV1: first..=last are acked
//! log_retries    stream 0 consumer 0 index        0x0105 RetryV1
//! log_dead       stream 0 consumer 0 index        0x0106 DeadV1
//! log_tombs      stream 0 index                   0x0107 TombV1
//! log_owners     stream 0 consumer                0x0108 OwnerV1
//! ```

use leyden_id::{Domain, EventId, EventKind, IdBuilder, Lane};
use leyden_store::codec::{self, Stored};
use leyden_store::{Key, KeyRange, Record, StoreError, Table, Timestamp, Value};
use serde::{Deserialize, Serialize};

use crate::label::{Label, LaneCopy};

pub(crate) const STREAMS: Table = Table::new("log_streams");
pub(crate) const CONSUMERS: Table = Table::new("log_consumers");
pub(crate) const ENTRIES: Table = Table::new("log_entries");
pub(crate) const IDS: Table = Table::new("log_ids");
pub(crate) const ACKS: Table = Table::new("log_acks");
pub(crate) const RETRIES: Table = Table::new("log_retries");
pub(crate) const DEAD: Table = Table::new("log_dead");
pub(crate) const TOMBS: Table = Table::new("log_tombs");
pub(crate) const OWNERS: Table = Table::new("log_owners");

/// A stream.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct StreamV1 {
	/// Drawn when the stream was created, and when its database was restored.
	pub(crate) epoch: u64,
	/// Entries up to this index may have been trimmed.
	pub(crate) trimmed: u64,
	/// The number of times that the store had been restored when the epoch was drawn.
	pub(crate) restorations: u32,
}

/// A consumer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ConsumerV1 {
	/// Everything up to this index is acked.
	pub(crate) watermark: u64,
	/// A flag that nothing is delivered until the consumer is resumed.
	pub(crate) paused: bool,
	/// A flag that the acks, retries and dead letters still there are of before a reset.
	pub(crate) resetting: bool,
}

impl ConsumerV1 {
	pub(crate) fn at(watermark: u64) -> Self {
		Self { watermark, paused: false, resetting: false }
	}
}

/// An entry.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct EntryV1 {
	pub(crate) label: Label,
	pub(crate) kind: EventKind,
	pub(crate) appended_at: Timestamp,
	pub(crate) payload: Vec<u8>,
	lane_again: LaneCopy,
}

impl EntryV1 {
	pub(crate) fn new(
		label: Label, kind: EventKind, appended_at: Timestamp, payload: Vec<u8>,
	) -> Self {
		Self { label, kind, appended_at, payload, lane_again: LaneCopy::new(label.lane) }
	}
}

impl Label {
	/// Returns the id under which `log_ids` knows the entry.
	pub(crate) fn occurrence(&self) -> EventId {
		occurrence(&self.id, self.repeat)
	}
}

/// Returns the id under which `log_ids` knows repeat number `repeat` of an event: the event's own
/// id for the first time that it comes, so that only what repeats pays for repeats.
pub(crate) fn occurrence(id: &EventId, repeat: u32) -> EventId {
	const DOMAIN: Domain = Domain::new("leyden/repeat", 1);
	match repeat {
		0 => *id,
		n => IdBuilder::new(DOMAIN, "repeat").bytes(id.as_bytes()).number(n.into()).finish(),
	}
}

/// Some acked entries; the key says which.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct AckV1;

/// A delivery that is to be tried again, or that was under way when its process ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct RetryV1 {
	/// The attempts that were begun.
	pub(crate) attempts: u32,
	/// The running time before which it is not delivered.
	pub(crate) not_before: Timestamp,
	/// The processes in a row that may have ended because of it.
	pub(crate) crashes: u32,
}

/// An entry that waits for an operator.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct DeadV1 {
	pub(crate) attempts: u32,
	pub(crate) parked_at: Timestamp,
	/// The lane; `None` for an entry that is damaged so far that its lane is not known.
	pub(crate) lane: Option<Lane>,
	/// Whether the lane goes on without it.
	pub(crate) moved_on: bool,
	pub(crate) reason: String,
}

/// What is left of an entry that was trimmed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct TombV1 {
	/// The id; `None` for an entry that was damaged so far that its id was not known.
	pub(crate) id: Option<EventId>,
	/// The time of the entry that is gone.
	pub(crate) lived_ms: u64,
}

/// The handle that has had deliveries of a consumer last. Every batch that settles a delivery
/// expects the record's version, so that a handle which has lost the consumer settles nothing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct OwnerV1 {
	/// The number of handles that have had deliveries.
	pub(crate) opened: u64,
	/// The time of the first delivery of the last one.
	pub(crate) opened_at: Timestamp,
}

leyden_store::stored! {
	StreamV1 = 0x0101,
	ConsumerV1 = 0x0102,
	EntryV1 = 0x0103,
	AckV1 = 0x0104,
	RetryV1 = 0x0105,
	DeadV1 = 0x0106,
	TombV1 = 0x0107,
	OwnerV1 = 0x0108,
}

/// The value that holds a record which is small by construction.
pub(crate) fn value<T: Stored>(record: &T) -> Value {
	// Only a size over 64 MiB fails, and payloads are checked before they get here. An empty body
	// does not decode, so even then nothing is taken for what it is not.
	codec::encode(record).unwrap_or_else(|_| Value::new(T::TYPE, T::SCHEMA, Vec::new()))
}

pub(crate) fn read<T: Stored>(key: &Key, record: &Record) -> Result<T, StoreError> {
	codec::decode(key, record)
}

/// The keys of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamKeys {
	name: String,
	prefix: Vec<u8>,
}

impl StreamKeys {
	pub(crate) fn new(name: &str) -> Self {
		let prefix = [name.as_bytes(), &[0]].concat();
		Self { name: name.to_owned(), prefix }
	}

	pub(crate) fn name(&self) -> &str {
		&self.name
	}

	pub(crate) fn stream(&self) -> Key {
		Key::new(STREAMS, self.name.as_bytes())
	}

	/// What entries and tombstones have before their index.
	pub(crate) fn prefix(&self) -> &[u8] {
		&self.prefix
	}

	pub(crate) fn entry(&self, index: u64) -> Key {
		Key::numbered(ENTRIES, &self.prefix, index)
	}

	pub(crate) fn tomb(&self, index: u64) -> Key {
		Key::numbered(TOMBS, &self.prefix, index)
	}

	pub(crate) fn id(&self, id: &EventId) -> Key {
		Key::new(IDS, [self.prefix.as_slice(), id.as_bytes()].concat())
	}

	pub(crate) fn entries_from(&self, index: u64) -> KeyRange {
		KeyRange::numbered_from(ENTRIES, &self.prefix, index)
	}

	pub(crate) fn consumers(&self) -> KeyRange {
		KeyRange::prefix(CONSUMERS, &self.prefix)
	}

	pub(crate) fn consumer(&self, name: &str) -> ConsumerKeys {
		ConsumerKeys::new(self, name)
	}

	/// The consumer whose record is at `key`.
	pub(crate) fn consumer_name(&self, key: &Key) -> Option<String> {
		let name = key.bytes().strip_prefix(self.prefix.as_slice())?;
		String::from_utf8(name.to_vec()).ok()
	}
}

/// The keys of a consumer.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerKeys {
	pub(crate) consumer: Key,
	pub(crate) owner: Key,
	prefix: Vec<u8>,
}

impl ConsumerKeys {
	fn new(stream: &StreamKeys, name: &str) -> Self {
		let consumer = [stream.prefix.as_slice(), name.as_bytes()].concat();
		let prefix = [consumer.as_slice(), &[0]].concat();
		let owner = Key::new(OWNERS, consumer.clone());
		Self { consumer: Key::new(CONSUMERS, consumer), owner, prefix }
	}

	pub(crate) fn ack(&self, first: u64, last: u64) -> Key {
		let bytes = [self.prefix.as_slice(), &first.to_be_bytes(), &last.to_be_bytes()].concat();
		Key::new(ACKS, bytes)
	}

	/// First and last index of the ack at `key`.
	pub(crate) fn acked(&self, key: &Key) -> Option<(u64, u64)> {
		let rest = key.bytes().strip_prefix(self.prefix.as_slice())?;
		let (first, last) = rest.split_first_chunk::<8>()?;
		Some((u64::from_be_bytes(*first), u64::from_be_bytes(last.try_into().ok()?)))
	}

	/// Returns the key that the record of this consumer at `key` has as one of another consumer.
	pub(crate) fn key_for(&self, other: &Self, key: &Key) -> Option<Key> {
		let rest = key.bytes().strip_prefix(self.prefix.as_slice())?;
		Some(Key::new(key.table(), [other.prefix.as_slice(), rest].concat()))
	}

	/// Returns the ranges of everything that a consumer has besides its own record and its owner's.
	pub(crate) fn all(&self) -> [KeyRange; 3] {
		[self.acks(), self.retries(), self.dead_from(0)]
	}

	pub(crate) fn acks(&self) -> KeyRange {
		KeyRange::prefix(ACKS, &self.prefix)
	}

	/// Acks that begin at `index` or later.
	pub(crate) fn acks_from(&self, index: u64) -> KeyRange {
		KeyRange::numbered_from(ACKS, &self.prefix, index)
	}

	/// Acks that begin before `index`, the last of them first.
	pub(crate) fn acks_before(&self, index: u64) -> KeyRange {
		let end = Key::numbered(ACKS, &self.prefix, index);
		self.acks().below(end.bytes()).reversed()
	}

	pub(crate) fn retries(&self) -> KeyRange {
		KeyRange::prefix(RETRIES, &self.prefix)
	}

	pub(crate) fn retry(&self, index: u64) -> Key {
		Key::numbered(RETRIES, &self.prefix, index)
	}

	pub(crate) fn dead(&self, index: u64) -> Key {
		Key::numbered(DEAD, &self.prefix, index)
	}

	pub(crate) fn dead_from(&self, index: u64) -> KeyRange {
		KeyRange::numbered_from(DEAD, &self.prefix, index)
	}

	pub(crate) fn index(&self, key: &Key) -> Option<u64> {
		key.number(&self.prefix)
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	fn body<T: Stored>(record: &T, record_type: u16) -> Vec<u8> {
		let value = value(record);
		assert_eq!((value.record_type, value.schema), (leyden_store::RecordType(record_type), 1));
		value.body
	}

	fn number(n: u64) -> [u8; 8] {
		n.to_be_bytes()
	}

	/// The bytes on disk, as docs/format.md says. If this fails, stores of users no longer open:
	/// add a new schema instead.
	#[test]
	fn golden_bytes() {
		let id = EventId::from_bytes([7; 32]);
		let lane = Lane::payment([8; 32]);
		let lane_bytes = [&[0, 0, 0, 2][..], &[8; 32]].concat();
		let at = Timestamp(1_000);

		let stream = body(&StreamV1 { epoch: 5, trimmed: 6, restorations: 7 }, 0x0101);
		assert_eq!(stream, [&number(5)[..], &number(6), &[0, 0, 0, 7]].concat());
		let consumer = ConsumerV1 { watermark: 9, paused: false, resetting: true };
		assert_eq!(body(&consumer, 0x0102), [&number(9)[..], &[0, 1]].concat());
		let kind = EventKind::from_static("Kind");
		let payload = vec![1, 2];
		let entry = EntryV1::new(Label::new(id, 5, lane, 9), kind, at, payload);
		let expected = [
			&[7; 32][..],
			&[0, 0, 0, 5],
			&lane_bytes,
			&number(9),
			&0xaa10_dd56u32.to_be_bytes(),
			&number(4),
			b"Kind",
			&number(1_000),
			&number(2),
			&[1, 2],
			&lane_bytes,
			&0xd57a_658fu32.to_be_bytes(),
		];
		assert_eq!(body(&entry, 0x0103), expected.concat());
		assert_eq!(body(&AckV1, 0x0104), [] as [u8; 0]);
		let retry = RetryV1 { attempts: 3, not_before: at, crashes: 2 };
		let expected = [&[0, 0, 0, 3][..], &number(1_000), &[0, 0, 0, 2]].concat();
		assert_eq!(body(&retry, 0x0105), expected);
		let dead = DeadV1 {
			attempts: 2,
			parked_at: at,
			lane: Some(lane),
			moved_on: true,
			reason: "no".to_owned(),
		};
		let expected =
			[&[0, 0, 0, 2][..], &number(1_000), &[1], &lane_bytes, &[1], &number(2), b"no"]
				.concat();
		assert_eq!(body(&dead, 0x0106), expected);
		let tomb = TombV1 { id: Some(id), lived_ms: 9 };
		assert_eq!(body(&tomb, 0x0107), [&[1][..], &[7; 32], &number(9)].concat());
		let owner = OwnerV1 { opened: 3, opened_at: at };
		assert_eq!(body(&owner, 0x0108), [number(3), number(1_000)].concat());
	}

	#[test]
	fn keys_sort_by_index_and_fit() {
		let keys = StreamKeys::new(&"s".repeat(crate::MAX_STREAM_CHARS));
		let consumer = keys.consumer(&"c".repeat(crate::MAX_CONSUMER_CHARS));
		let longest = consumer.ack(u64::MAX, u64::MAX);
		assert!(longest.bytes().len() <= leyden_store::key::MAX_KEY_BYTES);
		assert!(keys.prefix().len() <= leyden_store::key::MAX_PREFIX_BYTES);
		assert!(
			consumer.ack(1, 9) < consumer.ack(2, 3) && consumer.ack(2, 3) < consumer.ack(2, 256)
		);
		assert_eq!(consumer.acked(&consumer.ack(2, 256)), Some((2, 256)));
	}
}
