//! Two PostgreSQL servers with synchronous replication; the primary is killed under load, and its
//! standby takes over. Nothing that was acknowledged is lost, and the node goes on by itself.
//!
//! `LEYDEN_FAILOVERS=50 cargo test -p leyden-backends --all-features --test failover -- --nocapture`
//! does that fifty times, with one handle.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::Duration;

use leyden_backends::postgres::{PostgresOptions, PostgresStore};
use leyden_store::group::OutagePolicy;
use leyden_store::{Batch, KeyRange, Namespace, RecordType, Store, StoreError, Table, Value};
use leyden_testkit::postgres::Server;

const T: Table = Table::new("t");
const THREADS: u64 = 8;

/// Opens the store as a node that starts again does: its earlier life may still be connected.
fn open(url: &str) -> PostgresStore {
	let options = PostgresOptions {
		timeout: Duration::from_secs(20),
		outages: OutagePolicy::tolerating(Duration::from_secs(300)),
		take_over: true,
		..PostgresOptions::default()
	};
	PostgresStore::open(url, Namespace::default(), options).unwrap()
}

/// Returns how often each text is there.
fn bodies(store: &impl Store) -> BTreeMap<String, u32> {
	let mut found = BTreeMap::new();
	let mut range = Some(KeyRange::all(T));
	while let Some(next) = range {
		let page = store.scan(next, 1000).wait().unwrap();
		for (_, record) in page.records {
			*found.entry(String::from_utf8(record.value.body).unwrap()).or_default() += 1;
		}
		range = page.rest;
	}
	found
}

#[derive(Default)]
struct Load {
	acknowledged: Mutex<BTreeSet<String>>,
	/// Texts of which it was said that nothing is known.
	in_doubt: Mutex<BTreeSet<String>>,
	acks: AtomicU64,
	ended: AtomicBool,
	stop: AtomicBool,
}

impl Load {
	/// Appends until it is told to stop, or the handle is over.
	fn run(&self, store: &PostgresStore, thread: u64, round: u64) {
		for n in 0.. {
			if self.stop.load(Ordering::SeqCst) {
				return;
			}
			let text = format!("{round}-{thread}-{n}");
			let mut batch = Batch::new();
			let _ = batch.append(T, b"", Value::new(RecordType(0x8000), 1, text.as_bytes()));
			match store.commit(batch).wait() {
				Ok(_) => {
					self.acknowledged.lock().unwrap().insert(text);
					self.acks.fetch_add(1, Ordering::SeqCst);
				},
				Err(error) if error.ends_handle() => {
					if matches!(error, StoreError::Indeterminate { .. }) {
						self.in_doubt.lock().unwrap().insert(text);
					}
					self.ended.store(true, Ordering::SeqCst);
					return;
				},
				Err(error) => panic!("the node does not wait for its standby: {error}"),
			}
		}
	}

	fn wait_for(&self, acks: u64) {
		while self.acks.load(Ordering::SeqCst) < acks && !self.ended.load(Ordering::SeqCst) {
			std::thread::yield_now();
		}
	}
}

/// The result of a run.
#[derive(Debug, Default)]
struct Failovers {
	acknowledged: u64,
	ended: u64,
	in_doubt: usize,
	lost: BTreeSet<String>,
	twice: BTreeSet<String>,
}

/// Fails over so often. If the standby lags, commits do not wait for it, and it hears of nothing while
/// the primary is under load.
fn fail_over(rounds: u64, lags: bool) -> Option<Failovers> {
	let mut done = Failovers::default();
	let one = Server::start()?;
	let two = one.standby();
	let url = one.url_with(&two);
	let (mut primary, mut standby) = (&one, &two);
	let mut store = open(&url);
	let mut load = Load::default();
	for round in 0..rounds {
		if lags {
			primary.psql("ALTER SYSTEM RESET synchronous_standby_names");
			primary.psql("SELECT pg_reload_conf()");
			while !primary.psql("SHOW synchronous_standby_names").is_empty() {}
			standby.psql("ALTER SYSTEM SET primary_conninfo = ''");
			standby.psql("SELECT pg_reload_conf()");
			while primary.psql("SELECT count(*) FROM pg_stat_replication") != "0" {}
		}
		std::thread::scope(|scope| {
			for thread in 0..THREADS {
				let (load, store) = (&load, &store);
				scope.spawn(move || load.run(store, thread, round));
			}
			let before = load.acks.load(Ordering::SeqCst);
			load.wait_for(before + 20 + round * 7 % 100);
			primary.kill();
			standby.promote();
			// The node goes on with the standby, by itself.
			let before = load.acks.load(Ordering::SeqCst);
			load.wait_for(before + 50);
			load.stop.store(true, Ordering::SeqCst);
		});
		if load.ended.swap(false, Ordering::SeqCst) {
			done.ended += 1;
			store = open(&url);
		}
		load.stop.store(false, Ordering::SeqCst);
		let found = bodies(&store);
		let acknowledged = load.acknowledged.get_mut().unwrap();
		done.lost.extend(acknowledged.iter().filter(|text| !found.contains_key(*text)).cloned());
		let twice = found.into_iter().filter(|(_, times)| *times > 1);
		done.twice.extend(twice.map(|(text, _)| text));
		(primary, standby) = (standby, primary);
		standby.follow(primary);
	}
	done.acknowledged = load.acks.load(Ordering::SeqCst);
	done.in_doubt = load.in_doubt.get_mut().unwrap().len();
	Some(done)
}

#[test]
fn a_primary_that_is_killed_under_load_loses_nothing() {
	let rounds = std::env::var("LEYDEN_FAILOVERS").map_or(2, |rounds| rounds.parse().unwrap());
	let Some(done) = fail_over(rounds, false) else { return };
	println!("{rounds} failovers: {done:?}");
	assert!(done.lost.is_empty() && done.twice.is_empty(), "{done:?}");
	assert!(done.ended * 2 <= rounds, "the node heals by itself, as a rule: {done:?}");
}

/// Negative control: commits that do not wait for a standby are lost with their primary. The node is told
/// that its database went back.
#[test]
fn a_standby_that_lags_is_caught() {
	let Some(done) = fail_over(1, true) else { return };
	println!("with a standby that lags: {} lost", done.lost.len());
	assert!(!done.lost.is_empty() && done.ended == 1, "{done:?}");
}
