// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Tables: one row for each thing that a debt may be in, and each thing that may be said of it.

use super::*;
use crate::invariants;
use crate::payer::{FailureReason, KnownPayment};
use crate::records::{InvoiceV1, SourceRefV1};

const HOUR: Duration = Duration::from_secs(3600);
const PREIMAGE: [u8; 32] = [7; 32];
const US: u64 = 1;

fn hours(hours: u64) -> Timestamp {
	Timestamp(hours * 3_600_000)
}

fn stamp(hour: u64) -> Stamp {
	Stamp { wall: hours(hour), steady: hours(hour) }
}

/// The time in hours of every row, unless it says another.
const NOW: u64 = 10;

fn hash() -> [u8; 32] {
	sha256::Hash::hash(&PREIMAGE).to_byte_array()
}

/// A debt of 500 sat that is owed since hour 1, with a window of 99 hours and a reminder each hour.
pub(crate) fn debt() -> DebtV1 {
	DebtV1 {
		payee: vec![1],
		cause: String::new(),
		amount_sat: 1_000,
		node_share_sat: 500,
		source: SourceRefV1::InHand,
		invoice_window_ms: hours(99).0,
		reminder_interval_ms: hours(1).0,
		max_failed_attempts: 3,
		fee_cap_msat: 10_000,
		decided: stamp(1),
		window_start: Some(stamp(1)),
		state: StateV1::Owed,
		invoice: None,
		was_invoiced: false,
		failed_attempts: 0,
		setbacks: 0,
		told_no_funds: false,
		told_no_route: false,
		attempts: 0,
		live: None,
		declared: 0,
		paid_by: None,
		reminders: 0,
		reminders_delivered: 0,
		first_delivered_at: None,
		reminded_at: None,
		is_unproven: false,
		due: Some(hours(NOW)),
		closed_at: None,
		notes: 0,
		outside: None,
	}
}

fn invoiced() -> DebtV1 {
	let invoice =
		InvoiceV1 { text: "lnbc".to_owned(), payment_hash: hash(), expires_at: hours(50) };
	DebtV1 { invoice: Some(invoice), was_invoiced: true, ..debt() }
}

/// With attempt 1 under way, which this worker looks after.
fn live() -> DebtV1 {
	let live = LiveV1 { number: 1, owner: US, lease: hours(NOW + 1) };
	DebtV1 { attempts: 1, live: Some(live), ..invoiced() }
}

fn past() -> DebtV1 {
	DebtV1 {
		reminders: 9,
		reminders_delivered: 1,
		first_delivered_at: Some(hours(9)),
		reminded_at: Some(hours(99)),
		..debt()
	}
}

fn attempt(verdict: VerdictV1) -> AttemptV1 {
	AttemptV1 {
		invoice: "lnbc".to_owned(),
		payment_hash: hash(),
		amount_msat: 500_000,
		fee_cap_msat: 10_000,
		token: NodeToken::new([9]).unwrap(),
		planned: stamp(NOW - 1),
		planned_at: hours(NOW - 1),
		ordered: stamp(NOW - 1),
		verdict,
		is_questioned: false,
		ended_at: None,
	}
}

fn facts() -> Facts {
	at(NOW)
}

fn at(hour: u64) -> Facts {
	let now = hours(hour);
	Facts {
		times: Times { wall: now, running: now, steady: now, lived_ms: now.0, latest: now },
		awake_since: hours(1),
		is_frozen: false,
		is_compared: true,
		is_listed: true,
		is_newest: false,
		is_vouched: false,
		owner: US,
		pauses: Pauses {
			call_timeout: Duration::from_secs(30),
			poll_interval: Duration::from_secs(15),
			retry_pause: Duration::from_secs(60),
			longest_pause: HOUR,
		},
	}
}

/// What a step comes to, in short.
fn short(step: &Step, before: &DebtV1) -> String {
	let mut parts = Vec::new();
	if let Some(next) = &step.debt {
		invariants::check(next).unwrap();
		invariants::check_change(before, next).unwrap();
		if next.state != before.state {
			parts.push(format!("{:?}", next.state));
		}
		if next.invoice.is_none() && before.invoice.is_some() {
			parts.push("drop invoice".to_owned());
		}
		if next.failed_attempts > before.failed_attempts {
			parts.push("count".to_owned());
		}
		if next.is_unproven && !before.is_unproven {
			parts.push("Unproven".to_owned());
		}
		if before.is_unproven && !next.is_unproven {
			parts.push("proven".to_owned());
		}
		if let Some(due) = next.due.filter(|due| Some(*due) != before.due) {
			let seconds = Duration::from_millis(due.0.saturating_sub(hours(NOW).0)).as_secs();
			parts.push(format!("in {seconds} s"));
		}
	}
	if let Some(AttemptChange { number, record, is_new }) = &step.attempt {
		let verdict = match record.verdict {
			VerdictV1::Planned => "planned",
			VerdictV1::Accepted => "accepted",
			VerdictV1::Unknown => "unknown",
			VerdictV1::Settled { .. } => "settled",
			VerdictV1::Dead { .. } => "dead",
		};
		let new = if *is_new { "new " } else { "" };
		parts.push(format!("{new}attempt {number} {verdict}"));
	}
	if step.freeze.is_some() {
		parts.push("freeze".to_owned());
	}
	if let Some(news) = step.news {
		parts.push(format!("tell {news:?}"));
	}
	if step.is_compared {
		parts.push("compared".to_owned());
	} else if step.is_listed {
		parts.push("listed".to_owned());
	}
	if step.tell.is_some() {
		parts.push("tell operator".to_owned());
	}
	if let Some(ask) = &step.ask {
		parts.push(match ask {
			Ask::SettleHeld(_) => "settle".to_owned(),
			Ask::Compare => "compare".to_owned(),
			Ask::CompareHash(order) => {
				assert!(order.token.as_bytes().is_empty(), "any payment with this hash");
				"compare hash".to_owned()
			},
			Ask::Prepare(order) => format!("prepare {}", order.number),
			Ask::Pay(order) => format!("pay {}", order.number),
			Ask::Look(order) => {
				assert_eq!(order.token.as_bytes(), [9], "by the node's own token");
				format!("look {}", order.number)
			},
		});
	}
	parts.join(", ")
}

/// A row that does not come out as it should: its name, what was found, and what was expected.
fn differs(what: &str, found: &str, expected: &str) -> Option<[String; 3]> {
	(found != expected).then(|| [what, found, expected].map(str::to_owned))
}

fn id() -> DebtId {
	DebtId::from_bytes([3; 32])
}

#[test]
fn the_table_of_debts_that_are_due() {
	let held = SourceRefV1::Held([4; 32]);
	let decided = DebtV1 { state: StateV1::Decided, source: held, window_start: None, ..debt() };
	let over = |state| DebtV1 { state, due: None, ..debt() };
	let theirs = LiveV1 { number: 1, owner: 2, lease: hours(NOW + 1) };
	let old = LiveV1 { number: 1, owner: 2, lease: hours(NOW) };
	let all_kept = DebtV1 { node_share_sat: 1_000, ..debt() };
	let frozen = Facts { is_frozen: true, ..facts() };
	let fresh = Facts { is_compared: false, is_listed: false, ..facts() };
	let jumped = Facts { times: Times { steady: hours(NOW), ..at(100).times }, ..at(100) };
	let slow = Facts { awake_since: hours(100), ..at(100) };
	let back = Facts { times: Times { running: hours(60), ..facts().times }, ..facts() };
	let ahead = Facts { times: Times { wall: hours(60), ..facts().times }, ..facts() };
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
	let dead = VerdictV1::Dead { counts: true, never_sent: false };
	let attempts = [(1, AttemptV1 { is_questioned: true, ..attempt(dead) })];
	let once = DebtV1 { attempts: 1, ..invoiced() };
	let step = on_answer(View { id: &id(), debt: &once, attempts: &attempts }, answer, &fresh);
	assert_eq!(short(&step, &once), "in 60 s");
	// What contradicts itself is an error, and not a panic.
	let broken = DebtV1 { state: StateV1::Decided, window_start: None, ..debt() };
	assert!(on_due(View { id: &id(), debt: &broken, attempts: &[] }, &facts()).is_err());
	assert!(on_due(View { id: &id(), debt: &live(), attempts: &[] }, &facts()).is_err());
}

/// Every answer of a node to every question, and none.
#[test]
fn the_table_of_answers() {
	use crate::payer::AttemptStatus as Is;
	use FailureReason::{Expired, NoFunds, NoRoute, Other, Rejected};
	use NodeMemory::{AtLeast, Forever, Unknown, WithStore};

	let settled = |fee_msat| Is::Settled { preimage: PREIMAGE, fee_msat };
	let wrong = Is::Settled { preimage: [8; 32], fee_msat: None };
	let listed = |payments, memory| Some(KnownPayments::Listed { payments, memory });
	let known = |number, payment_hash, may_pay| KnownPayment { number, payment_hash, may_pay };
	let look = |status| Answer::Look(1, Some(status));
	let none = || look(Is::NoRecord(Forever));
	let held = SourceRefV1::Held([4; 32]);
	let decided = || DebtV1 { state: StateV1::Decided, source: held, window_start: None, ..debt() };
	let prepared = || Answer::Prepare(1, hash(), Some(NodeToken::new([5]).unwrap()));
	let newest = Facts { is_newest: true, ..facts() };
	let frozen = Facts { is_frozen: true, ..facts() };
	let fresh = Facts { is_compared: false, is_listed: false, ..facts() };
	let doubtful = || DebtV1 { is_unproven: true, ..live() };
	let doubted = || DebtV1 { is_unproven: true, ..invoiced() };
	let dead = VerdictV1::Dead { counts: true, never_sent: false };
	let dead_once = || DebtV1 { attempts: 1, failed_attempts: 1, ..invoiced() };
	let vouched = Facts { is_vouched: true, ..fresh };
	let unknown = VerdictV1::Unknown;
	let ahead = Facts { times: Times { wall: hours(60), ..facts().times }, ..facts() };
	let theirs = LiveV1 { number: 1, owner: 2, lease: hours(NOW + 1) };
	let other_hash = || {
		let mut other = live();
		other.invoice.as_mut().unwrap().payment_hash = [1; 32];
		other
	};
	let rows: Vec<(&str, DebtV1, VerdictV1, Answer, Facts, &str)> = vec![
		// The money that is held.
		(
			"settled",
			decided(),
			unknown,
			Answer::Settle(Some(SettleReply::Settled)),
			facts(),
			"Owed",
		),
		(
			"gone",
			decided(),
			unknown,
			Answer::Settle(Some(SettleReply::Gone)),
			facts(),
			"Void, tell Void",
		),
		(
			"not yet",
			decided(),
			unknown,
			Answer::Settle(Some(SettleReply::NotYet)),
			facts(),
			"in 15 s",
		),
		("no answer", decided(), unknown, Answer::Settle(None), facts(), "in 15 s"),
		(
			"a payer that settles nothing",
			decided(),
			unknown,
			Answer::Settle(Some(SettleReply::Unable)),
			facts(),
			"in 15 s, tell operator",
		),
		("settled late", debt(), unknown, Answer::Settle(Some(SettleReply::Gone)), facts(), ""),
		// What the node has paid before.
		(
			"nothing listed, for ever",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], Forever)),
			fresh,
			"compared",
		),
		(
			"nothing listed, as the store",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			fresh,
			"Unproven, in 60 s, tell Unproven, listed",
		),
		(
			"nothing listed, said before",
			doubted(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			fresh,
			"in 60 s, listed",
		),
		(
			"nothing listed, vouched",
			doubted(),
			unknown,
			Answer::Compare(listed(vec![], Unknown)),
			vouched,
			"proven, compared",
		),
		(
			"nothing listed, newest store",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			newest,
			"compared",
		),
		(
			"nothing listed, remembers longer than the debt",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], AtLeast(10 * HOUR))),
			fresh,
			"compared",
		),
		(
			"nothing listed, remembers less",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], AtLeast(9 * HOUR))),
			fresh,
			"Unproven, in 60 s, tell Unproven, listed",
		),
		(
			"listed",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![known(4, [9; 32], true)], Forever)),
			fresh,
			"new attempt 4 unknown",
		),
		(
			"nothing listed, and no invoice",
			debt(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			fresh,
			"listed",
		),
		(
			"listed, and no invoice",
			debt(),
			unknown,
			Answer::Compare(listed(vec![known(1, [9; 32], true)], WithStore)),
			fresh,
			"new attempt 1 unknown",
		),
		(
			"a dead one is listed that may pay",
			dead_once(),
			dead,
			Answer::Compare(listed(vec![known(1, hash(), true)], Forever)),
			fresh,
			"in 60 s, attempt 1 dead, freeze",
		),
		(
			"a dead one is listed that has failed",
			dead_once(),
			dead,
			Answer::Compare(listed(vec![known(1, hash(), false)], Forever)),
			fresh,
			"compared",
		),
		(
			"a dead one is listed with another hash",
			dead_once(),
			dead,
			Answer::Compare(listed(vec![known(1, [9; 32], true)], Forever)),
			fresh,
			"in 60 s, attempt 1 dead, freeze",
		),
		(
			"the attempt that is listed has paid",
			dead_once(),
			VerdictV1::Settled { preimage: PREIMAGE, fee_msat: None },
			Answer::Compare(listed(vec![known(1, hash(), true)], Forever)),
			fresh,
			"Paid, tell Paid",
		),
		(
			"a number that cannot be",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![known(1_001, [9; 32], true)], Forever)),
			fresh,
			"in 60 s, freeze",
		),
		(
			"a number that is none",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![known(0, [9; 32], true)], Forever)),
			fresh,
			"in 60 s, freeze",
		),
		// An old copy that is about to order an attempt again.
		("no record, not compared", live(), unknown, none(), fresh, "compare"),
		(
			"live, and nothing listed",
			live(),
			unknown,
			Answer::Compare(listed(vec![], Forever)),
			fresh,
			"compared",
		),
		(
			"live, and listed",
			live(),
			unknown,
			Answer::Compare(listed(vec![known(1, hash(), true)], Forever)),
			fresh,
			"in 15 s",
		),
		(
			"live, and another one listed",
			live(),
			unknown,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Forever)),
			fresh,
			"in 60 s, attempt 1 dead",
		),
		(
			"live, another one listed, and an order may be on its way",
			live(),
			unknown,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Forever)),
			Facts { pauses: Pauses { call_timeout: HOUR, ..facts().pauses }, ..fresh },
			"in 15 s",
		),
		(
			"live, had accepted, and another one listed",
			live(),
			VerdictV1::Accepted,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Forever)),
			fresh,
			"in 15 s",
		),
		(
			"live, another one listed, and might have forgotten it",
			live(),
			unknown,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Unknown)),
			fresh,
			"in 15 s",
		),
		(
			"another worker's, and another one listed",
			DebtV1 { live: Some(theirs), ..live() },
			unknown,
			Answer::Compare(listed(vec![known(2, [9; 32], true)], Forever)),
			fresh,
			"",
		),
		(
			"compare, no answer, and no invoice",
			DebtV1 { due: Some(hours(NOW + 1)), ..debt() },
			unknown,
			Answer::Compare(None),
			fresh,
			"",
		),
		(
			"by hash, and no invoice",
			debt(),
			unknown,
			Answer::Compare(Some(KnownPayments::ByHashOnly)),
			fresh,
			"listed",
		),
		(
			"by hash",
			invoiced(),
			unknown,
			Answer::Compare(Some(KnownPayments::ByHashOnly)),
			fresh,
			"compare hash",
		),
		("compare, no answer", invoiced(), unknown, Answer::Compare(None), fresh, "in 15 s"),
		(
			"hash in flight",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(Is::InFlight)),
			fresh,
			"new attempt 1 unknown",
		),
		(
			"hash settled",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(settled(None))),
			fresh,
			"new attempt 1 unknown",
		),
		(
			"hash without a record",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(Is::NoRecord(Forever))),
			fresh,
			"Unproven, in 60 s, tell Unproven, listed",
		),
		(
			"hash without a record, newest store",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(Is::NoRecord(Unknown))),
			newest,
			"compared",
		),
		(
			"hash has failed",
			invoiced(),
			unknown,
			Answer::CompareHash(Some(Is::Failed(Other))),
			newest,
			"compared",
		),
		("hash, no answer", invoiced(), unknown, Answer::CompareHash(None), fresh, "in 15 s"),
		// The node's token.
		(
			"prepared",
			invoiced(),
			unknown,
			prepared(),
			facts(),
			"in 15 s, new attempt 1 planned, pay 1",
		),
		("prepared, frozen meanwhile", invoiced(), unknown, prepared(), frozen, ""),
		("prepared, and live meanwhile", live(), unknown, prepared(), facts(), ""),
		(
			"prepared, another invoice meanwhile",
			other_hash(),
			unknown,
			Answer::Prepare(2, hash(), Some(NodeToken::default())),
			facts(),
			"",
		),
		("not prepared", invoiced(), unknown, Answer::Prepare(1, hash(), None), facts(), "in 15 s"),
		// The order to pay.
		(
			"accepted",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::Accepted)),
			facts(),
			"in 15 s, attempt 1 accepted",
		),
		(
			"perhaps",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::Unknown)),
			facts(),
			"in 15 s, attempt 1 unknown",
		),
		(
			"no answer to pay",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, None),
			facts(),
			"in 15 s, attempt 1 unknown",
		),
		(
			"no route",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoRoute))),
			facts(),
			"in 60 s, attempt 1 dead",
		),
		(
			"no funds",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoFunds))),
			facts(),
			"in 60 s, attempt 1 dead, tell NoFunds",
		),
		(
			"no funds again",
			DebtV1 { told_no_funds: true, setbacks: 3, ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoFunds))),
			facts(),
			"in 480 s, attempt 1 dead",
		),
		(
			"no route for long",
			DebtV1 { setbacks: 99, ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoRoute))),
			facts(),
			"in 3600 s, attempt 1 dead, tell NoRoute",
		),
		(
			"expired",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Expired))),
			facts(),
			"drop invoice, attempt 1 dead",
		),
		(
			"rejected",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Rejected))),
			facts(),
			"drop invoice, count, attempt 1 dead",
		),
		(
			"rejected for the last time",
			DebtV1 { failed_attempts: 2, attempts: 3, ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Rejected))),
			facts(),
			"count, in 60 s, attempt 1 dead",
		),
		(
			"other",
			live(),
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Other))),
			facts(),
			"count, in 60 s, attempt 1 dead",
		),
		(
			"of another worker's attempt",
			DebtV1 { live: Some(theirs), ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(Other))),
			facts(),
			"",
		),
		(
			"of an attempt that is over",
			DebtV1 { live: None, ..live() },
			dead,
			Answer::Pay(1, Some(PayReply::Accepted)),
			facts(),
			"",
		),
		(
			"of another attempt",
			live(),
			VerdictV1::Planned,
			Answer::Pay(2, Some(PayReply::Accepted)),
			facts(),
			"",
		),
		// A look at the attempt.
		(
			"has settled",
			live(),
			unknown,
			look(settled(Some(3))),
			facts(),
			"Paid, attempt 1 settled, tell Paid",
		),
		(
			"has settled, cost unknown",
			live(),
			unknown,
			look(settled(None)),
			facts(),
			"Paid, attempt 1 settled, tell Paid",
		),
		(
			"cost more than it may",
			live(),
			unknown,
			look(settled(Some(10_001))),
			facts(),
			"Paid, attempt 1 settled, freeze, tell Paid",
		),
		("a wrong preimage", live(), unknown, look(wrong), facts(), "in 15 s, freeze"),
		("in flight", live(), unknown, look(Is::InFlight), facts(), "in 15 s"),
		("no answer to a look", live(), unknown, Answer::Look(1, None), facts(), "in 15 s"),
		(
			"has failed",
			live(),
			unknown,
			look(Is::Failed(Other)),
			facts(),
			"count, in 60 s, attempt 1 dead",
		),
		(
			"has failed without a route",
			live(),
			unknown,
			look(Is::Failed(NoRoute)),
			facts(),
			"in 60 s, attempt 1 dead",
		),
		(
			"no record, for ever",
			live(),
			unknown,
			none(),
			facts(),
			"in 15 s, attempt 1 unknown, pay 1",
		),
		("no record, frozen", live(), unknown, none(), frozen, "in 15 s"),
		(
			"no record, and had accepted",
			live(),
			VerdictV1::Accepted,
			none(),
			facts(),
			"in 15 s, attempt 1 accepted, freeze",
		),
		(
			"no record, expired",
			live(),
			unknown,
			none(),
			at(50),
			"drop invoice, in 144000 s, attempt 1 dead",
		),
		("no record, expired by the wall clock alone", live(), unknown, none(), ahead, "in 15 s"),
		(
			"no record, as the store, frozen",
			live(),
			unknown,
			look(Is::NoRecord(WithStore)),
			Facts { is_newest: true, ..frozen },
			"in 15 s",
		),
		(
			"no record, as the store, had accepted, frozen",
			live(),
			VerdictV1::Accepted,
			look(Is::NoRecord(WithStore)),
			Facts { is_newest: true, ..frozen },
			"in 15 s",
		),
		(
			"no record, would have forgotten, frozen",
			live(),
			unknown,
			look(Is::NoRecord(AtLeast(HOUR))),
			frozen,
			"in 15 s",
		),
		(
			"nothing listed, as the store, frozen",
			invoiced(),
			unknown,
			Answer::Compare(listed(vec![], WithStore)),
			Facts { is_frozen: true, ..fresh },
			"in 60 s, listed",
		),
		(
			"no route for the fifth time",
			DebtV1 { setbacks: 4, ..live() },
			VerdictV1::Planned,
			Answer::Pay(1, Some(PayReply::NotSent(NoRoute))),
			facts(),
			"in 960 s, attempt 1 dead, tell NoRoute",
		),
		(
			"no record, expired, and had accepted",
			live(),
			VerdictV1::Accepted,
			none(),
			at(50),
			"in 144015 s, attempt 1 accepted, freeze",
		),
		(
			"no record, might have forgotten",
			live(),
			unknown,
			look(Is::NoRecord(Unknown)),
			facts(),
			"in 15 s",
		),
		(
			"no record, expired, might have forgotten",
			live(),
			unknown,
			look(Is::NoRecord(Unknown)),
			at(50),
			"in 144015 s",
		),
		(
			"no record, remembers long enough",
			live(),
			unknown,
			look(Is::NoRecord(AtLeast(2 * HOUR))),
			facts(),
			"in 15 s, attempt 1 unknown, pay 1",
		),
		(
			"in doubt, has settled",
			doubtful(),
			unknown,
			look(settled(None)),
			facts(),
			"Paid, proven, attempt 1 settled, tell Paid",
		),
		(
			"in doubt, has failed",
			doubtful(),
			unknown,
			look(Is::Failed(NoRoute)),
			facts(),
			"proven, in 60 s, attempt 1 dead",
		),
		(
			"in doubt, and known not to be",
			doubtful(),
			unknown,
			none(),
			facts(),
			"proven, in 15 s, attempt 1 unknown, pay 1",
		),
		(
			"no record, would have forgotten",
			live(),
			unknown,
			look(Is::NoRecord(AtLeast(HOUR))),
			facts(),
			"Unproven, in 15 s, tell Unproven",
		),
		(
			"no record, as the store",
			live(),
			unknown,
			look(Is::NoRecord(WithStore)),
			facts(),
			"Unproven, in 15 s, tell Unproven",
		),
		(
			"no record, newest store",
			live(),
			unknown,
			look(Is::NoRecord(WithStore)),
			newest,
			"in 15 s, attempt 1 unknown, pay 1",
		),
		(
			"of another worker's look",
			DebtV1 { live: Some(theirs), ..live() },
			unknown,
			none(),
			facts(),
			"",
		),
		(
			"closed meanwhile",
			DebtV1 { state: StateV1::Failed, live: None, due: None, ..live() },
			unknown,
			none(),
			facts(),
			"",
		),
	];
	let mut wrong = Vec::new();
	for (what, debt, verdict, answer, facts, expected) in rows {
		let attempts: Vec<_> =
			if debt.attempts > 0 { vec![(1, attempt(verdict))] } else { Vec::new() };
		let step = on_answer(View { id: &id(), debt: &debt, attempts: &attempts }, answer, &facts);
		wrong.extend(differs(what, &short(&step, &debt), expected));
	}
	assert!(wrong.is_empty(), "{wrong:#?}");
}

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

/// What an attempt that the node knew and the store did not is, when the node has forgotten it: paid,
/// perhaps. It is never made again.
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

/// Which attempt a settled payment is of (A5): the one that it names, or the only one that it can be.
#[test]
fn the_table_of_outcomes() {
	let dead = VerdictV1::Dead { counts: true, never_sent: false };
	let unsent = VerdictV1::Dead { counts: false, never_sent: true };
	let settled = VerdictV1::Settled { preimage: PREIMAGE, fee_msat: None };
	let (unknown, hash) = (VerdictV1::Unknown, hash());
	let paid = || AttemptStatus::Settled { preimage: PREIMAGE, fee_msat: Some(1) };
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

/// Nothing falls through, and what cannot be taken back is only decided when it may be.
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
