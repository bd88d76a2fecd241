//! A payment that somebody was told is held: LDK forgets that it was, with a manager from before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bitcoin::hashes::{sha256, Hash};
use leyden_store::{MemoryMedium, MemoryStore, Namespace, Store};
use leyden_testkit::{Bare, GuardFactory, LdkNet, LeydenGuard, MemKv, NodeConfig, Wiring};
use lightning::ln::channelmanager::{
	Bolt11InvoiceParameters, OptionalBolt11PaymentParams, PaymentId,
};
use lightning::ln::outbound_payment::Retry;
use lightning::types::payment::{PaymentHash, PaymentPreimage};

/// How long a hold invoice wants it to be held: longer than LDK itself needs.
const HOLD_BLOCKS: u16 = 144;
/// Blocks that come while the node is down: not so many that the payment's own deadline comes.
const DOWN_BLOCKS: u32 = 12;

/// A payment is told as claimable, and the node dies and is away for some blocks. Answers whether it can
/// still be claimed, and is.
fn is_still_held(guards: GuardFactory, persisted: bool) -> bool {
	let mut net = LdkNet::new(3);
	let payer = net.add_node(NodeConfig::default());
	let kv = Arc::new(MemKv::new());
	let payee = net.add_node_with(NodeConfig::default().deferred(), kv, guards);
	net.connect(payer, payee);
	net.open_channel(payer, payee, 1_000_000);
	let preimage = PaymentPreimage([7; 32]);
	let invoice = net.node(payee).manager().create_bolt11_invoice(Bolt11InvoiceParameters {
		amount_msats: Some(50_000_000),
		min_final_cltv_expiry_delta: Some(HOLD_BLOCKS),
		payment_hash: Some(PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array())),
		..Default::default()
	});
	let params =
		OptionalBolt11PaymentParams { retry_strategy: Retry::Attempts(0), ..Default::default() };
	let manager = Arc::clone(net.node(payer).manager());
	manager.pay_for_bolt11_invoice(&invoice.unwrap(), PaymentId([1; 32]), None, params).unwrap();
	drop(manager);
	net.settle();
	assert_eq!(net.told(payee, "PaymentClaimable"), 1);
	if persisted {
		assert!(net.persist_manager(payee));
	}
	net.crash(payee);
	net.mine(DOWN_BLOCKS);
	net.restart(payee);
	net.settle();
	net.connect(payer, payee);
	// Whoever was told that it is held has paid it on, and has the preimage now.
	net.node(payee).manager().claim_funds(preimage);
	net.settle();
	let claimed = net.told(payee, "PaymentClaimed") == 1 && net.told(payer, "PaymentSent") == 1;
	let failed = net.told(payer, "PaymentFailed") == 1;
	assert_ne!(claimed, failed);
	claimed
}

fn leyden(hold_barrier: bool) -> GuardFactory {
	let medium = MemoryMedium::new();
	LeydenGuard::factory(
		Wiring { hold_barrier, ..Wiring::default() },
		Arc::new(move |_| -> Arc<dyn Store> {
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap())
		}),
	)
}

/// Finding 16. If LDK stops doing this (it could persist the manager with what can be claimed, or take
/// the HTLC as it was), `Journal::with_hold_barrier` is not needed any more: say so in its
/// documentation and keep it as something that costs a write.
#[test]
fn ldk_fails_a_payment_back_that_it_has_said_is_held() {
	assert!(!is_still_held(Bare::factory(), false));
	assert!(is_still_held(Bare::factory(), true), "with a manager that has it");
}

#[test]
fn with_the_barrier_what_was_told_is_held() {
	assert!(is_still_held(leyden(true), false));
	// The log alone cannot help: LDK has failed it back.
	assert!(!is_still_held(leyden(false), false));
}
