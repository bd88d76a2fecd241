//! A small p2wpkh wallet: one key, whose coins are whatever the chain says they are.
//!
//! It keeps nothing on disk. Coins promised to a transaction that was not broadcast yet are held in
//! memory only, as a real wallet's lock would be.

use std::collections::BTreeSet;
use std::sync::Mutex;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
	Amount, CompressedPublicKey, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
	Txid, WPubkeyHash, Witness,
};
use leyden_ldk::SpliceWallet;
use leyden_splice::{InputReserver, SpliceId};
use lightning::util::wallet_utils::{Utxo, WalletSourceSync};

use crate::chain::SimChain;

/// What every transaction of this wallet pays to the miner.
pub const FEE_SATS: u64 = 1_000;
/// Change below this is left to the miner.
pub const DUST_SATS: u64 = 1_000;

/// One node's coins.
pub struct Wallet {
	key: SecretKey,
	chain: SimChain,
	secp: Secp256k1<All>,
	held: Mutex<BTreeSet<OutPoint>>,
}

impl Wallet {
	/// The wallet of `key`.
	pub fn new(key: SecretKey, chain: SimChain) -> Self {
		Wallet { key, chain, secp: Secp256k1::new(), held: Mutex::new(BTreeSet::new()) }
	}

	/// Where its coins are.
	pub fn script(&self) -> ScriptBuf {
		ScriptBuf::new_p2wpkh(&self.pubkey_hash())
	}

	/// What it can spend, without what waits in the mempool.
	pub fn balance_sats(&self) -> u64 {
		self.chain.coins_of(&self.script()).iter().map(|(_, c)| c.output.value.to_sat()).sum()
	}

	/// A signed transaction with `outputs` first and change last. Its inputs are held from now on.
	///
	/// # Panics
	///
	/// When there are not enough coins.
	pub fn pay(&self, outputs: Vec<TxOut>) -> Transaction {
		let wanted: Amount = outputs.iter().map(|o| o.value).sum();
		let wanted = wanted + Amount::from_sat(FEE_SATS);
		let mut tx = Transaction {
			version: Version::TWO,
			lock_time: LockTime::ZERO,
			input: Vec::new(),
			output: outputs,
		};
		let mut found = Amount::ZERO;
		for (outpoint, coin) in self.free_coins() {
			if found >= wanted {
				break;
			}
			found += coin.output.value;
			tx.input.push(TxIn {
				previous_output: outpoint,
				script_sig: ScriptBuf::new(),
				sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
				witness: Witness::new(),
			});
		}
		assert!(found >= wanted, "the wallet has {found} and needs {wanted}");
		let change = found - wanted;
		if change >= Amount::from_sat(DUST_SATS) {
			tx.output.push(TxOut { value: change, script_pubkey: self.script() });
		}
		self.held.lock().unwrap().extend(tx.input.iter().map(|i| i.previous_output));
		self.sign(tx)
	}

	/// A signed transaction that spends these coins to the wallet itself, held or not.
	///
	/// # Panics
	///
	/// When one is not the wallet's, or they do not pay the fee.
	pub fn spend(&self, coins: &[OutPoint]) -> Transaction {
		let value = |coin: &OutPoint| self.output(coin).expect("a coin").value;
		let found: Amount = coins.iter().map(value).sum();
		let input = |previous_output: &OutPoint| TxIn {
			previous_output: *previous_output,
			script_sig: ScriptBuf::new(),
			sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
			witness: Witness::new(),
		};
		let value = found - Amount::from_sat(FEE_SATS);
		self.sign(Transaction {
			version: Version::TWO,
			lock_time: LockTime::ZERO,
			input: coins.iter().map(input).collect(),
			output: vec![TxOut { value, script_pubkey: self.script() }],
		})
	}

	/// Signs every input that is this wallet's and leaves the others alone.
	pub fn sign(&self, mut tx: Transaction) -> Transaction {
		let (script, pubkey) = (self.script(), self.key.public_key(&self.secp));
		for i in 0..tx.input.len() {
			let Some(output) = self.output(&tx.input[i].previous_output) else { continue };
			if output.script_pubkey != script {
				continue;
			}
			let hash = SighashCache::new(&tx)
				.p2wpkh_signature_hash(i, &script, output.value, EcdsaSighashType::All)
				.expect("the input exists");
			let message = Message::from_digest(hash.to_byte_array());
			let signature = bitcoin::ecdsa::Signature {
				signature: self.secp.sign_ecdsa_low_r(&message, &self.key),
				sighash_type: EcdsaSighashType::All,
			};
			tx.input[i].witness = Witness::p2wpkh(&signature, &pubkey);
		}
		tx
	}

	fn free_coins(&self) -> Vec<(OutPoint, crate::chain::Coin)> {
		let held = self.held.lock().unwrap();
		let mut coins = self.chain.coins_of(&self.script());
		coins.retain(|(outpoint, _)| !held.contains(outpoint));
		coins
	}

	fn output(&self, outpoint: &OutPoint) -> Option<TxOut> {
		self.chain.tx(&outpoint.txid)?.output.get(outpoint.vout as usize).cloned()
	}

	fn pubkey_hash(&self) -> WPubkeyHash {
		CompressedPublicKey(self.key.public_key(&self.secp)).wpubkey_hash()
	}
}

impl SpliceWallet for Wallet {
	fn is_unspent(&self, coin: &OutPoint) -> bool {
		self.chain.coins_of(&self.script()).iter().any(|(outpoint, _)| outpoint == coin)
	}

	fn spender(&self, coin: &OutPoint) -> Option<Txid> {
		let spends = |tx: &Transaction| tx.input.iter().any(|i| i.previous_output == *coin);
		let waiting = || self.chain.mempool().into_iter().find(spends).map(|tx| tx.compute_txid());
		self.chain.spender(coin).or_else(waiting)
	}

	fn transaction(&self, txid: &Txid) -> Option<Transaction> {
		self.chain.tx(txid)
	}
}

/// Reserved coins are held, as those of a transaction that was not broadcast yet.
impl InputReserver for Wallet {
	fn reserve(&self, _: &SpliceId, inputs: &[OutPoint]) {
		self.held.lock().unwrap().extend(inputs);
	}

	fn release(&self, _: &SpliceId, inputs: &[OutPoint]) {
		let mut held = self.held.lock().unwrap();
		for input in inputs {
			held.remove(input);
		}
	}
}

impl WalletSourceSync for Wallet {
	fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
		let hash = self.pubkey_hash();
		let coins = self.free_coins().into_iter();
		Ok(coins.map(|(o, c)| Utxo::new_v0_p2wpkh(o, c.output.value, &hash)).collect())
	}

	fn get_prevtx(&self, outpoint: OutPoint) -> Result<Transaction, ()> {
		self.chain.tx(&outpoint.txid).ok_or(())
	}

	fn get_change_script(&self) -> Result<ScriptBuf, ()> {
		Ok(self.script())
	}

	fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
		Ok(self.sign(psbt.extract_tx_unchecked_fee_rate()))
	}
}
