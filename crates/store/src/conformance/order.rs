// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Many threads: one order.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::{Expectation, KeyRange};

const THREADS: u64 = 64;
const EACH: u64 = 20;

/// Numbers and versions of 64 threads are in the order in which they called, not in which they
/// waited.
pub fn the_order_of_commits_is_the_order_of_the_calls(backend: &dyn Backend) {
	let store = open(backend);
	let calls = Mutex::new(Vec::new());
	std::thread::scope(|scope| {
		for _ in 0..THREADS {
			scope.spawn(|| {
				for _ in 0..EACH {
					let mut batch = Batch::new();
					let slot = batch.append(T, b"s", value("v"));
					let (place, ticket) = {
						// Nobody else calls in between.
						let mut calls = calls.lock();
						calls.push(None);
						(calls.len() - 1, store.commit(batch))
					};
					let committed = ticket.wait().unwrap();
					let number = committed.appended(slot).unwrap().number().get();
					calls.lock()[place] = Some((number, committed.version()));
				}
			});
		}
	});
	let calls: Vec<_> = calls.into_inner().into_iter().map(Option::unwrap).collect();
	for (place, (number, _)) in calls.iter().enumerate() {
		assert_eq!(*number, place as u64 + 1, "call {place} was given number {number}");
	}
	assert!(calls.windows(2).all(|pair| pair[0].1 < pair[1].1), "versions follow the calls");
}

/// While writers append, a reader that sees a number has all below it.
pub fn nobody_sees_a_number_before_the_one_below(backend: &dyn Backend) {
	let store = open(backend);
	let done = AtomicBool::new(false);
	std::thread::scope(|scope| {
		let reader = scope.spawn(|| {
			let mut seen = 0;
			while !done.load(Ordering::SeqCst) {
				let page = store.scan(KeyRange::prefix(T, b"s"), 10_000).wait().unwrap();
				for (place, (key, _)) in page.records.iter().enumerate() {
					assert_eq!(key.number(b"s"), Some(place as u64 + 1));
				}
				assert!(page.records.len() >= seen, "what was seen is still there");
				seen = page.records.len();
			}
		});
		let writers: Vec<_> = (0..8)
			.map(|_| {
				scope.spawn(|| {
					for _ in 0..EACH {
						let mut batch = Batch::new();
						let _ = batch.append(T, b"s", value("v"));
						store.commit(batch).wait().unwrap();
					}
				})
			})
			.collect();
		writers.into_iter().for_each(|writer| writer.join().unwrap());
		done.store(true, Ordering::SeqCst);
		reader.join().unwrap();
	});
}

/// Of many who replace the same version, one wins; a counter that is raised that way misses
/// nothing.
pub fn many_writers_and_one_winner(backend: &dyn Backend) {
	let store = open(backend);
	put(&store, "count", "0");
	std::thread::scope(|scope| {
		for _ in 0..8 {
			scope.spawn(|| {
				for _ in 0..EACH {
					loop {
						let record = get(&store, "count").unwrap();
						let count: u64 =
							String::from_utf8(record.value.body).unwrap().parse().unwrap();
						let mut batch = Batch::new();
						batch.expect(key("count"), Expectation::Version(record.version));
						batch.put(key("count"), value(&(count + 1).to_string()));
						match store.commit(batch).wait() {
							Ok(_) => break,
							Err(StoreError::Conflict { .. }) => {},
							Err(error) => panic!("{error}"),
						}
					}
				}
			});
		}
	});
	assert_eq!(body(&store, "count"), Some((8 * EACH).to_string()));
}
