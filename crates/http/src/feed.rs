// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The feed of an outbox over HTTP: `GET ?after=EPOCH-NUMBER&limit=N`, with a token.

use std::fmt;

use base64::prelude::BASE64_STANDARD;
use base64::Engine;
use leyden_outbox::Callback;
#[cfg(feature = "client")]
use leyden_outbox::FeedPage;
use serde::{Deserialize, Serialize};

/// A page on the wire.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WirePage {
	/// As text: a JSON number has fewer digits.
	epoch: String,
	items: Vec<WireItem>,
	next: String,
	last: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireItem {
	sequence: u64,
	id: String,
	kind: String,
	endpoint: String,
	/// Hex.
	order_key: String,
	schema: u16,
	/// Base64.
	payload: String,
	#[serde(default, skip_serializing_if = "Option::is_none")]
	deadline_height: Option<u32>,
	#[serde(default, skip_serializing_if = "Option::is_none")]
	deadline_ms: Option<u64>,
	enqueued_ms: u64,
}

#[cfg(feature = "server")]
fn hex(bytes: &[u8]) -> String {
	bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl WireItem {
	#[cfg(feature = "server")]
	fn new(callback: &Callback) -> Self {
		Self {
			sequence: callback.sequence().get(),
			id: callback.id().to_string(),
			kind: callback.kind().to_owned(),
			endpoint: callback.endpoint().to_owned(),
			order_key: hex(callback.order_key()),
			schema: callback.schema(),
			payload: BASE64_STANDARD.encode(callback.payload()),
			deadline_height: callback.deadline().height,
			deadline_ms: callback.deadline().at.map(|at| at.0),
			enqueued_ms: callback.enqueued_at().0,
		}
	}

	/// `None` for what no outbox has.
	#[cfg(feature = "client")]
	fn read(self) -> Option<Callback> {
		use leyden_outbox::{CallbackId, Deadline, NewCallback, Sequence};
		use leyden_store::Timestamp;
		let id: CallbackId = self.id.parse().ok()?;
		let payload = BASE64_STANDARD.decode(self.payload).ok()?;
		let digits = self.order_key.as_bytes().chunks(2);
		let order_key: Option<Vec<u8>> = digits
			.map(|pair| {
				let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?;
				let is_hex = pair.bytes().all(|b| b.is_ascii_hexdigit());
				u8::from_str_radix(pair, 16).ok().filter(|_| is_hex)
			})
			.collect();
		let deadline =
			Deadline { height: self.deadline_height, at: self.deadline_ms.map(Timestamp) };
		let new = NewCallback::new(id, self.kind, self.endpoint, order_key?, payload).ok()?;
		let new = new.with_deadline(deadline).with_schema(self.schema);
		let sequence = Sequence::new(self.sequence)?;
		Some(Callback::received(sequence, new, Timestamp(self.enqueued_ms)))
	}
}

#[cfg(feature = "server")]
mod server {
	use super::*;
	use std::collections::HashMap;

	use axum::extract::{Query, State};
	use axum::http::{header, HeaderMap, StatusCode};
	use axum::response::{IntoResponse, Response};
	use axum::Router;
	use leyden_outbox::{FeedCursor, Outbox, OutboxError};

	use crate::token::Token;

	/// Serves an outbox to who missed something. Bind it to loopback, or put TLS in front of it: there
	/// are preimages in what it serves.
	#[derive(Clone)]
	pub struct FeedServer {
		outbox: Outbox,
		token: Token,
	}

	impl FeedServer {
		/// Serves to whoever has the token.
		pub fn new(outbox: Outbox, token: Token) -> Self {
			Self { outbox, token }
		}

		/// The service, at `/events`.
		pub fn router(&self) -> Router {
			Router::new().route("/events", axum::routing::get(serve)).with_state(self.clone())
		}

		fn answer(&self, query: &HashMap<String, String>) -> Response {
			let bad = |what: &str| {
				(StatusCode::BAD_REQUEST, format!("{what} is not what it should be"))
					.into_response()
			};
			let cursor = query.get("after").map_or(Ok(FeedCursor::default()), |text| text.parse());
			let Ok(cursor) = cursor else { return bad("after") };
			let limit = query.get("limit").map_or(Ok(100), |text| text.parse::<usize>());
			let Ok(limit) = limit else { return bad("limit") };
			let error = match self.outbox.feed(cursor, limit) {
				Ok(page) => {
					let page = WirePage {
						epoch: page.epoch.to_string(),
						items: page.items.iter().map(WireItem::new).collect(),
						next: page.next.to_string(),
						last: page.last,
					};
					return json(StatusCode::OK, &page);
				},
				Err(error) => error,
			};
			let (status, code, first) = match &error {
				OutboxError::WrongEpoch { .. } => (StatusCode::CONFLICT, "wrong_epoch", None),
				OutboxError::Ahead { .. } => (StatusCode::CONFLICT, "ahead", None),
				OutboxError::AnotherHistory { .. } => {
					(StatusCode::CONFLICT, "another_history", None)
				},
				OutboxError::TooOld { first } => (StatusCode::GONE, "too_old", Some(*first)),
				_ => (StatusCode::INTERNAL_SERVER_ERROR, "store", None),
			};
			json(status, &serde_json::json!({ "error": code, "first": first }))
		}
	}

	async fn serve(
		State(server): State<FeedServer>, Query(query): Query<HashMap<String, String>>,
		headers: HeaderMap,
	) -> Response {
		let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
		if !server.token.is_in(authorization) {
			return (StatusCode::UNAUTHORIZED, "the token is not the right one").into_response();
		}
		let answer = tokio::task::spawn_blocking(move || server.answer(&query)).await;
		answer.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
	}

	fn json(status: StatusCode, body: &impl Serialize) -> Response {
		let body = serde_json::to_vec(body).unwrap_or_default();
		(status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
	}

	impl fmt::Debug for FeedServer {
		fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
			f.debug_struct("FeedServer").field("outbox", &self.outbox).finish_non_exhaustive()
		}
	}
}
#[cfg(feature = "server")]
pub use server::FeedServer;

#[cfg(feature = "client")]
mod client {
	use super::*;
	use std::time::Duration;

	use leyden_outbox::{FeedCursor, OutboxError};

	use crate::token::Token;

	/// Largest page that is read, in bytes: the most callbacks, of the largest size, in base64.
	const MAX_PAGE_BYTES: usize = 64 << 20;

	/// Pulls the feed of an outbox.
	#[derive(Clone)]
	pub struct FeedClient {
		url: reqwest::Url,
		token: Token,
		client: reqwest::Client,
	}

	/// Why a feed was not read.
	#[derive(Debug)]
	#[non_exhaustive]
	pub enum FeedError {
		/// The source says that the cursor is not good.
		Cursor(OutboxError),
		/// There was no answer, or one that is not to be expected. Try again.
		Unavailable {
			/// The status, if there was one.
			status: Option<u16>,
		},
		/// The token is not the right one.
		Unauthorized,
		/// What came is no page of a feed.
		Malformed,
	}

	impl FeedError {
		/// Whether the same may succeed later, with nothing repaired.
		pub fn is_retriable(&self) -> bool {
			matches!(self, Self::Unavailable { .. })
		}
	}

	impl FeedClient {
		/// Pulls from a feed at `url`, which ends in `/events`.
		///
		/// # Errors
		/// The HTTP client's, for a URL that is none, or if there is no TLS here.
		pub fn new(url: &str, token: Token, timeout: Duration) -> Result<Self, FeedError> {
			let client = reqwest::Client::builder()
				.timeout(timeout)
				.redirect(reqwest::redirect::Policy::none())
				.build();
			match (reqwest::Url::parse(url), client) {
				(Ok(url), Ok(client)) => Ok(Self { url, token, client }),
				_ => Err(FeedError::Malformed),
			}
		}

		/// The page behind a cursor.
		///
		/// # Errors
		/// [`FeedError`].
		pub async fn pull(&self, cursor: FeedCursor, limit: usize) -> Result<FeedPage, FeedError> {
			let mut url = self.url.clone();
			url.query_pairs_mut()
				.append_pair("after", &cursor.to_string())
				.append_pair("limit", &limit.to_string());
			let request = self.client.get(url).header("authorization", self.token.header());
			let unavailable = |_| FeedError::Unavailable { status: None };
			let mut response = request.send().await.map_err(unavailable)?;
			let status = response.status().as_u16();
			let mut body = Vec::new();
			while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
				if body.len() + chunk.len() > MAX_PAGE_BYTES {
					return Err(FeedError::Malformed);
				}
				body.extend_from_slice(&chunk);
			}
			match status {
				200 => read_page(&body).ok_or(FeedError::Malformed),
				401 | 403 => Err(FeedError::Unauthorized),
				409 | 410 => Err(FeedError::Cursor(cursor_error(&body, cursor))),
				_ => Err(FeedError::Unavailable { status: Some(status) }),
			}
		}
	}

	/// A page that is read has as many items as it says, and each is written as it is read again.
	#[cfg(feature = "fuzz")]
	pub(crate) fn page_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
		let _ = cursor_error(bytes, FeedCursor::default());
		let Some(page) = read_page(bytes) else { return Vec::new() };
		let text = |item: &Callback| serde_json::to_vec(&WireItem::new(item)).unwrap_or_default();
		let again = |item: &Callback| {
			let read = serde_json::from_slice::<WireItem>(&text(item)).ok()?.read()?;
			Some(text(&read))
		};
		page.items.iter().map(|item| (text(item), again(item).unwrap_or_default())).collect()
	}

	fn read_page(body: &[u8]) -> Option<FeedPage> {
		let page: WirePage = serde_json::from_slice(body).ok()?;
		let items = page.items.into_iter().map(WireItem::read).collect::<Option<Vec<_>>>()?;
		let (next, epoch) = (page.next.parse().ok()?, page.epoch.parse().ok()?);
		Some(FeedPage { epoch, items, next, last: page.last })
	}

	fn cursor_error(body: &[u8], cursor: FeedCursor) -> OutboxError {
		#[derive(Deserialize)]
		struct Said {
			error: String,
			first: Option<u64>,
		}
		let said: Option<Said> = serde_json::from_slice(body).ok();
		match said.as_ref().map(|said| (&*said.error, said.first)) {
			Some(("too_old", Some(first))) => OutboxError::TooOld { first },
			Some(("ahead", _)) => OutboxError::Ahead { last: 0 },
			Some(("another_history", _)) => OutboxError::AnotherHistory { after: cursor.after },
			_ => OutboxError::WrongEpoch { ours: cursor.epoch, found: 0 },
		}
	}

	impl fmt::Display for FeedError {
		fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
			match self {
				Self::Cursor(error) => write!(f, "{error}"),
				Self::Unavailable { status: Some(status) } => {
					write!(f, "the feed answers HTTP {status}")
				},
				Self::Unavailable { status: None } => f.write_str("the feed does not answer"),
				Self::Unauthorized => f.write_str("the feed wants another token"),
				Self::Malformed => f.write_str("what came is no page of a feed"),
			}
		}
	}

	impl std::error::Error for FeedError {}

	impl fmt::Debug for FeedClient {
		fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
			f.write_str("FeedClient")
		}
	}
}
#[cfg(feature = "fuzz")]
pub(crate) use client::page_law;
#[cfg(feature = "client")]
pub use client::{FeedClient, FeedError};
