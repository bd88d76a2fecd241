// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What became of a node, in words.

use leyden_testkit::cases::{Case, Outcome, Verdict};
use leyden_testkit::net::Paid;
use serde_json::{json, Value};

/// The end of a case.
#[derive(Clone)]
pub struct Report {
	pub case: Case,
	/// `recovered`, `stuck`, `crash_loop` or `contradiction`.
	pub verdict: String,
	/// How often the node was started again.
	pub restarts: u64,
	/// How many of its lives ended in a panic inside LDK.
	pub panics: u64,
	/// The last panic: where, and what it said.
	pub panic: Option<String>,
	/// How often the user was told how the payment ended, in the event named by the case.
	pub told: u64,
	/// How often the user was told that a splice failed.
	pub failed: u64,
	/// Channels the node has open at the end, and should have.
	pub channels: Option<u64>,
	pub channels_expected: u64,
	/// Whether the payer still thinks that the payment is under way.
	pub pending: bool,
}

impl Report {
	pub fn of(outcome: &Outcome) -> Self {
		let verdict = match outcome.verdict() {
			Verdict::Recovered => "recovered",
			Verdict::Stuck => "stuck",
			Verdict::CrashLoop => "crash_loop",
			Verdict::Contradiction => "contradiction",
		};
		let panic = outcome.lives.iter().rev().find_map(|life| life.panicked.as_ref());
		let count = |n: usize| n as u64;
		Self {
			case: outcome.case,
			verdict: verdict.to_owned(),
			restarts: count(outcome.restarts()),
			panics: count(outcome.panics()),
			panic: panic.map(|caught| format!("{}: {}", caught.at, caught.message)),
			told: count(outcome.told(outcome.case.resolution())),
			failed: count(outcome.told("SpliceNegotiationFailed")),
			channels: outcome.last().channels.map(count),
			channels_expected: count(outcome.channels_expected),
			pending: outcome.paid == Some(Paid::Pending),
		}
	}

	pub fn to_json(&self) -> Value {
		json!({
			"case": self.case.name(),
			"verdict": self.verdict,
			"restarts": self.restarts,
			"panics": self.panics,
			"panic": self.panic,
			"told": self.told,
			"failed": self.failed,
			"event": self.case.resolution(),
			"channels": self.channels,
			"channels_expected": self.channels_expected,
			"pending": self.pending,
			"in_words": self.in_words(),
		})
	}

	pub fn from_json(value: &Value) -> Option<Self> {
		Some(Self {
			case: value.get("case")?.as_str()?.parse().ok()?,
			verdict: value.get("verdict")?.as_str()?.to_owned(),
			restarts: value.get("restarts")?.as_u64()?,
			panics: value.get("panics")?.as_u64()?,
			panic: value.get("panic")?.as_str().map(str::to_owned),
			told: value.get("told")?.as_u64()?,
			failed: value.get("failed")?.as_u64()?,
			channels: value.get("channels")?.as_u64(),
			channels_expected: value.get("channels_expected")?.as_u64()?,
			pending: value.get("pending")?.as_bool()?,
		})
	}

	/// Whether everything is as it should be: the node runs, the user was told how the payment
	/// ended.
	pub fn is_well(&self) -> bool {
		self.verdict == "recovered" && self.panics == 0 && self.told > 0
	}

	/// What happened, from what was observed.
	pub fn in_words(&self) -> String {
		let event = self.case.resolution();
		if self.case.is_splice() {
			return self.splice_in_words().to_owned();
		}
		match self.verdict.as_str() {
			"crash_loop" => {
				format!("crash loop: panics at every start ({} of {})", self.panics, self.restarts)
			},
			"contradiction" => "PaymentFailed after PaymentSent".to_owned(),
			"recovered" => format!("recovers: {event} told {}", times(self.told)),
			_ => {
				let mut bad = Vec::new();
				if self.channels.is_some_and(|open| open > self.channels_expected) {
					bad.push("channel open for ever".to_owned());
				}
				if self.pending {
					bad.push("payment pending for ever".to_owned());
				}
				if self.told == 0 {
					bad.push(format!("{event} never told"));
				}
				bad.join(", ")
			},
		}
	}
}

impl Report {
	fn splice_in_words(&self) -> &'static str {
		match (self.verdict.as_str(), self.case) {
			("recovered", Case::FeeBump) => "both locked, at the higher fee",
			("recovered", _) => "locked",
			("crash_loop", _) => "crash loop: panics at every start",
			(_, Case::FeeBump) => "a higher fee forgotten, nobody told",
			_ if self.failed > 0 => "splice given up, told as SpliceNegotiationFailed",
			_ => "splice forgotten, nobody told",
		}
	}
}

fn times(n: u64) -> String {
	match n {
		1 => "once".to_owned(),
		2 => "twice".to_owned(),
		n => format!("{n} times"),
	}
}
