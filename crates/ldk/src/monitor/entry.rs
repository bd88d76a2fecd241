// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A monitor event in the log.
//!
//! ```text
//! offset  size  what
//!      0     1  layout, 1
//!      1    34  funding outpoint, LDK's encoding: txid, then the index in two bytes
//!     35    32  channel id
//!     67    33  the counterparty's node id
//!    100        the `MonitorEvent`, LDK's encoding
//! ```

use bitcoin::secp256k1::PublicKey;
use leyden_id::Lane;
use leyden_log::NewEvent;
use lightning::chain::channelmonitor::MonitorEvent;
use lightning::chain::transaction::OutPoint;
use lightning::ln::types::ChannelId;
use lightning::util::ser::{MaybeReadable, Readable, Writeable};

use super::view::View;

const LAYOUT: u8 = 1;

/// What `Watch::release_pending_monitor_events` says of one event.
#[derive(Clone)]
pub(crate) struct MonitorEntry {
	pub(crate) funding: OutPoint,
	pub(crate) channel_id: ChannelId,
	pub(crate) counterparty: PublicKey,
	pub(crate) event: MonitorEvent,
}

/// Why an entry of the log cannot be handed out as an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unreadable {
	/// This version of LDK does not know the variant, or does not read its fields.
	UnknownEvent,
	/// A newer version of Leyden wrote it.
	NewerLayout,
	/// It is too short, or its parts are not what they should be.
	Malformed,
}

impl MonitorEntry {
	pub(crate) fn new_event(&self, view: &View) -> NewEvent {
		NewEvent {
			id: view.event_id(&self.channel_id, &self.counterparty),
			kind: view.kind.event_kind(),
			lane: Lane::channel(leyden_id::ChannelId(self.channel_id.0)),
			payload: self.encode(),
		}
	}

	pub(crate) fn encode(&self) -> Vec<u8> {
		let mut out = vec![LAYOUT];
		out.extend(self.funding.encode());
		out.extend(self.channel_id.encode());
		out.extend(self.counterparty.encode());
		out.extend(self.event.encode());
		out
	}

	/// Reads an entry. An event that this version does not know is an error here, and stays in the
	/// log.
	pub(crate) fn decode(payload: &[u8]) -> Result<Self, Unreadable> {
		let mut rest = match payload.split_first() {
			Some((&LAYOUT, rest)) => rest,
			Some((layout, _)) if *layout > LAYOUT => return Err(Unreadable::NewerLayout),
			_ => return Err(Unreadable::Malformed),
		};
		let malformed = |_| Unreadable::Malformed;
		let funding = Readable::read(&mut rest).map_err(malformed)?;
		let channel_id = Readable::read(&mut rest).map_err(malformed)?;
		let counterparty = Readable::read(&mut rest).map_err(malformed)?;
		let event = match <MonitorEvent as MaybeReadable>::read(&mut rest) {
			Ok(Some(event)) if rest.is_empty() => event,
			_ => return Err(Unreadable::UnknownEvent),
		};
		Ok(Self { funding, channel_id, counterparty, event })
	}

	/// The channel of an entry, even if its event cannot be read.
	pub(crate) fn channel_of(payload: &[u8]) -> Option<ChannelId> {
		payload.get(35..67).and_then(|bytes| bytes.try_into().ok()).map(ChannelId)
	}
}

/// An entry that is read is written as it is read again; its channel and its id stay.
#[cfg(feature = "fuzz")]
pub(crate) fn monitor_entry_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let Ok(entry) = MonitorEntry::decode(bytes) else { return Vec::new() };
	let id = |entry: &MonitorEntry| {
		View::of(&entry.event).event_id(&entry.channel_id, &entry.counterparty).as_bytes().to_vec()
	};
	let once = entry.encode();
	let channel = MonitorEntry::channel_of(bytes).map_or_else(Vec::new, |id| id.0.to_vec());
	let Ok(again) = MonitorEntry::decode(&once) else {
		return vec![(once, b"what was written cannot be read".to_vec())];
	};
	vec![(once, again.encode()), (entry.channel_id.0.to_vec(), channel), (id(&entry), id(&again))]
}

#[cfg(test)]
mod tests {
	use super::super::view::tests::forward;
	use super::*;

	fn sample(event: MonitorEvent) -> MonitorEntry {
		let key = bitcoin::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
		MonitorEntry {
			funding: OutPoint { txid: bitcoin::hashes::Hash::all_zeros(), index: 1 },
			channel_id: ChannelId([4; 32]),
			counterparty: key.public_key(&bitcoin::secp256k1::Secp256k1::new()),
			event,
		}
	}

	#[test]
	fn an_entry_reads_back() {
		for event in [forward(5, 1, 2, true), MonitorEvent::CommitmentTxConfirmed(())] {
			let entry = sample(event);
			let bytes = entry.encode();
			let read = MonitorEntry::decode(&bytes).unwrap();
			assert_eq!(read.funding, entry.funding);
			assert_eq!(read.channel_id, entry.channel_id);
			assert_eq!(read.counterparty, entry.counterparty);
			assert!(read.event == entry.event);
			assert_eq!(MonitorEntry::channel_of(&bytes), Some(entry.channel_id));
		}
	}

	#[test]
	fn what_this_version_does_not_know_is_an_error_and_not_a_panic() {
		let mut bytes = sample(MonitorEvent::CommitmentTxConfirmed(())).encode();
		// A variant of the future, odd (LDK would skip it) and even (LDK would refuse it).
		for variant in [201, 200] {
			bytes.truncate(100);
			bytes.extend_from_slice(&[variant, 0]);
			assert_eq!(MonitorEntry::decode(&bytes).err(), Some(Unreadable::UnknownEvent));
			assert_eq!(MonitorEntry::channel_of(&bytes), Some(ChannelId([4; 32])));
		}
		bytes[0] = 2;
		assert_eq!(MonitorEntry::decode(&bytes).err(), Some(Unreadable::NewerLayout));
		for length in 0..100 {
			bytes[0] = 1;
			assert!(MonitorEntry::decode(&bytes[..length]).is_err());
		}
	}
}
