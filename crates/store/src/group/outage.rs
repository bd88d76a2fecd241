// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Outages: a store that fails for a while is asked again until it is well.
//!
//! # Promises
//! A request that fails because the engine is away is repeated with growing pauses, and its caller
//! waits meanwhile. Once the engine answers, the request goes on as if nothing had happened: an
//! outage that is shorter than the [tolerance](OutagePolicy::tolerance) costs time and nothing
//! else. The beginning and the end of every outage are told to the
//! [observers](StoreObserver) of the store.
//!
//! # Limits
//! An outage that is longer than the tolerance fails the request. From then on every request is
//! tried once and fails at once, until one succeeds.
//!
//! # Time
//! Only time in which this process ran counts towards the tolerance: each pause counts for as long
//! as it was meant to be, and each try for at most [`TRY_COUNTS_AT_MOST`]. A machine that was
//! asleep for an hour has not been in an outage for an hour.

use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;

/// The tolerance of an [`OutagePolicy`] unless it is set otherwise: a minute, and some seconds for
/// the last pause and the last try.
pub const DEFAULT_OUTAGE_TOLERANCE: Duration = Duration::from_secs(90);
/// The first pause of an outage. Each pause is twice as long as the one before.
pub const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause of an outage.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time that a single try counts for, however long it took.
pub const TRY_COUNTS_AT_MOST: Duration = Duration::from_secs(30);

/// The way in which an outage of a store is waited for.
#[derive(Clone)]
pub struct OutagePolicy {
	/// The time that an outage may last before requests fail. [`DEFAULT_OUTAGE_TOLERANCE`] unless
	/// set otherwise; with zero every failure is final.
	pub tolerance: Duration,
	/// The clock and the pauses; the machine's unless set otherwise.
	pub pauser: Arc<dyn Pauser>,
}

impl OutagePolicy {
	/// A policy that fails requests at once.
	pub fn none() -> Self {
		Self::tolerating(Duration::ZERO)
	}

	/// A policy that waits for outages of this length, on the machine's clock.
	pub fn tolerating(tolerance: Duration) -> Self {
		Self { tolerance, pauser: Arc::new(SystemPauser::default()) }
	}
}

impl Default for OutagePolicy {
	fn default() -> Self {
		Self::tolerating(DEFAULT_OUTAGE_TOLERANCE)
	}
}

impl fmt::Debug for OutagePolicy {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("OutagePolicy").field("tolerance", &self.tolerance).finish_non_exhaustive()
	}
}

/// Time and pauses of an outage. Tests bring their own and do not wait.
pub trait Pauser: Send + Sync {
	/// Returns the time since some fixed moment. The value never goes back.
	fn now(&self) -> Duration;

	/// Waits for `pause`, or until the store closes.
	fn pause(&self, pause: Duration, closing: &Closing);
}

/// The machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemPauser(Instant);

impl Default for SystemPauser {
	fn default() -> Self {
		Self(Instant::now())
	}
}

impl Pauser for SystemPauser {
	fn now(&self) -> Duration {
		self.0.elapsed()
	}

	fn pause(&self, pause: Duration, closing: &Closing) {
		closing.wait(pause);
	}
}

/// A flag that the store is closing, which ends every pause.
#[derive(Debug, Default)]
pub struct Closing {
	closing: Mutex<bool>,
	changed: Condvar,
}

impl Closing {
	/// Waits for `pause`, or until the store closes.
	pub fn wait(&self, pause: Duration) {
		let mut closing = self.closing.lock();
		if !*closing {
			self.changed.wait_for(&mut closing, pause);
		}
	}

	/// Returns whether the store is closing.
	pub fn is_closing(&self) -> bool {
		*self.closing.lock()
	}

	fn begin(&self) {
		*self.closing.lock() = true;
		self.changed.notify_all();
	}
}

/// An event of a store that its node's operator should hear of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreEvent {
	/// The engine fails. Requests wait for it.
	OutageBegan {
		/// The name of the store.
		place: String,
		/// The engine's first error.
		error: StoreError,
	},
	/// The engine is well again.
	OutageEnded {
		/// The name of the store.
		place: String,
		/// The time that the outage lasted, as far as this process ran.
		lasted: Duration,
	},
	/// The outage is longer than the tolerance, or the store closes. Requests fail from now on,
	/// until one succeeds.
	OutageNotTolerated {
		/// The name of the store.
		place: String,
		/// The engine's last error.
		error: StoreError,
		/// The time that the outage has lasted, as far as this process ran.
		lasted: Duration,
	},
	/// The handle is over: nothing will be committed through it any more. Stop the node, open the
	/// store again, and replay.
	HandleEnded {
		/// The name of the store.
		place: String,
		/// The error that ended the handle.
		error: StoreError,
	},
	/// A hook of [`Batch::after_commit`](crate::Batch::after_commit) panicked. Its batch is
	/// durable, and the caller was told so; what the hook should have done was not done.
	HookPanicked {
		/// The name of the store.
		place: String,
		/// The panic's message, as far as it has one.
		message: String,
	},
	/// There is no [`Witness`](crate::witness::Witness) of the database, which was closed in order:
	/// it was moved, or the witness is lost. Nobody can tell whether it is the newest one.
	WitnessMissing {
		/// The place of the witness.
		place: String,
	},
	/// The [`Witness`](crate::witness::Witness) does not take marks any more. The store goes on; an
	/// older database may go unnoticed.
	WitnessFailed {
		/// The place of the witness.
		place: String,
		/// The error of the place.
		error: String,
	},
	/// A record is damaged, or something is missing: found by the check that follows a process which
	/// ended without closing the store.
	DamageFound {
		/// The name of the store.
		place: String,
		/// The damage, with table and key.
		error: StoreError,
	},
	/// The check after a crash ended early: the store has more records than it reads, or could not be
	/// read.
	NotAllChecked {
		/// The name of the store.
		place: String,
		/// The number of records that were checked.
		records: u64,
		/// The reason.
		reason: String,
	},
}

impl fmt::Display for StoreEvent {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::OutageBegan { place, error } => {
				write!(f, "{place} does not work just now, requests wait for it: {error}")
			},
			Self::OutageEnded { place, lasted } => {
				write!(f, "{place} works again after {:.1} s", lasted.as_secs_f64())
			},
			Self::OutageNotTolerated { place, error, lasted } => write!(
				f,
				"{place} has not worked for {:.1} s, requests fail from now on: {error}",
				lasted.as_secs_f64()
			),
			Self::HandleEnded { place, error } => write!(
				f,
				"nothing more is committed to {place}: {error}; stop the node and start it again"
			),
			Self::HookPanicked { place, message } => write!(
				f,
				"a hook behind a commit to {place} panicked ({message}); the commit is durable"
			),
			Self::WitnessMissing { place } => write!(
				f,
				"there was no witness of the database at {place}: it was moved, or the witness was \
				 removed; make sure that this is the newest copy of it"
			),
			Self::WitnessFailed { place, error } => write!(
				f,
				"the witness at {place} takes no marks ({error}); the store goes on, but a database \
				 that is restored from an older copy may go unnoticed"
			),
			Self::DamageFound { place, error } => {
				write!(f, "{place} is damaged: {error}; `leyden verify` checks all of it")
			},
			Self::NotAllChecked { place, records, reason } => write!(
				f,
				"{place} was not closed by its last process, and only {records} records were checked \
				 ({reason}); `leyden verify` checks all of it"
			),
		}
	}
}

/// A listener for the events of a store. It is called on the thread that commits, in the middle of
/// its work: it must be quick and must not wait for the store.
pub type StoreObserver = Arc<dyn Fn(&StoreEvent) + Send + Sync>;

/// The kind of a request to an engine. An engine that cannot be written may be read all the time,
/// so only a write ends an outage in which a write has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
	/// A read of records.
	Read,
	/// A write of records, or a read that deciding about them needs.
	Write,
}

/// The outages of one store, as its medium and its writer see them. All clones share one state.
#[derive(Clone)]
pub struct Outages(Arc<Shared>);

struct Shared {
	policy: OutagePolicy,
	place: String,
	closing: Closing,
	current: Mutex<Option<Outage>>,
	observers: Mutex<Vec<StoreObserver>>,
}

/// An outage that goes on.
struct Outage {
	/// The time that counts towards the tolerance.
	lasted: Duration,
	next_pause: Duration,
	/// The time at which the try that follows the last pause began.
	try_began: Duration,
	is_over_tolerance: bool,
	/// `true` if a write has failed in this outage.
	is_of_writes: bool,
}

impl Outages {
	/// Makes the outages of the store at `place`, without one so far.
	pub fn new(policy: OutagePolicy, place: impl Into<String>) -> Self {
		Self(Arc::new(Shared {
			policy,
			place: place.into(),
			closing: Closing::default(),
			current: Mutex::new(None),
			observers: Mutex::new(Vec::new()),
		}))
	}

	/// Returns whether failures are waited for at all.
	pub fn are_tolerated(&self) -> bool {
		!self.0.policy.tolerance.is_zero()
	}

	/// Returns the name of the store.
	pub fn place(&self) -> &str {
		&self.0.place
	}

	/// Returns the policy's tolerance.
	pub fn tolerance(&self) -> Duration {
		self.0.policy.tolerance
	}

	/// Waits before the engine is asked again after `error`. Returns `false` if it is not to be
	/// tried again: the outage is longer than the tolerance, or the store closes.
	pub fn pause(&self, asked: Asked, error: &StoreError) -> bool {
		let shared = &*self.0;
		if !self.are_tolerated() {
			return false;
		}
		let now = shared.policy.pauser.now();
		let (event, pause) = {
			let mut current = shared.current.lock();
			let begins = current.is_none();
			let outage = current.get_or_insert(Outage {
				lasted: Duration::ZERO,
				next_pause: FIRST_PAUSE,
				try_began: now,
				is_over_tolerance: false,
				is_of_writes: false,
			});
			outage.is_of_writes |= asked == Asked::Write;
			let tried = now.saturating_sub(outage.try_began).min(TRY_COUNTS_AT_MOST);
			outage.lasted = outage.lasted.saturating_add(tried);
			outage.try_began = now;
			if outage.is_over_tolerance {
				return false;
			}
			let place = || shared.place.clone();
			if outage.lasted >= shared.policy.tolerance || shared.closing.is_closing() {
				outage.is_over_tolerance = true;
				let (error, lasted) = (error.clone(), outage.lasted);
				(Some(StoreEvent::OutageNotTolerated { place: place(), error, lasted }), None)
			} else {
				let pause = outage.next_pause;
				outage.next_pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
				outage.lasted = outage.lasted.saturating_add(pause);
				let event = begins
					.then(|| StoreEvent::OutageBegan { place: place(), error: error.clone() });
				(event, Some(pause))
			}
		};
		if let Some(event) = event {
			self.tell(&event);
		}
		let Some(pause) = pause else { return false };
		shared.policy.pauser.pause(pause, &shared.closing);
		let now = shared.policy.pauser.now();
		if let Some(outage) = shared.current.lock().as_mut() {
			outage.try_began = now;
		}
		true
	}

	/// Notes that the engine did what it was asked. This ends an outage, if there is one; a read
	/// does not end an outage in which a write has failed.
	pub fn end(&self, asked: Asked) {
		// Nearly always there is none.
		let ended =
			self.0.current.lock().take_if(|outage| asked == Asked::Write || !outage.is_of_writes);
		if let Some(Outage { lasted, .. }) = ended {
			self.tell(&StoreEvent::OutageEnded { place: self.0.place.clone(), lasted });
		}
	}

	/// Asks until there is another answer than [`StoreError::Unavailable`], or the outage is not to
	/// be waited for any more. `ask` must not have changed anything when it returns that error.
	///
	/// # Errors
	/// Those of `ask`.
	pub fn heal<T>(
		&self, asked: Asked, mut ask: impl FnMut() -> Result<T, StoreError>,
	) -> Result<T, StoreError> {
		loop {
			match ask() {
				Err(error @ StoreError::Unavailable { .. }) => {
					if !self.pause(asked, &error) {
						return Err(error);
					}
				},
				answer => {
					if answer.is_ok() {
						self.end(asked);
					}
					return answer;
				},
			}
		}
	}

	/// Adds an observer.
	pub(super) fn add_observer(&self, observer: StoreObserver) {
		self.0.observers.lock().push(observer);
	}

	/// Tells the observers. A panic of one is caught, and the others are told all the same.
	pub(super) fn tell(&self, event: &StoreEvent) {
		let observers = self.0.observers.lock().clone();
		for observer in observers {
			let _ = catch_unwind(AssertUnwindSafe(|| observer(event)));
		}
	}

	/// Ends every pause: the store closes.
	pub(super) fn close(&self) {
		self.0.closing.begin();
	}
}

impl fmt::Debug for Outages {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("Outages").field("place", &self.0.place).finish_non_exhaustive()
	}
}

/// The message of a panic, as far as it has one.
pub(super) fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
	let text = panic.downcast_ref::<&str>().copied();
	let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
	text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
	use super::*;

	/// A clock whose pauses pass at once, and whose tries take what the test says.
	#[derive(Default)]
	struct Virtual(Mutex<(Duration, Vec<Duration>)>);

	impl Virtual {
		fn pass(&self, time: Duration) {
			self.0.lock().0 += time;
		}

		fn pauses(&self) -> Vec<Duration> {
			self.0.lock().1.clone()
		}
	}

	impl Pauser for Virtual {
		fn now(&self) -> Duration {
			self.0.lock().0
		}

		fn pause(&self, pause: Duration, _: &Closing) {
			let mut state = self.0.lock();
			// The machine sleeps for a day in every pause.
			state.0 += pause + Duration::from_secs(86_400);
			state.1.push(pause);
		}
	}

	fn outages(tolerance: Duration) -> (Arc<Virtual>, Outages, Arc<Mutex<Vec<String>>>) {
		let pauser = Arc::new(Virtual::default());
		let policy = OutagePolicy { tolerance, pauser: Arc::clone(&pauser) as Arc<dyn Pauser> };
		let outages = Outages::new(policy, "here");
		let told: Arc<Mutex<Vec<String>>> = Arc::default();
		let events = Arc::clone(&told);
		outages.add_observer(Arc::new(move |event| events.lock().push(event.to_string())));
		(pauser, outages, told)
	}

	fn away() -> StoreError {
		StoreError::Unavailable {
			doing: "reading",
			source: Arc::new(std::io::Error::other("away")),
		}
	}

	#[test]
	fn an_outage_shorter_than_the_tolerance_is_waited_for_and_told() {
		let (pauser, outages, told) = outages(Duration::from_secs(60));
		let mut fails = 40;
		let answer = outages.heal(Asked::Read, || {
			fails -= 1;
			if fails > 0 {
				Err(away())
			} else {
				Ok(7)
			}
		});
		assert_eq!(answer.unwrap(), 7);
		let pauses = pauser.pauses();
		assert_eq!(pauses.first(), Some(&FIRST_PAUSE));
		assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
		assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
		let told = told.lock().clone();
		assert_eq!(told.len(), 2, "{told:?}");
		assert!(told[0].contains("away") && told[1].contains("works again"), "{told:?}");
	}

	#[test]
	fn an_outage_longer_than_the_tolerance_fails_and_then_fails_at_once() {
		let (pauser, outages, told) = outages(Duration::from_secs(60));
		assert!(outages.heal(Asked::Read, || Err::<(), _>(away())).is_err());
		let waited: Duration = pauser.pauses().iter().sum();
		assert!(waited >= Duration::from_secs(60), "{waited:?}");
		assert!(waited < Duration::from_secs(62), "{waited:?}");
		let pauses = pauser.pauses().len();
		assert!(outages.heal(Asked::Read, || Err::<(), _>(away())).is_err());
		assert_eq!(pauser.pauses().len(), pauses);
		outages.heal(Asked::Read, || Ok(())).unwrap();
		let told = told.lock().clone();
		assert_eq!(told.len(), 3, "{told:?}");
		// The next outage is waited for again.
		assert!(outages.pause(Asked::Read, &away()));
	}

	#[test]
	fn a_try_counts_for_the_time_in_which_the_process_ran() {
		let (pauser, outages, _) = outages(Duration::from_secs(60));
		assert!(outages.pause(Asked::Read, &away()));
		// Stopped in the middle of a try, for an hour.
		pauser.pass(Duration::from_secs(3_600));
		assert!(outages.pause(Asked::Read, &away()));
		pauser.pass(Duration::from_secs(3_600));
		assert!(!outages.pause(Asked::Read, &away()), "two tries of 30 seconds and more");
	}

	#[test]
	fn a_store_that_closes_waits_for_no_outage() {
		let (pauser, outages, _) = outages(Duration::from_secs(60));
		outages.close();
		assert!(outages.heal(Asked::Read, || Err::<(), _>(away())).is_err());
		assert!(pauser.pauses().is_empty());
		// The machine's pause ends with it as well.
		let closing = Closing::default();
		closing.begin();
		closing.wait(Duration::from_secs(3_600));
	}

	#[test]
	fn what_can_be_read_and_not_written_is_in_an_outage() {
		let (_, outages, told) = outages(Duration::from_secs(60));
		assert!(outages.pause(Asked::Write, &away()));
		outages.heal(Asked::Read, || Ok(())).unwrap();
		assert_eq!(told.lock().len(), 1);
		outages.heal(Asked::Write, || Ok(())).unwrap();
		assert_eq!(told.lock().len(), 2);
	}

	#[test]
	fn other_errors_are_no_outage() {
		let (pauser, outages, told) = outages(Duration::from_secs(60));
		let full = || Err::<(), _>(StoreError::NoSpace { place: "here".to_owned() });
		assert!(matches!(outages.heal(Asked::Read, full), Err(StoreError::NoSpace { .. })));
		assert!(pauser.pauses().is_empty() && told.lock().is_empty());
	}
}
