//! Answers under random clock histories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use leyden_request::{Expired, RequestError, RequestOptions};
use leyden_store::{Clock, Timestamp};
use leyden_testkit::{ClockHistory, ClockTurn};
use rig::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const REMEMBER: Duration = Duration::from_secs(5 * 24 * 3600);

/// One history. A request is carried out once for as long as it is to be remembered, whatever the
/// clock shows; and in the end it is forgotten.
fn history(seed: u64) {
	let mut clock = ClockHistory::new(seed);
	let options = RequestOptions { remember: REMEMBER, ..RequestOptions::default() };
	let mut node = Node::on(clock.clock(), options);
	let world = World::default();
	let mut effect = Invoices::new(&world);
	let mut asked: Vec<(Ask, Timestamp, Duration)> = Vec::new();
	let mut replayed = 0;
	for turn in 0..300 {
		if clock.turn() == ClockTurn::Restart {
			node.restart();
		}
		let ask = Ask { replay_for: DAY, ..Ask::new(&format!("{turn:08x}")) };
		node.ask(&ask, &mut effect).unwrap();
		asked.push((ask, clock.truth(), clock.set_ahead()));
		let (ask, at, before) = &asked[usize::try_from(clock.draw(turn + 1)).unwrap()];
		let age = clock.truth().since(*at) + (clock.set_ahead() - *before);
		if age < DAY + REMEMBER {
			let runs = effect.runs;
			let answer = node.ask(ask, &mut effect);
			assert_eq!(effect.runs, runs, "seed {seed}, turn {turn}: it was carried out twice");
			match answer {
				Ok(_) => replayed += 1,
				Err(RequestError::Stale) => {},
				Err(error) => panic!("seed {seed}, turn {turn}: {error}"),
			}
		}
		node.requests.sweep(100).unwrap();
	}
	assert!(replayed > 20, "seed {seed}: only {replayed} replays");
	// Those that were asked for while the clock showed 2036 are remembered until then.
	clock.pass_rightly(11 * 365 * DAY);
	while node.requests.sweep(1_000).unwrap().more {}
	assert_eq!(node.count("requests"), 0, "seed {seed}: a request is remembered for ever");
}

/// A request that may be done again when it is over is not done again on one look at a clock.
#[test]
fn a_clock_that_jumps_makes_nothing_dead() {
	let options = RequestOptions {
		expired: Expired::Reissue(Arc::new(|_| true)),
		..RequestOptions::default()
	};
	let node = Node::new(options);
	let world = World::default();
	let mut effect = Invoices::new(&world);
	let ask = Ask::new("aa");
	node.ask(&ask, &mut effect).unwrap();
	let right = node.clock.now();
	node.clock.set(right.after(DAY));
	assert!(matches!(node.ask(&ask, &mut effect), Err(RequestError::Stale)));
	node.clock.set(right);
	node.ask(&ask, &mut effect).unwrap();
	assert_eq!(effect.runs, 1);
	node.pass(2 * HOUR);
	node.ask(&ask, &mut effect).unwrap();
	assert_eq!(effect.runs, 2);
}

/// Fifty histories; `LEYDEN_CLOCK_HISTORIES` says how many else.
#[test]
fn clocks_that_jump_run_nothing_twice() {
	let histories = std::env::var("LEYDEN_CLOCK_HISTORIES").map_or(50, |n| n.parse().unwrap());
	(0..histories).for_each(history);
}
