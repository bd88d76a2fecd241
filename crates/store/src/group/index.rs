// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which keys there are, for a medium that can list them and cannot scan.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use crate::committer::RawWrite;
use crate::key::{Key, KeyRange, Table};

/// The keys of some tables, in memory. A table is there as a whole or not at all.
#[derive(Debug, Default)]
pub struct KeyIndex {
	tables: HashMap<Table, BTreeSet<Vec<u8>>>,
}

impl KeyIndex {
	/// Whether the keys of this table are known.
	pub fn has(&self, table: Table) -> bool {
		self.tables.contains_key(&table)
	}

	/// Takes over all keys of a table, as the medium lists them.
	pub fn fill(&mut self, table: Table, keys: impl IntoIterator<Item = Vec<u8>>) {
		self.tables.insert(table, keys.into_iter().collect());
	}

	/// Whether there is such a record; `None` if the table's keys are not known.
	pub fn knows(&self, key: &Key) -> Option<bool> {
		self.tables.get(&key.table()).map(|keys| keys.contains(key.bytes()))
	}

	/// What [`RawRead::highest`](crate::committer::RawRead::highest) is asked for, in a table whose
	/// keys are known.
	pub fn highest(&self, table: Table, prefix: &[u8]) -> Option<u64> {
		let lowest = Key::numbered(table, prefix, 0).bytes().to_vec();
		let highest = Key::numbered(table, prefix, u64::MAX).bytes().to_vec();
		let mut keys = self.tables.get(&table)?.range(lowest..=highest).rev();
		keys.find_map(|key| Key::new(table, key.as_slice()).number(prefix))
	}

	/// The first keys of a range, in its direction, of a table whose keys are known.
	pub fn first(&self, range: &KeyRange, limit: usize) -> Vec<Key> {
		let Some(keys) = self.tables.get(&range.table()) else { return Vec::new() };
		if range.is_empty() {
			return Vec::new();
		}
		let start = Bound::Included(range.start());
		let end = range.end().map_or(Bound::Unbounded, Bound::Excluded);
		let keys = keys.range::<[u8], _>((start, end));
		let key = |key: &Vec<u8>| Key::new(range.table(), key.as_slice());
		match range.is_reversed() {
			true => keys.rev().take(limit).map(key).collect(),
			false => keys.take(limit).map(key).collect(),
		}
	}

	/// Keeps up with what was written.
	pub fn wrote(&mut self, writes: &[RawWrite]) {
		for (key, frame) in writes {
			let Some(keys) = self.tables.get_mut(&key.table()) else { continue };
			match frame {
				Some(_) => keys.insert(key.bytes().to_vec()),
				None => keys.remove(key.bytes()),
			};
		}
	}
}
