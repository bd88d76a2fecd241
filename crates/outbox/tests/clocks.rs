//! Retries, deadlines and retention of callbacks under random clock histories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::time::Duration;

use leyden_outbox::{Deadline, Enqueued, OutboxOptions, Reply, Settled};
use leyden_store::{Clock, MemoryMedium, Timestamp};
use leyden_testkit::{ClockHistory, ClockTurn};
use rig::*;

/// The longest pause of the schedule.
const PAUSE: Duration = Duration::from_secs(300);
const RETAIN: Duration = Duration::from_secs(24 * 3600);
const REMEMBER: Duration = Duration::from_secs(40 * 24 * 3600);
const TIME_LEFT: Duration = Duration::from_secs(2 * 24 * 3600);

/// One history. A callback that fails, with a deadline in blocks, is sent again after its pause, in
/// time in which a process runs; one with a deadline in time does not expire before that; the id of
/// one that arrived is known for as long as it is to be; and all of that ends.
fn history(seed: u64) {
	let mut clock = ClockHistory::new(seed);
	let options =
		OutboxOptions { retention: RETAIN, dedup_ttl: REMEMBER, ..OutboxOptions::default() };
	let mut node = Node::on(MemoryMedium::new(), clock.clock(), options);
	let mut known: Vec<(String, Timestamp)> = Vec::new();
	let mut deadlines: Vec<(String, Timestamp)> = Vec::new();
	let (mut due, mut restarts, mut failed) = (Duration::ZERO, 0, 0);
	node.enqueue_new(until("fails 0", HEIGHT + 1_000));
	for turn in 0..300 {
		if clock.turn() == ClockTurn::Restart {
			node.restart();
			restarts += 1;
		}
		let at = format!("seed {seed}, turn {turn}");
		let name = format!("arrives {turn}");
		node.enqueue(&name);
		known.push((name, clock.truth()));
		if turn % 10 == 0 {
			let name = format!("expires {turn}");
			let deadline = clock.truth().after(TIME_LEFT);
			node.enqueue_new(callback("claimable", &name).with_deadline(Deadline::at(deadline)));
			deadlines.push((name, deadline));
		}
		let mut sent = Vec::new();
		while let Some((text, claim)) = node.next() {
			let is_last = text.contains("fails") && failed % 10 == 9;
			let code = if text.contains("arrives") || is_last { 200 } else { 409 };
			claim.reply(Reply::status(code), HEIGHT, "").unwrap();
			assert!(!sent.contains(&text), "{at}: {text} is sent again without a pause");
			sent.push(text);
		}
		if sent.iter().any(|text| text.contains("fails")) {
			(due, restarts, failed) = (clock.awake() + PAUSE, 0, failed + 1);
			if failed % 10 == 0 {
				node.enqueue_new(until(&format!("fails {failed}"), HEIGHT + 1_000));
			}
		} else {
			// A restart may lose a minute of what was seen to pass.
			assert!(clock.awake() < due + MINUTE * restarts, "{at}: a callback is not sent again");
		}
		for expired in node.outbox.expire(HEIGHT, 1_000).unwrap() {
			let text = String::from_utf8(expired.payload().to_vec()).unwrap();
			let place = deadlines.iter().position(|(name, _)| text.ends_with(name.as_str()));
			let (name, deadline) = deadlines.swap_remove(place.unwrap());
			let latest = clock.truth().after(clock.set_ahead());
			assert!(latest >= deadline, "{at}: {name} expired too early");
			// A dead letter would hold up the trimming of what comes after it.
			node.outbox.discard(expired.sequence()).unwrap();
		}
		node.outbox.compact(1_000).unwrap();
		let (name, enqueued) = &known[usize::try_from(clock.draw(turn + 1)).unwrap()];
		let (age, known_for) = (clock.truth().since(*enqueued), RETAIN + REMEMBER);
		if age < known_for {
			let again = node.enqueue(name);
			assert!(matches!(again, Enqueued::Known(_)), "{at}: {name} was forgotten");
			let kept = node.outbox.callback(again.sequence()).unwrap();
			assert!(kept.is_some() || age >= RETAIN, "{at}: {name} was trimmed");
		}
	}
	assert!(failed > 20, "seed {seed}: it was sent {failed} times only");
	for _ in 0..96 {
		clock.pass_rightly(Duration::from_secs(3600));
		node.outbox.expire(HEIGHT, 1_000).unwrap();
	}
	assert_eq!(node.count("out_urgent"), 1, "seed {seed}: a deadline in time never comes");
	node.outbox.expire(HEIGHT + 1_000, 1_000).unwrap();
	for letter in node.outbox.dead_letters(1_000).unwrap() {
		node.outbox.discard(letter.callback.sequence()).unwrap();
	}
	for _ in 0..50 {
		clock.pass_rightly(DAY);
		node.outbox.compact(1_000).unwrap();
	}
	assert_eq!(node.count("out_ids"), 0, "seed {seed}: an id is kept for ever");
}

/// A lease and a breaker end when they should, although the clock was set back by a day.
#[test]
fn a_clock_that_is_set_back_holds_no_callback_up() {
	let node = Node::new();
	node.enqueue("h1");
	let claim = node.claim().unwrap();
	let yesterday = Timestamp(node.clock.now().0 - 24 * 3_600_000);
	node.clock.set(yesterday);
	node.clock.advance(node.options.lease);
	let claim_again = node.claim().expect("the lease is over");
	assert!(claim.reply(Reply::status(503), HEIGHT, "").is_err());
	// It fails until the breaker opens, which rests for a while then.
	let mut claim = Some(claim_again);
	loop {
		let failing = claim.take().or_else(|| node.claim()).expect("the pause is over");
		failing.reply(Reply::status(503), HEIGHT, "").unwrap();
		if node.outbox.endpoints()[0].resting_until.is_some() {
			break;
		}
		node.clock.advance(PAUSE);
	}
	node.enqueue("h2");
	assert!(node.claim().is_none(), "the breaker does not rest");
	node.clock.advance(Duration::from_secs(3600));
	assert!(node.claim().is_some(), "the breaker still rests");
}

/// A clock that shows tomorrow gives no callback up that is answered with 404, and one that shows
/// yesterday makes no deadline look far away.
#[test]
fn a_callback_is_as_old_as_it_is_and_its_deadline_as_near() {
	let node = Node::new();
	node.enqueue("h1");
	let right = node.clock.now();
	node.clock.set(right.after(DAY));
	let settled = node.claim().unwrap().reply(Reply::status(404), HEIGHT, "").unwrap();
	assert!(matches!(settled, Settled::RetryAt(_)), "{settled:?}");
	node.clock.set(right);
	node.clock.advance(node.options.not_found_ttl);
	let settled = node.claim().unwrap().reply(Reply::status(404), HEIGHT, "").unwrap();
	assert_eq!(settled, Settled::Dead);
	let deadline = Deadline::at(node.clock.now().after(Duration::from_secs(100)));
	node.enqueue_new(callback("claimable", "h2").with_deadline(deadline));
	node.clock.set(Timestamp(right.0 - 24 * 3_600_000));
	let retry_after = Some(Duration::from_secs(3600));
	let busy = Reply::Status { code: 429, retry_after, too_late: false, clock_skew: false };
	match node.claim().unwrap().reply(busy, HEIGHT, "").unwrap() {
		// Half of what is left.
		Settled::RetryAt(at) => assert!(at.since(node.running()) <= Duration::from_secs(50)),
		settled => panic!("{settled:?}"),
	}
	assert!(node.claim().is_none());
}

/// A date of others is over when the clock says so, too: steady time may have believed a
/// clock that was wrong for an hour.
#[test]
fn a_deadline_needs_both_times() {
	let node = Node::new();
	let right = node.clock.now();
	let deadline = Deadline::at(right.after(12 * 60 * MINUTE));
	node.enqueue_new(callback("claimable", "h1").with_deadline(deadline));
	// It is tomorrow for an hour, which is believed then.
	node.clock.set(right.after(DAY));
	assert_eq!(node.outbox.expire(HEIGHT, 10).unwrap().len(), 0, "not on one look");
	node.clock.advance(60 * MINUTE);
	assert!(node.claim().is_none(), "too late, as far as is known");
	node.clock.set(right.after(2 * 60 * MINUTE));
	assert_eq!(node.outbox.expire(HEIGHT, 10).unwrap().len(), 0, "the clock says that it is early");
	node.clock.set(right.after(13 * 60 * MINUTE));
	assert_eq!(node.outbox.expire(HEIGHT, 10).unwrap().len(), 1);
}

/// Fifty histories; `LEYDEN_CLOCK_HISTORIES` says how many else.
#[test]
fn clocks_that_jump_expire_nothing_and_keep_nothing_waiting() {
	let histories = std::env::var("LEYDEN_CLOCK_HISTORIES").map_or(50, |n| n.parse().unwrap());
	(0..histories).for_each(history);
}
