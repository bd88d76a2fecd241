// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! The payment records of splices: what is broadcast and what the wallet sees, in any order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use leyden_id::ChannelId;
use leyden_splice::funding::{
	Candidate, FundingState, Fundings, Owners, Share, ANTI_REORG_DELAY, MAX_CANDIDATES,
};
use leyden_splice::{Material, SpliceId};
use leyden_store::{MemoryMedium, MemoryStore, Namespace, Store, StoreError};

const CHANNEL: ChannelId = ChannelId([7; 32]);
const ID: SpliceId = SpliceId::from_bytes([9; 32]);

/// The splices that there are, by what they bring.
#[derive(Default)]
struct Known(BTreeMap<SpliceId, Material>);

impl Owners for Known {
	fn owner_of(&self, transaction: &Transaction) -> Result<Option<SpliceId>, StoreError> {
		let mut known = self.0.iter();
		Ok(known.find(|(_, material)| material.is_in(transaction)).map(|(id, _)| *id))
	}
}

fn pays(sat: u64) -> TxOut {
	TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }
}

/// A transaction that spends the channel; `number` tells one from another.
fn transaction(number: u32, output: Vec<TxOut>) -> Transaction {
	let previous_output = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
	Transaction {
		version: Version::TWO,
		lock_time: LockTime::from_consensus(number),
		input: vec![TxIn {
			previous_output,
			script_sig: ScriptBuf::new(),
			sequence: Sequence::MAX,
			witness: Witness::new(),
		}],
		output,
	}
}

fn round(number: u32) -> Transaction {
	transaction(number, vec![pays(50_000)])
}

fn candidate(tx: &Transaction, fee_sat: u64) -> Candidate {
	let share = Some(Share { net_sat: -50_000, fee_sat });
	Candidate { txid: tx.compute_txid(), share }
}

struct Node {
	medium: MemoryMedium,
	fundings: Fundings,
	known: Known,
}

impl Node {
	fn new() -> Self {
		let medium = MemoryMedium::new();
		let known = Known(BTreeMap::from([(ID, Material::new([], [pays(50_000)]))]));
		Self { fundings: open(&medium), medium, known }
	}

	fn restart(&mut self) {
		self.fundings = open(&self.medium);
	}

	fn broadcast(
		&self, rounds: &[(&Transaction, u64)],
	) -> Option<leyden_splice::funding::FundingRecord> {
		let candidates: Vec<_> = rounds.iter().map(|(tx, fee)| candidate(tx, *fee)).collect();
		let newest = rounds.last().unwrap().0;
		self.fundings.broadcast(&CHANNEL, &candidates, newest, &self.known).unwrap()
	}

	fn seen(
		&self, tx: &Transaction, height: Option<u32>,
	) -> Option<leyden_splice::funding::FundingRecord> {
		self.fundings.seen(&CHANNEL, tx, height, &self.known).unwrap()
	}

	fn state(&self) -> FundingState {
		self.fundings.record(&ID).unwrap().unwrap().state
	}

	fn count(&self) -> usize {
		self.fundings.pending(100).unwrap().len()
	}
}

fn open(medium: &MemoryMedium) -> Fundings {
	let store = MemoryStore::open(medium, Namespace::default()).unwrap();
	Fundings::new(Arc::new(store) as Arc<dyn Store>)
}

const UNCONFIRMED: FundingState = FundingState::Pending { confirmed_at: None };

#[test]
fn one_record_for_all_rounds_and_the_confirmed_one_wins() {
	let mut node = Node::new();
	let (first, second, third) = (round(1), round(2), round(3));
	assert_eq!(node.broadcast(&[(&first, 100)]).unwrap().id, ID, "under the splice's id");
	let record = node.broadcast(&[(&first, 100), (&second, 200)]).unwrap();
	assert_eq!((record.id, record.txid), (ID, second.compute_txid()));
	assert_eq!(record.share().unwrap().fee_sat, 200);
	node.restart();
	for tx in [&first, &second] {
		assert_eq!(node.fundings.by_txid(&tx.compute_txid()).unwrap().unwrap().id, ID);
	}
	// The first is confirmed after all: its figures count, whatever is broadcast later.
	node.seen(&first, Some(10)).unwrap();
	let late = node.broadcast(&[(&first, 100), (&second, 200), (&third, 300)]).unwrap();
	assert_eq!(late.txid, first.compute_txid());
	assert_eq!(late.share().unwrap().fee_sat, 100);
	assert_eq!(late.state, FundingState::Pending { confirmed_at: Some(10) });
	assert_eq!(node.fundings.by_txid(&third.compute_txid()).unwrap().unwrap().id, ID);
	assert_eq!(node.count(), 1);
}

#[test]
fn a_late_classification_undoes_nothing() {
	let node = Node::new();
	let tx = round(1);
	// The wallet is faster than the broadcast.
	let record = node.seen(&tx, Some(10)).unwrap();
	assert_eq!((record.id, record.share()), (ID, None));
	assert_eq!(node.fundings.tip(10 + ANTI_REORG_DELAY - 2).unwrap().len(), 0);
	assert_eq!(node.fundings.tip(10 + ANTI_REORG_DELAY - 1).unwrap().len(), 1);
	let done = FundingState::Succeeded { confirmed_at: 10 };
	assert_eq!((node.state(), node.count()), (done, 0));
	// Only its figures are new. LDK broadcasts a zero-conf funding again and again.
	for _ in 0..3 {
		let record = node.broadcast(&[(&tx, 100)]).unwrap();
		assert_eq!((record.state, record.share().unwrap().fee_sat), (done, 100));
	}
	node.seen(&tx, Some(10)).unwrap();
	assert_eq!((node.state(), node.count()), (done, 0), "said again, it is the same");
	assert!(node.fundings.tip(100).unwrap().is_empty());
}

#[test]
fn a_reorganization_makes_it_pending_also_after_it_had_succeeded() {
	let mut node = Node::new();
	let (tx, other) = (round(1), round(2));
	node.broadcast(&[(&tx, 100), (&other, 200)]).unwrap();
	node.seen(&tx, Some(10)).unwrap();
	node.seen(&tx, None).unwrap();
	assert_eq!(node.state(), UNCONFIRMED);
	node.seen(&tx, Some(11)).unwrap();
	node.fundings.tip(100).unwrap();
	assert_eq!(node.state(), FundingState::Succeeded { confirmed_at: 11 });
	node.restart();
	// Another candidate that waits says nothing about the one that is confirmed.
	node.seen(&other, None).unwrap();
	assert_eq!(node.state(), FundingState::Succeeded { confirmed_at: 11 });
	let record = node.seen(&tx, None).unwrap();
	assert_eq!((record.id, record.state, node.count()), (ID, UNCONFIRMED, 1), "the same record");
	// And the other one is confirmed in its stead.
	node.seen(&other, Some(12)).unwrap();
	node.fundings.tip(100).unwrap();
	let record = node.fundings.record(&ID).unwrap().unwrap();
	assert_eq!(record.state, FundingState::Succeeded { confirmed_at: 12 });
	assert_eq!((record.txid, record.share().unwrap().fee_sat), (other.compute_txid(), 200));
}

#[test]
fn what_loses_to_another_transaction_fails_when_that_is_final() {
	let node = Node::new();
	let (tx, other) = (round(1), round(2));
	let close = transaction(9, vec![pays(1)]);
	node.broadcast(&[(&tx, 100), (&other, 200)]).unwrap();
	// Replaced by a candidate of its own: no loss.
	node.fundings.replaced(&tx.compute_txid(), other.compute_txid(), Some(10)).unwrap();
	assert!(node.fundings.tip(100).unwrap().is_empty());
	let by = close.compute_txid();
	node.fundings.replaced(&tx.compute_txid(), by, Some(10)).unwrap();
	assert!(node.fundings.tip(10 + ANTI_REORG_DELAY - 2).unwrap().is_empty());
	// The close is taken out of the chain and comes back later.
	node.fundings.replaced(&tx.compute_txid(), by, None).unwrap();
	assert!(node.fundings.tip(100).unwrap().is_empty());
	node.fundings.replaced(&tx.compute_txid(), by, Some(12)).unwrap();
	assert_eq!(node.fundings.tip(12 + ANTI_REORG_DELAY - 1).unwrap().len(), 1);
	assert_eq!(node.state(), FundingState::Failed { lost_to: by });
	// Even that can be undone.
	node.fundings.replaced(&tx.compute_txid(), by, None).unwrap();
	assert_eq!((node.state(), node.count()), (UNCONFIRMED, 1));
	node.seen(&tx, Some(20)).unwrap();
	node.fundings.tip(100).unwrap();
	assert_eq!(node.state(), FundingState::Succeeded { confirmed_at: 20 });
}

#[test]
fn a_close_is_no_splice_and_what_moves_nothing_is_no_payment() {
	let node = Node::new();
	node.broadcast(&[(&round(1), 100)]).unwrap();
	let close = transaction(9, vec![pays(1)]);
	assert!(node.seen(&close, Some(10)).is_none());
	assert_eq!(node.state(), UNCONFIRMED);
	let theirs = transaction(8, vec![pays(2)]);
	let nothing = [Candidate { txid: theirs.compute_txid(), share: None }];
	let none = node.fundings.broadcast(&CHANNEL, &nothing, &theirs, &node.known).unwrap();
	assert!(none.is_none());
	assert_eq!(node.count(), 1);
}

#[test]
fn the_peers_splice_is_named_by_its_first_transaction() {
	let node = Node::new();
	let (first, second) = (transaction(1, vec![pays(3)]), transaction(2, vec![pays(3)]));
	let id = SpliceId::from_bytes(first.compute_txid().to_byte_array());
	assert_eq!(node.broadcast(&[(&first, 1)]).unwrap().id, id);
	assert_eq!(node.broadcast(&[(&first, 1), (&second, 2)]).unwrap().id, id);
	// Also if the first is heard of only together with the second.
	let other = Node::new();
	assert_eq!(other.broadcast(&[(&first, 1), (&second, 2)]).unwrap().id, id);
	assert_eq!(other.seen(&second, Some(5)).unwrap().id, id);
}

/// The peer's splice has lost to another transaction for good, and ours, which is negotiated later,
/// names it among its candidates: ours is a payment of its own, and the lost one stays lost.
#[test]
fn a_record_that_failed_is_not_taken_for_another_splice() {
	let node = Node::new();
	let (theirs, close) = (transaction(8, vec![pays(2)]), transaction(9, vec![pays(1)]));
	let lost = node.broadcast(&[(&theirs, 100)]).unwrap().id;
	let by = close.compute_txid();
	node.fundings.replaced(&theirs.compute_txid(), by, Some(10)).unwrap();
	assert_eq!(node.fundings.tip(10 + ANTI_REORG_DELAY - 1).unwrap().len(), 1);
	let ours = round(1);
	let record = node.broadcast(&[(&theirs, 100), (&ours, 200)]).unwrap();
	assert_eq!((record.id, record.txid), (ID, ours.compute_txid()));
	assert_eq!(record.state, UNCONFIRMED);
	let failed = node.fundings.record(&lost).unwrap().unwrap();
	assert_eq!(failed.state, FundingState::Failed { lost_to: by });
	node.seen(&ours, Some(20)).unwrap();
	node.fundings.tip(100).unwrap();
	assert_eq!(node.state(), FundingState::Succeeded { confirmed_at: 20 });
}

#[test]
fn candidates_are_bounded_and_the_confirmed_one_stays() {
	let node = Node::new();
	let first = round(1);
	node.broadcast(&[(&first, 1)]).unwrap();
	node.seen(&first, Some(10)).unwrap();
	for number in 2..100 {
		node.broadcast(&[(&round(number), 1)]).unwrap();
	}
	let record = node.fundings.record(&ID).unwrap().unwrap();
	assert_eq!((record.candidates.len(), record.txid), (MAX_CANDIDATES, first.compute_txid()));
	assert!(record.share().is_some());
}
