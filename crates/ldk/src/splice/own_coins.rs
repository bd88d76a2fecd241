// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The coins that a splice has already, for the contribution that takes the place of its own.

use bitcoin::{OutPoint, Psbt, ScriptBuf, Transaction};
use lightning::ln::funding::FundingContribution;
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::Readable;
use lightning::util::wallet_utils::{Utxo, WalletSourceSync};

use super::SpliceWallet;

/// The inputs of a contribution, and where its change goes, as a wallet that has nothing else.
///
/// The user's coin selection leaves out what is reserved, so a splice that is built anew finds its
/// own coins reserved for itself.
pub(super) struct OwnCoins<'a, W> {
	contribution: FundingContribution,
	wallet: &'a W,
}

impl<'a, W> OwnCoins<'a, W> {
	/// Reads them from the bytes of a contribution; `None` if there are none, or another version of
	/// LDK wrote them.
	pub(super) fn of(bytes: Option<&[u8]>, wallet: &'a W) -> Option<Self> {
		let contribution = FundingContribution::read(&mut bytes?).ok()?;
		Some(Self { contribution, wallet })
	}
}

impl<W: SpliceWallet> WalletSourceSync for OwnCoins<'_, W> {
	fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
		Ok(self.contribution.inputs().iter().map(|input| input.clone().into_utxo()).collect())
	}

	fn get_prevtx(&self, outpoint: OutPoint) -> Result<Transaction, ()> {
		self.wallet.transaction(&outpoint.txid).ok_or(())
	}

	fn get_change_script(&self) -> Result<ScriptBuf, ()> {
		let change = self.contribution.change_output().ok_or(())?;
		Ok(change.script_pubkey.clone())
	}

	/// The user's wallet signs.
	fn sign_psbt(&self, _: Psbt) -> Result<Transaction, ()> {
		Err(())
	}
}

/// A logger of a coin selection that says nothing: whether there are enough coins is answered.
pub(super) struct Silent;

impl Logger for Silent {
	fn log(&self, _: Record) {}
}
