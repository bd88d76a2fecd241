// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! An entry in somebody's hands.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leyden_id::{Domain, EventId, EventKind, IdBuilder, Lane};
use leyden_store::{Batch, Durability, Expectation, Plan, Timestamp};

use crate::consumer::{Inner, Outcome, Settlement};
use crate::records::{self, AckV1, DeadV1, RetryV1};
use crate::types::{Entry, LogIndex, NewEvent, OnExhausted};
use crate::LogError;

/// An entry that a consumer is to handle. It is the only one of its lane that is in anybody's
/// hands.
///
/// Say how it ended: [`ack`](Delivery::ack), [`retry`](Delivery::retry) or
/// [`dead_letter`](Delivery::dead_letter). Dropped without a word, it comes again, and so it does
/// after a crash.
#[must_use = "dropped un-acked, it comes again"]
pub struct Delivery {
	entry: Entry,
	attempt: u32,
	lease: Lease,
}

/// The right to settle a delivery. Dropped unused, the delivery comes again.
pub(crate) struct Lease {
	consumer: Arc<Inner>,
	lane: Lane,
	index: LogIndex,
	settled: bool,
	/// A flag that the delivery has a record on disk, by which a crash is counted.
	marked: bool,
}

impl Lease {
	pub(crate) fn new(consumer: Arc<Inner>, lane: Lane, index: LogIndex, marked: bool) -> Self {
		Self { consumer, lane, index, settled: false, marked }
	}

	fn settle(mut self, outcome: Outcome) {
		self.settled = true;
		self.consumer.settle(Settlement { lane: self.lane, index: self.index, outcome });
	}
}

impl Drop for Lease {
	fn drop(&mut self) {
		if !self.settled {
			// A handler that panics may end its process.
			let outcome = Outcome::Released { in_order: !std::thread::panicking() };
			self.consumer.settle(Settlement { lane: self.lane, index: self.index, outcome });
		}
	}
}

impl Delivery {
	pub(crate) fn new(entry: Entry, attempt: u32, lease: Lease) -> Self {
		Self { entry, attempt, lease }
	}

	/// Returns the entry.
	pub fn entry(&self) -> &Entry {
		&self.entry
	}

	/// The event's name: the same each time it comes.
	pub fn id(&self) -> EventId {
		self.entry.id()
	}

	/// Returns how often the source of the event had brought it before: 0 the first time.
	///
	/// A repeat has the id of the first delivery, and comes although that was acked: the source
	/// (LDK) asks again, since its own durable state has no answer. Answer again, and do not repeat
	/// the effects of the first time.
	pub fn repeat(&self) -> u32 {
		self.entry.repeat()
	}

	/// Returns `true` if an earlier delivery of the same event was acked; see
	/// [`repeat`](Delivery::repeat).
	pub fn is_repeat(&self) -> bool {
		self.repeat() > 0
	}

	/// Its place.
	pub fn index(&self) -> LogIndex {
		self.entry.index()
	}

	/// What sort of event it is.
	pub fn kind(&self) -> &EventKind {
		self.entry.kind()
	}

	/// What it stays in order with.
	pub fn lane(&self) -> Lane {
		self.entry.lane()
	}

	/// What was appended.
	pub fn payload(&self) -> &[u8] {
		self.entry.payload()
	}

	/// When it was appended.
	pub fn appended_at(&self) -> Timestamp {
		self.entry.appended_at()
	}

	/// Returns which attempt this is, from 1 on. Attempts that ended in a crash are counted as far as
	/// [`max_crashes`](crate::ConsumerOptions::max_crashes) says.
	pub fn attempt(&self) -> u32 {
		self.attempt
	}

	/// Acks the delivery.
	///
	/// # Errors
	/// [`LogError::TakenOver`]; the store's. The delivery comes again.
	///
	/// # Failure Behavior and Persistence
	/// When it returns the entry does not come again to this consumer. A crash before that may
	/// bring it again: use [`ack_with`](Delivery::ack_with) if the effect must not happen twice.
	pub fn ack(self) -> Result<(), LogError> {
		let (consumer, index) = (Arc::clone(&self.lease.consumer), self.index());
		is_acked(consumer.settle_by(self.ack_plan(), index))
	}

	/// Acks the delivery, and commits `plan` with the ack.
	///
	/// # Errors
	/// [`LogError::AlreadyAcked`] if the entry is acked, so that the effect is not repeated;
	/// [`LogError::TakenOver`]; [`Conflict`](leyden_store::StoreError::Conflict) if an expectation of
	/// `plan` does not hold; the store's. Nothing is written then. Unless the entry is acked, the
	/// delivery comes again, to the handle that has the consumer.
	///
	/// # Failure Behavior and Persistence
	/// Ack and plan are durable together or not at all, so what the plan writes is written once,
	/// however often the delivery comes. The plan must be for the log's own store.
	pub fn ack_with<T: 'static>(self, plan: Plan<T>) -> Result<T, LogError> {
		let consumer = Arc::clone(&self.lease.consumer);
		let index = self.index();
		let (answer, ()) = consumer.settle_by(plan.and(self.ack_plan()), index)?;
		Ok(answer)
	}

	/// Handled, and it would do no harm if it came once more: the ack waits for the next flush.
	///
	/// # Errors
	/// As [`ack`](Delivery::ack).
	///
	/// # Failure Behavior and Persistence
	/// As [`ack`](Delivery::ack), but a crash soon after it returns may bring the entry again.
	pub fn ack_lazy(self) -> Result<(), LogError> {
		let (consumer, index) = (Arc::clone(&self.lease.consumer), self.index());
		let batch = lazily(self.ack_batch());
		is_acked(consumer.settle_by(consumer.ack_plan(batch), index))
	}

	/// Returns the plan that acks the delivery, to be committed with other things. If the plan is
	/// dropped or fails, the delivery comes again. It fails with
	/// [`Conflict`](leyden_store::StoreError::Conflict) if the entry is acked already (table
	/// `log_acks`), or the consumer was taken over (table `log_owners`).
	pub fn ack_plan(self) -> Plan<()> {
		let consumer = Arc::clone(&self.lease.consumer);
		consumer.ack_plan(self.ack_batch())
	}

	/// Failed; to be tried again when the consumer's policy says, or given up if it says that.
	///
	/// # Errors
	/// The store's. The delivery comes again.
	///
	/// # Failure Behavior and Persistence
	/// When it returns the attempt is counted and the wait is durable. A crash before that forgets
	/// the attempt.
	pub fn retry(self) -> Result<(), LogError> {
		let consumer = Arc::clone(&self.lease.consumer);
		consumer.run(self.retry_plan())
	}

	/// Failed; to be tried again after `wait`.
	///
	/// # Errors
	/// As [`retry`](Delivery::retry).
	///
	/// # Failure Behavior and Persistence
	/// As [`retry`](Delivery::retry).
	pub fn retry_after(self, wait: Duration) -> Result<(), LogError> {
		let consumer = Arc::clone(&self.lease.consumer);
		consumer.run(self.retry_after_plan(wait))
	}

	pub(crate) fn retry_after_plan(self, wait: Duration) -> Plan<()> {
		let Self { attempt, lease, .. } = self;
		let consumer = Arc::clone(&lease.consumer);
		let not_before = consumer.log.shared.clock.look().running.after(wait);
		let record = RetryV1 { attempts: attempt, not_before, crashes: 0 };
		let mut batch = Batch::new();
		consumer.owner.guard(&mut batch);
		batch.put(consumer.keys.retry(lease.index.get()), records::value(&record));
		batch.after_commit(move |_| lease.settle(Outcome::Retry { attempts: attempt, not_before }));
		Plan::of(batch)
	}

	/// Given up: it waits in the dead letters until an operator requeues or discards it.
	///
	/// # Errors
	/// As [`retry`](Delivery::retry).
	///
	/// # Failure Behavior and Persistence
	/// When it returns the dead letter is durable. The entry stays un-acked, and is not trimmed.
	pub fn dead_letter(self, reason: &str) -> Result<(), LogError> {
		let consumer = Arc::clone(&self.lease.consumer);
		consumer.run(self.dead_letter_plan(reason))
	}

	pub(crate) fn dead_letter_plan(self, reason: &str) -> Plan<()> {
		let Self { attempt, lease, .. } = self;
		let consumer = Arc::clone(&lease.consumer);
		let moved_on = consumer.options.on_exhausted == OnExhausted::MoveOn;
		let record = DeadV1 {
			attempts: attempt,
			parked_at: consumer.log.shared.clock.look().wall,
			lane: Some(lease.lane),
			moved_on,
			reason: reason.chars().take(crate::MAX_REASON_CHARS).collect(),
		};
		let mut batch = Batch::new();
		consumer.owner.guard(&mut batch);
		let index = lease.index.get();
		batch.put(consumer.keys.dead(index), records::value(&record));
		batch.delete(consumer.keys.retry(index));
		let (reason, place) = (record.reason, lease.index);
		batch.after_commit(move |_| {
			let consumer = Arc::clone(&lease.consumer);
			lease.settle(Outcome::Parked { moved_on });
			consumer.log.shared.observers.parked(&consumer.name, place, &reason);
		});
		Plan::of(batch)
	}

	/// Does what [`ack`](Delivery::ack) does, without blocking this thread.
	///
	/// # Errors
	/// As [`ack`](Delivery::ack).
	///
	/// # Failure Behavior and Persistence
	/// As [`ack`](Delivery::ack). The ack is submitted when the future is first polled; dropped after
	/// that, it may be durable or not.
	pub async fn ack_async(self) -> Result<(), LogError> {
		let (consumer, index) = (Arc::clone(&self.lease.consumer), self.index());
		is_acked(consumer.settle_by_async(self.ack_plan(), index).await)
	}

	/// Does what [`ack_with`](Delivery::ack_with) does, without blocking this thread.
	///
	/// # Errors
	/// As [`ack_with`](Delivery::ack_with).
	///
	/// # Failure Behavior and Persistence
	/// As [`ack_with`](Delivery::ack_with), and as [`ack_async`](Delivery::ack_async) if the future is
	/// dropped.
	pub async fn ack_with_async<T: 'static>(self, plan: Plan<T>) -> Result<T, LogError> {
		let (consumer, index) = (Arc::clone(&self.lease.consumer), self.index());
		let (answer, ()) = consumer.settle_by_async(plan.and(self.ack_plan()), index).await?;
		Ok(answer)
	}

	/// Does what [`retry`](Delivery::retry) does, without blocking this thread.
	///
	/// # Errors
	/// As [`retry`](Delivery::retry).
	///
	/// # Failure Behavior and Persistence
	/// As [`retry`](Delivery::retry).
	pub async fn retry_async(self) -> Result<(), LogError> {
		let (consumer, plan) = (Arc::clone(&self.lease.consumer), self.retry_plan());
		consumer.run_async(plan).await
	}

	/// Does what [`retry_after`](Delivery::retry_after) does, without blocking this thread.
	///
	/// # Errors
	/// As [`retry`](Delivery::retry).
	///
	/// # Failure Behavior and Persistence
	/// As [`retry`](Delivery::retry).
	pub async fn retry_after_async(self, wait: Duration) -> Result<(), LogError> {
		let (consumer, plan) = (Arc::clone(&self.lease.consumer), self.retry_after_plan(wait));
		consumer.run_async(plan).await
	}

	/// Does what [`dead_letter`](Delivery::dead_letter) does, without blocking this thread.
	///
	/// # Errors
	/// As [`retry`](Delivery::retry).
	///
	/// # Failure Behavior and Persistence
	/// As [`dead_letter`](Delivery::dead_letter).
	pub async fn dead_letter_async(self, reason: &str) -> Result<(), LogError> {
		let (consumer, plan) = (Arc::clone(&self.lease.consumer), self.dead_letter_plan(reason));
		consumer.run_async(plan).await
	}

	pub(crate) fn retry_plan(self) -> Plan<()> {
		let policy = self.lease.consumer.options.retry;
		if policy.max_attempts.is_some_and(|max| self.attempt >= max) {
			return self.dead_letter_plan("all attempts used up");
		}
		let wait = policy.wait_after(self.attempt, &self.id());
		self.retry_after_plan(wait)
	}

	fn ack_batch(self) -> Batch {
		let Self { attempt, lease, .. } = self;
		let keys = &lease.consumer.keys;
		let index = lease.index.get();
		let mut batch = Batch::new();
		// Each ack has a record of its own: any number of threads ack at once without getting in each
		// other's way. One that is there already landed without an answer, and so did its effect.
		batch.expect(keys.ack(index, index), Expectation::Absent);
		batch.put(keys.ack(index, index), records::value(&AckV1));
		if attempt > 1 || lease.marked {
			batch.delete(keys.retry(index));
		}
		batch.after_commit(move |_| lease.settle(Outcome::Acked));
		batch
	}
}

impl NewEvent {
	/// Returns an event that follows from a delivery, in the delivery's lane. Its id comes from that of
	/// the delivery, `kind` and `part`, so that the same delivery, however often it comes, gives the
	/// same event: a stream that is fed so has one entry for each. `part` tells apart several events
	/// of one kind that follow from one delivery.
	pub fn caused_by(cause: &Delivery, kind: EventKind, part: u64, payload: Vec<u8>) -> Self {
		const DOMAIN: Domain = Domain::new("leyden/caused", 1);
		let id = IdBuilder::new(DOMAIN, kind.name()).bytes(cause.id().as_bytes()).number(part);
		Self { id: id.finish(), kind, lane: cause.lane(), payload }
	}
}

impl fmt::Debug for Delivery {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Delivery {{ {:?}, attempt {} }}", self.entry, self.attempt)
	}
}

/// An entry that is acked already is what an ack is for.
fn is_acked(acked: Result<(), LogError>) -> Result<(), LogError> {
	match acked {
		Err(LogError::AlreadyAcked { .. }) => Ok(()),
		acked => acked,
	}
}

fn lazily(mut batch: Batch) -> Batch {
	batch.durability(Durability::Lazy);
	batch
}
