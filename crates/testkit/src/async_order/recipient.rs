//! Who is paid: makes an invoice when it is asked for one, once, and claims what comes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::PublicKey;
use leyden_ldk::{HtlcResolution, HtlcResolutions};
use leyden_request::{
	Answer, AnswerKind, Effect, Outcome, Params, Request, RequestError, RequestKey, RequestOptions,
	Requests, Unknown,
};
use leyden_store::codec::{self, Stored};
use leyden_store::{Batch, Clock, Key, Plan, RecordType, Store, StoreError, Table, Timestamp};
use lightning::bolt11_invoice::{Bolt11InvoiceDescription, Sha256};
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, MIN_FINAL_CLTV_EXPIRY_DELTA};
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rpc::{self, Frame, InvoiceReply, RequestInvoice, RpcError};
use crate::guard::NodeHandle;
use crate::leyden_guard::User;

/// The method that it answers.
pub const REQUEST_INVOICE: &str = "async_order.request_invoice";

/// The least that it takes.
const MIN_AMOUNT_MSAT: u64 = 1_000;
/// How long a block takes, for times that are given in blocks.
const BLOCK: Duration = Duration::from_secs(600);

const INVOICES: Table = Table::new("invoices");

/// With what requests are answered once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replay {
	/// Leyden's record of requests.
	Leyden,
	/// A map in memory, and a look at the ledger: what rgb-lightning-node does.
	Memory,
}

/// What the recipient's ledger has of an invoice.
#[derive(Deserialize, Serialize)]
struct InvoiceV1 {
	bolt11: String,
	expires_at: Timestamp,
	claimed: bool,
}

impl Stored for InvoiceV1 {
	const TYPE: RecordType = RecordType(0x8001);
	const SCHEMA: u16 = 1;
}

/// One life of the recipient.
pub struct Recipient {
	store: Arc<dyn Store>,
	clock: Arc<dyn Clock>,
	requests: Requests,
	resolutions: OnceLock<HtlcResolutions>,
	node: OnceLock<NodeHandle>,
	/// Whom it answers.
	host: PublicKey,
	seed: [u8; 32],
	/// Over all lives.
	made: Arc<AtomicU64>,
	replay: Replay,
	cache: Mutex<HashMap<PaymentHash, (Params, Value, Timestamp)>>,
}

/// What outlives a life of the recipient.
#[derive(Clone)]
pub struct RecipientParts {
	/// Whom it answers.
	pub host: PublicKey,
	/// From which its preimages come.
	pub seed: [u8; 32],
	/// How many invoices were made.
	pub made: Arc<AtomicU64>,
	/// With what it answers once.
	pub replay: Replay,
	/// What time it is.
	pub clock: Arc<dyn Clock>,
}

impl Recipient {
	/// A life on this store.
	///
	/// # Errors
	/// The store's.
	pub fn new(store: Arc<dyn Store>, parts: RecipientParts) -> Result<Self, RequestError> {
		let RecipientParts { host, seed, made, replay, clock } = parts;
		let requests =
			Requests::open(Arc::clone(&store), Arc::clone(&clock), RequestOptions::default())?;
		let (resolutions, node) = (OnceLock::new(), OnceLock::new());
		let cache = Mutex::default();
		Ok(Self { store, clock, requests, resolutions, node, host, seed, made, replay, cache })
	}

	/// Its store.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.store
	}

	/// The preimage of an index.
	pub fn preimage(seed: &[u8; 32], index: u64) -> PaymentPreimage {
		let parts = [&seed[..], &index.to_be_bytes()].concat();
		PaymentPreimage(sha256::Hash::hash(&parts).to_byte_array())
	}

	/// The hash of an index.
	pub fn hash(seed: &[u8; 32], index: u64) -> PaymentHash {
		let preimage = Self::preimage(seed, index);
		PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array())
	}

	/// A frame of a peer, and what it is answered with, if it is.
	pub fn receive(&self, peer: &PublicKey, frame: &[u8]) -> Option<Vec<u8>> {
		if *peer != self.host {
			return None;
		}
		match rpc::read(frame) {
			Frame::Silent | Frame::Response { .. } => None,
			Frame::Wrong(error) => Some(rpc::answer(None, Err(error))),
			Frame::Request(request) => {
				let result = match request.method.as_str() {
					REQUEST_INVOICE => self.request_invoice(peer, &request.params),
					_ => Err(RpcError::new(rpc::METHOD_NOT_FOUND, "no such method")),
				};
				Some(rpc::answer(Some(&request.id), result))
			},
		}
	}

	fn request_invoice(&self, peer: &PublicKey, params: &Value) -> Result<Value, RpcError> {
		let asked = RequestInvoice::read(params)?;
		match self.replay {
			Replay::Leyden => self.once(peer, &asked),
			Replay::Memory => self.remembered(&asked),
		}
	}

	fn once(&self, peer: &PublicKey, asked: &RequestInvoice) -> Result<Value, RpcError> {
		let hash = asked.hash()?;
		let internal = |_| RpcError::new(rpc::INTERNAL_ERROR, "try again");
		let key = RequestKey::new(peer.serialize(), REQUEST_INVOICE, hash.0).map_err(internal)?;
		let canonical = |version: Option<u16>| match version {
			None | Some(1) => asked.canonical().ok(),
			_ => None,
		};
		// As long as the invoice, and what pays it, can live.
		let lives = Duration::from_secs(asked.invoice_expiry_sec.into());
		let replay_for = lives + BLOCK * u32::from(asked.min_final_cltv_expiry_delta) + 6 * BLOCK;
		let request = Request { key: &key, params: &canonical, replay_for };
		let mut making = Making { recipient: self, asked, hash };
		let answer = match self.requests.handle(&request, &mut making) {
			Ok(answer) => answer,
			Err(RequestError::Conflict { fields }) => {
				let message = format!("asked for before with other {}", fields.join(", "));
				return Err(RpcError::new(rpc::STALE_FLOW, message));
			},
			Err(RequestError::Stale) => {
				return Err(RpcError::new(rpc::STALE_FLOW, "its time is over"));
			},
			Err(error) => return Err(internal(error)),
		};
		let damaged = |_| RpcError::new(rpc::INTERNAL_ERROR, "the stored answer is none");
		match answer.kind() {
			AnswerKind::Ok => serde_json::from_slice(answer.bytes()).map_err(damaged),
			_ => Err(serde_json::from_slice(answer.bytes()).map_err(damaged)?),
		}
	}

	/// What is done today: a map that is gone after a restart, and a ledger that then says no.
	fn remembered(&self, asked: &RequestInvoice) -> Result<Value, RpcError> {
		let hash = asked.hash()?;
		let (params, now) = (asked.canonical()?, self.clock.now());
		let mut cache = self.cache.lock().unwrap();
		if let Some((known, result, expires_at)) = cache.get(&hash) {
			match (now < *expires_at, *known == params) {
				(true, true) => return Ok(result.clone()),
				(true, false) => return Err(RpcError::new(rpc::STALE_FLOW, "other parameters")),
				_ => drop(cache.remove(&hash)),
			}
		}
		let internal = |_: StoreError| RpcError::new(rpc::INTERNAL_ERROR, "try again");
		if let Some(known) = self.invoice(&hash).map_err(internal)? {
			if known.claimed || now < known.expires_at {
				return Err(RpcError::new(rpc::STALE_FLOW, "there is an invoice of this hash"));
			}
		}
		let (result, plan) = self.make(asked, hash)?;
		plan.run(&*self.store).map_err(internal)?;
		let lives = Duration::from_secs(asked.invoice_expiry_sec.into());
		cache.insert(hash, (params, result.clone(), now.after(lives)));
		Ok(result)
	}

	fn make(
		&self, asked: &RequestInvoice, hash: PaymentHash,
	) -> Result<(Value, Plan<()>), RpcError> {
		if Self::hash(&self.seed, asked.index()?) != hash {
			return Err(RpcError::new(rpc::INVOICE_HASH_MISMATCH, "the hash is of another index"));
		}
		if asked.amount_msat < MIN_AMOUNT_MSAT {
			return Err(RpcError::new(rpc::INVALID_PARAMS, "amount_msat: too little"));
		}
		if asked.min_final_cltv_expiry_delta < MIN_FINAL_CLTV_EXPIRY_DELTA {
			let message = "min_final_cltv_expiry_delta: too short";
			return Err(RpcError::new(rpc::INVALID_PARAMS, message));
		}
		let internal = |what: &str| RpcError::new(rpc::INTERNAL_ERROR, what);
		let node = self.node.get().and_then(NodeHandle::manager);
		let manager = node.ok_or_else(|| internal("the node does not run"))?;
		let described = rpc::parse_32(asked.description_hash.trim()).unwrap_or_default();
		let invoice = manager.create_bolt11_invoice(Bolt11InvoiceParameters {
			amount_msats: Some(asked.amount_msat),
			description: Bolt11InvoiceDescription::Hash(Sha256(sha256::Hash::from_byte_array(
				described,
			))),
			invoice_expiry_delta_secs: Some(asked.invoice_expiry_sec),
			min_final_cltv_expiry_delta: Some(asked.min_final_cltv_expiry_delta),
			payment_hash: Some(hash),
			// Two invoices of one hash differ, as they would with a clock between them.
			payment_metadata: Some(self.made.fetch_add(1, Ordering::SeqCst).to_be_bytes().to_vec()),
		});
		let invoice = invoice.map_err(|_| internal("no invoice"))?;
		let lives = Duration::from_secs(asked.invoice_expiry_sec.into());
		let record = InvoiceV1 {
			bolt11: invoice.to_string(),
			expires_at: self.clock.now().after(lives),
			claimed: false,
		};
		let mut batch = Batch::new();
		let value = codec::encode(&record).map_err(|_| internal("too large"))?;
		batch.put(Key::new(INVOICES, hash.0), value);
		let reply = InvoiceReply {
			payment_hash: asked.payment_hash.to_ascii_lowercase(),
			bolt11: record.bolt11,
		};
		let reply = serde_json::to_value(reply).map_err(|_| internal("no JSON"))?;
		Ok((reply, Plan::of(batch)))
	}

	fn invoice(&self, hash: &PaymentHash) -> Result<Option<InvoiceV1>, StoreError> {
		let key = Key::new(INVOICES, hash.0);
		let record = self.store.get(&key).wait()?;
		record.map(|record| codec::decode(&key, &record)).transpose()
	}

	/// The preimage of a payment that is its own.
	fn known(&self, hash: &PaymentHash) -> Option<PaymentPreimage> {
		let indexes = 0..rpc::MAX_BATCH as u64;
		let mut preimages = indexes.map(|index| Self::preimage(&self.seed, index));
		preimages.find(|preimage| sha256::Hash::hash(&preimage.0).to_byte_array() == hash.0)
	}
}

/// The making of an invoice, once.
struct Making<'a> {
	recipient: &'a Recipient,
	asked: &'a RequestInvoice,
	hash: PaymentHash,
}

impl Effect for Making<'_> {
	fn run(&mut self, _: &RequestKey) -> Result<Outcome, Unknown> {
		Ok(match self.recipient.make(self.asked, self.hash) {
			Ok((reply, plan)) => {
				Outcome::new(Answer::new(AnswerKind::Ok, reply.to_string())).with(plan)
			},
			Err(error) => {
				let kind = match error.code {
					rpc::INTERNAL_ERROR => AnswerKind::Transient,
					// Nothing was done: the key may come again, corrected.
					_ => AnswerKind::Invalid,
				};
				let bytes = serde_json::to_vec(&error).map_err(|_| Unknown)?;
				Outcome::new(Answer::new(kind, bytes))
			},
		})
	}

	/// The ledger's row and the answer are one commit: without an answer there is no row, and an
	/// invoice that nobody was given does no harm.
	fn recover(&mut self, _: &RequestKey) -> Result<Option<Outcome>, Unknown> {
		let Some(known) = self.recipient.invoice(&self.hash).map_err(|_| Unknown)? else {
			return Ok(None);
		};
		let payment_hash = self.asked.payment_hash.to_ascii_lowercase();
		let reply = InvoiceReply { payment_hash, bolt11: known.bolt11 };
		let reply = serde_json::to_vec(&reply).map_err(|_| Unknown)?;
		Ok(Some(Outcome::new(Answer::new(AnswerKind::Ok, reply))))
	}
}

impl User for Recipient {
	fn started(&self, node: &NodeHandle, resolutions: &HtlcResolutions) {
		let _ = self.resolutions.set(resolutions.clone());
		let _ = self.node.set(node.clone());
	}

	fn handle(&self, event: &Event) -> Result<Plan<()>, ReplayEvent> {
		let nothing = || Plan::of(Batch::new());
		match event {
			Event::PaymentClaimable { payment_hash, claim_deadline, .. } => {
				let Some(preimage) = self.known(payment_hash) else { return Ok(nothing()) };
				{
					let claim_deadline = *claim_deadline;
					let claim = HtlcResolution::Claim { preimage, claim_deadline };
					let resolutions = self.resolutions.get().ok_or(ReplayEvent())?;
					resolutions.plan(claim).map_err(|_| ReplayEvent())
				}
			},
			Event::PaymentClaimed { payment_hash, .. } => {
				let mut batch = Batch::new();
				if let Some(known) = self.invoice(payment_hash).map_err(|_| ReplayEvent())? {
					let paid = InvoiceV1 { claimed: true, ..known };
					let value = codec::encode(&paid).map_err(|_| ReplayEvent())?;
					batch.put(Key::new(INVOICES, payment_hash.0), value);
				}
				Ok(Plan::of(batch))
			},
			_ => Ok(nothing()),
		}
	}

	fn acked(&self, event: &Event) {
		if let Event::PaymentClaimable { payment_hash, .. } = event {
			let manager = self.node.get().and_then(NodeHandle::manager);
			let known = self.known(payment_hash).is_some();
			if let (true, Some(resolutions), Some(manager)) =
				(known, self.resolutions.get(), manager)
			{
				resolutions.apply(&manager);
			}
		}
	}
}
