// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! [`LdkPayer`] pays debts with LDK.
//!
//! The name of an attempt is LDK's `PaymentId`, so LDK takes no attempt twice while it knows it, and what
//! it knows of a debt is found by name. How a payment ended is not asked of LDK, which forgets, but
//! recorded from its events ([`LdkPayer::outcome`],
//! [`Payouts::record_outcome`](leyden_payout::Payouts::record_outcome)), in one commit with their ack.
//!
//! That LDK has no record of a payment proves something only if no event of it is still to be handled,
//! and LDK does not say which events it has yet to give out. So [`ProcessingRounds`] counts how often
//! everything that there was has been handled, and a payment is known not to be only when it was missing
//! before such a round and is missing after it. Even that is no proof in an old copy of the store: see
//! [`NodeMemory::WithStore`]. And a payment that LDK took in this life of its manager is never known not to
//! be: if LDK lists it no more, its event says how it ended.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use leyden_log::{Consumer, LogError};
use leyden_payout::{
	AttemptId, AttemptStatus, DebtId, FailureReason, KnownPayment, KnownPayments, NodeMemory,
	PayOrder, PayReply, Payer, Reply, SettleReply,
};
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::events::{Event, PaymentFailureReason};
use lightning::ln::channelmanager::{
	AChannelManager, OptionalBolt11PaymentParams, PaymentId, RecentPaymentDetails,
};
use lightning::ln::outbound_payment::{Bolt11PaymentError, Retry, RetryableSendFailure};
use lightning::routing::router::RouteParametersConfig;
use lightning::types::payment::PaymentPreimage;

use parking_lot::Mutex;

use crate::{HtlcResolution, HtlcResolutions, Journal};

/// Most attempts of a debt that LDK is searched for.
const MAX_SEARCHED: u32 = 10_000;
/// Most attempts that are remembered as missing.
const MAX_MISSING: usize = 100_000;

/// The state of a payment that is held, as the caller knows it.
#[derive(Clone, Copy)]
pub enum HeldPayment {
	/// The payment is held.
	Holding {
		/// The preimage that claims it.
		preimage: PaymentPreimage,
		/// The height at which LDK fails the payment back, as `PaymentClaimable` said.
		claim_deadline: Option<u32>,
	},
	/// `PaymentClaimed` was handled: the money is the node's.
	Claimed,
	/// The payment was failed back, or its claim deadline has passed and it was not claimed: it never
	/// becomes the node's.
	Gone,
	/// None of these is known.
	Unknown,
}

/// The count of rounds in which every event of LDK's was handled. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct ProcessingRounds(Arc<Rounds>);

#[derive(Debug, Default)]
struct Rounds {
	count: AtomicU64,
	/// The events that the journal had refused when the last round ended.
	refused: AtomicU64,
}

impl ProcessingRounds {
	/// Makes a count; one for the life of a `ChannelManager`.
	pub fn new() -> Self {
		Self::default()
	}

	/// Counts a round, if the journal has refused no event since the last one, and the consumer that
	/// records outcomes has nothing left to ack. Returns whether the round counts.
	///
	/// It is called by the one loop that processes LDK's events, after LDK's `process_pending_events` has
	/// returned, or between two turns of LDK's background processor (in its `sleeper`). Another thread
	/// does not know whether LDK has events that it has not yet given out.
	///
	/// # Errors
	/// [`LogError`] if the log cannot be read; nothing is counted then.
	pub fn end_round(&self, journal: &Journal, consumer: &Consumer) -> Result<bool, LogError> {
		let refused = journal.refused();
		let is_refused = self.0.refused.swap(refused, Ordering::SeqCst) != refused;
		let is_done = consumer.lag()?.unacked == 0 && !is_refused;
		if is_done {
			self.0.count.fetch_add(1, Ordering::SeqCst);
		}
		Ok(is_done)
	}

	/// Returns the number of rounds.
	pub fn count(&self) -> u64 {
		self.0.count.load(Ordering::SeqCst)
	}
}

/// Pays debts with a `ChannelManager`. There is one for the life of the manager: it remembers which
/// attempts LDK took, and which it has missed. One that is new each time never knows that there was none.
pub struct LdkPayer<M, P> {
	manager: M,
	claims: Option<(HtlcResolutions, P)>,
	rounds: ProcessingRounds,
	retry: Retry,
	/// The lock is held while LDK is asked for its list and told to pay: nothing is paid in between.
	names: Mutex<Names>,
}

/// The names of attempts in the life of a manager.
#[derive(Default)]
struct Names {
	/// Attempts that LDK took, or has listed.
	taken: HashSet<[u8; 32]>,
	/// Attempts that LDK does not list, and the round in which that was seen first.
	missing: HashMap<[u8; 32], u64>,
}

impl<M> LdkPayer<M, fn(&[u8; 32]) -> HeldPayment> {
	/// Makes a payer that pays with this manager. `rounds` are counted while
	/// [`record_outcome`](leyden_payout::Payouts::record_outcome) is joined to the acks of events.
	pub fn new(manager: M, rounds: ProcessingRounds) -> Self {
		let (claims, names) = (None, Mutex::default());
		Self { manager, claims, rounds, retry: Retry::Attempts(0), names }
	}
}

impl<M, P> LdkPayer<M, P> {
	/// Settles payments that are held, with what `held` knows of a payment hash, and through these
	/// resolutions, so that a claim that was begun is finished.
	pub fn with_claims<Q>(self, claims: HtlcResolutions, held: Q) -> LdkPayer<M, Q>
	where
		Q: Fn(&[u8; 32]) -> HeldPayment + Send + Sync,
	{
		let Self { manager, rounds, retry, names, .. } = self;
		LdkPayer { manager, claims: Some((claims, held)), rounds, retry, names }
	}

	/// Lets LDK try other routes by itself. It does not, unless set otherwise: each try is an attempt.
	#[must_use]
	pub fn with_retry(mut self, retry: Retry) -> Self {
		self.retry = retry;
		self
	}
}

impl<M, P> LdkPayer<M, P> {
	/// Returns what an event says about a payment: its hash, the attempt, and how it ended.
	pub fn outcome(event: &Event) -> Option<([u8; 32], Option<AttemptId>, AttemptStatus)> {
		match event {
			Event::PaymentSent {
				payment_id,
				payment_hash,
				payment_preimage,
				fee_paid_msat,
				..
			} => {
				let attempt = payment_id.map(|id| AttemptId::from_bytes(id.0));
				let (preimage, fee_msat) = (payment_preimage.0, *fee_paid_msat);
				let settled = AttemptStatus::Settled { preimage, fee_msat };
				Some((payment_hash.0, attempt, settled))
			},
			Event::PaymentFailed { payment_id, payment_hash, reason } => {
				let attempt = AttemptId::from_bytes(payment_id.0);
				let failed = AttemptStatus::Failed(failure(*reason));
				Some((payment_hash.as_ref()?.0, Some(attempt), failed))
			},
			_ => None,
		}
	}
}

impl<M, P> LdkPayer<M, P>
where
	M: Deref,
	M::Target: AChannelManager,
{
	/// Whether LDK lists the payment of this name.
	fn is_listed(&self, attempt: &AttemptId) -> bool {
		let name = PaymentId(*attempt.as_bytes());
		let payments = self.manager.get_cm().list_recent_payments();
		payments.into_iter().any(|payment| match payment {
			RecentPaymentDetails::AwaitingInvoice { payment_id }
			| RecentPaymentDetails::Pending { payment_id, .. }
			| RecentPaymentDetails::Abandoned { payment_id, .. }
			| RecentPaymentDetails::Fulfilled { payment_id, .. } => payment_id == name,
		})
	}
}

impl<M, P> Payer for LdkPayer<M, P>
where
	M: Deref + Send + Sync,
	M::Target: AChannelManager,
	P: Fn(&[u8; 32]) -> HeldPayment + Send + Sync,
{
	/// Claims, and claims again after a crash. The money is in when `PaymentClaimed` was handled: until
	/// then it is "not yet". A payer [without claims](LdkPayer::with_claims) says that it never will.
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<SettleReply> {
		let Some((claims, held)) = &self.claims else { return Reply::ready(SettleReply::Unable) };
		Reply::ready(match held(payment_hash) {
			HeldPayment::Claimed => SettleReply::Settled,
			HeldPayment::Gone => SettleReply::Gone,
			HeldPayment::Holding { preimage, claim_deadline } => {
				// If it is not written down, it is at the next try.
				let claim = HtlcResolution::Claim { preimage, claim_deadline };
				let _ = claims.resolve(&&*self.manager, claim);
				SettleReply::NotYet
			},
			HeldPayment::Unknown => SettleReply::NotYet,
		})
	}

	/// LDK takes the payment, and forgets it if it dies before the manager is written: so the payment is
	/// never "accepted", and asked for until its event says how it ended. One that LDK has, or ever took, is
	/// not given to LDK again.
	fn pay(&self, order: &PayOrder) -> Reply<PayReply> {
		let Ok(invoice) = order.invoice.parse::<Bolt11Invoice>() else {
			return Reply::ready(PayReply::NotSent(FailureReason::Rejected));
		};
		let id = PaymentId(*order.attempt.as_bytes());
		let config =
			RouteParametersConfig::default().with_max_total_routing_fee_msat(order.fee_cap_msat);
		let params = OptionalBolt11PaymentParams {
			route_params_config: config,
			retry_strategy: self.retry,
			..Default::default()
		};
		let amount = invoice.amount_milli_satoshis().is_none().then_some(order.amount_msat);
		let name = *order.attempt.as_bytes();
		let mut names = self.names.lock();
		names.missing.remove(&name);
		if names.taken.contains(&name) || self.is_listed(&order.attempt) {
			names.taken.insert(name);
			return Reply::ready(PayReply::Unknown);
		}
		let paid = self.manager.get_cm().pay_for_bolt11_invoice(&invoice, id, amount, params);
		use {Bolt11PaymentError as Bolt11, RetryableSendFailure as Send};
		Reply::ready(match paid {
			Ok(()) | Err(Bolt11::SendingFailed(Send::DuplicatePayment)) => {
				names.taken.insert(name);
				PayReply::Unknown
			},
			Err(Bolt11::SendingFailed(Send::PaymentExpired)) => {
				PayReply::NotSent(FailureReason::Expired)
			},
			Err(Bolt11::SendingFailed(Send::RouteNotFound)) => {
				PayReply::NotSent(FailureReason::NoRoute)
			},
			Err(Bolt11::SendingFailed(Send::OnionPacketSizeExceeded) | Bolt11::InvalidAmount) => {
				PayReply::NotSent(FailureReason::Rejected)
			},
		})
	}

	/// What LDK still lists is under way, until its event says how it ended. What LDK took and lists no
	/// more has ended, and its event is still to come.
	fn lookup(&self, order: &PayOrder) -> Reply<AttemptStatus> {
		let (name, round) = (*order.attempt.as_bytes(), self.rounds.count());
		let mut names = self.names.lock();
		let is_listed = self.is_listed(&order.attempt);
		let Names { taken, missing } = &mut *names;
		if is_listed {
			missing.remove(&name);
			taken.insert(name);
			return Reply::ready(AttemptStatus::InFlight);
		}
		if taken.contains(&name) {
			return Reply::ready(AttemptStatus::NoRecord(NodeMemory::Unknown));
		}
		// A round that has begun after it was seen to be missing has come to its end.
		let since = *missing.entry(name).or_insert(round);
		let is_handled = round >= since.saturating_add(2);
		if is_handled || missing.len() > MAX_MISSING {
			missing.remove(&name);
		}
		Reply::ready(AttemptStatus::NoRecord(match is_handled {
			true => NodeMemory::WithStore,
			false => NodeMemory::Unknown,
		}))
	}

	/// LDK forgets a payment some minutes after its event was handled: what it does not list proves
	/// nothing by itself. What it lists has paid, or may.
	fn list_attempts(&self, debt: &DebtId) -> Reply<KnownPayments> {
		let mut names = self.names.lock();
		let payments = self.manager.get_cm().list_recent_payments();
		let mut known: HashMap<_, _> = payments
			.into_iter()
			.filter_map(|payment| match payment {
				RecentPaymentDetails::Pending { payment_id, payment_hash, .. }
				| RecentPaymentDetails::Abandoned { payment_id, payment_hash, .. } => {
					Some((payment_id.0, payment_hash.0))
				},
				RecentPaymentDetails::Fulfilled { payment_id, payment_hash, .. } => {
					Some((payment_id.0, payment_hash?.0))
				},
				RecentPaymentDetails::AwaitingInvoice { .. } => None,
			})
			.collect();
		let mut payments = Vec::new();
		for number in 1..=MAX_SEARCHED {
			if known.is_empty() {
				break;
			}
			let name = *debt.attempt(number).as_bytes();
			if let Some(payment_hash) = known.remove(&name) {
				names.taken.insert(name);
				payments.push(KnownPayment { number, payment_hash, may_pay: true });
			}
		}
		Reply::ready(KnownPayments::Listed { payments, memory: NodeMemory::WithStore })
	}
}

fn failure(reason: Option<PaymentFailureReason>) -> FailureReason {
	use PaymentFailureReason as Ldk;
	match reason {
		Some(Ldk::RecipientRejected | Ldk::UnknownRequiredFeatures) => FailureReason::Rejected,
		Some(Ldk::PaymentExpired) => FailureReason::Expired,
		Some(Ldk::RouteNotFound) => FailureReason::NoRoute,
		// LDK has tried the routes that it may: the recipient may be the reason.
		_ => FailureReason::Other,
	}
}

/// Without the preimage.
impl fmt::Debug for HeldPayment {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Holding { .. } => "Holding",
			Self::Claimed => "Claimed",
			Self::Gone => "Gone",
			Self::Unknown => "Unknown",
		})
	}
}

impl<M, P> fmt::Debug for LdkPayer<M, P> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("LdkPayer").field("retry", &self.retry).finish_non_exhaustive()
	}
}
