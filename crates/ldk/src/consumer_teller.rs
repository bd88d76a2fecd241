// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What operators must hear of consumers, told to the node's log.

use std::sync::Arc;

use leyden_id::EventKind;
use leyden_log::{EventLog, LogError, LogIndex, LogObserver};

/// The listener for a line of text.
type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// Tells of every dead letter of a log (given up by its consumer, damaged, or in hand when processes
/// ended), and of consumers that are paused. Nobody else says so.
pub(crate) struct ConsumerTeller {
	stream: String,
	tell: Tell,
}

impl ConsumerTeller {
	/// Tells for as long as what is returned is kept.
	pub(crate) fn of(log: &EventLog, tell: Tell) -> Result<Arc<dyn LogObserver>, LogError> {
		let stream = log.name().to_owned();
		let teller: Arc<dyn LogObserver> = Arc::new(Self { stream, tell });
		log.observe(&teller)?;
		Ok(teller)
	}
}

impl LogObserver for ConsumerTeller {
	fn appended(&self, _: LogIndex, _: &EventKind) {}

	fn opened(&self, _: &str, _: u64) {}

	fn acked(&self, _: &str, _: &[LogIndex]) {}

	fn parked(&self, consumer: &str, index: LogIndex, reason: &str) {
		let message = format!(
			"entry {index} of stream {} is a dead letter of consumer {consumer} ({}); look at it with \
			 `leyden inspect`, then requeue or discard it (`leyden consumer`)",
			self.stream,
			reason.escape_debug()
		);
		(self.tell)(&message);
	}
	fn paused(&self, consumer: &str, is_paused: bool) {
		let stream = &self.stream;
		(self.tell)(&match is_paused {
			true => format!(
				"consumer {consumer} of stream {stream} is paused: nothing is delivered to it until it \
				 is resumed"
			),
			false => format!("consumer {consumer} of stream {stream} is resumed"),
		});
	}
}

#[cfg(test)]
mod tests {
	use leyden_id::{EventId, Lane};
	use leyden_log::{ConsumerOptions, LogOptions, NewEvent};
	use leyden_store::{ManualClock, MemoryStore};
	use parking_lot::Mutex;

	use super::*;

	#[test]
	fn dead_letters_and_pauses_are_told() {
		let store = Arc::new(MemoryStore::new().unwrap());
		let clock = Arc::new(ManualClock::default());
		let log = EventLog::open(store, "events", clock, LogOptions::default()).unwrap();
		let lines: Arc<Mutex<Vec<String>>> = Arc::default();
		let telling = Arc::clone(&lines);
		let tell = Box::new(move |line: &str| telling.lock().push(line.to_owned()));
		let told = ConsumerTeller::of(&log, tell).unwrap();
		let consumer = log.consumer("app", ConsumerOptions::default()).unwrap();
		let append = |n: u8| {
			let (id, lane) = (EventId::from_bytes([n; 32]), Lane::payment([n; 32]));
			let kind = EventKind::from_static("Kind");
			log.append(NewEvent { id, kind, lane, payload: vec![n] }).unwrap();
			consumer.next_event().unwrap().unwrap()
		};
		append(1).dead_letter("no\nway").unwrap();
		let line = lines.lock().remove(0);
		assert!(line.contains("entry 1 of stream events") && line.contains("no\\nway"), "{line}");
		consumer.pause().unwrap();
		let line = lines.lock().remove(0);
		assert!(line.contains("consumer app of stream events is paused"), "{line}");
		consumer.resume().unwrap();
		assert!(lines.lock().remove(0).contains("is resumed"));
		// Nobody is told once the node is gone.
		drop(told);
		append(2).dead_letter("no").unwrap();
		assert!(lines.lock().is_empty());
	}
}
