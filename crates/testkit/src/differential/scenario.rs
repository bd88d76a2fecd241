//! The stories. Each is told in every [`Mode`]: with each of LDK's chain monitors, with LDK's
//! background processor and without.

use super::actor::{Claim, Intercept, Policy};
use super::stage::{Mode, Scenario, Stage};
use crate::guard::Asked;
use crate::node::NodeConfig;

const SATS: u64 = 1_000_000;
const MSAT: u64 = 50_000_000;
/// An amount too small for an output in a commitment transaction.
const DUST_MSAT: u64 = 100_000;
/// The number of ticks after which LDK forgets a payment that has ended.
const FORGETTING_TICKS: u32 = 9;
/// The number of ticks after which LDK hangs up on a peer whose answer it awaits.
const QUIESCENCE_TICKS: u32 = 3;

/// Returns all stories, by name, with these parts of LDK.
pub fn all(mode: Mode) -> Vec<Scenario> {
	let all = [
		payment_sent,
		payment_received,
		intercepted_and_forwarded,
		intercepted_and_given_back,
		held_and_claimed_late,
		claimed_in_parts,
		keysend,
		offer_paid_by_hand,
		failed_and_tried_again,
		failed_at_once_and_tried_again,
		failed_with_the_channel,
		id_used_again,
		probe,
		peer_picks_our_channel_id,
		closed_by_us,
		closed_by_the_peer,
		closed_by_us_without_anchors,
		forwarded_over_a_channel_that_is_opened_for_it,
		spliced_out,
		spliced_in,
		spliced_out_and_bumped,
		spliced_in_and_bumped,
	];
	all.iter().map(|make| make(mode)).collect()
}

fn config() -> NodeConfig {
	NodeConfig::anchors()
}

/// Sets up the node under test, and a peer with a channel.
fn two(stage: &mut Stage) {
	let victim = stage.victim(config());
	let peer = stage.peer(config());
	stage.connect(victim, peer);
	stage.open(victim, peer, SATS);
}

/// Sets up a peer, the node under test, and another peer, in a row.
fn three(stage: &mut Stage) {
	let payer = stage.peer(config());
	let mut between = config();
	between.user_config.htlc_interception_flags = 1;
	let victim = stage.victim(between);
	let payee = stage.peer(config());
	stage.connect(payer, victim);
	stage.connect(victim, payee);
	stage.open(payer, victim, SATS);
	stage.open(victim, payee, SATS);
}

/// The node under test pays its peer.
pub fn payment_sent(mode: Mode) -> Scenario {
	Scenario {
		name: "payment sent",
		mode,
		setup: two,
		steps: &[("pay", |stage| {
			let intent = stage.intent(1, &[(&[0, 1], MSAT)]);
			stage.pay(intent);
		})],
	}
}

/// The node under test is paid.
pub fn payment_received(mode: Mode) -> Scenario {
	Scenario {
		name: "payment received",
		mode,
		setup: two,
		steps: &[("be paid", |stage| {
			let intent = stage.intent(1, &[(&[1, 0], MSAT)]);
			stage.pay(intent);
		})],
	}
}

fn through_the_lsp(stage: &mut Stage) {
	let mut intent = stage.intent(1, &[(&[0, 1, 2], MSAT)]);
	intent.last_scid = stage.intercept_scid;
	stage.pay(intent);
}

fn lsp(stage: &mut Stage, intercept: Intercept) {
	stage.intercept_scid = Some(stage.net.node(stage.victim).manager().get_intercept_scid());
	stage.user(stage.victim).decide(Policy { claim: Claim::AtOnce, intercept });
}

/// L1: the node under test is an LSP that sends an intercepted HTLC on.
pub fn intercepted_and_forwarded(mode: Mode) -> Scenario {
	Scenario {
		name: "intercepted and forwarded",
		mode,
		setup: |stage| {
			three(stage);
			let payee = stage.net.id(2);
			lsp(stage, Intercept::Forward(payee));
		},
		steps: &[("pay through the LSP", through_the_lsp)],
	}
}

/// The node under test is an LSP that gives an intercepted HTLC back.
pub fn intercepted_and_given_back(mode: Mode) -> Scenario {
	Scenario {
		name: "intercepted and given back",
		mode,
		setup: |stage| {
			three(stage);
			lsp(stage, Intercept::GiveBack);
		},
		steps: &[("pay through the LSP", through_the_lsp)],
	}
}

/// A hold invoice: the node under test claims later.
pub fn held_and_claimed_late(mode: Mode) -> Scenario {
	Scenario {
		name: "held and claimed late",
		mode,
		setup: |stage| {
			two(stage);
			let mut policy = stage.user(stage.victim).policy();
			policy.claim = Claim::Later;
			stage.user(stage.victim).decide(policy);
		},
		steps: &[
			("be paid", |stage| {
				let intent = stage.intent(1, &[(&[1, 0], MSAT)]);
				stage.pay(intent);
			}),
			("a block", |stage| stage.mine(1)),
			("claim", |stage| {
				let victim = stage.net.node(stage.victim).handle();
				stage.user(stage.victim).claim_held(&victim);
				stage.settle();
			}),
		],
	}
}

/// The node under test is paid in two parts, by two channels.
pub fn claimed_in_parts(mode: Mode) -> Scenario {
	Scenario {
		name: "claimed in parts",
		mode,
		setup: |stage| {
			two(stage);
			stage.open(0, 1, SATS);
		},
		steps: &[("be paid in parts", |stage| {
			let intent = stage.intent(1, &[(&[1, 0], MSAT), (&[1, 0], MSAT)]);
			stage.pay(intent);
		})],
	}
}

/// The node under test is paid without an invoice.
pub fn keysend(mode: Mode) -> Scenario {
	Scenario {
		name: "keysend",
		mode,
		setup: two,
		steps: &[("be paid", |stage| {
			let mut intent = stage.intent(1, &[(&[1, 0], MSAT)]);
			intent.keysend = true;
			stage.pay(intent);
		})],
	}
}

/// The node under test pays an offer of its peer. Its user is asked before the invoice is paid
/// (`Event::InvoiceReceived`).
pub fn offer_paid_by_hand(mode: Mode) -> Scenario {
	Scenario {
		name: "offer paid by hand",
		mode,
		setup: |stage| {
			let mut asks = config();
			asks.user_config.manually_handle_bolt12_invoices = true;
			let victim = stage.victim(asks);
			let peer = stage.peer(config());
			stage.connect(victim, peer);
			stage.open(victim, peer, SATS);
		},
		steps: &[("pay an offer", |stage| {
			let mut intent = stage.intent(1, &[(&[0, 1], MSAT)]);
			intent.offer = true;
			stage.send(intent);
			stage.net.exchange_onion_messages();
			if stage.net.is_running(0) {
				// LDK's manager is durable with the invoice, and asks for the answer in every life.
				stage.net.persist_manager(0);
			}
			stage.settle();
		})],
	}
}

fn pay_again(stage: &mut Stage) {
	let intent = stage.intent(1, &[(&[0, 1], MSAT)]);
	stage.pay(intent);
}

/// A payment fails, and is tried again under its id.
pub fn failed_and_tried_again(mode: Mode) -> Scenario {
	Scenario {
		name: "failed and tried again",
		mode,
		setup: |stage| {
			two(stage);
			let policy = Policy { claim: Claim::GiveBack, intercept: Intercept::GiveBack };
			stage.user(1).decide(policy);
		},
		steps: &[("pay", pay_again), ("a block", |stage| stage.mine(1)), ("pay again", pay_again)],
	}
}

fn pay_nobody(stage: &mut Stage) {
	let mut intent = stage.intent(1, &[(&[0, 1], MSAT)]);
	intent.blind = true;
	stage.pay(intent);
}

/// L6: the peer is not there; a payment fails at once, and is tried again under its id.
pub fn failed_at_once_and_tried_again(mode: Mode) -> Scenario {
	Scenario {
		name: "failed at once and tried again",
		mode,
		setup: |stage| {
			two(stage);
			stage.disconnect(0, 1);
		},
		steps: &[("pay", pay_nobody), ("pay again", pay_nobody)],
	}
}

/// L3: two payments too small for an output are lost with the channel.
pub fn failed_with_the_channel(mode: Mode) -> Scenario {
	Scenario {
		name: "failed with the channel",
		mode,
		setup: |stage| {
			two(stage);
			let policy = Policy { claim: Claim::Later, intercept: Intercept::GiveBack };
			stage.user(1).decide(policy);
			for number in [1, 2] {
				let intent = stage.intent(number, &[(&[0, 1], DUST_MSAT)]);
				stage.pay(intent);
			}
			stage.disconnect(0, 1);
		},
		steps: &[
			("the peer closes", |stage| {
				let channel = stage.channels[0];
				if stage.net.channel(1, channel).is_some() {
					stage.net.force_close(1, channel);
				}
				stage.mine(1);
			}),
			("blocks", |stage| stage.mine(6)),
		],
	}
}

fn forget(stage: &mut Stage) {
	for _ in 0..FORGETTING_TICKS {
		stage.net.tick();
	}
	stage.settle();
}

/// L7: a payment id and a hash are used again after LDK forgot them.
pub fn id_used_again(mode: Mode) -> Scenario {
	Scenario {
		name: "payment id used again",
		mode,
		setup: two,
		steps: &[("pay", pay_again), ("LDK forgets", forget), ("pay again", pay_again)],
	}
}

/// A probe that goes through the peer.
pub fn probe(mode: Mode) -> Scenario {
	Scenario {
		name: "probe",
		mode,
		setup: |stage| {
			two(stage);
			let far = stage.peer(config());
			stage.connect(1, far);
			stage.open(1, far, SATS);
		},
		steps: &[("probe", |stage| {
			if stage.net.is_running(0) {
				let _ = stage.net.try_probe(&[0, 1, 2], MSAT);
			}
			stage.settle();
		})],
	}
}

/// L4: a peer takes the id of our channel with another for its temporary id.
pub fn peer_picks_our_channel_id(mode: Mode) -> Scenario {
	Scenario {
		name: "peer picks our channel id",
		mode,
		setup: |stage| {
			two(stage);
			let attacker = stage.peer(config());
			stage.connect(attacker, 0);
		},
		steps: &[
			("the attacker opens and leaves", |stage| {
				let channel = stage.channels[0];
				if stage.net.is_running(0) && stage.net.connected(2, 0) {
					let _ = stage.net.try_open_as(2, 0, SATS, channel);
				}
				stage.net.cut_before(2, "SendFundingCreated");
				stage.settle();
				stage.disconnect(2, 0);
				stage.settle();
			}),
			("our channel is closed", |stage| {
				let channel = stage.channels[0];
				if stage.net.is_running(0) && stage.net.channel(0, channel).is_some() {
					stage.net.force_close(0, channel);
				}
				stage.settle();
			}),
		],
	}
}

fn hold_and_pay(stage: &mut Stage) {
	two(stage);
	peer_holds_a_payment(stage);
}

fn peer_holds_a_payment(stage: &mut Stage) {
	let policy = Policy { claim: Claim::Later, intercept: Intercept::GiveBack };
	stage.user(1).decide(policy);
	let intent = stage.intent(1, &[(&[0, 1], MSAT)]);
	stage.pay(intent);
}

fn peer_claims(stage: &mut Stage) {
	let peer = stage.net.node(1).handle();
	stage.user(1).claim_held(&peer);
	stage.settle();
}

/// The node under test closes a channel with an HTLC in it, which the peer claims on chain.
pub fn closed_by_us(mode: Mode) -> Scenario {
	Scenario {
		name: "closed by us",
		mode,
		setup: hold_and_pay,
		steps: &[
			("we close", |stage| {
				stage.disconnect(0, 1);
				let channel = stage.channels[0];
				if stage.net.is_running(0) && stage.net.channel(0, channel).is_some() {
					stage.net.force_close(0, channel);
				}
				stage.mine(1);
			}),
			("the peer claims", peer_claims),
			("blocks", |stage| stage.mine(8)),
		],
	}
}

/// The peer closes a channel with an HTLC of the node under test in it, and claims it on chain.
pub fn closed_by_the_peer(mode: Mode) -> Scenario {
	Scenario {
		name: "closed by the peer",
		mode,
		setup: |stage| {
			hold_and_pay(stage);
			stage.disconnect(0, 1);
		},
		steps: &[
			("the peer closes and claims", |stage| {
				let channel = stage.channels[0];
				if stage.net.channel(1, channel).is_some() {
					peer_claims(stage);
					stage.net.force_close(1, channel);
				}
				stage.mine(1);
			}),
			("blocks", |stage| stage.mine(8)),
		],
	}
}

/// The node under test closes a channel without anchors, whose commitment pays its own fee.
pub fn closed_by_us_without_anchors(mode: Mode) -> Scenario {
	Scenario {
		name: "closed by us without anchors",
		setup: |stage| {
			let victim = stage.victim(NodeConfig::legacy());
			let peer = stage.peer(NodeConfig::legacy());
			stage.connect(victim, peer);
			stage.open(victim, peer, SATS);
			peer_holds_a_payment(stage);
		},
		..closed_by_us(mode)
	}
}

/// LSPS2: the node under test is an LSP that opens a channel for an intercepted HTLC, which its
/// client trusts, and sends the HTLC on over it.
pub fn forwarded_over_a_channel_that_is_opened_for_it(mode: Mode) -> Scenario {
	Scenario {
		name: "forwarded over a channel that is opened for it",
		mode,
		setup: |stage| {
			let payer = stage.peer(config());
			let mut between = config();
			between.user_config.htlc_interception_flags = 1;
			let victim = stage.victim(between);
			let client = stage.peer(config().zero_conf());
			stage.connect(payer, victim);
			stage.connect(victim, client);
			stage.open(payer, victim, SATS);
			let to = stage.net.id(client);
			lsp(stage, Intercept::Open { to, sats: SATS });
		},
		steps: &[
			("pay through the LSP", through_the_lsp),
			("a block", |stage| stage.mine(1)),
			("blocks", |stage| stage.mine(7)),
		],
	}
}

fn ask(stage: &mut Stage, asked: Asked) {
	/// The user asks again if it was told an error; a store is in trouble for less long.
	const TIMES: usize = 6;
	let channel = stage.channels[0];
	for _ in 0..TIMES {
		let usable = stage.net.is_running(0)
			&& stage.net.channel(0, channel).is_some_and(|channel| channel.is_usable);
		if !usable || stage.net.try_ask_for_splice(0, channel, asked.clone()).is_ok() {
			break;
		}
		// What LDK had begun it takes back, and hangs up if it was waiting for the peer to be
		// quiescent; that takes a few of its minutes.
		for _ in 0..QUIESCENCE_TICKS {
			stage.net.tick();
		}
		stage.reconnect();
		stage.settle();
	}
	stage.settle();
}

fn bump(stage: &mut Stage) {
	ask(stage, Asked::Bump { sat_per_kw: 1_000 });
}

/// The node under test moves money out of a channel, by its keeper of splices if it has one, and
/// raises the fee.
pub fn spliced_out_and_bumped(mode: Mode) -> Scenario {
	Scenario {
		name: "spliced out and bumped",
		mode,
		setup: two,
		steps: &[
			("splice", |stage| {
				if stage.net.is_running(0) {
					let script = stage.net.node(0).wallet().script();
					ask(stage, Asked::Out { sats: 100_000, script });
				}
			}),
			("bump", bump),
			("blocks", |stage| stage.mine(7)),
		],
	}
}

/// The node under test moves money into a channel, by its keeper of splices if it has one, and
/// raises the fee.
pub fn spliced_in_and_bumped(mode: Mode) -> Scenario {
	Scenario {
		name: "spliced in and bumped",
		mode,
		setup: two,
		steps: &[
			("splice", |stage| ask(stage, Asked::In { sats: 100_000 })),
			("bump", bump),
			("blocks", |stage| stage.mine(7)),
		],
	}
}

fn splice(stage: &mut Stage, out: bool) {
	let channel = stage.channels[0];
	let usable = stage.net.is_running(0)
		&& stage.net.channel(0, channel).is_some_and(|channel| channel.is_usable);
	if usable && out {
		stage.net.splice_out(0, channel, 100_000);
	} else if usable {
		stage.net.splice_in(0, channel, 100_000);
	}
	stage.settle();
}

/// The node under test moves money out of a channel.
pub fn spliced_out(mode: Mode) -> Scenario {
	Scenario {
		name: "spliced out",
		mode,
		setup: two,
		steps: &[("splice", |stage| splice(stage, true)), ("blocks", |stage| stage.mine(7))],
	}
}

/// The node under test moves money into a channel.
pub fn spliced_in(mode: Mode) -> Scenario {
	Scenario {
		name: "spliced in",
		mode,
		setup: two,
		steps: &[("splice", |stage| splice(stage, false)), ("blocks", |stage| stage.mine(7))],
	}
}
