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

use leyden_store::{Batch, Durability, Expectation, KeyRange, Store};

use crate::records::{self, ConsumerKeys, ConsumerV1};
use crate::LogError;

/// The watermark of a consumer that is being removed.
pub(crate) const REMOVED: u64 = u64::MAX;

/// The number of records that one batch removes.
const AT_A_TIME: usize = 1_000;

/// Begins the removal, unless there is no such consumer. Returns `true` if there was one.
///
/// # Failure Behavior and Persistence
/// When it returns, the consumer is gone for everybody.
pub(crate) fn begin(store: &Arc<dyn Store>, keys: &ConsumerKeys) -> Result<bool, LogError> {
	let Some(record) = store.get(&keys.consumer).wait()? else { return Ok(false) };
	let mut batch = Batch::new();
	batch.expect(keys.consumer.clone(), Expectation::Version(record.version));
	batch.put(keys.consumer.clone(), records::value(&ConsumerV1 { watermark: REMOVED }));
	// A handle elsewhere that still has deliveries settles nothing any more.
	batch.delete(keys.owner.clone());
	store.commit(batch).wait()?;
	Ok(true)
}

/// Finishes a removal that has begun. It may be called again after a crash.
///
/// # Failure Behavior and Persistence
/// When it returns, a consumer of the same name begins anew. A crash before that leaves the mark.
pub(crate) fn finish(store: &Arc<dyn Store>, keys: &ConsumerKeys) -> Result<(), LogError> {
	for range in [keys.acks(), keys.retries(), keys.dead_from(0)] {
		remove_all(store, range)?;
	}
	let mut batch = Batch::new();
	batch.delete(keys.consumer.clone());
	store.commit(batch).wait()?;
	Ok(())
}

fn remove_all(store: &Arc<dyn Store>, range: KeyRange) -> Result<(), LogError> {
	let mut rest = Some(range);
	while let Some(range) = rest.take() {
		let page = store.scan(range, AT_A_TIME).wait()?;
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		for (key, _) in &page.records {
			batch.delete(key.clone());
		}
		if !batch.is_empty() {
			store.commit(batch).wait()?;
		}
		rest = page.rest;
	}
	Ok(())
}
