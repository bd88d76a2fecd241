//! What waits for a block, and which of it may go into the next one.

use bitcoin::{Amount, OutPoint, Transaction};

use super::{add_outputs, rules, State};

impl State {
	pub(super) fn submit(&mut self, tx: Transaction) {
		let txid = tx.compute_txid();
		if self.find_tx(&txid).is_some() || tx.input.iter().any(|i| self.is_spent(i)) {
			return;
		}
		let rivals: Vec<usize> =
			(0..self.mempool.len()).filter(|i| conflict(&self.mempool[*i], &tx)).collect();
		// First come, first served, unless the newcomer pays more than all it would push out.
		let paid: Option<Amount> = rivals
			.iter()
			.map(|i| self.fee(&self.mempool[*i]))
			.try_fold(Amount::ZERO, |sum, fee| sum.checked_add(fee?));
		if !rivals.is_empty() && self.fee(&tx) <= paid {
			return;
		}
		for i in rivals.into_iter().rev() {
			self.mempool.remove(i);
		}
		self.mempool.push(tx);
	}

	/// In an order in which they can be in one block.
	pub(super) fn mineable(&self) -> Vec<Transaction> {
		let (height, time) = (self.height() + 1, self.median_time_past());
		let mut coins = self.coins.clone();
		let mut waiting: Vec<&Transaction> = self.mempool.iter().collect();
		let mut chosen = Vec::new();
		loop {
			let before = chosen.len();
			waiting.retain(|tx| {
				if !rules::is_ripe(tx, height, time, &coins) {
					return true;
				}
				for input in &tx.input {
					coins.remove(&input.previous_output);
				}
				add_outputs(&mut coins, tx, height);
				chosen.push((*tx).clone());
				false
			});
			// A child may have been broadcast before its parent.
			if chosen.len() == before {
				return chosen;
			}
		}
	}

	/// Drops what was mined, and what lost its inputs to something that was.
	pub(super) fn prune_mempool(&mut self) {
		let mempool = std::mem::take(&mut self.mempool);
		self.mempool = mempool
			.into_iter()
			.filter(|tx| {
				!self.confirmed.contains_key(&tx.compute_txid())
					&& !tx.input.iter().any(|i| self.is_spent(i))
			})
			.collect();
	}

	pub(super) fn spent_in_mempool(&self, outpoint: &OutPoint) -> bool {
		self.mempool.iter().flat_map(|tx| &tx.input).any(|i| i.previous_output == *outpoint)
	}

	fn is_spent(&self, input: &bitcoin::TxIn) -> bool {
		self.spenders.contains_key(&input.previous_output)
	}

	/// `None` when an input is unknown.
	fn fee(&self, tx: &Transaction) -> Option<Amount> {
		let mut value_in = Amount::ZERO;
		for input in &tx.input {
			let parent = self.find_tx(&input.previous_output.txid)?;
			value_in += parent.output.get(input.previous_output.vout as usize)?.value;
		}
		value_in.checked_sub(tx.output.iter().map(|o| o.value).sum())
	}
}

fn conflict(a: &Transaction, b: &Transaction) -> bool {
	a.input.iter().any(|x| b.input.iter().any(|y| x.previous_output == y.previous_output))
}
