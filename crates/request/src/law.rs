// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! What is to be done with a request, as a pure function: the law.

/// What is stored of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
	/// Nothing.
	Nothing,
	/// It was begun.
	Started(Owner),
	/// It has an answer.
	Answered(Expiry),
	/// It had one, which is forgotten.
	Remembered(Expiry),
}

/// Who began it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
	/// Somebody of this process, who is at it.
	Alive,
	/// Somebody who will not finish: a process that ended, or a caller that panicked.
	Dead,
}

/// Whether its time is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
	/// It is not, by the clock and by steady time.
	Live,
	/// The clock says so, and nobody knows whether it is right.
	Doubtful,
	/// It is.
	Expired {
		/// What was done is known to be dead, and may be done again.
		is_dead: bool,
	},
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
	/// Write it down, and run it.
	Run,
	/// As [`Run`](Decision::Run), in place of what is there.
	RunAgain,
	/// Wait for who is at it.
	Wait,
	/// Look what became of it before anything else.
	Recover,
	/// Give the stored answer.
	Replay,
	/// Refuse: the same key with other parameters.
	Conflict,
	/// Refuse: its time is over.
	Stale,
}

/// The law. `same` is whether the parameters are those that are stored.
pub fn decide(found: Found, same: bool) -> Decision {
	match (found, same) {
		(Found::Nothing, _) => Decision::Run,
		// Also when it is over: what the key stands for was asked for with other parameters.
		(_, false) => Decision::Conflict,
		(Found::Started(Owner::Alive), true) => Decision::Wait,
		// However old it is: its effect may have happened.
		(Found::Started(Owner::Dead), true) => Decision::Recover,
		(Found::Answered(Expiry::Live), true) => Decision::Replay,
		(
			Found::Answered(Expiry::Expired { is_dead: true })
			| Found::Remembered(Expiry::Expired { is_dead: true }),
			true,
		) => Decision::RunAgain,
		// An answer that was forgotten cannot be given, whatever the clock shows now.
		(Found::Answered(_) | Found::Remembered(_), true) => Decision::Stale,
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	/// Every cell of the matrix.
	#[test]
	fn the_matrix() {
		use Decision::*;
		use Expiry::{Doubtful, Expired, Live};
		use Found::*;
		let dead = Expired { is_dead: true };
		let over = Expired { is_dead: false };
		for (found, same, different) in [
			(Nothing, Run, Run),
			(Started(Owner::Alive), Wait, Conflict),
			(Started(Owner::Dead), Recover, Conflict),
			(Answered(Live), Replay, Conflict),
			(Answered(Doubtful), Stale, Conflict),
			(Answered(over), Stale, Conflict),
			(Answered(dead), RunAgain, Conflict),
			(Remembered(Live), Stale, Conflict),
			(Remembered(Doubtful), Stale, Conflict),
			(Remembered(over), Stale, Conflict),
			(Remembered(dead), RunAgain, Conflict),
		] {
			assert_eq!(decide(found, true), same, "{found:?}, same");
			assert_eq!(decide(found, false), different, "{found:?}, different");
		}
	}
}
