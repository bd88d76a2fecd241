// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Callbacks and requests on SQLite: against the same requests sent by plain `reqwest`, with a backlog,
//! and what a replay costs.

#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use leyden_backends::sqlite::SqliteStore;
use leyden_bench::{is_test, ratios};
use leyden_http::{Address, Courier, CourierOptions, SigningSecret};
use leyden_outbox::{
	BreakerOptions, CallbackId, EndpointOptions, Enqueued, NewCallback, Outbox, OutboxOptions,
	TryOutcome, Verdict,
};
use leyden_request::{
	Answer, AnswerKind, Effect, Outcome, Params, Request, RequestKey, RequestOptions, Requests,
	Unknown,
};
use leyden_store::{Clock, Namespace, Store, SystemClock};
use tokio::runtime::Runtime;

/// Requests on their way at once.
const AT_ONCE: usize = 32;
const BODY_BYTES: usize = 200;
const HEIGHT: u32 = 800_000;

fn main() {
	let dir = tempfile::tempdir().expect("a directory");
	let runtime = Runtime::new().expect("a runtime");
	let (rounds, count, many) = if is_test() { (1, 20, 100) } else { (5, 10_000, 1_000_000) };

	println!("{count} callbacks of {BODY_BYTES} bytes over HTTP on loopback, {AT_ONCE} at once");
	let mut round = 0;
	for (takes, target) in [(0, ""), (1, ""), (5, "at most 1.5x")] {
		let url = runtime.block_on(serve(Duration::from_millis(takes)));
		let mut plain = || runtime.block_on(send_plain(&url, count));
		let mut with_outbox = || {
			round += 1;
			let outbox = Node::open(&dir.path().join(format!("round-{round}")));
			outbox.fill(0, count);
			let begun = Instant::now();
			let courier = outbox.courier(&url);
			let drained = runtime.block_on(courier.drain(HEIGHT)).expect("the outbox");
			assert_eq!(drained.done, count);
			count as f64 / begun.elapsed().as_secs_f64()
		};
		let ratio = ratios(rounds, &mut plain, &mut with_outbox);
		let what = format!("wall time: outbox, durable / plain reqwest; {takes} ms each");
		ratio.print(&what, target);
	}

	let (few, full) = (Node::open(&dir.path().join("few")), Node::open(&dir.path().join("many")));
	few.fill(0, 10_000.min(many));
	full.fill(0, many);
	let each = if is_test() { 5 } else { 500 };
	let ratio = ratios(rounds, &mut || few.claim(each), &mut || full.claim(each));
	ratio.print(&format!("claim and settle: {many} waiting / 10,000 waiting"), "flat");

	let store: Arc<dyn Store> =
		Arc::new(SqliteStore::open(dir.path().join("r"), Namespace::default()).expect("opens"));
	let clock: Arc<dyn Clock> = Arc::new(SystemClock);
	let requests = Requests::open(store, clock, RequestOptions::default()).expect("opens");
	let ask = |number: u64| {
		let key = RequestKey::new(*b"peer", "bench", number.to_be_bytes()).expect("a key");
		let params = |_: Option<u16>| Params::new(1).number("n", number).ok();
		let request = Request { key: &key, params: &params, replay_for: Duration::from_secs(3600) };
		requests.handle(&request, &mut Answers).expect("an answer");
	};
	let mut next = 0;
	ask(u64::MAX);
	let ratio = ratios(
		rounds,
		&mut || {
			per_second(each, || {
				next += 1;
				ask(next);
			})
		},
		&mut || per_second(each, || ask(u64::MAX)),
	);
	ratio.print("requests: a first time (two commits) / a replay (one read)", "");
}

struct Node {
	outbox: Outbox,
	clock: Arc<dyn Clock>,
}

impl Node {
	fn open(path: &Path) -> Self {
		let store: Arc<dyn Store> =
			Arc::new(SqliteStore::open(path, Namespace::default()).expect("opens"));
		let clock: Arc<dyn Clock> = Arc::new(SystemClock);
		let outbox = Outbox::open(store, Arc::clone(&clock), OutboxOptions::default());
		let outbox = outbox.expect("opens");
		let breaker = BreakerOptions::default();
		let options = EndpointOptions { max_in_flight: AT_ONCE, breaker, ..Default::default() };
		outbox.add_endpoint("lsp", options).expect("an endpoint");
		Self { outbox, clock }
	}

	fn fill(&self, first: u64, count: u64) {
		let mut tickets = Vec::new();
		for number in first..first + count {
			let id = CallbackId::new("k", &number.to_be_bytes(), 0);
			let body = vec![b'x'; BODY_BYTES];
			let new = NewCallback::new(id, "k", "lsp", number.to_be_bytes(), body).expect("fits");
			let plan = self.outbox.enqueue(new).expect("known");
			tickets.push(plan.commit(&**self.outbox.store()));
			if tickets.len() == 1000 {
				for ticket in tickets.drain(..) {
					let _: Enqueued = ticket.wait().expect("the store");
				}
			}
		}
		for ticket in tickets {
			let _: Enqueued = ticket.wait().expect("the store");
		}
	}

	fn courier(&self, url: &str) -> Courier {
		let address = Address::plain(url)
			.expect("a URL")
			.allowing("127.0.0.1".parse().expect("an address"))
			.signed([secret()]);
		let endpoints = [("lsp".to_owned(), address)];
		let (outbox, clock) = (self.outbox.clone(), Arc::clone(&self.clock));
		Courier::new(outbox, clock, CourierOptions::default(), endpoints).expect("TLS")
	}

	fn claim(&self, each: u64) -> f64 {
		per_second(each, || {
			let claim = self.outbox.claim(HEIGHT).expect("the store").expect("a callback");
			claim.settle(Verdict::Done, TryOutcome::Taken, "").expect("the store");
		})
	}
}

struct Answers;

impl Effect for Answers {
	fn run(&mut self, _: &RequestKey) -> Result<Outcome, Unknown> {
		Ok(Outcome::new(Answer::new(AnswerKind::Ok, vec![b'x'; BODY_BYTES])))
	}

	fn recover(&mut self, _: &RequestKey) -> Result<Option<Outcome>, Unknown> {
		Ok(None)
	}
}

fn secret() -> SigningSecret {
	SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret")
}

/// A receiver that takes so long for each: what it would need to make it durable itself.
async fn serve(takes: Duration) -> String {
	let service = axum::Router::new().fallback(move |body: axum::body::Bytes| async move {
		if !takes.is_zero() {
			tokio::time::sleep(takes).await;
		}
		if body.len() == BODY_BYTES {
			StatusCode::OK
		} else {
			StatusCode::BAD_REQUEST
		}
	});
	let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
	let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
	tokio::spawn(async move { axum::serve(listener, service).await });
	url
}

/// The same requests, by tasks that take the next number.
async fn send_plain(url: &str, count: u64) -> f64 {
	let client = reqwest::Client::new();
	let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
	let begun = Instant::now();
	let tasks: Vec<_> = (0..AT_ONCE)
		.map(|_| {
			let (client, next, url) = (client.clone(), Arc::clone(&next), url.to_owned());
			tokio::spawn(async move {
				while next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < count {
					let body = vec![b'x'; BODY_BYTES];
					let response = client.post(&url).body(body).send().await.expect("an answer");
					assert!(response.status().is_success());
				}
			})
		})
		.collect();
	for task in tasks {
		task.await.expect("it runs");
	}
	count as f64 / begun.elapsed().as_secs_f64()
}

fn per_second(count: u64, mut f: impl FnMut()) -> f64 {
	let begun = Instant::now();
	(0..count).for_each(|_| f());
	count as f64 / begun.elapsed().as_secs_f64()
}
