// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The files of a database: readable by their owner only, and the same from the opening on.
//!
//! A file that is removed or replaced under its node (restored, moved, synchronised by another
//! machine) still takes writes, and all of them are gone with the process.
//!
//! SQLite removes its log (`-wal`) when the last connection closes. What tells it that another one is
//! left is a POSIX lock, and a process drops its POSIX locks on a file by opening and closing that
//! file once more, for a copy, say. A program that then closes the database for writing takes
//! itself for the last one. Everything that was committed before is in the database by then, but
//! the handle would go on writing into a log that has no name any more.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leyden_store::StoreError;

/// The files of a database, as they were when the handle was opened.
#[derive(Debug)]
pub(crate) struct Files(Vec<(PathBuf, Identity)>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Identity([u64; 2]);

impl Files {
	/// Remembers which files are at these paths.
	///
	/// # Errors
	/// [`StoreError::Unavailable`] if a file is gone already, or cannot be looked at.
	pub(crate) fn of(paths: &[&Path]) -> Result<Self, StoreError> {
		let known = |path: PathBuf| -> Result<_, StoreError> {
			let found = identity(&path).map_err(|error| StoreError::Unavailable {
				doing: "looking at the files of the database",
				source: Arc::new(error),
			})?;
			Ok((path, found))
		};
		let files: Result<_, _> = paths.iter().map(|path| known(path.to_path_buf())).collect();
		Ok(Self(files?))
	}

	/// Makes sure that what was just committed is in files that the next process finds.
	///
	/// # Errors
	/// [`StoreError::Indeterminate`] if a file was removed or replaced.
	pub(crate) fn check(&self) -> Result<(), StoreError> {
		for (path, known) in &self.0 {
			let problem = match identity(path) {
				Ok(found) if found == *known => continue,
				Ok(_) => "it was replaced while the node ran".to_owned(),
				Err(error) if error.kind() == io::ErrorKind::NotFound => {
					format!("it was removed while the node ran ({error})")
				},
				// A process that may not look any more (it gave up privileges, it is in a sandbox)
				// is no reason to stop a node.
				Err(_) => continue,
			};
			let text = format!("{}: {problem}; start the node again", path.display());
			let source = Arc::new(io::Error::other(text));
			return Err(StoreError::Indeterminate { doing: "looking for the files", source });
		}
		Ok(())
	}
}

/// Returns where the file at `path` is or will be: absolute, since a process may change its directory,
/// and behind every link, since SQLite puts its log beside the file itself.
pub(crate) fn resolve(path: &Path) -> PathBuf {
	/// The most links that are followed.
	const MOST: usize = 32;
	let mut path = path.to_owned();
	for _ in 0..MOST {
		if let Ok(real) = std::fs::canonicalize(&path) {
			return real;
		}
		let directory = match path.parent() {
			Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
			_ => PathBuf::from("."),
		};
		// A link whose end is not there yet.
		if let Ok(target) = std::fs::read_link(&path) {
			path = directory.join(target);
			continue;
		}
		let directory = std::fs::canonicalize(&directory).unwrap_or(directory);
		return path.file_name().map_or(path.clone(), |name| directory.join(name));
	}
	path
}

/// Has the file that is created belong to its owner alone: there are preimages in it.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
	#[cfg(unix)]
	std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
	options
}

/// Returns what tells a file from another one of the same name. Nothing else is asked for: a file
/// whose times were looked at takes new times with the next write, and each flush is slower for it
/// (a third for one thread, on Linux 6.18 with ext4).
#[cfg(target_os = "linux")]
fn identity(path: &Path) -> io::Result<Identity> {
	use rustix::fs::{statx, AtFlags, StatxFlags, CWD};
	let found = match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
		Ok(found) => found,
		// Old kernels, and sandboxes that do not know the call.
		Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
			use std::os::unix::fs::MetadataExt;
			return std::fs::metadata(path).map(|found| Identity([found.dev(), found.ino()]));
		},
		Err(error) => return Err(error.into()),
	};
	let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
	Ok(Identity([device, found.stx_ino]))
}

/// Returns what tells a file from another one of the same name.
#[cfg(all(unix, not(target_os = "linux")))]
fn identity(path: &Path) -> io::Result<Identity> {
	use std::os::unix::fs::MetadataExt;
	let found = std::fs::metadata(path)?;
	Ok(Identity([found.dev(), found.ino()]))
}

/// Returns what tells a file from another one of the same name. Elsewhere a file that is open can
/// neither be removed nor replaced.
#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
	std::fs::metadata(path).map(|_| Identity([0, 0]))
}

#[cfg(all(test, unix))]
mod tests {
	use super::*;

	#[test]
	fn a_path_is_absolute_and_behind_every_link_before_there_is_a_file() {
		let dir = tempfile::tempdir().unwrap();
		let real = std::fs::canonicalize(dir.path()).unwrap();
		let (one, two) = (dir.path().join("one"), dir.path().join("two"));
		std::os::unix::fs::symlink("two", &one).unwrap();
		std::os::unix::fs::symlink("file", &two).unwrap();
		for path in [&one, &two, &dir.path().join("file")] {
			assert_eq!(resolve(path), real.join("file"));
		}
		std::fs::write(dir.path().join("file"), "").unwrap();
		assert_eq!(resolve(&one), real.join("file"));
		assert!(resolve(Path::new("not-there-yet")).is_absolute());
		// Links that lead to each other lead nowhere.
		std::os::unix::fs::symlink("ring", dir.path().join("ring")).unwrap();
		let _ = resolve(&dir.path().join("ring"));
	}

	#[test]
	fn a_file_that_may_not_be_looked_at_is_no_reason_to_stop() {
		let dir = tempfile::tempdir().unwrap();
		let path = dir.path().join("file");
		std::fs::write(&path, "").unwrap();
		let files = Files::of(&[&path]).unwrap();
		files.check().unwrap();
		// A file where the directory was: not `NotFound`.
		std::fs::remove_file(&path).unwrap();
		assert!(files.check().is_err());
		std::fs::remove_dir(dir.path()).unwrap();
		std::fs::write(dir.path(), "").unwrap();
		files.check().unwrap();
		std::fs::remove_file(dir.path()).unwrap();
	}
}
