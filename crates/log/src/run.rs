// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A consumer that is run: entry after entry goes to a handler, which says what became of it.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use leyden_store::Plan;

use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::log::Shared;
use crate::types::Entry;
use crate::LogError;

/// The outcome of a delivery, as its handler says.
#[must_use]
pub enum Handled {
	/// The event is handled: the entry is acked.
	Done,
	/// The event is handled, and the handler's own writes are one commit with the ack.
	DoneWith(Plan<()>),
	/// The handler failed. The entry is tried again, or given up, as the consumer's policy says.
	Retry,
	/// The handler failed. The entry is tried again after this time.
	RetryAfter(Duration),
	/// The entry is given up for this reason, and waits in the dead letters for an operator.
	GivenUp(String),
}

impl Handled {
	/// Returns the plan that settles a delivery so.
	fn settles(self, delivery: Delivery) -> Plan<()> {
		match self {
			Self::Done => delivery.ack_plan(),
			Self::DoneWith(plan) => plan.and(delivery.ack_plan()).map(|_| ()),
			Self::Retry => delivery.retry_plan(),
			Self::RetryAfter(wait) => delivery.retry_after_plan(wait),
			Self::GivenUp(reason) => delivery.dead_letter_plan(&reason),
		}
	}
}

impl<E> From<Result<(), E>> for Handled {
	/// An error is tried again. The handler tells whoever should hear of it.
	fn from(result: Result<(), E>) -> Self {
		match result {
			Ok(()) => Self::Done,
			Err(_) => Self::Retry,
		}
	}
}

impl From<()> for Handled {
	fn from((): ()) -> Self {
		Self::Done
	}
}

impl fmt::Debug for Handled {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Done => "Done",
			Self::DoneWith(_) => "DoneWith",
			Self::Retry => "Retry",
			Self::RetryAfter(_) => "RetryAfter",
			Self::GivenUp(_) => "GivenUp",
		})
	}
}

/// Ends the runs of a consumer: those that it was given to. Cheap to clone.
#[derive(Clone)]
pub struct RunStop {
	stopped: Arc<AtomicBool>,
	shared: Arc<Shared>,
}

impl RunStop {
	/// Ends the runs, each after the delivery that is handled just now.
	pub fn stop(&self) {
		self.stopped.store(true, Ordering::SeqCst);
		self.shared.signal.raise();
	}

	/// Returns whether the runs end or have ended.
	pub fn is_stopped(&self) -> bool {
		self.stopped.load(Ordering::SeqCst)
	}
}

impl fmt::Debug for RunStop {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("RunStop").field("is_stopped", &self.is_stopped()).finish_non_exhaustive()
	}
}

impl Consumer {
	/// Makes the switch that ends [`run`](Consumer::run) and [`run_async`](Consumer::run_async).
	pub fn run_stop(&self) -> RunStop {
		RunStop { stopped: Arc::default(), shared: Arc::clone(&self.inner().log.shared) }
	}

	/// Gives entry after entry to `handler` and settles each as the handler says, until `stop` says so;
	/// blocks this thread. Several runs of one consumer, in threads of their own, handle as many lanes
	/// at once.
	///
	/// ```
	/// use std::sync::Arc;
	///
	/// use leyden_id::{EventId, EventKind, Lane};
	/// use leyden_log::{ConsumerOptions, EventLog, Handled, LogOptions, NewEvent};
	/// use leyden_store::{MemoryStore, SystemClock};
	///
	/// let store = Arc::new(MemoryStore::new()?);
	/// let log = EventLog::open(store, "events", Arc::new(SystemClock), LogOptions::default())?;
	/// let consumer = log.consumer("app", ConsumerOptions::default())?;
	/// let (id, kind) = (EventId::from_bytes([1; 32]), EventKind::from_static("Paid"));
	/// log.append(NewEvent { id, kind, lane: Lane::GLOBAL, payload: vec![21] })?;
	///
	/// let stop = consumer.run_stop();
	/// let mut sat = 0;
	/// consumer.run(
	///     |delivery| {
	///         sat += u64::from(delivery.payload()[0]);
	///         stop.stop();
	///         Handled::Done
	///     },
	///     &stop,
	/// )?;
	/// assert_eq!((sat, consumer.lag()?.unacked), (21, 0));
	/// # Ok::<(), Box<dyn std::error::Error>>(())
	/// ```
	///
	/// # Errors
	/// The first error of a search for a delivery or of its settlement, as
	/// [`next_event`](Consumer::next_event) and [`Delivery::ack_with`] have them; the delivery comes
	/// again. An entry that was acked meanwhile is no error. Call it again once the cause is mended.
	///
	/// # Failure Behavior and Persistence
	/// An entry is acked when its handler has returned, as by [`Delivery::ack`]; a crash in between
	/// brings it again. A handler that panics ends the run, and its entry comes again.
	pub fn run<R: Into<Handled>>(
		&self, mut handler: impl FnMut(&Delivery) -> R, stop: &RunStop,
	) -> Result<(), LogError> {
		loop {
			let seen = self.signal_count();
			if stop.is_stopped() {
				return Ok(());
			}
			let Some(delivery) = self.next_event()? else {
				self.wait(seen);
				continue;
			};
			let (handled, index) = (handler(&delivery).into(), delivery.index());
			let plan = handled.settles(delivery);
			is_settled(self.inner().settle_by(plan, index))?;
		}
	}

	/// Does what [`run`](Consumer::run) does, for a task. A search for a delivery reads the store on the
	/// thread of the task; to settle a delivery and to wait for one does not block it. The handler is given the entry and the number
	/// of the attempt, from 1 on. `sleep` resolves after the given time; it is only used while something
	/// is due later.
	///
	/// # Errors
	/// As [`run`](Consumer::run).
	///
	/// # Failure Behavior and Persistence
	/// As [`run`](Consumer::run). Dropped while a handler is at work, the run ends and the entry comes
	/// again; dropped while an entry is settled, it may be settled or not.
	pub async fn run_async<R: Into<Handled>, F: Future<Output = R>, S: Future<Output = ()>>(
		&self, mut handler: impl FnMut(Entry, u32) -> F, sleep: impl Fn(Duration) -> S,
		stop: &RunStop,
	) -> Result<(), LogError> {
		loop {
			let seen = self.signal_count();
			if stop.is_stopped() {
				return Ok(());
			}
			let Some(delivery) = self.next_event()? else {
				self.wait_async(seen, &sleep).await;
				continue;
			};
			let handled = handler(delivery.entry().clone(), delivery.attempt()).await.into();
			let index = delivery.index();
			let plan = handled.settles(delivery);
			is_settled(self.inner().settle_by_async(plan, index).await)?;
		}
	}
}

/// An entry that is acked already needs no settlement.
fn is_settled(settled: Result<(), LogError>) -> Result<(), LogError> {
	match settled {
		Err(LogError::AlreadyAcked { .. }) => Ok(()),
		settled => settled,
	}
}
