// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Anything may happen to a splice, in any order, and the process may die at any write. In the end
//! every splice is over, nothing was paid twice, nothing ran that was refused, and the user was
//! told once of what failed.
//!
//! `PROPTEST_CASES=20000 cargo test -p leyden-splice --test model` runs it for long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "model/fake.rs"]
mod fake;
#[path = "model/run.rs"]
mod run;

use leyden_splice::{FailureReason, Splice, SpliceState, What};
use proptest::prelude::*;
use run::{op, Op, Run};

proptest! {
	#![proptest_config(ProptestConfig {
		cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400),
		max_shrink_iters: 20_000,
		failure_persistence: None,
		..ProptestConfig::default()
	})]

	#[test]
	fn every_splice_ends_well(
		ops in proptest::collection::vec(op(), 1..60), names_no_spender in any::<bool>(),
		refusal_sends_event in any::<bool>(),
	) {
		let mut run = Run::new();
		run.fake.world().wallet_names_no_spender = names_no_spender;
		run.fake.world().refusal_sends_event = refusal_sends_event;
		for op in &ops {
			run.run(op);
		}
		run.finish();
		run.check();
	}
}

/// Runs this, and answers the splices that are over, the newest first.
fn script(ops: &[Op]) -> Vec<Splice> {
	let mut run = Run::new();
	for op in ops {
		run.run(op);
	}
	run.finish();
	run.check();
	run.past()
}

/// The process dies at any write of a cancel. What LDK has taken back, and the peer was told of, is
/// not begun again.
#[test]
fn what_was_taken_back_is_not_begun_again() {
	let mut taken_back = 0;
	for write in 0..4 {
		for before in [true, false] {
			let mut run = Run::new();
			for op in [Op::AskOut, Op::DieAt(write, before), Op::Cancel(0)] {
				run.run(&op);
			}
			let canceled = run.fake.world().canceled;
			run.finish();
			run.check();
			if canceled {
				taken_back += 1;
				let over = run.past()[0].state().clone();
				assert_eq!(over, SpliceState::Failed(FailureReason::LocallyCanceled));
			}
		}
	}
	assert!(taken_back > 2, "{taken_back}");
}

/// Two splices have locked since anybody looked, the first ours: it is found from the second.
#[test]
fn the_first_of_two_fundings_is_found() {
	let past =
		script(&[Op::AskOut, Op::Steps(5), Op::Lock(0), Op::PeerSplices, Op::Lock(0), Op::Look]);
	assert_eq!(*past[0].state(), SpliceState::Settled);
}

/// It has locked, another was negotiated on top of it, the channel was closed, and the other one was
/// confirmed: nobody had looked.
#[test]
fn what_locked_under_another_splice_is_found_after_the_close() {
	let before = [Op::AskOut, Op::Steps(5), Op::Lock(0), Op::PeerSplices, Op::Close];
	for bury in [0, 1] {
		let past = script(&[&before[..], &[Op::Bury(bury)]].concat());
		assert_eq!(*past[0].state(), SpliceState::Settled);
	}
}

/// It was signed, nobody has looked since, and the channel is closed: its transaction is known, and
/// the chain decides. Also if it was not listed yet when it was to be signed.
#[test]
fn what_was_signed_before_the_channel_closed_is_waited_for() {
	for lags in [false, true] {
		let ends = |bury| {
			let mut run = Run::new();
			run.fake.world().lags = lags;
			for op in [Op::AskOut, Op::Steps(5), Op::Close, Op::Restart, Op::Bury(bury)] {
				run.run(&op);
			}
			run.finish();
			run.check();
			run.past()[0].state().clone()
		};
		assert_eq!(ends(0), SpliceState::Settled);
		assert_eq!(ends(1), SpliceState::Failed(FailureReason::ChannelClosed));
	}
}

/// The coins of a splice-in are spent by its own negotiated transaction: a higher fee is negotiated
/// over the same coins, also after a restart, also if the wallet cannot name the spender.
#[test]
fn the_fee_of_a_splice_in_can_be_raised() {
	for names_no_spender in [false, true] {
		for between in [Op::Look, Op::Restart, Op::Disconnect] {
			let mut run = Run::new();
			run.fake.world().wallet_names_no_spender = names_no_spender;
			for op in [Op::AskIn, Op::Steps(5), Op::Hear, between.clone(), Op::Bump] {
				run.run(&op);
			}
			let (splice, coins) = run.only();
			assert_eq!(splice.bump_sat_per_kw(), Some(553), "{between:?}: {splice:?}");
			assert_eq!(splice.inputs(), coins, "the same coins: {splice:?}");
			for op in [Op::Connect, Op::Steps(5), Op::Hear, Op::Bump, Op::Steps(5), Op::Hear] {
				run.run(&op);
			}
			let (splice, coins) = run.only();
			assert_eq!((splice.txids().len(), splice.inputs()), (3, &coins[..]), "{splice:?}");
			run.run(&Op::Lock(2));
			run.finish();
			run.check();
			assert_eq!(*run.past()[0].state(), SpliceState::Settled);
		}
	}
}

/// The change of one candidate does not exist once another is confirmed, so it pays for none.
#[test]
fn the_change_of_a_candidate_pays_for_no_other() {
	let mut run = Run::new();
	for op in [Op::AskIn, Op::Steps(5), Op::Hear] {
		run.run(&op);
	}
	run.fake.world().selects_own_change = true;
	run.run(&Op::Bump);
	let (splice, coins) = run.only();
	assert_eq!((splice.bump_sat_per_kw(), splice.inputs()), (None, &coins[..]), "{splice:?}");
	run.fake.world().selects_own_change = false;
	run.run(&Op::Bump);
	assert_eq!(run.only().0.bump_sat_per_kw(), Some(553));
}

/// A coin that another transaction has spent is replaced, whether or not the wallet can tell by
/// what: only a candidate that LDK has negotiated is the splice's own spender.
#[test]
fn a_coin_that_somebody_else_has_spent_is_replaced() {
	let mut run = Run::new();
	for op in [Op::Disconnect, Op::AskIn] {
		run.run(&op);
	}
	let (_, before) = run.only();
	for op in [Op::Spend(0), Op::Restart] {
		run.run(&op);
	}
	let (splice, after) = run.only();
	assert!(!after.is_empty() && after.iter().all(|coin| !before.contains(coin)), "{splice:?}");
	assert_eq!(splice.inputs(), after);
	run.finish();
	run.check();
	assert_eq!(*run.past()[0].state(), SpliceState::Settled);
}

fn refusals_and_failures(splice: &Splice) -> usize {
	let counted = |what: &What| matches!(what, What::Refused(_) | What::RoundFailed(_));
	splice.steps().iter().filter(|step| counted(&step.what)).count()
}

/// LDK refuses what is handed in again. Whether an event says the same later, as in LDK's `main`,
/// and whether the process dies before that event is handled: the refusal is one failure.
#[test]
fn a_refusal_is_counted_once() {
	for sends_event in [false, true] {
		for is_busy in [false, true] {
			for dies in [false, true] {
				let mut run = Run::new();
				run.fake.world().refusal_sends_event = sends_event;
				// A life with an even number hears the old news first.
				for op in [Op::Disconnect, Op::AskOut, Op::Restart] {
					run.run(&op);
				}
				run.fake.world().is_busy_once = is_busy;
				for op in [Op::Refuse(0), Op::Restart, Op::Persist] {
					run.run(&op);
				}
				run.run(if dies { &Op::Restart } else { &Op::Hear });
				let splice = run.only().0;
				let at = format!("event: {sends_event}, busy: {is_busy}, dies: {dies}: {splice:?}");
				assert_eq!((splice.failures(), refusals_and_failures(&splice)), (1, 1), "{at}");
				// A round that fails afterwards is another failure.
				for op in [Op::Look, Op::Connect, Op::Steps(1), Op::Disconnect, Op::Hear] {
					run.run(&op);
				}
				assert_eq!(run.only().0.failures(), 2, "{at}");
				run.finish();
				run.check();
				assert_eq!(*run.past()[0].state(), SpliceState::Settled);
			}
		}
	}
}

/// LDK has refused a contribution once, and then taken it: if the peer will not have it, the splice
/// is over, though the process has died since, and does not know what it has handed over.
#[test]
fn a_failure_after_a_refusal_is_heard_after_a_restart() {
	let mut run = Run::new();
	for op in [Op::Disconnect, Op::AskOut, Op::Restart, Op::Refuse(0), Op::Restart] {
		run.run(&op);
	}
	assert_eq!(run.only().0.failures(), 1);
	for op in [Op::Connect, Op::Steps(1), Op::PeerAborts, Op::Persist, Op::Restart] {
		run.run(&op);
	}
	let over = run.past()[0].state().clone();
	let message = String::new();
	assert_eq!(over, SpliceState::Failed(FailureReason::CounterpartyAborted { message }));
}

/// The refusal of a higher fee is one failure, too.
#[test]
fn a_refusal_of_a_higher_fee_is_counted_once() {
	for sends_event in [false, true] {
		for is_busy in [false, true] {
			let mut run = Run::new();
			run.fake.world().refusal_sends_event = sends_event;
			for op in [Op::AskOut, Op::Steps(5), Op::Hear, Op::Persist, Op::Disconnect, Op::Bump] {
				run.run(&op);
			}
			run.fake.world().is_busy_once = is_busy;
			for op in [Op::Refuse(0), Op::Restart, Op::Hear] {
				run.run(&op);
			}
			let splice = run.only().0;
			let at = format!("event: {sends_event}, busy: {is_busy}: {splice:?}");
			assert_eq!(refusals_and_failures(&splice), 1, "{at}");
			// A round that fails afterwards is another failure.
			for op in [Op::Look, Op::Connect, Op::Steps(1), Op::Disconnect, Op::Hear] {
				run.run(&op);
			}
			assert_eq!(refusals_and_failures(&run.only().0), 2, "{at}");
			run.finish();
			run.check();
			let past = run.past();
			assert_eq!(
				(past[0].state(), past[0].txids().len()),
				(&SpliceState::Settled, 2),
				"{at}"
			);
		}
	}
}

/// A contribution that is refused for a reason that may pass is not handed in again at once: the
/// same would be refused again, and use up what may fail.
#[test]
fn what_is_refused_is_built_anew() {
	let mut run = Run::new();
	for op in [Op::Disconnect, Op::AskOut, Op::Refuse(3), Op::Restart] {
		run.run(&op);
	}
	let splice = run.only().0;
	let rebuilt = splice.steps().iter().filter(|step| step.what == What::Rebuilt).count();
	assert_eq!((splice.failures(), rebuilt), (1, 1), "{splice:?}");
}

/// Another candidate than ours has locked while our higher fee was queued: what we had negotiated
/// is void, and the withdrawal was not made. It is made on the new funding, once, whatever becomes
/// of the round that was queued.
#[test]
fn what_was_negotiated_is_void_when_another_candidate_locks() {
	for lost in [false, true] {
		let mut run = Run::new();
		for op in [Op::PeerSplices, Op::AskOut, Op::Steps(5), Op::Hear, Op::Disconnect, Op::Bump] {
			run.run(&op);
		}
		assert_eq!(
			(run.only().0.state(), run.only().0.txids().len()),
			(&SpliceState::Negotiated, 1)
		);
		for op in [Op::Lock(0), Op::Hear, Op::Connect, Op::Steps(1)] {
			run.run(&op);
		}
		assert_eq!(*run.only().0.state(), SpliceState::Accepted);
		if lost {
			run.run(&Op::Disconnect);
		}
		run.run(&Op::Hear);
		run.finish();
		run.check();
		assert_eq!(*run.past()[0].state(), SpliceState::Settled, "lost: {lost}");
	}
}

/// The wallet leaves out what is reserved when it selects coins, also what is reserved for the very
/// splice that is built anew. If there is nothing else, the splice has its own.
#[test]
fn what_is_built_anew_has_its_own_coins() {
	for spent in [false, true] {
		let mut run = Run::new();
		run.fake.world().keep_coins(1);
		run.run(&Op::Disconnect);
		run.run(&Op::AskIn);
		let (_, coins) = run.only();
		assert_eq!(coins.len(), 1);
		if spent {
			run.run(&Op::Spend(0));
		}
		run.run(&Op::Refuse(0));
		run.run(&Op::Restart);
		if spent {
			let over = run.past()[0].state().clone();
			let no = matches!(&over, SpliceState::Failed(FailureReason::NotEnoughFunds { .. }));
			assert!(no, "{over:?}");
			continue;
		}
		let (splice, again) = run.only();
		assert_eq!((splice.inputs(), &again), (&coins[..], &coins), "{splice:?}");
		assert_eq!(splice.failures(), 1);
		run.finish();
		run.check();
		assert_eq!(*run.past()[0].state(), SpliceState::Settled);
	}
}
