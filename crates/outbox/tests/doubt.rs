//! Callbacks that may have been taken, and what each of damage, refused hooks, refusals of the endpoint and
//! unread dead letters holds up: one callback, and no other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_outbox::{
	CallbackId, DeadLetterReason, EndpointOptions, Enqueued, NewCallback, OutboxError, OutboxEvent,
	OutboxOptions, Reply, Settled, Taken,
};
use leyden_store::{Batch, Expectation, Key, KeyRange, Namespace, Plan, Store, Table};
use rig::*;

/// What hooks and the observer were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
	fn add(&self, what: String) {
		self.0.lock().unwrap().push(what);
	}

	fn take(&self) -> Vec<String> {
		std::mem::take(&mut self.0.lock().unwrap())
	}

	fn options(&self) -> OutboxOptions {
		let (expired, dead, done, observed) =
			(self.clone(), self.clone(), self.clone(), self.clone());
		OutboxOptions {
			on_expired: Some(Arc::new(move |callback, taken| {
				expired.add(format!("expired {:?}: {taken:?}", callback.kind()));
				ledger("expired")
			})),
			on_dead: Some(Arc::new(move |_, taken| {
				dead.add(format!("dead: {taken:?}"));
				ledger("dead")
			})),
			on_done: Some(Arc::new(move |_| {
				done.add("done".to_owned());
				ledger("done")
			})),
			observer: Some(Arc::new(move |event| observed.add(event.to_string()))),
			..OutboxOptions::default()
		}
	}
}

fn late(node: &Node) -> Vec<String> {
	let expired = node.outbox.expire(HEIGHT + 10, 10).unwrap();
	expired.iter().map(|callback| callback.kind().to_owned()).collect()
}

/// A4: once a try has ended without a definite answer, no later answer and no deadline says that the
/// callback was not taken. Definite refusals leave no doubt.
#[test]
fn a_doubt_outlives_every_later_answer() {
	let too_late =
		Reply::Status { code: 400, retry_after: None, too_late: true, clock_skew: false };
	let (timeout, broken, away) = (Reply::Timeout, Reply::Broken, Reply::NoConnection);
	let is = Reply::status;
	let rows: [(&str, &[Reply], Taken); 11] = [
		("never sent", &[], Taken::No),
		("no connection", &[away, away], Taken::No),
		("busy", &[is(429), is(429)], Taken::No),
		("not found", &[is(404)], Taken::No),
		("not let in", &[is(401)], Taken::No),
		("lost, and then down", &[timeout, is(503), is(503)], Taken::Maybe),
		("lost, and then not let in", &[timeout, is(401)], Taken::Maybe),
		("lost, and then busy", &[broken, is(429), away], Taken::Maybe),
		("failed in the middle", &[is(500)], Taken::Maybe),
		("a gateway gave up", &[is(504), is(404)], Taken::Maybe),
		("somebody is at it", &[is(409)], Taken::Maybe),
	];
	for (what, replies, expected) in rows {
		for restarts in [false, true] {
			let told = Told::default();
			let mut node = Node::with(told.options());
			node.enqueue_new(until("h1", HEIGHT + 10));
			for reply in replies {
				node.clock.advance(Duration::from_secs(3600));
				let claim = node.claim().unwrap_or_else(|| panic!("{what}"));
				claim.reply(*reply, HEIGHT, "").unwrap();
				if restarts {
					node.restart();
				}
			}
			told.take();
			assert_eq!(late(&node), ["claimable"], "{what}");
			let events = told.take();
			assert_eq!(events[0], format!("expired \"claimable\": {expected:?}"), "{what}");
			let is_doubtful = events[1].contains("may have been taken");
			assert_eq!((events.len(), is_doubtful), (2, expected == Taken::Maybe), "{what}");
			let letter = node.outbox.dead_letters(1).unwrap().remove(0);
			assert_eq!((letter.taken, letter.why), (expected, DeadLetterReason::Expired), "{what}");
			assert_eq!(node.count("ledger"), 1, "one commit with it");
		}
	}
	// Refused as too late, after a timeout and without one.
	for (before, expected) in [(vec![], Taken::No), (vec![timeout], Taken::Maybe)] {
		let told = Told::default();
		let node = Node::with(told.options());
		node.enqueue_new(until("h1", HEIGHT + 10));
		for reply in before {
			node.claim().unwrap().reply(reply, HEIGHT, "").unwrap();
			node.clock.advance(Duration::from_secs(3600));
		}
		told.take();
		let claim = node.claim().unwrap();
		assert_eq!(claim.taken_before(), expected);
		assert_eq!(claim.reply(too_late, HEIGHT, "late").unwrap(), Settled::Expired);
		assert_eq!(told.take()[0], format!("expired \"claimable\": {expected:?}"));
	}
}

/// A process that ends between the claim and the answer, or a lease that is over, leaves a doubt: it was
/// written down before the callback was handed out.
#[test]
fn a_try_whose_process_has_ended_leaves_a_doubt() {
	for how in ["crash", "lease", "dropped"] {
		let told = Told::default();
		let mut node = Node::with(told.options());
		node.enqueue_new(until("h1", HEIGHT + 10));
		let claim = node.claim().unwrap();
		assert_eq!(claim.taken_before(), Taken::No);
		match how {
			"crash" => {
				std::mem::forget(claim);
				node.restart();
			},
			"lease" => {
				node.clock.advance(2 * MINUTE);
				std::mem::forget(claim);
			},
			_ => drop(claim),
		}
		let claim = node.claim().unwrap();
		assert_eq!(claim.taken_before(), Taken::Maybe, "{how}");
		// A definite refusal of this try says nothing about the first.
		claim.reply(Reply::status(429), HEIGHT, "").unwrap();
		assert_eq!(late(&node), ["claimable"]);
		assert_eq!(told.take()[0], "expired \"claimable\": Maybe", "{how}");
	}
}

/// A23: a handle that was fenced finds out before anything is sent, also of a callback that is in doubt.
#[test]
fn a_fenced_outbox_hands_nothing_out() {
	for replies in [vec![], vec![Reply::status(503)]] {
		a_fenced_outbox_hands_out_nothing_after(&replies);
	}
}

fn a_fenced_outbox_hands_out_nothing_after(replies: &[Reply]) {
	let node = Node::new();
	node.enqueue("h1");
	for reply in replies {
		node.claim().unwrap().reply(*reply, HEIGHT, "").unwrap();
		node.clock.advance(MINUTE);
	}
	let other = open(&node.medium);
	let error = node.outbox.claim(HEIGHT).unwrap_err();
	let is_fenced = matches!(error, OutboxError::Store(leyden_store::StoreError::Fenced { .. }));
	assert!(is_fenced, "{error}");
	drop(other);
}

/// A14: the endpoint is part of the id, so one fact goes to several endpoints; the same id with other
/// words is a conflict, also when the payload was erased and the callback is gone.
#[test]
fn an_id_says_one_thing_to_one_endpoint() {
	let options = OutboxOptions { erase_payload: |_| true, ..OutboxOptions::default() };
	let node = Node::with(options);
	node.outbox.add_endpoint("other", EndpointOptions::default()).unwrap();
	let id = CallbackId::new("k", b"fact", 0);
	let new = |endpoint: &str, key: &str, body: &str| {
		NewCallback::new(id, "k", endpoint, key, body).unwrap()
	};
	assert!(matches!(node.enqueue_new(new(LSP, "h1", "words")), Enqueued::New(_)));
	assert!(matches!(node.enqueue_new(new("other", "h1", "words")), Enqueued::New(_)));
	assert!(matches!(node.enqueue_new(new("other", "h1", "words")), Enqueued::Known(_)));
	let check = |when: &str| {
		assert!(matches!(node.enqueue_new(new(LSP, "h1", "words")), Enqueued::Known(_)), "{when}");
		for (key, body) in [("h1", "other words"), ("h2", "words")] {
			let refused = node.outbox.enqueue(new(LSP, key, body)).map(|_| ());
			let is_conflict = matches!(&refused, Err(OutboxError::IdConflict { endpoint, .. })
				if endpoint == LSP);
			assert!(is_conflict, "{when}: {refused:?}");
		}
	};
	check("open");
	assert_eq!(node.send_all().len(), 2);
	check("erased");
	node.clock.advance(7 * DAY);
	assert_eq!(node.outbox.compact(100).unwrap(), 2);
	check("gone");
}

/// A7: one 403 of a firewall, and three callbacks with deadlines: the endpoint is probed, and heals by
/// itself. Its owner is told of both.
#[test]
fn a_paused_endpoint_heals_by_itself() {
	for restarts in [false, true] {
		let told = Told::default();
		let mut node = Node::with(told.options());
		for about in ["h1", "h2", "h3"] {
			node.enqueue_new(until(about, HEIGHT + 10));
		}
		let refused = node.claim().unwrap().reply(Reply::status(403), HEIGHT, "HTTP 403").unwrap();
		assert_eq!(refused, Settled::Paused);
		assert!(told.take().pop().unwrap().contains("does not let this sender in (HTTP 403)"));
		assert!(node.claim().is_none(), "it is left alone");
		if restarts {
			node.restart();
			assert!(node.claim().is_none(), "over a restart");
		}
		node.clock.advance(MINUTE);
		let probe = node.claim().unwrap();
		assert!(node.claim().is_none(), "one probe at a time");
		assert_eq!(probe.reply(Reply::status(403), HEIGHT, "").unwrap(), Settled::Paused);
		assert!(told.take().is_empty(), "told once");
		assert!(node.claim().is_none());
		// A tenth of what is left before the deadline, at most: that is 50 minutes here.
		node.clock.advance(2 * MINUTE);
		let probe = node.claim().unwrap();
		assert_eq!(probe.reply(Reply::status(204), HEIGHT, "").unwrap(), Settled::Done);
		assert!(told.take().iter().any(|told| told.contains("lets this sender in again")));
		assert_eq!(node.send_all().len(), 2);
		node.restart();
		assert!(node.outbox.endpoints().iter().all(|info| info.paused.is_none()));
	}
}

/// A7: clocks that differ are told from a refusal: nothing is paused, and nothing is a dead letter.
#[test]
fn clocks_that_differ_pause_nothing() {
	let told = Told::default();
	let node = Node::with(told.options());
	node.enqueue("h1");
	let skewed = Reply::Status { code: 401, retry_after: None, too_late: false, clock_skew: true };
	for _ in 0..3 {
		let settled = node.claim().unwrap().reply(skewed, HEIGHT, "301 s behind").unwrap();
		assert!(matches!(settled, Settled::RetryAt(_)), "{settled:?}");
		node.clock.advance(10 * MINUTE);
	}
	let events = told.take();
	assert_eq!(events.len(), 1, "told once: {events:?}");
	assert!(events[0].contains("set the clocks right") && events[0].contains("301 s"));
	assert_eq!(node.send_all().len(), 1);
}

/// A8: two hours of 503, and then one 404: the time of "not found" counts from that one.
#[test]
fn not_found_counts_from_the_first_such_answer() {
	let node = Node::new();
	node.enqueue("h1");
	let answer = |code| {
		let claim = node.claim().unwrap();
		claim.reply(Reply::status(code), HEIGHT, "").unwrap()
	};
	for _ in 0..12 {
		assert!(matches!(answer(503), Settled::RetryAt(_)));
		node.clock.advance(10 * MINUTE);
	}
	for _ in 0..6 {
		assert!(matches!(answer(404), Settled::RetryAt(_)));
		node.clock.advance(10 * MINUTE);
	}
	assert_eq!(answer(404), Settled::Dead);
}

/// A9: a damaged record holds up its own callback and those with its order key, is told once, and nothing
/// else waits. All four kinds of records of a callback that is to be sent.
#[test]
fn a_damaged_callback_holds_up_no_other() {
	for table in ["out_items", "out_open", "out_due", "out_lanes", "out_urgent"] {
		let told = Told::default();
		let node = Node::with(told.options());
		node.enqueue_new(until("h1", HEIGHT + 10));
		node.enqueue_new(callback("payment_sent", "h1"));
		node.enqueue_new(until("h2", HEIGHT + 10));
		let found = node.store.scan(KeyRange::all(Table::new(table)), 9).wait().unwrap();
		let number = |key: &Key| u64::from_be_bytes(*key.bytes().last_chunk().unwrap());
		let key = &found.records.iter().find(|(key, _)| number(key) == 1).unwrap().0;
		node.medium.damage(&Namespace::default(), key, |frame| {
			let last = frame.len() - 1;
			frame[last] ^= 1;
		});
		let sent = node.send_all();
		assert!(sent.contains(&"claimable h2".to_owned()), "{table}: {sent:?}");
		// Nothing overtakes it.
		let is_sent = |text: &str| sent.iter().any(|sent| sent == text);
		assert!(is_sent("claimable h1") || !is_sent("payment_sent h1"), "{table}: {sent:?}");
		let damaged = |told: Vec<String>| {
			told.into_iter().filter(|told| told.contains("cannot be sent")).count()
		};
		// Where the key alone says all, there is nothing to tell.
		let is_told = matches!(table, "out_items" | "out_open" | "out_due" | "out_urgent");
		assert_eq!(damaged(told.take()), usize::from(is_told), "{table}");
		// It holds up no expiry, too.
		node.enqueue_new(until("h3", HEIGHT + 9));
		let expired = node.outbox.expire(HEIGHT + 10, 10).unwrap();
		let is_h3 = expired.iter().any(|callback| callback.order_key() == b"h3");
		assert!(is_h3, "{table}");
	}
}

/// A9: the plan of an expiry's hook that is refused keeps nothing else from expiring, and is told.
#[test]
fn a_hook_that_is_refused_holds_up_no_other() {
	let told = Told::default();
	let options = OutboxOptions {
		on_expired: Some(Arc::new(|callback, _| {
			let mut batch = Batch::new();
			if callback.order_key() == b"h1" {
				batch.expect(Key::new(LEDGER, *b"never"), Expectation::Present);
			}
			Plan::of(batch)
		})),
		..told.options()
	};
	let node = Node::with(options);
	for about in ["h1", "h2"] {
		node.enqueue_new(until(about, HEIGHT + 1));
	}
	for expected in [1, 0] {
		assert_eq!(node.outbox.expire(HEIGHT + 2, 10).unwrap().len(), expected);
	}
	let mut events = told.take();
	events.retain(|told| told.contains("hook"));
	assert_eq!(events.len(), 1, "told once: {events:?}");
	assert!(events[0].contains("hook for callback 1"), "{events:?}");
	// What it expects is so now.
	ledger("never").run(&*node.store).unwrap();
	assert_eq!(node.outbox.expire(HEIGHT + 2, 10).unwrap().len(), 1);
}

/// A dead letter and a callback that was taken are one commit with what their hooks want; and a callback
/// that is sent again keeps the doubt.
#[test]
fn hooks_are_one_commit_with_the_end() {
	let told = Told::default();
	let node = Node::with(told.options());
	node.enqueue("h1");
	node.claim().unwrap().reply(Reply::Timeout, HEIGHT, "").unwrap();
	node.clock.advance(MINUTE);
	node.claim().unwrap().reply(Reply::status(422), HEIGHT, "HTTP 422").unwrap();
	let events = told.take();
	assert_eq!(events[0], "dead: Maybe");
	assert!(events[1].contains("dead letter, and may have been taken: HTTP 422"), "{events:?}");
	let number = node.outbox.dead_letters(1).unwrap()[0].callback.sequence();
	node.outbox.requeue(number).unwrap();
	let claim = node.claim().unwrap();
	assert_eq!(claim.taken_before(), Taken::Maybe);
	claim.reply(Reply::status(200), HEIGHT, "").unwrap();
	assert_eq!(told.take(), ["done"]);
	assert_eq!(node.count("ledger"), 2);
}

/// A loop of one's own that forgets to let callbacks expire, or to compact, is told so.
#[test]
fn what_is_never_called_is_told() {
	let told = Told::default();
	let node = Node::with(told.options());
	assert!(node.claim().is_none());
	node.clock.advance(DAY);
	node.outbox.expire(HEIGHT, 1).unwrap();
	assert!(node.claim().is_none());
	let events = told.take();
	assert_eq!(events.len(), 1, "{events:?}");
	assert!(events[0].contains("Outbox::compact was not called for a day"));
	node.clock.advance(DAY);
	assert!(node.claim().is_none() && node.claim().is_none());
	assert_eq!(told.take().len(), 1, "expire, and once");
}

/// A database that was restored from yesterday's copy knows nothing of what became of its callbacks since:
/// none of them expires as if it had never been taken. Later ones do.
#[test]
fn a_restored_outbox_doubts_what_is_in_the_copy() {
	use leyden_store::witness::{accept, HistoryMark, Witness};
	#[derive(Default)]
	struct Forgetful;
	impl Witness for Forgetful {
		fn place(&self) -> String {
			"the test".to_owned()
		}
		fn newest(&self) -> Result<Option<HistoryMark>, std::io::Error> {
			Ok(None)
		}
		fn remember(&self, _: &HistoryMark) -> Result<(), std::io::Error> {
			Ok(())
		}
	}
	let told = Told::default();
	let mut node = Node::with(told.options());
	node.enqueue_new(until("h1", HEIGHT + 10));
	node.enqueue("h2");
	node.claim().unwrap().reply(Reply::Timeout, HEIGHT, "").unwrap();
	node.claim().unwrap().reply(Reply::status(422), HEIGHT, "").unwrap();
	assert_eq!(node.outbox.dead_letters(9).unwrap()[0].taken, Taken::No);
	let yesterday = node.medium.snapshot();
	node.medium = yesterday;
	accept(&*open(&node.medium), &Forgetful).unwrap();
	for restarts in 0..2 {
		node.restart();
		assert_eq!(node.outbox.dead_letters(9).unwrap()[0].taken, Taken::Maybe, "{restarts}");
	}
	node.enqueue_new(until("h3", HEIGHT + 9));
	told.take();
	assert_eq!(late(&node).len(), 2);
	let mut events = told.take();
	events.retain(|told| told.starts_with("expired"));
	events.sort();
	assert_eq!(events, ["expired \"claimable\": Maybe", "expired \"claimable\": No"]);
}

/// What is too late is not sent: it expires.
#[test]
fn a_callback_that_is_too_late_is_not_handed_out() {
	let node = Node::new();
	node.enqueue_new(until("h1", HEIGHT));
	node.enqueue_new(until("h2", HEIGHT + 1));
	assert_eq!(node.send_all(), ["claimable h2"]);
	assert_eq!(node.outbox.expire(HEIGHT, 9).unwrap().len(), 1);
}

/// The plans of all hooks, each refused once: the try is written down, the callback is sent again after a
/// pause, others go on, and an operator is told.
#[test]
fn a_refused_hook_costs_a_pause() {
	for (reply, taken) in [
		(Reply::status(200), Taken::Maybe),
		(Reply::status(422), Taken::No),
		(
			Reply::Status { code: 400, retry_after: None, too_late: true, clock_skew: false },
			Taken::No,
		),
	] {
		let told = Told::default();
		let wants = |about: &[u8]| {
			let mut batch = Batch::new();
			if about == b"h1" {
				batch.expect(Key::new(LEDGER, *b"never"), Expectation::Present);
			}
			Plan::of(batch)
		};
		let options = OutboxOptions {
			on_done: Some(Arc::new(move |callback| wants(callback.order_key()))),
			on_dead: Some(Arc::new(move |callback, _| wants(callback.order_key()))),
			on_expired: Some(Arc::new(move |callback, _| wants(callback.order_key()))),
			..told.options()
		};
		let node = Node::with(options);
		node.enqueue("h1");
		node.enqueue("h2");
		let settled = node.claim().unwrap().reply(reply, HEIGHT, "").unwrap();
		assert!(matches!(settled, Settled::RetryAt(_)), "{settled:?}");
		assert_eq!(told.take().iter().filter(|told| told.contains("hook")).count(), 1);
		assert_eq!(node.send_all(), ["claimable h2"], "{reply:?}");
		node.clock.advance(10 * MINUTE);
		ledger("never").run(&*node.store).unwrap();
		let claim = node.claim().unwrap();
		assert_eq!(claim.taken_before(), taken, "{reply:?}");
		claim.reply(reply, HEIGHT, "").unwrap();
		assert!(node.claim().is_none());
	}
}

/// Eight refusals of callbacks that were on their way together are one: the first probe comes after a
/// minute.
#[test]
fn refusals_that_come_together_are_one() {
	let node = Node::new();
	for n in 0..8 {
		node.enqueue(&format!("h{n}"));
	}
	let claims = node.outbox.claim_up_to(HEIGHT, 8).unwrap();
	assert_eq!(claims.len(), 8);
	for claim in claims {
		claim.reply(Reply::status(403), HEIGHT, "").unwrap();
	}
	assert!(node.claim().is_none());
	node.clock.advance(MINUTE);
	assert!(node.claim().is_some());
}

/// A long queue of one key, whose first callback is on its way, hides no other key.
#[test]
fn a_queue_behind_a_callback_on_its_way_hides_no_other() {
	let node = Node::new();
	for n in 0..300 {
		let id = CallbackId::new("k", b"queue", n);
		node.enqueue_new(NewCallback::new(id, "k", LSP, "queue", "x").unwrap());
	}
	node.enqueue("other");
	let head = node.claim().unwrap();
	assert_eq!(text(&node.claim().unwrap()), "claimable other");
	head.reply(Reply::status(200), HEIGHT, "").unwrap();
	assert_eq!(node.send_all().len(), 300);
}

/// An observer that panics, and one that calls the outbox, hold no lock.
#[test]
fn an_observer_may_call_the_outbox() {
	let slot = Arc::new(Mutex::new(None::<leyden_outbox::Outbox>));
	let calls = Arc::clone(&slot);
	let options = OutboxOptions {
		observer: Some(Arc::new(move |_: &OutboxEvent| {
			if let Some(outbox) = &*calls.lock().unwrap() {
				let _ = (outbox.stats(), outbox.claim(HEIGHT).map(|claim| claim.is_some()));
			}
		})),
		..OutboxOptions::default()
	};
	let node = Node::with(options);
	*slot.lock().unwrap() = Some(node.outbox.clone());
	node.enqueue("h1");
	node.claim().unwrap().reply(Reply::status(403), HEIGHT, "").unwrap();
	node.enqueue_new(until("h2", HEIGHT));
	assert_eq!(node.outbox.expire(HEIGHT, 9).unwrap().len(), 1);
	*slot.lock().unwrap() = None;
}
