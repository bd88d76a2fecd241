// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Texts of users and peers: what is read is written as it was, or in the one form that counts.

use std::str::FromStr;

use leyden::StoreUrl;
use leyden_id::{ChannelId, EventId, EventKind, Lane, MonitorEventSource};
use leyden_outbox::CallbackId;
use leyden_payout::DebtId;
use leyden_splice::SpliceId;
use leyden_store::codec::Law;
use leyden_store::Namespace;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

pub(crate) fn laws() -> Vec<(&'static str, Law)> {
	vec![
		("event id", lower_case::<EventId>),
		("channel id", lower_case::<ChannelId>),
		("callback id", lower_case::<CallbackId>),
		("debt id", lower_case::<DebtId>),
		("splice id", lower_case::<SpliceId>),
		("lane", lower_case::<Lane>),
		("monitor event source", lower_case::<MonitorEventSource>),
		("event kind", kind),
		("namespace", namespace),
		("store URL", store_url),
	]
}

/// A text that is read is written in lower case, and nothing else of it changes.
fn lower_case<T: FromStr + ToString>(bytes: &[u8]) -> Pairs {
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	match text.parse::<T>() {
		Ok(read) => vec![(text.to_ascii_lowercase().into(), read.to_string().into())],
		Err(_) => Vec::new(),
	}
}

fn kind(bytes: &[u8]) -> Pairs {
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	EventKind::new(text).map_or(Vec::new(), |kind| vec![(bytes.to_vec(), kind.to_string().into())])
}

fn namespace(bytes: &[u8]) -> Pairs {
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	Namespace::new(text).map_or(Vec::new(), |name| vec![(bytes.to_vec(), name.to_string().into())])
}

/// A URL that is read is written in a form that is read as the same, and a password is in no form.
fn store_url(bytes: &[u8]) -> Pairs {
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	let Ok(url) = text.parse::<StoreUrl>() else { return Vec::new() };
	let once = url.to_string();
	let again = once.parse::<StoreUrl>().map_or(String::new(), |url| url.to_string());
	let mut pairs = vec![(once.clone().into_bytes(), again.into_bytes())];
	// With a password that stands nowhere else in it.
	const MARK: &str = "s3cr3t-m4rk";
	if let (StoreUrl::Postgres(_), Some((before, behind))) = (&url, text.split_once("password=")) {
		let end = behind.find(['&', ' ']).unwrap_or(behind.len());
		let marked = format!("{before}password={MARK}{}", behind.get(end..).unwrap_or_default());
		// The fuzzer learns the word.
		if let Some(url) = marked.parse::<StoreUrl>().ok().filter(|_| !text.contains(MARK)) {
			pairs.push((vec![0], vec![u8::from(url.to_string().contains(MARK))]));
		}
	}
	pairs
}
