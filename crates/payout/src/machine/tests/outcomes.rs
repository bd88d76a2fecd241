// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Payments that the node tells of by itself, and attempts beside one that has paid.

use super::*;

/// An attempt beside one that has paid after all: it is not made, and the debt ends as paid.
#[test]
fn nothing_is_sent_beside_an_attempt_that_has_paid() {
	let settled = attempt(VerdictV1::Settled { preimage: PREIMAGE, fee_msat: None });
	let second = {
		let live = LiveV1 { number: 2, owner: US, lease: hours(NOW + 1) };
		DebtV1 { attempts: 2, live: Some(live), ..invoiced() }
	};
	for verdict in [VerdictV1::Planned, VerdictV1::Unknown, VerdictV1::Accepted] {
		let attempts = [(1, settled.clone()), (2, attempt(verdict))];
		let view = View { id: &id(), debt: &second, attempts: &attempts };
		let answer = Answer::Look(2, Some(AttemptStatus::NoRecord(NodeMemory::Forever)));
		let step = on_answer(view, answer, &facts());
		assert_eq!(short(&step, &second), "Paid, attempt 2 dead, tell Paid");
	}
	let debt = DebtV1 { attempts: 1, ..invoiced() };
	let attempts = [(1, settled)];
	let view = View { id: &id(), debt: &debt, attempts: &attempts };
	let answer = Answer::Prepare(2, hash(), Some(NodeToken::default()));
	assert_eq!(short(&on_answer(view, answer, &facts()), &debt), "Paid, tell Paid");
	assert_eq!(short(&on_due(view, &facts()).unwrap(), &debt), "Paid, tell Paid");
}

/// An attempt that the node knew and the store did not, when the node has forgotten it: paid, perhaps. It
/// is never made again.
#[test]
fn an_adopted_attempt_is_never_made_again() {
	let adopted = AttemptV1 { invoice: String::new(), ..attempt(VerdictV1::Unknown) };
	let attempts = [(1, adopted)];
	for facts in [facts(), Facts { is_newest: true, ..facts() }, at(90)] {
		let debt = live();
		let view = View { id: &id(), debt: &debt, attempts: &attempts };
		let answer = Answer::Look(1, Some(AttemptStatus::NoRecord(NodeMemory::Forever)));
		let step = on_answer(view, answer, &facts);
		assert!(step.ask.is_none() && step.freeze.is_some(), "{}", short(&step, &debt));
		assert!(step.debt.unwrap().live.is_some());
	}
}

/// The attempt that a settled payment is of (A5): the one that it names, or the only one that it can be.
#[test]
fn the_table_of_outcomes() {
	let dead = DEAD;
	let unsent = VerdictV1::Dead { counts: false, never_sent: true };
	let settled = VerdictV1::Settled { preimage: PREIMAGE, fee_msat: None };
	let (unknown, hash) = (VerdictV1::Unknown, hash());
	let paid = || super::settled(Some(1));
	let failed = || AttemptStatus::Failed(FailureReason::Other);
	let second = || {
		let live = LiveV1 { number: 2, owner: US, lease: hours(NOW + 1) };
		DebtV1 { attempts: 2, live: Some(live), failed_attempts: 1, ..invoiced() }
	};
	let closed = |state| DebtV1 { state, due: None, attempts: 1, ..invoiced() };
	type Row = (&'static str, DebtV1, Vec<VerdictV1>, Option<u32>, AttemptStatus, &'static str);
	let rows: Vec<Row> = vec![
		(
			"the live one",
			live(),
			vec![unknown],
			Some(1),
			paid(),
			"Paid, attempt 1 settled, tell Paid",
		),
		(
			"the live one, unnamed",
			live(),
			vec![unknown],
			None,
			paid(),
			"Paid, attempt 1 settled, tell Paid",
		),
		(
			"the dead one, another is live",
			second(),
			vec![dead, unknown],
			Some(1),
			paid(),
			"attempt 1 settled, freeze",
		),
		(
			"the live one, another is dead",
			second(),
			vec![dead, unknown],
			Some(2),
			paid(),
			"Paid, attempt 2 settled, tell Paid",
		),
		(
			"one of two dead ones, unnamed",
			DebtV1 { attempts: 2, ..closed(StateV1::Failed) },
			vec![dead, dead],
			None,
			paid(),
			"Paid, attempt 2 settled, freeze, tell Paid",
		),
		("one of the two, unnamed", second(), vec![dead, unknown], None, paid(), "freeze"),
		(
			"the live one, the dead one had settled",
			second(),
			vec![settled, unknown],
			Some(2),
			paid(),
			"Paid, attempt 2 settled, freeze, tell Paid",
		),
		(
			"one of the two, unnamed, and the other was never sent",
			second(),
			vec![unsent, unknown],
			None,
			paid(),
			"Paid, attempt 2 settled, tell Paid",
		),
		("the other, unnamed", second(), vec![settled, unknown], None, paid(), ""),
		("said again", second(), vec![settled, unknown], Some(1), paid(), ""),
		(
			"the dead one, none is live",
			closed(StateV1::Failed),
			vec![dead],
			Some(1),
			paid(),
			"Paid, attempt 1 settled, freeze, tell Paid",
		),
		(
			"the dead one, unnamed",
			closed(StateV1::Failed),
			vec![dead],
			None,
			paid(),
			"Paid, attempt 1 settled, freeze, tell Paid",
		),
		("said again, unnamed", closed(StateV1::Paid), vec![settled], None, paid(), ""),
		(
			"one that the store does not know",
			invoiced(),
			vec![],
			Some(3),
			paid(),
			"Paid, new attempt 3 settled, freeze, tell Paid",
		),
		(
			"one with a foreign name",
			invoiced(),
			vec![],
			Some(9_999),
			paid(),
			"Paid, new attempt 1 settled, freeze, tell Paid",
		),
		(
			"one with a foreign name, told again",
			closed(StateV1::Paid),
			vec![settled],
			Some(9_999),
			paid(),
			"",
		),
		(
			"one with a foreign name, beside one that has settled",
			DebtV1 { attempts: 2, ..closed(StateV1::Paid) },
			vec![dead, settled],
			Some(9_999),
			paid(),
			"new attempt 3 settled, freeze",
		),
		(
			"the live one has failed",
			live(),
			vec![unknown],
			Some(1),
			failed(),
			"count, in 60 s, attempt 1 dead",
		),
		(
			"the live one has failed, and an earlier one has paid",
			second(),
			vec![settled, unknown],
			Some(2),
			failed(),
			"Paid, attempt 2 dead, tell Paid",
		),
		("one has failed, unnamed", live(), vec![unknown], None, failed(), ""),
		("a dead one has failed", second(), vec![dead, unknown], Some(1), failed(), ""),
		("in flight", live(), vec![unknown], Some(1), AttemptStatus::InFlight, ""),
		(
			"no record",
			live(),
			vec![unknown],
			Some(1),
			AttemptStatus::NoRecord(NodeMemory::Forever),
			"",
		),
		(
			"a wrong preimage",
			live(),
			vec![unknown],
			Some(1),
			AttemptStatus::Settled { preimage: [8; 32], fee_msat: None },
			"in 15 s, freeze",
		),
	];
	let mut wrong = Vec::new();
	for (what, debt, verdicts, name, status, expected) in rows {
		let numbers = 1..;
		let mut attempts: Vec<_> = numbers.zip(verdicts.into_iter().map(attempt)).collect();
		if what.contains("told again") {
			let foreign = id().attempt(9_999);
			attempts[0].1.token = NodeToken::new(*foreign.as_bytes()).unwrap();
		}
		let view = View { id: &id(), debt: &debt, attempts: &attempts };
		let name = name.map(|number| id().attempt(number));
		let step = on_outcome(view, &hash, name.as_ref(), &status, &facts());
		wrong.extend(differs(what, &short(&step, &debt), expected));
	}
	assert!(wrong.is_empty(), "{wrong:#?}");
}
