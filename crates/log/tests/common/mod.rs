//! What the tests of the log share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::Wake;

use leyden_id::{EventId, EventKind, Lane};
use leyden_log::{Appended, Consumer, ConsumerOptions, EventLog, LogOptions, NewEvent};
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store, Timestamp};

pub const STREAM: &str = "events";

/// One process with a log on a medium.
pub struct Process {
	pub store: Arc<dyn Store>,
	pub clock: Arc<ManualClock>,
	pub log: EventLog,
}

impl Process {
	pub fn new() -> Self {
		Self::on(&MemoryMedium::new())
	}

	pub fn on(medium: &MemoryMedium) -> Self {
		Self::with(medium, LogOptions::default())
	}

	pub fn with(medium: &MemoryMedium, options: LogOptions) -> Self {
		let store = MemoryStore::open(medium, Namespace::default()).unwrap();
		Self::over(Arc::new(store), Arc::new(ManualClock::new(Timestamp(1_000))), options)
	}

	pub fn over(store: Arc<dyn Store>, clock: Arc<ManualClock>, options: LogOptions) -> Self {
		let log = EventLog::open(Arc::clone(&store), STREAM, Arc::clone(&clock) as _, options);
		Self { store, clock, log: log.unwrap() }
	}

	pub fn consumer(&self, name: &str) -> Consumer {
		self.log.consumer(name, ConsumerOptions::default()).unwrap()
	}

	/// Appends an event and answers its place.
	pub fn append(&self, id: u64, lane: u8) -> u64 {
		match self.log.append(event(id, lane)).unwrap() {
			Appended::New(index) => index.get(),
			known => panic!("{known:?}"),
		}
	}
}

pub fn id(id: u64) -> EventId {
	let mut bytes = [0; 32];
	bytes[..8].copy_from_slice(&id.to_be_bytes());
	EventId::from_bytes(bytes)
}

pub fn event(number: u64, lane: u8) -> NewEvent {
	NewEvent {
		id: id(number),
		kind: EventKind::from_static("Test"),
		lane: Lane::payment([lane; 32]),
		payload: number.to_be_bytes().to_vec(),
	}
}

/// What is delivered now, without acking anything.
pub fn deliverable(consumer: &Consumer) -> Vec<u64> {
	let mut held = Vec::new();
	while let Some(delivery) = consumer.next_event().unwrap() {
		held.push(delivery);
	}
	held.iter().map(|delivery| delivery.index().get()).collect()
}

/// Acks everything there is, and answers it in order.
pub fn drain(consumer: &Consumer) -> Vec<u64> {
	let mut indices = Vec::new();
	while let Some(delivery) = consumer.next_event().unwrap() {
		indices.push(delivery.index().get());
		delivery.ack().unwrap();
	}
	indices
}

/// A waker that counts.
#[derive(Default)]
pub struct Woken(AtomicUsize);

impl Woken {
	pub fn count(&self) -> usize {
		self.0.load(Ordering::SeqCst)
	}
}

impl Wake for Woken {
	fn wake(self: Arc<Self>) {
		self.0.fetch_add(1, Ordering::SeqCst);
	}
}
