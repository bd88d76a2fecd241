// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, UNIX_EPOCH};

use leyden_store::codec::Law;
use leyden_store::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use crate::special_addresses::is_public;
use crate::{courier, feed_client, signature, Address, AllowList, SigningSecret, Token, Webhook};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns the laws that hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	vec![
		("Retry-After", retry_after),
		("page of a feed", feed_client::page_law),
		("timestamp", timestamp),
		("secret", secret),
		("token", token),
		("address", address),
		("allow list", allow_list),
	]
}

fn text(bytes: &[u8]) -> &str {
	std::str::from_utf8(bytes).unwrap_or_default()
}

fn flag(value: bool) -> Vec<u8> {
	vec![u8::from(value)]
}

/// Checks that digits are seconds, and that a date in the past is no wait.
fn retry_after(bytes: &[u8]) -> Pairs {
	let Ok(value) = HeaderValue::from_bytes(bytes) else { return Vec::new() };
	let mut headers = HeaderMap::new();
	headers.insert(RETRY_AFTER, value);
	let found = courier::retry_after(&headers, Timestamp(1_700_000_000_000));
	let text = text(bytes).trim();
	let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
	let seconds = text.parse::<u32>().ok().filter(|_| is_number);
	let date = httpdate::parse_http_date(text).ok();
	let until = date.map(|date| date.duration_since(UNIX_EPOCH).unwrap_or_default());
	let now = Duration::from_millis(1_700_000_000_000);
	let expected = match (seconds, until) {
		(Some(seconds), _) => Some(Duration::from_secs(seconds.into())),
		(None, Some(until)) => Some(until.saturating_sub(now)),
		(None, None) => None,
	};
	vec![(format!("{expected:?}").into(), format!("{found:?}").into())]
}

fn timestamp(bytes: &[u8]) -> Pairs {
	let text = text(bytes);
	let Ok(number) = signature::parse_timestamp(text) else { return Vec::new() };
	vec![(format!("{number:0>width$}", width = text.len()).into(), bytes.to_vec())]
}

/// Checks that a key takes the signatures of its secret.
fn secret(bytes: &[u8]) -> Pairs {
	let Ok(secret) = SigningSecret::parse(text(bytes)) else { return Vec::new() };
	let webhook = Webhook { id: "msg_1", timestamp: 1_700_000_000 };
	let now = Timestamp(1_700_000_000_000);
	let signed = webhook.sign(b"body", std::slice::from_ref(&secret));
	let verified =
		webhook.verify(b"body", &signed, &[secret.verifying_key()], now, Duration::from_secs(1));
	vec![(flag(true), flag(verified.is_ok()))]
}

/// Checks that a token opens with itself, and neither with more nor with less.
fn token(bytes: &[u8]) -> Pairs {
	let Some(token) = Token::new(text(bytes)) else { return Vec::new() };
	let bearer = format!("Bearer {}", text(bytes));
	let longer = format!("{bearer}x");
	let shorter = bearer.get(..bearer.len() - 1);
	vec![
		(flag(false), flag(token.is_in(shorter))),
		(flag(true), flag(token.is_in(Some(&bearer)))),
		(flag(false), flag(token.is_in(Some(&longer)))),
		(flag(false), flag(token.is_in(None))),
	]
}

/// Checks that no kind of callback leads to another host.
fn address(bytes: &[u8]) -> Pairs {
	let mut pairs = Vec::new();
	for address in [Address::new(text(bytes)), Address::plain(text(bytes))] {
		let Ok(address) = address else { continue };
		let host = |path: &str| {
			let url = address.url(path);
			format!("{} {:?} {:?}", url.scheme(), url.host_str(), url.port()).into_bytes()
		};
		for path in ["paid", "/../..", "//evil.example/x", "https://evil.example", "a@evil.example"]
		{
			pairs.push((host(""), host(path)));
		}
	}
	pairs
}

/// Checks that an address of the list is called, and that a mapped address is judged as what it maps.
fn allow_list(bytes: &[u8]) -> Pairs {
	let mut pairs = Vec::new();
	if let Ok(list) = text(bytes).parse::<AllowList>() {
		for entry in text(bytes).split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
			let address = entry.split('/').next().unwrap_or_default().parse::<IpAddr>();
			pairs.push((flag(true), flag(address.is_ok_and(|address| list.allows(address)))));
		}
	}
	if let Some(octets) = bytes.first_chunk::<4>() {
		let v4 = IpAddr::from(*octets);
		let [a, b, c, d] = octets.map(u16::from);
		let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, a << 8 | b, c << 8 | d);
		pairs.push((flag(is_public(v4)), flag(is_public(IpAddr::V6(mapped)))));
	}
	if let Some(octets) = bytes.first_chunk::<16>() {
		let _ = is_public(IpAddr::from(*octets));
	}
	pairs
}
