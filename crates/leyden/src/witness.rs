// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The witness of a database in a file, and what accepts an older one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use leyden_log::{LogError, LogReader};
use leyden_store::witness::{accept, check, FileWitness};
use leyden_store::{Namespace, StoreError};

use crate::backup::ToldAgain;
use crate::StoreUrl;

impl StoreUrl {
	/// Returns the witness beside the database of this place: a file with its name and `-witness`, and
	/// the namespace unless that is `default`. `None` for a place that is no file.
	pub fn witness(&self, namespace: &Namespace) -> Option<FileWitness> {
		let path: &Path = match self {
			Self::Sqlite(path) | Self::Redb(path) => path,
			Self::Postgres(_) | Self::Memory => return None,
		};
		// The same for every name of the database, and for every directory of the process.
		let path = resolved(path);
		let mut name = path.into_os_string();
		name.push("-witness");
		if *namespace != Namespace::default() {
			name.push("-");
			name.push(namespace.name());
		}
		Some(FileWitness::new(PathBuf::from(name)))
	}

	/// Returns why the database at this place is refused by its witness. Nothing is written.
	///
	/// # Errors
	/// [`StoreError::Invalid`] for a place without a file, for a namespace that is not there, and for a
	/// database that is opened as it is; the store's.
	pub fn refused(&self, namespace: &Namespace) -> Result<&'static str, StoreError> {
		let Some(witness) = self.witness(namespace) else {
			return Err(StoreError::invalid(format!("{self} has no witness of its own")));
		};
		// Before it is opened: nothing is created for a name that was mistyped.
		if !self.namespaces()?.contains(namespace) {
			return Err(StoreError::invalid(format!("{self} has no namespace {namespace}")));
		}
		match check(&*self.open_read_only(namespace.clone())?, &witness) {
			Err(StoreError::Restored { reason, .. }) => Ok(reason),
			Err(error) => Err(error),
			Ok(_) => {
				let text =
					format!("{self} is no older than its witness knows: nothing is to be accepted");
				Err(StoreError::invalid(text))
			},
		}
	}

	/// Accepts the database at this place, although it is older than its witness knows, another one,
	/// or a copy. It gets a new identity: cursors of readers are refused, and payouts are frozen until
	/// an operator has looked. Returns what a node on it will be told again.
	///
	/// # Errors
	/// [`StoreError::Invalid`] for a place without a file, whose witness only its program knows (see
	/// [`accept`]), for a namespace that is not there, and for a database that is opened as it is. The
	/// store's; it must not be in use.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the store opens. A crash before that leaves it refused.
	pub fn accept(&self, namespace: &Namespace) -> Result<Vec<ToldAgain>, LogError> {
		let Some(witness) = self.witness(namespace) else {
			let text = format!("{self} has no witness of its own");
			return Err(StoreError::invalid(text).into());
		};
		self.refused(namespace)?;
		let store = self.open(namespace.clone())?;
		let told_again = told_again(&LogReader::new(Arc::clone(&store)), namespace)?;
		accept(&*store, &witness)?;
		Ok(told_again)
	}
}

/// Returns the path of a file that may not be there yet, without links and from the root on.
fn resolved(path: &Path) -> PathBuf {
	/// The most links that are followed.
	const MOST: usize = 32;
	let mut path = path.to_owned();
	for _ in 0..MOST {
		if let Ok(whole) = path.canonicalize() {
			return whole;
		}
		let parent = path.parent().filter(|parent| *parent != Path::new(""));
		let parent = parent.unwrap_or(Path::new(".")).to_owned();
		// A link whose end is not there yet.
		if let Ok(target) = path.read_link() {
			path = parent.join(target);
			continue;
		}
		let parent = parent.canonicalize().unwrap_or(parent);
		return path.file_name().map_or(path.clone(), |name| parent.join(name));
	}
	path
}

/// Returns what each consumer has not acked.
pub(crate) fn told_again(
	reader: &LogReader, namespace: &Namespace,
) -> Result<Vec<ToldAgain>, LogError> {
	let mut told_again = Vec::new();
	for stream in reader.streams()? {
		for consumer in &stream.consumers {
			let unacked = reader.unacked_count(&stream.name, &consumer.name)?;
			told_again.push(ToldAgain {
				namespace: namespace.clone(),
				stream: stream.name.clone(),
				consumer: consumer.name.clone(),
				unacked,
				newest: stream.head,
			});
		}
	}
	Ok(told_again)
}
