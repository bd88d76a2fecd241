//! The conformance suite on SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex, Weak};

use leyden_backends::sqlite::SqliteStore;
use leyden_store::conformance::Backend;
use leyden_store::{Key, Namespace, Store, StoreError};
use tempfile::TempDir;

struct Sqlite {
	dir: TempDir,
	last: Mutex<Weak<SqliteStore>>,
}

impl Sqlite {
	fn new() -> Self {
		Self { dir: tempfile::tempdir().unwrap(), last: Mutex::default() }
	}

	fn last(&self) -> Arc<SqliteStore> {
		self.last.lock().unwrap().upgrade().unwrap()
	}
}

impl Backend for Sqlite {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		let path = self.dir.path().join("store.leyden");
		let store = Arc::new(SqliteStore::open(path, namespace.clone())?);
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

leyden_store::conformance_tests!(Sqlite::new());
