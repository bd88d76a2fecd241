// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The gate between the bus and what makes monitors durable.
//!
//! # The rule
//! From the moment at which the monitors are asked for their events until these are logged, the
//! events are in memory only: they are *in limbo*. No monitor may become durable without events of
//! its own that are in limbo, or a crash loses them.
//!
//! # Who may wait for whom
//! `ChainMonitor` persists a monitor with the monitor's list of pending updates locked, and
//! `release_pending_monitor_events` locks the same list. So nothing inside of a persister may wait
//! for a release. What keeps the rule instead depends on how the chain monitor works:
//!
//! - *Synchronous.* Updates are persisted inside of the bus's calls. A release begins only when no
//!   such call is under way and no monitor is being persisted; otherwise it takes nothing and comes
//!   again. An update that comes while one is under way waits for it: a release does no more than
//!   take and log. Blocks need not wait, since what they persist may be left out.
//! - *Deferred.* Updates are queued, and persisted by `ChainMonitor::flush` on the thread that has
//!   written the manager. Only that thread takes events, so that the two never meet.
//! - *Asynchronous.* Persisting is a write to a `KVStore`; one that is asked for while events are in
//!   limbo is begun when they are logged, in its turn.
//!
//! The gate learns by itself which of these it is: whether a persister or a store is guarded, and
//! whether an update was persisted in the very call. A chain monitor with neither is kept apart
//! from releases as a whole, blocks included.

use std::cell::Cell;
use std::sync::OnceLock;
use std::task::Waker;
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Releases in a row that give way to a call that is under way. Then one waits, as it does with
/// LDK alone.
pub(crate) const MAX_REFUSED_RELEASES: u32 = 64;

thread_local! {
	/// Monitors that were persisted on this thread, so that a call knows whether it did.
	static PERSISTED: Cell<u64> = const { Cell::new(0) };
}

#[derive(Default)]
pub(crate) struct Gate {
	state: Mutex<State>,
	changed: Condvar,
	/// Tells whether monitors may be archived now.
	may_archive: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

#[derive(Default)]
struct State {
	guards: Guards,
	/// `true` if the chain monitor queues updates; `None` until that is known.
	is_deferred: Option<bool>,
	/// The thread that has written the manager.
	flusher: Option<ThreadId>,
	/// Events were taken, or are being taken, and are not logged.
	in_limbo: bool,
	/// A release is under way.
	releasing: bool,
	/// It is asking the monitors.
	taking: bool,
	/// A release waits for the calls that are under way.
	draining: bool,
	/// Calls through the bus that may persist a monitor.
	passing: usize,
	/// Monitors that are being persisted.
	persisting: usize,
	/// Releases that gave way, in a row.
	refused: u32,
	/// Writes of monitors that wait until nothing is in limbo.
	deferred_writes: usize,
	wakers: Vec<Waker>,
}

/// The part of the chain monitor's persistence that the gate sees.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Guards {
	#[default]
	Nothing,
	Persister,
	Store,
}

/// A call through the bus.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Call {
	/// A new monitor, or an update.
	Update,
	/// A block, or what LDK takes for one.
	Block,
}

/// A release that is under way.
pub(crate) struct Release<'a>(&'a Gate);

/// A call that is under way.
pub(crate) struct Passing<'a> {
	gate: &'a Gate,
	is_counted: bool,
	/// The thread's count of persisted monitors before an update.
	persisted: Option<u64>,
}

/// The permission to persist a monitor.
pub(crate) enum MayPersist<'a> {
	Now(Persisting<'a>),
	/// Events are in limbo, and the chain has what the monitor would lose.
	LeaveOut,
	/// Events are in limbo and cannot be logged.
	Refuse,
}

/// A monitor that is being persisted.
pub(crate) struct Persisting<'a>(&'a Gate);

impl Gate {
	pub(crate) fn guards_persister(&self) {
		self.state.lock().guards = Guards::Persister;
	}

	pub(crate) fn guards_store(&self) {
		self.state.lock().guards = Guards::Store;
	}

	/// The manager is being written on this thread, which flushes what waits for that.
	pub(crate) fn manager_written(&self) {
		self.state.lock().flusher = Some(thread::current().id());
	}

	/// Sets who says whether monitors may be archived.
	pub(crate) fn archives_if(&self, may: impl Fn() -> bool + Send + Sync + 'static) {
		let _ = self.may_archive.set(Box::new(may));
	}

	pub(crate) fn may_archive(&self) -> bool {
		self.may_archive.get().is_none_or(|may| may())
	}

	/// Begins a release; `None` if it has to come again. The caller sees to it that there is one at
	/// a time.
	pub(crate) fn release(&self) -> Option<Release<'_>> {
		let mut state = self.state.lock();
		debug_assert!(!state.releasing, "one release at a time");
		match (state.guards, state.is_deferred) {
			(Guards::Store, _) => {},
			(Guards::Persister, Some(true)) => {
				if state.flusher.is_some_and(|flusher| flusher != thread::current().id()) {
					return None;
				}
			},
			(Guards::Persister, _) => {
				if state.is_busy() && state.refused < MAX_REFUSED_RELEASES {
					state.refused += 1;
					return None;
				}
				self.drain(&mut state);
			},
			(Guards::Nothing, _) => self.drain(&mut state),
		}
		state.refused = 0;
		state.in_limbo = true;
		state.releasing = true;
		state.taking = true;
		Some(Release(self))
	}

	/// Begins a call through the bus, once no release is under way that it could harm.
	pub(crate) fn pass(&self, call: Call) -> Passing<'_> {
		let mut state = self.state.lock();
		let is_counted = match (state.guards, call) {
			(Guards::Nothing, _) => true,
			(Guards::Persister, Call::Update) => state.is_deferred != Some(true),
			(Guards::Persister, Call::Block) | (Guards::Store, _) => false,
		};
		if is_counted {
			while state.releasing || state.draining {
				self.changed.wait(&mut state);
			}
			state.passing += 1;
		}
		let learns = state.guards == Guards::Persister && state.is_deferred.is_none();
		let persisted = (learns && call == Call::Update).then(|| PERSISTED.get());
		Passing { gate: self, is_counted, persisted }
	}

	/// Returns `true` if this call must not go on while events are in limbo.
	pub(crate) fn holds_up(&self, call: Call) -> bool {
		let state = self.state.lock();
		state.in_limbo
			&& match (state.guards, call) {
				(Guards::Nothing, _) => true,
				(Guards::Persister, Call::Update) => state.is_deferred != Some(true),
				(Guards::Persister, Call::Block) | (Guards::Store, _) => false,
			}
	}

	/// Everything that was taken is logged.
	pub(crate) fn logged(&self) {
		let mut state = self.state.lock();
		state.in_limbo = false;
		self.tell(state);
	}

	/// The monitors were asked; what they gave is being logged. Until [`logged`](Gate::logged) the
	/// release needs no lock of LDK's.
	pub(crate) fn taken(&self) {
		let mut state = self.state.lock();
		state.taking = false;
		self.tell(state);
	}

	/// Begins to persist a monitor, which a block may leave out.
	pub(crate) fn persist(&self, may_be_left_out: bool) -> MayPersist<'_> {
		let mut state = self.state.lock();
		if state.in_limbo && may_be_left_out {
			return MayPersist::LeaveOut;
		}
		// A flush on another thread than the one that writes the manager. While the monitors are
		// being asked it cannot wait, since it holds a lock that asking needs.
		while state.in_limbo && state.releasing && !state.taking {
			self.changed.wait(&mut state);
		}
		if state.in_limbo && !state.releasing {
			return MayPersist::Refuse;
		}
		state.persisting += 1;
		PERSISTED.set(PERSISTED.get() + 1);
		MayPersist::Now(Persisting(self))
	}

	/// Begins to persist a monitor that is not among the monitors yet: none of its events can have
	/// been taken.
	pub(crate) fn persist_new(&self) -> Persisting<'_> {
		self.state.lock().persisting += 1;
		PERSISTED.set(PERSISTED.get() + 1);
		Persisting(self)
	}

	/// Returns `true` if a write of a monitor has to wait. Such a write counts until
	/// [`write_begun`](Gate::write_begun).
	pub(crate) fn defers_write(&self) -> bool {
		let mut state = self.state.lock();
		let defers = state.in_limbo || state.deferred_writes > 0;
		if defers {
			state.deferred_writes += 1;
		}
		defers
	}

	/// Returns `true` if a write that was deferred may begin; otherwise `waker` is woken later.
	pub(crate) fn may_write(&self, waker: &Waker) -> bool {
		let mut state = self.state.lock();
		let is_known = state.wakers.iter().any(|known| known.will_wake(waker));
		if state.in_limbo && !is_known {
			state.wakers.push(waker.clone());
		}
		!state.in_limbo
	}

	/// A write that was deferred was begun, or given up.
	pub(crate) fn write_begun(&self) {
		self.state.lock().deferred_writes -= 1;
	}

	/// Waits until no call is under way, with all others waiting behind.
	fn drain(&self, state: &mut MutexGuard<'_, State>) {
		state.draining = true;
		while state.is_busy() {
			self.changed.wait(state);
		}
		state.draining = false;
	}

	fn tell(&self, mut state: MutexGuard<'_, State>) {
		let wakers = std::mem::take(&mut state.wakers);
		drop(state);
		self.changed.notify_all();
		wakers.into_iter().for_each(Waker::wake);
	}
}

impl State {
	fn is_busy(&self) -> bool {
		self.passing > 0 || self.persisting > 0
	}
}

impl Drop for Release<'_> {
	fn drop(&mut self) {
		let mut state = self.0.state.lock();
		state.releasing = false;
		state.taking = false;
		self.0.tell(state);
	}
}

impl Passing<'_> {
	/// The call did not get as far as persisting, so that it tells nothing about the mode.
	pub(crate) fn tells_nothing(&mut self) {
		self.persisted = None;
	}
}

impl Drop for Passing<'_> {
	fn drop(&mut self) {
		let mut state = self.gate.state.lock();
		if let Some(before) = self.persisted {
			// An update that was not persisted in its call was queued.
			state.is_deferred = Some(PERSISTED.get() == before);
		}
		if self.is_counted {
			state.passing -= 1;
		}
		self.gate.tell(state);
	}
}

impl Drop for Persisting<'_> {
	fn drop(&mut self) {
		let mut state = self.0.state.lock();
		state.persisting -= 1;
		self.0.tell(state);
	}
}

#[cfg(test)]
mod tests {
	use std::sync::mpsc::channel;
	use std::sync::Arc;

	use super::*;

	struct Unmoved;

	impl std::task::Wake for Unmoved {
		fn wake(self: Arc<Self>) {}
	}

	fn synchronous() -> Arc<Gate> {
		let gate = Arc::new(Gate::default());
		gate.guards_persister();
		// An update that is persisted in its call.
		let passing = gate.pass(Call::Update);
		assert!(matches!(gate.persist(false), MayPersist::Now(_)));
		drop(passing);
		gate
	}

	fn deferred() -> Arc<Gate> {
		let gate = Arc::new(Gate::default());
		gate.guards_persister();
		// One that is queued.
		drop(gate.pass(Call::Update));
		gate
	}

	fn asynchronous() -> Arc<Gate> {
		let gate = Arc::new(Gate::default());
		gate.guards_store();
		gate
	}

	/// Lets other threads run, so that one that does not wait has done what it was started for.
	fn give_way() {
		(0..10_000).for_each(|_| thread::yield_now());
	}

	/// L11: a monitor takes long to be persisted. Neither a release nor another update waits.
	#[test]
	fn nothing_waits_for_a_monitor_that_is_being_persisted() {
		let gate = synchronous();
		// A block.
		let block = gate.pass(Call::Block);
		let MayPersist::Now(persisting) = gate.persist(true) else { panic!("nothing is in limbo") };
		assert!(gate.release().is_none(), "it comes again");
		drop(gate.pass(Call::Update));
		drop((persisting, block));
		assert!(gate.release().is_some());
	}

	#[test]
	fn a_release_that_gave_way_often_waits_for_what_is_under_way() {
		let gate = synchronous();
		let update = gate.pass(Call::Update);
		for _ in 0..MAX_REFUSED_RELEASES {
			assert!(gate.release().is_none());
		}
		let (done, taken) = channel();
		let other = Arc::clone(&gate);
		let thread = thread::spawn(move || {
			drop(other.release().expect("in the end"));
			done.send(()).unwrap();
		});
		give_way();
		assert!(taken.try_recv().is_err());
		drop(update);
		taken.recv().unwrap();
		thread.join().unwrap();
	}

	#[test]
	fn an_update_waits_for_a_release_if_it_persists_in_its_call() {
		let gate = synchronous();
		let release = gate.release().unwrap();
		let (done, passed) = channel();
		let other = Arc::clone(&gate);
		let thread = thread::spawn(move || {
			drop(other.pass(Call::Update));
			done.send(()).unwrap();
		});
		give_way();
		assert!(passed.try_recv().is_err());
		gate.taken();
		gate.logged();
		drop(release);
		passed.recv().unwrap();
		thread.join().unwrap();
	}

	/// A peer can make LDK watch a channel whose id is taken, which the chain monitor refuses.
	#[test]
	fn a_call_that_was_refused_tells_nothing_about_the_mode() {
		let gate = Arc::new(Gate::default());
		gate.guards_persister();
		let mut refused = gate.pass(Call::Update);
		refused.tells_nothing();
		drop(refused);
		let _release = gate.release().unwrap();
		assert!(gate.holds_up(Call::Update), "updates are kept apart until the mode is known");
	}

	/// L5: what a block wants persisted is left out while events are in limbo, also if they cannot
	/// be logged; an update is then refused.
	#[test]
	fn nothing_is_persisted_ahead_of_events_in_limbo() {
		for gate in [synchronous(), deferred()] {
			let release = gate.release().unwrap();
			assert!(matches!(gate.persist(true), MayPersist::LeaveOut));
			gate.taken();
			assert!(matches!(gate.persist(true), MayPersist::LeaveOut));
			drop(release);
			// The log has failed.
			assert!(matches!(gate.persist(true), MayPersist::LeaveOut));
			assert!(matches!(gate.persist(false), MayPersist::Refuse));
			gate.logged();
			assert!(matches!(gate.persist(true), MayPersist::Now(_)));
			assert!(matches!(gate.persist(false), MayPersist::Now(_)));
		}
	}

	/// L5: `flush` runs on the thread that has written the manager, so that only this one takes.
	#[test]
	fn a_deferred_monitor_is_asked_on_the_thread_that_flushes() {
		let gate = deferred();
		// Before the first write there is nothing to flush.
		let on_another_thread = |gate: &Arc<Gate>| {
			let gate = Arc::clone(gate);
			thread::spawn(move || gate.release().is_some()).join().unwrap()
		};
		assert!(on_another_thread(&gate));
		gate.manager_written();
		assert!(!on_another_thread(&gate));
		assert!(gate.release().is_some());
		// No other mode has such a thread.
		let gate = synchronous();
		gate.manager_written();
		assert!(on_another_thread(&gate));
	}

	/// A flush on yet another thread waits until what was taken is logged.
	#[test]
	fn a_flush_elsewhere_waits_for_the_log() {
		let gate = deferred();
		let release = gate.release().unwrap();
		gate.taken();
		let (done, persisted) = channel();
		let other = Arc::clone(&gate);
		let thread = thread::spawn(move || {
			assert!(matches!(other.persist(false), MayPersist::Now(_)));
			done.send(()).unwrap();
		});
		give_way();
		assert!(persisted.try_recv().is_err());
		gate.logged();
		drop(release);
		persisted.recv().unwrap();
		thread.join().unwrap();
	}

	#[test]
	fn updates_that_are_queued_never_wait() {
		for gate in [deferred(), asynchronous()] {
			let release = gate.release().unwrap();
			drop(gate.pass(Call::Update));
			drop(gate.pass(Call::Block));
			assert!(!gate.holds_up(Call::Update) && !gate.holds_up(Call::Block));
			drop(release);
		}
	}

	#[test]
	fn a_write_of_a_monitor_waits_while_events_are_in_limbo_and_for_those_before_it() {
		let gate = asynchronous();
		assert!(!gate.defers_write());
		let release = gate.release().unwrap();
		assert!(gate.defers_write());
		let waker = Waker::from(Arc::new(Unmoved));
		assert!(!gate.may_write(&waker));
		// A task may ask any number of times, and is woken once.
		assert!(!gate.may_write(&waker));
		assert_eq!(gate.state.lock().wakers.len(), 1);
		gate.logged();
		drop(release);
		assert!(gate.may_write(Waker::noop()));
		assert!(gate.defers_write(), "the first has not begun");
		gate.write_begun();
		gate.write_begun();
		assert!(!gate.defers_write());
	}

	/// A chain monitor whose persistence is not guarded: blocks wait as well.
	#[test]
	fn without_a_guard_everything_is_kept_apart() {
		let gate = Arc::new(Gate::default());
		let release = gate.release().unwrap();
		assert!(gate.holds_up(Call::Block) && gate.holds_up(Call::Update));
		let (done, passed) = channel();
		let other = Arc::clone(&gate);
		let thread = thread::spawn(move || {
			drop(other.pass(Call::Block));
			done.send(()).unwrap();
		});
		give_way();
		assert!(passed.try_recv().is_err());
		gate.logged();
		drop(release);
		passed.recv().unwrap();
		thread.join().unwrap();
	}
}
