// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Group commit: requests wait in a queue, and the thread that has the engine takes all of them at
//! once.
//!
//! A thread that waits for its ticket takes the engine itself if it is free, so that one thread
//! alone pays for no other to wake up. Requests that no thread waits for (a task polls the ticket,
//! or it was dropped) are done by the commit thread, and so is what piles up while another thread
//! has the engine: each helper does one group and leaves the rest to the commit thread. A medium
//! may ask for the commit thread to do everything ([`Medium::takes_help`]).
//!
//! A read gets into the queue only if no thread waits for it, or nothing else can read; see
//! [`reads`](super::reads).
//!
//! # Panics of others
//! A hook that panics is caught, and the observers are told; its ticket is completed all the same.
//! A medium that panics ends the handle: it is not known what it has done.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::outage::{message_of, Outages, StoreEvent, StoreObserver};
use super::reads::{Read, Readers};
use super::{Blocking, Medium, Writer};
use crate::batch::{Batch, Hook};
use crate::committed::Committed;
use crate::error::StoreError;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::ticket::{Completer, Help, Ticket};

/// Requests that may wait. Whoever submits one more first does some of the work.
pub const MAX_WAITING: usize = 16_384;

/// Requests in one group.
const MAX_GROUP: usize = 1024;
/// Operations in one group, so that one transaction does not grow without end.
const MAX_GROUP_OPS: usize = 20_000;
/// Bytes of records in one group, or one batch if that is larger.
const MAX_GROUP_BYTES: usize = 64 << 20;

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
	/// Batches that were committed.
	pub batches: u64,
	/// Transactions that they were committed in.
	pub groups: u64,
	/// Transactions that ended with a flush; the others were lazy.
	pub flushes: u64,
	/// Reads that were done beside a thread that had the engine.
	pub reads_beside: u64,
}

pub(super) enum Job {
	Commit(Batch, Completer<Committed>),
	Read(Read),
}

pub(super) struct Shared<M> {
	queue: Mutex<Queue>,
	/// There is work for the thread, or it is to end.
	work: Condvar,
	/// The signal that the queue has room again.
	room: Condvar,
	/// `true` if threads that wait for their tickets do the work.
	pub(super) takes_help: bool,
	blocking: Option<Blocking>,
	outages: Outages,
	/// Taken before the queue's lock. `None` once the store is closed.
	pub(super) engine: Mutex<Option<Writer<M>>>,
	pub(super) readers: Readers<M>,
	/// The thread that has the engine.
	pub(super) user: Mutex<Option<ThreadId>>,
	batches: AtomicU64,
	groups: AtomicU64,
	flushes: AtomicU64,
}

#[derive(Default)]
struct Queue {
	jobs: VecDeque<Job>,
	/// Somebody wants the thread to do what is waiting.
	nudged: bool,
	closed: bool,
	/// `true` if the commit thread closes the medium when it ends.
	abandoned: bool,
}

impl<M: Medium> Shared<M> {
	pub(super) fn new(mut engine: Writer<M>) -> Self {
		let ended = engine.ended().clone();
		let medium = engine.medium();
		let (takes_help, blocking) = (medium.takes_help(), medium.blocking());
		let readers = Readers::new(medium.beside(), ended);
		Self {
			readers,
			queue: Mutex::default(),
			work: Condvar::new(),
			room: Condvar::new(),
			takes_help,
			blocking,
			outages: engine.outages().clone(),
			engine: Mutex::new(Some(engine)),
			user: Mutex::new(None),
			batches: AtomicU64::new(0),
			groups: AtomicU64::new(0),
			flushes: AtomicU64::new(0),
		}
	}

	pub(super) fn stats(&self) -> Stats {
		let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
		Stats {
			batches: read(&self.batches),
			groups: read(&self.groups),
			flushes: read(&self.flushes),
			reads_beside: self.readers.count(),
		}
	}

	/// Puts a request into the queue; their order is the order of these calls.
	pub(super) fn submit<T: 'static>(
		self: &Arc<Self>, job: impl FnOnce(Completer<T>) -> Job,
	) -> Ticket<T> {
		let (completer, ticket) = Ticket::pair_with_help(Arc::clone(self) as Arc<dyn Help>);
		self.push(job(completer));
		ticket
	}

	/// Puts a request into the queue, once there is room. A store that is closed has no thread that
	/// would do it, and drops it: the ticket of a read may be waited for that late.
	pub(super) fn push(&self, job: Job) {
		// A hook would wait for itself.
		let is_hook = self.waits_for_this_thread();
		let mut queue = self.queue.lock();
		while queue.jobs.len() >= MAX_WAITING && !is_hook {
			drop(queue);
			if self.takes_help {
				self.group(self.engine.lock());
			} else {
				self.nudge();
				self.block(&mut || self.wait_for_room());
			}
			queue = self.queue.lock();
		}
		if !queue.closed {
			queue.jobs.push_back(job);
		}
	}

	fn wait_for_room(&self) {
		let mut queue = self.queue.lock();
		while queue.jobs.len() >= MAX_WAITING {
			self.room.wait(&mut queue);
		}
	}

	pub(super) fn add_observer(&self, observer: StoreObserver) {
		self.outages.add_observer(observer);
	}

	/// The commit thread.
	pub(super) fn work(&self) {
		loop {
			let mut queue = self.queue.lock();
			while !queue.nudged && !queue.closed {
				self.work.wait(&mut queue);
			}
			let (last, abandoned) = (queue.closed, queue.abandoned);
			queue.nudged = false;
			drop(queue);
			while self.has_work() {
				self.group(self.engine.lock());
			}
			if last {
				if abandoned {
					self.release();
				}
				return;
			}
		}
	}

	/// Ends the commit thread once the queue is empty. Returns whether the caller may wait for that
	/// and close the medium. A hook may not, since it runs on the thread that has the engine; then
	/// the commit thread closes the medium.
	pub(super) fn close(&self) -> bool {
		self.outages.close();
		let is_hook = *self.user.lock() == Some(thread::current().id());
		let mut queue = self.queue.lock();
		queue.closed = true;
		queue.abandoned = is_hook;
		drop(queue);
		self.work.notify_one();
		!is_hook
	}

	/// Closes the medium. Tickets may outlive the store.
	pub(super) fn release(&self) {
		// First: what is closed last tidies the files up, and that must be the one that writes.
		self.readers.close();
		self.engine.lock().take();
	}

	pub(super) fn with_writer<T>(&self, f: impl FnOnce(&mut Writer<M>) -> T) -> Option<T> {
		self.engine.lock().as_mut().map(f)
	}

	fn has_work(&self) -> bool {
		!self.queue.lock().jobs.is_empty()
	}

	/// Does what is waiting, up to one group.
	fn group(&self, mut engine: MutexGuard<'_, Option<Writer<M>>>) {
		let _using = Using::begin(&self.user);
		let mut commits: Vec<(Batch, Completer<Committed>)> = Vec::new();
		let mut reads = Vec::new();
		{
			let mut queue = self.queue.lock();
			let (mut ops, mut bytes) = (0, 0);
			while commits.len() + reads.len() < MAX_GROUP
				&& ops < MAX_GROUP_OPS
				&& bytes < MAX_GROUP_BYTES
			{
				match queue.jobs.pop_front() {
					Some(Job::Commit(batch, completer)) => {
						ops += batch.ops().len();
						bytes += batch.bytes();
						commits.push((batch, completer));
					},
					Some(Job::Read(read)) => reads.push(read),
					None => break,
				}
			}
			self.room.notify_all();
		}
		let Some(engine) = engine.as_mut() else {
			// Dropped with the lists: whoever waits hears that it is not known, and here it is
			// known not to have happened, but a store that is closed has no callers left.
			return;
		};
		// Reads first: they see what is durable, and nothing that these commits are about to write.
		for read in reads {
			answer(engine, read);
		}
		if commits.is_empty() {
			return;
		}
		let (batches, completers): (Vec<_>, Vec<_>) = commits.into_iter().unzip();
		let done = match guarded(engine, |engine| Ok(engine.commit(batches))) {
			Ok(done) => done,
			Err(error) => {
				completers.into_iter().for_each(|completer| completer.complete(Err(error.clone())));
				return;
			},
		};
		self.batches.fetch_add(done.answers.len() as u64, Ordering::Relaxed);
		self.groups.fetch_add(done.wrote, Ordering::Relaxed);
		self.flushes.fetch_add(done.flushed, Ordering::Relaxed);
		for (completer, (answer, hooks)) in completers.into_iter().zip(done.answers) {
			if let Ok(committed) = &answer {
				hooks.into_iter().for_each(|hook| self.run_hook(hook, committed));
			}
			completer.complete(answer);
		}
	}

	/// Runs a hook. Its panic is told to the observers, and keeps no caller waiting.
	fn run_hook(&self, hook: Hook, committed: &Committed) {
		if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(committed))) {
			let (place, message) = (self.outages.place().to_owned(), message_of(&*panic));
			self.outages.tell(&StoreEvent::HookPanicked { place, message });
		}
	}
}

/// Answers a read by the engine that writes.
pub(super) fn answer<M: Medium>(engine: &mut Writer<M>, read: Read) {
	match read {
		Read::Get(key, completer) => {
			completer.complete(guarded(engine, |engine| engine.get(&key)));
		},
		Read::Scan(range, limit, completer) => {
			completer.complete(guarded(engine, |engine| engine.scan(range, limit)));
		},
		Read::Raw(key, completer) => {
			completer.complete(guarded(engine, |engine| engine.get_raw(&key)));
		},
	}
}

/// The time in which a thread has the engine; ends before the engine's lock does.
pub(super) struct Using<'a>(&'a Mutex<Option<ThreadId>>);

impl<'a> Using<'a> {
	pub(super) fn begin(user: &'a Mutex<Option<ThreadId>>) -> Self {
		*user.lock() = Some(thread::current().id());
		Self(user)
	}
}

impl Drop for Using<'_> {
	fn drop(&mut self) {
		*self.0.lock() = None;
	}
}

/// Runs `f`. A panic ends the handle, since it is not known what the medium has done.
fn guarded<M: Medium, T>(
	engine: &mut Writer<M>, f: impl FnOnce(&mut Writer<M>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
	catch_unwind(AssertUnwindSafe(|| f(engine)))
		.unwrap_or_else(|panic| Err(engine.panicked(message_of(&*panic))))
}

impl<M: Medium> Help for Shared<M> {
	fn help(&self) {
		if self.takes_help {
			if let Some(engine) = self.engine.try_lock() {
				self.group(engine);
			}
		}
		// Whoever had the engine when we tried may have looked at the queue before we were in it.
		if self.has_work() {
			self.nudge();
		}
	}

	fn nudge(&self) {
		self.queue.lock().nudged = true;
		self.work.notify_one();
	}

	fn waits_for_this_thread(&self) -> bool {
		*self.user.lock() == Some(thread::current().id())
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		match &self.blocking {
			Some(blocking) => blocking(wait),
			None => wait(),
		}
	}
}
