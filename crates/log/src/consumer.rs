// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Somebody who acks.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use leyden_id::Lane;
use leyden_store::{sharing, Batch, Durability, Expectation, Plan, Store, StoreError, Timestamp};
use parking_lot::Mutex;

use crate::damaged::DamagedEntry;
use crate::delivery::{Delivery, Lease};
use crate::lanes::{Head, Lanes, MAX_REMEMBERED_PER_LANE};
use crate::log::{check_name, EventLog, Shared};
use crate::lookup::{self, Place};
use crate::owner::Owner;
use crate::pending::{self, Bounds};
use crate::records::{self, AckV1, ConsumerKeys, ConsumerV1, DeadV1, RetryV1};
use crate::removal::{self, REMOVED};
use crate::suspects::{Mark, Suspects, Verdict};
use crate::tidy::Folding;
use crate::types::{
	ConsumerLag, ConsumerOptions, DeadLetter, Entry, LogIndex, OnExhausted, MAX_CONSUMER_CHARS,
};
use crate::{creation, reset, LogError};

/// Entries read ahead of the consumer.
const PAGE: usize = 256;
/// Entries looked at for one lane before other lanes have their turn.
const LOOK_AT_A_TIME: usize = 4096;

/// A named consumer of a log, with its own acks. Cheap to clone; clones share deliveries.
///
/// Deliveries of a lane come one after another, in the order of the log. A lane that is held up
/// (its delivery is in somebody's hands, waits for a retry, or is a dead letter) holds up no other.
#[derive(Clone)]
pub struct Consumer {
	inner: Arc<Inner>,
}

pub(crate) struct Inner {
	pub(crate) log: EventLog,
	pub(crate) name: String,
	pub(crate) keys: ConsumerKeys,
	pub(crate) owner: Owner,
	pub(crate) options: ConsumerOptions,
	pub(crate) folding: Arc<Folding>,
	state: Mutex<State>,
	/// What became of deliveries, not yet looked at. A leaf lock: hooks on the committing thread
	/// push here.
	settlements: Mutex<Vec<Settlement>>,
	/// Entries were acked that may have been read ahead.
	acked_in_bulk: AtomicBool,
	/// Whether nothing is delivered.
	paused: AtomicBool,
}

pub(crate) struct Settlement {
	pub(crate) lane: Lane,
	pub(crate) index: LogIndex,
	pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
	Acked,
	/// The delivery was dropped without a word; in the middle of a panic, or in order.
	Released {
		in_order: bool,
	},
	Retry {
		attempts: u32,
		not_before: Timestamp,
	},
	Parked {
		moved_on: bool,
	},
}

/// What is to be done with an entry that was passed.
enum Due {
	/// Deliver it.
	Now(Box<Entry>),
	/// It is a dead letter, and holds its lane up.
	Parked,
	/// It is damaged, and not a dead letter yet.
	Damaged(Box<DamagedEntry>),
	/// Nothing: it was acked, or is a dead letter that its lane goes on without.
	Done,
}

struct State {
	/// Everything up to here was delivered, passed over, or is acked.
	passed: u64,
	/// Everything up to here was read.
	read: u64,
	ahead: VecDeque<(Place, Option<DeadLetter>)>,
	lanes: Lanes,
	in_flight: usize,
	/// Failed attempts of entries that are to be tried again. One per lane that waits.
	attempts: HashMap<u64, RetryV1>,
	/// `true` if entries that hold their lane up may have been acked in bulk.
	recheck: bool,
	/// `true` if what was read when the handle was opened may be of before another handle.
	is_stale: bool,
	suspects: Suspects,
}

impl State {
	/// The state of a consumer that nobody uses any more.
	fn over() -> Self {
		Self {
			passed: 0,
			read: 0,
			ahead: VecDeque::new(),
			lanes: Lanes::default(),
			in_flight: 0,
			attempts: HashMap::new(),
			recheck: false,
			is_stale: false,
			suspects: Suspects::default(),
		}
	}

	/// What was read ahead is no longer what the log holds: read it again.
	fn forget_ahead(&mut self) {
		self.ahead.clear();
		self.read = self.passed;
	}
}

/// How much a consumer holds in memory; bounded whatever the backlog.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConsumerStats {
	/// Deliveries in somebody's hands.
	pub in_flight: usize,
	/// Lanes that are held up or have something due.
	pub held_lanes: usize,
	/// Places that those lanes remember.
	pub remembered: usize,
	/// Entries read ahead.
	pub read_ahead: usize,
	/// Everything up to this index is acked.
	pub watermark: u64,
	/// The highest index there is.
	pub head: u64,
}

impl Consumer {
	pub(crate) fn open(
		log: &EventLog, name: &str, options: ConsumerOptions,
	) -> Result<Self, LogError> {
		check_name(name, MAX_CONSUMER_CHARS)?;
		let keys = log.shared.keys.consumer(name);
		let open = || Self::open_alone(log, name, keys.clone(), options);
		let inner = sharing::shared(log.store(), &keys.consumer, open)?;
		let start = inner.options.start;
		if inner.options != (ConsumerOptions { start, ..options }) {
			return Err(LogError::OtherOptions { name: name.to_owned() });
		}
		Ok(Self { inner })
	}

	fn open_alone(
		log: &EventLog, name: &str, keys: ConsumerKeys, options: ConsumerOptions,
	) -> Result<Inner, LogError> {
		let store = log.store();
		reset::finish_what_was_begun(store, &keys)?;
		let found = store.get(&keys.consumer).wait()?;
		let found = found.map(|record| records::read::<ConsumerV1>(&keys.consumer, &record));
		// The mark of a removal or a renaming is no consumer.
		if found.transpose()?.is_none_or(|consumer| consumer.watermark == REMOVED) {
			let absent = (&keys.consumer, Expectation::Absent);
			match removal::empty(store, &keys, &absent) {
				// Another handle has created it.
				Err(LogError::Store(StoreError::Conflict { .. })) => {},
				emptied => emptied?,
			}
			creation::create(log, &keys, options.start)?;
		}
		let owner = Owner::open(store, &keys.owner)?;
		let head = log.shared.head.load(Ordering::SeqCst);
		let (bounds, long_tail) = Bounds::open(store, &keys, head)?;
		let watermark = bounds.watermark.load(Ordering::SeqCst);
		let folding = Folding::new(keys.clone(), bounds);
		let mut attempts = attempts(store, &keys)?;
		if attempts.values().any(|retry| retry.crashes > 0) {
			// A consumer of this process may have taken its marks back, without waiting.
			let mut batch = Batch::new();
			batch.durability(Durability::Lazy).expect(keys.consumer.clone(), Expectation::Present);
			match store.commit(batch).wait() {
				// Who cannot write has taken nothing back.
				Ok(_) | Err(StoreError::ReadOnly { .. }) => {},
				Err(error) => return Err(error.into()),
			}
			attempts = self::attempts(store, &keys)?;
		}
		let state = State {
			passed: watermark,
			read: watermark,
			ahead: VecDeque::new(),
			lanes: Lanes::default(),
			in_flight: 0,
			attempts,
			recheck: false,
			is_stale: false,
			suspects: Suspects::new(log.shared.opened_at, options.max_in_flight),
		};
		log.shared.housekeeping.take_in(&folding, long_tail);
		let record = store.get(&keys.consumer).wait()?;
		let record = record.map(|record| records::read::<ConsumerV1>(&keys.consumer, &record));
		let paused = record.transpose()?.is_some_and(|record| record.paused);
		log.shared.observers.opened(name, watermark);
		if paused {
			log.shared.observers.paused(name, true);
		}
		Ok(Inner {
			log: log.clone(),
			name: name.to_owned(),
			keys,
			owner,
			options,
			folding,
			state: Mutex::new(state),
			settlements: Mutex::default(),
			acked_in_bulk: AtomicBool::new(false),
			paused: AtomicBool::new(paused),
		})
	}

	/// Its name.
	pub fn name(&self) -> &str {
		&self.inner.name
	}

	/// The next delivery, if there is one now, and the consumer is not [paused](Consumer::pause).
	///
	/// A [damaged](DamagedEntry) entry is made a dead letter, which holds up its lane whatever
	/// [`on_exhausted`](ConsumerOptions::on_exhausted) says. Other lanes go on.
	///
	/// # Errors
	/// The store's, among them [`Corrupt`](StoreError::Corrupt) if a record of the consumer itself is
	/// damaged, such as an ack.
	pub fn next_event(&self) -> Result<Option<Delivery>, LogError> {
		self.inner.log.shared.move_on();
		let mut state = self.inner.state.lock();
		self.inner.take_note(&mut state);
		self.inner.recheck(&mut state)?;
		let now = self.inner.log.shared.clock.look().running;
		self.inner.unmark(&mut state, now);
		state.lanes.end_waits(now);
		if self.is_paused() {
			return Ok(None);
		}
		if state.in_flight >= self.inner.options.max_in_flight {
			return Ok(None);
		}
		let in_flight = state.in_flight;
		if state.suspects.holds(in_flight, now) {
			return Ok(None);
		}
		self.inner.own(&mut state)?;
		loop {
			let ready = self.inner.next_of_ready(&mut state, now)?;
			let found = match ready {
				Some(entry) => Some(entry),
				None => self.inner.next_ahead(&mut state, now)?,
			};
			let Some(entry) = found else { return Ok(None) };
			let retry = state.attempts.get(&entry.index().get());
			let crashes = retry.map_or(0, |retry| retry.crashes);
			let (in_flight, most) = (state.in_flight, self.inner.options.max_crashes);
			match state.suspects.judge(crashes, most, in_flight, now) {
				Verdict::Deliver => return self.deliver(&mut state, entry, now).map(Some),
				Verdict::Wait => {
					state.lanes.free(entry.lane(), Some(entry.index().get()));
					return Ok(None);
				},
				Verdict::Park => self.inner.park(&mut state, &entry)?,
			}
		}
	}

	/// The next delivery; blocks this thread until there is one.
	///
	/// # Errors
	/// As [`next_event`](Consumer::next_event).
	pub fn wait_next_event(&self) -> Result<Delivery, LogError> {
		loop {
			let seen = self.signal_count();
			if let Some(delivery) = self.next_event()? {
				return Ok(delivery);
			}
			self.wait(seen);
		}
	}

	/// The next delivery. `sleep` resolves after the given time; it is only used while something is
	/// due later.
	///
	/// # Errors
	/// As [`next_event`](Consumer::next_event).
	pub async fn next_event_async<F: Future<Output = ()>>(
		&self, sleep: impl Fn(Duration) -> F,
	) -> Result<Delivery, LogError> {
		loop {
			let seen = self.signal_count();
			if let Some(delivery) = self.next_event()? {
				return Ok(delivery);
			}
			self.wait_async(seen, &sleep).await;
		}
	}

	pub(crate) fn inner(&self) -> &Inner {
		&self.inner
	}

	/// Returns the number of things that have happened. Take it before looking for work.
	pub(crate) fn signal_count(&self) -> u64 {
		self.inner.log.shared.signal.count()
	}

	/// Blocks this thread until more than `seen` things have happened, or something is due.
	pub(crate) fn wait(&self, seen: u64) {
		let shared = &self.inner.log.shared;
		shared.store.block(&mut || shared.signal.wait(seen, self.until_retry()));
	}

	/// Does what [`wait`](Consumer::wait) does, for a task.
	pub(crate) async fn wait_async<F: Future<Output = ()>>(
		&self, seen: u64, sleep: &impl Fn(Duration) -> F,
	) {
		let mut raised = pin!(self.inner.log.shared.signal.raised(seen));
		let mut slept = pin!(self.until_retry().map(sleep));
		std::future::poll_fn(|context| {
			if raised.as_mut().poll(context).is_ready() {
				return Poll::Ready(());
			}
			match slept.as_mut().as_pin_mut() {
				Some(slept) => slept.poll(context),
				None => Poll::Pending,
			}
		})
		.await;
	}

	/// Returns when the next failed delivery is due again, in
	/// [`running`](leyden_store::Times::running) time.
	pub fn next_retry_at(&self) -> Option<Timestamp> {
		let mut state = self.inner.state.lock();
		self.inner.take_note(&mut state);
		state.lanes.next_due()
	}

	/// Up to `limit` un-acked entries behind `after`, in order, whatever is delivered meanwhile;
	/// dead letters are among them. A damaged entry is an error in its place.
	///
	/// # Errors
	/// The store's.
	pub fn unacked(
		&self, after: Option<LogIndex>, limit: usize,
	) -> Result<Vec<Result<Entry, DamagedEntry>>, LogError> {
		let mut after = after.map_or(0, LogIndex::get);
		let mut entries = Vec::new();
		while entries.len() < limit {
			let page = self.inner.pending(after, limit - entries.len())?;
			if page.at_end {
				break;
			}
			after = page.scanned_to;
			entries.extend(page.entries.into_iter().map(|(entry, _)| entry));
		}
		Ok(entries)
	}

	/// Whether this consumer has acked `index`.
	///
	/// # Errors
	/// The store's.
	pub fn is_acked(&self, index: LogIndex) -> Result<bool, LogError> {
		let Inner { log, keys, folding, .. } = &*self.inner;
		pending::is_acked(log.store(), keys, &folding.bounds, index)
	}

	/// Returns a plan that acks all of these entries, which need not have been delivered.
	/// Neighbours are one record.
	///
	/// The plan is for a consumer that does without deliveries, such as the monitor bus. These acks
	/// trigger the same housekeeping as any other, and free a lane whose head they ack. A dead
	/// letter that they ack is none any more.
	pub fn ack_plan_many(&self, indices: &[LogIndex]) -> Plan<()> {
		self.inner.log.shared.move_on();
		let mut indices: Vec<u64> = indices.iter().map(|index| index.get()).collect();
		indices.sort_unstable();
		indices.dedup();
		let mut batch = Batch::new();
		for run in indices.chunk_by(|a, b| a + 1 == *b) {
			if let (Some(first), Some(last)) = (run.first(), run.last()) {
				batch.put(self.inner.keys.ack(*first, *last), records::value(&AckV1));
			}
		}
		let inner = Arc::clone(&self.inner);
		batch.after_commit(move |_| {
			inner.acked(&indices);
			inner.acked_in_bulk.store(true, Ordering::SeqCst);
		});
		self.inner.ack_plan(batch)
	}

	/// Folds acks together and trims everything that is past its retention, at once, and blocks
	/// until that is done. A log is kept small without this call: acks trigger the same.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Changes nothing that anybody sees, but what is trimmed is gone. A crash leaves it done or
	/// not.
	pub fn tidy(&self) -> Result<(), LogError> {
		self.inner.tidy_now()
	}

	/// Up to `limit` dead letters behind `after`, in order.
	///
	/// # Errors
	/// The store's.
	pub fn dead_letters(
		&self, after: Option<LogIndex>, limit: usize,
	) -> Result<Vec<DeadLetter>, LogError> {
		let first = after.map_or(0, LogIndex::get).saturating_add(1);
		let Inner { log, keys, folding, .. } = &*self.inner;
		pending::dead_letters(log.store(), keys, &folding.bounds, first, limit)
	}

	/// Delivers a dead letter again, with its attempts forgotten.
	///
	/// # Errors
	/// [`LogError::NoDeadLetter`]; the store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns the entry is due. A crash before that leaves it a dead letter.
	pub fn requeue(&self, index: LogIndex) -> Result<(), LogError> {
		let mut state = self.inner.state.lock();
		let letter = self.inner.end_dead_letter(index, |_| ())?;
		self.inner.take_note(&mut state);
		state.forget_ahead();
		state.attempts.remove(&index.get());
		let parked = state.lanes.parked_at(index.get());
		for lane in &parked {
			state.lanes.free(*lane, Some(index.get()));
		}
		// Without its lane, an entry is not passed.
		if let Some(lane) = letter.lane.filter(|_| parked.is_empty()) {
			if index.get() <= state.passed {
				state.lanes.recall(lane, index.get());
			}
		}
		self.inner.log.shared.signal.raise();
		Ok(())
	}

	/// Acks a dead letter, so that nothing waits for it any more.
	///
	/// # Errors
	/// As [`requeue`](Consumer::requeue).
	///
	/// # Failure Behavior and Persistence
	/// When it returns the entry is acked. A crash before that leaves it a dead letter.
	pub fn discard(&self, index: LogIndex) -> Result<(), LogError> {
		let mut state = self.inner.state.lock();
		let ack = self.inner.keys.ack(index.get(), index.get());
		let inner = Arc::clone(&self.inner);
		self.inner.end_dead_letter(index, |batch| {
			batch.put(ack, records::value(&AckV1));
			batch.after_commit(move |_| inner.acked(&[index.get()]));
		})?;
		self.inner.take_note(&mut state);
		state.forget_ahead();
		for lane in state.lanes.parked_at(index.get()) {
			state.lanes.free(lane, None);
		}
		self.inner.log.shared.signal.raise();
		self.inner.log.shared.move_on();
		Ok(())
	}

	/// Delivers nothing until [`resume`](Consumer::resume), in this process and in later ones. What is in
	/// somebody's hands can be settled. Another handle, behind another layer around the store, hears of it
	/// when it is opened again.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the consumer is paused durably. A crash before that leaves it paused or not.
	pub fn pause(&self) -> Result<(), LogError> {
		self.inner.set_paused(true)
	}

	/// Ends a [`pause`](Consumer::pause). Does nothing if there is none.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the pause is over durably. A crash before that leaves the consumer paused or not.
	pub fn resume(&self) -> Result<(), LogError> {
		self.inner.set_paused(false)
	}

	/// Returns whether the consumer is paused.
	pub fn is_paused(&self) -> bool {
		self.inner.paused.load(Ordering::SeqCst)
	}

	/// Returns how far the consumer is behind. The acks are read, and one entry.
	///
	/// # Errors
	/// The store's.
	pub fn lag(&self) -> Result<ConsumerLag, LogError> {
		let Inner { log, keys, folding, .. } = &*self.inner;
		pending::lag(log.store(), &log.shared.keys, keys, &folding.bounds)
	}

	/// What it holds in memory, and how far it is.
	pub fn stats(&self) -> ConsumerStats {
		let mut state = self.inner.state.lock();
		self.inner.take_note(&mut state);
		ConsumerStats {
			in_flight: state.in_flight,
			held_lanes: state.lanes.len(),
			remembered: state.lanes.remembered(),
			read_ahead: state.ahead.len(),
			watermark: self.inner.folding.bounds.watermark.load(Ordering::SeqCst),
			head: self.inner.log.shared.head.load(Ordering::SeqCst),
		}
	}

	fn deliver(
		&self, state: &mut State, entry: Entry, now: Timestamp,
	) -> Result<Delivery, LogError> {
		let (lane, index) = (entry.lane(), entry.index());
		let retry = state.attempts.get(&index.get()).copied();
		let attempt = retry.map_or(0, |retry| retry.attempts).saturating_add(1);
		let marked = self.inner.mark(state, &entry, (attempt, retry), now)?;
		state.lanes.hold(lane, Head::InFlight(index.get()));
		state.in_flight += 1;
		state.suspects.delivered(now);
		let lease = Lease::new(Arc::clone(&self.inner), lane, index, marked);
		Ok(Delivery::new(entry, attempt, lease))
	}

	/// Returns the time until something changes by itself.
	fn until_retry(&self) -> Option<Duration> {
		let now = self.inner.log.shared.clock.look().running;
		let retry = self.next_retry_at();
		let state = self.inner.state.lock();
		let suspects = state.suspects.next_change(now);
		let at = retry.into_iter().chain(suspects).min()?;
		Some(at.since(now))
	}
}

impl fmt::Debug for Consumer {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Consumer {} of {:?}", self.name(), self.inner.log)
	}
}

impl Inner {
	/// A delivery ended. Called on the committing thread, too: takes leaf locks only.
	pub(crate) fn settle(&self, settlement: Settlement) {
		if matches!(settlement.outcome, Outcome::Acked) {
			self.acked(&[settlement.index.get()]);
		}
		if matches!(settlement.outcome, Outcome::Released { .. }) {
			// Its ack may have landed without an answer: look before it is delivered again.
			self.folding.bounds.last_acked.fetch_max(settlement.index.get(), Ordering::SeqCst);
		}
		if matches!(settlement.outcome, Outcome::Parked { .. }) {
			self.folding.bounds.last_dead.fetch_max(settlement.index.get(), Ordering::SeqCst);
		}
		self.settlements.lock().push(settlement);
		self.log.shared.signal.raise();
	}

	fn acked(&self, indices: &[u64]) {
		let highest = indices.iter().copied().max().unwrap_or(0);
		self.folding.bounds.last_acked.fetch_max(highest, Ordering::SeqCst);
		self.log.shared.housekeeping.acked(&self.folding, indices.len() as u64);
		self.log.shared.observers.acked(&self.name, indices);
	}

	/// Makes the consumer this handle's, before the first delivery.
	fn own(&self, state: &mut State) -> Result<(), LogError> {
		let shared = &self.log.shared;
		let store = &shared.store;
		while !self.owner.is_taken() {
			reset::finish_what_was_begun(store, &self.keys)?;
			// It was removed, or is being removed, by a handle that this one does not see.
			let gone = || LogError::NoConsumer { name: self.name.clone() };
			let found = store.get(&self.keys.consumer).wait()?.ok_or_else(gone)?;
			let consumer: ConsumerV1 = records::read(&self.keys.consumer, &found)?;
			if consumer.watermark == REMOVED {
				return Err(gone());
			}
			let unchanged = (&self.keys.consumer, Expectation::Version(found.version));
			match self.owner.take(store, unchanged, shared.clock.look().wall) {
				Ok(was_anothers) => state.is_stale |= was_anothers,
				// Its acks were folded meanwhile, or another handle was faster.
				Err(LogError::Store(StoreError::Conflict { .. })) => {},
				Err(error) => return Err(error),
			}
		}
		if state.is_stale {
			// It may have been reset since this handle was opened, back or forward.
			let watermark = pending::watermark(store, &self.keys)?;
			let attempts = attempts(store, &self.keys)?;
			let head = shared.head.load(Ordering::SeqCst);
			let bounds = &self.folding.bounds;
			bounds.last_acked.fetch_max(head, Ordering::SeqCst);
			bounds.last_dead.fetch_max(head, Ordering::SeqCst);
			bounds.watermark.store(watermark, Ordering::SeqCst);
			state.attempts = attempts;
			state.passed = watermark;
			state.forget_ahead();
			state.is_stale = false;
		}
		Ok(())
	}

	/// Commits a plan that this handle's batch is part of, and waits.
	pub(crate) fn run<T: 'static>(&self, plan: Plan<T>) -> Result<T, LogError> {
		plan.commit(self.log.store()).wait().map_err(|error| self.lost_or(error))
	}

	/// Does what [`run`](Inner::run) does, for a task.
	pub(crate) async fn run_async<T: 'static>(&self, plan: Plan<T>) -> Result<T, LogError> {
		plan.commit(self.log.store()).await.map_err(|error| self.lost_or(error))
	}

	fn lost_or(&self, error: StoreError) -> LogError {
		match self.owner.has_lost(&error) {
			true => LogError::TakenOver { consumer: self.name.clone() },
			false => error.into(),
		}
	}

	/// Commits a plan that settles the delivery of `index`, and waits.
	pub(crate) fn settle_by<T: 'static>(
		&self, plan: Plan<T>, index: LogIndex,
	) -> Result<T, LogError> {
		self.run(plan).map_err(|error| self.acked_or(index, error))
	}

	/// Does what [`settle_by`](Inner::settle_by) does, for a task.
	pub(crate) async fn settle_by_async<T: 'static>(
		&self, plan: Plan<T>, index: LogIndex,
	) -> Result<T, LogError> {
		self.run_async(plan).await.map_err(|error| self.acked_or(index, error))
	}

	fn acked_or(&self, index: LogIndex, error: LogError) -> LogError {
		let ack = self.keys.ack(index.get(), index.get());
		match error {
			LogError::Store(StoreError::Conflict { key, .. }) if key == ack => {
				LogError::AlreadyAcked { index }
			},
			error => error,
		}
	}

	/// Returns the plan of an ack, after whose commit housekeeping moves on without being waited
	/// for.
	pub(crate) fn ack_plan(&self, mut batch: Batch) -> Plan<()> {
		self.owner.guard(&mut batch);
		let shared = Arc::clone(&self.log.shared);
		Plan::new(batch, move |_| shared.move_on())
	}

	fn set_paused(&self, paused: bool) -> Result<(), LogError> {
		// Held to the end: of two calls, the one that commits last is the one that counts here, and no
		// search for a delivery is under way when this returns.
		let _state = self.state.lock();
		let (store, key) = (self.log.store(), &self.keys.consumer);
		loop {
			// It was removed, or is being removed, by a handle that this one does not see.
			let gone = || LogError::NoConsumer { name: self.name.clone() };
			let found = store.get(key).wait()?.ok_or_else(gone)?;
			let consumer: ConsumerV1 = records::read(key, &found)?;
			if consumer.watermark == REMOVED {
				return Err(gone());
			}
			let mut batch = Batch::new();
			batch.expect(key.clone(), Expectation::Version(found.version));
			batch.put(key.clone(), records::value(&ConsumerV1 { paused, ..consumer }));
			match store.commit(batch).wait() {
				Ok(_) => break,
				// Its acks were folded meanwhile.
				Err(StoreError::Conflict { .. }) => {},
				Err(error) => return Err(error.into()),
			}
		}
		if self.paused.swap(paused, Ordering::SeqCst) != paused {
			self.log.shared.observers.paused(&self.name, paused);
		}
		self.log.shared.signal.raise();
		Ok(())
	}

	fn pending(&self, after: u64, limit: usize) -> Result<pending::Pending, LogError> {
		let shared = &self.log.shared;
		let Shared { store, keys, tail, .. } = &**shared;
		pending::pending(store, keys, Some(tail), &self.keys, &self.folding.bounds, after, limit)
	}

	/// Takes in what became of deliveries.
	fn take_note(&self, state: &mut State) {
		if self.acked_in_bulk.swap(false, Ordering::SeqCst) {
			state.forget_ahead();
			state.recheck = true;
		}
		let settlements = std::mem::take(&mut *self.settlements.lock());
		for Settlement { lane, index, outcome } in settlements {
			let index = index.get();
			state.in_flight = state.in_flight.saturating_sub(1);
			match outcome {
				Outcome::Acked => {
					state.suspects.settled(index);
					state.attempts.remove(&index);
					state.lanes.free(lane, None);
				},
				Outcome::Released { in_order } => {
					state.suspects.dropped(index, in_order);
					let not_before = Timestamp::default();
					let none = RetryV1 { attempts: 0, not_before, crashes: 0 };
					let retry = state.attempts.entry(index).or_insert(none);
					retry.attempts = retry.attempts.saturating_add(1);
					state.lanes.free(lane, Some(index));
				},
				Outcome::Retry { attempts, not_before } => {
					state.suspects.settled(index);
					state.attempts.insert(index, RetryV1 { attempts, not_before, crashes: 0 });
					state.lanes.hold_in_turn(lane, index, Head::Waiting(index, not_before));
				},
				Outcome::Parked { moved_on } => {
					state.suspects.settled(index);
					state.attempts.remove(&index);
					if moved_on {
						state.lanes.free(lane, None);
					} else {
						state.lanes.hold_in_turn(lane, index, Head::Parked(index));
					}
				},
			}
		}
	}

	/// Makes an entry a dead letter because processes have ended while it was handled.
	fn park(&self, state: &mut State, entry: &Entry) -> Result<(), LogError> {
		let (lane, index) = (entry.lane(), entry.index());
		let crashes = state.attempts.get(&index.get()).map_or(0, |retry| retry.crashes);
		let reason = format!("{crashes} processes in a row ended while it was handled");
		let moved_on = self.options.on_exhausted == OnExhausted::MoveOn;
		if let Err(error) = self.write_dead_letter(state, index, Some(lane), moved_on, reason) {
			state.lanes.free(lane, Some(index.get()));
			return Err(error);
		}
		match moved_on {
			true => state.lanes.free(lane, None),
			false => state.lanes.hold(lane, Head::Parked(index.get())),
		}
		Ok(())
	}

	/// Makes an entry a dead letter because it is damaged. Its lane does not move on.
	fn park_damaged(&self, state: &mut State, damaged: &DamagedEntry) -> Result<(), LogError> {
		let reason = damaged.to_string().chars().take(crate::MAX_REASON_CHARS).collect();
		self.write_dead_letter(state, damaged.index, damaged.lane(), false, reason)
	}

	fn write_dead_letter(
		&self, state: &mut State, index: LogIndex, lane: Option<Lane>, moved_on: bool,
		reason: String,
	) -> Result<(), LogError> {
		let attempts = state.attempts.get(&index.get()).map_or(0, |retry| retry.attempts);
		let parked_at = self.log.shared.clock.look().wall;
		let record = DeadV1 { attempts, parked_at, lane, moved_on, reason };
		let mut batch = Batch::new();
		self.owner.guard(&mut batch);
		batch.put(self.keys.dead(index.get()), records::value(&record));
		batch.delete(self.keys.retry(index.get()));
		self.run(Plan::of(batch))?;
		self.folding.bounds.last_dead.fetch_max(index.get(), Ordering::SeqCst);
		state.attempts.remove(&index.get());
		self.log.shared.observers.parked(&self.name, index, &record.reason);
		Ok(())
	}

	/// Writes down that an entry is about to be delivered which an earlier process may have had, so
	/// that it is known if this process ends now. Returns `false` for any other entry.
	fn mark(
		&self, state: &mut State, entry: &Entry, (attempts, before): (u32, Option<RetryV1>),
		now: Timestamp,
	) -> Result<bool, LogError> {
		let index = entry.index().get();
		if !state.suspects.counts(index) || self.options.max_crashes.is_none() {
			return Ok(false);
		}
		let crashes = before.map_or(0, |before| before.crashes).saturating_add(1);
		let record = RetryV1 { attempts, not_before: Timestamp::default(), crashes };
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		self.owner.guard(&mut batch);
		batch.put(self.keys.retry(index), records::value(&record));
		let version = match self.run(Plan::new(batch, |committed| committed.version())) {
			Ok(version) => version,
			Err(error) => {
				state.lanes.free(entry.lane(), Some(index));
				return Err(error);
			},
		};
		state.suspects.marked(index, before, version, now);
		Ok(true)
	}

	/// Takes back the marks of entries that were delivered long ago: if this process ends now, that is
	/// not because of them.
	fn unmark(&self, state: &mut State, now: Timestamp) {
		for (index, mark) in state.suspects.take_old(now) {
			self.put_back(index, mark);
		}
	}

	/// Writes what was there before a mark, unless something else was written since. Nobody waits:
	/// without it, the next process counts a crash that was none.
	fn put_back(&self, index: u64, Mark { before, version, .. }: Mark) {
		let key = self.keys.retry(index);
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		self.owner.guard(&mut batch);
		batch.expect(key.clone(), Expectation::Version(version));
		match before {
			Some(before) => batch.put(key, records::value(&before)),
			None => batch.delete(key),
		};
		drop(self.log.store().commit(batch));
	}

	/// Frees each lane whose head waits or is a dead letter and was acked in bulk.
	fn recheck(&self, state: &mut State) -> Result<(), LogError> {
		if !state.recheck {
			return Ok(());
		}
		for (lane, index) in state.lanes.stopped() {
			let Some(place) = LogIndex::new(index) else { continue };
			if pending::is_acked(self.log.store(), &self.keys, &self.folding.bounds, place)? {
				state.attempts.remove(&index);
				state.lanes.free(lane, None);
			}
		}
		state.recheck = false;
		Ok(())
	}

	/// What is to be done with the entry at `index`, which the consumer has passed.
	fn due(&self, index: u64) -> Result<Due, LogError> {
		let Some(index) = LogIndex::new(index) else { return Ok(Due::Done) };
		let store = self.log.store();
		if pending::is_acked(store, &self.keys, &self.folding.bounds, index)? {
			return Ok(Due::Done);
		}
		if index.get() <= self.folding.bounds.last_dead.load(Ordering::SeqCst) {
			if let Some(letter) = lookup::dead(store, &self.keys, index)? {
				return Ok(if letter.moved_on { Due::Done } else { Due::Parked });
			}
		}
		Ok(match lookup::place(store, &self.log.shared.keys, index)? {
			Some(Ok(entry)) => Due::Now(Box::new(entry)),
			Some(Err(damaged)) => Due::Damaged(Box::new(damaged)),
			None => Due::Done,
		})
	}

	/// The next entry that a free lane has passed over.
	fn next_of_ready(&self, state: &mut State, now: Timestamp) -> Result<Option<Entry>, LogError> {
		// Each lane has one turn: one that has far to look lets the others go first.
		let mut turns = state.lanes.len();
		while let Some(lane) = state.lanes.pop_ready() {
			if state.lanes.get_mut(&lane).is_none_or(|held| held.head != Head::Free) {
				continue;
			}
			match self.next_of_lane(state, lane, now) {
				Ok(Some(entry)) => return Ok(Some(entry)),
				Ok(None) if state.lanes.holds(&lane) => state.lanes.push_ready(lane),
				Ok(None) => {},
				Err(error) => {
					state.lanes.push_ready(lane);
					return Err(error);
				},
			}
			turns = turns.saturating_sub(1);
			if turns == 0 {
				break;
			}
		}
		Ok(None)
	}

	fn next_of_lane(
		&self, state: &mut State, lane: Lane, now: Timestamp,
	) -> Result<Option<Entry>, LogError> {
		loop {
			let Some(held) = state.lanes.get_mut(&lane) else { return Ok(None) };
			if let Some(index) = held.passed.front().copied() {
				let due = self.due(index)?;
				if let Due::Damaged(damaged) = &due {
					self.park_damaged(state, damaged)?;
				}
				if let Some(held) = state.lanes.get_mut(&lane) {
					held.passed.pop_front();
				}
				match (due, state.attempts.get(&index)) {
					(Due::Now(_), Some(retry)) if retry.not_before > now => {
						state.lanes.hold(lane, Head::Waiting(index, retry.not_before));
						return Ok(None);
					},
					(Due::Now(entry), _) => return Ok(Some(*entry)),
					(Due::Parked | Due::Damaged(_), _) => {
						state.lanes.hold(lane, Head::Parked(index));
						return Ok(None);
					},
					(Due::Done, _) => {
						state.attempts.remove(&index);
						continue;
					},
				}
			}
			let Some(from) = held.look_from else {
				state.lanes.forget(&lane);
				return Ok(None);
			};
			self.look_again(state, lane, from)?;
			let found = state.lanes.get_mut(&lane).is_some_and(|held| !held.passed.is_empty());
			if !found {
				// Nothing in this stretch. If there is more, in its next turn.
				let done = state.lanes.get_mut(&lane).is_none_or(|held| held.look_from.is_none());
				if done {
					state.lanes.forget(&lane);
				}
				return Ok(None);
			}
		}
	}

	/// Looks for entries of `lane` from `from` on, among those that the consumer has passed.
	fn look_again(&self, state: &mut State, lane: Lane, from: u64) -> Result<(), LogError> {
		let mut after = from.saturating_sub(1);
		let (mut found, mut looked) = (VecDeque::new(), 0);
		let mut look_from = None;
		'pages: while looked < LOOK_AT_A_TIME {
			let page = self.pending(after, PAGE)?;
			if page.at_end {
				after = u64::MAX;
				break;
			}
			looked += PAGE;
			for (place, dead) in &page.entries {
				let index = lookup::index_of(place).get();
				if index > state.passed {
					after = u64::MAX;
					break 'pages;
				}
				// One whose lane is not known may be of any.
				if lane_of(place, dead.as_ref()).is_none_or(|found| found == lane)
					&& dead.as_ref().is_none_or(|letter| !letter.moved_on)
				{
					if found.len() >= MAX_REMEMBERED_PER_LANE {
						look_from = Some(index);
						break 'pages;
					}
					found.push_back(index);
				}
			}
			after = page.scanned_to;
		}
		if let Some(held) = state.lanes.get_mut(&lane) {
			held.passed = found;
			let more = (after < state.passed).then(|| after.saturating_add(1));
			held.look_from = look_from.or(more);
		}
		Ok(())
	}

	/// The next entry ahead whose lane is not held up.
	fn next_ahead(&self, state: &mut State, now: Timestamp) -> Result<Option<Entry>, LogError> {
		loop {
			if state.ahead.is_empty() && !self.read_ahead(state)? {
				return Ok(None);
			}
			let Some((place, letter)) = state.ahead.front() else { continue };
			let index = lookup::index_of(place).get();
			let Some(lane) = lane_of(place, letter.as_ref()) else {
				// Whatever is behind it may be of its lane.
				if let (Err(damaged), None) = (place, letter) {
					let damaged = damaged.clone();
					self.park_damaged(state, &damaged)?;
					state.forget_ahead();
				}
				return Ok(None);
			};
			if state.lanes.is_full() && !state.lanes.holds(&lane) {
				return Ok(None);
			}
			let is_held = state.lanes.holds(&lane);
			let is_over = letter.as_ref().is_some_and(|letter| letter.moved_on);
			let is_parked = letter.is_some() || place.is_err();
			if let (Err(damaged), None, false) = (place, letter, is_held) {
				let damaged = damaged.clone();
				self.park_damaged(state, &damaged)?;
			}
			let Some((place, _)) = state.ahead.pop_front() else { continue };
			state.passed = index;
			if is_over {
				continue;
			}
			if is_held {
				// A dead letter, too: nothing of its lane overtakes it.
				state.lanes.pass_over(lane, index);
				continue;
			}
			let entry = match place {
				Ok(entry) if !is_parked => entry,
				_ => {
					state.lanes.hold(lane, Head::Parked(index));
					continue;
				},
			};
			match state.attempts.get(&index) {
				Some(retry) if retry.not_before > now => {
					state.lanes.hold(lane, Head::Waiting(index, retry.not_before));
				},
				_ => return Ok(Some(entry)),
			}
		}
	}

	/// Reads the next page; `false` if nothing is ahead.
	fn read_ahead(&self, state: &mut State) -> Result<bool, LogError> {
		let head = self.log.shared.head.load(Ordering::SeqCst);
		while state.read < head {
			let page = self.pending(state.read, PAGE)?;
			state.read = state.read.max(page.scanned_to);
			if page.at_end {
				state.passed = state.read;
				break;
			}
			state.ahead.extend(page.entries);
			if !state.ahead.is_empty() {
				return Ok(true);
			}
			state.passed = state.read;
		}
		Ok(false)
	}

	fn end_dead_letter(
		&self, index: LogIndex, also: impl FnOnce(&mut Batch),
	) -> Result<DeadLetter, LogError> {
		let store = self.log.store();
		let none = || LogError::NoDeadLetter { index };
		let letter = lookup::dead_letters(store, &self.keys, index.get(), 1)?.into_iter().next();
		let letter = letter.filter(|letter| letter.index == index).ok_or_else(none)?;
		if pending::is_acked(store, &self.keys, &self.folding.bounds, index)? {
			return Err(none());
		}
		let mut batch = Batch::new();
		self.owner.guard(&mut batch);
		batch.expect(self.keys.dead(index.get()), Expectation::Present);
		batch.delete(self.keys.dead(index.get()));
		batch.delete(self.keys.retry(index.get()));
		also(&mut batch);
		match self.run(Plan::of(batch)) {
			Ok(()) => Ok(letter),
			Err(LogError::Store(StoreError::Conflict { .. })) => Err(none()),
			Err(error) => Err(error),
		}
	}
}

impl Drop for Inner {
	/// Takes back the marks of deliveries that were released in order: no process ended because of
	/// them.
	fn drop(&mut self) {
		let mut state = std::mem::replace(self.state.get_mut(), State::over());
		self.take_note(&mut state);
		for (index, mark) in state.suspects.take_released() {
			self.put_back(index, mark);
		}
	}
}

/// Returns the lane of a place, from what is left of it or from its dead letter.
fn lane_of(place: &Place, letter: Option<&DeadLetter>) -> Option<Lane> {
	match place {
		Ok(entry) => Some(entry.lane()),
		Err(damaged) => damaged.lane().or(letter.and_then(|letter| letter.lane)),
	}
}

/// The retries that are due: at most one per lane that waits.
fn attempts(
	store: &Arc<dyn Store>, keys: &ConsumerKeys,
) -> Result<HashMap<u64, RetryV1>, LogError> {
	let mut attempts = HashMap::new();
	let mut rest = Some(keys.retries());
	while let Some(range) = rest.take() {
		let page = store.scan(range, PAGE).wait()?;
		for (key, record) in &page.records {
			if let Some(index) = keys.index(key) {
				attempts.insert(index, records::read(key, record)?);
			}
		}
		rest = page.rest;
	}
	Ok(attempts)
}
