// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! When the `ChannelManager` is durable, and what that settles.
//!
//! # The rule
//! What was handed to the manager is settled once a snapshot of the manager that was *encoded
//! after* the hand-out is durable, and not before. `ChannelManager::encode` takes LDK's consistency
//! lock, and events are taken and processed under it, so a snapshot holds everything that was
//! handed out before `encode` was called. It holds the user's events too that the manager made of
//! it and that nobody has handled: LDK brings those again by itself. See
//! `docs/adr/0004-the-ack-rule.md` for why acking earlier, where upstream's design acks, loses
//! everything when it is done from outside.
//!
//! # Three ways to tell
//! - You persist the manager yourself: [`ManagerSnapshots::persist`], or
//!   [`begin`](ManagerSnapshots::begin) before `encode` and [`Snapshot::persisted`] after the
//!   write.
//! - The background processor does it: give it a [`ManagerStore`](crate::ManagerStore), which sees
//!   the write but not the moment of `encode`, and so lags by one write.
//! - A handler does it before an event counts as handled: the barrier of
//!   [`Journal`](crate::Journal::with_barrier).

use std::fmt;
use std::sync::Arc;

use leyden_store::{Plan, Store, StoreError, Ticket};
use lightning::io;

/// Something that waits for the manager to be durable: the monitor bus, the journal.
pub trait SettledBySnapshot: Send + Sync {
	/// Everything that the manager was given so far, or gave, is below this mark. Marks only grow.
	fn mark(&self) -> u64;

	/// What to commit now that a snapshot holds everything below `mark`; `None` if there is
	/// nothing.
	fn settle_plan(&self, mark: u64) -> Option<Plan<()>>;

	/// The plan for `mark` is durable.
	fn settled(&self, mark: u64);
}

/// Tells those who wait for it that the manager is durable.
#[derive(Clone)]
pub struct ManagerSnapshots {
	store: Arc<dyn Store>,
	waiting: Arc<[Arc<dyn SettledBySnapshot>]>,
}

/// A snapshot that is about to be encoded. Dropped, it settles nothing.
#[must_use = "tell it when the snapshot is durable"]
pub struct Snapshot {
	snapshots: ManagerSnapshots,
	marks: Marks,
}

/// What each of those who wait was at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(Vec<u64>);

impl ManagerSnapshots {
	/// For these, all of which keep their records in `store`.
	pub fn new(
		store: Arc<dyn Store>, waiting: impl IntoIterator<Item = Arc<dyn SettledBySnapshot>>,
	) -> Self {
		Self { store, waiting: waiting.into_iter().collect() }
	}

	/// Begins a snapshot. Call this *before* `ChannelManager::encode`.
	pub fn begin(&self) -> Snapshot {
		Snapshot { snapshots: self.clone(), marks: self.marks() }
	}

	/// Persists the manager: encodes it, writes it, settles.
	///
	/// # Errors
	/// What `write` says; the store's, as an I/O error.
	///
	/// # Failure Behavior and Persistence
	/// If the process dies before `write` is done, nothing is settled. If it dies between that and
	/// the end, what the snapshot holds is handed out again, which a manager that has it takes no
	/// harm from.
	pub fn persist(
		&self, encode: impl FnOnce() -> Vec<u8>,
		write: impl FnOnce(Vec<u8>) -> Result<(), io::Error>,
	) -> Result<(), io::Error> {
		let snapshot = self.begin();
		write(encode())?;
		snapshot.persisted().wait().map_err(crate::error::to_io)
	}

	pub(crate) fn marks(&self) -> Marks {
		Marks(self.waiting.iter().map(|w| w.mark()).collect())
	}

	/// A snapshot that holds everything below `marks` is durable: one commit settles it for all.
	pub(crate) fn settle(&self, marks: &Marks) -> Ticket<()> {
		let due = self.waiting.iter().zip(&marks.0);
		let plans = due.clone().filter_map(|(w, mark)| w.settle_plan(*mark));
		let Some(plan) = plans.reduce(|a, b| a.and(b).map(|_| ())) else {
			return Ticket::ready(Ok(()));
		};
		let settled: Vec<_> = due.map(|(w, mark)| (Arc::clone(w), *mark)).collect();
		plan.commit(&self.store).then(move |result: Result<(), StoreError>| {
			result?;
			settled.iter().for_each(|(w, mark)| w.settled(*mark));
			Ok(())
		})
	}
}

impl Snapshot {
	/// The snapshot, encoded since, is durable.
	///
	/// # Failure Behavior and Persistence
	/// When the ticket resolves, what the snapshot holds does not come again. If the process dies
	/// before, it may, and does no harm. An error leaves everything un-acked: a later snapshot
	/// settles it.
	pub fn persisted(self) -> Ticket<()> {
		self.snapshots.settle(&self.marks)
	}
}

impl fmt::Debug for ManagerSnapshots {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "ManagerSnapshots for {}", self.waiting.len())
	}
}

impl fmt::Debug for Snapshot {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Snapshot")
	}
}
