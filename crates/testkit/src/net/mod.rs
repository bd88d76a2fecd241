//! A network of nodes: who they are, who is connected to whom, and when they live and die.
//!
//! Time passes only when the test says so, by a block or a message. [`LdkNet::settle`] lets
//! everything happen that would happen by itself until nothing is left to do; a
//! [paused](LdkNet::pause) node takes no part in it, so that the test can move it by hand into the
//! state it wants.

mod blocks;
mod channels;
mod flows;
mod messages;
mod payments;

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{CompressedPublicKey, ScriptBuf};

use crate::chain::SimChain;
use crate::disk::{Kv, MemKv, NodeDisk};
use crate::guard::{Bare, GuardFactory};
use crate::node::{wallet_key, Ledger, Node, NodeConfig, NodeStart, Told};

pub use blocks::Feed;
pub use flows::Intent;
pub use payments::{Paid, Sent};

/// Names a node of a net, in the order in which they were added.
pub type Idx = usize;

/// See the [module documentation](self).
pub struct LdkNet {
	seed: u64,
	/// The chain that all nodes see.
	pub chain: SimChain,
	slots: Vec<Slot>,
	links: BTreeSet<(Idx, Idx)>,
	sent: Vec<Sent>,
	complaints: Vec<String>,
	cut: Option<messages::Cut>,
}

/// What is left of a node while it does not run.
struct Slot {
	config: NodeConfig,
	seed: [u8; 32],
	disk: Arc<NodeDisk>,
	guards: GuardFactory,
	told: Ledger,
	life: u32,
	node: Option<Node>,
	id: PublicKey,
	feed: Feed,
	paused: bool,
	auto_persist: bool,
	background: bool,
}

impl LdkNet {
	/// No nodes and an empty chain. Everything that follows is decided by `seed`.
	pub fn new(seed: u64) -> Self {
		LdkNet {
			seed,
			chain: SimChain::new(seed),
			slots: Vec::new(),
			links: BTreeSet::new(),
			sent: Vec::new(),
			complaints: Vec::new(),
			cut: None,
		}
	}

	/// Adds a node with a disk in memory and LDK alone, and starts it. Its wallet is funded by a
	/// block.
	pub fn add_node(&mut self, config: NodeConfig) -> Idx {
		self.add_node_with(config, Arc::new(MemKv::new()), Bare::factory())
	}

	/// Adds a node with a disk over `kv`, guarded in each life by what `guards` makes, and starts
	/// it.
	///
	/// # Panics
	///
	/// When there is a manager on the disk already: its channels would be on another chain.
	pub fn add_node_with(&mut self, config: NodeConfig, kv: Kv, guards: GuardFactory) -> Idx {
		self.add_node_on(config, Arc::new(NodeDisk::new(kv)), guards)
	}

	/// Adds a node with this disk, which its guards may know from the start, and starts it.
	///
	/// # Panics
	///
	/// When there is a manager on the disk already: its channels would be on another chain.
	pub fn add_node_on(
		&mut self, config: NodeConfig, disk: Arc<NodeDisk>, guards: GuardFactory,
	) -> Idx {
		let n = self.slots.len();
		let seed = self.derive(b"node", n as u64);
		assert!(disk.manager().is_none(), "the disk of a new node must be empty");
		let pubkey = wallet_key(&seed).public_key(&Secp256k1::new());
		let script = ScriptBuf::new_p2wpkh(&CompressedPublicKey(pubkey).wpubkey_hash());
		// Before the node exists, so that it starts at a tip which has its coins.
		for _ in 0..10 {
			self.chain.pay_to(script.clone(), config.funds_sats / 10);
		}
		self.mine(1);
		let auto_persist = config.deferred;
		let told = Ledger::default();
		let node = Node::start(NodeStart {
			config: config.clone(),
			seed,
			life: 1,
			disk: Arc::clone(&disk),
			chain: self.chain.clone(),
			told: Arc::clone(&told),
			guard: guards(1),
			synced: true,
		});
		self.slots.push(Slot {
			config,
			seed,
			disk,
			guards,
			told,
			life: 1,
			id: node.id(),
			node: Some(node),
			feed: Feed::Both,
			paused: false,
			auto_persist,
			background: false,
		});
		n
	}

	/// The running node.
	///
	/// # Panics
	///
	/// When it does not run.
	pub fn node(&self, n: Idx) -> &Node {
		self.slots[n].node.as_ref().unwrap_or_else(|| panic!("node {n} does not run"))
	}

	/// Whether the node runs: it was not crashed and its disk has not died.
	pub fn is_running(&self, n: Idx) -> bool {
		self.slots[n].node.is_some() && !self.slots[n].disk.is_dead()
	}

	/// The node's public key, whether it runs or not.
	pub fn id(&self, n: Idx) -> PublicKey {
		self.slots[n].id
	}

	/// The node's disk, whether it runs or not.
	pub fn disk(&self, n: Idx) -> &Arc<NodeDisk> {
		&self.slots[n].disk
	}

	/// Which life the node is in, or was in last.
	pub fn life(&self, n: Idx) -> u32 {
		self.slots[n].life
	}

	/// How many nodes there are.
	pub fn len(&self) -> usize {
		self.slots.len()
	}

	/// Whether there are none.
	pub fn is_empty(&self) -> bool {
		self.slots.is_empty()
	}

	/// Everything the node's user was told, in all lives.
	pub fn ledger(&self, n: Idx) -> Vec<Told> {
		self.slots[n].told.lock().unwrap_or_else(|e| e.into_inner()).clone()
	}

	/// How often the node's user was told an event of this name, in all lives.
	pub fn told(&self, n: Idx, name: &str) -> usize {
		self.ledger(n).iter().filter(|t| t.name() == name).count()
	}

	/// The names of what the user was told in one life, in order.
	pub fn told_in(&self, n: Idx, life: u32) -> Vec<String> {
		self.ledger(n).iter().filter(|t| t.life == life).map(Told::name).collect()
	}

	/// Writes the manager; returns whether that worked and the node lives to know it.
	pub fn persist_manager(&self, n: Idx) -> bool {
		self.node(n).persist_manager()
	}

	/// Whether [`settle`](Self::settle) writes the manager when monitor operations wait for it. On
	/// by default for deferred nodes, which otherwise stand still; off for the others.
	pub fn set_auto_persist(&mut self, n: Idx, on: bool) {
		self.slots[n].auto_persist = on;
	}

	/// Sets whether [`settle`](Self::settle) does what LDK's background processor does for this
	/// node: handle events, then write the manager if the manager says that it has changed, then
	/// flush what waited for that. Off by default.
	pub fn set_background_processor(&mut self, n: Idx, on: bool) {
		self.slots[n].background = on;
	}

	/// Takes the node out of everything that happens by itself: it gets no blocks and no messages,
	/// and its events wait. Its peers do not notice; see [`disconnect_all`](Self::disconnect_all).
	pub fn pause(&mut self, n: Idx) {
		self.slots[n].paused = true;
	}

	/// Ends a pause. The node gets what blocks it missed with the next one, or from
	/// [`sync`](Self::sync).
	pub fn resume(&mut self, n: Idx) {
		self.slots[n].paused = false;
	}

	/// Lets events, messages and forwards run until nothing is left to do.
	///
	/// # Panics
	///
	/// When it does not come to an end.
	pub fn settle(&mut self) {
		for _ in 0..MAX_ROUNDS {
			let mut quiet = true;
			for n in 0..self.slots.len() {
				if !self.takes_part(n) {
					continue;
				}
				if self.slots[n].config.processor.is_real() {
					quiet &= !self.node(n).turn();
					quiet &= self.deliver_from(n) == 0 && self.deliver_onion_messages(n) == 0;
					continue;
				}
				quiet &= !self.node(n).turn();
				let told = self.slots[n].told.lock().unwrap().len();
				self.node(n).process_events();
				quiet &= self.slots[n].told.lock().unwrap().len() == told;
				let node = self.node(n);
				if node.manager().needs_pending_htlc_processing() {
					node.manager().process_pending_htlc_forwards();
					quiet = false;
				}
				if self.slots[n].auto_persist && node.chain_monitor().pending_operation_count() > 0
				{
					node.persist_manager();
					quiet = false;
				}
				if self.slots[n].background {
					let waits = node.chain_monitor().pending_operation_count() > 0;
					if node.manager().get_and_clear_needs_persistence() || waits {
						node.persist_manager();
						quiet &= !waits;
					}
				}
				quiet &= self.deliver_from(n) == 0 && self.deliver_onion_messages(n) == 0;
			}
			if quiet {
				return;
			}
		}
		panic!("the net does not come to rest; complaints: {:?}", self.complaints);
	}

	/// Lets every node's timer tick once, and settles. LDK wants that about once a minute.
	pub fn tick(&mut self) {
		for n in 0..self.len() {
			if self.takes_part(n) {
				self.node(n).manager().timer_tick_occurred();
			}
		}
		self.settle();
	}

	/// The node is gone; only its disk and what its user remembers are left.
	pub fn crash(&mut self, n: Idx) {
		self.slots[n].disk.kill();
		self.disconnect_all(n);
		self.slots[n].node = None;
	}

	/// Starts the node from its disk, with the next guard, and brings it to the chain's tip. It has
	/// handled no event yet and has no connections.
	///
	/// # Panics
	///
	/// When LDK does. The node is then dead and can be restarted again.
	pub fn restart(&mut self, n: Idx) {
		self.restart_at(n, true);
		let height = self.chain.height();
		self.node(n).feed_manager(height);
	}

	/// Like [`restart`](Self::restart), but the manager stays at the block it was written at and
	/// the monitors at that of the most advanced of them.
	pub fn restart_unsynced(&mut self, n: Idx) {
		self.restart_at(n, false);
	}

	/// If the node has died, by a hook for instance: restarts it, connects it to those it was
	/// connected to, and settles. Returns whether it had died.
	///
	/// # Panics
	///
	/// When LDK does. The node is then dead and can be revived again.
	pub fn revive(&mut self, n: Idx) -> bool {
		if self.is_running(n) {
			return false;
		}
		let peers: Vec<Idx> = (0..self.len()).filter(|peer| self.connected(n, *peer)).collect();
		self.crash(n);
		self.restart(n);
		for peer in peers {
			if self.is_running(peer) {
				self.link(n, peer);
			}
		}
		self.settle();
		true
	}

	/// What nodes complained about to each other: errors and warnings, oldest first.
	pub fn complaints(&self) -> &[String] {
		&self.complaints
	}

	fn restart_at(&mut self, n: Idx, synced: bool) {
		assert!(self.slots[n].node.is_none(), "node {n} runs");
		let slot = &mut self.slots[n];
		// Even if LDK panics in it, it was a life: its guard and its randomness are used up.
		slot.life += 1;
		let start = NodeStart {
			config: slot.config.clone(),
			seed: slot.seed,
			life: slot.life,
			disk: Arc::clone(&slot.disk),
			chain: self.chain.clone(),
			told: Arc::clone(&slot.told),
			guard: (slot.guards)(slot.life),
			synced,
		};
		slot.node = Some(Node::start(start));
	}

	fn takes_part(&self, n: Idx) -> bool {
		self.is_running(n) && !self.slots[n].paused
	}

	/// 32 bytes that depend on the seed only.
	fn derive(&self, what: &[u8], number: u64) -> [u8; 32] {
		let parts = [&self.seed.to_le_bytes()[..], what, &number.to_le_bytes()[..]];
		sha256::Hash::hash(&parts.concat()).to_byte_array()
	}
}

/// Far more than any scenario needs; a loop between two nodes would never end otherwise.
const MAX_ROUNDS: usize = 1_000;
