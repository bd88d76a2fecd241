// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Writers take turns, in the order in which they asked, whether they wait or poll.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
	next: u64,
	/// The number whose turn it is.
	serving: u64,
	/// Behind that: given up before it was their turn.
	given_up: BTreeSet<u64>,
	wakers: BTreeMap<u64, Waker>,
}

/// A place in the queue. Dropped, it is given up.
pub(crate) struct Waiting(Option<Turn>);

/// The right to write. Dropped, it is the next one's turn.
pub(crate) struct Turn {
	turns: Arc<Mutex<State>>,
	number: u64,
}

impl Turns {
	pub(crate) fn take(&self) -> Waiting {
		let mut state = self.0.lock();
		let number = state.next;
		state.next += 1;
		Waiting(Some(Turn { turns: Arc::clone(&self.0), number }))
	}
}

impl Future for Waiting {
	type Output = Turn;

	fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
		if let Some(turn) = &self.0 {
			let mut state = turn.turns.lock();
			if state.serving != turn.number {
				state.wakers.insert(turn.number, context.waker().clone());
				return Poll::Pending;
			}
		}
		match self.0.take() {
			Some(turn) => Poll::Ready(turn),
			// Polled after it was ready, which no caller does.
			None => Poll::Pending,
		}
	}
}

impl Drop for Turn {
	fn drop(&mut self) {
		let mut state = self.turns.lock();
		state.wakers.remove(&self.number);
		state.given_up.insert(self.number);
		let mut serving = state.serving;
		while state.given_up.remove(&serving) {
			serving += 1;
		}
		state.serving = serving;
		let waker = state.wakers.remove(&serving);
		drop(state);
		if let Some(waker) = waker {
			waker.wake();
		}
	}
}

#[cfg(test)]
mod tests {
	use leyden_store::{block_on, MemoryMedium, MemoryStore, Namespace};

	use super::*;

	fn poll(waiting: &mut Waiting) -> Poll<Turn> {
		Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
	}

	#[test]
	fn turns_come_in_the_order_of_the_calls_and_skip_who_gave_up() {
		let turns = Turns::default();
		let (mut first, second, mut third) = (turns.take(), turns.take(), turns.take());
		assert!(poll(&mut third).is_pending());
		let Poll::Ready(turn) = poll(&mut first) else { panic!("its turn") };
		assert!(poll(&mut third).is_pending());
		drop(second);
		assert!(poll(&mut third).is_pending(), "the first has not ended");
		drop(turn);
		assert!(poll(&mut third).is_ready());
		assert!(poll(&mut turns.take()).is_ready(), "the queue is empty");
	}

	#[test]
	fn a_thread_waits_for_a_turn_that_another_thread_ends() {
		let turns = Turns::default();
		let store = MemoryStore::open(&MemoryMedium::new(), Namespace::default()).unwrap();
		let (first, second) = (block_on(&store, turns.take()), turns.take());
		let waits = std::thread::spawn(move || drop(block_on(&store, second)));
		drop(first);
		waits.join().unwrap();
	}
}
