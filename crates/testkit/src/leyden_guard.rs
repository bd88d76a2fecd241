//! Leyden between LDK and the node: the guard with which the cases end well.
//!
//! The wiring is that of every node, [`NodeWiring`]. This module has what only a simulation needs:
//! a store and a bus that die with the node, a user with a plan for each event, and the background
//! processor in small steps.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};

use bitcoin::block::Header;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, Block, TxOut};
use leyden_id::EventId;
use leyden_ldk::{
	channel_ref, decode_user_event, Handling, HtlcResolutions, Journal, LdkDriver, LdkNode,
	MonitorBus, NodeWiring, SharedLogger, SpliceKeeper, UserEvent, EVENT_STREAM, MONITOR_STREAM,
};
use leyden_log::{Consumer, ConsumerOptions, EventLog, LogOptions, Start};
use leyden_splice::{FeeBand, SpliceFailed, SpliceOptions};
use leyden_store::group::StoreObserver;
use leyden_store::{
	block_on, Batch, Clock, Committed, Guarantees, Key, KeyRange, ManualClock, Page, Plan, Record,
	Store, StoreError, Ticket,
};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent};
use lightning::chain::transaction::{OutPoint, TransactionData};
use lightning::chain::{BlockLocator, ChannelMonitorUpdateStatus, Listen, Watch};
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;
use lightning::sign::InMemorySigner;
use lightning::util::persist::{
	KVStore, KVStoreSync, CHANNEL_MANAGER_PERSISTENCE_KEY,
	CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
};

use crate::disk::{ManagerDisk, MonitorDisk, NetMonitorStore, NodeDisk};
use crate::guard::{Asked, Guard, GuardFactory, NodeHandle};
use crate::parts::{
	NetChainMonitor, NetLogger, NetManager, NetPersister, NetWatch, FEE_SAT_PER_KW,
};

/// The most that the user pays for a splice.
const MAX_SPLICE_SAT_PER_KW: u64 = 5_000;

/// The place of the manager in a `KVStore`.
const MANAGER: (&str, &str, &str) = (
	CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
	CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
	CHANNEL_MANAGER_PERSISTENCE_KEY,
);

/// The consumer that stands for the node's user.
pub const USER_CONSUMER: &str = "user";

/// The bus of a node of the net.
pub type NetBus = MonitorBus<Arc<NetChainMonitor>>;

/// Opens the store for a life; the first is 1.
pub type OpenStore = Arc<dyn Fn(u32) -> Arc<dyn Store> + Send + Sync>;

/// How the guard is wired.
#[derive(Clone, Copy, Debug)]
pub struct Wiring {
	/// Persist the manager before a payment's end counts as handled. Without it, case K fails.
	pub barrier: bool,
	/// Persist the manager before anybody is told that a payment is held.
	pub hold_barrier: bool,
	/// Keep splices.
	pub splices: bool,
	/// Persist the manager before a splice is signed.
	pub splice_barrier: bool,
	/// Hold writes of monitors back until the events taken from them are logged. Without it, an event
	/// may be gone from the monitor's durable state and from the log.
	pub gate: bool,
	/// Start with `NodeWiring::start_async`, and so persist the manager in futures.
	pub asynchronous: bool,
}

impl Default for Wiring {
	fn default() -> Self {
		Self {
			barrier: true,
			hold_barrier: false,
			splices: false,
			splice_barrier: true,
			gate: true,
			asynchronous: false,
		}
	}
}

/// What the node's user does with events: a plan for each, which is one commit with the ack.
pub trait User: Send + Sync {
	/// Hears that the node runs; no event was handed out yet. `resolutions` are those of its
	/// wiring.
	fn started(&self, node: &NodeHandle, resolutions: &HtlcResolutions) {
		let _ = (node, resolutions);
	}

	/// Is given the consumer of the node's user, before [`started`](User::started).
	fn consumes(&self, consumer: &Consumer) {
		let _ = consumer;
	}

	/// Is given the journal of the node's events, before [`started`](User::started).
	fn journals(&self, journal: &Arc<Journal>) {
		let _ = journal;
	}

	/// LDK has this event now; it is not written down yet.
	///
	/// # Errors
	/// LDK is to bring it again.
	fn at_once(&self, event: &Event) -> Result<(), ReplayEvent> {
		let _ = event;
		Ok(())
	}

	/// Handles an event as [`handle`](User::handle) does, with the id under which the log has the
	/// event, and whether it is a repeat of what was delivered before.
	///
	/// # Errors
	/// The same as [`handle`](User::handle).
	fn handle_as(&self, id: EventId, repeat: bool, event: &Event) -> Result<Plan<()>, ReplayEvent> {
		let _ = (id, repeat);
		self.handle(event)
	}

	/// What the event changes; the ack is added. The node dies if the plan is not committed.
	///
	/// # Errors
	/// It is to be delivered again in the next life.
	fn handle(&self, event: &Event) -> Result<Plan<()>, ReplayEvent>;

	/// The plan is committed, and so is the ack. What is done here is lost if the node dies first.
	fn acked(&self, event: &Event) {
		let _ = event;
	}
}

/// See the [module documentation](self).
pub struct LeydenGuard {
	store: Arc<dyn Store>,
	monitor_log: EventLog,
	wiring: Wiring,
	leyden: NodeWiring,
	node: Arc<OnceLock<NodeHandle>>,
	bus: OnceLock<Arc<NetBus>>,
	started: OnceLock<LdkNode<Arc<NetManager>, Arc<ManagerDisk>>>,
	user: Consumer,
	event_log: EventLog,
	clock: Arc<ManualClock>,
	keeper: OnceLock<SpliceKeeper>,
	acts: OnceLock<Arc<dyn User>>,
	/// What the user was told of splices that failed, in this life.
	failed: Mutex<Vec<SpliceFailed>>,
}

impl LeydenGuard {
	/// A guard for each life, on the store that `open` opens for it.
	pub fn factory(wiring: Wiring, open: OpenStore) -> GuardFactory {
		Arc::new(move |life| Arc::new(Self::new(open(life), wiring)))
	}

	/// A guard for one life.
	///
	/// # Panics
	/// If the logs cannot be opened.
	pub fn new(store: Arc<dyn Store>, wiring: Wiring) -> Self {
		Self::at(store, wiring, Arc::new(ManualClock::default()))
	}

	/// As [`new`](LeydenGuard::new), with this clock.
	///
	/// # Panics
	/// If the logs cannot be opened.
	pub fn at(store: Arc<dyn Store>, wiring: Wiring, clock: Arc<ManualClock>) -> Self {
		let node = Arc::new(OnceLock::new());
		let store: Arc<dyn Store> = Arc::new(Mortal { inner: store, node: Arc::clone(&node) });
		let open = |stream| {
			let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
			EventLog::open(Arc::clone(&store), stream, clock, LogOptions::default())
				.expect("the log")
		};
		let (monitor_log, event_log) = (open(MONITOR_STREAM), open(EVENT_STREAM));
		let options = ConsumerOptions { start: Start::Beginning, ..ConsumerOptions::default() };
		let user = event_log.consumer(USER_CONSUMER, options).expect("the consumer");
		let logger: SharedLogger = Arc::new(NetLogger::silent());
		let mut leyden = NodeWiring::new(monitor_log.clone(), event_log.clone(), logger);
		// What cases count, and what a node's own routing needs.
		leyden = leyden.keep_htlc_failures();
		if wiring.hold_barrier {
			leyden = leyden.holding(|_| true);
		}
		if !wiring.barrier {
			leyden = leyden.without_persist_before_sent();
		}
		Self {
			store,
			monitor_log,
			wiring,
			leyden,
			node,
			bus: OnceLock::new(),
			started: OnceLock::new(),
			user,
			event_log,
			clock,
			keeper: OnceLock::new(),
			acts: OnceLock::new(),
			failed: Mutex::default(),
		}
	}

	/// With what acts on events. It is given the store that dies with the node.
	#[must_use]
	pub fn with_user(self, make: impl FnOnce(Arc<dyn Store>) -> Arc<dyn User>) -> Self {
		let user = make(Arc::clone(&self.store));
		let _ = self.acts.set(user);
		self
	}

	/// Returns the bus.
	///
	/// # Panics
	/// If the node was not wired.
	pub fn bus(&self) -> &Arc<NetBus> {
		self.bus.get().expect("the node was wired")
	}

	/// Returns whether the wiring has started. It has not if its records are damaged, or the node
	/// died.
	pub fn has_started(&self) -> bool {
		self.started.get().is_some()
	}

	/// Returns the wiring at work.
	///
	/// # Panics
	/// If the node has not started.
	pub fn ldk_node(&self) -> &LdkNode<Arc<NetManager>, Arc<ManagerDisk>> {
		self.started.get().expect("the node has started")
	}

	/// The keeper of splices.
	///
	/// # Panics
	/// If the node has not started, or keeps none.
	pub fn splices(&self) -> &SpliceKeeper {
		self.keeper.get().expect("splices are kept")
	}

	/// What the user was told of splices that failed, in this life.
	pub fn failed_splices(&self) -> Vec<SpliceFailed> {
		// The user reads what is in the log, also if LDK has no event.
		if let Some(node) = self.node.get() {
			self.deliver(&mut |event| node.handle(event));
		}
		self.failed.lock().unwrap().clone()
	}

	/// The log of user events.
	pub fn events(&self) -> &EventLog {
		&self.event_log
	}

	/// The log of monitor events.
	pub fn monitor_events(&self) -> &EventLog {
		&self.monitor_log
	}

	/// Makes the bus, the first time that the chain monitor is seen.
	fn wire(&self, inner: Arc<NetChainMonitor>) -> Arc<MortalBus> {
		let bus = self.bus.get_or_init(|| self.leyden.monitor_bus(inner).expect("the bus"));
		Arc::new(MortalBus::new(Arc::clone(bus), Arc::clone(&self.node)))
	}

	fn start(&self, node: &NodeHandle) {
		let (Some(manager), Some(disk)) = (node.manager(), node.disk()) else { return };
		let disk = Arc::new(ManagerDisk(disk));
		let started = match self.wiring.asynchronous {
			false => self.leyden.start(self.bus(), manager, disk),
			true => block_on(&*self.store, self.leyden.start_async(self.bus(), manager, disk)),
		};
		// A store that dies while it is read: the node dies with it.
		if let Ok(started) = started {
			let _ = self.started.set(started);
		}
	}

	fn keep_splices(&self, node: &NodeHandle) {
		let (Some(manager), Some(monitors), Some(coins), Some(wallet)) =
			(node.manager(), node.chain_monitor(), node.coin_selection(), node.wallet())
		else {
			return;
		};
		let driver = LdkDriver::new(manager, monitors, coins, Arc::clone(&wallet));
		let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
		let keeper = SpliceKeeper::open(&self.event_log, clock, driver, SpliceOptions::default());
		// A store that dies while it is opened: the node dies with it.
		let Ok(keeper) = keeper else { return };
		let keeper = self.keeper.get_or_init(|| {
			let keeper = keeper.with_reserver(wallet);
			if !self.wiring.splice_barrier {
				return keeper;
			}
			let Some(started) = self.started.get() else { return keeper };
			let persister = Arc::clone(started.persister());
			match self.wiring.asynchronous {
				false => keeper.persist_before_signing(move || persister.persist()),
				true => keeper.persist_before_signing_async(move || persister.persist_async()),
			}
		});
		let _ = match self.wiring.asynchronous {
			false => keeper.start(|| node.process_events()),
			true => block_on(&*self.store, keeper.start_async(async { node.process_events() })),
		};
	}

	/// The manager was written, or not. Returns whether the node lives to know it.
	fn manager_written(&self, disk: &NodeDisk, is_written: bool) -> bool {
		// Consumers run by themselves: what waited for the store is delivered now.
		if let Some(node) = self.node.get() {
			self.deliver(&mut |event| node.handle(event));
		}
		if !is_written {
			// The background processor ends with the error, and the node with it.
			disk.kill();
		}
		!disk.is_dead()
	}

	/// Hands what is in the log to the user, who acks what it has handled.
	fn deliver(&self, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>) {
		while let Ok(Some(delivery)) = self.user.next_event() {
			let event = decode_user_event(delivery.payload()).expect("an event of this version");
			let acked_event = match &event {
				UserEvent::Ldk(event) => Some(event.clone()),
				UserEvent::SpliceFailed(_) => None,
			};
			let handled = match event {
				UserEvent::Ldk(event) => {
					let plan = match self.acts.get() {
						Some(user) => user.handle_as(delivery.id(), delivery.is_repeat(), &event),
						None => Ok(Plan::of(Batch::new())),
					};
					plan.and_then(|plan| handle(*event).map(|()| plan))
				},
				UserEvent::SpliceFailed(failed) => {
					self.failed.lock().unwrap().push(*failed);
					Ok(Plan::of(Batch::new()))
				},
			};
			let acked = handled.map(|plan| delivery.ack_with(plan));
			if !matches!(acked, Ok(Ok(()))) {
				// A dead node. The delivery comes again in the next life.
				return;
			}
			if let (Some(user), Some(event)) = (self.acts.get(), acked_event) {
				user.acked(&event);
			}
		}
	}
}

impl Guard for LeydenGuard {
	fn persister(&self, disk: Arc<NodeDisk>) -> NetPersister {
		match self.wiring.gate {
			true => Arc::new(self.leyden.monitor_persister(disk)),
			false => disk,
		}
	}

	fn watch(&self, inner: Arc<NetChainMonitor>) -> NetWatch {
		self.wire(inner)
	}

	fn listen(&self, inner: Arc<NetChainMonitor>) -> Arc<dyn Listen + Send + Sync> {
		self.wire(inner)
	}

	fn started(&self, node: &NodeHandle) {
		let _ = self.node.set(node.clone());
		self.start(node);
		if let (Some(user), Some(started)) = (self.acts.get(), self.started.get()) {
			user.consumes(&self.user);
			user.journals(started.journal());
			user.started(node, started.resolutions());
		}
		if self.wiring.splices {
			self.keep_splices(node);
		}
		self.deliver(&mut |event| node.handle(event));
	}

	fn handle_event(
		&self, event: Event, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		if let Some(keeper) = self.keeper.get() {
			if keeper.handle_event(&event)? == Handling::Stop {
				return Ok(());
			}
		}
		if let Some(user) = self.acts.get() {
			user.at_once(&event)?;
		}
		// A node that died while it started.
		let Some(started) = self.started.get() else { return Err(ReplayEvent()) };
		started.journal().handle(event, &mut *handle)?;
		self.deliver(handle);
		Ok(())
	}

	fn handle_event_async<'a>(
		&'a self, event: Event, node: &'a NodeHandle,
	) -> Pin<Box<dyn Future<Output = Result<(), ReplayEvent>> + Send + 'a>> {
		Box::pin(async move {
			if let Some(keeper) = self.keeper.get() {
				if keeper.handle_event_async(&event).await? == Handling::Stop {
					return Ok(());
				}
			}
			if let Some(user) = self.acts.get() {
				user.at_once(&event)?;
			}
			// A node that died while it started.
			let Some(started) = self.started.get() else { return Err(ReplayEvent()) };
			started.handle_async(event, |event| std::future::ready(node.handle(event))).await?;
			self.deliver(&mut |event| node.handle(event));
			Ok(())
		})
	}

	fn monitor_store(&self, disk: Arc<NodeDisk>) -> NetMonitorStore {
		let disk = Arc::new(MonitorDisk::new(disk));
		match self.wiring.gate {
			true => NetMonitorStore::Guarded(self.leyden.monitor_store(disk)),
			false => NetMonitorStore::Bare(disk),
		}
	}

	fn write_manager_async<'a>(
		&'a self, disk: &'a Arc<NodeDisk>, bytes: Vec<u8>,
	) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
		Box::pin(async move {
			let Some(started) = self.started.get() else { return false };
			let (primary, secondary, key) = MANAGER;
			let persister = &**started.persister();
			let written = KVStore::write(persister, primary, secondary, key, bytes).await;
			self.manager_written(disk, written.is_ok())
		})
	}

	fn splice(&self, channel: &ChannelDetails, asked: &Asked) -> Option<Result<(), String>> {
		let keeper = self.keeper.get()?;
		let band = |least| FeeBand { min_sat_per_kw: least, max_sat_per_kw: MAX_SPLICE_SAT_PER_KW };
		let channel = channel_ref(channel);
		let done = match asked {
			Asked::In { sats } => {
				keeper.splice_in(channel, *sats, band(FEE_SAT_PER_KW.into())).map(|_| ())
			},
			Asked::Out { sats, script } => {
				let value = Amount::from_sat(*sats);
				let outputs = vec![TxOut { value, script_pubkey: script.clone() }];
				keeper.splice_out(channel, outputs, band(FEE_SAT_PER_KW.into())).map(|_| ())
			},
			Asked::Bump { sat_per_kw } => {
				let splice = keeper.of_channel(&channel.channel_id).into_iter().next()?;
				keeper.bump_fee(&splice.id(), band(*sat_per_kw))
			},
		};
		Some(done.map_err(|error| error.to_string()))
	}

	fn is_stopped(&self) -> bool {
		self.bus.get().is_some_and(|bus| bus.is_stopped())
	}

	fn peer_connected(&self) {
		if let Some(keeper) = self.keeper.get() {
			// A store in trouble, or a dead node: the next time does it.
			let _ = keeper.peer_connected();
		}
	}

	fn write_manager(&self, disk: &Arc<NodeDisk>, bytes: Vec<u8>) -> bool {
		let Some(started) = self.started.get() else { return false };
		let (primary, secondary, key) = MANAGER;
		let written = KVStoreSync::write(&**started.persister(), primary, secondary, key, bytes);
		self.manager_written(disk, written.is_ok())
	}
}

fn is_dead(node: &OnceLock<NodeHandle>) -> bool {
	node.get().is_some_and(|node| !node.is_alive())
}

/// The bus of a node that may be dead while its code still runs to the end of a step. A living bus
/// that cannot log stops the node; a dead one must do nothing at all.
pub(crate) struct MortalBus {
	bus: Arc<NetBus>,
	node: Arc<OnceLock<NodeHandle>>,
}

impl MortalBus {
	pub(crate) fn new(bus: Arc<NetBus>, node: Arc<OnceLock<NodeHandle>>) -> Self {
		Self { bus, node }
	}
}

impl Watch<InMemorySigner> for MortalBus {
	fn watch_channel(
		&self, channel_id: ChannelId, monitor: ChannelMonitor<InMemorySigner>,
	) -> Result<ChannelMonitorUpdateStatus, ()> {
		let status = self.bus.watch_channel(channel_id, monitor);
		if is_dead(&self.node) {
			return Ok(ChannelMonitorUpdateStatus::InProgress);
		}
		status
	}

	fn update_channel(
		&self, channel_id: ChannelId, update: &ChannelMonitorUpdate,
	) -> ChannelMonitorUpdateStatus {
		let status = self.bus.update_channel(channel_id, update);
		if is_dead(&self.node) {
			return ChannelMonitorUpdateStatus::InProgress;
		}
		status
	}

	fn release_pending_monitor_events(
		&self,
	) -> Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)> {
		self.bus.release_pending_monitor_events()
	}
}

impl Listen for MortalBus {
	fn filtered_block_connected(&self, header: &Header, txdata: &TransactionData, height: u32) {
		self.bus.filtered_block_connected(header, txdata, height);
	}

	fn block_connected(&self, block: &Block, height: u32) {
		self.bus.block_connected(block, height);
	}

	fn blocks_disconnected(&self, fork_point_block: BlockLocator) {
		self.bus.blocks_disconnected(fork_point_block);
	}
}

/// A store that dies with its node: a dead process commits nothing.
struct Mortal {
	inner: Arc<dyn Store>,
	node: Arc<OnceLock<NodeHandle>>,
}

impl Mortal {
	fn is_dead(&self) -> bool {
		is_dead(&self.node)
	}
}

fn dead<T>() -> Ticket<T> {
	Ticket::ready(Err(StoreError::Poisoned { because: "the node died".to_owned() }))
}

impl Store for Mortal {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		if self.is_dead() {
			return dead();
		}
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		if self.is_dead() {
			return dead();
		}
		self.inner.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		if self.is_dead() {
			return dead();
		}
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		if self.is_dead() {
			return dead();
		}
		self.inner.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		self.inner.observe(observer)
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		self.inner.block(wait);
	}
}
