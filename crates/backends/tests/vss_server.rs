// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A VSS store on a real server, behind a relay that names the protocol's version where the server
//! does not, and that loses requests and replies on demand.
//!
//! `LEYDEN_VSS_URL` is the server's URL, such as `http://127.0.0.1:8090/vss`, without TLS and without
//! headers that it wants. `LEYDEN_VSS_SMALL_URL` is that of a server that takes request bodies of
//! 100,000 bytes at most. Every test uses a store of its own, which is left behind.

#![cfg(feature = "vss")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod batches;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use batches::{append, append_in_trouble, bodies, put, puts, value, T};
use leyden_backends::vss::{VssConfig, VssOptions, VssStore};
use leyden_store::conformance::{Backend, CHECKS};
use leyden_store::group::{OutagePolicy, StoreEvent};
use leyden_store::key::{MAX_KEY_BYTES, MAX_TABLE_NAME_CHARS};
use leyden_store::{Batch, Key, KeyRange, Namespace, Store, StoreError, Table, Value};
use leyden_testkit::vss_relay::{Loss, Relay};

const SECRET: [u8; 32] = [9; 32];

/// A relay, and the name of a store that was not used before.
struct Place {
	relay: Relay,
	store_id: String,
}

impl Place {
	fn new() -> Self {
		Self::on("LEYDEN_VSS_URL")
	}

	fn small() -> Self {
		Self::on("LEYDEN_VSS_SMALL_URL")
	}

	fn on(variable: &str) -> Self {
		let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set"));
		Self { relay: Relay::start(&url), store_id: fresh_name() }
	}

	fn config(&self) -> VssConfig {
		VssConfig::new(self.relay.url(), self.store_id.as_str(), SECRET)
	}

	fn open(&self) -> VssStore {
		VssStore::open(self.config(), &Namespace::default(), &options()).unwrap()
	}
}

fn fresh_name() -> String {
	let mut random = [0; 16];
	getrandom::getrandom(&mut random).unwrap();
	random.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn options() -> VssOptions {
	VssOptions { timeout: Duration::from_secs(30), outages: OutagePolicy::none() }
}

fn large(bytes: usize) -> Value {
	let byte = |n: usize| u8::try_from(n % 251).unwrap();
	value((0..bytes).map(byte).collect::<Vec<u8>>())
}

/// Stores on the server, each in a store of its own.
struct OnTheServer {
	place: Place,
	last: Mutex<Weak<VssStore>>,
}

impl OnTheServer {
	fn last(&self) -> Arc<VssStore> {
		self.last.lock().unwrap().upgrade().unwrap()
	}
}

impl Backend for OnTheServer {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		let store = Arc::new(VssStore::open(self.place.config(), namespace, &options())?);
		*self.last.lock().unwrap() = Arc::downgrade(&store);
		Ok(store)
	}

	fn damage(
		&self, _: &Arc<dyn Store>, _: &Namespace, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> bool {
		self.last().damage(key, change).unwrap()
	}

	fn fail_next_flush(&self, _: &Arc<dyn Store>) -> bool {
		self.last().fail_next_flush();
		true
	}
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn every_promise_of_the_trait_is_kept() {
	for (name, check) in CHECKS {
		// A panic names its thread.
		let named = std::thread::Builder::new().name((*name).to_owned());
		let run = || check(&OnTheServer { place: Place::new(), last: Mutex::default() });
		named.spawn(run).unwrap().join().unwrap();
	}
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn what_was_committed_is_there_when_the_store_is_opened_again() {
	let place = Place::new();
	let store = place.open();
	assert!(bodies(&store).is_empty());
	for body in ["a", "b", "c"] {
		store.commit(append(body)).wait().unwrap();
	}
	assert_eq!(bodies(&store), ["a", "b", "c"]);
	drop(store);
	let store = place.open();
	assert_eq!(bodies(&store), ["a", "b", "c"]);
	store.commit(append("d")).wait().unwrap();
	drop(store);
	assert_eq!(bodies(&place.open()), ["a", "b", "c", "d"]);
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn a_writer_that_wakes_up_is_fenced() {
	let place = Place::new();
	let old = place.open();
	old.commit(append("old")).wait().unwrap();
	let new = place.open();
	let error = old.commit(append("too late")).wait().unwrap_err();
	assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
	new.commit(append("new")).wait().unwrap();
	assert_eq!(bodies(&new), ["old", "new"]);
}

/// The server does the transactions of all openings one after the other, and the last one has the
/// store.
#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn of_those_who_open_at_the_same_time_one_can_write() {
	let place = Place::new();
	let open = || {
		std::thread::scope(|scope| {
			let opening: Vec<_> = (0..6).map(|_| scope.spawn(|| place.open())).collect();
			opening.into_iter().map(|opened| opened.join().unwrap()).collect::<Vec<_>>()
		})
	};
	let stores = open();
	let epochs: HashSet<_> = stores.iter().map(|store| store.epoch().unwrap()).collect();
	assert_eq!(epochs.len(), stores.len());
	let committed: Vec<_> = stores.iter().map(|store| store.commit(append("x")).wait()).collect();
	assert_eq!(committed.iter().filter(|committed| committed.is_ok()).count(), 1);
	let is_kept_out =
		|committed: &&Result<_, StoreError>| matches!(committed, Err(StoreError::Fenced { .. }));
	assert_eq!(committed.iter().filter(is_kept_out).count(), stores.len() - 1);
	assert_eq!(bodies(&place.open()), ["x"]);
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn what_is_lost_on_the_way_is_written_once() {
	let place = Place::new();
	let store = place.open();
	let mut written = Vec::new();
	for losses in [
		vec![Loss::Reply],
		vec![Loss::Request],
		vec![Loss::ArrivesBeforeTheNext],
		vec![Loss::Reply, Loss::Request, Loss::Reply],
		vec![Loss::ArrivesBeforeTheNext, Loss::ArrivesBeforeTheNext, Loss::Request],
	] {
		let before = place.relay.puts();
		place.relay.next_puts(losses.clone());
		let body = format!("{losses:?}");
		store.commit(append(&body)).wait().unwrap();
		written.push(body);
		assert!(place.relay.puts() > before + 1, "nothing was lost");
	}
	assert_eq!(bodies(&store), written);
	drop(store);
	assert_eq!(bodies(&place.open()), written);
}

/// Deletions are not idempotent for the server: one that was done is a conflict the next time.
#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn a_deletion_whose_reply_was_lost_is_done_once() {
	let place = Place::new();
	let store = place.open();
	store.commit(puts(3, b"n")).wait().unwrap();
	for loss in [Loss::Reply, Loss::Request, Loss::ArrivesBeforeTheNext] {
		let key = store.scan(KeyRange::all(T), 1).wait().unwrap().records[0].0.clone();
		let mut batch = Batch::new();
		batch.delete(key.clone()).delete(Key::new(T, *b"never was"));
		place.relay.next_puts([loss]);
		store.commit(batch).wait().unwrap();
		assert!(store.get(&key).wait().unwrap().is_none());
	}
	assert!(bodies(&store).is_empty());
	assert!(bodies(&place.open()).is_empty());
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn a_load_in_trouble_loses_nothing() {
	let place = Place::new();
	let losses = [Loss::Reply, Loss::ArrivesBeforeTheNext, Loss::Request];
	append_in_trouble(&place.open(), |which| place.relay.next_puts([losses[which]]));
}

/// The server takes a thousand items, of which the head is one.
#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn a_batch_has_as_many_records_as_the_server_takes() {
	let place = Place::new();
	let store = place.open();
	assert_eq!(store.guarantees().max_writes, 999);
	store.commit(puts(999, b"a")).wait().unwrap();
	let error = store.commit(puts(1000, b"b")).wait().unwrap_err();
	assert!(matches!(error, StoreError::TooLarge { limit: 999, .. }), "{error}");
	assert_eq!(bodies(&store).len(), 999);
	// And as many can be deleted at once.
	let mut batch = Batch::new();
	for n in 0..999 {
		batch.delete(Key::numbered(T, b"a", n));
	}
	store.commit(batch).wait().unwrap();
	assert!(bodies(&store).is_empty());
	assert!(bodies(&place.open()).is_empty());
}

/// The server lists a hundred names on a page.
#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn keys_of_several_pages_are_found_and_deleted() {
	const OTHER: Table = Table::new("other");
	let place = Place::new();
	let store = place.open();
	let mut batch = Batch::new();
	for n in 0..350 {
		batch.put(Key::numbered(T, b"n", n), value(n.to_string()));
		batch.put(Key::numbered(OTHER, b"n", n), value("not among them"));
	}
	store.commit(batch).wait().unwrap();
	drop(store);
	let store = place.open();
	let all: Vec<String> = (0..350).map(|n| n.to_string()).collect();
	assert_eq!(bodies(&store), all);
	let mut batch = Batch::new();
	for n in (0..350).filter(|n| n % 2 == 0) {
		batch.delete(Key::numbered(T, b"n", n));
	}
	store.commit(batch).wait().unwrap();
	drop(store);
	let odd: Vec<String> = all.into_iter().skip(1).step_by(2).collect();
	let store = place.open();
	assert_eq!(bodies(&store), odd);
	// A name that was deleted is a new one for the server.
	store.commit(put(&Key::numbered(T, b"n", 0), value("again"))).wait().unwrap();
	let with_it: Vec<String> = std::iter::once("again".to_owned()).chain(odd).collect();
	assert_eq!(bodies(&place.open()), with_it);
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn the_longest_names_are_taken() {
	const LONGEST: Table = Table::new("sixteen_letters_");
	assert_eq!(LONGEST.name().len(), MAX_TABLE_NAME_CHARS);
	let place = Place::new();
	let namespace = Namespace::default();
	let store_id = format!("{:n<112}", place.store_id);
	let config = VssConfig::new(place.relay.url(), store_id, SECRET);
	let store = VssStore::open(config.clone(), &namespace, &options()).unwrap();
	let key = Key::new(LONGEST, [0xf1; MAX_KEY_BYTES]);
	store.commit(put(&key, value("found"))).wait().unwrap();
	drop(store);
	let store = VssStore::open(config, &namespace, &options()).unwrap();
	assert_eq!(store.get(&key).wait().unwrap().unwrap().value, value("found"));
	let page = store.scan(KeyRange::all(LONGEST), 10).wait().unwrap();
	assert_eq!(page.records[0].0, key);
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn a_value_of_many_megabytes_comes_back_whole() {
	let place = Place::new();
	let store = place.open();
	let key = Key::new(T, *b"large");
	for losses in [vec![], vec![Loss::Reply], vec![Loss::Request; 2], vec![Loss::Request; 3]] {
		let bytes = (5 << 20) + losses.len();
		place.relay.next_puts(losses);
		store.commit(put(&key, large(bytes))).wait().unwrap();
		assert!(store.get(&key).wait().unwrap().unwrap().value == large(bytes));
	}
	drop(store);
	assert!(place.open().get(&key).wait().unwrap().unwrap().value == large((5 << 20) + 3));
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn reading_disturbs_nobody() {
	let place = Place::new();
	let namespace = Namespace::default();
	let error = VssStore::open_read_only(place.config(), &namespace, &options()).unwrap_err();
	assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
	let store = place.open();
	store.commit(append("one")).wait().unwrap();
	let reader = VssStore::open_read_only(place.config(), &namespace, &options()).unwrap();
	assert_eq!(bodies(&reader), ["one"]);
	let error = reader.commit(append("x")).wait().unwrap_err();
	assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
	store.commit(append("two")).wait().unwrap();
	assert_eq!(bodies(&store), ["one", "two"]);
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn another_secret_is_refused() {
	let place = Place::new();
	place.open().commit(append("mine")).wait().unwrap();
	let other = VssConfig::new(place.relay.url(), place.store_id.as_str(), [1; 32]);
	let error = VssStore::open(other, &Namespace::default(), &options()).unwrap_err();
	assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
	assert!(error.to_string().contains("another secret"), "{error}");
	assert_eq!(bodies(&place.open()), ["mine"]);
}

/// The published server of May 2026 names no version of the protocol; a later one may.
#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn a_server_without_a_relay_is_used_or_refused_for_its_version() {
	let url = std::env::var("LEYDEN_VSS_URL").expect("LEYDEN_VSS_URL is not set");
	let config = VssConfig::new(url, fresh_name(), SECRET);
	// The patience is longer than the test.
	let patient = VssOptions { timeout: Duration::from_secs(3_600), ..options() };
	match VssStore::open(config, &Namespace::default(), &patient) {
		Ok(store) => drop(store.commit(append("a")).wait().unwrap()),
		Err(error) => {
			assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
			assert!(error.to_string().contains("vss-protocol-version"), "{error}");
		},
	}
}

/// The server answers, and has nothing at that path.
#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_URL"]
fn a_wrong_address_is_refused_at_once() {
	let place = Place::new();
	let wrong = VssConfig::new(place.relay.url() + "/wrong", place.store_id.as_str(), SECRET);
	// The patience is longer than the test.
	let patient = VssOptions { timeout: Duration::from_secs(3_600), ..options() };
	let error = VssStore::open(wrong, &Namespace::default(), &patient).unwrap_err();
	assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
	assert!(error.to_string().contains("check the URL"), "{error}");
}

#[test]
#[ignore = "needs a VSS server: LEYDEN_VSS_SMALL_URL"]
fn a_group_that_the_server_finds_too_large_is_refused_and_the_handle_goes_on() {
	let place = Place::small();
	let store = place.open();
	let told: Arc<Mutex<Vec<StoreEvent>>> = Arc::default();
	let events = Arc::clone(&told);
	assert!(store.observe(Arc::new(move |event| events.lock().unwrap().push(event.clone()))));
	store.commit(append("before")).wait().unwrap();
	let key = Key::new(T, *b"large");
	for bytes in [150_000, 5 << 20] {
		let error = store.commit(put(&key, large(bytes))).wait().unwrap_err();
		assert_eq!(place.relay.put_statuses().last(), Some(&413));
		assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
		assert!(!error.is_retriable() && !error.ends_handle(), "{error}");
		assert!(error.to_string().contains("VSS_MAX_REQUEST_BODY_SIZE"), "{error}");
		assert!(store.get(&key).wait().unwrap().is_none());
	}
	store.commit(put(&Key::new(Table::new("fits"), *b"k"), large(90_000))).wait().unwrap();
	store.commit(append("after")).wait().unwrap();
	assert!(told.lock().unwrap().is_empty(), "it was called an outage");
	assert_eq!(bodies(&store), ["before", "after"]);
	drop(store);
	assert_eq!(bodies(&place.open()), ["before", "after"]);
}
