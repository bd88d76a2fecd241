// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The debts of a store: they are added, given invoices, and closed by operators. Decisions are the state
//! machine's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leyden_store::witness::restorations;
use leyden_store::{Batch, Clock, Expectation, Plan, Store, StoreClock, StoreError, Timestamp};
use parking_lot::Mutex;

use crate::added::Added;
use crate::awake::Awake;
use crate::error::PayoutError;
use crate::freeze::distrust_restored;
use crate::ids::{AttemptId, DebtId};
use crate::invariants;
use crate::loaded::Loaded;
use crate::machine::{self, Facts, HashChange, Pauses, View};
use crate::memory::Memory;
use crate::new_debt::{NewDebt, Source};
use crate::options::PayoutOptions;
use crate::outside_proof::OutsideProof;
use crate::payer::AttemptStatus;
use crate::plan::note;
use crate::records::{self, DebtV1, DueV1, StateV1};
use crate::submitted::Submitted;

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
	pub(crate) was_restored: bool,
	/// The memory of the process, apart from the store, so that a commit can change it.
	pub(crate) state: Arc<Mutex<Memory>>,
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
		let state = Arc::new(Mutex::new(Memory::new(awake, restored)));
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

	/// Takes an invoice of the payee's. An invoice that could not be paid so far is replaced, unless an
	/// attempt may still pay it.
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
	/// `attempt` is the name that the node has for the payment, if it has one. A failure is only believed of
	/// the attempt that is live, by its name: another attempt of the same payment hash may have failed long
	/// ago. A payment that settles although its attempt was known to be dead, or is not known at all, is
	/// written down, and freezes payouts. The same is so for a payment that was not made for the debt, and
	/// has paid its invoice.
	///
	/// If the store may be an old copy of itself, or was one once, a payment whose hash it does not know is
	/// found by its name among the debts that are open: up to about a thousand of them.
	///
	/// # Errors [`Damaged`](PayoutError::Damaged) if a record of the debt is damaged, and
	/// [`Store`](PayoutError::Store). An outcome that cannot be recorded must not be lost: the event is acked
	/// with the plan of [`freeze`](Payouts::freeze), which says so, and an operator looks.
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

	/// Takes an operator's word that a debt was not paid by an attempt that this store does not know: the
	/// operator has looked at the node's payments. The operator's word is needed for a debt of which the news
	/// was [`Unproven`](crate::News::Unproven), and counts until the next start: the store that is started
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
	/// nothing more about. The attempt counts as a failed one. Before the next one, the node is asked again
	/// which attempts it knows.
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

	/// Counts a look at the debts. Returns the running time.
	pub(crate) fn looked(&self) -> Timestamp {
		let times = self.0.clock.look();
		let _ = self.0.state.lock().awake.look(times);
		times.running
	}

	/// Returns everything that decisions on a debt depend on besides its records.
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

	/// Returns `true` if the store is the newest copy of itself, as far as it and the options know.
	pub(crate) fn is_newest(&self) -> bool {
		let is_watched = self.0.store.guarantees().notices_old_copies;
		is_watched || self.0.options.trust_store_without_witness
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
