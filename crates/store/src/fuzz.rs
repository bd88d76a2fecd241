// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use crate::codec::{Law, StoredKind};
use crate::group::PORTABLE_STORED;
use crate::sequence::NumberRecord;
use crate::{frame, store_clock, witness, Key, Record, Table, Value, Version};

/// Returns everything that must hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	let stored = [PORTABLE_STORED, store_clock::STORED, witness::STORED].concat();
	let mut laws: Vec<_> = stored.iter().map(|kind| (kind.name, kind.rewrite)).collect();
	laws.push(("number", number));
	laws.push(("witness mark", witness_mark));
	laws.push(("frame", frame_again));
	laws
}

/// Returns every kind of record of this crate.
pub fn stored() -> Vec<StoredKind> {
	[PORTABLE_STORED, store_clock::STORED, witness::STORED].concat()
}

fn number(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let value = Value::new(NumberRecord::TYPE, NumberRecord::SCHEMA, bytes);
	let record = Record { version: Version::new(1), value };
	match NumberRecord::read(&key(), &record) {
		Ok(number) => vec![(bytes.to_vec(), number.value().body)],
		Err(_) => Vec::new(),
	}
}

fn witness_mark(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let Some(mark) = witness::read_mark(bytes) else { return Vec::new() };
	let again = witness::mark_bytes(&mark);
	let length = again.len();
	vec![(bytes.get(..length).unwrap_or_default().to_vec(), again)]
}

fn frame_again(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let Ok(record) = frame::decode(&key(), bytes) else { return Vec::new() };
	let peeked = frame::peek_version(bytes).map_or(0, Version::get).to_be_bytes();
	vec![
		(bytes.to_vec(), frame::encode(&key(), record.version, &record.value)),
		(record.version.get().to_be_bytes().to_vec(), peeked.to_vec()),
	]
}

fn key() -> Key {
	Key::new(Table::new("fuzz"), *b"key")
}
