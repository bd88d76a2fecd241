// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! What is remembered of a splice.

use bitcoin::{OutPoint, Transaction, Txid};
use leyden_store::{Stamp, Timestamp};

use crate::parts::{ChannelRef, Contribution, FeeBand, Material, SpliceId, SpliceKind};
use crate::probe::{OurPart, Round};
use crate::reason::FailureReason;

/// Steps that are kept of a splice's history; of more, the first half and the newest.
pub const MAX_STEPS: usize = 32;
/// Rounds whose material is remembered.
pub const MAX_ROUNDS: usize = 32;

/// A splice that the user asked for, from the asking to the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Splice {
	pub(crate) id: SpliceId,
	pub(crate) channel: ChannelRef,
	pub(crate) anchor: OutPoint,
	pub(crate) kind: SpliceKind,
	pub(crate) band: FeeBand,
	pub(crate) state: SpliceState,
	pub(crate) contribution: Option<Contribution>,
	pub(crate) bump: Option<Bump>,
	pub(crate) earlier: Vec<Material>,
	pub(crate) txids: Vec<Txid>,
	pub(crate) inputs: Vec<OutPoint>,
	pub(crate) failures: u32,
	pub(crate) canceling: bool,
	/// Its place among those that are going on. Clocks jump, and two may be asked for at once.
	pub(crate) number: u64,
	pub(crate) asked: Stamp,
	pub(crate) expires_at: Timestamp,
	pub(crate) steps: Vec<Step>,
	/// Whether it was handed over in this life. Not written down. Of what waits in its queue LDK
	/// says nothing when the peer goes away, only of what it has begun, and of old lives at the
	/// start.
	pub(crate) handed: bool,
	/// Whether that round got as far as waiting for signatures. Not written down.
	pub(crate) signing: bool,
}

/// How far a splice is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SpliceState {
	/// The splice is written down, and perhaps handed to LDK. The caller has no answer yet, or was
	/// told that the store failed; so it is not signed.
	Tentative,
	/// LDK has taken it, and forgets it when the node stops.
	Accepted,
	/// Its transaction is complete and waits for signatures.
	Signing,
	/// Its transaction is signed by both and broadcast.
	Negotiated,
	/// It waits for an earlier splice of the channel, or until it can be built.
	Deferred,
	/// It is done: its transaction funds the channel.
	Settled,
	/// It is over.
	Failed(FailureReason),
}

impl SpliceState {
	/// Whether nothing more will happen.
	pub fn is_terminal(&self) -> bool {
		matches!(self, Self::Settled | Self::Failed(_))
	}

	/// Its name.
	pub fn name(&self) -> &'static str {
		match self {
			Self::Tentative => "tentative",
			Self::Accepted => "accepted",
			Self::Signing => "signing",
			Self::Negotiated => "negotiated",
			Self::Deferred => "deferred",
			Self::Settled => "settled",
			Self::Failed(_) => "failed",
		}
	}
}

/// A higher fee for a splice that is negotiated and not confirmed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bump {
	pub(crate) contribution: Contribution,
	pub(crate) band: FeeBand,
	/// `true` once it is written down that LDK has taken the higher fee. The caller is told after
	/// that.
	pub(crate) accepted: bool,
	pub(crate) failures: u32,
}

/// Something that happened to a splice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
	/// When.
	pub at: Timestamp,
	/// What.
	pub what: What,
}

/// What happened to a splice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum What {
	/// The user asked for it.
	Asked,
	/// It was handed to LDK, and taken.
	HandedOver,
	/// It was built anew.
	Rebuilt,
	/// A round of it failed, and it goes on.
	RoundFailed(FailureReason),
	/// The channel has another funding now, and it goes on from there.
	Reanchored(OutPoint),
	/// This transaction waits for signatures.
	Signing(Txid),
	/// This transaction is signed and broadcast.
	Negotiated(Txid),
	/// A higher fee was asked for.
	Bumped,
	/// The higher fee came to nothing; the splice goes on.
	BumpFailed(FailureReason),
	/// LDK refused the splice, or its higher fee, when it was handed in again.
	Refused(FailureReason),
	/// The user wants it no more.
	CancelAsked,
	/// It funds the channel.
	Locked(Txid),
	/// It is over.
	Failed(FailureReason),
}

impl Splice {
	/// Its name for life.
	pub fn id(&self) -> SpliceId {
		self.id
	}

	/// Which channel it is for.
	pub fn channel(&self) -> &ChannelRef {
		&self.channel
	}

	/// What the user asked for.
	pub fn kind(&self) -> &SpliceKind {
		&self.kind
	}

	/// How far it is.
	pub fn state(&self) -> &SpliceState {
		&self.state
	}

	/// The funding that it spends.
	pub fn anchor(&self) -> OutPoint {
		self.anchor
	}

	/// The fee rates that the user accepts.
	pub fn band(&self) -> FeeBand {
		self.band
	}

	/// Its own transactions, oldest first.
	pub fn txids(&self) -> &[Txid] {
		&self.txids
	}

	/// What is handed to LDK, in LDK's encoding; `None` while it waits for its turn.
	pub fn contribution_bytes(&self) -> Option<&[u8]> {
		self.contribution.as_ref().map(|contribution| contribution.bytes.as_slice())
	}

	/// The wallet's coins that are reserved for it.
	pub fn inputs(&self) -> &[OutPoint] {
		&self.inputs
	}

	/// Rounds that failed. A peer that is away, and a restart, are not counted.
	pub fn failures(&self) -> u32 {
		self.failures
	}

	/// The higher fee rate that is being negotiated, in satoshi per 1000 weight units.
	pub fn bump_sat_per_kw(&self) -> Option<u64> {
		self.bump.as_ref().map(|bump| bump.contribution.sat_per_kw)
	}

	/// Returns when it was asked for, by the wall clock of then.
	pub fn asked_at(&self) -> Timestamp {
		self.asked.wall
	}

	/// Returns when it is given up if it is not signed by then: as long after
	/// [`asked_at`](Splice::asked_at) as [`Times::age`](leyden_store::Times::age) says, so that a clock that
	/// jumps gives nothing up.
	pub fn expires_at(&self) -> Timestamp {
		self.expires_at
	}

	/// What happened to it.
	pub fn steps(&self) -> &[Step] {
		&self.steps
	}

	/// Whether a round has what this splice brings, now or in an earlier round.
	pub fn is_ours(&self, part: &OurPart) -> bool {
		if part.material.is_empty() {
			return false;
		}
		let bump = self.bump.as_ref().map(|bump| &bump.contribution);
		let current = self.contribution.iter().chain(bump).map(|c| &c.material);
		current.chain(&self.earlier).any(|material| *material == part.material)
	}

	/// Returns whether a transaction has what is handed to LDK now.
	pub(crate) fn brings(&self, transaction: &Transaction) -> bool {
		let bump = self.bump.as_ref().map(|bump| &bump.contribution);
		let mut current = self.contribution.iter().chain(bump);
		current.any(|contribution| contribution.material.is_in(transaction))
	}

	/// Returns whether a round of this splice may be one that the caller was not told would run:
	/// the process died, or the store failed, after LDK had taken it. Such a round is not signed.
	/// `txid` is the round's transaction; that of a round that may run was written down.
	pub(crate) fn is_unanswered(&self, txid: Option<&Txid>) -> bool {
		let is_known = txid.is_some_and(|txid| self.txids.contains(txid));
		let bump = self.bump.as_ref().is_some_and(|bump| !bump.accepted);
		match self.state {
			SpliceState::Tentative => true,
			SpliceState::Negotiated => bump && !is_known,
			_ => false,
		}
	}

	/// The newest round of this splice.
	pub(crate) fn newest<'a>(&self, rounds: &'a [Round]) -> Option<(&'a Round, &'a OurPart)> {
		let ours = |round: &'a Round| {
			let part = round.ours.as_ref().filter(|part| self.is_ours(part))?;
			Some((round, part))
		};
		rounds.iter().rev().find_map(ours)
	}

	/// Returns whether an event that gives `reason` is about what LDK has refused, which was acted
	/// on when it was refused: nothing that LDK has taken since can be what failed. A previous
	/// process run may have handed something over after the refusal; then the reason tells.
	pub(crate) fn is_refusal_known(&self, reason: &FailureReason) -> bool {
		let mut taken_since = false;
		for step in self.steps.iter().rev() {
			match &step.what {
				What::Refused(refused) => return !taken_since || refused == reason,
				What::HandedOver if !self.handed => taken_since = true,
				What::HandedOver
				| What::Bumped
				| What::Signing(_)
				| What::Negotiated(_)
				| What::RoundFailed(_)
				| What::BumpFailed(_) => return false,
				_ => {},
			}
		}
		false
	}

	pub(crate) fn step(&mut self, at: Timestamp, what: What) {
		if self.steps.len() >= MAX_STEPS {
			self.steps.remove(MAX_STEPS / 2);
		}
		self.steps.push(Step { at, what });
	}

	pub(crate) fn note_txid(&mut self, txid: Txid) -> bool {
		let new = !self.txids.contains(&txid);
		if new {
			if self.txids.len() >= MAX_ROUNDS {
				self.txids.remove(0);
			}
			self.txids.push(txid);
		}
		new
	}

	/// The contribution that is handed in from now on; the old one may still turn up.
	pub(crate) fn contribute(&mut self, contribution: Contribution) {
		let old = self.contribution.replace(contribution);
		if let Some(old) = old.map(|old| old.material) {
			self.remember(old);
		}
	}

	pub(crate) fn remember(&mut self, material: Material) {
		let current = self.contribution.as_ref().map(|c| &c.material);
		if current == Some(&material) || self.earlier.contains(&material) {
			return;
		}
		if self.earlier.len() >= MAX_ROUNDS {
			self.earlier.remove(0);
		}
		self.earlier.push(material);
	}
}
