// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is to change, as one unit: a [`Batch`] is durable as a whole or not at all.

use std::collections::BTreeSet;
use std::fmt;

use crate::committed::Committed;
use crate::error::StoreError;
use crate::frame::MAX_BODY_BYTES;
use crate::key::{Key, Table, MAX_PREFIX_BYTES};
use crate::record::{Value, Version};

/// Most operations and expectations in one batch.
pub const MAX_BATCH_OPS: usize = 10_000;
/// Most bytes of keys and bodies in one batch (128 MiB).
pub const MAX_BATCH_BYTES: usize = 128 << 20;

/// What a batch requires of a record, checked against the state right before the batch.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Expectation {
	/// There is none.
	Absent,
	/// There is one.
	Present,
	/// It is as this commit left it.
	Version(Version),
}

impl Expectation {
	/// Whether `found` is what was expected.
	pub fn holds(self, found: Option<Version>) -> bool {
		match self {
			Self::Absent => found.is_none(),
			Self::Present => found.is_some(),
			Self::Version(version) => found == Some(version),
		}
	}
}

impl fmt::Display for Expectation {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Absent => f.write_str("no record"),
			Self::Present => f.write_str("a record"),
			Self::Version(version) => write!(f, "version {version}"),
		}
	}
}

/// How soon a batch must be on the medium.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Durability {
	/// May be lost in a crash, but only together with everything committed after it. For what is
	/// merely annoying to repeat.
	Lazy,
	/// On the medium before the ticket resolves.
	#[default]
	Sync,
}

/// A place in a batch whose number the store will give; see [`Batch::append`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot(usize);

impl Slot {
	/// Its place among the appends of its batch, from zero.
	pub fn index(self) -> usize {
		self.0
	}
}

/// One change. For backends; users build batches with [`Batch`]'s methods.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Op {
	/// Write a record, whether or not there is one.
	Put(Key, Value),
	/// Remove a record, if there is one.
	Delete(Key),
	/// Give the next number of the sequence `table`/`prefix` and write the record there. If `once`
	/// names a record that exists, do nothing instead: the number in it is the answer.
	Append {
		/// Table of the sequence and of the record.
		table: Table,
		/// What the key has before the number.
		prefix: Vec<u8>,
		/// The record.
		value: Value,
		/// Where the number is remembered, so that a second append of the same thing finds it.
		once: Option<Key>,
	},
	/// Take back an append: remove the record that `once` names the number of, and `once` itself.
	/// If there is no record at `once`, do nothing.
	DeleteOnce {
		/// Table of the sequence and of the record.
		table: Table,
		/// What the key has before the number.
		prefix: Vec<u8>,
		/// Where the number is remembered.
		once: Key,
	},
	/// Write a record whose key ends in the number of `slot`, unless that append did nothing.
	PutAt {
		/// The append whose number it takes.
		slot: Slot,
		/// The table.
		table: Table,
		/// What the key has before the number.
		prefix: Vec<u8>,
		/// The record.
		value: Value,
	},
}

/// Called once a batch is durable, before its ticket resolves, in the order of commits.
pub type Hook = Box<dyn FnOnce(&Committed) + Send>;

/// Changes, and what they require, that become durable together or not at all.
///
/// Expectations are checked against the state right before the batch, in one step with its writes.
/// A key may be written once in a batch.
#[derive(Default)]
#[must_use = "a batch changes nothing until it is committed"]
pub struct Batch {
	ops: Vec<Op>,
	expectations: Vec<(Key, Expectation)>,
	appends: usize,
	durability: Durability,
	hooks: Vec<Hook>,
}

impl Batch {
	/// An empty batch, [`Durability::Sync`].
	pub fn new() -> Self {
		Self::default()
	}

	/// Writes `value` at `key`, whether or not there is a record.
	pub fn put(&mut self, key: Key, value: Value) -> &mut Self {
		self.ops.push(Op::Put(key, value));
		self
	}

	/// Removes the record at `key`, if there is one.
	pub fn delete(&mut self, key: Key) -> &mut Self {
		self.ops.push(Op::Delete(key));
		self
	}

	/// Requires something of the record at `key`.
	pub fn expect(&mut self, key: Key, expectation: Expectation) -> &mut Self {
		self.expectations.push((key, expectation));
		self
	}

	/// Appends `value` to the sequence `table`/`prefix`, at [`Key::numbered`] with the next number.
	///
	/// Numbers begin at 1 and are given in the order in which batches are committed; none is ever
	/// given twice, not even after its record is deleted. [`Committed::appended`] tells the number.
	pub fn append(&mut self, table: Table, prefix: &[u8], value: Value) -> Slot {
		self.push_append(table, prefix, value, None)
	}

	/// As [`append`](Batch::append), unless there is a record at `once`: then nothing is appended,
	/// and the answer is the number that the earlier append was given. The record at `once` is
	/// written together with the append, and is a [`NumberRecord`](crate::sequence::NumberRecord).
	pub fn append_once(&mut self, table: Table, prefix: &[u8], value: Value, once: Key) -> Slot {
		self.push_append(table, prefix, value, Some(once))
	}

	/// Takes an [`append_once`](Batch::append_once) back: removes the record that was appended and
	/// the one at `once`, if they are there. The number is not given again.
	pub fn delete_once(&mut self, table: Table, prefix: &[u8], once: Key) -> &mut Self {
		self.ops.push(Op::DeleteOnce { table, prefix: prefix.to_vec(), once });
		self
	}

	/// Writes `value` at the key `table`/`prefix` followed by the number of `slot`, unless that
	/// append turned out to be known already.
	pub fn put_at(&mut self, slot: Slot, table: Table, prefix: &[u8], value: Value) -> &mut Self {
		self.ops.push(Op::PutAt { slot, table, prefix: prefix.to_vec(), value });
		self
	}

	/// How soon it must be on the medium. A merged batch takes the stricter of the two.
	pub fn durability(&mut self, durability: Durability) -> &mut Self {
		self.durability = durability;
		self
	}

	/// Calls `hook` once the batch is durable, even if nobody waits for its ticket; never, if it
	/// does not become durable.
	///
	/// Hooks run on the committing thread, in the order of commits. They must be quick, must not
	/// call the store, and must not take a lock that is held by anyone who waits for a ticket.
	pub fn after_commit(&mut self, hook: impl FnOnce(&Committed) + Send + 'static) -> &mut Self {
		self.hooks.push(Box::new(hook));
		self
	}

	/// Both batches as one. Slots of `self` stay valid; [`Plan::and`](crate::plan::Plan::and) takes
	/// care of those of `other`.
	pub fn and(mut self, other: Batch) -> Batch {
		let base = self.appends;
		self.ops.extend(other.ops.into_iter().map(|op| match op {
			Op::PutAt { slot, table, prefix, value } => {
				Op::PutAt { slot: Slot(slot.0 + base), table, prefix, value }
			},
			op => op,
		}));
		self.expectations.extend(other.expectations);
		// Each hook hears of the appends of its own batch only.
		let part = |from: usize, count: usize| {
			move |hook: Hook| -> Hook { Box::new(move |c| hook(&c.part(from, count))) }
		};
		let first = self.hooks.into_iter().map(part(0, base));
		let second = other.hooks.into_iter().map(part(base, other.appends));
		self.hooks = first.chain(second).collect();
		self.appends += other.appends;
		self.durability = self.durability.max(other.durability);
		self
	}

	/// Its changes, in order.
	pub fn ops(&self) -> &[Op] {
		&self.ops
	}

	/// What it requires.
	pub fn expectations(&self) -> &[(Key, Expectation)] {
		&self.expectations
	}

	/// Bytes of the records that it writes.
	pub fn bytes(&self) -> usize {
		let body = |op: &Op| match op {
			Op::Put(_, value) | Op::Append { value, .. } | Op::PutAt { value, .. } => {
				value.body.len()
			},
			Op::Delete(_) | Op::DeleteOnce { .. } => 0,
		};
		self.ops.iter().map(body).sum()
	}

	/// How soon it must be on the medium.
	pub fn required_durability(&self) -> Durability {
		self.durability
	}

	/// How many appends it has.
	pub fn append_count(&self) -> usize {
		self.appends
	}

	/// Whether there is nothing to do or to check.
	pub fn is_empty(&self) -> bool {
		self.ops.is_empty() && self.expectations.is_empty()
	}

	/// Takes the hooks out; a backend calls them in order once the batch is durable.
	pub fn take_hooks(&mut self) -> Vec<Hook> {
		std::mem::take(&mut self.hooks)
	}

	/// Checks everything that can be checked without looking at the store. A backend calls this
	/// first, so that no malformed batch reaches its engine.
	///
	/// # Errors
	/// [`StoreError::TooLarge`] or [`StoreError::Invalid`].
	pub fn check(&self) -> Result<(), StoreError> {
		let count = self.ops.len() + self.expectations.len();
		StoreError::limit("operations in a batch", MAX_BATCH_OPS, count)?;
		let mut bytes = 0;
		let mut written = BTreeSet::new();
		for op in &self.ops {
			let (key, value) = match op {
				Op::Put(key, value) => (Some(key), Some(value)),
				Op::Delete(key) => (Some(key), None),
				Op::DeleteOnce { prefix, once, .. } => {
					StoreError::limit("prefix bytes", MAX_PREFIX_BYTES, prefix.len())?;
					(Some(once), None)
				},
				Op::Append { prefix, value, once, .. } => {
					StoreError::limit("prefix bytes", MAX_PREFIX_BYTES, prefix.len())?;
					if let Some(key) = once {
						key.check()?;
						bytes += key.bytes().len();
					}
					(None, Some(value))
				},
				Op::PutAt { prefix, value, .. } => {
					StoreError::limit("prefix bytes", MAX_PREFIX_BYTES, prefix.len())?;
					(None, Some(value))
				},
			};
			if let Some(key) = key {
				key.check()?;
				bytes += key.bytes().len();
				// Most batches have one operation: don't allocate for those.
				if self.ops.len() > 1 && !written.insert(key) {
					return Err(StoreError::invalid(format!(
						"{key} is written twice in one batch"
					)));
				}
			}
			if let Some(value) = value {
				StoreError::limit("record bytes", MAX_BODY_BYTES, value.body.len())?;
				bytes += value.body.len();
			}
		}
		self.expectations.iter().try_for_each(|(key, _)| key.check())?;
		StoreError::limit("bytes in a batch", MAX_BATCH_BYTES, bytes)
	}

	fn push_append(
		&mut self, table: Table, prefix: &[u8], value: Value, once: Option<Key>,
	) -> Slot {
		let slot = Slot(self.appends);
		self.appends += 1;
		self.ops.push(Op::Append { table, prefix: prefix.to_vec(), value, once });
		slot
	}
}

impl fmt::Debug for Batch {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("Batch")
			.field("ops", &self.ops)
			.field("expectations", &self.expectations)
			.field("durability", &self.durability)
			.finish_non_exhaustive()
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::key::MAX_KEY_BYTES;
	use crate::record::RecordType;

	const T: Table = Table::new("t");

	fn value(bytes: usize) -> Value {
		Value::new(RecordType(0x8000), 1, vec![0; bytes])
	}

	#[test]
	fn malformed_batches_are_refused_before_any_engine_sees_them() {
		let mut twice = Batch::new();
		twice.put(Key::new(T, *b"k"), value(0)).delete(Key::new(T, *b"k"));
		assert!(matches!(twice.check(), Err(StoreError::Invalid { .. })));

		let mut empty = Batch::new();
		empty.put(Key::new(T, *b""), value(0));
		assert!(matches!(empty.check(), Err(StoreError::Invalid { .. })));

		let mut long = Batch::new();
		long.delete(Key::new(T, vec![0; MAX_KEY_BYTES + 1]));
		assert!(matches!(long.check(), Err(StoreError::TooLarge { what: "key bytes", .. })));

		let mut prefix = Batch::new();
		let _ = prefix.append(T, &[0; MAX_PREFIX_BYTES + 1], value(0));
		assert!(matches!(prefix.check(), Err(StoreError::TooLarge { what: "prefix bytes", .. })));

		let mut many = Batch::new();
		(0..=MAX_BATCH_OPS as u64).for_each(|n| {
			many.delete(Key::numbered(T, b"", n));
		});
		assert!(matches!(many.check(), Err(StoreError::TooLarge { .. })));
	}

	#[test]
	fn a_merged_batch_keeps_its_slots_and_the_stricter_durability() {
		let (mut a, mut b) = (Batch::new(), Batch::new());
		let _ = a.append(T, b"a", value(1));
		a.durability(Durability::Lazy);
		let slot = b.append(T, b"b", value(1));
		b.put_at(slot, T, b"c", value(1));
		let both = a.and(b);
		assert_eq!(both.append_count(), 2);
		assert_eq!(both.required_durability(), Durability::Sync);
		assert!(matches!(both.ops().last(), Some(Op::PutAt { slot: Slot(1), .. })));
	}
}
