//! Many threads on one log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{event, Process};
use leyden_store::{Batch, Key, Plan, RecordType, Table, Value};

#[test]
fn sixty_four_threads_append_and_ack_and_nothing_is_lost_or_twice_or_out_of_order() {
	const THREADS: u64 = 64;
	const EACH: u64 = 50;
	let process = Process::new();
	let consumer = process.consumer("a");
	let done = AtomicU64::new(0);
	let seen: Mutex<BTreeMap<u8, Vec<u64>>> = Mutex::default();
	std::thread::scope(|scope| {
		for thread in 0..THREADS {
			let (process, consumer, done, seen) = (&process, consumer.clone(), &done, &seen);
			scope.spawn(move || {
				for n in 0..EACH {
					let number = thread * EACH + n;
					process.log.append(event(number, (number % 7) as u8)).unwrap();
					// Work for as long as there is any, so that the last thread leaves nothing.
					while let Some(delivery) = consumer.next_event().unwrap() {
						let number = u64::from_be_bytes(delivery.payload().try_into().unwrap());
						let index = delivery.index().get();
						seen.lock().unwrap().entry((number % 7) as u8).or_default().push(index);
						delivery.ack().unwrap();
						done.fetch_add(1, Ordering::SeqCst);
					}
				}
			});
		}
	});
	while let Some(delivery) = consumer.next_event().unwrap() {
		let number = u64::from_be_bytes(delivery.payload().try_into().unwrap());
		seen.lock().unwrap().entry((number % 7) as u8).or_default().push(delivery.index().get());
		delivery.ack().unwrap();
		done.fetch_add(1, Ordering::SeqCst);
	}
	assert_eq!(done.load(Ordering::SeqCst), THREADS * EACH);
	for (lane, indices) in seen.into_inner().unwrap() {
		assert!(indices.windows(2).all(|pair| pair[0] < pair[1]), "lane {lane}");
	}
	assert!(consumer.unacked(None, 10).unwrap().is_empty());
	consumer.tidy().unwrap();
	assert_eq!(consumer.stats().watermark, THREADS * EACH);
}

/// A waiting thread hears of an append inside somebody else's plan, even if its ticket is dropped.
#[test]
fn an_append_in_a_merged_plan_wakes_a_waiting_thread() {
	let process = Process::new();
	let consumer = process.consumer("a");
	let waiting = std::thread::spawn(move || {
		let delivery = consumer.wait_next_event().unwrap();
		let index = delivery.index().get();
		delivery.ack().unwrap();
		index
	});
	let mut batch = Batch::new();
	let key = Key::new(Table::new("mine"), *b"k");
	batch.put(key, Value::new(RecordType(0x8000), 1, *b"v"));
	let plan = Plan::of(batch).and(process.log.append_plan(event(1, 1)));
	drop(plan.commit(&process.store));
	assert_eq!(waiting.join().unwrap(), 1);
}

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
	fn wake(self: Arc<Self>) {
		self.0.fetch_add(1, Ordering::SeqCst);
	}
}

#[test]
fn a_task_is_woken_by_an_append_and_by_a_retry_that_falls_due() {
	let process = Process::new();
	let consumer = process.consumer("a");
	let wakes = Arc::new(Counter::default());
	let waker = Waker::from(Arc::clone(&wakes));
	let mut context = Context::from_waker(&waker);
	let slept = Mutex::new(Vec::new());
	let sleep = |wait: Duration| {
		slept.lock().unwrap().push(wait);
		std::future::pending::<()>()
	};
	{
		let mut next = pin!(consumer.next_event_async(sleep));
		assert!(next.as_mut().poll(&mut context).is_pending());
		process.append(1, 1);
		assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
		let Poll::Ready(Ok(delivery)) = next.as_mut().poll(&mut context) else {
			panic!("there is a delivery");
		};
		delivery.retry_after(Duration::from_secs(5)).unwrap();
	}
	let mut next = pin!(consumer.next_event_async(sleep));
	assert!(next.as_mut().poll(&mut context).is_pending());
	assert_eq!(*slept.lock().unwrap(), [Duration::from_secs(5)]);
	process.clock.advance(Duration::from_secs(5));
	let mut due = pin!(consumer.next_event_async(|_| std::future::ready(())));
	assert!(matches!(due.as_mut().poll(&mut context), Poll::Ready(Ok(_))));
}
