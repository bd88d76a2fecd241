//! Invoices of payees, and the preimages that pay them.

use std::time::Duration;

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use leyden_payout::*;
use leyden_store::Timestamp;
use lightning_invoice::{InvoiceBuilder, PaymentSecret};

use super::DAY;

/// The properties of an invoice.
#[derive(Clone)]
pub struct Like {
	pub number: u16,
	pub amount_msat: Option<u64>,
	pub network: Currency,
	pub made_at: Timestamp,
	pub lives: Duration,
	pub final_cltv: u64,
}

impl Like {
	pub fn good(number: u16, amount_sat: u64, now: Timestamp) -> Self {
		Self {
			number,
			amount_msat: Some(amount_sat * 1000),
			network: Currency::Regtest,
			made_at: now,
			lives: 30 * DAY,
			final_cltv: 144,
		}
	}

	pub fn text(&self) -> String {
		let hash = sha256::Hash::hash(&preimage(self.number));
		let key = SecretKey::from_slice(&[5; 32]).unwrap();
		let mut builder = InvoiceBuilder::new(self.network.clone())
			.description("share".to_owned())
			.payment_hash(lightning_invoice::PaymentHash(hash.to_byte_array()))
			.payment_secret(PaymentSecret([3; 32]))
			.duration_since_epoch(Duration::from_millis(self.made_at.0))
			.expiry_time(self.lives)
			.min_final_cltv_expiry_delta(self.final_cltv);
		if let Some(amount) = self.amount_msat {
			builder = builder.amount_milli_satoshis(amount);
		}
		let sign = |hash: &_| Secp256k1::new().sign_ecdsa_recoverable(hash, &key);
		builder.build_signed(sign).unwrap().to_string()
	}
}

/// Preimages are small numbers, so that they are found again.
pub fn preimage(number: u16) -> [u8; 32] {
	let mut preimage = [7; 32];
	preimage[..2].copy_from_slice(&number.to_be_bytes());
	preimage
}

/// The payment hash of an invoice.
pub fn hash(number: u16) -> [u8; 32] {
	sha256::Hash::hash(&preimage(number)).to_byte_array()
}

/// The status of an attempt that has paid an invoice, for nothing.
pub fn settled(number: u16) -> AttemptStatus {
	AttemptStatus::Settled { preimage: preimage(number), fee_msat: Some(0) }
}

pub fn preimage_of(hash: &[u8; 32]) -> [u8; 32] {
	(0..5_000)
		.map(preimage)
		.find(|preimage| sha256::Hash::hash(preimage).to_byte_array() == *hash)
		.expect("an invoice of this rig")
}
