//! Birth and rebirth of a node.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use super::core::NodeCore;
use super::*;

use bitcoin::block::Header;
use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{BlockHash, Network};
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Listen};
use lightning::events::bump_transaction::sync::BumpTransactionEventHandlerSync;
use lightning::ln::channelmanager::{ChainParameters, ChannelManagerReadArgs};
use lightning::ln::peer_handler::IgnoringMessageHandler;
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner};
use lightning::util::ser::ReadableArgs;
use lightning::util::wallet_utils::WalletSync;

use crate::background::Processor;
use crate::chain::SimChain;
use crate::chain_monitor::{ChainMonitorWith, NetPersisterAsync};
use crate::onion_messages::{DirectMessages, NetMessenger};
use crate::parts::{Broadcaster, DirectRouter, FixedFees, NetLogger};
use crate::tasks::Tasks;

type Monitor = ChannelMonitor<InMemorySigner>;

/// Everything a life begins with.
pub struct NodeStart {
	/// How the node is set up.
	pub config: NodeConfig,
	/// Its keys come from this, in every life.
	pub seed: [u8; 32],
	/// Which life this is; the first is 1.
	pub life: u32,
	/// What the life before left.
	pub disk: Arc<NodeDisk>,
	/// The chain.
	pub chain: SimChain,
	/// What its user remembers.
	pub told: Ledger,
	/// What stands between.
	pub guard: Arc<dyn Guard>,
	/// Whether the monitors are brought to the chain's tip before they are loaded, as a node that
	/// starts properly does. Otherwise they are brought to where the most advanced of them is.
	pub synced: bool,
}

impl Node {
	/// Starts a node: a new one, if no manager was ever written to its disk.
	///
	/// The manager is left at the block it was written at; [`Node::feed_manager`] brings it up.
	///
	/// # Panics
	///
	/// When LDK cannot read what is on the disk, or panics by itself.
	pub fn start(start: NodeStart) -> Node {
		let NodeStart { config, seed, life, disk, chain, told, guard, synced } = start;
		disk.revive();
		let logger =
			Arc::new(if config.keep_log { NetLogger::keeping() } else { NetLogger::silent() });
		// LDK wants a time that never comes twice, or it would repeat its randomness.
		let keys = Arc::new(KeysManager::new(&seed, u64::from(life), 0, true));
		let broadcaster = Arc::new(Broadcaster::new(chain.clone(), Arc::clone(&disk)));
		let fees = Arc::new(FixedFees);
		let tasks = Tasks::default();
		let (chain_monitor, mut monitors) = match config.asynchronous {
			false => {
				let chain_monitor = NetChainMonitor::Sync(Arc::new(ChainMonitorWith::new(
					None,
					Arc::clone(&broadcaster),
					Arc::clone(&logger),
					Arc::clone(&fees),
					guard.persister(Arc::clone(&disk)),
					Arc::clone(&keys),
					keys.get_peer_storage_key(),
					config.deferred,
				)));
				(Arc::new(chain_monitor), read_monitors(&disk, &keys))
			},
			true => {
				let persister = NetPersisterAsync::new(
					guard.monitor_store(Arc::clone(&disk)),
					tasks.clone(),
					Arc::clone(&logger),
					max_pending_updates(config.processor),
					Arc::clone(&keys),
					Arc::clone(&keys),
					Arc::clone(&broadcaster),
					Arc::clone(&fees),
				);
				let monitors = read_monitors_async(&persister, &tasks);
				let chain_monitor = ChainMonitorWith::new_async_beta(
					None,
					Arc::clone(&broadcaster),
					Arc::clone(&logger),
					Arc::clone(&fees),
					persister,
					Arc::clone(&keys),
					keys.get_peer_storage_key(),
					config.deferred,
				);
				(Arc::new(NetChainMonitor::Async(Arc::new(chain_monitor))), monitors)
			},
		};
		let watch = guard.watch(Arc::clone(&chain_monitor));
		let listen = guard.listen(Arc::clone(&chain_monitor));

		let messages = Arc::new(DirectMessages(Arc::clone(&keys)));
		let manager = match disk.manager() {
			None => NetManager::new(
				Arc::clone(&fees),
				watch,
				Arc::clone(&broadcaster),
				Arc::new(DirectRouter(Arc::clone(&keys))),
				Arc::clone(&messages),
				Arc::clone(&logger),
				Arc::clone(&keys),
				Arc::clone(&keys),
				Arc::clone(&keys),
				config.user_config.clone(),
				ChainParameters { network: Network::Regtest, best_block: chain.locator() },
				chain.block(chain.height()).header.time,
			),
			Some(bytes) => {
				let args = ChannelManagerReadArgs::new(
					Arc::clone(&keys),
					Arc::clone(&keys),
					Arc::clone(&keys),
					Arc::clone(&fees),
					watch,
					Arc::clone(&broadcaster),
					Arc::new(DirectRouter(Arc::clone(&keys))),
					Arc::clone(&messages),
					Arc::clone(&logger),
					config.user_config.clone(),
					monitors.iter().collect(),
				);
				let read = <(BlockLocator, NetManager)>::read(&mut &bytes[..], args);
				read.unwrap_or_else(|e| panic!("LDK cannot read the manager: {e:?}")).1
			},
		};

		let monitors_tip = common_tip(&monitors, &chain, synced);
		let height = chain.height_of(&monitors_tip).expect("a block of this chain");
		for monitor in monitors.drain(..) {
			let from = monitor.current_best_block().block_hash;
			let id = monitor.channel_id();
			let lone =
				LoneMonitor { monitor, broadcaster: &broadcaster, fees: &fees, logger: &logger };
			chain.catch_up(&lone, from, height);
			chain_monitor.load_existing_monitor(id, lone.monitor).expect("loaded once");
		}

		let wallet = Arc::new(Wallet::new(wallet_key(&seed), chain.clone()));
		let coin_selection = Arc::new(WalletSync::new(Arc::clone(&wallet), Arc::clone(&logger)));
		let bumper = BumpTransactionEventHandlerSync::new(
			Arc::clone(&broadcaster),
			Arc::clone(&coin_selection),
			Arc::clone(&keys),
			Arc::clone(&logger),
		);
		let manager = Arc::new(manager);
		let messenger = NetMessenger::new(
			Arc::clone(&keys),
			Arc::clone(&keys),
			Arc::clone(&logger),
			Arc::clone(&manager),
			messages,
			Arc::clone(&manager),
			IgnoringMessageHandler {},
			IgnoringMessageHandler {},
			IgnoringMessageHandler {},
		);
		let core = Arc::new(NodeCore {
			manager,
			messenger,
			chain_monitor,
			disk,
			wallet,
			coin_selection,
			guard: Arc::clone(&guard),
			listen,
			broadcaster,
			logger,
			keys,
			bumper,
			chain,
			told,
			config,
			tasks,
			life,
			monitors_tip: Mutex::new(monitors_tip),
		});
		let node = Node { core, background: OnceLock::new() };
		guard.started(&node.handle());
		node
	}
}

/// Returns the number of updates of a monitor after which it is written whole. With tasks on several
/// threads that is always: LDK asks for the write of an update when its task is polled, so that one
/// may land without the one before it (finding 30 of `docs/ldk-findings.md`).
fn max_pending_updates(processor: Processor) -> u64 {
	match processor {
		Processor::Tokio => 0,
		_ => 3,
	}
}

/// The wallet's key of the node with this seed.
pub(crate) fn wallet_key(seed: &[u8; 32]) -> SecretKey {
	let hash = sha256::Hash::hash(&[&seed[..], b"wallet"].concat());
	SecretKey::from_slice(&hash.to_byte_array()).expect("a hash is a key")
}

fn read_monitors(disk: &NodeDisk, keys: &Arc<KeysManager>) -> Vec<Monitor> {
	let read = |(name, bytes): (String, Vec<u8>)| {
		<(BlockLocator, Monitor)>::read(&mut &bytes[..], (&**keys, &**keys))
			.unwrap_or_else(|e| panic!("LDK cannot read the monitor {name}: {e:?}"))
			.1
	};
	disk.monitors().into_iter().map(read).collect()
}

fn read_monitors_async(persister: &NetPersisterAsync, tasks: &Tasks) -> Vec<Monitor> {
	let mut read = std::pin::pin!(persister.read_all_channel_monitors_with_updates());
	let mut context = Context::from_waker(Waker::noop());
	let read = loop {
		if let Poll::Ready(read) = read.as_mut().poll(&mut context) {
			break read;
		}
		assert!(tasks.run(), "reading the monitors waits for no task");
	};
	let read = read.unwrap_or_else(|e| panic!("LDK cannot read the monitors: {e}"));
	let mut monitors: Vec<_> = read.into_iter().map(|(_, monitor)| monitor).collect();
	monitors.sort_by_key(|monitor| monitor.persistence_key().to_string());
	monitors
}

fn common_tip(monitors: &[Monitor], chain: &SimChain, synced: bool) -> BlockHash {
	let heights = monitors.iter().map(|m| m.current_best_block().height).max();
	let height = heights.filter(|_| !synced).unwrap_or_else(|| chain.height());
	chain.block(height.min(chain.height())).block_hash()
}

/// A monitor that is not loaded yet, fed on its own.
struct LoneMonitor<'a> {
	monitor: Monitor,
	broadcaster: &'a Arc<Broadcaster>,
	fees: &'a Arc<FixedFees>,
	logger: &'a Arc<NetLogger>,
}

impl Listen for LoneMonitor<'_> {
	fn filtered_block_connected(&self, header: &Header, txs: &TransactionData, height: u32) {
		self.monitor.block_connected(header, txs, height, self.broadcaster, self.fees, self.logger);
	}

	fn blocks_disconnected(&self, fork: BlockLocator) {
		self.monitor.blocks_disconnected(fork, self.broadcaster, self.fees, self.logger);
	}
}
