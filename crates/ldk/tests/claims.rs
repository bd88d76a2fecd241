//! Claims on real nodes: lost with LDK alone, done with Leyden.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use leyden_ldk::Claims;
use leyden_store::{
	Batch, Key, KeyRange, MemoryMedium, MemoryStore, Namespace, Plan, RecordType, Store,
	StoreError, Table, Value,
};
use leyden_testkit::net::{Paid, Sent};
use leyden_testkit::{Guard, Idx, LdkNet, MemKv, NodeConfig, NodeHandle};
use lightning::events::{Event, ReplayEvent};

const LEDGER: Table = Table::new("ledger");

/// What a node does with its claims: resumes them at start, gives them every event, ends them when
/// they are done.
struct Claimer {
	claims: Claims,
	store: Arc<dyn Store>,
	node: Mutex<Option<NodeHandle>>,
	seen: Arc<Mutex<Vec<Event>>>,
}

impl Guard for Claimer {
	fn started(&self, node: &NodeHandle) {
		self.claims.resume(&*node.manager().unwrap()).unwrap();
		*self.node.lock().unwrap() = Some(node.clone());
	}

	fn handle_event(
		&self, event: Event, handle: &mut dyn FnMut(Event) -> Result<(), ReplayEvent>,
	) -> Result<(), ReplayEvent> {
		let node = self.node.lock().unwrap().clone();
		if let Some(manager) = node.and_then(|node| node.manager()) {
			self.claims.on_event(&*manager, &event).unwrap();
		}
		self.seen.lock().unwrap().push(event.clone());
		let settled = self.claims.settled(&event);
		handle(event)?;
		if let Some(settled) = settled {
			settled.run(&*self.store).unwrap();
		}
		Ok(())
	}
}

struct Rig {
	net: LdkNet,
	payer: Idx,
	payee: Idx,
	/// The same in all lives: what becomes of it in a crash is shown elsewhere.
	store: Arc<dyn Store>,
	/// What the payee was told.
	seen: Arc<Mutex<Vec<Event>>>,
}

impl Rig {
	fn new(with_claims: bool) -> Self {
		let mut net = LdkNet::new(7);
		let store = open(&MemoryMedium::new());
		let payer = net.add_node(NodeConfig::default());
		let shared = Arc::clone(&store);
		let seen = Arc::<Mutex<Vec<Event>>>::default();
		let told = Arc::clone(&seen);
		let guards: leyden_testkit::guard::GuardFactory = match with_claims {
			false => leyden_testkit::Bare::factory(),
			true => Arc::new(move |_| {
				let store = Arc::clone(&shared);
				let claims = Claims::new(Arc::clone(&store));
				let (node, seen) = (Mutex::default(), Arc::clone(&told));
				Arc::new(Claimer { claims, store, node, seen })
			}),
		};
		let payee = net.add_node_with(NodeConfig::default(), Arc::new(MemKv::new()), guards);
		net.connect(payer, payee);
		net.open_channel(payer, payee, 1_000_000);
		Self { net, payer, payee, store, seen }
	}

	/// A payment that the payee holds, durably.
	fn held(&mut self) -> Sent {
		let sent = self.net.pay(self.payer, self.payee, 50_000_000);
		assert_eq!(self.net.told(self.payee, "PaymentClaimable"), 1);
		self.net.persist_manager(self.payee);
		sent
	}

	fn claims(&self) -> Claims {
		Claims::new(Arc::clone(&self.store))
	}

	fn restart(&mut self) {
		self.net.crash(self.payee);
		self.net.restart(self.payee);
		self.net.settle();
		if !self.net.connected(self.payer, self.payee) {
			self.net.connect(self.payer, self.payee);
		}
		self.net.settle();
	}
}

fn open(medium: &MemoryMedium) -> Arc<dyn Store> {
	Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap())
}

/// What this is about (H-C3): "claiming" is written down, the node dies, and nobody claims.
#[test]
fn ldk_alone_does_not_claim_what_was_only_meant() {
	let mut rig = Rig::new(false);
	let sent = rig.held();
	// The ledger says "claiming" here. Then it dies.
	rig.restart();
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 0);
	assert_eq!(rig.net.paid(&sent), Paid::Pending);
}

#[test]
fn a_claim_that_was_meant_is_made_after_a_restart() {
	let mut rig = Rig::new(true);
	let sent = rig.held();
	// In one commit with the ledger's record; and it dies before it has told LDK.
	let mut ledger = Batch::new();
	ledger.put(Key::new(LEDGER, sent.hash.0), Value::new(RecordType(0x8000), 1, "claiming"));
	let claims = rig.claims();
	let plan = claims.intend(sent.preimage, Some(1_000_000)).unwrap().and(Plan::of(ledger));
	plan.commit(&*rig.store).wait().unwrap();
	assert_eq!(rig.claims().claiming().unwrap().len(), 1);
	rig.restart();
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 1);
	assert_ne!(rig.net.paid(&sent), Paid::Pending);
	assert!(rig.claims().claiming().unwrap().is_empty());
	// Nothing is left to do.
	rig.net.persist_manager(rig.payee);
	rig.restart();
	assert!(rig.claims().claiming().unwrap().is_empty());
	assert_eq!(rig.net.told(rig.payer, "PaymentSent"), 1);
}

/// It dies after it has told LDK, and before or after LDK has written anything.
#[test]
fn a_claim_that_was_begun_is_finished() {
	for persist in [false, true] {
		let mut rig = Rig::new(true);
		let sent = rig.held();
		// Nothing of LDK's answers gets through.
		rig.net.disconnect(rig.payer, rig.payee);
		let claims = rig.claims();
		claims.claim(&**rig.net.node(rig.payee).manager(), sent.preimage, None).unwrap();
		if persist {
			rig.net.persist_manager(rig.payee);
		}
		rig.restart();
		assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 1, "persisted: {persist}");
		// A manager that is older than its monitors closes the channel: the claim goes to the chain.
		rig.net.mine_until(200, |net| net.paid(&sent) != Paid::Pending);
		assert_eq!(rig.net.told(rig.payer, "PaymentSent"), 1, "persisted: {persist}");
		assert!(rig.claims().claiming().unwrap().is_empty());
	}
}

/// LDK says again that it can be claimed, as it does if it had not come so far when its manager was
/// written.
#[test]
fn a_claim_that_was_meant_is_made_when_ldk_says_that_it_can_be() {
	let mut rig = Rig::new(true);
	let sent = rig.held();
	let event = rig.seen.lock().unwrap().last().cloned().unwrap();
	assert!(matches!(event, Event::PaymentClaimable { .. }));
	let manager = Arc::clone(rig.net.node(rig.payee).manager());
	let claims = rig.claims();
	assert!(!claims.on_event(&*manager, &event).unwrap(), "nobody meant to claim it");
	rig.net.settle();
	assert_eq!(rig.net.paid(&sent), Paid::Pending);
	claims.intend(sent.preimage, None).unwrap().run(&*rig.store).unwrap();
	assert!(claims.on_event(&*manager, &event).unwrap());
	drop(manager);
	rig.net.settle();
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 1);
	assert_ne!(rig.net.paid(&sent), Paid::Pending);
}

/// Claimed again while it is being claimed: LDK does nothing.
#[test]
fn claiming_twice_is_claiming_once() {
	let mut rig = Rig::new(true);
	let sent = rig.held();
	let manager = Arc::clone(rig.net.node(rig.payee).manager());
	let claims = rig.claims();
	for _ in 0..3 {
		claims.claim(&*manager, sent.preimage, None).unwrap();
	}
	assert_eq!(claims.resume(&*manager).unwrap(), 1);
	drop(manager);
	rig.net.settle();
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 1);
	assert_eq!(rig.net.told(rig.payer, "PaymentSent"), 1);
}

/// Too late is not done, and is not forgotten: somebody must look.
#[test]
fn what_is_too_late_is_said() {
	let rig = Rig::new(true);
	let claims = rig.claims();
	let preimage = lightning::types::payment::PaymentPreimage([3; 32]);
	claims.intend(preimage, Some(500)).unwrap().run(&*rig.store).unwrap();
	assert!(rig.claims().overdue(499).unwrap().is_empty());
	let overdue = rig.claims().overdue(500).unwrap();
	assert_eq!(overdue.len(), 1);
	assert!(!format!("{claims:?} {overdue:?}").contains("3, 3, 3"));
	rig.claims().forget(&overdue[0].payment_hash).run(&*rig.store).unwrap();
	assert!(rig.claims().claiming().unwrap().is_empty());
}

/// A preimage of something else is never given to LDK.
#[test]
fn a_record_of_something_else_is_loud() {
	let medium = MemoryMedium::new();
	let store = open(&medium);
	let claims = Claims::new(Arc::clone(&store));
	let preimage = lightning::types::payment::PaymentPreimage([3; 32]);
	claims.intend(preimage, None).unwrap().run(&*store).unwrap();
	let table = Table::new("claims");
	let record = store.scan(KeyRange::all(table), 1).wait().unwrap().records.remove(0).1;
	let mut batch = Batch::new();
	batch.put(Key::new(table, [9; 32]), record.value);
	store.commit(batch).wait().unwrap();
	let error = claims.claiming().unwrap_err();
	assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}
