// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Deadlines that pass, dead letters, and history that is past its time.

use leyden_store::{Batch, Durability, KeyRange, StoreError, Timestamp};

use crate::callback::{Callback, Sequence};
use crate::error::OutboxError;
use crate::outbox::{sequence, Outbox};
use crate::records::{self, DeadV1, End, ItemV1, MetaV1, OpenV1, TombV1};
use crate::settle::{due_key, Letter};

/// Callbacks looked at in one go.
const PAGE: usize = 256;

/// Why a callback was put aside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
	/// It was refused for good.
	Refused,
	/// Its deadline passed.
	Expired,
}

/// A callback that was put aside.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
	/// It.
	pub callback: Callback,
	/// Why.
	pub why: Why,
	/// When.
	pub at: Timestamp,
	/// How often it had failed.
	pub failures: u32,
	/// What was said.
	pub reason: String,
}

impl Outbox {
	/// Lets every callback expire whose deadline has passed, with what is to be done about it, up to
	/// `limit` of them. Call it with every block. Answers which.
	///
	/// A callback that is on its way is left until it is back.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Each is one commit, with what [`on_expired`](crate::OutboxOptions::on_expired) wants.
	pub fn expire(&self, height: u32, limit: usize) -> Result<Vec<Callback>, OutboxError> {
		let now = self.0.clock.look();
		// What others have dated is over when the clock and steady time say so.
		let past = now.wall.min(now.steady);
		let state = self.0.state.lock();
		let ends: Vec<End> = state.endpoints.iter().map(|(end, _)| *end).collect();
		let mut expired: Vec<Callback> = Vec::new();
		for end in ends {
			for (kind, number) in [(0, u64::from(height)), (1, past.0)] {
				let range = records::urgent_up_to(&end, kind, number);
				// Those that are left out do not count.
				let most = limit.saturating_add(state.leases.len()).min(PAGE);
				for (key, _) in &self.0.store.scan(range, most).wait()?.records {
					let number = records::number_of(key)?;
					let is_known = expired.iter().any(|done| done.sequence().get() == number);
					if expired.len() >= limit || is_known || state.leases.contains_key(&number) {
						continue;
					}
					let (callback, open) = self.open_callback(number)?;
					let letter = Letter { end, callback: &callback, open };
					let said = "its deadline passed";
					let plan = self.put_aside(&state, letter, now, Why::Expired, said)?;
					// One after the other: what comes next with this order key is looked up in the store.
					plan.commit(&*self.0.store).wait()?;
					expired.push(callback);
				}
			}
		}
		Ok(expired)
	}

	/// Callbacks that were put aside, the oldest first.
	///
	/// # Errors
	/// The store's.
	pub fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, OutboxError> {
		let mut letters = Vec::new();
		for (key, record) in &self.0.store.scan(KeyRange::all(records::DEAD), limit).wait()?.records
		{
			let DeadV1 { why, at, failures, reason } = records::read(key, record)?;
			let callback = self.callback(sequence(records::number_of(key)?))?;
			let callback = callback.ok_or(OutboxError::NoSuchCallback)?;
			let why = if why == 1 { Why::Expired } else { Why::Refused };
			letters.push(DeadLetter { callback, why, at, failures, reason });
		}
		Ok(letters)
	}

	/// Sends a dead letter again, as if it had never failed. It may overtake nobody: others with its
	/// order key may have arrived long ago.
	///
	/// # Errors
	/// [`OutboxError::NoSuchCallback`], the store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn requeue(&self, number: Sequence) -> Result<(), OutboxError> {
		let _state = self.0.state.lock();
		let dead = records::dead_key(number.get());
		if self.0.store.get(&dead).wait()?.is_none() {
			return Err(OutboxError::NoSuchCallback);
		}
		let key = records::item_key(number.get());
		let record = self.0.store.get(&key).wait()?.ok_or(OutboxError::NoSuchCallback)?;
		let item: ItemV1 = records::read(&key, &record)?;
		let (end, index) = (records::end(&item.endpoint), item.index());
		let due = self.0.clock.look().running;
		let mut batch = Batch::new();
		batch.delete(dead);
		let open = OpenV1 { due, failures: 0 };
		batch.put(records::open_key(number.get()), records::value(&open)?);
		let value = records::value(&index)?;
		batch.put(due_key(&end, due, number.get()), value.clone());
		let numbered =
			|table, prefix: &[u8]| leyden_store::Key::numbered(table, prefix, number.get());
		let lane = records::lane_prefix(&end, &index.lane);
		batch.put(numbered(records::LANES, &lane), value.clone());
		for prefix in records::urgent_prefixes(&end, index.deadline) {
			batch.put(numbered(records::URGENT, &prefix), value.clone());
		}
		self.0.store.commit(batch).wait()?;
		Ok(())
	}

	/// Forgets a dead letter.
	///
	/// # Errors
	/// [`OutboxError::NoSuchCallback`], the store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn discard(&self, number: Sequence) -> Result<(), OutboxError> {
		let dead = records::dead_key(number.get());
		if self.0.store.get(&dead).wait()?.is_none() {
			return Err(OutboxError::NoSuchCallback);
		}
		let mut batch = Batch::new();
		batch.delete(dead);
		self.0.store.commit(batch).wait()?;
		Ok(())
	}

	/// Drops callbacks that arrived and are past their time, with what they said, and later their ids;
	/// looks at no more than `limit`. What is not over stays, and everything after it.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Lazy: what a crash undoes is done again.
	pub fn trim(&self, limit: usize) -> Result<usize, OutboxError> {
		let now = self.0.clock.look();
		let meta_key = records::meta_key();
		let record = self.0.store.get(&meta_key).wait()?.ok_or(OutboxError::NoSuchCallback)?;
		let meta: MetaV1 = records::read(&meta_key, &record)?;
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		let mut trimmed = meta.trimmed;
		let items = KeyRange::all(records::ITEMS);
		let limit = limit.min(PAGE).min(self.0.store.guarantees().max_writes / 4);
		for (key, record) in &self.0.store.scan(items, limit).wait()?.records {
			let number = records::number_of(key)?;
			let item: ItemV1 = records::read(key, record)?;
			if now.lived_since(item.lived_ms) < self.0.options.retain || !self.is_over(number)? {
				break;
			}
			batch.delete(key.clone());
			let tomb = TombV1 { id: item.id, lived_ms: item.lived_ms };
			batch.put(records::tomb_key(number), records::value(&tomb)?);
			trimmed = number;
		}
		let remembered = self.0.options.retain + self.0.options.remember;
		let tombs = KeyRange::all(records::TOMBS);
		for (key, record) in &self.0.store.scan(tombs, limit).wait()?.records {
			let tomb: TombV1 = records::read(key, record)?;
			if now.lived_since(tomb.lived_ms) < remembered {
				break;
			}
			batch.delete(key.clone());
			batch.delete(records::id_key(&tomb.id));
		}
		if batch.is_empty() {
			return Ok(0);
		}
		let count = usize::try_from(trimmed - meta.trimmed).unwrap_or(usize::MAX);
		batch.put(meta_key, records::value(&MetaV1 { trimmed, ..meta })?);
		self.0.store.commit(batch).wait()?;
		Ok(count)
	}

	fn is_over(&self, number: u64) -> Result<bool, StoreError> {
		let is_there = |key| Ok::<_, StoreError>(self.0.store.get(&key).wait()?.is_some());
		Ok(!is_there(records::open_key(number))? && !is_there(records::dead_key(number))?)
	}

	fn open_callback(&self, number: u64) -> Result<(Callback, OpenV1), OutboxError> {
		let key = records::open_key(number);
		let record = self.0.store.get(&key).wait()?.ok_or(OutboxError::NoSuchCallback)?;
		let open: OpenV1 = records::read(&key, &record)?;
		let callback = self.callback(sequence(number))?.ok_or(OutboxError::NoSuchCallback)?;
		Ok((callback, open))
	}
}
