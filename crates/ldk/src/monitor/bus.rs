// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The persistent monitor-event bus.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use leyden_id::{EventKind, MonitorEventSource};
use leyden_log::{
	Consumer, ConsumerOptions, DamagedEntry, Entry, EventLog, LogError, LogIndex, Start,
};
use leyden_store::{Plan, Store};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent};
use lightning::chain::transaction::OutPoint;
use lightning::chain::{ChannelMonitorUpdateStatus, Watch};
use lightning::ln::types::ChannelId;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::types::payment::PaymentHash;
use parking_lot::Mutex;

use super::chain::MonitorSet;
use super::entry::MonitorEntry;
use super::gate::{Call, Gate, Passing};
use super::note::{BusNote, Quarantine};
use super::state::{Released, Replay, State, Why};
use super::stop::Stop;
use super::MANAGER_CONSUMER;
use crate::pending_appends::PendingAppends;
use crate::persist_tracker::ManagerPersistListener;

/// A [`Watch`] around LDK's `ChainMonitor` that writes monitor events down before the
/// `ChannelManager` sees them, and brings them again after a restart until a manager that has seen
/// them is durable.
///
/// Give the bus to the `ChannelManager` (and to `ChannelManagerReadArgs`) where the chain monitor
/// would go, feed blocks to the bus, and tell it when a manager was persisted (see
/// [`ManagerPersister`](crate::ManagerPersister)). The chain monitor itself still goes to
/// `load_existing_monitor`, to the background processor and to whoever handles its own events.
///
/// # What is promised
/// An event that was handed out is handed out again at the next start, unless a manager snapshot
/// that was encoded after the hand-out became durable. Events come in the order in which they were
/// logged, those of earlier lives before new ones, and an HTLC event never before the close of its
/// channel. The same logical event, from a monitor's memory, from its disk or derived again from
/// blocks, is one entry with one [`MonitorEventSource`]. One released batch costs one commit, and
/// none if it is empty.
///
/// # What is not
/// `MonitorEvent::Completed` passes through and is never logged: LDK works it out again at start.
/// Claims and fails that are settled off chain make no monitor events in LDK 0.3, so the bus does
/// not see them. A user's event may come twice: the journal and its ids take care of that.
///
/// # If the log fails
/// Nothing is handed out that is not logged. What was taken from the monitors is kept and logged by
/// the next call. Blocks go on meanwhile, and what they want persisted is left out. If an update
/// comes that must be persisted, the bus tries once more, and otherwise stops: updates answer
/// `UnrecoverableError` (on which LDK stops the node, as it does when a monitor cannot be
/// persisted), and [`stopped`](MonitorBus::stopped) resolves, so that no monitor on disk moves on
/// without its events. After a restart the monitors on disk produce them again.
pub struct MonitorBus<W> {
	inner: W,
	bus: Bus,
	/// Keeps monitors from becoming durable ahead of their events.
	gate: Arc<Gate>,
	/// The journal's appends, which an update that LDK held back for an event must not precede.
	appends: Option<PendingAppends>,
}

/// The part of the bus that does not depend on what is below it.
pub(crate) struct Bus {
	pub(crate) log: EventLog,
	pub(crate) consumer: Consumer,
	state: Arc<Mutex<State>>,
	observer: Option<Observer>,
	stop: Arc<Stop>,
}

type Observer = Box<dyn Fn(&BusNote) + Send + Sync>;

/// A monitor event in the log that is not acked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnackedMonitorEvent {
	/// Its public name.
	pub source: MonitorEventSource,
	/// The kind of the event; `None` if its record is damaged.
	pub kind: Option<EventKind>,
	/// Why it is not handed out, if it is not.
	pub quarantine: Option<Quarantine>,
}

impl<W> MonitorBus<W> {
	/// A bus over `inner` that keeps its events in `log`, usually the stream
	/// [`MONITOR_STREAM`](super::MONITOR_STREAM).
	///
	/// # Errors
	/// The log's.
	///
	/// # Failure Behavior and Persistence
	/// The first time, the manager's consumer is created, durably, before any event is.
	pub fn new(inner: W, log: EventLog) -> Result<Self, LogError> {
		Self::behind(Arc::default(), inner, log)
	}

	/// Makes a bus as [`new`](MonitorBus::new) does, behind the gate that guards the chain
	/// monitor's persistence.
	pub(crate) fn behind(gate: Arc<Gate>, inner: W, log: EventLog) -> Result<Self, LogError> {
		let options = ConsumerOptions { start: Start::Beginning, ..ConsumerOptions::default() };
		let consumer = log.consumer(MANAGER_CONSUMER, options)?;
		let state = Arc::new(Mutex::new(State::new()));
		let bus = Bus { log, consumer, state, observer: None, stop: Arc::default() };
		let (state, gate) = (Arc::clone(&bus.state), gate);
		// Asked inside of a persister, where a release may be waiting for the same monitors.
		gate.archives_if(move || state.try_lock().is_some_and(|state| !state.needs_monitors()));
		Ok(Self { inner, bus, gate, appends: None })
	}

	/// Calls `observer` with everything worth a line in a log. It must not call the bus.
	#[must_use]
	pub fn with_observer(mut self, observer: impl Fn(&BusNote) + Send + Sync + 'static) -> Self {
		self.bus.observer = Some(Box::new(observer));
		self
	}

	/// Makes updates that LDK sends after its events were handled wait for the journal's appends.
	pub(crate) fn awaiting(mut self, appends: PendingAppends) -> Self {
		self.appends = Some(appends);
		self
	}

	/// Waits until the events that LDK may be letting go of are in the journal. Returns `false` if
	/// they cannot be written.
	fn journal_is_durable(&self) -> bool {
		let Some(appends) = &self.appends else { return true };
		appends.wait_on_event_thread().map_err(|error| self.bus.stop(&error)).is_ok()
	}

	/// Returns the switch that stops the bus from elsewhere.
	pub(crate) fn stop(&self) -> Arc<Stop> {
		Arc::clone(&self.bus.stop)
	}

	/// What the bus is around.
	pub fn inner(&self) -> &W {
		&self.inner
	}

	/// Up to `limit` un-acked events behind `after`, in order.
	///
	/// # Errors
	/// The log's.
	pub fn unacked(
		&self, after: Option<MonitorEventSource>, limit: usize,
	) -> Result<Vec<UnackedMonitorEvent>, LogError> {
		let after = after.and_then(|source| LogIndex::new(source.event_id));
		let page = self.bus.consumer.unacked(after, limit)?;
		let state = self.bus.state.lock();
		let unacked = |place: &Result<Entry, DamagedEntry>| {
			let (index, lane, kind) = match place {
				Ok(entry) => (entry.index(), Some(entry.lane()), Some(entry.kind().clone())),
				Err(damaged) => (damaged.index(), damaged.lane(), None),
			};
			let channel = lane.and_then(|lane| lane.channel_id());
			let channel = channel.map_or(ChannelId([0; 32]), |channel| ChannelId(channel.0));
			let quarantine = match state.set_aside.get(&index).map(|aside| aside.why) {
				Some(Why::Quarantined(why)) => Some(why),
				_ => None,
			};
			UnackedMonitorEvent { source: source(channel, index), kind, quarantine }
		};
		Ok(page.iter().map(unacked).collect())
	}

	/// Acks one event by hand, by the name that rust-lightning #4491 gives this call.
	///
	/// The bus acks by itself when it is told of a durable manager. This is for an operator who
	/// knows better, such as for an entry in quarantine: an event acked before a manager that has
	/// seen it is durable is lost if the node dies.
	///
	/// # Errors
	/// The log's.
	///
	/// # Failure Behavior and Persistence
	/// Once it returns the event does not come again. If the process dies before, it may.
	pub fn ack_monitor_event(&self, source: MonitorEventSource) -> Result<(), LogError> {
		let Some(index) = LogIndex::new(source.event_id) else { return Ok(()) };
		self.bus.consumer.ack_plan_many(&[index]).run(self.bus.store())?;
		self.bus.state.lock().set_aside.remove(&index);
		Ok(())
	}

	/// Whether the bus refuses everything because its log could not be written. Restart the node.
	pub fn is_stopped(&self) -> bool {
		self.bus.stop.reason().is_some()
	}

	/// Resolves with the reason once the bus refuses everything, and never before: for a node to
	/// `select!` on, and to shut down by. LDK stops by itself at the next update of a monitor.
	pub fn stopped(&self) -> impl Future<Output = String> + Send + '_ {
		self.bus.stop.stopped()
	}

	/// Whether an HTLC event of this payment was handed out and is not acked. Until it is, a crash
	/// brings it again, so what the user was told of the payment must not be taken for settled.
	pub fn is_unsettled(&self, hash: &PaymentHash) -> bool {
		self.bus.state.lock().awaits_payment(hash)
	}
}

impl<W: Deref> MonitorBus<W> {
	/// Passes a call on that may make a monitor persist itself; answers `refused` if the bus is
	/// stopped.
	pub(crate) fn pass_on<R>(
		&self, call: Call, refused: R, f: impl FnOnce(&W::Target, &mut Passing) -> R,
	) -> R {
		loop {
			if call == Call::Update && self.is_stopped() {
				return refused;
			}
			let mut passing = self.gate.pass(call);
			if !self.gate.holds_up(call) {
				return f(&self.inner, &mut passing);
			}
			drop(passing);
			// Events that could not be logged when they were taken.
			if !self.bus.log_or_stop(&self.gate) {
				return refused;
			}
		}
	}
}

impl<W: Deref> MonitorBus<W>
where
	W::Target: MonitorSet,
{
	/// Archives monitors that have nothing left to do, unless there are un-acked events: one that
	/// is replayed after its monitor is gone would make LDK panic. Call this and not the
	/// `ChainMonitor`'s. Answers whether it was done.
	///
	/// # Errors
	/// The log's.
	pub fn archive_fully_resolved_channel_monitors(&self) -> Result<bool, LogError> {
		if self.bus.state.lock().needs_monitors() {
			return Ok(false);
		}
		let _passing = self.gate.pass(Call::Block);
		self.inner.archive_fully_resolved_channel_monitors();
		Ok(true)
	}
}

impl<W, S> Watch<S> for MonitorBus<W>
where
	S: EcdsaChannelSigner,
	W: Deref,
	W::Target: Watch<S> + MonitorSet,
{
	fn watch_channel(
		&self, channel_id: ChannelId, monitor: ChannelMonitor<S>,
	) -> Result<ChannelMonitorUpdateStatus, ()> {
		let refused = Ok(ChannelMonitorUpdateStatus::UnrecoverableError);
		if !self.journal_is_durable() {
			return refused;
		}
		self.pass_on(Call::Update, refused, |inner, passing| {
			let watched = inner.watch_channel(channel_id, monitor);
			if watched.is_err() {
				// The chain monitor has one of that id: it did not look at this one.
				passing.tells_nothing();
			}
			watched
		})
	}

	fn update_channel(
		&self, channel_id: ChannelId, update: &ChannelMonitorUpdate,
	) -> ChannelMonitorUpdateStatus {
		let refused = ChannelMonitorUpdateStatus::UnrecoverableError;
		if !self.journal_is_durable() {
			return refused;
		}
		self.pass_on(Call::Update, refused, |inner, _| inner.update_channel(channel_id, update))
	}

	/// # Failure Behavior and Persistence
	/// Everything it returns is in the log when it returns. If the process dies before, the
	/// monitors on disk produce it again; if it dies after, the next life replays it.
	fn release_pending_monitor_events(
		&self,
	) -> Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)> {
		let mut out = Released::new();
		// LDK releases on several threads at a time. One release at a time has the gate.
		let mut state = self.bus.state.lock();
		let Some(release) = self.gate.release() else {
			// It comes again. What is logged already need not wait.
			self.bus.hand_out_logged(&mut state, &mut out);
			return out;
		};
		if let Err(error) = self.release::<S>(&mut state, &mut out) {
			self.bus.note(BusNote::LogFailed { error: error.to_string() });
			if !error.is_retriable() {
				self.bus.stop(&error);
			}
		}
		if state.unlogged.is_empty() {
			self.gate.logged();
		}
		drop(release);
		drop(state);
		out
	}
}

impl<W: Deref> MonitorBus<W> {
	fn release<S>(&self, state: &mut State, out: &mut Released) -> Result<(), LogError>
	where
		S: EcdsaChannelSigner,
		W::Target: Watch<S> + MonitorSet,
	{
		if self.bus.stop.reason().is_some() {
			return Ok(());
		}
		self.bus.retry_set_aside(state, &*self.inner, out)?;
		if state.replay != Replay::Done {
			// Only a run that has something to replay asks which monitors there are.
			self.bus.replay(state, &self.inner.monitors(), out)?;
			if state.replay != Replay::Done {
				// New events wait until everything of earlier runs was handed out.
				return Ok(());
			}
		}
		if state.unlogged.is_empty() {
			let taken = <W::Target as Watch<S>>::release_pending_monitor_events(&self.inner);
			self.gate.taken();
			for (funding, channel_id, events, counterparty) in taken {
				state.unlogged.extend(events.into_iter().map(|event| MonitorEntry {
					funding,
					channel_id,
					counterparty,
					event,
				}));
			}
		}
		if !state.unlogged.is_empty() {
			self.bus.log_taken(state)?;
		}
		// What follows may need locks of the chain monitor's that a flush holds while it waits for
		// the log.
		self.gate.logged();
		// An update may have been completed just now.
		self.bus.retry_set_aside(state, &*self.inner, out)?;
		self.bus.hand_out_logged(state, out);
		Ok(())
	}
}

impl<W: Send + Sync> ManagerPersistListener for MonitorBus<W> {
	fn mark(&self) -> u64 {
		self.bus.state.lock().mark()
	}

	fn settle_plan(&self, mark: u64) -> Option<Plan<()>> {
		let indices = self.bus.state.lock().below(mark);
		(!indices.is_empty()).then(|| self.bus.consumer.ack_plan_many(&indices))
	}

	fn settled(&self, mark: u64) {
		self.bus.state.lock().settle(mark);
	}
}

impl Bus {
	pub(crate) fn note(&self, note: BusNote) {
		if let Some(observer) = &self.observer {
			observer(&note);
		}
	}

	pub(crate) fn store(&self) -> &Arc<dyn Store> {
		self.log.store()
	}

	/// Tries to log what could not be logged before, to be handed out by the next release. If that
	/// fails again, stops.
	fn log_or_stop(&self, gate: &Gate) -> bool {
		let mut state = self.state.lock();
		if self.stop.reason().is_some() {
			return false;
		}
		let logged = self.log_taken(&mut state);
		// A release that takes other events begins after this.
		logged.map(|()| gate.logged()).map_err(|error| self.stop(&error)).is_ok()
	}

	/// Stops the bus: it passes nothing on any more.
	fn stop(&self, error: &LogError) {
		if self.stop.now(error.to_string()) {
			self.note(BusNote::Stopped { error: error.to_string() });
		}
	}
}

pub(crate) fn source(channel_id: ChannelId, index: LogIndex) -> MonitorEventSource {
	MonitorEventSource { channel_id: leyden_id::ChannelId(channel_id.0), event_id: index.get() }
}
