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
use std::time::Instant;

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

/// Parks this thread until the future is done; `None` at the deadline. What drives it is on another
/// thread.
pub(crate) fn block_on<F: Future>(future: F, deadline: Instant) -> Option<F::Output> {
	struct Unpark(Thread);
	impl Wake for Unpark {
		fn wake(self: Arc<Self>) {
			self.0.unpark();
		}
	}
	let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
	let mut future = pin!(future);
	loop {
		if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
			return Some(done);
		}
		let left = deadline.checked_duration_since(Instant::now())?;
		std::thread::park_timeout(left);
	}
}
