// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Telling others in this process what is appended and acked.

use std::sync::Arc;

use leyden_id::EventKind;
use parking_lot::Mutex;

use crate::types::LogIndex;

/// Hears of appends and consumers of a log, as far as they are handles of this log in this process.
///
/// The methods run on the thread that commits. They must be quick, must not call the store or the
/// log, and must not take a lock that is held by a thread which waits for a commit.
pub trait LogObserver: Send + Sync {
	/// An entry is durable. No consumer of this process has it yet.
	fn appended(&self, index: LogIndex, kind: &EventKind);

	/// A consumer exists, which has acked everything up to `watermark` (0 if nothing).
	fn opened(&self, consumer: &str, watermark: u64);

	/// A consumer has acked these entries, durably.
	fn acked(&self, consumer: &str, indices: &[LogIndex]);
}

#[derive(Default)]
pub(crate) struct Observers(Mutex<Vec<Arc<dyn LogObserver>>>);

impl Observers {
	pub(crate) fn add(&self, observer: Arc<dyn LogObserver>) {
		self.0.lock().push(observer);
	}

	pub(crate) fn appended(&self, index: LogIndex, kind: &EventKind) {
		self.0.lock().iter().for_each(|observer| observer.appended(index, kind));
	}

	pub(crate) fn opened(&self, consumer: &str, watermark: u64) {
		self.0.lock().iter().for_each(|observer| observer.opened(consumer, watermark));
	}

	pub(crate) fn acked(&self, consumer: &str, indices: &[u64]) {
		let observers = self.0.lock();
		if !observers.is_empty() {
			let indices: Vec<_> =
				indices.iter().filter_map(|index| LogIndex::new(*index)).collect();
			observers.iter().for_each(|observer| observer.acked(consumer, &indices));
		}
	}
}
