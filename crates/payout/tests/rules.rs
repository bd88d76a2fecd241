//! Debts from the cause to the payment: attempts, and what a node may answer. `S` names the
//! scenarios of Mostro's bond payout, `H-A` the holes that were found in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use leyden_payout::*;
use leyden_store::ManualClock;
use rig::*;

/// S1: asked for, given an invoice, paid.
#[test]
fn a_debt_is_paid() {
	let world = World::new();
	let held = NewDebt {
		source: Source::Held { payment_hash: [4; 32], amount_sat: 1000 },
		..world.bond()
	};
	let id = held.id;
	assert_eq!(world.owe(&held), Added::Inserted);
	assert_eq!(world.state(&id), State::Decided);
	world.settle();
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.share_sat, debt.node_share_sat), (State::Owed, 500, 500));
	assert_eq!(debt.window_start, Some(START));
	assert_eq!((world.node.taken(), debt.reminders), (vec![[4; 32]], 1));
	assert_eq!(world.told(), ["InvoiceWanted(1) to seller"]);
	assert_eq!(world.submit(&id, &world.good(1)).unwrap(), Submitted::Accepted);
	world.settle();
	world.pass(MINUTE);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.attempts, debt.failed_attempts), (State::Paid, 1, 0));
	assert_eq!((world.node.paid(&id), world.node.told()), (1, 1));
	assert_eq!(world.told(), ["InvoiceWanted(1) to seller", "Paid to seller"]);
	let proof = world.payouts.proof(&id).unwrap().to_json();
	let preimage: String = preimage(1).iter().map(|byte| format!("{byte:02x}")).collect();
	for part in ["\"state\": \"paid\"", &preimage, "attempt 1 paid it", "\"verdict\": \"settled\""]
	{
		assert!(proof.contains(part), "{part} is missing in {proof}");
	}
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// S5, and H-A1: three failed attempts are three that were really sent, over restarts; the pause between
/// them doubles.
#[test]
fn a_debt_fails_with_its_last_failed_attempt() {
	let (mut world, id) = owed();
	world.node.then([How::Fail; 9]);
	world.submit(&id, &world.good(1)).unwrap();
	for (failed, pause) in [(1, MINUTE), (2, 2 * MINUTE), (3, 4 * MINUTE)] {
		world.settle();
		world.pass(20 * Duration::from_secs(1));
		assert_eq!((world.debt(&id).failed_attempts, world.node.told()), (failed, failed));
		world.restart();
		world.pass(pause - Duration::from_secs(30));
		assert_eq!((world.state(&id), world.node.told()), (State::Owed, failed));
		world.pass(30 * Duration::from_secs(1));
	}
	assert_eq!(world.state(&id), State::Failed);
	assert_eq!(world.told().last().unwrap(), "Failed to seller");
	world.pass(DAY);
	assert_eq!((world.state(&id), world.node.told()), (State::Failed, 3));
}

/// A peer that is away for two days, and a node without funds for as long: the invoice keeps all its
/// attempts, and there are few (A11: it was one each minute and a half, or a debt that failed after five).
#[test]
fn a_missing_route_backs_off_and_does_not_count() {
	for why in [FailureReason::NoRoute, FailureReason::NoFunds] {
		let (world, id) = owed();
		world.node.then([How::Not(why); 99]);
		world.submit(&id, &world.good(1)).unwrap();
		world.pass(47 * HOUR);
		let debt = world.debt(&id);
		assert_eq!((debt.state, debt.failed_attempts), (State::Owed, 0), "{why:?}");
		assert!(debt.attempts < 60, "{} attempts ({why:?})", debt.attempts);
		let told = world.times_told("NoFunds");
		assert_eq!(told, usize::from(why == FailureReason::NoFunds), "said once");
		world.node.clear();
		world.pass(HOUR);
		assert_eq!(world.state(&id), State::Paid, "{why:?}");
	}
}

/// An invoice that is rejected counts, and the payee is asked for another one at once; three of them are
/// the end.
#[test]
fn a_rejected_invoice_counts_and_another_is_asked_for() {
	let (world, id) = owed();
	world.node.then([How::Not(FailureReason::Rejected); 3]);
	for number in 1..=3_u16 {
		let reminders = world.debt(&id).reminders;
		world.submit(&id, &world.good(number)).unwrap();
		world.pass(Duration::from_secs(5));
		let debt = world.debt(&id);
		assert_eq!((debt.failed_attempts, debt.live), (number.into(), None));
		if number < 3 {
			assert!(!debt.has_invoice && debt.reminders == reminders + 1, "{debt:?}");
		}
	}
	world.pass(5 * MINUTE);
	assert_eq!((world.state(&id), world.node.told()), (State::Failed, 3));
	assert_eq!(world.submit(&id, &world.good(4)).unwrap(), Submitted::Reopened);
	world.pass(MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1));
}

/// A fresh invoice opens a debt that has failed, with a full budget, strictly inside the window.
#[test]
fn a_fresh_invoice_opens_a_failed_debt() {
	let (world, id) = owed();
	for round in 0..3 {
		world.node.then([How::Fail; 3]);
		let expected = if round == 0 { Submitted::Accepted } else { Submitted::Reopened };
		assert_eq!(world.submit(&id, &world.good(round)).unwrap(), expected);
		world.pass(10 * MINUTE);
		assert_eq!((world.state(&id), world.debt(&id).failed_attempts), (State::Failed, 3));
	}
	let used = world.submit(&id, &world.good(0));
	assert!(matches!(used, Err(PayoutError::InvoiceUsed { .. })), "{used:?}");
	assert_eq!(world.debt(&id).window_start, Some(START));
	world.submit(&id, &world.good(9)).unwrap();
	world.pass(MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1));
}

/// H-A2: the node is gone after the first attempt was sent. Nothing is counted, nothing else is sent, no
/// other invoice is taken; and when it is back, it has paid once.
#[test]
fn what_may_be_paid_is_not_paid_again() {
	for how in [How::HoldSilently, How::Hold] {
		let (mut world, id) = owed();
		world.node.then([how]);
		world.submit(&id, &world.good(1)).unwrap();
		world.settle();
		assert_eq!(world.node.told(), 1);
		world.node.set_down(true);
		for _ in 0..5 {
			world.pass(HOUR);
			world.restart();
		}
		let debt = world.debt(&id);
		assert_eq!((debt.state, debt.failed_attempts, debt.live), (State::Owed, 0, Some(1)));
		let other = world.submit(&id, &world.good(2));
		assert!(matches!(other, Err(PayoutError::HasInvoice { .. })), "{other:?}");
		assert!(matches!(
			world.payouts.resolve_with_proof(&id, &OutsideProof::Reference("cash".to_owned())),
			Err(PayoutError::AttemptLive { number: 1, .. })
		));
		world.node.set_down(false);
		world.node.release(true);
		world.pass(MINUTE);
		assert_eq!(
			(world.state(&id), world.node.paid(&id), world.node.told()),
			(State::Paid, 1, 1)
		);
	}
}

/// A reply that was lost: the node is asked, and the same attempt is made again only if it knows nothing
/// and would.
#[test]
fn a_lost_reply_is_asked_for() {
	// It has paid.
	let (world, id) = owed();
	world.node.then([How::SettleSilently]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(2 * MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id), world.node.told()), (State::Paid, 1, 1));
	// It was never told.
	let world = World::new();
	world.owe(&world.bond());
	world.settle();
	world.node.then([How::Lost]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(2 * MINUTE);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.attempts, debt.failed_attempts), (State::Paid, 1, 0));
	assert_eq!((world.node.paid(&id), world.node.told()), (1, 2));
	// It does not know, and does not know whether it would.
	let world = World::new();
	world.owe(&world.bond());
	world.settle();
	world.node.then([How::Lost]);
	world.submit(&id, &world.good(1)).unwrap();
	world.settle();
	world.node.set_forgetful(true);
	world.pass(40 * DAY);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.live, debt.failed_attempts), (State::Owed, Some(1), 0));
	assert_eq!(world.node.told(), 1, "a guess is no proof");
}

/// H-A4: never dispatched, and its invoice has expired: known to be dead, and the budget is whole.
#[test]
fn what_was_never_sent_and_has_expired_is_dead() {
	let (world, id) = owed();
	let short = Like { lives: 2 * HOUR, ..Like::good(1, 500, world.now()) };
	world.node.set_down(true);
	world.submit(&id, &short.text()).unwrap();
	world.pass(3 * HOUR);
	world.node.set_down(false);
	world.pass(10 * MINUTE);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.has_invoice, debt.live), (State::Owed, false, None));
	assert_eq!((debt.failed_attempts, world.node.told()), (0, 0));
	assert!(world.told().len() > 2, "asked for another one");
	world.submit(&id, &world.good(2)).unwrap();
	world.pass(MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1));
	// The node was told, nothing has reached it, and when it is back the invoice has expired.
	let world = World::new();
	world.owe(&world.bond());
	world.settle();
	let short = Like { lives: 2 * HOUR, ..Like::good(1, 500, world.now()) };
	world.node.then([How::Lost]);
	world.submit(&id, &short.text()).unwrap();
	world.settle();
	assert_eq!((world.node.told(), world.debt(&id).live), (1, Some(1)));
	world.node.set_down(true);
	world.pass(3 * HOUR);
	world.node.set_down(false);
	world.pass(10 * MINUTE);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.has_invoice, debt.live), (State::Owed, false, None));
	assert_eq!(world.node.told(), 1, "an invoice that has expired is not paid");
	let proof = world.payouts.proof(&id).unwrap().to_json();
	assert!(proof.contains("\"counts\": false") && proof.contains("never made"), "{proof}");
	// The same past the window: an operator looks at it.
	let world = World::new();
	world.owe(&world.bond());
	world.pass(15 * DAY - 2 * HOUR);
	let short = Like { lives: 90 * MINUTE, ..Like::good(1, 500, world.now()) };
	world.node.set_down(true);
	world.submit(&id, &short.text()).unwrap();
	world.pass(3 * HOUR);
	world.node.set_down(false);
	world.pass(10 * MINUTE);
	assert_eq!(world.state(&id), State::Failed);
}

/// H-A3: an invoice that holds the payment for ever holds no other debt up.
#[test]
fn an_invoice_that_holds_holds_up_no_other() {
	let world = World::new();
	world.node.then([How::Hold]);
	for n in 1..=20_u8 {
		world.owe(&bond(n));
	}
	world.settle();
	world.submit(&bond(1).id, &world.good(1)).unwrap();
	world.settle();
	for n in 2..=20 {
		world.submit(&bond(n).id, &world.good(n.into())).unwrap();
	}
	world.pass(2 * MINUTE);
	assert!((2..=20).all(|n| world.state(&bond(n).id) == State::Paid));
	assert_eq!(world.debt(&bond(1).id).live, Some(1));
	world.pass(5 * DAY);
	assert_eq!(world.node.told(), 20);
	world.node.release(false);
	world.pass(3 * MINUTE);
	assert_eq!((world.state(&bond(1).id), world.node.paid(&bond(1).id)), (State::Paid, 1));
}

/// H-A5: the decision is durable before the money is taken, and taken it is, however often that fails.
#[test]
fn what_was_decided_is_taken() {
	let mut world = World::new();
	let held = NewDebt {
		source: Source::Held { payment_hash: [4; 32], amount_sat: 1000 },
		..world.bond()
	};
	world.owe(&held);
	world.node.held([SettleReply::NotYet, SettleReply::NotYet, SettleReply::Settled]);
	world.settle();
	world.restart();
	assert_eq!(world.state(&held.id), State::Decided);
	let early = world.submit(&held.id, &world.good(1));
	assert!(matches!(early, Err(PayoutError::InvalidState { state: State::Decided, .. })));
	world.pass(5 * MINUTE);
	assert_eq!(world.state(&held.id), State::Owed);
	// The window begins when the money is in.
	assert!(world.debt(&held.id).window_start.unwrap() >= START.after(Duration::from_secs(30)));
}

/// An outcome that the node tells by itself is one commit with the ack of its event, and the node is not
/// asked.
#[test]
fn what_the_node_says_is_learned() {
	let (world, id) = owed();
	world.node.then([How::Hold, How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.settle();
	let first = id.attempt(1);
	let learn = |n: u16, attempt: Option<&AttemptId>, outcome: &AttemptStatus| {
		world.payouts.record_outcome(&hash(n), attempt, outcome).unwrap()
	};
	assert!(learn(9, Some(&first), &AttemptStatus::Failed(FailureReason::Other)).is_none());
	assert!(learn(1, Some(&first), &AttemptStatus::InFlight).is_none());
	assert!(
		learn(1, None, &AttemptStatus::Failed(FailureReason::Other)).is_none(),
		"of which attempt?"
	);
	learn(1, Some(&first), &AttemptStatus::Failed(FailureReason::Other))
		.unwrap()
		.run(&*world.store)
		.unwrap();
	world.node.release(false);
	assert_eq!((world.debt(&id).failed_attempts, world.debt(&id).live), (1, None));
	world.pass(2 * MINUTE);
	assert_eq!(world.debt(&id).live, Some(2));
	// The first has failed, said once more: that says nothing about the second.
	assert!(learn(1, Some(&first), &AttemptStatus::Failed(FailureReason::Other)).is_none());
	let settled = AttemptStatus::Settled { preimage: preimage(1), fee_msat: Some(3) };
	assert!(!format!("{settled:?}").contains("7, 7"));
	let wrong = AttemptStatus::Settled { preimage: preimage(2), fee_msat: Some(3) };
	learn(1, Some(&id.attempt(2)), &wrong).unwrap().run(&*world.store).unwrap();
	assert_eq!(world.debt(&id).live, Some(2), "it proves nothing");
	assert!(world.why().contains("preimage"));
	world.unfreeze();
	let second = id.attempt(2);
	learn(1, Some(&second), &settled).unwrap().run(&*world.store).unwrap();
	assert_eq!(world.state(&id), State::Paid);
	assert!(learn(1, Some(&second), &settled).is_none(), "known");
	world.node.release(true);
	world.pass(MINUTE);
	assert_eq!(world.times_told("Paid"), 1);
}

/// A node that does not answer, and more debts than it may be asked about at once: every payee is reminded,
/// and every debt has its turn when the node is back.
#[test]
fn a_node_that_does_not_answer_stops_no_reminder() {
	let world = World::new();
	let mut options = options();
	options.max_calls = 2;
	let clock = Arc::<ManualClock>::clone(&world.clock);
	let payouts = Payouts::open(Arc::clone(&world.store), clock, options).unwrap();
	let look = |limit| payouts.tick(&world.node, limit).unwrap();
	for n in 1..=10 {
		world.owe(&bond(n));
	}
	look(100);
	world.node.set_down(true);
	for n in 1..=10 {
		payouts.submit_invoice(&bond(n).id, SELLER, &world.good(n.into())).unwrap();
	}
	assert_eq!(look(100).calls, 2);
	for n in 11..=20 {
		world.owe(&bond(n));
	}
	// Few at a time: what the node cannot be asked about does not fill the look.
	for _ in 0..10 {
		let _: TickSummary = look(1);
	}
	assert!((11..=20).all(|n| world.debt(&bond(n).id).reminders == 1));
	world.node.set_down(false);
	for _ in 0..40 {
		world.clock.advance(Duration::from_secs(15));
		for _ in 0..5 {
			let _: TickSummary = look(1);
		}
	}
	assert!((1..=10).all(|n| world.state(&bond(n).id) == State::Paid));
}

/// 64 payouts to a node that takes a second for each take little more than a second.
#[test]
fn payouts_do_not_wait_for_each_other() {
	let world = World::new();
	world.node.set_slow(Duration::from_secs(1));
	for n in 1..=64 {
		world.owe(&bond(n));
	}
	world.settle();
	for n in 1..=64 {
		world.submit(&bond(n).id, &world.good(n.into())).unwrap();
	}
	world.node.pass(world.now());
	world.settle();
	assert_eq!(world.node.told(), 64, "all at once");
	world.clock.advance(Duration::from_millis(1_100));
	world.node.pass(world.now());
	world.settle();
	world.pass(16 * Duration::from_secs(1));
	assert!((1..=64).all(|n| world.state(&bond(n).id) == State::Paid));
}

/// An answer that is there counts, however late it is looked at; unless another worker has taken over.
#[test]
fn a_late_answer_is_one() {
	for taken_over in [false, true] {
		let (world, id) = owed();
		let other = open(&world.store, &world.clock);
		world.node.then([How::Hold]);
		world.node.set_slow(50 * Duration::from_secs(1));
		world.submit(&id, &world.good(1)).unwrap();
		world.settle();
		world.clock.advance(2 * MINUTE);
		world.node.pass(world.now());
		if taken_over {
			other.tick(&world.node, 10).unwrap();
		}
		world.tick();
		let proof = world.payouts.proof(&id).unwrap().to_json();
		assert_eq!(proof.contains("\"accepted\""), !taken_over, "{proof}");
	}
}

/// An order may still be on its way when its invoice expires: the attempt is not given up at once.
#[test]
fn an_order_that_is_on_its_way_is_not_given_up() {
	let (world, id) = owed();
	let short = Like { lives: 20 * MINUTE, ..Like::good(1, 500, world.now()) };
	world.submit(&id, &short.text()).unwrap();
	// Each order is lost, and given again until the invoice expires.
	world.node.then([How::Lost; 200]);
	world.pass(20 * MINUTE);
	assert!(world.node.told() > 10 && world.debt(&id).attempts == 1, "{}", world.node.told());
	let told = world.node.told();
	world.pass(Duration::from_secs(70));
	assert_eq!(world.debt(&id).live, Some(1), "two minutes have not passed");
	world.pass(2 * MINUTE);
	assert_eq!(world.node.told(), told);
	assert_eq!((world.debt(&id).live, world.debt(&id).has_invoice), (None, false));
}
