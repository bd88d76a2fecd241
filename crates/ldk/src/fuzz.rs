// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use leyden_store::codec::{Law, StoredKind};
use lightning::util::ser::{BigSize, Writeable};

use crate::{htlc_resolutions, journal, kv_backend, kv_store, manager_record, monitor, tlv};

/// Returns everything that must hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	let mut laws: Vec<_> = stored().iter().map(|kind| (kind.name, kind.rewrite)).collect();
	laws.push(("HTLC resolution", htlc_resolutions::resolution_law));
	laws.push(("monitor entry", monitor::monitor_entry_law));
	laws.push(("event", journal::event_law));
	laws.push(("name of a KVStore", kv_store::kv_name_law));
	laws.push(("name in a KVStore", kv_backend::kv_backend_name_law));
	laws.push(("redo", kv_backend::redo_law));
	laws.push(("TLV stream", tlv_stream));
	laws
}

/// Returns every kind of record of this crate.
pub fn stored() -> Vec<StoredKind> {
	let [kv_names, resolutions] = [kv_store::KV_NAME_STORED, htlc_resolutions::RESOLUTION_STORED];
	[kv_names, resolutions, manager_record::STORED].concat()
}

fn tlv_stream(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let Some((records, rest)) = tlv::length_prefixed(bytes) else { return Vec::new() };
	let mut stream = Vec::new();
	for (record_type, value) in &records {
		stream.extend(BigSize(*record_type).encode());
		stream.extend(BigSize(value.len() as u64).encode());
		stream.extend_from_slice(value);
	}
	let length = BigSize(stream.len() as u64).encode();
	vec![(bytes.to_vec(), [length.as_slice(), &stream, rest].concat())]
}
