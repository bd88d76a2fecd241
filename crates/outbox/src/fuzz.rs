// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use leyden_store::codec::{Law, StoredKind};
use leyden_store::{Key, Table};

use crate::{records, FeedCursor};

/// Returns everything that must hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	let mut laws: Vec<_> = stored().iter().map(|kind| (kind.name, kind.rewrite)).collect();
	laws.push(("feed cursor", feed_cursor));
	laws.push(("keys with a number", numbered));
	laws
}

/// Returns every kind of record of this crate.
pub fn stored() -> Vec<StoredKind> {
	records::STORED.to_vec()
}

fn feed_cursor(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let cursor = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<FeedCursor>().ok());
	let again = cursor.map(|cursor| cursor.to_string().into_bytes());
	again.into_iter().map(|again| (bytes.to_vec(), again)).collect()
}

/// No key of whatever length or content ends a process.
fn numbered(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let key = Key::new(Table::new("fuzz"), bytes);
	let _ = (records::number_of(&key), records::due_of(&key));
	Vec::new()
}
