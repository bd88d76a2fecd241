// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Leyden for LDK: everything of the workspace that names an LDK type.
//!
//! # Monitor events
//! [`MonitorBus`] goes between the `ChainMonitor` and the `ChannelManager`. What the monitors saw
//! on chain is written down before the manager sees it, and brought again until a manager that has
//! seen it is durable.
//!
//! # User events
//! [`Journal`] is the event handler. It writes durable events down and answers LDK at once;
//! consumers of the log handle them in their own time.
//!
//! # Splices
//! [`SpliceKeeper`] carries what the user asked for through restarts, until it funds the channel or
//! the user is told why not.
//!
//! # Claims
//! [`Claims`] claims a payment again after a crash, until LDK says that it was claimed.
//!
//! # The manager on disk
//! [`ManagerSnapshots`] is where both learn what is settled. Tell it yourself, give the background
//! processor a [`ManagerStore`], or let the journal's [barrier](Journal::with_barrier) do it.
//!
//! # One database
//! [`LeydenKvStore`] is a Leyden store as LDK's `KVStore`. The other way round, [`KvBackedStore`] is
//! any `KVStore` as a Leyden store.
//!
//! # Not promised
//! LDK's own persistence stays what it is: persist monitors and the manager as LDK says. What this
//! crate found out about LDK on the way is in `docs/ldk-findings.md`.

mod claims;
mod error;
mod journal;
mod kv_backend;
mod kv_store;
mod manager_store;
mod monitor;
mod payer;
mod snapshot;
mod splice;
mod tlv;

pub use claims::{Claiming, Claims};
pub use journal::{
	class_of, decode_event, kind_of, Identity, Journal, JournalNote, UnreadableEvent, EVENT_STREAM,
	LEDGER_CONSUMER, MAX_UNSETTLED_EVENTS,
};
pub use kv_backend::{KvBackedStore, KvOptions, KV_FORMAT};
pub use kv_store::{LeydenKvStore, KEYS_PER_PAGE};
pub use manager_store::ManagerStore;
pub use monitor::{
	BusNote, MonitorBus, MonitorEventKind, MonitorSet, Quarantine, UnackedMonitorEvent,
	MANAGER_CONSUMER, MONITOR_STREAM,
};
pub use payer::{HeldPayment, LdkPayer};
pub use snapshot::{ManagerSnapshots, SettledBySnapshot, Snapshot};
pub use splice::{
	channel_ref, decode_user_event, inputs_of, splice_candidates, FundingMonitors, Handling,
	LdkDriver, SpliceKeeper, SpliceWallet, UserEvent, SPLICE_FAILED,
};
