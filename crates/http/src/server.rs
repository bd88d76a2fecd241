// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A server with limits, for callbacks and feeds.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{header, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use axum::Router;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::places::{Place, Places};
use crate::timed::Timed;

/// Longest request target that hyper reads before it answers 414 by itself, in bytes.
const MAX_READ_PATH_BYTES: usize = 64 * 1024;

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
	/// Most connections at once. 256 unless set otherwise; 0 is taken as 1. When all places are taken, the
	/// connection that has waited longest for its peer (for a request, for a body, or for an answer to be
	/// read) is closed for a new one. A connection whose request is being carried out is not closed.
	pub max_connections: usize,
	/// Most headers of a request. 64 unless set otherwise; with more, the answer is 431.
	pub max_headers: usize,
	/// Most bytes of a request's headers together, names and values. 16 KiB unless set otherwise; with
	/// more, the answer is 431.
	pub max_header_bytes: usize,
	/// Longest path of a request with its query, in bytes. 8 KiB unless set otherwise; if it is longer,
	/// the answer is 414. A path that is longer than `max_header_bytes` and 64 KiB together is answered 431.
	pub max_path_bytes: usize,
	/// Longest time until the headers of a connection's first request, or of its next one, have come. 30
	/// seconds unless set otherwise; then the connection is closed. An idle connection is kept for so long.
	pub header_time: Duration,
	/// Longest time of a request's body, from the end of its headers. 30 seconds unless set otherwise; then
	/// the answer is 408, and the connection is closed.
	pub body_time: Duration,
	/// Longest time of an answer, from its first byte to its last, whether its reader or its service is slow.
	/// 30 seconds unless set otherwise; then the connection is closed. Answers to pipelined requests may
	/// share the time of the first of them.
	pub answer_time: Duration,
}

impl Default for ServerOptions {
	fn default() -> Self {
		let time = Duration::from_secs(30);
		Self {
			max_connections: 256,
			max_headers: 64,
			max_header_bytes: 16 * 1024,
			max_path_bytes: 8 * 1024,
			header_time: time,
			body_time: time,
			answer_time: time,
		}
	}
}

impl ServerOptions {
	fn http(&self) -> http1::Builder {
		let most_read = self.max_header_bytes.saturating_add(MAX_READ_PATH_BYTES);
		let mut http = http1::Builder::new();
		http.timer(TokioTimer::new())
			.header_read_timeout(self.header_time)
			.max_headers(self.max_headers)
			.max_header_size(most_read)
			.max_buf_size(most_read);
		http
	}

	/// Returns the answer to a request whose head is too large.
	fn refusal<B>(&self, request: &Request<B>) -> Option<Response> {
		let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
		if path > self.max_path_bytes {
			return Some((StatusCode::URI_TOO_LONG, "the path is too long").into_response());
		}
		let headers = request.headers().iter();
		let bytes: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
		let is_too_large = bytes > self.max_header_bytes;
		let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
		is_too_large.then(|| (status, "the headers are too large").into_response())
	}
}

/// Serves a receiver, a feed, or both ([`Router::merge`]) on the connections of a listener, within limits.
/// The server speaks HTTP/1.1 without TLS: bind it to loopback, or put TLS in front of it.
///
/// The future does not end. Dropped, it closes the listener and every connection; a callback that was
/// being taken is then taken or not, and its sender repeats it.
pub async fn serve<L: Listener>(mut listener: L, router: Router, options: ServerOptions) {
	let (http, places) = (options.http(), Places::new(options.max_connections));
	let router = TowerToHyperService::new(router);
	let mut connections = JoinSet::new();
	loop {
		let (io, _) = listener.accept().await;
		let place = Arc::new(places.take().await);
		// Connections that have ended are forgotten.
		while connections.try_join_next().is_some() {}
		let io = Timed::new(io, options.answer_time);
		let answering = io.answering();
		let service = Limited { router: router.clone(), place: Arc::clone(&place), options };
		let connection = http.serve_connection(
			TokioIo::new(io),
			hyper::service::service_fn(move |request| {
				let (service, answering) = (service.clone(), answering.clone());
				async move {
					let answer = service.answer(request).await;
					Ok::<_, Infallible>(answer.map(|body| answering.until_dropped(body)))
				}
			}),
		);
		connections.spawn(async move {
			tokio::select! {
				// A failure of a connection is no news for its server.
				_ = connection => {},
				() = place.gives_way() => {},
			}
		});
	}
}

/// The service of one connection.
#[derive(Clone)]
struct Limited {
	router: TowerToHyperService<Router>,
	place: Arc<Place>,
	options: ServerOptions,
}

impl Limited {
	async fn answer(&self, request: Request<Incoming>) -> Response {
		if let Some(refusal) = self.options.refusal(&request) {
			return refusal;
		}
		let (reading, read) = oneshot::channel();
		let place = Arc::clone(&self.place);
		let request = request.map(|body| Body::new(Watched::new(body, place, reading)));
		let answer = tokio::select! {
			biased;
			Ok(answer) = self.router.call(request) => answer,
			() = too_slow(read, self.options.body_time) => {
				let close = [(header::CONNECTION, "close")];
				let late = "the body did not come in time";
				(StatusCode::REQUEST_TIMEOUT, close, late).into_response()
			},
		};
		self.place.wait();
		answer
	}
}

/// Resolves if a body is not read in this time.
async fn too_slow(read: oneshot::Receiver<Infallible>, time: Duration) {
	// The sender is dropped when the body was read.
	if timeout(time, read).await.is_ok() {
		std::future::pending::<()>().await;
	}
}

/// Body of a request. When it was read, or is not wanted, its connection waits for this side.
struct Watched {
	body: Incoming,
	place: Arc<Place>,
	reading: Option<oneshot::Sender<Infallible>>,
}

impl Watched {
	fn new(body: Incoming, place: Arc<Place>, reading: oneshot::Sender<Infallible>) -> Self {
		let mut watched = Self { body, place, reading: Some(reading) };
		if watched.body.is_end_stream() {
			watched.end();
		}
		watched
	}

	fn end(&mut self) {
		if self.reading.take().is_some() {
			self.place.work();
		}
	}
}

impl http_body::Body for Watched {
	type Data = Bytes;
	type Error = hyper::Error;

	fn poll_frame(
		mut self: Pin<&mut Self>, context: &mut Context<'_>,
	) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
		let frame = Pin::new(&mut self.body).poll_frame(context);
		if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
			self.end();
		}
		frame
	}

	fn is_end_stream(&self) -> bool {
		self.body.is_end_stream()
	}

	fn size_hint(&self) -> SizeHint {
		self.body.size_hint()
	}
}

impl Drop for Watched {
	fn drop(&mut self) {
		self.end();
	}
}
