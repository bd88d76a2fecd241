// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Signatures of Standard Webhooks: over id, time and body, by one or more keys.

use std::fmt;
use std::time::Duration;

use base64::prelude::BASE64_STANDARD;
use base64::Engine;
use bitcoin_hashes::{sha256, Hash, HashEngine, Hmac, HmacEngine};
use ed25519_dalek::{Signer, Verifier};
use leyden_store::Timestamp;
use subtle::ConstantTimeEq;

/// Signatures that are looked at in one header.
pub const MAX_SIGNATURES: usize = 16;
/// Shortest symmetric secret, in bytes.
const MIN_SECRET_BYTES: usize = 24;
/// Longest symmetric secret, in bytes.
const MAX_SECRET_BYTES: usize = 64;
/// Longest header with signatures, in bytes.
const MAX_HEADER_BYTES: usize = 4096;
/// Longest id, in bytes.
const MAX_ID_BYTES: usize = 256;

/// What a callback is signed with.
#[derive(Clone)]
pub enum SigningSecret {
	/// A secret that both sides have (`whsec_…`); signatures `v1`.
	Hmac(HmacSecret),
	/// A private key (`whsk_…`); signatures `v1a`.
	Ed25519(Box<ed25519_dalek::SigningKey>),
}

/// What a signature is verified with.
#[derive(Clone)]
pub enum VerifyingKey {
	/// A secret that both sides have (`whsec_…`).
	Hmac(HmacSecret),
	/// A public key (`whpk_…`).
	Ed25519(ed25519_dalek::VerifyingKey),
}

/// 24 to 64 bytes that both sides have.
#[derive(Clone)]
pub struct HmacSecret(Vec<u8>);

/// A text that is no secret or key. It does not say what the text was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SecretError;

/// Why a callback is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SignatureError {
	/// A header is missing, too long, or is not what it should be.
	Malformed {
		/// Which.
		header: &'static str,
	},
	/// It was signed too long ago: it may be a copy.
	TooOld,
	/// It was signed in the future: somebody's clock is wrong.
	TooNew,
	/// No signature is one of our keys'.
	NoMatch,
}

/// The headers of a callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Webhook<'a> {
	/// `webhook-id`.
	pub id: &'a str,
	/// `webhook-timestamp`, in seconds.
	pub timestamp: u64,
}

impl SigningSecret {
	/// Reads `whsec_…` or `whsk_…`.
	///
	/// # Errors
	/// [`SecretError`].
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

	/// What others verify with: the secret itself, or the public key.
	pub fn verifying_key(&self) -> VerifyingKey {
		match self {
			Self::Hmac(secret) => VerifyingKey::Hmac(secret.clone()),
			Self::Ed25519(key) => VerifyingKey::Ed25519(key.verifying_key()),
		}
	}

	fn sign(&self, message: &[u8]) -> String {
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
	/// [`SecretError`].
	pub fn parse(text: &str) -> Result<Self, SecretError> {
		if let Some(key) = text.strip_prefix("whpk_") {
			let bytes = BASE64_STANDARD.decode(key).map_err(|_| SecretError)?;
			let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| SecretError)?;
			let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| SecretError)?;
			return Ok(Self::Ed25519(key));
		}
		HmacSecret::parse(text).map(Self::Hmac)
	}

	fn verifies(&self, message: &[u8], version: &str, signature: &[u8]) -> bool {
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

impl Webhook<'_> {
	/// The value of `webhook-signature`: a signature by each of these, so that keys can be changed
	/// while both sides go on.
	pub fn sign(&self, body: &[u8], secrets: &[SigningSecret]) -> String {
		let message = self.message(body);
		let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(&message)).collect();
		signatures.join(" ")
	}

	/// Whether one of the signatures is by one of these keys, and not too old.
	///
	/// # Errors
	/// [`SignatureError`].
	pub fn verify(
		&self, body: &[u8], signatures: &str, keys: &[VerifyingKey], now: Timestamp,
		tolerance: Duration,
	) -> Result<(), SignatureError> {
		let malformed = |header| Err(SignatureError::Malformed { header });
		if self.id.is_empty() || self.id.len() > MAX_ID_BYTES || self.id.contains('.') {
			return malformed("webhook-id");
		}
		if signatures.len() > MAX_HEADER_BYTES {
			return malformed("webhook-signature");
		}
		let (signed, now, tolerance) = (self.timestamp, now.0 / 1000, tolerance.as_secs());
		if signed < now.saturating_sub(tolerance) {
			return Err(SignatureError::TooOld);
		}
		if signed > now.saturating_add(tolerance) {
			return Err(SignatureError::TooNew);
		}
		let message = self.message(body);
		let mut found = false;
		for signature in signatures.split(' ').filter(|part| !part.is_empty()).take(MAX_SIGNATURES)
		{
			// What is of a version that is not known yet is somebody else's.
			let Some((version, signature)) = signature.split_once(',') else {
				return malformed("webhook-signature");
			};
			let Ok(signature) = BASE64_STANDARD.decode(signature) else { continue };
			// All of them, whether or not one was found: how long it takes tells nothing.
			for key in keys {
				found |= key.verifies(&message, version, &signature);
			}
		}
		found.then_some(()).ok_or(SignatureError::NoMatch)
	}

	fn message(&self, body: &[u8]) -> Vec<u8> {
		let head = format!("{}.{}.", self.id, self.timestamp);
		[head.as_bytes(), body].concat()
	}
}

/// Reads `webhook-timestamp`: digits, and nothing else.
///
/// # Errors
/// [`SignatureError::Malformed`].
#[cfg(any(feature = "server", test))]
pub(crate) fn parse_timestamp(text: &str) -> Result<u64, SignatureError> {
	let is_number = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
	let number = text.parse().ok().filter(|_| is_number);
	number.ok_or(SignatureError::Malformed { header: "webhook-timestamp" })
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

impl fmt::Display for SignatureError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Malformed { header } => write!(f, "the header {header} is missing or malformed"),
			Self::TooOld => f.write_str("it was signed too long ago"),
			Self::TooNew => f.write_str("it was signed in the future"),
			Self::NoMatch => f.write_str("no signature is by a key that is known here"),
		}
	}
}

impl std::error::Error for SignatureError {}

#[cfg(test)]
mod tests {
	use super::*;

	const TOLERANCE: Duration = Duration::from_secs(300);
	const NOW: Timestamp = Timestamp(1_614_265_330_000);
	/// The test vector of the specification.
	const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
	const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
	const BODY: &[u8] = br#"{"test": 2432232314}"#;
	const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

	fn webhook() -> Webhook<'static> {
		Webhook { id: ID, timestamp: 1_614_265_330 }
	}

	fn keys(texts: &[&str]) -> Vec<VerifyingKey> {
		texts.iter().map(|text| VerifyingKey::parse(text).unwrap()).collect()
	}

	#[test]
	fn the_vector_of_the_specification() {
		let secret = SigningSecret::parse(SECRET).unwrap();
		assert_eq!(webhook().sign(BODY, &[secret]), SIGNATURE);
		webhook().verify(BODY, SIGNATURE, &keys(&[SECRET]), NOW, TOLERANCE).unwrap();
	}

	fn ed25519(seed: u8) -> (SigningSecret, VerifyingKey) {
		let text = format!("whsk_{}", BASE64_STANDARD.encode([seed; 32]));
		let secret = SigningSecret::parse(&text).unwrap();
		let key = secret.verifying_key();
		(secret, key)
	}

	/// Both sides change keys one after the other, and nothing is refused meanwhile.
	#[test]
	fn keys_rotate() {
		let old = SigningSecret::parse(SECRET).unwrap();
		let (new, new_key) = ed25519(7);
		let both = webhook().sign(BODY, &[old.clone(), new.clone()]);
		for keys in [vec![old.verifying_key()], vec![new_key.clone()]] {
			webhook().verify(BODY, &both, &keys, NOW, TOLERANCE).unwrap();
		}
		let only_new = webhook().sign(BODY, &[new]);
		assert!(only_new.starts_with("v1a,"));
		let both_keys = [old.verifying_key(), new_key];
		webhook().verify(BODY, &only_new, &both_keys, NOW, TOLERANCE).unwrap();
		// With a version that nobody knows yet.
		let future = format!("v9,AAAA {only_new}");
		webhook().verify(BODY, &future, &both_keys, NOW, TOLERANCE).unwrap();
	}

	#[test]
	fn what_is_forged_is_refused() {
		let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
		let check = |webhook: Webhook<'_>, body: &[u8], signature: &str, key: &str| {
			webhook.verify(body, signature, &keys(&[key]), NOW, TOLERANCE)
		};
		let no = Err(SignatureError::NoMatch);
		assert_eq!(check(webhook(), b"{}", SIGNATURE, SECRET), no);
		assert_eq!(check(webhook(), BODY, SIGNATURE, other), no);
		assert_eq!(check(Webhook { id: "msg_q", ..webhook() }, BODY, SIGNATURE, SECRET), no);
		let shifted = Webhook { timestamp: webhook().timestamp + 1, ..webhook() };
		assert_eq!(check(shifted, BODY, SIGNATURE, SECRET), no);
		for bad in
			["", "v1,", "v1,????", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v1a,AAAA"]
		{
			assert_eq!(check(webhook(), BODY, bad, SECRET), no, "{bad}");
		}
		// A signature by a public key's name with the shared secret, and the other way round.
		let (_, key) = ed25519(7);
		let error = webhook().verify(BODY, SIGNATURE, &[key], NOW, TOLERANCE);
		assert_eq!(error, no);
		// An id with a dot could be another id with another time.
		let dotted = Webhook { id: "a.1", ..webhook() };
		let malformed = SignatureError::Malformed { header: "webhook-id" };
		assert_eq!(check(dotted, BODY, SIGNATURE, SECRET), Err(malformed));
		let malformed = Err(SignatureError::Malformed { header: "webhook-signature" });
		for bad in ["v1", "garbage", &"v1,AAAA ".repeat(600)] {
			assert_eq!(check(webhook(), BODY, bad, SECRET), malformed, "{bad:.20}");
		}
		// One that is behind too many others is not looked for.
		let buried = format!("{}{SIGNATURE}", "v1,AAAA ".repeat(MAX_SIGNATURES));
		assert_eq!(check(webhook(), BODY, &buried, SECRET), no);
	}

	#[test]
	fn what_is_old_is_refused() {
		let at = |seconds: i64| {
			let now = Timestamp(NOW.0.checked_add_signed(seconds * 1000).unwrap());
			webhook().verify(BODY, SIGNATURE, &keys(&[SECRET]), now, TOLERANCE)
		};
		assert_eq!(at(300), Ok(()));
		assert_eq!(at(301), Err(SignatureError::TooOld));
		assert_eq!(at(-300), Ok(()));
		assert_eq!(at(-301), Err(SignatureError::TooNew));
	}

	#[test]
	fn times_are_digits() {
		assert_eq!(parse_timestamp("1614265330"), Ok(1_614_265_330));
		for bad in ["", "+1", "-1", " 1", "1 ", "1.0", "0x1", "9999999999999"] {
			assert!(parse_timestamp(bad).is_err(), "{bad}");
		}
	}

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
		let (secret, key) = ed25519(9);
		let shown = format!("{secret:?} {key:?} {:?}", SigningSecret::parse(SECRET).unwrap());
		assert_eq!(shown, "SigningSecret(v1a) VerifyingKey(v1a) SigningSecret(v1)");
	}
}
