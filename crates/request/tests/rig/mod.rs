//! Invoices, as a node makes them: at most one for a payment hash while the first may be paid.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_request::{
	Answer, AnswerKind, Effect, Outcome, ParamError, Params, Request, RequestError, RequestKey,
	RequestOptions, Requests, Unknown,
};
use leyden_store::{
	Batch, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, RecordType, Store, Table,
	Timestamp, Value,
};
use leyden_testkit::count_records;

pub const LEDGER: Table = Table::new("ledger");
pub const OPERATION: &str = "async_order.request_invoice";
pub const HOUR: Duration = Duration::from_secs(3600);
pub const MINUTE: Duration = Duration::from_secs(60);

/// A request for an invoice, as a peer makes it.
#[derive(Clone, Debug)]
pub struct Ask {
	pub peer: &'static str,
	pub hash: String,
	pub amount_msat: u64,
	pub hash_index: String,
	pub replay_for: Duration,
}

impl Ask {
	pub fn new(hash: &str) -> Self {
		Self {
			peer: "lsp",
			hash: hash.to_owned(),
			amount_msat: 1_000,
			hash_index: "7".to_owned(),
			replay_for: HOUR,
		}
	}

	pub fn key(&self) -> RequestKey {
		RequestKey::new(self.peer, OPERATION, self.hash.to_ascii_lowercase()).unwrap()
	}

	/// Version 2 added the index.
	pub fn params(&self, version: Option<u16>) -> Result<Option<Params>, ParamError> {
		let version = version.unwrap_or(2);
		let params = Params::new(version).number("amount_msat", self.amount_msat)?;
		Ok(match version {
			1 => Some(params),
			2 => Some(params.decimal("hash_index", &self.hash_index)?),
			_ => None,
		})
	}

	pub fn with<T>(&self, f: impl FnOnce(&Request<'_>) -> T) -> T {
		let key = self.key();
		let params = |version| self.params(version).unwrap();
		f(&Request { key: &key, params: &params, replay_for: self.replay_for })
	}
}

/// The world outside: invoices that were really made, which no crash takes back.
#[derive(Default)]
pub struct World {
	pub made: Mutex<BTreeMap<Vec<u8>, u32>>,
}

/// Makes an invoice; it can be looked up by its payment hash.
pub struct Invoices<'a> {
	pub world: &'a World,
	pub answer: AnswerKind,
	/// What is looked up cannot be told.
	pub blind: bool,
	pub runs: u32,
	pub recoveries: u32,
}

impl<'a> Invoices<'a> {
	pub fn new(world: &'a World) -> Self {
		Self { world, answer: AnswerKind::Ok, blind: false, runs: 0, recoveries: 0 }
	}
}

fn outcome(kind: AnswerKind, key: &RequestKey, number: u32) -> Outcome {
	let text = format!("lnbc-{}-{number}", String::from_utf8_lossy(key.key()));
	let mut batch = Batch::new();
	batch.put(Key::new(LEDGER, key.key()), Value::new(RecordType(0x8000), 1, text.as_bytes()));
	Outcome::new(Answer::new(kind, text)).with(Plan::of(batch))
}

impl Effect for Invoices<'_> {
	fn run(&mut self, key: &RequestKey) -> Result<Outcome, Unknown> {
		self.runs += 1;
		if self.answer == AnswerKind::Transient {
			return Ok(Outcome::new(Answer::new(AnswerKind::Transient, "not now")));
		}
		let mut made = self.world.made.lock().unwrap();
		let number = made.entry(key.key().to_vec()).or_default();
		*number += 1;
		if self.blind {
			return Err(Unknown);
		}
		Ok(outcome(self.answer, key, *number))
	}

	fn recover(&mut self, key: &RequestKey) -> Result<Option<Outcome>, Unknown> {
		self.recoveries += 1;
		if self.blind {
			return Err(Unknown);
		}
		let made = self.world.made.lock().unwrap();
		// What was made is there, whatever would become of another try.
		let kind = match self.answer {
			AnswerKind::Error | AnswerKind::Invalid => AnswerKind::Error,
			AnswerKind::Ok | AnswerKind::Transient => AnswerKind::Ok,
		};
		Ok(made.get(key.key()).map(|number| outcome(kind, key, *number)))
	}
}

/// A node with requests, which can be restarted.
pub struct Node {
	pub medium: MemoryMedium,
	pub clock: Arc<ManualClock>,
	pub store: Arc<dyn Store>,
	pub requests: Requests,
	pub options: RequestOptions,
}

impl Node {
	pub fn new(options: RequestOptions) -> Self {
		Self::on(Arc::new(ManualClock::new(Timestamp(1_700_000_000_000))), options)
	}

	pub fn on(clock: Arc<ManualClock>, options: RequestOptions) -> Self {
		let medium = MemoryMedium::new();
		let store = open(&medium);
		let requests = open_requests(&store, &clock, &options);
		Self { medium, clock, store, requests, options }
	}

	pub fn restart(&mut self) {
		self.store = open(&self.medium);
		self.requests = open_requests(&self.store, &self.clock, &self.options);
	}

	pub fn ask(&self, ask: &Ask, effect: &mut Invoices<'_>) -> Result<String, RequestError> {
		let answer = ask.with(|request| self.requests.handle(request, effect))?;
		Ok(String::from_utf8(answer.bytes().to_vec()).unwrap())
	}

	/// Lets time pass the way it does: with a look at the clock now and then.
	pub fn pass(&self, duration: Duration) {
		let mut left = duration;
		while !left.is_zero() {
			let step = left.min(10 * MINUTE);
			self.clock.advance(step);
			left -= step;
			self.requests.sweep(0).unwrap();
		}
	}

	pub fn ledger(&self) -> usize {
		self.count("ledger")
	}

	pub fn count(&self, table: &'static str) -> usize {
		count_records(&*self.store, table)
	}
}

fn open(medium: &MemoryMedium) -> Arc<dyn Store> {
	Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap())
}

fn open_requests(
	store: &Arc<dyn Store>, clock: &Arc<ManualClock>, options: &RequestOptions,
) -> Requests {
	Requests::open(Arc::clone(store), Arc::<ManualClock>::clone(clock), options.clone()).unwrap()
}
