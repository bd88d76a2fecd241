//! Blocks, and who gets to see them.

use super::*;

use bitcoin::{Transaction, Txid};

/// Which halves of a node a new block is fed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
	/// Chain monitor first, then the manager, as LDK asks for.
	Both,
	/// The chain monitor only.
	Monitors,
	/// The manager only.
	Manager,
	/// Neither.
	Nothing,
}

impl LdkNet {
	/// Mines `count` blocks with what waits in the mempool, and settles after each.
	pub fn mine(&mut self, count: u32) {
		for _ in 0..count {
			self.chain.mine_mempool();
			self.feed_all();
			self.settle();
		}
	}

	/// Mines one block with exactly these transactions, and settles.
	///
	/// # Panics
	///
	/// When one of them may not be mined.
	pub fn mine_txs(&mut self, txs: Vec<Transaction>) {
		self.chain.mine(txs).unwrap_or_else(|e| panic!("{e}"));
		self.feed_all();
		self.settle();
	}

	/// Mines until `done`, and returns how many blocks that took.
	///
	/// # Panics
	///
	/// After `limit` blocks.
	pub fn mine_until(&mut self, limit: u32, mut done: impl FnMut(&LdkNet) -> bool) -> u32 {
		for mined in 0..=limit {
			if done(self) {
				return mined;
			}
			self.mine(1);
		}
		panic!("still not done after {limit} blocks; complaints: {:?}", self.complaints);
	}

	/// Mines until `txid` has `confirmations`.
	pub fn confirm(&mut self, txid: Txid, confirmations: u32) {
		self.mine_until(300, |net| net.chain.confirmations(&txid) >= confirmations);
	}

	/// Mines past the expiry of every HTLC that is pending now.
	pub fn mine_past_expiry(&mut self) {
		let running = (0..self.len()).filter(|n| self.is_running(*n));
		let channels: Vec<_> = running.flat_map(|n| self.node(n).channels()).collect();
		let outbound = channels.iter().flat_map(|c| &c.pending_outbound_htlcs);
		let inbound = channels.iter().flat_map(|c| &c.pending_inbound_htlcs);
		let expiries = outbound.map(|h| h.cltv_expiry).chain(inbound.map(|h| h.cltv_expiry));
		let last = expiries.max().unwrap_or(0);
		while self.chain.height() <= last + EXPIRY_GRACE_BLOCKS {
			self.mine(1);
		}
	}

	/// Replaces the last `depth` blocks by `depth + 1` others, into the first of which goes
	/// whatever the mempool then holds, and settles.
	pub fn reorg(&mut self, depth: u32) {
		self.chain.disconnect(depth);
		for _ in 0..=depth {
			self.chain.mine_mempool();
		}
		self.feed_all();
		self.settle();
	}

	/// Replaces the last `depth` blocks by these, which must be more, and settles. What was in the
	/// old ones and is not in these waits in the mempool.
	///
	/// # Panics
	///
	/// When a transaction may not be mined, or there are not more blocks than before.
	pub fn reorg_to(&mut self, depth: u32, blocks: Vec<Vec<Transaction>>) {
		assert!(blocks.len() > depth as usize, "the longer chain wins");
		self.chain.disconnect(depth);
		for txs in blocks {
			self.chain.mine(txs).unwrap_or_else(|e| panic!("{e}"));
		}
		self.feed_all();
		self.settle();
	}

	/// From now on, new blocks go to these halves of the node.
	pub fn set_feed(&mut self, n: Idx, feed: Feed) {
		self.slots[n].feed = feed;
	}

	/// Feeds the node's chain monitor, up to `height` at most.
	pub fn feed_monitors(&self, n: Idx, height: u32) {
		self.node(n).feed_monitors(height);
	}

	/// Feeds the node's manager, up to `height` at most.
	pub fn feed_manager(&self, n: Idx, height: u32) {
		self.node(n).feed_manager(height);
	}

	/// Feeds both halves of the node up to the tip, paused or not. Handles no events.
	pub fn sync(&self, n: Idx) {
		let height = self.chain.height();
		self.sync_to(n, height);
	}

	/// Feeds both halves of the node up to `height`. Handles no events.
	pub fn sync_to(&self, n: Idx, height: u32) {
		self.feed_monitors(n, height);
		self.feed_manager(n, height);
	}

	fn feed_all(&mut self) {
		let height = self.chain.height();
		for n in 0..self.len() {
			if !self.takes_part(n) {
				continue;
			}
			match self.slots[n].feed {
				Feed::Both => self.sync(n),
				Feed::Monitors => self.feed_monitors(n, height),
				Feed::Manager => self.feed_manager(n, height),
				Feed::Nothing => {},
			}
		}
	}
}

/// LDK waits this long after an expiry before it goes on chain.
const EXPIRY_GRACE_BLOCKS: u32 = 3;
