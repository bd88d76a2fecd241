// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The end of the bus, for a node to wait for.

use std::future::{poll_fn, Future};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct Stop(Mutex<State>);

#[derive(Default)]
struct State {
	reason: Option<String>,
	wakers: Vec<Waker>,
}

impl Stop {
	/// Stops the bus. Returns `true` the first time.
	pub(crate) fn now(&self, reason: String) -> bool {
		let mut state = self.0.lock();
		if state.reason.is_some() {
			return false;
		}
		state.reason = Some(reason);
		let wakers = std::mem::take(&mut state.wakers);
		drop(state);
		wakers.into_iter().for_each(Waker::wake);
		true
	}

	pub(crate) fn reason(&self) -> Option<String> {
		self.0.lock().reason.clone()
	}

	pub(crate) fn stopped(&self) -> impl Future<Output = String> + Send + '_ {
		poll_fn(|context| {
			let mut state = self.0.lock();
			if let Some(reason) = &state.reason {
				return Poll::Ready(reason.clone());
			}
			let waker = context.waker();
			if !state.wakers.iter().any(|known| known.will_wake(waker)) {
				state.wakers.push(waker.clone());
			}
			Poll::Pending
		})
	}
}
