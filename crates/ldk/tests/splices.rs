// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Splices on real nodes: lost with LDK alone, finished with Leyden.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod splice_rig;

use leyden_ldk::splice_candidates;
use leyden_splice::funding::{FundingState, Fundings, Owners};
use leyden_splice::{FailureReason, SpliceState};
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

#[test]
fn a_fee_bump_survives_a_restart_with_the_peer_away() {
	let mut rig = Rig::new();
	let was = rig.funding();
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.net.settle();
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated));
	let first = rig.keeper(|keeper| keeper.splice(&id)).unwrap().txids().to_vec();
	rig.net.persist_manager(rig.a);
	rig.disconnect();
	rig.bump(&id, 1_000).unwrap();
	rig.restart();
	let splice = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
	assert_eq!(splice.bump_sat_per_kw(), Some(1_000));
	rig.connect();
	let splice = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
	assert_eq!((splice.txids().len(), splice.bump_sat_per_kw()), (2, None), "{splice:?}");
	assert_eq!(splice.txids()[0], first[0], "it is one splice, with two transactions");
	rig.lock();
	rig.assert_locked(&id, was);
	assert_eq!(rig.funding().txid, splice.txids()[1]);
	assert_eq!(rig.paid(&output), 1);
}

/// LDK keeps a round that waits for signatures, if the manager was written; if not, it is lost and
/// handed in again. Either way it happens once.
#[test]
fn a_restart_while_it_waits_for_signatures() {
	for written in [true, false] {
		let mut rig = Rig::with(Setup { barrier: false, ..Setup::default() });
		let was = rig.funding();
		rig.net.cut_before(rig.a, "UpdateHTLCs");
		let (id, output) = rig.splice_out(50_000).unwrap();
		rig.net.settle();
		assert!(rig.net.was_cut());
		assert_eq!(rig.state(&id), Some(SpliceState::Signing));
		if written {
			rig.net.persist_manager(rig.a);
		}
		rig.restart();
		let expected = if written { SpliceState::Signing } else { SpliceState::Accepted };
		assert_eq!(rig.state(&id), Some(expected));
		rig.connect();
		rig.lock();
		rig.assert_locked(&id, was);
		assert_eq!(rig.paid(&output), 1);
	}
}

/// Wherever the connection breaks, LDK or the keeper goes on when it is back.
#[test]
fn the_connection_breaks_in_the_middle() {
	let says = |a: bool, message: &'static str| (a, message);
	for (by_a, message) in [
		says(true, "SendStfu"),
		says(false, "SendStfu"),
		says(true, "SendSpliceInit"),
		says(false, "SendSpliceAck"),
		says(true, "SendTxAddInput"),
		says(true, "SendTxAddOutput"),
		says(false, "SendTxComplete"),
		says(true, "SendTxComplete"),
		says(true, "UpdateHTLCs"),
		says(false, "UpdateHTLCs"),
		says(false, "SendTxSignatures"),
		says(true, "SendTxSignatures"),
		says(true, "SendSpliceLocked"),
		says(false, "SendSpliceLocked"),
	] {
		let mut rig = Rig::new();
		let was = rig.funding();
		let from = if by_a { rig.a } else { rig.b };
		rig.net.cut_before(from, message);
		let (id, output) = rig.splice_out(50_000).unwrap();
		rig.net.settle();
		rig.connect();
		rig.lock();
		rig.connect();
		rig.lock();
		assert!(rig.net.was_cut(), "{message} was never said");
		rig.assert_locked(&id, was);
		assert_eq!(rig.paid(&output), 1, "{message}");
		let splice = rig.keeper(|keeper| keeper.past(1)).unwrap().remove(0);
		assert!(splice.failures() <= 1, "{message}: {splice:?}");
	}
}

/// The second waits for the first to lock, and then runs on the new funding.
#[test]
fn two_splices_one_after_the_other() {
	let mut rig = Rig::new();
	let was = rig.funding();
	let (first, paid_first) = rig.splice_out(50_000).unwrap();
	let (second, paid_second) = rig.splice_out(60_000).unwrap();
	let third = rig.splice_in(70_000).unwrap();
	assert_eq!(rig.state(&second), Some(SpliceState::Deferred));
	rig.net.settle();
	assert_eq!(rig.state(&first), Some(SpliceState::Negotiated));
	assert_eq!(rig.state(&second), Some(SpliceState::Deferred));
	rig.net.persist_manager(rig.a);
	rig.restart();
	rig.connect();
	rig.lock();
	assert_eq!(rig.ended(&first), Some(SpliceState::Settled));
	let between = rig.funding();
	assert_ne!(between, was);
	rig.lock();
	assert_eq!(rig.ended(&second), Some(SpliceState::Settled));
	rig.lock();
	rig.assert_locked(&third, between);
	assert_eq!((rig.paid(&paid_first), rig.paid(&paid_second)), (1, 1));
}

#[test]
fn a_peer_that_is_away_over_ten_restarts_uses_nothing_up() {
	let mut rig = Rig::new();
	let was = rig.funding();
	rig.disconnect();
	let (id, output) = rig.splice_out(50_000).unwrap();
	for restart in 0..10 {
		// Of managers that knew it, LDK brings a failure; of others, nothing.
		if restart % 2 == 0 {
			rig.net.persist_manager(rig.a);
		}
		rig.restart();
		let splice = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
		assert_eq!((splice.state(), splice.failures()), (&SpliceState::Accepted, 0));
	}
	rig.connect();
	rig.lock();
	rig.assert_locked(&id, was);
	assert_eq!(rig.paid(&output), 1);
}

#[test]
fn an_age_limit_ends_it() {
	let mut rig = Rig::new();
	rig.disconnect();
	let id = rig.splice_in(50_000).unwrap();
	rig.pass(leyden_splice::DEFAULT_MAX_AGE);
	rig.keeper(|keeper| keeper.look_at_all()).unwrap();
	rig.net.settle();
	assert_eq!(rig.ended(&id), Some(SpliceState::Failed(FailureReason::TooOld)));
	let failed = rig.failed();
	assert_eq!(failed.len(), 1, "told once: {failed:?}");
	assert_eq!((failed[0].id, &failed[0].reason), (id, &FailureReason::TooOld));
	assert!(!failed[0].released.is_empty());
	assert!(rig.keeper(|keeper| keeper.reservations().all()).is_empty());
	// It does not come back, and is not told again.
	let was = rig.funding();
	rig.restart();
	rig.connect();
	rig.lock();
	assert_eq!((rig.funding(), rig.failed().len()), (was, 1));
}

/// What LDK broadcasts goes into one record, under the splice's id, with LDK's own figures.
#[test]
fn one_payment_record_from_the_first_broadcast_to_the_end() {
	let mut rig = Rig::new();
	let was = rig.funding();
	let fundings = |rig: &Rig| Fundings::new(rig.guard().events().store().clone());
	let channel = leyden_id::ChannelId(rig.channel.0);
	// As a node's broadcaster does, for all that was broadcast in this life.
	let classify = |rig: &Rig| {
		for (transaction, kind) in rig.net.node(rig.a).broadcast_kinds() {
			let Some((id, candidates)) = splice_candidates(&kind) else { continue };
			assert_eq!(id, rig.channel);
			rig.keeper(|keeper| {
				let owners: &dyn Owners = &**keeper;
				fundings(rig).broadcast(&channel, &candidates, &transaction, owners).unwrap()
			});
		}
	};
	let (id, output) = rig.splice_out(50_000).unwrap();
	rig.net.settle();
	classify(&rig);
	let record = fundings(&rig).record(&id).unwrap().expect("the splice's id is the payment's");
	let first = record.txid;
	assert!(record.share().unwrap().net_sat <= -50_000, "{record:?}");
	rig.bump(&id, 1_000).unwrap();
	rig.net.settle();
	classify(&rig);
	let record = fundings(&rig).record(&id).unwrap().unwrap();
	assert_eq!(record.candidates.len(), 2);
	assert_ne!(record.txid, first);
	let fees: Vec<_> = record.candidates.iter().map(|c| c.share.unwrap().fee_sat).collect();
	assert!(fees[1] > fees[0], "{fees:?}");
	assert_eq!(fundings(&rig).by_txid(&first).unwrap().unwrap().id, id);
	// What the wallet sees leaves the intent alone.
	let live = rig.keeper(|keeper| keeper.splice(&id));
	let waiting = rig.net.chain.mempool().pop().unwrap();
	for height in [Some(rig.net.chain.height()), None] {
		rig.keeper(|keeper| {
			let owners: &dyn Owners = &**keeper;
			fundings(&rig).seen(&channel, &waiting, height, owners).unwrap()
		});
	}
	assert_eq!(rig.keeper(|keeper| keeper.splice(&id)), live);
	// Once more in the next block, and then deep.
	rig.net.persist_manager(rig.a);
	rig.lock();
	rig.assert_locked(&id, was);
	let transaction = rig.net.chain.tx(&rig.funding().txid).unwrap();
	let height = rig.net.chain.height() - 7;
	let seen = rig.keeper(|keeper| {
		let owners: &dyn Owners = &**keeper;
		fundings(&rig).seen(&channel, &transaction, Some(height), owners).unwrap()
	});
	assert_eq!(seen.unwrap().id, id);
	assert_eq!(fundings(&rig).tip(rig.net.chain.height()).unwrap().len(), 1);
	let record = fundings(&rig).record(&id).unwrap().unwrap();
	assert_eq!(record.state, FundingState::Succeeded { confirmed_at: height });
	assert_eq!(record.txid, rig.funding().txid);
	// LDK broadcasts again after a restart; the record stays.
	rig.restart();
	rig.connect();
	classify(&rig);
	assert_eq!(fundings(&rig).record(&id).unwrap().unwrap(), record);
	assert!(fundings(&rig).pending(10).unwrap().is_empty());
	assert_eq!(rig.paid(&output), 1);
}
