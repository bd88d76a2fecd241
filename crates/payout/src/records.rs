// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The records of debts on disk. `D` is a debt's id (32); `S` is a source: a kind (1 held, 2 budget) and
//! an id (32).
//!
//! ```text
//! table         key                    record
//! pay_debts     D                      0x0601 DebtV1
//! pay_attempts  D, number              0x0602 AttemptV1
//! pay_hashes    payment hash           0x0603 HashV1: the debt that it pays
//! pay_due       when (8), D            0x0604 DueV1
//! pay_notes     D, number              0x0605 NoteV1: a decision, and the reason for it
//! pay_sources   S                      0x0606 SourceV1: the sum of the debts of a source
//! pay_shares    S, D                   0x0609 ShareV1: the part of a debt in that
//! pay_meta      "freeze"               0x0607 FreezeV1: nothing is paid
//! pay_meta      "restorations"         0x0608 SeenV1: the restorations of the store that are known
//! ```

use std::fmt;
use std::time::Duration;

pub(crate) use leyden_store::codec::{decode as read, encode as value};
use leyden_store::{Key, KeyRange, Stamp, StoreError, Table, Times, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::DebtId;
use crate::new_debt::Source;
use crate::payer::NodeToken;
use crate::state::State;

pub(crate) const DEBTS: Table = Table::new("pay_debts");
const ATTEMPTS: Table = Table::new("pay_attempts");
const HASHES: Table = Table::new("pay_hashes");
const DUE: Table = Table::new("pay_due");
const NOTES: Table = Table::new("pay_notes");
pub(crate) const SOURCES: Table = Table::new("pay_sources");
const SHARES: Table = Table::new("pay_shares");
const META: Table = Table::new("pay_meta");

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct DebtV1 {
	pub(crate) payee: Vec<u8>,
	pub(crate) cause: String,
	pub(crate) amount_sat: u64,
	pub(crate) node_share_sat: u64,
	pub(crate) source: SourceRefV1,
	pub(crate) invoice_window_ms: u64,
	pub(crate) reminder_interval_ms: u64,
	pub(crate) max_failed_attempts: u32,
	pub(crate) fee_cap_msat: u64,
	pub(crate) decided: Stamp,
	/// The moment when the money was in, and the window began. That moment never moves.
	pub(crate) window_start: Option<Stamp>,
	pub(crate) state: StateV1,
	pub(crate) invoice: Option<InvoiceV1>,
	pub(crate) was_invoiced: bool,
	/// Failed attempts that count, since the last invoice that opened the debt.
	pub(crate) failed_attempts: u32,
	/// Attempts with the present invoice that did not pay, counted or not: the pause grows with them.
	pub(crate) setbacks: u32,
	/// An operator was told that the node has no funds for the present invoice.
	pub(crate) told_no_funds: bool,
	/// An operator was told that there is no route with the present invoice.
	pub(crate) told_no_route: bool,
	/// The number of the last attempt.
	pub(crate) attempts: u32,
	pub(crate) live: Option<LiveV1>,
	/// The attempts that an operator has declared dead: after each the debt is compared with the node again.
	pub(crate) declared: u32,
	/// An attempt that has paid while the debt could not be closed: nothing else is sent.
	pub(crate) paid_by: Option<u32>,
	pub(crate) reminders: u32,
	pub(crate) reminders_delivered: u32,
	/// The running time at which the first reminder was delivered.
	pub(crate) first_delivered_at: Option<Timestamp>,
	pub(crate) reminded_at: Option<Timestamp>,
	/// The debt may have been paid before this store knew of it, as far as anything proves, and an operator
	/// was told.
	pub(crate) is_unproven: bool,
	/// The time at which it is looked at next; `None` if it is over.
	pub(crate) due: Option<Timestamp>,
	pub(crate) closed_at: Option<Timestamp>,
	pub(crate) notes: u32,
	/// Proof that it was paid by other means.
	pub(crate) outside: Option<OutsideV1>,
}

/// Proof that a debt was paid by other means.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum OutsideV1 {
	Preimage([u8; 32]),
	Reference(String),
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum SourceRefV1 {
	InHand,
	Held([u8; 32]),
	Budget([u8; 32]),
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum StateV1 {
	Decided,
	Owed,
	Paid,
	Kept,
	Forfeited,
	Failed,
	Void,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct InvoiceV1 {
	pub(crate) text: String,
	pub(crate) payment_hash: [u8; 32],
	pub(crate) expires_at: Timestamp,
}

/// The attempt that is not known to be over, and the worker that looks after it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LiveV1 {
	pub(crate) number: u32,
	pub(crate) owner: u64,
	/// The time until which no other worker looks after the attempt.
	pub(crate) lease: Timestamp,
}

#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct AttemptV1 {
	/// The invoice; empty for an attempt that the node knew and the store did not.
	pub(crate) invoice: String,
	pub(crate) payment_hash: [u8; 32],
	pub(crate) amount_msat: u64,
	pub(crate) fee_cap_msat: u64,
	/// The node's own name for it, or for the moment before it; for a payment that was not made for this
	/// debt and has paid it, the name of that.
	pub(crate) token: NodeToken,
	pub(crate) planned: Stamp,
	pub(crate) planned_at: Timestamp,
	/// The moment when the node was told last.
	pub(crate) ordered: Stamp,
	pub(crate) verdict: VerdictV1,
	/// The node's word on the attempt contradicts what the store knows: an operator was told.
	pub(crate) is_questioned: bool,
	pub(crate) ended_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum VerdictV1 {
	/// The node is about to be told.
	Planned,
	/// The node has accepted it.
	Accepted,
	/// The node may have been told.
	Unknown,
	Settled {
		preimage: [u8; 32],
		fee_msat: Option<u64>,
	},
	Dead {
		/// `true` if the attempt counts as a failed one.
		counts: bool,
		/// `true` if the node is known to have sent nothing for the attempt.
		never_sent: bool,
	},
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct HashV1 {
	pub(crate) debt: [u8; 32],
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct DueV1 {}

/// A held payment or a budget, and the sum of the debts that are paid out of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct SourceV1 {
	pub(crate) amount_sat: u64,
	pub(crate) debts_sat: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ShareV1 {
	pub(crate) amount_sat: u64,
}

/// The restorations of the store after which an operator was told to look.
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
pub(crate) struct FreezeV1 {
	/// The time of the first reason.
	pub(crate) at: Timestamp,
	/// The reasons, the oldest first.
	pub(crate) reasons: Vec<String>,
	/// The number of reasons that had no room among the others.
	pub(crate) more: u32,
}

leyden_store::stored! {
	DebtV1 = 0x0601,
	AttemptV1 = 0x0602,
	HashV1 = 0x0603,
	DueV1 = 0x0604,
	NoteV1 = 0x0605,
	SourceV1 = 0x0606,
	FreezeV1 = 0x0607,
	SeenV1 = 0x0608,
	ShareV1 = 0x0609,
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
			StateV1::Void => Self::Void,
		}
	}
}

impl StateV1 {
	/// Returns `true` if nothing is done any more.
	pub(crate) fn is_over(self) -> bool {
		!matches!(self, Self::Decided | Self::Owed)
	}
}

impl From<Source> for SourceRefV1 {
	fn from(source: Source) -> Self {
		match source {
			Source::InHand => Self::InHand,
			Source::Held { payment_hash, .. } => Self::Held(payment_hash),
			Source::Budget { id, .. } => Self::Budget(id),
		}
	}
}

impl SourceRefV1 {
	/// The bytes of a source in keys; `None` for money that no other debt shares.
	pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
		let (kind, id) = match self {
			Self::InHand => return None,
			Self::Held(payment_hash) => (1_u8, payment_hash),
			Self::Budget(id) => (2, id),
		};
		Some([&[kind][..], id].concat())
	}
}

impl DebtV1 {
	pub(crate) fn share_sat(&self) -> u64 {
		self.amount_sat.saturating_sub(self.node_share_sat)
	}

	pub(crate) fn share_msat(&self) -> u64 {
		self.share_sat().saturating_mul(1000)
	}

	pub(crate) fn reminder_interval(&self) -> Duration {
		Duration::from_millis(self.reminder_interval_ms)
	}

	/// The rest of the window; none if the window is over, and endless before it has begun.
	pub(crate) fn window_left(&self, times: &Times) -> Option<Duration> {
		let window = Duration::from_millis(self.invoice_window_ms);
		let Some(start) = self.window_start else { return Some(Duration::MAX) };
		window.checked_sub(times.age(start)).filter(|left| !left.is_zero())
	}

	/// The end of the window in steady time; `None` before the window has begun.
	pub(crate) fn window_end(&self, times: &Times) -> Option<Timestamp> {
		let window = Duration::from_millis(self.invoice_window_ms);
		let age = times.age(self.window_start?);
		Some(match window.checked_sub(age) {
			Some(left) => times.steady.after(left),
			None => Timestamp(0).after(times.steady.since(Timestamp(0).after(age - window))),
		})
	}

	/// Returns `true` if the debt is counted into the sum of its source: a void one has given its part back.
	pub(crate) fn is_counted(&self) -> bool {
		self.window_start.is_some() || self.state == StateV1::Decided
	}
}

impl VerdictV1 {
	/// Returns `true` if the attempt may still pay.
	pub(crate) fn is_open(self) -> bool {
		matches!(self, Self::Planned | Self::Accepted | Self::Unknown)
	}

	/// Returns `true` if the node may have sent something for the attempt.
	pub(crate) fn may_have_paid(self) -> bool {
		!matches!(self, Self::Dead { never_sent: true, .. })
	}

	pub(crate) fn settled(self) -> Option<([u8; 32], Option<u64>)> {
		match self {
			Self::Settled { preimage, fee_msat } => Some((preimage, fee_msat)),
			_ => None,
		}
	}
}

/// Shows no payee, who may be a person, and no proof.
impl fmt::Debug for DebtV1 {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { state, attempts, live, due, .. } = self;
		write!(f, "DebtV1({state:?}, {attempts} attempts, live {live:?}, due {due:?})")
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

/// The debts that are due.
pub(crate) fn due(now: Timestamp) -> KeyRange {
	KeyRange::all(DUE).below(&now.0.saturating_add(1).to_be_bytes())
}

/// Every debt that is looked at again.
pub(crate) fn all_due() -> KeyRange {
	KeyRange::all(DUE)
}

/// Returns `true` if a table is one of payouts.
pub(crate) fn is_own(table: Table) -> bool {
	[DEBTS, ATTEMPTS, HASHES, DUE, NOTES, SOURCES, SHARES, META].contains(&table)
}

/// The debt of a key among those that are due.
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

pub(crate) fn freeze_key() -> Key {
	Key::new(META, *b"freeze")
}

pub(crate) fn source_key(source: &[u8]) -> Key {
	Key::new(SOURCES, source)
}

pub(crate) fn share_key(source: &[u8], id: &DebtId) -> Key {
	Key::new(SHARES, [source, id.as_bytes()].concat())
}

/// The parts of all debts in a source.
pub(crate) fn shares(source: &[u8]) -> KeyRange {
	KeyRange::prefix(SHARES, source)
}

/// The debt of a key among the parts of a source.
pub(crate) fn share_debt(key: &Key) -> Result<DebtId, StoreError> {
	let id = key.bytes().last_chunk::<32>().copied();
	Ok(DebtId::from_bytes(id.ok_or_else(|| StoreError::corrupt(key, "this names no debt"))?))
}

#[cfg(test)]
mod tests {
	use super::*;
	use bitcoin::hashes::{sha256, Hash};
	use leyden_store::codec::Stored;

	fn hex<T: Stored>(record: &T) -> String {
		value(record).unwrap().body.iter().map(|byte| format!("{byte:02x}")).collect()
	}

	/// The bytes on users' disks. A change is a new schema, never another golden.
	#[test]
	fn golden_bytes() {
		let stamp = Stamp { wall: Timestamp(9), steady: Timestamp(10), followed_ms: 27 };
		let debt = DebtV1 {
			payee: vec![1],
			cause: "c".to_owned(),
			amount_sat: 2,
			node_share_sat: 3,
			source: SourceRefV1::Held([4; 32]),
			invoice_window_ms: 5,
			reminder_interval_ms: 6,
			max_failed_attempts: 7,
			fee_cap_msat: 8,
			decided: stamp,
			window_start: Some(stamp),
			state: StateV1::Void,
			invoice: Some(InvoiceV1 {
				text: "i".to_owned(),
				payment_hash: [11; 32],
				expires_at: Timestamp(12),
			}),
			was_invoiced: true,
			failed_attempts: 13,
			setbacks: 14,
			told_no_funds: true,
			told_no_route: false,
			attempts: 15,
			live: Some(LiveV1 { number: 16, owner: 17, lease: Timestamp(18) }),
			declared: 25,
			paid_by: Some(26),
			reminders: 19,
			reminders_delivered: 20,
			first_delivered_at: Some(Timestamp(22)),
			reminded_at: Some(Timestamp(21)),
			is_unproven: true,
			due: Some(Timestamp(23)),
			closed_at: None,
			notes: 24,
			outside: Some(OutsideV1::Reference("o".to_owned())),
		};
		let mut expected = String::from("0000000000000001010000000000000001630000000000000002");
		expected += "000000000000000300000001";
		expected += &"04".repeat(32);
		expected += "0000000000000005000000000000000600000007000000000000000800000000000000090000";
		expected += "00000000000a000000000000001b010000000000000009000000000000000a000000000000001b00000006";
		assert!(hex(&debt).starts_with(&expected), "{}", hex(&debt));
		// The rest, by its hash: it is long.
		let hash = sha256::Hash::hash(hex(&debt).as_bytes()).to_string();
		assert_eq!(hash, "13539b21fe65c9d617a5c27c9ac42cbcc0e762ace20676982b11bba4da262f5f");
		let attempt = |verdict| AttemptV1 {
			invoice: "i".to_owned(),
			payment_hash: [1; 32],
			amount_msat: 2,
			fee_cap_msat: 3,
			token: NodeToken::new([4]).unwrap(),
			planned: stamp,
			planned_at: Timestamp(5),
			ordered: stamp,
			verdict,
			is_questioned: true,
			ended_at: Some(Timestamp(6)),
		};
		let head = format!(
			"000000000000000169{}00000000000000020000000000000003000000000000000104{}{}{}",
			"01".repeat(32),
			"0000000000000009000000000000000a000000000000001b",
			"0000000000000005",
			"0000000000000009000000000000000a000000000000001b",
		);
		let tail = "01010000000000000006";
		let settled = |fee_msat| VerdictV1::Settled { preimage: [6; 32], fee_msat };
		for (verdict, body) in [
			(VerdictV1::Planned, "00000000".to_owned()),
			(VerdictV1::Accepted, "00000001".to_owned()),
			(VerdictV1::Unknown, "00000002".to_owned()),
			(settled(Some(7)), format!("00000003{}010000000000000007", "06".repeat(32))),
			(settled(None), format!("00000003{}00", "06".repeat(32))),
			(VerdictV1::Dead { counts: true, never_sent: false }, "000000040100".to_owned()),
		] {
			assert_eq!(hex(&attempt(verdict)), format!("{head}{body}{tail}"));
		}
		assert_eq!(hex(&HashV1 { debt: [1; 32] }), "01".repeat(32));
		assert_eq!(hex(&DueV1 {}), "");
		let note = NoteV1 { at: Timestamp(1), what: "w".to_owned() };
		assert_eq!(hex(&note), "0000000000000001000000000000000177");
		let source = SourceV1 { amount_sat: 1, debts_sat: 2 };
		assert_eq!(hex(&source), "00000000000000010000000000000002");
		assert_eq!(hex(&ShareV1 { amount_sat: 3 }), "0000000000000003");
		assert_eq!(hex(&SeenV1 { restorations: 3 }), "00000003");
		let freeze = FreezeV1 { at: Timestamp(1), reasons: vec!["r".to_owned()], more: 2 };
		assert_eq!(hex(&freeze), "0000000000000001000000000000000100000000000000017200000002");
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
		let source = SourceRefV1::Budget([2; 32]).bytes().unwrap();
		assert_eq!(share_debt(&share_key(&source, &id)).unwrap(), id);
		assert!(share_key(&source, &id).bytes().len() <= leyden_store::key::MAX_KEY_BYTES);
		assert!(share_debt(&Key::new(SHARES, *b"short")).is_err());
	}
}
