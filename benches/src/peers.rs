// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What others do for the same promise.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use rusqlite::{params, Connection};

use crate::{id, PAYLOAD_BYTES};

/// A queue in SQLite as one writes it by hand: a row per event, one transaction to insert it and
/// one to delete it, with the settings that Leyden uses. Shared by threads behind a mutex.
pub struct HandWritten(Mutex<(Connection, u64)>);

impl HandWritten {
	/// Opens it at `path`.
	pub fn open(path: &Path) -> Self {
		let connection = connect(path, true);
		connection
			.execute_batch(
				"CREATE TABLE events (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, payload BLOB)",
			)
			.unwrap();
		Self(Mutex::new((connection, 0)))
	}

	/// Inserts an event, durably, and deletes the oldest, durably.
	pub fn append_and_ack(&self) {
		let number = {
			let mut shared = self.0.lock().unwrap();
			shared.1 += 1;
			let (connection, number) = &*shared;
			let mut insert = connection
				.prepare_cached("INSERT INTO events (n, id, payload) VALUES (?1, ?2, ?3)")
				.unwrap();
			let payload = vec![*number as u8; PAYLOAD_BYTES];
			insert.execute(params![*number as i64, id(*number).as_bytes(), payload]).unwrap();
			*number
		};
		let shared = self.0.lock().unwrap();
		let mut delete = shared.0.prepare_cached("DELETE FROM events WHERE n = ?1").unwrap();
		delete.execute(params![number as i64]).unwrap();
	}
}

/// How ldk-node's event queue works today: all of it under one key, written again at every append
/// and every ack, in SQLite with its default settings.
pub struct WholeQueue {
	connection: Connection,
	queue: VecDeque<Vec<u8>>,
}

impl WholeQueue {
	/// Opens it at `path`, with so many events in it.
	pub fn open(path: &Path, backlog: usize) -> Self {
		let connection = connect(path, false);
		connection.execute_batch("CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB)").unwrap();
		let queue = (0..backlog).map(|n| vec![n as u8; PAYLOAD_BYTES]).collect();
		let queue = Self { connection, queue };
		queue.write();
		queue
	}

	/// Appends an event, durably, and removes the oldest, durably.
	pub fn append_and_ack(&mut self) {
		self.queue.push_back(vec![1; PAYLOAD_BYTES]);
		self.write();
		self.queue.pop_front();
		self.write();
	}

	fn write(&self) {
		let mut bytes = Vec::with_capacity(self.queue.len() * (PAYLOAD_BYTES + 8));
		for event in &self.queue {
			bytes.extend_from_slice(&(event.len() as u64).to_be_bytes());
			bytes.extend_from_slice(event);
		}
		let mut put = self
			.connection
			.prepare_cached("INSERT OR REPLACE INTO kv VALUES ('events', ?1)")
			.unwrap();
		put.execute(params![bytes]).unwrap();
	}
}

fn connect(path: &Path, as_leyden: bool) -> Connection {
	let connection = Connection::open(path).unwrap();
	let set = |name: &str, value: &str| {
		connection.pragma_update_and_check(None, name, value, |_| Ok(())).unwrap();
	};
	if as_leyden {
		set("locking_mode", "EXCLUSIVE");
		set("journal_mode", "WAL");
		connection.pragma_update(None, "synchronous", "FULL").unwrap();
		connection.pragma_update(None, "wal_autocheckpoint", 4000).unwrap();
		connection.pragma_update(None, "cache_size", -16_384).unwrap();
	}
	connection
}
