// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The dead letters of a consumer: entries that were given up, are damaged, or ended their processes.

use std::sync::atomic::Ordering;

use leyden_id::Lane;
use leyden_store::{Batch, Expectation, Plan, StoreError};

use crate::consumer::{Consumer, Inner, State};
use crate::damaged::DamagedEntry;
use crate::lanes::Head;
use crate::records::{self, AckV1, DeadV1};
use crate::types::{DeadLetter, Entry, LogIndex, OnExhausted};
use crate::{lookup, pending, LogError};

impl Consumer {
	/// Up to `limit` dead letters behind `after`, in order.
	///
	/// # Errors
	/// The store's.
	pub fn dead_letters(
		&self, after: Option<LogIndex>, limit: usize,
	) -> Result<Vec<DeadLetter>, LogError> {
		let first = after.map_or(0, LogIndex::get).saturating_add(1);
		let Inner { log, keys, folding, .. } = self.inner();
		pending::dead_letters(log.store(), keys, &folding.bounds, first, limit)
	}

	/// Delivers a dead letter again, with its attempts forgotten.
	///
	/// # Errors
	/// [`LogError::NoDeadLetter`]; the store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns the entry is due. A crash before that leaves it a dead letter.
	pub fn requeue(&self, index: LogIndex) -> Result<(), LogError> {
		let mut state = self.inner().state.lock();
		let letter = self.inner().end_dead_letter(index, |_| ())?;
		self.inner().take_note(&mut state);
		state.forget_ahead();
		state.attempts.remove(&index.get());
		let parked = state.lanes.parked_at(index.get());
		for lane in &parked {
			state.lanes.free(*lane, Some(index.get()));
		}
		// Without its lane, an entry is not passed.
		if let Some(lane) = letter.lane.filter(|_| parked.is_empty()) {
			if index.get() <= state.passed {
				state.lanes.recall(lane, index.get());
			}
		}
		self.inner().log.shared.signal.raise();
		Ok(())
	}

	/// Acks a dead letter, so that nothing waits for it any more.
	///
	/// # Errors
	/// As [`requeue`](Consumer::requeue).
	///
	/// # Failure Behavior and Persistence
	/// When it returns the entry is acked. A crash before that leaves it a dead letter.
	pub fn discard(&self, index: LogIndex) -> Result<(), LogError> {
		let mut state = self.inner().state.lock();
		let ack = self.inner().keys.ack(index.get(), index.get());
		let inner = self.share_inner();
		self.inner().end_dead_letter(index, |batch| {
			batch.put(ack, records::value(&AckV1));
			batch.after_commit(move |_| inner.acked(&[index.get()]));
		})?;
		self.inner().take_note(&mut state);
		state.forget_ahead();
		for lane in state.lanes.parked_at(index.get()) {
			state.lanes.free(lane, None);
		}
		self.inner().log.shared.signal.raise();
		self.inner().log.shared.move_on();
		Ok(())
	}
}

impl Inner {
	/// Makes an entry a dead letter because processes have ended while it was handled.
	pub(crate) fn park(&self, state: &mut State, entry: &Entry) -> Result<(), LogError> {
		let (lane, index) = (entry.lane(), entry.index());
		let crashes = state.attempts.get(&index.get()).map_or(0, |retry| retry.crashes);
		let reason = format!("{crashes} processes in a row ended while it was handled");
		let moved_on = self.options.on_exhausted == OnExhausted::MoveOn;
		if let Err(error) = self.write_dead_letter(state, index, Some(lane), moved_on, reason) {
			state.lanes.free(lane, Some(index.get()));
			return Err(error);
		}
		match moved_on {
			true => state.lanes.free(lane, None),
			false => state.lanes.hold(lane, Head::Parked(index.get())),
		}
		Ok(())
	}

	/// Makes an entry a dead letter because it is damaged. Its lane does not move on.
	pub(crate) fn park_damaged(
		&self, state: &mut State, damaged: &DamagedEntry,
	) -> Result<(), LogError> {
		let reason = damaged.to_string().chars().take(crate::MAX_REASON_CHARS).collect();
		self.write_dead_letter(state, damaged.index, damaged.lane(), false, reason)
	}

	fn write_dead_letter(
		&self, state: &mut State, index: LogIndex, lane: Option<Lane>, moved_on: bool,
		reason: String,
	) -> Result<(), LogError> {
		let attempts = state.attempts.get(&index.get()).map_or(0, |retry| retry.attempts);
		let parked_at = self.log.shared.clock.look().wall;
		let record = DeadV1 { attempts, parked_at, lane, moved_on, reason };
		let mut batch = Batch::new();
		self.owner.guard(&mut batch);
		batch.put(self.keys.dead(index.get()), records::value(&record));
		batch.delete(self.keys.retry(index.get()));
		self.run(Plan::of(batch))?;
		self.folding.bounds.last_dead.fetch_max(index.get(), Ordering::SeqCst);
		state.attempts.remove(&index.get());
		self.log.shared.observers.parked(&self.name, index, &record.reason);
		Ok(())
	}

	fn end_dead_letter(
		&self, index: LogIndex, also: impl FnOnce(&mut Batch),
	) -> Result<DeadLetter, LogError> {
		let store = self.log.store();
		let none = || LogError::NoDeadLetter { index };
		let letter = lookup::dead_letters(store, &self.keys, index.get(), 1)?.into_iter().next();
		let letter = letter.filter(|letter| letter.index == index).ok_or_else(none)?;
		if pending::is_acked(store, &self.keys, &self.folding.bounds, index)? {
			return Err(none());
		}
		let mut batch = Batch::new();
		self.owner.guard(&mut batch);
		batch.expect(self.keys.dead(index.get()), Expectation::Present);
		batch.delete(self.keys.dead(index.get()));
		batch.delete(self.keys.retry(index.get()));
		also(&mut batch);
		match self.run(Plan::of(batch)) {
			Ok(()) => Ok(letter),
			Err(LogError::Store(StoreError::Conflict { .. })) => Err(none()),
			Err(error) => Err(error),
		}
	}
}
