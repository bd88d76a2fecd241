// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Requests: they are delivered again until LDK's durable state has an answer.

use super::*;

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

/// A consumer of a mistyped name acks nothing; a request is not open for ever because of it.
#[test]
fn a_consumer_that_was_removed_is_not_waited_for() {
	let disk = Disk::new();
	let run = disk.start(Ldk { queue: vec![claimable(5, HEIGHT + 1)], ..knowing(5) });
	drop(run.log.consumer("mistyped", ConsumerOptions::default()).unwrap());
	run.process();
	run.write_manager();
	assert_eq!(run.ack_all().len(), 1);
	// Durable, with the answer in it; and yet the request is open.
	run.write_manager();
	drop(run);
	let run = disk.start(knowing(5));
	assert_eq!(run.ack_all().len(), 1, "the other one has not acked");
	assert!(run.log.remove_consumer("mistyped").unwrap());
	run.write_manager();
	drop(run);
	assert!(disk.start(knowing(5)).ack_all().is_empty());
}

/// A consumer that was reset has not acked any more, and one that was renamed is waited for under its new
/// name.
#[test]
fn a_consumer_that_was_reset_or_renamed_is_waited_for() {
	for is_reset in [false, true] {
		let disk = Disk::new();
		let run = disk.start(Ldk { queue: vec![claimable(5, HEIGHT + 1)], ..knowing(5) });
		let accounting = run.log.consumer("accounting", ConsumerOptions::default()).unwrap();
		run.consumer();
		run.process();
		run.wait();
		match is_reset {
			true => {
				accounting.next_event().unwrap().unwrap().ack().unwrap();
				drop(accounting);
				run.log.reset_consumer("accounting", leyden_log::Start::Beginning).unwrap();
			},
			false => {
				drop(accounting);
				run.log.rename_consumer("accounting", "books").unwrap();
			},
		}
		assert_eq!(run.ack_all().len(), 1);
		run.write_manager();
		run.write_manager();
		drop(run);
		let run = disk.start(knowing(5));
		assert_eq!(run.ack_all().len(), 1, "the other one has not acked");
	}
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
