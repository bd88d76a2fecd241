// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Bearer tokens.

use std::fmt;

use subtle::ConstantTimeEq;

/// A token that a client must have. It is not shown.
#[derive(Clone)]
pub struct Token(String);

impl Token {
	/// Returns a token; `None` for an empty one, which every client has, and for one that is not visible
	/// ASCII.
	pub fn new(token: impl Into<String>) -> Option<Self> {
		let token = token.into();
		let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
		is_token.then_some(Self(token))
	}

	/// Returns whether a header `authorization` has this token, in constant time.
	pub fn is_in(&self, authorization: Option<&str>) -> bool {
		let given = authorization.and_then(|header| header.strip_prefix("Bearer "));
		given.is_some_and(|given| given.as_bytes().ct_eq(self.0.as_bytes()).into())
	}

	#[cfg(feature = "client")]
	pub(crate) fn text(&self) -> &str {
		&self.0
	}
}

impl fmt::Debug for Token {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Token")
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn only_the_token_opens() {
		let token = Token::new("right").unwrap();
		assert!(token.is_in(Some("Bearer right")));
		for bad in [None, Some(""), Some("right"), Some("bearer right"), Some("Bearer wrong")] {
			assert!(!token.is_in(bad), "{bad:?}");
		}
		// Neither a beginning of the token nor more than it, in any way of writing.
		for bad in ["", "r", "righ", "ight", "rightright", "right ", " right", "RIGHT"] {
			assert!(!token.is_in(Some(&format!("Bearer {bad}"))), "{bad:?}");
		}
		for bad in ["", "with space", "new\nline"] {
			assert!(Token::new(bad).is_none());
		}
		assert!(!format!("{token:?}").contains("right"));
	}
}
