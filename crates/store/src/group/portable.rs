// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Records that move to another store, as they are.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::committer::{RawRead, RawWrite, INTERNAL_TABLE};
use crate::error::StoreError;
use crate::frame;
use crate::key::{Key, Table};
use crate::store::Store;

/// A store whose records can be taken out and put in with their versions.
pub trait Portable: Store {
	/// The tables that have records, in order, the store's own among them.
	///
	/// # Errors
	/// The engine's.
	fn tables(&self) -> Result<Vec<Table>, StoreError>;

	/// Checks what is below the records. Returns what is wrong, in the engine's words; nothing for
	/// an engine that cannot tell.
	///
	/// # Errors
	/// The engine's.
	fn check(&self) -> Result<Vec<String>, StoreError>;

	/// Writes these as they are: in one transaction, past versions, numbers and expectations. What
	/// the handle has in memory is not what is there any more: open the store again to use it.
	///
	/// # Errors
	/// The engine's.
	///
	/// # Failure Behavior and Persistence
	/// All of it is durable when it returns, or nothing is.
	fn import(&self, writes: Vec<RawWrite>) -> Result<(), StoreError>;
}

impl<D> Portable for D
where
	D: Deref + Send + Sync,
	D::Target: Portable,
{
	fn tables(&self) -> Result<Vec<Table>, StoreError> {
		(**self).tables()
	}

	fn check(&self) -> Result<Vec<String>, StoreError> {
		(**self).check()
	}

	fn import(&self, writes: Vec<RawWrite>) -> Result<(), StoreError> {
		(**self).import(writes)
	}
}

/// What stands in a namespace whose records move. Nobody opens it by accident.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MoveMark {
	/// Whether records leave, or arrive.
	pub leaves: bool,
	/// Whether all of them have; of what arrives there is no mark then.
	pub done: bool,
	/// The other place, without a password.
	pub other: String,
}

crate::stored! {
	MoveMark = 0x0003,
}

impl MoveMark {
	/// Where the mark is.
	pub fn key() -> Key {
		Key::new(INTERNAL_TABLE, *b"moves")
	}

	/// The write that puts it there.
	///
	/// # Errors
	/// [`StoreError::TooLarge`] for a place with a name beyond all measure.
	pub fn write(&self) -> Result<RawWrite, StoreError> {
		let frame = frame::encode(&Self::key(), crate::Version::new(1), &codec::encode(self)?);
		Ok((Self::key(), Some(frame)))
	}

	/// The mark, if there is one.
	///
	/// # Errors
	/// The reader's, or [`StoreError::Corrupt`].
	pub fn read(reader: &mut dyn RawRead) -> Result<Option<Self>, StoreError> {
		let key = Self::key();
		let Some(bytes) = reader.read(&key)? else { return Ok(None) };
		codec::decode(&key, &frame::decode(&key, &bytes)?).map(Some)
	}
}
