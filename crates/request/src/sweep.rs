// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Forgetting, in steps.

use leyden_store::{Batch, Durability, Expectation, Key, StoreError, Version};

use crate::error::RequestError;
use crate::quota::Change;
use crate::records::{self, RequestV1, StateV1, TimeV1};
use crate::requests::Requests;

/// Most requests that one sweep looks at.
const MAX_SWEEP: usize = 1024;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
	/// Requests whose answers are not kept any more.
	pub expired: usize,
	/// Requests that are not remembered any more.
	pub forgotten: usize,
	/// There is more to do.
	pub more: bool,
}

impl Requests {
	/// Drops answers whose time is over, and forgets what need not be remembered any more; looks at
	/// no more than `limit` requests.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Lazy: what a crash undoes is done again.
	pub fn sweep(&self, limit: usize) -> Result<Swept, RequestError> {
		let now = self.time().steady;
		if limit == 0 {
			return Ok(Swept::default());
		}
		let page = self.store().scan(records::due(now), limit.min(MAX_SWEEP)).wait()?;
		let mut swept = Swept { more: page.rest.is_some(), ..Swept::default() };
		let mut tickets = Vec::new();
		for (time, _) in page.records {
			let hash = records::hash_of(&time)?;
			let key = records::request_key(&hash);
			let Some(found) = self.store().get(&key).wait()? else {
				let batch = lazily(|batch| {
					batch.delete(time);
				});
				tickets.push((None, self.store().commit(batch)));
				continue;
			};
			if self.is_running(&hash) {
				continue;
			}
			let record: RequestV1 = records::read(&key, &found)?;
			let mut batch = lazily(|batch| {
				batch.expect(key.clone(), Expectation::Version(found.version));
				batch.delete(time.clone());
			});
			if records::time_key(record.look_at, &hash) != time {
				// A place in the queue that was taken again since.
				tickets.push((None, self.store().commit(batch)));
			} else if now >= record.forget_at {
				batch.delete(key);
				let scope = scope_of(&time)?;
				let ticket =
					self.quotas().commit(&**self.store(), scope, Change::Less, u64::MAX, batch)?;
				tickets.push((Some(scope), ticket));
				swept.forgotten += 1;
			} else {
				swept.expired += usize::from(matches!(record.state, StateV1::Answered { .. }));
				retire(&mut batch, &hash, record)?;
				tickets.push((None, self.store().commit(batch)));
			}
		}
		for (scope, ticket) in tickets {
			let done = ticket.wait();
			if let Some(scope) = scope {
				self.quotas().ended(&scope, Change::Less, done.is_ok());
			}
			match done {
				// Somebody is at it just now; the next sweep comes by.
				Ok(_) | Err(StoreError::Conflict { .. }) => {},
				Err(error) => return Err(error.into()),
			}
		}
		Ok(swept)
	}
}

impl Requests {
	/// Drops an answer whose time is over, now that somebody has come by.
	pub(crate) fn prune(
		&self, hash: &[u8; 64], record: RequestV1, version: Version,
	) -> Result<(), RequestError> {
		let now = self.time().steady;
		if now < record.expires_at || !matches!(record.state, StateV1::Answered { .. }) {
			return Ok(());
		}
		let mut batch = lazily(|batch| {
			batch.expect(records::request_key(hash), Expectation::Version(version));
			batch.delete(records::time_key(record.look_at, hash));
		});
		retire(&mut batch, hash, record)?;
		// Nobody waits: what is not written is done by the next sweep.
		drop(self.store().commit(batch));
		Ok(())
	}
}

/// It is only remembered from now on.
fn retire(batch: &mut Batch, hash: &[u8; 64], record: RequestV1) -> Result<(), RequestError> {
	let state = match record.state {
		// What came of it is not known yet, and may still be asked for.
		StateV1::Started => StateV1::Started,
		StateV1::Released => StateV1::Released,
		StateV1::Answered { .. } | StateV1::Remembered => StateV1::Remembered,
	};
	let record = RequestV1 { look_at: record.forget_at, state, ..record };
	batch.put(records::time_key(record.look_at, hash), records::value(&TimeV1 {})?);
	batch.put(records::request_key(hash), records::value(&record)?);
	Ok(())
}

fn lazily(fill: impl FnOnce(&mut Batch)) -> Batch {
	let mut batch = Batch::new();
	batch.durability(Durability::Lazy);
	fill(&mut batch);
	batch
}

fn scope_of(time: &Key) -> Result<[u8; 32], StoreError> {
	let hash = records::hash_of(time)?;
	let scope = hash.first_chunk::<32>().copied();
	scope.ok_or_else(|| StoreError::corrupt(time, "this is no time and request"))
}
