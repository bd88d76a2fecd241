// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! The answer to an invoice that is submitted.

/// The answer to [`Payouts::submit_invoice`](crate::Payouts::submit_invoice).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Submitted {
	/// The invoice is accepted, and will be paid.
	Accepted,
	/// The debt had failed, and the invoice has opened it again.
	Reopened,
	/// The invoice takes the place of one that could not be paid.
	Replaced,
}
