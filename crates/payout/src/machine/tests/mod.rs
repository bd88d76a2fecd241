// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Tables: one row for each thing that a debt may be in, and each thing that may be said of it.

mod answers;
mod combinations;
mod due;
mod orders;
mod outcomes;

use super::*;
use crate::invariants;
use crate::payer::{FailureReason, KnownPayment};
use crate::records::{InvoiceV1, SourceRefV1};

const HOUR: Duration = Duration::from_secs(3600);
const PREIMAGE: [u8; 32] = [7; 32];
const US: u64 = 1;
const DEAD: VerdictV1 = VerdictV1::Dead { counts: true, never_sent: false };

fn hours(hours: u64) -> Timestamp {
	Timestamp(hours * 3_600_000)
}

fn stamp(hour: u64) -> Stamp {
	Stamp { wall: hours(hour), steady: hours(hour), followed_ms: 0 }
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

/// A debt with an invoice that is good until hour 50.
fn invoiced() -> DebtV1 {
	let invoice =
		InvoiceV1 { text: "lnbc".to_owned(), payment_hash: hash(), expires_at: hours(50) };
	DebtV1 { invoice: Some(invoice), was_invoiced: true, ..debt() }
}

/// A debt with attempt 1 under way, which this worker looks after.
fn live() -> DebtV1 {
	let live = LiveV1 { number: 1, owner: US, lease: hours(NOW + 1) };
	DebtV1 { attempts: 1, live: Some(live), ..invoiced() }
}

/// A debt whose payee was told, and whose window is over at hour 100.
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
		times: Times {
			wall: now,
			running: now,
			steady: now,
			followed_ms: 0,
			lived_ms: now.0,
			latest: now,
		},
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

/// The facts while payouts are frozen.
fn frozen() -> Facts {
	Facts { is_frozen: true, ..facts() }
}

/// The facts in a process that has not compared the debt with the node yet.
fn fresh() -> Facts {
	Facts { is_compared: false, is_listed: false, ..facts() }
}

/// The facts with a store that is the newest copy of itself.
fn newest() -> Facts {
	Facts { is_newest: true, ..facts() }
}

/// The facts while the wall clock alone shows a later time.
fn ahead() -> Facts {
	Facts { times: Times { wall: hours(60), ..facts().times }, ..facts() }
}

/// Attempt 1 under way, which another worker looks after.
fn theirs() -> LiveV1 {
	LiveV1 { number: 1, owner: 2, lease: hours(NOW + 1) }
}

/// The status of an attempt that has paid, at this cost.
fn settled(fee_msat: Option<u64>) -> AttemptStatus {
	AttemptStatus::Settled { preimage: PREIMAGE, fee_msat }
}

/// A step in short.
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

/// A row of answers: its name, a debt, the verdict on its attempt, the answer, the facts, and the step.
type AnswerRow = (&'static str, DebtV1, VerdictV1, Answer, Facts, &'static str);

fn check_answers(rows: Vec<AnswerRow>) {
	let mut wrong = Vec::new();
	for (what, debt, verdict, answer, facts, expected) in rows {
		let attempts: Vec<_> =
			if debt.attempts > 0 { vec![(1, attempt(verdict))] } else { Vec::new() };
		let step = on_answer(View { id: &id(), debt: &debt, attempts: &attempts }, answer, &facts);
		wrong.extend(differs(what, &short(&step, &debt), expected));
	}
	assert!(wrong.is_empty(), "{wrong:#?}");
}
