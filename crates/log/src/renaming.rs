// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A consumer gets another name.
//!
//! The first batch marks the new name as a consumer that is being removed, and takes the old one from
//! whatever handle has deliveries of it. Then the records are copied under the new name, where they count
//! for nobody, acks from the last to the first: what is folded meanwhile begins earlier. The last batch
//! gives the new name its record and the mark to the old one. A crash before that batch leaves the
//! consumer as it was, and one behind it leaves it renamed; in both cases a removal is left to be
//! finished.

use std::sync::Arc;

use leyden_store::{Batch, Durability, Expectation, Key, Store, StoreError, Version};

use crate::log::EventLog;
use crate::owner::Owner;
use crate::records::{self, ConsumerKeys, ConsumerV1};
use crate::removal::{self, REMOVED};
use crate::{creation, reset, LogError};

/// The most records that one batch copies.
const AT_A_TIME: usize = 1_000;

/// Renames the consumer at `from`. Returns `false` if there is none.
///
/// # Errors
/// A conflict if there is a consumer at `to`; the store's.
///
/// # Failure Behavior and Persistence
/// When it returns, the consumer has the new name. A crash before that leaves it with one of both.
pub(crate) fn rename(
	log: &EventLog, from: (&str, &ConsumerKeys), to: (&str, &ConsumerKeys),
) -> Result<bool, LogError> {
	let store = log.store();
	reset::finish_what_was_begun(store, from.1)?;
	loop {
		reset::finish_what_was_begun(store, to.1)?;
		match try_rename(log, from.1, to.1) {
			// Its acks were folded meanwhile, or a handle that cannot be seen from here took it over.
			Err(LogError::Store(StoreError::Conflict { key, .. })) if key != to.1.consumer => {},
			Ok(Some((consumer, mark))) => {
				let observers = &log.shared.observers;
				// The new one first: no request is settled meanwhile that it has not acked.
				observers.opened(to.0, consumer.watermark);
				observers.removed(from.0);
				if consumer.paused {
					observers.paused(to.0, true);
				}
				removal::finish(store, from.1, mark)?;
				return Ok(true);
			},
			Ok(None) => return Ok(false),
			Err(error) => return Err(error),
		}
	}
}

/// Returns the consumer under its new name, and the version of the mark under the old one.
fn try_rename(
	log: &EventLog, from: &ConsumerKeys, to: &ConsumerKeys,
) -> Result<Option<(ConsumerV1, Version)>, LogError> {
	let store = log.store();
	let absent = (&to.consumer, Expectation::Absent);
	removal::empty(store, to, &absent)?;
	let Some(record) = store.get(&from.consumer).wait()? else { return Ok(None) };
	let consumer: ConsumerV1 = records::read(&from.consumer, &record)?;
	if consumer.watermark == REMOVED {
		return Ok(None);
	}
	let unchanged = (&from.consumer, Expectation::Version(record.version));
	let mut batch = expecting(&[unchanged, absent]);
	batch.put(to.consumer.clone(), records::value(&ConsumerV1::at(REMOVED)));
	// A handle elsewhere settles nothing any more.
	Owner::pass_on(store, &from.owner, &mut batch)?;
	let marked = Expectation::Version(store.commit(batch).wait()?.version());
	// One commit has written the mark and the owner.
	let expected = [unchanged, (&to.consumer, marked), (&from.owner, marked)];
	copy(store, from, to, &expected)?;
	let mut batch = expecting(&expected);
	// As for a consumer that is created: what is trimmed at this moment goes by consumers that were read
	// before, under the old name or under none.
	creation::guard(log, &mut batch)?;
	batch.put(to.consumer.clone(), records::value(&consumer));
	batch.put(from.consumer.clone(), records::value(&ConsumerV1::at(REMOVED)));
	let mark = store.commit(batch).wait()?.version();
	Ok(Some((consumer, mark)))
}

/// Copies acks, retries and dead letters, for as long as everything is as expected.
fn copy(
	store: &Arc<dyn Store>, from: &ConsumerKeys, to: &ConsumerKeys,
	expected: &[(&Key, Expectation)],
) -> Result<(), LogError> {
	let most = store.guarantees().max_writes.saturating_sub(expected.len());
	let most = most.clamp(1, AT_A_TIME);
	for range in from.all() {
		let mut rest = Some(range.reversed());
		while let Some(range) = rest.take() {
			let page = store.scan(range, most).wait()?;
			let mut batch = expecting(expected);
			batch.durability(Durability::Lazy);
			for (key, record) in page.records {
				if let Some(key) = from.key_for(to, &key) {
					batch.put(key, record.value);
				}
			}
			store.commit(batch).wait()?;
			rest = page.rest;
		}
	}
	Ok(())
}

fn expecting(expected: &[(&Key, Expectation)]) -> Batch {
	let mut batch = Batch::new();
	for (key, expected) in expected {
		batch.expect((*key).clone(), *expected);
	}
	batch
}
