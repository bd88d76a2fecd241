// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Appends of the journal that are on their way to the disk.
//!
//! LDK hands over its events one by one, takes them out of its queue when the last of them was
//! handled, and lets go of them for good in two places only: when a manager is written that was
//! encoded since, and when an update goes to a monitor that LDK had held back until the event was
//! handled. So the journal does not have to wait for the disk at every event: it submits each
//! append at once, and those two places wait until all of them are durable. Events that are handed
//! over together become one or two commits instead of one for each.
//!
//! An append that fails is kept and submitted again, under the same id, by whichever of the two
//! places comes next; until it succeeds both refuse, so that LDK lets go of nothing, and the node
//! stops by LDK's own means. Events that LDK hands over after a failed append are submitted behind
//! it. Appends that were under way behind it keep their place in the log, which is then before it.
//!
//! No thread holds a lock while it waits for the disk: the threads of peers look here whether they
//! have to wait.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use leyden_log::{Appended, EventLog, LogError, LogIndex, NewEvent};
use leyden_store::Ticket;
use parking_lot::{Condvar, Mutex};

/// The tries of an append before its error is returned. A store that may be away waits by itself;
/// these tries are for a medium that fails for a moment.
const TRIES: u32 = 3;

type Done = Box<dyn FnOnce(Appended) + Send>;

/// The appends that are under way. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PendingAppends(Arc<Shared>);

struct Shared {
	log: EventLog,
	state: Mutex<State>,
	/// A thread that waited for the first append has its answer.
	answered: Condvar,
	/// The thread that handled the last event; `None` if a task did, which may go on on any.
	event_thread: Mutex<Option<ThreadId>>,
	/// The highest index of an append of this run, or of the stream when it was opened.
	newest: AtomicU64,
	/// The tasks that wait. A lock of its own: the store's thread takes it.
	wakers: Mutex<Vec<Waker>>,
}

#[derive(Default)]
struct State {
	waiting: VecDeque<Waiting>,
	/// The first of them has failed, and none that was pushed since is under way.
	failed: bool,
}

struct Waiting {
	event: NewEvent,
	repeat: u32,
	/// The answer, unless a thread that waits for it has it.
	ticket: Option<Ticket<Appended>>,
	/// `true` if the append was submitted, and has not failed since.
	is_submitted: bool,
	done: Done,
}

/// A ticket remembers one waker; any number of tasks may wait for it here.
impl Wake for Shared {
	fn wake(self: Arc<Self>) {
		let wakers = std::mem::take(&mut *self.wakers.lock());
		wakers.into_iter().for_each(Waker::wake);
	}
}

impl PendingAppends {
	pub(crate) fn new(log: EventLog) -> Self {
		let newest = AtomicU64::new(log.head().map_or(0, LogIndex::get));
		let (state, answered, event_thread) = (Mutex::default(), Condvar::new(), Mutex::default());
		let wakers = Mutex::default();
		Self(Arc::new(Shared { log, state, answered, event_thread, newest, wakers }))
	}

	/// Submits an append, unless one before it failed: then it is submitted behind that. `done`
	/// hears of its index, in the order of the calls. `thread` is the one on which LDK goes on once
	/// the event was handled, if that is known.
	pub(crate) fn push(
		&self, event: NewEvent, repeat: u32, thread: Option<ThreadId>,
		done: impl FnOnce(Appended) + Send + 'static,
	) {
		*self.0.event_thread.lock() = thread;
		let mut state = self.0.state.lock();
		let done = Box::new(done);
		let mut waiting = Waiting { event, repeat, ticket: None, is_submitted: false, done };
		if !state.failed {
			self.submit(&mut waiting);
		}
		state.waiting.push_back(waiting);
	}

	/// Blocks until everything that was pushed so far is durable.
	///
	/// # Errors
	/// The error of the first append that failed [`TRIES`] times. It is submitted again by the next
	/// call.
	pub(crate) fn wait(&self) -> Result<(), LogError> {
		let mut state = self.0.state.lock();
		let mut tries = 0;
		while let Some(first) = state.waiting.front_mut() {
			self.submit(first);
			let Some(ticket) = first.ticket.take() else {
				// Another thread has it.
				self.0.log.store().block(&mut || self.0.answered.wait(&mut state));
				continue;
			};
			drop(state);
			let answer = ticket.wait();
			state = self.0.state.lock();
			let taken = self.take(&mut state, answer.map_err(LogError::from));
			self.0.answered.notify_all();
			Wake::wake(Arc::clone(&self.0));
			match taken {
				Ok(()) => tries = 0,
				Err(error) => {
					tries += 1;
					if tries >= TRIES {
						return Err(error);
					}
				},
			}
		}
		Ok(())
	}

	/// Waits as [`wait`](PendingAppends::wait) does, if LDK's events may have been handled on this
	/// thread: updates that LDK sends from other threads wait for no event.
	///
	/// # Errors
	/// The same as [`wait`](PendingAppends::wait).
	pub(crate) fn wait_on_event_thread(&self) -> Result<(), LogError> {
		let is_event_thread = *self.0.event_thread.lock() == Some(std::thread::current().id());
		match is_event_thread {
			true => self.wait(),
			false => Ok(()),
		}
	}

	/// Waits as [`wait`](PendingAppends::wait) does, without blocking.
	///
	/// # Errors
	/// The same as [`wait`](PendingAppends::wait).
	pub(crate) async fn durable(&self) -> Result<(), LogError> {
		let waker = Waker::from(Arc::clone(&self.0));
		let mut tries = 0;
		std::future::poll_fn(move |context| {
			let mut wakers = self.0.wakers.lock();
			if !wakers.iter().any(|known| known.will_wake(context.waker())) {
				wakers.push(context.waker().clone());
			}
			drop(wakers);
			let mut state = self.0.state.lock();
			let outcome = loop {
				let Some(first) = state.waiting.front_mut() else { break Ok(()) };
				self.submit(first);
				// A thread that has the ticket wakes the tasks.
				let Some(ticket) = first.ticket.as_mut() else { return Poll::Pending };
				let polled = Pin::new(ticket).poll(&mut Context::from_waker(&waker));
				let Poll::Ready(answer) = polled else { return Poll::Pending };
				first.ticket = None;
				match self.take(&mut state, answer.map_err(LogError::from)) {
					Ok(()) => tries = 0,
					Err(error) => {
						tries += 1;
						if tries >= TRIES {
							break Err(error);
						}
					},
				}
			};
			drop(state);
			// The tasks that waited for the same tickets.
			Wake::wake(Arc::clone(&self.0));
			Poll::Ready(outcome)
		})
		.await
	}

	/// The highest index in the stream, as far as this handle knows; 0 in an empty one.
	pub(crate) fn newest(&self) -> u64 {
		self.0.newest.load(Ordering::SeqCst)
	}

	/// Submits an append that is not under way.
	fn submit(&self, waiting: &mut Waiting) {
		if waiting.is_submitted {
			return;
		}
		let log = &self.0.log;
		let plan = log.append_repeat_plan(waiting.event.clone(), waiting.repeat);
		let mut ticket = plan.commit(log.store());
		// A store may leave a request where it is until its ticket is asked for.
		let asked = Pin::new(&mut ticket).poll(&mut Context::from_waker(Waker::noop()));
		waiting.is_submitted = true;
		waiting.ticket = Some(match asked {
			Poll::Ready(answer) => Ticket::ready(answer),
			Poll::Pending => ticket,
		});
	}

	/// The first append was answered, and its ticket is gone.
	fn take(&self, state: &mut State, answer: Result<Appended, LogError>) -> Result<(), LogError> {
		match answer {
			Ok(appended) => {
				self.0.newest.fetch_max(appended.index().get(), Ordering::SeqCst);
				if let Some(first) = state.waiting.pop_front() {
					(first.done)(appended);
				}
				if std::mem::take(&mut state.failed) {
					state.waiting.iter_mut().for_each(|waiting| self.submit(waiting));
				}
				Ok(())
			},
			Err(error) => {
				state.failed = true;
				if let Some(first) = state.waiting.front_mut() {
					first.is_submitted = false;
				}
				Err(error)
			},
		}
	}
}
