//! A store, a node, and the debts in it.

use std::sync::Arc;
use std::time::Duration;

use leyden_payout::*;
use leyden_store::{
	Clock, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Store, Timestamp,
};

use super::*;

/// Looks after debts, in one life.
pub struct World {
	pub medium: MemoryMedium,
	pub clock: Arc<ManualClock>,
	pub store: Arc<dyn Store>,
	pub payouts: Payouts,
	pub node: FakeNode,
	pub trusts: bool,
}

impl World {
	pub fn new() -> Self {
		Self::on(MemoryMedium::new(), Arc::new(ManualClock::new(START)), FakeNode::default())
	}

	pub fn on(medium: MemoryMedium, clock: Arc<ManualClock>, node: FakeNode) -> Self {
		let store: Arc<dyn Store> =
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
		let payouts = open(&store, &clock);
		Self { medium, clock, store, payouts, node, trusts: false }
	}

	/// Makes a world with a store that is taken for the newest copy of itself.
	pub fn trusting() -> Self {
		let mut world = Self::new();
		world.trusts = true;
		world.restart();
		world
	}

	pub fn restart(&mut self) {
		self.store = Arc::new(MemoryStore::open(&self.medium, Namespace::default()).unwrap());
		self.payouts = self.another();
	}

	/// Another worker on the same store.
	pub fn another(&self) -> Payouts {
		let options = PayoutOptions { trust_store_without_witness: self.trusts, ..options() };
		let clock = Arc::<ManualClock>::clone(&self.clock);
		Payouts::open(Arc::clone(&self.store), clock, options).unwrap()
	}

	pub fn now(&self) -> Timestamp {
		self.clock.now()
	}

	/// A bond of 1000 satoshi of which the node keeps half.
	pub fn bond(&self) -> NewDebt {
		bond(1)
	}

	pub fn owe(&self, new: &NewDebt) -> Added {
		self.payouts.add_debt(new).unwrap().commit(&*self.store).wait().unwrap()
	}

	pub fn good(&self, number: u16) -> String {
		Like::good(number, 500, self.now()).text()
	}

	pub fn submit(&self, id: &DebtId, invoice: &str) -> Result<Submitted, PayoutError> {
		self.payouts.submit_invoice(id, SELLER, invoice)
	}

	pub fn tick(&self) -> TickSummary {
		self.payouts.tick(&self.node, 1_000).unwrap()
	}

	/// Time passes, and debts are looked after as it does.
	pub fn pass(&self, time: Duration) {
		let mut left = time;
		while !left.is_zero() {
			let step = Duration::from_secs(5).max(Duration::from_secs(time.as_secs() / 2_000));
			let step = left.min(step);
			self.clock.advance(step);
			self.node.pass(self.now());
			left -= step;
			self.settle();
		}
	}

	/// Looks until there is nothing more to do now.
	pub fn settle(&self) {
		for _ in 0..50 {
			let ticked = self.tick();
			if ticked.calls == 0 && ticked.changes == 0 {
				return;
			}
		}
		panic!("it does not come to rest");
	}

	pub fn debt(&self, id: &DebtId) -> Debt {
		self.payouts.debt(id).unwrap().unwrap()
	}

	pub fn state(&self, id: &DebtId) -> State {
		self.debt(id).state
	}

	/// The reasons why nothing is paid; none if it is.
	pub fn why(&self) -> String {
		self.payouts.frozen().unwrap().map_or(String::new(), |freeze| freeze.to_string())
	}

	/// An operator has looked into all reasons.
	pub fn unfreeze(&self) {
		if let Some(freeze) = self.payouts.frozen().unwrap() {
			self.payouts.unfreeze(&freeze).unwrap();
		}
	}

	/// Returns what was told: kind and number.
	pub fn told(&self) -> Vec<String> {
		let range = leyden_store::KeyRange::all(NOTICES);
		let page = self.store.scan(range, 10_000).wait().unwrap();
		let text = |(_, record): (Key, leyden_store::Record)| {
			String::from_utf8(record.value.body.to_vec()).unwrap()
		};
		page.records.into_iter().map(text).collect()
	}

	/// Delivers everything that was told.
	pub fn arrived(&self, id: &DebtId) {
		while self.debt(id).reminders_delivered < self.debt(id).reminders {
			self.payouts.reminder_delivered(id).unwrap().run(&*self.store).unwrap();
		}
	}

	/// The number of notices of this kind that were given.
	pub fn times_told(&self, kind: &str) -> usize {
		self.told().iter().filter(|told| told.starts_with(kind)).count()
	}

	/// Starts again on another copy of the medium.
	pub fn restore(&mut self, medium: MemoryMedium, trusts: bool) {
		self.medium = medium;
		self.trusts = trusts;
		self.restart();
	}

	/// Truncates a record.
	pub fn damage(&self, key: &Key, length: usize) {
		self.medium.damage(&Namespace::default(), key, |frame| frame.truncate(length));
	}

	/// Commits a change that is made by hand.
	pub fn by_hand(&self, change: impl FnOnce(&mut Batch) -> &mut Batch) {
		let mut batch = Batch::new();
		change(&mut batch);
		self.store.commit(batch).wait().unwrap();
	}
}
