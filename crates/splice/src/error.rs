// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.
//! What can go wrong with a request, apart from what becomes of a splice later.

use std::fmt;

use bitcoin::{OutPoint, ScriptBuf};
use leyden_store::StoreError;

use crate::parts::SpliceId;
use crate::reason::FailureReason;

/// Why a splice was not begun, bumped or canceled. A splice that was not begun never runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SpliceError {
	/// The store failed.
	Store(StoreError),
	/// There is no such channel with that peer.
	UnknownChannel,
	/// The channel is being closed.
	ChannelClosing,
	/// The amount is none: zero, below dust, or more than there are coins.
	BadAmount {
		/// In satoshi.
		amount_sat: u64,
		/// The least it may be, in satoshi.
		least_sat: u64,
	},
	/// A splice-out that pays nobody, or too many.
	BadOutputs {
		/// How many.
		count: usize,
	},
	/// The lowest fee rate is above the highest, or zero.
	BadFeeBand,
	/// A splice of this channel that is not done pays to this script already.
	ScriptInUse {
		/// It.
		script: ScriptBuf,
	},
	/// A coin is reserved for another splice, or for the wallet.
	InputReserved {
		/// It.
		input: OutPoint,
	},
	/// A coin is spent.
	InputSpent,
	/// Too many splices wait.
	TooMany {
		/// The limit.
		limit: usize,
	},
	/// LDK or the wallet refuses it, for good.
	Refused(FailureReason),
	/// LDK cannot do it now. Try again.
	NotNow {
		/// What LDK says.
		message: String,
	},
	/// There is no such splice, or it is over.
	NoSuchSplice {
		/// Its id.
		id: SpliceId,
	},
	/// There is nothing negotiated yet whose fee could be raised, or a bump is under way.
	NothingToBump {
		/// The splice.
		id: SpliceId,
	},
	/// It is signed already, and cannot be taken back.
	TooLate {
		/// The splice.
		id: SpliceId,
	},
	/// The splices of this store are open already: a second keeper would hand them to LDK twice. Use
	/// the first, or drop it.
	AlreadyOpen,
	/// LDK's manager could not be persisted, which has to come first.
	ManagerNotPersisted {
		/// The error.
		message: String,
	},
	/// The operating system gives no random numbers.
	NoRandomness,
}

impl SpliceError {
	/// Whether the same request may succeed later, with nothing repaired.
	pub fn is_retriable(&self) -> bool {
		match self {
			Self::Store(error) => error.is_retriable(),
			Self::NotNow { .. }
			| Self::TooMany { .. }
			| Self::ManagerNotPersisted { .. }
			| Self::NoRandomness => true,
			_ => false,
		}
	}
}

impl fmt::Display for SpliceError {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		match self {
			Self::Store(error) => error.fmt(f),
			Self::UnknownChannel => {
				f.write_str("there is no such channel with that peer; see the list of channels")
			},
			Self::ChannelClosing => f.write_str("the channel is being closed"),
			Self::BadAmount { amount_sat, least_sat } => {
				write!(f, "{amount_sat} sat cannot be spliced: at least {least_sat}, and no more than there are bitcoins")
			},
			Self::BadOutputs { count } => write!(
				f,
				"a splice-out pays 1 to {} outputs, and not {count}",
				crate::keeper::MAX_OUTPUTS
			),
			Self::BadFeeBand => {
				f.write_str("the lowest fee rate must not be zero, nor above the highest")
			},
			Self::ScriptInUse { script } => {
				write!(
					f,
					"a pending splice of this channel pays to {script:x} already; use another"
				)
			},
			Self::InputReserved { input } => {
				write!(f, "{input} is reserved for another splice; leave it out of the selection")
			},
			Self::InputSpent => f.write_str("a selected coin is spent; sync the wallet"),
			Self::TooMany { limit } => write!(f, "{limit} splices wait already; let some finish"),
			Self::Refused(reason) => write!(f, "it was refused: {reason}"),
			Self::NotNow { message } => {
				write!(f, "the channel cannot be spliced now: {}", message.escape_debug())
			},
			Self::NoSuchSplice { id } => write!(f, "no splice {id} is going on"),
			Self::NothingToBump { id } => {
				write!(f, "splice {id} has nothing negotiated to bump, or is being bumped")
			},
			Self::TooLate { id } => write!(f, "splice {id} is signed and cannot be taken back"),
			Self::AlreadyOpen => f.write_str(
				"the splices of this store are open already: use that keeper, or drop it first",
			),
			Self::ManagerNotPersisted { message } => {
				write!(f, "the manager could not be persisted: {message}")
			},
			Self::NoRandomness => f.write_str("the operating system gives no random numbers"),
		}
	}
}

impl std::error::Error for SpliceError {
	fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
		match self {
			Self::Store(error) => Some(error),
			_ => None,
		}
	}
}

impl From<StoreError> for SpliceError {
	fn from(error: StoreError) -> Self {
		Self::Store(error)
	}
}
