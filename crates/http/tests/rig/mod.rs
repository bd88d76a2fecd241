//! A server that answers as it is told, and a node that owes callbacks to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

#[cfg(feature = "server")]
pub mod lsp;
#[cfg(feature = "server")]
pub mod pipes;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_http::{
	Address, Courier, CourierOptions, FeedClient, SigningSecret, Token, VerifyingKey,
};
use leyden_outbox::{CallbackId, EndpointOptions, NewCallback, Outbox, OutboxOptions};
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store, Timestamp};

pub const HEIGHT: u32 = 800_000;
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// An answer to a request.
#[derive(Clone, Debug)]
pub enum How {
	/// With this status and these headers.
	Status(u16, &'static str),
	/// Not at all, within any patience.
	Never,
	/// The connection ends.
	HangUp,
	/// With what is no HTTP.
	Garbage,
	/// With a byte now and then, for ever.
	Drip,
	/// With a body of so many bytes.
	Large(usize),
	/// With this status, and a body that ends too soon.
	BreakOff(u16),
	/// With this status and body.
	Says(u16, String),
	/// With this status and date.
	Dated(u16, String),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Got {
	pub path: String,
	pub headers: Vec<(String, String)>,
	pub body: Vec<u8>,
}

impl Got {
	pub fn header(&self, name: &str) -> Option<&str> {
		self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
	}
}

/// A server on loopback. Answers 200 unless told otherwise.
#[derive(Clone)]
pub struct Server {
	pub url: String,
	script: Arc<Mutex<VecDeque<How>>>,
	got: Arc<Mutex<Vec<Got>>>,
	connections: Arc<Mutex<u32>>,
	/// True once a large body was read to its end, false once its reader has gone.
	read_whole: Arc<Mutex<Option<bool>>>,
}

impl Server {
	pub fn start() -> Self {
		let listener = TcpListener::bind("127.0.0.1:0").unwrap();
		let url = format!("http://{}/lsp", listener.local_addr().unwrap());
		let server = Self {
			url,
			script: Arc::default(),
			got: Arc::default(),
			connections: Arc::default(),
			read_whole: Arc::default(),
		};
		let serving = server.clone();
		std::thread::spawn(move || {
			for connection in listener.incoming().flatten() {
				*serving.connections.lock().unwrap() += 1;
				let server = serving.clone();
				std::thread::spawn(move || drop(server.serve(&connection)));
			}
		});
		server
	}

	pub fn then(&self, how: impl IntoIterator<Item = How>) -> &Self {
		self.script.lock().unwrap().extend(how);
		self
	}

	pub fn got(&self) -> Vec<Got> {
		self.got.lock().unwrap().clone()
	}

	/// Returns whether the large body was read to its end, once that is known.
	pub fn read_whole(&self) -> bool {
		loop {
			if let Some(whole) = *self.read_whole.lock().unwrap() {
				return whole;
			}
			std::thread::yield_now();
		}
	}

	pub fn connections(&self) -> u32 {
		*self.connections.lock().unwrap()
	}

	fn serve(&self, connection: &TcpStream) -> std::io::Result<()> {
		let mut reader = BufReader::new(connection);
		let mut writer = connection;
		loop {
			let mut line = String::new();
			if reader.read_line(&mut line)? == 0 {
				return Ok(());
			}
			let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
			let mut headers = Vec::new();
			loop {
				line.clear();
				reader.read_line(&mut line)?;
				let Some((name, value)) = line.trim_end().split_once(':') else { break };
				headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
			}
			let length = headers.iter().find(|(name, _)| name == "content-length");
			let length = length.map_or(0, |(_, length)| length.parse().unwrap());
			let mut body = vec![0; length];
			reader.read_exact(&mut body)?;
			self.got.lock().unwrap().push(Got { path, headers, body });
			let how = self.script.lock().unwrap().pop_front();
			match how.unwrap_or(How::Status(200, "")) {
				How::Status(code, headers) => {
					write!(writer, "HTTP/1.1 {code} x\r\n{headers}content-length: 2\r\n\r\nok")?
				},
				// Until the other side has enough.
				How::Never => drop(reader.read_line(&mut line)),
				How::HangUp => return connection.shutdown(Shutdown::Both),
				How::Garbage => {
					writer.write_all(b"SSH-2.0-OpenSSH\r\n\r\n")?;
					return connection.shutdown(Shutdown::Both);
				},
				How::Drip => {
					connection.set_read_timeout(Some(Duration::from_millis(20)))?;
					writer.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 1000000\r\n\r\n")?;
					// Its own clock, since the courier's is not asked: a byte, until the other side is gone.
					while writer.write_all(b".").is_ok() {
						if matches!(reader.read(&mut [0]), Ok(0)) {
							break;
						}
					}
					return Ok(());
				},
				How::BreakOff(code) => {
					write!(writer, "HTTP/1.1 {code} x\r\ncontent-length: 100\r\n\r\nok")?;
					return connection.shutdown(Shutdown::Both);
				},
				How::Says(code, said) => {
					let length = said.len();
					write!(writer, "HTTP/1.1 {code} x\r\ncontent-length: {length}\r\n\r\n{said}")?
				},
				How::Dated(code, date) => write!(
					writer,
					"HTTP/1.1 {code} x\r\ndate: {date}\r\ncontent-length: 0\r\n\r\n"
				)?,
				How::Large(bytes) => {
					write!(writer, "HTTP/1.1 200 x\r\ncontent-length: {bytes}\r\n\r\n")?;
					let written = writer.write_all(&vec![b'x'; bytes]);
					*self.read_whole.lock().unwrap() = Some(written.is_ok());
				},
			}
		}
	}
}

/// A node with an outbox.
pub struct Node {
	pub clock: Arc<ManualClock>,
	pub store: Arc<dyn Store>,
	pub outbox: Outbox,
}

impl Node {
	pub fn new() -> Self {
		let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
		let store = MemoryStore::open(&MemoryMedium::new(), Namespace::default()).unwrap();
		let store: Arc<dyn Store> = Arc::new(store);
		let outbox = Outbox::open(
			Arc::clone(&store),
			Arc::<ManualClock>::clone(&clock),
			OutboxOptions::default(),
		);
		let outbox = outbox.unwrap();
		outbox.add_endpoint("lsp", EndpointOptions::default()).unwrap();
		Self { clock, store, outbox }
	}

	pub fn owe_until(&self, kind: &str, about: &str, height: u32) {
		let id = CallbackId::new(kind, about.as_bytes(), 0);
		let new = NewCallback::new(id, kind, "lsp", about, "{}").unwrap();
		let new = new.with_deadline(leyden_outbox::Deadline::at_height(height));
		self.outbox.enqueue(new).unwrap().commit(&*self.store).wait().unwrap();
	}

	pub fn owe(&self, kind: &str, about: &str) -> CallbackId {
		let id = CallbackId::new(kind, about.as_bytes(), 0);
		let body = format!(r#"{{"kind":"{kind}","payment_hash":"{about}"}}"#);
		let new = NewCallback::new(id, kind, "lsp", about, body).unwrap();
		self.outbox.enqueue(new).unwrap().commit(&*self.store).wait().unwrap();
		id
	}

	pub fn courier(&self, address: Address) -> Courier {
		let options = CourierOptions {
			poll_interval: Duration::from_millis(10),
			timeout: Duration::from_millis(300),
			too_late: |status, body| status == 400 && body.starts_with(b"late"),
		};
		let clock = Arc::<ManualClock>::clone(&self.clock);
		let endpoints = [("lsp".to_owned(), address)];
		Courier::new(self.outbox.clone(), clock, options, endpoints).unwrap()
	}
}

pub fn secret() -> SigningSecret {
	SigningSecret::parse(SECRET).unwrap()
}

pub fn key() -> VerifyingKey {
	secret().verifying_key()
}

pub fn address(url: &str) -> Address {
	let allow = "127.0.0.1".parse().unwrap();
	Address::plain(url).unwrap().allowing(allow).signed([secret()])
}

/// A client of a feed on loopback, with this token.
pub fn feed(url: &str, token: Token, timeout: Duration) -> FeedClient {
	FeedClient::new(address(url).with_token(token), timeout).unwrap()
}

/// The head of a callback without its last empty line, signed, for a body of this kind.
pub fn signed(id: &str, path: &str, timestamp: u64, body: &[u8]) -> String {
	let signature = leyden_http::Webhook { id, timestamp }.sign(body, &[secret()]);
	format!(
		"POST {path} HTTP/1.1\r\nhost: x\r\nwebhook-id: {id}\r\nwebhook-timestamp: {timestamp}\r\n\
		 webhook-signature: {signature}\r\ncontent-length: {}\r\n",
		body.len(),
	)
}

pub fn token() -> Token {
	Token::new("sesame").unwrap()
}

/// Serves on loopback, without the limits of Leyden's own server. Answers the URL.
#[cfg(feature = "server")]
pub async fn serve(router: axum::Router) -> String {
	let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
	let url = format!("http://{}", listener.local_addr().unwrap());
	tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
	url
}
