//! The journal and the snapshots, without nodes: what becomes of LDK's events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use leyden_id::{EventClass, IdStrength};
use leyden_ldk::{
	class_of, decode_event, Identity, Journal, JournalNote, ManagerSnapshots, ManagerStore,
	UnreadableEvent, EVENT_STREAM,
};
use leyden_log::{ConsumerOptions, EventLog, LogIndex, LogOptions};
use leyden_store::{ManualClock, MemoryMedium, MemoryStore, Namespace, Store};
use leyden_testkit::{Doom, FaultyStore, MemKv, Side};
use lightning::events::{Event, EventHandler, PaymentFailureReason, ReplayEvent};
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning::util::persist::{KVStoreSync, CHANNEL_MANAGER_PERSISTENCE_KEY};

type Inline = Box<dyn Fn(Event) -> Result<(), ReplayEvent> + Send + Sync>;

struct Life {
	store: Arc<dyn Store>,
	log: EventLog,
	journal: Journal<Inline>,
	snapshots: ManagerSnapshots,
	inline: Arc<Mutex<Vec<String>>>,
}

impl Life {
	fn on(medium: &MemoryMedium) -> Self {
		Self::over(Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap()))
	}

	fn over(store: Arc<dyn Store>) -> Self {
		let clock = Arc::new(ManualClock::default());
		let log = EventLog::open(Arc::clone(&store), EVENT_STREAM, clock, LogOptions::default());
		let log = log.unwrap();
		let inline: Arc<Mutex<Vec<String>>> = Arc::default();
		let seen = Arc::clone(&inline);
		let handler: Inline = Box::new(move |event| {
			seen.lock().unwrap().push(leyden_ldk::kind_of(&event).to_string());
			Ok(())
		});
		let journal = Journal::new(log.clone(), handler).settled_by_snapshots().unwrap();
		let snapshots = ManagerSnapshots::new(Arc::clone(&store), journal.settled_by());
		Self { store, log, journal, snapshots, inline }
	}

	fn entries(&self) -> usize {
		self.log.read(self.log.start().unwrap(), 1000).unwrap().0.len()
	}

	fn manager_written(&self) {
		self.snapshots.persist(Vec::new, |_| Ok(())).unwrap();
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

fn failed(payment: u8) -> Event {
	Event::PaymentFailed {
		payment_id: PaymentId([payment; 32]),
		payment_hash: Some(PaymentHash([payment; 32])),
		reason: Some(PaymentFailureReason::RetriesExhausted),
	}
}

fn inline_event() -> Event {
	Event::OnionMessagePeerConnected {
		peer_node_id: bitcoin::secp256k1::SecretKey::from_slice(&[3; 32])
			.unwrap()
			.public_key(&bitcoin::secp256k1::Secp256k1::new()),
	}
}

fn closed(channel: u8) -> Event {
	Event::ChannelClosed {
		channel_id: ChannelId([channel; 32]),
		user_channel_id: 1,
		reason: lightning::events::ClosureReason::CommitmentTxConfirmed,
		counterparty_node_id: None,
		channel_capacity_sats: Some(1),
		channel_funding_txo: None,
		last_local_balance_msat: None,
	}
}

#[test]
fn durable_events_are_written_down_and_read_back_and_others_are_answered_at_once() {
	let life = Life::on(&MemoryMedium::new());
	life.journal.handle_event(sent(1)).unwrap();
	life.journal.handle_event(inline_event()).unwrap();
	life.journal.handle_event(closed(2)).unwrap();
	assert_eq!(life.entries(), 2);
	assert_eq!(*life.inline.lock().unwrap(), ["OnionMessagePeerConnected"]);
	assert_eq!(class_of(&inline_event()), EventClass::ReplayedInProcess);
	let consumer = life.log.consumer("user", ConsumerOptions::default()).unwrap();
	let delivery = consumer.next_event().unwrap().unwrap();
	assert_eq!(delivery.kind().name(), "PaymentSent");
	assert_eq!(decode_event(delivery.payload()).unwrap(), sent(1));
	delivery.ack().unwrap();
}

#[test]
fn what_ldk_brings_again_is_one_entry() {
	let medium = MemoryMedium::new();
	let life = Life::on(&medium);
	life.journal.handle_event(sent(1)).unwrap();
	life.journal.handle_event(failed(2)).unwrap();
	drop(life);
	// The manager was not written: LDK brings both again.
	let life = Life::on(&medium);
	life.journal.handle_event(sent(1)).unwrap();
	life.journal.handle_event(failed(2)).unwrap();
	assert_eq!(life.entries(), 2);
}

#[test]
fn a_weak_event_that_happens_again_is_another_entry() {
	assert_eq!(Identity::of(&failed(2)).strength, IdStrength::Weak);
	let medium = MemoryMedium::new();
	let life = Life::on(&medium);
	life.journal.handle_event(failed(2)).unwrap();
	// Tried again, failed again, in one life: LDK does not repeat what was answered.
	life.journal.handle_event(failed(2)).unwrap();
	assert_eq!(life.entries(), 2);
	drop(life);
	// Both are brought again, and are recognized; a third is new.
	let life = Life::on(&medium);
	for _ in 0..3 {
		life.journal.handle_event(failed(2)).unwrap();
	}
	assert_eq!(life.entries(), 3);
	life.manager_written();
	drop(life);
	// The manager was written: LDK cannot bring them again, so this one is new.
	let life = Life::on(&medium);
	life.journal.handle_event(failed(2)).unwrap();
	assert_eq!(life.entries(), 4);
}

#[test]
fn a_strong_event_is_one_entry_whenever_it_comes() {
	assert_eq!(Identity::of(&sent(1)).strength, IdStrength::Strong);
	let medium = MemoryMedium::new();
	for _ in 0..3 {
		let life = Life::on(&medium);
		life.journal.handle_event(sent(1)).unwrap();
		life.manager_written();
		life.journal.handle_event(sent(1)).unwrap();
		assert_eq!(life.entries(), 1);
	}
	assert_ne!(Identity::of(&sent(1)).id, Identity::of(&sent(2)).id);
	assert_ne!(Identity::of(&sent(1)).id, Identity::of(&failed(1)).id);
}

#[test]
fn what_cannot_be_written_down_is_asked_for_again() {
	let inner = Arc::new(MemoryStore::new().unwrap());
	// Creating the logs and the ledger takes two commits.
	let store = Arc::new(FaultyStore::new(inner, Doom::at(2, Side::Before)));
	let life = Life::over(store);
	let notes: Arc<Mutex<Vec<String>>> = Arc::default();
	let seen = Arc::clone(&notes);
	let journal = life.journal.with_observer(move |note: &JournalNote| {
		seen.lock().unwrap().push(note.to_string());
	});
	assert!(journal.handle_event(sent(1)).is_err());
	assert_eq!(notes.lock().unwrap().len(), 1);
	assert!(!notes.lock().unwrap()[0].contains("07070707"), "no preimage");
}

#[test]
fn the_barrier_comes_before_a_payments_end_is_handled() {
	let life = Life::on(&MemoryMedium::new());
	let (writes, works) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
	let (counts, allowed) = (Arc::clone(&writes), Arc::clone(&works));
	let journal = life.journal.with_barrier(
		move || {
			counts.fetch_add(1, Ordering::SeqCst);
			match allowed.load(Ordering::SeqCst) {
				true => Ok(()),
				false => Err(lightning::io::ErrorKind::Other.into()),
			}
		},
		|hash| hash.0[0] == 1,
	);
	assert!(journal.handle_event(sent(1)).is_err(), "not handled while the manager is not durable");
	works.store(true, Ordering::SeqCst);
	journal.handle_event(sent(1)).unwrap();
	assert_eq!(writes.load(Ordering::SeqCst), 2);
	// Not needed for a payment of which no monitor event is un-acked, nor for other events.
	journal.handle_event(sent(2)).unwrap();
	journal.handle_event(closed(3)).unwrap();
	assert_eq!(writes.load(Ordering::SeqCst), 2);
}

#[test]
fn the_asynchronous_handler_submits_in_the_call() {
	let medium = MemoryMedium::new();
	let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&medium, Namespace::default()).unwrap());
	let clock = Arc::new(ManualClock::default());
	let log = EventLog::open(store, EVENT_STREAM, clock, LogOptions::default()).unwrap();
	let journal = Journal::new(log.clone(), |_: Event| std::future::ready(Ok(())));
	let handled = journal.handle_event_async(sent(1));
	assert!(log.entry(LogIndex::new(1).unwrap()).unwrap().is_some(), "before it is polled");
	let mut handled = pin!(handled);
	let mut context = Context::from_waker(Waker::noop());
	assert!(matches!(handled.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
	let mut inline = pin!(journal.handle_event_async(inline_event()));
	assert!(matches!(inline.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
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

/// The background processor encodes the manager and then writes it; what is handed out between the
/// two is not in the bytes.
#[test]
fn a_store_that_sees_the_manager_lags_by_one_write() {
	let medium = MemoryMedium::new();
	let life = Life::on(&medium);
	let kv = ManagerStore::new(Arc::new(MemKv::new()), life.snapshots.clone());
	let write = |key: &str| KVStoreSync::write(&kv, "", "", key, vec![1]).unwrap();
	let unsettled = || {
		let ledger = life.log.consumer("ldk", ConsumerOptions::default()).unwrap();
		ledger.unacked(None, 10).unwrap().len()
	};
	life.journal.handle_event(sent(1)).unwrap();
	// This event may have come after the bytes of this write were encoded.
	write(CHANNEL_MANAGER_PERSISTENCE_KEY);
	assert_eq!(unsettled(), 1);
	write("something_else");
	assert_eq!(unsettled(), 1);
	life.journal.handle_event(sent(2)).unwrap();
	write(CHANNEL_MANAGER_PERSISTENCE_KEY);
	assert_eq!(unsettled(), 1, "the first is in these bytes, the second may not be");
	write(CHANNEL_MANAGER_PERSISTENCE_KEY);
	assert_eq!(unsettled(), 0);
	assert_eq!(KVStoreSync::read(&kv, "", "", "something_else").unwrap(), [1]);
	let _ = &life.store;
}
