// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The settlement of callbacks that were sent.

use leyden_store::{Batch, Expectation, Key, KeyRange, Plan, StoreError, Ticket, Times, Timestamp};

use crate::callback::Callback;
use crate::claim::Claim;
use crate::error::OutboxError;
use crate::events::OutboxEvent;
use crate::outbox::{sequence, Outbox, State};
use crate::records::{self, DeadV1, DoubtV1, End, EndV1, IndexV1, OpenV1, PausedV1, WhyV1};
use crate::response::{Taken, TryOutcome, Verdict};
use crate::state_machine::{self, Next, Try};
use crate::MAX_REASON_CHARS;

/// The outcome of a try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
	/// It was taken.
	Done,
	/// The callback is tried again at this [`running`](Times::running) time.
	RetryAt(Timestamp),
	/// The endpoint does not let this sender in, and is only probed.
	Paused,
	/// The callback is a dead letter.
	Dead,
	/// It was too late for the callback.
	Expired,
}

/// A try that has ended.
pub(crate) struct Ended {
	pub(crate) verdict: Verdict,
	pub(crate) outcome: TryOutcome,
	pub(crate) is_not_found: Option<bool>,
	/// The endpoint lets this sender in.
	pub(crate) lets_in: bool,
}

impl Claim {
	/// Settles the callback with a verdict of the caller's, for one that is not sent over HTTP. `outcome` is
	/// what this try says about itself; a doubt of an earlier try stays whatever it is.
	///
	/// # Errors
	/// [`OutboxError::LeaseLost`] if it took too long and another worker was given it;
	/// [`OutboxError::Store`]: then the callback is sent again.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns. If the process dies before, the callback is sent again, under the same
	/// id.
	pub fn settle(
		self, verdict: Verdict, outcome: TryOutcome, detail: &str,
	) -> Result<Settled, OutboxError> {
		let outbox = self.outbox.clone();
		let mut state = outbox.0.state.lock();
		let lets_in = verdict == Verdict::Done;
		let ended = Ended { verdict, outcome, is_not_found: None, lets_in };
		let prepared = self.prepare(&mut state, ended, detail);
		let settling = prepared.map(Prepared::submit);
		outbox.unlock(state);
		settling?.wait()
	}

	/// Works out what its outcome changes. Under the lock, up to [`Prepared::submit`]: what it read must be
	/// so when it is written.
	pub(crate) fn prepare(
		&self, state: &mut State, ended: Ended, said: &str,
	) -> Result<Prepared, OutboxError> {
		let outbox = self.outbox.clone();
		let number = self.callback.sequence().get();
		let now = outbox.0.clock.look();
		match state.leases.get_mut(&number) {
			Some(lease) if lease.token == self.lease.token => {},
			_ => return Err(OutboxError::LeaseLost),
		}
		let said = cut(said);
		let end = self.lease.end;
		match outbox.outcome(state, self, &ended, now, &said) {
			Ok((plan, next)) => {
				// Not before: a hook may panic.
				if let Some(lease) = state.leases.get_mut(&number) {
					lease.settling = true;
				}
				// Its endpoint has room for another.
				state.landed(number);
				let lets_in = ended.lets_in;
				let without_hook = outbox.without_hook(self, &next, &now);
				Ok(Prepared { outbox, number, plan, end, next, lets_in, said, now, without_hook })
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
	next: Next,
	lets_in: bool,
	said: String,
	now: Times,
	without_hook: Option<(Batch, OpenV1)>,
}

impl Prepared {
	/// Hands it to the store. The order key is free when it is durable.
	pub(crate) fn submit(self) -> Settling {
		let Self { outbox, number, plan, end, next, lets_in, said, now, without_hook } = self;
		let ticket = Some(plan.commit(&*outbox.0.store));
		Settling { outbox, number, end, next, lets_in, said, now, without_hook, ticket }
	}
}

/// An outcome that is on its way to the disk. Others with its order key wait until it is waited for, or
/// dropped.
#[must_use = "it is durable when it was waited for"]
pub struct Settling {
	outbox: Outbox,
	number: u64,
	end: End,
	next: Next,
	lets_in: bool,
	said: String,
	now: Times,
	/// The try without what its hook wants, if that is refused.
	without_hook: Option<(Batch, OpenV1)>,
	ticket: Option<Ticket<()>>,
}

impl Settling {
	/// Waits until it is durable.
	///
	/// # Errors
	/// [`OutboxError::Store`]: then the callback is sent again.
	pub fn wait(mut self) -> Result<Settled, OutboxError> {
		let done = self.ticket.take().map_or(Ok(()), Ticket::wait);
		let done = match self.refused(done) {
			Ok(done) => done,
			Err(again) => again.wait(),
		};
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
		let done = match self.refused(done) {
			Ok(done) => done,
			Err(again) => again.await,
		};
		self.done(done)
	}

	/// If the plan of the hook was refused, the try is written down without it, and the callback is sent
	/// again after a pause: one hook's trouble is not another's. Returns the ticket of that.
	fn refused(
		&mut self, done: Result<(), StoreError>,
	) -> Result<Result<(), StoreError>, Ticket<()>> {
		let (error, batch) = match (done, self.without_hook.take()) {
			(Err(error), Some((batch, open))) if is_refused(&error) => {
				self.next = Next::Open(open);
				self.lets_in = false;
				(error, batch)
			},
			(done, _) => return Ok(done),
		};
		let mut state = self.outbox.0.state.lock();
		if state.told.insert(self.number) {
			let sequence = sequence(self.number);
			state.events.push(OutboxEvent::HookRefused { sequence, error });
		}
		let ticket = self.outbox.0.store.commit(batch).then(|committed| committed.map(|_| ()));
		self.outbox.unlock(state);
		Err(ticket)
	}

	fn done(&mut self, done: Result<(), StoreError>) -> Result<Settled, OutboxError> {
		let reason = std::mem::take(&mut self.said);
		let mut state = self.outbox.0.state.lock();
		state.free(self.number);
		let mut events = Vec::new();
		let endpoint = state.endpoint(&self.end);
		let settled = done.map(|()| match self.next {
			Next::Done => Settled::Done,
			Next::Open(open) => Settled::RetryAt(open.due),
			Next::Paused(_) => {
				if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.paused.is_none()) {
					let at = self.now.wall;
					endpoint.paused = Some(PausedV1 { at, reason: reason.clone() });
					let endpoint = endpoint.name.clone();
					events.push(OutboxEvent::Paused { endpoint, reason: reason.clone() });
				}
				Settled::Paused
			},
			Next::Dead(taken) => {
				let sequence = sequence(self.number);
				events.push(OutboxEvent::DeadLetter { sequence, taken, reason });
				Settled::Dead
			},
			Next::Expired(taken) => {
				let sequence = sequence(self.number);
				events.push(OutboxEvent::Expired { sequence, taken });
				Settled::Expired
			},
		});
		if settled.is_ok() && self.lets_in {
			if let Some(endpoint) = state.endpoint(&self.end).filter(|e| e.paused.is_some()) {
				endpoint.resumed();
				events.push(OutboxEvent::Resumed { endpoint: endpoint.name.clone() });
			}
		}
		state.events.extend(events);
		self.outbox.unlock(state);
		Ok(settled?)
	}
}

impl std::fmt::Debug for Settling {
	fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
		write!(f, "Settling({}, {:?})", self.number, self.next)
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
	/// Plans what becomes of a callback after a try.
	fn outcome(
		&self, state: &mut State, claim: &Claim, ended: &Ended, now: Times, said: &str,
	) -> Result<(Plan<()>, Next), OutboxError> {
		let (callback, end) = (&claim.callback, claim.lease.end);
		let letter = Letter { end, callback, open: claim.open };
		let Ended { verdict, outcome, is_not_found, lets_in } = ended;
		let ended = Try { verdict, outcome: *outcome, is_not_found: *is_not_found };
		let next = state_machine::after_try(&claim.open, ended, &now);
		let mut plan = match next {
			Next::Done => {
				let mut batch = self.close(state, letter, now.running)?;
				if (self.0.options.erase_payload)(callback) {
					let item = self.item(callback.sequence().get())?.erased();
					let key = records::item_key(callback.sequence().get());
					batch.put(key, records::value(&item)?);
				}
				let plan = Plan::of(batch);
				match &self.0.options.on_done {
					Some(on_done) => plan.and(on_done(callback)).map(|((), ())| ()),
					None => plan,
				}
			},
			Next::Open(open) => Plan::of(move_to(letter, &open)?),
			Next::Paused(open) => {
				let mut batch = move_to(letter, &open)?;
				let endpoint = state.endpoint(&end);
				// It stays paused since when it was, with the first reason.
				if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.paused.is_none()) {
					let paused = Some(PausedV1 { at: now.wall, reason: said.to_owned() });
					let record = EndV1 { name: endpoint.name.clone(), paused };
					batch.put(records::end_key(&end), records::value(&record)?);
				}
				Plan::of(batch)
			},
			Next::Dead(taken) => {
				self.to_dead_letter(state, letter, now, (WhyV1::Refused, taken), said)?
			},
			Next::Expired(taken) => {
				self.to_dead_letter(state, letter, now, (WhyV1::Expired, taken), said)?
			},
		};
		if *lets_in {
			if let Some(endpoint) = state.endpoint(&end).filter(|e| e.paused.is_some()) {
				let record = EndV1 { name: endpoint.name.clone(), paused: None };
				let mut batch = Batch::new();
				batch.put(records::end_key(&end), records::value(&record)?);
				plan = plan.and(Plan::of(batch)).map(|((), ())| ());
			}
		}
		Ok((plan, next))
	}

	/// What is written down of a try if the plan of its hook is refused.
	fn without_hook(&self, claim: &Claim, next: &Next, now: &Times) -> Option<(Batch, OpenV1)> {
		let (has_hook, taken) = match next {
			Next::Done => (self.0.options.on_done.is_some(), Taken::Maybe),
			Next::Dead(taken) => (self.0.options.on_dead.is_some(), *taken),
			Next::Expired(taken) => (self.0.options.on_expired.is_some(), *taken),
			Next::Open(_) | Next::Paused(_) => (false, Taken::No),
		};
		let failures = claim.open.failures.saturating_add(1);
		let jitter = claim.callback.sequence().get() ^ now.running.0;
		let pause = self.0.options.schedule.pause(failures, jitter, None);
		let doubt = match taken {
			Taken::No => DoubtV1::None,
			Taken::Maybe => DoubtV1::InDoubt,
		};
		let open = OpenV1 { due: now.running.after(pause), failures, doubt, ..claim.open };
		let (callback, end) = (&claim.callback, claim.lease.end);
		let batch = move_to(Letter { end, callback, open: claim.open }, &open).ok()?;
		has_hook.then_some((batch, open))
	}

	/// Plans that a callback is not sent any more, and what is to be done about it.
	pub(crate) fn to_dead_letter(
		&self, state: &State, letter: Letter<'_>, now: Times, (why, taken): (WhyV1, Taken),
		said: &str,
	) -> Result<Plan<()>, OutboxError> {
		let Letter { callback, open, .. } = letter;
		let mut batch = self.close(state, letter, now.running)?;
		let dead = DeadV1 {
			why,
			at: now.wall,
			failures: open.failures,
			reason: cut(said),
			may_have_been_taken: taken == Taken::Maybe,
		};
		batch.put(records::dead_key(callback.sequence().get()), records::value(&dead)?);
		let plan = Plan::of(batch);
		let hook = match why {
			WhyV1::Expired => &self.0.options.on_expired,
			WhyV1::Refused => &self.0.options.on_dead,
		};
		Ok(match hook {
			Some(hook) => plan.and(hook(callback, taken)).map(|((), ())| ()),
			None => plan,
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
		// Damage of the next one holds up that one, and not this.
		let page = self.scan_around_damage(KeyRange::prefix(records::LANES, &lane_prefix), 2)?;
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
		let index = record.as_ref().ok().map(|record| records::read::<IndexV1>(key, record));
		let (Some(Ok(index)), Ok(Some(open))) = (index, self.open_record(next)) else {
			return Ok(batch);
		};
		// Its own pause, if it was sent before, still counts.
		let due = open.due.max(now);
		if due != open.due {
			batch.delete(due_key(&end, open.due, next));
			batch.put(records::open_key(next), records::value(&OpenV1 { due, ..open })?);
		}
		batch.put(due_key(&end, due, next), records::value(&index)?);
		Ok(batch)
	}
}

/// Changes the record of a callback that is still to be sent, and its place among those that are due.
fn move_to(letter: Letter<'_>, next: &OpenV1) -> Result<Batch, OutboxError> {
	let Letter { end, callback, open } = letter;
	let number = callback.sequence().get();
	let index =
		IndexV1 { lane: records::lane(callback.order_key()), deadline: callback.deadline() };
	let mut batch = Batch::new();
	batch.expect(records::open_key(number), Expectation::Present);
	if next.due != open.due {
		batch.delete(due_key(&end, open.due, number));
	}
	batch.put(due_key(&end, next.due, number), records::value(&index)?);
	batch.put(records::open_key(number), records::value(next)?);
	Ok(batch)
}

pub(crate) fn due_key(end: &End, due: Timestamp, number: u64) -> Key {
	Key::numbered(records::DUE, &records::due_prefix(end, due), number)
}

/// Whether a commit was refused because of what was in it, and nothing of it was written.
pub(crate) fn is_refused(error: &StoreError) -> bool {
	matches!(
		error,
		StoreError::Conflict { .. } | StoreError::Invalid { .. } | StoreError::TooLarge { .. }
	)
}

fn cut(said: &str) -> String {
	said.chars().take(MAX_REASON_CHARS).collect()
}
