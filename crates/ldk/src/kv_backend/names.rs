// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! How Leyden's keys are named in an LDK store.
//!
//! LDK takes 120 characters of `A-Z a-z 0-9 _ -`. Some file systems do not tell upper case from
//! lower case, so a key is in base 32 if it fits, 75 bytes do; only longer ones are in base 64, in a
//! namespace of their own.

/// Longest key that fits in base 32.
const MAX_BASE32_BYTES: usize = 75;
/// What is behind a table's name in the namespace of its longer keys.
const LONG: &str = "-long";

/// Reads a key's name; `None` for what is none.
type ReadName = fn(&str) -> Option<Vec<u8>>;

const BASE32: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The secondary namespace and the key.
pub(super) fn name(table: &str, key: &[u8]) -> (String, String) {
	match is_long(key) {
		false => (table.to_owned(), encode(key, 5, BASE32)),
		true => (format!("{table}{LONG}"), encode(key, 6, BASE64)),
	}
}

fn is_long(key: &[u8]) -> bool {
	key.len() > MAX_BASE32_BYTES
}

/// The namespaces of a table, and how keys are written in each.
pub(super) fn namespaces(table: &str) -> [(String, ReadName); 2] {
	[
		(table.to_owned(), |name| decode(name, 5, BASE32).filter(|key| !is_long(key))),
		(format!("{table}{LONG}"), |name| decode(name, 6, BASE64).filter(|key| is_long(key))),
	]
}

fn encode(bytes: &[u8], width: u32, alphabet: &[u8]) -> String {
	let (mut buffer, mut bits) = (0_u32, 0);
	let mut out = String::with_capacity(bytes.len() * 8 / width as usize + 1);
	let mask = (1 << width) - 1;
	let mut push = |value: u32| {
		out.push(alphabet.get((value & mask) as usize).copied().map_or('?', char::from));
	};
	for byte in bytes {
		buffer = buffer << 8 | u32::from(*byte);
		bits += 8;
		while bits >= width {
			bits -= width;
			push(buffer >> bits);
		}
		buffer &= (1 << bits) - 1;
	}
	if bits > 0 {
		push(buffer << (width - bits));
	}
	out
}

/// `None` for what [`encode`] does not write.
fn decode(name: &str, width: u32, alphabet: &[u8]) -> Option<Vec<u8>> {
	let (mut buffer, mut bits) = (0_u32, 0);
	let mut out = Vec::with_capacity(name.len() * width as usize / 8);
	for character in name.bytes() {
		let value = alphabet.iter().position(|c| *c == character)?;
		buffer = buffer << width | u32::try_from(value).ok()?;
		bits += width;
		if bits >= 8 {
			bits -= 8;
			out.push((buffer >> bits) as u8);
			buffer &= (1 << bits) - 1;
		}
	}
	// What is left over is less than a character, and zero.
	(bits < width && buffer == 0 && !out.is_empty()).then_some(out)
}

/// A name that is read is the name of what is read, and of nothing else.
#[cfg(feature = "fuzz")]
pub(crate) fn kv_backend_name_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let mut pairs = Vec::new();
	if let Ok(text) = std::str::from_utf8(bytes) {
		for (namespace, read) in namespaces("t") {
			if let Some(key) = read(text) {
				let (of, again) = name("t", &key);
				pairs.push((format!("{namespace}/{text}").into(), format!("{of}/{again}").into()));
			}
		}
	}
	// And the other way round.
	let (namespace, text) = name("t", bytes);
	let read = namespaces("t").into_iter().find(|(of, _)| *of == namespace);
	if let Some((_, read)) = read.filter(|_| !bytes.is_empty()) {
		pairs.push((bytes.to_vec(), read(&text).unwrap_or_default()));
	}
	if let Some(format) = super::medium::format_of(bytes) {
		pairs.push((bytes.to_vec(), format!("leyden {format}").into()));
	}
	pairs
}

#[cfg(test)]
mod tests {
	use super::*;
	use leyden_store::key::{MAX_KEY_BYTES, MAX_TABLE_NAME_CHARS};
	use lightning::util::persist::{KVSTORE_NAMESPACE_KEY_ALPHABET, KVSTORE_NAMESPACE_KEY_MAX_LEN};

	#[test]
	fn every_key_has_a_name_that_ldk_takes_and_comes_back() {
		let table = "t".repeat(MAX_TABLE_NAME_CHARS);
		for length in 1..=MAX_KEY_BYTES {
			for byte in [0, 1, 0x5a, 0x80, 0xff] {
				let mut key = vec![byte; length];
				key[length / 2] ^= 0x33;
				let (namespace, name) = super::name(&table, &key);
				for part in [&namespace, &name] {
					assert!(part.len() <= KVSTORE_NAMESPACE_KEY_MAX_LEN, "{length}: {part}");
					assert!(part.chars().all(|c| KVSTORE_NAMESPACE_KEY_ALPHABET.contains(c)));
				}
				let read = namespaces(&table).into_iter().find(|(n, _)| *n == namespace).unwrap().1;
				assert_eq!(read(&name), Some(key));
			}
		}
	}

	/// Two names that are one file where case is not told.
	#[test]
	fn keys_of_ours_do_not_differ_by_case() {
		let (_, name) = super::name("log_entries", &[0xab; MAX_BASE32_BYTES]);
		assert_eq!(name, name.to_lowercase());
	}

	#[test]
	fn what_nobody_wrote_is_no_key() {
		let [(_, base32), (_, base64)] = namespaces("t");
		for bad in ["", "0", "z0", "00!", "01", "ZZ"] {
			assert_eq!(base32(bad), None, "{bad}");
		}
		for bad in ["", "A", "AB", "A!"] {
			assert_eq!(base64(bad), None, "{bad}");
		}
		// A key has one name: a short one is not in the namespace of long ones, and no long one here.
		assert_eq!(base64("AAAA"), None);
		assert_eq!(base32(&"0".repeat(128)), None);
		assert_eq!(base64(&"A".repeat(104)), Some(vec![0; 78]));
	}
}
