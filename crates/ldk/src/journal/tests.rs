// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The journal over a manager that is only a queue of events: what LDK's bytes prove, and what
//! becomes of facts, requests and failures to write. `tests/requests.rs` has real nodes.

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

/// One run of a node: a store, a manager on disk, a journal.
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
		block_on(journal.manager_loaded(&loaded, |_| false)).unwrap();
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
		let bytes = self.ldk.lock().encode();
		let (primary, secondary) = (
			CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
			CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
		);
		self.persister.write(primary, secondary, CHANNEL_MANAGER_PERSISTENCE_KEY, bytes).unwrap();
	}

	/// Ids of the entries, in order.
	fn entries(&self) -> Vec<EventId> {
		self.wait();
		let entries = self.log.read(self.log.start().unwrap(), 1000).unwrap().0;
		entries.iter().map(|entry| entry.id()).collect()
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
fn an_event_that_the_durable_manager_still_has_is_one_entry() {
	let disk = Disk::new();
	let run = disk.start(with_queue(&[sent(1), failed(2)]));
	run.write_manager();
	run.process();
	let first = run.entries();
	assert_eq!(first.len(), 2);
	drop(run);
	let run = disk.start(with_queue(&[sent(1), failed(2)]));
	run.process();
	assert_eq!(run.entries(), first);
}

/// L6: the manager was written without the failure, the ack of that was not. The same payment fails
/// again.
#[test]
fn a_failure_after_the_manager_has_forgotten_the_first_is_another_entry() {
	let disk = Disk::new();
	let run = disk.start(knowing(2));
	run.write_manager();
	run.tell(failed(2));
	run.ldk.lock().payments.clear();
	// The background processor's writes lag by one: this one acks nothing of the event.
	run.write_manager();
	drop(run);
	// Tried again under its id: LDK knows the payment again.
	let run = disk.start(knowing(2));
	run.tell(failed(2));
	let entries = run.entries();
	assert_eq!(entries.len(), 2, "the second failure is told");
	assert_ne!(entries[0], entries[1]);
}

/// L7: LDK has forgotten the payment, and takes id and hash again.
#[test]
fn a_payment_that_is_made_again_under_its_id_is_told_again() {
	let disk = Disk::new();
	for run in 1..=3 {
		let started = disk.start(Ldk::default());
		started.tell(sent(1));
		started.write_manager();
		assert_eq!(started.entries().len(), run);
	}
}

/// L3: the manager that the barrier writes still has the whole batch in its queue.
#[test]
fn a_failure_has_one_id_over_any_number_of_deaths_with_the_barrier() {
	let disk = Disk::new();
	let batch = || with_queue(&[failed(1), failed(2), sent(3)]);
	let run = disk.start_with_barrier(batch());
	run.process();
	let first = run.entries();
	assert_eq!(first.len(), 3);
	run.ack_all();
	for _ in 0..3 {
		drop(disk.start_with_barrier(batch()));
		let run = disk.start_with_barrier(batch());
		run.process();
		assert_eq!(run.entries(), first);
		assert!(run.ack_all().is_empty(), "nothing is told again");
	}
}

/// An event that came after the manager was written comes again if LDK still has its payment.
#[test]
fn an_event_that_the_manager_knows_the_payment_of_is_one_entry() {
	let disk = Disk::new();
	let run = disk.start(knowing(1));
	run.write_manager();
	run.tell(sent(1));
	let first = run.entries();
	drop(run);
	let run = disk.start(knowing(1));
	run.tell(sent(1));
	assert_eq!(run.entries(), first);
	// In this run the payment ended, so whatever ends under its id is another payment.
	run.tell(sent(1));
	assert_eq!(run.entries().len(), 2);
}

/// The manager is written again before LDK brings the event, and the node dies once more.
#[test]
fn an_event_that_ldk_owes_stays_expected_over_another_manager() {
	let disk = Disk::new();
	let run = disk.start(knowing(1));
	run.write_manager();
	run.tell(failed(1));
	let first = run.entries();
	drop(run);
	for _ in 0..3 {
		let run = disk.start(knowing(1));
		run.ldk.lock().payments.insert([9; 32]);
		run.write_manager();
		run.write_manager();
	}
	let run = disk.start(knowing(1));
	run.tell(failed(1));
	assert_eq!(run.entries(), first);
}

/// LDK has never heard of the payment: the user has sent it again.
#[test]
fn an_event_that_the_manager_knows_no_payment_of_is_another_entry() {
	let disk = Disk::new();
	let run = disk.start(Ldk::default());
	run.write_manager();
	run.tell(failed(1));
	drop(run);
	let run = disk.start(Ldk::default());
	run.tell(failed(1));
	assert_eq!(run.entries().len(), 2);
}

/// The same failure twice, of which the manager has one in its queue: LDK brings that one.
#[test]
fn as_many_events_are_replays_as_the_manager_has() {
	let disk = Disk::new();
	let run = disk.start(Ldk::default());
	run.tell(failed(1));
	run.ldk.lock().queue.push(failed(1));
	run.write_manager();
	assert_eq!(run.process(), 1);
	assert_eq!(run.entries().len(), 2);
	drop(run);
	let run = disk.start(with_queue(&[failed(1)]));
	run.process();
	assert_eq!(run.entries().len(), 2);
	run.tell(failed(1));
	assert_eq!(run.entries().len(), 3);
}

/// LDK writes the failure of a splice into the manager that it has not told of yet; the same
/// splice may have failed before.
#[test]
fn a_failed_splice_is_never_taken_for_a_replay() {
	let failed = || Event::SpliceNegotiationFailed {
		channel_id: ChannelId([1; 32]),
		counterparty_node_id: node(4),
		user_channel_id: 1,
		reason: NegotiationFailureReason::PeerDisconnected,
		contribution: None,
	};
	let disk = Disk::new();
	let run = disk.start(Ldk::default());
	run.tell(failed());
	// Another round of it goes on, and is in the manager as failed in case the node dies now.
	run.ldk.lock().queue.push(failed());
	run.write_manager();
	drop(run);
	let run = disk.start(with_queue(&[failed()]));
	run.process();
	assert_eq!(run.entries().len(), 2);
}

/// Another end of the payment ends the waiting for the first.
#[test]
fn a_payment_that_ended_otherwise_is_not_waited_for() {
	let disk = Disk::new();
	let run = disk.start(knowing(1));
	run.write_manager();
	run.tell(failed(1));
	drop(run);
	let run = disk.start(knowing(1));
	run.tell(sent(1));
	run.tell(failed(1));
	assert_eq!(run.entries().len(), 3);
}

/// L4: a peer names our channel's id as the temporary id of its own.
#[test]
fn a_close_is_told_though_a_peer_has_used_its_channel_id() {
	let disk = Disk::new();
	let run = disk.start(Ldk::default());
	run.tell(closed(7, 5, 1));
	run.tell(closed(7, 6, 2));
	assert_eq!(run.entries().len(), 2);
	let id = |event| EventIdentity::of(&event).id;
	assert_ne!(id(closed(7, 5, 1)), id(closed(7, 6, 1)), "another counterparty");
	assert_ne!(id(closed(7, 5, 1)), id(closed(7, 5, 2)), "another channel of that counterparty");
	assert_eq!(EventIdentity::of(&closed(7, 5, 1)).strength, IdStrength::Weak);
}

/// L1: LDK asks again for as long as its durable state has no answer.
#[test]
fn a_request_that_was_acked_is_delivered_again_as_a_repeat() {
	let disk = Disk::new();
	let run = disk.start(with_queue(&[intercepted(1)]));
	run.process();
	let told = run.ack_all();
	let [(id, 0)] = told[..] else { panic!("{told:?}") };
	drop(run);
	for repeat in 1..=4 {
		let run = disk.start(with_queue(&[intercepted(1)]));
		run.process();
		assert_eq!(run.ack_all(), [(id, repeat)]);
		let told = JournalEvent::Repeated { kind: kind_of(&intercepted(1)), id, repeat };
		assert_eq!(*run.notes.lock(), [told]);
	}
}

#[test]
fn a_request_that_was_not_acked_is_one_delivery() {
	let disk = Disk::new();
	for _ in 0..3 {
		let run = disk.start(with_queue(&[intercepted(1)]));
		run.consumer();
		run.process();
		assert_eq!(run.entries().len(), 1);
	}
	let run = disk.start(with_queue(&[intercepted(1)]));
	run.process();
	assert_eq!(run.ack_all().len(), 1);
}

/// Every consumer is asked: one that has acked is told again.
#[test]
fn a_request_is_repeated_if_one_of_two_consumers_has_acked() {
	let disk = Disk::new();
	let run = disk.start(with_queue(&[intercepted(1)]));
	run.process();
	run.ack_all();
	let other = run.log.consumer("other", ConsumerOptions::default()).unwrap();
	drop(run);
	let run = disk.start(with_queue(&[intercepted(1)]));
	run.process();
	assert_eq!(run.entries().len(), 2);
	drop(other);
}

/// L2 with a manager in between: it has let go of the event, and the answer came after it.
#[test]
fn a_request_whose_answer_may_be_lost_is_delivered_again() {
	let disk = Disk::new();
	// LDK holds the payment; its hash is in the manager.
	let run = disk.start(Ldk { queue: vec![claimable(5, HEIGHT + 1)], ..knowing(5) });
	run.process();
	run.write_manager();
	let told = run.ack_all();
	let [(id, 0)] = told[..] else { panic!("{told:?}") };
	drop(run);
	// The node died before the next write: the claim was in LDK's memory only. LDK says nothing.
	let run = disk.start(knowing(5));
	assert_eq!(*run.notes.lock(), [JournalEvent::AnswersLost { count: 1 }]);
	assert_eq!(run.ack_all(), [(id, 1)]);
	// This time the manager is written after the ack, and has the answer.
	run.write_manager();
	drop(run);
	let run = disk.start(knowing(5));
	assert!(run.ack_all().is_empty());
}

/// An ack that comes while the manager is being written is not in its bytes.
#[test]
fn a_request_is_not_done_by_a_manager_that_was_encoded_before_the_ack() {
	let disk = Disk::new();
	let run = disk.start(Ldk { queue: vec![claimable(5, HEIGHT + 1)], ..knowing(5) });
	run.process();
	run.write_manager();
	let store = Arc::clone(run.log.store());
	let tracker = ManagerPersistTracker::new(store, run.journal.persist_listeners());
	let before = tracker.begin();
	run.ack_all();
	before.persisted().wait().unwrap();
	drop((tracker, run));
	assert_eq!(disk.start(knowing(5)).ack_all().len(), 1);
}

#[test]
fn a_request_that_ldk_does_not_wait_for_is_not_delivered_again() {
	for (deadline, ldk) in [(HEIGHT, knowing(5)), (HEIGHT + 1, Ldk::default())] {
		let disk = Disk::new();
		let run = disk.start(Ldk { queue: vec![claimable(5, deadline)], ..ldk });
		run.process();
		run.write_manager();
		run.ack_all();
		drop(run);
		assert!(disk.start(Ldk::default()).ack_all().is_empty(), "{deadline}");
	}
}

/// The answer is that of the consumer that acks last.
#[test]
fn a_request_is_not_done_before_every_consumer_has_acked_it() {
	let disk = Disk::new();
	let run = disk.start(Ldk { queue: vec![claimable(5, HEIGHT + 1)], ..knowing(5) });
	let accounting = run.log.consumer("accounting", ConsumerOptions::default()).unwrap();
	run.consumer();
	run.process();
	run.wait();
	accounting.next_event().unwrap().unwrap().ack().unwrap();
	run.write_manager();
	run.write_manager();
	assert_eq!(run.ack_all().len(), 1);
	drop((run, accounting));
	let run = disk.start(knowing(5));
	assert_eq!(run.ack_all().len(), 1, "the claim was in LDK's memory only");
}

#[test]
fn a_request_with_a_kept_answer_is_answered_and_not_delivered() {
	let disk = Disk::new();
	let run = disk.start(with_queue(&[intercepted(1)]));
	run.process();
	run.ack_all();
	drop(run);
	let answer = |journal: Journal, _: &_| journal.answered_by(AllAnswered);
	let queue = with_queue(&[intercepted(1), intercepted(2)]);
	let run = disk.start_with(queue, Arc::new(disk.store()), answer);
	assert_eq!(run.process(), 2);
	let told = run.ack_all();
	assert_eq!(told.len(), 1, "one that was never delivered is delivered: {told:?}");
}

/// Keeps an answer to everything.
struct AllAnswered;

impl KeptAnswers for AllAnswered {
	fn watch(&self, _: &Event) {}

	fn answer(&self, event: &Event) -> bool {
		matches!(event, Event::HTLCIntercepted { .. })
	}
}

/// The store refuses the append; the manager is not written before it is in the log.
#[test]
fn an_append_that_fails_holds_the_manager_up_and_is_tried_again() {
	let disk = Disk::new();
	let inner = Arc::new(disk.store());
	// Creating the log and the tracker takes two commits.
	let store = Arc::new(FaultyStore::new(inner, Doom::at(2, Side::Before)));
	let run = disk.start_with(Ldk::default(), store, |journal, _| journal);
	// The end of no payment: nothing waits for it in the handler.
	run.tell(closed(1, 4, 1));
	let bytes = run.ldk.lock().encode();
	let (primary, secondary) = (
		CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
		CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
	);
	let key = CHANNEL_MANAGER_PERSISTENCE_KEY;
	assert!(run.persister.write(primary, secondary, key, bytes).is_err());
	assert!(disk.kv.read(primary, secondary, key).is_err(), "the manager was not written");
}

/// A store that refuses commits while it is away.
struct AwayStore {
	inner: MemoryStore,
	is_away: AtomicBool,
}

impl Store for AwayStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		if self.is_away.load(Ordering::SeqCst) {
			let source: Arc<dyn std::error::Error + Send + Sync> = Arc::new(fmt::Error);
			return Ticket::ready(Err(StoreError::Unavailable { doing: "writing", source }));
		}
		self.inner.commit(batch)
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.inner.get(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.inner.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}
}

/// The store was away when the events came: nothing is lost, and their order is kept.
#[test]
fn appends_that_failed_are_made_in_order_when_the_store_is_back() {
	let disk = Disk::new();
	let store = Arc::new(AwayStore { inner: disk.store(), is_away: AtomicBool::new(false) });
	let run = disk.start_with(Ldk::default(), Arc::<AwayStore>::clone(&store), |j, _| j);
	let away = |away| store.is_away.store(away, Ordering::SeqCst);
	away(true);
	run.tell(closed(1, 4, 1));
	assert!(run.persister.persist().is_err(), "LDK lets go of nothing");
	away(false);
	// Comes when the store is back, and must not overtake.
	run.tell(closed(2, 4, 2));
	run.persister.persist().unwrap();
	let entries = run.log.read(run.log.start().unwrap(), 10).unwrap().0;
	let closes: Vec<_> = entries.iter().map(|e| decode_event(e.payload()).unwrap()).collect();
	assert_eq!(closes, [closed(1, 4, 1), closed(2, 4, 2)]);
}

/// The handler has written the event, and LDK is told to bring it again: in this run, it is one.
#[test]
fn an_end_whose_barrier_fails_is_one_entry_when_it_comes_again() {
	let disk = Disk::new();
	let works = Arc::new(AtomicBool::new(false));
	let allowed = Arc::clone(&works);
	let wire = move |journal: Journal, _: &_| {
		let persist: Persist = Box::new(move || {
			let works = allowed.load(Ordering::SeqCst);
			let persisted = works.then_some(()).ok_or_else(|| io::ErrorKind::Other.into());
			Box::pin(std::future::ready(persisted))
		});
		journal.persist_before_sent(persist, |hash| hash.0[0] == 1)
	};
	let run = disk.start_with(with_queue(&[sent(1)]), Arc::new(disk.store()), wire);
	assert_eq!(run.process(), 0, "not handled while the manager is not durable");
	assert_eq!(run.process(), 0);
	assert_eq!(run.notes.lock().len(), 2);
	works.store(true, Ordering::SeqCst);
	assert_eq!(run.process(), 1);
	assert_eq!(run.entries().len(), 1);
	// Not for a payment of which no monitor event is un-acked, nor for other events.
	works.store(false, Ordering::SeqCst);
	run.tell(sent(2));
	run.tell(failed(1));
	run.tell(closed(3, 4, 1));
}

/// A commit that waits.
type HeldCommit = (Batch, Completer<Committed>);

/// A store that keeps commits waiting while it is held.
struct HeldStore {
	inner: MemoryStore,
	held: Mutex<Option<Vec<HeldCommit>>>,
}

impl HeldStore {
	fn release(&self) -> usize {
		let held = self.held.lock().take().unwrap();
		let count = held.len();
		for (batch, completer) in held {
			completer.complete(self.inner.commit(batch).wait());
		}
		count
	}
}

impl Store for HeldStore {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		match &mut *self.held.lock() {
			Some(held) => {
				let (completer, ticket) = Ticket::pair();
				held.push((batch, completer));
				ticket
			},
			None => self.inner.commit(batch),
		}
	}

	fn get(&self, key: &Key) -> Ticket<Option<Record>> {
		self.inner.get(key)
	}

	fn scan(&self, range: KeyRange, limit: usize) -> Ticket<Page> {
		self.inner.scan(range, limit)
	}

	fn guarantees(&self) -> Guarantees {
		self.inner.guarantees()
	}
}

fn held(disk: &Disk) -> (Arc<HeldStore>, Run) {
	let store = Arc::new(HeldStore { inner: disk.store(), held: Mutex::new(None) });
	let run = disk.start_with(Ldk::default(), Arc::<HeldStore>::clone(&store), |j, _| j);
	*store.held.lock() = Some(Vec::new());
	(store, run)
}

/// L14: events that LDK hands over together do not wait for the disk one by one, so that a store
/// commits them as one group; the manager waits for all of them.
#[test]
fn events_that_are_handed_over_together_do_not_wait_for_each_other() {
	let (store, run) = held(&Disk::new());
	run.ldk.lock().queue = (0..100).map(|n| closed(n, 4, n.into())).collect();
	assert_eq!(run.process(), 100, "the store has answered nothing yet");
	let persister = Arc::clone(&run.persister);
	let (done, ended) = std::sync::mpsc::channel();
	let writes = std::thread::spawn(move || done.send(persister.persist().is_ok()).unwrap());
	assert!(ended.try_recv().is_err(), "the manager waits");
	assert_eq!(store.release(), 100);
	assert!(ended.recv().unwrap());
	writes.join().unwrap();
	assert_eq!(run.entries().len(), 100);
}

/// A block may make LDK write a monitor without the event, so that it is durable when it counts as
/// handled.
#[test]
fn an_event_of_a_monitor_is_durable_before_it_is_handled() {
	let (store, run) = held(&Disk::new());
	let outputs = Event::SpendableOutputs {
		outputs: Vec::new(),
		channel_id: Some(ChannelId([1; 32])),
		counterparty_node_id: None,
	};
	let inline = |_| std::future::ready(Ok(()));
	let mut handled = pin!(run.journal.handle_async(outputs, inline));
	let mut context = std::task::Context::from_waker(std::task::Waker::noop());
	assert!(handled.as_mut().poll(&mut context).is_pending());
	store.release();
	assert!(handled.as_mut().poll(&mut context).is_ready());
}

/// LDK sends the updates that it had held back for these events right after the batch, from
/// whatever thread the task is on, and they need not pass a store of Leyden's.
#[test]
fn an_event_that_releases_a_monitor_update_is_durable_before_the_asynchronous_handler_ends() {
	for event in [sent(1), failed(1), claimed(1)] {
		let (store, run) = held(&Disk::new());
		let inline = |_| std::future::ready(Ok(()));
		let mut context = std::task::Context::from_waker(std::task::Waker::noop());
		let mut other = pin!(run.journal.handle_async(closed(3, 4, 1), inline));
		assert!(other.as_mut().poll(&mut context).is_ready(), "the manager waits for this one");
		let mut handled = pin!(run.journal.handle_async(event.clone(), inline));
		assert!(handled.as_mut().poll(&mut context).is_pending(), "{event:?}");
		store.release();
		assert!(matches!(handled.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
	}
}

/// The append stays where it is, and LDK's next try waits for that one.
#[test]
fn an_event_whose_append_fails_in_the_asynchronous_handler_is_one_entry_when_it_comes_again() {
	let disk = Disk::new();
	let store = Arc::new(AwayStore { inner: disk.store(), is_away: AtomicBool::new(false) });
	let run = disk.start_with(Ldk::default(), Arc::<AwayStore>::clone(&store), |j, _| j);
	let handle = || {
		let inline = |_| std::future::ready(Ok(()));
		block_on(pin!(run.journal.handle_async(failed(1), inline)).as_mut())
	};
	store.is_away.store(true, Ordering::SeqCst);
	assert!(handle().is_err());
	store.is_away.store(false, Ordering::SeqCst);
	assert!(handle().is_ok());
	run.persister.persist().unwrap();
	assert_eq!(run.entries().len(), 1);
}

/// A manager that Leyden has written is newer than bytes that the background processor encoded
/// before, and these do not take its place (L16).
#[test]
fn the_manager_on_disk_never_goes_back() {
	let disk = Disk::new();
	let run = disk.start(Ldk::default());
	let (primary, secondary) = (
		CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
		CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
	);
	let key = CHANNEL_MANAGER_PERSISTENCE_KEY;
	let older = run.ldk.lock().encode();
	run.ldk.lock().payments.insert([5; 32]);
	run.persister.persist().unwrap();
	run.persister.write(primary, secondary, key, older).unwrap();
	let durable = disk.kv.read(primary, secondary, key).unwrap();
	assert_eq!(durable, run.ldk.lock().encode());
}

#[test]
fn the_asynchronous_handler_does_the_same() {
	let disk = Disk::new();
	let run = disk.start(Ldk::default());
	let handle = |event| {
		let inline = |_| std::future::ready(Ok(()));
		let mut handled = pin!(run.journal.handle_async(event, inline));
		block_on(handled.as_mut())
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
