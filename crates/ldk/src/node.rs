// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The wiring of a node: one call that hands out everything that an LDK node needs of Leyden.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use leyden_log::{Delivery, EventLog, LogError, LogObserver};
use leyden_store::group::StoreEvent;
use leyden_store::{block_on, Plan, Store};
use lightning::events::{Event, EventHandler, ReplayEvent};
use lightning::io;
use lightning::ln::channelmanager::{AChannelManager, RecentPaymentDetails};
use lightning::types::payment::PaymentHash;
use lightning::util::logger::{Level, Logger, Record};
use lightning::util::persist::{KVStore, KVStoreSync};
use lightning::util::ser::Writeable;

use crate::consumer_teller::ConsumerTeller;
use crate::htlc_resolutions::{HtlcResolution, HtlcResolutions};
use crate::journal::{Journal, JournalHandler, KeptAnswers, LoadedManager, Persist};
use crate::manager_persister::ManagerPersister;
use crate::monitor::gate::Gate;
use crate::monitor::{GuardedPersister, GuardedStore, MonitorBus};
use crate::pending_appends::PendingAppends;
use crate::persist_tracker::{ManagerPersistListener, ManagerPersistTracker};

/// The logger that a node has, of any type.
pub type SharedLogger = Arc<dyn Logger + Send + Sync>;

/// Everything of Leyden that a node is put together from, before its manager exists.
///
/// # The order, and why
/// 1. [`NodeWiring::monitor_persister`] (or [`monitor_store`](NodeWiring::monitor_store)) goes below
///    the chain monitor: the background processor reaches the chain monitor past the bus.
/// 2. [`NodeWiring::monitor_bus`] goes around the chain monitor, before the manager is read: the
///    manager gets the bus as its `chain::Watch`, and so do all sources of blocks.
/// 3. The monitors are loaded into the *chain monitor*, and the manager is read or made.
/// 4. [`NodeWiring::start`] (or [`start_async`](NodeWiring::start_async)) with the manager and the
///    node's store: it looks at the manager that is durable, so that an event that LDK brings again
///    is told apart from a new one, and gives LDK the resolutions that it may not have.
/// 5. The background processor gets [`LdkNode::persister`] in place of the node's store, and the
///    handler of [`LdkNode::handler`] or [`LdkNode::handle_async`].
/// 6. Blocks are fed to the bus, peers connect, consumers run.
pub struct NodeWiring {
	monitor_log: EventLog,
	event_log: EventLog,
	logger: SharedLogger,
	appends: PendingAppends,
	gate: Arc<Gate>,
	holds: Arc<dyn Fn(&PaymentHash) -> bool + Send + Sync>,
	keep_paths: bool,
	keep_htlc_failures: bool,
	persists_before_sent: bool,
}

/// Why a node's wiring could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
	/// The log, or its store, failed.
	Log(LogError),
	/// The node's own store failed to read the manager.
	Manager(io::Error),
}

impl NodeWiring {
	/// Wiring over the logs of monitor events and of user events, which must be in one store.
	/// Everything worth telling goes to `logger`, and so does what the store tells of itself: the
	/// beginning and the end of an outage, and the end of its handle.
	pub fn new(monitor_log: EventLog, event_log: EventLog, logger: SharedLogger) -> Self {
		let appends = PendingAppends::new(event_log.clone());
		// A store may outlive the node; its observers stay.
		let told = Arc::downgrade(&logger);
		event_log.store().observe(Arc::new(move |event| {
			if let Some(logger) = told.upgrade() {
				log_to(&logger, level_of(event), event);
			}
		}));
		let holds = Arc::new(|_: &PaymentHash| false);
		Self {
			monitor_log,
			event_log,
			logger,
			appends,
			gate: Arc::default(),
			holds,
			keep_paths: false,
			keep_htlc_failures: false,
			persists_before_sent: true,
		}
	}

	/// Says which payments are held for another party (hold invoices, swaps, async orders): the
	/// manager is persisted before a consumer hears that such a payment can be claimed. None,
	/// unless told otherwise.
	#[must_use]
	pub fn holding(mut self, holds: impl Fn(&PaymentHash) -> bool + Send + Sync + 'static) -> Self {
		self.holds = Arc::new(holds);
		self
	}

	/// Writes paths and probes down as well; see [`Journal::keep_paths`].
	#[must_use]
	pub fn keep_paths(mut self) -> Self {
		self.keep_paths = true;
		self
	}

	/// Writes `HTLCHandlingFailed` down as well; see [`Journal::keep_htlc_failures`].
	#[must_use]
	pub fn keep_htlc_failures(mut self) -> Self {
		self.keep_htlc_failures = true;
		self
	}

	/// Leaves out what persists the manager before `PaymentSent` counts as handled: for
	/// tests of what happens then (case K).
	#[doc(hidden)]
	#[must_use]
	pub fn without_persist_before_sent(mut self) -> Self {
		self.persists_before_sent = false;
		self
	}

	/// A persister for a `ChainMonitor` that is made with `ChainMonitor::new`, around the node's
	/// own.
	pub fn monitor_persister<P>(&self, persister: P) -> GuardedPersister<P> {
		GuardedPersister::new(persister, Arc::clone(&self.gate))
	}

	/// A store for a `MonitorUpdatingPersisterAsync`, and so for a `ChainMonitor` that is made with
	/// `ChainMonitor::new_async_beta`, around the node's own.
	///
	/// On a runtime with several threads give `MonitorUpdatingPersisterAsync` 0 for
	/// `maximum_pending_updates`: LDK 0.3.0-rc3 may write updates out of order there, and cannot
	/// start from that, with Leyden or without (finding 30 of `docs/ldk-findings.md`).
	pub fn monitor_store<K>(&self, kv: K) -> GuardedStore<K> {
		GuardedStore::new(kv, Arc::clone(&self.gate))
	}

	/// A bus around the chain monitor, for the manager and for all sources of blocks. It stops when
	/// the store's handle ends.
	///
	/// # Errors
	/// The log's.
	pub fn monitor_bus<W: Deref>(&self, chain_monitor: W) -> Result<Arc<MonitorBus<W>>, LogError> {
		let logger = Arc::clone(&self.logger);
		let gate = Arc::clone(&self.gate);
		let bus = MonitorBus::behind(gate, chain_monitor, self.monitor_log.clone())?;
		let bus = bus.with_observer(move |event| log_to(&logger, event.level(), event));
		let stop = bus.stop();
		self.event_log.store().observe(Arc::new(move |event| {
			if matches!(event, StoreEvent::HandleEnded { .. }) {
				stop.now(event.to_string());
			}
		}));
		Ok(Arc::new(bus.awaiting(self.appends.clone())))
	}

	/// Starts the wiring of a node with a synchronous store. `kv` is where the node keeps its
	/// manager.
	///
	/// # Errors
	/// [`StartError::Manager`] if the manager cannot be read from `kv`; [`StartError::Log`] if
	/// Leyden's own records cannot be read.
	///
	/// # Failure Behavior and Persistence
	/// The first time, the consumer that stands for LDK is created. A crash at any point leaves a
	/// node that starts.
	pub fn start<W, M, K>(
		&self, bus: &Arc<MonitorBus<W>>, manager: M, kv: K,
	) -> Result<LdkNode<M, K>, StartError>
	where
		W: Send + Sync + 'static,
		M: Deref + Clone + Send + Sync + 'static,
		M::Target: AChannelManager,
		K: Deref + Send + Sync + 'static,
		K::Target: KVStoreSync,
	{
		let store = Arc::clone(self.event_log.store());
		let persister = ManagerPersister::open(kv, store, self.appends.clone());
		let persister = Arc::new(persister.map_err(StartError::Manager)?);
		let persist = || -> Persist {
			let persister = Arc::clone(&persister);
			Box::new(move || Box::pin(std::future::ready(persister.persist())))
		};
		let (sent, claimable) = (persist(), persist());
		let store = self.event_log.store();
		block_on(store, self.assemble(bus, manager, persister, sent, claimable))
	}

	/// Starts the wiring of a node whose store has futures.
	///
	/// # Errors
	/// The same as [`start`](NodeWiring::start).
	///
	/// # Failure Behavior and Persistence
	/// The same as [`start`](NodeWiring::start).
	pub async fn start_async<W, M, K>(
		&self, bus: &Arc<MonitorBus<W>>, manager: M, kv: K,
	) -> Result<LdkNode<M, K>, StartError>
	where
		W: Send + Sync + 'static,
		M: Deref + Clone + Send + Sync + 'static,
		M::Target: AChannelManager,
		K: Deref + Clone + Send + Sync + 'static,
		K::Target: KVStore,
	{
		let store = Arc::clone(self.event_log.store());
		let persister = ManagerPersister::open_async(kv, store, self.appends.clone()).await;
		let persister = Arc::new(persister.map_err(StartError::Manager)?);
		let persist = || -> Persist {
			let persister = Arc::clone(&persister);
			Box::new(move || Box::pin(persister.persist_async()))
		};
		let (sent, claimable) = (persist(), persist());
		self.assemble(bus, manager, persister, sent, claimable).await
	}

	async fn assemble<W, M, K>(
		&self, bus: &Arc<MonitorBus<W>>, manager: M, persister: Arc<ManagerPersister<K>>,
		persist_sent: Persist, persist_claimable: Persist,
	) -> Result<LdkNode<M, K>, StartError>
	where
		W: Send + Sync + 'static,
		M: Deref + Clone + Send + Sync + 'static,
		M::Target: AChannelManager,
	{
		let store = self.event_log.store();
		let resolutions = HtlcResolutions::open(Arc::clone(store)).map_err(LogError::from)?;
		let logger = Arc::clone(&self.logger);
		let tells = Arc::clone(&self.logger);
		let tell = Box::new(move |line: &str| log_to(&tells, Level::Error, &line));
		let teller = ConsumerTeller::of(&self.event_log, tell)?;
		let mut journal = Journal::new(self.event_log.clone()).track_replays()?;
		if self.keep_paths {
			journal = journal.keep_paths();
		}
		if self.keep_htlc_failures {
			journal = journal.keep_htlc_failures();
		}
		let (unsettled, holds) = (Arc::clone(bus), Arc::clone(&self.holds));
		let persists = self.persists_before_sent;
		let resolver = || {
			let (resolutions, manager) = (resolutions.clone(), manager.clone());
			Resolver { resolutions, manager, store: Arc::clone(store) }
		};
		let journal = journal
			.with_observer(move |event| log_to(&logger, event.level(), event))
			.awaited_by(&self.appends)
			.persist_before_sent(persist_sent, move |hash| persists && unsettled.is_unsettled(hash))
			.persist_before_claimable(persist_claimable, move |hash| holds(hash))
			.answered_by(resolver());

		let listeners: [Arc<dyn ManagerPersistListener>; 2] =
			[Arc::<MonitorBus<W>>::clone(bus), Arc::new(resolver())];
		let listeners = listeners.into_iter().chain(journal.persist_listeners());
		let tracker = ManagerPersistTracker::new(Arc::clone(store), listeners);
		let encoded = manager.clone();
		let encode = Box::new(move || encoded.get_cm().encode());
		let (waiting, applied) = (resolutions.clone(), manager.clone());
		let written = Box::new(move || {
			waiting.apply(&applied);
		});
		persister.shared().attach(tracker, encode, written, Arc::clone(&self.gate));
		// A node without a manager starts from nothing.
		let (bytes, journaled) = persister.shared().take_loaded().unwrap_or_default();
		let payments = payments(&manager);
		let height = manager.get_cm().current_best_block().height;
		let loaded = LoadedManager { bytes: &bytes, journaled, payments: &payments, height };
		journal.manager_loaded(&loaded, |event| resolutions.has(event)).await?;
		resolutions.apply(&manager);
		let journal = Arc::new(journal);
		Ok(LdkNode { manager, persister, journal, resolutions, _teller: teller })
	}
}

/// A node's wiring at work: the store for the background processor, the event handler, and the
/// answers to requests.
pub struct LdkNode<M, K> {
	manager: M,
	persister: Arc<ManagerPersister<K>>,
	journal: Arc<Journal>,
	resolutions: HtlcResolutions,
	/// Tells the node's log of dead letters and pauses, for as long as the node runs.
	_teller: Arc<dyn LogObserver>,
}

impl<M, K> LdkNode<M, K> {
	/// The store for the background processor, in place of the node's own.
	pub fn persister(&self) -> &Arc<ManagerPersister<K>> {
		&self.persister
	}

	/// The journal.
	pub fn journal(&self) -> &Arc<Journal> {
		&self.journal
	}

	/// The resolutions of HTLCs that LDK's durable state may not have.
	pub fn resolutions(&self) -> &HtlcResolutions {
		&self.resolutions
	}

	/// The event handler for a synchronous background processor. `inline` gets what LDK wants
	/// answered at once (fund, accept, sign, bump).
	pub fn handler<H: EventHandler>(&self, inline: H) -> JournalHandler<H> {
		JournalHandler::new(Arc::clone(&self.journal), inline)
	}

	/// Handles an event in the shape that `process_events_async` wants. `inline` gets what LDK
	/// wants answered at once.
	///
	/// # Errors
	/// The same as [`Journal::handle_async`].
	///
	/// # Failure Behavior and Persistence
	/// The same as [`Journal::handle_async`].
	pub async fn handle_async<F>(
		&self, event: Event, inline: impl FnOnce(Event) -> F,
	) -> Result<(), ReplayEvent>
	where
		F: Future<Output = Result<(), ReplayEvent>>,
	{
		self.journal.handle_async(event, inline).await
	}
}

impl<M, K> LdkNode<M, K>
where
	M: Deref,
	M::Target: AChannelManager,
{
	/// Answers a request: acks the delivery, writes `plan` and the resolution down, in one commit,
	/// and gives the resolution to LDK.
	///
	/// # Errors
	/// The store's, [`Conflict`](leyden_store::StoreError::Conflict) if an expectation of `plan`
	/// does not hold. LDK was given nothing then, and the delivery comes again.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the HTLC is resolved so through any number of crashes, and `plan` was
	/// written once: if LDK brings the request again, it gets the resolution again, and no delivery
	/// comes. If the process dies before that, either all of it is durable or the delivery comes
	/// again.
	pub fn resolve(
		&self, delivery: Delivery, resolution: HtlcResolution, plan: Plan<()>,
	) -> Result<(), LogError> {
		let resolve = self.resolutions.plan(resolution)?;
		delivery.ack_with(plan.and(resolve))?;
		self.resolutions.apply(&&*self.manager);
		Ok(())
	}

	/// Resolves a request as [`resolve`](LdkNode::resolve) does, without blocking.
	///
	/// # Errors
	/// The same as [`resolve`](LdkNode::resolve).
	///
	/// # Failure Behavior and Persistence
	/// The same as [`resolve`](LdkNode::resolve). If the future is dropped before it is ready, the
	/// resolution may be durable all the same; LDK gets it with the next event or manager then.
	pub async fn resolve_async(
		&self, delivery: Delivery, resolution: HtlcResolution, plan: Plan<()>,
	) -> Result<(), LogError> {
		let resolve = self.resolutions.plan(resolution)?;
		let plan = plan.and(resolve).and(delivery.ack_plan());
		plan.commit(self.journal.log().store()).await?;
		self.resolutions.apply(&&*self.manager);
		Ok(())
	}
}

/// Gives LDK the resolutions that are kept, ends claims, and tries forwards again that wait for a
/// channel.
struct Resolver<M> {
	resolutions: HtlcResolutions,
	manager: M,
	store: Arc<dyn Store>,
}

impl<M> KeptAnswers for Resolver<M>
where
	M: Deref + Send + Sync,
	M::Target: AChannelManager,
{
	fn watch(&self, event: &Event) {
		if let Some(ended) = self.resolutions.payment_claimed(event) {
			// Submitted before the event is, so durable before it: nothing has to wait for it. If
			// it fails, a later manager deletes the claim.
			drop(ended.commit(&self.store));
		}
		self.resolutions.apply_new(&&*self.manager);
		if matches!(event, Event::ChannelReady { .. }) {
			self.resolutions.apply(&&*self.manager);
		}
	}

	fn answer(&self, event: &Event) -> bool {
		self.resolutions.answer(&&*self.manager, event)
	}
}

impl<M> ManagerPersistListener for Resolver<M>
where
	M: Deref + Send + Sync,
	M::Target: AChannelManager,
{
	fn mark(&self) -> u64 {
		self.resolutions.mark()
	}

	fn settle_plan(&self, mark: u64) -> Option<Plan<()>> {
		self.resolutions.settle_plan(&&*self.manager, mark)
	}

	fn settled(&self, _: u64) {}
}

fn payments<M>(manager: &M) -> HashSet<[u8; 32]>
where
	M: Deref,
	M::Target: AChannelManager,
{
	let payments = manager.get_cm().list_recent_payments().into_iter();
	let id = |payment| match payment {
		RecentPaymentDetails::AwaitingInvoice { payment_id }
		| RecentPaymentDetails::Pending { payment_id, .. }
		| RecentPaymentDetails::Fulfilled { payment_id, .. }
		| RecentPaymentDetails::Abandoned { payment_id, .. } => payment_id.0,
	};
	payments.map(id).collect()
}

/// The level of a store's event: an outage that ended needs no operator.
fn level_of(event: &StoreEvent) -> Level {
	match event {
		StoreEvent::OutageBegan { .. } => Level::Warn,
		StoreEvent::OutageEnded { .. } => Level::Info,
		_ => Level::Error,
	}
}

fn log_to(logger: &SharedLogger, level: Level, message: &impl fmt::Display) {
	let (file, line) = (file!(), line!());
	let args = format_args!("{message}");
	logger.log(Record::new(level, args, "leyden", file, line));
}

impl From<LogError> for StartError {
	fn from(error: LogError) -> Self {
		Self::Log(error)
	}
}

impl fmt::Display for StartError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Log(error) => write!(f, "Leyden's records cannot be read: {error}"),
			Self::Manager(error) => write!(f, "the manager cannot be read: {error}"),
		}
	}
}

impl std::error::Error for StartError {
	fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
		match self {
			Self::Log(error) => Some(error),
			Self::Manager(_) => None,
		}
	}
}

impl fmt::Debug for NodeWiring {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "NodeWiring on {:?}", self.event_log)
	}
}

impl<M, K> fmt::Debug for LdkNode<M, K> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("LdkNode")
	}
}

#[cfg(test)]
mod tests {
	use std::sync::Arc;
	use std::time::Duration;

	use leyden_log::LogOptions;
	use leyden_store::group::StoreObserver;
	use leyden_store::{
		Batch, Committed, Guarantees, Key, KeyRange, ManualClock, MemoryMedium, MemoryStore,
		Namespace, Page, StoreError, Ticket,
	};
	use parking_lot::Mutex;

	use super::*;

	/// A store that tells its observers what the test says.
	struct Telling {
		inner: MemoryStore,
		observers: Mutex<Vec<StoreObserver>>,
	}

	impl Telling {
		fn tell(&self, event: &StoreEvent) {
			self.observers.lock().iter().for_each(|observer| observer(event));
		}
	}

	impl Store for Telling {
		fn commit(&self, batch: Batch) -> Ticket<Committed> {
			self.inner.commit(batch)
		}

		fn get(&self, key: &Key) -> Ticket<Option<leyden_store::Record>> {
			self.inner.get(key)
		}

		fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
			self.inner.get_raw(key)
		}

		fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
			self.inner.scan(range, limit)
		}

		fn guarantees(&self) -> Guarantees {
			self.inner.guarantees()
		}

		fn observe(&self, observer: StoreObserver) -> bool {
			self.observers.lock().push(observer);
			true
		}
	}

	#[derive(Default)]
	struct Lines(Mutex<Vec<(Level, String)>>);

	impl Logger for Lines {
		fn log(&self, record: Record) {
			self.0.lock().push((record.level, record.args.to_string()));
		}
	}

	#[test]
	fn an_outage_is_logged_and_the_end_of_the_store_stops_the_bus() {
		let medium = MemoryMedium::new();
		let inner = MemoryStore::open(&medium, Namespace::default()).unwrap();
		let telling = Arc::new(Telling { inner, observers: Mutex::default() });
		let open = |stream: &str| {
			let store: Arc<dyn Store> = Arc::<Telling>::clone(&telling);
			let clock = Arc::new(ManualClock::default());
			EventLog::open(store, stream, clock, LogOptions::default()).unwrap()
		};
		let lines = Arc::new(Lines::default());
		let logger: SharedLogger = Arc::<Lines>::clone(&lines);
		let wiring = NodeWiring::new(open("monitors"), open("events"), logger);
		let bus = wiring.monitor_bus(Arc::new(())).unwrap();
		let (place, because) = (|| "the store".to_owned(), || "it is gone".to_owned());
		let error = || StoreError::Poisoned { because: because() };

		telling.tell(&StoreEvent::OutageBegan { place: place(), error: error() });
		telling.tell(&StoreEvent::OutageEnded { place: place(), lasted: Duration::from_secs(3) });
		assert!(!bus.is_stopped());
		telling.tell(&StoreEvent::HandleEnded { place: place(), error: error() });
		assert!(bus.is_stopped());
		let levels: Vec<_> = lines.0.lock().iter().map(|(level, _)| *level).collect();
		assert_eq!(levels, [Level::Warn, Level::Info, Level::Error]);
		assert!(lines.0.lock().iter().all(|(_, line)| line.contains("the store")));
		// The store outlives the node, and does not keep the node's logger.
		drop((wiring, bus));
		assert_eq!(Arc::strong_count(&lines), 1);
	}
}
