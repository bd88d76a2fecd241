// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A store in memory, for tests, and to learn from: it is the smallest backend there is.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::batch::Batch;
use crate::committed::Committed;
use crate::committer::{Committer, RawRead, RawWrite};
use crate::error::StoreError;
use crate::frame;
use crate::guarantees::Guarantees;
use crate::key::{Key, KeyRange, Namespace, Table};
use crate::page::{Page, PageBuilder};
use crate::record::{Epoch, Record};
use crate::store::Store;
use crate::ticket::Ticket;

/// What memory stores are opened on, and what is left of them when they are dropped: the "disk".
#[derive(Clone, Debug, Default)]
pub struct MemoryMedium(Arc<Mutex<Tables>>);

type Tables = BTreeMap<Namespace, BTreeMap<Key, Vec<u8>>>;

/// A [`Store`] in memory. It forgets everything when the last clone of its medium is dropped.
#[derive(Debug)]
pub struct MemoryStore {
	medium: MemoryMedium,
	namespace: Namespace,
	committer: Mutex<Committer>,
}

impl MemoryMedium {
	/// An empty medium.
	pub fn new() -> Self {
		Self::default()
	}

	/// A copy as of now; what a crash at this moment would leave.
	#[must_use]
	pub fn snapshot(&self) -> Self {
		Self(Arc::new(Mutex::new(self.0.lock().clone())))
	}

	/// Lets `damage` change the bytes at `key`, the way a failing disk does.
	pub fn damage(&self, namespace: &Namespace, key: &Key, damage: impl FnOnce(&mut Vec<u8>)) {
		if let Some(frame) = self.0.lock().get_mut(namespace).and_then(|t| t.get_mut(key)) {
			damage(frame);
		}
	}

	/// Bytes of keys and frames of all namespaces.
	pub fn size_bytes(&self) -> usize {
		let tables = self.0.lock();
		tables.values().flatten().map(|(key, frame)| key.bytes().len() + frame.len()).sum()
	}
}

impl MemoryStore {
	/// A store on a medium of its own, in the default namespace.
	///
	/// # Errors
	/// None in practice.
	pub fn new() -> Result<Self, StoreError> {
		Self::open(&MemoryMedium::new(), Namespace::default())
	}

	/// Opens `namespace` on `medium`, and fences off whoever has it open.
	///
	/// # Errors
	/// [`StoreError::Corrupt`] if the store's own records are damaged.
	pub fn open(medium: &MemoryMedium, namespace: Namespace) -> Result<Self, StoreError> {
		let mut tables = medium.0.lock();
		let records = tables.entry(namespace.clone()).or_default();
		let (committer, writes) = Committer::open(&mut Reader(records))?;
		write(records, writes);
		drop(tables);
		Ok(Self { medium: medium.clone(), namespace, committer: Mutex::new(committer) })
	}

	/// The epoch of this handle.
	pub fn epoch(&self) -> Epoch {
		self.committer.lock().epoch()
	}

	fn commit_now(&self, mut batch: Batch) -> Result<Committed, StoreError> {
		let hooks = batch.take_hooks();
		// Held until the hooks have run, so that they run in the order of commits.
		let mut committer = self.committer.lock();
		let committed = {
			let mut tables = self.medium.0.lock();
			let records = tables.entry(self.namespace.clone()).or_default();
			let mut reader = Reader(records);
			let mut group = committer.group(&mut reader)?;
			let committed = group.apply(&batch)?;
			let (writes, outcome) = group.finish()?;
			write(records, writes);
			committer.took_effect(outcome);
			committed
		};
		hooks.into_iter().for_each(|hook| hook(&committed));
		Ok(committed)
	}

	fn scan_now(&self, range: KeyRange, limit: usize) -> Result<Page, StoreError> {
		let mut page = PageBuilder::new(range.clone(), limit);
		if range.is_empty() {
			return Ok(page.build());
		}
		let start = Bound::Included(Key::new(range.table(), range.start()));
		// Tables sort before keys, so the end of the last table needs a bound of its own.
		let end = range
			.end()
			.map_or(Bound::Unbounded, |end| Bound::Excluded(Key::new(range.table(), end)));
		let tables = self.medium.0.lock();
		let Some(records) = tables.get(&self.namespace) else { return Ok(page.build()) };
		let mut found = records.range((start, end));
		loop {
			let next = if range.is_reversed() { found.next_back() } else { found.next() };
			let Some((key, frame)) = next else { break };
			if key.table() != range.table() {
				// Ascending, the table ends here; descending, it has not begun.
				if range.is_reversed() {
					continue;
				}
				break;
			}
			if page.is_full() {
				break;
			}
			page.push(key.clone(), frame::decode(key, frame)?);
		}
		Ok(page.build())
	}
}

impl Store for MemoryStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		Ticket::ready(self.commit_now(batch))
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		let tables = self.medium.0.lock();
		let frame = tables.get(&self.namespace).and_then(|records| records.get(key));
		Ticket::ready(frame.map(|frame| frame::decode(key, frame)).transpose())
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		Ticket::ready(self.scan_now(range, limit))
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		let tables = self.medium.0.lock();
		Ticket::ready(Ok(tables.get(&self.namespace).and_then(|records| records.get(key)).cloned()))
	}

	fn guarantees(&self) -> Guarantees {
		Guarantees::volatile("memory")
	}
}

struct Reader<'a>(&'a BTreeMap<Key, Vec<u8>>);

impl RawRead for Reader<'_> {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		Ok(self.0.get(key).cloned())
	}

	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		let numbers = Key::numbered(table, prefix, 0)..=Key::numbered(table, prefix, u64::MAX);
		Ok(self.0.range(numbers).rev().find_map(|(key, _)| key.number(prefix)))
	}
}

fn write(records: &mut BTreeMap<Key, Vec<u8>>, writes: Vec<RawWrite>) {
	for (key, frame) in writes {
		match frame {
			Some(frame) => records.insert(key, frame),
			None => records.remove(&key),
		};
	}
}
