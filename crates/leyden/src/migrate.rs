// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Records that move to another store: indexes, ids, versions, epochs and tombstones as they are.
//!
//! # In which order
//! First the source is marked, and from then on nobody opens it to write. Then the records are
//! copied, in the order of their keys, and the destination is marked until all are there. Then both
//! are read again and compared. At last the destination becomes a store and the mark of the source
//! says where its records went.
//!
//! # What a crash does
//! Whatever was copied is kept; the same call goes on behind it. Until it has ended, neither store
//! can be opened by a node.

use std::sync::Arc;

use bitcoin::hashes::{sha256, Hash, HashEngine};
use leyden_store::committer::{RawWrite, INTERNAL_TABLE};
use leyden_store::group::{MoveMark, Portable};
use leyden_store::{frame, witness, Key, KeyRange, Namespace, StoreError, Table};

use crate::StoreUrl;

/// Records that are copied in one transaction.
const PAGE: usize = 1_000;

/// What was moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moved {
	/// Records, without the store's own.
	pub records: u64,
	/// Records that were there already, from an earlier try.
	pub found: u64,
	/// SHA-256 over tables, keys and frames, in order; the same in both stores.
	pub digest: [u8; 32],
}

/// How far it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
	/// So many records were copied, of this table now.
	Copied(u64, Table),
	/// So many records were compared.
	Compared(u64),
}

/// Moves the records of a namespace. Call it again after a crash, with the same two stores.
///
/// # Errors
/// [`StoreError::Locked`] while a writer has one of the stores, [`StoreError::Restored`] if the source
/// is older than its witness knows, [`StoreError::Moved`] if the source
/// is moving elsewhere, [`StoreError::Invalid`] if the destination has records of its own or one
/// that differs, and the stores'.
///
/// # Failure Behavior and Persistence
/// When it returns, all records are durable in the destination, and the source says where they are;
/// nothing was deleted there. Before that, neither store opens for a node.
pub fn migrate(
	from: &StoreUrl, to: &StoreUrl, namespace: &Namespace, mut progress: impl FnMut(Progress),
) -> Result<Moved, StoreError> {
	if from == to {
		return Err(StoreError::invalid("a store cannot be moved to itself"));
	}
	if !from.namespaces()?.contains(namespace) {
		return Err(StoreError::invalid(format!("{from} has no namespace {namespace}")));
	}
	let source = from.open_to_move(namespace.clone())?;
	if let Some(file) = from.witness(namespace) {
		witness::check(&*source, &file)?;
	}
	let leaving = MoveMark { leaves: true, done: false, other: to.to_string() };
	let begun = match mark_of(&*source)? {
		Some(mark) if mark == leaving => true,
		Some(mark) => return Err(StoreError::Moved { mark, place: from.to_string() }),
		None => false,
	};
	let target = to.open_to_move(namespace.clone())?;
	let arriving = MoveMark { leaves: false, done: false, other: from.to_string() };
	match mark_of(&*target)? {
		Some(mark) if mark == arriving => {},
		Some(mark) => return Err(StoreError::Moved { mark, place: to.to_string() }),
		None if target.tables()? == [INTERNAL_TABLE] => {},
		// It ended between the last two writes.
		None if begun => {
			let (digest, records) = compare(&source, &target, &mut progress)?;
			tell_witness(to, &*target, namespace)?;
			source.import(vec![MoveMark { done: true, ..leaving }.write()?])?;
			return Ok(Moved { records, found: records, digest });
		},
		None => {
			return Err(StoreError::invalid(format!(
				"{to} has records of its own in the namespace {namespace}; move to an empty one"
			)));
		},
	}
	source.import(vec![leaving.write()?])?;
	target.import(vec![arriving.write()?])?;

	let (records, found) = copy(&*source, &*target, &mut progress)?;
	let (digest, _) = compare(&source, &target, &mut progress)?;

	// In one transaction it becomes the store that the source was, without a mark.
	let mut own = read_own(&*source)?;
	let of_source: Vec<Key> = own.iter().map(|(key, _)| key.clone()).collect();
	let stale = read_own(&*target)?.into_iter().filter(|(key, _)| !of_source.contains(key));
	own.extend(stale.map(|(key, _)| (key, None)));
	own.push((MoveMark::key(), None));
	target.import(own)?;
	// Before it is said that the move is over: without its witness the destination may be refused.
	tell_witness(to, &*target, namespace)?;
	source.import(vec![MoveMark { done: true, ..leaving }.write()?])?;
	Ok(Moved { records, found, digest })
}

/// Has the witness of the destination know what was moved there.
fn tell_witness(
	to: &StoreUrl, target: &dyn Portable, namespace: &Namespace,
) -> Result<(), StoreError> {
	match to.witness(namespace) {
		Some(file) => witness::introduce(target, &file),
		None => Ok(()),
	}
}

/// Copies every table but the store's own, each from where the destination ends.
fn copy(
	source: &dyn Portable, target: &dyn Portable, progress: &mut dyn FnMut(Progress),
) -> Result<(u64, u64), StoreError> {
	let (mut copied, mut found) = (0, 0);
	for table in source.tables()?.into_iter().filter(|table| *table != INTERNAL_TABLE) {
		let last = target.scan(KeyRange::all(table).reversed(), 1).wait()?;
		let mut range = match last.records.first() {
			Some((last, _)) => {
				found += count(target, table)?;
				Some(KeyRange::all(table).after(last.bytes()))
			},
			None => Some(KeyRange::all(table)),
		};
		while let Some(next) = range {
			let page = source.scan(next, PAGE).wait()?;
			let writes: Vec<RawWrite> = page
				.records
				.into_iter()
				.map(|(key, record)| {
					let frame = frame::encode(&key, record.version, &record.value);
					(key, Some(frame))
				})
				.collect();
			copied += writes.len() as u64;
			if !writes.is_empty() {
				target.import(writes)?;
			}
			progress(Progress::Copied(copied, table));
			range = page.rest;
		}
	}
	Ok((copied + found, found))
}

/// Reads both stores again, record by record.
fn compare(
	source: &Arc<dyn Portable>, target: &Arc<dyn Portable>, progress: &mut dyn FnMut(Progress),
) -> Result<([u8; 32], u64), StoreError> {
	// A table may be there without a record, in one of them: it had some.
	let names = |store: &Arc<dyn Portable>| store.tables();
	let mut tables: Vec<Table> = names(source)?.into_iter().chain(names(target)?).collect();
	tables.retain(|table| *table != INTERNAL_TABLE);
	tables.sort();
	tables.dedup();
	let (mut digest, mut compared) = (sha256::Hash::engine(), 0);
	for table in tables {
		let (mut of_source, mut of_target) = (Records::of(table), Records::of(table));
		loop {
			let (left, right) = (of_source.next(&**source)?, of_target.next(&**target)?);
			match (left, right) {
				(None, None) => break,
				(Some(left), Some(right)) if left == right => {
					for part in [table.name().as_bytes(), left.0.bytes(), &left.1] {
						digest.input(&(part.len() as u64).to_be_bytes());
						digest.input(part);
					}
					compared += 1;
					if compared % PAGE as u64 == 0 {
						progress(Progress::Compared(compared));
					}
				},
				(left, right) => {
					let key = left.or(right).map(|(key, _)| key.to_string());
					return Err(differs(&key.unwrap_or_default()));
				},
			}
		}
	}
	progress(Progress::Compared(compared));
	Ok((sha256::Hash::from_engine(digest).to_byte_array(), compared))
}

fn differs(what: &str) -> StoreError {
	StoreError::invalid(format!(
		"{what} differs between the two stores: somebody wrote to the destination; empty it and \
		 move again"
	))
}

/// The records of a table, page by page, as frames.
struct Records {
	page: std::vec::IntoIter<(Key, Vec<u8>)>,
	rest: Option<KeyRange>,
}

impl Records {
	fn of(table: Table) -> Self {
		Self { page: Vec::new().into_iter(), rest: Some(KeyRange::all(table)) }
	}

	fn next(&mut self, store: &dyn Portable) -> Result<Option<(Key, Vec<u8>)>, StoreError> {
		loop {
			if let Some(record) = self.page.next() {
				return Ok(Some(record));
			}
			let Some(range) = self.rest.take() else { return Ok(None) };
			let page = store.scan(range, PAGE).wait()?;
			let frames = page.records.into_iter().map(|(key, record)| {
				let frame = frame::encode(&key, record.version, &record.value);
				(key, frame)
			});
			(self.page, self.rest) = (frames.collect::<Vec<_>>().into_iter(), page.rest);
		}
	}
}

fn count(store: &dyn Portable, table: Table) -> Result<u64, StoreError> {
	let (mut records, mut count) = (Records::of(table), 0);
	while records.next(store)?.is_some() {
		count += 1;
	}
	Ok(count)
}

/// The store's own records, without the mark.
fn read_own(store: &dyn Portable) -> Result<Vec<RawWrite>, StoreError> {
	let (mut records, mut own) = (Records::of(INTERNAL_TABLE), Vec::new());
	while let Some((key, frame)) = records.next(store)? {
		if key != MoveMark::key() {
			own.push((key, Some(frame)));
		}
	}
	Ok(own)
}

fn mark_of(store: &dyn Portable) -> Result<Option<MoveMark>, StoreError> {
	let key = MoveMark::key();
	let record = store.get(&key).wait()?;
	record.map(|record| leyden_store::codec::decode(&key, &record)).transpose()
}
