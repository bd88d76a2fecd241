// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Waiting, on a thread without a runtime, for a future that needs a store.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::store::Store;

struct Unpark(Thread);

impl Wake for Unpark {
	fn wake(self: Arc<Self>) {
		self.0.unpark();
	}
}

/// Blocks this thread until the future is ready, as [`Ticket::wait`](crate::Ticket::wait) does for
/// one ticket. For futures that other threads complete: those of `store`, and those that wait for
/// another thread.
pub fn block_on<S: Store + ?Sized, F: Future>(store: &S, future: F) -> F::Output {
	let waker = Waker::from(Arc::new(Unpark(thread::current())));
	let mut context = Context::from_waker(&waker);
	let mut future = pin!(future);
	loop {
		if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
			return output;
		}
		store.block(&mut thread::park);
	}
}
