//! The pieces that the cases are put together from.

use super::outcome::{describe, LifeReport, Outcome};
use super::{Case, CaseSetup};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;

use crate::net::{Idx, LdkNet, Sent};
use crate::node::NodeConfig;
use crate::panics::{catch, Caught};

/// More than LDK ever waits before it writes a monitor because of blocks alone.
const MONITOR_WRITE_BLOCKS: u32 = 60;
/// How far a node that runs again is followed.
const AFTER_BLOCKS: u32 = 6;
/// Confirmations after which LDK believes that an HTLC without an output has failed.
const FINAL_BLOCKS: u32 = 6;
/// An HTLC this small has no output in a commitment transaction.
pub(super) const DUST_MSAT: u64 = 100_000;
/// An HTLC this large has one.
pub(super) const VISIBLE_MSAT: u64 = 30_000_000;
const CHANNEL_SATS: u64 = 1_000_000;

pub(super) struct Stage<'a> {
	pub(super) net: LdkNet,
	pub(super) victim: Idx,
	payee: Idx,
	/// The channel that ends on chain.
	pub(super) channel: ChannelId,
	sent: Sent,
	case: Case,
	step: &'a mut dyn FnMut(&str),
	lives: Vec<LifeReport>,
	channels_expected: usize,
	/// The height before the commitment transaction was mined.
	start: u32,
}

impl<'a> Stage<'a> {
	/// The victim pays, and the payee holds the payment.
	pub(super) fn paying(
		case: Case, setup: &CaseSetup, msat: u64, step: &'a mut dyn FnMut(&str),
	) -> Self {
		let mut net = LdkNet::new(setup.seed);
		let victim = add(&mut net, case, setup, "victim");
		let payee = add(&mut net, case, setup, "payee");
		step("two nodes, a channel, a payment that the payee holds");
		net.connect(victim, payee);
		let channel = net.open_channel(victim, payee, CHANNEL_SATS);
		let sent = net.pay(victim, payee, msat);
		Self::new(case, net, (victim, payee), channel, sent, 0, step)
	}

	/// The victim forwards a payment, and the payee holds it.
	pub(super) fn forwarding(
		case: Case, setup: &CaseSetup, msat: u64, step: &'a mut dyn FnMut(&str),
	) -> Self {
		let mut net = LdkNet::new(setup.seed);
		let payer = add(&mut net, case, setup, "payer");
		let victim = add(&mut net, case, setup, "victim");
		let payee = add(&mut net, case, setup, "payee");
		step("three nodes, two channels, a forwarded payment that the payee holds");
		net.connect(payer, victim);
		net.connect(victim, payee);
		net.open_channel(payer, victim, CHANNEL_SATS);
		let channel = net.open_channel(victim, payee, CHANNEL_SATS);
		let sent = net.pay(payer, payee, msat);
		// The channel with the payer stays.
		Self::new(case, net, (victim, payee), channel, sent, 1, step)
	}

	fn new(
		case: Case, net: LdkNet, (victim, payee): (Idx, Idx), channel: ChannelId, sent: Sent,
		channels_expected: usize, step: &'a mut dyn FnMut(&str),
	) -> Self {
		let (lives, start) = (Vec::new(), 0);
		let mut stage = Stage {
			net,
			victim,
			payee,
			channel,
			sent,
			case,
			step,
			lives,
			channels_expected,
			start,
		};
		assert_eq!(stage.net.told(payee, "PaymentClaimable"), 1, "the payee holds the payment");
		stage.say("the victim writes its manager: channel open, payment pending");
		assert!(stage.net.persist_manager(victim));
		stage.net.set_auto_persist(victim, false);
		stage.net.disconnect_all(victim);
		stage
	}

	pub(super) fn say(&mut self, what: &str) {
		(self.step)(what)
	}

	/// The payee claims and goes on chain: one block with its commitment, one with its claim. The
	/// victim sees neither yet.
	pub(super) fn claim_on_chain(&mut self) {
		self.net.claim(self.sent.hash);
		self.close_on_chain();
		self.net.mine(1);
	}

	/// The payee goes on chain without the payment, which is too small for an output, and the
	/// victim would believe it now. It sees nothing yet.
	pub(super) fn fail_on_chain(&mut self) {
		self.close_on_chain();
		self.net.mine(FINAL_BLOCKS);
	}

	fn close_on_chain(&mut self) {
		self.say("the payee goes on chain; the victim has not seen it yet");
		self.net.pause(self.victim);
		self.start = self.net.chain.height();
		let channel = self.net.channel(self.payee, self.channel).expect("open");
		let funding = channel.funding_txo.expect("funded").into_bitcoin_outpoint();
		self.net.force_close(self.payee, self.channel);
		// Alone in its block: its claim is broadcast together with it, and must come after it.
		let mut commitment = self.net.chain.mempool();
		commitment.retain(|tx| tx.input[0].previous_output == funding);
		assert_eq!(commitment.len(), 1, "the payee's commitment transaction");
		self.net.mine_txs(commitment);
	}

	/// The victim sees `count` blocks from the commitment's on, in both halves.
	pub(super) fn see(&mut self, count: u32) {
		let height = self.start + count;
		self.net.sync_to(self.victim, height);
	}

	/// The victim sees all there is, in both halves.
	pub(super) fn see_all(&mut self) {
		self.net.sync(self.victim);
	}

	/// The victim's manager takes what its monitors have, but its user is told nothing: that is
	/// what happens when its peer handler looks for messages.
	pub(super) fn drain(&mut self) {
		self.say("the victim's manager takes the monitors' events; the user is told nothing yet");
		self.net.node(self.victim).drain();
	}

	/// The victim's event loop runs once.
	pub(super) fn handle_events(&mut self) {
		self.say("the victim's event loop runs");
		self.net.node(self.victim).process_events();
	}

	/// Blocks pass until LDK writes the monitor of the channel because of them.
	pub(super) fn until_monitor_written(&mut self) {
		self.say("blocks pass until LDK writes the monitor by itself");
		let node = self.net.node(self.victim);
		let name =
			node.chain_monitor().get_monitor(self.channel).expect("loaded").persistence_key();
		let name = name.to_string();
		let on_disk = |net: &LdkNet, n| net.disk(n).monitors().remove(&name);
		let before = on_disk(&self.net, self.victim);
		for _ in 0..MONITOR_WRITE_BLOCKS {
			if !self.net.is_running(self.victim) {
				// It died earlier than the case wants it to.
				return;
			}
			self.net.mine(1);
			self.see_all();
			if on_disk(&self.net, self.victim) != before {
				return;
			}
		}
		panic!("LDK did not write the monitor");
	}

	/// The machine stops before the manager's next write.
	pub(super) fn crash(&mut self) {
		let node = self.net.node(self.victim);
		let channels = Some(node.channels().len());
		let report = self.report(channels, None);
		self.end_life(report);
	}

	fn end_life(&mut self, report: LifeReport) {
		self.say(&report.to_string());
		self.lives.push(report);
		self.say("crash");
		self.net.crash(self.victim);
	}

	/// Restarts the victim until it has lived twice without a panic, at most `tries` times, and
	/// says what has become of it.
	pub(super) fn aftermath(mut self, tries: u32) -> Outcome {
		let mut calm = 0;
		let mut left = tries;
		while left > 0 {
			let lived = self.live();
			left -= 1;
			if lived.panicked.is_none() && !self.net.is_running(self.victim) {
				// Its disk died, which is no fault of this life: it gets another one.
				left += 1;
				self.end_life(lived);
				continue;
			}
			calm += u32::from(lived.panicked.is_none());
			if calm == 2 || left == 0 {
				self.say(&lived.to_string());
				self.lives.push(lived);
				break;
			}
			self.end_life(lived);
		}
		let asked = self.sent.from;
		let panicked = self.lives.iter().last().is_some_and(|l| l.panicked.is_some());
		let silent = asked == self.victim && panicked;
		Outcome {
			case: self.case,
			paid: (!silent).then(|| self.net.paid(&self.sent)),
			lives: self.lives,
			channels_expected: self.channels_expected,
			spliced: None,
		}
	}

	/// A life in which the manager takes what the monitors have and is written before its user is
	/// told.
	pub(super) fn live_only_to_write(&mut self) {
		self.say("restart; the manager takes the monitors' events and is written, then it dies");
		let (net, victim) = (&mut self.net, self.victim);
		let lived = catch(|| {
			net.restart(victim);
			net.node(victim).drain();
			let written = net.persist_manager(victim);
			assert!(written || !net.is_running(victim));
			net.channels(victim).len()
		});
		let report = self.judge(lived);
		self.end_life(report);
	}

	/// One life after the crash: restart, sync, event loop, reconnect, some blocks, manager
	/// written.
	fn live(&mut self) -> LifeReport {
		self.say("restart");
		let (net, victim, case) = (&mut self.net, self.victim, self.case);
		let lived = catch(|| {
			net.restart(victim);
			net.node(victim).process_events();
			net.set_auto_persist(victim, case.is_deferred());
			net.resume(victim);
			for peer in peers_with_channel(net, victim) {
				if net.is_running(victim) {
					net.connect(victim, peer);
				}
			}
			net.mine(AFTER_BLOCKS);
			let written = net.persist_manager(victim);
			assert!(written || !net.is_running(victim));
			net.channels(victim).len()
		});
		self.judge(lived)
	}

	fn judge(&mut self, lived: Result<usize, Caught>) -> LifeReport {
		// A node that panicked holds poisoned locks: it must not be touched again.
		if lived.is_err() {
			self.net.disk(self.victim).kill();
			self.net.pause(self.victim);
		}
		let channels = lived.as_ref().ok().copied();
		self.report(channels, lived.err())
	}

	fn report(&self, channels: Option<usize>, panicked: Option<Caught>) -> LifeReport {
		let life = self.net.life(self.victim);
		let ledger = self.net.ledger(self.victim).into_iter().filter(|t| t.life == life);
		let paid = (panicked.is_none() && self.sent.from == self.victim)
			.then(|| self.net.paid(&self.sent));
		LifeReport {
			life,
			told: ledger.map(|t| describe(&t.event)).collect(),
			panicked,
			channels,
			paid,
		}
	}
}

fn add(net: &mut LdkNet, case: Case, setup: &CaseSetup, role: &str) -> Idx {
	let config = if setup.anchors { NodeConfig::anchors() } else { NodeConfig::legacy() };
	if role != "victim" {
		return net.add_node_on(config, (setup.disks)(role), crate::Bare::factory());
	}
	let config = if case.is_deferred() { config.deferred() } else { config };
	net.add_node_on(config, (setup.disks)(role), setup.guards.clone())
}

/// Peers who still have a channel with the node. Others would answer that they know of none, and
/// the node would close what it wrongly believes to be open: help that does not come when they are
/// gone.
fn peers_with_channel(net: &LdkNet, n: Idx) -> Vec<Idx> {
	let id: PublicKey = net.id(n);
	let has = |peer: &Idx| {
		net.is_running(*peer)
			&& *peer != n
			&& net.channels(*peer).iter().any(|c| c.counterparty.node_id == id)
	};
	(0..net.len()).filter(has).collect()
}
