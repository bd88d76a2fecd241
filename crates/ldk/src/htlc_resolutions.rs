// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Resolutions of HTLCs that survive: what the node has decided to do with an HTLC, until LDK's
//! own durable state has it.
//!
//! # Why
//! `claim_funds`, `forward_intercepted_htlc` and their likes write nothing that outlives a crash:
//! what makes them durable are the writes of monitors and manager that follow. A node that notes
//! "claiming" or "channel opened, HTLC forwarded" in its ledger and dies before they are done has
//! an HTLC that it thinks is resolved, and that hangs until LDK brings the event again.
//!
//! # How
//! The resolution is written down first, in one commit with the ack of the event and the node's own
//! records ([`HtlcResolutions::plan`]), and then given to LDK ([`HtlcResolutions::apply`]). When
//! LDK brings the event again, it gets the resolution again, at once, and the node hears nothing of
//! it: no effect of the first time is done twice. A claim ends with `PaymentClaimed`, in one commit
//! with that event; the others end when a manager is durable that was encoded after LDK took them.
//!
//! # Not promised
//! A claim that comes after its deadline is none: LDK has failed the payment back by then. LDK's
//! `HTLCHandlingFailed` does not say so for sure, since a sender can have it said by sending too
//! much. [`HtlcResolutions::overdue`] lists such claims.
//!
//! The preimages are in the store as they are. Whoever reads the store reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::PublicKey;
use leyden_store::codec::{self, Stored};
use leyden_store::{Batch, Key, KeyRange, Plan, RecordType, Store, StoreError, Table};
use lightning::events::Event;
use lightning::ln::channelmanager::{AChannelManager, InterceptId};
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning::util::errors::APIError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::persist_tracker::ManagerPersistListener;

const RESOLUTIONS: Table = Table::new("htlc_resolutions");
/// Records read in one go.
const PAGE: usize = 256;

/// The resolution of an HTLC, or of the HTLCs of a payment.
#[derive(Clone, Copy, Eq, PartialEq)]
#[non_exhaustive]
pub enum HtlcResolution {
	/// `ChannelManager::claim_funds`, in answer to `PaymentClaimable`.
	Claim {
		/// The preimage of the payment.
		preimage: PaymentPreimage,
		/// The height at which LDK fails the payment back, as `PaymentClaimable` said.
		claim_deadline: Option<u32>,
	},
	/// `ChannelManager::fail_htlc_backwards`, in answer to `PaymentClaimable`.
	FailBackwards {
		/// The payment.
		payment_hash: PaymentHash,
	},
	/// `ChannelManager::forward_intercepted_htlc`, in answer to `HTLCIntercepted`.
	Forward {
		/// The HTLC.
		intercept_id: InterceptId,
		/// The channel to forward over. It may still be opening: LDK refuses until it is usable,
		/// and the HTLC is forwarded by a later [`apply`](HtlcResolutions::apply).
		next_hop_channel_id: ChannelId,
		/// The node at the other end of that channel.
		next_node_id: PublicKey,
		/// The amount to forward, in millisatoshi.
		amt_to_forward_msat: u64,
	},
	/// `ChannelManager::fail_intercepted_htlc`, in answer to `HTLCIntercepted`.
	FailIntercepted {
		/// The HTLC.
		intercept_id: InterceptId,
	},
}

/// LDK's calls that resolve HTLCs. Every `ChannelManager` has them.
pub trait HtlcResolver {
	/// Gives the resolution to LDK.
	///
	/// # Errors
	/// LDK's, for a forward or a failure of an intercepted HTLC: `APIMisuseError` if LDK does not
	/// hold the HTLC any more, another if the channel to forward over is not usable.
	fn resolve(&self, resolution: &HtlcResolution) -> Result<(), APIError>;
}

impl<M: Deref> HtlcResolver for M
where
	M::Target: AChannelManager,
{
	fn resolve(&self, resolution: &HtlcResolution) -> Result<(), APIError> {
		let manager = self.get_cm();
		match resolution {
			HtlcResolution::Claim { preimage, .. } => manager.claim_funds(*preimage),
			HtlcResolution::FailBackwards { payment_hash } => {
				manager.fail_htlc_backwards(payment_hash);
			},
			HtlcResolution::Forward {
				intercept_id,
				next_hop_channel_id,
				next_node_id,
				amt_to_forward_msat,
			} => {
				// LDK asks for the manager to be persisted even if it refuses: asked after every
				// write of the manager, it would never be done with writing.
				let channels = manager.list_channels_with_counterparty(next_node_id);
				let mut usable = channels.iter().filter(|channel| channel.is_usable);
				if !usable.any(|channel| channel.channel_id == *next_hop_channel_id) {
					let err = format!("channel {next_hop_channel_id} is not usable yet");
					return Err(APIError::ChannelUnavailable { err });
				}
				manager.forward_intercepted_htlc(
					*intercept_id,
					next_hop_channel_id,
					*next_node_id,
					*amt_to_forward_msat,
				)?;
			},
			HtlcResolution::FailIntercepted { intercept_id } => {
				manager.fail_intercepted_htlc(*intercept_id)?;
			},
		}
		Ok(())
	}
}

/// The resolutions of one node that LDK's durable state is not known to have. Cheap to clone.
#[derive(Clone)]
pub struct HtlcResolutions {
	store: Arc<dyn Store>,
	state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
	kept: BTreeMap<Subject, Kept>,
	/// The count of resolutions that LDK was given; the mark of what a manager holds.
	given: u64,
}

struct Kept {
	resolution: HtlcResolution,
	/// LDK has taken it in this run, as number so many.
	given: Option<u64>,
}

/// A payment (of `PaymentClaimable`) or an HTLC (of `HTLCIntercepted`).
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Subject {
	Payment([u8; 32]),
	Intercepted([u8; 32]),
}

#[derive(Clone, Deserialize, Serialize)]
enum ResolutionV1 {
	Claim { preimage: [u8; 32], claim_deadline: Option<u32> },
	FailBackwards,
	Forward { next_hop_channel_id: [u8; 32], next_node_id: Vec<u8>, amt_to_forward_msat: u64 },
	FailIntercepted,
}

impl Stored for ResolutionV1 {
	const TYPE: RecordType = RecordType(0x0203);
	const SCHEMA: u16 = 1;
}

impl HtlcResolutions {
	/// Reads the resolutions in this store. A node has one handle, which its wiring opens.
	///
	/// # Errors
	/// The store's, and [`StoreError::Corrupt`] for a record that does not fit its key.
	pub(crate) fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
		let mut kept = BTreeMap::new();
		let mut rest = Some(KeyRange::all(RESOLUTIONS));
		while let Some(range) = rest.take() {
			let page = store.scan(range, PAGE).wait()?;
			for (key, record) in &page.records {
				let subject = Subject::read(key)?;
				let record: ResolutionV1 = codec::decode(key, record)?;
				let resolution = record.read(key, subject)?;
				kept.insert(subject, Kept { resolution, given: None });
			}
			rest = page.rest;
		}
		let state = State { kept, given: 0 };
		Ok(Self { store, state: Arc::new(Mutex::new(state)) })
	}

	/// Plans to write a resolution down; to be joined with the ack of the event and the node's own
	/// records. Once it is committed, [`apply`](HtlcResolutions::apply) gives it to LDK.
	///
	/// # Errors
	/// None in practice: the record is small.
	///
	/// # Failure Behavior and Persistence
	/// From its commit on, LDK gets the resolution whenever it brings the event again, and at every
	/// start, until LDK's own durable state has it.
	pub fn plan(&self, resolution: HtlcResolution) -> Result<Plan<()>, StoreError> {
		let subject = resolution.subject();
		let mut batch = Batch::new();
		batch.put(subject.key(), codec::encode(&ResolutionV1::of(&resolution))?);
		let state = Arc::clone(&self.state);
		batch.after_commit(move |_| {
			state.lock().kept.insert(subject, Kept { resolution, given: None });
		});
		Ok(Plan::of(batch))
	}

	/// Writes a resolution down and gives it to LDK.
	///
	/// # Errors
	/// The store's: then LDK was given nothing.
	///
	/// # Failure Behavior and Persistence
	/// The same as [`plan`](HtlcResolutions::plan).
	pub fn resolve(
		&self, manager: &impl HtlcResolver, resolution: HtlcResolution,
	) -> Result<(), StoreError> {
		self.plan(resolution)?.run(&*self.store)?;
		self.apply(manager);
		Ok(())
	}

	/// Gives LDK everything that it has not taken in this run: at start, once monitors and manager
	/// are loaded; after a commit of [`plan`](HtlcResolutions::plan); and again when a channel that
	/// an HTLC waits for has become usable. Answers how many LDK did not take.
	///
	/// # Failure Behavior and Persistence
	/// Writes nothing; what LDK does about it is LDK's.
	pub fn apply(&self, manager: &impl HtlcResolver) -> usize {
		let due: Vec<_> = {
			let state = self.state.lock();
			let due = state.kept.iter().filter(|(_, kept)| kept.given.is_none());
			due.map(|(subject, kept)| (*subject, kept.resolution)).collect()
		};
		// LDK is called without the lock.
		due.iter().filter(|(subject, resolution)| !self.give(manager, subject, resolution)).count()
	}

	/// Gives LDK the resolution that is kept for a request. Returns `false` if there is none.
	pub fn answer(&self, manager: &impl HtlcResolver, event: &Event) -> bool {
		let Some(subject) = Subject::of(event) else { return false };
		let kept = self.state.lock().kept.get(&subject).map(|kept| kept.resolution);
		let Some(resolution) = kept else { return false };
		self.give(manager, &subject, &resolution);
		true
	}

	/// Returns `true` if a resolution is kept for this request.
	pub(crate) fn has(&self, event: &Event) -> bool {
		let subject = Subject::of(event);
		subject.is_some_and(|subject| self.state.lock().kept.contains_key(&subject))
	}

	/// Plans to end a claim, if the event is the payment's `PaymentClaimed`.
	pub fn claimed(&self, event: &Event) -> Option<Plan<()>> {
		let Event::PaymentClaimed { payment_hash, .. } = event else { return None };
		let is_kept = self.state.lock().kept.contains_key(&Subject::Payment(payment_hash.0));
		is_kept.then(|| self.forget([Subject::Payment(payment_hash.0)]))
	}

	/// Plans to give up what was decided about a payment; for an operator who knows what became of
	/// it.
	pub fn give_up_payment(&self, payment_hash: &PaymentHash) -> Plan<()> {
		self.forget([Subject::Payment(payment_hash.0)])
	}

	/// Plans to give up what was decided about an intercepted HTLC.
	pub fn give_up_intercepted(&self, intercept_id: &InterceptId) -> Plan<()> {
		self.forget([Subject::Intercepted(intercept_id.0)])
	}

	/// Returns the resolutions that LDK's durable state is not known to have.
	pub fn pending(&self) -> Vec<HtlcResolution> {
		self.state.lock().kept.values().map(|kept| kept.resolution).collect()
	}

	/// Returns the claims whose deadline has passed with the block of this height: LDK has failed
	/// the payment back, or its `PaymentClaimed` was not handled yet.
	pub fn overdue(&self, height: u32) -> Vec<HtlcResolution> {
		let mut pending = self.pending();
		pending.retain(|resolution| match resolution {
			HtlcResolution::Claim { claim_deadline: Some(deadline), .. } => height >= *deadline,
			_ => false,
		});
		pending
	}

	/// Returns `true` if LDK took the resolution.
	fn give(
		&self, manager: &impl HtlcResolver, subject: &Subject, resolution: &HtlcResolution,
	) -> bool {
		let taken = match manager.resolve(resolution) {
			Ok(()) => true,
			// LDK does not hold the HTLC any more: it was resolved, or failed back in time.
			Err(APIError::APIMisuseError { .. }) => true,
			Err(_) => false,
		};
		let mut state = self.state.lock();
		if taken {
			let number = state.given;
			if let Some(kept) = state.kept.get_mut(subject) {
				kept.given = Some(number);
				state.given += 1;
			}
		}
		taken
	}

	fn forget(&self, subjects: impl IntoIterator<Item = Subject>) -> Plan<()> {
		let mut batch = Batch::new();
		let subjects: Vec<_> = subjects.into_iter().collect();
		for subject in &subjects {
			batch.delete(subject.key());
		}
		let state = Arc::clone(&self.state);
		batch.after_commit(move |_| {
			let mut state = state.lock();
			subjects.iter().for_each(|subject| {
				state.kept.remove(subject);
			});
		});
		Plan::of(batch)
	}
}

/// LDK's durable state has what LDK took before the manager was encoded. A claim stays until
/// `PaymentClaimed`, so that one that LDK gives up is not forgotten without a word.
impl ManagerPersistListener for HtlcResolutions {
	fn mark(&self) -> u64 {
		self.state.lock().given
	}

	fn settle_plan(&self, mark: u64) -> Option<Plan<()>> {
		let state = self.state.lock();
		let is_durable = |kept: &Kept| {
			let is_claim = matches!(kept.resolution, HtlcResolution::Claim { .. });
			!is_claim && kept.given.is_some_and(|given| given < mark)
		};
		let done = state.kept.iter().filter(|(_, kept)| is_durable(kept)).map(|(s, _)| *s);
		let done: Vec<_> = done.collect();
		drop(state);
		(!done.is_empty()).then(|| self.forget(done))
	}

	fn settled(&self, _: u64) {}
}

impl HtlcResolution {
	fn subject(&self) -> Subject {
		match self {
			Self::Claim { preimage, .. } => {
				Subject::Payment(sha256::Hash::hash(&preimage.0).to_byte_array())
			},
			Self::FailBackwards { payment_hash } => Subject::Payment(payment_hash.0),
			Self::Forward { intercept_id, .. } | Self::FailIntercepted { intercept_id } => {
				Subject::Intercepted(intercept_id.0)
			},
		}
	}
}

impl Subject {
	fn of(event: &Event) -> Option<Self> {
		match event {
			Event::PaymentClaimable { payment_hash, .. } => Some(Self::Payment(payment_hash.0)),
			Event::HTLCIntercepted { intercept_id, .. } => Some(Self::Intercepted(intercept_id.0)),
			_ => None,
		}
	}

	fn key(self) -> Key {
		let (tag, id) = match self {
			Self::Payment(hash) => (b'p', hash),
			Self::Intercepted(id) => (b'i', id),
		};
		Key::new(RESOLUTIONS, [&[tag][..], &id].concat())
	}

	fn read(key: &Key) -> Result<Self, StoreError> {
		let split = key.bytes().split_first().map(|(tag, id)| (*tag, id.try_into()));
		match split {
			Some((b'p', Ok(hash))) => Ok(Self::Payment(hash)),
			Some((b'i', Ok(id))) => Ok(Self::Intercepted(id)),
			_ => Err(StoreError::corrupt(key, "it is no key of a resolution")),
		}
	}
}

/// The body of a record as a resolution of a payment and of an intercepted HTLC, for the fuzzer.
pub(crate) fn decode_body(body: &[u8]) {
	for subject in [Subject::Payment([0; 32]), Subject::Intercepted([0; 32])] {
		if let Ok(record) = codec::from_body::<ResolutionV1>(body) {
			let _ = record.read(&subject.key(), subject);
		}
	}
}

impl ResolutionV1 {
	fn of(resolution: &HtlcResolution) -> Self {
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

	fn read(self, key: &Key, subject: Subject) -> Result<HtlcResolution, StoreError> {
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

/// Leaves the preimage out.
impl fmt::Debug for HtlcResolution {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Claim { claim_deadline, .. } => {
				let Subject::Payment(hash) = self.subject() else { return Ok(()) };
				let hash = PaymentHash(hash);
				write!(f, "Claim {{ {hash}, deadline {claim_deadline:?} }}")
			},
			Self::FailBackwards { payment_hash } => write!(f, "FailBackwards {{ {payment_hash} }}"),
			Self::Forward { intercept_id, next_hop_channel_id, amt_to_forward_msat, .. } => write!(
				f,
				"Forward {{ {intercept_id} over {next_hop_channel_id}, {amt_to_forward_msat} msat }}"
			),
			Self::FailIntercepted { intercept_id } => {
				write!(f, "FailIntercepted {{ {intercept_id} }}")
			},
		}
	}
}

/// Leaves preimages out.
impl fmt::Debug for HtlcResolutions {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "HtlcResolutions, {} pending", self.state.lock().kept.len())
	}
}

#[cfg(test)]
mod tests {
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
