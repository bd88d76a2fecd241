// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! One connection, used by one thread.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use leyden_store::StoreError;
use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, SimpleQueryMessage, Statement};

use super::config::Address;
use super::errors::{Failure, Said};
use super::tls;
use crate::runtime::{block_on, Runtime};

/// How long the end of a session waits for the server to hear of it.
const GOODBYE: Duration = Duration::from_secs(2);

/// Where sessions are made.
pub(super) struct Server {
	address: Address,
	tls: tokio_postgres_rustls::MakeRustlsConnect,
	runtime: Runtime,
	pub(super) timeout: Duration,
}

impl Server {
	pub(super) fn new(address: Address, timeout: Duration) -> Result<Self, StoreError> {
		let tls = tls::connector(&address)?;
		let runtime = Runtime::new("leyden-pg-io")?;
		Ok(Self { address, tls, runtime, timeout })
	}

	pub(super) fn place(&self) -> &str {
		&self.address.place
	}

	/// Connects, until `deadline`.
	pub(super) fn connect(&self, deadline: Instant) -> Result<Session, Failure> {
		let (config, tls) = (self.address.config.clone(), self.tls.clone());
		let warning = Arc::new(Mutex::new(None));
		let heard = Arc::clone(&warning);
		let connecting = self.runtime.spawn(async move {
			let (client, mut connection) = config.connect(tls).await?;
			// Ends when the client is dropped or the connection is lost.
			let connection = tokio::spawn(async move {
				while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
					if let AsyncMessage::Notice(notice) = message {
						hear(&heard, &notice);
					}
				}
			});
			Ok::<_, tokio_postgres::Error>((client, connection))
		});
		let Some(connecting) = connecting else {
			return Err(Failure::NotSent(Said("the store is closed".to_owned())));
		};
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
			warning,
			timeout: self.timeout,
		})
	}
}

/// A connection and what was prepared on it.
pub(super) struct Session {
	/// `None` once it is dropped.
	client: Option<Client>,
	connection: JoinHandle<()>,
	statements: HashMap<&'static str, Statement>,
	/// The last warning of the server that a standby may not have a commit.
	warning: Arc<Mutex<Option<String>>>,
	timeout: Duration,
}

impl Session {
	pub(super) fn is_closed(&self) -> bool {
		self.client.as_ref().is_none_or(Client::is_closed)
	}

	/// Sets how long an answer is waited for.
	pub(super) fn wait_at_most(&mut self, timeout: Duration) {
		self.timeout = self.timeout.min(timeout);
	}

	/// Runs statements without parameters.
	pub(super) fn run(&self, sql: &str) -> Result<(), Failure> {
		let client = self.client()?;
		answered(block_on(client.batch_execute(sql), self.deadline()))
	}

	/// Runs statements without parameters, and returns the first value of each row as a text. Nothing
	/// is prepared.
	pub(super) fn ask(&self, sql: &str) -> Result<Vec<String>, Failure> {
		let client = self.client()?;
		let said = answered(block_on(client.simple_query(sql), self.deadline()))?;
		let first = |message: &SimpleQueryMessage| match message {
			SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
			_ => None,
		};
		Ok(said.iter().filter_map(first).collect())
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

	/// Returns what the server has warned of since this was called last. What it says of a statement
	/// is there before the statement's answer.
	pub(super) fn take_warning(&self) -> Option<String> {
		self.warning.lock().unwrap_or_else(PoisonError::into_inner).take()
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

/// The function of the server that waits for standbys, as its messages name it in every language. Their
/// code is that of any warning.
const WAITS_FOR_STANDBYS: &str = "SyncRepWaitForLSN";

/// Keeps a warning that a standby may not have a commit. A server warns of other things, too: of
/// transaction numbers that run out, with each commit.
fn hear(heard: &Mutex<Option<String>>, notice: &DbError) {
	let is_warning = notice.parsed_severity() == Some(Severity::Warning);
	if !is_warning || notice.routine() != Some(WAITS_FOR_STANDBYS) {
		return;
	}
	let detail = notice.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
	let text = format!("{}{detail} ({})", notice.message(), notice.code().code());
	*heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
}

fn answered<T>(answer: Option<Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
	match answer {
		Some(answer) => Ok(answer?),
		None => Err(Failure::Lost(Said("no answer in time".to_owned()))),
	}
}
