// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The decision on what the node says, asked or by itself.

use std::time::Duration;

use leyden_store::Timestamp;

use crate::ids::AttemptId;
use crate::machine::due::without_invoice;
use crate::machine::{Answer, Ask, AttemptChange, Facts, HashChange, Step, View};
use crate::notice::News;
use crate::payer::{
	AttemptStatus, FailureReason, KnownPayments, NodeMemory, NodeToken, PayReply, SettleReply,
};
use crate::records::{AttemptV1, DebtV1, StateV1, VerdictV1};

/// A debt that nothing proves to be unpaid is compared with the node again so soon: an operator may have
/// vouched for it.
const UNPROVEN_PAUSE: Duration = Duration::from_secs(60);

/// Decides what follows from an answer of the node, or from none in time.
pub(crate) fn on_answer(view: View<'_>, answer: Answer, facts: &Facts) -> Step {
	let debt = view.debt;
	match answer {
		Answer::Settle(_) if debt.state != StateV1::Decided => Step::default(),
		Answer::Settle(Some(SettleReply::Settled)) => {
			let next = DebtV1 {
				state: StateV1::Owed,
				window_start: Some(facts.beginning()),
				due: Some(facts.now()),
				..debt.clone()
			};
			Step::debt(next).note("the money is in")
		},
		Answer::Settle(Some(SettleReply::Gone)) => Step::debt(view.closed(StateV1::Void, facts))
			.note("the payment that was held is gone")
			.news(News::Void),
		Answer::Settle(Some(SettleReply::NotYet) | None) => view.wait(facts.again()),
		_ if debt.state != StateV1::Owed => Step::default(),
		Answer::Compare(Some(KnownPayments::Listed { payments, memory })) => {
			compare(view, &payments, memory, facts)
		},
		Answer::Compare(Some(KnownPayments::ByHashOnly)) => match view.next_order() {
			Some(order) => Step::ask(Ask::CompareHash(order)),
			None => Step::default(),
		},
		Answer::CompareHash(Some(AttemptStatus::Settled { .. } | AttemptStatus::InFlight)) => {
			let number = debt.attempts.saturating_add(1);
			let hash = debt.invoice.as_ref().map(|invoice| (number, invoice.payment_hash));
			adopt_or(view, &Vec::from_iter(hash), facts, Step::default)
		},
		// This hash was not paid. Others may have been, of invoices that the store does not know.
		Answer::CompareHash(Some(AttemptStatus::Failed(_) | AttemptStatus::NoRecord(_))) => {
			compare(view, &[], NodeMemory::Unknown, facts)
		},
		// Not known is not "no": nothing is paid before it is.
		Answer::Compare(None) | Answer::CompareHash(None) => view.wait(facts.again()),
		Answer::Prepare(number, hash, token) => prepared(view, number, hash, token, facts),
		Answer::Pay(number, sent) => sent_or_not(view, number, sent, facts),
		Answer::Look(number, status) => found(view, number, status, facts),
	}
}

/// Decides what follows from what the node says by itself of a payment with this hash, and of this name
/// if it has one. The step is empty if it changes nothing.
pub(crate) fn on_outcome(
	view: View<'_>, hash: &[u8; 32], name: Option<&AttemptId>, status: &AttemptStatus,
	facts: &Facts,
) -> Step {
	let number = name.and_then(|name| view.number_of(name));
	match *status {
		AttemptStatus::Settled { preimage, fee_msat } => {
			settled(view, hash, (name, number), (preimage, fee_msat), facts)
		},
		// A failure is only believed of the attempt that is live, by its name: an earlier one with the same
		// hash may have failed long ago.
		AttemptStatus::Failed(reason) => match view.live() {
			Some((live, attempt)) if number == Some(live) && attempt.payment_hash == *hash => {
				let what = format!("attempt {live} failed ({reason:?})");
				dead(view, live, attempt, reason, counts(reason), &what, facts)
			},
			_ => Step::default(),
		},
		AttemptStatus::InFlight | AttemptStatus::NoRecord(_) => Step::default(),
	}
}

/// Takes over what the node knows and the store does not; and else, whether that proves anything.
fn compare(
	view: View<'_>, payments: &[(u32, [u8; 32])], memory: NodeMemory, facts: &Facts,
) -> Step {
	let debt = view.debt;
	adopt_or(view, payments, facts, || {
		let began = (debt.decided, debt.decided.wall.min(debt.decided.steady));
		if facts.is_complete() || facts.would_know(memory, began) {
			return Step { is_compared: true, ..Step::default() };
		}
		let until = facts.now().after(UNPROVEN_PAUSE);
		if debt.is_unproven {
			return view.wait(until);
		}
		let next = DebtV1 { is_unproven: true, due: Some(until), ..debt.clone() };
		Step::debt(next).note("nothing proves that it was not paid before").news(News::Unproven)
	})
}

fn adopt_or(
	view: View<'_>, payments: &[(u32, [u8; 32])], facts: &Facts, or: impl FnOnce() -> Step,
) -> Step {
	let debt = view.debt;
	let unknown = payments.iter().find(|(number, _)| view.attempt(*number).is_none());
	let Some((number, payment_hash)) = unknown else { return or() };
	if debt.live.is_some() {
		return Step::default();
	}
	let next = DebtV1 {
		attempts: debt.attempts.max(*number),
		live: Some(facts.live(*number)),
		due: Some(facts.now()),
		..debt.clone()
	};
	let record = view.adopted(payment_hash, VerdictV1::Unknown, facts);
	Step {
		attempt: Some(AttemptChange { number: *number, record, is_new: true }),
		hash: Some(HashChange::Adopt(*payment_hash)),
		..Step::debt(next)
	}
	.note(format!("attempt {number} was made, and this store did not know it"))
}

/// Plans the attempt that the token is for, if nothing has changed meanwhile; the node is told when the
/// plan is durable.
fn prepared(
	view: View<'_>, number: u32, hash: [u8; 32], token: Option<NodeToken>, facts: &Facts,
) -> Step {
	let debt = view.debt;
	let Some(token) = token else { return view.wait(facts.again()) };
	let order = view.next_order().filter(|order| {
		let is_same = order.number == number && order.payment_hash == hash;
		is_same && debt.live.is_none() && facts.is_compared && !facts.is_frozen
	});
	let Some(order) = order else { return Step::default() };
	let record = AttemptV1 {
		invoice: order.invoice.clone(),
		payment_hash: order.payment_hash,
		amount_msat: order.amount_msat,
		fee_cap_msat: order.fee_cap_msat,
		token,
		planned: facts.times.stamp(),
		planned_at: facts.now(),
		verdict: VerdictV1::Planned,
		is_questioned: false,
		ended_at: None,
	};
	let next = DebtV1 {
		attempts: number,
		live: Some(facts.live(number)),
		due: Some(facts.again()),
		..debt.clone()
	};
	let ask = Ask::Pay(view.order(number, &record));
	Step {
		attempt: Some(AttemptChange { number, record, is_new: true }),
		ask: Some(ask),
		..Step::debt(next)
	}
	.note(format!("attempt {number} planned"))
}

/// The answer to the order to pay.
fn sent_or_not(view: View<'_>, number: u32, sent: Option<PayReply>, facts: &Facts) -> Step {
	let Some(attempt) = open_and_ours(view, number, facts) else { return Step::default() };
	match sent {
		Some(PayReply::NotSent(reason)) => {
			let what = format!("attempt {number} was not sent ({reason:?})");
			dead(view, number, attempt, reason, counts(reason), &what, facts)
		},
		Some(PayReply::Accepted) => verdict(view, number, attempt, VerdictV1::Accepted, facts),
		Some(PayReply::Unknown) | None => verdict(view, number, attempt, VerdictV1::Unknown, facts),
	}
}

/// The answer to a look at an attempt.
fn found(view: View<'_>, number: u32, status: Option<AttemptStatus>, facts: &Facts) -> Step {
	let Some(attempt) = open_and_ours(view, number, facts) else { return Step::default() };
	let debt = view.debt;
	match status {
		Some(AttemptStatus::Settled { preimage, fee_msat }) => {
			view.paid(number, attempt, (preimage, fee_msat), facts)
		},
		Some(AttemptStatus::Failed(reason)) => {
			let what = format!("attempt {number} failed ({reason:?})");
			dead(view, number, attempt, reason, counts(reason), &what, facts)
		},
		Some(AttemptStatus::InFlight) | None => view.wait(facts.again()),
		Some(AttemptStatus::NoRecord(memory)) => {
			let began = (attempt.planned, attempt.planned_at);
			if !facts.would_know(memory, began) {
				return unproven(view, memory, facts);
			}
			// Also one that the node knew before the store did: the node has forgotten it.
			if attempt.verdict == VerdictV1::Accepted || attempt.invoice.is_empty() {
				return questioned(view, number, attempt, facts);
			}
			let invoice = debt.invoice.as_ref();
			let invoice = invoice.filter(|i| i.payment_hash == attempt.payment_hash);
			if invoice.is_none_or(|invoice| facts.clock() >= invoice.expires_at) {
				// It was never sent, and never will be: nobody pays an invoice that has expired.
				let what = format!("attempt {number} was never made, and its invoice has expired");
				let reason = FailureReason::Expired;
				return dead(view, number, attempt, reason, false, &what, facts);
			}
			if facts.is_frozen {
				return view.wait(facts.again());
			}
			// It was not sent yet: the same attempt, under the same name.
			let next =
				DebtV1 { live: Some(facts.live(number)), due: Some(facts.again()), ..debt.clone() };
			let ask = Some(Ask::Pay(view.order(number, attempt)));
			Step { ask, ..Step::debt(next) }
		},
	}
}

/// The node has no record, and that proves nothing. If it never will, an operator is told.
fn unproven(view: View<'_>, memory: NodeMemory, facts: &Facts) -> Step {
	let debt = view.debt;
	let may_come = matches!(memory, NodeMemory::Unknown);
	if may_come || debt.is_unproven {
		return view.wait(facts.again());
	}
	let next = DebtV1 { is_unproven: true, due: Some(facts.again()), ..debt.clone() };
	Step::debt(next)
		.note("the node has no record of its attempt, and might have forgotten it")
		.news(News::Unproven)
}

/// The node knew the attempt and has no record of it now: one of the two is wrong.
fn questioned(view: View<'_>, number: u32, attempt: &AttemptV1, facts: &Facts) -> Step {
	if attempt.is_questioned {
		return view.wait(facts.again());
	}
	let what = format!("the node knew attempt {number}, and has no record of it now");
	let record = AttemptV1 { is_questioned: true, ..attempt.clone() };
	let next = DebtV1 { due: Some(facts.again()), ..view.debt.clone() };
	Step {
		attempt: Some(AttemptChange { number, record, is_new: false }),
		freeze: Some(format!("debt {}: {what}", view.id)),
		..Step::debt(next)
	}
	.note(what)
}

/// A payment of this debt has settled, as the node says by itself.
fn settled(
	view: View<'_>, hash: &[u8; 32], (name, number): (Option<&AttemptId>, Option<u32>),
	paid: ([u8; 32], Option<u64>), facts: &Facts,
) -> Step {
	let (live, with_hash) = (view.live(), |attempt: &AttemptV1| attempt.payment_hash == *hash);
	let is_candidate = |(_, attempt): &&(u32, AttemptV1)| {
		with_hash(attempt) && attempt.verdict.settled().is_none()
	};
	let candidates: Vec<_> = view.attempts.iter().filter(is_candidate).collect();
	let may_be_live = live.is_some_and(|(_, attempt)| with_hash(attempt));
	let is_known = view
		.attempts
		.iter()
		.any(|(_, attempt)| with_hash(attempt) && attempt.verdict.settled().is_some());
	let candidate = match number {
		Some(number) => view.attempt(number).filter(|a| with_hash(a)).map(|a| (number, a)),
		// Without a name: the only attempt with this hash that it can be, or one that is dead.
		// A second payment of one hash, unnamed, is not told from the first that is told again. If its
		// attempt is live, a look at that tells.
		None if name.is_none() => match candidates.as_slice() {
			_ if is_known => return Step::default(),
			[_, _, ..] if may_be_live => return ambiguous(view, facts),
			[.., (number, attempt)] => Some((*number, attempt)),
			[] => None,
		},
		None => None,
	};
	match (candidate, live) {
		(Some((_, attempt)), _) if attempt.verdict.settled().is_some() => Step::default(),
		(Some((number, attempt)), Some((live, _))) if number == live => {
			view.paid(number, attempt, paid, facts)
		},
		(Some((number, attempt)), _) => after_all(view, number, attempt, false, paid, facts),
		(None, _) => {
			// The node has paid, and this store knows of no attempt.
			let number = number.unwrap_or(view.debt.attempts.saturating_add(1));
			let attempt = view.adopted(hash, VerdictV1::Unknown, facts);
			after_all(view, number, &attempt, true, paid, facts)
		},
	}
}

/// An attempt that was known to be dead, or not known at all, has paid. The debt is not paid again, and
/// nothing else is before an operator has looked.
fn after_all(
	view: View<'_>, number: u32, attempt: &AttemptV1, is_new: bool,
	(preimage, fee_msat): ([u8; 32], Option<u64>), facts: &Facts,
) -> Step {
	if !attempt.is_paid_by(&preimage) {
		return view.wrong_preimage(number, facts);
	}
	let debt = view.debt;
	// With another attempt under way the debt ends with that one, whatever comes of it.
	let mut next = match debt.live {
		Some(_) => debt.clone(),
		None => view.closed(StateV1::Paid, facts),
	};
	next.attempts = next.attempts.max(number);
	let what = format!("attempt {number} was paid after all");
	let is_news = debt.live.is_none() && debt.state != StateV1::Paid;
	let verdict = VerdictV1::Settled { preimage, fee_msat };
	let record = AttemptV1 { verdict, ended_at: Some(facts.now()), ..attempt.clone() };
	Step {
		attempt: Some(AttemptChange { number, record, is_new }),
		hash: is_new.then_some(HashChange::Adopt(attempt.payment_hash)),
		freeze: Some(format!("debt {}: {what}", view.id)),
		news: is_news.then_some(News::Paid { preimage: Some(preimage) }),
		..Step::debt(next)
	}
	.note(what)
}

/// Several attempts with this hash may have paid: the node is asked about the live one, and nothing else
/// is paid before an operator has looked.
fn ambiguous(view: View<'_>, facts: &Facts) -> Step {
	let what = "a payment settled, and the node does not say which attempt it was";
	let mut step = match view.debt.live {
		Some(_) => Step::debt(DebtV1 { due: Some(facts.now()), ..view.debt.clone() }),
		None => Step::default(),
	};
	step.freeze = Some(format!("debt {}: {what}", view.id));
	step
}

/// The attempt has not paid, and never will.
pub(crate) fn dead(
	view: View<'_>, number: u32, attempt: &AttemptV1, reason: FailureReason, counts: bool,
	what: &str, facts: &Facts,
) -> Step {
	let debt = view.debt;
	let record = AttemptV1 {
		verdict: VerdictV1::Dead { counts },
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
		due: Some(facts.now().after(pause(setbacks, facts))),
		..debt.clone()
	};
	let is_useless = matches!(reason, FailureReason::Expired | FailureReason::Rejected);
	// With its last failure the debt fails, and keeps its invoice for who looks.
	if is_useless && is_of_invoice && failed_attempts < debt.max_failed_attempts {
		next = without_invoice(&next, facts);
	}
	let news = (reason == FailureReason::NoFunds && !debt.told_no_funds).then_some(News::NoFunds);
	next.told_no_funds |= news.is_some();
	Step { attempt, news, ..Step::debt(next) }.note(what)
}

/// The pause after so many setbacks with one invoice: it doubles, up to the longest.
fn pause(setbacks: u32, facts: &Facts) -> Duration {
	let doubled = facts.pauses.retry_pause.saturating_mul(1 << setbacks.saturating_sub(1).min(20));
	doubled.min(facts.pauses.longest_pause.max(facts.pauses.retry_pause))
}

fn counts(reason: FailureReason) -> bool {
	matches!(reason, FailureReason::Rejected | FailureReason::Other)
}

/// The attempt that an answer is about, if it is still open and this worker's.
fn open_and_ours<'a>(view: View<'a>, number: u32, facts: &Facts) -> Option<&'a AttemptV1> {
	let live = view.debt.live?;
	let is_ours = live.number == number && live.owner == facts.owner;
	let attempts: &'a [(u32, AttemptV1)] = view.attempts;
	let attempt = attempts.iter().find(|(n, _)| *n == number).map(|(_, attempt)| attempt);
	attempt.filter(|attempt| is_ours && attempt.verdict.is_open())
}

fn verdict(
	view: View<'_>, number: u32, attempt: &AttemptV1, verdict: VerdictV1, facts: &Facts,
) -> Step {
	let record = AttemptV1 { verdict, ..attempt.clone() };
	let next = DebtV1 { due: Some(facts.again()), ..view.debt.clone() };
	Step { attempt: Some(AttemptChange { number, record, is_new: false }), ..Step::debt(next) }
}

impl View<'_> {
	/// The number of the attempt of this name; also of one that the store does not know, if it is not far
	/// beyond those that it knows.
	fn number_of(&self, name: &AttemptId) -> Option<u32> {
		const BEYOND: u32 = 64;
		let most = self.debt.attempts.saturating_add(BEYOND);
		(1..=most).rev().find(|number| self.id.attempt(*number) == *name)
	}

	/// An attempt that the node knew and the store did not.
	fn adopted(&self, payment_hash: &[u8; 32], verdict: VerdictV1, facts: &Facts) -> AttemptV1 {
		AttemptV1 {
			invoice: String::new(),
			payment_hash: *payment_hash,
			amount_msat: self.debt.share_msat(),
			fee_cap_msat: self.debt.fee_cap_msat,
			token: NodeToken::default(),
			planned: facts.times.stamp(),
			planned_at: Timestamp(0),
			verdict,
			is_questioned: false,
			ended_at: None,
		}
	}
}
