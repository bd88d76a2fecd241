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
//! within the [tolerance](OutagePolicy::tolerance), for a lost group after which another writer has
//! come, for a database that was restored from an older copy, and for a commit that a synchronous
//! standby may not have: the server gave up waiting, and says so in a warning.
//!
//! # A server that is away
//! Requests wait for a server that cannot be reached, and go on when it is back: at any moment of a
//! commit, and when reading. The tolerance limits that, not the timeout.
//!
//! # Another node
//! A node that opens a namespace whose writer is still connected gets
//! [`Locked`](StoreError::Locked): that is a warning, by a lock of the session, and no more.
//! [`PostgresOptions::take_over`] goes past it. The epoch keeps two nodes apart.
//!
//! # What is not promised
//! The store promises nothing that the server's operator has switched off: with `fsync` or
//! `full_page_writes` off, [`Guarantees::survives_power_loss`] is `false`. A standby that is
//! promoted without the last commits has lost them.

mod config;
mod engine;
mod errors;
mod opening;
mod session;
mod sql;
mod tls;

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use leyden_store::group::{GroupStore, OutagePolicy};
use leyden_store::{Guarantees, Namespace, StoreError};

use config::Address;
use engine::Engine;

#[cfg(feature = "fuzz")]
pub(crate) use config::connection_law;
pub use engine::FORMAT;

/// How a server is used.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
	/// The time to wait for an answer before the connection counts as lost. 30 seconds unless set
	/// otherwise.
	pub timeout: Duration,
	/// The policy for a server that is away. An opening does not wait.
	pub outages: OutagePolicy,
	/// Open a namespace even if its writer is still connected. That writer is fenced.
	pub take_over: bool,
	/// Whom to trust instead of the system's certificate authorities: a file of PEM certificates.
	/// In a connection string: `sslrootcert`.
	pub root_certificates: Option<PathBuf>,
}

impl Default for PostgresOptions {
	fn default() -> Self {
		Self {
			timeout: Duration::from_secs(30),
			outages: OutagePolicy::default(),
			take_over: false,
			root_certificates: None,
		}
	}
}

/// A [`Store`](leyden_store::Store) in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore(GroupStore<Engine>);

impl PostgresStore {
	/// Opens `namespace` in the database that a connection string names, as libpq takes it: a URL
	/// (`postgres://user:password@host:port/database?sslmode=require`) or words
	/// (`host=/run/postgresql dbname=node`). `leyden_take_over=true` and `leyden_timeout_secs=N` in it
	/// count before `options`. What Leyden needs it makes in the schema `leyden`.
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
		let options = address.options(&options);
		let (writer, survives) = Engine::open(address, namespace, &options)?;
		Ok(Self(GroupStore::start(writer, guarantees(survives))?))
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
		let options = address.options(&options);
		let (writer, survives) = Engine::open(address, namespace, &options)?;
		Ok(Self(GroupStore::start_to_move(writer, guarantees(survives))?))
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
		let options = address.options(&options);
		let (writer, survives) = Engine::open_read_only(address, namespace, &options)?;
		Ok(Self(GroupStore::start(writer, guarantees(survives))?))
	}

	/// The namespaces in the database. Nothing is written.
	///
	/// # Errors
	/// As [`open_read_only`](PostgresStore::open_read_only).
	pub fn namespaces(
		connection: &str, options: PostgresOptions,
	) -> Result<Vec<Namespace>, StoreError> {
		let address = Address::parse(connection, options.root_certificates.as_deref())?;
		let options = address.options(&options);
		Engine::namespaces(address, &options)
	}

	/// Makes the next group fail as if its reply were lost and the server stayed away.
	#[cfg(feature = "fault-injection")]
	pub fn fail_next_flush(&self) {
		self.0.with_medium(Engine::fail_next_write);
	}

	/// Changes the bytes of the record at `key`, the way a failing disk does.
	///
	/// # Errors
	/// The server's.
	#[cfg(feature = "fault-injection")]
	pub fn damage(
		&self, key: &leyden_store::Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		self.0.with_medium(|engine| engine.damage(key, change)).unwrap_or(Ok(false))
	}
}

/// A server that does not flush says so.
fn guarantees(survives_power_loss: bool) -> Guarantees {
	let mut guarantees = Guarantees::server("postgres");
	guarantees.survives_power_loss = survives_power_loss;
	guarantees
}

impl Deref for PostgresStore {
	type Target = GroupStore<Engine>;

	fn deref(&self) -> &GroupStore<Engine> {
		&self.0
	}
}
