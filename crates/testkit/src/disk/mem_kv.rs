//! A [`KVStoreSync`] in memory whose whole content can be copied and put back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use lightning::io;
use lightning::util::persist::KVStoreSync;

/// The content of a [`MemKv`]: (primary namespace, secondary namespace, key) to value.
pub type KvContent = BTreeMap<(String, String, String), Vec<u8>>;

/// A key-value store that forgets everything when the process ends.
#[derive(Default)]
pub struct MemKv(Mutex<KvContent>);

impl MemKv {
	/// An empty store.
	pub fn new() -> Self {
		Self::default()
	}

	/// A copy of everything in it.
	pub fn snapshot(&self) -> KvContent {
		self.content().clone()
	}

	/// Makes it what it was when `content` was taken.
	pub fn restore(&self, content: KvContent) {
		*self.content() = content;
	}

	fn content(&self) -> MutexGuard<'_, KvContent> {
		self.0.lock().unwrap_or_else(|e| e.into_inner())
	}
}

impl KVStoreSync for MemKv {
	fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
		let name = (primary.to_owned(), secondary.to_owned(), key.to_owned());
		self.content().get(&name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
	}

	fn write(
		&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>,
	) -> Result<(), io::Error> {
		let name = (primary.to_owned(), secondary.to_owned(), key.to_owned());
		self.content().insert(name, buf);
		Ok(())
	}

	fn remove(
		&self, primary: &str, secondary: &str, key: &str, _lazy: bool,
	) -> Result<(), io::Error> {
		self.content().remove(&(primary.to_owned(), secondary.to_owned(), key.to_owned()));
		Ok(())
	}

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		let content = self.content();
		let here = content.keys().filter(|(p, s, _)| p == primary && s == secondary);
		Ok(here.map(|(_, _, key)| key.clone()).collect())
	}
}
