// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Wakes those who wait for something to deliver. Its lock is a leaf: it is taken by hooks on the
//! committing thread, and nothing else is taken or waited for under it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub(crate) struct Signal {
	state: Mutex<State>,
	raised: Condvar,
}

#[derive(Default)]
struct State {
	count: u64,
	wakers: Vec<Waker>,
}

impl Signal {
	pub(crate) fn raise(&self) {
		let wakers = {
			let mut state = self.state.lock();
			state.count += 1;
			std::mem::take(&mut state.wakers)
		};
		self.raised.notify_all();
		wakers.into_iter().for_each(Waker::wake);
	}

	/// How often it was raised. Take this before you look for work.
	pub(crate) fn count(&self) -> u64 {
		self.state.lock().count
	}

	/// Blocks until it was raised more than `seen` times, or until `at_most` has passed.
	pub(crate) fn wait(&self, seen: u64, at_most: Option<Duration>) {
		let mut state = self.state.lock();
		while state.count == seen {
			match at_most {
				Some(wait) => {
					self.raised.wait_for(&mut state, wait);
					return;
				},
				None => self.raised.wait(&mut state),
			}
		}
	}

	/// Resolves once it was raised more than `seen` times.
	pub(crate) fn raised(&self, seen: u64) -> Raised<'_> {
		Raised { signal: self, seen }
	}
}

pub(crate) struct Raised<'a> {
	signal: &'a Signal,
	seen: u64,
}

impl Future for Raised<'_> {
	type Output = ();

	fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
		let mut state = self.signal.state.lock();
		if state.count != self.seen {
			return Poll::Ready(());
		}
		if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
			state.wakers.push(context.waker().clone());
		}
		Poll::Pending
	}
}
