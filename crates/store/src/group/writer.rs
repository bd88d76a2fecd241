// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The one who has the medium: decides what batches mean, and writes it.

use std::sync::{Arc, OnceLock};

use crate::batch::{Batch, Durability, Hook};
use crate::committed::Committed;
use crate::committer::{Committer, Outcome, RawWrite};
use crate::error::StoreError;
use crate::frame;
use crate::key::{Key, KeyRange};
use crate::page::{Page, PageBuilder};
use crate::record::{Epoch, Record};

use super::outage::{Asked, OutagePolicy, Outages, StoreEvent};
use super::Medium;

/// A medium, and whether and how it may be written.
#[derive(Debug)]
pub struct Writer<M> {
	medium: M,
	/// `None` if it only reads.
	committer: Option<Committer>,
	/// Where it is, for errors.
	place: String,
	ended: Ended,
	outages: Outages,
}

/// The reason for which a handle commits nothing more, once there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended(Arc<OnceLock<String>>);

impl Ended {
	/// # Errors
	/// [`StoreError::Poisoned`] if the handle has ended.
	pub(super) fn check(&self) -> Result<(), StoreError> {
		match self.0.get() {
			Some(because) => Err(StoreError::Poisoned { because: because.clone() }),
			None => Ok(()),
		}
	}
}

/// How a group ended.
pub(super) struct Done {
	pub(super) answers: Vec<(Result<Committed, StoreError>, Vec<Hook>)>,
	/// Transactions that wrote something, and how many of them were flushed.
	pub(super) wrote: u64,
	pub(super) flushed: u64,
}

/// What became of batches that were to go into one transaction.
enum Tried {
	Done {
		answers: Answers,
		wrote: bool,
		flushed: bool,
	},
	/// They are so many writes; nothing was done.
	TooMany(usize),
}

type Answers = Vec<Result<Committed, StoreError>>;

impl<M: Medium> Writer<M> {
	/// A writer whose epoch was raised: the writes that [`Committer::open`] asked for are durable.
	pub fn new(medium: M, committer: Committer, place: impl Into<String>) -> Self {
		Self::over(medium, Some(committer), place.into())
	}

	/// A handle that only reads.
	pub fn read_only(medium: M, place: impl Into<String>) -> Self {
		Self::over(medium, None, place.into())
	}

	/// Sets the outages with which the writer waits. The medium may have a clone, to wait by itself
	/// in the middle of a write whose fate is not known. Without them no outage is waited for.
	pub fn with_outages(mut self, outages: Outages) -> Self {
		self.outages = outages;
		self
	}

	fn over(medium: M, committer: Option<Committer>, place: String) -> Self {
		let outages = Outages::new(OutagePolicy::none(), place.clone());
		Self { medium, committer, place, ended: Ended::default(), outages }
	}

	/// Its epoch; `None` if it only reads.
	pub fn epoch(&self) -> Option<Epoch> {
		self.committer.as_ref().map(Committer::epoch)
	}

	pub(super) fn place(&self) -> &str {
		&self.place
	}

	pub(super) fn medium(&mut self) -> &mut M {
		&mut self.medium
	}

	pub(super) fn outages(&self) -> &Outages {
		&self.outages
	}

	pub(super) fn ended(&self) -> &Ended {
		&self.ended
	}

	/// Ends the handle: the medium panicked.
	pub(super) fn panicked(&mut self, message: String) -> StoreError {
		let source = Arc::new(std::io::Error::other(format!("the engine panicked: {message}")));
		let error = StoreError::Indeterminate { doing: "using the engine", source };
		self.end(&error);
		error
	}

	/// Ends the handle because of `error`: nothing more is committed.
	fn end(&mut self, error: &StoreError) {
		if self.ended.0.set(error.to_string()).is_ok() {
			let (place, error) = (self.place.clone(), error.clone());
			self.outages.tell(&StoreEvent::HandleEnded { place, error });
		}
	}

	pub(super) fn get(&mut self, key: &Key) -> Result<Option<Record>, StoreError> {
		self.alive()?;
		self.outages.heal(Asked::Read, || get(&mut self.medium, key))
	}

	pub(super) fn get_raw(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		self.alive()?;
		self.outages.heal(Asked::Read, || self.medium.read(key))
	}

	pub(super) fn scan(&mut self, range: KeyRange, limit: usize) -> Result<Page, StoreError> {
		self.alive()?;
		self.outages.heal(Asked::Read, || scan(&mut self.medium, &range, limit))
	}

	/// Commits all of these, each or not by its own expectations: in one transaction, or in more if
	/// the medium does not take so many writes at once.
	pub(super) fn commit(&mut self, mut batches: Vec<Batch>) -> Done {
		let hooks: Vec<_> = batches.iter_mut().map(Batch::take_hooks).collect();
		let mut done = Done { answers: Vec::with_capacity(batches.len()), wrote: 0, flushed: 0 };
		let mut hooks = hooks.into_iter();
		// From the last to the first, so that the next is at the end.
		let mut left = vec![batches.as_slice()];
		let outages = self.outages.clone();
		while let Some(batches) = left.pop() {
			// Nothing was written if it is unavailable, so everything is decided anew.
			let answers = match outages.heal(Asked::Write, || self.try_commit(batches)) {
				Ok(Tried::Done { answers, wrote, flushed }) => {
					done.wrote += u64::from(wrote);
					done.flushed += u64::from(flushed);
					answers
				},
				Ok(Tried::TooMany(found)) if batches.len() < 2 => {
					let what = "writes in one batch, for this store";
					vec![Err(StoreError::TooLarge { what, limit: M::MAX_WRITES, found })]
				},
				Ok(Tried::TooMany(_)) => {
					let (first, second) = batches.split_at(batches.len() / 2);
					left.extend([second, first]);
					continue;
				},
				// The medium does not take so much at once, and nothing was written: one batch that is too
				// large alone takes no other with it.
				Err(StoreError::Invalid { .. } | StoreError::TooLarge { .. })
					if batches.len() > 1 =>
				{
					let (first, second) = batches.split_at(batches.len() / 2);
					left.extend([second, first]);
					continue;
				},
				Err(error) => {
					if error.ends_handle() {
						self.end(&error);
					}
					batches.iter().map(|_| Err(error.clone())).collect()
				},
			};
			done.answers.extend(answers.into_iter().zip(hooks.by_ref()));
		}
		done
	}

	fn try_commit(&mut self, batches: &[Batch]) -> Result<Tried, StoreError> {
		self.alive()?;
		if self.committer.is_none() {
			return Err(StoreError::ReadOnly { place: self.place.clone() });
		}
		let began = self.medium.foresee(batches);
		let tried = began.and_then(|()| self.try_group(batches));
		// Also after an error: nothing of the group may stay in the engine.
		self.medium.group_over()?;
		tried
	}

	fn try_group(&mut self, batches: &[Batch]) -> Result<Tried, StoreError> {
		let Some(committer) = &self.committer else {
			return Err(StoreError::ReadOnly { place: self.place.clone() });
		};
		let decided = decide(&mut self.medium, committer, batches);
		// What was fetched for these batches is not for anybody else.
		self.medium.foresee(&[])?;
		let (answers, decided) = decided?;
		let is_away =
			|answer: &&Result<_, StoreError>| matches!(answer, Err(StoreError::Unavailable { .. }));
		if let Some(Err(away)) = answers.iter().find(is_away) {
			if self.outages.are_tolerated() {
				// One batch could not be decided. None of the group is before the others.
				return Err(away.clone());
			}
		}
		let Some((writes, outcome)) = decided else {
			return Ok(Tried::Done { answers, wrote: false, flushed: false });
		};
		if writes.len() > M::MAX_WRITES {
			return Ok(Tried::TooMany(writes.len()));
		}
		let durability = batches.iter().map(Batch::required_durability).max().unwrap_or_default();
		self.medium.write(writes, durability)?;
		if let Some(committer) = &mut self.committer {
			committer.took_effect(outcome);
		}
		Ok(Tried::Done { answers, wrote: true, flushed: durability == Durability::Sync })
	}

	fn alive(&self) -> Result<(), StoreError> {
		self.ended.check()
	}
}

/// Returns the record at `key`.
pub(super) fn get<M: Medium>(medium: &mut M, key: &Key) -> Result<Option<Record>, StoreError> {
	let frame = medium.read(key)?;
	frame.map(|frame| frame::decode(key, &frame)).transpose()
}

/// Returns up to `limit` records of `range`.
pub(super) fn scan<M: Medium>(
	medium: &mut M, range: &KeyRange, limit: usize,
) -> Result<Page, StoreError> {
	let mut page = PageBuilder::new(range.clone(), limit);
	if !range.is_empty() {
		medium.scan(range, &mut page)?;
	}
	Ok(page.build())
}

/// What the batches mean, together; no writes if all of them were refused.
#[allow(clippy::type_complexity)]
fn decide<M: Medium>(
	medium: &mut M, committer: &Committer, batches: &[Batch],
) -> Result<(Answers, Option<(Vec<RawWrite>, Outcome)>), StoreError> {
	// Nobody else writes, so what is read before the transaction begins still holds in it.
	let mut group = committer.group(medium)?;
	let answers: Answers = batches.iter().map(|batch| group.apply(batch)).collect();
	let written = match answers.iter().all(Result::is_err) {
		true => None,
		false => Some(group.finish()?),
	};
	Ok((answers, written))
}
