// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! One connection, used by one thread.
//!
//! The connection lives on a runtime of its own, so that a store works with any runtime around it,
//! or none; whoever asks parks until the answer is there.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use leyden_store::StoreError;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::config::Address;
use super::errors::{Failure, Said};
use super::tls;

/// How long the end of a session waits for the server to hear of it.
const GOODBYE: Duration = Duration::from_secs(2);

/// Where sessions are made.
pub(super) struct Server {
	address: Address,
	tls: tokio_postgres_rustls::MakeRustlsConnect,
	/// `None` once it is dropped.
	runtime: Option<Runtime>,
	pub(super) timeout: Duration,
}

impl Server {
	pub(super) fn new(address: Address, timeout: Duration) -> Result<Self, StoreError> {
		let tls = tls::connector(&address)?;
		let runtime = tokio::runtime::Builder::new_multi_thread()
			.worker_threads(1)
			.thread_name("leyden-pg-io")
			.enable_all()
			.build()
			.map_err(|error| StoreError::Unavailable {
				doing: "starting the connection's thread",
				source: Arc::new(error),
			})?;
		Ok(Self { address, tls, runtime: Some(runtime), timeout })
	}

	pub(super) fn place(&self) -> &str {
		&self.address.place
	}

	/// Connects, until `deadline`.
	pub(super) fn connect(&self, deadline: Instant) -> Result<Session, Failure> {
		let Some(runtime) = &self.runtime else {
			return Err(Failure::NotSent(Said("the store is closed".to_owned())));
		};
		let (config, tls) = (self.address.config.clone(), self.tls.clone());
		let connecting = runtime.spawn(async move {
			let (client, connection) = config.connect(tls).await?;
			// Ends when the client is dropped or the connection is lost.
			let connection = tokio::spawn(async move { drop(connection.await) });
			Ok::<_, tokio_postgres::Error>((client, connection))
		});
		let timed_out = || Failure::NotSent(Said("no answer in time".to_owned()));
		let connected = block_on(connecting, deadline).ok_or_else(timed_out)?;
		let connected = connected.map_err(|error| Failure::NotSent(Said(error.to_string())))?;
		let (client, connection) = connected.map_err(|error| match Failure::from(error) {
			// Nothing was asked of it yet.
			Failure::Lost(said) => Failure::NotSent(said),
			failure => failure,
		})?;
		Ok(Session {
			client: Some(client),
			connection,
			statements: HashMap::new(),
			timeout: self.timeout,
		})
	}
}

impl Drop for Server {
	fn drop(&mut self) {
		if let Some(runtime) = self.runtime.take() {
			// Also from inside a runtime, where waiting is not allowed.
			runtime.shutdown_background();
		}
	}
}

/// A connection and what was prepared on it.
pub(super) struct Session {
	/// `None` once it is dropped.
	client: Option<Client>,
	connection: JoinHandle<()>,
	statements: HashMap<&'static str, Statement>,
	timeout: Duration,
}

impl Session {
	pub(super) fn is_closed(&self) -> bool {
		self.client.as_ref().is_none_or(Client::is_closed)
	}

	/// Runs statements without parameters.
	pub(super) fn run(&self, sql: &str) -> Result<(), Failure> {
		let client = self.client()?;
		answered(block_on(client.batch_execute(sql), self.deadline()))
	}

	/// Runs one statement, which is prepared the first time.
	pub(super) fn query(
		&mut self, sql: &'static str, parameters: &[&(dyn ToSql + Sync)],
	) -> Result<Vec<Row>, Failure> {
		let deadline = self.deadline();
		let statement = match self.statements.get(sql) {
			Some(statement) => statement.clone(),
			None => {
				let statement = answered(block_on(self.client()?.prepare(sql), deadline))?;
				self.statements.insert(sql, statement.clone());
				statement
			},
		};
		answered(block_on(self.client()?.query(&statement, parameters), deadline))
	}

	fn client(&self) -> Result<&Client, Failure> {
		self.client.as_ref().ok_or_else(|| Failure::NotSent(Said("closed".to_owned())))
	}

	fn deadline(&self) -> Instant {
		Instant::now() + self.timeout
	}
}

impl Drop for Session {
	/// Says goodbye, so that the server gives up the session's lock at once.
	fn drop(&mut self) {
		self.client = None;
		let connection = &mut self.connection;
		if block_on(&mut *connection, Instant::now() + GOODBYE).is_none() {
			connection.abort();
		}
	}
}

fn answered<T>(answer: Option<Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
	match answer {
		Some(answer) => Ok(answer?),
		None => Err(Failure::Lost(Said("no answer in time".to_owned()))),
	}
}

/// Parks this thread until the future is done; `None` at the deadline. What drives it is on another
/// thread.
fn block_on<F: Future>(future: F, deadline: Instant) -> Option<F::Output> {
	struct Unpark(Thread);
	impl Wake for Unpark {
		fn wake(self: Arc<Self>) {
			self.0.unpark();
		}
	}
	let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
	let mut future = pin!(future);
	loop {
		if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
			return Some(done);
		}
		let left = deadline.checked_duration_since(Instant::now())?;
		std::thread::park_timeout(left);
	}
}
