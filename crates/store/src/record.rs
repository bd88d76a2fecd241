// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a record is: a type, a schema and a body, and the version of its last write.

use std::fmt;

/// Which kind of record a body is. Never reused for another kind.
///
/// `0x00__` is this crate's own, `0x01__` the log's, `0x02__` LDK's, `0x03__` splices', `0x04__`
/// the outbox's, `0x05__` requests', `0x06__` payouts', and `0x8000` and above are free for users.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordType(pub u16);

/// The commit that wrote a record last.
///
/// Counted over the whole namespace and never reused, not even after a delete: a record that was
/// deleted and written again has another version than before, so an expectation cannot be fooled by
/// it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version(pub(crate) u64);

impl Version {
	/// For backends that must compare what they have stored.
	pub fn new(number: u64) -> Self {
		Self(number)
	}

	/// The number.
	pub fn get(self) -> u64 {
		self.0
	}
}

impl fmt::Display for Version {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		self.0.fmt(f)
	}
}

/// Which opening of a namespace a writer belongs to. Every opening raises it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Epoch(pub(crate) u64);

impl Epoch {
	/// For backends whose engine knows the epoch of another writer.
	pub fn new(number: u64) -> Self {
		Self(number)
	}

	/// The number.
	pub fn get(self) -> u64 {
		self.0
	}
}

impl fmt::Display for Epoch {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		self.0.fmt(f)
	}
}

/// What a batch writes at a key. The store puts it into a [frame](crate::frame).
#[derive(Clone, Eq, PartialEq)]
pub struct Value {
	/// The kind of record.
	pub record_type: RecordType,
	/// Which layout of that kind.
	pub schema: u16,
	/// The bytes.
	pub body: Vec<u8>,
}

impl Value {
	/// A value of these parts.
	pub fn new(record_type: RecordType, schema: u16, body: impl Into<Vec<u8>>) -> Self {
		Self { record_type, schema, body: body.into() }
	}
}

impl fmt::Debug for Value {
	/// The body may hold a secret (a preimage in an event), so only its length is shown.
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let (t, s, n) = (self.record_type.0, self.schema, self.body.len());
		write!(f, "Value {{ type: {t:#06x}, schema: {s}, {n} bytes }}")
	}
}

/// What a store holds at a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
	/// The commit that wrote it.
	pub version: Version,
	/// What was written.
	pub value: Value,
}
