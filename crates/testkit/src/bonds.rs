//! An exchange that holds bonds, takes them, and owes a share to the winner of a dispute: three real LDK
//! nodes.
//!
//! A maker pays a hold invoice of the exchange: the bond. The exchange takes the bond when the maker loses a
//! dispute, and owes a part to the winner, who gives an invoice when the exchange asks for one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use leyden_ldk::{HeldPayment, HtlcResolutions, Journal, LdkPayer, ProcessingRounds};
use leyden_log::Consumer;
use leyden_payout::{
	AttemptStatus, Currency, Debt, DebtId, InvoiceRules, NewDebt, News, Notice, PayOrder, PayReply,
	Payer, PayoutError, PayoutOptions, Payouts, Reply, SettleReply, Source, State, Submitted,
	Terms, TickSummary,
};
use leyden_store::{
	Batch, Clock, Key, KeyRange, ManualClock, MemoryMedium, Plan, RecordType, Store, StoreError,
	Table, Timestamp, Value,
};
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channelmanager::{
	Bolt11InvoiceParameters, OptionalBolt11PaymentParams, PaymentId,
};
use lightning::ln::outbound_payment::Retry;
use lightning::types::payment::{PaymentHash, PaymentPreimage};

use crate::faulty_store::{Doom, LossyMedium};
use crate::guard::NodeHandle;
use crate::leyden_guard::User;
use crate::lives::{lives, mortal_disk, Slot};
use crate::parts::NetManager;
use crate::{Idx, LdkNet, NodeConfig};

/// The amount of a bond, in satoshi.
pub const BOND_SAT: u64 = 1_000;
/// The most that routing may cost, in millisatoshi.
pub const FEE_CAP_MSAT: u64 = 10_000;
/// The name of the winner.
pub const WINNER: &[u8] = b"winner";

const CLAIMED: &[u8] = b"claimed";
const BONDS: Table = Table::new("bonds");
const NOTICES: Table = Table::new("notices");
const START: Timestamp = Timestamp(1_700_000_000_000);
/// Blocks after the claim deadline of a bond until it is given up: a claim that LDK was given before the
/// deadline is told of by then.
const LATE_BLOCKS: u32 = 6;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One life of the exchange.
pub struct Exchange {
	store: Arc<dyn Store>,
	payouts: Payouts,
	node: OnceLock<NodeHandle>,
	payer: OnceLock<BondPayer>,
	/// The rounds in which every event was handled.
	rounds: ProcessingRounds,
	journal: OnceLock<Arc<Journal>>,
	consumer: OnceLock<Consumer>,
	/// The exchange cannot reach its node.
	down: AtomicBool,
}

/// A node that does not answer.
#[derive(Clone, Copy, Debug)]
pub struct Down;

impl Payer for Down {
	fn settle_held(&self, _: &[u8; 32]) -> Reply<SettleReply> {
		Reply::never()
	}

	fn pay(&self, _: &PayOrder) -> Reply<PayReply> {
		Reply::never()
	}

	fn lookup(&self, _: &PayOrder) -> Reply<AttemptStatus> {
		Reply::never()
	}
}

type Knows = Box<dyn Fn(&[u8; 32]) -> HeldPayment + Send + Sync>;
type BondPayer = LdkPayer<Arc<NetManager>, Knows>;

impl Exchange {
	fn new(
		store: Arc<dyn Store>, clock: Arc<dyn Clock>, trusts: &AtomicBool,
	) -> Result<Self, PayoutError> {
		// LDK dates invoices by the clock of the machine, which is years ahead of that of this world.
		let longest_life = 3_650 * DAY;
		let invoices = InvoiceRules { longest_life, ..InvoiceRules::on(Currency::Regtest) };
		let options = PayoutOptions {
			notices: Some(Arc::new(|notice: &Notice| {
				let text = match notice.news {
					News::InvoiceWanted { .. } => "wanted",
					News::Paid { .. } => "paid",
					News::Failed => "failed",
					News::Forfeited => "forfeited",
					_ => "else",
				};
				let mut batch = Batch::new();
				let _ = batch.append(NOTICES, b"", Value::new(RecordType(0x8000), 1, text));
				Plan::of(batch)
			})),
			trust_store_without_witness: trusts.load(Ordering::SeqCst),
			..PayoutOptions::new(invoices)
		};
		let payouts = Payouts::open(Arc::clone(&store), clock, options)?;
		let rounds = ProcessingRounds::new();
		let (node, payer) = (OnceLock::new(), OnceLock::new());
		let down = AtomicBool::new(false);
		let (journal, consumer) = (OnceLock::new(), OnceLock::new());
		Ok(Self { store, payouts, node, payer, rounds, journal, consumer, down })
	}

	/// Returns the debts.
	pub fn payouts(&self) -> &Payouts {
		&self.payouts
	}

	/// Returns the rounds in which every event was handled.
	pub fn rounds(&self) -> &ProcessingRounds {
		&self.rounds
	}

	/// Returns the store.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.store
	}

	/// Takes the connection to the node away, or gives it back.
	pub fn set_down(&self, down: bool) {
		self.down.store(down, Ordering::SeqCst);
	}

	/// Returns what the payee was to be told.
	pub fn told(&self) -> Vec<String> {
		let page = self.store.scan(KeyRange::all(NOTICES), 10_000).wait().expect("the store");
		let text =
			|record: leyden_store::Record| String::from_utf8_lossy(&record.value.body).into();
		page.records.into_iter().map(|(_, record)| text(record)).collect()
	}

	/// Looks after the debts, when LDK's events were processed.
	fn tick(&self) -> Result<TickSummary, PayoutError> {
		if let (Some(journal), Some(consumer)) = (self.journal.get(), self.consumer.get()) {
			// A log that cannot be read counts no round.
			let _ = self.rounds.end_round(journal, consumer);
		}
		match self.payer.get() {
			_ if self.down.load(Ordering::SeqCst) => self.payouts.tick(&Down, 100),
			Some(payer) => self.payouts.tick(payer, 100),
			None => Ok(TickSummary::default()),
		}
	}
}

/// The preimage of a bond; there is one.
fn preimage() -> PaymentPreimage {
	PaymentPreimage([8; 32])
}

fn hash_of(preimage: &PaymentPreimage) -> PaymentHash {
	PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array())
}

fn bond_plan(hash: &PaymentHash, state: impl Into<Vec<u8>>) -> Plan<()> {
	let mut batch = Batch::new();
	batch.put(Key::new(BONDS, hash.0), Value::new(RecordType(0x8000), 1, state));
	Plan::of(batch)
}

/// What the exchange knows of a bond at this height. A bond that is held is a record of its claim deadline.
fn held(store: &dyn Store, hash: &[u8; 32], height: u32) -> HeldPayment {
	let found = store.get(&Key::new(BONDS, *hash)).wait().ok().flatten();
	let Some(record) = found else { return HeldPayment::Unknown };
	let body = &*record.value.body;
	if body == CLAIMED {
		return HeldPayment::Claimed;
	}
	let claim_deadline = body.try_into().ok().map(u32::from_be_bytes);
	// LDK fails the payment back at its deadline, unless the claim was made before.
	match claim_deadline.is_some_and(|deadline| height >= deadline + LATE_BLOCKS) {
		true => HeldPayment::Gone,
		false => HeldPayment::Holding { preimage: preimage(), claim_deadline },
	}
}

impl User for Exchange {
	fn consumes(&self, consumer: &Consumer) {
		let _ = self.consumer.set(consumer.clone());
	}

	fn journals(&self, journal: &Arc<Journal>) {
		let _ = self.journal.set(Arc::clone(journal));
	}

	fn started(&self, node: &NodeHandle, resolutions: &HtlcResolutions) {
		let _ = self.node.set(node.clone());
		let Some(manager) = node.manager() else { return };
		let (rounds, store) = (self.rounds.clone(), Arc::clone(&self.store));
		let chain = Arc::clone(&manager);
		let height = move || chain.current_best_block().height;
		let held: Knows = Box::new(move |hash| held(&*store, hash, height()));
		let payer = LdkPayer::new(manager, rounds).with_claims(resolutions.clone(), held);
		let _ = self.payer.set(payer);
	}

	fn handle(&self, event: &Event) -> Result<Plan<()>, ReplayEvent> {
		type AnyPayer = LdkPayer<(), ()>;
		let nothing = || Plan::of(Batch::new());
		match event {
			Event::PaymentClaimable { payment_hash, claim_deadline, .. } => {
				match held(&*self.store, &payment_hash.0, 0) {
					HeldPayment::Claimed => Ok(nothing()),
					_ => {
						let deadline = claim_deadline.unwrap_or(u32::MAX - LATE_BLOCKS);
						Ok(bond_plan(payment_hash, deadline.to_be_bytes()))
					},
				}
			},
			Event::PaymentClaimed { payment_hash, .. } => Ok(bond_plan(payment_hash, CLAIMED)),
			event => {
				let Some((hash, attempt, outcome)) = AnyPayer::outcome(event) else {
					return Ok(nothing());
				};
				let recorded = self.payouts.record_outcome(&hash, attempt.as_ref(), &outcome);
				match recorded {
					Ok(plan) => Ok(plan.unwrap_or_else(nothing)),
					// What cannot be written down of it is what an operator looks at.
					Err(error @ PayoutError::Damaged { .. }) => {
						self.payouts.freeze(&error.to_string()).map_err(|_| ReplayEvent())
					},
					Err(_) => Err(ReplayEvent()),
				}
			},
		}
	}
}

/// The exchange, a maker and a winner.
pub struct BondWorld {
	/// The nodes.
	pub net: LdkNet,
	/// The node that has paid the bond.
	pub maker: Idx,
	/// The node that holds the bond.
	pub exchange: Idx,
	/// The node that is owed a part.
	pub winner: Idx,
	/// The clock of all.
	pub clock: Arc<ManualClock>,
	doom: Arc<Doom>,
	slot: Slot<Exchange>,
	/// The exchange's database. The state of LDK itself is elsewhere.
	media: Arc<LossyMedium>,
	trusts_store: Arc<AtomicBool>,
	/// Invoices that the winner has made.
	made: u8,
	/// A flag that the winner lets payments wait.
	pub winner_waits: bool,
}

impl BondWorld {
	/// Makes a world in which all have channels, and the maker has paid a bond, which is held.
	pub fn new(doom: Arc<Doom>) -> Self {
		doom.disarm();
		let clock = Arc::new(ManualClock::new(START));
		let mut net = LdkNet::new(1);
		let maker = net.add_node(NodeConfig::default());
		let (disk, slot) = (mortal_disk(&doom), Slot::default());
		let trusts_store = Arc::new(AtomicBool::new(true));
		let trusts = Arc::clone(&trusts_store);
		let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
		let make = move |store| {
			Exchange::new(store, Arc::clone(&time), &trusts).map_err(|e| e.to_string())
		};
		let media = Arc::new(LossyMedium::keeping_every(1));
		let guards = lives(&doom, &disk, &clock, &slot, &media, make);
		let exchange = net.add_node_on(NodeConfig::default().deferred(), disk, guards);
		let winner = net.add_node(NodeConfig::default());
		for (a, b) in [(maker, exchange), (exchange, winner)] {
			net.connect(a, b);
			// Both sides have more than the reserve, so that what they can spend is what they have.
			net.open_channel_pushing(a, b, 1_000_000, 100_000_000);
		}
		net.persist_manager(exchange);
		let mut world = Self {
			net,
			maker,
			exchange,
			winner,
			clock,
			doom,
			slot,
			media,
			trusts_store,
			made: 0,
			winner_waits: false,
		};
		world.pay_bond();
		world
	}

	fn pay_bond(&mut self) {
		let hash = hash_of(&preimage());
		let invoice =
			self.net.node(self.exchange).manager().create_bolt11_invoice(Bolt11InvoiceParameters {
				amount_msats: Some(BOND_SAT * 1000),
				payment_hash: Some(hash),
				min_final_cltv_expiry_delta: Some(144),
				..Default::default()
			});
		let params = OptionalBolt11PaymentParams {
			retry_strategy: Retry::Attempts(0),
			..Default::default()
		};
		let manager = Arc::clone(self.net.node(self.maker).manager());
		let invoice = invoice.expect("an invoice");
		manager.pay_for_bolt11_invoice(&invoice, PaymentId(hash.0), None, params).expect("a route");
		drop(manager);
		self.net.settle();
		assert_eq!(self.net.told(self.exchange, "PaymentClaimable"), 1);
	}

	/// Returns the debt of the bond, of which the exchange keeps so much.
	pub fn debt(&self, node_share_sat: u64) -> NewDebt {
		NewDebt {
			id: DebtId::new("bond", b"order 1"),
			payee: WINNER.to_vec(),
			cause: "lost-dispute".to_owned(),
			amount_sat: BOND_SAT,
			node_share_sat,
			source: Source::Held { payment_hash: hash_of(&preimage()).0, amount_sat: BOND_SAT },
			terms: Terms {
				invoice_window: 15 * DAY,
				reminder_interval: Duration::from_secs(300),
				max_failed_attempts: 3,
				fee_cap_msat: FEE_CAP_MSAT.min(node_share_sat * 1000),
			},
		}
	}

	/// Decides that the maker has lost.
	///
	/// # Errors
	/// The errors of [`Payouts::add_debt`]; the exchange may have died.
	pub fn slash(&self, new: &NewDebt) -> Result<(), PayoutError> {
		let exchange = self.exchange();
		exchange.payouts.add_debt(new)?.commit(&*exchange.store).wait()?;
		Ok(())
	}

	/// Lets the exchange die from now on, as its [`Doom`] says.
	pub fn arm(&self) {
		self.doom.arm();
	}

	/// Makes an invoice of the winner for so much.
	pub fn invoice(&mut self, msat: u64) -> String {
		self.made += 1;
		let hash = hash_of(&PaymentPreimage([self.made; 32]));
		self.invoice_of(hash, msat)
	}

	/// Makes an invoice whose payment the winner cannot take. Returns the invoice and its hash.
	pub fn foreign_invoice(&mut self, number: u8, msat: u64) -> (String, PaymentHash) {
		let hash = hash_of(&PaymentPreimage([100 + number; 32]));
		(self.invoice_of(hash, msat), hash)
	}

	fn invoice_of(&self, hash: PaymentHash, msat: u64) -> String {
		let invoice =
			self.net.node(self.winner).manager().create_bolt11_invoice(Bolt11InvoiceParameters {
				amount_msats: Some(msat),
				payment_hash: Some(hash),
				invoice_expiry_delta_secs: Some(30 * 24 * 3600),
				..Default::default()
			});
		invoice.expect("an invoice").to_string()
	}

	/// The exchange pays, and keeps no record of it.
	fn pay_by_hand(&mut self, invoice: &str) {
		let invoice: Bolt11Invoice = invoice.parse().expect("an invoice");
		let params = OptionalBolt11PaymentParams {
			retry_strategy: Retry::Attempts(0),
			..Default::default()
		};
		let id = PaymentId(invoice.payment_hash().0);
		let manager = Arc::clone(self.net.node(self.exchange).manager());
		manager.pay_for_bolt11_invoice(&invoice, id, None, params).expect("a route");
		drop(manager);
		self.net.settle();
	}

	/// Gives an invoice in the name of the winner.
	///
	/// # Errors
	/// The errors of [`Payouts::submit_invoice`].
	pub fn submit(&self, id: &DebtId, invoice: &str) -> Result<Submitted, PayoutError> {
		self.exchange().payouts.submit_invoice(id, WINNER, invoice)
	}

	/// Returns the software of the exchange.
	pub fn exchange(&self) -> Arc<Exchange> {
		self.slot.lock().unwrap().clone().expect("it was started")
	}

	/// Returns the debt, as the exchange has it.
	pub fn look(&self, id: &DebtId) -> Debt {
		self.exchange().payouts.debt(id).expect("the store").expect("a debt")
	}

	/// Lets all do what there is to do now.
	pub fn step(&mut self) {
		self.net.settle();
		self.claim_for_winner();
		self.net.revive(self.exchange);
		let ticked = self.exchange().tick();
		if let Err(error) = ticked {
			let died = matches!(error, PayoutError::Store(StoreError::Poisoned { .. }));
			assert!(died, "{error}");
		}
		self.net.revive(self.exchange);
		self.net.settle();
	}

	/// The winner takes what it is paid.
	fn claim_for_winner(&mut self) {
		let made = if self.winner_waits { 0 } else { self.made };
		for number in 1..=made {
			let preimage = PaymentPreimage([number; 32]);
			let hash = hash_of(&preimage);
			let is_held = self.net.ledger(self.winner).iter().any(|told| {
				matches!(&told.event, Event::PaymentClaimable { payment_hash, .. }
					if *payment_hash == hash)
			});
			if is_held {
				self.net.node(self.winner).manager().claim_funds(preimage);
			}
		}
		self.net.settle();
	}

	/// Lets time pass, in steps.
	pub fn pass(&mut self, time: Duration, step: Duration) {
		let mut left = time;
		while !left.is_zero() {
			let step = left.min(step);
			self.clock.advance(step);
			left -= step;
			self.step();
		}
	}

	/// Sets whether the exchange trusts its database to be the newest copy, from its next start on. The
	/// exchange does unless set otherwise.
	pub fn trust_store(&self, trusts: bool) {
		self.trusts_store.store(trusts, Ordering::SeqCst);
	}

	/// Makes a copy of the database of the exchange.
	pub fn copy_store(&self) -> MemoryMedium {
		self.media.live().snapshot()
	}

	/// Ends the exchange, and starts it again with an older copy of its database. LDK's own state stays as
	/// it is.
	pub fn restart_with(&mut self, copy: &MemoryMedium) {
		self.net.disk(self.exchange).kill();
		self.media.put_back(copy);
		self.net.revive(self.exchange);
	}

	/// Ends the exchange, and starts it again.
	pub fn restart(&mut self) {
		self.net.disk(self.exchange).kill();
		self.net.revive(self.exchange);
	}

	/// Delivers the reminders of a debt.
	pub fn arrived(&self, id: &DebtId) {
		let exchange = self.exchange();
		while self.look(id).reminders_delivered < self.look(id).reminders {
			let plan = exchange.payouts.reminder_delivered(id).expect("the store");
			plan.run(&*exchange.store).expect("the store");
		}
	}

	/// Returns what maker, exchange and winner have, in millisatoshi.
	pub fn balances(&self) -> [u64; 3] {
		[self.maker, self.exchange, self.winner].map(|n| {
			let channels = self.net.channels(n);
			channels.iter().map(|channel| channel.outbound_capacity_msat).sum()
		})
	}

	/// Goes on until the debt is over or waits for the winner. Returns its state.
	pub fn run(&mut self, id: &DebtId) -> State {
		for _ in 0..60 {
			self.pass(Duration::from_secs(15), Duration::from_secs(15));
			let state = self.exchange().payouts.debt(id).ok().flatten().map(|debt| debt.state);
			if state.is_some_and(|state| !matches!(state, State::Decided | State::Owed)) {
				break;
			}
		}
		self.look(id).state
	}
}

/// The end of a story.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ending {
	/// The amount that the winner was owed, in millisatoshi.
	pub owed_msat: u64,
	/// The amount that the winner has got, in millisatoshi.
	pub got_msat: u64,
}

/// Tells of a payment to the winner that is under way when the exchange can no longer reach its node; later
/// the winner gives another invoice. Without Leyden the exchange does as Mostro's first version did: an error
/// is a failure, three failures are the end, and a new invoice begins anew.
pub fn connection_lost(with_leyden: bool, step: &mut dyn FnMut(&str)) -> Ending {
	let mut world = BondWorld::new(Doom::never());
	let before = world.balances()[2];
	let new = world.debt(500);
	let share_msat = 500_000;
	world.winner_waits = true;
	let (first, second) = (world.invoice(share_msat), world.invoice(share_msat));
	step("a bond is taken, and half of it is owed; the payment to the winner is under way");
	if with_leyden {
		world.slash(&new).expect("the store");
		world.pass(Duration::from_secs(60), Duration::from_secs(15));
		world.submit(&new.id, &first).expect("a good invoice");
		world.pass(Duration::from_secs(15), Duration::from_secs(15));
		world.exchange().set_down(true);
		step("the exchange loses the connection to its node for an hour");
		world.pass(Duration::from_secs(3600), Duration::from_secs(60));
		step("the winner gives another invoice: it is refused, the first may still be paid");
		assert!(world.submit(&new.id, &second).is_err());
		world.exchange().set_down(false);
	} else {
		world.pay_by_hand(&first);
		step("the exchange loses the connection to its node: every try is an error, and counts");
		let failures = 3;
		step(&format!("after {failures} of them it gives up; the winner gives another invoice"));
		world.pay_by_hand(&second);
	}
	step("the winner takes what has come");
	world.winner_waits = false;
	world.pass(Duration::from_secs(120), Duration::from_secs(15));
	Ending { owed_msat: share_msat, got_msat: world.balances()[2] - before }
}
