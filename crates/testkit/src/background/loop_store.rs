//! The store that LDK's background processor writes the manager to: the node's guard.

use std::future::Future;
use std::sync::Arc;

use lightning::io;
use lightning::util::persist::{KVStore, KVStoreSync};

use crate::node::NodeCore;

/// Writes the manager through the node's guard; nothing else comes.
pub(super) struct LoopStore(pub(super) Arc<NodeCore>);

impl KVStore for LoopStore {
	fn read(
		&self, _: &str, _: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		let error = Err(unexpected("read", key));
		std::future::ready(error)
	}

	fn write(
		&self, _: &str, _: &str, _: &str, bytes: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let core = Arc::clone(&self.0);
		async move {
			match core.guard.write_manager_async(&core.disk, bytes).await {
				true => Ok(()),
				false => Err(io::Error::new(io::ErrorKind::Other, "the node died")),
			}
		}
	}

	fn remove(
		&self, _: &str, _: &str, key: &str, _: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let error = Err(unexpected("remove", key));
		std::future::ready(error)
	}

	fn list(
		&self, primary: &str, _: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		let error = Err(unexpected("list", primary));
		std::future::ready(error)
	}
}

fn unexpected(doing: &str, what: &str) -> io::Error {
	let message = format!("the background processor does not {doing} {what}");
	io::Error::new(io::ErrorKind::Other, message)
}

impl KVStoreSync for LoopStore {
	fn read(&self, _: &str, _: &str, key: &str) -> Result<Vec<u8>, io::Error> {
		Err(unexpected("read", key))
	}

	fn write(&self, _: &str, _: &str, _: &str, bytes: Vec<u8>) -> Result<(), io::Error> {
		match self.0.guard.write_manager(&self.0.disk, bytes) {
			true => Ok(()),
			false => Err(io::Error::new(io::ErrorKind::Other, "the node died")),
		}
	}

	fn remove(&self, _: &str, _: &str, key: &str, _: bool) -> Result<(), io::Error> {
		Err(unexpected("remove", key))
	}

	fn list(&self, primary: &str, _: &str) -> Result<Vec<String>, io::Error> {
		Err(unexpected("list", primary))
	}
}
