//! One bit of a store flips, wherever it is: what is read afterwards is unchanged, or the check finds
//! something and names it.
//!
//! `LEYDEN_BIT_FLIPS=2000 cargo test -p leyden --all-features --test bit_flips -- --nocapture` is the
//! long form.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use leyden::id::{Domain, EventKind, IdBuilder, Lane};
use leyden::log::{LogReader, NewEvent, Start};
use leyden::store::witness::WitnessedStore;
use leyden::store::{Namespace, Store, SystemClock};
use leyden::{Leyden, StoreUrl};

fn flips() -> u64 {
	std::env::var("LEYDEN_BIT_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

fn event(n: u64) -> NewEvent {
	let id = IdBuilder::new(Domain::new("test/flips", 1), "n").number(n).finish();
	let kind = EventKind::new("kind").unwrap();
	let lane = Lane::named(&(n % 7).to_string());
	NewEvent { id, kind, lane, payload: vec![n as u8; (n * 37 % 300) as usize] }
}

/// A store with two consumers, of which one is behind, acks, a retry and a dead letter.
fn fill(url: &StoreUrl) {
	fill_open(&Leyden::builder().url(url.clone()).open().unwrap());
}

fn fill_open(leyden: &Leyden) {
	for n in 0..200 {
		leyden.events().append(event(n)).unwrap();
	}
	for (name, every) in [("first", 1), ("second", 3)] {
		let consumer = leyden.consumer(name, Start::Beginning).unwrap();
		let mut held = Vec::new();
		while let Some(delivery) = consumer.next_event().unwrap() {
			let index = delivery.index().get();
			match index % 50 {
				7 => delivery.retry().unwrap(),
				9 => delivery.dead_letter("no").unwrap(),
				_ if index % every == 0 => delivery.ack().unwrap(),
				_ => held.push(delivery),
			}
		}
	}
}

/// Returns everything that a user can read, or the error that refuses it.
fn read(url: &StoreUrl) -> Result<BTreeMap<String, String>, String> {
	let told = |error: &dyn std::fmt::Display| error.to_string();
	let store = url.open_read_only(Namespace::default()).map_err(|e| told(&e))?;
	let reader = LogReader::new(store);
	let mut seen = BTreeMap::new();
	for stream in reader.streams().map_err(|e| told(&e))? {
		seen.insert(format!("{} is", stream.name), format!("{stream:?}"));
		let entries = reader.entries(&stream.name, None, 10_000).map_err(|e| told(&e))?;
		for place in entries {
			let entry = place.map_err(|damaged| told(damaged.error()))?;
			let at = entry.index();
			let text = format!("{entry:?} {:?}", entry.payload());
			seen.insert(format!("{} {at}", stream.name), text);
		}
		for consumer in &stream.consumers {
			let unacked = reader.unacked(&stream.name, &consumer.name, None, 10_000);
			for place in unacked.map_err(|e| told(&e))? {
				let entry = place.map_err(|damaged| told(damaged.error()))?;
				let (at, name) = (entry.index(), &consumer.name);
				let failed =
					reader.failed_attempts(&stream.name, name, at).map_err(|e| told(&e))?;
				seen.insert(format!("{} {at} {name}", stream.name), format!("{failed}"));
			}
			let letters = reader.dead_letters(&stream.name, &consumer.name, None, 100);
			let letters = format!("{:?}", letters.map_err(|e| told(&e))?);
			seen.insert(format!("{} {} letters", stream.name, consumer.name), letters);
		}
	}
	Ok(seen)
}

#[derive(Debug, Default)]
struct Outcomes {
	unchanged: u64,
	refused: u64,
	found: u64,
	silent: Vec<String>,
}

/// Flips bits of the closed file at `path`, one at a time.
fn flip(url: &StoreUrl, path: &Path, count: u64) -> Outcomes {
	let whole = fs::read(path).unwrap();
	let expected = read(url).unwrap();
	assert!(url.verify().unwrap().is_clean());
	let mut outcomes = Outcomes::default();
	for n in 0..count {
		let random = scramble(n);
		let (byte, bit) = ((random >> 8) as usize % whole.len(), random as u8 % 8);
		let mut bytes = whole.clone();
		bytes[byte] ^= 1 << bit;
		fs::write(path, &bytes).unwrap();
		let outcome = std::panic::catch_unwind(|| (read(url), url.verify()));
		match outcome {
			Ok((Ok(seen), Ok(verified))) if verified.is_clean() && seen == expected => {
				outcomes.unchanged += 1;
			},
			Ok((Ok(seen), Ok(verified))) if verified.is_clean() => {
				let changed = expected.iter().find(|(key, value)| seen.get(*key) != Some(value));
				let more = seen.keys().find(|key| !expected.contains_key(*key));
				let page = (byte / 4096, byte % 4096);
				outcomes.silent.push(format!("{n}: byte {page:?} bit {bit}: {changed:?} {more:?}"));
			},
			Ok((_, Ok(_))) => outcomes.found += 1,
			Ok((_, Err(_))) => outcomes.refused += 1,
			Err(_) => outcomes.silent.push(format!("{n}: byte {byte} bit {bit}: a panic")),
		}
	}
	fs::write(path, &whole).unwrap();
	outcomes
}

fn scramble(n: u64) -> u64 {
	let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
	z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
	z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
	z ^ (z >> 31)
}

#[test]
fn no_bit_of_a_closed_sqlite_store_flips_unnoticed() {
	let dir = tempfile::tempdir().unwrap();
	let path = dir.path().join("node.leyden");
	let url = StoreUrl::Sqlite(path.clone());
	fill(&url);
	let outcomes = flip(&url, &path, flips());
	println!("SQLite: {outcomes:#?}");
	assert!(outcomes.silent.is_empty(), "{:?}", outcomes.silent);
	assert!(outcomes.found + outcomes.refused > flips() / 4);
}

/// Flips bits of the log of a SQLite store that was killed. SQLite takes what is damaged for the end of
/// the log, and drops everything behind it without a word: the witness tells.
fn flip_log(count: u64, with_witness: bool) -> Outcomes {
	let dir = tempfile::tempdir().unwrap();
	let path = dir.path().join("node.leyden");
	let url = StoreUrl::Sqlite(path.clone());
	let witness = url.witness(&Namespace::default()).unwrap();
	let store = url.open(Namespace::default()).unwrap();
	let store = Arc::new(WitnessedStore::open(store, Box::new(witness)).unwrap());
	let shared: Arc<dyn Store> = Arc::<WitnessedStore>::clone(&store);
	fill_open(&Leyden::on(shared, Arc::new(SystemClock)).unwrap());
	store.catch_up().unwrap();
	// What a kill leaves.
	let files = ["", "-wal", "-witness"].map(|ending| format!("node.leyden{ending}"));
	let killed = files.clone().map(|name| fs::read(dir.path().join(name)).unwrap());
	let expected = read(&url).unwrap();
	let mut outcomes = Outcomes::default();
	for n in 0..=count {
		let random = scramble(n);
		let (byte, bit) = ((random >> 8) as usize % killed[1].len(), random as u8 % 8);
		let again = tempfile::tempdir().unwrap();
		for (name, bytes) in files.iter().zip(&killed) {
			fs::write(again.path().join(name), bytes).unwrap();
		}
		let mut log = killed[1].clone();
		// The first time, nothing is wrong with it.
		log[byte] ^= u8::from(n > 0) << bit;
		fs::write(again.path().join(&files[1]), log).unwrap();
		let url = StoreUrl::Sqlite(again.path().join(&files[0]));
		let outcome = std::panic::catch_unwind(|| {
			let builder = Leyden::builder().url(url.clone());
			let builder = if with_witness { builder } else { builder.without_witness() };
			builder.open().map(drop).map_err(|error| error.to_string())?;
			read(&url)
		});
		match outcome {
			Ok(Ok(seen)) if seen == expected => outcomes.unchanged += u64::from(n > 0),
			other if n == 0 => {
				panic!("a store that was killed: {:?}", other.map(|read| read.err()))
			},
			Ok(Ok(seen)) => {
				let lost = expected.keys().filter(|key| !seen.contains_key(*key)).count();
				outcomes.silent.push(format!("{n}: byte {byte} bit {bit}: {lost} are lost"));
			},
			Ok(Err(_)) => outcomes.refused += 1,
			Err(_) => outcomes.silent.push(format!("{n}: byte {byte} bit {bit}: a panic")),
		}
	}
	outcomes
}

#[test]
fn no_bit_of_the_log_of_a_killed_store_flips_unnoticed() {
	let outcomes = flip_log(flips(), true);
	println!("SQLite's log: {outcomes:#?}");
	assert!(outcomes.silent.is_empty(), "{:?}", outcomes.silent);
	// Negative control: without a witness nobody notices.
	let outcomes = flip_log(50, false);
	println!("SQLite's log, without a witness: {} of 50 are silent", outcomes.silent.len());
	assert!(outcomes.silent.len() > 25, "{outcomes:?}");
}

#[cfg(feature = "storage-redb")]
#[test]
fn no_bit_of_a_closed_redb_store_flips_unnoticed() {
	let dir = tempfile::tempdir().unwrap();
	let path = dir.path().join("node.redb");
	let url = StoreUrl::Redb(path.clone());
	fill(&url);
	let outcomes = flip(&url, &path, flips());
	println!("redb: {outcomes:#?}");
	assert!(outcomes.silent.is_empty(), "{:?}", outcomes.silent);
}
