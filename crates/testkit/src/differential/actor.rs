//! The program of a node's user: it does what events ask for, and its memory outlives the node.
//!
//! The same program runs with every wiring. With LDK alone it is called in the event handler; with
//! Leyden it is called when the consumer delivers, before the ack. It answers each request every
//! time that it hears of it, as LDK's documentation asks for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::secp256k1::PublicKey;
use leyden_id::EventId;
use lightning::events::Event;
use lightning::ln::channelmanager::{InterceptId, PaymentId};
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};

use crate::guard::NodeHandle;
use crate::node::event_name;

/// The user's way with payments that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
	/// Takes them at once.
	AtOnce,
	/// Holds them until [`Actor::claim_held`].
	Later,
	/// Gives them back.
	GiveBack,
}

/// The user's way with HTLCs that are intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intercept {
	/// Sends them on to this peer.
	Forward(PublicKey),
	/// Opens a channel with this peer, unless there is one, and sends them on over it: LSPS2.
	Open {
		/// The peer.
		to: PublicKey,
		/// The size of the channel, in satoshi.
		sats: u64,
	},
	/// Gives them back.
	GiveBack,
}

/// The user's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
	/// The decision about payments.
	pub claim: Claim,
	/// The decision about intercepted HTLCs.
	pub intercept: Intercept,
}

/// An event as the user was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
	/// The event's kind and what sets it apart from others; the same in all runs.
	pub key: String,
	/// `true` if the key is as good as an id: two events with this key are one.
	pub exact: bool,
	/// The id under which the user was told. LDK alone has none, and neither have events that never
	/// get into the log.
	pub id: Option<EventId>,
	/// `true` if the event was said to be a repeat.
	pub repeat: bool,
}

/// An answer that the user still has to give.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owed {
	Forward { id: InterceptId, to: PublicKey, msat: u64, opens_sats: Option<u64> },
	GiveBackIntercepted(InterceptId),
}

#[derive(Debug)]
struct Memory {
	policy: Policy,
	tellings: Vec<Telling>,
	attempts: BTreeMap<[u8; 32], u32>,
	held: Vec<PaymentHash>,
	/// The user wants the payments that it holds: LDK is told again, in every life.
	claims: bool,
	owed: Vec<Owed>,
	reasons: BTreeMap<[u8; 32], String>,
}

/// The preimages that users of the net know.
pub type Preimages = Arc<Mutex<BTreeMap<[u8; 32], PaymentPreimage>>>;

/// The program of a node's user; see the [module documentation](self).
pub struct Actor {
	memory: Mutex<Memory>,
	preimages: Preimages,
}

impl Actor {
	/// Makes a user who claims at once and gives back what is intercepted.
	pub fn new(preimages: Preimages) -> Arc<Self> {
		let policy = Policy { claim: Claim::AtOnce, intercept: Intercept::GiveBack };
		let memory = Mutex::new(Memory {
			policy,
			tellings: Vec::new(),
			attempts: BTreeMap::new(),
			held: Vec::new(),
			claims: false,
			owed: Vec::new(),
			reasons: BTreeMap::new(),
		});
		Arc::new(Self { memory, preimages })
	}

	/// Changes the user's policy.
	pub fn decide(&self, policy: Policy) {
		self.memory().policy = policy;
	}

	/// Returns the user's policy.
	pub fn policy(&self) -> Policy {
		self.memory().policy
	}

	/// Returns what the user was told, over all lives.
	pub fn tellings(&self) -> Vec<Telling> {
		self.memory().tellings.clone()
	}

	/// Returns whether the user was told of an event whose key begins so.
	pub fn was_told(&self, key: &str) -> bool {
		self.memory().tellings.iter().any(|telling| telling.key.starts_with(key))
	}

	/// Notes that the user has sent a payment under this id (again).
	pub fn sends(&self, id: PaymentId) {
		*self.memory().attempts.entry(id.0).or_default() += 1;
	}

	/// Takes [`sends`](Actor::sends) back: LDK did not take the payment.
	pub fn did_not_send(&self, id: PaymentId) {
		if let Some(attempts) = self.memory().attempts.get_mut(&id.0) {
			*attempts -= 1;
		}
	}

	/// Returns how often the user has sent a payment under this id.
	pub fn attempts(&self, id: PaymentId) -> u32 {
		self.memory().attempts.get(&id.0).copied().unwrap_or_default()
	}

	/// Returns the reason for which a channel closed, as the user was told.
	pub fn closed(&self, channel: ChannelId) -> Option<String> {
		self.memory().reasons.get(&channel.0).cloned()
	}

	/// Tells the user of an event of LDK; the user does what it asks for. A dead node tells
	/// nothing.
	pub fn told(&self, node: &NodeHandle, event: &Event, id: Option<EventId>, repeat: bool) {
		if !node.is_alive() {
			return;
		}
		self.remember(event, id, repeat);
		let (Some(manager), policy) = (node.manager(), self.policy()) else { return };
		match event {
			Event::PaymentClaimable { payment_hash, purpose, .. } => match policy.claim {
				Claim::AtOnce => {
					let known = self.preimages.lock().unwrap().get(&payment_hash.0).copied();
					if let Some(preimage) = purpose.preimage().or(known) {
						manager.claim_funds(preimage);
					}
				},
				Claim::Later => self.memory().held.push(*payment_hash),
				Claim::GiveBack => manager.fail_htlc_backwards(payment_hash),
			},
			Event::InvoiceReceived { invoice, context, .. } => {
				// Refused if the invoice is being paid already.
				let _ = manager.send_payment_for_bolt12_invoice(invoice, context.as_ref());
			},
			Event::HTLCIntercepted { intercept_id, expected_outbound_amount_msat, .. } => {
				let owed = match policy.intercept {
					Intercept::Forward(to) => {
						let msat = *expected_outbound_amount_msat;
						Owed::Forward { id: *intercept_id, to, msat, opens_sats: None }
					},
					Intercept::Open { to, sats } => {
						let (id, msat) = (*intercept_id, *expected_outbound_amount_msat);
						Owed::Forward { id, to, msat, opens_sats: Some(sats) }
					},
					Intercept::GiveBack => Owed::GiveBackIntercepted(*intercept_id),
				};
				if !answer(node, &owed) && !self.memory().owed.contains(&owed) {
					self.memory().owed.push(owed);
				}
			},
			_ => {},
		}
	}

	/// Claims the payments that the user holds. They are remembered, so that this may come again.
	pub fn claim_held(&self, node: &NodeHandle) {
		let held = self.memory().held.clone();
		// From now on the user wants what is told again.
		self.memory().policy.claim = Claim::AtOnce;
		self.memory().claims = true;
		self.claim(node, held);
	}

	/// Claims payments; LDK does nothing for those that it does not hold.
	fn claim(&self, node: &NodeHandle, held: Vec<PaymentHash>) {
		for hash in held {
			let preimage = self.preimages.lock().unwrap().get(&hash.0).copied();
			if let (Some(manager), Some(preimage)) = (node.manager(), preimage) {
				manager.claim_funds(preimage);
			}
		}
	}

	/// Gives the answers again that LDK refused because a peer was not there, and claims again what
	/// LDK may have forgotten in a death: that is up to the user of a hold invoice.
	pub fn tries_again(&self, node: &NodeHandle) {
		if self.memory().claims {
			let held = self.memory().held.clone();
			self.claim(node, held);
		}
		let owed = std::mem::take(&mut self.memory().owed);
		let left: Vec<_> = owed.into_iter().filter(|owed| !answer(node, owed)).collect();
		self.memory().owed.extend(left);
	}

	/// Sorts ends of payments that were told after the next attempt was made: a store in trouble
	/// delays them. An attempt of which the user has heard no end gets the first of several ends,
	/// each with its own id, of the attempt after it.
	pub fn sort_late_ends(&self) {
		let mut memory = self.memory();
		let attempts: Vec<_> = memory.attempts.iter().map(|(id, made)| (*id, *made)).collect();
		for (payment, made) in attempts {
			for attempt in (1..made).rev() {
				let of = |attempt: u32| {
					let fields = format!(" {}", fields_of_end(&payment, attempt));
					move |telling: &Telling| telling.key.ends_with(&fields)
				};
				if memory.tellings.iter().any(of(attempt)) {
					continue;
				}
				let later = of(attempt + 1);
				let ids: Vec<_> =
					memory.tellings.iter().filter(|t| later(t)).map(|t| t.id).collect();
				let Some(first) = ids.first().copied().filter(|id| id.is_some()) else { continue };
				if ids.iter().all(|id| *id == first) {
					continue;
				}
				for telling in memory.tellings.iter_mut().filter(|t| t.id == first) {
					let kind = telling.key.split(' ').next().unwrap_or_default().to_owned();
					telling.key = format!("{kind} {}", fields_of_end(&payment, attempt));
				}
			}
		}
	}

	/// Remembers an event without doing anything: for events that the user only hears of.
	pub fn remember(&self, event: &Event, id: Option<EventId>, repeat: bool) {
		let mut memory = self.memory();
		if let Event::ChannelClosed { channel_id, reason, .. } = event {
			memory.reasons.insert(channel_id.0, format!("{reason:?}"));
		}
		let attempts = &memory.attempts;
		let attempt = |id: &PaymentId| attempts.get(&id.0).copied().unwrap_or_default();
		if let Some((fields, exact)) = fields(event, attempt) {
			let key = format!("{} {fields}", event_name(event));
			// The same id is the same event, whatever the user has done since.
			let same = memory.tellings.iter().find(|told| id.is_some() && told.id == id);
			let key = same.map_or(key, |told| told.key.clone());
			memory.tellings.push(Telling { key, exact, id, repeat });
		}
	}

	fn memory(&self) -> MutexGuard<'_, Memory> {
		self.memory.lock().unwrap_or_else(|e| e.into_inner())
	}
}

/// Gives an answer. Returns whether it was taken, or there is nothing to answer any more.
fn answer(node: &NodeHandle, owed: &Owed) -> bool {
	use lightning::util::errors::APIError;
	let Some(manager) = node.manager() else { return false };
	let given = match owed {
		Owed::Forward { id, to, msat, opens_sats } => {
			let mut channels = manager.list_channels_with_counterparty(to);
			if let (Some(sats), true) = (opens_sats, channels.is_empty()) {
				// Refused while the peer is away: tried again.
				let _ = manager.create_channel(*to, *sats, 0, 0, None, None);
				return false;
			}
			channels.sort_by_key(|c| (c.short_channel_id, c.channel_id.0));
			let Some(channel) = channels.iter().find(|c| c.is_usable) else { return false };
			manager.forward_intercepted_htlc(*id, &channel.channel_id, *to, *msat)
		},
		Owed::GiveBackIntercepted(id) => manager.fail_intercepted_htlc(*id),
	};
	!matches!(given, Err(APIError::ChannelUnavailable { .. }))
}

/// Returns the first bytes in hexadecimal.
pub(super) fn short_hex(bytes: &[u8]) -> String {
	bytes.iter().take(6).map(|b| format!("{b:02x}")).collect()
}

fn fields_of_end(payment: &[u8], attempt: u32) -> String {
	format!("{} attempt {attempt}", short_hex(payment))
}

/// Returns what sets an event apart from others, in all runs, and whether that is exact; `None` for
/// an event that comes as often as LDK likes.
fn fields(event: &Event, attempt: impl Fn(&PaymentId) -> u32) -> Option<(String, bool)> {
	Some(match event {
		Event::PaymentClaimable { payment_hash, .. }
		| Event::PaymentClaimed { payment_hash, .. } => (short_hex(&payment_hash.0), false),
		Event::PaymentSent { payment_id: Some(id), .. }
		| Event::PaymentFailed { payment_id: id, .. } => (fields_of_end(&id.0, attempt(id)), true),
		Event::InvoiceReceived { payment_id, .. } => (short_hex(&payment_id.0), true),
		Event::HTLCIntercepted { intercept_id, .. } => (short_hex(&intercept_id.0), true),
		Event::PaymentForwarded { prev_htlcs, .. } => {
			let htlcs = prev_htlcs.iter();
			let htlcs = htlcs.map(|h| format!("{} {:?}", short_hex(&h.channel_id.0), h.htlc_id));
			(htlcs.collect::<Vec<_>>().join(", "), true)
		},
		Event::ChannelPending { channel_id, funding_txo, .. } => {
			(format!("{} {funding_txo}", short_hex(&channel_id.0)), true)
		},
		Event::ChannelReady { channel_id, .. } => (short_hex(&channel_id.0), false),
		Event::ChannelClosed { channel_id, counterparty_node_id, .. } => {
			let peer = counterparty_node_id.map(|id| short_hex(&id.serialize()));
			(format!("{} with {}", short_hex(&channel_id.0), peer.unwrap_or_default()), true)
		},
		Event::SpendableOutputs { channel_id, .. } => {
			(channel_id.map(|id| short_hex(&id.0)).unwrap_or_default(), false)
		},
		Event::SpliceNegotiated { channel_id, .. }
		| Event::SpliceNegotiationFailed { channel_id, .. } => (short_hex(&channel_id.0), false),
		Event::ProbeSuccessful { payment_id, .. } | Event::ProbeFailed { payment_id, .. } => {
			(short_hex(&payment_id.0), false)
		},
		_ => return None,
	})
}
