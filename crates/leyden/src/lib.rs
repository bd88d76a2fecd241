// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

#![doc = include_str!("../README.md")]

pub mod backup;
mod builder;
pub mod migrate;
mod opening;
mod url;
pub mod verify;
mod witness;

use std::fmt;
use std::sync::Arc;

pub use builder::{LeydenBuilder, MAX_CHECKED_RECORDS};
pub use leyden_backends as backends;
pub use leyden_id as id;
pub use leyden_ldk as ldk;
pub use leyden_log as log;
pub use leyden_outbox as outbox;
pub use leyden_payout as payout;
pub use leyden_request as request;
pub use leyden_splice as splice;
pub use leyden_store as store;
pub use url::{StoreUrl, UrlError};

/// The versions of the crates whose types are in Leyden's interface.
pub use {bitcoin, lightning};

use leyden_ldk::{
	LeydenKvStore, NodeWiring, SharedLogger, SpliceKeeper, EVENT_STREAM, MONITOR_STREAM,
};
use leyden_log::{Consumer, ConsumerOptions, EventLog, LogError, LogOptions, Start};
use leyden_splice::funding::Fundings;
use leyden_splice::{SpliceDriver, SpliceError, SpliceOptions};
use leyden_store::{Clock, Store};

use verify::Verified;

/// An open store with the logs that a node needs: monitor events, and user events.
///
/// Cheap to clone; all clones are one writer.
#[derive(Clone)]
pub struct Leyden {
	store: Arc<dyn Store>,
	clock: Arc<dyn Clock>,
	monitor_log: EventLog,
	event_log: EventLog,
	checked: Option<Arc<Verified>>,
}

impl Leyden {
	/// Says where, and opens it.
	pub fn builder() -> LeydenBuilder {
		LeydenBuilder::new()
	}

	/// On a store that is open already.
	///
	/// # Errors
	/// The log's.
	///
	/// # Failure Behavior and Persistence
	/// The first time, the two logs are created. A crash in between leaves none, one or both; the
	/// next opening creates the rest.
	pub fn on(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
		let open = |stream| {
			EventLog::open(Arc::clone(&store), stream, Arc::clone(&clock), LogOptions::default())
		};
		let (monitor_log, event_log) = (open(MONITOR_STREAM)?, open(EVENT_STREAM)?);
		Ok(Self { store, clock, monitor_log, event_log, checked: None })
	}

	/// The store, for records of your own that are to be one commit with an ack.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.store
	}

	/// Returns what the check at the opening has found, if there was one: of a store that its last process
	/// has not closed (see [`check_after_crash`](LeydenBuilder::check_after_crash)).
	pub fn checked(&self) -> Option<&Verified> {
		self.checked.as_deref()
	}

	/// The store as LDK's `KVStore`, for a node that keeps everything in one database.
	pub fn kv_store(&self) -> LeydenKvStore {
		LeydenKvStore::new(Arc::clone(&self.store))
	}

	/// The log of user events.
	pub fn events(&self) -> &EventLog {
		&self.event_log
	}

	/// The log of monitor events.
	pub fn monitor_events(&self) -> &EventLog {
		&self.monitor_log
	}

	/// The wiring of an LDK node: the bus around its chain monitor, the store for its background
	/// processor, its event handler. Everything worth telling goes to `logger`.
	///
	/// See [`NodeWiring`] for the order in which a node takes these.
	pub fn node(&self, logger: SharedLogger) -> NodeWiring {
		NodeWiring::new(self.monitor_log.clone(), self.event_log.clone(), logger)
	}

	/// The keeper of splices: what the user asked for, carried through restarts. See
	/// `docs/splices.md` for the few lines that a node adds.
	///
	/// # Errors
	/// [`SpliceError::AlreadyOpen`] while another keeper of this store is in use; the store's.
	pub fn splices(
		&self, driver: impl SpliceDriver + 'static, options: SpliceOptions,
	) -> Result<SpliceKeeper, SpliceError> {
		SpliceKeeper::open(&self.event_log, Arc::clone(&self.clock), driver, options)
	}

	/// The payment records of funding transactions.
	pub fn fundings(&self) -> Fundings {
		Fundings::new(Arc::clone(&self.store))
	}

	/// A consumer of user events, by name. The same name after a restart goes on where it was.
	///
	/// # Errors
	/// The log's.
	///
	/// # Failure Behavior and Persistence
	/// A new consumer is durable when this returns; `start` counts for a new one only.
	pub fn consumer(&self, name: &str, start: Start) -> Result<Consumer, LogError> {
		self.event_log.consumer(name, ConsumerOptions { start, ..ConsumerOptions::default() })
	}
}

impl fmt::Debug for Leyden {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Leyden on {}", self.store.guarantees().name)
	}
}
