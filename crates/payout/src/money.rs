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

#[cfg(test)]
mod tests {
	use super::*;
	use leyden_store::Timestamp;

	fn debt() -> DebtV1 {
		DebtV1 {
			creditor: vec![1],
			cause: String::new(),
			amount_sat: 1_000,
			node_share_sat: 500,
			held: None,
			window_ms: 1,
			cadence_ms: 1,
			budget: 1,
			fee_cap_msat: 500_000,
			decided_at: Timestamp(1),
			slashed_at: Some(Timestamp(1)),
			state: StateV1::Owed,
			invoice: None,
			was_invoiced: false,
			spent: 0,
			attempts: 0,
			live: None,
			nudges: 1,
			nudges_sent: 1,
			nudged_at: None,
			due: Some(Timestamp(1)),
			closed_at: None,
			notes: 0,
			outside: None,
		}
	}

	/// What somebody has changed by hand, or a mistake of ours would write: never paid, never written.
	#[test]
	fn what_does_not_add_up_is_seen() {
		type Change = fn(&mut DebtV1);
		assert!(check(&debt()).is_ok());
		let wrong: [(&str, Change); 13] = [
			("no amount", |debt| debt.amount_sat = 0),
			("the node keeps more than there is", |debt| debt.node_share_sat = 1_001),
			("fees beyond what came in", |debt| debt.fee_cap_msat = 500_001),
			("fees that overflow", |debt| debt.fee_cap_msat = u64::MAX),
			("no beginning of the window", |debt| debt.slashed_at = None),
			("a window before the money was in", |debt| debt.state = StateV1::Decided),
			("over, and due", |debt| debt.state = StateV1::Paid),
			("open, and never looked at", |debt| debt.due = None),
			("kept, and owed", |debt| (debt.state, debt.due) = (StateV1::Kept, None)),
			("forfeited, and asked for", |debt| {
				(debt.state, debt.due, debt.was_invoiced) = (StateV1::Forfeited, None, true);
			}),
			("forfeited, and never told", |debt| {
				(debt.state, debt.due, debt.nudges_sent) = (StateV1::Forfeited, None, 0);
			}),
			("more reminders arrived than were sent", |debt| debt.nudges_sent = 2),
			("more failed than was tried", |debt| debt.spent = 1),
		];
		for (what, change) in wrong {
			let mut debt = debt();
			change(&mut debt);
			assert!(matches!(check(&debt), Err(PayoutError::Unsound { .. })), "{what}");
		}
	}

	#[test]
	fn what_was_agreed_does_not_change() {
		type Change = fn(&mut DebtV1);
		assert!(check_change(&debt(), &debt()).is_ok());
		let wrong: [(&str, Change); 8] = [
			("the amount", |debt| debt.amount_sat += 1),
			("the shares", |debt| debt.node_share_sat += 1),
			("the creditor", |debt| debt.creditor = vec![2]),
			("the window", |debt| debt.window_ms += 1),
			("the budget", |debt| debt.budget += 1),
			("the fee cap", |debt| debt.fee_cap_msat -= 1),
			("the beginning of the window", |debt| debt.slashed_at = Some(Timestamp(2))),
			("back to what it was", |debt| debt.state = StateV1::Decided),
		];
		for (what, change) in wrong {
			let mut next = debt();
			change(&mut next);
			assert!(check_change(&debt(), &next).is_err(), "{what}");
		}
		for over in [StateV1::Paid, StateV1::Kept, StateV1::Forfeited] {
			let old = DebtV1 { state: over, ..debt() };
			assert!(check_change(&old, &debt()).is_err(), "{over:?} is over");
		}
	}
}
