// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! One caller at a time for each request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leyden_store::{sharing, Store};
use parking_lot::{Condvar, Mutex};

use crate::records;

/// Different requests that may run at once.
pub(crate) const MAX_FLIGHTS: usize = 4096;

/// The requests that are being carried out, by any handle over one store.
#[derive(Default)]
pub(crate) struct Flights {
	running: Mutex<HashMap<[u8; 64], Arc<Landing>>>,
	/// Kept, so that no other store gets its address.
	_store: Option<Arc<dyn Store>>,
}

#[derive(Default)]
struct Landing {
	over: Mutex<bool>,
	changed: Condvar,
}

/// Somebody else is at the same request.
pub struct InFlight(Arc<Landing>);

/// Holds a request; lets go of it when dropped, also by a panic.
pub(crate) struct Flight {
	flights: Arc<Flights>,
	hash: [u8; 64],
	landing: Arc<Landing>,
}

pub(crate) enum Entered {
	Alone(Flight),
	Behind(InFlight),
	Full,
}

impl Flights {
	/// Returns the flights of all handles over this store.
	pub(crate) fn of(store: &Arc<dyn Store>) -> Arc<Self> {
		let open = || -> Result<Self, Infallible> {
			Ok(Self { running: Mutex::default(), _store: Some(Arc::clone(store)) })
		};
		let Ok(flights) = sharing::shared(store, &records::place(), open);
		flights
	}

	pub(crate) fn enter(self: &Arc<Self>, hash: [u8; 64]) -> Entered {
		let mut flights = self.running.lock();
		if let Some(landing) = flights.get(&hash) {
			return Entered::Behind(InFlight(Arc::clone(landing)));
		}
		if flights.len() >= MAX_FLIGHTS {
			return Entered::Full;
		}
		let landing = Arc::<Landing>::default();
		flights.insert(hash, Arc::clone(&landing));
		Entered::Alone(Flight { flights: Arc::clone(self), hash, landing })
	}

	pub(crate) fn has(&self, hash: &[u8; 64]) -> bool {
		self.running.lock().contains_key(hash)
	}

	pub(crate) fn running(&self) -> usize {
		self.running.lock().len()
	}
}

impl InFlight {
	/// Waits until they are done, or gone; `false` if they are not by then. Ask again after that.
	pub fn wait(&self, at_most: Duration) -> bool {
		let until = Instant::now() + at_most;
		let mut over = self.0.over.lock();
		while !*over {
			if self.0.changed.wait_until(&mut over, until).timed_out() {
				return *over;
			}
		}
		true
	}
}

impl Drop for Flight {
	fn drop(&mut self) {
		self.flights.running.lock().remove(&self.hash);
		*self.landing.over.lock() = true;
		self.landing.changed.notify_all();
	}
}

impl fmt::Debug for InFlight {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("InFlight")
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use std::sync::mpsc;

	#[test]
	fn who_waits_is_woken() {
		let flights = Arc::new(Flights::default());
		let Entered::Alone(flight) = flights.enter([1; 64]) else { panic!("nobody is at it") };
		let landing = Arc::clone(&flight.landing);
		let (tell, told) = mpsc::channel();
		for _ in 0..8 {
			let Entered::Behind(in_flight) = flights.enter([1; 64]) else { panic!("we are at it") };
			let tell = tell.clone();
			std::thread::spawn(move || tell.send(in_flight.wait(Duration::from_secs(3600))));
		}
		// Woken for nothing, they wait on: that is how it is known that all of them do.
		while landing.changed.notify_all() < 8 {
			std::thread::yield_now();
		}
		(0..10_000).for_each(|_| std::thread::yield_now());
		drop(flight);
		for _ in 0..8 {
			assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(true));
		}
		assert_eq!(flights.running(), 0);
	}
}
