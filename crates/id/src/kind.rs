// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What sort of event it is, by name.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ParseError;

/// Longest name of a kind, in characters.
pub const MAX_KIND_CHARS: usize = 64;

/// The name of a sort of event, such as `PaymentSent`: LDK's name where it is LDK's event.
///
/// 1 to [`MAX_KIND_CHARS`] ASCII letters, digits and `_`, so that it can be shown to anyone as it
/// is.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventKind(Cow<'static, str>);

impl EventKind {
	/// The kind of this name.
	///
	/// # Errors
	/// [`ParseError::Form`] if it is not a name.
	pub fn new(name: &str) -> Result<Self, ParseError> {
		if is_kind(name) {
			Ok(Self(Cow::Owned(name.to_owned())))
		} else {
			Err(ParseError::Form("1 to 64 letters, digits or underscores"))
		}
	}

	/// The kind of a name in code.
	///
	/// # Panics
	/// If it is not a name; in a `const` that is a compile error.
	pub const fn from_static(name: &'static str) -> Self {
		assert!(is_kind(name), "not a kind's name");
		Self(Cow::Borrowed(name))
	}

	/// The name.
	pub fn name(&self) -> &str {
		&self.0
	}
}

impl fmt::Display for EventKind {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.pad(&self.0)
	}
}

impl fmt::Debug for EventKind {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(&self.0)
	}
}

impl FromStr for EventKind {
	type Err = ParseError;

	fn from_str(text: &str) -> Result<Self, ParseError> {
		Self::new(text)
	}
}

impl Serialize for EventKind {
	fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
		serializer.serialize_str(&self.0)
	}
}

impl<'de> Deserialize<'de> for EventKind {
	fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
		Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
	}
}

const fn is_kind(name: &str) -> bool {
	let mut rest = name.as_bytes();
	if rest.is_empty() || rest.len() > MAX_KIND_CHARS {
		return false;
	}
	while let [c, tail @ ..] = rest {
		if !(c.is_ascii_alphanumeric() || *c == b'_') {
			return false;
		}
		rest = tail;
	}
	true
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn names_are_checked() {
		assert_eq!(EventKind::new("PaymentSent"), Ok(EventKind::from_static("PaymentSent")));
		for bad in ["", "a b", "ä", "\u{1b}[31m", &"x".repeat(MAX_KIND_CHARS + 1)] {
			assert!(EventKind::new(bad).is_err(), "{bad:?}");
		}
		assert!(serde_json::from_str::<EventKind>("\"a b\"").is_err());
	}
}
