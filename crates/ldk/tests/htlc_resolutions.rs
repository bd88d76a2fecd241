//! Resolutions of HTLCs on real nodes: lost with LDK alone, done with Leyden.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use leyden_ldk::{HtlcResolution, HtlcResolutions};
use leyden_store::{
	Batch, Key, KeyRange, MemoryMedium, MemoryStore, Namespace, Plan, RecordType, Store, Table,
	Value,
};
use leyden_testkit::net::{Paid, Sent};
use leyden_testkit::{
	Bare, Guard, GuardFactory, Idx, LdkNet, LeydenGuard, MemKv, NodeConfig, Wiring,
};
use lightning::types::payment::PaymentPreimage;

const LEDGER: Table = Table::new("ledger");
const RESOLUTIONS: Table = Table::new("htlc_resolutions");

struct Rig {
	net: LdkNet,
	payer: Idx,
	payee: Idx,
	/// Leyden's part of the payee's disk.
	medium: MemoryMedium,
	/// The payee's guard in its present run.
	guard: Arc<Mutex<Option<Arc<LeydenGuard>>>>,
}

impl Rig {
	fn new(with_leyden: bool) -> Self {
		let mut net = LdkNet::new(7);
		let medium = MemoryMedium::new();
		let payer = net.add_node(NodeConfig::default());
		let (on, guard) = (medium.clone(), Arc::<Mutex<Option<Arc<LeydenGuard>>>>::default());
		let newest = Arc::clone(&guard);
		let guards: GuardFactory = match with_leyden {
			false => Bare::factory(),
			true => Arc::new(move |_| -> Arc<dyn Guard> {
				let guard = Arc::new(LeydenGuard::new(open(&on), Wiring::default()));
				*newest.lock().unwrap() = Some(Arc::clone(&guard));
				guard
			}),
		};
		let payee = net.add_node_with(NodeConfig::default(), Arc::new(MemKv::new()), guards);
		net.connect(payer, payee);
		net.open_channel(payer, payee, 1_000_000);
		Self { net, payer, payee, medium, guard }
	}

	/// A payment that the payee holds, durably.
	fn held(&mut self) -> Sent {
		let sent = self.net.pay(self.payer, self.payee, 50_000_000);
		assert_eq!(self.net.told(self.payee, "PaymentClaimable"), 1);
		self.net.persist_manager(self.payee);
		sent
	}

	fn resolutions(&self) -> HtlcResolutions {
		let guard = self.guard.lock().unwrap();
		guard.as_ref().unwrap().ldk_node().resolutions().clone()
	}

	fn commit(&self, plan: Plan<()>) {
		let store = Arc::clone(self.guard.lock().unwrap().as_ref().unwrap().events().store());
		plan.run(&*store).unwrap();
	}

	fn restart(&mut self) {
		self.net.crash(self.payee);
		self.guard.lock().unwrap().take();
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

fn claim(sent: &Sent) -> HtlcResolution {
	HtlcResolution::Claim { preimage: sent.preimage, claim_deadline: Some(1_000_000) }
}

/// H-C3: "claiming" is written down, the node dies, and LDK claims nothing.
#[test]
fn ldk_alone_does_not_claim_what_a_ledger_says_is_being_claimed() {
	let mut rig = Rig::new(false);
	let sent = rig.held();
	// The ledger says "claiming" here. Then the node dies.
	rig.restart();
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 0);
	assert_eq!(rig.net.paid(&sent), Paid::Pending);
}

#[test]
fn a_claim_that_was_written_down_is_made_after_a_restart() {
	let mut rig = Rig::new(true);
	let sent = rig.held();
	// In one commit with the ledger's record; and the node dies before it has told LDK.
	let mut ledger = Batch::new();
	ledger.put(Key::new(LEDGER, sent.hash.0), Value::new(RecordType(0x8000), 1, "claiming"));
	let plan = rig.resolutions().plan(claim(&sent)).unwrap().and(Plan::of(ledger)).map(|_| ());
	rig.commit(plan);
	assert_eq!(rig.resolutions().pending(), [claim(&sent)]);
	rig.restart();
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 1);
	assert_ne!(rig.net.paid(&sent), Paid::Pending);
	assert!(rig.resolutions().pending().is_empty());
	// Nothing is left to do.
	rig.net.persist_manager(rig.payee);
	rig.restart();
	assert!(rig.resolutions().pending().is_empty());
	assert_eq!(rig.net.told(rig.payer, "PaymentSent"), 1);
	// The user was told once that it can be claimed: what LDK asked again, Leyden has answered.
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimable"), 1);
}

/// The node dies after it has told LDK, and before or after LDK has written anything.
#[test]
fn a_claim_that_was_begun_is_finished() {
	for persist in [false, true] {
		let mut rig = Rig::new(true);
		let sent = rig.held();
		// Nothing of LDK's answers gets through.
		rig.net.disconnect(rig.payer, rig.payee);
		rig.resolutions().resolve(rig.net.node(rig.payee).manager(), claim(&sent)).unwrap();
		if persist {
			for _ in 0..3 {
				rig.net.persist_manager(rig.payee);
			}
		}
		assert_eq!(
			rig.resolutions().pending(),
			[claim(&sent)],
			"until LDK says that it is claimed"
		);
		rig.restart();
		assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 1, "persisted: {persist}");
		// A manager that is older than its monitors closes the channel: the claim goes to the chain.
		rig.net.mine_until(200, |net| net.paid(&sent) != Paid::Pending);
		assert_eq!(rig.net.told(rig.payer, "PaymentSent"), 1, "persisted: {persist}");
		assert!(rig.resolutions().pending().is_empty());
	}
}

/// The future that resolves a request is dropped after its commit: LDK gets the resolution with the
/// next event.
#[test]
fn a_resolution_that_was_committed_and_not_given_is_given_with_the_next_event() {
	let mut rig = Rig::new(true);
	let sent = rig.held();
	let plan = rig.resolutions().plan(claim(&sent)).unwrap();
	rig.commit(plan);
	rig.net.settle();
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 0);
	rig.net.pay(rig.payer, rig.payee, 1_000_000);
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 1);
}

/// Claimed again while it is being claimed: LDK does nothing.
#[test]
fn claiming_twice_is_claiming_once() {
	let mut rig = Rig::new(true);
	let sent = rig.held();
	let manager = Arc::clone(rig.net.node(rig.payee).manager());
	for _ in 0..3 {
		rig.resolutions().resolve(&manager, claim(&sent)).unwrap();
	}
	assert_eq!(rig.resolutions().apply(&manager), 0);
	drop(manager);
	rig.net.settle();
	assert_eq!(rig.net.told(rig.payee, "PaymentClaimed"), 1);
	assert_eq!(rig.net.told(rig.payer, "PaymentSent"), 1);
}

#[test]
fn a_failure_that_was_written_down_is_made_after_a_restart_and_ends_with_the_manager() {
	let mut rig = Rig::new(true);
	let sent = rig.held();
	let fail = HtlcResolution::FailBackwards { payment_hash: sent.hash };
	let plan = rig.resolutions().plan(fail).unwrap();
	rig.commit(plan);
	rig.restart();
	assert_eq!(rig.net.told(rig.payer, "PaymentFailed"), 1);
	// LDK has it in memory. Once a manager is durable that has it, nothing is kept any more; the
	// background processor's writes lag by one.
	rig.net.persist_manager(rig.payee);
	assert_eq!(rig.resolutions().pending(), [fail]);
	rig.net.persist_manager(rig.payee);
	assert!(rig.resolutions().pending().is_empty());
}

/// A claim after its deadline is not done, and is listed for an operator.
#[test]
fn a_claim_after_its_deadline_is_listed() {
	let rig = Rig::new(true);
	let preimage = PaymentPreimage([3; 32]);
	let claim = HtlcResolution::Claim { preimage, claim_deadline: Some(500) };
	let plan = rig.resolutions().plan(claim).unwrap();
	rig.commit(plan);
	assert!(rig.resolutions().overdue(499).is_empty());
	let overdue = rig.resolutions().overdue(500);
	assert_eq!(overdue, [claim]);
	assert!(!format!("{:?} {overdue:?}", rig.resolutions()).contains("3, 3, 3"));
	assert!(!format!("{overdue:?}").contains("0303"), "no preimage");
	use bitcoin::hashes::{sha256, Hash};
	let hash = sha256::Hash::hash(&preimage.0).to_byte_array();
	let plan = rig.resolutions().give_up_payment(&lightning::types::payment::PaymentHash(hash));
	rig.commit(plan);
	assert!(rig.resolutions().pending().is_empty());
}

/// A preimage of something else is never given to LDK: the node does not start on such a record.
#[test]
fn a_record_under_the_key_of_another_payment_is_an_error_at_start() {
	let mut rig = Rig::new(true);
	let sent = rig.held();
	let plan = rig.resolutions().plan(claim(&sent)).unwrap();
	rig.commit(plan);
	rig.net.crash(rig.payee);
	rig.guard.lock().unwrap().take();
	let store = open(&rig.medium);
	let record = store.scan(KeyRange::all(RESOLUTIONS), 1).wait().unwrap().records.remove(0).1;
	let mut batch = Batch::new();
	batch.put(Key::new(RESOLUTIONS, [&b"p"[..], &[9; 32]].concat()), record.value);
	store.commit(batch).wait().unwrap();
	drop(store);
	rig.net.restart(rig.payee);
	let guard = rig.guard.lock().unwrap().clone().unwrap();
	assert!(!guard.has_started(), "a damaged record is loud");
}
