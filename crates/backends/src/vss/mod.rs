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
//! [`TooLarge`](StoreError::TooLarge). The client gives a request ten seconds, whatever its size.

mod client;
mod medium;
mod names;
mod opening;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use leyden_store::group::{GroupStore, Medium, OutagePolicy};
use leyden_store::{Guarantees, Namespace, StoreError};

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

/// A [`Store`](leyden_store::Store) on a VSS server.
#[derive(Debug)]
pub struct VssStore(GroupStore<VssMedium>);

impl VssStore {
	/// Opens `namespace`, which is the store `<store_id>/<namespace>` on the server.
	///
	/// # Errors
	/// [`StoreError::Unavailable`] if the server cannot be reached, [`StoreError::Invalid`] if it
	/// lets nobody in with these headers or speaks another protocol, [`StoreError::NotAStore`] if
	/// what is there is not ours or of another secret, [`StoreError::Newer`] if a newer version wrote
	/// it.
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

impl Deref for VssStore {
	type Target = GroupStore<VssMedium>;

	fn deref(&self) -> &GroupStore<VssMedium> {
		&self.0
	}
}
