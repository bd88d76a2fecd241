//! The power fails: what no flush had covered is lost, partly there, or torn, while four threads
//! append and ack. What was acknowledged is there afterwards, and the store opens, every time; also
//! if the power fails again while it recovers.
//!
//! `LEYDEN_POWER_LOSS=1000 cargo test -p leyden-backends --all-features --test power_loss --
//! --nocapture` does that a thousand times per engine.
//!
//! The disk that fails is `power_loss/shim.c`, preloaded into a child process.

#![cfg(all(target_os = "linux", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod load;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use load::{Journal, Kind};

/// What the shim ends a process with.
const CRASHED: i32 = 77;

/// How often each engine loses its power.
fn crashes() -> u64 {
	std::env::var("LEYDEN_POWER_LOSS").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}

/// The shim, compiled once.
fn shim() -> &'static Path {
	static SHIM: OnceLock<PathBuf> = OnceLock::new();
	SHIM.get_or_init(|| {
		let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
		let (source, shim) = (
			Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_loss/shim.c"),
			dir.join(format!("power-loss-shim-{}.so", std::process::id())),
		);
		let compiled = Command::new("cc")
			.args(["-shared", "-fPIC", "-O1", "-o"])
			.arg(&shim)
			.arg(&source)
			.args(["-ldl", "-lpthread"])
			.status();
		assert!(compiled.is_ok_and(|status| status.success()), "cc compiles the shim");
		shim
	})
}

/// One life of a child, with the shim set so.
fn live(kind: Kind, dir: &Path, shim_variables: &[(&str, u64)], journal: &mut Journal) -> i32 {
	let mut child = Command::new(std::env::current_exe().unwrap());
	child.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
	child.env(load::CHILD, kind.name()).env(load::CHILD_DIR, dir);
	child.env(load::CHILD_LIFE, journal.lives().to_string());
	child.env("LD_PRELOAD", shim()).env("LEYDEN_SHIM_DIR", dir);
	for (name, value) in shim_variables {
		child.env(name, value.to_string());
	}
	let output = child.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
	journal.hear(&String::from_utf8_lossy(&output.stdout));
	let code = output.status.code().unwrap_or(-1);
	if code != 0 && code != CRASHED {
		panic!("{kind:?}: {code}: {}", String::from_utf8_lossy(&output.stderr));
	}
	if code == CRASHED {
		scribble(dir);
	}
	code
}

/// Fills what is mapped into memory with noise: no flush covers it, and any of it may be on the disk
/// after a power loss.
fn scribble(dir: &Path) {
	for file in std::fs::read_dir(dir).unwrap() {
		let path = file.unwrap().path();
		if path.to_string_lossy().ends_with("-shm") {
			let length = std::fs::metadata(&path).unwrap().len();
			let noise: Vec<u8> = (0..length).map(|n| load::scramble(n) as u8).collect();
			std::fs::write(&path, noise).unwrap();
		}
	}
}

/// In the child: a store under load, which tells what it was told.
#[test]
fn child() {
	if let Some(kind) = load::child_kind() {
		load::run(kind);
	}
}

/// Loses its power `count` times in two lives each; answers how often it really did, and what was
/// found wrong.
fn lose_power(kind: Kind, count: u64) -> (u64, BTreeMap<String, u64>) {
	// How many changes and flushes there are to die at.
	let whole = tempfile::tempdir().unwrap();
	let mut journal = Journal::new();
	let free = [("LEYDEN_SHIM_SEED", 1)];
	assert_eq!(live(kind, whole.path(), &free, &mut journal), 0);
	assert_eq!(journal.check(kind, whole.path()), Ok(()), "with no crash at all");
	let (mut crashed, mut wrong, mut seed) = (0, BTreeMap::new(), 0_u64);
	while crashed < count {
		let dir = tempfile::tempdir().unwrap();
		let mut journal = Journal::new();
		for life in 0..2 {
			seed += 1;
			assert!(seed < count * 20 + 100, "it does not crash");
			let random = load::scramble(seed);
			// Half of the deaths early: there it creates, or recovers.
			let at = if random % 2 == 0 { random / 2 % 25 } else { random / 2 % 400 };
			let mode = random / 1_000 % 3;
			let set =
				[("LEYDEN_SHIM_AT", at), ("LEYDEN_SHIM_MODE", mode), ("LEYDEN_SHIM_SEED", seed)];
			crashed += u64::from(live(kind, dir.path(), &set, &mut journal) == CRASHED);
			// The second life may die while it makes good what the first one left.
			if life == 1 || random % 3 == 0 {
				if let Err(what) = journal.check(kind, dir.path()) {
					*wrong.entry(format!("mode {mode}: {what}")).or_default() += 1;
					break;
				}
			}
		}
	}
	(crashed, wrong)
}

fn survives(kind: Kind) {
	let (crashed, wrong) = lose_power(kind, crashes());
	println!("{kind:?}: the power failed {crashed} times; wrong afterwards: {wrong:?}");
	assert!(wrong.is_empty(), "{kind:?}: {wrong:#?}");
}

/// The same harness must see what a store without flushes loses.
fn is_caught(kind: Kind) {
	let (crashed, wrong) = lose_power(kind, crashes().clamp(25, 200));
	let times: u64 = wrong.values().sum();
	println!("{kind:?} (negative control): {times} of {crashed} losses of power were caught");
	assert!(times > 2, "{kind:?}: a store that does not flush went unnoticed");
}

#[test]
fn sqlite_survives() {
	survives(Kind::Sqlite);
}

/// A witness that is not flushed is never ahead of its database, so that a loss of power leaves a
/// store that opens.
#[test]
fn a_witness_refuses_nothing_after_a_loss_of_power() {
	survives(Kind::SqliteWitnessed);
	#[cfg(feature = "redb")]
	survives(Kind::RedbWitnessed);
	is_caught(Kind::SqliteOffWitnessed);
}

#[test]
fn sqlite_with_synchronous_normal_is_caught() {
	is_caught(Kind::SqliteNormal);
}

#[test]
fn sqlite_with_synchronous_off_is_caught() {
	is_caught(Kind::SqliteOff);
}

#[cfg(feature = "redb")]
#[test]
fn redb_survives() {
	survives(Kind::Redb);
}

#[cfg(feature = "redb")]
#[test]
fn redb_with_two_phases_survives() {
	survives(Kind::RedbTwoPhase);
}

#[cfg(feature = "redb")]
#[test]
fn redb_without_flushes_is_caught() {
	is_caught(Kind::RedbLazy);
}

/// A flush fails once, and the kernel drops what it did not write. The handle is over, and what was
/// acknowledged is there.
fn survives_eio(kind: Kind) {
	let (mut failed, count) = (0, crashes().min(100));
	for seed in 0..count {
		let dir = tempfile::tempdir().unwrap();
		let mut journal = Journal::new();
		let at = load::scramble(seed) % 200;
		let set = [("LEYDEN_SHIM_AT", at), ("LEYDEN_SHIM_MODE", 3), ("LEYDEN_SHIM_SEED", seed)];
		assert_eq!(live(kind, dir.path(), &set, &mut journal), 0);
		failed += u64::from(journal.was_poisoned());
		assert_eq!(journal.check(kind, dir.path()), Ok(()), "{kind:?} at {at}");
	}
	println!("{kind:?}: {failed} of {count} lives met a flush that failed");
	assert!(failed * 4 > count, "{failed}");
}

/// The disk is full for a while: that is said, nothing is lost, and it goes on afterwards.
fn survives_enospc(kind: Kind) {
	let (mut told, count) = (0, crashes().min(100));
	for seed in 0..count {
		let dir = tempfile::tempdir().unwrap();
		let mut journal = Journal::new();
		let at = 30 + load::scramble(seed) % 200;
		let set = [
			("LEYDEN_SHIM_AT", at),
			("LEYDEN_SHIM_UNTIL", at + 1 + load::scramble(seed) % 40),
			("LEYDEN_SHIM_MODE", 4),
			("LEYDEN_SHIM_SEED", seed),
		];
		assert_eq!(live(kind, dir.path(), &set, &mut journal), 0);
		told += u64::from(journal.was_full());
		assert_eq!(journal.check(kind, dir.path()), Ok(()), "{kind:?} at {at}");
	}
	println!("{kind:?}: {told} of {count} lives were told that the disk is full");
	assert!(told * 4 > count, "{told}");
}

#[test]
fn sqlite_survives_a_failed_flush_and_a_full_disk() {
	survives_eio(Kind::Sqlite);
	survives_enospc(Kind::Sqlite);
}

#[cfg(feature = "redb")]
#[test]
fn redb_survives_a_failed_flush_and_a_full_disk() {
	survives_eio(Kind::Redb);
	survives_enospc(Kind::Redb);
}

/// Killed at random moments by nothing more than a signal: the locks are free, the epoch is raised,
/// and all is there.
#[test]
fn a_process_that_is_killed_loses_nothing() {
	let kinds = [Kind::Sqlite, Kind::Redb, Kind::Postgres];
	for kind in kinds.into_iter().filter(|kind| kind.is_here()) {
		let count = crashes().min(200);
		let server = load::ServerFor::new(kind);
		let Some(server) = server else { continue };
		let dir = tempfile::tempdir().unwrap();
		let mut journal = Journal::new();
		for life in 0..count {
			let mut child = Command::new(std::env::current_exe().unwrap());
			child.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
			child.env(load::CHILD, kind.name()).env(load::CHILD_DIR, dir.path());
			child.env(load::CHILD_LIFE, journal.lives().to_string());
			child.env(load::CHILD_THREADS, "16").env(load::CHILD_ENDLESS, "1");
			server.tell(&mut child);
			let mut child = child.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
			// Killed once it has said so much.
			let lines = load::scramble(life) % 300;
			journal.hear_until(child.stdout.take().unwrap(), lines, || child.kill().unwrap());
			child.wait().unwrap();
			if life % 5 == 4 || life + 1 == count {
				assert_eq!(journal.check_at(kind, dir.path(), &server), Ok(()), "life {life}");
			}
		}
		println!("{kind:?}: killed {count} times with 16 threads at work");
	}
}

/// While one process has the store, another gets nothing done; or the first is fenced, and hears it.
#[test]
fn two_processes_never_both_write() {
	let kinds = [Kind::Sqlite, Kind::Redb, Kind::Postgres];
	for kind in kinds.into_iter().filter(|kind| kind.is_here()) {
		let Some(server) = load::ServerFor::new(kind) else { continue };
		let dir = tempfile::tempdir().unwrap();
		let mut child = Command::new(std::env::current_exe().unwrap());
		child.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
		child.env(load::CHILD, kind.name()).env(load::CHILD_DIR, dir.path());
		child.env(load::CHILD_ENDLESS, "1");
		server.tell(&mut child);
		let mut child = child.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
		let mut said = BufReader::new(child.stdout.take().unwrap());
		let mut line = String::new();
		let mut wait_for = |what: &str| {
			line.clear();
			while said.read_line(&mut line).unwrap() > 0 && !line.contains(what) {
				line.clear();
			}
			line.contains(what)
		};
		assert!(wait_for("@ok append"), "{kind:?}");
		match load::open(kind, dir.path(), &server) {
			Err(error) => {
				assert!(matches!(error, leyden_store::StoreError::Locked { .. }), "{error}");
				assert!(wait_for("@ok append"), "the first goes on");
				child.kill().unwrap();
				child.wait().unwrap();
				drop(load::open(kind, dir.path(), &server).unwrap());
			},
			// It took over.
			Ok(_store) => {
				assert_eq!(kind, Kind::Postgres);
				assert!(wait_for("fenced"), "the first hears of it");
				assert!(child.wait().unwrap().success(), "and ends");
			},
		}
	}
}
