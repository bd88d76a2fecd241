//! Onion messages between nodes that are connected, by which BOLT12 invoices are asked for.

use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::ln::peer_handler::IgnoringMessageHandler;
use lightning::onion_message::messenger::{
	Destination, MessageRouter, OnionMessagePath, OnionMessenger,
};
use lightning::sign::{KeysManager, ReceiveAuthKey};

use crate::parts::{NetLogger, NetManager};

/// The onion messenger of every node.
pub type NetMessenger = OnionMessenger<
	Arc<KeysManager>,
	Arc<KeysManager>,
	Arc<NetLogger>,
	Arc<NetManager>,
	Arc<DirectMessages>,
	Arc<NetManager>,
	IgnoringMessageHandler,
	IgnoringMessageHandler,
	IgnoringMessageHandler,
>;

/// Sends messages straight to their destination, which must be a peer; paths to the node itself have
/// one hop.
pub struct DirectMessages(pub Arc<KeysManager>);

impl MessageRouter for DirectMessages {
	fn find_path(
		&self, _: PublicKey, _: Vec<PublicKey>, destination: Destination,
	) -> Result<OnionMessagePath, ()> {
		let (intermediate_nodes, first_node_addresses) = (Vec::new(), Vec::new());
		Ok(OnionMessagePath { intermediate_nodes, destination, first_node_addresses })
	}

	fn create_blinded_paths<T: Signing + Verification>(
		&self, recipient: PublicKey, key: ReceiveAuthKey, context: MessageContext,
		_: Vec<MessageForwardNode>, secp: &Secp256k1<T>,
	) -> Result<Vec<BlindedMessagePath>, ()> {
		let entropy = Arc::clone(&self.0);
		Ok(vec![BlindedMessagePath::one_hop(recipient, key, context, false, entropy, secp)])
	}
}
