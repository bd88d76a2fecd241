// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The answer to a debt that is added.

/// The answer to [`Payouts::add_debt`](crate::Payouts::add_debt).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Added {
	/// The debt is in the store now.
	Inserted,
	/// The debt was in the store, with the same terms.
	AlreadyExists,
}
