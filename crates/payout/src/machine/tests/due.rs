// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Rows for each thing that a debt which is due may be in.

use super::*;

#[test]
fn the_table_of_debts_that_are_due() {
	let held = SourceRefV1::Held([4; 32]);
	let decided = DebtV1 { state: StateV1::Decided, source: held, window_start: None, ..debt() };
	let over = |state| DebtV1 { state, due: None, ..debt() };
	let theirs = theirs();
	let old = LiveV1 { number: 1, owner: 2, lease: hours(NOW) };
	let all_kept = DebtV1 { node_share_sat: 1_000, ..debt() };
	let (frozen, fresh, ahead) = (frozen(), fresh(), ahead());
	let jumped = Facts { times: Times { steady: hours(NOW), ..at(100).times }, ..at(100) };
	let slow = Facts { awake_since: hours(100), ..at(100) };
	let back = Facts { times: Times { running: hours(60), ..facts().times }, ..facts() };
	let rows: &[(&str, DebtV1, Facts, &str)] = &[
		("decided", decided.clone(), facts(), "settle"),
		("decided, frozen: the money comes in", decided, frozen, "settle"),
		("paid", over(StateV1::Paid), facts(), ""),
		("kept", DebtV1 { due: None, state: StateV1::Kept, ..all_kept.clone() }, facts(), ""),
		("failed", over(StateV1::Failed), facts(), ""),
		("live", live(), facts(), "look 1"),
		("live, past its window", live(), at(101), "look 1"),
		("live, another worker's", DebtV1 { live: Some(theirs), ..live() }, facts(), "in 3600 s"),
		("live, its lease is over", DebtV1 { live: Some(old), ..live() }, facts(), "look 1"),
		("live, frozen", live(), frozen, "look 1"),
		("nothing is owed", all_kept.clone(), facts(), "Kept"),
		("nothing is owed, past the window", all_kept, at(500), "Kept"),
		("the first reminder", debt(), facts(), "in 3600 s, tell InvoiceWanted(1)"),
		(
			"the first reminder, not compared",
			debt(),
			fresh,
			"in 3600 s, tell InvoiceWanted(1), compare",
		),
		(
			"just reminded, not compared",
			DebtV1 { reminders: 1, reminded_at: Some(hours(NOW)), ..debt() },
			fresh,
			"in 3600 s, compare",
		),
		(
			"just reminded",
			DebtV1 { reminders: 1, reminded_at: Some(hours(NOW)), ..debt() },
			facts(),
			"in 3600 s",
		),
		(
			"reminded an interval ago",
			DebtV1 { reminders: 1, reminded_at: Some(hours(NOW - 1)), ..debt() },
			facts(),
			"in 3600 s, tell InvoiceWanted(2)",
		),
		("past the window", past(), at(100), "Forfeited, tell Forfeited"),
		("one hour before", past(), at(99), "in 324000 s"),
		("past, by a clock that jumped", past(), jumped, "in 327600 s, tell InvoiceWanted(10)"),
		(
			"past, and no reminder arrived",
			DebtV1 { reminders_delivered: 0, first_delivered_at: None, ..past() },
			at(100),
			"in 327600 s, tell InvoiceWanted(10)",
		),
		(
			"past, and the first reminder has just arrived",
			DebtV1 { first_delivered_at: Some(hours(100)), ..past() },
			at(100),
			"in 327600 s",
		),
		(
			"past, not compared",
			past(),
			Facts { is_compared: false, is_listed: false, ..at(100) },
			"compare",
		),
		(
			"past, of which the node has said what it knows",
			past(),
			Facts { is_compared: false, ..at(100) },
			"Forfeited, tell Forfeited",
		),
		(
			"past, decided when the clock showed another year",
			DebtV1 { window_start: Some(Stamp { wall: hours(90_000), ..stamp(1) }), ..past() },
			at(100),
			"Forfeited, tell Forfeited",
		),
		("past, and debts were not looked after", past(), slow, "in 327600 s"),
		(
			"past, had an invoice",
			DebtV1 { was_invoiced: true, ..past() },
			at(100),
			"Failed, tell Failed",
		),
		("an invoice", invoiced(), facts(), "prepare 1"),
		(
			"an invoice, past the window",
			invoiced(),
			Facts { times: Times { wall: hours(49), ..at(101).times }, ..at(101) },
			"prepare 1",
		),
		("an invoice, not compared", invoiced(), fresh, "compare"),
		("an invoice, frozen", invoiced(), frozen, "in 60 s"),
		(
			"two have failed",
			DebtV1 { failed_attempts: 2, attempts: 2, ..invoiced() },
			facts(),
			"prepare 3",
		),
		(
			"three have failed",
			DebtV1 { failed_attempts: 3, attempts: 3, ..invoiced() },
			facts(),
			"Failed, tell Failed",
		),
		("an expired invoice", invoiced(), at(50), "drop invoice, in 144000 s"),
		("an expired invoice, past the window", invoiced(), at(100), "Failed, tell Failed"),
		("an invoice, the clock was set back", invoiced(), back, "prepare 1"),
		("an invoice that has expired by the wall clock alone", invoiced(), ahead, "in 60 s"),
		(
			"past the window, and expired by the wall clock alone",
			DebtV1 { invoice_window_ms: hours(1).0, ..invoiced() },
			ahead,
			"in 60 s",
		),
	];
	let mut wrong = Vec::new();
	for (what, debt, facts, expected) in rows {
		let attempts: Vec<_> =
			debt.live.iter().map(|live| (live.number, attempt(VerdictV1::Unknown))).collect();
		let view = View { id: &id(), debt, attempts: &attempts };
		let step = on_due(view, facts).unwrap();
		wrong.extend(differs(what, &short(&step, debt), expected));
	}
	assert!(wrong.is_empty(), "{wrong:#?}");
	// What was told once is not told again.
	let known = KnownPayment { number: 1, payment_hash: hash(), may_pay: true };
	let memory = NodeMemory::Forever;
	let answer = Answer::Compare(Some(KnownPayments::Listed { payments: vec![known], memory }));
	let attempts = [(1, AttemptV1 { is_questioned: true, ..attempt(DEAD) })];
	let once = DebtV1 { attempts: 1, ..invoiced() };
	let step = on_answer(View { id: &id(), debt: &once, attempts: &attempts }, answer, &fresh);
	assert_eq!(short(&step, &once), "in 60 s");
	// What contradicts itself is an error, and not a panic.
	let broken = DebtV1 { state: StateV1::Decided, window_start: None, ..debt() };
	assert!(on_due(View { id: &id(), debt: &broken, attempts: &[] }, &facts()).is_err());
	assert!(on_due(View { id: &id(), debt: &live(), attempts: &[] }, &facts()).is_err());
}
