// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! [`Payouts`]: debts are added, given invoices and looked after. Decisions are the state machine's; this
//! file writes them down.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leyden_store::witness::restorations;
use leyden_store::{
	block_on, read_around_damage, Batch, Clock, DamagedPage, Expectation, Key, KeyRange, Plan,
	Record, Store, StoreClock, StoreError, Timestamp, Version,
};
use parking_lot::Mutex;

use crate::awake::Awake;
use crate::call::Call;
use crate::error::PayoutError;
use crate::events::{PayoutEvent, PayoutObserver};
use crate::freeze::{distrust_restored, Freeze};
use crate::ids::{AttemptId, DebtId};
use crate::invariants;
use crate::invoice::InvoiceRules;
use crate::machine::{self, Ask, Facts, HashChange, Pauses, Step, View, MAX_BEYOND};
use crate::new_debt::{NewDebt, Source};
use crate::notice::{Notice, Notices};
use crate::payer::AttemptStatus;
use crate::records::{
	self, AttemptV1, DebtV1, DueV1, FreezeV1, HashV1, NoteV1, ShareV1, SourceV1, StateV1,
};
use crate::text::cut;

/// Most notes that are kept of a debt.
pub const MAX_NOTES: u32 = 200;
/// Longest text of a proof, in characters.
pub const MAX_PROOF_CHARS: usize = 300;
/// Attempts and debts read in one go.
const PAGE: usize = 256;
/// A debt of which the node says what cannot be is looked at again so soon.
const MISMATCH_PAUSE: Duration = Duration::from_secs(60);
/// Attempts beyond those that the store knows, and most names of attempts in all, that are tried for a payment
/// of an unknown hash.
const SEARCHED_BEYOND: u32 = 100;
const MAX_NAMES: u64 = 100_000;

/// Options of [`Payouts`].
#[derive(Clone)]
pub struct PayoutOptions {
	/// The rules for invoices.
	pub invoices: InvoiceRules,
	/// The function that passes on what payees and operators are told, in the same commit as its cause.
	/// None unless set otherwise.
	pub notices: Option<Notices>,
	/// The number of calls of the node that are under way at once. 64 unless set otherwise.
	pub max_calls: usize,
	/// The time that a call of the node may take. 30 seconds unless set otherwise.
	pub call_timeout: Duration,
	/// The pause after the first attempt that did not pay; it doubles with each, up to
	/// [`longest_pause`](PayoutOptions::longest_pause). A minute unless set otherwise.
	pub retry_pause: Duration,
	/// The longest pause between two attempts. An hour unless set otherwise.
	pub longest_pause: Duration,
	/// The time between two looks at an attempt, or at a payment that is held. 15 seconds unless set
	/// otherwise.
	pub poll_interval: Duration,
	/// Trusts a store without a [`witness`](leyden_store::witness) to be the newest copy of itself.
	///
	/// `false` unless set otherwise: with a node that forgets payments, as LDK does, nothing then proves
	/// that an open debt was not paid after an old copy was taken, and it waits for an operator
	/// ([`Payouts::vouch`]). With `true`, the operator guarantees that no old copy is ever started.
	pub trust_store_without_witness: bool,
	/// The time between two ticks of [`Payouts::run`]. A second unless set otherwise.
	pub tick_interval: Duration,
	/// The function that is told what an operator should know. None unless set otherwise.
	pub observer: Option<PayoutObserver>,
}

impl PayoutOptions {
	/// Makes the usual options, for invoices like these.
	pub fn new(invoices: InvoiceRules) -> Self {
		Self {
			invoices,
			notices: None,
			max_calls: 64,
			call_timeout: Duration::from_secs(30),
			retry_pause: Duration::from_secs(60),
			longest_pause: Duration::from_secs(3600),
			poll_interval: Duration::from_secs(15),
			trust_store_without_witness: false,
			tick_interval: Duration::from_secs(1),
			observer: None,
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
	/// A random number for this worker: attempts name the worker that looks after them.
	owner: u64,
	/// The database was restored once: payments may come to their end that it never knew.
	was_restored: bool,
	/// Apart from the store, so that a commit can change it.
	pub(crate) state: Arc<Mutex<Memory>>,
}

pub(crate) struct Memory {
	awake: Awake,
	/// The freeze of a restored database, in a store that did not take it.
	pub(crate) restored: Option<FreezeV1>,
	/// The calls of the node that are not answered.
	pub(crate) calls: HashMap<DebtId, Call>,
	/// The debts whose attempts were compared with those that the node knows of, and how many had been
	/// declared dead by then.
	compared: HashMap<DebtId, u32>,
	/// The debts of which the node has said which attempts it knows, in the same way.
	listed: HashMap<DebtId, u32>,
	/// The debts that an operator has vouched for in this process.
	vouched: HashSet<DebtId>,
	/// The news that the observer was told last, so that it is told once.
	told: Told,
}

#[derive(Default)]
struct Told {
	frozen: Option<Freeze>,
	broken: HashMap<DebtId, String>,
	/// The attempts, and the payments that are held, that have waited for long.
	waits: HashSet<(DebtId, Option<u32>)>,
}

impl Memory {
	/// The number of debts of which something is known that is not in the store.
	fn remembered(&self) -> usize {
		let Told { broken, waits, .. } = &self.told;
		let told = broken.keys().chain(waits.iter().map(|(id, _)| id));
		let asked = self.compared.keys().chain(self.listed.keys()).chain(&self.vouched);
		asked.chain(told).collect::<HashSet<_>>().len()
	}

	/// Forgets a debt that is closed.
	pub(crate) fn forget(&mut self, id: &DebtId) {
		self.compared.remove(id);
		self.listed.remove(id);
		self.vouched.remove(id);
		self.told.broken.remove(id);
		self.told.waits.retain(|(of, _)| of != id);
	}
}

/// A debt as it is stored.
pub(crate) struct Loaded {
	pub(crate) id: DebtId,
	pub(crate) debt: DebtV1,
	pub(crate) version: Version,
}

/// The answer to [`Payouts::add_debt`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Added {
	/// The debt is in the store now.
	Inserted,
	/// The debt was in the store, with the same terms.
	AlreadyExists,
}

/// The answer to [`Payouts::submit_invoice`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Submitted {
	/// The invoice is accepted, and will be paid.
	Accepted,
	/// The debt had failed, and the invoice has opened it again.
	Reopened,
	/// The invoice takes the place of one that could not be paid.
	Replaced,
}

/// Proof that a debt was paid by other means.
#[derive(Clone, Eq, PartialEq)]
pub enum OutsideProof {
	/// The preimage of an invoice that was given for the debt.
	Preimage([u8; 32]),
	/// A reference in words: a transaction, a receipt. Up to [`MAX_PROOF_CHARS`].
	Reference(String),
}

impl Payouts {
	/// Opens the debts of a store.
	///
	/// # Errors
	/// [`Store`](PayoutError::Store), and [`NoRandomness`](PayoutError::NoRandomness).
	///
	/// # Failure Behavior and Persistence
	/// Nothing is forfeited before debts were looked after for one reminder interval from now on. If the
	/// database was restored from an older copy (see [`witness`](leyden_store::witness)), nothing is paid
	/// before an operator has [looked](Payouts::unfreeze): what was paid since is not in it.
	pub fn open(
		store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: PayoutOptions,
	) -> Result<Self, PayoutError> {
		let clock = StoreClock::open(&store, clock)?;
		let awake = Awake::new(clock.look());
		let restorations = restorations(&*store)?;
		let restored = distrust_restored(&*store, &clock, restorations)?;
		let mut bytes = [0; 8];
		getrandom::getrandom(&mut bytes).map_err(|_| PayoutError::NoRandomness)?;
		let owner = u64::from_be_bytes(bytes);
		let (calls, vouched, told) = (HashMap::new(), HashSet::new(), Told::default());
		let (compared, listed) = (HashMap::new(), HashMap::new());
		let memory = Memory { awake, restored, calls, compared, listed, vouched, told };
		let state = Arc::new(Mutex::new(memory));
		let was_restored = restorations > 0;
		Ok(Self(Arc::new(Inner { store, clock, options, owner, was_restored, state })))
	}

	/// Plans to add a debt; the plan is meant to be joined with its cause. With [`Source::Held`] the
	/// decision is durable first, and the payment is settled afterwards, however often that is tried.
	///
	/// Plans for two debts of one held payment or budget cannot be joined into one commit: the second is
	/// made when the first is committed.
	///
	/// # Errors
	/// [`OutOfRange`](PayoutError::OutOfRange) for numbers that cannot be,
	/// [`TermsMismatch`](PayoutError::TermsMismatch) if the debt is known with others,
	/// [`SourceMismatch`](PayoutError::SourceMismatch) and
	/// [`SourceExceeded`](PayoutError::SourceExceeded) if its source has another amount or not enough
	/// left, and [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// When the plan is committed, the debt is kept until it is closed. Added again, nothing changes. The
	/// commit is refused if another debt of the same source was added meanwhile.
	pub fn add_debt(&self, new: &NewDebt) -> Result<Plan<Added>, PayoutError> {
		new.check()?;
		if let Some(Loaded { debt, .. }) = self.load(&new.id)? {
			return match same_terms(&debt, new) {
				true => Ok(Plan::nothing().map(|()| Added::AlreadyExists)),
				false => Err(PayoutError::TermsMismatch { debt: new.id }),
			};
		}
		let times = self.0.clock.look();
		let now = times.running;
		let is_in = !matches!(new.source, Source::Held { .. });
		let mut debt = DebtV1 {
			payee: new.payee.clone(),
			cause: new.cause.clone(),
			amount_sat: new.amount_sat,
			node_share_sat: new.node_share_sat,
			source: new.source.into(),
			invoice_window_ms: millis(new.terms.invoice_window),
			reminder_interval_ms: millis(new.terms.reminder_interval),
			max_failed_attempts: new.terms.max_failed_attempts,
			fee_cap_msat: new.terms.fee_cap_msat,
			decided: times.stamp(),
			window_start: is_in.then_some(times.stamp()),
			state: if is_in { StateV1::Owed } else { StateV1::Decided },
			invoice: None,
			was_invoiced: false,
			failed_attempts: 0,
			setbacks: 0,
			told_no_funds: false,
			told_no_route: false,
			attempts: 0,
			live: None,
			declared: 0,
			paid_by: None,
			reminders: 0,
			reminders_delivered: 0,
			first_delivered_at: None,
			reminded_at: None,
			is_unproven: false,
			due: Some(now),
			closed_at: None,
			notes: 0,
			outside: None,
		};
		let violated = |what| PayoutError::InvariantViolated { debt: new.id, what };
		invariants::check(&debt).map_err(violated)?;
		let mut batch = Batch::new();
		self.take_share(&mut batch, new)?;
		note(&mut batch, &new.id, &mut debt, now, "decided")?;
		let key = records::debt_key(&new.id);
		batch.expect(key.clone(), Expectation::Absent);
		batch.put(key, records::value(&debt)?);
		batch.put(records::due_key(now, &new.id), records::value(&DueV1 {})?);
		Ok(Plan::of(batch).map(|()| Added::Inserted))
	}

	/// Takes an invoice of the payee's. One that could not be paid so far is replaced, unless an attempt may
	/// still pay it.
	///
	/// # Errors
	/// [`NoSuchDebt`](PayoutError::NoSuchDebt), [`NotThePayee`](PayoutError::NotThePayee),
	/// [`Invoice`](PayoutError::Invoice) and [`InvoiceUsed`](PayoutError::InvoiceUsed) for an invoice that
	/// does not fit; [`HasInvoice`](PayoutError::HasInvoice),
	/// [`InvalidState`](PayoutError::InvalidState), [`AttemptLive`](PayoutError::AttemptLive),
	/// [`NothingOwed`](PayoutError::NothingOwed) and [`WindowClosed`](PayoutError::WindowClosed) for a
	/// debt that takes none now; [`Conflict`](PayoutError::Conflict), and [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns. The window is half-open: at its end it is over for any further invoice. A
	/// first invoice is taken until the debt is forfeited.
	pub fn submit_invoice(
		&self, id: &DebtId, payee: &[u8], invoice: &str,
	) -> Result<Submitted, PayoutError> {
		let loaded = self.find(id)?;
		let facts = self.facts(&loaded, false);
		let view = View { id, debt: &loaded.debt, attempts: &[] };
		let rules = &self.0.options.invoices;
		let (step, submitted) = machine::on_invoice(view, payee, invoice, rules, &facts)?;
		if let Some(HashChange::Take(hash)) = step.hash {
			if self.0.store.get(&records::hash_key(&hash)).wait()?.is_some() {
				return Err(PayoutError::InvoiceUsed { debt: *id });
			}
		}
		match self.apply(&loaded, step, &facts)? {
			true => Ok(submitted),
			false => Err(PayoutError::Conflict),
		}
	}

	/// Plans to write down that a reminder has reached the payee's side; the plan is meant to be joined
	/// with what made it arrive.
	///
	/// # Errors
	/// [`NoSuchDebt`](PayoutError::NoSuchDebt), and [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// Without a reminder that was delivered, a debt is never forfeited.
	pub fn reminder_delivered(&self, id: &DebtId) -> Result<Plan<()>, PayoutError> {
		let loaded = self.find(id)?;
		let view = View { id, debt: &loaded.debt, attempts: &[] };
		let facts = self.facts(&loaded, false);
		let step = machine::on_reminder_delivered(view, &facts);
		match step.writes_nothing() {
			true => Ok(Plan::nothing()),
			false => self.plan(&loaded, step, &facts),
		}
	}

	/// Plans to write down how a payment ended, for a node that says so by itself in an event; the plan is
	/// meant to be joined with the ack of the event. `None` if the payment is of no debt, or known.
	///
	/// `attempt` is the name that the node has for the payment, if it has one. A failure is only believed
	/// of the attempt that is live, by its name: another attempt of the same payment hash may have failed
	/// long ago. A payment that settles although its attempt was known to be dead, or is not known at
	/// all, is written down, and freezes payouts. That is also so for a payment that was not made for the
	/// debt, and has paid its invoice.
	///
	/// If the store may be an old copy of itself, or was one once, a payment whose hash it does not know is found by its name
	/// among the debts that are open: up to about a thousand of them.
	///
	/// # Errors
	/// [`Damaged`](PayoutError::Damaged) if a record of the debt is damaged, and
	/// [`Store`](PayoutError::Store). What cannot be recorded must not be lost: the event is acked with the
	/// plan of [`freeze`](Payouts::freeze), which says so, and an operator looks.
	///
	/// # Failure Behavior and Persistence
	/// If the debt or the reasons of a freeze have changed meanwhile, the commit is refused, and the same can
	/// be asked again.
	pub fn record_outcome(
		&self, payment_hash: &[u8; 32], attempt: Option<&AttemptId>, status: &AttemptStatus,
	) -> Result<Option<Plan<()>>, PayoutError> {
		let owner = self.debt_of(payment_hash)?;
		let is_settled = matches!(status, AttemptStatus::Settled { .. });
		let named = match attempt.filter(|_| is_settled) {
			Some(name) => self.debt_of_name(owner.as_ref(), name)?,
			None => None,
		};
		let id = match (owner, named) {
			(Some(owner), Some(named)) if owner != named => {
				let what = "a payment has the name of one debt and the payment hash of another";
				return self.freeze(&format!("{what}: {named}, {owner}")).map(Some);
			},
			(Some(id), _) | (None, Some(id)) => id,
			(None, None) => return Ok(None),
		};
		let damaged = |error| match error {
			PayoutError::Store(error @ StoreError::Corrupt { .. }) => {
				PayoutError::Damaged { debt: id, error }
			},
			error => error,
		};
		let Some(loaded) = self.load(&id).map_err(damaged)? else { return Ok(None) };
		let attempts = self.all_attempts(&id).map_err(damaged)?;
		let facts = self.facts(&loaded, false);
		let view = View { id: &id, debt: &loaded.debt, attempts: &attempts };
		let step = machine::on_outcome(view, payment_hash, attempt, status, &facts);
		match step.writes_nothing() {
			true => Ok(None),
			false => self.plan(&loaded, step, &facts).map(Some),
		}
	}

	/// Closes a debt that was paid by other means, or whose payee shows the preimage of its invoice. If
	/// that is the invoice of the attempt under way, the attempt has paid, whatever the node says.
	///
	/// # Errors
	/// [`NoSuchDebt`](PayoutError::NoSuchDebt); [`InvalidState`](PayoutError::InvalidState) if the debt is
	/// closed or its money is not in; [`AttemptLive`](PayoutError::AttemptLive) while an attempt may still
	/// pay it by another invoice; [`NoProof`](PayoutError::NoProof);
	/// [`Conflict`](PayoutError::Conflict), and [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns; the proof is kept.
	pub fn resolve_with_proof(&self, id: &DebtId, proof: &OutsideProof) -> Result<(), PayoutError> {
		self.decide(id, |view, facts| {
			let is_its = |hash: &[u8; 32]| Ok(self.debt_of(hash)? == Some(*id));
			machine::on_proof(view, proof, is_its, facts)
		})
	}

	/// Takes an operator's word that a debt was not paid by an attempt that this store does not know:
	/// the operator has looked at the node's payments. It is needed for a debt of which the news was
	/// [`Unproven`](crate::News::Unproven), and counts until the next start: the store that is started
	/// then may be an old copy that has the operator's word in it, and not what was paid since.
	///
	/// # Errors
	/// [`NoSuchDebt`](PayoutError::NoSuchDebt), [`InvalidState`](PayoutError::InvalidState) if nothing is
	/// owed now, [`Conflict`](PayoutError::Conflict), and [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn vouch(&self, id: &DebtId) -> Result<(), PayoutError> {
		self.decide(id, machine::on_vouched)?;
		self.0.state.lock().vouched.insert(*id);
		Ok(())
	}

	/// Takes an operator's word that an attempt has not paid and never will, for one that the node says
	/// nothing more about. It counts as a failed attempt. Before the next one, the node is asked again which
	/// attempts it knows.
	///
	/// # Errors
	/// [`NoSuchDebt`](PayoutError::NoSuchDebt); [`NoSuchAttempt`](PayoutError::NoSuchAttempt) if that
	/// attempt is not the one that may still pay; [`Conflict`](PayoutError::Conflict), and
	/// [`Store`](PayoutError::Store).
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns. If the attempt pays after all, payouts are frozen.
	pub fn declare_failed(&self, id: &DebtId, number: u32) -> Result<(), PayoutError> {
		self.decide(id, |view, facts| machine::on_declared_failed(view, number, facts))
	}

	/// Returns the store, for records that are to be one commit with a debt.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.0.store
	}

	/// Tells the observer that payouts are frozen, once for each set of reasons.
	pub(crate) fn tell_frozen(&self, freeze: Option<Freeze>) {
		let is_told = std::mem::replace(&mut self.0.state.lock().told.frozen, freeze.clone());
		if let (Some(observer), Some(freeze)) = (&self.0.options.observer, freeze) {
			if is_told.as_ref() != Some(&freeze) {
				observer(&PayoutEvent::Frozen { freeze });
			}
		}
	}

	/// Tells the observer of an attempt, or of a payment that is held, that has waited for long; once.
	pub(crate) fn tell_waits(&self, debt: &DebtId, attempt: Option<u32>) {
		let is_new = self.0.state.lock().told.waits.insert((*debt, attempt));
		if let Some(observer) = self.0.options.observer.as_ref().filter(|_| is_new) {
			observer(&PayoutEvent::Waits { debt: *debt, attempt });
		}
	}

	/// Tells the observer of a debt that cannot be looked after; once for each error of it.
	pub(crate) fn tell_broken(&self, debt: &DebtId, error: &PayoutError) {
		let what = error.to_string();
		let told = self.0.state.lock().told.broken.insert(*debt, what.clone());
		if let Some(observer) = &self.0.options.observer {
			if told.as_ref() != Some(&what) {
				observer(&PayoutEvent::Broken { debt: *debt, error: error.clone() });
			}
		}
	}

	/// Counts a look at the debts. Returns the running time.
	pub(crate) fn looked(&self) -> Timestamp {
		let times = self.0.clock.look();
		let _ = self.0.state.lock().awake.look(times);
		times.running
	}

	/// Everything that decisions on a debt depend on besides its records.
	pub(crate) fn facts(&self, loaded: &Loaded, is_frozen: bool) -> Facts {
		let Loaded { id, debt, .. } = loaded;
		let times = self.0.clock.look();
		let options = &self.0.options;
		// The store is not asked under a lock that its commits take.
		let is_newest = self.is_newest() && !is_frozen;
		let mut memory = self.0.state.lock();
		Facts {
			times,
			awake_since: memory.awake.look(times),
			is_frozen,
			is_compared: memory.compared.get(id) == Some(&debt.declared),
			is_listed: memory.listed.get(id) == Some(&debt.declared),
			is_newest,
			is_vouched: memory.vouched.contains(id),
			owner: self.0.owner,
			pauses: Pauses {
				call_timeout: options.call_timeout,
				poll_interval: options.poll_interval,
				retry_pause: options.retry_pause,
				longest_pause: options.longest_pause,
			},
		}
	}

	/// Whether the store is the newest copy of itself, as far as it and the options know.
	fn is_newest(&self) -> bool {
		let is_watched = self.0.store.guarantees().notices_old_copies;
		is_watched || self.0.options.trust_store_without_witness
	}

	/// Writes a step down, if the debt is still as it was; returns whether it was.
	pub(crate) fn apply(
		&self, loaded: &Loaded, step: Step, facts: &Facts,
	) -> Result<bool, PayoutError> {
		{
			let (id, declared) = (loaded.id, loaded.debt.declared);
			let mut memory = self.0.state.lock();
			if step.is_compared {
				memory.compared.insert(id, declared);
			}
			if step.is_listed {
				memory.listed.insert(id, declared);
			}
		}
		if step.writes_nothing() {
			return Ok(true);
		}
		let plan = self.plan(loaded, step, facts)?;
		match plan.run(&*self.0.store) {
			Ok(()) => Ok(true),
			Err(StoreError::Conflict { key, .. }) if records::is_own(key.table()) => Ok(false),
			// The user's own plan expects something that is not so.
			Err(error @ (StoreError::Conflict { .. } | StoreError::Invalid { .. })) => {
				Err(PayoutError::Notice { debt: loaded.id, error })
			},
			Err(error) => Err(error.into()),
		}
	}

	/// Plans what a step writes.
	pub(crate) fn plan(
		&self, loaded: &Loaded, step: Step, facts: &Facts,
	) -> Result<Plan<()>, PayoutError> {
		let Loaded { id, debt, version } = loaded;
		let violated = |what| PayoutError::InvariantViolated { debt: *id, what };
		let owner = match step.hash {
			Some(HashChange::Adopt(hash)) => self.debt_of(&hash)?,
			_ => None,
		};
		let step = match owner.filter(|owner| owner != id) {
			Some(owner) => another_debts(loaded, &owner, facts),
			None => step,
		};
		let mut next = step.debt.unwrap_or_else(|| debt.clone());
		invariants::check(&next).map_err(violated)?;
		invariants::check_change(debt, &next).map_err(violated)?;
		let mut batch = Batch::new();
		if let Some(what) = &step.note {
			note(&mut batch, id, &mut next, facts.times.running, what)?;
		}
		if let Some(change) = &step.attempt {
			let key = records::attempt_key(id, change.number);
			if change.is_new {
				batch.expect(key.clone(), Expectation::Absent);
			}
			batch.put(key, records::value(&change.record)?);
		}
		if let Some(change) = step.hash {
			let (HashChange::Take(hash) | HashChange::Adopt(hash)) = change;
			let key = records::hash_key(&hash);
			// One that is known as this debt's stays so: a hash changes hands never.
			if owner.is_none() {
				batch.expect(key.clone(), Expectation::Absent);
				batch.put(key, records::value(&HashV1 { debt: *id.as_bytes() })?);
			}
		}
		match (&step.freeze, &step.ask) {
			(Some(reason), _) => self.freeze_in(&mut batch, reason)?,
			// What was frozen a moment ago is not paid.
			(None, Some(Ask::Pay(_))) => {
				batch.expect(records::freeze_key(), Expectation::Absent);
			},
			(None, _) => {},
		}
		if debt.is_counted() && !next.is_counted() {
			self.give_share_back(&mut batch, id, &next)?;
		}
		if next.state.is_over() {
			let (memory, id) = (Arc::clone(&self.0.state), *id);
			batch.after_commit(move |_| memory.lock().forget(&id));
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
		Ok(match (&self.0.options.notices, step.news) {
			(Some(notices), Some(news)) => {
				plan.and(notices(&Notice::new(id, &next, news))).map(|((), ())| ())
			},
			_ => plan,
		})
	}

	pub(crate) fn load(&self, id: &DebtId) -> Result<Option<Loaded>, PayoutError> {
		let key = records::debt_key(id);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let debt = records::read(&key, &record)?;
		Ok(Some(Loaded { id: *id, debt, version: record.version }))
	}

	pub(crate) fn find(&self, id: &DebtId) -> Result<Loaded, PayoutError> {
		self.load(id)?.ok_or(PayoutError::NoSuchDebt { debt: *id })
	}

	pub(crate) fn attempt(
		&self, id: &DebtId, number: u32,
	) -> Result<Option<AttemptV1>, PayoutError> {
		let key = records::attempt_key(id, number);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		Ok(Some(records::read(&key, &record)?))
	}

	pub(crate) fn all_attempts(&self, id: &DebtId) -> Result<Vec<(u32, AttemptV1)>, PayoutError> {
		let mut found = Vec::new();
		self.each(records::attempts(id), |key, record| {
			found.push((records::number_of(key)?, records::read(key, record)?));
			Ok(())
		})?;
		Ok(found)
	}

	/// Reads every record of a range.
	pub(crate) fn each(
		&self, range: KeyRange, mut f: impl FnMut(&Key, &Record) -> Result<(), PayoutError>,
	) -> Result<(), PayoutError> {
		let mut rest = Some(range);
		while let Some(range) = rest.take() {
			let page = self.0.store.scan(range, PAGE).wait()?;
			page.records.iter().try_for_each(|(key, record)| f(key, record))?;
			rest = page.rest;
		}
		Ok(())
	}

	/// As [`each`](Payouts::each); a damaged record is an error in its place.
	pub(crate) fn each_readable(
		&self, range: KeyRange,
		mut f: impl FnMut(Key, Result<Record, StoreError>) -> Result<(), PayoutError>,
	) -> Result<(), PayoutError> {
		let mut rest = Some(range);
		while let Some(range) = rest.take() {
			let page = self.scan_around_damage(range, PAGE)?;
			page.records.into_iter().try_for_each(|(key, record)| f(key, record))?;
			rest = page.rest;
		}
		Ok(())
	}

	pub(crate) fn scan_around_damage(
		&self, range: KeyRange, limit: usize,
	) -> Result<DamagedPage, PayoutError> {
		let store = &*self.0.store;
		let scanned = store.scan(range.clone(), limit).wait();
		Ok(block_on(store, read_around_damage(store, range, limit, scanned))?)
	}

	/// Applies what a request of an operator or payee comes to.
	fn decide(
		&self, id: &DebtId, decide: impl FnOnce(View<'_>, &Facts) -> Result<Step, PayoutError>,
	) -> Result<(), PayoutError> {
		let loaded = self.find(id)?;
		let attempts = self.all_attempts(id)?;
		let facts = self.facts(&loaded, false);
		let step = decide(View { id, debt: &loaded.debt, attempts: &attempts }, &facts)?;
		match self.apply(&loaded, step, &facts)? {
			true => Ok(()),
			false => Err(PayoutError::Conflict),
		}
	}

	/// The debt that a payment hash pays.
	fn debt_of(&self, payment_hash: &[u8; 32]) -> Result<Option<DebtId>, PayoutError> {
		let key = records::hash_key(payment_hash);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let HashV1 { debt } = records::read(&key, &record)?;
		Ok(Some(DebtId::from_bytes(debt)))
	}

	/// The debt of an attempt of this name. If it is none of the debt that owns its payment hash, it is searched
	/// for; and also if no debt does, and the store may be an old copy.
	fn debt_of_name(
		&self, owner: Option<&DebtId>, name: &AttemptId,
	) -> Result<Option<DebtId>, PayoutError> {
		let is_of = |id: &DebtId, debt: &DebtV1, beyond| {
			let view = View { id, debt, attempts: &[] };
			view.number_of(name, beyond).is_some()
		};
		if let Some(owner) = owner {
			// One that is damaged is an error of the caller's.
			let Ok(Some(loaded)) = self.load(owner) else { return Ok(None) };
			if is_of(owner, &loaded.debt, MAX_BEYOND) {
				return Ok(Some(*owner));
			}
		} else if self.is_newest() && !self.0.was_restored && self.frozen()?.is_none() {
			return Ok(None);
		}
		let mut left = MAX_NAMES;
		let mut rest = Some(records::all_due());
		while let Some(range) = rest.take() {
			let page = self.scan_around_damage(range, PAGE)?;
			for (key, _) in &page.records {
				let Ok(id) = records::due_of(key) else { continue };
				let loaded = match self.load(&id) {
					Ok(loaded) => loaded,
					Err(PayoutError::Store(StoreError::Corrupt { .. })) => None,
					Err(error) => return Err(error),
				};
				let Some(Loaded { debt, .. }) = loaded else { continue };
				if is_of(&id, &debt, SEARCHED_BEYOND) {
					return Ok(Some(id));
				}
				left = left.saturating_sub(u64::from(debt.attempts) + u64::from(SEARCHED_BEYOND));
				if left == 0 {
					return Ok(None);
				}
			}
			rest = page.rest;
		}
		Ok(None)
	}

	/// Counts a debt out of the sum of its source: it takes nothing out of it.
	fn give_share_back(
		&self, batch: &mut Batch, id: &DebtId, debt: &DebtV1,
	) -> Result<(), PayoutError> {
		let Some(bytes) = debt.source.bytes() else { return Ok(()) };
		let key = records::source_key(&bytes);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(()) };
		let SourceV1 { amount_sat, debts_sat } = records::read(&key, &record)?;
		let debts_sat = debts_sat.saturating_sub(debt.amount_sat);
		batch.expect(key.clone(), Expectation::Version(record.version));
		batch.put(key, records::value(&SourceV1 { amount_sat, debts_sat })?);
		batch.delete(records::share_key(&bytes, id));
		Ok(())
	}

	/// Counts a debt into the sum of its source, which is never more than its amount.
	fn take_share(&self, batch: &mut Batch, new: &NewDebt) -> Result<(), PayoutError> {
		let (Source::Held { amount_sat, .. } | Source::Budget { amount_sat, .. }) = new.source
		else {
			return Ok(());
		};
		let source = records::SourceRefV1::from(new.source);
		let Some(bytes) = source.bytes() else { return Ok(()) };
		let key = records::source_key(&bytes);
		let (expected, debts_sat) = match self.0.store.get(&key).wait()? {
			Some(record) => {
				let known: SourceV1 = records::read(&key, &record)?;
				if known.amount_sat != amount_sat {
					let known_sat = known.amount_sat;
					return Err(PayoutError::SourceMismatch { debt: new.id, known_sat });
				}
				(Expectation::Version(record.version), known.debts_sat)
			},
			None => (Expectation::Absent, 0),
		};
		let left_sat = amount_sat.saturating_sub(debts_sat);
		if new.amount_sat > left_sat {
			return Err(PayoutError::SourceExceeded { debt: new.id, left_sat });
		}
		let debts_sat = debts_sat.saturating_add(new.amount_sat);
		batch.expect(key.clone(), expected);
		batch.put(key, records::value(&SourceV1 { amount_sat, debts_sat })?);
		let share = ShareV1 { amount_sat: new.amount_sat };
		batch.put(records::share_key(&bytes, &new.id), records::value(&share)?);
		Ok(())
	}
}

fn millis(duration: Duration) -> u64 {
	u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn same_terms(debt: &DebtV1, new: &NewDebt) -> bool {
	debt.payee == new.payee
		&& debt.amount_sat == new.amount_sat
		&& debt.node_share_sat == new.node_share_sat
		&& debt.source == new.source.into()
		&& debt.invoice_window_ms == millis(new.terms.invoice_window)
		&& debt.reminder_interval_ms == millis(new.terms.reminder_interval)
		&& debt.max_failed_attempts == new.terms.max_failed_attempts
		&& debt.fee_cap_msat == new.terms.fee_cap_msat
}

/// What follows if the node lists an attempt of a debt with a payment hash of another debt's: an operator is
/// told, and nothing is written down as paid.
fn another_debts(loaded: &Loaded, owner: &DebtId, facts: &Facts) -> Step {
	let Loaded { id, debt, .. } = loaded;
	let what = "the node gives an attempt of one debt the payment hash of another";
	let due = debt.due.map(|_| facts.times.running.after(MISMATCH_PAUSE));
	let freeze = Some(format!("{what}: {id}, {owner}"));
	Step { freeze, ..Step::debt(DebtV1 { due, ..debt.clone() }) }
}

/// Writes a decision down. Beyond [`MAX_NOTES`], the newest takes the place of the one before.
fn note(
	batch: &mut Batch, id: &DebtId, debt: &mut DebtV1, at: Timestamp, what: &str,
) -> Result<(), PayoutError> {
	debt.notes = (debt.notes + 1).min(MAX_NOTES);
	let note = NoteV1 { at, what: cut(what) };
	batch.put(records::note_key(id, debt.notes), records::value(&note)?);
	Ok(())
}

/// Without the preimage.
impl fmt::Debug for OutsideProof {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Preimage(_) => f.write_str("Preimage"),
			Self::Reference(text) => write!(f, "Reference({text})"),
		}
	}
}

impl fmt::Debug for Payouts {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let memory = self.0.state.lock();
		let (calls, remembered) = (memory.calls.len(), memory.remembered());
		f.debug_struct("Payouts")
			.field("calls", &calls)
			.field("remembered", &remembered)
			.finish_non_exhaustive()
	}
}

impl fmt::Debug for PayoutOptions {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("PayoutOptions")
			.field("invoices", &self.invoices)
			.field("max_calls", &self.max_calls)
			.field("call_timeout", &self.call_timeout)
			.field("retry_pause", &self.retry_pause)
			.field("poll_interval", &self.poll_interval)
			.finish_non_exhaustive()
	}
}
