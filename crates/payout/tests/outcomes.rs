//! Payments that the node tells of by itself, and preimages that payees show: which attempt, and which debt,
//! they are of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use leyden_payout::*;
use rig::*;

/// A payment that has the invoice's hash and another name was made by hand: the debt is paid, and it is
/// written down once however often the node says so.
#[test]
fn a_payment_by_hand_is_recorded_once() {
	let (world, id) = owed();
	world.node.then([How::Fail]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE / 2);
	assert_eq!(world.debt(&id).live, None);
	let foreign = AttemptId::from_bytes([5; 32]);
	let record = || world.payouts.record_outcome(&hash(1), Some(&foreign), &settled(1)).unwrap();
	record().unwrap().run(&*world.store).unwrap();
	assert_eq!((world.state(&id), world.debt(&id).attempts), (State::Paid, 2));
	assert!(record().is_none(), "known");
	assert_eq!(world.debt(&id).attempts, 2);
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// The node says that an attempt of one invoice was a payment of another invoice of the same debt.
#[test]
fn a_payment_of_another_invoice_is_recorded_once() {
	let (world, id) = owed();
	world.node.then([How::Not(FailureReason::NoRoute); 9]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE / 2);
	world.submit(&id, &world.good(2)).unwrap();
	let first = id.attempt(1);
	let record = || world.payouts.record_outcome(&hash(2), Some(&first), &settled(2)).unwrap();
	record().unwrap().run(&*world.store).unwrap();
	assert_eq!((world.state(&id), world.debt(&id).attempts), (State::Paid, 2));
	assert!(record().is_none(), "known");
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// A name of one debt and the payment hash of another, listed or told: nothing is written down as paid.
#[test]
fn a_payment_of_two_debts_is_of_none() {
	let (world, first) = owed();
	let second = bond(2).id;
	world.owe(&bond(2));
	world.settle();
	world.node.then([How::Hold]);
	world.submit(&first, &world.good(1)).unwrap();
	world.settle();
	let plan = world.payouts.record_outcome(&hash(1), Some(&second.attempt(1)), &settled(1));
	plan.unwrap().unwrap().run(&*world.store).unwrap();
	assert_eq!((world.state(&first), world.state(&second)), (State::Owed, State::Owed));
	assert!(world.why().contains("name of one debt"), "{}", world.why());
	world.unfreeze();
	// The node lists it.
	let list = |node: &FakeNode, debt: &DebtId| {
		if *debt != second {
			return node.list_attempts(debt);
		}
		let known = KnownPayment { number: 1, payment_hash: hash(1), may_pay: true };
		let memory = NodeMemory::Forever;
		Reply::ready(KnownPayments::Listed { payments: vec![known], memory })
	};
	let payer = Listing { node: world.node.clone(), list };
	let fresh = open(&world.store, &world.clock);
	world.clock.advance(HOUR);
	for _ in 0..4 {
		fresh.tick(&payer, 10).unwrap();
	}
	assert!(world.why().contains("the payment hash of another"), "{}", world.why());
	assert_eq!((world.debt(&second).live, world.debt(&second).attempts), (None, 0));
	// The hash is still of the first debt.
	world.unfreeze();
	world.node.release(true);
	world.pass(2 * MINUTE);
	assert_eq!((world.state(&first), world.why()), (State::Paid, String::new()));
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// The payee shows the preimage; the attempts before the one under way were never sent.
#[test]
fn a_preimage_is_of_an_attempt_that_may_have_paid() {
	let (world, id) = owed();
	world.node.then([How::Not(FailureReason::NoRoute), How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(3 * MINUTE);
	assert_eq!(world.debt(&id).live, Some(2));
	world.payouts.resolve_with_proof(&id, &OutsideProof::Preimage(preimage(1))).unwrap();
	assert_eq!(world.state(&id), State::Paid);
	assert!(world.payouts.audit().unwrap().is_empty());
	let proof = world.payouts.proof(&id).unwrap().to_json();
	assert_eq!(proof.matches("\"never_sent\": true").count(), 1, "{proof}");
}

/// A preimage that a payee has shown is in the document, and in nothing that is printed by the way.
#[test]
fn a_preimage_that_was_shown_is_kept_as_one() {
	let (world, id) = failed();
	world.payouts.resolve_with_proof(&id, &OutsideProof::Preimage(preimage(1))).unwrap();
	let proof = world.payouts.proof(&id).unwrap().to_json();
	let hex: String = preimage(1).iter().map(|byte| format!("{byte:02x}")).collect();
	assert!(proof.contains("\"what\": \"a preimage was shown\""), "{proof}");
	assert!(proof.contains(&format!("\"preimage\": \"{hex}\"")), "{proof}");
}
