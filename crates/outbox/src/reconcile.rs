// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The other side of a feed: what was never received is pulled, and applied the same way.

use std::fmt;
use std::sync::Arc;

use leyden_store::{Batch, Key, KeyRange, Plan, Store};

use crate::callback::MAX_ENDPOINT_CHARS;
use crate::error::OutboxError;
use crate::feed::{expected, FeedCursor, FeedItem, FeedPage};
use crate::outbox::sequence;
use crate::records::{self, CursorV1, ItemV1, Parked, CURSORS};

/// Most callbacks of one source that wait to be applied.
pub const MAX_PARKED: usize = 10_000;

/// Callbacks read in one go.
const PAGE: usize = 256;

/// Where a receiver is in the feed of a source, in the receiver's store. A receiver that was restored
/// from a copy is where that copy was, and repairs itself.
pub struct Reconciler {
	store: Arc<dyn Store>,
	name: String,
	cursor: FeedCursor,
	/// How many are parked.
	parked: usize,
}

/// What a callback that was pulled comes to.
pub enum Applied {
	/// It is taken, with this change; nothing, if it was taken before.
	Now(Plan<()>),
	/// What must come first has not come yet. It is kept, and so is what comes after it with its order
	/// key, until [`Reconciler::retry`].
	Later,
	/// It will never be taken. It is kept for somebody to look at ([`Reconciler::refused`]), and nothing
	/// waits for it.
	Never,
}

/// What a page changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reconciled {
	/// How many callbacks were applied; what was known already does nothing a second time.
	pub applied: usize,
	/// How many were kept for later.
	pub later: usize,
	/// How many will never be taken.
	pub refused: usize,
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
		let cursor = cursor.map_or(FeedCursor::default(), CursorV1::cursor);
		let mut this = Self { store, name: source.to_owned(), cursor, parked: 0 };
		let (mut parked, mut rest) = (0, Some(records::parked(&this.name, Parked::Later)));
		while let Some(range) = rest.take() {
			let page = this.store.scan(range, PAGE).wait()?;
			parked += page.records.len();
			rest = page.rest;
		}
		this.parked = parked;
		Ok(this)
	}

	/// The sources that this store has a place in.
	///
	/// # Errors
	/// The store's.
	pub fn sources(store: &dyn Store) -> Result<Vec<(String, FeedCursor)>, OutboxError> {
		let (mut sources, mut rest) = (Vec::new(), Some(KeyRange::all(CURSORS)));
		while let Some(range) = rest.take() {
			let page = store.scan(range, PAGE).wait()?;
			for (key, record) in &page.records {
				let cursor: CursorV1 = records::read(key, record)?;
				let name = String::from_utf8_lossy(key.bytes()).into_owned();
				sources.push((name, cursor.cursor()));
			}
			rest = page.rest;
		}
		Ok(sources)
	}

	/// What to ask the source for.
	pub fn cursor(&self) -> FeedCursor {
		self.cursor
	}

	/// Begins with the source anew; for one that is another than before. What is applied again must do
	/// nothing. What is kept for later stays.
	///
	/// # Errors
	/// The store's.
	///
	/// # Failure Behavior and Persistence
	/// Durable when it returns.
	pub fn begin_anew(&mut self) -> Result<(), OutboxError> {
		self.keep(FeedCursor::default(), Batch::new(), Plan::of(Batch::new()))
	}

	/// Applies a page: each callback together with the new cursor, in one commit. `apply` says what a
	/// callback comes to; it must be the same as for one that was pushed, and change nothing for one
	/// that was applied before.
	///
	/// # Errors
	/// [`WrongEpoch`](OutboxError::WrongEpoch) if it is of another source than before, and
	/// [`Gap`](OutboxError::Gap) if it does not go on where the cursor is: nothing was applied then.
	/// [`TooManyParked`](OutboxError::TooManyParked) if too many wait, and the store's: what came before
	/// was applied.
	///
	/// # Failure Behavior and Persistence
	/// A crash in the middle leaves the first callbacks applied or kept, and the cursor behind them.
	pub fn apply(
		&mut self, page: &FeedPage, mut apply: impl FnMut(&FeedItem) -> Applied,
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
		let mut done =
			Reconciled { applied: 0, later: 0, refused: 0, cursor: self.cursor, more: false };
		for item in &page.items {
			let cursor = FeedCursor::behind(page.epoch, item);
			let waits = self.parked > 0 && self.lane_waits(item)?;
			match if waits { Applied::Later } else { apply(item) } {
				Applied::Now(plan) => {
					self.keep(cursor, Batch::new(), plan)?;
					done.applied += 1;
				},
				Applied::Later if self.parked >= MAX_PARKED => {
					return Err(OutboxError::TooManyParked { limit: MAX_PARKED });
				},
				Applied::Later => {
					self.keep(cursor, park(&self.name, Parked::Later, cursor, item)?, nothing())?;
					self.parked += 1;
					done.later += 1;
				},
				Applied::Never => {
					self.keep(cursor, park(&self.name, Parked::Refused, cursor, item)?, nothing())?;
					done.refused += 1;
				},
			}
		}
		done.cursor = self.cursor;
		done.more = self.cursor.after < page.last;
		Ok(done)
	}

	/// Tries what was kept for later, in order for each order key. Answers what became of it; `later`
	/// is what still waits. Call it whenever something may have come that it waits for.
	///
	/// # Errors
	/// The store's: what came before was applied.
	///
	/// # Failure Behavior and Persistence
	/// Each is one commit with what it changes.
	pub fn retry(
		&mut self, mut apply: impl FnMut(&FeedItem) -> Applied,
	) -> Result<Reconciled, OutboxError> {
		let mut done =
			Reconciled { applied: 0, later: 0, refused: 0, cursor: self.cursor, more: false };
		let mut stuck = None;
		for (key, item) in self.kept(Parked::Later)? {
			if stuck.as_ref() == Some(&records::lane(item.order_key())) {
				done.later += 1;
				continue;
			}
			let mut batch = Batch::new();
			batch.delete(key.clone());
			let plan = match apply(&item) {
				Applied::Now(plan) => {
					done.applied += 1;
					plan
				},
				Applied::Later => {
					// What is behind it waits with it.
					stuck = Some(records::lane(item.order_key()));
					done.later += 1;
					continue;
				},
				Applied::Never => {
					done.refused += 1;
					let cursor = FeedCursor::behind(records::parked_epoch(&key)?, &item);
					Plan::of(park(&self.name, Parked::Refused, cursor, &item)?)
				},
			};
			plan.and(Plan::of(batch)).map(|((), ())| ()).run(&*self.store)?;
			self.parked = self.parked.saturating_sub(1);
		}
		Ok(done)
	}

	/// What waits for something else to come first.
	///
	/// # Errors
	/// The store's.
	pub fn waiting(&self) -> Result<Vec<FeedItem>, OutboxError> {
		Ok(self.kept(Parked::Later)?.into_iter().map(|(_, item)| item).collect())
	}

	/// What was never taken, for somebody to look at.
	///
	/// # Errors
	/// The store's.
	pub fn refused(&self) -> Result<Vec<FeedItem>, OutboxError> {
		Ok(self.kept(Parked::Refused)?.into_iter().map(|(_, item)| item).collect())
	}

	fn kept(&self, why: Parked) -> Result<Vec<(Key, FeedItem)>, OutboxError> {
		let (mut kept, mut rest) = (Vec::new(), Some(records::parked(&self.name, why)));
		while let Some(range) = rest.take() {
			let page = self.store.scan(range, PAGE).wait()?;
			for (key, record) in &page.records {
				let item: ItemV1 = records::read(key, record)?;
				kept.push((key.clone(), item.callback(sequence(records::number_of(key)?))));
			}
			rest = page.rest;
		}
		Ok(kept)
	}

	/// Whether something with its order key is kept for later.
	fn lane_waits(&self, item: &FeedItem) -> Result<bool, OutboxError> {
		let lane = records::lane(item.order_key());
		let range = records::parked_lane(&self.name, Parked::Later, &lane);
		Ok(!self.store.scan(range, 1).wait()?.records.is_empty())
	}

	fn keep(
		&mut self, cursor: FeedCursor, mut batch: Batch, plan: Plan<()>,
	) -> Result<(), OutboxError> {
		let FeedCursor { epoch, after, mark } = cursor;
		let record = CursorV1 { epoch, after, mark };
		batch.put(records::cursor_key(&self.name), records::value(&record)?);
		plan.and(Plan::of(batch)).map(|((), ())| ()).run(&*self.store)?;
		self.cursor = cursor;
		Ok(())
	}
}

fn nothing() -> Plan<()> {
	Plan::of(Batch::new())
}

fn park(
	source: &str, why: Parked, cursor: FeedCursor, item: &FeedItem,
) -> Result<Batch, OutboxError> {
	let lane = records::lane(item.order_key());
	let key = records::parked_key(source, why, &lane, cursor);
	// What came from elsewhere is kept until it is applied, however old it is.
	let mut batch = Batch::new();
	batch.put(key, records::value(&ItemV1::of(item, 0))?);
	Ok(batch)
}

impl fmt::Debug for Reconciler {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { name, cursor, parked, .. } = self;
		write!(f, "Reconciler({name} at {cursor}, {parked} waiting)")
	}
}

impl fmt::Debug for Applied {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Now(_) => "Now",
			Self::Later => "Later",
			Self::Never => "Never",
		})
	}
}
