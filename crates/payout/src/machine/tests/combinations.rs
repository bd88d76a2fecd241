// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Every combination of what decides on a debt that is due.

use super::*;

/// The decisions on all combinations: nothing falls through, and what cannot be taken back is only decided
/// when it may be.
#[test]
fn every_combination_is_decided() {
	let times = [hours(1), hours(10), hours(99), hours(100), hours(101), hours(9_000)];
	let mut seen = 0_u32;
	for node_share_sat in [500, 1_000] {
		for is_live in [false, true] {
			for expires_at in [None, Some(hours(50)), Some(hours(9_999))] {
				for (failed, delivered) in [(0, 0), (0, 1), (3, 0), (9, 9)] {
					for now in times {
						for steady in times.into_iter().filter(|steady| *steady <= now) {
							for awake_since in [hours(0), hours(99), hours(100)] {
								for flags in 0..16_u8 {
									let mut debt = DebtV1 { node_share_sat, ..invoiced() };
									debt.attempts = 9;
									debt.live = live().live.filter(|_| is_live);
									debt.was_invoiced = flags & 1 > 0 || expires_at.is_some();
									match (&mut debt.invoice, expires_at) {
										(Some(invoice), Some(at)) => invoice.expires_at = at,
										(invoice, _) => *invoice = None,
									}
									debt.failed_attempts = failed;
									(debt.reminders, debt.reminders_delivered) = (9, delivered);
									debt.first_delivered_at = (delivered > 0).then(|| hours(99));
									debt.reminded_at = Some(hours(9));
									let times =
										Times { wall: now, running: now, steady, ..facts().times };
									let facts = Facts {
										times,
										awake_since,
										is_compared: flags & 2 > 0,
										is_listed: flags & 8 > 0,
										is_frozen: flags & 4 > 0,
										..facts()
									};
									check(&debt, &facts);
									seen += 1;
								}
							}
						}
					}
				}
			}
		}
	}
	assert!(seen > 20_000);
}

fn check(debt: &DebtV1, facts: &Facts) {
	let attempts = [(1, attempt(VerdictV1::Unknown))];
	let step = on_due(View { id: &id(), debt, attempts: &attempts }, facts).unwrap();
	let text = short(&step, debt);
	assert!(!text.is_empty() || debt.due > Some(facts.now()), "{debt:?} is looked at for ever");
	let open = debt.live.is_none();
	if let Some(Ask::Prepare(_)) = step.ask {
		assert!(open && facts.is_compared && !facts.is_frozen);
		assert!(debt.failed_attempts < debt.max_failed_attempts && debt.share_sat() > 0);
	}
	assert!(!matches!(step.ask, Some(Ask::Pay(_))), "nothing is paid without a plan");
	match step.debt.map(|next| next.state) {
		Some(StateV1::Forfeited) => {
			assert!(open && debt.share_sat() > 0 && !debt.was_invoiced);
			assert!(debt.window_left(&facts.times).is_none() && debt.reminders_delivered > 0);
			assert!(facts.is_listed || facts.is_compared);
			let heard = facts.awake_since.max(debt.first_delivered_at.unwrap());
			assert!(facts.now() >= heard.after(debt.reminder_interval()));
		},
		Some(StateV1::Kept) => assert!(open && debt.share_sat() == 0),
		Some(StateV1::Failed) => assert!(open && debt.was_invoiced),
		Some(StateV1::Owed) | None => {},
		Some(state) => panic!("{state:?}"),
	}
}
