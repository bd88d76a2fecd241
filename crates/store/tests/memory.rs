//! The conformance suite on the memory store.

use std::sync::Arc;

use leyden_store::conformance::Backend;
use leyden_store::{Key, MemoryMedium, MemoryStore, Namespace, Store, StoreError};

struct Memory(MemoryMedium);

impl Backend for Memory {
	fn open(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
		Ok(Arc::new(MemoryStore::open(&self.0, namespace.clone())?))
	}

	fn damage(
		&self, _: &Arc<dyn Store>, namespace: &Namespace, key: &Key,
		change: &mut dyn FnMut(&mut Vec<u8>),
	) -> bool {
		self.0.damage(namespace, key, change);
		true
	}

	fn fail_next_flush(&self, _: &Arc<dyn Store>) -> bool {
		false
	}
}

leyden_store::conformance_tests!(Memory(MemoryMedium::new()));
