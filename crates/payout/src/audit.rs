// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The audit: every record of debts is read, and compared with all that it must agree with.

use bitcoin::hashes::{sha256, Hash};
use leyden_store::codec::Stored;
use leyden_store::{Key, KeyRange, StoreError, Version};

use crate::error::PayoutError;
use crate::ids::DebtId;
use crate::invariants;
use crate::loaded::Loaded;
use crate::payouts::Payouts;
use crate::records::{self, AttemptV1, DebtV1, HashV1, ShareV1, SourceV1, StateV1};
use crate::text::hex;

/// Times that a debt is examined which changes while it is; the next audit examines it again.
const TRIES: usize = 3;

/// An issue that an [audit](Payouts::audit) has found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AuditIssue {
	/// The debt that it is about; `None` for a held payment or a budget that several debts share.
	pub debt: Option<DebtId>,
	/// The issue, in words.
	pub what: String,
}

/// Suspicions in words, and the version of the record that they were found for.
type Examined = (Vec<String>, Option<Version>);

impl Payouts {
	/// Reads every record of debts and returns what does not add up. If there is anything, payouts are
	/// frozen. A record that changes while it is read is no issue.
	///
	/// # Errors
	/// [`Store`](PayoutError::Store). A damaged record is an issue, and hides no other.
	///
	/// # Failure Behavior and Persistence
	/// An issue freezes payouts durably; nothing else is changed.
	pub fn audit(&self) -> Result<Vec<AuditIssue>, PayoutError> {
		let mut issues = Vec::new();
		self.each_readable(KeyRange::all(records::DEBTS), |key, _| {
			let id = records::id_of(&key)?;
			let found = self.examined(&key, || self.examine(&id))?;
			issues.extend(found.into_iter().map(|what| AuditIssue { debt: Some(id), what }));
			Ok(())
		})?;
		self.each_readable(records::all_due(), |key, _| {
			let Ok(id) = records::due_of(&key) else {
				let what = "a key among what is due names no debt".to_owned();
				issues.push(AuditIssue { debt: None, what });
				return Ok(());
			};
			let found = self.examined(&records::debt_key(&id), || self.examine_due(&id, &key))?;
			issues.extend(found.into_iter().map(|what| AuditIssue { debt: Some(id), what }));
			Ok(())
		})?;
		self.each_readable(KeyRange::all(records::SOURCES), |key, _| {
			let found = self.examined(&key, || self.examine_source(&key))?;
			issues.extend(found.into_iter().map(|what| AuditIssue { debt: None, what }));
			Ok(())
		})?;
		if let Some(issue) = issues.first() {
			self.freeze_now(&issue.to_string())?;
		}
		Ok(issues)
	}

	/// Returns the suspicions, if the record of this key is the same before and after everything was read.
	fn examined(
		&self, key: &Key, examine: impl Fn() -> Result<Examined, PayoutError>,
	) -> Result<Vec<String>, PayoutError> {
		for _ in 0..TRIES {
			let (wrong, version) = examine()?;
			if wrong.is_empty() {
				return Ok(wrong);
			}
			let after = match self.0.store.get(key).wait() {
				Ok(record) => record.map(|record| record.version),
				Err(StoreError::Corrupt { .. }) => None,
				Err(error) => return Err(error.into()),
			};
			if after == version {
				return Ok(wrong);
			}
		}
		Ok(Vec::new())
	}

	fn examine(&self, id: &DebtId) -> Result<Examined, PayoutError> {
		let mut wrong = Vec::new();
		let found = noted(self.load(id), &mut wrong)?.flatten();
		let Some(Loaded { debt, version, .. }) = found else { return Ok((wrong, None)) };
		if let Err(what) = invariants::check(&debt) {
			wrong.push(what.to_owned());
		}
		self.examine_share(id, &debt, &mut wrong)?;
		if let Some(due) = debt.due {
			// A record there says nothing: the key says it all.
			let found = self.0.store.get(&records::due_key(due, id)).wait();
			if matches!(found, Ok(None)) {
				wrong.push("it is open, and is not looked at again".to_owned());
			}
		}
		let mut attempts: Vec<(u32, AttemptV1)> = Vec::new();
		self.each_readable(records::attempts(id), |key, record| {
			let read = record.and_then(|record| records::read(&key, &record));
			let read = noted(read.map_err(PayoutError::Store), &mut wrong)?;
			let number = noted(records::number_of(&key).map_err(PayoutError::Store), &mut wrong)?;
			attempts.extend(number.zip(read));
			Ok(())
		})?;
		let is_whole = wrong.is_empty();
		let mut out_msat = 0_u128;
		for (number, attempt) in &attempts {
			self.examine_attempt(id, &debt, (*number, attempt), &mut wrong)?;
			if let Some((_, fee_msat)) = attempt.verdict.settled() {
				let fee_msat = fee_msat.unwrap_or_default();
				out_msat += u128::from(attempt.amount_msat) + u128::from(fee_msat);
			}
		}
		if let Some(live) = debt.live.filter(|_| is_whole) {
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
		let is_ending = settled > 0 && debt.paid_by.is_some();
		let has_proof = settled > 0 || debt.outside.is_some();
		if (debt.state == StateV1::Paid) != has_proof && !is_ending && is_whole {
			wrong.push(match has_proof {
				true => "an attempt has settled, and it is not paid".to_owned(),
				false => "it is paid, and there is no proof".to_owned(),
			});
		}
		Ok((wrong, Some(version)))
	}

	fn examine_attempt(
		&self, id: &DebtId, debt: &DebtV1, (number, attempt): (u32, &AttemptV1),
		wrong: &mut Vec<String>,
	) -> Result<(), PayoutError> {
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
		let owner = noted(self.side::<HashV1>(&key), wrong)?;
		let is_its = |owner: Option<HashV1>| owner.is_some_and(|o| o.debt == *id.as_bytes());
		if owner.is_some_and(|owner| !is_its(owner)) {
			wrong.push(format!("the payment hash of attempt {number} is another debt's"));
		}
		Ok(())
	}

	/// Checks that a debt is counted into the sum of its source, as it should be.
	fn examine_share(
		&self, id: &DebtId, debt: &DebtV1, wrong: &mut Vec<String>,
	) -> Result<(), PayoutError> {
		let Some(source) = debt.source.bytes() else { return Ok(()) };
		let found = noted(self.side::<ShareV1>(&records::share_key(&source, id)), wrong)?;
		let expected = debt.is_counted().then_some(ShareV1 { amount_sat: debt.amount_sat });
		if found.is_some_and(|share| share != expected) {
			wrong.push(match expected {
				Some(_) => "it is not counted into the sum of its source".to_owned(),
				None => "it is void, and is counted into the sum of its source".to_owned(),
			});
		}
		Ok(())
	}

	/// Checks that a key among what is due is the debt's.
	fn examine_due(&self, id: &DebtId, key: &Key) -> Result<Examined, PayoutError> {
		let loaded = match self.load(id) {
			Ok(loaded) => loaded,
			// Its record is an issue of its own.
			Err(PayoutError::Store(StoreError::Corrupt { .. })) => return Ok((Vec::new(), None)),
			Err(error) => return Err(error),
		};
		let due = loaded.as_ref().and_then(|loaded| loaded.debt.due);
		let is_its = due.is_some_and(|due| records::due_key(due, id) == *key);
		// A debt that was looked at meanwhile has another key.
		let is_gone = matches!(self.0.store.get(key).wait(), Ok(None));
		let wrong = match is_its || is_gone {
			true => Vec::new(),
			false => vec!["it is due at a time that its record does not have".to_owned()],
		};
		Ok((wrong, loaded.map(|loaded| loaded.version)))
	}

	/// Checks that the debts of a source are its sum, and not more than its amount.
	fn examine_source(&self, key: &Key) -> Result<Examined, PayoutError> {
		let mut wrong = Vec::new();
		let record = noted(self.0.store.get(key).wait().map_err(PayoutError::Store), &mut wrong)?;
		let Some(record) = record.flatten() else { return Ok((wrong, None)) };
		let read = records::read::<SourceV1>(key, &record).map_err(PayoutError::Store);
		let Some(source) = noted(read, &mut wrong)? else {
			return Ok((wrong, Some(record.version)));
		};
		let bytes = key.bytes();
		let mut sum_sat = 0_u128;
		self.each_readable(records::shares(bytes), |key, record| {
			let share = record.and_then(|record| records::read::<ShareV1>(&key, &record));
			let share = noted(share.map_err(PayoutError::Store), &mut wrong)?;
			let id = noted(records::share_debt(&key).map_err(PayoutError::Store), &mut wrong)?;
			let Some((share, id)) = share.zip(id) else { return Ok(()) };
			let is_its = match self.load(&id) {
				Ok(debt) => debt.is_some_and(|l| l.debt.source.bytes().as_deref() == Some(bytes)),
				// Its record is an issue of its own.
				Err(PayoutError::Store(StoreError::Corrupt { .. })) => true,
				Err(error) => return Err(error),
			};
			sum_sat += if is_its { u128::from(share.amount_sat) } else { 0 };
			Ok(())
		})?;
		let SourceV1 { amount_sat, debts_sat } = source;
		let name = hex(bytes.get(1..).unwrap_or_default());
		if sum_sat > u128::from(amount_sat) {
			wrong.push(format!(
				"the debts of source {name} are {sum_sat} sat, and it has {amount_sat}"
			));
		} else if sum_sat != u128::from(debts_sat) {
			wrong.push(format!(
				"the debts of source {name} are {sum_sat} sat, and {debts_sat} are counted"
			));
		}
		Ok((wrong, Some(record.version)))
	}

	/// A record beside those of debts.
	fn side<T: Stored>(&self, key: &Key) -> Result<Option<T>, PayoutError> {
		let Some(record) = self.0.store.get(key).wait()? else { return Ok(None) };
		Ok(Some(records::read(key, &record)?))
	}
}

/// Returns the record that was read; `None`, and an issue, if it is damaged.
fn noted<T>(
	read: Result<T, PayoutError>, wrong: &mut Vec<String>,
) -> Result<Option<T>, PayoutError> {
	match read {
		Ok(read) => Ok(Some(read)),
		Err(PayoutError::Store(error @ StoreError::Corrupt { .. })) => {
			wrong.push(error.to_string());
			Ok(None)
		},
		Err(error) => Err(error),
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
