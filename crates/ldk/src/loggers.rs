// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! LDK's `Logger` for nodes that log with the `log` or the `tracing` crate.
//!
//! LDK's level *gossip*, which the others do not have, becomes *trace*.

use lightning::util::logger::{Level, Logger, Record};

/// Passes lines on to the logger that the program has set with the `log` crate, under the target of
/// their module.
#[cfg(feature = "log")]
#[derive(Clone, Copy, Debug, Default)]
pub struct LogLogger;

#[cfg(feature = "log")]
impl Logger for LogLogger {
	fn log(&self, record: Record) {
		let level = match record.level {
			Level::Gossip | Level::Trace => log::Level::Trace,
			Level::Debug => log::Level::Debug,
			Level::Info => log::Level::Info,
			Level::Warn => log::Level::Warn,
			Level::Error => log::Level::Error,
		};
		log::log!(target: record.module_path, level, "{}", record.args);
	}
}

/// Passes lines on to the subscriber of the `tracing` crate, with the target `leyden` and the line's
/// module as a field: the targets of `tracing` are fixed when a program is compiled.
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingLogger;

#[cfg(feature = "tracing")]
impl Logger for TracingLogger {
	fn log(&self, record: Record) {
		let (module, args) = (record.module_path, &record.args);
		match record.level {
			Level::Gossip | Level::Trace => tracing::trace!(target: "leyden", module, "{args}"),
			Level::Debug => tracing::debug!(target: "leyden", module, "{args}"),
			Level::Info => tracing::info!(target: "leyden", module, "{args}"),
			Level::Warn => tracing::warn!(target: "leyden", module, "{args}"),
			Level::Error => tracing::error!(target: "leyden", module, "{args}"),
		}
	}
}
