// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Reads and writes of records, on reads and writes of values.

use std::sync::Arc;

use leyden_store::committer::{Committer, RawRead, RawWrite};
use leyden_store::group::{KeyIndex, Medium};
use leyden_store::page::PageBuilder;
use leyden_store::{frame, Durability, Key, KeyRange, Namespace, StoreError, Table, Version};
use lightning::io;

use super::kv::{At, Change, Kv};
use super::{names, redo};

/// The layout that this version writes, and the newest that it reads.
pub const KV_FORMAT: u32 = 1;

/// Where the layout is named: `leyden 1`.
const ABOUT: (&str, &str) = ("_about", "format");
const ABOUT_PREFIX: &str = "leyden ";
/// How often a write is asked for before it has failed. The same bytes under the same key: whatever
/// became of the first try, the last one counts.
const TRIES: usize = 3;
/// Values asked for at a time.
const AT_ONCE: usize = 256;

/// The medium of a store; nothing of it can be used from outside.
pub struct KvMedium {
	kv: Box<dyn Kv>,
	primary: String,
	/// No record has a higher version.
	newest: u64,
	/// The keys of tables that were looked at as a whole.
	keys: KeyIndex,
}

impl KvMedium {
	pub(super) fn open(
		kv: Box<dyn Kv>, namespace: &Namespace,
	) -> Result<(Self, Committer), StoreError> {
		let primary = format!("leyden_{namespace}");
		let mut medium = Self { kv, primary, newest: 0, keys: KeyIndex::default() };
		medium.check_format()?;
		medium.recover()?;
		let (committer, writes) = Committer::open(&mut medium)?;
		medium.write(writes, Durability::Sync)?;
		Ok((medium, committer))
	}

	pub(super) fn place(&self) -> &str {
		&self.primary
	}

	fn check_format(&self) -> Result<(), StoreError> {
		let (secondary, key) = ABOUT;
		let about = At {
			primary: self.primary.clone(),
			secondary: secondary.to_owned(),
			key: key.to_owned(),
		};
		let Some(found) = self.value(&about)? else {
			let text = format!("{ABOUT_PREFIX}{KV_FORMAT}");
			return self.change(vec![(about, Some(text.into_bytes()))]);
		};
		let text = String::from_utf8_lossy(&found);
		match text.strip_prefix(ABOUT_PREFIX).and_then(|number| number.parse::<u32>().ok()) {
			Some(KV_FORMAT) => Ok(()),
			Some(found) => {
				Err(StoreError::Newer { what: self.primary.clone(), found, known: KV_FORMAT })
			},
			None => Err(StoreError::NotAStore {
				place: self.primary.clone(),
				reason: "this primary namespace has values of something else".to_owned(),
			}),
		}
	}

	/// Does what is left of the last group.
	fn recover(&mut self) -> Result<(), StoreError> {
		let Some(head) = self.value(&self.at(&redo::head_key()))? else { return Ok(()) };
		let (changes, version) = redo::decode(&head, |n| self.value(&self.at(&redo::part_key(n))))?;
		let mut left = Vec::new();
		for change in changes {
			let at = self.at_name(&change.table, &change.key);
			let found = self.value(&at)?;
			let is_older = match (&found, &change.frame) {
				(None, Some(_)) => true,
				(None, None) => false,
				// A record that is newer was written by itself, after this.
				(Some(found), Some(frame)) => version_of(found) < version_of(frame),
				(Some(found), None) => version_of(found).is_some_and(|found| found <= version),
			};
			if is_older {
				left.push((at, change.frame));
			}
		}
		self.newest = version;
		self.change(left)
	}

	fn at(&self, key: &Key) -> At {
		self.at_name(key.table().name(), key.bytes())
	}

	fn at_name(&self, table: &str, key: &[u8]) -> At {
		let (secondary, key) = names::name(table, key);
		At { primary: self.primary.clone(), secondary, key }
	}

	fn value(&self, at: &At) -> Result<Option<Vec<u8>>, StoreError> {
		match self.kv.read(at) {
			Ok(value) => Ok(Some(value)),
			Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
			Err(error) => Err(self.failed("reading", error)),
		}
	}

	/// Makes these changes, of different keys, in any order. On `Err` each may have happened or not.
	fn change(&self, changes: Vec<Change>) -> Result<(), StoreError> {
		let mut left = changes;
		let mut last = None;
		for _ in 0..TRIES {
			if left.is_empty() {
				return Ok(());
			}
			let ended = self.kv.change(left.clone());
			let mut failed = Vec::new();
			for (change, ended) in left.into_iter().zip(ended) {
				match ended {
					Ok(()) => {},
					// It is gone already.
					Err(e) if change.1.is_none() && e.kind() == io::ErrorKind::NotFound => {},
					Err(error) => {
						last = Some(error);
						failed.push(change);
					},
				}
			}
			left = failed;
		}
		match last {
			Some(error) if !left.is_empty() => Err(self.failed("writing", error)),
			_ => Ok(()),
		}
	}

	/// Makes the one change that commits a group: it happened, or it did not, or nobody knows.
	fn commit(&self, change: Change) -> Result<(), StoreError> {
		let (at, value) = change.clone();
		let before = match self.change(vec![change]) {
			Ok(()) => return Ok(()),
			Err(error) => error,
		};
		let is_there = self.value(&at).map(|found| found == value);
		match (is_there, before) {
			// A store that is full, or cannot be written, has said no before it did anything.
			(Ok(false), error @ (StoreError::NoSpace { .. } | StoreError::ReadOnly { .. })) => {
				Err(error)
			},
			// Even what can be read need not be durable; and what cannot may still be on its way.
			(_, error) => Err(indeterminate(&error)),
		}
	}

	fn failed(&self, doing: &'static str, error: io::Error) -> StoreError {
		let place = format!("the KVStore's {}", self.primary);
		match error.kind() {
			io::ErrorKind::PermissionDenied => StoreError::ReadOnly { place },
			_ if is_full(&error) => StoreError::NoSpace { place },
			_ => StoreError::Unavailable { doing, source: Arc::new(error) },
		}
	}

	fn load_keys(&mut self, table: Table) -> Result<(), StoreError> {
		if self.keys.has(table) {
			return Ok(());
		}
		let mut keys = Vec::new();
		for (namespace, read) in names::namespaces(table.name()) {
			let listed = self.kv.list(&self.primary, &namespace);
			let listed = listed.or_else(|error| match error.kind() {
				io::ErrorKind::NotFound => Ok(Vec::new()),
				_ => Err(self.failed("listing", error)),
			})?;
			// What is not a name of ours was put there by somebody else.
			keys.extend(listed.iter().filter_map(|name| read(name)));
		}
		self.keys.fill(table, keys);
		Ok(())
	}
}

impl RawRead for KvMedium {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		self.value(&self.at(key))
	}

	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		self.load_keys(table)?;
		Ok(self.keys.highest(table, prefix))
	}
}

impl Medium for KvMedium {
	fn scan(&mut self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError> {
		self.load_keys(range.table())?;
		let mut left = range.clone();
		while !page.is_full() {
			let keys = self.keys.first(&left, AT_ONCE);
			let Some(last) = keys.last() else { return Ok(()) };
			left = left.after(last.bytes());
			for key in keys {
				if page.is_full() {
					return Ok(());
				}
				// One that is listed and not there was removed.
				if let Some(frame) = self.read(&key)? {
					page.push_frame(key, &frame)?;
				}
			}
		}
		Ok(())
	}

	fn write(&mut self, writes: Vec<RawWrite>, _: Durability) -> Result<(), StoreError> {
		let versions = writes.iter().filter_map(|(_, frame)| version_of(frame.as_ref()?));
		let newest = versions.fold(self.newest, u64::max);
		if let [(key, frame @ Some(_))] = writes.as_slice() {
			self.commit((self.at(key), frame.clone()))?;
		} else if !writes.is_empty() {
			let version = Version::new(newest);
			let encoded = redo::encode(&writes, version)?;
			let parts = encoded.parts.into_iter().enumerate();
			let parts = parts.map(|(n, part)| (self.at(&redo::part_key(n)), Some(part)));
			// No head names them yet: nothing happened if this fails.
			self.change(parts.collect())?;
			self.commit((self.at(&redo::head_key()), Some(encoded.head)))?;
			let changes = writes.iter().map(|(key, frame)| (self.at(key), frame.clone()));
			// It is committed. If it cannot be done now, the next opening does it.
			self.change(changes.collect()).map_err(|error| indeterminate(&error))?;
		}
		self.newest = newest;
		self.keys.wrote(&writes);
		Ok(())
	}
}

/// The version in a frame's header; `None` if it has none.
fn version_of(bytes: &[u8]) -> Option<u64> {
	frame::peek_version(bytes).map(Version::get)
}

fn indeterminate(error: &StoreError) -> StoreError {
	StoreError::Indeterminate { doing: "committing", source: Arc::new(error.clone()) }
}

/// LDK's `io` has no kind for that. A store that keeps what the system said has it inside; LDK's own
/// does not.
fn is_full(error: &io::Error) -> bool {
	use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
	let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<std::io::Error>());
	inner.is_some_and(|inner| matches!(inner.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}
