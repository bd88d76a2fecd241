//! Random operations from many threads, and whether there is an order in which they could have
//! happened one at a time: linearizability, by the algorithm of Wing and Gong with Lowe's cache, as
//! `todc-utils` has it. Each key is checked by itself, which is enough (linearizability is local).
//!
//! `LEYDEN_HISTORIES=2000 cargo test -p leyden-backends --all-features --test history` runs it long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod engines;

use std::sync::{Arc, Barrier, Mutex};

use leyden_store::conformance::Backend;
use leyden_store::{
	Batch, Expectation, Key, Namespace, RecordType, Store, StoreError, Table, Value,
};
use todc_utils::specifications::Specification;
use todc_utils::{Action, History, WGLChecker};

const T: Table = Table::new("history");
const THREADS: usize = 6;
const KEYS: usize = 2;
const OPERATIONS: u64 = 9;

/// What was asked of a record, and what was answered: versions.
#[derive(Clone, Debug)]
enum Op {
	Read(Option<u64>),
	/// Expected, written (a version) or deleted (`None`).
	Done(Expectation, Option<u64>),
	/// Expected, and refused for what was found.
	Refused(Expectation, Option<u64>),
}

struct Register;

impl Specification for Register {
	type State = Option<u64>;
	type Operation = Op;

	fn init() -> Option<u64> {
		None
	}

	fn apply(op: &Op, state: &Option<u64>) -> (bool, Option<u64>) {
		let holds = |expected: &Expectation| match expected {
			Expectation::Absent => state.is_none(),
			Expectation::Present => state.is_some(),
			Expectation::Version(version) => *state == Some(version.get()),
		};
		match op {
			Op::Read(found) => (found == state, *state),
			Op::Done(expected, written) if holds(expected) => (true, *written),
			Op::Done(..) => (false, *state),
			Op::Refused(expected, found) => (!holds(expected) && found == state, *state),
		}
	}
}

type Actions = Mutex<Vec<(usize, Action<Op>)>>;

/// How an operation with an expectation is done.
#[derive(Clone, Copy, PartialEq)]
enum How {
	/// In one commit.
	Atomic,
	/// Looked first, and then written: the negative control.
	LookThenWrite,
}

/// Runs one history, and answers whether it is linearizable.
fn history(store: &Arc<dyn Store>, seed: u64, how: How) -> bool {
	let actions: Vec<Actions> = (0..KEYS).map(|_| Mutex::default()).collect();
	let start = Barrier::new(THREADS);
	std::thread::scope(|scope| {
		for thread in 0..THREADS {
			let (actions, start) = (&actions, &start);
			scope.spawn(move || {
				let mut state = seed.wrapping_mul(31).wrapping_add(thread as u64 + 1);
				let mut any = move |below: u64| {
					state =
						state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
					(state >> 33) % below
				};
				// What this thread believes is there.
				let mut believed: Vec<Option<leyden_store::Version>> = vec![None; KEYS];
				start.wait();
				for _ in 0..OPERATIONS {
					let which = any(KEYS as u64) as usize;
					let key = Key::new(T, format!("{seed}-{which}").into_bytes());
					let expected = match (any(4), believed[which]) {
						(0, _) => Expectation::Absent,
						(1, _) => Expectation::Present,
						(_, Some(version)) => Expectation::Version(version),
						(_, None) => Expectation::Absent,
					};
					let begun =
						|op: Op| actions[which].lock().unwrap().push((thread, Action::Call(op)));
					let ended = |op: Op| {
						actions[which].lock().unwrap().push((thread, Action::Response(op)))
					};
					if any(3) == 0 {
						begun(Op::Read(None));
						let found = store.get(&key).wait().unwrap().map(|record| record.version);
						believed[which] = found;
						ended(Op::Read(found.map(|version| version.get())));
						continue;
					}
					let deletes = any(5) == 0;
					begun(Op::Refused(expected, None));
					let mut batch = Batch::new();
					if how == How::Atomic {
						batch.expect(key.clone(), expected);
					} else {
						let found = store.get(&key).wait().unwrap().map(|record| record.version);
						if !expected.holds(found) {
							ended(Op::Refused(expected, found.map(|version| version.get())));
							continue;
						}
						std::thread::yield_now();
					}
					match deletes {
						true => batch.delete(key.clone()),
						false => batch.put(key.clone(), Value::new(RecordType(0x8000), 1, *b"v")),
					};
					match store.commit(batch).wait() {
						Ok(committed) => {
							believed[which] = (!deletes).then(|| committed.version());
							ended(Op::Done(expected, believed[which].map(|v| v.get())));
						},
						Err(StoreError::Conflict { found, .. }) => {
							believed[which] = found;
							ended(Op::Refused(expected, found.map(|version| version.get())));
						},
						Err(error) => panic!("{error}"),
					}
				}
			});
		}
	});
	actions.into_iter().map(|actions| actions.into_inner().unwrap()).all(|actions| {
		actions.is_empty()
			|| WGLChecker::<Register>::is_linearizable(History::from_actions(actions))
	})
}

fn histories() -> u64 {
	std::env::var("LEYDEN_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

fn is_linearizable(name: &str, backend: &dyn Backend) {
	let store = backend.open(&Namespace::default()).unwrap();
	for seed in 0..histories() {
		assert!(
			history(&store, seed, How::Atomic),
			"{name}: history {seed} cannot be put in order"
		);
	}
	println!("{name}: {} histories can be put in order", histories());
}

#[test]
fn memory() {
	let medium = leyden_store::MemoryMedium::new();
	let store = leyden_store::MemoryStore::open(&medium, Namespace::default()).unwrap();
	let store: Arc<dyn Store> = Arc::new(store);
	assert!((0..histories()).all(|seed| history(&store, seed, How::Atomic)));
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite() {
	is_linearizable("sqlite", &engines::Sqlite::new());
}

#[cfg(feature = "redb")]
#[test]
fn redb() {
	is_linearizable("redb", &engines::Redb::new());
}

#[cfg(feature = "postgres")]
#[test]
fn postgres() {
	is_linearizable("postgres", &engines::Postgres::new());
}

#[cfg(feature = "vss")]
#[test]
fn vss() {
	is_linearizable("vss", &engines::Vss::new());
}

/// A store that looks and then writes is caught.
#[cfg(feature = "sqlite")]
#[test]
fn looking_before_writing_is_caught() {
	let backend = engines::Sqlite::new();
	let store = backend.open(&Namespace::default()).unwrap();
	let caught = (0..40).filter(|seed| !history(&store, *seed, How::LookThenWrite)).count();
	println!("negative control: {caught} of 40 histories cannot be put in order");
	assert!(caught > 2, "{caught}");
}
