// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The invoices that may pay a debt.

use std::fmt;
use std::time::Duration;

use leyden_store::Timestamp;
use lightning_invoice::{Bolt11Invoice, Currency};

/// Longest invoice, in characters.
pub const MAX_INVOICE_CHARS: usize = 4096;

/// The scheme of an invoice as a URI.
const SCHEME: &str = "lightning:";

/// Rules for invoices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvoiceRules {
	/// The network that they are for.
	pub network: Currency,
	/// The time for which an invoice must still be good when it is given. Ten minutes unless set
	/// otherwise: most wallets make invoices that are good for an hour.
	pub least_life: Duration,
	/// The longest time for which an invoice may be good when it is given. 90 days unless set otherwise:
	/// while a debt has an invoice that is good, it does not come to an end.
	pub longest_life: Duration,
	/// The most blocks that the recipient may want for the last hop: the node's money is held for as
	/// long. 720 (five days) unless set otherwise.
	pub max_final_cltv_blocks: u64,
	/// The public keys of the node itself and its like: to pay oneself is no payment.
	pub own: Vec<[u8; 33]>,
}

/// The reason why an invoice is not accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum InvoiceError {
	/// The text is no BOLT11 invoice, or its signature is not good.
	Malformed,
	/// The invoice is for another network.
	Network,
	/// The invoice has an amount, and another one than what is owed.
	Amount {
		/// The amount that is owed, in millisatoshi.
		expected_msat: u64,
	},
	/// The invoice has expired, or will too soon.
	Expires,
	/// The invoice is good for too long.
	Outlives {
		/// The longest time for which it may be good.
		longest: Duration,
	},
	/// The recipient wants to hold the node's money for too long.
	FinalCltv {
		/// The most blocks that it may want.
		most: u64,
	},
	/// The invoice is the node's own.
	Own,
}

impl InvoiceRules {
	/// Makes the usual rules for a network.
	pub fn on(network: Currency) -> Self {
		let least_life = Duration::from_secs(600);
		let longest_life = Duration::from_secs(90 * 24 * 3600);
		Self { network, least_life, longest_life, max_final_cltv_blocks: 720, own: Vec::new() }
	}

	pub(crate) fn check(
		&self, text: &str, amount_msat: u64, now: Timestamp,
	) -> Result<Checked, InvoiceError> {
		let text = text.trim();
		// A wallet may give it as a URI, and a QR code in capitals.
		let text = match (text.get(..SCHEME.len()), text.get(SCHEME.len()..)) {
			(Some(scheme), Some(rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
			_ => text,
		};
		if text.len() > MAX_INVOICE_CHARS {
			return Err(InvoiceError::Malformed);
		}
		let invoice: Bolt11Invoice = text.parse().map_err(|_| InvoiceError::Malformed)?;
		if invoice.currency() != self.network {
			return Err(InvoiceError::Network);
		}
		if invoice.amount_milli_satoshis().is_some_and(|amount| amount != amount_msat) {
			return Err(InvoiceError::Amount { expected_msat: amount_msat });
		}
		let expires_at = invoice.duration_since_epoch().checked_add(invoice.expiry_time());
		let expires_at = Timestamp(0).after(expires_at.unwrap_or(Duration::MAX));
		if now.after(self.least_life) > expires_at {
			return Err(InvoiceError::Expires);
		}
		if expires_at > now.after(self.longest_life) {
			return Err(InvoiceError::Outlives { longest: self.longest_life });
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

/// An invoice that may be paid; without an amount, it is paid with what is owed.
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
			Self::Outlives { longest } => {
				let days = longest.as_secs() / (24 * 3600);
				write!(f, "the invoice must expire within {days} days: make another")
			},
			Self::FinalCltv { most } => {
				write!(f, "the invoice wants more than {most} blocks for its last hop")
			},
			Self::Own => f.write_str("the invoice is the node's own"),
		}
	}
}

impl std::error::Error for InvoiceError {}
