//! A node that owes callbacks, and can be restarted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

use std::sync::Arc;
use std::time::Duration;

use leyden_outbox::{
	CallbackId, Claim, Deadline, EndpointOptions, Enqueued, NewCallback, Outbox, OutboxOptions,
	TryOutcome, Verdict,
};
use leyden_store::{
	Batch, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, RecordType, Store,
	StoreClock, Table, Timestamp, Value,
};
use leyden_testkit::count_records;

pub const LEDGER: Table = Table::new("ledger");
pub const LSP: &str = "lsp";
pub const HEIGHT: u32 = 800_000;
pub const MINUTE: Duration = Duration::from_secs(60);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub struct Node {
	pub medium: MemoryMedium,
	pub clock: Arc<ManualClock>,
	pub store: Arc<dyn Store>,
	pub outbox: Outbox,
	pub options: OutboxOptions,
}

impl Node {
	pub fn new() -> Self {
		Self::with(OutboxOptions::default())
	}

	pub fn with(options: OutboxOptions) -> Self {
		let medium = MemoryMedium::new();
		let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
		Self::on(medium, clock, options)
	}

	pub fn on(medium: MemoryMedium, clock: Arc<ManualClock>, options: OutboxOptions) -> Self {
		let store = open(&medium);
		let outbox = open_outbox(&store, &clock, &options);
		Self { medium, clock, store, outbox, options }
	}

	pub fn restart(&mut self) {
		self.store = open(&self.medium);
		self.outbox = open_outbox(&self.store, &self.clock, &self.options);
	}

	pub fn enqueue(&self, about: &str) -> Enqueued {
		self.enqueue_new(callback("claimable", about))
	}

	pub fn enqueue_new(&self, new: NewCallback) -> Enqueued {
		self.outbox.enqueue(new).unwrap().commit(&*self.store).wait().unwrap()
	}

	pub fn claim(&self) -> Option<Claim> {
		self.outbox.claim(HEIGHT).unwrap()
	}

	/// Returns the time that pauses go by.
	pub fn running(&self) -> Timestamp {
		let clock = Arc::<ManualClock>::clone(&self.clock);
		StoreClock::open(&self.store, clock).unwrap().look().running
	}

	/// What is claimed next, as text; it is left claimed.
	pub fn next(&self) -> Option<(String, Claim)> {
		self.claim().map(|claim| (text(&claim), claim))
	}

	/// Sends everything that can be sent now, and tells what was sent.
	pub fn send_all(&self) -> Vec<String> {
		let mut sent = Vec::new();
		while let Some((text, claim)) = self.next() {
			sent.push(text);
			claim.settle(Verdict::Done, TryOutcome::Taken, "").unwrap();
		}
		sent
	}

	pub fn count(&self, table: &'static str) -> usize {
		count_records(&*self.store, table)
	}
}

pub fn callback(kind: &str, about: &str) -> NewCallback {
	let id = CallbackId::new(kind, about.as_bytes(), 0);
	NewCallback::new(id, kind, LSP, about, format!("{kind} {about}")).unwrap()
}

pub fn until(about: &str, height: u32) -> NewCallback {
	callback("claimable", about).with_deadline(Deadline::at_height(height))
}

pub fn text(claim: &Claim) -> String {
	String::from_utf8(claim.callback().payload().to_vec()).unwrap()
}

/// A record of the ledger, as the cause of a callback.
pub fn ledger(name: &str) -> Plan<()> {
	let mut batch = Batch::new();
	batch.put(Key::new(LEDGER, name.as_bytes()), Value::new(RecordType(0x8000), 1, name));
	Plan::of(batch)
}

pub fn open(medium: &MemoryMedium) -> Arc<dyn Store> {
	Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap())
}

pub fn open_outbox(
	store: &Arc<dyn Store>, clock: &Arc<ManualClock>, options: &OutboxOptions,
) -> Outbox {
	let clock = Arc::<ManualClock>::clone(clock);
	let outbox = Outbox::open(Arc::clone(store), clock, options.clone()).unwrap();
	outbox.add_endpoint(LSP, EndpointOptions::default()).unwrap();
	outbox
}
