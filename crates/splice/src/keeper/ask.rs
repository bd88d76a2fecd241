// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! What the user asks for.

use bitcoin::{TxOut, Txid};
use leyden_store::Expectation;

use super::*;
use crate::driver::{BuildError, SubmitError, Want};
use crate::law::Trigger;
use crate::parts::{Contribution, FeeBand};
use crate::probe::{ChannelView, InputStatus, Spender, Stage};
use crate::splice::{Bump, SpliceState, What};

/// Outputs of a splice-out.
pub const MAX_OUTPUTS: usize = 100;
/// The least that is spliced in or paid to an output, in satoshi: what every node relays, whatever
/// the script.
pub const DUST_SAT: u64 = 546;
/// More bitcoins than there are, in satoshi.
pub const MAX_SAT: u64 = 21_000_000 * 100_000_000;

/// A splice that can be asked for.
struct Admitted {
	view: ChannelView,
	/// `true` if another splice of the channel goes first.
	waits: bool,
}

impl Splices {
	/// Puts `amount_sat` of the wallet's coins into a channel.
	///
	/// If another splice of the channel is going on, this one waits until that is done.
	///
	/// # Errors
	/// What is wrong with the request, or why LDK or the wallet refuses it; the store's. After an
	/// error the splice never runs.
	///
	/// # Failure Behavior and Persistence
	/// After `Ok` it is carried through restarts until it funds the channel, or the user is told
	/// that it failed. A crash before that leaves it, if LDK had it signed, or nothing.
	pub fn splice_in(
		&self, channel: ChannelRef, amount_sat: u64, band: FeeBand,
	) -> Result<SpliceId, SpliceError> {
		check_amount(amount_sat)?;
		self.begin(channel, SpliceKind::In { amount_sat }, band)
	}

	/// Pays `outputs` from a channel.
	///
	/// # Errors
	/// As [`splice_in`](Splices::splice_in); [`SpliceError::ScriptInUse`] if a splice of the
	/// channel that is going on pays to one of the scripts, since LDK could not tell the two apart.
	///
	/// # Failure Behavior and Persistence
	/// As [`splice_in`](Splices::splice_in).
	pub fn splice_out(
		&self, channel: ChannelRef, outputs: Vec<TxOut>, band: FeeBand,
	) -> Result<SpliceId, SpliceError> {
		if outputs.is_empty() || outputs.len() > MAX_OUTPUTS {
			return Err(SpliceError::BadOutputs { count: outputs.len() });
		}
		let mut sum = 0_u64;
		for output in &outputs {
			check_amount(output.value.to_sat())?;
			sum = sum.saturating_add(output.value.to_sat());
		}
		check_amount(sum)?;
		self.begin(channel, SpliceKind::Out { outputs }, band)
	}

	/// Raises the fee of a splice that is negotiated and not confirmed. The inputs that its own
	/// transaction spends are used again, and the change pays; more coins are selected if that is
	/// not enough. Works while the peer is away, and again after that.
	///
	/// # Errors
	/// [`SpliceError::NothingToBump`] if there is none, or a bump is under way;
	/// [`SpliceError::InputSpent`] if a transaction that is not the splice's spends one of its
	/// inputs; as [`splice_in`](Splices::splice_in). After an error the higher fee is not paid.
	///
	/// # Failure Behavior and Persistence
	/// As [`splice_in`](Splices::splice_in); if the higher fee fails, the splice goes on as it was.
	pub fn bump_fee(&self, id: &SpliceId, band: FeeBand) -> Result<(), SpliceError> {
		check_band(band)?;
		self.reconcile(id, Trigger::Look)?;
		let selecting = self.selecting(&Want::Bump);
		let channel = self.to_bump(&self.live.lock(), id)?.channel;
		let contribution = self.build(&channel, &Want::Bump, band)?;
		let mut live = self.live.lock();
		// It may have locked while coins were selected.
		let pending = self.look_at(&mut live, id, Trigger::Look, None)?;
		let mut splice = match self.to_bump(&live, id) {
			Ok(splice) => splice,
			Err(error) => {
				drop((live, selecting));
				// The next of the channel may have its turn; if that fails, the next look does it.
				let _ = self.build_pending(pending);
				return Err(error);
			},
		};
		self.check_coins(&splice, &contribution)?;
		let before = splice.clone();
		let bump = Bump { contribution, band, accepted: false, failures: 0 };
		self.hand_in_bump(&mut live, &mut splice, bump)?;
		let Some(bump) = &splice.bump else { return Ok(()) };
		match self.driver.submit(&splice.channel, &bump.contribution) {
			Ok(()) => {},
			Err(error) => {
				self.undo_bump(&mut live, before, &splice)?;
				return Err(refused(error));
			},
		}
		if let Some(bump) = &mut splice.bump {
			bump.accepted = true;
		}
		(splice.handed, splice.signing) = (true, false);
		splice.step(self.now(), What::Bumped);
		if let Err(error) = self.write(Batch::new(), &splice) {
			// As a new splice: what was not accepted is not signed.
			let _ = self.driver.cancel(&splice.channel);
			return Err(error);
		}
		live.insert(splice);
		Ok(())
	}

	/// Takes a splice back, if it is not signed yet. The user is told as of any other that failed.
	///
	/// # Errors
	/// [`SpliceError::NoSuchSplice`], [`SpliceError::TooLate`]; the store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the splice is over. The wish is written down first: a crash on the way
	/// leaves a splice that is canceled at the next start, if it is not signed by then.
	pub fn cancel(&self, id: &SpliceId) -> Result<(), SpliceError> {
		let mut live = self.live.lock();
		// What is to be built for it is of no use any more.
		self.look_at(&mut live, id, Trigger::Look, None)?;
		let mut splice = live.get(id).ok_or(SpliceError::NoSuchSplice { id: *id })?.clone();
		if splice.state == SpliceState::Negotiated {
			return Err(SpliceError::TooLate { id: *id });
		}
		if !splice.canceling {
			splice.canceling = true;
			splice.step(self.now(), What::CancelAsked);
			self.write(Batch::new(), &splice)?;
			live.insert(splice);
		}
		let pending = self.look_at(&mut live, id, Trigger::Look, None)?;
		if live.get(id).is_some() {
			return Err(SpliceError::TooLate { id: *id });
		}
		drop(live);
		// The next of the channel has its turn. Whatever becomes of that, this one is over.
		let _ = self.build_pending(pending);
		Ok(())
	}

	/// Returns the splice, if its fee can be raised.
	fn to_bump(&self, live: &Live, id: &SpliceId) -> Result<Splice, SpliceError> {
		let splice = live.get(id).ok_or(SpliceError::NoSuchSplice { id: *id })?;
		if splice.state != SpliceState::Negotiated || splice.bump.is_some() || splice.canceling {
			return Err(SpliceError::NothingToBump { id: *id });
		}
		Ok(splice.clone())
	}

	fn begin(
		&self, channel: ChannelRef, kind: SpliceKind, band: FeeBand,
	) -> Result<SpliceId, SpliceError> {
		check_band(band)?;
		let selecting = self.selecting(&want(&kind, None));
		let waits = self.admit(&self.live.lock(), &channel, &kind)?.waits;
		let built = match waits {
			true => None,
			false => Some(self.build(&channel, &want(&kind, None), band)?),
		};
		let mut live = self.live.lock();
		// Another splice of the channel may have begun while coins were selected.
		let Admitted { view, waits } = self.admit(&live, &channel, &kind)?;
		let times = self.clock.look();
		let now = times.wall;
		let mut splice = Splice {
			id: random_id()?,
			channel,
			anchor: view.funding,
			kind,
			band,
			state: SpliceState::Deferred,
			contribution: None,
			bump: None,
			earlier: Vec::new(),
			txids: Vec::new(),
			inputs: Vec::new(),
			failures: 0,
			canceling: false,
			number: live.next_number(),
			asked: times.stamp(),
			expires_at: now.after(self.options.max_age),
			steps: Vec::new(),
			handed: false,
			signing: false,
		};
		splice.step(now, What::Asked);
		let id = splice.id;
		let Some(contribution) = built.filter(|_| !waits) else {
			let mut batch = Batch::new();
			batch.expect(records::live_key(&id), Expectation::Absent);
			self.write(batch, &splice)?;
			live.insert(splice);
			drop((live, selecting));
			if !waits {
				// What was ahead is over since: its turn has come. If that fails, the next look
				// does it, or tells the user.
				let _ = self.reconcile(&id, Trigger::Look);
			}
			return Ok(id);
		};
		self.check_coins(&splice, &contribution)?;
		splice.inputs = contribution.material.inputs().to_vec();
		splice.contribute(contribution);
		splice.state = SpliceState::Tentative;
		self.hand_in(&mut live, splice)?;
		Ok(id)
	}

	/// Checks that a splice can be asked for now, and returns whether it would have to wait.
	fn admit(
		&self, live: &Live, channel: &ChannelRef, kind: &SpliceKind,
	) -> Result<Admitted, SpliceError> {
		if live.splices.len() >= MAX_LIVE {
			return Err(SpliceError::TooMany { limit: MAX_LIVE });
		}
		let view = self.driver.view(channel).ok_or(SpliceError::UnknownChannel)?;
		if view.closing {
			return Err(SpliceError::ChannelClosing);
		}
		let ahead = live.of_channel(&channel.channel_id);
		check_scripts(live, &ahead, kind)?;
		let waits = !ahead.is_empty() || live.has_stranger(&view);
		Ok(Admitted { view, waits })
	}

	/// Writes a new splice down, hands it to LDK, writes down that it was taken.
	fn hand_in(&self, live: &mut Live, mut splice: Splice) -> Result<(), SpliceError> {
		let id = splice.id;
		let mut batch = Batch::new();
		batch.expect(records::live_key(&id), Expectation::Absent);
		self.coins.put(&mut batch, &id, &splice.inputs)?;
		self.write(batch, &splice)?;
		self.reserved(&id, &splice.inputs);
		live.insert(splice.clone());

		let Some(contribution) = &splice.contribution else { return Ok(()) };
		if let Err(error) = self.driver.submit(&splice.channel, contribution) {
			// If this cannot be written, the next start forgets it: LDK does not have it.
			self.forget(live, &splice)?;
			return Err(refused(error));
		}
		splice.handed = true;
		splice.state = SpliceState::Accepted;
		splice.step(self.now(), What::HandedOver);
		if let Err(error) = self.write(Batch::new(), &splice) {
			// The caller hears an error, so it must not run: taken back, and if that is too late,
			// it is not signed, since it stays tentative.
			let _ = self.driver.cancel(&splice.channel);
			return Err(error);
		}
		live.insert(splice);
		Ok(())
	}

	fn hand_in_bump(
		&self, live: &mut Live, splice: &mut Splice, bump: Bump,
	) -> Result<(), SpliceError> {
		let mut batch = Batch::new();
		let inputs = bump.contribution.material.inputs().to_vec();
		self.coins.put(&mut batch, &splice.id, &inputs)?;
		let new = inputs.into_iter().filter(|input| !splice.inputs.contains(input));
		let new: Vec<OutPoint> = new.collect();
		splice.inputs.extend(&new);
		splice.bump = Some(bump);
		self.write(batch, splice)?;
		self.reserved(&splice.id, &new);
		live.insert(splice.clone());
		Ok(())
	}

	/// Nothing of a higher fee that LDK did not take is left.
	fn undo_bump(&self, live: &mut Live, before: Splice, with: &Splice) -> Result<(), SpliceError> {
		let new = with.inputs.iter().filter(|input| !before.inputs.contains(input));
		let new: Vec<OutPoint> = new.copied().collect();
		let mut batch = Batch::new();
		let freed = self.coins.delete(&mut batch, &before.id, &new);
		self.write(batch, &before)?;
		self.released(&before.id, &freed);
		live.insert(before);
		Ok(())
	}

	fn build(
		&self, channel: &ChannelRef, want: &Want<'_>, band: FeeBand,
	) -> Result<Contribution, SpliceError> {
		self.driver.build(channel, want, band).map_err(|error| match error {
			BuildError::NotNow { message } => SpliceError::NotNow { message },
			BuildError::Impossible(reason) => SpliceError::Refused(reason),
		})
	}

	/// Refuses a contribution over inputs that the wallet must not have selected, and over inputs
	/// that a transaction which is not the splice's spends.
	pub(super) fn check_coins(
		&self, splice: &Splice, contribution: &Contribution,
	) -> Result<(), SpliceError> {
		let inputs = contribution.material.inputs();
		let other = |input: &&OutPoint| self.coins.holder(input).is_some_and(|id| id != splice.id);
		if let Some(input) = inputs.iter().find(other) {
			return Err(SpliceError::InputReserved { input: *input });
		}
		let view = self.driver.view(&splice.channel);
		match self.input_status(splice, view.as_ref(), inputs) {
			InputStatus::Unspent => Ok(()),
			InputStatus::Spent => Err(SpliceError::InputSpent),
		}
	}

	/// Returns whether `inputs` can be spent by another transaction of `splice`, whose own
	/// candidates spend them already once one is negotiated.
	pub(super) fn input_status(
		&self, splice: &Splice, channel: Option<&ChannelView>, inputs: &[OutPoint],
	) -> InputStatus {
		let rounds = channel.map(|channel| channel.rounds.as_slice()).unwrap_or_default();
		let own = |txid: &Txid| splice.txids.contains(txid);
		let negotiated = |input: &OutPoint| {
			let candidates = rounds.iter().filter(|r| matches!(r.stage, Stage::Negotiated(_)));
			let parts = candidates.filter_map(|round| round.ours.as_ref());
			let mut parts = parts.filter(|part| splice.is_ours(part));
			parts.any(|part| part.material.inputs().contains(input))
		};
		let can_be_spent = |input: &OutPoint| {
			// The output of one candidate does not exist if another is confirmed.
			!own(&input.txid)
				&& match self.driver.spender(input) {
					Spender::Nothing => true,
					Spender::Transaction(txid) => own(&txid),
					// A candidate that LDK has negotiated spends the input: the wallet means that.
					Spender::Unknown => negotiated(input),
				}
		};
		match inputs.iter().all(can_be_spent) {
			true => InputStatus::Unspent,
			false => InputStatus::Spent,
		}
	}
}

pub(super) fn want<'a>(kind: &'a SpliceKind, reuse: Option<&'a [u8]>) -> Want<'a> {
	match kind {
		SpliceKind::In { amount_sat } => Want::In { amount_sat: *amount_sat, reuse },
		SpliceKind::Out { outputs } => Want::Out { outputs },
	}
}

fn refused(error: SubmitError) -> SpliceError {
	match error {
		SubmitError::AlreadyPending => {
			SpliceError::NotNow { message: "a contribution is being negotiated".to_owned() }
		},
		SubmitError::ChannelGone => {
			SpliceError::NotNow { message: "the channel cannot be used".to_owned() }
		},
		SubmitError::Refused(reason) => SpliceError::Refused(reason),
	}
}

fn check_amount(amount_sat: u64) -> Result<(), SpliceError> {
	if (DUST_SAT..=MAX_SAT).contains(&amount_sat) {
		return Ok(());
	}
	Err(SpliceError::BadAmount { amount_sat, least_sat: DUST_SAT })
}

fn check_band(band: FeeBand) -> Result<(), SpliceError> {
	if band.min_sat_per_kw == 0 || band.min_sat_per_kw > band.max_sat_per_kw {
		return Err(SpliceError::BadFeeBand);
	}
	Ok(())
}

fn check_scripts(live: &Live, ahead: &[SpliceId], kind: &SpliceKind) -> Result<(), SpliceError> {
	let SpliceKind::Out { outputs } = kind else { return Ok(()) };
	for splice in ahead.iter().filter_map(|id| live.get(id)) {
		let SpliceKind::Out { outputs: theirs } = &splice.kind else { continue };
		let used = |output: &&TxOut| theirs.iter().any(|o| o.script_pubkey == output.script_pubkey);
		if let Some(output) = outputs.iter().find(used) {
			return Err(SpliceError::ScriptInUse { script: output.script_pubkey.clone() });
		}
	}
	Ok(())
}

fn random_id() -> Result<SpliceId, SpliceError> {
	let mut bytes = [0; 32];
	getrandom::getrandom(&mut bytes).map_err(|_| SpliceError::NoRandomness)?;
	Ok(SpliceId::from_bytes(bytes))
}
