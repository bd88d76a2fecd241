//! LDK's own background processor around a node.
//!
//! `process_events_async` sleeps with what it is given, so the net decides when it goes on: one
//! [`turn`](Background::turn) is one pass of its loop, and nothing waits for a clock. Short timers
//! (the loop's own, and that of forwards) end with each turn, long ones never do; the net ticks by
//! itself ([`LdkNet::tick`](crate::LdkNet::tick)).

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bitcoin::ScriptBuf;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::Filter;
use lightning::io;
use lightning::ln::peer_handler::{
	ErroringMessageHandler, IgnoringMessageHandler, MessageHandler, PeerManager, SocketDescriptor,
};
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::sign::{ChangeDestinationSource, EntropySource, InMemorySigner, KeysManager};
use lightning::util::persist::KVStore;
use lightning::util::sweep::OutputSweeper;
use lightning_background_processor::{
	process_events_async, GossipSync, NO_LIQUIDITY_MANAGER, NO_ONION_MESSENGER,
};

use crate::chain_monitor::{ChainMonitorWith, NetChainMonitor};
use crate::node::NodeCore;
use crate::parts::{Broadcaster, FixedFees, NetLogger};

/// The longest timer that ends with each turn: the loop sleeps no longer than this.
const SHORT: Duration = Duration::from_secs(10);

type Processing = Pin<Box<dyn Future<Output = Result<(), io::Error>> + Send>>;

/// LDK's `process_events_async` for one life of a node.
pub(crate) struct Background {
	turns: Arc<Turns>,
	processing: Mutex<Option<Processing>>,
}

impl Background {
	pub(crate) fn new(core: &Arc<NodeCore>) -> Self {
		let turns = Arc::<Turns>::default();
		let processing = match &*core.chain_monitor {
			NetChainMonitor::Sync(monitor) => processing(core, Arc::clone(monitor), &turns),
			NetChainMonitor::Async(monitor) => processing(core, Arc::clone(monitor), &turns),
		};
		Self { turns, processing: Mutex::new(Some(processing)) }
	}

	/// Lets the loop go on, and waits until it sleeps again. Returns `true` if it has ended.
	pub(crate) fn turn(&self) -> bool {
		self.turns.next();
		let mut processing = self.processing.lock().unwrap();
		let Some(running) = processing.as_mut() else { return true };
		let woken = Arc::new(Woken::default());
		let waker = Waker::from(Arc::clone(&woken));
		loop {
			if running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
				*processing = None;
				return true;
			}
			if !woken.0.swap(false, Ordering::SeqCst) {
				return false;
			}
		}
	}
}

/// The turns of a loop that sleeps until the next one.
#[derive(Default)]
struct Turns(Mutex<TurnsState>);

#[derive(Default)]
struct TurnsState {
	number: u64,
	sleeping: Vec<Waker>,
}

impl Turns {
	fn next(&self) {
		let sleeping = {
			let mut state = self.0.lock().unwrap();
			state.number += 1;
			std::mem::take(&mut state.sleeping)
		};
		sleeping.into_iter().for_each(Waker::wake);
	}

	fn sleep(self: &Arc<Self>, time: Duration) -> Sleep {
		let number = self.0.lock().unwrap().number;
		let until = if time <= SHORT { number + 1 } else { u64::MAX };
		Sleep { turns: Arc::clone(self), until }
	}
}

/// Ends with a turn, and never says that the loop is to end.
struct Sleep {
	turns: Arc<Turns>,
	until: u64,
}

impl Future for Sleep {
	type Output = bool;

	fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
		let mut state = self.turns.0.lock().unwrap();
		if state.number >= self.until {
			return Poll::Ready(false);
		}
		if self.until != u64::MAX {
			state.sleeping.push(context.waker().clone());
		}
		Poll::Pending
	}
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
	fn wake(self: Arc<Self>) {
		self.0.store(true, Ordering::SeqCst);
	}
}

/// The store of the loop: it writes the manager through the node's guard.
struct LoopStore(Arc<NodeCore>);

impl KVStore for LoopStore {
	fn read(
		&self, _: &str, _: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		let error = Err(unexpected("read", key));
		std::future::ready(error)
	}

	fn write(
		&self, _: &str, _: &str, _: &str, bytes: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let core = Arc::clone(&self.0);
		async move {
			match core.guard.write_manager_async(&core.disk, bytes).await {
				true => Ok(()),
				false => Err(io::Error::new(io::ErrorKind::Other, "the node died")),
			}
		}
	}

	fn remove(
		&self, _: &str, _: &str, key: &str, _: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let error = Err(unexpected("remove", key));
		std::future::ready(error)
	}

	fn list(
		&self, primary: &str, _: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		let error = Err(unexpected("list", primary));
		std::future::ready(error)
	}
}

fn unexpected(doing: &str, what: &str) -> io::Error {
	let message = format!("the background processor does not {doing} {what}");
	io::Error::new(io::ErrorKind::Other, message)
}

/// Messages go through the net's own pump, so nobody connects here.
#[derive(Clone, Eq, Hash, PartialEq)]
struct NoSocket;

impl SocketDescriptor for NoSocket {
	fn send_data(&mut self, _: &[u8], _: bool) -> usize {
		0
	}

	fn disconnect_socket(&mut self) {}
}

struct NoChange;

impl ChangeDestinationSource for NoChange {
	fn get_change_destination_script<'a>(
		&'a self,
	) -> impl Future<Output = Result<ScriptBuf, ()>> + Send + 'a {
		std::future::ready(Err(()))
	}
}

type NoPeers = PeerManager<
	NoSocket,
	ErroringMessageHandler,
	IgnoringMessageHandler,
	IgnoringMessageHandler,
	Arc<NetLogger>,
	IgnoringMessageHandler,
	Arc<KeysManager>,
	IgnoringMessageHandler,
>;

type NoSweeper = OutputSweeper<
	Arc<Broadcaster>,
	Arc<NoChange>,
	Arc<FixedFees>,
	Arc<dyn Filter + Send + Sync>,
	LoopStore,
	Arc<NetLogger>,
	Arc<KeysManager>,
>;

fn no_peers(core: &NodeCore) -> NoPeers {
	let handler = MessageHandler {
		chan_handler: ErroringMessageHandler::new(),
		route_handler: IgnoringMessageHandler {},
		onion_message_handler: IgnoringMessageHandler {},
		custom_message_handler: IgnoringMessageHandler {},
		send_only_message_handler: IgnoringMessageHandler {},
	};
	let random = core.keys.get_secure_random_bytes();
	PeerManager::new(handler, 0, &random, Arc::clone(&core.logger), Arc::clone(&core.keys))
}

fn processing<P>(
	core: &Arc<NodeCore>, monitor: Arc<ChainMonitorWith<P>>, turns: &Arc<Turns>,
) -> Processing
where
	P: Deref + Send + Sync + 'static,
	P::Target: Persist<InMemorySigner>,
{
	let (core, turns) = (Arc::clone(core), Arc::clone(turns));
	Box::pin(async move {
		let handled = Arc::clone(&core);
		let handler = move |event| {
			let core = Arc::clone(&handled);
			async move {
				let handled = core.guard.handle_event_async(event, &core.handle_of()).await;
				if core.disk.is_dead() {
					// LDK would bring the event again and again; a dead process does nothing.
					std::future::pending::<()>().await;
				}
				handled
			}
		};
		process_events_async(
			LoopStore(Arc::clone(&core)),
			handler,
			monitor,
			Arc::clone(&core.manager),
			NO_ONION_MESSENGER,
			GossipSync::none(),
			Arc::new(no_peers(&core)),
			NO_LIQUIDITY_MANAGER,
			None::<Arc<NoSweeper>>,
			Arc::clone(&core.logger),
			None::<Arc<Mutex<FixedPenaltyScorer>>>,
			move |time| turns.sleep(time),
			false,
			|| None,
		)
		.await
	})
}
