// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The only place that knows bincode: a frozen struct in, the body of a record out, and back.
//!
//! A body is one struct of one schema. To change a layout, freeze the old struct, add a new one
//! with the next schema number, and turn old into new in [`Stored::upcast`]. A body of a newer
//! schema is refused, never guessed at. Decoding has a size limit, since without one a damaged
//! length makes bincode reserve memory for it, and bytes behind the struct are refused.

use bincode::Options;
use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::error::StoreError;
use crate::frame::MAX_BODY_BYTES;
use crate::key::Key;
use crate::record::{Record, RecordType, Value};

/// A struct that is the body of a record.
pub trait Stored: Serialize + DeserializeOwned {
	/// Its kind.
	const TYPE: RecordType;
	/// Its layout; counted up whenever the struct changes.
	const SCHEMA: u16;

	/// Reads a body of an older schema. `None` if there never was one of that number.
	fn upcast(schema: u16, body: &[u8]) -> Option<Result<Self, String>> {
		let _ = (schema, body);
		None
	}
}

/// Something that must hold of any bytes: each pair of what it answers is equal. For fuzzers, and for
/// checks of the format.
pub type Law = fn(&[u8]) -> Vec<(Vec<u8>, Vec<u8>)>;

/// A kind of record, for tools that go over all of them.
#[derive(Clone, Copy, Debug)]
pub struct StoredKind {
	/// The number of the record type.
	pub record_type: RecordType,
	/// The name of its struct.
	pub name: &'static str,
	/// Reads a body as this record, in every layout that it had, and writes what was read. What is
	/// written of a body of the newest layout is that body.
	pub rewrite: Law,
}

impl StoredKind {
	/// Makes the description of a record.
	pub const fn of<T: Stored>(name: &'static str) -> Self {
		Self { record_type: T::TYPE, name, rewrite: rewrite::<T> }
	}
}

fn rewrite<T: Stored>(body: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	const NOT_WRITTEN: &[u8] = b"what was read cannot be written";
	const NOT_READ: &[u8] = b"what was written cannot be read";
	let key = Key::new(crate::key::Table::new("rewrite"), *b"key");
	let read = |schema, body: &[u8]| {
		let value = Value::new(T::TYPE, schema, body);
		decode::<T>(&key, &Record { version: crate::Version::new(1), value })
	};
	let written = |read: &T| encode(read).map_or_else(|_| NOT_WRITTEN.to_vec(), |value| value.body);
	let mut pairs = Vec::new();
	for schema in 0..=T::SCHEMA {
		let Ok(first) = read(schema, body) else { continue };
		let once = written(&first);
		let twice =
			read(T::SCHEMA, &once).map_or_else(|_| NOT_READ.to_vec(), |read| written(&read));
		if schema == T::SCHEMA {
			pairs.push((body.to_vec(), once.clone()));
		}
		pairs.push((once, twice));
	}
	pairs
}

/// Says which records these structs are the bodies of, in their first layout, and lists them in a
/// constant `STORED` of the module, which has one such list.
///
/// ```
/// #[derive(serde::Deserialize, serde::Serialize)]
/// struct OrderV1 {
///     sat: u64,
/// }
///
/// leyden_store::stored! {
///     OrderV1 = 0x8000,
/// }
/// ```
#[macro_export]
macro_rules! stored {
	($($record:ty = $number:literal),* $(,)?) => {
		$(
			impl $crate::codec::Stored for $record {
				const TYPE: $crate::RecordType = $crate::RecordType($number);
				const SCHEMA: u16 = 1;
			}
		)*

		/// Every record of this module.
		#[allow(dead_code)]
		pub(crate) const STORED: &[$crate::codec::StoredKind] =
			&[$($crate::codec::StoredKind::of::<$record>(stringify!($record))),*];
	};
}

/// The value that holds `stored`.
///
/// # Errors
/// [`StoreError::TooLarge`] if it does not fit into a record.
pub fn encode<T: Stored>(stored: &T) -> Result<Value, StoreError> {
	let body = options().serialize(stored).map_err(|e| match *e {
		bincode::ErrorKind::SizeLimit => {
			StoreError::TooLarge { what: "record bytes", limit: MAX_BODY_BYTES, found: usize::MAX }
		},
		other => StoreError::invalid(format!("record cannot be encoded: {other}")),
	})?;
	Ok(Value { record_type: T::TYPE, schema: T::SCHEMA, body })
}

/// The struct in the record at `key`.
///
/// # Errors
/// [`StoreError::Newer`] if a newer version wrote it, [`StoreError::Corrupt`] if it is of another
/// kind or its body is not what this schema says.
pub fn decode<T: Stored>(key: &Key, record: &Record) -> Result<T, StoreError> {
	let Value { record_type, schema, body } = &record.value;
	if *record_type != T::TYPE {
		let (found, wanted) = (record_type.0, T::TYPE.0);
		return Err(StoreError::corrupt(
			key,
			format!("type {found:#06x} instead of {wanted:#06x}"),
		));
	}
	if *schema > T::SCHEMA {
		let what = format!("record {key}");
		return Err(StoreError::Newer { what, found: (*schema).into(), known: T::SCHEMA.into() });
	}
	let decoded = if *schema == T::SCHEMA {
		from_body(body)
	} else {
		T::upcast(*schema, body).unwrap_or_else(|| Err(format!("no schema {schema} ever was")))
	};
	decoded.map_err(|reason| StoreError::corrupt(key, reason))
}

/// Reads a body as a frozen struct; what [`Stored::upcast`] reads old layouts with.
///
/// # Errors
/// What is wrong with the bytes.
pub fn from_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
	options().deserialize(body).map_err(|e| format!("its body does not decode: {e}"))
}

fn options() -> impl Options {
	bincode::DefaultOptions::new()
		.with_big_endian()
		.with_fixint_encoding()
		.reject_trailing_bytes()
		.with_limit(MAX_BODY_BYTES as u64)
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::key::Table;
	use crate::record::Version;
	use serde::Deserialize;

	#[derive(Debug, Deserialize, PartialEq, Serialize)]
	struct Two {
		name: String,
		count: u64,
	}

	impl Stored for Two {
		const TYPE: RecordType = RecordType(0x8001);
		const SCHEMA: u16 = 2;

		fn upcast(schema: u16, body: &[u8]) -> Option<Result<Self, String>> {
			(schema == 1).then(|| Ok(Two { name: from_body(body)?, count: 1 }))
		}
	}

	fn read(schema: u16, record_type: u16, body: &[u8]) -> Result<Two, StoreError> {
		let value = Value::new(RecordType(record_type), schema, body);
		decode(&Key::new(Table::new("t"), *b"k"), &Record { version: Version(1), value })
	}

	#[test]
	fn golden_bytes_and_back() {
		let two = Two { name: "ab".to_owned(), count: 258 };
		let value = encode(&two).unwrap();
		assert_eq!(value.body, [0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 1, 2]);
		assert_eq!(read(2, 0x8001, &value.body).unwrap(), two);
	}

	#[test]
	fn an_older_schema_is_lifted_and_a_newer_one_refused() {
		let one = [0, 0, 0, 0, 0, 0, 0, 1, b'x'];
		assert_eq!(read(1, 0x8001, &one).unwrap(), Two { name: "x".to_owned(), count: 1 });
		assert!(matches!(read(3, 0x8001, &one), Err(StoreError::Newer { found: 3, known: 2, .. })));
		assert!(matches!(read(0, 0x8001, &one), Err(StoreError::Corrupt { .. })));
	}

	#[test]
	fn trailing_bytes_wrong_types_and_wild_lengths_are_damage() {
		let mut body = encode(&Two { name: String::new(), count: 0 }).unwrap().body;
		assert!(read(2, 0x8002, &body).is_err());
		body.push(0);
		assert!(read(2, 0x8001, &body).is_err());
		// A length of 2^63 must be an error, not an attempt to reserve as much.
		assert!(read(2, 0x8001, &[0x80, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
	}
}
