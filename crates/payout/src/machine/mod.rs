// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The state machine of a debt. Every decision is a pure function from what is known to a [`Step`]:
//! [`on_due`] when a debt is looked at, [`on_answer`] when the node has answered, [`on_outcome`] when the
//! node says by itself how a payment ended, and those of `requests` for what payees and operators want.
//! [`Payouts`](crate::Payouts) alone writes steps down.

mod answer;
mod due;
mod end;
mod outcome;
mod requests;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use leyden_store::{Stamp, Times, Timestamp};

pub(crate) use answer::on_answer;
pub(crate) use due::on_due;
pub(crate) use outcome::{on_outcome, MAX_BEYOND};
pub(crate) use requests::{
	on_declared_failed, on_invoice, on_proof, on_reminder_delivered, on_vouched,
};

use crate::error::PayoutError;
use crate::ids::DebtId;
use crate::notice::News;
use crate::payer::{
	AttemptStatus, KnownPayments, NodeMemory, NodeToken, PayOrder, PayReply, SettleReply,
};
use crate::records::{AttemptV1, DebtV1, LiveV1, StateV1, VerdictV1};

/// A debt with attempts to pay it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
	pub(crate) id: &'a DebtId,
	pub(crate) debt: &'a DebtV1,
	/// The attempts, in order. `on_due` needs the one that is live and the one that has paid.
	pub(crate) attempts: &'a [(u32, AttemptV1)],
}

/// Facts that are in no record of the debt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
	pub(crate) times: Times,
	/// The running time since which debts were looked after without a gap.
	pub(crate) awake_since: Timestamp,
	/// `true` while payouts are frozen.
	pub(crate) is_frozen: bool,
	/// The attempts that the node knows of were compared with the store in this process.
	pub(crate) is_compared: bool,
	/// The node has said in this process which attempts it knows, whether that proves anything or not.
	pub(crate) is_listed: bool,
	/// The store is known to be the newest copy of itself.
	pub(crate) is_newest: bool,
	/// An operator has vouched for this debt in this process.
	pub(crate) is_vouched: bool,
	/// The worker that decides.
	pub(crate) owner: u64,
	pub(crate) pauses: Pauses,
}

/// Settings of [`PayoutOptions`](crate::PayoutOptions) that decisions depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
	pub(crate) call_timeout: Duration,
	pub(crate) poll_interval: Duration,
	pub(crate) retry_pause: Duration,
	pub(crate) longest_pause: Duration,
}

/// A question to the node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask {
	SettleHeld([u8; 32]),
	/// The attempts that the node knows of.
	Compare,
	/// The payments of this hash, for a node that knows payments by their hash alone.
	CompareHash(PayOrder),
	Prepare(PayOrder),
	Pay(PayOrder),
	Look(PayOrder),
}

/// An answer of the node; `None` for none in time.
#[derive(Debug)]
pub(crate) enum Answer {
	Settle(Option<SettleReply>),
	Compare(Option<KnownPayments>),
	CompareHash(Option<AttemptStatus>),
	/// The attempt that the token is for, its payment hash, and the token.
	Prepare(u32, [u8; 32], Option<NodeToken>),
	Pay(u32, Option<PayReply>),
	Look(u32, Option<AttemptStatus>),
}

/// A decision: changes that are one commit, and what the node is asked once they are durable.
#[derive(Default)]
pub(crate) struct Step {
	pub(crate) debt: Option<DebtV1>,
	pub(crate) attempt: Option<AttemptChange>,
	pub(crate) hash: Option<HashChange>,
	/// The reason for which payouts are frozen from now on.
	pub(crate) freeze: Option<String>,
	pub(crate) note: Option<String>,
	pub(crate) news: Option<News>,
	pub(crate) ask: Option<Ask>,
	/// The question may be left out for now: the rest of the step does not wait for room.
	pub(crate) is_besides: bool,
	/// The attempts that the node knows of are known to the store.
	pub(crate) is_compared: bool,
	/// The node has said which attempts it knows.
	pub(crate) is_listed: bool,
	/// An operator is told, once in this process.
	pub(crate) tell: Option<PayoutError>,
}

/// An attempt that is written.
pub(crate) struct AttemptChange {
	pub(crate) number: u32,
	pub(crate) record: AttemptV1,
	/// `true` if there is no attempt of this number yet.
	pub(crate) is_new: bool,
}

/// A payment hash that pays this debt from now on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HashChange {
	/// A hash that was given for no debt before.
	Take([u8; 32]),
	/// A hash that the node names; it may be known as this debt's. If it is another debt's, payouts are
	/// frozen.
	Adopt([u8; 32]),
}

impl Step {
	pub(crate) fn ask(ask: Ask) -> Self {
		Self { ask: Some(ask), ..Self::default() }
	}

	pub(crate) fn debt(debt: DebtV1) -> Self {
		Self { debt: Some(debt), ..Self::default() }
	}

	pub(crate) fn note(self, note: impl Into<String>) -> Self {
		Self { note: Some(note.into()), ..self }
	}

	pub(crate) fn news(self, news: News) -> Self {
		Self { news: Some(news), ..self }
	}

	/// Returns `true` if the step changes nothing in the store.
	pub(crate) fn writes_nothing(&self) -> bool {
		self.debt.is_none() && self.attempt.is_none() && self.freeze.is_none()
	}
}

impl Facts {
	/// The time of the wall clock, for what others have dated.
	fn clock(&self) -> Timestamp {
		self.times.wall
	}

	/// The time for what is done again.
	fn now(&self) -> Timestamp {
		self.times.running
	}

	/// The longest time that may have passed.
	fn at_most_since(&self, then: Stamp, running: Timestamp) -> Duration {
		let wall = self.times.wall.since(then.wall);
		let steady = self.times.steady.since(then.steady);
		wall.max(steady).max(self.times.running.since(running))
	}

	/// Returns `true` if this store is known to have everything that was ever written down of this debt.
	fn is_complete(&self) -> bool {
		self.is_newest || self.is_vouched
	}

	/// Returns `true` if a node with this memory would have a record of what began then.
	fn would_know(&self, memory: NodeMemory, began: (Stamp, Timestamp)) -> bool {
		match memory {
			NodeMemory::Forever => true,
			NodeMemory::AtLeast(time) => self.at_most_since(began.0, began.1) < time,
			NodeMemory::WithStore => self.is_complete(),
			NodeMemory::Unknown => false,
		}
	}

	fn live(&self, number: u32) -> LiveV1 {
		let lease = self.now().after(self.pauses.call_timeout * 2);
		LiveV1 { number, owner: self.owner, lease }
	}

	/// Returns `true` if the order to the node is so old that nothing of it comes any more.
	fn is_long_since(&self, ordered: Stamp) -> bool {
		self.times.age(ordered) >= self.pauses.call_timeout * 4
	}

	fn again(&self) -> Timestamp {
		self.now().after(self.pauses.poll_interval)
	}
}

impl View<'_> {
	fn order(&self, number: u32, attempt: &AttemptV1) -> PayOrder {
		PayOrder {
			debt: *self.id,
			attempt: self.id.attempt(number),
			number,
			invoice: attempt.invoice.clone(),
			payment_hash: attempt.payment_hash,
			amount_msat: attempt.amount_msat,
			fee_cap_msat: attempt.fee_cap_msat,
			token: attempt.token.clone(),
		}
	}

	/// The order of the next attempt; `None` without an invoice.
	fn next_order(&self) -> Option<PayOrder> {
		let invoice = self.debt.invoice.as_ref()?;
		let number = self.debt.attempts.saturating_add(1);
		Some(PayOrder {
			debt: *self.id,
			attempt: self.id.attempt(number),
			number,
			invoice: invoice.text.clone(),
			payment_hash: invoice.payment_hash,
			amount_msat: self.debt.share_msat(),
			fee_cap_msat: self.debt.fee_cap_msat,
			token: NodeToken::default(),
		})
	}

	fn attempt(&self, number: u32) -> Option<&AttemptV1> {
		self.attempts.iter().find(|(n, _)| *n == number).map(|(_, attempt)| attempt)
	}

	/// The attempt that is live.
	fn live(&self) -> Option<(u32, &AttemptV1)> {
		let number = self.debt.live?.number;
		Some((number, self.attempt(number)?))
	}

	/// The preimage of an attempt that has paid, other than this one.
	fn paid_by_another(&self, number: u32) -> Option<[u8; 32]> {
		let others = self.attempts.iter().filter(|(n, _)| *n != number);
		others.filter_map(|(_, attempt)| attempt.verdict.settled()).map(|(p, _)| p).next()
	}

	/// The end of the debt, if an attempt has paid and none is under way.
	fn paid_already(&self, facts: &Facts) -> Option<Step> {
		if self.debt.live.is_some() {
			return None;
		}
		let (_, attempt) = self.attempts.iter().find(|(_, a)| a.verdict.settled().is_some())?;
		let preimage = attempt.verdict.settled().map(|(preimage, _)| preimage);
		let closed = self.closed(StateV1::Paid, facts);
		Some(Step::debt(closed).note("an attempt has paid it").news(News::Paid { preimage }))
	}

	/// The debt, closed.
	fn closed(&self, state: StateV1, facts: &Facts) -> DebtV1 {
		DebtV1 {
			state,
			live: None,
			paid_by: None,
			is_unproven: false,
			due: None,
			closed_at: Some(facts.now()),
			..self.debt.clone()
		}
	}

	/// Looks at the debt again at this time.
	fn wait(&self, until: Timestamp) -> Step {
		if self.debt.due == Some(until) {
			return Step::default();
		}
		Step::debt(DebtV1 { due: Some(until), ..self.debt.clone() })
	}

	/// Writes down that an attempt has paid: the proof, the cost and the end of the debt.
	fn paid(
		&self, number: u32, attempt: &AttemptV1, paid: ([u8; 32], Option<u64>), facts: &Facts,
	) -> Step {
		let (preimage, fee_msat) = paid;
		if !attempt.is_paid_by(&preimage) {
			return self.wrong_preimage(number, facts);
		}
		let mut step = Step::debt(self.closed(StateV1::Paid, facts))
			.note(format!("attempt {number} paid it"))
			.news(News::Paid { preimage: Some(preimage) });
		step.freeze = match () {
			() if self.paid_by_another(number).is_some() => {
				Some(format!("debt {} was paid more than once", self.id))
			},
			// The money is gone; nothing else is sent before an operator has looked.
			() if fee_msat.is_some_and(|fee_msat| fee_msat > attempt.fee_cap_msat) => {
				Some(format!("attempt {number} of debt {} cost more than it may", self.id))
			},
			() => None,
		};
		let verdict = VerdictV1::Settled { preimage, fee_msat };
		let record = AttemptV1 { verdict, ended_at: Some(facts.now()), ..attempt.clone() };
		step.attempt = Some(AttemptChange { number, record, is_new: false });
		step
	}

	/// Freezes payouts over a preimage of something else, which proves nothing: something is wrong with the
	/// node.
	fn wrong_preimage(&self, number: u32, facts: &Facts) -> Step {
		let reason =
			format!("the node gives a wrong preimage for attempt {number} of debt {}", self.id);
		let mut step = match self.debt.state.is_over() {
			true => Step::default(),
			false => self.wait(facts.again()),
		};
		step.freeze = Some(reason);
		step
	}
}

impl AttemptV1 {
	pub(crate) fn is_paid_by(&self, preimage: &[u8; 32]) -> bool {
		sha256::Hash::hash(preimage).to_byte_array() == self.payment_hash
	}
}
