//! The parts that LDK's background processor wants and a node of the net does not have: peers,
//! whose messages go through the net's own pump, and a sweeper.

use std::future::Future;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::ScriptBuf;
use lightning::chain::Filter;
use lightning::ln::msgs::{BaseMessageHandler, Init, MessageSendEvent, SendOnlyMessageHandler};
use lightning::ln::peer_handler::{
	ErroringMessageHandler, IgnoringMessageHandler, MessageHandler, PeerManager, SocketDescriptor,
};
use lightning::sign::{
	ChangeDestinationSource, ChangeDestinationSourceSync, EntropySource, KeysManager,
};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::sweep::{OutputSweeper, OutputSweeperSync};

use super::loop_store::LoopStore;
use super::turns::Turns;
use crate::node::NodeCore;
use crate::parts::{Broadcaster, FixedFees, NetLogger};

/// A socket of nobody: the net passes messages on by itself.
#[derive(Clone, Eq, Hash, PartialEq)]
pub(super) struct NoSocket;

impl SocketDescriptor for NoSocket {
	fn send_data(&mut self, _: &[u8], _: bool) -> usize {
		0
	}

	fn disconnect_socket(&mut self) {}
}

/// Counts the passes of the loop, in each of which LDK asks once for messages.
pub(super) struct Passes(pub(super) Arc<Turns>);

impl BaseMessageHandler for Passes {
	fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
		self.0.passed();
		Vec::new()
	}

	fn peer_disconnected(&self, _: PublicKey) {}

	fn provided_node_features(&self) -> NodeFeatures {
		NodeFeatures::empty()
	}

	fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
		InitFeatures::empty()
	}

	fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
		Ok(())
	}
}

impl SendOnlyMessageHandler for Passes {}

pub(super) type NoPeers = PeerManager<
	NoSocket,
	ErroringMessageHandler,
	IgnoringMessageHandler,
	IgnoringMessageHandler,
	Arc<NetLogger>,
	IgnoringMessageHandler,
	Arc<KeysManager>,
	Passes,
>;

pub(super) fn no_peers(core: &NodeCore, turns: &Arc<Turns>) -> NoPeers {
	let handler = MessageHandler {
		chan_handler: ErroringMessageHandler::new(),
		route_handler: IgnoringMessageHandler {},
		onion_message_handler: IgnoringMessageHandler {},
		custom_message_handler: IgnoringMessageHandler {},
		send_only_message_handler: Passes(Arc::clone(turns)),
	};
	let random = core.keys.get_secure_random_bytes();
	PeerManager::new(handler, 0, &random, Arc::clone(&core.logger), Arc::clone(&core.keys))
}

pub(super) struct NoChange;

impl ChangeDestinationSource for NoChange {
	fn get_change_destination_script<'a>(
		&'a self,
	) -> impl Future<Output = Result<ScriptBuf, ()>> + Send + 'a {
		std::future::ready(Err(()))
	}
}

impl ChangeDestinationSourceSync for NoChange {
	fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
		Err(())
	}
}

pub(super) type NoSweeper = OutputSweeper<
	Arc<Broadcaster>,
	Arc<NoChange>,
	Arc<FixedFees>,
	Arc<dyn Filter + Send + Sync>,
	LoopStore,
	Arc<NetLogger>,
	Arc<KeysManager>,
>;

pub(super) type NoSweeperSync = OutputSweeperSync<
	Arc<Broadcaster>,
	Arc<NoChange>,
	Arc<FixedFees>,
	Arc<dyn Filter + Send + Sync>,
	Arc<LoopStore>,
	Arc<NetLogger>,
	Arc<KeysManager>,
>;
