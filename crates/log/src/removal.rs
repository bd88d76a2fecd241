// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The end of a consumer.
//!
//! Its records are too many for one batch. The first batch sets the watermark to [`REMOVED`], which
//! is no watermark of anybody: from then on the consumer keeps nothing from being trimmed, is in no
//! list, and is never delivered to. Then its acks, retries and dead letters go, and its own record
//! at last. A crash in between leaves that mark, and the next handle of its name finishes the work
//! before it creates a consumer: what is left of the old one's acks never counts for the new one.

use std::sync::Arc;

use leyden_store::{
	block_on, read_around_damage, Batch, Durability, Expectation, Key, Store, StoreError, Version,
};

use crate::owner::Owner;
use crate::records::{self, ConsumerKeys, ConsumerV1};
use crate::LogError;

/// The watermark of a consumer that is being removed.
pub(crate) const REMOVED: u64 = u64::MAX;

/// The most records that one batch removes.
const AT_A_TIME: usize = 1_000;

/// Begins the removal, unless there is no such consumer. Returns the version of the mark.
///
/// # Failure Behavior and Persistence
/// When it returns, the consumer is gone for everybody.
pub(crate) fn begin(
	store: &Arc<dyn Store>, keys: &ConsumerKeys,
) -> Result<Option<Version>, LogError> {
	loop {
		let Some(record) = store.get(&keys.consumer).wait()? else { return Ok(None) };
		if records::read::<ConsumerV1>(&keys.consumer, &record)?.watermark == REMOVED {
			return Ok(Some(record.version));
		}
		let mut batch = Batch::new();
		batch.expect(keys.consumer.clone(), Expectation::Version(record.version));
		batch.put(keys.consumer.clone(), records::value(&ConsumerV1::at(REMOVED)));
		// A handle elsewhere that still has deliveries settles nothing any more. The record stays when
		// all others are gone: a handle must not take a later consumer of this name for its own.
		Owner::pass_on(store, &keys.owner, &mut batch)?;
		match store.commit(batch).wait() {
			Ok(committed) => return Ok(Some(committed.version())),
			// Its acks were folded meanwhile, or it was taken over.
			Err(StoreError::Conflict { .. }) => {},
			Err(error) => return Err(error.into()),
		}
	}
}

/// Finishes a removal that has begun. It may be called again after a crash. If another handle
/// finishes it first, there is nothing left to do: the consumer of this name is a new one then, and
/// is not touched.
///
/// # Failure Behavior and Persistence
/// When it returns, a consumer of the same name begins anew. A crash before that leaves the mark.
pub(crate) fn finish(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, mark: Version,
) -> Result<(), LogError> {
	let mark = (&keys.consumer, Expectation::Version(mark));
	let emptied = empty(store, keys, &mark).and_then(|()| {
		let mut batch = Batch::new();
		batch.expect(mark.0.clone(), mark.1);
		batch.delete(keys.consumer.clone());
		Ok(store.commit(batch).wait().map(|_| ())?)
	});
	match emptied {
		Err(LogError::Store(StoreError::Conflict { .. })) => Ok(()),
		done => done,
	}
}

/// Removes the acks, retries and dead letters of a consumer, damaged ones as well, for as long as its
/// record is as expected. Before a consumer is created, what a handle behind another layer around the store may
/// have written after the removal of the last one of its name goes in the same way.
pub(crate) fn empty(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, expected: &(&Key, Expectation),
) -> Result<(), LogError> {
	// One for the expectation.
	let most = store.guarantees().max_writes.saturating_sub(1).clamp(1, AT_A_TIME);
	for range in keys.all() {
		let mut rest = Some(range);
		while let Some(range) = rest.take() {
			let scanned = store.scan(range.clone(), most).wait();
			let page = block_on(store, read_around_damage(store, range, most, scanned))?;
			if page.records.is_empty() {
				break;
			}
			let mut batch = Batch::new();
			batch.durability(Durability::Lazy).expect(expected.0.clone(), expected.1);
			for (key, _) in &page.records {
				batch.delete(key.clone());
			}
			store.commit(batch).wait()?;
			rest = page.rest;
		}
	}
	Ok(())
}
