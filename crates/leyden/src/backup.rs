// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A copy of a running store.
//!
//! # What a copy is
//! Everything in the database, all namespaces of it, as of one moment, in one file. It is checked
//! before it gets its name. A copy of the database file by other means is not that: what was
//! committed last is in another file (`-wal`).
//!
//! # What happens if it is used
//! A copy is the past. A node that is started on it is told again of everything that was not acked
//! then, also of what it has handled since, and knows nothing of what came later. LDK's own state
//! must never go back: restore a copy only if it is the only one left, and read
//! `docs/operations.md` first.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use leyden_log::{LogError, LogReader};
use leyden_store::{Namespace, Store, StoreError};

use crate::verify::Verified;
use crate::{witness, Leyden, StoreUrl};

/// A copy that was made, and what is in it.
#[derive(Clone, Debug)]
pub struct Backup {
	/// The place of the copy; it opens like any store.
	pub place: StoreUrl,
	/// The size of the file, in bytes.
	pub bytes: u64,
	/// The result of its check, which is clean: a copy with a problem is not kept.
	pub verified: Verified,
	/// The entries of which a node that is started on it is told again, by stream and consumer.
	pub told_again: Vec<ToldAgain>,
}

/// The entries of which one consumer is told again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ToldAgain {
	/// The namespace.
	pub namespace: Namespace,
	/// The stream.
	pub stream: String,
	/// The consumer.
	pub consumer: String,
	/// The number of entries that it had not acked at the moment of the copy.
	pub unacked: u64,
	/// The newest entry of the stream at that moment; zero if there was none. Of what came later the
	/// copy knows nothing.
	pub newest: u64,
}

impl Leyden {
	/// Copies the whole database into a new file at `to` while the node runs, and checks the copy.
	/// Commits go on meanwhile; SQLite's log grows until the copy is made.
	///
	/// # Errors
	/// [`StoreError::Invalid`] if there is something at `to` already, or for a store that makes no
	/// copies (PostgreSQL and VSS have tools of their own); [`StoreError::Corrupt`] and
	/// [`StoreError::NotAStore`] if the copy is damaged, as the store must be then; the store's.
	///
	/// # Failure Behavior and Persistence
	/// When it returns the copy is durable under its name. A crash before that leaves none, and
	/// perhaps a file with a number and `.part` behind its name, to be removed by hand.
	pub fn backup(&self, to: impl AsRef<Path>) -> Result<Backup, LogError> {
		let store = self.store();
		let place: fn(PathBuf) -> StoreUrl = match store.guarantees().name {
			"redb" => StoreUrl::Redb,
			_ => StoreUrl::Sqlite,
		};
		copy(&**store, to.as_ref(), place)
	}
}

impl StoreUrl {
	/// Copies the whole database at this place into a new file at `to`, and checks the copy. A
	/// SQLite store may be in use meanwhile, by this process or another; a redb file may not: use
	/// [`Leyden::backup`] in the process that has it.
	///
	/// # Errors
	/// As [`Leyden::backup`], and as [`open_read_only`](StoreUrl::open_read_only).
	///
	/// # Failure Behavior and Persistence
	/// As [`Leyden::backup`].
	pub fn backup(&self, to: impl AsRef<Path>) -> Result<Backup, LogError> {
		let namespace = self.namespaces()?.into_iter().next().unwrap_or_default();
		let store = self.open_read_only(namespace)?;
		let place: fn(PathBuf) -> StoreUrl = match self {
			Self::Redb(_) => StoreUrl::Redb,
			_ => StoreUrl::Sqlite,
		};
		copy(&*store, to.as_ref(), place)
	}
}

fn copy(store: &dyn Store, to: &Path, place: fn(PathBuf) -> StoreUrl) -> Result<Backup, LogError> {
	// SQLite would apply a log that an older file of this name has left.
	for ending in ["", "-wal", "-journal", "-shm"] {
		let there = with_ending(to, ending);
		if there.symlink_metadata().is_ok() {
			let text = format!("{} is there already; a copy replaces nothing", there.display());
			return Err(StoreError::invalid(text).into());
		}
	}
	// Of this call alone: another one may make a copy of the same name.
	let number = COPIES.fetch_add(1, Ordering::Relaxed);
	let part = with_ending(to, &format!(".{}-{number}.part", std::process::id()));
	let made = make(store, &part, &place).and_then(|(verified, told_again)| {
		give_name(&part, to).map_err(|error| failed("naming the copy", error))?;
		let bytes = fs::metadata(to).map_err(|error| failed("looking at the copy", error))?.len();
		Ok(Backup { place: place(to.to_owned()), bytes, verified, told_again })
	});
	// It has its name now, or is not wanted.
	let _ = fs::remove_file(&part);
	made
}

/// The copies that this process has begun.
static COPIES: AtomicU64 = AtomicU64::new(0);

fn with_ending(path: &Path, ending: &str) -> PathBuf {
	let mut path = path.as_os_str().to_owned();
	path.push(ending);
	path.into()
}

fn make(
	store: &dyn Store, part: &Path, place: &fn(PathBuf) -> StoreUrl,
) -> Result<(Verified, Vec<ToldAgain>), LogError> {
	// What a process of this number has left.
	let _ = fs::remove_file(part);
	let mut options = OpenOptions::new();
	options.write(true).create_new(true);
	#[cfg(unix)]
	std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
	let file = options.open(part).map_err(|error| failed("creating the copy", error))?;
	store.copy_to(part)?;
	file.sync_all().map_err(|error| failed("flushing the copy", error))?;
	drop(file);
	let copy = place(part.to_owned());
	let verified = copy.verify()?;
	if let Some(problem) = verified.problems.first() {
		return Err(problem.error.clone().into());
	}
	let mut told_again = Vec::new();
	for namespace in &verified.namespaces {
		let reader = LogReader::new(Arc::clone(&copy.open_read_only(namespace.clone())?));
		told_again.extend(witness::told_again(&reader, namespace)?);
	}
	Ok((verified, told_again))
}

/// Gives the copy its name, unless there is something of that name meanwhile.
fn give_name(part: &Path, to: &Path) -> io::Result<()> {
	match fs::hard_link(part, to) {
		Ok(()) => {},
		Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
		// Some file systems have no links. The name is taken first, so that nothing is replaced.
		Err(_) => {
			OpenOptions::new().write(true).create_new(true).open(to)?;
			fs::rename(part, to)?;
		},
	}
	let directory = match to.parent() {
		Some(parent) if !parent.as_os_str().is_empty() => parent,
		_ => Path::new("."),
	};
	File::open(directory)?.sync_all()
}

fn failed(doing: &'static str, error: io::Error) -> LogError {
	StoreError::Engine { doing, source: Arc::new(error) }.into()
}
