// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Scans: order, ranges, pages.

use super::*;
use crate::page::MAX_PAGE_BYTES;
use crate::KeyRange;

fn names(store: &Arc<dyn Store>, range: KeyRange, limit: usize) -> Vec<String> {
	let (mut names, mut rest) = (Vec::new(), Some(range));
	while let Some(range) = rest.take() {
		let page = store.scan(range, limit).wait().unwrap();
		assert!(page.records.len() <= limit);
		names.extend(
			page.records.iter().map(|(k, _)| String::from_utf8_lossy(k.bytes()).into_owned()),
		);
		rest = page.rest;
	}
	names
}

/// Both directions, prefixes and bounds, whatever the size of a page; other tables are not in it.
pub fn scans_come_in_order_and_within_their_range(backend: &dyn Backend) {
	let store = open(backend);
	for name in ["b", "a", "ab", "c", "aa", "ac"] {
		put(&store, name, name);
	}
	let mut elsewhere = Batch::new();
	elsewhere.put(Key::new(Table::new("conformance2"), *b"ab"), value("x"));
	elsewhere.put(Key::new(Table::new("a"), *b"ab"), value("x"));
	store.commit(elsewhere).wait().unwrap();
	let all = ["a", "aa", "ab", "ac", "b", "c"];
	let reversed: Vec<_> = all.iter().rev().copied().collect();
	for limit in [1, 2, 3, 100] {
		assert_eq!(names(&store, KeyRange::all(T), limit), all);
		assert_eq!(names(&store, KeyRange::all(T).reversed(), limit), reversed);
		assert_eq!(names(&store, KeyRange::prefix(T, b"a"), limit), all[..4]);
		assert_eq!(names(&store, KeyRange::prefix(T, b"a").reversed(), limit), reversed[2..]);
		assert_eq!(names(&store, KeyRange::all(T).from(b"ab").below(b"c"), limit), all[2..5]);
		assert_eq!(names(&store, KeyRange::prefix(T, b"zz"), limit), [] as [&str; 0]);
	}
	assert_eq!(names(&store, KeyRange::all(T).below(b"a"), 10), [] as [&str; 0]);
	assert_eq!(names(&store, KeyRange::all(Table::new("empty")), 10), [] as [&str; 0]);
	let numbered = KeyRange::numbered_from(T, b"n", 3);
	for n in 1..6 {
		let mut batch = Batch::new();
		batch.put(Key::numbered(T, b"n", n), value("x"));
		store.commit(batch).wait().unwrap();
	}
	assert_eq!(names(&store, numbered, 2).len(), 3);
}

/// A record that is there all the while is seen exactly once, whatever is written between two
/// pages.
pub fn a_scan_goes_on_where_it_was_while_others_write(backend: &dyn Backend) {
	let store = open(backend);
	for n in 0..20 {
		put(&store, &format!("k{n:02}"), "stays");
	}
	for reversed in [false, true] {
		let mut range = KeyRange::prefix(T, b"k");
		if reversed {
			range = range.reversed();
		}
		let (mut seen, mut rest, mut round) = (Vec::new(), Some(range), 0);
		while let Some(range) = rest.take() {
			let page = store.scan(range, 3).wait().unwrap();
			for (key, record) in &page.records {
				if record.value == value("stays") {
					seen.push(key.clone());
				}
			}
			rest = page.rest;
			put(&store, &format!("k{round:02}x"), "new");
			let mut batch = Batch::new();
			batch.delete(key(&format!("k{:02}x", round / 2)));
			store.commit(batch).wait().unwrap();
			round += 1;
		}
		let mut once = seen.clone();
		once.sort();
		once.dedup();
		assert_eq!((seen.len(), once.len()), (20, 20));
	}
}

/// Large records make short pages.
pub fn pages_are_bounded_in_bytes(backend: &dyn Backend) {
	let store = open(backend);
	let megabyte = vec![7u8; 1 << 20];
	for n in 0..20 {
		let mut batch = Batch::new();
		batch.put(Key::numbered(T, b"m", n), Value::new(RecordType(0x8000), 1, megabyte.clone()));
		store.commit(batch).wait().unwrap();
	}
	let (mut found, mut rest) = (0, Some(KeyRange::prefix(T, b"m")));
	while let Some(range) = rest.take() {
		let page = store.scan(range, 1000).wait().unwrap();
		let bytes: usize = page.records.iter().map(|(_, record)| record.value.body.len()).sum();
		assert!(bytes < MAX_PAGE_BYTES + megabyte.len(), "{bytes} bytes in one page");
		found += page.records.len();
		rest = page.rest;
	}
	assert_eq!(found, 20);
}
