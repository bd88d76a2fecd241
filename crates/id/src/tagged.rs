// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Hashes under a tag, the way ids are made.

use bitcoin::hashes::{sha256, Hash, HashEngine};

use crate::EventId;

/// What a hash is for, and in which version. Two domains never make the same id; a change of the
/// fields that go into an id is a new version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Domain {
	name: &'static str,
	version: u16,
}

impl Domain {
	/// The domain of this name and version.
	pub const fn new(name: &'static str, version: u16) -> Self {
		Self { name, version }
	}
}

/// Makes an [`EventId`] out of the fields that make an event that event.
///
/// The id is `SHA256(T || T || fields)` where `T` is the SHA-256 of domain, version and kind (the
/// tag scheme of BIP 340), and every field is preceded by its length, so that no two lists of
/// fields run together into the same bytes.
#[derive(Clone)]
#[must_use = "it is no id until it is finished"]
pub struct IdBuilder(sha256::HashEngine);

impl IdBuilder {
	/// Begins an id of a kind of event.
	pub fn new(domain: Domain, kind: &str) -> Self {
		let mut tag = sha256::Hash::engine();
		field(&mut tag, domain.name.as_bytes());
		tag.input(&domain.version.to_be_bytes());
		field(&mut tag, kind.as_bytes());
		let tag = sha256::Hash::from_engine(tag);
		let mut engine = sha256::Hash::engine();
		engine.input(tag.as_byte_array());
		engine.input(tag.as_byte_array());
		Self(engine)
	}

	/// Adds a field of bytes.
	pub fn bytes(mut self, bytes: &[u8]) -> Self {
		field(&mut self.0, bytes);
		self
	}

	/// Adds a number.
	pub fn number(self, number: u64) -> Self {
		self.bytes(&number.to_be_bytes())
	}

	/// Adds a field that may be missing. Missing is not the same as empty.
	pub fn optional(mut self, bytes: Option<&[u8]>) -> Self {
		self.0.input(&[u8::from(bytes.is_some())]);
		match bytes {
			Some(bytes) => self.bytes(bytes),
			None => self,
		}
	}

	/// Adds fields whose order means nothing: any order of the same fields makes the same id.
	pub fn unordered<B: AsRef<[u8]>>(mut self, fields: impl IntoIterator<Item = B>) -> Self {
		let mut fields: Vec<B> = fields.into_iter().collect();
		fields.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
		self.0.input(&(fields.len() as u64).to_be_bytes());
		fields.iter().fold(self, |builder, bytes| builder.bytes(bytes.as_ref()))
	}

	/// The id.
	pub fn finish(self) -> EventId {
		EventId::from_bytes(sha256::Hash::from_engine(self.0).to_byte_array())
	}
}

impl std::fmt::Debug for IdBuilder {
	fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
		f.write_str("IdBuilder")
	}
}

fn field(engine: &mut sha256::HashEngine, bytes: &[u8]) {
	engine.input(&(bytes.len() as u64).to_be_bytes());
	engine.input(bytes);
}

#[cfg(test)]
mod tests {
	use super::*;
	use proptest::prelude::*;

	const D: Domain = Domain::new("leyden/test", 1);

	/// Ids are on users' disks. If this fails, events that were acked come back under new ids: make
	/// a new version of the domain instead.
	#[test]
	fn golden_ids() {
		let ids = [
			IdBuilder::new(D, "A").finish(),
			IdBuilder::new(D, "A").bytes(b"x").number(1).optional(None).finish(),
			IdBuilder::new(D, "A").optional(Some(b"")).unordered(["b", "a"]).finish(),
		];
		assert_eq!(ids.map(|id| id.to_string()), GOLDEN);
	}

	/// Computed apart from this code, from the description of [`IdBuilder`].
	const GOLDEN: [&str; 3] = [
		"2817b9d10c835a9cce71fc9282ceee584b44323f97cd57225c8108422ebce1e3",
		"a4202aa4cf484781a520ed85c5d0fd76d9a99b3c02ea2867ce1487614b428682",
		"07dcde1b5370a8785ab1b2139d6f9e14dd0d8a4ebe2bded2e36a6ee6c1cf1a3c",
	];

	#[test]
	fn domain_version_kind_and_field_bounds_all_matter() {
		let id = |d: Domain, k: &str, f: &[&[u8]]| {
			f.iter().fold(IdBuilder::new(d, k), |b, f| b.bytes(f)).finish()
		};
		let all = [
			id(D, "A", &[b"xy", b"z"]),
			id(D, "A", &[b"x", b"yz"]),
			id(D, "A", &[b"xyz"]),
			id(D, "A", &[b"xy", b"z", b""]),
			id(D, "B", &[b"xy", b"z"]),
			id(Domain::new("leyden/test", 2), "A", &[b"xy", b"z"]),
			id(Domain::new("leyden/tesu", 1), "A", &[b"xy", b"z"]),
			IdBuilder::new(D, "A").optional(None).finish(),
			IdBuilder::new(D, "A").optional(Some(b"")).finish(),
		];
		for (i, a) in all.iter().enumerate() {
			assert!(all.iter().skip(i + 1).all(|b| a != b), "vector {i}");
		}
	}

	proptest! {
		#[test]
		fn the_order_of_unordered_fields_does_not_matter(
			mut fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..6),
		) {
			let id = IdBuilder::new(D, "A").unordered(&fields).finish();
			fields.reverse();
			prop_assert_eq!(id, IdBuilder::new(D, "A").unordered(&fields).finish());
		}
	}
}
