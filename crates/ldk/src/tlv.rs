// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Reads LDK's length-prefixed TLV streams, for the few types whose fields LDK keeps to itself.
//!
//! Nothing here trusts the bytes: they come from LDK's encoder today, and from a disk or a newer
//! LDK tomorrow.

use lightning::util::ser::{BigSize, Readable};

/// Type and value.
pub(crate) type TlvRecord<'a> = (u64, &'a [u8]);

/// The records of a TLV stream that begins with its length, and what follows the stream. `None` if
/// the bytes are not that.
pub(crate) fn length_prefixed(bytes: &[u8]) -> Option<(Vec<TlvRecord<'_>>, &[u8])> {
	let mut rest = bytes;
	let length = big_size(&mut rest)?;
	let (mut stream, after) = split(rest, length)?;
	let mut records = Vec::new();
	while !stream.is_empty() {
		let record_type = big_size(&mut stream)?;
		let length = big_size(&mut stream)?;
		let (value, after) = split(stream, length)?;
		records.push((record_type, value));
		stream = after;
	}
	Some((records, after))
}

/// The value of the record of this type.
pub(crate) fn field<'a>(records: &[TlvRecord<'a>], record_type: u64) -> Option<&'a [u8]> {
	records.iter().find(|(t, _)| *t == record_type).map(|(_, value)| *value)
}

fn big_size(rest: &mut &[u8]) -> Option<u64> {
	BigSize::read(rest).ok().map(|size| size.0)
}

fn split(bytes: &[u8], length: u64) -> Option<(&[u8], &[u8])> {
	bytes.split_at_checked(usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn a_stream_reads_and_what_follows_is_left() {
		let bytes = [5, 0, 1, 7, 2, 0, 9];
		let (records, after) = length_prefixed(&bytes).unwrap();
		assert_eq!(records, [(0, &[7][..]), (2, &[][..])]);
		assert_eq!(after, [9]);
		assert_eq!(field(&records, 0), Some(&[7][..]));
		assert_eq!(field(&records, 4), None);
	}

	#[test]
	fn lengths_that_lie_are_refused() {
		for bytes in [&[][..], &[3, 0, 1], &[2, 0, 9], &[255; 9], &[1, 255]] {
			assert!(length_prefixed(bytes).is_none(), "{bytes:?}");
		}
	}
}
