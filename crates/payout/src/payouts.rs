// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The handle: debts are written down, asked for, and looked at.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leyden_store::witness::restorations;
use leyden_store::{
	Batch, Clock, Expectation, KeyRange, Plan, Store, StoreClock, StoreError, Timestamp, Version,
};
use parking_lot::Mutex;

use crate::error::PayoutError;
use crate::invoice::InvoiceRules;
use crate::law::State;
use crate::money;
use crate::notice::{Notice, Notices};
use crate::records::{
	self, AttemptV1, BreakerV1, DebtV1, DueV1, NoteV1, SeenV1, StateV1, VerdictV1,
};
use crate::terms::{DebtId, NewDebt};
use crate::time::Awake;
use crate::worker::Call;

/// Most notes that are kept of a debt.
pub const MAX_NOTES: u32 = 200;
/// Longest note, in characters.
const MAX_NOTE_CHARS: usize = 200;
/// How debts are paid.
#[derive(Clone)]
pub struct PayoutOptions {
	/// Which invoices are taken.
	pub invoices: InvoiceRules,
	/// What creditors, and whoever looks after debts, are told; in the same commit as the cause. Nothing,
	/// unless set otherwise.
	pub notices: Option<Notices>,
	/// How many calls of the payer are under way at once. 64 unless set otherwise.
	pub max_calls: usize,
	/// How long a call of the payer may take. 30 seconds unless set otherwise.
	pub patience: Duration,
	/// How long after a failed attempt the next one is made. A minute unless set otherwise.
	pub retry_pause: Duration,
	/// How often it is asked what became of an attempt. 15 seconds unless set otherwise.
	pub ask_pause: Duration,
}

impl PayoutOptions {
	/// What is usual, for invoices like these.
	pub fn new(invoices: InvoiceRules) -> Self {
		Self {
			invoices,
			notices: None,
			max_calls: 64,
			patience: Duration::from_secs(30),
			retry_pause: Duration::from_secs(60),
			ask_pause: Duration::from_secs(15),
		}
	}
}

/// The debts of one store. Cheap to clone; all clones are one. Several may work on one handle of a store.
#[derive(Clone)]
pub struct Payouts(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
	pub(crate) store: Arc<dyn Store>,
	pub(crate) clock: Arc<StoreClock>,
	pub(crate) options: PayoutOptions,
	/// Drawn when it was opened: who is at an attempt.
	pub(crate) owner: u64,
	pub(crate) state: Mutex<Memory>,
}

pub(crate) struct Memory {
	pub(crate) awake: Awake,
	/// The breaker of a restored database, in a store that did not take it.
	restored: Option<BreakerV1>,
	/// What the payer was asked and has not answered.
	pub(crate) calls: HashMap<DebtId, Call>,
	/// Debts of which it is known what the node has already paid.
	pub(crate) compared: HashSet<DebtId>,
}

/// A debt as it is stored.
pub(crate) struct Loaded {
	pub(crate) id: DebtId,
	pub(crate) debt: DebtV1,
	pub(crate) version: Version,
}

/// What became of writing a debt down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
	/// It is written down.
	New,
	/// It was before, with the same terms.
	Known,
}

impl Payouts {
	/// Opens the debts of a store.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Nothing is forfeited before somebody has looked after debts for a cadence from now on. If the
	/// database was restored from an older copy (see [`witness`](leyden_store::witness)), nothing is paid
	/// before somebody has [looked](Payouts::reset_breaker): what was paid since is not in it.
	pub fn open(
		store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: PayoutOptions,
	) -> Result<Self, PayoutError> {
		let clock = StoreClock::open(&store, clock)?;
		let awake = Awake::new(clock.look());
		let restored = distrust_restored(&*store, &clock)?;
		let mut bytes = [0; 8];
		getrandom::getrandom(&mut bytes).map_err(|_| PayoutError::NoRandomness)?;
		let owner = u64::from_be_bytes(bytes);
		let memory = Memory { awake, restored, calls: HashMap::new(), compared: HashSet::new() };
		Ok(Self(Arc::new(Inner { store, clock, options, owner, state: Mutex::new(memory) })))
	}

	/// A plan that writes a debt down; join it with what is the cause. With [`NewDebt::held`] it is the
	/// decision that is durable, and the money is taken afterwards, however often that has to be tried.
	///
	/// # Errors
	/// [`OutOfRange`](PayoutError::OutOfRange) for numbers that cannot be,
	/// [`OtherTerms`](PayoutError::OtherTerms) if it is known with others, the store's.
	///
	/// # Failure Behavior and Persistence
	/// When it is committed, the debt is kept until it is closed. Written down again, nothing changes.
	pub fn owe(&self, new: &NewDebt) -> Result<Plan<Written>, PayoutError> {
		new.check()?;
		let looked = self.look();
		let now = looked.now;
		let key = records::debt_key(&new.id);
		if let Some(Loaded { debt, .. }) = self.load(&new.id)? {
			return match same_terms(&debt, new) {
				true => Ok(Plan::of(Batch::new()).map(|()| Written::Known)),
				false => Err(PayoutError::OtherTerms),
			};
		}
		let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
		let is_in = new.held.is_none();
		let mut debt = DebtV1 {
			creditor: new.creditor.clone(),
			cause: new.cause.clone(),
			amount_sat: new.amount_sat,
			node_share_sat: new.node_share_sat,
			held: new.held,
			window_ms: millis(new.terms.window),
			cadence_ms: millis(new.terms.cadence),
			budget: new.terms.budget,
			fee_cap_msat: new.terms.fee_cap_msat,
			decided_at: now,
			slashed_at: is_in.then_some(looked.beginning()),
			state: if is_in { StateV1::Owed } else { StateV1::Decided },
			invoice: None,
			was_invoiced: false,
			spent: 0,
			attempts: 0,
			live: None,
			nudges: 0,
			nudges_sent: 0,
			nudged_at: None,
			due: Some(now),
			closed_at: None,
			notes: 0,
			outside: None,
		};
		money::check(&debt)?;
		let mut batch = Batch::new();
		note(&mut batch, &new.id, &mut debt, now, "decided")?;
		batch.expect(key.clone(), Expectation::Absent);
		batch.put(key, records::value(&debt)?);
		batch.put(records::due_key(now, &new.id), records::value(&DueV1 {})?);
		Ok(Plan::of(batch).map(|()| Written::New))
	}

	/// Why nothing is paid, if that is so.
	///
	/// # Errors
	/// The store's.
	pub fn breaker(&self) -> Result<Option<(Timestamp, String)>, PayoutError> {
		let key = records::breaker_key();
		let BreakerV1 { at, reason } = match self.0.store.get(&key).wait()? {
			Some(record) => records::read(&key, &record)?,
			None => match self.0.state.lock().restored.clone() {
				Some(restored) => restored,
				None => return Ok(None),
			},
		};
		Ok(Some((at, reason)))
	}

	/// Somebody has looked, and payouts go on.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn reset_breaker(&self) -> Result<(), PayoutError> {
		let mut batch = Batch::new();
		batch.delete(records::breaker_key());
		let restorations = restorations(&*self.0.store)?;
		if restorations > 0 {
			batch.put(records::seen_key(), records::value(&SeenV1 { restorations })?);
		}
		self.0.store.commit(batch).wait()?;
		self.0.state.lock().restored = None;
		Ok(())
	}

	/// Nothing is paid any more, over any restart, until [`reset_breaker`](Payouts::reset_breaker).
	pub(crate) fn freeze(&self, reason: &str) -> Result<(), PayoutError> {
		let mut batch = Batch::new();
		batch.put(records::breaker_key(), records::value(&self.breaker_record(reason))?);
		self.0.store.commit(batch).wait()?;
		Ok(())
	}

	pub(crate) fn breaker_record(&self, reason: &str) -> BreakerV1 {
		BreakerV1 { at: self.0.clock.look().wall, reason: cut(reason) }
	}

	/// The store, for records that are to be one commit with a debt.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.0.store
	}

	pub(crate) fn load(&self, id: &DebtId) -> Result<Option<Loaded>, PayoutError> {
		let key = records::debt_key(id);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let debt = records::read(&key, &record)?;
		Ok(Some(Loaded { id: *id, debt, version: record.version }))
	}

	pub(crate) fn attempt(
		&self, id: &DebtId, number: u32,
	) -> Result<Option<AttemptV1>, PayoutError> {
		let key = records::attempt_key(id, number);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		Ok(Some(records::read(&key, &record)?))
	}

	pub(crate) fn all_attempts(&self, id: &DebtId) -> Result<Vec<(u32, AttemptV1)>, PayoutError> {
		let (mut found, mut rest) = (Vec::new(), Some(records::attempts(id)));
		while let Some(range) = rest.take() {
			let page = self.0.store.scan(range, 256).wait()?;
			for (key, record) in &page.records {
				found.push((records::number_of(key)?, records::read(key, record)?));
			}
			rest = page.rest;
		}
		Ok(found)
	}

	/// Writes a changed debt, if it is still as it was; answers whether it was.
	pub(crate) fn change(
		&self, loaded: &Loaded, next: DebtV1, batch: Batch, what: Option<&str>,
		notice: Option<Notice>, now: Timestamp,
	) -> Result<bool, PayoutError> {
		let plan = self.plan(loaded, next, batch, what, notice, now)?;
		match plan.run(&*self.0.store) {
			Ok(()) => Ok(true),
			// Somebody else was faster: that is no error.
			Err(StoreError::Conflict { .. }) => Ok(false),
			Err(error) => Err(error.into()),
		}
	}

	/// The same as a plan.
	pub(crate) fn plan(
		&self, loaded: &Loaded, mut next: DebtV1, mut batch: Batch, what: Option<&str>,
		notice: Option<Notice>, now: Timestamp,
	) -> Result<Plan<()>, PayoutError> {
		let Loaded { id, debt, version } = loaded;
		money::check(&next)?;
		money::check_change(debt, &next)?;
		if let Some(what) = what {
			note(&mut batch, id, &mut next, now, what)?;
		}
		let key = records::debt_key(id);
		batch.expect(key.clone(), Expectation::Version(*version));
		if debt.due != next.due {
			if let Some(due) = debt.due {
				batch.delete(records::due_key(due, id));
			}
			if let Some(due) = next.due {
				batch.put(records::due_key(due, id), records::value(&DueV1 {})?);
			}
		}
		batch.put(key, records::value(&next)?);
		let plan = Plan::of(batch);
		Ok(match (&self.0.options.notices, notice) {
			(Some(notices), Some(notice)) => plan.and(notices(&notice)).map(|((), ())| ()),
			_ => plan,
		})
	}

	/// Every debt, in no order; `after` is the last one that was seen.
	pub(crate) fn page(
		&self, after: Option<&DebtId>, limit: usize,
	) -> Result<Vec<Loaded>, PayoutError> {
		let mut range = KeyRange::all(records::DEBTS);
		if let Some(after) = after {
			range = range.after(after.as_bytes());
		}
		let page = self.0.store.scan(range, limit).wait()?;
		let load = |(key, record): &(leyden_store::Key, leyden_store::Record)| {
			let debt = records::read(key, record)?;
			Ok(Loaded { id: records::id_of(key)?, debt, version: record.version })
		};
		page.records.iter().map(load).collect()
	}
}

fn same_terms(debt: &DebtV1, new: &NewDebt) -> bool {
	let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
	debt.creditor == new.creditor
		&& debt.amount_sat == new.amount_sat
		&& debt.node_share_sat == new.node_share_sat
		&& debt.held == new.held
		&& debt.window_ms == millis(new.terms.window)
		&& debt.cadence_ms == millis(new.terms.cadence)
		&& debt.budget == new.terms.budget
		&& debt.fee_cap_msat == new.terms.fee_cap_msat
}

/// Writes down what was decided. Beyond [`MAX_NOTES`], the newest takes the place of the one before.
pub(crate) fn note(
	batch: &mut Batch, id: &DebtId, debt: &mut DebtV1, at: Timestamp, what: &str,
) -> Result<(), PayoutError> {
	debt.notes = (debt.notes + 1).min(MAX_NOTES);
	let note = NoteV1 { at, what: cut(what) };
	batch.put(records::note_key(id, debt.notes), records::value(&note)?);
	Ok(())
}

fn cut(text: &str) -> String {
	text.chars().take(MAX_NOTE_CHARS).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
	bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Loaded {
	pub(crate) fn state(&self) -> State {
		self.debt.state.into()
	}
}

impl VerdictV1 {
	pub(crate) fn settled(self) -> Option<([u8; 32], u64)> {
		match self {
			Self::Settled { preimage, fee_msat } => Some((preimage, fee_msat)),
			_ => None,
		}
	}
}

impl fmt::Debug for Payouts {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let calls = self.0.state.lock().calls.len();
		f.debug_struct("Payouts").field("calls", &calls).finish_non_exhaustive()
	}
}

impl fmt::Debug for PayoutOptions {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("PayoutOptions")
			.field("invoices", &self.invoices)
			.field("max_calls", &self.max_calls)
			.field("patience", &self.patience)
			.field("retry_pause", &self.retry_pause)
			.field("ask_pause", &self.ask_pause)
			.finish_non_exhaustive()
	}
}

/// Freezes payouts over a database that was restored since they were opened last. Returns the breaker
/// if the store does not take it, as one that is read only.
fn distrust_restored(
	store: &dyn Store, clock: &StoreClock,
) -> Result<Option<BreakerV1>, PayoutError> {
	let (key, restorations) = (records::seen_key(), restorations(store)?);
	let seen = store.get(&key).wait()?;
	let seen = seen.map(|record| records::read::<SeenV1>(&key, &record)).transpose()?;
	if seen.map_or(0, |seen| seen.restorations) == restorations {
		return Ok(None);
	}
	let mut batch = Batch::new();
	batch.put(key, records::value(&SeenV1 { restorations })?);
	// Also without a debt: one that was decided since may come again.
	let reason = "the database was restored from an older copy: compare what it says is owed with \
	              what the node has paid";
	let frozen = BreakerV1 { at: clock.look().wall, reason: reason.to_owned() };
	batch.put(records::breaker_key(), records::value(&frozen)?);
	Ok(store.commit(batch).wait().is_err().then_some(frozen))
}
