// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Names of debts and of the attempts to pay them.

use std::fmt;

use leyden_id::{Domain, EventId, IdBuilder};

const DEBT: Domain = Domain::new("leyden/debt", 1);
const ATTEMPT: Domain = Domain::new("leyden/payout-attempt", 1);

/// The name of a debt: the same for the same cause, after any crash.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DebtId([u8; 32]);

/// The name of an attempt to pay a debt: the same for the same debt and number. A node that takes a name
/// of its caller's for a payment (LDK: `PaymentId`) is given this one, so that the payment is found again.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AttemptId([u8; 32]);

impl DebtId {
	/// Derives the name of the debt with this cause: an order, and what happened to it.
	pub fn new(cause: &str, about: &[u8]) -> Self {
		Self(*IdBuilder::new(DEBT, cause).bytes(about).finish().as_bytes())
	}

	/// Wraps a name that was made elsewhere.
	pub fn from_bytes(bytes: [u8; 32]) -> Self {
		Self(bytes)
	}

	/// Returns the bytes of the name.
	pub fn as_bytes(&self) -> &[u8; 32] {
		&self.0
	}

	/// Derives the name of an attempt; numbers begin with 1.
	pub fn attempt(&self, number: u32) -> AttemptId {
		let builder = IdBuilder::new(ATTEMPT, "attempt").bytes(&self.0);
		AttemptId(*builder.number(number.into()).finish().as_bytes())
	}
}

impl AttemptId {
	/// Wraps a name as a node has it.
	pub fn from_bytes(bytes: [u8; 32]) -> Self {
		Self(bytes)
	}

	/// Returns the bytes of the name.
	pub fn as_bytes(&self) -> &[u8; 32] {
		&self.0
	}
}

impl From<EventId> for DebtId {
	fn from(id: EventId) -> Self {
		Self(*id.as_bytes())
	}
}

impl fmt::Display for DebtId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}", EventId::from_bytes(self.0))
	}
}

impl fmt::Debug for DebtId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "DebtId({self})")
	}
}

impl std::str::FromStr for DebtId {
	type Err = leyden_id::ParseError;

	fn from_str(text: &str) -> Result<Self, Self::Err> {
		text.parse::<EventId>().map(Self::from)
	}
}

impl fmt::Display for AttemptId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}", EventId::from_bytes(self.0))
	}
}

impl fmt::Debug for AttemptId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "AttemptId({self})")
	}
}
