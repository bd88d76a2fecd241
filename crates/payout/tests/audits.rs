//! The issues of an audit: debts and sources that do not add up, keys of no debt, and damage; and changes
//! that are no issue.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::{Arc, Mutex};

use leyden_payout::*;
use leyden_store::group::StoreObserver;
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, Page, Plan, Record, Store, Table, Ticket,
};
use rig::*;

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
	world.by_hand(|batch| batch.put(key("pay_shares", first), record.value.clone()));
	let issues = world.payouts.audit().unwrap();
	assert!(issues.iter().any(|issue| issue.what.contains("it is void")), "{issues:?}");
}

/// A key by which a debt is due at another time than its own: an issue, and no work.
#[test]
fn a_due_key_is_the_debts_or_goes() {
	let (world, id) = owed();
	let (_, record) = due_keys(&world).remove(0);
	let stale = |id: &DebtId| key("pay_due", [&1_u64.to_be_bytes()[..], id.as_bytes()].concat());
	let unknown = DebtId::from_bytes([9; 32]);
	let value = || record.value.clone();
	world.by_hand(|batch| batch.put(stale(&id), value()).put(stale(&unknown), value()));
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
	world.by_hand(|batch| batch.delete(due_keys(&world).remove(0).0));
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
	world.damage(&key("pay_hashes", hash(1)), 9);
	world.damage(&key("pay_attempts", attempt), 9);
	world.damage(&key("pay_debts", *bond(3).id.as_bytes()), 9);
	world.damage(&key("pay_sources", [&[2][..], &[1; 32]].concat()), 9);
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

/// A change while the audit reads is no issue.
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

fn due_keys(world: &World) -> Vec<(Key, Record)> {
	world.store.scan(KeyRange::all(Table::new("pay_due")), 99).wait().unwrap().records
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
