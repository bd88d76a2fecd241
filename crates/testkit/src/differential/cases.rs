//! The [cases](crate::cases) with any wiring, and the ways in which one end of a case is worse than
//! another.

use std::sync::Arc;

use leyden_store::{MemoryMedium, MemoryStore, Namespace, Store};

use super::actor::{Actor, Preimages};
use super::deaths::{Deaths, Schedule};
use super::wirings::{start, Wire};
use crate::cases::{run, Case, CaseSetup, Outcome, Verdict};
use crate::disk::{MemKv, NodeDisk};
use crate::guard::GuardFactory;

/// Runs a case whose victim has this wiring.
pub fn run_case(case: Case, wire: &Wire, anchors: bool) -> Outcome {
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let (wire, dies) = (Arc::clone(wire), Arc::clone(&disk));
	let (user, medium) = (Actor::new(Preimages::default()), MemoryMedium::new());
	let deaths = Deaths::new(&Schedule::default());
	let open = move || -> Arc<dyn Store> {
		Arc::new(MemoryStore::open(&medium, Namespace::default()).expect("memory opens"))
	};
	let guards: GuardFactory =
		Arc::new(move |life| start(&wire, life, &dies, &user, &deaths, false, &open));
	let setup = CaseSetup::guarded(1, guards).on_node_disks(move |role| match role {
		"victim" => Arc::clone(&disk),
		_ => Arc::new(NodeDisk::new(Arc::new(MemKv::new()))),
	});
	let setup = if anchors { setup.with_anchors() } else { setup };
	run(case, &setup, &mut |_| ())
}

/// Returns the ways in which `ours` is a worse end of a case than `alone`.
pub fn worse_case(ours: &Outcome, alone: &Outcome) -> Vec<String> {
	let mut worse = Vec::new();
	if rank(ours.verdict()) < rank(alone.verdict()) {
		worse.push(format!("{:?} instead of {:?}", ours.verdict(), alone.verdict()));
	}
	if ours.panics() > alone.panics() {
		worse.push("LDK panics more often".to_owned());
	}
	let mut names: Vec<String> = alone.lives.iter().flat_map(|life| life.told.clone()).collect();
	names.sort();
	names.dedup();
	for name in names {
		let name = name.split('(').next().unwrap_or_default();
		// LDK alone takes back that it was sent: that is its fault, and not ours.
		let taken_back = matches!(name, "PaymentFailed" | "PaymentPathFailed");
		if taken_back && ours.told("PaymentSent") > 0 {
			continue;
		}
		if alone.told(name) > 0 && ours.told(name) == 0 {
			worse.push(format!("{name} is never told"));
		}
	}
	worse
}

/// Returns the rank of a verdict: the more, the better.
fn rank(verdict: Verdict) -> u8 {
	match verdict {
		Verdict::CrashLoop => 0,
		Verdict::Contradiction => 1,
		Verdict::Stuck => 2,
		Verdict::Recovered => 3,
	}
}
