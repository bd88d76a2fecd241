// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The node of the demo that crashes, and where it keeps things: `CASE.leyden` is Leyden's
//! database, and `CASE.ldk` the node's own (its monitors and its manager), a SQLite database as
//! well.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use leyden::backends::sqlite::SqliteStore;
use leyden::ldk::LeydenKvStore;
use leyden::store::{MemoryMedium, MemoryStore, Namespace, Store, StoreError};
use leyden_testkit::cases::{run, Case, CaseSetup};
use leyden_testkit::leyden_guard::OpenStore;
use leyden_testkit::{Bare, GuardFactory, LeydenGuard, MemKv, NodeDisk, Wiring};

use crate::output::{tell, Failure, Output};
use crate::report::Report;

const SEED: u64 = 1;
/// What the child says when it is to be killed.
const KILL_ME: &str = "at the crash";

/// Where a case keeps things.
pub struct Place {
	/// Leyden's database.
	pub leyden: PathBuf,
	/// The node's own.
	pub ldk: PathBuf,
}

impl Place {
	pub fn new(dir: &Path, case: Case, with_leyden: bool) -> Self {
		let name = if with_leyden { case.name().to_owned() } else { format!("{case}-ldk-alone") };
		Self { leyden: dir.join(format!("{name}.leyden")), ldk: dir.join(format!("{name}.ldk")) }
	}
}

/// Runs a case in this process: a crash drops the node.
pub fn in_process(
	case: Case, dir: &Path, with_leyden: bool, step: &mut dyn FnMut(&str),
) -> Result<Report, Failure> {
	let place = Place::new(dir, case, with_leyden);
	let disk = Arc::new(NodeDisk::new(kv(&place.ldk)?));
	let guards = if with_leyden { guards(case, sqlite(&place.leyden)) } else { Bare::factory() };
	Ok(Report::of(&run(case, &setup(guards, disk), step)))
}

/// Runs a case with the node in processes of their own: the first is killed at the crash.
pub fn killed(
	case: Case, dir: &Path, with_leyden: bool, step: &mut dyn FnMut(&str),
) -> Result<Report, Failure> {
	step("first life, in a process of its own");
	let mut first = command(case, dir, with_leyden, false)?;
	let mut child = first.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().map_err(tell)?;
	let said = child.stdout.take().map(|out| BufReader::new(out).lines().next());
	if !matches!(said, Some(Some(Ok(line))) if line == KILL_ME) {
		let _ = child.kill();
		let _ = child.wait();
		return Err(Failure::Error("the node's process did not come to the crash".to_owned()));
	}
	step("SIGKILL");
	child.kill().map_err(tell)?;
	child.wait().map_err(tell)?;
	step("next life, in another process");
	let second = command(case, dir, with_leyden, true)?.output().map_err(tell)?;
	if !second.status.success() {
		return Err(Failure::Error(String::from_utf8_lossy(&second.stderr).into_owned()));
	}
	let document = serde_json::from_slice(&second.stdout).map_err(tell)?;
	Report::from_json(&document).ok_or_else(|| Failure::Error("no report".to_owned()))
}

/// A node in a process of its own.
///
/// Everything but the node that crashes is decided by the seed: the chain and the peers of the
/// second process come to the same point as those of the first by doing the same again. The node
/// that crashes is then taken from the databases that the killed process left, and nothing of its
/// second run up to there is used.
pub fn child(
	case: Case, dir: &Path, with_leyden: bool, resume: bool, output: &mut Output,
) -> Result<(), Failure> {
	let place = Place::new(dir, case, with_leyden);
	if !resume {
		let disk = Arc::new(NodeDisk::new(kv(&place.ldk)?));
		let guards =
			if with_leyden { guards(case, sqlite(&place.leyden)) } else { Bare::factory() };
		run(case, &setup(guards, disk), &mut |step| {
			if step == "crash" {
				let _ = output.line(KILL_ME);
				// Until we are killed.
				let _ = std::io::stdin().read(&mut [0]);
			}
		});
		return Err(Failure::Error("was not killed".to_owned()));
	}
	let left = NodeDisk::new(kv(&place.ldk)?).snapshot();
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let inner = if with_leyden {
		let (scratch, real) = (MemoryMedium::new(), sqlite(&place.leyden));
		let open: OpenStore = Arc::new(move |life| match life {
			1 => match MemoryStore::open(&scratch, Namespace::default()) {
				Ok(store) => Arc::new(store) as Arc<dyn Store>,
				Err(error) => stop(&error),
			},
			life => real(life),
		});
		guards(case, open)
	} else {
		Bare::factory()
	};
	let restored = Arc::clone(&disk);
	let guards: GuardFactory = Arc::new(move |life| {
		if life == 2 {
			restored.restore(left.clone());
		}
		inner(life)
	});
	let outcome = run(case, &setup(guards, disk), &mut |_| ());
	output.json(&Report::of(&outcome).to_json())
}

fn setup(guards: GuardFactory, victim: Arc<NodeDisk>) -> CaseSetup {
	CaseSetup::guarded(SEED, guards).on_node_disks(move |role| match role {
		"victim" => Arc::clone(&victim),
		_ => Arc::new(NodeDisk::new(Arc::new(MemKv::new()))),
	})
}

fn guards(case: Case, open: OpenStore) -> GuardFactory {
	LeydenGuard::factory(Wiring { splices: case.is_splice(), ..Wiring::default() }, open)
}

/// Opens the database anew in every life.
fn sqlite(path: &Path) -> OpenStore {
	let path = path.to_owned();
	Arc::new(move |_| match SqliteStore::open(&path, Namespace::default()) {
		Ok(store) => Arc::new(store) as Arc<dyn Store>,
		Err(error) => stop(&error),
	})
}

/// A node that cannot open its store does not start; in the demo that ends the program.
fn stop(error: &StoreError) -> ! {
	Output::new().error(&error.to_string());
	std::process::exit(1)
}

fn kv(path: &Path) -> Result<Arc<LeydenKvStore>, Failure> {
	let store = SqliteStore::open(path, Namespace::default()).map_err(tell)?;
	Ok(Arc::new(LeydenKvStore::new(Arc::new(store))))
}

fn command(case: Case, dir: &Path, with_leyden: bool, resume: bool) -> Result<Command, Failure> {
	let mut command = Command::new(std::env::current_exe().map_err(tell)?);
	command.arg("demo-node").arg(case.name()).arg(dir);
	if with_leyden {
		command.arg("--leyden");
	}
	if resume {
		command.arg("--resume");
	}
	Ok(command)
}
