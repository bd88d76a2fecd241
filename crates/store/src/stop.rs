// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The switch that ends the loops of a program.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A switch that ends the runs which it was given to. Cheap to clone; all clones are one.
///
/// A run looks at it between two pieces of work, and sleeps on it: [`stop`](Stop::stop) wakes it up.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
	stopped: Mutex<bool>,
	changed: Condvar,
}

impl Stop {
	/// Makes a switch that nobody has used.
	pub fn new() -> Self {
		Self::default()
	}

	/// Ends the runs, each after the piece of work that it is doing.
	pub fn stop(&self) {
		*self.0.stopped.lock() = true;
		self.0.changed.notify_all();
	}

	/// Returns `true` if the runs end or have ended.
	pub fn is_stopped(&self) -> bool {
		*self.0.stopped.lock()
	}

	/// Blocks this thread for this time, or until the runs end. Returns [`is_stopped`](Stop::is_stopped).
	pub fn wait(&self, at_most: Duration) -> bool {
		let mut stopped = self.0.stopped.lock();
		if !*stopped {
			self.0.changed.wait_for(&mut stopped, at_most);
		}
		*stopped
	}
}

impl fmt::Debug for Stop {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("Stop").field("is_stopped", &self.is_stopped()).finish()
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn a_run_that_waits_is_woken_up() {
		let stop = Stop::new();
		assert!(!stop.wait(Duration::ZERO));
		let waiting = stop.clone();
		let run = std::thread::spawn(move || while !waiting.wait(Duration::from_secs(3_600)) {});
		stop.stop();
		run.join().unwrap();
		assert!(stop.is_stopped() && stop.wait(Duration::from_secs(3_600)));
	}
}
