// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! The law: what becomes of a splice, given what LDK shows of its channel.
//!
//! One pure function decides at the start, after a failure, after a lock, when a peer is back:
//! whatever happened, LDK is looked at first, and what it shows counts for more than what somebody
//! said. So the order of events does no harm, and an old event that LDK brings again says nothing.
//!
//! The rows have the numbers of the table in `docs/splices.md`.

use bitcoin::{OutPoint, Txid};
use leyden_store::Timestamp;

use crate::probe::{ChannelView, Fate, InputStatus, NewFunding, Probe, Stage};
use crate::reason::{FailureReason, Remedy};
use crate::splice::{Bump, Splice, SpliceState};

/// Rounds that may fail before a splice is given up.
pub const MAX_FAILURES: u32 = 3;

/// Why a splice is looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trigger {
	/// The start, a reconnected peer, a new block, or anything else.
	Look,
	/// LDK says by an event that a round failed.
	Failed(FailureReason),
	/// LDK has just refused what was handed in.
	Refused(FailureReason),
}

impl Trigger {
	/// Returns the failure to act on. An event about a refusal is none: what was refused was acted
	/// on when it was handed in. LDK 0.3.0-rc3 sends no such event; its `main` and 0.3.0-beta1 do.
	fn failure(&self, splice: &Splice) -> Option<&FailureReason> {
		match self {
			Self::Look => None,
			Self::Failed(reason) if splice.is_refusal_known(reason) => None,
			Self::Failed(reason) | Self::Refused(reason) => Some(reason),
		}
	}

	/// Returns whether `reason` uses up one of the rounds that may fail. A round that LDK says
	/// nothing of but that the peer was away is no failure, unless it was handed over in this
	/// process run.
	fn counts(&self, splice: &Splice, reason: &FailureReason) -> bool {
		let is_refusal = matches!(self, Self::Refused(_));
		is_refusal || splice.handed || reason.remedy() != Remedy::Resubmit
	}

	/// Returns the remedy. What was refused is not handed in as it is at once: the answer would be
	/// the same.
	fn remedy(&self, splice: &Splice, reason: &FailureReason) -> Remedy {
		match (self, remedy(splice, reason)) {
			(Self::Refused(_), Remedy::Resubmit) => Remedy::Rebuild,
			(_, remedy) => remedy,
		}
	}
}

/// What is to be done with a splice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
	/// Nothing: LDK has it, in this stage.
	Keep(Stage),
	/// Nothing now: an earlier splice of the channel goes first.
	Wait,
	/// Nothing: the channel is gone, and the chain has not decided.
	Await,
	/// Hand the contribution to LDK.
	Submit {
		/// Whether a failure is to be counted first, and of what.
		after: Option<FailureReason>,
	},
	/// Build the contribution from what the user asked for, and hand it to LDK.
	Rebuild {
		/// Whether a failure is to be counted first, and of what.
		after: Option<FailureReason>,
	},
	/// Hand the contribution with the higher fee to LDK.
	SubmitBump {
		/// Whether a failure is to be counted first, and of what.
		after: Option<FailureReason>,
	},
	/// Build the contribution with the higher fee anew, and hand it to LDK.
	RebuildBump {
		/// What is to be counted first.
		after: FailureReason,
	},
	/// The higher fee is negotiated.
	BumpDone(Txid),
	/// Forget the higher fee, and tell the user. The splice goes on.
	DropBump {
		/// Why.
		reason: FailureReason,
		/// Whether this was a round that counts.
		counted: bool,
	},
	/// Forget the higher fee: LDK never had it, and the user was never told that it would run.
	ForgetBump,
	/// The channel has another funding: go on from there, and decide again.
	Reanchor(OutPoint),
	/// Take it back from LDK; then it has failed.
	Cancel(FailureReason),
	/// Take back from LDK what the caller was not told would run, or was told would not: the
	/// splice, or the higher fee of one that is broadcast. Then forget it.
	TakeBack,
	/// It funds the channel.
	Locked(Txid),
	/// It is over.
	Fail {
		/// Why.
		reason: FailureReason,
		/// Whether this was a round that counts.
		counted: bool,
		/// Whether its coins stay reserved, since its transaction may still be confirmed.
		keep_coins: bool,
	},
	/// Forget it: LDK never had it, and the user was never told that it would run.
	Drop,
}

/// Decides. Pure, and total: there is an answer to every probe and every splice that is not over.
/// `now` is the time that the splice was asked for, and its age.
pub fn decide(probe: &Probe, splice: &Splice, now: Timestamp, trigger: &Trigger) -> Decision {
	let Some(channel) = &probe.channel else {
		return decide_gone(probe, splice, now);
	};
	if channel.funding != splice.anchor {
		return decide_new_funding(probe, channel, splice);
	}
	let Some((round, part)) = splice.newest(&channel.rounds) else {
		return decide_absent(probe, channel, splice, now, trigger);
	};
	// Another round of a splice that is broadcast replaces its transaction: a higher fee of ours,
	// or the peer's splice with what we bring. If that round fails, the splice has not failed.
	let is_broadcast = splice.state == SpliceState::Negotiated;
	match round.stage {
		stage if splice.is_unanswered(stage.txid().as_ref()) && !is_negotiated(stage) => {
			Decision::TakeBack
		},
		// Row 3.
		stage if stage.txid().is_none() && channel.closing => match (is_broadcast, &splice.bump) {
			(false, _) => fail(FailureReason::ChannelClosing, false),
			(true, Some(_)) => drop_bump(FailureReason::ChannelClosing),
			(true, None) => Decision::Keep(stage),
		},
		// Row 8. A round that replaces what is broadcast, too.
		Stage::Negotiating => match splice.canceling && !is_broadcast {
			true => Decision::Cancel(FailureReason::LocallyCanceled),
			false => Decision::Keep(round.stage),
		},
		Stage::Queued | Stage::BehindLock => {
			if splice.canceling && !is_broadcast {
				Decision::Cancel(FailureReason::LocallyCanceled)
			} else if now >= splice.expires_at && !is_broadcast {
				Decision::Cancel(FailureReason::TooOld)
			} else {
				Decision::Keep(round.stage)
			}
		},
		Stage::Signing(_) if splice.canceling && !is_broadcast => {
			Decision::Cancel(FailureReason::LocallyCanceled)
		},
		// Rows 9 and 10.
		// Of a bump, too: what is not signed by both may still fail.
		Stage::Signing(_) => Decision::Keep(round.stage),
		Stage::Negotiated(txid) => match &splice.bump {
			Some(bump) if part.sat_per_kw >= bump.contribution.sat_per_kw => {
				Decision::BumpDone(txid)
			},
			Some(bump) => decide_bump(probe, channel, bump, now, splice, trigger),
			None => Decision::Keep(round.stage),
		},
	}
}

/// Rows 1 and 2: the channel is gone. What was signed may fund it all the same, and pay what it was
/// to pay: the chain decides, and until then the user is told nothing.
fn decide_gone(probe: &Probe, splice: &Splice, now: Timestamp) -> Decision {
	if splice.txids.is_empty() {
		return fail(FailureReason::ChannelClosed, false);
	}
	match probe.fate {
		Fate::Funded(txid) => Decision::Locked(txid),
		Fate::Lost => fail(FailureReason::ChannelClosed, false),
		Fate::Unknown if now >= splice.expires_at => fail(FailureReason::OutcomeUnknown, true),
		Fate::Open | Fate::Unknown => Decision::Await,
	}
}

/// Rows 4 to 7: the channel has another funding than the splice was to spend.
fn decide_new_funding(probe: &Probe, channel: &ChannelView, splice: &Splice) -> Decision {
	let txid = channel.funding.txid;
	if splice.txids.contains(&txid) {
		return Decision::Locked(txid);
	}
	if splice.newest(&channel.rounds).is_some() {
		return Decision::Reanchor(channel.funding);
	}
	if splice.contribution.is_none() {
		// LDK never had it.
		return Decision::Reanchor(channel.funding);
	}
	match probe.new_funding {
		NewFunding::IsTheSplice(txid) => Decision::Locked(txid),
		NewFunding::IsNot => Decision::Reanchor(channel.funding),
		NewFunding::Unknown => fail(FailureReason::OutcomeUnknown, !splice.txids.is_empty()),
	}
}

/// Rows 3 and 11 to 14: LDK shows nothing of it.
fn decide_absent(
	probe: &Probe, channel: &ChannelView, splice: &Splice, now: Timestamp, trigger: &Trigger,
) -> Decision {
	if splice.state == SpliceState::Tentative {
		return Decision::Drop;
	}
	if splice.bump.is_some() {
		return drop_bump(FailureReason::NothingToBump);
	}
	if splice.state == SpliceState::Negotiated {
		// It was broadcast and may be confirmed. Nothing that LDK does leads here.
		return fail(FailureReason::OutcomeUnknown, true);
	}
	if channel.closing {
		return fail(FailureReason::ChannelClosing, false);
	}
	if splice.canceling {
		return fail(FailureReason::LocallyCanceled, false);
	}
	if now >= splice.expires_at {
		return fail(FailureReason::TooOld, false);
	}
	if let Some(reason) = trigger.failure(splice) {
		let counted = trigger.counts(splice, reason).then(|| reason.clone());
		let last = counted.is_some() && splice.failures + 1 >= MAX_FAILURES;
		let remedy = trigger.remedy(splice, reason);
		if last || remedy == Remedy::GiveUp {
			let (reason, counted) = (reason.clone(), counted.is_some());
			return Decision::Fail { reason, counted, keep_coins: false };
		}
		match remedy {
			Remedy::GiveUp => {},
			Remedy::Rebuild => return Decision::Rebuild { after: counted },
			Remedy::Resubmit => return submit(probe, splice, counted),
		}
	}
	if !probe.its_turn {
		return Decision::Wait;
	}
	submit(probe, splice, None)
}

/// Decides row 12: the same again, if its inputs can be spent. A splice-out has inputs only if a
/// higher fee brought them.
fn submit(probe: &Probe, splice: &Splice, after: Option<FailureReason>) -> Decision {
	match (&splice.contribution, probe.coins) {
		(Some(_), InputStatus::Unspent) => Decision::Submit { after },
		_ => Decision::Rebuild { after },
	}
}

fn is_negotiated(stage: Stage) -> bool {
	matches!(stage, Stage::Negotiated(_))
}

/// Row 10: a cheaper round of ours is there, and a higher fee is wanted.
fn decide_bump(
	probe: &Probe, channel: &ChannelView, bump: &Bump, now: Timestamp, splice: &Splice,
	trigger: &Trigger,
) -> Decision {
	if !bump.accepted {
		// The node died while it was handed over, and the caller was told nothing; or the store
		// failed, and the caller was told that.
		return Decision::ForgetBump;
	}
	if channel.decided {
		return drop_bump(FailureReason::CannotInitiateRbf);
	}
	if channel.closing {
		return drop_bump(FailureReason::ChannelClosing);
	}
	if splice.canceling {
		return drop_bump(FailureReason::LocallyCanceled);
	}
	if now >= splice.expires_at {
		return drop_bump(FailureReason::TooOld);
	}
	let Some(reason) = trigger.failure(splice) else {
		return match probe.coins {
			InputStatus::Unspent => Decision::SubmitBump { after: None },
			InputStatus::Spent if bump.failures + 1 >= MAX_FAILURES => {
				Decision::DropBump { reason: FailureReason::InputsSpent, counted: true }
			},
			InputStatus::Spent => Decision::RebuildBump { after: FailureReason::InputsSpent },
		};
	};
	let counted = trigger.counts(splice, reason).then(|| reason.clone());
	if counted.is_some() && bump.failures + 1 >= MAX_FAILURES {
		return Decision::DropBump { reason: reason.clone(), counted: true };
	}
	match trigger.remedy(splice, reason) {
		Remedy::GiveUp => Decision::DropBump { reason: reason.clone(), counted: counted.is_some() },
		Remedy::Rebuild => Decision::RebuildBump { after: reason.clone() },
		Remedy::Resubmit => Decision::SubmitBump { after: counted },
	}
}

/// A peer that lost its half of a complete transaction, by a disconnect or a restart, aborts it
/// when it is back, as LDK does. It had agreed to everything, so that is no refusal; if it is one
/// after all, the budget ends it.
fn remedy(splice: &Splice, reason: &FailureReason) -> Remedy {
	match reason {
		FailureReason::CounterpartyAborted { .. } if splice.signing => Remedy::Resubmit,
		reason => reason.remedy(),
	}
}

fn fail(reason: FailureReason, keep_coins: bool) -> Decision {
	Decision::Fail { reason, counted: false, keep_coins }
}

fn drop_bump(reason: FailureReason) -> Decision {
	Decision::DropBump { reason, counted: false }
}

#[cfg(test)]
mod tests;
