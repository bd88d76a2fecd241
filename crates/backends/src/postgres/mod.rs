// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Records in a PostgreSQL database, or in a server that speaks its protocol.
//!
//! # What is promised
//! Everything that waits while a group is written goes to the server together with the next: one
//! statement, one round trip, one transaction, `synchronous_commit=on`. The statement writes nothing
//! unless the namespace is still at our epoch, so a node that was stopped and wakes up when another
//! has taken over is [`Fenced`](StoreError::Fenced), wherever it runs. Numbers never come from an
//! SQL sequence.
//!
//! # A reply that is lost
//! Every group also moves a counter from a value that only it expects. When the reply does not come,
//! the next session moves that counter itself: if it can, the group was not written and never will
//! be, whatever is still under way in the server, and it is sent again; if it cannot, the group was
//! written. [`Indeterminate`](StoreError::Indeterminate) is left for a server that cannot be reached
//! within the [timeout](PostgresOptions::timeout).
//!
//! # Another node
//! A node that opens a namespace whose writer is still connected gets [`Locked`](StoreError::Locked):
//! that is a warning, by a lock of the session, and no more. [`PostgresOptions::take_over`] goes past
//! it. What keeps two nodes apart is the epoch.
//!
//! # What is not promised
//! Nothing that the server's operator has switched off: with `fsync` or `full_page_writes` off,
//! [`Guarantees::survives_power_loss`] is `false`. A standby that is promoted without the last
//! commits has lost them.

mod config;
mod engine;
mod errors;
mod session;
mod tls;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use leyden_store::committer::RawWrite;
use leyden_store::group::{GroupStore, Portable, Stats};
use leyden_store::{
	Batch, Committed, Epoch, Guarantees, Key, KeyRange, Namespace, Page, Record, Store, StoreError,
	Table, Ticket,
};

use config::Address;
use engine::Engine;

pub use engine::FORMAT;

/// The name of the engine, in errors, guarantees and store URLs.
const NAME: &str = "postgres";

/// How a server is used.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
	/// How long to wait for an answer, and after a lost connection for the server to be back,
	/// before a request fails. 30 seconds unless set otherwise.
	pub timeout: Duration,
	/// Open a namespace even if its writer is still connected. That writer is fenced.
	pub take_over: bool,
	/// Whom to trust instead of the system's certificate authorities: a file of PEM certificates.
	/// In a connection string: `sslrootcert`.
	pub root_certificates: Option<PathBuf>,
}

impl Default for PostgresOptions {
	fn default() -> Self {
		Self { timeout: Duration::from_secs(30), take_over: false, root_certificates: None }
	}
}

/// A [`Store`] in a PostgreSQL database.
pub struct PostgresStore {
	group: GroupStore<Engine>,
	guarantees: Guarantees,
}

impl PostgresStore {
	/// Opens `namespace` in the database that a connection string names, as libpq takes it: a URL
	/// (`postgres://user:password@host:port/database?sslmode=require`) or words
	/// (`host=/run/postgresql dbname=node`). What Leyden needs it makes in the schema `leyden`.
	///
	/// With `sslmode=require` the server's certificate is verified. With `prefer`, the default, TLS
	/// is used where the server has it, and keeps out nobody who can change what is sent.
	///
	/// # Errors
	/// [`StoreError::Unavailable`] if the server cannot be reached, [`StoreError::Invalid`] if it
	/// wants another password or the string makes no sense, [`StoreError::Locked`] if the
	/// namespace's writer is connected, [`StoreError::NotAStore`] and [`StoreError::Newer`] if what
	/// is there is not ours. No password is in any of them.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the epoch is raised: nothing that an older handle commits from then on is
	/// written. A crash before that leaves the database as it was, or one that opens.
	pub fn open(
		connection: &str, namespace: Namespace, options: PostgresOptions,
	) -> Result<Self, StoreError> {
		let address = Address::parse(connection, options.root_certificates.as_deref())?;
		let (writer, survives) = Engine::open(address, namespace, &options)?;
		Self::start(writer, survives)
	}

	/// Opens `namespace` to move its records, also if they are moving already.
	///
	/// # Errors
	/// As [`open`](PostgresStore::open).
	///
	/// # Failure Behavior and Persistence
	/// As [`open`](PostgresStore::open).
	pub fn open_to_move(
		connection: &str, namespace: Namespace, options: PostgresOptions,
	) -> Result<Self, StoreError> {
		let address = Address::parse(connection, options.root_certificates.as_deref())?;
		let (writer, survives) = Engine::open(address, namespace, &options)?;
		Ok(Self::of(GroupStore::start_to_move(writer, NAME)?, survives))
	}

	/// Opens `namespace` to be read only. Nothing is written, and the epoch stays as it is; a node
	/// that writes is not disturbed.
	///
	/// # Errors
	/// As [`open`](PostgresStore::open), but never `Locked`.
	pub fn open_read_only(
		connection: &str, namespace: Namespace, options: PostgresOptions,
	) -> Result<Self, StoreError> {
		let address = Address::parse(connection, options.root_certificates.as_deref())?;
		let (writer, survives) = Engine::open_read_only(address, namespace, &options)?;
		Self::start(writer, survives)
	}

	/// The namespaces in the database. Nothing is written.
	///
	/// # Errors
	/// As [`open_read_only`](PostgresStore::open_read_only).
	pub fn namespaces(
		connection: &str, options: PostgresOptions,
	) -> Result<Vec<Namespace>, StoreError> {
		let address = Address::parse(connection, options.root_certificates.as_deref())?;
		Engine::namespaces(address, &options)
	}

	/// The epoch of this handle; `None` if it only reads.
	pub fn epoch(&self) -> Option<Epoch> {
		self.group.epoch()
	}

	/// What was done so far.
	pub fn stats(&self) -> Stats {
		self.group.stats()
	}

	/// Makes the next group fail as if its reply were lost and the server stayed away.
	#[cfg(feature = "fault-injection")]
	pub fn fail_next_flush(&self) {
		self.group.with_medium(Engine::fail_next_write);
	}

	/// Changes the bytes of the record at `key`, the way a failing disk does.
	///
	/// # Errors
	/// The server's.
	#[cfg(feature = "fault-injection")]
	pub fn damage(
		&self, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		self.group.with_medium(|engine| engine.damage(key, change)).unwrap_or(Ok(false))
	}

	fn start(
		writer: leyden_store::group::Writer<Engine>, survives: bool,
	) -> Result<Self, StoreError> {
		Ok(Self::of(GroupStore::start(writer, NAME)?, survives))
	}

	fn of(group: GroupStore<Engine>, survives: bool) -> Self {
		let mut guarantees = Guarantees::server(NAME);
		guarantees.survives_power_loss = survives;
		Self { group, guarantees }
	}
}

impl Store for PostgresStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.group.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.group.get(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.group.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.guarantees
	}
}

impl Portable for PostgresStore {
	fn tables(&self) -> Result<Vec<Table>, StoreError> {
		self.group.tables()
	}

	fn import(&self, writes: Vec<RawWrite>) -> Result<(), StoreError> {
		self.group.import(writes)
	}
}

impl fmt::Debug for PostgresStore {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("PostgresStore").field("epoch", &self.epoch()).finish_non_exhaustive()
	}
}
