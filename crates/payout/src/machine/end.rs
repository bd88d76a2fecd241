// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The ends of attempts that have not paid.

use std::time::Duration;

use crate::machine::due::without_invoice;
use crate::machine::{AttemptChange, Facts, Step, View};
use crate::notice::News;
use crate::payer::FailureReason;
use crate::records::{AttemptV1, DebtV1, StateV1, VerdictV1};

/// The setbacks with one invoice after which an operator is told that there is no route.
const TOLD_SETBACKS: u32 = 5;

/// The end of an attempt that has not paid.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
	pub(crate) reason: FailureReason,
	/// `true` if the attempt counts as a failed one.
	pub(crate) counts: bool,
	/// `true` if the node has sent nothing for the attempt.
	pub(crate) never_sent: bool,
	pub(crate) what: &'a str,
}

impl<'a> End<'a> {
	/// Makes the end of an attempt that the node may have sent.
	pub(crate) fn failed(reason: FailureReason, what: &'a str) -> Self {
		let counts = matches!(reason, FailureReason::Rejected | FailureReason::Other);
		Self { reason, counts, never_sent: false, what }
	}
}

/// Writes down that an attempt has not paid, and never will.
pub(crate) fn dead(
	view: View<'_>, number: u32, attempt: &AttemptV1, end: End<'_>, facts: &Facts,
) -> Step {
	let debt = view.debt;
	let End { reason, counts, never_sent, what } = end;
	let record = AttemptV1 {
		verdict: VerdictV1::Dead { counts, never_sent },
		ended_at: Some(facts.now()),
		..attempt.clone()
	};
	let is_of_invoice = {
		let invoice = debt.invoice.as_ref();
		invoice.is_some_and(|invoice| invoice.payment_hash == attempt.payment_hash)
	};
	let attempt = Some(AttemptChange { number, record, is_new: false });
	// An earlier attempt may have paid after all.
	if let Some(preimage) = view.paid_by_another(number) {
		let next = view.closed(StateV1::Paid, facts);
		let news = News::Paid { preimage: Some(preimage) };
		return Step { attempt, ..Step::debt(next) }.note(what).news(news);
	}
	let failed_attempts = debt.failed_attempts.saturating_add(u32::from(counts));
	let setbacks = debt.setbacks.saturating_add(1);
	let mut next = DebtV1 {
		live: None,
		failed_attempts,
		setbacks,
		is_unproven: false,
		due: Some(facts.now().after(pause(setbacks, facts))),
		..debt.clone()
	};
	let is_useless = matches!(reason, FailureReason::Expired | FailureReason::Rejected);
	// With its last failure the debt fails, and keeps its invoice for an operator.
	if is_useless && is_of_invoice && failed_attempts < debt.max_failed_attempts {
		next = without_invoice(&next, facts);
	}
	let news = match reason {
		FailureReason::NoFunds if !debt.told_no_funds => Some(News::NoFunds),
		FailureReason::NoRoute if setbacks >= TOLD_SETBACKS && !debt.told_no_route => {
			Some(News::NoRoute)
		},
		_ => None,
	};
	next.told_no_funds |= news == Some(News::NoFunds);
	next.told_no_route |= news == Some(News::NoRoute);
	Step { attempt, news, ..Step::debt(next) }.note(what)
}

/// The pause after so many setbacks with one invoice: it doubles, up to the longest.
fn pause(setbacks: u32, facts: &Facts) -> Duration {
	let doubled = facts.pauses.retry_pause.saturating_mul(1 << setbacks.saturating_sub(1).min(20));
	doubled.min(facts.pauses.longest_pause.max(facts.pauses.retry_pause))
}
