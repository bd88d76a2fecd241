//! The moments at which the node under test dies, and at which its log's store has trouble.
//!
//! A moment is named by the step of the script, by what is written, and by how many of those were
//! written in that step before: so the same moment is found again in a run with another wiring,
//! which writes other things in between.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use leyden_store::group::StoreObserver;
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, Page, Record, Store, StoreError, Ticket,
};

use crate::disk::{Fate, NodeDisk, WriteKind};
use crate::faulty_store::Side;

/// The kind of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
	/// A write of LDK's manager.
	Manager,
	/// A write of one of LDK's monitors.
	Monitor,
	/// A commit of the log; LDK alone has none.
	Commit,
	/// No write: LDK hands out an event, and the node dies before or after that is handled.
	Event,
}

/// A write of the node under test, or an event that its LDK hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment {
	/// The number of the step of the script.
	pub step: usize,
	/// The kind of the write, or that of an event.
	pub what: What,
	/// The number of moments of this kind in this step before.
	pub nth: usize,
}

/// The time of a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum When {
	/// The death comes at this moment.
	At(Moment),
	/// The death comes after this many disk writes since the death before it, at the next.
	Later(usize),
}

/// One death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Death {
	/// The time of the death.
	pub when: When,
	/// The side on which the death falls: before the write, which is lost, or after it.
	pub side: Side,
}

/// The trouble that the log's store has for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
	/// The medium is full: commits are refused.
	Full,
	/// The store cannot be reached: commits and reads are refused.
	Away,
	/// The store is so slow that its answers come too late: commits are done, and the caller hears
	/// that their fate is not known.
	Slow,
}

impl Trouble {
	/// All kinds of trouble.
	pub const ALL: [Trouble; 3] = [Trouble::Full, Trouble::Away, Trouble::Slow];
}

/// Trouble that lasts a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spell {
	/// The kind of trouble.
	pub trouble: Trouble,
	/// The commit of the log with which the trouble begins.
	pub from: Moment,
	/// The number of requests that meet the trouble.
	pub requests: u32,
}

/// The deaths and the trouble of the node under test in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
	/// The deaths, in order.
	pub deaths: Vec<Death>,
	/// The trouble of the log's store, if there is any; LDK alone does not notice.
	pub spell: Option<Spell>,
}

impl Schedule {
	/// Returns a schedule with one death.
	pub fn death(moment: Moment, side: Side) -> Self {
		Self { deaths: vec![Death { when: When::At(moment), side }], spell: None }
	}
}

/// Counts the writes of the node under test, and strikes.
pub struct Deaths(Mutex<State>);

struct State {
	armed: bool,
	step: usize,
	counts: [usize; 4],
	since: usize,
	seen: Vec<Moment>,
	left: VecDeque<Death>,
	struck: usize,
	spell: Option<Spell>,
	/// The number of requests that the trouble will still refuse.
	refuses: u32,
}

impl Deaths {
	/// Makes the deaths of this schedule. Nothing is counted before [`step`](Deaths::step).
	pub fn new(schedule: &Schedule) -> Arc<Self> {
		Arc::new(Self(Mutex::new(State {
			armed: false,
			step: 0,
			counts: [0; 4],
			since: 0,
			seen: Vec::new(),
			left: schedule.deaths.iter().copied().collect(),
			struck: 0,
			spell: schedule.spell,
			refuses: 0,
		})))
	}

	/// Begins a step of the script.
	pub fn step(&self, step: usize) {
		let mut state = self.state();
		state.armed = true;
		state.step = step;
		state.counts = [0; 4];
	}

	/// Ends the schedule: from now on nothing strikes, and no trouble is left.
	pub fn rest(&self) {
		let mut state = self.state();
		state.armed = false;
		state.left.clear();
		state.spell = None;
		state.refuses = 0;
	}

	/// Returns the moments that came, in order.
	pub fn seen(&self) -> Vec<Moment> {
		self.state().seen.clone()
	}

	/// Returns the number of deaths that have struck.
	pub fn struck(&self) -> usize {
		self.state().struck
	}

	/// Has the writes of a disk counted here.
	pub fn watch(self: &Arc<Self>, disk: &NodeDisk) {
		let deaths = Arc::clone(self);
		disk.on_write(move |write| {
			let what = match write.kind {
				WriteKind::Manager => What::Manager,
				_ => What::Monitor,
			};
			match deaths.next(what) {
				None => Fate::Live,
				Some(Side::Before) => Fate::DieBefore,
				Some(Side::After) => Fate::DieAfter,
			}
		});
	}

	fn state(&self) -> MutexGuard<'_, State> {
		self.0.lock().unwrap_or_else(|e| e.into_inner())
	}

	/// Counts a moment that comes now. Returns the side on which the node dies of it, if it does.
	pub(super) fn next(&self, what: What) -> Option<Side> {
		let mut state = self.state();
		if !state.armed {
			return None;
		}
		let count = &mut state.counts[what as usize];
		let nth = *count;
		*count += 1;
		let moment = Moment { step: state.step, what, nth };
		state.seen.push(moment);
		state.since += usize::from(matches!(what, What::Manager | What::Monitor));
		let death = *state.left.front()?;
		let strikes = match death.when {
			When::At(at) => at == moment,
			When::Later(writes) => state.struck > 0 && state.since > writes,
		};
		if !strikes {
			return None;
		}
		state.left.pop_front();
		state.struck += 1;
		state.since = 0;
		Some(death.side)
	}

	/// Returns the trouble that a request of the log's store meets now, if any.
	fn trouble(&self, commits: bool) -> Option<Trouble> {
		let mut state = self.state();
		if !state.armed {
			return None;
		}
		let spell = state.spell?;
		if commits && state.refuses == 0 {
			let next = state.counts[What::Commit as usize];
			let now = Moment { step: state.step, what: What::Commit, nth: next };
			if now >= spell.from {
				state.refuses = spell.requests;
			}
		}
		if state.refuses == 0 || (!commits && spell.trouble != Trouble::Away) {
			return None;
		}
		state.refuses -= 1;
		if state.refuses == 0 {
			state.spell = None;
		}
		Some(spell.trouble)
	}
}

/// The log's store of the node under test: it dies when its node dies, and has trouble when the
/// schedule says so.
pub struct DoomedStore {
	inner: Mutex<Option<Arc<dyn Store>>>,
	guarantees: Guarantees,
	deaths: Arc<Deaths>,
	disk: Arc<NodeDisk>,
	/// The lock by which commits come one at a time, so that a death falls between two of them.
	one_at_a_time: Mutex<()>,
}

impl DoomedStore {
	/// Wraps `inner`, which must answer in the call, for one life of the node on `disk`.
	pub fn new(inner: Arc<dyn Store>, deaths: Arc<Deaths>, disk: Arc<NodeDisk>) -> Self {
		Self {
			guarantees: inner.guarantees(),
			inner: Mutex::new(Some(inner)),
			deaths,
			disk,
			one_at_a_time: Mutex::new(()),
		}
	}

	/// Returns the store, unless the process is dead: a dead process holds no files.
	fn alive(&self) -> Option<Arc<dyn Store>> {
		let mut inner = self.inner.lock().unwrap();
		if self.disk.is_dead() {
			*inner = None;
		}
		inner.clone()
	}

	fn die(&self) {
		self.disk.kill();
		*self.inner.lock().unwrap() = None;
	}
}

fn refused<T>(error: StoreError) -> Ticket<T> {
	Ticket::ready(Err(error))
}

fn dead<T>() -> Ticket<T> {
	refused(StoreError::Poisoned { because: "the process died".to_owned() })
}

fn unreachable() -> StoreError {
	let source = Arc::new(std::io::Error::other("the store is away"));
	StoreError::Unavailable { doing: "asking the store", source }
}

impl Store for DoomedStore {
	fn commit(&self, mut batch: Batch) -> Ticket<Committed> {
		let _one = self.one_at_a_time.lock().unwrap();
		let Some(inner) = self.alive() else { return dead() };
		match self.deaths.trouble(true) {
			None => {},
			Some(Trouble::Full) => {
				return refused(StoreError::NoSpace { place: "the log".to_owned() })
			},
			Some(Trouble::Away) => return refused(unreachable()),
			Some(Trouble::Slow) => {
				drop(batch.take_hooks());
				let _ = inner.commit(batch).wait();
				let source = Arc::new(std::io::Error::other("the answer came too late"));
				return refused(StoreError::Indeterminate { doing: "committing", source });
			},
		}
		match self.deaths.next(What::Commit) {
			None => Ticket::ready(inner.commit(batch).wait()),
			Some(Side::Before) => {
				self.die();
				dead()
			},
			Some(Side::After) => {
				// A dead process runs no hooks.
				drop(batch.take_hooks());
				let _ = inner.commit(batch).wait();
				self.die();
				dead()
			},
		}
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		let Some(inner) = self.alive() else { return dead() };
		match self.deaths.trouble(false) {
			None => inner.get(key),
			Some(_) => refused(unreachable()),
		}
	}

	fn get_raw(&self, key: &Key) -> Ticket<Option<Vec<u8>>> {
		let Some(inner) = self.alive() else { return dead() };
		match self.deaths.trouble(false) {
			None => inner.get_raw(key),
			Some(_) => refused(unreachable()),
		}
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		let Some(inner) = self.alive() else { return dead() };
		match self.deaths.trouble(false) {
			None => inner.scan(range, limit),
			Some(_) => refused(unreachable()),
		}
	}

	fn guarantees(&self) -> Guarantees {
		self.guarantees
	}

	fn observe(&self, observer: StoreObserver) -> bool {
		self.alive().is_some_and(|inner| inner.observe(observer))
	}

	fn block(&self, wait: &mut dyn FnMut()) {
		match self.alive() {
			Some(inner) => inner.block(wait),
			None => wait(),
		}
	}
}
