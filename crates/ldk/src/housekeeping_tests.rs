// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Retention bounds the records of bus and journal, and the cost of opening them, although both are
//! acked in bulk by writes of the manager and ask for no delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use leyden_log::{EventLog, LogOptions, Retention, ACKS_BETWEEN_COMPACTIONS};
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store};
use leyden_testkit::{count_records, CountingStore};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent};
use lightning::chain::transaction::OutPoint;
use lightning::chain::{ChannelMonitorUpdateStatus, Watch};
use lightning::events::Event;
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::types::ChannelId;
use lightning::sign::InMemorySigner;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use parking_lot::Mutex;

use crate::persist_tracker::ManagerPersistTracker;
use crate::{Journal, MonitorBus, MonitorSet, EVENT_STREAM, MONITOR_STREAM};

const HISTORY: u64 = 10;
const IDS: u64 = 50;

type Taken = (OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey);

/// A chain monitor that produces what it is told to.
#[derive(Default)]
struct Script(Mutex<Vec<Taken>>);

impl Script {
	fn close(&self, number: u32) {
		let channel = ChannelId(bytes(number));
		let txid = bitcoin::Txid::from_byte_array(bytes(number));
		let peer = SecretKey::from_slice(&[3; 32]).unwrap().public_key(&Secp256k1::new());
		let close = vec![MonitorEvent::CommitmentTxConfirmed(())];
		self.0.lock().push((OutPoint { txid, index: 0 }, channel, close, peer));
	}
}

impl MonitorSet for Script {
	fn monitors(&self) -> HashMap<ChannelId, bool> {
		HashMap::new()
	}

	fn is_loaded(&self, _: &ChannelId) -> bool {
		true
	}

	fn archive_fully_resolved_channel_monitors(&self) {}
}

impl Watch<InMemorySigner> for Script {
	fn watch_channel(
		&self, _: ChannelId, _: ChannelMonitor<InMemorySigner>,
	) -> Result<ChannelMonitorUpdateStatus, ()> {
		Ok(ChannelMonitorUpdateStatus::Completed)
	}

	fn update_channel(&self, _: ChannelId, _: &ChannelMonitorUpdate) -> ChannelMonitorUpdateStatus {
		ChannelMonitorUpdateStatus::Completed
	}

	fn release_pending_monitor_events(&self) -> Vec<Taken> {
		std::mem::take(&mut *self.0.lock())
	}
}

struct Life {
	script: Arc<Script>,
	bus: Arc<MonitorBus<Arc<Script>>>,
	journal: Journal,
	tracker: ManagerPersistTracker,
}

impl Life {
	fn over(store: &Arc<dyn Store>) -> Self {
		let options = LogOptions {
			history: Retention { min_count: HISTORY, min_age: Duration::ZERO },
			tombstones: Retention { min_count: IDS, min_age: Duration::ZERO },
		};
		let open = |name| {
			let clock = Arc::new(ManualClock::default());
			EventLog::open(Arc::clone(store), name, clock, options).unwrap()
		};
		let script = Arc::new(Script::default());
		let bus = MonitorBus::new(Arc::clone(&script), open(MONITOR_STREAM)).unwrap();
		let bus = Arc::new(bus);
		let journal = Journal::new(open(EVENT_STREAM)).track_replays().unwrap();
		let listeners = journal.persist_listeners().into_iter().chain([Arc::clone(&bus) as _]);
		let tracker = ManagerPersistTracker::new(Arc::clone(store), listeners);
		Self { script, bus, journal, tracker }
	}

	/// An event of a monitor and one of the manager; then the manager is written.
	fn round(&self, number: u32) {
		self.script.close(number);
		assert_eq!(Watch::<InMemorySigner>::release_pending_monitor_events(&*self.bus).len(), 1);
		self.journal.handle(sent(number), |_| Ok(())).unwrap();
		self.tracker.begin().persisted().wait().unwrap();
	}
}

fn bytes(number: u32) -> [u8; 32] {
	let mut bytes = [7; 32];
	bytes[..4].copy_from_slice(&number.to_be_bytes());
	bytes
}

fn sent(number: u32) -> Event {
	Event::PaymentSent {
		payment_id: Some(PaymentId(bytes(number))),
		payment_preimage: PaymentPreimage([7; 32]),
		payment_hash: PaymentHash(bytes(number)),
		amount_msat: Some(1000),
		fee_paid_msat: Some(1),
		bolt12_invoice: None,
	}
}

#[test]
fn snapshots_of_the_manager_keep_bus_and_journal_bounded_and_opening_costs_the_same() {
	let medium = MemoryMedium::new();
	let mut costs = Vec::new();
	let mut number = 0;
	// Multiples of what lies between two rounds of housekeeping, so that both find the same.
	for until in [2 * ACKS_BETWEEN_COMPACTIONS, 16 * ACKS_BETWEEN_COMPACTIONS] {
		let store: Arc<dyn Store> =
			Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
		let life = Life::over(&store);
		while u64::from(number) < until {
			number += 1;
			life.round(number);
		}
		// For each of the two streams, what may wait for its next round.
		let slack = 2 * 2 * ACKS_BETWEEN_COMPACTIONS;
		let bounds =
			[("log_entries", HISTORY), ("log_tombs", IDS), ("log_ids", IDS), ("log_acks", 0)];
		for (table, kept) in bounds {
			let found = count_records(&*store, table) as u64;
			assert!(found <= 2 * kept + slack, "{found} records in {table} after {number} rounds");
		}
		drop(life);
		let copy = MemoryStore::open(&medium.snapshot(), Namespace::default()).unwrap();
		let counting = Arc::new(CountingStore::new(Arc::new(copy)));
		costs.push(counting.count(|| {
			let life = Life::over(&(Arc::<CountingStore>::clone(&counting) as _));
			let released = Watch::<InMemorySigner>::release_pending_monitor_events(&*life.bus);
			assert!(released.is_empty(), "everything was settled");
		}));
	}
	assert_eq!(costs[0], costs[1], "opening after few rounds and after many");
}
