//! A store that its last process has not closed is checked before its node goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use leyden::id::{EventId, EventKind, Lane};
use leyden::log::{NewEvent, Start};
use leyden::store::group::StoreEvent;
use leyden::store::{KeyRange, Table};
use leyden::{Leyden, StoreUrl};

const NAME: &str = "node.leyden";

fn url(dir: &Path, engine: &str) -> StoreUrl {
	let path = dir.join(NAME);
	match engine {
		"sqlite" => StoreUrl::Sqlite(path),
		_ => StoreUrl::Redb(path),
	}
}

fn engines() -> Vec<&'static str> {
	let mut engines = vec!["sqlite"];
	if cfg!(feature = "storage-redb") {
		engines.push("redb");
	}
	engines
}

fn payload(n: u8) -> Vec<u8> {
	[b'p', n].repeat(40)
}

fn fill(leyden: &Leyden, entries: u8) {
	for n in 1..=entries {
		let kind = EventKind::new("Test").unwrap();
		let lane = Lane::payment([n; 32]);
		let id = EventId::from_bytes([n; 32]);
		leyden.events().append(NewEvent { id, kind, lane, payload: payload(n) }).unwrap();
	}
	leyden.store().checkpoint().unwrap();
}

/// Copies all files of a store in use: what a crash at this moment leaves.
fn crash(from: &Path, to: &Path) {
	for file in fs::read_dir(from).unwrap() {
		let path = file.unwrap().path();
		fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
	}
}

fn flip_bit_of_payload(file: &Path, n: u8) {
	let (mut bytes, wanted) = (fs::read(file).unwrap(), payload(n));
	// Pages that are no longer used may have it, too.
	let places = bytes.windows(wanted.len()).enumerate().filter(|(_, found)| *found == wanted);
	let places: Vec<usize> = places.map(|(at, _)| at).collect();
	assert!(!places.is_empty());
	places.into_iter().for_each(|at| bytes[at] ^= 1);
	fs::write(file, bytes).unwrap();
}

fn told(leyden: &Leyden) -> Vec<String> {
	let told: Arc<Mutex<Vec<String>>> = Arc::default();
	let telling = Arc::clone(&told);
	leyden.store().observe(Arc::new(move |event: &StoreEvent| {
		telling.lock().unwrap().push(event.to_string());
	}));
	let told = told.lock().unwrap().clone();
	told
}

#[test]
fn a_store_that_was_closed_is_not_checked_and_one_that_was_not_is() {
	for engine in engines() {
		let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
		let open = |dir: &Path| Leyden::builder().url(url(dir, engine));
		let node = open(dir.path()).open().unwrap();
		assert!(node.checked().is_none(), "a new one");
		fill(&node, 5);
		crash(dir.path(), crashed.path());
		drop(node);
		assert!(open(dir.path()).open().unwrap().checked().is_none(), "{engine}: it was closed");

		let node = open(crashed.path()).open().unwrap();
		let checked = node.checked().unwrap();
		assert!(checked.is_clean() && !checked.is_cut_short, "{engine}: {checked:?}");
		assert!(checked.records > 10, "{engine}: {}", checked.records);
		assert!(told(&node).is_empty(), "{engine}");
		drop(node);
		assert!(open(crashed.path()).open().unwrap().checked().is_none(), "{engine}");
	}
}

/// Damage is told, and the node goes on without the lane.
#[test]
fn damage_is_told_when_a_node_starts_after_a_crash() {
	for engine in engines() {
		let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
		let open = |dir: &Path| Leyden::builder().url(url(dir, engine));
		fill(&open(dir.path()).open().unwrap(), 5);
		flip_bit_of_payload(&dir.path().join(NAME), 2);
		let node = open(dir.path()).open().unwrap();
		assert!(node.checked().is_none(), "it was closed");
		crash(dir.path(), crashed.path());
		drop(node);
		// A program that ends before anybody listens: it is found again.
		drop(open(crashed.path()).open().unwrap());
		let node = open(crashed.path()).open().unwrap();
		let checked = node.checked().unwrap();
		// redb has a checksum of its own over each page, and says so as well.
		assert!(!checked.is_clean(), "{engine}");
		let told = told(&node);
		assert_eq!(told.len(), checked.problems.len(), "{told:?}");
		let named = told.iter().find(|told| told.contains("log_entries"));
		assert!(named.is_some_and(|told| told.contains("is damaged")), "{engine}: {told:?}");
		let consumer = node.consumer("app", Start::Beginning).unwrap();
		let mut seen = Vec::new();
		while let Some(delivery) = consumer.next_event().unwrap() {
			seen.push(delivery.index().get());
			delivery.ack().unwrap();
		}
		assert_eq!(seen, [1, 3, 4, 5], "{engine}");
		drop((consumer, node));
		assert!(open(crashed.path()).open().unwrap().checked().is_none(), "{engine}: it was heard");
	}
}

#[test]
fn the_check_reads_no_more_than_it_is_told_to() {
	let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
	let open = |dir: &Path| Leyden::builder().url(url(dir, "sqlite"));
	let node = open(dir.path()).open().unwrap();
	fill(&node, 50);
	crash(dir.path(), crashed.path());
	let again = tempfile::tempdir().unwrap();
	crash(dir.path(), again.path());
	drop(node);
	let node = open(crashed.path()).check_after_crash(20).open().unwrap();
	let checked = node.checked().unwrap();
	assert!(checked.is_cut_short, "{checked:?}");
	assert!(checked.is_clean(), "what was not read is not missing: {checked:?}");
	let told = told(&node);
	assert!(told.len() == 1 && told[0].contains("records were checked"), "{told:?}");
	assert!(open(again.path()).check_after_crash(0).open().unwrap().checked().is_none());
}

/// Many problems are not many lines.
#[test]
fn a_store_that_is_damaged_all_over_is_told_in_a_few_lines() {
	let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
	let open = |dir: &Path| Leyden::builder().url(url(dir, "sqlite"));
	fill(&open(dir.path()).open().unwrap(), 30);
	(1..=25).for_each(|n| flip_bit_of_payload(&dir.path().join(NAME), n));
	let node = open(dir.path()).open().unwrap();
	crash(dir.path(), crashed.path());
	drop(node);
	let node = open(crashed.path()).open().unwrap();
	assert_eq!(node.checked().unwrap().problems.len(), 25);
	let told = told(&node);
	assert_eq!(told.len(), 11, "{told:?}");
	assert!(told[10].contains("15 more problems"), "{}", told[10]);
}

/// Prints how long the check of a large store takes, beside a scan of its entries alone:
/// `LEYDEN_CHECK_ENTRIES=1000000 cargo test --release -p leyden --all-features --test check_after_crash
/// a_large_store -- --nocapture`.
#[test]
fn a_large_store_is_checked_whole() {
	let entries = std::env::var("LEYDEN_CHECK_ENTRIES").ok();
	let entries: u64 = entries.map_or(2_000, |entries| entries.parse().unwrap());
	for engine in engines() {
		let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
		let builder = |dir: &Path| Leyden::builder().url(url(dir, engine));
		let node = builder(dir.path()).open().unwrap();
		let event = |n: u64| {
			let mut id = [0; 32];
			id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
			let (id, lane) = (EventId::from_bytes(id), Lane::named(&(n % 50).to_string()));
			NewEvent { id, kind: EventKind::new("Test").unwrap(), lane, payload: vec![7; 300] }
		};
		for from in (0..entries).step_by(1_000) {
			let batch = (from..entries.min(from + 1_000)).map(event).collect();
			node.events().append_batch(batch).unwrap();
		}
		let began = Instant::now();
		let mut rest = Some(KeyRange::all(Table::new("log_entries")));
		while let Some(range) = rest.take() {
			rest = node.store().scan(range, 1_000).wait().unwrap().rest;
		}
		let scan = began.elapsed();
		node.store().checkpoint().unwrap();
		crash(dir.path(), crashed.path());
		drop(node);
		let began = Instant::now();
		let most = 2 * entries + 1_000;
		let node = builder(crashed.path()).check_after_crash(most).open().unwrap();
		let opening = began.elapsed();
		let checked = node.checked().unwrap();
		assert!(checked.is_clean() && !checked.is_cut_short, "{checked:?}");
		// Each entry and its id.
		assert!(checked.records >= 2 * entries, "{}", checked.records);
		println!(
			"{engine}: {entries} entries, {} records: opened in {:.2} s, {:.1} times a scan of the entries",
			checked.records,
			opening.as_secs_f64(),
			opening.as_secs_f64() / scan.as_secs_f64()
		);
	}
}
