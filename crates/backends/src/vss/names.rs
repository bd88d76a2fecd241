// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! How records are named and hidden.
//!
//! ```text
//! a record   E(table) "#" E(key in hex)
//! the head   E("leyden head")
//! ```
//! `E` is the deterministic encryption of `vss-client-ng`'s `KeyObfuscator`. A value is a
//! `Storable`: the frame under ChaCha20-Poly1305, with the name of the store and the name as
//! associated data.

use bitcoin_hashes::{sha256, Hash, HashEngine, Hmac, HmacEngine};
use leyden_store::{Key, StoreError, Table};
use prost::Message;
use vss_client_ng::types::Storable;
use vss_client_ng::util::key_obfuscator::KeyObfuscator;
use vss_client_ng::util::storable_builder::{EntropySource, StorableBuilder};

const HEAD: &str = "leyden head";

/// The secrets of a store, and what is done with them.
pub(super) struct Names {
	store_id: String,
	obfuscator: KeyObfuscator,
	data_key: [u8; 32],
}

impl Names {
	pub(super) fn new(store_id: &str, secret: &[u8; 32]) -> Self {
		let obfuscator = KeyObfuscator::new(derive(secret, b"leyden vss keys"));
		Self {
			store_id: store_id.to_owned(),
			obfuscator,
			data_key: derive(secret, b"leyden vss values"),
		}
	}

	pub(super) fn head(&self) -> String {
		self.obfuscator.obfuscate(HEAD)
	}

	/// What the names of a table's records begin with.
	pub(super) fn prefix(&self, table: &str) -> String {
		format!("{}#", self.obfuscator.obfuscate(table))
	}

	pub(super) fn name(&self, table: &str, key: &[u8]) -> String {
		format!("{}{}", self.prefix(table), self.obfuscator.obfuscate(&to_hex(key)))
	}

	/// The table that a name belongs to; `None` for the head, and for what is not ours.
	pub(super) fn table(&self, name: &str) -> Option<String> {
		let (table, _) = name.split_once('#')?;
		self.obfuscator.deobfuscate(table).ok()
	}

	/// The key in a name; `None` for what is not ours.
	pub(super) fn key(&self, name: &str) -> Option<Vec<u8>> {
		let (_, key) = name.split_once('#')?;
		from_hex(&self.obfuscator.deobfuscate(key).ok()?)
	}

	pub(super) fn hide(&self, name: &str, frame: Vec<u8>) -> Result<Vec<u8>, StoreError> {
		// The builder's source of randomness cannot fail; ours is asked before.
		let mut nonce = [0; 12];
		getrandom::getrandom(&mut nonce)
			.map_err(|error| StoreError::invalid(format!("no randomness: {error}")))?;
		let builder = StorableBuilder::new(Once(nonce));
		Ok(builder.build(frame, 0, &self.data_key, &self.bound_to(name)).encode_to_vec())
	}

	/// # Errors
	/// [`StoreError::Corrupt`] for what was not hidden under this name.
	pub(super) fn show(&self, name: &str, key: &Key, value: &[u8]) -> Result<Vec<u8>, StoreError> {
		let corrupt = |error: &dyn std::fmt::Display| {
			StoreError::corrupt(key, format!("the server's value is not what was written: {error}"))
		};
		let storable = Storable::decode(value).map_err(|error| corrupt(&error))?;
		let builder = StorableBuilder::new(Once([0; 12]));
		let shown = builder.deconstruct(storable, &self.data_key, &self.bound_to(name));
		shown.map(|(frame, _)| frame).map_err(|error| corrupt(&error))
	}

	fn bound_to(&self, name: &str) -> Vec<u8> {
		[self.store_id.as_bytes(), &[0], name.as_bytes()].concat()
	}
}

/// The table that errors name a head by.
pub(super) fn head_key() -> Key {
	Key::new(Table::new("_head"), *b"head")
}

/// A nonce, used once.
struct Once([u8; 12]);

impl EntropySource for Once {
	fn fill_bytes(&self, buffer: &mut [u8]) {
		for (to, from) in buffer.iter_mut().zip(self.0) {
			*to = from;
		}
	}
}

fn derive(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
	let mut engine = HmacEngine::<sha256::Hash>::new(secret);
	engine.input(purpose);
	Hmac::from_engine(engine).to_byte_array()
}

fn to_hex(bytes: &[u8]) -> String {
	bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
	let digits: Option<Vec<u8>> =
		hex.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
	let pairs = digits.filter(|digits| digits.len() % 2 == 0)?;
	Some(pairs.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | d)).collect())
}

/// Checks that a hidden record is found again, and that a server can make up none.
#[cfg(feature = "fuzz")]
pub(crate) fn vss_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let names = Names::new("store", &[7; 32]);
	let name = names.name("t", bytes);
	let mut pairs = vec![
		(bytes.to_vec(), names.key(&name).unwrap_or_default()),
		(b"t".to_vec(), names.table(&name).unwrap_or_default().into()),
	];
	let key = Key::new(Table::new("t"), *b"k");
	if let Ok(hidden) = names.hide(&name, bytes.to_vec()) {
		pairs.push((bytes.to_vec(), names.show(&name, &key, &hidden).unwrap_or_default()));
		pairs.push((vec![1], vec![u8::from(names.show("other", &key, &hidden).is_err())]));
	}
	pairs.push((vec![1], vec![u8::from(names.show(&name, &key, bytes).is_err())]));
	if let Ok(text) = std::str::from_utf8(bytes) {
		let _ = (names.table(text), names.key(text));
		if let Some(read) = from_hex(text) {
			pairs.push((text.to_ascii_lowercase().into(), to_hex(&read).into()));
		}
	}
	pairs
}

#[cfg(test)]
mod tests {
	use super::*;
	use leyden_store::key::{MAX_KEY_BYTES, MAX_TABLE_NAME_CHARS};

	/// What the reference server's database takes.
	const MAX_NAME_CHARS: usize = 600;

	#[test]
	fn names_fit_and_come_back() {
		let names = Names::new("store/default", &[7; 32]);
		let table = "t".repeat(MAX_TABLE_NAME_CHARS);
		for length in 0..=MAX_KEY_BYTES {
			let key = vec![0xf1; length];
			let name = names.name(&table, &key);
			assert!(name.len() <= MAX_NAME_CHARS, "{}", name.len());
			assert!(name.starts_with(&names.prefix(&table)));
			assert_eq!(names.table(&name), Some(table.clone()));
			assert_eq!(names.key(&name), Some(key));
		}
		for not_ours in ["", "#", "a#b", &names.head(), "manager"] {
			assert_eq!((names.table(not_ours), names.key(not_ours)), (None, None));
		}
	}

	#[test]
	fn values_are_bound_to_their_name_store_and_secret() {
		let names = Names::new("store/default", &[7; 32]);
		let key = head_key();
		let value = names.hide("a", b"frame".to_vec()).unwrap();
		assert!(!value.windows(5).any(|bytes| bytes == b"frame"));
		assert_eq!(names.show("a", &key, &value).unwrap(), b"frame");
		for (other, name) in [
			(Names::new("store/default", &[7; 32]), "b"),
			(Names::new("store/other", &[7; 32]), "a"),
			(Names::new("store/default", &[8; 32]), "a"),
		] {
			let error = other.show(name, &key, &value).unwrap_err();
			assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
		}
		let mut damaged = value;
		damaged[10] ^= 1;
		assert!(names.show("a", &key, &damaged).is_err());
		assert!(names.show("a", &key, b"").is_err());
	}

	#[test]
	fn a_value_is_never_hidden_twice_in_the_same_way() {
		let names = Names::new("s/d", &[7; 32]);
		assert_ne!(names.hide("a", vec![1]).unwrap(), names.hide("a", vec![1]).unwrap());
	}
}
