// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Claims that survive: the intent to claim a payment, until LDK says that it was claimed.
//!
//! # Why
//! `claim_funds` writes nothing by itself that outlives a crash: what makes it durable are the writes
//! of monitors and manager that follow. A node that notes "claiming" in its ledger and dies before
//! they are done has a payment that it thinks it claims, and that nobody claims: the sender gets its
//! money back after the deadline, and the one whose preimage it was may have paid already.
//!
//! # How
//! The preimage is written down first, alone or in one commit with the ledger's record
//! ([`Claims::intend`]). At every start, and whenever LDK says again that the payment can be claimed,
//! it is given to LDK again, which does nothing the second time. `PaymentClaimed` ends it, in one
//! commit with the ack of that event.
//!
//! # Not promised
//! A claim that comes after its deadline is none: LDK has failed the payment back by then. LDK's
//! `HTLCHandlingFailed` does not say so for sure, since a sender can have it said by sending too much.
//! What is [overdue](Claims::overdue) is for somebody to look at.
//!
//! The preimages are in the store as they are. Whoever reads the store reads them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bitcoin::hashes::{sha256, Hash};
use leyden_store::codec::{self, Stored};
use leyden_store::{Batch, Key, KeyRange, Plan, RecordType, Store, StoreError, Table};
use lightning::events::Event;
use lightning::ln::channelmanager::AChannelManager;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use serde::{Deserialize, Serialize};

const CLAIMS: Table = Table::new("claims");
/// Records read in one go.
const PAGE: usize = 256;

/// The intents of one node. Cheap to clone.
#[derive(Clone)]
pub struct Claims {
	store: Arc<dyn Store>,
}

/// A claim that is not known to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claiming {
	/// Of which payment.
	pub payment_hash: PaymentHash,
	/// The height at which LDK fails it back, as `PaymentClaimable` said.
	pub claim_deadline: Option<u32>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct ClaimV1 {
	preimage: [u8; 32],
	claim_deadline: Option<u32>,
}

impl Stored for ClaimV1 {
	const TYPE: RecordType = RecordType(0x0203);
	const SCHEMA: u16 = 1;
}

impl Claims {
	/// The intents that are in this store.
	pub fn new(store: Arc<dyn Store>) -> Self {
		Self { store }
	}

	/// A plan that writes the intent down; join it with the ledger's "claiming". When it is committed,
	/// call [`resume`](Claims::resume) for the payment, or simply `claim_funds`.
	///
	/// # Errors
	/// None in practice: the record has a fixed size.
	///
	/// # Failure Behavior and Persistence
	/// From its commit on, the payment is claimed at every start until LDK says that it was.
	pub fn intend(
		&self, preimage: PaymentPreimage, claim_deadline: Option<u32>,
	) -> Result<Plan<()>, StoreError> {
		let mut batch = Batch::new();
		let record = ClaimV1 { preimage: preimage.0, claim_deadline };
		batch.put(key(&hash_of(&preimage)), codec::encode(&record)?);
		Ok(Plan::of(batch))
	}

	/// Writes the intent down, and claims.
	///
	/// # Errors
	/// The store's: then nothing was claimed.
	///
	/// # Failure Behavior and Persistence
	/// As [`intend`](Claims::intend).
	pub fn claim<M>(
		&self, manager: M, preimage: PaymentPreimage, claim_deadline: Option<u32>,
	) -> Result<(), StoreError>
	where
		M: Deref,
		M::Target: AChannelManager,
	{
		self.intend(preimage, claim_deadline)?.run(&*self.store)?;
		manager.get_cm().claim_funds(preimage);
		Ok(())
	}

	/// Claims everything again that is not known to be done; answers how many that is. Call it at start,
	/// when monitors and manager are loaded, before peers connect.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Nothing is written here; what LDK does about it is LDK's.
	pub fn resume<M>(&self, manager: M) -> Result<usize, StoreError>
	where
		M: Deref,
		M::Target: AChannelManager,
	{
		let claims = self.all()?;
		for (_, record) in &claims {
			manager.get_cm().claim_funds(PaymentPreimage(record.preimage));
		}
		Ok(claims.len())
	}

	/// Claims again if LDK says again that a payment can be claimed, which it does after a restart from
	/// an older manager. Give it every event, in the handler that is called at once. Answers whether it
	/// was one of ours.
	///
	/// # Errors
	/// The store's; answer LDK with `ReplayEvent` then.
	pub fn on_event<M>(&self, manager: M, event: &Event) -> Result<bool, StoreError>
	where
		M: Deref,
		M::Target: AChannelManager,
	{
		let Event::PaymentClaimable { payment_hash, .. } = event else { return Ok(false) };
		let key = key(payment_hash);
		let Some(record) = self.store.get(&key).wait()? else { return Ok(false) };
		let record: ClaimV1 = codec::decode(&key, &record)?;
		manager.get_cm().claim_funds(PaymentPreimage(record.preimage));
		Ok(true)
	}

	/// A plan that ends the intent, if the event is the payment's `PaymentClaimed`; join it with the ack
	/// of the event.
	pub fn settled(&self, event: &Event) -> Option<Plan<()>> {
		match event {
			Event::PaymentClaimed { payment_hash, .. } => Some(self.forget(payment_hash)),
			_ => None,
		}
	}

	/// A plan that gives a claim up; for somebody who knows what became of the payment.
	pub fn forget(&self, payment_hash: &PaymentHash) -> Plan<()> {
		let mut batch = Batch::new();
		batch.delete(key(payment_hash));
		Plan::of(batch)
	}

	/// What is not known to be done.
	///
	/// # Errors
	/// The store's.
	pub fn claiming(&self) -> Result<Vec<Claiming>, StoreError> {
		let claiming = |(payment_hash, record): (PaymentHash, ClaimV1)| Claiming {
			payment_hash,
			claim_deadline: record.claim_deadline,
		};
		Ok(self.all()?.into_iter().map(claiming).collect())
	}

	/// What should be done and is not known to be: the deadline has passed with the block of this
	/// height. LDK has failed it back, or its `PaymentClaimed` was not handled yet.
	///
	/// # Errors
	/// The store's.
	pub fn overdue(&self, height: u32) -> Result<Vec<Claiming>, StoreError> {
		let mut claiming = self.claiming()?;
		claiming.retain(|claim| claim.claim_deadline.is_some_and(|deadline| height >= deadline));
		Ok(claiming)
	}

	fn all(&self) -> Result<Vec<(PaymentHash, ClaimV1)>, StoreError> {
		let (mut claims, mut rest) = (Vec::new(), Some(KeyRange::all(CLAIMS)));
		while let Some(range) = rest.take() {
			let page = self.store.scan(range, PAGE).wait()?;
			for (key, record) in &page.records {
				let claim: ClaimV1 = codec::decode(key, record)?;
				let payment_hash = hash_of(&PaymentPreimage(claim.preimage));
				if key.bytes() != payment_hash.0 {
					let reason = "the preimage is not of this payment";
					return Err(StoreError::corrupt(key, reason));
				}
				claims.push((payment_hash, claim));
			}
			rest = page.rest;
		}
		Ok(claims)
	}
}

fn key(payment_hash: &PaymentHash) -> Key {
	Key::new(CLAIMS, payment_hash.0)
}

fn hash_of(preimage: &PaymentPreimage) -> PaymentHash {
	PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array())
}

/// Without preimages.
impl fmt::Debug for Claims {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Claims")
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	/// What is on users' disks. A change is a new schema, never another golden.
	#[test]
	fn golden_bytes() {
		let record = ClaimV1 { preimage: [7; 32], claim_deadline: Some(9) };
		let body = codec::encode(&record).unwrap().body;
		let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
		assert_eq!(hex, format!("{}0100000009", "07".repeat(32)));
	}
}
