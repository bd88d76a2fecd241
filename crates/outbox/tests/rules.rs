//! The promises, one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use leyden_outbox::{
	Applied, CallbackId, DeadLetterReason, Deadline, EndpointOptions, Enqueued, FeedCursor,
	NewCallback, OutboxError, OutboxOptions, Reconciler, Reply, Settled, TryOutcome, Verdict,
	MAX_PAYLOAD_BYTES,
};
use leyden_store::{Batch, Clock, KeyRange, Plan, Store, Table};
use leyden_testkit::{interrupt_everywhere, InterruptedStore};
use rig::*;

/// The ledger's record, the callback and the ack of the event are one commit.
#[test]
fn a_callback_is_enqueued_with_its_cause() {
	let node = Node::new();
	let plan = node.outbox.enqueue(callback("claimable", "h1")).unwrap().and(ledger("h1"));
	let (enqueued, ()) = plan.commit(&*node.store).wait().unwrap();
	assert_eq!(enqueued.sequence().get(), 1);
	let version = |table: &'static str| {
		let page = node.store.scan(KeyRange::all(Table::new(table)), 1).wait().unwrap();
		page.records[0].1.version
	};
	for table in ["out_items", "out_open", "out_due", "out_lanes"] {
		assert_eq!(version(table), version("ledger"), "{table}");
	}
	// A plan that is dropped owes nothing.
	drop(node.outbox.enqueue(callback("claimable", "h2")).unwrap());
	assert_eq!(node.send_all(), ["claimable h1"]);
}

/// However often its cause is handled, also when it has long arrived.
#[test]
fn the_same_callback_is_enqueued_once() {
	let mut node = Node::new();
	let first = node.enqueue("h1").sequence();
	assert_eq!(node.enqueue("h1"), Enqueued::Known(first));
	node.restart();
	assert_eq!(node.enqueue("h1"), Enqueued::Known(first));
	assert_eq!(node.send_all(), ["claimable h1"]);
	assert_eq!(node.enqueue("h1"), Enqueued::Known(first));
	assert!(node.claim().is_none());
	// Another kind or phase of the same is another.
	assert!(matches!(node.enqueue_new(callback("payment_sent", "h1")), Enqueued::New(_)));
	let id = CallbackId::new("claimable", b"h1", 1);
	let phase = NewCallback::new(id, "claimable", LSP, "h1", "x").unwrap();
	assert!(matches!(node.enqueue_new(phase), Enqueued::New(_)));
}

/// Until it is said that it was taken, and through restarts.
#[test]
fn a_callback_is_owed_until_it_was_taken() {
	let mut node = Node::new();
	node.enqueue("h1");
	let claim = node.claim().unwrap();
	assert!(node.claim().is_none());
	drop(claim);
	let claim = node.claim().unwrap();
	let id = claim.callback().id();
	// The process ends; nobody waits for a lease.
	std::mem::forget(claim);
	node.restart();
	let claim = node.claim().unwrap();
	assert_eq!(claim.callback().id(), id);
	assert_eq!(claim.settle(Verdict::Done, TryOutcome::Taken, "").unwrap(), Settled::Done);
	node.restart();
	assert!(node.claim().is_none());
	for table in ["out_open", "out_due", "out_lanes", "out_urgent", "out_dead"] {
		assert_eq!(node.count(table), 0, "{table}");
	}
}

/// One after the other for one payment; others do not wait.
#[test]
fn order_is_kept_per_key() {
	let node = Node::new();
	node.enqueue_new(callback("claimable", "h1"));
	node.enqueue_new(callback("payment_sent", "h1"));
	node.enqueue_new(callback("claimable", "h2"));
	let (first, claim) = node.next().unwrap();
	assert_eq!(first, "claimable h1");
	let (other, second) = node.next().unwrap();
	assert_eq!(other, "claimable h2");
	assert!(node.claim().is_none());
	// It failed: what comes after it still waits.
	claim.settle(Verdict::RetryAfter(MINUTE), TryOutcome::NotTaken, "503").unwrap();
	assert!(node.claim().is_none());
	second.settle(Verdict::Done, TryOutcome::Taken, "").unwrap();
	node.clock.advance(MINUTE);
	assert_eq!(node.send_all(), ["claimable h1", "payment_sent h1"]);
}

/// A long queue of one key that is stuck stands in nobody's way, and is complete in the end.
#[test]
fn a_stuck_key_with_a_long_queue_hides_nobody() {
	let mut node = Node::new();
	for n in 0..300 {
		let id = CallbackId::new("claimable", b"stuck", n);
		node.enqueue_new(NewCallback::new(id, "claimable", LSP, "stuck", n.to_string()).unwrap());
	}
	node.enqueue("free");
	let (first, claim) = node.next().unwrap();
	assert_eq!(first, "0");
	claim.settle(Verdict::RetryAfter(MINUTE), TryOutcome::NotTaken, "500").unwrap();
	// A few looks, in each of which some of the queue step back.
	let found = (0..10).find_map(|_| node.next()).unwrap();
	assert_eq!(found.0, "claimable free");
	found.1.settle(Verdict::Done, TryOutcome::Taken, "").unwrap();
	node.restart();
	node.clock.advance(MINUTE);
	let sent = node.send_all();
	let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
	assert_eq!(sent, expected);
}

/// Ten that fail all the time, and one whose claim deadline is near (H-C2); also from behind a
/// thousand others.
#[test]
fn what_is_urgent_goes_first() {
	let node = Node::new();
	for n in 0..10 {
		node.enqueue(&format!("poison{n}"));
	}
	for n in 0..1_000 {
		node.enqueue_new(until(&format!("later{n}"), HEIGHT + 100));
	}
	node.enqueue_new(until("urgent", HEIGHT + 3));
	let (text, _urgent) = node.next().unwrap();
	assert_eq!(text, "claimable urgent");
	// One that is urgent and failed waits for its own pause, and lets others go.
	node.enqueue_new(until("failed", HEIGHT + 1));
	let (text, claim) = node.next().unwrap();
	assert_eq!(text, "claimable failed");
	claim.settle(Verdict::RetryAfter(MINUTE), TryOutcome::NotTaken, "500").unwrap();
	assert!(node.next().unwrap().0.starts_with("claimable later"));
	// In time as well as in blocks.
	let soon = Deadline::at(node.clock.now().after(MINUTE));
	node.enqueue_new(callback("claimable", "soon").with_deadline(soon));
	assert_eq!(node.next().unwrap().0, "claimable soon");
}

/// A worker that took too long does not overwrite what the next one did (H-C6).
#[test]
fn a_worker_that_lost_its_lease_cannot_complete() {
	let node = Node::new();
	node.enqueue("h1");
	let slow = node.claim().unwrap();
	node.clock.advance(node.options.lease - Duration::from_millis(1));
	assert!(node.claim().is_none());
	node.clock.advance(Duration::from_millis(1));
	let next = node.claim().unwrap();
	let error = slow.settle(Verdict::Dead, TryOutcome::NotTaken, "too late").unwrap_err();
	assert!(matches!(error, OutboxError::LeaseLost), "{error}");
	assert_eq!(node.outbox.stats().in_flight, 1);
	assert_eq!(next.settle(Verdict::Done, TryOutcome::Taken, "").unwrap(), Settled::Done);
	// And one that nobody has taken over may be late.
	node.enqueue("h2");
	let slow = node.claim().unwrap();
	node.clock.advance(DAY);
	assert_eq!(slow.settle(Verdict::Done, TryOutcome::Taken, "").unwrap(), Settled::Done);
}

#[test]
fn failures_are_counted_and_snoozes_are_not() {
	let mut node = Node::new();
	node.enqueue("h1");
	for failures in 0..3 {
		let claim = node.claim().unwrap();
		assert_eq!(claim.failures(), failures);
		let settled =
			claim.settle(Verdict::RetryAfter(MINUTE), TryOutcome::NotTaken, "503").unwrap();
		assert_eq!(settled, Settled::RetryAt(node.clock.now().after(MINUTE)));
		node.clock.advance(MINUTE - Duration::from_millis(1));
		assert!(node.claim().is_none());
		node.clock.advance(Duration::from_millis(1));
		node.restart();
	}
	let claim = node.claim().unwrap();
	claim.settle(Verdict::Snooze(MINUTE), TryOutcome::NotTaken, "not synced").unwrap();
	node.clock.advance(MINUTE);
	assert_eq!(node.claim().unwrap().failures(), 3);
}

/// A wrong token: nothing is lost, nothing is out of order, others go on.
#[test]
fn a_paused_endpoint_keeps_everything() {
	let mut node = Node::new();
	node.outbox.add_endpoint("other", EndpointOptions::default()).unwrap();
	node.enqueue_new(callback("claimable", "h1"));
	node.enqueue_new(callback("payment_sent", "h1"));
	let id = CallbackId::new("k", b"o", 0);
	node.enqueue_new(NewCallback::new(id, "k", "other", "o", "elsewhere").unwrap());
	let claim = node.outbox.claim(HEIGHT).unwrap().unwrap();
	assert_eq!(claim.reply(Reply::status(401), HEIGHT, "who are you").unwrap(), Settled::Paused);
	node.enqueue("h2");
	assert_eq!(node.send_all(), ["elsewhere"]);
	node.restart();
	assert!(node.claim().is_none());
	let info = node.outbox.endpoints().into_iter().find(|info| info.name == LSP).unwrap();
	assert_eq!(info.paused.unwrap().1, "who are you");
	node.outbox.resume(LSP).unwrap();
	assert_eq!(node.send_all(), ["claimable h1", "payment_sent h1", "claimable h2"]);
	node.restart();
	assert!(node.outbox.endpoints().iter().all(|info| info.paused.is_none()));
}

/// An endpoint that is down is left alone, then asked once.
#[test]
fn an_endpoint_that_is_down_is_left_alone() {
	let node = Node::new();
	for n in 0..20 {
		node.enqueue(&format!("h{n}"));
	}
	for _ in 0..5 {
		let claim = node.claim().unwrap();
		claim.reply(Reply::NoConnection, HEIGHT, "refused").unwrap();
	}
	assert!(node.claim().is_none());
	node.clock.advance(Duration::from_secs(15));
	let probe = node.claim().unwrap();
	assert!(node.claim().is_none(), "one probe at a time");
	probe.reply(Reply::Timeout, HEIGHT, "").unwrap();
	assert!(node.claim().is_none());
	node.clock.advance(Duration::from_secs(15));
	let probe = node.claim().unwrap();
	assert_eq!(probe.reply(Reply::status(204), HEIGHT, "").unwrap(), Settled::Done);
	assert!(node.claim().is_some());
}

#[test]
fn so_many_at_once_and_endpoints_take_turns() {
	let node = Node::new();
	let options = EndpointOptions { max_in_flight: 2, ..EndpointOptions::default() };
	node.outbox.add_endpoint(LSP, options).unwrap();
	node.outbox.add_endpoint("other", options).unwrap();
	for n in 0..5_u64 {
		node.enqueue(&format!("h{n}"));
		let id = CallbackId::new("k", b"o", n);
		node.enqueue_new(NewCallback::new(id, "k", "other", n.to_be_bytes(), "o").unwrap());
	}
	let claims: Vec<_> = std::iter::from_fn(|| node.claim()).collect();
	let endpoints: Vec<&str> = claims.iter().map(|claim| claim.callback().endpoint()).collect();
	assert_eq!(endpoints, ["lsp", "other", "lsp", "other"]);
	drop(claims);
	assert_eq!(node.outbox.stats().in_flight, 0);
	assert!(node.claim().is_some());
}

/// Refused for good: put aside, where somebody can look at it, and what comes after it goes on.
#[test]
fn a_dead_letter_can_be_looked_at_and_sent_again() {
	let mut node = Node::new();
	node.enqueue_new(until("h1", HEIGHT + 10));
	node.enqueue_new(callback("payment_sent", "h1"));
	let claim = node.claim().unwrap();
	assert_eq!(claim.reply(Reply::status(400), HEIGHT, "bad").unwrap(), Settled::Dead);
	node.restart();
	let letters = node.outbox.dead_letters(10).unwrap();
	assert_eq!(
		(letters.len(), letters[0].why, &*letters[0].reason),
		(1, DeadLetterReason::Refused, "bad")
	);
	assert_eq!(node.send_all(), ["payment_sent h1"]);
	let number = letters[0].callback.sequence();
	node.outbox.requeue(number).unwrap();
	assert!(node.outbox.dead_letters(10).unwrap().is_empty());
	assert!(matches!(node.outbox.requeue(number), Err(OutboxError::NoSuchCallback)));
	let claim = node.claim().unwrap();
	assert_eq!((text(&claim), claim.failures()), ("claimable h1".to_owned(), 0));
	claim.settle(Verdict::Dead, TryOutcome::NotTaken, &"x".repeat(5_000)).unwrap();
	assert_eq!(node.outbox.dead_letters(10).unwrap()[0].reason.len(), 300);
	node.outbox.discard(number).unwrap();
	assert!(matches!(node.outbox.discard(number), Err(OutboxError::NoSuchCallback)));
	assert!(node.outbox.dead_letters(10).unwrap().is_empty() && node.claim().is_none());
	assert_eq!(node.count("out_urgent"), 0);
}

/// With the block of its deadline and not before; what is to be done about it is the same commit.
#[test]
fn what_is_too_late_expires_with_what_is_done_about_it() {
	let options = OutboxOptions {
		on_expired: Some(Arc::new(|callback, _| {
			ledger(&format!("cancel {}", String::from_utf8_lossy(callback.order_key())))
		})),
		..OutboxOptions::default()
	};
	let mut node = Node::with(options);
	node.enqueue_new(until("h1", HEIGHT + 5));
	node.enqueue_new(callback("payment_sent", "h1"));
	node.enqueue_new(until("h2", HEIGHT + 6));
	let at = node.clock.now().after(MINUTE);
	node.enqueue_new(callback("claimable", "h3").with_deadline(Deadline::at(at)));
	assert!(node.outbox.expire(HEIGHT + 4, 100).unwrap().is_empty());
	// One that is on its way is left until it is back.
	let (text, claim) = {
		let mut found = Vec::new();
		while let Some(next) = node.next() {
			found.push(next);
		}
		found.into_iter().find(|(text, _)| text == "claimable h2").unwrap()
	};
	assert_eq!(text, "claimable h2");
	let expired = node.outbox.expire(HEIGHT + 6, 100).unwrap();
	let keys: Vec<&[u8]> = expired.iter().map(|callback| callback.order_key()).collect();
	assert_eq!(keys, [b"h1"]);
	assert_eq!(node.count("ledger"), 1);
	assert_eq!(
		claim.settle(Verdict::RetryAfter(MINUTE), TryOutcome::NotTaken, "").unwrap(),
		Settled::RetryAt(at)
	);
	node.restart();
	assert_eq!(node.outbox.expire(HEIGHT + 6, 100).unwrap().len(), 1);
	assert!(node.outbox.expire(HEIGHT + 6, 100).unwrap().is_empty());
	node.clock.advance(MINUTE);
	assert_eq!(node.outbox.expire(0, 100).unwrap().len(), 1);
	assert_eq!((node.count("ledger"), node.count("out_urgent")), (3, 0));
	let letters = node.outbox.dead_letters(10).unwrap();
	assert!(
		letters.len() == 3 && letters.iter().all(|letter| letter.why == DeadLetterReason::Expired)
	);
	// What came after it with the same key is free to go.
	assert_eq!(node.send_all(), ["payment_sent h1"]);
	// The other side says that it is too late: the same.
	node.enqueue_new(until("h4", HEIGHT + 50));
	let reply = Reply::Status { code: 400, retry_after: None, too_late: true, clock_skew: false };
	let claim = node.claim().unwrap();
	assert_eq!(claim.reply(reply, HEIGHT, "deadline").unwrap(), Settled::Expired);
	assert_eq!(node.count("ledger"), 4);
}

/// One that is sent again expires while the next with its key is on its way.
#[test]
fn what_is_on_its_way_is_left_alone_by_its_neighbours() {
	let node = Node::new();
	node.enqueue_new(until("h1", HEIGHT + 1));
	node.enqueue_new(callback("payment_sent", "h1"));
	let refused = node.claim().unwrap().reply(Reply::status(422), HEIGHT, "").unwrap();
	assert_eq!(refused, Settled::Dead);
	let claim = node.claim().unwrap();
	assert_eq!(text(&claim), "payment_sent h1");
	let number = node.outbox.dead_letters(1).unwrap()[0].callback.sequence();
	node.outbox.requeue(number).unwrap();
	node.clock.advance(Duration::from_secs(1));
	assert_eq!(node.outbox.expire(HEIGHT + 1, 9).unwrap().len(), 1);
	assert_eq!(claim.settle(Verdict::Done, TryOutcome::Taken, "").unwrap(), Settled::Done);
	for table in ["out_open", "out_due", "out_lanes", "out_urgent"] {
		assert_eq!(node.count(table), 0, "{table}");
	}
}

/// A store that takes its time.
struct Slow {
	inner: Arc<dyn leyden_store::Store>,
	/// Told when a commit has begun.
	begun: std::sync::mpsc::SyncSender<()>,
	gate: Arc<std::sync::Barrier>,
	is_slow: Arc<std::sync::atomic::AtomicBool>,
}

impl leyden_store::Store for Slow {
	fn commit(&self, batch: Batch) -> leyden_store::Ticket<leyden_store::Committed> {
		// The clock of the store writes when it likes.
		let is_slow = self.is_slow.load(std::sync::atomic::Ordering::SeqCst);
		if !is_slow || batch.required_durability() == leyden_store::Durability::Lazy {
			return self.inner.commit(batch);
		}
		let (completer, ticket) = leyden_store::Ticket::pair();
		let (inner, gate) = (Arc::clone(&self.inner), Arc::clone(&self.gate));
		self.begun.send(()).unwrap();
		std::thread::spawn(move || {
			gate.wait();
			completer.complete(inner.commit(batch).wait());
		});
		ticket
	}

	fn get(&self, key: &leyden_store::Key) -> leyden_store::Ticket<Option<leyden_store::Record>> {
		self.inner.get(key)
	}

	fn get_raw(&self, key: &leyden_store::Key) -> leyden_store::Ticket<Option<Vec<u8>>> {
		self.inner.get_raw(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> leyden_store::Ticket<leyden_store::Page> {
		self.inner.scan(range, limit)
	}

	fn guarantees(&self) -> leyden_store::Guarantees {
		self.inner.guarantees()
	}
}

/// While its outcome is being written, however long that takes, a callback is given to nobody else.
#[test]
fn what_is_being_settled_is_nobody_elses() {
	let node = Node::new();
	node.enqueue("h1");
	let gate = Arc::new(std::sync::Barrier::new(2));
	let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
	let is_slow = Arc::default();
	let slow = Slow {
		inner: Arc::clone(&node.store),
		begun,
		gate: Arc::clone(&gate),
		is_slow: Arc::clone(&is_slow),
	};
	let slow: Arc<dyn leyden_store::Store> = Arc::new(slow);
	let clock = Arc::<leyden_store::ManualClock>::clone(&node.clock);
	// The endpoint is there already, so nothing is written here.
	let outbox = leyden_outbox::Outbox::open(slow, clock, node.options.clone()).unwrap();
	let claim = outbox.claim(HEIGHT).unwrap().unwrap();
	is_slow.store(true, std::sync::atomic::Ordering::SeqCst);
	let settling =
		std::thread::spawn(move || claim.settle(Verdict::Done, TryOutcome::Taken, "").unwrap());
	has_begun.recv().unwrap();
	node.clock.advance(DAY);
	assert!(outbox.claim(HEIGHT).unwrap().is_none());
	gate.wait();
	assert_eq!(settling.join().unwrap(), Settled::Done);
}

/// A cursor, an epoch, and no gap that is not noticed.
#[test]
fn a_feed_has_everything_in_order() {
	let node = Node::new();
	let start = FeedCursor::default();
	let empty = node.outbox.feed(start, 10).unwrap();
	assert!(empty.items.is_empty() && empty.last == 0);
	for n in 0..5 {
		node.enqueue(&format!("h{n}"));
	}
	node.send_all();
	let first = node.outbox.feed(start, 2).unwrap();
	assert_eq!(first.items.iter().map(|i| i.sequence().get()).collect::<Vec<_>>(), [1, 2]);
	assert_eq!((first.next.after, first.last, first.epoch), (2, 5, node.outbox.epoch()));
	let rest = node.outbox.feed(first.next, 10).unwrap();
	assert_eq!(rest.items.iter().map(|i| i.sequence().get()).collect::<Vec<_>>(), [3, 4, 5]);
	assert!(node.outbox.feed(rest.next, 10).unwrap().items.is_empty());
	let ahead = FeedCursor { after: 6, ..rest.next };
	assert!(matches!(node.outbox.feed(ahead, 10), Err(OutboxError::Ahead { last: 5 })));
	let other = FeedCursor { epoch: rest.epoch.wrapping_add(1), after: 1, mark: 0 };
	assert!(matches!(node.outbox.feed(other, 10), Err(OutboxError::WrongEpoch { .. })));
	// Another outbox has another epoch.
	assert_ne!(Node::new().outbox.epoch(), node.outbox.epoch());
}

/// What arrived is kept for a while, and its id for longer.
#[test]
fn history_is_trimmed_and_says_so() {
	let mut node = Node::new();
	for n in 0..4 {
		node.enqueue(&format!("h{n}"));
	}
	let cursor = node.outbox.feed(FeedCursor::default(), 1).unwrap().next;
	for _ in 0..2 {
		node.claim().unwrap().settle(Verdict::Done, TryOutcome::Taken, "").unwrap();
	}
	node.claim().unwrap().settle(Verdict::Dead, TryOutcome::NotTaken, "no").unwrap();
	node.claim().unwrap().settle(Verdict::Done, TryOutcome::Taken, "").unwrap();
	assert_eq!(node.outbox.compact(100).unwrap(), 0);
	node.clock.advance(7 * DAY);
	// A dead letter at which no operator has looked holds up nothing (A9), and is in the feed no more.
	assert_eq!(node.outbox.compact(100).unwrap(), 3);
	node.restart();
	assert!(matches!(node.outbox.feed(cursor, 9), Err(OutboxError::TooOld { first: 5 })));
	let page = node.outbox.feed(FeedCursor::default(), 9).unwrap();
	assert_eq!((page.items.len(), page.last, page.next.after), (0, 4, 4));
	assert_eq!(node.enqueue("h0").sequence().get(), 1);
	let dead = node.outbox.dead_letters(9).unwrap();
	assert_eq!((dead.len(), dead[0].callback.sequence().get()), (1, 3));
	node.outbox.discard(dead[0].callback.sequence()).unwrap();
	assert_eq!(node.outbox.compact(100).unwrap(), 1);
	let page = node.outbox.feed(FeedCursor::default(), 9).unwrap();
	assert_eq!((page.items.len(), page.last, page.next.after), (0, 4, 4));
	node.clock.advance(90 * DAY);
	node.outbox.compact(100).unwrap();
	assert_eq!((node.count("out_ids"), node.count("out_tombs")), (0, 0));
	// Numbers go on.
	assert_eq!(node.enqueue("h0"), Enqueued::New(leyden_outbox::Sequence::new(5).unwrap()));
}

/// Items are trimmed while a page of the feed is read: who goes on from a cursor is told, or has
/// everything.
#[test]
fn a_feed_that_is_trimmed_while_it_is_read_skips_nothing_silently() {
	for trimmed in [2, 4] {
		interrupt_everywhere(|at| {
			let node = Node::new();
			for n in 0..4 {
				node.enqueue(&format!("h{n}"));
			}
			let cursor = node.outbox.feed(FeedCursor::default(), 1).unwrap().next;
			for _ in 0..trimmed {
				node.claim().unwrap().settle(Verdict::Done, TryOutcome::Taken, "").unwrap();
			}
			node.clock.advance(7 * DAY);
			let Node { store: inner, clock, outbox: other, .. } = node;
			let store = InterruptedStore::new(inner, at, move || {
				assert_eq!(other.compact(100).unwrap(), trimmed);
			});
			let seen: Arc<dyn Store> = Arc::<InterruptedStore>::clone(&store);
			let outbox = open_outbox(&seen, &clock, &OutboxOptions::default());
			match outbox.feed(cursor, 9) {
				Ok(page) => {
					let found: Vec<_> = page.items.iter().map(|i| i.sequence().get()).collect();
					assert_eq!(found, [2, 3, 4], "{trimmed} trimmed before request {at}");
				},
				Err(OutboxError::TooOld { first }) => assert_eq!(first, trimmed as u64 + 1),
				Err(error) => panic!("{trimmed} trimmed before request {at}: {error}"),
			}
			store
		});
	}
}

/// H-C10: what a callback said is in no record any more when it was taken, if that is wanted.
#[test]
fn a_secret_is_forgotten_as_soon_as_it_was_taken() {
	for forget in [false, true] {
		let options = OutboxOptions {
			erase_payload: if forget {
				|callback| callback.kind() == "payment_sent"
			} else {
				|_| false
			},
			..OutboxOptions::default()
		};
		let mut node = Node::with(options);
		node.enqueue_new(callback("payment_sent", "h1"));
		node.enqueue_new(callback("claimable", "h2"));
		let holds = |node: &Node, what: &str| {
			let tables = ["out_items", "out_open", "out_due", "out_lanes", "out_ids", "out_dead"];
			let bytes = tables.map(|table| {
				let range = KeyRange::all(leyden_store::Table::new(table));
				let page = node.store.scan(range, 1_000).wait().unwrap();
				page.records.into_iter().flat_map(|(_, r)| r.value.body).collect::<Vec<u8>>()
			});
			String::from_utf8_lossy(&bytes.concat()).contains(what)
		};
		// A try that failed forgets nothing.
		node.claim()
			.unwrap()
			.settle(Verdict::RetryAfter(Duration::ZERO), TryOutcome::NotTaken, "")
			.unwrap();
		assert!(holds(&node, "payment_sent h1"));
		assert_eq!(node.send_all().len(), 2);
		node.restart();
		assert_eq!(holds(&node, "payment_sent h1"), !forget);
		assert!(holds(&node, "claimable h2"));
		// It still has its place, and its id.
		let page = node.outbox.feed(FeedCursor::default(), 9).unwrap();
		let is_forgotten = |n: usize| page.items[n].is_forgotten();
		assert_eq!((is_forgotten(0), is_forgotten(1)), (forget, false));
		assert_eq!(node.enqueue_new(callback("payment_sent", "h1")).sequence().get(), 1);
	}
}

fn owe(node: &Node, numbers: std::ops::Range<u32>) {
	for n in numbers {
		node.enqueue(&format!("h{n}"));
	}
}

/// A receiver that was restored from yesterday's copy pulls what it has forgotten.
#[test]
fn a_receiver_that_was_set_back_repairs_itself() {
	let node = Node::new();
	let receiver = leyden_store::MemoryMedium::new();
	let apply = |item: &leyden_outbox::Callback| {
		Applied::Now(ledger(&String::from_utf8_lossy(item.order_key())))
	};
	let pull = |store: &Arc<dyn leyden_store::Store>| {
		let mut reconciler = Reconciler::open(Arc::clone(store), "node").unwrap();
		let mut applied = 0;
		loop {
			let page = node.outbox.feed(reconciler.cursor(), 2).unwrap();
			let done = reconciler.apply(&page, apply).unwrap();
			applied += done.applied;
			if !done.more {
				return applied;
			}
		}
	};
	owe(&node, 0..3);
	assert_eq!(pull(&open(&receiver)), 3);
	let yesterday = receiver.snapshot();
	owe(&node, 3..8);
	assert_eq!(pull(&open(&receiver)), 5);
	assert_eq!(pull(&open(&receiver)), 0);
	let store = open(&yesterday);
	assert_eq!(leyden_testkit::count_records(&*store, "ledger"), 3);
	assert_eq!(pull(&store), 5);
	assert_eq!(leyden_testkit::count_records(&*store, "ledger"), 8);
}

/// What must wait is kept, and does not stand in anybody's way; what comes after it with its order key
/// waits with it, over a restart. What will never be taken is kept as well, and nothing waits for it.
#[test]
fn what_cannot_be_applied_yet_is_kept_in_order() {
	let node = Node::new();
	for (n, key) in ["early", "other", "early", "bad", "bad"].into_iter().enumerate() {
		node.enqueue_new(callback(&format!("phase{n}"), key));
	}
	let medium = leyden_store::MemoryMedium::new();
	let log = std::cell::RefCell::new(Vec::new());
	let apply = |ready: bool| {
		let log = &log;
		move |item: &leyden_outbox::Callback| {
			let number = item.sequence().get();
			match item.order_key() {
				b"early" if !ready => return Applied::Later,
				b"bad" if number == 4 => return Applied::Never,
				_ => {},
			}
			log.borrow_mut().push(number);
			Applied::Now(ledger(&number.to_string()))
		}
	};
	let mut reconciler = Reconciler::open(open(&medium), "node").unwrap();
	let page = node.outbox.feed(reconciler.cursor(), 9).unwrap();
	let done = reconciler.apply(&page, apply(false)).unwrap();
	assert_eq!((done.applied, done.later, done.refused, done.more), (2, 2, 1, false));
	assert_eq!(*log.borrow(), [2, 5]);
	// A third of the same key is not tried before its turn, though it could be applied.
	node.enqueue("early");
	let mut reconciler = Reconciler::open(open(&medium), "node").unwrap();
	let page = node.outbox.feed(reconciler.cursor(), 9).unwrap();
	assert_eq!(reconciler.apply(&page, apply(true)).unwrap().later, 1);
	let done = reconciler.retry(apply(false)).unwrap();
	assert_eq!((done.applied, done.later), (0, 3));
	// What is behind the first waits with it, whether it could be applied or not.
	let only_the_first = |item: &leyden_outbox::Callback| match item.sequence().get() {
		1 => Applied::Later,
		_ => Applied::Now(ledger("out of order")),
	};
	let done = reconciler.retry(only_the_first).unwrap();
	assert_eq!((done.applied, done.later), (0, 3));
	let done = reconciler.retry(apply(true)).unwrap();
	assert_eq!((done.applied, done.later), (3, 0));
	assert_eq!(*log.borrow(), [2, 5, 1, 3, 6]);
	assert!(reconciler.waiting().unwrap().is_empty());
	let refused = reconciler.refused().unwrap();
	assert_eq!(refused.iter().map(|item| item.sequence().get()).collect::<Vec<_>>(), [4]);
	let store = open(&medium);
	assert_eq!(leyden_testkit::count_records(&*store, "ledger"), 5);
	let sources = Reconciler::sources(&*store).unwrap();
	assert_eq!((sources[0].0.as_str(), sources[0].1), ("node", reconciler.cursor()));
}

#[test]
fn a_page_with_a_gap_is_not_applied() {
	let node = Node::new();
	owe(&node, 0..4);
	let store = open(&leyden_store::MemoryMedium::new());
	let mut reconciler = Reconciler::open(Arc::clone(&store), "node").unwrap();
	let nothing = |_: &leyden_outbox::Callback| Applied::Now(Plan::of(Batch::new()));
	let page = node.outbox.feed(reconciler.cursor(), 1).unwrap();
	reconciler.apply(&page, nothing).unwrap();
	let whole = node.outbox.feed(reconciler.cursor(), 9).unwrap();
	let mut gap = whole.clone();
	gap.items.remove(1);
	let mut late = whole.clone();
	late.items.remove(0);
	let mut swapped = whole.clone();
	swapped.items.swap(0, 1);
	for page in [gap, late, swapped, page] {
		let applied = std::cell::Cell::new(0);
		let error = reconciler.apply(&page, |item| {
			applied.set(applied.get() + 1);
			nothing(item)
		});
		assert!(matches!(error, Err(OutboxError::Gap { .. })), "{error:?}");
		assert_eq!((applied.get(), reconciler.cursor().after), (0, 1));
	}
	let other = leyden_outbox::FeedPage { epoch: whole.epoch ^ 1, ..whole.clone() };
	let error = reconciler.apply(&other, nothing).unwrap_err();
	assert!(matches!(error, OutboxError::WrongEpoch { .. }), "{error}");
	reconciler.begin_anew().unwrap();
	assert_eq!(Reconciler::open(store, "node").unwrap().cursor(), FeedCursor::default());
}

#[test]
fn what_is_too_large_or_goes_nowhere_is_refused() {
	let node = Node::new();
	let make = |kind: &str, endpoint: &str, key: usize, payload: usize| {
		let id = CallbackId::new("k", b"", 0);
		NewCallback::new(id, kind, endpoint, vec![1; key], vec![1; payload])
	};
	let long = "x".repeat(65);
	for bad in [
		make("", LSP, 1, 0),
		make(&long, LSP, 1, 0),
		make("k", "", 1, 0),
		make("k", &long, 1, 0),
		make("k", LSP, 0, 0),
		make("k", LSP, 65, 0),
		make("k", LSP, 1, MAX_PAYLOAD_BYTES + 1),
	] {
		assert!(matches!(bad, Err(OutboxError::TooLarge { .. })), "{bad:?}");
	}
	let fits = make(&long[..64], LSP, 64, MAX_PAYLOAD_BYTES).unwrap();
	assert_eq!(node.enqueue_new(fits).sequence().get(), 1);
	let nowhere = make("k", "nowhere", 1, 0).unwrap();
	let error = node.outbox.enqueue(nowhere).unwrap_err();
	assert!(matches!(error, OutboxError::UnknownEndpoint { .. }), "{error}");
}

/// There may be a preimage in it.
#[test]
fn debug_shows_no_payload() {
	let node = Node::new();
	let new = callback("claimable", "secret");
	assert!(!format!("{new:?}").contains("claimable secret"));
	node.enqueue_new(new);
	let claim = node.claim().unwrap();
	assert!(!format!("{claim:?} {:?}", node.outbox).contains("claimable secret"));
	let page = node.outbox.feed(FeedCursor::default(), 1).unwrap();
	assert!(!format!("{page:?}").contains("claimable secret"));
}

/// A second handle over the same store shares what is on its way, and the endpoints.
#[test]
fn a_second_handle_of_an_outbox_sends_nothing_twice() {
	let node = Node::new();
	node.enqueue("h1");
	let clock = Arc::<leyden_store::ManualClock>::clone(&node.clock);
	let second = leyden_outbox::Outbox::open(Arc::clone(&node.store), clock, node.options.clone());
	let second = second.unwrap();
	let claim = node.claim().unwrap();
	assert!(second.claim(HEIGHT).unwrap().is_none(), "it is on its way");
	assert_eq!(claim.settle(Verdict::Done, TryOutcome::Taken, "").unwrap(), Settled::Done);
	assert!(second.claim(HEIGHT).unwrap().is_none());
}

/// S9: the outbox was restored from an older copy, and has grown past a reader's place since: its
/// numbers are those of other callbacks now, and the reader is told.
#[test]
fn a_reader_of_a_feed_that_went_back_is_told() {
	let mut node = Node::new();
	for n in 0..5 {
		node.enqueue(&format!("h{n}"));
	}
	let copy = node.medium.snapshot();
	node.send_all();
	for n in 5..10 {
		node.enqueue(&format!("h{n}"));
	}
	let begin = FeedCursor::default();
	let (at_5, at_8) =
		(node.outbox.feed(begin, 5).unwrap().next, node.outbox.feed(begin, 8).unwrap().next);
	assert_eq!((at_5.after, at_8.after), (5, 8));
	// Known or not, a place is found again in its text.
	assert_eq!(at_8.to_string().parse::<FeedCursor>().unwrap(), at_8);
	assert_eq!(node.outbox.feed(at_8, 5).unwrap().items.len(), 2);
	node.medium = copy;
	node.restart();
	assert!(matches!(node.outbox.feed(at_8, 9), Err(OutboxError::Ahead { last: 5 })));
	for n in 0..10 {
		node.enqueue(&format!("other {n}"));
	}
	// What the copy has is what the reader has.
	assert_eq!(node.outbox.feed(at_5, 100).unwrap().items.len(), 10);
	let told = node.outbox.feed(at_8, 9);
	assert!(matches!(told, Err(OutboxError::AnotherHistory { after: 8 })), "{told:?}");
	// The same when the callback at the place was trimmed meanwhile, and its id is all that is left.
	node.send_all();
	node.clock.advance(8 * DAY);
	node.outbox.compact(8).unwrap();
	assert_eq!(node.count("out_tombs"), 8);
	let told = node.outbox.feed(at_8, 9);
	assert!(matches!(told, Err(OutboxError::AnotherHistory { after: 8 })), "{told:?}");
	// A place without a mark is believed, as one that an operator has typed.
	let typed = FeedCursor { mark: 0, ..at_8 };
	assert_eq!(node.outbox.feed(typed, 9).unwrap().items[0].sequence().get(), 9);
}
