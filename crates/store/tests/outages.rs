//! Tests of engines that are away for a while or panic, and of hooks that panic: every ticket is
//! answered, nothing is lost, and the observers hear of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use leyden_store::committer::{Committer, RawRead, RawWrite};
use leyden_store::group::{
	Closing, GroupStore, Medium, OutagePolicy, Outages, Pauser, Writer, MAX_WAITING,
};
use leyden_store::page::PageBuilder;
use leyden_store::{
	Batch, Durability, Expectation, Guarantees, Key, KeyRange, RecordType, Store, StoreError,
	Table, Value,
};

const T: Table = Table::new("t");
/// The time after which a test counts as one that hangs.
const HANGS: Duration = Duration::from_secs(60);

/// The engine's behaviour, as the test says.
#[derive(Default)]
struct Script {
	is_away: bool,
	panics: bool,
	/// The number of pauses until the engine is well again.
	heals_after: u32,
	pauses: u32,
	threads: Vec<ThreadId>,
	/// A sender that is dropped with the engine.
	alive: Option<Sender<()>>,
}

#[derive(Clone, Default)]
struct Engine {
	script: Arc<Mutex<Script>>,
	records: BTreeMap<Key, Vec<u8>>,
	is_asynchronous: bool,
}

impl Engine {
	fn ask(&self, doing: &'static str) -> Result<(), StoreError> {
		let mut script = self.script.lock().unwrap_or_else(|e| e.into_inner());
		script.threads.push(std::thread::current().id());
		assert!(!script.panics, "as the test asked for");
		match script.is_away {
			true => {
				let source = Arc::new(std::io::Error::other("away"));
				Err(StoreError::Unavailable { doing, source })
			},
			false => Ok(()),
		}
	}
}

impl RawRead for Engine {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		self.ask("reading")?;
		Ok(self.records.get(key).cloned())
	}

	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		self.ask("reading")?;
		let numbers = Key::numbered(table, prefix, 0)..=Key::numbered(table, prefix, u64::MAX);
		Ok(self.records.range(numbers).rev().find_map(|(key, _)| key.number(prefix)))
	}

	fn is_shared(&self) -> bool {
		false
	}
}

impl Medium for Engine {
	fn scan(&mut self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError> {
		for (key, frame) in &self.records {
			self.ask("scanning")?;
			if key.table() == range.table() && !page.is_full() {
				page.push_frame(key.clone(), frame)?;
			}
		}
		Ok(())
	}

	fn write(&mut self, writes: Vec<RawWrite>, _: Durability) -> Result<(), StoreError> {
		self.ask("writing")?;
		for (key, frame) in writes {
			match frame {
				Some(frame) => self.records.insert(key, frame),
				None => self.records.remove(&key),
			};
		}
		Ok(())
	}

	fn takes_help(&self) -> bool {
		!self.is_asynchronous
	}
}

/// A clock whose pauses pass at once. The outage ends after as many as the script says.
struct Scripted(Arc<Mutex<Script>>);

impl Pauser for Scripted {
	fn now(&self) -> Duration {
		Duration::ZERO
	}

	fn pause(&self, _: Duration, _: &Closing) {
		let mut script = self.0.lock().unwrap();
		script.pauses += 1;
		if script.pauses >= script.heals_after {
			script.is_away = false;
		}
	}
}

struct Rig {
	store: GroupStore<Engine>,
	script: Arc<Mutex<Script>>,
	told: Arc<Mutex<Vec<String>>>,
}

impl Rig {
	fn new(is_asynchronous: bool) -> Self {
		let mut engine = Engine { is_asynchronous, ..Engine::default() };
		let script = Arc::clone(&engine.script);
		let (committer, writes) = Committer::open(&mut engine).unwrap();
		engine.write(writes, Durability::Sync).unwrap();
		let pauser = Arc::new(Scripted(Arc::clone(&script)));
		let policy = OutagePolicy { tolerance: Duration::from_secs(60), pauser };
		let writer = Writer::new(engine, committer, "the engine")
			.with_outages(Outages::new(policy, "the engine"));
		let store = GroupStore::start(writer, Guarantees::volatile("test")).unwrap();
		let told: Arc<Mutex<Vec<String>>> = Arc::default();
		let events = Arc::clone(&told);
		assert!(
			store.observe(Arc::new(move |event| events.lock().unwrap().push(event.to_string())))
		);
		Self { store, script, told }
	}

	fn goes_away(&self, heals_after: u32) {
		let mut script = self.script.lock().unwrap();
		(script.is_away, script.heals_after, script.pauses) = (true, heals_after, 0);
	}

	fn told(&self) -> Vec<String> {
		std::mem::take(&mut *self.told.lock().unwrap())
	}
}

fn append(text: &str) -> Batch {
	let mut batch = Batch::new();
	let _ = batch.append(T, b"", Value::new(RecordType(0x8000), 1, text.as_bytes()));
	batch
}

fn count(store: &impl Store) -> usize {
	store.scan(KeyRange::all(T), 100_000).wait().unwrap().records.len()
}

#[test]
fn every_request_waits_for_an_engine_that_is_away() {
	for is_asynchronous in [false, true] {
		let rig = Rig::new(is_asynchronous);
		rig.store.commit(append("1")).wait().unwrap();
		rig.goes_away(20);
		rig.store.commit(append("2")).wait().unwrap();
		rig.goes_away(20);
		assert_eq!(count(&rig.store), 2);
		rig.goes_away(20);
		let first = Key::numbered(T, b"", 1);
		assert!(rig.store.get(&first).wait().unwrap().is_some());
		let told = rig.told();
		assert_eq!(told.len(), 6, "each outage begins and ends: {told:?}");
	}
}

/// A batch whose expectation could not be read is not refused while the others go through.
#[test]
fn a_batch_that_cannot_be_decided_waits_with_its_group() {
	let rig = Rig::new(false);
	rig.store.commit(append("1")).wait().unwrap();
	rig.goes_away(3);
	let mut batch = append("2");
	batch.expect(Key::new(T, *b"nothing"), Expectation::Absent);
	rig.store.commit(batch).wait().unwrap();
	assert_eq!(count(&rig.store), 2);
}

#[test]
fn an_outage_past_the_tolerance_fails_requests_and_leaves_the_handle_alive() {
	let rig = Rig::new(false);
	rig.goes_away(u32::MAX);
	let error = rig.store.commit(append("1")).wait().unwrap_err();
	assert!(error.is_retriable(), "{error}");
	let pauses = rig.script.lock().unwrap().pauses;
	assert!(pauses >= 60, "{pauses}");
	assert!(rig.store.commit(append("1")).wait().is_err());
	assert_eq!(rig.script.lock().unwrap().pauses, pauses, "each request fails at once now");
	rig.script.lock().unwrap().is_away = false;
	rig.store.commit(append("1")).wait().unwrap();
	assert_eq!(count(&rig.store), 1);
	let told = rig.told();
	assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn a_hook_that_panics_is_told_and_keeps_no_ticket_waiting() {
	let rig = Rig::new(true);
	let mut batch = append("1");
	batch.after_commit(|_| panic!("the hook's own fault"));
	rig.store.commit(batch).wait().unwrap();
	rig.store.commit(append("2")).wait().unwrap();
	let told = rig.told();
	assert!(told.len() == 1 && told[0].contains("the hook's own fault"), "{told:?}");
}

/// A hook runs on the thread that commits: what it waits for would never be done.
#[test]
fn a_hook_that_waits_for_its_store_is_told_and_keeps_no_ticket_waiting() {
	for is_asynchronous in [false, true] {
		let Rig { store, .. } = Rig::new(is_asynchronous);
		let kept = Arc::new(store);
		let store = Arc::clone(&kept);
		let (told, hears) = channel();
		let mut batch = append("1");
		batch.after_commit(move |_| {
			let read = store.scan(KeyRange::all(T), 10).wait().map(|_| ());
			let commit = store.commit(append("2")).wait().map(|_| ());
			told.send((read, commit)).unwrap();
		});
		let ticket = kept.commit(batch);
		std::thread::spawn(move || ticket.wait());
		let (read, commit) = hears.recv_timeout(HANGS).expect("the hook waits for itself");
		for answer in [read, commit] {
			let error = answer.unwrap_err();
			assert!(matches!(&error, StoreError::Indeterminate { .. }), "{error}");
			assert!(error.to_string().contains("hook"), "{error}");
		}
		// What the hook asked for is done all the same, and the handle goes on.
		kept.commit(append("3")).wait().unwrap();
		assert_eq!(count(&kept), 3);
	}
}

/// A panic leaves unknown what the engine did, and requests that come later are answered, too.
#[test]
fn an_engine_that_panics_ends_the_handle_and_answers_every_ticket() {
	for is_asynchronous in [false, true] {
		let rig = Rig::new(is_asynchronous);
		rig.script.lock().unwrap().panics = true;
		let error = rig.store.commit(append("1")).wait().unwrap_err();
		assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
		rig.script.lock().unwrap_or_else(|e| e.into_inner()).panics = false;
		let error = rig.store.commit(append("2")).wait().unwrap_err();
		assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
		let told = rig.told();
		assert!(told.len() == 1 && told[0].contains("as the test asked for"), "{told:?}");
	}
}

/// The thread that waits may be a worker that the engine's futures need.
#[test]
fn an_asynchronous_engine_is_used_by_the_commit_thread_alone() {
	let rig = Rig::new(true);
	rig.script.lock().unwrap().threads.clear();
	// More than the queue takes: who submits one more waits, and does not help.
	let tickets: Vec<_> = (0..MAX_WAITING + 10).map(|_| rig.store.commit(append("x"))).collect();
	for ticket in tickets {
		ticket.wait().unwrap();
	}
	assert_eq!(count(&rig.store), MAX_WAITING + 10);
	let here = std::thread::current().id();
	let threads = rig.script.lock().unwrap().threads.clone();
	assert!(!threads.is_empty() && threads.iter().all(|thread| *thread != here));
}

/// The last handle of a store may be that of a hook: then the thread that runs the hook cannot wait
/// for the commit thread, since it has the engine, or is that thread.
#[test]
fn a_store_that_a_hook_drops_last_finishes_its_work_and_closes() {
	for is_asynchronous in [false, true] {
		let rig = Rig::new(is_asynchronous);
		let (alive, closed) = channel::<()>();
		rig.script.lock().unwrap().alive = Some(alive);
		let Rig { store, script, told } = rig;
		drop(script);
		let store = Arc::new(store);
		let last = Arc::clone(&store);
		let (answered, answer) = channel();
		std::thread::spawn(move || {
			let mut batch = append("1");
			batch.after_commit(move |_| drop(last));
			let ticket = store.commit(batch);
			let behind = store.commit(append("2"));
			drop(store);
			answered.send((ticket.wait().is_ok(), behind.wait().is_ok())).unwrap();
		});
		assert_eq!(answer.recv_timeout(HANGS), Ok((true, true)));
		let told = told.lock().unwrap();
		assert!(told.is_empty(), "{told:?}");
		drop(told);
		assert_eq!(closed.recv_timeout(HANGS), Err(RecvTimeoutError::Disconnected));
	}
}
