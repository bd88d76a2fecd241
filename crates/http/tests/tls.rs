//! A courier and a client of a feed over TLS: whom they believe.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_http::{Address, Drained, FeedClient, FeedError};
use leyden_outbox::FeedCursor;
use rig::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Signed by itself, for 127.0.0.1, good for a hundred years.
const CERTIFICATE: &[u8] = include_bytes!("tls/cert.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

/// A server that answers 200. Answers its URL, and what was sent to it under TLS.
fn serve() -> (String, Arc<Mutex<Vec<String>>>) {
	let listener = TcpListener::bind("127.0.0.1:0").unwrap();
	let url = format!("https://{}/hook", listener.local_addr().unwrap());
	let certificates = vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()];
	let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
	let provider = Arc::new(rustls::crypto::ring::default_provider());
	let config = rustls::ServerConfig::builder_with_provider(provider)
		.with_safe_default_protocol_versions()
		.unwrap()
		.with_no_client_auth()
		.with_single_cert(certificates, key)
		.unwrap();
	let (config, got) = (Arc::new(config), Arc::<Mutex<Vec<String>>>::default());
	let heard = Arc::clone(&got);
	std::thread::spawn(move || {
		for connection in listener.incoming().flatten() {
			let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
			let mut stream = rustls::StreamOwned::new(session, connection);
			let (mut text, mut buffer) = (String::new(), [0; 4096]);
			let is_whole = |text: &str| match text.starts_with("GET") {
				true => text.ends_with("\r\n\r\n"),
				false => text.ends_with('}'),
			};
			// The whole request, or the end of who does not believe us.
			while !is_whole(&text) {
				match stream.read(&mut buffer) {
					Ok(0) | Err(_) => break,
					Ok(n) => text.push_str(&String::from_utf8_lossy(&buffer[..n])),
				}
			}
			if is_whole(&text) {
				heard.lock().unwrap().push(text);
				let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
			}
		}
	});
	(url, got)
}

fn secure(url: &str) -> Address {
	Address::new(url).unwrap().allowing("127.0.0.1".parse().unwrap()).signed([secret()])
}

/// A server that cannot prove its name is told nothing; it is no answer, so the callback stays.
#[tokio::test]
async fn only_who_is_trusted_is_told() {
	let (url, got) = serve();
	let node = Node::new();
	node.owe("payment_sent", "h1");
	let drained = node.courier(secure(&url)).drain(HEIGHT).await.unwrap();
	assert_eq!(drained, Drained { again: 1, ..Drained::default() });
	assert!(got.lock().unwrap().is_empty());
	node.clock.advance(Duration::from_secs(600));
	let trusting = secure(&url).trusting(CERTIFICATE).unwrap();
	assert_eq!(node.courier(trusting.clone()).drain(HEIGHT).await.unwrap().done, 1);
	assert!(got.lock().unwrap()[0].starts_with("POST /hook HTTP/1.1"));
	// It is trusted for its own name and no other.
	node.owe("payment_sent", "h2");
	let other = secure(&url.replace("127.0.0.1", "localhost")).trusting(CERTIFICATE).unwrap();
	let other = other.allowing("127.0.0.1,::1".parse().unwrap());
	assert_eq!(node.courier(other).drain(HEIGHT).await.unwrap().again, 1);
	assert_eq!(got.lock().unwrap().len(), 1);
}

/// A feed is at an address as a callback's endpoint is, with an authority of one's own if need be.
#[tokio::test]
async fn a_feed_is_pulled_only_from_who_is_trusted() {
	let (url, got) = serve();
	let pull = |address: Address| {
		let client = FeedClient::new(address.with_token(token()), Duration::from_secs(5)).unwrap();
		async move { client.pull(FeedCursor::default(), 1).await.unwrap_err() }
	};
	let error = pull(secure(&url)).await;
	assert!(matches!(error, FeedError::Unavailable { status: None }), "{error}");
	assert!(got.lock().unwrap().is_empty());
	// The answer is no page; that it was given is what counts.
	let error = pull(secure(&url).trusting(CERTIFICATE).unwrap()).await;
	assert!(matches!(error, FeedError::Malformed), "{error}");
	let got = got.lock().unwrap();
	assert!(got[0].starts_with("GET /hook?after=0-0&limit=1 HTTP/1.1"), "{got:?}");
	assert!(got[0].contains("authorization: Bearer sesame"), "{got:?}");
}

/// A server that does not speak TLS at all.
#[tokio::test]
async fn a_server_without_tls_is_no_answer() {
	let (server, node) = (Server::start(), Node::new());
	node.owe("payment_sent", "h1");
	let url = server.url.replace("http://", "https://");
	let drained = node.courier(secure(&url)).drain(HEIGHT).await.unwrap();
	assert_eq!(drained, Drained { again: 1, ..Drained::default() });
	assert!(server.got().is_empty());
}

#[test]
fn what_is_no_certificate_is_not_trusted() {
	for bad in [&b""[..], b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", KEY] {
		assert!(secure("https://127.0.0.1/").trusting(bad).is_err());
	}
}
