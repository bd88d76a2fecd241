// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Damage: loud, named, and never skipped.

use super::*;
use crate::codec::{self, Stored};
use crate::KeyRange;

/// Every byte of a record that is changed, and every length that it is cut to, makes reading it an
/// error that names it; its neighbours are still there.
pub fn every_damaged_byte_is_loud_and_nothing_is_skipped(backend: &dyn Backend) {
	let store = open(backend);
	for name in ["a", "b", "c"] {
		put(&store, name, "body");
	}
	let at = key("b");
	let mut whole = Vec::new();
	let mut look = |frame: &mut Vec<u8>| whole = frame.clone();
	if !backend.damage(&store, &default(), &at, &mut look) {
		return;
	}
	let check = |bad: Vec<u8>| {
		assert!(backend.damage(&store, &default(), &at, &mut |frame| frame.clone_from(&bad)));
		for error in [
			store.get(&at).wait().map(|_| ()).unwrap_err(),
			store.scan(KeyRange::all(T), 10).wait().map(|_| ()).unwrap_err(),
		] {
			assert!(!error.is_retriable());
			let text = error.to_string();
			assert!(text.contains("conformance/62"), "it names the record: {text}");
		}
		assert_eq!(store.get_raw(&at).wait().unwrap(), Some(bad), "what is left is there");
	};
	for n in 0..whole.len() {
		let mut bad = whole.clone();
		bad[n] ^= 0x41;
		check(bad);
		check(whole[..n].to_vec());
	}
	assert_eq!(body(&store, "a").as_deref(), Some("body"));
	assert_eq!(body(&store, "c").as_deref(), Some("body"));
	// A batch that looks at it is refused, and overwrites nothing.
	let mut batch = Batch::new();
	batch.expect(at.clone(), crate::Expectation::Present).put(key("d"), value("x"));
	assert!(matches!(store.commit(batch).wait(), Err(StoreError::Corrupt { .. })));
	assert!(get(&store, "d").is_none());
	let repaired = whole.clone();
	assert!(backend.damage(&store, &default(), &at, &mut |frame| frame.clone_from(&repaired)));
	assert_eq!(body(&store, "b").as_deref(), Some("body"));
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Old(u8);

impl Stored for Old {
	const TYPE: RecordType = RecordType(0x8000);
	const SCHEMA: u16 = 1;
}

/// A record of a newer schema is no damage, and is not read as something older.
pub fn a_newer_schema_is_refused(backend: &dyn Backend) {
	let store = open(backend);
	let mut batch = Batch::new();
	batch.put(key("new"), Value::new(RecordType(0x8000), 2, *b"x"));
	store.commit(batch).wait().unwrap();
	let record = get(&store, "new").unwrap();
	let read = codec::decode::<Old>(&key("new"), &record).map(|_| ());
	assert!(matches!(read, Err(StoreError::Newer { found: 2, known: 1, .. })), "{read:?}");
}
