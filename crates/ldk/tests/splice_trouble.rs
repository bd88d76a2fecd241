// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Splices that meet trouble, on real nodes: what is tried again, what is not, what the user hears.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod splice_rig;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use leyden_ldk::{channel_ref, FundingMonitors};
use leyden_splice::{FailureReason, Fate, FeeBand, SpliceError, SpliceKind, SpliceState, What};
use leyden_store::{
	Batch, Committed, Key, MemoryMedium, MemoryStore, Namespace, Store, StoreError, Table, Ticket,
};
use leyden_testkit::{MemKv, NodeConfig, NodeDisk};
use splice_rig::{Rig, Setup, BAND, CHANNEL_SAT};

fn out_of(rig: &mut Rig, sat: u64, band: FeeBand) -> Result<leyden_splice::SpliceId, SpliceError> {
	let (channel, output) = (rig.channel_ref(), rig.output(sat));
	rig.keeper(|keeper| keeper.splice_out(channel, vec![output], band))
}

#[test]
fn coins_that_were_spent_elsewhere_are_replaced_and_nothing_is_doubled() {
	let mut rig = Rig::new();
	let was = rig.funding();
	rig.disconnect();
	let id = rig.splice_in(50_000).unwrap();
	let before = rig.keeper(|keeper| keeper.splice(&id)).unwrap().inputs().to_vec();
	// Somebody spends them behind the wallet's back, while the node is down.
	let spend = rig.net.node(rig.a).wallet().spend(&before);
	rig.net.mine_txs(vec![spend]);
	rig.restart();
	let splice = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
	assert!(!splice.inputs().iter().any(|input| before.contains(input)), "{splice:?}");
	assert_eq!(splice.failures(), 0);
	let reserved = rig.keeper(|keeper| keeper.reservations().all());
	assert_eq!(reserved.len(), splice.inputs().len(), "the old ones are not held");
	rig.connect();
	rig.lock();
	rig.assert_locked(&id, was);
	let value = rig.value_sat(rig.a);
	assert!((CHANNEL_SAT + 50_000..CHANNEL_SAT + 50_010).contains(&value), "once: {value}");
	let steps = rig.keeper(|keeper| keeper.past(1)).unwrap()[0].steps().to_vec();
	assert_eq!(steps.iter().filter(|step| step.what == What::Rebuilt).count(), 1);
}

/// What LDK refuses when it is handed in again, LDK sends no event for.
#[test]
fn a_stale_contribution_is_built_anew_once() {
	let mut rig = Rig::new();
	let was = rig.funding();
	rig.disconnect();
	let id = rig.splice_in(50_000).unwrap();
	// A version of LDK that this one cannot read wrote it.
	let record = Key::new(Table::new("splices"), *id.as_bytes());
	rig.spoil_contribution(&record);
	rig.restart();
	let splice = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
	assert_eq!((splice.state(), splice.failures()), (&SpliceState::Accepted, 1), "{splice:?}");
	rig.connect();
	rig.lock();
	rig.assert_locked(&id, was);
	let value = rig.value_sat(rig.a);
	assert!((CHANNEL_SAT + 50_000..CHANNEL_SAT + 50_010).contains(&value), "once: {value}");
}

#[test]
fn the_channel_is_closed_meanwhile() {
	let mut rig = Rig::new();
	rig.disconnect();
	let id = rig.splice_in(50_000).unwrap();
	rig.net.force_close(rig.a, rig.channel);
	rig.net.settle();
	assert_eq!(rig.ended(&id), Some(SpliceState::Failed(FailureReason::ChannelClosed)));
	let failed = rig.failed();
	assert_eq!(failed.len(), 1, "{failed:?}");
	assert!(matches!(failed[0].kind, SpliceKind::In { amount_sat: 50_000 }));
	assert!(!failed[0].released.is_empty());
	rig.net.persist_manager(rig.a);
	rig.restart();
	assert_eq!(rig.failed().len(), 1, "told once");
}

/// A splice that is broadcast when the channel closes may still be confirmed: nobody is told that
/// it failed, and its coins stay reserved, until a commitment of the old funding is deep.
#[test]
fn the_channel_is_closed_while_a_splice_is_unconfirmed() {
	let mut rig = Rig::new();
	let id = rig.splice_in(50_000).unwrap();
	rig.net.settle();
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated));
	rig.net.chain.clear_mempool();
	rig.disconnect();
	rig.net.force_close(rig.a, rig.channel);
	rig.net.settle();
	assert!(rig.net.channel(rig.a, rig.channel).is_none());
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated), "the chain decides");
	assert_eq!(rig.failed(), []);
	rig.restart();
	assert!(!rig.keeper(|keeper| keeper.reservations().all()).is_empty());
	// Of our own commitment, LDK waits for the delay of our output too.
	rig.net.mine(200);
	rig.keeper(|keeper| keeper.peer_connected()).unwrap();
	assert_eq!(rig.ended(&id), Some(SpliceState::Failed(FailureReason::ChannelClosed)));
	let failed = rig.failed();
	assert!(failed.len() == 1 && !failed[0].released.is_empty(), "{failed:?}");
	assert!(rig.keeper(|keeper| keeper.reservations().all()).is_empty());
}

#[test]
fn the_peer_refuses() {
	let mut peer = NodeConfig::anchors();
	peer.user_config.reject_inbound_splices = true;
	let mut rig = Rig::with(Setup { peer: Some(peer), ..Setup::default() });
	let was = rig.funding();
	let id = rig.splice_in(50_000).unwrap();
	rig.net.settle();
	// LDK's peer hangs up. Each time is an attempt, since LDK had begun.
	for _ in 0..2 {
		assert_eq!(rig.state(&id), Some(SpliceState::Accepted));
		rig.connect();
	}
	let ended = rig.ended(&id);
	assert_eq!(ended, Some(SpliceState::Failed(FailureReason::PeerDisconnected)));
	let failed = rig.failed();
	assert_eq!((failed.len(), failed[0].attempts), (1, 3), "{failed:?}");
	rig.lock();
	assert_eq!(rig.funding(), was);
	assert!(rig.keeper(|keeper| keeper.splices().is_empty()));
	assert!(rig.keeper(|keeper| keeper.reservations().all().is_empty()));
}

/// The peer says `tx_abort`, which no later answer takes back: told at once, and not asked again.
#[test]
fn the_peer_aborts() {
	for message in ["SendSpliceAck", "SendTxComplete"] {
		let mut rig = Rig::new();
		let was = rig.funding();
		rig.net.abort_before(rig.b, message, rig.channel);
		let id = rig.splice_in(50_000).unwrap();
		rig.net.settle();
		assert!(rig.net.was_cut(), "{message} was never said");
		let ended = rig.ended(&id);
		let Some(SpliceState::Failed(FailureReason::CounterpartyAborted { message: said })) = ended
		else {
			panic!("{message}: {ended:?}");
		};
		assert!(said.contains("changed my mind"), "{said}");
		let failed = rig.failed();
		assert_eq!((failed.len(), failed[0].released.is_empty()), (1, false), "{failed:?}");
		assert!(rig.keeper(|keeper| keeper.reservations().all().is_empty()));
		// The channel is as before: it lives, and takes the next splice.
		rig.restart();
		rig.connect();
		assert_eq!((rig.failed().len(), rig.funding()), (1, was), "told once");
		let next = rig.splice_in(60_000).unwrap();
		rig.net.settle();
		rig.lock();
		assert_eq!(rig.ended(&next), Some(SpliceState::Settled));
	}
}

/// The node is away while its splice locks for the peer, which then closes the channel on the new
/// funding. The withdrawal was made, so it did not fail.
#[test]
fn it_locks_and_the_channel_is_closed_while_the_node_is_away() {
	let mut rig = Rig::new();
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.net.settle();
	rig.net.persist_manager(rig.a);
	let was = rig.funding();
	// The peer has heard that it locks; the node dies before it hears the same.
	rig.net.cut_before(rig.b, "SendSpliceLocked");
	rig.lock();
	assert!(rig.net.was_cut());
	let peers = rig.net.channel(rig.b, rig.channel).unwrap().funding_txo.unwrap();
	assert_ne!(peers.into_bitcoin_outpoint(), was);
	rig.net.crash(rig.a);
	rig.net.force_close(rig.b, rig.channel);
	rig.net.mine(1);
	rig.restart();
	rig.net.mine(8);
	assert!(rig.net.channel(rig.a, rig.channel).is_none());
	rig.keeper(|keeper| keeper.peer_connected()).unwrap();
	assert_eq!(rig.ended(&id), Some(SpliceState::Settled));
	assert_eq!((rig.failed(), rig.paid(&output)), (vec![], 1));
}

/// The channel closes while the splice is broadcast, and the splice is confirmed, not the
/// commitment: the withdrawal was made. Told when it is too deep to be undone.
#[test]
fn it_is_confirmed_after_the_channel_was_closed() {
	let mut rig = Rig::new();
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.net.settle();
	let splice = rig.net.chain.mempool().to_vec();
	rig.disconnect();
	rig.net.force_close(rig.a, rig.channel);
	rig.net.persist_manager(rig.a);
	rig.net.chain.clear_mempool();
	let mut confirmations = 0;
	while rig.ended(&id).is_none() {
		assert_eq!(rig.state(&id), Some(SpliceState::Negotiated), "{confirmations}");
		rig.net.mine_txs(if confirmations == 0 { splice.clone() } else { vec![] });
		confirmations += 1;
		assert!(confirmations < 10, "it is deep, and nobody was told");
		rig.restart();
	}
	assert_eq!(confirmations, 6);
	assert_eq!(rig.ended(&id), Some(SpliceState::Settled));
	assert_eq!((rig.failed(), rig.paid(&output)), (vec![], 1));
}

/// Both sides splice, the peer first. LDK merges or queues ours, and may raise its fee rate: it is
/// found by what it brings, not by equality.
#[test]
fn the_peer_splices_first() {
	let mut rig = Rig::new();
	rig.disconnect();
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.net.splice_out(rig.b, rig.channel, 40_000);
	rig.restart();
	rig.connect();
	let splice = rig.keeper(|keeper| keeper.splice(&id));
	assert!(splice.is_some_and(|splice| splice.failures() == 0));
	for _ in 0..3 {
		rig.lock();
		rig.connect();
	}
	assert_eq!(rig.ended(&id), Some(SpliceState::Settled));
	assert_eq!(rig.paid(&output), 1);
	let value = rig.value_sat(rig.a);
	assert!(value < CHANNEL_SAT - 90_000, "both are paid: {value}");
}

/// Ours is queued while the peer's is negotiated: LDK must pay more to replace it.
#[test]
fn ldk_raises_the_fee_rate() {
	let mut rig = Rig::new();
	rig.net.splice_out(rig.b, rig.channel, 40_000);
	assert_eq!(rig.net.chain.mempool().len(), 1);
	rig.disconnect();
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.net.persist_manager(rig.a);
	let asked = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
	rig.connect();
	let splice = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
	assert_eq!(splice.state(), &SpliceState::Negotiated, "{asked:?} {splice:?}");
	for _ in 0..3 {
		rig.lock();
	}
	assert_eq!(rig.ended(&id), Some(SpliceState::Settled));
	assert_eq!(rig.paid(&output), 1);
}

#[test]
fn a_channel_that_locks_unconfirmed() {
	let config = NodeConfig::anchors().zero_conf();
	let mut rig = Rig::with(Setup { config, ..Setup::default() });
	let was = rig.funding();
	rig.disconnect();
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.restart();
	rig.connect();
	assert_eq!(rig.paid(&output), 1);
	// Its monitor knows it too, before any block: what closes now closes the new funding.
	assert_ne!(rig.funding(), was);
	let txid = rig.funding().txid;
	let fate = rig.net.node(rig.a).chain_monitor().fate(&rig.channel, &[txid]);
	assert_eq!(fate, Fate::Funded(txid));
	rig.assert_locked(&id, was);
	// LDK broadcasts it again and again; nothing is handed in again.
	rig.net.persist_manager(rig.a);
	rig.restart();
	rig.connect();
	rig.lock();
	assert_eq!(rig.paid(&output), 1);
}

#[test]
fn one_confirmation_and_a_reorganization() {
	let mut rig = Rig::new();
	let was = rig.funding();
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.net.settle();
	rig.net.mine(1);
	rig.net.persist_manager(rig.a);
	rig.net.reorg(1);
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated));
	rig.restart();
	rig.connect();
	rig.lock();
	rig.assert_locked(&id, was);
	assert_eq!(rig.paid(&output), 1);
}

#[test]
fn canceled_by_the_user() {
	let mut rig = Rig::new();
	let was = rig.funding();
	rig.disconnect();
	let id = rig.splice_in(50_000).unwrap();
	rig.keeper(|keeper| keeper.cancel(&id)).unwrap();
	rig.net.settle();
	assert_eq!(rig.ended(&id), Some(SpliceState::Failed(FailureReason::LocallyCanceled)));
	assert_eq!(rig.failed().len(), 1);
	assert!(matches!(
		rig.keeper(|keeper| keeper.cancel(&id)),
		Err(SpliceError::NoSuchSplice { .. })
	));
	rig.restart();
	rig.connect();
	rig.lock();
	assert_eq!((rig.funding(), rig.failed().len()), (was, 1));
	// One that is negotiated is not canceled.
	let id = rig.splice_in(50_000).unwrap();
	rig.net.settle();
	let late = rig.keeper(|keeper| keeper.cancel(&id));
	assert!(matches!(late, Err(SpliceError::TooLate { .. })), "{late:?}");
	rig.lock();
	assert_eq!(rig.ended(&id), Some(SpliceState::Settled));
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
	let mut rig = Rig::new();
	let writes = rig.medium.size_bytes();
	let refused = |rig: &mut Rig, sat: u64| out_of(rig, sat, BAND).unwrap_err();
	assert!(matches!(refused(&mut rig, 0), SpliceError::BadAmount { .. }));
	assert!(matches!(refused(&mut rig, 100), SpliceError::BadAmount { .. }), "dust");
	assert!(matches!(refused(&mut rig, u64::MAX), SpliceError::BadAmount { .. }));
	let error = refused(&mut rig, CHANNEL_SAT);
	assert!(matches!(error, SpliceError::Refused(FailureReason::NotEnoughFunds { .. })), "{error}");
	let outputs = vec![rig.output(1_000_000_000_000_000), rig.output(1_999_999_999_999_999)];
	let channel = rig.channel_ref();
	let sum = rig.keeper(|keeper| keeper.splice_out(channel, outputs, BAND));
	assert!(matches!(sum, Err(SpliceError::BadAmount { .. })), "{sum:?}");
	let none = rig.keeper(|keeper| keeper.splice_out(channel, vec![], BAND));
	assert!(matches!(none, Err(SpliceError::BadOutputs { count: 0 })));
	for band in [(0, 1000), (1000, 999)] {
		let band = FeeBand { min_sat_per_kw: band.0, max_sat_per_kw: band.1 };
		assert!(matches!(out_of(&mut rig, 50_000, band), Err(SpliceError::BadFeeBand)));
	}
	let mut other = channel;
	other.channel_id.0[0] ^= 1;
	let unknown = rig.keeper(|keeper| keeper.splice_in(other, 50_000, BAND));
	assert!(matches!(unknown, Err(SpliceError::UnknownChannel)));
	let mut other = channel;
	other.counterparty = rig.net.id(rig.a);
	let foreign = rig.keeper(|keeper| keeper.splice_in(other, 50_000, BAND));
	assert!(matches!(foreign, Err(SpliceError::UnknownChannel)));
	let rich = rig.keeper(|keeper| keeper.splice_in(channel, 2_000_000_000, BAND));
	assert!(
		matches!(rich, Err(SpliceError::Refused(FailureReason::NotEnoughFunds { .. }))),
		"{rich:?}"
	);
	assert_eq!(rig.medium.size_bytes(), writes, "nothing was written");

	// A script of a splice that is going on.
	rig.disconnect();
	let (_, output) = rig.splice_out(50_000).unwrap();
	let again = rig.keeper(|keeper| keeper.splice_out(channel, vec![output], BAND));
	assert!(matches!(again, Err(SpliceError::ScriptInUse { .. })), "{again:?}");
	let no_bump = rig.bump(&rig.keeper(|keeper| keeper.splices()[0].id()), 1_000);
	assert!(matches!(no_bump, Err(SpliceError::NothingToBump { .. })), "{no_bump:?}");
}

#[test]
fn a_channel_that_is_closing_takes_none() {
	let mut rig = Rig::new();
	let channel = channel_ref(&rig.details());
	rig.net.cut_before(rig.b, "SendShutdown");
	let peer = rig.details().counterparty.node_id;
	rig.net.node(rig.a).manager().close_channel(&rig.channel, &peer).unwrap();
	rig.net.settle();
	let closing = rig.keeper(|keeper| keeper.splice_in(channel, 50_000, BAND));
	assert!(matches!(closing, Err(SpliceError::ChannelClosing)), "{closing:?}");
}

/// The damaged one is left as it is and reported; its coins stay reserved; the others go on.
#[test]
fn a_damaged_record_stops_only_its_own_splice() {
	let mut rig = Rig::new();
	rig.disconnect();
	let first = rig.splice_in(50_000).unwrap();
	let second = rig.splice_in(60_000).unwrap();
	let coins = rig.keeper(|keeper| keeper.reservations().all());
	let record = Key::new(Table::new("splices"), *first.as_bytes());
	rig.medium.damage(&Namespace::default(), &record, |frame| *frame.last_mut().unwrap() ^= 1);
	rig.restart();
	let damaged = rig.keeper(|keeper| keeper.damaged().to_vec());
	assert_eq!(damaged.len(), 1);
	assert_eq!(damaged[0].id, Some(first));
	assert!(damaged[0].error.to_string().contains("splices"), "{}", damaged[0].error);
	assert!(rig.state(&second).is_some());
	let reserved = rig.keeper(|keeper| keeper.reservations().all());
	assert!(coins.iter().all(|coin| reserved.contains(coin)), "its coins stay reserved");
	rig.connect();
	rig.lock();
	assert_eq!(rig.ended(&second), Some(SpliceState::Settled));
}

/// An LDK node that has signed, and has forgotten it when it is back, tells its peer to abort; the
/// peer, which has sent its own signatures, closes the channel by force. So the manager is written
/// before a splice is signed. When LDK does that itself, or no longer closes: take the barrier out.
#[test]
fn without_the_barrier_a_crash_after_signing_closes_the_channel() {
	for barrier in [false, true] {
		let mut rig = Rig::with(Setup { barrier, ..Setup::default() });
		let was = rig.funding();
		rig.net.cut_before(rig.b, "UpdateHTLCs");
		let (id, output) = rig.splice_out(50_000).unwrap();
		rig.net.settle();
		assert!(rig.net.was_cut());
		rig.restart();
		rig.net.connect(rig.a, rig.b);
		if barrier {
			rig.lock();
			rig.assert_locked(&id, was);
			assert_eq!(rig.paid(&output), 1);
		} else {
			assert!(rig.net.channel(rig.a, rig.channel).is_none(), "LDK keeps it now");
			rig.net.mine(8);
			rig.keeper(|keeper| keeper.peer_connected()).unwrap();
			let ended = rig.ended(&id);
			assert_eq!(ended, Some(SpliceState::Failed(FailureReason::ChannelClosed)));
			assert_eq!((rig.failed().len(), rig.paid(&output)), (1, 0));
		}
	}
}

/// The first candidate is confirmed while the higher fee waits for the peer: the withdrawal is
/// made, and must not be made again on the new funding.
#[test]
fn a_bump_that_is_overtaken_pays_nothing_twice() {
	for restart in [false, true] {
		let mut rig = Rig::new();
		let (id, output) = rig.splice_out(50_000).unwrap();
		rig.net.settle();
		rig.net.persist_manager(rig.a);
		rig.disconnect();
		rig.bump(&id, 1_000).unwrap();
		rig.net.mine(8);
		// The higher fee goes with what it was to raise: LDK is not to begin with it.
		rig.net.cut_before(rig.a, "SendStfu");
		if restart {
			rig.restart();
		}
		rig.connect();
		for _ in 0..3 {
			rig.lock();
			rig.connect();
		}
		assert!(!rig.net.was_cut(), "another round was begun");
		assert_eq!(rig.paid(&output), 1, "restart: {restart}");
		assert_eq!(rig.ended(&id), Some(SpliceState::Settled));
	}
}

/// A splice that somebody handed to LDK past the keeper is pending: another contribution now would
/// replace it. Ours waits until it has locked.
#[test]
fn a_splice_that_is_not_ours_is_not_replaced() {
	let mut rig = Rig::new();
	let value = rig.value_sat(rig.a);
	rig.net.splice_out(rig.a, rig.channel, 40_000);
	assert_eq!(rig.net.chain.mempool().len(), 1);
	let (id, output) = rig.splice_out(50_000).unwrap();
	assert_eq!(rig.state(&id), Some(SpliceState::Deferred));
	rig.net.persist_manager(rig.a);
	rig.restart();
	rig.connect();
	assert_eq!(rig.state(&id), Some(SpliceState::Deferred));
	rig.lock();
	rig.lock();
	assert_eq!(rig.ended(&id), Some(SpliceState::Settled));
	assert_eq!(rig.paid(&output), 1);
	assert!(rig.value_sat(rig.a) < value - 90_000, "both were made");
}

/// The peer replaces the transaction of a splice that is broadcast, with what the splice brings in
/// it. That round may come to nothing, and the splice is broadcast all the same: no cancel takes it
/// back, and the user is not told that it failed.
#[test]
fn a_splice_that_the_peer_replaces_stays_broadcast() {
	let mut rig = Rig::new();
	let was = rig.funding();
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.net.settle();
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated));
	// The peer's round gets as far as waiting for signatures.
	rig.net.cut_before(rig.b, "UpdateHTLCs");
	rig.net.splice_out(rig.b, rig.channel, 40_000);
	assert!(rig.net.was_cut());
	rig.keeper(|keeper| keeper.peer_connected()).unwrap();
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated));
	let late = rig.keeper(|keeper| keeper.cancel(&id));
	assert!(matches!(late, Err(SpliceError::TooLate { .. })), "{late:?}");
	rig.pass(leyden_splice::DEFAULT_MAX_AGE);
	rig.connect();
	assert_eq!(rig.failed(), []);
	rig.lock();
	rig.assert_locked(&id, was);
	assert_eq!(rig.paid(&output), 1);
}

/// The table in docs/splices.md on a node that dies between its signature and the next write of its
/// manager: with deferred monitors and the barrier nothing is lost. A monitor that is not deferred
/// is written as soon as the peer has signed, and is then newer than the manager, for which LDK
/// itself closes the channel at the start; no barrier helps, since that write comes after it.
/// When LDK does otherwise, this test fails, and the docs can promise more.
#[test]
fn a_crash_after_signing_with_deferred_monitors_and_without() {
	// The moment, by the message that is not heard any more; whether the channel lives with monitors
	// that are not deferred and a barrier, and with deferred ones and none.
	let moments = [
		("we have not signed", true, "UpdateHTLCs", true, true),
		("the peer has not signed", false, "UpdateHTLCs", true, false),
		("the peer has signed its commitment", false, "SendTxSignatures", false, true),
		("both have signed", true, "SendTxSignatures", false, true),
	];
	for (moment, by_a, message, lives_undeferred, lives_without_barrier) in moments {
		for (deferred, barrier, lives) in [
			(false, true, lives_undeferred),
			(true, false, lives_without_barrier),
			(true, true, true),
		] {
			let config = match deferred {
				true => NodeConfig::anchors().deferred(),
				false => NodeConfig::anchors(),
			};
			let mut rig = Rig::with(Setup { config, barrier, ..Setup::default() });
			let was = rig.funding();
			let from = if by_a { rig.a } else { rig.b };
			rig.net.cut_before(from, message);
			let (id, output) = rig.splice_out(50_000).unwrap();
			rig.net.settle();
			let at = format!("{moment}; deferred: {deferred}, barrier: {barrier}");
			assert!(rig.net.was_cut(), "{at}");
			rig.restart();
			rig.connect();
			assert_eq!(rig.net.channel(rig.a, rig.channel).is_some(), lives, "{at}");
			if lives {
				rig.lock();
				rig.assert_locked(&id, was);
				assert_eq!(rig.paid(&output), 1, "{at}");
				continue;
			}
			// Closed by force; the user is told what the chain has made of the splice.
			rig.net.mine(200);
			rig.keeper(|keeper| keeper.peer_connected()).unwrap();
			let (ended, paid) = (rig.ended(&id), rig.paid(&output));
			let expected = match paid {
				0 => SpliceState::Failed(FailureReason::ChannelClosed),
				_ => SpliceState::Settled,
			};
			assert_eq!((ended, rig.failed().len()), (Some(expected), 1 - paid), "{at}");
		}
	}
}

/// A store that refuses one commit, and is well again: a disk that was full for a moment.
struct Hiccup {
	store: MemoryStore,
	/// Commits until then; 0 if there is none to refuse.
	left: Arc<AtomicU32>,
}

impl Store for Hiccup {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		let left = self.left.load(Ordering::Relaxed);
		self.left.store(left.saturating_sub(1), Ordering::Relaxed);
		match left {
			1 => Ticket::ready(Err(StoreError::invalid("the disk is full"))),
			_ => self.store.commit(batch),
		}
	}

	leyden_testkit::forward_store!(store);
}

/// A rig whose store refuses the commit after as many others as the number says, if it is not 0.
fn hiccuping() -> (Rig, Arc<AtomicU32>) {
	let (medium, left) = (MemoryMedium::new(), Arc::new(AtomicU32::new(0)));
	let (on, refuses) = (medium.clone(), Arc::clone(&left));
	let open = move |_| {
		let store = MemoryStore::open(&on, Namespace::default()).unwrap();
		Arc::new(Hiccup { store, left: Arc::clone(&refuses) }) as Arc<dyn Store>
	};
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	(Rig::on(Setup::default(), medium, disk, Arc::new(open)), left)
}

/// The store fails after LDK has taken a splice, or a higher fee, so the caller has an error: LDK
/// gives it back, with the peer there and away, and it does not run, in this process run or the
/// next.
#[test]
fn what_ended_in_an_error_does_not_run() {
	for (away, restart, bump) in
		[(false, false, false), (true, false, false), (true, true, false), (false, false, true)]
	{
		let (mut rig, left) = hiccuping();
		let was = rig.funding();
		let negotiated = bump.then(|| rig.splice_in(50_000).unwrap());
		rig.net.settle();
		if away {
			rig.disconnect();
		}
		left.store(2, Ordering::Relaxed);
		let at = format!("away: {away}, restart: {restart}, bump: {bump}");
		let asked = match &negotiated {
			Some(id) => rig.bump(id, 1_000),
			None => rig.splice_in(50_000).map(|_| ()),
		};
		assert!(matches!(asked, Err(SpliceError::Store(_))), "{at}: {asked:?}");
		rig.net.settle();
		if restart {
			rig.restart();
		}
		rig.connect();
		rig.connect();
		match negotiated {
			Some(id) => {
				let splice = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
				assert_eq!((splice.txids().len(), splice.bump_sat_per_kw()), (1, None), "{at}");
				rig.bump(&id, 1_000).unwrap();
				rig.net.settle();
				rig.lock();
				rig.assert_locked(&id, was);
			},
			None => {
				assert!(rig.keeper(|keeper| keeper.splices()).is_empty(), "{at}");
				assert!(rig.keeper(|keeper| keeper.reservations().all()).is_empty(), "{at}");
				rig.lock();
				assert_eq!((rig.funding(), rig.failed().len()), (was, 0), "{at}");
				let id = rig.splice_in(60_000).unwrap();
				rig.net.settle();
				rig.lock();
				rig.assert_locked(&id, was);
			},
		}
	}
}

/// The store fails after LDK has taken a splice: the caller has an error, LDK gives it back, and the
/// caller asks again for the same, to the same script. LDK leaves the channel quiescent (finding
/// 28), so that nothing comes of it until LDK has hung up.
#[test]
fn a_withdrawal_that_ended_in_an_error_can_be_asked_for_again() {
	let (mut rig, left) = hiccuping();
	let (was, output) = (rig.funding(), rig.output(50_000));
	let channel = rig.channel_ref();
	let ask =
		|rig: &Rig| rig.keeper(|keeper| keeper.splice_out(channel, vec![output.clone()], BAND));
	left.store(2, Ordering::Relaxed);
	assert!(matches!(ask(&rig), Err(SpliceError::Store(_))));
	rig.net.settle();
	let id = ask(&rig).unwrap();
	rig.net.settle();
	assert!(!rig.net.channel(rig.a, rig.channel).unwrap().is_usable, "LDK waits for the peer");
	for _ in 0..3 {
		rig.net.tick();
	}
	rig.connect();
	rig.net.settle();
	rig.lock();
	rig.assert_locked(&id, was);
}
