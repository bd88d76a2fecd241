// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The persisted clock of a store: four readings of one clock, for four purposes.
//!
//! A wall clock can show 2036 once, be set back by a day, be stepped by NTP again and again, and
//! stand still while the machine is suspended. No single reading of it serves everything:
//!
//! - [`wall`](Times::wall) is what the clock shows. It is compared with dates that others have
//!   set: an invoice's expiry, a deadline, a signature's time.
//! - [`running`](Times::running) never goes back and never stands still. Pauses, retries and leases
//!   go by it, so that a clock that showed 2036 once does not make a retry wait for ten years.
//! - [`lived`](Times::lived_ms) is the time in which processes have run with the store, and nothing
//!   else. What is forgotten goes by it: no clock makes an id, an entry or a callback old.
//! - [`steady`](Times::steady) is the date that is believed: it ignores jumps, and catches up with
//!   an outage. What is given up goes by it.
//!
//! The rule for what is irrevocable and has a date of others: both `wall` and `steady` must be past
//! it. The rule for what is given up after some time: keep a [`Stamp`] of the beginning, and ask for
//! its [`age`](Times::age).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Durability};
use crate::clock::{Clock, Timestamp};
use crate::codec;
use crate::error::StoreError;
use crate::key::{Key, Table};
use crate::sharing;
use crate::store::Store;

const CLOCK: Table = Table::new("_clock");
/// Dates are written down when one of them has moved on by this much.
const KEEP_DATES_EVERY: Duration = Duration::from_secs(60);
/// The time lived is written down when it has moved on by this much: a process may be short.
const KEEP_LIVED_EVERY: Duration = Duration::from_secs(10);

/// One reading of a [`StoreClock`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Times {
	/// The wall clock, for what others have dated.
	pub wall: Timestamp,
	/// The time that never goes back, for what is done again.
	pub running: Timestamp,
	/// The time that ignores jumps, for what is given up.
	pub steady: Timestamp,
	/// The sum by which steady time has followed jumps of the wall clock, in milliseconds.
	pub followed_ms: u64,
	/// The time in which processes have run with the store, in milliseconds, for what is forgotten.
	pub lived_ms: u64,
	/// The latest date that it may be, for how near a deadline of others is: the later one of `wall`
	/// and `steady`, unless the wall clock has been behind for an hour.
	pub latest: Timestamp,
}

impl Times {
	/// Returns `true` if both `wall` and `steady` are past `date`: what others have dated so is
	/// over for certain.
	pub fn are_past(&self, date: Timestamp) -> bool {
		self.wall >= date && self.steady >= date
	}

	/// Returns for how long processes have run since `lived_ms` was read.
	pub fn lived_since(&self, lived_ms: u64) -> Duration {
		Duration::from_millis(self.lived_ms.saturating_sub(lived_ms))
	}

	/// Returns the stamp of what begins now.
	pub fn stamp(&self) -> Stamp {
		Stamp { wall: self.wall, steady: self.steady, followed_ms: self.followed_ms }
	}

	/// Returns for how long something has gone on: the time in which processes have run since, and
	/// outages since that steady time has followed.
	///
	/// For an hour after an outage, steady time lags behind by the length of the outage. A beginning in
	/// that hour must not be that much older when steady time has caught up: what steady time follows
	/// does not count, up to the lag at the beginning.
	pub fn age(&self, began: Stamp) -> Duration {
		let followed = Duration::from_millis(self.followed_ms.saturating_sub(began.followed_ms));
		let lag = began.wall.since(began.steady);
		self.steady.since(began.steady).saturating_sub(followed.min(lag))
	}
}

/// The beginning of something, by two of the [`Times`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stamp {
	/// The date of the wall clock, which is shown to users.
	pub wall: Timestamp,
	/// The steady time.
	pub steady: Timestamp,
	/// The sum by which steady time had followed jumps of the wall clock, in milliseconds.
	pub followed_ms: u64,
}

/// The clock of a store. What it has shown is kept in the store, so that its times go on after a
/// restart.
///
/// All handles over one store share one, with the [`Clock`] of the first.
pub struct StoreClock {
	store: Arc<dyn Store>,
	clock: Arc<dyn Clock>,
	state: Arc<Mutex<State>>,
}

struct State {
	time: Time,
	/// The times that are in the store.
	kept: Option<ClockV1>,
	/// The times that are being written.
	writing: Option<ClockV1>,
}

impl StoreClock {
	/// Opens the clock of `store`.
	///
	/// # Errors
	/// The store's, and [`StoreError::Corrupt`] for a damaged record.
	///
	/// # Failure Behavior and Persistence
	/// As [`look`](StoreClock::look), which is part of it.
	pub fn open(store: &Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
		let key = key();
		sharing::shared(store, &key, || {
			let kept = store.get(&key).wait()?;
			let kept = kept.map(|record| codec::decode::<ClockV1>(&key, &record)).transpose()?;
			let time = Time::new(kept, clock.now(), clock.elapsed());
			let state = Arc::new(Mutex::new(State { time, kept, writing: None }));
			let opened = Self { store: Arc::clone(store), clock, state };
			opened.look();
			Ok(opened)
		})
	}

	/// Looks at the clock.
	///
	/// # Failure Behavior and Persistence
	/// Now and then the times are written, lazily and without waiting, before anything that the
	/// caller commits afterwards. A crash that loses them loses what followed as well; a store that
	/// is read only keeps none.
	pub fn look(&self) -> Times {
		let (wall, elapsed) = (self.clock.now(), self.clock.elapsed());
		let mut state = self.state.lock();
		let times = state.time.look(wall, elapsed);
		let shown = state.time.record();
		let known = state.writing.or(state.kept);
		if known.is_some_and(|known| !shown.is_far_from(&known)) {
			return times;
		}
		state.writing = Some(shown);
		drop(state);
		self.keep(shown);
		times
	}

	/// Returns `true` while the wall clock is ahead and not believed.
	pub fn is_doubtful(&self) -> bool {
		self.state.lock().time.doubt.is_some()
	}

	fn keep(&self, shown: ClockV1) {
		let writing = Writing(Arc::clone(&self.state), shown);
		let Ok(value) = codec::encode(&shown) else { return };
		let mut batch = Batch::new();
		batch.durability(Durability::Lazy);
		batch.put(key(), value);
		batch.after_commit(move |_| writing.0.lock().kept = Some(shown));
		// Nobody waits. What was not written is written at a later look.
		drop(self.store.commit(batch));
	}
}

impl Drop for StoreClock {
	/// Writes what the last looks have shown. Nobody waits.
	fn drop(&mut self) {
		let state = self.state.lock();
		let shown = state.time.record();
		if state.kept != Some(shown) {
			drop(state);
			self.keep(shown);
		}
	}
}

/// Says that these times are being written, until it is dropped: with the hook of the batch, whether
/// that was committed or not.
struct Writing(Arc<Mutex<State>>, ClockV1);

impl Drop for Writing {
	fn drop(&mut self) {
		let mut state = self.0.lock();
		if state.writing == Some(self.1) {
			state.writing = None;
		}
	}
}

impl fmt::Debug for StoreClock {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("StoreClock")
	}
}

fn key() -> Key {
	Key::new(CLOCK, *b"times")
}

/// The times that a store has seen.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct ClockV1 {
	running: Timestamp,
	steady: Timestamp,
	followed_ms: u64,
	lived_ms: u64,
	doubt: Option<Doubt>,
	/// The time for which the wall clock was seen to be behind steady time, in milliseconds.
	behind_ms: Option<u64>,
}

crate::stored! {
	ClockV1 = 0x0005,
}

impl ClockV1 {
	fn is_far_from(&self, other: &Self) -> bool {
		let apart = |a: u64, b: u64| Duration::from_millis(a.abs_diff(b));
		apart(self.running.0, other.running.0) >= KEEP_DATES_EVERY
			|| apart(self.steady.0, other.steady.0) >= KEEP_DATES_EVERY
			|| apart(self.lived_ms, other.lived_ms) >= KEEP_LIVED_EVERY
	}
}

/// The times of a store, as a pure function of what is looked at.
///
/// While the process runs, all of them go on with the stopwatch; `lived_ms` does nothing else. What the wall clock shows beyond
/// that is a *jump*: the machine was suspended, the process was away, or the clock was set.
/// [`running`](Times::running) follows a jump ahead at once. [`steady`](Times::steady) follows one
/// that is small, [`STEP`] in each [`GRACE`] at most, and any other after the wall clock was ahead by as
/// much for [`GRACE`], over any number of processes: of a clock that jumps ahead again and again, as that
/// of a machine that sleeps, it follows what is an hour old. Neither follows a jump back.
#[derive(Debug)]
struct Time {
	running: Timestamp,
	steady: Timestamp,
	/// The sum by which steady time has followed the wall clock.
	followed: Duration,
	lived: Duration,
	/// The last reading of the stopwatch.
	elapsed: Duration,
	/// The sum of the small jumps that were believed, less what time has made good.
	jumped: Duration,
	doubt: Option<Doubt>,
	/// The time for which the wall clock was seen to be behind steady time.
	behind: Option<Duration>,
}

/// A wall clock that is ahead by more than is believed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Doubt {
	/// The amount by which it was ahead all the while, in milliseconds.
	ahead_ms: u64,
	/// The time for which it was ahead, in milliseconds.
	seen_ms: u64,
}

/// The longest jump ahead of a wall clock that is believed at once.
const STEP: Duration = Duration::from_secs(15 * 60);
/// The time that a wall clock which jumped further must go on before it is believed.
const GRACE: Duration = Duration::from_secs(60 * 60);
/// The number of `STEP`s in a `GRACE`.
const GRACE_STEPS: u32 = (GRACE.as_secs() / STEP.as_secs()) as u32;

impl Time {
	/// Goes on from the times that are known; the first time, from what the wall clock shows.
	fn new(known: Option<ClockV1>, wall: Timestamp, elapsed: Duration) -> Self {
		let (running, steady, doubt, behind_ms) = (wall, wall, None, None);
		let first = ClockV1 { running, steady, followed_ms: 0, lived_ms: 0, doubt, behind_ms };
		let ClockV1 { running, steady, followed_ms, lived_ms, doubt, behind_ms } =
			known.unwrap_or(first);
		let followed = Duration::from_millis(followed_ms);
		let lived = Duration::from_millis(lived_ms);
		let (jumped, behind) = (Duration::ZERO, behind_ms.map(Duration::from_millis));
		let mut time = Self { running, steady, followed, lived, elapsed, jumped, doubt, behind };
		time.look(wall, elapsed);
		time
	}

	fn look(&mut self, wall: Timestamp, elapsed: Duration) -> Times {
		let passed = elapsed.saturating_sub(self.elapsed);
		self.elapsed = elapsed.max(self.elapsed);
		self.running = self.running.after(passed).max(wall);
		self.steady = self.steady.after(passed);
		self.lived += passed;
		self.jumped = self.jumped.saturating_sub(passed / GRACE_STEPS);
		let before = self.steady;
		self.follow(wall, passed);
		self.followed += self.steady.since(before);
		self.behind = match self.steady.since(wall) > STEP {
			// What passed before it was seen to be behind does not count.
			true => Some(self.behind.map_or(Duration::ZERO, |behind| behind + passed)),
			false => None,
		};
		let ClockV1 { running, steady, followed_ms, lived_ms, .. } = self.record();
		let is_believed = self.behind.is_some_and(|behind| behind >= GRACE);
		let latest = if is_believed { wall } else { wall.max(steady) };
		Times { wall, running, steady, followed_ms, lived_ms, latest }
	}

	/// Returns what is kept of the times.
	fn record(&self) -> ClockV1 {
		let Self { running, steady, doubt, .. } = *self;
		let (followed_ms, lived_ms) = (millis(self.followed), millis(self.lived));
		let behind_ms = self.behind.map(millis);
		ClockV1 { running, steady, followed_ms, lived_ms, doubt, behind_ms }
	}

	/// Has steady time follow a jump of the wall clock, or not.
	fn follow(&mut self, wall: Timestamp, passed: Duration) {
		let ahead = wall.since(self.steady);
		if self.jumped + ahead <= STEP {
			self.jumped += ahead;
			self.steady = self.steady.max(wall);
			self.doubt = None;
			return;
		}
		let ahead_ms = millis(ahead);
		let doubt = match self.doubt {
			// It was ahead by so much all the while, whatever came on top of that.
			Some(Doubt { ahead_ms: before, seen_ms }) => Doubt {
				ahead_ms: before.min(ahead_ms),
				seen_ms: seen_ms.saturating_add(millis(passed)),
			},
			None => Doubt { ahead_ms, seen_ms: 0 },
		};
		self.doubt = Some(doubt);
		if doubt.seen_ms < millis(GRACE) {
			return;
		}
		self.steady = self.steady.after(Duration::from_millis(doubt.ahead_ms));
		self.jumped = Duration::ZERO;
		// What is beyond that is new.
		let rest_ms = millis(wall.since(self.steady));
		let is_more = rest_ms > millis(STEP);
		self.doubt = is_more.then_some(Doubt { ahead_ms: rest_ms, seen_ms: 0 });
	}
}

fn millis(duration: Duration) -> u64 {
	Timestamp::default().after(duration).0
}

#[cfg(test)]
mod tests;
