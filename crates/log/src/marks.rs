// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The marks of deliveries that an earlier process may have had, by which crashes are counted.

use leyden_store::{Batch, Durability, Expectation, Plan, Timestamp};

use crate::consumer::{Inner, State};
use crate::records::{self, RetryV1};
use crate::suspects::Mark;
use crate::types::Entry;
use crate::LogError;

impl Inner {
	/// Writes down that an entry is about to be delivered which an earlier process may have had, so
	/// that it is known if this process ends now. Returns `false` for any other entry.
	pub(crate) fn mark(
		&self, state: &mut State, entry: &Entry, (attempts, before): (u32, Option<RetryV1>),
		now: Timestamp,
	) -> Result<bool, LogError> {
		let index = entry.index().get();
		if !state.suspects.counts(index) || self.options.max_crashes.is_none() {
			return Ok(false);
		}
		let crashes = before.map_or(0, |before| before.crashes).saturating_add(1);
		let record = RetryV1 { attempts, not_before: Timestamp::default(), crashes };
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		self.owner.guard(&mut batch);
		batch.put(self.keys.retry(index), records::value(&record));
		let version = match self.run(Plan::new(batch, |committed| committed.version())) {
			Ok(version) => version,
			Err(error) => {
				state.lanes.free(entry.lane(), Some(index));
				return Err(error);
			},
		};
		state.suspects.marked(index, before, version, now);
		Ok(true)
	}

	/// Takes back the marks of entries that were delivered long ago: if this process ends now, that is
	/// not because of them.
	pub(crate) fn unmark(&self, state: &mut State, now: Timestamp) {
		for (index, mark) in state.suspects.take_old(now) {
			self.put_back(index, mark);
		}
	}

	/// Writes what was there before a mark, unless something else was written since. Nobody waits:
	/// without it, the next process counts a crash that was none.
	pub(crate) fn put_back(&self, index: u64, Mark { before, version, .. }: Mark) {
		let key = self.keys.retry(index);
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		self.owner.guard(&mut batch);
		batch.expect(key.clone(), Expectation::Version(version));
		match before {
			Some(before) => batch.put(key, records::value(&before)),
			None => batch.delete(key),
		};
		drop(self.log.store().commit(batch));
	}
}
