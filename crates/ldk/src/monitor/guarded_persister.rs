// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A persister of monitors that never gets ahead of the bus.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::ln::types::ChannelId;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::util::persist::MonitorName;

use super::gate::{Gate, MayPersist};

/// A `Persist` around the node's own, for the `ChainMonitor`: LDK's background processor reaches the
/// chain monitor past the bus (`flush`, `archive_fully_resolved_channel_monitors`), and this is
/// where that ends up.
///
/// The persister below must answer `Completed`. One that works in the background goes through a
/// `KVStore`: guard that with [`NodeWiring::monitor_store`](crate::NodeWiring::monitor_store).
///
/// # Failure Behavior and Persistence
/// That of the persister below, with these exceptions. A monitor that a *block* wants persisted, while
/// events of monitors are not in the log yet, is left as it is on disk (`InProgress`): it is brought
/// up from the chain after a crash, as one whose block LDK did not persist at all. A monitor is not
/// archived while events wait for a durable manager: it is loaded again at the next start, and
/// archived later. If the events cannot be logged, an update is refused with
/// `UnrecoverableError`, on which LDK stops the node.
pub struct GuardedPersister<P> {
	persister: P,
	gate: Arc<Gate>,
}

impl<P> GuardedPersister<P> {
	pub(crate) fn new(persister: P, gate: Arc<Gate>) -> Self {
		gate.guards_persister();
		Self { persister, gate }
	}
}

impl<S, P> Persist<S> for GuardedPersister<P>
where
	S: EcdsaChannelSigner,
	P: Deref,
	P::Target: Persist<S>,
{
	fn persist_new_channel(
		&self, name: MonitorName, monitor: &ChannelMonitor<S>,
	) -> ChannelMonitorUpdateStatus {
		let _persisting = self.gate.persist_new();
		self.persister.persist_new_channel(name, monitor)
	}

	fn update_persisted_channel(
		&self, name: MonitorName, update: Option<&ChannelMonitorUpdate>,
		monitor: &ChannelMonitor<S>,
	) -> ChannelMonitorUpdateStatus {
		match self.gate.persist(update.is_none()) {
			MayPersist::Now(_persisting) => {
				self.persister.update_persisted_channel(name, update, monitor)
			},
			MayPersist::LeaveOut => ChannelMonitorUpdateStatus::InProgress,
			MayPersist::Refuse => ChannelMonitorUpdateStatus::UnrecoverableError,
		}
	}

	fn archive_persisted_channel(&self, name: MonitorName) {
		if self.gate.may_archive() {
			self.persister.archive_persisted_channel(name);
		}
	}

	fn get_and_clear_completed_updates(&self) -> Vec<(ChannelId, u64)> {
		self.persister.get_and_clear_completed_updates()
	}
}

impl<P> fmt::Debug for GuardedPersister<P> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("GuardedPersister")
	}
}
