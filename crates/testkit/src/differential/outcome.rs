//! The outcome of a run, and the ways in which one outcome is worse than another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::actor::Telling;

/// The difference that counts as none: more than fees make up, less than any payment.
const TOLERANCE_SATS: u64 = 20_000;

/// The end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelEnd {
	/// Both sides have the channel.
	Open,
	/// The channel was closed together.
	Cooperative,
	/// The channel was closed on chain by one side, or one side has lost it.
	Forced,
}

/// The end of one attempt to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentEnd {
	/// `true` if LDK took the payment.
	pub was_sent: bool,
	/// `true` if the payer was told that the payment arrived.
	pub told_sent: bool,
	/// `true` if the payer was told that the payment failed.
	pub told_failed: bool,
	/// `true` if the payee has the payment.
	pub claimed: bool,
	/// `true` if the payer's node still waits for the payment.
	pub pending: bool,
	/// The amount that the node under test has paid by it and was told of, in satoshi.
	pub paid_sat: u64,
}

impl PaymentEnd {
	/// Returns the rank of this end: the more, the better.
	fn rank(self) -> u8 {
		match self {
			// Two answers, or the wrong one.
			PaymentEnd { told_sent: true, told_failed: true, .. }
			| PaymentEnd { told_failed: true, told_sent: false, claimed: true, .. } => 0,
			PaymentEnd { told_sent: true, .. } => 4,
			PaymentEnd { told_failed: true, .. } => 3,
			// No answer: a node that waits for ever, or one that has paid and forgot.
			PaymentEnd { pending: true, .. } | PaymentEnd { claimed: true, .. } => 1,
			// No answer, and no money gone.
			_ => 2,
		}
	}
}

/// The end of everything, in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
	/// The events that the user of the node under test was told of.
	pub tellings: Vec<Telling>,
	/// The ends of payments.
	pub payments: BTreeMap<String, PaymentEnd>,
	/// The ends of channels.
	pub channels: BTreeMap<String, ChannelEnd>,
	/// HTLCs that hung when nothing moved any more, on all nodes.
	pub hanging: usize,
	/// The money of each node, in its wallet and in its channels, in satoshi.
	pub money: Vec<u64>,
	/// The index of the node under test.
	pub victim: usize,
	/// The messages with which LDK panicked.
	pub panics: Vec<String>,
	/// `true` if the node under test runs.
	pub runs: bool,
	/// The number of lives that the node under test had.
	pub lives: u32,
}

/// A way in which one outcome is worse than another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worse {
	/// The user was never told.
	NotTold(String),
	/// The user was told under more ids than LDK alone told times.
	ToldMoreOften(String),
	/// A payment ended worse.
	Payment(String),
	/// More HTLCs hang.
	Hangs,
	/// A channel was closed by force.
	Channel(String),
	/// The node under test, which has this index, has less money.
	Money(usize),
	/// LDK panics, or the node does not run.
	Panics,
}

impl fmt::Display for Worse {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::NotTold(key) => write!(f, "never told: {key}"),
			Self::ToldMoreOften(key) => write!(f, "told under too many ids: {key}"),
			Self::Payment(name) => write!(f, "ended worse: {name}"),
			Self::Hangs => write!(f, "HTLCs hang"),
			Self::Channel(id) => write!(f, "closed by force: {id}"),
			Self::Money(n) => write!(f, "node {n} has less money"),
			Self::Panics => write!(f, "LDK panics, or the node does not run"),
		}
	}
}

impl Outcome {
	/// Returns how often the user was told each thing: once per id, and once per telling without
	/// one.
	pub fn told(&self) -> BTreeMap<&str, usize> {
		let mut ids: BTreeMap<&str, BTreeSet<[u8; 32]>> = BTreeMap::new();
		let mut told: BTreeMap<&str, usize> = BTreeMap::new();
		for telling in &self.tellings {
			let key = telling.key.as_str();
			let fresh = match &telling.id {
				Some(id) => ids.entry(key).or_default().insert(*id.as_bytes()),
				None => true,
			};
			*told.entry(key).or_default() += usize::from(fresh);
		}
		told
	}

	/// Returns the keys of single events that were told under more ids than one.
	pub fn several_ids(&self) -> BTreeSet<String> {
		let exact = self.tellings.iter().filter(|t| t.exact && t.id.is_some());
		let exact: BTreeSet<&str> = exact.map(|t| t.key.as_str()).collect();
		let told = self.told();
		let several = exact.into_iter().filter(|key| told.get(key).is_some_and(|n| *n > 1));
		several.map(str::to_owned).collect()
	}

	/// Returns `true` if this outcome is worse than each of these.
	pub fn is_worse_than_all(&self, others: &[Outcome]) -> bool {
		let others: Vec<&Outcome> = others.iter().collect();
		!self.worse_than_all(&others).is_empty()
	}

	/// Returns the ways in which this outcome is worse than `other`.
	pub fn worse_than(&self, other: &Outcome) -> BTreeSet<Worse> {
		let mut worse = BTreeSet::new();
		let (ours, theirs) = (self.told(), other.told());
		let exact: BTreeSet<&str> =
			self.tellings.iter().filter(|t| t.exact).map(|t| t.key.as_str()).collect();
		for (key, times) in &theirs {
			match ours.get(key) {
				// LDK alone takes back that it was sent: that is its fault, and not ours.
				None if key.starts_with("PaymentFailed ")
					&& ours.contains_key(key.replacen("Failed", "Sent", 1).as_str()) => {},
				None => {
					worse.insert(Worse::NotTold((*key).to_owned()));
				},
				Some(ours) if ours > times && exact.contains(key) => {
					worse.insert(Worse::ToldMoreOften((*key).to_owned()));
				},
				Some(_) => {},
			}
		}
		for (name, end) in &self.payments {
			if other.payments.get(name).is_some_and(|other| end.rank() < other.rank()) {
				worse.insert(Worse::Payment(name.clone()));
			}
		}
		if self.hanging > other.hanging {
			worse.insert(Worse::Hangs);
		}
		for (id, end) in &self.channels {
			let forced = *end == ChannelEnd::Forced;
			if forced && other.channels.get(id).is_some_and(|other| *other != ChannelEnd::Forced) {
				worse.insert(Worse::Channel(id.clone()));
			}
		}
		for (n, sats) in self.money.iter().enumerate() {
			// A payment that arrived, as its user wanted, and was lost without Leyden is no loss.
			let sats = sats + self.paid_sat();
			let theirs = other.money.get(n).copied().unwrap_or_default() + other.paid_sat();
			// A peer that was paid less was paid less often: the payment says so.
			if n == self.victim && sats + TOLERANCE_SATS < theirs {
				worse.insert(Worse::Money(n));
			}
		}
		if self.unasked_panics() > other.unasked_panics() || (!self.runs && other.runs) {
			worse.insert(Worse::Panics);
		}
		worse
	}

	/// Returns the satoshis that the node under test has paid by payments that it was told arrived.
	fn paid_sat(&self) -> u64 {
		self.payments.values().map(|end| end.paid_sat).sum()
	}

	/// Returns the number of LDK's panics, without the one by which LDK stops a node whose
	/// persister asks for that.
	fn unasked_panics(&self) -> usize {
		let asked = |panic: &&String| panic.contains("persistence failed unrecoverably");
		self.panics.iter().filter(|panic| !asked(panic)).count()
	}

	/// Returns the ways in which this outcome is worse than every one of `others`: the outcomes to
	/// which LDK alone might have come with the same deaths.
	pub fn worse_than_all(&self, others: &[&Outcome]) -> BTreeSet<Worse> {
		let mut all = others.iter().map(|other| self.worse_than(other));
		let first = all.next().unwrap_or_default();
		all.fold(first, |left, next| left.intersection(&next).cloned().collect())
	}
}
