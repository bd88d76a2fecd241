// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! `leyden payouts`, and `leyden inspect` for a debt. The store is opened to be read only.

use std::sync::Arc;

use leyden::payout::{Currency, Debt, DebtId, InvoiceRules, PayoutOptions, Payouts, State};
use leyden::store::{Clock, Store, SystemClock, Timestamp};
use serde_json::{json, Value};

use crate::output::{table, tell, Failure, Output};
use crate::view::open_store;
use crate::{InspectArguments, PayoutsArguments};

/// Digits of an id that are shown in a list; `inspect` takes them.
const SHORT: usize = 12;
/// Debts read in one go.
const PAGE: usize = 500;

pub fn list(arguments: &PayoutsArguments, output: &mut Output) -> Result<(), Failure> {
	let payouts = open(open_store(&arguments.store)?)?;
	let now = SystemClock.now();
	let (mut shown, mut open_sat, mut count) = (Vec::new(), 0_u64, 0_u64);
	let damaged = each(&payouts, |debt| {
		count += 1;
		if is_open(debt.state) {
			open_sat = open_sat.saturating_add(debt.share_sat);
		}
		if (arguments.all || is_open(debt.state)) && shown.len() < arguments.limit {
			shown.push(debt);
		}
		true
	})?;
	let frozen = payouts.frozen().map_err(tell)?;
	if arguments.store.json {
		let debts: Vec<Value> = shown.iter().map(to_json).collect();
		let frozen = frozen.map(
			|freeze| json!({ "at_ms": freeze.at.0, "reasons": freeze.reasons, "more": freeze.more }),
		);
		return output.json(&json!({
			"v": 1, "debts": debts, "count": count, "open_sat": open_sat, "frozen": frozen,
			"damaged": damaged.iter().map(DebtId::to_string).collect::<Vec<_>>(),
		}));
	}
	if let Some(freeze) = frozen {
		output.line(&format!("FROZEN, nothing is paid: {freeze}\n"))?;
	}
	let mut rows = vec![["ID", "STATE", "OWED", "ATTEMPTS", "REMINDERS", "WINDOW ENDS"]
		.map(str::to_owned)
		.to_vec()];
	for debt in &shown {
		rows.push(vec![
			short(&debt.id),
			state(debt),
			format!("{} sat", debt.share_sat),
			format!(
				"{} ({} of {} failed)",
				debt.attempts, debt.failed_attempts, debt.max_failed_attempts
			),
			format!("{} ({} delivered)", debt.reminders, debt.reminders_delivered),
			debt.deadline.map_or("not begun".to_owned(), |deadline| until(deadline, now)),
		]);
	}
	if shown.is_empty() {
		output.line(match (count, arguments.all) {
			(0, _) => "There are no debts in this namespace.",
			_ => "Nothing is owed. --all shows what is over.",
		})?;
	} else {
		table(&rows).iter().try_for_each(|line| output.line(line))?;
	}
	for id in &damaged {
		output.line(&format!("{}  DAMAGED: leyden verify says more", short(id)))?;
	}
	if count > 0 {
		let debts = if count == 1 { "debt" } else { "debts" };
		output.line(&format!("\n{count} {debts}; {open_sat} sat owed."))?;
	}
	Ok(())
}

/// Shows the debt whose id begins like this; answers whether there is one.
pub fn inspect(arguments: &InspectArguments, output: &mut Output) -> Result<bool, Failure> {
	let prefix = arguments.id.to_ascii_lowercase();
	let payouts = open(open_store(&arguments.store)?)?;
	let mut found = Vec::new();
	each(&payouts, |debt| {
		if debt.id.to_string().starts_with(&prefix) {
			found.push(debt.id);
		}
		found.len() < 2
	})?;
	let id = match found.as_slice() {
		[] => return Ok(false),
		[id] => *id,
		_ => return Err(Failure::Error(format!("several debts begin with {prefix}: more digits"))),
	};
	let proof = payouts.proof(&id).map_err(tell)?.to_json();
	let proof: Value = serde_json::from_str(&proof).map_err(tell)?;
	if arguments.store.json {
		return output.json(&proof).map(|()| true);
	}
	let Value::Object(fields) = &proof else { return Ok(false) };
	for (name, value) in fields {
		let lines = match value {
			Value::Array(items) => items.iter().map(one_line).collect(),
			value => vec![one_line(value)],
		};
		for (number, line) in lines.iter().enumerate() {
			let name = if number == 0 { name.as_str() } else { "" };
			output.line(&format!("{name:<22}{line}"))?;
		}
	}
	output.line("\nPreimages are in the document that --json prints.")?;
	Ok(true)
}

/// Without what is long or secret.
fn one_line(value: &Value) -> String {
	let Value::Object(fields) = value else {
		return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
	};
	let shown = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "preimage" | "invoice"));
	let part = |(name, value): (&String, &Value)| match value.as_str() {
		Some(text) => format!("{name} {text}"),
		None => format!("{name} {value}"),
	};
	shown.map(part).collect::<Vec<_>>().join(", ")
}

fn open(store: Arc<dyn Store>) -> Result<Payouts, Failure> {
	// Nothing is checked or paid here.
	let options = PayoutOptions::new(InvoiceRules::on(Currency::Bitcoin));
	Payouts::open(store, Arc::new(SystemClock), options).map_err(tell)
}

/// Shows every debt to `f`, until one is enough. Returns the names of those that are damaged.
fn each(payouts: &Payouts, mut f: impl FnMut(Debt) -> bool) -> Result<Vec<DebtId>, Failure> {
	let (mut after, mut damaged) = (None, Vec::new());
	loop {
		let page = payouts.debts(after.as_ref(), PAGE).map_err(tell)?;
		damaged.extend(page.damaged);
		if !page.debts.into_iter().all(&mut f) {
			return Ok(damaged);
		}
		match page.next {
			Some(next) => after = Some(next),
			None => return Ok(damaged),
		}
	}
}

fn is_open(state: State) -> bool {
	matches!(state, State::Decided | State::Owed | State::Failed)
}

/// The state of a debt; in capitals if an operator should look.
fn state(debt: &Debt) -> String {
	match debt.state {
		State::Owed if debt.is_unproven => "UNPROVEN".to_owned(),
		State::Failed => "FAILED".to_owned(),
		state => state.to_string(),
	}
}

fn short(id: &DebtId) -> String {
	id.to_string().chars().take(SHORT).collect()
}

/// How long it is until then, roughly.
fn until(then: Timestamp, now: Timestamp) -> String {
	let ahead = then > now;
	let seconds = if ahead { then.since(now) } else { now.since(then) }.as_secs();
	let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
	let length = match days {
		0 => format!("{hours} h {minutes} min"),
		_ => format!("{days} d {hours} h"),
	};
	if ahead {
		format!("in {length}")
	} else {
		format!("{length} ago")
	}
}

fn to_json(debt: &Debt) -> Value {
	json!({
		"id": debt.id.to_string(),
		"state": debt.state.to_string(),
		"is_unproven": debt.is_unproven,
		"amount_sat": debt.amount_sat,
		"share_sat": debt.share_sat,
		"attempts": debt.attempts,
		"live": debt.live,
		"failed_attempts": debt.failed_attempts,
		"max_failed_attempts": debt.max_failed_attempts,
		"reminders": debt.reminders,
		"reminders_delivered": debt.reminders_delivered,
		"window_start_ms": debt.window_start.map(|at| at.0),
		"deadline_ms": debt.deadline.map(|at| at.0),
		"cause": debt.cause,
	})
}

#[cfg(test)]
mod tests {
	use super::*;

	/// The text without `--json` shows no preimage, neither of an attempt nor of a payee.
	#[test]
	fn no_preimage_is_printed() {
		let shown = json!({ "what": "a preimage was shown", "preimage": "0707" });
		assert_eq!(one_line(&shown), "what a preimage was shown");
		let attempt = json!({ "number": 1, "invoice": "lnbc", "preimage": "0707" });
		assert_eq!(one_line(&attempt), "number 1");
		assert_eq!(one_line(&json!({ "what": "a receipt" })), "what a receipt");
	}
}
