// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What a look at the debts costs, with few at rest and with many, on SQLite: of all of them, so many are
//! due.

#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leyden_backends::sqlite::SqliteStore;
use leyden_bench::{is_test, ratios};
use leyden_payout::{
	Added, AttemptStatus, Currency, DebtId, InvoiceRules, NewDebt, PayOrder, PayReply, Payer,
	PayoutOptions, Payouts, Reply, SettleReply, Source, Terms,
};
use leyden_store::{ManualClock, Namespace, Store, Timestamp};

fn main() {
	let dir = tempfile::tempdir().expect("a directory");
	let (rounds, few, many, due) =
		if is_test() { (1, 10, 50, 5) } else { (7, 1_000, 100_000, 100) };
	let mut small = Debts::open(&dir.path().join("few"), few);
	let mut large = Debts::open(&dir.path().join("many"), many);
	let ratio = ratios(rounds, &mut || small.look(due), &mut || large.look(due));
	let what = format!("debts looked after: {few} at rest / {many} at rest, {due} due");
	ratio.print(&what, "at most 1.5x");
}

struct Debts {
	store: Arc<dyn Store>,
	payouts: Payouts,
	next: u64,
}

/// A node that nobody asks anything.
struct Nobody;

impl Payer for Nobody {
	fn settle_held(&self, _: &[u8; 32]) -> Reply<SettleReply> {
		Reply::never()
	}

	fn pay(&self, _: &PayOrder) -> Reply<PayReply> {
		Reply::never()
	}

	fn lookup(&self, _: &PayOrder) -> Reply<AttemptStatus> {
		Reply::never()
	}
}

impl Debts {
	/// With so many debts whose creditors were reminded, and rest until the next time.
	fn open(path: &Path, at_rest: u64) -> Self {
		let store: Arc<dyn Store> =
			Arc::new(SqliteStore::open(path, Namespace::default()).expect("opens"));
		let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
		let options = PayoutOptions::new(InvoiceRules::on(Currency::Regtest));
		let payouts = Payouts::open(Arc::clone(&store), clock, options).expect("opens");
		let mut debts = Self { store, payouts, next: 0 };
		debts.owe(at_rest);
		while debts.payouts.tick(&Nobody, 1_000).expect("the store").changes > 0 {}
		debts
	}

	fn owe(&mut self, count: u64) {
		let mut tickets = Vec::new();
		for _ in 0..count {
			self.next += 1;
			let new = NewDebt {
				id: DebtId::new("bench", &self.next.to_be_bytes()),
				payee: self.next.to_be_bytes().to_vec(),
				cause: String::new(),
				amount_sat: 1_000,
				node_share_sat: 500,
				source: Source::InHand,
				terms: Terms {
					invoice_window: Duration::from_secs(15 * 24 * 3600),
					reminder_interval: Duration::from_secs(3600),
					max_failed_attempts: 5,
					fee_cap_msat: 1_000,
				},
			};
			tickets.push(self.payouts.add_debt(&new).expect("good").commit(&*self.store));
		}
		for ticket in tickets {
			let _: Added = ticket.wait().expect("the store");
		}
	}

	/// So many are due and looked after: reminded, each in a commit of its own. Answers how many a second.
	fn look(&mut self, due: u64) -> f64 {
		self.owe(due);
		let begun = Instant::now();
		let ticked = self.payouts.tick(&Nobody, 1_000).expect("the store");
		assert_eq!(ticked.changes as u64, due);
		due as f64 / begun.elapsed().as_secs_f64()
	}
}
