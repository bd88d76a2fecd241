//! Random histories of a machine's clock.

use std::sync::Arc;
use std::time::Duration;

use leyden_store::{Clock, ManualClock, Timestamp};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const START: Timestamp = Timestamp(1_800_000_000_000);
/// A wall clock that is wrong for an hour is believed, so it is wrong for less.
const WRONG_FOR: Duration = Duration::from_secs(50 * 60);

/// The clock of a machine on which everything goes wrong that goes wrong with clocks: it shows 2036
/// for a while, or yesterday; NTP steps it; the machine is suspended for a week; the process ends,
/// and starts again later or with a clock that is wrong.
#[derive(Debug)]
pub struct ClockHistory {
	random: u64,
	clock: Arc<ManualClock>,
	truth: Timestamp,
	/// The amount by which the wall clock is off, in milliseconds.
	off: i64,
	/// The time for which it goes on being off, in time in which the process runs.
	off_for: Duration,
	set_ahead: Duration,
}

/// The next thing that happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClockTurn {
	/// The process goes on.
	GoOn,
	/// The process has ended, and another one is to go on.
	Restart,
}

impl ClockHistory {
	/// Returns the history with this seed.
	pub fn new(seed: u64) -> Self {
		Self {
			random: seed,
			clock: Arc::new(ManualClock::new(START)),
			truth: START,
			off: 0,
			off_for: Duration::ZERO,
			set_ahead: Duration::ZERO,
		}
	}

	/// Returns the clock.
	pub fn clock(&self) -> Arc<ManualClock> {
		Arc::clone(&self.clock)
	}

	/// Returns what time it really is.
	pub fn truth(&self) -> Timestamp {
		self.truth
	}

	/// Returns for how long a process has run.
	pub fn awake(&self) -> Duration {
		self.clock.elapsed()
	}

	/// Returns by how much the clock was set ahead and stayed so, in sum: by small steps of NTP, and
	/// after it was behind. A time that believes that in the end may be ahead by as much.
	pub fn set_ahead(&self) -> Duration {
		self.set_ahead
	}

	/// Returns a number below `bound`.
	pub fn draw(&mut self, bound: u64) -> u64 {
		// SplitMix64.
		self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
		let mut n = self.random;
		n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
		n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
		(n ^ (n >> 31)) % bound
	}

	/// Lets something happen.
	pub fn turn(&mut self) -> ClockTurn {
		let turn = match self.draw(40) {
			// What is wrong is put right before something else goes wrong.
			0..=3 if self.off != 0 => self.pass_some(),
			0 => self.set_off(10 * 365 * DAY, true, WRONG_FOR),
			1 => self.set_off(DAY, false, 2 * DAY),
			2 | 3 => {
				let step = Duration::from_secs(self.draw(600));
				let ahead = self.draw(2) == 0;
				if ahead {
					self.set_ahead += step;
				}
				self.set_off(step, ahead, WRONG_FOR)
			},
			4 => self.away(7 * DAY),
			5 | 6 => {
				let away = Duration::from_secs(self.draw(3 * 24 * 3600));
				self.away(away);
				ClockTurn::Restart
			},
			7 | 8 => ClockTurn::Restart,
			9..=14 => {
				// Nobody looks for a while.
				let hours = Duration::from_secs(self.draw(6 * 3600));
				self.pass(hours);
				ClockTurn::GoOn
			},
			_ => self.pass_some(),
		};
		if self.off_for.is_zero() {
			self.put_right();
		}
		turn
	}

	/// Lets time pass, with a clock that is right.
	pub fn pass_rightly(&mut self, time: Duration) {
		self.put_right();
		self.pass(time);
	}

	fn put_right(&mut self) {
		self.set_ahead += Duration::from_millis(self.off.min(0).unsigned_abs());
		(self.off, self.off_for) = (0, Duration::ZERO);
		self.show();
	}

	fn pass_some(&mut self) -> ClockTurn {
		let time = Duration::from_secs(self.draw(600));
		self.pass(time);
		ClockTurn::GoOn
	}

	fn pass(&mut self, time: Duration) {
		let time = match self.off == 0 {
			true => time,
			false => time.min(self.off_for),
		};
		self.clock.advance(time);
		self.truth = self.truth.after(time);
		self.off_for = self.off_for.saturating_sub(time);
		self.show();
	}

	fn away(&mut self, time: Duration) -> ClockTurn {
		self.truth = self.truth.after(time);
		self.show();
		ClockTurn::GoOn
	}

	fn set_off(&mut self, by: Duration, ahead: bool, most: Duration) -> ClockTurn {
		let by = i64::try_from(by.as_millis()).unwrap();
		self.off = if ahead { by } else { -by };
		self.off_for = MINUTE + Duration::from_secs(self.draw(most.as_secs() - 60));
		self.show();
		ClockTurn::GoOn
	}

	fn show(&self) {
		self.clock.set(Timestamp(self.truth.0.saturating_add_signed(self.off)));
	}
}
