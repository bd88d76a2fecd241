//! The wishes of a net's users, said in a way that may fail: for scripts in which a node may be
//! dead, or a channel closed, when its user wants something.

use super::payments::{EXPIRY_SECS, FINAL_CLTV_DELTA};
use super::*;

use lightning::ln::channelmanager::{OptionalOfferPaymentParams, PaymentId};
use lightning::ln::outbound_payment::{RecipientOnionFields, Retry};
use lightning::ln::types::ChannelId;
use lightning::routing::router::{Path, PaymentParameters, Route, RouteParameters};
use lightning::types::payment::{PaymentHash, PaymentPreimage};

/// A payment that a user wants to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
	/// The nodes that each part takes, the payer first and the payee last, and the amount that
	/// arrives by it, in millisatoshi.
	pub parts: Vec<(Vec<Idx>, u64)>,
	/// The preimage with which the payee claims the payment.
	pub preimage: PaymentPreimage,
	/// The payer's id for the payment.
	pub id: PaymentId,
	/// `true` if the payee is told the preimage instead of an invoice's secret.
	pub keysend: bool,
	/// `true` if the payer asks for a BOLT12 invoice; then hash and preimage are the payee's choice.
	pub offer: bool,
	/// The last hop's channel, if it is not a channel that the payer knows: an intercept SCID.
	pub last_scid: Option<u64>,
	/// `true` if channels whose peer is not there are tried, too: then the payment fails at once.
	pub blind: bool,
}

impl Intent {
	/// Returns the payer.
	///
	/// # Panics
	///
	/// When the payment has no parts.
	pub fn payer(&self) -> Idx {
		self.parts[0].0[0]
	}

	/// Returns the payee.
	///
	/// # Panics
	///
	/// When the payment has no parts.
	pub fn payee(&self) -> Idx {
		*self.parts[0].0.last().expect("a path has nodes")
	}

	/// Returns the amount that arrives.
	pub fn amount_msat(&self) -> u64 {
		self.parts.iter().map(|(_, msat)| msat).sum()
	}

	/// Returns the payment hash.
	pub fn hash(&self) -> PaymentHash {
		self.preimage.into()
	}
}

impl LdkNet {
	/// Sends a payment, and lets nothing else happen.
	///
	/// # Errors
	///
	/// When there is no way now, or LDK does not send; the text says why.
	pub fn try_send(&self, intent: &Intent) -> Result<(), String> {
		let (payer, payee) = (intent.payer(), intent.payee());
		if !self.is_running(payer) || !self.is_running(payee) {
			return Err(format!("node {payer} or node {payee} does not run"));
		}
		let (hash, msat) = (intent.hash(), intent.amount_msat());
		let sender = self.node(payer).manager();
		if intent.keysend {
			let payee = PaymentParameters::for_keysend(self.id(payee), FINAL_CLTV_DELTA, false);
			let onion = RecipientOnionFields::spontaneous_empty(msat);
			let params = RouteParameters::from_payment_params_and_value(payee, msat);
			let preimage = Some(intent.preimage);
			let retry = Retry::Attempts(0);
			let sent = sender.send_spontaneous_payment(preimage, onion, intent.id, params, retry);
			return sent.map(|_| ()).map_err(|e| format!("not sent: {e:?}"));
		}
		if intent.offer {
			let offer = self.node(payee).manager().create_offer_builder();
			let offer = offer.and_then(|offer| offer.amount_msats(msat).build());
			let offer = offer.map_err(|e| format!("no offer: {e:?}"))?;
			let params = OptionalOfferPaymentParams::default();
			let sent = sender.pay_for_offer(&offer, None, intent.id, params);
			return sent.map_err(|e| format!("not sent: {e:?}"));
		}
		let mut used = Vec::new();
		let mut paths = Vec::new();
		for (nodes, msat) in &intent.parts {
			paths.push(match intent.last_scid {
				None => self.try_hops(nodes, *msat, &mut used, intent.blind)?,
				Some(scid) => self.try_hops_to_lsp(nodes, *msat, &mut used, scid)?,
			});
		}
		let recipient = self.node(payee).manager();
		let secret =
			recipient.create_inbound_payment_for_hash(hash, Some(msat), EXPIRY_SECS, None, None);
		let secret = secret.map_err(|()| "no secret".to_owned())?.0;
		let to = PaymentParameters::from_node_id(self.id(payee), FINAL_CLTV_DELTA);
		let route_params = Some(RouteParameters::from_payment_params_and_value(to, msat));
		let onion = RecipientOnionFields::secret_only(secret, msat);
		let sent =
			sender.send_payment_with_route(Route { paths, route_params }, hash, onion, intent.id);
		sent.map_err(|e| format!("not sent: {e:?}"))
	}

	/// Probes a way, and lets nothing else happen.
	///
	/// # Errors
	///
	/// When there is no way now, or LDK does not send; the text says why.
	pub fn try_probe(&self, nodes: &[Idx], msat: u64) -> Result<(), String> {
		let path: Path = self.try_hops(nodes, msat, &mut Vec::new(), false)?;
		let sent = self.node(nodes[0]).manager().send_probe(path);
		sent.map(|_| ()).map_err(|e| format!("not sent: {e:?}"))
	}

	/// Has a node ask another for a channel whose temporary id is chosen, and lets nothing else
	/// happen.
	///
	/// # Errors
	///
	/// When LDK refuses; the text says why.
	pub fn try_open_as(
		&self, from: Idx, to: Idx, sats: u64, temporary_id: ChannelId,
	) -> Result<(), String> {
		let manager = self.node(from).manager();
		let asked = manager.create_channel(self.id(to), sats, 0, 1, Some(temporary_id), None);
		asked.map(|_| ()).map_err(|e| format!("not asked for: {e:?}"))
	}
}
