//! LDK's own background processor around a node, in three ways; see [`Processor`].
//!
//! The net decides when the loop goes on: one turn is at least one pass of
//! it. The loop's own sleep and the timer of forwards end with each turn; other timers never do, and
//! the net ticks by itself ([`LdkNet::tick`](crate::LdkNet::tick)).

mod loop_store;
mod nobody;
mod turns;

use std::future::Future;
use std::ops::Deref;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use lightning::chain::chainmonitor::Persist;
use lightning::events::{Event, ReplayEvent};
use lightning::io;
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::sign::InMemorySigner;
use lightning::types::payment::PaymentHash;
use lightning_background_processor::{
	process_events_async, BackgroundProcessor, GossipSync, NO_LIQUIDITY_MANAGER,
	NO_LIQUIDITY_MANAGER_SYNC, NO_ONION_MESSENGER,
};
use tokio::runtime::{Builder, Runtime};

use crate::chain_monitor::{ChainMonitorWith, NetChainMonitor};
use crate::node::NodeCore;
use loop_store::LoopStore;
use nobody::{no_peers, NoSweeper, NoSweeperSync};
use turns::{Ended, TellsEnd, Turns};

/// The code that handles events, writes the manager, and processes forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Processor {
	/// The net, in small steps.
	#[default]
	Net,
	/// `process_events_async`, polled by the net: the same run every time.
	Polled,
	/// `process_events_async` on a tokio runtime with two workers, beside the net.
	Tokio,
	/// `BackgroundProcessor`, in its own thread, beside the net.
	Thread,
}

impl Processor {
	/// Returns `true` for LDK's own code.
	pub fn is_real(self) -> bool {
		self != Self::Net
	}

	/// Returns `true` if a run comes to the same end every time.
	pub fn is_repeatable(self) -> bool {
		matches!(self, Self::Net | Self::Polled)
	}

	/// Returns `true` if it works with futures.
	pub fn is_async(self) -> bool {
		matches!(self, Self::Polled | Self::Tokio)
	}
}

type Processing = Pin<Box<dyn Future<Output = Result<(), io::Error>> + Send>>;

/// LDK's background processor in one life of a node.
pub(crate) struct Background {
	turns: Arc<Turns>,
	running: Running,
}

enum Running {
	Polled(Mutex<Option<Processing>>),
	Tokio(Option<Runtime>),
	Thread(Option<BackgroundProcessor>),
}

impl Background {
	pub(crate) fn new(core: &Arc<NodeCore>, processor: Processor) -> Self {
		crate::panics::install();
		let turns = Arc::<Turns>::default();
		let running = match processor {
			Processor::Net | Processor::Polled => {
				Running::Polled(Mutex::new(Some(processing(core, &turns))))
			},
			Processor::Tokio => {
				let runtime = Builder::new_multi_thread().worker_threads(2).build();
				let runtime = runtime.expect("threads");
				core.tasks.run_on(runtime.handle().clone());
				runtime.spawn(told(processing(core, &turns), Arc::clone(&turns)));
				Running::Tokio(Some(runtime))
			},
			Processor::Thread => Running::Thread(Some(match &*core.chain_monitor {
				NetChainMonitor::Sync(monitor) => start(core, Arc::clone(monitor), &turns),
				NetChainMonitor::Async(monitor) => start(core, Arc::clone(monitor), &turns),
			})),
		};
		Self { turns, running }
	}

	/// Lets the loop go on, and waits until it sleeps again. Returns `true` if it has ended.
	///
	/// # Panics
	/// When LDK has panicked.
	pub(crate) fn turn(&self, core: &NodeCore) -> bool {
		let turn = self.turns.next();
		let ended = match &self.running {
			Running::Polled(processing) => {
				if poll(processing) {
					self.turns.end(Ended::Error);
				}
				self.turns.wait_for_sleep(0)
			},
			Running::Tokio(_) => {
				// The pass that ends in this turn may have begun before it.
				self.turns.wait_for_sleep(turn);
				let ended = self.turns.wait_for_sleep(self.turns.next());
				core.tasks.give_time();
				ended
			},
			Running::Thread(_) => self.passes(core),
		};
		if let Some(Ended::Panic(message)) = &ended {
			panic!("LDK's background processor panicked: {message}");
		}
		ended.is_some()
	}

	/// Has the thread make two passes: the first may have begun before what is to be seen.
	fn passes(&self, core: &NodeCore) -> Option<Ended> {
		for _ in 0..2 {
			let before = self.turns.passes();
			// LDK asks for the manager to be persisted for this, which wakes the thread.
			core.manager.fail_htlc_backwards(&NO_PAYMENT);
			let ended = self.turns.wait_for_pass(before + 1);
			if ended.is_some() {
				return ended;
			}
		}
		// Forwards wait for a clock of LDK's own.
		while !core.disk.is_dead() && core.manager.needs_pending_htlc_processing() {
			let ended = self.turns.wait_for_pass(self.turns.passes() + 1);
			if ended.is_some() {
				return ended;
			}
		}
		None
	}
}

/// The hash of no payment.
const NO_PAYMENT: PaymentHash = PaymentHash([0xee; 32]);

impl Drop for Background {
	/// Ends the loop, and waits for its threads.
	fn drop(&mut self) {
		match &mut self.running {
			Running::Polled(_) => {},
			// Waits for what its workers are at.
			Running::Tokio(runtime) => drop(runtime.take()),
			Running::Thread(processor) => {
				if let Some(processor) = processor.take() {
					// It passes a panic of LDK's on, which was seen in its turn.
					let _ = catch_unwind(AssertUnwindSafe(|| processor.stop()));
				}
			},
		}
	}
}

/// Polls until nothing wakes the future any more. Returns `true` if it has ended.
fn poll(processing: &Mutex<Option<Processing>>) -> bool {
	let mut processing = processing.lock().unwrap();
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

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
	fn wake(self: Arc<Self>) {
		self.0.store(true, Ordering::SeqCst);
	}
}

/// Tells when a loop sleeps and when it ends.
async fn told(mut processing: Processing, turns: Arc<Turns>) {
	let ends = TellsEnd(Arc::clone(&turns));
	let _ = std::future::poll_fn(|context| {
		let polled = processing.as_mut().poll(context);
		if polled.is_pending() {
			turns.sleeps();
		}
		polled
	})
	.await;
	drop(ends);
}

fn processing(core: &Arc<NodeCore>, turns: &Arc<Turns>) -> Processing {
	match &*core.chain_monitor {
		NetChainMonitor::Sync(monitor) => processing_with(core, Arc::clone(monitor), turns),
		NetChainMonitor::Async(monitor) => processing_with(core, Arc::clone(monitor), turns),
	}
}

fn processing_with<P>(
	core: &Arc<NodeCore>, monitor: Arc<ChainMonitorWith<P>>, turns: &Arc<Turns>,
) -> Processing
where
	P: Deref + Send + Sync + 'static,
	P::Target: Persist<InMemorySigner>,
{
	let (core, turns) = (Arc::clone(core), Arc::clone(turns));
	Box::pin(async move {
		let (handled, ends) = (Arc::clone(&core), Arc::clone(&turns));
		let handler = move |event| {
			let (core, turns) = (Arc::clone(&handled), Arc::clone(&ends));
			async move {
				let handled = core.guard.handle_event_async(event, &core.handle_of()).await;
				if core.disk.is_dead() {
					// LDK would bring the event again and again; a dead process does nothing.
					turns.end(Ended::Error);
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
			Arc::new(no_peers(&core, &turns)),
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

/// Starts LDK's background processor in its own thread.
fn start<P>(
	core: &Arc<NodeCore>, monitor: Arc<ChainMonitorWith<P>>, turns: &Arc<Turns>,
) -> BackgroundProcessor
where
	P: Deref + Send + Sync + 'static,
	P::Target: Persist<InMemorySigner>,
{
	let (handled, ends) = (Arc::clone(core), TellsEnd(Arc::clone(turns)));
	let handler = move |event: Event| -> Result<(), ReplayEvent> {
		// Dropped with the thread.
		let _ = &ends;
		handled.guard.handle_event(event, &mut |event| handled.handle(event))
	};
	BackgroundProcessor::start(
		Arc::new(LoopStore(Arc::clone(core))),
		handler,
		monitor,
		Arc::clone(&core.manager),
		NO_ONION_MESSENGER,
		GossipSync::none(),
		Arc::new(no_peers(core, turns)),
		NO_LIQUIDITY_MANAGER_SYNC,
		None::<Arc<NoSweeperSync>>,
		Arc::clone(&core.logger),
		None::<Arc<Mutex<FixedPenaltyScorer>>>,
	)
}
