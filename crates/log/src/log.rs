// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The log: appending, reading, opening consumers.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use leyden_id::{EventId, EventKind, Lane};
use leyden_store::sequence::NumberRecord;
use leyden_store::witness::restorations;
use leyden_store::{
	sharing, Appended as StoreAppended, Batch, Clock, Committed, Expectation, Plan, Slot, Store,
	StoreClock, Times,
};

use crate::consumer::Consumer;
use crate::label::Label;
use crate::observer::{LogObserver, Observers};
use crate::records::{self, ConsumerV1, EntryV1, StreamKeys, StreamV1, ENTRIES};
use crate::removal::REMOVED;
use crate::signal::Signal;
use crate::tail::Tail;
use crate::tidy::Housekeeping;
use crate::types::{
	mark_of, Appended, ConsumerOptions, Cursor, Entry, LogEpoch, LogIndex, LogOptions, NewEvent,
	MAX_PAYLOAD_BYTES, MAX_STREAM_CHARS,
};
use crate::{lookup, pending, DamagedEntry, LogError};

/// The number of consumer records that are read in one go.
const CONSUMERS_AT_A_TIME: usize = 64;

/// The newest entry of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Occurrence {
	/// The place of the entry.
	pub index: LogIndex,
	/// The number of times that the source had brought the event before.
	pub repeat: u32,
}

/// A stream of entries that stay until every consumer has acked them. Cheap to clone.
///
/// See the [crate documentation](crate) for what is promised.
#[derive(Clone)]
pub struct EventLog {
	pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
	pub(crate) store: Arc<dyn Store>,
	pub(crate) clock: Arc<StoreClock>,
	pub(crate) keys: StreamKeys,
	pub(crate) options: LogOptions,
	pub(crate) epoch: LogEpoch,
	/// The highest index that is durable.
	pub(crate) head: AtomicU64,
	/// The highest index when the log was opened: later ones are of this process.
	pub(crate) opened_at: u64,
	pub(crate) signal: Signal,
	pub(crate) tail: Tail,
	pub(crate) housekeeping: Housekeeping,
	pub(crate) observers: Observers,
}

impl EventLog {
	/// Opens the stream `name`, created if there is none. If a handle of it over the same `store` is
	/// in use, this is another one of that, with its clock. All that is open in a store has the clock of
	/// what was opened first, as a [`StoreClock`].
	///
	/// # Errors
	/// [`LogError::BadName`] unless the name is 1 to [`MAX_STREAM_CHARS`] of a-z, 0-9, `_` and `-`,
	/// and does not begin with `-`; [`LogError::OtherOptions`] if the handle in use has others; the
	/// store's.
	///
	/// # Failure Behavior and Persistence
	/// A new stream is durable when this returns. A crash before that leaves none. If the database was
	/// restored from an older copy (see [`witness`](leyden_store::witness)), the stream has another
	/// epoch from now on, so that cursors of before are refused.
	pub fn open(
		store: Arc<dyn Store>, name: &str, clock: Arc<dyn Clock>, options: LogOptions,
	) -> Result<Self, LogError> {
		check_name(name, MAX_STREAM_CHARS)?;
		let keys = StreamKeys::new(name);
		let open = || Self::open_alone(Arc::clone(&store), keys.clone(), clock, options);
		let shared = sharing::shared(&store, &keys.stream(), open)?;
		if shared.options != options {
			return Err(LogError::OtherOptions { name: name.to_owned() });
		}
		Ok(Self { shared })
	}

	fn open_alone(
		store: Arc<dyn Store>, keys: StreamKeys, clock: Arc<dyn Clock>, options: LogOptions,
	) -> Result<Shared, LogError> {
		let clock = StoreClock::open(&store, clock)?;
		let epoch = match lookup::stream(&store, &keys)? {
			Some(stream) if stream.restorations == restorations(&*store)? => stream.epoch,
			Some(_) => renew(&store, &keys)?,
			None => create(&store, &keys)?,
		};
		let opened_at = lookup::head(&store, &keys)?;
		let head = AtomicU64::new(opened_at);
		let epoch = LogEpoch(epoch);
		let (signal, tail) = (Signal::default(), Tail::default());
		let (housekeeping, observers) = (Housekeeping::default(), Observers::default());
		Ok(Shared {
			store,
			clock,
			keys,
			options,
			epoch,
			head,
			opened_at,
			signal,
			tail,
			housekeeping,
			observers,
		})
	}

	/// Which log this is.
	pub fn epoch(&self) -> LogEpoch {
		self.shared.epoch
	}

	/// The store it is in; what is committed there can be one commit with an append or an ack.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.shared.store
	}

	/// Returns the newest entry; `None` in an empty stream.
	pub fn head(&self) -> Option<LogIndex> {
		LogIndex::new(self.shared.head.load(Ordering::SeqCst))
	}

	/// The stream's name.
	pub fn name(&self) -> &str {
		self.shared.keys.name()
	}

	/// What appends `event`, unless it is known.
	///
	/// A payload over [`MAX_PAYLOAD_BYTES`] is refused when the plan is committed.
	pub fn append_plan(&self, event: NewEvent) -> Plan<Appended> {
		self.append_repeat_plan(event, 0)
	}

	/// Plans to append `event` once more, as its repeat number `repeat`, unless that repeat is
	/// known. The plan is for an event that is a *request*: its source brings it again as long as
	/// the source's own durable state has no answer, although every consumer may have acked it.
	///
	/// The entry has the id of the first one, so that consumers know it, and its
	/// [`repeat`](Entry::repeat) tells the two apart. [`occurrence`](EventLog::occurrence) says
	/// which number comes next. Repeat 0 is the event itself.
	///
	/// A payload over [`MAX_PAYLOAD_BYTES`] is refused when the plan is committed.
	pub fn append_repeat_plan(&self, event: NewEvent, repeat: u32) -> Plan<Appended> {
		let mut batch = Batch::new();
		let (slot, entry) = self.push(&mut batch, event, repeat);
		self.wake_after(&mut batch, vec![entry]);
		let shared = Arc::clone(&self.shared);
		Plan::new(batch, move |committed| {
			shared.move_on();
			appended(committed, slot)
		})
	}

	/// Returns the newest entry of an event, which is or was in the log; `None` if its id is not
	/// known.
	///
	/// # Errors
	/// The store's, and [`Corrupt`](leyden_store::StoreError::Corrupt) for a damaged record.
	pub async fn occurrence(&self, id: &EventId) -> Result<Option<Occurrence>, LogError> {
		let mut newest = None;
		for repeat in 0..=u32::MAX {
			let key = self.shared.keys.id(&records::occurrence(id, repeat));
			let Some(record) = self.store().get(&key).await? else { break };
			let index = LogIndex(NumberRecord::read(&key, &record)?.0);
			newest = Some(Occurrence { index, repeat });
		}
		Ok(newest)
	}

	/// Tells `observer` of all consumers that there are, and from now on of what is appended to
	/// this log and of what its consumers do. The log does not keep the observer: it ends with its
	/// last other handle.
	///
	/// # Errors
	/// The store's, and [`Corrupt`](leyden_store::StoreError::Corrupt) for a damaged record.
	pub fn observe(&self, observer: &Arc<dyn LogObserver>) -> Result<(), LogError> {
		let Shared { keys, store, .. } = &*self.shared;
		self.shared.observers.add(observer);
		let mut rest = Some(keys.consumers());
		while let Some(range) = rest.take() {
			let page = store.scan(range, CONSUMERS_AT_A_TIME).wait()?;
			for (key, record) in &page.records {
				let consumer: ConsumerV1 = records::read(key, record)?;
				if consumer.watermark == REMOVED {
					continue;
				}
				if let Some(name) = keys.consumer_name(key) {
					observer.opened(&name, consumer.watermark);
					if consumer.paused {
						observer.paused(&name, true);
					}
				}
			}
			rest = page.rest;
		}
		Ok(())
	}

	/// Returns `true` if a consumer other than `except` has acked the entry at `index`; `false`
	/// without any other consumer.
	///
	/// # Errors
	/// The store's, and [`Corrupt`](leyden_store::StoreError::Corrupt) for a damaged record.
	pub async fn is_acked_by_any(&self, index: LogIndex, except: &str) -> Result<bool, LogError> {
		let Shared { keys, store, .. } = &*self.shared;
		let mut rest = Some(keys.consumers());
		while let Some(range) = rest.take() {
			let page = store.scan(range, CONSUMERS_AT_A_TIME).await?;
			for (key, record) in &page.records {
				let Some(name) = keys.consumer_name(key).filter(|name| name != except) else {
					continue;
				};
				let consumer: ConsumerV1 = records::read(key, record)?;
				if consumer.watermark == REMOVED {
					continue;
				}
				if consumer.watermark >= index.get() {
					return Ok(true);
				}
				if consumer.resetting {
					continue;
				}
				let keys = keys.consumer(&name);
				let mut acks = Some(keys.acks_before(index.get().saturating_add(1)));
				while let Some(range) = acks.take() {
					let page = store.scan(range, pending::FEW_ACKS).await?;
					if pending::covers(&keys, &page, index)? {
						return Ok(true);
					}
					acks = page.rest;
				}
				// They may have been folded into the watermark meanwhile.
				if let Some(record) = store.get(key).await? {
					let watermark = records::read::<ConsumerV1>(key, &record)?.watermark;
					if watermark != REMOVED && watermark >= index.get() {
						return Ok(true);
					}
				}
			}
			rest = page.rest;
		}
		Ok(false)
	}

	/// Appends `event`, unless it is known.
	///
	/// # Errors
	/// [`LogError::PayloadTooLarge`]; [`LogError::OtherEvent`] if the id is known with another kind,
	/// lane or payload; the store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns the entry is durable, and is delivered to every consumer until it acks. A
	/// crash before that leaves the entry or nothing; append it again to find out, by its id it is
	/// one.
	pub fn append(&self, event: NewEvent) -> Result<Appended, LogError> {
		check_payload(&event)?;
		let print = Print::of(&event.id, &event.kind, &event.lane, &event.payload);
		let appended = self.append_plan(event).commit(self.store()).wait()?;
		self.check_known(print, appended)?;
		Ok(appended)
	}

	/// Appends all of these in one commit, in this order, each unless it is known.
	///
	/// # Errors
	/// As [`append`](EventLog::append). After [`LogError::OtherEvent`] the others of the batch were
	/// appended.
	///
	/// # Failure Behavior and Persistence
	/// As [`append`](EventLog::append), for all of them or none.
	pub fn append_batch(&self, events: Vec<NewEvent>) -> Result<Vec<Appended>, LogError> {
		events.iter().try_for_each(check_payload)?;
		let print =
			|event: &NewEvent| Print::of(&event.id, &event.kind, &event.lane, &event.payload);
		let prints: Vec<Print> = events.iter().map(print).collect();
		let appended = self.append_batch_plan(events).commit(self.store()).wait()?;
		for (print, appended) in prints.into_iter().zip(&appended) {
			self.check_known(print, *appended)?;
		}
		Ok(appended)
	}

	/// Plans to append all of these, in this order, each unless its id is known, whatever else it has.
	/// The plan is for events whose source may bring one again in another form, as LDK
	/// does after an upgrade.
	///
	/// A payload over [`MAX_PAYLOAD_BYTES`] is refused when the plan is committed.
	pub fn append_batch_plan(&self, events: Vec<NewEvent>) -> Plan<Vec<Appended>> {
		let mut batch = Batch::new();
		let (slots, entries): (Vec<Slot>, _) =
			events.into_iter().map(|event| self.push(&mut batch, event, 0)).unzip();
		self.wake_after(&mut batch, entries);
		let shared = Arc::clone(&self.shared);
		Plan::new(batch, move |committed| {
			shared.move_on();
			slots.into_iter().map(|slot| appended(committed, slot)).collect()
		})
	}

	/// Makes sure that a known event is the one that is there, for as long as it is.
	fn check_known(&self, print: Print, appended: Appended) -> Result<(), LogError> {
		let Appended::AlreadyKnown(index) = appended else { return Ok(()) };
		// What is damaged cannot be compared.
		let Some(Ok(entry)) = lookup::place(&self.shared.store, &self.shared.keys, index)? else {
			return Ok(());
		};
		let EntryV1 { label: Label { id, lane, .. }, kind, payload, .. } = &entry.record;
		match Print::of(id, kind, lane, payload) == print {
			true => Ok(()),
			false => Err(LogError::OtherEvent { index }),
		}
	}

	/// Opens the consumer of this name, and creates it if there is none. If a handle of it is in
	/// use, or a delivery of it, this is another handle of the same: each entry is in one hand at a
	/// time.
	///
	/// A handle that cannot be seen from here (behind another layer around the store) is fenced
	/// off by the first search for a delivery: what it has in hand comes to the new handle, and what
	/// it settles from then on is refused with [`LogError::TakenOver`].
	///
	/// # Errors
	/// [`LogError::BadName`] unless the name is 1 to
	/// [`MAX_CONSUMER_CHARS`](crate::MAX_CONSUMER_CHARS) of a-z, 0-9, `_` and `-`, and does not
	/// begin with `-`; [`LogError::OtherOptions`] if the handle in use has others (where it starts
	/// does not count); the store's.
	///
	/// # Failure Behavior and Persistence
	/// A new consumer is durable when this returns: from then on no entry is trimmed that it has
	/// not acked.
	pub fn consumer(&self, name: &str, options: ConsumerOptions) -> Result<Consumer, LogError> {
		Consumer::open(self, name, options)
	}

	/// Returns why acks are not folded and history is not trimmed, if the latest try failed.
	///
	/// Acks and appends go on meanwhile, and further tries are made as more is acked. The store
	/// grows until one succeeds. [`Consumer::tidy`] makes a try at once.
	pub fn housekeeping_failure(&self) -> Option<LogError> {
		self.shared.housekeeping.failure()
	}

	/// The entry at `index`, un-acked or history.
	///
	/// # Errors
	/// The store's.
	pub fn entry(&self, index: LogIndex) -> Result<Option<Entry>, LogError> {
		lookup::entry(&self.shared.store, &self.shared.keys, index)
	}

	/// Where the event of this id is or was. The entry itself may have been trimmed.
	///
	/// # Errors
	/// The store's.
	pub fn find(&self, id: &EventId) -> Result<Option<LogIndex>, LogError> {
		lookup::find(&self.shared.store, &self.shared.keys, id)
	}

	/// A cursor before the oldest entry there is.
	///
	/// # Errors
	/// The store's.
	pub fn start(&self) -> Result<Cursor, LogError> {
		let stream = lookup::stream(&self.shared.store, &self.shared.keys)?;
		let after = stream.map_or(0, |stream| stream.trimmed);
		Ok(Cursor { epoch: self.epoch(), after, last: 0 })
	}

	/// Up to `limit` entries behind `cursor`, acked or not, and the cursor behind them. A damaged entry
	/// is an error in its place, and stops no reader.
	///
	/// # Errors
	/// [`LogError::WrongEpoch`] for a cursor of another log; [`LogError::TooOld`] if what comes next was
	/// trimmed; [`LogError::Ahead`] and [`LogError::AnotherHistory`] if the log is not the one that
	/// the cursor has read, as after its database was restored from an older copy; the store's.
	pub fn read(
		&self, cursor: Cursor, limit: usize,
	) -> Result<(Vec<Result<Entry, DamagedEntry>>, Cursor), LogError> {
		if cursor.epoch != self.epoch() {
			return Err(LogError::WrongEpoch { cursor: cursor.epoch, log: self.epoch() });
		}
		let first = cursor.after.saturating_add(1);
		let entries = lookup::places(&self.shared.store, &self.shared.keys, first, limit)?;
		// Looked at after the entries were read: what was trimmed meanwhile must not go unnoticed.
		let trimmed =
			lookup::stream(&self.shared.store, &self.shared.keys)?.map_or(0, |s| s.trimmed);
		if let (true, Some(oldest)) = (cursor.after < trimmed, LogIndex::new(trimmed + 1)) {
			return Err(LogError::TooOld { cursor, oldest });
		}
		self.check_history(cursor, trimmed)?;
		let next = match entries.last() {
			Some(place) => {
				let last = lookup::label_of(place).map_or(0, |label| mark_of(&label.occurrence()));
				Cursor { after: lookup::index_of(place).get(), last, ..cursor }
			},
			None => cursor,
		};
		Ok((entries, next))
	}

	/// Makes sure that the log has the entry that the cursor has read last.
	fn check_history(&self, cursor: Cursor, trimmed: u64) -> Result<(), LogError> {
		let Shared { store, keys, .. } = &*self.shared;
		let Some(index) = LogIndex::new(cursor.after) else { return Ok(()) };
		let mark = match lookup::place(store, keys, index)? {
			// One that is damaged so far that its id is not known may be the one.
			Some(place) => {
				lookup::label_of(&place).map_or(cursor.last, |label| mark_of(&label.occurrence()))
			},
			None => match lookup::tomb(store, keys, index)? {
				Some(id) => mark_of(&id),
				None if cursor.after <= trimmed => return Ok(()),
				None => {
					// Its tombstone may have been trimmed meanwhile, too.
					let now = lookup::stream(store, keys)?.map_or(0, |stream| stream.trimmed);
					if let (true, Some(oldest)) = (now > trimmed, LogIndex::new(now + 1)) {
						return Err(LogError::TooOld { cursor, oldest });
					}
					let head = LogIndex::new(lookup::head(store, keys)?.max(trimmed));
					return Err(LogError::Ahead { cursor, head });
				},
			},
		};
		if cursor.last != 0 && cursor.last != mark {
			return Err(LogError::AnotherHistory { cursor });
		}
		Ok(())
	}

	fn push(&self, batch: &mut Batch, event: NewEvent, repeat: u32) -> (Slot, EntryV1) {
		let Shared { keys, clock, .. } = &*self.shared;
		let NewEvent { id, kind, lane, payload } = event;
		let Times { wall: appended_at, lived_ms, .. } = clock.look();
		let label = Label::new(id, repeat, lane, lived_ms);
		let entry = EntryV1::new(label, kind, appended_at, payload);
		let once = keys.id(&label.occurrence());
		(batch.append_once(ENTRIES, keys.prefix(), records::value(&entry), once), entry)
	}

	/// Consumers hear of the entries once they are durable, whoever committed them.
	fn wake_after(&self, batch: &mut Batch, entries: Vec<EntryV1>) {
		let shared = Arc::clone(&self.shared);
		batch.after_commit(move |committed| {
			let mut highest = 0;
			for (appended, record) in committed.appends().iter().zip(entries) {
				if let StoreAppended::New(number) = appended {
					shared.observers.appended(LogIndex(*number), &record.kind);
					shared.tail.push(Entry { index: LogIndex(*number), record });
					highest = number.get();
				}
			}
			if highest > 0 {
				shared.head.fetch_max(highest, Ordering::SeqCst);
				shared.signal.raise();
			}
		});
	}
}

/// A fingerprint that tells an event from another one with its id, without a copy of its payload.
#[derive(Eq, PartialEq)]
struct Print(u64);

impl Print {
	fn of(id: &EventId, kind: &EventKind, lane: &Lane, payload: &[u8]) -> Self {
		let mut hasher = DefaultHasher::new();
		(id.as_bytes(), kind, lane, payload).hash(&mut hasher);
		Self(hasher.finish())
	}
}

impl fmt::Debug for EventLog {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "EventLog {} ({})", self.name(), self.epoch())
	}
}

pub(crate) fn check_name(name: &str, max: usize) -> Result<(), LogError> {
	let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
	let length = 1..=max;
	// A name that begins with a hyphen would be taken for an option in a command line.
	if !length.contains(&name.len()) || !name.chars().all(good) || name.starts_with('-') {
		return Err(LogError::BadName { name: name.to_owned(), max });
	}
	Ok(())
}

fn check_payload(event: &NewEvent) -> Result<(), LogError> {
	let bytes = event.payload.len();
	if bytes > MAX_PAYLOAD_BYTES {
		return Err(LogError::PayloadTooLarge { bytes });
	}
	Ok(())
}

/// Creates the stream; another handle may be faster.
fn create(store: &Arc<dyn Store>, keys: &StreamKeys) -> Result<u64, LogError> {
	// Seeded by the operating system, and different for every call.
	let epoch = RandomState::new().build_hasher().finish();
	let mut batch = Batch::new();
	batch.expect(keys.stream(), Expectation::Absent);
	let restorations = restorations(&**store)?;
	batch.put(keys.stream(), records::value(&StreamV1 { epoch, trimmed: 0, restorations }));
	match store.commit(batch).wait() {
		Ok(_) => Ok(epoch),
		Err(leyden_store::StoreError::Conflict { .. }) => {
			Ok(lookup::stream(store, keys)?.map_or(epoch, |stream| stream.epoch))
		},
		Err(error) => Err(error.into()),
	}
}

/// Draws another epoch for a stream whose database was restored from an older copy: what its indices
/// were given to since then is not in it, so that no cursor of before may go on.
fn renew(store: &Arc<dyn Store>, keys: &StreamKeys) -> Result<u64, LogError> {
	let key = keys.stream();
	let Some(found) = store.get(&key).wait()? else { return create(store, keys) };
	let epoch = RandomState::new().build_hasher().finish();
	let stream: StreamV1 = records::read(&key, &found)?;
	let restorations = restorations(&**store)?;
	let mut batch = Batch::new();
	batch.expect(key.clone(), Expectation::Version(found.version));
	batch.put(key, records::value(&StreamV1 { epoch, restorations, ..stream }));
	store.commit(batch).wait()?;
	Ok(epoch)
}

fn appended(committed: &Committed, slot: Slot) -> Appended {
	match committed.appended(slot) {
		Some(StoreAppended::Known(number)) => Appended::AlreadyKnown(LogIndex(number)),
		Some(StoreAppended::New(number)) => Appended::New(LogIndex(number)),
		// A slot of this very batch has an answer. If a store broke that, the version is at least a
		// number that was given once.
		None => Appended::AlreadyKnown(LogIndex(std::num::NonZeroU64::MIN)),
	}
}
