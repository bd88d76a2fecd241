//! Splices that a node forgets: the user asked, LDK took it, and the node stopped before it was
//! signed.

use super::outcome::{describe, LifeReport, Outcome};
use super::{Case, CaseSetup};

use lightning::ln::types::ChannelId;

use crate::guard::Asked;
use crate::net::{Idx, LdkNet};
use crate::node::NodeConfig;
use crate::panics::catch;

const CHANNEL_SATS: u64 = 1_000_000;
const SPLICE_SATS: u64 = 50_000;
/// A fee rate above what a splice begins with, in satoshi per 1000 weight units.
const HIGHER_FEE: u64 = 1_000;
/// Until a splice has locked.
const LOCK_BLOCKS: u32 = 8;
/// Restarts while the peer is away.
const LONELY_LIVES: u32 = 3;

pub(super) fn run(case: Case, setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	let mut net = LdkNet::new(setup.seed);
	let victim =
		net.add_node_on(NodeConfig::anchors(), (setup.disks)("victim"), setup.guards.clone());
	let peer =
		net.add_node_on(NodeConfig::anchors(), (setup.disks)("payee"), crate::Bare::factory());
	step("two nodes and a channel");
	net.connect(victim, peer);
	let channel = net.open_channel_pushing(victim, peer, CHANNEL_SATS, 300_000_000);
	// A splice-in spends coins of the wallet and a splice-out does not: the fees of both are raised.
	let second = (case == Case::FeeBump)
		.then(|| net.open_channel_pushing(victim, peer, CHANNEL_SATS, 300_000_000));
	let mut play = Play { case, net, victim, peer, channel, second, step, lives: Vec::new() };
	play.run()
}

struct Play<'a> {
	case: Case,
	net: LdkNet,
	victim: Idx,
	peer: Idx,
	channel: ChannelId,
	/// The channel with the splice-in whose fee is raised.
	second: Option<ChannelId>,
	step: &'a mut dyn FnMut(&str),
	lives: Vec<LifeReport>,
}

impl Play<'_> {
	fn run(&mut self) -> Outcome {
		let script = self.net.node(self.victim).wallet().script();
		let out = Asked::Out { sats: SPLICE_SATS, script };
		if let Some(second) = self.second {
			self.ask("asks for a splice-out, and it is negotiated", self.channel, out.clone());
			self.net.settle();
			let into = Asked::In { sats: SPLICE_SATS };
			self.ask("asks for a splice-in, and it is negotiated", second, into);
			self.net.settle();
		}
		(self.step)("the victim writes its manager, and the peer goes away");
		assert!(self.net.persist_manager(self.victim));
		self.net.disconnect(self.victim, self.peer);
		let channel = self.channel;
		match (self.case, self.second) {
			(Case::SpliceIn, _) => {
				self.ask("asks for a splice-in", channel, Asked::In { sats: SPLICE_SATS });
			},
			(_, Some(second)) => {
				let higher = Asked::Bump { sat_per_kw: HIGHER_FEE };
				self.ask("asks for a higher fee of the splice-out", channel, higher.clone());
				self.ask("asks for a higher fee of the splice-in", second, higher);
			},
			_ => self.ask("asks for a splice-out", channel, out),
		}
		let channels: Vec<ChannelId> = [channel].into_iter().chain(self.second).collect();
		let before: Vec<_> = channels.iter().map(|channel| self.funding(*channel)).collect();
		if self.case == Case::SplicePeerOffline {
			for _ in 0..LONELY_LIVES {
				(self.step)("the victim writes its manager and stops; the peer is still away");
				assert!(self.net.persist_manager(self.victim));
				self.crash();
				self.restart(false);
			}
		}
		self.crash();
		self.restart(true);
		let last = self.report();
		(self.step)(&last.to_string());
		self.lives.push(last);
		let runs = self.net.is_running(self.victim);
		let spliced = runs
			&& channels.iter().zip(before).all(|(channel, before)| {
				let bumped = || self.case != Case::FeeBump || self.pays_more(*channel);
				self.funding(*channel) != before && bumped()
			});
		Outcome {
			case: self.case,
			lives: std::mem::take(&mut self.lives),
			paid: None,
			channels_expected: channels.len(),
			spliced: Some(spliced),
		}
	}

	fn ask(&mut self, what: &str, channel: ChannelId, asked: Asked) {
		(self.step)(&format!("the victim's user {what}"));
		self.net.ask_for_splice(self.victim, channel, asked);
	}

	fn crash(&mut self) {
		let report = self.report();
		(self.step)(&report.to_string());
		self.lives.push(report);
		(self.step)("crash");
		self.net.crash(self.victim);
	}

	fn restart(&mut self, peer_is_back: bool) {
		(self.step)(if peer_is_back { "restart; the peer is back" } else { "restart" });
		let (net, victim, peer) = (&mut self.net, self.victim, self.peer);
		let lived = catch(|| {
			net.restart(victim);
			net.settle();
			if peer_is_back {
				net.connect(victim, peer);
				net.mine(LOCK_BLOCKS);
			}
		});
		if lived.is_err() {
			self.net.disk(self.victim).kill();
			self.net.pause(self.victim);
		}
	}

	fn funding(&self, channel: ChannelId) -> Option<lightning::chain::transaction::OutPoint> {
		self.net.channel(self.victim, channel)?.funding_txo
	}

	/// Whether the splice that has locked is the one with the higher fee.
	fn pays_more(&self, channel: ChannelId) -> bool {
		let Some(funding) = self.funding(channel) else { return false };
		let Some(splice) = self.net.chain.tx(&funding.txid) else { return false };
		let value = |input: &bitcoin::TxIn| {
			let from = self.net.chain.tx(&input.previous_output.txid)?;
			Some(from.output.get(input.previous_output.vout as usize)?.value.to_sat())
		};
		let paid_in: u64 = splice.input.iter().filter_map(value).sum();
		let paid_out: u64 = splice.output.iter().map(|output| output.value.to_sat()).sum();
		// Some is rounded away.
		(paid_in - paid_out) * 1000 >= HIGHER_FEE * splice.weight().to_wu() * 9 / 10
	}

	fn report(&self) -> LifeReport {
		let life = self.net.life(self.victim);
		let ledger = self.net.ledger(self.victim).into_iter().filter(|t| t.life == life);
		let running = self.net.is_running(self.victim);
		LifeReport {
			life,
			told: ledger.map(|t| describe(&t.event)).collect(),
			panicked: None,
			channels: running.then(|| self.net.channels(self.victim).len()),
			paid: None,
		}
	}
}
