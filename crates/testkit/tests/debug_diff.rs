//! Debug.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use leyden_testkit::differential::*;
use leyden_testkit::Side;
fn show(s: &Scenario, sch: Schedule) {
	let run = run(s, &leyden(), &sch);
	println!("== {} {:?}", s.name, sch);
	for t in &run.outcome.tellings {
		println!("  {} {:?} {}", t.key, t.id, t.repeat);
	}
	println!("{:?}", run.outcome);
}
#[test]
fn debug() {
	show(
		&scenario::failed_with_the_channel(false),
		Schedule::death(Moment { step: 1, what: What::Event, nth: 3 }, Side::After),
	);
	show(
		&scenario::closed_by_us(true),
		Schedule::death(Moment { step: 0, what: What::Event, nth: 0 }, Side::After),
	);
	show(
		&scenario::failed_and_tried_again(false),
		Schedule::death(Moment { step: 0, what: What::Commit, nth: 3 }, Side::After),
	);
}
