// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Secrets and keys of callbacks, as Standard Webhooks writes them.

use std::fmt;

use base64::prelude::BASE64_STANDARD;
use base64::Engine;
use bitcoin_hashes::{sha256, Hash, HashEngine, Hmac, HmacEngine};
use ed25519_dalek::{Signer, Verifier};
use subtle::ConstantTimeEq;

/// Shortest symmetric secret, in bytes.
const MIN_SECRET_BYTES: usize = 24;
/// Longest symmetric secret, in bytes.
const MAX_SECRET_BYTES: usize = 64;

/// Secret that callbacks are signed with.
#[derive(Clone)]
pub enum SigningSecret {
	/// A secret that both sides have (`whsec_…`); signatures `v1`.
	Hmac(HmacSecret),
	/// A private key (`whsk_…`); signatures `v1a`.
	Ed25519(Box<ed25519_dalek::SigningKey>),
}

/// Key that signatures are verified with.
#[derive(Clone)]
pub enum VerifyingKey {
	/// A secret that both sides have (`whsec_…`).
	Hmac(HmacSecret),
	/// A public key (`whpk_…`).
	Ed25519(ed25519_dalek::VerifyingKey),
}

/// Secret of 24 to 64 bytes that both sides have.
#[derive(Clone)]
pub struct HmacSecret(Vec<u8>);

/// A text that is no secret or key. It does not say what the text was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SecretError;

impl SigningSecret {
	/// Reads `whsec_…` or `whsk_…`.
	///
	/// # Errors
	/// [`SecretError`] for any other text.
	pub fn parse(text: &str) -> Result<Self, SecretError> {
		if let Some(secret) = text.strip_prefix("whsk_") {
			let bytes = BASE64_STANDARD.decode(secret).map_err(|_| SecretError)?;
			// The seed, or the seed and the public key.
			let seed = bytes.first_chunk::<32>().filter(|_| matches!(bytes.len(), 32 | 64));
			let key = ed25519_dalek::SigningKey::from_bytes(seed.ok_or(SecretError)?);
			return Ok(Self::Ed25519(Box::new(key)));
		}
		HmacSecret::parse(text).map(Self::Hmac)
	}

	/// Returns the key that others verify with: the secret itself, or the public key.
	pub fn verifying_key(&self) -> VerifyingKey {
		match self {
			Self::Hmac(secret) => VerifyingKey::Hmac(secret.clone()),
			Self::Ed25519(key) => VerifyingKey::Ed25519(key.verifying_key()),
		}
	}

	pub(crate) fn sign(&self, message: &[u8]) -> String {
		match self {
			Self::Hmac(secret) => format!("v1,{}", BASE64_STANDARD.encode(secret.mac(message))),
			Self::Ed25519(key) => {
				format!("v1a,{}", BASE64_STANDARD.encode(key.sign(message).to_bytes()))
			},
		}
	}
}

impl VerifyingKey {
	/// Reads `whsec_…` or `whpk_…`.
	///
	/// # Errors
	/// [`SecretError`] for any other text.
	pub fn parse(text: &str) -> Result<Self, SecretError> {
		if let Some(key) = text.strip_prefix("whpk_") {
			let bytes = BASE64_STANDARD.decode(key).map_err(|_| SecretError)?;
			let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| SecretError)?;
			let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| SecretError)?;
			return Ok(Self::Ed25519(key));
		}
		HmacSecret::parse(text).map(Self::Hmac)
	}

	pub(crate) fn verifies(&self, message: &[u8], version: &str, signature: &[u8]) -> bool {
		match self {
			Self::Hmac(secret) if version == "v1" => secret.mac(message).ct_eq(signature).into(),
			Self::Ed25519(key) if version == "v1a" => {
				let signature = ed25519_dalek::Signature::from_slice(signature);
				signature.is_ok_and(|signature| key.verify(message, &signature).is_ok())
			},
			_ => false,
		}
	}
}

impl HmacSecret {
	fn parse(text: &str) -> Result<Self, SecretError> {
		let secret = text.strip_prefix("whsec_").ok_or(SecretError)?;
		let bytes = BASE64_STANDARD.decode(secret).map_err(|_| SecretError)?;
		let fits = (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&bytes.len());
		fits.then_some(Self(bytes)).ok_or(SecretError)
	}

	fn mac(&self, message: &[u8]) -> [u8; 32] {
		let mut engine = HmacEngine::<sha256::Hash>::new(&self.0);
		engine.input(message);
		Hmac::from_engine(engine).to_byte_array()
	}
}

impl fmt::Debug for SigningSecret {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Hmac(_) => "SigningSecret(v1)",
			Self::Ed25519(_) => "SigningSecret(v1a)",
		})
	}
}

impl fmt::Debug for VerifyingKey {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Hmac(_) => "VerifyingKey(v1)",
			Self::Ed25519(_) => "VerifyingKey(v1a)",
		})
	}
}

impl fmt::Debug for HmacSecret {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("HmacSecret")
	}
}

impl fmt::Display for SecretError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("expected whsec_, whsk_ or whpk_ and base64 of 24 to 64, 32 or 32 bytes")
	}
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
	use super::*;

	const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

	#[test]
	fn secrets_have_forms_and_are_not_shown() {
		for bad in
			["", "whsec_", "whsec_AAAA", "whsk_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whpk_"]
		{
			assert!(
				SigningSecret::parse(bad).is_err() && VerifyingKey::parse(bad).is_err(),
				"{bad}"
			);
		}
		let text = format!("whsk_{}", BASE64_STANDARD.encode([9; 32]));
		let secret = SigningSecret::parse(&text).unwrap();
		let key = secret.verifying_key();
		let shown = format!("{secret:?} {key:?} {:?}", SigningSecret::parse(SECRET).unwrap());
		assert_eq!(shown, "SigningSecret(v1a) VerifyingKey(v1a) SigningSecret(v1)");
	}
}
