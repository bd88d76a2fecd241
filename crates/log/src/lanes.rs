// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which lanes are held up, by what, and what they have passed over meanwhile.
//!
//! A consumer goes through the log once. An entry of a lane that is held up is passed over and
//! remembered, so that other lanes do not wait. What is remembered is bounded: a lane remembers a
//! few places, and beyond them only from where on to look again.

use std::collections::{BTreeSet, HashMap, VecDeque};

use leyden_id::Lane;
use leyden_store::Timestamp;

/// Most lanes that may be held up, in flight, or waiting at once. With more, the consumer goes no
/// further until one of them is free.
pub const MAX_HELD_LANES: usize = 4096;
/// Places that a lane remembers. What lies behind them is found by looking again.
pub const MAX_REMEMBERED_PER_LANE: usize = 64;

/// What holds a lane up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Head {
	/// Nothing: it has passed over entries that are due.
	Free,
	/// A delivery is in somebody's hands.
	InFlight(u64),
	/// A delivery failed and is tried again later.
	Waiting(u64, Timestamp),
	/// A dead letter.
	Parked(u64),
}

pub(crate) struct LaneState {
	pub(crate) head: Head,
	/// Places of entries passed over, ascending.
	pub(crate) passed: VecDeque<u64>,
	/// Entries from here on were passed over as well and are not remembered.
	pub(crate) look_from: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Lanes {
	lanes: HashMap<Lane, LaneState>,
	/// Lanes that are free and have something due.
	ready: VecDeque<Lane>,
	waiting: BTreeSet<(Timestamp, Lane)>,
}

impl Lanes {
	pub(crate) fn is_full(&self) -> bool {
		self.lanes.len() >= MAX_HELD_LANES
	}

	pub(crate) fn len(&self) -> usize {
		self.lanes.len()
	}

	/// How many places are remembered, over all lanes.
	pub(crate) fn remembered(&self) -> usize {
		self.lanes.values().map(|lane| lane.passed.len()).sum()
	}

	/// Returns the lanes whose head waits or is a dead letter, each with the place of its head.
	pub(crate) fn stopped(&self) -> Vec<(Lane, u64)> {
		let stopped = |(lane, state): (&Lane, &LaneState)| match state.head {
			Head::Waiting(index, _) | Head::Parked(index) => Some((*lane, index)),
			Head::Free | Head::InFlight(_) => None,
		};
		self.lanes.iter().filter_map(stopped).collect()
	}

	/// Returns the lanes that the dead letter at `index` holds up: one, or several if its own is not
	/// known.
	pub(crate) fn parked_at(&self, index: u64) -> Vec<Lane> {
		let parked = self.lanes.iter().filter(|(_, state)| state.head == Head::Parked(index));
		parked.map(|(lane, _)| *lane).collect()
	}

	pub(crate) fn get_mut(&mut self, lane: &Lane) -> Option<&mut LaneState> {
		self.lanes.get_mut(lane)
	}

	pub(crate) fn holds(&self, lane: &Lane) -> bool {
		self.lanes.contains_key(lane)
	}

	/// Passes over the entry at `index`, whose lane is held up.
	pub(crate) fn pass_over(&mut self, lane: Lane, index: u64) {
		let Some(state) = self.lanes.get_mut(&lane) else { return };
		if state.look_from.is_some() {
			return;
		}
		if state.passed.len() < MAX_REMEMBERED_PER_LANE {
			state.passed.push_back(index);
		} else {
			state.look_from = Some(index);
		}
	}

	/// Sets what holds `lane` up.
	pub(crate) fn hold(&mut self, lane: Lane, head: Head) {
		let state = self.lanes.entry(lane).or_insert_with(|| LaneState {
			head: Head::Free,
			passed: VecDeque::new(),
			look_from: None,
		});
		if let Head::Waiting(_, until) = state.head {
			self.waiting.remove(&(until, lane));
		}
		state.head = head;
		if let Head::Waiting(_, until) = head {
			self.waiting.insert((until, lane));
		}
	}

	/// As [`hold`](Lanes::hold) for what was in flight at `index`; but what an operator has
	/// requeued meanwhile and lies before it comes first, and then this is looked at again.
	pub(crate) fn hold_in_turn(&mut self, lane: Lane, index: u64, head: Head) {
		let earlier = self.lanes.get(&lane).and_then(|state| state.passed.front());
		if earlier.is_some_and(|earlier| *earlier < index) {
			self.free(lane, Some(index));
		} else {
			self.hold(lane, head);
		}
	}

	/// Nothing holds `lane` up any more. `again` is to be delivered, in its place among what it
	/// passed over.
	pub(crate) fn free(&mut self, lane: Lane, again: Option<u64>) {
		if !self.holds(&lane) && again.is_none() {
			return;
		}
		self.hold(lane, Head::Free);
		let Some(state) = self.lanes.get_mut(&lane) else { return };
		if let Some(index) = again {
			// Usually the first; behind what an operator has requeued meanwhile.
			let at = state.passed.partition_point(|passed| *passed < index);
			state.passed.insert(at, index);
		}
		if state.passed.is_empty() && state.look_from.is_none() {
			self.lanes.remove(&lane);
		} else if !self.ready.contains(&lane) {
			self.ready.push_back(lane);
		}
	}

	/// `index`, which lies behind the consumer, is due again; in its place among what the lane
	/// passed over.
	pub(crate) fn recall(&mut self, lane: Lane, index: u64) {
		match self.lanes.get_mut(&lane).map(|state| state.head) {
			Some(Head::InFlight(_)) => {
				if let Some(state) = self.lanes.get_mut(&lane) {
					let at = state.passed.partition_point(|passed| *passed < index);
					state.passed.insert(at, index);
				}
			},
			// What holds it up comes after it, and is looked at again then.
			Some(Head::Waiting(later, _) | Head::Parked(later)) => {
				self.free(lane, Some(later));
				self.free(lane, Some(index));
			},
			Some(Head::Free) | None => self.free(lane, Some(index)),
		}
	}

	pub(crate) fn pop_ready(&mut self) -> Option<Lane> {
		self.ready.pop_front()
	}

	pub(crate) fn push_ready(&mut self, lane: Lane) {
		if !self.ready.contains(&lane) {
			self.ready.push_back(lane);
		}
	}

	pub(crate) fn forget(&mut self, lane: &Lane) {
		self.lanes.remove(lane);
	}

	/// Frees the lanes whose wait is over at `now`.
	pub(crate) fn end_waits(&mut self, now: Timestamp) {
		while let Some((until, lane)) = self.waiting.first().copied() {
			if until > now {
				return;
			}
			self.waiting.pop_first();
			if let Some(Head::Waiting(index, _)) = self.lanes.get(&lane).map(|state| state.head) {
				self.free(lane, Some(index));
			}
		}
	}

	/// When the next wait is over.
	pub(crate) fn next_due(&self) -> Option<Timestamp> {
		self.waiting.first().map(|(until, _)| *until)
	}
}
