// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Decoders of this crate, for fuzzers.

use leyden_store::codec::{Law, StoredKind};
use leyden_store::{Key, Table, Timestamp};
use lightning_invoice::Currency;

use crate::invoice::{Checked, InvoiceRules};
use crate::records;

/// Returns everything that must hold of any bytes, by name.
pub fn laws() -> Vec<(&'static str, Law)> {
	let mut laws: Vec<_> = stored().iter().map(|kind| (kind.name, kind.rewrite)).collect();
	laws.push(("invoice", invoice));
	laws.push(("key parts", key_parts));
	laws
}

/// Returns every kind of record of this crate.
pub fn stored() -> Vec<StoredKind> {
	records::STORED.to_vec()
}

/// An invoice that is taken is taken again in the form in which it is kept, and means the same.
fn invoice(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
	let mut pairs = Vec::new();
	for network in [Currency::Bitcoin, Currency::BitcoinTestnet, Currency::Regtest] {
		let rules = InvoiceRules::on(network);
		for amount_msat in [1_000, 2_500_000, 2_000_000_000] {
			let check = |text: &str| rules.check(text, amount_msat, Timestamp(1_496_314_658_000));
			let Ok(checked) = check(text) else { continue };
			let shown = |checked: &Checked| {
				let Checked { text, payment_hash, expires_at } = checked;
				format!("{text} {payment_hash:?} {expires_at:?}").into_bytes()
			};
			let again = check(&checked.text);
			pairs.push((shown(&checked), again.map_or_else(|_| Vec::new(), |again| shown(&again))));
		}
	}
	pairs
}

/// Keys of any length and content end no process.
fn key_parts(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
	let key = Key::new(Table::new("fuzz"), bytes);
	let _ = (records::due_of(&key), records::id_of(&key), records::number_of(&key));
	Vec::new()
}
