// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which number an append gets, without a counter that is written at every append.
//!
//! The last number given is the highest that a record has, or the sequence's *floor* if that is
//! higher. The floor is written when a sequence begins and when a record above it is deleted, which
//! is seldom: whoever trims does it from below. So a number is never given twice, and an append
//! costs one write.

use std::collections::HashMap;
use std::num::NonZeroU64;

use super::{read_number, write_number, RawRead, RawWrite, INTERNAL_TABLE};
use crate::error::StoreError;
use crate::key::{Key, Table};
use crate::record::Version;

/// How many sequences are kept in memory. Others are read again.
pub const MAX_CACHED_SEQUENCES: usize = 1024;

/// What is known of the sequences of a namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
	/// By the key of the floor.
	sequences: HashMap<Key, Sequence>,
	/// Whether a table has any sequence. There are as many tables as the code names.
	tables: HashMap<Table, bool>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
	/// The last number given.
	last: u64,
	/// What its record says.
	floor: u64,
	/// Whether the record must be written.
	raise: bool,
}

impl Numbers {
	/// Takes over what a group found and did.
	pub(super) fn extend(&mut self, changed: Numbers) {
		if self.sequences.len() + changed.sequences.len() > MAX_CACHED_SEQUENCES {
			self.sequences.clear();
		}
		self.sequences.extend(changed.sequences);
		self.tables.extend(changed.tables);
	}
}

/// The numbers of one group: what it found and did, over what was known.
pub(super) struct Giver<'a> {
	known: &'a Numbers,
	changed: Numbers,
}

impl<'a> Giver<'a> {
	pub(super) fn over(known: &'a Numbers) -> Self {
		Self { known, changed: Numbers::default() }
	}

	/// The last number given of this sequence; 0 if there is none.
	pub(super) fn last(
		&mut self, reader: &mut dyn RawRead, table: Table, prefix: &[u8],
	) -> Result<u64, StoreError> {
		let key = sequence_key(table, prefix);
		if !self.has_sequences(reader, table)? {
			// What was put there by hand counts.
			return reader.highest(table, prefix).map(|highest| highest.unwrap_or(0));
		}
		match self.sequence(reader, key, table, prefix)? {
			Some(sequence) => Ok(sequence.last),
			None => reader.highest(table, prefix).map(|highest| highest.unwrap_or(0)),
		}
	}

	/// The sequence that a record at `key` may belong to, and its number. Loads what
	/// [`put`](Giver::put) and [`deleted`](Giver::deleted) need.
	pub(super) fn find(
		&mut self, reader: &mut dyn RawRead, key: &Key,
	) -> Result<Option<(Key, u64)>, StoreError> {
		if !self.has_sequences(reader, key.table())? {
			return Ok(None);
		}
		let Some((prefix, number)) = key.bytes().split_last_chunk::<8>() else { return Ok(None) };
		let sequence = sequence_key(key.table(), prefix);
		let known = self.sequence(reader, sequence.clone(), key.table(), prefix)?;
		Ok(known.map(|_| (sequence, u64::from_be_bytes(*number))))
	}

	/// An append was given this number.
	pub(super) fn gave(&mut self, table: Table, prefix: &[u8], number: NonZeroU64) {
		self.changed.tables.insert(table, true);
		let key = sequence_key(table, prefix);
		// A sequence that is not known begins here, and its record says so.
		let begins = Sequence { last: 0, floor: 0, raise: true };
		let sequence = self.get(&key).unwrap_or(begins);
		let sequence = Sequence { last: number.get(), ..sequence };
		self.changed.sequences.insert(key, sequence);
	}

	/// A record was put at a number of its own choice.
	pub(super) fn put(&mut self, key: &Key, number: u64) {
		if let Some(sequence) = self.get(key).filter(|sequence| number > sequence.last) {
			self.changed.sequences.insert(key.clone(), Sequence { last: number, ..sequence });
		}
	}

	/// A record was deleted.
	pub(super) fn deleted(&mut self, key: &Key, number: u64) {
		if let Some(sequence) = self.get(key).filter(|sequence| number > sequence.floor) {
			self.changed.sequences.insert(key.clone(), Sequence { raise: true, ..sequence });
		}
	}

	/// The records to write, and what to take over when they are durable.
	pub(super) fn finish(
		mut self, version: Version,
	) -> Result<(Vec<RawWrite>, Numbers), StoreError> {
		let mut writes = Vec::new();
		for (key, sequence) in &mut self.changed.sequences {
			if std::mem::take(&mut sequence.raise) {
				writes.push(write_number(key.clone(), version, sequence.last)?);
				sequence.floor = sequence.last;
			}
		}
		for (table, has) in &self.changed.tables {
			if *has && self.known.tables.get(table) != Some(&true) {
				writes.push(write_number(table_key(*table), version, 1)?);
			}
		}
		Ok((writes, self.changed))
	}

	fn get(&self, key: &Key) -> Option<Sequence> {
		self.changed.sequences.get(key).or_else(|| self.known.sequences.get(key)).copied()
	}

	fn has_sequences(
		&mut self, reader: &mut dyn RawRead, table: Table,
	) -> Result<bool, StoreError> {
		let known = self.changed.tables.get(&table).or_else(|| self.known.tables.get(&table));
		if let Some(has) = known {
			return Ok(*has);
		}
		let has = read_number(reader, &table_key(table))?.is_some();
		self.changed.tables.insert(table, has);
		Ok(has)
	}

	fn sequence(
		&mut self, reader: &mut dyn RawRead, key: Key, table: Table, prefix: &[u8],
	) -> Result<Option<Sequence>, StoreError> {
		if let Some(sequence) = self.get(&key) {
			return Ok(Some(sequence));
		}
		let Some(floor) = read_number(reader, &key)? else { return Ok(None) };
		let floor = floor.get();
		let last = reader.highest(table, prefix)?.unwrap_or(0).max(floor);
		let sequence = Sequence { last, floor, raise: false };
		self.changed.sequences.insert(key, sequence);
		Ok(Some(sequence))
	}
}

/// Where the floor of a sequence is.
fn sequence_key(table: Table, prefix: &[u8]) -> Key {
	let mut bytes = Vec::with_capacity(2 + table.name().len() + prefix.len());
	bytes.push(b's');
	bytes.extend_from_slice(table.name().as_bytes());
	bytes.push(0);
	bytes.extend_from_slice(prefix);
	Key::new(INTERNAL_TABLE, bytes)
}

/// Where it says that a table has sequences, so that a delete elsewhere looks for none.
fn table_key(table: Table) -> Key {
	Key::new(INTERNAL_TABLE, [b"t", table.name().as_bytes()].concat())
}
