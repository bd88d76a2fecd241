// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What becomes of an async order when something is lost between a node, its LSP and a recipient, and of
//! a payout when the connection to the node is.

use leyden_testkit::async_order::order::State;
use leyden_testkit::async_order::stories::{callback, request, Ending};
use leyden_testkit::async_order::{Notify, Replay};
use leyden_testkit::bonds;
use serde_json::{json, Value};

/// Which loss.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Story {
	/// A callback to the LSP.
	Callback,
	/// The answer to a request.
	Request,
	/// The connection to the node that pays.
	Payout,
}

/// How it ended.
#[derive(Clone, Copy)]
pub enum StoryReport {
	/// An order.
	Order { story: Story, ending: Ending },
	/// A payout.
	Payout(bonds::Ending),
}

impl Story {
	pub const ALL: [Self; 3] = [Self::Callback, Self::Request, Self::Payout];

	pub fn name(self) -> &'static str {
		match self {
			Self::Callback => "callback",
			Self::Request => "request",
			Self::Payout => "payout",
		}
	}

	pub fn title(self) -> &'static str {
		match self {
			Self::Callback => "a callback to the LSP, which restarts",
			Self::Request => "the answer to a request for an invoice",
			Self::Payout => "the connection to the node, with a payout under way",
		}
	}

	/// Runs it: as it is done today, or with Leyden.
	pub fn run(self, with_leyden: bool, step: &mut dyn FnMut(&str)) -> StoryReport {
		let ending = match (self, with_leyden) {
			(Self::Callback, false) => callback(Notify::Detached, step),
			(Self::Callback, true) => callback(Notify::Outbox, step),
			(Self::Request, false) => request(Replay::Memory, step),
			(Self::Request, true) => request(Replay::Leyden, step),
			(Self::Payout, with) => return StoryReport::Payout(bonds::connection_lost(with, step)),
		};
		StoryReport::Order { story: self, ending }
	}
}

impl StoryReport {
	pub fn is_well(&self) -> bool {
		match self {
			Self::Order { ending, .. } => ending.is_well(),
			Self::Payout(ending) => ending.got_msat == ending.owed_msat,
		}
	}

	pub fn in_words(&self) -> String {
		match self {
			Self::Order { story, ending } => order_in_words(*story, ending),
			Self::Payout(bonds::Ending { owed_msat, got_msat }) => {
				let (owed, got) = (in_thousands(owed_msat / 1000), in_thousands(got_msat / 1000));
				match owed_msat == got_msat {
					true => format!("paid once: {got} sat"),
					false => format!("paid twice: {got} sat instead of {owed}"),
				}
			},
		}
	}

	pub fn to_json(self) -> Value {
		let (well, in_words) = (self.is_well(), self.in_words());
		match self {
			Self::Order { ending, .. } => json!({
				"well": well,
				"in_words": in_words,
				"state": format!("{:?}", ending.state),
				"lsp_lost_msat": ending.lsp_lost_msat,
				"recipient_got_msat": ending.recipient_got_msat,
				"payer_paid_msat": ending.payer_paid_msat,
				"invoices": ending.invoices,
				"took_secs": ending.took_secs,
			}),
			Self::Payout(bonds::Ending { owed_msat, got_msat }) => json!({
				"well": well,
				"in_words": in_words,
				"owed_msat": owed_msat,
				"got_msat": got_msat,
			}),
		}
	}
}

fn order_in_words(story: Story, ending: &Ending) -> String {
	let Ending { state, lsp_lost_msat, invoices, took_secs, .. } = *ending;
	if lsp_lost_msat > 0 {
		let sats = in_thousands(lsp_lost_msat / 1000);
		return format!("never sent again: the LSP loses {sats} sat");
	}
	let how = match invoices {
		_ if story == Story::Callback => "sent again, taken once".to_owned(),
		1 => "the same invoice again".to_owned(),
		n => format!("refused until it expires, then {n} invoices of a hash"),
	};
	match state {
		State::InboundClaimed => format!("{how}; settled after {took_secs} s"),
		state => format!("{how}; the order stays {state:?}"),
	}
}

/// With commas.
fn in_thousands(n: u64) -> String {
	match n {
		0..=999 => n.to_string(),
		_ => format!("{},{:03}", in_thousands(n / 1000), n % 1000),
	}
}
