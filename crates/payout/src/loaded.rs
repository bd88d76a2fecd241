// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Debts and attempts as they are read from the store.

use leyden_store::{
	block_on, read_around_damage, DamagedPage, Key, KeyRange, Record, StoreError, Version,
};

use crate::error::PayoutError;
use crate::ids::{AttemptId, DebtId};
use crate::machine::{View, MAX_BEYOND};
use crate::payouts::Payouts;
use crate::records::{self, AttemptV1, DebtV1, HashV1};

/// Most records that are read in one go.
const PAGE: usize = 256;
/// Attempts beyond those that the store knows that are tried for a payment of an unknown hash.
const SEARCHED_BEYOND: u32 = 100;
/// Most names of attempts that are tried for such a payment, over all debts.
const MAX_NAMES: u64 = 100_000;

/// A debt as it is stored.
pub(crate) struct Loaded {
	pub(crate) id: DebtId,
	pub(crate) debt: DebtV1,
	pub(crate) version: Version,
}

impl Payouts {
	pub(crate) fn load(&self, id: &DebtId) -> Result<Option<Loaded>, PayoutError> {
		let key = records::debt_key(id);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let debt = records::read(&key, &record)?;
		Ok(Some(Loaded { id: *id, debt, version: record.version }))
	}

	pub(crate) fn find(&self, id: &DebtId) -> Result<Loaded, PayoutError> {
		self.load(id)?.ok_or(PayoutError::NoSuchDebt { debt: *id })
	}

	pub(crate) fn attempt(
		&self, id: &DebtId, number: u32,
	) -> Result<Option<AttemptV1>, PayoutError> {
		let key = records::attempt_key(id, number);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		Ok(Some(records::read(&key, &record)?))
	}

	pub(crate) fn all_attempts(&self, id: &DebtId) -> Result<Vec<(u32, AttemptV1)>, PayoutError> {
		let mut found = Vec::new();
		self.each(records::attempts(id), |key, record| {
			found.push((records::number_of(key)?, records::read(key, record)?));
			Ok(())
		})?;
		Ok(found)
	}

	/// Reads every record of a range.
	pub(crate) fn each(
		&self, range: KeyRange, mut f: impl FnMut(&Key, &Record) -> Result<(), PayoutError>,
	) -> Result<(), PayoutError> {
		let mut rest = Some(range);
		while let Some(range) = rest.take() {
			let page = self.0.store.scan(range, PAGE).wait()?;
			page.records.iter().try_for_each(|(key, record)| f(key, record))?;
			rest = page.rest;
		}
		Ok(())
	}

	/// Reads every record of a range; a damaged record is an error in its place.
	pub(crate) fn each_readable(
		&self, range: KeyRange,
		mut f: impl FnMut(Key, Result<Record, StoreError>) -> Result<(), PayoutError>,
	) -> Result<(), PayoutError> {
		let mut rest = Some(range);
		while let Some(range) = rest.take() {
			let page = self.scan_around_damage(range, PAGE)?;
			page.records.into_iter().try_for_each(|(key, record)| f(key, record))?;
			rest = page.rest;
		}
		Ok(())
	}

	pub(crate) fn scan_around_damage(
		&self, range: KeyRange, limit: usize,
	) -> Result<DamagedPage, PayoutError> {
		let store = &*self.0.store;
		let scanned = store.scan(range.clone(), limit).wait();
		Ok(block_on(store, read_around_damage(store, range, limit, scanned))?)
	}

	/// Returns the debt that a payment hash pays.
	pub(crate) fn debt_of(&self, payment_hash: &[u8; 32]) -> Result<Option<DebtId>, PayoutError> {
		let key = records::hash_key(payment_hash);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let HashV1 { debt } = records::read(&key, &record)?;
		Ok(Some(DebtId::from_bytes(debt)))
	}

	/// Returns the debt of an attempt of this name. The attempt is searched for if the debt that owns its
	/// payment hash does not have it, and also if no debt owns that and the store may be an old copy.
	pub(crate) fn debt_of_name(
		&self, owner: Option<&DebtId>, name: &AttemptId,
	) -> Result<Option<DebtId>, PayoutError> {
		let is_of = |id: &DebtId, debt: &DebtV1, beyond| {
			let view = View { id, debt, attempts: &[] };
			view.number_of(name, beyond).is_some()
		};
		if let Some(owner) = owner {
			// One that is damaged is an error of the caller's.
			let Ok(Some(loaded)) = self.load(owner) else { return Ok(None) };
			if is_of(owner, &loaded.debt, MAX_BEYOND) {
				return Ok(Some(*owner));
			}
		} else if self.is_newest() && !self.0.was_restored && self.frozen()?.is_none() {
			return Ok(None);
		}
		let mut left = MAX_NAMES;
		let mut rest = Some(records::all_due());
		while let Some(range) = rest.take() {
			let page = self.scan_around_damage(range, PAGE)?;
			for (key, _) in &page.records {
				let Ok(id) = records::due_of(key) else { continue };
				let loaded = match self.load(&id) {
					Ok(loaded) => loaded,
					Err(PayoutError::Store(StoreError::Corrupt { .. })) => None,
					Err(error) => return Err(error),
				};
				let Some(Loaded { debt, .. }) = loaded else { continue };
				if is_of(&id, &debt, SEARCHED_BEYOND) {
					return Ok(Some(id));
				}
				left = left.saturating_sub(u64::from(debt.attempts) + u64::from(SEARCHED_BEYOND));
				if left == 0 {
					return Ok(None);
				}
			}
			rest = page.rest;
		}
		Ok(None)
	}
}
