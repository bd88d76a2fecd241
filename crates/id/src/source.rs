// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The public name of a monitor event.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ChannelId, ParseError};

/// Which monitor event: the channel whose monitor made it, and its number there.
///
/// The shape of the type of the same name in rust-lightning #4491. Here the number is the log's
/// index of the entry, so that it is never used twice, in any order of acks and over any restart;
/// order between two channels' events is the order of these numbers as well.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct MonitorEventSource {
	/// The channel whose `ChannelMonitor` made the event.
	pub channel_id: ChannelId,
	/// The event's number.
	pub event_id: u64,
}

impl fmt::Display for MonitorEventSource {
	/// `channel:number`.
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "{}:{}", self.channel_id, self.event_id)
	}
}

impl FromStr for MonitorEventSource {
	type Err = ParseError;

	fn from_str(text: &str) -> Result<Self, ParseError> {
		let form = ParseError::Form("64 hex digits, a colon and a number");
		let (channel_id, event_id) = text.split_once(':').ok_or(form.clone())?;
		let number: u64 = event_id.parse().map_err(|_| form.clone())?;
		// Without a sign, and without zeros in front.
		if number.to_string() != event_id {
			return Err(form);
		}
		Ok(Self { channel_id: channel_id.parse()?, event_id: number })
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn text_reads_back() {
		let source = MonitorEventSource { channel_id: ChannelId([7; 32]), event_id: 42 };
		assert_eq!(source.to_string(), format!("{}:42", "07".repeat(32)));
		assert_eq!(source.to_string().parse(), Ok(source));
		let number = |number: &str| format!("{}:{number}", "07".repeat(32));
		for bad in ["", "07:1", &"07".repeat(32), &number("x"), &number("+4"), &number("04")] {
			assert!(bad.parse::<MonitorEventSource>().is_err(), "{bad}");
		}
	}
}
