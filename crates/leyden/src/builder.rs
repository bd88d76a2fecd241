// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Says where a store is, and opens it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use leyden_log::LogError;
use leyden_store::{Clock, Namespace, SystemClock};

use crate::{Leyden, StoreUrl};

/// Made by [`Leyden::builder`].
#[must_use = "nothing is opened until `open` is called"]
pub struct LeydenBuilder {
	url: StoreUrl,
	namespace: Namespace,
	clock: Arc<dyn Clock>,
}

impl LeydenBuilder {
	pub(crate) fn new() -> Self {
		let clock = Arc::new(SystemClock);
		Self { url: StoreUrl::Memory, namespace: Namespace::default(), clock }
	}

	/// In a SQLite database at this path, created if there is none.
	pub fn sqlite(self, path: impl Into<PathBuf>) -> Self {
		self.url(StoreUrl::Sqlite(path.into()))
	}

	/// At this URL. Without one, in memory.
	pub fn url(mut self, url: StoreUrl) -> Self {
		self.url = url;
		self
	}

	/// In this namespace; `default` without. A store may hold several nodes.
	pub fn namespace(mut self, namespace: Namespace) -> Self {
		self.namespace = namespace;
		self
	}

	/// With this clock; the machine's without.
	pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
		self.clock = clock;
		self
	}

	/// Opens it.
	///
	/// # Errors
	/// The store's, if it cannot be opened or is no store of ours; the log's.
	///
	/// # Failure Behavior and Persistence
	/// Opening raises the epoch of the namespace: from then on, an older writer is fenced off. A
	/// crash in the middle leaves a store that opens.
	pub fn open(self) -> Result<Leyden, LogError> {
		Leyden::on(self.url.open(self.namespace)?, self.clock)
	}
}

impl fmt::Debug for LeydenBuilder {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "LeydenBuilder for {} ({})", self.url, self.namespace)
	}
}
