// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Debts, to look at; and whether they add up.

use std::fmt;

use bitcoin::hashes::{sha256, Hash};
use leyden_store::{KeyRange, StoreError, Timestamp};
use serde::Serialize;

use crate::error::PayoutError;
use crate::law::State;
use crate::money;
use crate::payouts::{hex, Loaded, Payouts};
use crate::records::{self, AttemptV1, DebtV1, HashV1, NoteV1, StateV1, VerdictV1};
use crate::terms::DebtId;

/// Most debts of one page.
pub const MAX_PAGE: usize = 1_000;

/// A debt, as it is.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Debt {
	/// Its name.
	pub id: DebtId,
	/// Who is owed.
	pub creditor: Vec<u8>,
	/// Why.
	pub cause: String,
	/// What came in, in satoshi.
	pub amount_sat: u64,
	/// What the node keeps, in satoshi.
	pub node_share_sat: u64,
	/// What is owed, in satoshi.
	pub share_sat: u64,
	/// How far it is.
	pub state: State,
	/// When the money was in.
	pub slashed_at: Option<Timestamp>,
	/// When the window ends; that moment is past.
	pub deadline: Option<Timestamp>,
	/// Whether it has an invoice that is to be paid.
	pub has_invoice: bool,
	/// Dispatches of that which are dead.
	pub spent: u32,
	/// How many there may be.
	pub budget: u32,
	/// Attempts that were ever made.
	pub attempts: u32,
	/// The one that may still pay it.
	pub live: Option<u32>,
	/// Reminders.
	pub nudges: u32,
	/// Those that are known to have been sent.
	pub nudges_sent: u32,
	/// When it is looked at next.
	pub due: Option<Timestamp>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
	/// With which debt.
	pub debt: DebtId,
	/// What.
	pub what: String,
}

/// Everything that is known of a debt, for somebody who wants proof. There are preimages in it.
#[derive(Clone, Serialize)]
pub struct Proof {
	v: u32,
	debt: String,
	creditor: String,
	cause: String,
	state: String,
	amount_sat: u64,
	node_share_sat: u64,
	share_sat: u64,
	fee_cap_msat: u64,
	decided_at_ms: u64,
	slashed_at_ms: Option<u64>,
	closed_at_ms: Option<u64>,
	nudges: u32,
	nudges_sent: u32,
	attempts: Vec<AttemptProof>,
	decisions: Vec<NoteProof>,
	#[serde(skip_serializing_if = "Option::is_none")]
	paid_by_other_means: Option<String>,
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
	/// A debt.
	///
	/// # Errors
	/// The store's.
	pub fn debt(&self, id: &DebtId) -> Result<Option<Debt>, PayoutError> {
		Ok(self.load(id)?.map(|loaded| Debt::of(&loaded)))
	}

	/// Debts, in no order, up to [`MAX_PAGE`]; `after` is the last one of the page before.
	///
	/// # Errors
	/// The store's.
	pub fn debts(&self, after: Option<&DebtId>, limit: usize) -> Result<Vec<Debt>, PayoutError> {
		Ok(self.page(after, limit.min(MAX_PAGE))?.iter().map(Debt::of).collect())
	}

	/// Everything that is known of a debt.
	///
	/// # Errors
	/// [`NoSuchDebt`](PayoutError::NoSuchDebt), the store's.
	pub fn proof(&self, id: &DebtId) -> Result<Proof, PayoutError> {
		let loaded = self.load(id)?.ok_or(PayoutError::NoSuchDebt)?;
		let attempts = self.all_attempts(id)?;
		let attempts = attempts.into_iter().map(|(n, attempt)| attempt_proof(n, attempt));
		let (mut decisions, mut rest) = (Vec::new(), Some(records::notes(id)));
		while let Some(range) = rest.take() {
			let page = self.0.store.scan(range, 256).wait()?;
			for (key, record) in &page.records {
				let NoteV1 { at, what } = records::read(key, record)?;
				decisions.push(NoteProof { at_ms: at.0, what });
			}
			rest = page.rest;
		}
		let debt = loaded.debt;
		Ok(Proof {
			v: 1,
			debt: id.to_string(),
			creditor: hex(&debt.creditor),
			cause: debt.cause.clone(),
			state: format!("{:?}", State::from(debt.state)).to_lowercase(),
			amount_sat: debt.amount_sat,
			node_share_sat: debt.node_share_sat,
			share_sat: debt.share_sat(),
			fee_cap_msat: debt.fee_cap_msat,
			decided_at_ms: debt.decided_at.0,
			slashed_at_ms: debt.slashed_at.map(|at| at.0),
			closed_at_ms: debt.closed_at.map(|at| at.0),
			nudges: debt.nudges,
			nudges_sent: debt.nudges_sent,
			attempts: attempts.collect(),
			decisions,
			paid_by_other_means: debt.outside,
		})
	}

	/// Looks at every record of debts, and says what does not add up. If it is about money, payouts are
	/// frozen.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// What is found freezes payouts durably; nothing else is changed.
	pub fn doctor(&self) -> Result<Vec<Finding>, PayoutError> {
		let (mut findings, mut rest) = (Vec::new(), Some(KeyRange::all(records::DEBTS)));
		while let Some(range) = rest.take() {
			// One after the other: what is behind a damaged record is looked at as well.
			let page = match self.0.store.scan(range.clone(), 1).wait() {
				Ok(page) => page,
				Err(error) => {
					let StoreError::Corrupt { key, .. } = &error else { return Err(error.into()) };
					let Ok(debt) = key.parse::<DebtId>() else { return Err(error.into()) };
					findings.push(Finding { debt, what: error.to_string() });
					rest = Some(range.after(debt.as_bytes()));
					continue;
				},
			};
			for (key, record) in &page.records {
				let id = records::id_of(key)?;
				let found = match records::read::<DebtV1>(key, record) {
					Ok(debt) => self.examine(&id, &debt)?,
					Err(error) => vec![error.to_string()],
				};
				findings.extend(found.into_iter().map(|what| Finding { debt: id, what }));
			}
			rest = page.rest;
		}
		if let Some(Finding { debt, what }) = findings.first() {
			self.freeze(&format!("debt {debt}: {what}"))?;
		}
		Ok(findings)
	}

	fn examine(&self, id: &DebtId, debt: &DebtV1) -> Result<Vec<String>, PayoutError> {
		let mut wrong = Vec::new();
		if let Err(error) = money::check(debt) {
			wrong.push(error.to_string());
		}
		let attempts = match self.all_attempts(id) {
			Ok(attempts) => attempts,
			Err(PayoutError::Store(error @ StoreError::Corrupt { .. })) => {
				wrong.push(error.to_string());
				return Ok(wrong);
			},
			Err(error) => return Err(error),
		};
		let mut out_msat = 0_u128;
		for (number, attempt) in &attempts {
			let is_live = debt.live.is_some_and(|live| live.number == *number);
			if attempt.verdict.is_open() != is_live {
				wrong.push(format!("attempt {number} is open, and is not"));
			}
			if let Some((preimage, fee_msat)) = attempt.verdict.settled() {
				out_msat += u128::from(attempt.amount_msat) + u128::from(fee_msat);
				if sha256::Hash::hash(&preimage).to_byte_array() != attempt.payment_hash {
					wrong.push(format!("attempt {number} has a preimage of something else"));
				}
			}
			let key = records::hash_key(&attempt.payment_hash);
			let owner = self.0.store.get(&key).wait()?;
			let owner = owner.map(|record| records::read::<HashV1>(&key, &record)).transpose()?;
			if owner.is_none_or(|owner| owner.debt != *id.as_bytes()) {
				wrong.push(format!("the payment hash of attempt {number} is another debt's"));
			}
		}
		if out_msat > u128::from(debt.amount_sat) * 1000 {
			wrong.push("more went out than came in".to_owned());
		}
		let settled = attempts.iter().filter(|(_, a)| a.verdict.settled().is_some()).count();
		if settled > 1 {
			wrong.push("it was paid more than once".to_owned());
		}
		let has_proof = settled == 1 || debt.outside.is_some();
		if (debt.state == StateV1::Paid) != has_proof {
			wrong.push("it is paid, and there is no proof; or there is, and it is not".to_owned());
		}
		Ok(wrong)
	}
}

impl Debt {
	fn of(loaded: &Loaded) -> Self {
		let debt = &loaded.debt;
		Self {
			id: loaded.id,
			creditor: debt.creditor.clone(),
			cause: debt.cause.clone(),
			amount_sat: debt.amount_sat,
			node_share_sat: debt.node_share_sat,
			share_sat: debt.share_sat(),
			state: loaded.state(),
			slashed_at: debt.slashed_at,
			deadline: debt.slashed_at.map(|_| debt.deadline()),
			has_invoice: debt.invoice.is_some(),
			spent: debt.spent,
			budget: debt.budget,
			attempts: debt.attempts,
			live: debt.live.map(|live| live.number),
			nudges: debt.nudges,
			nudges_sent: debt.nudges_sent,
			due: debt.due,
		}
	}
}

impl Proof {
	/// As JSON, in lines.
	pub fn to_json(&self) -> String {
		// There is nothing in it that is no JSON.
		serde_json::to_string_pretty(self).unwrap_or_default()
	}
}

fn attempt_proof(number: u32, attempt: AttemptV1) -> AttemptProof {
	let (verdict, counts) = match attempt.verdict {
		VerdictV1::Planned => ("planned", false),
		VerdictV1::Dispatched => ("dispatched", false),
		VerdictV1::Unknown => ("unknown", false),
		VerdictV1::Settled { .. } => ("settled", true),
		VerdictV1::Dead { counts } => ("dead", counts),
	};
	let settled = attempt.verdict.settled();
	AttemptProof {
		number,
		invoice: attempt.invoice,
		payment_hash: hex(&attempt.payment_hash),
		amount_msat: attempt.amount_msat,
		fee_cap_msat: attempt.fee_cap_msat,
		planned_at_ms: attempt.planned_at.0,
		ended_at_ms: attempt.ended_at.map(|at| at.0),
		verdict,
		counts,
		preimage: settled.map(|(preimage, _)| hex(&preimage)),
		fee_msat: settled.map(|(_, fee_msat)| fee_msat),
	}
}

/// Creditors may be people.
impl fmt::Debug for Debt {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { id, state, share_sat, attempts, .. } = self;
		write!(f, "Debt({id}, {state:?}, {share_sat} sat, {attempts} attempts)")
	}
}

/// Without preimages: what is meant to be shown is [`to_json`](Proof::to_json).
impl fmt::Debug for Proof {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Proof({}, {})", self.debt, self.state)
	}
}
