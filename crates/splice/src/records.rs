// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! What is on disk.
//!
//! ```text
//! table         key                record
//! splices       splice id          0x0301 SpliceV1: a splice that is going on
//! splice_past   number             0x0301 SpliceV1: one that is over
//! splice_coins  txid, vout         0x0302 CoinV1: a reserved coin
//! ```

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut, Txid};
use leyden_id::ChannelId;
use leyden_store::codec;
use leyden_store::{Key, Record, Stamp, StoreError, Table, Timestamp, Value};
use serde::{Deserialize, Serialize};

use crate::keeper::SpliceFailed;
use crate::parts::{ChannelRef, Contribution, FeeBand, Material, SpliceId, SpliceKind};
use crate::reason::FailureReason;
use crate::splice::{Bump, Splice, SpliceState, Step, What};

pub(crate) const LIVE: Table = Table::new("splices");
pub(crate) const PAST: Table = Table::new("splice_past");
pub(crate) const COINS: Table = Table::new("splice_coins");

/// A reserved coin.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct CoinV1 {
	pub(crate) id: [u8; 32],
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct SpliceV1 {
	id: [u8; 32],
	channel_id: [u8; 32],
	user_channel_id: [u8; 16],
	counterparty: Vec<u8>,
	anchor: OutPointV1,
	kind: KindV1,
	band: BandV1,
	state: StateV1,
	contribution: Option<ContributionV1>,
	bump: Option<BumpV1>,
	earlier: Vec<MaterialV1>,
	txids: Vec<[u8; 32]>,
	inputs: Vec<OutPointV1>,
	failures: u32,
	canceling: bool,
	number: u64,
	asked: Stamp,
	expires_at: Timestamp,
	steps: Vec<StepV1>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct OutPointV1([u8; 32], u32);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct TxOutV1(u64, Vec<u8>);

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct BandV1(u64, u64);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum KindV1 {
	In(u64),
	Out(Vec<TxOutV1>),
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum StateV1 {
	Tentative,
	Accepted,
	Signing,
	Negotiated,
	Deferred,
	Settled,
	Failed(FailureReason),
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct MaterialV1(Vec<OutPointV1>, Vec<TxOutV1>);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct ContributionV1(Vec<u8>, MaterialV1, u64);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct BumpV1(ContributionV1, BandV1, bool, u32);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct StepV1(Timestamp, WhatV1);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum WhatV1 {
	Asked,
	HandedOver,
	Rebuilt,
	RoundFailed(FailureReason),
	Reanchored(OutPointV1),
	Signing([u8; 32]),
	Negotiated([u8; 32]),
	Bumped,
	BumpFailed(FailureReason),
	CancelAsked,
	Locked([u8; 32]),
	Failed(FailureReason),
	Refused(FailureReason),
}

leyden_store::stored! {
	SpliceV1 = 0x0301,
	CoinV1 = 0x0302,
	FailedV1 = 0x0303,
}

pub(crate) fn live_key(id: &SpliceId) -> Key {
	Key::new(LIVE, *id.as_bytes())
}

pub(crate) fn coin_key(input: &OutPoint) -> Key {
	Key::new(COINS, [&input.txid.to_byte_array()[..], &input.vout.to_be_bytes()].concat())
}

pub(crate) fn coin_of(key: &Key) -> Option<OutPoint> {
	let (txid, vout) = key.bytes().split_first_chunk::<32>()?;
	let vout = u32::from_be_bytes(vout.try_into().ok()?);
	Some(OutPoint { txid: Txid::from_byte_array(*txid), vout })
}

pub(crate) fn write(splice: &Splice) -> Result<Value, StoreError> {
	codec::encode(&SpliceV1::from(splice))
}

pub(crate) fn read(key: &Key, record: &Record) -> Result<Splice, StoreError> {
	let stored: SpliceV1 = codec::decode(key, record)?;
	let id = stored.id;
	let splice = stored.into_splice().ok_or_else(|| {
		StoreError::corrupt(key, "its key of the counterparty is not on the curve")
	})?;
	if key.table() == LIVE && key.bytes() != id {
		return Err(StoreError::corrupt(key, "it is the record of another splice"));
	}
	Ok(splice)
}

impl From<&Splice> for SpliceV1 {
	fn from(s: &Splice) -> Self {
		Self {
			id: *s.id.as_bytes(),
			channel_id: s.channel.channel_id.0,
			user_channel_id: s.channel.user_channel_id.to_be_bytes(),
			counterparty: s.channel.counterparty.serialize().to_vec(),
			anchor: out_point(&s.anchor),
			kind: kind(&s.kind),
			band: band(s.band),
			state: match &s.state {
				SpliceState::Tentative => StateV1::Tentative,
				SpliceState::Accepted => StateV1::Accepted,
				SpliceState::Signing => StateV1::Signing,
				SpliceState::Negotiated => StateV1::Negotiated,
				SpliceState::Deferred => StateV1::Deferred,
				SpliceState::Settled => StateV1::Settled,
				SpliceState::Failed(reason) => StateV1::Failed(reason.clone()),
			},
			contribution: s.contribution.as_ref().map(contribution),
			bump: s.bump.as_ref().map(|bump| {
				let Bump { contribution: c, band: b, accepted, failures } = bump;
				BumpV1(contribution(c), band(*b), *accepted, *failures)
			}),
			earlier: s.earlier.iter().map(material).collect(),
			txids: s.txids.iter().map(|txid| txid.to_byte_array()).collect(),
			inputs: s.inputs.iter().map(out_point).collect(),
			failures: s.failures,
			canceling: s.canceling,
			number: s.number,
			asked: s.asked,
			expires_at: s.expires_at,
			steps: s.steps.iter().map(|step| StepV1(step.at, what(&step.what))).collect(),
		}
	}
}

impl SpliceV1 {
	fn into_splice(self) -> Option<Splice> {
		Some(Splice {
			id: SpliceId::from_bytes(self.id),
			channel: channel(self.channel_id, self.user_channel_id, &self.counterparty)?,
			anchor: self.anchor.into(),
			kind: self.kind.into(),
			band: self.band.into(),
			state: match self.state {
				StateV1::Tentative => SpliceState::Tentative,
				StateV1::Accepted => SpliceState::Accepted,
				StateV1::Signing => SpliceState::Signing,
				StateV1::Negotiated => SpliceState::Negotiated,
				StateV1::Deferred => SpliceState::Deferred,
				StateV1::Settled => SpliceState::Settled,
				StateV1::Failed(reason) => SpliceState::Failed(reason),
			},
			contribution: self.contribution.map(Contribution::from),
			bump: self.bump.map(|BumpV1(contribution, band, accepted, failures)| Bump {
				contribution: contribution.into(),
				band: band.into(),
				accepted,
				failures,
			}),
			earlier: self.earlier.into_iter().map(Material::from).collect(),
			txids: self.txids.into_iter().map(Txid::from_byte_array).collect(),
			inputs: self.inputs.into_iter().map(OutPoint::from).collect(),
			failures: self.failures,
			canceling: self.canceling,
			number: self.number,
			asked: self.asked,
			expires_at: self.expires_at,
			steps: self.steps.into_iter().map(Step::from).collect(),
			handed: false,
			signing: false,
		})
	}
}

/// What the user is told, in the payload of an entry of the event log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct FailedV1 {
	id: [u8; 32],
	channel_id: [u8; 32],
	user_channel_id: [u8; 16],
	counterparty: Vec<u8>,
	kind: KindV1,
	bump_only: bool,
	reason: FailureReason,
	attempts: u32,
	released: Vec<OutPointV1>,
}

impl SpliceFailed {
	/// Its bytes, for the payload of an entry of a log.
	///
	/// # Errors
	/// [`StoreError::TooLarge`]; not in practice.
	pub fn to_bytes(&self) -> Result<Vec<u8>, StoreError> {
		let failed = FailedV1 {
			id: *self.id.as_bytes(),
			channel_id: self.channel.channel_id.0,
			user_channel_id: self.channel.user_channel_id.to_be_bytes(),
			counterparty: self.channel.counterparty.serialize().to_vec(),
			kind: kind(&self.kind),
			bump_only: self.bump_only,
			reason: self.reason.clone(),
			attempts: self.attempts,
			released: self.released.iter().map(out_point).collect(),
		};
		Ok(codec::encode(&failed)?.body)
	}

	/// Reads what [`to_bytes`](SpliceFailed::to_bytes) wrote; `None` if it is something else.
	pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
		let failed: FailedV1 = codec::from_body(bytes).ok()?;
		Some(Self {
			id: SpliceId::from_bytes(failed.id),
			channel: channel(failed.channel_id, failed.user_channel_id, &failed.counterparty)?,
			kind: failed.kind.into(),
			bump_only: failed.bump_only,
			reason: failed.reason,
			attempts: failed.attempts,
			released: failed.released.into_iter().map(OutPoint::from).collect(),
		})
	}
}

fn channel(id: [u8; 32], user_channel_id: [u8; 16], counterparty: &[u8]) -> Option<ChannelRef> {
	Some(ChannelRef {
		channel_id: ChannelId(id),
		user_channel_id: u128::from_be_bytes(user_channel_id),
		counterparty: PublicKey::from_slice(counterparty).ok()?,
	})
}

fn kind(kind: &SpliceKind) -> KindV1 {
	match kind {
		SpliceKind::In { amount_sat } => KindV1::In(*amount_sat),
		SpliceKind::Out { outputs } => KindV1::Out(outputs.iter().map(tx_out).collect()),
	}
}

impl From<KindV1> for SpliceKind {
	fn from(kind: KindV1) -> Self {
		match kind {
			KindV1::In(amount_sat) => Self::In { amount_sat },
			KindV1::Out(outputs) => {
				Self::Out { outputs: outputs.into_iter().map(TxOut::from).collect() }
			},
		}
	}
}

fn out_point(o: &OutPoint) -> OutPointV1 {
	OutPointV1(o.txid.to_byte_array(), o.vout)
}

fn tx_out(o: &TxOut) -> TxOutV1 {
	TxOutV1(o.value.to_sat(), o.script_pubkey.to_bytes())
}

fn band(b: FeeBand) -> BandV1 {
	BandV1(b.min_sat_per_kw, b.max_sat_per_kw)
}

fn material(m: &Material) -> MaterialV1 {
	MaterialV1(m.inputs().iter().map(out_point).collect(), m.outputs().iter().map(tx_out).collect())
}

fn contribution(c: &Contribution) -> ContributionV1 {
	ContributionV1(c.bytes.clone(), material(&c.material), c.sat_per_kw)
}

fn what(what: &What) -> WhatV1 {
	match what {
		What::Asked => WhatV1::Asked,
		What::HandedOver => WhatV1::HandedOver,
		What::Rebuilt => WhatV1::Rebuilt,
		What::RoundFailed(reason) => WhatV1::RoundFailed(reason.clone()),
		What::Reanchored(anchor) => WhatV1::Reanchored(out_point(anchor)),
		What::Signing(txid) => WhatV1::Signing(txid.to_byte_array()),
		What::Negotiated(txid) => WhatV1::Negotiated(txid.to_byte_array()),
		What::Bumped => WhatV1::Bumped,
		What::BumpFailed(reason) => WhatV1::BumpFailed(reason.clone()),
		What::CancelAsked => WhatV1::CancelAsked,
		What::Locked(txid) => WhatV1::Locked(txid.to_byte_array()),
		What::Failed(reason) => WhatV1::Failed(reason.clone()),
		What::Refused(reason) => WhatV1::Refused(reason.clone()),
	}
}

impl From<OutPointV1> for OutPoint {
	fn from(OutPointV1(txid, vout): OutPointV1) -> Self {
		Self { txid: Txid::from_byte_array(txid), vout }
	}
}

impl From<TxOutV1> for TxOut {
	fn from(TxOutV1(sat, script): TxOutV1) -> Self {
		Self { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes(script) }
	}
}

impl From<BandV1> for FeeBand {
	fn from(BandV1(min_sat_per_kw, max_sat_per_kw): BandV1) -> Self {
		Self { min_sat_per_kw, max_sat_per_kw }
	}
}

impl From<MaterialV1> for Material {
	fn from(MaterialV1(inputs, outputs): MaterialV1) -> Self {
		Self::new(inputs.into_iter().map(OutPoint::from), outputs.into_iter().map(TxOut::from))
	}
}

impl From<ContributionV1> for Contribution {
	fn from(ContributionV1(bytes, material, sat_per_kw): ContributionV1) -> Self {
		Self { bytes, material: material.into(), sat_per_kw }
	}
}

impl From<StepV1> for Step {
	fn from(StepV1(at, what): StepV1) -> Self {
		let txid = Txid::from_byte_array;
		let what = match what {
			WhatV1::Asked => What::Asked,
			WhatV1::HandedOver => What::HandedOver,
			WhatV1::Rebuilt => What::Rebuilt,
			WhatV1::RoundFailed(reason) => What::RoundFailed(reason),
			WhatV1::Reanchored(anchor) => What::Reanchored(anchor.into()),
			WhatV1::Signing(id) => What::Signing(txid(id)),
			WhatV1::Negotiated(id) => What::Negotiated(txid(id)),
			WhatV1::Bumped => What::Bumped,
			WhatV1::BumpFailed(reason) => What::BumpFailed(reason),
			WhatV1::CancelAsked => What::CancelAsked,
			WhatV1::Locked(id) => What::Locked(txid(id)),
			WhatV1::Failed(reason) => What::Failed(reason),
			WhatV1::Refused(reason) => What::Refused(reason),
		};
		Step { at, what }
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	fn number(n: u64) -> [u8; 8] {
		n.to_be_bytes()
	}

	fn coin(n: u8) -> OutPoint {
		OutPoint { txid: Txid::from_byte_array([n; 32]), vout: 7 }
	}

	/// The bytes on disk, as docs/format.md says. If this fails, stores of users no longer open:
	/// add a new schema instead.
	#[test]
	fn golden_bytes() {
		let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
		let counterparty: PublicKey = key.parse().unwrap();
		let output =
			TxOut { value: Amount::from_sat(9), script_pubkey: ScriptBuf::from_bytes(vec![1, 2]) };
		let material = Material::new([coin(3)], [output.clone()]);
		let contribution = Contribution { bytes: vec![4, 5], material, sat_per_kw: 253 };
		let band = FeeBand { min_sat_per_kw: 253, max_sat_per_kw: 1000 };
		let message = "no".to_owned();
		let splice = Splice {
			id: SpliceId::from_bytes([1; 32]),
			channel: ChannelRef {
				channel_id: ChannelId([2; 32]),
				user_channel_id: 5,
				counterparty,
			},
			anchor: coin(8),
			kind: SpliceKind::Out { outputs: vec![output] },
			band,
			state: SpliceState::Failed(FailureReason::CounterpartyAborted { message }),
			contribution: Some(contribution.clone()),
			bump: Some(Bump { contribution, band, accepted: true, failures: 1 }),
			earlier: vec![Material::default()],
			txids: vec![coin(6).txid],
			inputs: vec![coin(3)],
			failures: 2,
			canceling: true,
			number: 3,
			asked: Stamp { wall: Timestamp(10), steady: Timestamp(9), followed_ms: 8 },
			expires_at: Timestamp(20),
			steps: vec![
				Step { at: Timestamp(10), what: What::Asked },
				Step { at: Timestamp(11), what: What::Locked(coin(6).txid) },
			],
			handed: false,
			signing: false,
		};
		let value = write(&splice).unwrap();
		assert_eq!((value.record_type, value.schema), (leyden_store::RecordType(0x0301), 1));

		let coin_bytes = |n: u8| [&[n; 32][..], &[0, 0, 0, 7]].concat();
		let out_bytes = [&number(9)[..], &number(2), &[1, 2]].concat();
		let material = [&number(1)[..], &coin_bytes(3), &number(1), &out_bytes].concat();
		let contribution = [&number(2)[..], &[4, 5], &material, &number(253)].concat();
		let band = [number(253), number(1000)].concat();
		let expected = [
			&[1; 32][..],
			&[2; 32],
			&5_u128.to_be_bytes(),
			&number(33),
			&counterparty.serialize(),
			&coin_bytes(8),
			// Out, one output.
			&[0, 0, 0, 1],
			&number(1),
			&out_bytes,
			&band,
			// Failed, the peer aborted, "no".
			&[0, 0, 0, 6],
			&[0, 0, 0, 2],
			&number(2),
			b"no",
			&[1],
			&contribution,
			&[1],
			&contribution,
			&band,
			&[1],
			&[0, 0, 0, 1],
			&number(1),
			&number(0),
			&number(0),
			&number(1),
			&[6; 32],
			&number(1),
			&coin_bytes(3),
			&[0, 0, 0, 2],
			&[1],
			&number(3),
			&number(10),
			&number(9),
			&number(8),
			&number(20),
			&number(2),
			&number(10),
			&[0, 0, 0, 0],
			&number(11),
			&[0, 0, 0, 10],
			&[6; 32],
		];
		assert_eq!(value.body, expected.concat());
		let stored: SpliceV1 = codec::from_body(&value.body).unwrap();
		assert_eq!(stored.into_splice(), Some(splice));

		let coin_record = codec::encode(&CoinV1 { id: [1; 32] }).unwrap();
		assert_eq!(
			(coin_record.record_type, coin_record.body),
			(leyden_store::RecordType(0x0302), vec![1; 32])
		);
		assert_eq!(coin_of(&coin_key(&coin(3))), Some(coin(3)));
	}

	/// The number of the step that was added last is frozen, too.
	#[test]
	fn a_refusal_is_step_12() {
		let step = StepV1(Timestamp(7), what(&What::Refused(FailureReason::FeeRateTooLow)));
		let bytes = [&number(7)[..], &[0, 0, 0, 12], &[0, 0, 0, 7]].concat();
		assert_eq!(codec::from_body::<StepV1>(&bytes), Ok(step.clone()));
		let read = Step::from(step);
		assert_eq!(read.what, What::Refused(FailureReason::FeeRateTooLow));
	}

	/// Frozen, too: the numbers of the reasons.
	#[test]
	fn reasons_have_the_numbers_they_had() {
		let text = || "x".to_owned();
		let reasons = [
			FailureReason::Unknown,
			FailureReason::PeerDisconnected,
			FailureReason::CounterpartyAborted { message: text() },
			FailureReason::NegotiationError { message: text() },
			FailureReason::ContributionInvalid,
			FailureReason::LocallyCanceled,
			FailureReason::ChannelClosing,
			FailureReason::FeeRateTooLow,
			FailureReason::CannotInitiateRbf,
			FailureReason::ChannelClosed,
			FailureReason::InputsSpent,
			FailureReason::NotEnoughFunds { message: text() },
			FailureReason::NothingToBump,
			FailureReason::OutcomeUnknown,
			FailureReason::TooOld,
			FailureReason::ConflictConfirmed,
		];
		for (n, reason) in reasons.iter().enumerate() {
			// Failed is the seventh state.
			let bytes = [6_u32.to_be_bytes(), (n as u32).to_be_bytes()].concat();
			let message = [&number(1)[..], b"x"].concat();
			let read = codec::from_body::<StateV1>(&bytes)
				.or_else(|_| codec::from_body(&[bytes, message].concat()));
			assert_eq!(read, Ok(StateV1::Failed(reason.clone())));
		}
	}
}
