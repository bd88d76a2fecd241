//! The differential run, and its negative control: what it must find in the wiring of 806b3b3.

// The counts are printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use leyden_testkit::differential::{compare, leyden_806b3b3, scenario, Extent};

/// Prints, for each story, in how many runs Leyden was better, equal or worse.
#[test]
fn differential_of_the_old_wiring_runs_to_its_end() {
	for deferred in [false, true] {
		for scenario in scenario::all(deferred) {
			let report = compare(&scenario, &leyden_806b3b3(), Extent::of_environment());
			println!("deferred {deferred}, {report}");
		}
	}
}
