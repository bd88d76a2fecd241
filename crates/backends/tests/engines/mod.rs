//! The engines, each as the conformance suite wants it: a fresh medium on which stores are opened.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use leyden_store::conformance::Backend;
use leyden_store::{Key, Namespace, Store, StoreError};
use tempfile::TempDir;

/// What is opened last, to do things to it that a store cannot.
type Last<S> = Mutex<Weak<S>>;

#[cfg(feature = "sqlite")]
pub struct Sqlite {
	dir: TempDir,
	last: Last<leyden_backends::sqlite::SqliteStore>,
}

#[cfg(feature = "sqlite")]
impl Sqlite {
	pub fn new() -> Self {
		Self { dir: tempfile::tempdir().unwrap(), last: Mutex::default() }
	}

	pub fn path(&self) -> PathBuf {
		self.dir.path().join("store.leyden")
	}

	fn last(&self) -> Arc<leyden_backends::sqlite::SqliteStore> {
		self.last.lock().unwrap().upgrade().unwrap()
	}
}

#[cfg(feature = "sqlite")]
impl Backend for Sqlite {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		let store = leyden_backends::sqlite::SqliteStore::open(self.path(), namespace.clone())?;
		let store = Arc::new(store);
		*self.last.lock().unwrap() = Arc::downgrade(&store);
		Ok(store)
	}

	fn damage(
		&self, _: &Arc<dyn Store>, _: &Namespace, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> bool {
		self.last().damage(key, change).unwrap()
	}

	fn fail_next_flush(&self, _: &Arc<dyn Store>) -> bool {
		self.last().fail_next_flush();
		true
	}
}

#[cfg(feature = "redb")]
pub struct Redb {
	dir: TempDir,
	two_phase: bool,
	last: Last<leyden_backends::redb::RedbStore>,
}

#[cfg(feature = "redb")]
impl Redb {
	pub fn new() -> Self {
		Self { dir: tempfile::tempdir().unwrap(), two_phase: false, last: Mutex::default() }
	}

	pub fn two_phase() -> Self {
		Self { two_phase: true, ..Self::new() }
	}

	pub fn path(&self) -> PathBuf {
		self.dir.path().join("store.redb")
	}

	fn last(&self) -> Arc<leyden_backends::redb::RedbStore> {
		self.last.lock().unwrap().upgrade().unwrap()
	}
}

#[cfg(feature = "redb")]
impl Backend for Redb {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		use leyden_backends::redb::{RedbOptions, RedbStore};
		let options = RedbOptions { two_phase: self.two_phase };
		let store = Arc::new(RedbStore::open(self.path(), namespace.clone(), options)?);
		*self.last.lock().unwrap() = Arc::downgrade(&store);
		Ok(store)
	}

	fn damage(
		&self, _: &Arc<dyn Store>, _: &Namespace, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> bool {
		self.last().damage(key, change).unwrap()
	}

	fn fail_next_flush(&self, _: &Arc<dyn Store>) -> bool {
		self.last().fail_next_flush();
		true
	}
}
