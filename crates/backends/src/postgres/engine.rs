// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The tables, how a namespace is opened, how a group is written.
//!
//! ```text
//! leyden.format   version integer                                      one row
//! leyden.writers  ns text, epoch bigint, last bigint                   PRIMARY KEY (ns)
//! leyden.records  ns text, tbl text, key bytea, frame bytea            PRIMARY KEY (ns, tbl, key)
//! ```
//! `last` is the number of the newest group of its writer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leyden_store::committer::{RawRead, RawWrite};
use leyden_store::group::{foreseen, Asked, Medium, OutagePolicy, Outages, Writer};
use leyden_store::page::PageBuilder;
use leyden_store::{Batch, Durability, Epoch, Key, KeyRange, Namespace, StoreError, Table};
use tokio_postgres::types::ToSql;
use tokio_postgres::Row;

use super::config::Address;
use super::errors::{is_to_be_repeated, not_written, refused, unavailable, Failure, Said};
use super::session::{Server, Session};
use super::sql::*;
use super::PostgresOptions;

/// The layout that this version writes, and the newest that it reads.
pub const FORMAT: i32 = 1;

/// How long to wait before a lock, or a server that starts, is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// How often a statement is sent again that the server could not put in order with others.
pub(super) const REPEATS: usize = 20;
/// Rows that a scan asks for first. More at a time, once they are seen to be small.
const FIRST_ROWS: i64 = 64;
/// Most rows that a scan asks for at a time.
const MOST_ROWS: i64 = 4096;
/// Bytes of rows up to which a scan asks for more at a time.
const SMALL_ROWS: usize = 1 << 20;

/// The medium of a store; nothing of it can be used from outside.
pub struct Engine {
	pub(super) server: Server,
	pub(super) session: Option<Session>,
	pub(super) namespace: Namespace,
	/// What the writer's row says, as far as we know: our epoch and our last group. `None` if it
	/// only reads.
	pub(super) row: Option<WriterRow>,
	/// What the group that is being decided will ask for.
	foreseen: HashMap<Key, Option<Vec<u8>>>,
	/// The outages of the server. None is waited for before the store is open.
	outages: Outages,
	#[cfg(feature = "fault-injection")]
	fail_next_write: bool,
}

#[derive(Clone, Copy)]
pub(super) struct WriterRow {
	pub(super) epoch: i64,
	pub(super) last: i64,
}

impl Engine {
	/// The writer, and whether the server flushes what it acknowledges.
	pub(super) fn open(
		address: Address, namespace: Namespace, options: &PostgresOptions,
	) -> Result<(Writer<Self>, bool), StoreError> {
		let mut engine = Self::new(address, namespace, options)?;
		engine.refuse_pooler()?;
		engine.create()?;
		engine.lock(options.take_over)?;
		let committer = engine.raise()?;
		let survives = engine.flushes()?;
		let (place, outages) = engine.wait_for(options.outages.clone());
		Ok((Writer::new(engine, committer, place).with_outages(outages), survives))
	}

	pub(super) fn open_read_only(
		address: Address, namespace: Namespace, options: &PostgresOptions,
	) -> Result<(Writer<Self>, bool), StoreError> {
		let mut engine = Self::new(address, namespace, options)?;
		if !engine.is_ours()? {
			let (place, reason) = (engine.server.place().to_owned(), "it has no store".to_owned());
			return Err(StoreError::NotAStore { place, reason });
		}
		let survives = engine.flushes()?;
		let (place, outages) = engine.wait_for(options.outages.clone());
		Ok((Writer::read_only(engine, place).with_outages(outages), survives))
	}

	/// Sets the policy for outages from now on, and returns the name and the outages of the store.
	fn wait_for(&mut self, policy: OutagePolicy) -> (String, Outages) {
		let place = self.server.place().to_owned();
		self.outages = Outages::new(policy, place.clone());
		(place, self.outages.clone())
	}

	pub(super) fn namespaces(
		address: Address, options: &PostgresOptions,
	) -> Result<Vec<Namespace>, StoreError> {
		let mut engine = Self::new(address, Namespace::default(), options)?;
		if !engine.is_ours()? {
			return Ok(Vec::new());
		}
		let rows = engine.read_rows("listing namespaces", NAMESPACES, &[])?;
		rows.iter().map(|row| Namespace::new(text(row, 0)?)).collect()
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn fail_next_write(&mut self) {
		self.fail_next_write = true;
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn damage(
		&mut self, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		let Some(mut frame) = self.read(key)? else { return Ok(false) };
		change(&mut frame);
		self.write(vec![(key.clone(), Some(frame))], Durability::Sync)?;
		Ok(true)
	}

	fn new(
		address: Address, namespace: Namespace, options: &PostgresOptions,
	) -> Result<Self, StoreError> {
		let server = Server::new(address, options.timeout)?;
		let outages = Outages::new(OutagePolicy::none(), server.place());
		let mut engine = Self {
			server,
			outages,
			session: None,
			namespace,
			row: None,
			foreseen: HashMap::new(),
			#[cfg(feature = "fault-injection")]
			fail_next_write: false,
		};
		let deadline = Instant::now() + engine.server.timeout;
		match engine.connected(deadline).map(|_| ()) {
			Ok(()) => Ok(engine),
			Err(failure) => Err(engine.failed("connecting", failure)),
		}
	}

	/// The session, or a new one.
	pub(super) fn connected(&mut self, deadline: Instant) -> Result<&mut Session, Failure> {
		if self.session.as_ref().is_some_and(Session::is_closed) {
			self.session = None;
		}
		if self.session.is_none() {
			let mut session = self.server.connect(deadline)?;
			// The server gives up when we do.
			let limit = self.server.timeout.as_millis().max(1);
			session.run(&format!(
				"SET synchronous_commit = on; SET statement_timeout = {limit};
				SET client_min_messages = warning"
			))?;
			for setting in BY_INDEX {
				// A server that does not know it has no such plans, either.
				match session.run(setting) {
					Ok(()) | Err(Failure::Refused(_)) => {},
					Err(failure) => return Err(failure),
				}
			}
			if self.row.is_some() {
				// The early warning for others. If somebody has it, the epoch will tell.
				session.query(TRY_LOCK, &[&self.namespace.name()])?;
			}
			self.session = Some(session);
		}
		self.session.as_mut().ok_or_else(|| Failure::NotSent(Said("closed".to_owned())))
	}

	/// Reads; a connection that was lost meanwhile is made anew, once.
	pub(super) fn read_rows(
		&mut self, doing: &'static str, sql: &'static str, parameters: &[&(dyn ToSql + Sync)],
	) -> Result<Vec<Row>, StoreError> {
		let deadline = Instant::now() + self.server.timeout;
		let mut again = true;
		loop {
			let session = self.connected(deadline).map_err(|e| not_sent(doing, &e))?;
			match session.query(sql, parameters) {
				Ok(rows) => return Ok(rows),
				Err(Failure::Lost(_)) if again => {
					again = false;
					self.session = None;
				},
				Err(failure) => {
					if !matches!(failure, Failure::Refused(_)) {
						self.session = None;
					}
					return Err(self.failed(doing, failure));
				},
			}
		}
	}

	pub(super) fn failed(&self, doing: &'static str, failure: Failure) -> StoreError {
		not_written(doing, self.server.place(), failure)
	}

	/// Sends a group until it is known what became of it.
	fn send(&mut self, mut row: WriterRow, writes: Vec<RawWrite>) -> Result<(), StoreError> {
		let name = self.namespace.name().to_owned();
		let (puts, deletes) = columns(writes);
		let deadline = Instant::now() + self.server.timeout;
		let mut repeats = 0;
		loop {
			let next = row.last.saturating_add(1);
			let sent = match self.connected(deadline) {
				Ok(session) => {
					session.take_warning();
					write_columns(session, &name, row, next, &puts, &deletes)
				},
				Err(failure) => Err(failure),
			};
			match sent {
				Ok(true) => {
					self.row = Some(WriterRow { last: next, ..row });
					return self.believe_warning();
				},
				// The row is not as we left it.
				Ok(false) => return Err(self.look_who(row)?),
				Err(Failure::Refused(error)) if is_to_be_repeated(&error) && repeats < REPEATS => {
					repeats += 1;
				},
				Err(Failure::Refused(error)) => {
					return Err(refused("committing", self.server.place(), &error));
				},
				Err(Failure::NotSent(said)) => {
					self.session = None;
					return Err(unavailable("committing", self.server.place(), &said));
				},
				Err(Failure::Lost(said)) => match self.settle(row, next, said.to_string()) {
					Ok(Settled::Written) => {
						let row = WriterRow { last: next, ..row };
						self.row = Some(row);
						return self.confirm(row);
					},
					Ok(Settled::NotWritten(last)) => {
						row.last = last;
						self.row = Some(row);
						if Instant::now() >= deadline {
							return Err(unavailable("committing", self.server.place(), &said));
						}
					},
					Ok(Settled::Buried(epoch)) => {
						let source = Arc::new(fenced(row.epoch, epoch));
						return Err(StoreError::Indeterminate { doing: "committing", source });
					},
					Ok(Settled::Rewound) => return Err(self.rewound()),
					Err(_) => {
						let source = Arc::new(Said(format!("{}: {said}", self.server.place())));
						return Err(StoreError::Indeterminate { doing: "committing", source });
					},
				},
			}
		}
	}

	/// Returns an error if the server has warned of the commit that it has just answered: it is written
	/// there, and a standby that was to have it may not (a wait for synchronous replication that was
	/// cancelled, by an operator or by the time limit of a statement).
	fn believe_warning(&mut self) -> Result<(), StoreError> {
		match self.session.as_ref().and_then(Session::take_warning) {
			Some(warning) => Err(self.in_doubt(&warning)),
			None => Ok(()),
		}
	}

	/// Makes sure that a group which is written, and whose reply was lost, is where it was to be: what is
	/// committed after it waits for the same standbys.
	fn confirm(&mut self, row: WriterRow) -> Result<(), StoreError> {
		let name = self.namespace.name().to_owned();
		loop {
			let deadline = Instant::now() + self.server.timeout;
			let touched = self.connected(deadline).and_then(|session| {
				session.take_warning();
				session.query(TOUCH, &[&name, &row.epoch, &row.last])
			});
			let failure = match touched {
				Ok(rows) if !rows.is_empty() => return self.believe_warning(),
				Ok(_) => return Err(self.in_doubt("another writer came before it was replicated")),
				Err(failure) => failure,
			};
			// It starts, or ends, or is stopped.
			self.session = None;
			let said = said_of(&failure);
			let error = unavailable("committing", self.server.place(), &Said(said.clone()));
			if !self.outages.pause(Asked::Write, &error) {
				return Err(self.in_doubt(&said));
			}
		}
	}

	pub(super) fn in_doubt(&self, said: &str) -> StoreError {
		let source = Arc::new(Said(format!("{}: {said}", self.server.place())));
		StoreError::Indeterminate { doing: "committing", source }
	}

	/// Finds out whether the group `sent`, whose reply was lost, was written, and sees to it that
	/// it is not written later: the server may still be busy with it. Waits for a server that is
	/// away.
	fn settle(&mut self, row: WriterRow, sent: i64, lost: String) -> Result<Settled, Failure> {
		let name = self.namespace.name().to_owned();
		let over = sent.saturating_add(1);
		loop {
			self.session = None;
			let deadline = Instant::now() + self.server.timeout;
			let asked = self.connected(deadline).and_then(|session| {
				let moved = session.query(MOVE, &[&name, &row.epoch, &row.last, &over])?;
				if !moved.is_empty() {
					return Ok((true, Vec::new()));
				}
				Ok((false, session.query(GET_WRITER, &[&name])?))
			});
			match asked {
				Ok((true, _)) => return Ok(Settled::NotWritten(over)),
				Ok((false, rows)) => {
					let found = rows.first().map_or((0, 0), |row| (row.get(0), row.get(1)));
					return Ok(match found {
						// Another writer counts on from what it found: its numbers say nothing of ours,
						// which may have been written before it came.
						(epoch, _) if epoch != row.epoch => Settled::Buried(epoch),
						// An earlier attempt to settle, whose own reply was lost.
						(_, last) if last == over => Settled::NotWritten(over),
						(_, last) if last == sent => Settled::Written,
						_ => Settled::Rewound,
					});
				},
				// It starts, or ends, or is stopped.
				Err(failure) => {
					let said = Said(format!("{lost}, and then: {}", said_of(&failure)));
					let error = unavailable("committing", self.server.place(), &said);
					if !self.outages.pause(Asked::Write, &error) {
						return Err(failure);
					}
				},
			}
		}
	}

	/// Returns the error for a writer's row with a number that it cannot have.
	fn rewound(&self) -> StoreError {
		let said = format!(
			"{}: the database is not as this writer left it, it may have been restored from an older \
			 copy",
			self.server.place()
		);
		StoreError::Indeterminate { doing: "committing", source: Arc::new(Said(said)) }
	}

	/// Why the writer's row is not as we left it.
	fn look_who(&mut self, row: WriterRow) -> Result<StoreError, StoreError> {
		let name = self.namespace.name().to_owned();
		let rows = self.read_rows("looking for the writer", GET_WRITER, &[&name])?;
		let epoch = rows.first().map_or(0, |row| row.get(0));
		match epoch == row.epoch {
			true => Ok(self.rewound()),
			false => Ok(fenced(row.epoch, epoch)),
		}
	}
}

/// What became of a group whose reply was lost.
enum Settled {
	Written,
	/// And never will be. The writer's row has this number now.
	NotWritten(i64),
	/// Or it was, and another writer has come since, of this epoch.
	Buried(i64),
	/// The writer's row is of another time, so that the fate of the group is not known.
	Rewound,
}

impl RawRead for Engine {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		if let Some(frame) = self.foreseen.get(key) {
			return Ok(frame.clone());
		}
		let name = self.namespace.name().to_owned();
		let rows = self.read_rows("reading", GET, &[&name, &key.table().name(), &key.bytes()])?;
		Ok(rows.first().map(|row| row.get(0)))
	}

	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		let name = self.namespace.name().to_owned();
		let lowest = Key::numbered(table, prefix, 0);
		let highest = Key::numbered(table, prefix, u64::MAX);
		let length = i32::try_from(lowest.bytes().len()).unwrap_or(i32::MAX);
		let rows = self.read_rows(
			"reading",
			HIGHEST,
			&[&name, &table.name(), &lowest.bytes(), &highest.bytes(), &length],
		)?;
		let key = rows.first().map(|row| Key::new(table, row.get::<_, Vec<u8>>(0)));
		Ok(key.and_then(|key| key.number(prefix)))
	}

	/// Others may write, and the statement that writes looks at the epoch itself.
	fn is_shared(&self) -> bool {
		false
	}
}

impl Medium for Engine {
	fn scan(&mut self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError> {
		let name = self.namespace.name().to_owned();
		let mut range = range.clone();
		let mut rows = FIRST_ROWS;
		while !page.is_full() && !range.is_empty() {
			let sql = match (range.end().is_some(), range.is_reversed()) {
				(true, false) => SCAN_UP_TO,
				(true, true) => SCAN_DOWN_FROM,
				(false, false) => SCAN_UP,
				(false, true) => SCAN_DOWN,
			};
			let (table, start) = (range.table().name(), range.start());
			let found = match range.end() {
				Some(end) => {
					self.read_rows("scanning", sql, &[&name, &table, &start, &rows, &end])?
				},
				None => self.read_rows("scanning", sql, &[&name, &table, &start, &rows])?,
			};
			let mut bytes = 0;
			let mut last = None;
			for row in &found {
				if page.is_full() {
					return Ok(());
				}
				let (key, frame): (Vec<u8>, &[u8]) = (row.get(0), row.get(1));
				bytes += frame.len();
				page.push_frame(Key::new(range.table(), key.as_slice()), frame)?;
				last = Some(key);
			}
			match last {
				Some(last) if found.len() as i64 == rows => range = range.after(&last),
				_ => return Ok(()),
			}
			if bytes < SMALL_ROWS {
				rows = (rows * 4).min(MOST_ROWS);
			}
		}
		Ok(())
	}

	fn tables(&mut self) -> Result<Vec<String>, StoreError> {
		let name = self.namespace.name().to_owned();
		let rows = self.read_rows("listing tables", TABLES, &[&name])?;
		rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect()
	}

	fn write(&mut self, writes: Vec<RawWrite>, _: Durability) -> Result<(), StoreError> {
		let Some(row) = self.row else {
			return Err(StoreError::ReadOnly { place: self.server.place().to_owned() });
		};
		#[cfg(feature = "fault-injection")]
		if std::mem::take(&mut self.fail_next_write) {
			let source = Arc::new(Said("injected".to_owned()));
			return Err(StoreError::Indeterminate { doing: "committing", source });
		}
		self.send(row, writes)
	}

	fn foresee(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
		self.foreseen.clear();
		let keys: Vec<&Key> = foreseen(batches).collect();
		if keys.len() < 2 {
			return Ok(());
		}
		let name = self.namespace.name().to_owned();
		let tables: Vec<&str> = keys.iter().map(|key| key.table().name()).collect();
		let bytes: Vec<&[u8]> = keys.iter().map(|key| key.bytes()).collect();
		let rows = self.read_rows("reading", GET_MANY, &[&name, &tables, &bytes])?;
		let mut found: HashMap<(&str, &[u8]), Option<Vec<u8>>> = HashMap::new();
		for row in &rows {
			found.insert((text(row, 0)?, row.get(1)), row.get(2));
		}
		for key in keys {
			let frame = found.get(&(key.table().name(), key.bytes())).cloned().flatten();
			self.foreseen.insert(key.clone(), frame);
		}
		Ok(())
	}
}

/// What a group writes and deletes, as columns.
pub(super) type Puts = (Vec<&'static str>, Vec<Vec<u8>>, Vec<Vec<u8>>);
pub(super) type Deletes = (Vec<&'static str>, Vec<Vec<u8>>);

pub(super) fn columns(writes: Vec<RawWrite>) -> (Puts, Deletes) {
	let (mut puts, mut deletes) = (Puts::default(), Deletes::default());
	for (key, frame) in writes {
		match frame {
			Some(frame) => {
				puts.0.push(key.table().name());
				puts.1.push(key.bytes().to_vec());
				puts.2.push(frame);
			},
			None => {
				deletes.0.push(key.table().name());
				deletes.1.push(key.bytes().to_vec());
			},
		}
	}
	(puts, deletes)
}

/// Writes a group and moves the writer's row on, or does nothing: then the row is not as `row` says.
pub(super) fn write_columns(
	session: &mut Session, name: &str, row: WriterRow, next: i64, puts: &Puts, deletes: &Deletes,
) -> Result<bool, Failure> {
	let both: [&(dyn ToSql + Sync); 9] =
		[&name, &row.epoch, &row.last, &next, &puts.0, &puts.1, &puts.2, &deletes.0, &deletes.1];
	let (sql, parameters) = match deletes.0.is_empty() {
		true => (WRITE, both.get(..7).unwrap_or(&both)),
		false => (WRITE_AND_DELETE, both.as_slice()),
	};
	Ok(!session.query(sql, parameters)?.is_empty())
}

fn fenced(ours: i64, found: i64) -> StoreError {
	let epoch = |n: i64| Epoch::new(u64::try_from(n).unwrap_or_default());
	StoreError::Fenced { ours: epoch(ours), found: epoch(found) }
}

fn said_of(failure: &Failure) -> String {
	match failure {
		Failure::NotSent(said) | Failure::Lost(said) => said.0.clone(),
		Failure::Refused(error) => Said::all_of(error).0,
	}
}

fn not_sent(doing: &'static str, failure: &Failure) -> StoreError {
	StoreError::Unavailable { doing, source: Arc::new(Said(said_of(failure))) }
}

fn text(row: &Row, column: usize) -> Result<&str, StoreError> {
	row.try_get(column).map_err(|error| StoreError::Engine {
		doing: "reading a name",
		source: Arc::new(Said::all_of(&error)),
	})
}
