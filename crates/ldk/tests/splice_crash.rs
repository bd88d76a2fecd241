// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! A splice on real nodes that die before and after every single write, of Leyden's store and of
//! LDK's disk, from the moment it is asked for until it has locked.

// The number of deaths is printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod splice_rig;

use std::sync::Arc;

use leyden_splice::{SpliceId, SpliceState};
use leyden_store::{MemoryStore, Namespace, Store};
use leyden_testkit::panics::catch;
use leyden_testkit::{
	crash_everywhere, Doom, FaultyStore, LossyMedium, MemKv, NodeConfig, NodeDisk,
};
use splice_rig::{Rig, Setup, CHANNEL_SAT};

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
	Out,
	In,
	Bump,
	BumpIn,
}

fn scenario(what: What, doom: &Arc<Doom>, medium: &LossyMedium) {
	doom.disarm();
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let hook = Arc::clone(doom);
	disk.on_write(move |write| hook.fate(write));
	let (dies, keeps, fate) = (Arc::clone(&disk), medium.clone(), Arc::clone(doom));
	let open = move |life| {
		if life > 1 {
			keeps.crash();
		}
		let store = MemoryStore::open(&keeps.live(), Namespace::default()).unwrap();
		let (disk, keeps) = (Arc::clone(&dies), keeps.clone());
		let faulty = FaultyStore::new(Arc::new(store), Arc::clone(&fate))
			.on_death(move || disk.kill())
			.after_each(move |_| keeps.committed());
		Arc::new(faulty) as Arc<dyn Store>
	};
	// Deferred: the manager is written before the monitors, as a node does that wants no channel
	// closed by a crash.
	let setup = Setup { config: NodeConfig::anchors().deferred(), ..Setup::default() };
	let mut rig = Rig::on(setup, medium.live(), disk, Arc::new(open));
	let was = rig.funding();

	let mut output = None;
	let mut ask = |rig: &mut Rig| match what {
		What::In | What::BumpIn => rig.splice_in(50_000),
		What::Out | What::Bump => {
			let (channel, wanted) = (rig.channel_ref(), rig.output(50_000));
			output = Some(wanted.clone());
			rig.keeper(|keeper| keeper.splice_out(channel, vec![wanted], splice_rig::BAND))
		},
	};
	let mut bumped = None;
	let asked: Option<SpliceId> = if matches!(what, What::Bump | What::BumpIn) {
		let id = ask(&mut rig).unwrap();
		rig.net.settle();
		rig.net.persist_manager(rig.a);
		rig.disconnect();
		doom.arm();
		bumped = Some(rig.bump(&id, 1_000).is_ok());
		Some(id)
	} else {
		rig.disconnect();
		doom.arm();
		ask(&mut rig).ok()
	};
	for _ in 0..4 {
		revive(&mut rig);
		rig.net.connect(rig.a, rig.b);
		revive(&mut rig);
		// As a timer does.
		let _ = rig.keeper(|keeper| keeper.look_at_all());
		rig.net.settle();
		revive(&mut rig);
		rig.net.mine(6);
	}
	revive(&mut rig);
	rig.net.persist_manager(rig.a);
	revive(&mut rig);
	doom.disarm();

	let at = format!("{what:?} {doom:?}");
	let live = rig.keeper(|keeper| keeper.splices());
	assert!(live.is_empty(), "{at}: it ends: {live:?}");
	assert!(rig.keeper(|keeper| keeper.reservations().all()).is_empty(), "{at}: coins are free");
	let past = rig.keeper(|keeper| keeper.past(10)).unwrap();
	let locked = past.iter().filter(|splice| *splice.state() == SpliceState::Settled).count();
	let moved = rig.funding() != was;
	let value = rig.value_sat(rig.a);
	assert_eq!(rig.value_sat(rig.b), value, "{at}");
	if let Some(id) = asked {
		assert_eq!(rig.ended(&id), Some(SpliceState::Settled), "{at}: it was accepted: {past:?}");
		assert!(rig.failed().iter().all(|failed| failed.bump_only), "{at}: {:?}", rig.failed());
	}
	// Whether the caller was told or died before: once or not at all.
	assert_eq!((locked == 1, past.len()), (moved, usize::from(moved)), "{at}: {past:?}");
	if let Some(output) = output {
		assert_eq!(rig.paid(&output), usize::from(moved), "{at}");
	} else {
		let gained = value - CHANNEL_SAT;
		let wanted = if moved { 50_000..50_010 } else { 0..1 };
		assert!(wanted.contains(&gained), "{at}: gained {gained}");
	}
	if bumped == Some(true) {
		assert!(rig.failed().is_empty(), "{at}: {:?}", rig.failed());
		// A round that was lost before it was signed has left its txid.
		let txids = past[0].txids();
		assert!(txids.len() >= 2, "{at}: an accepted bump is carried out: {past:?}");
		assert_eq!(Some(&rig.funding().txid), txids.last(), "{at}");
		assert!(!rig.net.chain.mempool().iter().any(|tx| txids.contains(&tx.compute_txid())));
	}
}

/// A node that has died is started again.
fn revive(rig: &mut Rig) {
	while !rig.net.is_running(rig.a) {
		rig.restart();
		if rig.net.is_running(rig.a) {
			rig.net.connect(rig.a, rig.b);
		}
	}
}

fn everywhere(what: What) {
	let deaths = crash_everywhere(|doom| scenario(what, doom, &LossyMedium::keeping_every(1)));
	println!("splice {what:?}: {deaths} deaths");
	assert!(deaths > 20, "{deaths}");
}

#[test]
fn splice_out() {
	everywhere(What::Out);
}

#[test]
fn splice_in() {
	everywhere(What::In);
}

#[test]
fn fee_bump() {
	everywhere(What::Bump);
}

#[test]
fn fee_bump_of_a_splice_in() {
	everywhere(What::BumpIn);
}

/// The negative control: a medium that acknowledges before it keeps.
#[test]
fn a_medium_that_lies_is_caught() {
	let (mut caught, mut tried) = (0, 0);
	// What is lost depends on where the commits fall that are kept.
	for kept in 3..8 {
		for write in 0..12 {
			let doom = Doom::at(write, leyden_testkit::Side::After);
			let medium = LossyMedium::keeping_every(kept);
			tried += 1;
			let ended = catch(|| scenario(What::Out, &doom, &medium));
			caught += u32::from(ended.is_err());
		}
	}
	println!("a lying medium: {caught} of {tried} deaths showed a loss");
	assert!(caught > 0);
}
