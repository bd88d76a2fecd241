// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What can be told about a [`MonitorEvent`] from outside of LDK, and what makes it *that* event.
//!
//! `HTLCUpdate`'s fields are private to LDK, but it can be encoded, and its encoding is a TLV
//! stream whose types LDK does not reuse. What is read of it here is the payment hash, whether
//! there is a preimage (not which), and who the HTLC's source is, by the fields that LDK's own
//! `SentHTLCId` takes: the session key of a payment of ours, or channel alias and HTLC id of a
//! forward.

use std::fmt;

use bitcoin::secp256k1::PublicKey;
use leyden_id::{Domain, EventId, EventKind, IdBuilder};
use lightning::chain::channelmonitor::{HTLCUpdate, MonitorEvent};
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::Writeable;

use crate::tlv;

const DOMAIN: Domain = Domain::new("leyden/monitor-event", 2);

/// What sort of monitor event it is, as far as Leyden tells them apart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum MonitorEventKind {
	/// An HTLC that we offered was claimed on chain: its preimage is known.
	HtlcClaim,
	/// An HTLC that we offered failed on chain.
	HtlcFail,
	/// We broadcast our commitment transaction.
	HolderForceClosed,
	/// A commitment transaction confirmed.
	CommitmentTxConfirmed,
	/// A monitor update was persisted. Never logged: LDK recomputes it at start.
	Completed,
}

impl MonitorEventKind {
	/// Whether it tells that the channel is closed.
	pub fn is_close(self) -> bool {
		matches!(self, Self::HolderForceClosed | Self::CommitmentTxConfirmed)
	}

	/// Whether it is about an HTLC.
	pub fn is_htlc(self) -> bool {
		matches!(self, Self::HtlcClaim | Self::HtlcFail)
	}

	/// Its name in the log.
	pub fn event_kind(self) -> EventKind {
		const CLAIM: EventKind = EventKind::from_static("HtlcClaim");
		const FAIL: EventKind = EventKind::from_static("HtlcFail");
		const HOLDER: EventKind = EventKind::from_static("HolderForceClosed");
		const CONFIRMED: EventKind = EventKind::from_static("CommitmentTxConfirmed");
		const COMPLETED: EventKind = EventKind::from_static("Completed");
		match self {
			Self::HtlcClaim => CLAIM,
			Self::HtlcFail => FAIL,
			Self::HolderForceClosed => HOLDER,
			Self::CommitmentTxConfirmed => CONFIRMED,
			Self::Completed => COMPLETED,
		}
	}
}

impl fmt::Display for MonitorEventKind {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		self.event_kind().fmt(f)
	}
}

/// A monitor event, seen from outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct View {
	pub(crate) kind: MonitorEventKind,
	/// Of an HTLC's payment.
	pub(crate) payment_hash: Option<PaymentHash>,
	/// What makes it one HTLC and not another.
	source: Vec<u8>,
}

impl View {
	pub(crate) fn of(event: &MonitorEvent) -> Self {
		let plain = |kind| Self { kind, payment_hash: None, source: Vec::new() };
		match event {
			MonitorEvent::HTLCEvent(update) => Self::of_htlc(update),
			MonitorEvent::HolderForceClosed(_) | MonitorEvent::HolderForceClosedWithInfo { .. } => {
				plain(MonitorEventKind::HolderForceClosed)
			},
			MonitorEvent::CommitmentTxConfirmed(()) => {
				plain(MonitorEventKind::CommitmentTxConfirmed)
			},
			MonitorEvent::Completed { .. } => plain(MonitorEventKind::Completed),
		}
	}

	/// The id of the logical event: the same whether a monitor hands it out, reads it back from
	/// disk, or derives it again from the same blocks.
	///
	/// There is one close of each sort per channel: a monitor never takes back that it saw the
	/// funding spent, not even after a reorg. The opener of a channel names the funding outpoint,
	/// and so the channel's id, before the outpoint exists: the counterparty sets its channels
	/// apart from those of others. Of an HTLC, value and reason are left out, since newer versions
	/// of LDK add to them, and so is the preimage.
	pub(crate) fn event_id(&self, channel_id: &ChannelId, counterparty: &PublicKey) -> EventId {
		let id = IdBuilder::new(DOMAIN, self.kind.event_kind().name()).bytes(&channel_id.0);
		let id = id.bytes(&counterparty.serialize());
		match &self.payment_hash {
			Some(hash) => id.bytes(&hash.0).bytes(&self.source).finish(),
			None => id.finish(),
		}
	}

	fn of_htlc(update: &HTLCUpdate) -> Self {
		let bytes = update.encode();
		let (records, _) = tlv::length_prefixed(&bytes).unwrap_or_default();
		let claimed = tlv::field(&records, 4).is_some();
		let hash = tlv::field(&records, 0).and_then(|hash| hash.try_into().ok());
		let source = match tlv::field(&records, 2) {
			Some(source) => source_identity(source),
			// Not the encoding that we know: all of it stands for the HTLC. Two different HTLCs
			// still get two ids, and that is what matters.
			None => tagged(b'x', &[&bytes]),
		};
		Self {
			kind: if claimed { MonitorEventKind::HtlcClaim } else { MonitorEventKind::HtlcFail },
			payment_hash: Some(PaymentHash(hash.unwrap_or_default())),
			source,
		}
	}
}

/// What LDK's `SentHTLCId` holds of an encoded `HTLCSource`.
fn source_identity(source: &[u8]) -> Vec<u8> {
	let known = || {
		let (variant, rest) = source.split_first()?;
		let (records, _) = tlv::length_prefixed(rest)?;
		match variant {
			// A payment of ours: the session key.
			0 => Some(tagged(b'r', &[tlv::field(&records, 0)?])),
			// A forward: the alias of the inbound channel and the HTLC's number in it.
			1 => Some(tagged(b'h', &[tlv::field(&records, 0)?, tlv::field(&records, 4)?])),
			_ => None,
		}
	};
	known().unwrap_or_else(|| tagged(b'x', &[source]))
}

fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
	let mut out = vec![tag];
	parts.iter().for_each(|part| out.extend_from_slice(part));
	out
}

#[cfg(test)]
pub(crate) mod tests {
	use super::*;
	use lightning::util::ser::Readable;

	/// An `HTLCUpdate` for a forward, by its encoding: LDK has no public constructor.
	pub(crate) fn forward(hash: u8, alias: u64, htlc_id: u64, claimed: bool) -> MonitorEvent {
		let mut hop = Vec::new();
		record(&mut hop, 0, &alias.to_be_bytes());
		record(&mut hop, 2, &[[9; 32].as_slice(), &[0, 0]].concat());
		record(&mut hop, 4, &htlc_id.to_be_bytes());
		record(&mut hop, 6, &[8; 32]);
		let source = [&[1, hop.len() as u8], hop.as_slice()].concat();
		let mut update = Vec::new();
		record(&mut update, 0, &[hash; 32]);
		record(&mut update, 1, &3_000u64.to_be_bytes());
		record(&mut update, 2, &source);
		if claimed {
			record(&mut update, 4, &[7; 32]);
		}
		let bytes = [&[update.len() as u8], update.as_slice()].concat();
		MonitorEvent::HTLCEvent(HTLCUpdate::read(&mut &bytes[..]).unwrap())
	}

	fn record(out: &mut Vec<u8>, record_type: u8, value: &[u8]) {
		out.extend_from_slice(&[record_type, value.len() as u8]);
		out.extend_from_slice(value);
	}

	fn node(secret: u8) -> PublicKey {
		let key = bitcoin::secp256k1::SecretKey::from_slice(&[secret; 32]).unwrap();
		key.public_key(&bitcoin::secp256k1::Secp256k1::new())
	}

	fn id(channel: u8, event: &MonitorEvent) -> EventId {
		View::of(event).event_id(&ChannelId([channel; 32]), &node(3))
	}

	#[test]
	fn channels_of_two_counterparties_with_one_id_have_two_closes() {
		let close = View::of(&MonitorEvent::CommitmentTxConfirmed(()));
		let id = |peer| close.event_id(&ChannelId([1; 32]), &node(peer));
		assert_ne!(id(3), id(4));
	}

	#[test]
	fn two_htlcs_with_the_same_hash_and_amount_are_two_events() {
		let ids = [
			id(1, &forward(5, 10, 0, true)),
			id(1, &forward(5, 10, 1, true)),
			id(1, &forward(5, 11, 0, true)),
			id(1, &forward(5, 10, 0, false)),
			id(2, &forward(5, 10, 0, true)),
			id(1, &forward(6, 10, 0, true)),
		];
		for (i, a) in ids.iter().enumerate() {
			assert!(ids.iter().skip(i + 1).all(|b| a != b), "vector {i}");
		}
	}

	#[test]
	fn the_same_htlc_is_the_same_event() {
		assert_eq!(id(1, &forward(5, 10, 0, true)), id(1, &forward(5, 10, 0, true)));
	}

	#[test]
	fn a_holder_close_is_one_event_with_and_without_its_reason() {
		use lightning::chain::transaction::OutPoint;
		use lightning::events::ClosureReason;
		let outpoint = OutPoint { txid: bitcoin::hashes::Hash::all_zeros(), index: 0 };
		let with = MonitorEvent::HolderForceClosedWithInfo {
			reason: ClosureReason::CommitmentTxConfirmed,
			outpoint,
			channel_id: ChannelId([1; 32]),
		};
		assert_eq!(id(1, &with), id(1, &MonitorEvent::HolderForceClosed(outpoint)));
		assert_ne!(id(1, &with), id(1, &MonitorEvent::CommitmentTxConfirmed(())));
	}

	#[test]
	fn a_view_holds_no_preimage() {
		let view = View::of(&forward(5, 10, 0, true));
		assert_eq!(view.kind, MonitorEventKind::HtlcClaim);
		assert_eq!(view.payment_hash, Some(PaymentHash([5; 32])));
		assert!(!format!("{view:?}").contains("7, 7, 7"));
	}

	/// Ids are on users' disks: if this fails, acked events come back under other ids. Computed
	/// apart from this code.
	#[test]
	fn golden_ids() {
		let golden = [
			(
				forward(5, 10, 0, true),
				"86508d0d975ff014e216cc297eca337d848c25294da5affd28484700236aba4a",
			),
			(
				MonitorEvent::CommitmentTxConfirmed(()),
				"81fa426a74626be4bca2e332c7b106ef2059d777e8221a697093e4dc79188c4b",
			),
		];
		for (event, expected) in golden {
			assert_eq!(id(1, &event).to_string(), expected);
		}
	}
}
