// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! How long, how many, and what is kept.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::key::RequestKey;
use crate::run::{Answer, AnswerKind};

/// What is done with a request whose time is over.
#[derive(Clone)]
pub enum Expired {
	/// It is refused.
	Tombstone,
	/// It is done again if this says that what was done the first time is dead: that an invoice can
	/// not be paid any more, say. If it is not sure, it says `false`.
	Reissue(Arc<dyn Fn(&RequestKey) -> bool + Send + Sync>),
}

/// What a [`Requests`](crate::Requests) keeps, and for how long.
#[derive(Clone)]
pub struct RequestOptions {
	/// How long a request is remembered after its answer is not replayed any more. 30 days unless set
	/// otherwise. Longer than anything could still come of the effect: the life of an invoice, and of
	/// the HTLCs that pay it.
	pub remember: Duration,
	/// What is done in that time.
	pub expired: Expired,
	/// The number of requests that one scope may have, remembered ones among them. 10,000 unless set
	/// otherwise: a scope is a peer who must not fill the store.
	pub max_per_scope: u64,
	/// How long [`Requests::handle`](crate::Requests::handle) waits for who is at the same request.
	/// 20 seconds unless set otherwise.
	pub wait: Duration,
	/// The answers that are kept. A request whose answer is not kept is carried out again the next time.
	/// All but [transient](AnswerKind::Transient) ones, unless set otherwise; those of
	/// [invalid](AnswerKind::Invalid) requests never are.
	pub keep: fn(&Answer) -> bool,
}

impl Default for RequestOptions {
	fn default() -> Self {
		Self {
			remember: Duration::from_secs(30 * 24 * 3600),
			expired: Expired::Tombstone,
			max_per_scope: 10_000,
			wait: Duration::from_secs(20),
			keep: |answer| answer.kind() != AnswerKind::Transient,
		}
	}
}

impl fmt::Debug for Expired {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Tombstone => "Tombstone",
			Self::Reissue(_) => "Reissue",
		})
	}
}

impl fmt::Debug for RequestOptions {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("RequestOptions")
			.field("remember", &self.remember)
			.field("expired", &self.expired)
			.field("max_per_scope", &self.max_per_scope)
			.field("wait", &self.wait)
			.finish_non_exhaustive()
	}
}
