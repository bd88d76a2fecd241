//! The window of a debt under random clock histories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::time::Duration;

use leyden_payout::*;
use leyden_store::MemoryMedium;
use leyden_testkit::{ClockHistory, ClockTurn};
use rig::*;

const INTERVAL: Duration = Duration::from_secs(3600);

/// Runs one history. A debt without an invoice is not forfeited before its window has ended, whatever a clock
/// shows; its payee is reminded all the while; and in the end it is forfeited.
fn history(seed: u64) {
	let mut clock = ClockHistory::new(seed);
	for _ in 0..clock.draw(40) {
		clock.turn();
	}
	let mut world = World::on(MemoryMedium::new(), clock.clock(), FakeNode::default());
	let (decided, before) = (clock.truth(), clock.set_ahead());
	let new = NewDebt { terms: Terms { reminder_interval: INTERVAL, ..terms() }, ..world.bond() };
	world.owe(&new);
	let (mut due, mut restarts) = (Duration::ZERO, 0);
	for turn in 0..300 {
		if clock.turn() == ClockTurn::Restart {
			world.restart();
			restarts += 1;
		}
		let reminded = world.debt(&new.id).reminders;
		world.settle();
		world.arrived(&new.id);
		let at_most = clock.truth().since(decided) + (clock.set_ahead() - before);
		if at_most >= new.terms.invoice_window {
			break;
		}
		let at = format!("seed {seed}, turn {turn}");
		assert_eq!(world.state(&new.id), State::Owed, "{at}");
		if world.debt(&new.id).reminders > reminded {
			(due, restarts) = (clock.awake() + INTERVAL, 0);
		} else {
			// A restart may lose a minute of what was seen to pass.
			assert!(clock.awake() < due + MINUTE * restarts, "{at}: the payee is not reminded");
		}
	}
	// Also if it was decided while the clock showed 2036, it ends within two windows.
	for _ in 0..2 {
		clock.pass_rightly(30 * DAY);
		for _ in 0..10 {
			clock.pass_rightly(Duration::from_secs(600));
			world.settle();
			world.arrived(&new.id);
		}
	}
	assert_eq!(world.state(&new.id), State::Forfeited, "seed {seed}");
}

/// Fifty histories; `LEYDEN_CLOCK_HISTORIES` says how many else.
#[test]
fn clocks_that_jump_forfeit_nothing() {
	let histories = std::env::var("LEYDEN_CLOCK_HISTORIES").map_or(50, |n| n.parse().unwrap());
	(0..histories).for_each(history);
}
