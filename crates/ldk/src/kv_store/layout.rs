// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! How LDK's keys lie in a Leyden store.
//!
//! An LDK key has three parts of up to 120 characters each, a Leyden key at most 90 bytes, so keys
//! are hashes, and the names are kept beside them:
//!
//! ```text
//! table      key                           record
//! kv_values  H(namespaces) H(key)          0x0202: the value as it is
//! kv_index   H(namespaces) H(key)          0x0001: number of the name
//! kv_names   H(namespaces) number          0x0201: the three names
//! ```
//!
//! Numbers of names are given when a key is created, so a page of the newest keys is a page of the
//! highest numbers.

use leyden_id::{Domain, IdBuilder};
use leyden_store::codec;
use leyden_store::{Batch, Durability, Key, KeyRange, Record, StoreError, Table, Value};
use lightning::io;
use lightning::util::persist::{KVSTORE_NAMESPACE_KEY_ALPHABET, KVSTORE_NAMESPACE_KEY_MAX_LEN};
use serde::{Deserialize, Serialize};

const VALUES: Table = Table::new("kv_values");
const INDEX: Table = Table::new("kv_index");
const NAMES: Table = Table::new("kv_names");

const VALUE_TYPE: leyden_store::RecordType = leyden_store::RecordType(0x0202);
const VALUE_SCHEMA: u16 = 1;
const DOMAIN: Domain = Domain::new("leyden/kv", 1);

/// A valid LDK key.
pub(super) struct Name<'a> {
	primary: &'a str,
	secondary: &'a str,
	key: &'a str,
}

/// A valid pair of namespaces.
#[derive(Clone, Copy)]
pub(super) struct Namespaces([u8; 32]);

/// What stands in `kv_names`.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct KvNameV1 {
	pub(super) primary: String,
	pub(super) secondary: String,
	pub(super) key: String,
}

leyden_store::stored! {
	KvNameV1 = 0x0201,
}

impl Namespaces {
	/// # Errors
	/// `InvalidInput` if LDK's contract does not allow them.
	pub(super) fn new(primary: &str, secondary: &str) -> Result<Self, io::Error> {
		check("primary namespace", primary)?;
		check("secondary namespace", secondary)?;
		if primary.is_empty() && !secondary.is_empty() {
			return Err(invalid("an empty primary namespace goes with an empty secondary one"));
		}
		let id = IdBuilder::new(DOMAIN, "namespaces");
		let id = id.bytes(primary.as_bytes()).bytes(secondary.as_bytes()).finish();
		Ok(Self(*id.as_bytes()))
	}

	/// The names in these namespaces, oldest first.
	pub(super) fn names(&self) -> KeyRange {
		KeyRange::prefix(NAMES, &self.0)
	}

	/// The names in these namespaces that were created before number `before`, newest first.
	pub(super) fn names_before(&self, before: Option<u64>) -> KeyRange {
		let range = self.names();
		let range = match before {
			Some(number) => range.below(Key::numbered(NAMES, &self.0, number).bytes()),
			None => range,
		};
		range.reversed()
	}

	/// The number of the name at `key`.
	pub(super) fn number(&self, key: &Key) -> Option<u64> {
		key.number(&self.0)
	}
}

/// The names in all namespaces.
pub(super) fn all_names() -> KeyRange {
	KeyRange::all(NAMES)
}

impl<'a> Name<'a> {
	/// # Errors
	/// `InvalidInput` if LDK's contract does not allow it.
	pub(super) fn new(
		primary: &'a str, secondary: &'a str, key: &'a str,
	) -> Result<(Namespaces, Self), io::Error> {
		let namespaces = Namespaces::new(primary, secondary)?;
		if key.is_empty() {
			return Err(invalid("the key is empty"));
		}
		check("key", key)?;
		Ok((namespaces, Self { primary, secondary, key }))
	}

	pub(super) fn value_key(&self, namespaces: &Namespaces) -> Key {
		self.hashed(VALUES, namespaces)
	}

	/// What writes `value`: the value, and the name if it is new, in one commit.
	pub(super) fn write(
		&self, namespaces: &Namespaces, value: Vec<u8>,
	) -> Result<Batch, StoreError> {
		let name = codec::encode(&KvNameV1 {
			primary: self.primary.to_owned(),
			secondary: self.secondary.to_owned(),
			key: self.key.to_owned(),
		})?;
		let mut batch = Batch::new();
		let index = self.hashed(INDEX, namespaces);
		let _ = batch.append_once(NAMES, &namespaces.0, name, index);
		batch.put(self.value_key(namespaces), Value::new(VALUE_TYPE, VALUE_SCHEMA, value));
		Ok(batch)
	}

	/// What removes the value and its name.
	pub(super) fn remove(&self, namespaces: &Namespaces, lazy: bool) -> Batch {
		let mut batch = Batch::new();
		batch.delete_once(NAMES, &namespaces.0, self.hashed(INDEX, namespaces));
		batch.delete(self.value_key(namespaces));
		if lazy {
			batch.durability(Durability::Lazy);
		}
		batch
	}

	fn hashed(&self, table: Table, namespaces: &Namespaces) -> Key {
		let id = IdBuilder::new(DOMAIN, "key").bytes(self.key.as_bytes()).finish();
		Key::new(table, [namespaces.0.as_slice(), id.as_bytes()].concat())
	}
}

/// The value in the record at `key`.
pub(super) fn value(key: &Key, record: Record) -> Result<Vec<u8>, StoreError> {
	let Value { record_type, schema, body } = record.value;
	if record_type != VALUE_TYPE {
		return Err(StoreError::corrupt(key, "it is not a value of LDK's"));
	}
	if schema != VALUE_SCHEMA {
		let what = format!("record {key}");
		return Err(StoreError::Newer { what, found: schema.into(), known: VALUE_SCHEMA.into() });
	}
	Ok(body)
}

fn check(what: &str, name: &str) -> Result<(), io::Error> {
	if name.len() > KVSTORE_NAMESPACE_KEY_MAX_LEN {
		let limit = KVSTORE_NAMESPACE_KEY_MAX_LEN;
		return Err(invalid(&format!("the {what} is longer than {limit} characters")));
	}
	if !name.chars().all(|c| KVSTORE_NAMESPACE_KEY_ALPHABET.contains(c)) {
		return Err(invalid(&format!("the {what} has a character outside LDK's alphabet")));
	}
	Ok(())
}

fn invalid(why: &str) -> io::Error {
	io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn golden_bytes() {
		let name = KvNameV1 { primary: "p".into(), secondary: String::new(), key: "k".into() };
		let body = codec::encode(&name).unwrap().body;
		let length = |n| [0, 0, 0, 0, 0, 0, 0, n];
		assert_eq!(body, [&length(1)[..], b"p", &length(0), &length(1), b"k"].concat());
	}

	#[test]
	fn names_that_run_together_are_apart() {
		let a = Namespaces::new("ab", "c").unwrap();
		let b = Namespaces::new("a", "bc").unwrap();
		assert_ne!(a.0, b.0);
	}

	#[test]
	fn what_ldk_does_not_allow_is_refused() {
		let long = "x".repeat(121);
		for (p, s, k) in [("", "s", "k"), ("p", "s", ""), ("p/", "s", "k"), ("p", "s", &long)] {
			assert!(Name::new(p, s, k).is_err(), "{p:?} {s:?} {k:?}");
		}
		assert!(Name::new("", "", "manager").is_ok());
	}
}
