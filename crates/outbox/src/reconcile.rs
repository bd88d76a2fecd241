// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The other side of a feed: what was never received is pulled, and applied the same way.

use std::fmt;
use std::sync::Arc;

use leyden_store::{Batch, Plan, Store};

use crate::callback::MAX_ENDPOINT_CHARS;
use crate::error::OutboxError;
use crate::feed::{expected, FeedCursor, FeedItem, FeedPage};
use crate::records::{self, CursorV1};

/// Where a receiver is in the feed of a source, in the receiver's store. A receiver that was restored
/// from a copy is where that copy was, and repairs itself.
pub struct Reconciler {
	store: Arc<dyn Store>,
	name: String,
	cursor: FeedCursor,
}

/// What a page changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reconciled {
	/// How many callbacks were applied; what was known already does nothing a second time.
	pub applied: usize,
	/// Where to go on.
	pub cursor: FeedCursor,
	/// There is more.
	pub more: bool,
}

impl Reconciler {
	/// Goes on with a source where this store left off.
	///
	/// # Errors
	/// [`OutboxError::TooLarge`] for a name that is empty or too long, the store's.
	pub fn open(store: Arc<dyn Store>, source: &str) -> Result<Self, OutboxError> {
		OutboxError::length("source", source.len(), 1, MAX_ENDPOINT_CHARS)?;
		let key = records::cursor_key(source);
		let record = store.get(&key).wait()?;
		let cursor = record.map(|record| records::read::<CursorV1>(&key, &record)).transpose()?;
		let cursor = cursor
			.map_or(FeedCursor::default(), |CursorV1 { epoch, after }| FeedCursor { epoch, after });
		Ok(Self { store, name: source.to_owned(), cursor })
	}

	/// What to ask the source for.
	pub fn cursor(&self) -> FeedCursor {
		self.cursor
	}

	/// Begins with the source anew; for one that is another than before. What is applied again must do
	/// nothing.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn begin_anew(&mut self) -> Result<(), OutboxError> {
		self.keep(FeedCursor::default(), Plan::of(Batch::new()))
	}

	/// Applies a page: each callback together with the new cursor, in one commit. `apply` gives what a
	/// callback changes; it must be the same as for one that was pushed, and do nothing for one that
	/// was applied before.
	///
	/// # Errors
	/// [`WrongEpoch`](OutboxError::WrongEpoch) if it is of another source than before, and
	/// [`Gap`](OutboxError::Gap) if it does not go on where the cursor is: nothing was applied then.
	/// The store's: what came before was applied.
	///
	/// # Failure Behavior and Persistence
	/// A crash in the middle leaves the first callbacks applied, and the cursor behind them.
	pub fn apply(
		&mut self, page: &FeedPage, mut apply: impl FnMut(&FeedItem) -> Plan<()>,
	) -> Result<Reconciled, OutboxError> {
		let is_new = self.cursor == FeedCursor::default();
		if !is_new && page.epoch != self.cursor.epoch {
			let (ours, found) = (self.cursor.epoch, page.epoch);
			return Err(OutboxError::WrongEpoch { ours, found });
		}
		let mut next = self.cursor;
		for (place, item) in page.items.iter().enumerate() {
			let found = item.sequence();
			let is_next = expected(next) == Some(found) || (is_new && place == 0);
			if !is_next {
				let expected = next.after.saturating_add(1);
				return Err(OutboxError::Gap { expected, found: found.get() });
			}
			next.after = found.get();
		}
		for item in &page.items {
			let cursor = FeedCursor { epoch: page.epoch, after: item.sequence().get() };
			self.keep(cursor, apply(item))?;
		}
		let (applied, cursor) = (page.items.len(), self.cursor);
		Ok(Reconciled { applied, cursor, more: cursor.after < page.last })
	}

	fn keep(&mut self, cursor: FeedCursor, plan: Plan<()>) -> Result<(), OutboxError> {
		let FeedCursor { epoch, after } = cursor;
		let mut batch = Batch::new();
		batch.put(records::cursor_key(&self.name), records::value(&CursorV1 { epoch, after })?);
		plan.and(Plan::of(batch)).map(|((), ())| ()).run(&*self.store)?;
		self.cursor = cursor;
		Ok(())
	}
}

impl fmt::Debug for Reconciler {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { name, cursor, .. } = self;
		write!(f, "Reconciler({name} at {cursor})")
	}
}
