// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a request asks for, in the one form that is compared.

use std::collections::BTreeMap;
use std::fmt;

use leyden_id::{Domain, IdBuilder};
use serde::{Deserialize, Serialize};

/// Most fields of one request.
pub const MAX_FIELDS: usize = 32;
/// Longest name of a field, in bytes.
pub const MAX_FIELD_NAME_CHARS: usize = 64;
/// Longest value, in bytes, in canonical form.
pub const MAX_FIELD_BYTES: usize = 4096;

const FIELD: Domain = Domain::new("leyden/request-field", 1);
const PARAMS: Domain = Domain::new("leyden/request-params", 1);

/// The parameters of a request in canonical form: fields that say the same are the same bytes,
/// however they were written. Only hashes of them are kept.
///
/// The version is that of the canonical form: change it whenever a field is added, dropped or read
/// in another way. A request that was stored under an older version is compared in that one
/// ([`Request::params`](crate::Request)).
#[derive(Clone, Eq, PartialEq)]
pub struct Params {
	version: u16,
	fields: BTreeMap<String, [u8; 32]>,
}

/// A value that has no canonical form. It does not say what the value was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParamError {
	/// The field.
	pub field: String,
	/// What it should be.
	pub expected: &'static str,
}

impl Params {
	/// No fields yet.
	pub fn new(version: u16) -> Self {
		Self { version, fields: BTreeMap::new() }
	}

	/// Adds a field as it is.
	///
	/// # Errors
	/// [`ParamError`] if it is too long, there are too many, or this one is there already.
	pub fn bytes(mut self, name: &str, value: &[u8]) -> Result<Self, ParamError> {
		let error = |expected| Err(ParamError { field: name.to_owned(), expected });
		if name.is_empty() || name.len() > MAX_FIELD_NAME_CHARS {
			return error("a shorter name");
		}
		if value.len() > MAX_FIELD_BYTES {
			return error("fewer bytes");
		}
		if self.fields.len() >= MAX_FIELDS {
			return error("fewer fields");
		}
		let hash = IdBuilder::new(FIELD, name).bytes(value).finish();
		match self.fields.insert(name.to_owned(), *hash.as_bytes()) {
			None => Ok(self),
			Some(_) => error("one value"),
		}
	}

	/// Adds a text as it is.
	///
	/// # Errors
	/// As [`bytes`](Params::bytes).
	pub fn text(self, name: &str, value: &str) -> Result<Self, ParamError> {
		self.bytes(name, value.as_bytes())
	}

	/// Adds a number.
	///
	/// # Errors
	/// As [`bytes`](Params::bytes).
	pub fn number(self, name: &str, value: u64) -> Result<Self, ParamError> {
		self.bytes(name, value.to_string().as_bytes())
	}

	/// Adds a number that is written as a text: only digits, with any number of zeros in front.
	/// `"0042"` is `"42"`; `"+42"` and `" 42"` are none.
	///
	/// # Errors
	/// [`ParamError`] for anything but digits, and above [`u64::MAX`].
	pub fn decimal(self, name: &str, value: &str) -> Result<Self, ParamError> {
		let digits = value.bytes().all(|byte| byte.is_ascii_digit());
		let number: Option<u64> = value.parse().ok().filter(|_| digits);
		match number {
			Some(number) => self.number(name, number),
			None => Err(ParamError { field: name.to_owned(), expected: "a decimal number" }),
		}
	}

	/// Adds `digits` hex digits, of which case does not matter.
	///
	/// # Errors
	/// [`ParamError`] for anything else: fewer or more, or with spaces.
	pub fn hex(self, name: &str, value: &str, digits: usize) -> Result<Self, ParamError> {
		if value.len() != digits || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
			return Err(ParamError { field: name.to_owned(), expected: "hex digits" });
		}
		self.bytes(name, value.to_ascii_lowercase().as_bytes())
	}

	/// Adds a field that may be missing. Missing is not the same as empty.
	///
	/// # Errors
	/// Those of `add`.
	pub fn optional<T>(
		self, value: Option<T>, add: impl FnOnce(Self, T) -> Result<Self, ParamError>,
	) -> Result<Self, ParamError> {
		match value {
			Some(value) => add(self, value),
			None => Ok(self),
		}
	}

	/// The version of the form.
	pub fn version(&self) -> u16 {
		self.version
	}

	/// SHA-256 over the version and every field, under a tag.
	pub fn fingerprint(&self) -> [u8; 32] {
		let all = IdBuilder::new(PARAMS, "params").number(self.version.into());
		let all = self
			.fields
			.iter()
			.fold(all, |all, (name, hash)| all.bytes(name.as_bytes()).bytes(hash));
		*all.finish().as_bytes()
	}

	pub(crate) fn stored(&self) -> StoredParams {
		let fields = self.fields.iter().map(|(name, hash)| (name.clone(), *hash)).collect();
		StoredParams { version: self.version, fields }
	}
}

/// Params on disk.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct StoredParams {
	pub(crate) version: u16,
	pub(crate) fields: Vec<(String, [u8; 32])>,
}

impl StoredParams {
	/// The fields that differ, by name; of another version, all of them.
	pub(crate) fn differing(&self, other: &Params) -> Vec<String> {
		let ours: BTreeMap<&str, &[u8; 32]> =
			self.fields.iter().map(|(name, hash)| (name.as_str(), hash)).collect();
		let is_same = |name: &str| {
			self.version == other.version && ours.get(name).copied() == other.fields.get(name)
		};
		let mut names: Vec<String> = ours.keys().map(|name| (*name).to_owned()).collect();
		names.extend(other.fields.keys().filter(|name| !ours.contains_key(name.as_str())).cloned());
		names.retain(|name| !is_same(name));
		names.sort();
		names
	}
}

impl fmt::Debug for Params {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let names: Vec<&String> = self.fields.keys().collect();
		f.debug_struct("Params").field("version", &self.version).field("fields", &names).finish()
	}
}

impl fmt::Display for ParamError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}: expected {}", self.field, self.expected)
	}
}

impl std::error::Error for ParamError {}

#[cfg(test)]
mod tests {
	use super::*;

	/// The vectors of the upstream's canonicaliser, and what it lets through and should not.
	#[test]
	fn the_same_in_other_words_is_the_same() {
		let decimal = |value| Params::new(1).decimal("hash_index", value);
		assert_eq!(decimal("0042").unwrap(), decimal("42").unwrap());
		assert_eq!(decimal("0").unwrap(), decimal("000").unwrap());
		assert_ne!(decimal("42").unwrap(), decimal("43").unwrap());
		for bad in ["", "+42", "-1", " 42", "42 ", "4_2", "0x2a", "٤٢", "18446744073709551616"] {
			assert!(decimal(bad).is_err(), "{bad}");
		}
		let hex = |value| Params::new(1).hex("payment_hash", value, 4);
		assert_eq!(hex("00aB").unwrap(), hex("00Ab").unwrap());
		for bad in ["", "00a", "00aBc", " 0ab", "00ag", "0x0a", "00\u{e4}"] {
			assert!(hex(bad).is_err(), "{bad}");
		}
		assert_eq!(decimal("7").unwrap(), Params::new(1).number("hash_index", 7).unwrap());
	}

	#[test]
	fn missing_is_not_empty_and_order_is_nothing() {
		let with = |value| Params::new(1).optional(value, |p, v| p.text("memo", v)).unwrap();
		assert_ne!(with(None), with(Some("")));
		let a = Params::new(1).number("a", 1).unwrap().number("b", 2).unwrap();
		let b = Params::new(1).number("b", 2).unwrap().number("a", 1).unwrap();
		assert_eq!(a.fingerprint(), b.fingerprint());
		assert_ne!(a.fingerprint(), Params { version: 2, ..a.clone() }.fingerprint());
		// A value that moves to another field.
		let c = Params::new(1).number("a", 2).unwrap().number("b", 1).unwrap();
		assert_ne!(a.fingerprint(), c.fingerprint());
	}

	#[test]
	fn differences_are_named_and_not_shown() {
		let one = Params::new(1).number("amount", 5).unwrap().text("memo", "secret").unwrap();
		let other = Params::new(1).number("amount", 6).unwrap().text("note", "x").unwrap();
		assert_eq!(one.stored().differing(&other), ["amount", "memo", "note"]);
		assert!(one.stored().differing(&one).is_empty());
		assert!(!format!("{one:?}").contains("secret"));
		assert_eq!(
			one.stored().differing(&Params { version: 2, ..one.clone() }),
			["amount", "memo"]
		);
	}

	#[test]
	fn fields_have_limits() {
		assert!(Params::new(1).text("a", "1").unwrap().text("a", "1").is_err());
		assert!(Params::new(1).bytes("a", &[0; MAX_FIELD_BYTES + 1]).is_err());
		assert!(Params::new(1).text(&"n".repeat(65), "").is_err());
		let full = (0..MAX_FIELDS).try_fold(Params::new(1), |p, n| p.number(&n.to_string(), 0));
		assert!(full.unwrap().text("one more", "").is_err());
	}

	/// Fingerprints are on users' disks: what changes them makes every stored request a conflict.
	#[test]
	fn golden() {
		let params = Params::new(1).number("amount_msat", 1000).unwrap().text("memo", "").unwrap();
		let hex: String = params.fingerprint().iter().map(|b| format!("{b:02x}")).collect();
		assert_eq!(hex, GOLDEN);
	}

	/// Computed apart from this code, from the description of [`IdBuilder`].
	const GOLDEN: &str = "d1f11264d98ce2c72424df8d2722d86ac5d0fca930637ee4dec5b8fed1c1bd3c";
}
