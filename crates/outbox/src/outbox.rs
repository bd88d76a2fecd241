// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The handle: opening, endpoints, enqueueing.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leyden_store::sequence::NumberRecord;
use leyden_store::witness::restorations;
use leyden_store::{
	sharing, Appended, Batch, Clock, Expectation, Key, KeyRange, Plan, Store, StoreClock, Timestamp,
};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::callback::{Callback, CallbackId, NewCallback, Sequence, MAX_ENDPOINT_CHARS};
use crate::endpoint::{Breaker, EndpointInfo, EndpointOptions, Probes};
use crate::error::OutboxError;
use crate::events::{OutboxEvent, OutboxObserver};
use crate::records::{self, DoubtV1, End, EndV1, ItemV1, Lane, MetaV1, OpenV1, PausedV1, TombV1};
use crate::response::Taken;
use crate::schedule::Schedule;

/// Most endpoints of one outbox.
const MAX_ENDPOINTS: usize = 256;

/// A hook for a callback that is over without having been taken for certain: it gives the plan that is
/// one commit with that. It is told whether the callback may have been taken all the same: what hangs on
/// it must not be given back then before the own ledger was asked. The plan may enqueue another callback,
/// in the same outbox; the hook must not call anything else of it.
pub type OnOver = Arc<dyn Fn(&Callback, Taken) -> Plan<()> + Send + Sync>;

/// A hook for a callback that was taken: it gives the plan that is one commit with that.
pub type OnDone = Arc<dyn Fn(&Callback) -> Plan<()> + Send + Sync>;

/// How an outbox is used.
#[derive(Clone)]
pub struct OutboxOptions {
	/// Pauses between tries.
	pub schedule: Schedule,
	/// How long a worker may take. A minute unless set otherwise; more than the timeout of a request.
	pub lease: Duration,
	/// The time for which a callback is tried that is not found (404), or is redirected, from the first
	/// such answer on. An hour unless set otherwise.
	pub not_found_ttl: Duration,
	/// The time for which a callback that is over is kept, for who pulls. A week unless set otherwise.
	pub retention: Duration,
	/// Whether what a callback says is forgotten as soon as it was taken: for preimages. The callback
	/// itself stays, [without its payload](Callback::is_forgotten); who pulls it must ask the ledger. Nothing
	/// is, unless set otherwise. A database may keep deleted bytes until it needs their place.
	pub erase_payload: fn(&Callback) -> bool,
	/// The time for which its id is known after that. 90 days unless set otherwise.
	pub dedup_ttl: Duration,
	/// The hook for a callback that expires.
	pub on_expired: Option<OnOver>,
	/// The hook for a callback that becomes a dead letter.
	pub on_dead: Option<OnOver>,
	/// The hook for a callback that was taken.
	pub on_done: Option<OnDone>,
	/// The function that is told what an operator should know. None unless set otherwise.
	pub observer: Option<OutboxObserver>,
}

impl Default for OutboxOptions {
	fn default() -> Self {
		const DAY: u64 = 24 * 3600;
		Self {
			schedule: Schedule::default(),
			lease: Duration::from_secs(60),
			not_found_ttl: Duration::from_secs(3600),
			retention: Duration::from_secs(7 * DAY),
			erase_payload: |_| false,
			dedup_ttl: Duration::from_secs(90 * DAY),
			on_expired: None,
			on_dead: None,
			on_done: None,
			observer: None,
		}
	}
}

/// The callbacks of one store. Cheap to clone; all clones are one. There must be only one of them for
/// a store.
#[derive(Clone)]
pub struct Outbox(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
	pub(crate) store: Arc<dyn Store>,
	pub(crate) clock: Arc<StoreClock>,
	pub(crate) options: OutboxOptions,
	pub(crate) epoch: u64,
	/// Callbacks up to this one were in an older copy of the database: what became of them since is not
	/// known.
	pub(crate) restored_up_to: u64,
	/// The endpoints that there are: apart from the rest, so that what is done when a callback expires
	/// can enqueue another.
	known: RwLock<HashSet<End>>,
	/// Held while something is decided and handed to the store, so that the order of commits is the
	/// order of decisions. While the store writes, only what is rare holds it (endpoints, expiry,
	/// requeueing), and not what is done for every callback.
	pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
	pub(crate) endpoints: Vec<(End, Endpoint)>,
	/// The endpoint that is looked at first the next time.
	pub(crate) turn: usize,
	pub(crate) leases: HashMap<u64, Lease>,
	/// Order keys with a callback on its way.
	pub(crate) busy: HashMap<(End, Lane), u64>,
	pub(crate) next_token: u64,
	/// Callbacks that cannot be sent because a record is damaged, or a hook's plan is refused; told once.
	pub(crate) told: HashSet<u64>,
	/// Those of them whose records are damaged: they do not count among those that are looked at.
	pub(crate) damaged: HashSet<u64>,
	/// The place from which the next compaction goes on.
	pub(crate) compact_from: u64,
	/// The running times at which callbacks were let expire and were compacted last.
	pub(crate) expired_at: Option<Timestamp>,
	pub(crate) compacted_at: Option<Timestamp>,
	/// Events that are told when the lock is free.
	pub(crate) events: Vec<OutboxEvent>,
	/// What was told to be neglected.
	pub(crate) neglected: HashSet<&'static str>,
}

pub(crate) struct Endpoint {
	pub(crate) name: String,
	pub(crate) options: EndpointOptions,
	pub(crate) paused: Option<PausedV1>,
	pub(crate) breaker: Breaker,
	pub(crate) probes: Probes,
	/// Its clock skew was told.
	pub(crate) is_skewed: bool,
	pub(crate) in_flight: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
	pub(crate) token: u64,
	pub(crate) end: End,
	pub(crate) lane: Lane,
	/// The end of the lease, in running time.
	pub(crate) until: Timestamp,
	/// Its outcome is being written.
	pub(crate) settling: bool,
	/// It does not count any more among those that are on their way.
	pub(crate) landed: bool,
	/// Its endpoint was paused when it was claimed.
	pub(crate) is_probe: bool,
}

/// What became of an enqueueing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Enqueued {
	/// It has this place.
	New(Sequence),
	/// It was enqueued before, and has this place.
	Known(Sequence),
}

impl Enqueued {
	/// Its place.
	pub fn sequence(self) -> Sequence {
		match self {
			Self::New(sequence) | Self::Known(sequence) => sequence,
		}
	}
}

/// What is in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OutboxStats {
	/// Callbacks that are on their way.
	pub in_flight: usize,
	/// Endpoints.
	pub endpoints: usize,
}

impl Outbox {
	/// Opens the outbox of a store. If a handle of it over the same `store` is in use, this is
	/// another one of that, with its clock, options and endpoints: each callback is in one hand at a
	/// time.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// The first time, its epoch is written; after the database was restored from an older copy (see
	/// [`witness`](leyden_store::witness)), another one is. Claims of a process that ended are free.
	pub fn open(
		store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: OutboxOptions,
	) -> Result<Self, OutboxError> {
		let open = || Self::open_alone(Arc::clone(&store), clock, options);
		Ok(Self(sharing::shared(&store, &records::meta_key(), open)?))
	}

	fn open_alone(
		store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: OutboxOptions,
	) -> Result<Inner, OutboxError> {
		let clock = StoreClock::open(&store, clock)?;
		let MetaV1 { epoch, restored_up_to, .. } = meta(&*store)?;
		let mut state = State::default();
		for (key, record) in
			&store.scan(KeyRange::all(records::ENDS), MAX_ENDPOINTS).wait()?.records
		{
			let EndV1 { name, paused } = records::read(key, record)?;
			state.endpoints.push((records::end(&name), Endpoint::new(name, paused)));
		}
		let known = RwLock::new(state.endpoints.iter().map(|(end, _)| *end).collect());
		let state = Mutex::new(state);
		Ok(Inner { store, clock, options, epoch, restored_up_to, known, state })
	}

	/// Adds an endpoint, or says how one is to be used from now on. Its name is not its address: that
	/// may change.
	///
	/// # Errors
	/// [`OutboxError::TooLarge`], [`OutboxError::TooManyEndpoints`], the store's.
	///
	/// # Failure Behavior and Persistence
	/// The name is durable when it returns; how it is used is not stored.
	pub fn add_endpoint(&self, name: &str, options: EndpointOptions) -> Result<(), OutboxError> {
		OutboxError::length("endpoint", name.len(), 1, MAX_ENDPOINT_CHARS)?;
		let end = records::end(name);
		let mut state = self.0.state.lock();
		if let Some(endpoint) = state.endpoint(&end) {
			endpoint.options = options;
			return Ok(());
		}
		if state.endpoints.len() >= MAX_ENDPOINTS {
			return Err(OutboxError::TooManyEndpoints { limit: MAX_ENDPOINTS });
		}
		let mut batch = Batch::new();
		let record = EndV1 { name: name.to_owned(), paused: None };
		batch.put(records::end_key(&end), records::value(&record)?);
		self.0.store.commit(batch).wait()?;
		let endpoint = Endpoint { options, ..Endpoint::new(name.to_owned(), None) };
		state.endpoints.push((end, endpoint));
		self.0.known.write().insert(end);
		Ok(())
	}

	/// Plans to enqueue a callback; the plan is meant to be joined with its cause. One fact may be enqueued
	/// for several endpoints under one id.
	///
	/// # Errors
	/// [`OutboxError::UnknownEndpoint`]; [`OutboxError::IdConflict`] if a callback of this id says
	/// something else to this endpoint; [`OutboxError::Store`].
	///
	/// # Failure Behavior and Persistence
	/// When it is committed, the callback is sent until it was taken, is a dead letter, or has expired. A
	/// callback whose id is known to its endpoint is not enqueued again. Of two plans that are made at the
	/// same time with one id and other words, the first to be committed counts.
	pub fn enqueue(&self, new: NewCallback) -> Result<Plan<Enqueued>, OutboxError> {
		let end = records::end(&new.endpoint);
		if !self.0.known.read().contains(&end) {
			return Err(OutboxError::UnknownEndpoint { name: new.endpoint });
		}
		let times = self.0.clock.look();
		let (item, now) = (ItemV1::new(new, times), times.running);
		let index = item.index();
		let once = records::once_key(&item.once());
		if self.digest_of(&once)?.is_some_and(|digest| digest != item.digest) {
			let (id, endpoint) = (CallbackId::from_bytes(item.id), item.endpoint);
			return Err(OutboxError::IdConflict { id, endpoint });
		}
		let mut batch = Batch::new();
		let slot = batch.append_once(records::ITEMS, b"", records::value(&item)?, once);
		let open = OpenV1 { due: now, failures: 0, doubt: DoubtV1::None, not_found_ms: None };
		let open = records::value(&open)?;
		batch.put_at(slot, records::OPEN, b"", open);
		let index_value = records::value(&index)?;
		batch.put_at(slot, records::DUE, &records::due_prefix(&end, now), index_value.clone());
		let lane = records::lane_prefix(&end, &index.lane);
		batch.put_at(slot, records::LANES, &lane, index_value.clone());
		for prefix in records::urgent_prefixes(&end, index.deadline) {
			batch.put_at(slot, records::URGENT, &prefix, index_value.clone());
		}
		Ok(Plan::new(batch, |committed| match committed.appends().first() {
			Some(Appended::New(number)) => Enqueued::New(sequence(number.get())),
			Some(Appended::Known(number)) => Enqueued::Known(sequence(number.get())),
			None => Enqueued::Known(sequence(0)),
		}))
	}

	/// Sends to an endpoint again that was paused.
	///
	/// # Errors
	/// [`OutboxError::UnknownEndpoint`], the store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn resume(&self, name: &str) -> Result<(), OutboxError> {
		let end = records::end(name);
		let mut state = self.0.state.lock();
		let unknown = || OutboxError::UnknownEndpoint { name: name.to_owned() };
		let endpoint = state.endpoint(&end).ok_or_else(unknown)?;
		let mut batch = Batch::new();
		let record = EndV1 { name: name.to_owned(), paused: None };
		batch.put(records::end_key(&end), records::value(&record)?);
		self.0.store.commit(batch).wait()?;
		endpoint.resumed();
		Ok(())
	}

	/// The endpoints, to look at.
	pub fn endpoints(&self) -> Vec<EndpointInfo> {
		let info = |(_, endpoint): &(End, Endpoint)| EndpointInfo {
			name: endpoint.name.clone(),
			in_flight: endpoint.in_flight,
			paused: endpoint.paused.clone().map(|paused| (paused.at, paused.reason)),
			resting_until: endpoint.breaker.open_until(),
		};
		self.0.state.lock().endpoints.iter().map(info).collect()
	}

	/// A callback, while it is kept.
	///
	/// # Errors
	/// The store's.
	pub fn callback(&self, sequence: Sequence) -> Result<Option<Callback>, OutboxError> {
		let key = records::item_key(sequence.get());
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let item: ItemV1 = records::read(&key, &record)?;
		Ok(Some(item.callback(sequence)))
	}

	/// The digest of the callback under this key, if one is known.
	fn digest_of(&self, once: &Key) -> Result<Option<[u8; 32]>, OutboxError> {
		let Some(record) = self.0.store.get(once).wait()? else { return Ok(None) };
		let number = NumberRecord::read(once, &record)?.0.get();
		let key = records::item_key(number);
		if let Some(record) = self.0.store.get(&key).wait()? {
			return Ok(Some(records::read::<ItemV1>(&key, &record)?.digest));
		}
		let key = records::tomb_key(number);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		Ok(Some(records::read::<TombV1>(&key, &record)?.digest))
	}

	/// Tells the observer that callbacks wait for the store; for run loops.
	pub fn tell_unavailable(&self, error: &OutboxError) {
		if let OutboxError::Store(error) = error {
			self.tell(&OutboxEvent::StoreUnavailable { error: error.clone() });
		}
	}

	/// Frees the lock, and then tells what has happened under it: an observer may do what it likes.
	pub(crate) fn unlock(&self, mut state: MutexGuard<'_, State>) {
		let events = std::mem::take(&mut state.events);
		drop(state);
		events.iter().for_each(|event| self.tell(event));
	}

	/// Tells the observer.
	pub(crate) fn tell(&self, event: &OutboxEvent) {
		if let Some(observer) = &self.0.options.observer {
			observer(event);
		}
	}

	/// The epoch of the outbox: drawn when it was created. Another epoch is another outbox.
	pub fn epoch(&self) -> u64 {
		self.0.epoch
	}

	/// What is in memory.
	pub fn stats(&self) -> OutboxStats {
		let state = self.0.state.lock();
		OutboxStats { in_flight: state.leases.len(), endpoints: state.endpoints.len() }
	}

	/// The store, for records that are to be one commit with a callback.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.0.store
	}
}

impl Endpoint {
	fn new(name: String, paused: Option<PausedV1>) -> Self {
		let options = EndpointOptions::default();
		let (breaker, probes) = (Breaker::default(), Probes::default());
		Self { name, options, paused, breaker, probes, is_skewed: false, in_flight: 0 }
	}

	/// Returns how many callbacks may be on their way.
	pub(crate) fn limit(&mut self, now: Timestamp) -> usize {
		match self.paused {
			Some(_) => self.probes.limit(&self.options.probes, now),
			None => self.breaker.limit(&self.options, now),
		}
	}

	/// Forgets why nothing was sent.
	pub(crate) fn resumed(&mut self) {
		self.paused = None;
		self.breaker.answered();
		self.probes = Probes::default();
	}
}

impl State {
	pub(crate) fn endpoint(&mut self, end: &End) -> Option<&mut Endpoint> {
		self.endpoints.iter_mut().find(|(other, _)| other == end).map(|(_, endpoint)| endpoint)
	}

	/// Lets go of a callback.
	pub(crate) fn free(&mut self, number: u64) {
		self.landed(number);
		let Some(lease) = self.leases.remove(&number) else { return };
		let lane = (lease.end, lease.lane);
		if self.busy.get(&lane) == Some(&number) {
			self.busy.remove(&lane);
		}
	}

	/// It is not on its way any more, and its endpoint has room for another.
	pub(crate) fn landed(&mut self, number: u64) {
		let Some(lease) = self.leases.get_mut(&number) else { return };
		if std::mem::replace(&mut lease.landed, true) {
			return;
		}
		let end = lease.end;
		if let Some(endpoint) = self.endpoint(&end) {
			endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
		}
	}
}

/// Returns what is known of the outbox. The first time, and after the database was restored from an older
/// copy, another epoch is drawn.
fn meta(store: &dyn Store) -> Result<MetaV1, OutboxError> {
	let (key, restorations) = (records::meta_key(), restorations(store)?);
	let first = MetaV1 { epoch: 0, trimmed: 0, restorations, restored_up_to: 0 };
	let mut known = (Expectation::Absent, first);
	if let Some(record) = store.get(&key).wait()? {
		let meta: MetaV1 = records::read(&key, &record)?;
		if meta.restorations == restorations {
			return Ok(meta);
		}
		let newest = store.scan(KeyRange::all(records::ITEMS).reversed(), 1).wait()?;
		let newest = newest.records.first().map(|(key, _)| records::number_of(key)).transpose()?;
		let restored_up_to = newest.unwrap_or(meta.trimmed).max(meta.restored_up_to);
		let meta = MetaV1 { restorations, restored_up_to, ..meta };
		known = (Expectation::Version(record.version), meta);
	}
	let mut bytes = [0; 8];
	getrandom::getrandom(&mut bytes).map_err(|_| OutboxError::NoRandomness)?;
	let (expected, meta) = known;
	let meta = MetaV1 { epoch: u64::from_be_bytes(bytes), ..meta };
	let mut batch = Batch::new();
	batch.expect(key.clone(), expected);
	batch.put(key, records::value(&meta)?);
	store.commit(batch).wait()?;
	Ok(meta)
}

/// A number that the store gave.
pub(crate) fn sequence(number: u64) -> Sequence {
	Sequence::new(number.max(1)).unwrap_or_else(|| sequence(1))
}

impl fmt::Debug for Outbox {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("Outbox").field("stats", &self.stats()).finish_non_exhaustive()
	}
}

impl fmt::Debug for OutboxOptions {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("OutboxOptions")
			.field("schedule", &self.schedule)
			.field("lease", &self.lease)
			.field("not_found_ttl", &self.not_found_ttl)
			.field("retention", &self.retention)
			.field("dedup_ttl", &self.dedup_ttl)
			.finish_non_exhaustive()
	}
}
