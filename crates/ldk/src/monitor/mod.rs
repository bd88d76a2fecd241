// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Monitor events that survive a node which dies between taking them and persisting what it made of
//! them: see [`MonitorBus`].

mod bus;
mod chain;
mod entry;
pub(crate) mod gate;
mod guarded_persister;
mod guarded_store;
mod note;
mod release;
mod state;
mod stop;
#[cfg(test)]
mod tests;
pub(crate) mod view;

#[cfg(feature = "fuzz")]
pub(crate) use entry::monitor_entry_law;

pub use bus::{MonitorBus, UnackedMonitorEvent};
pub use chain::MonitorSet;
pub use guarded_persister::GuardedPersister;
pub use guarded_store::GuardedStore;
pub use note::{BusNote, Quarantine};
pub use view::MonitorEventKind;

/// The log's stream of monitor events.
pub const MONITOR_STREAM: &str = "monitor";
/// The consumer of that stream that stands for the `ChannelManager`.
pub const MANAGER_CONSUMER: &str = "manager";
