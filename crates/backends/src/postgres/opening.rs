// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! How a namespace is opened: the tables, the early warning, the epoch.

use std::time::{Duration, Instant};

use leyden_store::committer::Committer;
use leyden_store::StoreError;

use super::engine::{columns, write_columns, Engine, WriterRow, FORMAT, PAUSE, REPEATS};
use super::errors::{is_to_be_repeated, not_written, unavailable, Failure, Said};
use super::sql::*;

/// The time that a second connection has, when it is looked for a pooler.
const SECOND_CONNECTION: Duration = Duration::from_secs(5);
/// How long opening waits for a writer that is just leaving.
const OPENING_WAITS: Duration = Duration::from_secs(2);

impl Engine {
	/// Whether our tables are there. What is neither ours nor nothing is an error.
	pub(super) fn is_ours(&mut self) -> Result<bool, StoreError> {
		let rows = self.read_rows("looking at the database", LOOK, &[])?;
		let Some(row) = rows.first() else { return Ok(false) };
		let place = || self.server.place().to_owned();
		if !row.get::<_, bool>(0) {
			if row.get::<_, i64>(1) == 0 {
				return Ok(false);
			}
			let reason = "its schema \"leyden\" has tables of something else".to_owned();
			return Err(StoreError::NotAStore { place: place(), reason });
		}
		let place = place();
		let rows = self.read_rows("looking at the database", GET_FORMAT, &[])?;
		let found: i32 = rows.first().map_or(0, |row| row.get(0));
		if found != FORMAT {
			let number = |n: i32| u32::try_from(n).unwrap_or_default();
			return Err(StoreError::Newer {
				what: place,
				found: number(found),
				known: number(FORMAT),
			});
		}
		Ok(true)
	}

	/// Refuses a pooler that gives one connection of the server to several clients, a transaction to each.
	///
	/// A session has settings (commits are flushed), prepared statements and a lock. Behind such a pooler
	/// another client has them the next time, and a statement of another client may stand under the name
	/// of ours. Whether a pooler is there is not said anywhere; so a second connection is made, and looked
	/// at whether the server takes the two for one.
	pub(super) fn refuse_pooler(&mut self) -> Result<(), StoreError> {
		// A process of this very server: several hosts have processes of one number.
		const WHO: &str = "SELECT pg_backend_pid()::text || ' of ' \
			|| pg_postmaster_start_time()::text || coalesce(inet_server_addr()::text, '')";
		let deadline = Instant::now() + self.server.timeout;
		let place = self.server.place().to_owned();
		let failed = |failure| not_written("looking for a pooler", &place, failure);
		let shares = || {
			StoreError::invalid(format!(
				"{place} is behind a pooler that shares connections among clients: settings and prepared \
				 statements of one are another's; connect to the server itself, or set pool_mode = \
				 session for this database"
			))
		};
		let first =
			self.connected(deadline).and_then(|session| session.ask(WHO)).map_err(failed)?;
		// If the server has no second one to spare, nobody knows.
		let soon = deadline.min(Instant::now() + SECOND_CONNECTION);
		let Ok(mut other) = self.server.connect(soon) else { return Ok(()) };
		other.wait_at_most(SECOND_CONNECTION);
		match other.run("BEGIN") {
			Ok(()) => {},
			// A pooler that gives a connection for one statement calls it a violation of the protocol.
			Err(Failure::Lost(said)) if said.to_string().contains("(08P01)") => {
				return Err(shares())
			},
			Err(_) => return Ok(()),
		}
		let Ok(others) = other.ask(WHO) else { return Ok(()) };
		if first == others {
			return Err(shares());
		}
		// The same session as before: one that was lost meanwhile says nothing.
		let second = match self.session.as_ref().map(|session| session.ask(WHO)) {
			Some(Ok(second)) => second,
			Some(Err(failure)) => {
				self.session = None;
				return Err(failed(failure));
			},
			None => return Ok(()),
		};
		match first == second {
			true => Ok(()),
			false => Err(shares()),
		}
	}

	/// Makes what is missing, in one transaction. Two that do so at a time wait for each other.
	pub(super) fn create(&mut self) -> Result<(), StoreError> {
		if self.is_ours()? {
			return Ok(());
		}
		let deadline = Instant::now() + self.server.timeout;
		let created = self.connected(deadline).and_then(|session| session.run(CREATE));
		if let Err(failure) = created {
			self.session = None;
			// Somebody else may have been faster.
			if !self.is_ours()? {
				return Err(self.failed("creating the tables", failure));
			}
		}
		Ok(())
	}

	/// Takes the session's lock, or warns that somebody else has it.
	pub(super) fn lock(&mut self, take_over: bool) -> Result<(), StoreError> {
		let name = self.namespace.name().to_owned();
		let until = Instant::now() + OPENING_WAITS;
		loop {
			let rows = self.read_rows("taking the lock", TRY_LOCK, &[&name])?;
			if take_over || rows.first().is_some_and(|row| row.get(0)) {
				return Ok(());
			}
			if Instant::now() >= until {
				let place = format!("{} (namespace {name})", self.server.place());
				return Err(StoreError::Locked { place });
			}
			std::thread::sleep(PAUSE);
		}
	}

	/// Raises the epoch, in one transaction that holds the writer's row.
	pub(super) fn raise(&mut self) -> Result<Committer, StoreError> {
		for _ in 0..REPEATS {
			match self.try_raise() {
				Err(Raise::Server(Failure::Refused(error))) if is_to_be_repeated(&error) => {
					self.session = None;
				},
				Err(Raise::Server(failure)) => {
					self.session = None;
					return Err(self.failed("opening the namespace", failure));
				},
				Err(Raise::Store(error)) => return Err(error),
				Ok(committer) => return Ok(committer),
			}
		}
		let said = Said("the server could not put it in order with others".to_owned());
		Err(unavailable("opening the namespace", self.server.place(), &said))
	}

	fn try_raise(&mut self) -> Result<Committer, Raise> {
		let deadline = Instant::now() + self.server.timeout;
		let name = self.namespace.name().to_owned();
		let session = self.connected(deadline)?;
		session.run("BEGIN")?;
		session.query(ADD_WRITER, &[&name])?;
		let rows = session.query(LOCK_WRITER, &[&name])?;
		let last: i64 = rows.first().map_or(0, |row| row.get(1));
		let (committer, writes) = Committer::open(self).map_err(Raise::Store)?;
		let epoch = i64::try_from(committer.epoch().get()).unwrap_or(i64::MAX);
		let (puts, deletes) = columns(writes);
		let session = self.connected(deadline)?;
		session.query(SET_EPOCH, &[&name, &epoch])?;
		let row = WriterRow { epoch, last };
		write_columns(session, &name, row, row.last, &puts, &deletes)?;
		session.take_warning();
		session.run("COMMIT")?;
		if let Some(warning) = session.take_warning() {
			return Err(Raise::Store(self.in_doubt(&warning)));
		}
		self.row = Some(row);
		Ok(committer)
	}

	/// Whether the server flushes what it acknowledges.
	pub(super) fn flushes(&mut self) -> Result<bool, StoreError> {
		let rows = self.read_rows("asking for the server's settings", SETTINGS, &[])?;
		Ok(rows.first().is_none_or(|row| row.get(0)))
	}
}

/// Why a namespace was not opened.
enum Raise {
	Server(Failure),
	Store(StoreError),
}

impl From<Failure> for Raise {
	fn from(failure: Failure) -> Self {
		Self::Server(failure)
	}
}
