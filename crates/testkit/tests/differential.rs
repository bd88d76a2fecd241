//! Never worse than LDK alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
use leyden_testkit::cases::Case;
use leyden_testkit::differential::{
	compare, ldk_alone, leyden, run_case, scenario, worse_case, Extent,
};
use leyden_testkit::panics::catch;

fn sweep(deferred: bool) {
	let mut worse = Vec::new();
	let mut deaths = 0;
	for story in scenario::all(deferred) {
		let report = compare(&story, &leyden(), Extent::of_environment());
		println!("deferred: {deferred}, {report}");
		deaths += report.deaths;
		let held = catch(|| {
			report.assert_never_worse();
			report.assert_one_id_per_event();
		});
		if let Err(caught) = held {
			println!("{}", caught.message);
			worse.push(story.name);
		}
	}
	println!("{deaths} deaths");
	assert!(worse.is_empty(), "worse than LDK alone in {worse:?}, see above");
}

#[test]
fn differential_classic() {
	sweep(false);
}
#[test]
fn differential_deferred() {
	sweep(true);
}
#[test]
fn differential_cases() {
	for case in Case::ALL {
		let alone = run_case(case, &ldk_alone(), false);
		let ours = run_case(case, &leyden(), false);
		let worse = worse_case(&ours, &alone);
		assert!(worse.is_empty(), "{case}: {worse:?}\n{ours:#?}\n{alone:#?}");
	}
}
