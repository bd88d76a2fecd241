//! LDK's log lines in the `log` crate and in `tracing`, at their levels.

#![cfg(all(feature = "log", feature = "tracing"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt;
use std::sync::{Arc, Mutex};

use leyden::ldk::{LogLogger, TracingLogger};
use lightning::util::logger::{Level, Logger, Record};
use tracing::field::{Field, Visit};
use tracing::span;

fn log_all(logger: &dyn Logger) {
	let levels =
		[Level::Gossip, Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
	for level in levels {
		logger.log(Record::new(level, format_args!("at {level}"), "a::module", "file.rs", 1));
	}
}

#[test]
fn every_level_reaches_the_log_crate() {
	static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
	struct Lines;
	impl log::Log for Lines {
		fn enabled(&self, _: &log::Metadata<'_>) -> bool {
			true
		}

		fn log(&self, record: &log::Record<'_>) {
			let line = format!("{} {} {}", record.level(), record.target(), record.args());
			LINES.lock().unwrap().push(line);
		}

		fn flush(&self) {}
	}
	// One logger for the process: no other test of this file sets one.
	log::set_logger(&Lines).unwrap();
	log::set_max_level(log::LevelFilter::Trace);
	log_all(&LogLogger);
	let lines = LINES.lock().unwrap();
	let levels: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
	assert_eq!(levels, ["TRACE", "TRACE", "DEBUG", "INFO", "WARN", "ERROR"]);
	assert!(lines[5].ends_with("a::module at ERROR"), "{lines:?}");
}

#[test]
fn every_level_reaches_tracing() {
	#[derive(Clone, Default)]
	struct Lines(Arc<Mutex<Vec<String>>>);
	struct Fields(String);
	impl Visit for Fields {
		fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
			self.0.push_str(&format!(" {}={value:?}", field.name()));
		}
	}
	impl tracing::Subscriber for Lines {
		fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
			true
		}

		fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
			span::Id::from_u64(1)
		}

		fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

		fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

		fn event(&self, event: &tracing::Event<'_>) {
			let mut fields = Fields(event.metadata().level().to_string());
			event.record(&mut fields);
			self.0.lock().unwrap().push(fields.0);
		}

		fn enter(&self, _: &span::Id) {}

		fn exit(&self, _: &span::Id) {}
	}
	let lines = Lines::default();
	tracing::subscriber::with_default(lines.clone(), || log_all(&TracingLogger));
	let lines = lines.0.lock().unwrap();
	let levels: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
	assert_eq!(levels, ["TRACE", "TRACE", "DEBUG", "INFO", "WARN", "ERROR"]);
	assert!(lines[5].contains("at ERROR") && lines[5].contains("a::module"), "{lines:?}");
}
