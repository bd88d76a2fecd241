// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leyden_store::{Batch, Clock, Expectation, Store, StoreClock, Times, Timestamp, Version};

use crate::error::RequestError;
use crate::flights::{Entered, Flight, Flights, InFlight};
use crate::key::RequestKey;
use crate::law::{decide, Decision, Expiry, Found, Owner};
use crate::options::{Expired, RequestOptions};
use crate::params::Params;
use crate::quota::{Change, Quotas};
use crate::records::{self, RequestV1, StateV1, TimeV1};
use crate::run::{answer_of, Answer, Effect, Run};

/// How often a request is looked at again because somebody else was faster.
const TRIES: usize = 4;

/// Requests of one store. Cheap to clone; all clones are one. There must be only one of them for a
/// store: what another has begun looks as if its process had ended.
#[derive(Clone)]
pub struct Requests(Arc<Inner>);

struct Inner {
	store: Arc<dyn Store>,
	clock: Arc<StoreClock>,
	options: RequestOptions,
	flights: Arc<Flights>,
	quotas: Quotas,
}

/// A request as it was made.
#[derive(Clone, Copy)]
pub struct Request<'a> {
	/// Which one.
	pub key: &'a RequestKey,
	/// Its parameters in the canonical form of a version: the newest for `None`, else that of the
	/// version that is stored. `None` for a version that is not known.
	pub params: &'a dyn Fn(Option<u16>) -> Option<Params>,
	/// How long its answer is to be replayed.
	pub replay_for: Duration,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Begin {
	/// Carry it out. It is durable as begun.
	Run(Run),
	/// Somebody began it and did not finish: look what came of it before anything else.
	Recover(Run),
	/// Give this answer.
	Replay(Answer),
	/// Somebody is at it.
	Wait(InFlight),
}

/// What is stored of a request, to look at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestInfo {
	/// Which one.
	pub key: RequestKey,
	/// When it was begun.
	pub begun_at: Timestamp,
	/// From then on its answer is not given any more.
	pub expires_at: Timestamp,
	/// From then on it may be forgotten.
	pub forget_at: Timestamp,
	/// How far it is.
	pub state: RequestState,
}

/// How far a request is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequestState {
	/// It was begun, and has no answer.
	Started,
	/// It was carried out, did nothing that lasts, and may be run again.
	Released,
	/// It has this answer.
	Answered {
		/// It.
		answer: Answer,
		/// Since when.
		at: Timestamp,
	},
	/// Its answer is not kept any more.
	Remembered,
}

impl Requests {
	/// Opens the requests of a store. Handles over the same `store` know of each other what is being
	/// carried out; each has its own options and quotas.
	///
	/// # Errors
	/// The store's.
	pub fn open(
		store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: RequestOptions,
	) -> Result<Self, RequestError> {
		let clock = StoreClock::open(&store, clock)?;
		let flights = Flights::of(&store);
		let quotas = Quotas::default();
		Ok(Self(Arc::new(Inner { store, clock, options, flights, quotas })))
	}

	/// Says what to do with a request, and writes down that it is begun if it is to be carried out.
	///
	/// # Errors
	/// [`Conflict`](RequestError::Conflict), [`Stale`](RequestError::Stale),
	/// [`Quota`](RequestError::Quota), and the store's: a damaged record is one, and never a reason to
	/// run a request again.
	///
	/// # Failure Behavior and Persistence
	/// With [`Begin::Run`], the request is durable as begun: if the process dies from then on, the next
	/// time is a [`Begin::Recover`]. If it dies before, nothing is known of the request, and nothing
	/// was done. A replay reads one record and writes nothing; a refusal because its time is over drops
	/// the answer, lazily.
	pub fn begin(&self, request: &Request<'_>) -> Result<Begin, RequestError> {
		let hash = request.key.hash();
		for _ in 0..TRIES {
			let stored = self.read(request.key, &hash)?;
			if let Some((record, version)) = stored {
				match self.decide(request, &record, Owner::Alive)? {
					Decision::Replay => return replay(&record.state),
					Decision::Conflict => return Err(conflict(request, &record)),
					Decision::Stale => {
						self.prune(&hash, record, version)?;
						return Err(RequestError::Stale);
					},
					_ => {},
				}
			}
			let flight = match self.0.flights.enter(hash) {
				Entered::Alone(flight) => flight,
				Entered::Behind(in_flight) => return Ok(Begin::Wait(in_flight)),
				Entered::Full => {
					return Err(RequestError::Busy { limit: crate::flights::MAX_FLIGHTS });
				},
			};
			// Whoever had it may have finished between our look and now.
			let stored = self.read(request.key, &hash)?;
			let decision = match &stored {
				Some((record, _)) => self.decide(request, record, Owner::Dead)?,
				None => decide(Found::Nothing, true),
			};
			let run = |flight: Flight, record: RequestV1, version: Version| Run {
				requests: self.clone(),
				flight,
				key: request.key.clone(),
				hash,
				replay_for: request.replay_for,
				record,
				version,
			};
			match (decision, stored) {
				(Decision::Run | Decision::RunAgain, stored) => {
					let started = self.start(request, &hash, stored)?;
					// Another process was faster.
					let Some((record, version)) = started else { continue };
					return Ok(Begin::Run(run(flight, record, version)));
				},
				(Decision::Recover, stored) => {
					// Its times begin anew: what comes of it now lives as long as what would have then.
					let started = self.start(request, &hash, stored)?;
					let Some((record, version)) = started else { continue };
					return Ok(Begin::Recover(run(flight, record, version)));
				},
				(Decision::Replay, Some((record, _))) => return replay(&record.state),
				(Decision::Conflict, Some((record, _))) => return Err(conflict(request, &record)),
				(Decision::Stale, _) => return Err(RequestError::Stale),
				// Nobody is at what we are at.
				_ => {},
			}
		}
		Err(RequestError::InProgress)
	}

	/// Carries a request out, or gives the answer that it got, waiting for who is at it for up to
	/// [`RequestOptions::wait`].
	///
	/// # Errors
	/// As [`begin`](Requests::begin); [`InProgress`](RequestError::InProgress) if somebody is still
	/// at it, [`Unknown`](RequestError::Unknown) if the effect does not know what came of it.
	///
	/// # Failure Behavior and Persistence
	/// When it returns an answer, that answer and what the effect wrote are durable. If the process
	/// dies before, the effect is asked to [`recover`](Effect::recover) the next time.
	pub fn handle(
		&self, request: &Request<'_>, effect: &mut dyn Effect,
	) -> Result<Answer, RequestError> {
		for _ in 0..TRIES {
			let outcome = match self.begin(request)? {
				Begin::Replay(answer) => return Ok(answer),
				Begin::Wait(in_flight) => match in_flight.wait(self.0.options.wait) {
					true => continue,
					false => return Err(RequestError::InProgress),
				},
				Begin::Run(run) => (effect.run(run.key()), run),
				Begin::Recover(run) => match effect.recover(run.key()) {
					Ok(Some(outcome)) => (Ok(outcome), run),
					Ok(None) => (effect.run(run.key()), run),
					Err(unknown) => (Err(unknown), run),
				},
			};
			let (Ok(outcome), run) = outcome else { return Err(RequestError::Unknown) };
			return run.finish(outcome);
		}
		Err(RequestError::InProgress)
	}

	/// What is stored of a request.
	///
	/// # Errors
	/// The store's.
	pub fn info(&self, key: &RequestKey) -> Result<Option<RequestInfo>, RequestError> {
		let Some((record, _)) = self.read(key, &key.hash())? else { return Ok(None) };
		let state = match &record.state {
			StateV1::Started => RequestState::Started,
			StateV1::Released => RequestState::Released,
			StateV1::Remembered => RequestState::Remembered,
			answered => answer_of(answered).map_or(RequestState::Remembered, |(answer, at)| {
				RequestState::Answered { answer, at }
			}),
		};
		let RequestV1 { begun_at, expires_at, forget_at, .. } = record;
		Ok(Some(RequestInfo { key: key.clone(), begun_at, expires_at, forget_at, state }))
	}

	/// How many requests are being carried out.
	pub fn running(&self) -> usize {
		self.0.flights.running()
	}

	/// The store, for records that are to be one commit with an answer.
	pub fn store(&self) -> &Arc<dyn Store> {
		&self.0.store
	}

	pub(crate) fn options(&self) -> &RequestOptions {
		&self.0.options
	}

	pub(crate) fn is_running(&self, hash: &[u8; 64]) -> bool {
		self.0.flights.has(hash)
	}

	pub(crate) fn quotas(&self) -> &Quotas {
		&self.0.quotas
	}

	/// Looks at the clock. What is given up goes by steady time.
	pub(crate) fn time(&self) -> Times {
		self.0.clock.look()
	}

	/// From when on an answer of now is not given any more, and may be forgotten.
	pub(crate) fn times(&self, replay_for: Duration) -> (Timestamp, Timestamp) {
		let Times { wall, steady, .. } = self.time();
		let expires_at = wall.max(steady).after(replay_for);
		(expires_at, expires_at.after(self.0.options.remember))
	}

	/// The record, if it is of this request.
	pub(crate) fn read(
		&self, request: &RequestKey, hash: &[u8; 64],
	) -> Result<Option<(RequestV1, Version)>, RequestError> {
		let key = records::request_key(hash);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		let found: RequestV1 = records::read(&key, &record)?;
		let is_it = found.scope == request.scope()
			&& found.operation == request.operation()
			&& found.key == request.key();
		if !is_it {
			let reason = "the record is of another request than its key";
			return Err(leyden_store::StoreError::corrupt(&key, reason).into());
		}
		Ok(Some((found, record.version)))
	}

	fn decide(
		&self, request: &Request<'_>, record: &RequestV1, owner: Owner,
	) -> Result<Decision, RequestError> {
		let found = match &record.state {
			StateV1::Released => return Ok(Decision::RunAgain),
			StateV1::Started => Found::Started(owner),
			StateV1::Answered { .. } => Found::Answered(self.expiry(request.key, record)),
			StateV1::Remembered => Found::Remembered(self.expiry(request.key, record)),
		};
		let version = record.params.version;
		let params = (request.params)(Some(version));
		let params = params.ok_or(RequestError::UnknownVersion { version })?;
		Ok(decide(found, record.params.differing(&params).is_empty()))
	}

	fn expiry(&self, key: &RequestKey, record: &RequestV1) -> Expiry {
		let Times { wall, steady, .. } = self.time();
		if steady >= record.expires_at {
			let is_dead = match &self.0.options.expired {
				Expired::Tombstone => false,
				Expired::Reissue(is_dead) => is_dead(key),
			};
			return Expiry::Expired { is_dead };
		}
		match wall >= record.expires_at {
			true => Expiry::Doubtful,
			false => Expiry::Live,
		}
	}

	/// Writes down that the request is begun; `None` if the record is not as it was any more.
	fn start(
		&self, request: &Request<'_>, hash: &[u8; 64], stored: Option<(RequestV1, Version)>,
	) -> Result<Option<(RequestV1, Version)>, RequestError> {
		let params = (request.params)(None).ok_or(RequestError::UnknownVersion { version: 0 })?;
		let begun_at = self.time().steady;
		let (expires_at, forget_at) = self.times(request.replay_for);
		let record = RequestV1 {
			scope: request.key.scope().to_vec(),
			operation: request.key.operation().to_owned(),
			key: request.key.key().to_vec(),
			params: params.stored(),
			begun_at,
			expires_at,
			forget_at,
			look_at: expires_at,
			state: StateV1::Started,
		};
		let key = records::request_key(hash);
		let mut batch = Batch::new();
		batch.put(key.clone(), records::value(&record)?);
		batch.put(records::time_key(expires_at, hash), records::value(&TimeV1 {})?);
		let committed = match stored {
			Some((old, version)) => {
				batch.expect(key, Expectation::Version(version));
				if old.look_at != expires_at {
					batch.delete(records::time_key(old.look_at, hash));
				}
				self.0.store.commit(batch).wait()
			},
			None => {
				batch.expect(key, Expectation::Absent);
				let (scope, limit) = (request.key.scope_hash(), self.0.options.max_per_scope);
				let quotas = &self.0.quotas;
				let ticket = quotas.commit(&*self.0.store, scope, Change::More, limit, batch)?;
				let committed = ticket.wait();
				quotas.ended(&scope, Change::More, committed.is_ok());
				committed
			},
		};
		match committed {
			Ok(committed) => Ok(Some((record, committed.version()))),
			Err(leyden_store::StoreError::Conflict { .. }) => Ok(None),
			Err(error) => Err(error.into()),
		}
	}
}

fn replay(state: &StateV1) -> Result<Begin, RequestError> {
	answer_of(state).map(|(answer, _)| Begin::Replay(answer)).ok_or(RequestError::Stale)
}

fn conflict(request: &Request<'_>, record: &RequestV1) -> RequestError {
	let params = (request.params)(Some(record.params.version));
	let fields = params.map_or_else(Vec::new, |params| record.params.differing(&params));
	RequestError::Conflict { fields }
}

impl fmt::Debug for Requests {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("Requests").field("running", &self.running()).finish_non_exhaustive()
	}
}

impl fmt::Debug for Request<'_> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_tuple("Request").field(self.key).finish()
	}
}
