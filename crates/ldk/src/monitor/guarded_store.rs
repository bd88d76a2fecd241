// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A store of monitors that never gets ahead of the bus.

use std::fmt;
use std::future::{poll_fn, Future};
use std::ops::Deref;
use std::sync::Arc;
use std::task::Poll;

use lightning::io;
use lightning::util::persist::{
	KVStore, MigratableKVStore, PageToken, PaginatedKVStore, PaginatedListResponse,
	CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
	CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE,
};

use super::gate::Gate;
use crate::turns::Turns;

/// A `KVStore` around the node's own, for `MonitorUpdatingPersisterAsync`.
///
/// # Failure Behavior and Persistence
/// A write (or removal) of a monitor that is asked for while events of monitors are not in the log
/// yet begins once they are, in the order of the calls. A monitor is not removed while events wait
/// for a durable manager: it is loaded again at the next start. Everything else goes straight to the
/// store below.
pub struct GuardedStore<K> {
	kv: K,
	gate: Arc<Gate>,
	turns: Turns,
}

impl<K> GuardedStore<K> {
	pub(crate) fn new(kv: K, gate: Arc<Gate>) -> Self {
		gate.guards_store();
		Self { kv, gate, turns: Turns::default() }
	}

	/// Waits for the turn of a write, unless it may begin in the call.
	fn deferred(&self, primary: &str) -> Option<impl Future<Output = Begins> + Send + 'static> {
		let is_monitor = primary == CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE
			|| primary == CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE;
		if !is_monitor || !self.gate.defers_write() {
			return None;
		}
		let (turn, deferred) = (self.turns.take(), Deferred(Arc::clone(&self.gate)));
		Some(async move {
			let turn = turn.await;
			poll_fn(|context| match deferred.0.may_write(context.waker()) {
				true => Poll::Ready(()),
				false => Poll::Pending,
			})
			.await;
			Begins { _turn: turn, _deferred: deferred }
		})
	}
}

/// A write that waits, or was given up.
struct Deferred(Arc<Gate>);

impl Drop for Deferred {
	fn drop(&mut self) {
		self.0.write_begun();
	}
}

/// The right to begin a write; dropped once it is begun.
struct Begins {
	_turn: crate::turns::Turn,
	_deferred: Deferred,
}

impl<K: Deref + Clone + Send + Sync + 'static> KVStore for GuardedStore<K>
where
	K::Target: KVStore,
{
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		self.kv.read(primary, secondary, key)
	}

	fn write(
		&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let work = match self.deferred(primary) {
			None => Ok(self.kv.write(primary, secondary, key, buf)),
			Some(deferred) => {
				let at = [primary, secondary, key].map(str::to_owned);
				Err((deferred, self.kv.clone(), at, buf))
			},
		};
		async move {
			match work {
				Ok(write) => write.await,
				Err((deferred, kv, [primary, secondary, key], buf)) => {
					let begins = deferred.await;
					let write = kv.write(&primary, &secondary, &key, buf);
					drop(begins);
					write.await
				},
			}
		}
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		// The persister removes a monitor once its copy is in the archive.
		let is_archived = primary == CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE;
		let is_kept = is_archived && !self.gate.may_archive();
		let work = match (is_kept, self.deferred(primary)) {
			(true, _) => None,
			(false, None) => Some(Ok(self.kv.remove(primary, secondary, key, lazy))),
			(false, Some(deferred)) => {
				let at = [primary, secondary, key].map(str::to_owned);
				Some(Err((deferred, self.kv.clone(), at)))
			},
		};
		async move {
			match work {
				None => Ok(()),
				Some(Ok(remove)) => remove.await,
				Some(Err((deferred, kv, [primary, secondary, key]))) => {
					let begins = deferred.await;
					let remove = kv.remove(&primary, &secondary, &key, lazy);
					drop(begins);
					remove.await
				},
			}
		}
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		self.kv.list(primary, secondary)
	}
}

impl<K: Deref + Clone + Send + Sync + 'static> PaginatedKVStore for GuardedStore<K>
where
	K::Target: PaginatedKVStore,
{
	fn list_paginated(
		&self, primary: &str, secondary: &str, page_token: Option<PageToken>,
	) -> impl Future<Output = Result<PaginatedListResponse, io::Error>> + 'static + Send {
		self.kv.list_paginated(primary, secondary, page_token)
	}
}

impl<K: Deref + Clone + Send + Sync + 'static> MigratableKVStore for GuardedStore<K>
where
	K::Target: MigratableKVStore,
{
	fn list_all_keys(
		&self,
	) -> impl Future<Output = Result<Vec<(String, String, String)>, io::Error>> + 'static + Send {
		self.kv.list_all_keys()
	}
}

impl<K> fmt::Debug for GuardedStore<K> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("GuardedStore")
	}
}
