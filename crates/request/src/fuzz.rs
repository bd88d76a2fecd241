// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use leyden_store::codec::{Law, StoredKind};
use leyden_store::{Key, Table};

use crate::records;

/// Returns everything that must hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	let mut laws: Vec<_> = stored().iter().map(|kind| (kind.name, kind.rewrite)).collect();
	laws.push(("key of a time", time_key));
	laws
}

/// Returns every kind of record of this crate.
pub fn stored() -> Vec<StoredKind> {
	records::STORED.to_vec()
}

/// No key of whatever length or content ends a process.
fn time_key(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let _ = records::hash_of(&Key::new(Table::new("fuzz"), bytes));
	Vec::new()
}
