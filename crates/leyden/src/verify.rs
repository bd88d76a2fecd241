// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The check of a whole store: nothing is damaged, and nothing is missing.
//!
//! # What is checked
//! The engine's own structure (SQLite's `integrity_check`), the checksum of every record in every
//! namespace, and what belongs together in the logs:
//! [`LogReader::verify`](leyden_log::LogReader::verify).
//!
//! # What no check can find
//! A record that is missing altogether and that nothing else speaks of: an ack (its entry is
//! delivered again), or everything from some time on, as in a database that was restored from an
//! older copy.

use std::sync::Arc;

use leyden_log::{LogError, LogReader};
use leyden_store::committer::INTERNAL_TABLE;
use leyden_store::group::Portable;
use leyden_store::verify::{is_finding, Findings};
use leyden_store::{KeyRange, Namespace, Store, StoreError};

use crate::StoreUrl;

/// The most findings that are told; more are counted.
pub const MAX_FINDINGS: usize = 100;

/// The result of a check.
#[derive(Clone, Debug)]
pub struct Verified {
	/// The namespaces that were checked.
	pub namespaces: Vec<Namespace>,
	/// The number of records that were read and are in order.
	pub records: u64,
	/// The problems, each with the namespace that it is in.
	pub problems: Vec<Problem>,
	/// The number of problems beyond [`MAX_FINDINGS`] in a namespace, which are not told.
	pub left_out: u64,
	/// A flag that the check ended early, so that not all was read.
	pub is_cut_short: bool,
}

/// Something that is damaged or missing.
#[derive(Clone, Debug)]
pub struct Problem {
	/// The namespace, or `None` for the engine's structure.
	pub namespace: Option<Namespace>,
	/// The problem, with table and key if it is in a record.
	pub error: StoreError,
}

impl Verified {
	/// Returns `true` if nothing was found.
	pub fn is_clean(&self) -> bool {
		self.problems.is_empty() && self.left_out == 0
	}
}

impl StoreUrl {
	/// Checks everything in the store at this place, in all namespaces. Nothing is written. A SQLite
	/// or PostgreSQL store may be in use meanwhile; a redb file may not.
	///
	/// # Errors
	/// As [`open_read_only`](StoreUrl::open_read_only). What is damaged is no error but a
	/// [`Problem`].
	pub fn verify(&self) -> Result<Verified, LogError> {
		let namespaces = self.namespaces()?;
		if namespaces.is_empty() {
			let reason = "there is no namespace in it, so nothing was checked".to_owned();
			return Err(StoreError::NotAStore { place: self.to_string(), reason }.into());
		}
		let mut verified = Verified {
			namespaces: namespaces.clone(),
			records: 0,
			problems: Vec::new(),
			left_out: 0,
			is_cut_short: false,
		};
		for (number, namespace) in namespaces.iter().enumerate() {
			let store: Arc<dyn Portable> = self.open_to_look(namespace.clone())?;
			if number == 0 {
				verified.check_engine(&*store, &self.to_string())?;
			}
			verified.check_records(&store, namespace, Findings::new(MAX_FINDINGS))?;
		}
		Ok(verified)
	}
}

impl Verified {
	/// Checks the records of one namespace of an open store, up to about so many; not the structure of the
	/// engine, which is as large as the file. What was found before an error is returned with it.
	pub(crate) fn of_open(
		store: &Arc<dyn Portable>, namespace: &Namespace, most_records: u64,
	) -> (Self, Result<(), LogError>) {
		let mut verified = Self {
			namespaces: vec![namespace.clone()],
			records: 0,
			problems: Vec::new(),
			left_out: 0,
			is_cut_short: false,
		};
		let findings = Findings::new(MAX_FINDINGS).up_to(most_records);
		let done = verified.check_records(store, namespace, findings);
		(verified, done)
	}

	/// Checks the structure of the engine.
	fn check_engine(&mut self, store: &dyn Portable, place: &str) -> Result<(), StoreError> {
		let damaged = |reason| StoreError::NotAStore { place: place.to_owned(), reason };
		let problem = |error| Problem { namespace: None, error };
		match store.check() {
			Ok(lines) => self.problems.extend(lines.into_iter().map(damaged).map(problem)),
			Err(error) if is_finding(&error) => self.problems.push(problem(error)),
			Err(error) => return Err(error),
		}
		Ok(())
	}

	fn check_records(
		&mut self, store: &Arc<dyn Portable>, namespace: &Namespace, mut findings: Findings,
	) -> Result<(), LogError> {
		let done = match verify_namespace(store, &mut findings) {
			// There is no way on in this namespace; what was found before is told.
			Err(LogError::Store(error)) if is_finding(&error) => {
				findings.add(error);
				Ok(())
			},
			done => done,
		};
		self.records += findings.records();
		self.left_out += findings.left_out();
		self.is_cut_short |= findings.is_cut_short();
		let problem = |error: &StoreError| Problem {
			namespace: Some(namespace.clone()),
			error: error.clone(),
		};
		self.problems.extend(findings.errors().iter().map(problem));
		done
	}
}

fn verify_namespace(store: &Arc<dyn Portable>, findings: &mut Findings) -> Result<(), LogError> {
	// The logs first: what belongs together is checked there, and a check may have to end early.
	let whole: Arc<dyn Store> = Arc::new(Arc::clone(store));
	match LogReader::new(whole).verify(findings) {
		Err(LogError::Store(error)) if is_finding(&error) => findings.add(error),
		done => done?,
	}
	for table in store.tables()? {
		// Those of the logs are read.
		if table == INTERNAL_TABLE || !table.name().starts_with("log_") {
			findings.each::<LogError>(&**store, KeyRange::all(table), |_, _, _| Ok(()))?;
		}
	}
	Ok(())
}
