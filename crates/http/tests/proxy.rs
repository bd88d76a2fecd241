//! A proxy that the environment names. The only test of its program, since it changes the environment.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::time::Duration;

use leyden_outbox::FeedCursor;
use rig::*;

/// A proxy would look names up itself, past the guard of addresses.
#[tokio::test]
async fn the_proxy_of_the_environment_is_not_used() {
	let (proxy, server, node) = (Server::start(), Server::start(), Node::new());
	for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
	{
		std::env::set_var(name, &proxy.url);
	}
	// The environment is one that clients look into.
	let careless = reqwest::Client::new().get("http://192.0.2.1/").send().await;
	assert_eq!((careless.is_ok(), proxy.connections()), (true, 1));

	let _ = feed(&server.url, token(), Duration::from_secs(5)).pull(FeedCursor::default(), 1).await;
	assert_eq!((server.got().len(), proxy.connections()), (1, 1));
	node.owe("claimable", "h1");
	assert_eq!(node.courier(address(&server.url)).drain(HEIGHT).await.unwrap().done, 1);
	assert_eq!((server.got().len(), proxy.connections()), (2, 1));
}
