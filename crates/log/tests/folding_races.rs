//! Acks are folded into a consumer's watermark while they are read: by a step of housekeeping whose
//! answer has not come yet, and by another process. Nothing that was acked comes back meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{deliverable, event, Process, STREAM};
use leyden_log::{Consumer, LogIndex, LogOptions, LogReader, ACKS_BETWEEN_COMPACTIONS};
use leyden_store::{
	Batch, Committed, Durability, KeyRange, ManualClock, MemoryStore, Store, StoreError, Ticket,
	Timestamp,
};
use leyden_testkit::intact;
use leyden_testkit::{count_records, interrupt_everywhere, InterruptedStore};

/// Enough acks to have them folded.
const ACKED: u64 = 2 * ACKS_BETWEEN_COMPACTIONS;

fn index(n: u64) -> LogIndex {
	LogIndex::new(n).unwrap()
}

fn process(store: Arc<dyn Store>) -> Process {
	Process::over(store, Arc::new(ManualClock::new(Timestamp(1_000))), LogOptions::default())
}

fn append(process: &Process, numbers: impl Iterator<Item = u64>) {
	process.log.append_batch(numbers.map(|n| event(n, (n % 7) as u8)).collect()).unwrap();
}

fn unacked(consumer: &Consumer) -> Vec<u64> {
	let entries = intact(consumer.unacked(None, 10_000).unwrap());
	entries.iter().map(|entry| entry.index().get()).collect()
}

/// Polls a future of a store that answers at once.
fn answer<T>(future: impl Future<Output = T>) -> T {
	let mut context = std::task::Context::from_waker(std::task::Waker::noop());
	match std::pin::pin!(future).poll(&mut context) {
		std::task::Poll::Ready(answer) => answer,
		std::task::Poll::Pending => panic!("the store answers at once"),
	}
}

/// A store that keeps the answers of lazy batches, which are those of housekeeping here, to itself.
struct LateAnswers {
	inner: Arc<MemoryStore>,
	late: AtomicBool,
	kept: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl LateAnswers {
	fn answer(&self) {
		self.late.store(false, Ordering::SeqCst);
		self.kept.lock().unwrap().drain(..).for_each(|answer| answer());
	}
}

impl Store for LateAnswers {
	fn commit(&self, batch: Batch) -> Ticket<Committed> {
		let lazy = batch.required_durability() == Durability::Lazy;
		let done = self.inner.commit(batch);
		if !lazy || !self.late.load(Ordering::SeqCst) {
			return done;
		}
		let (completer, ticket) = Ticket::pair();
		self.kept.lock().unwrap().push(Box::new(move || completer.complete(done.wait())));
		ticket
	}

	leyden_testkit::forward_store!(inner);
}

/// The step is durable, and nothing in this process knows.
#[test]
fn nothing_acked_is_delivered_while_a_step_that_folds_it_is_not_answered() {
	let inner = Arc::new(MemoryStore::new().unwrap());
	let (late, kept) = (AtomicBool::new(false), Mutex::default());
	let store = Arc::new(LateAnswers { inner: Arc::clone(&inner), late, kept });
	let process = process(Arc::<LateAnswers>::clone(&store));
	let consumer = process.consumer("a");
	assert!(consumer.next_event().unwrap().is_none());
	append(&process, 1..=ACKED);
	store.late.store(true, Ordering::SeqCst);
	let acks: Vec<_> = (1..=ACKED).map(index).collect();
	consumer.ack_plan_many(&acks).run(&process.store).unwrap();
	assert_eq!(count_records(&*inner, "log_acks"), 0, "they are folded");
	assert_eq!(consumer.stats().watermark, 0, "which this handle has not heard of");
	append(&process, ACKED + 1..=ACKED + 1);
	assert!(consumer.is_acked(index(5)).unwrap());
	assert_eq!(unacked(&consumer), [ACKED + 1]);
	assert_eq!(deliverable(&consumer), [ACKED + 1]);
	store.answer();
	assert_eq!(deliverable(&consumer), [ACKED + 1]);
}

/// Has `read` read while its acks are folded before each of its requests in turn. `acked` are the
/// acks, as plans of the writer; each is one record.
fn while_folding(acked: &[(u64, u64)], entries: u64, read: impl Fn(&Arc<dyn Store>)) {
	while_acking(acked, entries, &[], read);
}

/// As [`while_folding`]; `late` is acked right before that.
fn while_acking(acked: &[(u64, u64)], entries: u64, late: &[u64], read: impl Fn(&Arc<dyn Store>)) {
	interrupt_everywhere(|at| {
		let inner = Arc::new(MemoryStore::new().unwrap());
		let writer = process(Arc::<MemoryStore>::clone(&inner));
		append(&writer, 1..=entries);
		let consumer = writer.consumer("a");
		for (first, last) in acked {
			// Written as one that has not counted to a pass yet.
			let acks: Vec<_> = (*first..=*last).map(index).collect();
			consumer.ack_plan_many(&acks).commit(&writer.store).wait().unwrap();
		}
		let late: Vec<_> = late.iter().copied().map(index).collect();
		let store = InterruptedStore::new(inner, at, move || {
			consumer.ack_plan_many(&late).run(&writer.store).unwrap();
			consumer.tidy().unwrap();
		});
		read(&(Arc::<InterruptedStore>::clone(&store) as Arc<dyn Store>));
		store
	});
}

/// Returns acks of several shapes: all, all but the first, every second (which does not fold), two runs.
fn shapes() -> Vec<Vec<(u64, u64)>> {
	vec![
		(1..=200).map(|n| (n, n)).collect(),
		(2..=200).map(|n| (n, n)).collect(),
		(1..=100).map(|n| (2 * n, 2 * n)).collect(),
		(1..=50).chain(60..=200).map(|n| (n, n)).collect(),
		vec![(1, 150), (151, 200)],
		(1..=9).map(|n| (n * 20 - 10, n * 20)).chain([(1, 1)]).collect(),
	]
}

fn left(acked: &[(u64, u64)], entries: u64) -> Vec<u64> {
	let is_acked = |n: &u64| acked.iter().any(|(first, last)| (first..=last).contains(&n));
	(1..=entries).filter(|n| !is_acked(n)).collect()
}

#[test]
fn a_reader_sees_no_acked_entry_as_unacked_while_acks_are_folded() {
	for acked in shapes() {
		let left = left(&acked, 210);
		while_folding(&acked, 210, |store| {
			let entries = LogReader::new(Arc::clone(store)).unacked(STREAM, "a", None, 1_000);
			let entries: Vec<_> =
				intact(entries.unwrap()).iter().map(|e| e.index().get()).collect();
			assert_eq!(entries, left);
		});
	}
}

/// More acks than are read in one page: a page that is read already, and the next one, become one
/// record meanwhile.
#[test]
fn a_reader_sees_no_acked_entry_as_unacked_while_acks_of_many_pages_are_folded() {
	const ENTRIES: u64 = 2_600;
	let acked: Vec<_> = (2..=2_500).map(|n| (n, n)).collect();
	let left = left(&acked, ENTRIES);
	while_folding(&acked, ENTRIES, |store| {
		let entries = LogReader::new(Arc::clone(store)).unacked(STREAM, "a", None, 10_000);
		let entries: Vec<_> = intact(entries.unwrap()).iter().map(|e| e.index().get()).collect();
		assert_eq!(entries, left);
	});
}

/// The first entry that is not acked is acked meanwhile, so that acks before and behind it become
/// one record, which begins before it.
#[test]
fn a_reader_sees_no_acked_entry_as_unacked_while_a_gap_is_acked() {
	let acked: Vec<_> = (2..=50).chain(52..=200).map(|n| (n, n)).collect();
	while_acking(&acked, 210, &[51], |store| {
		let reader = LogReader::new(Arc::clone(store));
		let entries = intact(reader.unacked(STREAM, "a", Some(index(1)), 1_000).unwrap());
		let entries: Vec<_> = entries.iter().map(|e| e.index().get()).collect();
		let others = entries.strip_prefix(&[51]).unwrap_or(&entries);
		assert_eq!(others, (201..=210).collect::<Vec<_>>());
	});
}

#[test]
fn a_reader_knows_an_ack_while_it_is_folded() {
	for acked in shapes() {
		for n in [1, 2, 75, 151, 200, 205] {
			let expected = !left(&acked, 210).contains(&n);
			while_folding(&acked, 210, |store| {
				let reader = LogReader::new(Arc::clone(store));
				assert_eq!(reader.is_acked(STREAM, "a", index(n)).unwrap(), expected, "{n}");
			});
		}
	}
}

#[test]
fn a_consumer_that_is_opened_while_its_acks_are_folded_delivers_none_of_them() {
	for acked in shapes() {
		let left = left(&acked, 210);
		while_folding(&acked, 210, |store| {
			let process = process(Arc::clone(store));
			let consumer = process.consumer("a");
			assert_eq!(unacked(&consumer), left);
			let mut delivered = Vec::new();
			while let Some(delivery) = consumer.next_event().unwrap() {
				delivered.push(delivery.index().get());
				delivery.ack().unwrap();
			}
			delivered.sort_unstable();
			assert_eq!(delivered, left);
		});
	}
}

#[test]
fn an_ack_of_another_consumer_is_known_while_it_is_folded() {
	for acked in shapes() {
		for n in [1, 2, 75, 151, 200, 205] {
			let expected = !left(&acked, 210).contains(&n);
			while_folding(&acked, 210, |store| {
				let log = process(Arc::clone(store)).log;
				let found = answer(log.is_acked_by_any(index(n), "b")).unwrap();
				assert_eq!(found, expected, "{n}");
			});
		}
	}
}

/// An error of the store stays one.
#[test]
fn what_cannot_be_read_is_an_error_and_no_answer() {
	let store: Arc<dyn Store> = Arc::new(MemoryStore::new().unwrap());
	let process = process(Arc::clone(&store));
	append(&process, 1..=3);
	let consumer = process.consumer("a");
	consumer.ack_plan_many(&[index(2)]).run(&store).unwrap();
	let mut batch = Batch::new();
	let value = leyden_store::Value::new(leyden_store::RecordType(0x8000), 1, *b"?");
	let page = store.scan(KeyRange::all(leyden_store::Table::new("log_consumers")), 10).wait();
	batch.put(page.unwrap().records[0].0.clone(), value);
	store.commit(batch).wait().unwrap();
	let refused = consumer.unacked(None, 10);
	assert!(
		matches!(&refused, Err(leyden_log::LogError::Store(StoreError::Corrupt { .. }))),
		"{refused:?}"
	);
}
