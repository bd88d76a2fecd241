// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What SQLite's errors mean for a store.

use std::path::Path;
use std::sync::Arc;

use leyden_store::StoreError;
use rusqlite::{Error, ErrorCode};

/// What an error means that came before anything could have been written.
pub(super) fn not_written(doing: &'static str, place: &str, error: Error) -> StoreError {
	let place = place.to_owned();
	match error.sqlite_error_code() {
		Some(ErrorCode::DiskFull) => StoreError::NoSpace { place },
		Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { place },
		Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { place },
		Some(ErrorCode::NotADatabase) => {
			StoreError::NotAStore { place, reason: "it is not a SQLite database".to_owned() }
		},
		Some(ErrorCode::DatabaseCorrupt) => StoreError::NotAStore {
			place,
			reason: format!("SQLite finds it damaged ({error}); restore it from a backup"),
		},
		_ => StoreError::Engine { doing, source: Arc::new(error) },
	}
}

/// What an error means that came while a transaction was written or flushed: nothing was written if
/// SQLite says so and could take it back; otherwise nobody knows.
pub(super) fn while_writing(place: &str, error: Error) -> StoreError {
	match error.sqlite_error_code() {
		Some(
			ErrorCode::DiskFull
			| ErrorCode::ReadOnly
			| ErrorCode::DatabaseBusy
			| ErrorCode::DatabaseLocked
			| ErrorCode::OutOfMemory
			| ErrorCode::TooBig,
		) => not_written("committing", place, error),
		_ => StoreError::Indeterminate { doing: "committing", source: Arc::new(error) },
	}
}

pub(super) fn opening(path: &Path, error: Error) -> StoreError {
	let place = path.display().to_string();
	if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) {
		let reason = if path.is_dir() {
			"it is a directory"
		} else if path.exists() {
			"it cannot be opened; check its permissions"
		} else {
			"it cannot be created; check that its directory exists and can be written"
		};
		return StoreError::NotAStore { place, reason: reason.to_owned() };
	}
	not_written("opening the database", &place, error)
}
