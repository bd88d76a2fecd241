//! LDK stores that are away for a minute, and LDK stores whose failed writes land late.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod kv_rig;

use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use kv_rig::{impatient, Disk, Futures, Trouble, Unruly};
use leyden_ldk::{KvBackedStore, KvOptions};
use leyden_store::group::{Closing, OutagePolicy, Pauser, StoreEvent, DEFAULT_OUTAGE_TOLERANCE};
use leyden_store::{Batch, Key, KeyRange, Namespace, RecordType, Store, StoreError, Table, Value};

const T: Table = Table::new("t");
const MINUTE: Duration = Duration::from_secs(60);

fn value(text: &str) -> Value {
	Value::new(RecordType(0x8000), 1, text.as_bytes())
}

fn key(text: &str) -> Key {
	Key::new(T, text.as_bytes())
}

/// A batch of more than one record: a redo, and then each record.
fn put(keys: &[&str], text: &str) -> Batch {
	let mut batch = Batch::new();
	for name in keys {
		batch.put(key(name), value(text));
	}
	batch
}

fn batches() -> Vec<Batch> {
	let mut deletes = Batch::new();
	deletes.delete(key("a")).put(key("d"), value("4"));
	let mut appends = Batch::new();
	let _ = appends.append(T, b"n", value("5"));
	vec![put(&["a"], "1"), put(&["a", "b", "c"], "2"), put(&["b"], "3"), deletes, appends]
}

fn all(store: &impl Store) -> Vec<(Key, String)> {
	let page = store.scan(KeyRange::all(T), 100).wait().unwrap();
	let text = |value: Value| String::from_utf8(value.body).unwrap();
	page.records.into_iter().map(|(key, record)| (key, text(record.value))).collect()
}

/// Time that passes only in pauses. The store is well when it has been away for long enough.
struct Heals {
	disk: Disk,
	after: Duration,
	away: Mutex<Duration>,
}

impl Pauser for Heals {
	fn now(&self) -> Duration {
		*self.away.lock().unwrap()
	}

	fn pause(&self, pause: Duration, _: &Closing) {
		let mut away = self.away.lock().unwrap();
		*away += pause;
		if *away >= self.after {
			self.disk.plan(Trouble::None);
		}
	}
}

struct Rig {
	disk: Disk,
	store: KvBackedStore,
	told: Arc<Mutex<Vec<StoreEvent>>>,
}

impl Rig {
	/// A rig with the default tolerance, and a store that is well after this time.
	fn new(is_asynchronous: bool, heals_after: Duration) -> Self {
		let disk = Disk::new();
		let heals = Heals { disk: disk.clone(), after: heals_after, away: Mutex::default() };
		let pauser = Arc::new(heals);
		let outages = OutagePolicy { pauser, ..OutagePolicy::default() };
		let options = KvOptions { outages, ..KvOptions::default() };
		let (unruly, namespace) = (Arc::new(Unruly::on(&disk)), Namespace::default());
		let store = match is_asynchronous {
			true => {
				let futures = Arc::new(Futures::new(unruly));
				KvBackedStore::open_async_with(futures, &namespace, options)
			},
			false => KvBackedStore::open_with(unruly, &namespace, options),
		};
		let (store, told) = (store.unwrap(), Arc::<Mutex<Vec<StoreEvent>>>::default());
		let events = Arc::clone(&told);
		assert!(store.observe(Arc::new(move |event| events.lock().unwrap().push(event.clone()))));
		Self { disk, store, told }
	}

	fn told(&self) -> Vec<StoreEvent> {
		std::mem::take(&mut *self.told.lock().unwrap())
	}
}

fn began_and_ended(told: &[StoreEvent]) -> bool {
	matches!(told, [StoreEvent::OutageBegan { .. }, StoreEvent::OutageEnded { lasted, .. }]
		if *lasted >= MINUTE)
}

/// Away for a minute from each of its steps on, with the step under way done or not: every caller
/// gets the answer, nothing is lost or done twice, and the handle lives.
#[test]
fn a_minute_away_in_the_middle_of_everything_costs_a_minute() {
	let rig = Rig::new(false, MINUTE);
	let opening = rig.disk.changes();
	for batch in batches() {
		rig.store.commit(batch).wait().unwrap();
	}
	let (expected, total) = (all(&rig.store), rig.disk.changes());
	let mut outages = 0;
	for is_asynchronous in [false, true] {
		for at in opening..total {
			for trouble in [Trouble::AwayBefore(at), Trouble::AwayAfter(at)] {
				let rig = Rig::new(is_asynchronous, MINUTE);
				rig.disk.plan(trouble);
				for batch in batches() {
					rig.store.commit(batch).wait().unwrap();
				}
				assert_eq!(all(&rig.store), expected, "{trouble:?}");
				let told = rig.told();
				assert!(began_and_ended(&told), "{trouble:?}: {told:?}");
				drop(rig.store);
				let unruly = Arc::new(Unruly::on(&rig.disk));
				let again = KvBackedStore::open(unruly, &Namespace::default()).unwrap();
				assert_eq!(all(&again), expected, "{trouble:?}");
				outages += 1;
			}
		}
	}
	eprintln!("{outages} outages");
	assert!(outages > 40, "{outages}");
}

#[test]
fn reads_wait_for_a_store_that_is_away() {
	for is_asynchronous in [false, true] {
		let rig = Rig::new(is_asynchronous, MINUTE);
		rig.store.commit(put(&["a", "b"], "1")).wait().unwrap();
		rig.disk.plan(Trouble::Away);
		assert!(rig.store.get(&key("a")).wait().unwrap().is_some());
		assert!(began_and_ended(&rig.told()));
		let rig = Rig::new(is_asynchronous, MINUTE);
		rig.store.commit(put(&["a", "b"], "1")).wait().unwrap();
		rig.disk.plan(Trouble::Away);
		assert_eq!(all(&rig.store).len(), 2);
		assert!(began_and_ended(&rig.told()));
	}
}

/// An outage that is longer than the tolerance is told to the caller and to the observer.
#[test]
fn an_outage_past_the_tolerance_ends_the_handle_loudly_if_a_group_is_in_doubt() {
	for is_asynchronous in [false, true] {
		let rig = Rig::new(is_asynchronous, Duration::MAX);
		rig.store.commit(put(&["a"], "1")).wait().unwrap();
		rig.disk.plan(Trouble::AwayAfter(rig.disk.changes()));
		let error = rig.store.commit(put(&["a", "b"], "2")).wait().unwrap_err();
		assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
		let told = rig.told();
		let [StoreEvent::OutageBegan { .. }, StoreEvent::OutageNotTolerated { lasted, .. }, StoreEvent::HandleEnded { .. }] =
			told.as_slice()
		else {
			panic!("{told:?}")
		};
		assert!(*lasted >= DEFAULT_OUTAGE_TOLERANCE);
		let error = rig.store.commit(put(&["a"], "3")).wait().unwrap_err();
		assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
		// It was in the redo, and is done by the next opening.
		rig.disk.plan(Trouble::None);
		let unruly = Arc::new(Unruly::on(&rig.disk));
		let again = KvBackedStore::open(unruly, &Namespace::default()).unwrap();
		assert_eq!(all(&again), [(key("a"), "2".to_owned()), (key("b"), "2".to_owned())]);
	}
}

/// No request to the store is in doubt: the caller may try again, on this handle.
#[test]
fn an_outage_past_the_tolerance_leaves_the_handle_alive_if_nothing_is_in_doubt() {
	let rig = Rig::new(false, Duration::MAX);
	rig.store.commit(put(&["a"], "1")).wait().unwrap();
	rig.disk.plan(Trouble::Away);
	let error = rig.store.get(&key("a")).wait().unwrap_err();
	assert!(error.is_retriable(), "{error}");
	let error = rig.store.commit(put(&["a"], "2")).wait().unwrap_err();
	assert!(error.is_retriable(), "{error}");
	rig.disk.plan(Trouble::None);
	rig.store.commit(put(&["a"], "2")).wait().unwrap();
	assert_eq!(all(&rig.store), [(key("a"), "2".to_owned())]);
}

/// A store that can be read and not written is in an outage all the same, and it ends.
#[test]
fn a_store_that_can_only_be_read_for_a_minute_costs_a_minute() {
	let rig = Rig::new(false, MINUTE);
	rig.disk.plan(Trouble::FailAll);
	for batch in batches() {
		rig.store.commit(batch).wait().unwrap();
	}
	assert!(began_and_ended(&rig.told()));
}

/// Behind its redo a batch is committed, and cannot be refused any more.
#[test]
fn a_batch_that_is_committed_waits_for_space_to_be_done() {
	let rig = Rig::new(false, MINUTE);
	rig.disk.plan(Trouble::FullAfter(rig.disk.changes()));
	rig.store.commit(put(&["a", "b"], "1")).wait().unwrap();
	assert!(began_and_ended(&rig.told()));
	assert_eq!(all(&rig.store).len(), 2);
}

/// Pauses until the store closes, and says that it does.
struct Endless(Mutex<mpsc::Sender<()>>);

impl Pauser for Endless {
	fn now(&self) -> Duration {
		Duration::ZERO
	}

	fn pause(&self, _: Duration, closing: &Closing) {
		let _ = self.0.lock().unwrap().send(());
		closing.wait(Duration::from_secs(86_400));
	}
}

#[test]
fn closing_a_store_ends_the_pause_of_an_outage() {
	let (pausing, pauses) = mpsc::channel();
	let pauser = Arc::new(Endless(Mutex::new(pausing)));
	let outages = OutagePolicy { pauser, ..OutagePolicy::default() };
	let disk = Disk::new();
	let options = KvOptions { outages, ..KvOptions::default() };
	let unruly = Arc::new(Unruly::on(&disk));
	let store = KvBackedStore::open_with(unruly, &Namespace::default(), options).unwrap();
	disk.plan(Trouble::Away);
	let (closed, ended) = mpsc::channel();
	std::thread::spawn(move || {
		drop(store.commit(put(&["a"], "1")));
		pauses.recv().unwrap();
		drop(store);
		closed.send(()).unwrap();
	});
	assert!(ended.recv_timeout(MINUTE).is_ok(), "closing hangs");
}

fn open(disk: &Disk) -> KvBackedStore {
	let unruly = Arc::new(Unruly::on(disk));
	KvBackedStore::open_with(unruly, &Namespace::default(), impatient()).unwrap()
}

/// The first try to write a redo fails and lands when the next batch is half done, and the process
/// dies: the half of the next batch must not be all that is left of it.
#[test]
fn a_redo_that_lands_late_takes_no_newer_one_away() {
	for writes in 0..4 {
		let disk = Disk::new();
		let store = open(&disk);
		store.commit(put(&["a", "b", "c"], "0")).wait().unwrap();
		disk.plan(Trouble::LandLate(1));
		store.commit(put(&["a", "b", "c"], "1")).wait().unwrap();
		// The redo is written, and so many of the records.
		disk.plan(Trouble::DieAfter(disk.changes() + writes));
		let acknowledged = store.commit(put(&["a", "b", "c"], "2")).wait().is_ok();
		drop(store);
		assert!(disk.land_late() == 1 && !acknowledged, "{writes}");
		disk.plan(Trouble::None);
		let found: Vec<String> = all(&open(&disk)).into_iter().map(|(_, text)| text).collect();
		assert_eq!(found, ["2"; 3], "after {writes} records");
	}
}

/// A batch fails in all its tries, the store is opened again, and the batch is not there. Its redo
/// lands after that, once or in the middle of the next opening: the batch does not come back.
#[test]
fn a_redo_that_lands_after_the_next_opening_brings_nothing_back() {
	for is_first_redo_of_its_slot in [true, false] {
		let disk = Disk::new();
		let store = open(&disk);
		store.commit(put(&["a", "b"], "0")).wait().unwrap();
		if is_first_redo_of_its_slot {
			// The slot that was used is left behind.
			disk.plan(Trouble::LandLate(1));
			store.commit(put(&["a", "b"], "0")).wait().unwrap();
		}
		disk.plan(Trouble::LandLate(100));
		let error = store.commit(put(&["lost", "b"], "lost")).wait().unwrap_err();
		assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
		drop(store);
		disk.plan(Trouble::None);
		let expected = [(key("a"), "0".to_owned()), (key("b"), "0".to_owned())];
		let store = open(&disk);
		assert_eq!(all(&store), expected);
		assert!(disk.land_late() > 1);
		assert_eq!(all(&store), expected);
		drop(store);
		for _ in 0..2 {
			assert_eq!(all(&open(&disk)), expected, "{is_first_redo_of_its_slot}");
		}
	}
}

/// A first try of which nobody knows what became is in doubt, also if the next is refused.
#[test]
fn a_store_that_is_full_at_last_has_not_refused_the_first_try() {
	let disk = Disk::new();
	let store = open(&disk);
	disk.plan(Trouble::LandLateThenFull);
	let error = store.commit(put(&["a", "b"], "1")).wait().unwrap_err();
	assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
}

/// Redos do not pile up: an opening removes what others have left.
#[test]
fn an_opening_removes_the_redos_that_are_done() {
	let disk = Disk::new();
	for _ in 0..5 {
		let store = open(&disk);
		for _ in 0..5 {
			disk.plan(Trouble::LandLate(1));
			store.commit(put(&["a", "b"], "1")).wait().unwrap();
		}
	}
	disk.plan(Trouble::None);
	drop(open(&disk));
	assert_eq!(disk.dump().lines().filter(|line| line.contains(" _redo ")).count(), 1);
}
