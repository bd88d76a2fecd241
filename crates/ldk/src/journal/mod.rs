// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The event handler that writes events down: see [`Journal`].

mod class;
mod entry;
mod event;
mod handler;
mod identity;
mod replay_tracker;
mod request_tracker;
#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::ThreadId;

use leyden_id::{EventClass, EventId, IdBuilder, IdStrength};
use leyden_log::{Appended, Entry, EventLog, LogError, NewEvent};
use leyden_store::{block_on, StoreError, Ticket};
use lightning::events::{Event, ReplayEvent};
use lightning::io;
use lightning::types::payment::PaymentHash;
use parking_lot::Mutex;

pub use class::{kind_of, replay_class};
#[cfg(feature = "fuzz")]
pub(crate) use entry::event_law;
pub use entry::{decode_event, UnreadableEvent};
pub use event::JournalEvent;
pub use handler::JournalHandler;
pub use identity::EventIdentity;
pub(crate) use replay_tracker::LoadedManager;
pub use replay_tracker::{MAX_TRACKED_EVENTS, REPLAY_CONSUMER};

use crate::compat::releases_monitor_update;
use crate::pending_appends::PendingAppends;
use crate::persist_tracker::ManagerPersistListener;
use replay_tracker::ReplayTracker;
use request_tracker::RequestTracker;

/// The log's stream of user events.
pub const EVENT_STREAM: &str = "events";

/// Writes LDK's events down, so that consumers of the log can handle them in their own time.
///
/// Events that LDK keeps until they were handled ([`EventClass::is_journaled`]) become entries of
/// the log. LDK's own queue never waits for a consumer. All other events go to the inline handler
/// that comes with each call, since LDK wants an answer now or makes them anew; so do paths and
/// probes, from which only a scorer learns, and `HTLCHandlingFailed`, whose rate peers set, unless
/// the journal is told to [keep](Journal::keep_paths) [them](Journal::keep_htlc_failures).
///
/// # Facts and requests
/// A *fact* (`PaymentSent`, `ChannelClosed`) that LDK brings again is one delivery. A *request*
/// (`PaymentClaimable`, `HTLCIntercepted`, `InvoiceReceived`) is answered by a call to LDK that
/// lives in LDK's memory until LDK's own state is durable. LDK brings a request again for as long
/// as its durable state has no answer, and so does the journal: under the same id, and marked as a
/// [repeat](leyden_log::Delivery::repeat), however often it was acked. Answer a repeat again, and
/// leave out the effects of the first time; or keep the answer with
/// [`HtlcResolutions`](crate::HtlcResolutions), which answers repeats by itself.
///
/// # What is promised
/// `Ok` means that LDK lets go of the event for good only once it is durable in the log. The same
/// event, brought again by LDK after a restart, has the same id and is no second entry, except for
/// a request. No event is skipped: one that cannot be written so that it can be read back goes to
/// the inline handler.
///
/// # What is not
/// A weak event may become two entries if the node dies, such as a second `HTLCHandlingFailed` for
/// the same channels; see [`IdStrength::Weak`] and `docs/event-ids.md`.
pub struct Journal {
	log: EventLog,
	tracker: Option<Arc<ReplayTracker>>,
	requests: Option<Arc<RequestTracker>>,
	/// The requests that earlier runs left; looked at once, at start.
	left: Mutex<Vec<Entry>>,
	before_sent: Option<Barrier>,
	before_claimable: Option<Barrier>,
	answers: Option<Answers>,
	observer: Option<Observer>,
	/// A number of this run. Together with `weak_seen` it sets the ids of weak events apart from
	/// those of other runs and from each other.
	run: u64,
	weak_seen: AtomicU64,
	/// The events that were refused in this run: LDK brings them again.
	refused: AtomicU64,
	/// The identities of events that this run has written down and told LDK to bring again.
	unanswered: Mutex<HashSet<EventId>>,
	/// The appends that manager and monitors wait for; without it, each call waits by itself.
	appends: Option<PendingAppends>,
	keep_paths: bool,
	keep_htlc_failures: bool,
}

/// Persists the manager.
pub(crate) type Persist = Box<dyn Fn() -> Persisting + Send + Sync>;
/// The end of persisting the manager.
pub(crate) type Persisting = Pin<Box<dyn Future<Output = Result<(), io::Error>> + Send>>;
type Answers = Box<dyn KeptAnswers>;
/// The answers to requests that are kept.
pub(crate) trait KeptAnswers: Send + Sync {
	/// Hears of every event that is written down.
	fn watch(&self, event: &Event);

	/// Gives LDK the answer that is kept for a request. Returns `false` if there is none.
	fn answer(&self, event: &Event) -> bool;
}

type Observer = Arc<dyn Fn(&JournalEvent) + Send + Sync>;
type Applies = Box<dyn Fn(&PaymentHash) -> bool + Send + Sync>;

struct Barrier {
	persist: Persist,
	applies: Applies,
}

impl Journal {
	/// A journal that writes to `log`, usually the stream [`EVENT_STREAM`].
	pub fn new(log: EventLog) -> Self {
		// Seeded by the operating system for every process, and different for every call.
		let run = RandomState::new().build_hasher().finish();
		Self {
			log,
			tracker: None,
			requests: None,
			left: Mutex::default(),
			before_sent: None,
			before_claimable: None,
			answers: None,
			observer: None,
			run,
			weak_seen: AtomicU64::new(0),
			refused: AtomicU64::new(0),
			unanswered: Mutex::default(),
			appends: None,
			keep_paths: false,
			keep_htlc_failures: false,
		}
	}

	/// Tracks what LDK may still bring again.
	///
	/// # Errors
	/// The log's.
	///
	/// # Failure Behavior and Persistence
	/// The first time, the consumer [`REPLAY_CONSUMER`] is created, durably.
	pub(crate) fn track_replays(mut self) -> Result<Self, LogError> {
		let (tracker, requests) = ReplayTracker::open(&self.log)?;
		self.requests = Some(RequestTracker::new(&self.log, tracker.consumer().clone())?);
		self.tracker = Some(Arc::new(tracker));
		self.left = Mutex::new(requests);
		Ok(self)
	}

	/// The trackers, to be told of durable managers.
	pub(crate) fn persist_listeners(&self) -> Vec<Arc<dyn ManagerPersistListener>> {
		let replays = self.tracker.clone().map(|tracker| tracker as _);
		let requests = self.requests.clone().map(|tracker| tracker as _);
		replays.into_iter().chain(requests).collect()
	}

	/// Tells the trackers what the node starts from; to be called before LDK hands out events.
	/// `is_answered` says for which requests a resolution is kept.
	///
	/// # Errors
	/// The log's.
	///
	/// # Failure Behavior and Persistence
	/// Requests whose answers LDK may have lost are delivered again. If the process dies in
	/// between, the next start delivers the rest.
	pub(crate) async fn manager_loaded(
		&self, loaded: &LoadedManager<'_>, is_answered: impl Fn(&Event) -> bool,
	) -> Result<(), LogError> {
		if let Some(tracker) = &self.tracker {
			tracker.manager_loaded(loaded);
		}
		let left = std::mem::take(&mut *self.left.lock());
		if let Some(requests) = &self.requests {
			let count = requests.manager_loaded(left, loaded, is_answered).await?;
			if count > 0 {
				self.note(&JournalEvent::AnswersLost { count });
			}
		}
		Ok(())
	}

	/// Persists the manager before `PaymentSent` counts as handled.
	///
	/// A node without this barrier that dies after `PaymentSent` was handled and before the manager
	/// was persisted can be told `PaymentFailed` for the same payment at the next start (case K),
	/// or nothing ever again (case P). The event is still in the queue of the manager that is
	/// written here, so a crash right after brings it again, under the same id.
	///
	/// `applies` says for which payments that is needed: those of which a monitor event is un-acked
	/// ([`MonitorBus::is_unsettled`](crate::MonitorBus::is_unsettled)); for others LDK's own order
	/// of writes sees to it.
	pub(crate) fn persist_before_sent(
		mut self, persist: Persist, applies: impl Fn(&PaymentHash) -> bool + Send + Sync + 'static,
	) -> Self {
		self.before_sent = Some(Barrier { persist, applies: Box::new(applies) });
		self
	}

	/// Persists the manager before a consumer hears that a payment can be claimed, for payments
	/// that are held (hold invoices, swaps, async orders).
	///
	/// A node without this barrier that dies after `PaymentClaimable` was handled, and before its
	/// manager was persisted, accepts the HTLC anew at its next start. If a few blocks have come
	/// since, and the invoice wanted more blocks than LDK does, LDK finds the expiry too soon and
	/// fails the HTLC back, without asking, although a consumer was told that it is held (finding
	/// 16 of `docs/ldk-findings.md`). A manager that was persisted with the payment in it holds it
	/// up to its claim deadline.
	pub(crate) fn persist_before_claimable(
		mut self, persist: Persist, holds: impl Fn(&PaymentHash) -> bool + Send + Sync + 'static,
	) -> Self {
		self.before_claimable = Some(Barrier { persist, applies: Box::new(holds) });
		self
	}

	/// Asks `answers` first, when LDK brings a request again.
	pub(crate) fn answered_by(mut self, answers: impl KeptAnswers + 'static) -> Self {
		self.answers = Some(Box::new(answers));
		self
	}

	/// Leaves the waiting for the disk to what writes the manager and what updates monitors: both
	/// must wait for these appends.
	pub(crate) fn awaited_by(mut self, appends: &PendingAppends) -> Self {
		self.appends = Some(appends.clone());
		self
	}

	/// Calls `observer` with everything worth a line in a log.
	#[must_use]
	pub fn with_observer(
		mut self, observer: impl Fn(&JournalEvent) + Send + Sync + 'static,
	) -> Self {
		self.observer = Some(Arc::new(observer));
		self
	}

	/// Writes paths and probes down as well.
	#[must_use]
	pub fn keep_paths(mut self) -> Self {
		self.keep_paths = true;
		self
	}

	/// Writes `HTLCHandlingFailed` down as well: one record for every HTLC that the node fails,
	/// at a rate that its peers set.
	#[must_use]
	pub fn keep_htlc_failures(mut self) -> Self {
		self.keep_htlc_failures = true;
		self
	}

	/// The log.
	pub fn log(&self) -> &EventLog {
		&self.log
	}

	/// Handles an event of LDK's: writes it down, or gives it to `inline`.
	///
	/// # Errors
	/// `ReplayEvent` if the event could not be written down, or `inline` says so: LDK brings it
	/// again.
	///
	/// # Failure Behavior and Persistence
	/// `Ok` means that the event is in the log, or on its way there with everything held up that
	/// would make LDK forget it, or was handled inline. If the process dies before LDK's own state
	/// says that the event was handled, LDK brings the event again and it is recognized.
	///
	/// `handle` is for a handler in whose thread LDK goes on, as that of `BackgroundProcessor`. A
	/// task of `process_events_async` may go on in another thread; it needs
	/// [`handle_async`](Journal::handle_async).
	pub fn handle(
		&self, event: Event, inline: impl FnOnce(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		self.counted(self.write_or_hand_on(event, inline))
	}

	fn write_or_hand_on(
		&self, event: Event, inline: impl FnOnce(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		let _handling = self.tracker.as_ref().map(|tracker| tracker.handling());
		let Some(written) = self.encode(&event) else { return inline(event) };
		let (identity, sent, store) = (written.identity.id, sent(&event), self.log.store());
		if claimable(&event).is_some_and(|hash| self.needs(&self.before_claimable, hash)) {
			self.persisted(block_on(store, self.persist(&self.before_claimable)))?;
		}
		self.watch(&event);
		let thread = Some(std::thread::current().id());
		match written.class {
			EventClass::Request => block_on(store, self.write_request(&event, written, thread))?,
			_ => {
				let ticket = self.write_fact(written, thread);
				ticket.map_or(Ok(()), |ticket| self.appended(ticket.wait()))?;
			},
		}
		if sent.is_some_and(|hash| self.needs(&self.before_sent, hash)) {
			let persisted = block_on(store, self.persist(&self.before_sent));
			self.persisted(persisted).inspect_err(|_| self.comes_again(identity))?;
		}
		Ok(())
	}

	/// Handles an event as [`handle`](Journal::handle) does, in the shape that
	/// `process_events_async` wants. `PaymentSent`, `PaymentFailed` and `PaymentClaimed` are
	/// durable when it ends, since LDK then sends updates of monitors that it had held back for
	/// them, on whatever thread its task is.
	///
	/// # Errors
	/// The same as [`handle`](Journal::handle).
	///
	/// # Failure Behavior and Persistence
	/// The same as [`handle`](Journal::handle).
	pub async fn handle_async<F>(
		&self, event: Event, inline: impl FnOnce(Event) -> F,
	) -> Result<(), ReplayEvent>
	where
		F: Future<Output = Result<(), ReplayEvent>>,
	{
		self.counted(self.write_or_hand_on_async(event, inline).await)
	}

	async fn write_or_hand_on_async<F>(
		&self, event: Event, inline: impl FnOnce(Event) -> F,
	) -> Result<(), ReplayEvent>
	where
		F: Future<Output = Result<(), ReplayEvent>>,
	{
		let _handling = self.tracker.as_ref().map(|tracker| tracker.handling());
		let Some(written) = self.encode(&event) else { return inline(event).await };
		let (identity, sent) = (written.identity.id, sent(&event));
		if claimable(&event).is_some_and(|hash| self.needs(&self.before_claimable, hash)) {
			self.persisted(self.persist(&self.before_claimable).await)?;
		}
		self.watch(&event);
		match written.class {
			EventClass::Request => self.write_request(&event, written, None).await?,
			_ => {
				if let Some(ticket) = self.write_fact(written, None) {
					self.appended(ticket.await)?;
				}
			},
		}
		// A synchronous handler need not wait: LDK goes on in its thread, and the bus waits there.
		if let Some(appends) = self.appends.as_ref().filter(|_| releases_monitor_update(&event)) {
			appends.durable().await.map_err(|error| {
				self.comes_again(identity);
				self.log_failed(&error)
			})?;
		}
		if sent.is_some_and(|hash| self.needs(&self.before_sent, hash)) {
			let persisted = self.persist(&self.before_sent).await;
			self.persisted(persisted).inspect_err(|_| self.comes_again(identity))?;
		}
		Ok(())
	}

	/// Counts an event that is refused.
	fn counted(&self, handled: Result<(), ReplayEvent>) -> Result<(), ReplayEvent> {
		if handled.is_err() {
			self.refused.fetch_add(1, Ordering::SeqCst);
		}
		handled
	}

	/// The events that were refused in this run.
	pub(crate) fn refused(&self) -> u64 {
		self.refused.load(Ordering::SeqCst)
	}

	/// The event as it is written down; `None` for one that is not.
	fn encode(&self, event: &Event) -> Option<Written> {
		let class = replay_class(event);
		let is_left_out = !class.is_journaled()
			|| (class::is_for_the_scorer(event) && !self.keep_paths)
			|| (class::is_paced_by_peers(event) && !self.keep_htlc_failures);
		if is_left_out {
			return None;
		}
		let Some(bytes) = entry::encode_ldk(event) else {
			self.note(&JournalEvent::NotWritable { kind: kind_of(event) });
			return None;
		};
		let identity = EventIdentity::of(event);
		let payload = entry::encode(&identity, &bytes);
		let from = Source::of(event);
		Some(Written { class, from, identity, kind: kind_of(event), payload })
	}

	/// Tells whoever keeps answers of the event.
	fn watch(&self, event: &Event) {
		if let Some(answers) = &self.answers {
			answers.watch(event);
		}
	}

	/// Submits a fact, unless it is one that is in the log. Answers what to wait for.
	fn write_fact(&self, written: Written, thread: Option<ThreadId>) -> Option<Ticket<Appended>> {
		let Written { identity, kind, payload, from, .. } = written;
		if self.unanswered.lock().remove(&identity.id) {
			self.tracker.iter().for_each(|tracker| tracker.came_again());
			return None;
		}
		let is_weak = identity.strength == IdStrength::Weak;
		if is_weak && self.tracker.as_ref().is_some_and(|tracker| tracker.recognize(&identity)) {
			return None;
		}
		let id = if is_weak { self.occurrence_of(&identity.id) } else { identity.id };
		let event = NewEvent { id, kind, lane: identity.lane, payload };
		let done = self.journaled(EventClass::Durable, identity);
		match from {
			Source::Manager => self.append(event, 0, thread, done),
			Source::Monitor => Some(self.append_at_once(event, 0, done)),
		}
	}

	/// Writes a request down: the first time, and again if LDK brings it again after it was acked.
	async fn write_request(
		&self, event: &Event, written: Written, thread: Option<ThreadId>,
	) -> Result<(), ReplayEvent> {
		let Written { identity, kind, payload, .. } = written;
		let is_weak = identity.strength == IdStrength::Weak;
		let id = if is_weak { self.occurrence_of(&identity.id) } else { identity.id };
		let newest = self.log.occurrence(&id).await.map_err(|error| self.log_failed(&error))?;
		let repeat = match newest {
			None => 0,
			// LDK brings the request again, and gets the answer again.
			Some(_) if self.answers.as_ref().is_some_and(|answers| answers.answer(event)) => {
				self.note(&JournalEvent::Answered { kind, id });
				return Ok(());
			},
			Some(newest) => {
				let was_acked = self.log.is_acked_by_any(newest.index, REPLAY_CONSUMER).await;
				if !was_acked.map_err(|error| self.log_failed(&error))? {
					// Every consumer has it before it anyway.
					return Ok(());
				}
				newest.repeat.saturating_add(1)
			},
		};
		if repeat > 0 {
			self.note(&JournalEvent::Repeated { kind: kind.clone(), id, repeat });
		}
		let new = NewEvent { id, kind, lane: identity.lane, payload };
		let done = self.journaled(EventClass::Request, identity);
		match self.append(new, repeat, thread, done) {
			Some(ticket) => self.appended(ticket.await),
			None => Ok(()),
		}
	}

	/// Submits an append. Answers what to wait for, unless others wait.
	fn append(
		&self, event: NewEvent, repeat: u32, thread: Option<ThreadId>,
		done: impl FnOnce(Appended) + Send + 'static,
	) -> Option<Ticket<Appended>> {
		let Some(appends) = &self.appends else {
			return Some(self.append_at_once(event, repeat, done));
		};
		appends.push(event, repeat, thread, done);
		None
	}

	fn append_at_once(
		&self, event: NewEvent, repeat: u32, done: impl FnOnce(Appended) + Send + 'static,
	) -> Ticket<Appended> {
		let plan = self.log.append_repeat_plan(event, repeat);
		plan.commit(self.log.store()).then(move |appended| {
			let appended = appended?;
			done(appended);
			Ok(appended)
		})
	}

	/// Tells the tracker of replays of an append, now and when it is durable.
	fn journaled(
		&self, class: EventClass, identity: EventIdentity,
	) -> impl FnOnce(Appended) + Send + 'static {
		let tracker = self.tracker.clone().filter(|_| class == EventClass::Durable);
		if let Some(tracker) = &tracker {
			tracker.supersede(&identity);
		}
		move |appended| {
			match (tracker, appended) {
				(Some(tracker), Appended::New(index)) => tracker.journaled(index),
				// LDK has it in its queue again, or the first try landed and was not answered.
				(Some(tracker), appended) => tracker.journaled_before(appended.index()),
				(None, _) => {},
			}
		}
	}

	/// This run has written the event down, and tells LDK to bring it again.
	fn comes_again(&self, identity: EventId) {
		if self.unanswered.lock().insert(identity) {
			self.tracker.iter().for_each(|tracker| tracker.comes_again());
		}
	}

	/// The id of a new event whose identity is weak. In one run LDK does not bring an event again
	/// that was answered with `Ok`, so every one that comes and is not
	/// [recognized](ReplayTracker::recognize) is new.
	fn occurrence_of(&self, identity: &EventId) -> EventId {
		const DOMAIN: leyden_id::Domain = leyden_id::Domain::new("leyden/occurrence", 1);
		IdBuilder::new(DOMAIN, "weak")
			.bytes(identity.as_bytes())
			.number(self.run)
			.number(self.weak_seen.fetch_add(1, Ordering::Relaxed))
			.finish()
	}

	fn needs(&self, barrier: &Option<Barrier>, hash: PaymentHash) -> bool {
		barrier.as_ref().is_some_and(|barrier| (barrier.applies)(&hash))
	}

	async fn persist(&self, barrier: &Option<Barrier>) -> Result<(), io::Error> {
		match barrier {
			Some(barrier) => (barrier.persist)().await,
			None => Ok(()),
		}
	}

	fn persisted(&self, persisted: Result<(), io::Error>) -> Result<(), ReplayEvent> {
		persisted.map_err(|error| {
			self.note(&JournalEvent::PersistFailed { error: error.to_string() });
			ReplayEvent()
		})
	}

	fn appended(&self, appended: Result<Appended, StoreError>) -> Result<(), ReplayEvent> {
		appended.map(|_| ()).map_err(|error| self.log_failed(&error))
	}

	fn log_failed(&self, error: &dyn fmt::Display) -> ReplayEvent {
		self.note(&JournalEvent::LogFailed { error: error.to_string() });
		ReplayEvent()
	}

	fn note(&self, event: &JournalEvent) {
		if let Some(observer) = &self.observer {
			observer(event);
		}
	}
}

/// An event as it is written down.
struct Written {
	class: EventClass,
	from: Source,
	identity: EventIdentity,
	kind: leyden_id::EventKind,
	payload: Vec<u8>,
}

/// The part of LDK that forgets the event once it was handled, and so must not be written before
/// the event is.
#[derive(Clone, Copy)]
enum Source {
	/// The `ChannelManager`, which the persister writes.
	Manager,
	/// A `ChannelMonitor`, which any block may make LDK write: its events must be durable before
	/// they count as handled.
	Monitor,
}

impl Source {
	fn of(event: &Event) -> Self {
		match event {
			Event::SpendableOutputs { .. } => Self::Monitor,
			_ => Self::Manager,
		}
	}
}

/// The payment hash, if the event tells that a payment arrived.
///
/// A failure needs no barrier: no payment that has failed arrives later. And a manager that has a
/// failure in its queue makes LDK tell it twice after a crash (finding 27).
fn sent(event: &Event) -> Option<PaymentHash> {
	match event {
		Event::PaymentSent { payment_hash, .. } => Some(*payment_hash),
		_ => None,
	}
}

fn claimable(event: &Event) -> Option<PaymentHash> {
	match event {
		Event::PaymentClaimable { payment_hash, .. } => Some(*payment_hash),
		_ => None,
	}
}

impl fmt::Debug for Journal {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Journal on {:?}", self.log)
	}
}
