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
use crate::records::{self, ItemV1, MetaV1};

/// Most callbacks in one page.
pub const MAX_FEED_ITEMS: usize = 500;

/// Where somebody is in a feed. Written as `epoch-after`, in decimal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FeedCursor {
	/// Of which outbox; 0 for one that is not known yet.
	pub epoch: u64,
	/// The number of the last callback that was taken; 0 at the beginning.
	pub after: u64,
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
	/// [`Ahead`](OutboxError::Ahead) if it is ahead of what there is; the store's.
	pub fn feed(&self, cursor: FeedCursor, limit: usize) -> Result<FeedPage, OutboxError> {
		let epoch = self.0.epoch;
		if cursor.epoch != epoch && cursor != FeedCursor::default() {
			return Err(OutboxError::WrongEpoch { ours: cursor.epoch, found: epoch });
		}
		let range = KeyRange::numbered_from(records::ITEMS, b"", cursor.after.saturating_add(1));
		let page = self.0.store.scan(range, limit.clamp(1, MAX_FEED_ITEMS)).wait()?;
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
		let last = newest.unwrap_or(trimmed);
		if cursor.after > last {
			return Err(OutboxError::Ahead { last });
		}
		let after = cursor.after.max(trimmed);
		let mut items = Vec::with_capacity(page.records.len());
		for (key, record) in &page.records {
			let item: ItemV1 = records::read(key, record)?;
			items.push(item.callback(sequence(records::number_of(key)?)));
		}
		let after = items.last().map_or(after, |item: &Callback| item.sequence().get());
		Ok(FeedPage { epoch, items, next: FeedCursor { epoch, after }, last })
	}
}

impl fmt::Display for FeedCursor {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}-{}", self.epoch, self.after)
	}
}

impl std::str::FromStr for FeedCursor {
	type Err = OutboxError;

	fn from_str(text: &str) -> Result<Self, OutboxError> {
		const MOST: usize = 41;
		let too_large = OutboxError::TooLarge { what: "cursor", limit: MOST, found: text.len() };
		let number = |text: &str| {
			let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
			text.parse::<u64>().ok().filter(|_| digits)
		};
		let parts = text.split_once('-').filter(|_| text.len() <= MOST);
		match parts.map(|(epoch, after)| (number(epoch), number(after))) {
			Some((Some(epoch), Some(after))) => Ok(Self { epoch, after }),
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
		for cursor in [FeedCursor::default(), FeedCursor { epoch: u64::MAX, after: u64::MAX }] {
			assert_eq!(cursor.to_string().parse::<FeedCursor>().unwrap(), cursor);
		}
		for bad in
			["", "-", "1", "1-", "-1", "+1-2", "1-+2", "1- 2", "1-2-3", "18446744073709551616-0"]
		{
			assert!(bad.parse::<FeedCursor>().is_err(), "{bad}");
		}
		assert!("0".repeat(60).parse::<FeedCursor>().is_err());
	}
}
