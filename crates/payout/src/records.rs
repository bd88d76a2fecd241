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
//! pay_meta      "breaker"              0x0607 BreakerV1: nothing is paid
//! pay_meta      "restorations"         0x0608 SeenV1: those of the store that are known
//! ```

pub(crate) use leyden_store::codec::{decode as read, encode as value};
use leyden_store::{Key, KeyRange, StoreError, Table, Timestamp};
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

/// The restorations of the store after which somebody was told to look.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct SeenV1 {
	pub(crate) restorations: u32,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct NoteV1 {
	pub(crate) at: Timestamp,
	pub(crate) what: String,
}
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct BreakerV1 {
	pub(crate) at: Timestamp,
	pub(crate) reason: String,
}

leyden_store::stored! {
	DebtV1 = 0x0601,
	AttemptV1 = 0x0602,
	HashV1 = 0x0603,
	DueV1 = 0x0604,
	NoteV1 = 0x0605,
	BreakerV1 = 0x0607,
	SeenV1 = 0x0608,
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

pub(crate) fn seen_key() -> Key {
	Key::new(META, *b"restorations")
}

pub(crate) fn breaker_key() -> Key {
	Key::new(META, *b"breaker")
}

#[cfg(test)]
mod tests {
	use super::*;
	use bitcoin::hashes::{sha256, Hash};
	use leyden_store::codec::Stored;

	fn hex<T: Stored>(record: &T) -> String {
		value(record).unwrap().body.iter().map(|byte| format!("{byte:02x}")).collect()
	}

	/// What is on users' disks. A change is a new schema, never another golden.
	#[test]
	fn golden_bytes() {
		let debt = DebtV1 {
			creditor: vec![1],
			cause: "c".to_owned(),
			amount_sat: 2,
			node_share_sat: 3,
			held: Some([4; 32]),
			window_ms: 5,
			cadence_ms: 6,
			budget: 7,
			fee_cap_msat: 8,
			decided_at: Timestamp(9),
			slashed_at: Some(Timestamp(10)),
			state: StateV1::Failed,
			invoice: Some(InvoiceV1 {
				text: "i".to_owned(),
				payment_hash: [11; 32],
				expires_at: Timestamp(12),
			}),
			was_invoiced: true,
			spent: 13,
			attempts: 14,
			live: Some(LiveV1 { number: 15, owner: 16, lease: Timestamp(17) }),
			nudges: 18,
			nudges_sent: 19,
			nudged_at: Some(Timestamp(20)),
			due: Some(Timestamp(21)),
			closed_at: None,
			notes: 22,
			outside: Some("o".to_owned()),
		};
		let mut expected = String::from("0000000000000001010000000000000001630000000000000002");
		expected += "000000000000000301";
		expected += &"04".repeat(32);
		expected += "0000000000000005000000000000000600000007000000000000000800000000000000090100";
		expected += "0000000000000a00000005";
		assert!(hex(&debt).starts_with(&expected), "{}", hex(&debt));
		// The rest, by its hash: it is long.
		let hash = sha256::Hash::hash(hex(&debt).as_bytes()).to_string();
		assert_eq!(hash, "fe6c0070bd9da3a3612398aa54328bc6b6ac3921e47e96250e468fab5cfabc34");
		let attempt = |verdict| AttemptV1 {
			invoice: "i".to_owned(),
			payment_hash: [1; 32],
			amount_msat: 2,
			fee_cap_msat: 3,
			planned_at: Timestamp(4),
			verdict,
			ended_at: Some(Timestamp(5)),
		};
		let head = format!(
			"000000000000000169{}000000000000000200000000000000030000000000000004",
			"01".repeat(32)
		);
		let tail = "010000000000000005";
		let settled = VerdictV1::Settled { preimage: [6; 32], fee_msat: 7 };
		for (verdict, body) in [
			(VerdictV1::Planned, "00000000".to_owned()),
			(VerdictV1::Dispatched, "00000001".to_owned()),
			(VerdictV1::Unknown, "00000002".to_owned()),
			(settled, format!("00000003{}0000000000000007", "06".repeat(32))),
			(VerdictV1::Dead { counts: true }, "0000000401".to_owned()),
		] {
			assert_eq!(hex(&attempt(verdict)), format!("{head}{body}{tail}"));
		}
		assert_eq!(hex(&HashV1 { debt: [1; 32] }), "01".repeat(32));
		assert_eq!(hex(&DueV1 {}), "");
		let note = NoteV1 { at: Timestamp(1), what: "w".to_owned() };
		assert_eq!(hex(&note), "0000000000000001000000000000000177");
		assert_eq!(hex(&SeenV1 { restorations: 3 }), "00000003");
		let breaker = BreakerV1 { at: Timestamp(1), reason: "r".to_owned() };
		assert_eq!(hex(&breaker), "0000000000000001000000000000000172");
	}

	#[test]
	fn keys_read_back() {
		let id = DebtId::from_bytes([7; 32]);
		assert_eq!(due_of(&due_key(Timestamp(5), &id)).unwrap(), id);
		assert_eq!(number_of(&attempt_key(&id, 9)).unwrap(), 9);
		assert_eq!(id_of(&attempt_key(&id, 9)).unwrap(), id);
		for short in
			[due_of(&Key::new(DUE, *b"y")).is_err(), number_of(&Key::new(DUE, *b"x")).is_err()]
		{
			assert!(short);
		}
		assert!(id_of(&Key::new(DEBTS, *b"short")).is_err());
	}
}
