// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Single rules of the keeper, each with what breaks without it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
// The model's parts, of which this file needs some.
#![allow(dead_code)]

#[path = "model/fake.rs"]
mod fake;
#[path = "model/run.rs"]
mod run;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use bitcoin::{Amount, ScriptBuf, TxOut};
use fake::Fake;
use leyden_id::ChannelId;
use leyden_splice::{
	ChannelRef, FeeBand, SpliceError, SpliceId, SpliceOptions, SpliceState, Splices, What,
};
use leyden_store::{
	Batch, Committed, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, Store, StoreError,
	Ticket,
};
use run::{Op, Run};

const BAND: FeeBand = FeeBand { min_sat_per_kw: 253, max_sat_per_kw: 9_000 };
const HIGHER: FeeBand = FeeBand { min_sat_per_kw: 600, max_sat_per_kw: 9_000 };

/// A store that refuses one commit, and is well again: a disk that was full for a moment.
struct Hiccup {
	store: MemoryStore,
	/// The number of commits up to the refused one; 0 if there is none to refuse.
	left: Arc<AtomicU32>,
}

impl Store for Hiccup {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		let left = self.left.load(Ordering::Relaxed);
		if left > 0 {
			self.left.store(left - 1, Ordering::Relaxed);
		}
		match left {
			1 => Ticket::ready(Err(StoreError::invalid("the disk is full"))),
			_ => self.store.commit(batch),
		}
	}

	leyden_testkit::forward_store!(store);
}

struct Node {
	fake: Fake,
	medium: MemoryMedium,
	keeper: Splices,
	left: Arc<AtomicU32>,
}

fn channel() -> ChannelRef {
	let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
	ChannelRef {
		channel_id: ChannelId([7; 32]),
		user_channel_id: 1,
		counterparty: key.parse().unwrap(),
	}
}

fn output() -> TxOut {
	TxOut { value: Amount::from_sat(50_000), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }
}

fn open(fake: &Fake, medium: &MemoryMedium, left: &Arc<AtomicU32>) -> Splices {
	let store = MemoryStore::open(medium, Namespace::default()).unwrap();
	let store = Arc::new(Hiccup { store, left: Arc::clone(left) });
	let tell = Box::new(|_: &_| Plan::of(Batch::new()));
	let clock = Arc::new(ManualClock::default());
	Splices::open(store, clock, Box::new(fake.clone()), tell, SpliceOptions::default()).unwrap()
}

impl Node {
	fn new() -> Self {
		let (fake, medium, left) = (Fake::new(), MemoryMedium::new(), Arc::default());
		Self { keeper: open(&fake, &medium, &left), fake, medium, left }
	}

	/// Lets the process die and start again, with the manager as it is on disk.
	fn restart(&mut self) {
		self.fake.world().crash();
		self.keeper = open(&self.fake, &self.medium, &self.left);
		self.keeper.start().unwrap();
	}

	/// Has the store refuse the commit after `count` others.
	fn refuse_after(&self, count: u32) {
		self.left.store(count + 1, Ordering::Relaxed);
	}

	fn splice_out(&self) -> Result<SpliceId, SpliceError> {
		self.keeper.splice_out(channel(), vec![output()], BAND)
	}

	/// Lets the negotiation go on, and signs what the keeper lets pass. Returns how often that was,
	/// and how often not.
	fn negotiate(&self) -> (u32, u32) {
		let (mut signed, mut refused) = (0, 0);
		for _ in 0..8 {
			let to_sign = self.fake.world().step();
			let Some(tx) = to_sign else { continue };
			if self.keeper.before_signing(&channel().channel_id, &tx).unwrap() {
				self.fake.world().sign(&tx);
				signed += 1;
			} else {
				refused += 1;
			}
		}
		(signed, refused)
	}

	fn paid(&self) -> usize {
		self.fake.world().lock(usize::MAX);
		let world = self.fake.world();
		let outputs = world.locked.iter().flat_map(|txid| &world.txs[txid].output);
		outputs.filter(|paid| **paid == output()).count()
	}
}

/// The caller was told `Err`, since the store failed after LDK had taken the splice, and LDK does
/// not give it back. The splice must not run: not in this process run, not after the keeper has
/// looked, not in the next one, and not with a manager that has the round on disk.
#[test]
fn after_an_error_it_never_runs() {
	for looks in [false, true] {
		for restarts in [false, true] {
			let mut node = Node::new();
			node.fake.world().keeps_what_is_canceled = true;
			node.refuse_after(1);
			let asked = node.splice_out();
			assert!(matches!(asked, Err(SpliceError::Store(_))), "{asked:?}");
			if looks {
				node.keeper.look_at_all().unwrap();
			}
			if restarts {
				// Complete, not signed, and on disk.
				assert!((0..2).all(|_| node.fake.world().step().is_none()));
				node.fake.world().persist();
				node.restart();
			}
			let at = format!("looks: {looks}, restarts: {restarts}");
			let (signed, refused) = node.negotiate();
			assert!(signed == 0 && refused > 0, "{at}: signed {signed} times");
			node.fake.world().keeps_what_is_canceled = false;
			node.keeper.look_at_all().unwrap();
			assert_eq!(node.negotiate(), (0, 0), "{at}: LDK has given it back");
			assert_eq!(node.keeper.splices(), [], "{at}: nothing is left of it");
			assert!(node.keeper.reservations().all().is_empty());
			assert_eq!(node.paid(), 0, "{at}");
			// The same can be asked for again.
			node.splice_out().unwrap();
			assert_eq!(node.negotiate(), (1, 0), "{at}");
			assert_eq!(node.paid(), 1, "{at}");
		}
	}
}

/// A higher fee is not paid after an error: the splice goes on with the fee that it has.
#[test]
fn after_an_error_no_higher_fee_is_paid() {
	for looks in [false, true] {
		let node = Node::new();
		let id = node.splice_out().unwrap();
		assert_eq!(node.negotiate(), (1, 0));
		node.keeper.look_at_all().unwrap();
		node.fake.world().keeps_what_is_canceled = true;
		node.refuse_after(1);
		let asked = node.keeper.bump_fee(&id, HIGHER);
		assert!(matches!(asked, Err(SpliceError::Store(_))), "{asked:?}");
		if looks {
			node.keeper.look_at_all().unwrap();
		}
		let (signed, refused) = node.negotiate();
		assert!(signed == 0 && refused > 0, "looks: {looks}: signed {signed} times");
		node.fake.world().keeps_what_is_canceled = false;
		node.keeper.look_at_all().unwrap();
		assert_eq!(node.negotiate(), (0, 0));
		let splice = node.keeper.splice(&id).unwrap();
		assert_eq!((splice.state(), splice.bump_sat_per_kw()), (&SpliceState::Negotiated, None));
		assert_eq!(splice.txids().len(), 1, "{splice:?}");
		// And can be raised again.
		node.keeper.bump_fee(&id, HIGHER).unwrap();
		assert_eq!(node.negotiate(), (1, 0));
		assert_eq!(node.paid(), 1);
	}
}

/// A round whose txid was not written down is recognized by what it brings: else the withdrawal
/// would be made a second time.
#[test]
fn a_funding_is_recognized_by_what_it_brings() {
	let node = Node::new();
	let id = node.splice_out().unwrap();
	for _ in 0..8 {
		// Signed past the keeper.
		let to_sign = node.fake.world().step();
		if let Some(tx) = to_sign {
			node.fake.world().sign(&tx);
		}
	}
	assert_eq!(node.keeper.splice(&id).unwrap().txids(), []);
	node.fake.world().lock(0);
	node.keeper.look_at_all().unwrap();
	assert_eq!(*node.keeper.past(1).unwrap()[0].state(), SpliceState::Settled);
	assert_eq!(node.negotiate(), (0, 0));
	assert_eq!(node.paid(), 1);
}

/// A failure is written down before LDK is given another try: a process that dies again and again
/// at the same place gives the peer no more tries than one that does not.
#[test]
fn a_failure_is_written_before_the_next_try() {
	for bump in [false, true] {
		let mut seen = 0;
		for write in 0..8 {
			for before in [true, false] {
				let mut run = Run::new();
				run.run(&Op::AskOut);
				if bump {
					for op in [Op::Steps(5), Op::Hear, Op::Persist, Op::Bump] {
						run.run(&op);
					}
				}
				run.run(&Op::DieAt(write, before));
				let life = run.lives;
				// LDK has begun, and the peer goes away.
				for op in [Op::Look, Op::Connect, Op::Steps(1), Op::Disconnect, Op::Hear] {
					if run.lives == life {
						run.run(&op);
					}
				}
				let tries = run.fake.world().submitted_before_death;
				if run.lives == life || tries < 2 {
					continue;
				}
				seen += 1;
				let splice = run.only().0;
				let failed = |what: &What| matches!(what, What::RoundFailed(_));
				let failures = splice.steps().iter().filter(|step| failed(&step.what)).count();
				assert_eq!(failures, 1, "write {write}, before: {before}: {splice:?}");
			}
		}
		assert!(seen > 0, "bump: {bump}: it has died between two tries");
	}
}

/// Two keepers over one store would both hand a splice to LDK.
#[test]
fn a_second_keeper_over_one_store_is_refused_while_the_first_is_in_use() {
	let store: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
	let open = || {
		let tell = Box::new(|_: &_| Plan::of(Batch::new()));
		let (store, clock) = (Arc::clone(&store), Arc::new(ManualClock::default()));
		Splices::open(store, clock, Box::new(Fake::new()), tell, SpliceOptions::default())
	};
	let first = open().unwrap();
	assert!(matches!(open(), Err(SpliceError::AlreadyOpen)));
	drop(first);
	open().unwrap();
}
