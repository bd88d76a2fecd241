//! Both sides: a node's courier, and a receiver with a store of its own.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use leyden_http::{FeedError, FeedServer, Handled, Receiver, Token, Webhook, MAX_BODY_BYTES};
use leyden_outbox::{FeedCursor, OutboxError, Reconciler};
use leyden_request::{RequestOptions, Requests};
use leyden_store::{Clock, KeyRange, ManualClock, Table};
use rig::lsp::*;
use rig::*;

const MINUTE: Duration = Duration::from_secs(60);

fn post(
	url: &str, id: &str, timestamp: u64, signature: &str, body: &[u8],
) -> reqwest::RequestBuilder {
	reqwest::Client::new()
		.post(url)
		.header("webhook-id", id)
		.header("webhook-timestamp", timestamp)
		.header("webhook-signature", signature)
		.body(body.to_vec())
}

/// The whole way; a callback that is sent twice is one order, and so it is after the receiver was
/// restarted.
#[tokio::test]
async fn a_callback_is_taken_once() {
	let node = Node::new();
	let lsp = Lsp::new(&node.clock);
	let url = lsp.serve().await;
	node.owe("claimable", "h1");
	node.owe("payment_sent", "h1");
	let courier = node.courier(address(&url));
	assert_eq!(courier.drain(HEIGHT).await.unwrap().done, 2);
	assert_eq!(lsp.orders(), 2);

	// The same once more, as a node sends it whose reply was lost.
	let page = node.outbox.feed(FeedCursor::default(), 1).unwrap();
	let (id, body) = (page.items[0].id().to_string(), page.items[0].payload().to_vec());
	let timestamp = node.clock.now().0 / 1000;
	let signature = Webhook { id: &id, timestamp }.sign(&body, &[secret()]);
	let restarted = Lsp::on(lsp.medium.clone(), &node.clock);
	drop(lsp);
	let url = restarted.serve().await;
	for _ in 0..3 {
		let answer =
			post(&format!("{url}/"), &id, timestamp, &signature, &body).send().await.unwrap();
		assert_eq!(answer.status(), 200);
	}
	assert_eq!((restarted.orders(), restarted.handled.load(Ordering::SeqCst)), (2, 0));
	// To another path, which the sender was told in between (A17): it is the same callback.
	let answer = post(&format!("{url}/x"), &id, timestamp, &signature, &body).send().await.unwrap();
	assert_eq!((answer.status().as_u16(), restarted.orders()), (200, 2));
	// Under the same id, and saying something else.
	let other = br#"{"kind":"payment_sent","amount":1}"#;
	let signature = Webhook { id: &id, timestamp }.sign(other, &[secret()]);
	let answer = post(&format!("{url}/"), &id, timestamp, &signature, other).send().await.unwrap();
	assert_eq!((answer.status().as_u16(), restarted.orders()), (422, 2));
}

/// The same id from another source is another callback, and a source that has too many is told to come
/// again.
#[tokio::test]
async fn sources_do_not_see_each_other() {
	let node = Node::new();
	let lsp = Lsp::new(&node.clock);
	let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&node.clock);
	let options = RequestOptions { max_per_scope: 1, ..RequestOptions::default() };
	let requests = Requests::open(Arc::clone(&lsp.store), Arc::clone(&clock), options).unwrap();
	let handler: Arc<dyn Fn(&leyden_http::Incoming) -> Handled + Send + Sync> =
		Arc::new(|incoming| Handled::taken(order(&incoming.body)));
	let now = node.clock.now().0 / 1000;
	let signature = |id| Webhook { id, timestamp: now }.sign(b"{}", &[secret()]);
	let mut seen = Vec::new();
	for source in ["one", "two"] {
		let (requests, clock, handler) =
			(requests.clone(), Arc::clone(&clock), Arc::clone(&handler));
		let receiver = Receiver::new(requests, clock, source, [key()], DAY, handler);
		let url = serve(receiver.router()).await;
		for id in ["a", "b"] {
			let answer = post(&url, id, now, &signature(id), b"{}").send().await.unwrap();
			seen.push(answer.status().as_u16());
		}
	}
	assert_eq!((seen, lsp.orders()), (vec![200, 503, 200, 503], 2));
}

/// A callback that is refused is not stored: the next try is a first one.
#[tokio::test]
async fn what_is_refused_may_come_again() {
	let node = Node::new();
	let lsp = Lsp::new(&node.clock);
	let courier = node.courier(address(&lsp.serve().await));
	node.owe("payment_sent", "h1");
	// It is not at `outbound_paid` yet (H-C1).
	lsp.refuses.store(503, Ordering::SeqCst);
	for _ in 0..3 {
		assert_eq!(courier.drain(HEIGHT).await.unwrap().again, 1);
		node.clock.advance(10 * MINUTE);
	}
	lsp.refuses.store(0, Ordering::SeqCst);
	assert_eq!(courier.drain(HEIGHT).await.unwrap().done, 1);
	assert_eq!((lsp.orders(), lsp.handled.load(Ordering::SeqCst)), (1, 4));
}

#[tokio::test]
async fn what_is_forged_stale_or_too_large_changes_nothing() {
	let node = Node::new();
	let lsp = Lsp::new(&node.clock);
	let url = format!("{}/claimable", lsp.serve().await);
	let now = node.clock.now().0 / 1000;
	let sign =
		|id: &str, at: u64, body: &[u8]| Webhook { id, timestamp: at }.sign(body, &[secret()]);
	let send = |id: &'static str, at: u64, signature: String, body: Vec<u8>| {
		let request = post(&url, id, at, &signature, &body);
		async move { request.send().await.unwrap().status().as_u16() }
	};
	let good = sign("a", now, b"{}");
	assert_eq!(send("a", now, good.clone(), b"{ }".to_vec()).await, 401);
	assert_eq!(send("b", now, good.clone(), b"{}".to_vec()).await, 401);
	assert_eq!(send("a", now + 1, good.clone(), b"{}".to_vec()).await, 401);
	assert_eq!(send("a", now - 301, sign("a", now - 301, b"{}"), b"{}".to_vec()).await, 400);
	assert_eq!(send("a", now + 301, sign("a", now + 301, b"{}"), b"{}".to_vec()).await, 400);
	assert_eq!(send("a", now, "garbage".to_owned(), b"{}".to_vec()).await, 400);
	assert_eq!(send("a.b", now, sign("a.b", now, b"{}"), b"{}".to_vec()).await, 400);
	let large = vec![b'x'; MAX_BODY_BYTES + 1];
	assert_eq!(send("a", now, sign("a", now, &large), large).await, 413);
	let client = reqwest::Client::new();
	assert_eq!(client.post(&url).body("{}").send().await.unwrap().status(), 400);
	assert_eq!(client.get(&url).send().await.unwrap().status(), 405);
	assert_eq!((lsp.orders(), lsp.handled.load(Ordering::SeqCst)), (0, 0));
	assert_eq!(
		lsp.store.scan(KeyRange::all(Table::new("requests")), 9).wait().unwrap().records.len(),
		0
	);
	assert_eq!(send("a", now, good, b"{}".to_vec()).await, 200);
	let largest = vec![b'x'; MAX_BODY_BYTES];
	assert_eq!(send("l", now, sign("l", now, &largest), largest).await, 200);
}

#[tokio::test]
async fn a_token_may_be_wanted_as_well() {
	let node = Node::new();
	// The server dates its answers with the clock of the machine: a refusal by a clock that differs would
	// be taken for one because of the clock.
	node.clock.set(leyden_store::SystemClock.now());
	let lsp = Lsp::new(&node.clock);
	let url = serve(lsp.receiver.clone().with_token(token()).router()).await;
	node.owe("claimable", "h1");
	let wrong = address(&url).with_token(Token::new("wrong").unwrap());
	assert_eq!(node.courier(wrong).drain(HEIGHT).await.unwrap().paused, 1);
	// Put right, and nothing was lost.
	let courier = node.courier(address(&url).with_token(token()));
	assert_eq!(courier.drain(HEIGHT).await.unwrap().done, 0);
	node.outbox.resume("lsp").unwrap();
	assert_eq!(courier.drain(HEIGHT).await.unwrap().done, 1);
	assert_eq!(lsp.orders(), 1);
}

/// A receiver that was set back to yesterday's copy pulls what it has forgotten, and applies it once.
#[tokio::test]
async fn push_and_pull_are_one() {
	let node = Node::new();
	let feed = serve(FeedServer::new(node.outbox.clone(), token()).router()).await + "/events";
	let client = rig::feed(&feed, token(), Duration::from_secs(5));
	let lsp = Lsp::new(&node.clock);
	(0..3).for_each(|n| drop(node.owe("claimable", &format!("h{n}")).to_string()));
	assert_eq!(node.courier(address(&lsp.serve().await)).drain(HEIGHT).await.unwrap().done, 3);
	let yesterday = lsp.medium.snapshot();
	(3..7).for_each(|n| drop(node.owe("claimable", &format!("h{n}")).to_string()));
	// These are taken and forgotten.
	assert_eq!(node.courier(address(&lsp.serve().await)).drain(HEIGHT).await.unwrap().done, 4);
	drop(lsp);
	let lsp = Lsp::on(yesterday, &node.clock);
	let reconciler = Reconciler::open(Arc::clone(&lsp.store), "node").unwrap();
	let pull = |mut reconciler: Reconciler| async {
		let mut seen = (0, 0, 0);
		loop {
			let page = client.pull(reconciler.cursor(), 2).await.unwrap();
			let done = reconciler.apply(&page, |item| lsp.receiver.pulled(item, "/")).unwrap();
			seen = (seen.0 + done.applied, seen.1 + done.later, seen.2 + done.refused);
			if !done.more {
				return (seen, reconciler);
			}
		}
	};
	// Three are known, by the ids under which they were pushed: their handler is not asked again.
	lsp.refuses.store(503, Ordering::SeqCst);
	let (seen, mut reconciler) = pull(reconciler).await;
	assert_eq!((seen, lsp.orders()), ((3, 4, 0), 3));
	lsp.refuses.store(0, Ordering::SeqCst);
	let done = reconciler.retry(|item| lsp.receiver.pulled(item, "/")).unwrap();
	assert_eq!((done.applied, done.later, lsp.orders()), (4, 0, 7));
	// What is refused for good is kept, and blocks nothing.
	lsp.refuses.store(400, Ordering::SeqCst);
	node.owe("claimable", "h7");
	let (seen, reconciler) = pull(reconciler).await;
	assert_eq!((seen, reconciler.refused().unwrap().len()), ((0, 0, 1), 1));
	// What the node has forgotten: known here, or for an operator who asks its ledger.
	let page = node.outbox.feed(FeedCursor::default(), 1).unwrap();
	let forget = |item: &leyden_outbox::FeedItem, id: leyden_outbox::CallbackId| {
		let new = leyden_outbox::NewCallback::new(id, item.kind(), "lsp", item.order_key(), "");
		let new = new.unwrap().with_schema(0);
		leyden_outbox::Callback::received(item.sequence(), new, item.enqueued_at())
	};
	let known = forget(&page.items[0], page.items[0].id());
	let other = forget(&page.items[0], leyden_outbox::CallbackId::new("k", b"never came", 0));
	assert!(matches!(lsp.receiver.pulled(&known, "/"), leyden_outbox::Applied::Now(_)));
	assert!(matches!(lsp.receiver.pulled(&other, "/"), leyden_outbox::Applied::Never));
	// Pulled, and pushed afterwards.
	lsp.refuses.store(0, Ordering::SeqCst);
	node.owe("claimable", "h8");
	assert_eq!(pull(reconciler).await.0, (1, 0, 0));
	assert_eq!(node.courier(address(&lsp.serve().await)).drain(HEIGHT).await.unwrap().done, 2);
	assert_eq!(lsp.orders(), 9);
}

#[tokio::test]
async fn a_feed_is_for_who_may_and_says_what_is_wrong() {
	let node = Node::new();
	let id = node.owe("claimable", "h1");
	let feed = serve(FeedServer::new(node.outbox.clone(), token()).router()).await + "/events";
	let pull = |cursor: FeedCursor| {
		let client = rig::feed(&feed, token(), Duration::from_secs(5));
		async move { client.pull(cursor, 10).await }
	};
	let page = pull(FeedCursor::default()).await.unwrap();
	let original = node.outbox.feed(FeedCursor::default(), 10).unwrap();
	assert_eq!((page.items[0].id(), page.last), (id, 1));
	assert!(page.items == original.items && page.next == original.next);
	let other = FeedCursor { epoch: page.epoch ^ 1, ..FeedCursor::default() };
	let error = pull(other).await.unwrap_err();
	assert!(matches!(error, FeedError::Cursor(OutboxError::WrongEpoch { .. })), "{error}");
	let ahead = FeedCursor { after: 9, ..page.next };
	let error = pull(ahead).await.unwrap_err();
	assert!(matches!(error, FeedError::Cursor(OutboxError::Ahead { .. })), "{error}");
	// What is trimmed is said to be.
	node.owe("claimable", "h2");
	let taken = Lsp::new(&node.clock);
	node.courier(address(&taken.serve().await)).drain(HEIGHT).await.unwrap();
	node.clock.advance(8 * DAY);
	node.outbox.compact(10).unwrap();
	let error = pull(page.next).await.unwrap_err();
	assert!(matches!(error, FeedError::Cursor(OutboxError::TooOld { first: 3 })), "{error}");

	let wrong = rig::feed(&feed, Token::new("x").unwrap(), Duration::from_secs(5));
	let error = wrong.pull(FeedCursor::default(), 1).await.unwrap_err();
	assert!(matches!(error, FeedError::Unauthorized), "{error}");
	let get = |query: &str| reqwest::Client::new().get(format!("{feed}?{query}"));
	for (query, status) in [
		("after=x", 400),
		("after=1", 400),
		("after=+1-2", 400),
		("limit=-1", 400),
		("limit=many", 400),
		("limit=99999999", 200),
		("", 200),
	] {
		let answer = get(query).header("authorization", "Bearer sesame").send().await.unwrap();
		assert_eq!(answer.status().as_u16(), status, "{query}");
	}
	assert_eq!(get("").send().await.unwrap().status(), 401);
	// What is no feed.
	let server = Server::start();
	let client = rig::feed(&server.url, token(), Duration::from_millis(300));
	let error = client.pull(FeedCursor::default(), 1).await.unwrap_err();
	assert!(matches!(error, FeedError::Malformed), "{error}");
	server.then([How::Status(502, ""), How::HangUp, How::Never]);
	for _ in 0..3 {
		let error = client.pull(FeedCursor::default(), 1).await.unwrap_err();
		assert!(error.is_retriable(), "{error}");
	}
}
