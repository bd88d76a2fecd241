// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The answer of a node, which may come later.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// An answer that is there now or later, and is looked at in each [tick](crate::Payouts::tick).
pub struct Reply<T>(Arc<Mutex<Option<T>>>);

/// The other end of a [`Reply`]. Dropped without an answer, the reply stays empty, and counts as no
/// answer after [`call_timeout`](crate::PayoutOptions::call_timeout).
pub struct Completer<T>(Arc<Mutex<Option<T>>>);

impl<T> Reply<T> {
	/// Makes a reply whose answer is there.
	pub fn ready(answer: T) -> Self {
		Self(Arc::new(Mutex::new(Some(answer))))
	}

	/// Makes a reply that is completed later, or never.
	pub fn pair() -> (Completer<T>, Self) {
		let slot = Arc::new(Mutex::new(None));
		(Completer(Arc::clone(&slot)), Self(slot))
	}

	/// Makes a reply that is never completed: what it would say is not known.
	pub fn never() -> Self {
		Self::pair().1
	}

	/// Takes the answer, if it is there.
	pub fn take(&self) -> Option<T> {
		self.0.lock().take()
	}
}

impl<T> Completer<T> {
	/// Gives the answer.
	pub fn complete(self, answer: T) {
		*self.0.lock() = Some(answer);
	}
}

impl<T> fmt::Debug for Reply<T> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Reply")
	}
}

impl<T> fmt::Debug for Completer<T> {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.write_str("Completer")
	}
}
