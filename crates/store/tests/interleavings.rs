//! The commit thread, who helps it, and tickets, in many orders of their steps: nobody waits for ever,
//! nothing is done twice or not at all, and the order of commits is the order of the calls.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p leyden-store --test interleavings --target-dir
//! target/shuttle`

#![cfg(shuttle)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use leyden_store::committer::{Committer, RawRead, RawWrite};
use leyden_store::group::{Beside, GroupStore, Medium, Writer};
use leyden_store::page::PageBuilder;
use leyden_store::{
	Batch, Durability, Guarantees, Key, KeyRange, RecordType, Store, StoreError, Table, Value,
};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

const T: Table = Table::new("t");

/// Orders that are tried. Each test takes some seconds.
const ORDERS: usize = 3_000;

/// Memory that yields in the middle of a write, as a disk does.
#[derive(Default)]
struct Memory {
	records: Arc<Mutex<BTreeMap<Key, Vec<u8>>>>,
	groups: u64,
}

impl RawRead for Memory {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		thread::yield_now();
		Ok(self.records.lock().unwrap().get(key).cloned())
	}

	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		let numbers = Key::numbered(table, prefix, 0)..=Key::numbered(table, prefix, u64::MAX);
		let records = self.records.lock().unwrap();
		Ok(records.range(numbers).rev().find_map(|(key, _)| key.number(prefix)))
	}
}

impl Medium for Memory {
	fn scan(&mut self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError> {
		for (key, frame) in &*self.records.lock().unwrap() {
			if key.table() == range.table() && !page.is_full() {
				page.push_frame(key.clone(), frame)?;
			}
		}
		Ok(())
	}

	fn write(&mut self, writes: Vec<RawWrite>, _: Durability) -> Result<(), StoreError> {
		thread::yield_now();
		self.groups += 1;
		let mut records = self.records.lock().unwrap();
		for (key, frame) in writes {
			match frame {
				Some(frame) => records.insert(key, frame),
				None => records.remove(&key),
			};
		}
		Ok(())
	}

	fn beside(&self) -> Option<Beside<Self>> {
		let records = Arc::clone(&self.records);
		Some(Box::new(move || Ok(Self { records: Arc::clone(&records), groups: 0 })))
	}
}

fn open() -> Arc<GroupStore<Memory>> {
	let mut memory = Memory::default();
	let (committer, writes) = Committer::open(&mut memory).unwrap();
	memory.write(writes, Durability::Sync).unwrap();
	Arc::new(
		GroupStore::start(Writer::new(memory, committer, "memory"), Guarantees::volatile("test"))
			.unwrap(),
	)
}

fn append(text: &str) -> Batch {
	let mut batch = Batch::new();
	let _ = batch.append(T, b"", Value::new(RecordType(0x8000), 1, text.as_bytes()));
	batch
}

/// Wakes a thread that waits by polling.
#[derive(Default)]
struct Bell {
	rung: Mutex<bool>,
	changed: Condvar,
}

impl Wake for Bell {
	fn wake(self: Arc<Self>) {
		*self.rung.lock().unwrap() = true;
		self.changed.notify_all();
	}
}

fn poll<T>(ticket: leyden_store::Ticket<T>) -> Result<T, StoreError> {
	let bell = Arc::new(Bell::default());
	let waker = Waker::from(Arc::clone(&bell));
	let mut ticket = pin!(ticket);
	loop {
		if let Poll::Ready(answer) = ticket.as_mut().poll(&mut Context::from_waker(&waker)) {
			return answer;
		}
		let mut rung = bell.rung.lock().unwrap();
		while !*rung {
			rung = bell.changed.wait(rung).unwrap();
		}
		*rung = false;
	}
}

/// Some wait, some poll, some drop their tickets; all of it is committed, once, each thread's in its
/// own order.
fn scenario() {
	let store = open();
	let threads: Vec<_> = (0..3)
		.map(|thread| {
			let store = Arc::clone(&store);
			thread::spawn(move || {
				let mut last = 0;
				for n in 0..2 {
					let ticket = store.commit(append(&format!("{thread}{n}")));
					let committed = match (thread + n) % 3 {
						0 => ticket.wait(),
						1 => poll(ticket),
						_ => {
							drop(ticket);
							continue;
						},
					};
					let number = committed.unwrap().appends()[0].number().get();
					assert!(number > last);
					last = number;
				}
			})
		})
		.collect();
	threads.into_iter().for_each(|thread| thread.join().unwrap());
	// What was dropped is done when the store is closed, and before a read that comes later.
	let page = store.scan(KeyRange::all(T), 100).wait().unwrap();
	let mut bodies: Vec<String> = page
		.records
		.into_iter()
		.map(|(_, record)| String::from_utf8(record.value.body).unwrap())
		.collect();
	for thread in 0..3 {
		let of = |text: &String| text.starts_with(&thread.to_string());
		let own: Vec<&String> = bodies.iter().filter(|text| of(text)).collect();
		assert!(own.windows(2).all(|two| two[0] < two[1]), "{own:?}");
	}
	drop(store);
	bodies.sort();
	bodies.dedup();
	assert!(bodies.len() >= 4, "{bodies:?}");
}

/// Tickets outlive the store, and are answered.
fn closing() {
	let store = open();
	let tickets: Vec<_> = (0..3).map(|n| store.commit(append(&n.to_string()))).collect();
	let closer = thread::spawn(move || drop(store));
	for ticket in tickets {
		ticket.wait().unwrap();
	}
	closer.join().unwrap();
}

/// Some wait for reads, some poll them, some drop them, while others commit. Each read is answered,
/// and shows at least what was durable when it was asked for, and no less than one before.
fn reading() {
	let store = open();
	let threads: Vec<_> = (0..3)
		.map(|thread| {
			let store = Arc::clone(&store);
			thread::spawn(move || {
				let mut least = 0;
				for n in 0..2 {
					if thread == 0 {
						store.commit(append(&n.to_string())).wait().unwrap();
						least += 1;
					}
					let read = store.scan(KeyRange::all(T), 100);
					let page = match (thread + n) % 3 {
						0 => read.wait(),
						1 => poll(read),
						_ => {
							drop(read);
							store.scan(KeyRange::all(T), 100).wait()
						},
					};
					let found = page.unwrap().records.len();
					assert!(found >= least, "{found} records, after {least}");
					least = found;
				}
			})
		})
		.collect();
	threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A read is answered, or told that the store is closed, if that happens at the same time.
fn reading_while_closing() {
	let store = open();
	store.commit(append("one")).wait().unwrap();
	let reads: Vec<_> = (0..3).map(|_| store.scan(KeyRange::all(T), 100)).collect();
	let closer = thread::spawn(move || drop(store));
	let readers: Vec<_> =
		reads.into_iter().map(|read| thread::spawn(move || read.wait())).collect();
	for reader in readers {
		match reader.join().unwrap() {
			Ok(page) => assert_eq!(page.records.len(), 1),
			Err(error) => assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}"),
		}
	}
	closer.join().unwrap();
}

#[test]
fn reads_beside_commits_are_answered_and_never_go_back() {
	shuttle::check_random(reading, ORDERS);
	shuttle::check_pct(reading, ORDERS, 3);
}

#[test]
fn reads_of_a_store_that_closes_are_answered() {
	shuttle::check_random(reading_while_closing, ORDERS);
	shuttle::check_pct(reading_while_closing, ORDERS, 3);
}

#[test]
fn nobody_waits_for_ever_in_a_random_order() {
	shuttle::check_random(scenario, ORDERS);
}

/// Orders with few changes between threads, where rare ones are likelier.
#[test]
fn nobody_waits_for_ever_in_an_order_with_few_changes() {
	shuttle::check_pct(scenario, ORDERS, 3);
}

#[test]
fn a_store_that_closes_answers_everybody() {
	shuttle::check_random(closing, ORDERS);
	shuttle::check_pct(closing, ORDERS, 3);
}
