// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is owed, to whom, and on which terms.

use std::fmt;
use std::time::Duration;

use leyden_id::{Domain, EventId, IdBuilder};

use crate::error::PayoutError;

/// Longest name of a creditor, in bytes.
pub const MAX_CREDITOR_BYTES: usize = 255;
/// Longest cause, in bytes.
pub const MAX_CAUSE_BYTES: usize = 300;
/// More than there will ever be, in satoshi.
pub const MAX_AMOUNT_SAT: u64 = 21_000_000 * 100_000_000;
/// Most dispatches that a budget may have.
pub const MAX_BUDGET: u32 = 1_000;

const DEBT: Domain = Domain::new("leyden/debt", 1);
const ATTEMPT: Domain = Domain::new("leyden/payout-attempt", 1);

/// The name of a debt: the same for the same cause, after any crash.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DebtId([u8; 32]);

/// The name of an attempt to pay a debt: the same for the same debt and number. Give it to the node as
/// its name of the payment (LDK: `PaymentId`), so that what the node has can be found again.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AttemptId([u8; 32]);

/// On which terms a debt is paid. They are part of the debt: neither a restart nor another configuration
/// changes them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terms {
	/// For how long the creditor may ask for it, from the moment that the money is in. The end is past.
	pub window: Duration,
	/// How often the creditor is reminded.
	pub cadence: Duration,
	/// How many dispatches of one invoice may fail; 1 to [`MAX_BUDGET`].
	pub budget: u32,
	/// The most that routing may cost, in millisatoshi, each time. Together with what is owed it must
	/// not be more than what came in.
	pub fee_cap_msat: u64,
}

/// A debt that is to be written down.
#[derive(Clone, Eq, PartialEq)]
pub struct NewDebt {
	/// Its name.
	pub id: DebtId,
	/// Who is owed: what the caller knows them by. Stored, and never worked out anew.
	pub creditor: Vec<u8>,
	/// Why, in words.
	pub cause: String,
	/// What came in, in satoshi.
	pub amount_sat: u64,
	/// What the node keeps of it, in satoshi; the rest is owed.
	pub node_share_sat: u64,
	/// The payment that holds the money, by its hash, if it is not in yet.
	pub held: Option<[u8; 32]>,
	/// On which terms.
	pub terms: Terms,
}

impl DebtId {
	/// The debt with this cause (an order and what happened to it).
	pub fn new(cause: &str, about: &[u8]) -> Self {
		Self(*IdBuilder::new(DEBT, cause).bytes(about).finish().as_bytes())
	}

	/// A name that was made elsewhere.
	pub fn from_bytes(bytes: [u8; 32]) -> Self {
		Self(bytes)
	}

	/// Its bytes.
	pub fn as_bytes(&self) -> &[u8; 32] {
		&self.0
	}

	/// One of its attempts, from 1 on.
	pub fn attempt(&self, number: u32) -> AttemptId {
		let builder = IdBuilder::new(ATTEMPT, "attempt").bytes(&self.0);
		AttemptId(*builder.number(number.into()).finish().as_bytes())
	}
}

impl AttemptId {
	/// As a node has it.
	pub fn from_bytes(bytes: [u8; 32]) -> Self {
		Self(bytes)
	}

	/// Its bytes.
	pub fn as_bytes(&self) -> &[u8; 32] {
		&self.0
	}
}

impl NewDebt {
	/// The node's share, from so many millionths: rounded down, so that the rest is the creditor's.
	///
	/// # Errors
	/// [`PayoutError::OutOfRange`] for more than a million.
	pub fn node_share_sat(amount_sat: u64, millionths: u32) -> Result<u64, PayoutError> {
		PayoutError::range("node share in millionths", millionths.into(), 0, 1_000_000)?;
		PayoutError::range("amount", amount_sat, 0, MAX_AMOUNT_SAT)?;
		let share = u128::from(amount_sat) * u128::from(millionths) / 1_000_000;
		Ok(u64::try_from(share).unwrap_or(amount_sat))
	}

	pub(crate) fn check(&self) -> Result<(), PayoutError> {
		let Self { creditor, cause, amount_sat, node_share_sat, terms, .. } = self;
		let length = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
		PayoutError::range("creditor", length(creditor.len()), 1, length(MAX_CREDITOR_BYTES))?;
		PayoutError::range("cause", length(cause.len()), 0, length(MAX_CAUSE_BYTES))?;
		PayoutError::range("amount", *amount_sat, 1, MAX_AMOUNT_SAT)?;
		PayoutError::range("node share", *node_share_sat, 0, *amount_sat)?;
		PayoutError::range("budget", terms.budget.into(), 1, MAX_BUDGET.into())?;
		for (what, duration) in [("window", terms.window), ("cadence", terms.cadence)] {
			let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
			PayoutError::range(what, millis, 1, u64::MAX / 4)?;
		}
		let share_sat = amount_sat - node_share_sat;
		if share_sat > 0 {
			// Out is never more than in.
			PayoutError::range("fee cap", terms.fee_cap_msat, 0, node_share_sat * 1000)?;
		}
		Ok(())
	}
}

impl From<EventId> for DebtId {
	fn from(id: EventId) -> Self {
		Self(*id.as_bytes())
	}
}

impl std::str::FromStr for DebtId {
	type Err = leyden_id::ParseError;

	fn from_str(text: &str) -> Result<Self, Self::Err> {
		text.parse::<EventId>().map(Self::from)
	}
}

impl fmt::Display for DebtId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
	}
}

impl fmt::Debug for DebtId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "DebtId({self})")
	}
}

impl fmt::Debug for AttemptId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("AttemptId(")?;
		self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
		f.write_str(")")
	}
}

/// Creditors may be people.
impl fmt::Debug for NewDebt {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { id, amount_sat, node_share_sat, .. } = self;
		write!(f, "NewDebt({id}, {amount_sat} sat of which the node keeps {node_share_sat})")
	}
}
