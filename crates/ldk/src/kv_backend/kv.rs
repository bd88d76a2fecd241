// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! An LDK store, with or without futures.

use std::ops::Deref;

use leyden_store::{StoreError, Ticket};
use lightning::io;
use lightning::util::native_async::FutureSpawner;
use lightning::util::persist::{KVStore, KVStoreSync};

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

	/// Asks for all of these before it waits for any.
	fn change(&self, changes: Vec<Change>) -> Vec<Result<(), io::Error>>;

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error>;
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

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		self.0.list(primary, secondary)
	}
}

pub(super) struct Asynchronous<K, S> {
	pub(super) kv: K,
	pub(super) spawner: S,
}

impl<K, S> Asynchronous<K, S>
where
	S: FutureSpawner,
{
	/// Begins with the future; the ticket tells how it ended.
	fn begin<T: Send + 'static>(
		&self, future: impl std::future::Future<Output = Result<T, io::Error>> + Send + 'static,
	) -> Ticket<Result<T, io::Error>> {
		let (completer, ticket) = Ticket::pair();
		// Dropping what this returns does not take the task back.
		drop(self.spawner.spawn(async move { completer.complete(Ok(future.await)) }));
		ticket
	}
}

fn ended<T>(ended: Result<Result<T, io::Error>, StoreError>) -> Result<T, io::Error> {
	ended.unwrap_or_else(|_| {
		Err(io::Error::new(io::ErrorKind::Other, "the task was dropped before it was done"))
	})
}

impl<K, S> Kv for Asynchronous<K, S>
where
	K: Deref + Send + Sync,
	K::Target: KVStore,
	S: FutureSpawner + Send,
{
	fn read(&self, at: &At) -> Result<Vec<u8>, io::Error> {
		ended(self.begin(self.kv.read(&at.primary, &at.secondary, &at.key)).wait())
	}

	fn change(&self, changes: Vec<Change>) -> Vec<Result<(), io::Error>> {
		// The order of the calls is the order of the writes, whatever the tasks do.
		let begun: Vec<_> = changes
			.into_iter()
			.map(|(At { primary, secondary, key }, value)| match value {
				Some(value) => self.begin(self.kv.write(&primary, &secondary, &key, value)),
				None => self.begin(self.kv.remove(&primary, &secondary, &key, false)),
			})
			.collect();
		begun.into_iter().map(|ticket| ended(ticket.wait())).collect()
	}

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		ended(self.begin(self.kv.list(primary, secondary)).wait())
	}
}
