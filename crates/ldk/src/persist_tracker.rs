// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The moment at which the `ChannelManager` is durable, and what that settles.
//!
//! # The rule
//! What was handed to the manager is settled once a manager that was *encoded after* the hand-out
//! is durable, and not before. `ChannelManager::encode` takes LDK's consistency lock, and events
//! are taken and processed under it, so the bytes hold everything that was handed out before
//! `encode` was called. They hold the user's events too that the manager made of it and that were
//! not handled: LDK brings those again by itself. See `docs/adr/0004-the-ack-rule.md` for why
//! acking earlier, where upstream's design acks, loses everything when it is done from outside.
//!
//! # Two ways to tell
//! - The node's wiring hands out a [`ManagerPersister`](crate::ManagerPersister), which writes the
//!   manager for the background processor and for handlers that need it durable.
//! - A node that persists the manager by itself calls [`ManagerPersistTracker::begin`] before
//!   `encode` and [`PendingPersist::persisted`] after the write.

use std::fmt;
use std::sync::Arc;

use leyden_store::{Plan, Store, StoreError, Ticket};

/// A part that waits for the manager to be durable: the monitor bus, the tracker of replays, the
/// resolutions of HTLCs.
pub trait ManagerPersistListener: Send + Sync {
	/// Returns a mark above everything that is in the bytes of a manager that is encoded after this
	/// call. Marks only grow.
	fn mark(&self) -> u64;

	/// Returns `true` if something has come since the last mark that the next manager should hold:
	/// bytes that were encoded already may lack it, and are encoded anew.
	fn wants_newer_bytes(&self) -> bool {
		false
	}

	/// Returns the entries of the journal that LDK brings again and has not brought yet.
	fn expected(&self) -> Vec<u64> {
		Vec::new()
	}

	/// Returns the index below which LDK has let go of every un-acked entry of the journal that is
	/// not [expected](ManagerPersistListener::expected), if a manager holds everything below
	/// `mark`; `None` for a part that does not know.
	fn gone_below(&self, mark: u64) -> Option<u64> {
		let _ = mark;
		None
	}

	/// Plans what to commit now that a durable manager holds everything below `mark`; `None` if
	/// there is nothing.
	fn settle_plan(&self, mark: u64) -> Option<Plan<()>>;

	/// The plan for `mark` was committed.
	fn settled(&self, mark: u64);
}

/// Tells its listeners that the manager is durable.
#[derive(Clone)]
pub struct ManagerPersistTracker {
	store: Arc<dyn Store>,
	listeners: Arc<[Arc<dyn ManagerPersistListener>]>,
}

/// A manager that is about to be encoded. Dropped, it settles nothing.
#[must_use = "tell it when the manager is durable"]
pub struct PendingPersist {
	tracker: ManagerPersistTracker,
	marks: Marks,
}

/// The mark of each listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(Vec<u64>);

impl ManagerPersistTracker {
	/// A tracker for these listeners, all of which keep their records in `store`.
	pub fn new(
		store: Arc<dyn Store>, listeners: impl IntoIterator<Item = Arc<dyn ManagerPersistListener>>,
	) -> Self {
		Self { store, listeners: listeners.into_iter().collect() }
	}

	/// Begins to persist the manager. To be called *before* `ChannelManager::encode`.
	pub fn begin(&self) -> PendingPersist {
		PendingPersist { tracker: self.clone(), marks: self.marks() }
	}

	pub(crate) fn marks(&self) -> Marks {
		Marks(self.listeners.iter().map(|listener| listener.mark()).collect())
	}

	pub(crate) fn wants_newer_bytes(&self) -> bool {
		self.listeners.iter().any(|listener| listener.wants_newer_bytes())
	}

	pub(crate) fn expected(&self) -> Vec<u64> {
		self.listeners.iter().flat_map(|listener| listener.expected()).collect()
	}

	/// The least index below which a part says that LDK has let go of everything; 0 if none does.
	pub(crate) fn gone_below(&self, marks: &Marks) -> u64 {
		let parts = self.listeners.iter().zip(&marks.0);
		parts.filter_map(|(listener, mark)| listener.gone_below(*mark)).min().unwrap_or(0)
	}

	/// Settles, in one commit, what a durable manager holds. The commit is lazy: if a crash undoes
	/// it, the parts find out at start what the manager holds, and what is handed to a manager
	/// that has it does no harm.
	pub(crate) fn settle(&self, marks: &Marks) -> Ticket<()> {
		let due = self.listeners.iter().zip(&marks.0);
		let plans = due.clone().filter_map(|(listener, mark)| listener.settle_plan(*mark));
		let Some(plan) = plans.reduce(|a, b| a.and(b).map(|_| ())) else {
			return Ticket::ready(Ok(()));
		};
		let settled: Vec<_> = due.map(|(listener, mark)| (Arc::clone(listener), *mark)).collect();
		plan.lazily().commit(&self.store).then(move |result: Result<(), StoreError>| {
			result?;
			settled.iter().for_each(|(listener, mark)| listener.settled(*mark));
			Ok(())
		})
	}
}

impl PendingPersist {
	/// The manager, encoded since, is durable.
	///
	/// # Failure Behavior and Persistence
	/// When the ticket resolves, what the manager holds is not handed out again in this run. After
	/// a crash it may be, and does no harm. An error leaves everything un-acked: a later manager
	/// settles it.
	pub fn persisted(self) -> Ticket<()> {
		self.tracker.settle(&self.marks)
	}
}

impl fmt::Debug for ManagerPersistTracker {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "ManagerPersistTracker for {}", self.listeners.len())
	}
}

impl fmt::Debug for PendingPersist {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("PendingPersist")
	}
}
