//! Two workers, old copies, nodes that change their mind: what must be true of the money. `S` names the
//! scenarios of Mostro's bond payout, `H-A` the holes that were found in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::time::Duration;

use leyden_payout::*;
use rig::*;

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
		who.submit_invoice(&bond(n).id, SELLER, &world.good(n.into())).unwrap();
		let late =
			world.payouts.submit_invoice(&bond(n).id, SELLER, &world.good(u16::from(n) + 50));
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
	assert_eq!(world.times_told("Paid"), 10);
}

/// Two workers in two threads, at the same debts at the same time.
#[test]
fn two_threads_are_one() {
	let world = invoiced(30);
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
	assert_eq!(world.times_told("Paid"), 30);
}

/// A decision on something that is not so any more is refused, and changes nothing (H-A13).
#[test]
fn what_was_decided_on_something_old_is_refused() {
	let (world, id) = owed();
	let stale_reminder = world.payouts.reminder_delivered(&id).unwrap();
	world.node.then([How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.settle();
	let attempt = id.attempt(1);
	let learn = |outcome: &AttemptStatus| {
		world.payouts.record_outcome(&hash(1), Some(&attempt), outcome).unwrap()
	};
	let (failed, again) =
		(learn(&AttemptStatus::Failed(FailureReason::Other)).unwrap(), learn(&settled(1)).unwrap());
	learn(&settled(1)).unwrap().run(&*world.store).unwrap();
	for stale in [failed, again, stale_reminder] {
		let refused = stale.run(&*world.store);
		assert!(matches!(refused, Err(leyden_store::StoreError::Conflict { .. })), "{refused:?}");
	}
	assert_eq!(world.state(&id), State::Paid);
	assert_eq!(world.times_told("Paid"), 1);
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// A contradiction freezes payouts, over restarts, until an operator has looked.
#[test]
fn what_does_not_add_up_freezes_payouts() {
	// A preimage of something else.
	let (mut world, id) = owed();
	world.node.set_lies(true);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE);
	assert_eq!(world.debt(&id).live, Some(1), "nothing is known");
	world.restart();
	let reason = world.why();
	assert!(reason.contains("preimage") && !reason.contains("0909"), "{reason}");
	world.owe(&bond(2));
	world.settle();
	world.submit(&bond(2).id, &world.good(2)).unwrap();
	world.pass(HOUR);
	assert_eq!(world.node.told(), 1, "nothing more is sent");
	world.node.set_lies(false);
	world.unfreeze();
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
	assert!(world.why().contains("cost more"));
}

/// A record that was changed by hand is found, and stops no other debt.
#[test]
fn the_audit_finds_what_does_not_add_up() {
	use leyden_store::{KeyRange, Table};
	let world = invoiced(2);
	world.pass(MINUTE);
	assert!(world.payouts.audit().unwrap().is_empty());
	// The attempt of one, under the other.
	let attempts = world.store.scan(KeyRange::all(Table::new("pay_attempts")), 9).wait().unwrap();
	let [(first, _), (_, second)] = &attempts.records[..] else { panic!() };
	world.by_hand(|batch| batch.put(first.clone(), second.value.clone()));
	let findings = world.payouts.audit().unwrap();
	assert_eq!(findings.len(), 1, "{findings:?}");
	assert!(findings[0].what.contains("another debt"), "{findings:?}");
	assert!(world.payouts.frozen().unwrap().is_some());
	// Bytes that are none.
	world.unfreeze();
	world.damage(&key("pay_debts", *bond(1).id.as_bytes()), 30);
	assert_eq!(world.payouts.audit().unwrap().len(), 1);
	world.unfreeze();
	world.owe(&bond(3));
	world.settle();
	assert_eq!(world.debt(&bond(3).id).reminders, 1);
}

/// An operator has paid a debt by other means, and says how (H-A18).
#[test]
fn an_operator_may_resolve_with_proof() {
	let (world, id) = failed();
	let resolve = |proof: OutsideProof| world.payouts.resolve_with_proof(&id, &proof);
	assert!(matches!(resolve(OutsideProof::Preimage([1; 32])), Err(PayoutError::NoProof { .. })));
	assert!(matches!(
		resolve(OutsideProof::Preimage(preimage(2))),
		Err(PayoutError::NoProof { .. })
	));
	assert!(matches!(
		resolve(OutsideProof::Reference(" ".to_owned())),
		Err(PayoutError::NoProof { .. })
	));
	assert!(!format!("{:?}", OutsideProof::Preimage(preimage(1))).contains('7'));
	resolve(OutsideProof::Preimage(preimage(1))).unwrap();
	assert_eq!(world.state(&id), State::Paid);
	assert!(matches!(
		resolve(OutsideProof::Reference("again".to_owned())),
		Err(PayoutError::InvalidState { state: State::Paid, .. })
	));
	assert!(world.payouts.audit().unwrap().is_empty());
	assert!(world.payouts.proof(&id).unwrap().to_json().contains("paid_by_other_means"));
}

/// H-A19: a database that was restored from an old copy asks the node what it has paid.
#[test]
fn an_old_copy_pays_nothing_twice() {
	for by_hash in [false, true] {
		// A node that knows hashes only proves nothing by itself: see `doubt.rs`.
		let mut world = if by_hash { World::trusting() } else { World::new() };
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
		assert!(world.payouts.audit().unwrap().is_empty());
	}
	// From before there was an invoice: the payee is asked again, and gives another.
	let (mut world, id) = owed();
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

/// A node that changes its mind: what was known to be dead was paid. The debt is not paid again, and
/// nothing else is until an operator has looked.
#[test]
fn what_was_dead_and_is_paid_is_loud() {
	for paid_again in [false, true] {
		let (world, id) = failed();
		if paid_again {
			world.submit(&id, &world.good(2)).unwrap();
			world.pass(MINUTE);
			assert_eq!(world.state(&id), State::Paid);
		}
		let late = world.payouts.record_outcome(&hash(1), None, &settled(1)).unwrap().unwrap();
		late.run(&*world.store).unwrap();
		assert_eq!(world.state(&id), State::Paid);
		assert!(world.why().contains("after all"));
		assert!(
			world.payouts.record_outcome(&hash(1), None, &settled(1)).unwrap().is_none(),
			"known"
		);
		assert_eq!(world.times_told("Paid"), 1);
		let findings = world.payouts.audit().unwrap();
		assert_eq!(findings.iter().any(|f| f.what.contains("more than once")), paid_again);
		let refused = world.submit(&id, &world.good(3));
		assert!(matches!(refused, Err(PayoutError::InvalidState { .. })));
	}
}

/// The same while another attempt is under way: it ends with that one, and nothing more is sent.
#[test]
fn what_was_dead_and_is_paid_while_another_is_under_way() {
	for settles in [false, true] {
		let (world, id) = owed();
		world.node.then([How::Fail, How::Fail, How::Fail, How::Hold]);
		world.submit(&id, &world.good(1)).unwrap();
		world.pass(10 * MINUTE);
		world.submit(&id, &world.good(2)).unwrap();
		world.pass(MINUTE);
		assert_eq!(world.debt(&id).live, Some(4));
		let late = world.payouts.record_outcome(&hash(1), None, &settled(1)).unwrap().unwrap();
		late.run(&*world.store).unwrap();
		assert!(world.payouts.frozen().unwrap().is_some());
		assert_eq!((world.state(&id), world.debt(&id).live), (State::Owed, Some(4)));
		world.unfreeze();
		world.node.release(settles);
		world.pass(10 * MINUTE);
		assert_eq!((world.state(&id), world.node.told()), (State::Paid, 4));
		assert_eq!(world.times_told("Paid"), 1);
	}
}
