// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The listener that hears, in this process, what is appended to a log and acked.

use std::sync::{Arc, Weak};

use leyden_id::EventKind;
use parking_lot::Mutex;

use crate::types::LogIndex;

/// A listener for the appends and the consumers of a log, as far as they are made by handles of
/// this log in this process.
///
/// The methods run on the thread that commits. They must be quick, must not call the store or the
/// log, and must not take a lock that is held by a thread which waits for a commit.
pub trait LogObserver: Send + Sync {
	/// Hears that an entry is durable. No consumer of this process has it yet.
	fn appended(&self, index: LogIndex, kind: &EventKind);

	/// Hears that a consumer exists, which has acked everything up to `watermark` (0 if nothing).
	fn opened(&self, consumer: &str, watermark: u64);

	/// Hears that a consumer was removed, renamed or reset: what was heard of it counts no more.
	fn removed(&self, consumer: &str) {
		let _ = consumer;
	}

	/// Hears that an entry is a dead letter of a consumer, durably: an operator has to look at it.
	fn parked(&self, consumer: &str, index: LogIndex, reason: &str) {
		let _ = (consumer, index, reason);
	}

	/// Hears that a consumer is paused, when that is said and when it is opened, or that it was resumed.
	fn paused(&self, consumer: &str, is_paused: bool) {
		let _ = (consumer, is_paused);
	}

	/// Hears that a consumer has acked these entries, durably.
	fn acked(&self, consumer: &str, indices: &[LogIndex]);
}

/// The observers of one log. They are kept by others: an observer may hold the log, and a log that
/// held its observer would never be closed.
#[derive(Default)]
pub(crate) struct Observers(Mutex<Vec<Weak<dyn LogObserver>>>);

impl Observers {
	pub(crate) fn add(&self, observer: &Arc<dyn LogObserver>) {
		let mut observers = self.0.lock();
		observers.retain(|observer| observer.strong_count() > 0);
		observers.push(Arc::downgrade(observer));
	}

	pub(crate) fn appended(&self, index: LogIndex, kind: &EventKind) {
		self.each(|observer| observer.appended(index, kind));
	}

	pub(crate) fn opened(&self, consumer: &str, watermark: u64) {
		self.each(|observer| observer.opened(consumer, watermark));
	}

	pub(crate) fn removed(&self, consumer: &str) {
		self.each(|observer| observer.removed(consumer));
	}

	pub(crate) fn parked(&self, consumer: &str, index: LogIndex, reason: &str) {
		self.each(|observer| observer.parked(consumer, index, reason));
	}

	pub(crate) fn paused(&self, consumer: &str, is_paused: bool) {
		self.each(|observer| observer.paused(consumer, is_paused));
	}

	pub(crate) fn acked(&self, consumer: &str, indices: &[u64]) {
		if !self.0.lock().is_empty() {
			let indices: Vec<_> =
				indices.iter().filter_map(|index| LogIndex::new(*index)).collect();
			self.each(|observer| observer.acked(consumer, &indices));
		}
	}

	fn each(&self, tell: impl Fn(&dyn LogObserver)) {
		// The last handle of an observer may be dropped here, and takes no lock then.
		let alive: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
		alive.iter().for_each(|observer| tell(&**observer));
	}
}
