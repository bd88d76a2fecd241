//! The comparison of one scenario with the same deaths, with LDK alone and with something in
//! between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::deaths::{Death, Moment, Schedule, Spell, Trouble, What, When};
use super::outcome::{Outcome, Worse};
use super::stage::{run, Run, Scenario};
use super::wirings::{ldk_alone, Wire};
use crate::faulty_store::Side;

/// The runs that are made, besides one without a death.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
	/// The step with which single deaths are picked: 1 picks all. 0 picks none.
	pub every: usize,
	/// The kinds of moments at which single deaths come; all kinds if none is named.
	pub only: &'static [What],
	/// The number of schedules with several deaths that are drawn.
	pub drawn: usize,
	/// The seed that decides which deaths are picked and drawn.
	pub seed: u64,
	/// `true` if the log's store has trouble in a third set of runs.
	pub trouble: bool,
}

impl Extent {
	/// Returns the extent without a death.
	pub fn calm() -> Self {
		Self { every: 0, only: &[], drawn: 0, seed: 1, trouble: false }
	}

	/// Returns the extent with every single death, and nothing else.
	pub fn single() -> Self {
		Self { every: 1, ..Self::calm() }
	}

	/// Returns the extent with every single death at these, and nothing else.
	pub fn only(only: &'static [What]) -> Self {
		Self { only, ..Self::single() }
	}

	/// Returns the extent with a little of everything, or with what `LEYDEN_DIFFERENTIAL_DEATHS`
	/// (the number of schedules that are drawn; then every single death is tried, too) and
	/// `LEYDEN_DIFFERENTIAL_SEED` say. Without the latter the seed is random; it is up to the caller
	/// to print it.
	pub fn of_environment() -> Self {
		let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
		let seed = number("LEYDEN_DIFFERENTIAL_SEED").unwrap_or_else(random);
		match number("LEYDEN_DIFFERENTIAL_DEATHS") {
			Some(drawn) => {
				let drawn = usize::try_from(drawn).unwrap_or(usize::MAX);
				Self { every: 1, drawn, seed, trouble: true, ..Self::calm() }
			},
			None => Self { every: 13, drawn: 1, seed, trouble: true, ..Self::calm() },
		}
	}

	/// Returns a small part of this extent, for runs that take long.
	#[must_use]
	pub fn thin(self) -> Self {
		Self { every: self.every * 3, drawn: self.drawn.div_ceil(5), ..self }
	}
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Finding {
	/// The deaths and the trouble of the node.
	pub schedule: Schedule,
	/// The ways in which the node went worse than with LDK alone.
	pub worse: BTreeSet<Worse>,
	/// The ways in which LDK alone went worse.
	pub better: BTreeSet<Worse>,
	/// The events that were each told under several ids.
	pub several_ids: BTreeSet<String>,
	/// The end with the wiring that is compared.
	pub outcome: Outcome,
	/// The ends with LDK alone.
	pub alone: Vec<Outcome>,
}

/// All comparisons of one scenario.
#[derive(Clone, Debug)]
pub struct Report {
	/// The name of the scenario.
	pub scenario: String,
	/// The comparisons, one for each schedule, the first without a death.
	pub findings: Vec<Finding>,
	/// The number of deaths that struck with the wiring that is compared.
	pub deaths: usize,
	/// The number of runs in which the node stopped by itself, as it does when its log's store has
	/// failed several times in a row.
	pub stopped: usize,
	/// The number of runs with several deaths, where a stop is a death.
	pub several: usize,
	/// The number of runs with several deaths that LDK alone ends as badly only if its deaths fall
	/// elsewhere.
	pub unlucky: usize,
	/// The seed of what was drawn.
	pub seed: u64,
}

impl Report {
	/// Returns every way in which anything went worse than with LDK alone, and how often.
	pub fn worse(&self) -> BTreeMap<&Worse, usize> {
		let mut ways = BTreeMap::new();
		for way in self.findings.iter().flat_map(|finding| &finding.worse) {
			*ways.entry(way).or_default() += 1;
		}
		ways
	}

	/// Returns the events that were each told under several ids, in any run.
	pub fn several_ids(&self) -> BTreeSet<&str> {
		self.findings.iter().flat_map(|f| f.several_ids.iter().map(String::as_str)).collect()
	}

	/// Holds what was compared to the promise: never worse than LDK alone.
	///
	/// # Panics
	///
	/// If anything went worse; the text has the schedule, to run it again.
	pub fn assert_never_worse(&self) {
		let Some(bad) = self.findings.iter().find(|finding| !finding.worse.is_empty()) else {
			return;
		};
		let worse: Vec<_> = bad.worse.iter().map(ToString::to_string).collect();
		panic!(
			"{self}\nworse than LDK alone with {:?} (seed {}): {}\n with: {:#?}\n alone: {:#?}",
			bad.schedule,
			self.seed,
			worse.join("; "),
			bad.outcome,
			bad.alone.first(),
		);
	}

	/// Holds what was compared to the promise that one event has one id. A node that dies after the
	/// log's store refused it is in doubt: the record that tells replays from new events is missing
	/// then, and LDK may tell of an event under two ids rather than under none.
	///
	/// # Panics
	///
	/// If an event was told under several ids.
	pub fn assert_one_id_per_event(&self) {
		/// The lives of a node that does not die but at the end.
		const UNDISTURBED: u32 = 2;
		let in_doubt = |finding: &Finding| {
			let refuses = |spell: Spell| matches!(spell.trouble, Trouble::Full | Trouble::Away);
			finding.schedule.spell.is_some_and(refuses) && finding.outcome.lives > UNDISTURBED
		};
		let bad = |finding: &&Finding| !finding.several_ids.is_empty() && !in_doubt(finding);
		let Some(bad) = self.findings.iter().find(bad) else { return };
		panic!(
			"{self}\nseveral ids with {:?} (seed {}): {:?}\n{:#?}",
			bad.schedule, self.seed, bad.several_ids, bad.outcome.tellings
		);
	}
}

impl fmt::Display for Report {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let worse = self.findings.iter().filter(|f| !f.worse.is_empty()).count();
		let better = self.findings.iter().filter(|f| f.worse.is_empty() && !f.better.is_empty());
		let better = better.count();
		let runs = self.findings.len();
		write!(
			f,
			"{}: {runs} runs, {} deaths: better than LDK alone in {better}, equal in {}, worse in \
			 {worse}; as LDK alone with deaths elsewhere in {} of {}; stopped by its store in {}; one event \
			 under several ids in {}",
			self.scenario,
			self.deaths,
			runs - better - worse,
			self.unlucky,
			self.several,
			self.stopped,
			self.findings.iter().filter(|f| !f.several_ids.is_empty()).count(),
		)?;
		for (way, times) in self.worse() {
			write!(f, "\n  {times} x {way}")?;
		}
		Ok(())
	}
}

/// Compares `wire` with LDK alone.
pub fn compare(scenario: &Scenario, wire: &Wire, extent: Extent) -> Report {
	let calm = run(scenario, wire, &Schedule::default());
	let mut schedules = schedules(&calm.seen, extent);
	schedules.insert(0, Schedule::default());
	compare_with(scenario, wire, &schedules, &calm, extent.seed)
}

/// Compares `wire` with LDK alone in one schedule, such as one that was found to be worse.
pub fn compare_one(scenario: &Scenario, wire: &Wire, schedule: &Schedule) -> Report {
	let calm = run(scenario, wire, &Schedule::default());
	compare_with(scenario, wire, std::slice::from_ref(schedule), &calm, 0)
}

fn compare_with(
	scenario: &Scenario, wire: &Wire, schedules: &[Schedule], calm: &Run, seed: u64,
) -> Report {
	let mut alone = Alone { scenario, wire: ldk_alone(), runs: HashMap::new() };
	let undisturbed = alone.run(&Schedule::default());
	assert!(
		undisturbed.stops == 0 && undisturbed.outcome.panics.is_empty(),
		"LDK alone does not get through {:?} without a death, so nothing can be compared: {:?}",
		scenario.name,
		undisturbed.outcome.panics,
	);
	let mut report = Report {
		scenario: scenario.name.to_owned(),
		findings: Vec::new(),
		deaths: 0,
		stopped: 0,
		several: 0,
		unlucky: 0,
		seed,
	};
	for schedule in schedules {
		let disturbed = !schedule.deaths.is_empty() || schedule.spell.is_some();
		let ran = if disturbed { run(scenario, wire, schedule) } else { calm.clone() };
		let mut candidates = alone.candidates(schedule, &calm.seen);
		if ran.stops > 0 {
			candidates.extend(alone.stopped(schedule, &calm.seen));
		}
		let is_repeatable = scenario.mode.processor.is_repeatable();
		if !is_repeatable && ran.outcome.is_worse_than_all(&candidates) {
			candidates.extend(alone.nearby(schedule, &calm.seen));
		}
		report.several += usize::from(schedule.deaths.len() + ran.stops > 1);
		report.unlucky += usize::from(alone.unlucky(schedule, &ran, &mut candidates));
		report.push(schedule.clone(), ran, &candidates);
	}
	report
}

impl Report {
	fn push(&mut self, schedule: Schedule, ran: Run, alone: &[Outcome]) {
		let others: Vec<&Outcome> = alone.iter().collect();
		let mut worse = ran.outcome.worse_than_all(&others);
		if ran.stops > 0 && schedule.spell.is_none() && others.iter().all(|o| o.panics.is_empty()) {
			// A node stops because of its store, and for no other reason.
			worse.insert(Worse::Panics);
		}
		let better = others.first().map(|other| other.worse_than(&ran.outcome)).unwrap_or_default();
		self.deaths += ran.struck;
		self.stopped += usize::from(ran.stops > 0);
		let several_ids = ran.outcome.several_ids();
		let (outcome, alone) = (ran.outcome, alone.to_vec());
		self.findings.push(Finding { schedule, worse, better, several_ids, outcome, alone });
	}
}

/// Returns the schedules that are tried, besides the one without a death.
fn schedules(seen: &[Moment], extent: Extent) -> Vec<Schedule> {
	let sides = [Side::Before, Side::After];
	let wanted = |at: &&Moment| extent.only.is_empty() || extent.only.contains(&at.what);
	let single = seen.iter().filter(wanted);
	let single = single.flat_map(|at| sides.map(|side| Schedule::death(*at, side)));
	let mut all = Vec::new();
	if extent.every > 0 {
		all.extend(single.skip(extent.seed as usize % extent.every).step_by(extent.every));
	}
	let mut dice = Dice(extent.seed);
	for _ in 0..extent.drawn {
		let mut deaths = vec![Death { when: When::At(*dice.of(seen)), side: *dice.of(&sides) }];
		for _ in 0..=dice.below(2) {
			deaths.push(Death { when: When::Later(dice.below(6)), side: *dice.of(&sides) });
		}
		all.push(Schedule { deaths, spell: None });
	}
	if extent.trouble {
		let commits: Vec<_> = seen.iter().filter(|m| m.what == What::Commit).collect();
		let writes = seen.iter().filter(|m| matches!(m.what, What::Manager | What::Monitor));
		let writes: Vec<_> = writes.collect();
		for (number, from) in commits.iter().enumerate().step_by(extent.every.max(1)) {
			let trouble = Trouble::ALL[number / extent.every.max(1) % Trouble::ALL.len()];
			let spell = Some(Spell { trouble, from: **from, requests: 1 + (number % 4) as u32 });
			all.push(Schedule { deaths: Vec::new(), spell });
			// The same, and the machine stops at the next write but one.
			let later = writes.iter().filter(|write| write.step >= from.step).nth(1);
			if let Some(write) = later {
				let deaths = vec![Death { when: When::At(**write), side: Side::Before }];
				all.push(Schedule { deaths, spell });
			}
		}
	}
	all
}

/// LDK alone, with the runs that were made already.
struct Alone<'a> {
	scenario: &'a Scenario,
	wire: Wire,
	runs: HashMap<Schedule, Run>,
}

impl Alone<'_> {
	fn run(&mut self, schedule: &Schedule) -> Run {
		let (scenario, wire) = (self.scenario, &self.wire);
		let ran =
			self.runs.entry(schedule.clone()).or_insert_with(|| run(scenario, wire, schedule));
		ran.clone()
	}

	/// Returns the ends to which LDK alone comes with the same deaths.
	///
	/// A death at a write that LDK alone does not make falls between two moments that LDK alone
	/// has, too: then the end to which it comes if it dies at either of them, or not at all, will
	/// do. So it is where the number of writes in a step differs, since then a number is no name.
	fn candidates(&mut self, schedule: &Schedule, with: &[Moment]) -> Vec<Outcome> {
		let calm = self.run(&Schedule::default());
		let Some(first) = schedule.deaths.first().copied() else { return vec![calm.outcome] };
		let When::At(at) = first.when else { return vec![calm.outcome] };
		let count = |seen: &[Moment], what| {
			seen.iter().filter(|m| m.step == at.step && m.what == what).count()
		};
		let mut found = Vec::new();
		let mut dies = |when: Moment, side: Side| {
			let mut deaths = schedule.deaths.clone();
			if let Some(death) = deaths.first_mut() {
				*death = Death { when: When::At(when), side };
			}
			found.push(self.run(&Schedule { deaths, spell: None }).outcome);
		};
		if calm.seen.contains(&at) {
			dies(at, first.side);
			if count(&calm.seen, at.what) == count(with, at.what) && schedule.spell.is_none() {
				return found;
			}
		}
		let place = with.iter().position(|moment| *moment == at).unwrap_or_default();
		let shared = |moment: &&Moment| calm.seen.contains(moment);
		if let Some(earlier) = with.iter().take(place).rev().find(shared) {
			dies(*earlier, Side::Before);
			dies(*earlier, Side::After);
		}
		if let Some(later) = with.iter().skip(place + 1).find(shared) {
			dies(*later, Side::Before);
		}
		found.push(calm.outcome);
		found
	}

	/// Adds ends to which LDK alone comes with at most as many deaths, wherever they fall, for as long
	/// as `ours` is worse than all. A stop is a death. Returns `true` if any was needed.
	///
	/// A single death falls on the same write of LDK with both, and nothing is added. After it the
	/// number of writes is no name for a place any more: a delivery that the user has not acked
	/// comes at once at the next start, and LDK's own event later, so that other writes come first.
	/// A later death then meets LDK alone in the middle of something that it meets Leyden before or
	/// after: a channel is being closed, an HTLC is being forwarded, a payment is in memory only.
	/// What LDK alone does with a death there is no fault of Leyden.
	fn unlucky(&mut self, schedule: &Schedule, ours: &Run, candidates: &mut Vec<Outcome>) -> bool {
		/// The number of writes between two deaths that are tried.
		const WRITES: usize = 8;
		let deaths = schedule.deaths.len() + ours.stops;
		if deaths < 2 || !ours.outcome.is_worse_than_all(candidates) {
			return false;
		}
		let calm = self.run(&Schedule::default());
		let sides = [Side::Before, Side::After];
		// The nearest first: those that the schedule names, then one death, then two.
		let later = schedule.deaths.get(1..).unwrap_or_default().to_vec();
		let mut tails = vec![later, Vec::new()];
		for writes in 0..WRITES {
			for side in sides {
				tails.push(vec![Death { when: When::Later(writes), side }]);
			}
		}
		for tail in tails {
			for (at, side) in calm.seen.iter().flat_map(|at| sides.map(|side| (*at, side))) {
				let mut deaths = Schedule::death(at, side).deaths;
				deaths.extend_from_slice(&tail);
				let end = self.run(&Schedule { deaths, spell: None }).outcome;
				candidates.push(end);
				if !ours.outcome.is_worse_than_all(candidates) {
					return true;
				}
			}
		}
		true
	}

	/// Returns the ends to which LDK alone comes if it dies somewhere near: with threads beside the
	/// net, the number of a write is no name for it, and no run is like the other.
	fn nearby(&mut self, schedule: &Schedule, with: &[Moment]) -> Vec<Outcome> {
		/// The number of moments before and after, and of runs with a death at each.
		const NEAR: usize = 6;
		let Some(first) = schedule.deaths.first() else { return Vec::new() };
		let When::At(at) = first.when else { return Vec::new() };
		let calm = self.run(&Schedule::default());
		let share = with.iter().position(|moment| *moment == at).unwrap_or_default() as f64
			/ with.len().max(1) as f64;
		let middle = (share * calm.seen.len() as f64) as usize;
		let near = calm.seen.iter().skip(middle.saturating_sub(NEAR)).take(2 * NEAR);
		let sides = [Side::Before, Side::After];
		let near = near.flat_map(|moment| sides.map(|side| (*moment, side)));
		let dies = |(moment, side)| {
			let mut deaths = schedule.deaths.clone();
			deaths[0] = Death { when: When::At(moment), side };
			run(self.scenario, &self.wire, &Schedule { deaths, spell: None }).outcome
		};
		near.map(dies).collect()
	}

	/// Returns the ends to which LDK alone comes if it dies where a node stops whose log's store
	/// fails for longer than is waited for: somewhere in the trouble.
	fn stopped(&mut self, schedule: &Schedule, with: &[Moment]) -> Vec<Outcome> {
		/// The number of further moments of LDK alone by which the trouble is over.
		const AFTER: usize = 3;
		let Some(spell) = schedule.spell else { return Vec::new() };
		let place = with.iter().position(|moment| *moment == spell.from).unwrap_or_default();
		let calm = self.run(&Schedule::default());
		let shared = |moment: &&Moment| calm.seen.contains(moment);
		let mut moments: Vec<_> =
			with.iter().take(place).rev().find(shared).copied().into_iter().collect();
		moments.extend(with.iter().skip(place).filter(shared).take(AFTER).copied());
		let mut found = Vec::new();
		for moment in moments {
			for side in [Side::Before, Side::After] {
				let mut deaths = vec![Death { when: When::At(moment), side }];
				found.push(self.run(&Schedule { deaths: deaths.clone(), spell: None }).outcome);
				if !schedule.deaths.is_empty() {
					deaths.extend(schedule.deaths.iter().copied());
					found.push(self.run(&Schedule { deaths, spell: None }).outcome);
				}
			}
		}
		found
	}
}

/// Returns a random seed that is short enough to be typed.
fn random() -> u64 {
	u64::from(RandomState::new().build_hasher().finish() as u32)
}

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
	fn next(&mut self) -> u64 {
		// SplitMix64.
		self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
		let mut z = self.0;
		z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
		z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
		z ^ (z >> 31)
	}

	fn below(&mut self, limit: usize) -> usize {
		(self.next() % limit.max(1) as u64) as usize
	}

	fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
		&all[self.below(all.len())]
	}
}
