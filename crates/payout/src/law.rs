// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What to do with a debt, as a pure function: the law.

use std::time::Duration;

use leyden_store::Timestamp;

/// How far a debt is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
	/// It was decided; the money is still held, not ours.
	Decided,
	/// The money is in, and the creditor's share is owed.
	Owed,
	/// It was paid.
	Paid,
	/// Nothing was owed: the node keeps everything.
	Kept,
	/// Nobody asked for it in time: the node keeps everything.
	Forfeited,
	/// Its invoice could not be paid. A fresh one, in time, opens it again.
	Failed,
}

/// What is known of a debt.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
	/// How far it is.
	pub state: State,
	/// What is owed, in satoshi.
	pub share_sat: u64,
	/// The attempt that is not known to be over, if there is one.
	pub live: Option<u32>,
	/// When its invoice expires, if there is one.
	pub invoice_expires_at: Option<Timestamp>,
	/// Whether there was ever one.
	pub was_invoiced: bool,
	/// Dispatches of its invoice that are dead.
	pub spent: u32,
	/// How many there may be.
	pub budget: u32,
	/// When the creditor was last reminded.
	pub nudged_at: Option<Timestamp>,
	/// How many reminders are known to have been sent.
	pub nudges_sent: u32,
	/// How often there is one.
	pub cadence: Duration,
	/// When the window ends.
	pub deadline: Timestamp,
	/// What the clock shows, for what others have dated.
	pub clock: Timestamp,
	/// Time, for what is done again: it goes on whatever the clock does.
	pub now: Timestamp,
	/// Time, for what cannot be taken back: it does not jump.
	pub steady: Timestamp,
	/// Since when somebody looks after debts without a gap; in the time of `now`.
	pub awake_since: Timestamp,
	/// Whether what the node has already paid for it was compared in this life.
	pub compared: bool,
}

/// What to do with a debt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
	/// Take the money that is held.
	SettleHeld,
	/// Ask what became of the attempt that is live.
	Ask(u32),
	/// Close it: nothing is owed.
	Keep,
	/// Close it: nobody asked for it in time.
	Forfeit,
	/// Remind the creditor.
	Nudge,
	/// Ask the node what it has already paid for it.
	Compare,
	/// Pay: plan an attempt, and then tell the node.
	Pay,
	/// Its invoice is of no use any more: ask for another.
	DropInvoice,
	/// Give up its invoice: whoever looks after debts must know.
	Fail,
	/// Nothing before then.
	Wait(Timestamp),
	/// Nothing, ever.
	Nothing,
}

/// The law.
pub fn decide(facts: &Facts) -> Decision {
	match facts.state {
		State::Decided => return Decision::SettleHeld,
		State::Owed => {},
		State::Paid | State::Kept | State::Forfeited | State::Failed => return Decision::Nothing,
	}
	// Nothing else is done while it may still be paid.
	if let Some(number) = facts.live {
		return Decision::Ask(number);
	}
	// Before the window: what is the node's own is never forfeited.
	if facts.share_sat == 0 {
		return Decision::Keep;
	}
	let is_past = facts.steady >= facts.deadline;
	if let Some(expires_at) = facts.invoice_expires_at {
		return match () {
			() if facts.spent >= facts.budget => Decision::Fail,
			() if facts.clock >= expires_at && is_past => Decision::Fail,
			() if facts.clock >= expires_at => Decision::DropInvoice,
			() if !facts.compared => Decision::Compare,
			() => Decision::Pay,
		};
	}
	let next_nudge = facts.nudged_at.map_or(Timestamp(0), |at| at.after(facts.cadence));
	let nudge = match facts.now >= next_nudge {
		true => Decision::Nudge,
		false => Decision::Wait(next_nudge),
	};
	if !is_past {
		return nudge;
	}
	if facts.was_invoiced {
		return Decision::Fail;
	}
	// The creditor was told, and had time to answer while somebody was there to listen.
	let listened = facts.awake_since.after(facts.cadence);
	match () {
		() if facts.nudges_sent == 0 => nudge,
		() if facts.now < listened => Decision::Wait(listened),
		() => Decision::Forfeit,
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	const HOUR: Duration = Duration::from_secs(3600);
	const T: fn(u64) -> Timestamp = |hours| Timestamp(hours * 3_600_000);

	fn facts() -> Facts {
		Facts {
			state: State::Owed,
			share_sat: 500,
			live: None,
			invoice_expires_at: None,
			was_invoiced: false,
			spent: 0,
			budget: 3,
			nudged_at: None,
			nudges_sent: 0,
			cadence: HOUR,
			deadline: T(100),
			clock: T(10),
			now: T(10),
			steady: T(10),
			awake_since: T(1),
			compared: true,
		}
	}

	fn past() -> Facts {
		Facts { now: T(100), steady: T(100), nudges_sent: 1, nudged_at: Some(T(99)), ..facts() }
	}

	/// Every row.
	#[test]
	fn the_table() {
		let rows: &[(&str, Facts, Decision)] = &[
			("decided", Facts { state: State::Decided, ..facts() }, Decision::SettleHeld),
			("paid", Facts { state: State::Paid, ..facts() }, Decision::Nothing),
			("kept", Facts { state: State::Kept, ..facts() }, Decision::Nothing),
			("forfeited", Facts { state: State::Forfeited, ..facts() }, Decision::Nothing),
			("failed", Facts { state: State::Failed, ..facts() }, Decision::Nothing),
			("live", Facts { live: Some(2), ..facts() }, Decision::Ask(2)),
			("live, past", Facts { live: Some(2), ..past() }, Decision::Ask(2)),
			("node only", Facts { share_sat: 0, ..facts() }, Decision::Keep),
			("node only, past (H-A11)", Facts { share_sat: 0, ..past() }, Decision::Keep),
			("first nudge", facts(), Decision::Nudge),
			("just nudged", Facts { nudged_at: Some(T(10)), ..facts() }, Decision::Wait(T(11))),
			("nudged a cadence ago", Facts { nudged_at: Some(T(9)), ..facts() }, Decision::Nudge),
			("past", past(), Decision::Forfeit),
			(
				"one moment before",
				Facts { now: Timestamp(T(100).0 - 1), steady: Timestamp(T(100).0 - 1), ..past() },
				Decision::Wait(T(100)),
			),
			("past, a clock that jumped", Facts { steady: T(10), ..past() }, Decision::Nudge),
			(
				"past, never told",
				Facts { nudges_sent: 0, nudged_at: None, ..past() },
				Decision::Nudge,
			),
			(
				"past, nobody listened",
				Facts { awake_since: T(100), ..past() },
				Decision::Wait(T(101)),
			),
			(
				"past, listened for a cadence",
				Facts { awake_since: T(99), ..past() },
				Decision::Forfeit,
			),
			("past, had an invoice", Facts { was_invoiced: true, ..past() }, Decision::Fail),
		];
		for (name, facts, expected) in rows {
			assert_eq!(decide(facts), *expected, "{name}");
		}
		let invoiced = Facts { invoice_expires_at: Some(T(50)), was_invoiced: true, ..facts() };
		let rows: &[(&str, Facts, Decision)] = &[
			("pay", invoiced, Decision::Pay),
			("pay, past", Facts { steady: T(101), ..invoiced }, Decision::Pay),
			("compare first", Facts { compared: false, ..invoiced }, Decision::Compare),
			("one left", Facts { spent: 2, ..invoiced }, Decision::Pay),
			("budget", Facts { spent: 3, ..invoiced }, Decision::Fail),
			("expired", Facts { clock: T(50), ..invoiced }, Decision::DropInvoice),
			("a clock that was set back", Facts { now: T(50), ..invoiced }, Decision::Pay),
			("expired, past", Facts { clock: T(100), steady: T(100), ..invoiced }, Decision::Fail),
		];
		for (name, facts, expected) in rows {
			assert_eq!(decide(facts), *expected, "{name}");
		}
	}

	/// Nothing falls through, and what cannot be taken back is only decided when it may be.
	#[test]
	fn every_combination_has_a_decision() {
		let states = [
			State::Decided,
			State::Owed,
			State::Paid,
			State::Kept,
			State::Forfeited,
			State::Failed,
		];
		let times = [T(0), T(10), T(99), T(100), T(101), T(9_000)];
		let mut seen = 0_u32;
		for state in states {
			for share_sat in [0, 500] {
				for live in [None, Some(1)] {
					for invoice_expires_at in [None, Some(T(50)), Some(T(9_999))] {
						for (spent, nudges_sent) in [(0, 0), (0, 1), (3, 0), (9, 9)] {
							for now in times {
								for steady in times.into_iter().filter(|steady| *steady <= now) {
									for awake_since in [T(0), T(99), T(100)] {
										for was_invoiced in [false, true] {
											for compared in [false, true] {
												let facts = Facts {
													state,
													share_sat,
													live,
													invoice_expires_at,
													was_invoiced: was_invoiced
														|| invoice_expires_at.is_some(),
													spent,
													nudged_at: (nudges_sent > 0).then_some(T(9)),
													nudges_sent,
													clock: now,
													now,
													steady,
													awake_since,
													compared,
													..facts()
												};
												check(&facts);
												seen += 1;
											}
										}
									}
								}
							}
						}
					}
				}
			}
		}
		assert!(seen > 10_000);
	}

	fn check(facts: &Facts) {
		let decision = decide(facts);
		let open = facts.state == State::Owed && facts.live.is_none();
		match decision {
			Decision::Pay => assert!(open && facts.compared && facts.spent < facts.budget),
			Decision::Forfeit => {
				assert!(open && facts.share_sat > 0 && !facts.was_invoiced);
				assert!(facts.steady >= facts.deadline && facts.nudges_sent > 0);
				assert!(facts.now >= facts.awake_since.after(facts.cadence));
			},
			Decision::Keep => assert!(open && facts.share_sat == 0),
			Decision::Ask(_) => assert!(facts.live.is_some()),
			Decision::Wait(until) => {
				assert!(open && until > facts.now.min(facts.steady), "{facts:?}");
			},
			Decision::Nothing => assert!(!open && facts.state != State::Decided),
			_ => {},
		}
	}
}
