// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Takes callbacks, each once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{to_bytes, Body};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Router;
use leyden_outbox::{Applied, FeedItem};
use leyden_request::{
	Answer, AnswerKind, Effect, Outcome, Params, Request, RequestError, RequestKey, RequestState,
	Requests, Unknown,
};
use leyden_store::{Batch, Clock, Plan};

use crate::signature::{parse_timestamp, SignatureError, VerifyingKey, Webhook};
use crate::token::Token;

/// Largest body that is taken, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// A callback whose signature is good.
#[derive(Clone)]
pub struct Incoming {
	/// `webhook-id`: the same in every try.
	pub id: String,
	/// The path that it was sent to.
	pub path: String,
	/// What it says.
	pub body: Vec<u8>,
}

/// Longest text of an answer, in bytes.
pub const MAX_SAID_BYTES: usize = 1024;

/// What is to be answered, and what it changes.
pub struct Handled {
	status: StatusCode,
	said: String,
	plan: Option<Plan<()>>,
}

impl Handled {
	/// It is taken, with this change. The change, the note that it was taken, and nothing else are one
	/// commit.
	pub fn taken(plan: Plan<()>) -> Self {
		Self { status: StatusCode::OK, said: String::new(), plan: Some(plan) }
	}

	/// It is taken, and changes nothing.
	pub fn ignored() -> Self {
		Self { status: StatusCode::OK, said: String::new(), plan: None }
	}

	/// It is not taken now. The other side sees this status and comes again, or not: see what the
	/// outbox's law makes of it. Nothing is stored.
	pub fn refused(status: u16) -> Self {
		let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
		Self { status, said: String::new(), plan: None }
	}

	/// With this text in the answer, for a sender that looks for it: that it is too late, say. Up to
	/// [`MAX_SAID_BYTES`]; what is longer is left out.
	#[must_use]
	pub fn saying(mut self, said: impl Into<String>) -> Self {
		let said = said.into();
		if said.len() <= MAX_SAID_BYTES {
			self.said = said;
		}
		self
	}
}

/// What a callback is handled by. It must do nothing but give a plan: it may be asked twice.
pub type Handler = Arc<dyn Fn(&Incoming) -> Handled + Send + Sync>;

/// Takes callbacks: verified, each once, answered by what was committed. Cheap to clone.
#[derive(Clone)]
pub struct Receiver(Arc<Inner>);

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
	/// Takes callbacks of a source that are signed by one of these keys, not more than five minutes
	/// ago. Ids of other sources are other callbacks.
	///
	/// Each callback is known for as long as the sender may repeat it: `replay_for`, and longer by what
	/// `requests` remembers. So many of one source must fit into
	/// [`max_per_scope`](leyden_request::RequestOptions::max_per_scope): with more, the sender is told
	/// to come again later.
	pub fn new(
		requests: Requests, clock: Arc<dyn Clock>, source: impl Into<String>,
		keys: impl IntoIterator<Item = VerifyingKey>, replay_for: Duration, handler: Handler,
	) -> Self {
		let (source, keys, token) = (source.into(), keys.into_iter().collect(), None);
		let tolerance = Duration::from_secs(300);
		let inner = Inner { requests, clock, source, keys, token, tolerance, replay_for, handler };
		Self(Arc::new(inner))
	}

	/// As [`new`](Receiver::new), for senders that also have this token.
	#[must_use]
	pub fn with_token(self, token: Token) -> Self {
		let Inner { requests, clock, source, keys, tolerance, replay_for, handler, .. } = &*self.0;
		Self(Arc::new(Inner {
			requests: requests.clone(),
			clock: Arc::clone(clock),
			source: source.clone(),
			keys: keys.clone(),
			token: Some(token),
			tolerance: *tolerance,
			replay_for: *replay_for,
			handler: Arc::clone(handler),
		}))
	}

	/// The service, for any path.
	pub fn router(&self) -> Router {
		Router::new().fallback(axum::routing::post(take)).with_state(self.clone())
	}

	/// Takes a callback that was pulled from a feed, as if it had been pushed to `path`: the same
	/// handler, the same memory of ids. For [`Reconciler::apply`](leyden_outbox::Reconciler::apply).
	/// What the handler refuses for good will never be taken, nor will what the source has
	/// [forgotten](FeedItem::is_forgotten) and this side does not know; what it refuses for now waits.
	///
	/// # Failure Behavior and Persistence
	/// What it changes is durable when this returns; the reconciler's cursor follows in a commit of its
	/// own. Died in between, the callback is pulled again and known.
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

	/// Whether a callback was taken.
	fn knows(&self, id: &str) -> Result<bool, RequestError> {
		let key = RequestKey::new(self.0.source.as_bytes(), "callback", id.as_bytes())?;
		let info = self.0.requests.info(&key)?;
		Ok(info.is_some_and(|info| {
			matches!(info.state, RequestState::Answered { .. } | RequestState::Remembered)
		}))
	}

	/// Handles a callback, or gives the answer that it got.
	fn handle(&self, incoming: &Incoming) -> (StatusCode, String) {
		let plain = |status| (status, String::new());
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

	fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<String, SignatureError> {
		let text = |name: &'static str| {
			let value = headers.get(name).and_then(|value| value.to_str().ok());
			value.ok_or(SignatureError::Malformed { header: name })
		};
		let id = text("webhook-id")?;
		let timestamp = parse_timestamp(text("webhook-timestamp")?)?;
		let webhook = Webhook { id, timestamp };
		let now = self.0.clock.now();
		webhook.verify(body, text("webhook-signature")?, &self.0.keys, now, self.0.tolerance)?;
		Ok(id.to_owned())
	}
}

async fn take(State(receiver): State<Receiver>, request: HttpRequest<Body>) -> Response {
	let (parts, body) = request.into_parts();
	let authorization = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
	if receiver.0.token.as_ref().is_some_and(|token| !token.is_in(authorization)) {
		return (StatusCode::UNAUTHORIZED, "the token is not the right one").into_response();
	}
	let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
		return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large").into_response();
	};
	let id = match receiver.verify(&parts.headers, &body) {
		Ok(id) => id,
		Err(error @ SignatureError::Malformed { .. }) => {
			return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
		},
		Err(error) => return (StatusCode::UNAUTHORIZED, error.to_string()).into_response(),
	};
	let incoming = Incoming { id, path: parts.uri.path().to_owned(), body: body.to_vec() };
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

	/// All that it does is in the commit with the answer, and there is no answer.
	fn recover(&mut self, _: &RequestKey) -> Result<Option<Outcome>, Unknown> {
		Ok(None)
	}
}

fn fingerprint(incoming: &Incoming) -> Option<Params> {
	let params = Params::new(1).text("path", &incoming.path).ok()?;
	// Pieces, since a field has a limit.
	let mut pieces = incoming.body.chunks(leyden_request::MAX_FIELD_BYTES).enumerate();
	pieces.try_fold(params, |params, (n, piece)| params.bytes(&format!("body{n}"), piece).ok())
}

/// The status, and what is said with it.
fn read_answer(answer: &Answer) -> (StatusCode, String) {
	let (status, said) = answer.bytes().split_first_chunk().unwrap_or((&[0; 2], &[]));
	let status = StatusCode::from_u16(u16::from_be_bytes(*status));
	let said = String::from_utf8_lossy(said).into_owned();
	(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), said)
}

/// Without what it says.
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
