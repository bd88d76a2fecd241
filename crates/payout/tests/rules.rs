//! Debts from the cause to the payment, and everything that can go wrong on the way. `S` names the
//! scenarios of Mostro's bond payout, `H-A` the holes that were found in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use leyden_payout::*;
use leyden_store::{ManualClock, Timestamp};
use rig::*;

/// S1: asked for, given an invoice, paid.
#[test]
fn a_debt_is_paid() {
	let world = World::new();
	let held = NewDebt { held: Some([4; 32]), ..world.bond() };
	let id = held.id;
	assert_eq!(world.owe(&held), Written::New);
	assert_eq!(world.state(&id), State::Decided);
	world.settle();
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.share_sat, debt.node_share_sat), (State::Owed, 500, 500));
	assert_eq!(debt.slashed_at, Some(START));
	assert_eq!((world.node.taken(), debt.nudges), (vec![[4; 32]], 1));
	assert_eq!(world.told(), ["InvoiceWanted(1) to seller"]);
	assert_eq!(world.submit(&id, &world.good(1)).unwrap(), Submitted::Taken);
	world.settle();
	world.pass(MINUTE);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.attempts, debt.spent), (State::Paid, 1, 0));
	assert_eq!((world.node.paid(&id), world.node.told()), (1, 1));
	assert_eq!(world.told(), ["InvoiceWanted(1) to seller", "Paid to seller"]);
	let proof = world.payouts.proof(&id).unwrap().to_json();
	let preimage: String = preimage(1).iter().map(|byte| format!("{byte:02x}")).collect();
	for part in ["\"state\": \"paid\"", &preimage, "attempt 1 paid it", "\"verdict\": \"settled\""]
	{
		assert!(proof.contains(part), "{part} is missing in {proof}");
	}
	assert!(world.payouts.doctor().unwrap().is_empty());
}

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
	assert!(world.debt(&id).nudges > 1_000);
	world.pass(MINUTE);
	assert_eq!(world.state(&id), State::Forfeited);
	assert_eq!(world.told().last().unwrap(), "Forfeited to seller");
	assert_eq!(world.node.told(), 0);
	let late = world.submit(&id, &world.good(1));
	assert!(matches!(late, Err(PayoutError::NotNow { .. })), "{late:?}");
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
		assert!(matches!(refused, Err(PayoutError::NotNow { .. })));
	}
}

/// S5, and H-A1: a budget of three is three real dispatches, over restarts.
#[test]
fn a_budget_is_dispatches() {
	for how in [How::Fail, How::Not(NotSent::NoRoute)] {
		let mut world = World::new();
		let id = world.bond().id;
		world.owe(&world.bond());
		world.settle();
		world.node.then([how; 9]);
		world.submit(&id, &world.good(1)).unwrap();
		for spent in 1..=3 {
			world.settle();
			world.pass(20 * Duration::from_secs(1));
			assert_eq!((world.debt(&id).spent, world.node.told()), (spent, spent), "{how:?}");
			world.restart();
			world.pass(MINUTE);
		}
		assert_eq!(world.state(&id), State::Failed);
		assert_eq!(world.told().last().unwrap(), "Failed to seller");
		world.pass(DAY);
		assert_eq!((world.state(&id), world.node.told()), (State::Failed, 3));
	}
}

/// What is no fault of the invoice uses none of its budget, however often it happens.
#[test]
fn a_node_without_funds_uses_no_budget() {
	for why in [NotSent::NoFunds, NotSent::Refused] {
		let world = World::new();
		let id = world.bond().id;
		world.owe(&world.bond());
		world.settle();
		world.node.then([How::Not(why); 7]);
		world.submit(&id, &world.good(1)).unwrap();
		world.pass(20 * MINUTE);
		let debt = world.debt(&id);
		assert_eq!((debt.state, debt.spent, debt.attempts), (State::Paid, 0, 8), "{why:?}");
	}
}

/// A fresh invoice opens a debt that has failed, with a full budget, strictly inside the window.
#[test]
fn a_fresh_invoice_opens_a_failed_debt() {
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	for round in 0..3 {
		world.node.then([How::Fail; 3]);
		let expected = if round == 0 { Submitted::Taken } else { Submitted::Reopened };
		assert_eq!(world.submit(&id, &world.good(round)).unwrap(), expected);
		world.pass(10 * MINUTE);
		assert_eq!((world.state(&id), world.debt(&id).spent), (State::Failed, 3));
	}
	let used = world.submit(&id, &world.good(0));
	assert!(matches!(used, Err(PayoutError::InvoiceUsed)), "{used:?}");
	assert_eq!(world.debt(&id).slashed_at, Some(START));
	world.submit(&id, &world.good(9)).unwrap();
	world.pass(MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1));
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
				assert!(matches!(submitted, Err(PayoutError::NotNow { .. })));
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
	world.clock.advance(400 * DAY);
	world.settle();
	world.arrived(&id);
	world.pass(10 * MINUTE);
	assert_eq!(world.state(&id), State::Owed);
	// The worker was away for longer than the window: the creditor has a cadence to answer, from when
	// somebody listens again.
	let mut world = World::new();
	world.owe(&world.bond());
	world.settle();
	world.arrived(&id);
	world.clock.advance(30 * DAY);
	world.restart();
	world.settle();
	assert_eq!(world.state(&id), State::Owed, "not on the first look");
	world.arrived(&id);
	world.pass(30 * MINUTE);
	assert_eq!(world.state(&id), State::Owed, "the clock is not believed yet");
	world.pass(2 * HOUR);
	assert_eq!(world.state(&id), State::Forfeited);
}

/// H-A10: a process that was suspended for longer than the window: the creditor has the time between two
/// reminders, in which somebody listens, however long that is.
#[test]
fn a_worker_that_was_suspended_listens_first() {
	let world = World::new();
	let long = Terms { window: DAY, cadence: 6 * HOUR, ..terms() };
	let new = NewDebt { terms: long, ..world.bond() };
	world.owe(&new);
	world.settle();
	world.arrived(&new.id);
	world.clock.advance(30 * DAY);
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
	let long = Terms { window: 25 * HOUR, cadence: 6 * HOUR, ..terms() };
	let new = NewDebt { terms: long, ..world.bond() };
	world.owe(&new);
	world.settle();
	world.pass(24 * HOUR + 30 * MINUTE);
	world.arrived(&new.id);
	assert_eq!(world.debt(&new.id).nudges, 5);
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
	// One reminder each cadence, and each is in the outbox once.
	let told = world.told();
	assert_eq!(told.len(), world.debt(&id).nudges as usize);
	assert_eq!(told[1], "InvoiceWanted(2) to seller");
	world.arrived(&id);
	world.pass(10 * MINUTE);
	assert_eq!(world.state(&id), State::Forfeited);
}

/// H-A2: the node is gone after the first attempt was sent. Nothing is counted, nothing else is sent, no
/// other invoice is taken; and when it is back, it has paid once.
#[test]
fn what_may_be_paid_is_not_paid_again() {
	for how in [How::HoldSilently, How::Hold] {
		let mut world = World::new();
		let id = world.bond().id;
		world.owe(&world.bond());
		world.settle();
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
		assert_eq!((debt.state, debt.spent, debt.live), (State::Owed, 0, Some(1)));
		let other = world.submit(&id, &world.good(2));
		assert!(matches!(other, Err(PayoutError::NotNow { .. })), "{other:?}");
		assert!(matches!(
			world.payouts.resolve_with_proof(&id, &OutsideProof::Reference("cash".to_owned())),
			Err(PayoutError::AttemptLive { number: 1 })
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
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
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
	assert_eq!((debt.state, debt.attempts, debt.spent), (State::Paid, 1, 0));
	assert_eq!((world.node.paid(&id), world.node.told()), (1, 2));
	// It does not know, and does not know whether it would.
	let world = World::new();
	world.owe(&world.bond());
	world.settle();
	world.node.set_forgetful(true);
	world.node.then([How::Lost]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(40 * DAY);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.live, debt.spent), (State::Owed, Some(1), 0));
	assert_eq!(world.node.told(), 1, "a guess is no proof");
}

/// H-A4: never dispatched, and its invoice has expired: known to be dead, and the budget is whole.
#[test]
fn what_was_never_sent_and_has_expired_is_dead() {
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	let short = Like { lives: 2 * HOUR, ..Like::good(1, 500, world.now()) };
	world.node.set_down(true);
	world.submit(&id, &short.text()).unwrap();
	world.pass(3 * HOUR);
	world.node.set_down(false);
	world.pass(10 * MINUTE);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.has_invoice, debt.live), (State::Owed, false, None));
	assert_eq!((debt.spent, world.node.told()), (0, 0));
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
	assert_eq!(world.node.told(), 1, "nobody pays an invoice that has expired");
	let proof = world.payouts.proof(&id).unwrap().to_json();
	assert!(proof.contains("\"counts\": false") && proof.contains("never made"), "{proof}");
	// The same past the window: for somebody to look at.
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

/// H-A3: an invoice that holds the payment for ever holds nobody else up.
#[test]
fn an_invoice_that_holds_holds_up_nobody_else() {
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
	let held = NewDebt { held: Some([4; 32]), ..world.bond() };
	world.owe(&held);
	world.node.held([Held::NotYet, Held::NotYet, Held::AlreadySettled]);
	world.settle();
	world.restart();
	assert_eq!(world.state(&held.id), State::Decided);
	let early = world.submit(&held.id, &world.good(1));
	assert!(matches!(early, Err(PayoutError::NotNow { .. })));
	world.pass(5 * MINUTE);
	assert_eq!(world.state(&held.id), State::Owed);
	// The window begins when the money is in.
	assert!(world.debt(&held.id).slashed_at.unwrap() >= START.after(Duration::from_secs(30)));
}

/// H-A6: one invoice, two debts.
#[test]
fn an_invoice_pays_one_debt() {
	let world = World::new();
	world.owe(&bond(1));
	world.owe(&bond(2));
	world.settle();
	world.submit(&bond(1).id, &world.good(1)).unwrap();
	let again = world.submit(&bond(2).id, &world.good(1));
	assert!(matches!(again, Err(PayoutError::InvoiceUsed)), "{again:?}");
	// Another text of the same payment hash.
	let same = Like { lives: 29 * DAY, ..Like::good(1, 500, world.now()) };
	let again = world.submit(&bond(2).id, &same.text());
	assert!(matches!(again, Err(PayoutError::InvoiceUsed)), "{again:?}");
	world.pass(MINUTE);
	assert_eq!(world.state(&bond(2).id), State::Owed);
	world.submit(&bond(2).id, &world.good(2)).unwrap();
	world.pass(MINUTE);
	assert_eq!(world.state(&bond(2).id), State::Paid);
}

/// H-A7: only the creditor who was written down is paid, and nobody else.
#[test]
fn only_the_creditor_may_ask() {
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	let error = world.payouts.submit(&id, b"buyer", &world.good(1)).unwrap_err();
	assert!(matches!(error, PayoutError::NotTheCreditor) && !error.to_string().contains("seller"));
	let unknown = world.submit(&bond(9).id, &world.good(1));
	assert!(matches!(unknown, Err(PayoutError::NoSuchDebt)));
	assert!(!world.debt(&id).has_invoice);
}

/// S7, H-A8: terms are the debt's own. Written down again it is the same, or refused.
#[test]
fn terms_do_not_change() {
	let mut world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.restart();
	assert_eq!(world.owe(&world.bond()), Written::Known);
	for other in [
		NewDebt { node_share_sat: 900, ..world.bond() },
		NewDebt { creditor: b"buyer".to_vec(), ..world.bond() },
		NewDebt { terms: Terms { window: DAY, ..terms() }, ..world.bond() },
		NewDebt { terms: Terms { cadence: DAY, ..terms() }, ..world.bond() },
		NewDebt { terms: Terms { budget: 9, ..terms() }, ..world.bond() },
		NewDebt { terms: Terms { fee_cap_msat: 0, ..terms() }, ..world.bond() },
	] {
		assert!(matches!(world.payouts.owe(&other), Err(PayoutError::OtherTerms)));
	}
	world.settle();
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE);
	assert_eq!((world.debt(&id).share_sat, world.state(&id)), (500, State::Paid));
	// Written down again after it was paid: it is the same debt.
	assert_eq!(world.owe(&world.bond()), Written::Known);
	world.pass(MINUTE);
	assert_eq!(world.node.paid(&id), 1);
}

/// H-A17: numbers that cannot be.
#[test]
fn numbers_are_checked() {
	let world = World::new();
	let bad = |new: NewDebt| {
		let error = world.payouts.owe(&new).map(|_| ()).unwrap_err();
		assert!(matches!(error, PayoutError::OutOfRange { .. }), "{error}");
	};
	let bond = world.bond();
	bad(NewDebt { amount_sat: 0, node_share_sat: 0, ..bond.clone() });
	bad(NewDebt { amount_sat: u64::MAX, ..bond.clone() });
	bad(NewDebt { node_share_sat: 1001, ..bond.clone() });
	bad(NewDebt { creditor: vec![], ..bond.clone() });
	bad(NewDebt { creditor: vec![1; 256], ..bond.clone() });
	bad(NewDebt { cause: "x".repeat(301), ..bond.clone() });
	bad(NewDebt { terms: Terms { budget: 0, ..terms() }, ..bond.clone() });
	bad(NewDebt { terms: Terms { window: Duration::ZERO, ..terms() }, ..bond.clone() });
	bad(NewDebt { terms: Terms { cadence: Duration::MAX, ..terms() }, ..bond.clone() });
	// Fees that would make more go out than came in.
	bad(NewDebt { terms: Terms { fee_cap_msat: 500_001, ..terms() }, ..bond.clone() });
	assert!(world
		.payouts
		.owe(&NewDebt { terms: Terms { fee_cap_msat: 500_000, ..terms() }, ..bond })
		.is_ok());
	// The node's share is rounded down: the rest is the creditor's.
	for (amount, millionths, share) in [
		(1000, 500_000, 500),
		(1001, 500_000, 500),
		(1, 999_999, 0),
		(999, 1_000_000, 999),
		(7, 0, 0),
	] {
		assert_eq!(NewDebt::node_share_sat(amount, millionths).unwrap(), share);
	}
	assert!(NewDebt::node_share_sat(1, 1_000_001).is_err());
	assert!(NewDebt::node_share_sat(MAX_AMOUNT_SAT, 1_000_000).is_ok());
	assert!(NewDebt::node_share_sat(u64::MAX, 1).is_err());
}

/// Invoices that are not good: typed, and nothing is changed.
#[test]
fn bad_invoices_are_refused() {
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	let before = world.payouts.debt(&id).unwrap();
	let good = Like::good(1, 500, world.now());
	let is = |invoice: &str, expected: InvoiceError| {
		match world.submit(&id, invoice) {
			Err(PayoutError::Invoice(found)) => assert_eq!(found, expected),
			other => panic!("{other:?}"),
		}
		assert!(world.payouts.debt(&id).unwrap() == before);
	};
	for text in ["", "x", "lnbcrt1", "\0", &"l".repeat(5_000), &good.text()[1..]] {
		is(text, InvoiceError::Malformed);
	}
	let mut broken = good.text();
	broken.replace_range(20..21, if &broken[20..21] == "q" { "p" } else { "q" });
	is(&broken, InvoiceError::Malformed);
	is(&Like { network: Currency::Bitcoin, ..good.clone() }.text(), InvoiceError::Network);
	let amount = InvoiceError::Amount { expected_msat: 500_000 };
	for amount_msat in [None, Some(499_000), Some(501_000), Some(500_001), Some(1)] {
		is(&Like { amount_msat, ..good.clone() }.text(), amount.clone());
	}
	is(&Like { lives: 59 * MINUTE, ..good.clone() }.text(), InvoiceError::Expires);
	let old = Like { made_at: Timestamp(START.0 - 31 * 24 * 3_600_000), ..good.clone() };
	is(&old.text(), InvoiceError::Expires);
	is(&Like { final_cltv: 721, ..good.clone() }.text(), InvoiceError::FinalCltv { most: 720 });
	// What is good is good in capitals and with spaces around it.
	world.submit(&id, &format!("  {} ", good.text().to_uppercase())).unwrap();
	let twice = world.submit(&id, &world.good(2));
	assert!(matches!(twice, Err(PayoutError::NotNow { .. })));
}

/// Paying oneself is no payment.
#[test]
fn our_own_invoice_is_refused() {
	let world = World::new();
	let key = bitcoin::secp256k1::SecretKey::from_slice(&[5; 32]).unwrap();
	let own = key.public_key(&bitcoin::secp256k1::Secp256k1::new()).serialize();
	let mut options = options();
	options.invoices.own = vec![own];
	let clock = Arc::<ManualClock>::clone(&world.clock);
	let payouts = Payouts::open(Arc::clone(&world.store), clock, options).unwrap();
	world.owe(&world.bond());
	world.settle();
	let refused = payouts.submit(&world.bond().id, SELLER, &world.good(1));
	assert!(matches!(refused, Err(PayoutError::Invoice(InvoiceError::Own))));
}

/// Two workers on one store: one wins each transition, and nothing is sent twice (H-A13).
#[test]
fn two_workers_are_one() {
	let world = World::new();
	let other = open(&world.store, &world.clock);
	for n in 1..=10 {
		world.owe(&bond(n));
	}
	let both = |n: usize| {
		for _ in 0..n {
			world.payouts.tick(&world.node, 1_000).unwrap();
			other.tick(&world.node, 1_000).unwrap();
		}
	};
	both(3);
	assert_eq!(world.told().len(), 10);
	for n in 1..=10 {
		let who = if n % 2 == 0 { &world.payouts } else { &other };
		who.submit(&bond(n).id, SELLER, &world.good(n.into())).unwrap();
		let late = world.payouts.submit(&bond(n).id, SELLER, &world.good(u16::from(n) + 50));
		assert!(late.is_err());
	}
	world.node.then([How::Hold; 10]);
	both(5);
	assert_eq!(world.node.told(), 10);
	world.node.release(true);
	for _ in 0..20 {
		world.clock.advance(Duration::from_secs(15));
		both(3);
	}
	for n in 1..=10 {
		assert_eq!((world.state(&bond(n).id), world.node.paid(&bond(n).id)), (State::Paid, 1));
	}
	assert_eq!(world.told().iter().filter(|told| told.starts_with("Paid")).count(), 10);
}

/// What does not add up freezes payouts, over restarts, until somebody has looked.
#[test]
fn what_does_not_add_up_freezes_payouts() {
	// A preimage of something else.
	let mut world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	world.node.set_lies(true);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE);
	assert_eq!(world.debt(&id).live, Some(1), "nothing is known");
	world.restart();
	let (_, reason) = world.payouts.breaker().unwrap().unwrap();
	assert!(reason.contains("preimage") && !reason.contains("0909"), "{reason}");
	world.owe(&bond(2));
	world.settle();
	world.submit(&bond(2).id, &world.good(2)).unwrap();
	world.pass(HOUR);
	assert_eq!(world.node.told(), 1, "nothing more is sent");
	world.node.set_lies(false);
	world.payouts.reset_breaker().unwrap();
	world.pass(2 * MINUTE);
	assert_eq!((world.state(&id), world.state(&bond(2).id)), (State::Paid, State::Paid));

	// More went out than may.
	let world = World::new();
	world.owe(&world.bond());
	world.settle();
	world.node.set_fee(10_001);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE);
	assert_eq!(world.state(&id), State::Paid, "it was paid");
	assert!(world.payouts.breaker().unwrap().unwrap().1.contains("cost more"));
}

/// A record that somebody has changed by hand is found, and stops nobody else.
#[test]
fn the_doctor_finds_what_does_not_add_up() {
	use leyden_store::{Batch, Key, KeyRange, Table};
	let world = World::new();
	world.owe(&bond(1));
	world.owe(&bond(2));
	world.settle();
	for n in 1..=2 {
		world.submit(&bond(n).id, &world.good(n.into())).unwrap();
	}
	world.pass(MINUTE);
	assert!(world.payouts.doctor().unwrap().is_empty());
	// The attempt of one, under the other.
	let attempts = world.store.scan(KeyRange::all(Table::new("pay_attempts")), 9).wait().unwrap();
	let [(first, _), (_, second)] = &attempts.records[..] else { panic!() };
	let mut batch = Batch::new();
	batch.put(first.clone(), second.value.clone());
	world.store.commit(batch).wait().unwrap();
	let findings = world.payouts.doctor().unwrap();
	assert_eq!(findings.len(), 1, "{findings:?}");
	assert!(findings[0].what.contains("another debt"), "{findings:?}");
	assert!(world.payouts.breaker().unwrap().is_some());
	// Bytes that are none.
	world.payouts.reset_breaker().unwrap();
	let key = Key::new(Table::new("pay_debts"), *bond(1).id.as_bytes());
	world.medium.damage(&leyden_store::Namespace::default(), &key, |frame| frame.truncate(30));
	assert_eq!(world.payouts.doctor().unwrap().len(), 1);
	world.payouts.reset_breaker().unwrap();
	world.owe(&bond(3));
	world.settle();
	assert_eq!(world.debt(&bond(3).id).nudges, 1);
}

/// Somebody paid it by other means, and says how (H-A18).
#[test]
fn an_operator_may_resolve_with_proof() {
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	world.node.then([How::Fail; 3]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(10 * MINUTE);
	assert_eq!(world.state(&id), State::Failed);
	let resolve = |proof: OutsideProof| world.payouts.resolve_with_proof(&id, &proof);
	assert!(matches!(resolve(OutsideProof::Preimage([1; 32])), Err(PayoutError::NoProof)));
	assert!(matches!(resolve(OutsideProof::Preimage(preimage(2))), Err(PayoutError::NoProof)));
	assert!(matches!(resolve(OutsideProof::Reference(" ".to_owned())), Err(PayoutError::NoProof)));
	assert!(!format!("{:?}", OutsideProof::Preimage(preimage(1))).contains('7'));
	resolve(OutsideProof::Preimage(preimage(1))).unwrap();
	assert_eq!(world.state(&id), State::Paid);
	assert!(matches!(
		resolve(OutsideProof::Reference("again".to_owned())),
		Err(PayoutError::NotNow { .. })
	));
	assert!(world.payouts.doctor().unwrap().is_empty());
	assert!(world.payouts.proof(&id).unwrap().to_json().contains("paid_by_other_means"));
}

/// H-A19: a database that was restored from an old copy asks the node what it has paid.
#[test]
fn an_old_copy_pays_nothing_twice() {
	for by_hash in [false, true] {
		let mut world = World::new();
		world.node.set_by_hash(by_hash);
		let id = world.bond().id;
		world.owe(&world.bond());
		world.settle();
		world.submit(&id, &world.good(1)).unwrap();
		let yesterday = world.medium.snapshot();
		world.pass(MINUTE);
		assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1));
		world.medium = yesterday;
		world.restart();
		assert_eq!(world.state(&id), State::Owed);
		world.pass(2 * MINUTE);
		assert_eq!((world.state(&id), world.node.told()), (State::Paid, 1), "by hash: {by_hash}");
		assert!(world.payouts.doctor().unwrap().is_empty());
	}
	// From before there was an invoice: the creditor is asked again, and gives another.
	let mut world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	let yesterday = world.medium.snapshot();
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE);
	world.medium = yesterday;
	world.restart();
	world.pass(MINUTE);
	world.submit(&id, &world.good(2)).unwrap();
	world.pass(2 * MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id), world.node.told()), (State::Paid, 1, 1));
	// While the node does not answer, nothing is sent.
	let mut world = World::new();
	world.owe(&world.bond());
	world.settle();
	world.submit(&id, &world.good(1)).unwrap();
	world.node.set_down(true);
	world.restart();
	world.pass(HOUR);
	assert_eq!((world.node.told(), world.debt(&id).attempts), (0, 0));
}

/// What the node says by itself is one commit with whoever has heard it, and nothing is asked.
#[test]
fn what_the_node_says_is_learned() {
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	world.node.then([How::Hold, How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.settle();
	use bitcoin::hashes::{sha256, Hash};
	let hash = |n: u16| sha256::Hash::hash(&preimage(n)).to_byte_array();
	let first = id.attempt(1);
	let learn = |n: u16, attempt: Option<&AttemptId>, outcome: &Lookup| {
		world.payouts.learn(&hash(n), attempt, outcome).unwrap()
	};
	assert!(learn(9, Some(&first), &Lookup::Failed).is_none());
	assert!(learn(1, Some(&first), &Lookup::InFlight).is_none());
	assert!(learn(1, None, &Lookup::Failed).is_none(), "of which attempt?");
	learn(1, Some(&first), &Lookup::Failed).unwrap().run(&*world.store).unwrap();
	world.node.release(false);
	assert_eq!((world.debt(&id).spent, world.debt(&id).live), (1, None));
	world.pass(2 * MINUTE);
	assert_eq!(world.debt(&id).live, Some(2));
	// The first has failed, said once more: that says nothing about the second.
	assert!(learn(1, Some(&first), &Lookup::Failed).is_none());
	let settled = Lookup::Settled { preimage: preimage(1), fee_msat: 3 };
	assert!(!format!("{settled:?}").contains("7, 7"));
	let wrong = Lookup::Settled { preimage: preimage(2), fee_msat: 3 };
	let refused = world.payouts.learn(&hash(1), None, &wrong);
	assert!(matches!(refused, Err(PayoutError::Frozen { .. })));
	world.payouts.reset_breaker().unwrap();
	learn(1, None, &settled).unwrap().run(&*world.store).unwrap();
	assert_eq!(world.state(&id), State::Paid);
	assert!(learn(1, None, &settled).is_none(), "known");
	world.node.release(true);
	world.pass(MINUTE);
	assert_eq!(world.told().iter().filter(|told| told.starts_with("Paid")).count(), 1);
}

/// What was decided on something that is not so any more is refused, and changes nothing (H-A13).
#[test]
fn what_was_decided_on_something_old_is_refused() {
	use bitcoin::hashes::{sha256, Hash};
	let world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	let stale_reminder = world.payouts.nudge_sent(&id).unwrap();
	world.node.then([How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.settle();
	let hash = sha256::Hash::hash(&preimage(1)).to_byte_array();
	let attempt = id.attempt(1);
	let settled = Lookup::Settled { preimage: preimage(1), fee_msat: 0 };
	let learn = |outcome: &Lookup| world.payouts.learn(&hash, Some(&attempt), outcome).unwrap();
	let (failed, again) = (learn(&Lookup::Failed).unwrap(), learn(&settled).unwrap());
	learn(&settled).unwrap().run(&*world.store).unwrap();
	for stale in [failed, again, stale_reminder] {
		let refused = stale.run(&*world.store);
		assert!(matches!(refused, Err(leyden_store::StoreError::Conflict { .. })), "{refused:?}");
	}
	assert_eq!(world.state(&id), State::Paid);
	assert_eq!(world.told().iter().filter(|told| told.starts_with("Paid")).count(), 1);
	assert!(world.payouts.doctor().unwrap().is_empty());
}

/// Two workers in two threads, at the same debts at the same time.
#[test]
fn two_threads_are_one() {
	let world = World::new();
	for n in 1..=30 {
		world.owe(&bond(n));
	}
	world.settle();
	for n in 1..=30 {
		world.submit(&bond(n).id, &world.good(n.into())).unwrap();
	}
	let others = [open(&world.store, &world.clock), open(&world.store, &world.clock)];
	for _ in 0..30 {
		std::thread::scope(|scope| {
			for other in &others {
				scope.spawn(|| drop(other.tick(&world.node, 100)));
			}
		});
		world.clock.advance(Duration::from_secs(15));
	}
	for n in 1..=30 {
		assert_eq!((world.state(&bond(n).id), world.node.paid(&bond(n).id)), (State::Paid, 1));
	}
	assert_eq!(world.told().iter().filter(|told| told.starts_with("Paid")).count(), 30);
}

/// A node that does not answer, and more debts than it may be asked about at once: nobody is kept from
/// being reminded, and everybody has their turn when it is back.
#[test]
fn a_node_that_does_not_answer_keeps_nobody_from_being_reminded() {
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
		payouts.submit(&bond(n).id, SELLER, &world.good(n.into())).unwrap();
	}
	assert_eq!(look(100).calls, 2);
	for n in 11..=20 {
		world.owe(&bond(n));
	}
	look(100);
	assert!((11..=20).all(|n| world.debt(&bond(n).id).nudges == 1));
	world.node.set_down(false);
	for _ in 0..40 {
		world.clock.advance(Duration::from_secs(15));
		// Few at a time: what it was asked about does not fill the look.
		for _ in 0..5 {
			let _: Ticked = look(1);
		}
	}
	assert!((1..=10).all(|n| world.state(&bond(n).id) == State::Paid));
}

/// A node that changes its mind: what was known to be dead was paid. The debt is not paid again, and
/// nothing else is until somebody has looked.
#[test]
fn what_was_dead_and_is_paid_is_loud() {
	use bitcoin::hashes::{sha256, Hash};
	let hash = |n: u16| sha256::Hash::hash(&preimage(n)).to_byte_array();
	let settled = |n: u16| Lookup::Settled { preimage: preimage(n), fee_msat: 0 };
	for paid_again in [false, true] {
		let world = World::new();
		let id = world.bond().id;
		world.owe(&world.bond());
		world.settle();
		world.node.then([How::Fail; 3]);
		world.submit(&id, &world.good(1)).unwrap();
		world.pass(10 * MINUTE);
		assert_eq!(world.state(&id), State::Failed);
		if paid_again {
			world.submit(&id, &world.good(2)).unwrap();
			world.pass(MINUTE);
			assert_eq!(world.state(&id), State::Paid);
		}
		let late = world.payouts.learn(&hash(1), None, &settled(1)).unwrap().unwrap();
		late.run(&*world.store).unwrap();
		assert_eq!(world.state(&id), State::Paid);
		assert!(world.payouts.breaker().unwrap().unwrap().1.contains("after all"));
		assert!(world.payouts.learn(&hash(1), None, &settled(1)).unwrap().is_none(), "known");
		assert_eq!(world.told().iter().filter(|told| told.starts_with("Paid")).count(), 1);
		let findings = world.payouts.doctor().unwrap();
		assert_eq!(findings.iter().any(|f| f.what.contains("more than once")), paid_again);
		let refused = world.submit(&id, &world.good(3));
		assert!(matches!(refused, Err(PayoutError::NotNow { .. })));
	}
}

/// The same while another attempt is under way: it ends with that one, and nothing more is sent.
#[test]
fn what_was_dead_and_is_paid_while_another_is_under_way() {
	use bitcoin::hashes::{sha256, Hash};
	for settles in [false, true] {
		let world = World::new();
		let id = world.bond().id;
		world.owe(&world.bond());
		world.settle();
		world.node.then([How::Fail, How::Fail, How::Fail, How::Hold]);
		world.submit(&id, &world.good(1)).unwrap();
		world.pass(10 * MINUTE);
		world.submit(&id, &world.good(2)).unwrap();
		world.pass(MINUTE);
		assert_eq!(world.debt(&id).live, Some(4));
		let hash = sha256::Hash::hash(&preimage(1)).to_byte_array();
		let settled = Lookup::Settled { preimage: preimage(1), fee_msat: 0 };
		let late = world.payouts.learn(&hash, None, &settled).unwrap().unwrap();
		late.run(&*world.store).unwrap();
		assert!(world.payouts.breaker().unwrap().is_some());
		assert_eq!((world.state(&id), world.debt(&id).live), (State::Owed, Some(4)));
		world.payouts.reset_breaker().unwrap();
		world.node.release(settles);
		world.pass(10 * MINUTE);
		assert_eq!((world.state(&id), world.node.told()), (State::Paid, 4));
		assert_eq!(world.told().iter().filter(|told| told.starts_with("Paid")).count(), 1);
	}
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
