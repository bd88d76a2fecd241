// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Doing what the law says.

use std::collections::VecDeque;

use bitcoin::Txid;
use leyden_store::KeyRange;

use super::*;
use parking_lot::MutexGuard;

use crate::driver::{BuildError, SubmitError, Want};
use crate::law::{decide, Decision, Trigger};
use crate::parts::{Contribution, FeeBand};
use crate::probe::{Fate, InputStatus, NewFunding, Probe, Stage};
use crate::records::PAST;
use crate::splice::{SpliceState, What};

/// Decisions about one splice before it has to wait for the next occasion.
const MAX_DECISIONS: usize = 8;

/// Transactions looked at on the way from the funding of now back to the one that a splice spends.
const MAX_TRACED: usize = 64;

/// What comes after a decision.
enum Next {
	/// Nothing, for now.
	Rest,
	/// Look again.
	Again(Trigger),
	/// It is over: whoever waited for it has its turn.
	Over,
	/// A contribution is to be built first, if need be over the inputs that it has.
	Build(SpliceKind, Option<Vec<u8>>),
	/// A contribution with the higher fee is to be built first.
	BuildBump(FeeBand),
}

/// A contribution that is to be built under no lock, since the wallet may take its time, and the
/// event handler must not wait for it. Then the splice is looked at again.
pub(super) struct Pending {
	id: SpliceId,
	trigger: Trigger,
	channel: ChannelRef,
	/// The kind of the splice; `None` for a higher fee.
	kind: Option<SpliceKind>,
	reuse: Option<Vec<u8>>,
	band: FeeBand,
}

/// The contribution that was built meanwhile.
pub(super) struct Built {
	is_bump: bool,
	contribution: Result<Contribution, BuildError>,
}

impl Splices {
	/// Decides about a splice, and acts, until there is nothing more to do. Builds contributions
	/// under no lock.
	pub(super) fn reconcile(&self, id: &SpliceId, trigger: Trigger) -> Result<(), SpliceError> {
		let pending = self.look_at(&mut self.live.lock(), id, trigger, None)?;
		self.build_pending(pending)
	}

	/// Builds what is to be built, and goes on with it, until there is nothing more to do.
	pub(super) fn build_pending(&self, mut pending: Option<Pending>) -> Result<(), SpliceError> {
		for _ in 0..MAX_DECISIONS {
			let Some(wanted) = pending else { break };
			let reuse = wanted.reuse.as_deref();
			let want = wanted.kind.as_ref().map_or(Want::Bump, |kind| ask::want(kind, reuse));
			let _selecting = self.selecting(&want);
			let contribution = self.driver.build(&wanted.channel, &want, wanted.band);
			let built = Built { is_bump: wanted.kind.is_none(), contribution };
			let mut live = self.live.lock();
			pending = self.look_at(&mut live, &wanted.id, wanted.trigger, Some(built))?;
		}
		Ok(())
	}

	/// Takes the lock of coin selection, unless no coins are wanted, as for a splice-out. The
	/// caller holds it until the coins are reserved, so that no two splices select the same. The
	/// lock is taken before the lock of the splices, never under it.
	pub(super) fn selecting(&self, want: &Want<'_>) -> Option<MutexGuard<'_, ()>> {
		(!matches!(want, Want::Out { .. })).then(|| self.selecting.lock())
	}

	/// Decides about a splice, and acts, until there is nothing more to do, or something is to be
	/// built. `built` is what was built for the splice; it is used if it still helps.
	pub(super) fn look_at(
		&self, live: &mut Live, id: &SpliceId, mut trigger: Trigger, mut built: Option<Built>,
	) -> Result<Option<Pending>, SpliceError> {
		for _ in 0..MAX_DECISIONS {
			let Some(splice) = live.get(id).cloned() else { return Ok(None) };
			let probe = self.probe(live, &splice);
			let decision = decide(&probe, &splice, self.now_for(&splice), &trigger);
			let (channel, band) = (splice.channel, splice.band);
			let (kind, reuse, band) =
				match self.act(live, splice, &probe, &trigger, decision, &mut built)? {
					Next::Rest => return Ok(None),
					Next::Again(again) => {
						trigger = again;
						continue;
					},
					Next::Over => {
						let next = live.of_channel(&channel.channel_id).first().copied();
						let Some(next) = next else { return Ok(None) };
						return self.look_at(live, &next, Trigger::Look, None);
					},
					Next::Build(kind, reuse) => (Some(kind), reuse, band),
					Next::BuildBump(band) => (None, None, band),
				};
			return Ok(Some(Pending { id: *id, trigger, channel, kind, reuse, band }));
		}
		Ok(None)
	}

	fn probe(&self, live: &Live, splice: &Splice) -> Probe {
		let channel = self.driver.view(&splice.channel);
		let bump = splice.bump.as_ref().map(|bump| &bump.contribution);
		let next = bump.or(splice.contribution.as_ref());
		let inputs = next.map(|next| next.material.inputs()).unwrap_or_default();
		let coins = self.input_status(splice, channel.as_ref(), inputs);
		let new = channel.as_ref().map(|c| c.funding).filter(|new| *new != splice.anchor);
		let new_funding = new.map_or(NewFunding::Unknown, |new| self.trace(splice, new.txid));
		let first = live.of_channel(&splice.channel.channel_id).first() == Some(&splice.id);
		let its_turn = first && !channel.as_ref().is_some_and(|view| live.has_stranger(view));
		let fate = live.fates.get(&splice.id).copied().unwrap_or(Fate::Open);
		Probe { channel, coins, new_funding, fate, its_turn }
	}

	/// Asks what became of the transactions of channels that are gone. The one who knows may hold
	/// locks while it waits for ours, so that is done before any is taken.
	pub(super) fn learn_fates(&self) {
		let out: Vec<Splice> = {
			let live = self.live.lock();
			live.splices.values().filter(|splice| !splice.txids.is_empty()).cloned().collect()
		};
		for splice in out {
			let fate = match self.driver.view(&splice.channel) {
				Some(_) => continue,
				None => self.fate_of(&splice),
			};
			self.live.lock().fates.insert(splice.id, fate);
		}
	}

	/// It may have locked, and another splice on top of it, before anybody looked.
	fn fate_of(&self, splice: &Splice) -> Fate {
		let fate = self.driver.fate(&splice.channel, &splice.txids);
		let last = self.driver.last_funding(&splice.channel);
		match last.filter(|last| fate == Fate::Lost && *last != splice.anchor.txid) {
			None => fate,
			Some(last) => match self.trace(splice, last) {
				NewFunding::IsTheSplice(txid) => Fate::Funded(txid),
				NewFunding::IsNot => Fate::Lost,
				NewFunding::Unknown => Fate::Unknown,
			},
		}
	}

	/// Looks for the transaction that spent the anchor, from the one that funds the channel now
	/// back.
	fn trace(&self, splice: &Splice, newest: Txid) -> NewFunding {
		let bump = splice.bump.as_ref().map(|bump| &bump.contribution);
		let materials = splice.contribution.iter().chain(bump).map(|c| &c.material);
		let materials: Vec<_> = materials.chain(&splice.earlier).collect();
		let mut to_look_at = VecDeque::from([newest]);
		for _ in 0..MAX_TRACED {
			let Some(txid) = to_look_at.pop_front() else { break };
			let Some(transaction) = self.driver.transaction(&txid) else { continue };
			let mut spends = transaction.input.iter().map(|input| input.previous_output);
			let ours = splice.txids.contains(&txid)
				|| materials.iter().any(|material| material.is_in(&transaction));
			if spends.any(|spent| spent == splice.anchor) {
				return if ours { NewFunding::IsTheSplice(txid) } else { NewFunding::IsNot };
			}
			to_look_at.extend(transaction.input.iter().map(|input| input.previous_output.txid));
		}
		NewFunding::Unknown
	}

	fn act(
		&self, live: &mut Live, mut splice: Splice, probe: &Probe, trigger: &Trigger,
		decision: Decision, built: &mut Option<Built>,
	) -> Result<Next, SpliceError> {
		let now = self.now();
		let failed = |reason| match trigger {
			Trigger::Refused(_) => What::Refused(reason),
			Trigger::Look | Trigger::Failed(_) => What::RoundFailed(reason),
		};
		match decision {
			Decision::Keep(stage) => self.keep(live, splice, stage).map(|()| Next::Rest),
			Decision::Await => Ok(Next::Rest),
			Decision::Wait => {
				self.defer(live, splice)?;
				Ok(Next::Rest)
			},
			Decision::Submit { after } => {
				if let Some(reason) = after {
					splice.failures = splice.failures.saturating_add(1);
					splice.step(now, failed(reason));
					// Before it is handed over: a crash must not give it more attempts.
					self.write(Batch::new(), &splice)?;
				}
				self.submit(live, splice)
			},
			Decision::Rebuild { after } => {
				let Some(built) = take(built, false) else {
					let reuse = splice.contribution.map(|contribution| contribution.bytes);
					let reuse = reuse.filter(|_| probe.coins == InputStatus::Unspent);
					return Ok(Next::Build(splice.kind, reuse));
				};
				if let Some(reason) = after {
					splice.failures = splice.failures.saturating_add(1);
					splice.step(now, failed(reason));
				}
				self.rebuild(live, splice, built)
			},
			Decision::SubmitBump { after } => {
				if let (Some(reason), Some(bump)) = (after, &mut splice.bump) {
					bump.failures = bump.failures.saturating_add(1);
					splice.step(now, failed(reason));
					self.write(Batch::new(), &splice)?;
				}
				self.submit_bump(live, splice)
			},
			Decision::RebuildBump { after } => {
				let Some(band) = splice.bump.as_ref().map(|bump| bump.band) else {
					return Ok(Next::Rest);
				};
				match take(built, true) {
					Some(built) => self.rebuild_bump(live, splice, failed(after), built),
					None => Ok(Next::BuildBump(band)),
				}
			},
			Decision::BumpDone(txid) => {
				if let Some(bump) = splice.bump.take() {
					splice.contribute(bump.contribution);
					splice.band = bump.band;
				}
				splice.note_txid(txid);
				splice.step(now, What::Negotiated(txid));
				self.write(Batch::new(), &splice)?;
				live.insert(splice);
				Ok(Next::Again(Trigger::Look))
			},
			Decision::DropBump { reason, counted } => {
				if let Some(bump) = &mut splice.bump {
					bump.failures = bump.failures.saturating_add(counted.into());
				}
				self.drop_bump(live, splice, Some(reason))
			},
			Decision::ForgetBump => self.drop_bump(live, splice, None),
			Decision::Reanchor(anchor) => {
				let rounds = probe.channel.iter().flat_map(|c| splice.newest(&c.rounds));
				let listed = rounds.map(|(round, _)| round.stage).next();
				splice.anchor = anchor;
				let has_transaction = listed.is_some_and(|stage| stage.txid().is_some());
				if !has_transaction && splice.state != SpliceState::Tentative {
					// What it had negotiated spends what is spent.
					splice.state = SpliceState::Accepted;
				}
				splice.step(now, What::Reanchored(anchor));
				self.write(Batch::new(), &splice)?;
				live.insert(splice);
				Ok(Next::Again(Trigger::Look))
			},
			Decision::Cancel(reason) => match self.driver.cancel(&splice.channel) {
				Ok(()) => self.end(live, splice, SpliceState::Failed(reason), false),
				// Signed, or about to be: then it runs.
				Err(_) => Ok(Next::Rest),
			},
			Decision::TakeBack => match self.driver.cancel(&splice.channel) {
				Ok(()) if splice.state == SpliceState::Tentative => {
					self.forget(live, &splice)?;
					Ok(Next::Over)
				},
				Ok(()) => self.drop_bump(live, splice, None),
				// It is not signed, and LDK is asked again.
				Err(_) => Ok(Next::Rest),
			},
			Decision::Locked(txid) => {
				self.lock_in(live, splice, txid)?;
				Ok(Next::Over)
			},
			Decision::Fail { reason, counted, keep_coins } => {
				splice.failures = splice.failures.saturating_add(counted.into());
				self.end(live, splice, SpliceState::Failed(reason), keep_coins)
			},
			Decision::Drop => {
				self.forget(live, &splice)?;
				Ok(Next::Over)
			},
		}
	}

	/// LDK has it.
	fn keep(&self, live: &mut Live, mut splice: Splice, stage: Stage) -> Result<(), SpliceError> {
		let now = self.now();
		let before = splice.clone();
		// A round that replaces what is broadcast makes the splice no less broadcast.
		let is_broadcast = splice.state == SpliceState::Negotiated;
		splice.signing |= matches!(stage, Stage::Signing(_));
		match stage {
			Stage::Queued | Stage::BehindLock | Stage::Negotiating => {
				if matches!(splice.state, SpliceState::Tentative | SpliceState::Deferred) {
					splice.state = SpliceState::Accepted;
				}
				if splice.state == SpliceState::Signing {
					splice.state = SpliceState::Accepted;
				}
			},
			Stage::Signing(txid) => {
				if splice.note_txid(txid) {
					splice.step(now, What::Signing(txid));
				}
				if !is_broadcast {
					splice.state = SpliceState::Signing;
				}
			},
			Stage::Negotiated(txid) => {
				if splice.note_txid(txid) || splice.state != SpliceState::Negotiated {
					splice.step(now, What::Negotiated(txid));
				}
				splice.state = SpliceState::Negotiated;
			},
		}
		let Splice { handed, signing, .. } = before;
		let changed = Splice { handed, signing, ..splice.clone() } != before;
		if changed {
			self.write(Batch::new(), &splice)?;
		}
		live.insert(splice);
		Ok(())
	}

	fn defer(&self, live: &mut Live, mut splice: Splice) -> Result<(), SpliceError> {
		if splice.state != SpliceState::Deferred {
			splice.state = SpliceState::Deferred;
			self.write(Batch::new(), &splice)?;
		}
		live.insert(splice);
		Ok(())
	}

	/// Hands the contribution in. What is on disk already says that it may have been.
	fn submit(&self, live: &mut Live, mut splice: Splice) -> Result<Next, SpliceError> {
		let Some(contribution) = &splice.contribution else { return Ok(Next::Rest) };
		match self.driver.submit(&splice.channel, contribution) {
			Ok(()) => {
				splice.state = SpliceState::Accepted;
				(splice.handed, splice.signing) = (true, false);
				splice.step(self.now(), What::HandedOver);
				self.write(Batch::new(), &splice)?;
				live.insert(splice);
				Ok(Next::Rest)
			},
			// Somebody else's; this one comes when that is done.
			Err(SubmitError::AlreadyPending | SubmitError::ChannelGone) => {
				self.defer(live, splice)?;
				Ok(Next::Rest)
			},
			Err(SubmitError::Refused(reason)) => {
				live.insert(splice);
				Ok(Next::Again(Trigger::Refused(reason)))
			},
		}
	}

	/// Hands in what was built from what the user asked for.
	fn rebuild(
		&self, live: &mut Live, mut splice: Splice, built: Result<Contribution, BuildError>,
	) -> Result<Next, SpliceError> {
		let contribution = match built {
			Ok(contribution) => contribution,
			Err(BuildError::Impossible(reason)) => {
				return self.end(live, splice, SpliceState::Failed(reason), false);
			},
			Err(BuildError::NotNow { .. }) => {
				// Without a contribution, it is built at the next occasion.
				let mut batch = Batch::new();
				let freed = self.coins.delete(&mut batch, &splice.id, &splice.inputs);
				if let Some(old) = splice.contribution.take() {
					splice.remember(old.material);
				}
				splice.inputs.clear();
				splice.state = SpliceState::Deferred;
				self.write(batch, &splice)?;
				self.released(&splice.id, &freed);
				live.insert(splice);
				return Ok(Next::Rest);
			},
		};
		match self.check_coins(&splice, &contribution) {
			Ok(()) => {},
			Err(SpliceError::Store(error)) => return Err(error.into()),
			Err(_) => {
				let reason = SpliceState::Failed(FailureReason::InputsSpent);
				return self.end(live, splice, reason, false);
			},
		}
		let mut batch = Batch::new();
		let inputs = contribution.material.inputs().to_vec();
		let gone: Vec<OutPoint> =
			splice.inputs.iter().filter(|input| !inputs.contains(input)).copied().collect();
		let freed = self.coins.delete(&mut batch, &splice.id, &gone);
		self.coins.put(&mut batch, &splice.id, &inputs)?;
		splice.inputs.clone_from(&inputs);
		splice.contribute(contribution);
		splice.step(self.now(), What::Rebuilt);
		self.write(batch, &splice)?;
		self.released(&splice.id, &freed);
		self.reserved(&splice.id, &inputs);
		self.submit(live, splice)
	}

	fn submit_bump(&self, live: &mut Live, mut splice: Splice) -> Result<Next, SpliceError> {
		let Some(bump) = &splice.bump else { return Ok(Next::Rest) };
		let next = match self.driver.submit(&splice.channel, &bump.contribution) {
			Ok(()) => {
				(splice.handed, splice.signing) = (true, false);
				splice.step(self.now(), What::HandedOver);
				self.write(Batch::new(), &splice)?;
				Next::Rest
			},
			Err(SubmitError::AlreadyPending | SubmitError::ChannelGone) => Next::Rest,
			Err(SubmitError::Refused(reason)) => Next::Again(Trigger::Refused(reason)),
		};
		live.insert(splice);
		Ok(next)
	}

	fn rebuild_bump(
		&self, live: &mut Live, mut splice: Splice, after: What,
		built: Result<Contribution, BuildError>,
	) -> Result<Next, SpliceError> {
		let contribution = match built {
			Ok(contribution) => contribution,
			Err(BuildError::Impossible(reason)) => {
				return self.drop_bump(live, splice, Some(reason));
			},
			Err(BuildError::NotNow { .. }) => return Ok(Next::Rest),
		};
		if self.check_coins(&splice, &contribution).is_err() {
			return self.drop_bump(live, splice, Some(FailureReason::InputsSpent));
		}
		let mut batch = Batch::new();
		let inputs = contribution.material.inputs().to_vec();
		self.coins.put(&mut batch, &splice.id, &inputs)?;
		let new = inputs.iter().filter(|input| !splice.inputs.contains(input));
		let new: Vec<OutPoint> = new.copied().collect();
		splice.inputs.extend(&new);
		if let Some(bump) = &mut splice.bump {
			bump.failures = bump.failures.saturating_add(1);
			bump.contribution = contribution;
		}
		splice.step(self.now(), after);
		self.write(batch, &splice)?;
		self.reserved(&splice.id, &new);
		self.submit_bump(live, splice)
	}

	/// The splice goes on with the fee it has.
	fn drop_bump(
		&self, live: &mut Live, mut splice: Splice, reason: Option<FailureReason>,
	) -> Result<Next, SpliceError> {
		let Some(bump) = splice.bump.take() else { return Ok(Next::Rest) };
		let mine = |input: &OutPoint| {
			let current = splice.contribution.iter().map(|c| &c.material);
			current.chain(&splice.earlier).any(|m| m.inputs().contains(input))
		};
		let inputs = bump.contribution.material.inputs().iter();
		let gone: Vec<OutPoint> = inputs.filter(|input| !mine(input)).copied().collect();
		let mut batch = Batch::new();
		let freed = self.coins.delete(&mut batch, &splice.id, &gone);
		splice.inputs.retain(|input| !freed.contains(input));
		let mut plan = None;
		if let Some(reason) = reason {
			splice.step(self.now(), What::BumpFailed(reason.clone()));
			let failed = SpliceFailed {
				id: splice.id,
				channel: splice.channel,
				kind: splice.kind.clone(),
				bump_only: true,
				reason,
				attempts: bump.failures,
				released: freed.clone(),
			};
			plan = Some((self.tell)(&failed));
		}
		batch.put(records::live_key(&splice.id), records::write(&splice)?);
		let batch = Plan::of(batch);
		match plan {
			Some(plan) => {
				batch.and(plan).commit(&*self.store).wait()?;
			},
			None => batch.run(&*self.store)?,
		}
		self.released(&splice.id, &freed);
		live.insert(splice);
		Ok(Next::Again(Trigger::Look))
	}

	/// Its transaction funds the channel.
	pub(super) fn lock_in(
		&self, live: &mut Live, mut splice: Splice, txid: Txid,
	) -> Result<(), SpliceError> {
		if let Some(bump) = splice.bump.take() {
			// Whatever LDK still has of it would do the same again, on the new funding: it is not
			// signed.
			splice.remember(bump.contribution.material);
		}
		splice.note_txid(txid);
		splice.step(self.now(), What::Locked(txid));
		self.end(live, splice, SpliceState::Settled, false).map(|_| ())
	}

	/// One commit: the record is over, its coins are free, the user is told.
	fn end(
		&self, live: &mut Live, mut splice: Splice, state: SpliceState, keep_coins: bool,
	) -> Result<Next, SpliceError> {
		let id = splice.id;
		let mut batch = Batch::new();
		let freed = match keep_coins {
			true => Vec::new(),
			false => self.coins.delete(&mut batch, &id, &splice.inputs),
		};
		if let SpliceState::Failed(reason) = &state {
			splice.step(self.now(), What::Failed(reason.clone()));
		}
		splice.state = state;
		batch.delete(records::live_key(&id));
		let slot = batch.append(PAST, b"", records::write(&splice)?);
		let plan = Plan::new(batch, move |committed| committed.appended(slot));
		let told = match &splice.state {
			SpliceState::Failed(reason) => Some((self.tell)(&SpliceFailed {
				id,
				channel: splice.channel,
				kind: splice.kind.clone(),
				bump_only: false,
				reason: reason.clone(),
				attempts: splice.failures,
				released: freed.clone(),
			})),
			_ => None,
		};
		let place = match told {
			Some(told) => plan.and(told).commit(&*self.store).wait()?.0,
			None => plan.commit(&*self.store).wait()?,
		};
		live.remove(&id);
		self.released(&id, &freed);
		if let Some(place) = place {
			self.trim_past(place.number().get())?;
		}
		Ok(Next::Over)
	}

	/// Nothing is left of a splice that LDK never had.
	pub(super) fn forget(&self, live: &mut Live, splice: &Splice) -> Result<(), SpliceError> {
		let mut batch = Batch::new();
		batch.delete(records::live_key(&splice.id));
		let freed = self.coins.delete(&mut batch, &splice.id, &splice.inputs);
		Plan::of(batch).run(&*self.store)?;
		live.remove(&splice.id);
		self.released(&splice.id, &freed);
		Ok(())
	}

	fn trim_past(&self, newest: u64) -> Result<(), SpliceError> {
		let Some(oldest) = newest.checked_sub(MAX_PAST) else { return Ok(()) };
		let range = KeyRange::all(PAST).below(&(oldest + 1).to_be_bytes());
		let mut batch = Batch::new();
		for (key, _) in self.store.scan(range, 16).wait()?.records {
			batch.delete(key);
		}
		if batch.is_empty() {
			return Ok(());
		}
		Ok(Plan::of(batch).run(&*self.store)?)
	}

	pub(super) fn reserved(&self, id: &SpliceId, inputs: &[OutPoint]) {
		self.coins.took(id, inputs);
		if let (Some(reserver), false) = (&self.reserver, inputs.is_empty()) {
			reserver.reserve(id, inputs);
		}
	}

	pub(super) fn released(&self, id: &SpliceId, inputs: &[OutPoint]) {
		self.coins.gave(inputs);
		if let (Some(reserver), false) = (&self.reserver, inputs.is_empty()) {
			reserver.release(id, inputs);
		}
	}
}

/// Takes what was built, if it is what is wanted.
fn take(built: &mut Option<Built>, is_bump: bool) -> Option<Result<Contribution, BuildError>> {
	built.take().filter(|built| built.is_bump == is_bump).map(|built| built.contribution)
}
