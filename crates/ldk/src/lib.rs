// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Leyden for LDK: everything of the workspace that names an LDK type.
//!
//! # A node's wiring
//! [`NodeWiring`] hands out everything that a node needs, in the order in which it needs it, and
//! [`LdkNode`] is the wiring at work.
//!
//! # Monitor events
//! [`MonitorBus`] goes between the `ChainMonitor` and the `ChannelManager`. What the monitors saw
//! on chain is written down before the manager sees it, and brought again until a manager that has
//! seen it is durable.
//!
//! # User events
//! [`Journal`] takes LDK's events. It writes durable events down and answers LDK at once; consumers
//! of the log handle them in their own time, and answer requests through [`HtlcResolutions`].
//!
//! # Splices
//! [`SpliceKeeper`] carries what the user asked for through restarts, until it funds the channel or
//! the user is told why not.
//!
//! # The manager on disk
//! [`ManagerPersister`] is where the manager is written, by the background processor and wherever
//! it must be durable first; its [`ManagerPersistTracker`] settles what a durable manager holds.
//!
//! # One database
//! [`LeydenKvStore`] is a Leyden store as LDK's `KVStore`. The other way round, [`KvBackedStore`] is
//! any `KVStore` as a Leyden store.
//!
//! # Not promised
//! LDK's own persistence stays what it is: persist monitors and the manager as LDK says. What this
//! crate found out about LDK on the way is in `docs/ldk-findings.md`.

mod compat;
mod consumer_teller;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(test)]
mod housekeeping_tests;
mod htlc_resolutions;
mod journal;
mod kv_backend;
mod kv_store;
#[cfg(any(feature = "log", feature = "tracing"))]
mod loggers;
mod manager_persister;
mod manager_record;
mod monitor;
mod node;
mod payer;
mod pending_appends;
mod persist_tracker;
mod splice;
mod tlv;
mod turns;

pub use htlc_resolutions::{HtlcResolution, HtlcResolutions, HtlcResolver};
pub use journal::{
	decode_event, kind_of, replay_class, EventIdentity, Journal, JournalEvent, JournalHandler,
	UnreadableEvent, EVENT_STREAM, MAX_TRACKED_EVENTS, REPLAY_CONSUMER,
};
pub use kv_backend::{KvBackedStore, KvOptions, KV_FORMAT};
pub use kv_store::{LeydenKvStore, KEYS_PER_PAGE};
#[cfg(feature = "log")]
pub use loggers::LogLogger;
#[cfg(feature = "tracing")]
pub use loggers::TracingLogger;
pub use manager_persister::ManagerPersister;
pub use monitor::{
	BusNote, GuardedPersister, GuardedStore, MonitorBus, MonitorEventKind, MonitorSet, Quarantine,
	UnackedMonitorEvent, MANAGER_CONSUMER, MONITOR_STREAM,
};
pub use node::{LdkNode, NodeWiring, SharedLogger, StartError};
pub use payer::{HeldPayment, LdkPayer, ProcessingRounds};
pub use persist_tracker::{ManagerPersistListener, ManagerPersistTracker, PendingPersist};
pub use splice::{
	channel_ref, decode_user_event, inputs_of, splice_candidates, FundingMonitors, Handling,
	LdkDriver, SpliceKeeper, SpliceWallet, UserEvent, SPLICE_FAILED,
};
