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
//!                  s…           every number of a sequence up to it was given: table, zero byte,
//!                               prefix
//!                  t…           this table has sequences
//! ```

mod numbers;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;

use crate::batch::{Batch, Op};
use crate::committed::{Appended, Committed};
use crate::error::StoreError;
use crate::frame;
use crate::key::{Key, Table};
use crate::record::{Epoch, Version};
use crate::sequence::NumberRecord;

pub use numbers::MAX_CACHED_SEQUENCES;
use numbers::{Giver, Numbers};

/// The table of a namespace that holds what the store itself must remember.
pub const INTERNAL_TABLE: Table = Table::new("_leyden");
/// How many versions are set aside at a time, so that not every commit writes the counter. What is
/// left of them at a crash is never given.
pub const VERSIONS_SET_ASIDE: u64 = 1 << 20;
/// Reads bytes of the namespace, as the engine's last durable transaction left them.
pub trait RawRead {
	/// The frame at `key`.
	///
	/// # Errors
	/// The engine's.
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError>;

	/// The highest number of which [`Key::numbered`] makes the key of a record in `table`.
	///
	/// # Errors
	/// The engine's.
	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError>;

	/// Whether somebody else may have written since the engine was opened. An engine that has its
	/// file to itself says no, and saves every commit a look at the epoch.
	fn is_shared(&self) -> bool {
		true
	}
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
	numbers: Numbers,
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
		let numbers = Numbers::default();
		let state = State { next_version: next_version + 1, set_aside, numbers };
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
		if reader.is_shared() {
			let found = read_epoch(reader)?;
			if found != self.epoch {
				return Err(StoreError::Fenced { ours: self.epoch, found });
			}
		}
		let State { next_version, set_aside, .. } = self.state;
		Ok(Group {
			reader,
			numbers: Giver::over(&self.state.numbers),
			next_version,
			set_aside,
			overlay: BTreeMap::new(),
		})
	}

	/// Takes over what a group gave, once its writes are durable.
	pub fn took_effect(&mut self, outcome: Outcome) {
		self.state.next_version = outcome.next_version;
		self.state.set_aside = outcome.set_aside;
		self.state.numbers.extend(outcome.numbers);
	}
}

/// Batches that go into one engine transaction.
pub struct Group<'a> {
	reader: &'a mut dyn RawRead,
	numbers: Giver<'a>,
	next_version: u64,
	set_aside: u64,
	overlay: BTreeMap<Key, Option<Vec<u8>>>,
}

/// What a group gave out, to be taken over with [`Committer::took_effect`].
#[derive(Debug)]
pub struct Outcome {
	next_version: u64,
	set_aside: u64,
	numbers: Numbers,
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
		let mut touched = self.find_sequences(batch)?.into_iter();
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
					if let Some(Some((sequence, number))) = touched.next() {
						self.numbers.put(&sequence, number);
					}
					self.overlay.insert(key.clone(), Some(frame::encode(key, version, value)));
				},
				Op::Delete(key) => {
					if let Some(Some((sequence, number))) = touched.next() {
						self.numbers.deleted(&sequence, number);
					}
					self.overlay.insert(key.clone(), None);
				},
				Op::DeleteOnce { once, .. } => {
					if let Some(Some((key, sequence))) = taken_back.next() {
						if let Some((sequence, number)) = sequence {
							self.numbers.deleted(&sequence, number);
						}
						self.overlay.insert(key, None);
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
					self.numbers.gave(*table, prefix, number);
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
		let (writes, numbers) = self.numbers.finish(version)?;
		self.overlay.extend(writes);
		let Self { next_version, set_aside, .. } = self;
		let outcome = Outcome { next_version, set_aside, numbers };
		Ok((self.overlay.into_iter().collect(), outcome))
	}

	/// The number of every append of `batch`. Changes nothing.
	fn give_numbers(&mut self, batch: &Batch) -> Result<Vec<Appended>, StoreError> {
		if batch.append_count() == 0 {
			return Ok(Vec::new());
		}
		let mut appended = Vec::with_capacity(batch.append_count());
		let mut given: HashMap<(Table, &[u8]), u64> = HashMap::new();
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
			let sequence = (*table, prefix.as_slice());
			let last = match given.get(&sequence) {
				Some(last) => *last,
				None => {
					self.numbers.last(&mut Overlaid(self.reader, &self.overlay), *table, prefix)?
				},
			};
			let Some(number) = last.checked_add(1).and_then(NonZeroU64::new) else {
				return Err(StoreError::invalid(format!(
					"a sequence of {table} ran out of numbers"
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

	/// The key of every append that `batch` takes back, if there was one, and its number.
	#[allow(clippy::type_complexity)]
	fn find_numbers(
		&mut self, batch: &Batch,
	) -> Result<Vec<Option<(Key, Option<(Key, u64)>)>>, StoreError> {
		let mut numbers = Vec::new();
		for op in batch.ops() {
			let Op::DeleteOnce { table, prefix, once } = op else { continue };
			numbers.push(match self.number_at(once)? {
				Some(number) => {
					let key = Key::numbered(*table, prefix, number.get());
					let sequence = self.find_sequence(&key)?;
					Some((key, sequence))
				},
				None => None,
			});
		}
		Ok(numbers)
	}

	/// The sequence that every put and delete of `batch` touches, if there is one.
	fn find_sequences(&mut self, batch: &Batch) -> Result<Vec<Option<(Key, u64)>>, StoreError> {
		let mut found = Vec::new();
		for op in batch.ops() {
			if let Op::Put(key, _) | Op::Delete(key) = op {
				found.push(self.find_sequence(key)?);
			}
		}
		Ok(found)
	}

	fn find_sequence(&mut self, key: &Key) -> Result<Option<(Key, u64)>, StoreError> {
		self.numbers.find(&mut Overlaid(self.reader, &self.overlay), key)
	}

	fn number_at(&mut self, key: &Key) -> Result<Option<NonZeroU64>, StoreError> {
		let Some(frame) = self.frame(key)? else { return Ok(None) };
		Ok(Some(NumberRecord::read(key, &frame::decode(key, &frame)?)?.0))
	}

	fn frame(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		Overlaid(self.reader, &self.overlay).read(key)
	}
}

/// What the engine has, under what the group is about to write.
struct Overlaid<'a>(&'a mut dyn RawRead, &'a BTreeMap<Key, Option<Vec<u8>>>);

impl RawRead for Overlaid<'_> {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		match self.1.get(key) {
			Some(frame) => Ok(frame.clone()),
			None => self.0.read(key),
		}
	}

	/// What is deleted here counts: its number was given.
	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		let numbers = Key::numbered(table, prefix, 0)..=Key::numbered(table, prefix, u64::MAX);
		let written = self.1.range(numbers).rev().find_map(|(key, _)| key.number(prefix));
		Ok(self.0.highest(table, prefix)?.max(written))
	}
}

impl std::fmt::Debug for Group<'_> {
	fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
		write!(f, "Group of {} writes", self.overlay.len())
	}
}

/// The epoch of the writer that opened last; 0 if there was none.
///
/// # Errors
/// The reader's, or [`StoreError::Corrupt`].
pub fn read_epoch(reader: &mut dyn RawRead) -> Result<Epoch, StoreError> {
	Ok(Epoch(read_number(reader, &epoch_key())?.map_or(0, NonZeroU64::get)))
}

/// Where the epoch of the writer that opened last is.
pub fn epoch_key() -> Key {
	Key::new(INTERNAL_TABLE, *b"epoch")
}

fn versions_key() -> Key {
	Key::new(INTERNAL_TABLE, *b"versions")
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
