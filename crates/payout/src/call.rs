// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A call of the node that is under way.

use std::fmt;

use leyden_store::Timestamp;

use crate::ids::DebtId;
use crate::machine::{Answer, Ask};
use crate::payer::{AttemptStatus, KnownPayments, NodeToken, PayReply, Payer, SettleReply};
use crate::reply::Reply;

/// A call of the node, and the running time at which it began.
pub(crate) struct Call {
	pub(crate) since: Timestamp,
	asked: Asked,
}

enum Asked {
	Settle(Reply<SettleReply>),
	Compare(Reply<KnownPayments>),
	CompareHash(Reply<AttemptStatus>),
	Prepare(u32, [u8; 32], Reply<NodeToken>),
	Pay(u32, Reply<PayReply>),
	Look(u32, Reply<AttemptStatus>),
}

impl Call {
	/// Asks the node.
	pub(crate) fn new(payer: &dyn Payer, id: &DebtId, ask: &Ask, since: Timestamp) -> Self {
		let asked = match ask {
			Ask::SettleHeld(hash) => Asked::Settle(payer.settle_held(hash)),
			Ask::Compare => Asked::Compare(payer.list_attempts(id)),
			Ask::CompareHash(order) => Asked::CompareHash(payer.lookup(order)),
			Ask::Prepare(order) => {
				Asked::Prepare(order.number, order.payment_hash, payer.prepare(order))
			},
			Ask::Pay(order) => Asked::Pay(order.number, payer.pay(order)),
			Ask::Look(order) => Asked::Look(order.number, payer.lookup(order)),
		};
		Self { since, asked }
	}

	/// The answer, if it is there.
	pub(crate) fn poll(&self) -> Option<Answer> {
		Some(match &self.asked {
			Asked::Settle(reply) => Answer::Settle(Some(reply.take()?)),
			Asked::Compare(reply) => Answer::Compare(Some(reply.take()?)),
			Asked::CompareHash(reply) => Answer::CompareHash(Some(reply.take()?)),
			Asked::Prepare(n, hash, reply) => Answer::Prepare(*n, *hash, Some(reply.take()?)),
			Asked::Pay(n, reply) => Answer::Pay(*n, Some(reply.take()?)),
			Asked::Look(n, reply) => Answer::Look(*n, Some(reply.take()?)),
		})
	}

	/// The answer that none in time is.
	pub(crate) fn given_up(&self) -> Answer {
		match &self.asked {
			Asked::Settle(_) => Answer::Settle(None),
			Asked::Compare(_) => Answer::Compare(None),
			Asked::CompareHash(_) => Answer::CompareHash(None),
			Asked::Prepare(n, hash, _) => Answer::Prepare(*n, *hash, None),
			Asked::Pay(n, _) => Answer::Pay(*n, None),
			Asked::Look(n, _) => Answer::Look(*n, None),
		}
	}
}

impl fmt::Debug for Call {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Call(since {:?})", self.since)
	}
}
