// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use leyden_store::codec::{self, Law, StoredKind};
use leyden_store::{Key, Record, Table, Value, Version};

use crate::funding::{FundingV1, FUNDING_STORED};
use crate::{records, SpliceFailed};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns everything that must hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	let mut laws: Vec<_> = stored().iter().map(|kind| (kind.name, kind.rewrite)).collect();
	laws.push(("splice", splice));
	laws.push(("funding", funding));
	laws.push(("key of a coin", coin_key));
	laws.push(("splice that failed", failed));
	laws
}

/// Returns every kind of record of this crate.
pub fn stored() -> Vec<StoredKind> {
	[records::STORED, FUNDING_STORED].concat()
}

/// A splice that is read is written as it is read again.
fn splice(bytes: &[u8]) -> Pairs {
	let Some(kind) = records::STORED.first() else { return Vec::new() };
	let key = Key::new(Table::new("fuzz"), *b"key");
	let read = |body: &[u8]| {
		let value = Value::new(kind.record_type, 1, body);
		records::read(&key, &Record { version: Version::new(1), value }).ok()
	};
	let write = |body: &[u8]| Some(records::write(&read(body)?).ok()?.body);
	let Some(once) = write(bytes) else { return Vec::new() };
	let twice = write(&once).unwrap_or_default();
	vec![(once, twice)]
}

fn funding(bytes: &[u8]) -> Pairs {
	let write = |body: &[u8]| {
		let read = codec::from_body::<FundingV1>(body).ok()?;
		Some(codec::encode(&FundingV1::from(&read.into_record())).ok()?.body)
	};
	let Some(once) = write(bytes) else { return Vec::new() };
	let twice = write(&once).unwrap_or_default();
	vec![(once, twice)]
}

fn coin_key(bytes: &[u8]) -> Pairs {
	let key = Key::new(records::COINS, bytes);
	let again = records::coin_of(&key).map(|coin| records::coin_key(&coin));
	again.into_iter().map(|again| (bytes.to_vec(), again.bytes().to_vec())).collect()
}

fn failed(bytes: &[u8]) -> Pairs {
	let write = |body: &[u8]| SpliceFailed::from_bytes(body)?.to_bytes().ok();
	let Some(once) = write(bytes) else { return Vec::new() };
	let twice = write(&once).unwrap_or_default();
	vec![(once, twice)]
}
