// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! `leyden remove-consumer`: a consumer that nobody reads any more. The node must be stopped.

use std::sync::Arc;
use std::time::Duration;

use leyden::ldk::{MANAGER_CONSUMER, MONITOR_STREAM, REPLAY_CONSUMER};
use leyden::log::{EventLog, LogOptions, LogReader, Retention};
use leyden::store::{Namespace, SystemClock};

use crate::output::{tell, Failure, Output};
use crate::view::store_url;
use crate::RemoveConsumerArguments;

pub fn remove(arguments: &RemoveConsumerArguments, output: &mut Output) -> Result<(), Failure> {
	let RemoveConsumerArguments { name, stream, store, namespace, yes } = arguments;
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
	let reader = LogReader::new(url.open_read_only(namespace.clone()).map_err(tell)?);
	let streams = reader.streams().map_err(tell)?;
	let found = streams.iter().find(|found| found.name == *stream);
	let Some(found) = found else {
		return Err(Failure::Error(format!("there is no stream {stream} in this store")));
	};
	if !found.consumers.iter().any(|consumer| consumer.name == *name) {
		return Err(Failure::Error(format!("stream {stream} has no consumer {name}")));
	}
	let unacked = reader.unacked_count(stream, name).map_err(tell)?;
	if !yes {
		return Err(Failure::Error(format!(
			"consumer {name} has not acked {unacked} entries of stream {stream}, and will never be \
			 told of them; say --yes to remove it"
		)));
	}
	drop(reader);
	let store = url.open(namespace).map_err(tell)?;
	// How long entries and ids are kept is the node's business: it trims when it runs.
	let forever = Retention { min_count: u64::MAX, min_age: Duration::MAX };
	let options = LogOptions { history: forever, tombstones: forever };
	let log = EventLog::open(store, stream, Arc::new(SystemClock), options);
	log.and_then(|log| log.remove_consumer(name)).map_err(tell)?;
	output
		.line(&format!("consumer {name} of stream {stream} is removed; it had not acked {unacked}"))
}
