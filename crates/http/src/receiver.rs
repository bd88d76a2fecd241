// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! [`Receiver`] takes callbacks, each once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Request as HttpRequest, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Router;
use leyden_outbox::{Applied, FeedItem};
use leyden_request::{
	Answer, AnswerKind, Effect, Outcome, Params, Request, RequestError, RequestKey, RequestOptions,
	RequestState, Requests, Unknown,
};
use leyden_store::{Batch, Clock, Plan};

use crate::secret::VerifyingKey;
use crate::signature::{check_headers, parse_timestamp, SignatureError, Webhook, MAX_ID_BYTES};
use crate::token::Token;

/// Largest body that is taken, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Longest path of a callback, in bytes: that of a field of a request of `leyden-request`.
const MAX_PATH_BYTES: usize = leyden_request::MAX_FIELD_BYTES;

/// Largest difference of a timestamp and the receiver's clock, unless set otherwise.
const TOLERANCE: Duration = Duration::from_secs(300);

// An id that is taken is one that a request may have.
const _: () = assert!(MAX_ID_BYTES <= leyden_request::MAX_KEY_BYTES);

/// A callback whose signature is good.
#[derive(Clone)]
pub struct Incoming {
	/// Value of `webhook-id`: the same in every try.
	pub id: String,
	/// The path that the callback was sent to.
	pub path: String,
	/// The body of the request.
	pub body: Vec<u8>,
}

/// Longest text of an answer, in bytes.
pub const MAX_SAID_BYTES: usize = 1024;

/// Answer to a callback, and the change that the callback makes.
pub struct Handled {
	status: StatusCode,
	said: String,
	plan: Option<Plan<()>>,
}

impl Handled {
	/// Takes the callback, with this change. The change, the note that the callback was taken, and nothing
	/// else are one commit.
	pub fn taken(plan: Plan<()>) -> Self {
		Self { status: StatusCode::OK, said: String::new(), plan: Some(plan) }
	}

	/// Takes the callback, which changes nothing.
	pub fn ignored() -> Self {
		Self { status: StatusCode::OK, said: String::new(), plan: None }
	}

	/// Refuses the callback for now. The other side sees this status and comes again, or not: see what the
	/// outbox's law makes of it. Nothing is stored.
	pub fn refused(status: u16) -> Self {
		let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
		Self { status, said: String::new(), plan: None }
	}

	/// Puts this text into the answer, for a sender that looks for it: that a callback is too late, say. A
	/// text of more than [`MAX_SAID_BYTES`] is left out.
	#[must_use]
	pub fn saying(mut self, said: impl Into<String>) -> Self {
		let said = said.into();
		if said.len() <= MAX_SAID_BYTES {
			self.said = said;
		}
		self
	}
}

/// Function that handles a callback. It must do nothing but give a plan, since it may be asked twice.
pub type Handler = Arc<dyn Fn(&Incoming) -> Handled + Send + Sync>;

/// Service that takes callbacks: verified, each once, answered by what was committed. Cheap to clone.
#[derive(Clone)]
pub struct Receiver(Arc<Inner>);

#[derive(Clone)]
struct Inner {
	requests: Requests,
	clock: Arc<dyn Clock>,
	source: String,
	keys: Vec<VerifyingKey>,
	token: Option<Token>,
	tolerance: Duration,
	replay_for: Duration,
	handler: Handler,
}

impl Receiver {
	/// Returns a receiver of callbacks of a source that are signed by one of these keys, at a time that the
	/// [tolerance](Receiver::with_tolerance) allows. Ids of other sources are other callbacks.
	///
	/// Each callback is known for as long as the sender may repeat it: `replay_for`, and longer by what
	/// `requests` remembers. With more callbacks of one source than
	/// [`max_per_scope`](leyden_request::RequestOptions::max_per_scope) the sender is told to come again
	/// later, so `requests` are opened with [`request_options`](Receiver::request_options).
	pub fn new(
		requests: Requests, clock: Arc<dyn Clock>, source: impl Into<String>,
		keys: impl IntoIterator<Item = VerifyingKey>, replay_for: Duration, handler: Handler,
	) -> Self {
		let (source, keys, token) = (source.into(), keys.into_iter().collect(), None);
		let tolerance = TOLERANCE.min(replay_for / 2);
		let inner = Inner { requests, clock, source, keys, token, tolerance, replay_for, handler };
		Self(Arc::new(inner))
	}

	/// Returns the options of requests for a receiver: a source is trusted, and its callbacks are not
	/// counted. Callbacks are remembered for 30 days after `replay_for`.
	pub fn request_options() -> RequestOptions {
		RequestOptions { max_per_scope: u64::MAX, ..RequestOptions::default() }
	}

	/// Takes callbacks only from senders that also have this token.
	#[must_use]
	pub fn with_token(self, token: Token) -> Self {
		let mut inner = Arc::unwrap_or_clone(self.0);
		inner.token = Some(token);
		Self(Arc::new(inner))
	}

	/// Sets how far a callback's timestamp may be from the receiver's clock, before or after it: sending
	/// takes time, and clocks differ. Five minutes unless set otherwise, in whole seconds.
	///
	/// At most half of `replay_for` is tolerated, also if more is asked for: a callback that is signed ahead
	/// of the receiver's clock may come for twice the tolerance, and must be known for as long.
	#[must_use]
	pub fn with_tolerance(self, tolerance: Duration) -> Self {
		let mut inner = Arc::unwrap_or_clone(self.0);
		inner.tolerance = tolerance.min(inner.replay_for / 2);
		Self(Arc::new(inner))
	}

	/// Returns the service, for any path. [`serve`](crate::serve) is a server for it. Another server must
	/// limit headers, times and connections itself, and send a `Date` with every answer.
	///
	/// # Answers
	/// - 200: the callback is taken, now or earlier.
	/// - The handler's own status, for what the handler refuses.
	/// - 400: a header is missing, too long or malformed, or the body is not what HTTP says.
	/// - 400 with JSON: the signature is right, and the timestamp is outside of the tolerance. The times are
	///   in seconds, and `now` is the receiver's: `{"error": "clock_skew", "reason": "…", "timestamp": …,
	///   "now": …, "tolerance": …}`.
	/// - 401: the token or the signature is wrong.
	/// - 405: the method is not `POST`.
	/// - 413: the body has more than [`MAX_BODY_BYTES`].
	/// - 414: the path has more than 4096 bytes.
	/// - 422: the id is that of another callback.
	/// - 503: whether the callback is taken cannot be said yet.
	pub fn router(&self) -> Router {
		let limit = DefaultBodyLimit::max(MAX_BODY_BYTES);
		Router::new().fallback(axum::routing::post(take)).layer(limit).with_state(self.clone())
	}

	/// Takes a callback that was pulled from a feed, as if it had been pushed to `path`: with the same
	/// handler and the same memory of ids. For [`Reconciler::apply`](leyden_outbox::Reconciler::apply). A
	/// callback that the handler refuses for good will never be taken, nor will one that the source has
	/// [forgotten](FeedItem::is_forgotten) and this side does not know; one that is refused for now waits.
	///
	/// # Failure Behavior and Persistence
	/// The callback's change is durable when this returns; the reconciler's cursor follows in a commit of its
	/// own. If the process dies in between, the callback is pulled again and known.
	pub fn pulled(&self, item: &FeedItem, path: &str) -> Applied {
		let body = item.payload().to_vec();
		let incoming = Incoming { id: item.id().to_string(), path: path.to_owned(), body };
		if item.is_forgotten() {
			return match self.knows(&incoming.id) {
				Ok(true) => Applied::Now(Plan::of(Batch::new())),
				Ok(false) => Applied::Never,
				Err(_) => Applied::Later,
			};
		}
		let (status, _) = self.handle(&incoming);
		match status.as_u16() {
			200..=299 => Applied::Now(Plan::of(Batch::new())),
			// Early, busy, or not known yet: as the sender would see it.
			404 | 408 | 409 | 425 | 429 | 500..=599 => Applied::Later,
			_ => Applied::Never,
		}
	}

	/// Returns whether a callback was taken.
	fn knows(&self, id: &str) -> Result<bool, RequestError> {
		let key = RequestKey::new(self.0.source.as_bytes(), "callback", id.as_bytes())?;
		let info = self.0.requests.info(&key)?;
		Ok(info.is_some_and(|info| {
			matches!(info.state, RequestState::Answered { .. } | RequestState::Remembered)
		}))
	}

	/// Handles a callback, or gives the answer that it got earlier.
	fn handle(&self, incoming: &Incoming) -> (StatusCode, String) {
		let plain = |status| (status, String::new());
		if incoming.path.len() > MAX_PATH_BYTES {
			return plain(StatusCode::URI_TOO_LONG);
		}
		let Ok(key) = RequestKey::new(self.0.source.as_bytes(), "callback", incoming.id.as_bytes())
		else {
			return plain(StatusCode::BAD_REQUEST);
		};
		let params = |version: Option<u16>| {
			(version.unwrap_or(1) == 1).then(|| fingerprint(incoming)).flatten()
		};
		let request = Request { key: &key, params: &params, replay_for: self.0.replay_for };
		let mut effect = Handling { incoming, handler: &self.0.handler };
		match self.0.requests.handle(&request, &mut effect) {
			Ok(answer) => read_answer(&answer),
			// The same id says something else: it will not be better the next time.
			Err(RequestError::Conflict { .. } | RequestError::Param(_)) => {
				plain(StatusCode::UNPROCESSABLE_ENTITY)
			},
			// It was taken, long ago.
			Err(RequestError::Stale) => plain(StatusCode::OK),
			Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE),
		}
	}

	/// Returns the answer to a callback that is not handled: its signature is wrong, or its time is.
	fn refusal(&self, signed: &Signed, body: &[u8]) -> Option<Response> {
		let (keys, now, tolerance) = (&self.0.keys, self.0.clock.now(), self.0.tolerance);
		let webhook = Webhook { id: &signed.id, timestamp: signed.timestamp };
		match webhook.verify(body, &signed.signatures, keys, now, tolerance) {
			Ok(()) => None,
			Err(SignatureError::TooOld | SignatureError::TooNew) => {
				Some(clock_skew(signed.timestamp, now.0 / 1000, tolerance.as_secs()))
			},
			Err(error @ SignatureError::Malformed { .. }) => Some(malformed(&error)),
			Err(error) => Some((StatusCode::UNAUTHORIZED, error.to_string()).into_response()),
		}
	}
}

/// The headers of a callback, after a check of their forms and lengths.
struct Signed {
	id: String,
	timestamp: u64,
	signatures: String,
}

impl Signed {
	fn read(headers: &HeaderMap) -> Result<Self, SignatureError> {
		let text = |name: &'static str| {
			let value = headers.get(name).and_then(|value| value.to_str().ok());
			value.ok_or(SignatureError::Malformed { header: name })
		};
		let (id, signatures) = (text("webhook-id")?, text("webhook-signature")?);
		check_headers(id, signatures)?;
		let timestamp = parse_timestamp(text("webhook-timestamp")?)?;
		Ok(Self { id: id.to_owned(), timestamp, signatures: signatures.to_owned() })
	}
}

fn malformed(error: &SignatureError) -> Response {
	(StatusCode::BAD_REQUEST, error.to_string()).into_response()
}

/// Returns the answer to a sender whose key is right and whose clock is not that of this side. All times
/// are in seconds.
fn clock_skew(timestamp: u64, now: u64, tolerance: u64) -> Response {
	let side = if timestamp < now { "behind" } else { "ahead of" };
	let reason = format!(
		"the timestamp is {} s {side} the receiver's clock; {tolerance} s are tolerated",
		timestamp.abs_diff(now),
	);
	let said = serde_json::json!({
		"error": "clock_skew", "reason": reason,
		"timestamp": timestamp, "now": now, "tolerance": tolerance,
	});
	let json = [(header::CONTENT_TYPE, "application/json")];
	(StatusCode::BAD_REQUEST, json, said.to_string()).into_response()
}

async fn take(State(receiver): State<Receiver>, request: HttpRequest<Body>) -> Response {
	let path = request.uri().path().to_owned();
	if path.len() > MAX_PATH_BYTES {
		return (StatusCode::URI_TOO_LONG, "the path is too long").into_response();
	}
	let headers = request.headers();
	let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
	if receiver.0.token.as_ref().is_some_and(|token| !token.is_in(authorization)) {
		return (StatusCode::UNAUTHORIZED, "the token is not the right one").into_response();
	}
	let signed = match Signed::read(headers) {
		Ok(signed) => signed,
		Err(error) => return malformed(&error),
	};
	let body = match Bytes::from_request(request, &()).await {
		Ok(body) => body,
		// 413 for one that is too large, and 400 for one that is broken.
		Err(rejection) => return (rejection.status(), rejection.body_text()).into_response(),
	};
	if let Some(refusal) = receiver.refusal(&signed, &body) {
		return refusal;
	}
	let incoming = Incoming { id: signed.id, path, body: body.to_vec() };
	let handled = tokio::task::spawn_blocking(move || receiver.handle(&incoming)).await;
	handled.unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, String::new())).into_response()
}

struct Handling<'a> {
	incoming: &'a Incoming,
	handler: &'a Handler,
}

impl Effect for Handling<'_> {
	fn run(&mut self, _: &RequestKey) -> Result<Outcome, Unknown> {
		let Handled { status, said, plan } = (self.handler)(self.incoming);
		// What is refused is carried out again the next time.
		let kind = if status.is_success() { AnswerKind::Ok } else { AnswerKind::Transient };
		let bytes = [&status.as_u16().to_be_bytes()[..], said.as_bytes()].concat();
		let outcome = Outcome::new(Answer::new(kind, bytes));
		Ok(match plan {
			Some(plan) => outcome.with(plan),
			None => outcome,
		})
	}

	/// Returns no outcome: a handler's change is in the commit with the answer, and there is no answer.
	fn recover(&mut self, _: &RequestKey) -> Result<Option<Outcome>, Unknown> {
		Ok(None)
	}
}

fn fingerprint(incoming: &Incoming) -> Option<Params> {
	// Without the path: a sender may be told another one between two tries.
	let params = Params::new(1);
	// Pieces, since a field has a limit.
	let mut pieces = incoming.body.chunks(leyden_request::MAX_FIELD_BYTES).enumerate();
	pieces.try_fold(params, |params, (n, piece)| params.bytes(&format!("body{n}"), piece).ok())
}

/// Reads the status of an answer, and its text.
fn read_answer(answer: &Answer) -> (StatusCode, String) {
	let (status, said) = answer.bytes().split_first_chunk().unwrap_or((&[0; 2], &[]));
	let status = StatusCode::from_u16(u16::from_be_bytes(*status));
	let said = String::from_utf8_lossy(said).into_owned();
	(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), said)
}

/// Shows no body.
impl fmt::Debug for Incoming {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Incoming({} to {})", self.id, self.path)
	}
}

impl fmt::Debug for Handled {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_tuple("Handled").field(&self.status).finish()
	}
}

impl fmt::Debug for Receiver {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("Receiver").field("source", &self.0.source).finish_non_exhaustive()
	}
}
