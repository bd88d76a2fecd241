//! The wirings that are compared: LDK alone, and what stands between LDK and the user.
//!
//! A wiring is a factory: [`Wire`] makes the guard of one life from what that life has ([`Life`]).
//! The guard tells the user, by [`Actor::told`], of each event that is the user's; that is all.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use leyden_id::EventId;
use leyden_ldk::{replay_class, HtlcResolutions};
use leyden_store::{Batch, Plan, Store};
use lightning::chain::Listen;
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channel_state::ChannelDetails;

use super::actor::Actor;
use super::deaths::{Deaths, What};
use crate::disk::{NetMonitorStore, NodeDisk};
use crate::faulty_store::Side;
use crate::guard::{Asked, Guard, NodeHandle};
use crate::leyden_guard::{LeydenGuard, User, Wiring};
use crate::parts::{NetChainMonitor, NetPersister, NetWatch};

/// The parts of one life of the node under test.
pub struct Life {
	/// The number of the life; the first is 1.
	pub number: u32,
	/// The log's store. It fails while it has trouble, and dies when the schedule says so.
	pub store: Arc<dyn Store>,
	/// The disk, which dies with everything else of the process.
	pub disk: Arc<NodeDisk>,
	/// `true` if LDK's own background processor runs the node, with futures.
	pub asynchronous: bool,
	/// The user, who must be told of each event once it is the user's: [`Actor::told`] with the
	/// event's id and whether it is a repeat. In [`Guard::started`], and whenever a peer may be
	/// back, [`Actor::tries_again`].
	pub user: Arc<Actor>,
}

/// Makes the guard for one life. An error is a start that failed: the node is started again.
pub type Wire = Arc<dyn Fn(Life) -> Result<Arc<dyn Guard>, String> + Send + Sync>;

/// LDK alone: the user acts inside the event handler.
pub fn ldk_alone() -> Wire {
	Arc::new(|life| Ok(Arc::new(Alone::new(life.user))))
}

/// Leyden, by the wiring of every node.
pub fn leyden() -> Wire {
	Arc::new(|life| {
		let (store, user) = (life.store, life.user);
		// The guard of the testkit takes a store that does not open for a fault of the test.
		let asynchronous = life.asynchronous;
		let wiring = Wiring { asynchronous, splices: true, ..Wiring::default() };
		let made = crate::panics::catch(|| LeydenGuard::new(store, wiring));
		let guard = made.map_err(|caught| caught.message)?;
		let told = Delivered { user, node: OnceLock::new() };
		Ok(Arc::new(guard.with_user(move |_| Arc::new(told))))
	})
}

/// LDK alone, for one life of a node.
pub(super) struct Alone {
	user: Arc<Actor>,
	node: OnceLock<NodeHandle>,
}

impl Alone {
	pub(super) fn new(user: Arc<Actor>) -> Self {
		Self { user, node: OnceLock::new() }
	}
}

impl Guard for Alone {
	fn started(&self, node: &NodeHandle) {
		let _ = self.node.set(node.clone());
	}

	fn handle_event(
		&self, event: Event, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		if let Some(node) = self.node.get() {
			self.user.told(node, &event, None, false);
		}
		handle(event)
	}
}

/// The user behind the consumer.
struct Delivered {
	user: Arc<Actor>,
	node: OnceLock<NodeHandle>,
}

impl User for Delivered {
	fn started(&self, node: &NodeHandle, _: &HtlcResolutions) {
		let _ = self.node.set(node.clone());
	}

	/// Tells the user of paths, probes and what else never gets into the log.
	fn at_once(&self, event: &Event) -> Result<(), ReplayEvent> {
		let inline = match event {
			Event::PaymentPathSuccessful { .. }
			| Event::PaymentPathFailed { .. }
			| Event::ProbeSuccessful { .. }
			| Event::ProbeFailed { .. } => true,
			_ => !replay_class(event).is_journaled(),
		};
		if let (true, Some(node)) = (inline, self.node.get()) {
			self.user.told(node, event, None, false);
		}
		Ok(())
	}

	fn handle_as(&self, id: EventId, repeat: bool, event: &Event) -> Result<Plan<()>, ReplayEvent> {
		let node = self.node.get().ok_or(ReplayEvent())?;
		if !node.is_alive() {
			return Err(ReplayEvent());
		}
		self.user.told(node, event, Some(id), repeat);
		Ok(Plan::of(Batch::new()))
	}

	fn handle(&self, _: &Event) -> Result<Plan<()>, ReplayEvent> {
		Err(ReplayEvent())
	}
}

/// Starts until a start succeeds. The store of a life that did not start is let go of first.
pub(super) fn start(
	wire: &Wire, number: u32, disk: &Arc<NodeDisk>, user: &Arc<Actor>, deaths: &Arc<Deaths>,
	asynchronous: bool, open: &dyn Fn() -> Arc<dyn Store>,
) -> Arc<dyn Guard> {
	const STARTS: u32 = 50;
	let mut last = String::new();
	for _ in 0..STARTS {
		let store = open();
		let (disk_of_life, user) = (Arc::clone(disk), Arc::clone(user));
		match wire(Life { number, store, disk: disk_of_life, asynchronous, user }) {
			Ok(inner) if !disk.is_dead() => {
				let (deaths, disk) = (Arc::clone(deaths), Arc::clone(disk));
				return Arc::new(Watched { inner, deaths, disk });
			},
			Ok(_) => "it died".clone_into(&mut last),
			Err(error) => last = error,
		}
		disk.revive();
	}
	panic!("life {number} did not start {STARTS} times: {last}")
}

/// The guard of a wiring, in a node that may die around each event.
struct Watched {
	inner: Arc<dyn Guard>,
	deaths: Arc<Deaths>,
	disk: Arc<NodeDisk>,
}

impl Guard for Watched {
	fn watch(&self, inner: Arc<NetChainMonitor>) -> NetWatch {
		self.inner.watch(inner)
	}

	fn listen(&self, inner: Arc<NetChainMonitor>) -> Arc<dyn Listen + Send + Sync> {
		self.inner.listen(inner)
	}

	fn started(&self, node: &NodeHandle) {
		self.inner.started(node);
	}

	fn handle_event(
		&self, event: Event, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		if self.disk.is_dead() {
			return Err(ReplayEvent());
		}
		let side = self.deaths.next(What::Event);
		if side == Some(Side::Before) {
			self.disk.kill();
			return Err(ReplayEvent());
		}
		let handled = self.inner.handle_event(event, handle);
		if side == Some(Side::After) {
			self.disk.kill();
		}
		handled
	}

	fn handle_event_async<'a>(
		&'a self, event: Event, node: &'a NodeHandle,
	) -> Pin<Box<dyn Future<Output = Result<(), ReplayEvent>> + Send + 'a>> {
		Box::pin(async move {
			if self.disk.is_dead() {
				return Err(ReplayEvent());
			}
			let side = self.deaths.next(What::Event);
			if side == Some(Side::Before) {
				self.disk.kill();
				return Err(ReplayEvent());
			}
			let handled = self.inner.handle_event_async(event, node).await;
			if side == Some(Side::After) {
				self.disk.kill();
			}
			handled
		})
	}

	fn monitor_store(&self, disk: Arc<NodeDisk>) -> NetMonitorStore {
		self.inner.monitor_store(disk)
	}

	fn write_manager_async<'a>(
		&'a self, disk: &'a Arc<NodeDisk>, bytes: Vec<u8>,
	) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
		self.inner.write_manager_async(disk, bytes)
	}

	fn splice(&self, channel: &ChannelDetails, asked: &Asked) -> Option<Result<(), String>> {
		self.inner.splice(channel, asked)
	}

	fn is_stopped(&self) -> bool {
		self.inner.is_stopped()
	}

	fn peer_connected(&self) {
		self.inner.peer_connected();
	}

	fn persister(&self, disk: Arc<NodeDisk>) -> NetPersister {
		self.inner.persister(disk)
	}

	fn write_manager(&self, disk: &Arc<NodeDisk>, bytes: Vec<u8>) -> bool {
		self.inner.write_manager(disk, bytes)
	}
}
