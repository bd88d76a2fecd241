// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Where a consumer begins: when it is created, and when it is reset.

use leyden_store::{Batch, Expectation, StoreError};

use crate::log::EventLog;
use crate::records::{self, ConsumerKeys, ConsumerV1, StreamV1};
use crate::removal::REMOVED;
use crate::types::Start;
use crate::{lookup, reset, LogError};

/// Creates the consumer; another handle may be faster.
pub(crate) fn create(log: &EventLog, keys: &ConsumerKeys, start: Start) -> Result<(), LogError> {
	let store = log.store();
	loop {
		let mut batch = Batch::new();
		let watermark = begin(log, start, &mut batch)?;
		batch.expect(keys.consumer.clone(), Expectation::Absent);
		batch.put(keys.consumer.clone(), records::value(&ConsumerV1::at(watermark)));
		match store.commit(batch).wait() {
			Ok(_) => return Ok(()),
			Err(StoreError::Conflict { .. }) => {},
			Err(error) => return Err(error.into()),
		}
		let Some(record) = store.get(&keys.consumer).wait()? else { continue };
		match records::read::<ConsumerV1>(&keys.consumer, &record)?.watermark {
			// The mark of a removal or a renaming, and no consumer.
			REMOVED => reset::finish_what_was_begun(store, keys)?,
			_ => return Ok(()),
		}
	}
}

/// Returns the watermark of a consumer that begins at `start`.
///
/// The batch writes the stream as well, as it was: entries that are being trimmed at this moment are
/// either trimmed before, and the consumer begins behind them, or not at all.
pub(crate) fn begin(log: &EventLog, start: Start, batch: &mut Batch) -> Result<u64, LogError> {
	let store = log.store();
	let trimmed = guard(log, batch)?;
	let head = || lookup::head(store, &log.shared.keys);
	Ok(match start {
		Start::Beginning => trimmed,
		Start::End => head()?.max(trimmed),
		// Behind the newest entry there is nothing to begin after.
		Start::After(index) => index.get().min(head()?).max(trimmed),
	})
}

/// Has the batch refused if something is trimmed meanwhile, and whatever is being trimmed refused after
/// the batch. Returns the index up to which entries were trimmed.
pub(crate) fn guard(log: &EventLog, batch: &mut Batch) -> Result<u64, LogError> {
	let (store, stream_key) = (log.store(), log.shared.keys.stream());
	let Some(record) = store.get(&stream_key).wait()? else { return Ok(0) };
	let stream: StreamV1 = records::read(&stream_key, &record)?;
	batch.expect(stream_key.clone(), Expectation::Version(record.version));
	batch.put(stream_key, records::value(&stream));
	Ok(stream.trimmed)
}
