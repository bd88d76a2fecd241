// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Compaction of a log: acks are folded together, and history that is past its retention is
//! trimmed.
//!
//! # The work
//! An ack is written without reading anything, so acks pile up. Folding makes one record of
//! neighbours and moves the consumer's watermark, up to which everything is acked and no ack is
//! kept. An entry that all consumers have acked and that is past its retention is removed, and much
//! later its id. All of that is committed lazily: if a crash loses it, it is done again.
//!
//! # The trigger
//! A pass is triggered by the *commit* of acks, in any plan and by any caller: a hook of the batch
//! counts them ([`Housekeeping::acked`]), and [`ACKS_BETWEEN_COMPACTIONS`] acks of a consumer make
//! a pass due. A consumer that has more than a few acks when it is opened makes one due at once, so
//! that processes that end before they have counted that many do not leave their acks for ever.
//!
//! # The thread
//! A hook runs on the committing thread, where a call of the store would be a deadlock. These
//! crates start no threads. A task that awaits its ack, and a thread of LDK's, must not wait for
//! work that they did not ask for. Therefore a pass is a chain of steps that never wait: a step
//! submits its reads, decides on what they answer, and submits one lazy batch. Ordinary calls move
//! the chain on as far as the store has answered ([`Shared::move_on`]): an append, the plan of an
//! ack, the answer of that plan, and the search for a delivery. A pass ends when a step finds
//! nothing to trim. The more was acked meanwhile, the more one step trims, within [`MOST_OPS`], so
//! that passes keep up with acks of thousands at a time. Only
//! [`Consumer::tidy`](crate::Consumer::tidy) waits.
//!
//! # Failures
//! A failed step changes no answer of an ack or an append: those were durable before. The error is
//! kept for [`EventLog::housekeeping_failure`](crate::EventLog::housekeeping_failure), and the next
//! pass becomes due as any other.

use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use leyden_store::{
	block_on, read_around_damage, Batch, Committed, Durability, Expectation, Key, KeyRange, Page,
	Record, Store, StoreError, Table, Ticket,
};
use parking_lot::Mutex;

use crate::consumer::Inner;
use crate::fold::Fold;
use crate::log::Shared;
use crate::lookup::{self, Place};
use crate::pending::{interval, Bounds};
use crate::records::{
	self, AckV1, ConsumerKeys, ConsumerV1, StreamKeys, StreamV1, TombV1, ENTRIES, TOMBS,
};
use crate::removal::REMOVED;
use crate::types::{LogOptions, Retention};
use crate::LogError;

/// Acks after which they are folded together.
pub const ACKS_BETWEEN_COMPACTIONS: u64 = 256;
/// The most records of acks that one step folds.
const MOST_ACKS: usize = 2048;
/// The most retries and dead letters that one step looks at.
const MOST_LEFTOVERS: usize = 256;
/// The most entries, and ids, that one step trims if no more was acked.
const FEWEST_TRIMMED: u64 = 512;
/// The most entries, and ids, that one step trims however much was acked.
const MOST_TRIMMED: u64 = 2048;
/// The most operations in the batch of one step, so that other commits do not wait long behind it.
const MOST_OPS: usize = 8192;
/// The number of operations for expectations, and for records that are written once in a step: the
/// consumer and the stream.
const FIXED_OPS: usize = 4;
/// The most steps that one call may end. With a store that answers at once, one call would
/// otherwise run a whole pass.
const STEPS_PER_CALL: u32 = 2;
/// The number of consumers read in one go.
const CONSUMER_PAGE: usize = 256;

/// The acks of a consumer, as housekeeping sees them.
pub(crate) struct Folding {
	pub(crate) keys: ConsumerKeys,
	pub(crate) bounds: Bounds,
	/// The number of acks that no pass has folded.
	acks: AtomicU64,
}

/// The state of a stream's housekeeping.
#[derive(Default)]
pub(crate) struct Housekeeping {
	/// A flag that a pass is due or under way.
	due: AtomicBool,
	/// The number of acks that no step has trimmed for. Hooks touch atomics only.
	acked: AtomicU64,
	consumers: Mutex<Vec<Weak<Folding>>>,
	work: Mutex<Work>,
	failure: Mutex<Option<LogError>>,
}

#[derive(Default)]
pub(crate) struct Work {
	/// The consumers whose acks this pass has not folded to the end. `acks_from` is where the first
	/// one is at.
	to_fold: VecDeque<Arc<Folding>>,
	acks_from: Option<KeyRange>,
	/// A flag that another step of this pass may find something to trim.
	trims: bool,
	/// The number of acks that were not trimmed for, as far as is known.
	debt: u64,
	/// The time that the store must have lived until the oldest entry and the oldest tombstone are
	/// past their age, in milliseconds. Until then none is read.
	old_enough: [u64; 2],
	/// A flag that the last guess at what may be trimmed was wrong, because another consumer is
	/// behind. Then entries are read only when it is known.
	guessed_wrong: bool,
	stage: Stage,
}

#[derive(Default)]
enum Stage {
	#[default]
	Idle,
	Reading(Pin<Box<dyn Future<Output = Result<Found, LogError>> + Send>>),
	Writing(Ticket<Committed>, Step),
}

/// The question of a step to the store.
struct Question {
	folding: Option<Arc<Folding>>,
	acks: Option<KeyRange>,
	head: u64,
	options: LogOptions,
	/// The last entry that may go, if this consumer's acks fold as far as they reach.
	guess: Option<u64>,
	/// The most entries, and ids, to be trimmed.
	most: usize,
	old_enough: [bool; 2],
	max_ops: usize,
}

/// The answers to a step's question.
#[derive(Default)]
struct Found {
	/// The consumer that was to be folded. Its acks are in `fold`, unless it is gone.
	folding: Option<Arc<Folding>>,
	fold: Option<FoundAcks>,
	stream: Option<Record>,
	/// Entries that every consumer has acked and that enough newer ones follow.
	entries: Vec<Place>,
	/// Tombstones that enough newer entries follow.
	tombs: Vec<(Key, Record)>,
	/// A flag that entries were read which a consumer has not acked.
	wrong_guess: bool,
}

struct FoundAcks {
	consumer: Record,
	before: u64,
	fold: Fold,
	/// Retries and dead letters of what is acked.
	leftovers: Vec<Key>,
	rest: Option<KeyRange>,
}

/// The changes of state that follow once the batch of a step is durable.
#[derive(Default)]
struct Step {
	folding: Option<Arc<Folding>>,
	watermark: u64,
	/// The acks with which folding goes on, if it does.
	acks_from: Option<KeyRange>,
	/// A flag that the step trimmed something, so that there may be more.
	did: bool,
	trimmed: u64,
	wrong_guess: bool,
	old_enough: [Option<u64>; 2],
}

impl Folding {
	pub(crate) fn new(keys: ConsumerKeys, bounds: Bounds) -> Arc<Self> {
		Arc::new(Self { keys, bounds, acks: AtomicU64::new(0) })
	}
}

impl Housekeeping {
	/// Takes in a consumer that was opened. A long tail of acks makes a pass due at once.
	pub(crate) fn take_in(&self, folding: &Arc<Folding>, long_tail: bool) {
		{
			let mut consumers = self.consumers.lock();
			consumers.retain(|known| known.strong_count() > 0);
			consumers.push(Arc::downgrade(folding));
		}
		if long_tail {
			self.acked(folding, ACKS_BETWEEN_COMPACTIONS);
		}
	}

	/// Counts acks that are durable. Hooks call this on the committing thread, so it only counts.
	pub(crate) fn acked(&self, folding: &Folding, count: u64) {
		self.acked.fetch_add(count, Ordering::SeqCst);
		let before = folding.acks.fetch_add(count, Ordering::SeqCst);
		if before.saturating_add(count) >= ACKS_BETWEEN_COMPACTIONS {
			self.due.store(true, Ordering::SeqCst);
		}
	}

	pub(crate) fn failure(&self) -> Option<LogError> {
		self.failure.lock().clone()
	}

	/// Returns the consumers with acks that no pass has folded, if one of them has enough.
	fn due(&self) -> Vec<Arc<Folding>> {
		let consumers: Vec<_> = self.consumers.lock().iter().filter_map(Weak::upgrade).collect();
		let acks = |folding: &Arc<Folding>| folding.acks.load(Ordering::SeqCst);
		if consumers.iter().all(|folding| acks(folding) < ACKS_BETWEEN_COMPACTIONS) {
			return Vec::new();
		}
		consumers.into_iter().filter(|folding| acks(folding) > 0).collect()
	}
}

impl Work {
	fn begin_pass(&mut self, consumers: impl IntoIterator<Item = Arc<Folding>>) {
		for folding in consumers {
			folding.acks.store(0, Ordering::SeqCst);
			if !self.to_fold.iter().any(|waiting| Arc::ptr_eq(waiting, &folding)) {
				self.to_fold.push_back(folding);
			}
			self.trims = true;
		}
	}

	/// Gives the pass up. Consumers that it has not folded are part of the next one.
	fn give_up(&mut self) {
		for folding in self.to_fold.drain(..) {
			folding.acks.fetch_max(1, Ordering::SeqCst);
		}
		self.acks_from = None;
		self.trims = false;
	}
}

impl Inner {
	/// Runs passes until there is nothing to do, and waits for them.
	pub(crate) fn tidy_now(&self) -> Result<(), LogError> {
		let shared = &self.log.shared;
		let mut work = shared.housekeeping.work.lock();
		// A step that is under way may have read before what was acked last.
		if !matches!(work.stage, Stage::Idle) {
			shared.wait_for_step(&mut work)?;
		}
		work.acks_from = None;
		work.begin_pass([Arc::clone(&self.folding)]);
		while shared.wait_for_step(&mut work)? {}
		Ok(())
	}
}

impl Shared {
	/// Moves housekeeping on as far as the store has answered, unless another call does. This never
	/// waits and never changes what its caller answers. It must not be called by a hook.
	pub(crate) fn move_on(&self) {
		if !self.housekeeping.due.load(Ordering::SeqCst) {
			return;
		}
		let Some(mut work) = self.housekeeping.work.try_lock() else { return };
		let mut context = Context::from_waker(Waker::noop());
		for _ in 0..STEPS_PER_CALL {
			if !matches!(self.poll_step(&mut work, &mut context), Poll::Ready(Ok(true))) {
				return;
			}
		}
	}

	/// Trims what all consumers have acked, and waits for it: one of them may be gone.
	pub(crate) fn trim(&self) -> Result<(), LogError> {
		let mut work = self.housekeeping.work.lock();
		if !matches!(work.stage, Stage::Idle) {
			self.wait_for_step(&mut work)?;
		}
		work.acks_from = None;
		// A guess goes by consumers that may be gone.
		work.guessed_wrong = true;
		work.trims = true;
		while self.wait_for_step(&mut work)? {}
		Ok(())
	}

	/// Polls as [`poll_step`](Shared::poll_step) does, and blocks this thread until the store has
	/// answered.
	fn wait_for_step(&self, work: &mut Work) -> Result<bool, LogError> {
		let step = poll_fn(|context| self.poll_step(work, context));
		block_on(&*self.store, step)
	}

	/// Returns `true` if a step has ended, `false` if there is nothing to do.
	fn poll_step(
		&self, work: &mut Work, context: &mut Context<'_>,
	) -> Poll<Result<bool, LogError>> {
		let polled = self.poll_stages(work, context);
		match &polled {
			Poll::Ready(Ok(true)) => *self.housekeeping.failure.lock() = None,
			Poll::Ready(Ok(false)) => {},
			Poll::Ready(Err(error)) => {
				work.give_up();
				*self.housekeeping.failure.lock() = Some(error.clone());
			},
			Poll::Pending => {},
		}
		polled
	}

	fn poll_stages(
		&self, work: &mut Work, context: &mut Context<'_>,
	) -> Poll<Result<bool, LogError>> {
		loop {
			match std::mem::take(&mut work.stage) {
				Stage::Idle => match self.next_question(work) {
					Some(question) => {
						let found = look(Arc::clone(&self.store), self.keys.clone(), question);
						work.stage = Stage::Reading(Box::pin(found));
					},
					None => return Poll::Ready(Ok(false)),
				},
				Stage::Reading(mut reading) => {
					let Poll::Ready(found) = reading.as_mut().poll(context) else {
						work.stage = Stage::Reading(reading);
						return Poll::Pending;
					};
					let (batch, step) = self.decide(found?)?;
					if batch.is_empty() {
						self.took_effect(work, step);
						return Poll::Ready(Ok(true));
					}
					work.stage = Stage::Writing(self.store.commit(batch), step);
				},
				Stage::Writing(mut written, step) => {
					let Poll::Ready(answer) = Pin::new(&mut written).poll(context) else {
						work.stage = Stage::Writing(written, step);
						return Poll::Pending;
					};
					match answer {
						Ok(_) => self.took_effect(work, step),
						// Another handle was faster, or a consumer was created meanwhile: what this
						// step has read is no longer so. Look again.
						Err(StoreError::Conflict { .. }) => work.acks_from = None,
						Err(error) => return Poll::Ready(Err(error.into())),
					}
					return Poll::Ready(Ok(true));
				},
			}
		}
	}

	/// Returns the question of the next step; `None` if no pass is due.
	fn next_question(&self, work: &mut Work) -> Option<Question> {
		let housekeeping = &self.housekeeping;
		if work.to_fold.is_empty() {
			if !work.trims {
				// Before looking: what is acked from now on makes it true again.
				housekeeping.due.store(false, Ordering::SeqCst);
			}
			// In the middle of a pass as well: what was acked meanwhile is then trimmed by the steps
			// that are left.
			work.begin_pass(housekeeping.due());
			if work.to_fold.is_empty() && !work.trims {
				work.debt = 0;
				return None;
			}
		}
		housekeeping.due.store(true, Ordering::SeqCst);
		work.debt = work.debt.saturating_add(housekeeping.acked.swap(0, Ordering::SeqCst));
		let folding = work.to_fold.front().cloned();
		let now = self.clock.look().lived_ms;
		let max_ops = self.store.guarantees().max_writes.min(MOST_OPS).saturating_sub(FIXED_OPS);
		let head = self.head.load(Ordering::SeqCst);
		let old_enough = work.old_enough.map(|at| at <= now);
		let guess = match old_enough[0] && !work.guessed_wrong {
			true => self.guess(folding.as_ref(), head),
			false => None,
		};
		Some(Question {
			folding,
			acks: work.acks_from.take(),
			head,
			options: self.options,
			guess,
			most: work.debt.clamp(FEWEST_TRIMMED, MOST_TRIMMED) as usize,
			old_enough,
			max_ops,
		})
	}

	/// Returns the last entry that may be trimmed, as far as this handle knows.
	fn guess(&self, folding: Option<&Arc<Folding>>, head: u64) -> Option<u64> {
		let mut last = head.checked_sub(self.options.history.min_count)?;
		for known in self.housekeeping.consumers.lock().iter().filter_map(Weak::upgrade) {
			let acked = match folding.is_some_and(|folding| Arc::ptr_eq(folding, &known)) {
				true => &known.bounds.last_acked,
				false => &known.bounds.watermark,
			};
			last = last.min(acked.load(Ordering::SeqCst));
		}
		Some(last).filter(|last| *last > 0)
	}

	/// Makes the batch of a step from what it has found.
	fn decide(&self, found: Found) -> Result<(Batch, Step), LogError> {
		let Found { folding, fold, stream, entries, tombs, wrong_guess } = found;
		let mut batch = Batch::new();
		let mut step = Step { wrong_guess, ..Step::default() };
		batch.durability(Durability::Lazy);
		if let (Some(folding), Some(found)) = (&folding, fold) {
			let FoundAcks { consumer, before, fold, leftovers, rest } = found;
			for (first, last) in &fold.folded {
				batch.delete(folding.keys.ack(*first, *last));
			}
			for (first, last) in &fold.merged {
				batch.put(folding.keys.ack(*first, *last), records::value(&AckV1));
			}
			for leftover in leftovers {
				batch.delete(leftover);
			}
			let key = folding.keys.consumer.clone();
			if !batch.is_empty() || fold.watermark > before {
				batch.expect(key.clone(), Expectation::Version(consumer.version));
			}
			if fold.watermark > before {
				let read: ConsumerV1 = records::read(&key, &consumer)?;
				let watermark = fold.watermark;
				batch.put(key, records::value(&ConsumerV1 { watermark, ..read }));
			}
			step.watermark = fold.watermark;
			step.acks_from = rest;
		}
		step.folding = folding;
		let Some(stream) = stream else { return Ok((batch, step)) };
		let (key, version) = (self.keys.stream(), stream.version);
		let stream: StreamV1 = records::read(&key, &stream)?;
		let now = self.clock.look();
		let too_young = |lived_ms: u64, retention: &Retention| {
			let min_age_ms = u64::try_from(retention.min_age.as_millis()).unwrap_or(u64::MAX);
			let is_young = now.lived_since(lived_ms) < retention.min_age;
			is_young.then_some(lived_ms.saturating_add(min_age_ms))
		};
		let mut trimmed = stream.trimmed;
		let mut trims = false;
		for (tomb_key, record) in &tombs {
			let tomb: TombV1 = records::read(tomb_key, record)?;
			if let Some(at) = too_young(tomb.lived_ms, &self.options.tombstones) {
				step.old_enough[1] = Some(at);
				break;
			}
			// Without its id, the tombstone says for as long as there is a store why an id has no entry.
			let Some(id) = tomb.id else { continue };
			batch.delete(tomb_key.clone());
			batch.delete(self.keys.id(&id));
			trims = true;
		}
		for place in &entries {
			let (index, label) = (lookup::index_of(place).get(), lookup::label_of(place));
			// The age of an entry without a label is not known; nobody can read it.
			let young = label.and_then(|label| too_young(label.lived_ms, &self.options.history));
			if let Some(at) = young {
				step.old_enough[0] = Some(at);
				break;
			}
			let tomb = TombV1 {
				id: label.map(|label| label.occurrence()),
				lived_ms: label.map_or(now.lived_ms, |label| label.lived_ms),
			};
			batch.delete(self.keys.entry(index));
			batch.put(self.keys.tomb(index), records::value(&tomb));
			trimmed = index;
			step.trimmed += 1;
			trims = true;
		}
		if trims {
			// A step that trims writes the stream, and expects that no other step has meanwhile: what
			// one handle has read must not undo what another has done, and a consumer that was created
			// meanwhile must find every entry that it has not acked.
			batch.expect(key.clone(), Expectation::Version(version));
			batch.put(key, records::value(&StreamV1 { trimmed, ..stream }));
			step.did = true;
		}
		Ok((batch, step))
	}

	fn took_effect(&self, work: &mut Work, step: Step) {
		if let Some(folding) = &step.folding {
			if step.watermark != REMOVED {
				folding.bounds.watermark.fetch_max(step.watermark, Ordering::SeqCst);
			}
			if step.acks_from.is_none() {
				work.to_fold.pop_front();
			}
		}
		work.acks_from = step.acks_from;
		work.trims = step.did;
		work.guessed_wrong = step.wrong_guess || (work.guessed_wrong && step.trimmed == 0);
		work.debt = work.debt.saturating_sub(step.trimmed);
		for (old_enough, at) in work.old_enough.iter_mut().zip(step.old_enough) {
			*old_enough = at.unwrap_or(*old_enough);
		}
	}
}

/// Reads what a step needs, in one go if the guess was right: a step is two turns of the store
/// then, one to read and one to write.
async fn look(
	store: Arc<dyn Store>, keys: StreamKeys, question: Question,
) -> Result<Found, LogError> {
	let Question { folding, acks, head, options, guess, most, old_enough, max_ops } = question;
	let up_to = |table: Table, last: u64| {
		let end = Key::numbered(table, keys.prefix(), last.saturating_add(1));
		KeyRange::prefix(table, keys.prefix()).below(end.bytes())
	};
	let stream_key = keys.stream();
	let stream = store.get(&stream_key);
	let consumers = store.scan(keys.consumers(), CONSUMER_PAGE);
	// A quarter of what fits: an ack may be one record removed and one written, and there are others.
	let most_acks = (max_ops / 4).clamp(1, MOST_ACKS);
	let fold = folding.as_ref().map(|folding| AckReads::ask(&store, folding, acks, most_acks));
	let last_id = head.checked_sub(options.tombstones.min_count).filter(|_| old_enough[1]);
	let ask = |range: KeyRange| (range.clone(), store.scan(range, most));
	let tombs = last_id.map(|last| ask(up_to(TOMBS, last)));
	let guessed = guess.map(|last| ask(up_to(ENTRIES, last)));

	// The stream before everything else: a read may be made as late as when its ticket is polled. The
	// step expects this version, which a consumer that is created or reset from here on replaces; what
	// it has not acked is then not trimmed by what was read of it before.
	let stream = stream.await?;
	let fold = match fold {
		Some(reads) => reads.fold().await?,
		None => None,
	};
	let folded = folding.as_ref().zip(fold.as_ref());
	let folded = folded.map(|(folding, found)| (&folding.keys.consumer, found.fold.watermark));
	let mut acked_by_all = u64::MAX;
	let mut page: Option<Page> = Some(consumers.await?);
	while let Some(Page { records, rest }) = page.take() {
		for (key, record) in &records {
			let mut watermark = records::read::<ConsumerV1>(key, record)?.watermark;
			if let Some((_, new)) = folded.filter(|(consumer, _)| *consumer == key) {
				watermark = watermark.max(new);
			}
			acked_by_all = acked_by_all.min(watermark);
		}
		if let Some(rest) = rest {
			page = Some(store.scan(rest, CONSUMER_PAGE).await?);
		}
	}
	let Some(stream) = stream else {
		return Ok(Found { folding, fold, ..Found::default() });
	};
	let trimmed = records::read::<StreamV1>(&stream_key, &stream)?.trimmed;
	// Half of what is left for each, two operations for each of them.
	let ops = fold.as_ref().map_or(0, FoundAcks::ops);
	let share = most.min(max_ops.saturating_sub(ops) / 4);
	let mut tombs = match tombs {
		Some((mut range, tombs)) => {
			let mut scanned = tombs.await;
			loop {
				let page = read_around_damage(&store, range, most, scanned).await?;
				// A damaged tombstone keeps its id, and is left for a check to find. One without an id
				// stays for ever. Neither is in the way of those behind it.
				let of_use = |(key, tomb): (Key, Result<Record, StoreError>)| {
					let tomb = tomb.ok()?;
					let read = records::read::<TombV1>(&key, &tomb);
					(!matches!(read, Ok(TombV1 { id: None, .. }))).then_some((key, tomb))
				};
				let found: Vec<_> = page.records.into_iter().filter_map(of_use).collect();
				match page.rest {
					Some(rest) if found.is_empty() => {
						range = rest.clone();
						scanned = store.scan(rest, most).await;
					},
					_ => break found,
				}
			}
		},
		None => Vec::new(),
	};
	let last_entry = head.max(trimmed).checked_sub(options.history.min_count);
	let last_entry = last_entry.map_or(0, |last| last.min(acked_by_all));
	let due = last_entry > trimmed && old_enough[0];
	let scanned = match guessed {
		Some((range, scanned)) => Some((range, scanned.await)),
		None if due => {
			let range = up_to(ENTRIES, last_entry);
			Some((range.clone(), store.scan(range, most).await))
		},
		None => None,
	};
	let mut entries = match scanned {
		Some((range, scanned)) => lookup::read_places(&store, &keys, range, most, scanned).await?,
		None => Vec::new(),
	};
	let wrong_guess = !due && !entries.is_empty();
	let may_go = |place: &Place| due && lookup::index_of(place).get() <= last_entry;
	entries.truncate(entries.partition_point(may_go));
	entries.truncate(share);
	tombs.truncate(share);
	Ok(Found { folding, fold, stream: Some(stream), entries, tombs, wrong_guess })
}

/// The reads of folding.
struct AckReads {
	keys: ConsumerKeys,
	consumer: Ticket<Option<Record>>,
	acks: Ticket<Page>,
	retries: Ticket<Page>,
	dead: Ticket<Page>,
}

impl AckReads {
	/// Asks for acks from where the last step ended; the first step of a pass begins at the
	/// beginning, which is where the watermark moves.
	fn ask(store: &Arc<dyn Store>, folding: &Folding, from: Option<KeyRange>, most: usize) -> Self {
		let keys = folding.keys.clone();
		let few = (most / 4).clamp(1, MOST_LEFTOVERS);
		// Acked in bulk, they were not removed by their ack.
		let below = folding.bounds.watermark.load(Ordering::SeqCst).saturating_add(1);
		Self {
			consumer: store.get(&keys.consumer),
			acks: store.scan(from.unwrap_or_else(|| keys.acks()), most),
			retries: store.scan(keys.retries().below(keys.retry(below).bytes()), few),
			dead: store.scan(keys.dead_from(0).below(keys.dead(below).bytes()), few),
			keys,
		}
	}

	async fn fold(self) -> Result<Option<FoundAcks>, LogError> {
		let Self { keys, consumer, acks, retries, dead } = self;
		let Some(consumer) = consumer.await? else { return Ok(None) };
		// Read again: another handle of this name may have folded more than this one knows.
		let ConsumerV1 { watermark: before, resetting, .. } =
			records::read(&keys.consumer, &consumer)?;
		// The acks of a consumer that is being reset count no more.
		if before == REMOVED || resetting {
			return Ok(None);
		}
		let mut fold = Fold::new(before);
		let Page { records, rest } = acks.await?;
		for (key, _) in &records {
			let (first, last) = interval(&keys, key)?;
			fold.add(first, last);
		}
		fold.end_run();
		let (retries, dead) = (retries.await?, dead.await?);
		let more = retries.rest.is_some() || dead.rest.is_some();
		let rest = rest.or_else(|| more.then(|| keys.acks()));
		// As far as this consumer has acked: the one that asked may have been of an older one.
		let acked = |key: &Key| keys.index(key).is_some_and(|index| index <= before);
		let leftovers = retries.records.into_iter().chain(dead.records).map(|(key, _)| key);
		let leftovers = leftovers.filter(acked);
		Ok(Some(FoundAcks { consumer, before, fold, leftovers: leftovers.collect(), rest }))
	}
}

impl FoundAcks {
	fn ops(&self) -> usize {
		self.fold.folded.len() + self.fold.merged.len() + self.leftovers.len()
	}
}
