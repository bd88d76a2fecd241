// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A Leyden store as LDK's `KVStore`: one database, one writer and one backup for the whole node.

mod layout;

use std::future::Future;
use std::sync::Arc;

use leyden_store::{codec, Batch, Key, KeyRange, Record, Store, StoreError, Ticket};
use lightning::io;
use lightning::util::persist::{
	KVStore, KVStoreSync, MigratableKVStore, MigratableKVStoreSync, PageToken, PaginatedKVStore,
	PaginatedKVStoreSync, PaginatedListResponse,
};

use crate::error::to_io;
use layout::{all_names, KvNameV1, Name, Namespaces};

/// Keys in a page of [`PaginatedKVStore::list_paginated`].
pub const KEYS_PER_PAGE: usize = 100;

const SCAN: usize = 1024;

/// LDK's `KVStoreSync`, `KVStore`, `MigratableKVStore(Sync)` and `PaginatedKVStore(Sync)` over a
/// [`Store`].
///
/// Writes and removes are submitted in the call, so their order is the order of the calls, over all
/// keys (LDK asks for that per key). A key and its place in the list are one commit. `lazy` removes
/// are [`Durability::Lazy`](leyden_store::Durability): a crash may undo them, together with what
/// came later.
#[derive(Clone)]
pub struct LeydenKvStore {
	store: Arc<dyn Store>,
}

impl LeydenKvStore {
	/// Over `store`.
	pub fn new(store: Arc<dyn Store>) -> Self {
		Self { store }
	}

	fn submit(&self, batch: Result<Batch, StoreError>) -> Ticket<()> {
		match batch {
			Ok(batch) => self.store.commit(batch).then(|committed| committed.map(|_| ())),
			Err(error) => Ticket::ready(Err(error)),
		}
	}

	fn submit_read(&self, name: &Name<'_>, namespaces: &Namespaces) -> Ticket<Option<Vec<u8>>> {
		let key = name.value_key(namespaces);
		let read = self.store.get(&key);
		read.then(move |record| record?.map(|record| layout::value(&key, record)).transpose())
	}

	fn submit_write(
		&self, p: &str, s: &str, k: &str, buf: Vec<u8>,
	) -> Result<Ticket<()>, io::Error> {
		let (namespaces, name) = Name::new(p, s, k)?;
		Ok(self.submit(name.write(&namespaces, buf)))
	}

	fn submit_remove(
		&self, p: &str, s: &str, k: &str, lazy: bool,
	) -> Result<Ticket<()>, io::Error> {
		let (namespaces, name) = Name::new(p, s, k)?;
		Ok(self.submit(Ok(name.remove(&namespaces, lazy))))
	}
}

impl KVStoreSync for LeydenKvStore {
	fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
		let (namespaces, name) = Name::new(primary, secondary, key)?;
		found(self.submit_read(&name, &namespaces).wait())
	}

	/// # Failure Behavior and Persistence
	/// Durable when it returns. A crash before that leaves the old value or the new one.
	fn write(
		&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>,
	) -> Result<(), io::Error> {
		self.submit_write(primary, secondary, key, buf)?.wait().map_err(to_io)
	}

	/// # Failure Behavior and Persistence
	/// Durable when it returns, unless `lazy`. To remove what is not there is no error.
	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> Result<(), io::Error> {
		self.submit_remove(primary, secondary, key, lazy)?.wait().map_err(to_io)
	}

	fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
		let namespaces = Namespaces::new(primary, secondary)?;
		let names = names_sync(&self.store, namespaces.names())?;
		Ok(names.into_iter().map(|name| name.key).collect())
	}
}

impl KVStore for LeydenKvStore {
	fn read(
		&self, primary: &str, secondary: &str, key: &str,
	) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
		let read = Name::new(primary, secondary, key)
			.map(|(namespaces, name)| self.submit_read(&name, &namespaces));
		async move { found(read?.await) }
	}

	/// # Failure Behavior and Persistence
	/// Durable when the future resolves; submitted when this is called.
	fn write(
		&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let write = self.submit_write(primary, secondary, key, buf);
		async move { write?.await.map_err(to_io) }
	}

	/// # Failure Behavior and Persistence
	/// As for `write`; `lazy` as for the synchronous one.
	fn remove(
		&self, primary: &str, secondary: &str, key: &str, lazy: bool,
	) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
		let remove = self.submit_remove(primary, secondary, key, lazy);
		async move { remove?.await.map_err(to_io) }
	}

	fn list(
		&self, primary: &str, secondary: &str,
	) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
		let namespaces = Namespaces::new(primary, secondary);
		let store = Arc::clone(&self.store);
		async move {
			let names = names(store, namespaces?.names()).await?;
			Ok(names.into_iter().map(|name| name.key).collect())
		}
	}
}

impl MigratableKVStoreSync for LeydenKvStore {
	fn list_all_keys(&self) -> Result<Vec<(String, String, String)>, io::Error> {
		let names = names_sync(&self.store, all_names())?;
		Ok(names.into_iter().map(|name| (name.primary, name.secondary, name.key)).collect())
	}
}

impl MigratableKVStore for LeydenKvStore {
	fn list_all_keys(
		&self,
	) -> impl Future<Output = Result<Vec<(String, String, String)>, io::Error>> + 'static + Send {
		let store = Arc::clone(&self.store);
		async move {
			let names = names(store, all_names()).await?;
			Ok(names.into_iter().map(|name| (name.primary, name.secondary, name.key)).collect())
		}
	}
}

impl PaginatedKVStoreSync for LeydenKvStore {
	fn list_paginated(
		&self, primary: &str, secondary: &str, page_token: Option<PageToken>,
	) -> Result<PaginatedListResponse, io::Error> {
		let (namespaces, range) = page_range(primary, secondary, page_token)?;
		let page = self.store.scan(range, KEYS_PER_PAGE).wait().map_err(to_io)?;
		listed(&namespaces, page)
	}
}

impl PaginatedKVStore for LeydenKvStore {
	fn list_paginated(
		&self, primary: &str, secondary: &str, page_token: Option<PageToken>,
	) -> impl Future<Output = Result<PaginatedListResponse, io::Error>> + 'static + Send {
		let page = page_range(primary, secondary, page_token)
			.map(|(namespaces, range)| (namespaces, self.store.scan(range, KEYS_PER_PAGE)));
		async move {
			let (namespaces, page) = page?;
			listed(&namespaces, page.await.map_err(to_io)?)
		}
	}
}

fn found(read: Result<Option<Vec<u8>>, StoreError>) -> Result<Vec<u8>, io::Error> {
	read.map_err(to_io)?
		.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no value at this key"))
}

fn names_sync(store: &Arc<dyn Store>, range: KeyRange) -> Result<Vec<KvNameV1>, io::Error> {
	let (mut out, mut rest) = (Vec::new(), Some(range));
	while let Some(range) = rest.take() {
		let page = store.scan(range, SCAN).wait().map_err(to_io)?;
		rest = page.rest;
		decode_names(&mut out, page.records)?;
	}
	Ok(out)
}

async fn names(store: Arc<dyn Store>, range: KeyRange) -> Result<Vec<KvNameV1>, io::Error> {
	let (mut out, mut rest) = (Vec::new(), Some(range));
	while let Some(range) = rest.take() {
		let page = store.scan(range, SCAN).await.map_err(to_io)?;
		rest = page.rest;
		decode_names(&mut out, page.records)?;
	}
	Ok(out)
}

fn decode_names(out: &mut Vec<KvNameV1>, records: Vec<(Key, Record)>) -> Result<(), io::Error> {
	for (key, record) in records {
		out.push(codec::decode(&key, &record).map_err(to_io)?);
	}
	Ok(())
}

#[cfg(feature = "fuzz")]
pub(crate) use layout::STORED as KV_NAME_STORED;

/// A name that LDK's contract allows is one; a page token is written in one way.
#[cfg(feature = "fuzz")]
pub(crate) fn kv_name_law(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	use lightning::util::persist::{KVSTORE_NAMESPACE_KEY_ALPHABET, KVSTORE_NAMESPACE_KEY_MAX_LEN};
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	let is_name = text.len() <= KVSTORE_NAMESPACE_KEY_MAX_LEN
		&& text.chars().all(|c| KVSTORE_NAMESPACE_KEY_ALPHABET.contains(c));
	let taken = Name::new(text, text, text).is_ok();
	let mut pairs = vec![(vec![u8::from(is_name && !text.is_empty())], vec![u8::from(taken)])];
	if page_range("a", "b", Some(PageToken::new(text.to_owned()))).is_ok() {
		let number = text.parse::<u64>().map_or(String::new(), |number| number.to_string());
		pairs.push((bytes.to_vec(), number.into_bytes()));
	}
	pairs
}

/// A token is the number of the last key of its page.
fn page_range(
	primary: &str, secondary: &str, token: Option<PageToken>,
) -> Result<(Namespaces, KeyRange), io::Error> {
	let namespaces = Namespaces::new(primary, secondary)?;
	let number = |token: PageToken| {
		let number: Option<u64> = token.as_str().parse().ok();
		// As it is written: without a sign, and without zeros in front.
		number.filter(|number| number.to_string() == token.as_str()).ok_or_else(|| {
			io::Error::new(io::ErrorKind::InvalidInput, "this page token is not from this store")
		})
	};
	let before = token.map(number).transpose()?;
	Ok((namespaces, namespaces.names_before(before)))
}

fn listed(
	namespaces: &Namespaces, page: leyden_store::Page,
) -> Result<PaginatedListResponse, io::Error> {
	let last = page.records.last().and_then(|(key, _)| namespaces.number(key));
	let more = page.rest.is_some();
	let mut names = Vec::new();
	decode_names(&mut names, page.records)?;
	Ok(PaginatedListResponse {
		keys: names.into_iter().map(|name| name.key).collect(),
		next_page_token: last.filter(|_| more).map(|number| PageToken::new(number.to_string())),
	})
}
