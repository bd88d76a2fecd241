// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a commit answers.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::batch::Slot;
use crate::record::Version;

/// What became of one append.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Appended {
	/// It was written and given this number.
	New(NonZeroU64),
	/// It had been appended before, under this number; nothing was written for it.
	Known(NonZeroU64),
}

impl Appended {
	/// The number, whether it is of now or of then.
	pub fn number(self) -> NonZeroU64 {
		match self {
			Self::New(number) | Self::Known(number) => number,
		}
	}

	/// Whether something was written.
	pub fn is_new(self) -> bool {
		matches!(self, Self::New(_))
	}
}

/// The answer to a batch that is durable.
#[derive(Clone, Debug)]
pub struct Committed {
	version: Version,
	appended: Arc<[Appended]>,
	/// The part of `appended` that belongs to the batch that asked; see `Batch::and`.
	base: usize,
	count: usize,
}

impl Committed {
	/// For backends: a batch was committed as `version`, and its appends ended like this.
	pub fn new(version: Version, appended: Vec<Appended>) -> Self {
		let count = appended.len();
		Self { version, appended: appended.into(), base: 0, count }
	}

	/// The version of every record that the batch wrote.
	pub fn version(&self) -> Version {
		self.version
	}

	/// What became of the append that `slot` stands for; `None` for a slot of another batch.
	pub fn appended(&self, slot: Slot) -> Option<Appended> {
		self.appends().get(slot.index()).copied()
	}

	/// What became of all appends of the batch, in order.
	pub fn appends(&self) -> &[Appended] {
		self.appended.get(self.base..self.base + self.count).unwrap_or_default()
	}

	/// The answer for the part of a merged batch that has `count` appends from `base` on.
	pub(crate) fn part(&self, base: usize, count: usize) -> Self {
		Self { base: self.base + base, count, ..self.clone() }
	}
}
