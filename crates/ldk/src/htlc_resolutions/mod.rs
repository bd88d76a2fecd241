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
//! it: no effect of the first time is done twice.
//!
//! # When a resolution ends
//! - A claim ends with `PaymentClaimed`.
//! - A failed payment ends when a manager is durable that was encoded after LDK was told, and LDK
//!   has no HTLC of the payment left that is not being failed: LDK may hold such an HTLC before it
//!   brings `PaymentClaimable` (a monitor is being persisted, a part is missing), and ignores
//!   `fail_htlc_backwards` until then.
//! - A forward, or the failure of an intercepted HTLC, ends when a manager is durable that was
//!   encoded after LDK took it. If LDK says at start that it knows no such HTLC, LDK's state is
//!   from before it was intercepted, or has the resolution already: the resolution stays for as
//!   long as an HTLC lives (2,016 blocks), or until LDK brings the event again.
//!
//! # Not promised
//! A claim that comes after its deadline is none: LDK has failed the payment back by then. LDK's
//! `HTLCHandlingFailed` does not say so for sure, since a sender can have it said by sending too
//! much. [`HtlcResolutions::overdue`] lists such claims.
//!
//! The preimages are in the store as they are. Whoever reads the store reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use leyden_store::codec;
use leyden_store::{Batch, Durability, Expectation, KeyRange, Plan, Store, StoreError, Version};
use lightning::events::Event;
use lightning::ln::channelmanager::InterceptId;
use lightning::types::payment::PaymentHash;
use lightning::util::errors::APIError;
use parking_lot::Mutex;

mod record;
mod resolution;
#[cfg(test)]
mod tests;

use record::{ResolutionV1, Subject, RESOLUTIONS};

#[cfg(feature = "fuzz")]
pub(crate) use record::{resolution_law, STORED as RESOLUTION_STORED};
pub use resolution::{HtlcResolution, HtlcResolver};

/// Records read in one go.
const PAGE: usize = 256;
/// An HTLC expires at most so many blocks after it came (LDK's `CLTV_FAR_FAR_AWAY`).
const HTLC_LIFE_BLOCKS: u32 = 14 * 24 * 6;

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
	/// A resolution was committed that LDK was not offered yet.
	has_new: bool,
}

struct Kept {
	resolution: HtlcResolution,
	/// The commit that wrote it down: a later resolution of the same HTLC is another one.
	version: Version,
	progress: Progress,
}

#[derive(Clone, Copy)]
enum Progress {
	/// LDK has not taken it in this run.
	Waits,
	/// LDK knew no such HTLC at this height, before it had brought it in this run.
	Unknown { since_height: u32 },
	/// LDK has taken it in this run, as number so many.
	Given { number: u64 },
	/// LDK has said that the payment is claimed.
	IsOver,
}

/// The answer of LDK to a resolution.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Taken {
	Yes,
	/// LDK does not hold the HTLC.
	NotHeld,
	/// The channel to forward over is not usable.
	NotYet,
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
				let body: ResolutionV1 = codec::decode(key, record)?;
				let (resolution, version) = (body.read(key, subject)?, record.version);
				let progress = Progress::Waits;
				kept.insert(subject, Kept { resolution, version, progress });
			}
			rest = page.rest;
		}
		let state = State { kept, ..State::default() };
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
	/// start, until LDK's own durable state has it. It replaces an earlier resolution of the same
	/// HTLC; a claim without a deadline keeps the one that is known. If [`apply`](HtlcResolutions::apply) is not called after the commit, the node's wiring
	/// calls it with the next event or manager.
	pub fn plan(&self, resolution: HtlcResolution) -> Result<Plan<()>, StoreError> {
		let subject = resolution.subject();
		let known = {
			let state = self.state.lock();
			state.kept.get(&subject).map(|kept| (kept.resolution, kept.version))
		};
		let resolution = known.map_or(resolution, |(known, _)| resolution.in_place_of(&known));
		let mut batch = Batch::new();
		if let Some((_, version)) = known.filter(|(known, _)| *known == resolution) {
			// It is written down already, and offered to LDK once more.
			let this = self.clone();
			batch.durability(Durability::Lazy);
			batch.after_commit(move |_| {
				this.set(&subject, version, Progress::Waits);
				this.state.lock().has_new = true;
			});
			return Ok(Plan::of(batch));
		}
		batch.put(subject.key(), codec::encode(&ResolutionV1::of(&resolution))?);
		let state = Arc::clone(&self.state);
		batch.after_commit(move |committed| {
			let (version, progress) = (committed.version(), Progress::Waits);
			let mut state = state.lock();
			state.kept.insert(subject, Kept { resolution, version, progress });
			state.has_new = true;
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
	/// an HTLC waits for has become usable. Returns how many LDK has not taken.
	///
	/// # Failure Behavior and Persistence
	/// Writes nothing; what LDK does about it is LDK's.
	pub fn apply(&self, manager: &impl HtlcResolver) -> usize {
		let due: Vec<_> = {
			let mut state = self.state.lock();
			state.has_new = false;
			let waits = |kept: &Kept| matches!(kept.progress, Progress::Waits);
			let due = state.kept.iter().filter(|(_, kept)| waits(kept));
			due.map(|(subject, kept)| (*subject, kept.resolution, kept.version)).collect()
		};
		// LDK is called without the lock.
		for (subject, resolution, version) in due {
			let progress = match take(manager, &resolution) {
				// LDK asks for a manager to be written even if it refuses: a resolution that was
				// offered with every manager would have one written after the other.
				Taken::NotHeld => Progress::Unknown { since_height: manager.best_height() },
				Taken::Yes => self.number(),
				Taken::NotYet => continue,
			};
			self.set(&subject, version, progress);
		}
		let state = self.state.lock();
		let is_open =
			|kept: &&Kept| matches!(kept.progress, Progress::Waits | Progress::Unknown { .. });
		state.kept.values().filter(is_open).count()
	}

	/// Gives LDK the resolution that is kept for a request, which LDK has brought just now. Returns
	/// `false` if there is none.
	pub fn answer(&self, manager: &impl HtlcResolver, event: &Event) -> bool {
		let Some(subject) = Subject::of(event) else { return false };
		let kept = {
			let state = self.state.lock();
			state.kept.get(&subject).map(|kept| (kept.resolution, kept.version))
		};
		let Some((resolution, version)) = kept else { return false };
		let progress = match take(manager, &resolution) {
			// LDK had the HTLC and has failed it back meanwhile: the next manager knows.
			Taken::Yes | Taken::NotHeld => self.number(),
			Taken::NotYet => Progress::Waits,
		};
		self.set(&subject, version, progress);
		true
	}

	/// Calls [`apply`](HtlcResolutions::apply) if a resolution was committed since the last time:
	/// the future that should have done so may have been dropped.
	pub(crate) fn apply_new(&self, manager: &impl HtlcResolver) {
		let has_new = self.state.lock().has_new;
		if has_new {
			self.apply(manager);
		}
	}

	/// Returns `true` if a resolution is kept for this request.
	pub(crate) fn has(&self, event: &Event) -> bool {
		let subject = Subject::of(event);
		subject.is_some_and(|subject| self.state.lock().kept.contains_key(&subject))
	}

	/// Notes that a claim is over, if the event is the payment's `PaymentClaimed`, and plans to
	/// delete it. If the commit fails, it is deleted with a later manager.
	pub(crate) fn payment_claimed(&self, event: &Event) -> Option<Plan<()>> {
		let Event::PaymentClaimed { payment_hash, .. } = event else { return None };
		let subject = Subject::Payment(payment_hash.0);
		let version = {
			let mut state = self.state.lock();
			let kept = state.kept.get_mut(&subject)?;
			kept.progress = Progress::IsOver;
			kept.version
		};
		Some(self.forget([(subject, version)]))
	}

	/// Plans to give up what was decided about a payment; for an operator who knows what became of
	/// it. The plan's commit is refused if another resolution is written down meanwhile.
	pub fn give_up_payment(&self, payment_hash: &PaymentHash) -> Plan<()> {
		self.give_up(Subject::Payment(payment_hash.0))
	}

	/// Plans to give up what was decided about an intercepted HTLC, as
	/// [`give_up_payment`](HtlcResolutions::give_up_payment) does for a payment.
	pub fn give_up_intercepted(&self, intercept_id: &InterceptId) -> Plan<()> {
		self.give_up(Subject::Intercepted(intercept_id.0))
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

	/// The mark of what a manager holds that is encoded after this call; see
	/// [`ManagerPersistListener::mark`](crate::ManagerPersistListener::mark).
	pub(crate) fn mark(&self) -> u64 {
		self.state.lock().given
	}

	/// Plans to delete what ends with a manager that is durable and holds everything below `mark`;
	/// `None` if there is nothing. The rules are in the module's documentation.
	pub(crate) fn settle_plan(&self, manager: &impl HtlcResolver, mark: u64) -> Option<Plan<()>> {
		let mut done = self.perhaps_done(mark);
		// LDK is called without the lock.
		done.retain(|(_, _, resolution, progress)| match (resolution, progress) {
			(_, Progress::IsOver) => true,
			(HtlcResolution::Claim { .. }, _) | (_, Progress::Waits) => false,
			(HtlcResolution::FailBackwards { payment_hash }, _) => {
				!manager.holds_payment(payment_hash)
			},
			(_, Progress::Given { .. }) => true,
			(_, Progress::Unknown { since_height }) => {
				manager.best_height() >= since_height.saturating_add(HTLC_LIFE_BLOCKS)
			},
		});
		let done: Vec<_> = done.iter().map(|(subject, version, ..)| (*subject, *version)).collect();
		(!done.is_empty()).then(|| self.forget(done))
	}

	/// Returns the resolutions that a durable manager may have ended.
	fn perhaps_done(&self, mark: u64) -> Vec<(Subject, Version, HtlcResolution, Progress)> {
		let state = self.state.lock();
		let may_be_done = |kept: &Kept| match kept.progress {
			Progress::Waits => false,
			Progress::Given { number } => number < mark,
			Progress::Unknown { .. } | Progress::IsOver => true,
		};
		let done = state.kept.iter().filter(|(_, kept)| may_be_done(kept));
		done.map(|(s, kept)| (*s, kept.version, kept.resolution, kept.progress)).collect()
	}

	/// The next number of what LDK was given.
	fn number(&self) -> Progress {
		let mut state = self.state.lock();
		state.given += 1;
		Progress::Given { number: state.given - 1 }
	}

	/// Sets how far a resolution is, unless another one has replaced it or it is over.
	fn set(&self, subject: &Subject, version: Version, progress: Progress) {
		let mut state = self.state.lock();
		let Some(kept) = state.kept.get_mut(subject) else { return };
		if kept.version == version && !matches!(kept.progress, Progress::IsOver) {
			kept.progress = progress;
		}
	}

	fn give_up(&self, subject: Subject) -> Plan<()> {
		let version = self.state.lock().kept.get(&subject).map(|kept| kept.version);
		self.forget(version.map(|version| (subject, version)))
	}

	/// Plans to delete these resolutions, and no others of the same HTLCs.
	fn forget(&self, which: impl IntoIterator<Item = (Subject, Version)>) -> Plan<()> {
		let mut batch = Batch::new();
		let which: Vec<_> = which.into_iter().collect();
		for (subject, version) in &which {
			batch.expect(subject.key(), Expectation::Version(*version));
			batch.delete(subject.key());
		}
		let state = Arc::clone(&self.state);
		batch.after_commit(move |_| {
			let mut state = state.lock();
			for (subject, version) in which {
				if state.kept.get(&subject).is_some_and(|kept| kept.version == version) {
					state.kept.remove(&subject);
				}
			}
		});
		Plan::of(batch)
	}
}

fn take(manager: &impl HtlcResolver, resolution: &HtlcResolution) -> Taken {
	match manager.resolve(resolution) {
		Ok(()) => Taken::Yes,
		Err(APIError::APIMisuseError { .. }) => Taken::NotHeld,
		Err(_) => Taken::NotYet,
	}
}

/// Leaves preimages out.
impl fmt::Debug for HtlcResolutions {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "HtlcResolutions, {} pending", self.state.lock().kept.len())
	}
}
