// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! A record, and how what is heard changes it.
//!
//! ```text
//! table             key          record
//! fundings          payment id   0x0304 FundingV1
//! funding_txids     txid         0x0305 TxidV1: the payment it belongs to
//! funding_pending   payment id   0x0305 TxidV1: looked at with every block
//! ```

use bitcoin::hashes::Hash;
use bitcoin::Txid;
use leyden_id::ChannelId;

use leyden_store::{Key, Table};
use serde::{Deserialize, Serialize};

use super::ANTI_REORG_DELAY;
use crate::parts::SpliceId;

pub(super) const FUNDINGS: Table = Table::new("fundings");
pub(super) const TXIDS: Table = Table::new("funding_txids");
pub(super) const PENDING: Table = Table::new("funding_pending");

/// Candidates that a record remembers; of more, the newest and the confirmed one.
pub const MAX_CANDIDATES: usize = 64;

/// What the wallet pays and pays for in a candidate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
	/// What the channel gains from us, in satoshi; less than zero if it pays out.
	pub net_sat: i64,
	/// What we pay to the miner, in satoshi.
	pub fee_sat: u64,
}

/// A transaction that may become the funding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
	/// Its id.
	pub txid: Txid,
	/// Our share; `None` if we are not in it, or nobody has said.
	pub share: Option<Share>,
}

/// How a funding stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FundingState {
	/// Not final.
	Pending {
		/// Where the record's transaction is confirmed.
		confirmed_at: Option<u32>,
	},
	/// Its transaction is too deep to be undone, so far as anybody knows.
	Succeeded {
		/// Where it is confirmed.
		confirmed_at: u32,
	},
	/// Another transaction is, in its place.
	Failed {
		/// Which.
		lost_to: Txid,
	},
}

impl FundingState {
	/// Whether it is looked at no more, unless the chain is reorganized.
	pub fn is_final(&self) -> bool {
		!matches!(self, Self::Pending { .. })
	}

	/// Whether another transaction was confirmed in its place.
	pub fn is_failed(&self) -> bool {
		matches!(self, Self::Failed { .. })
	}
}

/// The payment record of a funding, with all its candidates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FundingRecord {
	/// The payment's id: the splice's, or the first transaction's if the splice is the peer's.
	pub id: SpliceId,
	/// The channel.
	pub channel: ChannelId,
	/// The transaction that counts: the confirmed one, or the newest.
	pub txid: Txid,
	/// Every transaction there was, oldest first.
	pub candidates: Vec<Candidate>,
	/// How it stands.
	pub state: FundingState,
	/// A confirmed transaction that spends what ours spend, and where.
	pub conflict: Option<(Txid, u32)>,
}

impl FundingRecord {
	pub(super) fn new(id: SpliceId, channel: ChannelId, txid: Txid) -> Self {
		Self {
			id,
			channel,
			txid,
			candidates: vec![Candidate { txid, share: None }],
			state: FundingState::Pending { confirmed_at: None },
			conflict: None,
		}
	}

	/// Our share in the transaction that counts.
	pub fn share(&self) -> Option<Share> {
		let mut candidates = self.candidates.iter();
		candidates.find(|candidate| candidate.txid == self.txid)?.share
	}

	/// Figures are taken over, each for its own transaction; a confirmation stays what it is.
	pub(super) fn classified(&mut self, candidates: &[Candidate]) {
		for new in candidates {
			match self.candidates.iter_mut().find(|known| known.txid == new.txid) {
				Some(known) => known.share = new.share.or(known.share),
				None => self.add(*new),
			}
		}
		let unconfirmed = FundingState::Pending { confirmed_at: None };
		if let (Some(newest), true) = (candidates.last(), self.state == unconfirmed) {
			self.txid = newest.txid;
		}
	}

	pub(super) fn seen(&mut self, txid: Txid, height: Option<u32>) {
		if !self.candidates.iter().any(|candidate| candidate.txid == txid) {
			self.add(Candidate { txid, share: None });
		}
		match height {
			Some(height) => {
				let deep = matches!(self.state, FundingState::Succeeded { confirmed_at }
					if self.txid == txid && confirmed_at == height);
				self.txid = txid;
				self.conflict = None;
				if !deep {
					self.state = FundingState::Pending { confirmed_at: Some(height) };
				}
			},
			// Taken out of the chain again. Of another candidate it says nothing.
			None if self.txid == txid && !self.state.is_failed() => {
				self.state = FundingState::Pending { confirmed_at: None };
			},
			None => {},
		}
	}

	pub(super) fn replaced(&mut self, by: Txid, height: Option<u32>) {
		if self.candidates.iter().any(|candidate| candidate.txid == by) {
			// By another candidate: that is no loss.
			return;
		}
		match height {
			Some(height) => {
				self.conflict = Some((by, height));
				if !self.state.is_failed() {
					self.state = FundingState::Pending { confirmed_at: None };
				}
			},
			None if self.conflict.is_some_and(|(txid, _)| txid == by) => {
				self.conflict = None;
				self.state = FundingState::Pending { confirmed_at: None };
			},
			None => {},
		}
	}

	/// Whether it became final.
	pub(super) fn tip(&mut self, tip: u32) -> bool {
		let deep = |at: u32| tip.saturating_add(1).saturating_sub(at) >= ANTI_REORG_DELAY;
		match (self.state, self.conflict) {
			(FundingState::Pending { confirmed_at: Some(at) }, _) if deep(at) => {
				self.state = FundingState::Succeeded { confirmed_at: at };
				true
			},
			(FundingState::Pending { confirmed_at: None }, Some((lost_to, at))) if deep(at) => {
				self.state = FundingState::Failed { lost_to };
				true
			},
			_ => false,
		}
	}

	fn add(&mut self, candidate: Candidate) {
		if self.candidates.len() >= MAX_CANDIDATES {
			let counts = self.txid;
			if let Some(at) = self.candidates.iter().position(|known| known.txid != counts) {
				self.candidates.remove(at);
			}
		}
		self.candidates.push(candidate);
	}
}

/// The payment that a transaction belongs to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct TxidV1 {
	pub(super) id: [u8; 32],
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct FundingV1 {
	id: [u8; 32],
	channel: [u8; 32],
	txid: [u8; 32],
	candidates: Vec<CandidateV1>,
	state: StateV1,
	conflict: Option<([u8; 32], u32)>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct CandidateV1([u8; 32], Option<(i64, u64)>);

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum StateV1 {
	Pending(Option<u32>),
	Succeeded(u32),
	Failed([u8; 32]),
}

leyden_store::stored! {
	FundingV1 = 0x0304,
	TxidV1 = 0x0305,
}

pub(super) fn key_of_txid(txid: &Txid) -> Key {
	Key::new(TXIDS, txid.to_byte_array())
}

impl From<&FundingRecord> for FundingV1 {
	fn from(record: &FundingRecord) -> Self {
		let candidate = |c: &Candidate| {
			CandidateV1(c.txid.to_byte_array(), c.share.map(|s| (s.net_sat, s.fee_sat)))
		};
		Self {
			id: *record.id.as_bytes(),
			channel: record.channel.0,
			txid: record.txid.to_byte_array(),
			candidates: record.candidates.iter().map(candidate).collect(),
			state: match record.state {
				FundingState::Pending { confirmed_at } => StateV1::Pending(confirmed_at),
				FundingState::Succeeded { confirmed_at } => StateV1::Succeeded(confirmed_at),
				FundingState::Failed { lost_to } => StateV1::Failed(lost_to.to_byte_array()),
			},
			conflict: record.conflict.map(|(txid, height)| (txid.to_byte_array(), height)),
		}
	}
}

impl FundingV1 {
	pub(crate) fn into_record(self) -> FundingRecord {
		let txid = Txid::from_byte_array;
		let candidate = |CandidateV1(id, share): CandidateV1| Candidate {
			txid: txid(id),
			share: share.map(|(net_sat, fee_sat)| Share { net_sat, fee_sat }),
		};
		FundingRecord {
			id: SpliceId::from_bytes(self.id),
			channel: ChannelId(self.channel),
			txid: txid(self.txid),
			candidates: self.candidates.into_iter().map(candidate).collect(),
			state: match self.state {
				StateV1::Pending(confirmed_at) => FundingState::Pending { confirmed_at },
				StateV1::Succeeded(confirmed_at) => FundingState::Succeeded { confirmed_at },
				StateV1::Failed(lost_to) => FundingState::Failed { lost_to: txid(lost_to) },
			},
			conflict: self.conflict.map(|(id, height)| (txid(id), height)),
		}
	}
}

#[cfg(test)]
mod tests {
	use leyden_store::codec;

	use super::*;

	/// The bytes on disk, as docs/format.md says.
	#[test]
	fn golden_bytes() {
		let txid = |n: u8| Txid::from_byte_array([n; 32]);
		let record = FundingRecord {
			id: SpliceId::from_bytes([1; 32]),
			channel: ChannelId([2; 32]),
			txid: txid(3),
			candidates: vec![
				Candidate { txid: txid(3), share: Some(Share { net_sat: -5, fee_sat: 6 }) },
				Candidate { txid: txid(4), share: None },
			],
			state: FundingState::Failed { lost_to: txid(7) },
			conflict: Some((txid(7), 9)),
		};
		let value = codec::encode(&FundingV1::from(&record)).unwrap();
		assert_eq!((value.record_type, value.schema), (leyden_store::RecordType(0x0304), 1));
		let expected = [
			&[1; 32][..],
			&[2; 32],
			&[3; 32],
			&2_u64.to_be_bytes(),
			&[3; 32],
			&[1],
			&(-5_i64).to_be_bytes(),
			&6_u64.to_be_bytes(),
			&[4; 32],
			&[0],
			&[0, 0, 0, 2],
			&[7; 32],
			&[1],
			&[7; 32],
			&[0, 0, 0, 9],
		];
		assert_eq!(value.body, expected.concat());
		let stored: FundingV1 = codec::from_body(&value.body).unwrap();
		assert_eq!(stored.into_record(), record);
	}
}
