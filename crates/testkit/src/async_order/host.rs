//! The LSP's node: holds what payers send, tells the LSP, and does what the LSP says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use leyden_http::{Address, Courier, CourierOptions, SigningSecret, Token};
use leyden_id::EventId;
use leyden_ldk::{EventIdentity, HtlcResolution, HtlcResolutions};
use leyden_outbox::{
	Callback, CallbackId, Deadline, EndpointOptions, NewCallback, Outbox, OutboxError,
	OutboxOptions, Taken,
};
use leyden_store::codec::{self, Stored};
use leyden_store::{Batch, Clock, Key, KeyRange, Plan, RecordType, Store, StoreError, Table};
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channelmanager::{
	Bolt11InvoiceParameters, OptionalBolt11PaymentParams, PaymentId, RecentPaymentDetails,
};
use lightning::ln::outbound_payment::Retry;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::recipient::Recipient;
use super::rpc::hex;
use crate::guard::NodeHandle;
use crate::leyden_guard::User;

/// The endpoint.
pub const LSP: &str = "lsp";
/// What callbacks are signed with.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Where the LSP takes callbacks, with the kind behind it.
pub const PATH: &str = "/internal/async_order/";
/// How many blocks before LDK does it a payment that nobody took is given back.
pub const MARGIN_BLOCKS: u32 = 6;
/// How long the invoice that payers get is good.
const INVOICE_SECS: u32 = 24 * 3600;
/// How long LDK lets it be held, in blocks.
pub const INVOICE_BLOCKS: u16 = 144;
/// How long an answer of the LSP may take; what is shown is what happens without one, so not long.
const TIMEOUT: Duration = Duration::from_millis(300);

const INBOUND: Table = Table::new("inbound");
const OUTBOUND: Table = Table::new("outbound");

/// How callbacks are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notify {
	/// Through an outbox.
	Outbox,
	/// By a task that sends once and logs errors: what rgb-lightning-node does.
	Detached,
}

/// What the node does not do: it is down, or the one it asks is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unreachable;

/// How far a payment to the node is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Inbound {
	/// Somebody may pay it.
	Open,
	/// It is held.
	Claimable,
	/// It is being claimed.
	Claiming,
	/// It was claimed.
	Claimed,
	/// It is being given back, or was.
	Cancelled,
}

/// How far a payment of the node is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Outbound {
	/// LDK was told, or is about to be.
	Sending,
	/// It arrived, with this preimage.
	Succeeded([u8; 32]),
	/// It did not, and will not.
	Failed,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct InboundV1 {
	state: Inbound,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct OutboundV1 {
	state: Outbound,
}

impl Stored for InboundV1 {
	const TYPE: RecordType = RecordType(0x8004);
	const SCHEMA: u16 = 1;
}

impl Stored for OutboundV1 {
	const TYPE: RecordType = RecordType(0x8005);
	const SCHEMA: u16 = 1;
}

/// Peers that can be reached, by node id.
pub type Peers = Arc<Mutex<HashMap<PublicKey, Arc<Recipient>>>>;

/// One life of the node's software.
pub struct Host {
	store: Arc<dyn Store>,
	outbox: Outbox,
	courier: Courier,
	resolutions: OnceLock<HtlcResolutions>,
	node: OnceLock<NodeHandle>,
	notify: Notify,
	peers: Peers,
	/// What detached tasks are about to send: path and body.
	detached: Mutex<Vec<(String, Vec<u8>)>>,
}

/// What outlives a life of the node's software.
#[derive(Clone)]
pub struct HostParts {
	/// Where the LSP is.
	pub lsp_url: String,
	/// What it wants to see.
	pub token: Arc<Mutex<String>>,
	/// How callbacks are sent.
	pub notify: Notify,
	/// Whom it can ask.
	pub peers: Peers,
	/// What time it is.
	pub clock: Arc<dyn Clock>,
}

impl Host {
	/// A life on this store.
	///
	/// # Errors
	/// The store's.
	pub fn new(store: Arc<dyn Store>, parts: &HostParts) -> Result<Self, OutboxError> {
		let gives_back = Arc::clone(&store);
		let options = OutboxOptions {
			on_expired: Some(Arc::new(move |callback, taken| match taken {
				Taken::No => to_be_cancelled(&gives_back, callback),
				// The LSP may be at it, and may pay: LDK itself gives the HTLC back when it must.
				Taken::Maybe => Plan::nothing(),
			})),
			..OutboxOptions::default()
		};
		let outbox = Outbox::open(Arc::clone(&store), Arc::clone(&parts.clock), options)?;
		outbox.add_endpoint(LSP, EndpointOptions { max_in_flight: 1, ..Default::default() })?;
		let token = Token::new(parts.token.lock().unwrap().clone()).expect("a token");
		let address = Address::plain(&parts.lsp_url)
			.expect("a URL")
			.allowing("127.0.0.1".parse().expect("an address"))
			.signed([SigningSecret::parse(SECRET).expect("a secret")])
			.with_token(token)
			.with_path("claimable", &format!("{PATH}claimable"))
			.with_path("payment_sent", &format!("{PATH}payment_sent"));
		let options = CourierOptions {
			timeout: TIMEOUT,
			too_late: |status, body| status == 400 && body.starts_with(b"late"),
			..CourierOptions::default()
		};
		let endpoints = [(LSP.to_owned(), address)];
		let courier = Courier::new(outbox.clone(), Arc::clone(&parts.clock), options, endpoints)
			.expect("TLS");
		Ok(Self {
			resolutions: OnceLock::new(),
			store,
			outbox,
			courier,
			node: OnceLock::new(),
			notify: parts.notify,
			peers: Arc::clone(&parts.peers),
			detached: Mutex::default(),
		})
	}

	/// Its outbox.
	pub fn outbox(&self) -> &Outbox {
		&self.outbox
	}

	/// What sends its callbacks.
	pub fn courier(&self) -> &Courier {
		&self.courier
	}

	/// What detached tasks are about to send.
	pub fn take_detached(&self) -> Vec<(String, Vec<u8>)> {
		std::mem::take(&mut *self.detached.lock().unwrap())
	}

	/// Asks a peer, and gives its answer.
	///
	/// # Errors
	/// The node is down, or the peer is.
	pub fn ask(&self, peer: &PublicKey, frame: &[u8]) -> Result<Vec<u8>, Unreachable> {
		let manager = self.manager()?;
		let peer = self.peers.lock().unwrap().get(peer).cloned().ok_or(Unreachable)?;
		peer.receive(&manager.get_our_node_id(), frame).ok_or(Unreachable)
	}

	/// An invoice of which only the LSP can get the preimage; what pays it may be held for so many
	/// blocks.
	///
	/// # Errors
	/// The node is down.
	pub fn hold_invoice(
		&self, hash: PaymentHash, amount_msat: u64, blocks: u16,
	) -> Result<Bolt11Invoice, Unreachable> {
		let manager = self.manager()?;
		if self.inbound(&hash)?.is_none() {
			self.write(inbound_plan(&hash, Inbound::Open))?;
		}
		let invoice = manager.create_bolt11_invoice(Bolt11InvoiceParameters {
			amount_msats: Some(amount_msat),
			invoice_expiry_delta_secs: Some(INVOICE_SECS),
			min_final_cltv_expiry_delta: Some(blocks),
			payment_hash: Some(hash),
			..Default::default()
		});
		invoice.map_err(|_| Unreachable)
	}

	/// Pays an invoice, unless it was paid or is being paid; answers how far that is.
	///
	/// # Errors
	/// The node is down: it is not known whether it was told.
	pub fn pay(&self, invoice: &Bolt11Invoice) -> Result<Outbound, Unreachable> {
		let hash = invoice.payment_hash();
		match self.payment(&hash)? {
			Some(Outbound::Sending) if !self.knows(&hash)? => {},
			Some(known) => return Ok(known),
			None => self.write(outbound_plan(&hash, Outbound::Sending))?,
		}
		let params = OptionalBolt11PaymentParams {
			retry_strategy: Retry::Attempts(0),
			..Default::default()
		};
		// Its own name: LDK takes no second payment of it.
		let id = PaymentId(hash.0);
		match self.manager()?.pay_for_bolt11_invoice(invoice, id, None, params) {
			Ok(()) => Ok(Outbound::Sending),
			Err(_) if self.knows(&hash)? => Ok(Outbound::Sending),
			Err(_) => {
				self.write(outbound_plan(&hash, Outbound::Failed))?;
				Ok(Outbound::Failed)
			},
		}
	}

	/// How far a payment of the node is; `None` if it was never told to make it.
	///
	/// # Errors
	/// The node is down.
	pub fn payment(&self, hash: &PaymentHash) -> Result<Option<Outbound>, Unreachable> {
		self.manager()?;
		let row: Option<OutboundV1> = self.row(Key::new(OUTBOUND, hash.0))?;
		Ok(row.map(|row| row.state))
	}

	/// How far a payment to the node is.
	///
	/// # Errors
	/// The node is down.
	pub fn inbound(&self, hash: &PaymentHash) -> Result<Option<Inbound>, Unreachable> {
		self.manager()?;
		let row: Option<InboundV1> = self.row(Key::new(INBOUND, hash.0))?;
		Ok(row.map(|row| row.state))
	}

	/// Claims what is held; answers how far that is.
	///
	/// # Errors
	/// The node is down.
	pub fn claim(&self, preimage: PaymentPreimage) -> Result<Inbound, Unreachable> {
		use bitcoin::hashes::{sha256, Hash};
		let hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
		let state = self.inbound(&hash)?.ok_or(Unreachable)?;
		if state == Inbound::Claimable {
			// One commit: "claiming" without the intent would be for ever.
			let resolutions = self.resolutions.get().ok_or(Unreachable)?;
			let claim = HtlcResolution::Claim { preimage, claim_deadline: None };
			let claim = resolutions.plan(claim).map_err(|_| Unreachable)?;
			let row = inbound_plan(&hash, Inbound::Claiming).map_err(|_| Unreachable)?;
			claim.and(row).commit(&*self.store).wait().map_err(|_| Unreachable)?;
			resolutions.apply(&self.manager()?);
			return Ok(Inbound::Claiming);
		}
		Ok(state)
	}

	/// Gives back what is held.
	///
	/// # Errors
	/// The node is down.
	pub fn cancel(&self, hash: &PaymentHash) -> Result<Inbound, Unreachable> {
		match self.inbound(hash)?.ok_or(Unreachable)? {
			Inbound::Open | Inbound::Claimable | Inbound::Cancelled => {
				self.write(inbound_plan(hash, Inbound::Cancelled))?;
				self.manager()?.fail_htlc_backwards(hash);
				Ok(Inbound::Cancelled)
			},
			other => Ok(other),
		}
	}

	/// What belongs to every block: callbacks that are too late expire, and what they were about is
	/// given back.
	///
	/// # Errors
	/// The node is down.
	pub fn on_block(&self, height: u32) -> Result<usize, Unreachable> {
		let expired = self.outbox.expire(height, 100).map_err(|_| Unreachable)?;
		self.give_back()?;
		Ok(expired.len())
	}

	fn give_back(&self) -> Result<(), Unreachable> {
		let manager = self.manager()?;
		let page = self.store.scan(KeyRange::all(INBOUND), 1_000).wait();
		for (key, record) in &page.map_err(|_| Unreachable)?.records {
			let row: InboundV1 = codec::decode(key, record).map_err(|_| Unreachable)?;
			if row.state == Inbound::Cancelled {
				let hash = key.bytes().try_into().map_err(|_| Unreachable)?;
				manager.fail_htlc_backwards(&PaymentHash(hash));
			}
		}
		Ok(())
	}

	/// Whether LDK has a payment of this hash that is not over.
	fn knows(&self, hash: &PaymentHash) -> Result<bool, Unreachable> {
		let id = PaymentId(hash.0);
		let payments = self.manager()?.list_recent_payments();
		Ok(payments.iter().any(|payment| match payment {
			RecentPaymentDetails::Pending { payment_id, .. }
			| RecentPaymentDetails::Fulfilled { payment_id, .. }
			| RecentPaymentDetails::Abandoned { payment_id, .. }
			| RecentPaymentDetails::AwaitingInvoice { payment_id } => *payment_id == id,
		}))
	}

	fn manager(&self) -> Result<Arc<crate::parts::NetManager>, Unreachable> {
		let node = self.node.get().filter(|node| node.is_alive());
		node.and_then(NodeHandle::manager).ok_or(Unreachable)
	}

	fn row<T: Stored>(&self, key: Key) -> Result<Option<T>, Unreachable> {
		let record = self.store.get(&key).wait().map_err(|_| Unreachable)?;
		record.map(|record| codec::decode(&key, &record)).transpose().map_err(|_| Unreachable)
	}

	fn write(&self, plan: Result<Plan<()>, StoreError>) -> Result<(), Unreachable> {
		plan.and_then(|plan| plan.run(&*self.store)).map_err(|_| Unreachable)
	}

	fn notice(
		&self, event: EventId, (kind, hash, body): (&str, PaymentHash, serde_json::Value),
		deadline: Deadline,
	) -> Result<Plan<()>, OutboxError> {
		if self.notify == Notify::Detached {
			return Ok(Plan::of(Batch::new()));
		}
		// Of the event, and not of the hash: the same invoice may be paid and held again.
		let id = CallbackId::from_event(event);
		let new = NewCallback::new(id, kind, LSP, hash.0, body.to_string())?;
		Ok(self.outbox.enqueue(new.with_deadline(deadline))?.map(|_| ()))
	}

	/// What the LSP is told of an event, if it is the LSP's.
	fn told(&self, event: &Event) -> Option<(&'static str, PaymentHash, serde_json::Value)> {
		match event {
			Event::PaymentClaimable { payment_hash, amount_msat, claim_deadline, .. } => {
				self.inbound(payment_hash).ok()??;
				let body = json!({
					"payment_hash": hex(&payment_hash.0),
					"amount_msat": amount_msat,
					"claim_deadline_height": claim_deadline,
				});
				Some(("claimable", *payment_hash, body))
			},
			Event::PaymentSent { payment_hash, payment_preimage, .. } => {
				self.payment(payment_hash).ok()??;
				let body = json!({
					"payment_hash": hex(&payment_hash.0),
					"payment_preimage": hex(&payment_preimage.0),
				});
				Some(("payment_sent", *payment_hash, body))
			},
			_ => None,
		}
	}

	fn changes(&self, id: EventId, event: &Event) -> Result<Plan<()>, OutboxError> {
		let nothing = || Plan::of(Batch::new());
		let both = |a: Plan<()>, b: Plan<()>| a.and(b).map(|((), ())| ());
		let told = self.told(event);
		match event {
			Event::PaymentClaimable { claim_deadline, .. } => {
				let Some(told) = told else { return Ok(nothing()) };
				let hash = told.1;
				if !matches!(self.inbound(&hash), Ok(Some(Inbound::Open | Inbound::Claimable))) {
					return Ok(nothing());
				}
				let deadline = claim_deadline.map(|height| height.saturating_sub(MARGIN_BLOCKS));
				let deadline = deadline.map_or(Deadline::NONE, Deadline::at_height);
				let row = inbound_plan(&hash, Inbound::Claimable)?;
				Ok(both(row, self.notice(id, told, deadline)?))
			},
			Event::PaymentSent { payment_preimage, .. } => {
				let Some(told) = told else { return Ok(nothing()) };
				let row = outbound_plan(&told.1, Outbound::Succeeded(payment_preimage.0))?;
				Ok(both(row, self.notice(id, told, Deadline::NONE)?))
			},
			Event::PaymentFailed { payment_id, .. } => {
				let hash = PaymentHash(payment_id.0);
				match self.payment(&hash) {
					Ok(Some(Outbound::Sending)) => Ok(outbound_plan(&hash, Outbound::Failed)?),
					_ => Ok(nothing()),
				}
			},
			Event::PaymentClaimed { payment_hash, .. } => match self.inbound(payment_hash) {
				Ok(Some(_)) => Ok(inbound_plan(payment_hash, Inbound::Claimed)?),
				_ => Ok(nothing()),
			},
			_ => Ok(nothing()),
		}
	}
}

impl User for Host {
	fn started(&self, node: &NodeHandle, resolutions: &HtlcResolutions) {
		let _ = self.resolutions.set(resolutions.clone());
		let _ = self.node.set(node.clone());
		let _ = self.give_back();
	}

	fn handle(&self, event: &Event) -> Result<Plan<()>, ReplayEvent> {
		self.handle_as(EventIdentity::of(event).id, false, event)
	}

	fn handle_as(&self, id: EventId, _: bool, event: &Event) -> Result<Plan<()>, ReplayEvent> {
		self.manager().map_err(|_| ReplayEvent())?;
		self.changes(id, event).map_err(|_| ReplayEvent())
	}

	fn acked(&self, event: &Event) {
		if self.notify == Notify::Detached {
			let told = self.told(event);
			let sends = told.map(|(kind, _, body)| (format!("{PATH}{kind}"), body.to_string()));
			self.detached.lock().unwrap().extend(sends.map(|(path, body)| (path, body.into())));
		}
	}
}

fn inbound_plan(hash: &PaymentHash, state: Inbound) -> Result<Plan<()>, StoreError> {
	let mut batch = Batch::new();
	batch.put(Key::new(INBOUND, hash.0), codec::encode(&InboundV1 { state })?);
	Ok(Plan::of(batch))
}

fn outbound_plan(hash: &PaymentHash, state: Outbound) -> Result<Plan<()>, StoreError> {
	let mut batch = Batch::new();
	batch.put(Key::new(OUTBOUND, hash.0), codec::encode(&OutboundV1 { state })?);
	Ok(Plan::of(batch))
}

/// Nobody took it in time: the payer gets it back.
fn to_be_cancelled(store: &Arc<dyn Store>, callback: &Callback) -> Plan<()> {
	let nothing = || Plan::of(Batch::new());
	let Ok(hash) = callback.order_key().try_into().map(PaymentHash) else { return nothing() };
	let key = Key::new(INBOUND, hash.0);
	let row = store.get(&key).wait().ok().flatten();
	match row.map(|record| codec::decode::<InboundV1>(&key, &record)) {
		Some(Ok(InboundV1 { state: Inbound::Claimable })) => {
			inbound_plan(&hash, Inbound::Cancelled).unwrap_or_else(|_| nothing())
		},
		_ => nothing(),
	}
}
