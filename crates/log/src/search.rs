// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The search of a consumer for its next entry: what its lanes have passed over first, then what is ahead.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use leyden_id::Lane;
use leyden_store::Timestamp;

use crate::consumer::{Inner, State};
use crate::damaged::DamagedEntry;
use crate::lanes::{Head, MAX_REMEMBERED_PER_LANE};
use crate::lookup::{self, Place};
use crate::pending;
use crate::types::{DeadLetter, Entry, LogIndex};
use crate::LogError;

/// Entries read ahead of the consumer.
pub(crate) const PAGE: usize = 256;
/// Entries looked at for one lane before other lanes have their turn.
const LOOK_AT_A_TIME: usize = 4096;

/// The step that an entry which was passed is due.
enum Due {
	/// Deliver it.
	Now(Box<Entry>),
	/// It is a dead letter, and holds its lane up.
	Parked,
	/// It is damaged, and not a dead letter yet.
	Damaged(Box<DamagedEntry>),
	/// Nothing: it was acked, or is a dead letter that its lane goes on without.
	Done,
}

impl Inner {
	/// What is to be done with the entry at `index`, which the consumer has passed.
	fn due(&self, index: u64) -> Result<Due, LogError> {
		let Some(index) = LogIndex::new(index) else { return Ok(Due::Done) };
		let store = self.log.store();
		if pending::is_acked(store, &self.keys, &self.folding.bounds, index)? {
			return Ok(Due::Done);
		}
		if index.get() <= self.folding.bounds.last_dead.load(Ordering::SeqCst) {
			if let Some(letter) = lookup::dead(store, &self.keys, index)? {
				return Ok(if letter.moved_on { Due::Done } else { Due::Parked });
			}
		}
		Ok(match lookup::place(store, &self.log.shared.keys, index)? {
			Some(Ok(entry)) => Due::Now(Box::new(entry)),
			Some(Err(damaged)) => Due::Damaged(Box::new(damaged)),
			None => Due::Done,
		})
	}

	/// The next entry that a free lane has passed over.
	pub(crate) fn next_of_ready(
		&self, state: &mut State, now: Timestamp,
	) -> Result<Option<Entry>, LogError> {
		// Each lane has one turn: one that has far to look lets the others go first.
		let mut turns = state.lanes.len();
		while let Some(lane) = state.lanes.pop_ready() {
			if state.lanes.get_mut(&lane).is_none_or(|held| held.head != Head::Free) {
				continue;
			}
			match self.next_of_lane(state, lane, now) {
				Ok(Some(entry)) => return Ok(Some(entry)),
				Ok(None) if state.lanes.holds(&lane) => state.lanes.push_ready(lane),
				Ok(None) => {},
				Err(error) => {
					state.lanes.push_ready(lane);
					return Err(error);
				},
			}
			turns = turns.saturating_sub(1);
			if turns == 0 {
				break;
			}
		}
		Ok(None)
	}

	fn next_of_lane(
		&self, state: &mut State, lane: Lane, now: Timestamp,
	) -> Result<Option<Entry>, LogError> {
		loop {
			let Some(held) = state.lanes.get_mut(&lane) else { return Ok(None) };
			if let Some(index) = held.passed.front().copied() {
				let due = self.due(index)?;
				if let Due::Damaged(damaged) = &due {
					self.park_damaged(state, damaged)?;
				}
				if let Some(held) = state.lanes.get_mut(&lane) {
					held.passed.pop_front();
				}
				match (due, state.attempts.get(&index)) {
					(Due::Now(_), Some(retry)) if retry.not_before > now => {
						state.lanes.hold(lane, Head::Waiting(index, retry.not_before));
						return Ok(None);
					},
					(Due::Now(entry), _) => return Ok(Some(*entry)),
					(Due::Parked | Due::Damaged(_), _) => {
						state.lanes.hold(lane, Head::Parked(index));
						return Ok(None);
					},
					(Due::Done, _) => {
						state.attempts.remove(&index);
						continue;
					},
				}
			}
			let Some(from) = held.look_from else {
				state.lanes.forget(&lane);
				return Ok(None);
			};
			self.look_again(state, lane, from)?;
			let found = state.lanes.get_mut(&lane).is_some_and(|held| !held.passed.is_empty());
			if !found {
				// Nothing in this stretch. If there is more, in its next turn.
				let done = state.lanes.get_mut(&lane).is_none_or(|held| held.look_from.is_none());
				if done {
					state.lanes.forget(&lane);
				}
				return Ok(None);
			}
		}
	}

	/// Looks for entries of `lane` from `from` on, among those that the consumer has passed.
	fn look_again(&self, state: &mut State, lane: Lane, from: u64) -> Result<(), LogError> {
		let mut after = from.saturating_sub(1);
		let (mut found, mut looked) = (VecDeque::new(), 0);
		let mut look_from = None;
		'pages: while looked < LOOK_AT_A_TIME {
			let page = self.pending(after, PAGE)?;
			if page.at_end {
				after = u64::MAX;
				break;
			}
			looked += PAGE;
			for (place, dead) in &page.entries {
				let index = lookup::index_of(place).get();
				if index > state.passed {
					after = u64::MAX;
					break 'pages;
				}
				// One whose lane is not known may be of any.
				if lane_of(place, dead.as_ref()).is_none_or(|found| found == lane)
					&& dead.as_ref().is_none_or(|letter| !letter.moved_on)
				{
					if found.len() >= MAX_REMEMBERED_PER_LANE {
						look_from = Some(index);
						break 'pages;
					}
					found.push_back(index);
				}
			}
			after = page.scanned_to;
		}
		if let Some(held) = state.lanes.get_mut(&lane) {
			held.passed = found;
			let more = (after < state.passed).then(|| after.saturating_add(1));
			held.look_from = look_from.or(more);
		}
		Ok(())
	}

	/// The next entry ahead whose lane is not held up.
	pub(crate) fn next_ahead(
		&self, state: &mut State, now: Timestamp,
	) -> Result<Option<Entry>, LogError> {
		loop {
			if state.ahead.is_empty() && !self.read_ahead(state)? {
				return Ok(None);
			}
			let Some((place, letter)) = state.ahead.front() else { continue };
			let index = lookup::index_of(place).get();
			let Some(lane) = lane_of(place, letter.as_ref()) else {
				// Whatever is behind it may be of its lane.
				if let (Err(damaged), None) = (place, letter) {
					let damaged = damaged.clone();
					self.park_damaged(state, &damaged)?;
					state.forget_ahead();
				}
				return Ok(None);
			};
			if state.lanes.is_full() && !state.lanes.holds(&lane) {
				return Ok(None);
			}
			let is_held = state.lanes.holds(&lane);
			let is_over = letter.as_ref().is_some_and(|letter| letter.moved_on);
			let is_parked = letter.is_some() || place.is_err();
			if let (Err(damaged), None, false) = (place, letter, is_held) {
				let damaged = damaged.clone();
				self.park_damaged(state, &damaged)?;
			}
			let Some((place, _)) = state.ahead.pop_front() else { continue };
			state.passed = index;
			if is_over {
				continue;
			}
			if is_held {
				// A dead letter, too: nothing of its lane overtakes it.
				state.lanes.pass_over(lane, index);
				continue;
			}
			let entry = match place {
				Ok(entry) if !is_parked => entry,
				_ => {
					state.lanes.hold(lane, Head::Parked(index));
					continue;
				},
			};
			match state.attempts.get(&index) {
				Some(retry) if retry.not_before > now => {
					state.lanes.hold(lane, Head::Waiting(index, retry.not_before));
				},
				_ => return Ok(Some(entry)),
			}
		}
	}

	/// Reads the next page; `false` if nothing is ahead.
	fn read_ahead(&self, state: &mut State) -> Result<bool, LogError> {
		let head = self.log.shared.head.load(Ordering::SeqCst);
		while state.read < head {
			let page = self.pending(state.read, PAGE)?;
			state.read = state.read.max(page.scanned_to);
			if page.at_end {
				state.passed = state.read;
				break;
			}
			state.ahead.extend(page.entries);
			if !state.ahead.is_empty() {
				return Ok(true);
			}
			state.passed = state.read;
		}
		Ok(false)
	}
}

/// Returns the lane of a place, from what is left of it or from its dead letter.
fn lane_of(place: &Place, letter: Option<&DeadLetter>) -> Option<Lane> {
	match place {
		Ok(entry) => Some(entry.lane()),
		Err(damaged) => damaged.lane().or(letter.and_then(|letter| letter.lane)),
	}
}
