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

use leyden_splice::{FailureReason, Splice, SpliceState};
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
	fn every_splice_ends_well(ops in proptest::collection::vec(op(), 1..60)) {
		let mut run = Run::new();
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
