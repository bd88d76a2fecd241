// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The answer that a store owes: a [`Ticket`] is a `Future`, and can be waited for without a
//! runtime.
//!
//! One concrete type for both kinds of callers keeps the [`Store`](crate::Store) trait object safe
//! and lets the order of two commits be the order of the two calls: a commit is submitted when the
//! method is called, not when its ticket is first polled. Dropping its ticket does not take it back. A
//! read may be made as late as when its ticket is waited for or polled: what must be read first has to
//! be awaited first.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::error::StoreError;
use crate::sync::{Condvar, Mutex};

/// An answer that may not be there yet.
#[must_use = "the work goes on without it, but only its ticket tells how it ended"]
pub struct Ticket<T>(Inner<T>);

enum Inner<T> {
	Ready(Option<Result<T, StoreError>>),
	Shared(Waiting<T>),
	/// The answer of another ticket, seen through a function.
	Mapped(Box<dyn Answer<T>>),
}

/// Something that answers later: a ticket of another type and a function.
trait Answer<T>: Send {
	fn wait(self: Box<Self>) -> Result<T, StoreError>;
	fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, StoreError>>;
}

struct Shared<T> {
	state: Mutex<State<T>>,
	changed: Condvar,
}

struct Waiting<T> {
	shared: Arc<Shared<T>>,
	/// The help of [`Ticket::pair_with_help`].
	help: Option<Arc<dyn Help>>,
	/// `true` once help was asked for.
	is_asked: bool,
}

impl<T> Waiting<T> {
	/// Returns the help when it is called first; `None` after that.
	fn ask(&mut self) -> Option<&Arc<dyn Help>> {
		match std::mem::replace(&mut self.is_asked, true) {
			true => None,
			false => self.help.as_ref(),
		}
	}

	fn nudge(&mut self) {
		if let Some(help) = self.ask() {
			help.nudge();
		}
	}
}

impl<T> Drop for Waiting<T> {
	fn drop(&mut self) {
		self.nudge();
	}
}

struct State<T> {
	answer: Option<Result<T, StoreError>>,
	waker: Option<Waker>,
}

/// Someone whose work a waiting thread can do.
///
/// A thread that waits for a ticket would otherwise wake another thread and sleep until that wakes
/// it. So a store may leave a request where it is until somebody cares: whoever waits does the
/// work, and whoever polls or drops the ticket has it done.
pub trait Help: Send + Sync {
	/// Does some of what is waiting to be done, if nobody else is at it.
	fn help(&self);

	/// Sees to it that what is waiting is done, by somebody else.
	fn nudge(&self);

	/// Returns `true` on a thread whose own work has to end before anything that is waiting can be
	/// done: that of a hook. To wait there would be to wait for ever.
	fn waits_for_this_thread(&self) -> bool {
		false
	}

	/// Runs `wait`, which blocks this thread until the answer is there. A store whose own work
	/// needs the thread (as a worker of an async runtime) tells the runtime around it.
	fn block(&self, wait: &mut dyn FnMut()) {
		wait();
	}
}

/// The store's end of a ticket.
pub struct Completer<T>(Option<Arc<Shared<T>>>);

impl<T> Ticket<T> {
	/// A ticket whose answer is there.
	pub fn ready(answer: Result<T, StoreError>) -> Self {
		Self(Inner::Ready(Some(answer)))
	}

	/// A ticket and the end that completes it.
	pub fn pair() -> (Completer<T>, Self) {
		Self::shared(None)
	}

	/// As [`pair`](Ticket::pair), for a request that nobody works on yet. A thread that waits for
	/// the ticket calls [`Help::help`] first; a task that polls it, and whoever drops it, calls
	/// [`Help::nudge`].
	pub fn pair_with_help(help: Arc<dyn Help>) -> (Completer<T>, Self) {
		Self::shared(Some(help))
	}

	/// Blocks this thread until the answer is there.
	///
	/// # Errors
	/// The store's error; [`StoreError::Indeterminate`] in a hook of a commit of the same store, which
	/// would wait for itself: what was asked for is done after the hook.
	pub fn wait(self) -> Result<T, StoreError> {
		match self.0 {
			Inner::Ready(answer) => answer.unwrap_or_else(|| Err(taken())),
			Inner::Mapped(answer) => answer.wait(),
			Inner::Shared(mut waiting) => {
				if let Some(help) = waiting.ask() {
					help.help();
				}
				if let Some(answer) = waiting.shared.state.lock().answer.take() {
					return answer;
				}
				if waiting.help.as_ref().is_some_and(|help| help.waits_for_this_thread()) {
					return Err(StoreError::Indeterminate {
						doing: "waiting for the store in a hook",
						source: Arc::new(InHook),
					});
				}
				let mut answer = None;
				let mut wait = || answer = Some(waiting.shared.wait());
				match &waiting.help {
					Some(help) => help.block(&mut wait),
					None => wait(),
				}
				// None only if `block` did not run what it was given.
				answer.unwrap_or_else(|| waiting.shared.wait())
			},
		}
	}

	/// The same answer, seen through `f`. `f` runs when the answer is taken; what must happen even
	/// if nobody takes it belongs into [`Batch::after_commit`](crate::Batch::after_commit).
	pub fn then<U, F>(self, f: F) -> Ticket<U>
	where
		F: FnOnce(Result<T, StoreError>) -> Result<U, StoreError> + Send + 'static,
		T: Send + 'static,
		U: 'static,
	{
		Ticket(Inner::Mapped(Box::new(Then { ticket: self, f: Some(f) })))
	}

	fn shared(help: Option<Arc<dyn Help>>) -> (Completer<T>, Self) {
		let state = Mutex::new(State { answer: None, waker: None });
		let shared = Arc::new(Shared { state, changed: Condvar::new() });
		let waiting = Waiting { shared: Arc::clone(&shared), help, is_asked: false };
		(Completer(Some(shared)), Self(Inner::Shared(waiting)))
	}
}

impl<T> Unpin for Ticket<T> {}

impl<T> Future for Ticket<T> {
	type Output = Result<T, StoreError>;

	fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
		match &mut self.0 {
			Inner::Ready(answer) => Poll::Ready(answer.take().unwrap_or_else(|| Err(taken()))),
			Inner::Mapped(answer) => answer.poll(context),
			Inner::Shared(waiting) => {
				waiting.nudge();
				let mut state = waiting.shared.state.lock();
				match state.answer.take() {
					Some(answer) => Poll::Ready(answer),
					None => {
						state.waker = Some(context.waker().clone());
						Poll::Pending
					},
				}
			},
		}
	}
}

impl<T> fmt::Debug for Ticket<T> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Ticket")
	}
}

impl<T> Completer<T> {
	/// Gives the answer.
	pub fn complete(mut self, answer: Result<T, StoreError>) {
		if let Some(shared) = self.0.take() {
			shared.complete(answer);
		}
	}
}

impl<T> Drop for Completer<T> {
	/// A store that loses a request (its thread panicked) must not leave the caller waiting, and
	/// must not claim to know how it ended.
	fn drop(&mut self) {
		if let Some(shared) = self.0.take() {
			shared.complete(Err(StoreError::Indeterminate {
				doing: "waiting for the store",
				source: Arc::new(Abandoned),
			}));
		}
	}
}

impl<T> fmt::Debug for Completer<T> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Completer")
	}
}

impl<T> Shared<T> {
	fn wait(&self) -> Result<T, StoreError> {
		let mut state = self.state.lock();
		loop {
			if let Some(answer) = state.answer.take() {
				return answer;
			}
			self.changed.wait(&mut state);
		}
	}

	fn complete(&self, answer: Result<T, StoreError>) {
		let waker = {
			let mut state = self.state.lock();
			state.answer = Some(answer);
			state.waker.take()
		};
		self.changed.notify_all();
		if let Some(waker) = waker {
			waker.wake();
		}
	}
}

/// A thread that would wait for itself.
#[derive(Debug)]
struct InHook;

impl fmt::Display for InHook {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("a hook must not wait for its own store; it is done after the hook")
	}
}

impl Error for InHook {}

struct Then<T, F> {
	ticket: Ticket<T>,
	f: Option<F>,
}

impl<T, U, F> Answer<U> for Then<T, F>
where
	F: FnOnce(Result<T, StoreError>) -> Result<U, StoreError> + Send,
	T: Send,
{
	fn wait(mut self: Box<Self>) -> Result<U, StoreError> {
		let answer = self.ticket.wait();
		self.f.take().map_or_else(|| Err(taken()), |f| f(answer))
	}

	fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<U, StoreError>> {
		Pin::new(&mut self.ticket)
			.poll(context)
			.map(|answer| self.f.take().map_or_else(|| Err(taken()), |f| f(answer)))
	}
}

#[derive(Debug)]
struct Abandoned;

impl fmt::Display for Abandoned {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("the store ended without an answer")
	}
}

impl Error for Abandoned {}

fn taken() -> StoreError {
	StoreError::invalid("a ticket was polled after it had given its answer")
}

#[cfg(test)]
mod tests {
	use super::*;
	use std::sync::atomic::{AtomicUsize, Ordering};
	use std::task::Wake;

	struct Noop;

	impl Wake for Noop {
		fn wake(self: Arc<Self>) {}
	}

	fn poll<T>(ticket: &mut Ticket<T>) -> Poll<Result<T, StoreError>> {
		let waker = Waker::from(Arc::new(Noop));
		Pin::new(ticket).poll(&mut Context::from_waker(&waker))
	}

	#[test]
	fn a_ticket_is_a_future_and_can_be_waited_for() {
		let (completer, mut ticket) = Ticket::pair();
		assert!(poll(&mut ticket).is_pending());
		completer.complete(Ok(1));
		assert!(matches!(poll(&mut ticket), Poll::Ready(Ok(1))));

		let (completer, ticket) = Ticket::pair();
		let thread = std::thread::spawn(move || completer.complete(Ok(2)));
		assert_eq!(ticket.then(|n| Ok(n? + 1)).wait().unwrap(), 3);
		thread.join().unwrap();
	}

	#[test]
	fn a_request_that_is_lost_ends_as_unknown_not_as_failed() {
		let (completer, ticket) = Ticket::<()>::pair();
		drop(completer);
		assert!(matches!(ticket.wait(), Err(StoreError::Indeterminate { .. })));
	}

	#[derive(Default)]
	struct Counter {
		helped: AtomicUsize,
		nudged: AtomicUsize,
	}

	impl Help for Counter {
		fn help(&self) {
			self.helped.fetch_add(1, Ordering::SeqCst);
		}

		fn nudge(&self) {
			self.nudged.fetch_add(1, Ordering::SeqCst);
		}
	}

	#[test]
	fn whoever_cares_for_a_ticket_gets_its_work_done_once() {
		let counts = Arc::new(Counter::default());
		let pair = || Ticket::<()>::pair_with_help(Arc::<Counter>::clone(&counts) as Arc<dyn Help>);
		let seen = || {
			let of = |n: &AtomicUsize| n.load(Ordering::SeqCst);
			(of(&counts.helped), of(&counts.nudged))
		};
		let (completer, ticket) = pair();
		completer.complete(Ok(()));
		assert!(ticket.wait().is_ok());
		assert_eq!(seen(), (1, 0));

		let (_completer, mut ticket) = pair();
		assert!(poll(&mut ticket).is_pending());
		assert!(poll(&mut ticket).is_pending());
		drop(ticket);
		assert_eq!(seen(), (1, 1));

		let (_completer, ticket) = pair();
		drop(ticket.then(|answer| answer));
		assert_eq!(seen(), (1, 2));
	}

	#[test]
	fn polling_again_is_an_error_and_not_a_panic() {
		let mut ticket = Ticket::ready(Ok(1));
		assert!(matches!(poll(&mut ticket), Poll::Ready(Ok(1))));
		assert!(matches!(poll(&mut ticket), Poll::Ready(Err(StoreError::Invalid { .. }))));
	}
}
