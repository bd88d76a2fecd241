// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

use super::*;
use crate::{MemoryMedium, MemoryStore, Namespace, Value};

/// A witness in memory, which can be broken.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<(Option<HistoryMark>, bool)>>, Arc<Condvar>);

impl Witness for Known {
	fn newest(&self) -> io::Result<Option<HistoryMark>> {
		Ok(self.0.lock().0)
	}

	fn remember(&self, mark: &HistoryMark) -> io::Result<()> {
		let mut known = self.0.lock();
		if known.1 {
			return Err(io::Error::other("it is broken"));
		}
		known.0 = Some(*mark);
		self.1.notify_all();
		Ok(())
	}

	fn place(&self) -> String {
		"memory".to_owned()
	}
}

fn store(medium: &MemoryMedium) -> Arc<dyn Store> {
	Arc::new(MemoryStore::open(medium, Namespace::default()).unwrap())
}

fn open(medium: &MemoryMedium, known: &Known) -> Result<WitnessedStore, StoreError> {
	WitnessedStore::open(store(medium), Box::new(known.clone()))
}

fn put(store: &dyn Store, number: u64) {
	let mut batch = Batch::new();
	let key = Key::new(Table::new("t"), number.to_be_bytes());
	batch.put(key, Value::new(crate::RecordType(0x8000), 1, vec![1]));
	store.commit(batch).wait().unwrap();
}

fn reason(opened: Result<WitnessedStore, StoreError>) -> &'static str {
	match opened {
		Err(StoreError::Restored { reason, .. }) => reason,
		other => panic!("{other:?}"),
	}
}

/// Ends a process: what it had open is left as it is.
fn crash(store: WitnessedStore) {
	store.shared.told.lock().closing = true;
	store.shared.changed.notify_all();
	let mut store = store;
	if let Some(thread) = store.thread.take() {
		thread.join().unwrap();
	}
	std::mem::forget(store);
}

#[test]
fn a_database_that_goes_on_is_opened_whatever_ends_its_process() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let first = open(&medium, &known).unwrap();
	assert_eq!(first.witnessed(), Witnessed::New);
	for n in 0..100 {
		put(&first, n);
	}
	crash(first);
	let second = open(&medium, &known).unwrap();
	assert_eq!(second.witnessed(), Witnessed::Confirmed);
	drop(second);
	assert_eq!(open(&medium, &known).unwrap().witnessed(), Witnessed::Confirmed);
}

#[test]
fn a_database_that_lacks_a_commit_is_refused_until_it_is_accepted() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let opened = open(&medium, &known).unwrap();
	put(&opened, 1);
	opened.catch_up().unwrap();
	let older = medium.snapshot();
	put(&opened, 2);
	opened.catch_up().unwrap();
	crash(opened);
	assert_eq!(reason(open(&older, &known)), "it lacks what was committed last");
	// What is refused is left as it is.
	assert_eq!(reason(open(&older, &known)), "it lacks what was committed last");
	accept(&*store(&older), &known).unwrap();
	let accepted = open(&older, &known).unwrap();
	assert_eq!(restorations(&accepted).unwrap(), 1);
	drop(accepted);
	// The newer one is another database now.
	assert!(reason(open(&medium, &known)).starts_with("it is another database"));
	accept(&*store(&medium), &known).unwrap();
	assert_eq!(open(&medium, &known).unwrap().witnessed(), Witnessed::Confirmed);
}

/// A copy of before the last closing, however little was done since.
#[test]
fn every_opening_and_closing_is_known() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	drop(open(&medium, &known).unwrap());
	let closed = medium.snapshot();
	let opened = open(&medium, &known).unwrap();
	let copied = medium.snapshot();
	assert_eq!(reason(open(&closed, &known)), "it lacks what was committed last");
	drop(opened);
	assert_eq!(reason(open(&copied, &known)), "it lacks what was committed last");
}

#[test]
fn a_copy_of_a_store_in_use_is_no_store_without_its_witness() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let opened = open(&medium, &known).unwrap();
	let copy = medium.snapshot();
	assert!(reason(open(&copy, &Known::default())).starts_with("it is a copy"));
	drop(opened);
	// Closed in order, it may be moved.
	let moved = open(&medium.snapshot(), &Known::default()).unwrap();
	assert_eq!(moved.witnessed(), Witnessed::Missing);
	let told = Arc::new(Mutex::new(Vec::new()));
	let telling = Arc::clone(&told);
	moved.observe(Arc::new(move |event: &StoreEvent| telling.lock().push(event.to_string())));
	assert!(told.lock()[0].starts_with("there was no witness"), "{:?}", told.lock());
}

/// Only a store that its witness has confirmed, or that is new, is known to be the newest copy of itself.
#[test]
fn a_store_notices_old_copies_only_if_its_witness_knows_it() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let notices = |store: &WitnessedStore| store.guarantees().notices_old_copies;
	let new = open(&medium, &known).unwrap();
	assert!(notices(&new), "new");
	drop(new);
	let confirmed = open(&medium, &known).unwrap();
	assert!(notices(&confirmed), "confirmed");
	drop(confirmed);
	// Closed in order, and opened where no witness is: any copy may be.
	let moved = open(&medium.snapshot(), &Known::default()).unwrap();
	assert_eq!(moved.witnessed(), Witnessed::Missing);
	assert!(!notices(&moved), "missing");
	known.0.lock().1 = true;
	let broken = open(&medium, &known).unwrap();
	assert_eq!(broken.witnessed(), Witnessed::Confirmed);
	assert!(!notices(&broken), "takes no marks");
}

#[test]
fn an_empty_database_in_the_place_of_another_is_refused() {
	let known = Known::default();
	drop(open(&MemoryMedium::new(), &known).unwrap());
	assert_eq!(
		reason(open(&MemoryMedium::new(), &known)),
		"it has no history, and its witness knows one"
	);
}

/// A commit is known to the witness soon after, also one that took no mark along, and without
/// another one behind it.
#[test]
fn what_is_committed_is_known_soon() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let opened = open(&medium, &known).unwrap();
	put(&opened, 1);
	put(&opened, 2);
	let of_copy = read(&opened).unwrap().unwrap().number;
	let older = medium.snapshot();
	put(&opened, 3);
	// Until the witness is ahead of the copy.
	let mut newest = known.0.lock();
	while newest.0.unwrap().number <= of_copy {
		let waited = known.1.wait_for(&mut newest, Duration::from_secs(30));
		assert!(!waited.timed_out(), "nobody tells the witness");
	}
	drop(newest);
	crash(opened);
	assert_eq!(reason(open(&older, &known)), "it lacks what was committed last");
}

#[test]
fn a_witness_is_told_of_no_older_mark() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let opened = open(&medium, &known).unwrap();
	opened.shared.remember(50);
	opened.shared.remember(49);
	assert_eq!(known.0.lock().0.unwrap().number, 50);
}

/// A store that crashed must open without a witness where none can be kept.
#[test]
fn a_store_whose_witness_cannot_be_kept_is_opened_after_a_crash() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	known.0.lock().1 = true;
	for round in 0..3 {
		let opened = open(&medium, &known).unwrap();
		assert!(opened.witness_failure().is_some());
		put(&opened, 1);
		if round == 1 {
			opened.catch_up().unwrap();
		}
		crash(opened);
	}
	known.0.lock().1 = false;
	crash(open(&medium, &known).unwrap());
	assert_eq!(open(&medium, &known).unwrap().witnessed(), Witnessed::Confirmed);
}

#[test]
fn marks_ride_along_and_are_made_again_if_their_batch_is_refused() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let opened = open(&medium, &known).unwrap();
	let number = || read(&opened).unwrap().unwrap().number;
	let before = number();
	let mut refused = Batch::new();
	refused.expect(Key::new(Table::new("t"), *b"k"), crate::Expectation::Present);
	refused
		.put(Key::new(Table::new("t"), *b"k"), Value::new(crate::RecordType(0x8000), 1, vec![1]));
	assert!(matches!(opened.commit(refused).wait(), Err(StoreError::Conflict { .. })));
	assert_eq!(number(), before);
	put(&opened, 1);
	assert!(number() > before, "the next batch takes a mark along");
}

#[test]
fn a_witness_that_fails_is_told_of_and_stops_nothing() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let opened = open(&medium, &known).unwrap();
	let told = Arc::new(Mutex::new(Vec::new()));
	let telling = Arc::clone(&told);
	opened.observe(Arc::new(move |event: &StoreEvent| telling.lock().push(event.to_string())));
	known.0.lock().1 = true;
	put(&opened, 1);
	opened.catch_up().unwrap();
	opened.catch_up().unwrap();
	assert_eq!(told.lock().len(), 1, "{:?}", told.lock());
	assert!(opened.witness_failure().unwrap().contains("broken"));
	known.0.lock().1 = false;
	opened.catch_up().unwrap();
	assert_eq!(opened.witness_failure(), None);
}

#[test]
fn a_witness_that_never_took_a_mark_is_told_of_to_who_listens_later() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	known.0.lock().1 = true;
	let opened = open(&medium, &known).unwrap();
	let told = Arc::new(Mutex::new(Vec::new()));
	let telling = Arc::clone(&told);
	opened.observe(Arc::new(move |event: &StoreEvent| telling.lock().push(event.to_string())));
	assert!(told.lock()[0].contains("takes no marks"), "{:?}", told.lock());
}

#[test]
fn a_batch_that_is_full_takes_no_mark_along() {
	let (medium, known) = (MemoryMedium::new(), Known::default());
	let opened = open(&medium, &known).unwrap();
	let mut batch = Batch::new();
	batch.expect(Key::new(Table::new("t"), *b"k"), crate::Expectation::Absent);
	for n in 1..MAX_BATCH_OPS as u64 {
		let key = Key::new(Table::new("t"), n.to_be_bytes());
		batch.put(key, Value::new(crate::RecordType(0x8000), 1, vec![1]));
	}
	opened.commit(batch).wait().unwrap();
}

/// The bytes on users' disks.
#[test]
fn golden_bytes() {
	let record = WitnessV1 { history: [1; 16], number: 2, open: true, restorations: 3 };
	let body = codec::encode(&record).unwrap().body;
	let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
	assert_eq!(hex, format!("{}00000000000000020100000003", "01".repeat(16)));
}
