// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A store, from its URL.

use std::sync::Arc;

use leyden_store::group::Portable;
use leyden_store::{MemoryMedium, MemoryStore, Namespace, Store, StoreError};

use crate::StoreUrl;

impl StoreUrl {
	/// Opens `namespace` there. The engines are the features `storage-sqlite`, `storage-redb` and
	/// `storage-postgres`.
	///
	/// # Errors
	/// The backend's; [`StoreError::Invalid`] if this program was built without it.
	///
	/// # Failure Behavior and Persistence
	/// Opening raises the epoch of the namespace: from then on, an older writer is fenced off. A
	/// crash in the middle leaves a store that opens.
	pub fn open(&self, namespace: Namespace) -> Result<Arc<dyn Store>, StoreError> {
		match self {
			Self::Memory => Ok(Arc::new(MemoryStore::open(&MemoryMedium::new(), namespace)?)),
			_ => Ok(Arc::new(self.open_whole(namespace)?)),
		}
	}

	/// Opens `namespace` as [`open`](StoreUrl::open) does, with what only some engines have.
	pub(crate) fn open_whole(&self, namespace: Namespace) -> Result<Arc<dyn Portable>, StoreError> {
		match self {
			Self::Memory => {
				drop(namespace);
				Err(StoreError::invalid("a store in memory has no more than a store has"))
			},
			#[cfg(feature = "storage-sqlite")]
			Self::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open(path, namespace)?)),
			#[cfg(feature = "storage-redb")]
			Self::Redb(path) => Ok(Arc::new(redb::RedbStore::open(path, namespace, Default::default())?)),
			#[cfg(feature = "storage-postgres")]
			Self::Postgres(url) => {
				Ok(Arc::new(postgres::PostgresStore::open(url, namespace, Default::default())?))
			},
			#[allow(unreachable_patterns)]
			_ => Err(self.is_missing()),
		}
	}

	/// Opens `namespace` to be read only. Nothing is written, and the epoch stays as it is.
	///
	/// # Errors
	/// As [`open`](StoreUrl::open); also if there is no store.
	pub fn open_read_only(&self, namespace: Namespace) -> Result<Arc<dyn Store>, StoreError> {
		match self {
			Self::Memory => self.open(namespace),
			_ => Ok(Arc::new(self.open_to_look(namespace)?)),
		}
	}

	/// The namespaces there. Nothing is written.
	///
	/// # Errors
	/// As [`open_read_only`](StoreUrl::open_read_only).
	pub fn namespaces(&self) -> Result<Vec<Namespace>, StoreError> {
		match self {
			Self::Memory => Ok(Vec::new()),
			#[cfg(feature = "storage-sqlite")]
			Self::Sqlite(path) => sqlite::SqliteStore::namespaces(path),
			#[cfg(feature = "storage-redb")]
			Self::Redb(path) => redb::RedbStore::namespaces(path),
			#[cfg(feature = "storage-postgres")]
			Self::Postgres(url) => postgres::PostgresStore::namespaces(url, Default::default()),
			#[allow(unreachable_patterns)]
			_ => Err(self.is_missing()),
		}
	}

	/// Opens `namespace` to be read only, with what only some engines have.
	pub(crate) fn open_to_look(
		&self, namespace: Namespace,
	) -> Result<Arc<dyn Portable>, StoreError> {
		match self {
			Self::Memory => {
				drop(namespace);
				Err(StoreError::invalid("there is nothing to look at in memory"))
			},
			#[cfg(feature = "storage-sqlite")]
			Self::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open_read_only(path, namespace)?)),
			#[cfg(feature = "storage-redb")]
			Self::Redb(path) => Ok(Arc::new(redb::RedbStore::open_read_only(path, namespace)?)),
			#[cfg(feature = "storage-postgres")]
			Self::Postgres(url) => {
				let options = Default::default();
				Ok(Arc::new(postgres::PostgresStore::open_read_only(url, namespace, options)?))
			},
			#[allow(unreachable_patterns)]
			_ => Err(self.is_missing()),
		}
	}

	/// Opens `namespace` to move its records, also if they are moving already.
	pub(crate) fn open_to_move(
		&self, namespace: Namespace,
	) -> Result<Arc<dyn Portable>, StoreError> {
		match self {
			Self::Memory => {
				drop(namespace);
				Err(StoreError::invalid("there is nothing to move to or from memory"))
			},
			#[cfg(feature = "storage-sqlite")]
			Self::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open_to_move(path, namespace)?)),
			#[cfg(feature = "storage-redb")]
			Self::Redb(path) => {
				Ok(Arc::new(redb::RedbStore::open_to_move(path, namespace, Default::default())?))
			},
			#[cfg(feature = "storage-postgres")]
			Self::Postgres(url) => {
				let options = Default::default();
				Ok(Arc::new(postgres::PostgresStore::open_to_move(url, namespace, options)?))
			},
			#[allow(unreachable_patterns)]
			_ => Err(self.is_missing()),
		}
	}

	#[allow(dead_code)]
	fn is_missing(&self) -> StoreError {
		let feature = match self {
			Self::Sqlite(_) => "storage-sqlite",
			Self::Redb(_) => "storage-redb",
			Self::Postgres(_) => "storage-postgres",
			Self::Memory => "",
		};
		StoreError::invalid(format!("{self}: this program was built without the feature {feature}"))
	}
}

#[cfg(feature = "storage-postgres")]
use leyden_backends::postgres;
#[cfg(feature = "storage-redb")]
use leyden_backends::redb;
#[cfg(feature = "storage-sqlite")]
use leyden_backends::sqlite;
