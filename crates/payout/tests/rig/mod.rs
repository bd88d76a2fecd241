//! A node that pays as it is told to, payees with invoices, and debts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use leyden_payout::*;
use leyden_store::{
	Batch, Clock, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, RecordType, Store,
	Table, Timestamp, Value,
};
use lightning_invoice::{InvoiceBuilder, PaymentSecret};

pub const START: Timestamp = Timestamp(1_700_000_000_000);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const SELLER: &[u8] = b"seller";
pub const NOTICES: Table = Table::new("notices");

/// How a node answers when it is told to pay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
	/// Accepts, and settles at once.
	Settle,
	/// Accepts, and holds it until [`FakeNode::release`].
	Hold,
	/// Accepts, and fails.
	Fail,
	/// Says that it cannot.
	Not(FailureReason),
	/// Does as if it was accepted and settles, and the answer is lost.
	SettleSilently,
	/// Nothing has reached it, and there is no answer.
	Lost,
	/// Accepts, holds, and the answer is lost.
	HoldSilently,
}

#[derive(Clone, Debug)]
struct Payment {
	debt: DebtId,
	number: u32,
	hash: [u8; 32],
	/// Its place among all payments of the node.
	index: u64,
	state: Held2,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held2 {
	InFlight,
	Settled,
	Failed,
}

/// A node. It outlives the process that tells it what to do.
#[derive(Clone, Default)]
pub struct FakeNode(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
	script: VecDeque<How>,
	payments: BTreeMap<[u8; 32], Payment>,
	/// Payments that it has forgotten. The money has gone out all the same.
	forgotten: Vec<Payment>,
	/// How often it was told to pay.
	told: u32,
	/// The amounts that it was told to pay.
	amounts: Vec<u64>,
	lookups: u32,
	/// Nothing is answered.
	down: bool,
	/// It does not know whether it would know.
	forgetful: bool,
	/// For how long it remembers, if not for ever.
	remembers: Option<NodeMemory>,
	/// The tokens that it was asked for.
	tokens: u32,
	settled_held: Vec<[u8; 32]>,
	/// Answers to `settle_held`, `AlreadySettled` and so on.
	held: VecDeque<SettleReply>,
	/// It knows payments by hash only.
	by_hash: bool,
	/// What it asks for routing.
	fee_msat: u64,
	/// A preimage of something else.
	lies: bool,
	/// What is answered later, and when.
	slow: Option<Duration>,
	waiting: Vec<(Timestamp, Completer<PayReply>, PayReply)>,
	now: Timestamp,
}

impl FakeNode {
	pub fn then(&self, how: impl IntoIterator<Item = How>) {
		self.0.lock().unwrap().script.extend(how);
	}

	/// What it has to say by itself of each payment that is over: debt, attempt, hash, and how it ended.
	pub fn outcomes(&self) -> Vec<(DebtId, AttemptId, [u8; 32], AttemptStatus)> {
		let inside = self.0.lock().unwrap();
		let outcome = |payment: &Payment| {
			let status = match payment.state {
				Held2::InFlight => return None,
				Held2::Failed => AttemptStatus::Failed(FailureReason::Other),
				Held2::Settled => {
					let preimage = preimage_of(&payment.hash);
					AttemptStatus::Settled { preimage, fee_msat: Some(0) }
				},
			};
			Some((payment.debt, payment.debt.attempt(payment.number), payment.hash, status))
		};
		inside.payments.values().filter_map(outcome).collect()
	}

	/// What it would say by itself of a payment with this hash: it has heard how it ended.
	pub fn heard(&self, debt: &DebtId, number: u32, hash: &[u8; 32]) -> Option<AttemptStatus> {
		let inside = self.0.lock().unwrap();
		let payment = inside.payments.get(debt.attempt(number).as_bytes())?;
		match (payment.hash == *hash, payment.state) {
			(true, Held2::Settled) => {
				Some(AttemptStatus::Settled { preimage: preimage_of(hash), fee_msat: Some(0) })
			},
			(true, Held2::Failed) => Some(AttemptStatus::Failed(FailureReason::Other)),
			_ => None,
		}
	}

	pub fn clear(&self) {
		self.0.lock().unwrap().script.clear();
	}

	pub fn told(&self) -> u32 {
		self.0.lock().unwrap().told
	}

	pub fn amounts(&self) -> Vec<u64> {
		self.0.lock().unwrap().amounts.clone()
	}

	pub fn lookups(&self) -> u32 {
		self.0.lock().unwrap().lookups
	}

	pub fn set_down(&self, down: bool) {
		self.0.lock().unwrap().down = down;
	}

	pub fn set_forgetful(&self, forgetful: bool) {
		self.0.lock().unwrap().forgetful = forgetful;
	}

	pub fn set_memory(&self, memory: NodeMemory) {
		self.0.lock().unwrap().remembers = Some(memory);
	}

	/// It forgets every payment that is over.
	pub fn forget(&self) {
		let mut inside = self.0.lock().unwrap();
		let payments = std::mem::take(&mut inside.payments);
		for (name, payment) in payments {
			match payment.state {
				Held2::InFlight => drop(inside.payments.insert(name, payment)),
				_ => inside.forgotten.push(payment),
			}
		}
	}

	pub fn set_by_hash(&self, by_hash: bool) {
		self.0.lock().unwrap().by_hash = by_hash;
	}

	pub fn set_fee(&self, fee_msat: u64) {
		self.0.lock().unwrap().fee_msat = fee_msat;
	}

	pub fn set_lies(&self, lies: bool) {
		self.0.lock().unwrap().lies = lies;
	}

	pub fn set_slow(&self, slow: Duration) {
		self.0.lock().unwrap().slow = Some(slow);
	}

	pub fn held(&self, answers: impl IntoIterator<Item = SettleReply>) {
		self.0.lock().unwrap().held.extend(answers);
	}

	pub fn taken(&self) -> Vec<[u8; 32]> {
		self.0.lock().unwrap().settled_held.clone()
	}

	/// A payment that has failed, as the node said, has paid after all.
	pub fn revive(&self, debt: &DebtId) -> Option<(AttemptId, [u8; 32], AttemptStatus)> {
		let mut inside = self.0.lock().unwrap();
		let is_it = |p: &&mut Payment| p.debt == *debt && p.state == Held2::Failed && p.number > 0;
		let payment = inside.payments.values_mut().find(is_it)?;
		payment.state = Held2::Settled;
		let settled =
			AttemptStatus::Settled { preimage: preimage_of(&payment.hash), fee_msat: Some(0) };
		Some((debt.attempt(payment.number), payment.hash, settled))
	}

	/// An operator pays an invoice by hand, under a name that is no attempt's.
	pub fn pay_by_hand(&self, debt: &DebtId, hash: [u8; 32]) {
		let mut inside = self.0.lock().unwrap();
		let (index, state) = (inside.newest() + 1, Held2::Settled);
		let payment = Payment { debt: *debt, number: 0, hash, index, state };
		inside.payments.insert(foreign(&hash), payment);
	}

	/// What it holds is settled, or fails.
	pub fn release(&self, settled: bool) {
		for payment in self.0.lock().unwrap().payments.values_mut() {
			if payment.state == Held2::InFlight {
				payment.state = if settled { Held2::Settled } else { Held2::Failed };
			}
		}
	}

	/// Time passes for what is answered later.
	pub fn pass(&self, now: Timestamp) {
		let mut inside = self.0.lock().unwrap();
		inside.now = now;
		let waiting = std::mem::take(&mut inside.waiting);
		for (at, promise, sent) in waiting {
			match at <= now {
				true => promise.complete(sent),
				false => inside.waiting.push((at, promise, sent)),
			}
		}
	}

	/// The preimages that a payee has, who was paid.
	pub fn shown(&self, debt: &DebtId) -> Vec<[u8; 32]> {
		let inside = self.0.lock().unwrap();
		let is_it = |p: &&Payment| p.debt == *debt && p.state == Held2::Settled;
		let paid = inside.payments.values().chain(&inside.forgotten).filter(is_it);
		paid.map(|payment| preimage_of(&payment.hash)).collect()
	}

	/// How often the money of a debt has really gone out.
	pub fn paid(&self, debt: &DebtId) -> usize {
		let inside = self.0.lock().unwrap();
		let is_it = |p: &&Payment| p.debt == *debt && p.state == Held2::Settled;
		inside.payments.values().chain(&inside.forgotten).filter(is_it).count()
	}

	/// Payments of a debt that are out or under way.
	pub fn out(&self, debt: &DebtId) -> usize {
		let inside = self.0.lock().unwrap();
		let is_it = |p: &&Payment| p.debt == *debt && p.state != Held2::Failed;
		inside.payments.values().chain(&inside.forgotten).filter(is_it).count()
	}
}

impl Inside {
	/// The index of the newest payment.
	fn newest(&self) -> u64 {
		let all = self.payments.values().chain(&self.forgotten);
		all.map(|payment| payment.index).max().unwrap_or_default()
	}

	fn memory(&self) -> NodeMemory {
		match self.forgetful {
			true => NodeMemory::Unknown,
			false => self.remembers.unwrap_or(NodeMemory::Forever),
		}
	}
}

impl Payer for FakeNode {
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<SettleReply> {
		let mut inside = self.0.lock().unwrap();
		if inside.down {
			return Reply::never();
		}
		let answer = inside.held.pop_front().unwrap_or(SettleReply::Settled);
		if answer != SettleReply::NotYet {
			inside.settled_held.push(*payment_hash);
		}
		Reply::ready(answer)
	}

	fn prepare(&self, _: &PayOrder) -> Reply<NodeToken> {
		let mut inside = self.0.lock().unwrap();
		inside.tokens += 1;
		match (inside.down, inside.by_hash) {
			(true, _) => Reply::never(),
			(false, false) => Reply::ready(NodeToken::default()),
			(false, true) => Reply::ready(NodeToken::new(inside.newest().to_be_bytes()).unwrap()),
		}
	}

	fn pay(&self, order: &PayOrder) -> Reply<PayReply> {
		let mut inside = self.0.lock().unwrap();
		if inside.down {
			return Reply::never();
		}
		inside.told += 1;
		inside.amounts.push(order.amount_msat);
		if inside.payments.contains_key(order.attempt.as_bytes()) {
			return Reply::ready(PayReply::Accepted);
		}
		let how = inside.script.pop_front().unwrap_or(How::Settle);
		let state = match how {
			How::Settle | How::SettleSilently => Held2::Settled,
			How::Hold | How::HoldSilently => Held2::InFlight,
			How::Fail => Held2::Failed,
			How::Not(why) => return Reply::ready(PayReply::NotSent(why)),
			How::Lost => return Reply::never(),
		};
		let index = inside.newest() + 1;
		let payment = Payment {
			debt: order.debt,
			number: order.number,
			hash: order.payment_hash,
			index,
			state,
		};
		inside.payments.insert(*order.attempt.as_bytes(), payment);
		if matches!(how, How::SettleSilently | How::HoldSilently) {
			return Reply::never();
		}
		if let Some(slow) = inside.slow {
			let (promise, reply) = Reply::pair();
			let at = inside.now.after(slow);
			inside.waiting.push((at, promise, PayReply::Accepted));
			return reply;
		}
		Reply::ready(PayReply::Accepted)
	}

	fn lookup(&self, order: &PayOrder) -> Reply<AttemptStatus> {
		let mut inside = self.0.lock().unwrap();
		inside.lookups += 1;
		if inside.down {
			return Reply::never();
		}
		let by_hash = inside.by_hash;
		let found = match by_hash {
			false => inside.payments.get(order.attempt.as_bytes()),
			// A payment with a higher index than the token says is of this attempt or of a later one.
			true => {
				let after = order.token.as_bytes().try_into().map_or(0, u64::from_be_bytes);
				let is_it = |p: &&Payment| p.hash == order.payment_hash && p.index > after;
				inside.payments.values().filter(is_it).max_by_key(|p| p.index)
			},
		};
		let memory = inside.memory();
		let lies = inside.lies;
		Reply::ready(match found.map(|payment| payment.state) {
			None => AttemptStatus::NoRecord(memory),
			Some(Held2::InFlight) => AttemptStatus::InFlight,
			Some(Held2::Failed) => AttemptStatus::Failed(FailureReason::Other),
			Some(Held2::Settled) => {
				let preimage = preimage_of(&order.payment_hash);
				let preimage = if lies { [9; 32] } else { preimage };
				AttemptStatus::Settled { preimage, fee_msat: Some(inside.fee_msat) }
			},
		})
	}

	fn list_attempts(&self, debt: &DebtId) -> Reply<KnownPayments> {
		let inside = self.0.lock().unwrap();
		if inside.down {
			return Reply::never();
		}
		if inside.by_hash {
			return Reply::ready(KnownPayments::ByHashOnly);
		}
		// One that was made by hand has no attempt's name.
		let is_its = |payment: &&Payment| payment.debt == *debt && payment.number > 0;
		let mine = inside.payments.values().filter(is_its);
		let known = |payment: &Payment| KnownPayment {
			number: payment.number,
			payment_hash: payment.hash,
			may_pay: payment.state != Held2::Failed,
		};
		let mut made: Vec<_> = mine.map(known).collect();
		made.sort_unstable_by_key(|known| known.number);
		Reply::ready(KnownPayments::Listed { payments: made, memory: inside.memory() })
	}
}

/// The name of a payment that was made by hand.
pub fn foreign(hash: &[u8; 32]) -> [u8; 32] {
	hash.map(|byte| !byte)
}

/// Preimages are small numbers, so that they are found again.
pub fn preimage(number: u16) -> [u8; 32] {
	let mut preimage = [7; 32];
	preimage[..2].copy_from_slice(&number.to_be_bytes());
	preimage
}

fn preimage_of(hash: &[u8; 32]) -> [u8; 32] {
	(0..5_000)
		.map(preimage)
		.find(|preimage| sha256::Hash::hash(preimage).to_byte_array() == *hash)
		.expect("an invoice of this rig")
}

/// What an invoice is like.
#[derive(Clone)]
pub struct Like {
	pub number: u16,
	pub amount_msat: Option<u64>,
	pub network: Currency,
	pub made_at: Timestamp,
	pub lives: Duration,
	pub final_cltv: u64,
}

impl Like {
	pub fn good(number: u16, amount_sat: u64, now: Timestamp) -> Self {
		Self {
			number,
			amount_msat: Some(amount_sat * 1000),
			network: Currency::Regtest,
			made_at: now,
			lives: 30 * DAY,
			final_cltv: 144,
		}
	}

	pub fn text(&self) -> String {
		let hash = sha256::Hash::hash(&preimage(self.number));
		let key = SecretKey::from_slice(&[5; 32]).unwrap();
		let mut builder = InvoiceBuilder::new(self.network.clone())
			.description("share".to_owned())
			.payment_hash(lightning_invoice::PaymentHash(hash.to_byte_array()))
			.payment_secret(PaymentSecret([3; 32]))
			.duration_since_epoch(Duration::from_millis(self.made_at.0))
			.expiry_time(self.lives)
			.min_final_cltv_expiry_delta(self.final_cltv);
		if let Some(amount) = self.amount_msat {
			builder = builder.amount_milli_satoshis(amount);
		}
		let sign = |hash: &_| Secp256k1::new().sign_ecdsa_recoverable(hash, &key);
		builder.build_signed(sign).unwrap().to_string()
	}
}

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

	/// With a store that is taken for the newest copy of itself.
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

	/// What was told: kind and number.
	pub fn told(&self) -> Vec<String> {
		let range = leyden_store::KeyRange::all(NOTICES);
		let page = self.store.scan(range, 10_000).wait().unwrap();
		let text = |(_, record): (Key, leyden_store::Record)| {
			String::from_utf8(record.value.body.to_vec()).unwrap()
		};
		page.records.into_iter().map(text).collect()
	}

	/// Everything that was told has arrived.
	pub fn arrived(&self, id: &DebtId) {
		while self.debt(id).reminders_delivered < self.debt(id).reminders {
			self.payouts.reminder_delivered(id).unwrap().run(&*self.store).unwrap();
		}
	}
}

pub fn bond(number: u8) -> NewDebt {
	NewDebt {
		id: DebtId::new("bond", &[number]),
		payee: SELLER.to_vec(),
		cause: "lost-dispute".to_owned(),
		amount_sat: 1000,
		node_share_sat: 500,
		source: Source::InHand,
		terms: terms(),
	}
}

pub fn terms() -> Terms {
	Terms {
		invoice_window: 15 * DAY,
		reminder_interval: 300 * Duration::from_secs(1),
		max_failed_attempts: 3,
		fee_cap_msat: 10_000,
	}
}

pub fn options() -> PayoutOptions {
	PayoutOptions {
		notices: Some(Arc::new(|notice: &Notice| {
			let text = format!("{:?} to {}", notice.news, String::from_utf8_lossy(&notice.payee));
			let mut batch = Batch::new();
			let _ = batch.append(NOTICES, b"", Value::new(RecordType(0x8000), 1, text));
			Plan::of(batch)
		})),
		..PayoutOptions::new(InvoiceRules::on(Currency::Regtest))
	}
}

pub fn open(store: &Arc<dyn Store>, clock: &Arc<ManualClock>) -> Payouts {
	let clock = Arc::<ManualClock>::clone(clock);
	Payouts::open(Arc::clone(store), clock, options()).unwrap()
}
