// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a backlog costs: nothing, as far as can be helped. And what the monitor bus costs.

#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use leyden_bench::{is_test, rate, ratios, Leyden};
use leyden_ldk::{MonitorBus, MonitorSet, MONITOR_STREAM};
use leyden_log::{EventLog, LogOptions};
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, ManualClock, MemoryStore, Page, Record, Store,
	Ticket,
};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent};
use lightning::chain::transaction::OutPoint;
use lightning::chain::{ChannelMonitorUpdateStatus, Watch};
use lightning::ln::types::ChannelId;
use lightning::sign::InMemorySigner;

/// Set in a child that opens a store, and says how long that took and how much memory it has then.
const OPEN: &str = "LEYDEN_BENCH_OPEN";

fn main() {
	if let Ok(path) = std::env::var(OPEN) {
		return open_in_child(Path::new(&path));
	}
	// As many un-acked entries.
	let backlog = if is_test() { 2_000 } else { 1_000_000 };
	let dir = tempfile::tempdir().expect("a directory");
	let (empty, full) = (dir.path().join("empty"), dir.path().join("full"));
	drop(Leyden::open(&empty, 0));
	let begun = Instant::now();
	Leyden::open(&full, 0).fill(backlog);
	println!(
		"\n{backlog} un-acked entries were appended in {:.1} s",
		begun.elapsed().as_secs_f64()
	);

	let (rounds, each) = if is_test() { (1, 4) } else { (9, 1500) };
	{
		let (empty, full) = (Leyden::open(&empty, backlog * 2), Leyden::open(&full, backlog * 4));
		let ratio =
			ratios(rounds, &mut || 1.0 / rate(1, each, &|_| full.append_and_ack()), &mut || {
				1.0 / rate(1, each, &|_| empty.append_and_ack())
			});
		let (median, low, high) = (ratio.median, ratio.lowest, ratio.highest);
		println!(
			"cost of an append and ack at {backlog} un-acked / at none  {median:.2}x ({low:.2} to {high:.2})  \
			 target 1.25x at most"
		);
	}
	let (empty, full) = (child(&empty), child(&full));
	println!(
		"opening with {backlog} un-acked: {:.3} s (empty: {:.3} s), {:.1} MiB above an empty open  target 2 s, \
		 64 MiB",
		full.0,
		empty.0,
		(full.1 - empty.1) / 1024.0
	);
	println!("commits per released batch of 50 monitor events: {}  target 1", commits_per_batch());
}

fn open_in_child(path: &Path) {
	let begun = Instant::now();
	let leyden = Leyden::open(path, u64::MAX / 2);
	// And ready: the first delivery is in our hands.
	let delivery = leyden.consumer.next_event().expect("a delivery");
	let seconds = begun.elapsed().as_secs_f64();
	let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
	let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
	let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")).unwrap_or("0");
	println!("{seconds} {}", kib.trim());
	drop(delivery);
}

/// Seconds to open, and the most memory it had, in KiB.
fn child(path: &Path) -> (f64, f64) {
	let program = std::env::current_exe().expect("this program");
	let output = Command::new(program).env(OPEN, path).output().expect("a child");
	let text = String::from_utf8(output.stdout).expect("text");
	let mut numbers = text.split_whitespace().map(|n| n.parse::<f64>().expect("a number"));
	(numbers.next().unwrap_or(f64::NAN), numbers.next().unwrap_or(f64::NAN))
}

type Released = Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)>;

#[derive(Default)]
struct Script(Mutex<Released>);

impl MonitorSet for Script {
	fn monitors(&self) -> HashMap<ChannelId, bool> {
		HashMap::new()
	}

	fn is_loaded(&self, _: &ChannelId) -> bool {
		true
	}

	fn archive_fully_resolved_channel_monitors(&self) {}
}

impl Watch<InMemorySigner> for Script {
	fn watch_channel(
		&self, _: ChannelId, _: ChannelMonitor<InMemorySigner>,
	) -> Result<ChannelMonitorUpdateStatus, ()> {
		Ok(ChannelMonitorUpdateStatus::Completed)
	}

	fn update_channel(&self, _: ChannelId, _: &ChannelMonitorUpdate) -> ChannelMonitorUpdateStatus {
		ChannelMonitorUpdateStatus::Completed
	}

	fn release_pending_monitor_events(
		&self,
	) -> Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)> {
		std::mem::take(&mut self.0.lock().expect("unpoisoned"))
	}
}

struct Counting(MemoryStore, AtomicUsize);

impl Store for Counting {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.1.fetch_add(1, Ordering::SeqCst);
		self.0.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.0.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.0.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.0.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.0.guarantees()
	}
}

fn commits_per_batch() -> usize {
	let store = Arc::new(Counting(MemoryStore::new().expect("a store"), AtomicUsize::new(0)));
	let dynamic: Arc<dyn Store> = Arc::<Counting>::clone(&store);
	let clock = Arc::new(ManualClock::default());
	let log = EventLog::open(dynamic, MONITOR_STREAM, clock, LogOptions::default()).expect("a log");
	let script = Arc::new(Script::default());
	let bus = MonitorBus::new(Arc::clone(&script), log).expect("a bus");
	let peer = SecretKey::from_slice(&[3; 32]).expect("a key").public_key(&Secp256k1::new());
	for n in 0..50u8 {
		let funding = OutPoint { txid: bitcoin::Txid::from_byte_array([n; 32]), index: 0 };
		let event = vec![MonitorEvent::CommitmentTxConfirmed(())];
		script.0.lock().expect("unpoisoned").push((funding, ChannelId([n; 32]), event, peer));
	}
	let before = store.1.load(Ordering::SeqCst);
	let released = Watch::<InMemorySigner>::release_pending_monitor_events(&bus);
	assert_eq!(released.len(), 50);
	store.1.load(Ordering::SeqCst) - before
}
