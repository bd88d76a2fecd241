// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which callback is next.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use leyden_store::{Batch, Durability, KeyRange, Times, Timestamp};

use crate::callback::Callback;
use crate::error::OutboxError;
use crate::judge::{judge, Facts, Reply, Verdict};
use crate::outbox::{read_index, sequence, Lease, Outbox, State};
use crate::records::{self, End, IndexV1, ItemV1, OpenV1};
use crate::settle::{Prepared, Settled, Settling};

/// Callbacks that are looked at to choose, besides those on their way: of those that are due longest, of those with the
/// nearest deadline in blocks, and of those with the nearest in time.
const WINDOW: usize = 64;

/// A callback that is ours to send, until [`settle`](Claim::settle) or the end of the lease. Dropped,
/// it is free again at once.
#[must_use = "dropped, the callback is free for others"]
pub struct Claim {
	pub(crate) outbox: Outbox,
	pub(crate) callback: Callback,
	/// The time that the store had lived when it was enqueued.
	pub(crate) lived_ms: u64,
	pub(crate) open: OpenV1,
	pub(crate) lease: Lease,
}

/// A callback that may be chosen.
#[derive(Clone, Copy)]
struct Candidate {
	index: IndexV1,
	/// `None` if it was found by its deadline.
	due: Option<Timestamp>,
}

impl Outbox {
	/// The callback that is to be sent next, or `None` if there is nothing to do now. `height` is that
	/// of the chain.
	///
	/// Of what is due, the one whose deadline is nearest; endpoints take turns.
	///
	/// # Errors
	/// The store's. A damaged record is one.
	///
	/// # Failure Behavior and Persistence
	/// A claim is not written down, and ends with the process. A callback that must wait for another
	/// with its order key is taken out of those that are due, lazily: lost in a crash, it is done again.
	pub fn claim(&self, height: u32) -> Result<Option<Claim>, OutboxError> {
		Ok(self.claim_up_to(height, 1)?.pop())
	}

	/// As [`claim`](Outbox::claim), up to so many at once: what is looked at to choose them is looked at
	/// once for all of them.
	///
	/// # Errors
	/// As [`claim`](Outbox::claim).
	///
	/// # Failure Behavior and Persistence
	/// As [`claim`](Outbox::claim).
	pub fn claim_up_to(&self, height: u32, limit: usize) -> Result<Vec<Claim>, OutboxError> {
		let mut state = self.0.state.lock();
		let claims = self.claim_more(&mut state, height, limit);
		// Before claims are dropped: each looks at the state then.
		drop(state);
		claims.map_err(|(_, error)| error)
	}

	/// With what was claimed before it failed, which must not be dropped under the lock.
	fn claim_more(
		&self, state: &mut State, height: u32, limit: usize,
	) -> Result<Vec<Claim>, (Vec<Claim>, OutboxError)> {
		let times = self.0.clock.look();
		let now = times.running;
		state.free_late(now);
		let (count, first) = (state.endpoints.len(), state.turn);
		let mut claims = Vec::new();
		for step in 0..count {
			let at = (first + step) % count;
			let Some((end, endpoint)) = state.endpoints.get(at) else { continue };
			let most = endpoint.breaker.limit(&endpoint.options, now);
			let room = most.saturating_sub(endpoint.in_flight).min(limit - claims.len());
			if endpoint.paused.is_some() || room == 0 {
				continue;
			}
			let (end, before) = (*end, claims.len());
			if let Err(error) = self.claim_of(state, &end, (height, times), room, &mut claims) {
				return Err((claims, error));
			}
			if claims.len() > before {
				state.turn = at + 1;
			}
		}
		Ok(claims)
	}

	fn claim_of(
		&self, state: &mut State, end: &End, (height, times): (u32, Times), room: usize,
		claims: &mut Vec<Claim>,
	) -> Result<(), OutboxError> {
		let (schedule, full) = (self.0.options.schedule, claims.len() + room);
		let now = times.running;
		let window = WINDOW + state.leases.len();
		let mut candidates: Vec<(u64, Candidate)> = self.candidates(end, now, window)?;
		candidates.sort_by_key(|(number, candidate)| {
			let left = schedule.time_left(candidate.index.deadline, height, times.latest);
			(left.unwrap_or(Duration::MAX), candidate.due.unwrap_or_default(), *number)
		});
		for (number, Candidate { index, due }) in candidates {
			let lane = (*end, index.lane);
			if state.leases.contains_key(&number) || state.busy.contains_key(&lane) {
				continue;
			}
			let open_key = records::open_key(number);
			// What is due was written together with this; what is urgent may have to wait.
			let Some(record) = self.0.store.get(&open_key).wait()? else { continue };
			let open: OpenV1 = records::read(&open_key, &record)?;
			if open.due > now {
				continue;
			}
			if !self.is_first(end, &index, number)? {
				if let Some(due) = due {
					self.step_back(end, due, number);
				}
				continue;
			}
			let key = records::item_key(number);
			let Some(record) = self.0.store.get(&key).wait()? else {
				let reason = "a callback that is to be sent is not there";
				return Err(leyden_store::StoreError::corrupt(&key, reason).into());
			};
			let item: ItemV1 = records::read(&key, &record)?;
			state.next_token += 1;
			let lease = Lease {
				token: state.next_token,
				end: *end,
				lane: index.lane,
				until: now.after(self.0.options.lease),
				settling: false,
				landed: false,
			};
			state.leases.insert(number, lease);
			state.busy.insert(lane, number);
			if let Some(endpoint) = state.endpoint(end) {
				endpoint.in_flight += 1;
			}
			let lived_ms = item.lived_ms;
			let callback = item.callback(sequence(number));
			claims.push(Claim { outbox: self.clone(), callback, lived_ms, open, lease });
			if claims.len() == full {
				break;
			}
		}
		Ok(())
	}

	/// What may be chosen, by number.
	fn candidates(
		&self, end: &End, now: Timestamp, window: usize,
	) -> Result<Vec<(u64, Candidate)>, OutboxError> {
		let mut found = BTreeMap::new();
		let ranges = [records::urgent(end, 0), records::urgent(end, 1), records::due(end, now)];
		for (place, range) in ranges.into_iter().enumerate() {
			for (key, record) in &self.0.store.scan(range, window).wait()?.records {
				let index = read_index(key, record)?;
				let due = if place == 2 { Some(records::due_of(key)?) } else { None };
				found.insert(records::number_of(key)?, Candidate { index, due });
			}
		}
		Ok(found.into_iter().collect())
	}

	/// Whether it is the first with its order key.
	fn is_first(&self, end: &End, index: &IndexV1, number: u64) -> Result<bool, OutboxError> {
		let lane = KeyRange::prefix(records::LANES, &records::lane_prefix(end, &index.lane));
		let page = self.0.store.scan(lane, 1).wait()?;
		let first = page.records.first().map(|(key, _)| records::number_of(key)).transpose()?;
		Ok(first == Some(number))
	}

	/// Takes a callback out of those that are due until the one before it is done: else a long queue of
	/// one key would stand in everybody's way.
	fn step_back(&self, end: &End, due: Timestamp, number: u64) {
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		let prefix = records::due_prefix(end, due);
		batch.delete(leyden_store::Key::numbered(records::DUE, &prefix, number));
		// Nobody waits: what is not written is tried again, and a store that fails says so elsewhere.
		drop(self.0.store.commit(batch));
	}
}

/// What came back for a callback, and what was said.
pub struct Returned {
	/// It.
	pub claim: Claim,
	/// What came back.
	pub reply: Reply,
	/// What was said.
	pub said: String,
}

/// What a [turn](Outbox::turn) came to.
#[derive(Debug)]
pub struct Turn {
	/// What becomes of each that had come back, in order.
	pub settling: Vec<Result<Settling, OutboxError>>,
	/// What is to be sent next; it need not wait for that.
	pub claims: Result<Vec<Claim>, OutboxError>,
}

impl Outbox {
	/// Settles what has come back, as [`Claim::reply`] does, and claims up to `limit` more, for who sends
	/// many at once: it is one turn of the store's for all of them.
	///
	/// # Failure Behavior and Persistence
	/// What is settled is durable when its [`Settling`] says so.
	pub fn turn(&self, returned: Vec<Returned>, height: u32, limit: usize) -> Turn {
		let mut state = self.0.state.lock();
		// First everything that is read, and then everything that is written: a read waits for what was
		// written before it.
		let prepare = |Returned { claim, reply, said }: &Returned| {
			claim.prepare_reply(&mut state, *reply, height, said)
		};
		let prepared: Vec<_> = returned.iter().map(prepare).collect();
		let claims = self.claim_more(&mut state, height, limit);
		let settling =
			prepared.into_iter().map(|prepared| prepared.map(Prepared::submit)).collect();
		drop(state);
		Turn { settling, claims: claims.map_err(|(_, error)| error) }
	}
}

impl State {
	/// Frees what was held for too long.
	fn free_late(&mut self, now: Timestamp) {
		let late = |(number, lease): (&u64, &Lease)| {
			(lease.until <= now && !lease.settling).then_some(*number)
		};
		let late: Vec<u64> = self.leases.iter().filter_map(late).collect();
		late.into_iter().for_each(|number| self.free(number));
	}
}

impl Claim {
	/// What is to be sent.
	pub fn callback(&self) -> &Callback {
		&self.callback
	}

	/// How often it was sent before and failed.
	pub fn failures(&self) -> u32 {
		self.open.failures
	}

	/// Returns until when it is ours, in [`running`](Times::running) time.
	pub fn until(&self) -> Timestamp {
		self.lease.until
	}

	/// What a reply means for it, by the [law](judge).
	pub fn judge(&self, reply: Reply, height: u32) -> Verdict {
		let options = &self.outbox.0.options;
		let times = self.outbox.0.clock.look();
		let facts = Facts {
			failures: self.open.failures.saturating_add(1),
			age: times.lived_since(self.lived_ms),
			time_left: options.schedule.time_left(self.callback.deadline(), height, times.latest),
			horizon: options.horizon,
			jitter: self.callback.sequence().get() ^ times.running.0,
		};
		judge(reply, &facts, &options.schedule)
	}

	/// Says what came back: [judges](Claim::judge) it, writes down what follows, and remembers whether
	/// the endpoint is well.
	///
	/// # Errors
	/// [`OutboxError::LeaseLost`], the store's.
	///
	/// # Failure Behavior and Persistence
	/// As [`settle`](Claim::settle).
	pub fn reply(self, reply: Reply, height: u32, said: &str) -> Result<Settled, OutboxError> {
		let outbox = self.outbox.clone();
		let mut state = outbox.0.state.lock();
		let prepared = self.prepare_reply(&mut state, reply, height, said);
		let settling = prepared.map(Prepared::submit);
		drop(state);
		settling?.wait()
	}

	fn prepare_reply(
		&self, state: &mut State, reply: Reply, height: u32, said: &str,
	) -> Result<Prepared, OutboxError> {
		let verdict = self.judge(reply, height);
		let now = self.outbox.0.clock.look().running;
		if let Some(endpoint) = state.endpoint(&self.lease.end) {
			let options = endpoint.options.breaker;
			match is_down(reply) {
				true => endpoint.breaker.failed(&options, now),
				false => endpoint.breaker.answered(),
			}
		}
		self.prepare(state, verdict, said)
	}
}

/// Whether the endpoint does not work, rather than this callback.
fn is_down(reply: Reply) -> bool {
	match reply {
		Reply::Status { code, .. } => matches!(code, 408 | 429 | 500..=599),
		Reply::Timeout | Reply::NoConnection | Reply::Broken => true,
		Reply::Forbidden => false,
	}
}

impl Drop for Claim {
	fn drop(&mut self) {
		let mut state = self.outbox.0.state.lock();
		let number = self.callback.sequence().get();
		let is_ours = |lease: &Lease| lease.token == self.lease.token && !lease.settling;
		if state.leases.get(&number).is_some_and(is_ours) {
			state.free(number);
		}
	}
}

impl fmt::Debug for Claim {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("Claim").field("callback", &self.callback).finish_non_exhaustive()
	}
}
