// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What the bus remembers of this life. The log remembers the rest.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bitcoin::secp256k1::PublicKey;
use leyden_log::{Appended, LogIndex};
use lightning::chain::channelmonitor::MonitorEvent;
use lightning::chain::transaction::OutPoint;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;

use super::entry::MonitorEntry;
use super::view::{MonitorEventKind, View};

/// The shape that `Watch::release_pending_monitor_events` answers in.
pub(crate) type Released = Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)>;

/// An entry that was given to the manager in this life and is not acked.
#[derive(Clone, Copy)]
pub(crate) struct HandedOut {
	pub(crate) index: LogIndex,
	pub(crate) payment_hash: Option<PaymentHash>,
}

/// An entry that is owed to the manager, but cannot be given to it now.
#[derive(Clone, Copy)]
pub(crate) struct SetAside {
	pub(crate) channel_id: ChannelId,
	pub(crate) why: Why,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Why {
	/// A failure, while updates of its channel are in flight.
	UpdatesInFlight,
	Quarantined(super::Quarantine),
}

/// An event that may be handed out.
pub(crate) struct Logged {
	pub(crate) entry: MonitorEntry,
	pub(crate) view: View,
	/// What the log said; `None` for what is never logged.
	pub(crate) appended: Option<Appended>,
}

/// Where the replay of what earlier lives left un-acked has come to.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Replay {
	After(Option<LogIndex>),
	Done,
}

pub(crate) struct State {
	pub(crate) replay: Replay,
	/// In the order of handing out; the first is number `settled`.
	handed_out: VecDeque<HandedOut>,
	/// How many were handed out and acked since.
	settled: u64,
	/// The indices in `handed_out`, so that an event that is produced again is recognized.
	in_hand: HashSet<LogIndex>,
	/// How many un-acked HTLC events of this life belong to a payment.
	payments: HashMap<PaymentHash, usize>,
	pub(crate) set_aside: BTreeMap<LogIndex, SetAside>,
	/// Taken from the monitors and not in the log: the log could not be written.
	pub(crate) unlogged: Vec<MonitorEntry>,
	/// In the log, or without a place in it, and not handed out yet.
	pub(crate) logged: Vec<Logged>,
	/// Channels whose close the manager was told of in this life. A peer chooses the temporary id of
	/// a channel, so an id means nothing without its counterparty.
	closes_told: HashSet<(ChannelId, PublicKey)>,
	/// An update was completed since what waits for that was looked at.
	pub(crate) has_completed: bool,
}

impl State {
	pub(crate) fn new() -> Self {
		Self {
			replay: Replay::After(None),
			handed_out: VecDeque::new(),
			settled: 0,
			in_hand: HashSet::new(),
			payments: HashMap::new(),
			set_aside: BTreeMap::new(),
			unlogged: Vec::new(),
			logged: Vec::new(),
			closes_told: HashSet::new(),
			has_completed: true,
		}
	}

	/// Everything handed out so far is below this mark.
	pub(crate) fn mark(&self) -> u64 {
		self.settled + self.handed_out.len() as u64
	}

	/// What was handed out before `mark` and is not acked.
	pub(crate) fn below(&self, mark: u64) -> Vec<LogIndex> {
		let count = mark.saturating_sub(self.settled);
		let count = usize::try_from(count).unwrap_or(usize::MAX);
		self.handed_out.iter().take(count).map(|h| h.index).collect()
	}

	/// What was handed out before `mark` is acked.
	pub(crate) fn settle(&mut self, mark: u64) {
		while self.settled < mark {
			let Some(done) = self.handed_out.pop_front() else { break };
			self.settled += 1;
			self.in_hand.remove(&done.index);
			if let Some(hash) = done.payment_hash {
				self.payment_settled(&hash);
			}
		}
	}

	pub(crate) fn is_in_hand(&self, index: LogIndex) -> bool {
		self.in_hand.contains(&index)
	}

	pub(crate) fn awaits_payment(&self, hash: &PaymentHash) -> bool {
		self.payments.contains_key(hash)
	}

	/// Whether an event may still need its monitor. What is in quarantine does not: its monitor is
	/// gone, or nobody can read it.
	pub(crate) fn needs_monitors(&self) -> bool {
		!self.handed_out.is_empty()
			|| !self.unlogged.is_empty()
			|| !self.logged.is_empty()
			|| self.replay != Replay::Done
			|| self.set_aside.values().any(|aside| aside.why == Why::UpdatesInFlight)
	}

	/// Gives `entry` to the manager. Answers whether a close had to be put in front of it.
	///
	/// An HTLC event means that its channel is closed on chain. A manager that still has the
	/// channel open panics over one, at every start (rc3's `handle_post_event_actions`), so it is
	/// told of a close first; for a manager that knows, that changes nothing.
	pub(crate) fn hand_out(
		&mut self, out: &mut Released, index: Option<LogIndex>, view: &View, entry: MonitorEntry,
	) -> bool {
		let channel = (entry.channel_id, entry.counterparty);
		let close_first = view.kind.is_htlc() && self.closes_told.insert(channel);
		if close_first {
			let event = MonitorEvent::CommitmentTxConfirmed(());
			push(out, MonitorEntry { event, ..entry.clone() });
		}
		if view.kind.is_close() {
			self.closes_told.insert(channel);
		}
		if let Some(index) = index {
			self.set_aside.remove(&index);
			if self.in_hand.insert(index) {
				self.handed_out.push_back(HandedOut { index, payment_hash: view.payment_hash });
				if let Some(hash) = view.payment_hash {
					*self.payments.entry(hash).or_default() += 1;
				}
			}
		}
		push(out, entry);
		close_first
	}

	/// Whether an event of this kind may be given to the manager now.
	pub(crate) fn obstacle(kind: MonitorEventKind, in_flight: Option<bool>) -> Option<Why> {
		match in_flight {
			None => Some(Why::Quarantined(super::Quarantine::MonitorNotLoaded)),
			Some(true) if kind == MonitorEventKind::HtlcFail => Some(Why::UpdatesInFlight),
			Some(_) => None,
		}
	}

	fn payment_settled(&mut self, hash: &PaymentHash) {
		if let Some(count) = self.payments.get_mut(hash) {
			*count -= 1;
			if *count == 0 {
				self.payments.remove(hash);
			}
		}
	}
}

fn push(out: &mut Released, entry: MonitorEntry) {
	match out.last_mut() {
		Some((funding, channel_id, events, counterparty))
			if *funding == entry.funding
				&& *channel_id == entry.channel_id
				&& *counterparty == entry.counterparty =>
		{
			events.push(entry.event);
		},
		_ => out.push((entry.funding, entry.channel_id, vec![entry.event], entry.counterparty)),
	}
}
