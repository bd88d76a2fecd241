// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A consumer gets another name.
//!
//! Its records are copied under the new name first, where nobody looks at them, because that name has
//! no consumer. One batch then gives the new name its record and marks the old one as removed. A crash
//! before that batch leaves the consumer as it was, and one behind it leaves a removal to be finished.

use std::sync::Arc;

use leyden_store::{Batch, Durability, Expectation, Store};

use crate::owner::Owner;
use crate::records::{self, ConsumerKeys, ConsumerV1};
use crate::removal::{self, REMOVED};
use crate::{reset, LogError};

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
	store: &Arc<dyn Store>, from: &ConsumerKeys, to: &ConsumerKeys,
) -> Result<bool, LogError> {
	reset::finish_what_was_begun(store, from)?;
	reset::finish_what_was_begun(store, to)?;
	let Some(record) = store.get(&from.consumer).wait()? else { return Ok(false) };
	let consumer: ConsumerV1 = records::read(&from.consumer, &record)?;
	let unchanged = (&from.consumer, Expectation::Version(record.version));
	let absent = (&to.consumer, Expectation::Absent);
	removal::empty(store, to, &absent)?;
	// Two for the expectations.
	let most = store.guarantees().max_writes.saturating_sub(2).clamp(1, AT_A_TIME);
	for range in from.all() {
		let mut rest = Some(range);
		while let Some(range) = rest.take() {
			let page = store.scan(range, most).wait()?;
			let mut batch = Batch::new();
			batch.durability(Durability::Lazy);
			for (key, expected) in [&unchanged, &absent] {
				batch.expect((*key).clone(), *expected);
			}
			for (key, record) in page.records {
				if let Some(key) = from.key_for(to, &key) {
					batch.put(key, record.value);
				}
			}
			store.commit(batch).wait()?;
			rest = page.rest;
		}
	}
	let mut batch = Batch::new();
	for (key, expected) in [&unchanged, &absent] {
		batch.expect((*key).clone(), *expected);
	}
	batch.put(to.consumer.clone(), records::value(&consumer));
	batch.put(from.consumer.clone(), records::value(&ConsumerV1::at(REMOVED)));
	// A handle elsewhere settles nothing any more.
	Owner::pass_on(store, &from.owner, &mut batch)?;
	let mark = store.commit(batch).wait()?.version();
	removal::finish(store, from, mark)?;
	Ok(true)
}
