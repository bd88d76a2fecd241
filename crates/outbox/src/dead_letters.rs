// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Dead letters: callbacks that are not sent any more, for an operator.

use leyden_store::{Batch, Key, KeyRange, Timestamp};

use crate::callback::{Callback, Sequence};
use crate::error::OutboxError;
use crate::outbox::{sequence, Outbox};
use crate::records::{self, DeadV1, DoubtV1, OpenV1, WhyV1};
use crate::response::Taken;
use crate::settle::due_key;

/// The reason why a callback is a dead letter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeadLetterReason {
	/// It was refused for good.
	Refused,
	/// Its deadline passed.
	Expired,
}

/// A callback that is not sent any more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
	/// The callback.
	pub callback: Callback,
	/// The reason.
	pub why: DeadLetterReason,
	/// Whether it may have been taken all the same.
	pub taken: Taken,
	/// The time at which it became one, by the wall clock.
	pub at: Timestamp,
	/// The number of its failures.
	pub failures: u32,
	/// The reason in words.
	pub reason: String,
}

impl Outbox {
	/// Returns dead letters, the oldest first. A damaged one is passed over, and told to the
	/// [observer](crate::OutboxOptions::observer).
	///
	/// # Errors
	/// [`OutboxError::Store`].
	pub fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, OutboxError> {
		let mut letters = Vec::new();
		let page = self.scan_around_damage(KeyRange::all(records::DEAD), limit)?;
		for (key, record) in page.records {
			let number = records::number_of(&key)?;
			let read = record.and_then(|record| records::read::<DeadV1>(&key, &record));
			let read = read.and_then(|dead| Ok((dead, self.item(number)?)));
			let mut state = self.0.state.lock();
			let read = self.unless_damaged(&mut state, number, read);
			self.unlock(state);
			let Some((dead, item)) = read? else { continue };
			let DeadV1 { why, at, failures, reason, may_have_been_taken } = dead;
			let why = match why {
				WhyV1::Refused => DeadLetterReason::Refused,
				WhyV1::Expired => DeadLetterReason::Expired,
			};
			let is_doubtful = may_have_been_taken || number <= self.0.restored_up_to;
			let taken = if is_doubtful { Taken::Maybe } else { Taken::No };
			let callback = item.callback(sequence(number));
			letters.push(DeadLetter { callback, why, taken, at, failures, reason });
		}
		Ok(letters)
	}

	/// Sends a dead letter again, as if it had never failed; that it may have been taken is kept. It
	/// overtakes no other: others with its order key may have arrived long ago.
	///
	/// # Errors
	/// [`OutboxError::NoSuchCallback`]; [`OutboxError::Expired`] for one that has expired: what its hook
	/// wanted is done; [`OutboxError::Store`].
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn requeue(&self, number: Sequence) -> Result<(), OutboxError> {
		let _state = self.0.state.lock();
		let dead_key = records::dead_key(number.get());
		let record = self.0.store.get(&dead_key).wait()?.ok_or(OutboxError::NoSuchCallback)?;
		let dead: DeadV1 = records::read(&dead_key, &record)?;
		if dead.why == WhyV1::Expired {
			return Err(OutboxError::Expired);
		}
		let item = self.item(number.get())?;
		let (end, index) = (records::end(&item.endpoint), item.index());
		let due = self.0.clock.look().running;
		let mut batch = Batch::new();
		batch.delete(dead_key);
		let doubt = match dead.may_have_been_taken {
			true => DoubtV1::InDoubt,
			false => DoubtV1::None,
		};
		let open = OpenV1 { due, failures: 0, doubt, not_found_ms: None };
		batch.put(records::open_key(number.get()), records::value(&open)?);
		let value = records::value(&index)?;
		batch.put(due_key(&end, due, number.get()), value.clone());
		let numbered = |table, prefix: &[u8]| Key::numbered(table, prefix, number.get());
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
	/// [`OutboxError::NoSuchCallback`], [`OutboxError::Store`].
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn discard(&self, number: Sequence) -> Result<(), OutboxError> {
		let dead = records::dead_key(number.get());
		// Also one that cannot be read.
		if self.0.store.get_raw(&dead).wait()?.is_none() {
			return Err(OutboxError::NoSuchCallback);
		}
		let mut batch = Batch::new();
		batch.delete(dead);
		self.0.store.commit(batch).wait()?;
		Ok(())
	}
}
