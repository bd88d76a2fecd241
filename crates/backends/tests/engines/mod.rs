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

/// Namespaces of its own in a server that all checks share.
#[cfg(feature = "postgres")]
pub struct Postgres {
	server: Option<Arc<leyden_testkit::postgres::Server>>,
	/// What is checked where there is no server; that was said.
	instead: leyden_store::MemoryMedium,
	number: u32,
	last: Last<leyden_backends::postgres::PostgresStore>,
}

#[cfg(feature = "postgres")]
impl Postgres {
	pub fn new() -> Self {
		use std::sync::atomic::{AtomicU32, Ordering};
		static NUMBER: AtomicU32 = AtomicU32::new(0);
		let number = NUMBER.fetch_add(1, Ordering::Relaxed);
		let server = leyden_testkit::postgres::Server::shared();
		Self { server, instead: leyden_store::MemoryMedium::new(), number, last: Mutex::default() }
	}

	fn last(&self) -> Arc<leyden_backends::postgres::PostgresStore> {
		self.last.lock().unwrap().upgrade().unwrap()
	}
}

#[cfg(feature = "postgres")]
impl Backend for Postgres {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		use leyden_backends::postgres::{PostgresOptions, PostgresStore};
		let namespace = Namespace::new(&format!("{namespace}_{}", self.number)).unwrap();
		let Some(server) = &self.server else {
			return Ok(Arc::new(leyden_store::MemoryStore::open(&self.instead, namespace)?));
		};
		// The checks open a namespace twice: what they are about is the epoch.
		let options = PostgresOptions { take_over: true, ..PostgresOptions::default() };
		let store = Arc::new(PostgresStore::open(&server.url(), namespace, options)?);
		*self.last.lock().unwrap() = Arc::downgrade(&store);
		Ok(store)
	}

	fn damage(
		&self, _: &Arc<dyn Store>, _: &Namespace, key: &Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> bool {
		self.server.is_some() && self.last().damage(key, change).unwrap()
	}

	fn fail_next_flush(&self, _: &Arc<dyn Store>) -> bool {
		self.server.is_some() && {
			self.last().fail_next_flush();
			true
		}
	}
}

/// A server of its own.
#[cfg(feature = "vss")]
pub struct Vss {
	server: Arc<leyden_testkit::vss::Server>,
	last: Last<leyden_backends::vss::VssStore>,
}

#[cfg(feature = "vss")]
impl Vss {
	pub fn new() -> Self {
		Self { server: Arc::new(leyden_testkit::vss::Server::start()), last: Mutex::default() }
	}

	fn last(&self) -> Arc<leyden_backends::vss::VssStore> {
		self.last.lock().unwrap().upgrade().unwrap()
	}
}

#[cfg(feature = "vss")]
impl Backend for Vss {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		use leyden_backends::vss::{VssConfig, VssOptions, VssStore};
		let config = VssConfig::new(self.server.url(), "conformance", [3; 32]);
		let store = Arc::new(VssStore::open(config, namespace, &VssOptions::default())?);
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
