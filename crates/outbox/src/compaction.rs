// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The compaction of an outbox: what is over and past its time is dropped.

use leyden_store::{Batch, Durability, Expectation, Key, KeyRange, StoreError};

use crate::error::OutboxError;
use crate::outbox::Outbox;
use crate::records::{self, ItemV1, MetaV1, TombV1};

/// Callbacks read in one go.
const PAGE: usize = 256;

impl Outbox {
	/// Drops callbacks that are over and past their [retention](crate::OutboxOptions::retention), and later
	/// their ids; looks at no more than `limit`, and goes on from there the next time. A callback that is
	/// still to be sent stays, with everything behind it. A dead letter stays until it is
	/// [discarded](Outbox::discard), and holds up no other. Returns how many were dropped.
	///
	/// # Errors
	/// [`OutboxError::Store`].
	///
	/// # Failure Behavior and Persistence
	/// Lazy: what a crash undoes is done again.
	pub fn compact(&self, limit: usize) -> Result<usize, OutboxError> {
		let now = self.0.clock.look();
		let from = {
			let mut state = self.0.state.lock();
			state.compacted_at = Some(now.running);
			state.neglected.remove("compact");
			state.compact_from
		};
		let meta_key = records::meta_key();
		let record = self.0.store.get(&meta_key).wait()?.ok_or(OutboxError::NoSuchCallback)?;
		let meta: MetaV1 = records::read(&meta_key, &record)?;
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		let (mut trimmed, mut count) = (meta.trimmed, 0);
		let items = KeyRange::all(records::ITEMS).from(&from.to_be_bytes());
		let limit = limit.min(PAGE).min(self.0.store.guarantees().max_writes / 4).max(1);
		let page = self.scan_around_damage(items, limit)?;
		// From the beginning again, after the last one and after the first that holds up the rest.
		let mut next = 0;
		for (key, record) in page.records {
			let number = records::number_of(&key)?;
			next = number.saturating_add(1);
			let item = record.and_then(|record| records::read::<ItemV1>(&key, &record));
			let mut state = self.0.state.lock();
			let item = self.unless_damaged(&mut state, number, item);
			self.unlock(state);
			let Some(item) = item? else { continue };
			let is_young = now.lived_since(item.lived_ms) < self.0.options.retention;
			if is_young || self.is_there(&records::open_key(number))? {
				next = 0;
				break;
			}
			if self.is_there(&records::dead_key(number))? {
				continue;
			}
			// It may be requeued meanwhile.
			batch.expect(records::open_key(number), Expectation::Absent);
			batch.expect(records::dead_key(number), Expectation::Absent);
			batch.delete(key.clone());
			let (id, once, digest) = (item.id, item.once(), item.digest);
			let tomb = TombV1 { id, once, digest, lived_ms: item.lived_ms };
			batch.put(records::tomb_key(number), records::value(&tomb)?);
			trimmed = trimmed.max(number);
			count += 1;
		}
		self.0.state.lock().compact_from = if page.rest.is_some() { next } else { 0 };
		self.forget_ids(&mut batch, limit)?;
		if batch.is_empty() {
			return Ok(0);
		}
		batch.put(meta_key, records::value(&MetaV1 { trimmed, ..meta })?);
		match self.0.store.commit(batch).wait() {
			Ok(_) => Ok(count),
			Err(StoreError::Conflict { .. }) => Ok(0),
			Err(error) => Err(error.into()),
		}
	}

	/// Drops ids that were known for long enough.
	fn forget_ids(&self, batch: &mut Batch, limit: usize) -> Result<(), OutboxError> {
		let now = self.0.clock.look();
		let known_for = self.0.options.retention + self.0.options.dedup_ttl;
		let page = self.scan_around_damage(KeyRange::all(records::TOMBS), limit)?;
		for (key, record) in page.records {
			// One that cannot be read stays: it is small.
			let tomb = record.and_then(|record| records::read::<TombV1>(&key, &record));
			let Ok(tomb) = tomb else { continue };
			// They are in the order of their numbers, and nearly in that of their times.
			if now.lived_since(tomb.lived_ms) < known_for {
				break;
			}
			batch.delete(key);
			batch.delete(records::once_key(&tomb.once));
		}
		Ok(())
	}

	fn is_there(&self, key: &Key) -> Result<bool, OutboxError> {
		Ok(self.0.store.get_raw(key).wait()?.is_some())
	}
}
