//! Payments over routes that are built by hand from the nodes' own channel lists.

use super::*;

use bitcoin::hashes::{sha256, Hash};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{PaymentId, RecentPaymentDetails};
use lightning::ln::msgs::BaseMessageHandler;
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::ln::types::ChannelId;
use lightning::routing::router::{Path, PaymentParameters, Route, RouteHop, RouteParameters};
use lightning::types::features::ChannelFeatures;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning::util::config::ChannelConfig;

/// How many blocks the recipient of a payment has to claim it.
pub const FINAL_CLTV_DELTA: u32 = 50;
/// Unclaimed inbound payments are refused after this much block time.
pub(super) const EXPIRY_SECS: u32 = 7_200;

/// A payment that was sent over this net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
	/// Who pays.
	pub from: Idx,
	/// Who is paid.
	pub to: Idx,
	/// How much arrives, over all parts.
	pub amount_msat: u64,
	/// The payment hash.
	pub hash: PaymentHash,
	/// What the recipient claims it with.
	pub preimage: PaymentPreimage,
	/// The sender's own name for it.
	pub id: PaymentId,
}

/// What has become of an outbound payment, as its sender's manager knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paid {
	/// Not resolved.
	Pending,
	/// Paid; the manager still remembers it.
	Fulfilled,
	/// Given up, but parts of it are still out.
	Abandoned,
	/// The manager does not know it (any more).
	Unknown,
}

impl LdkNet {
	/// Pays over the shortest path there is, and settles: the recipient then holds the payment
	/// until [`claim`](Self::claim) or [`fail`](Self::fail).
	///
	/// # Panics
	///
	/// When there is no path.
	pub fn pay(&mut self, from: Idx, to: Idx, msat: u64) -> Sent {
		let path = self.path(from, to);
		self.pay_via(&path, msat)
	}

	/// Pays along these nodes, the sender first, and settles.
	pub fn pay_via(&mut self, nodes: &[Idx], msat: u64) -> Sent {
		self.pay_parts(&[(nodes, msat)])
	}

	/// Pays in parts, each along its own nodes, and settles. Parts between the same two nodes take
	/// different channels.
	///
	/// # Panics
	///
	/// When there are not enough channels, or LDK does not send.
	pub fn pay_parts(&mut self, parts: &[(&[Idx], u64)]) -> Sent {
		let (from, to) = (parts[0].0[0], *parts[0].0.last().expect("a path"));
		let amount_msat = parts.iter().map(|(_, msat)| msat).sum();
		let mut used = Vec::new();
		let paths = parts.iter().map(|(nodes, msat)| self.hops(nodes, *msat, &mut used)).collect();
		let payee = PaymentParameters::from_node_id(self.id(to), FINAL_CLTV_DELTA);
		let route = Route {
			paths,
			route_params: Some(RouteParameters::from_payment_params_and_value(payee, amount_msat)),
		};
		let sent = self.expect_payment(from, to, amount_msat);
		let recipient = self.node(to).manager();
		let secret = recipient
			.create_inbound_payment_for_hash(sent.hash, Some(amount_msat), EXPIRY_SECS, None, None)
			.expect("a secret")
			.0;
		let onion = RecipientOnionFields::secret_only(secret, amount_msat);
		let sender = self.node(from).manager();
		sender
			.send_payment_with_route(route, sent.hash, onion, sent.id)
			.unwrap_or_else(|e| panic!("no payment from {from} to {to}: {e:?}"));
		self.settle();
		sent
	}

	/// The recipient claims the payment, and everything settles.
	pub fn claim(&mut self, hash: PaymentHash) {
		let sent = self.sent(hash);
		self.node(sent.to).manager().claim_funds(sent.preimage);
		self.settle();
	}

	/// The recipient gives the payment back, and everything settles.
	pub fn fail(&mut self, hash: PaymentHash) {
		let sent = self.sent(hash);
		self.node(sent.to).manager().fail_htlc_backwards(&hash);
		self.settle();
	}

	/// The payment with this hash.
	///
	/// # Panics
	///
	/// When it was not sent over this net.
	pub fn sent(&self, hash: PaymentHash) -> Sent {
		*self.sent.iter().find(|s| s.hash == hash).expect("sent over this net")
	}

	/// What has become of a payment, as its sender knows it.
	pub fn paid(&self, sent: &Sent) -> Paid {
		let all = self.payments(sent.from);
		let found = all.into_iter().find_map(|details| match details {
			RecentPaymentDetails::Pending { payment_id, .. } if payment_id == sent.id => {
				Some(Paid::Pending)
			},
			RecentPaymentDetails::Fulfilled { payment_id, .. } if payment_id == sent.id => {
				Some(Paid::Fulfilled)
			},
			RecentPaymentDetails::Abandoned { payment_id, .. } if payment_id == sent.id => {
				Some(Paid::Abandoned)
			},
			_ => None,
		});
		found.unwrap_or(Paid::Unknown)
	}

	/// The preimage comes from the seed, so it is known before anybody claims.
	fn expect_payment(&mut self, from: Idx, to: Idx, amount_msat: u64) -> Sent {
		let preimage = self.derive(b"preimage", self.sent.len() as u64);
		let hash = sha256::Hash::hash(&preimage).to_byte_array();
		let sent = Sent {
			from,
			to,
			amount_msat,
			hash: PaymentHash(hash),
			preimage: PaymentPreimage(preimage),
			id: PaymentId(hash),
		};
		self.sent.push(sent);
		sent
	}

	/// The shortest path over usable channels.
	fn path(&self, from: Idx, to: Idx) -> Vec<Idx> {
		let mut paths = vec![vec![from]];
		let mut seen = BTreeSet::from([from]);
		while !paths.is_empty() {
			let mut longer = Vec::new();
			for path in paths {
				let last = *path.last().expect("never empty");
				if last == to {
					return path;
				}
				for next in (0..self.len()).filter(|next| self.usable(last, *next).next().is_some())
				{
					if seen.insert(next) {
						longer.push(path.iter().copied().chain([next]).collect());
					}
				}
			}
			paths = longer;
		}
		panic!("no path from {from} to {to}")
	}

	fn usable(&self, from: Idx, to: Idx) -> impl Iterator<Item = ChannelDetails> {
		self.ready(from, to).filter(|c| c.is_usable)
	}

	/// Returns the channels that were ready once, whether the peer is there or not.
	pub(super) fn ready(&self, from: Idx, to: Idx) -> impl Iterator<Item = ChannelDetails> {
		let peer = self.id(to);
		let running = self.is_running(from) && self.is_running(to);
		let mut channels = if running { self.channels(from) } else { Vec::new() };
		channels.retain(|c| c.is_channel_ready && c.counterparty.node_id == peer);
		// They come from a hash map; the oldest first is the same order in every run.
		channels.sort_by_key(|c| (c.short_channel_id, c.channel_id.0));
		channels.into_iter()
	}

	/// Finds hops as [`try_hops`](Self::try_hops) does, for tests in which there must be a way.
	fn hops(&self, nodes: &[Idx], msat: u64, used: &mut Vec<ChannelId>) -> Path {
		self.try_hops(nodes, msat, used, false).unwrap_or_else(|e| panic!("{e}"))
	}

	/// Finds hops whose last channel is one that only the node before the payee knows: the payer
	/// takes fee and delta of that node's default settings, as an invoice would say.
	pub(super) fn try_hops_to_lsp(
		&self, nodes: &[Idx], msat: u64, used: &mut Vec<ChannelId>, scid: u64,
	) -> Result<Path, String> {
		let defaults = ChannelConfig::default();
		let (Some((payee, rest)), fee) = (nodes.split_last(), defaults.forwarding_fee_base_msat)
		else {
			return Err("a path has nodes".to_owned());
		};
		let mut path = self.try_hops(rest, msat + u64::from(fee), used, false)?;
		if let Some(lsp) = path.hops.last_mut() {
			lsp.fee_msat = fee.into();
			lsp.cltv_expiry_delta = defaults.cltv_expiry_delta.into();
		}
		path.hops.push(RouteHop {
			pubkey: self.id(*payee),
			node_features: self.node(*payee).manager().provided_node_features(),
			short_channel_id: scid,
			channel_features: ChannelFeatures::empty(),
			fee_msat: msat,
			cltv_expiry_delta: FINAL_CLTV_DELTA,
			maybe_announced_channel: true,
		});
		Ok(path)
	}

	/// Finds hops from the last one to the first, as the fees of each depend on what the next one
	/// forwards. If `blind`, also over channels whose peer is not there.
	pub(super) fn try_hops(
		&self, nodes: &[Idx], msat: u64, used: &mut Vec<ChannelId>, blind: bool,
	) -> Result<Path, String> {
		let (mut fee_msat, mut cltv_expiry_delta, mut forwarded) = (msat, FINAL_CLTV_DELTA, msat);
		let mut hops = Vec::new();
		for pair in nodes.windows(2).rev() {
			let (from, to) = (pair[0], pair[1]);
			let channel = self
				.ready(from, to)
				.filter(|c| blind || c.is_usable)
				.find(|c| c.outbound_capacity_msat >= forwarded && !used.contains(&c.channel_id))
				.ok_or_else(|| format!("no channel from {from} to {to} for {forwarded} msat"))?;
			used.push(channel.channel_id);
			let features = self.node(to).manager().provided_node_features();
			hops.push(RouteHop {
				pubkey: self.id(to),
				node_features: features,
				short_channel_id: channel.get_outbound_payment_scid().expect("usable"),
				channel_features: ChannelFeatures::empty(),
				fee_msat,
				cltv_expiry_delta,
				maybe_announced_channel: true,
			});
			// What `from` wants for forwarding over this channel is paid on the hop before it.
			let config = channel.config.expect("always there since 0.0.109");
			let part =
				forwarded * u64::from(config.forwarding_fee_proportional_millionths) / 1_000_000;
			fee_msat = u64::from(config.forwarding_fee_base_msat) + part;
			cltv_expiry_delta = u32::from(config.cltv_expiry_delta);
			forwarded += fee_msat;
		}
		hops.reverse();
		Ok(Path { hops, blinded_tail: None })
	}
}
