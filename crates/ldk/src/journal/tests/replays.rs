// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Facts: an event that LDK brings again is one entry, and another event with the same fields is
//! another.

use super::*;

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

/// L6: LDK's background processor wrote the manager with the second failure in its queue, before the
/// journal heard of it. The bytes of both are the same, and the first was let go of long ago.
#[test]
fn a_failure_in_the_queue_is_not_the_one_before_it_wherever_the_node_dies() {
	for (nth, side) in (0..12).flat_map(|nth| [(nth, Side::Before), (nth, Side::After)]) {
		let (disk, doom) = (Disk::new(), Doom::at(nth, side));
		doom.disarm();
		let store = Arc::new(FaultyStore::new(Arc::new(disk.store()), Arc::clone(&doom)));
		let run = disk.start_with(knowing(2), store, |journal, _| journal);
		run.tell(failed(2));
		run.write_manager();
		run.wait();
		// The payment is made again, and fails at once.
		run.ldk.lock().queue.push(failed(2));
		doom.arm();
		let bytes = run.ldk.lock().encode();
		let is_written = run.try_write_manager() || disk.manager() == Some(bytes);
		drop(run);
		if !doom.has_struck() {
			assert!(nth > 1, "the write takes a record and an ack");
			continue;
		}
		let run = disk.start(if is_written { with_queue(&[failed(2)]) } else { knowing(2) });
		run.process();
		assert_eq!(run.entries().len(), 1 + usize::from(is_written), "{nth} {side:?}");
	}
}

/// A loss of power took what was written about the manager: in doubt it is another event.
#[test]
fn a_failure_in_the_queue_of_an_unknown_manager_is_told() {
	let disk = Disk::new();
	let run = disk.start(knowing(2));
	run.tell(failed(2));
	run.wait();
	run.ldk.lock().queue.push(failed(2));
	let bytes = run.ldk.lock().encode();
	drop(run);
	disk.set_manager(bytes);
	let run = disk.start(with_queue(&[failed(2)]));
	run.process();
	assert_eq!(run.entries().len(), 2);
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
