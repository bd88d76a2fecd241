// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Splices on real nodes: lost with LDK alone, finished with Leyden.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod splice_rig;

use leyden_splice::SpliceState;
use splice_rig::{Rig, Setup, CHANNEL_SAT};

/// What this is all about: LDK alone keeps nothing of it, and says nothing.
#[test]
fn ldk_alone_forgets_a_splice_that_is_not_signed() {
	let mut rig = Rig::with(Setup { leyden: false, ..Setup::default() });
	let was = rig.funding();
	rig.disconnect();
	rig.net.splice_out(rig.a, rig.channel, 50_000);
	assert!(rig.details().splice_details.is_some());
	rig.restart_bare();
	rig.connect();
	rig.lock();
	assert_eq!(rig.funding(), was, "nothing happened");
	assert_eq!(rig.net.told(rig.a, "SpliceNegotiationFailed"), 0, "and nobody was told");
}

#[test]
fn a_splice_out_survives_a_restart_with_the_peer_away() {
	let mut rig = Rig::new();
	let was = rig.funding();
	rig.disconnect();
	let (id, output) = rig.splice_out(50_000).unwrap();
	assert_eq!(rig.state(&id), Some(SpliceState::Accepted));
	rig.restart();
	assert_eq!(rig.state(&id), Some(SpliceState::Accepted));
	rig.connect();
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated));
	assert_eq!(rig.paid(&output), 1);
	rig.lock();
	rig.assert_locked(&id, was);
	assert_eq!(rig.paid(&output), 1);
	// A second restart after the lock submits nothing.
	let funding = rig.funding();
	rig.net.persist_manager(rig.a);
	rig.restart();
	rig.connect();
	rig.lock();
	assert_eq!((rig.funding(), rig.paid(&output)), (funding, 1));
}

#[test]
fn a_splice_in_survives_a_restart_with_the_peer_away() {
	let mut rig = Rig::new();
	let was = rig.funding();
	rig.disconnect();
	let id = rig.splice_in(50_000).unwrap();
	let coins = rig.keeper(|keeper| keeper.reservations().all());
	assert!(!coins.is_empty(), "its coins are reserved");
	rig.restart();
	assert_eq!(rig.keeper(|keeper| keeper.reservations().all()), coins);
	rig.connect();
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated));
	rig.lock();
	rig.assert_locked(&id, was);
	let value = rig.value_sat(rig.a);
	assert!((CHANNEL_SAT + 50_000..CHANNEL_SAT + 50_010).contains(&value), "{value}");
}
