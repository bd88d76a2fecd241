// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is on disk. `E` is an endpoint's hash (16), `L` that of an order key (32).
//!
//! ```text
//! table       key                              record
//! out_meta    "meta"                           0x0501 MetaV1
//! out_items   number                           0x0502 ItemV1: a callback, as it was enqueued
//! out_ids     of callback id and endpoint (32) 0x0001 its number
//! out_open    number                           0x0503 OpenV1: it is still to arrive
//! out_due     E, due (8), number               0x0504 IndexV1
//! out_lanes   E, L, number                     0x0504 IndexV1
//! out_urgent  E, 0 height or 1 ms (8), number  0x0504 IndexV1
//! out_dead    number                           0x0505 DeadV1: a dead letter
//! out_ends    E                                0x0506 EndV1
//! out_tombs   number                           0x0507 TombV1: trimmed, and its id is remembered
//! out_cursors name                             0x0508 CursorV1: where a reconciler is
//! out_parked  S, 0 later or 1 refused, L,      0x0502 ItemV1: pulled, and not applied (S is a source's
//!             epoch (8), number                hash, 16)
//! ```

use leyden_id::{Domain, IdBuilder};
pub(crate) use leyden_store::codec::{decode as read, encode as value};
use leyden_store::{Key, KeyRange, StoreError, Table, Times, Timestamp};
use serde::{Deserialize, Serialize};

use crate::callback::{Callback, CallbackId, Deadline, NewCallback, Sequence};
use crate::feed::FeedCursor;

const META: Table = Table::new("out_meta");
pub(crate) const ITEMS: Table = Table::new("out_items");
const IDS: Table = Table::new("out_ids");
pub(crate) const OPEN: Table = Table::new("out_open");
pub(crate) const DUE: Table = Table::new("out_due");
pub(crate) const LANES: Table = Table::new("out_lanes");
pub(crate) const URGENT: Table = Table::new("out_urgent");
pub(crate) const DEAD: Table = Table::new("out_dead");
pub(crate) const ENDS: Table = Table::new("out_ends");
pub(crate) const TOMBS: Table = Table::new("out_tombs");
pub(crate) const CURSORS: Table = Table::new("out_cursors");
const PARKED: Table = Table::new("out_parked");

const ENDPOINT: Domain = Domain::new("leyden/outbox-endpoint", 1);
const SOURCE: Domain = Domain::new("leyden/outbox-source", 1);
const LANE: Domain = Domain::new("leyden/outbox-lane", 1);
const ONCE: Domain = Domain::new("leyden/outbox-once", 1);
const DIGEST: Domain = Domain::new("leyden/outbox-digest", 1);

/// The schema of a callback whose payload is not kept any more.
pub(crate) const FORGOTTEN: u16 = 0;

/// The hash of an endpoint's name.
pub(crate) type End = [u8; 16];
/// The hash of an order key.
pub(crate) type Lane = [u8; 32];

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct MetaV1 {
	/// Drawn when the outbox was created.
	pub(crate) epoch: u64,
	/// Callbacks up to this one may be gone.
	pub(crate) trimmed: u64,
	/// The number of times that the store had been restored when the epoch was drawn.
	pub(crate) restorations: u32,
	/// Callbacks up to this one were in a copy that was restored.
	pub(crate) restored_up_to: u64,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ItemV1 {
	pub(crate) id: [u8; 32],
	pub(crate) kind: String,
	pub(crate) endpoint: String,
	pub(crate) order_key: Vec<u8>,
	pub(crate) schema: u16,
	pub(crate) payload: Vec<u8>,
	pub(crate) deadline: Deadline,
	pub(crate) enqueued_at: Timestamp,
	/// The time that the store had lived when it was enqueued, from which its age counts.
	pub(crate) lived_ms: u64,
	/// The hash of everything that it says, which stays when the payload is erased.
	pub(crate) digest: [u8; 32],
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct OpenV1 {
	/// The running time from which it may be sent.
	pub(crate) due: Timestamp,
	pub(crate) failures: u32,
	pub(crate) doubt: DoubtV1,
	/// The time that the store had lived at the first answer that it is not found.
	pub(crate) not_found_ms: Option<u64>,
}

/// Whether it may have been taken.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum DoubtV1 {
	/// Every try was refused for certain, or there was none.
	None,
	/// A try is under way, or its process has ended.
	Sent,
	/// A try has ended without a definite answer.
	InDoubt,
}

/// What must be known of a callback to choose it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct IndexV1 {
	pub(crate) lane: Lane,
	pub(crate) deadline: Deadline,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct DeadV1 {
	pub(crate) why: WhyV1,
	pub(crate) at: Timestamp,
	pub(crate) failures: u32,
	pub(crate) reason: String,
	pub(crate) may_have_been_taken: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum WhyV1 {
	Refused,
	Expired,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct EndV1 {
	pub(crate) name: String,
	pub(crate) paused: Option<PausedV1>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct PausedV1 {
	pub(crate) at: Timestamp,
	pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct TombV1 {
	pub(crate) id: [u8; 32],
	/// The hash of its id and endpoint, under which its number is known.
	pub(crate) once: [u8; 32],
	pub(crate) digest: [u8; 32],
	/// The time of the item that is gone.
	pub(crate) lived_ms: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct CursorV1 {
	pub(crate) epoch: u64,
	pub(crate) after: u64,
	pub(crate) mark: u64,
}

impl CursorV1 {
	pub(crate) fn cursor(self) -> FeedCursor {
		let Self { epoch, after, mark } = self;
		FeedCursor { epoch, after, mark }
	}
}

leyden_store::stored! {
	MetaV1 = 0x0501,
	ItemV1 = 0x0502,
	OpenV1 = 0x0503,
	IndexV1 = 0x0504,
	DeadV1 = 0x0505,
	EndV1 = 0x0506,
	TombV1 = 0x0507,
	CursorV1 = 0x0508,
}

impl ItemV1 {
	pub(crate) fn new(new: NewCallback, now: Times) -> Self {
		let NewCallback { id, kind, endpoint, order_key, schema, payload, deadline } = new;
		let (id, schema) = (*id.as_bytes(), schema.max(1));
		let Times { wall: enqueued_at, lived_ms, .. } = now;
		let mut item = Self {
			id,
			kind,
			endpoint,
			order_key,
			schema,
			payload,
			deadline,
			enqueued_at,
			lived_ms,
			digest: [0; 32],
		};
		item.digest = item.digested();
		item
	}

	/// Returns the item of a callback whose age counts from `lived_ms`.
	pub(crate) fn of(callback: &Callback, lived_ms: u64) -> Self {
		let mut item = Self {
			id: *callback.id().as_bytes(),
			kind: callback.kind().to_owned(),
			endpoint: callback.endpoint().to_owned(),
			order_key: callback.order_key().to_vec(),
			schema: callback.schema(),
			payload: callback.payload().to_vec(),
			deadline: callback.deadline(),
			enqueued_at: callback.enqueued_at(),
			lived_ms,
			digest: [0; 32],
		};
		item.digest = item.digested();
		item
	}

	/// The item without its payload.
	pub(crate) fn erased(self) -> Self {
		Self { schema: FORGOTTEN, payload: Vec::new(), ..self }
	}

	/// The hash of what it says. Its deadline is no part of that: it may have become nearer.
	fn digested(&self) -> [u8; 32] {
		let builder = IdBuilder::new(DIGEST, &self.kind).bytes(&self.order_key);
		*builder.number(self.schema.into()).bytes(&self.payload).finish().as_bytes()
	}

	/// The key under which its number is known.
	pub(crate) fn once(&self) -> [u8; 32] {
		let builder = IdBuilder::new(ONCE, "callback").bytes(&self.id);
		*builder.bytes(self.endpoint.as_bytes()).finish().as_bytes()
	}

	pub(crate) fn callback(self, sequence: Sequence) -> Callback {
		let Self { id, kind, endpoint, order_key, schema, payload, deadline, enqueued_at, .. } =
			self;
		let id = CallbackId::from_bytes(id);
		Callback { sequence, id, kind, endpoint, order_key, schema, payload, deadline, enqueued_at }
	}

	pub(crate) fn index(&self) -> IndexV1 {
		IndexV1 { lane: lane(&self.order_key), deadline: self.deadline }
	}
}

pub(crate) fn end(name: &str) -> End {
	let hash = IdBuilder::new(ENDPOINT, "endpoint").bytes(name.as_bytes()).finish();
	hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

pub(crate) fn lane(order_key: &[u8]) -> Lane {
	*IdBuilder::new(LANE, "lane").bytes(order_key).finish().as_bytes()
}

pub(crate) fn meta_key() -> Key {
	Key::new(META, *b"meta")
}

/// The key of a callback's [`once`](ItemV1::once).
pub(crate) fn once_key(once: &[u8; 32]) -> Key {
	Key::new(IDS, *once)
}

pub(crate) fn item_key(number: u64) -> Key {
	Key::numbered(ITEMS, b"", number)
}

pub(crate) fn open_key(number: u64) -> Key {
	Key::numbered(OPEN, b"", number)
}

pub(crate) fn dead_key(number: u64) -> Key {
	Key::numbered(DEAD, b"", number)
}

pub(crate) fn tomb_key(number: u64) -> Key {
	Key::numbered(TOMBS, b"", number)
}

pub(crate) fn end_key(end: &End) -> Key {
	Key::new(ENDS, *end)
}

pub(crate) fn cursor_key(name: &str) -> Key {
	Key::new(CURSORS, name.as_bytes())
}

/// Why a callback that was pulled was not applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Parked {
	/// Something else must come first.
	Later = 0,
	/// It will never be applied.
	Refused = 1,
}

/// Callbacks of a source that were not applied.
pub(crate) fn parked(source: &str, why: Parked) -> KeyRange {
	KeyRange::prefix(PARKED, &parked_prefix(source, why))
}

/// Those of them with an order key.
pub(crate) fn parked_lane(source: &str, why: Parked, lane: &Lane) -> KeyRange {
	KeyRange::prefix(PARKED, &[&parked_prefix(source, why)[..], lane].concat())
}

/// Where a callback is kept that was not applied.
pub(crate) fn parked_key(source: &str, why: Parked, lane: &Lane, cursor: FeedCursor) -> Key {
	let prefix = [&parked_prefix(source, why)[..], lane, &cursor.epoch.to_be_bytes()].concat();
	Key::numbered(PARKED, &prefix, cursor.after)
}

/// Of which epoch of its source a callback is that was not applied.
pub(crate) fn parked_epoch(key: &Key) -> Result<u64, StoreError> {
	let epoch = key.bytes().get(49..57).and_then(|bytes| bytes.try_into().ok());
	Ok(u64::from_be_bytes(epoch.ok_or_else(|| StoreError::corrupt(key, "this has no epoch"))?))
}

fn parked_prefix(source: &str, why: Parked) -> Vec<u8> {
	let hash = IdBuilder::new(SOURCE, "source").bytes(source.as_bytes()).finish();
	let mut prefix: Vec<u8> = hash.as_bytes().iter().copied().take(16).collect();
	prefix.push(why as u8);
	prefix
}

/// What the key of a due callback has before its number.
pub(crate) fn due_prefix(end: &End, due: Timestamp) -> Vec<u8> {
	[&end[..], &due.0.to_be_bytes()].concat()
}

pub(crate) fn lane_prefix(end: &End, lane: &Lane) -> Vec<u8> {
	[&end[..], lane].concat()
}

/// The prefixes under which a deadline is found.
pub(crate) fn urgent_prefixes(end: &End, deadline: Deadline) -> Vec<Vec<u8>> {
	let height = deadline.height.map(|height| (0, u64::from(height)));
	let time = deadline.at.map(|at| (1, at.0));
	let prefix = |(kind, number): (u8, u64)| [&end[..], &[kind], &number.to_be_bytes()].concat();
	height.into_iter().chain(time).map(prefix).collect()
}

/// Callbacks of an endpoint that are due.
pub(crate) fn due(end: &End, now: Timestamp) -> KeyRange {
	KeyRange::prefix(DUE, end).below(&due_prefix(end, Timestamp(now.0.saturating_add(1))))
}

/// Callbacks of an endpoint with deadlines of a kind, the nearest first.
pub(crate) fn urgent(end: &End, kind: u8) -> KeyRange {
	KeyRange::prefix(URGENT, &[&end[..], &[kind]].concat())
}

/// Those of them whose deadline is at most this.
pub(crate) fn urgent_up_to(end: &End, kind: u8, number: u64) -> KeyRange {
	let next = number.saturating_add(1).to_be_bytes();
	urgent(end, kind).below(&[&end[..], &[kind], &next].concat())
}

/// The number at the end of a key of an index.
pub(crate) fn number_of(key: &Key) -> Result<u64, StoreError> {
	let number = key.bytes().last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
	number.ok_or_else(|| StoreError::corrupt(key, "this ends in no number"))
}

/// When a callback in the index is due.
pub(crate) fn due_of(key: &Key) -> Result<Timestamp, StoreError> {
	let due = key.bytes().get(16..24).and_then(|bytes| bytes.try_into().ok());
	let due = due.ok_or_else(|| StoreError::corrupt(key, "this is no time"))?;
	Ok(Timestamp(u64::from_be_bytes(due)))
}

#[cfg(test)]
mod tests {
	use super::*;
	use leyden_store::codec::Stored;
	use leyden_store::key::MAX_PREFIX_BYTES;

	fn hex<T: Stored>(record: &T) -> String {
		value(record).unwrap().body.iter().map(|byte| format!("{byte:02x}")).collect()
	}

	/// What is on users' disks. A change is a new schema, never another golden.
	#[test]
	fn golden_bytes() {
		let deadline = Deadline { height: Some(9), at: Some(Timestamp(7)) };
		let item = ItemV1 {
			id: [1; 32],
			kind: "k".to_owned(),
			endpoint: "e".to_owned(),
			order_key: vec![2],
			schema: 3,
			payload: vec![4],
			deadline,
			enqueued_at: Timestamp(5),
			lived_ms: 6,
			digest: [7; 32],
		};
		let one = |byte: &str| format!("0000000000000001{byte}");
		let deadline_hex = "0100000009010000000000000007";
		let expected = [
			"01".repeat(32),
			one("6b"),
			one("65"),
			one("02"),
			"0003".to_owned(),
			one("04"),
			deadline_hex.to_owned(),
			"0000000000000005".to_owned(),
			"0000000000000006".to_owned(),
			"07".repeat(32),
		];
		assert_eq!(hex(&item), expected.concat());
		assert_eq!(
			hex(&MetaV1 { epoch: 1, trimmed: 2, restorations: 3, restored_up_to: 4 }),
			"00000000000000010000000000000002000000030000000000000004"
		);
		let open =
			|doubt, not_found_ms| OpenV1 { due: Timestamp(1), failures: 2, doubt, not_found_ms };
		let head = "000000000000000100000002";
		for (open, tail) in [
			(open(DoubtV1::None, None), "0000000000"),
			(open(DoubtV1::Sent, None), "0000000100"),
			(open(DoubtV1::InDoubt, Some(3)), "00000002010000000000000003"),
		] {
			assert_eq!(hex(&open), format!("{head}{tail}"));
		}
		let index = IndexV1 { lane: [8; 32], deadline };
		assert_eq!(hex(&index), format!("{}{deadline_hex}", "08".repeat(32)));
		let dead = |why| DeadV1 {
			why,
			at: Timestamp(2),
			failures: 3,
			reason: "r".to_owned(),
			may_have_been_taken: true,
		};
		for (why, number) in [(WhyV1::Refused, "00"), (WhyV1::Expired, "01")] {
			let expected = format!("000000{number}000000000000000200000003{}01", one("72"));
			assert_eq!(hex(&dead(why)), expected);
		}
		let paused = Some(PausedV1 { at: Timestamp(2), reason: "r".to_owned() });
		let end = EndV1 { name: "e".to_owned(), paused };
		assert_eq!(hex(&end), format!("{}010000000000000002{}", one("65"), one("72")));
		let tomb = TombV1 { id: [1; 32], once: [3; 32], digest: [4; 32], lived_ms: 2 };
		let ids = ["01", "03", "04"].map(|byte| byte.repeat(32)).concat();
		assert_eq!(hex(&tomb), format!("{ids}0000000000000002"));
		let cursor = CursorV1 { epoch: 1, after: 2, mark: 3 };
		assert_eq!(hex(&cursor), "000000000000000100000000000000020000000000000003");
	}

	#[test]
	fn keys_fit_and_read_back() {
		let (end, lane) = (end("lsp"), lane(b"hash"));
		let deadline = Deadline { height: Some(9), at: Some(Timestamp(7)) };
		for prefix in urgent_prefixes(&end, deadline)
			.into_iter()
			.chain([due_prefix(&end, Timestamp(5)), lane_prefix(&end, &lane)])
		{
			assert!(prefix.len() <= MAX_PREFIX_BYTES);
			assert_eq!(number_of(&Key::numbered(DUE, &prefix, 77)).unwrap(), 77);
		}
		let key = Key::numbered(DUE, &due_prefix(&end, Timestamp(5)), 77);
		assert_eq!(due_of(&key).unwrap(), Timestamp(5));
		let cursor = FeedCursor { epoch: 5, after: 77, mark: 0 };
		let key = parked_key("node", Parked::Later, &lane, cursor);
		assert_eq!((number_of(&key).unwrap(), parked_epoch(&key).unwrap()), (77, 5));
		assert!(parked_epoch(&Key::new(PARKED, *b"short")).is_err());
		assert!(number_of(&Key::new(DUE, *b"short")).is_err());
		assert!(due_of(&Key::new(DUE, *b"short")).is_err());
	}
}
