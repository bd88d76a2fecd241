// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A KVStore that sees the manager being persisted.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use lightning::io;
use lightning::util::persist::{
	KVStore, KVStoreSync, CHANNEL_MANAGER_PERSISTENCE_KEY,
	CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
};
use parking_lot::Mutex;

use crate::error::to_io;
use crate::snapshot::{ManagerSnapshots, Marks};

/// A `KVStore` (or `KVStoreSync`) around another that tells [`ManagerSnapshots`] when the manager
/// was written. Give it to the background processor.
///
/// # It lags by one write
/// The background processor encodes the manager and then calls `write`; what is handed out between
/// the two is not in the bytes. So when a write is done, only what was handed out before the
/// *previous* write was called is settled: the bytes of a write are encoded after the previous one
/// was called, since the background processor waits for one write before it encodes for the next.
/// What stays un-acked for one write longer is replayed after a crash, into a manager that has it,
/// and does no harm.
pub struct ManagerStore<K> {
	inner: K,
	state: Arc<State>,
}

struct State {
	snapshots: ManagerSnapshots,
	/// Where everyone was when the last write was called.
	called: Mutex<Marks>,
}

impl<K> ManagerStore<K> {
	/// Around `inner`, for `snapshots`.
	pub fn new(inner: K, snapshots: ManagerSnapshots) -> Self {
		let called = Mutex::new(Marks::default());
		Self { inner, state: Arc::new(State { snapshots, called }) }
	}

	/// What it is around.
	pub fn inner(&self) -> &K {
		&self.inner
	}
}

impl State {
	/// A write of the manager is called: answers what it settles once it is done.
	fn write_called(&self) -> Marks {
		std::mem::replace(&mut *self.called.lock(), self.snapshots.marks())
	}
}

fn is_manager(primary: &str, secondary: &str, key: &str) -> bool {
	primary == CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE
		&& secondary == CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE
		&& key == CHANNEL_MANAGER_PERSISTENCE_KEY
}

impl<K: Deref> KVStoreSync for ManagerStore<K>
where
	K::Target: KVStoreSync,
{
	fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
		self.inner.read(primary, secondary, key)
	}

	/// # Failure Behavior and Persistence
	/// That of the store below. If the manager was written and what it settles was not, this is
	/// `Ok`: the next write settles it.
	fn write(
		&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>,
	) -> Result<(), io::Error> {
		if !is_manager(primary, secondary, key) {
			return self.inner.write(primary, secondary, key, buf);
		}
		let settles = self.state.write_called();
		self.inner.write(primary, secondary, key, buf)?;
		// The manager is durable, whatever becomes of the acks: to answer an error would make LDK
		// believe that it is not.
		let _ = self.state.snapshots.settle(&settles).wait();
		Ok(())
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> Result<(), io::Error> {
		self.inner.remove(primary, secondary, key, lazy)
	}

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		self.inner.list(primary, secondary)
	}
}

impl<K: Deref> KVStore for ManagerStore<K>
where
	K::Target: KVStore,
{
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		self.inner.read(primary, secondary, key)
	}

	/// # Failure Behavior and Persistence
	/// As for the synchronous one.
	fn write(
		&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		// Both in the call, as LDK's contract has it: the order of writes is the order of the
		// calls.
		let settles = is_manager(primary, secondary, key).then(|| self.state.write_called());
		let write = self.inner.write(primary, secondary, key, buf);
		let state = Arc::clone(&self.state);
		async move {
			write.await?;
			if let Some(settles) = settles {
				let _ = state.snapshots.settle(&settles).await.map_err(to_io);
			}
			Ok(())
		}
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		self.inner.remove(primary, secondary, key, lazy)
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		self.inner.list(primary, secondary)
	}
}
