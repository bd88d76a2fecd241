//! Requests whose process dies before and after every commit, the same over a medium that lies, and
//! random histories with deaths, times that pass and clocks that jump.

// The number of deaths is printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod rig;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_request::{RequestError, RequestOptions, Requests};
use leyden_store::{Clock, ManualClock, Store, Timestamp};
use leyden_testkit::panics::catch;
use leyden_testkit::{
	count_records, crash_everywhere, live_through, Doom, FaultyStore, LossyMedium, Media, Side,
};
use proptest::prelude::*;
use rig::*;

/// A peer that asks for four invoices, and asks again until it has them, from a node that dies.
fn scenario(doom: &Arc<Doom>, media: &Arc<dyn Media>) {
	let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
	let world = World::default();
	let mut given: BTreeMap<String, String> = BTreeMap::new();
	live_through(doom, media, |store| live(store, &clock, &world, &mut given));
	assert_eq!(given.len(), 4);
	for (hash, made) in &*world.made.lock().unwrap() {
		assert_eq!(*made, 1, "an invoice for {hash:?} was made again");
	}
	let store = media.open();
	let count = |table| count_records(&*store, table);
	assert_eq!((count("ledger"), count("requests"), count("request_times")), (4, 4, 4));
}

fn live(
	store: Arc<dyn Store>, clock: &Arc<ManualClock>, world: &World,
	given: &mut BTreeMap<String, String>,
) -> Result<(), RequestError> {
	let requests =
		Requests::open(store, Arc::<ManualClock>::clone(clock), RequestOptions::default())?;
	for hash in ["a1", "a2", "a1", "a3", "a2", "a4", "a4"] {
		let ask = Ask::new(hash);
		let answer = ask.with(|request| requests.handle(request, &mut Invoices::new(world)))?;
		let answer = String::from_utf8(answer.bytes().to_vec()).unwrap();
		let first = given.entry(hash.to_owned()).or_insert_with(|| answer.clone());
		assert_eq!(*first, answer, "another answer than before");
	}
	Ok(())
}

#[test]
fn an_answer_is_the_same_wherever_the_process_dies() {
	let deaths =
		crash_everywhere(|doom| scenario(doom, &(Arc::new(LossyMedium::keeping_every(1)) as _)));
	println!("requests: {deaths} deaths");
}

/// The negative control.
#[test]
fn a_medium_that_acknowledges_before_it_keeps_is_caught() {
	let mut caught = 0;
	for write in 0..8 {
		let doom = Doom::at(write, Side::After);
		let media: Arc<dyn Media> = Arc::new(LossyMedium::keeping_every(3));
		caught += u32::from(catch(|| scenario(&doom, &media)).is_err());
	}
	println!("a lying medium: {caught} of 8 deaths showed a loss");
	assert!(caught >= 2, "{caught}");
}

#[derive(Clone, Debug)]
enum Op {
	/// Hash, another amount, and whether the effect is to fail for now or lose its way.
	Ask(usize, bool, u8),
	/// Minutes, with a look at the clock now and then.
	Pass(u64),
	/// A jump to there and back, with whatever is done in between.
	Jump(u64),
	Back,
	Sweep(usize),
	Restart,
	Doom(u64, bool),
}

fn op() -> impl Strategy<Value = Op> {
	prop_oneof![
		8 => (0..5usize, prop::bool::weighted(0.15), 0..6u8)
			.prop_map(|(hash, other, how)| Op::Ask(hash, other, how)),
		3 => (1..240u64).prop_map(Op::Pass),
		1 => (60..100_000u64).prop_map(Op::Jump),
		1 => Just(Op::Back),
		2 => (1..10usize).prop_map(Op::Sweep),
		1 => Just(Op::Restart),
		2 => (0..4u64, any::<bool>()).prop_map(|(write, after)| Op::Doom(write, after)),
	]
}

const REMEMBER: Duration = Duration::from_secs(5 * 3600);

/// A clock whose jumps are known.
#[derive(Default)]
struct Jumpy {
	real: ManualClock,
	ahead: Mutex<Duration>,
}

impl Clock for Jumpy {
	fn now(&self) -> Timestamp {
		self.real.now().after(*self.ahead.lock().unwrap())
	}

	fn elapsed(&self) -> Duration {
		self.real.elapsed()
	}
}

fn history(ops: Vec<Op>) {
	let clock = Arc::new(Jumpy::default());
	clock.real.advance(Duration::from_secs(1_700_000_000));
	let media = LossyMedium::keeping_every(1);
	let world = World::default();
	let options =
		RequestOptions { remember: REMEMBER, max_per_scope: 4, ..RequestOptions::default() };
	// When each was made first, and what was answered since.
	let mut made: BTreeMap<usize, Timestamp> = BTreeMap::new();
	let mut given: BTreeMap<usize, (bool, String)> = BTreeMap::new();
	let mut doom = Doom::never();
	let mut node: Option<(Arc<FaultyStore>, Requests)> = None;
	for op in ops {
		if let Op::Doom(write, after) = op {
			doom = Doom::at(write, if after { Side::After } else { Side::Before });
			node = None;
			continue;
		}
		if matches!(op, Op::Restart) || node.as_ref().is_some_and(|(store, _)| store.is_dead()) {
			node = None;
			doom = Doom::never();
		}
		let (store, requests) = node.get_or_insert_with(|| {
			let store = Arc::new(FaultyStore::new(Media::open(&media), Arc::clone(&doom)));
			let shared: Arc<dyn Store> = Arc::<FaultyStore>::clone(&store) as _;
			let requests = Requests::open(shared, Arc::<Jumpy>::clone(&clock), options.clone());
			(store, requests.unwrap())
		});
		match op {
			Op::Ask(n, other, how) => {
				let ask =
					Ask { amount_msat: if other { 9 } else { 1 }, ..Ask::new(&format!("a{n}")) };
				// What is forgotten may be asked for anew, in any way.
				let is_past = |first: &Timestamp| clock.real.now().since(*first) >= HOUR + REMEMBER;
				if made.get(&n).is_some_and(is_past) {
					given.remove(&n);
				}
				let before = world.made.lock().unwrap().get(ask.hash.as_bytes()).copied();
				let mut effect = Invoices::new(&world);
				effect.blind = how == 1;
				if how == 2 {
					effect.answer = leyden_request::AnswerKind::Transient;
				}
				let answer = ask.with(|request| requests.handle(request, &mut effect));
				let now = world.made.lock().unwrap().get(ask.hash.as_bytes()).copied();
				if before != now {
					let real = clock.real.now();
					if let Some(first) = made.insert(n, real) {
						let passed = real.since(first);
						assert!(passed >= HOUR + REMEMBER, "made again after {passed:?}");
					}
					given.remove(&n);
				}
				match answer {
					Ok(answer) if answer.bytes() == b"not now" => {},
					Ok(answer) => {
						let text = String::from_utf8(answer.bytes().to_vec()).unwrap();
						let (amount, first) =
							given.entry(n).or_insert_with(|| (other, text.clone()));
						assert_eq!((*amount, &*first), (other, &text), "another answer");
					},
					// Whoever was answered is not told afterwards that it was something else.
					Err(RequestError::Conflict { .. }) => {
						assert!(given.get(&n).is_none_or(|(amount, _)| *amount != other));
					},
					Err(
						RequestError::Stale | RequestError::Unknown | RequestError::Quota { .. },
					) => {},
					Err(RequestError::Store(_)) if store.is_dead() => {},
					Err(error) => panic!("{error}"),
				}
			},
			Op::Pass(minutes) => {
				// What is wrong for an hour is believed; that is not what is shown here.
				*clock.ahead.lock().unwrap() = Duration::ZERO;
				for _ in 0..minutes.div_ceil(10) {
					clock.real.advance(10 * MINUTE);
					let swept = requests.sweep(0);
					assert!(swept.is_ok() || store.is_dead());
				}
			},
			Op::Jump(minutes) => {
				*clock.ahead.lock().unwrap() = Duration::from_secs(60 * minutes);
			},
			Op::Back => *clock.ahead.lock().unwrap() = Duration::ZERO,
			Op::Sweep(limit) => {
				let swept = requests.sweep(limit);
				assert!(swept.is_ok() || store.is_dead());
			},
			Op::Restart | Op::Doom(..) => {},
		}
	}
	drop(node);
	let store = Media::open(&media);
	let count = |table| count_records(&*store, table);
	assert_eq!(count("requests"), count("request_times"));
	assert!(count("requests") <= 4);
	// The count of the scope is what there is of it.
	let options = RequestOptions { max_per_scope: count("requests") as u64, ..options };
	let requests =
		Requests::open(Arc::clone(&store), Arc::<Jumpy>::clone(&clock), options).unwrap();
	let full = Ask::new("one more").with(|request| requests.begin(request).map(|_| ()));
	assert!(matches!(full, Err(RequestError::Quota { .. })), "{full:?}");
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

	#[test]
	fn random_histories(ops in prop::collection::vec(op(), 1..60)) {
		history(ops);
	}
}
