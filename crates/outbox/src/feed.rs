// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What others pull: callbacks by number.

use std::fmt;

use leyden_store::KeyRange;

use crate::callback::{Callback, Sequence};
use crate::error::OutboxError;
use crate::outbox::{sequence, Outbox};
use crate::records::{self, ItemV1, MetaV1, TombV1};

/// Most callbacks in one page.
pub const MAX_FEED_ITEMS: usize = 500;

/// A place in a feed. Written as `epoch-after` or `epoch-after-mark`, in decimal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FeedCursor {
	/// Of which outbox; 0 for one that is not known yet.
	pub epoch: u64,
	/// The number of the last callback that was taken; 0 at the beginning.
	pub after: u64,
	/// The beginning of that callback's id; 0 if it is not known. A source that was restored from an
	/// older copy gives its numbers to other callbacks, which the mark shows.
	pub mark: u64,
}

impl FeedCursor {
	/// Returns the place behind a callback of the outbox with this epoch.
	pub fn behind(epoch: u64, callback: &Callback) -> Self {
		let mark = mark_of(callback.id().as_bytes());
		Self { epoch, after: callback.sequence().get(), mark }
	}
}

fn mark_of(id: &[u8; 32]) -> u64 {
	let (first, _) = id.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
	u64::from_be_bytes(*first)
}

/// A callback in a feed.
pub type FeedItem = Callback;

/// A part of a feed.
#[derive(Clone, Debug)]
pub struct FeedPage {
	/// Of which outbox.
	pub epoch: u64,
	/// The callbacks, in order and without gaps.
	pub items: Vec<FeedItem>,
	/// Where to go on.
	pub next: FeedCursor,
	/// The number of the newest callback that there is; 0 if there is none.
	pub last: u64,
}

impl Outbox {
	/// The callbacks behind a cursor: all of them, whether they arrived or not.
	///
	/// # Errors
	/// [`WrongEpoch`](OutboxError::WrongEpoch) for a cursor of another outbox,
	/// [`TooOld`](OutboxError::TooOld) if what comes next is not kept any more,
	/// [`Ahead`](OutboxError::Ahead) if it is ahead of what there is, and
	/// [`AnotherHistory`](OutboxError::AnotherHistory) if the callback at its place is another one: the
	/// outbox was restored from an older copy. The store's.
	pub fn feed(&self, cursor: FeedCursor, limit: usize) -> Result<FeedPage, OutboxError> {
		let epoch = self.0.epoch;
		if cursor.epoch != epoch && cursor != FeedCursor::default() {
			return Err(OutboxError::WrongEpoch { ours: cursor.epoch, found: epoch });
		}
		// The callback of the cursor, and what is behind it.
		let range = KeyRange::numbered_from(records::ITEMS, b"", cursor.after);
		let limit = limit.clamp(1, MAX_FEED_ITEMS);
		let page = self.0.store.scan(range, limit + 1).wait()?;
		let newest = self.0.store.scan(KeyRange::all(records::ITEMS).reversed(), 1).wait()?;
		let newest = newest.records.first().map(|(key, _)| records::number_of(key)).transpose()?;
		// Read last: what was trimmed while the rest was read must not go unnoticed.
		let key = records::meta_key();
		let meta = self.0.store.get(&key).wait()?;
		let meta = meta.map(|meta| records::read::<MetaV1>(&key, &meta)).transpose()?;
		let trimmed = meta.map_or(0, |meta| meta.trimmed);
		// A cursor at the beginning begins with what there is; one that goes on must be told.
		if cursor.after < trimmed && cursor != FeedCursor::default() {
			return Err(OutboxError::TooOld { first: trimmed + 1 });
		}
		let last = newest.unwrap_or_default().max(trimmed);
		if cursor.after > last {
			return Err(OutboxError::Ahead { last });
		}
		let mut items = Vec::with_capacity(page.records.len());
		let mut found = None;
		for (key, record) in &page.records {
			let number = records::number_of(key)?;
			let item: ItemV1 = records::read(key, record)?;
			if number == cursor.after {
				found = Some(mark_of(&item.id));
			} else if number > trimmed {
				// A dead letter that is older than the rest is for operators, and not in the feed any more.
				items.push(item.callback(sequence(number)));
			}
		}
		items.truncate(limit);
		if cursor.mark != 0 && cursor.after > 0 {
			let found = match found {
				Some(found) => Some(found),
				None => self.mark_of_trimmed(cursor.after)?,
			};
			// What is not even remembered cannot be compared.
			if found.is_some_and(|found| found != cursor.mark) {
				return Err(OutboxError::AnotherHistory { after: cursor.after });
			}
		}
		let next = match items.last() {
			Some(last) => FeedCursor::behind(epoch, last),
			None if cursor.after >= trimmed => FeedCursor { epoch, ..cursor },
			None => FeedCursor { epoch, after: trimmed, mark: 0 },
		};
		Ok(FeedPage { epoch, items, next, last })
	}

	fn mark_of_trimmed(&self, number: u64) -> Result<Option<u64>, OutboxError> {
		let key = records::tomb_key(number);
		let Some(record) = self.0.store.get(&key).wait()? else { return Ok(None) };
		Ok(Some(mark_of(&records::read::<TombV1>(&key, &record)?.id)))
	}
}

impl fmt::Display for FeedCursor {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { epoch, after, mark } = self;
		match mark {
			0 => write!(f, "{epoch}-{after}"),
			mark => write!(f, "{epoch}-{after}-{mark}"),
		}
	}
}

impl std::str::FromStr for FeedCursor {
	type Err = OutboxError;

	fn from_str(text: &str) -> Result<Self, OutboxError> {
		const MOST: usize = 62;
		let too_large = OutboxError::TooLarge { what: "cursor", limit: MOST, found: text.len() };
		let number = |text: &str| {
			let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
			// Each place is written in one way.
			let is_short = text == "0" || !text.starts_with('0');
			text.parse::<u64>().ok().filter(|_| digits && is_short)
		};
		if text.len() > MOST {
			return Err(too_large);
		}
		let parts: Option<Vec<u64>> = text.split('-').map(number).collect();
		match parts.as_deref() {
			Some([epoch, after]) => Ok(Self { epoch: *epoch, after: *after, mark: 0 }),
			Some([epoch, after, mark]) if *mark > 0 => {
				Ok(Self { epoch: *epoch, after: *after, mark: *mark })
			},
			_ => Err(too_large),
		}
	}
}

/// The callback that should come after a cursor.
pub(crate) fn expected(cursor: FeedCursor) -> Option<Sequence> {
	Sequence::new(cursor.after.saturating_add(1))
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn cursors_read_back_and_nothing_else_does() {
		let most = FeedCursor { epoch: u64::MAX, after: u64::MAX, mark: u64::MAX };
		for cursor in [FeedCursor::default(), FeedCursor { mark: 0, ..most }, most] {
			assert_eq!(cursor.to_string().parse::<FeedCursor>().unwrap(), cursor);
		}
		for bad in [
			"",
			"-",
			"1",
			"1-",
			"-1",
			"+1-2",
			"1-+2",
			"1- 2",
			"1-2-0",
			"1-2-",
			"1-2-3-4",
			"01-2",
			"1-02",
			"1-2-03",
			"18446744073709551616-0",
		] {
			assert!(bad.parse::<FeedCursor>().is_err(), "{bad}");
		}
		assert!("0".repeat(70).parse::<FeedCursor>().is_err());
	}
}
