// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

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
		let running = Timestamp(99);
		Times { wall, running, steady, followed_ms: 0, lived_ms: 0, latest: wall }
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
	// An outage since makes it older, when steady time has followed; also after one before it.
	for before in [Duration::ZERO, 20 * DAY] {
		let mut clock = Both::new();
		let began = clock.jump(before).stamp();
		clock.after(2 * HOUR);
		clock.jump(30 * DAY);
		assert_eq!(clock.after(HOUR).age(began), 30 * DAY + 3 * HOUR);
	}
}

/// The beginning follows an outage, and the clock then goes back before it: what steady time catches up with is
/// still the outage.
#[test]
fn what_begins_after_an_outage_is_no_older_when_the_clock_goes_back() {
	for restarts in [false, true] {
		let mut clock = Both::new();
		let began = clock.jump(30 * DAY).stamp();
		clock.after(20 * MINUTE);
		clock.set_back(10 * HOUR);
		if restarts {
			clock.restart();
		}
		let times = clock.after(HOUR);
		assert!(times.steady.since(began.steady) > 29 * DAY, "it has caught up");
		assert_eq!(times.age(began), 80 * MINUTE);
	}
}

proptest::proptest! {
	/// Whatever a clock does: something is at least as old as the time that has passed, and at most older by what
	/// the clock has moved ahead since.
	#[test]
	fn an_age_is_what_has_passed_and_no_more_than_the_outages_since(
		before in steps(), after in steps(),
	) {
		let mut clock = Both::new();
		for step in before {
			step.run(&mut clock);
		}
		let began = clock.look().stamp();
		let (mut passed, mut ahead) = (Duration::ZERO, Duration::ZERO);
		for step in after {
			let (more_passed, more_ahead) = step.run(&mut clock);
			passed += more_passed;
			ahead += more_ahead;
			let age = clock.look().age(began);
			proptest::prop_assert!(age >= passed, "{:?} of {:?}", age, passed);
			proptest::prop_assert!(age <= passed + ahead, "{:?} of {:?} and {:?}", age, passed, ahead);
		}
	}
}

#[derive(Clone, Debug)]
enum ClockStep {
	Pass(u64),
	Ahead(u64),
	Back(u64),
	Restart,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<ClockStep>> {
	use proptest::prelude::*;
	let minutes = || prop_oneof![0..30_u64, 0..100_000_u64];
	let step = prop_oneof![
		minutes().prop_map(ClockStep::Pass),
		minutes().prop_map(ClockStep::Ahead),
		minutes().prop_map(ClockStep::Back),
		Just(ClockStep::Restart),
	];
	prop::collection::vec(step, 0..20)
}

impl ClockStep {
	/// Returns the time that passed, and the time by which the clock was set ahead.
	fn run(self, clock: &mut Both) -> (Duration, Duration) {
		let minutes = |minutes| Duration::from_secs(60 * minutes);
		let (passed, ahead) = match self {
			Self::Pass(time) => (minutes(time), Duration::ZERO),
			Self::Ahead(time) => (Duration::ZERO, minutes(time)),
			Self::Back(_) | Self::Restart => (Duration::ZERO, Duration::ZERO),
		};
		clock.after(passed);
		clock.jump(ahead);
		match self {
			Self::Back(time) => clock.set_back(minutes(time)),
			Self::Restart => clock.restart(),
			Self::Pass(_) | Self::Ahead(_) => clock.look(),
		};
		(passed, ahead)
	}
}

#[test]
fn a_stores_clock_is_one_and_goes_on_after_a_restart() {
	let medium = crate::MemoryMedium::new();
	let clock = Arc::new(ManualClock::new(START));
	let open = |store: &Arc<dyn Store>| {
		let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
		StoreClock::open(store, clock).unwrap()
	};
	let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
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
	let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
	let times = open(&store).look();
	assert_eq!(times.wall, START);
	assert_eq!(times.running, START.after(10 * YEAR + Duration::from_secs(59)));
	assert_eq!(times.steady, START.after(Duration::from_secs(59)));
}

/// The times are written once in a while, and never while they are being written.
#[test]
fn looks_write_little() {
	let medium = crate::MemoryMedium::new();
	let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
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
	let (running, steady, behind_ms) = (Timestamp(1), Timestamp(2), Some(6));
	ClockV1 { running, steady, followed_ms: 7, lived_ms: 3, doubt, behind_ms }
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
		number(7),
		number(3),
		"01".to_owned(),
		number(4),
		number(5),
		"01".to_owned(),
		number(6),
	];
	assert_eq!(hex, expected.concat());
}
