//! The message pump.

use super::*;

use lightning::ln::msgs::{
	ChannelMessageHandler, ErrorAction, MessageSendEvent, OnionMessageHandler, TxAbort,
};
use lightning::ln::types::ChannelId;

/// A message that will not be said.
pub(super) struct Cut {
	from: Idx,
	message: String,
	instead: Instead,
}

enum Instead {
	HangUp,
	Abort(ChannelId),
}

impl LdkNet {
	/// Delivers what a node wants to say to those it is connected to, and returns how much that
	/// was. What is said to others is lost, as on a socket that is gone.
	pub(super) fn deliver_from(&mut self, from: Idx) -> usize {
		let mut messages = self.node(from).drain();
		// Peers are in a hash map inside LDK. Sorted by peer, and in order for each, the run
		// repeats.
		messages.sort_by_key(|m| target(m).and_then(|id| self.find(&id)));
		let mut delivered = 0;
		for message in messages {
			let Some(to) = target(&message).and_then(|id| self.find(&id)) else { continue };
			let heard = self.connected(from, to) && self.takes_part(to);
			if heard {
				if let Some(instead) = self.cut_here(from, &message) {
					match instead {
						Instead::HangUp => self.disconnect(from, to),
						Instead::Abort(channel) => self.abort(from, to, channel),
					}
					continue;
				}
			}
			// A sender that has died meanwhile says nothing more.
			if heard && self.is_running(from) {
				self.deliver(from, to, message);
				delivered += 1;
			}
		}
		delivered
	}

	/// Delivers onion messages until there are none, and lets nothing else happen.
	pub fn exchange_onion_messages(&self) {
		let running = |n: &Idx| self.takes_part(*n);
		while (0..self.len()).filter(running).any(|n| self.deliver_onion_messages(n) > 0) {}
	}

	/// Delivers a node's onion messages to those it is connected to, and returns how many there were.
	pub(super) fn deliver_onion_messages(&self, from: Idx) -> usize {
		let mut delivered = 0;
		for to in (0..self.len()).filter(|to| self.connected(from, *to) && self.takes_part(*to)) {
			while self.is_running(from) {
				let messenger = self.node(from).messenger();
				let Some(msg) = messenger.next_onion_message_for_peer(self.id(to)) else { break };
				self.node(to).messenger().handle_onion_message(self.id(from), &msg);
				delivered += 1;
			}
		}
		delivered
	}

	/// The next time that `from` wants to say `message` (a variant of LDK's `MessageSendEvent`), it
	/// is lost, and so is the connection to whom it was for.
	pub fn cut_before(&mut self, from: Idx, message: &str) {
		self.cut = Some(Cut { from, message: message.to_owned(), instead: Instead::HangUp });
	}

	/// The next time that `from` wants to say `message`, it says `tx_abort` for the channel instead:
	/// a peer that has changed its mind, or is not LDK.
	pub fn abort_before(&mut self, from: Idx, message: &str, channel: ChannelId) {
		let instead = Instead::Abort(channel);
		self.cut = Some(Cut { from, message: message.to_owned(), instead });
	}

	/// Whether what was to be cut was cut.
	pub fn was_cut(&self) -> bool {
		self.cut.is_none()
	}

	fn cut_here(&mut self, from: Idx, message: &MessageSendEvent) -> Option<Instead> {
		let meant = |cut: &Cut| {
			cut.from == from && format!("{message:?}").starts_with(cut.message.as_str())
		};
		self.cut.take_if(|cut| meant(cut)).map(|cut| cut.instead)
	}

	/// What was negotiated at `from` goes too: LDK at `to` answers with a `tx_abort` of its own.
	fn abort(&self, from: Idx, to: Idx, channel_id: ChannelId) {
		let msg = TxAbort { channel_id, data: b"changed my mind".to_vec() };
		self.node(to).manager().handle_tx_abort(self.id(from), &msg);
	}

	fn deliver(&mut self, from: Idx, to: Idx, message: MessageSendEvent) {
		use MessageSendEvent as M;
		let id = self.id(from);
		let cm = std::sync::Arc::clone(self.node(to).manager());
		match message {
			M::SendOpenChannel { msg, .. } => cm.handle_open_channel(id, &msg),
			M::SendOpenChannelV2 { msg, .. } => cm.handle_open_channel_v2(id, &msg),
			M::SendAcceptChannel { msg, .. } => cm.handle_accept_channel(id, &msg),
			M::SendAcceptChannelV2 { msg, .. } => cm.handle_accept_channel_v2(id, &msg),
			M::SendFundingCreated { msg, .. } => cm.handle_funding_created(id, &msg),
			M::SendFundingSigned { msg, .. } => cm.handle_funding_signed(id, &msg),
			M::SendChannelReady { msg, .. } => cm.handle_channel_ready(id, &msg),
			M::SendChannelReestablish { msg, .. } => cm.handle_channel_reestablish(id, &msg),
			M::SendAnnouncementSignatures { msg, .. } => {
				cm.handle_announcement_signatures(id, &msg)
			},
			M::SendChannelUpdate { msg, .. } => cm.handle_channel_update(id, &msg),
			M::SendShutdown { msg, .. } => cm.handle_shutdown(id, &msg),
			M::SendClosingSigned { msg, .. } => cm.handle_closing_signed(id, &msg),
			M::SendStfu { msg, .. } => cm.handle_stfu(id, &msg),
			M::SendSpliceInit { msg, .. } => cm.handle_splice_init(id, &msg),
			M::SendSpliceAck { msg, .. } => cm.handle_splice_ack(id, &msg),
			M::SendSpliceLocked { msg, .. } => cm.handle_splice_locked(id, &msg),
			M::SendTxAddInput { msg, .. } => cm.handle_tx_add_input(id, &msg),
			M::SendTxAddOutput { msg, .. } => cm.handle_tx_add_output(id, &msg),
			M::SendTxRemoveInput { msg, .. } => cm.handle_tx_remove_input(id, &msg),
			M::SendTxRemoveOutput { msg, .. } => cm.handle_tx_remove_output(id, &msg),
			M::SendTxComplete { msg, .. } => cm.handle_tx_complete(id, &msg),
			M::SendTxSignatures { msg, .. } => cm.handle_tx_signatures(id, &msg),
			M::SendTxInitRbf { msg, .. } => cm.handle_tx_init_rbf(id, &msg),
			M::SendTxAckRbf { msg, .. } => cm.handle_tx_ack_rbf(id, &msg),
			M::SendTxAbort { msg, .. } => cm.handle_tx_abort(id, &msg),
			M::SendRevokeAndACK { msg, .. } => cm.handle_revoke_and_ack(id, &msg),
			M::SendPeerStorage { msg, .. } => cm.handle_peer_storage(id, msg),
			M::SendPeerStorageRetrieval { msg, .. } => cm.handle_peer_storage_retrieval(id, msg),
			M::UpdateHTLCs { channel_id, mut updates, .. } => {
				for msg in &updates.update_add_htlcs {
					cm.handle_update_add_htlc(id, msg);
				}
				for msg in updates.update_fulfill_htlcs {
					cm.handle_update_fulfill_htlc(id, msg);
				}
				for msg in &updates.update_fail_htlcs {
					cm.handle_update_fail_htlc(id, msg);
				}
				for msg in &updates.update_fail_malformed_htlcs {
					cm.handle_update_fail_malformed_htlc(id, msg);
				}
				if let Some(msg) = &updates.update_fee {
					cm.handle_update_fee(id, msg);
				}
				// While a splice is pending there is one signature per funding transaction.
				if updates.commitment_signed.len() == 1 {
					cm.handle_commitment_signed(id, &updates.commitment_signed.remove(0));
				} else {
					cm.handle_commitment_signed_batch(id, channel_id, updates.commitment_signed);
				}
			},
			M::HandleError { action, .. } => self.complain(from, to, action),
			// Gossip, which nobody here needs: routes are given by hand.
			_ => {},
		}
	}

	fn complain(&mut self, from: Idx, to: Idx, action: ErrorAction) {
		let (error, text, hang_up) = match action {
			ErrorAction::SendErrorMessage { msg } => (Some(msg.clone()), msg.data, false),
			ErrorAction::DisconnectPeer { msg } => {
				let text = msg.as_ref().map_or_else(String::new, |m| m.data.clone());
				(msg, text, true)
			},
			ErrorAction::DisconnectPeerWithWarning { msg } => (None, msg.data, true),
			ErrorAction::SendWarningMessage { msg, .. } => (None, msg.data, false),
			_ => return,
		};
		self.complaints.push(format!("{from} to {to}: {text}"));
		if let Some(msg) = error {
			self.node(to).manager().handle_error(self.id(from), &msg);
		}
		if hang_up {
			self.disconnect(from, to);
		}
	}
}

/// Whom a message is for; `None` for gossip to everybody.
fn target(message: &MessageSendEvent) -> Option<PublicKey> {
	use MessageSendEvent as M;
	match message {
		M::SendAcceptChannel { node_id, .. }
		| M::SendAcceptChannelV2 { node_id, .. }
		| M::SendOpenChannel { node_id, .. }
		| M::SendOpenChannelV2 { node_id, .. }
		| M::SendFundingCreated { node_id, .. }
		| M::SendFundingSigned { node_id, .. }
		| M::SendStfu { node_id, .. }
		| M::SendSpliceInit { node_id, .. }
		| M::SendSpliceAck { node_id, .. }
		| M::SendSpliceLocked { node_id, .. }
		| M::SendTxAddInput { node_id, .. }
		| M::SendTxAddOutput { node_id, .. }
		| M::SendTxRemoveInput { node_id, .. }
		| M::SendTxRemoveOutput { node_id, .. }
		| M::SendTxComplete { node_id, .. }
		| M::SendTxSignatures { node_id, .. }
		| M::SendTxInitRbf { node_id, .. }
		| M::SendTxAckRbf { node_id, .. }
		| M::SendTxAbort { node_id, .. }
		| M::SendChannelReady { node_id, .. }
		| M::SendAnnouncementSignatures { node_id, .. }
		| M::UpdateHTLCs { node_id, .. }
		| M::SendRevokeAndACK { node_id, .. }
		| M::SendClosingSigned { node_id, .. }
		| M::SendShutdown { node_id, .. }
		| M::SendChannelReestablish { node_id, .. }
		| M::SendChannelUpdate { node_id, .. }
		| M::HandleError { node_id, .. }
		| M::SendPeerStorage { node_id, .. }
		| M::SendPeerStorageRetrieval { node_id, .. } => Some(*node_id),
		_ => None,
	}
}
