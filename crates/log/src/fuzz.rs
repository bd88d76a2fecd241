// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use leyden_id::Lane;
use leyden_store::codec::{Law, StoredKind};
use leyden_store::{frame, Key};

use crate::label::{Label, LaneCopy};
use crate::log::check_name;
use crate::records::{self, ConsumerKeys, StreamKeys};
use crate::types::Cursor;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns everything that must hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	let mut laws: Vec<_> = records::STORED.iter().map(|kind| (kind.name, kind.rewrite)).collect();
	laws.push(("key of an ack", ack_key));
	laws.push(("key with an index", index_key));
	laws.push(("key of a consumer", consumer_key));
	laws.push(("label of a damaged entry", label));
	laws.push(("lane of a damaged entry", lane));
	laws.push(("cursor", cursor));
	laws.push(("name", name));
	laws
}

/// Returns every kind of record of this crate.
pub fn stored() -> Vec<StoredKind> {
	records::STORED.to_vec()
}

fn keys() -> (StreamKeys, ConsumerKeys) {
	let stream = StreamKeys::new("s");
	let consumer = stream.consumer("c");
	(stream, consumer)
}

fn ack_key(bytes: &[u8]) -> Pairs {
	let (_, consumer) = keys();
	// As it is, and behind what the keys of the consumer begin with.
	let mut pairs = Vec::new();
	for key in [bytes.to_vec(), [b"s\0c\0", bytes].concat()] {
		let key = Key::new(records::ACKS, key);
		if let Some((first, last)) = consumer.acked(&key) {
			pairs.push((key.bytes().to_vec(), consumer.ack(first, last).bytes().to_vec()));
		}
	}
	pairs
}

fn index_key(bytes: &[u8]) -> Pairs {
	let (_, consumer) = keys();
	let (_, other) = (keys(), StreamKeys::new("t").consumer("d"));
	let key = Key::new(records::DEAD, [b"s\0c\0", bytes].concat());
	let mut pairs = Vec::new();
	if let Some(index) = consumer.index(&key) {
		pairs.push((key.bytes().to_vec(), consumer.dead(index).bytes().to_vec()));
		pairs.push((key.bytes().to_vec(), consumer.retry(index).bytes().to_vec()));
	}
	let renamed = consumer.key_for(&other, &key).and_then(|key| other.key_for(&consumer, &key));
	pairs.push((key.bytes().to_vec(), renamed.map_or_else(Vec::new, |key| key.bytes().to_vec())));
	pairs
}

fn consumer_key(bytes: &[u8]) -> Pairs {
	let (stream, _) = keys();
	let key = Key::new(records::CONSUMERS, [b"s\0", bytes].concat());
	let again = stream.consumer_name(&key).map(|name| stream.consumer(&name).consumer);
	again.into_iter().map(|again| (key.bytes().to_vec(), again.bytes().to_vec())).collect()
}

fn label(bytes: &[u8]) -> Pairs {
	let raw = [&[0; frame::HEADER_BYTES][..], bytes].concat();
	let Some(label) = Label::of_damaged(&raw) else { return Vec::new() };
	let again = Label::new(label.id, label.repeat, label.lane, label.lived_ms);
	vec![(format!("{label:?}").into_bytes(), format!("{again:?}").into_bytes())]
}

fn lane(bytes: &[u8]) -> Pairs {
	let Some(lane) = LaneCopy::of_damaged(bytes) else { return Vec::new() };
	vec![(lane.to_string().into_bytes(), text_again::<Lane>(&lane.to_string()))]
}

fn cursor(bytes: &[u8]) -> Pairs {
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	match text.parse::<Cursor>() {
		Ok(cursor) => vec![(bytes.to_vec(), cursor.to_string().into_bytes())],
		Err(_) => Vec::new(),
	}
}

fn name(bytes: &[u8]) -> Pairs {
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
	let is_name = (1..=8).contains(&text.len()) && text.chars().all(good) && !text.starts_with('-');
	vec![(vec![u8::from(is_name)], vec![u8::from(check_name(text, 8).is_ok())])]
}

fn text_again<T: std::str::FromStr + ToString>(text: &str) -> Vec<u8> {
	text.parse::<T>().map_or_else(|_| Vec::new(), |parsed| parsed.to_string().into_bytes())
}
