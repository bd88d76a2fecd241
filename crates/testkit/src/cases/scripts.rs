//! The cases, step by step.

use super::stage::{Stage, DUST_MSAT, VISIBLE_MSAT};
use super::{splices, Case, CaseSetup, Outcome};

/// Restarts that are tried before a node is given up.
const TRIES: u32 = 4;

pub(super) fn run(case: Case, setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	step(&format!("case {case}: {}", case.title()));
	match case {
		Case::A => closed_and_lost(setup, step),
		Case::B => taken_and_lost(setup, step),
		Case::G1 | Case::N => claim_waits(case, setup, step),
		Case::G3 => handled_and_lost(setup, step),
		Case::H => forward_failed_and_lost(setup, step),
		Case::K => sent_then_failed(setup, step),
		Case::K0 => close_update_written(setup, step),
		Case::L => failed_and_lost(setup, step),
		Case::P => sent_and_forgotten(setup, step),
		Case::SpliceOut | Case::SpliceIn | Case::FeeBump | Case::SplicePeerOffline => {
			splices::run(case, setup, step)
		},
	}
}

/// A: LDK looks into the monitors of channels which the loaded manager considers closed.
fn closed_and_lost(setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::paying(Case::A, setup, VISIBLE_MSAT, step);
	stage.say("the victim closes the channel itself and writes its manager");
	let (victim, channel) = (stage.victim, stage.channel);
	stage.net.force_close(victim, channel);
	assert!(stage.net.persist_manager(victim));
	// The peer's commitment is the one that gets mined.
	stage.net.chain.clear_mempool();
	stage.claim_on_chain();
	stage.see_all();
	stage.drain();
	stage.until_monitor_written();
	stage.crash();
	stage.aftermath(TRIES)
}

/// B: the manager takes close and claim; the close update waits for the manager's write, a block
/// writes the monitor without the events, and the manager is never written.
fn taken_and_lost(setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::paying(Case::B, setup, VISIBLE_MSAT, step);
	stage.claim_on_chain();
	stage.see_all();
	stage.drain();
	stage.until_monitor_written();
	stage.crash();
	stage.aftermath(TRIES)
}

/// G1 and N: the close is taken and its update waits; the claim comes with the blocks that write
/// the monitor. At the next start the manager gets a claim from a channel that it has open.
fn claim_waits(case: Case, setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::paying(case, setup, VISIBLE_MSAT, step);
	stage.claim_on_chain();
	stage.see(1);
	stage.handle_events();
	stage.until_monitor_written();
	stage.crash();
	if case == Case::N {
		// Even written after it took the claim and before its user was told, it panics.
		stage.live_only_to_write();
	}
	stage.aftermath(TRIES)
}

/// G3: as B, but the user was told of everything in the first life.
fn handled_and_lost(setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::paying(Case::G3, setup, VISIBLE_MSAT, step);
	stage.claim_on_chain();
	stage.see_all();
	stage.handle_events();
	stage.until_monitor_written();
	stage.crash();
	stage.aftermath(TRIES)
}

/// H: the failure of a forwarded payment that had no output in the commitment transaction.
fn forward_failed_and_lost(setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::forwarding(Case::H, setup, DUST_MSAT, step);
	stage.fail_on_chain();
	stage.see_all();
	stage.drain();
	stage.until_monitor_written();
	stage.crash();
	stage.aftermath(TRIES)
}

/// K: the update that says "the user knows" reaches the monitor, the manager that says "paid" does
/// not reach the disk. The next start finds a payment without a trace of its success, and fails it.
fn sent_then_failed(setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::paying(Case::K, setup, VISIBLE_MSAT, step);
	stage.claim_on_chain();
	stage.see_all();
	stage.handle_events();
	stage.crash();
	stage.aftermath(TRIES)
}

/// K0: the close update reaches the monitor, so that the next start knows that its manager is old.
fn close_update_written(setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::paying(Case::K0, setup, VISIBLE_MSAT, step);
	stage.claim_on_chain();
	stage.see(1);
	stage.handle_events();
	stage.see_all();
	stage.crash();
	stage.aftermath(TRIES)
}

/// L: as H, with the victim's own payment.
fn failed_and_lost(setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::paying(Case::L, setup, DUST_MSAT, step);
	stage.fail_on_chain();
	stage.see_all();
	stage.drain();
	stage.until_monitor_written();
	stage.crash();
	stage.aftermath(TRIES)
}

/// P: as K, but the manager was written between the close and the claim.
fn sent_and_forgotten(setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut stage = Stage::paying(Case::P, setup, VISIBLE_MSAT, step);
	stage.claim_on_chain();
	stage.see(1);
	stage.handle_events();
	stage.say("the victim writes its manager: channel closed, payment pending");
	let written = stage.net.persist_manager(stage.victim);
	assert!(written || !stage.net.is_running(stage.victim));
	stage.see_all();
	stage.handle_events();
	stage.crash();
	stage.aftermath(TRIES)
}
