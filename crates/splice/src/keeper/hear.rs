// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! What is heard from LDK. Nothing is believed before LDK was looked at.

use bitcoin::Transaction;

use super::*;
use leyden_store::StoreError;

use crate::funding::Owners;
use crate::law::Trigger;
use crate::parts::Material;
use crate::splice::{SpliceState, What};

impl Owners for Splices {
	fn owner_of(&self, transaction: &Transaction) -> Result<Option<SpliceId>, StoreError> {
		self.owner_of(transaction).map_err(|error| match error {
			SpliceError::Store(error) => error,
			other => StoreError::invalid(other.to_string()),
		})
	}
}

impl Splices {
	/// Something may have changed about a channel: it is ready, closed, has a new funding, a splice
	/// of it is negotiated, its peer is back.
	///
	/// # Errors
	/// The store's; call it again.
	///
	/// # Failure Behavior and Persistence
	/// A crash in it is made good by the next look.
	pub fn look(&self, channel: &ChannelId) -> Result<(), SpliceError> {
		let ids = self.live.lock().of_channel(channel);
		ids.iter().try_for_each(|id| self.reconcile(id, Trigger::Look))
	}

	/// LDK says that a round failed, with what we had put in, if it says so. If LDK shows that the
	/// splice is there all the same, this is old news and nothing happens.
	///
	/// # Errors
	/// As [`look`](Splices::look).
	///
	/// # Failure Behavior and Persistence
	/// As [`look`](Splices::look): a failure that was not counted before a crash is counted when
	/// LDK brings it again, or not at all.
	pub fn round_failed(
		&self, channel: &ChannelId, reason: &FailureReason, material: Option<&Material>,
	) -> Result<(), SpliceError> {
		let ids = self.live.lock().of_channel(channel);
		for id in ids {
			let mut live = self.live.lock();
			let Some(splice) = live.get(&id) else { continue };
			let bump = splice.bump.as_ref().map(|bump| &bump.contribution);
			let current = splice.contribution.iter().chain(bump).map(|c| &c.material);
			let meant = material.is_some_and(|m| !m.is_empty() && current.clone().any(|c| c == m));
			let trigger = match meant {
				true => Trigger::Failed(reason.clone()),
				false => Trigger::Look,
			};
			let pending = self.look_at(&mut live, &id, trigger, None)?;
			drop(live);
			self.build_pending(pending)?;
		}
		Ok(())
	}

	/// Hears that LDK asks for signatures. Writes the transaction's id down, so that the splice is
	/// known by it whatever happens from now on.
	///
	/// Returns whether the transaction may be signed. It may not if it has what a splice brings
	/// that is over, and none that goes on: LDK has come back with it, from a manager that was
	/// written before, or has kept a higher fee for what has locked. Nor may it if the caller was
	/// not told that the splice, or the higher fee, would run. LDK is then asked to take it back;
	/// do not sign it.
	///
	/// # Errors
	/// The store's. Do not sign; LDK asks again.
	///
	/// # Failure Behavior and Persistence
	/// After `Ok(true)` the id is durable.
	pub fn before_signing(
		&self, channel: &ChannelId, transaction: &Transaction,
	) -> Result<bool, SpliceError> {
		let txid = transaction.compute_txid();
		let mut live = self.live.lock();
		let of_channel = live.of_channel(channel);
		let mut splices = of_channel.iter().filter_map(|id| live.get(id));
		let is_unanswered =
			splices.any(|splice| splice.is_unanswered(Some(&txid)) && splice.brings(transaction));
		// What has locked meanwhile is over before anything else is signed for it.
		for id in live.of_channel(channel) {
			// If something is to be built, the next look does that: LDK waits for an answer.
			self.look_at(&mut live, &id, Trigger::Look, None)?;
		}
		if is_unanswered {
			return Ok(false);
		}
		let mut known = false;
		for id in live.of_channel(channel) {
			let Some(mut splice) = live.get(&id).cloned() else { continue };
			if !splice.brings(transaction) {
				continue;
			}
			known = true;
			splice.signing = true;
			if splice.note_txid(txid) {
				splice.step(self.now(), What::Signing(txid));
				if splice.state != SpliceState::Negotiated {
					splice.state = SpliceState::Signing;
				}
				self.write(Batch::new(), &splice)?;
			}
			live.insert(splice);
		}
		if known {
			return Ok(true);
		}
		let over = load::past(&*self.store, usize::MAX)?.into_iter().find(|splice| {
			let current = splice.contribution.iter().map(|c| &c.material);
			splice.channel.channel_id == *channel
				&& current.chain(&splice.earlier).any(|m| m.is_in(transaction))
		});
		if let Some(splice) = over {
			let _ = self.driver.cancel(&splice.channel);
			return Ok(false);
		}
		Ok(true)
	}

	/// The splice that this transaction is of, going on or over.
	///
	/// # Errors
	/// The store's.
	pub fn owner_of(&self, transaction: &Transaction) -> Result<Option<SpliceId>, SpliceError> {
		let txid = transaction.compute_txid();
		let owns = |splice: &&Splice| {
			let bump = splice.bump.as_ref().map(|bump| &bump.contribution);
			let current = splice.contribution.iter().chain(bump).map(|c| &c.material);
			splice.txids.contains(&txid)
				|| current.chain(&splice.earlier).any(|m| m.is_in(transaction))
		};
		if let Some(splice) = self.live.lock().splices.values().find(owns) {
			return Ok(Some(splice.id));
		}
		let past = load::past(&*self.store, usize::MAX)?;
		// An earlier splice may have paid the same: there the transaction's id decides.
		let mut past = past.iter().filter(|splice| splice.txids.contains(&txid));
		Ok(past.next().map(|splice| splice.id))
	}

	/// LDK says that these coins are not needed by a round any more. Answers those that the wallet
	/// may spend: not those of a splice that goes on, which LDK will get again.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, what it answers is no longer reserved, durably.
	pub fn discarded(&self, inputs: &[OutPoint]) -> Result<Vec<OutPoint>, SpliceError> {
		let live = self.live.lock();
		let mut free = Vec::new();
		let mut batch = Batch::new();
		let mut freed = Vec::new();
		for input in inputs {
			match self.coins.holder(input) {
				None => free.push(*input),
				Some(id) if live.get(&id).is_some() => {},
				// Of one whose record cannot be read: it may be going on.
				Some(id) if self.damaged.iter().any(|d| d.id == Some(id)) => {},
				Some(id) => {
					self.coins.delete(&mut batch, &id, &[*input]);
					freed.push((id, *input));
					free.push(*input);
				},
			}
		}
		if !batch.is_empty() {
			Plan::of(batch).run(&*self.store)?;
		}
		for (id, input) in freed {
			self.released(&id, &[input]);
		}
		Ok(free)
	}
}
