// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Serves the feed of an outbox over HTTP.

use std::collections::HashMap;
use std::fmt;

use axum::extract::{Query, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Router;
use leyden_outbox::{FeedCursor, Outbox, OutboxError, MAX_FEED_ITEMS};
use serde::Serialize;

use crate::feed::{WireItem, WirePage};
use crate::token::Token;

/// Most of a page of a feed that is served, in bytes. A page ends early rather than being larger; a single
/// callback is always smaller.
pub const MAX_FEED_PAGE_BYTES: usize = 256 * 1024;

/// Most callbacks that are read from the outbox at once: no more than a page holds of the largest.
const PIECE_ITEMS: usize = 8;

/// Most of a page around its callbacks, in bytes: names, an epoch, a cursor and a number.
const PAGE_FRAME_BYTES: usize = 256;

/// Server of the feed of an outbox, for receivers that missed callbacks. Bind it to loopback, or put TLS in
/// front of it: there are preimages in what it serves.
#[derive(Clone)]
pub struct FeedServer {
	outbox: Outbox,
	token: Token,
}

impl FeedServer {
	/// Returns a server for clients that have the token.
	pub fn new(outbox: Outbox, token: Token) -> Self {
		Self { outbox, token }
	}

	/// Returns the service, at `/events`.
	pub fn router(&self) -> Router {
		Router::new().route("/events", axum::routing::get(serve)).with_state(self.clone())
	}

	/// Reads a page in pieces, up to the limit of bytes.
	fn page(&self, cursor: FeedCursor, limit: usize) -> Result<WirePage, OutboxError> {
		let limit = limit.clamp(1, MAX_FEED_ITEMS);
		let mut piece = self.outbox.feed(cursor, limit.min(PIECE_ITEMS))?;
		let (mut items, mut bytes) = (Vec::new(), PAGE_FRAME_BYTES);
		let mut next = piece.next;
		loop {
			for callback in &piece.items {
				let item = WireItem::new(callback);
				bytes += item.max_bytes();
				if bytes > MAX_FEED_PAGE_BYTES && !items.is_empty() {
					return Ok(Self::wire(piece.epoch, items, next, piece.last));
				}
				next = FeedCursor::behind(piece.epoch, callback);
				items.push(item);
			}
			let room = limit - items.len();
			if piece.items.is_empty() || next.after >= piece.last || room == 0 {
				return Ok(Self::wire(piece.epoch, items, next, piece.last));
			}
			piece = match self.outbox.feed(piece.next, room.min(PIECE_ITEMS)) {
				Ok(piece) => piece,
				// What is behind the page is told of when it is asked for.
				Err(_) => return Ok(Self::wire(piece.epoch, items, next, piece.last)),
			};
		}
	}

	fn wire(epoch: u64, items: Vec<WireItem>, next: FeedCursor, last: u64) -> WirePage {
		WirePage { epoch: epoch.to_string(), items, next: next.to_string(), last }
	}

	fn answer(&self, query: &HashMap<String, String>) -> Response {
		let bad = |what: &str| {
			(StatusCode::BAD_REQUEST, format!("{what} is not what it should be")).into_response()
		};
		let cursor = query.get("after").map_or(Ok(FeedCursor::default()), |text| text.parse());
		let Ok(cursor) = cursor else { return bad("after") };
		let limit = query.get("limit").map_or(Ok(100), |text| text.parse::<usize>());
		let Ok(limit) = limit else { return bad("limit") };
		let error = match self.page(cursor, limit) {
			Ok(page) => return json(StatusCode::OK, &page),
			Err(error) => error,
		};
		let (status, code, first) = match &error {
			OutboxError::WrongEpoch { .. } => (StatusCode::CONFLICT, "wrong_epoch", None),
			OutboxError::Ahead { .. } => (StatusCode::CONFLICT, "ahead", None),
			OutboxError::AnotherHistory { .. } => (StatusCode::CONFLICT, "another_history", None),
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
