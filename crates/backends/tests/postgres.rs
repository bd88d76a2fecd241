//! What may go wrong with a real PostgreSQL server: it dies, hangs, loses connections, is full, is
//! somebody else's.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod batches;
mod postgres_rig;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batches::{append, bodies, T};
use leyden_backends::postgres::{PostgresOptions, PostgresStore};
use leyden_store::group::{Closing, OutagePolicy, Pauser, StoreEvent};
use leyden_store::{Batch, Expectation, Key, Namespace, RecordType, Store, StoreError, Value};
use leyden_testkit::postgres::{Pooler, Server};
use postgres_rig::{Plan, Road};

fn options(seconds: u64) -> PostgresOptions {
	let timeout = Duration::from_secs(seconds);
	let outages = OutagePolicy::tolerating(timeout);
	PostgresOptions { timeout, outages, ..PostgresOptions::default() }
}

fn open(url: &str) -> PostgresStore {
	PostgresStore::open(url, Namespace::default(), options(20)).unwrap()
}

/// A pooler that shares connections is refused by name. One that gives each client its own is none the
/// worse.
#[test]
fn a_pooler_that_shares_connections_is_refused() {
	let Some(server) = Server::start() else { return };
	for mode in ["transaction", "transaction", "statement"] {
		let Some(pooler) = Pooler::start(&server, mode) else { return };
		let opened = PostgresStore::open(&pooler.url(), Namespace::default(), options(20));
		let error = opened.map(|_| ()).unwrap_err();
		assert!(matches!(&error, StoreError::Invalid { .. }) && !error.is_retriable(), "{error}");
		assert!(error.to_string().contains("pool_mode = session"), "{error}");
	}
	// Nothing was made there.
	assert_eq!(server.psql("SELECT to_regnamespace('leyden') IS NULL"), "t");
	let Some(pooler) = Pooler::start(&server, "session") else { return };
	let store = open(&pooler.url());
	store.commit(append("a")).wait().unwrap();
	assert_eq!(bodies(&store), ["a"]);
	drop(store);
	assert_eq!(bodies(&open(&server.url())), ["a"]);
}

/// Appends from eight threads while `trouble` happens; everything that was acknowledged is there
/// afterwards, in the order of its numbers, and nothing twice.
fn load(server: &Server, seconds: u64, trouble: impl FnOnce(&dyn Fn(u64))) -> PostgresStore {
	let store = PostgresStore::open(&server.url(), Namespace::default(), options(seconds)).unwrap();
	let acknowledged = Mutex::new(BTreeSet::new());
	let (done, acks) = (AtomicBool::new(false), AtomicU64::new(0));
	let stopped = AtomicU64::new(0);
	let errors = Mutex::new(Vec::new());
	std::thread::scope(|scope| {
		for thread in 0..8 {
			let (store, acknowledged, done, acks) = (&store, &acknowledged, &done, &acks);
			let (errors, stopped) = (&errors, &stopped);
			scope.spawn(move || {
				for n in 0.. {
					if done.load(Ordering::Relaxed) {
						break;
					}
					let body = format!("{thread}-{n}");
					match store.commit(append(&body)).wait() {
						Ok(committed) => {
							let number = committed.appends()[0].number().get();
							acknowledged.lock().unwrap().insert((number, body));
							acks.fetch_add(1, Ordering::Relaxed);
						},
						Err(error) => {
							let over = error.ends_handle();
							errors.lock().unwrap().push(error);
							if over {
								break;
							}
						},
					}
				}
				stopped.fetch_add(1, Ordering::Relaxed);
			});
		}
		// Waits for so many acknowledgements more, or until nothing more can come.
		let wait = |more: u64| {
			let until = acks.load(Ordering::Relaxed) + more;
			while acks.load(Ordering::Relaxed) < until && stopped.load(Ordering::Relaxed) < 8 {
				std::thread::yield_now();
			}
		};
		wait(100);
		trouble(&wait);
		done.store(true, Ordering::Relaxed);
	});
	let acknowledged = acknowledged.into_inner().unwrap();
	let errors = errors.into_inner().unwrap();
	eprintln!("{} acknowledged, {} refused", acknowledged.len(), errors.len());
	assert!(acknowledged.len() >= 100);
	drop(store);
	let store = open(&server.url());
	let found = bodies(&store);
	let once: BTreeSet<&String> = found.iter().collect();
	assert_eq!(once.len(), found.len(), "nothing is there twice");
	for (number, body) in &acknowledged {
		let key = Key::numbered(T, b"", *number);
		let record = store.get(&key).wait().unwrap().expect("what was acknowledged is there");
		assert_eq!(&record.value.body, body.as_bytes());
	}
	store
}

/// Killed in the middle of a load, and started again: nobody is told but by a delay.
#[test]
fn a_server_that_is_killed_loses_nothing() {
	let Some(server) = Server::start() else { return };
	load(&server, 60, |wait| {
		for _ in 0..3 {
			server.kill();
			server.resume();
			wait(50);
		}
	});
}

/// Time that passes only in pauses. The server is started when it has been away for long enough.
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
		let before = *away;
		*away += pause;
		if before < AWAY && *away >= AWAY {
			self.server.resume();
		}
	}
}

const AWAY: Duration = Duration::from_secs(60);

/// Opens a store with the default tolerance.
fn open_reviving(url: &str, server: &Arc<Server>) -> PostgresStore {
	let pauser = Arc::new(Revives { server: Arc::clone(server), away: Mutex::default() });
	let outages = OutagePolicy { pauser, ..OutagePolicy::default() };
	let options = PostgresOptions { outages, ..options(20) };
	PostgresStore::open(url, Namespace::default(), options).unwrap()
}

/// The server dies with a group under way, before or after it was written, and is away for a
/// minute: the commit answers when it is back, the group is there once, and the handle goes on.
#[test]
fn a_server_that_is_away_for_a_minute_in_the_middle_of_a_commit_loses_nothing() {
	for plan in [Plan::HoldAndLose, Plan::HoldReplyAndLose] {
		let Some(server) = Server::start().map(Arc::new) else { return };
		let road = Road::to(server.socket());
		let store = open_reviving(&road.url(), &server);
		let told: Arc<Mutex<Vec<StoreEvent>>> = Arc::default();
		let events = Arc::clone(&told);
		assert!(store.observe(Arc::new(move |event| events.lock().unwrap().push(event.clone()))));
		store.commit(append("before")).wait().unwrap();
		road.plan(plan, "in the middle");
		std::thread::scope(|scope| {
			let commit = scope.spawn(|| store.commit(append("in the middle")).wait());
			road.wait_until_held();
			server.kill();
			road.let_go();
			commit.join().unwrap().unwrap();
		});
		store.commit(append("after")).wait().unwrap();
		assert_eq!(bodies(&store), ["before", "in the middle", "after"], "{plan:?}");
		let told = told.lock().unwrap().clone();
		let [StoreEvent::OutageBegan { .. }, StoreEvent::OutageEnded { lasted, .. }] =
			told.as_slice()
		else {
			panic!("{plan:?}: {told:?}")
		};
		assert!(*lasted >= AWAY, "{lasted:?}");
	}
}

/// Every request waits for the server, between two commits, when reading as well as when writing.
#[test]
fn a_server_that_is_away_for_a_minute_is_waited_for_by_every_request() {
	let Some(server) = Server::start().map(Arc::new) else { return };
	let first = Key::numbered(T, b"", 1);
	let requests: [&dyn Fn(&PostgresStore); 3] = [
		&|store| assert_eq!(bodies(store), ["before"]),
		&|store| assert!(store.get(&first).wait().unwrap().is_some()),
		&|store| drop(store.commit(append("after")).wait().unwrap()),
	];
	for request in requests {
		let store = open_reviving(&server.url(), &server);
		if bodies(&store).is_empty() {
			store.commit(append("before")).wait().unwrap();
		}
		server.kill();
		request(&store);
	}
}

/// A database that was restored from an older copy has lost what was acknowledged: the handle ends.
#[test]
fn a_database_that_goes_back_in_time_ends_the_handle() {
	let Some(server) = Server::start() else { return };
	let store = open(&server.url());
	store.commit(append("one")).wait().unwrap();
	store.commit(append("two")).wait().unwrap();
	server.psql("UPDATE leyden.writers SET last = last - 1");
	let error = store.commit(append("three")).wait().unwrap_err();
	assert!(matches!(error, StoreError::Indeterminate { .. }), "{error}");
	assert!(error.to_string().contains("older copy"), "{error}");

	// Found out when a lost reply is settled.
	let road = Road::to(server.socket());
	let options = PostgresOptions { take_over: true, ..options(20) };
	let store = PostgresStore::open(&road.url(), Namespace::default(), options).unwrap();
	store.commit(append("three")).wait().unwrap();
	road.plan(Plan::HoldAndLose, "four");
	std::thread::scope(|scope| {
		let commit = scope.spawn(|| store.commit(append("four")).wait());
		road.wait_until_held();
		server.psql("UPDATE leyden.writers SET last = last - 1");
		road.let_go();
		let error = commit.join().unwrap().unwrap_err();
		assert!(error.to_string().contains("older copy"), "{error}");
	});
}

/// Its connections are ended, again and again, between statement and answer as well as anywhere.
#[test]
fn connections_that_are_terminated_lose_nothing() {
	let Some(server) = Server::start() else { return };
	load(&server, 60, |wait| {
		for _ in 0..30 {
			server.psql(
				"SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = 'leyden'",
			);
			wait(5);
		}
	});
}

/// It hangs past the timeout, and wakes up: what was under way may or may not be there, the handle
/// is over, and what was acknowledged is there.
#[test]
fn a_server_that_hangs_past_the_timeout_loses_nothing() {
	let Some(server) = Server::start() else { return };
	let store = load(&server, 1, |wait| {
		server.stop();
		wait(1_000_000);
		server.go_on();
	});
	store.commit(append("after")).wait().unwrap();
}

/// A reply that is lost is no loss: what became of the group is found out, and it is there once.
#[test]
fn a_lost_reply_or_request_is_settled() {
	let Some(server) = Server::start() else { return };
	let road = Road::to(server.socket());
	let store = open(&road.url());
	store.commit(append("before")).wait().unwrap();
	for (plan, body) in [
		(Plan::LoseReply, "lost-reply"),
		(Plan::LoseRequest, "lost-request"),
		(Plan::LoseReply, "x"),
	] {
		road.plan(plan, body);
		store.commit(append(body)).wait().unwrap();
		assert_eq!(road.happened(), 1, "{body}");
	}
	let mut deleted = Batch::new();
	deleted.delete(Key::numbered(T, b"", 4));
	road.plan(Plan::LoseReply, "ours");
	// It has been prepared under another text; the bytes of its name are in what is sent.
	store.commit(deleted).wait().unwrap();
	assert_eq!(bodies(&store), ["before", "lost-reply", "lost-request"]);
}

/// A node hangs with a group on its way. Another takes over and writes. When the first wakes up its
/// group arrives, and does nothing; it is told that it is fenced.
#[test]
fn a_node_that_wakes_up_after_another_took_over_is_fenced() {
	let Some(server) = Server::start() else { return };
	let road = Road::to(server.socket());
	let first = open(&road.url());
	first.commit(append("one")).wait().unwrap();
	road.plan(Plan::Hold, "from the past");
	std::thread::scope(|scope| {
		let late = scope.spawn(|| first.commit(append("from the past")).wait());
		road.wait_until_held();
		// Its session is there, so nobody takes the namespace by accident.
		let refused = PostgresStore::open(&server.url(), Namespace::default(), options(20));
		assert!(matches!(refused, Err(StoreError::Locked { .. })), "{refused:?}");
		let second = PostgresOptions { take_over: true, ..options(20) };
		let second = PostgresStore::open(&server.url(), Namespace::default(), second).unwrap();
		second.commit(append("two")).wait().unwrap();
		road.let_go();
		let late = late.join().unwrap();
		assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
		assert!(first.commit(append("again")).wait().is_err());
		assert_eq!(bodies(&second), ["one", "two"]);
		second.commit(append("three")).wait().unwrap();
	});
}

/// Its group is lost on the way, and the one who has taken over wrote as many groups as it: what it
/// finds looks as if its own had been written. It was not, and nobody says that it was.
#[test]
fn a_group_that_was_lost_and_buried_is_indeterminate() {
	let Some(server) = Server::start() else { return };
	let road = Road::to(server.socket());
	let first = open(&road.url());
	first.commit(append("one")).wait().unwrap();
	road.plan(Plan::HoldAndLose, "from the past");
	std::thread::scope(|scope| {
		let late = scope.spawn(|| first.commit(append("from the past")).wait());
		road.wait_until_held();
		let second = PostgresOptions { take_over: true, ..options(20) };
		let second = PostgresStore::open(&server.url(), Namespace::default(), second).unwrap();
		second.commit(append("two")).wait().unwrap();
		road.let_go();
		let late = late.join().unwrap();
		assert!(matches!(late, Err(StoreError::Indeterminate { .. })), "{late:?}");
		assert_eq!(bodies(&second), ["one", "two"]);
	});
}

/// The disk fills up: a clear error, nothing is lost, and it goes on once there is space.
#[test]
fn a_full_disk_is_said_and_is_not_for_ever() {
	let Some(server) = Server::start() else { return };
	let Some(small) = SmallDisk::new(&server) else { return };
	let store = open(&server.url());
	server.psql(&format!("CREATE TABLESPACE small LOCATION '{}'", small.0.display()));
	server.psql("ALTER TABLE leyden.records SET TABLESPACE small");
	let mut written = 0;
	let error = loop {
		match store.commit(append(&noise(written, 1_500))).wait() {
			Ok(_) => written += 1,
			Err(error) => break error,
		}
		assert!(written < 10_000, "it is never full");
	};
	assert!(matches!(error, StoreError::NoSpace { .. }) && error.is_retriable(), "{error}");
	assert_eq!(bodies(&store).len(), written);
	// Somebody makes space.
	server.psql("ALTER TABLE leyden.records SET TABLESPACE pg_default");
	store.commit(append("after")).wait().unwrap();
	assert_eq!(bodies(&store).len(), written + 1);
	server.psql("DROP TABLESPACE small");
}

/// Text that cannot be compressed.
fn noise(seed: usize, length: usize) -> String {
	let mut state = seed as u64 + 1;
	let mut next = || {
		state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
		char::from(b'!' + (state >> 57) as u8 % 90)
	};
	(0..length).map(|_| next()).collect()
}

/// A file system of its own, where that can be made.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
	fn new(server: &Server) -> Option<Self> {
		let dir = server.socket().join("small");
		std::fs::create_dir(&dir).unwrap();
		let mounted = Command::new("mount")
			.args(["-t", "tmpfs", "-o", "size=2m,mode=0777", "tmpfs"])
			.arg(&dir)
			.status();
		if !mounted.is_ok_and(|status| status.success()) {
			eprintln!("SKIPPED: no file system can be mounted here");
			return None;
		}
		let inner = dir.join("space");
		std::fs::create_dir(&inner).unwrap();
		let _ = Command::new("chown").arg("postgres").arg(&inner).status();
		Some(Self(inner))
	}
}

impl Drop for SmallDisk {
	fn drop(&mut self) {
		let _ = Command::new("umount").arg("-l").arg(self.0.parent().unwrap()).status();
	}
}

/// What the server says goes through, once, though it could not put it in order at first.
#[test]
fn a_serialization_failure_is_tried_again() {
	let Some(server) = Server::start_with(&["default_transaction_isolation=serializable"]) else {
		return;
	};
	let store = open(&server.url());
	store.commit(append("one")).wait().unwrap();
	// Another transaction holds the writer's row, and changes it without meaning.
	std::thread::scope(|scope| {
		let holder = scope.spawn(|| {
			server.psql(
				"BEGIN ISOLATION LEVEL READ COMMITTED; UPDATE leyden.writers SET ns = ns;
				SELECT pg_sleep(0.3); COMMIT",
			)
		});
		for n in 0..2000 {
			store.commit(append(&format!("n{n}"))).wait().unwrap();
			if holder.is_finished() {
				break;
			}
		}
	});
	let found = bodies(&store);
	assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
	assert!(server.log().contains("could not serialize"), "the server had nothing to refuse");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
	let Some(server) = Server::start() else { return };
	let try_open = |url: &str| PostgresStore::open(url, Namespace::default(), options(5));
	let error = |url: &str| try_open(url).unwrap_err();

	let nowhere = error("postgres://leyden:s3cret@127.0.0.1:1/postgres");
	assert!(matches!(nowhere, StoreError::Unavailable { .. }) && nowhere.is_retriable());
	assert!(nowhere.to_string().contains("127.0.0.1:1"), "{nowhere}");
	assert!(!nowhere.to_string().contains("s3cret"));

	let database = error(&server.url().replace("/postgres", "/nosuch"));
	assert!(matches!(database, StoreError::Invalid { .. }), "{database}");
	assert!(database.to_string().contains("createdb"), "{database}");

	let wrong = error("postgres://h/d?colour=red");
	assert!(matches!(wrong, StoreError::Invalid { .. }), "{wrong}");

	server.psql("CREATE SCHEMA leyden; CREATE TABLE leyden.theirs (x int)");
	let theirs = error(&server.url());
	assert!(matches!(theirs, StoreError::NotAStore { .. }), "{theirs}");
	assert!(theirs.to_string().contains("something else"), "{theirs}");
	server.psql("DROP SCHEMA leyden CASCADE");

	drop(open(&server.url()));
	server.psql("UPDATE leyden.format SET version = 2");
	let newer = error(&server.url());
	assert!(matches!(newer, StoreError::Newer { found: 2, known: 1, .. }), "{newer}");
	server.psql("UPDATE leyden.format SET version = 1");

	// Somebody raised the epoch while we were away, without a trace in the records.
	let store = open(&server.url());
	server.psql("UPDATE leyden.writers SET epoch = epoch + 5");
	let fenced = store.commit(append("x")).wait();
	assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
}

#[test]
fn a_wrong_password_is_named_without_it() {
	let Some(server) = Server::start() else { return };
	server.psql("ALTER USER leyden PASSWORD 'right'");
	std::fs::write(server.data().join("pg_hba.conf"), "local all all scram-sha-256\n").unwrap();
	server.kill();
	server.resume();
	let url = |password: &str| server.url().replace("leyden@", &format!("leyden:{password}@"));
	let wrong = PostgresStore::open(&url("wr0ng"), Namespace::default(), options(5)).unwrap_err();
	assert!(matches!(wrong, StoreError::Invalid { .. }), "{wrong}");
	assert!(wrong.to_string().contains("pg_hba.conf") && !wrong.to_string().contains("wr0ng"));
	open(&url("right")).commit(append("x")).wait().unwrap();
}

/// `require` means that the server's certificate is looked at.
#[test]
fn tls_is_verified_where_it_is_required() {
	let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
	let port = free.local_addr().unwrap().port();
	drop(free);
	let listens = ["listen_addresses=127.0.0.1", &format!("port={port}")];
	let Some(server) = Server::start_with(&listens) else { return };
	let (certificate, key) = (server.data().join("server.crt"), server.data().join("server.key"));
	let made = Command::new("openssl")
		.args([
			"req",
			"-x509",
			"-newkey",
			"rsa:2048",
			"-nodes",
			"-days",
			"2",
			"-subj",
			"/CN=leyden",
		])
		.args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"])
		.arg("-out")
		.arg(&certificate)
		.arg("-keyout")
		.arg(&key)
		.output();
	assert!(made.is_ok_and(|made| made.status.success()), "openssl makes a certificate");
	server.own(&key);
	server.own(&certificate);
	let url = |query: &str| format!("postgres://leyden@127.0.0.1:{port}/postgres?{query}");
	let try_open = |query: &str| PostgresStore::open(&url(query), Namespace::default(), options(5));

	// A server without TLS is not enough where it is required.
	let error = try_open("sslmode=require").unwrap_err();
	assert!(error.to_string().contains("TLS"), "{error}");
	drop(try_open("sslmode=prefer").unwrap());

	server.psql("ALTER SYSTEM SET ssl = on");
	server.kill();
	server.resume();
	let root = format!("sslrootcert={}", certificate.display());
	let store = try_open(&format!("sslmode=require&{root}")).unwrap();
	store.commit(append("secret")).wait().unwrap();
	let encrypted = server.psql(
		"SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
		WHERE application_name = 'leyden'",
	);
	assert_eq!(encrypted, "t");
	drop(store);
	// One that nobody vouches for.
	let error = try_open("sslmode=require").unwrap_err();
	assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
	assert!(error.to_string().contains("certificate"), "{error}");
	drop(try_open("sslmode=prefer").unwrap());
	let error = try_open("sslmode=require&sslrootcert=/nowhere.pem").unwrap_err();
	assert!(error.to_string().contains("/nowhere.pem"), "{error}");
}

#[test]
fn looking_disturbs_nobody() {
	let Some(server) = Server::start() else { return };
	let read = || PostgresStore::open_read_only(&server.url(), Namespace::default(), options(20));
	assert!(matches!(read(), Err(StoreError::NotAStore { .. })));
	let store = open(&server.url());
	store.commit(append("one")).wait().unwrap();
	let reader = read().unwrap();
	assert_eq!(bodies(&reader), ["one"]);
	assert!(matches!(reader.commit(append("x")).wait(), Err(StoreError::ReadOnly { .. })));
	store.commit(append("two")).wait().unwrap();
	assert_eq!(bodies(&reader), ["one", "two"]);
	let all = PostgresStore::namespaces(&server.url(), options(20)).unwrap();
	assert_eq!(all, [Namespace::default()]);
}

/// What an operator switched off is not promised.
#[test]
fn a_server_without_fsync_promises_no_survival() {
	for (setting, survives) in [("fsync=on", true), ("fsync=off", false)] {
		let Some(server) = Server::start_with(&[setting]) else { return };
		assert_eq!(open(&server.url()).guarantees().survives_power_loss, survives);
	}
}

/// Batches from many threads share statements, and those with expectations too.
#[test]
fn threads_share_round_trips() {
	let Some(server) = Server::start() else { return };
	let store = open(&server.url());
	std::thread::scope(|scope| {
		for thread in 0..64 {
			let store = &store;
			scope.spawn(move || {
				for n in 0..20 {
					let key = Key::new(T, format!("k{thread}-{n}").into_bytes());
					let mut batch = append("x");
					batch.expect(key.clone(), Expectation::Absent);
					batch.put(key, Value::new(RecordType(0x8000), 1, vec![]));
					store.commit(batch).wait().unwrap();
				}
			});
		}
	});
	let stats = store.stats();
	assert_eq!(stats.batches, 64 * 20);
	assert!(stats.groups < 64 * 20 / 2, "{stats:?}");
}

/// Has commits wait for a standby that there is not.
fn wait_for_nobody(server: &Server) {
	server.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	server.psql("SELECT pg_reload_conf()");
	while server.psql("SHOW synchronous_standby_names") != "nobody" {}
}

fn wait_for_none(server: &Server) {
	server.psql("ALTER SYSTEM RESET synchronous_standby_names");
	server.psql("SELECT pg_reload_conf()");
}

/// Does `what` to a backend that waits for a standby, once there is one; `false` if `ended` says that
/// there will be none.
fn to_who_waits(server: &Server, what: &str, ended: &dyn Fn() -> bool) -> bool {
	let sql = format!("SELECT {what}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
	while !ended() {
		if server.psql(&sql).contains('t') {
			return true;
		}
	}
	false
}

/// S16: a commit waits for a synchronous standby, and the wait is cancelled. The server answers that the
/// commit is done and warns that the standby may not have it: that is not known to be durable.
#[test]
fn a_commit_that_a_standby_may_not_have_is_indeterminate() {
	let Some(server) = Server::start() else { return };
	let store = open(&server.url());
	store.commit(append("before")).wait().unwrap();
	wait_for_nobody(&server);
	let commit = std::thread::spawn(move || store.commit(append("in doubt")).wait());
	assert!(to_who_waits(&server, "pg_cancel_backend", &|| commit.is_finished()));
	let told = commit.join().unwrap();
	match &told {
		Err(StoreError::Indeterminate { source, .. }) => {
			assert!(source.to_string().contains("replicat"), "{source}");
		},
		told => panic!("{told:?}"),
	}
	wait_for_none(&server);
	assert_eq!(bodies(&open(&server.url())), ["before", "in doubt"]);
}

/// The same when the reply is lost: that the group is written on this server does not say that its
/// standby has it.
#[test]
fn a_lost_reply_is_not_settled_before_the_standby_has_it() {
	let Some(server) = Server::start() else { return };
	let store = open(&server.url());
	wait_for_nobody(&server);
	let commit = std::thread::spawn(move || {
		let told = store.commit(append("lost")).wait();
		(store, told)
	});
	assert!(to_who_waits(&server, "pg_terminate_backend", &|| commit.is_finished()));
	// It has asked what became of it, and waits for the standby once more.
	assert!(to_who_waits(&server, "pg_cancel_backend", &|| commit.is_finished()));
	let (store, told) = commit.join().unwrap();
	assert!(matches!(told, Err(StoreError::Indeterminate { .. })), "{told:?}");
	drop(store);
	// With a standby again, a lost reply is settled as before.
	wait_for_none(&server);
	let store = open(&server.url());
	let road = store.commit(append("after")).wait();
	assert!(road.is_ok(), "{road:?}");
}

/// S17: the host of a node dies, and the server has not noticed: its standby takes over by what its URL
/// says.
#[test]
fn a_standby_takes_over_by_its_url() {
	let Some(server) = Server::start() else { return };
	let first = open(&server.url());
	first.commit(append("first")).wait().unwrap();
	let open =
		|url: &str| PostgresStore::open(url, Namespace::default(), PostgresOptions::default());
	let locked = open(&format!("{}?leyden_timeout_secs=5", server.url()));
	assert!(matches!(locked, Err(StoreError::Locked { .. })), "{locked:?}");
	let second = open(&format!("{}?leyden_take_over=true", server.url())).unwrap();
	assert_eq!(bodies(&second), ["first"]);
	let fenced = first.commit(append("late")).wait();
	assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
}

/// A warning that has nothing to do with a standby ends nothing.
#[test]
fn a_warning_of_something_else_is_no_doubt() {
	let Some(server) = Server::start() else { return };
	let store = open(&server.url());
	server.psql(
		"CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN RAISE WARNING 'transaction numbers run out'; RETURN NEW; END $$",
	);
	server.psql("CREATE TRIGGER warn BEFORE INSERT ON leyden.records EXECUTE FUNCTION warn()");
	store.commit(append("warned")).wait().unwrap();
	server.psql("DROP TRIGGER warn ON leyden.records");
	assert_eq!(bodies(&store), ["warned"]);
}
