// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What must be true of the money, checked before everything that is written.

use crate::error::PayoutError;
use crate::records::{DebtV1, StateV1};

/// Whether a debt adds up by itself.
pub(crate) fn check(debt: &DebtV1) -> Result<(), PayoutError> {
	let unsound = |what| Err(PayoutError::Unsound { what });
	if debt.amount_sat == 0 || debt.node_share_sat > debt.amount_sat {
		return unsound("the shares are not the amount");
	}
	let share_msat = u128::from(debt.share_sat()) * 1000;
	let most_msat = u128::from(debt.amount_sat) * 1000;
	if share_msat > 0 && share_msat + u128::from(debt.fee_cap_msat) > most_msat {
		return unsound("what goes out, with its fees, is more than what came in");
	}
	if debt.slashed_at.is_none() != (debt.state == StateV1::Decided) {
		return unsound("the window has no beginning");
	}
	let is_over =
		matches!(debt.state, StateV1::Paid | StateV1::Kept | StateV1::Forfeited | StateV1::Failed);
	if is_over != debt.due.is_none() || (is_over && debt.live.is_some()) {
		return unsound("it is over, and is not");
	}
	if debt.state == StateV1::Kept && debt.share_sat() > 0 {
		return unsound("something is owed, and was kept");
	}
	if debt.state == StateV1::Forfeited && (debt.was_invoiced || debt.nudges_sent == 0) {
		return unsound("it was forfeited, and the creditor asked for it or was never told");
	}
	if debt.nudges_sent > debt.nudges || debt.spent > debt.attempts {
		return unsound("it counts more than there was");
	}
	Ok(())
}

/// Whether one may follow the other: what was agreed does not change.
pub(crate) fn check_change(old: &DebtV1, new: &DebtV1) -> Result<(), PayoutError> {
	let unsound = |what| Err(PayoutError::Unsound { what });
	let terms = |debt: &DebtV1| {
		let DebtV1 {
			amount_sat, node_share_sat, window_ms, cadence_ms, budget, fee_cap_msat, ..
		} = debt;
		(*amount_sat, *node_share_sat, *window_ms, *cadence_ms, *budget, *fee_cap_msat)
	};
	if terms(old) != terms(new) || old.creditor != new.creditor || old.held != new.held {
		return unsound("its terms have changed");
	}
	if old.slashed_at.is_some() && old.slashed_at != new.slashed_at {
		return unsound("the beginning of the window has moved");
	}
	let may_follow = match old.state {
		StateV1::Decided => matches!(new.state, StateV1::Decided | StateV1::Owed),
		StateV1::Owed => new.state != StateV1::Decided,
		StateV1::Failed => {
			matches!(new.state, StateV1::Failed | StateV1::Owed | StateV1::Paid)
		},
		// Proof may come late.
		StateV1::Paid | StateV1::Kept | StateV1::Forfeited => {
			new.state == old.state || new.state == StateV1::Paid
		},
	};
	match may_follow && new.attempts >= old.attempts {
		true => Ok(()),
		false => unsound("it goes back to what it was"),
	}
}
