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
use crate::lanes::{Head, Lanes};
use crate::log::{check_name, EventLog, Shared};
use crate::lookup::Place;
use crate::owner::Owner;
use crate::pending::{self, Bounds};
use crate::records::{self, AckV1, ConsumerKeys, ConsumerV1, RetryV1};
use crate::removal::{self, REMOVED};
use crate::suspects::{Suspects, Verdict};
use crate::tidy::Folding;
use crate::types::{ConsumerLag, ConsumerOptions, DeadLetter, Entry, LogIndex, MAX_CONSUMER_CHARS};
use crate::{creation, reset, LogError};

/// The number of retries that are read in one go.
const RETRIES_AT_A_TIME: usize = 256;

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
	pub(crate) state: Mutex<State>,
	/// What became of deliveries, not yet looked at. A leaf lock: hooks on the committing thread
	/// push here.
	settlements: Mutex<Vec<Settlement>>,
	/// Entries were acked that may have been read ahead.
	acked_in_bulk: AtomicBool,
	/// A flag that nothing is delivered.
	pub(crate) paused: AtomicBool,
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

pub(crate) struct State {
	/// Everything up to here was delivered, passed over, or is acked.
	pub(crate) passed: u64,
	/// Everything up to here was read.
	pub(crate) read: u64,
	pub(crate) ahead: VecDeque<(Place, Option<DeadLetter>)>,
	pub(crate) lanes: Lanes,
	in_flight: usize,
	/// Failed attempts of entries that are to be tried again. One per lane that waits.
	pub(crate) attempts: HashMap<u64, RetryV1>,
	/// `true` if entries that hold their lane up may have been acked in bulk.
	recheck: bool,
	/// `true` if what was read when the handle was opened may be of before another handle.
	is_stale: bool,
	pub(crate) suspects: Suspects,
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
	pub(crate) fn forget_ahead(&mut self) {
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

	pub(crate) fn share_inner(&self) -> Arc<Inner> {
		Arc::clone(&self.inner)
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

	pub(crate) fn acked(&self, indices: &[u64]) {
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

	pub(crate) fn pending(&self, after: u64, limit: usize) -> Result<pending::Pending, LogError> {
		let shared = &self.log.shared;
		let Shared { store, keys, tail, .. } = &**shared;
		pending::pending(store, keys, Some(tail), &self.keys, &self.folding.bounds, after, limit)
	}

	/// Takes in what became of deliveries.
	pub(crate) fn take_note(&self, state: &mut State) {
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

/// The retries that are due: at most one per lane that waits.
fn attempts(
	store: &Arc<dyn Store>, keys: &ConsumerKeys,
) -> Result<HashMap<u64, RetryV1>, LogError> {
	let mut attempts = HashMap::new();
	let mut rest = Some(keys.retries());
	while let Some(range) = rest.take() {
		let page = store.scan(range, RETRIES_AT_A_TIME).wait()?;
		for (key, record) in &page.records {
			if let Some(index) = keys.index(key) {
				attempts.insert(index, records::read(key, record)?);
			}
		}
		rest = page.rest;
	}
	Ok(attempts)
}
