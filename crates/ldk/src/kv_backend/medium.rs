// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Reads and writes of records, on reads and writes of values.

use std::sync::Arc;

use leyden_store::committer::{Committer, RawRead, RawWrite};
use leyden_store::group::{Asked, Blocking, KeyIndex, Medium, OutagePolicy, Outages};
use leyden_store::page::PageBuilder;
use leyden_store::{frame, Durability, Key, KeyRange, Namespace, StoreError, Table, Version};
use lightning::io;

use super::kv::{At, Change, Kv};
use super::runtime::{is_unanswered, Runtime};
use super::{names, redo};

/// The layout that this version writes, and the newest that it reads.
pub const KV_FORMAT: u32 = 2;

/// The layout before, which has one place for a redo. It is read, and becomes the newer one.
const FORMAT_1: u32 = 1;
/// The key that names the layout: `leyden 2`.
const ABOUT: (&str, &str) = ("_about", "format");
const ABOUT_PREFIX: &str = "leyden ";
/// The tries of a write, without a pause, before its failure is an outage. The same bytes under the
/// same key: the last try counts, whatever happened to the first.
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
	/// The highest slot of a redo that was found or used.
	slot: u64,
	/// `true` if the next redo may take that slot: no write to it can land late.
	is_slot_clean: bool,
	outages: Outages,
}

/// Changes that were given up: each may have been made, or not.
struct GivenUp {
	error: StoreError,
	/// `true` if a change that was not made may still be made.
	is_unsure: bool,
}

/// The failures of a change that are waited for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Until {
	/// Those that say that the store is away.
	Refused,
	/// All: the group is committed, and only has to be done.
	Done,
}

impl KvMedium {
	/// Asks the store for something, to see whether it answers.
	pub(super) fn probe(kv: &dyn Kv, namespace: &Namespace) -> Result<(), StoreError> {
		let medium = primary_of(namespace);
		match kv.read(&about(&medium)) {
			Err(error) if error.kind() != io::ErrorKind::NotFound => {
				Err(failed(&medium, "reading", error))
			},
			_ => Ok(()),
		}
	}

	pub(super) fn open(
		kv: Box<dyn Kv>, namespace: &Namespace,
	) -> Result<(Self, Committer), StoreError> {
		let primary = primary_of(namespace);
		let mut medium = Self {
			kv,
			outages: Outages::new(OutagePolicy::none(), primary.clone()),
			primary,
			newest: 0,
			keys: KeyIndex::default(),
			slot: 0,
			is_slot_clean: false,
		};
		medium.check_format()?;
		let old = medium.list_redos()?;
		medium.recover(&old)?;
		let (committer, writes) = Committer::open(&mut medium)?;
		medium.write(writes, Durability::Sync)?;
		// The newest redo is in a higher slot now. What is left of these harms nobody, and the next
		// opening removes it.
		medium.kv.forget(old.iter().map(|key| medium.at_name(redo::TABLE.name(), key)).collect());
		Ok((medium, committer))
	}

	/// Waits for outages from now on.
	pub(super) fn wait_for(&mut self, outages: Outages) {
		self.outages = outages;
	}

	pub(super) fn place(&self) -> &str {
		&self.primary
	}

	fn check_format(&mut self) -> Result<(), StoreError> {
		let about = about(&self.primary);
		let ours = format!("{ABOUT_PREFIX}{KV_FORMAT}").into_bytes();
		let Some(found) = self.value(&about)? else {
			return self.name_format(about, ours);
		};
		match format_of(&found) {
			Some(KV_FORMAT) => Ok(()),
			// Before there is anything that an older version would overlook.
			Some(FORMAT_1) => self.name_format(about, ours),
			Some(found) => {
				Err(StoreError::Newer { what: self.primary.clone(), found, known: KV_FORMAT })
			},
			None => Err(StoreError::NotAStore {
				place: self.primary.clone(),
				reason: "this primary namespace has values of something else".to_owned(),
			}),
		}
	}

	fn name_format(&self, about: At, text: Vec<u8>) -> Result<(), StoreError> {
		let named = self.change(vec![(about, Some(text))], Until::Refused);
		named.map(drop).map_err(|given_up| given_up.error)
	}

	/// The keys of all redos: heads and parts.
	fn list_redos(&self) -> Result<Vec<Vec<u8>>, StoreError> {
		self.list(redo::TABLE.name())
	}

	/// Does what is left of the last group. Its head is in the highest slot: a head in a lower one
	/// was done before the next was begun, or is a write that failed and has landed since.
	fn recover(&mut self, redos: &[Vec<u8>]) -> Result<(), StoreError> {
		let Some(slot) = redos.iter().filter_map(|key| redo::slot_of(key)).max() else {
			return Ok(());
		};
		self.slot = slot;
		let Some(head) = self.value(&self.at(&redo::head_key(slot)))? else { return Ok(()) };
		let part = |n| self.value(&self.at(&redo::part_key(slot, n)));
		let (changes, version) = redo::decode(&head, slot, part)?;
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
		self.change(left, Until::Refused).map(drop).map_err(|given_up| given_up.error)
	}

	fn at(&self, key: &Key) -> At {
		self.at_name(key.table().name(), key.bytes())
	}

	fn at_name(&self, table: &str, key: &[u8]) -> At {
		let (secondary, key) = names::name(table, key);
		At { primary: self.primary.clone(), secondary, key }
	}

	fn value(&self, at: &At) -> Result<Option<Vec<u8>>, StoreError> {
		self.ask("reading", || match self.kv.read(at) {
			Ok(value) => Ok(Some(value)),
			Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
			Err(error) => Err(error),
		})
	}

	/// Reads, through an outage.
	fn ask<T>(
		&self, doing: &'static str, read: impl Fn() -> Result<T, io::Error>,
	) -> Result<T, StoreError> {
		self.outages
			.heal(Asked::Read, || read().map_err(|error| failed(&self.primary, doing, error)))
	}

	/// Makes these changes, of different keys, in any order, through an outage. Returns whether a
	/// try failed before, which may land late.
	fn change(&self, changes: Vec<Change>, until: Until) -> Result<bool, GivenUp> {
		let mut left = changes;
		let mut is_unsure = false;
		for tries in 1.. {
			if left.is_empty() {
				break;
			}
			let ended = self.kv.change(left.clone());
			let mut last = None;
			let mut is_answered = true;
			let mut failures = Vec::new();
			for (change, ended) in left.into_iter().zip(ended) {
				match ended {
					Ok(()) => {},
					// It is gone already.
					Err(e) if change.1.is_none() && e.kind() == io::ErrorKind::NotFound => {},
					Err(error) => {
						is_answered &= !is_unanswered(&error);
						let error = failed(&self.primary, "writing", error);
						// A store that is full, or cannot be written, has said no before it did anything.
						is_unsure |= is_away(&error);
						last = Some(error);
						failures.push(change);
					},
				}
			}
			left = failures;
			let Some(error) = last else { break };
			// What goes on while we ask again might land behind what is written next.
			let is_waited_for = is_answered && (until == Until::Done || is_away(&error));
			let again = is_answered && tries < TRIES
				|| is_waited_for && self.outages.pause(Asked::Write, &error);
			if !again {
				return Err(GivenUp { error, is_unsure });
			}
		}
		self.outages.end(Asked::Write);
		Ok(is_unsure)
	}

	/// Makes [changes](KvMedium::change) of the redo's slot.
	fn change_slot(&mut self, changes: Vec<Change>) -> Result<(), GivenUp> {
		let changed = self.change(changes, Until::Refused);
		// Even if all went well in the end, a try that failed may land behind the next redo.
		self.is_slot_clean &= !match &changed {
			Ok(is_unsure) => *is_unsure,
			Err(given_up) => given_up.is_unsure,
		};
		changed.map(drop)
	}

	/// The error for a group whose one committing change was given up: it did not happen, or its
	/// outcome is unknown.
	fn committed(&self, change: &Change, given_up: GivenUp) -> StoreError {
		let (at, value) = change;
		let GivenUp { error, is_unsure } = given_up;
		match self.value(at) {
			Ok(found) if !is_unsure && found != *value => error,
			// Even what can be read need not be durable; and what cannot may still be on its way.
			_ => indeterminate(&error),
		}
	}

	fn load_keys(&mut self, table: Table) -> Result<(), StoreError> {
		if !self.keys.has(table) {
			let keys = self.list(table.name())?;
			self.keys.fill(table, keys);
		}
		Ok(())
	}

	/// The keys of a table.
	fn list(&self, table: &str) -> Result<Vec<Vec<u8>>, StoreError> {
		let mut keys = Vec::new();
		for (namespace, read) in names::namespaces(table) {
			let listed = self.ask("listing", || match self.kv.list(&self.primary, &namespace) {
				Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
				listed => listed,
			})?;
			// What is not a name of ours was put there by somebody else.
			keys.extend(listed.iter().filter_map(|name| read(name)));
		}
		Ok(keys)
	}

	/// The slot for a redo of this version. Versions are never given twice, so no earlier process
	/// has used a slot of that number.
	fn clean_slot(&mut self, version: u64) -> u64 {
		if !self.is_slot_clean {
			self.slot = self.slot.saturating_add(1).max(version);
			self.is_slot_clean = true;
		}
		self.slot
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
			let change = (self.at(key), frame.clone());
			if let Err(given_up) = self.change(vec![change.clone()], Until::Refused) {
				return Err(self.committed(&change, given_up));
			}
		} else if !writes.is_empty() {
			let version = Version::new(newest);
			let slot = self.clean_slot(newest);
			let encoded = redo::encode(&writes, version, slot)?;
			let parts = encoded.parts.into_iter().enumerate();
			let parts = parts.map(|(n, part)| (self.at(&redo::part_key(slot, n)), Some(part)));
			// No head names them yet: nothing happened if this fails.
			self.change_slot(parts.collect()).map_err(|given_up| given_up.error)?;
			let head = (self.at(&redo::head_key(slot)), Some(encoded.head));
			if let Err(given_up) = self.change_slot(vec![head.clone()]) {
				return Err(self.committed(&head, given_up));
			}
			let changes = writes.iter().map(|(key, frame)| (self.at(key), frame.clone()));
			// It is committed. If it cannot be done now, the next opening does it.
			let done = self.change(changes.collect(), Until::Done);
			done.map_err(|given_up| indeterminate(&given_up.error))?;
		}
		self.newest = newest;
		self.keys.wrote(&writes);
		Ok(())
	}

	fn takes_help(&self) -> bool {
		self.kv.runtime().is_none()
	}

	fn blocking(&self) -> Option<Blocking> {
		self.kv.runtime().and_then(Runtime::blocking)
	}
}

fn primary_of(namespace: &Namespace) -> String {
	format!("leyden_{namespace}")
}

fn about(primary: &str) -> At {
	let (secondary, key) = ABOUT;
	let [primary, secondary, key] = [primary, secondary, key].map(str::to_owned);
	At { primary, secondary, key }
}

fn failed(primary: &str, doing: &'static str, error: io::Error) -> StoreError {
	let place = format!("the KVStore's {primary}");
	match error.kind() {
		io::ErrorKind::PermissionDenied => StoreError::ReadOnly { place },
		_ if is_full(&error) => StoreError::NoSpace { place },
		_ => StoreError::Unavailable { doing, source: Arc::new(error) },
	}
}

/// Returns `true` if the store does not work, and has not said that it is full.
fn is_away(error: &StoreError) -> bool {
	matches!(error, StoreError::Unavailable { .. })
}

/// The version in a frame's header; `None` if it has none.
fn version_of(bytes: &[u8]) -> Option<u64> {
	frame::peek_version(bytes).map(Version::get)
}

fn indeterminate(error: &StoreError) -> StoreError {
	StoreError::Indeterminate { doing: "committing", source: Arc::new(error.clone()) }
}

/// LDK's `io` has no kind for that. A store that keeps what the system said has it inside; LDK's
/// own does not.
fn is_full(error: &io::Error) -> bool {
	use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
	let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<std::io::Error>());
	inner.is_some_and(|inner| matches!(inner.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

/// Returns the number in the text that says what a primary namespace holds.
pub(super) fn format_of(text: &[u8]) -> Option<u32> {
	let number: u32 = std::str::from_utf8(text).ok()?.strip_prefix(ABOUT_PREFIX)?.parse().ok()?;
	(format!("{ABOUT_PREFIX}{number}").as_bytes() == text).then_some(number)
}
