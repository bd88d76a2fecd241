//! What LDK alone does in each case. These are facts about LDK: where one changes, a newer LDK does
//! better or worse, and the case must be looked at again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use leyden_testkit::cases::{run, Case, CaseSetup, LifeReport, Outcome, Verdict};
use leyden_testkit::net::Paid;
use leyden_testkit::{Fate, MemKv, NodeDisk, WriteKind};

fn bare(case: Case) -> Outcome {
	let mut steps = Vec::new();
	let outcome = run(case, &CaseSetup::bare(1), &mut |step| steps.push(step.to_owned()));
	assert!(steps[0].starts_with(&format!("case {case}: ")) && steps.len() > 5, "{steps:?}");
	let first = &outcome.lives[0];
	assert_eq!((first.life, &first.panicked), (1, &None));
	outcome
}

/// What was told about the channel and the payment, without how the channel came to be and without
/// the coins that it left.
fn told(life: &LifeReport) -> Vec<&str> {
	let names = life.told.iter().map(String::as_str);
	names
		.filter(|name| {
			name.starts_with("Payment")
				|| name.starts_with("ChannelClosed")
				|| name.starts_with("HTLC")
		})
		.collect()
}

#[track_caller]
fn assert_zombie(life: &LifeReport) {
	assert_eq!(told(life), &[] as &[&str]);
	assert_eq!((life.channels, life.paid), (Some(1), Some(Paid::Pending)));
}

#[test]
fn a_recovers_natively() {
	let outcome = bare(Case::A);
	assert_eq!(told(&outcome.lives[0]), ["ChannelClosed(HolderForceClosed)"]);
	assert_eq!(told(&outcome.lives[1]), ["PaymentSent", "PaymentPathSuccessful"]);
	assert_eq!(outcome.paid, Some(Paid::Fulfilled));
	assert_eq!(outcome.verdict(), Verdict::Recovered);
}

#[test]
fn b_is_stuck_with_a_zombie() {
	let outcome = bare(Case::B);
	assert_eq!(told(&outcome.lives[0]), &[] as &[&str]);
	assert_zombie(&outcome.lives[1]);
	assert_zombie(&outcome.lives[2]);
	assert_eq!(outcome.verdict(), Verdict::Stuck);
}

const NO_MONITOR: &str = "Channels originating a payment resolution must have a monitor";

#[test]
fn g1_panics_at_every_start() {
	let outcome = bare(Case::G1);
	assert_eq!(told(&outcome.lives[0]), ["ChannelClosed(CommitmentTxConfirmed)"]);
	assert_eq!((outcome.restarts(), outcome.panics()), (4, 4));
	for life in &outcome.lives[1..] {
		assert_eq!(told(life), ["PaymentSent", "PaymentPathSuccessful"]);
		let caught = life.panicked.as_ref().unwrap();
		assert_eq!(caught.message, NO_MONITOR);
		assert!(caught.at.starts_with("channelmanager.rs:"), "{}", caught.at);
	}
	assert_eq!(outcome.verdict(), Verdict::CrashLoop);
}

#[test]
fn n_panics_with_a_manager_written_in_between_too() {
	let outcome = bare(Case::N);
	assert_eq!((outcome.restarts(), outcome.panics()), (5, 4));
	assert_eq!(told(&outcome.lives[1]), &[] as &[&str]);
	for life in &outcome.lives[2..] {
		assert_eq!(life.panicked.as_ref().unwrap().message, NO_MONITOR);
	}
	assert_eq!(outcome.verdict(), Verdict::CrashLoop);
}

#[test]
fn g3_told_the_user_and_is_stuck_with_a_zombie() {
	let outcome = bare(Case::G3);
	let all = ["PaymentSent", "PaymentPathSuccessful", "ChannelClosed(CommitmentTxConfirmed)"];
	assert_eq!(told(&outcome.lives[0]), all);
	assert_zombie(&outcome.lives[1]);
	assert_zombie(&outcome.lives[2]);
	assert_eq!(outcome.verdict(), Verdict::Stuck);
}

#[test]
fn h_never_fails_the_payment_back() {
	let outcome = bare(Case::H);
	assert_eq!(outcome.told("HTLCHandlingFailed"), 0);
	assert_eq!(outcome.last().channels, Some(2), "one of them is no more");
	assert_eq!(outcome.paid, Some(Paid::Pending), "at the payer");
	assert_eq!(outcome.verdict(), Verdict::Stuck);
}

#[test]
fn k_contradicts_itself() {
	let outcome = bare(Case::K);
	let all = ["PaymentSent", "PaymentPathSuccessful", "ChannelClosed(CommitmentTxConfirmed)"];
	assert_eq!(told(&outcome.lives[0]), all);
	let again = [
		"ChannelClosed(OutdatedChannelManager)",
		"PaymentPathFailed",
		"PaymentFailed(RetriesExhausted)",
	];
	assert_eq!(told(&outcome.lives[1]), again);
	assert_eq!(outcome.paid, Some(Paid::Unknown));
	assert_eq!(outcome.verdict(), Verdict::Contradiction);
}

#[test]
fn k0_recovers_natively() {
	let outcome = bare(Case::K0);
	assert_eq!(told(&outcome.lives[0]), ["ChannelClosed(CommitmentTxConfirmed)"]);
	let again = ["ChannelClosed(OutdatedChannelManager)", "PaymentSent", "PaymentPathSuccessful"];
	assert_eq!(told(&outcome.lives[1]), again);
	assert_eq!(outcome.verdict(), Verdict::Recovered);
}

#[test]
fn l_never_fails_the_payment() {
	let outcome = bare(Case::L);
	assert_zombie(&outcome.lives[1]);
	assert_zombie(&outcome.lives[2]);
	assert_eq!(outcome.verdict(), Verdict::Stuck);
}

#[test]
fn p_told_the_user_and_forgot() {
	let outcome = bare(Case::P);
	assert_eq!(outcome.lives[0].told_times("PaymentSent"), 1);
	for life in &outcome.lives[1..] {
		assert_eq!(told(life), &[] as &[&str]);
		assert_eq!((life.channels, life.paid), (Some(0), Some(Paid::Pending)));
	}
	assert_eq!(outcome.verdict(), Verdict::Stuck);
}

#[test]
fn anchors_change_nothing() {
	for case in Case::ALL {
		let with = run(case, &CaseSetup::bare(2).with_anchors(), &mut |_| {});
		assert_eq!(with.verdict(), bare(case).verdict(), "{case}");
	}
}

#[test]
fn names_are_found_again() {
	for case in Case::ALL {
		assert_eq!(case.name().parse(), Ok(case));
		assert_eq!(case.name().to_lowercase().parse(), Ok(case));
	}
	assert!("Z".parse::<Case>().is_err());
}

#[test]
fn disks_may_be_given() {
	let kv = Arc::new(MemKv::new());
	let given = Arc::clone(&kv);
	let setup = CaseSetup::bare(1).on_disks(move |role| match role {
		"victim" => given.clone(),
		_ => Arc::new(MemKv::new()),
	});
	run(Case::P, &setup, &mut |_| {});
	assert_eq!(kv.snapshot().len(), 2, "a manager and a monitor");
}

#[test]
fn hooks_see_the_writes_of_a_case() {
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let (given, managers) = (Arc::clone(&disk), Arc::new(Mutex::new(0)));
	let counted = Arc::clone(&managers);
	disk.on_write(move |write| {
		*counted.lock().unwrap() += u32::from(write.kind == WriteKind::Manager);
		Fate::Live
	});
	let setup = CaseSetup::bare(1).on_node_disks(move |role| match role {
		"victim" => Arc::clone(&given),
		_ => Arc::new(NodeDisk::new(Arc::new(MemKv::new()))),
	});
	run(Case::P, &setup, &mut |_| {});
	assert_eq!(
		*managers.lock().unwrap(),
		4,
		"twice before the crash and once in each life after it"
	);
}

/// LDK alone forgets what is not signed. It says so only of what a manager on disk knew.
#[test]
fn splices_are_forgotten() {
	for case in Case::SPLICES {
		let outcome = bare(case);
		assert_eq!(outcome.verdict(), Verdict::Stuck, "{case}: {outcome:?}");
		let told = outcome.told("SpliceNegotiationFailed");
		assert_eq!(told > 0, case == Case::SplicePeerOffline, "{case}: {outcome:?}");
	}
}
