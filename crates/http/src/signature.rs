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
use leyden_store::Timestamp;

use crate::secret::{SigningSecret, VerifyingKey};

/// Most signatures of a header that are looked at.
pub const MAX_SIGNATURES: usize = 16;
/// Longest header with signatures, in bytes.
const MAX_HEADER_BYTES: usize = 4096;
/// Longest id, in bytes: that of a request of `leyden-request`.
pub(crate) const MAX_ID_BYTES: usize = 255;

/// Reason that a callback is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SignatureError {
	/// A header is missing, too long or malformed.
	Malformed {
		/// The name of the header.
		header: &'static str,
	},
	/// The callback is signed by one of these keys, and too long ago: it is a copy, or one of the two clocks
	/// is wrong.
	TooOld,
	/// The callback is signed by one of these keys, in the future: one of the two clocks is wrong.
	TooNew,
	/// No signature is by one of these keys.
	NoMatch,
}

/// The headers of a callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Webhook<'a> {
	/// Value of `webhook-id`.
	pub id: &'a str,
	/// Value of `webhook-timestamp`, in seconds.
	pub timestamp: u64,
}

impl Webhook<'_> {
	/// Returns the value of `webhook-signature`: a signature by each of these, so that keys can be changed
	/// while both sides go on.
	pub fn sign(&self, body: &[u8], secrets: &[SigningSecret]) -> String {
		let message = self.message(body);
		let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(&message)).collect();
		signatures.join(" ")
	}

	/// Checks that one of the signatures is by one of these keys, and that the timestamp is no further than
	/// the tolerance from now. Signatures that are malformed, or of a version that is not known, are skipped.
	///
	/// # Errors
	/// [`Malformed`](SignatureError::Malformed) for an id that is empty, too long or has a dot in it, and
	/// for a header that is too long or has no signature in it; [`NoMatch`](SignatureError::NoMatch) if no
	/// signature is by one of these keys; and if one is, [`TooOld`](SignatureError::TooOld) and
	/// [`TooNew`](SignatureError::TooNew).
	pub fn verify(
		&self, body: &[u8], signatures: &str, keys: &[VerifyingKey], now: Timestamp,
		tolerance: Duration,
	) -> Result<(), SignatureError> {
		check_headers(self.id, signatures)?;
		let message = self.message(body);
		let (mut found, mut well_formed, mut malformed) = (false, false, false);
		for signature in signatures.split(' ').filter(|part| !part.is_empty()).take(MAX_SIGNATURES)
		{
			let Some((version, signature)) = signature.split_once(',') else {
				malformed = true;
				continue;
			};
			well_formed = true;
			let Ok(signature) = BASE64_STANDARD.decode(signature) else { continue };
			// All of them, whether or not one was found: how long it takes tells nothing.
			for key in keys {
				found |= key.verifies(&message, version, &signature);
			}
		}
		if malformed && !well_formed {
			return Err(SignatureError::Malformed { header: "webhook-signature" });
		}
		let (signed, now, tolerance) = (self.timestamp, now.0 / 1000, tolerance.as_secs());
		match found {
			false => Err(SignatureError::NoMatch),
			true if signed < now.saturating_sub(tolerance) => Err(SignatureError::TooOld),
			true if signed > now.saturating_add(tolerance) => Err(SignatureError::TooNew),
			true => Ok(()),
		}
	}

	fn message(&self, body: &[u8]) -> Vec<u8> {
		let head = format!("{}.{}.", self.id, self.timestamp);
		[head.as_bytes(), body].concat()
	}
}

/// Checks the forms and lengths of an id and of signatures, without the body.
///
/// # Errors
/// [`SignatureError::Malformed`], with the header that is.
pub(crate) fn check_headers(id: &str, signatures: &str) -> Result<(), SignatureError> {
	// An id with a dot could be another id with another time.
	if id.is_empty() || id.len() > MAX_ID_BYTES || id.contains('.') {
		return Err(SignatureError::Malformed { header: "webhook-id" });
	}
	if signatures.len() > MAX_HEADER_BYTES {
		return Err(SignatureError::Malformed { header: "webhook-signature" });
	}
	Ok(())
}

/// Reads `webhook-timestamp`: digits, and nothing else.
///
/// # Errors
/// [`SignatureError::Malformed`] for any other text.
#[cfg(any(feature = "server", test))]
pub(crate) fn parse_timestamp(text: &str) -> Result<u64, SignatureError> {
	let is_number = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
	let number = text.parse().ok().filter(|_| is_number);
	number.ok_or(SignatureError::Malformed { header: "webhook-timestamp" })
}

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
		// With a version that is not known yet.
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
	fn a_malformed_signature_among_good_ones_is_skipped() {
		let check =
			|signatures: &str| webhook().verify(BODY, signatures, &keys(&[SECRET]), NOW, TOLERANCE);
		for malformed in ["v1", "garbage", ",", "v1,????", "v1,", "v9,AAAA", ",,,"] {
			assert_eq!(check(&format!("{malformed} {SIGNATURE}")), Ok(()), "{malformed}");
			assert_eq!(check(&format!("{SIGNATURE} {malformed}")), Ok(()), "{malformed}");
		}
		// Malformed ones count: what is behind too many is not looked for.
		let buried = format!("{}{SIGNATURE}", "garbage ".repeat(MAX_SIGNATURES));
		let malformed = SignatureError::Malformed { header: "webhook-signature" };
		assert_eq!(check(&buried), Err(malformed));
	}

	/// An age is not told to a sender that has no key.
	#[test]
	fn what_is_forged_and_old_is_forged() {
		let now = Timestamp(NOW.0 + 1_000_000);
		let verified = webhook().verify(b"{}", SIGNATURE, &keys(&[SECRET]), now, TOLERANCE);
		assert_eq!(verified, Err(SignatureError::NoMatch));
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
}
