// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What redb's errors mean for a store.

use std::io::ErrorKind;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use leyden_store::StoreError;
use redb::Error;

/// What an error means that came before anything could have been written.
pub(super) fn not_written(doing: &'static str, place: &str, error: Error) -> StoreError {
	let place = place.to_owned();
	match &error {
		Error::Io(io) if is_full(io.kind()) => StoreError::NoSpace { place },
		Error::Io(io)
			if matches!(io.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) =>
		{
			StoreError::ReadOnly { place }
		},
		Error::DatabaseAlreadyOpen => StoreError::Locked { place },
		Error::Corrupted(what) => StoreError::NotAStore {
			place,
			reason: format!("redb finds it damaged ({what}); restore it from a backup"),
		},
		Error::Io(io) if io.kind() == ErrorKind::InvalidData => {
			StoreError::NotAStore { place, reason: "it is not a redb database".to_owned() }
		},
		Error::UpgradeRequired(version) => StoreError::NotAStore {
			place,
			reason: format!("it is a redb database of the old format {version}"),
		},
		Error::RepairAborted => StoreError::Unavailable {
			doing: "reading a database whose node died; start the node once, or open it to write",
			source: Arc::new(error),
		},
		_ => StoreError::Engine { doing, source: Arc::new(error) },
	}
}

/// What an error means that came while a transaction was written or flushed: redb takes no more
/// writes on that handle, and repairs the database when it is opened again.
pub(super) fn while_writing(error: Error) -> StoreError {
	StoreError::Indeterminate { doing: "committing", source: Arc::new(error) }
}

/// Runs `f`, which uses redb. redb panics on some damaged pages, and that is an error like any other.
///
/// # Errors
/// Those of `f`; [`StoreError::NotAStore`] for a panic.
pub(super) fn caught<T>(
	place: &str, f: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
	catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
		let text = panic.downcast_ref::<String>().map(String::as_str);
		let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
		let reason = format!("redb finds it damaged ({what}); restore it from a backup");
		Err(StoreError::NotAStore { place: place.to_owned(), reason })
	})
}

pub(super) fn opening(path: &Path, error: Error) -> StoreError {
	let place = path.display().to_string();
	if path.is_dir() {
		return StoreError::NotAStore { place, reason: "it is a directory".to_owned() };
	}
	if matches!(&error, Error::Io(io) if io.kind() == ErrorKind::NotFound) {
		let reason = "it cannot be created; check that its directory exists".to_owned();
		return StoreError::NotAStore { place, reason };
	}
	not_written("opening the database", &place, error)
}

fn is_full(kind: ErrorKind) -> bool {
	matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
