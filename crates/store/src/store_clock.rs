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
		Stamp { wall: self.wall, steady: self.steady }
	}

	/// Returns for how long something has gone on at least, by steady time.
	///
	/// For an hour after an outage, steady time lags behind by the length of the outage. What began
	/// then must not be that much older when it has caught up: the date of the wall clock counts,
	/// unless that is still to come. Then it was wrong.
	pub fn age(&self, began: Stamp) -> Duration {
		let Stamp { wall, steady } = began;
		match wall <= self.steady {
			true => self.steady.since(wall.max(steady)),
			// At most what the wall clock says, if that has not gone back: steady time may have caught up
			// with a part of an outage, and not come to that date yet.
			false if wall <= self.wall => self.steady.since(steady).min(self.wall.since(wall)),
			false => self.steady.since(steady),
		}
	}
}

/// The beginning of something, by two of the [`Times`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stamp {
	/// The date of the wall clock, which is shown to users.
	pub wall: Timestamp,
	/// The steady time.
	pub steady: Timestamp,
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
		let first =
			ClockV1 { running: wall, steady: wall, lived_ms: 0, doubt: None, behind_ms: None };
		let ClockV1 { running, steady, lived_ms, doubt, behind_ms } = known.unwrap_or(first);
		let lived = Duration::from_millis(lived_ms);
		let (jumped, behind) = (Duration::ZERO, behind_ms.map(Duration::from_millis));
		let mut time = Self { running, steady, lived, elapsed, jumped, doubt, behind };
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
		self.follow(wall, passed);
		self.behind = match self.steady.since(wall) > STEP {
			// What passed before it was seen to be behind does not count.
			true => Some(self.behind.map_or(Duration::ZERO, |behind| behind + passed)),
			false => None,
		};
		let ClockV1 { running, steady, lived_ms, .. } = self.record();
		let is_believed = self.behind.is_some_and(|behind| behind >= GRACE);
		let latest = if is_believed { wall } else { wall.max(steady) };
		Times { wall, running, steady, lived_ms, latest }
	}

	/// Returns what is kept of the times.
	fn record(&self) -> ClockV1 {
		let Self { running, steady, doubt, .. } = *self;
		let (lived_ms, behind_ms) = (millis(self.lived), self.behind.map(millis));
		ClockV1 { running, steady, lived_ms, doubt, behind_ms }
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
mod tests {
	use super::*;
	use crate::{ManualClock, MemoryStore, Namespace};

	const MINUTE: Duration = Duration::from_secs(60);
	const HOUR: Duration = Duration::from_secs(3_600);
	const DAY: Duration = Duration::from_secs(24 * 3_600);
	const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
	const START: Timestamp = Timestamp(1_800_000_000_000);

	/// A clock and the time that it makes.
	struct Both(ManualClock, Time);

	impl Both {
		fn new() -> Self {
			Self(ManualClock::new(START), Time::new(None, START, Duration::ZERO))
		}

		fn look(&mut self) -> Times {
			self.1.look(self.0.now(), self.0.elapsed())
		}

		fn after(&mut self, duration: Duration) -> Times {
			self.0.advance(duration);
			self.look()
		}

		/// Sets the wall clock ahead.
		fn jump(&mut self, duration: Duration) -> Times {
			self.0.set(self.0.now().after(duration));
			self.look()
		}

		fn set_back(&mut self, duration: Duration) -> Times {
			self.0.set(Timestamp(self.0.now().0 - Timestamp(0).after(duration).0));
			self.look()
		}

		/// The process ends and another one goes on.
		fn restart(&mut self) -> Times {
			self.look();
			let known = self.1.record();
			self.1 = Time::new(Some(known), self.0.now(), self.0.elapsed());
			self.look()
		}
	}

	/// All dates are one; whatever has been lived.
	fn assert_all(times: Times, at: Timestamp) {
		assert_eq!(times, Times { wall: at, running: at, steady: at, ..times });
	}

	#[test]
	fn with_a_clock_that_is_right_all_times_are_one() {
		let mut clock = Both::new();
		assert_all(clock.after(MINUTE), START.after(MINUTE));
		// However rarely one looks: the stopwatch says that the time has passed.
		assert_all(clock.after(YEAR), START.after(MINUTE + YEAR));
		assert_all(clock.restart(), START.after(MINUTE + YEAR));
	}

	#[test]
	fn a_clock_that_is_set_back_takes_no_time_back_and_stops_none() {
		let mut clock = Both::new();
		let times = clock.set_back(DAY);
		assert_eq!((times.running, times.steady), (START, START));
		let times = clock.after(HOUR);
		assert_eq!((times.running, times.steady), (START.after(HOUR), START.after(HOUR)));
		assert_eq!(times.wall.after(DAY), times.running);
		let times = clock.restart();
		assert_eq!((times.running, times.steady), (START.after(HOUR), START.after(HOUR)));
	}

	#[test]
	fn a_jump_that_is_taken_back_never_was_for_steady_time_and_running_time_goes_on_from_it() {
		let mut clock = Both::new();
		let times = clock.jump(10 * YEAR);
		assert_eq!((times.running, times.steady), (START.after(10 * YEAR), START));
		assert!(clock.1.doubt.is_some());
		let times = clock.set_back(10 * YEAR);
		assert_eq!((times.running, times.steady), (START.after(10 * YEAR), START));
		assert!(clock.1.doubt.is_none());
		// A pause that began in 2036 ends when it has passed.
		let times = clock.after(MINUTE);
		assert_eq!(times.running, START.after(10 * YEAR + MINUTE));
		assert_eq!(times.steady, START.after(MINUTE));
	}

	#[test]
	fn after_an_outage_steady_time_goes_on_an_hour_later() {
		for away in [HOUR, DAY, YEAR] {
			let mut clock = Both::new();
			clock.0.set(START.after(away));
			assert_eq!(clock.restart().steady, START);
			for minute in 1..60 {
				assert_eq!(clock.after(MINUTE).steady, START.after(MINUTE * minute), "{minute}");
			}
			assert_all(clock.after(MINUTE), START.after(away + HOUR));
		}
		// With two looks only.
		let mut clock = Both::new();
		clock.jump(DAY);
		assert_all(clock.after(HOUR), START.after(DAY + HOUR));
	}

	#[test]
	fn a_jump_on_top_of_another_is_believed_an_hour_after_it() {
		let mut clock = Both::new();
		clock.jump(DAY);
		clock.after(50 * MINUTE);
		let times = clock.jump(YEAR);
		assert_eq!(times.steady, START.after(50 * MINUTE));
		// The day is an hour old, and the year is not.
		assert_eq!(clock.after(10 * MINUTE).steady, START.after(DAY + HOUR));
		assert_eq!(clock.after(50 * MINUTE).steady, START.after(DAY + 110 * MINUTE));
		assert_all(clock.after(10 * MINUTE), START.after(DAY + YEAR + 2 * HOUR));
	}

	/// A machine that sleeps most of the time, and processes that are short: steady time is behind by
	/// what came in the last hour in which they ran.
	#[test]
	fn a_machine_that_sleeps_falls_behind_by_no_more_than_an_hour_of_its_day() {
		for restarts in [false, true] {
			let mut clock = Both::new();
			for _ in 0..1_000 {
				clock.after(10 * MINUTE);
				clock.jump(20 * MINUTE);
				if restarts {
					clock.restart();
				}
			}
			let Times { wall, steady, .. } = clock.look();
			let behind = wall.since(steady);
			assert!(behind <= 2 * 6 * 20 * MINUTE, "restarts {restarts}: {behind:?}");
		}
	}

	/// A clock that was set back while nobody looked is not believed at the first look.
	#[test]
	fn time_in_which_nobody_looked_makes_no_clock_right() {
		let mut clock = Both::new();
		clock.0.set(Timestamp(START.0 - millis(DAY)));
		let times = clock.after(2 * HOUR);
		assert_eq!(times.latest, times.steady);
	}

	/// Steady time may catch up with an outage, and not with what came after it: what began meanwhile is
	/// no older than the clock says.
	#[test]
	fn what_begins_between_two_jumps_is_no_older_than_it_is() {
		let mut clock = Both::new();
		clock.jump(20 * DAY);
		clock.after(20 * MINUTE);
		clock.jump(16 * MINUTE);
		clock.after(30 * MINUTE);
		let began = clock.look().stamp();
		let times = clock.after(10 * MINUTE);
		assert_eq!(times.age(began), 10 * MINUTE);
		assert!(times.steady.since(began.steady) > DAY, "it has caught up");
	}

	/// The date that counts for how near a deadline is, with a clock that was set back, and with one
	/// that was wrong for so long that it was believed.
	#[test]
	fn the_latest_date_is_that_of_the_clock_again_after_an_hour() {
		let mut clock = Both::new();
		assert_eq!(clock.set_back(DAY).latest, START);
		assert_eq!(clock.after(59 * MINUTE).latest, START.after(59 * MINUTE));
		let times = clock.after(MINUTE);
		assert_eq!(times.latest, times.wall);
		let mut clock = Both::new();
		clock.jump(10 * YEAR);
		clock.after(HOUR);
		let times = clock.set_back(10 * YEAR);
		assert_eq!(times.latest, times.steady);
		clock.restart();
		let times = clock.after(HOUR);
		assert_eq!((times.latest, times.wall), (START.after(2 * HOUR), START.after(2 * HOUR)));
		assert_eq!(clock.after(HOUR).latest, START.after(3 * HOUR));
	}

	#[test]
	fn nothing_but_running_makes_a_store_older() {
		let mut clock = Both::new();
		clock.jump(10 * YEAR);
		clock.after(2 * HOUR);
		clock.set_back(DAY);
		clock.restart();
		let lived = clock.after(HOUR).lived_ms;
		assert_eq!(Duration::from_millis(lived), 3 * HOUR);
		assert_eq!(clock.after(MINUTE).lived_since(lived), MINUTE);
	}

	/// An attacker of NTP cannot run steady time ahead step by step: what is not an hour old counts up
	/// to the limit.
	#[test]
	fn small_steps_are_believed_up_to_their_limit() {
		let mut clock = Both::new();
		assert_all(clock.jump(10 * MINUTE), START.after(10 * MINUTE));
		assert_eq!(clock.jump(10 * MINUTE).steady, START.after(10 * MINUTE));
		for minute in 1..1_000 {
			clock.jump(14 * MINUTE);
			let steady = clock.after(MINUTE).steady;
			let ahead = steady.since(START.after(minute * MINUTE));
			let an_hour_old = 14 * MINUTE * minute.saturating_sub(59);
			let most = STEP + minute * MINUTE / GRACE_STEPS + an_hour_old + 20 * MINUTE;
			assert!(ahead <= most, "minute {minute}: {ahead:?}");
		}
	}

	#[test]
	fn what_others_have_dated_is_over_when_both_times_are_past_it() {
		let times = |wall, steady| {
			let (wall, steady) = (Timestamp(wall), Timestamp(steady));
			Times { wall, running: Timestamp(99), steady, lived_ms: 0, latest: wall }
		};
		assert!(times(5, 5).are_past(Timestamp(5)));
		assert!(!times(9, 4).are_past(Timestamp(5)));
		assert!(!times(4, 9).are_past(Timestamp(5)));
	}

	#[test]
	fn what_begins_in_doubt_is_no_older_than_it_is_and_no_younger_for_ever() {
		// After an outage of a year.
		let mut clock = Both::new();
		let began = clock.jump(YEAR).stamp();
		assert_eq!(clock.after(50 * MINUTE).age(began), 50 * MINUTE);
		assert_eq!(clock.after(10 * MINUTE).age(began), HOUR);
		assert_eq!(clock.after(DAY).age(began), DAY + HOUR);
		// While the clock shows 2036.
		let mut clock = Both::new();
		let began = clock.jump(10 * YEAR).stamp();
		clock.after(50 * MINUTE);
		assert_eq!(clock.set_back(10 * YEAR).age(began), 50 * MINUTE);
		assert_eq!(clock.after(DAY).age(began), DAY + 50 * MINUTE);
		// While the clock is a day behind.
		let mut clock = Both::new();
		let began = clock.set_back(DAY).stamp();
		assert_eq!(clock.after(HOUR).age(began), HOUR);
		assert_eq!(clock.jump(DAY).age(began), HOUR);
	}

	#[test]
	fn a_stores_clock_is_one_and_goes_on_after_a_restart() {
		let medium = crate::MemoryMedium::new();
		let clock = Arc::new(ManualClock::new(START));
		let open = |store: &Arc<dyn Store>| {
			let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
			StoreClock::open(store, clock).unwrap()
		};
		let store: Arc<dyn Store> =
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
		let (one, two) = (open(&store), open(&store));
		assert!(Arc::ptr_eq(&one, &two));
		clock.set(START.after(10 * YEAR));
		let times = one.look();
		assert_eq!((times.running, times.steady), (START.after(10 * YEAR), START));
		assert!(two.is_doubtful());
		clock.advance(Duration::from_secs(59));
		one.look();
		clock.set(START);
		drop((one, two, store));
		let store: Arc<dyn Store> =
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
		let times = open(&store).look();
		assert_eq!(times.wall, START);
		assert_eq!(times.running, START.after(10 * YEAR + Duration::from_secs(59)));
		assert_eq!(times.steady, START.after(Duration::from_secs(59)));
	}

	/// The times are written once in a while, and never while they are being written.
	#[test]
	fn looks_write_little() {
		let medium = crate::MemoryMedium::new();
		let store: Arc<dyn Store> =
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
		let clock = Arc::new(ManualClock::new(START));
		let shown: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
		let times = StoreClock::open(&store, shown).unwrap();
		let version = || {
			// Waits for what was submitted before.
			let mut batch = Batch::new();
			batch.put(Key::new(Table::new("t"), *b"k"), codec::encode(&kept()).unwrap());
			store.commit(batch).wait().unwrap();
			store.get(&key()).wait().unwrap().map(|record| record.version)
		};
		times.look();
		let first = version();
		assert!(first.is_some());
		for _ in 0..9 {
			clock.advance(Duration::from_secs(1));
			times.look();
		}
		assert_eq!(version(), first);
		clock.advance(Duration::from_secs(1));
		times.look();
		assert_ne!(version(), first);
	}

	/// A store that answers the first commit and no other, and counts them.
	struct Slow(MemoryStore, std::sync::atomic::AtomicUsize);

	impl Store for Slow {
		fn commit(&self, batch: Batch) -> crate::Ticket<crate::Committed> {
			if self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
				return self.0.commit(batch);
			}
			std::mem::forget(batch);
			let (answer, ticket) = crate::Ticket::pair();
			std::mem::forget(answer);
			ticket
		}

		fn get(&self, key: &Key) -> crate::Ticket<Option<crate::Record>> {
			self.0.get(key)
		}

		fn get_raw(&self, key: &Key) -> crate::Ticket<Option<Vec<u8>>> {
			self.0.get_raw(key)
		}

		fn scan(&self, range: crate::KeyRange, limit: usize) -> crate::Ticket<crate::Page> {
			self.0.scan(range, limit)
		}

		fn guarantees(&self) -> crate::Guarantees {
			self.0.guarantees()
		}
	}

	#[test]
	fn a_look_does_not_write_while_the_last_one_does() {
		let slow = Arc::new(Slow(MemoryStore::new().unwrap(), 0.into()));
		let store: Arc<dyn Store> = Arc::<Slow>::clone(&slow);
		let clock = Arc::new(ManualClock::new(START));
		let shown: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
		let times = StoreClock::open(&store, shown).unwrap();
		let written = || slow.1.load(std::sync::atomic::Ordering::SeqCst);
		assert_eq!(written(), 1);
		clock.advance(MINUTE);
		for _ in 0..9 {
			clock.advance(Duration::from_secs(1));
			times.look();
		}
		assert_eq!(written(), 2);
		// A jump is written at once: what its reader commits may go with it.
		clock.set(START.after(10 * YEAR));
		times.look();
		times.look();
		assert_eq!(written(), 3);
	}

	fn kept() -> ClockV1 {
		let doubt = Some(Doubt { ahead_ms: 4, seen_ms: 5 });
		ClockV1 {
			running: Timestamp(1),
			steady: Timestamp(2),
			lived_ms: 3,
			doubt,
			behind_ms: Some(6),
		}
	}

	/// The bytes on users' disks.
	#[test]
	fn golden_bytes() {
		let body = codec::encode(&kept()).unwrap().body;
		let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
		let number = |n: u64| format!("{n:016x}");
		let expected = [
			number(1),
			number(2),
			number(3),
			"01".to_owned(),
			number(4),
			number(5),
			"01".to_owned(),
			number(6),
		];
		assert_eq!(hex, expected.concat());
	}
}
