//! The age of splices under random clock histories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
// The model's parts, of which this file needs some.
#![allow(dead_code)]

#[path = "model/fake.rs"]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, ScriptBuf, TxOut};
use fake::Fake;
use leyden_id::ChannelId;
use leyden_splice::{
	ChannelRef, FailureReason, FeeBand, SpliceId, SpliceOptions, SpliceState, Splices,
	DEFAULT_MAX_AGE,
};
use leyden_store::{Batch, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, Timestamp};
use leyden_testkit::{ClockHistory, ClockTurn};

const HOUR: Duration = Duration::from_secs(3_600);

fn open(fake: &Fake, medium: &MemoryMedium, clock: Arc<ManualClock>) -> Splices {
	let store = Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap());
	let tell = Box::new(|_: &_| Plan::of(Batch::new()));
	let driver = Box::new(fake.clone());
	Splices::open(store, clock, driver, tell, SpliceOptions::default()).unwrap()
}

fn splice_out(keeper: &Splices) -> SpliceId {
	let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
	let channel = ChannelRef {
		channel_id: ChannelId([7; 32]),
		user_channel_id: 1,
		counterparty: key.parse().unwrap(),
	};
	let output =
		TxOut { value: Amount::from_sat(50_000), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
	let band = FeeBand { min_sat_per_kw: 253, max_sat_per_kw: 9_000 };
	keeper.splice_out(channel, vec![output], band).unwrap()
}

/// One history. A splice whose peer is away waits until it is too old, whatever a clock shows when it
/// is asked for and later, and then it is given up.
fn history(seed: u64) {
	let mut clock = ClockHistory::new(seed);
	let (fake, medium) = (Fake::new(), MemoryMedium::new());
	for _ in 0..clock.draw(40) {
		clock.turn();
	}
	let mut keeper = Some(open(&fake, &medium, clock.clock()));
	fake.world().disconnect();
	let id = splice_out(keeper.as_ref().unwrap());
	let (asked, before) = (clock.truth(), clock.set_ahead());
	let mut may_be_old = false;
	for turn in 0..300 {
		if clock.turn() == ClockTurn::Restart {
			drop(keeper.take());
			fake.world().crash();
			fake.world().disconnect();
		}
		let keeper = keeper.get_or_insert_with(|| open(&fake, &medium, clock.clock()));
		keeper.look_at_all().unwrap();
		// What was set ahead after it was asked for may count, and so may what was lost of it before.
		let at_most = clock.truth().since(asked) + (clock.set_ahead() - before);
		may_be_old = at_most >= DEFAULT_MAX_AGE;
		if may_be_old {
			break;
		}
		assert!(keeper.splice(&id).is_some(), "seed {seed}, turn {turn}: it was given up");
	}
	let keeper = keeper.unwrap_or_else(|| open(&fake, &medium, clock.clock()));
	for _ in 0..24 * 16 {
		clock.pass_rightly(HOUR);
		keeper.look_at_all().unwrap();
	}
	let past = keeper.past(1).unwrap();
	let is_too_old = matches!(past[0].state(), SpliceState::Failed(FailureReason::TooOld));
	assert!(is_too_old, "seed {seed}, {may_be_old}: {:?}", past[0].state());
}

/// A splice that is asked for soon after an outage is no older than it is when steady time has caught
/// up with the outage.
#[test]
fn an_outage_makes_no_splice_old_that_is_asked_for_after_it() {
	let (fake, medium) = (Fake::new(), MemoryMedium::new());
	let start = Timestamp(1_800_000_000_000);
	let clock = Arc::new(ManualClock::new(start));
	drop(open(&fake, &medium, Arc::clone(&clock)));
	clock.set(start.after(DEFAULT_MAX_AGE * 2));
	let keeper = open(&fake, &medium, Arc::clone(&clock));
	fake.world().disconnect();
	let id = splice_out(&keeper);
	for _ in 0..3 {
		clock.advance(HOUR);
		keeper.look_at_all().unwrap();
	}
	assert!(keeper.splice(&id).is_some());
	clock.advance(DEFAULT_MAX_AGE);
	keeper.look_at_all().unwrap();
	assert!(keeper.splice(&id).is_none());
}

/// A splice that is asked for while the clock shows 2036 is given up when it is too old all the same.
#[test]
fn a_clock_that_was_wrong_keeps_no_splice_waiting() {
	let (fake, medium) = (Fake::new(), MemoryMedium::new());
	let start = Timestamp(1_800_000_000_000);
	let clock = Arc::new(ManualClock::new(start));
	let keeper = open(&fake, &medium, Arc::clone(&clock));
	fake.world().disconnect();
	clock.set(start.after(HOUR * 24 * 3_650));
	let id = splice_out(&keeper);
	clock.set(start);
	clock.advance(DEFAULT_MAX_AGE - HOUR);
	keeper.look_at_all().unwrap();
	assert!(keeper.splice(&id).is_some());
	clock.advance(HOUR);
	keeper.look_at_all().unwrap();
	assert!(keeper.splice(&id).is_none());
}

/// Fifty histories; `LEYDEN_CLOCK_HISTORIES` says how many else.
#[test]
fn clocks_that_jump_give_no_splice_up_and_keep_none_waiting() {
	let histories = std::env::var("LEYDEN_CLOCK_HISTORIES").map_or(50, |n| n.parse().unwrap());
	(0..histories).for_each(history);
}
