// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! Options of [`Payouts`](crate::Payouts).

use std::fmt;
use std::time::Duration;

use crate::events::PayoutObserver;
use crate::invoice::InvoiceRules;
use crate::notice::Notices;

/// Options of [`Payouts`](crate::Payouts).
#[derive(Clone)]
pub struct PayoutOptions {
	/// The rules for invoices.
	pub invoices: InvoiceRules,
	/// The function that passes on what payees and operators are told, in the same commit as its cause.
	/// None unless set otherwise.
	pub notices: Option<Notices>,
	/// The number of calls of the node that are under way at once. 64 unless set otherwise.
	pub max_calls: usize,
	/// The time that a call of the node may take. 30 seconds unless set otherwise.
	pub call_timeout: Duration,
	/// The pause after the first attempt that did not pay; it doubles with each, up to
	/// [`longest_pause`](PayoutOptions::longest_pause). A minute unless set otherwise.
	pub retry_pause: Duration,
	/// The longest pause between two attempts. An hour unless set otherwise.
	pub longest_pause: Duration,
	/// The time between two looks at an attempt, or at a payment that is held. 15 seconds unless set
	/// otherwise.
	pub poll_interval: Duration,
	/// Trusts a store without a [`witness`](leyden_store::witness) to be the newest copy of itself.
	///
	/// `false` unless set otherwise: with a node that forgets payments, as LDK does, nothing then proves that
	/// an open debt was not paid after an old copy was taken, and it waits for an operator
	/// ([`Payouts::vouch`](crate::Payouts::vouch)). With `true`, the operator guarantees that no old copy is
	/// ever started.
	pub trust_store_without_witness: bool,
	/// The time between two ticks of [`Payouts::run`](crate::Payouts::run). A second unless set otherwise.
	pub tick_interval: Duration,
	/// The function that is told what an operator should know. None unless set otherwise.
	pub observer: Option<PayoutObserver>,
}

impl PayoutOptions {
	/// Makes the usual options, for invoices like these.
	pub fn new(invoices: InvoiceRules) -> Self {
		Self {
			invoices,
			notices: None,
			max_calls: 64,
			call_timeout: Duration::from_secs(30),
			retry_pause: Duration::from_secs(60),
			longest_pause: Duration::from_secs(3600),
			poll_interval: Duration::from_secs(15),
			trust_store_without_witness: false,
			tick_interval: Duration::from_secs(1),
			observer: None,
		}
	}
}

impl fmt::Debug for PayoutOptions {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		f.debug_struct("PayoutOptions")
			.field("invoices", &self.invoices)
			.field("max_calls", &self.max_calls)
			.field("call_timeout", &self.call_timeout)
			.field("retry_pause", &self.retry_pause)
			.field("poll_interval", &self.poll_interval)
			.finish_non_exhaustive()
	}
}
