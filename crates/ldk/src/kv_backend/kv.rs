// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! An LDK store, with or without futures.

use std::ops::Deref;

use lightning::io;
use lightning::util::persist::{KVStore, KVStoreSync};

use super::runtime::{Answer, Runtime};

/// Changes that are asked for at the same time.
const CHANGES_AT_ONCE: usize = 256;

/// Where a value is: primary namespace, secondary namespace, key.
#[derive(Clone, Debug)]
pub(super) struct At {
	pub(super) primary: String,
	pub(super) secondary: String,
	pub(super) key: String,
}

/// A value to write, or `None` to remove it.
pub(super) type Change = (At, Option<Vec<u8>>);

/// What is needed of a store.
pub(super) trait Kv: Send {
	fn read(&self, at: &At) -> Result<Vec<u8>, io::Error>;

	/// Asks for these in their order, for many of them before it waits for any.
	fn change(&self, changes: Vec<Change>) -> Vec<Result<(), io::Error>>;

	/// Removes lazily what does no harm if it stays.
	fn forget(&self, values: Vec<At>);

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error>;

	/// The runtime, of a store with futures.
	fn runtime(&self) -> Option<&Runtime> {
		None
	}
}

pub(super) struct Synchronous<K>(pub(super) K);

impl<K> Kv for Synchronous<K>
where
	K: Deref + Send + Sync,
	K::Target: KVStoreSync,
{
	fn read(&self, at: &At) -> Result<Vec<u8>, io::Error> {
		self.0.read(&at.primary, &at.secondary, &at.key)
	}

	fn change(&self, changes: Vec<Change>) -> Vec<Result<(), io::Error>> {
		let change = |(at, value): Change| match value {
			Some(value) => self.0.write(&at.primary, &at.secondary, &at.key, value),
			// Never lazily: a removal that a crash undoes would bring an acked entry back.
			None => self.0.remove(&at.primary, &at.secondary, &at.key, false),
		};
		changes.into_iter().map(change).collect()
	}

	fn forget(&self, values: Vec<At>) {
		for at in values {
			let _ = self.0.remove(&at.primary, &at.secondary, &at.key, true);
		}
	}

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		self.0.list(primary, secondary)
	}
}

pub(super) struct Asynchronous<K> {
	pub(super) kv: K,
	pub(super) runtime: Runtime,
}

impl<K> Kv for Asynchronous<K>
where
	K: Deref + Send + Sync,
	K::Target: KVStore,
{
	fn read(&self, at: &At) -> Result<Vec<u8>, io::Error> {
		let read = || Box::pin(self.kv.read(&at.primary, &at.secondary, &at.key)) as Answer<_>;
		self.runtime.run_one(read)
	}

	fn change(&self, changes: Vec<Change>) -> Vec<Result<(), io::Error>> {
		let mut ended = Vec::with_capacity(changes.len());
		let mut changes = changes.into_iter().peekable();
		while changes.peek().is_some() {
			let calls = changes.by_ref().take(CHANGES_AT_ONCE).map(|(at, value)| {
				move || match value {
					Some(value) => {
						let written = self.kv.write(&at.primary, &at.secondary, &at.key, value);
						Box::pin(written) as Answer<()>
					},
					None => {
						let removed = self.kv.remove(&at.primary, &at.secondary, &at.key, false);
						Box::pin(removed) as Answer<()>
					},
				}
			});
			ended.extend(self.runtime.run(calls));
		}
		ended
	}

	fn forget(&self, values: Vec<At>) {
		let calls = values.into_iter().map(|at| {
			move || {
				Box::pin(self.kv.remove(&at.primary, &at.secondary, &at.key, true)) as Answer<()>
			}
		});
		drop(self.runtime.run(calls));
	}

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		self.runtime.run_one(|| Box::pin(self.kv.list(primary, secondary)) as Answer<_>)
	}

	fn runtime(&self) -> Option<&Runtime> {
		Some(&self.runtime)
	}
}
