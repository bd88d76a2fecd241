// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Payment records of funding transactions.
//!
//! A splice is one payment, however often its transaction is replaced: one record, from its first
//! broadcast to the lock and beyond, under the splice's id. What the node broadcasts and what the
//! wallet sees come in any order, and late; each only adds what it knows.
//!
//! # What is promised
//! - Every candidate's txid finds the record, also long after it is done.
//! - Once a candidate is confirmed, its figures are the record's, whatever is broadcast later; a
//!   broadcast that is classified late never undoes a confirmation.
//! - A reorganization makes the record pending again, also if it had succeeded.
//! - A record whose transactions lost to another, confirmed for [`ANTI_REORG_DELAY`] blocks, fails.
//!
//! # What is not
//! Nothing here touches the intent of a splice: [`Splices`](crate::Splices) alone writes that.

mod record;
#[cfg(feature = "fuzz")]
pub(crate) use record::STORED as FUNDING_STORED;

use std::fmt;
use std::sync::Arc;

use bitcoin::{Transaction, Txid};
use leyden_id::ChannelId;
use leyden_store::{codec, Batch, Key, KeyRange, Plan, Store, StoreError};
use parking_lot::Mutex;

use crate::parts::SpliceId;

pub(crate) use record::FundingV1;
use record::{key_of_txid, TxidV1, FUNDINGS, PENDING};
pub use record::{Candidate, FundingRecord, FundingState, Share, MAX_CANDIDATES};

/// Confirmations after which a transaction, or its loss, is final; LDK's constant.
pub const ANTI_REORG_DELAY: u32 = 6;

/// Who a transaction belongs to: asked for those that no record has. [`Splices::owner_of`] answers.
///
/// [`Splices::owner_of`]: crate::Splices::owner_of
pub trait Owners {
	/// The splice that brings what this transaction has, if there is one: going on, or over.
	///
	/// # Errors
	/// The store's.
	fn owner_of(&self, transaction: &Transaction) -> Result<Option<SpliceId>, StoreError>;
}

/// The payment records of a node's funding transactions. See the [module documentation](self).
pub struct Fundings {
	store: Arc<dyn Store>,
	/// One change at a time: which record a txid belongs to and what is written to it are one
	/// decision.
	changing: Mutex<()>,
}

impl Fundings {
	/// The records in `store`.
	pub fn new(store: Arc<dyn Store>) -> Self {
		Self { store, changing: Mutex::new(()) }
	}

	/// The record of a payment.
	///
	/// # Errors
	/// The store's.
	pub fn record(&self, id: &SpliceId) -> Result<Option<FundingRecord>, StoreError> {
		let key = Key::new(FUNDINGS, *id.as_bytes());
		let Some(record) = self.store.get(&key).wait()? else { return Ok(None) };
		Ok(Some(codec::decode::<FundingV1>(&key, &record)?.into_record()))
	}

	/// The record that a transaction belongs to, pending or done.
	///
	/// # Errors
	/// The store's.
	pub fn by_txid(&self, txid: &Txid) -> Result<Option<FundingRecord>, StoreError> {
		let key = key_of_txid(txid);
		let Some(record) = self.store.get(&key).wait()? else { return Ok(None) };
		let TxidV1 { id } = codec::decode(&key, &record)?;
		self.record(&SpliceId::from_bytes(id))
	}

	/// Up to `limit` records that are not final.
	///
	/// # Errors
	/// The store's.
	pub fn pending(&self, limit: usize) -> Result<Vec<FundingRecord>, StoreError> {
		let mut records = Vec::new();
		let mut rest = Some(KeyRange::all(PENDING));
		while let (Some(range), true) = (rest.take(), records.len() < limit) {
			let page = self.store.scan(range, limit - records.len()).wait()?;
			for (key, _) in &page.records {
				let Ok(id) = <[u8; 32]>::try_from(key.bytes()) else {
					return Err(StoreError::corrupt(key, "it is no id of a payment"));
				};
				records.extend(self.record(&SpliceId::from_bytes(id))?);
			}
			rest = page.rest;
		}
		Ok(records)
	}

	/// LDK broadcasts a funding transaction: `transaction` is the last of `candidates`, all of which
	/// are negotiated, oldest first.
	///
	/// `None` if it is nobody's payment: nothing of the wallet moves in any candidate, and no splice of
	/// ours is in it.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns. LDK broadcasts again; so a call that was lost is made good.
	pub fn broadcast(
		&self, channel: &ChannelId, candidates: &[Candidate], transaction: &Transaction,
		owners: &dyn Owners,
	) -> Result<Option<FundingRecord>, StoreError> {
		let _one = self.changing.lock();
		let mut found = None;
		for candidate in candidates {
			// One that failed lost to another transaction: this is not it.
			let record = self.by_txid(&candidate.txid)?.filter(|r| !r.state.is_failed());
			found = found.or(record);
		}
		let moves = candidates.iter().any(|candidate| candidate.share.is_some());
		let mut record = match (found, owners.owner_of(transaction)?) {
			(Some(record), _) => record,
			(None, Some(id)) => match self.record(&id)? {
				Some(record) => record,
				None => FundingRecord::new(id, *channel, transaction.compute_txid()),
			},
			// The peer's splice, or a channel that is opened: named by its first transaction.
			(None, None) if moves => {
				let first = candidates.first().map(|candidate| candidate.txid);
				let first = first.unwrap_or_else(|| transaction.compute_txid());
				let id = SpliceId::from_bytes(*AsRef::<[u8; 32]>::as_ref(&first));
				match self.record(&id)? {
					Some(record) => record,
					None => FundingRecord::new(id, *channel, transaction.compute_txid()),
				}
			},
			(None, None) => return Ok(None),
		};
		record.classified(candidates);
		self.write(&record)?;
		Ok(Some(record))
	}

	/// The wallet sees a transaction: confirmed at this height, or waiting.
	///
	/// `None` if it is no funding transaction of ours, such as a cooperative close, which spends the
	/// same channel.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns. The wallet's next synchronization says it again.
	pub fn seen(
		&self, channel: &ChannelId, transaction: &Transaction, height: Option<u32>,
		owners: &dyn Owners,
	) -> Result<Option<FundingRecord>, StoreError> {
		let _one = self.changing.lock();
		let txid = transaction.compute_txid();
		let mut record = match self.by_txid(&txid)? {
			Some(record) => record,
			// The wallet was faster than the broadcast.
			None => match owners.owner_of(transaction)? {
				Some(id) => match self.record(&id)? {
					Some(record) => record,
					None => FundingRecord::new(id, *channel, txid),
				},
				None => return Ok(None),
			},
		};
		record.seen(txid, height);
		self.write(&record)?;
		Ok(Some(record))
	}

	/// The wallet sees another transaction spend what one of ours spends: `ours` cannot be confirmed
	/// while that one is. `height` is where it is confirmed; `None` if it is not, or no longer.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// As [`seen`](Fundings::seen).
	pub fn replaced(
		&self, ours: &Txid, by: Txid, height: Option<u32>,
	) -> Result<Option<FundingRecord>, StoreError> {
		let _one = self.changing.lock();
		let Some(mut record) = self.by_txid(ours)? else { return Ok(None) };
		record.replaced(by, height);
		self.write(&record)?;
		Ok(Some(record))
	}

	/// A new tip: what is deep enough is final. Answers the records that became so.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// As [`seen`](Fundings::seen); the next tip says it again.
	pub fn tip(&self, height: u32) -> Result<Vec<FundingRecord>, StoreError> {
		let _one = self.changing.lock();
		let mut done = Vec::new();
		for mut record in self.pending(usize::MAX)? {
			if record.tip(height) {
				self.write(&record)?;
				done.push(record);
			}
		}
		Ok(done)
	}

	/// The record, what finds it, and whether it is looked at with every block: one commit.
	fn write(&self, record: &FundingRecord) -> Result<(), StoreError> {
		let id = *record.id.as_bytes();
		let mut batch = Batch::new();
		batch.put(Key::new(FUNDINGS, id), codec::encode(&FundingV1::from(record))?);
		for candidate in &record.candidates {
			batch.put(key_of_txid(&candidate.txid), codec::encode(&TxidV1 { id })?);
		}
		let pending = Key::new(PENDING, id);
		match record.state.is_final() {
			true => batch.delete(pending),
			false => batch.put(pending, codec::encode(&TxidV1 { id })?),
		};
		Plan::of(batch).run(&*self.store)
	}
}

impl fmt::Debug for Fundings {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Fundings")
	}
}
