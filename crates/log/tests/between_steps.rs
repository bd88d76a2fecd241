//! Tests of what housekeeping must not do, whatever happens between its steps: wait, change the
//! answer of an ack, undo what another handle did, lose anything in a crash.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{event, id, Process};
use leyden_log::{
	Appended, Consumer, ConsumerOptions, LogError, LogIndex, LogOptions, LogReader, Retention,
	Start, ACKS_BETWEEN_COMPACTIONS,
};
use leyden_store::ticket::Help;
use leyden_store::{
	Batch, Committed, Durability, Guarantees, Key, KeyRange, ManualClock, MemoryMedium,
	MemoryStore, Namespace, Page, Plan, Record, RecordType, Store, StoreError, Table, Ticket,
	Timestamp, Value,
};
use leyden_testkit::{count_records, crash_everywhere, FaultyStore};

const HISTORY: u64 = 10;
const IDS: u64 = 50;

fn options() -> LogOptions {
	LogOptions {
		history: Retention { min_count: HISTORY, min_age: Duration::ZERO },
		tombstones: Retention { min_count: IDS, min_age: Duration::ZERO },
	}
}

fn process(store: Arc<dyn Store>) -> Process {
	Process::over(store, Arc::new(ManualClock::new(Timestamp(1_000))), options())
}

fn memory() -> Arc<MemoryStore> {
	Arc::new(MemoryStore::new().unwrap())
}

fn places(numbers: impl Iterator<Item = u64>) -> Vec<LogIndex> {
	numbers.map(|n| LogIndex::new(n).unwrap()).collect()
}

fn append(process: &Process, numbers: impl Iterator<Item = u64>) {
	process.log.append_batch(numbers.map(|n| event(n, (n % 7) as u8)).collect()).unwrap();
}

fn unacked(consumer: &Consumer) -> Vec<u64> {
	let entries = leyden_testkit::intact(consumer.unacked(None, 10_000).unwrap());
	entries.iter().map(|entry| entry.index().get()).collect()
}

fn poll<T>(ticket: &mut Ticket<T>) -> Poll<Result<T, StoreError>> {
	pin!(ticket).poll(&mut Context::from_waker(Waker::noop()))
}

fn mine() -> Plan<()> {
	let mut batch = Batch::new();
	let value = Value::new(RecordType(0x8000), 1, *b"1");
	batch.put(Key::new(Table::new("mine"), *b"k"), value);
	Plan::of(batch)
}

/// A store that works as those with a commit thread do: a request waits in a queue until a waiting
/// thread does it, or the test.
struct Queued {
	inner: Arc<MemoryStore>,
	queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
	jobs: Mutex<VecDeque<Box<dyn FnOnce() + Send>>>,
	/// The number of times that a thread waited for an answer that was not there.
	waits: AtomicU64,
}

impl Queue {
	fn run(&self) {
		loop {
			let job = self.jobs.lock().unwrap().pop_front();
			match job {
				Some(job) => job(),
				None => return,
			}
		}
	}

	fn submit<T: Send + 'static>(
		self: &Arc<Self>, job: impl FnOnce() -> Ticket<T> + Send + 'static,
	) -> Ticket<T> {
		let (completer, ticket) = Ticket::pair_with_help(Arc::clone(self) as Arc<dyn Help>);
		let job = move || completer.complete(job().wait());
		self.jobs.lock().unwrap().push_back(Box::new(job));
		ticket
	}
}

impl Help for Queue {
	fn help(&self) {
		self.waits.fetch_add(1, Ordering::SeqCst);
		self.run();
	}

	fn nudge(&self) {}
}

impl Store for Queued {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		let inner = Arc::clone(&self.inner);
		self.queue.submit(move || inner.commit(batch))
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		let (inner, key) = (Arc::clone(&self.inner), key.clone());
		self.queue.submit(move || inner.get(&key))
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		let (inner, key) = (Arc::clone(&self.inner), key.clone());
		self.queue.submit(move || inner.get_raw(&key))
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		let inner = Arc::clone(&self.inner);
		self.queue.submit(move || inner.scan(range, limit))
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}
}

#[test]
fn no_call_waits_for_housekeeping_and_it_keeps_up_all_the_same() {
	const AT_A_TIME: u64 = 2_000;
	let queue = Arc::new(Queue::default());
	let inner = memory();
	let store = Arc::new(Queued { inner: Arc::clone(&inner), queue: Arc::clone(&queue) });
	let process = process(store);
	let consumer = process.consumer("manager");
	let waits = || queue.waits.swap(0, Ordering::SeqCst);
	waits();
	for round in 0..30 {
		let numbers = round * AT_A_TIME + 1..=(round + 1) * AT_A_TIME;
		append(&process, numbers.clone());
		assert_eq!(waits(), 1, "an append waits for its own commit");
		let mut ack = consumer.ack_plan_many(&places(numbers)).commit(&process.store);
		assert!(poll(&mut ack).is_pending());
		queue.run();
		assert!(matches!(poll(&mut ack), Poll::Ready(Ok(()))));
		assert_eq!(waits(), 0, "an awaited ack blocks no thread");
		let entries = count_records(&*inner, "log_entries") as u64;
		// A step is two turns of the store, and a round here has two of them.
		assert!(entries <= HISTORY + 5 * AT_A_TIME, "{entries} entries in round {round}");
	}
	for n in 0..2 * ACKS_BETWEEN_COMPACTIONS {
		process.append(1_000_000 + n, 1);
		waits();
		let delivery = consumer.next_event().unwrap().unwrap();
		waits();
		match n % 2 {
			0 => delivery.ack().unwrap(),
			_ => delivery.ack_with(mine()).unwrap(),
		}
		assert_eq!(waits(), 1, "an ack waits for its own commit");
	}
}

/// A store whose lazy batches, which are those of housekeeping here, find the disk full.
struct FullForLazy {
	inner: Arc<MemoryStore>,
	full: AtomicBool,
}

impl Store for FullForLazy {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		let lazy = batch.required_durability() == Durability::Lazy;
		if lazy && self.full.load(Ordering::SeqCst) {
			let source = Arc::new(std::io::Error::other("the disk is full"));
			return Ticket::ready(Err(StoreError::Unavailable { doing: "writing", source }));
		}
		self.inner.commit(batch)
	}

	leyden_testkit::forward_store!(inner);
}

#[test]
fn housekeeping_that_fails_changes_no_answer_is_told_and_is_made_up_for() {
	let store = Arc::new(FullForLazy { inner: memory(), full: AtomicBool::new(false) });
	let process = process(Arc::<FullForLazy>::clone(&store));
	let consumer = process.consumer("a");
	let acks = |first: u64| {
		for n in first..first + 1_000 {
			process.append(n, 1);
			let delivery = consumer.next_event().unwrap().unwrap();
			match n % 2 {
				0 => delivery.ack().unwrap(),
				_ => delivery.ack_with(mine()).unwrap(),
			}
		}
	};
	// This one has acked everything when the disk is full, and acks nothing any more after that.
	let other = process.consumer("b");
	assert!(
		consumer.next_event().unwrap().is_none(),
		"the consumer is ours before the disk is full"
	);
	store.full.store(true, Ordering::SeqCst);
	acks(1);
	other.ack_plan_many(&places(1..=1_000)).run(&process.store).unwrap();
	assert_eq!(count_records(&*store, "log_entries"), 1_000, "nothing could be trimmed");
	let failure = process.log.housekeeping_failure();
	assert!(
		matches!(failure, Some(LogError::Store(StoreError::Unavailable { .. }))),
		"{failure:?}"
	);
	assert!(consumer.tidy().is_err(), "an explicit tidy answers with the error");
	store.full.store(false, Ordering::SeqCst);
	acks(1_001);
	let end = other.stats().watermark;
	assert_eq!(end, 1_000, "a pass makes up for what an earlier one had to give up");
	other.ack_plan_many(&places(1_001..=2_000)).run(&process.store).unwrap();
	assert!(process.log.housekeeping_failure().is_none());
	let entries = count_records(&*store, "log_entries") as u64;
	assert!(entries <= HISTORY + 2 * ACKS_BETWEEN_COMPACTIONS, "{entries} entries");
}

/// The same store as another process has it: nothing tells that it is the same.
fn unseen(store: &Arc<Interrupted>) -> Arc<dyn Store> {
	Arc::new(Arc::clone(store))
}

type Interruption = Box<dyn FnOnce() + Send>;

/// A store that does something else right after it was asked for some records.
struct Interrupted {
	inner: Arc<MemoryStore>,
	after_scan_of: Mutex<Option<(&'static str, Interruption)>>,
}

impl Interrupted {
	fn new() -> Arc<Self> {
		Arc::new(Self { inner: memory(), after_scan_of: Mutex::new(None) })
	}

	fn after_scan_of(&self, table: &'static str, f: impl FnOnce() + Send + 'static) {
		*self.after_scan_of.lock().unwrap() = Some((table, Box::new(f)));
	}

	fn was_interrupted(&self) -> bool {
		self.after_scan_of.lock().unwrap().is_none()
	}
}

impl Store for Interrupted {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.inner.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		let table = range.table();
		let page = self.inner.scan(range, limit).wait();
		let found = page.as_ref().is_ok_and(|page| !page.records.is_empty());
		let interruption = {
			let mut waiting = self.after_scan_of.lock().unwrap();
			match &*waiting {
				Some((name, _)) if found && *name == table.name() => waiting.take(),
				_ => None,
			}
		};
		if let Some((_, interruption)) = interruption {
			interruption();
		}
		Ticket::ready(page)
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}
}

#[test]
fn a_consumer_created_while_history_is_trimmed_gets_everything_from_where_it_begins() {
	let store = Interrupted::new();
	let process = process(Arc::<Interrupted>::clone(&store));
	let consumer = process.consumer("a");
	append(&process, 1..=100);
	consumer.ack_plan_many(&places(1..=100)).run(&process.store).unwrap();
	let log = process.log.clone();
	store.after_scan_of("log_entries", move || {
		log.consumer("late", ConsumerOptions::default()).unwrap();
	});
	consumer.tidy().unwrap();
	assert!(store.was_interrupted());
	// Another process, which has nothing in memory.
	let next = self::process(unseen(&store));
	assert_eq!(unacked(&next.consumer("late")), (1..=100).collect::<Vec<_>>());
}

#[test]
fn an_id_that_another_handle_trimmed_and_that_came_again_stays_known() {
	let store = Interrupted::new();
	let process = process(Arc::<Interrupted>::clone(&store));
	let consumer = process.consumer("a");
	append(&process, 1..=100);
	let other = self::process(unseen(&store));
	consumer.ack_plan_many(&places(1..=100)).run(&process.store).unwrap();
	let end = ConsumerOptions { start: Start::End, ..ConsumerOptions::default() };
	let log = other.log.clone();
	store.after_scan_of("log_tombs", move || {
		let consumer = log.consumer("b", end).unwrap();
		consumer.tidy().unwrap();
		assert!(matches!(log.append(event(1, 1)).unwrap(), Appended::New(_)));
	});
	consumer.tidy().unwrap();
	assert!(store.was_interrupted());
	let again = other.log.find(&id(1)).unwrap().expect("the entry has its id");
	assert_eq!(process.log.append(event(1, 1)).unwrap(), Appended::AlreadyKnown(again));
}

#[test]
fn a_handle_that_knows_less_takes_back_no_ack() {
	let process = process(memory());
	append(&process, 1..=100);
	let one = process.consumer("a");
	let other = self::process(Arc::new(Arc::clone(&process.store))).consumer("a");
	other.ack_plan_many(&places(1..=50)).run(&process.store).unwrap();
	other.tidy().unwrap();
	one.ack_plan_many(&places(1..=1)).run(&process.store).unwrap();
	one.tidy().unwrap();
	let next = self::process(Arc::new(Arc::new(Arc::clone(&process.store))));
	assert_eq!(unacked(&next.consumer("a")), (51..=100).collect::<Vec<_>>());
}

#[test]
fn what_another_handle_folded_meanwhile_stays_folded() {
	let store = Interrupted::new();
	// Nothing is past its retention: the consumer is all that both write.
	let open = || {
		let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
		Process::over(unseen(&store), clock, LogOptions::default())
	};
	let process = open();
	append(&process, 1..=100);
	let other = open();
	let one = process.consumer("a");
	one.ack_plan_many(&places(1..=50)).run(&process.store).unwrap();
	store.after_scan_of("log_acks", move || {
		let another = other.consumer("a");
		another.ack_plan_many(&places(51..=80)).run(&other.store).unwrap();
		another.tidy().unwrap();
	});
	one.tidy().unwrap();
	assert!(store.was_interrupted());
	assert_eq!(unacked(&open().consumer("a")), (81..=100).collect::<Vec<_>>());
}

/// Passes of several steps, of two consumers, die before and after every commit.
#[test]
fn no_crash_in_housekeeping_loses_an_ack_or_an_unacked_entry() {
	let deaths = crash_everywhere(|doom| {
		let medium = MemoryMedium::new();
		let open = || -> Arc<dyn Store> {
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap())
		};
		let mut acked = Vec::new();
		let faulty = Arc::new(FaultyStore::new(open(), Arc::clone(doom)));
		let ended = live(Arc::<FaultyStore>::clone(&faulty), &mut acked);
		assert!(ended.is_ok() || faulty.is_dead());
		if faulty.is_dead() {
			check(open(), &acked);
			live(open(), &mut acked).unwrap();
		}
		check(open(), &acked);
		for (table, most) in [("log_entries", 200), ("log_ids", 300), ("log_acks", 3)] {
			let found = count_records(&*open(), table);
			assert!(found <= most, "{found} records in {table}");
		}
	});
	assert!(deaths > 20, "{deaths}");
}

/// Works through 1,500 events. Two consumers ack in bulk, one of them each hundredth only at the
/// end, and the last hundredth never.
fn live(store: Arc<dyn Store>, acked: &mut Vec<(&'static str, u64)>) -> Result<(), LogError> {
	let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
	let log = leyden_log::EventLog::open(store, common::STREAM, clock, options())?;
	let all = log.consumer("all", ConsumerOptions::default())?;
	let most = log.consumer("most", ConsumerOptions::default())?;
	let mut ack = |name, consumer: &Consumer, numbers: Vec<u64>| {
		consumer.ack_plan_many(&places(numbers.iter().copied())).run(log.store())?;
		acked.extend(numbers.into_iter().map(|n| (name, n)));
		Ok::<_, LogError>(())
	};
	for round in 0..5u64 {
		let numbers = round * 300 + 1..=(round + 1) * 300;
		let answers = log.append_batch(numbers.map(|n| event(n, 1)).collect())?;
		let numbers: Vec<u64> = answers.iter().map(|answer| answer.index().get()).collect();
		let kept = numbers.iter().copied().filter(|n| n % 100 != 0).collect();
		ack("all", &all, numbers)?;
		ack("most", &most, kept)?;
	}
	let hundreds = most.stats().head / 100;
	ack("most", &most, (1..hundreds).map(|n| n * 100).collect())?;
	most.tidy()
}

fn check(store: Arc<dyn Store>, acked: &[(&'static str, u64)]) {
	let reader = LogReader::new(store);
	for (consumer, n) in acked {
		let place = LogIndex::new(*n).unwrap();
		assert!(reader.is_acked(common::STREAM, consumer, place).unwrap(), "{consumer} acked {n}");
	}
	let streams = reader.streams().unwrap();
	let head = streams.first().map_or(0, |stream| stream.head);
	for n in (100..=head).step_by(100) {
		let place = LogIndex::new(n).unwrap();
		if !reader.is_acked(common::STREAM, "most", place).unwrap() {
			let entry = reader.entry(common::STREAM, place).unwrap();
			assert!(entry.is_some(), "{n} is un-acked and gone");
		}
	}
}
