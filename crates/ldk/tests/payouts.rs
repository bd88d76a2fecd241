//! Payouts of slashed bonds on real nodes: the bond is a held HTLC that is claimed, and the payout a
//! payment that is routed. `S` names the scenarios of Mostro's bond payout.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use leyden_ldk::{Journal, LdkPayer, ProcessingRounds, EVENT_STREAM};
use leyden_log::{ConsumerOptions, EventLog, LogOptions};
use leyden_payout::{
	AttemptStatus, FailureReason, KnownPayment, KnownPayments, NewDebt, NodeMemory, NodeToken,
	PayOrder, PayReply, Payer, PayoutError, SettleReply, State, Submitted, Terms,
};
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store};
use leyden_testkit::bonds::{BondWorld, BOND_SAT, WINNER};
use leyden_testkit::{Doom, Side};
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::events::{Event, ReplayEvent};

const DAY: Duration = Duration::from_secs(24 * 3600);
const BOND_MSAT: u64 = BOND_SAT * 1000;

fn paid(world: &BondWorld, before: [u64; 3], share_msat: u64) {
	let after = world.balances();
	assert_eq!(before[0] - after[0], BOND_MSAT, "the maker has lost the bond");
	assert_eq!(after[2] - before[2], share_msat, "the winner has its share");
	assert_eq!(after[1] - before[1], BOND_MSAT - share_msat, "the exchange has the rest");
}

/// What everybody has before the bond is paid: it is held when a world begins.
fn before(world: &BondWorld) -> [u64; 3] {
	let held = world.balances();
	[held[0] + BOND_MSAT, held[1], held[2]]
}

/// S1, S6: taken, asked for, paid.
#[test]
fn a_bond_is_taken_and_its_share_is_paid() {
	let mut world = BondWorld::new(Doom::never());
	let (before, new) = (before(&world), world.debt(500));
	world.slash(&new).unwrap();
	world.pass(Duration::from_secs(120), Duration::from_secs(30));
	let debt = world.look(&new.id);
	assert_eq!((debt.state, debt.node_share_sat, debt.share_sat), (State::Owed, 500, 500));
	assert!(debt.window_start.is_some() && debt.reminders == 1);
	paid(&world, before, 0);
	let invoice = world.invoice(500_000);
	let stranger = world.exchange().payouts().submit_invoice(&new.id, b"maker", &invoice);
	assert!(matches!(stranger, Err(PayoutError::NotThePayee { .. })));
	assert_eq!(world.submit(&new.id, &invoice).unwrap(), Submitted::Accepted);
	assert_eq!(world.run(&new.id), State::Paid);
	paid(&world, before, 500_000);
	assert_eq!(world.look(&new.id).attempts, 1);
	assert_eq!(world.exchange().told(), ["wanted", "paid"]);
	let proof = world.exchange().payouts().proof(&new.id).unwrap().to_json();
	assert!(proof.contains(&"01".repeat(32)), "the preimage is in the proof: {proof}");
	assert!(world.exchange().payouts().audit().unwrap().is_empty());
}

/// S2, S3: the winner gives no invoice, and then it is too late.
#[test]
fn a_share_without_an_invoice_is_forfeited() {
	let mut world = BondWorld::new(Doom::never());
	let before = before(&world);
	let terms = Terms { invoice_window: DAY, ..world.debt(500).terms };
	let new = NewDebt { terms, ..world.debt(500) };
	world.slash(&new).unwrap();
	world.pass(Duration::from_secs(120), Duration::from_secs(30));
	world.arrived(&new.id);
	world.pass(DAY, Duration::from_secs(600));
	assert_eq!(world.look(&new.id).state, State::Forfeited);
	paid(&world, before, 0);
	let invoice = world.invoice(500_000);
	assert!(matches!(world.submit(&new.id, &invoice), Err(PayoutError::InvalidState { .. })));
	assert_eq!(world.exchange().told().last().unwrap(), "forfeited");
}

/// S4: all of it is the exchange's.
#[test]
fn a_bond_that_is_all_the_exchanges_is_kept() {
	let mut world = BondWorld::new(Doom::never());
	let (before, new) = (before(&world), world.debt(1_000));
	world.slash(&new).unwrap();
	world.pass(Duration::from_secs(120), Duration::from_secs(30));
	assert_eq!(world.look(&new.id).state, State::Kept);
	paid(&world, before, 0);
	assert!(world.exchange().told().is_empty());
}

/// S5, A11: the peer is away for an hour. Nothing is used up, and the same invoice is paid when the peer
/// is back.
#[test]
fn a_peer_that_is_away_uses_up_nothing() {
	let mut world = BondWorld::new(Doom::never());
	let (before, new) = (before(&world), world.debt(500));
	world.slash(&new).unwrap();
	world.pass(Duration::from_secs(120), Duration::from_secs(30));
	let invoice = world.invoice(500_000);
	world.submit(&new.id, &invoice).unwrap();
	world.net.disconnect(world.exchange, world.winner);
	world.pass(Duration::from_secs(3600), Duration::from_secs(60));
	let debt = world.look(&new.id);
	assert_eq!((debt.state, debt.failed_attempts), (State::Owed, 0));
	assert!(debt.attempts < 8, "{debt:?}");
	paid(&world, before, 0);
	world.net.connect(world.exchange, world.winner);
	world.pass(Duration::from_secs(3600), Duration::from_secs(60));
	assert_eq!(world.look(&new.id).state, State::Paid);
	paid(&world, before, 500_000);
}

/// The recipient rejects the payment: an attempt that counts, another invoice is asked for, and a fresh
/// one is paid; after three of them the debt fails.
#[test]
fn a_payment_that_is_rejected_asks_for_another_invoice() {
	for last in [2_u8, 3] {
		let mut world = BondWorld::new(Doom::never());
		let (before, new) = (before(&world), world.debt(500));
		world.slash(&new).unwrap();
		world.pass(Duration::from_secs(120), Duration::from_secs(30));
		for failed in 1..=last {
			// An invoice of a winner that does not know its own preimage: it does not take what comes.
			let other = world.foreign_invoice(failed, 500_000);
			world.submit(&new.id, &other.0).unwrap();
			world.pass(Duration::from_secs(30), Duration::from_secs(15));
			assert_eq!(world.look(&new.id).live, Some(failed.into()), "held by the recipient");
			world.net.node(world.winner).manager().fail_htlc_backwards(&other.1);
			world.net.settle();
			let debt = world.look(&new.id);
			assert_eq!((debt.failed_attempts, debt.live), (failed.into(), None));
			assert_eq!(
				debt.has_invoice,
				failed == 3,
				"another one is asked for, but after the last"
			);
		}
		if last == 3 {
			assert_eq!(world.run(&new.id), State::Failed);
		}
		paid(&world, before, 0);
		let fresh = world.invoice(500_000);
		let reopened = world.submit(&new.id, &fresh).unwrap() == Submitted::Reopened;
		assert_eq!(reopened, last == 3);
		assert_eq!(world.run(&new.id), State::Paid);
		paid(&world, before, 500_000);
	}
}

/// A1: the debt was paid by LDK, which has forgotten it, and the database is yesterday's. The debt is not
/// paid again before an operator has looked. A database that is trusted pays again, which shows that this
/// test would see it.
#[test]
fn an_old_copy_of_the_database_pays_nothing_twice() {
	for trusts in [false, true] {
		let mut world = BondWorld::new(Doom::never());
		let (before, new) = (before(&world), world.debt(500));
		world.slash(&new).unwrap();
		world.pass(Duration::from_secs(120), Duration::from_secs(30));
		let invoice = world.invoice(500_000);
		let yesterday = world.copy_store();
		world.submit(&new.id, &invoice).unwrap();
		assert_eq!(world.run(&new.id), State::Paid);
		paid(&world, before, 500_000);
		// LDK forgets a payment seven ticks of its timer after the event was handled.
		for _ in 0..20 {
			world.net.tick();
		}
		world.net.persist_manager(world.exchange);
		assert!(world.net.node(world.exchange).manager().list_recent_payments().is_empty());
		world.trust_store(trusts);
		world.restart_with(&yesterday);
		assert_eq!(world.look(&new.id).state, State::Owed);
		// The winner gives another invoice.
		let again = world.invoice(500_000);
		world.submit(&new.id, &again).unwrap();
		world.pass(Duration::from_secs(3600), Duration::from_secs(60));
		let debt = world.look(&new.id);
		if trusts {
			assert_eq!(debt.state, State::Paid);
			paid(&world, before, 1_000_000);
			continue;
		}
		assert_eq!((debt.state, debt.attempts), (State::Owed, 0));
		assert!(debt.is_unproven);
		paid(&world, before, 500_000);
	}
}

/// S7: restarts, and other terms for what comes later, change nothing of what was agreed.
#[test]
fn terms_outlive_restarts() {
	let mut world = BondWorld::new(Doom::never());
	let (before, new) = (before(&world), world.debt(500));
	world.slash(&new).unwrap();
	world.pass(Duration::from_secs(120), Duration::from_secs(30));
	world.restart();
	assert!(matches!(world.slash(&world.debt(900)), Err(PayoutError::TermsMismatch { .. })));
	world.slash(&new).unwrap();
	let invoice = world.invoice(500_000);
	world.submit(&new.id, &invoice).unwrap();
	world.restart();
	assert_eq!(world.run(&new.id), State::Paid);
	paid(&world, before, 500_000);
	assert_eq!(WINNER, world.look(&new.id).payee);
}

/// The exchange dies before and after every write, its own and LDK's: the bond is taken once and the
/// winner is paid once.
#[test]
fn the_exchange_dies_everywhere() {
	let run = |doom: &Arc<Doom>| {
		let mut world = BondWorld::new(Arc::clone(doom));
		let (before, new) = (before(&world), world.debt(500));
		let invoice = world.invoice(500_000);
		world.arm();
		for _ in 0..40 {
			// A caller that was not answered asks again.
			let _ = world.slash(&new);
			world.pass(Duration::from_secs(15), Duration::from_secs(15));
			let debt = world.exchange().payouts().debt(&new.id).ok().flatten();
			match debt.map(|debt| (debt.state, debt.has_invoice)) {
				Some((State::Owed, false)) => drop(world.submit(&new.id, &invoice)),
				Some((State::Paid, _)) => break,
				_ => {},
			}
		}
		world.pass(Duration::from_secs(60), Duration::from_secs(15));
		let proof = || world.exchange().payouts().proof(&new.id).unwrap().to_json();
		assert_eq!(world.look(&new.id).state, State::Paid, "{doom:?}: {}", proof());
		paid(&world, before, 500_000);
		assert!(world.exchange().payouts().audit().unwrap().is_empty());
		assert_eq!(world.exchange().told().iter().filter(|told| *told == "paid").count(), 1);
	};
	let never = Doom::never();
	run(&never);
	assert!(never.writes() > 20, "{}", never.writes());
	for write in 0..never.writes() {
		for side in [Side::Before, Side::After] {
			let doom = Doom::at(write, side);
			run(&doom);
			assert!(doom.has_struck(), "write {write} did not come");
		}
	}
}

/// An order to pay an invoice of the winner's, as payouts give it.
fn order(world: &BondWorld, number: u32, invoice: &str) -> PayOrder {
	let debt = world.debt(500).id;
	let parsed: Bolt11Invoice = invoice.parse().unwrap();
	PayOrder {
		debt,
		attempt: debt.attempt(number),
		number,
		invoice: invoice.to_owned(),
		payment_hash: parsed.payment_hash().0,
		amount_msat: 500_000,
		fee_cap_msat: 10_000,
		token: NodeToken::default(),
	}
}

/// What LDK took in this life of its manager is never known not to be, also when LDK has forgotten it: its
/// event is still to come, or was lost. It is not given to LDK again.
#[test]
fn what_ldk_took_is_never_known_not_to_be() {
	let mut world = BondWorld::new(Doom::never());
	let (first, second) = (world.invoice(500_000), world.invoice(500_000));
	let manager = Arc::clone(world.net.node(world.exchange).manager());
	let rounds = world.exchange().rounds().clone();
	let payer = LdkPayer::new(Arc::clone(&manager), rounds.clone());
	let never = order(&world, 7, &first);
	// Of the first LDK has said nothing but that it took it.
	let (first, second) = (order(&world, 1, &first), order(&world, 2, &second));
	let listed = || match payer.list_attempts(&first.debt).take().unwrap() {
		KnownPayments::Listed { payments, memory } => (payments, memory),
		KnownPayments::ByHashOnly => panic!("LDK knows names"),
	};
	assert_eq!(listed(), (Vec::new(), NodeMemory::WithStore));
	let before = world.balances();
	assert_eq!(payer.pay(&first).take(), Some(PayReply::Unknown));
	world.step();
	for _ in 0..20 {
		world.net.tick();
	}
	assert!(manager.list_recent_payments().is_empty());
	assert_eq!(payer.pay(&second).take(), Some(PayReply::Unknown));
	let known = KnownPayment { number: 2, payment_hash: second.payment_hash, may_pay: true };
	assert_eq!(listed().0, [known]);
	assert_eq!(payer.lookup(&second).take(), Some(AttemptStatus::InFlight));
	for _ in 0..4 {
		world.step();
	}
	for _ in 0..20 {
		world.net.tick();
	}
	assert!(manager.list_recent_payments().is_empty());
	assert_eq!(world.balances()[2] - before[2], 1_000_000);
	let round = rounds.count();
	for _ in 0..3 {
		let is_proven =
			payer.lookup(&never).take() == Some(AttemptStatus::NoRecord(NodeMemory::WithStore));
		assert_eq!(is_proven, rounds.count() >= round + 2);
		for taken in [&first, &second] {
			let found = payer.lookup(taken).take();
			assert_eq!(found, Some(AttemptStatus::NoRecord(NodeMemory::Unknown)));
		}
		world.step();
	}
	for taken in [&first, &second] {
		assert_eq!(payer.pay(taken).take(), Some(PayReply::Unknown));
	}
	assert!(manager.list_recent_payments().is_empty(), "LDK was not asked");
	assert_eq!(world.balances()[2] - before[2], 1_000_000);
}

/// A payment that LDK lists is not given to it again, also by a payer that is new: LDK looks for a route
/// before it looks whether it knows the payment, and "no route" would be taken for "not sent".
#[test]
fn what_ldk_lists_is_not_given_to_it_again() {
	let mut world = BondWorld::new(Doom::never());
	world.winner_waits = true;
	let invoice = world.invoice(500_000);
	let manager = Arc::clone(world.net.node(world.exchange).manager());
	let rounds = world.exchange().rounds().clone();
	let payer = || LdkPayer::new(Arc::clone(&manager), rounds.clone());
	let (first, never) = (order(&world, 1, &invoice), order(&world, 7, &invoice));
	assert_eq!(payer().pay(&first).take(), Some(PayReply::Unknown));
	world.step();
	world.net.disconnect(world.exchange, world.winner);
	let other = payer();
	let no_route = Some(PayReply::NotSent(FailureReason::NoRoute));
	assert_eq!(other.pay(&first).take(), Some(PayReply::Unknown));
	assert_eq!(manager.list_recent_payments().len(), 1);
	assert_eq!(other.lookup(&first).take(), Some(AttemptStatus::InFlight));
	// What was missing before LDK was told says nothing of what is missing after it.
	let unknown = Some(AttemptStatus::NoRecord(NodeMemory::Unknown));
	assert_eq!(other.lookup(&never).take(), unknown);
	world.step();
	assert_eq!(other.pay(&never).take(), no_route);
	world.step();
	assert_eq!(other.lookup(&never).take(), unknown);
}

/// A payer without claims says so, and is not silent.
#[test]
fn a_payer_without_claims_says_so() {
	let world = BondWorld::new(Doom::never());
	let manager = Arc::clone(world.net.node(world.exchange).manager());
	let payer = LdkPayer::new(manager, ProcessingRounds::new());
	assert_eq!(payer.settle_held(&[8; 32]).take(), Some(SettleReply::Unable));
}

/// A round in which the journal refused an event does not count: LDK brings the event again.
#[test]
fn a_round_with_an_event_that_was_refused_does_not_count() {
	let store = MemoryStore::open(&MemoryMedium::new(), Namespace::default()).unwrap();
	let store: Arc<dyn Store> = Arc::new(store);
	let clock = Arc::new(ManualClock::default());
	let log = EventLog::open(store, EVENT_STREAM, clock, LogOptions::default()).unwrap();
	let consumer = log.consumer("app", ConsumerOptions::default()).unwrap();
	let (journal, rounds) = (Journal::new(log), ProcessingRounds::new());
	let event = || Event::ConnectionNeeded {
		node_id: "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619"
			.parse()
			.unwrap(),
		addresses: Vec::new(),
	};
	assert!(rounds.end_round(&journal, &consumer).unwrap());
	assert!(journal.handle(event(), |_| Ok(())).is_ok());
	assert!(rounds.end_round(&journal, &consumer).unwrap());
	assert!(journal.handle(event(), |_| Err(ReplayEvent())).is_err());
	assert!(!rounds.end_round(&journal, &consumer).unwrap());
	assert_eq!(rounds.count(), 2);
	assert!(rounds.end_round(&journal, &consumer).unwrap());
	assert_eq!(rounds.count(), 3);
}

/// A10: the claim deadline of the bond passes before the exchange decides. The bond is the maker's again,
/// and the debt is void.
#[test]
fn a_bond_whose_deadline_has_passed_makes_its_debt_void() {
	let mut world = BondWorld::new(Doom::never());
	let before = before(&world);
	world.net.mine_past_expiry();
	let new = world.debt(500);
	world.slash(&new).unwrap();
	world.pass(Duration::from_secs(120), Duration::from_secs(30));
	assert_eq!(world.look(&new.id).state, State::Void);
	assert_eq!(world.balances(), before, "nothing has moved");
	let invoice = world.invoice(500_000);
	let refused = world.submit(&new.id, &invoice);
	assert!(matches!(refused, Err(PayoutError::InvalidState { state: State::Void, .. })));
	assert!(world.exchange().payouts().audit().unwrap().is_empty());
}
