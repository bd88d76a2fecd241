// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What the benches share: Leyden set up for a bench, its peers, and ratios.
//!
//! Machines are noisy, and a flush costs what the disk says it costs. So every figure is a ratio of
//! two things that did the same durable work in the same run, in turn, and the median over the
//! rounds is what counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

pub mod chart;
#[cfg(feature = "engines")]
pub mod engines;
pub mod peers;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Instant;

use leyden_backends::sqlite::SqliteStore;
use leyden_id::{EventId, EventKind, Lane};
use leyden_log::{Consumer, ConsumerOptions, EventLog, LogOptions, NewEvent};
use leyden_store::{Namespace, Store, SystemClock};

/// The payload of every event, in bytes.
pub const PAYLOAD_BYTES: usize = 256;

/// Leyden on SQLite.
pub struct Leyden {
	/// The store, for its counts.
	pub store: Arc<SqliteStore>,
	/// The log.
	pub log: EventLog,
	/// Its one consumer.
	pub consumer: Consumer,
	next: AtomicU64,
}

impl Leyden {
	/// Opens or creates it at `path`. `first` is the number of the first event it appends.
	pub fn open(path: &Path, first: u64) -> Self {
		let store = Arc::new(SqliteStore::open(path, Namespace::default()).unwrap());
		let dynamic: Arc<dyn Store> = Arc::<SqliteStore>::clone(&store);
		let clock = Arc::new(SystemClock);
		let log = EventLog::open(dynamic, "bench", clock, LogOptions::default()).unwrap();
		let consumer = log.consumer("bench", ConsumerOptions::default()).unwrap();
		Self { store, log, consumer, next: AtomicU64::new(first) }
	}

	/// Appends an event, durably; takes a delivery and acks it, durably.
	pub fn append_and_ack(&self) {
		self.log.append(self.event()).unwrap();
		if let Some(delivery) = self.consumer.next_event().unwrap() {
			delivery.ack().unwrap();
		}
	}

	/// Appends this many un-acked events.
	pub fn fill(&self, count: u64) {
		for _ in 0..count / 1000 {
			self.log.append_batch((0..1000).map(|_| self.event()).collect()).unwrap();
		}
	}

	fn event(&self) -> NewEvent {
		let number = self.next.fetch_add(1, Ordering::Relaxed);
		NewEvent {
			id: id(number),
			kind: EventKind::from_static("Bench"),
			// As many lanes as a busy node has channels.
			lane: Lane::payment(*id(number % 1024).as_bytes()),
			payload: vec![number as u8; PAYLOAD_BYTES],
		}
	}
}

/// An id as scattered as a hash.
pub fn id(number: u64) -> EventId {
	let mut bytes = [0; 32];
	for (n, chunk) in bytes.chunks_mut(8).enumerate() {
		let mixed = (number ^ (n as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
		chunk.copy_from_slice(&(mixed ^ mixed >> 31).to_be_bytes());
	}
	EventId::from_bytes(bytes)
}

/// Runs `work` this many times on each of so many threads, and answers the operations per second.
pub fn rate(threads: usize, each: usize, work: &(dyn Fn(usize) + Sync)) -> f64 {
	let begun = Instant::now();
	std::thread::scope(|scope| {
		for thread in 0..threads {
			scope.spawn(move || (0..each).for_each(|_| work(thread)));
		}
	});
	(threads * each) as f64 / begun.elapsed().as_secs_f64()
}

/// Two things that do the same work, in turn; the ratio of their rates per round.
pub fn ratios(rounds: usize, a: &mut dyn FnMut() -> f64, b: &mut dyn FnMut() -> f64) -> Ratio {
	let mut rows: Vec<(f64, f64, f64)> = (0..rounds)
		.map(|_| {
			let (a, b) = (a(), b());
			(a / b, a, b)
		})
		.collect();
	rows.sort_by(|x, y| x.0.total_cmp(&y.0));
	let (median, a, b) = rows[rows.len() / 2];
	Ratio { median, lowest: rows[0].0, highest: rows[rows.len() - 1].0, a, b }
}

/// How two rates compare.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
	/// The median over the rounds.
	pub median: f64,
	/// The lowest of them.
	pub lowest: f64,
	/// The highest of them.
	pub highest: f64,
	/// The first rate in the median round, per second.
	pub a: f64,
	/// The second.
	pub b: f64,
}

impl Ratio {
	/// Prints it beside what it should be.
	pub fn print(&self, what: &str, target: &str) {
		let Self { median, lowest, highest, a, b } = self;
		println!(
			"{what:<58} {median:>8.2}x  ({lowest:.2} to {highest:.2}; {a:.0}/s and {b:.0}/s)  target {target}"
		);
	}
}

/// Whether the bench is only to show that it runs (`cargo bench -- --test`).
pub fn is_test() -> bool {
	std::env::args().any(|argument| argument == "--test")
}
