// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What can go wrong with a store, apart from what can go wrong with the protocols on top of it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::batch::Expectation;
use crate::group::MoveMark;
use crate::key::{Key, Table};
use crate::record::{Epoch, Version};

/// The error of an engine below, kept as it came.
pub type Source = Arc<dyn Error + Send + Sync>;

/// Why a store did not do what it was asked.
///
/// Two variants need more than a message. After [`Indeterminate`](StoreError::Indeterminate) nobody
/// knows whether the batch is durable: open the store again and look. After that, and after every
/// failed flush, the handle answers [`Poisoned`](StoreError::Poisoned): a flush that is tried again
/// may report success for pages that the kernel already dropped.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreError {
	/// An expectation of the batch did not hold. Nothing was written.
	Conflict {
		/// The record in question.
		key: Key,
		/// What the batch expected of it.
		expected: Expectation,
		/// The version that was found, if the record exists.
		found: Option<Version>,
	},
	/// Another writer has opened this namespace since. Nothing was written, and nothing will be.
	Fenced {
		/// The epoch of this handle.
		ours: Epoch,
		/// The epoch that the store is at.
		found: Epoch,
	},
	/// The records of this namespace are moving to another store, or from one, or have moved.
	Moved {
		/// What is known of that.
		mark: MoveMark,
		/// Which store.
		place: String,
	},
	/// Another process has the store open.
	Locked {
		/// Which store.
		place: String,
	},
	/// It is not known whether the batch is durable (a lost reply, a failed flush).
	Indeterminate {
		/// What was being done.
		doing: &'static str,
		/// What the engine said.
		source: Source,
	},
	/// An earlier failure made this handle unusable. Open the store again and replay.
	Poisoned {
		/// The earlier failure.
		because: String,
	},
	/// Something is over its limit. Nothing was written.
	TooLarge {
		/// What is too large.
		what: &'static str,
		/// The limit.
		limit: usize,
		/// What it is.
		found: usize,
	},
	/// The medium is full. Nothing was written; free some space and try again.
	NoSpace {
		/// Which store.
		place: String,
	},
	/// The medium cannot be written. Nothing was written.
	ReadOnly {
		/// Which store.
		place: String,
	},
	/// A record is damaged. It is left as it is, and nothing is skipped in its stead.
	Corrupt {
		/// The table.
		table: Table,
		/// The key, in hex.
		key: String,
		/// What is wrong with it.
		reason: String,
	},
	/// A record or a store was written by a newer version of this software.
	Newer {
		/// What is newer.
		what: String,
		/// The version found.
		found: u32,
		/// The newest version that this software knows.
		known: u32,
	},
	/// What was to be opened is not a store of ours. It is left as it is.
	NotAStore {
		/// What was opened.
		place: String,
		/// What tells.
		reason: String,
	},
	/// The database is older than its [`Witness`](crate::witness::Witness) knows, or another one, or a
	/// copy. Nothing is written but the epoch of the handle that was refused.
	Restored {
		/// The place of the witness.
		witness: String,
		/// The difference that was found.
		reason: &'static str,
	},
	/// The request makes no sense (an empty key, a key written twice in one batch).
	Invalid {
		/// What makes no sense.
		reason: String,
	},
	/// The engine could not do it just now. Nothing was written; try again.
	Unavailable {
		/// What was being done.
		doing: &'static str,
		/// What the engine said.
		source: Source,
	},
	/// The engine failed in another way. Nothing was written.
	Engine {
		/// What was being done.
		doing: &'static str,
		/// What the engine said.
		source: Source,
	},
}

impl StoreError {
	/// An [`Invalid`](StoreError::Invalid) error.
	pub fn invalid(reason: impl Into<String>) -> Self {
		Self::Invalid { reason: reason.into() }
	}

	/// A [`Corrupt`](StoreError::Corrupt) error about the record at `key`.
	pub fn corrupt(key: &Key, reason: impl Into<String>) -> Self {
		let hex = key.bytes().iter().map(|b| format!("{b:02x}")).collect();
		Self::Corrupt { table: key.table(), key: hex, reason: reason.into() }
	}

	/// Whether the same request may succeed later, on the same handle and with nothing repaired.
	///
	/// `Conflict` is not: the caller must look first. `Indeterminate` is not: the batch may be
	/// durable.
	pub fn is_retriable(&self) -> bool {
		matches!(self, Self::Unavailable { .. } | Self::NoSpace { .. } | Self::Locked { .. })
	}

	/// Whether the handle that answered this will never commit again.
	pub fn ends_handle(&self) -> bool {
		matches!(self, Self::Poisoned { .. } | Self::Fenced { .. } | Self::Indeterminate { .. })
	}

	/// `Ok` if `found` is within `limit`.
	pub(crate) fn limit(what: &'static str, limit: usize, found: usize) -> Result<(), Self> {
		if found > limit {
			return Err(Self::TooLarge { what, limit, found });
		}
		Ok(())
	}
}

impl fmt::Display for StoreError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Conflict { key, expected, found } => {
				write!(f, "conflict at {key}: expected {expected}, found ")?;
				match found {
					Some(version) => write!(f, "version {version}"),
					None => f.write_str("no record"),
				}
			},
			Self::Fenced { ours, found } => write!(
				f,
				"fenced: this handle is of epoch {ours}, another writer raised it to {found}; stop \
				 this process, or open the store again once the other writer is gone"
			),
			Self::Moved { mark: MoveMark { leaves: true, done, other }, place } => {
				let have = if *done { "have moved" } else { "are moving" };
				write!(f, "the records of {place} {have} to {other}; use that store")
			},
			Self::Moved { mark: MoveMark { other, .. }, place } => write!(
				f,
				"the records of {other} are moving to {place} and not all are there; finish it with \
				 leyden migrate"
			),
			Self::Locked { place } => write!(
				f,
				"{place} is open in another process; stop that process, or wait until it ends"
			),
			Self::Indeterminate { doing, source } => write!(
				f,
				"{doing}: it is not known whether the batch is durable ({source}); open the store \
				 again and look"
			),
			Self::Poisoned { because } => {
				write!(f, "this handle is unusable since: {because}; open the store again")
			},
			Self::TooLarge { what, limit, found } => {
				write!(f, "{what}: {found} is over the limit of {limit}")
			},
			Self::NoSpace { place } => {
				write!(f, "no space left for {place}; nothing was written, free some and try again")
			},
			Self::ReadOnly { place } => {
				write!(f, "{place} cannot be written; check its permissions and the mount")
			},
			Self::Corrupt { table, key, reason } => write!(
				f,
				"damaged record {table}/{key}: {reason}; it was left as it is, restore it from a backup"
			),
			Self::Newer { what, found, known } => write!(
				f,
				"{what} has version {found}, this software knows up to {known}; use a newer version"
			),
			Self::NotAStore { place, reason } => {
				write!(f, "{place} is not a Leyden store: {reason}; it was left as it is")
			},
			Self::Restored { witness, reason } => write!(
				f,
				"the database is not the one of the witness at {witness}: {reason}. What was done since \
				 would be done again: payments may have been sent, and events handled, of which it knows \
				 nothing. Put the newest database back in its place, with its log; if there is none, look at it with \
				 `leyden list`, and accept it with `leyden accept`"
			),
			Self::Invalid { reason } => f.write_str(reason),
			Self::Unavailable { doing, source } => {
				write!(f, "{doing}: {source}; nothing was written, try again")
			},
			Self::Engine { doing, source } => write!(f, "{doing}: {source}"),
		}
	}
}

impl Error for StoreError {
	fn source(&self) -> Option<&(dyn Error + 'static)> {
		match self {
			Self::Indeterminate { source, .. }
			| Self::Unavailable { source, .. }
			| Self::Engine { source, .. } => Some(&**source),
			_ => None,
		}
	}
}
