// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A channel's id.

use std::fmt;
use std::str::FromStr;

use bitcoin::hex::{DisplayHex, FromHex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event_id::{deserialize_bytes, serialize_bytes};
use crate::ParseError;

/// The id of a channel, as LDK's `ChannelId`; a type of its own, so that this crate and the log do
/// not depend on LDK's version.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChannelId(pub [u8; 32]);

impl fmt::Display for ChannelId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}", self.0.as_hex())
	}
}

impl fmt::Debug for ChannelId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "ChannelId({self})")
	}
}

impl FromStr for ChannelId {
	type Err = ParseError;

	fn from_str(text: &str) -> Result<Self, ParseError> {
		<[u8; 32]>::from_hex(text).map(Self).map_err(|_| ParseError::NotHex { digits: 64 })
	}
}

impl Serialize for ChannelId {
	fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
		serialize_bytes(&self.0, serializer)
	}
}

impl<'de> Deserialize<'de> for ChannelId {
	fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
		deserialize_bytes(deserializer).map(Self)
	}
}
