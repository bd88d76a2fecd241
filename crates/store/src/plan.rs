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

	/// A plan that changes nothing, for a place where one is wanted. It asks for no flush.
	pub fn nothing() -> Self {
		Self::of(Batch::new()).lazily()
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

impl<T: 'static> Plan<Vec<T>> {
	/// All of these changes as one, which is durable as a whole or not at all, with their answers in
	/// the same order. Of none of them, it changes nothing. It is lazy if all of them are.
	///
	/// It is meant for some dozens of plans: the hooks of each are wrapped once for every plan behind it.
	pub fn all(plans: impl IntoIterator<Item = Plan<T>>) -> Self {
		let mut whole = Batch::new();
		whole.durability(Durability::Lazy);
		let mut parts = Vec::new();
		for Plan { batch, finish } in plans {
			let (base, count) = (whole.append_count(), batch.append_count());
			whole = whole.and(batch);
			parts.push((base, count, finish));
		}
		Plan::new(whole, move |committed| {
			let part = |(base, count, finish): (usize, usize, Finish<T>)| {
				finish(&committed.part(base, count))
			};
			parts.into_iter().map(part).collect()
		})
	}
}

impl From<Batch> for Plan<()> {
	fn from(batch: Batch) -> Self {
		Self::of(batch)
	}
}

impl<T> fmt::Debug for Plan<T> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_tuple("Plan").field(&self.batch).finish()
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::{Appended, Key, MemoryStore, RecordType, Table, Value};

	fn value() -> Value {
		Value::new(RecordType(0x8000), 1, vec![1])
	}

	/// A plan with an append, and with another one if `two`; it answers the last number.
	fn append(two: bool) -> Plan<u64> {
		let mut batch = Batch::new();
		for _ in 0..1 + u32::from(two) {
			let _ = batch.append(Table::new("t"), b"", value());
		}
		Plan::new(batch, |committed| match committed.appends().last() {
			Some(Appended::New(number) | Appended::Known(number)) => number.get(),
			None => 0,
		})
	}

	#[test]
	fn all_plans_are_one_commit_and_each_has_its_answer() {
		let store = MemoryStore::new().unwrap();
		let plan = Plan::all([append(false), append(true), append(false)]);
		assert_eq!(plan.commit(&store).wait().unwrap(), [1, 3, 4]);
		let mut refused = Batch::new();
		refused.expect(Key::new(Table::new("t"), *b"k"), crate::Expectation::Present);
		let refused = Plan::new(refused, |_| 0);
		assert!(Plan::all([append(false), refused]).commit(&store).wait().is_err());
		assert_eq!(append(false).commit(&store).wait().unwrap(), 5, "nothing was appended");
	}

	#[test]
	fn nothing_changes_nothing() {
		let store = MemoryStore::new().unwrap();
		Plan::nothing().run(&store).unwrap();
		let durability = |plan: &Plan<Vec<()>>| plan.batch().required_durability();
		let (lazy, sync) = (Plan::nothing, || Plan::of(Batch::new()));
		assert_eq!(durability(&Plan::all([lazy(), lazy()])), Durability::Lazy);
		assert_eq!(durability(&Plan::all([lazy(), sync()])), Durability::Sync);
		assert_eq!(Plan::<Vec<()>>::all([]).commit(&store).wait().unwrap(), []);
		let mut batch = Batch::new();
		batch.put(Key::new(Table::new("t"), *b"k"), value());
		let plan: Plan<()> = batch.into();
		plan.and(Plan::nothing()).commit(&store).wait().unwrap();
		assert!(store.get(&Key::new(Table::new("t"), *b"k")).wait().unwrap().is_some());
	}
}
