// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is on disk. `D` is a debt's id (32).
//!
//! ```text
//! table         key                    record
//! pay_debts     D                      0x0601 DebtV1
//! pay_attempts  D, number              0x0602 AttemptV1
//! pay_hashes    payment hash           0x0603 HashV1: which debt it pays
//! pay_due       when (8), D            0x0604 DueV1
//! pay_notes     D, number              0x0605 NoteV1: what was decided, and why
//! pay_meta      "clock"                0x0606 ClockV1
//! pay_meta      "breaker"              0x0607 BreakerV1: nothing is paid
//! ```

use leyden_store::codec::{self, Stored};
use leyden_store::{Key, KeyRange, Record, RecordType, StoreError, Table, Timestamp, Value};
use serde::{Deserialize, Serialize};

use crate::law::State;
use crate::terms::DebtId;

pub(crate) const DEBTS: Table = Table::new("pay_debts");
pub(crate) const ATTEMPTS: Table = Table::new("pay_attempts");
pub(crate) const HASHES: Table = Table::new("pay_hashes");
const DUE: Table = Table::new("pay_due");
pub(crate) const NOTES: Table = Table::new("pay_notes");
const META: Table = Table::new("pay_meta");

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct DebtV1 {
	pub(crate) creditor: Vec<u8>,
	pub(crate) cause: String,
	pub(crate) amount_sat: u64,
	pub(crate) node_share_sat: u64,
	pub(crate) held: Option<[u8; 32]>,
	pub(crate) window_ms: u64,
	pub(crate) cadence_ms: u64,
	pub(crate) budget: u32,
	pub(crate) fee_cap_msat: u64,
	pub(crate) decided_at: Timestamp,
	/// When the money was in: the window begins. Never moves.
	pub(crate) slashed_at: Option<Timestamp>,
	pub(crate) state: StateV1,
	pub(crate) invoice: Option<InvoiceV1>,
	pub(crate) was_invoiced: bool,
	/// Dispatches of the invoice that are dead.
	pub(crate) spent: u32,
	/// The number of the last attempt.
	pub(crate) attempts: u32,
	pub(crate) live: Option<LiveV1>,
	pub(crate) nudges: u32,
	pub(crate) nudges_sent: u32,
	pub(crate) nudged_at: Option<Timestamp>,
	/// When it is looked at next; `None` if it is over.
	pub(crate) due: Option<Timestamp>,
	pub(crate) closed_at: Option<Timestamp>,
	pub(crate) notes: u32,
	/// Proof that somebody paid it by other means.
	pub(crate) outside: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum StateV1 {
	Decided,
	Owed,
	Paid,
	Kept,
	Forfeited,
	Failed,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct InvoiceV1 {
	pub(crate) text: String,
	pub(crate) payment_hash: [u8; 32],
	pub(crate) expires_at: Timestamp,
}

/// The attempt that is not known to be over, and who is at it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LiveV1 {
	pub(crate) number: u32,
	pub(crate) owner: u64,
	/// Until then nobody else is.
	pub(crate) lease: Timestamp,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct AttemptV1 {
	pub(crate) invoice: String,
	pub(crate) payment_hash: [u8; 32],
	pub(crate) amount_msat: u64,
	pub(crate) fee_cap_msat: u64,
	pub(crate) planned_at: Timestamp,
	pub(crate) verdict: VerdictV1,
	pub(crate) ended_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum VerdictV1 {
	/// The node is about to be told.
	Planned,
	/// It is at it.
	Dispatched,
	/// It is not known whether it was told.
	Unknown,
	Settled {
		preimage: [u8; 32],
		fee_msat: u64,
	},
	Dead {
		/// Whether it used the budget.
		counts: bool,
	},
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct HashV1 {
	pub(crate) debt: [u8; 32],
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct DueV1 {}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct NoteV1 {
	pub(crate) at: Timestamp,
	pub(crate) what: String,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ClockV1 {
	/// For what cannot be taken back.
	pub(crate) steady: Timestamp,
	/// For what is to be done again.
	pub(crate) now: Timestamp,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct BreakerV1 {
	pub(crate) at: Timestamp,
	pub(crate) reason: String,
}

macro_rules! stored {
	($($name:ident $number:literal),* $(,)?) => {$(
		impl Stored for $name {
			const TYPE: RecordType = RecordType($number);
			const SCHEMA: u16 = 1;
		}
	)*};
}

stored! {
	DebtV1 0x0601,
	AttemptV1 0x0602,
	HashV1 0x0603,
	DueV1 0x0604,
	NoteV1 0x0605,
	ClockV1 0x0606,
	BreakerV1 0x0607,
}

impl From<StateV1> for State {
	fn from(state: StateV1) -> Self {
		match state {
			StateV1::Decided => Self::Decided,
			StateV1::Owed => Self::Owed,
			StateV1::Paid => Self::Paid,
			StateV1::Kept => Self::Kept,
			StateV1::Forfeited => Self::Forfeited,
			StateV1::Failed => Self::Failed,
		}
	}
}

impl DebtV1 {
	pub(crate) fn share_sat(&self) -> u64 {
		self.amount_sat.saturating_sub(self.node_share_sat)
	}

	pub(crate) fn share_msat(&self) -> u64 {
		self.share_sat().saturating_mul(1000)
	}

	/// When the window ends; never, before it has begun.
	pub(crate) fn deadline(&self) -> Timestamp {
		let window = std::time::Duration::from_millis(self.window_ms);
		self.slashed_at.map_or(Timestamp(u64::MAX), |at| at.after(window))
	}
}

impl VerdictV1 {
	/// Whether it may still be paid.
	pub(crate) fn is_open(self) -> bool {
		matches!(self, Self::Planned | Self::Dispatched | Self::Unknown)
	}
}

pub(crate) fn debt_key(id: &DebtId) -> Key {
	Key::new(DEBTS, *id.as_bytes())
}

pub(crate) fn attempt_key(id: &DebtId, number: u32) -> Key {
	Key::numbered(ATTEMPTS, id.as_bytes(), number.into())
}

pub(crate) fn attempts(id: &DebtId) -> KeyRange {
	KeyRange::prefix(ATTEMPTS, id.as_bytes())
}

pub(crate) fn hash_key(payment_hash: &[u8; 32]) -> Key {
	Key::new(HASHES, *payment_hash)
}

pub(crate) fn due_key(due: Timestamp, id: &DebtId) -> Key {
	Key::new(DUE, [&due.0.to_be_bytes()[..], id.as_bytes()].concat())
}

/// Debts that are due.
pub(crate) fn due(now: Timestamp) -> KeyRange {
	KeyRange::all(DUE).below(&now.0.saturating_add(1).to_be_bytes())
}

/// Whose place among those that are due this is.
pub(crate) fn due_of(key: &Key) -> Result<DebtId, StoreError> {
	let id = key.bytes().get(8..).and_then(|bytes| bytes.try_into().ok());
	let id: [u8; 32] = id.ok_or_else(|| StoreError::corrupt(key, "this names no debt"))?;
	Ok(DebtId::from_bytes(id))
}

pub(crate) fn id_of(key: &Key) -> Result<DebtId, StoreError> {
	let id = key.bytes().first_chunk::<32>().copied();
	Ok(DebtId::from_bytes(id.ok_or_else(|| StoreError::corrupt(key, "this names no debt"))?))
}

pub(crate) fn number_of(key: &Key) -> Result<u32, StoreError> {
	let number = key.bytes().last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
	let number = number.and_then(|number| u32::try_from(number).ok());
	number.ok_or_else(|| StoreError::corrupt(key, "this ends in no number"))
}

pub(crate) fn note_key(id: &DebtId, number: u32) -> Key {
	Key::numbered(NOTES, id.as_bytes(), number.into())
}

pub(crate) fn notes(id: &DebtId) -> KeyRange {
	KeyRange::prefix(NOTES, id.as_bytes())
}

pub(crate) fn clock_key() -> Key {
	Key::new(META, *b"clock")
}

pub(crate) fn breaker_key() -> Key {
	Key::new(META, *b"breaker")
}

pub(crate) fn read<T: Stored>(key: &Key, record: &Record) -> Result<T, StoreError> {
	codec::decode(key, record)
}

pub(crate) fn value<T: Stored>(record: &T) -> Result<Value, StoreError> {
	codec::encode(record)
}
