//! Stores as each version wrote them open in every later one, and hold what they held.
//!
//! A fixture is made once, when a version is released, by
//! `LEYDEN_WRITE_FIXTURES=1 cargo test -p leyden-backends --all-features --test fixtures`,
//! and never again: a test that only passes with a new fixture says that the format changed.

#![cfg(all(feature = "sqlite", feature = "redb", feature = "postgres", feature = "vss"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use leyden_backends::postgres::PostgresStore;
use leyden_backends::redb::RedbStore;
use leyden_backends::sqlite::SqliteStore;
use leyden_backends::vss::{VssConfig, VssOptions, VssStore};
use leyden_store::{Batch, Key, KeyRange, Namespace, RecordType, Store, Table, Value};
use leyden_testkit::postgres::Server;

const T: Table = Table::new("fixture");

fn fixture(name: &str) -> PathBuf {
	Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn writes() -> bool {
	std::env::var_os("LEYDEN_WRITE_FIXTURES").is_some()
}

fn value(text: &str) -> Value {
	Value::new(RecordType(0x8000), 3, text.as_bytes())
}

/// What every fixture holds: records, a sequence with a gap and a known append, two namespaces.
fn fill(store: &dyn Store) {
	let mut batch = Batch::new();
	batch.put(Key::new(T, *b"a"), value("one")).put(Key::new(T, vec![0xff; 90]), value("long"));
	for n in 0..3 {
		let once = Key::new(T, format!("once{n}").into_bytes());
		let _ = batch.append_once(T, b"seq", value(&n.to_string()), once);
	}
	store.commit(batch).wait().unwrap();
	let mut batch = Batch::new();
	batch.delete(Key::numbered(T, b"seq", 3));
	store.commit(batch).wait().unwrap();
}

fn check(store: &dyn Store) {
	let page = store.scan(KeyRange::all(T), 100).wait().unwrap();
	let text = |value: &Value| String::from_utf8(value.body.clone()).unwrap();
	let found: Vec<(Key, String)> = page
		.records
		.iter()
		.filter(|(_, record)| record.value.schema == 3)
		.map(|(key, record)| (key.clone(), text(&record.value)))
		.collect();
	let expected = [
		(Key::new(T, *b"a"), "one".to_owned()),
		(Key::numbered(T, b"seq", 1), "0".to_owned()),
		(Key::numbered(T, b"seq", 2), "1".to_owned()),
		(Key::new(T, vec![0xff; 90]), "long".to_owned()),
	];
	assert_eq!(found, expected);
	// A number is not given again, an append is known, a version is higher.
	let newest = page.records.iter().map(|(_, record)| record.version).max().unwrap();
	let mut batch = Batch::new();
	let _ = batch.append_once(T, b"seq", value("x"), Key::new(T, *b"once1"));
	let _ = batch.append(T, b"seq", value("new"));
	let committed = store.commit(batch).wait().unwrap();
	let numbers: Vec<u64> = committed.appends().iter().map(|a| a.number().get()).collect();
	assert_eq!(numbers, [2, 4]);
	assert!(committed.version() > newest);
}

/// A copy of a fixture, to be opened; or a new one, if it is to be made.
fn copy(name: &str, dir: &Path) -> PathBuf {
	let path = dir.join(name);
	if !writes() {
		std::fs::copy(fixture(name), &path).unwrap();
	}
	path
}

#[test]
fn sqlite_1() {
	let dir = tempfile::tempdir().unwrap();
	let path = copy("v1.sqlite", dir.path());
	if writes() {
		let store = SqliteStore::open(&path, Namespace::default()).unwrap();
		fill(&store);
		// Into the database, so that one file is all of it.
		store.tamper("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
		drop(store);
		std::fs::copy(&path, fixture("v1.sqlite")).unwrap();
	}
	let epoch = {
		let store = SqliteStore::open(&path, Namespace::default()).unwrap();
		check(&store);
		store.epoch().unwrap().get()
	};
	assert_eq!(epoch, 2);
}

#[test]
fn redb_1() {
	let dir = tempfile::tempdir().unwrap();
	let path = copy("v1.redb", dir.path());
	let open = || RedbStore::open(&path, Namespace::default(), Default::default()).unwrap();
	if writes() {
		fill(&open());
		std::fs::copy(&path, fixture("v1.redb")).unwrap();
	}
	let store = open();
	check(&store);
	assert_eq!(store.epoch().unwrap().get(), 2);
}

/// As SQL, as `psql` reads it: a server's files are its own.
#[test]
fn postgres_1() {
	let Some(server) = Server::start() else { return };
	let open =
		|| PostgresStore::open(&server.url(), Namespace::default(), Default::default()).unwrap();
	if writes() {
		fill(&open());
		let mut sql = String::new();
		for line in server
			.psql(
				"SELECT format('INSERT INTO leyden.writers VALUES (%L, %s, %s);', ns, epoch, last)
				FROM leyden.writers",
			)
			.lines()
			.chain(
				server
					.psql(
						"SELECT format('INSERT INTO leyden.records VALUES (%L, %L, %L, %L);', ns, tbl,
						key, frame) FROM leyden.records ORDER BY ns, tbl, key",
					)
					.lines(),
			) {
			sql.push_str(line);
			sql.push('\n');
		}
		let create = "CREATE SCHEMA leyden;
CREATE TABLE leyden.format (version integer NOT NULL);
INSERT INTO leyden.format VALUES (1);
CREATE TABLE leyden.writers (ns text PRIMARY KEY, epoch bigint NOT NULL, last bigint NOT NULL);
CREATE TABLE leyden.records (ns text NOT NULL, tbl text NOT NULL, key bytea NOT NULL,
	frame bytea NOT NULL, PRIMARY KEY (ns, tbl, key));
";
		std::fs::write(fixture("v1.postgres.sql"), format!("{create}{sql}")).unwrap();
		server.psql("DROP SCHEMA leyden CASCADE");
	}
	server.psql(&std::fs::read_to_string(fixture("v1.postgres.sql")).unwrap());
	let store = open();
	check(&store);
	assert_eq!(store.epoch().unwrap().get(), 2);
}

/// As the request that would write all items: that is what the server has.
#[test]
fn vss_1() {
	let open = |server: &leyden_testkit::vss::Server| {
		let config = VssConfig::new(server.url(), "fixture", [5; 32]);
		VssStore::open(config, &Namespace::default(), &VssOptions::default()).unwrap()
	};
	let server = leyden_testkit::vss::Server::start();
	if writes() {
		fill(&open(&server));
		std::fs::write(fixture("v1.vss"), server.export("fixture/default")).unwrap();
	}
	let server = leyden_testkit::vss::Server::start();
	server.import(&std::fs::read(fixture("v1.vss")).unwrap());
	let store = open(&server);
	check(&store);
	assert_eq!(store.epoch().unwrap().get(), 2);
}
