// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What became of a callback.

use leyden_store::{Batch, Expectation, Key, KeyRange, Plan, StoreError, Ticket, Times, Timestamp};

use crate::callback::Callback;
use crate::claim::Claim;
use crate::error::OutboxError;
use crate::judge::Verdict;
use crate::outbox::{Outbox, State};
use crate::records::{self, DeadV1, End, EndV1, IndexV1, ItemV1, OpenV1, PausedV1};
use crate::tidy::Why;
use crate::MAX_REASON_CHARS;

/// How a try ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
	/// It was taken.
	Done,
	/// The callback is tried again, then, in [`running`](Times::running) time.
	Again(Timestamp),
	/// Nothing is sent to its endpoint any more, until somebody says so.
	Paused,
	/// It was put aside.
	Dead,
	/// It was too late.
	Expired,
}

impl Claim {
	/// Says what became of it.
	///
	/// # Errors
	/// [`OutboxError::LeaseLost`] if it took too long and somebody else was given it; the store's: then
	/// the callback is sent again.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns. If the process dies before, the callback is sent again, under the same
	/// id.
	pub fn settle(self, verdict: Verdict, said: &str) -> Result<Settled, OutboxError> {
		let outbox = self.outbox.clone();
		let mut state = outbox.0.state.lock();
		let prepared = self.prepare(&mut state, verdict, said);
		let settling = prepared.map(Prepared::submit);
		drop(state);
		settling?.wait()
	}

	/// Works out what its outcome changes. Under the lock, up to [`Prepared::submit`]: what it read must be
	/// so when it is written.
	pub(crate) fn prepare(
		&self, state: &mut State, verdict: Verdict, said: &str,
	) -> Result<Prepared, OutboxError> {
		let outbox = self.outbox.clone();
		let number = self.callback.sequence().get();
		let now = outbox.0.clock.look();
		match state.leases.get_mut(&number) {
			Some(lease) if lease.token == self.lease.token => lease.settling = true,
			_ => return Err(OutboxError::LeaseLost),
		}
		let said = cut(said);
		let end = self.lease.end;
		match outbox.outcome(state, self, &verdict, now, &said) {
			Ok(plan) => {
				// Its endpoint has room for another.
				state.landed(number);
				Ok(Prepared { outbox, number, plan, end, verdict, said, now })
			},
			Err(error) => {
				state.free(number);
				Err(error)
			},
		}
	}
}

/// An outcome that is to be written.
pub(crate) struct Prepared {
	outbox: Outbox,
	number: u64,
	plan: Plan<()>,
	end: End,
	verdict: Verdict,
	said: String,
	now: Times,
}

impl Prepared {
	/// Hands it to the store. The order key is free when it is durable.
	pub(crate) fn submit(self) -> Settling {
		let Self { outbox, number, plan, end, verdict, said, now } = self;
		let ticket = Some(plan.commit(&*outbox.0.store));
		Settling { outbox, number, end, verdict, said, now, ticket }
	}
}

/// An outcome that is on its way to the disk. Others with its order key wait until it is waited for, or
/// dropped.
#[must_use = "it is durable when it was waited for"]
pub struct Settling {
	outbox: Outbox,
	number: u64,
	end: End,
	verdict: Verdict,
	said: String,
	now: Times,
	ticket: Option<Ticket<()>>,
}

impl Settling {
	/// Until it is durable.
	///
	/// # Errors
	/// The store's: then the callback is sent again.
	pub fn wait(mut self) -> Result<Settled, OutboxError> {
		let done = self.ticket.take().map_or(Ok(()), Ticket::wait);
		self.done(done)
	}

	/// As [`wait`](Settling::wait), for a task.
	///
	/// # Errors
	/// As [`wait`](Settling::wait).
	pub async fn durable(mut self) -> Result<Settled, OutboxError> {
		let done = match self.ticket.as_mut() {
			Some(ticket) => ticket.await,
			None => Ok(()),
		};
		self.ticket = None;
		self.done(done)
	}

	fn done(&mut self, done: Result<(), StoreError>) -> Result<Settled, OutboxError> {
		let (now, said) = (self.now, std::mem::take(&mut self.said));
		let mut state = self.outbox.0.state.lock();
		state.free(self.number);
		done?;
		Ok(match self.verdict {
			Verdict::Done => Settled::Done,
			Verdict::RetryAfter(pause) | Verdict::Snooze(pause) => {
				Settled::Again(now.running.after(pause))
			},
			Verdict::Pause => {
				if let Some(endpoint) = state.endpoint(&self.end) {
					endpoint.paused = Some(PausedV1 { at: now.wall, reason: said });
				}
				Settled::Paused
			},
			Verdict::Dead => Settled::Dead,
			Verdict::Expired => Settled::Expired,
		})
	}
}

impl std::fmt::Debug for Settling {
	fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
		write!(f, "Settling({}, {:?})", self.number, self.verdict)
	}
}

/// Nobody waits for it any more. Whether it is durable shows when it is claimed again.
impl Drop for Settling {
	fn drop(&mut self) {
		if self.ticket.take().is_some() {
			self.outbox.0.state.lock().free(self.number);
		}
	}
}

/// A callback that is to be settled.
#[derive(Clone, Copy)]
pub(crate) struct Letter<'a> {
	pub(crate) end: End,
	pub(crate) callback: &'a Callback,
	pub(crate) open: OpenV1,
}

impl Outbox {
	fn outcome(
		&self, state: &mut State, claim: &Claim, verdict: &Verdict, now: Times, said: &str,
	) -> Result<Plan<()>, OutboxError> {
		let (callback, open, end) = (&claim.callback, claim.open, claim.lease.end);
		let letter = Letter { end, callback, open };
		match verdict {
			Verdict::Done => {
				let mut batch = self.close(state, letter, now.running)?;
				if (self.0.options.forget)(callback) {
					let item = ItemV1::of(callback, claim.lived_ms).forgotten();
					let key = records::item_key(callback.sequence().get());
					batch.put(key, records::value(&item)?);
				}
				Ok(Plan::of(batch))
			},
			Verdict::RetryAfter(pause) => {
				let failures = open.failures.saturating_add(1);
				Ok(Plan::of(move_to(letter, now.running.after(*pause), failures)?))
			},
			Verdict::Snooze(pause) => {
				Ok(Plan::of(move_to(letter, now.running.after(*pause), open.failures)?))
			},
			Verdict::Pause => {
				let name = state.endpoint(&end).map(|endpoint| endpoint.name.clone());
				let paused = Some(PausedV1 { at: now.wall, reason: said.to_owned() });
				let record = EndV1 { name: name.unwrap_or_default(), paused };
				let mut batch = Batch::new();
				batch.put(records::end_key(&end), records::value(&record)?);
				Ok(Plan::of(batch))
			},
			Verdict::Dead => self.put_aside(state, letter, now, Why::Refused, said),
			Verdict::Expired => self.put_aside(state, letter, now, Why::Expired, said),
		}
	}

	/// It is not sent any more: a dead letter, and what is to be done about it.
	pub(crate) fn put_aside(
		&self, state: &State, letter: Letter<'_>, now: Times, why: Why, said: &str,
	) -> Result<Plan<()>, OutboxError> {
		let Letter { callback, open, .. } = letter;
		let mut batch = self.close(state, letter, now.running)?;
		let is_late = why == Why::Expired;
		let dead = DeadV1 {
			why: u8::from(is_late),
			at: now.wall,
			failures: open.failures,
			reason: cut(said),
		};
		batch.put(records::dead_key(callback.sequence().get()), records::value(&dead)?);
		let plan = Plan::of(batch);
		Ok(match &self.0.options.on_expired {
			Some(on_expired) if is_late => plan.and(on_expired(callback)).map(|((), ())| ()),
			_ => plan,
		})
	}

	/// It is over: out of every index, and the next with its order key is due.
	fn close(
		&self, state: &State, letter: Letter<'_>, now: Timestamp,
	) -> Result<Batch, OutboxError> {
		let Letter { end, callback, open } = letter;
		let number = callback.sequence().get();
		let lane = records::lane(callback.order_key());
		let mut batch = Batch::new();
		batch.expect(records::open_key(number), Expectation::Present);
		batch.delete(records::open_key(number));
		batch.delete(due_key(&end, open.due, number));
		let lane_prefix = records::lane_prefix(&end, &lane);
		batch.delete(Key::numbered(records::LANES, &lane_prefix, number));
		for prefix in records::urgent_prefixes(&end, callback.deadline()) {
			batch.delete(Key::numbered(records::URGENT, &prefix, number));
		}
		let lane = KeyRange::prefix(records::LANES, &lane_prefix);
		let page = self.0.store.scan(lane, 2).wait()?;
		// If it was not the first, the first is due already, or on its way.
		let [(first, _), (key, record)] = page.records.as_slice() else { return Ok(batch) };
		if records::number_of(first)? != number {
			return Ok(batch);
		}
		let next = records::number_of(key)?;
		// What is on its way already stays where it is in the indexes.
		if state.leases.contains_key(&next) {
			return Ok(batch);
		}
		let index: IndexV1 = records::read(key, record)?;
		let open_key = records::open_key(next);
		let Some(record) = self.0.store.get(&open_key).wait()? else { return Ok(batch) };
		let open: OpenV1 = records::read(&open_key, &record)?;
		// Its own pause, if it was sent before, still counts.
		let due = open.due.max(now);
		if due != open.due {
			batch.delete(due_key(&end, open.due, next));
			batch.put(open_key, records::value(&OpenV1 { due, ..open })?);
		}
		batch.put(due_key(&end, due, next), records::value(&index)?);
		Ok(batch)
	}
}

/// It is due at another time.
fn move_to(letter: Letter<'_>, due: Timestamp, failures: u32) -> Result<Batch, OutboxError> {
	let Letter { end, callback, open } = letter;
	let number = callback.sequence().get();
	let index =
		IndexV1 { lane: records::lane(callback.order_key()), deadline: callback.deadline() };
	let mut batch = Batch::new();
	batch.expect(records::open_key(number), Expectation::Present);
	if due != open.due {
		batch.delete(due_key(&end, open.due, number));
	}
	batch.put(due_key(&end, due, number), records::value(&index)?);
	batch.put(records::open_key(number), records::value(&OpenV1 { due, failures })?);
	Ok(batch)
}

pub(crate) fn due_key(end: &End, due: Timestamp, number: u64) -> Key {
	Key::numbered(records::DUE, &records::due_prefix(end, due), number)
}

fn cut(said: &str) -> String {
	said.chars().take(MAX_REASON_CHARS).collect()
}
