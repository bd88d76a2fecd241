//! What operators, payees and audits see and ask for: freezes with several reasons, attempts that are
//! declared dead, invoices that are replaced, damage, and what waits for long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use leyden_payout::*;
use leyden_store::group::StoreObserver;
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, ManualClock, Namespace, Page, Plan, Record,
	RecordType, Store, Table, Ticket, Value,
};
use rig::*;

fn hash(number: u16) -> [u8; 32] {
	sha256::Hash::hash(&preimage(number)).to_byte_array()
}

fn settled(number: u16) -> AttemptStatus {
	AttemptStatus::Settled { preimage: preimage(number), fee_msat: Some(0) }
}

/// A world with one debt that is owed, and its name.
fn owed() -> (World, DebtId) {
	let world = World::new();
	world.owe(&world.bond());
	world.settle();
	let id = world.bond().id;
	(world, id)
}

fn key(table: &'static str, bytes: impl Into<Vec<u8>>) -> Key {
	Key::new(Table::new(table), bytes.into())
}

fn damage(world: &World, key: &Key) {
	world.medium.damage(&Namespace::default(), key, |frame| frame.truncate(9));
}

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
	damage(&world, &key("pay_meta", *b"freeze"));
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(HOUR);
	assert_eq!(world.node.told(), 0);
	assert!(world.why().contains("damaged"), "{}", world.why());
	world.payouts.freeze("another").unwrap().run(&*world.store).unwrap();
	assert!(world.why().contains("damaged; another"), "{}", world.why());
	damage(&world, &key("pay_meta", *b"freeze"));
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

/// An invoice without a route is replaced by the payee; an operator is told once. The failures that count
/// are kept.
#[test]
fn an_invoice_that_cannot_be_paid_may_be_replaced() {
	let (world, id) = owed();
	world.submit(&id, &world.good(1)).unwrap();
	let early = world.submit(&id, &world.good(2));
	assert!(matches!(early, Err(PayoutError::HasInvoice { .. })), "no attempt was made yet");
	world.node.then([How::Not(FailureReason::NoRoute), How::Hold]);
	world.pass(5 * MINUTE);
	let under_way = world.submit(&id, &world.good(2));
	assert!(matches!(under_way, Err(PayoutError::AttemptLive { number: 2, .. })), "{under_way:?}");
	world.node.release(false);
	world.node.then([How::Not(FailureReason::NoRoute); 30]);
	world.pass(8 * HOUR);
	let debt = world.debt(&id);
	assert_eq!((debt.live, debt.failed_attempts), (None, 1));
	assert_eq!(world.told().iter().filter(|told| told.starts_with("NoRoute")).count(), 1);
	world.node.clear();
	world.node.then([How::Hold]);
	assert_eq!(world.submit(&id, &world.good(2)).unwrap(), Submitted::Replaced);
	assert_eq!(world.debt(&id).failed_attempts, 1);
	let again = world.submit(&id, &world.good(1));
	assert!(again.is_err(), "an invoice is given once");
	world.pass(MINUTE);
	let under_way = world.submit(&id, &world.good(3));
	assert!(matches!(under_way, Err(PayoutError::HasInvoice { .. })), "{under_way:?}");
	world.node.release(true);
	world.pass(MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1));
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

/// What a payee has shown is in the document, and in nothing that is printed by the way.
#[test]
fn a_preimage_that_was_shown_is_kept_as_one() {
	let (world, id) = owed();
	world.node.then([How::Fail; 3]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(10 * MINUTE);
	world.payouts.resolve_with_proof(&id, &OutsideProof::Preimage(preimage(1))).unwrap();
	let proof = world.payouts.proof(&id).unwrap().to_json();
	let hex: String = preimage(1).iter().map(|byte| format!("{byte:02x}")).collect();
	assert!(proof.contains("\"what\": \"a preimage was shown\""), "{proof}");
	assert!(proof.contains(&format!("\"preimage\": \"{hex}\"")), "{proof}");
}

/// A payment that is gone takes nothing out of its source.
#[test]
fn a_void_debt_gives_its_share_back() {
	let world = World::new();
	let held = Source::Held { payment_hash: [4; 32], amount_sat: 1_000 };
	let part = |n: u8, amount_sat| NewDebt {
		source: held,
		amount_sat,
		node_share_sat: amount_sat / 2,
		terms: Terms { fee_cap_msat: 0, ..terms() },
		..bond(n)
	};
	world.node.held([SettleReply::Gone]);
	world.owe(&part(1, 600));
	world.settle();
	assert_eq!(world.state(&part(1, 600).id), State::Void);
	world.owe(&part(2, 1_000));
	assert!(world.payouts.audit().unwrap().is_empty());
	assert!(matches!(
		world.payouts.add_debt(&part(3, 1)).map(|_| ()),
		Err(PayoutError::SourceExceeded { left_sat: 0, .. })
	));
	// Counted by hand, it is seen.
	let shares = KeyRange::all(Table::new("pay_shares"));
	let (share, record) = world.store.scan(shares, 9).wait().unwrap().records.remove(0);
	let id = part(1, 600).id;
	let first = [&share.bytes()[..33], id.as_bytes()].concat();
	let mut batch = Batch::new();
	batch.put(key("pay_shares", first), record.value.clone());
	world.store.commit(batch).wait().unwrap();
	let issues = world.payouts.audit().unwrap();
	assert!(issues.iter().any(|issue| issue.what.contains("it is void")), "{issues:?}");
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

/// What has had no end for a day is told, once; and so is a payment that no payer settles.
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

fn due_keys(world: &World) -> Vec<(Key, Record)> {
	world.store.scan(KeyRange::all(Table::new("pay_due")), 99).wait().unwrap().records
}

/// A key by which a debt is due at another time than its own: an issue, and no work.
#[test]
fn a_due_key_is_the_debts_or_goes() {
	let (world, id) = owed();
	let (_, record) = due_keys(&world).remove(0);
	let stale = |id: &DebtId| key("pay_due", [&1_u64.to_be_bytes()[..], id.as_bytes()].concat());
	let unknown = DebtId::from_bytes([9; 32]);
	let mut batch = Batch::new();
	batch.put(stale(&id), record.value.clone());
	batch.put(stale(&unknown), record.value.clone());
	world.store.commit(batch).wait().unwrap();
	let issues = world.payouts.audit().unwrap();
	assert_eq!(issues.len(), 2, "{issues:?}");
	assert!(issues[0].what.contains("due at a time"), "{issues:?}");
	world.unfreeze();
	// Neither fills a look for one debt.
	world.clock.advance(HOUR);
	let reminded = world.debt(&id).reminders;
	let ticked = world.payouts.tick(&world.node, 1).unwrap();
	assert_eq!((ticked.looked_at, world.debt(&id).reminders), (1, reminded + 1));
	assert_eq!(due_keys(&world).len(), 1);
	assert!(world.payouts.audit().unwrap().is_empty());
	// A debt that is never looked at again.
	let mut batch = Batch::new();
	batch.delete(due_keys(&world).remove(0).0);
	world.store.commit(batch).wait().unwrap();
	let issues = world.payouts.audit().unwrap();
	assert!(issues.len() == 1 && issues[0].what.contains("not looked at again"), "{issues:?}");
}

/// A damaged record beside a debt is one issue among others. What the node says of a debt that is damaged is
/// an error of its own, and not lost.
#[test]
fn damage_is_an_issue_and_hides_no_other() {
	let (world, id) = owed();
	for n in 2..=4 {
		world.owe(&bond(n));
	}
	let budget = Source::Budget { id: [1; 32], amount_sat: 1_000 };
	world.owe(&NewDebt { source: budget, ..bond(5) });
	world.settle();
	world.node.then([How::Hold; 3]);
	for n in 1..=3 {
		world.submit(&bond(n).id, &world.good(n.into())).unwrap();
	}
	world.pass(MINUTE);
	let second = bond(2).id;
	let attempt = [second.as_bytes().as_slice(), &1_u64.to_be_bytes()].concat();
	damage(&world, &key("pay_hashes", hash(1)));
	damage(&world, &key("pay_attempts", attempt));
	damage(&world, &key("pay_debts", *bond(3).id.as_bytes()));
	damage(&world, &key("pay_sources", [&[2][..], &[1; 32]].concat()));
	let issues = world.payouts.audit().unwrap();
	let of = |id: Option<DebtId>| issues.iter().filter(|issue| issue.debt == id).count();
	assert_eq!(
		[of(Some(id)), of(Some(second)), of(Some(bond(3).id)), of(None)],
		[1, 1, 1, 1],
		"{issues:?}"
	);
	assert_eq!(issues.len(), 4, "{issues:?}");
	world.unfreeze();
	for n in [2, 3] {
		let id = bond(n).id;
		let outcome =
			world.payouts.record_outcome(&hash(n.into()), Some(&id.attempt(1)), &settled(n.into()));
		let Err(error @ PayoutError::Damaged { debt, .. }) = outcome else { panic!("{n}") };
		assert_eq!(debt, id);
		world.payouts.freeze(&error.to_string()).unwrap().run(&*world.store).unwrap();
		assert!(world.why().contains(&id.to_string()), "{}", world.why());
	}
}

/// A store in which something else is committed before the attempts of a debt are read.
struct Meanwhile {
	inner: Arc<dyn Store>,
	change: Mutex<Option<Plan<()>>>,
	table: &'static str,
}

impl Store for Meanwhile {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.inner.get(key)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		if range.table().name() == self.table {
			if let Some(change) = self.change.lock().unwrap().take() {
				change.run(&*self.inner).unwrap();
			}
		}
		self.inner.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		self.inner.observe(observer)
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		self.inner.block(wait);
	}
}

/// What changes while the audit reads is no issue.
#[test]
fn the_audit_does_not_mix_what_was_with_what_is() {
	let (world, id) = owed();
	world.node.then([How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE);
	let plan = world.payouts.record_outcome(&hash(1), Some(&id.attempt(1)), &settled(1));
	let audited = |table, change: Plan<()>| {
		let inner = Arc::clone(&world.store);
		let store = Meanwhile { inner, change: Mutex::new(Some(change)), table };
		let store: Arc<dyn Store> = Arc::new(store);
		open(&store, &world.clock).audit().unwrap()
	};
	assert_eq!(audited("pay_attempts", plan.unwrap().unwrap()), []);
	assert_eq!(world.state(&id), State::Paid);
	// A debt of a source is added while its debts are summed up.
	let source = Source::Budget { id: [1; 32], amount_sat: 2_000 };
	world.owe(&NewDebt { source, ..bond(2) });
	let plan = world.payouts.add_debt(&NewDebt { source, ..bond(3) }).unwrap().map(|_| ());
	assert_eq!(audited("pay_shares", plan), []);
	assert!(world.payouts.frozen().unwrap().is_none());
}

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
	let payer = Lists { node: world.node.clone(), debt: second, payment_hash: hash(1) };
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

/// A node that lists an attempt of a debt that it does not have.
struct Lists {
	node: FakeNode,
	debt: DebtId,
	payment_hash: [u8; 32],
}

impl Payer for Lists {
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<SettleReply> {
		self.node.settle_held(payment_hash)
	}

	fn pay(&self, order: &PayOrder) -> Reply<PayReply> {
		self.node.pay(order)
	}

	fn lookup(&self, order: &PayOrder) -> Reply<AttemptStatus> {
		self.node.lookup(order)
	}

	fn list_attempts(&self, debt: &DebtId) -> Reply<KnownPayments> {
		if *debt != self.debt {
			return self.node.list_attempts(debt);
		}
		let known = KnownPayment { number: 1, payment_hash: self.payment_hash, may_pay: true };
		let memory = NodeMemory::Forever;
		Reply::ready(KnownPayments::Listed { payments: vec![known], memory })
	}
}

/// What is kept in memory of debts that are closed.
#[test]
fn closed_debts_are_forgotten() {
	let (world, id) = owed();
	for n in 2..=20 {
		world.owe(&bond(n));
	}
	world.settle();
	let remembered = || format!("{:?}", world.payouts);
	assert!(remembered().contains("remembered: 20"), "{}", remembered());
	for n in 1..=20 {
		world.payouts.vouch(&bond(n).id).unwrap();
		world.submit(&bond(n).id, &world.good(n.into())).unwrap();
	}
	world.pass(2 * MINUTE);
	assert_eq!(world.state(&id), State::Paid);
	assert!(remembered().contains("remembered: 0"), "{}", remembered());
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

/// An old copy hears that the node has paid an invoice that it does not know.
#[test]
fn an_old_copy_finds_a_payment_by_its_name() {
	for trusts in [false, true] {
		let mut world = World::trusting();
		let id = world.bond().id;
		for n in 1..=30 {
			world.owe(&bond(n));
		}
		world.settle();
		let yesterday = world.medium.snapshot();
		world.node.then([How::Hold]);
		world.submit(&id, &world.good(1)).unwrap();
		world.settle();
		world.medium = yesterday;
		world.trusts = trusts;
		world.restart();
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
	world.medium = yesterday;
	world.trusts = false;
	world.restart();
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
	let mut world = World::trusting();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.settle();
	let yesterday = world.medium.snapshot();
	world.node.then([How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.settle();
	world.medium = yesterday;
	world.trusts = false;
	world.restart();
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

/// An invoice that outlives every debt is refused.
#[test]
fn an_invoice_has_an_end() {
	let (world, id) = owed();
	let long = |days: u32| Like { lives: days * DAY, ..Like::good(1, 500, world.now()) }.text();
	let refused = world.submit(&id, &long(91));
	let Err(PayoutError::Invoice(error)) = refused else { panic!("{refused:?}") };
	assert_eq!(error, InvoiceError::Outlives { longest: 90 * DAY });
	assert!(error.to_string().contains("90 days"), "{error}");
	world.submit(&id, &long(90)).unwrap();
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
