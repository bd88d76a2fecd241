// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Every engine, with Leyden in front and as it is by itself: one transaction per operation.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use leyden_backends::postgres::{PostgresOptions, PostgresStore};
use leyden_backends::redb::{RedbOptions, RedbStore};
use leyden_backends::sqlite::SqliteStore;
use leyden_store::{Batch, Key, Namespace, RecordType, Store, Table, Value};
use leyden_testkit::postgres::Server;
use redb::{Database, TableDefinition};
use tokio_postgres::Statement;

use crate::PAYLOAD_BYTES;

const QUEUE: Table = Table::new("queue");

/// A store, and how often it has flushed.
pub struct Engine {
	/// What it is called.
	pub name: &'static str,
	store: Arc<dyn Store>,
	counts: Box<dyn Fn() -> Counts + Send + Sync>,
}

/// What an engine did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
	/// Transactions.
	pub groups: u64,
	/// Flushes, where they can be counted.
	pub flushes: Option<u64>,
}

impl Engine {
	/// SQLite in this file.
	pub fn sqlite(path: &Path) -> Self {
		let store = Arc::new(SqliteStore::open(path, Namespace::default()).unwrap());
		let counted = Arc::clone(&store);
		let counts = move || {
			let stats = counted.stats();
			Counts { groups: stats.groups, flushes: Some(stats.flushes) }
		};
		Self { name: "SQLite", store, counts: Box::new(counts) }
	}

	/// redb in this file.
	pub fn redb(path: &Path, two_phase: bool) -> Self {
		let options = RedbOptions { two_phase };
		let store = Arc::new(RedbStore::open(path, Namespace::default(), options).unwrap());
		let counted = Arc::clone(&store);
		let counts =
			move || Counts { groups: counted.stats().groups, flushes: Some(counted.flushes()) };
		let name = if two_phase { "redb, two phases" } else { "redb" };
		Self { name, store, counts: Box::new(counts) }
	}

	/// PostgreSQL.
	pub fn postgres(server: &Server) -> Self {
		let options = PostgresOptions::default();
		let store = PostgresStore::open(&server.url(), Namespace::default(), options).unwrap();
		let store = Arc::new(store);
		let counted = Arc::clone(&store);
		let counts = move || Counts { groups: counted.stats().groups, flushes: None };
		Self { name: "PostgreSQL", store, counts: Box::new(counts) }
	}

	/// What it did so far.
	pub fn counts(&self) -> Counts {
		(self.counts)()
	}

	/// Appends a record, durably, and deletes it, durably.
	pub fn append_and_ack(&self) {
		let number = self.append(1).0;
		let mut batch = Batch::new();
		batch.delete(Key::numbered(QUEUE, b"", number));
		self.store.commit(batch).wait().unwrap();
	}

	/// Appends so many in one batch; the first and the last number.
	pub fn append(&self, count: u64) -> (u64, u64) {
		let mut batch = Batch::new();
		for n in 0..count {
			let value = Value::new(RecordType(0x8000), 1, vec![n as u8; PAYLOAD_BYTES]);
			let _ = batch.append(QUEUE, b"", value);
		}
		let committed = self.store.commit(batch).wait().unwrap();
		let number = |n: usize| committed.appends()[n].number().get();
		(number(0), number(count as usize - 1))
	}
}

/// redb with one transaction per operation.
pub struct OwnRedb(Database, AtomicI64);

const OWN: TableDefinition<'static, i64, &[u8]> = TableDefinition::new("queue");

impl OwnRedb {
	/// In this file.
	pub fn open(path: &Path) -> Self {
		Self(Database::create(path).unwrap(), AtomicI64::new(0))
	}

	/// Inserts a row, durably, and removes it, durably.
	pub fn append_and_ack(&self) {
		let number = self.1.fetch_add(1, Ordering::Relaxed);
		let write = self.0.begin_write().unwrap();
		let payload = [1; PAYLOAD_BYTES];
		write.open_table(OWN).unwrap().insert(number, payload.as_slice()).unwrap();
		write.commit().unwrap();
		let write = self.0.begin_write().unwrap();
		write.open_table(OWN).unwrap().remove(number).unwrap();
		write.commit().unwrap();
	}
}

/// PostgreSQL with one statement per operation, on a connection per thread.
pub struct OwnPostgres {
	runtime: tokio::runtime::Runtime,
	clients: Mutex<Vec<Connected>>,
	url: String,
}

impl OwnPostgres {
	/// On this server.
	pub fn open(server: &Server) -> Self {
		let sql = "CREATE TABLE IF NOT EXISTS own_queue (n bigserial PRIMARY KEY, payload bytea)";
		server.psql(sql);
		let mut runtime = tokio::runtime::Builder::new_multi_thread();
		let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
		Self { runtime, clients: Mutex::default(), url: server.url() }
	}

	/// Connects so many threads.
	pub fn connect(&self, threads: usize) {
		let mut clients = self.clients.lock().unwrap();
		while clients.len() < threads {
			clients.push(self.runtime.block_on(async {
				let connecting = tokio_postgres::connect(&self.url, tokio_postgres::NoTls);
				let (client, connection) = connecting.await.unwrap();
				tokio::spawn(connection);
				let insert = "INSERT INTO own_queue (payload) VALUES ($1) RETURNING n";
				let insert = client.prepare(insert).await.unwrap();
				let delete = client.prepare("DELETE FROM own_queue WHERE n = $1").await.unwrap();
				Arc::new((client, insert, delete))
			}));
		}
	}

	/// Inserts a row, durably, and deletes it, durably.
	pub fn append_and_ack(&self, thread: usize) {
		let connected = Arc::clone(&self.clients.lock().unwrap()[thread]);
		let (client, insert, delete) = &*connected;
		let payload = vec![1_u8; PAYLOAD_BYTES];
		self.runtime.block_on(async {
			let number: i64 = client.query_one(insert, &[&payload]).await.unwrap().get(0);
			client.execute(delete, &[&number]).await.unwrap();
		});
	}
}

/// A connection and its two statements.
type Connected = Arc<(tokio_postgres::Client, Statement, Statement)>;
