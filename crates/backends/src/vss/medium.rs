// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Reads and scans of a store on a server.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use leyden_store::codec;
use leyden_store::committer::{epoch_key, read_epoch, RawRead, RawWrite};
use leyden_store::group::{foreseen, KeyIndex, Medium, OutagePolicy, Outages};
use leyden_store::page::PageBuilder;
use leyden_store::{frame, Batch, Durability, Epoch, Key, KeyRange, StoreError, Table};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::names::{head_key, Names};

/// The layout that this version writes, and the newest that it reads.
pub const VSS_FORMAT: u32 = 1;

/// Items in one request, of which the head is one.
const MAX_ITEMS: usize = 1000;
/// Values asked for at a time.
const AT_ONCE: usize = 32;

/// The medium of a store; nothing of it can be used from outside.
pub struct VssMedium {
	pub(super) client: Client,
	pub(super) names: Names,
	pub(super) head: Head,
	/// What the store is at, as far as we know.
	pub(super) global_version: i64,
	/// For an error: our epoch.
	pub(super) epoch: Option<Epoch>,
	/// The keys of tables that were looked at as a whole.
	pub(super) keys: KeyIndex,
	/// What the group that is being decided will ask for.
	foreseen: HashMap<Key, Option<Vec<u8>>>,
	/// The outages of the server. None is waited for before the store is open.
	pub(super) outages: Outages,
	#[cfg(feature = "fault-injection")]
	fail_next_write: bool,
}

/// Which group was written last, and by whom.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Head {
	pub(super) format: u32,
	/// Drawn when a writer opens.
	pub(super) writer: [u8; 16],
	/// Counted by the writer.
	pub(super) group: u64,
}

leyden_store::stored! {
	Head = 0x0004,
}

impl VssMedium {
	pub(super) fn new(client: Client, names: Names, writer: [u8; 16]) -> Self {
		let outages = Outages::new(OutagePolicy::none(), client.place());
		Self {
			outages,
			client,
			names,
			head: Head { format: VSS_FORMAT, writer, group: 0 },
			global_version: 0,
			epoch: None,
			keys: KeyIndex::default(),
			foreseen: HashMap::new(),
			#[cfg(feature = "fault-injection")]
			fail_next_write: false,
		}
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn fail_next_write(&mut self) {
		self.fail_next_write = true;
	}

	#[cfg(feature = "fault-injection")]
	pub(super) fn damage(
		&mut self, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		let Some(mut frame) = self.read(key)? else { return Ok(false) };
		change(&mut frame);
		self.write(vec![(key.clone(), Some(frame))], Durability::Sync)?;
		Ok(true)
	}

	/// The head as it is on the server.
	pub(super) fn read_head(&self, deadline: Instant) -> Result<Option<Head>, StoreError> {
		let name = self.names.head();
		let found = self
			.client
			.until("reading the head", deadline, |client| client.get(vec![name.clone()], deadline))?
			.pop()
			.flatten();
		let Some(value) = found else { return Ok(None) };
		let key = head_key();
		let bytes = self.names.show(&name, &key, &value)?;
		let head: Head = codec::decode(&key, &frame::decode(&key, &bytes)?)?;
		if head.format > VSS_FORMAT {
			let (what, found) = (self.client.place().to_owned(), head.format);
			return Err(StoreError::Newer { what, found, known: VSS_FORMAT });
		}
		Ok(Some(head))
	}

	/// Who has come instead of us.
	pub(super) fn fenced(&mut self) -> StoreError {
		let ours = self.epoch.unwrap_or(Epoch::new(0));
		match read_epoch(self) {
			Ok(found) => StoreError::Fenced { ours, found },
			Err(error) => error,
		}
	}

	/// The frames at these keys, asked for together.
	fn ask(&self, keys: &[Key], deadline: Instant) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
		let mut frames = Vec::with_capacity(keys.len());
		for keys in keys.chunks(AT_ONCE) {
			let name = |key: &Key| self.names.name(key.table().name(), key.bytes());
			let names: Vec<String> = keys.iter().map(name).collect();
			let found = self
				.client
				.until("reading", deadline, |client| client.get(names.clone(), deadline))?;
			for ((key, name), value) in keys.iter().zip(&names).zip(found) {
				frames.push(value.map(|value| self.names.show(name, key, &value)).transpose()?);
			}
		}
		Ok(frames)
	}

	pub(super) fn load_keys(&mut self, table: Table) -> Result<(), StoreError> {
		if !self.keys.has(table) {
			let names = self.list_all(Some(self.names.prefix(table.name())))?;
			self.keys.fill(table, names.iter().filter_map(|name| self.names.key(name)));
		}
		Ok(())
	}

	/// All names with this prefix.
	fn list_all(&self, prefix: Option<String>) -> Result<Vec<String>, StoreError> {
		let (mut names, mut seen) = (Vec::new(), HashSet::new());
		let mut token = None;
		loop {
			let deadline = self.client.deadline();
			let page = self.client.until("listing", deadline, |client| {
				client.list(prefix.clone(), token.clone(), deadline)
			})?;
			names.extend(page.key_versions.into_iter().map(|item| item.key));
			match page.next_page_token.filter(|token| !token.is_empty()) {
				// A server that goes round in circles would never end, and neither would memory.
				Some(next) if !seen.insert(next.clone()) => {
					return Err(StoreError::NotAStore {
						place: self.client.place().to_owned(),
						reason: "the server's list of keys repeats itself".to_owned(),
					});
				},
				Some(next) => token = Some(next),
				None => return Ok(names),
			}
		}
	}
}

impl RawRead for VssMedium {
	fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
		if let Some(found) = self.foreseen.get(key) {
			return Ok(found.clone());
		}
		if self.keys.knows(key) == Some(false) {
			return Ok(None);
		}
		Ok(self.ask(std::slice::from_ref(key), self.client.deadline())?.pop().flatten())
	}

	fn highest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<u64>, StoreError> {
		self.load_keys(table)?;
		Ok(self.keys.highest(table, prefix))
	}
}

impl Medium for VssMedium {
	const MAX_WRITES: usize = MAX_ITEMS - 1;

	fn scan(&mut self, range: &KeyRange, page: &mut PageBuilder) -> Result<(), StoreError> {
		self.load_keys(range.table())?;
		let mut left = range.clone();
		while !page.is_full() {
			let keys = self.keys.first(&left, AT_ONCE);
			let Some(last) = keys.last() else { return Ok(()) };
			left = left.after(last.bytes());
			let frames = self.ask(&keys, self.client.deadline())?;
			for (key, frame) in keys.into_iter().zip(frames) {
				if page.is_full() {
					return Ok(());
				}
				// What is listed and not there was deleted by somebody who has taken over.
				if let Some(frame) = frame {
					page.push_frame(key, &frame)?;
				}
			}
		}
		Ok(())
	}

	fn write(&mut self, writes: Vec<RawWrite>, _: Durability) -> Result<(), StoreError> {
		#[cfg(feature = "fault-injection")]
		if std::mem::take(&mut self.fail_next_write) {
			let source = std::io::Error::other("the reply was lost, as asked for");
			return Err(StoreError::Indeterminate {
				doing: "committing",
				source: Arc::new(source),
			});
		}
		self.send(&writes)?;
		self.keys.wrote(&writes);
		Ok(())
	}

	fn tables(&mut self) -> Result<Vec<String>, StoreError> {
		let names = self.list_all(None)?;
		let tables: BTreeSet<String> =
			names.iter().filter_map(|name| self.names.table(name)).collect();
		Ok(tables.into_iter().collect())
	}

	fn foresee(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
		self.foreseen.clear();
		if batches.is_empty() {
			return Ok(());
		}
		let mut keys: BTreeSet<Key> = foreseen(batches).cloned().collect();
		keys.insert(epoch_key());
		let (absent, asked): (Vec<_>, Vec<_>) =
			keys.into_iter().partition(|key| self.keys.knows(key) == Some(false));
		let found = self.ask(&asked, self.client.deadline())?;
		self.foreseen.extend(absent.into_iter().map(|key| (key, None)));
		self.foreseen.extend(asked.into_iter().zip(found));
		Ok(())
	}
}
