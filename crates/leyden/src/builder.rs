// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Says where a store is, and opens it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use leyden_log::LogError;
use leyden_store::group::{Portable, StoreEvent};
use leyden_store::witness::{Witness, WitnessedStore};
use leyden_store::{Clock, Namespace, Store, StoreError, SystemClock};

use crate::verify::Verified;
use crate::{Leyden, StoreUrl};

/// Made by [`Leyden::builder`].
#[must_use = "nothing is opened until `open` is called"]
pub struct LeydenBuilder {
	url: Option<StoreUrl>,
	namespace: Namespace,
	clock: Arc<dyn Clock>,
	witness: Choice,
	most_checked: u64,
}

/// The most records that are checked when a store is opened that its last process has not closed, unless
/// another number is set.
pub const MAX_CHECKED_RECORDS: u64 = 2_500_000;

/// The most problems of that check that are told one by one; the rest is in [`Leyden::checked`].
const MOST_TOLD: usize = 10;

/// The witness of the database.
enum Choice {
	/// A file beside it, if it is in a file.
	Beside,
	Own(Box<dyn Witness>),
	None,
}

impl LeydenBuilder {
	pub(crate) fn new() -> Self {
		let clock = Arc::new(SystemClock);
		Self {
			url: None,
			namespace: Namespace::default(),
			clock,
			witness: Choice::Beside,
			most_checked: MAX_CHECKED_RECORDS,
		}
	}

	/// In a SQLite database at this path, created if there is none.
	pub fn sqlite(self, path: impl Into<PathBuf>) -> Self {
		self.url(StoreUrl::Sqlite(path.into()))
	}

	/// At this URL. [`StoreUrl::Memory`] is a place like any other, and has to be named.
	pub fn url(mut self, url: StoreUrl) -> Self {
		self.url = Some(url);
		self
	}

	/// In this namespace; `default` without. A store may hold several nodes.
	pub fn namespace(mut self, namespace: Namespace) -> Self {
		self.namespace = namespace;
		self
	}

	/// With this clock; the machine's without.
	pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
		self.clock = clock;
		self
	}

	/// Sets the witness of how far the database is, for a better place than a file beside it. See
	/// [`witness`](leyden_store::witness). The tools (`leyden accept`, `leyden migrate`) know the file
	/// only: a program with a witness of its own accepts an older database with
	/// [`accept`](leyden_store::witness::accept).
	pub fn witness(mut self, witness: impl Witness + 'static) -> Self {
		self.witness = Choice::Own(Box::new(witness));
		self
	}

	/// Leaves the witness out: a database that was restored from an older copy is opened like any other.
	pub fn without_witness(mut self) -> Self {
		self.witness = Choice::None;
		self
	}

	/// Sets the number of records up to which a store is checked that its last process has not closed, as
	/// after a crash: [`MAX_CHECKED_RECORDS`] without, 0 for no check. See
	/// [`Leyden::checked`]. Only a store with a witness knows how it was left.
	pub fn check_after_crash(mut self, most_records: u64) -> Self {
		self.most_checked = most_records;
		self
	}

	/// Opens it. A database in a file has a witness beside it, the file `NAME-witness`.
	///
	/// A store that its last process has not closed is [checked](LeydenBuilder::check_after_crash) first.
	/// What is found does not keep it from being opened: the observers of the store are told, and with
	/// them the node's log.
	///
	/// # Errors
	/// [`StoreError::Invalid`] if no place was named; [`StoreError::Restored`] if the database is older
	/// than its witness knows, another one, or a copy of one that was in use; the store's, if it cannot be opened or is no
	/// store of ours; the log's.
	///
	/// # Failure Behavior and Persistence
	/// Opening raises the epoch of the namespace: from then on, an older writer is fenced off. A
	/// crash in the middle leaves a store that opens.
	pub fn open(self) -> Result<Leyden, LogError> {
		let Some(url) = self.url else {
			let text = "no place for the store: name one with `sqlite(path)` or `url(…)`, \
			            `StoreUrl::Memory` for one that is forgotten";
			return Err(StoreError::invalid(text).into());
		};
		let witness = match self.witness {
			Choice::Beside => {
				let beside = url.witness(&self.namespace);
				beside.map(|witness| Box::new(witness) as Box<dyn Witness>)
			},
			Choice::Own(witness) => Some(witness),
			Choice::None => None,
		};
		let Some(witness) = witness else {
			return Leyden::on(url.open(self.namespace)?, self.clock);
		};
		if url == StoreUrl::Memory {
			let store = url.open(self.namespace)?;
			return Leyden::on(Arc::new(WitnessedStore::open(store, witness)?), self.clock);
		}
		let whole = url.open_whole(self.namespace.clone())?;
		let store: Arc<dyn Store> = Arc::new(Arc::clone(&whole));
		let witnessed = WitnessedStore::open(store, witness)?;
		// A server is not read from end to end when a node starts.
		let is_file = matches!(url, StoreUrl::Sqlite(_) | StoreUrl::Redb(_));
		let checked = match witnessed.was_left_open() && is_file && self.most_checked > 0 {
			true => check(&whole, &url.to_string(), &self.namespace, self.most_checked, &witnessed),
			false => None,
		};
		drop(whole);
		let mut leyden = Leyden::on(Arc::new(witnessed), self.clock)?;
		leyden.checked = checked.map(Arc::new);
		Ok(leyden)
	}
}

/// Checks a store that its last process has not closed, and has its observers told of what is wrong.
fn check(
	store: &Arc<dyn Portable>, place: &str, namespace: &Namespace, most: u64,
	witnessed: &WitnessedStore,
) -> Option<Verified> {
	let not_all = |records, reason| {
		let place = place.to_owned();
		witnessed.tell_first(StoreEvent::NotAllChecked { place, records, reason });
	};
	let (verified, done) = Verified::of_open(store, namespace, most);
	for problem in verified.problems.iter().take(MOST_TOLD) {
		let error = problem.error.clone();
		witnessed.tell_first(StoreEvent::DamageFound { place: place.to_owned(), error });
	}
	let untold = verified.problems.len().saturating_sub(MOST_TOLD) as u64 + verified.left_out;
	if untold > 0 {
		let reason = format!("and {untold} more problems");
		let error = StoreError::NotAStore { place: place.to_owned(), reason };
		witnessed.tell_first(StoreEvent::DamageFound { place: place.to_owned(), error });
	}
	match done {
		Err(error) => not_all(verified.records, error.to_string()),
		Ok(()) if verified.is_cut_short => {
			not_all(verified.records, format!("it checks about {most} of them"));
		},
		Ok(()) => {},
	}
	Some(verified)
}

impl fmt::Debug for LeydenBuilder {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match &self.url {
			Some(url) => write!(f, "LeydenBuilder for {url} ({})", self.namespace),
			None => write!(f, "LeydenBuilder for no place ({})", self.namespace),
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn a_store_without_a_place_is_not_opened() {
		let error = Leyden::builder().open().map(|_| ()).unwrap_err();
		assert!(matches!(&error, LogError::Store(StoreError::Invalid { .. })), "{error}");
		assert!(error.to_string().contains("sqlite(path)"), "{error}");
		assert!(Leyden::builder().url(StoreUrl::Memory).open().is_ok());
	}
}
