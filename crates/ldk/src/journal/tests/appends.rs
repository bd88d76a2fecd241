// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Appends on their way to the disk: what waits for them, and what a store that fails does.

use std::sync::mpsc::{channel, Sender};
use std::time::Duration;

use leyden_store::ticket::Help;

use super::*;

/// The time after which a test counts as one that hangs.
const HANGS: Duration = Duration::from_secs(20);

/// The store refuses the append; the manager is not written before it is in the log.
#[test]
fn an_append_that_fails_holds_the_manager_up_and_is_tried_again() {
	let disk = Disk::new();
	let inner = Arc::new(disk.store());
	// The clock, the log and the tracker take three commits to be created.
	let store = Arc::new(FaultyStore::new(inner, Doom::at(3, Side::Before)));
	let run = disk.start_with(Ldk::default(), store, |journal, _| journal);
	// The end of no payment: nothing waits for it in the handler.
	run.tell(closed(1, 4, 1));
	let bytes = run.ldk.lock().encode();
	let (primary, secondary) = (
		CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
		CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
	);
	let key = CHANNEL_MANAGER_PERSISTENCE_KEY;
	assert!(run.persister.write(primary, secondary, key, bytes).is_err());
	assert!(disk.kv.read(primary, secondary, key).is_err(), "the manager was not written");
}

/// A store that does one commit and answers that it is away.
struct LateStore {
	inner: MemoryStore,
	is_late: AtomicBool,
}

impl Store for LateStore {
	fn commit(&self, mut batch: Batch) -> Ticket<Committed> {
		if !self.is_late.swap(false, Ordering::SeqCst) {
			return self.inner.commit(batch);
		}
		drop(batch.take_hooks());
		let _ = self.inner.commit(batch).wait();
		let source = Arc::new(std::io::Error::other("the answer came too late"));
		Ticket::ready(Err(StoreError::Unavailable { doing: "committing", source }))
	}

	leyden_testkit::forward_store!(inner);
}

/// A store that refuses commits while it is away.
struct AwayStore {
	inner: MemoryStore,
	is_away: AtomicBool,
}

impl Store for AwayStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		if self.is_away.load(Ordering::SeqCst) {
			let source: Arc<dyn std::error::Error + Send + Sync> = Arc::new(fmt::Error);
			return Ticket::ready(Err(StoreError::Unavailable { doing: "writing", source }));
		}
		self.inner.commit(batch)
	}

	leyden_testkit::forward_store!(inner);
}

/// The store was away when the events came: nothing is lost, and their order is kept.
#[test]
fn appends_that_failed_are_made_in_order_when_the_store_is_back() {
	let disk = Disk::new();
	let store = Arc::new(AwayStore { inner: disk.store(), is_away: AtomicBool::new(false) });
	let run = disk.start_with(Ldk::default(), Arc::<AwayStore>::clone(&store), |j, _| j);
	let away = |away| store.is_away.store(away, Ordering::SeqCst);
	away(true);
	run.tell(closed(1, 4, 1));
	assert!(run.persister.persist().is_err(), "LDK lets go of nothing");
	away(false);
	// Comes when the store is back, and must not overtake.
	run.tell(closed(2, 4, 2));
	run.persister.persist().unwrap();
	let entries = leyden_testkit::intact(run.log.read(run.log.start().unwrap(), 10).unwrap().0);
	let closes: Vec<_> = entries.iter().map(|e| decode_event(e.payload()).unwrap()).collect();
	assert_eq!(closes, [closed(1, 4, 1), closed(2, 4, 2)]);
}

/// The handler has written the event, and LDK is told to bring it again: in this run, it is one.
#[test]
fn an_end_whose_barrier_fails_is_one_entry_when_it_comes_again() {
	let disk = Disk::new();
	let works = Arc::new(AtomicBool::new(false));
	let allowed = Arc::clone(&works);
	let wire = move |journal: Journal, _: &_| {
		let persist: Persist = Box::new(move || {
			let works = allowed.load(Ordering::SeqCst);
			let persisted = works.then_some(()).ok_or_else(|| io::ErrorKind::Other.into());
			Box::pin(std::future::ready(persisted))
		});
		journal.persist_before_sent(persist, |hash| hash.0[0] == 1)
	};
	let run = disk.start_with(with_queue(&[sent(1)]), Arc::new(disk.store()), wire);
	assert_eq!(run.process(), 0, "not handled while the manager is not durable");
	assert_eq!(run.process(), 0);
	assert_eq!(run.notes.lock().len(), 2);
	works.store(true, Ordering::SeqCst);
	assert_eq!(run.process(), 1);
	assert_eq!(run.entries().len(), 1);
	// LDK has let go of it now, and managers say so; the background processor's writes lag by one.
	run.write_manager();
	run.write_manager();
	let tracker = run.journal.tracker.as_ref().unwrap();
	assert!(tracker.consumer().unacked(None, 10).unwrap().is_empty());
	// Not for a payment of which no monitor event is un-acked, nor for other events.
	works.store(false, Ordering::SeqCst);
	run.tell(sent(2));
	run.tell(failed(1));
	run.tell(closed(3, 4, 1));
}

/// A commit that waits.
type HeldCommit = (Batch, Completer<Committed>);

/// A store that keeps commits waiting while it is held.
struct HeldStore {
	inner: MemoryStore,
	held: Mutex<Option<Vec<HeldCommit>>>,
	/// Hears of each thread that blocks for a commit.
	blocked: Mutex<Option<Sender<()>>>,
}

/// The help of a held commit: none, but a thread that blocks is told of.
struct Blocks(Option<Sender<()>>);

impl Help for Blocks {
	fn help(&self) {}

	fn nudge(&self) {}

	fn block(&self, wait: &mut dyn FnMut()) {
		if let Some(blocked) = &self.0 {
			blocked.send(()).unwrap();
		}
		wait();
	}
}

impl HeldStore {
	/// Refuses the commit that waits longest.
	fn refuse(&self) {
		let (_, completer) = self.held.lock().as_mut().unwrap().remove(0);
		completer.complete(Err(StoreError::NoSpace { place: "here".to_owned() }));
	}

	/// Makes the commit that waits longest.
	fn make(&self) {
		let (batch, completer) = self.held.lock().as_mut().unwrap().remove(0);
		completer.complete(self.inner.commit(batch).wait());
	}

	fn release(&self) -> usize {
		let held = self.held.lock().take().unwrap();
		let count = held.len();
		for (batch, completer) in held {
			completer.complete(self.inner.commit(batch).wait());
		}
		count
	}
}

impl Store for HeldStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		match &mut *self.held.lock() {
			Some(held) => {
				let help = Blocks(self.blocked.lock().clone());
				let (completer, ticket) = Ticket::pair_with_help(Arc::new(help));
				held.push((batch, completer));
				ticket
			},
			None => self.inner.commit(batch),
		}
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.inner.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.inner.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		Blocks(self.blocked.lock().clone()).block(wait);
	}
}

fn held(disk: &Disk) -> (Arc<HeldStore>, Run) {
	let store = Arc::new(HeldStore {
		inner: disk.store(),
		held: Mutex::default(),
		blocked: Mutex::default(),
	});
	let run = disk.start_with(Ldk::default(), Arc::<HeldStore>::clone(&store), |j, _| j);
	*store.held.lock() = Some(Vec::new());
	(store, run)
}

/// L14: events that LDK hands over together do not wait for the disk one by one, so that a store
/// commits them as one group; the manager waits for all of them.
#[test]
fn events_that_are_handed_over_together_do_not_wait_for_each_other() {
	let (store, run) = held(&Disk::new());
	run.ldk.lock().queue = (0..100).map(|n| closed(n, 4, n.into())).collect();
	assert_eq!(run.process(), 100, "the store has answered nothing yet");
	let persister = Arc::clone(&run.persister);
	let (done, ended) = std::sync::mpsc::channel();
	let writes = std::thread::spawn(move || done.send(persister.persist().is_ok()).unwrap());
	assert!(ended.try_recv().is_err(), "the manager waits");
	assert_eq!(store.release(), 100);
	assert!(ended.recv().unwrap());
	writes.join().unwrap();
	assert_eq!(run.entries().len(), 100);
}

/// A block may make LDK write a monitor without the event, so that it is durable when it counts as
/// handled.
#[test]
fn an_event_of_a_monitor_is_durable_before_it_is_handled() {
	let (store, run) = held(&Disk::new());
	let outputs = Event::SpendableOutputs {
		outputs: Vec::new(),
		channel_id: Some(ChannelId([1; 32])),
		counterparty_node_id: None,
	};
	let inline = |_| std::future::ready(Ok(()));
	let mut handled = pin!(run.journal.handle_async(outputs, inline));
	let mut context = std::task::Context::from_waker(std::task::Waker::noop());
	assert!(handled.as_mut().poll(&mut context).is_pending());
	store.release();
	assert!(handled.as_mut().poll(&mut context).is_ready());
}

/// LDK sends the updates that it had held back for these events right after the batch, from
/// whatever thread the task is on, and they need not pass a store of Leyden's.
#[test]
fn an_event_that_releases_a_monitor_update_is_durable_before_the_asynchronous_handler_ends() {
	for event in [sent(1), failed(1), claimed(1)] {
		let (store, run) = held(&Disk::new());
		let inline = |_| std::future::ready(Ok(()));
		let mut context = std::task::Context::from_waker(std::task::Waker::noop());
		let mut other = pin!(run.journal.handle_async(closed(3, 4, 1), inline));
		assert!(other.as_mut().poll(&mut context).is_ready(), "the manager waits for this one");
		let mut handled = pin!(run.journal.handle_async(event.clone(), inline));
		assert!(handled.as_mut().poll(&mut context).is_pending(), "{event:?}");
		store.release();
		assert!(matches!(handled.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
	}
}

/// The append stays where it is, and LDK's next try waits for that one.
#[test]
fn an_event_whose_append_fails_in_the_asynchronous_handler_is_one_entry_when_it_comes_again() {
	let disk = Disk::new();
	let store = Arc::new(AwayStore { inner: disk.store(), is_away: AtomicBool::new(false) });
	let run = disk.start_with(Ldk::default(), Arc::<AwayStore>::clone(&store), |j, _| j);
	let handle = || {
		let inline = |_| std::future::ready(Ok(()));
		let handled = run.journal.handle_async(failed(1), inline);
		block_on(run.journal.log().store(), pin!(handled).as_mut())
	};
	store.is_away.store(true, Ordering::SeqCst);
	assert!(handle().is_err());
	store.is_away.store(false, Ordering::SeqCst);
	assert!(handle().is_ok());
	run.persister.persist().unwrap();
	assert_eq!(run.entries().len(), 1);
}

/// The store has done the commit and says that it has not; the next try finds the entry. The manager
/// of the barrier has the event in its queue all the same, and LDK brings it again.
#[test]
fn an_append_that_was_answered_too_late_is_one_entry_after_a_death() {
	let disk = Disk::new();
	let store = Arc::new(LateStore { inner: disk.store(), is_late: AtomicBool::new(false) });
	let run = disk.start_with(
		with_queue(&[sent(1)]),
		Arc::<LateStore>::clone(&store),
		|journal, persister| {
			let persister = Arc::clone(persister);
			let persist: Persist =
				Box::new(move || Box::pin(std::future::ready(persister.persist())));
			journal.persist_before_sent(persist, |_| true)
		},
	);
	store.is_late.store(true, Ordering::SeqCst);
	run.process();
	let entries = run.entries();
	assert_eq!(entries.len(), 1);
	assert!(!store.is_late.load(Ordering::SeqCst), "the append was answered too late");
	drop((run, store));
	let run = disk.start(with_queue(&[sent(1)]));
	run.process();
	assert_eq!(run.entries(), entries);
}

/// The handler gives an event back after it was journaled. Managers are written meanwhile, with the
/// event in their queue, and the node dies.
#[test]
fn an_event_that_the_handler_gave_back_is_one_entry_after_a_death() {
	let disk = Disk::new();
	let run = disk.start_with(with_queue(&[sent(1)]), Arc::new(disk.store()), |journal, _| {
		let persist: Persist = Box::new(|| {
			Box::pin(std::future::ready(Err(io::Error::new(io::ErrorKind::Other, "full"))))
		});
		journal.persist_before_sent(persist, |_| true)
	});
	assert_eq!(run.process(), 0, "the event is given back");
	// The background processor's writes lag by one.
	run.write_manager();
	run.write_manager();
	let entries = run.entries();
	drop(run);
	let run = disk.start(with_queue(&[sent(1)]));
	run.process();
	assert_eq!(run.entries(), entries);
}

/// A manager that Leyden has written is newer than bytes that the background processor encoded
/// before, and these do not take its place (L16).
#[test]
fn the_manager_on_disk_never_goes_back() {
	let disk = Disk::new();
	let run = disk.start(Ldk::default());
	let (primary, secondary) = (
		CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
		CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
	);
	let key = CHANNEL_MANAGER_PERSISTENCE_KEY;
	let older = run.ldk.lock().encode();
	run.ldk.lock().payments.insert([5; 32]);
	run.persister.persist().unwrap();
	run.persister.write(primary, secondary, key, older).unwrap();
	let durable = disk.kv.read(primary, secondary, key).unwrap();
	assert_eq!(durable, run.ldk.lock().encode());
}

/// L11: the background processor waits for the disk before it writes the manager. Updates that come
/// from the threads of peers do not, and hold LDK's locks.
#[test]
fn updates_of_other_threads_do_not_wait_for_a_thread_that_waits() {
	let (store, run) = held(&Disk::new());
	let (blocked, blocks) = channel();
	*store.blocked.lock() = Some(blocked);
	run.ldk.lock().queue = vec![closed(1, 4, 1)];
	run.process();
	let appends = run.journal.appends.clone().unwrap();
	let waits = std::thread::spawn(move || appends.wait().is_ok());
	blocks.recv_timeout(HANGS).unwrap();
	let appends = run.journal.appends.clone().unwrap();
	let (done, passed) = channel();
	std::thread::spawn(move || done.send(appends.wait_on_event_thread().is_ok()));
	assert_eq!(passed.recv_timeout(HANGS), Ok(true));
	assert_eq!(store.release(), 1);
	assert!(waits.join().unwrap());
}

/// Two threads wait for the same appends: the processor, and one that persists the manager.
#[test]
fn threads_and_tasks_that_wait_for_the_same_appends_all_go_on() {
	let (store, run) = held(&Disk::new());
	let (blocked, blocks) = channel();
	*store.blocked.lock() = Some(blocked);
	run.ldk.lock().queue = (1..=3).map(|n| closed(n, 4, n.into())).collect();
	run.process();
	let waits = || {
		let appends = run.journal.appends.clone().unwrap();
		std::thread::spawn(move || appends.wait().is_ok())
	};
	let first = waits();
	blocks.recv_timeout(HANGS).unwrap();
	let second = waits();
	// It waits for the first thread, in the way that the store asks for.
	blocks.recv_timeout(HANGS).unwrap();
	let appends = run.journal.appends.clone().unwrap();
	let around = Arc::clone(run.journal.log().store());
	let task = std::thread::spawn(move || block_on(&around, appends.durable()).is_ok());
	assert_eq!(store.release(), 3);
	for thread in [first, second, task] {
		assert!(thread.join().unwrap());
	}
	assert_eq!(run.entries().len(), 3);
}

/// A task waits for the appends while LDK hands over another event.
#[test]
fn what_waits_behind_a_failed_append_is_submitted_before_what_comes_later() {
	let (store, run) = held(&Disk::new());
	let mut context = std::task::Context::from_waker(std::task::Waker::noop());
	let appends = run.journal.appends.clone().unwrap();
	let mut durable = pin!(appends.durable());
	run.tell(closed(1, 4, 1));
	store.refuse();
	assert!(durable.as_mut().poll(&mut context).is_pending(), "it is tried again");
	run.tell(closed(2, 4, 2));
	run.tell(closed(3, 4, 3));
	store.make();
	assert!(durable.as_mut().poll(&mut context).is_pending());
	run.tell(closed(4, 4, 4));
	store.release();
	assert!(durable.as_mut().poll(&mut context).is_ready());
	run.wait();
	let entries = leyden_testkit::intact(run.log.read(run.log.start().unwrap(), 10).unwrap().0);
	let closes: Vec<_> = entries.iter().map(|e| decode_event(e.payload()).unwrap()).collect();
	assert_eq!(closes, [1, 2, 3, 4].map(|n| closed(n, 4, n.into())));
}
