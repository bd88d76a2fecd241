// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The values of a log: places, entries, options.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use leyden_id::{EventId, EventKind, Lane, ParseError};
use leyden_store::Timestamp;

use crate::label::Label;
use crate::records::EntryV1;

/// Longest payload, in bytes (16 MiB).
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;
/// Longest name of a stream, in characters.
pub const MAX_STREAM_CHARS: usize = 16;
/// Longest name of a consumer, in characters.
pub const MAX_CONSUMER_CHARS: usize = 32;

/// The place of an entry in its stream, from 1 on. The order of places is the order of commits, and
/// no place is used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogIndex(pub(crate) NonZeroU64);

impl LogIndex {
	/// The place of this number; `None` for zero.
	pub fn new(number: u64) -> Option<Self> {
		NonZeroU64::new(number).map(Self)
	}

	/// The number.
	pub fn get(self) -> u64 {
		self.0.get()
	}
}

impl fmt::Display for LogIndex {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		self.0.fmt(f)
	}
}

/// Which log it is: drawn at random when the stream is created, so that a cursor of a log that was
/// lost and made anew is not taken for one of the new log.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LogEpoch(pub(crate) u64);

impl LogEpoch {
	/// The number.
	pub fn get(self) -> u64 {
		self.0
	}
}

impl fmt::Display for LogEpoch {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{:016x}", self.0)
	}
}

/// Where a reader has come to. It can be kept anywhere; its text form is `epoch.index`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cursor {
	pub(crate) epoch: LogEpoch,
	/// The last index read; zero at the start.
	pub(crate) after: u64,
	/// A mark that tells the last entry read from another one of its index; zero if it is not known.
	pub(crate) last: u64,
}

/// Returns what a cursor keeps of the entry that was read last.
pub(crate) fn mark_of(occurrence: &EventId) -> u64 {
	let (first, _) = occurrence.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
	u64::from_be_bytes(*first)
}

impl Cursor {
	/// The last entry read; `None` at the start.
	pub fn after(&self) -> Option<LogIndex> {
		LogIndex::new(self.after)
	}
}

impl fmt::Display for Cursor {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}.{}.{:016x}", self.epoch, self.after, self.last)
	}
}

impl FromStr for Cursor {
	type Err = ParseError;

	fn from_str(text: &str) -> Result<Self, ParseError> {
		let form = || ParseError::Form("16 hex digits, a dot, a number, a dot, 16 hex digits");
		let hex = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| form());
		let mut parts = text.split('.');
		let (Some(epoch), Some(after), Some(last), None) =
			(parts.next(), parts.next(), parts.next(), parts.next())
		else {
			return Err(form());
		};
		let after = after.parse().map_err(|_| form())?;
		let cursor = Self { epoch: LogEpoch(hex(epoch)?), after, last: hex(last)? };
		// Each place is written in one way: without a sign, and with all its digits.
		(cursor.to_string() == text).then_some(cursor).ok_or_else(form)
	}
}

/// An event to append.
#[derive(Clone, Eq, PartialEq)]
pub struct NewEvent {
	/// Its name; the same event again is not appended again.
	pub id: EventId,
	/// What sort of event it is.
	pub kind: EventKind,
	/// What it must stay in order with.
	pub lane: Lane,
	/// What the log keeps and does not look into; at most [`MAX_PAYLOAD_BYTES`].
	pub payload: Vec<u8>,
}

impl fmt::Debug for NewEvent {
	/// Without the payload, which may hold secrets.
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "NewEvent {{ {} {} {} }}", self.id, self.kind, self.lane)
	}
}

/// What became of an append.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Appended {
	/// It is in the log now.
	New(LogIndex),
	/// It was in the log already, or was and has been trimmed since. Nothing was written.
	AlreadyKnown(LogIndex),
}

impl Appended {
	/// The event's place, then or now.
	pub fn index(self) -> LogIndex {
		match self {
			Self::New(index) | Self::AlreadyKnown(index) => index,
		}
	}
}

/// An entry of the log.
#[derive(Clone, Eq, PartialEq)]
pub struct Entry {
	pub(crate) index: LogIndex,
	pub(crate) record: EntryV1,
}

impl Entry {
	/// Its place.
	pub fn index(&self) -> LogIndex {
		self.index
	}

	/// Its name.
	pub fn id(&self) -> EventId {
		self.record.label.id
	}

	/// Returns how often the source of the event had brought it before: 0 the first time.
	pub fn repeat(&self) -> u32 {
		self.record.label.repeat
	}

	/// What sort of event it is.
	pub fn kind(&self) -> &EventKind {
		&self.record.kind
	}

	/// What it stays in order with.
	pub fn lane(&self) -> Lane {
		self.record.label.lane
	}

	/// When it was appended, by the log's clock.
	pub fn appended_at(&self) -> Timestamp {
		self.record.appended_at
	}

	/// What was appended.
	pub fn payload(&self) -> &[u8] {
		&self.record.payload
	}
}

impl fmt::Debug for Entry {
	/// Without the payload, which may hold secrets.
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let EntryV1 { label: Label { id, lane, .. }, kind, payload, .. } = &self.record;
		write!(f, "Entry {{ {} {id} {kind} {lane}, {} bytes }}", self.index, payload.len())
	}
}

/// How long acked entries stay. Un-acked ones always stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
	/// At least so many.
	pub min_count: u64,
	/// At least so long.
	pub min_age: Duration,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogOptions {
	/// How long entries stay as history once every consumer has acked them. An entry goes when it
	/// is past both bounds.
	pub history: Retention,
	/// How long the id of an entry that is gone is still known, counted from the append. While it
	/// is, the same event again is no new entry.
	pub tombstones: Retention,
}

impl Default for LogOptions {
	/// Ten thousand entries and two weeks of history; a hundred thousand ids and a year.
	fn default() -> Self {
		const DAY: u64 = 24 * 60 * 60;
		Self {
			history: Retention { min_count: 10_000, min_age: Duration::from_secs(14 * DAY) },
			tombstones: Retention { min_count: 100_000, min_age: Duration::from_secs(365 * DAY) },
		}
	}
}

/// Where a new consumer begins. One that exists goes on where it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
	/// With the oldest entry there is.
	Beginning,
	/// With what is appended from now on.
	End,
	/// Behind this entry.
	After(LogIndex),
}

/// What happens to a lane whose entry has used up its attempts, or was given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnExhausted {
	/// The lane waits until an operator requeues or discards the entry: nothing overtakes it. The lane of an
	/// entry that is [damaged](crate::DamagedEntry) waits in any case.
	HoldLane,
	/// It goes on without the entry.
	MoveOn,
}

/// When a delivery that failed is tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
	/// How long to wait after the first failure; twice as long after each further one.
	pub first_wait: Duration,
	/// How long to wait at most.
	pub max_wait: Duration,
	/// How many attempts until the entry is a dead letter; `None` for no end.
	pub max_attempts: Option<u32>,
}

impl Default for RetryPolicy {
	/// From one second to ten minutes, without end: no entry is given up unless one says so.
	fn default() -> Self {
		Self {
			first_wait: Duration::from_secs(1),
			max_wait: Duration::from_secs(600),
			max_attempts: None,
		}
	}
}

impl RetryPolicy {
	/// How long to wait after so many failed attempts: doubled each time, capped, less up to a
	/// quarter that the entry's id decides, so that entries that failed together do not come back
	/// together.
	pub fn wait_after(&self, attempts: u32, id: &EventId) -> Duration {
		let factor = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
		let wait = self.first_wait.saturating_mul(factor).min(self.max_wait);
		let byte = id.as_bytes().get(attempts as usize % 32).copied().unwrap_or_default();
		wait - wait.mul_f64(f64::from(byte) / 256.0 / 4.0)
	}
}

/// How a consumer works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConsumerOptions {
	/// Where it begins, the first time.
	pub start: Start,
	/// When a failed delivery is tried again.
	pub retry: RetryPolicy,
	/// What happens to a lane with a dead letter.
	pub on_exhausted: OnExhausted,
	/// How many deliveries may be in somebody's hands at once.
	pub max_in_flight: usize,
	/// The number of processes in a row that may end, each within half a minute after an entry was
	/// delivered and before it was settled, until the entry is a dead letter; `None` for no end. From the third on
	/// the entry is delivered alone for up to half a minute, so that none is taken for what another
	/// one does. A process that is killed for another reason counts as well, and so does half a minute
	/// in which the consumer is not asked for anything.
	///
	/// Entries are counted that are there when the log is opened, the first
	/// [`max_in_flight`](ConsumerOptions::max_in_flight) that are delivered. Each of them costs a
	/// commit that is not flushed; a store that loses such commits when its process is killed (redb)
	/// counts less.
	pub max_crashes: Option<u32>,
}

impl Default for ConsumerOptions {
	/// From the beginning, without end, nothing overtaken, 1024 in flight, 10 crashes.
	fn default() -> Self {
		Self {
			start: Start::Beginning,
			retry: RetryPolicy::default(),
			on_exhausted: OnExhausted::HoldLane,
			max_in_flight: 1024,
			max_crashes: Some(10),
		}
	}
}

/// The backlog of a consumer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConsumerLag {
	/// The number of entries that it has not acked; exact if indexes have no gap.
	pub unacked: u64,
	/// The oldest of them.
	pub oldest: Option<LogIndex>,
	/// The time at which that one was appended, by the log's clock; `None` as well if it is damaged.
	pub oldest_appended_at: Option<Timestamp>,
}

/// An entry that was given up and waits for an operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeadLetter {
	/// Its place.
	pub index: LogIndex,
	/// The lane; `None` if the entry is damaged so far that its lane is not known. Then everything
	/// behind the entry waits.
	pub lane: Option<Lane>,
	/// How often it was tried.
	pub attempts: u32,
	/// When it was given up.
	pub parked_at: Timestamp,
	/// Whether its lane went on.
	pub moved_on: bool,
	/// Why.
	pub reason: String,
}
