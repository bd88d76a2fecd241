//! An outbox whose process dies before and after every commit, and the same over a medium that lies.

// The number of deaths is printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_outbox::{
	Deadline, EndpointOptions, FeedCursor, Outbox, OutboxError, OutboxOptions, Reply,
};
use leyden_store::{ManualClock, Store, Timestamp};
use leyden_testkit::panics::catch;
use leyden_testkit::{
	count_records, crash_everywhere, live_through, Doom, LossyMedium, Media, Side,
};
use rig::*;

/// What the world has seen: no crash takes it back.
#[derive(Default)]
struct World {
	/// Causes whose commit was acknowledged.
	caused: BTreeSet<String>,
	/// What arrived, in order; the first time of each.
	arrived: Vec<String>,
	times: BTreeMap<String, u32>,
}

/// Two payments with two callbacks each and one that is refused, from a node that dies, to a server
/// that fails now and then.
fn scenario(doom: &Arc<Doom>, media: &Arc<dyn Media>) {
	let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
	let world = Mutex::new(World::default());
	live_through(doom, media, |store| live(store, &clock, &world));
	let world = world.into_inner().unwrap();
	let place = |text: &str| world.arrived.iter().position(|arrived| arrived == text);
	for payment in ["p1", "p2"] {
		let (first, second) = (format!("claimable {payment}"), format!("payment_sent {payment}"));
		assert!(place(&first).unwrap() < place(&second).unwrap(), "{:?}", world.arrived);
	}
	// Twice at most: one death.
	assert!(world.times.values().all(|times| *times <= 2), "{:?}", world.times);
	let store = media.open();
	let count = |table| count_records(&*store, table);
	assert_eq!((count("out_items"), count("out_dead"), count("ledger")), (5, 1, 5));
	for table in ["out_open", "out_due", "out_lanes", "out_urgent"] {
		assert_eq!(count(table), 0, "{table}");
	}
}

fn live(
	store: Arc<dyn Store>, clock: &Arc<ManualClock>, world: &Mutex<World>,
) -> Result<(), OutboxError> {
	let options = OutboxOptions::default();
	let outbox = Outbox::open(Arc::clone(&store), Arc::<ManualClock>::clone(clock), options)?;
	outbox.add_endpoint(LSP, EndpointOptions::default())?;
	for (kind, about) in [
		("claimable", "p1"),
		("claimable", "p2"),
		("bad", "p3"),
		("payment_sent", "p1"),
		("payment_sent", "p2"),
	] {
		let text = format!("{kind} {about}");
		// A cause whose commit was acknowledged does not come again.
		if world.lock().unwrap().caused.contains(&text) {
			continue;
		}
		let new = callback(kind, about).with_deadline(Deadline::at_height(HEIGHT + 9));
		outbox.enqueue(new)?.and(ledger(&text)).commit(&*store).wait()?;
		world.lock().unwrap().caused.insert(text);
	}
	for _ in 0..100 {
		let Some(claim) = outbox.claim(HEIGHT)? else {
			if outbox.feed(FeedCursor::default(), 10)?.items.iter().all(|item| {
				let open = leyden_store::Key::numbered(
					leyden_store::Table::new("out_open"),
					b"",
					item.sequence().get(),
				);
				store.get(&open).wait().is_ok_and(|open| open.is_none())
			}) {
				return Ok(());
			}
			clock.advance(Duration::from_secs(10));
			continue;
		};
		let text = text(&claim);
		// Down at first.
		if claim.failures() == 0 && text.starts_with("claimable p2") {
			claim.reply(Reply::status(503), HEIGHT, "not yet")?;
			continue;
		}
		if text.starts_with("bad") {
			claim.reply(Reply::status(422), HEIGHT, "never")?;
			continue;
		}
		{
			let mut world = world.lock().unwrap();
			assert!(world.caused.contains(&text), "sent before its cause was durable");
			*world.times.entry(text.clone()).or_default() += 1;
			if !world.arrived.contains(&text) {
				world.arrived.push(text);
			}
		}
		claim.reply(Reply::status(200), HEIGHT, "")?;
	}
	Ok(())
}

#[test]
fn what_is_owed_arrives_wherever_the_process_dies() {
	let deaths =
		crash_everywhere(|doom| scenario(doom, &(Arc::new(LossyMedium::keeping_every(1)) as _)));
	println!("outbox: {deaths} deaths");
}

/// The negative control.
#[test]
fn a_medium_that_acknowledges_before_it_keeps_is_caught() {
	let mut caught = 0;
	for write in 0..14 {
		let doom = Doom::at(write, Side::After);
		let media: Arc<dyn Media> = Arc::new(LossyMedium::keeping_every(4));
		caught += u32::from(catch(|| scenario(&doom, &media)).is_err());
	}
	println!("a lying medium: {caught} of 14 deaths showed a loss");
	assert!(caught >= 2, "{caught}");
}
