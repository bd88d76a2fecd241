// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A consumer that is paused: nothing is delivered to it, in this process and in later ones.

use std::sync::atomic::Ordering;

use leyden_store::{Batch, Expectation, StoreError};

use crate::consumer::{Consumer, Inner};
use crate::records::{self, ConsumerV1};
use crate::removal::REMOVED;
use crate::LogError;

impl Consumer {
	/// Delivers nothing until [`resume`](Consumer::resume), in this process and in later ones. What is in
	/// somebody's hands can be settled. Another handle, behind another layer around the store, hears of it
	/// when it is opened again.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the consumer is paused durably. A crash before that leaves it paused or not.
	pub fn pause(&self) -> Result<(), LogError> {
		self.inner().set_paused(true)
	}

	/// Ends a [`pause`](Consumer::pause). Does nothing if there is none.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the pause is over durably. A crash before that leaves the consumer paused or not.
	pub fn resume(&self) -> Result<(), LogError> {
		self.inner().set_paused(false)
	}

	/// Returns whether the consumer is paused.
	pub fn is_paused(&self) -> bool {
		self.inner().paused.load(Ordering::SeqCst)
	}
}

impl Inner {
	fn set_paused(&self, paused: bool) -> Result<(), LogError> {
		// Held to the end: of two calls, the one that commits last is the one that counts here, and no
		// search for a delivery is under way when this returns.
		let _state = self.state.lock();
		let (store, key) = (self.log.store(), &self.keys.consumer);
		loop {
			// It was removed, or is being removed, by a handle that this one does not see.
			let gone = || LogError::NoConsumer { name: self.name.clone() };
			let found = store.get(key).wait()?.ok_or_else(gone)?;
			let consumer: ConsumerV1 = records::read(key, &found)?;
			if consumer.watermark == REMOVED {
				return Err(gone());
			}
			let mut batch = Batch::new();
			batch.expect(key.clone(), Expectation::Version(found.version));
			batch.put(key.clone(), records::value(&ConsumerV1 { paused, ..consumer }));
			match store.commit(batch).wait() {
				Ok(_) => break,
				// Its acks were folded meanwhile.
				Err(StoreError::Conflict { .. }) => {},
				Err(error) => return Err(error.into()),
			}
		}
		if self.paused.swap(paused, Ordering::SeqCst) != paused {
			self.log.shared.observers.paused(&self.name, paused);
		}
		self.log.shared.signal.raise();
		Ok(())
	}
}
