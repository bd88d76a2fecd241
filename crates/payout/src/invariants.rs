// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Rules that every record of a debt keeps, checked before it is written.

use crate::records::{DebtV1, StateV1};

/// Checks that a debt adds up by itself. Returns the rule that it breaks.
pub(crate) fn check(debt: &DebtV1) -> Result<(), &'static str> {
	if debt.amount_sat == 0 || debt.node_share_sat > debt.amount_sat {
		return Err("the shares are not the amount");
	}
	let share_msat = u128::from(debt.share_sat()) * 1000;
	let most_msat = u128::from(debt.amount_sat) * 1000;
	if share_msat > 0 && share_msat + u128::from(debt.fee_cap_msat) > most_msat {
		return Err("what goes out, with its fees, is more than what came in");
	}
	// A debt that was void may turn out to be paid.
	let never_in = matches!(debt.state, StateV1::Decided | StateV1::Void);
	if debt.window_start.is_none() != never_in && debt.state != StateV1::Paid {
		return Err("the window has a beginning without the money, or none with it");
	}
	if debt.state.is_over() != debt.due.is_none() {
		return Err("a closed debt is still scheduled, or an open one is not");
	}
	if debt.state.is_over() && debt.live.is_some() {
		return Err("a closed debt has an attempt that may still pay it");
	}
	if debt.state == StateV1::Kept && debt.share_sat() > 0 {
		return Err("something is owed, and the node has kept it");
	}
	if debt.state == StateV1::Forfeited && (debt.was_invoiced || debt.reminders_delivered == 0) {
		return Err("it was forfeited, and its payee had given an invoice or was never reminded");
	}
	if (debt.reminders_delivered > 0) != debt.first_delivered_at.is_some() {
		return Err("a reminder was delivered at no time, or none at some");
	}
	if debt.reminders_delivered > debt.reminders {
		return Err("more reminders were delivered than there were");
	}
	if debt.failed_attempts > debt.attempts {
		return Err("more attempts have failed than there were");
	}
	Ok(())
}

/// Checks that one record may follow the other: terms never change, and no state comes back.
pub(crate) fn check_change(old: &DebtV1, new: &DebtV1) -> Result<(), &'static str> {
	let terms = |debt: &DebtV1| {
		let DebtV1 { invoice_window_ms, reminder_interval_ms, max_failed_attempts, .. } = debt;
		let DebtV1 { amount_sat, node_share_sat, fee_cap_msat, source, .. } = debt;
		let shares = (*amount_sat, *node_share_sat, *fee_cap_msat, *source);
		(shares, *invoice_window_ms, *reminder_interval_ms, *max_failed_attempts)
	};
	if terms(old) != terms(new) || old.payee != new.payee {
		return Err("its terms have changed");
	}
	if old.window_start.is_some() && old.window_start != new.window_start {
		return Err("the beginning of the window has moved");
	}
	let may_follow = match old.state {
		StateV1::Decided => {
			matches!(new.state, StateV1::Decided | StateV1::Owed | StateV1::Void)
		},
		StateV1::Owed => !matches!(new.state, StateV1::Decided | StateV1::Void),
		StateV1::Failed => {
			matches!(new.state, StateV1::Failed | StateV1::Owed | StateV1::Paid)
		},
		// Proof may come late.
		StateV1::Paid | StateV1::Kept | StateV1::Forfeited | StateV1::Void => {
			new.state == old.state || new.state == StateV1::Paid
		},
	};
	match may_follow && new.attempts >= old.attempts {
		true => Ok(()),
		false => Err("it goes back to an earlier state"),
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::machine::tests::debt;
	use crate::records::SourceRefV1;
	use leyden_store::{Stamp, Timestamp};

	type Change = fn(&mut DebtV1);

	/// A record that was changed by hand, or that a mistake would write, is never paid and never written.
	#[test]
	fn a_record_that_does_not_add_up_is_seen() {
		assert_eq!(check(&debt()), Ok(()));
		let wrong: [(&str, Change); 15] = [
			("no amount", |debt| debt.amount_sat = 0),
			("the node keeps more than there is", |debt| debt.node_share_sat = 1_001),
			("fees beyond the amount", |debt| debt.fee_cap_msat = 500_001),
			("fees that overflow", |debt| debt.fee_cap_msat = u64::MAX),
			("no beginning of the window", |debt| debt.window_start = None),
			("a window before the money was in", |debt| debt.state = StateV1::Decided),
			("void with a window", |debt| (debt.state, debt.due) = (StateV1::Void, None)),
			("closed and scheduled", |debt| debt.state = StateV1::Paid),
			("open and not scheduled", |debt| debt.due = None),
			("kept and owed", |debt| (debt.state, debt.due) = (StateV1::Kept, None)),
			("forfeited with an invoice", |debt| {
				(debt.state, debt.due) = (StateV1::Forfeited, None);
				(debt.was_invoiced, debt.reminders_delivered) = (true, 1);
				debt.first_delivered_at = Some(Timestamp(1));
			}),
			("forfeited without a reminder", |debt| {
				(debt.state, debt.due, debt.reminders_delivered) = (StateV1::Forfeited, None, 0);
			}),
			("more reminders delivered than sent", |debt| {
				(debt.reminders_delivered, debt.first_delivered_at) = (2, Some(Timestamp(1)));
			}),
			("a reminder delivered at no time", |debt| debt.reminders_delivered = 1),
			("more failures than attempts", |debt| debt.failed_attempts = 1),
		];
		for (what, change) in wrong {
			let mut debt = debt();
			debt.reminders = 1;
			change(&mut debt);
			assert!(check(&debt).is_err(), "{what}");
		}
	}

	#[test]
	fn terms_do_not_change_and_no_state_comes_back() {
		assert_eq!(check_change(&debt(), &debt()), Ok(()));
		let wrong: [(&str, Change); 10] = [
			("the amount", |debt| debt.amount_sat += 1),
			("the shares", |debt| debt.node_share_sat += 1),
			("the payee", |debt| debt.payee = vec![2]),
			("the source", |debt| debt.source = SourceRefV1::Budget([1; 32])),
			("the window", |debt| debt.invoice_window_ms += 1),
			("the failures that are allowed", |debt| debt.max_failed_attempts += 1),
			("the fee cap", |debt| debt.fee_cap_msat -= 1),
			("the beginning of the window", |debt| debt.window_start = Some(Stamp::default())),
			("decided again", |debt| debt.state = StateV1::Decided),
			("void after the money was in", |debt| debt.state = StateV1::Void),
		];
		for (what, change) in wrong {
			let mut next = debt();
			change(&mut next);
			assert!(check_change(&debt(), &next).is_err(), "{what}");
		}
		for over in [StateV1::Paid, StateV1::Kept, StateV1::Forfeited, StateV1::Void] {
			let old = DebtV1 { state: over, ..debt() };
			assert!(check_change(&old, &debt()).is_err(), "{over:?} is over");
		}
	}
}
