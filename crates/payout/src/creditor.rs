// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What the creditor and the operator do: an invoice, a reminder that arrived, a proof.

use std::fmt;

use bitcoin::hashes::{sha256, Hash};
use leyden_store::{Batch, Expectation, Plan};

use crate::error::PayoutError;
use crate::notice::Notice;
use crate::payouts::{hex, Loaded, Payouts};
use crate::records::{self, DebtV1, HashV1, InvoiceV1, StateV1};
use crate::terms::DebtId;
use crate::time::Now;

/// Longest text of a proof, in characters.
pub const MAX_PROOF_CHARS: usize = 300;
/// What an invoice was taken for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Submitted {
	/// It will be paid.
	Taken,
	/// The debt had failed, and is open again.
	Reopened,
}

/// Proof that a debt was paid by other means.
#[derive(Clone, Eq, PartialEq)]
pub enum OutsideProof {
	/// The preimage of an invoice that was given for it.
	Preimage([u8; 32]),
	/// In words: a transaction, a receipt. Up to [`MAX_PROOF_CHARS`].
	Reference(String),
}

impl Payouts {
	/// The creditor gives an invoice.
	///
	/// # Errors
	/// [`NotTheCreditor`](PayoutError::NotTheCreditor), [`Invoice`](PayoutError::Invoice) and
	/// [`InvoiceUsed`](PayoutError::InvoiceUsed) for one that is not good,
	/// [`NotNow`](PayoutError::NotNow) if the debt is not open for one or the window is over, and the
	/// store's. Nothing was changed then.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns. The end of the window is past.
	pub fn submit(
		&self, id: &DebtId, creditor: &[u8], invoice: &str,
	) -> Result<Submitted, PayoutError> {
		let looked = self.look();
		let Now { clock, now, steady, .. } = looked;
		let loaded = self.load(id)?.ok_or(PayoutError::NoSuchDebt)?;
		let debt = &loaded.debt;
		if debt.creditor != creditor {
			return Err(PayoutError::NotTheCreditor);
		}
		let reopened = match debt.state {
			StateV1::Owed if debt.invoice.is_some() => {
				return Err(PayoutError::NotNow { why: "there is an invoice that is being paid" });
			},
			StateV1::Owed => false,
			StateV1::Failed => true,
			StateV1::Decided => {
				return Err(PayoutError::NotNow { why: "the money is not in yet" });
			},
			StateV1::Paid | StateV1::Kept | StateV1::Forfeited => {
				return Err(PayoutError::NotNow { why: "the debt is closed" });
			},
		};
		if let Some(live) = debt.live {
			return Err(PayoutError::AttemptLive { number: live.number });
		}
		if debt.share_sat() == 0 {
			return Err(PayoutError::NotNow { why: "nothing is owed" });
		}
		if debt.slashed_at.is_none() {
			return Err(PayoutError::Unsound { what: "the window has no beginning" });
		}
		if steady >= debt.deadline() {
			return Err(PayoutError::NotNow { why: "the time to ask for it is over" });
		}
		let checked = self.0.options.invoices.check(invoice, debt.share_msat(), clock)?;
		let mut next = debt.clone();
		next.state = StateV1::Owed;
		next.invoice = Some(InvoiceV1 {
			text: checked.text,
			payment_hash: checked.payment_hash,
			expires_at: checked.expires_at,
		});
		(next.was_invoiced, next.spent, next.due) = (true, 0, Some(now));
		next.closed_at = None;
		let hash = records::hash_key(&checked.payment_hash);
		if self.0.store.get(&hash).wait()?.is_some() {
			return Err(PayoutError::InvoiceUsed);
		}
		let mut batch = Batch::new();
		batch.expect(hash.clone(), Expectation::Absent);
		batch.put(hash, records::value(&HashV1 { debt: *id.as_bytes() })?);
		let what = if reopened { "reopened by a fresh invoice" } else { "given an invoice" };
		match self.change(&loaded, next, batch, Some(what), None, now)? {
			true if reopened => Ok(Submitted::Reopened),
			true => Ok(Submitted::Taken),
			false => Err(PayoutError::Changed),
		}
	}

	/// A plan that says that a reminder has reached the creditor's side; join it with what made it
	/// arrive.
	///
	/// # Errors
	/// [`NoSuchDebt`](PayoutError::NoSuchDebt), the store's.
	///
	/// # Failure Behavior and Persistence
	/// Without it, a debt is never forfeited.
	pub fn nudge_sent(&self, id: &DebtId) -> Result<Plan<()>, PayoutError> {
		let Loaded { debt, version, .. } = self.load(id)?.ok_or(PayoutError::NoSuchDebt)?;
		let mut batch = Batch::new();
		if debt.nudges_sent >= debt.nudges {
			return Ok(Plan::of(batch));
		}
		let next = DebtV1 { nudges_sent: debt.nudges_sent + 1, ..debt };
		let key = records::debt_key(id);
		batch.expect(key.clone(), Expectation::Version(version));
		batch.put(key, records::value(&next)?);
		Ok(Plan::of(batch))
	}

	/// Somebody has paid it by other means.
	///
	/// # Errors
	/// [`NotNow`](PayoutError::NotNow) if it is closed or the money is not in,
	/// [`AttemptLive`](PayoutError::AttemptLive) while one may still pay it,
	/// [`NoProof`](PayoutError::NoProof), the store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns; the proof is kept.
	pub fn resolve_with_proof(&self, id: &DebtId, proof: &OutsideProof) -> Result<(), PayoutError> {
		let now = self.look().now;
		let loaded = self.load(id)?.ok_or(PayoutError::NoSuchDebt)?;
		let debt = &loaded.debt;
		if !matches!(debt.state, StateV1::Owed | StateV1::Failed) {
			return Err(PayoutError::NotNow { why: "the debt is closed, or its money is not in" });
		}
		if let Some(live) = debt.live {
			return Err(PayoutError::AttemptLive { number: live.number });
		}
		let outside = match proof {
			OutsideProof::Preimage(preimage) => {
				let hash = sha256::Hash::hash(preimage).to_byte_array();
				let key = records::hash_key(&hash);
				let found = self.0.store.get(&key).wait()?.ok_or(PayoutError::NoProof)?;
				let HashV1 { debt } = records::read(&key, &found)?;
				if debt != *id.as_bytes() {
					return Err(PayoutError::NoProof);
				}
				format!("preimage {}", hex(preimage))
			},
			OutsideProof::Reference(text) => {
				let length = text.trim().chars().count();
				if length == 0 || length > MAX_PROOF_CHARS {
					return Err(PayoutError::NoProof);
				}
				text.trim().to_owned()
			},
		};
		let mut next = debt.clone();
		(next.state, next.due, next.closed_at) = (StateV1::Paid, None, Some(now));
		next.outside = Some(outside);
		let notice = Notice::paid(&loaded, None);
		let what = "paid by other means";
		match self.change(&loaded, next, Batch::new(), Some(what), Some(notice), now)? {
			true => Ok(()),
			false => Err(PayoutError::Changed),
		}
	}
}

/// Without the preimage.
impl fmt::Debug for OutsideProof {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Preimage(_) => f.write_str("Preimage"),
			Self::Reference(text) => write!(f, "Reference({text})"),
		}
	}
}
