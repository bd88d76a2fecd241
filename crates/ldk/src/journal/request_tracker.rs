// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The tracker of requests: which answers LDK's durable state may not have.
//!
//! A node without Leyden answers a request inside its event handler, so that LDK does not let go of
//! the event before it has the answer. A consumer of the log answers later: a manager may be
//! durable that has let go of the event, and has no answer. If the node dies then, LDK does not
//! bring the request again, although the answer is lost.
//!
//! An ack of a request is therefore not its end. The request is done when a manager is durable that
//! was encoded after *every* consumer had acked it; what a consumer does before it acks is in that
//! manager. A request that is not done at start, and that a consumer had acked, is delivered again
//! as a repeat, if LDK still waits for its answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use leyden_id::EventKind;
use leyden_log::{Consumer, Entry, EventLog, LogError, LogIndex, LogObserver, NewEvent};
use leyden_store::Plan;
use lightning::events::Event;
use parking_lot::Mutex;

use super::class::is_request;
use super::entry;
use super::replay_tracker::{LoadedManager, REPLAY_CONSUMER};
use crate::persist_tracker::ManagerPersistListener;

pub(crate) struct RequestTracker {
	log: EventLog,
	/// The consumer that stands for LDK: it acks a request that is done.
	consumer: Consumer,
	state: Mutex<State>,
}

#[derive(Default)]
struct State {
	/// The consumers that must ack, and up to where they had acked when they were first seen.
	consumers: HashMap<String, u64>,
	/// Requests that are not done.
	open: BTreeMap<LogIndex, Acks>,
	/// Grows with each ack.
	next: u64,
	/// The mark that was taken last.
	marked: u64,
}

/// The acks of a request.
#[derive(Default)]
struct Acks {
	by: BTreeSet<String>,
	/// The number of the last of them.
	last: Option<u64>,
}

impl RequestTracker {
	pub(crate) fn new(log: &EventLog, consumer: Consumer) -> Result<Arc<Self>, LogError> {
		let tracker = Self { log: log.clone(), consumer, state: Mutex::default() };
		let tracker = Arc::new(tracker);
		let observer: Arc<dyn LogObserver> = Arc::<Self>::clone(&tracker);
		log.observe(&observer)?;
		Ok(tracker)
	}

	/// Looks at the requests that earlier runs left: delivers again those whose answers may be
	/// lost, and ends those that LDK does not wait for. `is_answered` says for which a resolution
	/// is kept. Answers how many are delivered again.
	pub(crate) async fn manager_loaded(
		&self, requests: Vec<Entry>, loaded: &LoadedManager<'_>,
		is_answered: impl Fn(&Event) -> bool,
	) -> Result<usize, LogError> {
		let mut repeated = 0;
		for entry in requests {
			let index = entry.index();
			if !self.log.is_acked_by_any(index, REPLAY_CONSUMER).await? {
				self.state.lock().open.insert(index, Acks::default());
				continue;
			}
			let event = entry::event_bytes(entry.payload()).and_then(entry::decode_ldk);
			let is_lost = event.is_some_and(|event| !is_answered(&event) && awaits(loaded, &event));
			let ends = self.consumer.ack_plan_many(&[index]);
			if !is_lost {
				ends.commit(self.log.store()).await?;
				continue;
			}
			let newest = self.log.occurrence(&entry.id()).await?;
			let repeat = newest.map_or(1, |newest| newest.repeat.saturating_add(1));
			let event = NewEvent {
				id: entry.id(),
				kind: entry.kind().clone(),
				lane: entry.lane(),
				payload: entry.payload().to_vec(),
			};
			let again = self.log.append_repeat_plan(event, repeat);
			again.and(ends).commit(self.log.store()).await?;
			repeated += 1;
		}
		Ok(repeated)
	}
}

/// Returns `true` if LDK waits for the answer to a request that it does not bring again.
fn awaits(loaded: &LoadedManager<'_>, event: &Event) -> bool {
	match event {
		// In the manager, with its event gone. Otherwise LDK brings it again, or it is over.
		Event::PaymentClaimable { payment_hash, claim_deadline, .. } => {
			claim_deadline.is_none_or(|deadline| loaded.height < deadline)
				&& memchr::memmem::find(loaded.bytes, &payment_hash.0).is_some()
		},
		Event::InvoiceReceived { payment_id, .. } => loaded.payments.contains(&payment_id.0),
		// LDK brings `HTLCIntercepted` again for every HTLC that it holds.
		_ => false,
	}
}

impl LogObserver for RequestTracker {
	fn appended(&self, index: LogIndex, kind: &EventKind) {
		if is_request(kind) {
			self.state.lock().open.insert(index, Acks::default());
		}
	}

	fn opened(&self, consumer: &str, watermark: u64) {
		if consumer != REPLAY_CONSUMER {
			self.state.lock().consumers.entry(consumer.to_owned()).or_insert(watermark);
		}
	}

	fn removed(&self, consumer: &str) {
		let mut state = self.state.lock();
		state.consumers.remove(consumer);
		// What it had acked counts for no later consumer of its name.
		state.open.values_mut().for_each(|acks| {
			acks.by.remove(consumer);
		});
	}

	fn acked(&self, consumer: &str, indices: &[LogIndex]) {
		if consumer == REPLAY_CONSUMER {
			return;
		}
		let mut state = self.state.lock();
		for index in indices {
			let number = state.next;
			let Some(acks) = state.open.get_mut(index) else { continue };
			acks.by.insert(consumer.to_owned());
			acks.last = Some(number);
			state.next += 1;
		}
	}
}

impl ManagerPersistListener for RequestTracker {
	fn mark(&self) -> u64 {
		let mut state = self.state.lock();
		state.marked = state.next;
		state.next
	}

	fn wants_newer_bytes(&self) -> bool {
		let state = self.state.lock();
		state.next > state.marked
	}

	fn settle_plan(&self, mark: u64) -> Option<Plan<()>> {
		let done = self.state.lock().done(mark);
		(!done.is_empty()).then(|| self.consumer.ack_plan_many(&done))
	}

	fn settled(&self, mark: u64) {
		let mut state = self.state.lock();
		for index in state.done(mark) {
			state.open.remove(&index);
		}
	}
}

impl State {
	/// The requests that every consumer had acked before `mark`.
	fn done(&self, mark: u64) -> Vec<LogIndex> {
		let by_all = |index: &LogIndex, acks: &Acks| {
			let acked =
				|(name, from): (&String, &u64)| *from >= index.get() || acks.by.contains(name);
			self.consumers.iter().all(acked)
		};
		let done = self.open.iter().filter(|(index, acks)| {
			acks.last.is_some_and(|last| last < mark) && by_all(index, acks)
		});
		done.map(|(index, _)| *index).collect()
	}
}
