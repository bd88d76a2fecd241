// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The file below redb: redb's own, and a count of its flushes.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// What is counted, and what is to fail.
#[derive(Debug, Default)]
pub(super) struct Watch {
	flushes: AtomicU64,
	fail: AtomicBool,
}

impl Watch {
	pub(super) fn flushes(&self) -> u64 {
		self.flushes.load(Ordering::Relaxed)
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn fail_next_flush(&self) {
		self.fail.store(true, Ordering::Relaxed);
	}
}

#[derive(Debug)]
pub(super) struct WatchedFile {
	pub(super) file: FileBackend,
	pub(super) watch: Arc<Watch>,
}

impl StorageBackend for WatchedFile {
	fn len(&self) -> io::Result<u64> {
		self.file.len()
	}

	fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
		self.file.read(offset, out)
	}

	fn set_len(&self, len: u64) -> io::Result<()> {
		self.file.set_len(len)
	}

	fn sync_data(&self) -> io::Result<()> {
		self.watch.flushes.fetch_add(1, Ordering::Relaxed);
		if self.watch.fail.swap(false, Ordering::Relaxed) {
			return Err(io::Error::other("injected"));
		}
		self.file.sync_data()
	}

	fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
		self.file.write(offset, data)
	}

	fn close(&self) -> io::Result<()> {
		self.file.close()
	}

	fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
		self.file.try_lock_range(start, end)
	}

	fn try_lock_shared_range(
		&self, start: Bound<u64>, end: Bound<u64>,
	) -> Result<bool, BackendError> {
		self.file.try_lock_shared_range(start, end)
	}

	fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
		self.file.lock_range(start, end)
	}

	fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
		self.file.lock_shared_range(start, end)
	}

	fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
		self.file.unlock_range(start, end)
	}

	fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
		self.file.query_lock_range(start, end)
	}
}
