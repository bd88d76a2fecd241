//! What is owed on which terms, and which invoices are taken. `S` names the
//! scenarios of Mostro's bond payout, `H-A` the holes that were found in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use leyden_payout::*;
use leyden_store::{ManualClock, Timestamp};
use rig::*;

/// H-A6: one invoice, two debts.
#[test]
fn an_invoice_pays_one_debt() {
	let world = World::new();
	world.owe(&bond(1));
	world.owe(&bond(2));
	world.settle();
	world.submit(&bond(1).id, &world.good(1)).unwrap();
	let again = world.submit(&bond(2).id, &world.good(1));
	assert!(matches!(again, Err(PayoutError::InvoiceUsed { .. })), "{again:?}");
	// Another text of the same payment hash.
	let same = Like { lives: 29 * DAY, ..Like::good(1, 500, world.now()) };
	let again = world.submit(&bond(2).id, &same.text());
	assert!(matches!(again, Err(PayoutError::InvoiceUsed { .. })), "{again:?}");
	world.pass(MINUTE);
	assert_eq!(world.state(&bond(2).id), State::Owed);
	world.submit(&bond(2).id, &world.good(2)).unwrap();
	world.pass(MINUTE);
	assert_eq!(world.state(&bond(2).id), State::Paid);
}

/// H-A7: only the payee who is stored with the debt is paid.
#[test]
fn only_the_payee_may_ask() {
	let (world, id) = owed();
	let error = world.payouts.submit_invoice(&id, b"buyer", &world.good(1)).unwrap_err();
	assert!(
		matches!(error, PayoutError::NotThePayee { .. }) && !error.to_string().contains("seller")
	);
	let unknown = world.submit(&bond(9).id, &world.good(1));
	assert!(matches!(unknown, Err(PayoutError::NoSuchDebt { .. })));
	assert!(!world.debt(&id).has_invoice);
}

/// S7, H-A8: the terms are the debt's own. A debt that is added again is the same, or refused.
#[test]
fn terms_do_not_change() {
	let mut world = World::new();
	let id = world.bond().id;
	world.owe(&world.bond());
	world.restart();
	assert_eq!(world.owe(&world.bond()), Added::AlreadyExists);
	for other in [
		NewDebt { node_share_sat: 900, ..world.bond() },
		NewDebt { payee: b"buyer".to_vec(), ..world.bond() },
		NewDebt { terms: Terms { invoice_window: DAY, ..terms() }, ..world.bond() },
		NewDebt { terms: Terms { reminder_interval: DAY, ..terms() }, ..world.bond() },
		NewDebt { terms: Terms { max_failed_attempts: 9, ..terms() }, ..world.bond() },
		NewDebt { terms: Terms { fee_cap_msat: 0, ..terms() }, ..world.bond() },
	] {
		assert!(matches!(world.payouts.add_debt(&other), Err(PayoutError::TermsMismatch { .. })));
	}
	world.settle();
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(MINUTE);
	assert_eq!((world.debt(&id).share_sat, world.state(&id)), (500, State::Paid));
	// Added again after it was paid, it is the same debt.
	assert_eq!(world.owe(&world.bond()), Added::AlreadyExists);
	world.pass(MINUTE);
	assert_eq!(world.node.paid(&id), 1);
}

/// H-A17: numbers that cannot be.
#[test]
fn numbers_are_checked() {
	let world = World::new();
	let bad = |new: NewDebt| {
		let error = world.payouts.add_debt(&new).map(|_| ()).unwrap_err();
		assert!(matches!(error, PayoutError::OutOfRange { .. }), "{error}");
	};
	let bond = world.bond();
	bad(NewDebt { amount_sat: 0, node_share_sat: 0, ..bond.clone() });
	bad(NewDebt { amount_sat: u64::MAX, ..bond.clone() });
	bad(NewDebt { node_share_sat: 1001, ..bond.clone() });
	bad(NewDebt { payee: vec![], ..bond.clone() });
	bad(NewDebt { payee: vec![1; 256], ..bond.clone() });
	bad(NewDebt { cause: "x".repeat(301), ..bond.clone() });
	bad(NewDebt { terms: Terms { max_failed_attempts: 0, ..terms() }, ..bond.clone() });
	bad(NewDebt { terms: Terms { invoice_window: Duration::ZERO, ..terms() }, ..bond.clone() });
	bad(NewDebt { terms: Terms { reminder_interval: Duration::MAX, ..terms() }, ..bond.clone() });
	// Fees that would make more go out than came in.
	bad(NewDebt { terms: Terms { fee_cap_msat: 500_001, ..terms() }, ..bond.clone() });
	assert!(world
		.payouts
		.add_debt(&NewDebt { terms: Terms { fee_cap_msat: 500_000, ..terms() }, ..bond })
		.is_ok());
	// The node's share is rounded down: the rest is the payee's.
	for (amount, millionths, share) in [
		(1000, 500_000, 500),
		(1001, 500_000, 500),
		(1, 999_999, 0),
		(999, 1_000_000, 999),
		(7, 0, 0),
	] {
		assert_eq!(NewDebt::node_share_sat(amount, millionths).unwrap(), share);
	}
	assert!(NewDebt::node_share_sat(1, 1_000_001).is_err());
	assert!(NewDebt::node_share_sat(MAX_AMOUNT_SAT, 1_000_000).is_ok());
	assert!(NewDebt::node_share_sat(u64::MAX, 1).is_err());
}

/// Invoices that are not good: typed, and nothing is changed.
#[test]
fn bad_invoices_are_refused() {
	let (world, id) = owed();
	let before = world.payouts.debt(&id).unwrap();
	let good = Like::good(1, 500, world.now());
	let is = |invoice: &str, expected: InvoiceError| {
		match world.submit(&id, invoice) {
			Err(PayoutError::Invoice(found)) => assert_eq!(found, expected),
			other => panic!("{other:?}"),
		}
		assert!(world.payouts.debt(&id).unwrap() == before);
	};
	for text in ["", "x", "lnbcrt1", "\0", &"l".repeat(5_000), &good.text()[1..]] {
		is(text, InvoiceError::Malformed);
	}
	let mut broken = good.text();
	broken.replace_range(20..21, if &broken[20..21] == "q" { "p" } else { "q" });
	is(&broken, InvoiceError::Malformed);
	is(&Like { network: Currency::Bitcoin, ..good.clone() }.text(), InvoiceError::Network);
	let amount = InvoiceError::Amount { expected_msat: 500_000 };
	for amount_msat in [499_000, 501_000, 500_001, 1] {
		let amount_msat = Some(amount_msat);
		is(&Like { amount_msat, ..good.clone() }.text(), amount.clone());
	}
	is(&Like { lives: 9 * MINUTE, ..good.clone() }.text(), InvoiceError::Expires);
	let old = Like { made_at: Timestamp(START.0 - 31 * 24 * 3_600_000), ..good.clone() };
	is(&old.text(), InvoiceError::Expires);
	is(&Like { final_cltv: 721, ..good.clone() }.text(), InvoiceError::FinalCltv { most: 720 });
	// What is good is good in capitals and with spaces around it.
	world.submit(&id, &format!("  {} ", good.text().to_uppercase())).unwrap();
	let twice = world.submit(&id, &world.good(2));
	assert!(matches!(twice, Err(PayoutError::HasInvoice { .. })));
}

/// Paying oneself is no payment.
#[test]
fn our_own_invoice_is_refused() {
	let world = World::new();
	let key = bitcoin::secp256k1::SecretKey::from_slice(&[5; 32]).unwrap();
	let own = key.public_key(&bitcoin::secp256k1::Secp256k1::new()).serialize();
	let mut options = options();
	options.invoices.own = vec![own];
	let clock = Arc::<ManualClock>::clone(&world.clock);
	let payouts = Payouts::open(Arc::clone(&world.store), clock, options).unwrap();
	world.owe(&world.bond());
	world.settle();
	let refused = payouts.submit_invoice(&world.bond().id, SELLER, &world.good(1));
	assert!(matches!(refused, Err(PayoutError::Invoice(InvoiceError::Own))));
}

/// Invoices as wallets make them (A13): good for an hour and a second old; without an amount; as a URI;
/// in the capitals of a QR code.
#[test]
fn invoices_of_wallets_are_accepted() {
	type Write = fn(&Like) -> String;
	let forms: [(&str, Write); 5] = [
		("an hour", |like| Like { lives: HOUR, ..like.clone() }.text()),
		("no amount", |like| Like { amount_msat: None, ..like.clone() }.text()),
		("a URI", |like| format!(" lightning:{}\n", like.text())),
		("a URI in capitals", |like| format!("LIGHTNING:{}", like.text().to_uppercase())),
		("capitals", |like| like.text().to_uppercase()),
	];
	for (what, form) in forms {
		let (world, id) = owed();
		let invoice = form(&Like::good(1, 500, world.now()));
		world.clock.advance(Duration::from_secs(1));
		assert_eq!(world.submit(&id, &invoice).unwrap(), Submitted::Accepted, "{what}");
		world.pass(MINUTE);
		assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1), "{what}");
		assert_eq!(world.node.amounts(), [500_000], "{what}");
	}
}

/// An invoice without a route is replaced by the payee; an operator is told once. The failures that count
/// are kept.
#[test]
fn an_invoice_that_cannot_be_paid_may_be_replaced() {
	let (world, id) = owed();
	world.submit(&id, &world.good(1)).unwrap();
	let early = world.submit(&id, &world.good(2));
	assert!(matches!(early, Err(PayoutError::HasInvoice { .. })), "no attempt was made yet");
	world.node.then([How::Not(FailureReason::NoRoute), How::Hold]);
	world.pass(5 * MINUTE);
	let under_way = world.submit(&id, &world.good(2));
	assert!(matches!(under_way, Err(PayoutError::AttemptLive { number: 2, .. })), "{under_way:?}");
	world.node.release(false);
	world.node.then([How::Not(FailureReason::NoRoute); 30]);
	world.pass(8 * HOUR);
	let debt = world.debt(&id);
	assert_eq!((debt.live, debt.failed_attempts), (None, 1));
	assert_eq!(world.times_told("NoRoute"), 1);
	world.node.clear();
	world.node.then([How::Hold]);
	assert_eq!(world.submit(&id, &world.good(2)).unwrap(), Submitted::Replaced);
	assert_eq!(world.debt(&id).failed_attempts, 1);
	let again = world.submit(&id, &world.good(1));
	assert!(again.is_err(), "an invoice is given once");
	world.pass(MINUTE);
	let under_way = world.submit(&id, &world.good(3));
	assert!(matches!(under_way, Err(PayoutError::HasInvoice { .. })), "{under_way:?}");
	world.node.release(true);
	world.pass(MINUTE);
	assert_eq!((world.state(&id), world.node.paid(&id)), (State::Paid, 1));
	assert!(world.payouts.audit().unwrap().is_empty());
}

/// An invoice that outlives every debt is refused.
#[test]
fn an_invoice_has_an_end() {
	let (world, id) = owed();
	let long = |days: u32| Like { lives: days * DAY, ..Like::good(1, 500, world.now()) }.text();
	let refused = world.submit(&id, &long(91));
	let Err(PayoutError::Invoice(error)) = refused else { panic!("{refused:?}") };
	assert_eq!(error, InvoiceError::Outlives { longest: 90 * DAY });
	assert!(error.to_string().contains("90 days"), "{error}");
	world.submit(&id, &long(90)).unwrap();
}
