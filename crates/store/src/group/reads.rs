// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Reads, which wait for no flush where the engine can read beside a write.
//!
//! A thread that waits for a read does it itself: by the engine if nobody has it, else by a medium
//! of its own ([`Medium::beside`]). Without one, and for tasks, which must not block, the read gets
//! into the queue like a commit.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::queue::{answer, Job, Shared, Using};
use super::writer::{self, Ended};
use super::{Beside, Medium};
use crate::error::StoreError;
use crate::key::{Key, KeyRange};
use crate::page::Page;
use crate::record::Record;
use crate::sync::{Condvar, Mutex};
use crate::ticket::{Completer, Help, Ticket};

/// The most media that are open for reads beside a write. Further readers wait with the commits.
const MAX_READERS: usize = 4;

/// A read, and where its answer goes.
pub(super) enum Read {
	Get(Key, Completer<Option<Record>>),
	Scan(KeyRange, usize, Completer<Page>),
	Raw(Key, Completer<Option<Vec<u8>>>),
}

/// The media for reads beside a write.
pub(super) struct Readers<M> {
	beside: Option<Beside<M>>,
	pool: Mutex<Pool<M>>,
	/// The signal that a medium was closed.
	gone: Condvar,
	ended: Ended,
	done: AtomicU64,
}

struct Pool<M> {
	idle: Vec<M>,
	open: usize,
	closed: bool,
}

impl<M: Medium> Readers<M> {
	pub(super) fn new(beside: Option<Beside<M>>, ended: Ended) -> Self {
		let pool = Mutex::new(Pool { idle: Vec::new(), open: 0, closed: false });
		Self { beside, pool, gone: Condvar::new(), ended, done: AtomicU64::new(0) }
	}

	/// # Errors
	/// [`StoreError::Poisoned`] if the handle has ended.
	pub(super) fn check_ended(&self) -> Result<(), StoreError> {
		self.ended.check()
	}

	/// Returns the number of reads that were done here.
	pub(super) fn count(&self) -> u64 {
		self.done.load(Ordering::Relaxed)
	}

	/// Closes all media, and waits for those that are in use: the file is free for others then.
	pub(super) fn close(&self) {
		let idle = {
			let mut pool = self.pool.lock();
			pool.closed = true;
			pool.open -= pool.idle.len();
			std::mem::take(&mut pool.idle)
		};
		drop(idle);
		let mut pool = self.pool.lock();
		while pool.open > 0 {
			self.gone.wait(&mut pool);
		}
	}

	/// Answers `read`, or gives it back: all media are in use, or none can be opened, or the one that
	/// was used failed. The engine that writes answers then, and its answer counts.
	fn answer(&self, read: Read) -> Result<(), Read> {
		let Some(mut medium) = self.take() else { return Err(read) };
		// The medium is back before the answer is given: whoever hears it may close the store.
		match read {
			Read::Get(key, completer) => {
				let found = self.guarded(|| writer::get(&mut medium, &key));
				self.put_back(medium, found.is_ok());
				match found {
					Ok(found) => completer.complete(Ok(found)),
					Err(_) => return Err(Read::Get(key, completer)),
				}
			},
			Read::Scan(range, limit, completer) => {
				let page = self.guarded(|| writer::scan(&mut medium, &range, limit));
				self.put_back(medium, page.is_ok());
				match page {
					Ok(page) => completer.complete(Ok(page)),
					Err(_) => return Err(Read::Scan(range, limit, completer)),
				}
			},
			Read::Raw(key, completer) => {
				let found = self.guarded(|| medium.read(&key));
				self.put_back(medium, found.is_ok());
				match found {
					Ok(found) => completer.complete(Ok(found)),
					Err(_) => return Err(Read::Raw(key, completer)),
				}
			},
		}
		self.done.fetch_add(1, Ordering::Relaxed);
		Ok(())
	}

	/// Runs a read. The handle must not have ended, and a panic is an error like any other here.
	fn guarded<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
		self.ended.check()?;
		catch_unwind(AssertUnwindSafe(read))
			.unwrap_or_else(|_| Err(StoreError::invalid("the medium panicked in a read")))
	}

	fn take(&self) -> Option<M> {
		let beside = self.beside.as_ref()?;
		{
			let mut pool = self.pool.lock();
			if pool.closed {
				return None;
			}
			if let Some(medium) = pool.idle.pop() {
				return Some(medium);
			}
			if pool.open >= MAX_READERS {
				return None;
			}
			pool.open += 1;
		}
		let opened = catch_unwind(AssertUnwindSafe(beside));
		if let Ok(Ok(medium)) = opened {
			return Some(medium);
		}
		self.is_gone();
		None
	}

	/// Takes a medium back, or closes it: it has failed, or the store is closed.
	fn put_back(&self, medium: M, is_good: bool) {
		if is_good {
			let mut pool = self.pool.lock();
			if !pool.closed {
				pool.idle.push(medium);
				return;
			}
		}
		drop(medium);
		self.is_gone();
	}

	fn is_gone(&self) {
		self.pool.lock().open -= 1;
		self.gone.notify_all();
	}
}

impl<M: Medium> Shared<M> {
	/// Makes the ticket of a read. Nothing is done before a thread waits for it or a task polls it.
	pub(super) fn read<T: 'static>(
		self: &Arc<Self>, read: impl FnOnce(Completer<T>) -> Read,
	) -> Ticket<T> {
		let help = Arc::new(ReadHelp { shared: Arc::clone(self), read: Mutex::new(None) });
		let (completer, ticket) = Ticket::pair_with_help(Arc::clone(&help) as Arc<dyn Help>);
		*help.read.lock() = Some(read(completer));
		ticket
	}
}

/// The help for the ticket of a read. The read is in here until somebody does it.
struct ReadHelp<M: Medium> {
	shared: Arc<Shared<M>>,
	read: Mutex<Option<Read>>,
}

impl<M: Medium> Help for ReadHelp<M> {
	fn help(&self) {
		let Some(read) = self.read.lock().take() else { return };
		let left = if self.shared.takes_help {
			match self.shared.engine.try_lock() {
				Some(mut engine) => {
					let _using = Using::begin(&self.shared.user);
					match engine.as_mut() {
						Some(engine) => return answer(engine, read),
						// Dropped: a store that is closed has no callers left.
						None => return,
					}
				},
				None => self.shared.readers.answer(read),
			}
		} else {
			Err(read)
		};
		if let Err(read) = left {
			self.shared.push(Job::Read(read));
			self.shared.help();
		}
	}

	fn nudge(&self) {
		let Some(read) = self.read.lock().take() else { return };
		self.shared.push(Job::Read(read));
		self.shared.nudge();
	}

	fn waits_for_this_thread(&self) -> bool {
		self.shared.waits_for_this_thread()
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		self.shared.block(wait);
	}
}
