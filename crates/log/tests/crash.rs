//! A log scenario with three consumers that dies before and after every commit (P1 to P6), and the
//! same over a medium that lies.

// The number of deaths is printed, for those who run it with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{event, Process, STREAM};
use leyden_log::{
	Appended, Consumer, ConsumerOptions, LogError, LogIndex, LogOptions, LogReader, OnExhausted,
	Retention, RetryPolicy, Start,
};
use leyden_store::{
	Batch, Key, ManualClock, MemoryMedium, MemoryStore, Namespace, Plan, RecordType, Store,
	StoreError, Table, Timestamp, Value,
};
use leyden_testkit::panics::catch;
use leyden_testkit::{crash_everywhere, Doom, FaultyStore, LossyMedium, Side};

const EVENTS: u64 = 12;
const LEDGER: Table = Table::new("ledger");
const CONSUMERS: [&str; 3] = ["plain", "ledger", "picky"];

/// What the world outside was told and did; it does not die with the process.
#[derive(Default)]
struct World {
	/// Appends that were acknowledged, by event.
	appended: BTreeMap<u64, u64>,
	/// Acks that were acknowledged, by consumer.
	acked: BTreeMap<&'static str, BTreeSet<u64>>,
	/// What was delivered in this life, by consumer and lane.
	delivered: BTreeMap<(&'static str, u8), Vec<u64>>,
	/// How far the picky consumer has got with what it gives up.
	given_up: BTreeSet<u64>,
}

fn lane(event: u64) -> u8 {
	(event % 3) as u8
}

fn scenario(doom: &Arc<Doom>, medium: &LossyMedium) {
	let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
	let world = Mutex::new(World::default());
	let mut lives = 0;
	loop {
		lives += 1;
		let inner = MemoryStore::open(&medium.live(), Namespace::default()).unwrap();
		let inner: Arc<dyn Store> = Arc::new(inner);
		check(&inner, &world.lock().unwrap());
		world.lock().unwrap().delivered.clear();
		let keeps = medium.clone();
		let faulty =
			FaultyStore::new(inner, Arc::clone(doom)).after_each(move || keeps.committed());
		let store = Arc::new(faulty);
		let ended = live(Arc::<FaultyStore>::clone(&store), &clock, &world);
		if !store.is_dead() {
			ended.unwrap();
			break;
		}
		medium.crash();
	}
	assert!(lives <= 2, "one death, two lives");
	finished(&medium.live(), &world.lock().unwrap());
}

/// One life: appends what the world has not seen appended, and lets the consumers work until they
/// are done.
fn live(
	store: Arc<dyn Store>, clock: &Arc<ManualClock>, world: &Mutex<World>,
) -> Result<(), LogError> {
	let options = LogOptions {
		history: Retention { min_count: 3, min_age: Duration::ZERO },
		..LogOptions::default()
	};
	let log =
		leyden_log::EventLog::open(Arc::clone(&store), STREAM, Arc::clone(clock) as _, options)?;
	let open = |name, on_exhausted| {
		let retry = RetryPolicy { max_attempts: Some(2), ..RetryPolicy::default() };
		let options =
			ConsumerOptions { start: Start::Beginning, retry, on_exhausted, max_in_flight: 8 };
		log.consumer(name, options)
	};
	let plain = open("plain", OnExhausted::HoldLane)?;
	let ledger = open("ledger", OnExhausted::HoldLane)?;
	let picky = open("picky", OnExhausted::MoveOn)?;

	for number in 1..=EVENTS {
		let index = match log.append(event(number, lane(number)))? {
			Appended::New(index) => {
				let known = world.lock().unwrap().appended.contains_key(&number);
				assert!(!known, "event {number} was acknowledged before and is appended again");
				index
			},
			Appended::AlreadyKnown(index) => index,
		};
		world.lock().unwrap().appended.insert(number, index.get());
		if number % 4 == 0 {
			work(&plain, "plain", &store, world)?;
		}
	}
	work(&ledger, "ledger", &store, world)?;
	work(&picky, "picky", &store, world)?;
	work(&plain, "plain", &store, world)?;
	// What failed is due again, and is given up the second time.
	clock.advance(Duration::from_secs(3600));
	work(&picky, "picky", &store, world)?;
	for letter in picky.dead_letters(None, 100)? {
		picky.discard(letter.index)?;
		world.lock().unwrap().acked.entry("picky").or_default().insert(letter.index.get());
	}
	for consumer in [&plain, &ledger, &picky] {
		consumer.tidy()?;
	}
	Ok(())
}

fn work(
	consumer: &Consumer, name: &'static str, store: &Arc<dyn Store>, world: &Mutex<World>,
) -> Result<(), LogError> {
	while let Some(delivery) = consumer.next_event()? {
		let number = u64::from_be_bytes(delivery.payload().try_into().unwrap());
		let index = delivery.index().get();
		{
			let mut world = world.lock().unwrap();
			let acked = world.acked.entry(name).or_default().contains(&index);
			// P2, as the consumer sees it.
			assert!(!acked, "{name} was given {index} again, which it had acked");
			world.delivered.entry((name, lane(number))).or_default().push(index);
		}
		match name {
			"ledger" => {
				let key = Key::new(LEDGER, number.to_be_bytes());
				let mut batch = Batch::new();
				batch.expect(key.clone(), leyden_store::Expectation::Absent);
				batch.put(key, Value::new(RecordType(0x8000), 1, *b"credited"));
				match delivery.ack_with(Plan::of(batch)) {
					Ok(()) => {},
					// P5: a record without its ack would end here.
					Err(LogError::Store(StoreError::Conflict { .. })) => {
						panic!("{number} was credited and not acked")
					},
					Err(error) => return Err(error),
				}
				assert!(store.get(&Key::new(LEDGER, number.to_be_bytes())).wait().is_ok());
			},
			"picky" if number % 5 == 0 => {
				delivery.retry()?;
				world.lock().unwrap().given_up.insert(index);
				continue;
			},
			_ => delivery.ack()?,
		}
		world.lock().unwrap().acked.entry(name).or_default().insert(index);
	}
	Ok(())
}

/// What must hold whenever a process starts.
fn check(store: &Arc<dyn Store>, world: &World) {
	let reader = LogReader::new(Arc::clone(store));
	for (number, index) in &world.appended {
		let place = LogIndex::new(*index).unwrap();
		for name in CONSUMERS {
			let acked = reader.is_acked(STREAM, name, place).unwrap();
			let promised = world.acked.get(name).is_some_and(|acked| acked.contains(index));
			// P2: an acknowledged ack is there.
			assert!(acked || !promised, "{name} acked {index}, and it is un-acked");
			if !acked {
				// P1: an un-acked entry is there.
				let entry = reader.entry(STREAM, place).unwrap().expect("un-acked and gone");
				assert_eq!(entry.payload(), number.to_be_bytes());
			}
		}
		// P5: the record is there if and only if the ack is.
		let key = Key::new(LEDGER, number.to_be_bytes());
		let credited = store.get(&key).wait().unwrap().is_some();
		assert_eq!(credited, reader.is_acked(STREAM, "ledger", place).unwrap());
	}
	// P4: deliveries of a lane came in order.
	for ((name, lane), delivered) in &world.delivered {
		let in_order = delivered.windows(2).all(|pair| pair[0] < pair[1]);
		assert!(in_order || *name == "picky", "{name}, lane {lane}: {delivered:?}");
	}
}

fn finished(medium: &MemoryMedium, world: &World) {
	let process = Process::on(medium);
	check(&process.store, world);
	// P3: one entry per event.
	assert_eq!(world.appended.len() as u64, EVENTS);
	let places: BTreeSet<_> = world.appended.values().collect();
	assert_eq!(places.len() as u64, EVENTS);
	for name in CONSUMERS {
		assert!(
			process.consumer(name).unacked(None, 100).unwrap().is_empty(),
			"{name} is not done"
		);
	}
	assert!(!world.given_up.is_empty());
	// P6: an older handle is fenced.
	let old = MemoryStore::open(medium, Namespace::default()).unwrap();
	let _new = MemoryStore::open(medium, Namespace::default()).unwrap();
	let mut batch = Batch::new();
	batch.delete(Key::new(LEDGER, *b"x"));
	assert!(matches!(old.commit(batch).wait(), Err(StoreError::Fenced { .. })));
}

#[test]
fn three_consumers_keep_their_promises_wherever_the_process_dies() {
	let deaths = crash_everywhere(|doom| scenario(doom, &LossyMedium::keeping_every(1)));
	println!("three consumers: {deaths} deaths");
}

/// The negative control.
#[test]
fn a_medium_that_acknowledges_before_it_keeps_is_caught() {
	let (mut caught, mut tried) = (0, 0);
	for write in 0..40 {
		let doom = Doom::at(write, Side::After);
		tried += 1;
		let ended = catch(|| scenario(&doom, &LossyMedium::keeping_every(3)));
		caught += u32::from(ended.is_err());
	}
	println!("a lying medium: {caught} of {tried} deaths showed a loss");
	assert!(caught > tried / 4, "{caught} of {tried}");
}
