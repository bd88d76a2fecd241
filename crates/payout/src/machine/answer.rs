// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The decision on what the node answers.

use std::time::Duration;

use leyden_store::Timestamp;

use crate::error::PayoutError;
use crate::machine::end::{dead, End};
use crate::machine::outcome::MAX_BEYOND;
use crate::machine::{Answer, Ask, AttemptChange, Facts, HashChange, Step, View};
use crate::notice::News;
use crate::payer::{
	AttemptStatus, FailureReason, KnownPayment, KnownPayments, NodeMemory, NodeToken, PayReply,
	SettleReply,
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
				window_start: Some(facts.times.stamp()),
				due: Some(facts.now()),
				..debt.clone()
			};
			Step::debt(next).note("the money is in")
		},
		Answer::Settle(Some(SettleReply::Gone)) => Step::debt(view.closed(StateV1::Void, facts))
			.note("the payment that was held is gone")
			.news(News::Void),
		Answer::Settle(Some(SettleReply::NotYet) | None) => view.wait(facts.again()),
		Answer::Settle(Some(SettleReply::Unable)) => {
			let tell = Some(PayoutError::CannotSettle { debt: *view.id });
			Step { tell, ..view.wait(facts.again()) }
		},
		_ if debt.state != StateV1::Owed => Step::default(),
		Answer::Compare(Some(KnownPayments::Listed { payments, memory })) => {
			compare(view, &payments, memory, facts)
		},
		Answer::Compare(Some(KnownPayments::ByHashOnly)) => match view.next_order() {
			Some(order) => Step::ask(Ask::CompareHash(order)),
			// There is nothing yet that a node could know by its hash.
			None => Step { is_listed: true, ..Step::default() },
		},
		Answer::CompareHash(Some(AttemptStatus::Settled { .. } | AttemptStatus::InFlight)) => {
			let known = debt.invoice.as_ref().map(|invoice| KnownPayment {
				number: debt.attempts.saturating_add(1),
				payment_hash: invoice.payment_hash,
				may_pay: true,
			});
			known.map_or_else(Step::default, |known| {
				compare(view, &[known], NodeMemory::Unknown, facts)
			})
		},
		// This hash was not paid. Others may have been, of invoices that the store does not know.
		Answer::CompareHash(Some(AttemptStatus::Failed(_) | AttemptStatus::NoRecord(_))) => {
			compare(view, &[], NodeMemory::Unknown, facts)
		},
		// Not known is not "no": nothing is paid before it is. A debt that waits for its payee is asked about
		// when it is looked at next.
		Answer::Compare(None) | Answer::CompareHash(None) => {
			match debt.invoice.is_some() || debt.due <= Some(facts.now()) {
				true => view.wait(facts.again()),
				false => Step::default(),
			}
		},
		Answer::Prepare(number, hash, token) => prepared(view, number, hash, token, facts),
		Answer::Pay(number, sent) => sent_or_not(view, number, sent, facts),
		Answer::Look(number, status) => found(view, number, status, facts),
	}
}

/// Takes over what the node knows and the store does not; and else judges what the node's list proves.
fn compare(view: View<'_>, payments: &[KnownPayment], memory: NodeMemory, facts: &Facts) -> Step {
	let debt = view.debt;
	let live = match debt.live {
		Some(live) => match open_and_ours(view, live.number, facts) {
			Some(attempt) => Some((live.number, attempt)),
			None => return Step::default(),
		},
		None => None,
	};
	if payments.iter().any(|known| Some(known.number) == live.map(|(number, _)| number)) {
		// A look tells what became of it.
		return view.wait(facts.again());
	}
	if let Some(step) = view.paid_already(facts) {
		return step;
	}
	let most = debt.attempts.saturating_add(MAX_BEYOND);
	if let Some(known) = payments.iter().find(|known| !(1..=most).contains(&known.number)) {
		let what = format!("the node lists attempt {}, which cannot be", known.number);
		let freeze = Some(format!("debt {}: {what}", view.id));
		return Step { freeze, ..view.wait(facts.now().after(UNPROVEN_PAUSE)) };
	}
	if let Some(known) = payments.iter().find(|known| view.attempt(known.number).is_none()) {
		return match live {
			Some(live) => give_way(view, live, memory, facts),
			None => adopt(view, known, facts),
		};
	}
	if let Some((number, attempt)) = payments.iter().find_map(|known| view.contradicts(known)) {
		return contradicted(view, number, attempt, facts);
	}
	let began = (debt.decided, debt.decided.wall.min(debt.decided.steady));
	if facts.is_complete() || facts.would_know(memory, began) {
		let next = debt.is_unproven.then(|| DebtV1 { is_unproven: false, ..debt.clone() });
		return Step { debt: next, is_compared: true, is_listed: true, ..Step::default() };
	}
	let listed = Step { is_listed: true, ..Step::default() };
	if debt.invoice.is_none() {
		// There is nothing to pay yet.
		return listed;
	}
	let until = facts.now().after(UNPROVEN_PAUSE);
	if debt.is_unproven || facts.is_frozen {
		return Step { is_listed: true, ..view.wait(until) };
	}
	let next = DebtV1 { is_unproven: true, due: Some(until), ..debt.clone() };
	Step { debt: Some(next), ..listed }
		.note("nothing proves that it was not paid before")
		.news(News::Unproven)
}

/// Gives up the live attempt, if the node knows an attempt that the store does not, and not the live one: the
/// store is an old copy, and what it was about to order was never made. Then the other attempt is taken over.
fn give_way(
	view: View<'_>, (number, attempt): (u32, &AttemptV1), memory: NodeMemory, facts: &Facts,
) -> Step {
	let began = (attempt.planned, attempt.planned_at);
	let was_known = attempt.verdict == VerdictV1::Accepted || attempt.invoice.is_empty();
	// An order that is still on its way has arrived by then.
	let is_over = facts.is_long_since(attempt.ordered) && facts.would_know(memory, began);
	if was_known || !is_over {
		return view.wait(facts.again());
	}
	let what = format!("attempt {number} was never made, and the node knows another one");
	let end = End { reason: FailureReason::Other, counts: false, never_sent: true, what: &what };
	dead(view, number, attempt, end, facts)
}

/// Takes over an attempt that the node knows and the store does not.
fn adopt(view: View<'_>, known: &KnownPayment, facts: &Facts) -> Step {
	let (debt, number) = (view.debt, known.number);
	let next = DebtV1 {
		attempts: debt.attempts.max(number),
		live: Some(facts.live(number)),
		is_unproven: false,
		due: Some(facts.now()),
		..debt.clone()
	};
	let hash = known.payment_hash;
	let record = view.adopted(&hash, NodeToken::default(), VerdictV1::Unknown, facts);
	Step {
		attempt: Some(AttemptChange { number, record, is_new: true }),
		hash: Some(HashChange::Adopt(hash)),
		..Step::debt(next)
	}
	.note(format!("attempt {number} was made, and this store did not know it"))
}

/// Freezes payouts over an attempt that is dead, as the store says, and may pay, as the node says. Nothing is
/// paid while the node says so, and an operator is told once.
fn contradicted(view: View<'_>, number: u32, attempt: &AttemptV1, facts: &Facts) -> Step {
	let step = view.wait(facts.now().after(UNPROVEN_PAUSE));
	if attempt.is_questioned {
		return step;
	}
	let what = format!("attempt {number} is known to be dead, and the node says that it may pay");
	let record = AttemptV1 { is_questioned: true, ..attempt.clone() };
	Step {
		attempt: Some(AttemptChange { number, record, is_new: false }),
		freeze: Some(format!("debt {}: {what}", view.id)),
		..step
	}
	.note(what)
}

/// Plans the attempt that the token is for, if nothing has changed meanwhile; the node is told when the
/// plan is durable.
fn prepared(
	view: View<'_>, number: u32, hash: [u8; 32], token: Option<NodeToken>, facts: &Facts,
) -> Step {
	let debt = view.debt;
	if let Some(step) = view.paid_already(facts) {
		return step;
	}
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
		ordered: facts.times.stamp(),
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

/// Decides what follows from the answer to the order to pay.
fn sent_or_not(view: View<'_>, number: u32, sent: Option<PayReply>, facts: &Facts) -> Step {
	let Some(attempt) = open_and_ours(view, number, facts) else { return Step::default() };
	match sent {
		Some(PayReply::NotSent(reason)) => {
			let what = format!("attempt {number} was not sent ({reason:?})");
			let end = End { never_sent: true, ..End::failed(reason, &what) };
			dead(view, number, attempt, end, facts)
		},
		Some(PayReply::Accepted) => verdict(view, number, attempt, VerdictV1::Accepted, facts),
		Some(PayReply::Unknown) | None => verdict(view, number, attempt, VerdictV1::Unknown, facts),
	}
}

/// Decides what follows from the answer to a look at an attempt.
fn found(view: View<'_>, number: u32, status: Option<AttemptStatus>, facts: &Facts) -> Step {
	let Some(attempt) = open_and_ours(view, number, facts) else { return Step::default() };
	match status {
		Some(AttemptStatus::Settled { preimage, fee_msat }) => {
			view.paid(number, attempt, (preimage, fee_msat), facts)
		},
		Some(AttemptStatus::Failed(reason)) => {
			let what = format!("attempt {number} failed ({reason:?})");
			dead(view, number, attempt, End::failed(reason, &what), facts)
		},
		Some(AttemptStatus::InFlight) | None => view.wait(facts.again()),
		Some(AttemptStatus::NoRecord(memory)) => not_found(view, number, attempt, memory, facts),
	}
}

/// Decides what follows if the node has no record of an attempt that is open.
fn not_found(
	view: View<'_>, number: u32, attempt: &AttemptV1, memory: NodeMemory, facts: &Facts,
) -> Step {
	let debt = view.debt;
	// What the store proves is judged when an operator has looked at it.
	if facts.is_frozen && memory == NodeMemory::WithStore {
		return view.wait(facts.again());
	}
	if !facts.would_know(memory, (attempt.planned, attempt.planned_at)) {
		return match facts.is_frozen {
			true => view.wait(facts.again()),
			false => unproven(view, memory, facts),
		};
	}
	let never_sent = attempt.verdict != VerdictV1::Accepted && !attempt.invoice.is_empty();
	if view.paid_by_another(number).is_some() {
		let what = format!("attempt {number} was never made, and another one has paid");
		let end = End { reason: FailureReason::Other, counts: false, never_sent, what: &what };
		return dead(view, number, attempt, end, facts);
	}
	// Also one that the node knew before the store did: the node has forgotten it.
	if !never_sent {
		return questioned(view, number, attempt, facts);
	}
	let invoice = debt.invoice.as_ref();
	let Some(invoice) = invoice.filter(|i| i.payment_hash == attempt.payment_hash) else {
		return view.wait(facts.again());
	};
	if facts.clock() >= invoice.expires_at {
		// It was never sent, and never will be: an invoice that has expired is not paid, and an order that is
		// still on its way has arrived by now.
		let is_over = facts.times.are_past(invoice.expires_at);
		if !is_over || !facts.is_long_since(attempt.ordered) {
			return view.wait(facts.again());
		}
		let what = format!("attempt {number} was never made, and its invoice has expired");
		let reason = FailureReason::Expired;
		let end = End { reason, counts: false, never_sent, what: &what };
		return dead(view, number, attempt, end, facts);
	}
	if facts.is_frozen {
		return view.wait(facts.again());
	}
	// An old copy may be about to order what was given up since, and another attempt has paid.
	if !facts.is_compared {
		return Step::ask(Ask::Compare);
	}
	// It was not sent yet: the same attempt, under the same name.
	let live = Some(facts.live(number));
	let next = DebtV1 { live, is_unproven: false, due: Some(facts.again()), ..debt.clone() };
	let record = AttemptV1 { ordered: facts.times.stamp(), ..attempt.clone() };
	Step {
		ask: Some(Ask::Pay(view.order(number, attempt))),
		attempt: Some(AttemptChange { number, record, is_new: false }),
		..Step::debt(next)
	}
}

/// Waits, since the node has no record and that proves nothing. If it never will, an operator is told.
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

/// Freezes payouts, since the node knew the attempt and has no record of it now: one of the two is wrong.
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
	/// The attempt of a payment that the node says may pay, if the store says that it cannot.
	fn contradicts(&self, known: &KnownPayment) -> Option<(u32, &AttemptV1)> {
		let attempt = self.attempt(known.number)?;
		let is_dead = matches!(attempt.verdict, VerdictV1::Dead { .. });
		(known.may_pay && is_dead).then_some((known.number, attempt))
	}

	/// An attempt that the node knew and the store did not.
	pub(super) fn adopted(
		&self, payment_hash: &[u8; 32], token: NodeToken, verdict: VerdictV1, facts: &Facts,
	) -> AttemptV1 {
		AttemptV1 {
			invoice: String::new(),
			payment_hash: *payment_hash,
			amount_msat: self.debt.share_msat(),
			fee_cap_msat: self.debt.fee_cap_msat,
			token,
			planned: facts.times.stamp(),
			planned_at: Timestamp(0),
			ordered: facts.times.stamp(),
			verdict,
			is_questioned: false,
			ended_at: None,
		}
	}
}
