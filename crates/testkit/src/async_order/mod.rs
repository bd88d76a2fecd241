//! Async orders from end to end: a sender pays a recipient that may be offline, through an LSP.
//!
//! Three real LDK nodes (a payer, the LSP's node, a recipient) and the LSP's service, over HTTP on
//! loopback. The recipient gives the LSP hashes ([`order::State::Reserved`]); the LSP's node makes an
//! invoice of one of them and holds what is paid; it tells the LSP (callback `claimable`); the LSP asks
//! the recipient for an invoice of the same hash (`async_order.request_invoice`) and has its node pay
//! it; the node learns the preimage and tells the LSP (callback `payment_sent`); the LSP has it claim
//! what it holds.
//!
//! Each of the three is a process of its own with its own store, and dies where it is told to. The
//! service's HTTP is real, and so are the callbacks; the LSP calls its node, and the node its peer,
//! directly.

mod front;
mod host;
mod lsp;
pub mod order;
mod recipient;
pub mod rpc;
pub mod stories;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::PublicKey;
use leyden_http::{Address, FeedClient, FeedServer, Token};
use leyden_outbox::OutboxError;
use leyden_store::{Clock, ManualClock, Store, Timestamp};
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::ln::channelmanager::{OptionalBolt11PaymentParams, PaymentId};
use lightning::ln::outbound_payment::Retry;
use lightning::types::payment::PaymentHash;

pub use front::{Fault, Front, Recorded};
pub use host::{Host, Inbound, Notify, Outbound, INVOICE_BLOCKS, LSP, MARGIN_BLOCKS};
pub use lsp::{Lsp, NEW};
pub use recipient::{Recipient, Replay, REQUEST_INVOICE};

use self::host::{HostParts, Peers};
use self::order::{Order, State};
use self::recipient::RecipientParts;
use crate::faulty_store::{Doom, FaultyStore, LossyMedium, Media};
use crate::leyden_guard::User;
use crate::lives::{lives, mortal_disk, Slot};
use crate::{Idx, LdkNet, NodeConfig};

/// What everybody pays.
pub const AMOUNT_MSAT: u64 = 50_000_000;
/// What the LSP wants to see.
pub const TOKEN: &str = "sesame";
/// How long nothing happens before time passes.
const IDLE: Duration = Duration::from_secs(5);
/// So many times of that are a block.
const IDLES_PER_BLOCK: u32 = 120;

/// How a world is set up.
#[derive(Clone)]
pub struct Setup {
	/// How the node tells the LSP.
	pub notify: Notify,
	/// With what the recipient answers once.
	pub replay: Replay,
	/// When the node dies.
	pub host_dies: Arc<Doom>,
	/// When the LSP's service dies.
	pub lsp_dies: Arc<Doom>,
	/// When the recipient dies.
	pub recipient_dies: Arc<Doom>,
	/// Whether the LSP's worker, when it has told the node to pay, comes back to that only later.
	pub lsp_hesitates: bool,
	/// Where the LSP's records are.
	pub lsp_medium: LossyMedium,
}

impl Default for Setup {
	fn default() -> Self {
		Self {
			notify: Notify::Outbox,
			replay: Replay::Leyden,
			host_dies: Doom::never(),
			lsp_dies: Doom::never(),
			recipient_dies: Doom::never(),
			lsp_hesitates: false,
			lsp_medium: LossyMedium::keeping_every(1),
		}
	}
}

/// The LSP's service in one life. Dropped, it serves nobody any more.
struct Service {
	lsp: Lsp,
	store: Arc<FaultyStore>,
	/// Its own, so that it ends with everything that it has open.
	runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Service {
	fn drop(&mut self) {
		if let Some(runtime) = self.runtime.take() {
			// Waits only until what runs comes to an end, so that the port is free.
			runtime.shutdown_timeout(Duration::from_secs(10));
		}
	}
}

/// See the [module documentation](self).
pub struct World {
	/// The nodes.
	pub net: LdkNet,
	/// Who pays.
	pub payer: Idx,
	/// The LSP's node.
	pub host: Idx,
	/// Who is paid.
	pub recipient: Idx,
	/// What time it is.
	pub clock: Arc<ManualClock>,
	/// What stands in front of the LSP's service.
	pub front: Front,
	/// What the LSP wants to see; a node takes it when it starts.
	pub token: Arc<Mutex<String>>,
	setup: Setup,
	runtime: tokio::runtime::Runtime,
	address: SocketAddr,
	service: Option<Service>,
	hosts: Slot<Host>,
	recipients: Slot<Recipient>,
	peers: Peers,
	made: Arc<AtomicU64>,
	seed: [u8; 32],
	height: Arc<AtomicU32>,
	idle: u32,
}

impl World {
	/// Everybody is there, has channels, and nobody has ordered anything.
	pub fn new(setup: Setup) -> Self {
		setup.host_dies.disarm();
		setup.recipient_dies.disarm();
		setup.lsp_dies.disarm();
		let runtime = runtime();
		let address = {
			let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
			listener.local_addr().expect("an address")
		};
		let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
		let (hosts, recipients) = (Slot::<Host>::default(), Slot::<Recipient>::default());
		let (peers, made) = (Peers::default(), Arc::new(AtomicU64::new(0)));
		let token = Arc::new(Mutex::new(TOKEN.to_owned()));
		let seed = [7; 32];
		let mut net = LdkNet::new(1);
		let payer = net.add_node(NodeConfig::default());
		let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
		let parts = HostParts {
			lsp_url: format!("http://{address}"),
			token: Arc::clone(&token),
			notify: setup.notify,
			peers: Arc::clone(&peers),
			clock: Arc::clone(&shared),
		};
		let make = move |store| Host::new(store, &parts).map_err(|error| error.to_string());
		let host = add(&mut net, &setup.host_dies, &clock, &hosts, make);
		let parts = RecipientParts {
			host: net.id(host),
			seed,
			made: Arc::clone(&made),
			replay: setup.replay,
			clock: shared,
		};
		let make =
			move |store| Recipient::new(store, parts.clone()).map_err(|error| error.to_string());
		let recipient = add(&mut net, &setup.recipient_dies, &clock, &recipients, make);
		for (a, b) in [(payer, host), (host, recipient)] {
			net.connect(a, b);
			// Both sides have more than the reserve, so that what they can spend is what they have.
			net.open_channel_pushing(a, b, 1_000_000, 2 * AMOUNT_MSAT);
		}
		net.persist_manager(host);
		net.persist_manager(recipient);
		let height = Arc::new(AtomicU32::new(net.chain.height()));
		let (front, service, idle) = (Front::default(), None, 0);
		let mut world = Self {
			net,
			payer,
			host,
			recipient,
			clock,
			front,
			token,
			setup,
			runtime,
			address,
			service,
			hosts,
			recipients,
			peers,
			made,
			seed,
			height,
			idle,
		};
		world.start_lsp();
		world.sync();
		world
	}

	/// The recipient makes orders for so many hashes, from index 0 on; the payer is given invoices of
	/// them.
	pub fn order(&self, count: u64) -> Vec<(PaymentHash, Bolt11Invoice)> {
		self.order_held(0..count, INVOICE_BLOCKS)
	}

	/// The same for these indexes, of invoices that may be held for so many blocks.
	pub fn order_held(
		&self, indexes: Range<u64>, blocks: u16,
	) -> Vec<(PaymentHash, Bolt11Invoice)> {
		let hashes: Vec<_> = indexes.clone().map(|index| self.hash(index)).collect();
		let hashes_json: Vec<_> = indexes
			.zip(&hashes)
			.map(|(index, hash)| {
				let payment_hash = rpc::hex(&hash.0);
				serde_json::json!({ "hash_index": index.to_string(), "payment_hash": payment_hash })
			})
			.collect();
		let params = serde_json::json!({ "protocol_version": 1, "hashes": hashes_json });
		let frame = rpc::request("1", NEW, &params);
		let answer = self.lsp().receive(&self.net.id(self.recipient), AMOUNT_MSAT, &frame);
		let answer = String::from_utf8(answer.expect("an answer")).expect("text");
		assert!(answer.contains("accepted"), "{answer}");
		let give = |hash: PaymentHash| {
			let invoice = self.host().hold_invoice(hash, AMOUNT_MSAT, blocks).expect("an invoice");
			self.lsp().give(&hash).expect("the store");
			(hash, invoice)
		};
		hashes.into_iter().map(give).collect()
	}

	/// The payer pays.
	pub fn pay(&mut self, invoice: &Bolt11Invoice) {
		let id = PaymentId(invoice.payment_hash().0);
		let params = OptionalBolt11PaymentParams {
			retry_strategy: Retry::Attempts(0),
			..Default::default()
		};
		let paid =
			self.net.node(self.payer).manager().pay_for_bolt11_invoice(invoice, id, None, params);
		paid.unwrap_or_else(|error| panic!("the payer cannot pay: {error:?}"));
		self.net.settle();
	}

	/// From now on those die that are to die.
	pub fn arm(&self) {
		self.setup.host_dies.arm();
		self.setup.lsp_dies.arm();
		self.setup.recipient_dies.arm();
	}

	/// Goes on until `done`, for at most so much time; answers whether it is.
	pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
		let end = self.clock.now().after(limit);
		loop {
			if done(self) {
				return true;
			}
			if self.clock.now() >= end {
				return false;
			}
			if !self.step() {
				self.pass();
			}
		}
	}

	/// Goes on until this order is over, for at most a day.
	pub fn finish(&mut self, hash: &PaymentHash) -> State {
		let day = Duration::from_secs(24 * 3600);
		self.run_until(day, |world| world.state(hash).is_final());
		// What was decided last is still on its way through the channels.
		self.run_until(Duration::from_secs(120), |_| false);
		self.state(hash)
	}

	/// Everybody does what there is to do now; answers whether there was anything.
	pub fn step(&mut self) -> bool {
		self.net.settle();
		let mut busy = self.revive();
		let height = self.height.load(Ordering::SeqCst);
		let host = self.host();
		busy |= host.on_block(height).is_ok_and(|expired| expired > 0);
		busy |= self.send(&host, height);
		if let Some(service) = &self.service {
			let worked = service.lsp.work(&host, height, usize::MAX);
			busy |= matches!(worked, Ok(1..));
		}
		drop(host);
		busy | self.revive()
	}

	/// The node tells the LSP what it has to tell it.
	pub fn deliver(&mut self) {
		self.net.settle();
		let height = self.height.load(Ordering::SeqCst);
		self.send(&self.host(), height);
	}

	/// The LSP does so many of the things that it has to do.
	pub fn work(&self, limit: usize) {
		let height = self.height.load(Ordering::SeqCst);
		self.lsp().work(&self.host(), height, limit).expect("the store");
	}

	/// Time passes.
	pub fn pass(&mut self) {
		self.clock.advance(IDLE);
		self.idle += 1;
		if self.idle % IDLES_PER_BLOCK == 0 {
			self.net.mine(1);
			self.sync();
		}
	}

	/// Blocks come.
	pub fn mine(&mut self, blocks: u32) {
		for _ in 0..blocks {
			self.net.mine(1);
			self.sync();
			while self.step() {}
		}
	}

	/// How far an order is.
	pub fn state(&self, hash: &PaymentHash) -> State {
		self.look(hash).expect("an order").state
	}

	/// An order, as the LSP's store has it: whether it runs or not.
	pub fn look(&self, hash: &PaymentHash) -> Option<Order> {
		match &self.service {
			Some(service) => service.lsp.order(hash).ok()?,
			None => None,
		}
	}

	/// The LSP's service is gone, as if its machine was.
	pub fn stop_lsp(&mut self) {
		self.service = None;
	}

	/// It starts from what is on its disk.
	pub fn start_lsp(&mut self) {
		self.service = None;
		let store =
			FaultyStore::new(self.setup.lsp_medium.open(), Arc::clone(&self.setup.lsp_dies));
		let keeps = self.setup.lsp_medium.clone();
		let store = Arc::new(store.after_each(move |_| keeps.committed()));
		let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
		let shared: Arc<dyn Store> = Arc::<FaultyStore>::clone(&store);
		let hesitates = self.setup.lsp_hesitates;
		let lsp = Lsp::new(shared, clock, TOKEN, Arc::clone(&self.height), hesitates);
		// A store that died while it was opened: the next one is well.
		let lsp = match lsp {
			Ok(lsp) => lsp,
			Err(_) => return self.start_lsp(),
		};
		let runtime = runtime();
		let (address, router) = (self.address, self.front.before(lsp.router()));
		let listener = runtime.block_on(async {
			let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
			socket.set_reuseaddr(true).expect("an option");
			socket.bind(address).expect("the port");
			socket.listen(64).expect("it listens")
		});
		runtime.spawn(async move { axum::serve(listener, router).await });
		self.service = Some(Service { lsp, store, runtime: Some(runtime) });
	}

	/// It starts from another disk: a copy of an earlier time.
	pub fn restore_lsp(&mut self, medium: LossyMedium) {
		self.service = None;
		self.setup.lsp_medium = medium;
		self.start_lsp();
	}

	/// A copy of the LSP's disk as it is.
	pub fn copy_lsp(&self) -> LossyMedium {
		LossyMedium::on(self.setup.lsp_medium.live().snapshot())
	}

	/// The LSP pulls what it never received; answers how much of that was applied.
	pub fn sweep(&self) -> usize {
		let feed = FeedServer::new(self.host().outbox().clone(), Token::new("feed").expect("one"));
		let lsp = self.lsp();
		self.runtime.block_on(async move {
			let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
			let url = format!("http://{}/events", listener.local_addr().expect("an address"));
			let serving = tokio::spawn(async move { axum::serve(listener, feed.router()).await });
			let address =
				Address::plain(&url).expect("a URL").with_token(Token::new("feed").expect("one"));
			let address = address.allowing("127.0.0.1".parse().expect("an address"));
			let client = FeedClient::new(address, Duration::from_secs(5)).expect("a client");
			let applied = lsp.sweep(&client).await.expect("a sweep");
			serving.abort();
			applied
		})
	}

	/// Sends a recorded request once more; answers the status.
	pub fn again(&self, recorded: &Recorded) -> u16 {
		self.runtime.block_on(recorded.again(self.address)).expect("an answer")
	}

	/// The LSP's service.
	///
	/// # Panics
	/// When it does not run.
	pub fn lsp(&self) -> Lsp {
		self.service.as_ref().expect("the service runs").lsp.clone()
	}

	/// The software of the LSP's node.
	pub fn host(&self) -> Arc<Host> {
		self.hosts.lock().unwrap().clone().expect("the node was started")
	}

	/// The recipient's software.
	pub fn recipient(&self) -> Arc<Recipient> {
		self.recipients.lock().unwrap().clone().expect("the recipient was started")
	}

	/// How many invoices the recipient has made.
	pub fn invoices_made(&self) -> u64 {
		self.made.load(Ordering::SeqCst)
	}

	/// The hash of an index.
	pub fn hash(&self, index: u64) -> PaymentHash {
		Recipient::hash(&self.seed, index)
	}

	/// The recipient cannot be reached, or can be again.
	pub fn set_online(&mut self, online: bool) {
		match online {
			true => self.net.connect(self.host, self.recipient),
			false => self.net.disconnect(self.host, self.recipient),
		}
		self.sync();
	}

	/// A node dies and is started again.
	pub fn restart(&mut self, n: Idx) {
		self.net.disk(n).kill();
		self.revive();
	}

	/// What was put aside, by the node and by the LSP, and why; and what waits, for a failing test.
	pub fn put_aside(&self) -> Vec<String> {
		let host = self.host();
		let boxes =
			[Some(host.outbox().clone()), self.service.as_ref().map(|s| s.lsp.actions().clone())];
		let mut said = Vec::new();
		for outbox in boxes.into_iter().flatten() {
			for letter in outbox.dead_letters(100).unwrap_or_default() {
				said.push(format!("{:?}: {}", letter.callback, letter.reason));
			}
		}
		said
	}

	/// What the nodes have in their channels and of their own, in millisatoshi: payer, node, recipient.
	pub fn balances(&self) -> [u64; 3] {
		[self.payer, self.host, self.recipient].map(|n| {
			let channels = self.net.channels(n);
			channels.iter().map(|channel| channel.outbound_capacity_msat).sum()
		})
	}

	/// Starts what has died. Answers whether anything had.
	fn revive(&mut self) -> bool {
		let mut died = false;
		for n in [self.host, self.recipient] {
			died |= self.net.revive(n);
		}
		if self.service.as_ref().is_some_and(|service| service.store.is_dead()) {
			self.setup.lsp_medium.crash();
			self.start_lsp();
			died = true;
		}
		if died {
			self.sync();
		}
		died
	}

	fn send(&self, host: &Arc<Host>, height: u32) -> bool {
		if self.setup.notify == Notify::Detached {
			let tasks = host.take_detached();
			let any = !tasks.is_empty();
			tasks.into_iter().for_each(|(path, body)| self.send_once(&path, body));
			return any;
		}
		let courier = host.courier().clone();
		match self.runtime.block_on(async move { courier.drain(height).await }) {
			Ok(drained) => drained != leyden_http::Drained::default(),
			Err(OutboxError::Store(_)) => false,
			Err(error) => panic!("{error}"),
		}
	}

	/// One try, and an error that is only logged.
	fn send_once(&self, path: &str, body: Vec<u8>) {
		let url = format!("http://{}{path}", self.address);
		let signed = leyden_http::SigningSecret::parse(host::SECRET).expect("a secret");
		// There is no id in what this is a model of; this one is the same for the same words.
		let id = rpc::hex(&sha256::Hash::hash(&body).to_byte_array());
		let timestamp = self.clock.now().0 / 1000;
		let webhook = leyden_http::Webhook { id: &id, timestamp };
		let signature = webhook.sign(&body, &[signed]);
		let request = reqwest::Client::new()
			.post(url)
			.header("webhook-id", &id)
			.header("webhook-timestamp", timestamp)
			.header("webhook-signature", signature)
			.header("authorization", format!("Bearer {TOKEN}"))
			.body(body);
		let _ = self.runtime.block_on(request.send());
	}

	/// Who can be reached, and how high the chain is.
	fn sync(&mut self) {
		self.height.store(self.net.chain.height(), Ordering::SeqCst);
		let mut peers = self.peers.lock().unwrap();
		peers.clear();
		if self.net.connected(self.host, self.recipient) {
			let recipient = self.recipients.lock().unwrap().clone();
			let id: PublicKey = self.net.id(self.recipient);
			peers.extend(
				recipient.map(|recipient| (id, recipient)).into_iter().collect::<HashMap<_, _>>(),
			);
		}
	}
}

/// Adds a node whose software is made anew for each life, on a store that dies with it.
fn add<T: User + 'static>(
	net: &mut LdkNet, doom: &Arc<Doom>, clock: &Arc<ManualClock>, slot: &Slot<T>,
	make: impl Fn(Arc<dyn Store>) -> Result<T, String> + Send + Sync + 'static,
) -> Idx {
	let disk = mortal_disk(doom);
	let guards = lives(doom, &disk, clock, slot, &Arc::new(LossyMedium::keeping_every(1)), make);
	net.add_node_on(NodeConfig::default().deferred(), disk, guards)
}

fn runtime() -> tokio::runtime::Runtime {
	let mut builder = tokio::runtime::Builder::new_multi_thread();
	builder.worker_threads(1).enable_all().build().expect("a runtime")
}
