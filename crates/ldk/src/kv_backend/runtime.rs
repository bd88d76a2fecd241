// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The runtime in whose context the futures of a store run.
//!
//! The thread that commits calls the store and polls the store's futures itself, inside the context
//! of a runtime: what the store spawns, in the call or later, and its timers and sockets belong to
//! that runtime. So no future of the store waits for a worker that waits for Leyden, as long as the
//! runtime's workers do not wait for Leyden. The workers of Leyden's own runtime never do.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use leyden_store::group::Blocking;
use leyden_store::StoreError;
use lightning::io;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Id, RuntimeFlavor};
use tokio::task::{block_in_place, unconstrained};

/// Threads of Leyden's own runtime. They drive sockets, timers and what the store spawns.
const WORKERS: usize = 2;
/// The longest time that a single look at the clock counts for: a process that was stopped has not
/// waited.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// A future of the store.
pub(super) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, io::Error>> + Send>>;

/// The context in which a store is called and its futures are polled.
pub(super) struct Runtime {
	handle: Handle,
	/// `None` if the runtime is the node's, or while this is dropped.
	own: Option<tokio::runtime::Runtime>,
	/// The time to wait for an answer.
	answer_timeout: Duration,
}

impl Runtime {
	/// Starts a runtime for the store alone.
	///
	/// # Errors
	/// [`StoreError::Unavailable`] if the system has no threads.
	pub(super) fn own(answer_timeout: Duration) -> Result<Self, StoreError> {
		let own = Builder::new_multi_thread()
			.worker_threads(WORKERS)
			.thread_name("leyden-kv-io")
			.enable_all()
			.build()
			.map_err(|error| StoreError::Unavailable {
				doing: "starting the runtime of an asynchronous KVStore",
				source: Arc::new(error),
			})?;
		Ok(Self { handle: own.handle().clone(), own: Some(own), answer_timeout })
	}

	/// Uses the node's runtime.
	///
	/// # Errors
	/// [`StoreError::Invalid`] for a runtime of one thread: that thread would wait for itself.
	pub(super) fn of_node(handle: Handle, answer_timeout: Duration) -> Result<Self, StoreError> {
		if handle.runtime_flavor() == RuntimeFlavor::CurrentThread {
			return Err(StoreError::invalid(
				"the runtime that was given for the KVStore is a current-thread runtime: a call that \
				 waits for the store on its thread would wait for itself for ever; give none, so that \
				 the store's futures run on Leyden's own runtime, or give a multi-thread runtime",
			));
		}
		Ok(Self { handle, own: None, answer_timeout })
	}

	/// Returns whether the runtime is Leyden's own.
	pub(super) fn is_own(&self) -> bool {
		self.own.is_some()
	}

	/// Returns what a caller waits in. On a worker of the node's runtime another thread takes over
	/// the worker's tasks meanwhile.
	pub(super) fn blocking(&self) -> Option<Blocking> {
		if self.is_own() {
			return None;
		}
		let node = self.handle.id();
		Some(Arc::new(move |wait: &mut dyn FnMut()| match is_worker_of(node) {
			true => block_in_place(wait),
			false => wait(),
		}))
	}

	/// Makes a call and waits for its answer.
	pub(super) fn run_one<T: Send>(
		&self, call: impl FnOnce() -> Answer<T> + Send,
	) -> Result<T, io::Error> {
		self.run([call]).pop().unwrap_or_else(|| Err(unanswered(self.answer_timeout)))
	}

	/// Makes the calls in their order, and then waits for all answers.
	pub(super) fn run<T: Send, C>(
		&self, calls: impl IntoIterator<Item = C> + Send,
	) -> Vec<Result<T, io::Error>>
	where
		C: FnOnce() -> Answer<T>,
	{
		if Handle::try_current().is_err() {
			return self.poll(calls);
		}
		// A task of some runtime uses the medium itself. Its scheduler would keep what wakes the futures
		// until the task ends, so another thread polls them.
		let poll = || {
			std::thread::scope(|scope| scope.spawn(|| self.poll(calls)).join())
				.unwrap_or_else(|panic| resume_unwind(panic))
		};
		match !self.is_own() && is_worker_of(self.handle.id()) {
			true => block_in_place(poll),
			false => poll(),
		}
	}

	fn poll<T, C>(&self, calls: impl IntoIterator<Item = C>) -> Vec<Result<T, io::Error>>
	where
		C: FnOnce() -> Answer<T>,
	{
		let _context = self.handle.enter();
		let mut answers: Vec<Pending<T>> = calls.into_iter().map(begin).collect();
		let bell = Arc::new(Bell::default());
		let waker = Waker::from(Arc::clone(&bell));
		let mut context = Context::from_waker(&waker);
		let mut left = self.answer_timeout;
		loop {
			let waiting = answers.iter_mut().map(|answer| answer.is_pending(&mut context));
			// All of them are polled.
			let is_waiting = waiting.fold(false, |others, is_pending| others | is_pending);
			if !is_waiting || left.is_zero() {
				break;
			}
			let began = Instant::now();
			bell.wait(left.min(LONGEST_STEP));
			left = left.saturating_sub(began.elapsed().min(LONGEST_STEP));
		}
		let ended = |answer| match answer {
			Pending::Ended(ended) => ended,
			Pending::Waiting(_) => Err(unanswered(self.answer_timeout)),
		};
		answers.into_iter().map(ended).collect()
	}
}

/// Returns `true` if this thread is in the context of that runtime.
fn is_worker_of(runtime: Id) -> bool {
	Handle::try_current().is_ok_and(|current| current.id() == runtime)
}

impl Drop for Runtime {
	fn drop(&mut self) {
		if let Some(own) = self.own.take() {
			// Also from inside a runtime, where waiting is not allowed.
			own.shutdown_background();
		}
	}
}

/// Returns whether the store did not answer in time. What it was asked for may still happen.
pub(super) fn is_unanswered(error: &io::Error) -> bool {
	error.get_ref().is_some_and(|inner| inner.is::<Unanswered>())
}

fn unanswered(after: Duration) -> io::Error {
	io::Error::new(io::ErrorKind::TimedOut, Unanswered(after))
}

struct Unanswered(Duration);

impl fmt::Debug for Unanswered {
	/// The text that LDK's `io::Error` shows.
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		fmt::Display::fmt(self, f)
	}
}

impl fmt::Display for Unanswered {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "the KVStore did not answer within {} ms", self.0.as_millis())
	}
}

impl Error for Unanswered {}

enum Pending<T> {
	Waiting(Answer<T>),
	Ended(Result<T, io::Error>),
}

/// Calls the store. A panic is the store's failure, and nobody else's.
fn begin<T>(call: impl FnOnce() -> Answer<T>) -> Pending<T> {
	match catch_unwind(AssertUnwindSafe(call)) {
		Ok(answer) => Pending::Waiting(answer),
		Err(panic) => Pending::Ended(Err(panicked(&*panic))),
	}
}

impl<T> Pending<T> {
	fn is_pending(&mut self, context: &mut Context<'_>) -> bool {
		let Self::Waiting(answer) = self else { return false };
		// The budget of the task that this thread may be in is not meant for this.
		let poll = || Pin::new(&mut unconstrained(answer.as_mut())).poll(context);
		let ended = match catch_unwind(AssertUnwindSafe(poll)) {
			Ok(Poll::Pending) => return true,
			Ok(Poll::Ready(ended)) => ended,
			Err(panic) => Err(panicked(&*panic)),
		};
		*self = Self::Ended(ended);
		false
	}
}

fn panicked(panic: &(dyn Any + Send)) -> io::Error {
	let text = panic.downcast_ref::<&str>().copied();
	let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
	let text = format!("the KVStore panicked: {}", text.unwrap_or("no message"));
	io::Error::new(io::ErrorKind::Other, text)
}

/// Wakes the thread that polls.
#[derive(Default)]
struct Bell {
	is_rung: Mutex<bool>,
	changed: Condvar,
}

impl Bell {
	fn wait(&self, at_most: Duration) {
		let mut is_rung = self.is_rung.lock();
		if !*is_rung {
			self.changed.wait_for(&mut is_rung, at_most);
		}
		*is_rung = false;
	}
}

impl Wake for Bell {
	fn wake(self: Arc<Self>) {
		*self.is_rung.lock() = true;
		self.changed.notify_one();
	}
}
