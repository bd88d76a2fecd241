// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The journal over a manager that is only a queue of events: what LDK's bytes prove, and what
//! becomes of facts, requests and failures to write. The crate's `tests/` have real nodes.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use leyden_log::{Consumer, ConsumerOptions, LogOptions};
use leyden_store::ticket::Completer;
use leyden_store::{
	Batch, Committed, Guarantees, Key, KeyRange, ManualClock, MemoryMedium, MemoryStore, Namespace,
	Page, Record, Store,
};
use leyden_testkit::{Doom, FaultyStore, MemKv, Side};
use lightning::events::{
	ClosureReason, HTLCHandlingFailureType, NegotiationFailureReason, PaymentFailureReason,
	PaymentPurpose,
};
use lightning::ln::channelmanager::{InterceptId, PaymentId};
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning::util::persist::{
	KVStoreSync, CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
	CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
};
use lightning::util::ser::Writeable;

use super::*;
use crate::manager_persister::ManagerPersister;
use crate::persist_tracker::ManagerPersistTracker;

mod appends;
mod replays;
mod requests;

const MANAGER: (&str, &str, &str) = (
	CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
	CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
	CHANNEL_MANAGER_PERSISTENCE_KEY,
);

/// The best block of every run.
const HEIGHT: u32 = 100;

/// LDK's memory: events that it will bring, and payments that it knows.
#[derive(Default)]
struct Ldk {
	queue: Vec<Event>,
	payments: HashSet<[u8; 32]>,
}

impl Ldk {
	/// The bytes as LDK writes them: each event verbatim, and the ids of payments somewhere else.
	fn encode(&self) -> Vec<u8> {
		let mut bytes = vec![9; 7];
		self.queue.iter().for_each(|event| bytes.extend(event.encode()));
		self.payments.iter().for_each(|payment| bytes.extend(payment));
		bytes
	}
}

/// A run of a node: a store, a manager on disk, a journal.
struct Run {
	log: EventLog,
	journal: Journal,
	ldk: Arc<Mutex<Ldk>>,
	persister: Arc<ManagerPersister<Arc<MemKv>>>,
	inline: Mutex<Vec<String>>,
	notes: Arc<Mutex<Vec<JournalEvent>>>,
}

/// The media that survive a run.
struct Disk {
	medium: MemoryMedium,
	kv: Arc<MemKv>,
}

impl Disk {
	fn new() -> Self {
		Self { medium: MemoryMedium::new(), kv: Arc::new(MemKv::new()) }
	}

	/// The next run, with what LDK has in memory after it read its manager.
	fn start(&self, ldk: Ldk) -> Run {
		self.start_with(ldk, Arc::new(self.store()), |journal, _| journal)
	}

	fn store(&self) -> MemoryStore {
		MemoryStore::open(&self.medium, Namespace::default()).unwrap()
	}

	fn manager(&self) -> Option<Vec<u8>> {
		let (primary, secondary, key) = MANAGER;
		self.kv.read(primary, secondary, key).ok()
	}

	/// Puts a manager there past the persister.
	fn set_manager(&self, bytes: Vec<u8>) {
		let (primary, secondary, key) = MANAGER;
		self.kv.write(primary, secondary, key, bytes).unwrap();
	}

	/// Starts a run with the barrier before `PaymentSent`.
	fn start_with_barrier(&self, ldk: Ldk) -> Run {
		self.start_with(ldk, Arc::new(self.store()), |journal, persister| {
			let persister = Arc::clone(persister);
			let persist: Persist =
				Box::new(move || Box::pin(std::future::ready(persister.persist())));
			journal.persist_before_sent(persist, |_| true)
		})
	}

	fn start_with(
		&self, ldk: Ldk, store: Arc<dyn Store>,
		wire: impl FnOnce(Journal, &Arc<ManagerPersister<Arc<MemKv>>>) -> Journal,
	) -> Run {
		let clock = Arc::new(ManualClock::default());
		let log = EventLog::open(Arc::clone(&store), EVENT_STREAM, clock, LogOptions::default());
		let log = log.unwrap();
		let ldk = Arc::new(Mutex::new(ldk));
		let appends = PendingAppends::new(log.clone());
		let kv = Arc::clone(&self.kv);
		let persister = ManagerPersister::open(kv, Arc::clone(&store), appends.clone()).unwrap();
		let persister = Arc::new(persister);
		let notes: Arc<Mutex<Vec<JournalEvent>>> = Arc::default();
		let seen = Arc::clone(&notes);
		let journal = Journal::new(log.clone()).track_replays().unwrap();
		let journal = journal.awaited_by(&appends);
		let journal = journal.with_observer(move |event| seen.lock().push(event.clone()));
		let journal = wire(journal, &persister);
		let tracker = ManagerPersistTracker::new(store, journal.persist_listeners());
		let encoded = Arc::clone(&ldk);
		let encode = Box::new(move || encoded.lock().encode());
		persister.shared().attach(tracker, encode, Box::new(|| ()), Arc::default());
		let (bytes, journaled) = persister.shared().take_loaded().unwrap_or_default();
		let payments = ldk.lock().payments.clone();
		let height = HEIGHT;
		let loaded = LoadedManager { bytes: &bytes, journaled, payments: &payments, height };
		block_on(journal.log().store(), journal.manager_loaded(&loaded, |_| false)).unwrap();
		Run { log, journal, ldk, persister, inline: Mutex::default(), notes }
	}
}

impl Run {
	/// LDK hands out what is in its queue, and forgets what was handled, as it does: all at once,
	/// at the end.
	fn process(&self) -> usize {
		let batch = self.ldk.lock().queue.clone();
		let handled = batch.iter().take_while(|event| self.handle((*event).clone()).is_ok());
		let handled = handled.count();
		self.ldk.lock().queue.drain(..handled);
		handled
	}

	fn tell(&self, event: Event) {
		self.ldk.lock().queue.push(event);
		assert_eq!(self.process(), 1);
	}

	fn handle(&self, event: Event) -> Result<(), ReplayEvent> {
		self.journal.handle(event, |event| {
			self.inline.lock().push(kind_of(&event).to_string());
			Ok(())
		})
	}

	/// The background processor writes the manager.
	fn write_manager(&self) {
		assert!(self.try_write_manager());
	}

	fn try_write_manager(&self) -> bool {
		let bytes = self.ldk.lock().encode();
		let (primary, secondary, key) = MANAGER;
		self.persister.write(primary, secondary, key, bytes).is_ok()
	}

	/// Ids of the entries, in order.
	fn entries(&self) -> Vec<EventId> {
		self.wait();
		let entries = self.log.read(self.log.start().unwrap(), 1000).unwrap().0;
		entries.into_iter().map(|entry| entry.unwrap().id()).collect()
	}

	fn wait(&self) {
		self.journal.appends.as_ref().unwrap().wait().unwrap();
	}

	fn consumer(&self) -> Consumer {
		self.wait();
		self.log.consumer("user", ConsumerOptions::default()).unwrap()
	}

	fn ack_all(&self) -> Vec<(EventId, u32)> {
		let consumer = self.consumer();
		let mut acked = Vec::new();
		while let Some(delivery) = consumer.next_event().unwrap() {
			acked.push((delivery.id(), delivery.repeat()));
			delivery.ack().unwrap();
		}
		acked
	}
}

fn sent(payment: u8) -> Event {
	Event::PaymentSent {
		payment_id: Some(PaymentId([payment; 32])),
		payment_preimage: PaymentPreimage([7; 32]),
		payment_hash: PaymentHash([payment; 32]),
		amount_msat: Some(1000),
		fee_paid_msat: Some(1),
		bolt12_invoice: None,
	}
}

fn claimed(payment: u8) -> Event {
	Event::PaymentClaimed {
		receiver_node_id: None,
		payment_hash: PaymentHash([payment; 32]),
		amount_msat: 1_000,
		purpose: PaymentPurpose::SpontaneousPayment(PaymentPreimage([7; 32])),
		htlcs: Vec::new(),
		sender_intended_total_msat: None,
		onion_fields: None,
		payment_id: Some(PaymentId([payment; 32])),
	}
}

fn failed(payment: u8) -> Event {
	Event::PaymentFailed {
		payment_id: PaymentId([payment; 32]),
		payment_hash: Some(PaymentHash([payment; 32])),
		reason: Some(PaymentFailureReason::RetriesExhausted),
	}
}

fn intercepted(id: u8) -> Event {
	Event::HTLCIntercepted {
		intercept_id: InterceptId([id; 32]),
		requested_next_hop_scid: 5,
		payment_hash: PaymentHash([id; 32]),
		inbound_amount_msat: 1_000,
		expected_outbound_amount_msat: 900,
		outgoing_htlc_expiry_block_height: Some(100),
	}
}

fn claimable(hash: u8, claim_deadline: u32) -> Event {
	Event::PaymentClaimable {
		receiver_node_id: None,
		payment_hash: PaymentHash([hash; 32]),
		onion_fields: None,
		amount_msat: 1_000,
		counterparty_skimmed_fee_msat: 0,
		purpose: PaymentPurpose::SpontaneousPayment(PaymentPreimage([7; 32])),
		receiving_channel_ids: vec![(ChannelId([1; 32]), Some(1))],
		claim_deadline: Some(claim_deadline),
		payment_id: Some(PaymentId([hash.wrapping_add(100); 32])),
	}
}

fn htlc_failed() -> Event {
	Event::HTLCHandlingFailed {
		prev_channel_ids: vec![ChannelId([1; 32])],
		failure_type: HTLCHandlingFailureType::InvalidOnion,
		failure_reason: None,
	}
}

fn node(byte: u8) -> bitcoin::secp256k1::PublicKey {
	let key = bitcoin::secp256k1::SecretKey::from_slice(&[byte; 32]).unwrap();
	key.public_key(&bitcoin::secp256k1::Secp256k1::new())
}

fn inline_event() -> Event {
	Event::OnionMessagePeerConnected { peer_node_id: node(3) }
}

fn closed(channel: u8, counterparty: u8, user_channel_id: u128) -> Event {
	Event::ChannelClosed {
		channel_id: ChannelId([channel; 32]),
		user_channel_id,
		reason: ClosureReason::CommitmentTxConfirmed,
		counterparty_node_id: Some(node(counterparty)),
		channel_capacity_sats: Some(1),
		channel_funding_txo: None,
		last_local_balance_msat: None,
	}
}

fn knowing(payment: u8) -> Ldk {
	Ldk { payments: HashSet::from([[payment; 32]]), ..Ldk::default() }
}

fn with_queue(queue: &[Event]) -> Ldk {
	Ldk { queue: queue.to_vec(), ..Ldk::default() }
}

#[test]
fn durable_events_are_written_down_and_others_are_answered_at_once() {
	let run = Disk::new().start(Ldk::default());
	for event in [sent(1), inline_event(), closed(2, 4, 1), htlc_failed()] {
		run.tell(event);
	}
	assert_eq!(run.entries().len(), 2);
	assert_eq!(*run.inline.lock(), ["OnionMessagePeerConnected", "HTLCHandlingFailed"]);
	let delivery = run.consumer().next_event().unwrap().unwrap();
	assert_eq!(delivery.kind().name(), "PaymentSent");
	assert_eq!(decode_event(delivery.payload()).unwrap(), sent(1));
	delivery.ack().unwrap();
}

#[test]
fn htlc_failures_are_written_down_if_the_journal_is_told_so() {
	let disk = Disk::new();
	let keep = |journal: Journal, _: &_| journal.keep_htlc_failures();
	let run = disk.start_with(Ldk::default(), Arc::new(disk.store()), keep);
	run.tell(htlc_failed());
	assert_eq!(run.entries().len(), 1);
}

#[test]
fn the_asynchronous_handler_does_the_same() {
	let disk = Disk::new();
	let run = disk.start(Ldk::default());
	let handle = |event| {
		let inline = |_| std::future::ready(Ok(()));
		let mut handled = pin!(run.journal.handle_async(event, inline));
		block_on(run.journal.log().store(), handled.as_mut())
	};
	handle(sent(1)).unwrap();
	handle(intercepted(1)).unwrap();
	handle(inline_event()).unwrap();
	assert_eq!(run.entries().len(), 2);
}

/// A node that is started again in one process finds its store locked otherwise.
#[test]
fn a_node_that_ends_lets_go_of_its_store() {
	let disk = Disk::new();
	let store = Arc::new(disk.store());
	let run = disk.start_with(with_queue(&[sent(1)]), Arc::<MemoryStore>::clone(&store), |j, _| j);
	run.process();
	run.tell(intercepted(1));
	run.ack_all();
	run.write_manager();
	drop(run);
	assert_eq!(Arc::strong_count(&store), 1);
}

#[test]
fn bytes_that_are_no_event_are_an_error_and_stay() {
	let mut payload = vec![1, 1];
	payload.extend([0; 32]);
	assert_eq!(decode_event(&payload), Err(UnreadableEvent::Unknown));
	payload.extend([251, 0]);
	assert_eq!(decode_event(&payload), Err(UnreadableEvent::Unknown), "odd: LDK would skip it");
	assert_eq!(decode_event(&[]), Err(UnreadableEvent::Malformed));
	assert_eq!(decode_event(&[1, 9]), Err(UnreadableEvent::Malformed));
	assert_eq!(decode_event(&[2]), Err(UnreadableEvent::NewerLayout));
}
