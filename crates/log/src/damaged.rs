// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! An entry that cannot be read.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use leyden_id::{EventId, Lane};
use leyden_store::sequence::NumberRecord;
use leyden_store::{Store, StoreError};

use crate::label::{Label, LaneCopy};
use crate::records::StreamKeys;
use crate::types::LogIndex;
use crate::LogError;

/// An entry that is damaged.
///
/// A consumer makes it a dead letter, which holds up its lane until an operator discards it, or
/// requeues it after it was repaired. If not even the lane can be read, everything behind the entry
/// waits, since any of it may be of that lane.
#[derive(Clone, Debug)]
pub struct DamagedEntry {
	pub(crate) index: LogIndex,
	left: Box<Left>,
}

/// The parts of a damaged entry that can be read, and the error.
#[derive(Clone, Debug)]
struct Left {
	label: Option<Label>,
	lane: Option<Lane>,
	error: StoreError,
}

impl DamagedEntry {
	/// Returns the place of the entry.
	pub fn index(&self) -> LogIndex {
		self.index
	}

	/// Returns the id of the event, if that can be read.
	pub fn id(&self) -> Option<EventId> {
		self.label().map(|label| label.id)
	}

	/// Returns the lane of the entry, if that can be read.
	pub fn lane(&self) -> Option<Lane> {
		self.left.lane
	}

	/// Returns the error that names the record and says what is wrong with it.
	pub fn error(&self) -> &StoreError {
		&self.left.error
	}

	pub(crate) fn label(&self) -> Option<Label> {
		self.left.label
	}
}

impl fmt::Display for DamagedEntry {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "entry {} is damaged: {}", self.index, self.error())
	}
}

impl Error for DamagedEntry {
	fn source(&self) -> Option<&(dyn Error + 'static)> {
		Some(self.error())
	}
}

/// Finds out what is left of the entry at `index`, the reading of which has ended with `error`.
pub(crate) async fn examine(
	store: &Arc<dyn Store>, keys: &StreamKeys, index: LogIndex, error: StoreError,
) -> Result<DamagedEntry, LogError> {
	let key = keys.entry(index.get());
	let raw = store.get_raw(&key).await?.unwrap_or_default();
	let label = Label::of_damaged(&raw);
	let Some(found) = label else {
		let left = Left { label, lane: LaneCopy::of_damaged(&raw), error };
		return Ok(DamagedEntry { index, left: Box::new(left) });
	};
	// A whole record in the place of another one is damage, too. Its id tells where it belongs.
	let id_key = keys.id(&found.occurrence());
	let is_of_here = match store.get(&id_key).await {
		Ok(Some(record)) => NumberRecord::read(&id_key, &record).map_or(true, |n| n.0 == index.0),
		Ok(None) => false,
		Err(StoreError::Corrupt { .. }) => true,
		Err(error) => return Err(error.into()),
	};
	let label = label.filter(|_| is_of_here);
	let left = Left { label, lane: label.map(|label| label.lane), error };
	Ok(DamagedEntry { index, left: Box::new(left) })
}
