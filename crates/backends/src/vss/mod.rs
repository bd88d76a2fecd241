// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Records on a Versioned Storage Service (VSS), through `vss-client-ng`.
//!
//! # What is promised
//! A group is one `putObjects`, which the server does whole or not at all, on the condition that the
//! store is at the `global_version` that only its last writer knows. The server compares and counts
//! that version only if a request names it, so every request of ours does: a node that was stopped
//! and wakes up when another has taken over is [`Fenced`](StoreError::Fenced), wherever it runs. No
//! other condition is used: an item's own version begins at one again after it was deleted, and says
//! nothing.
//!
//! # A reply that is lost
//! Every group also writes one small record, the head, with the number of the group and of its
//! writer. When the reply does not come, the same group is sent again: only one of the two can be
//! done, since both want the same `global_version`. If the server says that there is a conflict, the
//! head tells whether the group was written or another writer has come.
//! [`Indeterminate`](StoreError::Indeterminate) is left for a server that cannot be reached within
//! the [timeout](VssOptions::timeout), and for a lost group that another writer has buried.
//!
//! # A request that is too large
//! A server and a proxy before it have limits of their own, and the client gives a request ten
//! seconds, whatever its size. If a large group is lost twice in a row, a group with nothing but the
//! head is sent in its place: once that is done, the large group was not written and never will be.
//! The large group is then sent anew. If all that happens once more, or if a server says that the
//! request is too large, every batch of the group gets [`Invalid`](StoreError::Invalid), which says
//! what to raise. Nothing of the group was written, no outage is told, and the handle goes on.
//!
//! # What the server sees
//! The name of the store, how many records there are in how many tables, how large they are and when
//! they change. Names of tables, keys and values are encrypted. Values are bound to their keys, so
//! one cannot be passed off as another; a server that brings back yesterday's copy of everything is
//! not noticed.
//!
//! # What is not promised
//! There is no early warning: whoever opens a namespace takes it over. The namespaces of a server
//! cannot be listed. What the server has acknowledged is as durable as its operator made it.
//!
//! # What it costs
//! One round trip for a group, and one before it if there is something to look up. The server lists
//! keys without values, so the keys of tables that are scanned are held in memory, and a scan reads
//! record by record, many at a time. A group has at most 999 records; a batch with more is
//! [`TooLarge`](StoreError::TooLarge), and so is one of more than [`VSS_MAX_BATCH_BYTES`].
//!
//! # How it is known
//! Tests against a small server of Leyden's own make trouble at every step. The store was also run
//! against the published server (commit f446355 of May 2026), behind a relay that names the
//! protocol's version, which that server does not: `crates/backends/tests/vss_server.rs`.

mod client;
mod medium;
mod names;
mod opening;
mod sending;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leyden_store::frame::MAX_BODY_BYTES;
use leyden_store::group::{GroupStore, Medium, OutagePolicy, Stats, StoreObserver};
use leyden_store::{
	Batch, Committed, Epoch, Guarantees, Key, KeyRange, Namespace, Page, Record, Store, StoreError,
	Ticket,
};

use medium::VssMedium;

#[cfg(feature = "fuzz")]
pub(crate) use client::vss_answer_law;
#[cfg(feature = "fuzz")]
pub(crate) use medium::STORED as VSS_STORED;
pub use medium::VSS_FORMAT;
#[cfg(feature = "fuzz")]
pub(crate) use names::vss_law;
/// The client, for its header providers.
pub use vss_client_ng as client_ng;
use vss_client_ng::headers::{FixedHeaders, VssHeaderProvider};

/// The most bytes of records in one batch: as many as the largest record has (64 MiB). A group ends
/// with the batch that brings it to 64 MiB, so a request has less than 130 MiB. The published server
/// takes 1 GiB, unless it is told otherwise.
pub const VSS_MAX_BATCH_BYTES: usize = MAX_BODY_BYTES;

/// Where a store is, and the secret that its records are encrypted with.
#[derive(Clone)]
pub struct VssConfig {
	base_url: String,
	store_id: String,
	secret: [u8; 32],
	headers: Arc<dyn VssHeaderProvider>,
}

impl VssConfig {
	/// A store of its own on the server at `base_url`: `store_id` must not be one that a node keeps
	/// other things under, since what does not name the `global_version` goes past our fence.
	///
	/// `secret` is made from the node's seed, for this purpose only. Without it the records are lost.
	pub fn new(base_url: impl Into<String>, store_id: impl Into<String>, secret: [u8; 32]) -> Self {
		let headers = Arc::new(FixedHeaders::new(std::collections::HashMap::new()));
		Self { base_url: base_url.into(), store_id: store_id.into(), secret, headers }
	}

	/// With the headers that the server wants, such as a token or a signature.
	#[must_use]
	pub fn with_headers(mut self, headers: Arc<dyn VssHeaderProvider>) -> Self {
		self.headers = headers;
		self
	}
}

impl fmt::Debug for VssConfig {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { base_url, store_id, .. } = self;
		f.debug_struct("VssConfig")
			.field("base_url", base_url)
			.field("store_id", store_id)
			.finish_non_exhaustive()
	}
}

/// How a server is used.
#[derive(Clone, Debug)]
pub struct VssOptions {
	/// The time for which a request is tried again before that counts as an outage of the server.
	/// 30 seconds unless set otherwise.
	pub timeout: Duration,
	/// The policy for a server that is away. An opening does not wait.
	pub outages: OutagePolicy,
}

impl Default for VssOptions {
	fn default() -> Self {
		Self { timeout: Duration::from_secs(30), outages: OutagePolicy::default() }
	}
}

/// A [`Store`] on a VSS server.
#[derive(Debug)]
pub struct VssStore(GroupStore<VssMedium>);

impl VssStore {
	/// Opens `namespace`, which is the store `<store_id>/<namespace>` on the server.
	///
	/// # Errors
	/// [`StoreError::Unavailable`] if the server cannot be reached, [`StoreError::Invalid`] if it
	/// lets nobody in with these headers, speaks another protocol or has nothing at this URL,
	/// [`StoreError::NotAStore`] if what is there is not ours or of another secret,
	/// [`StoreError::Newer`] if a newer version wrote it.
	///
	/// # Failure Behavior and Persistence
	/// When it returns, the epoch is raised: nothing that an older handle commits from then on is
	/// written. A crash before that leaves the store as it was, or one that opens.
	pub fn open(
		config: VssConfig, namespace: &Namespace, options: &VssOptions,
	) -> Result<Self, StoreError> {
		let writer = VssMedium::open(config, namespace, options)?;
		Ok(Self(GroupStore::start(writer, guarantees())?))
	}

	/// Opens `namespace` to be read only. Nothing is written, and the epoch stays as it is; a node
	/// that writes is not disturbed.
	///
	/// Which keys there are is asked once for each table, when it is scanned first: records that are
	/// written after that are not seen.
	///
	/// # Errors
	/// As [`open`](VssStore::open).
	pub fn open_read_only(
		config: VssConfig, namespace: &Namespace, options: &VssOptions,
	) -> Result<Self, StoreError> {
		let writer = VssMedium::open_read_only(config, namespace, options)?;
		Ok(Self(GroupStore::start(writer, guarantees())?))
	}

	/// Returns the epoch of this handle; `None` if it only reads.
	pub fn epoch(&self) -> Option<Epoch> {
		self.0.epoch()
	}

	/// Returns what was done so far.
	pub fn stats(&self) -> Stats {
		self.0.stats()
	}

	/// Makes the next group fail as if its reply were lost and the server stayed away.
	#[cfg(feature = "fault-injection")]
	pub fn fail_next_flush(&self) {
		self.0.with_medium(VssMedium::fail_next_write);
	}

	/// Changes the bytes of the record at `key`, the way a failing disk does.
	///
	/// # Errors
	/// The server's.
	#[cfg(feature = "fault-injection")]
	pub fn damage(
		&self, key: &leyden_store::Key, change: &mut dyn FnMut(&mut Vec<u8>),
	) -> Result<bool, StoreError> {
		self.0.with_medium(|medium| medium.damage(key, change)).unwrap_or(Ok(false))
	}
}

fn guarantees() -> Guarantees {
	let mut guarantees = Guarantees::server("vss");
	guarantees.max_writes = VssMedium::MAX_WRITES;
	guarantees
}

impl Store for VssStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		let (limit, found) = (VSS_MAX_BATCH_BYTES, batch.bytes());
		if found > limit {
			let what = "bytes of records in one batch, for a store on VSS";
			return Ticket::ready(Err(StoreError::TooLarge { what, limit, found }));
		}
		self.0.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.0.get(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.0.scan(range, limit)
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		self.0.get_raw(key)
	}

	fn guarantees(&self) -> Guarantees {
		self.0.guarantees()
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		self.0.observe(observer)
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		self.0.block(wait);
	}

	fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
		self.0.copy_to(to)
	}

	fn checkpoint(&self) -> Result<(), StoreError> {
		self.0.checkpoint()
	}
}
