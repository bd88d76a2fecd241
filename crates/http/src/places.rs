// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Places for connections. Their number is limited, and the connection that has waited longest for its peer
//! gives way to a new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The places of a server.
pub(crate) struct Places {
	free: Arc<Semaphore>,
	waiting: Mutex<Waiting>,
	/// Notice that a connection has begun to wait for its peer.
	has_begun: Notify,
}

/// Connections that wait for their peers, in the order in which they began to wait.
#[derive(Default)]
struct Waiting {
	next: u64,
	since: BTreeMap<u64, Arc<Notify>>,
}

/// A place of one connection, which waits for its peer from the beginning.
pub(crate) struct Place {
	places: Arc<Places>,
	/// The number under which the connection waits for its peer.
	waits: Mutex<Option<u64>>,
	gives_way: Arc<Notify>,
	_permit: OwnedSemaphorePermit,
}

impl Places {
	pub(crate) fn new(places: usize) -> Arc<Self> {
		let free = Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
		Arc::new(Self { free, waiting: Mutex::default(), has_begun: Notify::new() })
	}

	/// Takes a place. If there is none, the connection that has waited longest for its peer is told to
	/// give way. If no connection waits for its peer, all of them are being answered; then the future waits
	/// for the first that is.
	pub(crate) async fn take(self: &Arc<Self>) -> Place {
		loop {
			// Listens before it looks, so that a connection that begins to wait in between is noticed.
			let mut has_begun = std::pin::pin!(self.has_begun.notified());
			has_begun.as_mut().enable();
			if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
				return self.place(permit);
			}
			let is_told = self.let_one_give_way();
			tokio::select! {
				Ok(permit) = Arc::clone(&self.free).acquire_owned() => return self.place(permit),
				() = has_begun, if !is_told => {},
			}
		}
	}

	fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
		let (places, gives_way) = (Arc::clone(self), Arc::default());
		let place = Place { places, waits: Mutex::default(), gives_way, _permit: permit };
		place.wait();
		place
	}

	/// Returns whether there was a connection that waits for its peer.
	fn let_one_give_way(&self) -> bool {
		let first = self.waiting.lock().since.pop_first();
		first.map(|(_, gives_way)| gives_way.notify_one()).is_some()
	}
}

impl Place {
	/// Notes that the connection waits for its peer: for a request, for a body, or for its answer to be
	/// read.
	pub(crate) fn wait(&self) {
		let mut waits = self.waits.lock();
		if waits.is_none() {
			let mut waiting = self.places.waiting.lock();
			let number = waiting.next;
			waiting.next += 1;
			waiting.since.insert(number, Arc::clone(&self.gives_way));
			*waits = Some(number);
			drop(waiting);
			self.places.has_begun.notify_waiters();
		}
	}

	/// Notes that the peer has sent its part, and waits for this side.
	pub(crate) fn work(&self) {
		if let Some(number) = self.waits.lock().take() {
			self.places.waiting.lock().since.remove(&number);
		}
	}

	/// Resolves when the connection is to give way.
	pub(crate) async fn gives_way(&self) {
		self.gives_way.notified().await;
	}
}

impl Drop for Place {
	fn drop(&mut self) {
		self.work();
	}
}
