// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! Higher fees for splices that bring coins of the wallet, on real nodes: the coins are spent by
//! the splice's own transaction, and still belong to the splice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod splice_rig;

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid};
use leyden_ldk::LdkDriver;
use leyden_splice::{
	BuildError, FailureReason, FeeBand, InputReserver, SpliceDriver, SpliceError, SpliceId,
	SpliceState, Want,
};
use leyden_testkit::NodeConfig;
use lightning::ln::funding::FundingContribution;
use lightning::util::ser::Readable;
use splice_rig::{Rig, Setup, CHANNEL_SAT};

const SPLICE_SAT: u64 = 50_000;

/// The output that `input` spends.
fn spent(rig: &Rig, input: &OutPoint) -> TxOut {
	let from = rig.net.chain.tx(&input.txid).expect("a known transaction");
	from.output[input.vout as usize].clone()
}

/// The inputs of a splice that the wallet of node a brings.
fn brought(rig: &Rig, tx: &Transaction) -> BTreeSet<OutPoint> {
	let script = rig.net.node(rig.a).wallet().script();
	let inputs = tx.input.iter().map(|input| input.previous_output);
	inputs.filter(|input| spent(rig, input).script_pubkey == script).collect()
}

fn change_sat(rig: &Rig, tx: &Transaction) -> u64 {
	let script = rig.net.node(rig.a).wallet().script();
	tx.output.iter().filter(|o| o.script_pubkey == script).map(|o| o.value.to_sat()).sum()
}

fn fee_sat(rig: &Rig, tx: &Transaction) -> u64 {
	let paid_in = tx.input.iter().map(|i| spent(rig, &i.previous_output).value.to_sat());
	paid_in.sum::<u64>() - tx.output.iter().map(|o| o.value.to_sat()).sum::<u64>()
}

fn sat_per_kw(rig: &Rig, tx: &Transaction) -> u64 {
	fee_sat(rig, tx) * 1_000 / tx.weight().to_wu()
}

fn txids(rig: &Rig, id: &SpliceId) -> Vec<Txid> {
	rig.keeper(|keeper| keeper.splice(id)).expect("a splice that goes on").txids().to_vec()
}

/// The only transaction that waits for a block.
fn waiting(rig: &Rig) -> Transaction {
	let mempool = rig.net.chain.mempool();
	assert_eq!(mempool.len(), 1, "a candidate replaces the one before it");
	mempool.into_iter().next().unwrap()
}

/// The reserved coins are those that the splice names, under its id.
fn assert_reserved(rig: &Rig, id: &SpliceId, coins: &BTreeSet<OutPoint>) {
	let reserved = rig.keeper(|keeper| keeper.reservations().all());
	assert!(reserved.iter().all(|(_, holder)| holder == id), "{reserved:?}");
	let reserved: BTreeSet<OutPoint> = reserved.into_iter().map(|(coin, _)| coin).collect();
	assert_eq!(&reserved, coins);
	let inputs = rig.keeper(|keeper| keeper.splice(id)).unwrap().inputs().to_vec();
	assert_eq!(&inputs.into_iter().collect::<BTreeSet<_>>(), coins);
}

/// The splice-in has locked at this fee rate: the channel has its amount once, the wallet has paid
/// that and the fee, and nothing is reserved.
fn assert_paid(rig: &Rig, id: &SpliceId, was: OutPoint, wallet_sat: u64, least_sat_per_kw: u64) {
	rig.assert_locked(id, was);
	let tx = rig.net.chain.tx(&rig.funding().txid).unwrap();
	// Some is rounded away.
	assert!(sat_per_kw(rig, &tx) >= least_sat_per_kw * 95 / 100, "{} sat/kW", sat_per_kw(rig, &tx));
	let gained = rig.value_sat(rig.a) - CHANNEL_SAT;
	assert!((SPLICE_SAT..SPLICE_SAT + 10).contains(&gained), "the channel gained {gained}");
	let balance = rig.net.node(rig.a).wallet().balance_sats();
	assert_eq!(wallet_sat - balance, gained + fee_sat(rig, &tx), "the wallet pays nothing else");
}

/// A rig with a splice-in that is negotiated: its id, what funded the channel, what the wallet had.
fn negotiated(setup: Setup) -> (Rig, SpliceId, OutPoint, u64) {
	let mut rig = Rig::with(setup);
	let (was, wallet_sat) = (rig.funding(), rig.net.node(rig.a).wallet().balance_sats());
	let id = rig.splice_in(SPLICE_SAT).unwrap();
	rig.net.settle();
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated));
	(rig, id, was, wallet_sat)
}

#[test]
fn the_fee_of_a_splice_in_rises() {
	let (mut rig, id, was, wallet_sat) = negotiated(Setup::default());
	let first = waiting(&rig);
	let coins = brought(&rig, &first);
	assert_reserved(&rig, &id, &coins);
	rig.bump(&id, 1_000).unwrap();
	rig.net.settle();
	let second = waiting(&rig);
	assert_eq!(txids(&rig, &id), [first.compute_txid(), second.compute_txid()]);
	assert_eq!(brought(&rig, &second), coins, "the same coins");
	let (more, less) = (fee_sat(&rig, &second) - fee_sat(&rig, &first), change_sat(&rig, &first));
	assert_eq!(change_sat(&rig, &second), less - more, "the change pays for it");
	assert_reserved(&rig, &id, &coins);
	rig.lock();
	assert_eq!(rig.funding().txid, second.compute_txid());
	assert_paid(&rig, &id, was, wallet_sat, 1_000);
}

/// The manager on disk is from before the higher fee, or from before the splice was negotiated at
/// all; monitors are deferred, since else the latter is LDK's own end of the channel.
#[test]
fn the_fee_of_a_splice_in_rises_after_a_restart_from_an_older_manager() {
	for deferred in [false, true] {
		let config = match deferred {
			true => NodeConfig::anchors().deferred(),
			false => NodeConfig::anchors(),
		};
		let (mut rig, id, was, wallet_sat) = negotiated(Setup { config, ..Setup::default() });
		let coins = brought(&rig, &waiting(&rig));
		rig.net.persist_manager(rig.a);
		rig.restart();
		assert_reserved(&rig, &id, &coins);
		// Asked for after one restart, lost by another.
		rig.bump(&id, 1_000).unwrap();
		rig.restart();
		let splice = rig.keeper(|keeper| keeper.splice(&id)).unwrap();
		assert_eq!(splice.bump_sat_per_kw(), Some(1_000), "{splice:?}");
		rig.connect();
		assert_eq!(txids(&rig, &id).len(), 2, "deferred: {deferred}");
		assert_reserved(&rig, &id, &coins);
		rig.lock();
		assert_paid(&rig, &id, was, wallet_sat, 1_000);
	}
}

#[test]
fn the_fee_of_a_splice_in_rises_while_the_peer_is_away() {
	for restart in [false, true] {
		let (mut rig, id, was, wallet_sat) = negotiated(Setup::default());
		rig.net.persist_manager(rig.a);
		rig.disconnect();
		rig.bump(&id, 1_000).unwrap();
		if restart {
			rig.restart();
		}
		rig.connect();
		assert_eq!(txids(&rig, &id).len(), 2, "restart: {restart}");
		rig.lock();
		assert_paid(&rig, &id, was, wallet_sat, 1_000);
	}
}

#[test]
fn the_fee_of_a_splice_in_rises_twice() {
	for restart in [false, true] {
		let (mut rig, id, was, wallet_sat) = negotiated(Setup::default());
		let coins = brought(&rig, &waiting(&rig));
		rig.bump(&id, 1_000).unwrap();
		rig.net.settle();
		if restart {
			rig.net.persist_manager(rig.a);
			rig.restart();
			rig.connect();
		}
		rig.bump(&id, 2_000).unwrap();
		rig.net.settle();
		assert_eq!(txids(&rig, &id).len(), 3, "restart: {restart}");
		assert_reserved(&rig, &id, &coins);
		rig.lock();
		assert_paid(&rig, &id, was, wallet_sat, 2_000);
	}
}

/// A bump that the change cannot pay for takes more coins of the wallet; those of both candidates
/// are reserved until one has locked.
#[test]
fn a_bump_that_needs_more_coins_reserves_them_too() {
	let mut rig = Rig::new();
	let (was, wallet_sat) = (rig.funding(), rig.net.node(rig.a).wallet().balance_sats());
	let coin = rig.net.chain.coins_of(&rig.net.node(rig.a).wallet().script())[0].1.output.value;
	// What is left as change does not pay for five times the fee.
	let sat = coin.to_sat() - 3_000;
	let channel = rig.channel_ref();
	let id = rig.keeper(|keeper| keeper.splice_in(channel, sat, splice_rig::BAND)).unwrap();
	rig.net.settle();
	let first = brought(&rig, &waiting(&rig));
	rig.bump(&id, 5_000).unwrap();
	rig.net.settle();
	let second = brought(&rig, &waiting(&rig));
	assert!(!second.is_subset(&first), "{second:?}");
	assert_reserved(&rig, &id, &first.union(&second).copied().collect());
	// Also in the next life.
	rig.net.persist_manager(rig.a);
	rig.restart();
	assert_reserved(&rig, &id, &first.union(&second).copied().collect());
	rig.connect();
	rig.lock();
	rig.assert_locked(&id, was);
	let tx = rig.net.chain.tx(&rig.funding().txid).unwrap();
	assert!(sat_per_kw(&rig, &tx) >= 4_750);
	let gained = rig.value_sat(rig.a) - CHANNEL_SAT;
	assert!((sat..sat + 10).contains(&gained), "{gained}");
	let balance = rig.net.node(rig.a).wallet().balance_sats();
	assert_eq!(wallet_sat - balance, gained + fee_sat(&rig, &tx));
}

/// A payment, after which the balances that a debug build of LDK 0.3.0-rc3 asserts are right: it
/// begins with wrong ones when a channel is opened, and when it is read from disk.
fn pay(rig: &mut Rig) {
	let sent = rig.net.pay(rig.b, rig.a, 5_000_000);
	rig.net.claim(sent.hash);
	rig.net.settle();
}

/// A higher fee that the channel's balance cannot pay is paid by coins of the wallet: a splice that
/// pays out and brings coins. Its fee can be raised again.
#[test]
fn a_splice_that_pays_and_brings_coins_can_be_bumped_again() {
	let mut rig = Rig::new();
	pay(&mut rig);
	let was = rig.funding();
	let most = rig.details().next_splice_out_maximum_sat;
	let (id, output) = rig.splice_out(most - 500).unwrap();
	rig.net.settle();
	assert_eq!(brought(&rig, &waiting(&rig)), BTreeSet::new());
	for rate in [2_000, 4_000] {
		rig.bump(&id, rate).unwrap();
		rig.net.settle();
		let tx = waiting(&rig);
		assert!(sat_per_kw(&rig, &tx) >= rate * 95 / 100, "{} sat/kW", sat_per_kw(&rig, &tx));
		let coins = brought(&rig, &tx);
		assert!(!coins.is_empty(), "the wallet pays");
		let inputs = rig.keeper(|keeper| keeper.splice(&id)).unwrap().inputs().to_vec();
		assert!(coins.iter().all(|coin| inputs.contains(coin)));
		rig.net.persist_manager(rig.a);
		rig.restart();
		rig.connect();
		pay(&mut rig);
	}
	assert_eq!(txids(&rig, &id).len(), 3);
	rig.lock();
	rig.assert_locked(&id, was);
	assert_eq!(rig.paid(&output), 1);
}

/// A coin of the splice that somebody else's transaction has spent for good is not the splice's any
/// more: no candidate with it can be confirmed.
#[test]
fn a_bump_over_a_coin_that_is_spent_elsewhere_is_refused() {
	let (mut rig, id, ..) = negotiated(Setup::default());
	let coins: Vec<OutPoint> = brought(&rig, &waiting(&rig)).into_iter().collect();
	rig.disconnect();
	let theft = rig.net.node(rig.a).wallet().spend(&coins);
	rig.net.mine_txs(vec![theft]);
	let refused = rig.bump(&id, 1_000);
	assert!(matches!(refused, Err(SpliceError::InputSpent)), "{refused:?}");
	let band = FeeBand { min_sat_per_kw: 1_000, max_sat_per_kw: 10_000 };
	let again = rig.keeper(|keeper| keeper.bump_fee(&id, band));
	assert!(matches!(again, Err(SpliceError::InputSpent)), "{again:?}");
	assert_eq!(rig.state(&id), Some(SpliceState::Negotiated), "the splice is as it was");
}

/// The wallet has one coin, which is reserved for a splice that is built anew: LDK's coin selection
/// finds none, and the splice has its own. The amount stays what it is; the change pays the fee.
#[test]
fn what_is_built_anew_has_its_own_coins() {
	let mut rig = Rig::new();
	let foreign = rig.script();
	let node = rig.net.node(rig.a);
	let coins = rig.net.chain.coins_of(&node.wallet().script());
	let (_, others) = coins.split_last().unwrap();
	let value: Amount = others.iter().map(|(_, coin)| coin.output.value).sum();
	let value = value - Amount::from_sat(leyden_testkit::wallet::FEE_SATS);
	let paid = node.wallet().pay(vec![TxOut { value, script_pubkey: foreign }]);
	rig.net.mine_txs(vec![paid]);

	let (channel, node) = (rig.channel_ref(), rig.net.node(rig.a));
	let (wallet, selects) = (Arc::clone(node.wallet()), Arc::clone(node.coin_selection()));
	let monitors = Arc::clone(node.chain_monitor());
	let driver = LdkDriver::new(Arc::clone(node.manager()), monitors, selects, Arc::clone(&wallet));
	let build = |reuse: Option<&[u8]>, min_sat_per_kw| {
		let want = Want::In { amount_sat: SPLICE_SAT, reuse };
		driver.build(&channel, &want, FeeBand { min_sat_per_kw, max_sat_per_kw: 5_000 })
	};
	let first = build(None, 253).unwrap();
	wallet.reserve(&SpliceId::from_bytes([1; 32]), first.material.inputs());
	let none = build(None, 1_000);
	let Err(BuildError::Impossible(FailureReason::NotEnoughFunds { .. })) = none else {
		panic!("{none:?}");
	};
	let again = build(Some(&first.bytes), 1_000).unwrap();
	assert_eq!((&again.material, again.sat_per_kw), (&first.material, 1_000));
	let read = |bytes: &[u8]| FundingContribution::read(&mut &*bytes).unwrap();
	let (first, again) = (read(&first.bytes), read(&again.bytes));
	let change = |c: &FundingContribution| c.change_output().unwrap().clone();
	assert!(change(&again).value < change(&first).value);
	assert_eq!(change(&again).script_pubkey, change(&first).script_pubkey);
	let added = again.value_added().to_sat();
	assert!((SPLICE_SAT..SPLICE_SAT + 10).contains(&added), "{added}");
	// Bytes that this version of LDK cannot read help nobody, and do no harm.
	assert!(build(Some(&[1]), 1_000).is_err());
}
