// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The entries that a consumer has not acked: the entries less the acks, read side by side in pages.
//!
//! # While acks are folded
//! Housekeeping folds acks into records that begin earlier, and at last into the watermark, each
//! time in one batch. That happens between two reads of anybody: another process reads a running
//! store, and in this one a batch is durable before the handle that wrote it has heard so.
//! Therefore acks are read from the last to the first, and the watermark after them: what moves
//! meanwhile moves to where is still to be read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use leyden_store::{Store, StoreError};

use crate::lookup::Place;
use crate::records::{self, ConsumerKeys, ConsumerV1, StreamKeys};
use crate::removal::REMOVED;
use crate::tail::Tail;
use crate::types::{ConsumerLag, DeadLetter, LogIndex};
use crate::{lookup, LogError};

/// The number of acks read in one go, if [`FEW_ACKS`] did not do.
const ACK_PAGE: usize = 1024;
/// The number of acks that are read first where usually one decides. A consumer that has as many or
/// more when it is opened is tidied up at once.
pub(crate) const FEW_ACKS: usize = 16;

/// Un-acked entries, in order.
pub(crate) struct Pending {
	/// Each with its dead letter, if it has one.
	pub(crate) entries: Vec<(Place, Option<DeadLetter>)>,
	/// Everything up to here was looked at.
	pub(crate) scanned_to: u64,
	/// Nothing is behind it.
	pub(crate) at_end: bool,
}

/// How far acks and dead letters reach, so that nobody looks for them where there are none.
pub(crate) struct Bounds {
	/// Everything up to here is acked.
	pub(crate) watermark: AtomicU64,
	/// Nothing above is acked.
	pub(crate) last_acked: AtomicU64,
	/// Nothing above is a dead letter.
	pub(crate) last_dead: AtomicU64,
}

impl Bounds {
	/// Returns the bounds of a consumer of a stream that has entries up to `head`, and whether
	/// there are many acks above the watermark.
	pub(crate) fn open(
		store: &Arc<dyn Store>, keys: &ConsumerKeys, head: u64,
	) -> Result<(Self, bool), LogError> {
		let latest = store.scan(keys.acks().reversed(), FEW_ACKS).wait()?;
		let watermark = watermark(store, keys)?;
		let mut last_acked = watermark;
		for (key, _) in &latest.records {
			last_acked = last_acked.max(interval(keys, key)?.1);
		}
		let long_tail = latest.records.len() >= FEW_ACKS;
		if long_tail {
			// One that begins earlier may reach further than these.
			last_acked = last_acked.max(head);
		}
		let dead = store.scan(keys.dead_from(0).reversed(), 1).wait()?;
		let last_dead = dead.records.first().and_then(|(key, _)| keys.index(key)).unwrap_or(0);
		let bounds = Self {
			watermark: AtomicU64::new(watermark),
			last_acked: AtomicU64::new(last_acked),
			last_dead: AtomicU64::new(last_dead),
		};
		Ok((bounds, long_tail))
	}

	/// Returns the bounds for a look at a consumer whose acks come from elsewhere.
	pub(crate) fn unknown(store: &Arc<dyn Store>, keys: &ConsumerKeys) -> Result<Self, LogError> {
		let record = consumer(store, keys)?;
		let watermark = record.map_or(0, |record| record.watermark);
		// What is left of before a reset counts no more.
		let last = match record.is_some_and(|record| record.resetting) {
			true => 0,
			false => u64::MAX,
		};
		Ok(Self {
			watermark: AtomicU64::new(watermark),
			last_acked: AtomicU64::new(last.max(watermark)),
			last_dead: AtomicU64::new(last),
		})
	}

	/// Returns `true` if everything up to `index` is acked, by the watermark in the store. To be
	/// asked after acks that were read: they may have been folded into it meanwhile.
	fn is_below_watermark(
		&self, store: &Arc<dyn Store>, keys: &ConsumerKeys, index: u64,
	) -> Result<bool, LogError> {
		let watermark = watermark(store, keys)?;
		// That of a removed consumer is none, and the next consumer of its name has another.
		if watermark != REMOVED {
			self.watermark.fetch_max(watermark, Ordering::SeqCst);
		}
		Ok(index <= watermark)
	}
}

/// Returns the index up to which the consumer has acked everything; 0 if there is no consumer.
pub(crate) fn watermark(store: &Arc<dyn Store>, keys: &ConsumerKeys) -> Result<u64, LogError> {
	Ok(consumer(store, keys)?.map_or(0, |consumer| consumer.watermark))
}

fn consumer(store: &Arc<dyn Store>, keys: &ConsumerKeys) -> Result<Option<ConsumerV1>, LogError> {
	let record = store.get(&keys.consumer).wait()?;
	Ok(record.map(|record| records::read(&keys.consumer, &record)).transpose()?)
}

/// Up to `limit` un-acked entries behind `after`, from `tail` if they are there. May be fewer, and
/// even none, before the end.
pub(crate) fn pending(
	store: &Arc<dyn Store>, stream: &StreamKeys, tail: Option<&Tail>, keys: &ConsumerKeys,
	bounds: &Bounds, after: u64, limit: usize,
) -> Result<Pending, LogError> {
	let mut first = after.max(bounds.watermark.load(Ordering::SeqCst)).saturating_add(1);
	let last_acked = bounds.last_acked.load(Ordering::SeqCst);
	let (entries, last, acked) = loop {
		if first <= last_acked {
			first = behind_acked(store, keys, first)?;
		}
		let kept = tail.map_or_else(Vec::new, |tail| tail.from(first, limit));
		let mut entries: Vec<Place> = kept.into_iter().map(Ok).collect();
		if entries.is_empty() {
			entries = lookup::places(store, stream, first, limit)?;
		}
		let Some(last) = entries.last().map(|place| lookup::index_of(place).get()) else {
			return Ok(Pending { entries: Vec::new(), scanned_to: first - 1, at_end: true });
		};
		if first > last_acked {
			break (entries, last, Vec::new());
		}
		let acked = acks_between(store, keys, first, last)?;
		// What was folded meanwhile is in a record that begins before `first`, or below the
		// watermark. Either covers `first`, too, and the next look begins behind it.
		let covers_first = covering(store, keys, first)?.is_some();
		if !covers_first && !bounds.is_below_watermark(store, keys, first)? {
			break (entries, last, acked);
		}
		if watermark(store, keys)? == REMOVED {
			return Ok(Pending { entries: Vec::new(), scanned_to: first - 1, at_end: true });
		}
		first = first.max(bounds.watermark.load(Ordering::SeqCst).saturating_add(1));
	};
	let mut covered_to = 0;
	let mut acked = acked.into_iter().peekable();
	let dead = if first <= bounds.last_dead.load(Ordering::SeqCst) {
		lookup::dead_letters(store, keys, first, entries.len())?
	} else {
		Vec::new()
	};
	let mut dead = dead.into_iter().peekable();
	let mut left = Vec::new();
	for entry in entries {
		let index = lookup::index_of(&entry);
		while let Some((_, to)) = acked.next_if(|(from, _)| *from <= index.get()) {
			covered_to = covered_to.max(to);
		}
		while dead.next_if(|letter| letter.index < index).is_some() {}
		if index.get() > covered_to {
			left.push((entry, dead.next_if(|letter| letter.index == index)));
		}
	}
	Ok(Pending { entries: left, scanned_to: last.max(covered_to), at_end: false })
}

/// Returns the number of entries that the consumer has not acked, from acks and watermark alone.
pub(crate) fn unacked_count(
	store: &Arc<dyn Store>, stream: &StreamKeys, keys: &ConsumerKeys,
) -> Result<u64, LogError> {
	// From the last to the first, and the watermark after them. The head before: what is appended and
	// acked meanwhile must not count.
	let trimmed = lookup::stream(store, stream)?.map_or(0, |stream| stream.trimmed);
	let head = lookup::head(store, stream)?.max(trimmed);
	let mut acked = Vec::new();
	// Those of before a reset count no more.
	let counts = !consumer(store, keys)?.is_some_and(|consumer| consumer.resetting);
	let mut rest = Some(keys.acks().reversed()).filter(|_| counts);
	while let Some(range) = rest.take() {
		let page = store.scan(range, ACK_PAGE).wait()?;
		for (key, _) in &page.records {
			acked.push(interval(keys, key)?);
		}
		rest = page.rest;
	}
	let mut covered = watermark(store, keys)?.max(trimmed).min(head);
	let mut count = 0;
	// In order of their first index again; they may overlap.
	for (first, last) in acked.into_iter().rev() {
		let (first, last) = (first.min(head.saturating_add(1)), last.min(head));
		if first > covered {
			count += first - covered - 1;
		}
		covered = covered.max(last);
	}
	Ok(count + (head - covered))
}

/// Returns how far the consumer is behind.
pub(crate) fn lag(
	store: &Arc<dyn Store>, stream: &StreamKeys, keys: &ConsumerKeys, bounds: &Bounds,
) -> Result<ConsumerLag, LogError> {
	let unacked = unacked_count(store, stream, keys)?;
	let (mut after, mut oldest) = (0, None);
	while unacked > 0 && oldest.is_none() {
		let page = pending(store, stream, None, keys, bounds, after, 1)?;
		if page.at_end {
			break;
		}
		after = page.scanned_to;
		oldest = page.entries.into_iter().next().map(|(place, _)| place);
	}
	Ok(ConsumerLag {
		unacked,
		oldest: oldest.as_ref().map(lookup::index_of),
		oldest_appended_at: oldest.and_then(|place| Some(place.ok()?.appended_at())),
	})
}

/// Returns the index up to which everything is acked, with acks that are not folded yet.
pub(crate) fn acked_to(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, mut known: u64,
) -> Result<u64, LogError> {
	loop {
		let acked = behind_acked(store, keys, known.saturating_add(1))?.saturating_sub(1);
		// Of a consumer that is being removed there is nothing behind the watermark.
		let acked = acked.max(known);
		// What was folded meanwhile is below the watermark.
		let watermark = watermark(store, keys)?;
		if watermark <= acked {
			return Ok(acked);
		}
		known = watermark;
	}
}

/// Whether the consumer has acked `index`.
pub(crate) fn is_acked(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, bounds: &Bounds, index: LogIndex,
) -> Result<bool, LogError> {
	let index = index.get();
	if index <= bounds.watermark.load(Ordering::SeqCst) {
		return Ok(true);
	}
	if index > bounds.last_acked.load(Ordering::SeqCst) {
		return Ok(false);
	}
	Ok(covering(store, keys, index)?.is_some() || bounds.is_below_watermark(store, keys, index)?)
}

/// Returns up to `limit` dead letters from index `first` on. An entry that was acked in bulk is no
/// dead letter any more, although its record may still be there.
pub(crate) fn dead_letters(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, bounds: &Bounds, mut first: u64, limit: usize,
) -> Result<Vec<DeadLetter>, LogError> {
	let mut letters = Vec::new();
	while letters.len() < limit {
		let page = lookup::dead_letters(store, keys, first, limit - letters.len())?;
		let Some(last) = page.last().map(|letter| letter.index.get()) else { break };
		first = last.saturating_add(1);
		for letter in page {
			if !is_acked(store, keys, bounds, letter.index)? {
				letters.push(letter);
			}
		}
	}
	Ok(letters)
}

/// Returns the acks that begin at `first` to `last`, in order.
fn acks_between(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, first: u64, last: u64,
) -> Result<Vec<(u64, u64)>, LogError> {
	let mut acked = Vec::new();
	let range = keys.acks_from(first).below(keys.ack(last, u64::MAX).bytes());
	let mut rest = Some(range.reversed());
	while let Some(range) = rest.take() {
		let page = store.scan(range, ACK_PAGE).wait()?;
		for (key, _) in &page.records {
			acked.push(interval(keys, key)?);
		}
		rest = page.rest;
	}
	acked.reverse();
	Ok(acked)
}

/// Returns an index from `first` on up to which everything before is acked, whatever the number of
/// records that ack it; that index itself may be acked, too, if acks are folded meanwhile.
fn behind_acked(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, mut first: u64,
) -> Result<u64, LogError> {
	if let Some(last) = covering(store, keys, first)? {
		first = last.saturating_add(1);
	}
	let (mut rest, mut limit) = (Some(keys.acks_from(first)), FEW_ACKS);
	while let Some(range) = rest.take() {
		let page = store.scan(range, limit).wait()?;
		for (key, _) in &page.records {
			let (from, to) = interval(keys, key)?;
			if from > first {
				return Ok(first);
			}
			first = first.max(to.saturating_add(1));
		}
		(rest, limit) = (page.rest, ACK_PAGE);
	}
	Ok(first)
}

/// Returns the end of an ack that covers `index`. Usually that is the last ack that does not begin
/// behind it; but acks overlap where an entry was acked twice, and then any earlier one may reach
/// further. There are few of them, since housekeeping folds neighbours.
fn covering(
	store: &Arc<dyn Store>, keys: &ConsumerKeys, index: u64,
) -> Result<Option<u64>, LogError> {
	let before = keys.acks_before(index.saturating_add(1));
	let (mut rest, mut limit) = (Some(before), FEW_ACKS);
	while let Some(range) = rest.take() {
		let page = store.scan(range, limit).wait()?;
		let mut furthest = None;
		for (key, _) in &page.records {
			furthest = furthest.max(Some(interval(keys, key)?.1));
		}
		if furthest.is_some_and(|last| last >= index) {
			return Ok(furthest);
		}
		(rest, limit) = (page.rest, ACK_PAGE);
	}
	Ok(None)
}

/// Returns whether one of these acks, which begin at `index` or before, covers `index`.
pub(crate) fn covers(
	keys: &ConsumerKeys, acks: &leyden_store::Page, index: LogIndex,
) -> Result<bool, LogError> {
	for (key, _) in &acks.records {
		if interval(keys, key)?.1 >= index.get() {
			return Ok(true);
		}
	}
	Ok(false)
}

pub(crate) fn interval(
	keys: &ConsumerKeys, key: &leyden_store::Key,
) -> Result<(u64, u64), LogError> {
	keys.acked(key)
		.filter(|(first, last)| first <= last)
		.ok_or_else(|| StoreError::corrupt(key, "it is no key of an ack").into())
}
