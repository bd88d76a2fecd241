// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The one who has the medium: decides what batches mean, and writes it.

use crate::batch::{Batch, Durability, Hook};
use crate::committed::Committed;
use crate::committer::{Committer, Outcome, RawWrite};
use crate::error::StoreError;
use crate::frame;
use crate::key::{Key, KeyRange};
use crate::page::{Page, PageBuilder};
use crate::record::{Epoch, Record};

use super::Medium;

/// A medium, and whether and how it may be written.
#[derive(Debug)]
pub struct Writer<M> {
	medium: M,
	/// `None` if it only reads.
	committer: Option<Committer>,
	/// Where it is, for errors.
	place: String,
	poisoned: Option<String>,
}

/// How a group ended.
pub(super) struct Done {
	pub(super) answers: Vec<(Result<Committed, StoreError>, Vec<Hook>)>,
	pub(super) wrote: bool,
	pub(super) flushed: bool,
}

type Answers = Vec<Result<Committed, StoreError>>;

impl<M: Medium> Writer<M> {
	/// A writer whose epoch was raised: the writes that [`Committer::open`] asked for are durable.
	pub fn new(medium: M, committer: Committer, place: impl Into<String>) -> Self {
		Self { medium, committer: Some(committer), place: place.into(), poisoned: None }
	}

	/// A handle that only reads.
	pub fn read_only(medium: M, place: impl Into<String>) -> Self {
		Self { medium, committer: None, place: place.into(), poisoned: None }
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

	pub(super) fn get(&mut self, key: &Key) -> Result<Option<Record>, StoreError> {
		self.alive()?;
		let frame = self.medium.read(key)?;
		frame.map(|frame| frame::decode(key, &frame)).transpose()
	}

	pub(super) fn scan(&mut self, range: KeyRange, limit: usize) -> Result<Page, StoreError> {
		self.alive()?;
		let mut page = PageBuilder::new(range.clone(), limit);
		if !range.is_empty() {
			self.medium.scan(&range, &mut page)?;
		}
		Ok(page.build())
	}

	/// Commits all of these in one transaction, each or not by its own expectations.
	pub(super) fn commit(&mut self, mut batches: Vec<Batch>) -> Done {
		let hooks: Vec<_> = batches.iter_mut().map(Batch::take_hooks).collect();
		let (answers, wrote, flushed) = match self.try_commit(&batches) {
			Ok(done) => done,
			Err(error) => {
				if error.ends_handle() {
					self.poisoned.get_or_insert_with(|| error.to_string());
				}
				(batches.iter().map(|_| Err(error.clone())).collect(), false, false)
			},
		};
		Done { answers: answers.into_iter().zip(hooks).collect(), wrote, flushed }
	}

	fn try_commit(&mut self, batches: &[Batch]) -> Result<(Answers, bool, bool), StoreError> {
		self.alive()?;
		let Some(committer) = &self.committer else {
			return Err(StoreError::ReadOnly { place: self.place.clone() });
		};
		let (answers, outcome, flushed) = write_group(&mut self.medium, committer, batches)?;
		let wrote = outcome.is_some();
		if let (Some(committer), Some(outcome)) = (&mut self.committer, outcome) {
			committer.took_effect(outcome);
		}
		Ok((answers, wrote, flushed))
	}

	fn alive(&self) -> Result<(), StoreError> {
		match &self.poisoned {
			Some(because) => Err(StoreError::Poisoned { because: because.clone() }),
			None => Ok(()),
		}
	}
}

fn write_group<M: Medium>(
	medium: &mut M, committer: &Committer, batches: &[Batch],
) -> Result<(Answers, Option<Outcome>, bool), StoreError> {
	medium.foresee(batches)?;
	let decided = decide(medium, committer, batches);
	// What was fetched for these batches is not for anybody else.
	medium.foresee(&[])?;
	let (answers, decided) = decided?;
	let Some((writes, outcome)) = decided else { return Ok((answers, None, false)) };
	let durability = batches.iter().map(Batch::required_durability).max().unwrap_or_default();
	medium.write(writes, durability)?;
	Ok((answers, Some(outcome), durability == Durability::Sync))
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
