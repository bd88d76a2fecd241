// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which callback is next.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use leyden_store::{
	block_on, read_around_damage, Batch, DamagedPage, Durability, Expectation, KeyRange,
	StoreError, Ticket, Times, Timestamp,
};

use crate::callback::Callback;
use crate::error::OutboxError;
use crate::events::OutboxEvent;
use crate::outbox::{sequence, Lease, Outbox, State};
use crate::records::{self, DoubtV1, End, IndexV1, ItemV1, OpenV1};
use crate::response::{classify_response, is_not_found, CallbackFacts, Reply, Taken, Verdict};
use crate::settle::{Ended, Prepared, Settled, Settling};
use crate::state_machine;

/// Callbacks that are looked at to choose, besides those on their way: of those that are due longest, of those with the
/// nearest deadline in blocks, and of those with the nearest in time.
const WINDOW: usize = 64;
/// The looks at one endpoint in one go, while all that is found has to wait for others.
const MAX_LOOKS: usize = 16;
/// The time after which it is told that callbacks do not expire, or are not dropped.
const NEGLECTED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A callback that is ours to send, until [`settle`](Claim::settle) or the end of the lease. Dropped,
/// it is free again at once.
#[must_use = "dropped, the callback is free for others"]
pub struct Claim {
	pub(crate) outbox: Outbox,
	pub(crate) callback: Callback,
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
	/// [`OutboxError::Store`]. A damaged record holds up its own callback and those with its order key, and
	/// is told to the [observer](crate::OutboxOptions::observer).
	///
	/// # Failure Behavior and Persistence
	/// When it returns, it is durable that the callback may have been sent: a process that ends then leaves
	/// a [doubt](Taken::Maybe), and a handle that was fenced is told before anything is sent. The lease is
	/// not written down, and ends with the process. A callback that must wait for another with its order
	/// key is taken out of those that are due, lazily: lost in a crash, it is done again.
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
		self.unlock(state);
		Marking::of(claims).wait()
	}

	/// With what was claimed before it failed, which must not be dropped under the lock.
	fn claim_more(&self, state: &mut State, height: u32, limit: usize) -> Claimed {
		let times = self.0.clock.look();
		let now = times.running;
		state.free_late(now);
		Self::tell_neglected(state, now);
		let (count, first) = (state.endpoints.len(), state.turn);
		let mut claims = Vec::new();
		for step in 0..count {
			let at = (first + step) % count;
			let Some((end, endpoint)) = state.endpoints.get_mut(at) else { continue };
			let most = endpoint.limit(now);
			let room = most.saturating_sub(endpoint.in_flight).min(limit - claims.len());
			if room == 0 {
				continue;
			}
			let (end, before) = (*end, claims.len());
			// Behind what had to step back may be what need not wait.
			for _ in 0..MAX_LOOKS {
				match self.claim_of(state, &end, (height, times), room, &mut claims) {
					Ok(stepped) if stepped > 0 && claims.len() == before => {},
					Ok(_) => break,
					Err(error) => return Err((claims, error)),
				}
			}
			if claims.len() > before {
				state.turn = at + 1;
			}
		}
		match self.mark_sent(&claims) {
			Ok(marked) => Ok((claims, marked)),
			Err(error) => Err((claims, error.into())),
		}
	}

	/// Writes down that these are about to be sent: also where that is known, so that a handle that was
	/// fenced hands nothing out.
	fn mark_sent(&self, claims: &[Claim]) -> Result<Ticket<()>, StoreError> {
		let mut batch = Batch::new();
		for claim in claims {
			let key = records::open_key(claim.callback.sequence().get());
			batch.expect(key.clone(), Expectation::Present);
			batch.put(key, records::value(&claim.open)?);
		}
		if batch.is_empty() {
			return Ok(Ticket::ready(Ok(())));
		}
		Ok(self.0.store.commit(batch).then(|committed| committed.map(|_| ())))
	}

	fn claim_of(
		&self, state: &mut State, end: &End, (height, times): (u32, Times), room: usize,
		claims: &mut Vec<Claim>,
	) -> Result<usize, OutboxError> {
		let mut stepped = 0;
		let (schedule, full) = (self.0.options.schedule, claims.len() + room);
		let now = times.running;
		let window = WINDOW + state.leases.len() + state.damaged.len();
		let mut candidates = self.candidates(state, end, now, window)?;
		candidates.sort_by_key(|(number, candidate)| {
			let left = schedule.time_left(candidate.index.deadline, height, times.latest);
			(left.unwrap_or(Duration::MAX), candidate.due.unwrap_or_default(), *number)
		});
		for (number, Candidate { index, due }) in candidates {
			let lane = (*end, index.lane);
			if state.leases.contains_key(&number) {
				continue;
			}
			if let Some(holder) = state.busy.get(&lane) {
				// It has to wait, and hides no other meanwhile: the end of the holder makes it due again. An
				// end that is being written has done so. One before the holder was requeued, and is next.
				let is_settling = state.leases.get(holder).is_none_or(|lease| lease.settling);
				if let Some(due) = due.filter(|_| number > *holder && !is_settling) {
					self.step_back(end, due, number);
					stepped += 1;
				}
				continue;
			}
			// What is due was written together with this; what is urgent may have to wait.
			let open = self.open_record(number);
			let Some(Some(open)) = self.unless_damaged(state, number, open)? else { continue };
			if open.due > now {
				continue;
			}
			if !self.is_first(end, &index, number)? {
				if let Some(due) = due {
					self.step_back(end, due, number);
					stepped += 1;
				}
				continue;
			}
			let item = self.item(number);
			let Some(item) = self.unless_damaged(state, number, item)? else { continue };
			// It is too late for it: it expires, and is not sent.
			if item.deadline.is_past(height, times.wall.min(times.steady)) {
				continue;
			}
			state.next_token += 1;
			let lease = Lease {
				token: state.next_token,
				end: *end,
				lane: index.lane,
				until: now.after(self.0.options.lease),
				settling: false,
				landed: false,
				is_probe: state.endpoint(end).is_some_and(|endpoint| endpoint.paused.is_some()),
			};
			state.leases.insert(number, lease);
			state.busy.insert(lane, number);
			if let Some(endpoint) = state.endpoint(end) {
				endpoint.in_flight += 1;
			}
			let callback = item.callback(sequence(number));
			let open = state_machine::before_try(&open);
			claims.push(Claim { outbox: self.clone(), callback, open, lease });
			if claims.len() == full {
				break;
			}
		}
		Ok(stepped)
	}

	/// What may be chosen, by number.
	fn candidates(
		&self, state: &mut State, end: &End, now: Timestamp, window: usize,
	) -> Result<Vec<(u64, Candidate)>, OutboxError> {
		let mut found = BTreeMap::new();
		let ranges = [records::urgent(end, 0), records::urgent(end, 1), records::due(end, now)];
		for (place, range) in ranges.into_iter().enumerate() {
			for (key, record) in self.scan_around_damage(range, window)?.records {
				let number = records::number_of(&key)?;
				let index = record.and_then(|record| records::read::<IndexV1>(&key, &record));
				let Some(index) = self.unless_damaged(state, number, index)? else { continue };
				let due = if place == 2 { Some(records::due_of(&key)?) } else { None };
				found.insert(number, Candidate { index, due });
			}
		}
		Ok(found.into_iter().collect())
	}

	/// Whether it is the first with its order key.
	fn is_first(&self, end: &End, index: &IndexV1, number: u64) -> Result<bool, OutboxError> {
		let lane = KeyRange::prefix(records::LANES, &records::lane_prefix(end, &index.lane));
		// The key says it all.
		let page = self.scan_around_damage(lane, 1)?;
		let first = page.records.first().map(|(key, _)| records::number_of(key)).transpose()?;
		Ok(first == Some(number))
	}

	/// Scans a range; a damaged record is an error in its place.
	pub(crate) fn scan_around_damage(
		&self, range: KeyRange, limit: usize,
	) -> Result<DamagedPage, OutboxError> {
		let store = &*self.0.store;
		let scanned = store.scan(range.clone(), limit).wait();
		Ok(block_on(store, read_around_damage(store, range, limit, scanned))?)
	}

	/// The record of a callback that is still to be sent; `None` if it is not.
	pub(crate) fn open_record(&self, number: u64) -> Result<Option<OpenV1>, StoreError> {
		let key = records::open_key(number);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let open: OpenV1 = records::read(&key, &record)?;
		// What became of it since the copy was made is not in the copy.
		let doubt = match number <= self.0.restored_up_to {
			true => DoubtV1::InDoubt,
			false => open.doubt,
		};
		Ok(Some(OpenV1 { doubt, ..open }))
	}

	/// The item of a callback that must be there.
	pub(crate) fn item(&self, number: u64) -> Result<ItemV1, StoreError> {
		let key = records::item_key(number);
		match self.0.store.get(&key).wait()? {
			Some(record) => records::read(&key, &record),
			None => Err(StoreError::corrupt(&key, "a callback that is not over is not there")),
		}
	}

	/// One callback's damage is not another's: it is told, and the callback is passed over.
	pub(crate) fn unless_damaged<T>(
		&self, state: &mut State, number: u64, found: Result<T, StoreError>,
	) -> Result<Option<T>, OutboxError> {
		match found {
			Ok(found) => Ok(Some(found)),
			Err(error @ StoreError::Corrupt { .. }) => {
				state.damaged.insert(number);
				if state.told.insert(number) {
					let sequence = sequence(number);
					state.events.push(OutboxEvent::Damaged { sequence, error });
				}
				Ok(None)
			},
			Err(error) => Err(error.into()),
		}
	}

	/// Tells that callbacks are sent and never expire, or are never dropped.
	fn tell_neglected(state: &mut State, now: Timestamp) {
		let expired_at = *state.expired_at.get_or_insert(now);
		let compacted_at = *state.compacted_at.get_or_insert(now);
		for (method, at) in [("expire", expired_at), ("compact", compacted_at)] {
			if now.since(at) >= NEGLECTED_AFTER && state.neglected.insert(method) {
				state.events.push(OutboxEvent::Neglected { method });
			}
		}
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

/// A delivery that has come back.
pub struct CompletedDelivery {
	/// The claim of the callback.
	pub claim: Claim,
	/// The reply.
	pub reply: Reply,
	/// The reply in words, for an operator.
	pub detail: String,
}

/// Claims and the ticket of their mark; or an error, and what was claimed before it.
type Claimed = Result<(Vec<Claim>, Ticket<()>), (Vec<Claim>, OutboxError)>;

/// Claims whose mark is being written.
struct Marking(Result<(Vec<Claim>, Ticket<()>), OutboxError>);

impl Marking {
	fn of(claims: Claimed) -> Self {
		Self(claims.map_err(|(_, error)| error))
	}

	/// Nothing is sent before its mark is durable.
	fn wait(self) -> Result<Vec<Claim>, OutboxError> {
		let (claims, marked) = self.0?;
		marked.wait()?;
		Ok(claims)
	}
}

/// The answer to [`Outbox::settle_and_claim`].
#[derive(Debug)]
pub struct SettleAndClaim {
	/// The fate of each delivery that had come back, in order.
	pub settling: Vec<Result<Settling, OutboxError>>,
	/// The callbacks that are to be sent next; they need not wait for that.
	pub claims: Result<Vec<Claim>, OutboxError>,
}

impl Outbox {
	/// Settles the deliveries that have come back, as [`Claim::reply`] does, and claims up to `limit` more
	/// callbacks. With many callbacks in flight it is faster than one after the other: the store writes all
	/// of it at once.
	///
	/// # Failure Behavior and Persistence
	/// A delivery is settled durably when its [`Settling`] says so. Claims are as those of
	/// [`claim`](Outbox::claim).
	pub fn settle_and_claim(
		&self, completed: Vec<CompletedDelivery>, height: u32, limit: usize,
	) -> SettleAndClaim {
		let mut state = self.0.state.lock();
		// First everything that is read, and then everything that is written: a read waits for what was
		// written before it.
		let prepare = |CompletedDelivery { claim, reply, detail }: &CompletedDelivery| {
			claim.prepare_reply(&mut state, *reply, height, detail)
		};
		let prepared: Vec<_> = completed.iter().map(prepare).collect();
		let claims = self.claim_more(&mut state, height, limit);
		let settling =
			prepared.into_iter().map(|prepared| prepared.map(Prepared::submit)).collect();
		self.unlock(state);
		SettleAndClaim { settling, claims: Marking::of(claims).wait() }
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
	/// Returns the callback that is to be sent.
	pub fn callback(&self) -> &Callback {
		&self.callback
	}

	/// Returns how often it was sent before and failed.
	pub fn failures(&self) -> u32 {
		self.open.failures
	}

	/// Returns whether an earlier try may have been taken. This one is not counted.
	pub fn taken_before(&self) -> Taken {
		match self.open.doubt {
			DoubtV1::None | DoubtV1::Sent => Taken::No,
			DoubtV1::InDoubt => Taken::Maybe,
		}
	}

	/// Returns until when it is ours, in [`running`](Times::running) time.
	pub fn until(&self) -> Timestamp {
		self.lease.until
	}

	/// Returns what a reply means for it, by [`classify_response`].
	pub fn classify(&self, reply: Reply, height: u32) -> Verdict {
		let options = &self.outbox.0.options;
		let times = self.outbox.0.clock.look();
		let not_found_since = self.open.not_found_ms.unwrap_or(times.lived_ms);
		let facts = CallbackFacts {
			failures: self.open.failures.saturating_add(1),
			not_found_for: times.lived_since(not_found_since),
			time_left: options.schedule.time_left(self.callback.deadline(), height, times.latest),
			not_found_ttl: options.not_found_ttl,
			jitter: self.callback.sequence().get() ^ times.running.0,
		};
		classify_response(reply, &facts, &options.schedule)
	}

	/// Takes the reply: [classifies](Claim::classify) it, writes down what follows, and notes whether the
	/// endpoint is well.
	///
	/// # Errors
	/// [`OutboxError::LeaseLost`], [`OutboxError::Store`].
	///
	/// # Failure Behavior and Persistence
	/// As [`settle`](Claim::settle).
	pub fn reply(self, reply: Reply, height: u32, detail: &str) -> Result<Settled, OutboxError> {
		let outbox = self.outbox.clone();
		let mut state = outbox.0.state.lock();
		let prepared = self.prepare_reply(&mut state, reply, height, detail);
		let settling = prepared.map(Prepared::submit);
		outbox.unlock(state);
		settling?.wait()
	}

	fn prepare_reply(
		&self, state: &mut State, reply: Reply, height: u32, detail: &str,
	) -> Result<Prepared, OutboxError> {
		let verdict = self.classify(reply, height);
		let times = self.outbox.0.clock.look();
		let (now, schedule) = (times.running, self.outbox.0.options.schedule);
		let mut event = None;
		if let Some(endpoint) = state.endpoint(&self.lease.end) {
			let options = endpoint.options;
			match is_down(reply) {
				true => endpoint.breaker.failed(&options.breaker, now),
				false => endpoint.breaker.answered(),
			}
			if endpoint.paused.is_some() && self.lease.is_probe {
				let left = schedule.time_left(self.callback.deadline(), height, times.latest);
				let most = left.map(|left| left / schedule.tries_left.max(1));
				let most = most.map(|most| most.max(schedule.shortest));
				endpoint.probes.failed(&options.probes, now, most);
			}
			let is_skewed = matches!(reply, Reply::Status { clock_skew: true, .. });
			if is_skewed && !endpoint.is_skewed {
				let (endpoint, reason) = (endpoint.name.clone(), detail.to_owned());
				event = Some(OutboxEvent::ClockSkew { endpoint, reason });
			}
			endpoint.is_skewed &= is_skewed || !reply.lets_in();
			endpoint.is_skewed |= is_skewed;
		}
		state.events.extend(event);
		let ended = Ended {
			verdict,
			outcome: reply.outcome(),
			is_not_found: is_not_found(&reply),
			lets_in: reply.lets_in(),
		};
		self.prepare(state, ended, detail)
	}
}

/// Whether the endpoint does not work, rather than this callback.
fn is_down(reply: Reply) -> bool {
	match reply {
		Reply::Status { code, .. } => matches!(code, 408 | 429 | 500..=599),
		Reply::Timeout | Reply::NoConnection | Reply::Broken => true,
		Reply::Unexplained | Reply::Forbidden => false,
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
