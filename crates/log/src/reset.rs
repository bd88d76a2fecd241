// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A consumer is set to another place of its log.
//!
//! Its acks are too many for one batch. The first batch sets the watermark and a mark: from then on
//! the consumer keeps every entry behind the new place, and its acks, retries and dead letters count
//! no more. Then those go, and the mark at last. A crash in between leaves the mark, and whoever opens
//! the consumer next finishes the work first.

use std::sync::Arc;

use leyden_store::{Batch, Expectation, Store, StoreError, Version};

use crate::creation;
use crate::log::EventLog;
use crate::owner::Owner;
use crate::records::{self, ConsumerKeys, ConsumerV1};
use crate::removal::{self, REMOVED};
use crate::types::Start;
use crate::LogError;

/// Resets the consumer. Returns `false` if there is none.
///
/// # Failure Behavior and Persistence
/// When it returns, the consumer begins at the new place. A crash before that leaves it where it was,
/// or there.
pub(crate) fn reset(
	log: &EventLog, name: &str, keys: &ConsumerKeys, start: Start,
) -> Result<bool, LogError> {
	let store = log.store();
	finish_what_was_begun(store, keys)?;
	loop {
		let mut batch = Batch::new();
		// A reset is the way out for a consumer whose own records are damaged.
		let paused = match store.get(&keys.consumer).wait() {
			Ok(None) => return Ok(false),
			Ok(Some(record)) => {
				batch.expect(keys.consumer.clone(), Expectation::Version(record.version));
				match records::read::<ConsumerV1>(&keys.consumer, &record) {
					// It is being removed by a handle that cannot be seen from here.
					Ok(ConsumerV1 { watermark: REMOVED, .. }) => return Ok(false),
					Ok(consumer) => consumer.paused,
					Err(StoreError::Corrupt { .. }) => false,
					Err(error) => return Err(error.into()),
				}
			},
			Err(StoreError::Corrupt { .. }) => false,
			Err(error) => return Err(error.into()),
		};
		let watermark = creation::begin(log, start, &mut batch)?;
		let consumer = ConsumerV1 { watermark, paused, resetting: true };
		batch.put(keys.consumer.clone(), records::value(&consumer));
		Owner::pass_on(store, &keys.owner, &mut batch)?;
		match store.commit(batch).wait() {
			Ok(committed) => {
				let observers = &log.shared.observers;
				observers.removed(name);
				observers.opened(name, watermark);
				if paused {
					observers.paused(name, true);
				}
				finish(store, keys, consumer, committed.version())?;
				return Ok(true);
			},
			// Its acks were folded meanwhile, or something was trimmed.
			Err(StoreError::Conflict { .. }) => {},
			Err(error) => return Err(error.into()),
		}
	}
}

/// Finishes a removal or a reset in the middle of which a process has ended.
pub(crate) fn finish_what_was_begun(
	store: &Arc<dyn Store>, keys: &ConsumerKeys,
) -> Result<(), LogError> {
	let record = match store.get(&keys.consumer).wait() {
		Ok(Some(record)) => record,
		// Nothing can be read of a damaged one.
		Ok(None) | Err(StoreError::Corrupt { .. }) => return Ok(()),
		Err(error) => return Err(error.into()),
	};
	match records::read::<ConsumerV1>(&keys.consumer, &record) {
		Ok(ConsumerV1 { watermark: REMOVED, .. }) => removal::finish(store, keys, record.version),
		Ok(consumer) if consumer.resetting => finish(store, keys, consumer, record.version),
		Ok(_) | Err(StoreError::Corrupt { .. }) => Ok(()),
		Err(error) => Err(error.into()),
	}
}

fn finish(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, consumer: ConsumerV1, mark: Version,
) -> Result<(), LogError> {
	let mark = (&keys.consumer, Expectation::Version(mark));
	let emptied = removal::empty(store, keys, &mark).and_then(|()| {
		let mut batch = Batch::new();
		batch.expect(mark.0.clone(), mark.1);
		let consumer = ConsumerV1 { resetting: false, ..consumer };
		batch.put(keys.consumer.clone(), records::value(&consumer));
		Ok(store.commit(batch).wait().map(|_| ())?)
	});
	match emptied {
		// Another handle has finished it, or has changed something else of the consumer.
		Err(LogError::Store(StoreError::Conflict { .. })) => finish_what_was_begun(store, keys),
		done => done,
	}
}
