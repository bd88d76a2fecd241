// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is on disk.
//!
//! ```text
//! table           key                              record
//! requests        H(scope) H(request)              0x0401 RequestV1
//! request_times   time (8) H(scope) H(request)     0x0402 TimeV1: look at it then
//! request_scopes  H(scope)                         0x0403 ScopeV1
//! ```

pub(crate) use leyden_store::codec::{decode as read, encode as value};
use leyden_store::{Key, KeyRange, StoreError, Table, Timestamp};
use serde::{Deserialize, Serialize};

use crate::params::StoredParams;

pub(crate) const REQUESTS: Table = Table::new("requests");
pub(crate) const TIMES: Table = Table::new("request_times");
const SCOPES: Table = Table::new("request_scopes");

/// A request.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct RequestV1 {
	pub(crate) scope: Vec<u8>,
	pub(crate) operation: String,
	pub(crate) key: Vec<u8>,
	pub(crate) params: StoredParams,
	pub(crate) begun_at: Timestamp,
	/// From then on its answer is not given any more.
	pub(crate) expires_at: Timestamp,
	/// From then on it may be forgotten.
	pub(crate) forget_at: Timestamp,
	/// What [`TIMES`] has for it.
	pub(crate) look_at: Timestamp,
	pub(crate) state: StateV1,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum StateV1 {
	Started,
	/// It was carried out, and did nothing that lasts.
	Released,
	Answered {
		at: Timestamp,
		is_error: bool,
		answer: Vec<u8>,
	},
	/// Its answer is gone.
	Remembered,
}

/// When to look at a request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct TimeV1 {}

/// A scope.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ScopeV1 {
	pub(crate) requests: u64,
}

leyden_store::stored! {
	RequestV1 = 0x0401,
	TimeV1 = 0x0402,
	ScopeV1 = 0x0403,
}

pub(crate) fn request_key(hash: &[u8; 64]) -> Key {
	Key::new(REQUESTS, *hash)
}

pub(crate) fn time_key(at: Timestamp, hash: &[u8; 64]) -> Key {
	Key::new(TIMES, [&at.0.to_be_bytes()[..], hash].concat())
}

/// The request that a key of [`TIMES`] is about.
pub(crate) fn hash_of(key: &Key) -> Result<[u8; 64], StoreError> {
	let hash = key.bytes().get(8..).and_then(|hash| hash.try_into().ok());
	hash.ok_or_else(|| StoreError::corrupt(key, "this is no time and request"))
}

/// What is to be looked at, as of `now`.
pub(crate) fn due(now: Timestamp) -> KeyRange {
	KeyRange::all(TIMES).below(&now.0.saturating_add(1).to_be_bytes())
}

pub(crate) fn scope_key(scope: [u8; 32]) -> Key {
	Key::new(SCOPES, scope)
}

/// The place at which handles over one store know of each other.
pub(crate) fn place() -> Key {
	Key::new(REQUESTS, *b"")
}

#[cfg(test)]
mod tests {
	use super::*;

	fn request(state: StateV1) -> RequestV1 {
		RequestV1 {
			scope: vec![2],
			operation: "o".to_owned(),
			key: vec![7],
			params: StoredParams { version: 1, fields: vec![("f".to_owned(), [9; 32])] },
			begun_at: Timestamp(1),
			expires_at: Timestamp(2),
			forget_at: Timestamp(3),
			look_at: Timestamp(2),
			state,
		}
	}

	/// What is on users' disks. A change is a new schema, never another golden.
	#[test]
	fn golden_bytes() {
		let answered =
			StateV1::Answered { at: Timestamp(4), is_error: true, answer: b"no".to_vec() };
		let head = "000000000000000102\
			00000000000000016f\
			000000000000000107\
			00010000000000000001000000000000000166\
			0909090909090909090909090909090909090909090909090909090909090909\
			0000000000000001000000000000000200000000000000030000000000000002";
		for (state, tail) in [
			(StateV1::Started, "00000000"),
			(StateV1::Released, "00000001"),
			(answered, "0000000200000000000000040100000000000000026e6f"),
			(StateV1::Remembered, "00000003"),
		] {
			let record = request(state);
			let body = value(&record).unwrap().body;
			let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
			assert_eq!(hex, format!("{head}{tail}"));
			let read: RequestV1 = leyden_store::codec::from_body(&body).unwrap();
			assert!(read == record);
		}
	}
}
