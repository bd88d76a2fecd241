// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Which journaled events LDK may still bring again.
//!
//! LDK forgets an event once the handler has answered `Ok`, but only in memory: until a manager
//! snapshot that was encoded after that is durable, a restart brings the event again. The ledger is
//! a consumer of the journal's stream that acks an event when it is past that point. For an event
//! whose id is strong that makes no difference. Of a weak one, it decides whether the same fields
//! again are the same event (LDK may still bring it) or another (it cannot).

use std::collections::{HashMap, VecDeque};

use leyden_id::EventId;
use leyden_log::{Consumer, ConsumerOptions, EventLog, LogError, LogIndex, Start};
use leyden_store::Plan;
use parking_lot::Mutex;

use super::entry::weak_identity;
use crate::snapshot::SettledBySnapshot;

/// The consumer that stands for LDK's own memory of its events.
pub const LEDGER_CONSUMER: &str = "ldk";

/// Most events that are waited for; without snapshots for longer than that, the oldest are taken
/// for settled. A weak one of them that comes again after a crash is then a second entry.
pub const MAX_UNSETTLED_EVENTS: usize = 65_536;

const PAGE: usize = 1024;

pub(crate) struct Ledger {
	consumer: Consumer,
	state: Mutex<State>,
}

#[derive(Default)]
struct State {
	/// Journaled and not settled, oldest first; the first is number `settled`.
	waiting: VecDeque<LogIndex>,
	settled: u64,
	/// Weak events of earlier lives that LDK may bring again, by identity, oldest first.
	expected: HashMap<EventId, VecDeque<LogIndex>>,
}

impl Ledger {
	pub(crate) fn open(log: &EventLog) -> Result<Self, LogError> {
		let options = ConsumerOptions { start: Start::Beginning, ..ConsumerOptions::default() };
		let consumer = log.consumer(LEDGER_CONSUMER, options)?;
		let mut state = State::default();
		let mut after = None;
		loop {
			let page = consumer.unacked(after, PAGE)?;
			for entry in &page {
				state.waiting.push_back(entry.index());
				if let Some(identity) = weak_identity(entry.payload()) {
					state.expected.entry(identity).or_default().push_back(entry.index());
				}
			}
			after = page.last().map(|entry| entry.index());
			if page.len() < PAGE || state.waiting.len() >= MAX_UNSETTLED_EVENTS {
				break;
			}
		}
		Ok(Self { consumer, state: Mutex::new(state) })
	}

	/// Whether a weak event with this identity is one that an earlier life journaled and LDK brings
	/// again. Each is recognized once.
	pub(crate) fn recognize(&self, identity: &EventId) -> bool {
		let mut state = self.state.lock();
		let Some(indices) = state.expected.get_mut(identity) else { return false };
		let found = indices.pop_front().is_some();
		if indices.is_empty() {
			state.expected.remove(identity);
		}
		found
	}

	/// An event was journaled in this life.
	pub(crate) fn journaled(&self, index: LogIndex) {
		let mut state = self.state.lock();
		if state.waiting.len() >= MAX_UNSETTLED_EVENTS {
			state.waiting.pop_front();
			state.settled += 1;
		}
		state.waiting.push_back(index);
	}
}

impl SettledBySnapshot for Ledger {
	fn mark(&self) -> u64 {
		let state = self.state.lock();
		state.settled + state.waiting.len() as u64
	}

	fn settle_plan(&self, mark: u64) -> Option<Plan<()>> {
		let state = self.state.lock();
		let count = usize::try_from(mark.saturating_sub(state.settled)).unwrap_or(usize::MAX);
		let indices: Vec<_> = state.waiting.iter().take(count).copied().collect();
		(!indices.is_empty()).then(|| self.consumer.ack_plan_many(&indices))
	}

	fn settled(&self, mark: u64) {
		let mut state = self.state.lock();
		while state.settled < mark && state.waiting.pop_front().is_some() {
			state.settled += 1;
		}
		// The background processor persists after it has handled what was queued, so what LDK did
		// not bring again by now, it will not. To forget too early means that a weak event comes
		// twice; to forget too late would take a new event for an old one, and lose it.
		state.expected.clear();
	}
}
