// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The bytes around every value, made by no codec: they say whose record this is, of which kind and
//! layout, and whether it is whole.
//!
//! ```text
//! offset  size  what
//!      0     2  magic "LY"
//!      2     1  format of the frame, 1
//!      3     1  zero
//!      4     2  record type           big-endian, like all numbers here
//!      6     2  schema of the body
//!      8     8  version (the commit that wrote it)
//!     16     4  length of the body
//!     20     4  CRC-32C over bytes 0..20, the table's name, a zero byte, the key, the body
//!     24        body
//! ```
//!
//! The checksum covers the key, so that a value that ended up under another key is found out.

use crate::error::StoreError;
use crate::key::Key;
use crate::record::{Record, RecordType, Value, Version};

/// Bytes before the body.
pub const HEADER_BYTES: usize = 24;
/// The frame format that this version writes, and the newest that it reads.
pub const FORMAT: u8 = 1;
/// Longest body, in bytes (64 MiB): a large `ChannelManager` fits, a length out of noise does not.
pub const MAX_BODY_BYTES: usize = 64 << 20;

const MAGIC: [u8; 2] = *b"LY";

/// Puts `value` into a frame for `key`.
pub fn encode(key: &Key, version: Version, value: &Value) -> Vec<u8> {
	let mut out = Vec::with_capacity(HEADER_BYTES + value.body.len());
	out.extend_from_slice(&MAGIC);
	out.extend_from_slice(&[FORMAT, 0]);
	out.extend_from_slice(&value.record_type.0.to_be_bytes());
	out.extend_from_slice(&value.schema.to_be_bytes());
	out.extend_from_slice(&version.0.to_be_bytes());
	// `Batch` refuses longer bodies, so the length always fits.
	out.extend_from_slice(&(value.body.len() as u32).to_be_bytes());
	let crc = checksum(&out, key, &value.body);
	out.extend_from_slice(&crc.to_be_bytes());
	out.extend_from_slice(&value.body);
	out
}

/// Takes the record at `key` out of its frame.
///
/// # Errors
/// [`StoreError::Newer`] for a frame format of the future, [`StoreError::Corrupt`] for everything
/// else that [`encode`] would not have written for this key.
pub fn decode(key: &Key, frame: &[u8]) -> Result<Record, StoreError> {
	let (header, body) = split(key, frame)?;
	Ok(Record {
		version: header.version,
		value: Value {
			record_type: header.record_type,
			schema: header.schema,
			body: body.to_vec(),
		},
	})
}

/// The version of the record at `key`, with the same checks as [`decode`] and no copy of the body.
///
/// # Errors
/// As [`decode`].
pub fn version(key: &Key, frame: &[u8]) -> Result<Version, StoreError> {
	split(key, frame).map(|(header, _)| header.version)
}

/// The version that a frame's header names, without a look at anything else. For backends that put
/// half-finished writes in order; `None` if there is no whole header.
pub fn peek_version(frame: &[u8]) -> Option<Version> {
	let bytes = frame.get(..HEADER_BYTES)?.get(8..16)?;
	Some(Version(u64::from_be_bytes(bytes.try_into().ok()?)))
}

struct Header {
	record_type: RecordType,
	schema: u16,
	version: Version,
}

fn split<'a>(key: &Key, frame: &'a [u8]) -> Result<(Header, &'a [u8]), StoreError> {
	let corrupt = |reason: String| Err(StoreError::corrupt(key, reason));
	let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else {
		return corrupt(format!("{} bytes are too few for a frame", frame.len()));
	};
	let [m0, m1, format, zero, t0, t1, s0, s1, rest @ ..] = header;
	let [v0, v1, v2, v3, v4, v5, v6, v7, l0, l1, l2, l3, c0, c1, c2, c3] = rest;
	if [*m0, *m1] != MAGIC {
		return corrupt("it does not begin with the frame magic".to_owned());
	}
	if *format > FORMAT {
		let mut known = frame.to_vec();
		if let Some(format) = known.get_mut(2) {
			*format = FORMAT;
		}
		if split(key, &known).is_ok() {
			return corrupt(format!(
				"its format {format} is damaged: all else is of format {FORMAT}"
			));
		}
		let what = format!("the frame of {key}");
		return Err(StoreError::Newer { what, found: (*format).into(), known: FORMAT.into() });
	}
	if *format != FORMAT || *zero != 0 {
		return corrupt(format!("no frame format {format}.{zero}"));
	}
	let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
	if length != body.len() {
		return corrupt(format!("its header says {length} bytes, there are {}", body.len()));
	}
	let (head, _) = header.split_at(HEADER_BYTES - 4);
	if checksum(head, key, body) != u32::from_be_bytes([*c0, *c1, *c2, *c3]) {
		return corrupt("its checksum does not match".to_owned());
	}
	let version = Version(u64::from_be_bytes([*v0, *v1, *v2, *v3, *v4, *v5, *v6, *v7]));
	let record_type = RecordType(u16::from_be_bytes([*t0, *t1]));
	Ok((Header { record_type, schema: u16::from_be_bytes([*s0, *s1]), version }, body))
}

fn checksum(header: &[u8], key: &Key, body: &[u8]) -> u32 {
	let crc = crc32c::crc32c(header);
	let crc = crc32c::crc32c_append(crc, key.table().name().as_bytes());
	let crc = crc32c::crc32c_append(crc, &[0]);
	let crc = crc32c::crc32c_append(crc, key.bytes());
	crc32c::crc32c_append(crc, body)
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::key::Table;

	const T: Table = Table::new("t");

	fn sample() -> (Key, Vec<u8>) {
		let key = Key::new(T, *b"key");
		let frame = encode(&key, Version(7), &Value::new(RecordType(0x8001), 3, *b"body"));
		(key, frame)
	}

	/// The bytes on disk. If this fails, the format changed, and stores of users no longer open.
	#[test]
	fn golden_bytes() {
		let (_, frame) = sample();
		let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
		assert_eq!(hex, "4c59010080010003000000000000000700000004b71b0d24626f6479");
	}

	#[test]
	fn a_frame_reads_back() {
		let (key, frame) = sample();
		let record = decode(&key, &frame).unwrap();
		assert_eq!(record.version, Version(7));
		assert_eq!(record.value, Value::new(RecordType(0x8001), 3, *b"body"));
		assert_eq!(version(&key, &frame).unwrap(), Version(7));
	}

	#[test]
	fn every_flipped_bit_and_every_truncation_is_found() {
		let (key, frame) = sample();
		for bit in 0..frame.len() * 8 {
			let mut bad = frame.clone();
			bad[bit / 8] ^= 1 << (bit % 8);
			assert!(decode(&key, &bad).is_err(), "bit {bit}");
		}
		for length in 0..frame.len() {
			assert!(decode(&key, &frame[..length]).is_err(), "{length} bytes");
		}
		let longer = [frame.as_slice(), &[0]].concat();
		assert!(decode(&key, &longer).is_err());
	}

	#[test]
	fn a_frame_under_another_key_is_found_out() {
		let (_, frame) = sample();
		for other in [Key::new(T, *b"kez"), Key::new(Table::new("u"), *b"key")] {
			assert!(matches!(decode(&other, &frame), Err(StoreError::Corrupt { .. })));
		}
	}

	#[test]
	fn a_newer_frame_format_is_refused_as_newer() {
		let (key, mut frame) = sample();
		frame[2] = FORMAT + 1;
		let crc = checksum(&frame[..20], &key, &frame[24..]).to_be_bytes();
		frame[20..24].copy_from_slice(&crc);
		assert!(matches!(decode(&key, &frame), Err(StoreError::Newer { .. })));
	}

	/// A node that is told of a newer version would wait for one.
	#[test]
	fn a_damaged_format_is_not_taken_for_a_newer_one() {
		let (key, mut frame) = sample();
		for format in (0..=u8::MAX).filter(|format| *format != FORMAT) {
			frame[2] = format;
			assert!(matches!(decode(&key, &frame), Err(StoreError::Corrupt { .. })), "{format}");
		}
	}
}
