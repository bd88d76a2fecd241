//! The chain refuses what Bitcoin refuses, and repeats itself for the same seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Amount, Sequence, Transaction, TxOut, Txid};
use leyden_testkit::chain::ChainError;
use leyden_testkit::wallet::Wallet;
use leyden_testkit::{LdkNet, NodeConfig, SimChain};

fn funded() -> (SimChain, Wallet) {
	let chain = SimChain::new(1);
	let wallet = Wallet::new(SecretKey::from_slice(&[1; 32]).unwrap(), chain.clone());
	chain.pay_to(wallet.script(), 100_000);
	chain.mine_mempool();
	(chain, wallet)
}

fn payment(wallet: &Wallet) -> Transaction {
	wallet.pay(vec![TxOut { value: Amount::from_sat(50_000), script_pubkey: wallet.script() }])
}

#[test]
fn a_good_transaction_is_mined() {
	let (chain, wallet) = funded();
	let tx = payment(&wallet);
	chain.submit(tx.clone());
	let block = chain.mine_mempool();
	assert!(block.check_merkle_root());
	assert_eq!(chain.confirmations(&tx.compute_txid()), 1);
	assert_eq!(chain.spender(&tx.input[0].previous_output), Some(tx.compute_txid()));
	assert_eq!(wallet.balance_sats(), 99_000);
}

#[cfg(feature = "consensus")]
#[test]
fn a_broken_signature_is_refused() {
	let (chain, wallet) = funded();
	let mut tx = payment(&wallet);
	tx.output[0].value -= Amount::from_sat(1);
	let refused = chain.mine(vec![tx.clone()]).unwrap_err();
	assert!(matches!(refused, ChainError::Script { txid, .. } if txid == tx.compute_txid()));
	assert_eq!(chain.height(), 1, "nothing was mined");
	// And it stops the test of whoever broadcasts it.
	chain.submit(tx);
	let caught = leyden_testkit::panics::catch(|| chain.mine_mempool()).unwrap_err();
	assert!(caught.message.contains("does not verify"), "{}", caught.message);
}

#[test]
fn more_out_than_in_is_refused() {
	let (chain, wallet) = funded();
	let mut tx = payment(&wallet);
	tx.output[0].value = Amount::from_sat(200_000);
	let refused = chain.mine(vec![wallet.sign(tx)]).unwrap_err();
	assert!(matches!(refused, ChainError::Overspends { .. }));
}

#[test]
fn what_is_spent_cannot_be_spent_again() {
	let (chain, wallet) = funded();
	let tx = payment(&wallet);
	chain.mine(vec![tx.clone()]).unwrap();
	let refused = chain.mine(vec![tx]).unwrap_err();
	assert!(matches!(refused, ChainError::MissingInput { .. }));
}

#[test]
fn time_locks_hold_transactions_back() {
	let (chain, wallet) = funded();
	let mut absolute = payment(&wallet);
	absolute.lock_time = LockTime::from_height(5).unwrap();
	let absolute = wallet.sign(absolute);
	assert!(matches!(chain.mine(vec![absolute.clone()]), Err(ChainError::NotFinal { .. })));
	chain.submit(absolute.clone());
	while chain.confirmations(&absolute.compute_txid()) == 0 {
		chain.mine_mempool();
	}
	assert_eq!(chain.height(), 6, "the first block above the lock time");

	let mut relative = payment(&wallet);
	relative.input[0].sequence = Sequence::from_height(3);
	let relative = wallet.sign(relative);
	assert!(matches!(chain.mine(vec![relative.clone()]), Err(ChainError::NotMature { .. })));
	chain.submit(relative.clone());
	while chain.confirmations(&relative.compute_txid()) == 0 {
		chain.mine_mempool();
	}
	assert_eq!(chain.height(), 9, "three blocks on top of the output's");
}

#[test]
fn a_reorganization_gives_back_what_it_took() {
	let (chain, wallet) = funded();
	let tx = payment(&wallet);
	chain.submit(tx.clone());
	let old = chain.mine_mempool();
	chain.disconnect(1);
	assert_eq!(chain.confirmations(&tx.compute_txid()), 0);
	assert_eq!(chain.mempool(), vec![tx.clone()]);
	assert!(chain.coin(&tx.input[0].previous_output).is_some());
	let new = chain.mine_mempool();
	assert_ne!(old.block_hash(), new.block_hash());
	assert_eq!(chain.confirmations(&tx.compute_txid()), 1);
}

#[test]
fn the_same_seed_gives_the_same_transactions() {
	let run = |seed| -> Vec<Txid> {
		let mut net = LdkNet::new(seed);
		let [a, b, c] = [(); 3].map(|_| net.add_node(NodeConfig::default()));
		net.connect(a, b);
		net.connect(b, c);
		net.open_channel(a, b, 1_000_000);
		let channel = net.open_channel(b, c, 1_000_000);
		let sent = net.pay(a, c, 50_000_000);
		net.disconnect(b, c);
		net.claim(sent.hash);
		net.force_close(c, channel);
		net.mine(200);
		let blocks = (0..=net.chain.height()).map(|h| net.chain.block(h));
		blocks.flat_map(|b| b.txdata).map(|tx| tx.compute_txid()).collect()
	};
	let first = run(1);
	assert_eq!(first, run(1));
	assert_ne!(first, run(2));
}
