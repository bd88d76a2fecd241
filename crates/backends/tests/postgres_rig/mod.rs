//! A road to the server that can lose what is sent on it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

/// What happens to the next request that has this text in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plan {
	/// The connection ends before the server hears of it.
	LoseRequest,
	/// The server does it, and the connection ends before we hear of that.
	LoseReply,
	/// It waits on the road until somebody lets it go on.
	Hold,
	/// It waits until somebody lets it go on, and then the connection ends before the server hears of
	/// it.
	HoldAndLose,
	/// The server does the request, its reply waits until the test lets it go on, and then the
	/// connection ends.
	HoldReplyAndLose,
}

/// The fate of the next reply on a connection.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Lose {
	Nothing,
	Reply,
	HeldReply,
}

#[derive(Default)]
struct State {
	plan: Option<(Plan, Vec<u8>)>,
	/// A request is held.
	held: bool,
	/// What was planned has happened.
	happened: usize,
}

/// A proxy in front of a server's socket.
pub struct Road {
	dir: tempfile::TempDir,
	shared: Arc<(Mutex<State>, Condvar)>,
}

impl Road {
	pub fn to(server: &Path) -> Self {
		let dir = tempfile::Builder::new().prefix("ly").tempdir().unwrap();
		let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
		let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
		let (server, state) = (server.join(".s.PGSQL.5432"), Arc::clone(&shared));
		std::thread::spawn(move || {
			for client in listener.incoming().flatten() {
				let Ok(server) = UnixStream::connect(&server) else {
					drop(client);
					continue;
				};
				let (lose, requests) = (Arc::new(Mutex::new(Lose::Nothing)), Arc::clone(&state));
				let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
				let lost = Arc::clone(&lose);
				std::thread::spawn(move || carry_requests(from, to, &requests, &lost));
				let replies = Arc::clone(&state);
				std::thread::spawn(move || carry_replies(server, client, &replies, &lose));
			}
		});
		Self { dir, shared }
	}

	pub fn url(&self) -> String {
		let path = self.dir.path().to_string_lossy().replace('/', "%2F");
		format!("postgres://leyden@{path}/postgres")
	}

	/// The next request with `text` in it goes that way.
	pub fn plan(&self, plan: Plan, text: &str) {
		let mut state = self.shared.0.lock().unwrap();
		(state.plan, state.happened) = (Some((plan, text.as_bytes().to_vec())), 0);
	}

	/// Waits until a request is held.
	pub fn wait_until_held(&self) {
		let (state, changed) = &*self.shared;
		let held = changed.wait_while(state.lock().unwrap(), |state| !state.held);
		drop(held.unwrap());
	}

	/// Lets what is held go on.
	pub fn let_go(&self) {
		self.shared.0.lock().unwrap().held = false;
		self.shared.1.notify_all();
	}

	pub fn happened(&self) -> usize {
		self.shared.0.lock().unwrap().happened
	}
}

fn carry_requests(
	mut from: UnixStream, mut to: UnixStream, shared: &(Mutex<State>, Condvar), lose: &Mutex<Lose>,
) {
	let mut bytes = vec![0; 1 << 16];
	loop {
		let count = from.read(&mut bytes).unwrap_or(0);
		if count == 0 {
			break;
		}
		let request = &bytes[..count];
		let mut state = shared.0.lock().unwrap();
		let meant = state
			.plan
			.as_ref()
			.is_some_and(|(_, text)| request.windows(text.len()).any(|part| part == text));
		if meant {
			let (plan, _) = state.plan.take().unwrap();
			state.happened += 1;
			match plan {
				Plan::LoseRequest => break,
				Plan::LoseReply => *lose.lock().unwrap() = Lose::Reply,
				Plan::HoldReplyAndLose => *lose.lock().unwrap() = Lose::HeldReply,
				Plan::Hold | Plan::HoldAndLose => {
					state.held = true;
					shared.1.notify_all();
					state = shared.1.wait_while(state, |state| state.held).unwrap();
					if plan == Plan::HoldAndLose {
						break;
					}
				},
			}
		}
		drop(state);
		if to.write_all(request).is_err() {
			break;
		}
	}
	let _ = to.shutdown(Shutdown::Both);
	let _ = from.shutdown(Shutdown::Both);
}

fn carry_replies(
	mut from: UnixStream, mut to: UnixStream, shared: &(Mutex<State>, Condvar), lose: &Mutex<Lose>,
) {
	let mut bytes = vec![0; 1 << 16];
	loop {
		let count = from.read(&mut bytes).unwrap_or(0);
		let lose = *lose.lock().unwrap();
		if count > 0 && lose == Lose::HeldReply {
			let mut state = shared.0.lock().unwrap();
			state.held = true;
			shared.1.notify_all();
			drop(shared.1.wait_while(state, |state| state.held).unwrap());
		}
		if count == 0 || lose != Lose::Nothing || to.write_all(&bytes[..count]).is_err() {
			break;
		}
	}
	let _ = to.shutdown(Shutdown::Both);
	let _ = from.shutdown(Shutdown::Both);
}
