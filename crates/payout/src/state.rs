// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The states of a debt.

use std::fmt;

/// The state of a debt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
	/// The debt is decided; the money is still held, and not the node's.
	Decided,
	/// The money is in, and the payee's share is owed.
	Owed,
	/// The debt was paid.
	Paid,
	/// The payee is owed nothing: the node keeps everything.
	Kept,
	/// The payee gave no invoice in time: the node keeps everything.
	Forfeited,
	/// The invoice could not be paid. A fresh one within the window opens the debt again.
	Failed,
	/// The payment that was held is gone, and was never the node's: there is nothing to pay out of.
	Void,
}

impl fmt::Display for State {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str(match self {
			Self::Decided => "decided",
			Self::Owed => "owed",
			Self::Paid => "paid",
			Self::Kept => "kept",
			Self::Forfeited => "forfeited",
			Self::Failed => "failed",
			Self::Void => "void",
		})
	}
}
