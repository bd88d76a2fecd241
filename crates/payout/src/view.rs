// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Debts as users see them, and proof of what became of them.

use std::fmt;

use leyden_store::{KeyRange, Times, Timestamp};
use serde::Serialize;

use crate::error::PayoutError;
use crate::ids::DebtId;
use crate::payouts::Payouts;
use crate::records::{self, AttemptV1, DebtV1, NoteV1, OutsideV1, VerdictV1};
use crate::state::State;
use crate::text::hex;

/// Most debts of one page.
pub const MAX_PAGE: usize = 1_000;

/// A debt, as it is now.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Debt {
	/// The name of the debt.
	pub id: DebtId,
	/// The payee.
	pub payee: Vec<u8>,
	/// The cause.
	pub cause: String,
	/// The money that the debt is about, in satoshi.
	pub amount_sat: u64,
	/// The share that the node keeps, in satoshi.
	pub node_share_sat: u64,
	/// The share that is owed, in satoshi.
	pub share_sat: u64,
	/// The state of the debt.
	pub state: State,
	/// The moment when the money was in, by the wall clock.
	pub window_start: Option<Timestamp>,
	/// The end of the window for invoices, which does not belong to it any more, as the clocks of the store
	/// have it now.
	pub deadline: Option<Timestamp>,
	/// `true` if there is an invoice that is to be paid.
	pub has_invoice: bool,
	/// The failed attempts that count.
	pub failed_attempts: u32,
	/// The number of failed attempts with which the debt fails.
	pub max_failed_attempts: u32,
	/// The attempts that were ever made.
	pub attempts: u32,
	/// The number of the attempt that may still pay it.
	pub live: Option<u32>,
	/// The reminders of the payee.
	pub reminders: u32,
	/// The reminders that are known to have been delivered.
	pub reminders_delivered: u32,
	/// `true` if it is not paid because nothing proves that it was not paid before: see
	/// [`Payouts::vouch`].
	pub is_unproven: bool,
	/// The time at which it is looked at next.
	pub due: Option<Timestamp>,
}

/// A page of debts.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DebtPage {
	/// The debts.
	pub debts: Vec<Debt>,
	/// The names of debts whose records are damaged.
	pub damaged: Vec<DebtId>,
	/// The place to go on from; `None` at the end.
	pub next: Option<DebtId>,
}

/// The history of a debt, as proof that may be shown to others. There are preimages in it.
#[derive(Clone, Serialize)]
pub struct Proof {
	v: u32,
	debt: String,
	payee: String,
	cause: String,
	state: String,
	amount_sat: u64,
	node_share_sat: u64,
	share_sat: u64,
	fee_cap_msat: u64,
	decided_at_ms: u64,
	window_start_ms: Option<u64>,
	closed_at_ms: Option<u64>,
	reminders: u32,
	reminders_delivered: u32,
	attempts: Vec<AttemptProof>,
	decisions: Vec<NoteProof>,
	#[serde(skip_serializing_if = "Option::is_none")]
	paid_by_other_means: Option<OtherMeansProof>,
}

#[derive(Clone, Serialize)]
struct OtherMeansProof {
	what: String,
	#[serde(skip_serializing_if = "Option::is_none")]
	preimage: Option<String>,
}

#[derive(Clone, Serialize)]
struct AttemptProof {
	number: u32,
	invoice: String,
	payment_hash: String,
	amount_msat: u64,
	fee_cap_msat: u64,
	planned_at_ms: u64,
	ended_at_ms: Option<u64>,
	verdict: &'static str,
	counts: bool,
	never_sent: bool,
	#[serde(skip_serializing_if = "Option::is_none")]
	preimage: Option<String>,
	#[serde(skip_serializing_if = "Option::is_none")]
	fee_msat: Option<u64>,
}

#[derive(Clone, Serialize)]
struct NoteProof {
	at_ms: u64,
	what: String,
}

impl Payouts {
	/// Returns a debt; `None` if there is none of this name.
	///
	/// # Errors
	/// [`Store`](PayoutError::Store).
	pub fn debt(&self, id: &DebtId) -> Result<Option<Debt>, PayoutError> {
		let times = self.0.clock.look();
		Ok(self.load(id)?.map(|loaded| Debt::of(id, &loaded.debt, &times)))
	}

	/// Returns a page of debts in no order, up to [`MAX_PAGE`]; `after` is the
	/// [`next`](DebtPage::next) of the page before. A damaged record hides no other debt.
	///
	/// # Errors
	/// [`Store`](PayoutError::Store).
	pub fn debts(&self, after: Option<&DebtId>, limit: usize) -> Result<DebtPage, PayoutError> {
		let mut range = KeyRange::all(records::DEBTS);
		if let Some(after) = after {
			range = range.after(after.as_bytes());
		}
		let found = self.scan_around_damage(range, limit.clamp(1, MAX_PAGE))?;
		let times = self.0.clock.look();
		let mut page = DebtPage { debts: Vec::new(), damaged: Vec::new(), next: None };
		for (key, record) in &found.records {
			let id = records::id_of(key)?;
			let debt = record.as_ref().ok().map(|record| records::read::<DebtV1>(key, record));
			match debt {
				Some(Ok(debt)) => page.debts.push(Debt::of(&id, &debt, &times)),
				Some(Err(_)) | None => page.damaged.push(id),
			}
			page.next = found.rest.as_ref().map(|_| id);
		}
		Ok(page)
	}

	/// Returns everything that is known of a debt.
	///
	/// # Errors
	/// [`NoSuchDebt`](PayoutError::NoSuchDebt), and [`Store`](PayoutError::Store).
	pub fn proof(&self, id: &DebtId) -> Result<Proof, PayoutError> {
		let loaded = self.find(id)?;
		let attempts = self.all_attempts(id)?;
		let attempts = attempts.into_iter().map(|(n, attempt)| attempt_proof(n, attempt));
		let mut decisions = Vec::new();
		self.each(records::notes(id), |key, record| {
			let NoteV1 { at, what } = records::read(key, record)?;
			decisions.push(NoteProof { at_ms: at.0, what });
			Ok(())
		})?;
		let debt = loaded.debt;
		Ok(Proof {
			v: 1,
			debt: id.to_string(),
			payee: hex(&debt.payee),
			cause: debt.cause.clone(),
			state: State::from(debt.state).to_string(),
			amount_sat: debt.amount_sat,
			node_share_sat: debt.node_share_sat,
			share_sat: debt.share_sat(),
			fee_cap_msat: debt.fee_cap_msat,
			decided_at_ms: debt.decided.wall.0,
			window_start_ms: debt.window_start.map(|start| start.wall.0),
			closed_at_ms: debt.closed_at.map(|at| at.0),
			reminders: debt.reminders,
			reminders_delivered: debt.reminders_delivered,
			attempts: attempts.collect(),
			decisions,
			paid_by_other_means: debt.outside.map(other_means),
		})
	}
}

impl Debt {
	fn of(id: &DebtId, debt: &DebtV1, times: &Times) -> Self {
		Self {
			id: *id,
			payee: debt.payee.clone(),
			cause: debt.cause.clone(),
			amount_sat: debt.amount_sat,
			node_share_sat: debt.node_share_sat,
			share_sat: debt.share_sat(),
			state: debt.state.into(),
			window_start: debt.window_start.map(|start| start.wall),
			deadline: debt.window_end(times),
			has_invoice: debt.invoice.is_some(),
			failed_attempts: debt.failed_attempts,
			max_failed_attempts: debt.max_failed_attempts,
			attempts: debt.attempts,
			live: debt.live.map(|live| live.number),
			reminders: debt.reminders,
			reminders_delivered: debt.reminders_delivered,
			is_unproven: debt.is_unproven,
			due: debt.due,
		}
	}
}

impl Proof {
	/// Writes the proof as JSON, in lines.
	pub fn to_json(&self) -> String {
		// There is nothing in it that is no JSON.
		serde_json::to_string_pretty(self).unwrap_or_default()
	}
}

fn attempt_proof(number: u32, attempt: AttemptV1) -> AttemptProof {
	let (verdict, counts, never_sent) = match attempt.verdict {
		VerdictV1::Planned => ("planned", false, false),
		VerdictV1::Accepted => ("accepted", false, false),
		VerdictV1::Unknown => ("unknown", false, false),
		VerdictV1::Settled { .. } => ("settled", true, false),
		VerdictV1::Dead { counts, never_sent } => ("dead", counts, never_sent),
	};
	let settled = attempt.verdict.settled();
	AttemptProof {
		number,
		invoice: attempt.invoice,
		payment_hash: hex(&attempt.payment_hash),
		amount_msat: attempt.amount_msat,
		fee_cap_msat: attempt.fee_cap_msat,
		planned_at_ms: attempt.planned.wall.0,
		ended_at_ms: attempt.ended_at.map(|at| at.0),
		verdict,
		counts,
		never_sent,
		preimage: settled.map(|(preimage, _)| hex(&preimage)),
		fee_msat: settled.and_then(|(_, fee_msat)| fee_msat),
	}
}

fn other_means(proof: OutsideV1) -> OtherMeansProof {
	match proof {
		OutsideV1::Preimage(preimage) => OtherMeansProof {
			what: "a preimage was shown".to_owned(),
			preimage: Some(hex(&preimage)),
		},
		OutsideV1::Reference(what) => OtherMeansProof { what, preimage: None },
	}
}

/// Shows no payee, who may be a person.
impl fmt::Debug for Debt {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { id, state, share_sat, attempts, .. } = self;
		write!(f, "Debt({id}, {state:?}, {share_sat} sat, {attempts} attempts)")
	}
}

/// Shows no preimages, which [`to_json`](Proof::to_json) shows.
impl fmt::Debug for Proof {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Proof({}, {})", self.debt, self.state)
	}
}
