// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The event handler that writes events down: see [`Journal`].

mod class;
mod entry;
mod identity;
mod ledger;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use leyden_id::{EventId, IdBuilder, IdStrength};
use leyden_log::{Appended, EventLog, LogError, NewEvent};
use lightning::events::{Event, EventHandler, ReplayEvent};
use lightning::io;
use lightning::types::payment::PaymentHash;

pub use class::{class_of, kind_of};
pub use entry::{decode_event, UnreadableEvent};
pub use identity::Identity;
pub use ledger::{LEDGER_CONSUMER, MAX_UNSETTLED_EVENTS};

use crate::snapshot::SettledBySnapshot;
use ledger::Ledger;

/// The log's stream of user events.
pub const EVENT_STREAM: &str = "events";

/// An `EventHandler` that writes events down and is done.
///
/// Events of class [`Durable`](leyden_id::EventClass::Durable) become entries of the log, and
/// consumers handle them from there, each in its own time, until they say so. LDK's own queue never
/// waits for a consumer. All other events go to the inline handler, since LDK wants an answer now
/// or makes them anew; so do paths and probes, from which only a scorer learns.
///
/// # What is promised
/// `Ok` means that the event is durable in the log. The same event, brought again by LDK after a
/// restart, is still one entry: strong ids say so by themselves, and for weak ones the journal
/// keeps account of what LDK may still bring (if
/// [`settled_by_snapshots`](Journal::settled_by_snapshots)). No event is skipped: one that cannot
/// be written so that it can be read back goes to the inline handler.
///
/// # What is not
/// A weak event may become two entries if the node dies, such as a second `HTLCHandlingFailed` for
/// the same channels; see [`IdStrength::Weak`].
pub struct Journal<H> {
	log: EventLog,
	inline: H,
	ledger: Option<Arc<Ledger>>,
	barrier: Option<Barrier>,
	hold_barrier: Option<Barrier>,
	observer: Option<Observer>,
	/// With `weak_seen`, what makes the ids of weak events differ from those of other lives and
	/// from each other.
	life: u64,
	weak_seen: AtomicU64,
	keep_paths: bool,
}

type Observer = Box<dyn Fn(&JournalNote) + Send + Sync>;
type Persist = Box<dyn Fn() -> Result<(), io::Error> + Send + Sync>;
type Applies = Box<dyn Fn(&PaymentHash) -> bool + Send + Sync>;

struct Barrier {
	persist: Persist,
	applies: Applies,
}

/// Something that the journal could not do. Its `Display` is a line for a log; it holds no secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum JournalNote {
	/// An event could not be written down; LDK was told to bring it again.
	LogFailed {
		/// What the log said.
		error: String,
	},
	/// The manager could not be persisted before a payment's end, or a payment that is held, counted
	/// as handled; LDK was told to bring the event again.
	BarrierFailed {
		/// What the persister said.
		error: String,
	},
	/// An event cannot be written so that it can be read back, and went to the inline handler.
	NotWritable {
		/// Which kind.
		kind: leyden_id::EventKind,
	},
}

impl<H> Journal<H> {
	/// A journal that writes to `log`, usually the stream [`EVENT_STREAM`], and leaves to `inline`
	/// what must be answered at once.
	pub fn new(log: EventLog, inline: H) -> Self {
		// Seeded by the operating system for every process, and different for every call.
		let life = RandomState::new().build_hasher().finish();
		let weak_seen = AtomicU64::new(0);
		Self {
			log,
			inline,
			ledger: None,
			barrier: None,
			hold_barrier: None,
			observer: None,
			life,
			weak_seen,
			keep_paths: false,
		}
	}

	/// Keeps account of what LDK may still bring again. Hand what
	/// [`settled_by`](Journal::settled_by) answers to
	/// [`ManagerSnapshots`](crate::ManagerSnapshots).
	///
	/// # Errors
	/// The log's.
	///
	/// # Failure Behavior and Persistence
	/// The first time, the ledger's consumer is created, durably.
	pub fn settled_by_snapshots(mut self) -> Result<Self, LogError> {
		self.ledger = Some(Arc::new(Ledger::open(&self.log)?));
		Ok(self)
	}

	/// The ledger, to be told of manager snapshots; `None` without
	/// [`settled_by_snapshots`](Journal::settled_by_snapshots).
	pub fn settled_by(&self) -> Option<Arc<dyn SettledBySnapshot>> {
		let ledger = self.ledger.as_ref()?;
		Some(Arc::<Ledger>::clone(ledger))
	}

	/// Persists the manager before a payment's end counts as handled.
	///
	/// Without this, a node that dies after `PaymentSent` was handled and before the manager was
	/// persisted can be told `PaymentFailed` for the same payment at the next start (case K), or
	/// nothing ever again (case P). `persist` must encode and write the manager; the event is still
	/// in what it writes, so a crash right after brings it again, under the same id.
	///
	/// `applies` says for which payments that is needed: those of which a monitor event is un-acked
	/// ([`MonitorBus::is_unsettled`](crate::MonitorBus::is_unsettled)); for others LDK's own order
	/// of writes sees to it. Without a bus, answer `true`.
	#[must_use]
	pub fn with_barrier(
		mut self, persist: impl Fn() -> Result<(), io::Error> + Send + Sync + 'static,
		applies: impl Fn(&PaymentHash) -> bool + Send + Sync + 'static,
	) -> Self {
		self.barrier = Some(Barrier { persist: Box::new(persist), applies: Box::new(applies) });
		self
	}

	/// Persists the manager before anybody hears that a payment can be claimed, for payments that are
	/// held (hold invoices, swaps, async orders).
	///
	/// Without this, a node that dies after `PaymentClaimable` was handled, and before its manager was
	/// persisted, accepts the HTLC anew at its next start. If a few blocks have come since, and the
	/// invoice wanted more blocks than LDK does, LDK finds the expiry too soon and fails it back, without asking, although somebody was told that it is
	/// held: an LSP that has paid it on has lost it (finding 16). A manager that was persisted with the
	/// payment in it holds it up to its claim deadline.
	///
	/// `holds` says which payments are held for somebody. One that is claimed at once needs no barrier:
	/// the claim is in the monitors.
	#[must_use]
	pub fn with_hold_barrier(
		mut self, persist: impl Fn() -> Result<(), io::Error> + Send + Sync + 'static,
		holds: impl Fn(&PaymentHash) -> bool + Send + Sync + 'static,
	) -> Self {
		self.hold_barrier = Some(Barrier { persist: Box::new(persist), applies: Box::new(holds) });
		self
	}

	/// Calls `observer` with what could not be done.
	#[must_use]
	pub fn with_observer(
		mut self, observer: impl Fn(&JournalNote) + Send + Sync + 'static,
	) -> Self {
		self.observer = Some(Box::new(observer));
		self
	}

	/// Writes paths and probes down as well.
	#[must_use]
	pub fn keeping_paths(mut self) -> Self {
		self.keep_paths = true;
		self
	}

	/// The log.
	pub fn log(&self) -> &EventLog {
		&self.log
	}

	fn step(&self, event: &Event) -> Step {
		let journaled = class_of(event).is_journaled();
		if !journaled || (class::is_scorer_food(event) && !self.keep_paths) {
			return Step::Inline;
		}
		let Some(bytes) = entry::encode_ldk(event) else {
			self.note(JournalNote::NotWritable { kind: kind_of(event) });
			return Step::Inline;
		};
		let identity = Identity::of(event);
		let weak = identity.strength == IdStrength::Weak;
		if weak && self.ledger.as_ref().is_some_and(|ledger| ledger.recognize(&identity.id)) {
			return Step::Known;
		}
		Step::Append(NewEvent {
			id: if weak { self.occurrence(&identity.id) } else { identity.id },
			kind: kind_of(event),
			lane: identity.lane,
			payload: entry::encode(&identity, &bytes),
		})
	}

	/// The id of a new event with a weak identity. In one life LDK does not bring an event again
	/// that was answered with `Ok`, so every one that comes and is not
	/// [recognized](Ledger::recognize) is new.
	fn occurrence(&self, identity: &EventId) -> EventId {
		const DOMAIN: leyden_id::Domain = leyden_id::Domain::new("leyden/occurrence", 1);
		IdBuilder::new(DOMAIN, "weak")
			.bytes(identity.as_bytes())
			.number(self.life)
			.number(self.weak_seen.fetch_add(1, Ordering::Relaxed))
			.finish()
	}

	fn appended(&self, appended: Appended) {
		if let (Some(ledger), Appended::New(index)) = (&self.ledger, appended) {
			ledger.journaled(index);
		}
	}

	/// Before a payment's end counts as handled.
	fn barrier(&self, event: Option<PaymentEnd>) -> Result<(), ReplayEvent> {
		let (Some(barrier), Some(end)) = (&self.barrier, event) else { return Ok(()) };
		self.pass(barrier, end.0.as_ref())
	}

	/// Before anybody can read in the log that a payment is held.
	fn hold_barrier(&self, event: &Event) -> Result<(), ReplayEvent> {
		match (&self.hold_barrier, event) {
			(Some(barrier), Event::PaymentClaimable { payment_hash, .. }) => {
				self.pass(barrier, Some(payment_hash))
			},
			_ => Ok(()),
		}
	}

	fn pass(&self, barrier: &Barrier, hash: Option<&PaymentHash>) -> Result<(), ReplayEvent> {
		if !hash.is_none_or(|hash| (barrier.applies)(hash)) {
			return Ok(());
		}
		(barrier.persist)().map_err(|error| {
			self.note(JournalNote::BarrierFailed { error: error.to_string() });
			ReplayEvent()
		})
	}

	fn log_failed(&self, error: &dyn fmt::Display) -> ReplayEvent {
		self.note(JournalNote::LogFailed { error: error.to_string() });
		ReplayEvent()
	}

	fn note(&self, note: JournalNote) {
		if let Some(observer) = &self.observer {
			observer(&note);
		}
	}
}

impl<H: EventHandler> EventHandler for Journal<H> {
	/// # Failure Behavior and Persistence
	/// `Ok` means that the event is in the log, or was handled inline. If the process dies before
	/// LDK has persisted that, LDK brings the event again and it is recognized. If the log cannot
	/// be written, the answer is `ReplayEvent`, and LDK brings it again in this life.
	fn handle_event(&self, event: Event) -> Result<(), ReplayEvent> {
		let end = PaymentEnd::of(&event);
		self.hold_barrier(&event)?;
		match self.step(&event) {
			Step::Inline => return self.inline.handle_event(event),
			Step::Known => {},
			Step::Append(new) => {
				self.appended(self.log.append(new).map_err(|error| self.log_failed(&error))?);
			},
		}
		self.barrier(end)
	}
}

impl<H> Journal<H> {
	/// As `handle_event`, in the shape that `process_events_async` wants; `H` is the asynchronous
	/// inline handler.
	///
	/// # Errors
	/// `ReplayEvent` if the event could not be written down.
	///
	/// # Failure Behavior and Persistence
	/// As `handle_event`. The event is submitted to the log in this call, not when the future is
	/// polled.
	pub fn handle_event_async<F>(
		&self, event: Event,
	) -> impl Future<Output = Result<(), ReplayEvent>> + use<'_, H, F>
	where
		H: Fn(Event) -> F,
		F: Future<Output = Result<(), ReplayEvent>>,
	{
		let end = PaymentEnd::of(&event);
		let work = self.hold_barrier(&event).map(|()| match self.step(&event) {
			Step::Inline => Work::Inline((self.inline)(event)),
			Step::Known => Work::Known,
			Step::Append(new) => Work::Append(self.log.append_plan(new).commit(self.log.store())),
		});
		async move {
			match work? {
				Work::Inline(handled) => return handled.await,
				Work::Known => {},
				Work::Append(ticket) => {
					self.appended(ticket.await.map_err(|error| self.log_failed(&error))?);
				},
			}
			self.barrier(end)
		}
	}
}

enum Step {
	Inline,
	/// LDK brings an event again that is in the log.
	Known,
	Append(NewEvent),
}

enum Work<F> {
	Inline(F),
	Known,
	Append(leyden_store::Ticket<Appended>),
}

/// The event tells how a payment ended; with the payment's hash, if LDK says it.
struct PaymentEnd(Option<PaymentHash>);

impl PaymentEnd {
	fn of(event: &Event) -> Option<Self> {
		match event {
			Event::PaymentSent { payment_hash, .. } => Some(Self(Some(*payment_hash))),
			Event::PaymentFailed { payment_hash, .. } => Some(Self(*payment_hash)),
			_ => None,
		}
	}
}

impl<H> fmt::Debug for Journal<H> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Journal")
	}
}

impl fmt::Display for JournalNote {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::LogFailed { error } => write!(f, "an event was not written down: {error}"),
			Self::BarrierFailed { error } => {
				write!(f, "the manager was not persisted before an event of a payment: {error}")
			},
			Self::NotWritable { kind } => write!(f, "{kind} cannot be written down"),
		}
	}
}
