// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A relay before a real VSS server: passes every request on, names the protocol's version in every
//! answer that names none, and loses requests and replies on demand.
//!
//! The published server of May 2026 names no version, and the published client takes no answer
//! without one.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The header that names the protocol's version.
const VERSION_HEADER: &str = "vss-protocol-version";

/// What happens to a `putObjects` on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
	/// The request does not reach the server, and the connection ends.
	Request,
	/// The server does it, and the connection ends without the answer.
	Reply,
	/// The connection ends, and the request reaches the server just before the next one.
	ArrivesBeforeTheNext,
}

/// A relay before one server, which is gone when this is dropped.
pub struct Relay {
	url: String,
	state: Arc<Mutex<State>>,
	address: SocketAddr,
}

#[derive(Default)]
struct State {
	losses: VecDeque<Loss>,
	late: Vec<Message>,
	/// The status of each answer to a put, as the server gave it.
	statuses: Vec<u16>,
	puts: u64,
	closed: bool,
}

impl Relay {
	/// Starts a relay before the server at `server_url`, such as `http://127.0.0.1:8090/vss`, on a free
	/// port of this machine.
	///
	/// # Panics
	/// If there is no port, or the URL is not one of plain HTTP.
	pub fn start(server_url: &str) -> Self {
		let rest = server_url.strip_prefix("http://").expect("a URL of plain HTTP");
		let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
		let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
		let address = listener.local_addr().expect("an address");
		let state = Arc::new(Mutex::new(State::default()));
		let (shared, server) = (Arc::clone(&state), server.to_owned());
		std::thread::spawn(move || {
			for connection in listener.incoming().flatten() {
				if lock(&shared).closed {
					return;
				}
				let (state, server) = (Arc::clone(&shared), server.clone());
				// A connection that ends is no news.
				std::thread::spawn(move || drop(relay(&connection, &server, &state)));
			}
		});
		Self { url: format!("http://{address}/{path}"), state, address }
	}

	/// Returns the URL that a client is given in place of the server's.
	pub fn url(&self) -> String {
		self.url.clone()
	}

	/// Sets what happens to the next puts, one after the other.
	pub fn next_puts(&self, losses: impl IntoIterator<Item = Loss>) {
		lock(&self.state).losses.extend(losses);
	}

	/// Returns how many puts were asked for.
	pub fn puts(&self) -> u64 {
		lock(&self.state).puts
	}

	/// Returns the status of each answer that the server gave to a put.
	pub fn put_statuses(&self) -> Vec<u16> {
		lock(&self.state).statuses.clone()
	}
}

impl Drop for Relay {
	fn drop(&mut self) {
		lock(&self.state).closed = true;
		// Wakes up the thread that accepts.
		drop(TcpStream::connect(self.address));
	}
}

/// A request or an answer. Its lines have their ends.
struct Message {
	start: String,
	headers: Vec<String>,
	body: Vec<u8>,
}

impl Message {
	/// Reads a message; `None` at the end of the connection.
	fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
		let mut start = String::new();
		if reader.read_line(&mut start)? == 0 {
			return Ok(None);
		}
		let mut message = Self { start, headers: Vec::new(), body: Vec::new() };
		loop {
			let mut line = String::new();
			if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
				break;
			}
			message.headers.push(line);
		}
		let length = message.header("content-length").unwrap_or("0");
		let length = length.parse().map_err(io::Error::other)?;
		message.body = vec![0; length];
		reader.read_exact(&mut message.body)?;
		Ok(Some(message))
	}

	fn header(&self, name: &str) -> Option<&str> {
		let mut headers = self.headers.iter().filter_map(|line| line.split_once(':'));
		let found = headers.find(|(found, _)| found.eq_ignore_ascii_case(name));
		found.map(|(_, value)| value.trim())
	}

	fn is_put(&self) -> bool {
		self.start.split_whitespace().nth(1).is_some_and(|path| path.ends_with("/putObjects"))
	}

	fn status(&self) -> u16 {
		self.start.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
	}

	fn write(&self, mut to: impl Write) -> io::Result<()> {
		let head = format!("{}{}\r\n", self.start, self.headers.concat());
		to.write_all(head.as_bytes())?;
		to.write_all(&self.body)?;
		to.flush()
	}

	/// Sends a request to the server, and returns the answer.
	fn ask(&self, server: &str) -> io::Result<Self> {
		let connection = TcpStream::connect(server)?;
		// A server that takes no more of a request has said why before it closed the connection.
		let written = self.write(&connection);
		let mut reader = BufReader::new(&connection);
		let answer = Self::read(&mut reader);
		match answer {
			Ok(Some(answer)) => Ok(answer),
			Ok(None) => Err(written.err().unwrap_or(io::ErrorKind::UnexpectedEof.into())),
			Err(error) => Err(error),
		}
	}
}

/// Passes the requests of one connection on.
fn relay(connection: &TcpStream, server: &str, state: &Mutex<State>) -> io::Result<()> {
	let mut reader = BufReader::new(connection);
	while let Some(request) = Message::read(&mut reader)? {
		let Ok(Some(mut answer)) = pass_on(request, server, state) else {
			return connection.shutdown(Shutdown::Both);
		};
		if answer.header(VERSION_HEADER).is_none() {
			answer.headers.push(format!("{VERSION_HEADER}: 0\r\n"));
		}
		answer.write(connection)?;
	}
	Ok(())
}

/// Returns the server's answer, unless something is lost.
fn pass_on(request: Message, server: &str, state: &Mutex<State>) -> io::Result<Option<Message>> {
	if !request.is_put() {
		return request.ask(server).map(Some);
	}
	let (loss, late) = {
		let mut state = lock(state);
		state.puts += 1;
		(state.losses.pop_front(), std::mem::take(&mut state.late))
	};
	for late in late {
		late.ask(server)?;
	}
	match loss {
		Some(Loss::Request) => return Ok(None),
		Some(Loss::ArrivesBeforeTheNext) => {
			lock(state).late.push(request);
			return Ok(None);
		},
		Some(Loss::Reply) | None => {},
	}
	let answer = request.ask(server)?;
	lock(state).statuses.push(answer.status());
	Ok(Some(answer).filter(|_| loss.is_none()))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
	state.lock().unwrap_or_else(PoisonError::into_inner)
}
