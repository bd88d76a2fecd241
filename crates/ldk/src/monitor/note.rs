// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What the bus tells about its work.

use std::fmt;

use leyden_id::{ChannelId, MonitorEventSource};
use lightning::util::logger::Level;

use super::view::MonitorEventKind;

/// Why an entry is not handed out.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Quarantine {
	/// No `ChannelMonitor` of its channel is loaded (it was archived): LDK would panic.
	MonitorNotLoaded,
	/// It is an event that this version does not know. It is kept as it is for one that does.
	UnknownEvent,
	/// Its bytes are not those of an entry. It is kept as it is.
	Malformed,
}

impl fmt::Display for Quarantine {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::MonitorNotLoaded => "no monitor of its channel is loaded",
			Self::UnknownEvent => "this version does not know the event",
			Self::Malformed => "its bytes are damaged",
		})
	}
}

/// Something that happened on the bus. Its `Display` is a line for a log; it holds no secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BusNote {
	/// An entry of an earlier life was handed out again.
	Replayed {
		/// The entry.
		source: MonitorEventSource,
		/// What it is.
		kind: MonitorEventKind,
	},
	/// A monitor produced an event again that is in the log; it is still one entry.
	Regenerated {
		/// The entry.
		source: MonitorEventSource,
		/// What it is.
		kind: MonitorEventKind,
	},
	/// The manager was told of a close that it may have missed, before an HTLC of that channel.
	CloseFirst {
		/// The channel.
		channel_id: ChannelId,
	},
	/// A replayed failure waits until the updates in flight of its channel are persisted.
	HeldBack {
		/// The entry.
		source: MonitorEventSource,
	},
	/// An entry is not handed out.
	Quarantined {
		/// The entry.
		source: MonitorEventSource,
		/// Why not.
		why: Quarantine,
	},
	/// The log could not be read or written. Nothing is handed out until it can.
	LogFailed {
		/// What the log said.
		error: String,
	},
	/// The log could not be written while the chain or the manager moved on. Nothing is passed on
	/// to the monitors any more, so that none of them forgets what is not logged. Restart the node.
	Stopped {
		/// What the log said.
		error: String,
	},
}

impl BusNote {
	/// The level at which a node's log should show it.
	pub fn level(&self) -> Level {
		match self {
			Self::Replayed { .. } | Self::Regenerated { .. } | Self::CloseFirst { .. } => {
				Level::Info
			},
			Self::HeldBack { .. } => Level::Debug,
			Self::Quarantined { .. } => Level::Warn,
			Self::LogFailed { .. } | Self::Stopped { .. } => Level::Error,
		}
	}
}

impl fmt::Display for BusNote {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Replayed { source, kind } => write!(f, "replayed {kind} {source}"),
			Self::Regenerated { source, kind } => {
				write!(f, "{kind} {source} was produced again and is the same entry")
			},
			Self::CloseFirst { channel_id } => {
				write!(f, "told the manager that channel {channel_id} is closed before its HTLCs")
			},
			Self::HeldBack { source } => write!(f, "{source} waits for updates in flight"),
			Self::Quarantined { source, why } => write!(f, "{source} is not handed out: {why}"),
			Self::LogFailed { error } => {
				write!(f, "the log failed, nothing is handed out: {error}")
			},
			Self::Stopped { error } => write!(f, "stopped, restart the node: {error}"),
		}
	}
}
