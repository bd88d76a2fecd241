// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The audit: every record of debts is read, and compared with all that it must agree with.

use bitcoin::hashes::{sha256, Hash};
use leyden_store::{KeyRange, StoreError};

use crate::error::PayoutError;
use crate::ids::DebtId;
use crate::invariants;
use crate::payouts::Payouts;
use crate::records::{self, AttemptV1, DebtV1, HashV1, ShareV1, SourceV1, StateV1};
use crate::text::hex;

/// An issue that an [audit](Payouts::audit) has found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AuditIssue {
	/// The debt that it is about; `None` for a held payment or a budget that several debts share.
	pub debt: Option<DebtId>,
	/// The issue, in words.
	pub what: String,
}

impl Payouts {
	/// Reads every record of debts and returns what does not add up. If there is anything, payouts are
	/// frozen.
	///
	/// # Errors
	/// [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// An issue freezes payouts durably; nothing else is changed.
	pub fn audit(&self) -> Result<Vec<AuditIssue>, PayoutError> {
		let mut issues = Vec::new();
		self.each_readable(KeyRange::all(records::DEBTS), |key, record| {
			let id = records::id_of(&key)?;
			let found = match record.and_then(|record| records::read::<DebtV1>(&key, &record)) {
				Ok(debt) => self.examine(&id, &debt)?,
				Err(error) => vec![error.to_string()],
			};
			issues.extend(found.into_iter().map(|what| AuditIssue { debt: Some(id), what }));
			Ok(())
		})?;
		self.each_readable(KeyRange::all(records::SOURCES), |key, record| {
			let found = match record.and_then(|record| records::read::<SourceV1>(&key, &record)) {
				Ok(source) => self.examine_source(key.bytes(), source)?,
				Err(error) => Some(error.to_string()),
			};
			issues.extend(found.into_iter().map(|what| AuditIssue { debt: None, what }));
			Ok(())
		})?;
		if let Some(issue) = issues.first() {
			self.freeze(&issue.to_string())?;
		}
		Ok(issues)
	}

	fn examine(&self, id: &DebtId, debt: &DebtV1) -> Result<Vec<String>, PayoutError> {
		let mut wrong = Vec::new();
		if let Err(what) = invariants::check(debt) {
			wrong.push(what.to_owned());
		}
		wrong.extend(self.examine_share(id, debt)?);
		let attempts = match self.all_attempts(id) {
			Ok(attempts) => attempts,
			Err(PayoutError::Store(error @ StoreError::Corrupt { .. })) => {
				wrong.push(error.to_string());
				return Ok(wrong);
			},
			Err(error) => return Err(error),
		};
		let mut out_msat = 0_u128;
		for (number, attempt) in &attempts {
			wrong.extend(self.examine_attempt(id, debt, *number, attempt)?);
			if let Some((_, fee_msat)) = attempt.verdict.settled() {
				let fee_msat = fee_msat.unwrap_or_default();
				out_msat += u128::from(attempt.amount_msat) + u128::from(fee_msat);
			}
		}
		if let Some(live) = debt.live {
			if !attempts.iter().any(|(number, _)| *number == live.number) {
				wrong.push(format!("its current attempt {} is not there", live.number));
			}
		}
		if out_msat > u128::from(debt.amount_sat) * 1000 {
			wrong.push("more went out than came in".to_owned());
		}
		let settled = attempts.iter().filter(|(_, a)| a.verdict.settled().is_some()).count();
		if settled > 1 {
			wrong.push("it was paid more than once".to_owned());
		}
		// With another attempt under way it ends with that one.
		let is_ending = settled > 0 && debt.live.is_some();
		let has_proof = settled > 0 || debt.outside.is_some();
		if (debt.state == StateV1::Paid) != has_proof && !is_ending {
			wrong.push(match has_proof {
				true => "an attempt has settled, and it is not paid".to_owned(),
				false => "it is paid, and there is no proof".to_owned(),
			});
		}
		Ok(wrong)
	}

	fn examine_attempt(
		&self, id: &DebtId, debt: &DebtV1, number: u32, attempt: &AttemptV1,
	) -> Result<Vec<String>, PayoutError> {
		let mut wrong = Vec::new();
		let is_live = debt.live.is_some_and(|live| live.number == number);
		match (attempt.verdict.is_open(), is_live) {
			(true, false) => {
				wrong.push(format!("attempt {number} is unresolved, and not the current one"));
			},
			(false, true) => wrong.push(format!("its current attempt {number} is over")),
			_ => {},
		}
		if let Some((preimage, _)) = attempt.verdict.settled() {
			if sha256::Hash::hash(&preimage).to_byte_array() != attempt.payment_hash {
				wrong.push(format!("attempt {number} has a preimage of something else"));
			}
		}
		let key = records::hash_key(&attempt.payment_hash);
		let owner = self.0.store.get(&key).wait()?;
		let owner = owner.map(|record| records::read::<HashV1>(&key, &record)).transpose()?;
		if owner.is_none_or(|owner| owner.debt != *id.as_bytes()) {
			wrong.push(format!("the payment hash of attempt {number} is another debt's"));
		}
		Ok(wrong)
	}

	/// Whether a debt is counted into the sum of its source.
	fn examine_share(&self, id: &DebtId, debt: &DebtV1) -> Result<Option<String>, PayoutError> {
		let Some(source) = debt.source.bytes() else { return Ok(None) };
		let key = records::share_key(&source, id);
		let share = self.0.store.get(&key).wait()?;
		let share = share.map(|record| records::read::<ShareV1>(&key, &record)).transpose()?;
		let is_counted = share == Some(ShareV1 { amount_sat: debt.amount_sat });
		Ok((!is_counted).then(|| "it is not counted into the sum of its source".to_owned()))
	}

	/// Whether the debts of a source are its sum, and not more than its amount.
	fn examine_source(
		&self, bytes: &[u8], source: SourceV1,
	) -> Result<Option<String>, PayoutError> {
		let mut sum_sat = 0_u128;
		self.each(records::shares(bytes), |key, record| {
			let share: ShareV1 = records::read(key, record)?;
			let id = records::share_debt(key)?;
			let debt = self.load(&id)?;
			let is_its = debt.is_some_and(|l| l.debt.source.bytes().as_deref() == Some(bytes));
			sum_sat += if is_its { u128::from(share.amount_sat) } else { 0 };
			Ok(())
		})?;
		let SourceV1 { amount_sat, debts_sat } = source;
		let name = hex(bytes.get(1..).unwrap_or_default());
		Ok(match () {
			() if sum_sat > u128::from(amount_sat) => Some(format!(
				"the debts of source {name} are {sum_sat} sat, and it has {amount_sat}"
			)),
			() if sum_sat != u128::from(debts_sat) => Some(format!(
				"the debts of source {name} are {sum_sat} sat, and {debts_sat} are counted"
			)),
			() => None,
		})
	}
}

impl std::fmt::Display for AuditIssue {
	fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
		match self.debt {
			Some(debt) => write!(f, "debt {debt}: {}", self.what),
			None => f.write_str(&self.what),
		}
	}
}
