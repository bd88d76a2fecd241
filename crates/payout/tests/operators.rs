//! Operators, what they are told and what they say: freezes with several reasons, attempts that are declared
//! dead, notices that conflict, and what waits for long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::{Arc, Mutex, OnceLock};

use leyden_payout::*;
use leyden_store::{Batch, Key, ManualClock, Plan, RecordType, Table, Value};
use rig::*;

/// A reason that comes while an operator looks into another one is not lifted with that.
#[test]
fn a_freeze_ends_when_every_reason_was_seen() {
	let world = World::new();
	let freeze = |reason: &str| world.payouts.freeze(reason).unwrap().run(&*world.store).unwrap();
	freeze("first");
	let seen = world.payouts.frozen().unwrap().unwrap();
	world.clock.advance(HOUR);
	freeze("second");
	freeze("first");
	let refused = world.payouts.unfreeze(&seen);
	assert!(
		matches!(&refused, Err(PayoutError::UnseenReason { reason }) if reason == "second"),
		"{refused:?}"
	);
	// A reason that is said again is no other reason.
	let again = world.payouts.freeze("first").unwrap();
	again.run(&*world.store).unwrap();
	let seen = world.payouts.frozen().unwrap().unwrap();
	assert_eq!((seen.at, seen.reasons.join(", ")), (START, "first, second".to_owned()));
	// A reason that comes between the look and the commit.
	let late = world.payouts.freeze("third").unwrap();
	late.run(&*world.store).unwrap();
	assert!(world.payouts.unfreeze(&seen).is_err());
	world.unfreeze();
	assert!(world.payouts.frozen().unwrap().is_none());
	// There is an end to the reasons that are kept, and none is lifted unseen.
	(0..MAX_REASONS + 2).for_each(|n| freeze(&format!("reason {n}")));
	let all = world.payouts.frozen().unwrap().unwrap();
	assert_eq!((all.reasons.len(), all.more), (MAX_REASONS, 2));
	freeze("one more");
	assert!(world.payouts.unfreeze(&all).is_err());
	world.unfreeze();
	assert!(world.payouts.frozen().unwrap().is_none());
}

/// A freeze whose record cannot be read is one, and an operator can end it.
#[test]
fn a_damaged_freeze_is_one() {
	let (world, id) = owed();
	world.payouts.freeze("a reason").unwrap().run(&*world.store).unwrap();
	world.damage(&key("pay_meta", *b"freeze"), 9);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(HOUR);
	assert_eq!(world.node.told(), 0);
	assert!(world.why().contains("damaged"), "{}", world.why());
	world.payouts.freeze("another").unwrap().run(&*world.store).unwrap();
	assert!(world.why().contains("damaged; another"), "{}", world.why());
	world.damage(&key("pay_meta", *b"freeze"), 9);
	world.unfreeze();
	world.pass(2 * MINUTE);
	assert_eq!(world.state(&id), State::Paid);
}

/// An operator says that an attempt has failed, and the node says that it may pay: nothing else is paid.
#[test]
fn what_was_declared_failed_and_may_pay_is_not_paid_again() {
	for settles in [false, true] {
		let (world, id) = owed();
		let other = open(&world.store, &world.clock);
		world.node.then([How::Hold]);
		world.submit(&id, &world.good(1)).unwrap();
		world.pass(MINUTE);
		// Also by another process than the one that pays.
		other.declare_failed(&id, 1).unwrap();
		world.pass(HOUR);
		assert_eq!((world.node.told(), world.debt(&id).live), (1, None));
		assert!(world.why().contains("says that it may pay"), "{}", world.why());
		world.unfreeze();
		world.pass(HOUR);
		assert_eq!((world.node.told(), world.why()), (1, String::new()), "told once");
		world.node.release(settles);
		if settles {
			let plan = world.payouts.record_outcome(&hash(1), Some(&id.attempt(1)), &settled(1));
			plan.unwrap().unwrap().run(&*world.store).unwrap();
			assert_eq!((world.state(&id), world.node.told()), (State::Paid, 1));
			continue;
		}
		world.pass(HOUR);
		assert_eq!((world.state(&id), world.node.told()), (State::Paid, 2));
	}
}

/// An attempt and a payment without an end for a day are told, once; and so is a payment that no payer
/// settles.
#[test]
fn what_waits_for_long_is_told_once() {
	let (mut world, id) = owed();
	let (payouts, seen) = observed(&world);
	world.payouts = payouts;
	world.node.then([How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	let held = Source::Held { payment_hash: [4; 32], amount_sat: 1_000 };
	world.owe(&NewDebt { source: held, ..bond(2) });
	world.node.held([SettleReply::NotYet; 40_000]);
	world.pass(23 * HOUR);
	assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
	world.pass(DAY);
	let told = seen.lock().unwrap().clone();
	assert_eq!(told.len(), 2, "{told:?}");
	assert!(told.iter().any(|told| told.contains("attempt 1 has had no end")), "{told:?}");
	assert!(told.iter().any(|told| told.contains("was not settled for a day")), "{told:?}");

	let mut world = World::new();
	let (payouts, seen) = observed(&world);
	world.payouts = payouts;
	world.owe(&NewDebt { source: held, ..bond(2) });
	world.node.held([SettleReply::Unable; 1_000]);
	world.pass(HOUR);
	assert_eq!(world.state(&bond(2).id), State::Decided);
	let told = seen.lock().unwrap().clone();
	assert!(told.len() == 1 && told[0].contains("its payer settles none"), "{told:?}");
}

/// A plan of the user's own that conflicts is the user's, whatever its table is called.
#[test]
fn a_table_of_the_users_own_may_have_any_name() {
	const OWN: Table = Table::new("pay_book");
	let mut world = World::new();
	let book: Arc<OnceLock<()>> = Arc::default();
	let is_open = Arc::clone(&book);
	let options = PayoutOptions {
		notices: Some(Arc::new(move |_: &Notice| {
			let mut batch = Batch::new();
			if is_open.get().is_none() {
				batch.expect(Key::new(OWN, *b"k"), leyden_store::Expectation::Present);
			}
			batch.put(Key::new(OWN, *b"n"), Value::new(RecordType(0x8000), 1, vec![1]));
			Plan::of(batch)
		})),
		..options()
	};
	let clock = Arc::<ManualClock>::clone(&world.clock);
	world.payouts = Payouts::open(Arc::clone(&world.store), clock, options).unwrap();
	world.owe(&world.bond());
	assert_eq!(world.tick().broken, 1, "the operator hears of it");
	book.set(()).unwrap();
	world.settle();
	assert_eq!(world.debt(&world.bond().id).reminders, 1);
}

type Seen = Arc<Mutex<Vec<String>>>;

fn observed(world: &World) -> (Payouts, Seen) {
	let seen = Seen::default();
	let telling = Arc::clone(&seen);
	let observer: PayoutObserver =
		Arc::new(move |event: &PayoutEvent| telling.lock().unwrap().push(event.to_string()));
	let clock = Arc::<ManualClock>::clone(&world.clock);
	let options = PayoutOptions { observer: Some(observer), ..options() };
	(Payouts::open(Arc::clone(&world.store), clock, options).unwrap(), seen)
}
