// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What an operation *would* do: a [`Plan`] is a batch and what to make of its answer.
//!
//! Protocols return plans instead of writing, so that a caller can join two of them (the ack of an
//! event and the record that the event caused) into one commit, and so that no logic is written
//! once for synchronous and once for asynchronous callers. Nothing in memory changes until the
//! commit is durable.

use std::fmt;

use crate::batch::{Batch, Durability};
use crate::committed::Committed;
use crate::error::StoreError;
use crate::store::Store;
use crate::ticket::Ticket;

type Finish<T> = Box<dyn FnOnce(&Committed) -> T + Send>;

/// A change that has not been made, and what it will answer.
#[must_use = "a plan changes nothing until it is committed"]
pub struct Plan<T> {
	batch: Batch,
	finish: Finish<T>,
}

impl<T: 'static> Plan<T> {
	/// A plan to commit `batch` and answer what `finish` makes of it.
	pub fn new(batch: Batch, finish: impl FnOnce(&Committed) -> T + Send + 'static) -> Self {
		Self { batch, finish: Box::new(finish) }
	}

	/// Makes the change.
	///
	/// # Failure Behavior and Persistence
	/// Once the ticket resolves with `Ok`, everything in the plan is durable. If the process dies
	/// before that, either all of it is durable or none. On `Err` none of it is, except for
	/// [`StoreError::Indeterminate`], when it is not known.
	pub fn commit<S: Store + ?Sized>(self, store: &S) -> Ticket<T> {
		let finish = self.finish;
		store.commit(self.batch).then(move |committed| committed.map(|c| finish(&c)))
	}

	/// Both changes as one, which is durable as a whole or not at all.
	pub fn and<U: 'static>(self, other: Plan<U>) -> Plan<(T, U)> {
		let (base, count) = (self.batch.append_count(), other.batch.append_count());
		let (first, second) = (self.finish, other.finish);
		Plan::new(self.batch.and(other.batch), move |c| {
			(first(&c.part(0, base)), second(&c.part(base, count)))
		})
	}

	/// The same change with another answer.
	pub fn map<U: 'static>(self, f: impl FnOnce(T) -> U + Send + 'static) -> Plan<U> {
		let finish = self.finish;
		Plan::new(self.batch, move |committed| f(finish(committed)))
	}

	/// Plans the same change with [`Durability::Lazy`]: a crash soon after the commit may lose it,
	/// together with everything that was committed after it.
	pub fn lazily(mut self) -> Self {
		self.batch.durability(Durability::Lazy);
		self
	}

	/// Its batch, to look at.
	pub fn batch(&self) -> &Batch {
		&self.batch
	}
}

impl Plan<()> {
	/// A plan to commit `batch`, with nothing to answer.
	pub fn of(batch: Batch) -> Self {
		Self::new(batch, |_| ())
	}

	/// As `of(batch).commit(store)`, refused if `store` refuses.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// As [`commit`](Plan::commit).
	pub fn run<S: Store + ?Sized>(self, store: &S) -> Result<(), StoreError> {
		self.commit(store).wait()
	}
}

impl<T> fmt::Debug for Plan<T> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_tuple("Plan").field(&self.batch).finish()
	}
}
