// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Numbers: given in order, once, and remembered.

use super::*;
use crate::committed::Appended;

fn append(store: &Arc<dyn Store>, prefix: &[u8], once: Option<&str>) -> Appended {
	let mut batch = Batch::new();
	let slot = match once {
		Some(name) => batch.append_once(T, prefix, value("v"), key(name)),
		None => batch.append(T, prefix, value("v")),
	};
	store.commit(batch).wait().unwrap().appended(slot).unwrap()
}

/// Each sequence counts by itself; a number is not given again after a delete or a restart.
pub fn numbers_begin_at_one_and_are_never_used_twice(backend: &dyn Backend) {
	let mut expected = 1;
	for _ in 0..3 {
		let store = open(backend);
		for _ in 0..3 {
			assert_eq!(append(&store, b"a", None).number().get(), expected);
			let at = Key::numbered(T, b"a", expected);
			assert!(store.get(&at).wait().unwrap().is_some());
			let mut batch = Batch::new();
			batch.delete(at);
			store.commit(batch).wait().unwrap();
			expected += 1;
		}
	}
	let store = open(backend);
	assert_eq!(append(&store, b"b", None).number().get(), 1);
	assert_eq!(append(&store, b"a", None).number().get(), expected);
}

/// Whatever is deleted, together or one by one, before or after a restart: no number comes twice.
/// What was put at a number by hand is not overwritten.
pub fn deleted_numbers_are_not_given_again(backend: &dyn Backend) {
	let delete = |store: &Arc<dyn Store>, numbers: std::ops::RangeInclusive<u64>| {
		let mut batch = Batch::new();
		numbers.for_each(|number| {
			batch.delete(Key::numbered(T, b"s", number));
		});
		store.commit(batch).wait().unwrap();
	};
	let next = |store: &Arc<dyn Store>| append(store, b"s", None).number().get();
	let mut store = open(backend);
	(1..=6).for_each(|number| assert_eq!(next(&store), number));
	// From below, as one trims; all that is left; and again with another handle.
	delete(&store, 1..=3);
	delete(&store, 4..=6);
	drop(store);
	store = open(backend);
	assert_eq!(next(&store), 7);
	assert_eq!(next(&store), 8);
	delete(&store, 8..=8);
	drop(store);
	store = open(backend);
	assert_eq!(next(&store), 9);
	// A delete and an append in one batch.
	let mut batch = Batch::new();
	batch.delete(Key::numbered(T, b"s", 9));
	let slot = batch.append(T, b"s", value("v"));
	let committed = store.commit(batch).wait().unwrap();
	assert_eq!(committed.appended(slot).unwrap().number().get(), 10);
	delete(&store, 10..=10);
	drop(store);
	store = open(backend);
	assert_eq!(next(&store), 11);
	// By hand, in a sequence that there is and in one that is none yet.
	for (prefix, number) in [(b"s", 20), (b"n", 5)] {
		let mut batch = Batch::new();
		batch.put(Key::numbered(T, prefix, number), value("by hand"));
		store.commit(batch).wait().unwrap();
		assert_eq!(append(&store, prefix, None).number().get(), number + 1);
	}
	// Keys that begin alike are not numbers of the sequence.
	let mut batch = Batch::new();
	batch.put(Key::new(T, *b"s\xff\xff\xff\xff\xff\xff\xff\xffmore"), value("longer"));
	batch.put(Key::new(T, *b"s\xff\xff"), value("shorter"));
	store.commit(batch).wait().unwrap();
	drop(store);
	assert_eq!(next(&open(backend)), 22);
}

/// What was appended under a name is not appended again, in any way; the rest of the batch is done.
pub fn an_append_of_what_is_known_does_nothing(backend: &dyn Backend) {
	let store = open(backend);
	assert!(append(&store, b"s", Some("one")).is_new());
	let again = append(&store, b"s", Some("one"));
	assert!(matches!(again, Appended::Known(number) if number.get() == 1));
	// Twice in one batch, and something else in it.
	let mut batch = Batch::new();
	let slots = [
		batch.append_once(T, b"s", value("v"), key("two")),
		batch.append_once(T, b"s", value("v"), key("one")),
		batch.append_once(T, b"s", value("v"), key("two")),
		batch.append(T, b"s", value("v")),
	];
	batch.put(key("beside"), value("done"));
	let committed = store.commit(batch).wait().unwrap();
	let answers: Vec<_> = slots.iter().map(|slot| committed.appended(*slot).unwrap()).collect();
	let numbers: Vec<_> = answers.iter().map(|answer| answer.number().get()).collect();
	assert_eq!(numbers, [2, 1, 2, 3]);
	let new: Vec<_> = answers.iter().map(|answer| answer.is_new()).collect();
	assert_eq!(new, [true, false, false, true]);
	assert_eq!(body(&store, "beside").as_deref(), Some("done"));
	drop(store);
	let store = open(backend);
	assert_eq!(append(&store, b"s", Some("two")).number().get(), 2);
	assert_eq!(append(&store, b"s", Some("three")).number().get(), 4);
}

/// An append that is taken back leaves nothing but a hole in the numbers.
pub fn an_append_can_be_taken_back(backend: &dyn Backend) {
	let store = open(backend);
	append(&store, b"s", Some("one"));
	for _ in 0..2 {
		let mut batch = Batch::new();
		batch.delete_once(T, b"s", key("one"));
		store.commit(batch).wait().unwrap();
		assert!(get(&store, "one").is_none());
		assert!(store.get(&Key::numbered(T, b"s", 1)).wait().unwrap().is_none());
	}
	assert!(matches!(append(&store, b"s", Some("one")), Appended::New(n) if n.get() == 2));
}

/// Records whose key takes the number of an append are written with it, and not if it is known.
pub fn records_at_a_number_follow_it(backend: &dyn Backend) {
	let store = open(backend);
	let write = |body: &str| {
		let mut batch = Batch::new();
		let _ = batch.append(T, b"other", value("v"));
		let slot = batch.append_once(T, b"s", value("v"), key("once"));
		batch.put_at(slot, T, b"index", value(body));
		store.commit(batch).wait().unwrap();
	};
	write("first");
	write("second");
	let at = |number| store.get(&Key::numbered(T, b"index", number)).wait().unwrap();
	assert_eq!(at(1).unwrap().value, value("first"));
	assert!(at(2).is_none());
}
