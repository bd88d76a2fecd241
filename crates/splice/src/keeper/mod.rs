// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! The keeper: asks the law what is to be done, and does it.

mod act;
mod ask;
mod hear;
mod load;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::OutPoint;
use leyden_id::ChannelId;
use leyden_store::sharing::Claim;
use leyden_store::{Batch, Plan, Store, StoreClock, Timestamp};
use parking_lot::Mutex;

use crate::coins::{InputReserver, Reservations};
use crate::driver::SpliceDriver;
use crate::parts::{ChannelRef, SpliceId, SpliceKind};
use crate::probe::{ChannelView, Fate};
use crate::reason::FailureReason;
use crate::records;
use crate::splice::Splice;
use crate::SpliceError;

pub use ask::{DUST_SAT, MAX_OUTPUTS, MAX_SAT};
pub use load::Damaged;

/// Splices that may be going on at a time, of all channels.
pub const MAX_LIVE: usize = 1024;
/// Splices that are over and still listed.
pub const MAX_PAST: u64 = 1000;
/// How long a splice may wait to be signed, unless [`SpliceOptions`] say otherwise: two weeks.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How splices are kept.
#[derive(Clone, Copy, Debug)]
pub struct SpliceOptions {
	/// How long a splice may wait to be signed. A peer that is away uses up nothing but this.
	pub max_age: Duration,
}

impl Default for SpliceOptions {
	fn default() -> Self {
		Self { max_age: DEFAULT_MAX_AGE }
	}
}

/// What the user is told when a splice, or its higher fee, came to nothing. Told once, in one
/// commit with the end of the record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpliceFailed {
	/// Which splice.
	pub id: SpliceId,
	/// Which channel.
	pub channel: ChannelRef,
	/// What the user had asked for.
	pub kind: SpliceKind,
	/// Whether it is only the higher fee that failed, and the splice goes on.
	pub bump_only: bool,
	/// Why.
	pub reason: FailureReason,
	/// Rounds that failed, this one included if it counts.
	pub attempts: u32,
	/// The wallet's coins that are free again.
	pub released: Vec<OutPoint>,
}

/// Makes a plan of what tells the user. It becomes part of the commit that ends the record.
pub type Tell = Box<dyn Fn(&SpliceFailed) -> Plan<()> + Send + Sync>;

/// Keeps splices: asks the [law](crate::law) what is to be done, and does it.
///
/// # What is promised
/// A splice that [`splice_in`](Splices::splice_in) or [`splice_out`](Splices::splice_out) said `Ok`
/// to is written down. It is handed to LDK again until it funds the channel, or until the user was
/// told why it does not. One for which they said `Err` never runs.
///
/// # The order of writes
/// `Tentative` is durable before LDK sees a splice, `Accepted` after LDK took it and before the
/// caller's `Ok`. A crash in between is settled by what LDK shows at the start: a tentative splice
/// that LDK does not know is forgotten.
///
/// # Locks
/// One request or event at a time, except while the wallet selects coins: then events are heard,
/// and only another splice that needs coins waits. Whether a coin is spent is asked under the lock,
/// so the wallet must not call the keeper then; [`Splices::reservations`] is safe.
pub struct Splices {
	store: Arc<dyn Store>,
	clock: Arc<StoreClock>,
	driver: Box<dyn SpliceDriver>,
	tell: Tell,
	options: SpliceOptions,
	reserver: Option<Box<dyn InputReserver>>,
	coins: Reservations,
	live: Mutex<Live>,
	/// The lock of coin selection, which is held until the coins are reserved. It is taken before
	/// `live`.
	selecting: Mutex<()>,
	damaged: Vec<Damaged>,
	/// Keeps a second keeper out.
	_claim: Arc<Claim>,
}

/// What is going on, in the order in which it was asked for.
#[derive(Default)]
struct Live {
	splices: BTreeMap<u64, Splice>,
	numbers: BTreeMap<SpliceId, u64>,
	/// What became of those whose channel is gone, when it was last asked for.
	fates: BTreeMap<SpliceId, Fate>,
}

impl Live {
	fn get(&self, id: &SpliceId) -> Option<&Splice> {
		self.splices.get(self.numbers.get(id)?)
	}

	fn insert(&mut self, splice: Splice) {
		self.numbers.insert(splice.id, splice.number);
		self.splices.insert(splice.number, splice);
	}

	fn remove(&mut self, id: &SpliceId) {
		if let Some(number) = self.numbers.remove(id) {
			self.splices.remove(&number);
		}
		self.fates.remove(id);
	}

	/// Whether LDK has a round of ours of which there is no record: it was handed in by somebody
	/// else, or its record is damaged. Another contribution would replace it.
	fn has_stranger(&self, view: &ChannelView) -> bool {
		let parts = view.rounds.iter().filter_map(|round| round.ours.as_ref());
		let mut parts = parts.filter(|part| !part.material.is_empty());
		parts.any(|part| !self.splices.values().any(|splice| splice.is_ours(part)))
	}

	fn next_number(&self) -> u64 {
		self.splices.last_key_value().map_or(1, |(last, _)| last.saturating_add(1))
	}

	fn of_channel(&self, channel: &ChannelId) -> Vec<SpliceId> {
		let of = |splice: &&Splice| splice.channel.channel_id == *channel;
		self.splices.values().filter(of).map(|splice| splice.id).collect()
	}
}

impl Splices {
	/// Every splice that is going on, the oldest first.
	pub fn splices(&self) -> Vec<Splice> {
		self.live.lock().splices.values().cloned().collect()
	}

	/// A splice that is going on.
	pub fn splice(&self, id: &SpliceId) -> Option<Splice> {
		self.live.lock().get(id).cloned()
	}

	/// Returns the splices of a channel that are going on, the oldest first: that with a
	/// contribution at LDK, if there is one, and those that wait for it.
	pub fn of_channel(&self, channel: &ChannelId) -> Vec<Splice> {
		let live = self.live.lock();
		let of = |splice: &&Splice| splice.channel.channel_id == *channel;
		live.splices.values().filter(of).cloned().collect()
	}

	/// The newest splices that are over, the newest first. At most [`MAX_PAST`] are kept.
	///
	/// # Errors
	/// The store's.
	pub fn past(&self, limit: usize) -> Result<Vec<Splice>, SpliceError> {
		Ok(load::past(&*self.store, limit)?)
	}

	/// Records that could not be read. Each stays as it is, keeps its coins reserved, and its
	/// splice is left alone.
	pub fn damaged(&self) -> &[Damaged] {
		&self.damaged
	}

	/// The coins that are reserved. The wallet leaves them out of what it spends.
	pub fn reservations(&self) -> &Reservations {
		&self.coins
	}

	/// Writes a splice as it is now, with whatever else is in `batch`.
	fn write(&self, mut batch: Batch, splice: &Splice) -> Result<(), SpliceError> {
		batch.put(records::live_key(&splice.id), records::write(splice)?);
		Ok(Plan::of(batch).run(&*self.store)?)
	}

	/// Returns what the wall clock shows, for the steps of a splice.
	fn now(&self) -> Timestamp {
		self.clock.look().wall
	}

	/// The time by which `splice` may be too old, counted from when it was asked for: giving one up
	/// cannot be undone, so it does not go by the wall clock of now.
	fn now_for(&self, splice: &Splice) -> Timestamp {
		splice.asked.wall.after(self.clock.look().age(splice.asked))
	}
}

impl fmt::Debug for Splices {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "Splices ({} going on)", self.live.lock().splices.len())
	}
}
