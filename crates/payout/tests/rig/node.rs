//! A node that pays as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_payout::*;
use leyden_store::Timestamp;

use super::invoices::preimage_of;

/// The answer of a node that is told to pay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
	/// Accepts, and settles at once.
	Settle,
	/// Accepts, and holds it until [`FakeNode::release`].
	Hold,
	/// Accepts, and fails.
	Fail,
	/// Says that it cannot.
	Not(FailureReason),
	/// Does as if it was accepted and settles, and the answer is lost.
	SettleSilently,
	/// Hears nothing, and gives no answer.
	Lost,
	/// Accepts, holds, and the answer is lost.
	HoldSilently,
}

#[derive(Clone, Debug)]
struct Payment {
	debt: DebtId,
	number: u32,
	hash: [u8; 32],
	/// The place among all payments of the node.
	index: u64,
	state: Held2,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held2 {
	InFlight,
	Settled,
	Failed,
}

/// A node. It outlives the process that tells it what to do.
#[derive(Clone, Default)]
pub struct FakeNode(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
	script: VecDeque<How>,
	payments: BTreeMap<[u8; 32], Payment>,
	/// Payments that it has forgotten. The money has gone out all the same.
	forgotten: Vec<Payment>,
	/// The number of times that the node was told to pay.
	told: u32,
	/// The amounts that it was told to pay.
	amounts: Vec<u64>,
	lookups: u32,
	/// `true` if the node answers nothing.
	down: bool,
	/// `true` if the node does not know whether it would know.
	forgetful: bool,
	/// The memory of the node, if that is not for ever.
	remembers: Option<NodeMemory>,
	/// The tokens that it was asked for.
	tokens: u32,
	settled_held: Vec<[u8; 32]>,
	/// Answers to `settle_held`, `AlreadySettled` and so on.
	held: VecDeque<SettleReply>,
	/// `true` if the node knows payments by hash only.
	by_hash: bool,
	/// The fee that the node takes for routing.
	fee_msat: u64,
	/// A preimage of something else.
	lies: bool,
	/// The delay of answers.
	slow: Option<Duration>,
	waiting: Vec<(Timestamp, Completer<PayReply>, PayReply)>,
	now: Timestamp,
}

impl FakeNode {
	pub fn then(&self, how: impl IntoIterator<Item = How>) {
		self.0.lock().unwrap().script.extend(how);
	}

	/// Returns what the node has to say by itself of each payment that is over: debt, attempt, hash, and how
	/// it ended.
	pub fn outcomes(&self) -> Vec<(DebtId, AttemptId, [u8; 32], AttemptStatus)> {
		let inside = self.0.lock().unwrap();
		let outcome = |payment: &Payment| {
			let status = match payment.state {
				Held2::InFlight => return None,
				Held2::Failed => AttemptStatus::Failed(FailureReason::Other),
				Held2::Settled => {
					let preimage = preimage_of(&payment.hash);
					AttemptStatus::Settled { preimage, fee_msat: Some(0) }
				},
			};
			Some((payment.debt, payment.debt.attempt(payment.number), payment.hash, status))
		};
		inside.payments.values().filter_map(outcome).collect()
	}

	/// Returns what the node would say by itself of a payment with this hash, of which it has heard how it
	/// ended.
	pub fn heard(&self, debt: &DebtId, number: u32, hash: &[u8; 32]) -> Option<AttemptStatus> {
		let inside = self.0.lock().unwrap();
		let payment = inside.payments.get(debt.attempt(number).as_bytes())?;
		match (payment.hash == *hash, payment.state) {
			(true, Held2::Settled) => {
				Some(AttemptStatus::Settled { preimage: preimage_of(hash), fee_msat: Some(0) })
			},
			(true, Held2::Failed) => Some(AttemptStatus::Failed(FailureReason::Other)),
			_ => None,
		}
	}

	pub fn clear(&self) {
		self.0.lock().unwrap().script.clear();
	}

	pub fn told(&self) -> u32 {
		self.0.lock().unwrap().told
	}

	pub fn amounts(&self) -> Vec<u64> {
		self.0.lock().unwrap().amounts.clone()
	}

	pub fn lookups(&self) -> u32 {
		self.0.lock().unwrap().lookups
	}

	pub fn set_down(&self, down: bool) {
		self.0.lock().unwrap().down = down;
	}

	pub fn set_forgetful(&self, forgetful: bool) {
		self.0.lock().unwrap().forgetful = forgetful;
	}

	pub fn set_memory(&self, memory: NodeMemory) {
		self.0.lock().unwrap().remembers = Some(memory);
	}

	/// Forgets every payment that is over.
	pub fn forget(&self) {
		let mut inside = self.0.lock().unwrap();
		let payments = std::mem::take(&mut inside.payments);
		for (name, payment) in payments {
			match payment.state {
				Held2::InFlight => drop(inside.payments.insert(name, payment)),
				_ => inside.forgotten.push(payment),
			}
		}
	}

	pub fn set_by_hash(&self, by_hash: bool) {
		self.0.lock().unwrap().by_hash = by_hash;
	}

	pub fn set_fee(&self, fee_msat: u64) {
		self.0.lock().unwrap().fee_msat = fee_msat;
	}

	pub fn set_lies(&self, lies: bool) {
		self.0.lock().unwrap().lies = lies;
	}

	pub fn set_slow(&self, slow: Duration) {
		self.0.lock().unwrap().slow = Some(slow);
	}

	pub fn held(&self, answers: impl IntoIterator<Item = SettleReply>) {
		self.0.lock().unwrap().held.extend(answers);
	}

	pub fn taken(&self) -> Vec<[u8; 32]> {
		self.0.lock().unwrap().settled_held.clone()
	}

	/// A payment that has failed, as the node said, has paid after all.
	pub fn revive(&self, debt: &DebtId) -> Option<(AttemptId, [u8; 32], AttemptStatus)> {
		let mut inside = self.0.lock().unwrap();
		let is_it = |p: &&mut Payment| p.debt == *debt && p.state == Held2::Failed && p.number > 0;
		let payment = inside.payments.values_mut().find(is_it)?;
		payment.state = Held2::Settled;
		let settled =
			AttemptStatus::Settled { preimage: preimage_of(&payment.hash), fee_msat: Some(0) };
		Some((debt.attempt(payment.number), payment.hash, settled))
	}

	/// An operator pays an invoice by hand, under a name that is no attempt's.
	pub fn pay_by_hand(&self, debt: &DebtId, hash: [u8; 32]) {
		let mut inside = self.0.lock().unwrap();
		let (index, state) = (inside.newest() + 1, Held2::Settled);
		let payment = Payment { debt: *debt, number: 0, hash, index, state };
		inside.payments.insert(foreign(&hash), payment);
	}

	/// Settles what the node holds, or fails it.
	pub fn release(&self, settled: bool) {
		for payment in self.0.lock().unwrap().payments.values_mut() {
			if payment.state == Held2::InFlight {
				payment.state = if settled { Held2::Settled } else { Held2::Failed };
			}
		}
	}

	/// Time passes for what is answered later.
	pub fn pass(&self, now: Timestamp) {
		let mut inside = self.0.lock().unwrap();
		inside.now = now;
		let waiting = std::mem::take(&mut inside.waiting);
		for (at, promise, sent) in waiting {
			match at <= now {
				true => promise.complete(sent),
				false => inside.waiting.push((at, promise, sent)),
			}
		}
	}

	/// The preimages that a payee has, who was paid.
	pub fn shown(&self, debt: &DebtId) -> Vec<[u8; 32]> {
		let inside = self.0.lock().unwrap();
		let is_it = |p: &&Payment| p.debt == *debt && p.state == Held2::Settled;
		let paid = inside.payments.values().chain(&inside.forgotten).filter(is_it);
		paid.map(|payment| preimage_of(&payment.hash)).collect()
	}

	/// Counts how often the money of a debt has really gone out.
	pub fn paid(&self, debt: &DebtId) -> usize {
		let inside = self.0.lock().unwrap();
		let is_it = |p: &&Payment| p.debt == *debt && p.state == Held2::Settled;
		inside.payments.values().chain(&inside.forgotten).filter(is_it).count()
	}

	/// Payments of a debt that are out or under way.
	pub fn out(&self, debt: &DebtId) -> usize {
		let inside = self.0.lock().unwrap();
		let is_it = |p: &&Payment| p.debt == *debt && p.state != Held2::Failed;
		inside.payments.values().chain(&inside.forgotten).filter(is_it).count()
	}
}

impl Inside {
	/// The index of the newest payment.
	fn newest(&self) -> u64 {
		let all = self.payments.values().chain(&self.forgotten);
		all.map(|payment| payment.index).max().unwrap_or_default()
	}

	fn memory(&self) -> NodeMemory {
		match self.forgetful {
			true => NodeMemory::Unknown,
			false => self.remembers.unwrap_or(NodeMemory::Forever),
		}
	}
}

impl Payer for FakeNode {
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<SettleReply> {
		let mut inside = self.0.lock().unwrap();
		if inside.down {
			return Reply::never();
		}
		let answer = inside.held.pop_front().unwrap_or(SettleReply::Settled);
		if answer != SettleReply::NotYet {
			inside.settled_held.push(*payment_hash);
		}
		Reply::ready(answer)
	}

	fn prepare(&self, _: &PayOrder) -> Reply<NodeToken> {
		let mut inside = self.0.lock().unwrap();
		inside.tokens += 1;
		match (inside.down, inside.by_hash) {
			(true, _) => Reply::never(),
			(false, false) => Reply::ready(NodeToken::default()),
			(false, true) => Reply::ready(NodeToken::new(inside.newest().to_be_bytes()).unwrap()),
		}
	}

	fn pay(&self, order: &PayOrder) -> Reply<PayReply> {
		let mut inside = self.0.lock().unwrap();
		if inside.down {
			return Reply::never();
		}
		inside.told += 1;
		inside.amounts.push(order.amount_msat);
		if inside.payments.contains_key(order.attempt.as_bytes()) {
			return Reply::ready(PayReply::Accepted);
		}
		let how = inside.script.pop_front().unwrap_or(How::Settle);
		let state = match how {
			How::Settle | How::SettleSilently => Held2::Settled,
			How::Hold | How::HoldSilently => Held2::InFlight,
			How::Fail => Held2::Failed,
			How::Not(why) => return Reply::ready(PayReply::NotSent(why)),
			How::Lost => return Reply::never(),
		};
		let index = inside.newest() + 1;
		let payment = Payment {
			debt: order.debt,
			number: order.number,
			hash: order.payment_hash,
			index,
			state,
		};
		inside.payments.insert(*order.attempt.as_bytes(), payment);
		if matches!(how, How::SettleSilently | How::HoldSilently) {
			return Reply::never();
		}
		if let Some(slow) = inside.slow {
			let (promise, reply) = Reply::pair();
			let at = inside.now.after(slow);
			inside.waiting.push((at, promise, PayReply::Accepted));
			return reply;
		}
		Reply::ready(PayReply::Accepted)
	}

	fn lookup(&self, order: &PayOrder) -> Reply<AttemptStatus> {
		let mut inside = self.0.lock().unwrap();
		inside.lookups += 1;
		if inside.down {
			return Reply::never();
		}
		let by_hash = inside.by_hash;
		let found = match by_hash {
			false => inside.payments.get(order.attempt.as_bytes()),
			// A payment with a higher index than the token says is of this attempt or of a later one.
			true => {
				let after = order.token.as_bytes().try_into().map_or(0, u64::from_be_bytes);
				let is_it = |p: &&Payment| p.hash == order.payment_hash && p.index > after;
				inside.payments.values().filter(is_it).max_by_key(|p| p.index)
			},
		};
		let memory = inside.memory();
		let lies = inside.lies;
		Reply::ready(match found.map(|payment| payment.state) {
			None => AttemptStatus::NoRecord(memory),
			Some(Held2::InFlight) => AttemptStatus::InFlight,
			Some(Held2::Failed) => AttemptStatus::Failed(FailureReason::Other),
			Some(Held2::Settled) => {
				let preimage = preimage_of(&order.payment_hash);
				let preimage = if lies { [9; 32] } else { preimage };
				AttemptStatus::Settled { preimage, fee_msat: Some(inside.fee_msat) }
			},
		})
	}

	fn list_attempts(&self, debt: &DebtId) -> Reply<KnownPayments> {
		let inside = self.0.lock().unwrap();
		if inside.down {
			return Reply::never();
		}
		if inside.by_hash {
			return Reply::ready(KnownPayments::ByHashOnly);
		}
		// One that was made by hand has no attempt's name.
		let is_its = |payment: &&Payment| payment.debt == *debt && payment.number > 0;
		let mine = inside.payments.values().filter(is_its);
		let known = |payment: &Payment| KnownPayment {
			number: payment.number,
			payment_hash: payment.hash,
			may_pay: payment.state != Held2::Failed,
		};
		let mut made: Vec<_> = mine.map(known).collect();
		made.sort_unstable_by_key(|known| known.number);
		Reply::ready(KnownPayments::Listed { payments: made, memory: inside.memory() })
	}
}

/// The name of a payment that was made by hand.
pub fn foreign(hash: &[u8; 32]) -> [u8; 32] {
	hash.map(|byte| !byte)
}
