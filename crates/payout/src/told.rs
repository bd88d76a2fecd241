// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The news that the observer is told once.

use std::collections::{HashMap, HashSet};

use crate::error::PayoutError;
use crate::events::PayoutEvent;
use crate::freeze::Freeze;
use crate::ids::DebtId;
use crate::payouts::Payouts;

/// The news that the observer was told last.
#[derive(Default)]
pub(crate) struct Told {
	frozen: Option<Freeze>,
	broken: HashMap<DebtId, String>,
	/// The attempts, and the payments that are held, that have waited for long.
	waits: HashSet<(DebtId, Option<u32>)>,
}

impl Told {
	/// The debts of which something was told.
	pub(crate) fn debts(&self) -> impl Iterator<Item = &DebtId> {
		self.broken.keys().chain(self.waits.iter().map(|(id, _)| id))
	}

	/// Forgets a debt that is closed.
	pub(crate) fn forget(&mut self, id: &DebtId) {
		self.broken.remove(id);
		self.waits.retain(|(of, _)| of != id);
	}
}

impl Payouts {
	/// Tells the observer that payouts are frozen, once for each set of reasons.
	pub(crate) fn tell_frozen(&self, freeze: Option<Freeze>) {
		let is_told = std::mem::replace(&mut self.0.state.lock().told.frozen, freeze.clone());
		if let (Some(observer), Some(freeze)) = (&self.0.options.observer, freeze) {
			if is_told.as_ref() != Some(&freeze) {
				observer(&PayoutEvent::Frozen { freeze });
			}
		}
	}

	/// Tells the observer of an attempt, or of a payment that is held, that has waited for long; once.
	pub(crate) fn tell_waits(&self, debt: &DebtId, attempt: Option<u32>) {
		let is_new = self.0.state.lock().told.waits.insert((*debt, attempt));
		if let Some(observer) = self.0.options.observer.as_ref().filter(|_| is_new) {
			observer(&PayoutEvent::Waits { debt: *debt, attempt });
		}
	}

	/// Tells the observer of a debt that cannot be looked after; once for each error of it.
	pub(crate) fn tell_broken(&self, debt: &DebtId, error: &PayoutError) {
		let what = error.to_string();
		let told = self.0.state.lock().told.broken.insert(*debt, what.clone());
		if let Some(observer) = &self.0.options.observer {
			if told.as_ref() != Some(&what) {
				observer(&PayoutEvent::Broken { debt: *debt, error: error.clone() });
			}
		}
	}
}
