// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What comes from peers, as text.

use std::time::Duration;

use leyden_http::{VerifyingKey, Webhook};
use leyden_request::Params;
use leyden_store::Timestamp;

/// A text as a number and as hex digits: the canonical form of what is taken is what was meant, and
/// what is not is an error.
pub fn request_params(data: &[u8]) {
	let Ok(text) = std::str::from_utf8(data) else { return };
	let by_number = |number| Params::new(1).number("f", number).unwrap();
	match Params::new(1).decimal("f", text) {
		Ok(params) => {
			assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
			assert_eq!(params, by_number(text.parse().unwrap()));
		},
		Err(_) => {
			let number = text.trim_start_matches('0').parse::<u64>();
			let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
			assert!(!digits || (number.is_err() && !text.trim_start_matches('0').is_empty()));
		},
	}
	if let Ok(params) = Params::new(1).hex("f", text, 6) {
		let lower = Params::new(1).text("f", &text.to_ascii_lowercase()).unwrap();
		assert_eq!((params, text.len()), (lower, 6));
	}
	let named = Params::new(1).text(text, "x").and_then(|params| params.text(text, "y"));
	assert!(named.is_err(), "a field has one value");
}

/// A header of signatures that somebody made up.
pub fn webhook_signature(data: &[u8]) {
	/// The example of the specification.
	const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
	const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
	let Ok(text) = std::str::from_utf8(data) else { return };
	let keys = [VerifyingKey::parse(SECRET).unwrap()];
	let webhook = Webhook { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: 1_614_265_330 };
	let now = Timestamp(webhook.timestamp * 1000);
	let body = br#"{"test": 2432232314}"#;
	let verified = webhook.verify(body, text, &keys, now, Duration::from_secs(300));
	if verified.is_ok() {
		assert!(text.split(' ').any(|part| part == SIGNATURE), "{text}");
	}
	let _ = VerifyingKey::parse(text);
	let id = Webhook { id: text, timestamp: 1 };
	let _ = id.verify(body, SIGNATURE, &keys, now, Duration::MAX);
}
