//! A log moves from store to store and is the same log: entries, ids, acks, epochs, what is
//! trimmed. Interrupted anywhere, it goes on; meanwhile nobody opens either store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use leyden::id::{Domain, EventId, EventKind, IdBuilder, Lane};
use leyden::log::{ConsumerOptions, EventLog, LogOptions, NewEvent};
use leyden::migrate::{migrate, Moved};
use leyden::store::{
	Batch, Key, ManualClock, Namespace, RecordType, Store, StoreError, Table, Value,
};
use leyden::{Leyden, StoreUrl};

fn id(n: u64) -> EventId {
	IdBuilder::new(Domain::new("test/migrate", 1), "n").number(n).finish()
}

fn event(n: u64) -> NewEvent {
	let kind = EventKind::new("kind").unwrap();
	NewEvent { id: id(n), kind, lane: Lane::named(&n.to_string()), payload: vec![n as u8; 100] }
}

fn log(store: &Arc<dyn Store>) -> EventLog {
	let clock = Arc::new(ManualClock::default());
	EventLog::open(Arc::clone(store), "work", clock, LogOptions::default()).unwrap()
}

/// 2,500 entries, every third acked by one of two consumers, all up to 100 by both.
fn fill(url: &StoreUrl) {
	let store = url.open(Namespace::default()).unwrap();
	let log = log(&store);
	let first = log.consumer("first", ConsumerOptions::default()).unwrap();
	let second = log.consumer("second", ConsumerOptions::default()).unwrap();
	for n in 0..2_500 {
		log.append(event(n)).unwrap();
	}
	for consumer in [&first, &second] {
		let mut held = Vec::new();
		while let Some(delivery) = consumer.next_event().unwrap() {
			let index = delivery.index().get();
			if index <= 100 || (index % 3 == 0 && consumer.name() == "first") {
				delivery.ack().unwrap();
			} else {
				held.push(delivery);
			}
			if index > 400 {
				break;
			}
		}
	}
}

/// Everything that a user can see of the log.
fn seen(url: &StoreUrl) -> Vec<String> {
	let store = url.open(Namespace::default()).unwrap();
	let log = log(&store);
	let mut seen = Vec::new();
	for name in ["first", "second"] {
		let options = ConsumerOptions { max_in_flight: 3_000, ..ConsumerOptions::default() };
		let consumer = log.consumer(name, options).unwrap();
		let mut held = Vec::new();
		while let Some(delivery) = consumer.next_event().unwrap() {
			seen.push(format!("{name} {} {}", delivery.index(), delivery.id()));
			held.push(delivery);
		}
	}
	// A number is not given again, and an id is known.
	let again = log.append(event(7)).unwrap();
	seen.push(format!("{again:?}"));
	seen
}

fn places(dir: &std::path::Path) -> Vec<(StoreUrl, Option<Arc<leyden_testkit::postgres::Server>>)> {
	let mut places = vec![(StoreUrl::Sqlite(dir.join("two.leyden")), None)];
	if cfg!(feature = "storage-redb") {
		places.push((StoreUrl::Redb(dir.join("three.redb")), None));
	}
	if cfg!(feature = "storage-postgres") {
		if let Some(server) = leyden_testkit::postgres::Server::start() {
			places.push((StoreUrl::Postgres(server.url()), Some(Arc::new(server))));
		}
	}
	places.push((StoreUrl::Sqlite(dir.join("last.leyden")), None));
	places
}

fn go(from: &StoreUrl, to: &StoreUrl) -> Result<Moved, StoreError> {
	migrate(from, to, &Namespace::default(), |_| {})
}

#[test]
fn a_log_moves_through_every_engine_and_is_the_same() {
	let dir = tempfile::tempdir().unwrap();
	let (first, copy) = (dir.path().join("one.leyden"), dir.path().join("copy.leyden"));
	fill(&StoreUrl::Sqlite(first.clone()));
	std::fs::copy(&first, &copy).unwrap();
	let expected = seen(&StoreUrl::Sqlite(copy));
	let mut from = StoreUrl::Sqlite(first);
	let mut digests = Vec::new();
	for (to, _server) in &places(dir.path()) {
		let moved = go(&from, to).unwrap();
		assert!(moved.records > 5_000 && moved.found == 0, "{moved:?}");
		digests.push(moved.digest);
		// Nobody goes on with the old one by accident.
		let refused = from.open(Namespace::default()).map(|_| ()).unwrap_err();
		assert!(matches!(&refused, StoreError::Moved { mark, .. } if mark.done), "{refused}");
		assert!(refused.to_string().contains(&to.to_string()), "{refused}");
		assert!(matches!(go(&from, to), Err(StoreError::Moved { .. })));
		from = to.clone();
	}
	assert!(digests.windows(2).all(|two| two[0] == two[1]), "not a byte differs");
	let epoch = Leyden::builder().url(from.clone()).open().unwrap();
	drop(epoch);
	assert_eq!(seen(&from), expected);
}

/// Dies at every step that reports progress, and at the last moment; goes on each time.
#[test]
fn an_interrupted_move_goes_on() {
	let dir = tempfile::tempdir().unwrap();
	let whole = dir.path().join("whole.leyden");
	fill(&StoreUrl::Sqlite(whole.clone()));
	let mut steps = 0;
	for at in 0.. {
		let (from, to) = (dir.path().join(format!("f{at}")), dir.path().join(format!("t{at}")));
		std::fs::copy(&whole, &from).unwrap();
		let (from, to) = (StoreUrl::Sqlite(from), StoreUrl::Sqlite(to));
		let mut reports = 0;
		let died = catch_unwind(AssertUnwindSafe(|| {
			migrate(&from, &to, &Namespace::default(), |_| {
				assert!(reports < at, "dies here");
				reports += 1;
			})
		}));
		if died.is_ok() {
			steps = at;
			break;
		}
		for url in [&from, &to] {
			let refused = url.open(Namespace::default()).map(|_| ()).unwrap_err();
			assert!(matches!(&refused, StoreError::Moved { mark, .. } if !mark.done), "{refused}");
		}
		// Not to a third place.
		let elsewhere = StoreUrl::Sqlite(dir.path().join(format!("e{at}")));
		assert!(matches!(go(&from, &elsewhere), Err(StoreError::Moved { .. })));
		let moved = go(&from, &to).unwrap();
		assert!(moved.records > 5_000 && moved.found > 0, "{at} {moved:?}");
		drop(to.open(Namespace::default()).unwrap());
	}
	assert!(steps > 10, "{steps}");
}

#[test]
fn a_move_is_refused_while_somebody_writes_and_onto_what_is_there() {
	let dir = tempfile::tempdir().unwrap();
	let url = |name: &str| StoreUrl::Sqlite(dir.path().join(name));
	let writer = Leyden::builder().url(url("a")).open().unwrap();
	let refused = go(&url("a"), &url("b")).unwrap_err();
	assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
	drop(writer);
	drop(Leyden::builder().url(url("full")).open().unwrap());
	let refused = go(&url("a"), &url("full")).unwrap_err().to_string();
	assert!(refused.contains("records of its own"), "{refused}");
	assert!(go(&url("a"), &url("a")).is_err());
	assert!(go(&url("nowhere"), &url("b")).is_err());
	assert!(go(&StoreUrl::Memory, &url("b")).is_err());
	// None of that has hurt.
	drop(Leyden::builder().url(url("a")).open().unwrap());
	drop(Leyden::builder().url(url("full")).open().unwrap());
}

/// A table that had records and has none is no difference.
#[test]
fn a_table_that_is_empty_moves() {
	let dir = tempfile::tempdir().unwrap();
	let from = StoreUrl::Sqlite(dir.path().join("from"));
	let to = StoreUrl::Sqlite(dir.path().join("to"));
	fill(&from);
	let store = from.open(Namespace::default()).unwrap();
	let key = Key::new(Table::new("was_here"), *b"k");
	let mut batch = Batch::new();
	batch.put(key.clone(), Value::new(RecordType(0x8000), 1, vec![1]));
	store.commit(batch).wait().unwrap();
	let mut batch = Batch::new();
	batch.delete(key);
	store.commit(batch).wait().unwrap();
	drop(store);
	let before = seen(&from);
	migrate(&from, &to, &Namespace::default(), |_| ()).unwrap();
	assert_eq!(seen(&to), before);
}
