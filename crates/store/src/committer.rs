// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! For backends: what a batch means, decided once for all of them.
//!
//! A backend brings an engine that can read a record's bytes and write many at once. A
//! [`Committer`] turns batches into such writes: it checks expectations, gives versions and
//! sequence numbers, finds out what is known already, puts values into frames, and sees to the
//! epoch. One engine transaction holds a [`Group`] of batches; a batch of it that is refused leaves
//! no trace in the others.
//!
//! ```text
//! table _leyden    epoch        the epoch of the writer that opened last
//!                  versions     every version below it may have been given
//!                  s…           the last number given of a sequence: table, zero byte, prefix
//! ```

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;

use crate::batch::{Batch, Op};
use crate::committed::{Appended, Committed};
use crate::error::StoreError;
use crate::frame;
use crate::key::{Key, Table};
use crate::record::{Epoch, Version};
use crate::sequence::NumberRecord;

/// The table of a namespace that holds what the store itself must remember.
pub const INTERNAL_TABLE: Table = Table::new("_leyden");
/// How many versions are set aside at a time, so that not every commit writes the counter. What is
/// left of them at a crash is never given.
pub const VERSIONS_SET_ASIDE: u64 = 1 << 20;
/// How many sequences' last numbers are kept in memory. Others are read again.
pub const MAX_CACHED_SEQUENCES: usize = 1024;

/// Reads bytes of the namespace, as the engine's last durable transaction left them.
pub trait RawRead {
	/// The frame at `key`.
	///
	/// # Errors
	/// The engine's.
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError>;
}

/// One write of an engine transaction: a frame, or `None` to delete.
pub type RawWrite = (Key, Option<Vec<u8>>);

/// The state of one writer of one namespace. Lives as long as the handle.
#[derive(Debug)]
pub struct Committer {
	epoch: Epoch,
	state: State,
}

#[derive(Clone, Debug, Default)]
struct State {
	next_version: u64,
	/// Versions below this are set aside for us on the medium.
	set_aside: u64,
	/// The last number given of a sequence.
	sequences: HashMap<Key, u64>,
}

impl Committer {
	/// Raises the epoch of the namespace. The writes must be durable, in one transaction in which
	/// nobody else writes the namespace, before the first [`group`](Committer::group).
	///
	/// # Errors
	/// The reader's, or [`StoreError::Corrupt`] for damaged internal records.
	pub fn open(reader: &mut dyn RawRead) -> Result<(Self, Vec<RawWrite>), StoreError> {
		let epoch = read_number(reader, &epoch_key())?.map_or(1, |n| n.get().saturating_add(1));
		let next_version = read_number(reader, &versions_key())?.map_or(1, NonZeroU64::get);
		let set_aside = next_version.saturating_add(VERSIONS_SET_ASIDE);
		let state = State { next_version: next_version + 1, set_aside, sequences: HashMap::new() };
		let version = Version(next_version);
		let writes = vec![
			write_number(epoch_key(), version, epoch)?,
			write_number(versions_key(), version, set_aside)?,
		];
		Ok((Self { epoch: Epoch(epoch), state }, writes))
	}

	/// The epoch of this writer.
	pub fn epoch(&self) -> Epoch {
		self.epoch
	}

	/// Begins a group over what `reader` sees.
	///
	/// # Errors
	/// [`StoreError::Fenced`] if another writer has opened the namespace since; the reader's.
	pub fn group<'a>(&'a self, reader: &'a mut dyn RawRead) -> Result<Group<'a>, StoreError> {
		let found = read_number(reader, &epoch_key())?.map_or(0, NonZeroU64::get);
		if found != self.epoch.0 {
			return Err(StoreError::Fenced { ours: self.epoch, found: Epoch(found) });
		}
		let State { next_version, set_aside, .. } = self.state;
		Ok(Group {
			reader,
			known: &self.state.sequences,
			next_version,
			set_aside,
			advanced: HashMap::new(),
			overlay: BTreeMap::new(),
		})
	}

	/// Takes over what a group gave, once its writes are durable.
	pub fn took_effect(&mut self, outcome: Outcome) {
		self.state.next_version = outcome.next_version;
		self.state.set_aside = outcome.set_aside;
		if self.state.sequences.len() + outcome.advanced.len() > MAX_CACHED_SEQUENCES {
			self.state.sequences.clear();
		}
		self.state.sequences.extend(outcome.advanced);
	}
}

/// Batches that go into one engine transaction.
pub struct Group<'a> {
	reader: &'a mut dyn RawRead,
	known: &'a HashMap<Key, u64>,
	next_version: u64,
	set_aside: u64,
	advanced: HashMap<Key, u64>,
	overlay: BTreeMap<Key, Option<Vec<u8>>>,
}

/// What a group gave out, to be taken over with [`Committer::took_effect`].
#[derive(Debug)]
pub struct Outcome {
	next_version: u64,
	set_aside: u64,
	advanced: HashMap<Key, u64>,
}

impl Group<'_> {
	/// Adds a batch. On `Err` the group is as it was before.
	///
	/// # Errors
	/// What [`Batch::check`] finds, [`StoreError::Conflict`] if an expectation does not hold, the
	/// reader's.
	pub fn apply(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
		batch.check()?;
		// First everything that can fail, then the writes.
		for (key, expected) in batch.expectations() {
			let found = match self.frame(key)? {
				Some(frame) => Some(frame::version(key, &frame)?),
				None => None,
			};
			if !expected.holds(found) {
				let (key, expected) = (key.clone(), *expected);
				return Err(StoreError::Conflict { key, expected, found });
			}
		}
		let appended = self.give_numbers(batch)?;
		let mut taken_back = self.find_numbers(batch)?.into_iter();
		let version = Version(self.next_version);
		self.next_version += 1;
		if self.next_version >= self.set_aside {
			self.set_aside = self.set_aside.saturating_add(VERSIONS_SET_ASIDE);
			let (key, frame) = write_number(versions_key(), version, self.set_aside)?;
			self.overlay.insert(key, frame);
		}

		let mut slot = 0;
		for op in batch.ops() {
			match op {
				Op::Put(key, value) => {
					self.overlay.insert(key.clone(), Some(frame::encode(key, version, value)));
				},
				Op::Delete(key) => {
					self.overlay.insert(key.clone(), None);
				},
				Op::DeleteOnce { table, prefix, once } => {
					if let Some(Some(number)) = taken_back.next() {
						self.overlay.insert(Key::numbered(*table, prefix, number.get()), None);
						self.overlay.insert(once.clone(), None);
					}
				},
				Op::Append { table, prefix, value, once } => {
					let given = appended.get(slot).copied();
					slot += 1;
					let Some(Appended::New(number)) = given else { continue };
					let key = Key::numbered(*table, prefix, number.get());
					let frame = frame::encode(&key, version, value);
					self.overlay.insert(key, Some(frame));
					if let Some(key) = once {
						let frame = frame::encode(key, version, &NumberRecord(number).value());
						self.overlay.insert(key.clone(), Some(frame));
					}
					self.advanced.insert(sequence_key(*table, prefix), number.get());
				},
				Op::PutAt { slot, table, prefix, value } => {
					if let Some(Appended::New(number)) = appended.get(slot.index()) {
						let key = Key::numbered(*table, prefix, number.get());
						let frame = frame::encode(&key, version, value);
						self.overlay.insert(key, Some(frame));
					}
				},
			}
		}
		Ok(Committed::new(version, appended))
	}

	/// The writes of all its batches, each key once, and what to take over when they are durable.
	///
	/// # Errors
	/// None in practice; a sequence that ran out of numbers.
	pub fn finish(mut self) -> Result<(Vec<RawWrite>, Outcome), StoreError> {
		let version = Version(self.next_version.saturating_sub(1));
		for (key, number) in &self.advanced {
			let (key, frame) = write_number(key.clone(), version, *number)?;
			self.overlay.insert(key, frame);
		}
		let outcome = Outcome {
			next_version: self.next_version,
			set_aside: self.set_aside,
			advanced: self.advanced,
		};
		Ok((self.overlay.into_iter().collect(), outcome))
	}

	/// The number of every append of `batch`. Changes nothing.
	fn give_numbers(&mut self, batch: &Batch) -> Result<Vec<Appended>, StoreError> {
		if batch.append_count() == 0 {
			return Ok(Vec::new());
		}
		let mut appended = Vec::with_capacity(batch.append_count());
		let mut given: HashMap<Key, u64> = HashMap::new();
		let mut named: HashMap<&Key, NonZeroU64> = HashMap::new();
		for op in batch.ops() {
			let Op::Append { table, prefix, once, .. } = op else { continue };
			if let Some(key) = once {
				let known = match named.get(key) {
					Some(number) => Some(*number),
					None => self.number_at(key)?,
				};
				if let Some(number) = known {
					appended.push(Appended::Known(number));
					continue;
				}
			}
			let sequence = sequence_key(*table, prefix);
			let last = match given.get(&sequence) {
				Some(last) => *last,
				None => self.last_number(&sequence)?,
			};
			let Some(number) = last.checked_add(1).and_then(NonZeroU64::new) else {
				return Err(StoreError::invalid(format!(
					"the sequence {sequence} ran out of numbers"
				)));
			};
			given.insert(sequence, number.get());
			if let Some(key) = once {
				named.insert(key, number);
			}
			appended.push(Appended::New(number));
		}
		Ok(appended)
	}

	/// The number that every taken-back append of `batch` was given, if there was one.
	fn find_numbers(&mut self, batch: &Batch) -> Result<Vec<Option<NonZeroU64>>, StoreError> {
		let mut numbers = Vec::new();
		for op in batch.ops() {
			if let Op::DeleteOnce { once, .. } = op {
				numbers.push(self.number_at(once)?);
			}
		}
		Ok(numbers)
	}

	fn last_number(&mut self, sequence: &Key) -> Result<u64, StoreError> {
		if let Some(last) = self.advanced.get(sequence).or_else(|| self.known.get(sequence)) {
			return Ok(*last);
		}
		Ok(read_number(self.reader, sequence)?.map_or(0, NonZeroU64::get))
	}

	fn number_at(&mut self, key: &Key) -> Result<Option<NonZeroU64>, StoreError> {
		let Some(frame) = self.frame(key)? else { return Ok(None) };
		Ok(Some(NumberRecord::read(key, &frame::decode(key, &frame)?)?.0))
	}

	fn frame(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		match self.overlay.get(key) {
			Some(frame) => Ok(frame.clone()),
			None => self.reader.read(key),
		}
	}
}

impl std::fmt::Debug for Group<'_> {
	fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
		write!(f, "Group of {} writes", self.overlay.len())
	}
}

fn epoch_key() -> Key {
	Key::new(INTERNAL_TABLE, *b"epoch")
}

fn versions_key() -> Key {
	Key::new(INTERNAL_TABLE, *b"versions")
}

fn sequence_key(table: Table, prefix: &[u8]) -> Key {
	let mut bytes = Vec::with_capacity(2 + table.name().len() + prefix.len());
	bytes.push(b's');
	bytes.extend_from_slice(table.name().as_bytes());
	bytes.push(0);
	bytes.extend_from_slice(prefix);
	Key::new(INTERNAL_TABLE, bytes)
}

fn read_number(reader: &mut dyn RawRead, key: &Key) -> Result<Option<NonZeroU64>, StoreError> {
	match reader.read(key)? {
		Some(frame) => Ok(Some(NumberRecord::read(key, &frame::decode(key, &frame)?)?.0)),
		None => Ok(None),
	}
}

fn write_number(key: Key, version: Version, number: u64) -> Result<RawWrite, StoreError> {
	let Some(number) = NonZeroU64::new(number) else {
		return Err(StoreError::invalid(format!("no number for {key}")));
	};
	let frame = frame::encode(&key, version, &NumberRecord(number).value());
	Ok((key, Some(frame)))
}
