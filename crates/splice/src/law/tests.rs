// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! The law, row by row, and as a whole.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, TxOut};
use leyden_id::ChannelId;
use leyden_store::Stamp;

use super::*;
use crate::parts::{ChannelRef, Contribution, FeeBand, Material, SpliceId, SpliceKind};
use crate::probe::{OurPart, Round};

const NOW: Timestamp = Timestamp(1_000);
const LATE: Timestamp = Timestamp(9_999);

fn txid(n: u8) -> Txid {
	Txid::from_byte_array([n; 32])
}

fn coin(n: u8) -> OutPoint {
	OutPoint { txid: txid(n), vout: 0 }
}

const OLD: u8 = 1;
const NEW: u8 = 2;
/// A transaction of the splice.
const OWN: u8 = 3;

fn pays() -> TxOut {
	TxOut { value: Amount::from_sat(50_000), script_pubkey: ScriptBuf::from_bytes(vec![1]) }
}

fn contribution(sat_per_kw: u64) -> Contribution {
	Contribution { bytes: vec![1], material: Material::new([], [pays()]), sat_per_kw }
}

fn out(state: SpliceState) -> Splice {
	let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
	Splice {
		id: SpliceId::from_bytes([1; 32]),
		channel: ChannelRef {
			channel_id: ChannelId([2; 32]),
			user_channel_id: 1,
			counterparty: key.parse().unwrap(),
		},
		anchor: coin(OLD),
		kind: SpliceKind::Out { outputs: vec![pays()] },
		band: FeeBand { min_sat_per_kw: 253, max_sat_per_kw: 2_000 },
		state,
		contribution: Some(contribution(253)),
		bump: None,
		earlier: Vec::new(),
		txids: Vec::new(),
		inputs: Vec::new(),
		failures: 0,
		canceling: false,
		number: 1,
		asked: Stamp { wall: NOW, steady: NOW, followed_ms: 0 },
		expires_at: Timestamp(5_000),
		steps: Vec::new(),
		handed: false,
		signing: false,
	}
}

fn into(state: SpliceState) -> Splice {
	let mut splice = out(state);
	splice.kind = SpliceKind::In { amount_sat: 50_000 };
	let material = Material::new([coin(9)], []);
	splice.contribution = Some(Contribution { material, ..contribution(253) });
	splice
}

fn bumped(accepted: bool) -> Splice {
	let mut splice = out(SpliceState::Negotiated);
	splice.txids = vec![txid(OWN)];
	let band = splice.band;
	splice.bump = Some(Bump { contribution: contribution(1_000), band, accepted, failures: 0 });
	splice
}

fn round(splice: &Splice, stage: Stage, sat_per_kw: u64) -> Round {
	let material = splice.contribution.as_ref().unwrap().material.clone();
	Round { ours: Some(OurPart { material, sat_per_kw }), stage }
}

fn theirs(stage: Stage) -> Round {
	Round { ours: None, stage }
}

/// A channel with the funding that the splice spends.
fn shows(rounds: Vec<Round>) -> Probe {
	let channel = ChannelView { funding: coin(OLD), closing: false, rounds, decided: false };
	Probe {
		channel: Some(channel),
		coins: InputStatus::Unspent,
		new_funding: NewFunding::Unknown,
		fate: Fate::Open,
		its_turn: true,
	}
}

fn with_funding(mut probe: Probe, funding: u8, new_funding: NewFunding) -> Probe {
	probe.channel.as_mut().unwrap().funding = coin(funding);
	Probe { new_funding, ..probe }
}

fn closing(mut probe: Probe) -> Probe {
	probe.channel.as_mut().unwrap().closing = true;
	probe
}

fn look(probe: &Probe, splice: &Splice) -> Decision {
	decide(probe, splice, NOW, &Trigger::Look)
}

fn after(splice: &Splice, reason: FailureReason) -> Decision {
	decide(&shows(vec![]), splice, NOW, &Trigger::Failed(reason))
}

fn fails(reason: FailureReason) -> Decision {
	fail(reason, false)
}

use FailureReason as Why;
use SpliceState::{Accepted, Deferred, Negotiated, Signing, Tentative};

#[test]
fn row_1_the_channel_is_gone() {
	let gone = Probe { channel: None, ..shows(vec![]) };
	assert_eq!(look(&gone, &out(Accepted)), fails(Why::ChannelClosed));
}

#[test]
fn row_2_the_channel_is_gone_and_a_transaction_is_out() {
	let gone = |fate| Probe { channel: None, fate, ..shows(vec![]) };
	let mut splice = into(Negotiated);
	splice.txids = vec![txid(OWN)];
	assert_eq!(look(&gone(Fate::Open), &splice), Decision::Await);
	assert_eq!(look(&gone(Fate::Funded(txid(OWN))), &splice), Decision::Locked(txid(OWN)));
	assert_eq!(look(&gone(Fate::Lost), &splice), fails(Why::ChannelClosed));
	// Nobody is left who knows: then its age ends it.
	assert_eq!(look(&gone(Fate::Unknown), &splice), Decision::Await);
	let late = |fate| decide(&gone(fate), &splice, LATE, &Trigger::Look);
	assert_eq!(late(Fate::Unknown), fail(Why::OutcomeUnknown, true));
	assert_eq!(late(Fate::Open), Decision::Await);
}

#[test]
fn row_3_the_channel_is_closing() {
	let splice = out(Accepted);
	assert_eq!(look(&closing(shows(vec![])), &splice), fails(Why::ChannelClosing));
	let queued = closing(shows(vec![round(&splice, Stage::Queued, 253)]));
	assert_eq!(look(&queued, &splice), fails(Why::ChannelClosing));
	// What is broadcast may still be confirmed.
	let stage = Stage::Negotiated(txid(OWN));
	let out_there = closing(shows(vec![round(&splice, stage, 253)]));
	assert_eq!(look(&out_there, &splice), Decision::Keep(stage));
}

#[test]
fn row_4_our_transaction_funds_the_channel() {
	let mut splice = out(Negotiated);
	splice.txids = vec![txid(7), txid(OWN)];
	let locked = with_funding(shows(vec![]), OWN, NewFunding::Unknown);
	assert_eq!(look(&locked, &splice), Decision::Locked(txid(OWN)));
}

#[test]
fn row_5_another_funding_and_ldk_still_has_ours() {
	let splice = out(Accepted);
	let listed = shows(vec![round(&splice, Stage::Queued, 253)]);
	let listed = with_funding(listed, NEW, NewFunding::Unknown);
	assert_eq!(look(&listed, &splice), Decision::Reanchor(coin(NEW)));
}

#[test]
fn row_6_another_funding_and_nothing_of_ours() {
	let new = |known| with_funding(shows(vec![]), NEW, known);
	for splice in [out(Accepted), into(Accepted)] {
		let is = look(&new(NewFunding::IsTheSplice(txid(NEW))), &splice);
		assert_eq!(is, Decision::Locked(txid(NEW)));
		let is_not = look(&new(NewFunding::IsNot), &splice);
		assert_eq!(is_not, Decision::Reanchor(coin(NEW)));
		let unknown = look(&new(NewFunding::Unknown), &splice);
		assert_eq!(unknown, fails(Why::OutcomeUnknown), "it might be paid twice");
	}
	// LDK never had it.
	let mut waiting = out(Deferred);
	waiting.contribution = None;
	assert_eq!(look(&new(NewFunding::Unknown), &waiting), Decision::Reanchor(coin(NEW)));
}

#[test]
fn row_7_a_bump_ends_with_its_splice() {
	let locked = with_funding(shows(vec![]), OWN, NewFunding::Unknown);
	assert_eq!(look(&locked, &bumped(true)), Decision::Locked(txid(OWN)));
}

#[test]
fn row_8_ldk_has_it() {
	for state in [Accepted, Deferred] {
		let splice = out(state);
		for stage in [Stage::Queued, Stage::BehindLock, Stage::Negotiating] {
			// LDK has raised its fee rate; it is the same.
			let probe = shows(vec![theirs(Stage::Negotiated(txid(8))), round(&splice, stage, 278)]);
			assert_eq!(look(&probe, &splice), Decision::Keep(stage));
		}
	}
}

/// LDK has what the caller was not told would run.
#[test]
fn row_8_what_is_not_answered_is_taken_back() {
	let splice = out(Tentative);
	let bump = bumped(false);
	for stage in [Stage::Queued, Stage::BehindLock, Stage::Negotiating, Stage::Signing(txid(5))] {
		let probe = shows(vec![round(&splice, stage, 278)]);
		assert_eq!(look(&probe, &splice), Decision::TakeBack);
		let first = round(&bump, Stage::Negotiated(txid(OWN)), 253);
		let probe = shows(vec![first, round(&bump, stage, 1_000)]);
		assert_eq!(look(&probe, &bump), Decision::TakeBack);
		assert_eq!(look(&probe, &bumped(true)), Decision::Keep(stage));
	}
	// From a manager that was written before the splice was negotiated: that round goes on.
	let stage = Stage::Signing(txid(OWN));
	assert_eq!(look(&shows(vec![round(&bump, stage, 253)]), &bump), Decision::Keep(stage));
	// What is signed by both was answered.
	let stage = Stage::Negotiated(txid(OWN));
	let probe = shows(vec![round(&splice, stage, 253)]);
	assert_eq!(look(&probe, &splice), Decision::Keep(stage));
}

#[test]
fn row_9_it_has_a_transaction() {
	for stage in [Stage::Signing(txid(OWN)), Stage::Negotiated(txid(OWN))] {
		let splice = out(Accepted);
		let probe = shows(vec![round(&splice, stage, 253)]);
		assert_eq!(look(&probe, &splice), Decision::Keep(stage));
	}
	let splice = bumped(true);
	let stage = Stage::Negotiated(txid(5));
	let probe = shows(vec![
		round(&splice, Stage::Negotiated(txid(OWN)), 253),
		round(&splice, stage, 1_000),
	]);
	assert_eq!(look(&probe, &splice), Decision::BumpDone(txid(5)));
	// Signed by nobody yet.
	let stage = Stage::Signing(txid(5));
	let probe = shows(vec![round(&splice, stage, 1_000)]);
	assert_eq!(look(&probe, &splice), Decision::Keep(stage));
}

#[test]
fn row_10_a_cheaper_round_is_negotiated() {
	let splice = bumped(true);
	let mut probe = shows(vec![round(&splice, Stage::Negotiated(txid(OWN)), 253)]);
	assert_eq!(look(&probe, &splice), Decision::SubmitBump { after: None });
	assert_eq!(look(&probe, &bumped(false)), Decision::ForgetBump, "nobody was told of it");
	let failed = decide(&probe, &bumped(false), NOW, &Trigger::Failed(Why::Unknown));
	assert_eq!(failed, Decision::ForgetBump, "whatever LDK says of it");
	let spent = Probe { coins: InputStatus::Spent, ..probe.clone() };
	assert_eq!(look(&spent, &splice), Decision::RebuildBump { after: Why::InputsSpent });
	let mut again = splice.clone();
	again.bump.as_mut().unwrap().failures = MAX_FAILURES - 1;
	let over = Decision::DropBump { reason: Why::InputsSpent, counted: true };
	assert_eq!(look(&spent, &again), over);
	let refused = |reason| decide(&probe, &splice, NOW, &Trigger::Failed(reason));
	assert_eq!(refused(Why::FeeRateTooLow), Decision::RebuildBump { after: Why::FeeRateTooLow });
	assert_eq!(
		refused(Why::CannotInitiateRbf),
		Decision::DropBump { reason: Why::CannotInitiateRbf, counted: true }
	);
	assert_eq!(decide(&probe, &splice, LATE, &Trigger::Look), drop_bump(Why::TooOld));
	probe.channel.as_mut().unwrap().decided = true;
	assert_eq!(look(&probe, &splice), drop_bump(Why::CannotInitiateRbf));
}

#[test]
fn row_11_ldk_never_had_it_and_nobody_was_told() {
	assert_eq!(look(&shows(vec![]), &out(Tentative)), Decision::Drop);
	assert_eq!(look(&closing(shows(vec![])), &out(Tentative)), Decision::Drop);
}

#[test]
fn row_12_ldk_has_forgotten_it() {
	let nothing = shows(vec![]);
	for state in [Accepted, Signing, Deferred] {
		assert_eq!(look(&nothing, &out(state.clone())), Decision::Submit { after: None });
		assert_eq!(look(&nothing, &into(state)), Decision::Submit { after: None });
	}
	let spent = Probe { coins: InputStatus::Spent, ..nothing.clone() };
	assert_eq!(look(&spent, &into(Accepted)), Decision::Rebuild { after: None });
	assert_eq!(look(&spent, &out(Accepted)), Decision::Rebuild { after: None });
	let waits = Probe { its_turn: false, ..nothing.clone() };
	assert_eq!(look(&waits, &out(Deferred)), Decision::Wait);
	let late = decide(&nothing, &out(Accepted), LATE, &Trigger::Look);
	assert_eq!(late, fails(Why::TooOld));
	let mut canceled = out(Accepted);
	canceled.canceling = true;
	assert_eq!(look(&nothing, &canceled), fails(Why::LocallyCanceled));
	// It was broadcast: whatever became of it, it is not handed in again.
	assert_eq!(look(&nothing, &out(Negotiated)), fail(Why::OutcomeUnknown, true));
}

#[test]
fn row_13_nothing_to_bump() {
	assert_eq!(look(&shows(vec![]), &bumped(true)), drop_bump(Why::NothingToBump));
}

#[test]
fn row_14_only_the_peer_is_negotiating() {
	for stage in [Stage::Negotiating, Stage::Signing(txid(8)), Stage::Negotiated(txid(8))] {
		let probe = shows(vec![theirs(stage)]);
		assert_eq!(look(&probe, &out(Accepted)), Decision::Submit { after: None });
	}
}

#[test]
fn failures_of_rounds() {
	let splice = out(Accepted);
	let mut handed = out(Accepted);
	handed.handed = true;
	for reason in [Why::PeerDisconnected, Why::Unknown] {
		// From an old life: nobody's fault. In this one: LDK had begun.
		assert_eq!(after(&splice, reason.clone()), Decision::Submit { after: None });
		let counted = Decision::Submit { after: Some(reason.clone()) };
		assert_eq!(after(&handed, reason), counted);
	}
	for reason in [Why::FeeRateTooLow, Why::ContributionInvalid] {
		let counted = Decision::Rebuild { after: Some(reason.clone()) };
		assert_eq!(after(&splice, reason), counted);
	}
	let message = String::new;
	for reason in [
		Why::CounterpartyAborted { message: message() },
		Why::NegotiationError { message: message() },
		Why::CannotInitiateRbf,
		Why::ChannelClosing,
		Why::LocallyCanceled,
	] {
		let over = Decision::Fail { reason: reason.clone(), counted: true, keep_coins: false };
		assert_eq!(after(&splice, reason), over);
	}
	// A peer that had agreed to everything has lost it.
	let mut signing = handed.clone();
	signing.signing = true;
	let aborted = Why::CounterpartyAborted { message: message() };
	let again = Decision::Submit { after: Some(aborted.clone()) };
	assert_eq!(after(&signing, aborted), again);
	// The budget.
	handed.failures = MAX_FAILURES - 1;
	let over = Decision::Fail { reason: Why::Unknown, counted: true, keep_coins: false };
	assert_eq!(after(&handed, Why::Unknown), over);
	let mut old_news = out(Accepted);
	old_news.failures = MAX_FAILURES - 1;
	assert_eq!(after(&old_news, Why::Unknown), Decision::Submit { after: None });
}

#[test]
fn old_news_is_none() {
	// LDK says that it failed, and shows that it did not.
	let splice = out(Accepted);
	for stage in [Stage::Queued, Stage::Signing(txid(OWN)), Stage::Negotiated(txid(OWN))] {
		let probe = shows(vec![round(&splice, stage, 253)]);
		for reason in [Why::PeerDisconnected, Why::LocallyCanceled] {
			let decision = decide(&probe, &splice, NOW, &Trigger::Failed(reason));
			assert_eq!(decision, Decision::Keep(stage));
		}
	}
}

#[test]
fn what_is_canceled_is_taken_back_if_it_can_be() {
	let mut splice = out(Accepted);
	splice.canceling = true;
	for stage in [Stage::Queued, Stage::Negotiating, Stage::Signing(txid(OWN))] {
		let probe = shows(vec![round(&splice, stage, 253)]);
		assert_eq!(look(&probe, &splice), Decision::Cancel(Why::LocallyCanceled));
	}
	let stage = Stage::Negotiated(txid(OWN));
	let probe = shows(vec![round(&splice, stage, 253)]);
	assert_eq!(look(&probe, &splice), Decision::Keep(stage));
	let queued = shows(vec![round(&splice, Stage::Queued, 253)]);
	splice.canceling = false;
	assert_eq!(decide(&queued, &splice, LATE, &Trigger::Look), Decision::Cancel(Why::TooOld));
}

/// Every probe with every splice and every trigger: there is an answer, and none of the answers
/// breaks a promise.
#[test]
#[allow(clippy::too_many_lines)]
fn nothing_falls_through() {
	let message = String::new;
	let reasons = [
		Why::Unknown,
		Why::PeerDisconnected,
		Why::CounterpartyAborted { message: message() },
		Why::NegotiationError { message: message() },
		Why::ContributionInvalid,
		Why::LocallyCanceled,
		Why::ChannelClosing,
		Why::FeeRateTooLow,
		Why::CannotInitiateRbf,
	];
	let mut triggers = vec![Trigger::Look];
	triggers.extend(reasons.map(Trigger::Failed));
	let refusals = [Why::Unknown, Why::FeeRateTooLow, Why::ChannelClosing];
	triggers.extend(refusals.map(Trigger::Refused));
	let stages = [
		Stage::Queued,
		Stage::BehindLock,
		Stage::Negotiating,
		Stage::Signing(txid(OWN)),
		Stage::Negotiated(txid(OWN)),
	];
	let mut splices = Vec::new();
	for make in [out, into] {
		for state in [Tentative, Accepted, Signing, Negotiated, Deferred] {
			for bits in 0..64_u32 {
				let bit = |n: u32| bits >> n & 1 == 1;
				let mut splice = make(state.clone());
				splice.canceling = bit(0);
				splice.failures = if bit(1) { MAX_FAILURES - 1 } else { 0 };
				(splice.handed, splice.signing) = (bit(2), bit(3));
				if bit(4) {
					splice.txids = vec![txid(OWN)];
				}
				if bit(5) {
					splice.bump = bumped(bit(0)).bump;
				}
				splices.push(splice.clone());
				if state == Deferred {
					splice.contribution = None;
					splices.push(splice);
				}
			}
		}
	}
	let mut answers = 0;
	for splice in &splices {
		let mut rounds = vec![vec![], vec![theirs(Stage::Negotiating)]];
		if splice.contribution.is_some() {
			for stage in stages {
				rounds.push(vec![round(splice, stage, 253)]);
				let first = round(splice, Stage::Negotiated(txid(OWN)), 253);
				rounds.push(vec![first, round(splice, stage, 1_000)]);
			}
		}
		let fates = [Fate::Open, Fate::Lost, Fate::Unknown, Fate::Funded(txid(OWN))];
		let gone = |fate| Probe { channel: None, fate, ..shows(vec![]) };
		let mut probes: Vec<Probe> = fates.map(gone).into();
		for rounds in rounds {
			for bits in 0..16_u32 {
				let bit = |n: u32| bits >> n & 1 == 1;
				for (funding, known) in [
					(OLD, NewFunding::Unknown),
					(OWN, NewFunding::Unknown),
					(NEW, NewFunding::Unknown),
					(NEW, NewFunding::IsNot),
					(NEW, NewFunding::IsTheSplice(txid(NEW))),
				] {
					let mut probe = with_funding(shows(rounds.clone()), funding, known);
					let channel = probe.channel.as_mut().unwrap();
					(channel.closing, channel.decided) = (bit(0), bit(1));
					probe.its_turn = bit(2);
					probe.coins = if bit(3) { InputStatus::Spent } else { InputStatus::Unspent };
					probes.push(probe);
				}
			}
		}
		for probe in &probes {
			for now in [NOW, LATE] {
				for trigger in &triggers {
					check(probe, splice, now, trigger);
					answers += 1;
				}
			}
		}
	}
	assert!(answers > 1_000_000, "{answers}");
}

fn check(probe: &Probe, splice: &Splice, now: Timestamp, trigger: &Trigger) {
	let decision = decide(probe, splice, now, trigger);
	let seen = || format!("{probe:?}\n{splice:?}\n{now:?} {trigger:?}\n{decision:?}");
	let hands_in = matches!(decision, Decision::Submit { .. } | Decision::Rebuild { .. });
	let Some(channel) = &probe.channel else {
		let (out, fate) = (!splice.txids.is_empty(), probe.fate);
		let right = match &decision {
			Decision::Await => out && matches!(fate, Fate::Open | Fate::Unknown),
			Decision::Locked(txid) => out && fate == Fate::Funded(*txid),
			Decision::Fail { reason: Why::ChannelClosed, keep_coins: false, .. } => {
				!out || fate == Fate::Lost
			},
			Decision::Fail { reason: Why::OutcomeUnknown, keep_coins: true, .. } => {
				out && fate == Fate::Unknown && now >= splice.expires_at
			},
			_ => false,
		};
		assert!(right, "{}", seen());
		return;
	};
	let same = channel.funding == splice.anchor;
	let ours = splice.newest(&channel.rounds).map(|(round, _)| round.stage);
	if hands_in {
		assert!(same && ours.is_none(), "LDK has it already: {}", seen());
		assert!(splice.state != Tentative, "the caller was told nothing: {}", seen());
		assert!(splice.state != Negotiated, "it may be paid already: {}", seen());
		assert!(!channel.closing && !splice.canceling, "nobody wants it: {}", seen());
		assert!(now < splice.expires_at, "too late: {}", seen());
		assert!(probe.its_turn || *trigger != Trigger::Look, "not its turn: {}", seen());
	}
	if matches!(decision, Decision::SubmitBump { .. } | Decision::RebuildBump { .. }) {
		let negotiated = matches!(ours, Some(Stage::Negotiated(_)));
		assert!(same && negotiated && !channel.decided && !channel.closing, "{}", seen());
	}
	if same && matches!(ours, Some(Stage::Negotiated(_))) {
		let stays = !matches!(
			decision,
			Decision::Fail { .. }
				| Decision::Drop
				| Decision::Cancel(_)
				| Decision::Locked(_)
				| Decision::Reanchor(_)
		);
		assert!(stays && !hands_in, "it is broadcast: {}", seen());
	}
	if same && splice.state == Negotiated && ours.is_some() {
		let told = matches!(
			decision,
			Decision::Fail { .. } | Decision::Drop | Decision::Cancel(_) | Decision::Submit { .. }
		);
		assert!(!told, "a candidate is broadcast, whatever else is negotiated: {}", seen());
	}
	if splice.txids.contains(&channel.funding.txid) && !same {
		assert_eq!(decision, Decision::Locked(channel.funding.txid), "{}", seen());
	}
	if same {
		let elsewhere = matches!(decision, Decision::Locked(_) | Decision::Reanchor(_));
		assert!(!elsewhere, "nothing has locked: {}", seen());
	}
	if let Decision::Reanchor(anchor) = decision {
		let mut again = splice.clone();
		again.anchor = anchor;
		if ours.is_none() && again.state != Tentative {
			again.state = Accepted;
		}
		let next = decide(probe, &again, now, &Trigger::Look);
		assert!(!matches!(next, Decision::Reanchor(_)), "it goes round: {}", seen());
	}
	if let (Trigger::Failed(_) | Trigger::Refused(_), true, true) =
		(trigger, hands_in, splice.failures + 1 >= MAX_FAILURES)
	{
		let counted = matches!(
			decision,
			Decision::Submit { after: Some(_) } | Decision::Rebuild { after: Some(_) }
		);
		assert!(!counted, "over the budget: {}", seen());
	}
}
