//! A consumer that is run by a handler, in a thread and in a task.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{event, Process, Woken};
use leyden_log::{Consumer, ConsumerOptions, Delivery, Handled, LogError, LogIndex, RetryPolicy};
use leyden_store::{Batch, Key, Plan, RecordType, StoreError, Table, Value};
use parking_lot::Mutex;

const EFFECTS: Table = Table::new("effects");

fn effect(n: u64) -> Plan<()> {
	let mut batch = Batch::new();
	let key = Key::new(EFFECTS, n.to_be_bytes());
	batch.put(key, Value::new(RecordType(0x8000), 1, vec![1]));
	batch.into()
}

fn filled(entries: u64) -> Process {
	let process = Process::new();
	process.log.append_batch((1..=entries).map(|n| event(n, n as u8)).collect()).unwrap();
	process
}

/// Returns what a handler says of entries 1 to 5, the first time.
fn verdict(index: u64, attempt: u32) -> Handled {
	match (index, attempt) {
		(1, _) => Ok::<(), ()>(()).into(),
		(2, _) => Handled::DoneWith(effect(2)),
		(3, 1) => Err("it is away").into(),
		(4, 1) => Handled::RetryAfter(Duration::from_secs(100)),
		(5, _) => Handled::GivenUp("never".to_owned()),
		_ => Handled::Done,
	}
}

fn options() -> ConsumerOptions {
	let wait = Duration::from_secs(10);
	let retry = RetryPolicy { first_wait: wait, max_wait: wait, max_attempts: None };
	ConsumerOptions { retry, ..ConsumerOptions::default() }
}

fn check(process: &Process, consumer: &Consumer, seen: &[(u64, u32)]) {
	assert_eq!(seen, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (3, 2), (4, 2)]);
	let letters = consumer.dead_letters(None, 10).unwrap();
	assert_eq!((letters.len(), letters[0].index.get()), (1, 5));
	assert_eq!(letters[0].reason, "never");
	assert_eq!(consumer.lag().unwrap().unacked, 1, "the dead letter");
	assert_eq!(leyden_testkit::count_records(&*process.store, "effects"), 1);
}

#[test]
fn each_delivery_is_settled_as_its_handler_says() {
	let process = filled(6);
	let consumer = process.log.consumer("app", options()).unwrap();
	let stop = consumer.run_stop();
	let mut seen = Vec::new();
	let handler = |delivery: &Delivery| {
		let (index, attempt) = (delivery.index().get(), delivery.attempt());
		seen.push((index, attempt));
		// The waits are over once all that is due was handled.
		match seen.len() {
			6 => process.clock.advance(Duration::from_secs(11)),
			7 => process.clock.advance(Duration::from_secs(90)),
			8 => stop.stop(),
			_ => {},
		}
		verdict(index, attempt)
	};
	consumer.run(handler, &stop).unwrap();
	check(&process, &consumer, &seen);
	// What is stopped stays so.
	assert!(stop.is_stopped());
	process.append(7, 7);
	consumer.run(|_| -> Handled { panic!("it is stopped") }, &stop).unwrap();
}

#[test]
fn a_task_does_the_same() {
	let process = filled(6);
	let consumer = process.log.consumer("app", options()).unwrap();
	let stop = consumer.run_stop();
	let seen = Mutex::new(Vec::new());
	let handler = |entry: leyden_log::Entry, attempt: u32| {
		let index = entry.index().get();
		seen.lock().push((index, attempt));
		let stop = &stop;
		let last = seen.lock().len() == 8;
		async move {
			// It is away for a moment.
			let mut polled = false;
			std::future::poll_fn(|_| match std::mem::replace(&mut polled, true) {
				true => Poll::Ready(()),
				false => Poll::Pending,
			})
			.await;
			if last {
				stop.stop();
			}
			verdict(index, attempt)
		}
	};
	// Time passes when nothing else is to be done.
	let sleep = |wait: Duration| {
		process.clock.advance(wait);
		std::future::ready(())
	};
	let mut run = pin!(consumer.run_async(handler, sleep, &stop));
	let mut context = Context::from_waker(Waker::noop());
	let ended = (0..1_000).find_map(|_| match run.as_mut().poll(&mut context) {
		Poll::Ready(ended) => Some(ended),
		Poll::Pending => None,
	});
	ended.expect("it ends").unwrap();
	check(&process, &consumer, &seen.lock());
}

#[test]
fn a_run_that_waits_is_woken_to_end() {
	let process = filled(0);
	let consumer = process.consumer("app");
	let stop = consumer.run_stop();
	let handler = |_: leyden_log::Entry, _| async { Handled::Done };
	let mut run = pin!(consumer.run_async(handler, |_| std::future::pending(), &stop));
	let woken = Arc::new(Woken::default());
	let waker = Waker::from(Arc::clone(&woken));
	let mut context = Context::from_waker(&waker);
	assert!(run.as_mut().poll(&mut context).is_pending());
	stop.stop();
	assert_eq!(woken.count(), 1);
	assert!(run.as_mut().poll(&mut context).is_ready());
}

/// A run that waits for entries is ended, and so are all that were given the same switch.
#[test]
fn runs_that_wait_are_ended() {
	let process = filled(0);
	let consumer = process.consumer("app");
	let stop = consumer.run_stop();
	let handled = Arc::new(Mutex::new(Vec::new()));
	let threads: Vec<_> = (0..3)
		.map(|_| {
			let (consumer, stop, handled) = (consumer.clone(), stop.clone(), Arc::clone(&handled));
			let last = stop.clone();
			thread::spawn(move || {
				let handler = |delivery: &Delivery| {
					let mut handled = handled.lock();
					handled.push(delivery.index().get());
					if handled.len() == 100 {
						last.stop();
					}
				};
				consumer.run(handler, &stop)
			})
		})
		.collect();
	for n in 1..=100 {
		process.append(n, n as u8);
	}
	threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
	let mut handled = handled.lock().clone();
	handled.sort_unstable();
	assert_eq!(handled, (1..=100).collect::<Vec<_>>());
	assert_eq!(consumer.lag().unwrap().unacked, 0);
}

/// The effect that goes with an ack is written once, also if the entry was acked elsewhere meanwhile.
#[test]
fn an_entry_that_was_acked_meanwhile_is_no_error_and_has_no_effect() {
	let process = filled(1);
	let consumer = process.consumer("app");
	let stop = consumer.run_stop();
	let handler = |delivery: &Delivery| {
		consumer.ack_plan_many(&[delivery.index()]).run(&process.store).unwrap();
		stop.stop();
		Handled::DoneWith(effect(1))
	};
	consumer.run(handler, &stop).unwrap();
	assert_eq!(leyden_testkit::count_records(&*process.store, "effects"), 0);
}

#[test]
fn an_error_ends_the_run_and_the_entry_comes_again() {
	let process = filled(1);
	let consumer = process.consumer("app");
	let stop = consumer.run_stop();
	let mut times = 0;
	let mut refused = Batch::new();
	refused.expect(Key::new(EFFECTS, *b"none"), leyden_store::Expectation::Present);
	let mut plans = vec![effect(1), refused.into()];
	for expected in [true, false] {
		let ended = consumer.run(
			|_| {
				times += 1;
				if times == 2 {
					stop.stop();
				}
				Handled::DoneWith(plans.pop().unwrap())
			},
			&stop,
		);
		let conflict =
			|error: &LogError| matches!(error, LogError::Store(StoreError::Conflict { .. }));
		assert_eq!(ended.as_ref().err().is_some_and(conflict), expected, "{ended:?}");
	}
	assert_eq!(times, 2);
	assert!(consumer.is_acked(LogIndex::new(1).unwrap()).unwrap());
}

#[test]
fn a_handler_that_panics_ends_the_run_and_its_entry_comes_again() {
	let process = filled(1);
	let consumer = process.consumer("app");
	let stop = consumer.run_stop();
	let run = || consumer.run(|_| -> Handled { panic!("of a test") }, &stop);
	assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
	let delivery = consumer.next_event().unwrap().unwrap();
	assert_eq!((delivery.index().get(), delivery.attempt()), (1, 2));
}

/// A task of tokio or any other runtime with threads can be one.
#[test]
fn a_run_may_move_between_threads() {
	fn is_send<T: Send>(_: &T) {}
	let process = filled(0);
	let consumer = process.consumer("app");
	let stop = consumer.run_stop();
	let handler = |_: leyden_log::Entry, _| async { Handled::Done };
	is_send(&consumer.run_async(handler, |_| std::future::pending(), &stop));
}
