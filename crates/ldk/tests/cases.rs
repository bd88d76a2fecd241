//! The crashes from which LDK alone does not recover, on real nodes with Leyden. What LDK alone
//! makes of them is asserted in the testkit's own tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use leyden_store::{MemoryMedium, MemoryStore, Namespace, Store};
use leyden_testkit::cases::{run, Case, CaseSetup, Outcome, Verdict};
use leyden_testkit::{LeydenGuard, Wiring};

fn with_leyden(case: Case, wiring: Wiring, anchors: bool) -> Outcome {
	let medium = MemoryMedium::new();
	let open = move |_life| -> Arc<dyn Store> {
		Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap())
	};
	let setup = CaseSetup::guarded(1, LeydenGuard::factory(wiring, Arc::new(open)));
	let setup = if anchors { setup.with_anchors() } else { setup };
	run(case, &setup, &mut |_| ())
}

fn recovers(case: Case) {
	for anchors in [false, true] {
		let outcome = with_leyden(case, Wiring::default(), anchors);
		assert_eq!(
			outcome.verdict(),
			Verdict::Recovered,
			"{case:?} anchors={anchors}: {outcome:?}"
		);
		assert_eq!(outcome.panics(), 0, "{outcome:?}");
	}
}

macro_rules! cases {
	($($name:ident: $case:ident),* $(,)?) => {$(
		#[test]
		fn $name() {
			recovers(Case::$case);
		}
	)*};
}

cases! {
	a_nothing_is_lost_and_leyden_changes_nothing: A,
	b_a_lost_close_and_claim_come_again: B,
	g1_no_crash_loop: G1,
	g3_no_zombie_channel: G3,
	h_a_failed_forward_is_failed_back: H,
	k_no_payment_failed_after_payment_sent: K,
	k0_what_ldk_heals_stays_healed: K0,
	l_a_failed_payment_is_told: L,
	n_no_crash_loop_with_a_manager_in_between: N,
	p_no_payment_is_pending_for_ever: P,
}

/// Splices that LDK alone forgets.
#[test]
fn splices_are_finished() {
	for case in Case::SPLICES {
		let outcome = with_leyden(case, Wiring { splices: true, ..Wiring::default() }, true);
		assert_eq!(outcome.verdict(), Verdict::Recovered, "{case}: {outcome:?}");
		// Two splices, with two transactions each.
		let negotiated = if case == Case::FeeBump { 4 } else { 1 };
		assert_eq!(outcome.told("SpliceNegotiated"), negotiated);
		// Without the keeper, the bus and the journal do not help.
		let outcome = with_leyden(case, Wiring::default(), true);
		assert_eq!(outcome.verdict(), Verdict::Stuck, "{case}: {outcome:?}");
	}
}

/// Without the barrier the bus alone does not help: this is the rule that case K needs.
#[test]
fn k_contradicts_without_the_barrier() {
	let outcome = with_leyden(Case::K, Wiring { barrier: false, ..Wiring::default() }, false);
	assert_eq!(outcome.verdict(), Verdict::Contradiction, "{outcome:?}");
}
