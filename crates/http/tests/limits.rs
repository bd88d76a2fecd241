//! Limits of a server: no client keeps it busy for long, or keeps others out. Time passes only where a test
//! waits for a connection to be closed.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{mpsc, Arc, Mutex};
use std::task::{ready, Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body::Frame;
use leyden_http::{FeedServer, Handled, Receiver, ServerOptions};
use leyden_outbox::{CallbackId, NewCallback, MAX_PAYLOAD_BYTES};
use leyden_request::Requests;
use leyden_store::{Clock, ManualClock};
use rig::lsp::*;
use rig::pipes::*;
use rig::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{advance, interval, interval_at, timeout, Instant, Interval};

/// Bytes that a connection with a slow reader holds.
const PIPE: usize = 8 * 1024;
const SECOND: Duration = Duration::from_secs(1);
const FEED: &str = "GET /events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sesame\r\n";

fn options() -> ServerOptions {
	ServerOptions {
		header_time: Duration::from_secs(10),
		body_time: Duration::from_secs(20),
		answer_time: Duration::from_secs(40),
		..ServerOptions::default()
	}
}

/// A feed of large callbacks, each of which is much more than what a connection holds.
fn large_feed(callbacks: u32) -> axum::Router {
	let node = Node::new();
	for number in 0..callbacks {
		let about = number.to_be_bytes();
		let id = CallbackId::new("large", &about, 0);
		let new = NewCallback::new(id, "large", "lsp", about, vec![7; MAX_PAYLOAD_BYTES]).unwrap();
		node.outbox.enqueue(new).unwrap().commit(&*node.store).wait().unwrap();
	}
	FeedServer::new(node.outbox.clone(), token()).router()
}

/// A service whose answer has no end. So many pieces of it are there at once, and then one after each pause.
fn endless(pieces: usize, pause: Duration) -> axum::Router {
	struct Pieces(usize, Interval);
	impl http_body::Body for Pieces {
		type Data = Bytes;
		type Error = Infallible;
		fn poll_frame(
			mut self: Pin<&mut Self>, context: &mut Context<'_>,
		) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
			match self.0.checked_sub(1) {
				Some(left) => self.0 = left,
				None => drop(ready!(self.1.poll_tick(context))),
			}
			Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 1024])))))
		}
	}
	axum::Router::new().fallback(move || async move {
		let pauses = interval_at(Instant::now() + pause, pause);
		Response::new(Body::new(Pieces(pieces, pauses)))
	})
}

/// A receiver whose sender must wait as long as the test likes.
fn slow_receiver(handler: impl Fn() + Send + Sync + 'static) -> axum::Router {
	let node = Node::new();
	let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&node.clock);
	let requests =
		Requests::open(Arc::clone(&node.store), Arc::clone(&clock), Receiver::request_options());
	let handler = Arc::new(move |_: &leyden_http::Incoming| {
		handler();
		Handled::ignored()
	});
	Receiver::new(requests.unwrap(), clock, "node", [key()], DAY, handler).router()
}

fn good(id: &str) -> String {
	signed(id, "/claimable", 1_700_000_000, b"{}") + "connection: close\r\n\r\n{}"
}

#[tokio::test(start_paused = true)]
async fn headers_that_do_not_come_end_a_connection() {
	let pipes = Pipes::serve(slow_receiver(|| ()), options());
	for begun in ["", "POST / HT", "POST / HTTP/1.1\r\nhost: x\r\nwebhook-id: a\r\n"] {
		let begin = Instant::now();
		assert_eq!(rest(pipes.begin(begun).await).await, "", "{begun}");
		assert!(begin.elapsed() < options().header_time * 2, "{begun}");
	}
	// A header now and then is no reason to wait any longer.
	let mut connection = pipes.begin("POST / HTTP/1.1\r\n").await;
	let mut every_second = interval(SECOND);
	let sends = async {
		while connection.write_all(b"a: b\r\n").await.is_ok() {
			every_second.tick().await;
		}
	};
	timeout(options().header_time * 2, sends).await.expect("the connection ends");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
	let pipes = Pipes::serve(slow_receiver(|| ()), options());
	let connection = pipes.begin(&good("a").replace("connection: close\r\n", "")).await;
	let begin = Instant::now();
	let answer = answer(connection).await;
	assert_eq!((answer.status, answer.headers.get("connection")), (200, None));
	assert!(begin.elapsed() < options().header_time * 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408() {
	let pipes = Pipes::serve(slow_receiver(|| ()), options());
	for begun in [
		"content-length: 9\r\n\r\n{",
		"transfer-encoding: chunked\r\n\r\n",
		"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
	] {
		let head = signed("a", "/", 1_700_000_000, b"{}").replace("content-length: 2\r\n", "");
		let begin = Instant::now();
		let answer = pipes.ask(&format!("{head}{begun}")).await;
		assert_eq!((answer.status, &*answer.headers["connection"]), (408, "close"), "{begun}");
		assert!(begin.elapsed() < options().body_time * 2);
	}
}

/// The time of an answer ends it, whether it is one piece or many, and whether its reader reads nothing or a
/// little now and then.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_ends_its_connection() {
	let time = options().answer_time;
	for router in [large_feed(10), endless(usize::MAX, DAY)] {
		let pipes = Pipes::serve(router, options());
		// A reader that stops after the first byte is left with what was under way: a full pipe, and the
		// write that waited for room in it.
		let mut connection = pipes.connect(PIPE);
		connection.write_all(format!("{FEED}\r\n").as_bytes()).await.unwrap();
		connection.read_u8().await.unwrap();
		advance(time).await;
		let left = rest(connection).await.len();
		assert!(left <= 2 * PIPE, "{left}");

		let mut connection = pipes.connect(PIPE);
		connection.write_all(format!("{FEED}\r\n").as_bytes()).await.unwrap();
		let (begin, mut every_second) = (Instant::now(), interval(SECOND));
		let (mut piece, mut read) = ([0; 3 * 1024], 0);
		let reads = async {
			while let Ok(bytes @ 1..) = connection.read(&mut piece).await {
				read += bytes;
				every_second.tick().await;
			}
		};
		timeout(time * 2, reads).await.expect("the connection ends");
		assert!(begin.elapsed() >= time && read > 64 * 1024, "{read} bytes, {:?}", begin.elapsed());
	}
	// Who reads is given all of it.
	let pipes = Pipes::serve(large_feed(10), options());
	let answer = pipes.ask(&format!("{FEED}connection: close\r\n\r\n")).await;
	assert_eq!(answer.body.len().to_string(), answer.headers["content-length"]);
	assert!(answer.body.len() > 100 * 1024);
}

/// The time of an answer does not begin anew with each piece, also if its reader is fast and its service is
/// not.
#[tokio::test(start_paused = true)]
async fn an_answer_without_end_ends_its_connection() {
	for (pieces, pause) in [(0, DAY), (1, DAY), (1_000, DAY), (0, SECOND), (1_000, SECOND)] {
		let pipes = Pipes::serve(endless(pieces, pause), options());
		let begin = Instant::now();
		let read = rest(pipes.begin(&format!("{FEED}\r\n")).await).await;
		let seen = format!("{pieces} pieces, {} bytes, {:?}", read.len(), begin.elapsed());
		assert!(read.len() > pieces * 1024, "{seen}");
		assert!(begin.elapsed() < options().answer_time * 2, "{seen}");
	}
}

/// A connection that is kept has the whole time for each of its answers.
#[tokio::test(start_paused = true)]
async fn every_answer_has_its_own_time() {
	let pipes = Pipes::serve(axum::Router::new().fallback(|| async { "~" }), options());
	let (begin, mut connection) = (Instant::now(), pipes.connect(PIPE));
	while begin.elapsed() < options().answer_time * 2 {
		connection.write_all(format!("{FEED}\r\n").as_bytes()).await.unwrap();
		while connection.read_u8().await.unwrap() != b'~' {}
		advance(options().header_time / 2).await;
	}
}

/// Connections that were begun and go no further, far more than there are places for: the next one is
/// answered at once, and all of them end.
#[tokio::test(start_paused = true)]
async fn nine_hundred_slow_connections_keep_nobody_out() {
	let body = signed("a", "/", 1_700_000_000, b"{}") + "\r\n{";
	let reads_nothing = format!("{FEED}\r\n");
	for slow in ["", "POST /claimable HTTP/1.1\r\nhost: x\r\n", &body, &reads_nothing] {
		let router = slow_receiver(|| ()).merge(large_feed(1));
		let pipes = Pipes::serve(router, options());
		let begin = Instant::now();
		let mut connections = Vec::new();
		for _ in 0..900 {
			let mut connection = pipes.connect(2 * 1024);
			connection.write_all(slow.as_bytes()).await.unwrap();
			connections.push(connection);
		}
		assert_eq!(pipes.ask(&good("a")).await.status, 200, "{slow}");
		assert_eq!(begin.elapsed(), Duration::ZERO, "{slow}");
		for connection in connections {
			rest(connection).await;
		}
		assert!(begin.elapsed() < options().answer_time * 2, "{slow}");
	}
}

/// A request that is being carried out is not cut off for a new connection, which waits for its place.
#[tokio::test(start_paused = true)]
async fn who_is_being_served_does_not_give_way() {
	let (begun, has_begun) = mpsc::channel();
	let (go_on, may_go_on) = mpsc::channel();
	let may_go_on = Mutex::new(may_go_on);
	let handler = move || {
		begun.send(()).unwrap();
		may_go_on.lock().unwrap().recv().unwrap();
	};
	let options = ServerOptions { max_connections: 1, ..options() };
	let begin = Instant::now();
	let pipes = Arc::new(Pipes::serve(slow_receiver(handler), options));
	// Without `connection: close`: the place is kept when it is answered, and given up for the second.
	let mut first = pipes.begin(&good("a").replace("connection: close\r\n", "")).await;
	let has_begun = tokio::task::spawn_blocking(move || has_begun.recv().map(|()| has_begun));
	let _has_begun = has_begun.await.unwrap().unwrap();
	let second = tokio::spawn({
		let pipes = Arc::clone(&pipes);
		async move { pipes.ask(&good("b")).await.status }
	});
	for _ in 0..100 {
		tokio::task::yield_now().await;
	}
	assert!(!second.is_finished());
	go_on.send(()).unwrap();
	let mut status = [0; 12];
	first.read_exact(&mut status).await.unwrap();
	assert_eq!(&status, b"HTTP/1.1 200");
	go_on.send(()).unwrap();
	assert_eq!(second.await.unwrap(), 200);
	assert_eq!(begin.elapsed(), Duration::ZERO);
}
