//! A node that lists something else than it has.

use leyden_payout::*;

use super::FakeNode;

/// A node with another answer to the question which attempts it knows.
pub struct Listing<F> {
	pub node: FakeNode,
	pub list: F,
}

impl<F: Fn(&FakeNode, &DebtId) -> Reply<KnownPayments> + Send + Sync> Payer for Listing<F> {
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<SettleReply> {
		self.node.settle_held(payment_hash)
	}

	fn pay(&self, order: &PayOrder) -> Reply<PayReply> {
		self.node.pay(order)
	}

	fn lookup(&self, order: &PayOrder) -> Reply<AttemptStatus> {
		self.node.lookup(order)
	}

	fn list_attempts(&self, debt: &DebtId) -> Reply<KnownPayments> {
		(self.list)(&self.node, debt)
	}
}
