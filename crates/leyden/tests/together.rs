//! Debts, callbacks and your own records on one store: what belongs together is one commit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use leyden::outbox::{CallbackId, EndpointOptions, NewCallback, Outbox, OutboxOptions, Verdict};
use leyden::payout::{
	Currency, DebtId, InvoiceRules, NewDebt, News, Notice, PayoutOptions, Payouts, Source, State,
	Terms,
};
use leyden::store::{
	Batch, Clock, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, Store, Timestamp,
};
use leyden_testkit::bonds::Down;
use leyden_testkit::{CountingStore, Counts};

const MINUTE: Duration = Duration::from_secs(60);
const CLIENTS: &str = "clients";

/// A reminder is a callback in the outbox, enqueued in the commit that counts it: it costs no commit of
/// its own, there is one for each reminder, and when it was taken the debt knows.
#[test]
fn a_reminder_is_a_callback_in_the_same_commit() {
	let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
	let memory = MemoryStore::open(&MemoryMedium::new(), Namespace::default()).unwrap();
	let counting = Arc::new(CountingStore::new(Arc::new(memory)));
	let store: Arc<dyn Store> = Arc::<CountingStore>::clone(&counting);
	let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
	let outbox = Outbox::open(Arc::clone(&store), Arc::clone(&time), OutboxOptions::default());
	let outbox = outbox.unwrap();
	outbox.add_endpoint(CLIENTS, EndpointOptions::default()).unwrap();
	let sends = outbox.clone();
	let told = Arc::new(OnceLock::new());
	let failed = Arc::clone(&told);
	let options = PayoutOptions {
		notices: Some(Arc::new(move |notice: &Notice| {
			let News::InvoiceWanted { number } = notice.news else {
				return Plan::of(Batch::new());
			};
			// The same reminder has the same id, however often it is planned.
			let about = notice.debt.as_bytes();
			let id = CallbackId::new("invoice_wanted", about, number.into());
			let body = format!("{} sat", notice.share_sat);
			let new = NewCallback::new(id, "invoice_wanted", CLIENTS, *about, body);
			match new.and_then(|new| sends.enqueue(new)) {
				Ok(plan) => plan.map(|_| ()),
				Err(error) => {
					let _ = failed.set(error.to_string());
					Plan::of(Batch::new())
				},
			}
		})),
		..PayoutOptions::new(InvoiceRules::on(Currency::Regtest))
	};
	let payouts = Payouts::open(Arc::clone(&store), time, options).unwrap();
	let new = NewDebt {
		id: DebtId::new("bond", b"order 1"),
		payee: b"seller".to_vec(),
		cause: "lost-dispute".to_owned(),
		amount_sat: 1_000,
		node_share_sat: 500,
		source: Source::InHand,
		terms: Terms {
			invoice_window: 3600 * MINUTE,
			reminder_interval: 10 * MINUTE,
			max_failed_attempts: 3,
			fee_cap_msat: 1,
		},
	};
	payouts.add_debt(&new).unwrap().commit(&*store).wait().unwrap();
	for number in 1..=3 {
		let cost = counting.count(|| assert_eq!(payouts.tick(&Down, 10).unwrap().changes, 1));
		let Counts { commits, .. } = cost;
		// The clock is written down now and then, lazily.
		assert!(commits <= 2, "{cost:?}");
		let again = payouts.tick(&Down, 10).unwrap();
		assert_eq!(again.changes, 0);
		let page = outbox.feed(Default::default(), 10).unwrap();
		assert_eq!(page.items.len(), number, "one callback for each reminder");
		let claim = outbox.claim(1).unwrap().unwrap();
		assert_eq!(claim.callback().payload(), b"500 sat");
		claim.settle(Verdict::Done, leyden::outbox::TryOutcome::Taken, "").unwrap();
		payouts.reminder_delivered(&new.id).unwrap().run(&*store).unwrap();
		clock.advance(10 * MINUTE);
	}
	let debt = payouts.debt(&new.id).unwrap().unwrap();
	assert_eq!((debt.state, debt.reminders, debt.reminders_delivered), (State::Owed, 3, 3));
	assert!(told.get().is_none(), "{told:?}");
}
