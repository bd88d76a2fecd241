// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Carrying a request out, and its answer.

use std::fmt;
use std::time::Duration;

use leyden_store::{Batch, Expectation, Plan, Timestamp, Version};

use crate::error::RequestError;
use crate::flights::Flight;
use crate::key::RequestKey;
use crate::records::{self, RequestV1, StateV1, TimeV1};
use crate::requests::Requests;

/// Longest answer that is stored, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The kind of an answer: it says whether the answer is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnswerKind {
	/// The request was carried out.
	Ok,
	/// The request was carried out and has failed for good: the next time it would fail as well.
	Error,
	/// The request does not fit (validation), and nothing was done. It is never kept: the same key may
	/// come again with other parameters.
	Invalid,
	/// The request failed, nothing came of it, and the next time may be better. It is not kept, unless
	/// [`keep`](crate::RequestOptions::keep) says otherwise.
	Transient,
}

/// What the one who asks is told: bytes, which are given again as they are.
#[derive(Clone, Eq, PartialEq)]
pub struct Answer {
	kind: AnswerKind,
	bytes: Vec<u8>,
}

impl Answer {
	/// An answer.
	pub fn new(kind: AnswerKind, bytes: impl Into<Vec<u8>>) -> Self {
		Self { kind, bytes: bytes.into() }
	}

	/// What it is.
	pub fn kind(&self) -> AnswerKind {
		self.kind
	}

	/// The bytes.
	pub fn bytes(&self) -> &[u8] {
		&self.bytes
	}
}

/// What an effect comes to: the answer, and what it writes itself.
pub struct Outcome {
	pub(crate) answer: Answer,
	pub(crate) with: Option<Plan<()>>,
}

impl Outcome {
	/// With nothing of its own to write.
	pub fn new(answer: Answer) -> Self {
		Self { answer, with: None }
	}

	/// Writes this in the same commit as the answer.
	#[must_use]
	pub fn with(mut self, plan: Plan<()>) -> Self {
		self.with = Some(plan);
		self
	}
}

/// It is not known whether the effect happened. The request stays begun, and is recovered when it is
/// asked for again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unknown;

/// What a request does, for [`Requests::handle`].
pub trait Effect {
	/// Does it. The request is durable as begun.
	///
	/// # Errors
	/// [`Unknown`] if it is not known whether it happened. An effect that is known to have failed is
	/// an answer.
	fn run(&mut self, key: &RequestKey) -> Result<Outcome, Unknown>;

	/// Looks whether it happened before: what came of it then, or `None` if it did not, and never
	/// will. Then it is run.
	///
	/// # Errors
	/// [`Unknown`] if that cannot be said now.
	fn recover(&mut self, key: &RequestKey) -> Result<Option<Outcome>, Unknown>;
}

/// A request that is ours to carry out. Dropped without an answer, it stays begun, and whoever is
/// next recovers it.
#[must_use = "the request stays begun until it is answered"]
pub struct Run {
	pub(crate) requests: Requests,
	pub(crate) flight: Flight,
	pub(crate) key: RequestKey,
	pub(crate) hash: [u8; 64],
	pub(crate) replay_for: Duration,
	pub(crate) record: RequestV1,
	pub(crate) version: Version,
}

impl Run {
	/// Which request it is.
	pub fn key(&self) -> &RequestKey {
		&self.key
	}

	/// A plan that stores the answer, to be joined with what the effect writes.
	///
	/// # Errors
	/// [`RequestError::AnswerTooLarge`]; then the request stays begun.
	///
	/// # Failure Behavior and Persistence
	/// When it is committed, the same request gets this answer from then on. If it is not, the
	/// request stays begun, and is recovered the next time. An answer that is
	/// [not kept](crate::RequestOptions::keep) lets the request be run again, also with other
	/// parameters.
	pub fn complete(self, answer: Answer) -> Result<Plan<Answer>, RequestError> {
		let (limit, found) = (MAX_ANSWER_BYTES, answer.bytes.len());
		if found > limit {
			return Err(RequestError::AnswerTooLarge { limit, found });
		}
		let Self { requests, flight, hash, replay_for, mut record, version, .. } = self;
		let is_kept = answer.kind != AnswerKind::Invalid && (requests.options().keep)(&answer);
		record.state = match is_kept {
			true => StateV1::Answered {
				at: requests.time().steady,
				is_error: answer.kind != AnswerKind::Ok,
				answer: answer.bytes.clone(),
			},
			false => StateV1::Released,
		};
		let key = records::request_key(&hash);
		let mut batch = Batch::new();
		batch.expect(key.clone(), Expectation::Version(version));
		// It may have taken long: what came of it lives from now on.
		let (expires_at, forget_at) = requests.times(replay_for);
		if expires_at != record.look_at {
			batch.delete(records::time_key(record.look_at, &hash));
			batch.put(records::time_key(expires_at, &hash), records::value(&TimeV1 {})?);
		}
		(record.expires_at, record.forget_at, record.look_at) = (expires_at, forget_at, expires_at);
		batch.put(key, records::value(&record)?);
		Ok(Plan::new(batch, move |_| {
			// Only now may the next one look.
			drop(flight);
			answer
		}))
	}

	/// Stores the answer, and what the effect writes, in one commit.
	///
	/// # Errors
	/// As [`complete`](Run::complete), and the store's: the answer must not be given then.
	///
	/// # Failure Behavior and Persistence
	/// As [`complete`](Run::complete).
	pub fn finish(self, outcome: Outcome) -> Result<Answer, RequestError> {
		let store = self.requests.store().clone();
		let plan = self.complete(outcome.answer)?;
		let answer = match outcome.with {
			Some(with) => plan.and(with).map(|(answer, ())| answer).commit(&*store).wait()?,
			None => plan.commit(&*store).wait()?,
		};
		Ok(answer)
	}
}

pub(crate) fn answer_of(state: &StateV1) -> Option<(Answer, Timestamp)> {
	let StateV1::Answered { at, is_error, answer } = state else { return None };
	let kind = if *is_error { AnswerKind::Error } else { AnswerKind::Ok };
	Some((Answer::new(kind, answer.clone()), *at))
}

/// Without the bytes: there may be something in them that is for one reader only.
impl fmt::Debug for Answer {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Answer({:?}, {} bytes)", self.kind, self.bytes.len())
	}
}

impl fmt::Debug for Outcome {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_tuple("Outcome").field(&self.answer).finish()
	}
}

impl fmt::Debug for Run {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_tuple("Run").field(&self.key).finish()
	}
}
