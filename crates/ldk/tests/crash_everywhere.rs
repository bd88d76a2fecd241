//! Real nodes that die before and after every single write, of Leyden's store and of LDK's disk,
//! from the moment the channel goes on chain until everything has come to rest.
//!
//! However it dies, the case must end as well as without a death, and after every restart the log
//! must hold what it promised (P1, P2, P3). The same harness over a medium that acknowledges before
//! it keeps must report losses.

// The number of deaths is printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use leyden_id::EventId;
use leyden_ldk::{MANAGER_CONSUMER, MONITOR_STREAM};
use leyden_log::{LogIndex, LogReader};
use leyden_store::{MemoryStore, Namespace, Store};
use leyden_testkit::cases::{run, Case, CaseSetup, Verdict};
use leyden_testkit::panics::catch;
use leyden_testkit::{
	crash_everywhere, Doom, FaultyStore, Guard, GuardFactory, LeydenGuard, LossyMedium, MemKv,
	NodeDisk, Wiring,
};

/// What the log was seen to promise, over all lives.
#[derive(Default)]
struct Promises {
	/// Entries that were acked when somebody looked.
	acked: BTreeSet<u64>,
	/// Every entry, by place.
	entries: Vec<EventId>,
}

impl Promises {
	/// Looks at the log, as a process finds it that starts, and holds it to what was seen before.
	fn check(&mut self, store: &Arc<dyn Store>) {
		let reader = LogReader::new(Arc::clone(store));
		let entries = reader.entries(MONITOR_STREAM, None, 10_000).unwrap();
		let ids: Vec<EventId> = entries.iter().map(|entry| entry.id()).collect();
		// P1 and P4: what was there is there, in its place, and nothing came in between.
		assert!(ids.starts_with(&self.entries), "entries were lost or moved");
		// P3: one logical event is one entry.
		assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an event is two entries");
		self.entries = ids;
		for entry in &entries {
			let index = entry.index();
			let acked = reader.is_acked(MONITOR_STREAM, MANAGER_CONSUMER, index).unwrap();
			// P2: what was acked stays so.
			assert!(acked || !self.acked.contains(&index.get()), "{index} was acked and is not");
			if acked {
				self.acked.insert(index.get());
			}
		}
		let unacked = reader.unacked(MONITOR_STREAM, MANAGER_CONSUMER, None, 10_000).unwrap();
		let unacked: BTreeSet<LogIndex> = unacked.iter().map(|entry| entry.index()).collect();
		let all = entries.len();
		assert_eq!(unacked.len() + self.acked.len(), all, "an entry is neither acked nor un-acked");
	}
}

fn scenario(case: Case, doom: &Arc<Doom>, medium: &LossyMedium) {
	doom.disarm();
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let hook = Arc::clone(doom);
	disk.on_write(move |write| hook.fate(write));
	let promises = Arc::new(Mutex::new(Promises::default()));

	let guards: GuardFactory = {
		let (doom, disk, medium) = (Arc::clone(doom), Arc::clone(&disk), medium.clone());
		Arc::new(move |life| -> Arc<dyn Guard> {
			if life > 1 {
				medium.crash();
			}
			let store = MemoryStore::open(&medium.live(), Namespace::default()).unwrap();
			let store: Arc<dyn Store> = Arc::new(store);
			promises.lock().unwrap().check(&store);
			let (dies, keeps, looks) = (Arc::clone(&disk), medium.clone(), Arc::clone(&promises));
			let seen = Arc::clone(&store);
			let faulty = FaultyStore::new(store, Arc::clone(&doom))
				.on_death(move || dies.kill())
				.after_each(move || {
					keeps.committed();
					looks.lock().unwrap().check(&seen);
				});
			Arc::new(LeydenGuard::new(Arc::new(faulty), Wiring::default()))
		})
	};
	let role_disk = Arc::clone(&disk);
	let setup = CaseSetup::guarded(1, guards).on_node_disks(move |role| match role {
		"victim" => Arc::clone(&role_disk),
		_ => Arc::new(NodeDisk::new(Arc::new(MemKv::new()))),
	});
	let outcome = run(case, &setup, &mut |step| {
		if step.starts_with("the payee goes on chain") {
			doom.arm();
		}
	});
	assert_eq!(outcome.verdict(), Verdict::Recovered, "{case:?} {doom:?}: {outcome:?}");
	assert_eq!(outcome.panics(), 0, "{case:?} {doom:?}: {outcome:?}");
}

fn everywhere(case: Case) {
	let deaths = crash_everywhere(|doom| scenario(case, doom, &LossyMedium::keeping_every(1)));
	println!("case {case}: {deaths} deaths");
}

macro_rules! everywhere {
	($($name:ident: $case:ident),* $(,)?) => {$(
		#[test]
		fn $name() {
			everywhere(Case::$case);
		}
	)*};
}

everywhere! {
	case_a: A,
	case_b: B,
	case_g1: G1,
	case_g3: G3,
	case_h: H,
	case_k: K,
	case_k0: K0,
	case_l: L,
	case_n: N,
	case_p: P,
}

/// The negative control: a medium that acknowledges before it keeps.
#[test]
fn a_medium_that_lies_is_caught() {
	let mut caught = 0;
	let mut tried = 0;
	for write in 0..20 {
		let doom = Doom::at(write, leyden_testkit::Side::After);
		let medium = LossyMedium::keeping_every(4);
		tried += 1;
		let ended = catch(|| scenario(Case::G3, &doom, &medium));
		caught += u32::from(ended.is_err());
	}
	println!("a lying medium: {caught} of {tried} deaths showed a loss");
	assert!(caught > 0);
}
