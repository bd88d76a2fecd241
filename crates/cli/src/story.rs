// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What becomes of an async order when something is lost between a node, its LSP and a recipient.

use leyden_testkit::async_order::order::State;
use leyden_testkit::async_order::stories::{callback, request, Ending};
use leyden_testkit::async_order::{Notify, Replay};
use serde_json::{json, Value};

/// Which loss.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Story {
	/// A callback to the LSP.
	Callback,
	/// The answer to a request.
	Request,
}

/// How it ended.
#[derive(Clone, Copy)]
pub struct StoryReport {
	pub story: Story,
	with_leyden: bool,
	ending: Ending,
}

impl Story {
	pub const ALL: [Self; 2] = [Self::Callback, Self::Request];

	pub fn name(self) -> &'static str {
		match self {
			Self::Callback => "callback",
			Self::Request => "request",
		}
	}

	pub fn title(self) -> &'static str {
		match self {
			Self::Callback => "a callback to the LSP, which restarts",
			Self::Request => "the answer to a request for an invoice",
		}
	}

	/// Runs it: as it is done today, or with Leyden.
	pub fn run(self, with_leyden: bool, step: &mut dyn FnMut(&str)) -> StoryReport {
		let ending = match (self, with_leyden) {
			(Self::Callback, false) => callback(Notify::Detached, step),
			(Self::Callback, true) => callback(Notify::Outbox, step),
			(Self::Request, false) => request(Replay::Memory, step),
			(Self::Request, true) => request(Replay::Leyden, step),
		};
		StoryReport { story: self, with_leyden, ending }
	}
}

impl StoryReport {
	pub fn is_well(&self) -> bool {
		self.ending.is_well()
	}

	pub fn in_words(&self) -> String {
		let Ending { state, lsp_lost_msat, invoices, took_secs, .. } = self.ending;
		if lsp_lost_msat > 0 {
			let sats = in_thousands(lsp_lost_msat / 1000);
			return format!("never sent again: the LSP loses {sats} sat");
		}
		let how = match (self.story, invoices) {
			(Story::Callback, _) => "sent again, taken once".to_owned(),
			(Story::Request, 1) => "the same invoice again".to_owned(),
			(Story::Request, n) => format!("refused until it expires, then {n} invoices of a hash"),
		};
		match state {
			State::InboundClaimed => format!("{how}; settled after {took_secs} s"),
			state => format!("{how}; the order stays {state:?}"),
		}
	}

	pub fn to_json(self) -> Value {
		let Ending { state, lsp_lost_msat, recipient_got_msat, payer_paid_msat, .. } = self.ending;
		json!({
			"case": self.story.name(),
			"with_leyden": self.with_leyden,
			"well": self.is_well(),
			"state": format!("{state:?}"),
			"lsp_lost_msat": lsp_lost_msat,
			"recipient_got_msat": recipient_got_msat,
			"payer_paid_msat": payer_paid_msat,
			"invoices": self.ending.invoices,
			"took_secs": self.ending.took_secs,
			"in_words": self.in_words(),
		})
	}
}

/// With commas.
fn in_thousands(n: u64) -> String {
	match n {
		0..=999 => n.to_string(),
		_ => format!("{},{:03}", in_thousands(n / 1000), n % 1000),
	}
}
