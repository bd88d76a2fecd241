// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The decision on what the node says by itself.

use crate::ids::AttemptId;
use crate::machine::end::{dead, End};
use crate::machine::{AttemptChange, Facts, HashChange, Step, View};
use crate::notice::News;
use crate::payer::{AttemptStatus, NodeToken};
use crate::records::{AttemptV1, DebtV1, StateV1, VerdictV1};

/// Attempts beyond those that the store knows: a node that knows more is not believed.
pub(crate) const MAX_BEYOND: u32 = 1_000;

/// Decides what follows from what the node says by itself of a payment with this hash, and of this name
/// if it has one. The step is empty if it changes nothing.
pub(crate) fn on_outcome(
	view: View<'_>, hash: &[u8; 32], name: Option<&AttemptId>, status: &AttemptStatus,
	facts: &Facts,
) -> Step {
	let number = name.and_then(|name| view.number_of(name, MAX_BEYOND));
	match *status {
		AttemptStatus::Settled { preimage, fee_msat } => {
			settled(view, hash, (name, number), (preimage, fee_msat), facts)
		},
		// A failure is only believed of the attempt that is live, by its name: an earlier one with the same
		// hash may have failed long ago.
		AttemptStatus::Failed(reason) => match view.live() {
			Some((live, attempt)) if number == Some(live) && attempt.payment_hash == *hash => {
				let what = format!("attempt {live} failed ({reason:?})");
				dead(view, live, attempt, End::failed(reason, &what), facts)
			},
			_ => Step::default(),
		},
		AttemptStatus::InFlight | AttemptStatus::NoRecord(_) => Step::default(),
	}
}

/// Decides what follows from a payment of this debt that has settled, as the node says by itself.
fn settled(
	view: View<'_>, hash: &[u8; 32], (name, number): (Option<&AttemptId>, Option<u32>),
	paid: ([u8; 32], Option<u64>), facts: &Facts,
) -> Step {
	let (live, with_hash) = (view.live(), |attempt: &AttemptV1| attempt.payment_hash == *hash);
	let is_settled =
		|attempt: &AttemptV1| with_hash(attempt) && attempt.verdict.settled().is_some();
	let token = name.map(|name| name.as_bytes().to_vec()).map(NodeToken::new);
	let token = token.and_then(Result::ok).unwrap_or_default();
	// A payment that has the name of no attempt is known by that name.
	let is_known = view
		.attempts
		.iter()
		.any(|(_, attempt)| is_settled(attempt) && (name.is_none() || attempt.token == token));
	let candidate = match number {
		Some(number) => view.attempt(number).filter(|a| with_hash(a)).map(|a| (number, a)),
		// A second payment of one hash, unnamed, is not told from the first that is told again. If its
		// attempt is live, a look at that tells.
		None if is_known => return Step::default(),
		// Without a name: the only attempt with this hash that it can be, or one that is dead.
		None if name.is_none() => {
			let may_be_live = live.is_some_and(|(_, attempt)| with_hash(attempt));
			match view.candidates(hash).as_slice() {
				[_, _, ..] if may_be_live => return ambiguous(view, facts),
				[.., (number, attempt)] => Some((*number, *attempt)),
				[] => None,
			}
		},
		None => None,
	};
	match (candidate, live) {
		(Some((_, attempt)), _) if attempt.verdict.settled().is_some() => Step::default(),
		(Some((number, attempt)), Some((live, _))) if number == live => {
			view.paid(number, attempt, paid, facts)
		},
		(Some((number, attempt)), _) => after_all(view, number, attempt, false, paid, facts),
		(None, _) if is_known => Step::default(),
		(None, _) => {
			// The node has paid, and this store knows of no such attempt.
			let number = number.filter(|number| view.attempt(*number).is_none());
			let number = number.unwrap_or(view.debt.attempts.saturating_add(1));
			let attempt = view.adopted(hash, token, VerdictV1::Unknown, facts);
			after_all(view, number, &attempt, true, paid, facts)
		},
	}
}

/// Writes down that an attempt has paid which was known to be dead, or not known at all. The debt is not paid
/// again, and nothing else is before an operator has looked.
fn after_all(
	view: View<'_>, number: u32, attempt: &AttemptV1, is_new: bool,
	(preimage, fee_msat): ([u8; 32], Option<u64>), facts: &Facts,
) -> Step {
	if !attempt.is_paid_by(&preimage) {
		return view.wrong_preimage(number, facts);
	}
	let debt = view.debt;
	// With another attempt under way the debt ends with that one, whatever comes of it; and with money
	// that is still held, when that is in.
	let goes_on = debt.live.is_some() || debt.state == StateV1::Decided;
	let mut next = match goes_on {
		true => DebtV1 { paid_by: Some(number), ..debt.clone() },
		false => view.closed(StateV1::Paid, facts),
	};
	next.attempts = next.attempts.max(number);
	let what = format!("attempt {number} was paid after all");
	let is_news = !goes_on && debt.state != StateV1::Paid;
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

/// Freezes payouts, since several attempts with this hash may have paid: the node is asked about the live
/// one, and nothing else is paid before an operator has looked.
fn ambiguous(view: View<'_>, facts: &Facts) -> Step {
	let what = "a payment settled, and the node does not say which attempt it was";
	let mut step = match view.debt.live {
		Some(_) => Step::debt(DebtV1 { due: Some(facts.now()), ..view.debt.clone() }),
		None => Step::default(),
	};
	step.freeze = Some(format!("debt {}: {what}", view.id));
	step
}

impl View<'_> {
	/// Returns the number of the attempt of this name; also of an attempt that the store does not know, if
	/// the number is not far beyond those that it knows.
	pub(crate) fn number_of(&self, name: &AttemptId, beyond: u32) -> Option<u32> {
		let most = self.debt.attempts.saturating_add(beyond);
		(1..=most).find(|number| self.id.attempt(*number) == *name)
	}

	/// The attempts with this hash that an unnamed payment can be of: those that have not settled, and
	/// were not sent in vain if there are others.
	fn candidates(&self, hash: &[u8; 32]) -> Vec<(u32, &AttemptV1)> {
		let with_hash = |attempt: &&(u32, AttemptV1)| {
			attempt.1.payment_hash == *hash && attempt.1.verdict.settled().is_none()
		};
		let all = self.attempts.iter().filter(with_hash).map(|(number, a)| (*number, a));
		let (sent, never): (Vec<_>, Vec<_>) = all.partition(|(_, a)| a.verdict.may_have_paid());
		if sent.is_empty() {
			never
		} else {
			sent
		}
	}
}
