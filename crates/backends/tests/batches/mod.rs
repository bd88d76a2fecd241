// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Batches that tests write, and what is found of them.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::collections::BTreeSet;
use std::sync::Mutex;

use leyden_store::{Batch, Key, KeyRange, RecordType, Store, Table, Value};

pub const T: Table = Table::new("t");

pub fn value(body: impl Into<Vec<u8>>) -> Value {
	Value::new(RecordType(0x8000), 1, body)
}

pub fn append(body: &str) -> Batch {
	let mut batch = Batch::new();
	let _ = batch.append(T, b"", value(body));
	batch
}

pub fn put(key: &Key, value: Value) -> Batch {
	let mut batch = Batch::new();
	batch.put(key.clone(), value);
	batch
}

pub fn puts(count: u64, prefix: &[u8]) -> Batch {
	let mut batch = Batch::new();
	for n in 0..count {
		batch.put(Key::numbered(T, prefix, n), value("x"));
	}
	batch
}

pub fn bodies(store: &impl Store) -> Vec<String> {
	let mut found = Vec::new();
	let mut range = Some(KeyRange::all(T));
	while let Some(next) = range {
		let page = store.scan(next, 1000).wait().unwrap();
		let text = |value: Value| String::from_utf8(value.body).unwrap();
		found.extend(page.records.into_iter().map(|(_, record)| text(record.value)));
		range = page.rest;
	}
	found
}

/// Appends 25 records from each of eight threads, with one of three kinds of trouble before each, and checks
/// that every one is there once.
pub fn append_in_trouble(store: &impl Store, trouble: impl Fn(usize) + Sync) {
	let acknowledged = Mutex::new(BTreeSet::new());
	std::thread::scope(|scope| {
		for thread in 0..8 {
			let (acknowledged, trouble) = (&acknowledged, &trouble);
			scope.spawn(move || {
				for n in 0..25 {
					trouble((thread + n) % 3);
					let body = format!("{thread}-{n}");
					store.commit(append(&body)).wait().unwrap();
					acknowledged.lock().unwrap().insert(body);
				}
			});
		}
	});
	let found = bodies(store);
	assert_eq!(found.len(), 200);
	assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), acknowledged.into_inner().unwrap());
}
