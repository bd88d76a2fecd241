//! What is sent, and what may come back.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::time::Duration;

use leyden_http::{Address, Drained, SigningSecret, Webhook};
use leyden_store::Clock;
use rig::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Headers, body, path and token, as its receiver expects them.
#[tokio::test]
async fn a_callback_is_sent_signed() {
	let (node, server) = (Node::new(), Server::start());
	let id = node.owe("payment_sent", "h1");
	let address = address(&server.url)
		.with_path("payment_sent", "/internal/async_order/payment_sent")
		.with_token(token());
	let drained = node.courier(address).drain(HEIGHT).await.unwrap();
	assert_eq!(drained, Drained { done: 1, ..Drained::default() });
	let got = server.got();
	let [got] = got.as_slice() else { panic!("{got:?}") };
	assert_eq!(got.path, "/lsp/internal/async_order/payment_sent");
	assert_eq!(got.body, br#"{"kind":"payment_sent","payment_hash":"h1"}"#);
	assert_eq!(got.header("webhook-id"), Some(&*id.to_string()));
	assert_eq!(got.header("authorization"), Some("Bearer sesame"));
	assert_eq!(got.header("leyden-sequence"), Some("1"));
	assert_eq!(got.header("leyden-epoch"), Some(&*node.outbox.epoch().to_string()));
	let timestamp = got.header("webhook-timestamp").unwrap().parse().unwrap();
	assert_eq!(timestamp, node.clock.now().0 / 1000);
	let webhook = Webhook { id: &id.to_string(), timestamp };
	let signature = got.header("webhook-signature").unwrap();
	webhook.verify(&got.body, signature, &[key()], node.clock.now(), MINUTE).unwrap();
}

/// Every try has the same id and body, and the time of its own.
#[tokio::test]
async fn every_try_is_the_same_callback() {
	let (node, server) = (Node::new(), Server::start());
	server.then([How::Status(500, ""), How::Status(503, ""), How::HangUp]);
	node.owe("claimable", "h1");
	let courier = node.courier(address(&server.url));
	let mut drained = Vec::new();
	for _ in 0..4 {
		drained.push(courier.drain(HEIGHT).await.unwrap());
		node.clock.advance(10 * MINUTE);
	}
	assert!(drained[..3].iter().all(|drained| drained.again == 1));
	assert_eq!(drained[3].done, 1);
	let got = server.got();
	assert_eq!(got.len(), 4);
	for tries in got.windows(2) {
		assert_eq!(tries[0].header("webhook-id"), tries[1].header("webhook-id"));
		assert_eq!(tries[0].body, tries[1].body);
		assert_ne!(tries[0].header("webhook-timestamp"), tries[1].header("webhook-timestamp"));
	}
}

/// Real answers have the meaning that the law gives them.
#[tokio::test]
async fn answers_are_what_the_law_says() {
	let one = |done, again, aside, paused| Drained { done, again, aside, paused };
	for (how, expected) in [
		(How::Status(204, ""), one(1, 0, 0, 0)),
		(How::Status(400, ""), one(0, 0, 1, 0)),
		(How::Status(401, ""), one(0, 0, 0, 1)),
		(How::Status(404, ""), one(0, 1, 0, 0)),
		(How::Status(410, ""), one(0, 0, 0, 1)),
		(How::Status(429, "retry-after: 120\r\n"), one(0, 1, 0, 0)),
		// Not followed: there would be a second request.
		(How::Status(302, "location: /elsewhere\r\n"), one(0, 1, 0, 0)),
		(How::Status(307, "location: http://127.0.0.1:1/\r\n"), one(0, 1, 0, 0)),
		(How::Never, one(0, 1, 0, 0)),
		(How::HangUp, one(0, 1, 0, 0)),
		(How::Garbage, one(0, 1, 0, 0)),
		// The status line is the answer.
		(How::Drip, one(1, 0, 0, 0)),
		// A body without end is read up to a limit, and is an answer.
		(How::Large(50 << 20), one(1, 0, 0, 0)),
	] {
		let (node, server) = (Node::new(), Server::start());
		server.then([how.clone()]);
		node.owe("claimable", "h1");
		let drained = node.courier(address(&server.url)).drain(HEIGHT).await.unwrap();
		assert_eq!(drained, expected, "{how:?}");
		assert_eq!(server.got().len(), 1, "{how:?}");
	}
}

/// Of an answer without end only the beginning is read.
#[tokio::test]
async fn a_large_answer_is_cut_off() {
	let (node, server) = (Node::new(), Server::start());
	server.then([How::Large(50 << 20)]);
	node.owe("claimable", "h1");
	let courier = node.courier(address(&server.url));
	assert_eq!(courier.drain(HEIGHT).await.unwrap().done, 1);
	assert!(!server.read_whole());
}

#[tokio::test]
async fn retry_after_is_waited_for() {
	for header in ["retry-after: 3600\r\n", "retry-after: Fri, 31 Dec 2100 23:59:59 GMT\r\n"] {
		let (node, server) = (Node::new(), Server::start());
		server.then([How::Status(503, header)]);
		node.owe("claimable", "h1");
		let courier = node.courier(address(&server.url));
		courier.drain(HEIGHT).await.unwrap();
		node.clock.advance(59 * MINUTE);
		assert_eq!(courier.drain(HEIGHT).await.unwrap(), Drained::default(), "{header}");
	}
	// What is no time is no wish.
	for header in ["retry-after: soon\r\n", "retry-after: +3600\r\n"] {
		let (node, server) = (Node::new(), Server::start());
		server.then([How::Status(503, header)]);
		node.owe("claimable", "h1");
		let courier = node.courier(address(&server.url));
		courier.drain(HEIGHT).await.unwrap();
		node.clock.advance(MINUTE);
		assert_eq!(courier.drain(HEIGHT).await.unwrap().done, 1, "{header}");
	}
}

/// A private network is not called, by address or by name, unless it is allowed.
#[tokio::test]
async fn private_addresses_are_not_called() {
	let server = Server::start();
	let by_name = server.url.replace("127.0.0.1", "localhost");
	for url in [&server.url, &by_name] {
		let node = Node::new();
		node.owe("claimable", "h1");
		let courier = node.courier(Address::plain(url).unwrap());
		assert_eq!(courier.drain(HEIGHT).await.unwrap().paused, 1, "{url}");
		let info = &node.outbox.endpoints()[0];
		assert!(info.paused.as_ref().unwrap().1.contains("private"), "{info:?}");
	}
	assert_eq!((server.got().len(), server.connections()), (0, 0));
	let node = Node::new();
	node.owe("claimable", "h1");
	let allow = "127.0.0.1,::1".parse().unwrap();
	let courier = node.courier(Address::plain(&by_name).unwrap().allowing(allow));
	assert_eq!(courier.drain(HEIGHT).await.unwrap().done, 1);
}

/// A callback to an endpoint that does not listen yet is not lost, and arrives when the endpoint does.
#[tokio::test]
async fn an_endpoint_that_is_not_there_yet() {
	let node = Node::new();
	node.owe("claimable", "h1");
	let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
	let url = format!("http://{}/", listener.local_addr().unwrap());
	drop(listener);
	let drained = node.courier(address(&url)).drain(HEIGHT).await.unwrap();
	assert_eq!(drained, Drained { again: 1, ..Drained::default() });
	node.clock.advance(10 * MINUTE);
	let server = Server::start();
	assert_eq!(node.courier(address(&server.url)).drain(HEIGHT).await.unwrap().done, 1);
}

/// Many at once over few connections, and in order where order is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_used_again() {
	let (node, server) = (Node::new(), Server::start());
	for payment in 0..50 {
		node.owe("claimable", &format!("p{payment}"));
		node.owe("payment_sent", &format!("p{payment}"));
	}
	let drained = node.courier(address(&server.url)).drain(HEIGHT).await.unwrap();
	assert_eq!(drained.done, 100);
	assert!(server.connections() <= 16, "{}", server.connections());
	let got: Vec<String> =
		server.got().iter().map(|got| String::from_utf8(got.body.clone()).unwrap()).collect();
	for payment in 0..50 {
		let place = |kind: &str| {
			let text = format!(r#"{{"kind":"{kind}","payment_hash":"p{payment}"}}"#);
			got.iter().position(|body| *body == text).unwrap()
		};
		assert!(place("claimable") < place("payment_sent"));
	}
}

/// Keys, tokens and what is sent are for the other side.
#[tokio::test]
async fn nothing_secret_is_shown() {
	let (node, server) = (Node::new(), Server::start());
	server.then([How::Status(400, "")]);
	node.owe("claimable", "preimage");
	let address = address(&format!("{}?key=hidden", server.url)).with_token(token());
	let courier = node.courier(address.clone());
	courier.drain(HEIGHT).await.unwrap();
	let letter = node.outbox.dead_letters(1).unwrap().remove(0);
	assert_eq!(letter.reason, "HTTP 400");
	let shown = format!("{courier:?} {address:?} {letter:?} {:?}", SigningSecret::parse(SECRET));
	for hidden in ["sesame", "hidden", "preimage", "MfKQ9r8"] {
		assert!(!shown.contains(hidden), "{shown}");
	}
}

/// A16: the status line is the answer: a 2xx whose body breaks off was taken, and is sent once.
#[tokio::test]
async fn a_body_that_breaks_off_changes_no_answer() {
	let (node, server) = (Node::new(), Server::start());
	server.then([How::BreakOff(200), How::BreakOff(422)]);
	node.owe("claimable", "h1");
	let courier = node.courier(address(&server.url));
	assert_eq!(courier.drain(HEIGHT).await.unwrap().done, 1);
	node.owe("claimable", "h2");
	// What a refusal means may be in the body: it is sent again.
	assert_eq!(courier.drain(HEIGHT).await.unwrap().again, 1);
	assert_eq!(server.got().len(), 2);
}

/// A7: a refusal whose reason are the clocks is told from one of the sender: by the text of our receiver, and
/// by the date of an answer.
#[tokio::test]
async fn a_refusal_because_of_clocks_pauses_nothing() {
	let said =
		r#"{"error":"clock_skew","reason":"301 s behind","timestamp":1,"now":2,"tolerance":3}"#;
	let (node, server) = (Node::new(), Server::start());
	let date = |seconds: i64| {
		let now = std::time::UNIX_EPOCH + Duration::from_millis(node.clock.now().0);
		let shift = Duration::from_secs(seconds.unsigned_abs());
		httpdate::fmt_http_date(if seconds < 0 { now - shift } else { now + shift })
	};
	let dated = |code, seconds| How::Dated(code, date(seconds));
	type Count = fn(&Drained) -> u64;
	let rows: [(How, Count); 6] = [
		(How::Says(400, said.to_owned()), |drained| drained.again),
		(dated(401, 600), |drained| drained.again),
		(dated(403, -600), |drained| drained.again),
		(dated(400, 600), |drained| drained.aside),
		(dated(401, 60), |drained| drained.paused),
		(How::Says(400, "no".to_owned()), |drained| drained.aside),
	];
	for (n, (how, counts)) in rows.into_iter().enumerate() {
		let node = Node::new();
		node.owe("claimable", &format!("h{n}"));
		server.then([how]);
		let drained = node.courier(address(&server.url)).drain(HEIGHT).await.unwrap();
		assert_eq!(counts(&drained), 1, "row {n}: {drained:?}");
	}
}

/// A24: one loop sends, lets callbacks expire and compacts, until it is stopped.
#[tokio::test]
async fn a_run_does_all_there_is_to_do() {
	let (node, server) = (Node::new(), Server::start());
	let courier = node.courier(address(&server.url));
	node.owe("claimable", "h1");
	node.owe_until("late", "h2", HEIGHT);
	server.then([How::Status(503, "")]);
	let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
	let run = courier.run(|| HEIGHT, async { drop(stopped.await) });
	let watch = async {
		while node.outbox.dead_letters(9).unwrap().is_empty() {
			tokio::task::yield_now().await;
		}
		node.clock.advance(8 * 24 * 60 * MINUTE);
		let first = leyden_outbox::Sequence::new(1).unwrap();
		while node.outbox.callback(first).unwrap().is_some() {
			// Its pause may have begun just now.
			node.clock.advance(Duration::from_secs(1));
			tokio::task::yield_now().await;
		}
		stop.send(()).unwrap();
	};
	let (ran, ()) = tokio::join!(run, watch);
	ran.unwrap();
	assert!(server.got().len() >= 2);
}
