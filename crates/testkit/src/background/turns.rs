//! Turns: the net lets a loop go on, and learns when it sleeps again.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::panics;

/// The time that LDK's loop sleeps at most with debug assertions; without, it is shorter.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// The timers of that time, which LDK makes before its loop begins: pings, broadcasts of claims
/// again, and sweeps. They never end, or the loop would never be done with what they do.
const TIMERS: usize = 3;
/// The time after which a loop in its own thread counts as one that hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// The turns of one loop.
#[derive(Default)]
pub(super) struct Turns {
	state: Mutex<State>,
	changed: Condvar,
}

#[derive(Default)]
struct State {
	number: u64,
	/// The timers that were made.
	timers: usize,
	/// The number of the turn in which a sleep was last made.
	made: u64,
	sleeping: Vec<Waker>,
	/// The number of the turn in which the loop last went to sleep.
	slept: u64,
	/// Passes of the loop.
	passes: u64,
	ended: Option<Ended>,
}

/// The way in which a loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
	/// With an error.
	Error,
	/// By a panic, which said this.
	Panic(String),
}

impl Turns {
	/// Begins the next turn: every short sleep ends.
	pub(super) fn next(&self) -> u64 {
		let (number, sleeping) = {
			let mut state = self.lock();
			state.number += 1;
			(state.number, std::mem::take(&mut state.sleeping))
		};
		sleeping.into_iter().for_each(Waker::wake);
		number
	}

	/// Sleeps until the next turn, or for ever if the time is long.
	pub(super) fn sleep(self: &Arc<Self>, time: Duration) -> Sleep {
		let mut state = self.lock();
		let is_timer = time == LONGEST_SLEEP && state.timers < TIMERS;
		state.timers += usize::from(is_timer);
		let ends = time <= LONGEST_SLEEP && !is_timer;
		let until = if ends { state.number + 1 } else { u64::MAX };
		state.made = state.number;
		drop(state);
		Sleep { turns: Arc::clone(self), until }
	}

	/// The loop has gone to sleep.
	pub(super) fn sleeps(&self) {
		let mut state = self.lock();
		state.slept = state.made;
		self.changed.notify_all();
	}

	/// The loop has made a pass.
	pub(super) fn passed(&self) {
		self.lock().passes += 1;
		self.changed.notify_all();
	}

	pub(super) fn passes(&self) -> u64 {
		self.lock().passes
	}

	/// The loop has ended.
	pub(super) fn end(&self, ended: Ended) {
		self.lock().ended.get_or_insert(ended);
		self.changed.notify_all();
	}

	/// Waits until the loop sleeps in this turn, or has ended.
	pub(super) fn wait_for_sleep(&self, turn: u64) -> Option<Ended> {
		self.wait_until(|state| state.slept >= turn)
	}

	/// Waits until the loop has made so many passes, or has ended.
	pub(super) fn wait_for_pass(&self, passes: u64) -> Option<Ended> {
		self.wait_until(|state| state.passes >= passes)
	}

	fn wait_until(&self, is_done: impl Fn(&State) -> bool) -> Option<Ended> {
		let waits = |state: &mut State| state.ended.is_none() && !is_done(state);
		let waited = self.changed.wait_timeout_while(self.lock(), HANGS_AFTER, waits);
		let (state, timeout) = waited.unwrap_or_else(|e| e.into_inner());
		assert!(!timeout.timed_out(), "the background processor hangs");
		state.ended.clone()
	}

	fn lock(&self) -> MutexGuard<'_, State> {
		self.state.lock().unwrap_or_else(|e| e.into_inner())
	}
}

/// Ends with a turn, and never says that the loop is to end.
pub(super) struct Sleep {
	turns: Arc<Turns>,
	until: u64,
}

impl Future for Sleep {
	type Output = bool;

	fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
		let mut state = self.turns.lock();
		if state.number >= self.until {
			return Poll::Ready(false);
		}
		if self.until != u64::MAX {
			state.sleeping.push(context.waker().clone());
		}
		Poll::Pending
	}
}

/// Tells of the end of a loop that runs elsewhere, by being dropped with it.
pub(super) struct TellsEnd(pub(super) Arc<Turns>);

impl Drop for TellsEnd {
	fn drop(&mut self) {
		self.0.end(match std::thread::panicking() {
			true => Ended::Panic(panics::last().map(|last| last.message).unwrap_or_default()),
			false => Ended::Error,
		});
	}
}
