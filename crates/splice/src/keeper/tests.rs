// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Tests of what is done under which lock.

use std::sync::{Arc, OnceLock, Weak};

use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, Txid};
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace};

use super::*;
use crate::driver::{BuildError, NotCanceled, SubmitError, Want};
use crate::parts::{Contribution, FeeBand, Material};
use crate::probe::{OurPart, Round, Spender, Stage};

const BAND: FeeBand = FeeBand { min_sat_per_kw: 253, max_sat_per_kw: 9_000 };

/// A node with one channel, whose coins and withdrawals are as the test says. While it builds, it
/// looks whether the keeper can be used by others, and lets something happen.
#[derive(Default)]
struct Node {
	keeper: OnceLock<Weak<Splices>>,
	funding: Mutex<u8>,
	rounds: Mutex<Vec<Round>>,
	/// A pair for each contribution: whether the keeper could be used while it was built, and
	/// whether others that need coins waited, then and until it was handed in.
	built: Mutex<Vec<(bool, bool)>>,
	handed_in: Mutex<Vec<bool>>,
	meanwhile: Mutex<Option<Happens>>,
}

type Happens = Box<dyn FnOnce(&Splices) + Send>;

struct Driver(Arc<Node>);

fn txid(n: u8) -> Txid {
	Txid::from_byte_array([n; 32])
}

fn material(want: &Want<'_>) -> Material {
	match want {
		Want::Out { outputs } => Material::new([], outputs.to_vec()),
		_ => Material::new([OutPoint { txid: txid(9), vout: 0 }], []),
	}
}

impl SpliceDriver for Driver {
	fn view(&self, _: &ChannelRef) -> Option<ChannelView> {
		let funding = OutPoint { txid: txid(*self.0.funding.lock()), vout: 0 };
		let rounds = self.0.rounds.lock().clone();
		Some(ChannelView { funding, closing: false, rounds, decided: false })
	}

	fn build(
		&self, _: &ChannelRef, want: &Want<'_>, band: FeeBand,
	) -> Result<Contribution, BuildError> {
		let keeper = self.0.keeper.get().and_then(Weak::upgrade).expect("a keeper");
		let is_free = keeper.live.try_lock().is_some();
		let is_selecting = keeper.selecting.try_lock().is_none();
		self.0.built.lock().push((is_free, is_selecting));
		let meanwhile = self.0.meanwhile.lock().take();
		// Under the lock it would wait for ever.
		if let (Some(meanwhile), true) = (meanwhile, is_free) {
			meanwhile(&keeper);
		}
		let (bytes, material) = (vec![1], material(want));
		Ok(Contribution { bytes, material, sat_per_kw: band.min_sat_per_kw })
	}

	fn submit(&self, _: &ChannelRef, contribution: &Contribution) -> Result<(), SubmitError> {
		let keeper = self.0.keeper.get().and_then(Weak::upgrade).expect("a keeper");
		self.0.handed_in.lock().push(keeper.selecting.try_lock().is_none());
		let Contribution { material, sat_per_kw, .. } = contribution.clone();
		let ours = Some(OurPart { material, sat_per_kw });
		self.0.rounds.lock().push(Round { ours, stage: Stage::Queued });
		Ok(())
	}

	fn cancel(&self, _: &ChannelRef) -> Result<(), NotCanceled> {
		self.0.rounds.lock().clear();
		Ok(())
	}

	fn spender(&self, _: &OutPoint) -> Spender {
		Spender::Nothing
	}

	fn transaction(&self, _: &Txid) -> Option<Transaction> {
		None
	}

	fn fate(&self, _: &ChannelRef, _: &[Txid]) -> Fate {
		Fate::Open
	}

	fn last_funding(&self, _: &ChannelRef) -> Option<Txid> {
		None
	}
}

fn channel() -> ChannelRef {
	let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
	ChannelRef {
		channel_id: ChannelId([7; 32]),
		user_channel_id: 1,
		counterparty: key.parse().expect("a key"),
	}
}

fn output() -> TxOut {
	TxOut { value: Amount::from_sat(50_000), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }
}

fn start() -> (Arc<Node>, Arc<Splices>) {
	let node = Arc::new(Node::default());
	let store = MemoryStore::open(&MemoryMedium::new(), Namespace::default()).expect("a store");
	let tell: Tell = Box::new(|_| Plan::of(Batch::new()));
	let driver = Box::new(Driver(Arc::clone(&node)));
	let (store, clock) = (Arc::new(store), Arc::new(ManualClock::default()));
	let keeper = Splices::open(store, clock, driver, tell, SpliceOptions::default());
	let keeper = Arc::new(keeper.expect("a keeper"));
	node.keeper.set(Arc::downgrade(&keeper)).expect("once");
	(node, keeper)
}

impl Node {
	/// Has all rounds negotiated now.
	fn negotiated(&self) {
		for (n, round) in (100..).zip(self.rounds.lock().iter_mut()) {
			round.stage = Stage::Negotiated(txid(n));
		}
	}

	/// Has LDK drop what it has, and say why.
	fn fails(&self, keeper: &Splices, reason: &FailureReason) {
		let lost = self.rounds.lock().pop().and_then(|round| round.ours).expect("a round");
		let channel = channel().channel_id;
		keeper.round_failed(&channel, reason, Some(&lost.material)).expect("heard");
	}
}

/// The wallet may take its time, or wait for the thread that handles events: nothing that selects
/// coins holds the lock of the keeper.
#[test]
fn coins_are_selected_under_no_lock() {
	let (node, keeper) = start();
	let id = keeper.splice_in(channel(), 50_000, BAND).expect("asked");
	// By an event, too.
	node.fails(&keeper, &FailureReason::FeeRateTooLow);
	assert_eq!(keeper.splice(&id).expect("it goes on").failures(), 1);
	node.negotiated();
	keeper.bump_fee(&id, FeeBand { min_sat_per_kw: 600, ..BAND }).expect("asked");
	node.fails(&keeper, &FailureReason::FeeRateTooLow);
	// What waited for its turn.
	let second = keeper.splice_in(channel(), 60_000, BAND).expect("asked");
	assert_eq!(keeper.of_channel(&channel().channel_id).len(), 2);
	*node.funding.lock() = 100;
	node.rounds.lock().clear();
	keeper.look(&channel().channel_id).expect("looked");
	assert_eq!(keeper.of_channel(&channel().channel_id).first().map(Splice::id), Some(second));
	// Two requests, two failures, one turn. Until the coins are reserved, nobody else selects any.
	assert_eq!(*node.built.lock(), [(true, true); 5]);
	assert_eq!(*node.handed_in.lock(), [true; 5]);
}

/// Another splice of the channel is asked for while coins are selected, and is faster: the first
/// one waits, without a contribution.
#[test]
fn what_was_overtaken_while_coins_were_selected_waits() {
	let (node, keeper) = start();
	let faster: Happens = Box::new(|keeper| {
		keeper.splice_out(channel(), vec![output()], BAND).expect("asked");
	});
	*node.meanwhile.lock() = Some(faster);
	let id = keeper.splice_in(channel(), 50_000, BAND).expect("asked");
	let splice = keeper.splice(&id).expect("it goes on");
	assert_eq!((splice.state().name(), splice.contribution_bytes()), ("deferred", None));
	assert_eq!(node.rounds.lock().len(), 1, "LDK has one of them");
	// A splice-out needs no coins, and waits for nobody who selects some.
	assert_eq!(*node.built.lock(), [(true, true), (true, true)]);
	assert!(keeper.reservations().all().is_empty());
}

/// The user takes a splice back while it is built anew: what was built is not handed in.
#[test]
fn what_was_canceled_while_coins_were_selected_is_not_handed_in() {
	let (node, keeper) = start();
	let id = keeper.splice_in(channel(), 50_000, BAND).expect("asked");
	let cancels: Happens = Box::new(move |keeper| {
		keeper.cancel(&id).expect("canceled");
	});
	*node.meanwhile.lock() = Some(cancels);
	node.fails(&keeper, &FailureReason::FeeRateTooLow);
	assert!(keeper.splices().is_empty() && node.rounds.lock().is_empty());
	assert!(keeper.reservations().all().is_empty());
}
