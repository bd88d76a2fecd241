//! The journal of 806b3b3, as a negative control: what the differential run must find.
//!
//! The code is kept as it was in what matters: an id made of fields that a peer or a user may
//! choose twice is taken for unique, a request that was acked is never delivered again, and which
//! events LDK may bring again is guessed from acks that lag one write behind the manager and that a
//! barrier inside of a handler takes for settled. It is around a bus that nothing guards from
//! below.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bitcoin::hashes::{sha256, Hash};
use leyden_id::{Domain, EventId, IdBuilder, Lane};
use leyden_ldk::{kind_of, replay_class, ManagerPersistListener, EVENT_STREAM, MONITOR_STREAM};
use leyden_log::{
	Appended, Consumer, ConsumerOptions, EventLog, LogIndex, LogOptions, NewEvent, Start,
};
use leyden_store::{ManualClock, Store};
use lightning::chain::Listen;
use lightning::events::{Event, ReplayEvent};
use lightning::util::ser::{MaybeReadable, Writeable};

use super::actor::Actor;
use super::wirings::Wire;
use crate::disk::NodeDisk;
use crate::guard::{Guard, NodeHandle};
use crate::leyden_guard::{MortalBus, NetBus};
use crate::parts::{NetChainMonitor, NetWatch};

/// The wiring of 806b3b3, which is known to be worse than LDK alone.
pub fn leyden_806b3b3() -> Wire {
	Arc::new(|life| {
		let (store, user) = (life.store, life.user);
		let made = crate::panics::catch(|| OldGuard::new(store, user, life.number));
		Ok(Arc::new(made.map_err(|caught| caught.message)?))
	})
}

struct OldGuard {
	store: Arc<dyn Store>,
	user: Arc<Actor>,
	monitor_log: EventLog,
	log: EventLog,
	consumer: Consumer,
	ledger: Ledger,
	bus: OnceLock<Arc<NetBus>>,
	node: Arc<OnceLock<NodeHandle>>,
	/// The marks that the next write of the manager settles.
	late: Mutex<Option<(u64, u64)>>,
	life: u32,
	weak_seen: AtomicU64,
}

struct Ledger {
	consumer: Consumer,
	state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
	waiting: VecDeque<LogIndex>,
	settled: u64,
	/// Weak events of earlier lives, by identity.
	expected: HashMap<EventId, usize>,
}

/// An identity, and whether it was taken for unique.
struct Identity {
	id: EventId,
	strong: bool,
	lane: Lane,
}

impl OldGuard {
	fn new(store: Arc<dyn Store>, user: Arc<Actor>, life: u32) -> Self {
		let open = |stream| {
			let clock = Arc::new(ManualClock::default());
			EventLog::open(Arc::clone(&store), stream, clock, LogOptions::default()).expect("a log")
		};
		let (monitor_log, log) = (open(MONITOR_STREAM), open(EVENT_STREAM));
		let consumer = |name| {
			let options = ConsumerOptions { start: Start::Beginning, ..ConsumerOptions::default() };
			log.consumer(name, options).expect("a consumer")
		};
		let (ledger, consumer) = (consumer("ldk"), consumer("user"));
		let mut state = Waiting::default();
		for entry in crate::intact(ledger.unacked(None, 10_000).expect("the ledger")) {
			state.waiting.push_back(entry.index());
			if let Some(event) = decode(entry.payload()) {
				let identity = Identity::of(&event);
				if !identity.strong {
					*state.expected.entry(identity.id).or_default() += 1;
				}
			}
		}
		let ledger = Ledger { consumer: ledger, state: Mutex::new(state) };
		Self {
			store,
			user,
			monitor_log,
			log,
			consumer,
			ledger,
			bus: OnceLock::new(),
			node: Arc::default(),
			late: Mutex::default(),
			life,
			weak_seen: AtomicU64::new(0),
		}
	}

	fn wire(&self, inner: Arc<NetChainMonitor>) -> Arc<MortalBus> {
		let make = || Arc::new(NetBus::new(inner, self.monitor_log.clone()).expect("the bus"));
		let bus = Arc::clone(self.bus.get_or_init(make));
		Arc::new(MortalBus::new(bus, Arc::clone(&self.node)))
	}

	fn journal(&self, event: &Event) -> Result<(), ReplayEvent> {
		let Identity { id, strong, lane } = Identity::of(event);
		if !strong && self.ledger.recognize(&id) {
			return Ok(());
		}
		let id = match strong {
			true => id,
			false => IdBuilder::new(Domain::new("old/occurrence", 1), "weak")
				.bytes(id.as_bytes())
				.number(self.life.into())
				.number(self.weak_seen.fetch_add(1, Ordering::SeqCst))
				.finish(),
		};
		let new = NewEvent { id, kind: kind_of(event), lane, payload: event.encode() };
		if let Appended::New(index) = self.log.append(new).map_err(|_| ReplayEvent())? {
			self.ledger.state.lock().unwrap().waiting.push_back(index);
		}
		Ok(())
	}

	/// Persists the manager, if need be, before the end of a payment counts as handled.
	fn barrier(&self, event: &Event) -> Result<(), ReplayEvent> {
		let hash = match event {
			Event::PaymentSent { payment_hash, .. } => Some(*payment_hash),
			Event::PaymentFailed { payment_hash, .. } => *payment_hash,
			_ => return Ok(()),
		};
		let unsettled = |hash| self.bus.get().is_some_and(|bus| bus.is_unsettled(&hash));
		let persisted = || self.node.get().is_some_and(NodeHandle::persist_manager);
		match !hash.is_none_or(unsettled) || persisted() {
			true => Ok(()),
			false => Err(ReplayEvent()),
		}
	}

	fn deliver(&self, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>) {
		while let Ok(Some(delivery)) = self.consumer.next_event() {
			let Some(node) = self.node.get().filter(|node| node.is_alive()) else { return };
			let Some(event) = decode(delivery.payload()) else { return };
			self.user.told(node, &event, Some(delivery.id()), false);
			if handle(event).is_err() || delivery.ack().is_err() {
				return;
			}
		}
	}

	fn settle(&self, (bus_mark, ledger_mark): (u64, u64)) {
		if let Some(bus) = self.bus.get() {
			let plan = bus.settle_plan(bus_mark);
			if plan.is_none_or(|plan| plan.run(&*self.store).is_ok()) {
				bus.settled(bus_mark);
			}
		}
		self.ledger.settle(ledger_mark, &*self.store);
	}
}

impl Ledger {
	fn recognize(&self, identity: &EventId) -> bool {
		let mut state = self.state.lock().unwrap();
		let Some(expected) = state.expected.get_mut(identity).filter(|n| **n > 0) else {
			return false;
		};
		*expected -= 1;
		true
	}

	fn mark(&self) -> u64 {
		let state = self.state.lock().unwrap();
		state.settled + state.waiting.len() as u64
	}

	fn settle(&self, mark: u64, store: &dyn Store) {
		let mut state = self.state.lock().unwrap();
		let count = usize::try_from(mark.saturating_sub(state.settled)).expect("a count");
		let indices: Vec<_> = state.waiting.iter().take(count).copied().collect();
		if self.consumer.ack_plan_many(&indices).run(store).is_ok() {
			state.waiting.drain(..indices.len());
			state.settled += indices.len() as u64;
		}
		state.expected.clear();
	}
}

impl Guard for OldGuard {
	fn watch(&self, inner: Arc<NetChainMonitor>) -> NetWatch {
		self.wire(inner)
	}

	fn listen(&self, inner: Arc<NetChainMonitor>) -> Arc<dyn Listen + Send + Sync> {
		self.wire(inner)
	}

	fn started(&self, node: &NodeHandle) {
		let _ = self.node.set(node.clone());
		self.deliver(&mut |event| node.handle(event));
	}

	fn handle_event(
		&self, event: Event, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		let is_inline = match &event {
			Event::PaymentPathSuccessful { .. }
			| Event::PaymentPathFailed { .. }
			| Event::ProbeSuccessful { .. }
			| Event::ProbeFailed { .. } => true,
			event => !replay_class(event).is_journaled(),
		};
		if is_inline {
			if let Some(node) = self.node.get() {
				self.user.told(node, &event, None, false);
			}
			return handle(event);
		}
		self.journal(&event)?;
		self.barrier(&event)?;
		self.deliver(handle);
		Ok(())
	}

	fn write_manager(&self, disk: &Arc<NodeDisk>, bytes: Vec<u8>) -> bool {
		let bus = self.bus.get().map_or(0, |bus| bus.mark());
		let marks = (bus, self.ledger.mark());
		if !disk.write_manager(bytes) {
			return false;
		}
		let settles = self.late.lock().unwrap().replace(marks);
		if let Some(settles) = settles {
			self.settle(settles);
		}
		!disk.is_dead()
	}
}

fn decode(payload: &[u8]) -> Option<Event> {
	Event::read(&mut &payload[..]).ok().flatten()
}

impl Identity {
	fn of(event: &Event) -> Self {
		let id = IdBuilder::new(Domain::new("old/event", 1), kind_of(event).name());
		let channel =
			|id: &lightning::ln::types::ChannelId| Lane::channel(leyden_id::ChannelId(id.0));
		let (id, strong, lane) = match event {
			Event::PaymentClaimable { payment_id: Some(payment), payment_hash, .. }
			| Event::PaymentClaimed { payment_id: Some(payment), payment_hash, .. } => {
				(id.bytes(&payment.0), true, Lane::payment(payment_hash.0))
			},
			Event::PaymentSent { payment_id: Some(payment), payment_hash, .. } => {
				let lane = Lane::payment(payment.0);
				(id.bytes(&payment.0).bytes(&payment_hash.0), true, lane)
			},
			Event::PaymentFailed { payment_id, .. } => {
				(id.bytes(&payment_id.0), false, Lane::payment(payment_id.0))
			},
			Event::HTLCIntercepted { intercept_id, payment_hash, .. } => {
				(id.bytes(&intercept_id.0), true, Lane::payment(payment_hash.0))
			},
			Event::ChannelPending { channel_id, funding_txo, .. } => {
				(id.bytes(&channel_id.0).bytes(&funding_txo.encode()), true, channel(channel_id))
			},
			Event::ChannelReady { channel_id, funding_txo, .. } => {
				let funding = funding_txo.map(|outpoint| outpoint.encode());
				let id = id.bytes(&channel_id.0).optional(funding.as_deref());
				(id, true, channel(channel_id))
			},
			Event::ChannelClosed { channel_id, .. } => {
				(id.bytes(&channel_id.0), true, channel(channel_id))
			},
			event => {
				let digest = sha256::Hash::hash(&event.encode()).to_byte_array();
				(id.bytes(&digest), false, Lane::GLOBAL)
			},
		};
		Self { id: id.finish(), strong, lane }
	}
}
