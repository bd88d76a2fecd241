// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Administration of a consumer by an operator, while no handle of it is in use.

use leyden_store::{sharing, StoreError};

use crate::consumer;
use crate::log::{check_name, EventLog};
use crate::types::{Start, MAX_CONSUMER_CHARS};
use crate::{removal, renaming, reset, LogError};

impl EventLog {
	/// Removes a consumer for good, with its acks, retries and dead letters. Returns `true` if there
	/// was one. Entries that were kept for it alone are trimmed. A consumer that is opened under its
	/// name later is a new one.
	///
	/// A consumer keeps every entry that it has not acked, so one that nobody reads any more, or that
	/// was created by a mistyped name, has the store grow for ever.
	///
	/// # Errors
	/// [`LogError::InUse`] while a handle of it or a delivery is kept in this process;
	/// [`LogError::BadName`]; the store's.
	///
	/// # Failure Behavior and Persistence
	/// Once the first of several commits is durable the consumer is gone, whatever happens. A crash
	/// before that leaves it as it was; one after that is made up for when the name is used again, or
	/// by the same call.
	pub fn remove_consumer(&self, name: &str) -> Result<bool, LogError> {
		self.while_closed(name, || {
			let keys = self.shared.keys.consumer(name);
			let Some(mark) = removal::begin(self.store(), &keys)? else { return Ok(false) };
			self.shared.observers.removed(name);
			removal::finish(self.store(), &keys, mark)?;
			// The consumer is gone, whatever becomes of what it kept: the next pass trims it.
			let _ = self.shared.trim();
			Ok(true)
		})
	}

	/// Sets a consumer to another place of the log: back, so that it is told again of what it has acked
	/// and the log still has, or forward, past what it will never be told of. Its acks, retries and dead
	/// letters are forgotten, damaged ones as well. A request that every consumer has answered, and LDK
	/// with it, is not asked again by this.
	///
	/// A handle that cannot be seen from here (behind another layer around the store) settles no delivery
	/// any more, but its acks in bulk count.
	///
	/// # Errors
	/// [`LogError::NoConsumer`]; [`LogError::InUse`] while a handle of it or a delivery is kept in this
	/// process; [`LogError::BadName`]; the store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the consumer begins at `start`, and no entry behind is trimmed. A crash before
	/// that leaves it where it was, or there.
	pub fn reset_consumer(&self, name: &str, start: Start) -> Result<(), LogError> {
		self.while_closed(name, || {
			let keys = self.shared.keys.consumer(name);
			match reset::reset(self, name, &keys, start)? {
				true => Ok(()),
				false => Err(LogError::NoConsumer { name: name.to_owned() }),
			}
		})
	}

	/// Gives a consumer another name, with its acks, retries and dead letters.
	///
	/// # Errors
	/// [`LogError::NoConsumer`]; [`LogError::ConsumerExists`]; [`LogError::InUse`] while a handle of it
	/// or a delivery is kept in this process; [`LogError::BadName`]; the store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the consumer has the new name only. A crash before that leaves it with one of
	/// both. No entry that it has not acked is trimmed meanwhile.
	pub fn rename_consumer(&self, from: &str, to: &str) -> Result<(), LogError> {
		if from == to {
			return Err(LogError::ConsumerExists { name: to.to_owned() });
		}
		let rename = || {
			let [old, new] = [from, to].map(|name| self.shared.keys.consumer(name));
			match renaming::rename(self, (from, &old), (to, &new)) {
				Ok(true) => Ok(()),
				Ok(false) => Err(LogError::NoConsumer { name: from.to_owned() }),
				Err(LogError::Store(StoreError::Conflict { key, .. })) if key == new.consumer => {
					Err(LogError::ConsumerExists { name: to.to_owned() })
				},
				Err(error) => Err(error),
			}
		};
		// In one order, whoever renames what: two callers must not wait for each other.
		self.while_closed(from.min(to), || self.while_closed(from.max(to), rename))
	}

	/// Runs `f` while no handle of the consumer and no delivery is kept in this process.
	fn while_closed<T>(
		&self, name: &str, f: impl FnOnce() -> Result<T, LogError>,
	) -> Result<T, LogError> {
		check_name(name, MAX_CONSUMER_CHARS)?;
		let keys = self.shared.keys.consumer(name);
		sharing::while_closed::<consumer::Inner, _>(self.store(), &keys.consumer, f)
			.unwrap_or_else(|| Err(LogError::InUse { consumer: name.to_owned() }))
	}
}
