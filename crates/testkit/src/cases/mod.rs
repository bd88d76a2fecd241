//! Crashes from which LDK alone does not recover, or just so.
//!
//! Each case brings one node, the *victim*, to a moment at which its chain monitor and its manager
//! on disk disagree, lets it die there, restarts it from its disk and looks at what it knows.
//! Nothing is taken away by hand: the manager takes its events from the monitors the way it always
//! does, monitors are written when LDK writes them, and the only fault is that the machine stops
//! before the manager's next write.
//!
//! ```
//! use leyden_testkit::cases::{run, Case, CaseSetup, Verdict};
//!
//! let outcome = run(Case::N, &CaseSetup::bare(1), &mut |_step| {});
//! assert_eq!(outcome.verdict(), Verdict::CrashLoop);
//! ```
//!
//! The same function runs with any [`Guard`](crate::Guard) and any disks, see [`CaseSetup`].

mod outcome;
mod scripts;
mod splices;
mod stage;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::disk::{Kv, MemKv, NodeDisk};
use crate::guard::{Bare, GuardFactory};

pub use outcome::{describe, LifeReport, Outcome, Verdict};

/// Which crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Case {
	/// The manager had closed the channel before the claim's event was lost.
	A,
	/// The manager on disk has the channel open; close and claim were taken and lost.
	B,
	/// The close was taken and lost, the claim still waits: every start panics.
	G1,
	/// Close and claim were taken, the user was told of both, and all of it was lost.
	G3,
	/// A forwarded payment's failure was taken and lost.
	H,
	/// The user was told that a payment succeeded, and after the crash that it failed.
	K,
	/// Like K, but the claim came after the close was handled.
	K0,
	/// A payment's own failure was taken and lost.
	L,
	/// G1, with one life in which the manager takes the claim and is written: no help.
	N,
	/// The user was told that a payment succeeded, and the node forgot.
	P,
	/// A splice-out that the node had taken and forgot.
	SpliceOut,
	/// A splice-in that the node had taken and forgot.
	SpliceIn,
	/// Higher fees for a splice-out and a splice-in, that the node had taken and forgot.
	FeeBump,
	/// A splice-out with a peer that stays away over several restarts.
	SplicePeerOffline,
}

impl Case {
	/// Those about splices.
	pub const SPLICES: [Case; 4] =
		[Case::SpliceOut, Case::SpliceIn, Case::FeeBump, Case::SplicePeerOffline];

	/// Those about events that are lost.
	pub const ALL: [Case; 10] = [
		Case::A,
		Case::B,
		Case::G1,
		Case::G3,
		Case::H,
		Case::K,
		Case::K0,
		Case::L,
		Case::N,
		Case::P,
	];

	/// Its short name.
	pub fn name(self) -> &'static str {
		match self {
			Case::A => "A",
			Case::B => "B",
			Case::G1 => "G1",
			Case::G3 => "G3",
			Case::H => "H",
			Case::K => "K",
			Case::K0 => "K0",
			Case::L => "L",
			Case::N => "N",
			Case::P => "P",
			Case::SpliceOut => "splice-out",
			Case::SpliceIn => "splice-in",
			Case::FeeBump => "fee-bump",
			Case::SplicePeerOffline => "splice-peer-offline",
		}
	}

	/// What happens, in a line.
	pub fn title(self) -> &'static str {
		match self {
			Case::A => "claim lost, but the manager on disk had closed the channel",
			Case::B => "close and claim taken from the monitor and lost with the manager",
			Case::G1 => "close lost with the manager, claim still waiting in the monitor",
			Case::G3 => "close and claim handled by the user and lost with the manager",
			Case::H => "failure of a forwarded payment lost with the manager",
			Case::K => "payment sent, handled by the user, manager not written",
			Case::K0 => "close handled, claim not yet, manager not written",
			Case::L => "failure of an own payment lost with the manager",
			Case::N => "as G1, with a manager that is written once before it panics",
			Case::P => "close written, payment sent handled by the user and not written",
			Case::SpliceOut => "splice-out taken by LDK, node stops before it is signed",
			Case::SpliceIn => "splice-in taken by LDK, node stops before it is signed",
			Case::FeeBump => {
				"higher fees of a splice-out and a splice-in taken by LDK, node stops before they are \
				 signed"
			},
			Case::SplicePeerOffline => "splice-out, the peer is away over four restarts",
		}
	}

	/// Whether it is about a splice.
	pub fn is_splice(self) -> bool {
		Case::SPLICES.contains(&self)
	}

	/// Whether the victim's chain monitor is deferred, which the state of this case needs.
	pub fn is_deferred(self) -> bool {
		!matches!(self, Case::A | Case::K | Case::K0 | Case::P) && !self.is_splice()
	}

	/// The event by which the victim's user learns what has become of the payment.
	pub fn resolution(self) -> &'static str {
		match self {
			Case::H => "HTLCHandlingFailed",
			Case::L => "PaymentFailed",
			_ if self.is_splice() => "SpliceNegotiated",
			_ => "PaymentSent",
		}
	}
}

impl fmt::Display for Case {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(self.name())
	}
}

impl FromStr for Case {
	type Err = String;

	fn from_str(name: &str) -> Result<Self, String> {
		let mut all = Case::ALL.into_iter().chain(Case::SPLICES);
		let found = all.find(|case| case.name().eq_ignore_ascii_case(name));
		found.ok_or_else(|| format!("no case is called {name}"))
	}
}

/// Gives a node its empty disk, by the node's role in the case.
pub type Disks = Arc<dyn Fn(&str) -> Arc<NodeDisk> + Send + Sync>;

/// What a case is run with.
#[derive(Clone)]
pub struct CaseSetup {
	/// Decides every key.
	pub seed: u64,
	/// What stands between LDK and the victim. Its peers always have LDK alone.
	pub guards: GuardFactory,
	/// Gives each node its empty disk, by role: `victim`, `payer` or `payee`.
	pub disks: Disks,
	/// Whether channels have anchors.
	pub anchors: bool,
}

impl CaseSetup {
	/// LDK alone, disks in memory, channels without anchors.
	pub fn bare(seed: u64) -> Self {
		Self::guarded(seed, Bare::factory())
	}

	/// The victim guarded by what `guards` makes, disks in memory, channels without anchors.
	pub fn guarded(seed: u64, guards: GuardFactory) -> Self {
		let disks = Arc::new(|_: &str| Arc::new(NodeDisk::new(Arc::new(MemKv::new()))));
		CaseSetup { seed, guards, disks, anchors: false }
	}

	/// The same with disks over these stores.
	pub fn on_disks(self, stores: impl Fn(&str) -> Kv + Send + Sync + 'static) -> Self {
		self.on_node_disks(move |role| Arc::new(NodeDisk::new(stores(role))))
	}

	/// The same with these disks, which the caller may keep hold of: for hooks, and for a guard
	/// whose own store must die together with the node.
	pub fn on_node_disks(
		mut self, disks: impl Fn(&str) -> Arc<NodeDisk> + Send + Sync + 'static,
	) -> Self {
		self.disks = Arc::new(disks);
		self
	}

	/// The same with anchor channels.
	pub fn with_anchors(mut self) -> Self {
		self.anchors = true;
		self
	}
}

/// Runs a case to its end. `step` is told what is being done, for people to read.
///
/// # Panics
///
/// When the setup does not work. What LDK panics with after the crash is part of the [`Outcome`].
pub fn run(case: Case, setup: &CaseSetup, step: &mut dyn FnMut(&str)) -> Outcome {
	scripts::run(case, setup, step)
}
