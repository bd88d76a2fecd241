// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Taking events from the monitors below, logging them, and handing them out.

use std::collections::HashMap;

use leyden_log::{Appended, DamagedEntry, Entry, LogError, LogIndex};
use lightning::ln::types::ChannelId;

use super::bus::{source, Bus};
use super::chain::MonitorSet;
use super::entry::{MonitorEntry, Unreadable};
use super::note::{BusNote, Quarantine};
use super::state::{Logged, Released, Replay, SetAside, State, Why};
use super::view::{MonitorEventKind, View};

/// Entries replayed in one call, so that a long backlog does not have to fit into memory. LDK asks
/// again after every batch.
pub(crate) const MAX_REPLAYED_PER_CALL: usize = 4096;

impl Bus {
	/// Hands out what earlier lives left un-acked, in the order in which it was logged.
	pub(crate) fn replay(
		&self, state: &mut State, monitors: &HashMap<ChannelId, bool>, out: &mut Released,
	) -> Result<(), LogError> {
		let Replay::After(after) = state.replay else { return Ok(()) };
		let page = self.consumer.unacked(after, MAX_REPLAYED_PER_CALL)?;
		let mut last = None;
		for place in &page {
			match place {
				Ok(entry) => {
					last = Some(entry.index());
					self.replay_one(state, monitors, entry, out);
				},
				// LDK takes the events of a channel in any order, so no other waits for this one.
				Err(damaged) => {
					last = Some(damaged.index());
					self.quarantine_damaged(state, damaged);
				},
			}
		}
		state.replay = match last {
			Some(last) if page.len() >= MAX_REPLAYED_PER_CALL => Replay::After(Some(last)),
			_ => Replay::Done,
		};
		Ok(())
	}

	/// Looks again at what could not be handed out before. Asks about the channels of those entries
	/// only; which updates are in flight only after one was completed.
	pub(crate) fn retry_set_aside(
		&self, state: &mut State, monitors: &(impl MonitorSet + ?Sized), out: &mut Released,
	) -> Result<(), LogError> {
		let waits = |aside: &SetAside| aside.why == Why::UpdatesInFlight;
		let asks = std::mem::take(&mut state.has_completed) && state.set_aside.values().any(waits);
		let in_flight = asks.then(|| monitors.monitors());
		let found = |aside: &SetAside| match aside.why {
			Why::UpdatesInFlight => {
				in_flight.as_ref().and_then(|m| m.get(&aside.channel_id).copied())
			},
			Why::Quarantined(Quarantine::MonitorNotLoaded) => {
				monitors.is_loaded(&aside.channel_id).then_some(false)
			},
			Why::Quarantined(_) => None,
		};
		let due: Vec<_> = state
			.set_aside
			.iter()
			.filter(|(_, aside)| found(aside) == Some(false))
			.map(|(index, aside)| (*index, aside.channel_id))
			.collect();
		for (index, channel_id) in due {
			let before = LogIndex::new(index.get() - 1);
			let monitors = HashMap::from([(channel_id, false)]);
			match self.consumer.unacked(before, 1)?.first() {
				Some(Ok(entry)) if entry.index() == index => {
					self.replay_one(state, &monitors, entry, out);
				},
				Some(Err(damaged)) if damaged.index() == index => {
					self.quarantine_damaged(state, damaged);
				},
				// It was acked by hand.
				_ => drop(state.set_aside.remove(&index)),
			}
		}
		Ok(())
	}

	/// Logs what was taken from the monitors, in one commit.
	///
	/// On `Err` all of it stays where it is, in order, to be logged by the next call.
	pub(crate) fn log_taken(&self, state: &mut State) -> Result<(), LogError> {
		let views: Vec<View> = state.unlogged.iter().map(|e| View::of(&e.event)).collect();
		let is_logged = |view: &View| view.kind != MonitorEventKind::Completed;
		let new = state.unlogged.iter().zip(&views).filter(|(_, view)| is_logged(view));
		let new: Vec<_> = new.map(|(entry, view)| entry.new_event(view)).collect();
		// By their ids alone: LDK may bring an event again in another encoding, after an upgrade or a
		// rescan.
		let appended = match new.is_empty() {
			true => Vec::new(),
			false => self.log.append_batch_plan(new).commit(self.log.store()).wait()?,
		};
		let mut appended = appended.into_iter();
		state.has_completed |= views.iter().any(|view| !is_logged(view));
		for (entry, view) in std::mem::take(&mut state.unlogged).into_iter().zip(views) {
			let appended = if is_logged(&view) { appended.next() } else { None };
			state.logged.push(Logged { entry, view, appended });
		}
		Ok(())
	}

	/// Hands out what was logged.
	pub(crate) fn hand_out_logged(&self, state: &mut State, out: &mut Released) {
		for Logged { entry, view, appended } in std::mem::take(&mut state.logged) {
			let channel_id = entry.channel_id;
			let index = match appended {
				Some(Appended::New(index)) => Some(index),
				Some(Appended::AlreadyKnown(index)) => {
					let source = source(channel_id, index);
					self.note(BusNote::Regenerated { source, kind: view.kind });
					// The manager has what is in hand. Otherwise it was acked (then the manager has
					// it as well, and a second time changes nothing), or set aside (then it is due
					// now), or logged by a commit that was answered too late.
					if state.is_in_hand(index) {
						continue;
					}
					let is_acked = self.consumer.is_acked(index).unwrap_or(true);
					(state.set_aside.contains_key(&index) || !is_acked).then_some(index)
				},
				None => None,
			};
			let close_first = state.hand_out(out, index, &view, entry);
			self.note_close_first(close_first, channel_id);
		}
	}

	fn replay_one(
		&self, state: &mut State, monitors: &HashMap<ChannelId, bool>, entry: &Entry,
		out: &mut Released,
	) {
		let index = entry.index();
		let decoded = match MonitorEntry::decode(entry.payload()) {
			Ok(decoded) => decoded,
			Err(unreadable) => {
				let channel = MonitorEntry::channel_of(entry.payload());
				let channel_id = channel.unwrap_or(ChannelId([0; 32]));
				let why = match unreadable {
					Unreadable::UnknownEvent | Unreadable::NewerLayout => Quarantine::UnknownEvent,
					Unreadable::Malformed => Quarantine::Malformed,
				};
				self.set_aside(state, index, channel_id, Why::Quarantined(why));
				return;
			},
		};
		let channel_id = decoded.channel_id;
		let view = View::of(&decoded.event);
		if let Some(why) = State::obstacle(view.kind, monitors.get(&channel_id).copied()) {
			self.set_aside(state, index, channel_id, why);
			return;
		}
		self.note(BusNote::Replayed { source: source(channel_id, index), kind: view.kind });
		let close_first = state.hand_out(out, Some(index), &view, decoded);
		self.note_close_first(close_first, channel_id);
	}

	fn quarantine_damaged(&self, state: &mut State, damaged: &DamagedEntry) {
		let channel = damaged.lane().and_then(|lane| lane.channel_id());
		let channel_id = channel.map_or(ChannelId([0; 32]), |channel| ChannelId(channel.0));
		let why = Why::Quarantined(Quarantine::Malformed);
		self.set_aside(state, damaged.index(), channel_id, why);
	}

	fn set_aside(&self, state: &mut State, index: LogIndex, channel_id: ChannelId, why: Why) {
		let source = source(channel_id, index);
		self.note(match why {
			Why::UpdatesInFlight => BusNote::HeldBack { source },
			Why::Quarantined(why) => BusNote::Quarantined { source, why },
		});
		state.set_aside.insert(index, SetAside { channel_id, why });
	}

	fn note_close_first(&self, close_first: bool, channel_id: ChannelId) {
		if close_first {
			let channel_id = leyden_id::ChannelId(channel_id.0);
			self.note(BusNote::CloseFirst { channel_id });
		}
	}
}
