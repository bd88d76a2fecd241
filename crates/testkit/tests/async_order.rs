//! Async orders from end to end on real nodes: what goes well, and every fault between a node and its
//! LSP. Each ends with every effect once.

#![cfg(feature = "async-order")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use leyden_outbox::FeedCursor;
use leyden_store::{Clock, SystemClock};
use leyden_testkit::async_order::order::State;
use leyden_testkit::async_order::rpc::hex;
use leyden_testkit::async_order::{
	stories, Fault, Inbound, Notify, Outbound, Replay, Setup, World, AMOUNT_MSAT, INVOICE_BLOCKS,
	TOKEN,
};
use lightning::types::payment::PaymentHash;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What must be true at the end of an order, whatever happened on the way.
fn paid_once(world: &World, before: [u64; 3]) {
	assert_eq!(world.net.told(world.payer, "PaymentSent"), 1);
	assert_eq!(world.net.told(world.payer, "PaymentFailed"), 0);
	assert_eq!(world.net.told(world.recipient, "PaymentClaimed"), 1);
	assert_eq!(world.net.told(world.host, "PaymentClaimed"), 1);
	assert_eq!(world.net.told(world.host, "PaymentSent"), 1);
	let after = world.balances();
	assert_eq!(before[0] - after[0], AMOUNT_MSAT, "the payer has paid once");
	assert_eq!(after[2] - before[2], AMOUNT_MSAT, "the recipient was paid once");
	assert_eq!(after[1], before[1], "and the node has got what it paid");
	assert_eq!(world.invoices_made(), 1);
}

/// The payer has its money again, and nobody was paid.
fn given_back(world: &World, before: [u64; 3]) {
	assert_eq!(world.net.told(world.payer, "PaymentSent"), 0);
	assert_eq!(world.net.told(world.payer, "PaymentFailed"), 1);
	assert_eq!(world.net.told(world.recipient, "PaymentClaimed"), 0);
	assert_eq!(world.balances(), before);
}

/// A world with one order, which is paid while this is done to it; it must end well.
fn order_with(setup: Setup, mut trouble: impl FnMut(&mut World, PaymentHash)) -> World {
	let mut world = World::new(setup);
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	world.pay(&invoice);
	trouble(&mut world, hash);
	assert_eq!(
		world.finish(&hash),
		State::InboundClaimed,
		"{:?} {:?}",
		world.put_aside(),
		world.host().inbound(&hash)
	);
	paid_once(&world, before);
	world
}

/// With which block the first callback of the node is too late.
fn deadline_of_the_callback(world: &World) -> u32 {
	let page = world.host().outbox().feed(FeedCursor::default(), 1).unwrap();
	page.items[0].deadline().height.unwrap()
}

fn statuses(world: &World) -> Vec<u16> {
	world.front.came().iter().map(|came| came.status()).collect()
}

#[test]
fn an_order_goes_through() {
	let world = order_with(Setup::default(), |world, hash| {
		assert_eq!(world.state(&hash), State::Active);
	});
	assert_eq!(statuses(&world), [200, 200], "one callback each, sent once");
}

/// The LSP is down for an hour when a payment can be claimed, or when the recipient was paid.
#[test]
fn an_lsp_that_is_down_for_an_hour_is_told_afterwards() {
	let world = order_with(Setup::default(), |world, hash| {
		world.stop_lsp();
		assert!(!world.run_until(HOUR, |_| false));
		assert_eq!(world.host().inbound(&hash), Ok(Some(Inbound::Claimable)));
		world.start_lsp();
		assert_eq!(world.state(&hash), State::Active);
	});
	assert_eq!(statuses(&world), [200, 200]);
	order_with(Setup::default(), |world, hash| {
		assert!(world.run_until(HOUR, |world| world.state(&hash) == State::OutboundPaid));
		world.stop_lsp();
		assert!(!world.run_until(HOUR, |_| false));
		let paid = world.host().payment(&hash).unwrap();
		assert!(matches!(paid, Some(Outbound::Succeeded(_))), "{paid:?}");
		world.start_lsp();
		assert_eq!(world.state(&hash), State::OutboundPaid);
	});
}

/// Answers that do not say "taken": for each callback, once, and several times in a row.
#[test]
fn what_is_not_taken_is_sent_again() {
	let faults = [
		Fault::Status(500),
		Fault::Status(503),
		Fault::Status(429),
		Fault::Status(404),
		Fault::AppliedAndSilent,
		Fault::Redirect,
	];
	for fault in faults {
		let world = order_with(Setup::default(), |world, _| {
			// The first callback, and then the second.
			world.front.then([fault, Fault::None, fault]);
		});
		assert!(world.front.is_done(), "{fault:?}");
		let came = world.front.came();
		assert_eq!(came.len(), 4, "{fault:?}");
		// Under the same id, with the same words.
		assert_eq!(came[0].body(), came[1].body());
		assert_eq!(came[2].body(), came[3].body());
	}
	let world = order_with(Setup::default(), |world, _| world.front.then(faults));
	assert!(world.front.is_done());
}

/// The status line is the answer: what was applied and whose body never comes is not sent again.
#[test]
fn a_body_that_never_comes_changes_no_answer() {
	let world = order_with(Setup::default(), |world, _| {
		world.front.then([Fault::SlowLoris, Fault::SlowLoris]);
	});
	assert!(world.front.is_done());
	assert_eq!(statuses(&world), [200, 200]);
}

/// A token that is wrong, and an endpoint that is gone for a while: it is probed a few times, heals by
/// itself when it lets the node in, and nothing is lost.
#[test]
fn an_endpoint_that_refuses_everything_is_probed() {
	let world = order_with(Setup::default(), |world, hash| {
		// Answers are dated with the machine's clock: a refusal by a clock that differs is one of clocks.
		world.clock.set(SystemClock.now());
		// The node was set up with another token.
		*world.token.lock().unwrap() = "another".to_owned();
		world.restart(world.host);
		assert!(!world.run_until(HOUR, |_| false));
		assert_eq!(world.state(&hash), State::Active);
		let refused = statuses(world);
		assert!(refused.iter().all(|status| *status == 401), "{refused:?}");
		assert!((2..10).contains(&refused.len()), "{} in an hour", refused.len());
		let endpoint = world.host().outbox().endpoints().remove(0);
		assert_eq!(endpoint.paused.unwrap().1, "HTTP 401");
		// The token is put right.
		*world.token.lock().unwrap() = TOKEN.to_owned();
		world.restart(world.host);
	});
	let statuses_of = statuses(&world);
	assert_eq!(statuses_of[statuses_of.len() - 2..], [200, 200]);
	let world = order_with(Setup::default(), |world, _| {
		world.front.then([Fault::Status(410)]);
	});
	assert_eq!(statuses(&world), [410, 200, 200]);
}

/// The same twice, and an old one after a newer one: nothing changes.
#[test]
fn duplicates_and_old_callbacks_change_nothing() {
	let mut world = order_with(Setup::default(), |world, _| {
		world.front.then([Fault::Twice, Fault::Twice]);
	});
	let hash = world.hash(0);
	let recorded = world.front.came();
	assert_eq!(recorded.len(), 2);
	for old in recorded.iter().rev().chain(&recorded) {
		assert_eq!(world.again(old), 200);
	}
	assert_eq!(world.finish(&hash), State::InboundClaimed);
	assert_eq!(world.invoices_made(), 1);
	// What was recorded is no good later: a signature has an age.
	world.clock.advance(6 * MINUTE);
	assert_eq!(world.again(&recorded[0]), 400);
}

/// H-C1: the recipient was paid before the LSP had noted that its node was told to pay. The LSP says
/// "not yet", and the preimage comes again.
#[test]
fn a_preimage_that_comes_early_comes_again() {
	let setup = Setup { lsp_hesitates: true, ..Setup::default() };
	let world = order_with(setup, |_, _| ());
	let statuses = statuses(&world);
	assert_eq!((statuses[0], statuses[1]), (200, 503));
	assert_eq!(statuses.last(), Some(&200));
}

/// H-C2: ten callbacks that are never taken, and one whose deadline is near.
#[test]
fn poison_does_not_delay_what_is_urgent() {
	let mut world = World::new(Setup::default());
	let poison = world.order_held(0..10, INVOICE_BLOCKS);
	for (hash, invoice) in &poison {
		world.front.refuse(hex(&hash.0), 500);
		world.pay(invoice);
	}
	assert!(!world.run_until(10 * MINUTE, |_| false));
	let (urgent, invoice) = world.order_held(10..11, INVOICE_BLOCKS - 30).remove(0);
	world.pay(&invoice);
	let before = world.front.came().len();
	assert!(world.run_until(HOUR, |world| world.state(&urgent) == State::InboundClaimed));
	// It goes before whatever else is due, once the endpoint is asked again.
	let after: Vec<_> = world.front.came().split_off(before);
	let mine =
		|came: &&leyden_testkit::async_order::Recorded| came.body().contains(&hex(&urgent.0));
	let place = after.iter().position(|came| mine(&came)).unwrap();
	assert!(place <= 1, "{place} of the others went first");
	// What was poison is well again, and nothing of it is lost.
	world.front.accept();
	for (hash, _) in &poison {
		assert_eq!(world.finish(hash), State::InboundClaimed);
	}
}

/// H-C3, as the LSP sees it: its node dies when it has written down that it claims.
#[test]
fn a_claim_that_was_begun_is_finished_after_a_restart() {
	order_with(Setup::default(), |world, hash| {
		assert!(world.run_until(HOUR, |world| world.state(&hash) == State::OutboundPaid));
		world.front.then([Fault::Status(503)]);
		world.step();
		// It has said that it claims, and LDK has not written anything about it.
		let preimage = match world.host().payment(&hash).unwrap() {
			Some(Outbound::Succeeded(preimage)) => preimage,
			other => panic!("{other:?}"),
		};
		let claimed = world.host().claim(lightning::types::payment::PaymentPreimage(preimage));
		assert_eq!(claimed, Ok(Inbound::Claiming));
		world.restart(world.host);
	});
}

/// H-C4: the node cannot be reached when it is to pay. That is no answer: it is asked again, and
/// nothing is given back meanwhile.
#[test]
fn a_node_that_is_down_has_not_refused() {
	order_with(Setup::default(), |world, hash| {
		world.deliver();
		world.work(1);
		assert_eq!(world.state(&hash), State::OutboundPending);
		let (lsp, dead) = (world.lsp(), world.host());
		world.net.disk(world.host).kill();
		let height = world.net.chain.height();
		for _ in 0..20 {
			lsp.work(&dead, height, usize::MAX).unwrap();
			world.clock.advance(MINUTE);
		}
		assert_eq!(world.state(&hash), State::OutboundPending);
	});
	// It dies when it was told to pay, before LDK has written anything: nobody has paid, it is asked
	// again, and pays once.
	order_with(Setup::default(), |world, hash| {
		world.deliver();
		world.work(2);
		assert_eq!(world.state(&hash), State::OutboundPaid);
		assert_eq!(world.host().payment(&hash), Ok(Some(Outbound::Sending)));
		world.restart(world.host);
	});
}

/// H-C5: the recipient does not take it. Who paid gets it back.
#[test]
fn a_payment_that_fails_is_given_back() {
	let mut world = World::new(Setup::default());
	let before = world.balances();
	// An index so high that the recipient does not know it for its own.
	let (hash, invoice) = world.order_held(1_000..1_001, INVOICE_BLOCKS).remove(0);
	world.pay(&invoice);
	assert!(world.run_until(HOUR, |world| world.state(&hash) == State::OutboundPaid));
	world.net.node(world.recipient).manager().fail_htlc_backwards(&hash);
	assert_eq!(world.finish(&hash), State::OutboundCancelled);
	assert_eq!(world.host().payment(&hash), Ok(Some(Outbound::Failed)));
	given_back(&world, before);
}

/// Nobody takes the callback, and the deadline comes: the node gives the payment back, before LDK would
/// have to.
#[test]
fn a_callback_that_is_too_late_gives_the_payment_back() {
	let mut world = World::new(Setup::default());
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	world.pay(&invoice);
	world.stop_lsp();
	let deadline = deadline_of_the_callback(&world);
	let left = deadline - world.net.chain.height();
	world.mine(left - 1);
	assert_eq!(world.net.told(world.payer, "PaymentFailed"), 0, "not before its time");
	world.mine(1);
	given_back(&world, before);
	let letters = world.host().outbox().dead_letters(10).unwrap();
	assert_eq!(letters.len(), 1);
	world.start_lsp();
	assert_eq!(world.state(&hash), State::Active, "the LSP never heard of it");
}

/// The recipient cannot be reached until it is too late: the LSP has the node give the payment back.
#[test]
fn an_order_that_is_too_late_is_given_back() {
	let mut world = World::new(Setup::default());
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	world.pay(&invoice);
	world.set_online(false);
	assert!(world.run_until(HOUR, |world| world.state(&hash) == State::OutboundRequested));
	let deadline = world.look(&hash).unwrap().deadline_height.unwrap();
	world.mine(deadline - 11 - world.net.chain.height());
	assert_eq!(world.state(&hash), State::OutboundRequested);
	world.mine(1);
	assert_eq!(world.finish(&hash), State::InboundCancelled);
	world.set_online(true);
	given_back(&world, before);
}

/// It comes too late to be paid on: "late" is no refusal for ever, and no reason to try again.
#[test]
fn a_callback_that_the_lsp_calls_late_gives_the_payment_back() {
	let mut world = World::new(Setup::default());
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	world.pay(&invoice);
	world.stop_lsp();
	// Late for the LSP, which wants 12 blocks, and not yet for the node.
	let deadline = deadline_of_the_callback(&world);
	world.mine(deadline - 3 - world.net.chain.height());
	world.start_lsp();
	world.run_until(HOUR, |world| world.net.told(world.payer, "PaymentFailed") == 1);
	given_back(&world, before);
	assert_eq!(world.state(&hash), State::Active);
}

/// An LSP that was restored from yesterday's copy: what it was told is not said again, so it asks.
#[test]
fn an_lsp_that_was_set_back_repairs_itself() {
	let mut world = World::new(Setup::default());
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	let yesterday = world.copy_lsp();
	let empty = leyden_testkit::LossyMedium::keeping_every(1);
	world.pay(&invoice);
	assert_eq!(world.finish(&hash), State::InboundClaimed);
	paid_once(&world, before);
	let came = world.front.came().len();
	world.restore_lsp(yesterday);
	assert!(!world.run_until(HOUR, |_| false));
	assert_eq!(world.state(&hash), State::Active, "nobody says it again");
	// The preimage has to wait for the LSP to come that far: its node and the recipient say what they
	// said, and nothing happens twice.
	assert_eq!(world.sweep(), 1);
	assert!(world.run_until(HOUR, |world| world.state(&hash) == State::OutboundPaid));
	assert_eq!(world.sweep(), 1);
	assert_eq!(world.finish(&hash), State::InboundClaimed);
	paid_once(&world, before);
	assert_eq!(world.front.came().len(), came, "nothing was pushed");
	// H-C7: a copy from before there was an order. The preimage is not swallowed: it waits.
	world.restore_lsp(empty);
	assert_eq!(world.sweep(), 0);
	let store = world.lsp().store().clone();
	let waiting = leyden_outbox::Reconciler::open(store, "node").unwrap().waiting().unwrap();
	assert_eq!(waiting.len(), 2);
	world.order(1);
	assert_eq!(world.sweep(), 1);
	assert_eq!(world.state(&hash), State::Claimable);
}

/// H-C9: what is not the LSP's is not said to it.
#[test]
fn only_what_is_the_lsps_is_said_to_it() {
	let mut world = World::new(Setup::default());
	let sent = world.net.pay(world.payer, world.host, 1_000_000);
	world.net.claim(sent.hash);
	let sent = world.net.pay(world.host, world.recipient, 1_000_000);
	world.net.claim(sent.hash);
	assert_eq!(world.net.told(world.host, "PaymentClaimable"), 1);
	assert_eq!(world.net.told(world.host, "PaymentSent"), 1);
	assert_eq!(world.host().outbox().feed(FeedCursor::default(), 10).unwrap().last, 0);
}

/// What it is like today: a task that sends once. The LSP has paid, and is never told; its node gives
/// back what it held.
#[test]
fn a_detached_task_loses_the_lsps_money() {
	let mut nobody = |_: &str| ();
	let before = stories::callback(Notify::Detached, &mut nobody);
	assert_eq!(before.state, State::OutboundPaid);
	assert_eq!((before.lsp_lost_msat, before.payer_paid_msat), (AMOUNT_MSAT, 0));
	assert_eq!(before.recipient_got_msat, AMOUNT_MSAT);
	let after = stories::callback(Notify::Outbox, &mut nobody);
	assert!(after.is_well(), "{after:?}");
	let before = stories::request(Replay::Memory, &mut nobody);
	assert_eq!(before.invoices, 2);
	let after = stories::request(Replay::Leyden, &mut nobody);
	assert!(after.is_well() && after.took_secs < before.took_secs, "{after:?}");
}

/// A4: "claimable" was applied by the LSP, its answer was lost, and then there are only 503s until the
/// deadline of the callback. The LSP pays the recipient; the node does not give the payment back, and gets
/// what it paid. Were the doubt forgotten, the node would have lost 50,000,000 msat.
#[test]
fn a_callback_that_may_have_been_taken_gives_nothing_back() {
	let mut world = World::new(Setup::default());
	let before = world.balances();
	let (hash, invoice) = world.order(1).remove(0);
	world.front.then([Fault::AppliedAndSilent]);
	world.front.then(vec![Fault::Status(503); 400]);
	world.pay(&invoice);
	let deadline = deadline_of_the_callback(&world);
	let left = deadline - world.net.chain.height();
	world.mine(left);
	let letters = world.host().outbox().dead_letters(10).unwrap();
	let claimable = letters.iter().find(|letter| letter.callback.kind() == "claimable");
	assert_eq!(claimable.map(|letter| letter.taken), Some(leyden_outbox::Taken::Maybe));
	assert_eq!(world.net.told(world.payer, "PaymentFailed"), 0, "it may be paid yet");
	world.front.clear();
	assert_eq!(world.finish(&hash), State::InboundClaimed);
	paid_once(&world, before);
}
