// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The rules of the bus, one by one, over a scripted chain monitor: it produces what a real one
//! cannot be made to produce on demand (a log that fails at the wrong moment, a variant of the
//! future). What real nodes do is in `tests/`.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use leyden_log::{EventLog, LogOptions};
use leyden_store::{
	Batch, Committed, ManualClock, MemoryMedium, MemoryStore, Namespace, Store, StoreError, Ticket,
};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent};
use lightning::chain::transaction::{OutPoint, TransactionData};
use lightning::chain::{BlockLocator, ChannelMonitorUpdateStatus, Listen, Watch};
use lightning::ln::types::ChannelId;
use lightning::sign::InMemorySigner;
use parking_lot::Mutex;

use super::view::tests::forward;
use super::*;
use crate::persist_tracker::{ManagerPersistListener, ManagerPersistTracker};

mod threads;

const CLOSE: MonitorEvent = MonitorEvent::CommitmentTxConfirmed(());

/// A chain monitor that produces what it is told to.
#[derive(Default)]
struct Script {
	events: Mutex<VecDeque<(u8, MonitorEvent)>>,
	monitors: Mutex<HashMap<ChannelId, bool>>,
	/// The count of times that all monitors were listed.
	lists: AtomicUsize,
	blocks: AtomicUsize,
	archived: AtomicUsize,
	/// Called when the bus takes the events, or lists the monitors.
	hook: Mutex<Option<Hook>>,
}

/// A hook of a script.
type Hook = Arc<dyn Fn(Asked) + Send + Sync>;

/// A call of the bus that a hook sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
	Events,
	Monitors,
}

impl Script {
	fn asked(&self, asked: Asked) {
		let hook = self.hook.lock().clone();
		if let Some(hook) = hook {
			hook(asked);
		}
	}

	fn produce(&self, channel: u8, event: MonitorEvent) {
		self.monitors.lock().entry(ChannelId([channel; 32])).or_default();
		self.events.lock().push_back((channel, event));
	}
}

impl MonitorSet for Script {
	fn monitors(&self) -> HashMap<ChannelId, bool> {
		self.asked(Asked::Monitors);
		self.lists.fetch_add(1, Ordering::SeqCst);
		self.monitors.lock().clone()
	}

	fn is_loaded(&self, channel_id: &ChannelId) -> bool {
		self.monitors.lock().contains_key(channel_id)
	}

	fn archive_fully_resolved_channel_monitors(&self) {
		self.archived.fetch_add(1, Ordering::SeqCst);
	}
}

impl Listen for Script {
	fn filtered_block_connected(&self, _: &Header, _: &TransactionData, _: u32) {
		self.blocks.fetch_add(1, Ordering::SeqCst);
	}

	fn blocks_disconnected(&self, _: BlockLocator) {}
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

	fn release_pending_monitor_events(
		&self,
	) -> Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)> {
		self.asked(Asked::Events);
		let events = std::mem::take(&mut *self.events.lock());
		events
			.into_iter()
			.map(|(c, e)| (outpoint(c), ChannelId([c; 32]), vec![e], peer()))
			.collect()
	}
}

/// A store whose commits can be made to fail, and are counted.
struct Tap {
	inner: MemoryStore,
	failing: AtomicBool,
	failing_for_good: AtomicBool,
	/// The next commit is done, and its answer is an error.
	late: AtomicBool,
	commits: AtomicUsize,
}

impl Store for Tap {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		if self.failing.load(Ordering::SeqCst) {
			return Ticket::ready(Err(StoreError::NoSpace { place: "here".to_owned() }));
		}
		if self.failing_for_good.load(Ordering::SeqCst) {
			return Ticket::ready(Err(StoreError::Poisoned { because: "a test".to_owned() }));
		}
		self.commits.fetch_add(1, Ordering::SeqCst);
		if self.late.swap(false, Ordering::SeqCst) {
			let _ = self.inner.commit(batch).wait();
			return Ticket::ready(Err(StoreError::NoSpace { place: "here".to_owned() }));
		}
		self.inner.commit(batch)
	}

	leyden_testkit::forward_store!(inner);
}

/// One life of a node: a bus on what earlier lives left on the medium.
struct Life {
	script: Arc<Script>,
	tap: Arc<Tap>,
	log: EventLog,
	bus: Arc<MonitorBus<Arc<Script>>>,
	snapshots: ManagerPersistTracker,
	notes: Arc<Mutex<Vec<BusNote>>>,
}

impl Life {
	fn new(medium: &MemoryMedium) -> Self {
		let inner = MemoryStore::open(medium, Namespace::default()).unwrap();
		let tap = Arc::new(Tap {
			inner,
			failing: AtomicBool::new(false),
			failing_for_good: AtomicBool::new(false),
			late: AtomicBool::new(false),
			commits: AtomicUsize::new(0),
		});
		let store: Arc<dyn Store> = Arc::<Tap>::clone(&tap);
		let clock = Arc::new(ManualClock::default());
		let options = LogOptions::default();
		let log = EventLog::open(Arc::clone(&store), MONITOR_STREAM, clock, options).unwrap();
		let notes = Arc::new(Mutex::new(Vec::new()));
		let seen = Arc::clone(&notes);
		let script = Arc::new(Script::default());
		let bus = MonitorBus::new(Arc::clone(&script), log.clone()).unwrap();
		let bus = Arc::new(bus.with_observer(move |note| seen.lock().push(note.clone())));
		let waiting: Arc<dyn ManagerPersistListener> = Arc::<MonitorBus<_>>::clone(&bus);
		let snapshots = ManagerPersistTracker::new(store, [waiting]);
		Self { script, tap, log, bus, snapshots, notes }
	}

	/// What the manager is given, as channel and kind.
	fn release(&self) -> Vec<(u8, MonitorEventKind)> {
		let out = Watch::<InMemorySigner>::release_pending_monitor_events(&*self.bus);
		let kinds = |(_, channel, events, _): (_, ChannelId, Vec<MonitorEvent>, _)| {
			let kind = move |event: &MonitorEvent| (channel.0[0], view::View::of(event).kind);
			events.iter().map(kind).collect::<Vec<_>>()
		};
		out.into_iter().flat_map(kinds).collect()
	}

	fn unacked(&self) -> usize {
		self.bus.unacked(None, 1000).unwrap().len()
	}

	fn persist(&self) {
		self.snapshots.begin().persisted().wait().unwrap();
	}

	fn fail(&self, failing: bool) {
		self.tap.failing.store(failing, Ordering::SeqCst);
	}

	fn block(&self) {
		let header = Header {
			version: bitcoin::block::Version::ONE,
			prev_blockhash: bitcoin::BlockHash::all_zeros(),
			merkle_root: bitcoin::TxMerkleNode::all_zeros(),
			time: 0,
			bits: bitcoin::CompactTarget::from_consensus(0),
			nonce: 0,
		};
		self.bus.filtered_block_connected(&header, &[], 1);
	}
}

fn outpoint(channel: u8) -> OutPoint {
	OutPoint { txid: bitcoin::Txid::from_byte_array([channel; 32]), index: 0 }
}

fn peer() -> PublicKey {
	SecretKey::from_slice(&[3; 32]).unwrap().public_key(&Secp256k1::new())
}

fn completed(channel: u8) -> MonitorEvent {
	MonitorEvent::Completed {
		funding_txo: outpoint(channel),
		channel_id: ChannelId([channel; 32]),
		monitor_update_id: 1,
	}
}

use MonitorEventKind::{
	CommitmentTxConfirmed as Close, Completed, HtlcClaim as Claim, HtlcFail as Fail,
};

#[test]
fn what_was_handed_out_comes_again_in_order_and_before_anything_new() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.script.produce(2, CLOSE);
	assert_eq!(life.release(), [(1, Close), (2, Close)]);
	life.script.produce(1, forward(5, 10, 0, true));
	assert_eq!(life.release(), [(1, Claim)]);
	assert_eq!(life.release(), []);

	let life = Life::new(&medium);
	life.script.produce(3, CLOSE);
	for channel in [1, 2] {
		life.script.monitors.lock().insert(ChannelId([channel; 32]), false);
	}
	assert_eq!(life.release(), [(1, Close), (2, Close), (1, Claim), (3, Close)]);
	assert_eq!(life.release(), []);
}

#[test]
fn a_batch_is_one_commit_and_an_empty_one_is_none() {
	let life = Life::new(&MemoryMedium::new());
	let before = life.tap.commits.load(Ordering::SeqCst);
	for n in 0..50 {
		life.script.produce(1, forward(5, 10, n, true));
	}
	assert_eq!(life.release().len(), 51);
	assert_eq!(life.tap.commits.load(Ordering::SeqCst), before + 1);
	life.release();
	life.script.produce(1, completed(1));
	assert_eq!(life.release(), [(1, Completed)]);
	assert_eq!(life.tap.commits.load(Ordering::SeqCst), before + 1);
}

#[test]
fn completed_is_never_logged() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.script.produce(1, completed(1));
	assert_eq!(life.release(), [(1, Close), (1, Completed)]);
	assert_eq!(life.unacked(), 1);
}

#[test]
fn nothing_is_handed_out_that_is_not_logged_and_order_is_kept() {
	let life = Life::new(&MemoryMedium::new());
	life.script.produce(1, CLOSE);
	life.script.produce(1, completed(1));
	life.fail(true);
	assert_eq!(life.release(), []);
	life.script.produce(2, CLOSE);
	assert_eq!(life.release(), []);
	life.fail(false);
	assert_eq!(life.release(), [(1, Close), (1, Completed)]);
	assert_eq!(life.release(), [(2, Close)]);
	assert!(matches!(life.notes.lock().first(), Some(BusNote::LogFailed { .. })));
}

/// The store has done the commit and says that it has not; the next release finds the entries.
#[test]
fn an_event_whose_commit_was_answered_too_late_waits_for_the_manager_like_any_other() {
	let life = Life::new(&MemoryMedium::new());
	life.script.produce(1, CLOSE);
	life.tap.late.store(true, Ordering::SeqCst);
	assert_eq!(life.release(), []);
	assert_eq!(life.release(), [(1, Close)]);
	assert_eq!(life.release(), []);
	assert_eq!(life.unacked(), 1);
	life.persist();
	assert_eq!(life.unacked(), 0, "the manager is durable that has it");
}

#[test]
fn a_monitor_does_not_move_on_without_its_events() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.fail(true);
	assert_eq!(life.release(), []);
	life.block();
	// Not passed on: on disk, the monitor still holds the event.
	assert_eq!(life.script.blocks.load(Ordering::SeqCst), 0);
	assert!(life.bus.is_stopped());
	// And it stays that way, since blocks are missing.
	life.fail(false);
	life.block();
	assert_eq!(life.script.blocks.load(Ordering::SeqCst), 0);
	assert_eq!(life.release(), []);
	assert!(life.notes.lock().iter().any(|note| matches!(note, BusNote::Stopped { .. })));
}

#[test]
fn a_block_first_logs_what_could_not_be_logged_before() {
	let life = Life::new(&MemoryMedium::new());
	life.script.produce(1, CLOSE);
	life.fail(true);
	assert_eq!(life.release(), []);
	life.fail(false);
	life.block();
	assert_eq!(life.script.blocks.load(Ordering::SeqCst), 1);
	assert_eq!(life.unacked(), 1);
	// Logged is not handed out: a snapshot taken now does not hold it.
	life.persist();
	assert_eq!(life.unacked(), 1);
	assert_eq!(life.release(), [(1, Close)]);
	life.persist();
	assert_eq!(life.unacked(), 0);
}

#[test]
fn only_a_snapshot_encoded_after_the_hand_out_acks() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	let before = life.snapshots.begin();
	life.release();
	before.persisted().wait().unwrap();
	assert_eq!(life.unacked(), 1);

	// A manager whose write failed.
	drop(life.snapshots.begin());
	assert_eq!(life.unacked(), 1);

	life.persist();
	assert_eq!(life.unacked(), 0);
	assert_eq!(Life::new(&medium).release(), []);
}

#[test]
fn a_snapshot_acks_only_what_it_holds() {
	let life = Life::new(&MemoryMedium::new());
	life.script.produce(1, CLOSE);
	life.release();
	let snapshot = life.snapshots.begin();
	life.script.produce(2, CLOSE);
	life.release();
	snapshot.persisted().wait().unwrap();
	let left = life.bus.unacked(None, 10).unwrap();
	assert_eq!(left.iter().map(|e| e.source.channel_id.0[0]).collect::<Vec<_>>(), [2]);
}

#[test]
fn the_manager_hears_of_the_close_before_an_htlc_and_once() {
	let life = Life::new(&MemoryMedium::new());
	life.script.produce(1, forward(5, 10, 0, true));
	life.script.produce(1, forward(5, 10, 1, true));
	life.script.produce(2, CLOSE);
	life.script.produce(2, forward(5, 11, 0, true));
	let expected = [(1, Close), (1, Claim), (1, Claim), (2, Close), (2, Claim)];
	assert_eq!(life.release(), expected);
	// The close that was put in front is no entry.
	assert_eq!(life.unacked(), 4);
}

#[test]
fn an_event_that_is_produced_again_is_one_entry() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.release();
	life.script.produce(1, CLOSE);
	assert_eq!(life.release(), [], "the manager has it");
	assert_eq!(life.unacked(), 1);

	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	assert_eq!(life.release(), [(1, Close)], "replayed, and not a second time from the monitor");
	life.persist();
	life.script.produce(1, CLOSE);
	assert_eq!(life.release(), [(1, Close)], "acked: never withheld");
	assert_eq!(life.unacked(), 0, "and no new entry");
	let notes = life.notes.lock();
	assert!(notes.iter().any(|note| matches!(note, BusNote::Regenerated { .. })));
}

/// LDK brings an event again in another encoding, as it does after an upgrade: it has the same id,
/// and nothing that comes with it is held back.
#[test]
fn an_event_that_comes_again_in_another_encoding_holds_nothing_back() {
	let life = Life::new(&MemoryMedium::new());
	let bare = MonitorEvent::HolderForceClosed(outpoint(1));
	let with_info = MonitorEvent::HolderForceClosedWithInfo {
		reason: lightning::events::ClosureReason::HTLCsTimedOut { payment_hash: None },
		outpoint: outpoint(1),
		channel_id: ChannelId::v1_from_funding_outpoint(outpoint(1)),
	};
	life.script.produce(1, bare);
	assert_eq!(life.release().len(), 1);
	life.script.produce(1, with_info);
	life.script.produce(2, CLOSE);
	assert_eq!(life.release(), [(2, Close)]);
	assert_eq!(life.unacked(), 2);
}

#[test]
fn an_entry_without_a_loaded_monitor_is_quarantined_and_not_lost() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.script.produce(1, forward(5, 10, 0, true));
	life.release();

	let life = Life::new(&medium);
	assert_eq!(life.release(), []);
	let quarantined = life.bus.unacked(None, 10).unwrap();
	assert_eq!(quarantined.len(), 2);
	assert!(quarantined.iter().all(|e| e.quarantine == Some(Quarantine::MonitorNotLoaded)));
	// A snapshot does not ack what was not handed out.
	life.persist();
	assert_eq!(life.unacked(), 2);
	// Once the monitor is there, it is due.
	life.script.monitors.lock().insert(ChannelId([1; 32]), false);
	assert_eq!(life.release(), [(1, Close), (1, Claim)]);
}

/// A damaged entry is told and set aside. All others are handed out, of its channel as well.
#[test]
fn a_damaged_entry_is_quarantined_and_holds_up_no_other() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.script.produce(1, forward(5, 10, 0, true));
	life.script.produce(2, CLOSE);
	life.release();
	let damage = |index: u64| {
		let name = [MONITOR_STREAM.as_bytes(), &[0]].concat();
		let key =
			leyden_store::Key::numbered(leyden_store::Table::new("log_entries"), &name, index);
		medium.damage(&Namespace::default(), &key, |frame| {
			let at = frame.len() - 50;
			frame[at] ^= 1;
		});
	};
	damage(1);
	// No monitor of the second channel is loaded, and its entry is damaged while it waits for one.
	let life = Life::new(&medium);
	life.script.monitors.lock().insert(ChannelId([1; 32]), false);
	// The close is what is damaged. The manager is told of it all the same, before the HTLC.
	assert_eq!(life.release(), [(1, Close), (1, Claim)]);
	let malformed = |note: &BusNote| match note {
		BusNote::Quarantined { source, why: Quarantine::Malformed } => Some(source.event_id),
		_ => None,
	};
	let told = |life: &Life| life.notes.lock().iter().filter_map(malformed).collect::<Vec<_>>();
	assert_eq!(told(&life), [1]);
	damage(3);
	life.script.monitors.lock().insert(ChannelId([2; 32]), false);
	assert_eq!(life.release(), []);
	assert_eq!(told(&life), [1, 3]);
	let left = life.bus.unacked(None, 10).unwrap();
	assert_eq!((left[0].quarantine, left[0].kind.as_ref()), (Some(Quarantine::Malformed), None));
	assert_eq!(left[0].source.channel_id, leyden_id::ChannelId([1; 32]));
	assert!(!life.bus.is_stopped());
	life.bus.ack_monitor_event(left[0].source).unwrap();
	life.persist();
	assert_eq!(life.unacked(), 1);
}

#[test]
fn an_operator_can_end_a_quarantine() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.release();
	let life = Life::new(&medium);
	life.release();
	let source = life.bus.unacked(None, 10).unwrap()[0].source;
	life.bus.ack_monitor_event(source).unwrap();
	assert_eq!(life.unacked(), 0);
}

#[test]
fn a_replayed_failure_waits_for_updates_in_flight() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.script.produce(1, forward(5, 10, 0, false));
	life.script.produce(1, forward(5, 10, 1, true));
	life.release();

	let life = Life::new(&medium);
	life.script.monitors.lock().insert(ChannelId([1; 32]), true);
	assert_eq!(life.release(), [(1, Close), (1, Claim)]);
	assert!(!life.bus.archive_fully_resolved_channel_monitors().unwrap());
	life.script.monitors.lock().insert(ChannelId([1; 32]), false);
	// LDK says so.
	life.script.produce(1, completed(1));
	assert_eq!(life.release(), [(1, Fail), (1, Completed)]);
}

/// L15: neither an entry in quarantine nor one that waits makes a release ask about all channels.
#[test]
fn a_release_asks_about_the_channels_that_it_waits_for_and_no_others() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.script.produce(2, forward(5, 10, 0, false));
	life.release();

	let life = Life::new(&medium);
	life.script.monitors.lock().insert(ChannelId([2; 32]), true);
	life.release();
	let asked = life.script.lists.load(Ordering::SeqCst);
	for _ in 0..10 {
		assert_eq!(life.release(), []);
	}
	assert_eq!(life.script.lists.load(Ordering::SeqCst), asked);
}

#[test]
fn monitors_are_not_archived_while_their_events_are_unacked() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.release();
	assert!(!life.bus.archive_fully_resolved_channel_monitors().unwrap());
	life.persist();
	assert!(life.bus.archive_fully_resolved_channel_monitors().unwrap());
	assert_eq!(life.script.archived.load(Ordering::SeqCst), 1);
	// A new life has not even looked at what is owed.
	let life = Life::new(&medium);
	assert!(!life.bus.archive_fully_resolved_channel_monitors().unwrap());
}

#[test]
fn a_variant_of_the_future_is_kept_and_reported() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.release();
	let entry = life.log.entry(leyden_log::LogIndex::new(1).unwrap()).unwrap().unwrap();
	let mut payload = entry.payload()[..100].to_vec();
	payload.extend_from_slice(&[201, 0]);
	life.log
		.append(leyden_log::NewEvent {
			id: leyden_id::EventId::from_bytes([9; 32]),
			kind: leyden_id::EventKind::from_static("HtlcUnheardOf"),
			lane: leyden_id::Lane::GLOBAL,
			payload,
		})
		.unwrap();

	let life = Life::new(&medium);
	life.script.monitors.lock().insert(ChannelId([1; 32]), false);
	assert_eq!(life.release(), [(1, Close)]);
	life.persist();
	let left = life.bus.unacked(None, 10).unwrap();
	assert_eq!(left.len(), 1);
	assert_eq!(left[0].quarantine, Some(Quarantine::UnknownEvent));
	assert_eq!(left[0].kind.as_ref().unwrap().name(), "HtlcUnheardOf");
}

#[test]
fn payments_are_unsettled_until_a_snapshot_holds_their_events() {
	let life = Life::new(&MemoryMedium::new());
	let hash = lightning::types::payment::PaymentHash([5; 32]);
	assert!(!life.bus.is_unsettled(&hash));
	life.script.produce(1, forward(5, 10, 0, true));
	life.script.produce(1, forward(5, 10, 1, true));
	life.release();
	assert!(life.bus.is_unsettled(&hash));
	life.persist();
	assert!(!life.bus.is_unsettled(&hash));
}

#[test]
fn an_event_in_quarantine_that_a_monitor_produces_again_is_acked_by_a_later_snapshot() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.release();

	let life = Life::new(&medium);
	assert_eq!(life.release(), []);
	// The monitor produces the event again while the entry is set aside.
	life.script.produce(1, CLOSE);
	assert_eq!(life.release(), [(1, Close)]);
	assert_eq!(life.release(), []);
	assert_eq!(life.unacked(), 1);
	life.persist();
	assert_eq!(life.unacked(), 0);
}

#[test]
fn a_replay_goes_on_after_its_first_page() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	let count = release::MAX_REPLAYED_PER_CALL as u64 + 10;
	life.script.produce(1, CLOSE);
	for n in 1..count {
		life.script.produce(1, forward(5, 10, n, true));
	}
	life.release();

	let life = Life::new(&medium);
	life.script.monitors.lock().insert(ChannelId([1; 32]), false);
	life.script.produce(2, CLOSE);
	assert_eq!(life.release().len(), release::MAX_REPLAYED_PER_CALL);
	assert_eq!(life.release().len(), 11, "the rest of the replay, and then the new event");
}

#[test]
fn an_error_that_no_retry_mends_stops_the_bus_at_once() {
	let life = Life::new(&MemoryMedium::new());
	life.script.produce(1, CLOSE);
	life.tap.failing_for_good.store(true, Ordering::SeqCst);
	assert_eq!(life.release(), []);
	assert!(life.bus.is_stopped());
	let mut stopped = std::pin::pin!(life.bus.stopped());
	let mut context = std::task::Context::from_waker(std::task::Waker::noop());
	match stopped.as_mut().poll(&mut context) {
		std::task::Poll::Ready(reason) => assert!(reason.contains("a test"), "{reason}"),
		std::task::Poll::Pending => panic!("the bus stopped and its future did not end"),
	}
	assert!(life.notes.lock().iter().any(|note| matches!(note, BusNote::Stopped { .. })));
}

#[test]
fn channels_of_two_counterparties_with_one_id_are_two_channels() {
	let other = SecretKey::from_slice(&[4; 32]).unwrap().public_key(&Secp256k1::new());
	let (mut state, mut out) = (state::State::new(), Vec::new());
	for counterparty in [peer(), other] {
		let event = forward(5, 10, 0, true);
		let view = view::View::of(&event);
		let (funding, channel_id) = (outpoint(1), ChannelId([1; 32]));
		let entry = entry::MonitorEntry { funding, channel_id, event, counterparty };
		assert!(state.hand_out(&mut out, None, &view, entry), "each needs a close of its own");
	}
	let told: Vec<_> = out.iter().map(|(_, _, events, peer)| (events.len(), *peer)).collect();
	assert_eq!(told, [(2, peer()), (2, other)]);
}
