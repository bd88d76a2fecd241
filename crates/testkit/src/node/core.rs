//! What a running node consists of, and what it does by itself.

use super::*;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, BlockHash, TxOut};
use lightning::chain::Listen;
use lightning::ln::channelmanager::TrustedChannelFeatures;
use lightning::sign::{KeysManager, OutputSpender, SpendableOutputDescriptor};

use crate::chain::SimChain;
use crate::onion_messages::NetMessenger;
use crate::parts::{Broadcaster, NetLogger, FEE_SAT_PER_KW};
use crate::tasks::Tasks;

pub(crate) struct NodeCore {
	pub(crate) manager: Arc<NetManager>,
	pub(super) messenger: NetMessenger,
	pub(crate) chain_monitor: Arc<NetChainMonitor>,
	pub(crate) disk: Arc<NodeDisk>,
	pub(crate) wallet: Arc<Wallet>,
	pub(crate) coin_selection: Arc<NetWallet>,
	pub(crate) guard: Arc<dyn Guard>,
	pub(super) listen: Arc<dyn Listen + Send + Sync>,
	pub(super) broadcaster: Arc<Broadcaster>,
	pub(crate) logger: Arc<NetLogger>,
	pub(crate) keys: Arc<KeysManager>,
	pub(super) bumper: NetBumper,
	pub(super) chain: SimChain,
	pub(super) told: Ledger,
	pub(super) config: NodeConfig,
	pub(crate) tasks: Tasks,
	pub(super) life: u32,
	pub(super) monitors_tip: Mutex<BlockHash>,
}

impl NodeCore {
	pub(crate) fn persist_manager(&self) -> bool {
		// What is queued later is not in the bytes, so it must not be flushed after them.
		let waiting = self.chain_monitor.pending_operation_count();
		if !self.guard.write_manager(&self.disk, self.manager.encode()) {
			return false;
		}
		if self.config.deferred {
			self.chain_monitor.flush(waiting, &self.logger);
		}
		!self.disk.is_dead()
	}

	pub(crate) fn process_events(&self) {
		let handler = |event: Event| self.guard.handle_event(event, &mut |e| self.handle(e));
		self.manager.process_pending_events(&handler);
		self.chain_monitor.process_pending_events(&handler);
	}

	pub(crate) fn handle_of(self: &Arc<Self>) -> NodeHandle {
		NodeHandle(Arc::downgrade(self))
	}

	/// A dead node tells nobody anything.
	pub(crate) fn handle(&self, event: Event) -> Result<(), ReplayEvent> {
		if self.disk.is_dead() {
			return Err(ReplayEvent());
		}
		self.told.lock().unwrap().push(Told { life: self.life, event: event.clone() });
		// An event may be handled long after it was made: the channel it is about may be gone, and
		// then there is nothing to do. Where this matters, the test sees that nothing was done.
		match event {
			Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
				let user_id = user_channel_id(&temporary_channel_id.0);
				let (id, peer) = (&temporary_channel_id, &counterparty_node_id);
				let _ = if self.config.zero_conf {
					let features = TrustedChannelFeatures::ZeroConf;
					let accept = NetManager::accept_inbound_channel_from_trusted_peer;
					accept(&self.manager, id, peer, user_id, features, None)
				} else {
					self.manager.accept_inbound_channel(id, peer, user_id, None)
				};
			},
			Event::FundingGenerationReady {
				temporary_channel_id,
				counterparty_node_id,
				channel_value_satoshis,
				output_script,
				..
			} => {
				let value = Amount::from_sat(channel_value_satoshis);
				let tx = self.wallet.pay(vec![TxOut { value, script_pubkey: output_script }]);
				let _ = self.manager.funding_transaction_generated(
					temporary_channel_id,
					counterparty_node_id,
					tx,
				);
			},
			Event::FundingTransactionReadyForSigning {
				channel_id,
				counterparty_node_id,
				unsigned_transaction,
				..
			} => {
				let signed = self.wallet.sign(unsigned_transaction);
				let _ = self.manager.funding_transaction_signed(
					&channel_id,
					&counterparty_node_id,
					signed,
				);
			},
			Event::BumpTransaction(bump) => self.bumper.handle_event(&bump),
			Event::SpendableOutputs { outputs, .. } if self.config.sweep => self.sweep(&outputs),
			_ => {},
		}
		Ok(())
	}

	fn sweep(&self, outputs: &[SpendableOutputDescriptor]) {
		let outputs: Vec<_> = outputs.iter().collect();
		let sweep = self.keys.spend_spendable_outputs(
			&outputs,
			Vec::new(),
			self.wallet.script(),
			FEE_SAT_PER_KW,
			None,
			&Secp256k1::new(),
		);
		// Nothing to do when it is all dust.
		if let Ok(tx) = sweep {
			self.broadcaster.broadcast(tx);
		}
	}

	pub(super) fn feed_monitors(&self, height: u32) {
		let mut tip = self.monitors_tip.lock().unwrap();
		*tip = self.chain.catch_up(&*self.listen, *tip, height);
	}

	pub(super) fn feed_manager(&self, height: u32) {
		let from = self.manager.current_best_block().block_hash;
		self.chain.catch_up(&*self.manager, from, height);
	}

	pub(super) fn monitors_height(&self) -> u32 {
		let tip = *self.monitors_tip.lock().unwrap();
		self.chain.height_of(&tip).expect("a block of this chain")
	}
}

/// Any number will do, as long as it is the same every time.
fn user_channel_id(temporary_channel_id: &[u8]) -> u128 {
	let hash = sha256::Hash::hash(temporary_channel_id).to_byte_array();
	u128::from_le_bytes(hash[..16].try_into().expect("16 bytes"))
}
