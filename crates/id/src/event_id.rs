// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The id of a logical event.

use std::fmt;
use std::str::FromStr;

use bitcoin::hex::{DisplayHex, FromHex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ParseError;

/// The name of a logical event: the same event has the same id, whenever and however it is seen.
///
/// Made with an [`IdBuilder`](crate::IdBuilder). Shown and read as 64 hex digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId([u8; 32]);

/// How much an [`EventId`] is worth.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum IdStrength {
	/// Two different events may get this id, since LDK did not tell what sets them apart (an HTLC
	/// id that older versions did not record). Don't deduplicate money by it.
	Weak,
	/// The same event gets this id, and no other does.
	Strong,
}

impl EventId {
	/// The id of these bytes.
	pub const fn from_bytes(bytes: [u8; 32]) -> Self {
		Self(bytes)
	}

	/// Its bytes.
	pub const fn as_bytes(&self) -> &[u8; 32] {
		&self.0
	}
}

impl fmt::Display for EventId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}", self.0.as_hex())
	}
}

impl fmt::Debug for EventId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "EventId({self})")
	}
}

impl FromStr for EventId {
	type Err = ParseError;

	fn from_str(text: &str) -> Result<Self, ParseError> {
		<[u8; 32]>::from_hex(text).map(Self).map_err(|_| ParseError::NotHex { digits: 64 })
	}
}

impl Serialize for EventId {
	/// Hex for people, bytes for codecs.
	fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
		serialize_bytes(&self.0, serializer)
	}
}

impl<'de> Deserialize<'de> for EventId {
	fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
		deserialize_bytes(deserializer).map(Self)
	}
}

/// As hex where the format is for people, as 32 bytes where it is not.
pub(crate) fn serialize_bytes<S: Serializer>(
	bytes: &[u8; 32], serializer: S,
) -> Result<S::Ok, S::Error> {
	if serializer.is_human_readable() {
		serializer.collect_str(&bytes.as_hex())
	} else {
		bytes.serialize(serializer)
	}
}

/// What [`serialize_bytes`] wrote.
pub(crate) fn deserialize_bytes<'de, D: Deserializer<'de>>(
	deserializer: D,
) -> Result<[u8; 32], D::Error> {
	if deserializer.is_human_readable() {
		let text = String::deserialize(deserializer)?;
		<[u8; 32]>::from_hex(&text)
			.map_err(|_| serde::de::Error::custom(ParseError::NotHex { digits: 64 }))
	} else {
		<[u8; 32]>::deserialize(deserializer)
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn hex_and_serde_read_back() {
		let id = EventId::from_bytes([0xab; 32]);
		assert_eq!(id.to_string(), "ab".repeat(32));
		assert_eq!(id.to_string().parse(), Ok(id));
		let json = serde_json::to_string(&id).unwrap();
		assert_eq!(json, format!("\"{}\"", "ab".repeat(32)));
		assert_eq!(serde_json::from_str::<EventId>(&json).unwrap(), id);
	}

	#[test]
	fn what_is_no_id_is_refused() {
		for bad in ["", "ab", &"ab".repeat(33), &"xy".repeat(32)] {
			assert_eq!(bad.parse::<EventId>(), Err(ParseError::NotHex { digits: 64 }), "{bad}");
		}
	}
}
