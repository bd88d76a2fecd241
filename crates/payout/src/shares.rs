// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The sum of the debts of a held payment or of a budget.

use leyden_store::{Batch, Expectation};

use crate::error::PayoutError;
use crate::ids::DebtId;
use crate::new_debt::{NewDebt, Source};
use crate::payouts::Payouts;
use crate::records::{self, DebtV1, ShareV1, SourceV1};

impl Payouts {
	/// Counts a debt into the sum of its source, which is never more than its amount.
	pub(crate) fn take_share(&self, batch: &mut Batch, new: &NewDebt) -> Result<(), PayoutError> {
		let (Source::Held { amount_sat, .. } | Source::Budget { amount_sat, .. }) = new.source
		else {
			return Ok(());
		};
		let source = records::SourceRefV1::from(new.source);
		let Some(bytes) = source.bytes() else { return Ok(()) };
		let key = records::source_key(&bytes);
		let (expected, debts_sat) = match self.0.store.get(&key).wait()? {
			Some(record) => {
				let known: SourceV1 = records::read(&key, &record)?;
				if known.amount_sat != amount_sat {
					let known_sat = known.amount_sat;
					return Err(PayoutError::SourceMismatch { debt: new.id, known_sat });
				}
				(Expectation::Version(record.version), known.debts_sat)
			},
			None => (Expectation::Absent, 0),
		};
		let left_sat = amount_sat.saturating_sub(debts_sat);
		if new.amount_sat > left_sat {
			return Err(PayoutError::SourceExceeded { debt: new.id, left_sat });
		}
		let debts_sat = debts_sat.saturating_add(new.amount_sat);
		batch.expect(key.clone(), expected);
		batch.put(key, records::value(&SourceV1 { amount_sat, debts_sat })?);
		let share = ShareV1 { amount_sat: new.amount_sat };
		batch.put(records::share_key(&bytes, &new.id), records::value(&share)?);
		Ok(())
	}

	/// Counts a debt out of the sum of its source: it takes nothing out of it.
	pub(crate) fn give_share_back(
		&self, batch: &mut Batch, id: &DebtId, debt: &DebtV1,
	) -> Result<(), PayoutError> {
		let Some(bytes) = debt.source.bytes() else { return Ok(()) };
		let key = records::source_key(&bytes);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(()) };
		let SourceV1 { amount_sat, debts_sat } = records::read(&key, &record)?;
		let debts_sat = debts_sat.saturating_sub(debt.amount_sat);
		batch.expect(key.clone(), Expectation::Version(record.version));
		batch.put(key, records::value(&SourceV1 { amount_sat, debts_sat })?);
		batch.delete(records::share_key(&bytes, id));
		Ok(())
	}
}
