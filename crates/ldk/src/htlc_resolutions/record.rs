// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The record of a resolution, and its key.

use bitcoin::secp256k1::PublicKey;
use leyden_store::{Key, StoreError, Table};
use lightning::events::Event;
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use serde::{Deserialize, Serialize};

use super::resolution::HtlcResolution;

pub(super) const RESOLUTIONS: Table = Table::new("htlc_resolutions");

/// A payment (of `PaymentClaimable`) or an HTLC (of `HTLCIntercepted`).
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Subject {
	Payment([u8; 32]),
	Intercepted([u8; 32]),
}

#[derive(Clone, Deserialize, Serialize)]
pub(super) enum ResolutionV1 {
	Claim { preimage: [u8; 32], claim_deadline: Option<u32> },
	FailBackwards,
	Forward { next_hop_channel_id: [u8; 32], next_node_id: Vec<u8>, amt_to_forward_msat: u64 },
	FailIntercepted,
}

leyden_store::stored! {
	ResolutionV1 = 0x0203,
}

impl Subject {
	pub(super) fn of(event: &Event) -> Option<Self> {
		match event {
			Event::PaymentClaimable { payment_hash, .. } => Some(Self::Payment(payment_hash.0)),
			Event::HTLCIntercepted { intercept_id, .. } => Some(Self::Intercepted(intercept_id.0)),
			_ => None,
		}
	}

	pub(super) fn key(self) -> Key {
		let (tag, id) = match self {
			Self::Payment(hash) => (b'p', hash),
			Self::Intercepted(id) => (b'i', id),
		};
		Key::new(RESOLUTIONS, [&[tag][..], &id].concat())
	}

	pub(super) fn read(key: &Key) -> Result<Self, StoreError> {
		let split = key.bytes().split_first().map(|(tag, id)| (*tag, id.try_into()));
		match split {
			Some((b'p', Ok(hash))) => Ok(Self::Payment(hash)),
			Some((b'i', Ok(id))) => Ok(Self::Intercepted(id)),
			_ => Err(StoreError::corrupt(key, "it is no key of a resolution")),
		}
	}
}

/// A resolution that is read of any subject is written as it is read again, and a key as it is.
#[cfg(feature = "fuzz")]
pub(crate) fn resolution_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	use leyden_store::codec;
	let mut pairs = Vec::new();
	for subject in [Subject::Payment([7; 32]), Subject::Intercepted([7; 32])] {
		let write = |body: &[u8]| {
			let record = codec::from_body::<ResolutionV1>(body).ok()?;
			let resolution = record.read(&subject.key(), subject).ok()?;
			Some(codec::encode(&ResolutionV1::of(&resolution)).ok()?.body)
		};
		if let Some(once) = write(bytes) {
			let twice = write(&once).unwrap_or_default();
			pairs.push((once, twice));
		}
	}
	if let Ok(subject) = Subject::read(&Key::new(RESOLUTIONS, bytes)) {
		pairs.push((bytes.to_vec(), subject.key().bytes().to_vec()));
	}
	pairs
}

impl ResolutionV1 {
	pub(super) fn of(resolution: &HtlcResolution) -> Self {
		match resolution {
			HtlcResolution::Claim { preimage, claim_deadline } => {
				Self::Claim { preimage: preimage.0, claim_deadline: *claim_deadline }
			},
			HtlcResolution::FailBackwards { .. } => Self::FailBackwards,
			HtlcResolution::Forward {
				next_hop_channel_id,
				next_node_id,
				amt_to_forward_msat,
				..
			} => Self::Forward {
				next_hop_channel_id: next_hop_channel_id.0,
				next_node_id: next_node_id.serialize().to_vec(),
				amt_to_forward_msat: *amt_to_forward_msat,
			},
			HtlcResolution::FailIntercepted { .. } => Self::FailIntercepted,
		}
	}

	pub(super) fn read(self, key: &Key, subject: Subject) -> Result<HtlcResolution, StoreError> {
		let resolution = match (self, subject) {
			(Self::Claim { preimage, claim_deadline }, Subject::Payment(_)) => {
				let preimage = PaymentPreimage(preimage);
				HtlcResolution::Claim { preimage, claim_deadline }
			},
			(Self::FailBackwards, Subject::Payment(hash)) => {
				HtlcResolution::FailBackwards { payment_hash: PaymentHash(hash) }
			},
			(
				Self::Forward { next_hop_channel_id, next_node_id, amt_to_forward_msat },
				Subject::Intercepted(id),
			) => {
				let node = PublicKey::from_slice(&next_node_id);
				let no_node = |_| StoreError::corrupt(key, "the next node is no public key");
				HtlcResolution::Forward {
					intercept_id: InterceptId(id),
					next_hop_channel_id: ChannelId(next_hop_channel_id),
					next_node_id: node.map_err(no_node)?,
					amt_to_forward_msat,
				}
			},
			(Self::FailIntercepted, Subject::Intercepted(id)) => {
				HtlcResolution::FailIntercepted { intercept_id: InterceptId(id) }
			},
			_ => return Err(StoreError::corrupt(key, "the resolution is of another kind")),
		};
		if resolution.subject() != subject {
			return Err(StoreError::corrupt(key, "the preimage is not of this payment"));
		}
		Ok(resolution)
	}
}

#[cfg(test)]
mod tests {
	use leyden_store::codec;

	use super::*;

	/// The bytes on users' disks. A change is a new schema, never another golden.
	#[test]
	fn golden_bytes() {
		let claim = ResolutionV1::Claim { preimage: [7; 32], claim_deadline: Some(9) };
		let body = codec::encode(&claim).unwrap().body;
		assert_eq!(body, [&[0, 0, 0, 0][..], &[7; 32], &[1, 0, 0, 0, 9]].concat());
		let forward = ResolutionV1::Forward {
			next_hop_channel_id: [8; 32],
			next_node_id: vec![2; 33],
			amt_to_forward_msat: 5,
		};
		let body = codec::encode(&forward).unwrap().body;
		let expected =
			[&[0, 0, 0, 2][..], &[8; 32], &33u64.to_be_bytes(), &[2; 33], &5u64.to_be_bytes()];
		assert_eq!(body, expected.concat());
	}
}
