//! The small parts that LDK is put together from, and the names of the large ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use bitcoin::Transaction;
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::blinded_path::IntroductionNode;
use lightning::chain::chaininterface::{
	BroadcasterInterface, ConfirmationTarget, FeeEstimator, TransactionType,
};
use lightning::chain::chainmonitor::Persist;
use lightning::chain::Watch;
use lightning::events::bump_transaction::sync::BumpTransactionEventHandlerSync;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{ChannelManager, MIN_FINAL_CLTV_EXPIRY_DELTA};
use lightning::routing::router::{
	BlindedTail, InFlightHtlcs, Path, Payee, Route, RouteHop, RouteParameters, Router,
};
use lightning::sign::{InMemorySigner, KeysManager, ReceiveAuthKey};
use lightning::types::features::ChannelFeatures;
use lightning::util::logger::{Logger, Record};
use lightning::util::wallet_utils::WalletSync;

use crate::chain::SimChain;
use crate::disk::NodeDisk;
use crate::onion_messages::DirectMessages;
use crate::wallet::Wallet;

pub use crate::chain_monitor::NetChainMonitor;

/// The persister of monitors: the disk, or what a guard made of it.
pub type NetPersister = Arc<dyn Persist<InMemorySigner> + Send + Sync>;

/// What the manager takes for its chain monitor: the bare one, or whatever a guard made of it.
pub type NetWatch = Arc<dyn Watch<InMemorySigner> + Send + Sync>;

/// The channel manager of every node.
pub type NetManager = ChannelManager<
	NetWatch,
	Arc<Broadcaster>,
	Arc<KeysManager>,
	Arc<KeysManager>,
	Arc<KeysManager>,
	Arc<FixedFees>,
	Arc<DirectRouter>,
	Arc<DirectMessages>,
	Arc<NetLogger>,
>;

/// A node's wallet as LDK's coin selection takes it.
pub type NetWallet = WalletSync<Arc<Wallet>, Arc<NetLogger>>;

/// What pays the fees of anchor channels.
pub type NetBumper = BumpTransactionEventHandlerSync<
	Arc<Broadcaster>,
	Arc<NetWallet>,
	Arc<KeysManager>,
	Arc<NetLogger>,
>;

/// The lowest fee rate LDK accepts, always.
pub struct FixedFees;

/// Satoshis per 1000 weight units, for everything.
pub const FEE_SAT_PER_KW: u32 = 253;

impl FeeEstimator for FixedFees {
	fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
		FEE_SAT_PER_KW
	}
}

/// Puts what a node broadcasts into the mempool, unless the node is dead, and remembers it.
pub struct Broadcaster {
	chain: SimChain,
	disk: Arc<NodeDisk>,
	sent: Mutex<Vec<Transaction>>,
	kinds: Mutex<Vec<(Transaction, TransactionType)>>,
}

impl Broadcaster {
	/// The broadcaster of the node on `disk`.
	pub fn new(chain: SimChain, disk: Arc<NodeDisk>) -> Self {
		Broadcaster { chain, disk, sent: Mutex::default(), kinds: Mutex::default() }
	}

	/// Broadcasts one transaction.
	pub fn broadcast(&self, tx: Transaction) {
		if self.disk.is_dead() {
			return;
		}
		self.sent.lock().unwrap().push(tx.clone());
		self.chain.submit(tx);
	}

	/// What LDK broadcast in this life, and as what, oldest first, repeats included.
	pub fn kinds(&self) -> Vec<(Transaction, TransactionType)> {
		self.kinds.lock().unwrap().clone()
	}

	/// Everything broadcast in this life, oldest first, repeats included.
	pub fn sent(&self) -> Vec<Transaction> {
		self.sent.lock().unwrap().clone()
	}
}

impl BroadcasterInterface for Broadcaster {
	fn broadcast_transactions(&self, txs: &[(&Transaction, TransactionType)]) {
		for (tx, kind) in txs {
			self.kinds.lock().unwrap().push(((*tx).clone(), kind.clone()));
			self.broadcast((*tx).clone());
		}
	}
}

/// How many lines a node's log keeps.
pub const LOG_LINES: usize = 2_000;

/// Keeps the last lines that LDK logged, for the message of a failing test.
#[derive(Default)]
pub struct NetLogger {
	lines: Option<Mutex<VecDeque<String>>>,
}

impl NetLogger {
	/// A logger that keeps nothing, which is much faster.
	pub fn silent() -> Self {
		Self::default()
	}

	/// A logger that keeps the last [`LOG_LINES`].
	pub fn keeping() -> Self {
		NetLogger { lines: Some(Mutex::default()) }
	}

	/// What was kept, oldest first.
	pub fn lines(&self) -> Vec<String> {
		let lines = self.lines.as_ref();
		lines.map_or_else(Vec::new, |lines| lines.lock().unwrap().iter().cloned().collect())
	}
}

impl Logger for NetLogger {
	fn log(&self, record: Record) {
		let Some(lines) = &self.lines else { return };
		let mut lines = lines.lock().unwrap();
		if lines.len() == LOG_LINES {
			lines.pop_front();
		}
		lines.push_back(format!("{} {}: {}", record.level, record.module_path, record.args));
	}
}

/// Finds the direct way to a peer with a channel that is wide enough, and nothing else: for invoices.
/// Other routes are given by the net, so that LDK never retries over another one. Blinded paths have
/// one hop.
pub struct DirectRouter(pub Arc<KeysManager>);

impl Router for DirectRouter {
	fn find_route(
		&self, _: &PublicKey, params: &RouteParameters, first_hops: Option<&[&ChannelDetails]>,
		_: InFlightHtlcs,
	) -> Result<Route, &'static str> {
		let (node_id, final_delta, blinded) = match &params.payment_params.payee {
			Payee::Clear { node_id, final_cltv_expiry_delta, .. } => {
				(node_id, *final_cltv_expiry_delta, None)
			},
			Payee::Blinded { route_hints, .. } => {
				let path = route_hints.first().ok_or("no blinded path")?;
				let IntroductionNode::NodeId(node_id) = path.introduction_node() else {
					return Err("only to nodes with a name");
				};
				(node_id, path.payinfo.cltv_expiry_delta.into(), Some(path))
			},
		};
		let msat = params.final_value_msat;
		let mut channels: Vec<_> = first_hops.unwrap_or_default().iter().collect();
		channels.retain(|c| {
			c.counterparty.node_id == *node_id && c.next_outbound_htlc_limit_msat >= msat
		});
		// They come from a hash map; the oldest first is the same order in every run.
		channels.sort_by_key(|c| (c.short_channel_id, c.channel_id.0));
		let channel = channels.first().ok_or("no channel that is wide enough")?;
		let blinded_tail = blinded.map(|path| BlindedTail {
			trampoline_hops: Vec::new(),
			hops: path.blinded_hops().to_vec(),
			blinding_point: path.blinding_point(),
			excess_final_cltv_expiry_delta: 0,
			final_value_msat: msat,
		});
		let hop = RouteHop {
			pubkey: *node_id,
			node_features: channel.counterparty.features.to_context(),
			short_channel_id: channel.get_outbound_payment_scid().ok_or("not usable")?,
			channel_features: ChannelFeatures::empty(),
			// In front of a blinded path, the fee is that of the path, which has one hop.
			fee_msat: if blinded_tail.is_some() { 0 } else { msat },
			cltv_expiry_delta: final_delta,
			maybe_announced_channel: true,
		};
		let paths = vec![Path { hops: vec![hop], blinded_tail }];
		Ok(Route { paths, route_params: Some(params.clone()) })
	}

	fn create_blinded_payment_paths<T: Signing + Verification>(
		&self, recipient: PublicKey, key: ReceiveAuthKey, _: Vec<ChannelDetails>,
		tlvs: ReceiveTlvs, _: Option<u64>, secp: &Secp256k1<T>,
	) -> Result<Vec<BlindedPaymentPath>, ()> {
		let (delta, entropy) = (MIN_FINAL_CLTV_EXPIRY_DELTA, Arc::clone(&self.0));
		Ok(vec![BlindedPaymentPath::one_hop(recipient, key, tlvs, delta, entropy, secp)?])
	}
}
