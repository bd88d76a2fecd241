// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! `leyden list` and `leyden inspect`: what a store holds. It is opened to be read only.

use std::sync::Arc;

use leyden::ldk::{decode_user_event, UserEvent, EVENT_STREAM};
use leyden::lightning::events::Event;
use leyden::log::{ConsumerInfo, DamagedEntry, Entry, LogIndex, LogReader, StreamInfo};
use leyden::splice::{SpliceFailed, SpliceKind};
use leyden::store::{Namespace, Store};
use leyden::StoreUrl;
use serde_json::{json, Value};

use crate::output::{table, tell, Failure, Output};
use crate::{payouts, InspectArguments, ListArguments, StoreArguments};

/// Digits of an id that are shown in a list; `inspect` takes them.
const SHORT: usize = 12;
const PAGE: usize = 500;
/// Shown for what cannot be read of a damaged entry.
const UNKNOWN: &str = "unknown";

pub fn list(arguments: &ListArguments, output: &mut Output) -> Result<(), Failure> {
	let reader = open(&arguments.store)?;
	let mut streams = reader.streams().map_err(tell)?;
	if let Some(name) = &arguments.stream {
		streams.retain(|stream| stream.name == *name);
		if streams.is_empty() {
			return Err(Failure::Error(format!("there is no stream {name} in this store")));
		}
	}
	let mut documents = Vec::new();
	let mut blocks = Vec::new();
	for stream in &streams {
		let rows = rows(&reader, stream, arguments)?;
		documents.push(json!({
			"stream": stream.name,
			"epoch": stream.epoch.to_string(),
			"head": stream.head,
			"trimmed": stream.trimmed,
			"consumers": consumers(&reader, stream)?,
			"entries": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
		}));
		blocks.push((summary(&reader, stream)?, rows));
	}
	if arguments.store.json {
		return output.json(&json!({ "v": 1, "streams": documents }));
	}
	if blocks.is_empty() {
		return output.line("There are no streams in this namespace.");
	}
	for (number, (summary, rows)) in blocks.iter().enumerate() {
		if number > 0 {
			output.line("")?;
		}
		output.line(summary)?;
		let header = ["INDEX", "ID", "KIND", "LANE", "APPENDED", "STATE"].map(str::to_owned);
		let mut lines = vec![header.to_vec()];
		lines.extend(rows.iter().map(Row::cells));
		if rows.is_empty() {
			output.line("  nothing to show")?;
			continue;
		}
		for line in table(&lines) {
			output.line(&format!("  {line}"))?;
		}
		if rows.len() == arguments.limit {
			output.line(&format!("  (the first {}; --limit shows more)", rows.len()))?;
		}
	}
	Ok(())
}

pub fn inspect(arguments: &InspectArguments, output: &mut Output) -> Result<(), Failure> {
	let reader = open(&arguments.store)?;
	let streams = reader.streams().map_err(tell)?;
	let wanted =
		|stream: &&StreamInfo| arguments.stream.as_ref().is_none_or(|name| *name == stream.name);
	let mut found = Vec::new();
	for stream in streams.iter().filter(wanted) {
		// Few digits and nothing else are an index.
		let index = arguments.id.parse().ok().filter(|_| arguments.id.len() < 8);
		let index = match index.and_then(LogIndex::new) {
			Some(index) => Some(index),
			None => reader.find_by_prefix(&stream.name, &arguments.id).map_err(tell)?.map(|f| f.1),
		};
		if let Some(index) = index {
			if let Some(place) = reader.entry(&stream.name, index).map_err(tell)? {
				found.push((stream, place));
			}
		}
	}
	// What is no entry may be a debt.
	if found.is_empty() && arguments.stream.is_none() && payouts::inspect(arguments, output)? {
		return Ok(());
	}
	let [(stream, place)] = found.as_slice() else {
		let what = &arguments.id;
		return Err(Failure::Error(if found.is_empty() {
			format!(
				"there is no entry and no debt {what}; leyden list and leyden payouts show what there is"
			)
		} else {
			format!("{what} is in several streams; say which with --stream")
		}));
	};
	let row = Row::of(&reader, stream, place)?;
	let facts = match place {
		Ok(entry) => facts(stream, entry),
		Err(damaged) => vec![("damage", damaged.error().to_string())],
	};
	let bytes = place.as_ref().ok().map(|entry| entry.payload().len());
	if arguments.store.json {
		let mut document = row.to_json();
		if let Value::Object(fields) = &mut document {
			fields.insert("v".to_owned(), json!(1));
			fields.insert("stream".to_owned(), json!(stream.name));
			fields.insert("payload_bytes".to_owned(), json!(bytes));
			let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
			fields.insert("event".to_owned(), Value::Object(facts.collect()));
		}
		return output.json(&document);
	}
	let appended = row.appended.map_or(UNKNOWN.to_owned(), |at| format!("{at} ms since 1970"));
	let mut lines = vec![
		vec!["stream".to_owned(), stream.name.clone()],
		vec!["index".to_owned(), row.index.to_string()],
		vec!["id".to_owned(), row.id.clone()],
		vec!["kind".to_owned(), row.kind.clone()],
		vec!["lane".to_owned(), row.lane.clone()],
		vec!["appended".to_owned(), appended],
		vec!["payload".to_owned(), bytes.map_or(UNKNOWN.to_owned(), |n| format!("{n} bytes"))],
	];
	lines.extend(facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]));
	for (consumer, state) in &row.states {
		lines.push(vec![format!("consumer {consumer}"), state.clone()]);
	}
	table(&lines).iter().try_for_each(|line| output.line(line))
}

/// An entry, or what is known of a damaged one.
type Place = Result<Entry, DamagedEntry>;

fn index_of(place: &Place) -> LogIndex {
	match place {
		Ok(entry) => entry.index(),
		Err(damaged) => damaged.index(),
	}
}

struct Row {
	index: u64,
	id: String,
	kind: String,
	lane: String,
	appended: Option<u64>,
	/// By consumer.
	states: Vec<(String, String)>,
}

impl Row {
	fn of(reader: &LogReader, stream: &StreamInfo, place: &Place) -> Result<Self, Failure> {
		let unknown = || UNKNOWN.to_owned();
		let index = index_of(place);
		let mut states = Vec::new();
		for consumer in &stream.consumers {
			states.push((consumer.name.clone(), state(reader, stream, &consumer.name, index)?));
		}
		let index = index.get();
		Ok(match place {
			Ok(entry) => Self {
				index,
				id: entry.id().to_string(),
				kind: entry.kind().to_string(),
				lane: entry.lane().to_string(),
				appended: Some(entry.appended_at().0),
				states,
			},
			Err(damaged) => Self {
				index,
				id: damaged.id().map_or_else(unknown, |id| id.to_string()),
				kind: "(damaged)".to_owned(),
				lane: damaged.lane().map_or_else(unknown, |lane| lane.to_string()),
				appended: None,
				states,
			},
		})
	}

	fn is_unacked(&self, consumer: Option<&String>) -> bool {
		let mut states = self.states.iter();
		states.any(|(name, state)| consumer.is_none_or(|c| c == name) && state != "acked")
	}

	fn cells(&self) -> Vec<String> {
		let states: Vec<_> =
			self.states.iter().map(|(name, state)| format!("{name}: {state}")).collect();
		vec![
			self.index.to_string(),
			self.id.chars().take(SHORT).collect(),
			self.kind.clone(),
			self.lane.chars().take(SHORT + 8).collect(),
			self.appended.map_or(UNKNOWN.to_owned(), |at| at.to_string()),
			states.join(", "),
		]
	}

	fn to_json(&self) -> Value {
		let states = self.states.iter().map(|(name, state)| (name.clone(), json!(state)));
		json!({
			"index": self.index,
			"id": self.id,
			"kind": self.kind,
			"lane": self.lane,
			"appended_at_ms": self.appended,
			"states": Value::Object(states.collect()),
		})
	}
}

fn consumers(reader: &LogReader, stream: &StreamInfo) -> Result<Vec<Value>, Failure> {
	let consumer = |consumer: &ConsumerInfo| {
		let lag = reader.lag(&stream.name, &consumer.name).map_err(tell)?;
		Ok(json!({
			"name": consumer.name,
			"watermark": consumer.watermark,
			"paused": consumer.paused,
			"unacked": lag.unacked,
			"oldest": lag.oldest.map(LogIndex::get),
			"oldest_appended_at_ms": lag.oldest_appended_at.map(|at| at.0),
		}))
	};
	stream.consumers.iter().map(consumer).collect()
}

fn rows(
	reader: &LogReader, stream: &StreamInfo, arguments: &ListArguments,
) -> Result<Vec<Row>, Failure> {
	let (mut rows, mut after) = (Vec::new(), None);
	loop {
		let page = reader.entries(&stream.name, after, PAGE).map_err(tell)?;
		let Some(last) = page.last() else { return Ok(rows) };
		after = Some(index_of(last));
		for place in &page {
			if rows.len() >= arguments.limit {
				return Ok(rows);
			}
			let mut row = Row::of(reader, stream, place)?;
			if arguments.unacked && !row.is_unacked(arguments.consumer.as_ref()) {
				continue;
			}
			if let Some(consumer) = &arguments.consumer {
				row.states.retain(|(name, _)| name == consumer);
			}
			rows.push(row);
		}
	}
}

fn state(
	reader: &LogReader, stream: &StreamInfo, consumer: &str, index: LogIndex,
) -> Result<String, Failure> {
	if reader.is_acked(&stream.name, consumer, index).map_err(tell)? {
		return Ok("acked".to_owned());
	}
	let before = LogIndex::new(index.get() - 1);
	let letters = reader.dead_letters(&stream.name, consumer, before, 1).map_err(tell)?;
	if let Some(letter) = letters.first().filter(|letter| letter.index == index) {
		return Ok(format!("dead letter after {} attempts: {}", letter.attempts, letter.reason));
	}
	match reader.failed_attempts(&stream.name, consumer, index).map_err(tell)? {
		0 => Ok("un-acked".to_owned()),
		failed => Ok(format!("un-acked, failed {failed} times")),
	}
}

fn summary(reader: &LogReader, stream: &StreamInfo) -> Result<String, Failure> {
	let mut consumers = Vec::new();
	for consumer in &stream.consumers {
		let lag = reader.lag(&stream.name, &consumer.name).map_err(tell)?;
		let unacked = match (lag.unacked, lag.oldest) {
			(0, _) => "all acked".to_owned(),
			(n, Some(oldest)) => format!("{n} un-acked, the oldest at {oldest}"),
			(n, None) => format!("{n} un-acked"),
		};
		let paused = if consumer.paused { ", paused" } else { "" };
		consumers.push(format!("{} ({unacked}{paused})", consumer.name));
	}
	let head = stream.head;
	let trimmed = if stream.trimmed > 0 {
		format!(", trimmed up to {}", stream.trimmed)
	} else {
		String::new()
	};
	let consumers = consumers.join(", ");
	Ok(format!("stream {}: up to index {head}{trimmed}; consumers: {consumers}", stream.name))
}

/// What an event says that is no secret: never a preimage, a payment secret or a key.
fn facts(stream: &StreamInfo, entry: &Entry) -> Vec<(&'static str, String)> {
	if stream.name != EVENT_STREAM {
		return Vec::new();
	}
	let event = match decode_user_event(entry.payload()) {
		Ok(UserEvent::Ldk(event)) => event,
		Ok(UserEvent::SpliceFailed(failed)) => return splice_facts(&failed),
		Err(error) => return vec![("event", error.to_string())],
	};
	match *event {
		Event::PaymentSent { payment_hash, amount_msat, fee_paid_msat, .. } => vec![
			("payment_hash", payment_hash.to_string()),
			("amount_msat", option(amount_msat)),
			("fee_paid_msat", option(fee_paid_msat)),
		],
		Event::PaymentFailed { payment_id, reason, .. } => vec![
			("payment_id", payment_id.to_string()),
			("reason", reason.map_or("unknown".to_owned(), |reason| format!("{reason:?}"))),
		],
		Event::PaymentClaimable { payment_hash, amount_msat, .. }
		| Event::PaymentClaimed { payment_hash, amount_msat, .. } => vec![
			("payment_hash", payment_hash.to_string()),
			("amount_msat", amount_msat.to_string()),
		],
		Event::ChannelClosed { channel_id, reason, .. } => {
			vec![("channel_id", channel_id.to_string()), ("reason", reason.to_string())]
		},
		Event::ChannelReady { channel_id, .. } | Event::ChannelPending { channel_id, .. } => {
			vec![("channel_id", channel_id.to_string())]
		},
		_ => Vec::new(),
	}
}

fn splice_facts(failed: &SpliceFailed) -> Vec<(&'static str, String)> {
	let what = match (&failed.kind, failed.bump_only) {
		(_, true) => "higher fee of a splice, which goes on".to_owned(),
		(SpliceKind::In { amount_sat }, _) => format!("splice-in of {amount_sat} sat"),
		(SpliceKind::Out { outputs }, _) => {
			let sum: u64 = outputs.iter().map(|output| output.value.to_sat()).sum();
			format!("splice-out of {sum} sat to {} outputs", outputs.len())
		},
	};
	vec![
		("splice", failed.id.to_string()),
		("channel_id", failed.channel.channel_id.to_string()),
		("what", what),
		("reason", failed.reason.to_string()),
		("attempts", failed.attempts.to_string()),
		(
			"released",
			failed.released.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
		),
	]
}

fn option(amount: Option<u64>) -> String {
	amount.map_or("unknown".to_owned(), |amount| amount.to_string())
}

fn open(arguments: &StoreArguments) -> Result<LogReader, Failure> {
	open_store(arguments).map(LogReader::new)
}

/// Opens a store to be read only.
pub fn open_store(arguments: &StoreArguments) -> Result<Arc<dyn Store>, Failure> {
	let namespace = Namespace::new(&arguments.namespace).map_err(tell)?;
	let url = store_url(&arguments.store).map_err(Failure::Error)?;
	if url == StoreUrl::Memory {
		return Err(Failure::Error("a store in memory ends with its process".to_owned()));
	}
	let store = url.open_read_only(namespace).map_err(tell)?;
	if LogReader::new(Arc::clone(&store)).streams().map_err(tell)?.is_empty() {
		let names = url.namespaces().map_err(tell)?;
		if !names.iter().any(|name| name.name() == arguments.namespace) {
			let names: Vec<_> = names.iter().map(Namespace::name).collect();
			return Err(Failure::Error(format!(
				"there is no namespace {} in {url}; there are: {}",
				arguments.namespace,
				names.join(", ")
			)));
		}
	}
	Ok(store)
}

/// A plain path is a SQLite database; only what looks like a URL is read as one.
pub fn store_url(text: &str) -> Result<StoreUrl, String> {
	match text.split_once(':') {
		Some((scheme, _)) if scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_lowercase()) => {
			text.parse().map_err(|error: leyden::UrlError| error.to_string())
		},
		_ => Ok(StoreUrl::Sqlite(text.into())),
	}
}
