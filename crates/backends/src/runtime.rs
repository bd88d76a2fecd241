// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A runtime of our own, for clients that want one: a store works with any runtime around it, or
//! none, and whoever asks parks until the answer is there.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use leyden_store::StoreError;
use tokio::task::JoinHandle;

/// One thread that drives connections.
pub(crate) struct Runtime {
	/// `None` once it is dropped.
	runtime: Option<tokio::runtime::Runtime>,
}

impl Runtime {
	pub(crate) fn new(thread_name: &str) -> Result<Self, StoreError> {
		let runtime = tokio::runtime::Builder::new_multi_thread()
			.worker_threads(1)
			.thread_name(thread_name)
			.enable_all()
			.build()
			.map_err(|error| StoreError::Unavailable {
				doing: "starting the connection's thread",
				source: Arc::new(error),
			})?;
		Ok(Self { runtime: Some(runtime) })
	}

	/// Begins with the future; `None` only while the store is dropped.
	pub(crate) fn spawn<F>(&self, future: F) -> Option<JoinHandle<F::Output>>
	where
		F: Future + Send + 'static,
		F::Output: Send,
	{
		self.runtime.as_ref().map(|runtime| runtime.spawn(future))
	}
}

impl Drop for Runtime {
	fn drop(&mut self) {
		if let Some(runtime) = self.runtime.take() {
			// Also from inside a runtime, where waiting is not allowed.
			runtime.shutdown_background();
		}
	}
}

/// The longest time that a single look at the clock counts for: a process that was stopped, or a
/// machine that was suspended, has not waited.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// Parks this thread until the future is done; `None` at the deadline. What drives it is on another
/// thread.
///
/// Time in which this process did not run is no time in which it waited: when it goes on, the answer
/// has come, and the thread that takes it in must run first.
pub(crate) fn block_on<F: Future>(future: F, deadline: Instant) -> Option<F::Output> {
	struct Unpark(Thread);
	impl Wake for Unpark {
		fn wake(self: Arc<Self>) {
			self.0.unpark();
		}
	}
	let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
	let left = deadline.saturating_duration_since(Instant::now());
	poll_for(future, &waker, left, |step| {
		let began = Instant::now();
		std::thread::park_timeout(step);
		began.elapsed()
	})
}

/// Polls the future each time that `park` returns, which says how long that took, until `left` is
/// over. A step is waited in any case.
fn poll_for<F: Future>(
	future: F, waker: &Waker, left: Duration, mut park: impl FnMut(Duration) -> Duration,
) -> Option<F::Output> {
	let mut future = pin!(future);
	let mut left = left.max(LONGEST_STEP);
	loop {
		if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(waker)) {
			return Some(done);
		}
		if left.is_zero() {
			return None;
		}
		let took = park(left.min(LONGEST_STEP));
		left = left.saturating_sub(took.min(LONGEST_STEP));
	}
}

#[cfg(test)]
mod tests {
	use std::future::poll_fn;

	use super::*;

	/// A future that is done when it is polled for this time.
	fn done_at(time: u32) -> impl Future<Output = u32> {
		let mut polls = 0;
		poll_fn(move |_| {
			polls += 1;
			if polls >= time {
				Poll::Ready(polls)
			} else {
				Poll::Pending
			}
		})
	}

	#[test]
	fn a_process_that_was_stopped_has_not_waited() {
		const STOPPED: Duration = Duration::from_secs(9 * 60);
		let left = Duration::from_secs(10);
		// It is stopped while it waits, and the answer is taken in a moment after it goes on.
		let done = poll_for(done_at(3), Waker::noop(), left, |_| STOPPED);
		assert_eq!(done, Some(3));
		// It was stopped before it began to wait.
		let done = poll_for(done_at(2), Waker::noop(), Duration::ZERO, |step| step);
		assert_eq!(done, Some(2));
	}

	#[test]
	fn no_answer_in_time_is_none() {
		let mut waited = Duration::ZERO;
		let left = Duration::from_millis(2_500);
		let done = poll_for(done_at(1_000), Waker::noop(), left, |step| {
			waited += step;
			step
		});
		assert_eq!((done, waited), (None, left));
	}
}
