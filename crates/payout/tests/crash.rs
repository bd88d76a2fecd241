//! A process that dies before and after every commit and every call of the payer: paid exactly once, or
//! owed and visible.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod rig;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use leyden_payout::*;
use leyden_store::{ManualClock, Store};
use leyden_testkit::{crash_everywhere, Doom, FaultyStore, LossyMedium, Media, Side};
use rig::*;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Story {
	/// S1: taken, asked for, paid.
	Paid,
	/// S2: the payee gives no invoice.
	Forfeited,
	/// S5: an invoice that cannot be paid, and then one that can.
	Reopened,
	/// The node pays, and its answers are lost.
	Silent,
}

/// The payer of a process that dies with it.
struct Mortal {
	node: FakeNode,
	doom: Arc<Doom>,
	store: Arc<FaultyStore>,
}

impl Mortal {
	fn call<T>(&self, call: impl FnOnce() -> Reply<T>) -> Reply<T> {
		if self.store.is_dead() {
			return Reply::never();
		}
		match self.doom.next() {
			None => call(),
			Some(Side::Before) => {
				self.store.kill();
				Reply::never()
			},
			Some(Side::After) => {
				drop(call());
				self.store.kill();
				Reply::never()
			},
		}
	}
}

impl Payer for Mortal {
	fn settle_held(&self, payment_hash: &[u8; 32]) -> Reply<SettleReply> {
		self.call(|| self.node.settle_held(payment_hash))
	}

	fn pay(&self, order: &PayOrder) -> Reply<PayReply> {
		self.call(|| self.node.pay(order))
	}

	fn lookup(&self, order: &PayOrder) -> Reply<AttemptStatus> {
		self.call(|| self.node.lookup(order))
	}

	fn list_attempts(&self, debt: &DebtId) -> Reply<KnownPayments> {
		self.call(|| self.node.list_attempts(debt))
	}
}

fn debt(story: Story) -> NewDebt {
	let terms = match story {
		Story::Forfeited => {
			Terms { invoice_window: HOUR, reminder_interval: 10 * MINUTE, ..terms() }
		},
		_ => terms(),
	};
	NewDebt { source: Source::Held { payment_hash: [4; 32], amount_sat: 1000 }, terms, ..bond(1) }
}

/// The promises that a caller was given.
#[derive(Clone, Copy, Default)]
struct Promised {
	owed: bool,
	/// An invoice was taken.
	taken: bool,
	reminders_delivered: u32,
}

/// Runs one life, up to the end of the debt.
fn live(
	story: Story, payer: &Mortal, clock: &Arc<ManualClock>, promised: &Cell<Promised>,
) -> Result<(), PayoutError> {
	let store: Arc<dyn Store> = Arc::<FaultyStore>::clone(&payer.store);
	let shared = Arc::<ManualClock>::clone(clock);
	let payouts = Payouts::open(Arc::clone(&store), shared, options())?;
	let new = debt(story);
	let before = promised.get();
	let found = payouts.debt(&new.id)?;
	assert!(found.is_some() || !before.owed, "the debt is lost");
	if let Some(debt) = found {
		let taken = debt.has_invoice || debt.attempts > 0;
		assert!(taken || !before.taken, "the invoice is lost");
		assert!(debt.reminders_delivered >= before.reminders_delivered, "a reminder is lost");
	}
	payouts.add_debt(&new)?.commit(&*store).wait()?;
	let promise = |change: &dyn Fn(&mut Promised)| {
		let mut now = promised.get();
		change(&mut now);
		promised.set(now);
	};
	promise(&|promised| promised.owed = true);
	for _ in 0..2_000 {
		payouts.tick(payer, 100)?;
		let debt = payouts.debt(&new.id)?.ok_or(PayoutError::NoSuchDebt { debt: new.id })?;
		if debt.reminders_delivered < debt.reminders {
			payouts.reminder_delivered(&new.id)?.run(&*store)?;
			promise(&|promised| promised.reminders_delivered += 1);
		}
		let wants = match debt.state {
			State::Owed => story != Story::Forfeited && !debt.has_invoice && debt.reminders > 0,
			State::Failed => true,
			State::Decided => false,
			State::Paid | State::Kept | State::Forfeited | State::Void => return Ok(()),
		};
		if wants && debt.live.is_none() {
			// The payee gives an invoice again until it was taken.
			let number = if debt.state == State::Failed { 2 } else { 1 };
			let invoice = Like::good(number, 500, START).text();
			payouts.submit_invoice(&new.id, SELLER, &invoice)?;
			promise(&|promised| promised.taken = true);
		}
		clock.advance(Duration::from_secs(20));
	}
	panic!("it does not come to an end: {:?}", payouts.debt(&new.id));
}

fn scenario(story: Story, doom: &Arc<Doom>, media: &Arc<dyn Media>) -> Result<(), String> {
	let clock = Arc::new(ManualClock::new(START));
	let node = FakeNode::default();
	match story {
		Story::Reopened => node.then([How::Fail, How::Fail, How::Fail]),
		Story::Silent => node.then([How::SettleSilently]),
		_ => {},
	}
	let promised = Cell::default();
	for life in 1..=2 {
		let keeps = Arc::clone(media);
		let store = FaultyStore::new(media.open(), Arc::clone(doom));
		let store = Arc::new(store.after_each(move |_| keeps.committed()));
		let payer =
			Mortal { node: node.clone(), doom: Arc::clone(doom), store: Arc::clone(&store) };
		let ended = live(story, &payer, &clock, &promised);
		if !store.is_dead() {
			ended.map_err(|error| error.to_string())?;
			break;
		}
		assert!(life < 2, "one death, two lives");
		drop((payer, store));
		media.crash();
		clock.advance(Duration::from_secs(7));
	}
	let store = media.open();
	let payouts = open(&store, &clock);
	let id = debt(story).id;
	let found = payouts.debt(&id).unwrap().ok_or("the debt is lost")?;
	let expected = if story == Story::Forfeited { State::Forfeited } else { State::Paid };
	let paid = node.paid(&id);
	let is = |what: &str, is: bool| if is { Ok(()) } else { Err(format!("{what}: {found:?}")) };
	is("it ends otherwise", found.state == expected)?;
	is("it was not paid once", paid == usize::from(expected == State::Paid))?;
	is("it was paid twice", node.out(&id) == paid)?;
	is("it does not add up", payouts.audit().unwrap().is_empty())?;
	let told = told(&store);
	let count = |kind: &str| told.iter().filter(|told| told.starts_with(kind)).count();
	is("it was not told once", count("Paid") == paid)?;
	is("it was told and is not so", count("Forfeited") == usize::from(paid == 0))?;
	is("a reminder is lost", count("InvoiceWanted") == found.reminders as usize)?;
	Ok(())
}

fn told(store: &Arc<dyn Store>) -> Vec<String> {
	let page = store.scan(leyden_store::KeyRange::all(NOTICES), 10_000).wait().unwrap();
	let text = |record: leyden_store::Record| String::from_utf8(record.value.body.to_vec());
	page.records.into_iter().map(|(_, record)| text(record).unwrap()).collect()
}

#[test]
fn it_is_paid_once_wherever_the_process_dies() {
	for story in [Story::Paid, Story::Forfeited, Story::Reopened, Story::Silent] {
		let deaths = crash_everywhere(|doom| {
			let media: Arc<dyn Media> = Arc::new(LossyMedium::keeping_every(1));
			scenario(story, doom, &media)
				.unwrap_or_else(|what| panic!("{story:?} {doom:?}: {what}"));
		});
		assert!(deaths >= 20, "{story:?}: {deaths}");
	}
}

/// The control: a disk that has promised more than it keeps is caught.
#[test]
fn a_disk_that_lies_is_caught() {
	let (mut tried, mut caught) = (0, 0);
	for story in [Story::Forfeited, Story::Reopened] {
		let never = Doom::never();
		let honest: Arc<dyn Media> = Arc::new(LossyMedium::keeping_every(1));
		scenario(story, &never, &honest).unwrap();
		for write in 0..never.writes() {
			for side in [Side::Before, Side::After] {
				let media: Arc<dyn Media> = Arc::new(LossyMedium::keeping_every(9));
				let doom = Doom::at(write, side);
				let ended = {
					let run = std::panic::AssertUnwindSafe(|| scenario(story, &doom, &media));
					std::panic::catch_unwind(run)
				};
				tried += 1;
				caught += usize::from(!matches!(ended, Ok(Ok(()))));
			}
		}
	}
	assert!(caught > 0, "none of {tried} was caught");
}
