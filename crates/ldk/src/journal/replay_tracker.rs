// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The tracker of replays: which journaled events LDK may still bring again.
//!
//! LDK takes an event out of its queue once the whole batch that it handed over was handled, and
//! only in memory: until a manager that was encoded after that is durable, a restart brings the
//! event again. The tracker is a consumer of the journal's stream that acks an event when it is
//! past that point. An event whose id is strong needs no tracker; of a weak one, the tracker
//! decides whether the same fields again are the same event or another one.
//!
//! # What acks
//! A manager that was encoded while no event was being handled. One that a handler persists (a
//! barrier) still has the batch of that handler in its queue, and acks nothing.
//!
//! # What proves a replay
//! An ack may lag behind the manager, so an un-acked entry proves nothing. At start, the bytes of
//! the durable manager do, with the [record](crate::manager_record) that was made when they were
//! written: an event that is in them is brought again, unless LDK had let go of it before they were
//! encoded (then they hold another event with the same fields); one that is not, and had been
//! handed out before they were encoded, is not. One that was handed out later is brought again if
//! LDK still knows its payment or its channel. [`ReplayEvidence`] says which of these holds for
//! which event.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use leyden_id::EventId;
use leyden_log::{Consumer, ConsumerOptions, Entry, EventLog, LogError, LogIndex, Start};
use leyden_store::Plan;
use parking_lot::Mutex;

use super::class::is_request;
use super::entry;
use super::identity::{EventIdentity, ReplayEvidence};
use crate::manager_record::JournaledV1;
use crate::persist_tracker::ManagerPersistListener;

/// The consumer that stands for LDK's own memory of its events.
pub const REPLAY_CONSUMER: &str = "ldk";

/// Most events that are tracked. Without a durable manager for longer than that, the oldest are
/// given up; a weak one of them that comes again after a crash is then a second entry.
pub const MAX_TRACKED_EVENTS: usize = 65_536;

/// Most weak events that are looked for in the bytes of the manager at start, the newest: each
/// costs a search through all of them. An older one that comes again is a second entry.
const MAX_SOUGHT_EVENTS: usize = 1024;

const PAGE: usize = 1024;

/// The manager that a node starts from.
pub(crate) struct LoadedManager<'a> {
	/// The bytes of the durable manager.
	pub(crate) bytes: &'a [u8],
	/// The record of the journal at the time when those bytes were written, if it is known.
	pub(crate) journaled: Option<JournaledV1>,
	/// The payments that LDK knows after it read the bytes and the monitors.
	pub(crate) payments: &'a HashSet<[u8; 32]>,
	/// The height of the best block that LDK knows.
	pub(crate) height: u32,
}

pub(crate) struct ReplayTracker {
	consumer: Consumer,
	state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
	/// Entries that are not acked, by the number of the moment at which LDK handed them out. One
	/// that LDK brings again gets a new number.
	waiting: BTreeMap<u64, LogIndex>,
	next: u64,
	/// Calls of the event handler that have not returned.
	in_flight: usize,
	/// Everything below was out of LDK's queue at a moment when no handler was running.
	quiescent: u64,
	/// Weak events of earlier runs that LDK brings again, by identity, oldest first.
	expected: HashMap<EventId, VecDeque<Expected>>,
	/// The weak entries of earlier runs that are not acked; looked through once, at start.
	candidates: Vec<Entry>,
}

struct Expected {
	index: LogIndex,
	evidence: ReplayEvidence,
}

impl State {
	fn wait_for(&mut self, index: LogIndex) {
		if self.waiting.len() >= MAX_TRACKED_EVENTS {
			self.waiting.pop_first();
		}
		self.waiting.insert(self.next, index);
		self.next += 1;
	}

	/// LDK has the event in its queue now, until the batch that it is in was handled.
	fn wait_again(&mut self, index: LogIndex) {
		self.waiting.retain(|_, waiting| *waiting != index);
		self.wait_for(index);
	}

	fn expects(&self) -> HashSet<LogIndex> {
		self.expected.values().flatten().map(|expected| expected.index).collect()
	}
}

/// A running call of the event handler.
pub(crate) struct Handling<'a>(&'a ReplayTracker);

impl Drop for Handling<'_> {
	fn drop(&mut self) {
		self.0.state.lock().in_flight -= 1;
	}
}

impl ReplayTracker {
	/// Opens the tracker. Answers the requests too that earlier runs left un-acked: those are
	/// another tracker's.
	pub(crate) fn open(log: &EventLog) -> Result<(Self, Vec<Entry>), LogError> {
		let options = ConsumerOptions { start: Start::Beginning, ..ConsumerOptions::default() };
		let consumer = log.consumer(REPLAY_CONSUMER, options)?;
		let (mut state, mut requests) = (State::default(), Vec::new());
		let mut after = None;
		loop {
			let page = consumer.unacked(after, PAGE)?;
			let is_last = page.len() < PAGE;
			for place in page {
				let entry = match place {
					Ok(entry) => entry,
					// Those who handle events hear of it. LDK has had it, or brings it again under its id.
					Err(damaged) => {
						after = Some(damaged.index());
						state.wait_for(damaged.index());
						continue;
					},
				};
				after = Some(entry.index());
				if is_request(entry.kind()) {
					requests.push(entry);
					continue;
				}
				state.wait_for(entry.index());
				if entry::weak_identity(entry.payload()).is_some() {
					state.candidates.push(entry);
				}
			}
			if is_last || state.waiting.len() + requests.len() >= MAX_TRACKED_EVENTS {
				break;
			}
		}
		Ok((Self { consumer, state: Arc::new(Mutex::new(state)) }, requests))
	}

	/// The consumer that stands for LDK.
	pub(crate) fn consumer(&self) -> &Consumer {
		&self.consumer
	}

	/// Finds out which events of earlier runs LDK brings again in this one. Called once, after the
	/// manager was read and before it hands out events.
	pub(crate) fn manager_loaded(&self, loaded: &LoadedManager<'_>) {
		let mut state = self.state.lock();
		// The same bytes may be in the queue more than once, for as many entries.
		let mut queued: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
		let mut candidates = std::mem::take(&mut state.candidates);
		candidates.drain(..candidates.len().saturating_sub(MAX_SOUGHT_EVENTS));
		let mut comes_again = Vec::new();
		// The newest first: an event that the manager has in its queue was handed out last.
		for entry in candidates.into_iter().rev() {
			let Some(journaled) = &loaded.journaled else { break };
			if journaled.has_let_go_of(entry.index().get()) {
				continue;
			}
			let Some(event) = entry::event_bytes(entry.payload()) else { continue };
			let Some(identity) = entry::decode_ldk(event).as_ref().map(EventIdentity::of) else {
				continue;
			};
			let left = queued
				.entry(event.to_vec())
				.or_insert_with(|| memchr::memmem::find_iter(loaded.bytes, event).count());
			let is_queued = *left > 0;
			*left = left.saturating_sub(1);
			let came_later = journaled.precedes(entry.index().get());
			let is_replay = match identity.evidence {
				ReplayEvidence::None => false,
				ReplayEvidence::Queued => is_queued,
				ReplayEvidence::QueuedOrPayment(payment) => {
					is_queued || (came_later && loaded.payments.contains(&payment))
				},
				ReplayEvidence::QueuedOrChannel(channel) => {
					is_queued
						|| (came_later && memchr::memmem::find(loaded.bytes, &channel).is_some())
				},
			};
			if is_replay {
				let (index, evidence) = (entry.index(), identity.evidence);
				comes_again.push((identity.id, Expected { index, evidence }));
			}
		}
		for (id, expected) in comes_again.into_iter().rev() {
			state.expected.entry(id).or_default().push_back(expected);
		}
	}

	/// A call of the event handler begins.
	pub(crate) fn handling(&self) -> Handling<'_> {
		self.state.lock().in_flight += 1;
		Handling(self)
	}

	/// An event was journaled and LDK is to bring it again: it stays in LDK's queue, as if it were
	/// being handled, until [`came_again`](ReplayTracker::came_again).
	pub(crate) fn comes_again(&self) {
		self.state.lock().in_flight += 1;
	}

	/// LDK has brought such an event again.
	pub(crate) fn came_again(&self) {
		self.state.lock().in_flight -= 1;
	}

	/// Returns `true` for a weak event that an earlier run journaled and that LDK brings again.
	/// Each is recognized once.
	pub(crate) fn recognize(&self, identity: &EventIdentity) -> bool {
		let mut state = self.state.lock();
		let Some(expected) = state.expected.get_mut(&identity.id) else { return false };
		let found = expected.pop_front();
		if expected.is_empty() {
			state.expected.remove(&identity.id);
		}
		let Some(Expected { index, .. }) = found else { return false };
		state.wait_again(index);
		true
	}

	/// A new event is written down. The end of a payment or a channel ends the waiting for an
	/// earlier end of the same one: the next like that is another event.
	pub(crate) fn supersede(&self, identity: &EventIdentity) {
		if matches!(identity.evidence, ReplayEvidence::Queued | ReplayEvidence::None) {
			return;
		}
		self.state.lock().expected.retain(|_, expected| {
			expected.retain(|expected| expected.evidence != identity.evidence);
			!expected.is_empty()
		});
	}

	/// An event of this run is in the log.
	pub(crate) fn journaled(&self, index: LogIndex) {
		self.state.lock().wait_for(index);
	}

	/// An event that LDK has brought is in the log already.
	pub(crate) fn journaled_before(&self, index: LogIndex) {
		self.state.lock().wait_again(index);
	}
}

impl ManagerPersistListener for ReplayTracker {
	fn mark(&self) -> u64 {
		let mut state = self.state.lock();
		if state.in_flight == 0 {
			state.quiescent = state.next;
		}
		state.quiescent
	}

	fn settle_plan(&self, mark: u64) -> Option<Plan<()>> {
		let state = self.state.lock();
		let below = state.waiting.range(..mark);
		let expected = state.expects();
		let gone = below.filter(|(_, index)| !expected.contains(index));
		let (numbers, indices): (Vec<u64>, Vec<LogIndex>) = gone.unzip();
		drop(state);
		if indices.is_empty() {
			return None;
		}
		let state = Arc::clone(&self.state);
		Some(self.consumer.ack_plan_many(&indices).map(move |()| {
			let mut state = state.lock();
			numbers.iter().for_each(|number| {
				state.waiting.remove(number);
			});
		}))
	}

	fn settled(&self, _: u64) {}

	fn gone_below(&self, mark: u64) -> Option<u64> {
		let state = self.state.lock();
		let queued = state.waiting.range(mark..).map(|(_, index)| index.get()).min();
		Some(queued.unwrap_or(u64::MAX))
	}

	fn expected(&self) -> Vec<u64> {
		let state = self.state.lock();
		state.expects().into_iter().map(LogIndex::get).collect()
	}
}
