// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The record that remembers which number an append was given.

use std::num::NonZeroU64;

use crate::error::StoreError;
use crate::key::Key;
use crate::record::{Record, RecordType, Value};

/// What stands at the `once` key of [`Batch::append_once`](crate::Batch::append_once): the number
/// that the append was given, in eight big-endian bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NumberRecord(pub NonZeroU64);

impl NumberRecord {
	/// Its record type.
	pub const TYPE: RecordType = RecordType(0x0001);
	/// Its schema.
	pub const SCHEMA: u16 = 1;

	/// The value that holds it.
	pub fn value(self) -> Value {
		Value::new(Self::TYPE, Self::SCHEMA, self.0.get().to_be_bytes())
	}

	/// Reads it from the record at `key`.
	///
	/// # Errors
	/// [`StoreError::Newer`] or [`StoreError::Corrupt`].
	pub fn read(key: &Key, record: &Record) -> Result<Self, StoreError> {
		let value = &record.value;
		if value.record_type == Self::TYPE && value.schema > Self::SCHEMA {
			let what = format!("record {key}");
			let (found, known) = (value.schema.into(), Self::SCHEMA.into());
			return Err(StoreError::Newer { what, found, known });
		}
		if value.record_type != Self::TYPE || value.schema != Self::SCHEMA {
			let t = value.record_type.0;
			return Err(StoreError::corrupt(key, format!("type {t:#06x} where a number belongs")));
		}
		let bytes = <[u8; 8]>::try_from(value.body.as_slice()).ok();
		match bytes.map(u64::from_be_bytes).and_then(NonZeroU64::new) {
			Some(number) => Ok(Self(number)),
			None => Err(StoreError::corrupt(key, "it does not hold a number")),
		}
	}
}
