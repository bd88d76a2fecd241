// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A group, written down whole before it is done.
//!
//! ```text
//! head   parts (4), version (8), and the changes if there are no parts
//! part   version (8), a piece of the changes
//! change table's length (1), table, key's length (1), key, 0 to delete,
//!        or 1, frame's length (4), frame
//! ```
//! Head and parts are in frames, of the type 0x0002, and a part belongs to the head of its version.
//!
//! # Slots
//! A write that failed may land later, when a newer redo has taken the place of the one it carries. So
//! a place at which a write has failed, or may have failed in an earlier process, is not used for
//! another redo: head and parts are in a *slot*, whose number only grows. The head in the highest
//! slot is the newest. Slot 0 has the keys that the first version of this layout had.

use leyden_store::committer::RawWrite;
use leyden_store::frame::{self, MAX_BODY_BYTES};
use leyden_store::key::MAX_KEY_BYTES;
use leyden_store::{Key, RecordType, StoreError, Table, Value, Version};

/// The table that redos are in, as far as frames and errors are concerned.
pub(super) const TABLE: Table = Table::new("_redo");
const HEAD: &[u8] = b"head";
const PART: &[u8] = b"part";
const TYPE: RecordType = RecordType(0x0002);
const SCHEMA: u16 = 1;
/// Most bytes of changes in one value.
const PART_BYTES: usize = MAX_BODY_BYTES / 2;
/// Most parts; a batch has 128 MiB at most, and a group little more.
const MAX_PARTS: usize = 64;

/// A change, named as on disk.
pub(super) struct Change {
	pub(super) table: String,
	pub(super) key: Vec<u8>,
	pub(super) frame: Option<Vec<u8>>,
}

/// A redo as it is stored: the parts, and the head, which must be written last.
pub(super) struct Encoded {
	pub(super) parts: Vec<Vec<u8>>,
	pub(super) head: Vec<u8>,
}

pub(super) fn head_key(slot: u64) -> Key {
	match slot {
		0 => Key::new(TABLE, HEAD),
		_ => Key::numbered(TABLE, HEAD, slot),
	}
}

pub(super) fn part_key(slot: u64, number: usize) -> Key {
	let number = number as u64;
	match slot {
		0 => Key::numbered(TABLE, PART, number),
		_ => Key::numbered(TABLE, &[PART, &slot.to_be_bytes()].concat(), number),
	}
}

/// The slot of which this is the head's key.
pub(super) fn slot_of(key: &[u8]) -> Option<u64> {
	match key == HEAD {
		true => Some(0),
		// Slot 0 has no number.
		false => Key::new(TABLE, key).number(HEAD).filter(|slot| *slot != 0),
	}
}

pub(super) fn encode(
	writes: &[RawWrite], version: Version, slot: u64,
) -> Result<Encoded, StoreError> {
	let mut changes = Vec::new();
	for (key, frame) in writes {
		push_short(&mut changes, key.table().name().as_bytes());
		push_short(&mut changes, key.bytes());
		let length = frame.as_ref().map_or(0, Vec::len);
		u32::try_from(length).map_err(|_| too_large(length))?;
		push_frame(&mut changes, frame.as_deref());
	}
	let pieces = match changes.len() <= PART_BYTES {
		true => 0,
		false => changes.len().div_ceil(PART_BYTES),
	};
	if pieces > MAX_PARTS {
		return Err(too_large(changes.len()));
	}
	let number = version.get().to_be_bytes();
	let mut head = [&(pieces as u32).to_be_bytes(), number.as_slice()].concat();
	let mut parts = Vec::with_capacity(pieces);
	if pieces == 0 {
		head.extend(&changes);
	} else {
		for (n, piece) in changes.chunks(PART_BYTES).enumerate() {
			let body = [number.as_slice(), piece].concat();
			parts.push(frame::encode(&part_key(slot, n), version, &Value::new(TYPE, SCHEMA, body)));
		}
	}
	let head = frame::encode(&head_key(slot), version, &Value::new(TYPE, SCHEMA, head));
	Ok(Encoded { parts, head })
}

/// What a redo asks for, and its version. `part` reads a part that the head names.
pub(super) fn decode(
	head: &[u8], slot: u64, mut part: impl FnMut(usize) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<(Vec<Change>, u64), StoreError> {
	let key = head_key(slot);
	let body = body(&key, head)?;
	let (count, body) = body.split_first_chunk::<4>().ok_or_else(|| damaged(&key))?;
	let (version, inline) = body.split_first_chunk::<8>().ok_or_else(|| damaged(&key))?;
	let count = u32::from_be_bytes(*count) as usize;
	if count > MAX_PARTS {
		return Err(damaged(&key));
	}
	let mut changes = inline.to_vec();
	for n in 0..count {
		let key = part_key(slot, n);
		let missing = || StoreError::corrupt(&key, "a part of the redo is missing");
		let found = self::body(&key, &part(n)?.ok_or_else(missing)?)?;
		let (of, piece) = found.split_first_chunk::<8>().ok_or_else(|| damaged(&key))?;
		// The next redo was being written when it ended: so this one had been done.
		if of > version {
			return Ok((Vec::new(), u64::from_be_bytes(*version)));
		}
		if of != version {
			return Err(StoreError::corrupt(&key, "it is a part of an older redo"));
		}
		changes.extend(piece);
	}
	let version = u64::from_be_bytes(*version);
	Ok((read_changes(&changes).ok_or_else(|| damaged(&key))?, version))
}

fn read_changes(mut bytes: &[u8]) -> Option<Vec<Change>> {
	let mut changes = Vec::new();
	while !bytes.is_empty() {
		let table = String::from_utf8(take_short(&mut bytes)?.to_vec()).ok()?;
		let key = take_short(&mut bytes)?.to_vec();
		// No batch has others.
		if table.is_empty() || !(1..=MAX_KEY_BYTES).contains(&key.len()) {
			return None;
		}
		let (kind, rest) = bytes.split_first()?;
		bytes = rest;
		let frame = match kind {
			0 => None,
			1 => {
				let (length, rest) = bytes.split_first_chunk::<4>()?;
				let (frame, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
				bytes = rest;
				Some(frame.to_vec())
			},
			_ => return None,
		};
		changes.push(Change { table, key, frame });
	}
	Some(changes)
}

fn body(key: &Key, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
	let value = frame::decode(key, bytes)?.value;
	if value.record_type != TYPE {
		return Err(damaged(key));
	}
	if value.schema > SCHEMA {
		let what = "the redo of the last batch".to_owned();
		return Err(StoreError::Newer { what, found: value.schema.into(), known: SCHEMA.into() });
	}
	Ok(value.body)
}

/// The changes that are read are those that are written; so is a head, whatever its parts are.
#[cfg(feature = "fuzz")]
pub(crate) fn redo_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let mut pairs = Vec::new();
	if let Some(changes) = read_changes(bytes) {
		let mut again = Vec::new();
		for Change { table, key, frame } in changes {
			push_short(&mut again, table.as_bytes());
			push_short(&mut again, &key);
			push_frame(&mut again, frame.as_deref());
		}
		pairs.push((bytes.to_vec(), again));
	}
	if let Some(slot) = slot_of(bytes) {
		pairs.push((bytes.to_vec(), head_key(slot).bytes().to_vec()));
	}
	// A head and a part with checksums that fit, so that what they hold is read.
	let version = Version::new(1);
	let framed = |key: &Key| frame::encode(key, version, &Value::new(TYPE, SCHEMA, bytes));
	let _ = decode(&framed(&head_key(0)), 0, |n| Ok(Some(framed(&part_key(0, n)))));
	let _ = decode(bytes, 0, |_| Ok(None));
	pairs
}

fn push_frame(out: &mut Vec<u8>, frame: Option<&[u8]>) {
	match frame {
		Some(frame) => {
			out.push(1);
			// Changes are no longer than what their parts hold, which fits.
			out.extend((frame.len() as u32).to_be_bytes());
			out.extend(frame);
		},
		None => out.push(0),
	}
}

fn push_short(out: &mut Vec<u8>, bytes: &[u8]) {
	// Names have 16 bytes at most, keys 90.
	out.push(bytes.len() as u8);
	out.extend(bytes);
}

fn take_short<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
	let (length, rest) = bytes.split_first()?;
	let (taken, rest) = rest.split_at_checked(usize::from(*length))?;
	*bytes = rest;
	Some(taken)
}

fn damaged(key: &Key) -> StoreError {
	StoreError::corrupt(key, "it is not a redo")
}

fn too_large(found: usize) -> StoreError {
	let limit = PART_BYTES * MAX_PARTS;
	StoreError::TooLarge { what: "bytes in a group", limit, found }
}

#[cfg(test)]
mod tests {
	use super::*;

	fn change(table: &[u8], key: &[u8]) -> Vec<u8> {
		let mut changes = Vec::new();
		push_short(&mut changes, table);
		push_short(&mut changes, key);
		push_frame(&mut changes, Some(b"frame"));
		changes
	}

	#[test]
	fn a_slot_has_one_key() {
		for slot in [0, 1, u64::MAX] {
			assert_eq!(slot_of(head_key(slot).bytes()), Some(slot));
		}
		assert_eq!(slot_of(Key::numbered(TABLE, HEAD, 0).bytes()), None);
	}

	/// A redo is done before anything else, so it does nothing that no batch could have asked for.
	#[test]
	fn a_redo_writes_no_key_that_no_batch_has() {
		assert_eq!(read_changes(&change(b"t", b"k")).map(|changes| changes.len()), Some(1));
		for (table, key) in [(&b""[..], &b"k"[..]), (b"t", b""), (b"t", &[1; MAX_KEY_BYTES + 1])] {
			assert!(read_changes(&change(table, key)).is_none());
		}
	}
}
