//! The invoice window: which invoices are in time, which are late, and what a clock that jumps or a worker
//! that was away may not do. `S` names the scenarios of Mostro's bond payout, `H-A` the holes that were
//! found in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::time::Duration;

use leyden_payout::*;
use rig::*;

/// S2, S3: the payee gives no invoice, and a late one is refused.
#[test]
fn a_share_without_an_invoice_is_forfeited() {
	let (mut world, id) = owed();
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

/// S4, and H-A11: what is the node's own is kept, also if no debt was looked after for longer than the window.
#[test]
fn what_is_owed_to_no_payee_is_kept() {
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

/// The end of the window is past for a fresh invoice of a debt that failed (H-A9).
#[test]
fn the_end_of_the_window_is_past() {
	for (before, taken) in [(1, true), (0, false), (-1, false)] {
		let (world, id) = failed();
		let end = START.after(15 * DAY).0;
		let until = end.saturating_add_signed(-before);
		world.pass(Duration::from_millis(until - 1000 - world.now().0));
		world.clock.advance(Duration::from_millis(1000));
		assert_eq!(world.now().0, until);
		let submitted = world.submit(&id, &world.good(2));
		assert_eq!(submitted.is_ok(), taken, "{before}: {submitted:?}");
		if !taken {
			assert!(matches!(submitted, Err(PayoutError::WindowClosed { .. })));
		}
	}
}

/// A first invoice is in time until the debt is forfeited: a payee who was told late is not late.
#[test]
fn a_first_invoice_is_in_time_until_the_debt_is_forfeited() {
	for told_at in [DAY, 15 * DAY, 18 * DAY] {
		let world = World::new();
		let id = world.bond().id;
		world.owe(&world.bond());
		world.pass(told_at);
		world.arrived(&id);
		let end = (15 * DAY).max(told_at + 300 * Duration::from_secs(1));
		world.pass(end - told_at - MINUTE);
		assert_eq!(world.state(&id), State::Owed, "{told_at:?}");
		// The debt is not looked at when its window ends.
		world.clock.advance(2 * MINUTE);
		assert_eq!(world.submit(&id, &world.good(1)).unwrap(), Submitted::Accepted);
		world.pass(MINUTE);
		assert_eq!(world.state(&id), State::Paid, "{told_at:?}");
	}
}

/// A debt that was decided while the clock showed another year has no longer window for that.
#[test]
fn a_look_at_another_year_makes_no_longer_window() {
	let world = World::new();
	let id = world.bond().id;
	world.clock.set(START.after(3_650 * DAY));
	world.owe(&world.bond());
	world.clock.set(START);
	world.settle();
	world.arrived(&id);
	world.pass(14 * DAY);
	assert_eq!(world.state(&id), State::Owed);
	world.arrived(&id);
	world.pass(2 * DAY);
	assert_eq!(world.state(&id), State::Forfeited);
}

/// H-A10: a clock that jumps, and a worker that was away, forfeit nothing by themselves.
#[test]
fn a_clock_that_jumps_forfeits_nothing() {
	// A jump, and back.
	let (world, id) = owed();
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
	// The worker was away for longer than the window: the payee has one reminder interval to answer, from
	// when debts are looked after again.
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

/// H-A10: a process that was suspended for longer than the window: the payee has the time between two
/// reminders, in which debts are looked after, however long that is.
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
fn a_payee_who_was_never_told_forfeits_nothing() {
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.pass(20 * DAY);
	assert_eq!(world.state(&id), State::Owed);
	// There is one reminder in each interval, and each is in the outbox once.
	let told = world.told();
	assert_eq!(told.len(), world.debt(&id).reminders as usize);
	assert_eq!(told[1], "InvoiceWanted(2) to seller");
	world.arrived(&id);
	world.pass(4 * MINUTE);
	assert_eq!(world.state(&id), State::Owed, "the payee has one interval to answer");
	world.pass(2 * MINUTE);
	assert_eq!(world.state(&id), State::Forfeited);
}
