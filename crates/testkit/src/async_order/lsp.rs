//! The LSP's service: takes callbacks over HTTP, keeps orders, and does what they need.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use leyden_http::{FeedClient, Handled, Incoming, Receiver, Token, VerifyingKey};
use leyden_outbox::{
	Callback, CallbackId, Deadline, EndpointOptions, FeedItem, NewCallback, Outbox, OutboxError,
	OutboxOptions, Reconciler, Reply, TryOutcome, Verdict,
};
use leyden_request::Requests;
use leyden_store::codec;
use leyden_store::{Batch, Clock, Expectation, Key, Plan, Store, StoreError, Table, Version};
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use serde::Deserialize;
use serde_json::Value;

use super::host::{Host, Inbound, Outbound, Unreachable, PATH, SECRET};
use super::order::{step, Action, Fact, Order, State, Step};
use super::recipient::REQUEST_INVOICE;
use super::rpc::{self, Frame, InvoiceReply, NewOrders, RequestInvoice, RpcError};

/// The method that makes orders.
pub const NEW: &str = "async_order.new";

const ORDERS: Table = Table::new("orders");
const INDEXES: Table = Table::new("order_indexes");
/// The endpoint of actions that ask a recipient.
const PEER: &str = "peer";
/// The endpoint of actions that tell the node something.
const NODE: &str = "node";
/// How long something that is under way is left alone.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// One life of the LSP's service, without the HTTP around it. Cheap to clone.
#[derive(Clone)]
pub struct Lsp(Arc<Inner>);

struct Inner {
	store: Arc<dyn Store>,
	actions: Outbox,
	receiver: Receiver,
	/// Set when it is made.
	orders: Arc<OnceLock<Orders>>,
	/// For ids of its requests to peers.
	asked: AtomicU64,
	/// Whether it comes back only later to what it told the node.
	hesitates: bool,
}

/// The orders in a store.
#[derive(Clone)]
struct Orders {
	store: Arc<dyn Store>,
	actions: Outbox,
	height: Arc<AtomicU32>,
}

impl Lsp {
	/// A life on this store; `height` is that of the chain, kept up by whoever has it.
	///
	/// # Errors
	/// The store's.
	pub fn new(
		store: Arc<dyn Store>, clock: Arc<dyn Clock>, token: &str, height: Arc<AtomicU32>,
		hesitates: bool,
	) -> Result<Self, OutboxError> {
		// What expires is told to the orders, which enqueue what follows in the same outbox.
		let on_expired = Arc::new(OnceLock::<Orders>::new());
		let late = Arc::downgrade(&on_expired);
		let options = OutboxOptions {
			on_expired: Some(Arc::new(move |callback: &Callback, _| {
				let orders = late.upgrade();
				let orders = orders.as_deref().and_then(OnceLock::get);
				orders.map_or_else(nothing, |orders| orders.too_late(callback))
			})),
			..OutboxOptions::default()
		};
		let actions = Outbox::open(Arc::clone(&store), Arc::clone(&clock), options)?;
		for name in [PEER, NODE] {
			let options = EndpointOptions { max_in_flight: 1, ..Default::default() };
			actions.add_endpoint(name, options)?;
		}
		let orders = Orders { store: Arc::clone(&store), actions: actions.clone(), height };
		let _ = on_expired.set(orders.clone());
		let requests =
			Requests::open(Arc::clone(&store), Arc::clone(&clock), Receiver::request_options())
				.map_err(|_| StoreError::Poisoned { because: "no requests".to_owned() })?;
		let handles = orders.clone();
		let handler = move |incoming: &Incoming| handles.handle(incoming);
		let keys = [VerifyingKey::parse(SECRET).expect("a key")];
		let receiver = Receiver::new(requests, clock, "node", keys, WEEK, Arc::new(handler))
			.with_token(Token::new(token).expect("a token"));
		let asked = AtomicU64::new(0);
		Ok(Self(Arc::new(Inner { store, actions, receiver, orders: on_expired, asked, hesitates })))
	}

	/// Its service.
	pub fn router(&self) -> axum::Router {
		self.0.receiver.router()
	}

	fn orders(&self) -> &Orders {
		self.0.orders.get().expect("set when it was made")
	}

	/// Its store.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.0.store
	}

	/// What it has to do.
	pub fn actions(&self) -> &Outbox {
		&self.0.actions
	}

	/// Takes a frame of a recipient that wants orders.
	pub fn receive(&self, peer: &PublicKey, amount_msat: u64, frame: &[u8]) -> Option<Vec<u8>> {
		match rpc::read(frame) {
			Frame::Silent | Frame::Response { .. } => None,
			Frame::Wrong(error) => Some(rpc::answer(None, Err(error))),
			Frame::Request(request) => {
				let result = match request.method.as_str() {
					NEW => self.orders().reserve(peer, amount_msat, &request.params),
					_ => Err(RpcError::new(rpc::METHOD_NOT_FOUND, "no such method")),
				};
				Some(rpc::answer(Some(&request.id), result))
			},
		}
	}

	/// Somebody is given the node's invoice for an order.
	///
	/// # Errors
	/// The store's.
	pub fn give(&self, hash: &PaymentHash) -> Result<(), StoreError> {
		self.orders().learn(hash, &Fact::Given).map(|_| ())
	}

	/// An order.
	///
	/// # Errors
	/// The store's.
	pub fn order(&self, hash: &PaymentHash) -> Result<Option<Order>, StoreError> {
		Ok(self.orders().order(hash)?.map(|(order, _)| order))
	}

	/// What a recipient is asked for an order: the same in every try.
	pub fn invoice_request(&self, order: &Order) -> RequestInvoice {
		RequestInvoice {
			hash_index: order.index.to_string(),
			payment_hash: rpc::hex(&order.payment_hash),
			amount_msat: order.amount_msat,
			asset_id: None,
			asset_amount: None,
			description_hash: "00".repeat(32),
			invoice_expiry_sec: 900,
			min_final_cltv_expiry_delta: OUTBOUND_BLOCKS,
		}
	}

	/// Does what there is to do now, up to so many actions, and answers how many that was.
	///
	/// # Errors
	/// The store's.
	pub fn work(&self, host: &Host, height: u32, limit: usize) -> Result<usize, OutboxError> {
		self.0.actions.expire(height, 100)?;
		let mut tried = 0;
		while tried < limit {
			let Some(claim) = self.0.actions.claim(height)? else { break };
			tried += 1;
			let action = Action::ALL.into_iter().find(|a| a.kind() == claim.callback().kind());
			let hash = claim.callback().order_key().try_into().map(PaymentHash);
			let (Some(action), Ok(hash)) = (action, hash) else {
				claim.settle(Verdict::Dead, TryOutcome::NotTaken, "no such action")?;
				continue;
			};
			match self.act(action, &hash, host, height) {
				Ok(Did::All) => claim.settle(Verdict::Done, TryOutcome::Taken, "")?,
				Ok(Did::Some) => {
					claim.settle(Verdict::Snooze(LOOK_AGAIN), TryOutcome::Unknown, "under way")?
				},
				Ok(Did::Never(said)) => claim.settle(Verdict::Dead, TryOutcome::NotTaken, &said)?,
				Err(Failed::Peer) => claim.reply(Reply::status(503), height, "not reachable")?,
				Err(Failed::Store(error)) => return Err(error.into()),
			};
		}
		Ok(tried)
	}

	/// Pulls what this service never received from the node's feed, and applies it as if it had been
	/// pushed.
	///
	/// # Errors
	/// What the feed says.
	pub async fn sweep(&self, feed: &FeedClient) -> Result<usize, String> {
		let store = Arc::clone(&self.0.store);
		let say = |error: OutboxError| error.to_string();
		let mut reconciler = Reconciler::open(store, "node").map_err(say)?;
		let apply =
			|item: &FeedItem| self.0.receiver.pulled(item, &format!("{PATH}{}", item.kind()));
		let mut applied = reconciler.retry(apply).map_err(say)?.applied;
		loop {
			let page = feed.pull(reconciler.cursor(), 100).await.map_err(|e| e.to_string())?;
			let done = reconciler.apply(&page, apply).map_err(say)?;
			applied += done.applied;
			if !done.more {
				return Ok(applied);
			}
		}
	}

	fn act(
		&self, action: Action, hash: &PaymentHash, host: &Host, height: u32,
	) -> Result<Did, Failed> {
		let orders = self.orders();
		let Some((order, _)) = orders.order(hash)? else {
			return Ok(Did::Never("there is no such order".to_owned()));
		};
		match action {
			Action::RequestInvoice if order.state > State::OutboundRequested => Ok(Did::All),
			Action::RequestInvoice => {
				orders.learn(hash, &Fact::Requested)?;
				match self.ask(&order, host)? {
					Ok(bolt11) => {
						orders.learn(hash, &Fact::Invoice(bolt11))?;
						Ok(Did::All)
					},
					// Its time may come: what is in the way may pass.
					Err(error) if error.code == rpc::STALE_FLOW => Err(Failed::Peer),
					Err(error) if error.code == rpc::INTERNAL_ERROR => Err(Failed::Peer),
					Err(error) => Ok(Did::Never(format!("{}: {}", error.code, error.message))),
				}
			},
			Action::Pay => self.pay(&order, host, height),
			Action::ClaimInbound => {
				let Some(preimage) = order.preimage else { return Ok(Did::All) };
				match host.claim(PaymentPreimage(preimage))? {
					Inbound::Claimed => {
						orders.learn(hash, &Fact::Claimed)?;
						Ok(Did::All)
					},
					Inbound::Claiming => Ok(Did::Some),
					other => Ok(Did::Never(format!("the payment is {other:?}"))),
				}
			},
			Action::CancelInbound => match host.cancel(hash)? {
				Inbound::Cancelled => Ok(Did::All),
				other => Ok(Did::Never(format!("the payment is {other:?}"))),
			},
		}
	}

	/// Sees a payment through: what is not known is asked for, and never taken for a no.
	fn pay(&self, order: &Order, host: &Host, height: u32) -> Result<Did, Failed> {
		let (orders, hash) = (self.orders(), PaymentHash(order.payment_hash));
		if !matches!(order.state, State::OutboundPending | State::OutboundPaid) {
			return Ok(Did::All);
		}
		let invoice = order.bolt11.as_deref().unwrap_or_default().parse();
		let Ok(invoice) = invoice else {
			orders.learn(&hash, &Fact::NotPaid)?;
			return Ok(Did::Never("the invoice is none".to_owned()));
		};
		let too_late = is_too_late(order.deadline_height, height);
		let before = host.payment(&hash)?;
		let state = match before {
			// It was never told to, and need not be any more.
			None if too_late => Outbound::Failed,
			_ => host.pay(&invoice)?,
		};
		if self.0.hesitates && before.is_none() {
			return Ok(Did::Some);
		}
		match state {
			Outbound::Failed => {
				orders.learn(&hash, &Fact::NotPaid)?;
				Ok(Did::All)
			},
			Outbound::Sending => {
				orders.learn(&hash, &Fact::Dispatched)?;
				Ok(Did::Some)
			},
			Outbound::Succeeded(_) => {
				orders.learn(&hash, &Fact::Dispatched)?;
				Ok(Did::All)
			},
		}
	}

	fn ask(&self, order: &Order, host: &Host) -> Result<Result<String, RpcError>, Failed> {
		let peer = PublicKey::from_slice(&order.recipient).map_err(|_| Failed::Peer)?;
		let params = self.invoice_request(order);
		// Every try is a request of its own, with the same parameters.
		let id = format!("{}", self.0.asked.fetch_add(1, Ordering::SeqCst));
		let frame = host.ask(&peer, &rpc::request(&id, REQUEST_INVOICE, &params))?;
		let Frame::Response { id: answered, result } = rpc::read(&frame) else {
			return Err(Failed::Peer);
		};
		if answered != id {
			return Err(Failed::Peer);
		}
		let reply = match result {
			Ok(result) => serde_json::from_value::<InvoiceReply>(result),
			Err(error) => return Ok(Err(error)),
		};
		let reply = reply.map_err(|_| Failed::Peer)?;
		let is_it = reply.payment_hash == params.payment_hash;
		is_it.then_some(Ok(reply.bolt11)).ok_or(Failed::Peer)
	}
}

/// How far an action came.
enum Did {
	All,
	Some,
	Never(String),
}

enum Failed {
	Peer,
	Store(StoreError),
}

impl From<Unreachable> for Failed {
	fn from(_: Unreachable) -> Self {
		Self::Peer
	}
}

impl From<StoreError> for Failed {
	fn from(error: StoreError) -> Self {
		Self::Store(error)
	}
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimableBody {
	payment_hash: String,
	amount_msat: u64,
	claim_deadline_height: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PaymentSentBody {
	payment_hash: String,
	payment_preimage: String,
}

impl Orders {
	/// What a callback changes, and how it is answered.
	fn handle(&self, incoming: &Incoming) -> Handled {
		let Some((hash, fact)) = self.read(incoming) else { return Handled::refused(400) };
		let found = match self.order(&hash) {
			Ok(Some(found)) => found,
			// Not "ignored": a service that was restored from a copy would lose a preimage for good.
			Ok(None) => return Handled::refused(404),
			Err(_) => return Handled::refused(503),
		};
		match step(&found.0, &fact) {
			Step::Moved(next, action) => match self.moved(found.1, *next, action) {
				Ok(plan) => Handled::taken(plan),
				Err(_) => Handled::refused(503),
			},
			Step::Already => Handled::ignored(),
			Step::Refused(status, said) => Handled::refused(status).saying(said),
		}
	}

	fn read(&self, incoming: &Incoming) -> Option<(PaymentHash, Fact)> {
		let kind = incoming.path.strip_prefix(PATH)?;
		match kind {
			"claimable" => {
				let body: ClaimableBody = serde_json::from_slice(&incoming.body).ok()?;
				let fact = Fact::Claimable {
					amount_msat: body.amount_msat,
					deadline_height: body.claim_deadline_height,
					height: self.height.load(Ordering::SeqCst),
				};
				Some((rpc::parse_hash(&body.payment_hash).ok()?, fact))
			},
			"payment_sent" => {
				let body: PaymentSentBody = serde_json::from_slice(&incoming.body).ok()?;
				let preimage = rpc::parse_32(&body.payment_preimage)?;
				Some((rpc::parse_hash(&body.payment_hash).ok()?, Fact::PaymentSent { preimage }))
			},
			_ => None,
		}
	}

	fn order(&self, hash: &PaymentHash) -> Result<Option<(Order, Version)>, StoreError> {
		let key = Key::new(ORDERS, hash.0);
		let Some(record) = self.store.get(&key).wait()? else { return Ok(None) };
		Ok(Some((codec::decode(&key, &record)?, record.version)))
	}

	/// The order's new state and what follows from it are one commit, if it is still as it was.
	fn moved(
		&self, version: Version, next: Order, action: Option<Action>,
	) -> Result<Plan<()>, OutboxError> {
		let key = Key::new(ORDERS, next.payment_hash);
		let mut batch = Batch::new();
		batch.expect(key.clone(), Expectation::Version(version));
		batch.put(key, codec::encode(&next)?);
		let plan = Plan::of(batch);
		let Some(action) = action else { return Ok(plan) };
		let endpoint = if action == Action::RequestInvoice { PEER } else { NODE };
		let (kind, hash) = (action.kind(), next.payment_hash);
		let new = NewCallback::new(CallbackId::new(kind, &hash, 0), kind, endpoint, hash, "")?;
		// What has begun must be seen through; only what has not may be too late.
		let deadline = next.deadline_height.map(|height| height.saturating_sub(LATE_BLOCKS));
		let new = match (action, deadline) {
			(Action::RequestInvoice, Some(height)) => {
				new.with_deadline(Deadline::at_height(height))
			},
			_ => new,
		};
		Ok(plan.and(self.actions.enqueue(new)?).map(|_| ()))
	}

	/// Applies a fact, again if somebody else was faster.
	fn learn(&self, hash: &PaymentHash, fact: &Fact) -> Result<Option<Order>, StoreError> {
		loop {
			let Some((order, version)) = self.order(hash)? else { return Ok(None) };
			let Step::Moved(next, action) = step(&order, fact) else { return Ok(Some(order)) };
			let plan = match self.moved(version, (*next).clone(), action) {
				Ok(plan) => plan,
				Err(OutboxError::Store(error)) => return Err(error),
				Err(error) => return Err(StoreError::Poisoned { because: error.to_string() }),
			};
			match plan.run(&*self.store) {
				Ok(()) => return Ok(Some(*next)),
				Err(StoreError::Conflict { .. }) => continue,
				Err(error) => return Err(error),
			}
		}
	}

	/// An action is too late: what the node holds is given back.
	fn too_late(&self, action: &Callback) -> Plan<()> {
		let Ok(hash) = action.order_key().try_into().map(PaymentHash) else { return nothing() };
		let Ok(Some((order, version))) = self.order(&hash) else { return nothing() };
		match step(&order, &Fact::TooLate) {
			Step::Moved(next, action) => {
				self.moved(version, *next, action).unwrap_or_else(|_| nothing())
			},
			_ => nothing(),
		}
	}

	fn reserve(
		&self, peer: &PublicKey, amount_msat: u64, params: &Value,
	) -> Result<Value, RpcError> {
		let hashes = NewOrders::read(params)?;
		let internal = |_| RpcError::new(rpc::INTERNAL_ERROR, "try again");
		let mut batch = Batch::new();
		for (index, hash) in &hashes {
			let by_index =
				Key::new(INDEXES, [&peer.serialize()[..], &index.to_be_bytes()].concat());
			let known = self.order(hash).map_err(internal)?.map(|(order, _)| order);
			let there = self.store.get(&by_index).wait().map_err(internal)?.is_some();
			match known {
				Some(order) if order.recipient != peer.serialize() || order.index != *index => {
					let message = "the hash is known under another index";
					return Err(RpcError::new(rpc::DUPLICATE_HASH_CONFLICT, message));
				},
				// The same once more.
				Some(_) => continue,
				None if there => {
					let message = "the index has another hash";
					return Err(RpcError::new(rpc::DUPLICATE_INDEX_CONFLICT, message));
				},
				None => {},
			}
			let order = Order {
				index: *index,
				payment_hash: hash.0,
				recipient: peer.serialize().to_vec(),
				amount_msat,
				state: State::Reserved,
				deadline_height: None,
				bolt11: None,
				preimage: None,
			};
			let value = codec::encode(&order).map_err(internal)?;
			batch.expect(Key::new(ORDERS, hash.0), Expectation::Absent);
			batch.put(Key::new(ORDERS, hash.0), value.clone());
			batch.put(by_index, value);
		}
		self.store.commit(batch).wait().map_err(internal)?;
		Ok(serde_json::json!({ "accepted": hashes.len() }))
	}
}

/// What the recipient must leave for itself; less than what the node leaves for the LSP.
const OUTBOUND_BLOCKS: u16 = 72;
/// So many blocks before the node's deadline nothing new is begun.
const LATE_BLOCKS: u32 = 10;

fn is_too_late(deadline_height: Option<u32>, height: u32) -> bool {
	deadline_height.is_some_and(|deadline| height.saturating_add(LATE_BLOCKS) >= deadline)
}

fn nothing() -> Plan<()> {
	Plan::of(Batch::new())
}
