//! A feed over HTTP: whom the client calls and believes, and how much a page is.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::time::Duration;

use leyden_http::{Address, FeedClient, FeedError, FeedServer, MAX_FEED_PAGE_BYTES};
use leyden_outbox::{CallbackId, FeedCursor, NewCallback, MAX_PAYLOAD_BYTES};
use rig::*;

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_feed_in_a_private_network_is_not_called_unless_it_is_allowed() {
	let server = Server::start();
	let by_name = server.url.replace("127.0.0.1", "localhost");
	for url in [&server.url, &by_name] {
		let client = FeedClient::new(Address::plain(url).unwrap(), PATIENCE).unwrap();
		let error = client.pull(FeedCursor::default(), 1).await.unwrap_err();
		assert!(matches!(error, FeedError::Forbidden), "{url}: {error}");
		assert!(!error.is_retriable());
	}
	assert_eq!(server.connections(), 0);
	let allowed = Address::plain(&by_name).unwrap().allowing("127.0.0.1, ::1".parse().unwrap());
	let client = FeedClient::new(allowed, PATIENCE).unwrap();
	// The call is made; what comes back is no page.
	let error = client.pull(FeedCursor::default(), 1).await.unwrap_err();
	assert!(matches!(error, FeedError::Malformed), "{error}");
	assert_eq!(server.got()[0].path, "/lsp?after=0-0&limit=1");
}

#[tokio::test]
async fn the_feed_client_follows_no_redirect() {
	let server = Server::start();
	server.then([How::Status(302, "location: /elsewhere\r\n")]);
	let error = feed(&server.url, token(), PATIENCE).pull(FeedCursor::default(), 1).await;
	assert!(matches!(error, Err(FeedError::Unavailable { status: Some(302) })), "{error:?}");
	assert_eq!(server.got().len(), 1);
}

#[tokio::test]
async fn a_token_is_sent_where_there_is_one() {
	let server = Server::start();
	let _ = feed(&server.url, token(), PATIENCE).pull(FeedCursor::default(), 1).await;
	let without = FeedClient::new(address(&server.url), PATIENCE).unwrap();
	let _ = without.pull(FeedCursor::default(), 1).await;
	let got = server.got();
	assert_eq!(got[0].header("authorization"), Some("Bearer sesame"));
	assert_eq!(got[1].header("authorization"), None);
}

/// A page holds as many callbacks as fit, and at least one; the next page goes on behind it.
#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_nothing_is_left_out() {
	let node = Node::new();
	for number in 0..40_u32 {
		let about = number.to_be_bytes();
		let id = CallbackId::new("large", &about, 0);
		// Large ones, and small ones between them.
		let bytes = if number % 2 == 0 { MAX_PAYLOAD_BYTES } else { 10 };
		let new = NewCallback::new(id, "large", "lsp", about, vec![7; bytes]).unwrap();
		node.outbox.enqueue(new).unwrap().commit(&*node.store).wait().unwrap();
	}
	let url = serve(FeedServer::new(node.outbox.clone(), token()).router()).await + "/events";
	let get = |cursor: FeedCursor, limit: usize| {
		let request = reqwest::Client::new().get(format!("{url}?after={cursor}&limit={limit}"));
		let request = request.header("authorization", "Bearer sesame");
		async move { request.send().await.unwrap().bytes().await.unwrap().len() }
	};
	let client = feed(&url, token(), PATIENCE);
	for limit in [500, 7, 1] {
		let (mut cursor, mut seen) = (FeedCursor::default(), Vec::new());
		loop {
			let bytes = get(cursor, limit).await;
			assert!(bytes <= MAX_FEED_PAGE_BYTES, "{bytes} bytes behind {cursor}");
			let page = client.pull(cursor, limit).await.unwrap();
			assert!(page.items.len() <= limit && page.last == 40);
			if page.items.is_empty() {
				break;
			}
			seen.extend(page.items.iter().map(|item| item.sequence().get()));
			cursor = page.next;
		}
		assert_eq!(seen, (1..=40).collect::<Vec<_>>(), "{limit}");
	}
}
