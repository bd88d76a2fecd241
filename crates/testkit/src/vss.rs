// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A small VSS server for tests: the published protocol over HTTP on loopback, with the limits and
//! the oddities of the reference server, and troubles on demand. The tests that run against the
//! reference server itself are in `crates/backends/tests/vss_server.rs`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use vss_client_ng::types::{
	ErrorCode, ErrorResponse, GetObjectRequest, GetObjectResponse, KeyValue,
	ListKeyVersionsRequest, ListKeyVersionsResponse, PutObjectRequest, PutObjectResponse,
};

/// Items in one `putObjects`, deletions among them.
pub const MAX_PUT_ITEMS: usize = 1000;
/// Names in one page.
pub const MAX_PAGE: usize = 100;
/// What the database's column takes.
pub const MAX_KEY_CHARS: usize = 600;
/// Characters of the name of a store that the database's column takes.
pub const MAX_STORE_ID_CHARS: usize = 120;

/// What happens to a `putObjects`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
	/// The connection ends before it is done.
	LoseRequest,
	/// It is done, and the connection ends.
	LoseReply,
	/// A proxy gives up on it, and it is done just before the next one.
	DoneBeforeTheNext,
	/// A proxy gives up on it, and it is done just after the next one.
	DoneAfterTheNext,
	/// Somebody else's comes first.
	AnotherCameFirst,
	/// The server fails; nothing is done.
	InternalError,
	/// The server says no to whoever asks.
	Unauthorized,
}

/// Who refuses a request whose body is too large, and how the client is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyLimit {
	/// The server reads the body and answers 413.
	Says,
	/// A proxy reads the body and answers 413 without the protocol's version.
	ProxySays,
	/// The server answers 413 before it has read the body, as the reference server does, and closes the
	/// connection: a client that is still writing fails and never sees the answer.
	CutsOff,
}

/// A server, which is gone when this is dropped.
pub struct Server {
	url: String,
	state: Arc<Mutex<State>>,
	address: std::net::SocketAddr,
}

#[derive(Default)]
struct State {
	stores: HashMap<String, Stored>,
	troubles: VecDeque<Trouble>,
	before_next: Vec<PutObjectRequest>,
	after_next: Vec<PutObjectRequest>,
	/// What the header `authorization` must be.
	token: Option<String>,
	/// Nobody is answered.
	is_down: bool,
	/// No answer names the version of the protocol.
	names_no_version: bool,
	/// Every page of a list is followed by itself.
	repeats_pages: bool,
	/// The largest body that is taken, and what happens to a larger one.
	body_limit: Option<(usize, BodyLimit)>,
	puts: u64,
	closed: bool,
}

#[derive(Default)]
struct Stored {
	global_version: i64,
	items: BTreeMap<String, Item>,
	orders: u64,
}

struct Item {
	value: Vec<u8>,
	version: i64,
	order: u64,
}

impl Server {
	/// Starts a server on a free port of this machine.
	///
	/// # Panics
	/// If there is none.
	pub fn start() -> Self {
		let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
		let address = listener.local_addr().expect("an address");
		let state = Arc::new(Mutex::new(State::default()));
		let served = Arc::clone(&state);
		std::thread::spawn(move || {
			for connection in listener.incoming().flatten() {
				if lock(&served).closed {
					return;
				}
				let state = Arc::clone(&served);
				// A connection that ends is no news.
				std::thread::spawn(move || drop(serve(&connection, &state)));
			}
		});
		Self { url: format!("http://{address}/vss"), state, address }
	}

	/// What a client is given.
	pub fn url(&self) -> String {
		self.url.clone()
	}

	/// What happens to the next puts, one after the other.
	pub fn next_puts(&self, troubles: impl IntoIterator<Item = Trouble>) {
		lock(&self.state).troubles.extend(troubles);
	}

	/// Wants this in the header `authorization` from now on.
	pub fn want_token(&self, token: &str) {
		lock(&self.state).token = Some(token.to_owned());
	}

	/// Ends every connection without an answer, until told otherwise.
	pub fn set_down(&self, is_down: bool) {
		lock(&self.state).is_down = is_down;
	}

	/// Names a page as the next one after itself from now on, for ever.
	pub fn repeat_pages(&self) {
		lock(&self.state).repeats_pages = true;
	}

	/// Names no version of the protocol in its answers from now on, as older servers do.
	pub fn name_no_version(&self) {
		lock(&self.state).names_no_version = true;
	}

	/// Refuses requests with a body of more bytes from now on; `usize::MAX` takes them all again.
	pub fn limit_bodies(&self, bytes: usize, limit: BodyLimit) {
		lock(&self.state).body_limit = Some((bytes, limit));
	}

	/// How many puts were asked for.
	pub fn puts(&self) -> u64 {
		lock(&self.state).puts
	}

	/// How many items a store has; the names are encrypted.
	pub fn items(&self, store_id: &str) -> usize {
		lock(&self.state).stores.get(store_id).map_or(0, |stored| stored.items.len())
	}

	/// All of a store, as the request that would write it at its global version.
	pub fn export(&self, store_id: &str) -> Vec<u8> {
		let state = lock(&self.state);
		let stored = state.stores.get(store_id);
		let item = |(key, item): (&String, &Item)| KeyValue {
			key: key.clone(),
			version: -1,
			value: item.value.clone(),
		};
		let request = PutObjectRequest {
			store_id: store_id.to_owned(),
			global_version: stored.map(|stored| stored.global_version),
			transaction_items: stored.map_or(Vec::new(), |s| s.items.iter().map(item).collect()),
			delete_items: Vec::new(),
		};
		request.encode_to_vec()
	}

	/// Puts back what was exported.
	///
	/// # Panics
	/// If it was not.
	pub fn import(&self, exported: &[u8]) {
		let request = PutObjectRequest::decode(exported).expect("an export");
		let mut state = lock(&self.state);
		let version = request.global_version.expect("a version");
		state.stores.entry(request.store_id.clone()).or_default().global_version = version;
		state.put(&request).expect("all items");
	}

	/// Changes the values of a store, the way a failing disk does.
	pub fn damage(&self, store_id: &str, mut change: impl FnMut(&str, &mut Vec<u8>)) {
		if let Some(stored) = lock(&self.state).stores.get_mut(store_id) {
			stored.items.iter_mut().for_each(|(key, item)| change(key, &mut item.value));
		}
	}

	/// Writes an item as somebody else does: without naming the global version.
	///
	/// # Panics
	/// If the server refuses it.
	pub fn put_as_another(&self, store_id: &str, key: &str, value: &[u8]) {
		let item = KeyValue { key: key.to_owned(), version: -1, value: value.to_vec() };
		let request = PutObjectRequest {
			store_id: store_id.to_owned(),
			global_version: None,
			transaction_items: vec![item],
			delete_items: Vec::new(),
		};
		lock(&self.state).put(&request).expect("an item");
	}
}

impl Drop for Server {
	fn drop(&mut self) {
		lock(&self.state).closed = true;
		// Wakes up who accepts.
		drop(TcpStream::connect(self.address));
	}
}

/// An error as the protocol names it, and the HTTP status that comes with it.
type Refusal = (u16, ErrorCode, &'static str);

impl State {
	fn put(&mut self, request: &PutObjectRequest) -> Result<(), Refusal> {
		let PutObjectRequest { transaction_items: puts, delete_items: deletes, .. } = request;
		if puts.len() + deletes.len() > MAX_PUT_ITEMS {
			return Err((400, ErrorCode::InvalidRequestException, "too many items"));
		}
		let is_name_too_long = request.store_id.chars().count() > MAX_STORE_ID_CHARS
			|| puts.iter().any(|item| item.key.chars().count() > MAX_KEY_CHARS);
		if is_name_too_long {
			return Err((500, ErrorCode::InternalServerException, "value too long"));
		}
		let stored = self.stores.entry(request.store_id.clone()).or_default();
		let conflict = Err((409, ErrorCode::ConflictException, "conflict"));
		if request.global_version.is_some_and(|version| version != stored.global_version) {
			return conflict;
		}
		let holds = |item: &KeyValue, is_delete: bool| match stored.items.get(&item.key) {
			None => !is_delete && item.version <= 0,
			Some(found) => item.version == -1 || item.version == found.version,
		};
		if !puts.iter().all(|item| holds(item, false)) || !deletes.iter().all(|i| holds(i, true)) {
			return conflict;
		}
		for item in puts {
			let orders = &mut stored.orders;
			let entry = stored.items.entry(item.key.clone()).or_insert_with(|| {
				*orders += 1;
				Item { value: Vec::new(), version: 0, order: *orders }
			});
			entry.value.clone_from(&item.value);
			// An unconditional write sets the version back.
			entry.version = if item.version == -1 { 1 } else { entry.version + 1 };
		}
		for item in deletes {
			stored.items.remove(&item.key);
		}
		// Counted only for those who name it.
		stored.global_version += i64::from(request.global_version.is_some());
		Ok(())
	}

	fn get(&self, request: &GetObjectRequest) -> Result<GetObjectResponse, Refusal> {
		let found = self.stores.get(&request.store_id).and_then(|s| s.items.get(&request.key));
		let Item { value, version, .. } =
			found.ok_or((404, ErrorCode::NoSuchKeyException, "no such key"))?;
		let value = KeyValue { key: request.key.clone(), version: *version, value: value.clone() };
		Ok(GetObjectResponse { value: Some(value) })
	}

	fn list(&self, request: &ListKeyVersionsRequest) -> ListKeyVersionsResponse {
		let empty = Stored::default();
		let stored = self.stores.get(&request.store_id).unwrap_or(&empty);
		let prefix = request.key_prefix.as_deref().unwrap_or_default();
		let before = request.page_token.as_ref().map_or(u64::MAX, |token| token.parse().unwrap());
		let size = request.page_size.map_or(MAX_PAGE, |size| MAX_PAGE.min(size as usize));
		let mut found: Vec<_> = stored.items.iter().collect();
		found.retain(|(key, item)| key.starts_with(prefix) && item.order < before);
		found.sort_by_key(|(_, item)| std::cmp::Reverse(item.order));
		let has_more = found.len() > size;
		found.truncate(size);
		let token = found.last().filter(|_| has_more).map(|(_, item)| item.order.to_string());
		let name = |(key, item): (&String, &Item)| KeyValue {
			key: key.clone(),
			version: item.version,
			value: Vec::new(),
		};
		ListKeyVersionsResponse {
			key_versions: found.into_iter().map(name).collect(),
			next_page_token: Some(match self.repeats_pages {
				true => u64::MAX.to_string(),
				false => token.unwrap_or_default(),
			}),
			global_version: request.page_token.is_none().then_some(stored.global_version),
		}
	}

	/// `None` to end the connection; an answer without the protocol's header comes from a proxy.
	fn put_in_trouble(&mut self, request: PutObjectRequest) -> Option<(u16, bool, Vec<u8>)> {
		self.puts += 1;
		for late in std::mem::take(&mut self.before_next) {
			let _ = self.put(&late);
		}
		let trouble = self.troubles.pop_front();
		let answer = |state: &mut Self| {
			let done = state.put(&request);
			encode(done.map(|()| PutObjectResponse {}))
		};
		let answer = match trouble {
			None => Some(answer(self)),
			Some(Trouble::LoseRequest) => None,
			Some(Trouble::LoseReply) => {
				let _ = answer(self);
				None
			},
			Some(Trouble::DoneBeforeTheNext) => {
				self.before_next.push(request);
				return Some((504, false, b"<html>Gateway Timeout</html>".to_vec()));
			},
			Some(Trouble::DoneAfterTheNext) => {
				self.after_next.push(request);
				return Some((504, false, b"<html>Gateway Timeout</html>".to_vec()));
			},
			Some(Trouble::AnotherCameFirst) => {
				self.stores.entry(request.store_id.clone()).or_default().global_version += 1;
				Some(answer(self))
			},
			Some(Trouble::InternalError) => {
				Some(refuse((500, ErrorCode::InternalServerException, "failed")))
			},
			Some(Trouble::Unauthorized) => Some(refuse((401, ErrorCode::AuthException, "no"))),
		};
		for late in std::mem::take(&mut self.after_next) {
			let _ = self.put(&late);
		}
		answer.map(|(status, body)| (status, true, body))
	}
}

/// Answers the requests of one connection.
fn serve(connection: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
	let mut reader = BufReader::new(connection);
	while let Some(Head { path, token, length }) = read_head(&mut reader)? {
		let limit = lock(state).body_limit.filter(|(most, _)| length > *most).map(|(_, how)| how);
		if limit == Some(BodyLimit::CutsOff) {
			answer(connection, 413, true, TOO_LARGE)?;
			return connection.shutdown(Shutdown::Both);
		}
		let mut body = vec![0; length];
		reader.read_exact(&mut body)?;
		let mut state = lock(state);
		if state.is_down {
			return connection.shutdown(Shutdown::Both);
		}
		let is_allowed = state.token.is_none() || state.token == token;
		let found = match (path.as_str(), limit) {
			_ if !is_allowed => {
				let (status, body) = refuse((401, ErrorCode::AuthException, "who are you"));
				Some((status, true, body))
			},
			(_, Some(limit)) => Some((413, limit == BodyLimit::Says, TOO_LARGE.to_vec())),
			("/vss/putObjects", _) => match PutObjectRequest::decode(body.as_slice()) {
				Ok(request) => state.put_in_trouble(request),
				Err(_) => Some(unreadable()),
			},
			("/vss/getObject", _) => Some(match GetObjectRequest::decode(body.as_slice()) {
				Ok(request) => {
					let (status, body) = encode(state.get(&request));
					(status, true, body)
				},
				Err(_) => unreadable(),
			}),
			("/vss/listKeyVersions", _) => {
				Some(match ListKeyVersionsRequest::decode(body.as_slice()) {
					Ok(request) => (200, true, state.list(&request).encode_to_vec()),
					Err(_) => unreadable(),
				})
			},
			_ if path.starts_with("/vss") => Some((400, true, b"Invalid request path.".to_vec())),
			// Another server on the same machine.
			_ => Some((404, false, b"<html>nothing here</html>".to_vec())),
		};
		let names_version = !state.names_no_version;
		drop(state);
		let Some((status, is_ours, body)) = found else {
			return connection.shutdown(Shutdown::Both);
		};
		answer(connection, status, is_ours && names_version, &body)?;
	}
	Ok(())
}

/// What the reference server says of a body that is too large; not an answer of the protocol.
const TOO_LARGE: &[u8] = b"Request body too large";

/// The reference server's answer to what is no request of the protocol.
fn unreadable() -> (u16, bool, Vec<u8>) {
	(400, true, b"Error parsing request".to_vec())
}

fn answer(mut to: &TcpStream, status: u16, names_version: bool, body: &[u8]) -> io::Result<()> {
	let version = if names_version { "vss-protocol-version: 0\r\n" } else { "" };
	let head = format!("HTTP/1.1 {status} x\r\n{version}content-length: {}\r\n\r\n", body.len());
	to.write_all(&[head.as_bytes(), body].concat())
}

/// What a request begins with.
struct Head {
	path: String,
	/// The header `authorization`.
	token: Option<String>,
	/// The bytes of the body.
	length: usize,
}

/// Reads the head of a request; `None` at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
	let mut line = String::new();
	if reader.read_line(&mut line)? == 0 {
		return Ok(None);
	}
	let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
	let (mut length, mut token) = (0, None);
	loop {
		line.clear();
		reader.read_line(&mut line)?;
		match line.trim_end().split_once(':') {
			None => break,
			Some((name, value)) => match name.to_ascii_lowercase().as_str() {
				"content-length" => length = value.trim().parse().map_err(io::Error::other)?,
				"authorization" => token = Some(value.trim().to_owned()),
				_ => {},
			},
		}
	}
	Ok(Some(Head { path, token, length }))
}

fn encode<T: Message>(answer: Result<T, Refusal>) -> (u16, Vec<u8>) {
	match answer {
		Ok(answer) => (200, answer.encode_to_vec()),
		Err(refusal) => refuse(refusal),
	}
}

fn refuse((status, code, message): Refusal) -> (u16, Vec<u8>) {
	let error = ErrorResponse { error_code: code.into(), message: message.to_owned() };
	(status, error.encode_to_vec())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
	state.lock().unwrap_or_else(PoisonError::into_inner)
}
