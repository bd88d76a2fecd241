//! Connections in memory, so that a server can be tested in time that does not pass by itself.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use axum::serve::Listener;
use leyden_http::{serve, ServerOptions};
use tokio::io::{duplex, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

/// A server that is connected to in memory.
pub struct Pipes(Mutex<UnboundedSender<DuplexStream>>);

struct Ends(UnboundedReceiver<DuplexStream>);

impl Listener for Ends {
	type Io = DuplexStream;
	type Addr = ();

	async fn accept(&mut self) -> (DuplexStream, ()) {
		match self.0.recv().await {
			Some(end) => (end, ()),
			None => std::future::pending().await,
		}
	}

	fn local_addr(&self) -> io::Result<()> {
		Ok(())
	}
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
	pub status: u16,
	pub headers: HashMap<String, String>,
	pub body: String,
}

impl Pipes {
	pub fn serve(router: axum::Router, options: ServerOptions) -> Self {
		let (sender, ends) = unbounded_channel();
		tokio::spawn(serve(Ends(ends), router, options));
		Self(Mutex::new(sender))
	}

	/// A connection that holds so many bytes in each direction that are not read yet.
	pub fn connect(&self, bytes: usize) -> DuplexStream {
		let (ours, theirs) = duplex(bytes);
		self.0.lock().unwrap().send(theirs).unwrap();
		ours
	}

	/// A connection on which this was sent, and nothing more.
	pub async fn begin(&self, request: &str) -> DuplexStream {
		let mut connection = self.connect(1 << 20);
		connection.write_all(request.as_bytes()).await.unwrap();
		connection
	}

	/// The answer to a request that says `connection: close`, or whose answer closes the connection.
	pub async fn ask(&self, request: &str) -> Answer {
		answer(self.begin(request).await).await
	}
}

/// Returns what comes until the other side closes the connection. In time that does not pass by itself, a
/// connection that is never closed is found out at once.
pub async fn rest(mut connection: DuplexStream) -> String {
	let mut bytes = Vec::new();
	let end = connection.read_to_end(&mut bytes);
	let _ = timeout(Duration::from_secs(3_600), end).await.expect("it is closed");
	String::from_utf8_lossy(&bytes).into_owned()
}

pub async fn answer(connection: DuplexStream) -> Answer {
	let text = rest(connection).await;
	let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
	let mut lines = head.lines();
	let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
	let headers = lines.map(|line| line.split_once(": ").unwrap());
	let headers = headers.map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
	Answer { status, headers, body: body.to_owned() }
}
