// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Proof of payments that this node has not made.

use std::fmt;

/// Longest text of a proof, in characters.
pub const MAX_PROOF_CHARS: usize = 300;

/// Proof that a debt was paid by other means.
#[derive(Clone, Eq, PartialEq)]
pub enum OutsideProof {
	/// The preimage of an invoice that was given for the debt.
	Preimage([u8; 32]),
	/// A reference in words: a transaction, a receipt. Up to [`MAX_PROOF_CHARS`].
	Reference(String),
}

/// Shows no preimage.
impl fmt::Debug for OutsideProof {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Preimage(_) => f.write_str("Preimage"),
			Self::Reference(text) => write!(f, "Reference({text})"),
		}
	}
}
