//! What a receiver refuses, and how it says so.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use leyden_http::{FeedServer, ServerOptions, Webhook, MAX_BODY_BYTES};
use leyden_store::{Clock, KeyRange, Table};
use rig::lsp::*;
use rig::pipes::*;
use rig::*;

const NOW: u64 = 1_700_000_000;

/// A request with this head, and this behind it.
fn close(head: &str, rest: &str) -> String {
	format!("{head}connection: close\r\n\r\n{rest}")
}

/// A service, and a server in front of it.
fn lsp() -> (Lsp, Pipes) {
	let lsp = Lsp::new(&Node::new().clock);
	let pipes = Pipes::serve(lsp.receiver.router(), ServerOptions::default());
	(lsp, pipes)
}

fn assert_untouched(lsp: &Lsp) {
	let requests = lsp.store.scan(KeyRange::all(Table::new("requests")), 9).wait().unwrap();
	let handled = lsp.handled.load(Ordering::SeqCst);
	assert_eq!((lsp.orders(), handled, requests.records.len()), (0, 0, 0));
}

#[tokio::test]
async fn a_path_that_is_too_long_is_414() {
	let (lsp, pipes) = lsp();
	for bytes in [4_097, 8_193, 60_001, 65_536, 70_000] {
		let path = format!("/{}", "p".repeat(bytes - 1));
		let answer = pipes.ask(&close(&signed("a", &path, NOW, b"{}"), "{}")).await;
		assert_eq!(answer.status, 414, "{bytes}");
	}
	assert_untouched(&lsp);
	let longest = format!("/{}", "p".repeat(4_095));
	assert_eq!(pipes.ask(&close(&signed("a", &longest, NOW, b"{}"), "{}")).await.status, 200);
	// Behind another server as well.
	let url = serve(lsp.receiver.router()).await;
	let path = "p".repeat(60_000);
	let answer = reqwest::Client::new().post(format!("{url}/{path}")).send().await.unwrap();
	assert_eq!(answer.status(), 414);
	// A path that other services do not read either.
	let feed = FeedServer::new(Node::new().outbox, token()).router();
	let query = "q".repeat(9_000);
	let get = format!("GET /events?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
	let answer = Pipes::serve(feed, ServerOptions::default()).ask(&get).await;
	assert_eq!(answer.status, 414);
}

#[tokio::test]
async fn headers_that_are_too_large_or_too_many_are_431() {
	let (lsp, pipes) = lsp();
	let head = signed("a", "/", NOW, b"{}");
	let long = |bytes: usize| format!("{head}x-long: {}\r\n", "x".repeat(bytes));
	let many = |count: usize| {
		let headers: String = (0..count).map(|n| format!("x-{n}: x\r\n")).collect();
		format!("{head}{headers}")
	};
	for head in [long(17_000), long(60_000), long(1_000_000), many(65), many(1_000)] {
		assert_eq!(pipes.ask(&close(&head, "{}")).await.status, 431, "{}", head.len());
	}
	assert_untouched(&lsp);
	assert_eq!(pipes.ask(&close(&long(15_000), "{}")).await.status, 200);
	assert_eq!(pipes.ask(&close(&many(50), "{}")).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_a_broken_one_is_400() {
	let (lsp, pipes) = lsp();
	let large = "x".repeat(MAX_BODY_BYTES + 1);
	let answer = pipes.ask(&close(&signed("a", "/", NOW, large.as_bytes()), &large)).await;
	assert_eq!(answer.status, 413);
	// Its length is not known before.
	let chunked =
		signed("a", "/", NOW, b"{}").replace("content-length: 2", "transfer-encoding: chunked");
	let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
	assert_eq!(pipes.ask(&close(&chunked, &chunk)).await.status, 413);
	for broken in ["x\r\n{}\r\n0\r\n\r\n", "2\r\n{}x\r\n0\r\n\r\n", "fffffffffffffffff\r\n{}"] {
		assert_eq!(pipes.ask(&close(&chunked, broken)).await.status, 400, "{broken}");
	}
	assert_untouched(&lsp);
	assert_eq!(pipes.ask(&close(&chunked, "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")).await.status, 200);
}

/// Over TCP, where a connection that is closed with something unread is gone for who still writes.
#[tokio::test]
async fn who_sends_far_too_much_still_gets_the_answer() {
	let lsp = Lsp::new(&Node::new().clock);
	let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
	let url = format!("http://{}/", listener.local_addr().unwrap());
	tokio::spawn(leyden_http::serve(listener, lsp.receiver.router(), ServerOptions::default()));
	let (body, signature) = (vec![b'x'; 8 << 20], "v1,AAAA");
	for _ in 0..20 {
		let request = reqwest::Client::new().post(&url).body(body.clone());
		let request = request.header("webhook-id", "a").header("webhook-timestamp", NOW);
		let answer = request.header("webhook-signature", signature).send().await.unwrap();
		assert_eq!(answer.status(), 413);
	}
	assert_untouched(&lsp);
}

/// The body is not waited for, and the handler is not asked.
#[tokio::test(start_paused = true)]
async fn an_id_that_is_too_long_is_refused_before_anything_else() {
	let (lsp, pipes) = lsp();
	for id in ["i".repeat(256), "i".repeat(4_000), String::new(), "a.b".to_owned()] {
		let head = signed(&id, "/", NOW, b"{}");
		// No byte of the body ever comes.
		let answer = pipes.ask(&close(&head, "")).await;
		assert_eq!(answer.status, 400, "{}", id.len());
		assert!(answer.body.contains("webhook-id"), "{}", answer.body);
	}
	let late = Webhook { id: &"i".repeat(256), timestamp: NOW };
	let verified = late.verify(b"", "v1,", &[key()], leyden_store::Timestamp(NOW * 1000), DAY);
	assert!(verified.is_err_and(|error| error.to_string().contains("webhook-id")));
	assert_untouched(&lsp);
	let longest = signed(&"i".repeat(255), "/", NOW, b"{}");
	assert_eq!(pipes.ask(&close(&longest, "{}")).await.status, 200);
}

#[tokio::test]
async fn a_malformed_signature_among_good_ones_is_skipped() {
	let (lsp, pipes) = lsp();
	let with = |before: &str, after: &str| {
		let head = signed("a", "/", NOW, b"{}");
		let (name, rest) = head.split_once("webhook-signature: ").unwrap();
		let (signature, rest) = rest.split_once("\r\n").unwrap();
		close(&format!("{name}webhook-signature: {before}{signature}{after}\r\n{rest}"), "{}")
	};
	for (before, after) in
		[("v1 ", ""), ("garbage ", " more"), ("v1,???? ", ""), ("", " ,"), (", ", "")]
	{
		assert_eq!(pipes.ask(&with(before, after)).await.status, 200, "{before}|{after}");
	}
	assert_eq!(lsp.handled.load(Ordering::SeqCst), 1);
}

/// A wrong clock is no wrong key: the sender can tell what is to be repaired, and by how much.
#[tokio::test]
async fn a_timestamp_outside_of_the_tolerance_is_told_from_a_wrong_signature() {
	let (lsp, pipes) = lsp();
	for (at, reason) in [
		(NOW - 301, "the timestamp is 301 s behind the receiver's clock; 300 s are tolerated"),
		(NOW + 301, "the timestamp is 301 s ahead of the receiver's clock; 300 s are tolerated"),
	] {
		let answer = pipes.ask(&close(&signed("a", "/", at, b"{}"), "{}")).await;
		assert_eq!((answer.status, &*answer.headers["content-type"]), (400, "application/json"));
		let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
		let expected = serde_json::json!({
			"error": "clock_skew", "reason": reason, "timestamp": at, "now": NOW, "tolerance": 300,
		});
		assert_eq!(said, expected);
		// Nobody is told so who has no key.
		let forged = pipes.ask(&close(&signed("a", "/", at, b"{}"), "[]")).await;
		assert_eq!(forged.status, 401);
	}
	assert_untouched(&lsp);
	assert_eq!(pipes.ask(&close(&signed("a", "/", NOW - 300, b"{}"), "{}")).await.status, 200);
}

/// The tolerance is a setting, up to half of the time in which ids are known: what is signed ahead of
/// the receiver's clock stays good for twice the tolerance.
#[tokio::test]
async fn the_tolerance_is_a_setting() {
	let node = Node::new();
	let lsp = Lsp::new(&node.clock);
	for (tolerance, kept) in [
		(Duration::ZERO, 0),
		(Duration::from_secs(3_600), 3_600),
		(DAY, DAY.as_secs() / 2),
		(Duration::MAX, DAY.as_secs() / 2),
	] {
		let receiver = lsp.receiver.clone().with_tolerance(tolerance);
		let pipes = Pipes::serve(receiver.router(), ServerOptions::default());
		let now = node.clock.now().0 / 1000;
		for (at, status) in
			[(now - kept, 200), (now + kept, 200), (now - kept - 1, 400), (now + kept + 1, 400)]
		{
			let id = format!("{kept}-{at}");
			let answer = pipes.ask(&close(&signed(&id, "/", at, b"{}"), "{}")).await;
			assert_eq!(answer.status, status, "{kept}: {}", answer.body);
		}
	}
}

/// A sender compares its own clock with it.
#[tokio::test]
async fn every_answer_has_a_date() {
	let (_, pipes) = lsp();
	let head = signed("a", "/", NOW, b"{}");
	for (request, status) in [
		(close(&head, "{}"), 200),
		(close(&head, "[]"), 401),
		(close(&signed("b", "/", NOW - 301, b"{}"), "{}"), 400),
		(close(&head.replace("webhook-id", "x"), "{}"), 400),
		(close(&head.replace("POST", "GET"), "{}"), 405),
		(close(&head.replace("POST /", &format!("POST /{}", "p".repeat(5_000))), "{}"), 414),
		(close(&format!("{head}x: {}\r\n", "x".repeat(1_000_000)), "{}"), 431),
		("nonsense\r\n\r\n".to_owned(), 400),
	] {
		let answer = pipes.ask(&request).await;
		assert_eq!(answer.status, status);
		assert!(httpdate::parse_http_date(&answer.headers["date"]).is_ok(), "{status}");
	}
}

/// A beginning of the token, or more than it, opens neither the receiver nor the feed.
#[tokio::test]
async fn only_the_whole_token_opens() {
	let lsp = Lsp::new(&Node::new().clock);
	let feed = FeedServer::new(Node::new().outbox, token()).router();
	let router = feed.merge(lsp.receiver.clone().with_token(token()).router());
	let pipes = Arc::new(Pipes::serve(router, ServerOptions::default()));
	for token in ["", "s", "sesam", "sesamee", "esame", "SESAME", "sesame x"] {
		let bearer = format!("authorization: Bearer {token}\r\n");
		let get = format!("GET /events HTTP/1.1\r\nhost: x\r\n{bearer}");
		let post = format!("{}{bearer}", signed("a", "/", NOW, b"{}"));
		let (get, post) = (pipes.ask(&close(&get, "")).await, pipes.ask(&close(&post, "{}")).await);
		assert_eq!((get.status, post.status), (401, 401), "{token}");
	}
	assert_untouched(&lsp);
	let post = signed("a", "/", NOW, b"{}") + "authorization: Bearer sesame\r\n";
	assert_eq!(pipes.ask(&close(&post, "{}")).await.status, 200);
}
