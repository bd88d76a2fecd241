// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A lock on a file of its own, beside a database.
//!
//! SQLite's own locks are POSIX locks: a process drops them by opening and closing the database file
//! once more, for a copy, say. The lock here is one of an open file (`flock`): it ends when its
//! holder does, and nothing else ends it. It also keeps two handles of one process apart.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fs4::{FileExt, TryLockError};
use leyden_store::StoreError;

use crate::files::private;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// A lock that is held until it is dropped. The file stays: to remove it would let somebody else
/// lock another one of that name.
#[derive(Debug)]
pub(crate) struct FileLock {
	file: File,
}

impl Drop for FileLock {
	/// A child that is being started has the open file, too, until its program runs: closing ours
	/// would not end the lock.
	fn drop(&mut self) {
		let _ = FileExt::unlock(&self.file);
	}
}

impl FileLock {
	/// Locks the file `database` with `-` and `name` behind it, which is created if there is none.
	///
	/// # Errors
	/// [`StoreError::Locked`] if another handle has it for longer than `patience`, in this process
	/// or another; [`StoreError::NotAStore`] if the file cannot be created.
	pub(crate) fn take(
		database: &Path, name: &str, patience: Duration,
	) -> Result<Self, StoreError> {
		let path = beside(database, name);
		let file = create_private(&path).map_err(|error| {
			let place = database.display().to_string();
			let reason = match (database.is_dir(), database.exists()) {
				(true, _) => "it is a directory".to_owned(),
				(false, true) => {
					let path = path.display();
					format!("its lock {path} cannot be opened ({error}); check its permissions")
				},
				(false, false) => {
					"it cannot be created; check that its directory exists and can be \
				                   written"
						.to_owned()
				},
			};
			StoreError::NotAStore { place, reason }
		})?;
		let since = Instant::now();
		loop {
			match FileExt::try_lock(&file) {
				Ok(()) => return Ok(Self { file }),
				Err(TryLockError::WouldBlock) => {},
				Err(TryLockError::Error(error)) => {
					let source = Arc::new(error);
					return Err(StoreError::Engine { doing: "locking the database", source });
				},
			}
			if since.elapsed() >= patience {
				return Err(StoreError::Locked { place: database.display().to_string() });
			}
			thread::sleep(PAUSE);
		}
	}
}

/// Opens a file, or creates one that nobody but its owner reads.
///
/// # Errors
/// The system's.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
	let mut options = OpenOptions::new();
	private(options.read(true).write(true).create(true).truncate(false)).open(path)
}

fn beside(database: &Path, name: &str) -> PathBuf {
	let mut path = database.as_os_str().to_owned();
	path.push("-");
	path.push(name);
	path.into()
}
