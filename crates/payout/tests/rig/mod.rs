//! A node that pays as it is told to, payees with invoices, and debts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(dead_code, unused_imports)]

mod invoices;
mod listing;
mod node;
mod world;

use std::sync::Arc;
use std::time::Duration;

use leyden_payout::*;
use leyden_store::{
	Batch, Key, ManualClock, MemoryMedium, Plan, RecordType, Store, Table, Timestamp, Value,
};

pub use invoices::{hash, preimage, settled, Like};
pub use listing::Listing;
pub use node::{foreign, FakeNode, How};
pub use world::World;

pub const START: Timestamp = Timestamp(1_700_000_000_000);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const SELLER: &[u8] = b"seller";
pub const NOTICES: Table = Table::new("notices");

/// A world with one debt that is owed, and its name.
pub fn owed() -> (World, DebtId) {
	owed_in(World::new())
}

/// A world, this one, with one debt that is owed, and its name.
pub fn owed_in(world: World) -> (World, DebtId) {
	world.owe(&world.bond());
	world.settle();
	let id = world.bond().id;
	(world, id)
}

/// A world with a debt that has failed with its last attempt to pay invoice 1, and its name.
pub fn failed() -> (World, DebtId) {
	let (world, id) = owed();
	world.node.then([How::Fail; 3]);
	world.submit(&id, &world.good(1)).unwrap();
	world.pass(10 * MINUTE);
	assert_eq!(world.state(&id), State::Failed);
	(world, id)
}

/// A world with so many debts, each with the invoice of its number.
pub fn invoiced(debts: u8) -> World {
	let world = World::new();
	for n in 1..=debts {
		world.owe(&bond(n));
	}
	world.settle();
	for n in 1..=debts {
		world.submit(&bond(n).id, &world.good(n.into())).unwrap();
	}
	world
}

/// A world with a debt whose attempt to pay invoice 1 is under way, its name, and the medium before there
/// was an invoice. Its store is known to be the newest copy of itself.
pub fn under_way_since(debts: u8) -> (World, DebtId, MemoryMedium) {
	let world = World::trusting();
	for n in 1..=debts {
		world.owe(&bond(n));
	}
	world.settle();
	let before = world.medium.snapshot();
	let id = world.bond().id;
	world.node.then([How::Hold]);
	world.submit(&id, &world.good(1)).unwrap();
	world.settle();
	(world, id, before)
}

pub fn bond(number: u8) -> NewDebt {
	NewDebt {
		id: DebtId::new("bond", &[number]),
		payee: SELLER.to_vec(),
		cause: "lost-dispute".to_owned(),
		amount_sat: 1000,
		node_share_sat: 500,
		source: Source::InHand,
		terms: terms(),
	}
}

pub fn terms() -> Terms {
	Terms {
		invoice_window: 15 * DAY,
		reminder_interval: 300 * Duration::from_secs(1),
		max_failed_attempts: 3,
		fee_cap_msat: 10_000,
	}
}

pub fn options() -> PayoutOptions {
	PayoutOptions {
		notices: Some(Arc::new(|notice: &Notice| {
			let text = format!("{:?} to {}", notice.news, String::from_utf8_lossy(&notice.payee));
			let mut batch = Batch::new();
			let _ = batch.append(NOTICES, b"", Value::new(RecordType(0x8000), 1, text));
			Plan::of(batch)
		})),
		..PayoutOptions::new(InvoiceRules::on(Currency::Regtest))
	}
}

pub fn open(store: &Arc<dyn Store>, clock: &Arc<ManualClock>) -> Payouts {
	let clock = Arc::<ManualClock>::clone(clock);
	Payouts::open(Arc::clone(store), clock, options()).unwrap()
}

/// A key of a table.
pub fn key(table: &'static str, bytes: impl Into<Vec<u8>>) -> Key {
	Key::new(Table::new(table), bytes.into())
}
