// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Pulls the feed of an outbox over HTTP.

use std::fmt;
use std::time::Duration;

#[cfg(feature = "fuzz")]
use leyden_outbox::Callback;
use leyden_outbox::{FeedCursor, FeedPage, OutboxError};
use serde::Deserialize;

use crate::address::Address;
use crate::feed::{WireItem, WirePage};
use crate::guard::is_not_allowed;

/// Largest page that is read, in bytes: the most callbacks, of the largest size, in base64.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// Client of the feed of an outbox. It calls its address as a [`Courier`](crate::Courier) does.
#[derive(Clone)]
pub struct FeedClient {
	address: Address,
	client: reqwest::Client,
}

/// Reason that a feed was not read.
#[derive(Debug)]
#[non_exhaustive]
pub enum FeedError {
	/// The source says that the cursor is not good.
	Cursor(OutboxError),
	/// The feed gave no answer, or an unexpected one. Try again.
	Unavailable {
		/// The status of the answer, if there was one.
		status: Option<u16>,
	},
	/// The token is missing, or not the right one.
	Unauthorized,
	/// The feed is at a private address, which is not [allowed](Address::allowing).
	Forbidden,
	/// The answer is no page of a feed.
	Malformed,
}

impl FeedError {
	/// Returns whether the same call may succeed later, with nothing repaired.
	pub fn is_retriable(&self) -> bool {
		matches!(self, Self::Unavailable { .. })
	}
}

impl FeedClient {
	/// Returns a client of the feed at this address, whose URL ends in `/events`, with the address's token.
	/// Secrets for signing and paths for kinds of callbacks are not used. A page that takes longer than
	/// `timeout`, from the first byte to the last, is not taken.
	///
	/// # Errors
	/// The HTTP client's, if there is no TLS here.
	pub fn new(address: Address, timeout: Duration) -> Result<Self, reqwest::Error> {
		let client = address.client(timeout)?;
		Ok(Self { address, client })
	}

	/// Pulls the page behind a cursor.
	///
	/// # Errors
	/// [`FeedError`]: [`Cursor`](FeedError::Cursor) for what the source says of the cursor,
	/// [`Unavailable`](FeedError::Unavailable) for no answer or an unexpected one,
	/// [`Unauthorized`](FeedError::Unauthorized), [`Forbidden`](FeedError::Forbidden), and
	/// [`Malformed`](FeedError::Malformed) for an answer that is no page.
	pub async fn pull(&self, cursor: FeedCursor, limit: usize) -> Result<FeedPage, FeedError> {
		if self.address.is_forbidden() {
			return Err(FeedError::Forbidden);
		}
		let unavailable = |error: reqwest::Error| match is_not_allowed(&error) {
			true => FeedError::Forbidden,
			false => FeedError::Unavailable { status: None },
		};
		let mut response = self.request(cursor, limit).send().await.map_err(unavailable)?;
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

	fn request(&self, cursor: FeedCursor, limit: usize) -> reqwest::RequestBuilder {
		let mut url = self.address.base().clone();
		url.query_pairs_mut()
			.append_pair("after", &cursor.to_string())
			.append_pair("limit", &limit.to_string());
		self.address.authorized(self.client.get(url))
	}
}

/// Returns each item of a page as it is written, and as it is written after it was read again.
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
			Self::Forbidden => f.write_str("the feed is at a private address, not allowed"),
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

#[cfg(test)]
mod tests {
	use super::*;
	use crate::token::Token;

	/// An HTTP client or a layer around it may log a request with its headers.
	#[test]
	fn a_request_does_not_show_its_token() {
		let address = Address::new("https://h/events").unwrap();
		let address = address.with_token(Token::new("sesame").unwrap());
		let client = FeedClient::new(address, Duration::from_secs(1)).unwrap();
		let request = client.request(FeedCursor::default(), 1);
		let shown = format!("{request:?}");
		assert!(shown.contains("authorization") && !shown.contains("sesame"), "{shown}");
		let request = request.build().unwrap();
		assert!(request.headers()["authorization"].is_sensitive());
		assert_eq!(request.headers()["authorization"], "Bearer sesame");
	}
}
