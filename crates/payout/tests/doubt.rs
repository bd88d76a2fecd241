//! Proof that a debt was not paid, and what is none: nodes that forget, old copies of the store, payments
//! that are known by their hash alone, and what is said twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_payout::*;
use leyden_store::witness::{accept, HistoryMark, Witness, WitnessedStore};
use leyden_store::{MemoryStore, Namespace, Store, StoreError};
use rig::*;

/// A debt that was paid; the store of yesterday, in which it was not.
fn paid_and_restored(mut world: World) -> World {
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	world.submit(&id, &world.good(1)).unwrap();
	let yesterday = world.medium.snapshot();
	world.pass(2 * MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1));
	world.medium = yesterday;
	world
}

/// A1: the node forgets payments that are over, as LDK does after some minutes. Nothing proves that a debt
/// in an old copy was not paid, and it is not paid again, until an operator vouches for it.
#[test]
fn a_node_that_forgets_proves_nothing_about_an_old_copy() {
	for memory in [NodeMemory::WithStore, NodeMemory::Unknown, NodeMemory::AtLeast(7 * MINUTE)] {
		let world = World::trusting();
		world.node.set_memory(memory);
		let mut world = paid_and_restored(world);
		let id = world.bond().id;
		world.node.forget();
		world.clock.advance(HOUR);
		world.trusts = false;
		world.restart();
		world.pass(2 * DAY);
		let debt = world.debt(&id);
		assert_eq!(
			(debt.state, debt.attempts, world.node.told()),
			(State::Owed, 0, 1),
			"{memory:?}"
		);
		assert!(debt.is_unproven);
		let told = world.times_told("Unproven");
		assert_eq!(told, 1, "said, and said once");
		// An operator has looked at the node: it was paid by other means, or was not paid.
		world.payouts.vouch(&id).unwrap();
		world.pass(2 * MINUTE);
		assert_eq!((world.state(&id), world.node.told()), (State::Paid, 2), "{memory:?}");
	}
	// A node that remembers for ever says what it has paid.
	let mut world = paid_and_restored(World::new());
	world.restart();
	world.pass(2 * MINUTE);
	assert_eq!((world.state(&world.bond().id), world.node.told()), (State::Paid, 1));
}

/// The node knows the attempt when the store is compared with it, and forgets it before it is looked up:
/// it was paid, perhaps, and is never made again.
#[test]
fn an_attempt_that_the_node_forgets_meanwhile_is_not_made_again() {
	let mut world = paid_and_restored(World::trusting());
	let id = world.bond().id;
	world.node.set_memory(NodeMemory::WithStore);
	world.restart();
	// One look: what the node lists is taken over. The node forgets everything once it has listed it.
	let list = |node: &FakeNode, debt: &DebtId| {
		let listed = node.list_attempts(debt);
		node.forget();
		listed
	};
	world.payouts.tick(&Listing { node: world.node.clone(), list }, 10).unwrap();
	assert_eq!(world.debt(&id).live, Some(1));
	world.pass(2 * DAY);
	assert_eq!((world.debt(&id).live, world.node.told()), (Some(1), 1));
	assert!(world.why().contains("has no record"));
	// The payee shows that it was paid.
	world.payouts.resolve_with_proof(&id, &OutsideProof::Preimage(preimage(1))).unwrap();
	assert_eq!(world.state(&id), State::Paid);
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// A witness in memory.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<Option<HistoryMark>>>);

impl Witness for Known {
	fn place(&self) -> String {
		"the test".to_owned()
	}

	fn newest(&self) -> Result<Option<HistoryMark>, std::io::Error> {
		Ok(*self.0.lock().unwrap())
	}

	fn remember(&self, mark: &HistoryMark) -> Result<(), std::io::Error> {
		*self.0.lock().unwrap() = Some(*mark);
		Ok(())
	}
}

/// A store with a witness is the newest copy of itself, and a node that forgets is enough. Once it was
/// restored, nothing is paid before an operator has looked.
#[test]
fn a_store_with_a_witness_vouches_until_it_is_restored() {
	let witness = Known::default();
	let mut world = World::new();
	world.node.set_memory(NodeMemory::WithStore);
	let open_store = |world: &World| {
		let store = MemoryStore::open(&world.medium, Namespace::default()).unwrap();
		let inner: Arc<dyn Store> = Arc::new(store);
		WitnessedStore::open(inner, Box::new(witness.clone()))
	};
	let reopen = |world: &mut World| {
		world.store = Arc::new(open_store(world).unwrap());
		world.payouts = open(&world.store, &world.clock);
	};
	reopen(&mut world);
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	world.submit(&id, &world.good(1)).unwrap();
	reopen(&mut world);
	let yesterday = world.medium.snapshot();
	world.node.forget();
	world.pass(2 * MINUTE);
	assert_eq!((world.state(&id), world.node.told()), (State::Paid, 1));
	world.node.forget();
	reopen(&mut world);
	world.medium = yesterday;
	assert!(matches!(open_store(&world), Err(StoreError::Restored { .. })));
	let raw = MemoryStore::open(&world.medium, Namespace::default()).unwrap();
	accept(&raw, &witness).unwrap();
	drop(raw);
	reopen(&mut world);
	world.pass(2 * DAY);
	assert_eq!((world.state(&id), world.node.told()), (State::Owed, 1), "nothing is paid");
	assert!(world.payouts.frozen().unwrap().is_some());
}

/// A2: a node that knows payments by their hash alone. Its token, and no clock, tells the second attempt of
/// an invoice from the first.
#[test]
fn a_nodes_own_token_tells_attempts_apart() {
	for second in [How::Lost, How::SettleSilently, How::HoldSilently] {
		let world = World::trusting();
		world.node.set_by_hash(true);
		let (mut world, id) = owed_in(world);
		world.node.then([How::Fail, second]);
		world.submit(&id, &world.good(1)).unwrap();
		world.settle();
		assert_eq!(world.debt(&id).attempts, 1);
		// Far ahead of the node's clock and far behind it, whatever a node would compare.
		for hours in [100, -100] {
			let now = world.now().0.saturating_add_signed(hours * 3_600_000);
			world.clock.set(leyden_store::Timestamp(now));
			world.settle();
		}
		world.pass(MINUTE);
		assert_eq!(world.debt(&id).live, Some(2), "{second:?}: the first had failed");
		world.restart();
		world.pass(2 * MINUTE);
		world.node.release(true);
		world.pass(2 * MINUTE);
		let expected = (State::Paid, 1, if second == How::Lost { 3 } else { 2 });
		let found = (world.state(&id), world.node.paid(&id), world.node.told());
		assert_eq!(found, expected, "{second:?}");
		assert!(world.payouts.audit().unwrap().is_empty());
	}
}

/// The token is durable before the node is told to pay, and a node that gives none is not told.
#[test]
fn nothing_is_sent_without_a_token() {
	let world = World::trusting();
	world.node.set_by_hash(true);
	let (world, id) = owed_in(world);
	world.payouts.tick(&world.node, 10).unwrap();
	world.node.set_down(true);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(HOUR);
	assert_eq!((world.node.told(), world.debt(&id).attempts), (0, 0));
	world.node.set_down(false);
	world.pass(MINUTE);
	assert_eq!(world.state(&id), State::Paid);
}

/// A3: 1,000 sat are held. Two debts of them are never more than that, in one commit or in two.
#[test]
fn the_debts_of_one_source_are_never_more_than_it_has() {
	for source in [
		Source::Held { payment_hash: [4; 32], amount_sat: 1_000 },
		Source::Budget { id: [4; 32], amount_sat: 1_000 },
	] {
		let world = World::new();
		let part = |n: u8, amount_sat: u64| NewDebt {
			source,
			amount_sat,
			node_share_sat: amount_sat / 2,
			terms: Terms { fee_cap_msat: 0, ..terms() },
			..bond(n)
		};
		let add = |new: &NewDebt| world.payouts.add_debt(new);
		let (first, second) = (add(&part(1, 600)).unwrap(), add(&part(2, 600)).unwrap());
		let joined = first.and(second).commit(&*world.store).wait();
		assert!(joined.is_err(), "two plans of one source in one commit");
		let (first, stale) = (add(&part(1, 600)).unwrap(), add(&part(2, 600)).unwrap());
		first.commit(&*world.store).wait().unwrap();
		let stale = stale.commit(&*world.store).wait();
		assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
		let more = add(&part(2, 401)).map(|_| ());
		assert!(matches!(more, Err(PayoutError::SourceExceeded { left_sat: 400, .. })), "{more:?}");
		world.owe(&part(2, 400));
		assert_eq!(world.owe(&part(2, 400)), Added::AlreadyExists);
		let more = add(&part(3, 1)).map(|_| ());
		assert!(matches!(more, Err(PayoutError::SourceExceeded { left_sat: 0, .. })), "{more:?}");
		let other = match source {
			Source::Budget { id, .. } => Source::Budget { id, amount_sat: 2_000 },
			_ => Source::Held { payment_hash: [4; 32], amount_sat: 2_000 },
		};
		let more = add(&NewDebt { source: other, ..part(3, 1) }).map(|_| ());
		assert!(matches!(more, Err(PayoutError::SourceMismatch { known_sat: 1_000, .. })));
		assert!(world.payouts.audit().unwrap().is_empty());
		// A held payment and a budget of one name are two sources.
		let budget = Source::Budget { id: [4; 32], amount_sat: 1_000 };
		let held = Source::Held { payment_hash: [4; 32], amount_sat: 1_000 };
		let other = if source == budget { held } else { budget };
		world.owe(&NewDebt { source: other, ..part(4, 1_000) });
		assert!(world.payouts.audit().unwrap().is_empty());
	}
}

/// A change by hand, so that more goes out than is held, is found over the whole book.
#[test]
fn the_audit_sums_over_the_debts_of_a_source() {
	use leyden_store::{KeyRange, Table};
	let source = Source::Held { payment_hash: [4; 32], amount_sat: 1_000 };
	let part = |n: u8, amount_sat| NewDebt {
		source,
		amount_sat,
		node_share_sat: amount_sat / 2,
		terms: Terms { fee_cap_msat: 0, ..terms() },
		..bond(n)
	};
	let world = World::new();
	world.owe(&part(1, 600));
	let table = |name| KeyRange::all(Table::new(name));
	let first = world.store.scan(table("pay_sources"), 9).wait().unwrap().records.remove(0);
	// The sum of one debt, when there are two.
	world.owe(&part(2, 400));
	world.by_hand(|batch| batch.put(first.0.clone(), first.1.value.clone()));
	world.owe(&part(3, 400));
	let issues = world.payouts.audit().unwrap();
	assert_eq!(issues.len(), 1, "{issues:?}");
	assert!(issues[0].what.contains("1400 sat, and it has 1000"), "{issues:?}");
	assert!(world.payouts.frozen().unwrap().is_some());
	// A debt that is not counted.
	let share = world.store.scan(table("pay_shares"), 9).wait().unwrap().records.remove(0);
	world.by_hand(|batch| batch.delete(share.0));
	let issues = world.payouts.audit().unwrap();
	assert!(issues.iter().any(|issue| issue.what.contains("not counted")), "{issues:?}");
}

/// A5: attempt 1 of an invoice was known to be dead and has paid, while attempt 2 of the same invoice is
/// under way, and pays, too. Both payments are written down, and payouts are frozen.
#[test]
fn a_late_settlement_is_recorded_for_its_own_attempt() {
	let (world, id) = owed();
	world.node.then([How::Fail, How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(2 * MINUTE);
	assert_eq!(world.debt(&id).live, Some(2));
	let settled = AttemptStatus::Settled { preimage: preimage(1), fee_msat: Some(3) };
	let record = |number: u32| {
		let plan = world.payouts.record_outcome(&hash(1), Some(&id.attempt(number)), &settled);
		plan.unwrap().map(|plan| plan.run(&*world.store).unwrap())
	};
	assert!(record(1).is_some());
	assert_eq!((world.state(&id), world.debt(&id).live), (State::Owed, Some(2)));
	assert!(world.why().contains("after all"));
	assert!(record(1).is_none(), "known");
	world.unfreeze();
	// The second payment is heard.
	assert!(record(2).is_some());
	assert_eq!(world.state(&id), State::Paid);
	assert!(world.why().contains("more than once"));
	let proof = world.payouts.proof(&id).unwrap().to_json();
	assert_eq!(proof.matches("\"verdict\": \"settled\"").count(), 2, "{proof}");
	let issues = world.payouts.audit().unwrap();
	assert!(issues.iter().any(|issue| issue.what.contains("more than once")), "{issues:?}");
}

/// A10: the held payment is gone. The debt ends, its payee is told, and proof is accepted.
#[test]
fn a_debt_of_a_payment_that_is_gone_is_void() {
	let world = World::new();
	let held = Source::Held { payment_hash: [4; 32], amount_sat: 1_000 };
	let new = NewDebt { source: held, ..world.bond() };
	world.owe(&new);
	world.node.held([SettleReply::NotYet, SettleReply::Gone]);
	world.pass(MINUTE);
	assert_eq!(world.state(&new.id), State::Void);
	assert_eq!(world.told(), ["Void to seller"]);
	let refused = world.submit(&new.id, &world.good(1));
	assert!(matches!(refused, Err(PayoutError::InvalidState { state: State::Void, .. })));
	assert!(world.payouts.audit().unwrap().is_empty());
	world.pass(40 * DAY);
	assert_eq!((world.node.told(), world.told().len()), (0, 1));
	let proof = OutsideProof::Reference("paid in cash".to_owned());
	world.payouts.resolve_with_proof(&new.id, &proof).unwrap();
	assert_eq!(world.state(&new.id), State::Paid);
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// A18: an attempt has been under way for 40 days, and the payee shows the preimage of its invoice.
#[test]
fn the_preimage_ends_an_attempt_that_is_under_way() {
	let (world, id) = owed();
	world.node.then([How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(40 * DAY);
	assert_eq!(world.debt(&id).live, Some(1));
	let wrong = world.payouts.resolve_with_proof(&id, &OutsideProof::Preimage([1; 32]));
	assert!(matches!(wrong, Err(PayoutError::NoProof { .. })));
	world.payouts.resolve_with_proof(&id, &OutsideProof::Preimage(preimage(1))).unwrap();
	assert_eq!(world.state(&id), State::Paid);
	assert_eq!(world.times_told("Paid"), 1);
	assert!(world.payouts.audit().unwrap().is_empty());
	world.pass(DAY);
	assert_eq!(world.node.told(), 1);
}

/// The node had accepted an attempt and has no record of it: the node's database is another one. Nothing
/// is paid, loudly, until an operator says what became of it.
#[test]
fn an_accepted_attempt_without_a_record_freezes_payouts() {
	let (world, id) = owed();
	world.node.then([How::Settle]);
	world.submit(&id, &world.good(1)).unwrap();
	world.settle();
	world.node.forget();
	world.pass(2 * DAY);
	let debt = world.debt(&id);
	assert_eq!((debt.state, debt.live, world.node.told()), (State::Owed, Some(1), 1));
	assert!(world.why().contains("has no record"));
	world.unfreeze();
	world.pass(DAY);
	assert!(world.payouts.frozen().unwrap().is_none(), "said once");
	assert_eq!(world.node.told(), 1);
	let other = world.payouts.declare_failed(&id, 2);
	assert!(matches!(other, Err(PayoutError::NoSuchAttempt { number: 2, .. })));
	world.payouts.declare_failed(&id, 1).unwrap();
	world.pass(2 * MINUTE);
	assert_eq!((world.state(&id), world.node.told()), (State::Paid, 2));
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// An attempt that is frozen between its plan and its commit is not paid.
#[test]
fn a_freeze_counts_at_once() {
	let world = invoiced(2);
	// Two are looked up in one pass: the answer about one freezes the other.
	world.node.set_lies(true);
	for _ in 0..5 {
		world.payouts.tick(&world.node, 1).unwrap();
		world.clock.advance(Duration::from_secs(16));
	}
	assert!(world.payouts.frozen().unwrap().is_some());
	let told = world.node.told();
	world.pass(DAY);
	assert_eq!(world.node.told(), told, "nothing more is sent");
}

/// An old copy hears that the node has paid an invoice that it does not know.
#[test]
fn an_old_copy_finds_a_payment_by_its_name() {
	for trusts in [false, true] {
		let (mut world, id, yesterday) = under_way_since(30);
		world.restore(yesterday, trusts);
		let record = |name: &AttemptId| {
			world.payouts.record_outcome(&hash(1), Some(name), &settled(1)).unwrap()
		};
		assert!(record(&AttemptId::from_bytes([5; 32])).is_none(), "a payment for something else");
		let plan = record(&id.attempt(1));
		assert_eq!(plan.is_none(), trusts);
		let Some(plan) = plan else { continue };
		plan.run(&*world.store).unwrap();
		assert_eq!(world.state(&id), State::Paid);
		assert!(record(&id.attempt(1)).is_none(), "known");
		assert!(world.why().contains("after all"), "{}", world.why());
		assert!(world.payouts.audit().unwrap().is_empty());
	}
}

/// An old copy in which the money is still held hears that the debt was paid: the money is taken, and the
/// debt ends.
#[test]
fn an_old_copy_takes_the_money_of_what_was_paid() {
	let mut world = World::trusting();
	let held = Source::Held { payment_hash: [4; 32], amount_sat: 1_000 };
	let new = NewDebt { source: held, ..world.bond() };
	world.owe(&new);
	let yesterday = world.medium.snapshot();
	world.settle();
	world.node.then([How::Hold]);
	world.submit(&new.id, &world.good(1)).unwrap();
	world.settle();
	world.node.set_memory(NodeMemory::WithStore);
	world.node.release(true);
	world.node.forget();
	world.restore(yesterday, false);
	let plan = world.payouts.record_outcome(&hash(1), Some(&new.id.attempt(1)), &settled(1));
	plan.unwrap().unwrap().run(&*world.store).unwrap();
	assert_eq!(world.state(&new.id), State::Decided);
	assert_eq!(world.payouts.audit().unwrap(), []);
	world.unfreeze();
	world.pass(MINUTE);
	assert_eq!((world.state(&new.id), world.node.told()), (State::Paid, 1));
	assert_eq!(world.told(), ["Paid to seller"], "the payee is not asked for an invoice");
	assert_eq!(world.payouts.audit().unwrap(), []);
}

/// A debt without an invoice is compared at its first look, and what the node has under way is taken over.
#[test]
fn an_old_copy_asks_the_node_before_there_is_an_invoice() {
	let (mut world, id, yesterday) = under_way_since(1);
	world.restore(yesterday, false);
	world.pass(6 * MINUTE);
	assert_eq!(world.debt(&id).live, Some(1));
	let fresh = world.submit(&id, &world.good(2));
	assert!(matches!(fresh, Err(PayoutError::AttemptLive { .. })), "{fresh:?}");
	world.node.release(true);
	world.pass(MINUTE);
	assert_eq!((world.state(&id), world.node.told()), (State::Paid, 1));
	// A node that does not answer stops no reminder.
	let world = World::new();
	world.node.set_down(true);
	world.owe(&world.bond());
	world.pass(HOUR);
	assert!(world.debt(&id).reminders >= 12, "{}", world.debt(&id).reminders);
}
