//! Scenarios that die where they are told to, on any media: a log with three consumers (P1 to P6), and
//! real nodes in the cases of the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_id::{EventId, EventKind, Lane};
use leyden_log::{
	Appended, Consumer, ConsumerOptions, EventLog, LogError, LogIndex, LogOptions, LogReader,
	NewEvent, OnExhausted, Retention, RetryPolicy, Start,
};
use leyden_store::{
	Batch, Fence, Key, ManualClock, Plan, RecordType, Store, StoreError, Table, Timestamp, Value,
};

use leyden_ldk::{MANAGER_CONSUMER, MONITOR_STREAM};

use crate::cases::{run, Case, CaseSetup, Verdict};
use crate::faulty_store::{Doom, FaultyStore, Media};
use crate::intact;
use crate::{Guard, GuardFactory, LeydenGuard, MemKv, NodeDisk, Wiring};

const STREAM: &str = "events";

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

/// Runs it, and checks after every restart what must hold.
///
/// # Panics
/// Where a promise is broken.
pub fn log_scenario(doom: &Arc<Doom>, media: &Arc<dyn Media>) {
	let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
	let world = Mutex::new(World::default());
	let mut lives = 0;
	loop {
		lives += 1;
		let inner = media.open();
		check(&inner, &world.lock().unwrap());
		world.lock().unwrap().delivered.clear();
		let keeps = Arc::clone(media);
		let faulty =
			FaultyStore::new(inner, Arc::clone(doom)).after_each(move |_| keeps.committed());
		let store = Arc::new(faulty);
		let ended = live(Arc::<FaultyStore>::clone(&store), &clock, &world);
		let died = store.is_dead();
		drop(store);
		if !died {
			ended.unwrap();
			break;
		}
		media.crash();
	}
	assert!(lives <= 2, "one death, two lives");
	finished(&**media, &world.lock().unwrap());
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
	let log = EventLog::open(Arc::clone(&store), STREAM, Arc::clone(clock) as _, options)?;
	let open = |name, on_exhausted| {
		let retry = RetryPolicy { max_attempts: Some(2), ..RetryPolicy::default() };
		let options = ConsumerOptions {
			start: Start::Beginning,
			retry,
			on_exhausted,
			max_in_flight: 8,
			..ConsumerOptions::default()
		};
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
				let entry = entry.expect("an entry that is not damaged");
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

fn finished(media: &dyn Media, world: &World) {
	let store = media.open();
	check(&store, world);
	// P3: one entry per event.
	assert_eq!(world.appended.len() as u64, EVENTS);
	let places: BTreeSet<_> = world.appended.values().collect();
	assert_eq!(places.len() as u64, EVENTS);
	let reader = LogReader::new(Arc::clone(&store));
	for name in CONSUMERS {
		let left = reader.unacked(STREAM, name, None, 100).unwrap();
		assert!(left.is_empty(), "{name} is not done");
	}
	assert!(!world.given_up.is_empty());
	// P6: an older handle is fenced; where a lock keeps the second one out, nobody gets that far.
	if store.guarantees().fence == Fence::Process {
		let _new = media.open();
		let mut batch = Batch::new();
		batch.delete(Key::new(LEDGER, *b"x"));
		assert!(matches!(store.commit(batch).wait(), Err(StoreError::Fenced { .. })));
	}
}

fn event(number: u64, lane: u8) -> NewEvent {
	let mut id = [0; 32];
	id[..8].copy_from_slice(&number.to_be_bytes());
	NewEvent {
		id: EventId::from_bytes(id),
		kind: EventKind::from_static("Test"),
		lane: Lane::payment([lane; 32]),
		payload: number.to_be_bytes().to_vec(),
	}
}

/// What the log was seen to promise, over all lives.
#[derive(Default)]
struct Promises {
	/// Entries that were acked when somebody looked.
	acked: BTreeSet<u64>,
	/// Every entry, by place.
	entries: Vec<EventId>,
}

impl Promises {
	/// Looks at the log, as a process finds it that starts, and holds it to what was seen before.
	fn check(&mut self, store: &Arc<dyn Store>) {
		let reader = LogReader::new(Arc::clone(store));
		let entries = intact(reader.entries(MONITOR_STREAM, None, 10_000).unwrap());
		let ids: Vec<EventId> = entries.iter().map(|entry| entry.id()).collect();
		// P1 and P4: what was there is there, in its place, and nothing came in between.
		assert!(ids.starts_with(&self.entries), "entries were lost or moved");
		// P3: one logical event is one entry.
		assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an event is two entries");
		self.entries = ids;
		for entry in &entries {
			let index = entry.index();
			let acked = reader.is_acked(MONITOR_STREAM, MANAGER_CONSUMER, index).unwrap();
			// P2: what was acked stays so.
			assert!(acked || !self.acked.contains(&index.get()), "{index} was acked and is not");
			if acked {
				self.acked.insert(index.get());
			}
		}
		let unacked =
			intact(reader.unacked(MONITOR_STREAM, MANAGER_CONSUMER, None, 10_000).unwrap());
		let unacked: BTreeSet<LogIndex> = unacked.iter().map(|entry| entry.index()).collect();
		let all = entries.len();
		assert_eq!(unacked.len() + self.acked.len(), all, "an entry is neither acked nor un-acked");
	}
}

/// Runs a case on real nodes, the victim of which dies where it is told to from the moment the channel
/// goes on chain, and holds the log after every restart and every commit to what it promised.
///
/// # Panics
/// Where a promise is broken.
pub fn case_scenario(case: Case, doom: &Arc<Doom>, media: &Arc<dyn Media>) {
	doom.disarm();
	let disk = Arc::new(NodeDisk::new(Arc::new(MemKv::new())));
	let hook = Arc::clone(doom);
	disk.on_write(move |write| hook.fate(write));
	let promises = Arc::new(Mutex::new(Promises::default()));

	let guards: GuardFactory = {
		let (doom, disk, media) = (Arc::clone(doom), Arc::clone(&disk), Arc::clone(media));
		Arc::new(move |life| -> Arc<dyn Guard> {
			if life > 1 {
				media.crash();
			}
			let store = media.open();
			promises.lock().unwrap().check(&store);
			let (dies, keeps, looks) =
				(Arc::clone(&disk), Arc::clone(&media), Arc::clone(&promises));
			let faulty = FaultyStore::new(store, Arc::clone(&doom))
				.on_death(move || dies.kill())
				.after_each(move |seen| {
					keeps.committed();
					looks.lock().unwrap().check(seen);
				});
			Arc::new(LeydenGuard::new(Arc::new(faulty), Wiring::default()))
		})
	};
	let role_disk = Arc::clone(&disk);
	let setup = CaseSetup::guarded(1, guards).on_node_disks(move |role| match role {
		"victim" => Arc::clone(&role_disk),
		_ => Arc::new(NodeDisk::new(Arc::new(MemKv::new()))),
	});
	let outcome = run(case, &setup, &mut |step| {
		if step.starts_with("the payee goes on chain") {
			doom.arm();
		}
	});
	assert_eq!(outcome.verdict(), Verdict::Recovered, "{case:?} {doom:?}: {outcome:?}");
	assert_eq!(outcome.panics(), 0, "{case:?} {doom:?}: {outcome:?}");
}
