// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where a record lives: a [`Table`], a [`Key`] in it, and a [`KeyRange`] to read many.
//!
//! Every backend must be able to hold every key, so the limits here are those of the narrowest one:
//! an LDK `KVStore` takes 120 characters of `[A-Za-z0-9_-]`, six bits each, which is 90 bytes.

use std::collections::BTreeSet;
use std::fmt;

use parking_lot::Mutex;

use crate::error::StoreError;

/// Longest key, in bytes: 90 bytes are 120 characters of LDK's `KVStore` alphabet.
pub const MAX_KEY_BYTES: usize = 90;
/// Longest prefix of a numbered key, in bytes. The number behind it takes eight.
pub const MAX_PREFIX_BYTES: usize = 64;
/// Longest table name, in characters.
pub const MAX_TABLE_NAME_CHARS: usize = 16;
/// Most tables that are known by name from stores.
pub const MAX_INTERNED_TABLES: usize = 1024;
/// Longest namespace name, in characters.
pub const MAX_NAMESPACE_CHARS: usize = 32;

/// The name of a table: lower-case letters, digits and `_`, at most [`MAX_TABLE_NAME_CHARS`].
///
/// Tables are named in code, so the name is checked when the program is compiled.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Table(&'static str);

impl Table {
	/// Names a table.
	///
	/// # Panics
	/// If the name is empty, too long or has another character; in a `const` that is a compile
	/// error.
	pub const fn new(name: &'static str) -> Self {
		assert!(is_name(name.as_bytes(), MAX_TABLE_NAME_CHARS), "not a table name");
		Self(name)
	}

	/// The table of this name, which comes from a store and not from code. Names are kept for as
	/// long as the program runs, so there may only be so many.
	///
	/// # Errors
	/// [`StoreError::Invalid`] if it is no name, or one too many.
	pub fn interned(name: &str) -> Result<Self, StoreError> {
		static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
		if !is_name(name.as_bytes(), MAX_TABLE_NAME_CHARS) {
			return Err(StoreError::invalid(format!("{name:?} is not the name of a table")));
		}
		let mut names = NAMES.lock();
		if let Some(known) = names.get(name) {
			return Ok(Self(known));
		}
		StoreError::limit("tables", MAX_INTERNED_TABLES, names.len() + 1)?;
		let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
		names.insert(name);
		Ok(Self(name))
	}

	/// The name.
	pub const fn name(self) -> &'static str {
		self.0
	}
}

impl fmt::Debug for Table {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(self.0)
	}
}

impl fmt::Display for Table {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(self.0)
	}
}

/// Whose records these are: one writer per namespace, many namespaces per store.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Namespace(String);

impl Namespace {
	/// Names a namespace: lower-case letters, digits and `_`, at most [`MAX_NAMESPACE_CHARS`].
	///
	/// # Errors
	/// [`StoreError::Invalid`] if the name is not of that form.
	pub fn new(name: &str) -> Result<Self, StoreError> {
		if is_name(name.as_bytes(), MAX_NAMESPACE_CHARS) {
			Ok(Self(name.to_owned()))
		} else {
			Err(StoreError::invalid(format!(
				"{name:?} is not a namespace: use 1 to {MAX_NAMESPACE_CHARS} of a-z, 0-9 and _"
			)))
		}
	}

	/// The name.
	pub fn name(&self) -> &str {
		&self.0
	}
}

impl Default for Namespace {
	/// The namespace `default`, for a store that serves one node.
	fn default() -> Self {
		Self("default".to_owned())
	}
}

impl fmt::Display for Namespace {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(&self.0)
	}
}

/// One record's place: a table and 1 to [`MAX_KEY_BYTES`] bytes. Keys sort by table, then by bytes.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
	table: Table,
	bytes: Vec<u8>,
}

impl Key {
	/// A key made of these bytes. Its length is checked when a batch with it is committed.
	pub fn new(table: Table, bytes: impl Into<Vec<u8>>) -> Self {
		Self { table, bytes: bytes.into() }
	}

	/// The key of a numbered record: `prefix`, then the number in eight big-endian bytes, so that
	/// the order of keys is the order of numbers.
	pub fn numbered(table: Table, prefix: &[u8], number: u64) -> Self {
		let mut bytes = Vec::with_capacity(prefix.len() + 8);
		bytes.extend_from_slice(prefix);
		bytes.extend_from_slice(&number.to_be_bytes());
		Self { table, bytes }
	}

	/// The table.
	pub fn table(&self) -> Table {
		self.table
	}

	/// The bytes in the table.
	pub fn bytes(&self) -> &[u8] {
		&self.bytes
	}

	/// What follows `prefix`, read as the number that [`Key::numbered`] wrote; `None` if this key
	/// is not of that form.
	pub fn number(&self, prefix: &[u8]) -> Option<u64> {
		let rest = self.bytes.strip_prefix(prefix)?;
		Some(u64::from_be_bytes(rest.try_into().ok()?))
	}

	/// # Errors
	/// [`StoreError::Invalid`] if the key is empty, [`StoreError::TooLarge`] if it is too long.
	pub(crate) fn check(&self) -> Result<(), StoreError> {
		if self.bytes.is_empty() {
			return Err(StoreError::invalid(format!("empty key in table {}", self.table)));
		}
		StoreError::limit("key bytes", MAX_KEY_BYTES, self.bytes.len())
	}
}

impl fmt::Debug for Key {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{self}")
	}
}

impl fmt::Display for Key {
	/// `table/hex`, the way `leyden` and errors name a record.
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}/", self.table)?;
		self.bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
	}
}

/// Some keys of one table, in ascending order unless [`reversed`](KeyRange::reversed).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyRange {
	table: Table,
	start: Vec<u8>,
	/// Excluded; `None` is the end of the table.
	end: Option<Vec<u8>>,
	reversed: bool,
}

impl KeyRange {
	/// Every key of `table`.
	pub fn all(table: Table) -> Self {
		Self { table, start: Vec::new(), end: None, reversed: false }
	}

	/// Every key of `table` that starts with `prefix`.
	pub fn prefix(table: Table, prefix: &[u8]) -> Self {
		Self { table, start: prefix.to_vec(), end: after_prefix(prefix), reversed: false }
	}

	/// The numbered keys behind `prefix` from `first` on, `first` included.
	pub fn numbered_from(table: Table, prefix: &[u8], first: u64) -> Self {
		Self {
			table,
			start: Key::numbered(table, prefix, first).bytes,
			end: after_prefix(prefix),
			reversed: false,
		}
	}

	/// Without the keys below `start`.
	#[must_use]
	pub fn from(mut self, start: &[u8]) -> Self {
		if start > self.start.as_slice() {
			self.start = start.to_vec();
		}
		self
	}

	/// Without the keys at and above `end`.
	#[must_use]
	pub fn below(mut self, end: &[u8]) -> Self {
		if self.end.as_deref().is_none_or(|e| end < e) {
			self.end = Some(end.to_vec());
		}
		self
	}

	/// Highest key first.
	#[must_use]
	pub fn reversed(mut self) -> Self {
		self.reversed = true;
		self
	}

	/// The table.
	pub fn table(&self) -> Table {
		self.table
	}

	/// Returns `true` if a key of these bytes is in the range.
	pub fn contains(&self, bytes: &[u8]) -> bool {
		self.start.as_slice() <= bytes && self.end.as_deref().is_none_or(|end| bytes < end)
	}

	/// The lowest key that may be in it.
	pub fn start(&self) -> &[u8] {
		&self.start
	}

	/// The lowest key above it, or `None` for the end of the table.
	pub fn end(&self) -> Option<&[u8]> {
		self.end.as_deref()
	}

	/// Whether the highest key comes first.
	pub fn is_reversed(&self) -> bool {
		self.reversed
	}

	/// Whether no key can be in it.
	pub fn is_empty(&self) -> bool {
		self.end.as_deref().is_some_and(|end| end <= self.start.as_slice())
	}

	/// Returns the part of this range that is before `key`, in its direction.
	#[must_use]
	pub fn before(mut self, key: &[u8]) -> Self {
		if !self.reversed {
			return self.below(key);
		}
		// The smallest key above `key`.
		let start = [key, &[0]].concat();
		self.start = self.start.max(start);
		self
	}

	/// What is left of this range behind `last`, in its direction.
	#[must_use]
	pub fn after(mut self, last: &[u8]) -> Self {
		if self.reversed {
			self.end = Some(last.to_vec());
		} else {
			self.start = last.to_vec();
			// The smallest key above `last`.
			self.start.push(0);
		}
		self
	}
}

const fn is_name(name: &[u8], max: usize) -> bool {
	if name.is_empty() || name.len() > max {
		return false;
	}
	let mut rest = name;
	while let [c, tail @ ..] = rest {
		if !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'_') {
			return false;
		}
		rest = tail;
	}
	true
}

/// The smallest key above every key with this prefix; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
	let mut end = prefix.to_vec();
	while let Some(last) = end.pop() {
		if last < u8::MAX {
			end.push(last + 1);
			return Some(end);
		}
	}
	None
}

#[cfg(test)]
mod tests {
	use super::*;

	const T: Table = Table::new("t");

	#[test]
	fn a_prefix_ends_where_the_next_one_begins() {
		assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
		assert_eq!(after_prefix(&[1, 255]), Some(vec![2]));
		assert_eq!(after_prefix(&[255, 255]), None);
		assert_eq!(after_prefix(b""), None);
	}

	#[test]
	fn numbered_keys_sort_by_number_and_read_back() {
		let (a, b) = (Key::numbered(T, b"p", 255), Key::numbered(T, b"p", 256));
		assert!(a < b);
		assert_eq!(b.number(b"p"), Some(256));
		assert_eq!(b.number(b"q"), None);
		assert_eq!(Key::new(T, *b"p1234").number(b"p"), None);
	}

	#[test]
	fn namespaces_are_checked() {
		assert!(Namespace::new("node_7").is_ok());
		for bad in ["", "Node", "a/b", &"x".repeat(MAX_NAMESPACE_CHARS + 1)] {
			assert!(Namespace::new(bad).is_err(), "{bad:?}");
		}
	}

	#[test]
	fn a_range_goes_on_behind_its_last_key() {
		let up = KeyRange::prefix(T, b"k").after(b"k1");
		assert_eq!(up.start(), b"k1\0");
		let down = KeyRange::prefix(T, b"k").reversed().after(b"k1");
		assert_eq!((down.start(), down.end()), (&b"k"[..], Some(&b"k1"[..])));
		assert!(KeyRange::prefix(T, b"k").below(b"k").is_empty());
	}
}
