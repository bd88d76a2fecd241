//! One run of one scenario with one wiring, from the first block to the end of everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use leyden_store::{MemoryMedium, MemoryStore, Namespace, Store};
use lightning::chain::channelmonitor::Balance;
use lightning::events::{ClosureReason, Event, PaymentPurpose};
use lightning::ln::types::ChannelId;

use super::actor::{short_hex, Actor, Preimages, Telling};
use super::deaths::{Deaths, DoomedStore, Moment, Schedule};
use super::outcome::{ChannelEnd, Outcome, PaymentEnd};
use super::wirings::{start, Alone, Wire};
use crate::background::Processor;
use crate::disk::{MemKv, NodeDisk};
use crate::guard::GuardFactory;
use crate::net::{Idx, Intent, LdkNet};
use crate::node::NodeConfig;
use crate::panics::catch;

/// The number of lives that a node is given to come to rest.
const LIVES: u32 = 12;
/// The number of blocks after which everything that is not stuck has ended.
const CALM_BLOCKS: u32 = 8;
/// The number of blocks after which what is stuck has expired, and its money is where it will stay.
const EXPIRY_BLOCKS: u32 = 260;

/// The parts of LDK that the node under test is put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
	/// `true` if the chain monitor is deferred.
	pub deferred: bool,
	/// `true` if the chain monitor is made with `ChainMonitor::new_async_beta`.
	pub asynchronous: bool,
	/// The code that handles events, writes the manager, and processes forwards.
	pub processor: Processor,
}

impl Mode {
	/// A chain monitor whose persister answers in the call; events and the manager are handled by
	/// the net.
	pub const CLASSIC: Self =
		Self { deferred: false, asynchronous: false, processor: Processor::Net };
	/// The same with a deferred chain monitor.
	pub const DEFERRED: Self = Self { deferred: true, ..Self::CLASSIC };
	/// LDK's own background processor.
	pub const PROCESSOR: Self = Self { processor: Processor::Polled, ..Self::CLASSIC };
	/// LDK's own background processor and a deferred chain monitor.
	pub const DEFERRED_PROCESSOR: Self = Self { processor: Processor::Polled, ..Self::DEFERRED };
	/// LDK's own background processor and its asynchronous persister.
	pub const ASYNC: Self = Self { asynchronous: true, ..Self::PROCESSOR };
	/// LDK's own background processor and its asynchronous persister, deferred.
	pub const DEFERRED_ASYNC: Self = Self { asynchronous: true, ..Self::DEFERRED_PROCESSOR };

	/// The same with another background processor.
	pub const fn with(self, processor: Processor) -> Self {
		Self { processor, ..self }
	}
}

/// One step of a script.
pub type Step = (&'static str, fn(&mut Stage));

/// A story with one node that may die in it.
#[derive(Clone, Copy)]
pub struct Scenario {
	/// The scenario's name.
	pub name: &'static str,
	/// The parts of LDK that the node under test is put together from.
	pub mode: Mode,
	/// Makes nodes and channels; nothing dies here. Adds the node under test with
	/// [`Stage::victim`].
	pub setup: fn(&mut Stage),
	/// The script. Each step takes the net as it finds it: the node under test may have died in the
	/// step before and be a new process, or die in the middle of this one.
	pub steps: &'static [Step],
}

/// The net in which a scenario plays, and what its steps remember.
pub struct Stage {
	/// The nodes.
	pub net: LdkNet,
	/// The node under test.
	pub victim: Idx,
	/// The channels that the setup has opened, in order.
	pub channels: Vec<ChannelId>,
	/// The SCID by which the payee behind an LSP is paid.
	pub intercept_scid: Option<u64>,
	users: Vec<Arc<Actor>>,
	links: Vec<(Idx, Idx)>,
	intents: Vec<(String, Intent, bool)>,
	preimages: Preimages,
	deaths: Arc<Deaths>,
	wire: Wire,
	mode: Mode,
	panics: Vec<String>,
}

/// The results of a run.
#[derive(Clone, Debug)]
pub struct Run {
	/// The end of everything.
	pub outcome: Outcome,
	/// The moments of the node under test, in order.
	pub seen: Vec<Moment>,
	/// The number of deaths that struck.
	pub struck: usize,
	/// The number of new lives that no death explains: the node stopped by itself, and says that it
	/// must be started again, or LDK panicked.
	pub stops: usize,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, wire: &Wire, schedule: &Schedule) -> Run {
	let deaths = Deaths::new(schedule);
	let mut stage = Stage {
		net: LdkNet::new(1),
		victim: 0,
		channels: Vec::new(),
		intercept_scid: None,
		users: Vec::new(),
		links: Vec::new(),
		intents: Vec::new(),
		preimages: Preimages::default(),
		deaths: Arc::clone(&deaths),
		wire: Arc::clone(wire),
		mode: scenario.mode,
		panics: Vec::new(),
	};
	(scenario.setup)(&mut stage);
	assert!(stage.net.persist_manager(stage.victim), "nothing dies in the setup");
	for (number, (_, step)) in scenario.steps.iter().enumerate() {
		deaths.step(number);
		stage.tries(*step);
	}
	deaths.step(scenario.steps.len());
	stage.tries(|stage| stage.mine(1));
	let seen = deaths.seen();
	let deaths_and_stops = (stage.net.life(stage.victim) as usize).saturating_sub(1);
	let stops = deaths_and_stops.saturating_sub(deaths.struck());
	deaths.rest();
	let outcome = stage.finish(schedule.spell.is_some());
	Run { outcome, seen, struck: deaths.struck(), stops }
}

impl Stage {
	/// Adds the node under test.
	pub fn victim(&mut self, config: NodeConfig) -> Idx {
		let Mode { deferred, asynchronous, processor } = self.mode;
		let config = NodeConfig { deferred, asynchronous, processor, ..config };
		let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
		self.deaths.watch(&disk);
		let user = Actor::new(Arc::clone(&self.preimages));
		let medium = MemoryMedium::new();
		let (deaths, dies) = (Arc::clone(&self.deaths), Arc::clone(&disk));
		let open = move || -> Arc<dyn Store> {
			let store = MemoryStore::open(&medium, Namespace::default()).expect("memory opens");
			let (deaths, disk) = (Arc::clone(&deaths), Arc::clone(&dies));
			Arc::new(DoomedStore::new(Arc::new(store), deaths, disk))
		};
		let (wire, guarded, told) = (Arc::clone(&self.wire), Arc::clone(&disk), Arc::clone(&user));
		let deaths = Arc::clone(&self.deaths);
		let guards: GuardFactory = Arc::new(move |life| {
			start(&wire, life, &guarded, &told, &deaths, processor.is_async(), &open)
		});
		self.victim = self.net.add_node_on(config, disk, guards);
		self.net.set_background_processor(self.victim, true);
		self.users.push(user);
		self.victim
	}

	/// Adds another node, which never dies; its user acts in the event handler.
	pub fn peer(&mut self, config: NodeConfig) -> Idx {
		let user = Actor::new(Arc::clone(&self.preimages));
		let told = Arc::clone(&user);
		let guards: GuardFactory = Arc::new(move |_| Arc::new(Alone::new(Arc::clone(&told))));
		self.users.push(user);
		let kv = Arc::new(MemKv::new());
		self.net.add_node_with(config, kv, guards)
	}

	/// Connects two nodes, now and after each restart.
	pub fn connect(&mut self, a: Idx, b: Idx) {
		self.net.connect(a, b);
		self.links.push((a, b));
	}

	/// Takes a connection away for good.
	pub fn disconnect(&mut self, a: Idx, b: Idx) {
		self.links.retain(|link| *link != (a, b) && *link != (b, a));
		self.net.disconnect(a, b);
	}

	/// Connects again who has hung up.
	pub fn reconnect(&mut self) {
		for (a, b) in self.links.clone() {
			if self.net.is_running(a) && self.net.is_running(b) {
				self.net.link(a, b);
			}
		}
	}

	/// Opens a channel in the setup.
	pub fn open(&mut self, a: Idx, b: Idx, sats: u64) -> ChannelId {
		let channel = self.net.open_channel_pushing(a, b, sats, sats / 2 * 1_000);
		self.channels.push(channel);
		channel
	}

	/// Returns the user of a node.
	pub fn user(&self, n: Idx) -> &Arc<Actor> {
		&self.users[n]
	}

	/// Returns a payment that will be made. Its preimage and its id come from `number`.
	pub fn intent(&self, number: u8, parts: &[(&[Idx], u64)]) -> Intent {
		use lightning::ln::channelmanager::PaymentId;
		use lightning::types::payment::PaymentPreimage;
		let parts = parts.iter().map(|(nodes, msat)| (nodes.to_vec(), *msat)).collect();
		let (preimage, id) = (PaymentPreimage([number; 32]), PaymentId([number; 32]));
		Intent { parts, preimage, id, keysend: false, offer: false, last_scid: None, blind: false }
	}

	/// Lets a user pay, if that is possible now, and everything settle.
	pub fn pay(&mut self, intent: Intent) {
		self.send(intent);
		self.settle();
	}

	/// Lets a user pay, if that is possible now, and nothing else happen.
	pub fn send(&mut self, intent: Intent) {
		self.preimages.lock().unwrap().insert(intent.hash().0, intent.preimage);
		// Before LDK has it: its thread may tell the end before this one goes on.
		self.users[intent.payer()].sends(intent.id);
		let sent = self.net.try_send(&intent);
		if sent.is_err() {
			self.users[intent.payer()].did_not_send(intent.id);
		}
		let attempt = self.users[intent.payer()].attempts(intent.id);
		let name = format!("payment {:02x} attempt {attempt}", intent.id.0[0]);
		self.intents.push((name, intent, sent.is_ok()));
	}

	/// Lets everything happen that happens by itself; users try again what was refused.
	pub fn settle(&mut self) {
		for _ in 0..3 {
			self.net.settle();
			for n in 0..self.net.len() {
				if self.net.is_running(n) {
					self.users[n].tries_again(&self.net.node(n).handle());
					self.net.node(n).guard().peer_connected();
				}
			}
		}
		self.net.settle();
	}

	/// Mines blocks, and lets everything settle.
	pub fn mine(&mut self, blocks: u32) {
		self.net.mine(blocks);
		self.settle();
	}

	/// Runs a step, and brings the node under test back if it dies. A panic of LDK is a death, too.
	fn tries(&mut self, step: impl FnOnce(&mut Stage)) {
		if let Err(caught) = catch(|| step(self)) {
			self.panicked(format!("{} at {}", caught.message, caught.at));
		}
		self.revive();
	}

	fn panicked(&mut self, what: String) {
		self.panics.push(what);
		self.net.disk(self.victim).kill();
	}

	fn revive(&mut self) {
		for _ in 0..LIVES {
			if self.net.is_running(self.victim) {
				return;
			}
			let lived = catch(|| {
				self.net.crash(self.victim);
				self.net.restart(self.victim);
				self.net.set_background_processor(self.victim, true);
				self.net.settle();
				self.reconnect();
				self.settle();
			});
			if let Err(caught) = lived {
				self.panicked(format!("{} at {}", caught.message, caught.at));
			}
		}
	}

	/// Lets everything come to rest, and looks at the end.
	fn finish(mut self, had_trouble: bool) -> Outcome {
		// What a node forgets over one more restart, it has not kept.
		self.calm(1);
		self.net.disk(self.victim).kill();
		self.revive();
		self.calm(1);
		let mut hanging = 0;
		let mut money = Vec::new();
		let mut ends = BTreeMap::new();
		let mut payments = BTreeMap::new();
		let running = self.net.is_running(self.victim);
		for n in 0..self.net.len() {
			hanging += if self.net.is_running(n) { self.hanging(n) } else { 1 };
		}
		self.calm(CALM_BLOCKS);
		let expiry = self.net.chain.height() + EXPIRY_BLOCKS;
		let waits = |stage: &Stage| {
			let mut sent = stage.intents.iter().filter(|(_, _, sent)| *sent);
			sent.any(|(_, intent, _)| stage.is_pending(intent))
				|| (0..stage.net.len()).any(|n| stage.net.is_running(n) && stage.hanging(n) > 0)
				|| stage.is_closing()
		};
		while running && waits(&self) && self.net.chain.height() < expiry {
			self.calm(CALM_BLOCKS);
		}
		// What the last block has set free is on its way to the wallet.
		self.calm(CALM_BLOCKS);
		if had_trouble {
			self.users[self.victim].sort_late_ends();
		}
		for (name, intent, sent) in &self.intents {
			payments.insert(name.clone(), self.end_of(name, intent, *sent));
		}
		for n in 0..self.net.len() {
			money.push(if self.net.is_running(n) { self.money(n) } else { 0 });
		}
		for channel in &self.channels {
			ends.insert(channel.to_string(), self.end_of_channel(*channel));
		}
		Outcome {
			tellings: self.tellings(),
			payments,
			channels: ends,
			hanging,
			money,
			victim: self.victim,
			panics: self.panics,
			runs: self.net.is_running(self.victim),
			lives: self.net.life(self.victim),
		}
	}

	fn calm(&mut self, blocks: u32) {
		self.revive();
		self.tries(|stage| {
			stage.settle();
			stage.net.tick();
			stage.mine(blocks);
		});
	}

	/// Returns what the user of the node under test was told. The id of a channel that was opened in
	/// the script depends on the life in which that was, so that it names nothing in another run.
	fn tellings(&self) -> Vec<Telling> {
		let known: Vec<String> = self.channels.iter().map(|id| short_hex(&id.0)).collect();
		let mut tellings = self.users[self.victim].tellings();
		for telling in &mut tellings {
			let mut words = telling.key.split(' ');
			let (kind, id) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
			let is_of_channel = ["Channel", "SpendableOutputs", "Splice"]
				.iter()
				.any(|kinds| kind.starts_with(kinds));
			if is_of_channel && !known.iter().any(|known| known == id) {
				telling.key = format!("{kind} of a later channel");
				telling.exact = false;
			}
		}
		tellings
	}

	fn hanging(&self, n: Idx) -> usize {
		let channels = self.net.channels(n);
		let htlcs =
			channels.iter().map(|c| c.pending_inbound_htlcs.len() + c.pending_outbound_htlcs.len());
		htlcs.sum()
	}

	/// Returns whether money of the node under test is still on its way to its wallet.
	fn is_closing(&self) -> bool {
		if !self.net.is_running(self.victim) {
			return false;
		}
		let balances = self.net.node(self.victim).chain_monitor().get_claimable_balances(&[]);
		balances.iter().any(|b| !matches!(b, Balance::ClaimableOnChannelClose { .. }))
	}

	fn money(&self, n: Idx) -> u64 {
		let node = self.net.node(n);
		let in_channels = node.chain_monitor().get_claimable_balances(&[]);
		let in_channels = in_channels.iter().map(|b| b.claimable_amount_satoshis());
		node.wallet().balance_sats() + in_channels.sum::<u64>()
	}

	fn end_of(&self, name: &str, intent: &Intent, was_sent: bool) -> PaymentEnd {
		let (payer, payee) = (&self.users[intent.payer()], intent.payee());
		let key = |kind: &str| {
			let id: String = intent.id.0.iter().take(6).map(|b| format!("{b:02x}")).collect();
			let attempt = name.rsplit(' ').next().unwrap_or_default();
			format!("{kind} {id} attempt {attempt}")
		};
		let claimed = self.net.ledger(payee).iter().any(|told| match &told.event {
			Event::PaymentClaimed {
				purpose: PaymentPurpose::Bolt12OfferPayment { .. }, ..
			} => intent.offer,
			Event::PaymentClaimed { payment_hash, .. } => *payment_hash == intent.hash(),
			_ => false,
		});
		let told_sent = payer.was_told(&key("PaymentSent"));
		let paid = told_sent && intent.payer() == self.victim;
		PaymentEnd {
			was_sent,
			told_sent,
			told_failed: payer.was_told(&key("PaymentFailed")),
			claimed,
			pending: self.is_pending(intent),
			paid_sat: if paid { intent.amount_msat() / 1_000 } else { 0 },
		}
	}

	fn is_pending(&self, intent: &Intent) -> bool {
		use lightning::ln::channelmanager::RecentPaymentDetails as D;
		if !self.net.is_running(intent.payer()) {
			return false;
		}
		let payments = self.net.payments(intent.payer());
		payments
			.iter()
			.any(|p| matches!(p, D::Pending { payment_id, .. } if *payment_id == intent.id))
	}

	fn end_of_channel(&self, id: ChannelId) -> ChannelEnd {
		let open = |n: &Idx| self.net.is_running(*n) && self.net.channel(*n, id).is_some();
		if (0..self.net.len()).filter(open).count() == 2 {
			return ChannelEnd::Open;
		}
		let told = (0..self.net.len()).flat_map(|n| self.net.ledger(n));
		let mut reasons = told.filter_map(|told| match told.event {
			Event::ChannelClosed { channel_id, reason, .. } if channel_id == id => Some(reason),
			_ => None,
		});
		let cooperative = |reason: &ClosureReason| {
			matches!(
				reason,
				ClosureReason::LegacyCooperativeClosure
					| ClosureReason::CounterpartyInitiatedCooperativeClosure
					| ClosureReason::LocallyInitiatedCooperativeClosure
			)
		};
		match reasons.any(|reason| cooperative(&reason)) {
			true => ChannelEnd::Cooperative,
			false => ChannelEnd::Forced,
		}
	}
}
