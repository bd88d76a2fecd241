// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! `leyden consumer`: what an operator decides about a consumer. The node must be stopped.

use std::sync::Arc;
use std::time::Duration;

use leyden::ldk::{MANAGER_CONSUMER, MONITOR_STREAM, REPLAY_CONSUMER};
use leyden::log::{
	Consumer, ConsumerOptions, DeadLetter, EventLog, LogIndex, LogOptions, LogReader, Retention,
	Start,
};
use leyden::store::{Namespace, Store, SystemClock};
use leyden::StoreUrl;

use crate::output::{tell, Failure, Output};
use crate::view::store_url;
use crate::{ConsumerArguments, ConsumerCommand};

pub fn run(command: &ConsumerCommand, output: &mut Output) -> Result<(), Failure> {
	use ConsumerCommand::{Discard, Pause, Remove, Rename, Requeue, Reset, Resume};
	match command {
		Remove { consumer, yes } => remove(&Place::find(consumer)?, *yes, output),
		Reset { consumer, after, yes } => reset(&Place::find(consumer)?, after, *yes, output),
		Rename { consumer, to } => rename(&Place::find(consumer)?, to, output),
		Pause { consumer } => pause(&Place::find(consumer)?, true, output),
		Resume { consumer } => pause(&Place::find(consumer)?, false, output),
		Requeue { consumer, index } => requeue(&Place::find(consumer)?, *index, output),
		Discard { consumer, index, yes } => discard(&Place::find(consumer)?, *index, *yes, output),
	}
}

/// A consumer that is there and is not the node's own.
struct Place<'a> {
	name: &'a str,
	stream: &'a str,
	url: StoreUrl,
	namespace: Namespace,
}

impl<'a> Place<'a> {
	fn find(arguments: &'a ConsumerArguments) -> Result<Self, Failure> {
		let ConsumerArguments { name, stream, store, namespace } = arguments;
		let is_ours = match stream.as_str() {
			MONITOR_STREAM => name == MANAGER_CONSUMER,
			_ => name == REPLAY_CONSUMER,
		};
		if is_ours {
			let text = format!("consumer {name} of stream {stream} belongs to the node itself");
			return Err(Failure::Error(text));
		}
		let url = store_url(store).map_err(Failure::Error)?;
		let namespace = Namespace::new(namespace).map_err(tell)?;
		let place = Self { name, stream, url, namespace };
		let reader = place.reader()?;
		// Without reading any consumer: a reset is for one that cannot be read.
		let names = reader.consumer_names(stream).map_err(tell)?;
		match names {
			None => Err(Failure::Error(format!("there is no stream {stream} in this store"))),
			Some(names) if !names.contains(name) => {
				Err(Failure::Error(format!("stream {stream} has no consumer {name}")))
			},
			Some(_) => Ok(place),
		}
	}

	fn reader(&self) -> Result<LogReader, Failure> {
		let store = self.url.open_read_only(self.namespace.clone()).map_err(tell)?;
		Ok(LogReader::new(store))
	}

	fn store(&self) -> Result<Arc<dyn Store>, Failure> {
		self.url.open(self.namespace.clone()).map_err(tell)
	}

	/// Opens the log. The time that entries and ids are kept for is the node's business: it trims when
	/// it runs.
	fn log(&self) -> Result<EventLog, Failure> {
		let forever = Retention { min_count: u64::MAX, min_age: Duration::MAX };
		let options = LogOptions { history: forever, tombstones: forever };
		EventLog::open(self.store()?, self.stream, Arc::new(SystemClock), options).map_err(tell)
	}

	fn consumer(&self) -> Result<Consumer, Failure> {
		self.log()?.consumer(self.name, ConsumerOptions::default()).map_err(tell)
	}

	/// Returns the dead letter at `index`.
	fn letter(&self, index: u64) -> Result<DeadLetter, Failure> {
		let none =
			|| Failure::Error(format!("entry {index} is no dead letter of consumer {}", self.name));
		let place = LogIndex::new(index).ok_or_else(none)?;
		let before = LogIndex::new(index - 1);
		let letters = self.reader()?.dead_letters(self.stream, self.name, before, 1);
		letters.map_err(tell)?.into_iter().find(|letter| letter.index == place).ok_or_else(none)
	}
}

fn remove(place: &Place, yes: bool, output: &mut Output) -> Result<(), Failure> {
	let Place { name, stream, .. } = place;
	let unacked = place.reader()?.unacked_count(stream, name).map_err(tell)?;
	if !yes {
		return Err(Failure::Error(format!(
			"consumer {name} has not acked {unacked} entries of stream {stream}, and will never be \
			 told of them; say --yes to remove it"
		)));
	}
	place.log()?.remove_consumer(name).map_err(tell)?;
	output
		.line(&format!("consumer {name} of stream {stream} is removed; it had not acked {unacked}"))
}

fn reset(place: &Place, after: &str, yes: bool, output: &mut Output) -> Result<(), Failure> {
	let Place { name, stream, .. } = place;
	let bad = || {
		Failure::Error(format!(
			"--after takes an index, \"beginning\" or \"end\", and not {after:?}"
		))
	};
	let start = match after {
		"beginning" => Start::Beginning,
		"end" => Start::End,
		index => {
			let index = index.parse().ok().and_then(LogIndex::new).ok_or_else(bad)?;
			Start::After(index)
		},
	};
	if !yes {
		return Err(Failure::Error(format!(
			"consumer {name} will be told of everything that stream {stream} still has after \
			 {after}, whether it has acked it or not, and of nothing before; its retries and dead \
			 letters are forgotten; say --yes to reset it"
		)));
	}
	let log = place.log()?;
	log.reset_consumer(name, start).map_err(tell)?;
	let lag = LogReader::new(Arc::clone(log.store())).lag(stream, name).map_err(tell)?;
	output.line(&format!(
		"consumer {name} of stream {stream} is reset; it will be told of {} entries",
		lag.unacked
	))
}

fn rename(place: &Place, to: &str, output: &mut Output) -> Result<(), Failure> {
	let Place { name, stream, .. } = place;
	place.log()?.rename_consumer(name, to).map_err(tell)?;
	output.line(&format!("consumer {name} of stream {stream} is named {to} now"))
}

fn pause(place: &Place, paused: bool, output: &mut Output) -> Result<(), Failure> {
	let Place { name, stream, .. } = place;
	let consumer = place.consumer()?;
	let lag = consumer.lag().map_err(tell)?;
	let said = match paused {
		true => {
			consumer.pause().map_err(tell)?;
			"is paused"
		},
		false => {
			consumer.resume().map_err(tell)?;
			"is not paused"
		},
	};
	let unacked = lag.unacked;
	output
		.line(&format!("consumer {name} of stream {stream} {said}; {unacked} entries wait for it"))
}

fn requeue(place: &Place, index: u64, output: &mut Output) -> Result<(), Failure> {
	let letter = place.letter(index)?;
	place.consumer()?.requeue(letter.index).map_err(tell)?;
	output.line(&format!("entry {index} will be delivered to consumer {} again", place.name))
}

fn discard(place: &Place, index: u64, yes: bool, output: &mut Output) -> Result<(), Failure> {
	let letter = place.letter(index)?;
	let name = place.name;
	if !yes {
		return Err(Failure::Error(format!(
			"consumer {name} will never be told of entry {index} ({}); say --yes to put it aside",
			letter.reason
		)));
	}
	place.consumer()?.discard(letter.index).map_err(tell)?;
	output.line(&format!("consumer {name} is done with entry {index}, and its lane goes on"))
}
