//! A regtest chain that lives in memory.
//!
//! Blocks have real headers, merkle roots and coinbases; transactions are final, mature, solvent
//! and (feature `consensus`) correctly signed before they get into one. What a mempool may hold is
//! judged leniently, what a block may hold is not: a broken transaction that would be mined stops
//! the test.
//!
//! Not simulated: proof of work, fees as a condition for relay, coinbase maturity.

mod mempool;
mod rules;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
	Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction,
	TxIn, TxMerkleNode, TxOut, Txid, Witness,
};
use lightning::chain::{BlockLocator, Listen};

pub use rules::ChainError;

/// Seconds between two blocks: little, since LDK lets inbound payments expire by block time.
pub const BLOCK_INTERVAL_SECS: u32 = 1;

/// The chain. A handle: clones see the same blocks.
#[derive(Clone)]
pub struct SimChain(Arc<Mutex<State>>);

/// An unspent output and the height it was confirmed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
	/// What can be spent.
	pub output: TxOut,
	/// Height of the block that created it.
	pub height: u32,
}

struct State {
	seed: u64,
	/// The best chain; the index is the height.
	blocks: Vec<Block>,
	undo: Vec<Undo>,
	/// Every block that ever was, so that a listener on a stale branch can be led back.
	known: BTreeMap<BlockHash, (Header, u32)>,
	confirmed: BTreeMap<Txid, (Transaction, u32)>,
	coins: BTreeMap<OutPoint, Coin>,
	spenders: BTreeMap<OutPoint, Txid>,
	mempool: Vec<Transaction>,
	/// Paid out by the next coinbase.
	payouts: Vec<TxOut>,
	/// Makes the blocks after a reorganization differ from those before it.
	branch: u32,
}

#[derive(Default)]
struct Undo {
	spent: Vec<(OutPoint, Coin)>,
}

impl SimChain {
	/// A chain with nothing but regtest's genesis block. The seed goes into every coinbase.
	pub fn new(seed: u64) -> Self {
		let genesis = genesis_block(Network::Regtest);
		let known = BTreeMap::from([(genesis.block_hash(), (genesis.header, 0))]);
		SimChain(Arc::new(Mutex::new(State {
			seed,
			blocks: vec![genesis],
			undo: vec![Undo::default()],
			known,
			confirmed: BTreeMap::new(),
			coins: BTreeMap::new(),
			spenders: BTreeMap::new(),
			mempool: Vec::new(),
			payouts: Vec::new(),
			branch: 0,
		})))
	}

	/// Height of the best block.
	pub fn height(&self) -> u32 {
		self.state().height()
	}

	/// The best block, as LDK wants to be told of it.
	pub fn locator(&self) -> BlockLocator {
		let height = self.height();
		self.locator_at(height)
	}

	/// The block of the best chain at `height`, as a locator.
	pub fn locator_at(&self, height: u32) -> BlockLocator {
		BlockLocator::new(self.block(height).block_hash(), height)
	}

	/// The block of the best chain at `height`.
	pub fn block(&self, height: u32) -> Block {
		self.state().blocks[height as usize].clone()
	}

	/// Pays `sats` to `script` in the coinbase of the next block.
	pub fn pay_to(&self, script: ScriptBuf, sats: u64) {
		let output = TxOut { value: Amount::from_sat(sats), script_pubkey: script };
		self.state().payouts.push(output);
	}

	/// Mines one block with exactly these transactions, in this order.
	///
	/// # Failure Behavior and Persistence
	///
	/// On an error nothing was mined; the error names the transaction and what is wrong with it.
	pub fn mine(&self, txs: Vec<Transaction>) -> Result<Block, ChainError> {
		self.state().mine(txs)
	}

	/// Mines one block with everything in the mempool that may be mined now: known inputs, mature
	/// time locks, and of two that conflict the one that came first or paid for replacing it.
	///
	/// # Panics
	///
	/// When a transaction that may be mined turns out to be broken.
	pub fn mine_mempool(&self) -> Block {
		let mut state = self.state();
		let txs = state.mineable();
		match state.mine(txs) {
			Ok(block) => block,
			Err(e) => {
				drop(state);
				panic!("a broken transaction was broadcast: {e}")
			},
		}
	}

	/// Throws away the last `depth` blocks. Their transactions go back to the mempool.
	pub fn disconnect(&self, depth: u32) {
		self.state().disconnect(depth)
	}

	/// Offers a transaction to the mempool, the way nodes broadcast.
	pub fn submit(&self, tx: Transaction) {
		self.state().submit(tx)
	}

	/// What waits to be mined, oldest first.
	pub fn mempool(&self) -> Vec<Transaction> {
		self.state().mempool.clone()
	}

	/// Forgets everything that waits to be mined.
	pub fn clear_mempool(&self) {
		self.state().mempool.clear()
	}

	/// The unspent output, if there is one.
	pub fn coin(&self, outpoint: &OutPoint) -> Option<Coin> {
		self.state().coins.get(outpoint).cloned()
	}

	/// Unspent outputs that pay to `script`, without those that a mempool transaction spends.
	pub fn coins_of(&self, script: &ScriptBuf) -> Vec<(OutPoint, Coin)> {
		let state = self.state();
		let wanted = state
			.coins
			.iter()
			.filter(|(o, coin)| coin.output.script_pubkey == *script && !state.spent_in_mempool(o));
		wanted.map(|(o, c)| (*o, c.clone())).collect()
	}

	/// A transaction, confirmed or waiting.
	pub fn tx(&self, txid: &Txid) -> Option<Transaction> {
		self.state().find_tx(txid)
	}

	/// The confirmed transaction that spends `outpoint`.
	pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
		self.state().spenders.get(outpoint).copied()
	}

	/// How many blocks confirm `txid`; 0 when it is in none.
	pub fn confirmations(&self, txid: &Txid) -> u32 {
		let state = self.state();
		state.confirmed.get(txid).map_or(0, |(_, height)| state.height() - height + 1)
	}

	/// Leads a listener whose best block is `from` to the block at `upto`: out of a stale branch
	/// first, then block after block. Returns its new best block.
	pub fn catch_up(&self, listener: &dyn Listen, from: BlockHash, upto: u32) -> BlockHash {
		let (fork, mut best) = {
			let state = self.state();
			let (mut hash, mut height) = (from, state.known[&from].1);
			while state.blocks.get(height as usize).map(|b| b.block_hash()) != Some(hash) {
				hash = state.known[&hash].0.prev_blockhash;
				height -= 1;
			}
			(height, hash)
		};
		if best != from {
			listener.blocks_disconnected(self.locator_at(fork));
		}
		for height in fork + 1..=upto.min(self.height()) {
			let block = self.block(height);
			listener.block_connected(&block, height);
			best = block.block_hash();
		}
		best
	}

	/// Height of a block that was mined at any time, on whatever branch.
	pub fn height_of(&self, hash: &BlockHash) -> Option<u32> {
		self.state().known.get(hash).map(|(_, height)| *height)
	}

	fn state(&self) -> MutexGuard<'_, State> {
		// A test that panicked while it held this has nothing half done: see `State::mine`.
		self.0.lock().unwrap_or_else(|e| e.into_inner())
	}
}

impl State {
	fn height(&self) -> u32 {
		self.blocks.len() as u32 - 1
	}

	fn mine(&mut self, txs: Vec<Transaction>) -> Result<Block, ChainError> {
		let height = self.height() + 1;
		// Checked against a copy, so that an error leaves everything as it was.
		let mut coins = self.coins.clone();
		let mut undo = Undo::default();
		for tx in &txs {
			rules::check(tx, height, self.median_time_past(), &coins)?;
			for input in &tx.input {
				let spent = coins.remove(&input.previous_output).expect("checked");
				undo.spent.push((input.previous_output, spent));
			}
			add_outputs(&mut coins, tx, height);
		}
		let coinbase = self.coinbase(height);
		add_outputs(&mut coins, &coinbase, height);

		let prev = self.blocks.last().expect("genesis").header;
		let mut block = Block {
			header: Header {
				version: BlockVersion::ONE,
				prev_blockhash: prev.block_hash(),
				merkle_root: TxMerkleNode::all_zeros(),
				time: prev.time + BLOCK_INTERVAL_SECS,
				bits: CompactTarget::from_consensus(0x207f_ffff),
				nonce: self.branch,
			},
			txdata: std::iter::once(coinbase).chain(txs).collect(),
		};
		block.header.merkle_root = block.compute_merkle_root().expect("has a coinbase");

		self.coins = coins;
		self.payouts.clear();
		for tx in &block.txdata {
			self.confirmed.insert(tx.compute_txid(), (tx.clone(), height));
			for input in &tx.input {
				self.spenders.insert(input.previous_output, tx.compute_txid());
			}
		}
		self.known.insert(block.block_hash(), (block.header, height));
		self.blocks.push(block.clone());
		self.undo.push(undo);
		self.prune_mempool();
		Ok(block)
	}

	fn disconnect(&mut self, depth: u32) {
		let mut back = Vec::new();
		for _ in 0..depth {
			assert!(self.blocks.len() > 1, "the genesis block stays");
			let block = self.blocks.pop().expect("not empty");
			let undo = self.undo.pop().expect("as many as blocks");
			for tx in block.txdata.iter().rev() {
				let txid = tx.compute_txid();
				self.confirmed.remove(&txid);
				for vout in 0..tx.output.len() as u32 {
					self.coins.remove(&OutPoint { txid, vout });
				}
				for input in &tx.input {
					self.spenders.remove(&input.previous_output);
				}
			}
			// An output made and spent in the same block is in `undo` too, and must not come back.
			let made: Vec<Txid> = block.txdata.iter().map(|tx| tx.compute_txid()).collect();
			let spent = undo.spent.into_iter().filter(|(o, _)| !made.contains(&o.txid));
			self.coins.extend(spent);
			let mut txs = block.txdata;
			self.payouts.extend(txs.remove(0).output);
			back.splice(0..0, txs);
		}
		self.branch += 1;
		for tx in back {
			self.submit(tx);
		}
	}

	fn coinbase(&self, height: u32) -> Transaction {
		let mut tag = height.to_le_bytes().to_vec();
		tag.extend(self.seed.to_le_bytes());
		tag.extend(self.branch.to_le_bytes());
		Transaction {
			version: Version::TWO,
			lock_time: LockTime::ZERO,
			input: vec![TxIn {
				previous_output: OutPoint::null(),
				script_sig: ScriptBuf::from_bytes(tag),
				sequence: Sequence::MAX,
				witness: Witness::new(),
			}],
			output: self.payouts.clone(),
		}
	}

	fn median_time_past(&self) -> u32 {
		let mut times: Vec<u32> =
			self.blocks.iter().rev().take(11).map(|b| b.header.time).collect();
		times.sort_unstable();
		times[times.len() / 2]
	}

	fn find_tx(&self, txid: &Txid) -> Option<Transaction> {
		let waiting = || self.mempool.iter().find(|tx| tx.compute_txid() == *txid).cloned();
		self.confirmed.get(txid).map(|(tx, _)| tx.clone()).or_else(waiting)
	}
}

fn add_outputs(coins: &mut BTreeMap<OutPoint, Coin>, tx: &Transaction, height: u32) {
	let txid = tx.compute_txid();
	for (vout, output) in (0..).zip(&tx.output) {
		coins.insert(OutPoint { txid, vout }, Coin { output: output.clone(), height });
	}
}
