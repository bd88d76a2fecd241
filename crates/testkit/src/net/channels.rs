//! Connections and channels.

use super::*;

use bitcoin::{Amount, FeeRate, TxOut};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::RecentPaymentDetails;
use lightning::ln::funding::{FundingContribution, FundingTemplate};
use lightning::ln::msgs::{BaseMessageHandler, Init};
use lightning::ln::types::ChannelId;

use crate::guard::Asked;

/// What splices pay for each 1000 weight units.
const SPLICE_SAT_PER_KW: u64 = 253;

impl LdkNet {
	/// Connects two running nodes, if they are not connected yet, and settles.
	pub fn connect(&mut self, a: Idx, b: Idx) {
		self.link(a, b);
		self.settle();
	}

	/// Connects two running nodes without letting anything happen yet.
	pub fn link(&mut self, a: Idx, b: Idx) {
		if !self.links.insert((a.min(b), a.max(b))) {
			return;
		}
		for (from, to, inbound) in [(a, b, true), (b, a, false)] {
			let manager = self.node(from).manager();
			let messenger = self.node(from).messenger();
			let init = Init {
				features: manager.provided_init_features(self.id(to))
					| messenger.provided_init_features(self.id(to)),
				networks: None,
				remote_network_address: None,
			};
			let connected = self.node(to).manager().peer_connected(self.id(from), &init, inbound);
			connected.expect("a peer that can be talked to");
			let messenger = self.node(to).messenger();
			let connected = messenger.peer_connected(self.id(from), &init, inbound);
			connected.expect("a peer that can be talked to");
		}
	}

	/// Takes the connection between two nodes away. What was said and not heard is lost.
	pub fn disconnect(&mut self, a: Idx, b: Idx) {
		if !self.links.remove(&(a.min(b), a.max(b))) {
			return;
		}
		for (n, peer) in [(a, b), (b, a)] {
			if self.is_running(n) {
				self.node(n).manager().peer_disconnected(self.id(peer));
				self.node(n).messenger().peer_disconnected(self.id(peer));
			}
		}
	}

	/// Takes all connections of a node away.
	pub fn disconnect_all(&mut self, n: Idx) {
		for peer in 0..self.len() {
			self.disconnect(n, peer);
		}
	}

	/// Whether two nodes are connected.
	pub fn connected(&self, a: Idx, b: Idx) -> bool {
		self.links.contains(&(a.min(b), a.max(b)))
	}

	/// Opens a channel funded by `a`, mines until both can use it, and returns its id.
	///
	/// # Panics
	///
	/// When it does not become usable.
	pub fn open_channel(&mut self, a: Idx, b: Idx, sats: u64) -> ChannelId {
		self.open_channel_pushing(a, b, sats, 0)
	}

	/// Like [`open_channel`](Self::open_channel), with `push_msat` given to `b` at once.
	pub fn open_channel_pushing(&mut self, a: Idx, b: Idx, sats: u64, push_msat: u64) -> ChannelId {
		let before: Vec<_> = self.channels(a).iter().map(|c| c.channel_id).collect();
		let user_id = u128::from(self.chain.height()) << 32 | before.len() as u128;
		let manager = self.node(a).manager();
		let created = manager.create_channel(self.id(b), sats, push_msat, user_id, None, None);
		created.unwrap_or_else(|e| panic!("no channel from {a} to {b}: {e:?}"));
		self.settle();
		let is_new = |c: &ChannelDetails| c.is_usable && !before.contains(&c.channel_id);
		self.mine_until(10, |net| net.channels(a).iter().any(is_new));
		let new = self.channels(a).into_iter().find(is_new).expect("just seen");
		self.mine_until(3, |net| net.channel(b, new.channel_id).is_some_and(|c| c.is_usable));
		new.channel_id
	}

	/// The channels which the node's manager considers open.
	pub fn channels(&self, n: Idx) -> Vec<ChannelDetails> {
		self.node(n).channels()
	}

	/// One of them.
	pub fn channel(&self, n: Idx, id: ChannelId) -> Option<ChannelDetails> {
		self.channels(n).into_iter().find(|c| c.channel_id == id)
	}

	/// Outbound payments as the node's manager knows them.
	pub fn payments(&self, n: Idx) -> Vec<RecentPaymentDetails> {
		self.node(n).payments()
	}

	/// Closes a channel from `n`'s side by broadcasting its commitment, and settles. A connected
	/// peer hears of it and closes too: disconnect first if it should not.
	///
	/// # Panics
	///
	/// When there is no such channel.
	pub fn force_close(&mut self, n: Idx, id: ChannelId) {
		let peer = self.channel(n, id).expect("an open channel").counterparty.node_id;
		let manager = self.node(n).manager();
		let closed = manager.force_close_broadcasting_latest_txn(&id, &peer, "asked to".to_owned());
		closed.unwrap_or_else(|e| panic!("node {n} cannot close {id}: {e:?}"));
		self.settle();
	}

	/// Closes a channel together with the peer, and settles. The closing transaction then waits in
	/// the mempool.
	///
	/// # Panics
	///
	/// When there is no such channel.
	pub fn close(&mut self, n: Idx, id: ChannelId) {
		let peer = self.channel(n, id).expect("an open channel").counterparty.node_id;
		let closing = self.node(n).manager().close_channel(&id, &peer);
		closing.unwrap_or_else(|e| panic!("node {n} cannot close {id}: {e:?}"));
		self.settle();
	}

	/// Moves `sats` from the wallet of `n` into a channel, and settles. Once it is negotiated the
	/// splice transaction waits in the mempool.
	///
	/// # Panics
	///
	/// When LDK refuses.
	pub fn splice_in(&mut self, n: Idx, id: ChannelId, sats: u64) {
		let node = self.node(n);
		let wallet = node.coin_selection().as_ref();
		let (amount, rate) = (Amount::from_sat(sats), FeeRate::from_sat_per_kwu(SPLICE_SAT_PER_KW));
		let contribution =
			self.splice_template(n, id).splice_in_sync(amount, rate, FeeRate::MAX, wallet);
		self.contribute(n, id, contribution.expect("enough coins"));
	}

	/// Moves `sats` from a channel into the wallet of `n`, and settles. Once it is negotiated the
	/// splice transaction waits in the mempool.
	///
	/// # Panics
	///
	/// When LDK refuses.
	pub fn splice_out(&mut self, n: Idx, id: ChannelId, sats: u64) {
		let script_pubkey = self.node(n).wallet().script();
		let outputs = vec![TxOut { value: Amount::from_sat(sats), script_pubkey }];
		let template = self.splice_template(n, id);
		// A splice that is pending is replaced.
		let least = FeeRate::from_sat_per_kwu(SPLICE_SAT_PER_KW);
		let rate = template.min_rbf_feerate().map_or(least, |replacing| replacing.max(least));
		let contribution = template.splice_out(outputs, rate, FeeRate::MAX);
		self.contribute(n, id, contribution.expect("enough in the channel"));
	}

	/// The user of `n` asks for a splice: through what keeps splices in the node, or of LDK.
	/// Nothing settles.
	///
	/// # Panics
	///
	/// When it is refused.
	pub fn ask_for_splice(&mut self, n: Idx, id: ChannelId, asked: Asked) {
		let taken = self.try_ask_for_splice(n, id, asked);
		taken.unwrap_or_else(|e| panic!("node {n} cannot splice {id}: {e}"));
	}

	/// Asks for a splice as [`ask_for_splice`](Self::ask_for_splice) does.
	///
	/// # Errors
	///
	/// When it is refused; the text says why.
	pub fn try_ask_for_splice(
		&mut self, n: Idx, id: ChannelId, asked: Asked,
	) -> Result<(), String> {
		let channel = self.channel(n, id).ok_or("no such channel")?;
		if let Some(taken) = self.node(n).guard().splice(&channel, &asked) {
			return taken;
		}
		let peer = channel.counterparty.node_id;
		let template = self.node(n).manager().splice_channel(&id, &peer);
		let template = template.map_err(|e| format!("{e:?}"))?;
		let least = FeeRate::from_sat_per_kwu(SPLICE_SAT_PER_KW);
		let wallet = self.node(n).coin_selection().as_ref();
		let contribution = match asked {
			Asked::In { sats } => {
				template.splice_in_sync(Amount::from_sat(sats), least, FeeRate::MAX, wallet)
			},
			Asked::Out { sats, script } => {
				let output = TxOut { value: Amount::from_sat(sats), script_pubkey: script };
				template.splice_out(vec![output], least, FeeRate::MAX)
			},
			Asked::Bump { sat_per_kw } => {
				let rate = FeeRate::from_sat_per_kwu(sat_per_kw);
				template.rbf_prior_contribution_sync(Some(rate), FeeRate::MAX, wallet)
			},
		};
		let contribution = contribution.map_err(|e| format!("{e:?}"))?;
		let taken = self.node(n).manager().funding_contributed(&id, &peer, contribution, None);
		taken.map_err(|e| format!("{e:?}"))
	}

	fn splice_template(&self, n: Idx, id: ChannelId) -> FundingTemplate {
		let peer = self.channel(n, id).expect("an open channel").counterparty.node_id;
		let template = self.node(n).manager().splice_channel(&id, &peer);
		template.unwrap_or_else(|e| panic!("node {n} cannot splice {id}: {e:?}"))
	}

	fn contribute(&mut self, n: Idx, id: ChannelId, contribution: FundingContribution) {
		let peer = self.channel(n, id).expect("an open channel").counterparty.node_id;
		let done = self.node(n).manager().funding_contributed(&id, &peer, contribution, None);
		done.unwrap_or_else(|e| panic!("node {n} cannot splice {id}: {e:?}"));
		self.settle();
	}

	/// Which node has this public key.
	pub fn find(&self, id: &PublicKey) -> Option<Idx> {
		self.slots.iter().position(|slot| slot.id == *id)
	}
}
