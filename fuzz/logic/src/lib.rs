// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is fuzzed: decoders that must not trust their bytes, and the log under any sequence of
//! operations.
//!
//! Each target is a function of bytes that panics if something does not hold. The fuzzer calls it
//! with what it makes up, `cargo test` with what is in `fuzz/corpus`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod ops;
mod wire;

pub use ops::log_ops;
pub use wire::{feed_cursor, request_params, webhook_signature};

use leyden_store::{frame, Key, Table};

/// Bytes as a frame: an error or a record, and a record is written as the same bytes again.
pub fn frame_decode(data: &[u8]) {
	let key = Key::new(Table::new("fuzz"), *b"key");
	if let Ok(record) = frame::decode(&key, data) {
		assert_eq!(frame::encode(&key, record.version, &record.value), data);
		assert_eq!(frame::version(&key, data).unwrap(), record.version);
	}
	// The same bytes with a checksum that fits: what a frame lets through reaches the codec.
	let value = leyden_store::Value::new(leyden_store::RecordType(0x8000), 1, data);
	let version = frame::version(&key, &frame::encode(&key, seed_version(), &value)).unwrap();
	assert_eq!(version, seed_version());
	let _ = leyden_store::codec::from_body::<(u64, String, Vec<u8>, Option<u32>)>(data);
}

/// Bytes as the payload of a user event, and as the records of the LDK crate: an error or an event.
pub fn event_decode(data: &[u8]) {
	leyden_ldk::decode_records(data);
	let _ = leyden_ldk::decode_event(data);
	// With a header that fits, so that LDK's decoder gets the rest.
	let mut payload = vec![1, 1];
	payload.extend([0; 32]);
	payload.extend(data);
	let _ = leyden_ldk::decode_event(&payload);
}

/// A version, taken from a store since nobody else makes them.
fn seed_version() -> leyden_store::Version {
	use leyden_store::Store;
	let store = leyden_store::MemoryStore::new().unwrap();
	let mut batch = leyden_store::Batch::new();
	batch.delete(Key::new(Table::new("fuzz"), *b"x"));
	store.commit(batch).wait().unwrap().version()
}
