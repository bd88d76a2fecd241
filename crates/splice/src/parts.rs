// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a splice consists of: who, what, with which coins.

use std::fmt;
use std::str::FromStr;

use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, TxOut};
use leyden_id::{ChannelId, ParseError};

/// The name of a splice for life, and its payment id: drawn at random when the user asks for it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SpliceId([u8; 32]);

impl SpliceId {
	/// The id with these bytes.
	pub const fn from_bytes(bytes: [u8; 32]) -> Self {
		Self(bytes)
	}

	/// Its bytes: LDK's `PaymentId`.
	pub fn as_bytes(&self) -> &[u8; 32] {
		&self.0
	}
}

impl fmt::Display for SpliceId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}", self.0.as_hex())
	}
}

impl fmt::Debug for SpliceId {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "SpliceId({self})")
	}
}

impl FromStr for SpliceId {
	type Err = ParseError;

	fn from_str(text: &str) -> Result<Self, ParseError> {
		<[u8; 32]>::from_hex(text).map(Self).map_err(|_| ParseError::NotHex { digits: 64 })
	}
}

/// Which channel: the ids that LDK's calls and lists want.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChannelRef {
	/// LDK's id of it.
	pub channel_id: ChannelId,
	/// The node's own id of it, which stays the same.
	pub user_channel_id: u128,
	/// Who is at the other end.
	pub counterparty: PublicKey,
}

/// What the user asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SpliceKind {
	/// Put this much into the channel, from the wallet.
	In {
		/// What the channel gains, in satoshi: the whole of it, however often it is built anew.
		amount_sat: u64,
	},
	/// Pay these from the channel.
	Out {
		/// The whole of what is paid.
		outputs: Vec<TxOut>,
	},
}

impl SpliceKind {
	/// `splice-in` or `splice-out`.
	pub fn name(&self) -> &'static str {
		match self {
			Self::In { .. } => "splice-in",
			Self::Out { .. } => "splice-out",
		}
	}
}

/// The fee rates that the user accepts, in satoshi per 1000 weight units.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FeeBand {
	/// What is offered.
	pub min_sat_per_kw: u64,
	/// The most that may be paid if the peer, or a replacement, wants more.
	pub max_sat_per_kw: u64,
}

/// What a contribution brings into a funding transaction. Two contributions with the same material
/// are the same splice, whatever their fee rates: LDK raises that of what it accepts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Material {
	inputs: Vec<OutPoint>,
	outputs: Vec<TxOut>,
}

impl Material {
	/// Of these, in any order. Change is not material.
	pub fn new(
		inputs: impl IntoIterator<Item = OutPoint>, outputs: impl IntoIterator<Item = TxOut>,
	) -> Self {
		let mut inputs: Vec<_> = inputs.into_iter().collect();
		let mut outputs: Vec<_> = outputs.into_iter().collect();
		inputs.sort_unstable();
		outputs.sort_unstable();
		Self { inputs, outputs }
	}

	/// The wallet's coins.
	pub fn inputs(&self) -> &[OutPoint] {
		&self.inputs
	}

	/// What is paid out of the channel.
	pub fn outputs(&self) -> &[TxOut] {
		&self.outputs
	}

	/// Nothing, which is part of everything and says nothing about whose it is.
	pub fn is_empty(&self) -> bool {
		self.inputs.is_empty() && self.outputs.is_empty()
	}

	/// Whether a transaction has all of it. A cooperative close, which spends the same channel,
	/// does not; neither does anything if there is nothing to look for.
	pub fn is_in(&self, transaction: &bitcoin::Transaction) -> bool {
		let spends = |o: &OutPoint| transaction.input.iter().any(|i| i.previous_output == *o);
		let mut outputs: Vec<&TxOut> = transaction.output.iter().collect();
		// Two equal outputs want two.
		let mut pays = |wanted: &TxOut| match outputs.iter().position(|o| *o == wanted) {
			Some(at) => {
				outputs.swap_remove(at);
				true
			},
			None => false,
		};
		!self.is_empty() && self.inputs.iter().all(spends) && self.outputs.iter().all(&mut pays)
	}
}

/// What is handed to LDK.
#[derive(Clone, Eq, PartialEq)]
pub struct Contribution {
	/// LDK's `FundingContribution`, in its own encoding.
	pub bytes: Vec<u8>,
	/// What it brings.
	pub material: Material,
	/// What it offers, in satoshi per 1000 weight units.
	pub sat_per_kw: u64,
}

impl fmt::Debug for Contribution {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		let Self { bytes, material, sat_per_kw } = self;
		write!(f, "Contribution {{ {} bytes, {sat_per_kw} sat/kW, {material:?} }}", bytes.len())
	}
}

#[cfg(test)]
mod tests {
	use bitcoin::absolute::LockTime;
	use bitcoin::hashes::Hash;
	use bitcoin::transaction::Version;
	use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, Txid, Witness};

	use super::*;

	fn coin(n: u8) -> OutPoint {
		OutPoint { txid: Txid::from_byte_array([n; 32]), vout: 0 }
	}

	fn pays(sat: u64, script: u8) -> TxOut {
		TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes(vec![script]) }
	}

	fn transaction(coins: &[u8], output: Vec<TxOut>) -> Transaction {
		let input = |n: &u8| TxIn {
			previous_output: coin(*n),
			script_sig: ScriptBuf::new(),
			sequence: Sequence::MAX,
			witness: Witness::new(),
		};
		let input = coins.iter().map(input).collect();
		Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
	}

	#[test]
	fn material_is_a_set_of_coins_and_payments() {
		let one = Material::new([coin(2), coin(1)], [pays(5, 1), pays(4, 1)]);
		assert_eq!(one, Material::new([coin(1), coin(2)], [pays(4, 1), pays(5, 1)]));
		assert_ne!(one, Material::new([coin(1), coin(2)], [pays(4, 1), pays(5, 2)]));
		assert_ne!(one, Material::new([coin(1)], [pays(4, 1), pays(5, 1)]));
	}

	#[test]
	fn a_close_is_not_taken_for_the_splice() {
		let out = Material::new([], [pays(5, 1)]);
		let close = transaction(&[9], vec![pays(7, 7), pays(8, 8)]);
		let splice = transaction(&[9], vec![pays(7, 7), pays(5, 1)]);
		assert!(!out.is_in(&close) && out.is_in(&splice));
		assert!(!Material::default().is_in(&splice), "nothing proves nothing");
		let twice = Material::new([], [pays(5, 1), pays(5, 1)]);
		assert!(!twice.is_in(&splice), "one payment is not two");
		let with_coin = Material::new([coin(1)], []);
		assert!(!with_coin.is_in(&splice) && with_coin.is_in(&transaction(&[9, 1], vec![])));
	}
}
