// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a backend promises, so that nobody has to guess.

#[cfg(doc)]
use crate::batch::MAX_BATCH_OPS;

/// How far a backend keeps a second writer of the same namespace out.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Fence {
	/// Not beyond this process.
	Process,
	/// A second process on this machine cannot open the store, or the first one is fenced.
	Machine,
	/// Every commit is conditional on the epoch, wherever the other writer runs.
	Everywhere,
}

/// What a backend promises beyond the [`Store`](crate::Store) trait's text. The conformance suite
/// checks each field that is set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Guarantees {
	/// The backend's name, for errors and reports.
	pub name: &'static str,
	/// A batch survives a loss of power once its ticket has resolved.
	pub survives_power_loss: bool,
	/// A batch survives the death of the process once its ticket has resolved.
	pub survives_process_death: bool,
	/// How far a second writer is kept out.
	pub fence: Fence,
	/// Concurrent batches share one flush.
	pub group_commit: bool,
	/// How many records one batch may write or delete: an append with an id writes two, and what the
	/// store itself must remember is a record or two more. [`MAX_BATCH_OPS`] holds as well.
	pub max_writes: usize,
	/// An older copy of the database in this one's place is noticed when the store is opened: it has a
	/// [`witness`](crate::witness).
	pub notices_old_copies: bool,
}

impl Guarantees {
	/// Guarantees of a store in memory: none that need a medium.
	pub const fn volatile(name: &'static str) -> Self {
		Self {
			name,
			survives_power_loss: false,
			survives_process_death: false,
			fence: Fence::Process,
			group_commit: false,
			max_writes: usize::MAX,
			notices_old_copies: false,
		}
	}

	/// Guarantees of an embedded engine on a local disk that flushes before it answers.
	pub const fn embedded(name: &'static str) -> Self {
		Self {
			name,
			survives_power_loss: true,
			survives_process_death: true,
			fence: Fence::Machine,
			group_commit: true,
			max_writes: usize::MAX,
			notices_old_copies: false,
		}
	}

	/// Guarantees of a database server that flushes before it answers, and refuses a writer whose
	/// epoch is old.
	pub const fn server(name: &'static str) -> Self {
		Self {
			name,
			survives_power_loss: true,
			survives_process_death: true,
			fence: Fence::Everywhere,
			group_commit: true,
			max_writes: usize::MAX,
			notices_old_copies: false,
		}
	}
}
