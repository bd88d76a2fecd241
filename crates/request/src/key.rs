// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which request it is.

use std::fmt;

use leyden_id::{Domain, IdBuilder};

use crate::error::RequestError;

/// Longest scope, in bytes.
pub const MAX_SCOPE_BYTES: usize = 255;
/// Longest name of an operation, in bytes.
pub const MAX_OPERATION_CHARS: usize = 64;
/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 255;

const SCOPE: Domain = Domain::new("leyden/request-scope", 1);
const REQUEST: Domain = Domain::new("leyden/request", 1);

/// Who asks (a peer's node id), for what (`async_order.request_invoice`), and which one (a payment
/// hash). The same key is the same request.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestKey {
	scope: Vec<u8>,
	operation: String,
	key: Vec<u8>,
}

impl RequestKey {
	/// # Errors
	/// [`RequestError::TooLong`] for a part that is too long, or an empty operation or key.
	pub fn new(
		scope: impl Into<Vec<u8>>, operation: impl Into<String>, key: impl Into<Vec<u8>>,
	) -> Result<Self, RequestError> {
		let (scope, operation, key) = (scope.into(), operation.into(), key.into());
		RequestError::length("scope", scope.len(), 0, MAX_SCOPE_BYTES)?;
		RequestError::length("operation", operation.len(), 1, MAX_OPERATION_CHARS)?;
		RequestError::length("key", key.len(), 1, MAX_KEY_BYTES)?;
		Ok(Self { scope, operation, key })
	}

	/// Who asks.
	pub fn scope(&self) -> &[u8] {
		&self.scope
	}

	/// For what.
	pub fn operation(&self) -> &str {
		&self.operation
	}

	/// Which one.
	pub fn key(&self) -> &[u8] {
		&self.key
	}

	/// The name of the scope on disk.
	pub(crate) fn scope_hash(&self) -> [u8; 32] {
		*IdBuilder::new(SCOPE, "scope").bytes(&self.scope).finish().as_bytes()
	}

	/// The name of the request on disk: its scope's and its own.
	pub(crate) fn hash(&self) -> [u8; 64] {
		let own = IdBuilder::new(REQUEST, &self.operation).bytes(&self.scope).bytes(&self.key);
		let mut hash = [0; 64];
		let (scope, request) = hash.split_at_mut(32);
		scope.copy_from_slice(&self.scope_hash());
		request.copy_from_slice(own.finish().as_bytes());
		hash
	}
}

/// With keys in hex: they are hashes and node ids.
impl fmt::Debug for RequestKey {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
		write!(f, "{} {} of {}", self.operation, hex(&self.key), hex(&self.scope))
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	fn key(scope: &[u8], operation: &str, key: &[u8]) -> RequestKey {
		RequestKey::new(scope, operation, key).unwrap()
	}

	#[test]
	fn every_part_counts_and_none_runs_into_another() {
		let one = key(b"peer", "op", b"key");
		for other in [
			key(b"peeR", "op", b"key"),
			key(b"peer", "oq", b"key"),
			key(b"peer", "op", b"kez"),
			key(b"peerk", "op", b"ey"),
			key(b"", "op", b"peerkey"),
		] {
			assert_ne!(one.hash(), other.hash(), "{other:?}");
		}
		assert_eq!(one.hash()[..32], key(b"peer", "x", b"y").hash()[..32]);
	}

	#[test]
	fn parts_have_limits() {
		for (scope, operation, bytes) in [
			(256, "op", 1),
			(1, "", 1),
			(1, "op", 0),
			(1, "op", 256),
			(1, "o".repeat(65).as_str(), 1),
		] {
			let made = RequestKey::new(vec![1; scope], operation, vec![1; bytes]);
			assert!(matches!(made, Err(RequestError::TooLong { .. })), "{made:?}");
		}
		assert!(RequestKey::new(vec![1; 255], "o".repeat(64), vec![1; 255]).is_ok());
	}
}
