// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The bus on several threads: LDK takes events and sends updates from all of them.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use lightning::util::ser::Readable;

use super::super::gate::{Gate, MayPersist};
use super::*;

/// The time after which a test counts as one that hangs.
const HANGS: Duration = Duration::from_secs(20);

/// Lets other threads run, so that one that does not wait has done what it was started for.
fn give_way() {
	(0..10_000).for_each(|_| thread::yield_now());
}

/// A life whose bus is behind a gate that the test looks at.
fn behind(medium: &MemoryMedium, gate: &Arc<Gate>) -> Life {
	let life = Life::new(medium);
	let (script, log) = (Arc::clone(&life.script), life.log.clone());
	let bus = MonitorBus::behind(Arc::clone(gate), script, log).unwrap();
	Life { bus: Arc::new(bus), ..life }
}

fn update(life: &Life) -> ChannelMonitorUpdateStatus {
	let bytes = [[1, 1].as_slice(), &[0; 16], &[34, 3, 32], &[1; 32]].concat();
	let update = ChannelMonitorUpdate::read(&mut &bytes[..]).unwrap();
	Watch::<InMemorySigner>::update_channel(&*life.bus, ChannelId([1; 32]), &update)
}

/// The background processor and the threads of peers release at the same time. The end of one
/// release is not the end of the other.
#[test]
fn a_release_does_not_end_the_limbo_of_another() {
	let gate = Arc::new(Gate::default());
	gate.guards_store();
	let life = behind(&MemoryMedium::new(), &gate);
	let bus = Arc::clone(&life.bus);
	let (second, results) = channel();
	let calls = AtomicUsize::new(0);
	let (watched, started) = (Arc::clone(&gate), Mutex::new(Some((bus, second))));
	*life.script.hook.lock() = Some(Arc::new(move |_| {
		if calls.fetch_add(1, Ordering::SeqCst) == 0 {
			// Another release begins in the middle of the first.
			let (bus, second) = started.lock().take().unwrap();
			thread::spawn(move || {
				let out = Watch::<InMemorySigner>::release_pending_monitor_events(&*bus);
				second.send(out.len()).unwrap();
			});
			give_way();
		} else {
			assert!(matches!(watched.persist(true), MayPersist::LeaveOut), "events are taken");
			assert!(watched.defers_write());
			watched.write_begun();
		}
	}));
	life.script.produce(1, CLOSE);
	life.release();
	assert_eq!(results.recv_timeout(HANGS), Ok(0), "the second release panicked or hangs");
}

/// A flush on another thread holds the lock of a monitor's updates while it waits for the log.
#[test]
fn monitors_are_listed_when_nothing_waits_for_the_release() {
	let medium = MemoryMedium::new();
	let life = Life::new(&medium);
	life.script.produce(1, CLOSE);
	life.script.produce(1, forward(5, 10, 0, false));
	life.release();

	let gate = Arc::new(Gate::default());
	gate.guards_persister();
	let life = behind(&medium, &gate);
	life.script.monitors.lock().insert(ChannelId([1; 32]), true);
	assert_eq!(life.release(), [(1, Close)], "the failure waits for the update");
	let watched = Arc::clone(&gate);
	let (persisted, results) = channel();
	let (persisted, has_taken) = (Mutex::new(persisted), AtomicBool::new(false));
	*life.script.hook.lock() = Some(Arc::new(move |asked| {
		has_taken.fetch_or(asked == Asked::Events, Ordering::SeqCst);
		if asked == Asked::Monitors && has_taken.load(Ordering::SeqCst) {
			let (gate, done) = (Arc::clone(&watched), persisted.lock().clone());
			let (ended, end) = channel();
			thread::spawn(move || {
				drop(gate.persist(false));
				let _ = ended.send(());
			});
			done.send(end.recv_timeout(HANGS).is_ok()).unwrap();
		}
	}));
	life.script.monitors.lock().insert(ChannelId([1; 32]), false);
	life.script.produce(1, completed(1));
	assert_eq!(life.release(), [(1, Fail), (1, Completed)]);
	assert_eq!(results.try_iter().collect::<Vec<_>>(), [true]);
}

/// The store's handle may end while nothing is in limbo, and monitors may be written through a
/// store.
#[test]
fn a_bus_that_stopped_refuses_updates_in_every_mode() {
	for guards in [Gate::guards_store, Gate::guards_persister] {
		let gate = Arc::new(Gate::default());
		guards(&gate);
		let life = behind(&MemoryMedium::new(), &gate);
		assert_eq!(update(&life), ChannelMonitorUpdateStatus::Completed);
		life.bus.stop().now("the store's handle ended".to_owned());
		assert_eq!(update(&life), ChannelMonitorUpdateStatus::UnrecoverableError);
		life.block();
		assert_eq!(life.script.blocks.load(Ordering::SeqCst), 1, "blocks go on");
	}
}
