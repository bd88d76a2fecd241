// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Pays debts with LDK: see [`LdkPayer`].
//!
//! An attempt's name is LDK's `PaymentId`, so LDK takes no attempt twice while it knows it, and what it
//! knows of a debt is found by name. How a payment ended is not asked of LDK, which forgets, but learned
//! from its events ([`LdkPayer::outcome`], [`Payouts::learn`](leyden_payout::Payouts::learn)), in one
//! commit with their ack.
//!
//! That LDK has no record of a payment proves something only if no event of it is still to be handled.
//! LDK does not say what it has yet to give out. So whoever makes the payer counts how often everything
//! that there was has been handled, and a payment is known not to be only when it was missing before such
//! a round and is missing after it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;

use leyden_payout::{AttemptId, DebtId, Held, Lookup, Made, NotSent, PayOrder, Payer, Reply, Sent};
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::events::Event;
use lightning::ln::channelmanager::{
	AChannelManager, OptionalBolt11PaymentParams, PaymentId, RecentPaymentDetails,
};
use lightning::ln::outbound_payment::{Bolt11PaymentError, Retry, RetryableSendFailure};
use lightning::routing::router::RouteParametersConfig;
use lightning::types::payment::PaymentPreimage;

use parking_lot::Mutex;

use crate::{HtlcResolution, HtlcResolutions};

/// Most attempts of a debt that LDK is searched for.
const MAX_SEARCHED: u32 = 1_000;
/// Most attempts that are remembered as missing.
const MAX_MISSING: usize = 100_000;

/// What the caller knows of a payment that is held.
#[derive(Clone, Copy)]
pub enum HeldPayment {
	/// It is held, and this claims it.
	Holding(PaymentPreimage),
	/// `PaymentClaimed` was handled: it is ours.
	Claimed,
	/// Neither.
	Unknown,
}

/// Pays debts with a `ChannelManager`. Make one for the life of the manager: it remembers which attempts
/// it has missed, and one that is new each time never knows that there was none.
pub struct LdkPayer<M, F, P> {
	manager: M,
	claims: Option<(HtlcResolutions, P)>,
	rounds: F,
	retry: Retry,
	/// Attempts that LDK does not list, and in which round that was seen first.
	missing: Mutex<HashMap<[u8; 32], u64>>,
}

impl<M, F> LdkPayer<M, F, fn(&[u8; 32]) -> HeldPayment> {
	/// Pays with this manager. `rounds` says how often LDK's events were processed until there were none
	/// and everything in the log was acked, [`learn`](leyden_payout::Payouts::learn) joined to it: count it
	/// up after each such round.
	pub fn new(manager: M, rounds: F) -> Self {
		let (claims, missing) = (None, Mutex::default());
		Self { manager, claims, rounds, retry: Retry::Attempts(0), missing }
	}
}

impl<M, F, P> LdkPayer<M, F, P> {
	/// Takes money that is held, with what `held` knows of a payment hash, and through these claims, so
	/// that a claim that was begun is finished.
	pub fn taking<Q>(self, claims: HtlcResolutions, held: Q) -> LdkPayer<M, F, Q>
	where
		Q: Fn(&[u8; 32]) -> HeldPayment + Send + Sync,
	{
		let Self { manager, rounds, retry, missing, .. } = self;
		LdkPayer { manager, claims: Some((claims, held)), rounds, retry, missing }
	}

	/// Lets LDK try other routes by itself. It does not, unless set otherwise: each try is an attempt.
	#[must_use]
	pub fn with_retry(mut self, retry: Retry) -> Self {
		self.retry = retry;
		self
	}
}

impl<M, F, P> LdkPayer<M, F, P> {
	/// What an event says about a payment: its hash, the attempt, and how it ended.
	pub fn outcome(event: &Event) -> Option<([u8; 32], Option<AttemptId>, Lookup)> {
		match event {
			Event::PaymentSent {
				payment_id,
				payment_hash,
				payment_preimage,
				fee_paid_msat,
				..
			} => {
				let attempt = payment_id.map(|id| AttemptId::from_bytes(id.0));
				let fee_msat = fee_paid_msat.unwrap_or_default();
				let settled = Lookup::Settled { preimage: payment_preimage.0, fee_msat };
				Some((payment_hash.0, attempt, settled))
			},
			Event::PaymentFailed { payment_id, payment_hash, .. } => {
				let attempt = AttemptId::from_bytes(payment_id.0);
				Some((payment_hash.as_ref()?.0, Some(attempt), Lookup::Failed))
			},
			_ => None,
		}
	}
}

impl<M, F, P> LdkPayer<M, F, P>
where
	M: Deref,
	M::Target: AChannelManager,
{
	/// Whether LDK has a payment of this name that is not over.
	fn hash_of(&self, attempt: &AttemptId) -> Option<Option<[u8; 32]>> {
		let id = PaymentId(*attempt.as_bytes());
		let payments = self.manager.get_cm().list_recent_payments();
		payments.into_iter().find_map(|payment| match payment {
			RecentPaymentDetails::AwaitingInvoice { payment_id } => {
				(payment_id == id).then_some(None)
			},
			RecentPaymentDetails::Pending { payment_id, payment_hash, .. }
			| RecentPaymentDetails::Abandoned { payment_id, payment_hash, .. } => {
				(payment_id == id).then_some(Some(payment_hash.0))
			},
			RecentPaymentDetails::Fulfilled { payment_id, payment_hash, .. } => {
				(payment_id == id).then_some(payment_hash.map(|hash| hash.0))
			},
		})
	}
}

impl<M, F, P> Payer for LdkPayer<M, F, P>
where
	M: Deref + Send + Sync,
	M::Target: AChannelManager,
	F: Fn() -> u64 + Send + Sync,
	P: Fn(&[u8; 32]) -> HeldPayment + Send + Sync,
{
	/// Claims, and claims again after a crash. The money is in when `PaymentClaimed` was handled: until
	/// then it is "not yet".
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<Held> {
		let Some((claims, held)) = &self.claims else { return Reply::now(Held::NotYet) };
		Reply::now(match held(payment_hash) {
			HeldPayment::Claimed => Held::AlreadySettled,
			HeldPayment::Holding(preimage) => {
				// If it is not written down, it is at the next try.
				let claim = HtlcResolution::Claim { preimage, claim_deadline: None };
				let _ = claims.resolve(&&*self.manager, claim);
				Held::NotYet
			},
			HeldPayment::Unknown => Held::NotYet,
		})
	}

	/// LDK takes it, and forgets it if it dies before the manager is written: so it is never "accepted",
	/// and asked for until its event says how it ended.
	fn pay(&self, order: &PayOrder) -> Reply<Sent> {
		let Ok(invoice) = order.invoice.parse::<Bolt11Invoice>() else {
			return Reply::now(Sent::Not(NotSent::Refused));
		};
		let id = PaymentId(*order.attempt.as_bytes());
		let config =
			RouteParametersConfig::default().with_max_total_routing_fee_msat(order.fee_cap_msat);
		let params = OptionalBolt11PaymentParams {
			route_params_config: config,
			retry_strategy: self.retry,
			..Default::default()
		};
		let paid = self.manager.get_cm().pay_for_bolt11_invoice(&invoice, id, None, params);
		Reply::now(match paid {
			Ok(()) => Sent::Unknown,
			Err(Bolt11PaymentError::SendingFailed(RetryableSendFailure::DuplicatePayment)) => {
				Sent::Unknown
			},
			Err(Bolt11PaymentError::SendingFailed(RetryableSendFailure::PaymentExpired)) => {
				Sent::Not(NotSent::Expired)
			},
			Err(Bolt11PaymentError::SendingFailed(_)) => Sent::Not(NotSent::NoRoute),
			Err(Bolt11PaymentError::InvalidAmount) => Sent::Not(NotSent::Refused),
		})
	}

	/// What LDK still has is under way, until its event says how it ended.
	fn lookup(&self, order: &PayOrder) -> Reply<Lookup> {
		let (name, round) = (*order.attempt.as_bytes(), (self.rounds)());
		let is_listed = self.hash_of(&order.attempt).is_some();
		let mut missing = self.missing.lock();
		if is_listed {
			missing.remove(&name);
			return Reply::now(Lookup::InFlight);
		}
		// A round that has begun after it was seen to be missing has come to its end.
		let since = *missing.entry(name).or_insert(round);
		let would_know = round >= since.saturating_add(2);
		if would_know || missing.len() > MAX_MISSING {
			missing.remove(&name);
		}
		Reply::now(Lookup::NoRecord { would_know })
	}

	fn made(&self, debt: &DebtId) -> Reply<Made> {
		let payments = self.manager.get_cm().list_recent_payments();
		let known: Vec<_> = payments
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
		let of = |number: u32| {
			let attempt = debt.attempt(number);
			let found = known.iter().find(|(id, _)| id == attempt.as_bytes());
			found.map(|(_, hash)| (number, *hash))
		};
		Reply::now(Made::Payments((1..=MAX_SEARCHED).filter_map(of).collect()))
	}
}

/// Without the preimage.
impl fmt::Debug for HeldPayment {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Holding(_) => "Holding",
			Self::Claimed => "Claimed",
			Self::Unknown => "Unknown",
		})
	}
}

impl<M, F, P> fmt::Debug for LdkPayer<M, F, P> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("LdkPayer").field("retry", &self.retry).finish_non_exhaustive()
	}
}
