//! What a transaction must satisfy to be in the next block.

use std::collections::BTreeMap;
use std::fmt;

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, Txid};

use super::Coin;

/// Why a transaction cannot be mined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainError {
	/// It spends an output that does not exist, or not any more.
	MissingInput {
		/// The transaction.
		txid: Txid,
		/// What it tries to spend.
		outpoint: OutPoint,
	},
	/// Its lock time has not come.
	NotFinal {
		/// The transaction.
		txid: Txid,
	},
	/// An input's relative lock time (BIP 68) has not come.
	NotMature {
		/// The transaction.
		txid: Txid,
		/// The input.
		outpoint: OutPoint,
	},
	/// It creates more than it spends.
	Overspends {
		/// The transaction.
		txid: Txid,
	},
	/// A script or signature does not verify.
	Script {
		/// The transaction.
		txid: Txid,
		/// What the interpreter said.
		reason: String,
	},
}

impl fmt::Display for ChainError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::MissingInput { txid, outpoint } => {
				write!(f, "{txid} spends {outpoint}, which is unknown or spent")
			},
			Self::NotFinal { txid } => write!(f, "{txid} is not final yet"),
			Self::NotMature { txid, outpoint } => {
				write!(f, "{txid} spends {outpoint} before its relative lock time")
			},
			Self::Overspends { txid } => write!(f, "{txid} creates more than it spends"),
			Self::Script { txid, reason } => write!(f, "{txid} does not verify: {reason}"),
		}
	}
}

impl std::error::Error for ChainError {}

/// All rules, for a block at `height` on top of `coins`.
pub(super) fn check(
	tx: &Transaction, height: u32, time: u32, coins: &BTreeMap<OutPoint, Coin>,
) -> Result<(), ChainError> {
	check_inputs(tx, coins)?;
	check_locks(tx, height, time, coins)?;
	check_amounts(tx, coins)?;
	check_scripts(tx, coins)
}

/// Whether the transaction only has to wait, or must go in: its inputs exist and its locks are
/// open.
pub(super) fn is_ripe(
	tx: &Transaction, height: u32, time: u32, coins: &BTreeMap<OutPoint, Coin>,
) -> bool {
	check_inputs(tx, coins).is_ok() && check_locks(tx, height, time, coins).is_ok()
}

fn check_inputs(tx: &Transaction, coins: &BTreeMap<OutPoint, Coin>) -> Result<(), ChainError> {
	let txid = tx.compute_txid();
	let mut seen = Vec::with_capacity(tx.input.len());
	for input in &tx.input {
		let outpoint = input.previous_output;
		if seen.contains(&outpoint) || !coins.contains_key(&outpoint) {
			return Err(ChainError::MissingInput { txid, outpoint });
		}
		seen.push(outpoint);
	}
	if tx.input.is_empty() {
		return Err(ChainError::MissingInput { txid, outpoint: OutPoint::null() });
	}
	Ok(())
}

fn check_locks(
	tx: &Transaction, height: u32, time: u32, coins: &BTreeMap<OutPoint, Coin>,
) -> Result<(), ChainError> {
	let txid = tx.compute_txid();
	let open = match tx.lock_time {
		LockTime::Blocks(h) => h.to_consensus_u32() < height,
		LockTime::Seconds(t) => t.to_consensus_u32() < time,
	};
	if !open && tx.input.iter().any(|i| i.sequence != Sequence::MAX) {
		return Err(ChainError::NotFinal { txid });
	}
	if tx.version.0 < 2 {
		return Ok(());
	}
	for input in &tx.input {
		// Time-based relative locks are used by nobody here, so they are never open.
		let blocks = match input.sequence.to_relative_lock_time() {
			None => continue,
			Some(bitcoin::relative::LockTime::Blocks(n)) => u32::from(n.value()),
			Some(bitcoin::relative::LockTime::Time(_)) => u32::MAX,
		};
		let outpoint = input.previous_output;
		let made = coins.get(&outpoint).map_or(height, |c| c.height);
		if made.saturating_add(blocks) > height {
			return Err(ChainError::NotMature { txid, outpoint });
		}
	}
	Ok(())
}

fn check_amounts(tx: &Transaction, coins: &BTreeMap<OutPoint, Coin>) -> Result<(), ChainError> {
	let value_in: Option<Amount> = tx
		.input
		.iter()
		.filter_map(|i| coins.get(&i.previous_output))
		.try_fold(Amount::ZERO, |sum, c| sum.checked_add(c.output.value));
	let value_out = tx.output.iter().try_fold(Amount::ZERO, |sum, out| sum.checked_add(out.value));
	match (value_in, value_out) {
		(Some(value_in), Some(value_out)) if value_in >= value_out => Ok(()),
		_ => Err(ChainError::Overspends { txid: tx.compute_txid() }),
	}
}

#[cfg(feature = "consensus")]
fn check_scripts(tx: &Transaction, coins: &BTreeMap<OutPoint, Coin>) -> Result<(), ChainError> {
	tx.verify(|outpoint| coins.get(outpoint).map(|c| c.output.clone()))
		.map_err(|e| ChainError::Script { txid: tx.compute_txid(), reason: format!("{e:?}") })
}

#[cfg(not(feature = "consensus"))]
fn check_scripts(_: &Transaction, _: &BTreeMap<OutPoint, Coin>) -> Result<(), ChainError> {
	Ok(())
}
