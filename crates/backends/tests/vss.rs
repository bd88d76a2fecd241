//! What may go wrong with a VSS server and on the way to it, against a small server that speaks the
//! published protocol. The tests against the published server are in `vss_server.rs`.

#![cfg(feature = "vss")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod batches;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batches::{append, append_in_trouble, bodies, put, puts, value, T};
use leyden_backends::vss::client_ng::headers::FixedHeaders;
use leyden_backends::vss::{VssConfig, VssOptions, VssStore};
use leyden_store::frame::MAX_BODY_BYTES;
use leyden_store::group::{Closing, OutagePolicy, Pauser, StoreEvent};
use leyden_store::{
	Batch, Expectation, Key, KeyRange, Namespace, RecordType, Store, StoreError, Table, Value,
};
use leyden_testkit::vss::{BodyLimit, Server, Trouble};
use proptest::prelude::*;

const SECRET: [u8; 32] = [9; 32];

fn config(server: &Server) -> VssConfig {
	VssConfig::new(server.url(), "node", SECRET)
}

fn open_within(server: &Server, timeout: Duration) -> Result<VssStore, StoreError> {
	VssStore::open(config(server), &Namespace::default(), &options(timeout))
}

fn options(timeout: Duration) -> VssOptions {
	VssOptions { timeout, outages: OutagePolicy::none() }
}

fn open(server: &Server) -> VssStore {
	open_within(server, Duration::from_secs(20)).unwrap()
}

/// The published server of May 2026 names no version: a mismatch that no waiting mends.
#[test]
fn a_server_without_a_version_is_refused_at_once() {
	let server = Server::start();
	let store = open(&server);
	store.commit(append("a")).wait().unwrap();
	server.name_no_version();
	// The patience is longer than the test.
	let patient = Duration::from_secs(3_600);
	let error = open_within(&server, patient).map(|_| ()).unwrap_err();
	assert!(matches!(&error, StoreError::Invalid { .. }) && !error.is_retriable(), "{error}");
	assert!(error.to_string().contains("another version of the protocol"), "{error}");
}

#[test]
fn a_name_that_the_server_does_not_take_is_refused_at_once() {
	let server = Server::start();
	let long = VssConfig::new(server.url(), "n".repeat(113), SECRET);
	let opened = VssStore::open(long, &Namespace::default(), &options(Duration::from_secs(20)));
	let error = opened.map(|_| ()).unwrap_err();
	assert!(error.to_string().contains("121 characters"), "{error}");
	let fits = VssConfig::new(server.url(), "n".repeat(112), SECRET);
	VssStore::open(fits, &Namespace::default(), &options(Duration::from_secs(20))).unwrap();
}

/// A server whose pages follow each other in a circle would be listed for ever.
#[test]
fn a_list_that_repeats_itself_ends() {
	let server = Server::start();
	let store = open(&server);
	store.commit(append("a")).wait().unwrap();
	drop(store);
	server.repeat_pages();
	let scanned = open_within(&server, Duration::from_secs(20))
		.and_then(|store| store.scan(KeyRange::all(T), 10).wait().map(|_| ()));
	let error = scanned.expect_err("it cannot be listed").to_string();
	assert!(error.contains("repeats itself"), "{error}");
}

/// Whatever becomes of a request and its reply, what is acknowledged is there, once.
#[test]
fn troubles_on_the_way_lose_nothing_and_repeat_nothing() {
	use Trouble::*;
	let server = Server::start();
	let store = open(&server);
	let mut written = Vec::new();
	for troubles in [
		vec![LoseRequest],
		vec![LoseReply],
		vec![DoneBeforeTheNext],
		vec![DoneAfterTheNext],
		vec![InternalError],
		vec![LoseReply, LoseRequest, InternalError],
		vec![DoneBeforeTheNext, LoseReply],
		vec![DoneAfterTheNext, DoneBeforeTheNext, LoseRequest],
		vec![InternalError, Unauthorized, LoseReply],
	] {
		server.next_puts(troubles.clone());
		let body = format!("{troubles:?}");
		store.commit(append(&body)).wait().unwrap();
		written.push(body);
		// And nothing that was late comes after the next.
		store.commit(append("quiet")).wait().unwrap();
		written.push("quiet".to_owned());
	}
	assert_eq!(bodies(&store), written);
	drop(store);
	assert_eq!(bodies(&open(&server)), written);
}

/// Deletions are not idempotent for the server: one that was done is a conflict the next time.
#[test]
fn a_deletion_whose_reply_was_lost_is_done_once() {
	let server = Server::start();
	let store = open(&server);
	store.commit(puts(3, b"n")).wait().unwrap();
	for trouble in [Trouble::LoseReply, Trouble::DoneBeforeTheNext, Trouble::LoseRequest] {
		let mut batch = Batch::new();
		let key = store.scan(KeyRange::all(T), 1).wait().unwrap().records[0].0.clone();
		batch.delete(key.clone()).delete(Key::new(T, *b"never was"));
		server.next_puts([trouble]);
		store.commit(batch).wait().unwrap();
		assert!(store.get(&key).wait().unwrap().is_none());
	}
	assert!(bodies(&store).is_empty());
	assert!(bodies(&open(&server)).is_empty());
}

#[derive(Clone, Debug)]
enum Step {
	Append,
	AppendLarge,
	DeleteFirst,
	Trouble(Trouble),
	Reopen,
}

fn step() -> impl Strategy<Value = Step> {
	use Trouble::*;
	prop_oneof![
		4 => Just(Step::Append),
		2 => Just(Step::AppendLarge),
		2 => Just(Step::DeleteFirst),
		4 => prop::sample::select(vec![
			LoseRequest, LoseReply, DoneBeforeTheNext, DoneAfterTheNext, InternalError,
		])
		.prop_map(Step::Trouble),
		1 => Just(Step::Reopen),
	]
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

	/// As above, in any order, and also while it is opened.
	#[test]
	fn what_is_acknowledged_is_there_once(steps in prop::collection::vec(step(), 1..24)) {
		let server = Server::start();
		let mut store = open(&server);
		let mut expected: Vec<String> = Vec::new();
		for (n, step) in steps.into_iter().enumerate() {
			match step {
				Step::Append => {
					store.commit(append(&n.to_string())).wait().unwrap();
					expected.push(n.to_string());
				},
				Step::AppendLarge => {
					let body = format!("{n}{}", "x".repeat(100_000));
					store.commit(append(&body)).wait().unwrap();
					expected.push(body);
				},
				Step::DeleteFirst if expected.is_empty() => {},
				Step::DeleteFirst => {
					let page = store.scan(KeyRange::all(T), 1).wait().unwrap();
					let mut batch = Batch::new();
					batch.delete(page.records[0].0.clone());
					store.commit(batch).wait().unwrap();
					expected.remove(0);
				},
				Step::Trouble(trouble) => server.next_puts([trouble]),
				Step::Reopen => store = open(&server),
			}
			prop_assert_eq!(bodies(&store), expected.clone());
		}
	}
}

/// From many threads, with troubles all the while.
#[test]
fn a_load_in_trouble_loses_nothing() {
	let server = Server::start();
	let troubles = [Trouble::LoseReply, Trouble::DoneBeforeTheNext, Trouble::LoseRequest];
	append_in_trouble(&open(&server), |which| server.next_puts([troubles[which]]));
}

/// A node that was away while another took over writes nothing, and is told so.
#[test]
fn a_writer_that_wakes_up_is_fenced() {
	let server = Server::start();
	let old = open(&server);
	old.commit(append("old")).wait().unwrap();
	let new = open(&server);
	let error = old.commit(append("too late")).wait().unwrap_err();
	assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
	let error = old.commit(append("later")).wait().unwrap_err();
	assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
	new.commit(append("new")).wait().unwrap();
	assert_eq!(bodies(&new), ["old", "new"]);
}

/// The other came between our look at the epoch and our put: the server's version keeps us out.
#[test]
fn a_writer_that_wakes_up_in_the_middle_is_fenced() {
	let server = Server::start();
	let store = open(&server);
	server.next_puts([Trouble::AnotherCameFirst]);
	let error = store.commit(append("too late")).wait().unwrap_err();
	assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
	assert!(bodies(&open(&server)).is_empty());
}

/// A put that was under way when another took over: nobody can tell any more whether it was done
/// before that, so nobody says that it was not.
#[test]
fn a_group_that_was_lost_and_buried_is_indeterminate() {
	for trouble in [Trouble::DoneBeforeTheNext, Trouble::DoneAfterTheNext] {
		let server = Arc::new(Server::start());
		let old = open(&server);
		server.next_puts([trouble]);
		let ticket = old.commit(append("lost"));
		// Nobody helps it until it is waited for; the put of the one who takes over is the next.
		let waiting = std::thread::spawn(move || ticket.wait());
		while server.puts() < 2 {
			std::thread::yield_now();
		}
		let new = open(&server);
		match waiting.join().unwrap() {
			// It was sent again before the other came.
			Ok(_) => assert_eq!(bodies(&new), ["lost"]),
			Err(error) => {
				assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
				let was_done = trouble == Trouble::DoneBeforeTheNext;
				assert_eq!(bodies(&new).len(), usize::from(was_done), "{trouble:?}");
				let again = old.commit(append("x")).wait().unwrap_err();
				assert!(matches!(again, StoreError::Poisoned { .. }), "{again}");
			},
		}
	}
}

/// While it is away nothing is written and nothing is over; when it is back, all goes on.
#[test]
fn a_server_that_was_away_is_used_again() {
	let server = Server::start();
	let store = open_within(&server, Duration::from_millis(300)).unwrap();
	server.set_down(true);
	let error = store.commit(append("away")).wait().unwrap_err();
	assert!(error.is_retriable(), "{error}");
	let error = open_within(&server, Duration::from_millis(100)).unwrap_err();
	assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
	server.set_down(false);
	store.commit(append("back")).wait().unwrap();
	assert_eq!(bodies(&store), ["back"]);
}

/// A server that does not come back while a group is under way: the handle is over.
#[test]
fn a_group_without_an_answer_ends_the_handle() {
	let server = Server::start();
	let store = open_within(&server, Duration::from_millis(300)).unwrap();
	server.next_puts([Trouble::LoseReply; 1000]);
	let error = store.commit(append("lost")).wait().unwrap_err();
	// The first was done; the second said so, had anybody been able to hear it.
	assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
	let error = store.commit(append("more")).wait().unwrap_err();
	assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
}

#[test]
fn a_group_has_as_many_records_as_the_server_takes() {
	let server = Server::start();
	let store = open(&server);
	let most = store.guarantees().max_writes as u64;
	store.commit(puts(most - 2, b"a")).wait().unwrap();
	let error = store.commit(puts(most + 1, b"b")).wait().unwrap_err();
	assert!(matches!(error, StoreError::TooLarge { limit: 999, .. }), "{error}");
	// Together they are too many, and go one after the other; one that is too large alone takes
	// nobody with it.
	let sizes = [700, 700, 1200, 10, 990, 1];
	let tickets: Vec<_> = sizes
		.iter()
		.enumerate()
		.map(|(n, size)| store.commit(puts(*size, &[b'c', n as u8])))
		.collect();
	for (size, ticket) in sizes.iter().zip(tickets) {
		assert_eq!(ticket.wait().is_ok(), *size < 1000, "{size}");
	}
	assert_eq!(bodies(&store).len() as u64, most - 2 + 700 + 700 + 10 + 990 + 1);
	assert_eq!(store.stats().batches, 8);
}

/// Returns a value of so many bytes.
fn large(first: u8, bytes: usize) -> Value {
	let mut body = vec![0x5a; bytes];
	body[0] = first;
	Value::new(RecordType(0x8000), 1, body)
}

/// A batch with more bytes is refused before it is in a group, and takes nobody with it.
#[test]
fn a_batch_has_as_many_bytes_as_one_record_may_have() {
	let server = Server::start();
	let store = open(&server);
	let puts = server.puts();
	let mut over = Batch::new();
	over.put(Key::new(T, *b"a"), large(1, MAX_BODY_BYTES / 2));
	over.put(Key::new(T, *b"b"), large(2, MAX_BODY_BYTES / 2 + 1));
	let tickets =
		[store.commit(append("before")), store.commit(over), store.commit(append("after"))];
	let [before, over, after] = tickets.map(leyden_store::Ticket::wait);
	let error = over.unwrap_err();
	let found = MAX_BODY_BYTES + 1;
	assert!(
		matches!(error, StoreError::TooLarge { limit: MAX_BODY_BYTES, found: f, .. } if f == found),
		"{error}"
	);
	assert!(before.is_ok() && after.is_ok());
	assert!(server.puts() <= puts + 2);
	assert_eq!(bodies(&store), ["before", "after"]);
}

/// The server refuses it, or a proxy does, or the connection is closed: no outage is told, the error
/// says what to do, and the handle goes on with what is smaller.
#[test]
fn a_request_that_is_refused_for_its_size_is_an_error_and_the_handle_goes_on() {
	for how in [BodyLimit::Says, BodyLimit::ProxySays, BodyLimit::CutsOff] {
		let server = Server::start();
		// The patience is longer than the test, also with an outage.
		let timeout = Duration::from_secs(3_600);
		let outages = OutagePolicy::tolerating(timeout);
		let options = VssOptions { timeout, outages };
		let store = VssStore::open(config(&server), &Namespace::default(), &options).unwrap();
		let told: Arc<Mutex<Vec<StoreEvent>>> = Arc::default();
		let events = Arc::clone(&told);
		assert!(store.observe(Arc::new(move |event| events.lock().unwrap().push(event.clone()))));
		store.commit(append("before")).wait().unwrap();
		server.limit_bodies(1 << 20, how);
		let key = Key::new(Table::new("large"), *b"k");
		for troubles in [vec![], vec![Trouble::LoseReply; 2]] {
			// Troubles of the small group that settles the large one, where there is one.
			server.next_puts(troubles);
			let puts = server.puts();
			// Large enough that a connection that is closed is noticed while it is written.
			let error = store.commit(put(&key, large(1, 8 << 20))).wait().unwrap_err();
			assert!(matches!(error, StoreError::Invalid { .. }), "{how:?}: {error}");
			assert!(!error.is_retriable() && !error.ends_handle(), "{error}");
			let said = error.to_string();
			assert!(said.contains("VSS_MAX_REQUEST_BODY_SIZE") && said.contains("838"), "{said}");
			assert!(store.get(&key).wait().unwrap().is_none());
			// A clear answer needs nothing to settle it.
			assert_eq!(server.puts() == puts, how == BodyLimit::Says, "{how:?}");
		}
		store.commit(put(&key, large(2, 1 << 19))).wait().unwrap();
		store.commit(append("after")).wait().unwrap();
		assert!(told.lock().unwrap().is_empty(), "{how:?}: it was called an outage");
		assert_eq!(bodies(&store), ["before", "after"]);
		server.limit_bodies(usize::MAX, how);
		store.commit(put(&key, large(3, 8 << 20))).wait().unwrap();
		drop(store);
		let store = open(&server);
		assert_eq!(bodies(&store), ["before", "after"]);
		assert!(store.get(&key).wait().unwrap().unwrap().value == large(3, 8 << 20));
	}
}

/// Behind a limit, batches that are too large together go one after the other, and one that is too large
/// alone takes no other with it.
#[test]
fn a_batch_that_is_too_large_takes_no_other_with_it() {
	for how in [BodyLimit::Says, BodyLimit::ProxySays, BodyLimit::CutsOff] {
		let server = Server::start();
		let store = open(&server);
		server.limit_bodies(1 << 20, how);
		let key = |n: usize| Key::numbered(Table::new("large"), b"", n as u64);
		let sizes = [700 << 10, 700 << 10, 8 << 20, 10, 900 << 10];
		let batches = sizes.iter().enumerate();
		let tickets: Vec<_> =
			batches.map(|(n, size)| store.commit(put(&key(n), large(n as u8, *size)))).collect();
		for (n, (size, ticket)) in sizes.iter().zip(tickets).enumerate() {
			let fits = *size < 1 << 20;
			assert_eq!(ticket.wait().is_ok(), fits, "{how:?}: {size}");
			assert_eq!(store.get(&key(n)).wait().unwrap().is_some(), fits, "{how:?}: {size}");
		}
	}
}

/// A large group that is lost is settled by a small one, and then it is known whether it was written.
#[test]
fn a_large_group_in_trouble_is_written_once() {
	use Trouble::*;
	let server = Server::start();
	let store = open(&server);
	let mut written = Vec::new();
	for troubles in [
		vec![LoseReply],
		vec![LoseReply, LoseReply],
		vec![LoseRequest, LoseRequest],
		vec![LoseRequest, LoseRequest, LoseReply],
		vec![LoseRequest, LoseRequest, LoseRequest],
		vec![LoseRequest, InternalError, DoneBeforeTheNext],
		vec![LoseRequest, InternalError, DoneAfterTheNext],
		vec![DoneBeforeTheNext, DoneBeforeTheNext],
		vec![DoneAfterTheNext, DoneBeforeTheNext, LoseRequest],
		vec![LoseRequest, LoseRequest, DoneAfterTheNext, LoseRequest, DoneAfterTheNext],
		vec![LoseRequest, Unauthorized, LoseReply],
	] {
		server.next_puts(troubles.clone());
		let body = format!("{troubles:?}{}", "x".repeat(1 << 20));
		store.commit(append(&body)).wait().unwrap();
		written.push(body);
		store.commit(append("quiet")).wait().unwrap();
		written.push("quiet".to_owned());
		let store = VssStore::open_read_only(
			config(&server),
			&Namespace::default(),
			&options(Duration::from_secs(20)),
		);
		assert!(bodies(&store.unwrap()) == written, "{troubles:?}");
	}
	assert!(bodies(&store) == written);
	drop(store);
	assert!(bodies(&open(&server)) == written);
}

/// Another writer comes while a large group is lost: the group may have been written before that.
#[test]
fn a_large_group_that_another_writer_has_buried_is_not_called_refused() {
	use Trouble::*;
	for troubles in [vec![LoseRequest], vec![LoseRequest; 2], vec![LoseRequest; 3]] {
		let server = Server::start();
		let store = open(&server);
		server.next_puts(troubles.clone());
		server.next_puts([AnotherCameFirst]);
		let error = store.commit(append(&"x".repeat(1 << 20))).wait().unwrap_err();
		assert!(matches!(error, StoreError::Indeterminate { .. }), "{troubles:?}: {error}");
	}
}

#[test]
fn the_server_reads_nothing() {
	let server = Server::start();
	let store = open(&server);
	let mut batch = Batch::new();
	batch.put(Key::new(Table::new("payouts"), *b"alice"), value("a preimage"));
	store.commit(batch).wait().unwrap();
	assert!(server.items("node/default") >= 3);
	server.damage("node/default", |name, value| {
		for clear in ["payouts", "alice", "616c696365", "preimage", "_leyden", "epoch"] {
			assert!(!name.contains(clear), "{name}");
			assert!(!value.windows(clear.len()).any(|bytes| bytes == clear.as_bytes()));
		}
	});
	let debug = format!("{:?} {store:?}", config(&server));
	assert!(!debug.contains("9, 9") && debug.contains("node"), "{debug}");
}

/// Time that passes only in pauses. The server is up when it has been down for a minute.
struct Revives {
	server: Arc<Server>,
	away: Mutex<Duration>,
}

impl Pauser for Revives {
	fn now(&self) -> Duration {
		*self.away.lock().unwrap()
	}

	fn pause(&self, pause: Duration, _: &Closing) {
		let mut away = self.away.lock().unwrap();
		*away += pause;
		if *away >= Duration::from_secs(60) {
			self.server.set_down(false);
		}
	}
}

/// A server that is down for longer than the timeout, with a group under way or not, costs time.
/// Its put was done and the reply lost: it is not done twice.
#[test]
fn a_server_that_is_away_past_the_timeout_loses_nothing() {
	let server = Arc::new(Server::start());
	let pauser = Arc::new(Revives { server: Arc::clone(&server), away: Mutex::default() });
	let outages = OutagePolicy { pauser, ..OutagePolicy::default() };
	let options = VssOptions { timeout: Duration::from_millis(100), outages };
	let store = VssStore::open(config(&server), &Namespace::default(), &options).unwrap();
	let told: Arc<Mutex<Vec<StoreEvent>>> = Arc::default();
	let events = Arc::clone(&told);
	assert!(store.observe(Arc::new(move |event| events.lock().unwrap().push(event.clone()))));
	server.next_puts([Trouble::LoseReply]);
	server.next_puts(vec![Trouble::InternalError; 60]);
	store.commit(append("in the middle")).wait().unwrap();
	assert_eq!(told.lock().unwrap().len(), 2);
	for request in [0, 1] {
		server.set_down(true);
		match request {
			0 => assert_eq!(bodies(&store), ["in the middle"]),
			_ => drop(store.commit(append("after")).wait().unwrap()),
		}
	}
	assert_eq!(bodies(&store), ["in the middle", "after"]);
}

/// Each is an error that says what to do, and nothing is written.
#[test]
fn what_is_not_ours_or_not_for_us_is_refused() {
	let server = Server::start();
	let store = open(&server);
	store.commit(append("mine")).wait().unwrap();
	drop(store);
	let options = options(Duration::from_millis(500));
	let namespace = Namespace::default();

	let other = VssConfig::new(server.url(), "node", [1; 32]);
	let error = VssStore::open(other, &namespace, &options).unwrap_err();
	assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
	assert!(error.to_string().contains("another secret"), "{error}");

	server.put_as_another("ldk-node/default", "manager", b"bytes");
	let other = VssConfig::new(server.url(), "ldk-node", SECRET);
	let error = VssStore::open(other, &namespace, &options).unwrap_err();
	assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");

	let nothing = VssConfig::new(server.url(), "nothing", SECRET);
	let error = VssStore::open_read_only(nothing, &namespace, &options).unwrap_err();
	assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
	assert_eq!(server.items("nothing/default"), 0);

	let elsewhere = VssConfig::new(server.url().replace("/vss", "/other"), "node", SECRET);
	// Long enough for a proxy to be restarted.
	let patient = self::options(Duration::from_secs(20));
	let error = VssStore::open(elsewhere, &namespace, &patient).unwrap_err();
	assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
	assert!(error.to_string().contains("vss-protocol-version"), "{error}");

	let wrong_path = VssConfig::new(server.url() + "/wrong", "node", SECRET);
	let error = VssStore::open(wrong_path, &namespace, &patient).unwrap_err();
	assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
	assert!(error.to_string().contains("check the URL"), "{error}");

	let unreachable = VssConfig::new("http://127.0.0.1:1/vss", "node", SECRET);
	let error = VssStore::open(unreachable, &namespace, &options).unwrap_err();
	assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");

	server.want_token("Bearer right");
	let error = open_within(&server, options.timeout).unwrap_err();
	assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
	assert!(error.to_string().contains("check the headers"), "{error}");
	let headers = HashMap::from([("authorization".to_owned(), "Bearer right".to_owned())]);
	let config = config(&server).with_headers(Arc::new(FixedHeaders::new(headers)));
	let store = VssStore::open(config, &namespace, &options).unwrap();
	assert_eq!(bodies(&store), ["mine"]);
	// A token that runs out passes: another may be had.
	server.want_token("Bearer next");
	let error = store.commit(append("x")).wait().unwrap_err();
	assert!(error.is_retriable(), "{error}");
}

#[test]
fn a_value_that_was_changed_or_moved_is_loud() {
	let server = Server::start();
	let store = open(&server);
	store.commit(puts(2, b"n")).wait().unwrap();
	let mut first = None;
	// The values of two keys change places: each is whole, and neither is where it belongs.
	server.damage("node/default", |_, value| {
		if let Some(other) = first.replace(value.clone()) {
			*value = other;
		}
	});
	let read = store.get(&Key::numbered(T, b"n", 1)).wait();
	let other = store.get(&Key::numbered(T, b"n", 0)).wait();
	let is_corrupt = |read: &Result<_, StoreError>| matches!(read, Err(StoreError::Corrupt { .. }));
	assert!(is_corrupt(&read) || is_corrupt(&other));
	assert!(open_within(&server, Duration::from_millis(500)).is_err());
}

/// A reader takes nothing from the writer.
#[test]
fn reading_disturbs_nobody() {
	let server = Server::start();
	let store = open(&server);
	store.commit(append("one")).wait().unwrap();
	let reader =
		VssStore::open_read_only(config(&server), &Namespace::default(), &VssOptions::default());
	let reader = reader.unwrap();
	assert_eq!(bodies(&reader), ["one"]);
	let mut batch = Batch::new();
	batch.expect(Key::new(T, *b"k"), Expectation::Absent).put(Key::new(T, *b"k"), value("v"));
	let error = reader.commit(batch).wait().unwrap_err();
	assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
	store.commit(append("two")).wait().unwrap();
	assert_eq!(bodies(&store), ["one", "two"]);
}
