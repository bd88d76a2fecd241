// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The decision on a debt that is looked at.

use std::time::Duration;

use leyden_store::Timestamp;

use crate::error::PayoutError;
use crate::machine::{Ask, Facts, Step, View};
use crate::notice::News;
use crate::records::{DebtV1, InvoiceV1, SourceRefV1, StateV1};

/// A debt that has to wait for something that is not known is looked at again so soon.
const LEAST_WAIT: Duration = Duration::from_secs(60);

/// Decides what is done with a debt that is due.
pub(crate) fn on_due(view: View<'_>, facts: &Facts) -> Result<Step, PayoutError> {
	let View { id, debt, .. } = view;
	let violated = |what| PayoutError::InvariantViolated { debt: *id, what };
	match debt.state {
		StateV1::Owed => {},
		// Also while payouts are frozen: a payment that is held has an end.
		StateV1::Decided => {
			let SourceRefV1::Held(payment_hash) = debt.source else {
				return Err(violated("no payment is held for it"));
			};
			return Ok(Step::ask(Ask::SettleHeld(payment_hash)));
		},
		_ => return Ok(Step::default()),
	}
	// Nothing else is done while it may still be paid.
	if let Some(live) = debt.live {
		let attempt = view.live().ok_or(violated("its live attempt is not there"))?;
		let is_ours = live.owner == facts.owner;
		if !is_ours && live.lease > facts.now() {
			return Ok(view.wait(live.lease));
		}
		let mut step = Step::ask(Ask::Look(view.order(attempt.0, attempt.1)));
		// The lease is longer than an answer may take: what was true before another worker told the node
		// is no answer.
		if !is_ours || live.lease <= facts.now().after(facts.pauses.call_timeout) {
			let live = Some(facts.live(live.number));
			step.debt = Some(DebtV1 { live, ..debt.clone() });
		}
		return Ok(step);
	}
	if let Some(step) = view.paid_already(facts) {
		return Ok(step);
	}
	// Before the window: the node's own share is never forfeited.
	if debt.share_sat() == 0 {
		return Ok(Step::debt(view.closed(StateV1::Kept, facts)).note("nothing is owed"));
	}
	let step = match &debt.invoice {
		Some(invoice) => to_pay(view, invoice, facts)?,
		None => to_ask_for(view, facts),
	};
	Ok(compared(step, facts))
}

/// Adds to a step that the node is asked which attempts it knows, the first time in a process: the store may
/// be an old copy. Reminders do not wait for that; what ends the debt does.
fn compared(step: Step, facts: &Facts) -> Step {
	if facts.is_compared || facts.is_listed || step.ask.is_some() {
		return step;
	}
	match step.debt.as_ref().is_some_and(|next| next.state.is_over()) {
		true => Step::ask(Ask::Compare),
		false => Step { ask: Some(Ask::Compare), is_besides: true, ..step },
	}
}

/// Decides what is done with a debt that has an invoice.
fn to_pay(view: View<'_>, invoice: &InvoiceV1, facts: &Facts) -> Result<Step, PayoutError> {
	let View { id, debt, .. } = view;
	let is_past = debt.window_left(&facts.times).is_none();
	// An invoice that was dropped cannot be given again: both clocks must say that it has expired.
	let has_expired = facts.times.are_past(invoice.expires_at);
	Ok(match view.next_order() {
		_ if debt.failed_attempts >= debt.max_failed_attempts => {
			failed(view, facts, "too many attempts have failed")
		},
		_ if has_expired && is_past => expired_for_good(view, facts),
		_ if has_expired => {
			let next = DebtV1 { failed_attempts: 0, ..without_invoice(debt, facts) };
			Step::debt(next).note("its invoice has expired")
		},
		_ if facts.clock() >= invoice.expires_at => later(view, facts),
		_ if !facts.is_compared => Step::ask(Ask::Compare),
		_ if facts.is_frozen => later(view, facts),
		Some(order) => Step::ask(Ask::Prepare(order)),
		None => {
			let what = "there is no invoice to pay";
			return Err(PayoutError::InvariantViolated { debt: *id, what });
		},
	})
}

/// Decides what is done with a debt that has no invoice.
fn to_ask_for(view: View<'_>, facts: &Facts) -> Step {
	let debt = view.debt;
	let interval = debt.reminder_interval();
	let is_past = debt.window_left(&facts.times).is_none();
	if is_past && debt.was_invoiced {
		return expired_for_good(view, facts);
	}
	if let Some(first) = debt.first_delivered_at.filter(|_| is_past) {
		// The payee was told, and had time to answer while debts were looked after.
		let end = facts.awake_since.max(first).after(interval);
		return match facts.now() >= end {
			true => Step::debt(view.closed(StateV1::Forfeited, facts))
				.note("no invoice was given in time")
				.news(News::Forfeited),
			false => view.wait(end),
		};
	}
	let next_reminder = debt.reminded_at.map_or(Timestamp(0), |at| at.after(interval));
	match facts.now() >= next_reminder {
		true => remind(view, facts),
		false => view.wait(next_reminder),
	}
}

/// The debt without its invoice: the payee is asked for another one at once.
pub(crate) fn without_invoice(debt: &DebtV1, facts: &Facts) -> DebtV1 {
	DebtV1 {
		invoice: None,
		setbacks: 0,
		told_no_funds: false,
		told_no_route: false,
		reminded_at: None,
		due: Some(facts.now()),
		..debt.clone()
	}
}

fn later(view: View<'_>, facts: &Facts) -> Step {
	view.wait(facts.now().after(LEAST_WAIT))
}

fn failed(view: View<'_>, facts: &Facts, what: &str) -> Step {
	Step::debt(view.closed(StateV1::Failed, facts)).note(what).news(News::Failed)
}

fn expired_for_good(view: View<'_>, facts: &Facts) -> Step {
	failed(view, facts, "its invoice has expired, and the time to give another is over")
}

fn remind(view: View<'_>, facts: &Facts) -> Step {
	let debt = view.debt;
	let next_reminder = facts.now().after(debt.reminder_interval());
	// The end of the window is looked at when it comes.
	let end = debt.window_left(&facts.times).map(|left| facts.now().after(left));
	let number = debt.reminders.saturating_add(1);
	let next = DebtV1 {
		reminders: number,
		reminded_at: Some(facts.now()),
		due: Some(end.map_or(next_reminder, |end| end.min(next_reminder))),
		..debt.clone()
	};
	Step::debt(next).news(News::InvoiceWanted { number })
}
