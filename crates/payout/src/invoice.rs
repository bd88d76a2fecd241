// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Invoices that may pay a debt.

use std::fmt;
use std::time::Duration;

use leyden_store::Timestamp;
use lightning_invoice::{Bolt11Invoice, Currency};

/// Longest invoice, in characters.
pub const MAX_INVOICE_CHARS: usize = 4096;

/// What an invoice must be like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvoiceRules {
	/// On which network.
	pub network: Currency,
	/// How long it must still be good when it is given. An hour unless set otherwise.
	pub least_life: Duration,
	/// The most blocks that the recipient may want for itself: our money is held for as long. 720 (five
	/// days) unless set otherwise.
	pub max_final_cltv_blocks: u64,
	/// Our own nodes, by public key: paying oneself is no payment.
	pub own: Vec<[u8; 33]>,
}

/// Why an invoice is not taken.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum InvoiceError {
	/// It cannot be read, or its signature is not good.
	Malformed,
	/// It is for another network.
	Network,
	/// It is not for exactly what is owed.
	Amount {
		/// What it should be for, in millisatoshi.
		expected_msat: u64,
	},
	/// It has expired, or will too soon.
	Expires,
	/// The recipient wants to hold our money for too long.
	FinalCltv {
		/// The most blocks that it may want.
		most: u64,
	},
	/// It is ours.
	Own,
}

impl InvoiceRules {
	/// What is usual, on this network.
	pub fn on(network: Currency) -> Self {
		let least_life = Duration::from_secs(3600);
		Self { network, least_life, max_final_cltv_blocks: 720, own: Vec::new() }
	}

	pub(crate) fn check(
		&self, text: &str, amount_msat: u64, now: Timestamp,
	) -> Result<Checked, InvoiceError> {
		let text = text.trim();
		if text.len() > MAX_INVOICE_CHARS {
			return Err(InvoiceError::Malformed);
		}
		let invoice: Bolt11Invoice = text.parse().map_err(|_| InvoiceError::Malformed)?;
		if invoice.currency() != self.network {
			return Err(InvoiceError::Network);
		}
		if invoice.amount_milli_satoshis() != Some(amount_msat) {
			return Err(InvoiceError::Amount { expected_msat: amount_msat });
		}
		let expires_at = invoice.duration_since_epoch().checked_add(invoice.expiry_time());
		let expires_at = Timestamp(0).after(expires_at.unwrap_or(Duration::MAX));
		if now.after(self.least_life) > expires_at {
			return Err(InvoiceError::Expires);
		}
		if invoice.min_final_cltv_expiry_delta() > self.max_final_cltv_blocks {
			return Err(InvoiceError::FinalCltv { most: self.max_final_cltv_blocks });
		}
		if self.own.contains(&invoice.get_payee_pub_key().serialize()) {
			return Err(InvoiceError::Own);
		}
		let payment_hash = invoice.payment_hash().0;
		Ok(Checked { text: invoice.to_string(), payment_hash, expires_at })
	}
}

/// An invoice that may be paid.
pub(crate) struct Checked {
	pub(crate) text: String,
	pub(crate) payment_hash: [u8; 32],
	pub(crate) expires_at: Timestamp,
}

impl fmt::Display for InvoiceError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Malformed => f.write_str("this is no BOLT11 invoice"),
			Self::Network => f.write_str("the invoice is for another network"),
			Self::Amount { expected_msat } => {
				write!(f, "the invoice must be for exactly {expected_msat} msat")
			},
			Self::Expires => f.write_str("the invoice has expired, or will too soon: make another"),
			Self::FinalCltv { most } => {
				write!(f, "the invoice wants more than {most} blocks for its last hop")
			},
			Self::Own => f.write_str("the invoice is the node's own"),
		}
	}
}

impl std::error::Error for InvoiceError {}
