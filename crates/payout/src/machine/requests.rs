// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The decisions on what payees and operators ask for.

use bitcoin::hashes::{sha256, Hash};

use crate::error::PayoutError;
use crate::invoice::InvoiceRules;
use crate::machine::end::{dead, End};
use crate::machine::{Facts, HashChange, Step, View};
use crate::notice::News;
use crate::outside_proof::{OutsideProof, MAX_PROOF_CHARS};
use crate::payer::FailureReason;
use crate::records::{AttemptV1, DebtV1, InvoiceV1, OutsideV1, StateV1};
use crate::submitted::Submitted;

/// Decides on an invoice of the payee's.
pub(crate) fn on_invoice(
	view: View<'_>, payee: &[u8], invoice: &str, rules: &InvoiceRules, facts: &Facts,
) -> Result<(Step, Submitted), PayoutError> {
	let View { debt, .. } = view;
	let id = *view.id;
	if debt.payee != payee {
		return Err(PayoutError::NotThePayee { debt: id });
	}
	let reopens = match debt.state {
		// One that could not be paid may be replaced, while no attempt may still pay it.
		StateV1::Owed if debt.invoice.is_some() && debt.setbacks == 0 => {
			return Err(PayoutError::HasInvoice { debt: id });
		},
		StateV1::Owed => false,
		StateV1::Failed => true,
		state => return Err(PayoutError::InvalidState { debt: id, state: state.into() }),
	};
	if let Some(live) = debt.live {
		return Err(PayoutError::AttemptLive { debt: id, number: live.number });
	}
	if debt.share_sat() == 0 {
		return Err(PayoutError::NothingOwed { debt: id });
	}
	// A first invoice is in time until the debt is forfeited.
	if debt.was_invoiced && debt.window_left(&facts.times).is_none() {
		return Err(PayoutError::WindowClosed { debt: id });
	}
	let checked = rules.check(invoice, debt.share_msat(), facts.clock())?;
	let next = DebtV1 {
		state: StateV1::Owed,
		invoice: Some(InvoiceV1 {
			text: checked.text,
			payment_hash: checked.payment_hash,
			expires_at: checked.expires_at,
		}),
		was_invoiced: true,
		// An invoice in the place of one that was rejected does not make the count whole again.
		failed_attempts: if reopens { 0 } else { debt.failed_attempts },
		setbacks: 0,
		told_no_funds: false,
		told_no_route: false,
		due: Some(facts.now()),
		closed_at: None,
		..debt.clone()
	};
	let (what, submitted) = match () {
		() if reopens => ("reopened by a fresh invoice", Submitted::Reopened),
		() if debt.invoice.is_some() => ("its invoice was replaced", Submitted::Replaced),
		() => ("given an invoice", Submitted::Accepted),
	};
	let hash = Some(HashChange::Take(checked.payment_hash));
	Ok((Step { hash, ..Step::debt(next) }.note(what), submitted))
}

/// Decides on proof that a debt was paid. `hash_is_its` tells whether a payment hash is of an invoice of
/// this debt.
pub(crate) fn on_proof(
	view: View<'_>, proof: &OutsideProof,
	hash_is_its: impl FnOnce(&[u8; 32]) -> Result<bool, PayoutError>, facts: &Facts,
) -> Result<Step, PayoutError> {
	let View { debt, .. } = view;
	let id = *view.id;
	if !matches!(debt.state, StateV1::Owed | StateV1::Failed | StateV1::Void) {
		return Err(PayoutError::InvalidState { debt: id, state: debt.state.into() });
	}
	let outside = match proof {
		OutsideProof::Preimage(preimage) => {
			let hash = sha256::Hash::hash(preimage).to_byte_array();
			if !hash_is_its(&hash)? {
				return Err(PayoutError::NoProof { debt: id });
			}
			let may_have = |a: &AttemptV1| a.payment_hash == hash && a.verdict.may_have_paid();
			let with_hash = view.attempts.iter().filter(|(_, a)| may_have(a)).count();
			if let (Some((number, attempt)), 1) = (view.live(), with_hash) {
				if attempt.payment_hash == hash {
					// The attempt that is under way has paid, whatever the node says.
					return Ok(view.paid(number, attempt, (*preimage, None), facts));
				}
			}
			OutsideV1::Preimage(*preimage)
		},
		OutsideProof::Reference(text) => {
			let length = text.trim().chars().count();
			if length == 0 || length > MAX_PROOF_CHARS {
				return Err(PayoutError::NoProof { debt: id });
			}
			OutsideV1::Reference(text.trim().to_owned())
		},
	};
	if let Some(live) = debt.live {
		return Err(PayoutError::AttemptLive { debt: id, number: live.number });
	}
	let next = DebtV1 { outside: Some(outside), ..view.closed(StateV1::Paid, facts) };
	Ok(Step::debt(next).note("paid by other means").news(News::Paid { preimage: None }))
}

/// Decides on a reminder that was delivered: the step is empty if all were.
pub(crate) fn on_reminder_delivered(view: View<'_>, facts: &Facts) -> Step {
	let debt = view.debt;
	if debt.reminders_delivered >= debt.reminders {
		return Step::default();
	}
	Step::debt(DebtV1 {
		reminders_delivered: debt.reminders_delivered + 1,
		first_delivered_at: debt.first_delivered_at.or(Some(facts.now())),
		..debt.clone()
	})
}

/// Decides on an operator's word that nothing was paid for a debt that this store does not know.
pub(crate) fn on_vouched(view: View<'_>, facts: &Facts) -> Result<Step, PayoutError> {
	let debt = view.debt;
	if debt.state != StateV1::Owed {
		let (debt, state) = (*view.id, debt.state.into());
		return Err(PayoutError::InvalidState { debt, state });
	}
	let next = DebtV1 { is_unproven: false, due: Some(facts.now()), ..debt.clone() };
	Ok(Step::debt(next).note("an operator vouches that it was not paid"))
}

/// Decides on an operator's word that an attempt has not paid, and never will.
pub(crate) fn on_declared_failed(
	view: View<'_>, number: u32, facts: &Facts,
) -> Result<Step, PayoutError> {
	match view.live() {
		Some((live, attempt)) if live == number => {
			let what = format!("an operator says that attempt {number} has failed");
			let end = End::failed(FailureReason::Other, &what);
			let mut step = dead(view, number, attempt, end, facts);
			// Before anything else is paid, the node is asked what it knows, whatever was compared before.
			if let Some(next) = &mut step.debt {
				next.declared = next.declared.saturating_add(1);
			}
			Ok(step)
		},
		_ => Err(PayoutError::NoSuchAttempt { debt: *view.id, number }),
	}
}
