// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! What may happen, and what must be true in the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use leyden_id::ChannelId;
use leyden_splice::{
	ChannelRef, FailureReason, FeeBand, Splice, SpliceError, SpliceFailed, SpliceId, SpliceOptions,
	SpliceState, Splices, DEFAULT_MAX_AGE,
};
use leyden_store::{
	Batch, Clock, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, RecordType, Store,
	Table, Value,
};
use leyden_testkit::{Doom, FaultyStore, Side};
use proptest::prelude::*;

use super::fake::{Fake, News};

const BAND: FeeBand = FeeBand { min_sat_per_kw: 253, max_sat_per_kw: 9_000 };
const TOLD: Table = Table::new("told");

#[derive(Clone, Debug)]
pub enum Op {
	AskOut,
	AskIn,
	Bump,
	Cancel(usize),
	Steps(u8),
	Connect,
	Disconnect,
	PeerAborts,
	PeerForgets,
	PeerSplices,
	Lock(usize),
	Persist,
	Restart,
	Spend(usize),
	Refuse(u8),
	Hear,
	Look,
	Pass(u32),
	Close,
	Bury(usize),
	DieAt(u8, bool),
}

pub fn op() -> impl Strategy<Value = Op> {
	prop_oneof![
		4 => Just(Op::AskOut),
		3 => Just(Op::AskIn),
		3 => Just(Op::Bump),
		1 => any::<usize>().prop_map(Op::Cancel),
		8 => (1..6_u8).prop_map(Op::Steps),
		3 => Just(Op::Connect),
		3 => Just(Op::Disconnect),
		1 => Just(Op::PeerAborts),
		1 => Just(Op::PeerForgets),
		1 => Just(Op::PeerSplices),
		3 => any::<usize>().prop_map(Op::Lock),
		3 => Just(Op::Persist),
		4 => Just(Op::Restart),
		1 => any::<usize>().prop_map(Op::Spend),
		2 => (0..4_u8).prop_map(Op::Refuse),
		5 => Just(Op::Hear),
		3 => Just(Op::Look),
		1 => (0..20_u32).prop_map(Op::Pass),
		1 => Just(Op::Close),
		1 => any::<usize>().prop_map(Op::Bury),
		4 => (0..6_u8, any::<bool>()).prop_map(|(n, before)| Op::DieAt(n, before)),
	]
}

/// What the caller knows of a splice that it asked for.
#[derive(Clone, Debug)]
enum Answer {
	Accepted,
	Refused,
	/// The process died before it answered.
	None,
}

pub struct Run {
	pub fake: Fake,
	medium: MemoryMedium,
	clock: Arc<ManualClock>,
	keeper: Option<Splices>,
	/// What was asked to be paid, by the number in the script.
	outs: BTreeMap<u8, (Answer, Option<SpliceId>)>,
	ins: Vec<(Answer, Option<SpliceId>)>,
	/// The number of this process run.
	pub lives: u32,
	doom: Arc<Doom>,
}

/// Whether its end says that its transaction may have locked.
fn is_open(splice: &Splice) -> bool {
	*splice.state() == SpliceState::Failed(FailureReason::OutcomeUnknown)
}

fn channel() -> ChannelRef {
	let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
	ChannelRef {
		channel_id: ChannelId([7; 32]),
		user_channel_id: 1,
		counterparty: key.parse().unwrap(),
	}
}

fn pays(number: u8) -> TxOut {
	let script_pubkey = ScriptBuf::from_bytes(vec![0x51, number]);
	TxOut { value: Amount::from_sat(50_000 + u64::from(number)), script_pubkey }
}

impl Run {
	pub fn new() -> Self {
		let mut run = Self {
			fake: Fake::new(),
			medium: MemoryMedium::new(),
			clock: Arc::new(ManualClock::default()),
			keeper: None,
			outs: BTreeMap::new(),
			ins: Vec::new(),
			lives: 0,
			doom: Doom::never(),
		};
		run.open(Doom::never());
		run
	}

	fn open(&mut self, doom: Arc<Doom>) {
		self.lives += 1;
		self.keeper = None;
		self.doom = Arc::clone(&doom);
		let store = MemoryStore::open(&self.medium, Namespace::default()).unwrap();
		let fake = self.fake.clone();
		let faulty =
			FaultyStore::new(Arc::new(store), doom).on_death(move || fake.world().dead = true);
		let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
		// The user is told by a record in the same commit.
		let (life, told) = (self.lives, Mutex::new(0_u32));
		let tell = Box::new(move |failed: &SpliceFailed| {
			let mut told = told.lock().unwrap();
			*told += 1;
			let key = Key::new(TOLD, [life.to_be_bytes(), told.to_be_bytes()].concat());
			let mut batch = Batch::new();
			batch.put(key, Value::new(RecordType(0x8001), 1, failed.to_bytes().unwrap()));
			Plan::of(batch)
		});
		let driver = Box::new(self.fake.clone());
		let options = SpliceOptions::default();
		let Ok(keeper) = Splices::open(Arc::new(faulty), clock, driver, tell, options) else {
			return;
		};
		self.keeper = Some(keeper.with_reserver(Arc::new(self.fake.clone())));
	}

	fn is_dead(&self) -> bool {
		self.keeper.is_none() || self.fake.world().dead
	}

	/// The process is gone; another is started.
	fn restart(&mut self, doom: Arc<Doom>) {
		self.fake.world().crash();
		self.open(doom);
		self.check_coins();
		// In any order: it must do no harm. Every second life hears the old news first.
		if self.lives % 2 == 0 {
			self.hear();
		}
		self.with(|keeper| drop(keeper.start()));
	}

	/// While nothing dies, coins of what is going on are reserved, each for one.
	fn check_coins(&self) {
		let Some(keeper) = &self.keeper else { return };
		for splice in keeper.splices() {
			for input in splice.inputs() {
				assert_eq!(keeper.reservations().holder(input), Some(splice.id()), "{splice:?}");
			}
		}
	}

	fn with(&self, f: impl FnOnce(&Splices)) {
		let dead = self.fake.world().dead;
		if let (Some(keeper), false) = (&self.keeper, dead) {
			f(keeper);
		}
	}

	fn hear(&self) {
		self.with(|keeper| {
			let news = self.fake.world().take_news();
			for news in news {
				if self.fake.world().dead {
					// A dead process handles no events; LDK has them on disk or not.
					return;
				}
				let id = channel().channel_id;
				let heard = match &news {
					News::Failed(reason, material) => {
						keeper.round_failed(&id, reason, Some(material))
					},
					News::Discard(inputs) => keeper.discarded(inputs).map(|_| ()),
					News::Look => keeper.look(&id),
				};
				let _ = heard;
			}
		});
	}

	fn steps(&self, count: u8) {
		for _ in 0..count {
			let to_sign = self.fake.world().step();
			let Some(tx) = to_sign else { continue };
			self.with(|keeper| {
				let may = keeper.before_signing(&channel().channel_id, &tx);
				let mut world = self.fake.world();
				if may.is_ok_and(|may| may) && !world.dead {
					world.sign(&tx);
				}
			});
		}
	}

	fn answer(&self, asked: Result<SpliceId, SpliceError>) -> (Answer, Option<SpliceId>) {
		match asked {
			Ok(id) => (Answer::Accepted, Some(id)),
			Err(_) if self.fake.world().dead => (Answer::None, None),
			Err(_) => (Answer::Refused, None),
		}
	}

	pub fn run(&mut self, op: &Op) {
		match op {
			Op::AskOut => {
				if self.is_dead() || self.outs.len() >= 40 {
					return;
				}
				let number = self.outs.len() as u8;
				let keeper = self.keeper.as_ref().unwrap();
				let asked = keeper.splice_out(channel(), vec![pays(number)], BAND);
				let answer = self.answer(asked);
				self.outs.insert(number, answer);
			},
			Op::AskIn => {
				if self.is_dead() {
					return;
				}
				let asked = self.keeper.as_ref().unwrap().splice_in(channel(), 50_000, BAND);
				let answer = self.answer(asked);
				self.ins.push(answer);
			},
			Op::Bump => self.with(|keeper| {
				if let Some(splice) = keeper.splices().first() {
					let min_sat_per_kw = splice.band().min_sat_per_kw + 300;
					let band = FeeBand { min_sat_per_kw, max_sat_per_kw: 99_000 };
					let _ = keeper.bump_fee(&splice.id(), band);
				}
			}),
			Op::Cancel(which) => self.with(|keeper| {
				let splices = keeper.splices();
				if let Some(splice) = splices.get(which % splices.len().max(1)) {
					let _ = keeper.cancel(&splice.id());
				}
			}),
			Op::Steps(count) => self.steps(*count),
			Op::Connect => {
				self.fake.world().online = true;
				self.with(|keeper| drop(keeper.look_at_all()));
			},
			Op::Disconnect => self.fake.world().disconnect(),
			Op::PeerAborts => self.fake.world().peer_aborts(),
			Op::PeerForgets => self.fake.world().peer_forgets(),
			Op::PeerSplices => self.fake.world().peer_splices(),
			Op::Lock(which) => self.fake.world().lock(*which),
			Op::Persist => self.fake.world().persist(),
			Op::Restart => self.restart(Doom::never()),
			Op::Spend(which) => self.fake.world().spend_coin(*which),
			Op::Refuse(which) => {
				let reasons = [
					FailureReason::FeeRateTooLow,
					FailureReason::ContributionInvalid,
					FailureReason::ChannelClosing,
					FailureReason::Unknown,
				];
				self.fake.world().refuse = Some(reasons[usize::from(*which)].clone());
			},
			Op::Hear => self.hear(),
			Op::Look => self.with(|keeper| drop(keeper.look_at_all())),
			Op::Pass(days) => {
				self.clock.advance(Duration::from_secs(u64::from(*days) * 24 * 60 * 60));
			},
			Op::Close => self.fake.world().close(),
			Op::Bury(which) => self.fake.world().bury(*which),
			Op::DieAt(write, before) => {
				let side = if *before { Side::Before } else { Side::After };
				self.restart(Doom::at(u64::from(*write) + 1, side));
			},
		}
		if self.is_dead() {
			self.restart(Doom::never());
		}
	}

	/// Everything gets better, and time passes: then everything must be over.
	pub fn finish(&mut self) {
		self.restart(Doom::never());
		{
			let mut world = self.fake.world();
			(world.refuse, world.online) = (None, true);
		}
		for round in 0..60 {
			self.hear();
			self.steps(4);
			self.hear();
			self.fake.world().lock(round);
			self.hear();
			self.with(|keeper| keeper.look_at_all().unwrap());
		}
		// Whatever is open on the chain is decided.
		self.fake.world().bury(self.lives as usize);
		// What nothing could be done about ends by its age.
		self.clock.advance(DEFAULT_MAX_AGE);
		for _ in 0..20 {
			self.with(|keeper| keeper.look_at_all().unwrap());
			self.hear();
			self.steps(4);
			self.fake.world().lock(0);
		}
	}

	/// Returns the only splice that is going on, and the coins that are reserved.
	pub fn only(&self) -> (Splice, Vec<OutPoint>) {
		let keeper = self.keeper.as_ref().unwrap();
		let splices = keeper.splices();
		assert_eq!(splices.len(), 1, "{splices:?}");
		let coins = keeper.reservations().all().into_iter().map(|(coin, _)| coin).collect();
		(splices.into_iter().next().unwrap(), coins)
	}

	/// What is over, the newest first.
	pub fn past(&self) -> Vec<Splice> {
		self.keeper.as_ref().unwrap().past(1_000).unwrap()
	}

	pub fn check(&self) {
		let keeper = self.keeper.as_ref().unwrap();
		let live = keeper.splices();
		assert!(live.is_empty(), "each ends: {live:?}");
		let past = keeper.past(1_000).unwrap();
		let mut told: BTreeMap<SpliceId, usize> = BTreeMap::new();
		let store = MemoryStore::open(&self.medium.snapshot(), Namespace::default()).unwrap();
		let page = store.scan(leyden_store::KeyRange::all(TOLD), 10_000).wait().unwrap();
		for (_, record) in &page.records {
			let failed = SpliceFailed::from_bytes(&record.value.body).unwrap();
			*told.entry(failed.id).or_default() += usize::from(!failed.bump_only);
		}
		for splice in &past {
			let expected = usize::from(matches!(splice.state(), SpliceState::Failed(_)));
			let told = told.get(&splice.id()).copied().unwrap_or(0);
			assert_eq!(told, expected, "told once of what failed: {splice:?}");
		}
		let world = self.fake.world();
		let paid = |number: u8| {
			let outputs = world.locked.iter().flat_map(|txid| &world.txs[txid].output);
			outputs.filter(|output| **output == pays(number)).count()
		};
		for (number, (answer, id)) in &self.outs {
			let times = paid(*number);
			assert!(times <= 1, "withdrawal {number} was made {times} times");
			let ended = past.iter().find(|splice| Some(splice.id()) == *id);
			match answer {
				Answer::Refused => assert_eq!(times, 0, "{number} was refused and ran"),
				Answer::Accepted => {
					let ended = ended.expect("what was accepted is among what is over");
					let settled = *ended.state() == SpliceState::Settled;
					assert!(is_open(ended) || settled == (times == 1), "{ended:?}");
				},
				Answer::None => {},
			}
		}
		let locked = world.locked.iter();
		let ins = locked.filter(|txid| world.txs[*txid].input.len() > 1).count();
		let settled = |id: &Option<SpliceId>| {
			let ended = past.iter().find(|splice| Some(splice.id()) == *id);
			ended.is_some_and(|splice| *splice.state() == SpliceState::Settled)
		};
		let accepted = self.ins.iter().filter(|(_, id)| settled(id)).count();
		let open = |id: &Option<SpliceId>| {
			past.iter().find(|splice| Some(splice.id()) == *id).is_some_and(is_open)
		};
		let unanswered =
			|(answer, id): &&(Answer, Option<SpliceId>)| matches!(answer, Answer::None) || open(id);
		let unanswered = self.ins.iter().filter(unanswered).count();
		assert!(
			(accepted..=accepted + unanswered).contains(&ins),
			"{ins} splice-ins, {accepted} of them accepted"
		);
		drop(world);
		// Coins of what may still be confirmed stay, until LDK says that they are not needed.
		let left: Vec<_> = keeper.reservations().all().into_iter().map(|(coin, _)| coin).collect();
		let reason = |splice: &Splice| splice.state().clone();
		for (coin, id) in keeper.reservations().all() {
			let splice = past.iter().find(|splice| splice.id() == id);
			let splice = splice.unwrap_or_else(|| panic!("{coin} is reserved for nothing"));
			assert!(!splice.txids().is_empty(), "{splice:?}");
			assert_eq!(reason(splice), SpliceState::Failed(FailureReason::OutcomeUnknown));
		}
		assert_eq!(keeper.discarded(&left).unwrap().len(), left.len());
		assert!(keeper.reservations().all().is_empty());
	}
}
