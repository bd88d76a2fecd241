//! What has become of a node after a case.

use std::fmt;

use lightning::events::Event;

use super::Case;
use crate::faulty_store::DEAD_STORE;
use crate::net::Paid;
use crate::node::event_name;
use crate::panics::Caught;

/// One life of the victim.
#[derive(Clone, Debug)]
pub struct LifeReport {
	/// Which life; the first is 1.
	pub life: u32,
	/// What its user was told, in order, as [`describe`] puts it.
	pub told: Vec<String>,
	/// The panic it ended with, if it did.
	pub panicked: Option<Caught>,
	/// How many channels the manager considered open at the end of it. `None` after a panic.
	pub channels: Option<usize>,
	/// What the victim's manager thought of its own payment. `None` after a panic, or if the victim
	/// only forwards it.
	pub paid: Option<Paid>,
}

/// What the whole of it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
	/// The user was told how the payment ended, the node knows it too and runs.
	Recovered,
	/// The node runs, but it does not know how the payment ended, or has a channel that is no more.
	Stuck,
	/// The node cannot be started.
	CrashLoop,
	/// The user was told that the payment succeeded and that it failed.
	Contradiction,
}

/// The end of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
	/// Which.
	pub case: Case,
	/// The victim's lives, the first to the last.
	pub lives: Vec<LifeReport>,
	/// What the payer thinks of the payment at the end, where the payer can be asked.
	pub paid: Option<Paid>,
	/// How many channels the victim should have at the end.
	pub channels_expected: usize,
	/// In cases about a splice, whether it has locked as it was asked for.
	pub spliced: Option<bool>,
}

impl Outcome {
	/// How often the node was started again.
	pub fn restarts(&self) -> usize {
		self.lives.len() - 1
	}

	/// Returns the number of lives that ended in a panic inside LDK. A log whose store dies while it
	/// is opened panics, too: that is a death.
	pub fn panics(&self) -> usize {
		let panicked = self.lives.iter().filter_map(|life| life.panicked.as_ref());
		panicked.filter(|caught| !caught.message.contains(DEAD_STORE)).count()
	}

	/// How often the user was told an event of this name, over all lives.
	pub fn told(&self, name: &str) -> usize {
		self.lives.iter().map(|l| l.told_times(name)).sum()
	}

	/// The last life.
	pub fn last(&self) -> &LifeReport {
		self.lives.last().expect("there is always a first life")
	}

	/// What it comes to.
	pub fn verdict(&self) -> Verdict {
		if self.last().panicked.is_some() {
			return Verdict::CrashLoop;
		}
		if self.told("PaymentSent") > 0 && self.told("PaymentFailed") > 0 {
			return Verdict::Contradiction;
		}
		if let Some(spliced) = self.spliced {
			return if spliced { Verdict::Recovered } else { Verdict::Stuck };
		}
		let known = self.paid != Some(Paid::Pending) && self.told(self.case.resolution()) > 0;
		if known && self.last().channels == Some(self.channels_expected) {
			Verdict::Recovered
		} else {
			Verdict::Stuck
		}
	}
}

impl LifeReport {
	/// How often an event of this name was told.
	pub fn told_times(&self, name: &str) -> usize {
		self.told.iter().filter(|told| told.split('(').next() == Some(name)).count()
	}
}

impl fmt::Display for LifeReport {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "life {}: told {:?}", self.life, self.told)?;
		if let Some(caught) = &self.panicked {
			return write!(f, "; panicked at {}: {}", caught.at, caught.message);
		}
		write!(f, "; channels open: {}", self.channels.unwrap_or_default())?;
		self.paid.map_or(Ok(()), |paid| write!(f, "; payment: {paid:?}"))
	}
}

/// An event's name, with its reason where there is one: `ChannelClosed(CommitmentTxConfirmed)`.
pub fn describe(event: &Event) -> String {
	let name = event_name(event);
	let reason = match event {
		Event::ChannelClosed { reason, .. } => format!("{reason:?}"),
		Event::PaymentFailed { reason: Some(reason), .. } => format!("{reason:?}"),
		_ => return name,
	};
	let reason = reason.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
	format!("{name}({reason})")
}
