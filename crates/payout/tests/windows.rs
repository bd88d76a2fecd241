//! The invoice_window: who asks in time, who asks too late, and what a clock or a worker that was away may not do. `S` names the
//! scenarios of Mostro's bond payout, `H-A` the holes that were found in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::time::Duration;

use leyden_payout::*;
use rig::*;

/// S2, S3: nobody asks for it; and a late invoice is refused.
#[test]
fn what_nobody_asks_for_is_forfeited() {
	let mut world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	world.arrived(&id);
	world.pass(15 * DAY - Duration::from_secs(5));
	assert_eq!(world.state(&id), State::Owed);
	assert!(world.debt(&id).reminders > 1_000);
	world.pass(MINUTE);
	assert_eq!(world.state(&id), State::Forfeited);
	assert_eq!(world.told().last().unwrap(), "Forfeited to seller");
	assert_eq!(world.node.told(), 0);
	let late = world.submit(&id, &world.good(1));
	assert!(matches!(late, Err(PayoutError::InvalidState { .. })), "{late:?}");
	world.restart();
	assert_eq!(world.state(&id), State::Forfeited);
}

/// S4, and H-A11: what is the node's own is kept, also if nobody looked for longer than the window.
#[test]
fn what_nobody_is_owed_is_kept() {
	for away in [Duration::ZERO, 40 * DAY] {
		let world = World::new();
		let all = NewDebt { node_share_sat: 1000, ..world.bond() };
		world.owe(&all);
		world.clock.advance(away);
		world.settle();
		assert_eq!(world.state(&all.id), State::Kept);
		assert!(world.told().is_empty() && world.node.told() == 0);
		let refused = world.submit(&all.id, &world.good(1));
		assert!(matches!(refused, Err(PayoutError::InvalidState { .. })));
	}
}

/// The end of the window is past, for a first invoice and for a fresh one (H-A9).
#[test]
fn the_end_of_the_window_is_past() {
	for failed in [false, true] {
		for (before, taken) in [(1, true), (0, false), (-1, false)] {
			let world = World::new();
			let id = world.bond().id;
			world.owe(&world.bond());
			world.settle();
			if failed {
				world.node.then([How::Fail; 3]);
				world.submit(&id, &world.good(1)).unwrap();
				world.pass(10 * MINUTE);
				assert_eq!(world.state(&id), State::Failed);
			}
			let end = START.after(15 * DAY).0;
			let until = end.saturating_add_signed(-before);
			world.pass(Duration::from_millis(until - 1000 - world.now().0));
			// Nobody looks at the debt at that moment.
			world.clock.advance(Duration::from_millis(1000));
			assert_eq!(world.now().0, until);
			let submitted = world.submit(&id, &world.good(2));
			assert_eq!(submitted.is_ok(), taken, "{failed} {before}: {submitted:?}");
			if !taken {
				assert!(matches!(submitted, Err(PayoutError::WindowClosed { .. })));
			}
		}
	}
}

/// H-A10: a clock that jumps, and a worker that was away, forfeit nothing by themselves.
#[test]
fn a_clock_that_jumps_forfeits_nothing() {
	// A jump, and back.
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	world.arrived(&id);
	world.pass(HOUR);
	let right = world.now();
	world.clock.set(right.after(400 * DAY));
	world.settle();
	world.arrived(&id);
	world.pass(10 * MINUTE);
	assert_eq!(world.state(&id), State::Owed);
	world.clock.set(right);
	world.pass(10 * MINUTE);
	assert_eq!(world.state(&id), State::Owed);
	// The worker was away for longer than the invoice_window: the creditor has a reminder_interval to answer, from when
	// somebody listens again.
	let mut world = World::new();
	world.owe(&world.bond());
	world.settle();
	world.arrived(&id);
	world.clock.set(world.now().after(30 * DAY));
	world.restart();
	world.settle();
	assert_eq!(world.state(&id), State::Owed, "not on the first look");
	world.arrived(&id);
	world.pass(30 * MINUTE);
	assert_eq!(world.state(&id), State::Owed, "the clock is not believed yet");
	world.pass(2 * HOUR);
	assert_eq!(world.state(&id), State::Forfeited);
}

/// H-A10: a process that was suspended for longer than the invoice_window: the creditor has the time between two
/// reminders, in which somebody listens, however long that is.
#[test]
fn a_worker_that_was_suspended_listens_first() {
	let world = World::new();
	let long = Terms { invoice_window: DAY, reminder_interval: 6 * HOUR, ..terms() };
	let new = NewDebt { terms: long, ..world.bond() };
	world.owe(&new);
	world.settle();
	world.arrived(&new.id);
	world.clock.set(world.now().after(30 * DAY));
	world.pass(5 * HOUR);
	world.arrived(&new.id);
	assert_eq!(world.state(&new.id), State::Owed);
	world.pass(2 * HOUR);
	assert_eq!(world.state(&new.id), State::Forfeited);
}

/// The same with a pause that is shorter than the time between two reminders, over the end of the window.
#[test]
fn a_worker_that_was_away_at_the_end_listens_first() {
	let world = World::new();
	let long = Terms { invoice_window: 25 * HOUR, reminder_interval: 6 * HOUR, ..terms() };
	let new = NewDebt { terms: long, ..world.bond() };
	world.owe(&new);
	world.settle();
	world.pass(24 * HOUR + 30 * MINUTE);
	world.arrived(&new.id);
	assert_eq!(world.debt(&new.id).reminders, 5);
	world.clock.advance(2 * HOUR);
	// The next reminder would have been at 30 hours, when the window is over.
	world.pass(4 * HOUR + 30 * MINUTE);
	assert_eq!(world.state(&new.id), State::Owed);
	world.pass(2 * HOUR);
	assert_eq!(world.state(&new.id), State::Forfeited);
}

/// H-A10, H-A12: without a reminder that arrived, nothing is forfeited, however long it takes.
#[test]
fn who_was_never_told_forfeits_nothing() {
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.pass(20 * DAY);
	assert_eq!(world.state(&id), State::Owed);
	// One reminder each reminder_interval, and each is in the outbox once.
	let told = world.told();
	assert_eq!(told.len(), world.debt(&id).reminders as usize);
	assert_eq!(told[1], "InvoiceWanted(2) to seller");
	world.arrived(&id);
	world.pass(10 * MINUTE);
	assert_eq!(world.state(&id), State::Forfeited);
}
